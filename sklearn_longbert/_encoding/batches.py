"""Turn chunked documents into the micro-batches that the encoder encodes.

The same code serves training, prediction, explanation and embedding. Chunks are sorted by length,
so that those of a micro-batch are about equally long. Token ids are copied only when a micro-batch
is made: a batch itself is its documents and a table of the bounds of their chunks.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._encoding.dropout import token_keys
from sklearn_longbert._targets.scales import scaled_sum
from sklearn_longbert._texts.documents import ChunkedDocument

TargetsAndWeights = tuple[Tensor, Tensor]
Groups = list[NDArray[np.intp]]  # the numbers of the chunks of each micro-batch


@dataclass(frozen=True)
class MicroBatch:
    """The chunks of one encoder pass.

    Attributes
    ----------
    chunks : list of ndarray of shape (chunk_length,), dtype int32
        Token ids, special tokens included.
    numbers : ndarray of shape (n_chunks,)
        Number of each chunk in its batch.
    pad_id : int
    """

    chunks: list[NDArray[np.int32]]
    numbers: NDArray[np.intp]
    pad_id: int

    @property
    def lengths(self) -> list[int]:
        """Number of tokens of each chunk."""
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
        """Return the keys of the tokens' dropout masks, of shape (n_tokens,), dtype int64."""
        return token_keys(seed, self.numbers, self.lengths)


class ChunkBatch:
    """The chunks of some documents.

    Parameters
    ----------
    documents : sequence or array of ChunkedDocument
    seed : int, default=None
        Decides the chunks where ``chunk_selection="random"``, and dropout. None draws nothing.
    offsets : Tensor of shape (n_documents, 1 or n_outputs), default=None
        Logits of a baseline, which are added to those of the network. None is zeros.
    """

    def __init__(
        self,
        documents: Sequence[ChunkedDocument] | NDArray[np.object_],
        seed: int | None = None,
        offsets: Tensor | None = None,
    ) -> None:
        self.documents = documents
        self.seed = seed
        self.offsets = offsets
        self.layout = documents[0].layout
        random_state = None if seed is None else random_state_of(seed)
        bounds = [document.bounds(random_state) for document in documents]
        self.chunk_counts = [len(of_document) for of_document in bounds]
        self._bounds = np.concatenate(bounds).astype(np.int32)  # (n_chunks, 2)
        self._owners = np.repeat(np.arange(len(documents)), self.chunk_counts)

    def __len__(self) -> int:
        """Return the number of documents, by which skorch weights the loss of a batch."""
        return len(self.documents)

    @cached_property
    def lengths(self) -> NDArray[np.intp]:
        """Number of tokens of each chunk, special tokens included, of shape (n_chunks,)."""
        n_special = len(self.layout.prefix) + len(self.layout.suffix)
        return self._bounds[:, 1] - self._bounds[:, 0] + n_special

    def chunk(self, number: int) -> NDArray[np.int32]:
        """Return the token ids of a chunk; numbers go through the documents in their order."""
        return self.documents[self._owners[number]].chunk(*self._bounds[number])

    def plan(
        self, max_tokens: int, padded: bool, numbers: NDArray[np.intp] | None = None
    ) -> Groups:
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

    def shares(
        self,
        max_tokens: int,
        padded: bool,
        n_ranks: int = 1,
        numbers: NDArray[np.intp] | None = None,
    ) -> list[Groups]:
        """Plan micro-batches for several devices, each with about as many tokens.

        Parameters
        ----------
        max_tokens, padded, numbers
            See :meth:`plan`, which is that of one device.
        n_ranks : int, default=1
            Number of the devices.

        Returns
        -------
        shares : list of list of ndarray, of length n_ranks
            The numbers of the chunks of each micro-batch of each device. The first device always
            has one.
        """
        if n_ranks == 1:
            return [self.plan(max_tokens, padded, numbers)]
        n_tokens = int((self.lengths if numbers is None else self.lengths[numbers]).sum())
        n_rounds = ceil(n_tokens / max_tokens / n_ranks)
        limit = min(max_tokens, ceil(n_tokens / n_rounds / n_ranks))
        shares: list[Groups] = [[] for _ in range(n_ranks)]
        loads = np.zeros(n_ranks)
        for number, group in enumerate(self.plan(limit, padded, numbers)):  # longest first
            least = int(loads.argmin())
            shares[least].append(group)
            loads[least] += self.lengths[group].sum()
            loads[0] += number == 0  # where loads are equal, rank 0 has more to do besides
        return shares

    def n_within(self, groups: Groups, max_tokens: int, padded: bool) -> int:
        """Return how many micro-batches, from the first, hold so many tokens; at least one."""
        sizes = [
            int(self.lengths[group].max()) * len(group) if padded else self.lengths[group].sum()
            for group in groups
        ]
        return max(int(np.searchsorted(np.cumsum(sizes), max_tokens, side="right")), 1)

    def micro_batch(self, numbers: NDArray[np.intp]) -> MicroBatch:
        """Return these chunks in the form that the encoder takes."""
        chunks = [self.chunk(number) for number in numbers]
        return MicroBatch(chunks, numbers, self.layout.pad_id)

    def share(self, groups: Groups) -> "ChunkShare":
        """Return the chunks of some micro-batches in the form that another process gets."""
        chunks = {int(number): self.chunk(number) for group in groups for number in group}
        return ChunkShare(groups, chunks, self.layout.pad_id, self.seed)

    @cached_property
    def digests(self) -> list[bytes]:
        """A digest of the token ids of each chunk."""
        return [
            hashlib.blake2b(self.chunk(number).tobytes(), digest_size=16).digest()
            for number in range(len(self.lengths))
        ]

    def distinct(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Find equal chunks, such as those of repeated texts.

        Returns
        -------
        numbers : ndarray of shape (n_distinct,)
            One chunk of each kind. Their order depends on their token ids only. So outputs do
            not depend on the order of the documents of a batch, not even in the last bit.
        stand_ins : ndarray of shape (n_chunks,)
            For each chunk, the equal one among `numbers`.
        """
        number_of = {digest: number for number, digest in enumerate(self.digests)}
        numbers = np.array([number_of[digest] for digest in sorted(number_of)])
        return numbers, np.array([number_of[digest] for digest in self.digests])


@dataclass(frozen=True)
class ChunkShare:
    """Some chunks of a batch, which another process encodes.

    Attributes
    ----------
    groups : list of ndarray
        The numbers of the chunks of each micro-batch.
    chunks : dict of int to ndarray of shape (chunk_length,), dtype int32
        The token ids of each chunk by its number in the batch.
    pad_id : int
    seed : int or None
        Seed of the batch.
    """

    groups: Groups
    chunks: dict[int, NDArray[np.int32]]
    pad_id: int
    seed: int | None

    @property
    def lengths(self) -> dict[int, int]:
        """Number of tokens of each chunk, by its number."""
        return {number: len(chunk) for number, chunk in self.chunks.items()}

    def micro_batch(self, numbers: NDArray[np.intp]) -> MicroBatch:
        """Return these chunks in the form that the encoder takes."""
        return MicroBatch([self.chunks[int(number)] for number in numbers], numbers, self.pad_id)


def in_order(rows: Tensor, numbers: NDArray[np.intp], wanted: NDArray[np.intp]) -> Tensor:
    """Return the rows of the wanted chunks, in the order of `wanted`.

    No other function restores an order of chunks.

    Parameters
    ----------
    rows : Tensor of shape (n_rows, n_columns)
        Rows in the order in which chunks were encoded.
    numbers : ndarray of shape (n_rows,)
        Number of the chunk of each row, each once.
    wanted : ndarray of shape (n_wanted,)
        Numbers of the wanted chunks, all of them among `numbers`.
    """
    position = np.empty(numbers.max() + 1, dtype=np.intp)
    position[numbers] = np.arange(len(numbers))
    return rows[torch.from_numpy(position[wanted]).to(rows.device)]


class DocumentDataset:
    """Documents with their targets, weights and offsets.

    Parameters
    ----------
    documents : ndarray of shape (n_documents,) of ChunkedDocument
    targets : Tensor of shape (n_documents,) or (n_documents, n_outputs)
        The targets that the loss compares the document logits with.
    weights : ndarray of shape (n_documents,) or (n_documents, n_outputs)
        Multiply the losses of each document; they are scaled to mean 1, so that the loss of a
        batch is a mean.
    parts : list of ndarray of shape (n_documents, n_outputs)
        Logits of each model of a baseline, which was not fitted to these documents; none if there
        is no baseline. :meth:`offset_by` makes one offset of them.
    """

    def __init__(
        self,
        documents: NDArray[np.object_],
        targets: Tensor,
        weights: NDArray[np.float64],
        parts: Sequence[NDArray[np.float64]] = (),
    ) -> None:
        self.documents = documents
        self.targets = targets
        self.weights = torch.from_numpy(weights / weights.mean())
        self.parts = list(parts)
        self.offsets = torch.zeros(len(documents), 1)

    def offset_by(self, scales: NDArray[np.float64] | None) -> None:
        """Offset the network's logits by the scaled sum of the parts, if there is a baseline."""
        if scales is not None:
            summed = scaled_sum(self.parts, scales, self.weights.numpy())
            self.offsets = torch.from_numpy(summed).float()

    def __len__(self) -> int:
        return len(self.documents)


class Batches:
    """The batches of a dataset: in its order, or in one that is drawn anew for each epoch.

    Nothing is drawn from a generator that runs on. The order of the documents follows from (seed,
    epoch), and the chunks and the dropout of a batch from (seed, epoch, number of the batch). So
    training can go on at any place.

    Parameters
    ----------
    dataset : DocumentDataset
    batch_size : int
    seed : int, default=None
        None keeps the order, and draws nothing.
    place : callable, default=None
        Returns the number of the epoch, and that of its first batch. It is asked whenever an
        iteration begins. None is the first batch of the first epoch.
    """

    def __init__(
        self,
        dataset: DocumentDataset,
        batch_size: int,
        seed: int | None = None,
        place: Callable[[], tuple[int, int]] | None = None,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.place = place

    def __len__(self) -> int:
        return ceil(len(self.dataset) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[ChunkBatch, TargetsAndWeights]]:
        epoch, first = (1, 0) if self.place is None else self.place()
        order: NDArray[np.intp] = np.arange(len(self.dataset))
        if self.seed is not None:
            order = random_state_of(_seed_of(self.seed, epoch)).permutation(order)
        for number in range(first, len(self)):
            rows = order[number * self.batch_size :][: self.batch_size]
            seed = None if self.seed is None else _seed_of(self.seed, epoch, number + 1)
            data, places = self.dataset, torch.from_numpy(rows)
            chunks = ChunkBatch(data.documents[rows], seed, data.offsets[places])
            yield chunks, (data.targets[places], data.weights[places])


def _seed_of(*place: int) -> int:
    """Return a seed of 63 bits that depends on the place alone."""
    return int(np.random.SeedSequence(place).generate_state(1, np.uint64)[0] >> 1)


def random_state_of(seed: int) -> np.random.RandomState:
    """Return a generator for a seed of any size."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
