"""Compute the contributions of passages from the outputs of chunks.

Invariant: contributions of chunks add up exactly to the logits of the text. Every pooling gives
each chunk a share for each class, and the contribution is this share times a logit. A regressor
explains its prediction less the mean of its targets, which no chunk contributes. The n-grams of
the baseline "words" are added where they stand; what any other baseline says has no place.

| pooling | the share of a chunk | times |
|---|---|---|
| mean | 1 / number of chunks | its own logit |
| attention | its attention weight | its own logit |
| max | 1 for the chunk with the largest logit, the first of equal ones, else 0 | its own logit |
| logsumexp | softmax of the logits over the chunks, the text's gradient | the text's logit |
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._baselines.choose import Baseline
from sklearn_longbert._encoding.poolings import Pooling
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.scales import scaled_sum
from sklearn_longbert._texts.boundaries import token_starts
from sklearn_longbert._texts.documents import ChunkedDocument, ChunkLayout


def chunk_contributions(
    outputs: Tensor, pooling: Pooling, targets: Targets
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what each chunk of a document contributes to its logits, and the chunk logits.

    Parameters
    ----------
    outputs : Tensor of shape (n_chunks, n_columns)
    pooling : Pooling
    targets : Targets
        Targets, which define the unit in which logits are explained.

    Returns
    -------
    contributions, chunk_logits : ndarray of shape (n_chunks, n_classes)
        The contributions to a class add up to the document's logit, less the targets' origin.
    """
    outputs = outputs.double()
    shares = pooling.shares(outputs).numpy()
    chunk_logits = outputs[:, : shares.shape[1]].numpy()  # without scores
    shared = chunk_logits if pooling.adds_up else pooling.pool(outputs).numpy()
    return shares * shared * targets.unit, targets.in_unit(chunk_logits)


def baseline_contributions(
    baseline: Baseline,
    scales: NDArray[np.float64],
    text: str,
    start: NDArray[np.intp],
    end: NDArray[np.intp],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the baseline finds in each passage of a text, and what it finds in none.

    Parameters
    ----------
    baseline : Baseline
    scales : ndarray of shape (n_models,)
    text : str
    start, end : ndarray of shape (n_passages,)
        The bounds of the passages, which do not overlap. An n-gram belongs to the passage in
        which it begins.

    Returns
    -------
    contributions : ndarray of shape (n_passages, n_outputs)
        Zeros where the baseline tells nothing of places.
    base : ndarray of shape (n_outputs,)
        What is left of the baseline's logits.
    """
    occurrences = baseline.occurrences(text)
    if occurrences is None:
        base = scaled_sum(baseline.parts([text]), scales)[0]
        return np.zeros((len(start), len(base))), base
    contributions = np.zeros((len(start), len(occurrences[0].intercepts)))
    base = np.zeros(contributions.shape[1])
    for scale, found in zip(scales, occurrences, strict=True):
        numbers = np.searchsorted(start, found.positions, side="right") - 1
        is_inside = (numbers >= 0) & (found.positions < end[numbers])
        np.add.at(contributions, numbers[is_inside], scale * found.contributions[is_inside])
        base += scale * (found.intercepts + found.contributions[~is_inside].sum(axis=0))
    return contributions, base


def passage_bounds(document: ChunkedDocument, n_characters: int) -> NDArray[np.intp]:
    """Return the first and end character of the passage of each chunk that is kept.

    Passages do not overlap: tokens that a chunk repeats belong to the passage before. Characters
    between tokens belong to the passage before them, and characters before the first token to the
    first passage. So the joined passages are the text, unless `max_chunks` cuts it.

    Parameters
    ----------
    document : ChunkedDocument
        The document, which must hold its spans.
    n_characters : int
        Number of characters of the text.

    Returns
    -------
    bounds : ndarray of shape (n_chunks, 2)
    """
    if document.n_tokens == 0:
        return np.array([[0, n_characters]])
    tokens = document.bounds()
    starts = np.append(token_starts(document.spans), n_characters)
    starts[0] = 0
    first, end = tokens[:, 0].copy(), tokens[:, 1]
    meets = first[1:] <= end[:-1]
    first[1:] = np.where(meets, end[:-1], first[1:])
    return np.column_stack([starts[first], starts[end]])


def without_sentences(
    document: ChunkedDocument, sentences: NDArray[np.intp]
) -> tuple[list[ChunkedDocument], NDArray[np.intp]]:
    """Return, for each sentence, the chunks that hold a part of it, without that part.

    Parameters
    ----------
    document : ChunkedDocument
        The document, which must hold its spans.
    sentences : ndarray of shape (n_sentences, 2)
        First and end character of each sentence.

    Returns
    -------
    chunks : list of ChunkedDocument, of length n_changed
        Documents of one chunk each.
    owners : ndarray of shape (n_changed, 2)
        The number of the sentence, and that of the chunk in the document.
    """
    starts, tokens = token_starts(document.spans), document.bounds()
    first, end = np.searchsorted(starts, sentences).T
    layout = replace(document.layout, max_chunks=None)
    chunks, owners = [], []
    for number, (left, right) in enumerate(zip(first, end, strict=True)):
        holding = np.flatnonzero((tokens[:, 0] < right) & (tokens[:, 1] > left))
        for chunk in holding:
            start, stop = tokens[chunk]
            ids = document.token_ids
            kept = np.r_[ids[start : max(left, start)], ids[min(right, stop) : stop]]
            chunks.append(_one_chunk(kept, ids[start:stop], layout))
            owners.append((number, chunk))
    return chunks, np.array(owners, dtype=np.intp).reshape(-1, 2)


def _one_chunk(kept: NDArray[Any], whole: NDArray[Any], layout: ChunkLayout) -> ChunkedDocument:
    if len(kept) == 0 and not (layout.prefix or layout.suffix):
        kept = whole[:1]  # an encoder needs at least one token
    return ChunkedDocument(kept[None].astype(np.int32), layout)


def occlusion_contributions(
    outputs: Tensor, changed: Tensor, owners: NDArray[np.intp], n: int, pooling: Pooling
) -> NDArray[np.float64]:
    """Return by how much the document's logits fall without each of `n` sentences.

    Parameters
    ----------
    outputs : Tensor of shape (n_chunks, n_columns)
        The outputs of the whole chunks.
    changed : Tensor of shape (n_changed, n_columns)
        The outputs of chunks without a sentence.
    owners : ndarray of shape (n_changed, 2)
        Sentences and chunks, from :func:`without_sentences`.
    n : int
    pooling : Pooling

    Returns
    -------
    contributions : ndarray of shape (n, n_classes)
    """
    pool, rows = pooling.pool, outputs.double()
    whole = pool(rows)
    result = torch.zeros(n, len(whole), dtype=torch.float64)
    new = changed.double()
    limits = np.searchsorted(owners[:, 0], np.arange(n + 1))
    for sentence, (left, right) in enumerate(pairwise(limits)):
        if left < right:
            chunks = torch.from_numpy(owners[left:right, 1])
            kept = rows[chunks].clone()
            rows[chunks] = new[left:right]
            result[sentence] = whole - pool(rows)
            rows[chunks] = kept
    return result.numpy()


def choose_sentences(
    sentences: NDArray[np.intp],
    passages: NDArray[np.intp],
    of_passages: NDArray[np.float64],
    most: int | None,
) -> NDArray[np.intp]:
    """Return the numbers of the sentences to examine: those in the passages that contribute most.

    Parameters
    ----------
    sentences, passages : ndarray of shape (n, 2)
        First and end character of each.
    of_passages : ndarray of shape (n_passages,)
        Contributions to the class with the largest logit.
    most : int or None
        Most sentences; None is all that passages hold.
    """
    middles = sentences.sum(axis=1) // 2
    passage = np.clip(np.searchsorted(passages[:, 0], middles, side="right") - 1, 0, None)
    is_read = (sentences[:, 0] < passages[passage, 1]) | (sentences[:, 1] <= passages[passage, 1])
    numbers = np.flatnonzero(is_read)
    if most is None or len(numbers) <= most:
        return numbers
    order = np.argsort(-of_passages[passage[numbers]], kind="stable")
    return np.sort(numbers[order[:most]])
