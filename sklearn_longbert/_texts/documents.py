"""Chunked documents: token ids, and the chunks that they are cut into.

Invariants: joining the chunks without their overlap gives the tokens of the text; the chunk that
reaches the end of the text is the last one; an empty text is one chunk of special tokens.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

from sklearn_longbert._texts.checks import as_column
from sklearn_longbert._texts.cuts import even_cuts, full_cuts
from sklearn_longbert._texts.unknown import Characters, count_characters

QUANTILES = {"min": 0.0, "median": 0.5, "90 %": 0.9, "max": 1.0}


def _head(n_chunks: int, max_chunks: int) -> NDArray[np.intp]:
    return np.arange(max_chunks)


def _tail(n_chunks: int, max_chunks: int) -> NDArray[np.intp]:
    return np.arange(n_chunks - max_chunks, n_chunks)


def _head_tail(n_chunks: int, max_chunks: int) -> NDArray[np.intp]:
    n_tail = max_chunks // 2
    return np.r_[_head(n_chunks, max_chunks - n_tail), _tail(n_chunks, n_tail)]


def _even(n_chunks: int, max_chunks: int) -> NDArray[np.intp]:
    """Return the middle chunk of each of `max_chunks` equal stretches of the text."""
    return (2 * np.arange(max_chunks) + 1) * n_chunks // (2 * max_chunks)


CHUNK_SELECTIONS = {
    "head": _head,
    "tail": _tail,
    "head_tail": _head_tail,
    "even": _even,
    "random": _even,  # in prediction; in training select_chunks draws
}


def select_chunks(
    n_chunks: int,
    max_chunks: int | None,
    chunk_selection: str,
    random_state: np.random.RandomState | None = None,
) -> NDArray[np.intp]:
    """Return the indices of the chunks of a text that are kept, in ascending order.

    If `random_state` is given and ``chunk_selection="random"``, they are drawn.
    """
    if max_chunks is None or n_chunks <= max_chunks:
        return np.arange(n_chunks)
    if chunk_selection == "random" and random_state is not None:
        return np.sort(random_state.choice(n_chunks, max_chunks, replace=False))
    return CHUNK_SELECTIONS[chunk_selection](n_chunks, max_chunks)


@dataclass(frozen=True)
class ChunkLayout:
    """The rules by which texts were cut, shared by all documents of one chunker.

    Attributes
    ----------
    chunk_size, chunk_overlap, max_chunks, chunk_selection
        Parameters of :class:`TextChunker`, where `chunk_size` is resolved to a number.
    prefix, suffix : tuple of int
        The encoder's special tokens before and after the tokens of a chunk.
    pad_id : int
    tokenizer_hash : str
        Hash of the tokenizer. It tells whether documents were chunked with the tokenizer of the
        encoder that encodes them.
    """

    chunk_size: int
    chunk_overlap: int
    max_chunks: int | None
    chunk_selection: str
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    pad_id: int
    tokenizer_hash: str

    @property
    def body_size(self) -> int:
        """Number of tokens of the text in a full chunk."""
        return self.chunk_size - len(self.prefix) - len(self.suffix)

    def count_chunks(self, n_tokens: int) -> int:
        """Return the fewest chunks that hold `n_tokens` tokens."""
        n_beyond_first = max(n_tokens - self.body_size, 0)
        return 1 + -(-n_beyond_first // (self.body_size - self.chunk_overlap))

    def cuts(self, kinds: NDArray[np.int8]) -> NDArray[np.int32]:
        """Return the end of each chunk but the last, before `max_chunks` applies.

        Parameters
        ----------
        kinds : ndarray of shape (n_tokens,)
            What ends before each token, from :func:`boundary_kinds`.
        """
        n_chunks = self.count_chunks(len(kinds))
        if n_chunks > (self.max_chunks or n_chunks):
            return full_cuts(kinds, self.body_size, self.chunk_overlap)
        return even_cuts(kinds, n_chunks, self.body_size, self.chunk_overlap)


class ChunkedDocument:
    """One tokenized text and how it is cut.

    It has neither a length nor items, so that NumPy does not take it for a sequence.

    Attributes
    ----------
    tokens : ndarray of shape (3, n_tokens), dtype int32
        Token ids, and the first and end position of each token's characters in the text. Inside
        an estimator the positions are left out, and the shape is (1, n_tokens).
    layout : ChunkLayout
    characters : Characters
        Numbers of the text's characters, and of those under unknown tokens.
    cuts : ndarray of shape (n_cuts,), dtype int32
        The end of each chunk but the last, before `max_chunks` applies. If it is not given, the
        text is cut as if a sentence could end before every token.
    text : str or None
        The text itself. Inside an estimator it is left out. A function that is given in its place
        is called whenever the text is read.
    """

    __slots__ = ("_text", "characters", "cuts", "layout", "tokens")

    def __init__(
        self,
        tokens: NDArray[np.int32],
        layout: ChunkLayout,
        characters: Characters = Characters(),  # noqa: B008 (it cannot be changed)
        cuts: NDArray[np.int32] | None = None,
        text: str | Callable[[], str] | None = None,
    ) -> None:
        self.tokens = tokens
        self.layout = layout
        self.characters = characters
        if cuts is None:
            cuts = layout.cuts(np.zeros(tokens.shape[1], dtype=np.int8))
        self.cuts = cuts
        self._text = text

    @property
    def text(self) -> str | None:
        """The text itself, if it is known."""
        return self._text() if callable(self._text) else self._text

    def __getstate__(self) -> dict[str, Any]:
        """Keep values that skops takes, too."""
        names = ("cuts", "layout", "text", "tokens")
        state = {name: getattr(self, name) for name in names}
        return {**state, "characters": list(self.characters)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.tokens, self.layout, self.cuts = state["tokens"], state["layout"], state["cuts"]
        self._text = state["text"]
        self.characters = Characters(*state["characters"])

    def __repr__(self) -> str:
        return f"<ChunkedDocument: {self.n_tokens} tokens, {self.n_chunks} chunks>"

    @property
    def token_ids(self) -> NDArray[np.int32]:
        """Ids of the whole text without special tokens, of shape (n_tokens,)."""
        return self.tokens[0]

    @property
    def spans(self) -> NDArray[np.int32]:
        """First and end character of each token in the text, of shape (n_tokens, 2)."""
        return self.tokens[1:].T

    @property
    def n_tokens(self) -> int:
        """Number of tokens of the whole text."""
        return self.tokens.shape[1]

    @property
    def n_chunks(self) -> int:
        """Number of chunks that are kept, at most `max_chunks`."""
        n_chunks = len(self.cuts) + 1
        return min(n_chunks, self.layout.max_chunks or n_chunks)

    def bounds(self, random_state: np.random.RandomState | None = None) -> NDArray[np.intp]:
        """Return first token and end of each chunk that is kept, of shape (n_chunks, 2)."""
        layout = self.layout
        bounds = np.empty((len(self.cuts) + 1, 2), dtype=np.intp)
        bounds[0, 0], bounds[-1, 1] = 0, self.n_tokens
        bounds[1:, 0], bounds[:-1, 1] = self.cuts - layout.chunk_overlap, self.cuts
        max_chunks, selection = layout.max_chunks, layout.chunk_selection
        return bounds[select_chunks(len(bounds), max_chunks, selection, random_state)]

    def chunks(
        self, random_state: np.random.RandomState | None = None
    ) -> Iterator[NDArray[np.int32]]:
        """Yield the token ids of each chunk that is kept, special tokens included."""
        for start, end in self.bounds(random_state):
            yield self.chunk(start, end)

    def chunk(self, start: int, end: int) -> NDArray[np.int32]:
        """Return the token ids from `start` to `end`, with special tokens before and after."""
        prefix = np.array(self.layout.prefix, dtype=np.int32)
        suffix = np.array(self.layout.suffix, dtype=np.int32)
        return np.concatenate([prefix, self.token_ids[start:end], suffix])


def array_of(documents: list[ChunkedDocument]) -> NDArray[np.object_]:
    """Return documents as an array."""
    array = np.empty(len(documents), dtype=object)
    array[:] = documents
    return array


def as_documents(X: Any, name: str = "X") -> NDArray[np.object_] | None:
    """Return `X` as an array of documents if TextChunker made it, None if it holds texts.

    Raises
    ------
    ValueError
        If only some elements are chunked documents, or if their layouts differ.
    """
    documents = as_column(X, name)
    first = documents[0]
    if not isinstance(first, ChunkedDocument):
        return None
    for index, document in enumerate(documents):
        if not isinstance(document, ChunkedDocument):
            raise ValueError(
                f"{name} at index {index} is of type {type(document).__name__}, but {name} at "
                f"index 0 came from TextChunker: transform all texts or none."
            )
        if document.layout is not first.layout and document.layout != first.layout:
            raise ValueError(
                f"{name} at index {index} was cut by another TextChunker than index 0: transform "
                f"all texts with one."
            )
    return documents


def check_have_texts(documents: NDArray[np.object_], name: str) -> None:
    """Raise ValueError at the first document without its text."""
    for index, document in enumerate(documents):
        if document.text is None:
            raise ValueError(
                f"{name} at index {index} is a document without its text, which a baseline and "
                f"explain need: pass texts, or documents of TextChunker, which keep theirs."
            )


def chunk_report(documents: NDArray[np.object_]) -> dict[str, Any]:
    """Return counts of texts, chunks and tokens, and of the tokens that are not kept.

    Parameters
    ----------
    documents : array of ChunkedDocument

    Returns
    -------
    report : dict
        The report that ``chunk_report`` of the estimators returns.
    """
    n_read = np.array([_n_read_tokens(document) for document in documents], dtype=np.intp)
    n_tokens = np.array([document.n_tokens for document in documents], dtype=np.intp)
    n_chunks = [document.n_chunks for document in documents]
    is_long = [document.n_tokens > document.layout.body_size for document in documents]
    quantiles = {name: float(np.quantile(n_chunks or [0], q)) for name, q in QUANTILES.items()}
    characters = count_characters(documents)
    return {
        "n_texts": len(documents),
        "n_long_texts": sum(is_long),
        "chunks_per_text": quantiles,
        "n_tokens": int(n_tokens.sum()),
        "n_cut_texts": int((n_read < n_tokens).sum()),
        "n_skipped_tokens": int((n_tokens - n_read).sum()),
        "n_unknown_tokens": characters.n_unknown_tokens,
        "unknown_share": characters.unknown_share,
    }


def warn_of_cut_texts(report: dict[str, Any], max_chunks: int | None) -> None:
    """Warn if `max_chunks` cuts any text."""
    if report["n_cut_texts"]:
        share = report["n_skipped_tokens"] / report["n_tokens"]
        warn(
            f"max_chunks={max_chunks} cuts {report['n_cut_texts']} of {report['n_texts']} training "
            f"texts, and the encoder skips {share:.1%} of their tokens: raise it, or set None to "
            f"read them whole. verbose=0 does not warn.",
            UserWarning,
            stacklevel=2,
        )


def warn_of_empty_texts(documents: NDArray[np.object_]) -> None:
    """Warn if no text has a token."""
    if not any(document.n_tokens for document in documents):
        warn(
            f"None of the {len(documents)} training texts has a token, they are empty: pass the "
            f"column that holds the texts.",
            UserWarning,
            stacklevel=2,
        )


def _n_read_tokens(document: Any) -> int:
    """Count the tokens that are in at least one chunk that is kept."""
    first, end = document.bounds().T
    new = np.maximum(first[1:], end[:-1])  # first token that is not in the chunk before
    return int(end[0] - first[0] + (end[1:] - new).sum())
