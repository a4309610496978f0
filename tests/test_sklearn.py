"""Pins that the estimators work in scikit-learn's own tools, with the real encoder and texts.

Pipelines with memory, searches, meta-estimators, column selection, metadata routing, the HTML
repr, clones and copies, and pickles that another process loads without network or folder.
"""

import copy
import os
import pickle
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone, config_context
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TunedThresholdClassifierCV,
    cross_val_predict,
    learning_curve,
    permutation_test_score,
)
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.utils.fixes import parse_version
from tiny import ENCODER_ALONE, save_tiny_encoder

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
)
from sklearn_longbert._texts import chunker as chunker_module

real = partial(
    LongBertClassifier,
    chunk_size=16,
    max_epochs=1,
    batch_size=16,
    learning_rate=1e-4,
    device="cpu",
    precision="float32",
    random_state=0,
)
News = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def news(bbc_news: News) -> News:
    """The first words, two chunks or so, of six texts on sports and six on business in turn."""
    texts, labels = bbc_news
    rows = np.ravel(
        [np.flatnonzero(labels == name)[:6] for name in ("sports", "business")], order="F"
    )
    return np.array([" ".join(t.split()[:16]) for t in texts[rows]], dtype=object), labels[rows]


@pytest.fixture(scope="module")
def fitted(news: News) -> LongBertClassifier:
    return real().fit(*news)


@pytest.fixture
def tiny(tiny_bert: str) -> partial:
    """The same on the tiny encoder, where there are many fits and it is their bookkeeping."""
    return partial(real, tiny_bert, **ENCODER_ALONE)


def tf_idf() -> Pipeline:
    words_and_characters = FeatureUnion(
        [
            ("words", TfidfVectorizer()),
            ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3))),
        ]
    )
    return make_pipeline(words_and_characters, LogisticRegression())


def same_weights(first: Any, second: Any) -> bool:
    one, two = (model.net_.module_.state_dict() for model in (first, second))
    assert one.keys() == two.keys()
    return all((one[name] == two[name]).all() for name in one)


# Pipelines and searches


@pytest.fixture
def times_tokenized(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, ...]]:
    """How often which texts were given to the tokenizer together."""
    counter: Counter[tuple[str, ...]] = Counter()
    tokenize = chunker_module._tokenize

    def counted(tokenizer: Any, texts: list[str], with_spans: bool) -> Any:
        counter[tuple(texts)] += 1
        return tokenize(tokenizer, texts, with_spans)

    monkeypatch.setattr(chunker_module, "_tokenize", counted)
    return counter


def test_a_pipeline_with_memory_tokenizes_training_texts_once_for_all_candidates(
    news: News, tiny: partial, tiny_bert: str, tmp_path: Path, times_tokenized: Counter
) -> None:
    X, y = news
    memory = joblib.Memory(tmp_path, verbose=0)
    chunker = TextChunker(tiny_bert, chunk_size=16)
    pipeline = make_pipeline(chunker, tiny(chunk_size=None), memory=memory)
    grid = {"longbertclassifier__learning_rate": [1e-5, 1e-4, 1e-3]}
    search = GridSearchCV(pipeline, grid, cv=StratifiedKFold(2), scoring="neg_log_loss")
    search.fit(X, y)
    # The training parts and, to refit, all texts; scikit-learn does not cache what it scores.
    folds = list(StratifiedKFold(2).split(X, y))
    once = [*(tuple(X[train]) for train, _ in folds), tuple(X)]
    scored = [tuple(X[held_out]) for _, held_out in folds]
    assert times_tokenized == Counter(once + 3 * scored)
    # What came from the cache trains to the same weights as the texts themselves.
    best = search.best_params_["longbertclassifier__learning_rate"]
    model = tiny(learning_rate=best).fit(X, y)
    assert same_weights(search.best_estimator_[-1], model)
    np.testing.assert_array_equal(search.predict(X), model.predict(X))


def test_a_search_over_chunked_texts_tokenizes_nothing(
    news: News, tiny: partial, tiny_bert: str, times_tokenized: Counter
) -> None:
    X, y = news
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(X)
    grid = {"learning_rate": [1e-4, 1e-3]}
    search = GridSearchCV(tiny(chunk_size=None), grid, cv=2).fit(documents, y)
    search.predict(documents)
    assert times_tokenized == {tuple(X): 1}


def test_grid_search_over_the_parameters(news: News) -> None:
    X, y = news
    grid = [{"chunk_size": [8]}, {"pooling": ["max"]}, {"learning_rate": [1e-3]}]
    halves = StratifiedShuffleSplit(n_splits=1, train_size=6, random_state=0)
    search = GridSearchCV(real(), grid, cv=halves, scoring="neg_log_loss").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert len(set(scores)) == 3  # each parameter matters
    assert search.best_index_ == scores.argmax()
    assert set(search.predict(X)) <= {"business", "sports"}


def test_two_jobs_give_the_same_results_as_one(tiny: partial, news: News) -> None:
    grid = {"chunk_size": [8, 16]}
    results = [
        GridSearchCV(tiny(), grid, cv=2, scoring="neg_log_loss", n_jobs=n_jobs).fit(*news)
        for n_jobs in (1, 2)
    ]
    one, two = (search.cv_results_["mean_test_score"] for search in results)
    assert len(set(one)) == 2
    np.testing.assert_allclose(one, two, rtol=1e-6)
    assert results[0].best_params_ == results[1].best_params_
    assert same_weights(results[0].best_estimator_, results[1].best_estimator_)


def test_nested_names_reach_chunker_and_classifier(tiny_bert: str, tiny: partial) -> None:
    pipeline = make_pipeline(TextChunker(tiny_bert), tiny(chunk_size=None))
    pipeline.set_params(textchunker__chunk_size=12, longbertclassifier__pooling="max")
    X, y = ["good " * 40, "bad " * 40] * 3, [1, 0] * 3
    pipeline.fit(X, y)
    assert pipeline[-1].chunker_.chunk_size_ == 12
    assert pipeline[-1].net_.module_.pooling == "max"
    assert pipeline.classes_.tolist() == [0, 1]


def test_cross_val_predict_within_groups(tiny: partial, news: News) -> None:
    X, y = news
    groups = np.repeat(np.arange(6), 2)  # a text on sports and one on business each
    splitter = StratifiedGroupKFold(2)
    arguments = {"cv": splitter, "groups": groups, "method": "predict_proba"}
    predicted = cross_val_predict(tiny(), X, y, **arguments)
    expected = np.full((12, 2), np.nan)
    for train, test in splitter.split(X, y, groups):
        assert not set(groups[train]) & set(groups[test])
        expected[test] = tiny().fit(X[train], y[train]).predict_proba(X[test])
    np.testing.assert_allclose(predicted, expected, rtol=1e-6)


def test_learning_curve_and_permutation_test(tiny: partial, news: News) -> None:
    X, y = news
    sizes, _, scores = learning_curve(tiny(), X, y, train_sizes=[4, 6], cv=2, shuffle=False)
    assert sizes.tolist() == [4, 6]
    assert scores.shape == (2, 2)
    score, of_permutations, p_value = permutation_test_score(
        tiny(), X, y, cv=2, n_permutations=3, random_state=0
    )
    assert of_permutations.shape == (3,)
    assert p_value == (1 + (of_permutations >= score).sum()) / 4


# Meta-estimators


def test_calibration(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    calibrated = CalibratedClassifierCV(real(), cv=2, ensemble=False).fit(X, y)
    probabilities = calibrated.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    inner = calibrated.calibrated_classifiers_[0].estimator
    assert same_weights(inner, fitted)
    # A sigmoid of the decision function keeps its order.
    order = inner.decision_function(X).argsort()
    assert (np.diff(probabilities[order, 1]) >= 0).all()


def test_frozen_estimators_are_not_fitted_again(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    before = fitted.predict_proba(X)
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), cv=2).fit(X, y)
    voting = VotingClassifier([("frozen", FrozenEstimator(fitted))], voting="soft")
    np.testing.assert_array_equal(voting.fit(X, y).predict_proba(X), before)
    assert set(calibrated.predict(X)) <= {"business", "sports"}
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


def test_stacking_beside_tf_idf(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    parts = [("encoder", real()), ("tf-idf", tf_idf())]
    stack = StackingClassifier(parts, LogisticRegression(), cv=2).fit(X, y)
    features = stack.transform(X)  # one column a part: probability of the second class
    assert features.shape == (12, 2)
    np.testing.assert_allclose(features[:, 0], fitted.predict_proba(X)[:, 1], rtol=1e-6)
    assert set(stack.predict(X)) <= {"business", "sports"}


def test_voting_averages_probabilities(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    voting = VotingClassifier([("encoder", real()), ("tf-idf", tf_idf())], voting="soft")
    voting.fit(X, y)
    parts = [fitted, tf_idf().fit(X, y)]
    expected = np.mean([part.predict_proba(X) for part in parts], axis=0)
    np.testing.assert_allclose(voting.predict_proba(X), expected, rtol=1e-5)


def test_tuned_threshold(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    tuned = TunedThresholdClassifierCV(
        fitted, scoring="balanced_accuracy", cv="prefit", refit=False
    ).fit(X, y)
    above = fitted.predict_proba(X)[:, 1] >= tuned.best_threshold_
    np.testing.assert_array_equal(tuned.predict(X), fitted.classes_[above.astype(int)])
    # At least as good as the threshold of 0.5 that predict stands for.
    assert tuned.best_score_ >= balanced_accuracy_score(y, fitted.predict(X))


def test_tuned_threshold_with_cross_validation(tiny: partial, news: News) -> None:
    X, y = news
    tuned = TunedThresholdClassifierCV(tiny(), cv=2, scoring="balanced_accuracy").fit(X, y)
    assert same_weights(tuned.estimator_, tiny().fit(X, y))
    assert set(tuned.predict(X)) <= {"business", "sports"}


# Columns of data frames


@pytest.mark.parametrize("output", ["default", "pandas"])
def test_column_transformer_selects_the_text(
    fitted: LongBertClassifier, news: News, output: str
) -> None:
    X, y = news
    frame = pd.DataFrame({"id": np.arange(12), "text": X, "year": 2004.5})
    select = ColumnTransformer([("text", "passthrough", ["text"])], verbose_feature_names_out=False)
    select.set_output(transform=output)
    model = make_pipeline(select, real()).fit(frame, y)
    assert same_weights(model[-1], fitted)
    np.testing.assert_array_equal(model.predict(frame), fitted.predict(X))
    np.testing.assert_array_equal(fitted.predict(frame["text"]), fitted.predict(X))
    with pytest.raises(ValueError, match="select the column that holds the texts"):
        fitted.predict(frame)


CLIENTS: dict[str, Callable[[Any], Any]] = {
    "bagging": lambda estimator: BaggingClassifier(estimator, n_estimators=2, random_state=0),
    "AdaBoost": lambda estimator: AdaBoostClassifier(estimator, n_estimators=2, random_state=0),
    "imputer": lambda estimator: make_pipeline(
        SimpleImputer(missing_values=None, strategy="constant", fill_value=""), estimator
    ),
}


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
def test_clients_that_want_a_column(client: Callable[[Any], Any], tiny_bert: str) -> None:
    words = ["the", "quick", "brown", "fox", "jumps", "over"]
    texts = [f"good story {word} " * 8 for word in words] + [
        f"bad news {word} " * 8 for word in words
    ]
    column, labels = np.array(texts, dtype=object)[:, None], np.repeat(["good", "bad"], 6)
    estimator = LongBertClassifier(tiny_bert, chunk_size=32, max_epochs=1, random_state=0)
    model = client(estimator).fit(column, labels)
    np.testing.assert_array_equal(model.predict(column), labels)


def test_a_vectorizer_takes_a_column_by_its_number(tiny_bert: str) -> None:
    column = np.array(["good story", "bad news"], dtype=object)[:, None]
    vectorizer = LongBertVectorizer(tiny_bert)
    select = ColumnTransformer([("text", vectorizer, [0])])
    expected = vectorizer.fit().transform(column[:, 0])
    np.testing.assert_array_equal(select.fit_transform(column), expected)


def test_logits_as_a_feature_beside_other_columns(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    frame = pd.DataFrame({"text": X, "length": [float(len(text)) for text in X]})
    stack = StackingClassifier([("text", FrozenEstimator(fitted))], cv="prefit").fit(X, y)
    features = ColumnTransformer(
        [("logits", FrozenEstimator(stack), "text"), ("rest", "passthrough", ["length"])]
    )
    table = features.fit_transform(frame, y)
    assert table.shape == (12, 2)
    np.testing.assert_allclose(table[:, 0], fitted.predict_proba(X)[:, 1], rtol=1e-6)
    np.testing.assert_array_equal(table[:, 1], frame["length"])


# Metadata


def test_sample_weight_is_routed_through_search_and_pipeline(news: News, tiny_bert: str) -> None:
    X, y = news
    weights = np.linspace(0, 3, 12)
    small = {"model_name": tiny_bert, "chunk_size": None}
    with config_context(enable_metadata_routing=True):
        requests = real(**small).set_fit_request(sample_weight=True)
        requests.set_score_request(sample_weight=True)
        pipeline = make_pipeline(TextChunker(tiny_bert, chunk_size=16), requests)
        grid = {"longbertclassifier__learning_rate": [1e-3, 1e-2]}
        search = GridSearchCV(pipeline, grid, cv=2).fit(X, y, sample_weight=weights)
        rate = search.best_params_["longbertclassifier__learning_rate"]
        unweighted = clone(pipeline).set_params(longbertclassifier__learning_rate=rate).fit(X, y)
    by_hand = real(tiny_bert, learning_rate=rate).fit(X, y, sample_weight=weights)
    assert same_weights(search.best_estimator_[-1], by_hand)
    assert not same_weights(search.best_estimator_[-1], unweighted[-1])


def test_sample_weight_by_step_name(news: News, tiny: partial, tiny_bert: str) -> None:
    X, y = news
    weights = np.linspace(0, 3, 12)
    pipeline = make_pipeline(TextChunker(tiny_bert, chunk_size=16), tiny(chunk_size=None))
    pipeline.fit(X, y, longbertclassifier__sample_weight=weights)
    assert same_weights(pipeline[-1], tiny().fit(X, y, sample_weight=weights))


def test_raw_validation_texts_reach_a_classifier_of_chunked_ones(news: News) -> None:
    X, y = news
    pipeline = make_pipeline(TextChunker(chunk_size=16), real(chunk_size=None))
    pipeline.fit(X[:8], y[:8], longbertclassifier__X_val=X[8:], longbertclassifier__y_val=y[8:])
    (row,) = pipeline[-1].history_
    assert row["valid_score"] == pipeline.score(X[8:], y[8:])
    expected = log_loss(y[8:], pipeline.predict_proba(X[8:]))
    np.testing.assert_allclose(row["valid_loss"], expected, rtol=1e-5)


# Repr, clones, copies


def test_html_repr_is_fast_and_small(fitted: LongBertClassifier) -> None:
    for model in (real(), fitted, make_pipeline(TextChunker(), fitted)):
        start = time.perf_counter()
        html = model._repr_html_()
        assert time.perf_counter() - start < 1.0
        assert "LongBertClassifier" in html
        assert len(html) < 200_000
    if parse_version(sklearn.__version__) >= parse_version("1.9"):  # shows what was learned
        assert "best_epoch_" in fitted._repr_html_()
    assert "chunk_size=16" in repr(fitted)


def test_clones_are_unfitted_and_refit_to_the_same_result(
    fitted: LongBertClassifier, news: News
) -> None:
    twin = clone(fitted)
    assert not hasattr(twin, "net_")
    assert twin.get_params() == fitted.get_params()
    assert same_weights(twin.fit(*news), fitted)
    np.testing.assert_array_equal(twin.predict_proba(news[0]), fitted.predict_proba(news[0]))


def test_copies_share_nothing(fitted: LongBertClassifier, news: News) -> None:
    X, y = news
    before = fitted.predict_proba(X)
    twin = copy.deepcopy(fitted)
    np.testing.assert_array_equal(twin.predict_proba(X), before)
    twin.partial_fit(X, y)
    assert not same_weights(twin, fitted)
    np.testing.assert_array_equal(fitted.predict_proba(X), before)
    # Pickles stay small also while an optimizer is kept for the next partial_fit.
    for model in (fitted, twin):
        n_bytes = sum(weight.nbytes for weight in model.net_.module_.state_dict().values())
        assert len(pickle.dumps(model)) < 1.05 * n_bytes


def test_chunked_documents_and_chunkers_are_pickled(news: News) -> None:
    chunker = TextChunker(chunk_size=16).fit()
    documents = chunker.transform(news[0])
    for again in (
        pickle.loads(pickle.dumps(documents)),
        pickle.loads(pickle.dumps(chunker)).transform(news[0]),
    ):
        for one, two in zip(documents, again, strict=True):
            np.testing.assert_array_equal(one.tokens, two.tokens)
            assert one.layout == two.layout


# Another process

LOADER = """
import socket, sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise AssertionError("reached for the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
folder = Path(sys.argv[1])

import joblib
import torch

torch.set_num_threads(1)
inputs = joblib.load(folder / "inputs.joblib")
outputs = {}
X = inputs["X"]
for name, y in inputs["y"].items():
    # Arrays of a file that is mapped into memory cannot be trained on as they are.
    for mode in ("r",) if name == "real" else (None, "r"):
        model = joblib.load(folder / f"{name}.joblib", mmap_mode=mode)
        outputs[name, mode, "predict"] = model.predict(X)
        outputs[name, mode, "partial_fit"] = model.partial_fit(X, y).predict(X)
        if name != "real":
            model = joblib.load(folder / f"{name}.joblib", mmap_mode=mode)
            model.set_params(warm_start=True).fit(X, y)
            outputs[name, mode, "warm_start"] = model.predict(X)
            outputs[name, mode, "head"] = model.net_.module_.head.weight.detach().numpy()
joblib.dump(outputs, folder / "outputs.joblib")
"""


def test_another_process_loads_without_network_or_folder(
    fitted: LongBertClassifier, news: News, tmp_path: Path
) -> None:
    texts, labels = news
    encoder = tmp_path / "encoder"
    save_tiny_encoder("bert", encoder)
    values = 1000 + 50.0 * (labels == "sports")
    shared = {**real().get_params(), "model_name": str(encoder), "learning_rate": 1e-2}
    del shared["class_weight"]
    models = {
        "real": (fitted, labels),
        "classifier": (LongBertClassifier(**shared).fit(texts, labels), labels),
        "regressor": (LongBertRegressor(**shared).fit(texts, values), values),
    }
    expected = {}
    for name, (model, y) in models.items():
        joblib.dump(model, tmp_path / f"{name}.joblib")
        expected[name, "predict"] = model.predict(texts)
        expected[name, "partial_fit"] = copy.deepcopy(model).partial_fit(texts, y).predict(texts)
        if name != "real":
            warm = copy.deepcopy(model).set_params(warm_start=True).fit(texts, y)
            expected[name, "warm_start"] = warm.predict(texts)
            expected[name, "head"] = warm.net_.module_.head.weight.detach().numpy()
    n_bytes = sum(weight.nbytes for weight in fitted.net_.module_.state_dict().values())
    assert (tmp_path / "real.joblib").stat().st_size < 1.05 * n_bytes
    encoder.rename(tmp_path / "elsewhere")
    inputs = {"X": texts, "y": {name: y for name, (_, y) in models.items()}}
    joblib.dump(inputs, tmp_path / "inputs.joblib")
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOADER, str(tmp_path)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"Traceback|Warning", done.stderr)
    outputs = joblib.load(tmp_path / "outputs.joblib")
    assert len(outputs) == 2 + 2 * (len(expected) - 2)
    for (name, mode, what), result in outputs.items():
        np.testing.assert_array_equal(result, expected[name, what], err_msg=f"{name} {mode} {what}")
