"""Start a new head at a linear model of the embeddings of the encoder before training.

Where an embedding has several parts, one for each layer and kind of pooling, their sizes differ
much. A linear model scales them itself. Weights that are drawn are scaled here.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._targets.scales import PRIOR_GROUPS, fit_scales

LEAST_SCALE = 0.1  # a head of zeros would give the encoder no gradient
MOST_SCALED = 16  # texts whose embeddings tell the sizes of their parts


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
    n_groups : int
        The number of groups, or of distinct documents if there are none.
    """

    probe: Probe | None
    kind: LinearKind
    groups: NDArray[Any] | None
    n_groups: int


def start_network(
    network: LongBertNetwork,
    dataset: DocumentDataset,
    start: Start,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> NDArray[np.float64]:
    """Start the head at a linear model, scale weights drawn, and scale a baseline.

    The linear model and the models of the baseline are scaled so that the loss of the sum of their
    out-of-fold logits is least. What few groups tell of that is mostly chance: they hardly move
    scales from those of the average. With nine books to learn from, the loss alone would trust the
    model of one part and none of the others.

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
        How far each model of the baseline can be trusted.
    """
    attention = network.attention
    drawn = [] if attention is None else [attention.value, attention.gate]
    y, weights = dataset.targets.numpy(), dataset.weights.numpy()
    prior = PRIOR_GROUPS / start.n_groups
    with np.errstate(under="ignore"):  # exponentials of unlikely logits
        if start.probe is None:
            drawn.append(network.head)
            scales = fit_scales(dataset.parts, y, weights, start.kind, prior=prior)
        else:
            embeddings = _embeddings_of(network, dataset, passes, cache)
            fitted = start.probe(embeddings, y, weights, groups=start.groups)
            models = [fitted.out_of_fold, *dataset.parts]
            least = [LEAST_SCALE, *(0.0 for _ in dataset.parts)]
            scales = fit_scales(models, y, weights, start.kind, least, prior)
            with torch.no_grad():
                network.head.weight.copy_(torch.from_numpy(scales[0] * fitted.coefficients))
                network.head.bias.copy_(torch.from_numpy(scales[0] * fitted.intercepts))
            scales = scales[1:]
    if drawn and len(network.blocks) > 1:
        _balance_drawn(network, drawn, dataset, passes, cache)
    return scales


def _balance_drawn(
    network: LongBertNetwork,
    drawn: list[nn.Linear],
    dataset: DocumentDataset,
    passes: Passes,
    cache: dict[bytes, Tensor] | None,
) -> None:
    documents = dataset.documents[:: ceil(len(dataset) / MOST_SCALED)]
    if cache is None:
        rows = document_embeddings(network, documents, passes)
    else:
        rows = cached_embeddings(network, ChunkBatch(documents), passes, cache)
    for layer in drawn:
        _balance(layer, rows.to(layer.weight.device), len(network.blocks))


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
    pooling, part = POOLINGS[network.pooling], network.highest_part
    if cache is None and pooling.begins_as_mean:  # encodes a part of the texts at a time
        means = document_embeddings(network, dataset.documents, passes)
        return Embeddings.of_means(means.numpy(), part)
    batch = ChunkBatch(dataset.documents)
    if cache is None:
        of_chunks = encode_chunks(network, batch, passes)
    else:
        of_chunks = cached_embeddings(network, batch, passes, cache)
    if pooling.begins_as_mean:
        means = mean_of_chunks(of_chunks, batch.chunk_counts)
        return Embeddings.of_means(means.numpy(), part)
    return Embeddings(of_chunks.numpy(), np.array(batch.chunk_counts), pooling, part)
