"""New weights on embeddings of several parts: no part drowns the others.

The linear model where a head starts has one of the parts alone as its second model.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertVectorizer
from sklearn_longbert._targets import linear_probe
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._training.head_start import _balance

TEXTS = [f"good news {'film story ' * n}" for n in range(3, 9)]
TEXTS += [f"bad sport {'match people ' * n}" for n in range(3, 9)]
LABELS = np.repeat(["good", "bad"], 6)
PARTS = {"layers": (0, 2), "token_pooling": "mean_max"}
STILL = 1e-30  # a learning rate that no float32 weight can feel


@pytest.fixture
def model(tiny_bert: str) -> partial:
    settings: dict[str, Any] = {"chunk_size": 12, "random_state": 0, "precision": "float32"}
    settings |= {"device": "cpu", "max_epochs": 1, "learning_rate": STILL}
    return partial(LongBertClassifier, tiny_bert, **ENCODER_ALONE, **settings)


def test_balance_by_hand() -> None:
    layer = torch.nn.Linear(4, 1)
    torch.nn.init.ones_(layer.weight)
    embeddings = torch.tensor([[1.0, -1.0, 7.0, 0.0], [1.0, 1.0, 0.0, -7.0]])  # sizes 1 and 4.95
    _balance(layer, embeddings, 2)
    whole = np.sqrt((1 + 24.5) / 2)
    expected = [[whole, whole, whole / np.sqrt(24.5), whole / np.sqrt(24.5)]]
    np.testing.assert_allclose(layer.weight.detach(), expected, rtol=1e-6)
    _balance(layer, torch.zeros(2, 4), 2)
    np.testing.assert_allclose(layer.weight.detach(), expected, rtol=1e-6)


def layers_that_are_drawn(network: Any) -> dict[str, torch.nn.Linear]:
    drawn = {"head": network.head}
    if network.attention is not None:
        drawn |= {"value": network.attention.value, "gate": network.attention.gate}
    return drawn


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "attention"])
@pytest.mark.parametrize("way", ["fit", "partial_fit"])
def test_all_parts_have_the_same_say(
    model: partial, tiny_bert: str, pooling: str, way: str, frozen: bool
) -> None:
    """Each random weight times the size of its part has the same distribution for all parts."""
    settings = {**PARTS, "pooling": pooling, "freeze_encoder": frozen, "weight_decay": 0.0}
    new = getattr(model(head_init="random", **settings), way)(
        TEXTS, LABELS, **({"classes": ["bad", "good"]} if way == "partial_fit" else {})
    )
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=12, precision="float32", **PARTS)
    embeddings = torch.from_numpy(vectorizer.fit_transform(TEXTS))
    sizes = embeddings.reshape(len(TEXTS), 4, 16).square().mean((0, 2)).sqrt()
    assert sizes.max() > 1.3 * sizes.min()
    for name, layer in layers_that_are_drawn(new.net_.module_).items():
        # what one part of a random layer adds to the outputs, over the weights drawn
        found = layer.weight.detach().reshape(len(layer.weight), 4, 16) * sizes[:, None]
        spread = found.square().mean((0, 2)).sqrt()
        tolerance = 0.5 if name == "head" else 0.1  # of 32 numbers a part, and of 2048
        np.testing.assert_allclose(spread / spread.mean(), 1, atol=tolerance)


def first_weights(model: Any, **changes: Any) -> torch.Tensor:
    fitted = model(head_init="random", weight_decay=0.0, **changes).fit(TEXTS, LABELS)
    return fitted.net_.module_.head.weight.detach()


def test_factors_are_those_of_the_parts(model: partial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scaled and unscaled first weights differ by one factor a part; alone, a part is unscaled."""
    from sklearn_longbert._training import head_start

    scaled, alone = first_weights(model, **PARTS), first_weights(model)
    monkeypatch.setattr(head_start, "_balance", lambda *args: None)
    unscaled = first_weights(model, **PARTS)
    factors = (scaled / unscaled).reshape(2, 4, 16)
    torch.testing.assert_close(factors, factors[:1, :, :1].expand(2, 4, 16))
    assert factors.max() > 1 > factors.min()
    torch.testing.assert_close(first_weights(model), alone, rtol=0, atol=0)


def test_other_starts_are_left_alone(model: partial) -> None:
    """The linear probe scales parts itself, and later fits go on from the present weights."""
    from_probe = model(**PARTS, weight_decay=0.0, warm_start=True).fit(TEXTS, LABELS)
    before = from_probe.net_.module_.head.weight.detach().clone()
    again = from_probe.set_params(head_init="random").fit(TEXTS, LABELS)
    torch.testing.assert_close(again.net_.module_.head.weight.detach(), before, rtol=0, atol=1e-20)
    expected = model(freeze_encoder=True, **PARTS, max_epochs=1).fit(TEXTS, LABELS)
    assert (expected.predict(TEXTS) == LABELS).all()


@pytest.mark.parametrize(
    ("settings", "of_part"),
    [
        (PARTS, {"layers": "last", "token_pooling": "mean"}),
        ({"layers": (-1, 1), "token_pooling": "max"}, {"layers": "last", "token_pooling": "max"}),
        ({"layers": (0, 1), "token_pooling": "cls"}, {"layers": (1,), "token_pooling": "cls"}),
        ({"token_pooling": "mean_max"}, {"layers": "last", "token_pooling": "mean"}),
        ({"token_pooling": "cls"}, None),
    ],
)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "attention", "max"])
def test_the_second_model_is_of_the_highest_layer(
    model: partial,
    tiny_bert: str,
    monkeypatch: pytest.MonkeyPatch,
    pooling: str,
    frozen: bool,
    settings: dict[str, Any],
    of_part: dict[str, Any] | None,
) -> None:
    given: list[Embeddings] = []
    fit = linear_probe._fit_probe

    def keep(embeddings: Embeddings, *args: Any) -> Any:
        given.append(embeddings)
        return fit(embeddings, *args)

    monkeypatch.setattr(linear_probe, "_fit_probe", keep)
    settings = {"layers": "last", **settings}
    model(pooling=pooling, freeze_encoder=frozen, **settings).fit(TEXTS, LABELS)
    (embeddings,) = given
    if of_part is None:
        assert embeddings.part is None
        return
    assert embeddings.part is not None
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=12, precision="float32", **of_part)
    np.testing.assert_allclose(
        embeddings.columns(embeddings.part).means,
        vectorizer.fit_transform(TEXTS),
        rtol=1e-4,
        atol=1e-5,
    )
