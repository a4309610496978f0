"""Pins that other libraries get the right values from the estimators.

They come with the extra ``clients``, and run with ``-m clients``.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
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


def test_a_pruner_of_optuna_ends_a_bad_trial(tiny_bert: str) -> None:
    """Also in a search, whose clones report to the same trial."""
    optuna, skorchs = import_module("optuna"), import_module("optuna_integration.skorch")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("learning_rate", 1e-8, 1e-1)
        estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=4, head_init="random")
        callback = skorchs.SkorchPruningCallback(trial, "valid_score")
        estimator.set_params(learning_rate=rate, callbacks=[callback], random_state=0)
        validation = {"X_val": TEXTS, "y_val": LABELS}
        return clone(estimator).fit(TEXTS, LABELS, **validation).history_[-1]["valid_score"]

    study = optuna.create_study(
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1)
    )
    for rate in (3e-2, 1e-8):
        study.enqueue_trial({"learning_rate": rate})
    study.optimize(objective, n_trials=2)
    good, bad = study.trials
    assert good.state.name == "COMPLETE"
    assert len(good.intermediate_values) == 4
    assert good.value == good.intermediate_values[3] == 1.0
    assert bad.state.name == "PRUNED"
    assert 1 <= len(bad.intermediate_values) < 4
    unknown = skorchs.SkorchPruningCallback(good, "valid_acc")
    with pytest.raises(ValueError, match=r"SkorchPruningCallback, monitors 'valid_acc'"):
        LongBertClassifier(tiny_bert, callbacks=[unknown]).fit(TEXTS, LABELS)


@pytest.mark.filterwarnings("ignore")  # tensorboard's dependencies warn of each other
def test_a_board_that_a_search_writes_to(tiny_bert: str, tmp_path: Path) -> None:
    summary, skorchs = import_module("torch.utils.tensorboard"), import_module("skorch.callbacks")
    reading = import_module("tensorboard.backend.event_processing.event_accumulator")
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=2, random_state=0)
    with summary.SummaryWriter(tmp_path) as writer:
        estimator.set_params(callbacks=[skorchs.TensorBoard(writer)])
        search = GridSearchCV(estimator, {"learning_rate": [1e-3]}, cv=2).fit(TEXTS, LABELS)
    events = reading.EventAccumulator(str(tmp_path)).Reload().Scalars("Loss/train_loss")
    losses = [event.value for event in events]
    assert len(losses) == 3 * 2  # of two folds, and of the whole
    expected = [row["train_loss"] for row in search.best_estimator_.history_]
    np.testing.assert_allclose(losses[-2:], expected, rtol=1e-6)


@pytest.mark.filterwarnings("ignore")  # mlflow's dependencies warn of each other
def test_the_logger_of_skorch_for_mlflow(
    tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow, skorchs = import_module("mlflow"), import_module("skorch.callbacks")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=2, random_state=0)
    with mlflow.start_run() as run:
        logger = skorchs.MlflowLogger(terminate_after_train=False)
        estimator.set_params(callbacks=[logger]).fit(TEXTS, LABELS, X_val=TEXTS, y_val=LABELS)
    client = mlflow.MlflowClient()
    for name in ("train_loss", "valid_loss", "valid_score"):
        logged = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        assert logged == [row[name] for row in estimator.history_]
