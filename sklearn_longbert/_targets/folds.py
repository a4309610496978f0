"""Inner folds: what a model says of texts that it was not fitted on.

Invariants: the rows of a group lie on one side of every fold; the folds depend on targets, groups
and the order of the rows alone, never on a global random state; a tested class is in training,
too.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]  # training and test rows

N_FOLDS = 5
N_FOLDS_OF_MANY = 3  # of thousands of rows, of which a model takes long


def inner_folds(
    y: NDArray, groups: NDArray | None = None, n_folds: int = N_FOLDS, random_state: int = 0
) -> list[Fold]:
    """Return the training and test rows of each fold.

    Parameters
    ----------
    y : ndarray of shape (n_rows,) or (n_rows, n_outputs)
        Indices of classes, whose shares the folds keep, or targets of several columns.
    groups : ndarray of shape (n_rows,) or None
    n_folds : int, default=5
        Fewer where there are fewer groups.
    random_state : int, default=0

    Returns
    -------
    folds : list of (train, test)
        Each row is tested at most once. A row is tested nowhere if its class has one group only.
        Of one group there are no folds.
    """
    strata = y if y.ndim == 1 else np.zeros(len(y), dtype=np.intp)
    groups = np.arange(len(y)) if groups is None else _in_order(groups)
    fold_of_group = _fold_of_groups(strata, groups, n_folds, random_state)
    of_rows = fold_of_group[groups]
    folds = []
    for fold in range(fold_of_group.max(initial=0) + 1):
        train, test = np.flatnonzero(of_rows != fold), np.flatnonzero(of_rows == fold)
        test = test[np.isin(strata[test], strata[train])]
        if len(test):
            folds.append((train, test))
    return folds


def _in_order(groups: NDArray) -> NDArray[np.intp]:
    """Return groups numbered by their first rows."""
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def _fold_of_groups(
    strata: NDArray, groups: NDArray[np.intp], n_folds: int, random_state: int
) -> NDArray[np.intp]:
    """Return the fold that tests each group, -1 where all of its classes are in it alone."""
    classes, strata = np.unique(strata, return_inverse=True)
    n_groups = groups.max() + 1
    shape = n_groups, len(classes)
    counts = coo_array((np.ones(len(groups)), (groups, strata.ravel())), shape=shape).tocsr()
    sizes = np.bincount(counts.indices, minlength=len(classes))[counts.indices]  # in groups
    can_be_tested = np.bincount(counts.tocoo().row[sizes > 1], minlength=n_groups) > 0
    totals = np.bincount(strata.ravel())
    folds = np.full(n_groups, -1)
    filled = np.zeros((min(n_folds, int(can_be_tested.sum())), len(classes)))  # shares of classes
    n_rows = np.zeros(len(filled))
    order = np.random.RandomState(random_state).permutation(n_groups)
    order = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    for group in order[can_be_tested[order]]:  # large ones first
        row = slice(*counts.indptr[group : group + 2])
        there, share = counts.indices[row], counts.data[row] / totals[counts.indices[row]]
        best = np.lexsort((n_rows, np.round(filled[:, there] @ share, 12)))[0]
        folds[group] = best
        filled[best, there] += share
        n_rows[best] += counts.data[row].sum()
    return folds


def merge_equal(
    table: NDArray, weights: NDArray
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Merge equal rows, so that a weight of k equals k copies.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_columns)
    weights : ndarray of shape (n_rows,) or (n_rows, n_outputs)

    Returns
    -------
    first : ndarray of shape (n_distinct,)
        The first row of each distinct one, which are sorted.
    inverse : ndarray of shape (n_rows,)
        The number of each row's distinct one.
    weights : ndarray of shape (n_distinct,) or (n_distinct, n_outputs)
        Summed weights, which sum to 1, or those of several outputs to 1 on average.
    """
    first, inverse = np.unique(table, axis=0, return_index=True, return_inverse=True)[1:]
    inverse = inverse.ravel()
    summed = np.zeros((len(first), *weights.shape[1:]))
    np.add.at(summed, inverse, weights)
    n_outputs = summed.size // len(summed)
    return first, inverse, summed * n_outputs / summed.sum()


def join_groups(*keys: Sequence[Hashable] | NDArray[Any] | None) -> NDArray[np.intp]:
    """Return a group for each text: texts that share a value of any of the keys are of one.

    Parameters
    ----------
    *keys : sequence of hashable values, of length n_texts, or None
        Such as the texts, and the caller's groups. None is no key.

    Returns
    -------
    groups : ndarray of int, of shape (n_texts,)
    """
    columns = []
    n_values = 0
    for key in keys:
        if key is None:
            continue
        values = key.tolist() if isinstance(key, np.ndarray) else list(key)
        numbers: dict[Hashable, int] = {}
        columns.append([n_values + numbers.setdefault(value, len(numbers)) for value in values])
        n_values += len(numbers)
    n_texts = len(columns[0])
    texts = np.tile(np.arange(n_texts), len(columns))
    nodes = n_texts + np.concatenate(columns).astype(np.intp)
    size = n_texts + n_values
    graph = coo_array((np.ones(len(texts), dtype=np.int8), (texts, nodes)), shape=(size, size))
    return connected_components(graph, directed=False)[1][:n_texts].astype(np.intp)
