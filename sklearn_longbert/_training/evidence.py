"""What held-out texts tell of trained weights, and which texts are held out for it.

Training makes logits larger than they may be for other texts: those of training texts are right
already. Held-out texts tell how much smaller they have to be, by one scale. Its inverse is the
temperature of Guo, Pleiss, Sun and Weinberger (2017, https://arxiv.org/abs/1706.04599).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.folds import join_groups
from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.scales import DIGITS
from sklearn_longbert._texts.reader import keys_of
from sklearn_longbert._training.labelled import Labelled

MOST_WITHOUT = 2000  # groups or distinct texts, of which all train
FRACTION = 0.1  # of more than these is held out
MOST_HELD_OUT = 500  # groups or distinct texts
LEAST_LEFT = 0.8  # of each class trains
LEAST_SCALE = 0.1  # a head of zeros would give the encoder no gradient
PRIOR_TEXTS = 3  # as strong as the evidence of so many texts is the prior of a scale of 1


def least_loss(
    logits: NDArray[np.float64], dataset: DocumentDataset, kind: LinearKind, scalable: bool
) -> tuple[float, float]:
    """Return the least loss of held-out documents over all scales of their logits, and the scale.

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
    scale : float
        At most 1: a few texts that all are right would make it large.
    """
    y, weights = dataset.targets.numpy(), dataset.weights.numpy().reshape(len(dataset), -1)
    prior = PRIOR_TEXTS / len(dataset)

    def loss(scale: float) -> float:
        with np.errstate(under="ignore"):  # exponentials of unlikely logits
            losses = kind.losses(scale * logits, y).reshape(len(y), -1)
        return float((weights * losses).sum() / weights.sum())

    def objective(scale: float) -> float:
        return loss(scale) + prior * (scale - 1) ** 2 / 2

    scale = 1.0
    if scalable:
        found = minimize_scalar(objective, bounds=(LEAST_SCALE, 1), method="bounded").x
        # the bounds themselves are not tried, and the last digits are left open
        scale = min((1.0, LEAST_SCALE, float(f"{found:.{DIGITS}g}")), key=objective)
    return loss(scale), scale


def some_of_many(
    data: Labelled, targets: Targets, random_state: np.random.RandomState
) -> NDArray[np.intp]:
    """Return the rows of texts to be held out, in their order; none where texts are few.

    Equal texts are on one side, and texts of a group. Each class keeps most of its texts, so that
    those of a rare class all train. Nothing is drawn where texts are few.
    """
    units = join_groups(keys_of(data.inputs), data.groups)  # groups or distinct texts, from 0
    none = np.zeros(0, dtype=np.intp)
    if len(units) == 0 or units.max() < MOST_WITHOUT:
        return none
    by_unit = np.argsort(units, kind="stable")
    rows_of = np.split(by_unit, np.flatnonzero(np.diff(units[by_unit])) + 1)
    n_wanted = min(int(FRACTION * len(rows_of)), MOST_HELD_OUT)
    held_out: list[NDArray[np.intp]] = []
    left = targets.class_counts(data.y)
    least = LEAST_LEFT * left
    for unit in random_state.permutation(len(rows_of)):
        after = left - targets.class_counts(data.y[rows_of[unit]])
        if (after >= least).all():
            left = after
            held_out.append(rows_of[unit])
        if len(held_out) == n_wanted:
            break
    return np.sort(np.concatenate([none, *held_out]))
