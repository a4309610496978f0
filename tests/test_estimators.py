"""Pins what fit, partial_fit and predict of both estimators promise, on a tiny encoder.

Labels and outputs in the caller's terms; weights of texts and classes; reproducibility;
history, early stopping and warm starts; callbacks; errors that come early and say the cure.
"""

import gc
import pickle
import random
import re
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from tiny import save_tiny_encoder

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
)
from sklearn_longbert import _net_factory as net_factory_module
from sklearn_longbert._texts import chunker as chunker_module

WORDS = ("good", "bad", "sport")
FILLERS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "story", "time")
STILL = 1e-30  # a learning rate that no float32 weight can feel
PREDICTIONS = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def make_texts(n_classes: int, n_texts: int = 12) -> list[str]:
    """Texts of one to several chunks; those of class i repeat WORDS[i]."""
    rng = np.random.RandomState(0)
    texts = []
    for index in range(n_texts):
        n_words = rng.randint(2, 30)
        words = [*rng.choice(FILLERS, n_words), *[WORDS[index % n_classes]] * (1 + n_words // 2)]
        texts.append(" ".join(rng.permutation(words)))
    return texts


SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 1,
    "batch_size": 4,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
    "fine_tuning_share": 1.0,
}
FAST_LEARNER = {"max_epochs": 20, "learning_rate": 1e-2}  # whatever the tiny encoder's vocabulary


@pytest.fixture
def classifier(tiny_bert: str) -> partial:
    return partial(LongBertClassifier, tiny_bert, **SETTINGS)


@pytest.fixture
def regressor(tiny_bert: str) -> partial:
    return partial(LongBertRegressor, tiny_bert, **SETTINGS)


class Recorder(Callback):
    """Keeps what training passed through; on the class, because searches clone callbacks."""

    events: ClassVar[list[str]] = []
    weights: ClassVar[list[dict[str, torch.Tensor]]] = []  # after each epoch
    first_weights: ClassVar[list[dict[str, torch.Tensor]]] = []  # of each training

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.events.append("train_begin")
        self.first_weights.append(copy_weights(net))

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.events.append("epoch_begin")

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        self.events.append("batch_end" if training else "other")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.events.append("epoch_end")
        self.weights.append(copy_weights(net))

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        self.events.append("train_end")


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    yield Recorder()
    for kept in (Recorder.events, Recorder.weights, Recorder.first_weights):
        kept.clear()


class Interrupt(Callback):
    """Does what Ctrl-C does, in the first batch of an epoch."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch

    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        if len(net.history) == self.epoch:
            raise KeyboardInterrupt


class Poison(Callback):
    """Puts a NaN into the head after the first batch of an epoch."""

    def __init__(self, epoch: int = 1) -> None:
        self.epoch = epoch

    def on_batch_end(self, net: Any, training: bool = False, **kwargs: Any) -> None:
        if training and len(net.history) == self.epoch:
            with torch.no_grad():
                net.module_.head.weight[0, 0] = float("nan")


def copy_weights(net: Any) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in net.module_.state_dict().items()}


def difference(first: Any, second: Any) -> float:
    """Return the largest difference of any weight of two estimators or weight dicts."""
    one, two = (
        weights if isinstance(weights, dict) else weights.net_.module_.state_dict()
        for weights in (first, second)
    )
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


# Labels and outputs


LABELS = {
    "str": (["no", "yes"], "U"),
    "bytes-like names": (np.array(["b", "a"], dtype="<U1"), "U"),
    "object": (np.array(["yes", "no"], dtype=object), "O"),
    "int": ([1, 2], "i"),
    "negative int": ([-1, 1], "i"),
    "int8": (np.array([3, -3], dtype=np.int8), "i"),
    "unsigned": (np.array([7, 9], dtype=np.uint16), "u"),
    "bool": ([True, False], "b"),
    "whole float": ([0.0, 1.0], "f"),
    "three str": (["x", "a", "m"], "U"),
    "three int": ([10, -2, 0], "i"),
    "pandas str": (pd.Series(["no", "yes"]), "O"),
    "pandas int": (pd.Series([5, 4], index=[9, 9]), "i"),
    "pandas bool": (pd.Series([False, True]), "b"),
    "pandas nullable int": (pd.Series([2**53, 2**53 + 1], dtype="Int64"), "i"),
    "pandas nullable bool": (pd.Series([True, False], dtype="boolean"), "b"),
    "pandas categorical": (pd.Series(["no", "yes"], dtype="category"), "O"),
}


@pytest.mark.parametrize(("of_class", "kind"), LABELS.values(), ids=LABELS.keys())
def test_predict_returns_the_callers_labels(classifier: partial, of_class: Any, kind: str) -> None:
    X, indices = make_texts(len(of_class)), np.arange(12) % len(of_class)
    y = of_class.iloc[indices] if hasattr(of_class, "iloc") else np.asarray(of_class)[indices]
    if isinstance(of_class, list):
        y = y.tolist()
    model = classifier(**FAST_LEARNER).fit(X, y)
    predicted = model.predict(X)
    assert predicted.dtype.kind == model.classes_.dtype.kind == kind
    assert predicted.tolist() == list(y)
    assert model.classes_.tolist() == sorted(set(y))
    assert model.score(X, y) == 1.0


@pytest.mark.parametrize("n_classes", [2, 3])
def test_outputs_have_scikit_learns_shapes_in_float32(classifier: partial, n_classes: int) -> None:
    X, y = make_texts(n_classes), np.arange(12) % n_classes
    model = classifier().fit(X, y)
    logits = model.decision_function(X)
    assert logits.shape == ((12,) if n_classes == 2 else (12, n_classes))
    assert model.predict_proba(X).shape == model.predict_log_proba(X).shape == (12, n_classes)
    for name in PREDICTIONS[1:]:
        assert getattr(model, name)(X).dtype == np.float32
    assert model.predict(X).shape == (12,)


@pytest.fixture(scope="module")
def fitted_by_n_classes(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[int, LongBertClassifier]:
    folder = save_tiny_encoder("bert", tmp_path_factory.mktemp("bert"))
    return {
        n: LongBertClassifier(str(folder), **{**SETTINGS, **FAST_LEARNER}).fit(
            make_texts(n), np.array(WORDS)[np.arange(12) % n]
        )
        for n in (2, 3)
    }


random_words = st.lists(st.sampled_from([*WORDS, *FILLERS, "東京", "?"]), max_size=60).map(" ".join)


@pytest.mark.filterwarnings("ignore:.* of the characters of X are under:UserWarning")
@pytest.mark.parametrize("n_classes", [2, 3])
@given(X=st.lists(st.one_of(random_words, st.text()), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None, database=None, derandomize=True)
def test_labels_probabilities_and_logits_agree(
    fitted_by_n_classes: dict[int, LongBertClassifier], n_classes: int, X: list[str]
) -> None:
    model = fitted_by_n_classes[n_classes]
    probabilities, logits = model.predict_proba(X), model.decision_function(X)
    np.testing.assert_array_equal(model.classes_[probabilities.argmax(axis=1)], model.predict(X))
    if n_classes == 2:
        np.testing.assert_allclose(probabilities[:, 1], 1 / (1 + np.exp(-logits)), rtol=1e-5)
        np.testing.assert_array_equal(model.predict(X) == model.classes_[1], logits > 0)
        logits = np.column_stack([np.zeros_like(logits), logits])
    np.testing.assert_allclose(probabilities, softmax(logits, axis=1), rtol=1e-5)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
    log_probabilities = log_softmax(logits.astype(np.float64), axis=1)
    np.testing.assert_allclose(model.predict_log_proba(X), log_probabilities, rtol=1e-5, atol=2e-6)


def test_fitted_attributes(classifier: partial, toy: tuple[list[str], list[str]]) -> None:
    X, y = toy
    model = classifier(max_epochs=2, max_chunks=4).fit(X, y)
    assert model.device_ == "cpu"
    assert model.n_iter_ == model.best_epoch_ == 2
    assert model.chunker_.get_params().items() >= {"chunk_size": 16, "max_chunks": 4}.items()
    counts = [document.n_chunks for document in model.chunker_.transform(X)]
    assert model.n_chunks_.tolist() == counts
    assert min(counts) < max(counts) == 4


def test_classes_are_unknown_before_a_fit() -> None:
    with pytest.raises(AttributeError, match=r"'LongBertClassifier' object has no .* 'classes_'"):
        LongBertClassifier().classes_  # noqa: B018


def test_no_classes_at_all(classifier: partial) -> None:
    with pytest.raises(ValueError, match=r"classes=\[\] where at least two are needed"):
        classifier().partial_fit(TEXTS, LABELLED, classes=[])


# Weights of texts and classes


class DoubleClassifier(LongBertClassifier):
    """In float64, so that sums in another order are equal to many digits."""

    def _load_encoder(self, folder: Any, dropouts: tuple[float, float]) -> Any:
        return super()._load_encoder(folder, dropouts).double()


class DoubleRegressor(LongBertRegressor):
    """In float64, so that sums in another order are equal to many digits."""

    def _load_encoder(self, folder: Any, dropouts: tuple[float, float]) -> Any:
        return super()._load_encoder(folder, dropouts).double()


FULL_BATCH = {
    **SETTINGS,
    "batch_size": 1000,
    "dropout": 0.0,
    "max_epochs": 4,
    "learning_rate": 1e-2,
}


@pytest.mark.parametrize("Double", [DoubleClassifier, DoubleRegressor])
def test_weight_k_equals_k_copies(tiny_bert: str, Double: type) -> None:
    X, y = np.array(make_texts(2), dtype=object), np.arange(12) % 2
    weights = np.array([1, 2, 1, 3, 1, 1, 2, 1, 0, 1, 2, 1])
    copies = np.repeat(np.arange(12), weights)
    weighted = Double(tiny_bert, **FULL_BATCH).fit(X, y, sample_weight=weights)
    copied = Double(tiny_bert, **FULL_BATCH).fit(X[copies], y[copies])
    plain = Double(tiny_bert, **FULL_BATCH).fit(X, y)
    assert difference(weighted, copied) < 1e-9
    assert difference(weighted, plain) > 1e-3
    np.testing.assert_allclose(weighted.predict(X), copied.predict(X), rtol=1e-6)


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_weight_zero_is_absence_bit_for_bit(make: str, request: pytest.FixtureRequest) -> None:
    estimator = request.getfixturevalue(make)
    X, y = make_texts(2), np.arange(12) % 2
    weights = np.r_[np.zeros(3), np.linspace(1, 2, 9)]
    with_zeros = estimator().fit(X, y, sample_weight=weights)
    without = estimator().fit(X[3:], y[3:], sample_weight=weights[3:])
    assert difference(with_zeros, without) == 0


def test_scale_of_weights_does_not_matter(classifier: partial) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    weights = np.linspace(1, 2, 12)
    small = classifier().fit(X, y, sample_weight=weights)
    large = classifier().fit(X, y, sample_weight=1024 * weights)
    assert difference(small, large) == 0


def test_class_weight_dict_is_a_weight_of_each_text(classifier: partial) -> None:
    X, y = make_texts(3), np.array(WORDS)[np.arange(12) % 3]
    own = np.linspace(1, 2, 12)
    by_class = classifier(class_weight={"good": 3.0, "bad": 0.5}).fit(X, y, sample_weight=own)
    factors = np.select([y == "good", y == "bad"], [3.0, 0.5], 1.0)
    by_text = classifier().fit(X, y, sample_weight=own * factors)
    assert difference(by_class, by_text) == 0
    assert difference(by_class, classifier().fit(X, y, sample_weight=own)) > 1e-6


@pytest.mark.parametrize("weighted", [False, True])
def test_balanced_classes_have_equal_weight_in_sum(tiny_bert: str, weighted: bool) -> None:
    X, y = make_texts(2), np.array(["a"] * 3 + ["b"] * 9)
    own = np.linspace(1, 2, 12) if weighted else np.ones(12)
    shares = {label: own[y == label].sum() / own.sum() for label in "ab"}
    by_hand = own / np.array([2 * shares[label] for label in y])
    balanced = DoubleClassifier(tiny_bert, **FULL_BATCH, class_weight="balanced")
    balanced.fit(X, y, sample_weight=own)
    expected = DoubleClassifier(tiny_bert, **FULL_BATCH).fit(X, y, sample_weight=by_hand)
    assert difference(balanced, expected) < 1e-10


def test_class_weight_holds_for_parts_without_the_class(classifier: partial) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    model = classifier(class_weight={"good": 3.0})
    model.partial_fit(X[1::2], y[1::2], classes=["bad", "good"])
    plain = classifier().partial_fit(X[1::2], y[1::2], classes=["bad", "good"])
    assert difference(model, plain) == 0  # all weights equal: none counts more than another
    message = r"key 'ugly', which is not among the classes \['bad', 'good'\]: its keys are"
    with pytest.raises(ValueError, match=message):
        classifier(class_weight={"ugly": 3.0}).fit(X, y)


# Random states and parameters

RANDOM_PARTS = {"dropout": 0.3, "max_chunks": 2, "chunk_selection": "random", "max_epochs": 2}


def test_same_seed_same_weights_bit_for_bit(
    classifier: partial, toy: tuple[list[str], list[str]]
) -> None:
    X, y = toy
    first = classifier(**RANDOM_PARTS).fit(X, y)
    weights = copy_weights(first.net_)
    random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002  what the caller draws
    again = classifier(**RANDOM_PARTS).fit(X, y)
    assert difference(weights, again) == 0
    cloned = clone(first).fit(X, y)
    refitted = first.fit(X, y)
    for other in (cloned, refitted):
        assert difference(again, other) == 0
    assert difference(again, classifier(**{**RANDOM_PARTS, "random_state": 1}).fit(X, y)) > 0


def test_random_state_instance_is_drawn_from(classifier: partial) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    shared = np.random.RandomState(3)
    first, second = (classifier(random_state=shared).fit(X, y) for _ in range(2))
    again = classifier(random_state=np.random.RandomState(3)).fit(X, y)
    assert difference(first, again) == 0
    assert difference(first, second) > 0


def test_global_random_states_are_untouched(
    classifier: partial, toy: tuple[list[str], list[str]]
) -> None:
    def states() -> list[bytes]:
        numpy_state = np.random.get_state()  # noqa: NPY002
        torch_state = torch.get_rng_state().numpy()
        return [pickle.dumps(state) for state in (random.getstate(), numpy_state, torch_state)]

    X, y = toy
    before = states()
    model = classifier(**RANDOM_PARTS, early_stopping=True, validation_fraction=0.4).fit(X, y)
    assert states() == before
    model.predict(X)
    assert states() == before
    model.set_params(early_stopping=False).partial_fit(X, y)
    assert states() == before
    pickle.loads(pickle.dumps(model)).predict(X)
    assert states() == before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_changes_no_parameter(
    classifier: partial, recorder: Recorder, method: str
) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    stopper = EarlyStopping(monitor="train_loss", patience=1)
    model = classifier(
        chunk_size=None,
        callbacks=[recorder, stopper],
        class_weight={"good": 2.0},
        micro_batch_tokens="auto",
        max_chunks=2,
    )
    before = model.get_params()
    of_stopper, of_weights = stopper.get_params(), dict(before["class_weight"])
    getattr(model, method)(X, y, **({"classes": WORDS[:2]} if method == "partial_fit" else {}))
    after = model.get_params()
    assert before.keys() == after.keys()
    assert all(after[name] is before[name] for name in before)
    assert after["callbacks"] == [recorder, stopper]
    assert stopper.get_params() == of_stopper  # though it has learned its best epoch
    assert after["class_weight"] == of_weights
    assert Recorder.events[0] == "train_begin"


# History


def test_history_has_a_row_an_epoch(classifier: partial) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(max_epochs=4, batch_size=12, warmup_fraction=0.0, learning_rate=1e-3)
    history = model.fit(X, y).history_
    keys = {"epoch", "train_loss", "learning_rate", "seconds"}
    assert [set(row) for row in history] == [keys] * 4
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    assert all(type(row[key]) is float for row in history for key in keys - {"epoch"})
    # One step an epoch, of a learning rate that falls linearly.
    rates = [row["learning_rate"] for row in history]
    np.testing.assert_allclose(rates, [1e-3, 7.5e-4, 5e-4, 2.5e-4])
    assert all(row["seconds"] > 0 for row in history)
    assert model.n_iter_ == 4


@pytest.mark.parametrize("weights", [None, np.linspace(1, 5, 12)])
def test_train_loss_is_the_mean_over_texts(
    classifier: partial, toy: tuple[list[str], list[str]], weights: np.ndarray | None
) -> None:
    X, y = toy
    model = classifier(**FAST_LEARNER, head_init="random", dropout=0.0, warm_start=True)
    model.set_params(batch_size=5).fit(X[:6], y[:6])
    # Batches of 5, 5 and 2 texts of unequal length: neither the mean of batch means nor a mean
    # over chunks is the mean over texts.
    model.set_params(learning_rate=STILL, max_epochs=1).fit(X, y, sample_weight=weights)
    expected = log_loss(y, model.predict_proba(X), sample_weight=weights)
    np.testing.assert_allclose(model.history_[0]["train_loss"], expected, rtol=1e-5)


def test_validation_texts_are_scored_after_each_epoch(
    classifier: partial, toy: tuple[list[str], list[str]]
) -> None:
    X, y = toy
    model = classifier(max_epochs=3, learning_rate=1e-2).fit(X[:7], y[:7], X_val=X[7:], y_val=y[7:])
    assert all({"valid_loss", "valid_score"} <= set(row) for row in model.history_)
    last = model.history_[-1]
    assert last["valid_score"] == model.score(X[7:], y[7:])
    expected = log_loss(y[7:], model.predict_proba(X[7:]), labels=model.classes_)
    np.testing.assert_allclose(last["valid_loss"], expected, rtol=1e-5, atol=1e-7)
    # They are read, not learned from.
    assert difference(model, classifier(max_epochs=3, learning_rate=1e-2).fit(X[:7], y[:7])) == 0


# Early stopping


class Script:
    """A scoring that returns given numbers, after a trial, and keeps what it was called with."""

    def __init__(self, *scores: float) -> None:
        self.scores = iter((0.0, *scores))
        self.targets: list[np.ndarray] = []

    def __call__(self, estimator: Any, X: list[str], y: np.ndarray) -> float:
        self.targets.append(y)
        return next(self.scores)


SCRIPTS = {
    # scores, n_iter_no_change, tol: best epoch, epochs run
    "stops after more than n_iter_no_change": ((0.5, 0.7, 0.6, 0.6, 0.6, 0.9), 2, 1e-4, 2, 5),
    "patience of one": ((0.5, 0.4, 0.4, 0.9, 0.9, 0.9), 1, 1e-4, 1, 3),
    "a gain starts the count anew": ((0.1, 0.1, 0.1, 0.2, 0.2, 0.3), 2, 1e-4, 6, 6),
    "gains below tol do not count": ((0.50, 0.51, 0.52, 0.53, 0.9, 0.9), 2, 0.1, 4, 4),
    "gains of tol count, as in MLPClassifier": ((0.0, 0.25, 0.5, 0.75, 1.0, 1.0), 1, 0.25, 5, 6),
    "equal scores are gains of a tol of 0": ((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), 1, 0.0, 1, 6),
    "a gain of tol is over the best score": ((0.5, 0.25, 0.5, 0.5, 0.9, 0.9), 1, 0.25, 1, 3),
}


@pytest.mark.parametrize("held_out", ["fraction", "given"])
@pytest.mark.parametrize(
    ("scores", "n_iter_no_change", "tol", "best", "n_iter"), SCRIPTS.values(), ids=SCRIPTS.keys()
)
def test_early_stopping_keeps_the_best_epochs_weights(
    classifier: partial,
    recorder: Recorder,
    held_out: str,
    scores: tuple[float, ...],
    n_iter_no_change: int,
    tol: float,
    best: int,
    n_iter: int,
) -> None:
    script = Script(*scores)
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(
        max_epochs=6,
        learning_rate=1e-3,
        early_stopping=True,
        scoring=script,
        validation_fraction=1 / 3,
        n_iter_no_change=n_iter_no_change,
        tol=tol,
        callbacks=[recorder],
    )
    model.fit(X, y, **({"X_val": X[:5], "y_val": y[:5]} if held_out == "given" else {}))
    assert model.n_iter_ == len(model.history_) == n_iter
    assert model.best_epoch_ == best
    assert [row["valid_score"] for row in model.history_] == list(scores[:n_iter])
    assert difference(model, Recorder.weights[best - 1]) == 0
    others = [weights for i, weights in enumerate(Recorder.weights) if i != best - 1]
    assert all(difference(model, weights) > 0 for weights in others)
    assert Recorder.events[-1] == "train_end"
    targets = script.targets[0]
    if held_out == "given":
        np.testing.assert_array_equal(targets, y[:5])
    else:  # a third of the texts, stratified
        assert sorted(targets.tolist()) == [0, 0, 1, 1]
    # Texts that are held out are not learned from; those given come on top.
    n_batches = Recorder.events.count("batch_end") / Recorder.events.count("epoch_begin")
    assert n_batches == (3 if held_out == "given" else 2)


def test_held_out_texts_are_drawn_by_random_state(classifier: partial) -> None:
    X, y = make_texts(3, 30), np.arange(30) % 3
    drawn = []
    for seed in (0, 0, 1):
        script = Script(0.5)
        model = classifier(early_stopping=True, scoring=script, random_state=seed)
        model.set_params(validation_fraction=0.3).fit(X, y)
        drawn.append(script.targets[0].tolist())
    assert drawn[0] == drawn[1] != drawn[2]
    assert np.bincount(drawn[0]).tolist() == [3, 3, 3]


def test_without_early_stopping_the_last_weights_are_kept(
    classifier: partial, recorder: Recorder
) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(max_epochs=3, n_iter_no_change=1, callbacks=[recorder])
    model.set_params(scoring=Script(0.9, 0.1, 0.1)).fit(X, y, X_val=X, y_val=y)
    assert model.n_iter_ == model.best_epoch_ == 3
    assert difference(model, Recorder.weights[-1]) == 0


@pytest.mark.parametrize("make", ["classifier", "regressor"])
@pytest.mark.parametrize("given", ["X_val", "y_val"])
def test_validation_needs_both_parts(make: str, given: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(make)()
    X, y = make_texts(2), np.arange(12) % 2
    with pytest.raises(ValueError, match=f"{given} was passed without .*_val: pass both or none"):
        model.fit(X, y, **{given: X if given == "X_val" else y})


# partial_fit


def test_partial_fit_goes_on_from_the_weights(classifier: partial, recorder: Recorder) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    model = classifier(learning_rate=1e-3, callbacks=[recorder])
    model.partial_fit(X[:6], y[:6], classes=["bad", "good"])
    first_net = model.net_
    model.partial_fit(X[6:], y[6:]).partial_fit(X[:4], y[:4], classes=["bad", "good"])
    assert model.net_ is first_net
    for before, after in zip(Recorder.weights, Recorder.first_weights[1:], strict=False):
        assert difference(before, after) == 0
    assert difference(Recorder.weights[0], Recorder.weights[1]) > 0
    assert [row["epoch"] for row in model.history_] == [1, 2, 3]
    assert [row["learning_rate"] for row in model.history_] == [1e-3] * 3
    assert model.n_iter_ == model.best_epoch_ == 3
    assert len(model.n_chunks_) == 4


def test_partial_fit_learns(classifier: partial) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    model = classifier(learning_rate=1e-2)
    for _ in range(20):
        model.partial_fit(X, y, classes=["bad", "good"])
    assert model.score(X, y) == 1.0
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"] / 2


def test_partial_fit_goes_on_from_fit(classifier: partial, recorder: Recorder) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(max_epochs=3, early_stopping=True, callbacks=[recorder])
    model.set_params(scoring=Script(0.9, 0.1, 0.1)).fit(X, y, X_val=X, y_val=y)
    kept = copy_weights(model.net_)
    assert model.best_epoch_ == 1
    model.set_params(early_stopping=False).partial_fit(X, y)
    assert difference(kept, Recorder.first_weights[1]) == 0
    assert difference(kept, model) > 0
    assert model.n_iter_ == model.best_epoch_ == 4  # the weights are those of the last epoch


def test_partial_fit_of_a_part_with_one_class(classifier: partial) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    model = classifier().partial_fit(X[::2], y[::2], classes=["bad", "good", "sport"])
    assert model.classes_.tolist() == ["bad", "good", "sport"]
    assert model.predict_proba(X).shape == (12, 3)


def test_partial_fit_errors(classifier: partial) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y at index 3 is 'ugly', which is not among .*bad.*good"):
        classifier().partial_fit(X[:4], ["bad", "good", "bad", "ugly"], classes=["bad", "good"])
    model = classifier().partial_fit(X, y, classes=["bad", "good"])
    with pytest.raises(ValueError, match="not the same as on last call to partial_fit"):
        model.partial_fit(X, y, classes=["bad", "gud"])
    with pytest.raises(ValueError, match=r"y at index 1 is 'gud'"):
        model.partial_fit(X[:2], ["bad", "gud"])
    with pytest.raises(ValueError, match="does not support early_stopping=True: set it to False"):
        classifier(early_stopping=True).partial_fit(X, y, classes=["bad", "good"])
    with pytest.raises(ValueError, match="as a dict"):
        classifier(class_weight="balanced").partial_fit(X, y, classes=["bad", "good"])


def test_regressor_partial_fit_keeps_the_first_parts_unit(regressor: partial) -> None:
    X, y = make_texts(2), 1000 + 100.0 * (np.arange(12) % 2)
    model = regressor(learning_rate=1e-2)
    for _ in range(20):
        model.partial_fit(X, y)
    assert model.score(X, y) > 0.7
    before = model.predict(X)
    model.learning_rate = STILL  # of no effect: the optimizer is that of the first call
    model.partial_fit(X[:1], [1e6])
    assert np.abs(model.predict(X) - before).max() < 1e5


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_training_goes_on_alike_after_unpickling(make: str, request: pytest.FixtureRequest) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = request.getfixturevalue(make)(dropout=0.3, warm_start=True).fit(X, y)
    stored = pickle.dumps(model)
    for train in (
        lambda estimator: estimator.partial_fit(X, y).partial_fit(X, y),
        lambda estimator: estimator.fit(X, y),
    ):
        assert difference(train(model), train(pickle.loads(stored))) == 0
        assert model.history_[-1]["train_loss"] < np.inf
        model = pickle.loads(stored)


# warm_start


def test_warm_start_goes_on_from_the_weights(classifier: partial, recorder: Recorder) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(warm_start=True, callbacks=[recorder]).fit(X, y).fit(X, y)
    assert difference(Recorder.weights[0], Recorder.first_weights[1]) == 0
    assert difference(Recorder.weights[0], Recorder.weights[1]) > 0
    assert model.n_iter_ == 1  # of this fit
    model.set_params(warm_start=False).fit(X, y)
    assert difference(Recorder.first_weights[0], Recorder.first_weights[2]) == 0


def test_warm_start_takes_new_parameters(classifier: partial) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(**FAST_LEARNER, warm_start=True).fit(X, y)
    of_mean = model.decision_function(X)
    model.set_params(pooling="max", learning_rate=STILL, dropout=0.4, max_epochs=1).fit(X, y)
    assert model.net_.module_.pooling == "max"
    assert model.net_.module_.dropout.p == 0.4
    assert model.net_.module_.encoder.config.hidden_dropout_prob == 0.4
    assert np.abs(model.decision_function(X) - of_mean).max() > 1e-4
    model.set_params(pooling="mean").fit(X, y)
    np.testing.assert_array_equal(model.decision_function(X), of_mean)
    model.set_params(chunk_size=32).fit(X, y)
    assert model.chunker_.chunk_size_ == 32
    assert np.abs(model.decision_function(X) - of_mean).max() > 1e-4


def test_warm_start_errors(classifier: partial, tmp_path: Path) -> None:
    X, y = make_texts(2), np.array(WORDS)[np.arange(12) % 2]
    model = classifier(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"same classes as the last fit.*set warm_start=False"):
        model.fit(X, ["bad", "ugly"] * 6)
    with pytest.raises(ValueError, match="same classes"):
        model.fit(make_texts(3), np.array(WORDS)[np.arange(12) % 3])
    assert model.predict(X[:1])[0] in WORDS  # what was learned is still there
    for changed in ({"layers": "spread"}, {"token_pooling": "mean_max"}):
        with pytest.raises(ValueError, match=r"embeddings of size 16, .* the size (32|48)"):
            clone(model).fit(X, y).set_params(**changed).fit(X, y)
    other = save_tiny_encoder("bert", tmp_path)
    with pytest.raises(ValueError, match=r"now model_name=.*set warm_start=False"):
        model.set_params(model_name=str(other)).fit(X, y)


# Callbacks


def test_callbacks_run_inside_the_fit(classifier: partial, recorder: Recorder) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    classifier(max_epochs=2, callbacks=[("mine", recorder)]).fit(X, y)
    epoch = ["epoch_begin", *["batch_end"] * 3, "epoch_end"]
    assert Recorder.events == ["train_begin", *epoch, *epoch, "train_end"]


def test_a_fit_uses_the_callbacks_that_the_user_passed(classifier: partial) -> None:
    class Holder(Callback):
        def __init__(self, seen: list[int]) -> None:
            self.seen = seen

        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            self.seen.append(len(net.history))

    X, y, seen = make_texts(2), np.arange(12) % 2, []
    model = classifier(max_epochs=2, callbacks=[Holder(seen)]).fit(X, y)
    assert seen == [1, 2]
    model.partial_fit(X, y)
    assert seen == [1, 2, 3]
    clone(model).fit(X, y)
    assert seen == [1, 2, 3, 1, 2]  # a clone has the same callbacks


@pytest.mark.parametrize("scheduler", [LRScheduler, LRScheduler(), ("mine", LRScheduler())])
def test_a_schedule_that_would_be_overwritten_is_refused(
    classifier: partial, scheduler: Any
) -> None:
    model = classifier(callbacks=[scheduler])
    with pytest.raises(ValueError, match=r"callbacks at index 0 .*warmup_fraction instead"):
        model.fit(make_texts(2), [0, 1] * 6)


def test_skorchs_early_stopping_stops_without_an_interrupt(
    classifier: partial, recorder: Recorder
) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    stopper = EarlyStopping(monitor="train_loss", patience=2, threshold=1e9, threshold_mode="abs")
    model = classifier(max_epochs=9, callbacks=[stopper, recorder]).fit(X, y)
    assert model.n_iter_ == 3  # the first is a gain over infinity
    assert Recorder.events[-1] == "train_end"
    assert model.predict(X).shape == (12,)


@pytest.mark.parametrize("also", [[], [EarlyStopping(monitor="train_loss", patience=5)]])
def test_the_users_interrupt_is_not_swallowed(classifier: partial, also: list[Any]) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(max_epochs=3, callbacks=[*also, Interrupt(epoch=2)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, y)
    assert not hasattr(model, "net_")
    with pytest.raises(KeyboardInterrupt):
        GridSearchCV(model, {"pooling": ["mean", "max"]}, cv=2, error_score=0.0).fit(X, y)


@pytest.mark.parametrize("verbose", [0, 1])
def test_an_interrupted_partial_fit_can_be_taken_up_again(
    classifier: partial, verbose: int
) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(callbacks=[Interrupt(epoch=2)], verbose=verbose)
    model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X, y)
    for again in (pickle.loads(pickle.dumps(model)), model):
        again.set_params(callbacks=None).partial_fit(X, y)
        assert [row["epoch"] for row in again.history_] == [1, 2]
        assert again.n_iter_ == 2


@pytest.mark.parametrize(
    "parameters",
    [
        {"batch_size": np.int64(4), "max_epochs": np.int32(1), "chunk_size": np.int64(16)},
        {"chunk_overlap": np.int64(2), "max_chunks": np.int64(2), "random_state": np.int64(0)},
        {"learning_rate": np.float32(1e-3), "weight_decay": np.float64(0.1), "tol": np.float32(0)},
        {"dropout": np.float32(0.1), "attention_dropout": np.float64(0.1)},
        {"warmup_fraction": np.float32(0.5), "max_grad_norm": np.float32(1)},
        {"micro_batch_tokens": np.int64(64), "n_iter_no_change": np.int64(1)},
        {"early_stopping": True, "validation_fraction": np.float64(0.25)},
    ],
    ids="-".join,
)
def test_grids_bring_numpy_scalars(classifier: partial, parameters: dict[str, Any]) -> None:
    X, y = make_texts(2), [0, 1] * 6
    plain = {name: np.asarray(value).item() for name, value in parameters.items()}
    assert not any(isinstance(value, np.generic) for value in plain.values())
    expected = classifier(**plain).fit(X, y).decision_function(X)
    model = classifier(**parameters).fit(X, y)
    np.testing.assert_array_equal(model.decision_function(X), expected)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.decision_function(X), expected)


def test_partial_fit_can_be_called_again_after_a_failed_first_call(classifier: partial) -> None:
    X, y = make_texts(2), ["bad", "good"] * 6
    model = classifier()
    with pytest.raises(ValueError, match="not among the classes"):
        model.partial_fit(X, y, classes=["bad", "ok"])
    assert set(model.partial_fit(X, y, classes=["bad", "good"]).predict(X)) <= {"bad", "good"}
    with pytest.raises(ValueError, match=r"classes=\['bad'\] where at least two are needed"):
        classifier().partial_fit(X, ["bad"] * 12, classes=["bad"])


def test_partial_fit_takes_new_training_parameters(classifier: partial) -> None:
    X, y = make_texts(2), [0, 1] * 6
    model = classifier(learning_rate=1e-2).partial_fit(X, y, classes=[0, 1])
    before = copy_weights(model.net_)
    model.set_params(learning_rate=STILL, weight_decay=0.0, batch_size=3).partial_fit(X, y)
    assert difference(before, model) < 1e-20
    assert len(model.net_.history[-1]["batches"]) == 4


def test_a_dropped_estimator_frees_its_weights_at_once(classifier: partial) -> None:
    """Without waiting for the garbage collector, which knows nothing of a GPU's memory."""
    model = classifier().fit(make_texts(2), [0, 1] * 6)
    model.set_params(warm_start=True).fit(make_texts(2), [0, 1] * 6)
    encoder = weakref.ref(model.net_.module_.encoder)
    gc.collect()
    gc.disable()
    try:
        del model
        assert encoder() is None
    finally:
        gc.enable()


def test_class_weight_is_not_in_the_validation_score(classifier: partial) -> None:
    model = classifier(
        early_stopping=True, validation_fraction=0.5, class_weight={0: 1, 1: 100}, max_epochs=2
    ).fit(make_texts(2), [0, 1] * 6)
    for row in model.history_:
        assert row["valid_score"] * 6 == pytest.approx(round(row["valid_score"] * 6))


@pytest.mark.parametrize("fraction", [0.1, 0.99])
def test_too_few_texts_to_hold_out(classifier: partial, fraction: float) -> None:
    model = classifier(early_stopping=True, validation_fraction=fraction)
    with pytest.raises(ValueError, match=r"cannot hold out validation_fraction=.*X_val and y_val"):
        model.fit(make_texts(2)[:10], [0, 1] * 5)


@pytest.mark.parametrize("odd", ["early stopping", ("name", print), object])
def test_callbacks_must_be_skorchs(classifier: partial, odd: Any) -> None:
    model = classifier(callbacks=[Recorder, ("named", Recorder()), odd])
    with pytest.raises(TypeError, match=r"callbacks at index 2 is .* where a skorch callback is"):
        model.fit(make_texts(2), [0, 1] * 6)
    model.set_params(callbacks=model.callbacks[:2]).fit(make_texts(2), [0, 1] * 6)


@pytest.mark.parametrize("weight", [0, -1, np.nan, np.inf])
def test_class_weight_must_be_positive(classifier: partial, weight: float) -> None:
    with pytest.raises(ValueError, match="class_weight must be finite and above 0"):
        classifier(class_weight={0: 1, 1: weight}).fit(make_texts(2), [0, 1] * 6)


def test_numbers_in_an_object_array_are_labels(classifier: partial) -> None:
    model = classifier().fit(make_texts(2), np.array([4, 2] * 6, dtype=object))
    assert model.classes_.tolist() == [2, 4]
    assert model.predict(["good"]).dtype.kind == "i"


@pytest.mark.parametrize("y", [["a", 1] * 6, [True, "a"] * 6, np.array(["a", 1] * 6, dtype=object)])
def test_labels_of_mixed_types_name_the_first_odd_one(classifier: partial, y: Any) -> None:
    with pytest.raises(ValueError, match="y mixes str with other types, first at index 1"):
        classifier().fit(make_texts(2), y)


# Divergence


def test_a_diverged_partial_fit_leaves_an_unfitted_estimator(classifier: partial) -> None:
    X, y = make_texts(2), [0, 1] * 6
    model = classifier().partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match="NaN or infinite in epoch 2"):
        model.set_params(callbacks=[Poison(2)]).partial_fit(X, y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    assert np.isfinite(
        model.set_params(callbacks=None).partial_fit(X, y, classes=[0, 1]).predict_proba(X)
    ).all()


def test_a_failed_refit_leaves_no_half_of_the_last_fit(classifier: partial) -> None:
    X = make_texts(2)
    model = classifier().fit(X, ["a", "b"] * 6)
    with pytest.raises(ValueError, match="NaN or infinite"):
        model.set_params(callbacks=[Poison(1)]).fit(X, ["c", "d"] * 6)
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_a_huge_learning_rate_is_reported(make: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(make)(learning_rate=1e10, max_epochs=3, max_grad_norm=None)
    message = r"NaN or infinite in epoch \d: lower learning_rate .*1e\+10.*max_grad_norm=1.0"
    with pytest.raises(ValueError, match=message):
        model.fit(make_texts(2), np.arange(12) % 2)
    assert not hasattr(model, "net_")


@pytest.mark.parametrize("make", ["classifier", "regressor"])
@pytest.mark.parametrize("batch_size", [4, 12])
@pytest.mark.parametrize("validation", ["none", "scored", "early stopping"])
@pytest.mark.parametrize("epoch", [2, 3])
def test_a_nan_is_reported_wherever_it_first_shows(
    make: str, batch_size: int, validation: str, epoch: int, request: pytest.FixtureRequest
) -> None:
    # In the loss of the next batch, in validation, or, in the last batch of all, in the weights.
    X, y = make_texts(2), np.arange(12) % 2
    model = request.getfixturevalue(make)(
        max_epochs=3,
        batch_size=batch_size,
        callbacks=[Poison(epoch)],
        early_stopping=validation == "early stopping",
        n_iter_no_change=9,
    )
    seen = epoch + (batch_size == 12 and validation == "none" and epoch < 3)
    message = f"became NaN or infinite in epoch {seen}: lower learning_rate"
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, **({} if validation == "none" else {"X_val": X, "y_val": y}))


# Regressor


@pytest.mark.parametrize("y", [1.7e9 + np.arange(8.0), 2e7 + np.arange(8.0), np.arange(8) * 1e-3])
def test_predictions_are_not_rounded_to_float32(regressor: partial, y: np.ndarray) -> None:
    """What the history says of the coefficient of determination holds outside, too."""
    X = make_texts(2)[:8]
    model = regressor(**FAST_LEARNER).fit(X, y, X_val=X, y_val=y)
    assert r2_score(y, model.predict(X)) == pytest.approx(
        model.history_[-1]["valid_score"], abs=1e-5
    )
    (explanation,) = model.explain(X[:1])
    np.testing.assert_allclose(explanation.logits, model.predict(X[:1]), rtol=1e-12)
    total = explanation.base_value + explanation.contributions.sum()
    np.testing.assert_allclose(total, model.predict(X[:1]), rtol=1e-9, atol=1e-6 * y.std())


def test_regressor_predicts_in_the_callers_unit(regressor: partial) -> None:
    X, standard = make_texts(3), np.tile([-1.0, 0.0, 1.0], 4)
    y = 1000 + 50 * standard
    model = regressor(**FAST_LEARNER).fit(X, y)
    predicted = model.predict(X)
    assert predicted.dtype == np.float64
    assert predicted.shape == (12,)
    assert model.score(X, y) == r2_score(y, predicted) > 0.8
    # The unit changes nothing that is learned.
    of_standard = regressor(**FAST_LEARNER).fit(X, standard)
    np.testing.assert_allclose(predicted, 1000 + 50 * of_standard.predict(X), rtol=1e-5)
    losses = [[row["train_loss"] for row in one.history_] for one in (model, of_standard)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_regressor_weights_count_in_the_loss_and_its_unit(regressor: partial) -> None:
    X, y, weights = make_texts(2), 1000 + 50.0 * (np.arange(12) % 2), np.linspace(1, 9, 12)
    model = regressor(learning_rate=STILL, dropout=0.0).fit(X, y, sample_weight=weights)
    spread = np.sqrt(np.cov(y, aweights=weights, ddof=0))
    squares = ((model.predict(X) - y) / spread) ** 2
    by_hand = np.average(squares, weights=weights)
    np.testing.assert_allclose(model.history_[0]["train_loss"], by_hand, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 7, -1e6])
def test_regressor_of_constant_targets(regressor: partial, value: float) -> None:
    X = make_texts(2)
    model = regressor(**FAST_LEARNER).fit(X, [value] * 12)
    np.testing.assert_allclose(model.predict(X), value, atol=0.2)


def test_regressor_early_stopping_needs_two_held_out_texts(regressor: partial) -> None:
    X, y = make_texts(2), np.arange(12.0)
    message = "at least two held-out texts, got one: raise validation_fraction"
    with pytest.raises(ValueError, match=message):
        regressor(early_stopping=True, validation_fraction=0.05).fit(X, y)
    with pytest.raises(ValueError, match=message):
        regressor().fit(X, y, X_val=X[:1], y_val=y[:1])


def test_regressor_early_stopping_scores_the_held_out_texts(regressor: partial) -> None:
    X, y = make_texts(2, 20), 1000 + 50.0 * (np.arange(20) % 2)
    model = regressor(max_epochs=6, learning_rate=1e-2, early_stopping=True, n_iter_no_change=9)
    model.fit(X, y, X_val=X[:8], y_val=y[:8])
    scores = [row["valid_score"] for row in model.history_]
    assert model.best_epoch_ == 1 + int(np.argmax(scores))
    np.testing.assert_allclose(model.score(X[:8], y[:8]), max(scores), rtol=1e-5)


# Progress


def n_bars(err: str, name: str) -> int:
    """Count the bars that were drawn: each ends its line once."""
    return sum(f"{name}: " in line for line in err.split("\n"))


def test_verbose_shows_one_bar_a_fit(
    classifier: partial, capfd: pytest.CaptureFixture[str]
) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(max_epochs=2, verbose=1).fit(X, y, X_val=X, y_val=y)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == n_bars(err, "fit") == 1
    assert "6/6" in err  # all steps of both epochs
    model.predict(X[:4])
    assert capfd.readouterr() == ("", "")  # a short one
    n_chunks = sum(document.n_chunks for document in model.chunker_.transform(list(set(X))))
    model.set_params(micro_batch_tokens=1).predict(X)
    err = capfd.readouterr().err
    assert err.count("\n") == n_bars(err, "predict") == 1
    assert f"{n_chunks}/{n_chunks}" in err


def test_verbose_shows_one_bar_a_partial_fit(
    classifier: partial, capfd: pytest.CaptureFixture[str]
) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    model = classifier(verbose=1)
    for _ in range(3):
        model.partial_fit(X, y, classes=[0, 1])
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == n_bars(err, "fit") == 1
        assert "3/3" in err


@pytest.mark.parametrize("frozen", [False, True])
def test_the_bar_tells_of_what_is_read_before_training(
    classifier: partial, capfd: pytest.CaptureFixture[str], frozen: bool
) -> None:
    X, y = [*make_texts(2, 10), *make_texts(2, 2)], np.arange(12) % 2
    model = classifier(verbose=1, micro_batch_tokens=1, freeze_encoder=frozen).fit(X, y)
    chunks = {c.tobytes() for document in model.chunker_.transform(X) for c in document.chunks()}
    total = len(chunks)
    assert total < sum(model.n_chunks_)  # of a text that is there twice
    err = capfd.readouterr().err
    done = [int(number) for number in re.findall(rf"(\d+) of {total} chunks", err)]
    assert done[: total // 2] == list(range(1, total // 2 + 1))  # a chunk a pass
    assert done[-1] == total
    of_training = [line for line in err.split("\r") if line.startswith("fit: ")]
    assert not any("chunks" in line for line in of_training)


def test_explain_shows_one_bar_for_chunks_and_one_for_sentences(
    classifier: partial, capfd: pytest.CaptureFixture[str]
) -> None:
    X, y = [f"{text}. {text}." for text in make_texts(2)], np.arange(12) % 2
    model = classifier(micro_batch_tokens=1).fit(X, y).set_params(verbose=1)
    model.explain(X)
    err = capfd.readouterr().err
    assert err.count("\n") == n_bars(err, "explain") == 1
    model.explain(X, level="sentence")
    err = capfd.readouterr().err
    assert err.count("\n") == n_bars(err, "explain") == 2
    assert "12/12" in err
    model.set_params(verbose=0).explain(X, level="sentence")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_silent_by_default(
    make: str, request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]
) -> None:
    X, y = make_texts(2, 20), np.arange(20) % 2
    model = request.getfixturevalue(make)(early_stopping=True, validation_fraction=0.2)
    capfd.readouterr()  # saving the tiny encoder is not silent
    model.fit(X, y).predict(X)
    model.set_params(early_stopping=False).partial_fit(X, y)
    pickle.loads(pickle.dumps(model)).predict(X)
    assert capfd.readouterr() == ("", "")


# Chunked documents in the place of texts


@pytest.mark.parametrize("make", ["classifier", "regressor"])
@pytest.mark.parametrize("cut", [{}, {"chunk_overlap": 3, "max_chunks": 2}])
def test_chunked_documents_equal_their_texts(
    make: str, cut: dict[str, int], tiny_bert: str, request: pytest.FixtureRequest
) -> None:
    estimator = request.getfixturevalue(make)
    X, y = make_texts(2), np.arange(12) % 2
    documents = TextChunker(tiny_bert, chunk_size=16, **cut).fit_transform(X)
    of_texts = estimator(**cut).fit(X, y)
    of_documents = estimator(chunk_size=None).fit(documents, y)  # settings of the chunker hold
    alike = estimator(**cut).fit(documents, y)  # or are the same
    assert difference(of_texts, of_documents) == difference(of_texts, alike) == 0
    for model in (of_texts, of_documents):
        for given_ in (X, documents, list(documents)):
            np.testing.assert_array_equal(model.predict(given_), of_texts.predict(X))
    again = of_documents.partial_fit(X, y)
    assert difference(again, of_texts.partial_fit(documents, y)) == 0


def test_validation_texts_may_be_chunked_or_not(classifier: partial, tiny_bert: str) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(X)
    histories = [
        classifier().fit(train, y, X_val=held_out, y_val=y).history_[0]
        for train in (X, documents)
        for held_out in (X, documents)
    ]
    assert len({(row["train_loss"], row["valid_loss"]) for row in histories}) == 1


def test_conflicts_with_chunked_documents(classifier: partial, tiny_bert: str) -> None:
    X, y = make_texts(2), np.arange(12) % 2
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(X)
    coarse = TextChunker(tiny_bert, chunk_size=32).fit_transform(X)
    foreign = TextChunker(chunk_size=16).fit_transform(X)
    with pytest.raises(ValueError, match=r"chunk_size=16, but .*chunk_size=32: set it there"):
        classifier().fit(coarse, y)
    with pytest.raises(ValueError, match=r"max_chunks=1, but .*max_chunks=None"):
        classifier(max_chunks=1).fit(documents, y)
    with pytest.raises(ValueError, match="another tokenizer than the encoder's: give it model_nam"):
        classifier().fit(foreign, y)
    with pytest.raises(ValueError, match="X at index 5 is of type str, but X at index 0 came from"):
        classifier().fit([*documents[:5], *X[5:]], y)
    with pytest.raises(TypeError, match="X at index 5 is of type ChunkedDocument"):
        classifier().fit([*X[:5], *documents[5:]], y)
    with pytest.raises(ValueError, match="X at index 2 was cut by another TextChunker than index"):
        classifier().fit([*documents[:2], *coarse[2:]], y)
    with pytest.raises(ValueError, match="X_val was cut by a TextChunker with other settings"):
        classifier().fit(X, y, X_val=coarse, y_val=y)
    model = classifier().fit(X, y)
    for predicted_with, message in ((coarse, "other settings"), (foreign, "another tokenizer")):
        for name in PREDICTIONS:
            with pytest.raises(ValueError, match=message):
                getattr(model, name)(predicted_with)
        with pytest.raises(ValueError, match=message):
            model.partial_fit(predicted_with, y)


# Errors


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_predicting_before_fit(make: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(make)()
    for name in PREDICTIONS if make == "classifier" else ["predict"]:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(model, name)(["a text"])
    with pytest.raises(NotFittedError):
        model.score(["a text", "another"], [0, 1])


TEXTS = make_texts(2)
LABELLED = np.arange(12) % 2
BAD_CALLS = {
    # what is wrong: parameters, X, y, other arguments of fit, error, message
    "single text": ({}, TEXTS[0], [1], {}, ValueError, r"X is a single str .*in a list, \[X\]"),
    "no texts": ({}, [], [], {}, ValueError, r"Found array with 0 sample\(s\)"),
    "missing text": ({}, [*TEXTS[:3], None], [0, 1, 0, 1], {}, ValueError, "X at index 3 is miss"),
    "number": ({}, [*TEXTS[:2], 5], [0, 1, 0], {}, TypeError, "X at index 2 is of type int"),
    "no y": ({}, TEXTS, None, {}, ValueError, "requires y to be passed"),
    "one class": ({}, TEXTS, ["a"] * 12, {}, ValueError, "y has one class only, 'a'"),
    "one class with weight": (
        {},
        TEXTS,
        LABELLED,
        {"sample_weight": LABELLED},
        ValueError,
        "one class only, 1,",
    ),
    "continuous y": ({}, TEXTS, np.linspace(0, 1, 12), {}, ValueError, "Unknown label type"),
    "missing label": ({}, TEXTS, [None, *"ab" * 5, "a"], {}, ValueError, "None, at index 0"),
    "short y": ({}, TEXTS, LABELLED[:5], {}, ValueError, "X has 12, y has 5: pass one target"),
    "short weights": (
        {},
        TEXTS,
        LABELLED,
        {"sample_weight": [1, 2]},
        ValueError,
        "sample_weight.shape == ",
    ),
    "negative weight": (
        {},
        TEXTS,
        LABELLED,
        {"sample_weight": [-1] + [1] * 11},
        ValueError,
        "Negative values",
    ),
    "no weight": (
        {},
        TEXTS,
        LABELLED,
        {"sample_weight": [0] * 12},
        ValueError,
        "at least one (text needs a weight above 0|non-zero)",  # scikit-learn's own from 1.9 on
    ),
    "bad X_val": (
        {},
        TEXTS,
        LABELLED,
        {"X_val": [TEXTS[0], 3], "y_val": [0, 1]},
        TypeError,
        "X_val at index 1",
    ),
    "short y_val": (
        {},
        TEXTS,
        LABELLED,
        {"X_val": TEXTS, "y_val": [0]},
        ValueError,
        "X_val has 12, y_val has 1: pass one target",
    ),
    "unknown label in y_val": (
        {},
        TEXTS,
        LABELLED,
        {"X_val": TEXTS[:2], "y_val": [1, 7]},
        ValueError,
        "y_val at index 1 is 7",
    ),
    "pooling": ({"pooling": "median"}, TEXTS, LABELLED, {}, ValueError, "'pooling' .*'median'"),
    "token_pooling": ({"token_pooling": 1}, TEXTS, LABELLED, {}, ValueError, "'token_pooling'"),
    "max_epochs": ({"max_epochs": 0}, TEXTS, LABELLED, {}, ValueError, "'max_epochs' .*Got 0"),
    "chunk_size": ({"chunk_size": 0}, TEXTS, LABELLED, {}, ValueError, "'chunk_size' .*Got 0"),
    "class_weight": ({"class_weight": "b"}, TEXTS, LABELLED, {}, ValueError, "'class_weight'"),
    "precision": ({"precision": "half"}, TEXTS, LABELLED, {}, ValueError, "'precision'"),
    "inference": ({"inference": "onnx"}, TEXTS, LABELLED, {}, ValueError, "'inference'"),
}


@pytest.mark.parametrize(
    ("parameters", "X", "y", "more", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS.keys()
)
def test_bad_calls_fail_before_anything_is_loaded(
    classifier: partial,
    monkeypatch: pytest.MonkeyPatch,
    parameters: dict[str, Any],
    X: Any,
    y: Any,
    more: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("loaded")

    for module in (chunker_module, net_factory_module):
        monkeypatch.setattr(module, "find_folder", load)
    with pytest.raises(error, match=message):
        classifier(**parameters).fit(X, y, **more)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"device": "warp"}, "device='warp' cannot be used on this machine"),
        ({"device": "cuda:99"}, "device='cuda:99' cannot be used on this machine .*pass 'auto'"),
        ({"precision": "int8"}, "precision='int8' needs inference='openvino'"),
        ({"chunk_size": 65}, "chunk_size=65 is more than .*pass at most 64"),
        ({"chunk_overlap": 14}, "chunk_overlap must be at most 13"),
    ],
)
def test_bad_settings_fail_before_the_encoder_loads(
    classifier: partial, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], message: str
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(net_factory_module, "load_encoder", load)
    with pytest.raises(ValueError, match=message):
        classifier(**parameters).fit(TEXTS, LABELLED)


@pytest.mark.parametrize("make", ["classifier", "regressor"])
def test_a_typo_in_a_parameter_is_an_error(make: str, request: pytest.FixtureRequest) -> None:
    estimator = request.getfixturevalue(make)
    with pytest.raises(TypeError, match="chunk_sise"):
        estimator(chunk_sise=16)
    with pytest.raises(ValueError, match="Invalid parameter 'poling'"):
        estimator().set_params(poling="max")
    with pytest.raises(TypeError, match="positional"):
        type(estimator())("folder", 16)


def test_column_vector_targets_are_taken_with_a_warning(classifier: partial) -> None:
    with pytest.warns(UserWarning, match="column-vector y was passed"):
        model = classifier().fit(TEXTS, LABELLED.reshape(-1, 1))
    assert model.predict(TEXTS).shape == (12,)


# Which tokens are read


def test_one_chunk_equals_the_truncated_text(
    classifier: partial, toy: tuple[list[str], list[str]]
) -> None:
    X, y = toy
    model = classifier(max_chunks=1).fit(X, y)
    documents = TextChunker(model.model_name, chunk_size=16).fit_transform(X)
    # 14 tokens of the text and two special ones
    truncated = [
        text[: document.spans[13, 1]] if document.n_tokens > 14 else text
        for text, document in zip(X, documents, strict=True)
    ]
    assert sum(map(len, truncated)) < sum(map(len, X)) / 2
    of_truncated = classifier().fit(truncated, y)
    assert of_truncated.n_chunks_.tolist() == [1] * 12
    assert difference(model, of_truncated) == 0
    np.testing.assert_array_equal(model.predict_proba(X), of_truncated.predict_proba(truncated))
    whole = classifier().fit(X, y)
    assert np.abs(whole.predict_proba(X) - model.predict_proba(X)).max() > 1e-5


@pytest.mark.parametrize("token_pooling", ["mean", "max", "mean_max", "cls"])
@pytest.mark.parametrize("layers", ["spread", (0,), (-1, 1)], ids=str)
def test_predictions_are_the_head_of_the_embeddings(
    classifier: partial, layers: Any, token_pooling: str, tiny_bert: str
) -> None:
    """The embeddings are those of the vectorizer; the network is a plain linear head on them."""
    embedding = {"layers": layers, "token_pooling": token_pooling}
    for freeze_encoder in (True, False):
        model = classifier(**embedding, freeze_encoder=freeze_encoder, learning_rate=STILL)
        model.fit(TEXTS, LABELLED)
        vectorizer = LongBertVectorizer(
            tiny_bert, **embedding, chunk_size=16, device="cpu", precision="float32"
        )
        head = model.net_.module_.head
        assert head.in_features == len(vectorizer.fit().get_feature_names_out())
        logits = vectorizer.transform(TEXTS) @ head.weight.detach().numpy().T
        expected = softmax(logits + head.bias.detach().numpy(), axis=1)
        np.testing.assert_allclose(model.predict_proba(TEXTS), expected, rtol=1e-3, atol=1e-5)


def test_token_poolings_differ(classifier: partial) -> None:
    mean, cls = (classifier(token_pooling=name).fit(TEXTS, LABELLED) for name in ("mean", "cls"))
    assert np.abs(mean.predict_proba(TEXTS) - cls.predict_proba(TEXTS)).max() > 1e-4


def test_poolings_agree_on_one_chunk_and_differ_on_several(classifier: partial) -> None:
    model = classifier(**FAST_LEARNER, warm_start=True).fit(TEXTS, LABELLED)
    of_mean = model.decision_function(TEXTS)
    model.set_params(pooling="max", learning_rate=STILL, max_epochs=1).fit(TEXTS, LABELLED)
    of_max = model.decision_function(TEXTS)
    alone = model.n_chunks_ == 1
    assert 0 < alone.sum() < 12
    np.testing.assert_allclose(of_mean[alone], of_max[alone], rtol=1e-5)
    assert (of_mean[~alone] != of_max[~alone]).any()
