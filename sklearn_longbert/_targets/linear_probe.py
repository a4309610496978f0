"""The linear probe: a linear model of frozen embeddings, where the head starts.

Under mean pooling, and under attention, which begins as the mean, it is an ordinary linear model
of document embeddings: pooling and a linear head commute. Under the other poolings it is fitted
to the loss of the pooled outputs of chunks (:mod:`sklearn_longbert._targets.pooled_linear`).

Invariants: the regularisation is chosen by cross-validation of the weighted loss; equal documents
are merged into one with their summed weight, so that a weight of k equals k copies and copies do
not leak between folds; the scale of the weights does not matter; and the features' scaling is
folded into the coefficients, which apply to embeddings as they are.

Where an embedding has several parts, two models are fitted: one of all columns, and one of the part
that encoders are trained to tell meanings by. Each has a regularisation of its own. In a model of
all columns alone, a part that tells much gets no more say than each of the others. The probe is a
mixture of both. Their shares are those of the scales at which the loss of their out-of-fold logits
is least, and few documents leave them near a half. Pooled outputs of several chunks do not add up:
there the probe is the model whose out-of-fold loss is less.

The probe also says what models that were fitted without a document say of it. The loss of these
out-of-fold logits tells how far the probe can be trusted: see
:func:`~sklearn_longbert._targets.scales.fit_scales`.

Of more documents than `N_CHOOSING`, so many choose the regularisation. All documents in
`N_FOLDS_OF_MANY` folds then lower it as long as their loss falls. So each model is fitted to
thousands of documents some seven times and not 36.

The models are fitted by :func:`~sklearn_longbert._targets.pooled_linear.fit_linear` and not by
estimators of scikit-learn: tools that log every call of ``fit``, such as mlflow, would take these
for the user's own.

References
----------
Kumar, Raghunathan, Jones, Ma and Liang (2022). Fine-tuning can distort pretrained features and
underperform out-of-distribution. ICLR. https://arxiv.org/abs/2202.10054
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sklearn_longbert._targets.folds import (
    N_FOLDS_OF_MANY,
    Fold,
    inner_folds,
    join_groups,
    merge_equal,
)
from sklearn_longbert._targets.linear_models import (
    FoldRows,
    LinearKind,
    choose_penalty,
    lower_penalty,
    penalty_of_some,
    sigmoid_models,
    softmax_model,
    square_models,
)
from sklearn_longbert._targets.pooled_linear import Embeddings, Floats, Penalty
from sklearn_longbert._targets.scales import PRIOR_GROUPS, fit_scales

N_CHOOSING = 2000  # documents that choose the penalty


class FittedProbe(NamedTuple):
    """A linear model of embeddings.

    Attributes
    ----------
    coefficients, intercepts : ndarray of shapes (n_outputs, n_features) and (n_outputs,)
    out_of_fold : ndarray of shape (n_documents, n_outputs)
        Outputs of each document by a model that was fitted without it and without the others of
        its group, with the same penalty, or by such a mixture of two models. NaN in rows of
        documents that no fold tests.
    kind : LinearKind
    """

    coefficients: Floats
    intercepts: Floats
    out_of_fold: Floats
    kind: LinearKind


def classification_probe(
    embeddings: Embeddings,
    y: NDArray,
    weights: NDArray,
    n: int,
    groups: NDArray | None = None,
) -> FittedProbe:
    """Fit a logistic model with one output per class.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of int, of shape (n_documents,)
        Indices of classes.
    weights : ndarray of shape (n_documents,)
    n : int
        Number of classes, of which some may have no documents.
    groups : ndarray of shape (n_documents,) or None
        Documents of one group are on one side of every inner split.
    """
    return _fit_probe(embeddings, y, weights, groups, softmax_model(n))


def multilabel_probe(
    embeddings: Embeddings,
    y: NDArray,
    weights: NDArray,
    n: int,
    groups: NDArray | None = None,
) -> FittedProbe:
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
    groups : ndarray of shape (n_documents,) or None
    """
    return _fit_probe(embeddings, y, weights, groups, sigmoid_models(n))


def regression_probe(
    embeddings: Embeddings, y: NDArray, weights: NDArray, groups: NDArray | None = None
) -> FittedProbe:
    """Fit a ridge model with one output per target.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of shape (n_documents, n_outputs)
    weights : ndarray of shape (n_documents,)
    groups : ndarray of shape (n_documents,) or None
    """
    return _fit_probe(embeddings, y, weights, groups, square_models(y.shape[1]))


def _fit_probe(
    embeddings: Embeddings,
    y: NDArray,
    weights: NDArray,
    groups: NDArray | None,
    kind: LinearKind,
) -> FittedProbe:
    first, inverse, weights = merge_equal(
        np.column_stack([embeddings.means, y]), kind.of_outputs(weights)
    )
    groups = None if groups is None else join_groups(inverse, groups)[first]
    embeddings, y = embeddings.select(first), y[first]
    fitted = _fit_standardised(embeddings, y, weights, groups, kind)
    if embeddings.part is not None:
        of_part = embeddings.columns(embeddings.part)
        models = [fitted, _fit_standardised(of_part, y, weights, groups, kind)]
        n_groups = len(y) if groups is None else len(np.unique(groups))
        shares = _shares(models, y, weights, n_groups, adds_up=embeddings.are_rows)
        fitted = _mixed(models, embeddings.part, shares)
    return fitted._replace(out_of_fold=fitted.out_of_fold[inverse])


def _fit_standardised(
    embeddings: Embeddings, y: NDArray, weights: Floats, groups: NDArray | None, kind: LinearKind
) -> FittedProbe:
    center, scales, embeddings = _standardised(embeddings, weights)
    penalty, out_of_fold = _cross_validate(embeddings, y, weights, groups, kind)
    coefficients, intercepts = kind.fit(embeddings, y, weights, penalty)
    coefficients = coefficients / scales
    intercepts = intercepts - coefficients @ center
    return FittedProbe(coefficients, intercepts, out_of_fold, kind)


def _shares(
    models: list[FittedProbe], y: NDArray, weights: Floats, n_groups: int, adds_up: bool
) -> Floats:
    """Return the share of each model in the probe, 1 altogether; all outputs have the same."""
    kind = models[0].kind
    if adds_up:
        parts = [model.out_of_fold for model in models]
        scales = fit_scales(parts, y, weights, kind, prior=PRIOR_GROUPS / n_groups)
        return scales / scales.sum() if scales.any() else np.full(len(models), 1 / len(models))
    known = np.isfinite(models[0].out_of_fold).all(axis=1)
    losses = [
        (weights[known] * kind.losses(model.out_of_fold[known], y[known])).sum() for model in models
    ]
    return np.eye(len(models))[np.argmin(losses)]


def _mixed(models: list[FittedProbe], part: slice, shares: Floats) -> FittedProbe:
    """Return the model of all columns that says what the two models say by their shares."""
    of_all, of_part = models
    coefficients = shares[0] * of_all.coefficients
    coefficients[:, part] += shares[1] * of_part.coefficients
    intercepts = shares[0] * of_all.intercepts + shares[1] * of_part.intercepts
    out_of_fold = shares[0] * of_all.out_of_fold + shares[1] * of_part.out_of_fold
    return FittedProbe(coefficients, intercepts, out_of_fold, of_all.kind)


def _cross_validate(
    embeddings: Embeddings, y: NDArray, weights: Floats, groups: NDArray | None, kind: LinearKind
) -> tuple[Penalty, Floats]:
    """Return the best penalty, and the out-of-fold outputs of models that have it."""
    if len(y) <= N_CHOOSING:
        folds = (_rows_of(embeddings, fold) for fold in inner_folds(y, groups))
        return choose_penalty(folds, y, weights, kind)
    some = np.random.RandomState(0).permutation(len(y))[:N_CHOOSING]
    part, folds_of_part = embeddings.select(some), inner_folds(y[some], _at(groups, some))
    penalty = penalty_of_some(
        (_rows_of(part, fold) for fold in folds_of_part), y[some], weights[some], kind
    )
    folds_of_all = inner_folds(y, groups, N_FOLDS_OF_MANY)
    return lower_penalty(
        lambda: (_rows_of(embeddings, fold) for fold in folds_of_all), y, weights, kind, penalty
    )


def _at(groups: NDArray | None, rows: NDArray[np.intp]) -> NDArray | None:
    return None if groups is None else groups[rows]


def _standardised(embeddings: Embeddings, weights: Floats) -> tuple[Floats, Floats, Embeddings]:
    """Return center and scales of the features, and the embeddings with those taken out."""
    of_documents = weights if weights.ndim == 1 else weights.mean(axis=1)
    of_rows = (of_documents / embeddings.counts)[embeddings.owners]
    center = of_rows @ embeddings.rows
    centered = embeddings.rows - center.astype(embeddings.rows.dtype)
    variances = of_rows @ centered**2
    variances[variances < (1e-6 * np.abs(embeddings.rows).max()) ** 2] = 0.0  # rounding errors
    # The second term keeps features that hardly vary, and hold mostly rounding errors, small.
    scales = np.sqrt(variances + 1e-4 * variances.mean())
    scales[scales == 0] = 1.0
    rows = (centered / scales).astype(embeddings.rows.dtype)
    return center, scales, replace(embeddings, rows=rows)


def _rows_of(embeddings: Embeddings, fold: Fold) -> FoldRows:
    train, test = fold
    return FoldRows(train, test, embeddings.select(train), embeddings.select(test))
