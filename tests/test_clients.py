"""Pins that other libraries get the right values from the estimators.

They come with the extra ``clients``, and run with ``-m clients``.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_longbert import LongBertClassifier, LongBertVectorizer

pytestmark = pytest.mark.clients
TEXTS = [f"good story {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
TEXTS += [f"bad news {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
LABELS = np.repeat(["good", "bad"], 6)


@pytest.mark.parametrize(
    "name", ["over_sampling.RandomOverSampler", "under_sampling.RandomUnderSampler"]
)
def test_samplers_of_imbalanced_learn(name: str, tiny_bert: str) -> None:
    module, sampler = name.split(".")
    sampling = import_module(f"imblearn.{module}")
    pipeline = import_module("imblearn.pipeline")
    column = np.array(TEXTS, dtype=object)[:, None]
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=1, random_state=0)
    model = pipeline.make_pipeline(getattr(sampling, sampler)(random_state=0), estimator)
    model.fit(column[:9], LABELS[:9])
    np.testing.assert_array_equal(model.predict(column), LABELS)
    n_texts = {"RandomOverSampler": 12, "RandomUnderSampler": 6}[sampler]
    assert model[-1].chunk_report_["n_texts"] == n_texts


@pytest.mark.parametrize("frames", ["pandas", "polars"])
def test_a_table_of_skrub_with_a_missing_text(frames: str, tiny_bert: str) -> None:
    skrub, library = import_module("skrub"), import_module(frames)
    content: dict[str, Any] = {"text": [*TEXTS[:11], None], "number": np.arange(12.0)}
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32, missing="empty")
    table = skrub.TableVectorizer(high_cardinality=vectorizer, cardinality_threshold=3)
    features = pd.DataFrame(np.asarray(table.fit_transform(library.DataFrame(content))))
    expected = vectorizer.fit().transform([*TEXTS[:11], ""])
    np.testing.assert_array_equal(features.to_numpy()[:, :-1].astype(np.float32), expected)


@pytest.mark.filterwarnings("ignore")  # mlflow's dependencies warn of each other
def test_autologging_of_mlflow(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run, with the parameters of this estimator and the score of its own predictions."""
    monkeypatch.chdir(tmp_path)  # it makes a folder there
    mlflow = import_module("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    mlflow.sklearn.autolog(log_models=False, silent=True)
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=1, random_state=0)
    try:
        with mlflow.start_run() as run:
            model = make_pipeline(estimator).fit(TEXTS, LABELS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    (found,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert found.info.run_id == run.info.run_id
    assert found.data.params["longbertclassifier__max_epochs"] == "1"
    assert found.data.params["longbertclassifier__learning_rate"] == "5e-05"
    assert "C" not in found.data.params  # of an inner logistic regression
    assert found.data.metrics["training_accuracy_score"] == model.score(TEXTS, LABELS)
