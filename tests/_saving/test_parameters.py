"""Pins that what the check of parameters lets in can be used, saved and loaded.

Relatives of plain values, such as NumPy's, train as the plain ones do. What is loaded has plain
parameters and predicts the same to the last bit. States hold plain values only.
"""

import json
from enum import Enum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ENCODER_ALONE, save_tiny_encoder

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._plain import plain
from sklearn_longbert._saving import estimator as persistence

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9, "good news", "bad"] * 2
LABELS = ["good", "bad"] * 4


class Text(str):
    """A subclass of str."""


class Place:
    """A path-like object that is no path."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        return self.name


class Whole(int):
    """A subclass of int."""


def member(value: str) -> str:
    """Return a member of an enumeration, whose str() is its name."""
    return Enum("Choice", {"MEMBER": value}, type=str).MEMBER  # type: ignore[attr-defined]


def relatives(values: list[Any], kinds: list[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda value, kind: kind(value), st.sampled_from(values), st.sampled_from(kinds)
    )


def whole(*values: int) -> st.SearchStrategy[Any]:
    return relatives(list(values), [int, np.int8, np.uint16, np.int64, Whole])


def real(*values: float) -> st.SearchStrategy[Any]:
    return relatives(list(values), [float, Fraction, np.float16, np.float32, np.longdouble])


def word(*values: str) -> st.SearchStrategy[Any]:
    return relatives(list(values), [str, np.str_, Text, member])


truth = relatives([False, True], [bool, np.bool_])
GENERATORS = [
    np.random.MT19937,
    np.random.PCG64,
    np.random.PCG64DXSM,
    np.random.Philox,
    np.random.SFC64,
]


def parameters(encoder: str) -> dict[str, st.SearchStrategy[Any]]:
    """Return a strategy for each parameter, of a few values that cost little time."""
    places = [str, Text, member, Path, PurePosixPath, Place, lambda name: Place(name.encode())]
    weights = [{Text("good"): Fraction(2)}, {np.str_("bad"): np.float16(3)}, {"bad": Whole(2)}]
    return {
        "model_name": relatives([encoder], places),
        "chunk_size": whole(16, 24),
        "chunk_overlap": whole(0, 3),
        "max_chunks": st.none() | whole(1, 2),
        "chunk_selection": word("head", "tail", "head_tail", "even", "random"),
        "missing": word("error", "empty"),
        "pooling": word("mean", "max", "logsumexp", "attention"),
        "token_pooling": word("auto", "mean", "max", "mean_max", "cls"),
        "layers": word("last", "spread") | st.tuples(whole(0, 1)),
        "head_init": word("linear_probe", "random"),
        "baseline": st.none() | word("words"),
        "fine_tuning_share": word("auto") | real(0.5, 1),
        "freeze_encoder": truth,
        "max_epochs": whole(1, 2),
        "batch_size": whole(4, 100),
        "learning_rate": real(1e-2, 1e-3),
        "weight_decay": real(0, 0.1),
        "warmup_fraction": real(0, 0.5, 1),
        "max_grad_norm": st.none() | real(0.5),
        "dropout": real(0, 0.1),
        "attention_dropout": real(0, 0.1),
        "micro_batch_tokens": word("auto") | whole(32, 100),
        "early_stopping": truth,
        "scoring": st.none() | word("loss", "accuracy"),
        "validation_fraction": real(0.5),
        "n_iter_no_change": whole(1, 100),
        "tol": real(0, 1e-3),
        "warm_start": truth,
        "device": word("auto", "cpu") | st.just(torch.device("cpu")),
        "precision": word("float32"),
        "inference": word("torch"),
        "checkpoint_folder": st.none() | relatives([f"{encoder}-checkpoints"], places),
        "checkpoint_interval": real(0, 600),
        "revision": st.none() | word("main"),
        "local_files_only": truth,
        "random_state": whole(0, 100)
        | st.sampled_from(GENERATORS).map(lambda kind: np.random.RandomState(kind(3))),
        "verbose": st.sampled_from([0, False, np.False_, np.int8(0)]),
        "class_weight": st.none() | word("balanced") | st.sampled_from(weights),
    }


def types_in(value: Any) -> set[type]:
    parts: Any = ()
    if isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple):
        parts = value
    return {type(value)}.union(*map(types_in, parts))


PLAIN_TYPES = {bool, int, float, str, type(None), dict, list, tuple}


def as_drawn(drawn: dict[str, Any]) -> dict[str, Any]:
    """Return plain copies, among them one of a random state that has drawn nothing."""
    copies = plain(drawn)
    if isinstance(copies["random_state"], np.random.RandomState):
        kind = type(copies["random_state"]._bit_generator)
        copies["random_state"] = np.random.RandomState(kind(3))
    return copies


@given(data=st.data())
@settings(max_examples=15)
def test_relatives_of_plain_values(data: st.DataObject, tiny_bert: str) -> None:
    strategies = parameters(tiny_bert)
    assert strategies.keys() == LongBertClassifier._parameter_constraints.keys() - {"callbacks"}
    drawn = data.draw(st.fixed_dictionaries(strategies))
    if isinstance(drawn["random_state"], np.random.RandomState):
        drawn["checkpoint_folder"] = None  # it needs an int
    twin = LongBertClassifier(**as_drawn(drawn)).fit(TEXTS, LABELS)
    estimator = LongBertClassifier(**drawn).fit(TEXTS, LABELS)
    expected = estimator.decision_function(TEXTS)
    np.testing.assert_array_equal(twin.decision_function(TEXTS), expected)
    assert all(getattr(estimator, name) is value for name, value in drawn.items())
    state = estimator.net_.__getstate__()
    assert types_in(state) - {np.ndarray} <= PLAIN_TYPES
    assert types_in(estimator.chunker_.get_params()) <= PLAIN_TYPES | {type(Path())}
    with TemporaryDirectory() as folder:
        estimator.save_pretrained(folder)
        again = LongBertClassifier.from_pretrained(folder)
        saved = json.loads((Path(folder) / "sklearn_longbert.json").read_text())["content"]
    assert all("$scalar" not in str(saved[name]) for name in ("network", "chunker"))
    np.testing.assert_array_equal(again.decision_function(TEXTS), expected)
    for name, value in plain(drawn).items():
        found = getattr(again, name)
        if name == "random_state" and type(value) is not int:
            assert found.randint(1000) == value.randint(1000)
        else:
            assert (found, type(found)) == (value, type(value))
    for model in (estimator, again):
        model.set_params(early_stopping=False, class_weight=None, checkpoint_folder=None)
        model.partial_fit(TEXTS, LABELS)
    np.testing.assert_array_equal(
        again.decision_function(TEXTS), estimator.decision_function(TEXTS)
    )


def test_new_parameters_may_be_relatives(tiny_bert: str, tmp_path: Path) -> None:
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=16, max_epochs=1, dropout=0.25
    )
    estimator.fit(TEXTS, LABELS).save_pretrained(tmp_path)
    again = LongBertClassifier.from_pretrained(
        tmp_path, chunk_size=np.int8(16), dropout=Fraction(1, 4), device=member("cpu")
    )
    assert again.dropout == Fraction(1, 4)
    with pytest.raises(ValueError, match=r"dropout=0\.5, but"):
        LongBertClassifier.from_pretrained(tmp_path, dropout=Fraction(1, 2))


class OwnGenerator(np.random.RandomState):
    """A subclass, which is a RandomState when it is loaded."""


def test_a_subclass_of_random_state(tiny_bert: str, tmp_path: Path) -> None:
    random_state = OwnGenerator(3)
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, max_epochs=1, random_state=random_state
    )
    estimator.fit(TEXTS, LABELS).save_pretrained(tmp_path)
    again = LongBertClassifier.from_pretrained(tmp_path)
    assert again.random_state.randint(1000) == random_state.randint(1000)


FOREIGN: list[dict[str, Any]] = [
    {"auto_map": {"AutoModel": "modeling.Model"}},
    {"n_training_tokens": 10**12},
    {"task_specific_params": {"summary": {"layers": 10**9}}},
    {"quantization_config": None},
]


@pytest.mark.parametrize("settings", FOREIGN, ids=lambda settings: next(iter(settings)))
def test_foreign_settings_of_an_encoder(settings: dict[str, Any], tmp_path: Path) -> None:
    """Loading refuses them, and no architecture has them: they are left out."""
    encoder = save_tiny_encoder("bert", tmp_path / "encoder")
    config = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**config, **settings}))
    estimator = LongBertClassifier(encoder, **ENCODER_ALONE, max_epochs=1).fit(TEXTS, LABELS)
    estimator.save_pretrained(tmp_path / "saved")
    again = LongBertClassifier.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(
        again.decision_function(TEXTS), estimator.decision_function(TEXTS)
    )


# A folder that cannot be loaded


class Spoiled(LongBertClassifier):
    """A subclass that takes another parameter than the one that it hands out."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {**super().get_params(deep), "pooling": ["mean"]}

    def _validate_params(self) -> None:
        if self.pooling == ["mean"]:
            super()._validate_params()


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("fault", ["a parameter", "a file", "a setting", "another baseline"])
def test_what_cannot_be_loaded_replaces_nothing(
    fault: str, tiny_bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cls = Spoiled if fault == "a parameter" else LongBertClassifier
    good = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1).fit(TEXTS, LABELS)
    good.save_pretrained(tmp_path / "saved")
    before = bytes_of(tmp_path / "saved")
    bad = cls(tiny_bert, max_epochs=1).fit(TEXTS, LABELS)
    if fault == "a file":
        monkeypatch.setattr(persistence, "save_tokenizer", lambda _, folder: spoil(folder))
    elif fault == "a setting":
        bad.net_.module_.frozen = "yes"
    elif fault == "another baseline":
        bad.set_params(baseline=None)
    expected = r"could not be saved in .*cannot be loaded again, .*joblib.dump.* is unchanged"
    with pytest.raises(OSError, match=expected):
        bad.save_pretrained(tmp_path / "saved")
    assert bytes_of(tmp_path / "saved") == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def spoil(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
