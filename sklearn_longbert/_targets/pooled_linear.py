"""Linear models of chunks, fitted to the loss of their pooled outputs.

Under "max" and "logsumexp" a linear model of mean embeddings is not the pooled head: a passage
that decides hardly moves the mean of a long text. So the coefficients of the head are fitted where
they act, on chunks. Invariants: the poolings are those of the network; with one row per document
the model is the ordinary linear model.

The maximum gives a gradient only to the chunk whose output is largest now, even if another chunk
should decide. So its fit starts at the fit of a smooth pooling, the logarithm of the mean
exponential. With zero coefficients that pooling is the mean of the chunks. It comes closer to the
maximum as the coefficients grow.

This is our own code because scikit-learn has no linear model of several rows per document.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.sparse import issparse
from torch import Tensor


class Pooling(Protocol):
    """Pools the outputs of rows; the poolings of the network do it."""

    @property
    def pool(self) -> Callable[[Tensor], Tensor]:
        """Maps outputs of shape (..., n_rows, n_outputs) to pooled ones, (..., n_outputs)."""

    @property
    def shares(self) -> Callable[[Tensor], Tensor]:
        """Maps outputs to the derivatives of the pooled ones, (..., n_rows, n_outputs)."""

    @property
    def smooth(self) -> "Pooling | None":
        """A smooth pooling whose fit this one starts at."""


Floats = NDArray[np.float64]
Linear = tuple[Floats, Floats]  # coefficients (n_outputs, n_features), intercepts (n_outputs,)
Penalty = float | Floats  # of all outputs, or of each
Loss = Callable[[Floats, NDArray], Floats]  # from logits and targets

STOP = {"maxiter": 1000, "gtol": 1e-5, "ftol": 1e-14}  # about as LogisticRegression stops
# rows of many texts, whose models differ less than their folds do
STOP_SPARSE = {"maxiter": 40, "gtol": 1e-7, "ftol": 1e-5}
STOP_POOLED = {
    "maxiter": 100,
    "gtol": 1e-4,
    "ftol": 1e-5,
}  # the start of a training need not converge


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of documents: one row per document, or one per chunk with pooled outputs.

    Attributes
    ----------
    rows : ndarray or csr_array of shape (n_rows, n_features)
        The rows of the first document, then those of the second, and so on. Sparse rows are one
        per document.
    counts : ndarray of shape (n_documents,)
        Number of rows of each document, at least one.
    pooling : Pooling or None
        Pools the outputs of a document's rows; None where each document has one row.
    part : slice or None
        Columns that get a second model, of them alone, beside the model of all columns.
    """

    rows: NDArray
    counts: NDArray[np.intp]
    pooling: "Pooling | None" = None
    part: slice | None = None

    @classmethod
    def of_means(cls, embeddings: NDArray, part: slice | None = None) -> "Embeddings":
        """Return one row per document, because averaged logits depend only on mean embeddings."""
        counts = np.ones(len(embeddings), dtype=np.intp)
        return cls(embeddings.astype(np.float64), counts, part=part)

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def owners(self) -> NDArray[np.intp]:
        """The document of each row."""
        return np.repeat(np.arange(len(self)), self.counts)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """The first row of each document."""
        return np.cumsum(self.counts) - self.counts

    @property
    def are_rows(self) -> bool:
        """Whether every document is one row."""
        return self.rows.shape[0] == len(self)

    @cached_property
    def means(self) -> Floats:
        """Mean embeddings, of shape (n_documents, n_features)."""
        sums = np.add.reduceat(self.rows, self.starts, axis=0, dtype=np.float64)
        return sums / self.counts[:, None]

    @cached_property
    def groups(self) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Groups of documents with equally many rows, and those rows, of shape (n_group, count)."""
        members = [np.flatnonzero(self.counts == count) for count in np.unique(self.counts)]
        return [
            (documents, self.starts[documents][:, None] + np.arange(self.counts[documents[0]]))
            for documents in members
        ]

    def select(self, indices: NDArray[np.intp]) -> "Embeddings":
        """Return the documents at these indices."""
        if self.are_rows:
            return replace(self, rows=self.rows[indices], counts=self.counts[indices])
        rows = [np.arange(self.starts[i], self.starts[i] + self.counts[i]) for i in indices]
        return replace(self, rows=self.rows[np.concatenate(rows)], counts=self.counts[indices])

    def columns(self, part: slice) -> "Embeddings":
        """Return these columns of the embeddings."""
        return replace(self, rows=np.ascontiguousarray(self.rows[:, part]), part=None)

    def outputs(self, linear: Linear) -> Floats:
        """Return the pooled outputs of a linear model, of shape (n_documents, n_outputs)."""
        of_rows = self.rows @ linear[0].T + linear[1]
        return of_rows if self.are_rows else self.pool(of_rows)[0]

    def pool(self, of_rows: Floats) -> tuple[Floats, Floats]:
        """Pool the outputs of rows.

        Returns
        -------
        pooled : ndarray of shape (n_documents, n_outputs)
        shares : ndarray of shape (n_rows, n_outputs)
            Derivative of the document's output by the output of each of its rows.
        """
        assert self.pooling is not None
        pooled, shares = np.empty((len(self), of_rows.shape[1])), np.empty_like(of_rows)
        for documents, rows in self.groups:
            outputs = torch.from_numpy(of_rows[rows])  # (n_group, count, n_outputs)
            pooled[documents] = self.pooling.pool(outputs).numpy()
            shares[rows] = self.pooling.shares(outputs).numpy()
        return pooled, shares


def fit_linear(
    embeddings: Embeddings,
    y: NDArray,
    weights: Floats,
    penalty: Penalty,
    n_outputs: int,
    loss: Loss,
    slope: Loss,
) -> Linear:
    """Minimize the weighted loss of pooled outputs plus a penalty on the coefficients.

    Parameters
    ----------
    embeddings : Embeddings
    y : ndarray of shape (n_documents,) or (n_documents, n_outputs)
    weights : ndarray of shape (n_documents,) or (n_documents, n_outputs)
    penalty : float or ndarray of shape (n_outputs,)
        Half of it multiplies the sum of the squared coefficients, of all outputs or of each.
    n_outputs : int
    loss : callable
        Maps outputs and targets to losses, of the shape of `weights`.
    slope : callable
        Maps them to the derivative of the loss by the outputs, (n_documents, n_outputs).

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n_outputs, n_features) and (n_outputs,)
        A local minimum: under "max" the loss is not convex.
    """
    n_features = embeddings.rows.shape[1]
    flat = np.zeros(n_outputs * (n_features + 1))

    def unpack(flat: Floats) -> Linear:
        return flat[n_outputs:].reshape(n_outputs, n_features), flat[:n_outputs]

    of_outputs = weights.reshape(len(weights), -1)
    pooling = embeddings.pooling
    stages = [pooling] if pooling is None or pooling.smooth is None else [pooling.smooth, pooling]
    for stage in (replace(embeddings, pooling=stage) for stage in stages):

        def objective(flat: Floats, stage: Embeddings = stage) -> tuple[float, Floats]:
            coefficients, intercepts = unpack(flat)
            of_rows = stage.rows @ coefficients.T.astype(stage.rows.dtype) + intercepts
            outputs, shares = (of_rows, 1.0) if stage.are_rows else stage.pool(of_rows)
            pulls = (of_outputs * slope(outputs, y))[stage.owners] * shares
            penalised = np.reshape(penalty, (-1, 1)) * coefficients
            gradient = pulls.T.astype(stage.rows.dtype) @ stage.rows + penalised
            value = np.sum(weights * loss(outputs, y)) + (penalised * coefficients).sum() / 2
            return float(value), np.concatenate([pulls.sum(0), gradient.ravel()])

        options = STOP if embeddings.are_rows else STOP_POOLED
        options = STOP_SPARSE if issparse(embeddings.rows) else options
        flat = minimize(objective, flat, jac=True, method="L-BFGS-B", options=options).x
        if embeddings.are_rows:
            break

    return unpack(flat)
