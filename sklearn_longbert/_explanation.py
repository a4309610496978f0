"""Which passages of a text decided, and by how much.

Pooled logits make it exact: every pooling gives each chunk a weight, class by class, and weights
times logits are contributions that add up to the logits of the text.

| pooling | a chunk's weight | times |
|---|---|---|
| mean | 1 / number of chunks | its own logit |
| attention | its attention weight | its own logit |
| max | 1 for the chunk with the largest logit, the first of equal ones, else 0 | the text's logit |
| logsumexp | softmax of the logits over the chunks, the text's gradient | the text's logit |
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from sklearn_longbert._chunking import ChunkedDocument, ChunkLayout
from sklearn_longbert._explanation_html import to_html
from sklearn_longbert._pooling import POOLINGS

WEIGHTS_OWN_LOGITS = {"mean", "attention"}  # the others weight the logits of the text
# Ends of sentences: marks, with what closes a quotation behind them, before white space; marks of
# scripts that leave no space; line breaks. White space belongs to the sentence before it.
SENTENCE_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[」』）”’]*|\n)\s*")
LONGEST_SHOWN = 60  # characters of a passage in a repr


@dataclass(frozen=True, eq=False)
class DocumentExplanation:
    """What each passage of a text contributes to its prediction.

    Made by ``explain`` of the estimators. Its length is the number of passages; a slice, or an
    array of indices, is an explanation of these passages only.

    Attributes
    ----------
    text : str
        The caller's own.
    start, end : ndarray of shape (n_passages,), dtype int
        Characters of each passage, ``text[start:end]``.
    classes : ndarray of shape (n_classes,)
        Labels; of a regressor the numbers of its targets.
    contributions : ndarray of shape (n_passages, n_classes), dtype float64
        Of chunks, they add up to `logits`. Of sentences, by how much the text's logits fall if
        the sentence is left out.
    logits : ndarray of shape (n_classes,), dtype float32
        Of the text; of a regressor its prediction.
    probabilities : ndarray of shape (n_classes,), dtype float32, or None
        Of the text; None of a regressor.
    predicted : Any
        What ``predict`` returns for the text.
    chunk_logits : ndarray of shape (n_passages, n_classes), dtype float32, or None
        What the encoder and the head give each chunk; None of sentences.
    chunk : ndarray of shape (n_passages,), dtype int
        The number of each passage in the text, counted from 0.
    level : {"chunk", "sentence"}
    """

    text: str
    start: NDArray[np.intp]
    end: NDArray[np.intp]
    classes: NDArray[Any]
    contributions: NDArray[np.float64]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None
    predicted: Any
    chunk_logits: NDArray[np.float32] | None
    chunk: NDArray[np.intp]
    level: str

    @property
    def passages(self) -> list[str]:
        """The text of each passage."""
        return [self.text[start:end] for start, end in zip(self.start, self.end, strict=True)]

    @property
    def main_class(self) -> int:
        """Index of the class with the largest logit: the predicted one, where there is one."""
        return int(np.argmax(self.logits))

    def top(self, n: int = 3, label: Any = None) -> Self:
        """Return the explanation of the passages that contribute most.

        Parameters
        ----------
        n : int, default=3
            How many, the largest contribution first.
        label : object, default=None
            To which of `classes`; None is the one with the largest logit.

        Returns
        -------
        explanation : DocumentExplanation

        Raises
        ------
        ValueError
            If `label` is not among the classes.
        """
        of_class = self.contributions[:, self.index_of(label)]
        return self[np.argsort(-of_class, kind="stable")[:n]]

    def index_of(self, label: Any = None) -> int:
        """Return the index of a label among `classes`; of None, `main_class`.

        Parameters
        ----------
        label : object, default=None

        Returns
        -------
        index : int

        Raises
        ------
        ValueError
            If `label` is not among the classes.
        """
        if label is None:
            return self.main_class
        classes = self.classes.tolist()
        if label not in classes:
            raise ValueError(f"label={label!r} is not among the classes {classes}.")
        return classes.index(label)

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each passage and class.

        Returns
        -------
        frame : DataFrame
            With the columns chunk, start, end, passage, class and contribution; of sentences,
            the first is called sentence.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        import pandas as pd

        n_classes = len(self.classes)
        return pd.DataFrame(
            {
                self.level: np.repeat(self.chunk, n_classes),
                "start": np.repeat(self.start, n_classes),
                "end": np.repeat(self.end, n_classes),
                "passage": np.repeat(np.array(self.passages, dtype=object), n_classes),
                "class": np.tile(self.classes, len(self)),
                "contribution": self.contributions.ravel(),
            }
        )

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: Any) -> Self:
        chosen = np.atleast_1d(np.arange(len(self))[rows])
        return replace(
            self,
            start=self.start[chosen],
            end=self.end[chosen],
            contributions=self.contributions[chosen],
            chunk_logits=None if self.chunk_logits is None else self.chunk_logits[chosen],
            chunk=self.chunk[chosen],
        )

    def __iter__(self) -> Iterator[Self]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        index = self.main_class
        label = self.classes.tolist()[index]
        head = (
            f"<DocumentExplanation: {len(self)} passages, predicted "
            f"{np.asarray(self.predicted).tolist()!r}, contributions to {label!r}>"
        )
        lines = [
            f"  {contribution:+9.4f}  [{start}:{end}]  {_shortened(passage)!r}"
            for contribution, start, end, passage in zip(
                self.contributions[:, index], self.start, self.end, self.passages, strict=True
            )
        ]
        if len(lines) > 10:
            lines[5:-5] = [f"  ... {len(lines) - 10} more"]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        return to_html(self)


def _shortened(passage: str) -> str:
    if len(passage) <= LONGEST_SHOWN:
        return passage
    half = LONGEST_SHOWN // 2
    return f"{passage[:half]} ... {passage[-half:]}"


def chunk_weights(
    chunk_outputs: NDArray[np.float64], pooling: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the weight of each chunk of a document, class by class, and the chunk logits.

    Parameters
    ----------
    chunk_outputs : ndarray of shape (n_chunks, n_classes), or (n_chunks, n_classes + 1)
        For "attention" with a last column of scores.
    pooling : {"mean", "max", "logsumexp", "attention"}

    Returns
    -------
    weights, chunk_logits : ndarray of shape (n_chunks, n_classes)
        The weights of a class add up to 1.
    """
    outputs = chunk_outputs
    if pooling == "attention":
        scores, logits = outputs[:, -1:], outputs[:, :-1]
        return np.broadcast_to(softmax(scores, axis=0), logits.shape), logits
    if pooling == "mean":
        return np.full(outputs.shape, 1 / len(outputs)), outputs
    if pooling == "logsumexp":
        return softmax(outputs, axis=0), outputs
    winners = np.arange(len(outputs))[:, None] == outputs.argmax(axis=0)
    return winners.astype(np.float64), outputs


def passage_bounds(document: ChunkedDocument, n_characters: int) -> NDArray[np.intp]:
    """Return the first and end character of the passage of each chunk that is read.

    Passages do not overlap: of tokens that two chunks read, the first half belongs to the earlier
    one. Characters between tokens belong to the passage before them, those before the first token
    to the first one. So passages, joined, are the text, unless `max_chunks` cuts.

    Parameters
    ----------
    document : ChunkedDocument
        That knows its spans.
    n_characters : int
        Of the text.

    Returns
    -------
    bounds : ndarray of shape (n_chunks, 2)
    """
    if document.n_tokens == 0:
        return np.array([[0, n_characters]])
    tokens = document.bounds()
    starts = np.append(token_starts(document), n_characters)
    starts[0] = 0
    first, end = tokens[:, 0].copy(), tokens[:, 1].copy()
    meets = first[1:] <= end[:-1]
    middle = (first[1:] + end[:-1] + 1) // 2
    first[1:] = np.where(meets, middle, first[1:])
    end[:-1] = np.where(meets, middle, end[:-1])
    return np.column_stack([starts[first], starts[end]])


def token_starts(document: ChunkedDocument) -> NDArray[np.intp]:
    """Return the first character of each token, none before that of an earlier token."""
    return np.maximum.accumulate(document.spans[:, 0].astype(np.intp))


def sentence_bounds(text: str) -> NDArray[np.intp]:
    """Return the first and end character of each sentence of a text; joined, they are the text."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return np.column_stack([[0, *ends[:-1]], ends]).astype(np.intp)


def without_sentences(
    document: ChunkedDocument, sentences: NDArray[np.intp]
) -> tuple[list[ChunkedDocument], NDArray[np.intp]]:
    """Return the chunks that hold a part of each sentence, without it.

    Parameters
    ----------
    document : ChunkedDocument
        That knows its spans.
    sentences : ndarray of shape (n_sentences, 2)
        First and end character.

    Returns
    -------
    chunks : list of ChunkedDocument, of length n_changed
        Each of one chunk.
    owners : ndarray of shape (n_changed, 2)
        The sentence and the chunk.
    """
    starts, tokens = token_starts(document), document.bounds()
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
        kept = whole[:1]  # an encoder reads at least one token
    return ChunkedDocument(kept[None].astype(np.int32), layout)


def occlusion_contributions(
    outputs: NDArray[Any], changed: NDArray[Any], owners: NDArray[np.intp], n: int, pooling: str
) -> NDArray[np.float64]:
    """Return by how much the document's logits fall without each of `n` sentences.

    Parameters
    ----------
    outputs : ndarray of shape (n_chunks, n_columns)
        Of the whole chunks.
    changed : ndarray of shape (n_changed, n_columns)
        Of those without a sentence.
    owners : ndarray of shape (n_changed, 2)
        As :func:`without_sentences` returns them.
    n : int
    pooling : {"mean", "max", "logsumexp", "attention"}

    Returns
    -------
    contributions : ndarray of shape (n, n_classes)
    """
    pool = POOLINGS[pooling]
    rows = torch.from_numpy(outputs.astype(np.float64))
    whole = pool(rows)
    result = torch.zeros(n, len(whole), dtype=torch.float64)
    new = torch.from_numpy(changed.astype(np.float64))
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
    """Return the numbers of the sentences to examine: those in the passages that count most.

    Parameters
    ----------
    sentences, passages : ndarray of shape (n, 2)
        First and end characters.
    of_passages : ndarray of shape (n_passages,)
        Contributions to the class with the largest logit.
    most : int or None
        None are all that a passage holds.
    """
    middles = sentences.sum(axis=1) // 2
    passage = np.clip(np.searchsorted(passages[:, 0], middles, side="right") - 1, 0, None)
    is_read = (sentences[:, 0] < passages[passage, 1]) | (sentences[:, 1] <= passages[passage, 1])
    numbers = np.flatnonzero(is_read)
    if most is None or len(numbers) <= most:
        return numbers
    order = np.argsort(-of_passages[passage[numbers]], kind="stable")
    return np.sort(numbers[order[:most]])
