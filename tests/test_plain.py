"""Pins which plain value a parameter has, and that the check of parameters sees that value."""

from collections.abc import Callable
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, TextChunker
from sklearn_longbert._plain import plain


class Text(str):
    """A subclass of str."""


class Mixed(str, Enum):  # noqa: UP042 (its str() is not its value)
    MEAN = "mean"


class Named(StrEnum):
    MEAN = "mean"


class Number(IntEnum):
    TWO = 2


class Place:
    """A path-like object that is no path."""

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> Any:
        return self.name


PLAIN: list[tuple[Any, Any]] = [
    (np.True_, True),
    (np.int8(3), 3),
    (Number.TWO, 2),
    (np.uint64(2**64 - 1), 2**64 - 1),
    (np.float32(0.1), 0.10000000149011612),
    (np.longdouble(0.25), 0.25),
    (Fraction(1, 10), 0.1),
    (Fraction(10**400), float("inf")),
    (np.str_("mean"), "mean"),
    (Text("mean"), "mean"),
    (Mixed.MEAN, "mean"),
    (Named.MEAN, "mean"),
    (Place("a/b"), Path("a/b")),
    (Place(b"a/b"), Path("a/b")),
    (PurePosixPath("a/b"), Path("a/b")),
    ([np.int64(1), (np.float64(2),)], [1, (2.0,)]),
    ({Named.MEAN: np.float32(2)}, {"mean": 2.0}),
    (None, None),
    (torch.device("cpu"), torch.device("cpu")),
]


def types(value: Any) -> Any:
    if isinstance(value, dict):
        return [(type(key), types(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [types(item) for item in value]
    return type(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    PLAIN,
    ids=[f"{type(value).__name__} {index}" for index, (value, _) in enumerate(PLAIN)],
)
def test_plain_values(value: Any, expected: Any) -> None:
    assert plain(value) == expected
    assert types(plain(value)) == types(expected)


def test_labels_keep_their_type() -> None:
    """Where they are the keys of a dict, as in class_weight."""
    (key,) = plain({np.str_("good"): 1})
    assert type(key) is np.str_


@pytest.mark.parametrize("cls", [LongBertClassifier, LongBertVectorizer, TextChunker])
def test_what_was_passed_is_kept(cls: Callable[..., Any], tiny_bert: str) -> None:
    passed = {"model_name": Place(tiny_bert), "chunk_size": np.int8(16), "revision": Text("x")}
    estimator = cls(**passed)
    estimator.fit(*(() if cls is not LongBertClassifier else (["good", "bad"], [0, 1])))
    assert all(estimator.get_params()[name] is value for name, value in passed.items())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", Fraction(1, 10**400)),
        ("learning_rate", Fraction(10**400)),
        ("max_grad_norm", np.longdouble("1e-4000")),
        ("dropout", 1 - Fraction(1, 10**30)),
    ],
)
def test_a_value_whose_plain_value_is_out_of_range(name: str, value: Any, tiny_bert: str) -> None:
    with pytest.raises(ValueError, match=f"The '{name}' parameter .* Got (0.0|1.0|inf) instead"):
        LongBertClassifier(tiny_bert, **{name: value}).fit(["good", "bad"], [0, 1])
