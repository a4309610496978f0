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
from sklearn_longbert._targets.scales import fit_scales

LEAST_SCALE = 0.1  # a head of zeros would give the encoder no gradient


def start_head(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    probe: Probe,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> None:
    """Set the head's weights to the linear model that `probe` fits, as far as it can be trusted.

    The model is scaled so that the loss of its out-of-fold outputs is least.

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
        y, weights = dataset.targets.numpy(), dataset.weights.numpy()
        fitted = probe(embeddings, y, weights)
        scale = float(fit_scales([fitted.out_of_fold], y, weights, fitted.kind, LEAST_SCALE)[0])
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(scale * fitted.coefficients))
        network.head.bias.copy_(torch.from_numpy(scale * fitted.intercepts))


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
