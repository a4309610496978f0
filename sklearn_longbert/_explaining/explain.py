"""Explain documents by their chunks or by their sentences."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._baselines.choose import Baseline
from sklearn_longbert._encoding.poolings import POOLINGS
from sklearn_longbert._encoding.progress import Bar
from sklearn_longbert._explaining.contributions import (
    baseline_contributions,
    choose_sentences,
    chunk_contributions,
    occlusion_contributions,
    passage_bounds,
    without_sentences,
)
from sklearn_longbert._explaining.explanation import DocumentExplanation
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._texts.boundaries import sentence_bounds
from sklearn_longbert._texts.documents import ChunkedDocument
from sklearn_longbert._training.labelled import parts_of
from sklearn_longbert._training.net import LongBertNet


def explain(
    texts: Sequence[str],
    documents: NDArray[np.object_],
    net: LongBertNet,
    baseline: Baseline | None,
    targets: Targets,
    level: str,
    max_sentences: int | None,
    progress: bool,
) -> list[DocumentExplanation]:
    """Explain each document, in order.

    Parameters
    ----------
    texts : sequence of str
        The texts of the documents.
    documents : ndarray of ChunkedDocument
        The documents, which must hold their spans.
    net : LongBertNet
        A trained net.
    baseline : Baseline or None
        The fitted baseline.
    targets : Targets
    level : {"chunk", "sentence"}
    max_sentences : int or None
        Most sentences of a text that are left out in turn; None is all of them.
    progress : bool
        Whether to show a bar.
    """
    outputs = net.predict_chunks(documents, progress=progress)
    offsets = net.offsets(parts_of(baseline, list(texts)), len(documents))
    explained = [
        _explain_chunks(text, document, rows, offset, net.module_.pooling, targets)
        for text, document, rows, offset in zip(texts, documents, outputs, offsets, strict=True)
    ]
    if level == "sentence":
        explained = _explain_each(
            explained, documents, outputs, net, baseline, targets, max_sentences, progress
        )
    if baseline is None or net.baseline_scales is None:
        return explained
    return [_with_baseline(one, baseline, net.baseline_scales, targets) for one in explained]


def _explain_each(
    explained: list[DocumentExplanation],
    documents: NDArray[np.object_],
    outputs: list[Tensor],
    net: LongBertNet,
    baseline: Baseline | None,
    targets: Targets,
    max_sentences: int | None,
    progress: bool,
) -> list[DocumentExplanation]:
    """Explain each document by its sentences."""
    shows_one = progress and len(explained) == 1  # a bar shows the passes of one text
    parts = zip(explained, documents, outputs, strict=True)
    hidden = shows_one or not progress
    with Bar(parts, total=len(explained), desc="explain", disable=hidden) as bar:
        return [
            _explain_sentences(
                one, document, rows, net, baseline, targets, max_sentences, shows_one
            )
            for one, document, rows in bar
        ]


def _explain_chunks(
    text: str,
    document: ChunkedDocument,
    outputs: Tensor,
    offset: Tensor,
    pooling: str,
    targets: Targets,
) -> DocumentExplanation:
    """Explain all but what the baseline contributes."""
    pooled = (POOLINGS[pooling].pool(outputs) + offset).numpy()[None]  # (1, n_outputs)
    predictions, probabilities = targets.predictions(pooled), targets.probabilities(pooled)
    contributions, chunk_logits = chunk_contributions(outputs, POOLINGS[pooling], targets)
    logits = targets.in_unit(pooled)[0]
    bounds = passage_bounds(document, len(text))
    return DocumentExplanation(
        text=text,
        start=bounds[:, 0],
        end=bounds[:, 1],
        classes=targets.names,
        contributions=contributions,
        base_value=np.zeros(len(logits)) + targets.origin,
        logits=logits,
        probabilities=None if probabilities is None else probabilities[0],
        predicted=predictions[0],
        chunk_logits=chunk_logits.astype(logits.dtype),
        chunk=np.arange(len(bounds)),
        level="chunk",
    )


def _explain_sentences(
    explained: DocumentExplanation,
    document: ChunkedDocument,
    outputs: Tensor,
    net: LongBertNet,
    baseline: Baseline | None,
    targets: Targets,
    max_sentences: int | None,
    progress: bool,
) -> DocumentExplanation:
    whole = explained
    if baseline is not None and net.baseline_scales is not None:
        whole = _with_baseline(explained, baseline, net.baseline_scales, targets)
    sentences = sentence_bounds(explained.text)
    passages = np.column_stack([explained.start, explained.end])
    of_passages = whole.contributions[:, whole.main_class]
    numbers = choose_sentences(sentences, passages, of_passages, max_sentences)
    chunks, owners = without_sentences(document, sentences[numbers])
    changed = torch.empty((0, outputs.shape[1]))
    if chunks:
        array = np.empty(len(chunks), dtype=object)
        array[:] = chunks
        changed = torch.cat(net.predict_chunks(array, progress=progress))
    pooling = POOLINGS[net.module_.pooling]
    falls = occlusion_contributions(outputs, changed, owners, len(numbers), pooling)
    return replace(
        explained,
        start=sentences[numbers, 0],
        end=sentences[numbers, 1],
        contributions=falls * targets.unit,
        chunk_logits=None,
        chunk=numbers,
        level="sentence",
    )


def _with_baseline(
    explained: DocumentExplanation,
    baseline: Baseline,
    scales: NDArray[np.float64],
    targets: Targets,
) -> DocumentExplanation:
    contributions, base = baseline_contributions(
        baseline, scales, explained.text, explained.start, explained.end
    )
    return replace(
        explained,
        contributions=explained.contributions + contributions * targets.unit,
        base_value=explained.base_value + base * targets.unit,
    )
