"""Pins where the weights are between the start and the end of training."""

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss
from skorch.callbacks import Callback
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._training import averaging as averaging_module
from sklearn_longbert._training.averaging import SHARES, default_share

STILL = 1e-30  # a learning rate that no float32 weight can feel
FILLERS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "story", "time")
RNG = np.random.RandomState(0)
LABELS = ["bad", "good", "sport"] * 5
TEXTS = [" ".join([*RNG.choice(FILLERS, 20), label]) for label in LABELS]


@pytest.fixture
def fitted(tiny_bert: str) -> Any:
    def fit(
        cls: type = LongBertClassifier,
        y: Any = LABELS,
        *args: Any,
        texts: Any = TEXTS,
        groups: Any = None,
        **changes: Any,
    ) -> Any:
        given = {"max_epochs": 2, "learning_rate": 1e-2, "dropout": 0.0, "random_state": 0}
        estimator = cls(
            tiny_bert, chunk_size=16, precision="float32", **{**ENCODER_ALONE, **given, **changes}
        )
        return estimator.fit(texts, y, *args, groups=groups)

    return fit


def weights_of(estimator: Any) -> dict[str, torch.Tensor]:
    return dict(estimator.net_.module_.named_parameters())


def assert_equal(first: Any, second: Any) -> None:
    pairs = zip(weights_of(first).values(), weights_of(second).values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize(
    ("n_texts", "n_outputs", "share"),
    [
        (50, 1, 0.5),
        (100, 2, 0.5),
        (25, 5, 1 / 11),
        (1000, 20, 0.5),
        (140, 2, 7 / 12),
        (10**7, 20, 0.6),
    ],
)
def test_the_default_share(n_texts: int, n_outputs: int, share: float) -> None:
    assert default_share(n_texts, n_outputs) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("frozen", [False, True])
def test_weights_are_on_the_way(fitted: Any, pooling: str, frozen: bool) -> None:
    fit = partial(fitted, pooling=pooling, freeze_encoder=frozen)
    start = weights_of(fit(learning_rate=STILL, fine_tuning_share=1.0))
    end = weights_of(fit(fine_tuning_share=1.0))
    between = weights_of(fit(fine_tuning_share=0.25))
    for name, weight in between.items():
        torch.testing.assert_close(weight, 0.75 * start[name] + 0.25 * end[name])
    assert any(not torch.equal(start[name], end[name]) for name in between)


@pytest.mark.parametrize("cls", [LongBertClassifier, LongBertRegressor])
def test_a_few_texts_go_a_part_of_the_way(fitted: Any, cls: type) -> None:
    """Fifteen texts, of three classes or of one target."""
    y = LABELS if cls is LongBertClassifier else np.arange(15.0)
    share = 15 / (15 + 150) if cls is LongBertClassifier else 15 / (15 + 50)
    assert_equal(fitted(cls, y), fitted(cls, y, fine_tuning_share=share))


def test_copies_count_once(tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a weight of two is two copies."""
    seen = []
    monkeypatch.setattr(averaging_module, "default_share", lambda n, _: seen.append(n) or 0.5)
    LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1, random_state=0).fit(
        TEXTS * 2, LABELS * 2
    )
    assert seen == [len(set(TEXTS))]


def test_texts_of_a_group_count_once(fitted: Any) -> None:
    texts = [f"{text} {number}" for number in range(4) for text in TEXTS]
    assert fitted(texts=texts, y=LABELS * 4).fine_tuning_share_ == pytest.approx(60 / 210)
    groups = np.arange(60) % 6
    of_groups = fitted(texts=texts, y=LABELS * 4, groups=groups)
    assert of_groups.fine_tuning_share_ == pytest.approx(6 / 156)


def test_a_failed_fit_keeps_no_weights(fitted: Any) -> None:
    class Stop(Callback):
        def on_epoch_end(self, net: Any, **_: Any) -> None:
            self.net = net
            raise ZeroDivisionError

    callback = Stop()
    with pytest.raises(ZeroDivisionError):
        fitted(callbacks=[callback])
    assert callback.net.average.start is None


@pytest.mark.parametrize(("seed", "least"), [(3, 1.0), (1, 0.0)])
def test_validation_texts_choose(seed: int, least: float, fitted: Any, tiny_bert: str) -> None:
    """They may choose the weights before training, too."""
    rng = np.random.RandomState(seed)
    X_val, y_val = [TEXTS[i] for i in range(15)], rng.permutation(LABELS)
    validated = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        chunk_size=16,
        precision="float32",
        max_epochs=2,
        learning_rate=1e-2,
        dropout=0.0,
        random_state=0,
    ).fit(TEXTS, LABELS, X_val=X_val, y_val=y_val)
    before = fitted(fine_tuning_share=1.0, learning_rate=STILL)
    models = [before, *(fitted(fine_tuning_share=share) for share in SHARES[1:])]
    losses = [log_loss(y_val, model.predict_proba(X_val)) for model in models]
    assert len(set(losses)) == len(SHARES)
    chosen = int(np.argmin(losses))
    assert validated.fine_tuning_share_ == SHARES[chosen] == least
    for name, weight in weights_of(models[chosen]).items():  # STILL moves a bias of 0 by 1e-30
        torch.testing.assert_close(weights_of(validated)[name], weight, rtol=0, atol=1e-20)
    assert [model.fine_tuning_share_ for model in models[1:]] == list(SHARES[1:])


def test_other_trainings_go_all_the_way(fitted: Any, tiny_bert: str) -> None:
    assert_equal(fitted(head_init="random"), fitted(head_init="random", fine_tuning_share=1.0))
    first, second = fitted(fine_tuning_share=1.0), fitted(fine_tuning_share=1.0)
    for model, share in [(first, 0.1), (second, 1.0)]:
        model.set_params(warm_start=True, fine_tuning_share=share).fit(TEXTS, LABELS)
    assert_equal(first, second)
    parts = [
        LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, random_state=0, fine_tuning_share=share
        ).partial_fit(TEXTS, LABELS, classes=["bad", "good", "sport"])
        for share in (0.1, 1.0)
    ]
    assert_equal(*parts)
    assert all(model.fine_tuning_share_ == 1.0 for model in (first, second, *parts))


@pytest.mark.parametrize("cls", [LongBertClassifier, LongBertRegressor])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_share_that_a_fit_took(fitted: Any, cls: type, frozen: bool, tmp_path: Path) -> None:
    y = LABELS if cls is LongBertClassifier else np.arange(15.0)
    model = fitted(cls, y, freeze_encoder=frozen)
    share = model.fine_tuning_share_
    assert type(share) is float
    assert 0 < share < 1
    model.save_pretrained(tmp_path)
    for twin in (pickle.loads(pickle.dumps(model)), cls.from_pretrained(tmp_path)):
        assert twin.fine_tuning_share_ == share
        assert twin.partial_fit(TEXTS, y).fine_tuning_share_ == 1.0
    assert not hasattr(clone(model), "fine_tuning_share_")
    assert model.partial_fit(TEXTS, y).fine_tuning_share_ == 1.0
    assert fitted(cls, y, head_init="random").fine_tuning_share_ == 1.0
