"""Pins that nothing of a text is left out in silence: reports by hand, and the warning."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._texts.documents import chunk_report

SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "max_epochs": 1,
    "device": "cpu",
    "precision": "float32",
}


def test_by_hand(tiny_bert: str) -> None:
    """Chunks of 16 tokens hold 14 of the text."""
    texts = ["fox " * n for n in (0, 14, 15, 28, 100)]
    report = chunk_report(TextChunker(tiny_bert, chunk_size=16).fit_transform(texts))
    assert report == {
        "n_texts": 5,
        "n_long_texts": 3,
        "chunks_per_text": {"min": 1, "median": 2, "90 %": pytest.approx(5.6), "max": 8},
        "n_tokens": 157,
        "n_cut_texts": 0,
        "n_skipped_tokens": 0,
        "n_unknown_tokens": 0,
        "unknown_share": 0.0,
    }
    cut = chunk_report(TextChunker(tiny_bert, chunk_size=16, max_chunks=2).fit_transform(texts))
    assert (cut["n_cut_texts"], cut["n_skipped_tokens"]) == (1, 72)
    assert cut["chunks_per_text"]["max"] == 2


@given(st.integers(0, 200), st.integers(3, 20), st.integers(1, 6), st.data())
@settings(deadline=None, max_examples=50)
def test_tokens_are_counted_once(
    tiny_bert: str, n_tokens: int, chunk_size: int, max_chunks: int, data: st.DataObject
) -> None:
    chunker = TextChunker(
        tiny_bert,
        chunk_size=chunk_size,
        chunk_overlap=data.draw(st.integers(0, chunk_size - 3)),
        max_chunks=max_chunks,
        chunk_selection=data.draw(st.sampled_from(["head", "tail", "head_tail", "even", "random"])),
    )
    (document,) = documents = chunker.fit_transform(["fox " * n_tokens])
    read = {token for first, end in document.bounds() for token in range(first, end)}
    assert chunk_report(documents)["n_skipped_tokens"] == n_tokens - len(read)


def test_of_a_fit_and_on_request(tiny_bert: str) -> None:
    texts, labels = ["fox " * 40, "dog", "bad " * 30, "news"], [0, 1, 0, 1]
    estimator = LongBertClassifier(tiny_bert, chunk_size=16, max_chunks=2, **SETTINGS)
    estimator.fit(texts, labels)
    assert estimator.chunk_report_ == estimator.chunk_report(texts)
    assert estimator.chunk_report_["n_skipped_tokens"] == 14
    chunked = TextChunker(tiny_bert, chunk_size=16, max_chunks=2).fit_transform(texts[:1])
    assert estimator.chunk_report(chunked)["n_texts"] == 1
    estimator.partial_fit(texts[1:2], labels[1:2])
    assert estimator.chunk_report_["n_texts"] == 1
    np.testing.assert_array_equal(estimator.n_chunks_, [1])


@pytest.mark.parametrize("max_chunks", [2, 3])
@pytest.mark.parametrize("verbose", [0, 1])
def test_one_warning_where_texts_are_cut_and_somebody_looks(
    max_chunks: int, verbose: int, tiny_bert: str
) -> None:
    texts, labels = ["fox " * 40, "dog", "bad " * 30, "news"], [0, 1, 0, 1]
    estimator = LongBertClassifier(
        tiny_bert,
        chunk_size=16,
        max_chunks=max_chunks,
        verbose=verbose,
        **SETTINGS,
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        estimator.fit(texts, labels)
    messages = [str(warning.message) for warning in seen]
    if verbose and max_chunks == 2:
        (message,) = messages
        assert "cuts 2 of 4 training texts, and the encoder skips 19.4% of their tok" in message
    else:
        assert messages == []


@pytest.mark.parametrize("texts", [[""] * 4, [" ", "\n", "", "\t"], ["", "", "", "dog"]])
def test_texts_that_are_all_empty_are_warned_of(texts: list[str], tiny_bert: str) -> None:
    estimator = LongBertClassifier(tiny_bert, **SETTINGS)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        estimator.fit(texts, [0, 1, 0, 1])
    messages = [str(warning.message) for warning in seen]
    if "dog" not in texts:
        (message,) = messages
        assert message.startswith("None of the 4 training texts has a token, they are empty")
    else:
        assert messages == []
