"""Pins that clients which hand over columns of texts, or missing ones, get the right values."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sklearn_longbert import LongBertClassifier, LongBertVectorizer

TEXTS = [f"good story {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
TEXTS += [f"bad news {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
LABELS = np.repeat(["good", "bad"], 6)


@pytest.mark.parametrize(
    "name", ["over_sampling.RandomOverSampler", "under_sampling.RandomUnderSampler"]
)
def test_samplers_of_imbalanced_learn(name: str, tiny_bert: str) -> None:
    module, sampler = name.split(".")
    sampling = pytest.importorskip(f"imblearn.{module}")
    pipeline = pytest.importorskip("imblearn.pipeline")
    column = np.array(TEXTS, dtype=object)[:, None]
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=1, random_state=0)
    model = pipeline.make_pipeline(getattr(sampling, sampler)(random_state=0), estimator)
    model.fit(column[:9], LABELS[:9])
    np.testing.assert_array_equal(model.predict(column), LABELS)
    n_texts = {"RandomOverSampler": 12, "RandomUnderSampler": 6}[sampler]
    assert model[-1].chunk_report_["n_texts"] == n_texts


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_a_table_of_skrub_with_a_missing_text(frames: str, tiny_bert: str) -> None:
    skrub, library = pytest.importorskip("skrub"), pytest.importorskip(frames)
    content: dict[str, Any] = {"text": [*TEXTS[:11], None], "number": np.arange(12.0)}
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32, missing="empty")
    table = skrub.TableVectorizer(high_cardinality=vectorizer, cardinality_threshold=3)
    features = pd.DataFrame(np.asarray(table.fit_transform(library.DataFrame(content))))
    expected = vectorizer.fit().transform([*TEXTS[:11], ""])
    np.testing.assert_array_equal(features.to_numpy()[:, :-1].astype(np.float32), expected)
