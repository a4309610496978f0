"""Scales of several models' logits: how far each can be trusted beside the others.

Invariants: a scale is never negative; scales multiply logits of rows that no model was fitted on;
a weight of k equals k copies, and the scale of the weights does not matter.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.pooled_linear import Floats

PRIOR_GROUPS = 3  # as strong as the evidence of so many groups or texts is a prior of scales
DIGITS = 6  # significant ones of a scale
RIDGE = 1e-3  # of the mean square of the scaled sum: keeps scales finite where it makes no error


def fit_scales(
    parts: Sequence[Floats],
    y: NDArray,
    weights: NDArray,
    kind: LinearKind,
    least: float | Sequence[float] = 0.0,
    prior: float = 0.0,
) -> NDArray[np.float64]:
    """Return the scales at which the weighted loss of the sum of the scaled parts is least.

    Parameters
    ----------
    parts : sequence of ndarray of shape (n_rows, n_outputs)
        Out-of-fold logits of each model. Rows with NaN in any part are left out.
    y : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Targets, as the loss takes them.
    weights : ndarray of shape (n_rows,) or (n_rows, n_outputs)
    kind : LinearKind
    least : float or sequence of float, default=0
        The least scale, of all parts or of each.
    prior : float, default=0
        Half of it multiplies the squared distance of the scales from those of the parts' average.

    Returns
    -------
    scales : ndarray of shape (n_parts,)
        A model that does not help has its least scale. If that is 0, the others have the same
        scales as without it. Without rows, the parts are averaged.
    """
    if not parts:
        return np.zeros(0)
    logits = np.stack(parts)  # (n_parts, n_rows, n_outputs)
    known = np.isfinite(logits).all(axis=(0, 2))
    of_known = weights[known]
    if of_known.sum() == 0:
        return np.full(len(logits), 1 / len(logits))
    logits, tested = logits[:, known], y[known]
    of_outputs = of_known.reshape(len(of_known), -1)
    of_outputs = of_outputs * of_outputs.shape[1] / of_outputs.sum()

    def objective(scales: Floats) -> tuple[float, Floats]:
        outputs = (scales[:, None, None] * logits).sum(axis=0)
        ridge = RIDGE * of_outputs * outputs
        losses = of_outputs * kind.losses(outputs, tested).reshape(len(tested), -1)
        slopes = of_outputs * kind.slopes(outputs, tested) + ridge
        pulls = prior * (scales - 1 / len(scales))
        penalty = (ridge * outputs).sum() / 2 + pulls @ (scales - 1 / len(scales)) / 2
        return float(losses.sum() + penalty), (logits * slopes).sum(axis=(1, 2)) + pulls

    bounds = np.broadcast_to(least, len(logits))
    scales: Floats = minimize(
        objective,
        np.full(len(logits), 1 / len(logits)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(bound, None) for bound in bounds],
        options={"ftol": 1e-14, "gtol": 1e-8},
    ).x
    chosen = np.flatnonzero((scales > 0) | (bounds > 0))
    if len(chosen) < len(scales):  # bit for bit as if the others were not there
        scales = np.zeros(len(scales))
        rest = [parts[index] for index in chosen.tolist()]
        scales[chosen] = fit_scales(rest, y, weights, kind, bounds[chosen].tolist(), prior)
    # the digits that the optimizer leaves open depend on the order of the rows
    return np.array([float(f"{scale:.{DIGITS}g}") for scale in scales])


def scaled_sum(
    parts: Sequence[Floats], scales: NDArray[np.float64], weights: NDArray | None = None
) -> Floats:
    """Return the sum of the scaled parts, the same for all rows that are NaN in any part.

    These rows get the mean of the others, or 0 where there are no others.

    Parameters
    ----------
    parts : sequence of ndarray of shape (n_rows, n_outputs)
    scales : ndarray of shape (n_parts,)
    weights : ndarray of shape (n_rows,) or (n_rows, n_outputs) or None
        Weights of the rows in that mean. None are equal ones.
    """
    outputs = (scales[:, None, None] * np.stack(parts)).sum(axis=0)
    known = np.isfinite(outputs).all(axis=1)
    if known.all():
        return outputs
    weights = np.ones(len(outputs)) if weights is None else weights
    of_known = weights.reshape(len(outputs), -1)[known]
    sums = of_known.sum(axis=0)
    outputs[~known] = (of_known * outputs[known]).sum(axis=0) / np.where(sums == 0, 1.0, sums)
    return outputs
