"""From chunked documents to the padded micro-batches that the encoder reads.

The same code serves training and prediction. Rows are sorted by length inside a batch, so a
micro-batch is padded to its own longest chunk only; `ChunkBatch.row_order` lets the caller
restore the documents' order in one place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sklearn_longbert._chunking import ChunkedDocument

Targets = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The chunks of one encoder pass, padded to the longest of them.

    Attributes
    ----------
    input_ids, attention_mask : Tensor of shape (n_rows, longest), dtype int64
    """

    input_ids: Tensor
    attention_mask: Tensor


@dataclass(frozen=True)
class ChunkBatch:
    """The chunks of a batch of documents.

    Attributes
    ----------
    chunks : list of ndarray of shape (chunk_length,)
        Token ids, special tokens included: the chunks of the first document, then those of
        the second, and so on.
    chunk_counts : list of int
        How many chunks each document has.
    pad_id : int
    """

    chunks: list[NDArray[np.int32]]
    chunk_counts: list[int]
    pad_id: int

    def __len__(self) -> int:
        """Number of documents: what skorch weights the loss of a batch by."""
        return len(self.chunk_counts)

    @property
    def row_order(self) -> NDArray[np.intp]:
        """Indices of the chunks from the longest to the shortest."""
        return np.argsort([-len(chunk) for chunk in self.chunks], kind="stable")

    def micro_batches(self, max_tokens: int) -> Iterator[MicroBatch]:
        """Yield the chunks in `row_order`, at most `max_tokens` a time, padding counted.

        A single chunk is never divided, so one that is longer than `max_tokens` comes alone.
        """
        order = self.row_order
        start = 0
        while start < len(order):
            longest = len(self.chunks[order[start]])
            end = start + max(max_tokens // longest, 1)
            yield _pad([self.chunks[row] for row in order[start:end]], self.pad_id)
            start = end


def _pad(chunks: Sequence[NDArray[np.int32]], pad_id: int) -> MicroBatch:
    shape = (len(chunks), max(map(len, chunks)))
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    attention_mask = np.zeros(shape, dtype=np.int64)
    for row, chunk in enumerate(chunks):
        input_ids[row, : len(chunk)] = chunk
        attention_mask[row, : len(chunk)] = 1
    return MicroBatch(torch.from_numpy(input_ids), torch.from_numpy(attention_mask))


class DocumentDataset(Dataset[tuple[ChunkedDocument, Tensor, Tensor]]):
    """Documents with their targets and weights.

    Parameters
    ----------
    documents : ndarray of shape (n_documents,) of ChunkedDocument
    targets : Tensor of shape (n_documents,), default=None
        What the loss compares the document logits with; zeros in prediction.
    weights : Tensor of shape (n_documents,), default=None
        What the loss of each document is multiplied by; ones if None.
    """

    def __init__(
        self,
        documents: NDArray[np.object_],
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.documents = documents
        self.targets = torch.zeros(len(documents)) if targets is None else targets
        self.weights = torch.ones(len(documents)) if weights is None else weights

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> tuple[ChunkedDocument, Tensor, Tensor]:
        return self.documents[index], self.targets[index], self.weights[index]


class Collate:
    """Make a batch of documents; draws their chunks where `random_state` is given."""

    def __init__(self, random_state: np.random.RandomState | None = None) -> None:
        self.random_state = random_state

    def __call__(
        self, rows: Sequence[tuple[ChunkedDocument, Tensor, Tensor]]
    ) -> tuple[ChunkBatch, Targets]:
        documents, targets, weights = zip(*rows, strict=True)
        chunks = [list(document.chunks(self.random_state)) for document in documents]
        batch = ChunkBatch(
            chunks=[chunk for of_document in chunks for chunk in of_document],
            chunk_counts=[len(of_document) for of_document in chunks],
            pad_id=documents[0].layout.pad_id,
        )
        return batch, (torch.stack(targets), torch.stack(weights))


def document_loader(
    dataset: DocumentDataset, batch_size: int, seed: int | None = None
) -> DataLoader[tuple[ChunkedDocument, Tensor, Tensor]]:
    """Return batches of `batch_size` documents: in order, or shuffled if there is a seed."""
    # Its own generator also in prediction: a DataLoader without one draws from torch's global.
    generator = torch.Generator().manual_seed(seed or 0)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=seed is not None,
        collate_fn=Collate(None if seed is None else np.random.RandomState(seed)),
        generator=generator,
    )
