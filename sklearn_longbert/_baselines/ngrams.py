"""N-grams of words and of characters, and their tf-idf rows.

Invariants: n-grams keep the case of the text, and punctuation marks are tokens; an n-gram is of
one column, that of its hash, so no vocabulary grows; a new text's row is made as rows of training
texts are; and the place of every occurrence is known.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_extraction.text import TfidfTransformer

N_COLUMNS = 2**20
LEAST_TEXTS = 2  # with an n-gram; what is in one text alone tells nothing of others
MOST_FEATURES = 100_000  # the n-grams of the most texts
STRETCH = 2**20  # characters of texts whose n-grams are in memory at a time
ROW_LENGTH = 20.0  # the features of a row vary together as about 400 standardised ones do

Ngrams = Iterator[tuple[int, str]]  # the first character of each occurrence, and the n-gram

_TOKEN = re.compile(r"\w+|[^\w\s]")
_NO_SPACES = re.compile(r"\S+")


def words(text: str) -> Ngrams:
    """Yield the tokens, which are words and punctuation marks, and the pairs of adjacent ones."""
    before: re.Match[str] | None = None
    for token in _TOKEN.finditer(text):
        yield token.start(), token.group()
        if before is not None:
            yield before.start(), f"{before.group()} {token.group()}"
        before = token


def characters(text: str, shortest: int = 2, longest: int = 4) -> Ngrams:
    """Yield the stretches of characters of each word, with the space before and behind it."""
    for word in _NO_SPACES.finditer(text):
        padded, place = f" {word.group()} ", word.start()
        for start in range(len(padded) - shortest + 1):
            first = place + start - 1 if start else place
            for end in range(start + shortest, min(start + longest, len(padded)) + 1):
                yield first, padded[start:end]


ANALYZERS: dict[str, Callable[[str], Ngrams]] = {"words": words, "characters": characters}


def stretches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield consecutive texts, as many as have about `STRETCH` characters together."""
    start = n_characters = 0
    for index, text in enumerate(texts):
        n_characters += len(text)
        if n_characters >= STRETCH:
            yield texts[start : index + 1]
            start, n_characters = index + 1, 0
    if start < len(texts):
        yield texts[start:]


_hasher = FeatureHasher(N_COLUMNS, input_type="string", alternate_sign=False)


def columns_of(ngrams: Collection[str]) -> NDArray[np.intp]:
    """Return the column of each n-gram."""
    if not ngrams:
        return np.zeros(0, dtype=np.intp)
    return _hasher.transform([ngram] for ngram in ngrams).indices.astype(np.intp)


def count_ngrams(texts: Sequence[str], analyzer: str) -> csr_array:
    """Return how often an n-gram of each column is in each text, of shape (n_texts, N_COLUMNS)."""
    analyze = ANALYZERS[analyzer]
    return vstack(
        [
            csr_array(_hasher.transform((ngram for _, ngram in analyze(text)) for text in stretch))
            for stretch in stretches(texts)
        ],
        format="csr",
    )


def counts_of(columns: NDArray[np.intp]) -> csr_array:
    """Return what :func:`count_ngrams` does for one text, from the columns of its n-grams."""
    found, counts = np.unique(columns, return_counts=True)
    return csr_array((counts * 1.0, found, [0, len(found)]), shape=(1, N_COLUMNS))


@dataclass(frozen=True)
class TfidfColumns:
    """The columns of n-grams that training texts share, and how counts become rows.

    Attributes
    ----------
    columns : ndarray of int, of shape (n_features,)
        Sorted.
    idf : ndarray of shape (n_features,)
    """

    columns: NDArray[np.intp]
    idf: NDArray[np.float64]

    @classmethod
    def of(cls, counts: csr_array) -> "TfidfColumns":
        """Return the columns of the training texts that `counts` are of."""
        n_texts = np.bincount(counts.indices, minlength=counts.shape[1])
        columns = np.flatnonzero(n_texts >= min(LEAST_TEXTS, max(n_texts.max(), 1)))
        if len(columns) > MOST_FEATURES:
            most = np.argsort(-n_texts[columns], kind="stable")[:MOST_FEATURES]
            columns = np.sort(columns[most])
        columns = columns if len(columns) else np.zeros(1, dtype=np.intp)  # without any n-gram
        return cls(columns, TfidfTransformer().fit(counts[:, columns]).idf_)

    def rows(self, counts: csr_array) -> csr_array:
        """Return rows of the length `ROW_LENGTH`, of 0 where no n-gram is known."""
        transformer = TfidfTransformer(sublinear_tf=True)
        transformer.idf_ = self.idf
        rows = transformer.transform(counts[:, self.columns])
        return csr_array(ROW_LENGTH * rows)
