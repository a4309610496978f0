"""Encode the chunks of documents in passes that fit into memory, and measure what fits.

The chunks of all documents are sorted by length together, and equal chunks are encoded once,
without gradients. Training has passes of its own, whose sizes are found here.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._encoding.batches import ChunkBatch, ChunkShare, Groups, in_order
from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._encoding.gradient_cache import gpus_of
from sklearn_longbert._encoding.graph import Graph
from sklearn_longbert._encoding.memory import (
    auto_limits,
    graph_bytes,
    is_out_of_memory,
    pass_tokens,
    too_large,
)
from sklearn_longbert._encoding.progress import Bar
from sklearn_longbert._encoding.remembered import digest, encoder_digest, is_worth_it, remembered
from sklearn_longbert._texts.stretches import STREAM_TOKENS, stretches

CALIBRATION_CHUNKS, FEWEST_CALIBRATION_CHUNKS = 96, 32  # of a graph in int8

BYTES_PER_TOKEN: dict[tuple[Any, ...], float] = {}  # see _bytes_per_token


class Others(Protocol):
    """Other devices, which encode shares of a batch at the same time."""

    @property
    def n_ranks(self) -> int:
        """Number of the devices, this one counted."""

    def encode(self, batch: ChunkBatch, shares: list[Groups]) -> None:
        """Begin to encode all shares but the first."""

    def encoded(self) -> list[Tensor]:
        """Return the embeddings of these shares."""

    def limits(
        self, own: tuple[int, int], bytes_per_token: float, reserved: int
    ) -> tuple[int, int]:
        """Return the least limits of all devices, of which `own` are those of this one."""


@dataclass(frozen=True)
class Passes:
    """Settings by which a network encodes chunks.

    Attributes
    ----------
    micro_batch_tokens : int or "auto"
        Most tokens, padding counted, in one encoder pass.
    device : torch.device
    autocast : torch.dtype or None
    on_pass : callable, default=None
        Called after each pass with the number of chunks that it has encoded.
    leader : Others, default=None
        What shares the passes with other devices. None is one device.
    inference : {"torch", "openvino", "openvino_int8"}, default="torch"
        What computes the passes that need no gradients.
    """

    micro_batch_tokens: int | str
    device: torch.device
    autocast: torch.dtype | None
    on_pass: Callable[[int], None] | None = None
    leader: Others | None = None
    inference: str = "torch"

    def casting(self) -> torch.autocast:
        """Return the context that the encoder computes in.

        Autocast's cache is off: inside of another autocast, such as that of ``own_modes``, torch
        does not empty it, and passes would compute with the weights of an earlier step.
        """
        enabled = self.autocast is not None
        return torch.autocast(
            self.device.type, dtype=self.autocast, enabled=enabled, cache_enabled=False
        )

    def calibrate(self, network: ChunkEncoder, batch: ChunkBatch, fewest: int = 1) -> None:
        """Make the graph in int8 of the present weights, if it is wanted and there is none.

        Raises
        ------
        ValueError
            If the batch has fewer different chunks than `fewest`.
        """
        if self.inference != "openvino_int8" or network.quantized is not None:
            return
        numbers, _ = batch.distinct()
        if len(numbers) < fewest:
            raise ValueError(
                f"precision='int8' is calibrated on the first texts that are encoded in it, and "
                f"{len(numbers)} different chunks are too few: pass texts of at least {fewest} "
                f"different ones first, or fit with precision='int8'."
            )
        numbers = np.random.RandomState(0).permutation(numbers)
        chunks = [batch.chunk(number) for number in numbers[:CALIBRATION_CHUNKS]]
        network.quantize(chunks, self.autocast is not None)

    def graph(self, network: ChunkEncoder) -> Graph | None:
        """Return what computes hidden states in place of torch, None if torch does."""
        if self.inference == "torch":
            return None
        return network.graph(self.inference == "openvino_int8", self.autocast is not None)

    @property
    def n_ranks(self) -> int:
        """Number of the devices that share the passes."""
        return 1 if self.leader is None else self.leader.n_ranks

    @property
    def max_tokens(self) -> int:
        """Most tokens of a pass."""
        return pass_tokens(self.micro_batch_tokens, self.device)

    def too_large(self, error: BaseException, n_tokens: int) -> MemoryError:
        """Return the error for a chunk of `n_tokens` that does not fit into memory even alone."""
        precision = str(self.autocast or torch.float32).removeprefix("torch.")
        return too_large(error, n_tokens, self.device, precision)


def encode_chunks(
    network: ChunkEncoder,
    batch: ChunkBatch,
    passes: Passes,
    outputs_of: Callable[[Tensor], Tensor] | None = None,
    progress: str | None = None,
) -> Tensor:
    """Return the embedding of each chunk, or outputs computed from it, on the CPU.

    Parameters
    ----------
    network : ChunkEncoder
        The network, in evaluation mode.
    batch : ChunkBatch
    passes : Passes
    outputs_of : callable, default=None
        Maps embeddings, of shape (n, embedding_size), to outputs, of shape (n, n_columns). None
        returns the embeddings themselves.
    progress : str, default=None
        Name of a progress bar, which is shown if there are several passes. None shows no bar.

    Returns
    -------
    outputs : Tensor of shape (n_chunks, n_columns)
    """
    numbers, stand_ins = batch.distinct()
    outputs = _encode_each(network, batch, numbers, passes, outputs_of or _as_they_are, progress)
    return in_order(outputs, numbers, stand_ins)


def cached_embeddings(
    network: ChunkEncoder, batch: ChunkBatch, passes: Passes, cache: dict[bytes, Tensor]
) -> Tensor:
    """Return the embedding of each chunk, on the CPU, encoding those that are not in `cache`.

    Parameters
    ----------
    network : ChunkEncoder
        The network, in evaluation mode, with which all of the cache was encoded.
    batch : ChunkBatch
    passes : Passes
    cache : dict
        Embeddings of chunks by their digests. New embeddings are added to it.

    Returns
    -------
    embeddings : Tensor of shape (n_chunks, embedding_size)
    """
    numbers, _ = batch.distinct()
    new = np.array([n for n in numbers if batch.digests[n] not in cache], dtype=np.intp)
    if len(new):
        rows = _encode_each(network, batch, new, passes, _as_they_are, None)
        cache.update(zip((batch.digests[n] for n in new), rows.clone(), strict=True))
    return torch.stack([cache[digest] for digest in batch.digests])


def frozen_embeddings(
    network: ChunkEncoder, batch: ChunkBatch, passes: Passes, progress: str | None = None
) -> Tensor:
    """Return the embedding of each chunk, on the CPU, as remembered if the chunks are the same.

    Parameters
    ----------
    network : ChunkEncoder
        The network, in evaluation mode and frozen.
    batch : ChunkBatch
    passes : Passes
    progress : str, default=None
        See :func:`encode_chunks`.

    Returns
    -------
    embeddings : Tensor of shape (n_chunks, embedding_size)
    """
    passes.calibrate(network, batch, FEWEST_CALIBRATION_CHUNKS)
    numbers, stand_ins = batch.distinct()
    compute = partial(_encode_each, network, batch, numbers, passes, _as_they_are, progress)
    if can_remember(network, batch):
        chunks = digest(*(batch.digests[number] for number in numbers))
        key = digest(
            encoder_digest(network.encoder),
            chunks,
            (network.layers, network.token_pooling),
            (str(passes.device), str(passes.autocast), passes.max_tokens, passes.n_ranks),
            (torch.get_num_threads(), torch.get_float32_matmul_precision()),
            passes.inference,
            *([] if network.quantized is None else [network.quantized.digest]),
        )
        rows = remembered(key, compute)
    else:
        rows = compute()
    return in_order(rows, numbers, stand_ins)


def can_remember(network: ChunkEncoder, batch: ChunkBatch) -> bool:
    """Return whether the chunks of a batch are neither too few nor too many to be remembered."""
    n_chunks = len(batch.distinct()[0])
    n_bytes = n_chunks * network.embedding_size * network.dtype.itemsize
    return is_worth_it(n_chunks, n_bytes)


def _as_they_are(embeddings: Tensor) -> Tensor:
    return embeddings


def _encode_each(
    network: ChunkEncoder,
    batch: ChunkBatch,
    numbers: NDArray[np.intp],
    passes: Passes,
    outputs_of: Callable[[Tensor], Tensor],
    progress: str | None,
) -> Tensor:
    """Return the outputs of these chunks, of shape (len(numbers), n_columns)."""
    with torch.inference_mode():
        passes.calibrate(network, batch, FEWEST_CALIBRATION_CHUNKS)
        graph = passes.graph(network)
        with passes.casting():
            padded = graph is not None or not network.packs()
        leader = passes.leader
        shares = batch.shares(passes.max_tokens, padded, passes.n_ranks, numbers)
        if leader is not None:
            leader.encode(batch, shares)
        outputs: list[Tensor] = []
        hidden = progress is None or len(shares[0]) == 1
        with Bar(total=len(numbers), desc=progress, disable=hidden) as bar:

            def show(n_chunks: int) -> None:
                bar.update(n_chunks)
                if passes.on_pass is not None:
                    passes.on_pass(n_chunks)

            for group in shares[0]:
                outputs += encode_groups(network, batch, [group], passes, outputs_of, graph)
                show(len(group))
            if leader is not None:
                for rows in leader.encoded():
                    outputs.append(outputs_of(rows.to(passes.device)).cpu())
                    show(len(rows))
        order = np.concatenate([group for share in shares for group in share])
        return in_order(torch.cat(outputs), order, numbers)


def encode_groups(
    network: ChunkEncoder,
    batch: ChunkBatch | ChunkShare,
    groups: Sequence[NDArray[np.intp]],
    passes: Passes,
    outputs_of: Callable[[Tensor], Tensor] = _as_they_are,
    graph: Graph | None = None,
) -> Iterator[Tensor]:
    """Yield the outputs of micro-batches, on the CPU; what does not fit into memory is halved."""
    for group in groups:
        yield from _halve_until_it_fits(network, batch, group, passes, outputs_of, graph)


def _halve_until_it_fits(
    network: ChunkEncoder,
    batch: ChunkBatch | ChunkShare,
    numbers: NDArray[np.intp],
    passes: Passes,
    outputs_of: Callable[[Tensor], Tensor],
    graph: Graph | None,
) -> list[Tensor]:
    """Return the outputs of these chunks, in as many passes as memory requires."""
    micro_batch = batch.micro_batch(numbers)
    try:
        if graph is not None:
            return [outputs_of(network.encode_by_graph(micro_batch, graph)).cpu()]
        with passes.casting():
            embeddings = network.encode(micro_batch)
        return [outputs_of(embeddings).cpu()]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        if len(numbers) == 1:
            raise passes.too_large(error, batch.lengths[numbers[0]]) from error
    middle = len(numbers) // 2
    return [
        part
        for half in (numbers[:middle], numbers[middle:])
        for part in _halve_until_it_fits(network, batch, half, passes, outputs_of, graph)
    ]


def mean_of_chunks(of_chunks: Tensor, chunk_counts: Sequence[int]) -> Tensor:
    """Return the mean of each document's rows, of shape (n_documents, n_columns)."""
    return torch.stack([rows.mean(0) for rows in of_chunks.split(list(chunk_counts))])


def document_embeddings(
    network: ChunkEncoder, documents: NDArray[np.object_], passes: Passes
) -> Tensor:
    """Return the mean of the chunk embeddings of each document, on the CPU.

    Documents are encoded a stretch at a time, so that memory holds the chunks of one stretch only.

    Returns
    -------
    embeddings : Tensor of shape (n_documents, embedding_size)
    """
    means = []
    sizes = [document.n_tokens for document in documents]
    for rows in stretches(sizes, STREAM_TOKENS):
        batch = ChunkBatch(documents[rows])
        means.append(mean_of_chunks(encode_chunks(network, batch, passes), batch.chunk_counts))
    return torch.cat(means)


def training_limits(
    network: ChunkEncoder,
    documents: NDArray[np.object_],
    batch_size: int,
    passes: Passes,
    encode: Callable[[ChunkBatch, NDArray[np.intp]], Tensor],
) -> tuple[int, int]:
    """Return the most tokens of an encoder pass, and of the graphs that are kept.

    Parameters
    ----------
    network : ChunkEncoder
        The network, in training mode.
    documents : ndarray of ChunkedDocument
    batch_size : int
        Number of documents in a step.
    passes : Passes
    encode : callable
        Maps a batch and the numbers of some of its chunks to the embeddings of these.
    """
    pass_limit = passes.max_tokens
    is_frozen = not next(network.encoder.parameters()).requires_grad
    if passes.micro_batch_tokens != "auto" or is_frozen:
        return pass_limit, pass_limit
    counts = sorted((document.n_tokens for document in documents), reverse=True)
    if sum(counts[:batch_size]) * 2 < pass_limit:  # twice, to leave room for special tokens
        return pass_limit, pass_limit
    reserved = 3 * sum(  # gradients and AdamW's two moments
        weight.nbytes for weight in network.parameters() if weight.requires_grad
    )
    longest = ChunkBatch([max(documents, key=lambda document: document.n_tokens)])
    bytes_per_token = _bytes_per_token(network, longest, passes, encode)
    if passes.leader is None:
        return auto_limits(bytes_per_token, reserved, passes.device)
    if passes.device.type == "cpu":  # whose memory all ranks share
        bytes_per_token *= passes.n_ranks
    own = auto_limits(bytes_per_token, reserved, passes.device)
    return passes.leader.limits(own, bytes_per_token, reserved)


def _bytes_per_token(
    network: ChunkEncoder,
    chunks: ChunkBatch,
    passes: Passes,
    encode: Callable[[ChunkBatch, NDArray[np.intp]], Tensor],
) -> float:
    """Measure, once per process, the graph of one more long chunk, in bytes per token."""
    number = chunks.plan(1, padded=False)[0]
    n_tokens = int(chunks.lengths[number[0]])
    taken = (network.layers, network.token_pooling)
    where = (passes.autocast, passes.device.type)
    kind = (network.configuration, network.dtype, *taken, *where, n_tokens)
    if kind in BYTES_PER_TOKEN:
        return BYTES_PER_TOKEN[kind]
    try:
        with torch.random.fork_rng(gpus_of(passes.device)):  # a pass may draw random numbers
            one = graph_bytes(lambda: encode(chunks, number))
            two = graph_bytes(lambda: encode(chunks, np.repeat(number, 2)))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise passes.too_large(error, n_tokens) from error
        raise
    BYTES_PER_TOKEN[kind] = max((two - one) / n_tokens, 1.0)
    return BYTES_PER_TOKEN[kind]
