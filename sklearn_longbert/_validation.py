"""Check texts, targets and weights as they come from the caller.

Every error says what was found, at which index, and what to do about it.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, column_or_1d

ACCEPTED = "a list, tuple, NumPy array, or pandas, polars or pyarrow column of str"


def is_missing(value: Any) -> bool:
    """Whether `value` is None, NaN, pd.NA, pd.NaT, NumPy's or PyArrow's null."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and bool(value != value)


def as_column(X: Any, name: str = "X") -> NDArray[np.object_]:
    """Return any accepted container as an object array of shape (n_samples,).

    The elements are left as they are. A data frame or table must have one column.
    """
    if isinstance(X, str | bytes):
        raise ValueError(
            f"{name} is a single {type(X).__name__} where {ACCEPTED} is expected: "
            f"for one text, pass it in a list, [{name}]."
        )
    is_sequence = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    if isinstance(X, dict) or not (is_sequence or hasattr(X, "__array__")):
        raise TypeError(
            f"{name} is a {type(X).__name__} where {ACCEPTED} is expected: "
            f"pass list({name}) if its elements are the texts."
        )
    is_frame = hasattr(X, "columns")
    if is_frame and X.shape[1] != 1:
        raise ValueError(
            f"{name} has shape {tuple(X.shape)} where {ACCEPTED}, of shape (n_samples,), is "
            f"expected: select the column that holds the texts."
        )
    column = check_array(
        X,
        dtype=object,
        ensure_2d=False,
        allow_nd=True,
        ensure_all_finite=False,
        ensure_min_samples=0,
        ensure_min_features=0,
        input_name=name,
    )
    if isinstance(X, np.ma.MaskedArray) and X.mask is not np.ma.nomask:
        column = np.where(X.mask, None, column)
    if is_frame:
        column = column[:, 0]
    if column.ndim != 1:
        cure = (
            f"pass the column that holds the texts, such as {name}[:, 0]"
            if column.ndim
            else f"for one text, pass it in a list, [{name}]"
        )
        raise ValueError(
            f"{name} has shape {column.shape} where {ACCEPTED}, of shape (n_samples,), is "
            f"expected: {cure}."
        )
    if len(column) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required: "
            f"{name} is empty, pass at least one text."
        )
    return column


def check_texts(X: Any, name: str = "X") -> list[str]:
    """Return `X` as a list of str, or say which element is not a text.

    Parameters
    ----------
    X : array-like of shape (n_samples,)
        A list, tuple, NumPy array (object, str, StringDType), pandas or polars Series,
        pyarrow array, or a frame with one column.
    name : str, default="X"
        What the error messages call it.

    Returns
    -------
    texts : list of str

    Raises
    ------
    ValueError
        If `X` is empty, a single text or not one-dimensional, or if an element is missing
        or cannot be encoded in UTF-8.
    TypeError
        If `X` is no such container, or an element is not a str.
    """
    texts = as_column(X, name).tolist()
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            _raise_not_a_text(text, index, name)
        if not text.isascii():
            _check_encodable(text, index, name)
        if type(text) is not str:
            texts[index] = str(text)
    return texts


def _raise_not_a_text(value: Any, index: int, name: str) -> None:
    where = f"{name} at index {index} is"
    if is_missing(value):
        raise ValueError(
            f"{where} missing ({value!r}) where a str is expected: drop the row, or put an "
            f'empty text "" in its place.'
        )
    if isinstance(value, bytes):
        raise TypeError(f'{where} bytes where a str is expected: decode it, .decode("utf-8").')
    raise TypeError(
        f"{where} of type {type(value).__name__} where a str is expected: {name} must be "
        f"{ACCEPTED}."
    )


def _check_encodable(text: str, index: int, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} at index {index} has a lone surrogate, {text[error.start]!r}, at character "
            f"{error.start}, which is not valid Unicode: replace it, "
            f'text.encode("utf-8", "replace").decode("utf-8").'
        ) from error


def check_labels(y: Any, name: str = "y") -> NDArray[Any]:
    """Return class labels, of shape (n_samples,), or an indicator matrix, of several columns.

    Raises
    ------
    ValueError
        If `y` is None, has a missing label or continuous values, or has several columns that
        do not hold zeros and ones.
    """
    table = _target_table(y, name)
    if table is not None:
        return _check_indicator(table, name)
    labels = _target_column(y, name, one_kind=True)
    if labels.dtype == object and not isinstance(labels[0], str):
        labels = np.array(labels.tolist())  # numbers or bool: scikit-learn cannot tell which
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name=name)  # the next line would cast infinity, and warn
    check_classification_targets(labels)
    return labels


def check_values(y: Any, name: str = "y") -> NDArray[np.float64]:
    """Return regression targets as floats, of shape (n_samples,) or (n_samples, n_targets).

    Raises
    ------
    ValueError
        If `y` is None, or has a value that is missing, infinite or not a number.
    """
    values = _target_table(y, name)
    if values is None:
        values = _target_column(y, name, one_kind=False)
    if values.dtype.kind in "mM":
        raise ValueError(f"{name} holds dates or durations where numbers are expected: convert it.")
    if values.dtype.kind in "OSTU":
        _check_numbers(values, name)
    values = check_array(values, dtype=np.float64, ensure_2d=False, input_name=name)
    largest = np.unravel_index(np.abs(values).argmax(), values.shape)
    if abs(values[largest]) > np.finfo(np.float32).max:
        raise ValueError(
            f"{name} at index {largest[0]} is {values[largest]:g}, which float32, the type of the "
            f"predictions, cannot hold: use a larger unit."
        )
    return values


def _target_table(y: Any, name: str) -> NDArray[Any] | None:
    """Return targets of several columns, of which none is missing; None if there is one."""
    if issparse(y):
        y = y.toarray()
    if np.ma.is_masked(y):
        y = np.where(y.mask, None, y.data)
    sets_of_labels = (
        f"{name} holds sets of labels, or rows of different lengths: for several labels a text, "
        f"pass MultiLabelBinarizer().fit_transform({name})."
    )
    try:
        table = np.asarray(y)
    except ValueError as error:
        raise ValueError(sets_of_labels) from error
    if table.dtype == object and table.ndim == 1:
        if any(isinstance(row, set | frozenset | list | tuple) for row in table.tolist()):
            raise ValueError(sets_of_labels)
        return None
    if table.ndim != 2 or table.shape[1] < 2:
        return None
    if table.dtype.kind in "fO":
        for index, row in enumerate(table.tolist()):
            if any(map(is_missing, row)):
                raise ValueError(
                    f"Input {name} contains NaN or another missing value at index {index}: drop "
                    f"the row, or give it a value."
                )
    return table


def _check_indicator(table: NDArray[Any], name: str) -> NDArray[np.int64]:
    is_known = (table == 0) | (table == 1)
    if not is_known.all():
        index = int(np.flatnonzero(~is_known.all(axis=1))[0])
        raise ValueError(
            f"{name} has {table.shape[1]} columns and is {table[index].tolist()} at index {index}, "
            f"where several columns are expected to be an indicator matrix of zeros and ones, one "
            f"column a label: for several targets of several classes each, use "
            f"sklearn.multioutput.MultiOutputClassifier."
        )
    return table.astype(np.int64)


def _target_column(y: Any, name: str, one_kind: bool) -> NDArray[Any]:
    """Return targets as an array of shape (n_samples,) in which none is missing.

    Where `one_kind` is set, either all or none of them must be str.
    """
    if y is None:
        raise ValueError(f"requires {name} to be passed, but the target {name} is None.")
    if np.ma.is_masked(y):
        y = np.where(y.mask, None, y.data)
    # pandas' nullable dtypes, which scikit-learn would make floats of
    numpy_dtype = getattr(getattr(y, "dtype", None), "numpy_dtype", None)
    if numpy_dtype is not None and not y.isna().any():
        y = y.to_numpy(dtype=numpy_dtype)
    if isinstance(y, list | tuple):  # NumPy makes a str of all that stands among str
        _check_elements(np.fromiter(y, dtype=object, count=len(y)), name, one_kind)
    column = column_or_1d(y, warn=True)
    _check_elements(column, name, one_kind)
    return column


def _check_numbers(values: NDArray[Any], name: str) -> None:
    n_columns = values.size // len(values)
    for position, value in enumerate(values.ravel().tolist()):
        index = position // n_columns
        try:
            float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{name} at index {index} is {value!r} where a number is expected: pass numbers, "
                f"or fit a classifier if these are class labels."
            ) from error


def _check_elements(targets: NDArray[Any], name: str, one_kind: bool) -> None:
    """Raise ValueError at the first target that is missing, or of another kind."""
    if targets.dtype.kind in "biuSU":
        return
    kinds = set()
    for index, target in enumerate(targets.tolist()):
        if is_missing(target):
            raise ValueError(
                f"Input {name} contains NaN or another missing value, {target!r}, at index "
                f"{index}: drop the row, or give it a value."
            )
        kinds.add(isinstance(target, str))
        if one_kind and len(kinds) > 1:
            raise ValueError(
                f"{name} mixes str with other types, first at index {index} with {target!r}: make "
                f"all of them str, or none."
            )


def check_lengths(
    texts: Sequence[Any] | NDArray[Any], targets: NDArray[Any], texts_name: str, targets_name: str
) -> None:
    """Raise ValueError unless there is one target a text."""
    if len(texts) != len(targets):
        raise ValueError(
            f"Found input variables with inconsistent numbers of samples: {texts_name} has "
            f"{len(texts)}, {targets_name} has {len(targets)}: pass one target for each text."
        )


def check_weights(
    sample_weight: ArrayLike | None, texts: Sequence[Any] | NDArray[Any]
) -> NDArray[np.float64]:
    """Return the weight of every text, ones where `sample_weight` is None.

    Raises
    ------
    ValueError
        If a weight is missing, infinite or negative, all are zero, or there is not one
        weight a text.
    """
    weights = _check_sample_weight(sample_weight, texts, dtype=np.float64, ensure_non_negative=True)
    if not weights.any():
        raise ValueError("All sample_weight are zero: at least one text needs a weight above 0.")
    return weights
