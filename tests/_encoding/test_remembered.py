"""Pins what is remembered of frozen encoders: a grid encodes each fold once, to the last bit.

Other chunks, weights or settings are never taken for those that are remembered, memory is
bounded, and an encoder that is trained is not remembered at all.
"""

from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.model_selection import GridSearchCV
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._encoding import remembered as remembered_module
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._encoding.remembered import digest, is_worth_it, remembered

X = [f"good news {'film story ' * n}" for n in range(3, 12)]
X += [f"bad sport {'match people ' * n}" for n in range(3, 12)]
Y = np.repeat(["good", "bad"], 9)


@pytest.fixture
def frozen(tiny_bert: str) -> partial:
    settings: dict[str, Any] = {"freeze_encoder": True, "chunk_size": 12, "random_state": 0}
    settings |= {"device": "cpu", "precision": "float32", "max_epochs": 1, "learning_rate": 1e-2}
    return partial(LongBertClassifier, tiny_bert, **ENCODER_ALONE, **settings)


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_module, "FEWEST_CHUNKS", 1)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Record each chunk that an encoder reads."""
    chunks: list[bytes] = []
    encode = LongBertNetwork.encode

    def record(self: Any, micro_batch: Any, seed: int = 0) -> torch.Tensor:
        chunks.extend(chunk.tobytes() for chunk in micro_batch.chunks)
        return encode(self, micro_batch, seed)

    monkeypatch.setattr(LongBertNetwork, "encode", record)
    return chunks


def test_a_grid_encodes_each_fold_once(frozen: partial, read: list[bytes]) -> None:
    one = GridSearchCV(frozen(), {"learning_rate": [1e-2]}, cv=3).fit(X, Y)
    assert one.best_estimator_.n_chunks_.max() > 1
    n_once = len(read)
    assert n_once > 0
    read.clear()
    grid = {"learning_rate": [1e-2, 1e-1], "dropout": [0.0, 0.3]}
    grid = [{name: values} for name, values in grid.items()] + [{"pooling": ["max"]}]
    many = GridSearchCV(frozen(), grid, cv=3, return_train_score=False).fit(X, Y)
    assert read == []
    fresh = many.cv_results_["mean_test_score"]
    remembered_module._remembered.clear()
    again = GridSearchCV(frozen(), grid, cv=3).fit(X, Y)
    assert len(read) == n_once
    np.testing.assert_array_equal(again.cv_results_["mean_test_score"], fresh)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_is_remembered_is_what_would_be_computed(frozen: partial, precision: str) -> None:
    def weights_and_logits() -> list[np.ndarray]:
        model = frozen(precision=precision).fit(X[::2], Y[::2])
        head = model.net_.module_.head.weight.detach().numpy()
        return [head, model.decision_function(X[:5])]

    fresh = weights_and_logits()
    frozen(precision=precision).fit(X, Y).predict(X)  # the same chunks, in other company
    for one, other in zip(weights_and_logits(), fresh, strict=True):
        np.testing.assert_array_equal(one, other)
    remembered_module._remembered.clear()
    for one, other in zip(weights_and_logits(), fresh, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_else_is_taken_for_it(frozen: partial, tiny_encoder: Any) -> None:
    frozen().fit(X, Y)
    n_sets = len(remembered_module._remembered)
    for changes in (
        {"token_pooling": "cls"},
        {"token_pooling": "mean_max"},
        {"token_pooling": "mean_max", "layers": (0, 2)},
        {"token_pooling": "mean_max", "layers": (2, 0)},
        {"precision": "bfloat16"},
        {"chunk_size": 10},
        {"micro_batch_tokens": 24},
        {"model_name": tiny_encoder("distilbert")},
    ):
        frozen().set_params(**changes).fit(X, Y)
        n_sets += 1
        assert len(remembered_module._remembered) == n_sets, changes
    fine_tuned = frozen(freeze_encoder=False).fit(X, Y)
    assert len(remembered_module._remembered) == n_sets
    fine_tuned.set_params(freeze_encoder=True, warm_start=True).fit(X, Y)  # other weights
    assert len(remembered_module._remembered) == n_sets + 1


def test_weights_that_somebody_changes_are_seen(frozen: partial) -> None:
    model, other = frozen().fit(X, Y), frozen().fit(X, Y)
    before = model.decision_function(X)
    with torch.no_grad():
        for weight in model.net_.module_.encoder.parameters():
            weight.mul_(0.5)
    after = model.decision_function(X)
    assert np.abs(after - before).max() > 0.1
    model.decision_function(X[:4])
    np.testing.assert_array_equal(other.decision_function(X), before)
    expected = frozen().fit(X, Y).decision_function(X[:4])
    np.testing.assert_array_equal(other.decision_function(X[:4]), expected)


def test_weights_of_any_layout_have_digests() -> None:
    encoder = torch.nn.Linear(3, 4, dtype=torch.bfloat16)
    encoder.config = transformers.BertConfig()
    plain = remembered_module.encoder_digest(encoder)
    encoder.weight.data = encoder.weight.data.T.contiguous().T
    assert remembered_module.encoder_digest(encoder) == plain
    encoder.float()
    assert remembered_module.encoder_digest(encoder) != plain


@pytest.mark.parametrize(("name", "value"), [("FEWEST_CHUNKS", 1000), ("MOST_BYTES", 1000)])
def test_small_and_large_sets_are_read_anew(
    frozen: partial, name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = frozen().fit(X, Y)
    expected = model.predict_proba(X)
    remembered_module._remembered.clear()
    monkeypatch.setattr(remembered_module, name, value)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-5)
    np.testing.assert_array_equal(frozen().fit(X, Y).predict(X), model.predict(X))
    assert len(remembered_module._remembered) == 0


def test_the_size_of_a_set_counts_all_layers(
    frozen: partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_chunks = frozen().fit(X, Y).n_chunks_.sum()
    monkeypatch.setattr(remembered_module, "_remembered", OrderedDict())
    # room for the last layer's mean of each chunk, as float32, and not for six parts
    monkeypatch.setattr(remembered_module, "MOST_BYTES", 2 * n_chunks * 16 * 4)
    frozen(layers="spread", token_pooling="mean_max").fit(X, Y)
    assert len(remembered_module._remembered) == 0
    frozen().fit(X, Y)
    assert len(remembered_module._remembered) == 1


def test_digests_tell_parts_apart() -> None:
    parts = [(b"ab", b"c"), (b"a", b"bc"), (b"abc",), ("ab", b"c"), (1, 2), (12,), ((1, 2),)]
    assert len({digest(*part) for part in parts}) == len(parts)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_module, "MOST_BYTES", 4000)
    memory: OrderedDict[bytes, torch.Tensor] = remembered_module._remembered
    for key in (b"a", b"b", b"c", b"d", b"a", b"e"):
        remembered(key, lambda: torch.zeros(250))
    assert list(memory) == [b"c", b"d", b"a", b"e"]
    monkeypatch.setattr(remembered_module, "MOST_SETS", 2)
    remembered(b"f", lambda: torch.zeros(1))
    assert list(memory) == [b"e", b"f"]
    assert is_worth_it(1, 2000)
    assert not is_worth_it(1, 2001)
    assert not is_worth_it(0, 0)
