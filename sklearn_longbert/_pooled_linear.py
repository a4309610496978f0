"""Linear models of chunks, fitted to the loss of their pooled outputs.

Under "max" and "logsumexp" a linear model of mean embeddings is not the pooled head: a passage
that decides hardly moves the mean of a long text. So the head's coefficients are found where
they act, on chunks. Invariant: values and gradients are those of the poolings that the network
uses; and with one row a document it is the ordinary linear model.

The maximum gives a gradient to the chunk that is largest now, be it the right one or not. Its
fit therefore begins at that of the logarithm of the mean exponential, which at coefficients of
zero is the mean of the chunks, and sharpens as they grow.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]
Linear = tuple[Floats, Floats]  # coefficients (n_outputs, n_features), intercepts (n_outputs,)
Loss = Callable[[Floats, NDArray], Floats]  # of logits and targets

STOP = {"maxiter": 100, "gtol": 1e-4, "ftol": 1e-5}  # of a start, when more tells no more
ANNEALED = {"max": ("logsumexp", "max")}  # what a pooling is fitted as, one after the other


@dataclass(frozen=True)
class Documents:
    """Embeddings of documents: one row each, or a row a chunk whose outputs are pooled.

    Attributes
    ----------
    rows : ndarray of shape (n_rows, n_features)
        Those of the first document, then those of the second, and so on.
    counts : ndarray of shape (n_documents,)
        Rows of each document, at least one.
    pooling : {"max", "logsumexp"}, default="max"
        Of the outputs of a document's rows; of no account where each has one.
    """

    rows: NDArray
    counts: NDArray[np.intp]
    pooling: str = "max"

    @classmethod
    def of_means(cls, embeddings: NDArray) -> "Documents":
        """One row a document, as where logits are averaged."""
        return cls(embeddings.astype(np.float64), np.ones(len(embeddings), dtype=np.intp))

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
        return len(self.rows) == len(self)

    @cached_property
    def means(self) -> Floats:
        """Mean embeddings, of shape (n_documents, n_features)."""
        sums = np.add.reduceat(self.rows, self.starts, axis=0, dtype=np.float64)
        return sums / self.counts[:, None]

    def take(self, indices: NDArray[np.intp]) -> "Documents":
        """Return some documents."""
        rows = [np.arange(self.starts[i], self.starts[i] + self.counts[i]) for i in indices]
        taken = self.rows[np.concatenate(rows)]
        return replace(self, rows=taken, counts=self.counts[indices])

    def with_rows(self, rows: NDArray) -> "Documents":
        """Return documents that have `rows` too, each a document of its own."""
        counts = np.concatenate([self.counts, np.ones(len(rows), dtype=np.intp)])
        return replace(self, rows=np.concatenate([self.rows, rows]), counts=counts)

    def outputs(self, linear: Linear) -> Floats:
        """Return the pooled outputs of a linear model, of shape (n_documents, n_outputs)."""
        return self.pool(self.rows @ linear[0].T + linear[1])[0]

    def pool(self, of_rows: Floats) -> tuple[Floats, Floats]:
        """Pool the outputs of rows.

        Returns
        -------
        pooled : ndarray of shape (n_documents, n_outputs)
        shares : ndarray of shape (n_rows, n_outputs)
            The derivative of its document's output by that of each row; they sum to 1.
        """
        largest = np.maximum.reduceat(of_rows, self.starts, axis=0)
        gaps = of_rows - largest[self.owners]
        shares = (gaps == 0).astype(np.float64) if self.pooling == "max" else np.exp(gaps)
        sums = np.add.reduceat(shares, self.starts, axis=0)
        if self.pooling == "logsumexp":
            largest += np.log(sums / self.counts[:, None])
        return largest, shares / sums[self.owners]


def fit_pooled(
    documents: Documents,
    y: NDArray,
    weights: Floats,
    penalty: float,
    n_outputs: int,
    loss: Loss,
    slope: Loss,
) -> Linear:
    """Minimize the weighted loss of pooled outputs plus `penalty` / 2 times the squares.

    Parameters
    ----------
    documents : Documents
    y : ndarray of shape (n_documents,) or (n_documents, n_outputs)
    weights : ndarray of shape (n_documents,)
    penalty : float
        Of the squared coefficients.
    n_outputs : int
    loss : callable
        From outputs and targets to losses, of shape (n_documents,).
    slope : callable
        Its derivative by the outputs, of shape (n_documents, n_outputs).

    Returns
    -------
    coefficients, intercepts : ndarray of shapes (n_outputs, n_features) and (n_outputs,)
        Of a local minimum: under "max" the loss is not convex.
    """
    n_features = documents.rows.shape[1]
    flat = np.zeros(n_outputs * (n_features + 1))

    def unpack(flat: Floats) -> Linear:
        return flat[n_outputs:].reshape(n_outputs, n_features), flat[:n_outputs]

    for pooling in ANNEALED.get(documents.pooling, (documents.pooling,)):
        stage = replace(documents, pooling=pooling)

        def objective(flat: Floats, stage: Documents = stage) -> tuple[float, Floats]:
            coefficients, intercepts = unpack(flat)
            of_rows = stage.rows @ coefficients.T.astype(stage.rows.dtype) + intercepts
            outputs, shares = stage.pool(of_rows)
            pulls = (weights[:, None] * slope(outputs, y))[stage.owners] * shares
            gradient = pulls.T.astype(stage.rows.dtype) @ stage.rows + penalty * coefficients
            value = weights @ loss(outputs, y) + penalty / 2 * (coefficients**2).sum()
            return float(value), np.concatenate([pulls.sum(0), gradient.ravel()])

        flat = minimize(objective, flat, jac=True, method="L-BFGS-B", options=STOP).x

    return unpack(flat)
