"""Limit the tokens that a training step encodes at once, and those whose graphs it keeps."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._encoding.batches import ChunkBatch
from sklearn_longbert._encoding.memory import auto_limits, graph_bytes, is_out_of_memory
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._encoding.passes import Passes
from sklearn_longbert._training.random_states import own_random_state

BYTES_PER_TOKEN: dict[tuple[Any, ...], float] = {}  # see _bytes_per_token


def training_limits(
    network: LongBertNetwork,
    documents: NDArray[np.object_],
    batch_size: int,
    passes: Passes,
    encode: Callable[[ChunkBatch, NDArray[np.intp]], Tensor],
) -> tuple[int, int]:
    """Return the most tokens of an encoder pass, and of the graphs that are kept.

    Parameters
    ----------
    network : LongBertNetwork
        The network, in training mode.
    documents : ndarray of ChunkedDocument
    batch_size : int
        Number of documents in a step.
    passes : Passes
    encode : callable
        Maps a batch and the numbers of some of its chunks to the embeddings of these.
    """
    pass_limit = passes.max_tokens
    if passes.micro_batch_tokens != "auto" or network.frozen:
        return pass_limit, pass_limit
    counts = sorted((document.n_tokens for document in documents), reverse=True)
    if sum(counts[:batch_size]) * 2 < pass_limit:  # twice, to leave room for special tokens
        return pass_limit, pass_limit
    reserved = 3 * sum(  # gradients and AdamW's two moments
        weight.nbytes for weight in network.parameters() if weight.requires_grad
    )
    longest = ChunkBatch([max(documents, key=lambda document: document.n_tokens)])
    return auto_limits(_bytes_per_token(network, longest, passes, encode), reserved, passes.device)


def _bytes_per_token(
    network: LongBertNetwork,
    chunks: ChunkBatch,
    passes: Passes,
    encode: Callable[[ChunkBatch, NDArray[np.intp]], Tensor],
) -> float:
    """Measure, once per process, the graph of one more long chunk, in bytes per token."""
    number = chunks.plan(1, padded=False)[0]
    n_tokens = int(chunks.lengths[number[0]])
    kind = (network.configuration, network.dtype, passes.autocast, passes.device.type, n_tokens)
    if kind in BYTES_PER_TOKEN:
        return BYTES_PER_TOKEN[kind]
    try:
        with own_random_state(0, passes.device):  # a pass may draw random numbers
            one = graph_bytes(lambda: encode(chunks, number))
            two = graph_bytes(lambda: encode(chunks, np.repeat(number, 2)))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise passes.too_large(error, n_tokens) from error
        raise
    BYTES_PER_TOKEN[kind] = max((two - one) / n_tokens, 1.0)
    return BYTES_PER_TOKEN[kind]
