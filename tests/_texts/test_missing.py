"""Pins what `missing` does in each class that takes texts."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
)

WITH_NONE = ["good story", None, "bad news " * 30, "the fox"]
WITH_NAN = pd.Series(["good story", np.nan, "bad news " * 30, "the fox"], dtype=object)
EMPTY = ["good story", "", "bad news " * 30, "the fox"]
SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 32,
    "max_epochs": 1,
    "random_state": 0,
    "device": "cpu",
}


@pytest.mark.parametrize("cls", [LongBertClassifier, LongBertRegressor])
def test_estimators_take_a_missing_text_for_an_empty_one(
    cls: type, tiny_bert: str, tmp_path: Path
) -> None:
    estimator = cls(tiny_bert, missing="empty", early_stopping=True, **SETTINGS)
    y = [0, 1, 0, 1]
    plain = clone(estimator).set_params(missing="error").fit(EMPTY, y, X_val=EMPTY, y_val=y)
    estimator.fit(WITH_NONE, y, X_val=WITH_NAN, y_val=y)
    expected = plain.predict(EMPTY)
    np.testing.assert_array_equal(estimator.predict(WITH_NAN), expected)
    assert estimator.chunk_report(WITH_NONE) == plain.chunk_report(EMPTY)
    for level in ("chunk", "sentence"):
        explanation = estimator.explain(WITH_NONE, level=level)[1]
        assert explanation.text == ""
    estimator.save_pretrained(tmp_path / "saved")
    again = cls.from_pretrained(tmp_path / "saved")
    assert again.missing == "empty"
    for copy in (again, pickle.loads(pickle.dumps(estimator))):
        np.testing.assert_array_equal(copy.predict(WITH_NONE), expected)
    estimator.set_params(early_stopping=False).partial_fit(WITH_NONE, y)


@pytest.mark.parametrize("cls", [LongBertClassifier, LongBertRegressor])
def test_a_missing_text_is_an_error_by_default(cls: type, tiny_bert: str) -> None:
    estimator, y = cls(tiny_bert, **SETTINGS), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r'X at index 1 is missing .* set missing="empty"'):
        estimator.fit(WITH_NONE, y)
    with pytest.raises(ValueError, match=r"X_val at index 1 is missing"):
        estimator.fit(EMPTY, y, X_val=WITH_NAN, y_val=y)
    estimator.fit(EMPTY, y)
    for call in (estimator.predict, estimator.explain, estimator.chunk_report):
        with pytest.raises(ValueError, match=r"X at index 1 is missing"):
            call(WITH_NAN)
    estimator.set_params(missing="empty").predict(WITH_NAN)  # the cure works without another fit


@pytest.mark.parametrize("first", [0, 1])
def test_vectorizer_and_chunker(first: int, tiny_bert: str) -> None:
    """A missing text may be the first, by which chunked documents are known."""
    texts, empty = WITH_NONE[first:], EMPTY[first:]
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32, missing="empty")
    embeddings = vectorizer.fit(texts).transform(texts)
    np.testing.assert_array_equal(embeddings, vectorizer.transform(empty))
    chunker = TextChunker(tiny_bert, chunk_size=32, missing="empty")
    documents = chunker.fit(texts).transform(texts)
    for ours, theirs in zip(documents, chunker.fit_transform(empty), strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_array_equal(vectorizer.transform(documents), embeddings)
    for transformer in (vectorizer, chunker):
        with pytest.raises(ValueError, match=r"X at index . is missing"):
            transformer.set_params(missing="error").transform(texts)


@pytest.mark.parametrize(
    "cls", [LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker]
)
def test_what_missing_may_be(cls: type, tiny_bert: str) -> None:
    estimator = cls(tiny_bert, missing="drop")
    with pytest.raises(ValueError, match=r"missing.* must be a str among .*'empty'"):
        estimator.fit(EMPTY, [0, 1, 0, 1])
    assert cls().__sklearn_tags__().input_tags.allow_nan is False
    assert cls(missing="empty").__sklearn_tags__().input_tags.allow_nan is True
