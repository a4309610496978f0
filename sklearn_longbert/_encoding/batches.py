"""From chunked documents to the micro-batches that the encoder encodes.

The same code serves training, prediction, explanation and embedding. Chunks are sorted by length,
so that those of a micro-batch are about equally long. Nothing is copied before its micro-batch is
made: a batch is its documents' own token ids and a table of its chunks.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sklearn_longbert._encoding.dropout import token_keys
from sklearn_longbert._texts.documents import ChunkedDocument

TargetsAndWeights = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MicroBatch:
    """The chunks of one encoder pass.

    Attributes
    ----------
    chunks : list of ndarray of shape (chunk_length,), dtype int32
        Token ids, special tokens included.
    numbers : ndarray of shape (n_chunks,)
        Of each chunk in its batch.
    pad_id : int
    """

    chunks: list[NDArray[np.int32]]
    numbers: NDArray[np.intp]
    pad_id: int

    @property
    def lengths(self) -> list[int]:
        """Tokens of each chunk."""
        return [len(chunk) for chunk in self.chunks]

    @property
    def input_ids(self) -> Tensor:
        """The chunks one after the other, of shape (n_tokens,), dtype int64."""
        return torch.from_numpy(np.concatenate(self.chunks).astype(np.int64))

    @property
    def attention_mask(self) -> Tensor:
        """True at the real tokens of padded chunks, of shape (n_chunks, longest)."""
        lengths = torch.tensor(self.lengths)
        return torch.arange(int(lengths.max())) < lengths[:, None]

    def dropout_keys(self, seed: int) -> Tensor:
        """What the tokens' dropout depends on, of shape (n_tokens,), dtype int64."""
        return token_keys(seed, self.numbers, self.lengths)


class ChunkBatch:
    """The chunks of some documents.

    Parameters
    ----------
    documents : sequence or array of ChunkedDocument
    random_state : RandomState, default=None
        What chunks are drawn with, where ``chunk_selection="random"``.
    """

    def __init__(
        self,
        documents: Sequence[ChunkedDocument] | NDArray[np.object_],
        random_state: np.random.RandomState | None = None,
    ) -> None:
        self.documents = documents
        self.layout = documents[0].layout
        bounds = [document.bounds(random_state) for document in documents]
        self.chunk_counts = [len(of_document) for of_document in bounds]
        self._bounds = np.concatenate(bounds).astype(np.int32)  # (n_chunks, 2)
        self._owners = np.repeat(np.arange(len(documents)), self.chunk_counts)

    def __len__(self) -> int:
        """Number of documents: what skorch weights the loss of a batch by."""
        return len(self.documents)

    @cached_property
    def lengths(self) -> NDArray[np.intp]:
        """Tokens of each chunk, special tokens included, of shape (n_chunks,)."""
        n_special = len(self.layout.prefix) + len(self.layout.suffix)
        return self._bounds[:, 1] - self._bounds[:, 0] + n_special

    def chunk(self, number: int) -> NDArray[np.int32]:
        """Return the token ids of a chunk; those of the first document have the first numbers."""
        return self.documents[self._owners[number]].chunk(*self._bounds[number])

    def plan(
        self, max_tokens: int, padded: bool, numbers: NDArray[np.intp] | None = None
    ) -> list[NDArray[np.intp]]:
        """Group chunks by length, longest first, into micro-batches.

        Parameters
        ----------
        max_tokens : int
            The most tokens of a micro-batch. A single chunk is never divided, so one that is
            longer comes alone.
        padded : bool
            Whether padding up to the longest chunk of the micro-batch counts.
        numbers : ndarray, default=None
            The chunks to group; all if None.

        Returns
        -------
        groups : list of ndarray
            The numbers of the chunks of each micro-batch.
        """
        numbers = np.arange(len(self.lengths)) if numbers is None else numbers
        order = numbers[np.argsort(-self.lengths[numbers], kind="stable")]
        starts, n_tokens = [0], 0
        for index, length in enumerate(self.lengths[order].tolist()):
            n_rows = index - starts[-1]
            longest = self.lengths[order[starts[-1]]]
            n_tokens = longest * (n_rows + 1) if padded else n_tokens + length
            if n_tokens > max_tokens and n_rows > 0:
                starts.append(index)
                n_tokens = length
        return np.split(order, starts[1:])

    def micro_batch(self, numbers: NDArray[np.intp]) -> MicroBatch:
        """Return these chunks as the encoder takes them."""
        chunks = [self.chunk(number) for number in numbers]
        return MicroBatch(chunks, numbers, self.layout.pad_id)

    @cached_property
    def digests(self) -> list[bytes]:
        """What tells each chunk from those that hold something else."""
        return [
            hashlib.blake2b(self.chunk(number).tobytes(), digest_size=16).digest()
            for number in range(len(self.lengths))
        ]

    def distinct(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find equal chunks, such as those of repeated texts.

        Returns
        -------
        numbers : ndarray of shape (n_distinct,)
            One chunk of each kind. Their order depends on what they hold and not on the order of
            the documents, so that predictions do not depend on that either, to the last bit.
        stand_ins : ndarray of shape (n_chunks,)
            The one of `numbers` that each chunk is equal to.
        """
        number_of = {digest: number for number, digest in enumerate(self.digests)}
        numbers = np.array([number_of[digest] for digest in sorted(number_of)])
        return numbers, np.array([number_of[digest] for digest in self.digests])


def in_order(rows: Tensor, numbers: NDArray[np.intp], wanted: NDArray[np.intp]) -> Tensor:
    """Return the rows of the wanted chunks, in the order of these: the one place that restores it.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_columns)
        In the order in which chunks were encoded.
    numbers : ndarray of shape (n_rows,)
        The chunk of each row, each once.
    wanted : ndarray of shape (n_wanted,)
        Chunks among `numbers`.
    """
    position = np.empty(numbers.max() + 1, dtype=np.intp)
    position[numbers] = np.arange(len(numbers))
    return rows[torch.from_numpy(position[wanted]).to(rows.device)]


class DocumentDataset(Dataset[tuple[ChunkedDocument, Tensor, Tensor]]):
    """Documents with their targets and weights.

    Parameters
    ----------
    documents : ndarray of shape (n_documents,) of ChunkedDocument
    targets : Tensor of shape (n_documents,) or (n_documents, n_outputs)
        What the loss compares the document logits with.
    weights : ndarray of shape (n_documents,) or (n_documents, n_outputs)
        Multiply the losses of each document; they are scaled to mean 1, so that the loss of a
        batch is a mean.
    """

    def __init__(
        self, documents: NDArray[np.object_], targets: Tensor, weights: NDArray[np.float64]
    ) -> None:
        self.documents = documents
        self.targets = targets
        self.weights = torch.from_numpy(weights / weights.mean())

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
    ) -> tuple[ChunkBatch, TargetsAndWeights]:
        documents, targets, weights = zip(*rows, strict=True)
        return ChunkBatch(documents, self.random_state), (
            torch.stack(targets),
            torch.stack(weights),
        )


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
