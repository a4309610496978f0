"""Start a new head at a linear model of the embeddings of the encoder before training."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._targets.scales import fit_scales

LEAST_SCALE = 0.1  # a head of zeros would give the encoder no gradient


@dataclass(frozen=True)
class Start:
    """How a first training starts.

    Attributes
    ----------
    probe : callable or None
        Fits the linear model of embeddings that the head starts at. None leaves it random.
    kind : LinearKind
        The loss at which models are scaled.
    groups : ndarray of shape (n_documents,) or None
        Documents of one group are on one side of every inner split.
    """

    probe: Probe | None
    kind: LinearKind
    groups: NDArray[Any] | None


def start_network(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    start: Start,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> NDArray[np.float64]:
    """Start the head at a linear model, and return how far a baseline can be trusted beside it.

    The linear model and the models of the baseline are scaled so that the loss of the sum of their
    out-of-fold logits is least.

    Parameters
    ----------
    network : LongBertNetwork
        The network, in evaluation mode.
    dataset : DocumentDataset
        The documents, with the out-of-fold logits of the baseline's models.
    start : Start
    passes : Passes
    cache : dict or None
        Embeddings of chunks by their digests, if there are any.

    Returns
    -------
    scales : ndarray of shape (n_models,)
        The scales of the baseline's models.
    """
    y, weights = dataset.targets.numpy(), dataset.weights.numpy()
    with np.errstate(under="ignore"):  # exponentials of unlikely logits
        if start.probe is None:
            return fit_scales(dataset.parts, y, weights, start.kind)
        embeddings = _embeddings_of(network, dataset, passes, cache)
        fitted = start.probe(embeddings, y, weights, groups=start.groups)
        models = [fitted.out_of_fold, *dataset.parts]
        least = [LEAST_SCALE, *(0.0 for _ in dataset.parts)]
        scales = fit_scales(models, y, weights, start.kind, least)
    with torch.no_grad():
        network.head.weight.copy_(torch.from_numpy(scales[0] * fitted.coefficients))
        network.head.bias.copy_(torch.from_numpy(scales[0] * fitted.intercepts))
    return scales[1:]


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
