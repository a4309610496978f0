"""Pins that other libraries get the right values from the estimators.

They come with the extra ``clients``, and run with ``-m clients``.
"""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker

pytestmark = pytest.mark.clients
TEXTS = [f"good story {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
TEXTS += [f"bad news {word} " * 8 for word in ("the", "quick", "brown", "fox", "dog", "lazy")]
LABELS = np.repeat(["good", "bad"], 6)
IS_GOOD = np.repeat([1, 0], 6)  # for libraries that know numbered classes only
TRUSTED = [
    "sklearn_longbert._classifier.LongBertClassifier",
    "sklearn_longbert._regressor.LongBertRegressor",
    "sklearn_longbert._vectorizer.LongBertVectorizer",
    "sklearn_longbert._texts.chunker.TextChunker",
]


@pytest.fixture
def classifier(tiny_bert: str) -> LongBertClassifier:
    return LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )


@pytest.fixture(scope="module")
def minilm() -> LongBertClassifier:
    """The real encoder, which knows what words mean."""
    cooking = ["The cook fries the fish and boils the rice. ", "She bakes bread in her oven. "]
    sky = ["The telescope shows a comet. ", "The moon and the planets move around a star. "]
    texts, labels = [*cooking, *sky] * 3, ["cooking", "cooking", "astronomy", "astronomy"] * 3
    return LongBertClassifier(**ENCODER_ALONE, freeze_encoder=True, random_state=0).fit(
        texts, labels
    )


@pytest.mark.parametrize(
    "name", ["over_sampling.RandomOverSampler", "under_sampling.RandomUnderSampler"]
)
def test_samplers_of_imbalanced_learn(name: str, tiny_bert: str) -> None:
    module, sampler = name.split(".")
    sampling = import_module(f"imblearn.{module}")
    pipeline = import_module("imblearn.pipeline")
    column = np.array(TEXTS, dtype=object)[:, None]
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )
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
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )
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


@pytest.mark.filterwarnings("ignore")  # mlflow's dependencies warn of each other
def test_logged_models_of_mlflow(
    classifier: LongBertClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default format is that of skops."""
    monkeypatch.chdir(tmp_path)
    mlflow = import_module("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'runs.db'}")
    model = classifier.fit(TEXTS, LABELS)
    logged = mlflow.sklearn.log_model(model, name="model", skops_trusted_types=TRUSTED)
    assert logged.flavors["sklearn"]["serialization_format"] == "skops"
    loaded = mlflow.sklearn.load_model(logged.model_uri)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    served = mlflow.pyfunc.load_model(logged.model_uri)
    np.testing.assert_array_equal(served.predict(np.array(TEXTS)), model.predict(TEXTS))


@pytest.mark.filterwarnings("ignore")  # mlflow's dependencies warn of each other
@pytest.mark.parametrize("serialization_format", ["skops", "cloudpickle"])
def test_saved_models_of_mlflow(
    serialization_format: str,
    classifier: LongBertClassifier,
    tiny_bert: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model whose requirements are given, such as a wheel, in both formats."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    mlflow = import_module("mlflow.sklearn")
    regressor = LongBertRegressor(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )
    models = {
        "regressor": regressor.fit(TEXTS, np.arange(12.0)),
        "embeddings": make_pipeline(LongBertVectorizer(tiny_bert), LogisticRegression()).fit(
            TEXTS, LABELS
        ),
        "chunks": make_pipeline(TextChunker(tiny_bert, chunk_size=32), classifier).fit(
            TEXTS, LABELS
        ),
    }
    for name, model in models.items():
        mlflow.save_model(
            model,
            name,
            serialization_format=serialization_format,
            skops_trusted_types=TRUSTED,
            pip_requirements=["sklearn-longbert"],
        )
        loaded = mlflow.load_model(name)
        np.testing.assert_array_equal(loaded.predict(TEXTS), model.predict(TEXTS))


def test_files_of_skops(classifier: LongBertClassifier, tmp_path: Path) -> None:
    """The types that the guide lists are all that a pipeline of chunker and classifier needs."""
    skops, file = import_module("skops.io"), tmp_path / "model.skops"
    model = make_pipeline(classifier).fit(TEXTS, LABELS)
    skops.dump(model, file)
    assert set(skops.get_untrusted_types(file=file)) <= set(TRUSTED)
    loaded = skops.load(file, trusted=TRUSTED)
    np.testing.assert_array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_a_study_of_optuna(classifier: LongBertClassifier) -> None:
    """The values of the trials are those of cross_val_score without optuna."""
    optuna = import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rates, poolings = [1e-5, 1e-3], ["mean", "max"]

    def value(**parameters: Any) -> float:
        classifier.set_params(**parameters)
        return cross_val_score(classifier, TEXTS, LABELS, cv=2, scoring="neg_log_loss").mean()

    def objective(trial: Any) -> float:
        rate = trial.suggest_categorical("learning_rate", rates)
        return value(learning_rate=rate, pooling=trial.suggest_categorical("pooling", poolings))

    grid = {"learning_rate": rates, "pooling": poolings}
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.GridSampler(grid, seed=0)
    )
    study.optimize(objective, n_trials=4)
    expected = [value(**trial.params) for trial in study.trials]
    assert [trial.value for trial in study.trials] == expected
    assert len(set(expected)) > 1
    assert study.best_value == max(expected)


@pytest.mark.filterwarnings("ignore")  # of optuna itself
def test_the_search_of_optuna(classifier: LongBertClassifier) -> None:
    optuna, integration = import_module("optuna"), import_module("optuna_integration")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {"learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)}
    search = integration.OptunaSearchCV(
        classifier, space, n_trials=2, cv=2, scoring="neg_log_loss", random_state=0
    ).fit(TEXTS, LABELS)
    best = classifier.set_params(**search.best_params_)
    expected = cross_val_score(best, TEXTS, LABELS, cv=2, scoring="neg_log_loss").mean()
    assert search.best_score_ == expected
    alone = best.fit(TEXTS, LABELS)
    np.testing.assert_array_equal(search.predict_proba(TEXTS), alone.predict_proba(TEXTS))


def test_label_issues_of_cleanlab(classifier: LongBertClassifier) -> None:
    """It finds the one wrong label, and trains without it."""
    filters = import_module("cleanlab.filter")
    cleaning = import_module("cleanlab.classification").CleanLearning
    texts = [*TEXTS, *(f"the fox and the dog: {text}" for text in TEXTS)]
    true = np.tile(IS_GOOD, 2)
    wrong = true.copy()
    wrong[8] = 1
    held_out = cross_val_predict(classifier, texts, wrong, cv=4, method="predict_proba")
    found = filters.find_label_issues(wrong, held_out, n_jobs=1)
    np.testing.assert_array_equal(np.flatnonzero(found), [8])
    cleaner = cleaning(classifier, cv_n_folds=4, seed=0, find_label_issues_kwargs={"n_jobs": 1})
    cleaner.fit(np.array(texts, dtype=object), wrong)
    issues = cleaner.get_label_issues()
    assert issues.index[issues.is_label_issue].tolist() == [8]
    assert issues.predicted_label[8] == 0
    np.testing.assert_array_equal(cleaner.predict(texts), true)


@pytest.mark.parametrize("as_column", [False, True])
def test_conformal_sets_of_mapie(as_column: bool, minilm: LongBertClassifier) -> None:
    """A set holds the classes whose probability reaches that of the calibration texts."""
    mapie = import_module("mapie.classification")
    words = ["fish", "comet", "rice", "moon", "soup", "rocket", "bread", "star", "salt", "orbit"]
    texts = np.array([f"We talked of the {word} in the garden." for word in words], dtype=object)
    labels = np.array(["cooking", "astronomy"] * 5)
    new = np.array(["The garden is wide.", "Fish from Saturn.", "A telescope."], dtype=object)
    conformal = mapie.SplitConformalClassifier(minilm, confidence_level=0.8, prefit=True)
    shape = (-1, 1) if as_column else (-1,)
    conformal.conformalize(texts.reshape(shape), labels)
    predicted, sets = conformal.predict_set(new.reshape(shape))
    np.testing.assert_array_equal(predicted, minilm.predict(new))
    probabilities = minilm.predict_proba(texts)
    true = np.sort(probabilities[np.arange(10), np.searchsorted(minilm.classes_, labels)])
    # the ceil(11 * 0.8) = 9th smallest of the scores 1 - p
    np.testing.assert_array_equal(sets[:, :, 0], minilm.predict_proba(new) >= true[1])


def test_weights_of_lime(minilm: LongBertClassifier) -> None:
    lime = import_module("lime.lime_text").LimeTextExplainer
    explainer = lime(class_names=minilm.classes_.tolist(), random_state=0)
    for word, label in [("telescope", 0), ("soup", 1)]:
        text = f"It was a {word} on the table of my house"
        explanation = explainer.explain_instance(
            text, minilm.predict_proba, num_samples=100, labels=(label,)
        )
        expected = minilm.predict_proba([text])[0]
        np.testing.assert_allclose(explanation.predict_proba, expected, rtol=1e-4)
        (first, weight), (_, second), *_ = explanation.as_list(label=label)
        assert first == word
        assert weight > 2 * abs(second)


@pytest.mark.filterwarnings("ignore")  # of its dependencies
def test_values_of_shap(minilm: LongBertClassifier) -> None:
    """Values of words add up to what they change together, and the one that decides is largest."""
    shap = import_module("shap")
    masker = shap.maskers.Text(r"\W+")
    explainer = shap.Explainer(minilm.predict_proba, masker)
    text = "telescope on the old table"
    explanation = explainer([text], silent=True)
    base, whole = minilm.predict_proba(["...", text])  # "..." stands for words that are masked
    np.testing.assert_allclose(explanation.base_values[0], base, rtol=1e-4)
    (values,) = explanation.values
    assert values.shape == (5, 2)
    np.testing.assert_allclose(values.sum(axis=0), whole - base, atol=1e-5)
    assert values[:, 0].argmax() == 0


def test_partitions_of_dask(classifier: LongBertClassifier) -> None:
    """Predictions of partitions are those of all texts together."""
    dask, arrays = import_module("dask"), import_module("dask.array")
    bags, frames = import_module("dask.bag"), import_module("dask.dataframe")
    expected = classifier.fit(TEXTS, LABELS).predict_proba(TEXTS)

    def of_frame(part: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(classifier.predict_proba(part["text"]), part.index, columns=[0, 1])

    column = arrays.from_array(np.array(TEXTS, dtype=object)[:, None], chunks=(5, 1))
    bag = bags.from_sequence(TEXTS, npartitions=3)
    frame = frames.from_pandas(pd.DataFrame({"text": TEXTS}), npartitions=3)
    meta = pd.DataFrame({0: [0.5], 1: [0.5]}, dtype=np.float32)
    lazy = [
        column.map_blocks(classifier.predict_proba, chunks=(column.chunks[0], 2), dtype=np.float32),
        bag.map_partitions(lambda part: list(classifier.predict_proba(list(part)))),
        frame.map_partitions(of_frame, meta=meta),
    ]
    with dask.config.set(scheduler="threads", num_workers=2):
        for one in lazy:
            found = np.array(one.compute())
            assert found.dtype == np.float32
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of its dependencies
def test_a_map_of_datasets(classifier: LongBertClassifier) -> None:
    datasets = import_module("datasets")
    classifier.fit(TEXTS, LABELS)
    dataset = datasets.Dataset.from_dict({"text": TEXTS})

    def predict(batch: dict[str, Any]) -> dict[str, Any]:
        return {"label": classifier.predict(batch["text"])}

    predicted = dataset.map(predict, batched=True, batch_size=5, load_from_cache_file=False)
    assert predicted["label"][:] == LABELS.tolist()


@pytest.mark.filterwarnings("ignore")  # of its dependencies
def test_queries_of_scikit_activeml(classifier: LongBertClassifier) -> None:
    """It asks for the texts whose probabilities are nearest to one half."""
    pool = import_module("skactiveml.pool")
    wrap = import_module("skactiveml.classifier").SklearnClassifier
    texts, numbers = np.array(TEXTS, dtype=object), np.arange(12)[:, None]

    def look_up(numbers: Any) -> Any:
        return texts[np.asarray(numbers).ravel().astype(int)]

    known = np.full(12, np.nan)
    known[[0, 1, 6, 7]] = IS_GOOD[[0, 1, 6, 7]]
    by_number = make_pipeline(FunctionTransformer(look_up, validate=False), classifier)
    sampling = pool.UncertaintySampling(method="least_confident", random_state=0)
    asked = sampling.query(numbers, known, wrap(by_number, classes=[0, 1]), batch_size=2)
    labelled = [0, 1, 6, 7]
    classifier.fit([TEXTS[index] for index in labelled], IS_GOOD[labelled])
    doubt = -classifier.predict_proba(TEXTS).max(axis=1)
    doubt[labelled] = -np.inf
    assert set(asked) == set(np.argsort(-doubt)[:2])


@pytest.mark.filterwarnings("ignore")  # of its dependencies
def test_a_service_of_fastapi(classifier: LongBertClassifier, tmp_path: Path) -> None:
    """A worker loads the folder when it starts, and answers several requests at once."""
    fastapi, testing = import_module("fastapi"), import_module("fastapi.testclient")
    expected = classifier.fit(TEXTS, LABELS).predict_proba(TEXTS)
    classifier.save_pretrained(tmp_path / "saved")

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.state.classifier = LongBertClassifier.from_pretrained(tmp_path / "saved")
        yield

    app = fastapi.FastAPI(lifespan=lifespan)

    @app.post("/probabilities")
    def probabilities(texts: list[str]) -> list[list[float]]:
        return app.state.classifier.predict_proba(texts).tolist()

    with testing.TestClient(app) as client, ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda text: client.post("/probabilities", json=[text]).json(), TEXTS)
        np.testing.assert_allclose(np.concatenate([*map(np.array, answers)]), expected, rtol=1e-5)


def test_a_pruner_of_optuna_ends_a_bad_trial(tiny_bert: str) -> None:
    """Also in a search, whose clones report to the same trial."""
    optuna, skorchs = import_module("optuna"), import_module("optuna_integration.skorch")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: Any) -> float:
        rate = trial.suggest_float("learning_rate", 1e-8, 1e-1)
        estimator = LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=4, head_init="random"
        )
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
        LongBertClassifier(tiny_bert, **ENCODER_ALONE, callbacks=[unknown]).fit(TEXTS, LABELS)


@pytest.mark.filterwarnings("ignore")  # tensorboard's dependencies warn of each other
def test_a_board_that_a_search_writes_to(tiny_bert: str, tmp_path: Path) -> None:
    summary, skorchs = import_module("torch.utils.tensorboard"), import_module("skorch.callbacks")
    reading = import_module("tensorboard.backend.event_processing.event_accumulator")
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=2, random_state=0
    )
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
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=2, random_state=0
    )
    with mlflow.start_run() as run:
        logger = skorchs.MlflowLogger(terminate_after_train=False)
        estimator.set_params(callbacks=[logger]).fit(TEXTS, LABELS, X_val=TEXTS, y_val=LABELS)
    client = mlflow.MlflowClient()
    for name in ("train_loss", "valid_loss", "valid_score"):
        logged = [metric.value for metric in client.get_metric_history(run.info.run_id, name)]
        assert logged == [row[name] for row in estimator.history_]
