"""The linear probe: a linear model of frozen document embeddings, where the head starts.

Invariants: the regularisation is chosen by cross-validation of the weighted loss; equal rows
are one row of their summed weight, so that a weight of k is as good as k copies and copies do
not leak between folds; the scale of the weights does not matter; and the features' scaling is
folded into the coefficients, which apply to embeddings as they are.

A logistic model of few texts has next to no loss on them, and a head without loss leaves the
encoder with gradients that are mostly rounding, which AdamW scales up to full steps. So where
the encoder is to be trained, logits are shrunk towards the logarithms of the classes' shares,
until the loss is half of what these alone have (`LOSS_TO_LEARN_FROM`). Under mean pooling that
changes no order of the logits but through the shares.

References
----------
Kumar, Raghunathan, Jones, Ma and Liang (2022). Fine-tuning can distort pretrained features and
underperform out-of-distribution. ICLR. https://arxiv.org/abs/2202.10054
"""

import warnings
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold

Floats = NDArray[np.float64]
Linear = tuple[Floats, Floats]  # coefficients (n_outputs, n_features), intercepts (n_outputs,)
Fit = Callable[[Floats, NDArray, Floats, float], Linear]
Loss = Callable[[Floats, NDArray], Floats]

PENALTIES = 10.0 ** np.arange(1, -6, -1)  # of the squared coefficients, beside a mean loss
NO_CHOICE = 1e-2  # where there is too little to cross-validate
N_FOLDS = 5
LOSS_TO_LEARN_FROM = 0.5  # of the loss that the classes' shares alone have


def classification_probe(
    embeddings: NDArray, y: NDArray, weights: NDArray, n: int, shrink: bool = False
) -> Linear:
    """Fit a logistic regression with one output a class.

    Parameters
    ----------
    embeddings : ndarray of shape (n_documents, n_features)
    y : ndarray of int, of shape (n_documents,)
        Indices of classes.
    weights : ndarray of shape (n_documents,)
    n : int
        Classes. One that has no documents is given half of an average one, so that its
        coefficients and intercept are finite.
    shrink : bool, default=False
        Whether to leave the encoder a loss to learn from.

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n, n_features) and (n,)
    """
    absent = np.setdiff1d(np.arange(n), y)
    middle = np.average(embeddings, axis=0, weights=weights)
    embeddings = np.concatenate([embeddings, np.tile(middle, (len(absent), 1))])
    y = np.concatenate([y, absent])
    weights = np.concatenate([weights, np.full(len(absent), weights.sum() / 2 / len(weights))])

    def loss(logits: Floats, targets: NDArray) -> Floats:
        return -log_softmax(logits, axis=1)[np.arange(len(targets)), targets]

    linear = _fit_probe(embeddings, y, weights, _fit_logistic, loss)
    return _shrink(linear, embeddings, y, weights, loss) if shrink else linear


def multilabel_probe(
    embeddings: NDArray, y: NDArray, weights: NDArray, n: int, shrink: bool = False
) -> Linear:
    """Fit a logistic regression for each of `n` labels.

    Parameters
    ----------
    embeddings : ndarray of shape (n_documents, n_features)
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
    fits = []
    for column in range(n):
        coefficients, intercepts = classification_probe(
            embeddings, y[:, column].astype(np.int64), weights[:, column], 2, shrink
        )
        fits.append((coefficients[1] - coefficients[0], intercepts[1] - intercepts[0]))
    return np.stack([fit[0] for fit in fits]), np.stack([fit[1] for fit in fits])


def regression_probe(embeddings: NDArray, y: NDArray, weights: NDArray) -> Linear:
    """Fit a ridge regression with one output a target.

    Parameters
    ----------
    embeddings : ndarray of shape (n_documents, n_features)
    y : ndarray of shape (n_documents, n_outputs)
    weights : ndarray of shape (n_documents,)

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n_outputs, n_features) and (n_outputs,)
    """

    def loss(predictions: Floats, targets: NDArray) -> Floats:
        return ((predictions - targets) ** 2).mean(axis=1)

    return _fit_probe(embeddings, y, weights, _fit_ridge, loss)


def _fit_probe(embeddings: NDArray, y: NDArray, weights: NDArray, fit: Fit, loss: Loss) -> Linear:
    rows, y, weights = _merge_equal(embeddings.astype(np.float64), y, weights)
    center = np.average(rows, axis=0, weights=weights)
    variances = np.average((rows - center) ** 2, axis=0, weights=weights)
    # a feature that hardly varies tells nothing but rounding
    scales = np.sqrt(variances + 1e-4 * variances.mean())
    scales[scales == 0] = 1.0
    features = (rows - center) / scales
    penalty = _choose_penalty(features, y, weights, fit, loss)
    coefficients, intercepts = fit(features, y, weights, penalty)
    coefficients = coefficients / scales
    return coefficients, intercepts - coefficients @ center


def _shrink(
    linear: Linear, embeddings: NDArray, y: NDArray, weights: NDArray, loss: Loss
) -> Linear:
    """Scale logits down, towards the logarithms of the shares of the classes."""
    coefficients, intercepts = linear
    weights = weights / weights.sum()
    guess = np.log(np.bincount(y, weights, minlength=len(intercepts)))
    guess -= guess.mean()
    logits = embeddings @ coefficients.T + intercepts

    def excess(scale: float) -> float:
        mean_loss = weights @ loss(scale * logits + (1 - scale) * guess, y)
        return float(mean_loss - LOSS_TO_LEARN_FROM * (weights @ loss(0 * logits + guess, y)))

    if excess(1.0) >= 0:
        return linear
    scale = brentq(excess, 0.0, 1.0)
    return scale * coefficients, scale * intercepts + (1 - scale) * guess


def _merge_equal(
    embeddings: Floats, y: NDArray, weights: NDArray
) -> tuple[Floats, NDArray, Floats]:
    """Return distinct rows, in an order of their own, with weights that sum to 1."""
    table = np.column_stack([embeddings, y])
    _, first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)
    weights = np.bincount(inverse.ravel(), weights)
    return embeddings[first], y[first], weights / weights.sum()


def _choose_penalty(features: Floats, y: NDArray, weights: Floats, fit: Fit, loss: Loss) -> float:
    losses = np.zeros(len(PENALTIES))
    for train, test in _folds(y):
        part = weights[train] / weights[train].sum()
        for index, penalty in enumerate(PENALTIES):
            coefficients, intercepts = fit(features[train], y[train], part, penalty)
            outputs = features[test] @ coefficients.T + intercepts
            losses[index] += weights[test] @ loss(outputs, y[test])
    return float(PENALTIES[losses.argmin()]) if losses.any() else NO_CHOICE


def _folds(y: NDArray) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield training and test rows; rows of a class that has too few for a fold always train."""
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


def _fit_logistic(features: Floats, y: NDArray, weights: Floats, penalty: float) -> Linear:
    model = LogisticRegression(C=1 / penalty, max_iter=1000, tol=1e-5)
    with warnings.catch_warnings():
        # of a start for training, which nobody could make converge
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, y, sample_weight=weights)
    coefficients, intercepts = model.coef_, model.intercept_
    if len(intercepts) == 1:  # of two classes: half of the one logit for each
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    return coefficients, intercepts


def _fit_ridge(features: Floats, y: NDArray, weights: Floats, penalty: float) -> Linear:
    model = Ridge(alpha=penalty).fit(features, y, sample_weight=weights)
    # of one target scikit-learn drops the axis, or does not, as versions go
    return model.coef_.reshape(y.shape[1], -1), model.intercept_.reshape(-1)
