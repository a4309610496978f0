"""Pins every kind of target: several labels, several numbers, rare classes, weights.

Shapes as scikit-learn's MLPClassifier and MLPRegressor have them; losses by hand; poolings in
training; calibration by scikit-learn's own tools.
"""

import pickle
import warnings
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from scipy.special import expit, log_expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import accuracy_score, log_loss, r2_score, recall_score
from sklearn.model_selection import GridSearchCV, KFold, cross_val_predict
from sklearn.neural_network import MLPClassifier, MLPRegressor

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._training import net as net_module

FILLERS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "story", "time")
STILL = 1e-30


def texts_with(table: np.ndarray, words: tuple[str, ...] = ("good", "bad", "sport")) -> list[str]:
    """Texts of one to several chunks that repeat a word for each label they have."""
    rng = np.random.RandomState(0)
    texts = []
    for row in table:
        n_words = rng.randint(2, 30)
        marks = [word for word, has in zip(words, row, strict=False) if has]
        texts.append(" ".join(rng.permutation([*rng.choice(FILLERS, n_words), *marks * n_words])))
    return texts


TABLE = np.array([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 1]] * 3)
X = texts_with(TABLE)
NUMBERS = np.arange(18.0)[:, None]
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


@pytest.fixture
def classifier(tiny_bert: str) -> partial:
    return partial(LongBertClassifier, tiny_bert, **SETTINGS)


@pytest.fixture
def regressor(tiny_bert: str) -> partial:
    return partial(LongBertRegressor, tiny_bert, **SETTINGS)


# Several labels


@pytest.mark.parametrize("n_labels", [2, 3])
def test_outputs_are_shaped_as_those_of_an_mlp(classifier: partial, n_labels: int) -> None:
    y = TABLE[:, :n_labels]
    model = classifier(max_epochs=30, learning_rate=1e-2).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it does not converge, nor need it
        mlp = MLPClassifier(max_iter=2).fit(NUMBERS, y)
    assert model.classes_.tolist() == mlp._label_binarizer.classes_.tolist()
    for name in ("predict", "predict_proba", "predict_log_proba"):
        ours, theirs = getattr(model, name)(X), getattr(mlp, name)(NUMBERS)
        assert ours.shape == theirs.shape == (18, n_labels)
        assert ours.dtype.kind == theirs.dtype.kind
    logits = model.decision_function(X)
    assert logits.shape == (18, n_labels)
    np.testing.assert_allclose(model.predict_proba(X), expit(logits), rtol=1e-6)
    np.testing.assert_allclose(model.predict_log_proba(X), log_expit(logits), rtol=1e-6)
    np.testing.assert_array_equal(model.predict(X), model.predict_proba(X) > 0.5)
    np.testing.assert_array_equal(model.predict(X), y)
    assert model.score(X, y) == 1.0


@pytest.mark.parametrize(
    "container",
    [np.array, scipy.sparse.csr_array, pd.DataFrame, list, lambda y: y.astype(bool)],
    ids=["array", "sparse", "frame", "list", "bool"],
)
def test_containers_of_indicators(classifier: partial, container: Any) -> None:
    expected = classifier().fit(X, TABLE).predict_proba(X)
    model = classifier().fit(X, container(TABLE))
    np.testing.assert_array_equal(model.predict_proba(X), expected)


def test_loss_is_the_mean_of_binary_cross_entropies(classifier: partial) -> None:
    model = classifier(head_init="random", learning_rate=STILL, dropout=0.0)
    weights = np.linspace(1, 3, 18)
    model.fit(X, TABLE, sample_weight=weights)
    log_p = model.predict_log_proba(X)
    log_q = log_expit(-model.decision_function(X))
    losses = -np.where(TABLE, log_p, log_q).mean(axis=1)
    expected = np.average(losses, weights=weights)
    assert model.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_balanced_labels_are_weighted_one_by_one(classifier: partial) -> None:
    y = TABLE.copy()
    y[3:, 0] = 0  # rare
    y[:, 1] = 1  # always
    settings = {"head_init": "random", "learning_rate": STILL, "dropout": 0.0}
    model = classifier(class_weight="balanced", **settings).fit(X, y)
    losses = -np.where(y, model.predict_log_proba(X), log_expit(-model.decision_function(X)))
    shares = y.mean(axis=0)
    n_classes = np.array([2, 1, 2])  # that a column has, as scikit-learn's forests count them
    weights = 1 / (n_classes * np.where(y, shares, 1 - shares))
    expected = np.average(losses, weights=weights)
    assert model.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)
    by_dict = classifier(class_weight={0: 1.0, 1: 4.0}, **settings).fit(X, y)
    expected = np.average(losses, weights=np.where(y, 4.0, 1.0))
    assert by_dict.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_list_of_class_weights_has_a_dict_for_each_label(classifier: partial) -> None:
    settings = {"head_init": "random", "learning_rate": STILL, "dropout": 0.0}
    of_labels = [{0: 1.0, 1: 4.0}, {1: np.float32(2.0)}, {}]
    model = classifier(class_weight=of_labels, **settings).fit(X, TABLE)
    losses = -np.where(TABLE, model.predict_log_proba(X), log_expit(-model.decision_function(X)))
    weights = np.where(TABLE, [4.0, 2.0, 1.0], 1.0)
    expected = np.average(losses, weights=weights)
    assert model.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


WRONG_WEIGHTS: dict[str, tuple[Any, str]] = {
    "names of columns": (
        {"a": 2.0},
        r"key 'a', which is not among the classes \[0, 1\].*list with",
    ),
    "a number of a column": ({2: 2.0}, r"key 2, which is not among the classes \[0, 1\]"),
    "too few": ([{0: 1.0, 1: 2.0}], r"list of 1 where y has 3 columns"),
    "no dict": (
        [{}, {}, "balanced"],
        r"at index 2 is 'balanced' where a dict with the keys 0 and 1",
    ),
    "zero": ([{}, {}, {1: 0.0}], r"finite and above 0"),
}


@pytest.mark.parametrize(("wrong", "message"), WRONG_WEIGHTS.values(), ids=WRONG_WEIGHTS)
def test_wrong_class_weights_of_labels(classifier: partial, wrong: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=wrong).fit(X, TABLE)


def test_a_list_of_class_weights_needs_several_labels(classifier: partial) -> None:
    with pytest.raises(ValueError, match="class_weight is a list, which is for several labels"):
        classifier(class_weight=[{0: 1.0}, {1: 2.0}]).fit(X, TABLE[:, 0])


def test_early_stopping_and_search_of_several_labels(classifier: partial) -> None:
    model = classifier(max_epochs=3, early_stopping=True, validation_fraction=0.3).fit(X, TABLE)
    assert {"valid_loss", "valid_score"} <= model.history_[0].keys()
    model = classifier(learning_rate=1e-2).fit(X[:12], TABLE[:12], X_val=X[12:], y_val=TABLE[12:])
    expected = accuracy_score(TABLE[12:], model.predict(X[12:]))
    assert model.history_[-1]["valid_score"] == expected
    grid = GridSearchCV(classifier(), {"learning_rate": [1e-3, 1e-2]}, cv=KFold(2))
    assert grid.fit(X, TABLE).predict(X).shape == TABLE.shape
    out_of_fold = cross_val_predict(classifier(), X, TABLE, cv=3, method="predict_proba")
    assert np.shape(out_of_fold) in ((18, 3), (3, 18, 2))


def test_partial_fit_and_warm_start_of_several_labels(classifier: partial) -> None:
    model = classifier(learning_rate=1e-2)
    for _ in range(15):
        model.partial_fit(X, TABLE)
    assert model.score(X, TABLE) > 0.5
    assert model.classes_.tolist() == [0, 1, 2]
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict(X), model.predict(X))
    model.set_params(warm_start=True).fit(X, TABLE)
    with pytest.raises(ValueError, match="warm_start=True needs the same classes"):
        model.fit(X, TABLE[:, :2])
    with pytest.raises(ValueError, match=r"y has shape .* an indicator matrix is expected"):
        twin.partial_fit(X, TABLE[:, 0])
    with pytest.raises(ValueError, match="y has 2 columns where 3"):
        twin.partial_fit(X, TABLE[:, :2])
    single = classifier().fit(X, TABLE[:, 0])
    with pytest.raises(ValueError, match="one label a text is expected"):
        single.partial_fit(X, TABLE)


# Several numbers


def test_several_numbers_in_their_own_units(regressor: partial) -> None:
    y = TABLE[:, :2] * [1.0, 1e6] + [0.0, 5e6]
    model = regressor(max_epochs=30, learning_rate=1e-2).fit(X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlp = MLPRegressor(max_iter=2).fit(NUMBERS, y)
    predicted = model.predict(X)
    assert predicted.shape == mlp.predict(NUMBERS).shape == (18, 2)
    assert predicted.dtype == np.float64
    assert model.score(X, y) == pytest.approx(r2_score(y, predicted))
    assert (r2_score(y, predicted, multioutput="raw_values") > 0.8).all()
    # what one target is scaled by is no business of the other
    smaller = clone(model).fit(X, y * [1.0, 1e-6])
    np.testing.assert_allclose(smaller.predict(X)[:, 0], predicted[:, 0], rtol=1e-4, atol=1e-4)
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.partial_fit(X, y).predict(X).shape, (18, 2))
    with pytest.raises(ValueError, match=r"y has shape \(18,\) where \(18, 2\) is expected"):
        twin.partial_fit(X, y[:, 0])


def test_one_column_is_one_target(regressor: partial) -> None:
    y = TABLE[:, 0].astype(float)
    expected = regressor().fit(X, y).predict(X)
    with pytest.warns(sklearn.exceptions.DataConversionWarning):
        model = regressor().fit(X, y[:, None])
    np.testing.assert_array_equal(model.predict(X), expected)
    assert expected.shape == (18,)


def test_integers_are_classes_to_one_and_numbers_to_the_other(
    classifier: partial, regressor: partial
) -> None:
    stars = TABLE.sum(axis=1) + 1  # 1 to 4
    labels = classifier(max_epochs=30, learning_rate=1e-2).fit(X, stars).predict(X)
    assert labels.dtype.kind == "i"
    assert set(labels) <= {1, 2, 3, 4}
    numbers = regressor(max_epochs=30, learning_rate=1e-2).fit(X, stars).predict(X)
    assert r2_score(stars, numbers) > 0.8


# Rare classes


def test_class_weight_finds_a_rare_class() -> None:
    """Two texts in forty, which nothing but a single word in a text tells apart."""
    rng = np.random.RandomState(0)
    words = ["prices", "shares", "market", "growth", "company", "profit", "budget", "economy"]
    texts = [" ".join(rng.choice(words, 40)) for _ in range(40)]
    y = np.zeros(40, dtype=int)
    y[[3, 20]] = 1
    for index in (3, 20):
        texts[index] += " football" * 2
    fit = partial(
        LongBertClassifier,
        layers="last",
        baseline=None,
        chunk_size=32,
        head_init="random",
        max_epochs=2,
        learning_rate=1e-4,
        precision="float32",
        random_state=0,
    )
    plain = fit().fit(texts, y)
    balanced = fit(class_weight="balanced").fit(texts, y)
    rare = [3, 20]
    assert plain.predict_proba(texts)[rare, 1].max() < 0.5
    assert (
        balanced.predict_proba(texts)[rare, 1].mean() > plain.predict_proba(texts)[rare, 1].mean()
    )
    assert recall_score(y, balanced.predict(texts)) >= recall_score(y, plain.predict(texts))


# Poolings and chunks in training


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp", "attention"])
@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_every_pooling_learns(classifier: partial, pooling: str, freeze_encoder: bool) -> None:
    y = TABLE[:, 0]
    model = classifier(
        pooling=pooling,
        freeze_encoder=freeze_encoder,
        head_init="random",
        max_epochs=40,
        learning_rate=2e-2 if freeze_encoder else 5e-3,
    ).fit(X, y)
    assert model.score(X, y) > (0.7 if freeze_encoder else 0.9)  # tiny and random as it is
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"]
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin.predict_proba(X), model.predict_proba(X))


def test_warm_start_may_change_to_attention_and_back(classifier: partial) -> None:
    y = TABLE[:, 0]
    model = classifier(warm_start=True, learning_rate=1e-2).fit(X, y)
    of_mean = model.decision_function(X)
    model.set_params(pooling="attention", learning_rate=STILL).fit(X, y)
    np.testing.assert_allclose(model.decision_function(X), of_mean, rtol=1e-4, atol=1e-5)
    model.set_params(learning_rate=1e-2).fit(X, y)
    assert model.net_.module_.attention.score.weight.abs().max() > 0
    model.set_params(pooling="mean", learning_rate=STILL).fit(X, y)
    assert model.net_.module_.attention is None


@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_random_chunks_are_drawn_anew_each_epoch(
    classifier: partial, freeze_encoder: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [f"{word} " * 300 for word in ("good", "bad")]
    long = [" ".join(f"{c}" for c in text.split()) + " story time" * 50 for text in long]
    drawn: list[tuple[bytes, ...]] = []
    backward = net_module.LongBertNet._backward

    def record(self: Any, chunks: Any, targets: Any) -> Any:
        drawn.append(chunks._bounds[:, 0].tolist())
        return backward(self, chunks, targets)

    monkeypatch.setattr(net_module.LongBertNet, "_backward", record)
    model = classifier(
        freeze_encoder=freeze_encoder, max_chunks=3, chunk_selection="random", max_epochs=4
    ).fit(long, [0, 1])
    assert len(drawn) == 4
    assert {len(starts) for starts in drawn} == {6}
    assert len({tuple(starts) for starts in drawn}) > 1
    assert model.n_chunks_.tolist() == [3, 3]
    # prediction reads the even ones, always the same
    even = classifier(max_chunks=3, chunk_selection="even", max_epochs=1).fit(long, [0, 1])
    bounds = [d.bounds().tolist() for d in model.chunker_.transform(long)]
    assert bounds == [d.bounds().tolist() for d in even.chunker_.transform(long)]
    np.testing.assert_array_equal(model.predict_proba(long), model.predict_proba(long))


# Calibration


@pytest.mark.parametrize("method", ["sigmoid", "temperature"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_calibration_is_fitted_on_the_documents_logits(
    classifier: partial, method: str, n_classes: int
) -> None:
    y = np.array(["b", "a", "c"])[TABLE[:, : n_classes - 1].sum(axis=1)]
    model = classifier(max_epochs=40, learning_rate=1e-2, dropout=0.0).fit(X[:9], y[:9])
    rng = np.random.RandomState(0)
    noisy = np.where(rng.uniform(size=18) < 0.3, rng.permutation(y), y)  # it is too sure of itself
    calibrated = CalibratedClassifierCV(FrozenEstimator(model), method=method, cv=KFold(2))
    calibrated.fit(X, noisy)
    probabilities = calibrated.predict_proba(X)
    # it computes in float32, and puts that into float64, whose tolerance log_loss then asks for
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    before = log_loss(noisy, model.predict_proba(X), labels=model.classes_)
    assert log_loss(noisy, probabilities, labels=model.classes_) < before
    if method == "temperature":
        # one number divides the logits: so their order stays
        np.testing.assert_array_equal(calibrated.predict(X), model.predict(X))
        logits = model.predict_log_proba(X)
        ratios = np.log(probabilities[:, 1] / probabilities[:, 0]) / (logits[:, 1] - logits[:, 0])
        np.testing.assert_allclose(ratios, ratios[0], rtol=1e-2)


def test_losses_have_a_column_a_label(classifier: partial) -> None:
    net = classifier().fit(X, TABLE).net_
    logits, targets = torch.randn(5, 3), torch.ones(5, 3)
    assert net.document_losses(logits, targets).shape == (5, 3)


# Constant targets and later calls


@pytest.mark.parametrize("constant", [0.1, 1e6 + 0.1])
def test_a_constant_target_is_not_scaled_by_rounding(regressor: partial, constant: float) -> None:
    model = regressor().partial_fit(X[:3], [constant] * 3)
    model.partial_fit(X[3:6], [constant, constant + 1, constant - 1])
    assert model.history_[-1]["train_loss"] < 10
    np.testing.assert_allclose(model.predict(X), constant, rtol=1e-3, atol=3)


def test_columns_of_an_indicator_matrix_keep_the_order_of_their_names(classifier: partial) -> None:
    names = ["sport", "politics", "tech"]
    model = classifier().partial_fit(X, TABLE, classes=names)
    assert model.classes_.tolist() == names
    model.partial_fit(X, TABLE).partial_fit(X, TABLE, classes=names)
    with pytest.raises(ValueError, match=r"differs from that of the first call"):
        model.partial_fit(X, TABLE, classes=sorted(names))
    with pytest.raises(ValueError, match=r"must name each column .* once"):
        classifier().partial_fit(X, TABLE, classes=["sport", "sport", "tech"])
    with pytest.raises(ValueError, match=r"3 columns where 2"):
        classifier().partial_fit(X, TABLE, classes=["sport", "tech"])


def test_partial_fit_weighs_classes(classifier: partial) -> None:
    y = TABLE[:, 0]
    settings = {"head_init": "random", "learning_rate": STILL, "dropout": 0.0}
    model = classifier(class_weight={0: 1.0, 1: 5.0}, **settings)
    model.partial_fit(X, y, classes=[0, 1])
    losses = -model.predict_log_proba(X)[np.arange(18), y]
    expected = np.average(losses, weights=np.where(y == 1, 5.0, 1.0))
    assert model.history_[0]["train_loss"] == pytest.approx(expected, rel=1e-5)


def test_inputs_of_the_head_are_dropped_above_a_frozen_encoder(classifier: partial) -> None:
    settings = {"freeze_encoder": True, "learning_rate": STILL, "max_epochs": 4}
    with_dropout, without = (
        [epoch["train_loss"] for epoch in classifier(dropout=p, **settings).fit(X, TABLE).history_]
        for p in (0.5, 0.0)
    )
    np.testing.assert_allclose(without, without[0], rtol=1e-6)
    assert len(set(with_dropout)) == 4
    assert np.abs(np.diff(with_dropout)).max() > 1e-3
