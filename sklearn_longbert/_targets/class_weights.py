"""The weights that classes give their texts."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from sklearn_longbert._texts.checks import show

ClassWeight = dict[Any, float] | list[dict[Any, float]] | str | None

LEAST, MOST = 1e-50, 1e50  # products with sample weights neither overflow nor vanish


def weights_of_classes(
    class_weight: ClassWeight,
    indices: NDArray[np.int64],
    weights: NDArray[np.float64],
    classes: NDArray[Any],
) -> NDArray[np.float64]:
    """Return the weight that its class gives each text.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
    indices : ndarray of int, of shape (n_samples,)
        The class of each text.
    weights : ndarray of shape (n_samples,)
        Weights of the texts, by which "balanced" counts them.
    classes : ndarray of shape (n_classes,)

    Raises
    ------
    ValueError
        If `class_weight` is a list, a weight is no number within limits, or a key is no class.
    """
    if class_weight is None:
        return np.ones(len(indices))
    if isinstance(class_weight, str):  # by weighted counts, so that a weight of k equals k copies
        present = np.unique(indices)
        of_present = compute_class_weight(
            "balanced", classes=present, y=indices, sample_weight=weights
        )
        return of_present[np.searchsorted(present, indices)]
    if isinstance(class_weight, list):
        raise ValueError(
            "class_weight is a list, which is for several labels a text, with one dict for each "
            'column of an indicator matrix: pass one dict, "balanced" or None.'
        )
    known = {label: index for index, label in enumerate(classes.tolist())}
    of_classes = np.ones(len(classes))  # all of them, because these texts may lack some
    for label, weight in class_weight.items():
        if label not in known:
            raise ValueError(
                f"class_weight has the key {show(label)}, which is not among the classes "
                f"{show(classes.tolist())}: its keys are {show(list(class_weight))}."
            )
        # A scalar of NumPy's float32 cannot be compared with MOST.
        number: Any = weight.item() if isinstance(weight, np.generic) else weight
        if not (isinstance(weight, Real) and LEAST <= number <= MOST):
            raise ValueError(
                f"class_weight must be finite and above 0, from {LEAST:g} to {MOST:g}, got "
                f"{show(weight)} for {label!r}: to leave a class out, leave out its texts."
            )
        of_classes[known[label]] = number
    return of_classes[indices]


def weights_of_labels(
    class_weight: ClassWeight, y: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the weight that its class, 0 or 1, gives each label of each text.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None
        A list has one dict for each label.
    y : ndarray of int, of shape (n_samples, n_labels)
    weights : ndarray of shape (n_samples,)

    Raises
    ------
    ValueError
        If a list has another length than there are labels, a weight is no number within limits,
        or a key is not 0 or 1.
    """
    n_labels = y.shape[1]
    of_labels = class_weight if isinstance(class_weight, list) else [class_weight] * n_labels
    if len(of_labels) != n_labels:
        raise ValueError(
            f"class_weight is a list of {len(of_labels)} where y has {n_labels} columns: pass one "
            f"dict for each column."
        )
    for index, one in enumerate(of_labels):
        if isinstance(class_weight, list) and not isinstance(one, dict):
            raise ValueError(
                f"class_weight at index {index} is {show(one)} where a dict with the keys 0 and 1 "
                f"is expected."
            )
    try:
        return np.column_stack(
            [
                weights_of_classes(one, column, weights, np.arange(2))
                for one, column in zip(of_labels, y.T, strict=True)
            ]
        )
    except ValueError as error:
        raise ValueError(
            f"{error} With several labels a text, the classes of each label are 0 and 1: pass "
            f"one dict with these keys for all labels, or a list with one dict for each."
        ) from error
