"""Pins what held-out texts tell of trained weights, and which of many texts are held out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import log_loss
from skorch.callbacks import Callback
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._targets.folds import join_groups
from sklearn_longbert._targets.linear_models import sigmoid_models, softmax_model, square_models
from sklearn_longbert._targets.targets import Classes, Labels, Numbers
from sklearn_longbert._training import evidence
from sklearn_longbert._training.averaging import SHARES
from sklearn_longbert._training.evidence import least_loss, some_of_many
from sklearn_longbert._training.labelled import Labelled

N = 4000  # rows, beside which the prior of three texts is little


def dataset(y: Any, weights: Any = None) -> DocumentDataset:
    weights = np.ones(len(y)) if weights is None else weights
    documents: Any = list(range(len(y)))
    return DocumentDataset(documents, torch.as_tensor(y), weights)


def two_classes(logit: float, share_right: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Every text gets the same logits; so many of them are right."""
    y = (np.arange(N) >= share_right * N).astype(np.int64)
    return np.tile([logit, 0.0], (N, 1)), y


def test_a_scale_by_hand() -> None:
    """Three of four are right, so the odds are 3 at best, where the logits say exp(4)."""
    logits, y = two_classes(4.0, 0.75)
    loss, scale = least_loss(logits, dataset(y), softmax_model(2), scalable=True)
    assert scale == pytest.approx(np.log(3) / 4, rel=0.01)
    assert loss == pytest.approx(-(0.75 * np.log(0.75) + 0.25 * np.log(0.25)), rel=1e-3)
    whole, one = least_loss(logits, dataset(y), softmax_model(2), scalable=False)
    assert one == 1.0
    assert whole == pytest.approx(log_loss(y, softmax(logits, axis=1)), rel=1e-9)


def test_logits_never_grow() -> None:
    """Nine of ten are right, where the logits say one of two and a bit."""
    logits, y = two_classes(0.1, 0.9)
    assert least_loss(logits, dataset(y), softmax_model(2), scalable=True)[1] == 1.0


def test_a_few_texts_hardly_count() -> None:
    """One wrong of three would have the scale ln(2) / 4 = .17."""
    logits, y = np.tile([4.0, 0.0], (3, 1)), np.array([0, 0, 1])
    scale = least_loss(logits, dataset(y), softmax_model(2), scalable=True)[1]
    assert 0.3 < scale < 0.9


def test_weights_are_copies() -> None:
    rng = np.random.default_rng(0)
    logits, k = rng.normal(size=(8, 3)) * 5, np.arange(8) + 1
    y = np.where(np.arange(8) % 3 > 0, logits.argmax(axis=1), 0)
    copies = dataset(np.repeat(y, k))
    copies.documents = np.repeat(np.arange(8), k).tolist()
    weighted = least_loss(logits, dataset(y, k.astype(float)), softmax_model(3), scalable=True)
    copied = least_loss(np.repeat(logits, k, axis=0), copies, softmax_model(3), scalable=True)
    assert weighted == pytest.approx(copied, rel=1e-5)
    assert 0.2 < weighted[1] < 0.9


def test_weights_of_texts_and_of_labels_are_the_same() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(6, 20)) * 5, rng.integers(0, 2, (6, 20))
    of_texts, of_labels = (
        least_loss(logits, dataset(y, np.ones(shape)), sigmoid_models(20), scalable=True)
        for shape in (6, (6, 20))
    )
    assert of_texts == pytest.approx(of_labels, rel=1e-6)
    assert of_texts[1] < 0.9


def test_infinite_logits_have_no_finite_loss() -> None:
    logits = np.array([[np.inf, 0.0], [1.0, 0.0]])
    loss, scale = least_loss(logits, dataset(np.array([0, 1])), softmax_model(2), scalable=True)
    assert not np.isfinite(loss)
    assert scale == 1.0


def test_numbers_and_labels() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=N)
    logits = 2 * y[:, None] + rng.normal(size=(N, 1))
    scale = least_loss(logits, dataset(y[:, None]), square_models(1), scalable=True)[1]
    assert scale == pytest.approx((logits[:, 0] @ y) / (logits[:, 0] @ logits[:, 0]), rel=0.01)
    Y = np.column_stack([np.arange(N) % 4 > 0, np.arange(N) % 4 == 0]).astype(np.int64)
    logits = np.tile([4.0, -4.0], (N, 1))
    scale = least_loss(logits, dataset(Y), sigmoid_models(2), scalable=True)[1]
    assert scale == pytest.approx(np.log(3) / 4, rel=0.01)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[Labelled, Any]:
    n = draw(st.integers(1, 120))
    numbers = st.lists(st.integers(0, draw(st.integers(0, 150))), min_size=n, max_size=n)
    texts = [f"text {number}" for number in draw(numbers)]
    groups = np.array(draw(numbers)) if draw(st.booleans()) else None
    kind = draw(st.sampled_from(["classes", "labels", "numbers"]))
    y = np.array(draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)), dtype=np.int64)
    targets: Any = Classes(np.arange(5))
    if kind == "labels":
        y, targets = (y[:, None] == np.arange(3)).astype(np.int64), Labels(np.arange(3))
    if kind == "numbers":
        targets = Numbers(np.array(0.0), np.array(1.0))
    return Labelled(texts, y, np.ones(n), groups), targets


@given(labelled(), st.integers(0, 5))
def test_what_is_held_out(drawn: tuple[Labelled, Any], seed: int) -> None:
    data, targets = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "MOST_WITHOUT", 20)
        patch.setattr(evidence, "MOST_HELD_OUT", 8)
        rows, again = (
            some_of_many(data, targets, np.random.RandomState(seed)).tolist() for _ in range(2)
        )
    assert rows == again == sorted(set(rows))
    for keys in (data.inputs, data.groups):
        if keys is not None:
            held_out = {keys[row] for row in rows}
            assert {row for row, key in enumerate(keys) if key in held_out} == set(rows)
    n_held_out = len({data.inputs[row] for row in rows})
    assert 5 * n_held_out <= len(set(data.inputs))
    if data.groups is None:
        n_units = len(set(data.inputs))
        most = 0 if n_units <= 20 else min(n_units // 10, 8)
        assert n_held_out in range((most + 1) // 2, most + 1) or n_held_out == 0
        if isinstance(targets, Numbers):
            assert n_held_out == most
    columns = data.y.reshape(len(data.y), -1)
    for column in [] if isinstance(targets, Numbers) else columns.T:
        for value in {0, 1} if isinstance(targets, Labels) else set(column.tolist()):
            # a rare class keeps four fifths of its texts and of groups, which equal texts join
            for keys in (data.inputs, join_groups(data.inputs, data.groups)):
                whole = {keys[row] for row in np.flatnonzero(column == value)}
                lost = {keys[row] for row in rows if column[row] == value}
                is_rare = (column == value).mean() < 0.5 or isinstance(targets, Classes)
                assert 5 * len(lost) <= len(whole) or not is_rare


def test_weights_and_copies_hold_out_the_same() -> None:
    rng = np.random.default_rng(0)
    y, k = rng.integers(0, 50, 2500), rng.integers(1, 6, 2500)
    texts = [str(i) for i in range(2500)]
    copies = np.repeat(np.arange(2500), k)
    for seed in range(5):
        once, repeated = (
            some_of_many(data, Classes(np.arange(50)), np.random.RandomState(seed))
            for data in (
                Labelled(texts, y, np.ones(2500)),
                Labelled([texts[i] for i in copies], y[copies], np.ones(len(copies))),
            )
        )
        assert len(once) == 250
        assert set(copies[repeated].tolist()) == set(once.tolist())


def test_a_group_of_half_the_texts_trains() -> None:
    groups = np.r_[np.zeros(3000, dtype=int), 1 + np.arange(3000)]
    texts, y = [str(i) for i in range(6000)], np.arange(6000.0)
    numbers = Numbers(np.array(0.0), np.array(1.0))
    for seed in range(40):
        data = Labelled(texts, y, np.ones(6000), groups)
        assert len(some_of_many(data, numbers, np.random.RandomState(seed))) == 300


def test_rare_values_of_labels_train() -> None:
    y = np.ones((2500, 2), dtype=np.int64)
    y[3:5, 0], y[3:, 1] = 0, 0
    data = Labelled([str(i) for i in range(2500)], y, np.ones(2500))
    for seed in range(40):
        rows = some_of_many(data, Labels(np.arange(2)), np.random.RandomState(seed))
        assert len(rows) == 250
        assert rows.min() > 4


def test_a_class_of_two_groups_keeps_both() -> None:
    y = np.r_[np.zeros(20, dtype=int), np.ones(2500, dtype=int)]
    groups = np.r_[np.zeros(16, dtype=int), np.ones(4, dtype=int), 2 + np.arange(2500)]
    data = Labelled([str(i) for i in range(2520)], y, np.ones(2520), groups)
    for seed in range(40):
        rows = some_of_many(data, Classes(np.arange(2)), np.random.RandomState(seed))
        assert len(rows) == 250
        assert rows.min() >= 20


def test_few_that_may_be_held_out_judge_nothing() -> None:
    """830 classes of three texts and one of ten, of which two could be held out."""
    y = np.r_[np.repeat(np.arange(830), 3), np.full(10, 830)]
    data = Labelled([str(i) for i in range(2500)], y, np.ones(2500))
    rows = some_of_many(data, Classes(np.arange(831)), np.random.RandomState(0))
    assert len(rows) == 0


def test_a_tenth_of_many_and_500_of_very_many() -> None:
    for n, n_held_out in [(500, 0), (501, 50), (2000, 200), (5000, 500), (20_000, 500)]:
        data = Labelled([str(i) for i in range(n)], np.arange(n) % 5, np.ones(n))
        rows = some_of_many(data, Classes(np.arange(5)), np.random.RandomState(0))
        assert len(rows) == n_held_out
        assert np.bincount(data.y[rows], minlength=5).min() >= n_held_out / 8


WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "story", "time")
RNG = np.random.RandomState(0)
LABELS = np.array(["bad", "good", "sport"] * 20)
TEXTS = [" ".join([*RNG.choice(WORDS, 20), label]) for label in LABELS]
# a fourth of the labels is wrong, so that a training that is sure is wrong
NOISY = np.where(np.arange(60) % 4 == 0, np.roll(LABELS, 1), LABELS)


class Watch(Callback):
    def on_train_begin(self, net: Any, X: Any = None, **_: Any) -> None:
        self.n_texts = len(X)

    def on_train_end(self, net: Any, **_: Any) -> None:
        self.keys = set(net.history[-1])


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOST_WITHOUT", 30)


def settings(**changes: Any) -> dict[str, Any]:
    return {
        **ENCODER_ALONE,
        "chunk_size": 16,
        "precision": "float32",
        "max_epochs": 8,
        "learning_rate": 3e-3,
        "dropout": 0.0,
        "random_state": 0,
        **changes,
    }


@pytest.mark.usefixtures("few")
def test_a_training_that_diverges_is_an_error(tiny_bert: str) -> None:
    given = settings(learning_rate=3e6, max_grad_norm=None, max_epochs=1, batch_size=100)
    with pytest.raises(ValueError, match="held-out texts became NaN or infinite"):
        LongBertClassifier(tiny_bert, **given).fit(TEXTS, LABELS)


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("baseline", [None, "words"])
def test_many_texts_judge_the_training(tiny_bert: str, baseline: Any) -> None:
    """The fit is that of a person who holds the same texts out."""
    watch = Watch()
    model = LongBertClassifier(
        tiny_bert, **settings(baseline=baseline, callbacks=[watch], max_epochs=2)
    ).fit(TEXTS, NOISY)
    y = np.unique(NOISY, return_inverse=True)[1]
    generator = np.random.RandomState(0)
    rows = some_of_many(Labelled(TEXTS, y, np.ones(60)), Classes(np.arange(3)), generator)
    others = np.setdiff1d(np.arange(60), rows)
    assert watch.n_texts == len(others) == 54
    by_hand = LongBertClassifier(
        tiny_bert, **settings(baseline=baseline, random_state=generator, max_epochs=2)
    ).fit(
        [TEXTS[i] for i in others],
        NOISY[others],
        X_val=[TEXTS[i] for i in rows],
        y_val=NOISY[rows],
    )
    np.testing.assert_array_equal(model.predict_proba(TEXTS), by_hand.predict_proba(TEXTS))
    assert model.fine_tuning_share_ == by_hand.fine_tuning_share_ in SHARES
    assert "valid_loss" in by_hand.history_[0]
    assert not any("valid" in key for key in (*model.history_[0], *watch.keys))
    assert len(model.n_chunks_) == 60


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    "changes",
    [
        {"fine_tuning_share": 0.5},
        {"head_init": "random"},
        {"early_stopping": True, "validation_fraction": 0.5},
    ],
)
def test_other_fits_hold_out_nothing_more(tiny_bert: str, changes: dict[str, Any]) -> None:
    watch = Watch()
    model = LongBertClassifier(tiny_bert, **settings(max_epochs=1, callbacks=[watch], **changes))
    model.fit(TEXTS, LABELS)
    assert watch.n_texts == (30 if "early_stopping" in changes else 60)


@pytest.mark.usefixtures("few")
def test_validation_texts_partial_fits_and_warm_starts_hold_out_nothing(tiny_bert: str) -> None:
    watch = Watch()
    model = LongBertClassifier(tiny_bert, **settings(max_epochs=1, callbacks=[watch]))
    model.fit(TEXTS, LABELS, X_val=TEXTS[:5], y_val=LABELS[:5])
    assert watch.n_texts == 60
    model.partial_fit(TEXTS, LABELS)
    assert watch.n_texts == 60
    model.set_params(warm_start=True).fit(TEXTS, LABELS)
    assert watch.n_texts == 60


@pytest.mark.usefixtures("few")
def test_class_weights_are_in_the_loss_that_judges(
    tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    judge = least_loss
    monkeypatch.setattr(
        "sklearn_longbert._training.scored_net.least_loss",
        lambda logits, held_out, *how: (
            seen.append((held_out.targets.numpy(), held_out.weights.numpy()))
            or judge(logits, held_out, *how)
        ),
    )
    weights = {"bad": 1.0, "good": 3.0, "sport": 1.0}
    LongBertClassifier(tiny_bert, **settings(max_epochs=1), class_weight=weights).fit(TEXTS, LABELS)
    targets, of_texts = seen[0]
    np.testing.assert_allclose(of_texts / of_texts.min(), np.where(targets == 1, 3.0, 1.0))


def ending_at(share: float) -> dict[str, float]:
    """Return settings of a fit that ends at a share of the way; at 0, nothing is learned."""
    if share == 0:
        return {"fine_tuning_share": 1.0, "learning_rate": 1e-30}
    return {"fine_tuning_share": share}


@pytest.mark.parametrize(
    ("pooling", "baseline"),
    [("mean", "words"), ("max", None), ("attention", None), ("logsumexp", "words")],
)
def test_logits_are_scaled_by_validation_texts(
    tiny_bert: str, tmp_path: Path, pooling: str, baseline: Any
) -> None:
    """Predictions, explanations and a saved folder have the scaled logits."""
    given = settings(pooling=pooling, baseline=baseline)
    X_val, y_val = TEXTS[::2], np.roll(NOISY[::2], 1)
    model = LongBertClassifier(tiny_bert, **given).fit(TEXTS, NOISY, X_val=X_val, y_val=y_val)
    plain = LongBertClassifier(tiny_bert, **{**given, **ending_at(model.fine_tuning_share_)})
    plain.fit(TEXTS, NOISY)
    found, expected = model.decision_function(X_val), plain.decision_function(X_val)
    scale = (found * expected).sum() / (expected * expected).sum()
    if pooling == "logsumexp":  # a scaled head would not scale its logits
        assert scale == pytest.approx(1.0, rel=1e-6)
    else:
        assert 0.1 <= scale < 0.9
    np.testing.assert_allclose(found, scale * expected, rtol=1e-4, atol=1e-5)
    losses = [log_loss(y_val, m.predict_proba(X_val)) for m in (model, plain)]
    assert losses[0] <= losses[1] + 1e-6
    for text, explanation in zip(TEXTS[:3], model.explain(TEXTS[:3]), strict=True):
        if pooling != "logsumexp":
            total = explanation.contributions.sum(axis=0) + explanation.base_value
            np.testing.assert_allclose(total, model.decision_function([text])[0], atol=1e-5)
    model.save_pretrained(tmp_path)
    twin = LongBertClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(twin.predict_proba(TEXTS), model.predict_proba(TEXTS))


def test_numbers_shrink_towards_their_mean(tiny_bert: str) -> None:
    y = np.arange(60) % 3 * 10.0
    X_val, y_val = TEXTS[::2], np.full(30, 10.0)  # the mean
    given = settings()
    model = LongBertRegressor(tiny_bert, **given).fit(TEXTS, y, X_val=X_val, y_val=y_val)
    plain = LongBertRegressor(tiny_bert, **{**given, **ending_at(model.fine_tuning_share_)})
    plain.fit(TEXTS, y)
    found, expected = model.predict(X_val) - 10.0, plain.predict(X_val) - 10.0
    scale = (found @ expected) / (expected @ expected)
    assert 0.1 <= scale < 0.9
    np.testing.assert_allclose(found, scale * expected, atol=1e-4)
