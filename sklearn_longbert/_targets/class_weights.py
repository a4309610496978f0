"""The weights that classes give their texts."""

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

from sklearn_longbert._texts.checks import show

ClassWeight = dict[Any, float] | str | None


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
        If a weight is not a number within limits, or belongs to no class.
    """
    if (
        class_weight == "balanced"
    ):  # by weighted counts, so that a weight of k is as good as k copies
        present = np.unique(indices)
        of_present = compute_class_weight(
            "balanced", classes=present, y=indices, sample_weight=weights
        )
        return of_present[np.searchsorted(present, indices)]
    for label, weight in (class_weight if isinstance(class_weight, dict) else {}).items():
        # within limits, so that products with sample weights neither overflow nor vanish
        if not (isinstance(weight, Real) and 1e-50 <= weight <= 1e50):
            raise ValueError(
                f"class_weight must be finite and above 0, from 1e-50 to 1e50, got "
                f"{show(weight)} for {label!r}: to leave a class out, leave out its texts."
            )
    # of all classes, because a part of the texts may lack one that has a weight
    return compute_class_weight(class_weight, classes=classes, y=classes)[indices]
