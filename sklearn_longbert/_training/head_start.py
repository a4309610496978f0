"""Start a new head at a linear model of the embeddings of the encoder before training.

Where an embedding has several parts, one for each layer and kind of pooling, their sizes differ
much. A linear model scales them itself. Weights that are drawn are scaled here.
"""

from math import ceil

import numpy as np
import torch
from torch import Tensor, nn

from sklearn_longbert._encoding.batches import ChunkBatch, DocumentDataset
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._encoding.passes import (
    Passes,
    cached_embeddings,
    document_embeddings,
    encode_chunks,
    mean_of_chunks,
)
from sklearn_longbert._encoding.poolings import POOLINGS
from sklearn_longbert._targets.base import Probe
from sklearn_longbert._targets.pooled_linear import Embeddings

MOST_SCALED = 16  # texts whose embeddings tell the sizes of their parts


def start_head(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    probe: Probe | None,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> None:
    """Set the head's weights to the linear model that `probe` fits, and scale weights drawn.

    Parameters
    ----------
    network : LongBertNetwork
        The network, in evaluation mode.
    dataset : DocumentDataset
    probe : callable or None
        None leaves the head at its random weights.
    passes : Passes
    cache : dict or None
        Embeddings of chunks by their digests, if there are any.
    """
    attention = network.attention
    drawn = [] if attention is None else [attention.value, attention.gate]
    if probe is None:
        drawn.append(network.head)
    else:
        _set_head(network, dataset, probe, _embeddings_of(network, dataset, passes, cache))
    if drawn and len(network.blocks) > 1:
        documents = dataset.documents[:: ceil(len(dataset) / MOST_SCALED)]
        if cache is None:
            rows = document_embeddings(network, documents, passes)
        else:
            rows = cached_embeddings(network, ChunkBatch(documents), passes, cache)
        for layer in drawn:
            _balance(layer, rows.to(layer.weight.device), len(network.blocks))


def _set_head(
    network: LongBertNetwork, dataset: DocumentDataset, probe: Probe, embeddings: Embeddings
) -> None:
    with np.errstate(
        under="ignore"
    ):  # exponentials of unlikely logits, whatever the caller's state
        coefficients, intercepts = probe(
            embeddings, dataset.targets.numpy(), dataset.weights.numpy()
        )
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(coefficients))
        network.head.bias.copy_(torch.from_numpy(intercepts))


def _balance(layer: nn.Linear, embeddings: Tensor, n_blocks: int) -> None:
    """Divide the weights of each part of an embedding by the part's size, its root mean square.

    So no part drowns the others. They are multiplied by the size of the whole embedding, so that
    the outputs stay as large as they were.
    """
    squares = embeddings.square().mean(0).reshape(n_blocks, -1).mean(1)  # (n_blocks,)
    factors = (squares.mean() / squares).sqrt().nan_to_num(1.0, posinf=1.0)  # of zeros: 1
    with torch.no_grad():
        layer.weight *= factors.repeat_interleave(embeddings.shape[1] // n_blocks)


def _embeddings_of(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> Embeddings:
    pooling = POOLINGS[network.pooling]
    if cache is None and pooling.begins_as_mean:  # encodes a part of the texts at a time
        means = document_embeddings(network, dataset.documents, passes)
        return Embeddings.of_means(means.numpy())
    batch = ChunkBatch(dataset.documents)
    if cache is None:
        of_chunks = encode_chunks(network, batch, passes)
    else:
        of_chunks = cached_embeddings(network, batch, passes, cache)
    if pooling.begins_as_mean:
        return Embeddings.of_means(mean_of_chunks(of_chunks, batch.chunk_counts).numpy())
    return Embeddings(of_chunks.numpy(), np.array(batch.chunk_counts), pooling)
