"""What held-out texts tell of trained weights, and which texts are held out for it.

Training makes logits larger than they may be for other texts: those of training texts are right
already. Held-out texts tell how much smaller they have to be, by one scale. Its inverse is the
temperature of Guo, Pleiss, Sun and Weinberger (2017, https://arxiv.org/abs/1706.04599).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.folds import join_groups
from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.scales import DIGITS, PRIOR_GROUPS
from sklearn_longbert._texts.reader import keys_of
from sklearn_longbert._training.head_start import LEAST_SCALE
from sklearn_longbert._training.labelled import Labelled

MOST_WITHOUT = 500  # groups or distinct texts, of which all train
FRACTION = 0.1  # of more than these is held out
MOST_HELD_OUT = 500  # groups or distinct texts
LEAST_LEFT = 0.8  # of each class trains


def least_loss(
    logits: NDArray[np.float64], dataset: DocumentDataset, kind: LinearKind, scalable: bool
) -> tuple[float, float]:
    """Return the loss of held-out documents at the best scale of their logits, and the scale.

    A prior draws the scale to 1, so that a few texts hardly move it.

    Parameters
    ----------
    logits : ndarray of shape (n_documents, n_outputs)
    dataset : DocumentDataset
    kind : LinearKind
    scalable : bool
        If not, the scale is 1.

    Returns
    -------
    loss : float
        It is infinite or NaN if logits are.
    scale : float
        At most 1: a few texts that all are right would make it large.
    """
    y, weights = dataset.targets.numpy(), dataset.weights.numpy().reshape(len(dataset), -1)
    prior = PRIOR_GROUPS / len(set(keys_of(dataset.documents)))

    def loss(scale: float) -> float:
        with np.errstate(all="ignore"):  # logits may be unlikely, or infinite
            losses = kind.losses(scale * logits, y).reshape(len(y), -1)
            return float((weights * losses).mean())

    def objective(scale: float) -> float:
        return loss(scale) + prior * (scale - 1) ** 2 / 2

    scale = 1.0
    if scalable and np.isfinite(loss(scale)):
        found = minimize_scalar(objective, bounds=(LEAST_SCALE, 1), method="bounded").x
        # the bounds themselves are not tried, and the last digits are left open
        scale = min((1.0, LEAST_SCALE, float(f"{found:.{DIGITS}g}")), key=objective)
    return loss(scale), scale


def _sums_of(numbers: NDArray[np.intp], rows: csr_array) -> csr_array:
    """Return the sums of the rows that have the same number."""
    shape = numbers.max() + 1, len(numbers)
    ones = np.ones(len(numbers), dtype=np.intp)
    return csr_array(csr_array((ones, (numbers, np.arange(len(numbers)))), shape=shape) @ rows)


def some_of_many(
    data: Labelled, targets: Targets, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    """Return the rows of texts to be held out, in their order; none where texts are few.

    Equal texts are on one side, and texts of a group. Each class keeps most of its distinct texts
    and of its groups, so that those of a rare class all train. Where these are so many that less
    than half of the wanted texts is left, none is held out. Nothing is drawn where texts are few.
    """
    none = np.zeros(0, dtype=np.intp)
    if len(data.inputs) <= MOST_WITHOUT:
        return none
    keys = join_groups(keys_of(data.inputs))
    units = join_groups(keys, data.groups)  # groups or distinct texts, from 0
    n_units = units.max() + 1
    if n_units <= MOST_WITHOUT:
        return none
    texts = _sums_of(keys, targets.members(data.y)).sign()  # copies count once
    unit_of = np.zeros(texts.shape[0], dtype=np.intp)
    unit_of[keys] = units
    of_units = _sums_of(unit_of, texts)
    left = np.stack(
        [np.asarray(of_units.sum(axis=0)), np.bincount(of_units.indices, minlength=texts.shape[1])]
    )
    least = LEAST_LEFT * left
    n_wanted = min(int(FRACTION * n_units), MOST_HELD_OUT)
    held_out: list[int] = []
    for unit in random_state.permutation(n_units).tolist():
        entries = slice(of_units.indptr[unit], of_units.indptr[unit + 1])
        classes, counts = of_units.indices[entries], of_units.data[entries]
        after = left[:, classes] - np.stack([counts, np.ones_like(counts)])
        if (after >= least[:, classes]).all():
            left[:, classes] = after
            held_out.append(unit)
        if len(held_out) == n_wanted:
            break
    return np.flatnonzero(np.isin(units, held_out)) if 2 * len(held_out) >= n_wanted else none
