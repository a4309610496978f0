"""Many texts are predicted a stretch at a time, and as they are together."""

from dataclasses import replace
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._texts import reader as reader_module
from sklearn_longbert._texts.stretches import STREAM_TEXTS, stretches

TEXTS = ["good story " * n for n in (3, 9, 1, 40, 2)] + ["bad news " * n for n in (7, 1, 4, 30)]
LABELS = [0] * 5 + [1] * 4


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 100))
def test_stretches(sizes, largest):
    rows = list(stretches(sizes, largest))
    assert list(chain.from_iterable(range(len(sizes))[one] for one in rows)) == [*range(len(sizes))]
    for one, after in pairwise(rows):
        assert sum(sizes[one]) <= largest or one.stop - one.start == 1
        assert sum(sizes[one]) + sizes[after.start] > largest  # the next text did not fit
    assert [one.stop - one.start for one in stretches([0] * 2500, 1)] == [1024, 1024, 452]


@pytest.fixture(scope="module")
def fitted(tiny_bert: str) -> LongBertClassifier:
    settings = {"chunk_size": 8, "precision": "float32", "random_state": 0, "max_epochs": 1}
    return LongBertClassifier(tiny_bert, **settings).fit(TEXTS, LABELS)


@pytest.mark.parametrize("chunked", [False, True])
def test_predictions(
    chunked: bool, fitted: LongBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    X: Any = TEXTS
    if chunked:
        X = TextChunker(fitted.model_name, chunk_size=8).fit_transform(TEXTS)
    whole = fitted.decision_function(X)
    sizes, predict = [], fitted.net_.predict_logits

    def record(documents: Any, *arguments: Any) -> Any:
        sizes.append(len(documents))
        return predict(documents, *arguments)

    monkeypatch.setattr(fitted.net_, "predict_logits", record)
    monkeypatch.setattr(reader_module, "STREAM_TEXTS", 4)
    np.testing.assert_allclose(fitted.decision_function(X), whole, rtol=1e-4, atol=1e-6)
    assert sizes == [4, 4, 1]
    sizes.clear()
    monkeypatch.setattr(reader_module, "STREAM_TOKENS", 30)  # of 6, 18, 2, 80, 4, 14, 2, 8 and 60
    np.testing.assert_allclose(fitted.decision_function(X), whole, rtol=1e-4, atol=1e-6)
    assert sizes == [3, 1, 4, 1]


def test_a_bar_counts_many_texts(
    fitted: LongBertClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        fitted.set_params(verbose=1).predict(TEXTS * (STREAM_TEXTS // len(TEXTS) + 1))
    finally:
        fitted.set_params(verbose=0)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "1026/1026" in err


def test_an_error_names_the_index_in_all_texts(
    fitted: LongBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty text, where the tokenizer adds no special tokens, after the first stretch."""
    bare = replace(fitted.chunker_.layout_, prefix=(), suffix=())
    monkeypatch.setattr(fitted.chunker_, "layout_", bare)
    monkeypatch.setattr(reader_module, "STREAM_CHARACTERS", 10)
    with pytest.raises(ValueError, match="X at index 5 has no tokens"):
        fitted.predict([*TEXTS[:5], "", "good"])
