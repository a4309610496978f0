"""Check targets and weights as they come from the caller, and logits as they go back.

Every error says what was found, at which index, and what to do about it.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence, Sized
from collections.abc import Set as AbstractSet
from typing import Any, NoReturn
from warnings import warn

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from sklearn_longbert._texts.checks import is_missing, raise_no_array, show

MOST_VALUE = 1e300  # of a regression target
ONE_HOT_TEXTS = 10  # least texts; all of fewer may happen to have one label each
LEAST_WEIGHT = 1e-100  # relative to the largest; sums and logarithms of products of less underflow


def check_labels(y: Any, name: str = "y") -> NDArray[Any]:
    """Return class labels of shape (n_samples,), or an indicator matrix of several columns.

    Labels are str, bool, datetime64, timedelta64, or whole numbers of at most 64 bits.

    Raises
    ------
    ValueError
        If `y` is None, has a missing label or one of another type, or has several columns that
        do not hold zeros and ones.
    TypeError
        If labels are bytes, `y` is a mapping, a set or an iterator, or NumPy cannot make an array
        of it.
    """
    targets = _target_array(y, name)
    if targets.ndim == 2 and targets.shape[1] > 1:
        return _check_indicator(targets, name)
    labels = _check_column(targets, name)
    check_classification_targets(labels)
    return labels


def check_classes(classes: Any, name: str = "classes") -> NDArray[Any]:
    """Return the `classes` of `partial_fit`, with the dtype that :func:`check_labels` returns.

    Raises
    ------
    ValueError, TypeError
        In the same cases as :func:`check_labels`.
    """
    return _check_column(_target_array(classes, name), name)


def _check_column(targets: NDArray[Any], name: str) -> NDArray[Any]:
    labels = column_or_1d(targets, warn=True)
    _check_elements(labels, name)
    if labels.dtype.kind == "T":
        return labels.astype(object)  # scikit-learn cannot score StringDType
    if labels.dtype == object and len(labels) and not isinstance(labels[0], str):
        labels = np.array(labels.tolist())  # scikit-learn knows no numbers or bool as objects
    _check_label_type(labels, name)
    return labels


def _check_label_type(labels: NDArray[Any], name: str) -> None:
    """Raise an error at the first label of a type that scikit-learn does not take for a class."""
    kind, cure = "unknown", "make all labels str"
    if labels.dtype.kind == "f":
        _check_finite(labels, name)
        values = labels.astype(np.float64)
        is_label = (values == np.trunc(values)) & (np.abs(values) < 2.0**63)
        kind, cure = "continuous", "use LongBertRegressor, or make all labels str"
    elif labels.dtype.kind in "OS":
        is_label = np.array([_is_label(label) for label in labels.tolist()])
    else:
        return
    if is_label.all():
        return
    index = int(np.flatnonzero(~is_label)[0])
    label = labels.tolist()[index]
    if isinstance(label, bytes):
        raise TypeError(
            f"{name} at index {index} is bytes where a str is expected: decode it, "
            f'.decode("utf-8").'
        )
    raise ValueError(
        f"Unknown label type: {kind}. {name} at index {index} is {show(label)} where a str, a "
        f"bool or a whole number of at most 64 bits is expected: {cure}."
    )


def _is_label(value: Any) -> bool:
    if isinstance(value, int | np.integer):
        return bool(-(2**63) <= value < 2**64)
    return isinstance(value, str | np.bool)


def check_values(y: Any, name: str = "y") -> NDArray[np.float64]:
    """Return regression targets as floats, of shape (n_samples,) or (n_samples, n_targets).

    Raises
    ------
    ValueError
        If `y` is None, or has a value that is missing, infinite or not a number.
    TypeError
        If `y` is a mapping, a set or an iterator, or NumPy cannot make an array of it.
    """
    targets = _target_array(y, name)
    if targets.ndim != 2 or targets.shape[1] < 2:
        targets = column_or_1d(targets, warn=True)
        _check_elements(targets, name, one_kind=False)
    values = _as_floats(
        targets, name, "pass numbers, or fit a classifier if these are class labels"
    )
    largest = np.unravel_index(np.abs(values).argmax(), values.shape) if values.size else ()
    if largest and abs(values[largest]) > MOST_VALUE:
        raise ValueError(
            f"{name} at index {largest[0]} is {values[largest]:g}, more than {MOST_VALUE:g} in "
            f"size, where differences overflow: use a larger unit."
        )
    return values


def _target_array(y: Any, name: str) -> NDArray[Any]:
    """Return targets as an array of the caller's own dtype, in which masked ones are None.

    If there are several columns, no value may be missing.
    """
    if y is None:
        raise ValueError(f"requires {name} to be passed, but the target {name} is None.")
    targets = _as_array(y, name)
    if targets.dtype == object and targets.ndim and any(map(_is_nested, targets.ravel())):
        raise ValueError(
            f"{name} holds sets of labels, or rows of different lengths: for several labels a "
            f"text, pass MultiLabelBinarizer().fit_transform({name})."
        )
    if targets.ndim > 2 or targets.shape[1:] == (0,):
        raise ValueError(
            f"{name} should be a 1d array, or have a column for each of several targets, got an "
            f"array of shape {targets.shape} instead."
        )
    if targets.dtype.kind == "c":
        raise ValueError(
            f"{name} at index 0 is {show(targets.tolist()[0])}, a complex number, where a label or "
            f"a real number is expected: convert it."
        )
    if targets.dtype.kind == "V":
        raise ValueError(
            f"{name} has the structured dtype {targets.dtype}: pass the field that holds the "
            f'targets, such as {name}["{(targets.dtype.names or ("target",))[0]}"].'
        )
    if targets.ndim == 2 and targets.shape[1] > 1 and targets.dtype.kind in "fO":
        for index, row in enumerate(targets.tolist()):
            if any(map(is_missing, row)):
                raise ValueError(
                    f"Input {name} contains NaN or another missing value at index {index}: drop "
                    f"the row, or give it a value."
                )
    return targets


def _is_nested(value: Any) -> bool:
    return isinstance(value, set | frozenset | list | tuple | np.ndarray) and not is_missing(value)


def _as_array(values: Any, name: str) -> NDArray[Any]:
    """Return any container of numbers or labels as an array of the same values."""
    _check_container(values, name)
    if issparse(values):
        values = values.toarray()
    if isinstance(values, np.ma.MaskedArray) and values.dtype.names is None:
        if np.ma.is_masked(values):
            shown = values.data.astype(object)
            shown[np.ma.getmaskarray(values)] = None
            return shown
        return values.data
    # NumPy would make objects of pandas' nullable dtypes
    numpy_dtype = getattr(getattr(values, "dtype", None), "numpy_dtype", None)
    if numpy_dtype is not None and not values.isna().any():
        return values.to_numpy(dtype=numpy_dtype)
    elements = None
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        elements = np.fromiter(values, dtype=object)
        if any(isinstance(element, str) for element in elements):
            return _as_str_array(elements)
    try:
        return np.asarray(values)
    except Exception as error:
        if elements is not None:  # rows of different lengths
            return elements
        raise_no_array(values, name, error)


def _check_container(values: Any, name: str) -> None:
    """Raise an error if `values` is a str, or has no order or no length."""
    if isinstance(values, str | bytes):
        cure = 'set class_weight="balanced"' if values == "balanced" else "pass a list or an array"
        raise ValueError(f"{name}={values!r} where an array-like is expected: {cure}.")
    cures = {
        Mapping: f"pass list({name}.values()), if they are in the order of the texts",
        AbstractSet: "a set has no order, pass a list in the order of the texts",
        Iterator: f"pass list({name})",
    }
    for kind, cure in cures.items():
        if isinstance(values, kind):
            raise TypeError(
                f"{name} is a {type(values).__name__} where an array-like is expected: {cure}."
            )


def _as_str_array(elements: NDArray[np.object_]) -> NDArray[Any]:
    """Return an array of NumPy's str if all elements are str, else the elements unchanged.

    NumPy itself would make a str of every element. It would also drop a NUL at the end of a str,
    and take the name of an enumeration's member for its value.
    """
    if not all(isinstance(element, str) for element in elements):
        return elements
    plain = [str.__str__(element) for element in elements]
    cut = any(element.endswith("\0") for element in plain)
    return np.array(plain, dtype=object if cut else None)


def _check_indicator(table: NDArray[Any], name: str) -> NDArray[np.int64]:
    is_known = (table == 0) | (table == 1)
    if not is_known.all():
        index = int(np.flatnonzero(~is_known.all(axis=1))[0])
        raise ValueError(
            f"{name} has {table.shape[1]} columns and is {show(table[index].tolist())} at index "
            f"{index}, where several columns are expected to be an indicator matrix of zeros and "
            f"ones, one column a label: for several targets of several classes each, use "
            f"sklearn.multioutput.MultiOutputClassifier."
        )
    return table.astype(np.int64)


def warn_of_one_hot(labels: NDArray[Any], name: str = "y") -> None:
    """Warn of an indicator matrix that looks like classes: each of its rows has exactly one 1.

    Two columns may be there for explanations, as the guide recommends.
    """
    if labels.ndim < 2 or labels.shape[1] < 3 or len(labels) < ONE_HOT_TEXTS:
        return
    if (labels.sum(axis=1) == 1).all():
        warn(
            f"Each of the {len(labels)} rows of {name} has exactly one 1, but its columns are "
            f"learned apart, and predict may return several labels or none for a text: if each "
            f"text has one class, pass class labels, such as {name}.argmax(axis=1).",
            UserWarning,
            stacklevel=2,
        )


def _check_elements(targets: NDArray[Any], name: str, one_kind: bool = True) -> None:
    """Raise ValueError at the first target that is missing, or of another kind.

    Where `one_kind` is set, either all or none of them must be str.
    """
    if targets.dtype.kind in "biuSU":
        return
    kinds = set()
    for index, target in enumerate(targets.tolist()):
        if is_missing(target):
            _raise_missing(target, index, name)
        kinds.add(isinstance(target, str))
        if one_kind and len(kinds) > 1:
            raise ValueError(
                f"{name} mixes str with other types, first at index {index} with {show(target)}: "
                f"make all of them str, or none."
            )


def _raise_missing(value: Any, index: int, name: str) -> NoReturn:
    raise ValueError(
        f"Input {name} contains NaN or another missing value, {value!r}, at index {index}: drop "
        f"the row, or give it a value."
    )


def _as_floats(values: NDArray[Any], name: str, cure: str) -> NDArray[np.float64]:
    """Return finite numbers as float64, or raise ValueError with the row of another value."""
    if values.dtype.kind in "mM":
        raise ValueError(f"{name} holds dates or durations where numbers are expected: convert it.")
    if values.dtype.kind not in "biuf":
        n_columns = values.size // max(len(values), 1)
        floats = np.empty(values.size)
        for position, value in enumerate(values.ravel().tolist()):
            try:
                floats[position] = np.nan if is_missing(value) else float(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise ValueError(
                    f"{name} at index {position // n_columns} is {show(value)} where a number is "
                    f"expected: {cure}."
                ) from error
        values = floats.reshape(values.shape)
    with np.errstate(over="ignore"):  # overflow becomes infinity, which the check finds
        values = values.astype(np.float64)
    _check_finite(values, name)
    return values


def _check_finite(values: NDArray[np.floating[Any]], name: str) -> None:
    is_finite = np.isfinite(values)
    if is_finite.all():
        return
    row = tuple(np.argwhere(~is_finite)[0])
    if np.isnan(values[row]):
        _raise_missing(float(values[row]), int(row[0]), name)
    raise ValueError(
        f"Input {name} contains infinity, or a number that float64 cannot hold, at index {row[0]}: "
        f"give it another value."
    )


def check_lengths(texts: Sized, targets: NDArray[Any], texts_name: str, targets_name: str) -> None:
    """Raise ValueError unless there is one target for each text."""
    if len(texts) != len(targets):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {texts_name} has "
            f"{len(texts)}, {targets_name} has {len(targets)}: pass one target for each text."
        )


def check_logits(logits: NDArray[Any], name: str) -> None:
    """Raise ValueError at the first text whose logits are not finite.

    Parameters
    ----------
    logits : ndarray of shape (n_samples, n_outputs)
    name : str
        The estimator's.
    """
    is_finite = np.isfinite(logits).all(axis=1)
    if not is_finite.all():
        raise ValueError(
            f"The logits of X at index {int(np.argmin(is_finite))} are NaN or infinite: the "
            f"weights of {name} are not those of a fit, or too large for float32."
        )


def check_weights(sample_weight: ArrayLike | None, texts: Sized) -> NDArray[np.float64]:
    """Return the weight of every text, ones where `sample_weight` is None.

    Only the proportions of weights matter. So near the limits of float64, weights are multiplied
    by a power of two, which is exact. Weights below `LEAST_WEIGHT` times the largest become 0.

    Raises
    ------
    ValueError
        If a weight is missing, infinite, negative or not a number, if all are zero, or if there
        is not one weight for each text.
    """
    name = "sample_weight"
    if sample_weight is None:
        return np.ones(len(texts))
    given = _as_array(sample_weight, name)
    weights = _as_floats(np.atleast_1d(given), name, "pass numbers")
    if given.ndim == 0:
        weights = np.repeat(weights, len(texts))
    if weights.ndim > 1:
        raise ValueError(
            f"Sample weights must be 1D array or scalar, got an array of shape {weights.shape}: "
            f"pass one weight for each text."
        )
    if weights.shape != (len(texts),):
        raise ValueError(
            f"sample_weight.shape == {weights.shape}, expected {(len(texts),)}: pass one weight "
            f"for each text."
        )
    if (weights < 0).any():
        index = int(np.flatnonzero(weights < 0)[0])
        raise ValueError(
            f"Negative values in data passed to `sample_weight`, first {weights[index]:g} at index "
            f"{index}: pass 0 to leave a text out."
        )
    largest = weights.max()
    if largest == 0:
        raise ValueError(
            "Sample weights must contain at least one non-zero number: all sample_weight are zero."
        )
    if not LEAST_WEIGHT < largest < 1 / LEAST_WEIGHT:
        weights = np.ldexp(weights, -int(np.frexp(largest)[1]))
    weights[weights < LEAST_WEIGHT * weights.max()] = 0.0
    return weights


def check_groups(groups: ArrayLike | None, n_texts: int) -> NDArray[np.intp] | None:
    """Return the number of the group of every text, None where there are no groups.

    Raises
    ------
    ValueError
        If there is not one group for each text, or one is missing.
    """
    if groups is None:
        return None
    given = _as_array(groups, "groups")
    if given.shape != (n_texts,):
        raise ValueError(
            f"groups has shape {given.shape} where {(n_texts,)} is expected: pass one group for "
            f"each text."
        )
    for index, group in enumerate(given.tolist()):
        if is_missing(group):
            _raise_missing(group, index, "groups")
        if not isinstance(group, Hashable):
            raise TypeError(
                f"groups at index {index} is {show(group)}, which cannot be the name of a group: "
                f"pass a str or an int."
            )
    number_of: dict[Any, int] = {}  # not np.unique: groups need no order
    return np.array([number_of.setdefault(group, len(number_of)) for group in given.tolist()])
