"""Start a new head at a linear model of the embeddings of the encoder before training."""

import numpy as np
import torch
from torch import Tensor

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


def start_head(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    probe: Probe,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> None:
    """Set the head's weights to the linear model that `probe` fits.

    Parameters
    ----------
    network : LongBertNetwork
        The network, in evaluation mode.
    dataset : DocumentDataset
    probe : callable
    passes : Passes
    cache : dict or None
        Embeddings of chunks by their digests, if there are any.
    """
    embeddings = _embeddings_of(network, dataset, passes, cache)
    with np.errstate(
        under="ignore"
    ):  # exponentials of unlikely logits, whatever the caller's state
        coefficients, intercepts = probe(
            embeddings, dataset.targets.numpy(), dataset.weights.numpy()
        )
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(coefficients))
        network.head.bias.copy_(torch.from_numpy(intercepts))


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
