"""The linear probe: a linear model of frozen embeddings, where the head starts.

Under mean pooling, and under attention, which begins as the mean, it is an ordinary linear model
of document embeddings: pooling and a linear head commute. Under the other poolings it is fitted
to the loss of the pooled outputs of chunks (:mod:`sklearn_longbert._targets.pooled_linear`).

Invariants: the regularisation is chosen by cross-validation of the weighted loss; equal documents
are merged into one with their summed weight, so that a weight of k equals k copies and copies do
not leak between folds; the scale of the weights does not matter; and the features' scaling is
folded into the coefficients, which apply to embeddings as they are.

A logistic model of few texts has almost no loss on them. A head without loss leaves the encoder
with gradients that are mostly rounding errors, which AdamW scales up to full steps. So where the
encoder is to be trained, logits are shrunk towards the logarithms of the classes' shares, until
the loss is half of the loss of these shares alone (`LOSS_TO_LEARN_FROM`). Under mean and max
pooling only the shares can change the order of the logits in this way.

The models are fitted by :func:`~sklearn_longbert._targets.pooled_linear.fit_linear` and not by
estimators of scikit-learn: tools that log every call of ``fit``, such as mlflow, would take these
for the user's own.

References
----------
Kumar, Raghunathan, Jones, Ma and Liang (2022). Fine-tuning can distort pretrained features and
underperform out-of-distribution. ICLR. https://arxiv.org/abs/2202.10054
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.linear_model import ridge_regression
from sklearn.model_selection import KFold, StratifiedKFold

from sklearn_longbert._targets.pooled_linear import (
    Embeddings,
    Floats,
    Linear,
    Loss,
    Penalty,
    fit_linear,
)

Fit = Callable[[Embeddings, NDArray, Floats, Penalty], Linear]

PENALTIES = 10.0 ** np.arange(1, -6, -1)  # factors of the squared coefficients, beside a mean loss
NO_CHOICE = 1e-2  # the penalty where texts are too few to cross-validate
N_FOLDS = 5
MOST_LABELS = 16  # that have a penalty of their own; of more, so many choose one for all
LOSS_TO_LEARN_FROM = 0.5  # relative to the loss of the classes' shares alone


def classification_probe(
    embeddings: Embeddings, y: NDArray, weights: NDArray, n: int, shrink: bool = False
) -> Linear:
    """Fit a logistic model with one output per class.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of int, of shape (n_documents,)
        Indices of classes.
    weights : ndarray of shape (n_documents,)
    n : int
        Number of classes. A class without documents is given one with the mean embedding and half
        of the mean weight, so that its coefficients and intercept are finite.
    shrink : bool, default=False
        Whether to leave the encoder a loss to learn from.

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n, n_features) and (n,)
    """
    embeddings, y, weights = _merge_equal(embeddings, y, weights)
    embeddings, y, weights = _with_all_classes(embeddings, y, weights, n)
    fit = partial(_fit_softmax, n_outputs=n)
    linear = _fit_probe(embeddings, y, weights, fit, _softmax_loss)
    if not shrink:
        return linear
    guess = np.log(np.bincount(y, weights))
    return _shrink(linear, embeddings, y, weights, _softmax_loss, guess - guess.mean())


def multilabel_probe(
    embeddings: Embeddings, y: NDArray, weights: NDArray, n: int, shrink: bool = False
) -> Linear:
    """Fit a logistic model for each of `n` labels, all of them at once.

    Each of a few labels has the regularisation that predicts it best. More labels than
    `MOST_LABELS` have one together.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of shape (n_documents, n)
        1 where a document has the label, else 0.
    weights : ndarray of shape (n_documents,) or (n_documents, n)
    n : int
    shrink : bool, default=False
        Whether to leave the encoder a loss to learn from.

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n, n_features) and (n,)
    """
    weights = np.broadcast_to(weights.reshape(len(y), -1), y.shape)
    embeddings, y, weights = _merge_equal(embeddings, y, weights)
    embeddings, y, weights = _with_both_classes(embeddings, y, weights)
    linear = _fit_probe(embeddings, y, weights, _fit_sigmoids, _sigmoid_losses)
    if not shrink:
        return linear
    guess = np.log((weights * y).sum(axis=0)) - np.log((weights * (1 - y)).sum(axis=0))
    columns = [
        _shrink(
            (linear[0][[label]], linear[1][[label]]),
            embeddings,
            y[:, [label]],
            weights[:, [label]],
            _sigmoid_losses,
            guess[[label]],
        )
        for label in range(n)
    ]
    return np.concatenate([one[0] for one in columns]), np.concatenate([one[1] for one in columns])


def regression_probe(embeddings: Embeddings, y: NDArray, weights: NDArray) -> Linear:
    """Fit a ridge model with one output per target.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of shape (n_documents, n_outputs)
    weights : ndarray of shape (n_documents,)

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n_outputs, n_features) and (n_outputs,)
    """
    return _fit_probe(*_merge_equal(embeddings, y, weights), _fit_squares, _squared_loss)


def _with_all_classes(
    embeddings: Embeddings, y: NDArray, weights: NDArray, n: int
) -> tuple[Embeddings, NDArray, NDArray]:
    absent = np.setdiff1d(np.arange(n), y)
    if len(absent) == 0:
        return embeddings, y, weights
    middle = np.average(embeddings.means, axis=0, weights=weights)
    weights = np.concatenate([weights, np.full(len(absent), 0.5 / len(weights))])
    return (
        embeddings.with_rows(np.tile(middle, (len(absent), 1)).astype(embeddings.rows.dtype)),
        np.concatenate([y, absent]),
        weights / weights.sum(),
    )


def _with_both_classes(
    embeddings: Embeddings, y: NDArray, weights: Floats
) -> tuple[Embeddings, NDArray, Floats]:
    """Give each label that all documents have, or none, a document of the other class."""
    lacks = [(weights * (y == value)).sum(axis=0) == 0 for value in (0, 1)]
    if not np.any(lacks):
        return embeddings, y, weights
    middle = np.average(embeddings.means, axis=0, weights=weights.mean(axis=1))
    new_weights = 0.5 / len(weights) * np.array(lacks)  # (2, n_labels)
    weights = np.concatenate([weights, new_weights])
    return (
        embeddings.with_rows(np.tile(middle, (2, 1)).astype(embeddings.rows.dtype)),
        np.concatenate([y, np.repeat([[0], [1]], y.shape[1], axis=1)]),
        weights / weights.sum(axis=0),
    )


def _fit_probe(
    embeddings: Embeddings, y: NDArray, weights: NDArray, fit: Fit, loss: Loss
) -> Linear:
    of_documents = weights if weights.ndim == 1 else weights.mean(axis=1)
    of_rows = (of_documents / embeddings.counts)[embeddings.owners]
    center = of_rows @ embeddings.rows
    centered = embeddings.rows - center.astype(embeddings.rows.dtype)
    variances = of_rows @ centered**2
    variances[variances < (1e-6 * np.abs(embeddings.rows).max()) ** 2] = 0.0  # rounding errors
    # The second term keeps features that hardly vary, and hold mostly rounding errors, small.
    scales = np.sqrt(variances + 1e-4 * variances.mean())
    scales[scales == 0] = 1.0
    embeddings = replace(embeddings, rows=(centered / scales).astype(embeddings.rows.dtype))
    penalty = _choose_penalty(embeddings, y, weights, fit, loss)
    coefficients, intercepts = fit(embeddings, y, weights, penalty)
    coefficients = coefficients / scales
    return coefficients, intercepts - coefficients @ center


def _shrink(
    linear: Linear, embeddings: Embeddings, y: NDArray, weights: NDArray, loss: Loss, guess: Floats
) -> Linear:
    """Shrink logits towards `guess`, the logits of the classes' shares alone."""
    coefficients, intercepts = linear
    of_guess = np.sum(weights * loss(np.tile(guess, (len(y), 1)), y))

    def scaled(scale: float) -> Linear:
        return scale * coefficients, scale * intercepts + (1 - scale) * guess

    def excess(scale: float) -> float:
        mean_loss = np.sum(weights * loss(embeddings.outputs(scaled(scale)), y))
        return float(mean_loss - LOSS_TO_LEARN_FROM * of_guess)

    if excess(1.0) >= 0:
        return linear
    return scaled(brentq(excess, 0.0, 1.0))


def _merge_equal(
    embeddings: Embeddings, y: NDArray, weights: NDArray
) -> tuple[Embeddings, NDArray, Floats]:
    """Return distinct documents, sorted by content, with weights that sum to 1."""
    table = np.column_stack([embeddings.means, y])
    _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    summed = np.zeros((len(first), *weights.shape[1:]))
    np.add.at(summed, inverse.ravel(), weights)
    return embeddings.select(first), y[first], summed / summed.sum(axis=0)


def _choose_penalty(
    embeddings: Embeddings, y: NDArray, weights: Floats, fit: Fit, loss: Loss
) -> Penalty:
    """Return the penalty that predicts best, of all outputs or of each of a few labels."""
    are_many = weights.ndim > 1 and y.shape[1] > MOST_LABELS
    if are_many:
        chosen = np.linspace(0, y.shape[1] - 1, MOST_LABELS).astype(np.intp)
        y, weights = y[:, chosen], weights[:, chosen]
    losses = np.zeros((len(PENALTIES), *weights.shape[1:]))
    for train, test in _folds(y):
        counted = weights[test] * _has_both_classes(y[train], weights[train])
        if counted.sum() == 0:
            continue
        sums = weights[train].sum(axis=0)
        part = weights[train] / np.where(sums == 0, 1.0, sums)
        for index, penalty in enumerate(PENALTIES):
            linear = fit(embeddings.select(train), y[train], part, float(penalty))
            outputs = embeddings.select(test).outputs(linear)
            losses[index] += (counted * loss(outputs, y[test])).sum(axis=0)
    if are_many:
        losses = losses.sum(axis=1)
    best = np.where(losses.any(axis=0), PENALTIES[losses.argmin(axis=0)], NO_CHOICE)
    return float(best) if best.ndim == 0 else best


def _has_both_classes(y: NDArray, weights: Floats) -> NDArray[np.bool_] | bool:
    """Return which labels some texts have and others have not; True for other targets."""
    if weights.ndim == 1:
        return True
    return np.logical_and(*((weights * (y == value)).any(axis=0) for value in (0, 1)))


def _folds(y: NDArray) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield training and test rows; a class of a single row is in training rows only."""
    rows = np.arange(len(y))
    if y.ndim > 1:
        if len(y) >= 2:
            yield from KFold(min(N_FOLDS, len(y)), shuffle=True, random_state=0).split(rows)
        return
    counts = np.bincount(y)
    n_folds = min(N_FOLDS, counts[counts > 1].min(initial=N_FOLDS))
    tested = rows[counts[y] > 1]
    if len(tested) == 0:
        return
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    for _, test in folds.split(tested, y[tested]):
        yield np.setdiff1d(rows, tested[test]), tested[test]


def _softmax_loss(logits: Floats, y: NDArray) -> Floats:
    return -log_softmax(logits, axis=1)[np.arange(len(y)), y]


def _softmax_slope(logits: Floats, y: NDArray) -> Floats:
    slope = softmax(logits, axis=1)
    slope[np.arange(len(y)), y] -= 1
    return slope


def _fit_softmax(
    embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty, n_outputs: int
) -> Linear:
    if n_outputs == 2 and embeddings.are_rows:  # each class gets half of the one logit
        one = _fit_sigmoids(embeddings, y[:, None], weights[:, None], penalty)
        return np.concatenate([-one[0], one[0]]) / 2, np.concatenate([-one[1], one[1]]) / 2
    if n_outputs == 2:  # w/2 and -w/2 have half of the square of w
        penalty = 2 * penalty
    return fit_linear(embeddings, y, weights, penalty, n_outputs, _softmax_loss, _softmax_slope)


def _sigmoid_losses(logits: Floats, y: NDArray) -> Floats:
    return -log_expit(np.where(y == 1, logits, -logits))


def _sigmoid_slopes(logits: Floats, y: NDArray) -> Floats:
    return expit(logits) - y


def _fit_sigmoids(embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
    n_labels = y.shape[1]
    return fit_linear(embeddings, y, weights, penalty, n_labels, _sigmoid_losses, _sigmoid_slopes)


def _squared_loss(predictions: Floats, y: NDArray) -> Floats:
    return ((predictions - y) ** 2).mean(axis=1)


def _squared_slope(predictions: Floats, y: NDArray) -> Floats:
    return 2 * (predictions - y) / y.shape[1]


def _fit_squares(embeddings: Embeddings, y: NDArray, weights: Floats, penalty: Penalty) -> Linear:
    if not embeddings.are_rows:
        n_outputs = y.shape[1]  # our loss is their mean, that of a ridge model their sum
        penalty = 2 * penalty / n_outputs
        return fit_linear(embeddings, y, weights, penalty, n_outputs, _squared_loss, _squared_slope)
    center, mean = weights @ embeddings.rows, weights @ y
    coefficients = ridge_regression(
        embeddings.rows - center, y - mean, penalty, sample_weight=weights
    )
    coefficients = coefficients.reshape(y.shape[1], -1)  # of one target the axis is dropped
    return coefficients, mean - coefficients @ center
