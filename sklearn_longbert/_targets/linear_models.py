"""Kinds of linear models, and the choice of their penalty by cross-validation.

Invariants: the penalty is the one whose weighted loss is least on rows that a model was not fitted
on; what such models say of these rows is kept; and a class or label that no row has is unlikely,
but not impossible.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.linear_model import ridge_regression

from sklearn_longbert._targets.pooled_linear import (
    Embeddings,
    Floats,
    Linear,
    Loss,
    Penalty,
    fit_linear,
)

# factors of the squared coefficients, beside a mean loss
PENALTIES: Floats = np.array([10.0**power for power in range(1, -6, -1)])
NO_CHOICE = 1e-2  # the penalty where texts are too few to cross-validate
MOST_LABELS = 16  # that have a penalty of their own; of more, so many choose one for all


@dataclass(frozen=True)
class LinearKind:
    """A kind of linear model: its loss, and how it is fitted.

    Attributes
    ----------
    n_outputs : int
    losses : callable
        Maps logits and targets to losses, of shape (n_rows,) or (n_rows, n_outputs).
    slopes : callable
        Maps them to the derivatives of the losses by the logits, (n_rows, n_outputs).
    solve : callable
        Maps embeddings, targets, weights that sum to 1, and a penalty to a model.
    weighs_outputs : bool, default=False
        Whether each output has a loss and weights of its own.
    """

    n_outputs: int
    losses: Loss
    slopes: Loss
    solve: Callable[[Embeddings, NDArray, Floats, Penalty], Linear]
    weighs_outputs: bool = False

    def of_outputs(self, weights: NDArray) -> NDArray:
        """Return weights of texts as the losses take them: of each output, if they are many."""
        if not self.weighs_outputs:
            return weights
        return np.broadcast_to(weights.reshape(len(weights), -1), (len(weights), self.n_outputs))

    def fit(self, embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
        """Return the model of these rows, whose weights need not sum to 1."""
        sums = weights.sum(axis=0)
        return self.solve(embeddings, y, weights / np.where(sums == 0, 1.0, sums), penalty)


def softmax_model(n: int) -> LinearKind:
    """Return the kind for one of `n` classes."""
    return LinearKind(n, softmax_losses, softmax_slopes, partial(_fit_classes, n=n))


def sigmoid_models(n: int) -> LinearKind:
    """Return the kind for `n` labels."""
    return LinearKind(n, sigmoid_losses, sigmoid_slopes, _fit_labels, True)


def square_models(n: int) -> LinearKind:
    """Return the kind for `n` numbers."""
    return LinearKind(n, squared_losses, squared_slopes, _fit_squares)


@dataclass(frozen=True)
class FoldRows:
    """The rows of one fold.

    Attributes
    ----------
    train, test : ndarray of int
        Numbers of the rows.
    of_train, of_test : Embeddings
        The rows themselves, whose features the test rows may not have decided.
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    of_train: Embeddings
    of_test: Embeddings


def choose_penalty(
    folds: Iterable[FoldRows],
    y: NDArray,
    weights: Floats,
    kind: LinearKind,
    no_choice: float = NO_CHOICE,
) -> tuple[Penalty, Floats]:
    """Choose the penalty that predicts best, of all outputs or of each of a few labels.

    Parameters
    ----------
    folds : iterable of FoldRows
    y : ndarray of shape (n_rows,) or (n_rows, n_outputs)
    weights : ndarray of shape (n_rows,) or (n_rows, n_outputs)
    kind : LinearKind
    no_choice : float
        The penalty where nothing can be tested.

    Returns
    -------
    penalty : float or ndarray of shape (n_outputs,)
    out_of_fold : ndarray of shape (n_rows, n_outputs)
        Logits by the models of that penalty that were fitted without the row. NaN in rows that no
        fold tests.
    """
    folds = list(folds)
    penalty, out_of_fold = _search(folds, y, weights, kind, no_choice)
    if out_of_fold is None:
        out_of_fold = _cross_validate(folds, y, weights, kind, [penalty])[1][0]
    return penalty, out_of_fold


def penalty_of_some(
    folds: Iterable[FoldRows],
    y: NDArray,
    weights: Floats,
    kind: LinearKind,
    no_choice: float = NO_CHOICE,
) -> Penalty:
    """Return the penalty that :func:`choose_penalty` chooses, and predict nothing."""
    return _search(list(folds), y, weights, kind, no_choice)[0]


def lower_penalty(
    folds: Callable[[], Iterable[FoldRows]],
    y: NDArray,
    weights: Floats,
    kind: LinearKind,
    penalty: Penalty,
) -> tuple[Penalty, Floats]:
    """Divide a penalty by ten as long as the loss falls, since more rows need a smaller one.

    Parameters
    ----------
    folds : callable
        Returns the rows of each fold, anew at each call, so that those of one are in memory.
    y, weights, kind
        As in :func:`choose_penalty`.
    penalty : float or ndarray of shape (n_outputs,)
        One of all outputs, or of each, which is lowered alone.

    Returns
    -------
    penalty, out_of_fold
        As :func:`choose_penalty` returns them.
    """
    best: Floats = np.asarray(penalty)
    least, out_of_fold = _out_of_fold(folds(), y, weights, kind, best)
    falls = np.full(best.shape, True)
    while (falls := falls & (best > 2 * PENALTIES.min())).any():
        losses, outputs = _out_of_fold(folds(), y, weights, kind, best / 10)
        falls &= losses < least
        best, least = np.where(falls, best / 10, best), np.where(falls, losses, least)
        out_of_fold = np.where(falls, outputs, out_of_fold)
    return (float(best) if best.ndim == 0 else best), out_of_fold


def _out_of_fold(
    folds: Iterable[FoldRows], y: NDArray, weights: Floats, kind: LinearKind, penalty: Floats
) -> tuple[Floats, Floats]:
    """Return the loss of all outputs together or of each, as there are penalties, and logits."""
    (losses,), (outputs,) = _cross_validate(folds, y, weights, kind, [penalty])
    return (losses.sum() if penalty.ndim == 0 else losses), outputs


def _search(
    folds: Sequence[FoldRows], y: NDArray, weights: Floats, kind: LinearKind, no_choice: float
) -> tuple[Penalty, Floats | None]:
    """Return the best penalty of the grid, and the logits of its models if all were fitted."""
    if weights.ndim > 1 and y.shape[1] > MOST_LABELS:
        chosen = np.linspace(0, y.shape[1] - 1, MOST_LABELS).astype(np.intp)
        few = replace(kind, n_outputs=MOST_LABELS)
        losses, _ = _cross_validate(folds, y[:, chosen], weights[:, chosen], few, PENALTIES)
        return float(_best(losses.sum(axis=1), no_choice)), None
    losses, outputs = _cross_validate(folds, y, weights, kind, PENALTIES)
    of_best = np.broadcast_to(losses.argmin(axis=0), kind.n_outputs)
    penalty = _best(losses, no_choice)
    out_of_fold = outputs[of_best, :, np.arange(kind.n_outputs)].T
    return float(penalty) if penalty.ndim == 0 else penalty, out_of_fold


def _best(losses: Floats, no_choice: float) -> Floats:
    return np.where(losses.any(axis=0), PENALTIES[losses.argmin(axis=0)], no_choice)


def _cross_validate(
    folds: Iterable[FoldRows],
    y: NDArray,
    weights: Floats,
    kind: LinearKind,
    penalties: Sequence[Penalty] | Floats,
) -> tuple[Floats, Floats]:
    """Return the losses and the logits of the tested rows under each penalty."""
    losses = np.zeros((len(penalties), *weights.shape[1:]))
    outputs = np.full((len(penalties), len(y), kind.n_outputs), np.nan)
    for fold in folds:
        train, test = fold.train, fold.test
        counted = weights[test] * _has_both_classes(y[train], weights[train])
        for index, penalty in enumerate(penalties):
            linear = kind.fit(fold.of_train, y[train], weights[train], penalty)
            outputs[index, test] = fold.of_test.outputs(linear)
            losses[index] += (counted * kind.losses(outputs[index, test], y[test])).sum(axis=0)
    return losses, outputs


def _has_both_classes(y: NDArray, weights: Floats) -> NDArray[np.bool_] | bool:
    """Return which labels some texts have and others have not; True for other targets."""
    if weights.ndim == 1:
        return True
    return np.logical_and(*((weights * (y == value)).any(axis=0) for value in (0, 1)))


def softmax_losses(logits: Floats, y: NDArray) -> Floats:
    """Return the cross-entropy of the class of each row."""
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def softmax_slopes(logits: Floats, y: NDArray) -> Floats:
    """Return the derivatives of :func:`softmax_losses`."""
    slope = softmax(logits, axis=1)
    slope[np.arange(len(y)), y] -= 1
    return slope


def _fit_classes(
    embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty, n: int
) -> Linear:
    """Fit a model of `n` classes, of which those without rows have a constant, low output."""
    present, y = np.unique(y, return_inverse=True)
    linear = _fit_softmax(embeddings, y.ravel(), weights, penalty, len(present))
    if len(present) == n:
        return linear
    coefficients, intercepts = np.zeros((n, linear[0].shape[1])), np.full(n, -certainty(len(y)))
    coefficients[present], intercepts[present] = linear
    return coefficients, intercepts


def certainty(n_rows: int) -> float:
    """Return the logit of what all rows say, if one more row counts for half."""
    return float(np.log(2 * n_rows))


def _fit_softmax(
    embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty, n_outputs: int
) -> Linear:
    if n_outputs == 2 and embeddings.are_rows:  # each class gets half of the one logit
        one = _fit_sigmoids(embeddings, y[:, None], weights[:, None], penalty)
        return np.concatenate([-one[0], one[0]]) / 2, np.concatenate([-one[1], one[1]]) / 2
    if n_outputs == 2:  # w/2 and -w/2 have half of the square of w
        penalty = 2 * penalty
    return fit_linear(embeddings, y, weights, penalty, n_outputs, softmax_losses, softmax_slopes)


def sigmoid_losses(logits: Floats, y: NDArray) -> Floats:
    """Return the binary cross-entropy of each label of each row."""
    return -log_expit(np.where(y == 1, logits, -logits))


def sigmoid_slopes(logits: Floats, y: NDArray) -> Floats:
    """Return the derivatives of :func:`sigmoid_losses`."""
    return expit(logits) - y


def _fit_labels(embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
    """Fit a model of each label, whose output is constant where all rows have it, or none."""
    never, always = ((weights * (y == value)).sum(axis=0) == 0 for value in (1, 0))
    are_known = ~(never | always)
    coefficients, intercepts = _fit_sigmoids(embeddings, y, weights * are_known, penalty)
    sure = certainty(len(y))
    return coefficients, np.select([never, always], [-sure, sure], intercepts)


def _fit_sigmoids(embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
    n_labels = y.shape[1]
    return fit_linear(embeddings, y, weights, penalty, n_labels, sigmoid_losses, sigmoid_slopes)


def squared_losses(logits: Floats, y: NDArray) -> Floats:
    """Return the squared error of each row, the mean of its numbers'."""
    return ((logits - y) ** 2).mean(axis=1)


def squared_slopes(logits: Floats, y: NDArray) -> Floats:
    """Return the derivatives of :func:`squared_losses`."""
    return 2 * (logits - y) / y.shape[1]


def _fit_squares(embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
    if issparse(embeddings.rows) or not embeddings.are_rows:
        n_outputs = y.shape[1]  # our loss is their mean, that of a ridge model their sum
        penalty = 2 * penalty / n_outputs
        return fit_linear(
            embeddings, y, weights, penalty, n_outputs, squared_losses, squared_slopes
        )
    center, mean = weights @ embeddings.rows, weights @ y
    if not len(center):  # of texts without n-grams, which ridge_regression refuses
        return np.zeros((y.shape[1], 0)), mean
    coefficients = ridge_regression(
        embeddings.rows - center, y - mean, penalty, sample_weight=weights
    )
    coefficients = coefficients.reshape(y.shape[1], -1)  # of one target the axis is dropped
    return coefficients, mean - coefficients @ center
