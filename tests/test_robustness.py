"""Pins that the worst inputs either work or are refused by name.

Texts: every tokenizer cuts each of them into chunks that cover all tokens, and every estimator
makes finite outputs of them. Containers, labels, targets and weights: what cannot be used is a
ValueError or TypeError that names the index. Random calls: what is planted to fail does, with its
index; what is not succeeds, or fails for a reason on a list; an error is always one that this
package or scikit-learn raises on purpose, never one from inside of NumPy, torch or Python.
Numerics: weights at the limits of float64, batches under bfloat16, and bits.
"""

import linecache
import re
import traceback
import warnings
from collections import UserDict, deque
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from tiny import ARCHITECTURES, ENCODER_ALONE

import sklearn_longbert
from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker
from sklearn_longbert._pretrained.devices import select_autocast
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL
from sklearn_longbert._targets.checks import check_weights
from sklearn_longbert._targets.targets import Labels
from sklearn_longbert._texts.documents import ChunkedDocument


def is_multilabel(estimator: Any) -> bool:
    return isinstance(estimator._targets, Labels)


UNKNOWN = ".* of the characters of X are under unknown tokens"
pytestmark = pytest.mark.filterwarnings(f"ignore:{UNKNOWN}:UserWarning")  # the texts are odd
OUR_FOLDER = str(Path(sklearn_longbert.__file__).parent)
SKLEARN_FOLDER = str(Path(sklearn.__file__).parent)


TEXTS = [
    "",
    " \t\r\n\x0b\x0c\x85\u2028",
    "good news",
    "\0\x01\x1b[31m\x7f",
    "\u202eשלום \u2067مرحبا\u2069",
    "e" + "\u0301" * 40,
    "👩‍👩‍👧‍👦🏳️‍🌈" * 3,
    "\ufeff\ufffe\U0010ffff\ue000",
    "[CLS] [SEP] [PAD] [MASK] <s> </s> <pad>",
    "x" * 300,
    "news story " * 60,
    "東京都" * 30,
]


def objects(elements: list[Any]) -> np.ndarray:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def check_numbers(
    outputs: np.ndarray, shape: tuple[int, ...], dtype: type[np.floating] = np.float32
) -> None:
    assert outputs.shape == shape
    assert outputs.dtype == dtype
    assert np.isfinite(outputs).all()


def check_explanation(explanation: Any) -> None:
    """Check that passages follow each other, and that chunks add up to the text."""
    assert (explanation.start <= explanation.end).all()
    assert (explanation.start[1:] >= explanation.end[:-1]).all()
    assert explanation.contributions.shape == (len(explanation), len(explanation.classes))
    assert np.isfinite(explanation.contributions).all()
    if explanation.level == "chunk":
        total = explanation.base_value + explanation.contributions.sum(axis=0)
        size = np.abs(explanation.contributions).max()
        np.testing.assert_allclose(total, explanation.logits, rtol=1e-4, atol=1e-5 * size)


def check_document(document: ChunkedDocument) -> None:
    """Check that chunks cover all tokens, where none are left out, and keep to their size."""
    layout = document.layout
    bounds = document.bounds()
    assert len(bounds) == document.n_chunks >= 1
    assert (bounds[:, 1] - bounds[:, 0] <= layout.body_size).all()
    if document.n_chunks == layout.count_chunks(document.n_tokens):
        assert bounds[0, 0] == 0
        assert bounds[-1, 1] == document.n_tokens
        assert (bounds[1:, 0] <= bounds[:-1, 1]).all()


@pytest.fixture(scope="module")
def fitted(tiny_bert: str) -> dict[str, Any]:
    return fit_estimators(tiny_bert)


def fit_estimators(folder: str) -> dict[str, Any]:
    """Return fitted estimators of all kinds."""
    settings: dict[str, Any] = {"max_epochs": 1, "random_state": 0}
    texts = ["good news", "bad story", "sport"] * 2
    classifier = LongBertClassifier(folder, **ENCODER_ALONE, **settings)
    regressor = LongBertRegressor(folder, **ENCODER_ALONE, **settings)
    return {
        "classifier": clone(classifier).fit(texts, [0, 1, 1] * 2),
        "classifier of three": clone(classifier).fit(texts, ["a", "b", "c"] * 2),
        "classifier of several": clone(classifier).fit(texts, [[0, 1], [1, 1], [1, 0]] * 2),
        "regressor": clone(regressor).fit(texts, range(6)),
        "regressor of two": clone(regressor).fit(texts, [[0, 1], [1, 3]] * 3),
        "vectorizer": LongBertVectorizer(folder).fit(),
        "chunker": TextChunker(folder).fit(),
    }


# ---------------------------------------------------------------------------------------------
# Texts

WORST = {
    "empty": "",
    "blanks": " \t\r\n\x0b\x0c\x85\u00a0\u2028\u2029" * 50,
    "NUL": "\0",
    "control characters": "".join(map(chr, [*range(32), *range(0x7F, 0xA0)])) * 3,
    "no width": "\u200b\u200c\u200d\u2060\ufeff" * 50,
    "right to left": "שלום עולם مرحبا بالعالم \u202eabc\u202c \u2067x\u2069 " * 20,
    "combining marks": "e" + "\u0301" * 2000,
    "marks on each letter": "".join(
        letter + "\u0300\u0323\u0489" * 5 for letter in "long text " * 9
    ),
    "joined emoji": "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪👍🏽" * 30,
    "beyond the BMP": "\U0001f600\U00010348𝒜𝔅" * 30,
    "no characters": "\ufffe\uffff\ufdd0\U0010ffff\U000fffff",
    "private use": "\ue000\uf8ff\U000f0000",
    "no blanks between words": "東京都に行った。" * 60 + "ภาษาไทย" * 40,
    "loose jamo": "\u1112\u1161\u11ab" * 100,
    "one character, many words": "\ufdfa" * 100,
    "word": "x" * 10_000,
    "words of a letter": "a " * 1000,
    "points": "." * 3000,
    "digits": "0123456789" * 100,
    "special tokens": "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> <pad> <mask> <unk>" * 5,
    "glued special tokens": "[CLS][SEP][PAD]<s></s><pad>" * 5,
    "SentencePiece's blank": "▁▁▁ ▁ a▁b ",
    "WordPiece's sign": "##a ##b ###",
    "format": "%s{}{0}%n\\x00\\u0000&#0;",
}


@pytest.fixture(params=[*ARCHITECTURES, "MiniLM"])
def encoder(request: pytest.FixtureRequest, tiny_encoder: Callable[[str], str]) -> str:
    """The name of a tiny encoder of each architecture, and of the real MiniLM."""
    return DEFAULT_MODEL if request.param == "MiniLM" else tiny_encoder(request.param)


@pytest.mark.parametrize("overlap", [0, 5])
def test_chunks_of_the_worst_texts_cover_all_tokens(encoder: str, overlap: int) -> None:
    texts = list(WORST.values())
    chunker = TextChunker(encoder, chunk_size=32, chunk_overlap=overlap).fit(texts)
    documents = chunker.transform(texts)
    assert len(documents) == len(texts)
    prefix, suffix = (list(part) for part in (chunker.layout_.prefix, chunker.layout_.suffix))
    for text, document in zip(texts, documents, strict=True):
        ids = chunker.tokenizer_.encode(text, add_special_tokens=False).ids
        covered: list[int] = []
        for (start, end), chunk in zip(document.bounds(), document.chunks(), strict=True):
            assert start <= len(covered)
            assert chunk.tolist() == prefix + ids[start:end] + suffix
            assert len(chunk) <= 32
            covered[start:] = ids[start:end]
        assert covered == ids
        spans = document.spans
        assert ((spans >= 0) & (spans <= len(text))).all()
        assert (spans[:, 0] <= spans[:, 1]).all()


def test_outputs_for_the_worst_texts_are_finite(encoder: str) -> None:
    texts = [text[:1500] for text in WORST.values()]
    there_and_back = texts + texts[::-1]
    embeddings = LongBertVectorizer(encoder).fit().transform(there_and_back)
    classifier = LongBertClassifier(encoder, **ENCODER_ALONE, max_epochs=1, random_state=0)
    classifier.set_params(freeze_encoder=encoder == DEFAULT_MODEL)  # one epoch of it is too long
    classifier.fit(texts, [index % 3 for index in range(len(texts))])
    probabilities = classifier.predict_proba(there_and_back)
    check_numbers(embeddings, (2 * len(texts), embeddings.shape[1]))
    check_numbers(probabilities, (2 * len(texts), 3))
    for level in ("chunk", "sentence"):
        few = texts if level == "chunk" else [text[:200] for text in texts]
        for explanation in classifier.explain(few, level=level, max_sentences=3):
            check_explanation(explanation)
    for outputs in (embeddings, probabilities):  # a row for each text, its own
        np.testing.assert_array_equal(outputs[: len(texts)], outputs[: len(texts) - 1 : -1])
    assert len(np.unique(embeddings.round(4), axis=0)) > 10


HUGE = {
    "5 MB": ("The quick brown fox jumps over the lazy dog. " * 112_000)[:5_000_000],
    "a word of 1 MB": "word" * 250_000,
    "1 MB of points": "." * 1_000_000,
    "a letter with 1 MB of marks": "e" + "\u0301" * 500_000,
    "1 MB of NUL": "\0" * 1_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HUGE)
def test_huge_texts(name: str, encoder: str) -> None:
    text = HUGE[name]
    check_huge_text(encoder, text)


@pytest.mark.slow
def test_a_word_of_a_megabyte(tiny_encoder: Callable[[str], str]) -> None:
    for architecture in ("bert", "xlm-roberta"):
        check_huge_text(tiny_encoder(architecture), HUGE["a word of 1 MB"])


def check_huge_text(encoder: str, text: str) -> None:
    vectorizer = LongBertVectorizer(encoder).fit()
    (document,) = TextChunker(encoder).fit_transform([text])
    check_document(document)
    ids = vectorizer.chunker_.tokenizer_.encode(text, add_special_tokens=False).ids
    assert document.token_ids.tolist() == ids
    if encoder != DEFAULT_MODEL or document.n_chunks < 10:
        check_numbers(vectorizer.transform(["", text])[:, :2], (2, 2))


@pytest.mark.slow
def test_a_hundred_thousand_empty_texts(tiny_bert: str) -> None:
    texts = [""] * 100_000
    (document,) = set(TextChunker(tiny_bert).fit_transform(texts[:1]))
    assert (document.n_tokens, document.n_chunks) == (0, 1)
    embeddings = LongBertVectorizer(tiny_bert).fit().transform(texts)
    check_numbers(embeddings, (100_000, 16))
    assert (embeddings == embeddings[0]).all()


@pytest.mark.slow
@pytest.mark.parametrize("head_init", ["random", "linear_probe"])
def test_training_on_a_hundred_thousand_empty_texts(tiny_bert: str, head_init: str) -> None:
    texts, y = [""] * 100_000, np.arange(100_000) % 2
    classifier = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, max_epochs=1, batch_size=1000, head_init=head_init
    )
    probabilities = classifier.fit(texts, y).predict_proba(texts)
    check_numbers(probabilities, (100_000, 2))
    assert (probabilities == probabilities[0]).all()


# ---------------------------------------------------------------------------------------------
# Containers


class Colour(str, Enum):  # noqa: UP042 - StrEnum has the str() that this one lacks
    RED = "good news"
    BLUE = "bad story"


class Hostile(str):
    """A str whose methods all fail."""

    def __str__(self) -> str:
        raise RuntimeError

    encode = isascii = __len__ = __str__  # type: ignore[assignment]


def test_subclasses_of_str_are_the_text_that_they_hold(tiny_bert: str) -> None:
    chunker = TextChunker(tiny_bert).fit()
    plain = ["good news", "bad story", "größer"]
    odd = [Colour.RED, np.str_("bad story"), Hostile("größer")]
    for texts in (odd, objects(odd), pd.Series(objects(odd), dtype=object)):
        for one, other in zip(chunker.transform(texts), chunker.transform(plain), strict=True):
            np.testing.assert_array_equal(one.tokens, other.tokens)


TEXTS_WITH_A_NULL = ["a", "b", None, "größer", ""]
BACKWARDS = [4, 3, 2, 1, 0]
NULLS: dict[str, tuple[Any, int]] = {
    "list": (TEXTS_WITH_A_NULL, 2),
    "masked among objects": (["a", np.ma.masked, "b"], 1),
    "masked array": (np.ma.array(["a", "b", "c"], mask=[False, False, True]), 2),
    "slice of a masked array": (np.ma.array(list("abcd"), mask=[0, 0, 0, 1])[2:], 1),
    "masked records": (np.ma.masked_all(2, dtype=[("text", "U3")]), 0),
    "StringDType": (np.array(TEXTS_WITH_A_NULL, dtype=np.dtypes.StringDType(na_object=None)), 2),
    "pandas, filtered": (pd.Series(TEXTS_WITH_A_NULL)[[False, True, True, True, False]], 1),
    "pandas, sorted": (pd.Series(TEXTS_WITH_A_NULL, index=BACKWARDS).sort_index().iloc[1:], 1),
    "pandas category": (pd.Series(TEXTS_WITH_A_NULL, dtype="category").iloc[1:], 1),
    "pandas array": (pd.array(TEXTS_WITH_A_NULL, dtype="string"), 2),
    "pandas with pyarrow": (pd.Series(TEXTS_WITH_A_NULL, dtype=pd.ArrowDtype(pa.string())), 2),
    "polars, sliced": (pl.Series(TEXTS_WITH_A_NULL)[1:], 1),
    "polars category": (pl.Series(TEXTS_WITH_A_NULL, dtype=pl.Categorical), 2),
    "polars enumeration": (pl.Series(["a", None], dtype=pl.Enum(["a"])), 1),
    "polars null": (pl.Series([None, None]), 0),
    "pyarrow, sliced": (pa.array(TEXTS_WITH_A_NULL)[1:], 1),
    "pyarrow in parts": (pa.chunked_array([["a", "b"], [], ["c", None]]), 3),
    "pyarrow view": (pa.array(TEXTS_WITH_A_NULL, type=pa.string_view()), 2),
    "pyarrow dictionary": (pa.array(TEXTS_WITH_A_NULL).dictionary_encode()[1:], 1),
    "null in a dictionary": (pa.DictionaryArray.from_arrays([0, 0, 1], ["a", None]), 2),
    "pyarrow null": (pa.nulls(2), 0),
    "pyarrow table": (pa.table({"text": TEXTS_WITH_A_NULL}).slice(2), 0),
}


@pytest.mark.parametrize(("texts", "index"), NULLS.values(), ids=NULLS)
def test_a_missing_text_is_named(texts: Any, index: int, fitted: dict[str, Any]) -> None:
    for estimator in fitted.values():
        apply = estimator.transform if hasattr(estimator, "transform") else estimator.predict
        with pytest.raises(ValueError, match=rf"X at index {index} is missing .*: drop the row"):
            apply(texts)
    with pytest.raises(ValueError, match=rf"X at index {index} is missing"):
        fitted["classifier"].fit(texts, [0] * len(texts))


OTHER_ELEMENTS = {
    "mixed": (objects(["a", 3, None, b"c"]), r"X at index 1 is of type int"),
    "bytes": (["a", "b", b"c"], r"X at index 2 is bytes"),
    "enumeration without text": (
        ["a", Enum("Number", "ONE").ONE],
        r"X at index 1 is of type Number",
    ),
    "lists": (pl.Series([["a"], ["b", "c"]]), r"X at index 0 is of type ndarray"),
    "structs": (pa.array([{"text": "a"}]), r"X at index 0 is of type dict"),
    "records": (np.array([("a",)], dtype=[("text", "U1")]), r"X at index 0 is of type tuple"),
    "objects of polars": (
        pl.Series(["a", object()], dtype=pl.Object),
        r"X at index 1 is of type obj",
    ),
    "dates": (pd.Series(pd.date_range("2020", periods=2)), r"X at index 0 is of type Timestamp"),
    "mapping": (UserDict(text="a"), r"X is a UserDict where a list"),
    "tensor": (torch.ones(2, requires_grad=True), r"X is a Tensor, which cannot be made a NumPy"),
}


@pytest.mark.parametrize(("texts", "message"), OTHER_ELEMENTS.values(), ids=OTHER_ELEMENTS)
def test_what_is_no_text_is_named(texts: Any, message: str, fitted: dict[str, Any]) -> None:
    for estimator in fitted.values():
        apply = estimator.transform if hasattr(estimator, "transform") else estimator.predict
        with pytest.raises(TypeError, match=message):
            apply(texts)


# ---------------------------------------------------------------------------------------------
# Labels

SIX = ["good news", "bad story", "sport match", "film", "a b c d", "year"]
BITS = [0, 1, 1, 0, 1, 0]
WORDS = ["b" if bit else "a" for bit in BITS]
BYTES = [word.encode() for word in WORDS]
DAYS = [date(2020 + bit, 1, 1) for bit in BITS]

# labels, and the kind of dtype that classes have
GOOD_LABELS: dict[str, tuple[Any, str]] = {
    **{
        name: (np.array(BITS, dtype=name), np.dtype(name).kind)
        for name in np.typecodes["AllInteger"]
    },
    **{name: (np.array(BITS, dtype=name), "f") for name in "efdg"},
    "bool": (np.array(BITS, dtype=bool), "b"),
    "big-endian": (np.array(BITS, dtype=">i4"), "i"),
    "largest int64": (np.array(BITS) + (2**63 - 2), "i"),
    "largest uint64": (np.array([2**64 - 2 + bit for bit in BITS], dtype=np.uint64), "u"),
    "list of int": (BITS, "i"),
    "list of int and float": ([0.0, 1, 1.0, 0, 1, 0], "f"),
    "list of bool": ([bool(bit) for bit in BITS], "b"),
    "objects that are int": (objects(BITS), "i"),
    "objects that are bool": (objects([bool(bit) for bit in BITS]), "b"),
    "list of str": (WORDS, "U"),
    "tuple": (tuple(WORDS), "U"),
    "deque": (deque(WORDS), "U"),
    "str array": (np.array(WORDS), "U"),
    "objects": (objects(WORDS), "O"),
    "NumPy's str": ([np.str_(word) for word in WORDS], "U"),
    "StringDType": (np.array(WORDS, dtype=np.dtypes.StringDType()), "O"),
    "NUL at the end": (["a\0" if bit else "a" for bit in BITS], "O"),
    "surrogates": ([chr(0xD800 + bit) for bit in BITS], "U"),
    "empty str": (["" if bit else " " for bit in BITS], "U"),
    "names of missing values": (["nan" if bit else "None" for bit in BITS], "U"),
    "enumeration": ([list(Colour)[bit] for bit in BITS], "U"),
    "dates": (np.array(DAYS, dtype="datetime64[D]"), "M"),
    "durations": (np.array(BITS, dtype="timedelta64[s]"), "m"),
    "pandas": (pd.Series(WORDS, index=range(6, 0, -1)), "O"),
    "pandas index": (pd.Index(WORDS), "O"),
    "pandas category": (pd.Series(WORDS, dtype="category"), "O"),
    "pandas category of int": (pd.Categorical(BITS, categories=[1, 0, 7]), "i"),
    "pandas string": (pd.Series(WORDS, dtype="string"), "O"),
    "pandas boolean": (pd.Series(BITS, dtype="boolean"), "b"),
    "pandas Int64": (pd.array(BITS, dtype="Int64"), "i"),
    "pandas UInt8": (pd.Series(BITS, dtype="UInt8"), "u"),
    "pandas Float32": (pd.Series(BITS, dtype="Float32"), "f"),
    "pandas with pyarrow": (pd.Series(BITS, dtype=pd.ArrowDtype(pa.int8())), "i"),
    "pandas dates": (pd.Series(pd.to_datetime(DAYS)), "M"),
    "polars": (pl.Series(WORDS), "OU"),
    "polars category": (pl.Series(WORDS, dtype=pl.Categorical), "O"),
    "polars bool": (pl.Series([bool(bit) for bit in BITS]), "b"),
    "polars int": (pl.Series(BITS, dtype=pl.UInt16), "u"),
    "polars dates": (pl.Series(DAYS), "M"),
    "pyarrow": (pa.array(WORDS), "O"),
    "pyarrow bool": (pa.array([bool(bit) for bit in BITS]), "b"),
    "pyarrow dictionary": (pa.array(WORDS).dictionary_encode(), "O"),
    "pyarrow in parts": (pa.chunked_array([WORDS[:1], WORDS[1:]]), "O"),
    "tensor": (torch.tensor(BITS), "i"),
    "range": (range(6), "i"),
}


@pytest.fixture(scope="module")
def untrained(tiny_bert: str) -> LongBertClassifier:
    return LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, max_epochs=1, head_init="random", random_state=0
    )


@pytest.mark.parametrize("y", [y for y, _ in GOOD_LABELS.values()], ids=GOOD_LABELS)
def test_classes_of_partial_fit_are_taken_as_labels_are(
    y: Any, untrained: LongBertClassifier
) -> None:
    trained = clone(untrained).fit(SIX, y)
    told = clone(untrained).partial_fit(SIX, y, classes=y)
    assert told.classes_.dtype == trained.classes_.dtype
    np.testing.assert_array_equal(told.classes_, trained.classes_)


@pytest.mark.parametrize(("y", "kind"), GOOD_LABELS.values(), ids=GOOD_LABELS)
def test_labels_come_back_as_they_were_given(
    y: Any, kind: str, untrained: LongBertClassifier
) -> None:
    if isinstance(y, pa.Array | pa.ChunkedArray):
        elements = y.to_pylist()
    else:
        elements = y.tolist() if isinstance(y, torch.Tensor) else list(y)
    given = [str.__str__(label) if isinstance(label, str) else label for label in elements]
    classifier = clone(untrained).fit(SIX, y)
    classes = classifier.classes_
    assert classes.dtype.kind in kind
    np.testing.assert_array_equal(classes, np.unique(np.array(given, dtype=classes.dtype)))
    if isinstance(given[0], str | int):
        assert classes.tolist() == sorted(set(given))
    predicted = classifier.predict(SIX)
    assert predicted.dtype == classes.dtype
    codes = [classes.tolist().index(label) for label in predicted.tolist()]
    np.testing.assert_array_equal(codes, classifier.predict_proba(SIX).argmax(axis=1))


# labels, the error, and what its message must say
BAD_LABEL_TYPES: dict[str, tuple[Any, type[Exception], str]] = {
    "bytes": (np.array(BYTES), TypeError, r"y at index 0 is bytes .* decode it"),
    "objects that are bytes": (objects(BYTES), TypeError, r"y at index 0 is bytes .* decode it"),
    "list of bytes": (BYTES, TypeError, r"y at index 0 is bytes .* decode it"),
    "polars binary": (pl.Series(BYTES), TypeError, r"y at index 0 is bytes .* decode it"),
    "continuous": (
        [0, 1, 0.5, 1, 0, 1],
        ValueError,
        r"continuous. y at index 2 is 0.5 .*Regressor",
    ),
    "too large": ([0.0, 1e19, 0, 0, 0, 0], ValueError, r"y at index 1 is 1e\+19 .* 64 bits"),
    "infinite": (np.array([0, 1, 1, np.inf, 0, 0], "f"), ValueError, r"infinity.* at index 3"),
    "large int": ([0, 0, 10**30, 0, 0, 1], ValueError, r"unknown. y at index 2 is 10000.* 64 bits"),
    "larger int": ([0, 10**5000, 1, 1, 1, 0], ValueError, r"y at index 1 is <int> where"),
    "complex": ([0, 1j, 1, 0, 0, 1], ValueError, r"y at index 0 is 0j, a complex number"),
    "Decimal": ([0, Decimal(1), 1, 0, 0, 1], ValueError, r"y at index 1 is Decimal\('1'\) where"),
    "Decimal NaN": ([0, 0, Decimal("sNaN"), 1, 1, 1], ValueError, r"sNaN'\), at index 2: drop"),
    "Python's dates": (DAYS, ValueError, r"y at index 0 is datetime.date\(2020, 1, 1\) where"),
    "not a time": (objects([*DAYS[1:], np.datetime64("NaT")]), ValueError, r"NaT.* at index 5"),
    "enumeration": (
        [Enum("Number", "ONE").ONE] * 6,
        ValueError,
        r"y at index 0 is <Number.ONE: 1>",
    ),
    "str and int": (["a", "b", 1, "a", "b", "a"], ValueError, r"mixes str .* index 2 with 1:"),
    "in a deque": (deque(["a", "b", 1, "a", "b", "a"]), ValueError, r"mixes str .* index 2 with 1"),
    "huge int among str": (
        ["a", 10**5000, *WORDS[2:]],
        ValueError,
        r"mixes str .* index 1 with <int>",
    ),
    "missing in a deque": (
        deque([*WORDS[1:], None]),
        ValueError,
        r"missing value, None, at index 5",
    ),
    "missing in an array": (pd.array([*BITS[1:], None], "Int64"), ValueError, r"NaN .* at index 5"),
    "masked": ([*WORDS[1:], np.ma.masked], ValueError, r"missing value, masked, at index 5"),
    "lists": (
        pl.Series([["a"], ["b", "c"]] * 3),
        ValueError,
        r"sets of labels.*MultiLabelBinarizer",
    ),
    "equal lists": (
        pa.array([["a"], ["b"]] * 3),
        ValueError,
        r"sets of labels.*MultiLabelBinarizer",
    ),
    "records": (
        np.array([(bit,) for bit in BITS], dtype=[("label", "i4")]),
        ValueError,
        r'structured dtype .*y\["label"\]',
    ),
    "void": (np.array(BYTES).view("V1"), ValueError, r"y has the structured dtype"),
    "tensor": (
        torch.ones(6, requires_grad=True),
        TypeError,
        r"y is a Tensor, which cannot be made",
    ),
    "no rows": (np.array([], dtype=object), ValueError, r"X has 6, y has 0"),
    "no columns": (np.zeros((6, 0)), ValueError, r"1d array, .* of shape \(6, 0\) instead"),
    "three dimensions": (np.zeros((6, 2, 2)), ValueError, r"1d array, .* \(6, 2, 2\)"),
    "huge int in a table": ([[0, 10**5000]] * 6, ValueError, r"2 columns .* at index 0, where"),
    "records in a table": (
        np.zeros((6, 2), [("a", "i4")]),
        ValueError,
        r"y has the structured dtype",
    ),
}


@pytest.mark.parametrize(("y", "error", "message"), BAD_LABEL_TYPES.values(), ids=BAD_LABEL_TYPES)
def test_labels_that_cannot_be_used_are_named(
    y: Any, error: type[Exception], message: str, untrained: LongBertClassifier
) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        clone(untrained).fit(SIX, y)


# records as they are, None and numbers among str as str
TAKEN_UNCHECKED = {"records", "void", "str and int", "in a deque", "masked"}


@pytest.mark.parametrize("model", [LogisticRegression(), MLPClassifier((2,), max_iter=1)])
def test_labels_that_scikit_learn_takes_are_taken(model: Any) -> None:
    features = np.random.RandomState(0).randn(6, 2)
    labels = {name: y for name, (y, *_) in {**GOOD_LABELS, **BAD_LABEL_TYPES}.items()}
    taken = {name for name in labels if is_taken(model, features, labels[name])}
    assert taken <= {*GOOD_LABELS, *TAKEN_UNCHECKED}
    assert len(taken & set(GOOD_LABELS)) > 30


def is_taken(model: Any, features: np.ndarray, y: Any) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clone(model).fit(features, y)
        except Exception:  # of scikit-learn, in whatever words: only whether it takes y is asked
            return False
    return True


def test_unseen_labels_of_partial_fit_are_named(untrained: LongBertClassifier) -> None:
    for classes, unseen in (("ab", "c"), ([0, 1], 2), ([True, False], 2), ([0.0, 1.0], 0.0 + 2)):
        good = [classes[0], classes[1]] * 3
        classifier = clone(untrained).partial_fit(SIX, good, classes=list(classes))
        with pytest.raises(
            ValueError, match=r"y at index 4 is .* not among the classes .*: name all"
        ):
            classifier.partial_fit(SIX, [*good[:4], unseen, good[5]])
        assert classifier.partial_fit(SIX, good).predict(SIX).shape == (6,)
        with pytest.raises(ValueError, match="is not the same as on last call"):
            classifier.partial_fit(SIX, good, classes=[*classes, unseen])


# ---------------------------------------------------------------------------------------------
# Weights

WEIGHTS = np.array([1.0, 0.5, 2.0, 0.25, 3.0, 1.5])
FACTORS = {
    "largest": 2.0**1022,
    "1e300": 2.0**996,
    "1e-300": 2.0**-996,
    "subnormal": 2.0**-1068,
    "1e30": 2.0**100,
}


def outputs(estimator: Any, weights: Any, y: Any = None) -> np.ndarray:
    y = BITS if y is None else y
    trained = clone(estimator).fit(SIX, y, sample_weight=weights)
    made = (
        trained.predict(SIX)
        if isinstance(trained, LongBertRegressor)
        else trained.predict_proba(SIX)
    )
    assert np.isfinite(made).all()
    return made


@pytest.fixture(scope="module")
def weighable(tiny_bert: str) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "random_state": 0,
        "learning_rate": 1e-3,
        "precision": "float32",
        "fine_tuning_share": 1.0,
    }
    return {
        "random head": LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, head_init="random", **settings
        ),
        "probe": LongBertClassifier(tiny_bert, **ENCODER_ALONE, **settings),
        "probe of max": LongBertClassifier(tiny_bert, **ENCODER_ALONE, pooling="max", **settings),
        "balanced": LongBertClassifier(
            tiny_bert, **ENCODER_ALONE, class_weight="balanced", **settings
        ),
        "regressor": LongBertRegressor(tiny_bert, **ENCODER_ALONE, **settings),
    }


KINDS_OF_WEIGHING = ["random head", "probe", "probe of max", "balanced", "regressor"]


@pytest.mark.parametrize("kind", KINDS_OF_WEIGHING)
@pytest.mark.parametrize("factor", FACTORS.values(), ids=FACTORS)
def test_the_scale_of_the_weights_does_not_matter(
    kind: str, factor: float, weighable: dict[str, Any]
) -> None:
    weights = np.array([1.0, 0.5, 1.0, 0.25, 1.0, 0.5])
    assert np.isfinite(weights * factor).all()
    expected = outputs(weighable[kind], weights)
    np.testing.assert_array_equal(outputs(weighable[kind], weights * factor), expected)
    assert not np.array_equal(outputs(weighable[kind], weights[::-1].copy()), expected)


@pytest.mark.parametrize("kind", KINDS_OF_WEIGHING)
@pytest.mark.parametrize(("small", "large"), [(5e-324, 1.0), (1e-300, 1e-30), (1e100, 1.7e308)])
def test_next_to_nothing_is_nothing(
    kind: str, small: float, large: float, weighable: dict[str, Any]
) -> None:
    share = np.array([1, 0, 1, 1, 0, 1])
    weights = np.where(share, large, small)
    kept = np.flatnonzero(share)
    expected = clone(weighable[kind]).fit([SIX[i] for i in kept], [BITS[i] for i in kept])
    predict = expected.predict if kind == "regressor" else expected.predict_proba
    np.testing.assert_allclose(outputs(weighable[kind], weights), predict(SIX), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS_OF_WEIGHING)
@pytest.mark.parametrize("ratio", [1e-45, 1e-60, 1e-99])
def test_weights_of_very_different_sizes(
    kind: str, ratio: float, weighable: dict[str, Any]
) -> None:
    """Predictions follow the texts that have weight; how little the others have tells nothing."""

    def predict(weights: Any) -> np.ndarray:  # of classes, the probability of 1
        return outputs(weighable[kind], weights).reshape(6, -1)[:, -1]

    alike, every_second = predict(None), predict([1, ratio] * 3)
    np.testing.assert_allclose(every_second, predict([1, 1e-30] * 3), rtol=1e-5)
    assert np.abs(every_second - alike).max() > 1e-3
    ones, zeros = predict(np.where(BITS, 1, ratio)), predict([1, ratio, ratio**0.5] * 2)
    if kind == "balanced":  # classes weigh alike, whatever their texts do
        np.testing.assert_allclose(ones, alike, rtol=1e-5)
        assert (zeros[[0, 2, 3]] > 0.5).tolist() == [False, True, False]
    elif kind == "random head":  # after one step
        assert (ones > alike).all()
        assert (zeros < alike).all()
    else:
        # of one class alone, the best scale is infinite: what keeps scales finite stops it. The
        # step of training at Adam's size moves outputs more on some processors than on others
        np.testing.assert_allclose(ones, 1, atol=0.05)
        np.testing.assert_allclose(zeros, 0, atol=0.05)


GOOD_WEIGHTS: dict[str, Any] = {
    "list": WEIGHTS.tolist(),
    "pandas with an index": pd.Series(WEIGHTS, index=range(6, 0, -1)),
    "pandas Float64": pd.array(WEIGHTS, dtype="Float64"),
    "polars": pl.Series(WEIGHTS),
    "pyarrow": pa.array(WEIGHTS),
    "float16": WEIGHTS.astype(np.float16),
    "long double": WEIGHTS.astype(np.longdouble),
    "Decimal": [Decimal(weight) for weight in WEIGHTS],
    "Fraction": [Fraction(weight) for weight in WEIGHTS],
    "str of numbers": [str(weight) for weight in WEIGHTS],
    "tensor": torch.tensor(WEIGHTS),
    "int": (WEIGHTS * 4).astype(int),
    "large int": [int(weight * 4) * 2**200 for weight in WEIGHTS],
    "masked array with none masked": np.ma.array(WEIGHTS),
    "read-only": np.broadcast_to(WEIGHTS, (6,)),
}


@pytest.mark.parametrize("weights", GOOD_WEIGHTS.values(), ids=GOOD_WEIGHTS)
def test_containers_of_weights(weights: Any, weighable: dict[str, Any]) -> None:
    expected = outputs(weighable["probe"], WEIGHTS)
    np.testing.assert_array_equal(outputs(weighable["probe"], weights), expected)


def test_the_callers_weights_are_left_alone() -> None:
    weights = np.array([1e308, 1e-300, 1.0])
    checked = check_weights(weights, SIX[:3])
    assert checked[1:].tolist() == [0, 0]
    assert weights.tolist() == [1e308, 1e-300, 1.0]


BAD_WEIGHTS: dict[str, tuple[Any, str]] = {
    "negative": ([1, 1, -1e-300, 1, 1, 1], r"Negative values .* first -1e-300 at index 2"),
    "NaN": ([1, 1, 1, np.nan, 1, 1], r"sample_weight contains NaN .* at index 3"),
    "None": ([1, 1, 1, 1, None, 1], r"sample_weight contains NaN .* at index 4"),
    "NA": ([1, 1, pd.NA, 1, 1, 1], r"sample_weight contains NaN .* at index 2"),
    "pandas NA": (pd.array([1, None, 1, 1, 1, 1], dtype="Int64"), r"contains NaN .* at index 1"),
    "polars null": (pl.Series([1, 1, None, 1, 1, 1]), r"contains NaN .* at index 2"),
    "pyarrow null": (pa.array([1, 1, 1, None, 1, 1]), r"contains NaN .* at index 3"),
    "masked": (np.ma.array(WEIGHTS, mask=[0, 0, 0, 0, 0, 1]), r"contains NaN .* at index 5"),
    "Decimal NaN": ([Decimal(1), Decimal("NaN")] * 3, r"contains NaN .* at index 1"),
    "infinite": ([1, np.inf, 1, 1, 1, 1], r"contains infinity, .* at index 1"),
    "beyond float64": (np.full(6, np.longdouble(2) ** 2000), r"contains infinity, .* at index 0"),
    "int beyond float64": ([1, 10**400, 1, 1, 1, 1], r"index 1 is 1000.* where a number"),
    "int beyond Python's str": ([1, 1, 10**5000, 1, 1, 1], r"index 2 is <int> where a number"),
    "complex": ([1, 1j, 1, 1, 1, 1], r"index 0 is \(1\+0j\) where a number"),
    "words": (["1", "two", "3", "4", "5", "6"], r"index 1 is 'two' where a number"),
    "lists": ([1, 1, 1, [1], 1, 1], r"index 3 is \[1\] where a number"),
    "dates": (np.ones(6, dtype="datetime64[D]"), r"sample_weight holds dates"),
    "records": (np.ones(6, dtype=[("a", "f8")]), r"index 0 is \(1.0,\) where a number"),
    "zeros": ([0, -0.0, 0, 0, 0, 0], r"at least one non-zero number"),
    "short": (np.ones(5), r"sample_weight.shape == \(5,\), expected \(6,\)"),
    "long": (np.ones(7), r"sample_weight.shape == \(7,\), expected \(6,\)"),
    "empty": ([], r"sample_weight.shape == \(0,\), expected \(6,\)"),
    "column": (np.ones((6, 1)), r"must be 1D array or scalar, got an array of shape \(6, 1\)"),
    "frame": (pd.DataFrame({"weight": WEIGHTS}), r"must be 1D array or scalar"),
    "one that is NaN": (np.nan, r"sample_weight contains NaN"),
    "one that is infinite": (np.inf, r"sample_weight contains infinity"),
    "one that is negative": (-1, r"Negative values"),
    "one that is zero": (0, r"at least one non-zero number"),
}


@pytest.mark.parametrize(("weights", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_cannot_be_used_are_named(
    weights: Any, message: str, weighable: dict[str, Any]
) -> None:
    for kind in ("random head", "regressor"):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            clone(weighable[kind]).fit(SIX, BITS, sample_weight=weights)


@pytest.mark.parametrize("head_init", ["random", "linear_probe"])
@pytest.mark.parametrize("y", [BITS, np.column_stack([BITS, BITS[::-1]])], ids=["one", "several"])
def test_extreme_class_weights(head_init: str, y: Any, weighable: dict[str, Any]) -> None:
    classifier = clone(weighable["probe"]).set_params(head_init=head_init)
    expected = outputs(classifier.set_params(class_weight={0: 1, 1: 2}), None, y)
    scaled = outputs(classifier.set_params(class_weight={0: 2.0**90, 1: 2.0**91}), None, y)
    np.testing.assert_array_equal(scaled, expected)
    for extreme in ({0: 1e-40, 1: 1e40}, {0: 1, 1: 1e-45}, {0: 1e30}):
        outputs(classifier.set_params(class_weight=extreme), WEIGHTS * 1e300, y)
    for wrong in (0, -1, np.nan, np.inf, 5e-324, 1e308, 10**400, "x", None, 1j, [1, 2]):
        with pytest.raises(ValueError, match=r"class_weight must be"):
            classifier.set_params(class_weight={0: 1, 1: wrong}).fit(SIX, y)


# ---------------------------------------------------------------------------------------------
# Regression targets

SPREAD = np.array([0.5, -1.0, 2.0, 0.0, 1.5, -2.0])
GOOD_VALUES: dict[str, Any] = {
    "1e38": SPREAD * 1e38,
    "1e-30": SPREAD * 1e-30,
    "int": [1, -2, 4, 0, 3, -4],
    "large int": [int(2 * value) * 10**30 for value in SPREAD],
    "unsigned": np.array([2**64 - 1, 0, 2**63, 5, 2**40, 1], dtype=np.uint64),
    "bool": SPREAD > 0,
    "Decimal": [Decimal(value) for value in SPREAD],
    "Fraction": [Fraction(value) for value in SPREAD],
    "str of numbers": [str(value) for value in SPREAD],
    "float16": SPREAD.astype(np.float16),
    "long double": SPREAD.astype(np.longdouble),
    "pandas Float32": pd.Series(SPREAD, dtype="Float32"),
    "polars Decimal": pl.Series([Decimal(str(value)) for value in SPREAD]),
    "pyarrow Decimal": pa.array([Decimal(str(value)) for value in SPREAD]),
    "offset of 1e10": SPREAD + 1e10,
    "of different units": np.column_stack([SPREAD * 1e38, SPREAD * 1e-30]),
}


@pytest.mark.parametrize("head_init", ["random", "linear_probe"])
@pytest.mark.parametrize("y", GOOD_VALUES.values(), ids=GOOD_VALUES)
def test_values_of_any_size(y: Any, head_init: str, weighable: dict[str, Any]) -> None:
    """A change of the unit changes the unit of what is predicted, and no more."""
    regressor = clone(weighable["regressor"]).set_params(head_init=head_init)
    numbers = np.array([float(value) for value in np.asarray(y, dtype=object).ravel()])
    numbers = numbers.reshape(6, -1)
    center, unit = numbers.mean(axis=0), numbers.std(axis=0)
    standardised = (numbers - center) / unit
    expected = outputs(
        regressor, None, standardised if numbers.shape[1] > 1 else standardised[:, 0]
    )
    predicted = outputs(regressor, None, y)
    assert predicted.dtype == np.float64
    np.testing.assert_allclose(
        (predicted.reshape(6, -1).astype(float) - center) / unit,
        expected.reshape(6, -1),
        atol=2e-4 + 2e-7 * np.abs(center / unit).max(),
    )


def test_predictions_beyond_float32(weighable: dict[str, Any]) -> None:
    regressor = clone(weighable["regressor"]).fit(SIX, SPREAD * 1.5e38)
    with torch.no_grad():
        regressor.net_.module_.head.weight.mul_(1e3)
    predicted = regressor.predict(TEXTS)
    assert np.isfinite(predicted).all()
    assert np.abs(predicted).max() > np.finfo(np.float32).max


@pytest.mark.parametrize("head_init", ["random", "linear_probe"])
def test_values_next_to_nothing(head_init: str, weighable: dict[str, Any]) -> None:
    """Float64 has no squares of the smallest numbers: they are scaled before they are squared."""
    regressor = clone(weighable["regressor"]).set_params(head_init=head_init)
    expected = outputs(regressor, None, SPREAD)
    for size in (1e-45, 1e-160, 1e-300):
        found = outputs(regressor, None, SPREAD * size)
        np.testing.assert_allclose(found / size, expected, rtol=1e-4, atol=1e-4)
    if head_init == "linear_probe":
        np.testing.assert_array_equal(outputs(regressor, None, SPREAD * 0), 0)
    assert np.isfinite(outputs(regressor, None, SPREAD * 5e-324)).all()


BAD_VALUES: dict[str, tuple[Any, str]] = {
    "1e301": ([0, 1, 1e301, 2, 3, 4], r"y at index 2 is 1e\+301, more than 1e\+300"),
    "infinite": ([0, 1, 2, -np.inf, 3, 4], r"contains infinity, .* at index 3"),
    "infinite Decimal": ([*BITS[:5], Decimal("Infinity")], r"contains infinity, .* at index 5"),
    "beyond float64": ([0, 10**400, 1, 2, 3, 4], r"y at index 1 is 1000.* where a number"),
    "Decimal beyond float64": (
        [0, Decimal("1e400"), *BITS[2:]],
        r"contains infinity, .* at index 1",
    ),
    "Decimal NaN": ([0, Decimal("NaN"), *BITS[2:]], r"NaN .* at index 1"),
    "Decimal that signals": ([0, 0, Decimal("sNaN"), *BITS[3:]], r"NaN .* at index 2"),
    "str NaN": (["1", "nan", "2", "3", "4", "5"], r"NaN .* at index 1"),
    "complex": (SPREAD * 1j, r"y at index 0 is .*j, a complex number"),
    "object complex": (objects([1, 2j, *BITS[2:]]), r"y at index 1 is 2j where a number"),
    "dates": (np.array(DAYS, dtype="datetime64[D]"), r"y holds dates or durations"),
    "durations": (pl.Series([day - DAYS[0] for day in DAYS]), r"y holds dates or durations"),
    "Python's dates": (DAYS, r"y at index 0 is datetime.date\(2020, 1, 1\) where a number"),
    "dates with a zone": (
        pd.Series(pd.date_range("2020", periods=6, tz="UTC")),
        r"y at index 0 is Timestamp.* where a number",
    ),
    "words": (["1", "2", "three", "4", "5", "6"], r"y at index 2 is 'three' where a number"),
    "records": (np.ones(6, dtype=[("value", "f8")]), r'structured dtype .*y\["value"\]'),
    "no numbers in a table": ([[1, 2], [3, object()]] * 3, r"y at index 1 is <object.* a number"),
    "dates in a table": (np.ones((6, 2), "datetime64[D]"), r"y holds dates or durations"),
    "infinity in a table": ([[1, 2], [3, np.inf]] * 3, r"contains infinity, .* at index 1"),
}


@pytest.mark.parametrize(("y", "message"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_that_cannot_be_used_are_named(
    y: Any, message: str, weighable: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        clone(weighable["regressor"]).fit(SIX, y)


# ---------------------------------------------------------------------------------------------
# Numerics


@pytest.mark.parametrize("name", ["classifier", "classifier of three", "classifier of several"])
@pytest.mark.parametrize("size", [1e2, 1e4, 1e10, 1e37])
def test_extreme_logits(name: str, size: float, fitted: dict[str, Any]) -> None:
    classifier = deepcopy(fitted[name])
    head = classifier.net_.module_.head
    factor = size / np.abs(classifier.decision_function(TEXTS)).max()
    with torch.no_grad():
        for weight in (head.weight, head.bias):
            weight.copy_(weight.double() * factor)
    logits = classifier.decision_function(TEXTS)
    assert np.abs(logits).max() == pytest.approx(size, rel=0.1)
    probabilities = classifier.predict_proba(TEXTS)
    check_numbers(probabilities, (len(TEXTS), len(classifier.classes_)))
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    logarithms = classifier.predict_log_proba(TEXTS)
    check_numbers(logarithms, probabilities.shape)
    np.testing.assert_allclose(np.exp(logarithms), probabilities, atol=1e-6)
    if not is_multilabel(classifier):
        assert logarithms.min() < -size / 4
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)
        predicted = classifier.classes_[probabilities.argmax(axis=1)]
        np.testing.assert_array_equal(classifier.predict(TEXTS), predicted)


@pytest.mark.parametrize("name", ["classifier", "classifier of several", "regressor"])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_named(
    name: str, broken: float, fitted: dict[str, Any]
) -> None:
    estimator = deepcopy(fitted[name])
    token = estimator.chunker_.tokenizer_.token_to_id("good")
    with torch.no_grad():
        estimator.net_.module_.encoder.get_input_embeddings().weight[token] = broken
    assert estimator.predict(["bad story", "news"]).shape[0] == 2
    with pytest.raises(ValueError, match=r"The logits of X at index 2 are NaN or infinite"):
        estimator.predict(["bad story", "news", "good news", "good"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_that_diverges_says_so(precision: str, tiny_bert: str) -> None:
    classifier = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        learning_rate=1e30,
        max_grad_norm=None,
        precision=precision,
        random_state=0,
    )
    with pytest.raises(ValueError, match=r"NaN or infinite.*lower learning_rate \(it is 1e\+30\)"):
        classifier.fit(SIX, BITS)
    assert not hasattr(classifier, "net_")


# Of probabilities, alone and together, as measured with MiniLM on news. oneDNN has kernels for
# bfloat16 where `precision="auto"` takes it: with AVX512-BF16 alone, what they make of a row does
# not depend on the others (2e-7), and with AMX it does (3e-4). Elsewhere torch's own kernels round
# in another order (7e-3), as much as bfloat16 itself differs from float32.
OWN_KERNELS, OTHER_KERNELS = 2e-3, 2e-2


def test_batches_do_not_matter_under_bfloat16(bbc_news: tuple[np.ndarray, np.ndarray]) -> None:
    texts, labels = bbc_news
    classifier = LongBertClassifier(
        **ENCODER_ALONE,
        precision="bfloat16",
        chunk_size=128,
        freeze_encoder=True,
        max_epochs=1,
        device="cpu",
        random_state=0,
    ).fit([text[:300] for text in texts[:12]], labels[:12])
    lengths = [40, 300, 1500]
    news = [text[: lengths[index % 3]] for index, text in enumerate(texts[20:26])] + [""]
    together = classifier.predict_proba(news)
    alone = np.concatenate([classifier.predict_proba([text]) for text in news])
    in_small_passes = classifier.set_params(micro_batch_tokens=1).predict_proba(news)
    is_native = select_autocast("auto", torch.device("cpu")) is not None
    tolerance = OWN_KERNELS if is_native else OTHER_KERNELS
    np.testing.assert_allclose(alone, together, rtol=0, atol=tolerance)
    np.testing.assert_allclose(in_small_passes, together, rtol=0, atol=tolerance)
    in_float32 = classifier.set_params(precision="float32").predict_proba(news)
    difference = np.abs(in_float32 - together).max()
    assert 1e-4 < difference < OTHER_KERNELS


@pytest.fixture
def dropping(tiny_bert: str) -> LongBertClassifier:
    return LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        max_epochs=2,
        batch_size=2,
        attention_dropout=0.1,
        random_state=0,
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bits(precision: str, dropping: LongBertClassifier) -> None:
    dropping.set_params(precision=precision)
    first, second = (logits_of(dropping) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, logits_of(dropping.set_params(random_state=1)))


@pytest.mark.slow  # two threads wait for each other where cores are busy
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_another_number_of_threads_has_its_own_bits(
    precision: str, dropping: LongBertClassifier
) -> None:
    dropping.set_params(precision=precision)
    alone = logits_of(dropping)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = (logits_of(dropping) for _ in range(2))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-3, atol=1e-3)


def logits_of(classifier: LongBertClassifier) -> np.ndarray:
    torch.rand(3)  # what the caller has drawn does not matter
    trained = clone(classifier).fit(TEXTS, [0, 1] * 6)
    return trained.decision_function(TEXTS)


# ---------------------------------------------------------------------------------------------
# Random calls

SCALARS = [None, np.nan, pd.NA, pd.NaT, 3, 1.5, True, b"good", ["good"], ("a",), {"a"}, object()]
SURROGATES = ["\ud800", "good \udfff news"]


@dataclass
class Drawn:
    """An argument, and what the message must say if it alone is wrong."""

    value: Any
    fault: str | None = None
    classes: Any = None


def pick(rng: np.random.RandomState, pool: Any) -> Any:
    pool = list(pool)
    return pool[rng.randint(len(pool))]


def scattered(elements: list[Any]) -> pd.Series:
    return pd.Series(objects(elements), index=range(len(elements), 0, -1), dtype=object)


ANY_ELEMENTS: list[Callable[[list[Any]], Any]] = [list, tuple, objects, scattered]
ONLY_STR: list[Callable[[list[str]], Any]] = [
    *ANY_ELEMENTS,
    lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    lambda texts: pd.Series(texts, dtype="string"),
    lambda texts: pd.Series(texts, dtype="category"),
    lambda texts: pd.DataFrame({"text": texts}),
    pl.Series,
    lambda texts: pl.DataFrame({"text": texts}),
    pa.array,
    lambda texts: pa.chunked_array([texts]),
]
STR_AND_NULL: list[Callable[[list[str | None]], Any]] = [
    lambda texts: np.array(texts, dtype=np.dtypes.StringDType(na_object=None)),
    lambda texts: np.ma.array(
        ["hidden" if text is None else text for text in texts],
        mask=[text is None for text in texts],
    ),
    lambda texts: pd.Series(texts, dtype="string"),
    lambda texts: pd.Series(texts, dtype="category"),
    lambda texts: pl.Series(texts, dtype=pl.String),
    lambda texts: pl.DataFrame({"text": texts}, schema={"text": pl.String}),
    lambda texts: pa.array(texts, type=pa.string()),
]
NO_TEXTS: list[Callable[[], Any]] = [
    lambda: "one text",
    lambda: b"one text",
    lambda: None,
    lambda: 3,
    lambda: {"a": "b"},
    lambda: {"a", "b"},
    lambda: (text for text in "ab"),
    lambda: np.array([["a", "b"]]),
    lambda: np.array("a"),
    lambda: pd.DataFrame({"a": ["x"], "b": ["y"]}),
    lambda: pl.DataFrame({"a": ["x"], "b": ["y"]}),
    list,
    lambda: pl.Series([], dtype=pl.String),
    lambda: pd.Series([], dtype=object),
    lambda: torch.ones(2, requires_grad=True),
]


def draw_texts(rng: np.random.RandomState, n: int, name: str = "X") -> Drawn:
    texts = [pick(rng, TEXTS) for _ in range(n)]
    luck = rng.rand()
    if luck < 0.8:
        return Drawn(pick(rng, ONLY_STR)(texts))
    if luck < 0.85:
        return Drawn(pick(rng, NO_TEXTS)(), name)
    index = rng.randint(n)
    message = rf"{name} at index {index} (is|has a lone surrogate)"
    if luck < 0.9:
        texts[index] = pick(rng, SURROGATES)
        return Drawn(pick(rng, ANY_ELEMENTS)(texts), message)
    if luck < 0.95:
        texts[index] = None
        return Drawn(pick(rng, STR_AND_NULL)(texts), message)
    texts[index] = pick(rng, SCALARS)
    container = pick(rng, ANY_ELEMENTS)
    if n == 1:  # a list of one list is a column
        container = objects
    return Drawn(container(texts), message)


LABELS: list[list[Any]] = [
    ["bad", "good"],
    ["", "a\0", "größer"],
    ["nan", "None"],
    [0, 1],
    [-1, 2**62, 7],
    [False, True],
    [0.0, 3.0],
]
LABEL_CONTAINERS: list[Callable[[list[Any]], Any]] = [
    *ANY_ELEMENTS,
    np.array,
    lambda labels: pd.Series(labels, dtype="category"),
]
BAD_LABELS = [None, np.nan, pd.NA, pd.NaT, float("inf")]
NO_TARGETS: list[Callable[[int], Any]] = [
    lambda n: None,
    lambda n: "label",
    lambda n: {"a": 1},
    lambda n: [b"a", b"b"] * n,
    lambda n: [1 + 1j] * n,
    lambda n: np.zeros(n, dtype=[("a", "i4")]),
    lambda n: [{"a"}] * n,
    lambda n: [["a"], ["a", "b"]] * n,
    lambda n: np.zeros((n, 2, 2)),
    lambda n: np.zeros((n, 0)),
    lambda n: pl.Series([["a"], ["b", "c"]] * n),
    lambda n: [10**5000] * n,
    lambda n: torch.ones(n, requires_grad=True),
]


def draw_labels(rng: np.random.RandomState, n: int, name: str = "y") -> Drawn:
    luck = rng.rand()
    if luck < 0.07:
        return Drawn(pick(rng, NO_TARGETS)(n), "")
    if luck < 0.12:
        return Drawn([0, 1] * n, "inconsistent numbers of samples")
    if luck < 0.22:
        table = rng.randint(2, size=(n, 3))
        return Drawn(pick(rng, [np.array, pd.DataFrame, np.ndarray.tolist])(table), None, range(3))
    classes = pick(rng, LABELS)
    labels = [classes[index % len(classes)] for index in range(n)]
    rng.shuffle(labels)
    if luck < 0.9:
        return Drawn(pick(rng, LABEL_CONTAINERS)(labels), None, classes)
    index = rng.randint(n)
    labels[index] = pick(rng, BAD_LABELS)
    return Drawn(pick(rng, ANY_ELEMENTS)(labels), rf"{name} .*at index [01]|at index {index}\b")


VALUES: list[Callable[[np.random.RandomState, int], Any]] = [
    lambda rng, n: rng.randn(n),
    lambda rng, n: 1e38 * rng.uniform(-3.4, 3.4, n),
    lambda rng, n: 1e-300 * rng.randn(n),
    lambda rng, n: 1e10 + rng.randn(n),
    lambda rng, n: np.zeros(n),
    lambda rng, n: rng.randint(5, size=n).tolist(),
    lambda rng, n: rng.rand(n) < 0.5,
    lambda rng, n: rng.randn(n, 2),
    lambda rng, n: pl.Series(rng.randn(n)),
    lambda rng, n: pd.Series(rng.randint(5, size=n), dtype="Int64"),
]


def draw_values(rng: np.random.RandomState, n: int, name: str = "y") -> Drawn:
    luck = rng.rand()
    if luck < 0.07:
        return Drawn(pick(rng, NO_TARGETS)(n), "")
    if luck < 0.12:
        return Drawn([0.0, 1.0] * n, "inconsistent numbers of samples")
    if luck < 0.85:
        return Drawn(pick(rng, VALUES)(rng, n))
    values: list[Any] = rng.randn(n).tolist()
    index = rng.randint(n)
    values[index] = pick(rng, [*BAD_LABELS, 10**400, "x", 1j])
    return Drawn(pick(rng, ANY_ELEMENTS)(values), rf"at index {index}\b|at index 0 is \(")


def draw_weights(rng: np.random.RandomState, n: int) -> Drawn:
    luck = rng.rand()
    weights = rng.rand(n) + 0.1
    if luck < 0.4:
        return Drawn(None)
    if luck < 0.7:
        extreme = pick(rng, [0.0, 5e-324, 1e-300, 1e-30, 1e30, 1e300, 1.7e308])
        weights[rng.rand(n) < 0.3] = extreme
        weights *= pick(rng, [1.0, 1e-10]) if extreme > 1 else 1.0
        return Drawn(weights) if weights.any() else Drawn(weights, "non-zero")
    if luck < 0.8:
        return Drawn(pick(rng, [list, pd.Series, pl.Series, np.float32])(weights))
    if luck < 0.9:
        index = rng.randint(n)
        elements: list[Any] = weights.tolist()
        elements[index] = pick(rng, [None, np.nan, np.inf, -1.0, pd.NA, 10**400, "x", [1, 2]])
        return Drawn(pick(rng, ANY_ELEMENTS)(elements), rf"at index {index}\b|shape \(\d, 2\)")
    wrong = [np.ones(n + 1), np.ones((n, 2)), np.zeros(n), {"a": 1}, "x", np.nan, [1j] * n]
    return Drawn(pick(rng, wrong), "(?i)sample.weight")


@cache
def parameters(kind: str, folder: str) -> dict[str, tuple[list[Any], list[Any]]]:
    """Return values that each parameter of an estimator takes, and values that it refuses."""
    switch: tuple[list[Any], list[Any]] = ([True, False, np.bool_(True)], ["yes", None, 2])
    rate: tuple[list[Any], list[Any]] = ([0, 0.1, 0.5, 1e-300], [1, -0.1, np.nan, "0.1", None])
    known: dict[str, tuple[list[Any], list[Any]]] = {
        "model_name": (
            [folder, Path(folder)],
            [None, 3, "", ".", "/nowhere", "no/such-model", "a\0b", "x" * 5000, "\ud800", "a b"],
        ),
        "chunk_size": (
            [None, 8, 16, 64, np.int64(32), np.uint8(20)],
            [0, -1, 2, 65, 10**30, 16.0, "16", np.nan],
        ),
        "chunk_overlap": ([0, 1, 3, np.uint8(2)], [-1, 10**30, 0.5, None, "1"]),
        "max_chunks": ([None, 1, 2, 10**30, np.int8(3)], [0, -1, 1.5, "1"]),
        "chunk_selection": (["head", "tail", "head_tail", "even", "random"], ["first", None, 3]),
        "missing": (["error"], ["drop", None, 3]),
        "revision": ([None, "main"], [3, b"main"]),
        "local_files_only": switch,
    }
    reader: dict[str, tuple[list[Any], list[Any]]] = {
        "token_pooling": (["mean", "cls", "max", "mean_max"], ["min", None]),
        "layers": (
            ["last", "spread", (0,), (0, -1), (np.int64(1), 2)],
            ["first", None, 2, [0, 2], (), (3,), (-4,), (2, -1), (1.0,), ("last",), (True,)],
        ),
        "micro_batch_tokens": (
            ["auto", 1, 64, 2**31, 10**30, np.int16(100)],
            [0, -1, "all", 1.5, None],
        ),
        "device": (
            ["auto", "cpu", "cpu:0", torch.device("cpu")],
            ["tpu", "", 3, None, "cuda:x", "cpu:-1", "\ud800"],
        ),
        "precision": (["auto", "float32", "bfloat16"], ["float16", None, torch.float32]),
        "verbose": ([0, False], [-1, "x", None]),
    }
    training: dict[str, tuple[list[Any], list[Any]]] = {
        "pooling": (["mean", "max", "logsumexp", "attention"], ["sum", None]),
        "head_init": (["random"] * 3 + ["linear_probe"], ["zeros", None]),
        "baseline": ([None] * 3 + ["words"], ["tfidf", 3, object()]),
        "fine_tuning_share": (["auto", 1, 0.5, 1e-9], [0, 1.1, "all", None]),
        "freeze_encoder": switch,
        "max_epochs": ([1, np.int64(1)], [0, -1, 1.5, np.inf, None]),
        "batch_size": ([1, 2, 8, 10**30, np.uint8(3)], [0, -1, 1.5, None]),
        "learning_rate": (
            [5e-5, 1e-3, 1e-300, 1e-45, np.float32(1e-4), 1, 1e30, 1e300],
            [0, -1.0, np.nan, "x", None],
        ),
        "weight_decay": ([0, 0.01, 1.0, 1e300], [-1, np.nan, "x"]),
        "warmup_fraction": ([0, 0.1, 1.0], [1.1, -0.1, np.nan, None]),
        "max_grad_norm": ([None, 1.0, 1e-300, 1e300], [0, -1, np.nan]),
        "dropout": rate,
        "attention_dropout": rate,
        "early_stopping": switch,
        "scoring": (
            [None, "loss", "accuracy", lambda estimator, X, y: float(len(estimator.predict(X)))],
            ["f1_makro", 3, ["accuracy"], {"a": "accuracy"}],
        ),
        "validation_fraction": ([0.1, 0.5, 0.999, 1e-300], [0, 1.0, -1, np.nan, None]),
        "n_iter_no_change": ([1, 10**30], [0, 1.5, None]),
        "tol": ([0, 1e-4, 1e300, 5e-324], [-1, np.nan, None]),
        "warm_start": switch,
        "callbacks": ([None, []], [[3], "x", (), [("name", object())]]),
        "random_state": ([None, 0, 2**32 - 1, np.random.RandomState(0)], [-1, "x", 1.5, 2**33]),
    }
    if kind == "chunker":
        return known
    if kind == "vectorizer":
        return {**known, **reader, "norm": ([None, "l2"], ["l1", 2])}
    both = {**known, **reader, **training}
    if kind == "regressor":
        return both
    weights: list[Any] = [None, "balanced", {}, {0: 1, 1: 2.0}, {0: 1e30, 1: 1e-30}]
    return {**both, "class_weight": (weights, ["auto", 3, [1, 2]])}


KINDS: dict[str, Any] = {
    "classifier": LongBertClassifier,
    "regressor": LongBertRegressor,
    "vectorizer": LongBertVectorizer,
    "chunker": TextChunker,
}


# Reasons for which a call fails that only several arguments together give.
REASONS = [
    r"chunk_overlap=\d+ is too large",
    r"chunk_size=\d+ leaves no room",
    r"y has one class only",
    r"classes=\[.*\] where at least two are needed",
    r"is not a valid scoring value",
    r"early_stopping=True cannot hold out",
    r"partial_fit does not support early_stopping=True",
    r"class_weight=\"balanced\" is not known from a part",
    r"class_weight has the key",
    r"needs at least two held-out texts",
    r"became NaN or infinite in epoch",
    r"The logits of X at index \d+ are NaN or infinite",
    r"which is not among the classes",
    r"warm_start=True needs the same classes as the last fit",
    r"where (an indicator matrix|one label a text|\(\d+,.*\)) is expected",
    r"columns where \d+, one a label, are expected",
    r"class_weight must be",
]


NAMES = ["The folder . holds no config.json"]


def draw_estimator(rng: np.random.RandomState, kind: str, folder: str) -> Drawn:
    """Return an estimator some of whose parameters are drawn, with a bad one in one of eight."""
    known = parameters(kind, folder)
    chosen: dict[str, Any] = {"model_name": folder}
    if kind in ("classifier", "regressor"):
        chosen.update(max_epochs=1, head_init="random")
    for name in rng.choice(sorted(known), size=rng.randint(7), replace=False):
        chosen[name] = pick(rng, known[name][0])
    fault = None
    if rng.rand() < 0.125:
        wrong = pick(rng, sorted(known))
        chosen[wrong] = pick(rng, known[wrong][1])
        fault = "|".join([wrong, *REASONS, *(NAMES if wrong == "model_name" else [])])
    return Drawn(KINDS[kind](**chosen), fault)


def is_raised_on_purpose(error: BaseException) -> bool:
    """Whether a `raise` of this package or of scikit-learn's checks is where an error began."""
    if not isinstance(error, ValueError | TypeError | OSError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    line = linecache.getline(last.filename, last.lineno or 0).strip()
    checks = (OUR_FOLDER, SKLEARN_FOLDER + "/utils/", SKLEARN_FOLDER + "/metrics/_scorer.py")
    is_ours = last.filename.startswith(checks)
    return is_ours and line.startswith("raise ")


@dataclass
class Call:
    """One random call: what is called, what may be wrong with it, and what it made."""

    seed: int
    parts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def take(self, name: str, drawn: Drawn) -> Any:
        try:
            self.parts.append(f"{name}={ascii(drawn.value)[:300]}")
        except ValueError:  # Python prints no int of 5000 digits
            self.parts.append(f"{name}=<{type(drawn.value).__name__}>")
        if drawn.fault is not None:
            self.faults.append(drawn.fault)
        return drawn.value

    def __str__(self) -> str:
        return f"seed {self.seed}: " + ", ".join(self.parts) + f"; faults {self.faults}"


def run_call(seed: int, folder: str, fitted: dict[str, Any]) -> None:
    """Make the random call of `seed`, and raise AssertionError if it ends as it may not."""
    call = Call(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DataConversionWarning)
        warnings.filterwarnings("ignore", UNKNOWN, UserWarning)
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        error = error_of(make_call, np.random.RandomState(seed), call, folder, fitted)
    outcome = f"{call}: {error!r}"
    if error is None:
        assert not call.faults, outcome
        return
    assert is_raised_on_purpose(error), outcome
    if len(call.faults) < 2:  # of several that are wrong any may be named
        expected = call.faults or REASONS
        assert any(re.search(part, str(error), re.DOTALL) for part in expected), outcome


def error_of(function: Callable[..., Any], *arguments: Any) -> Exception | None:
    try:
        function(*arguments)
    except Exception as error:
        return error
    return None


def make_call(rng: np.random.RandomState, call: Call, folder: str, fitted: dict[str, Any]) -> None:
    kind = pick(rng, KINDS)
    n = rng.randint(1, 9)
    if rng.rand() < 0.5:
        estimator = fitted[pick(rng, [name for name in fitted if name.startswith(kind)])]
        texts = call.take("X", draw_texts(rng, n))
        if kind != "chunker" and rng.rand() < 0.1:
            limits = parameters(kind, folder)["micro_batch_tokens"]
            limit, fault = pick(rng, [(limits[0], None), (limits[1], "micro_batch_tokens")])
            estimator = copy(estimator)
            estimator.micro_batch_tokens = call.take("limit", Drawn(pick(rng, limit), fault))
        elif kind != "chunker" and not call.faults and rng.rand() < 0.2:
            texts = call.take("documents", draw_documents(rng, fitted["chunker"], texts))
        check_outputs(rng, call, estimator, texts, n)
        return
    estimator = call.take("estimator", draw_estimator(rng, kind, folder))
    texts = call.take("X", draw_texts(rng, n))
    if rng.rand() < 0.05:
        call.faults.append("This .* instance is not fitted yet")
        getattr(estimator, "predict" if hasattr(estimator, "predict") else "transform")(texts)
    elif kind in ("chunker", "vectorizer"):
        estimator.fit(texts)
    else:
        train(rng, call, estimator, texts, n)
    check_outputs(rng, call, estimator, texts, n)


def draw_documents(rng: np.random.RandomState, chunker: TextChunker, texts: Any) -> Drawn:
    documents = chunker.transform(texts)
    if len(documents) == 1 or rng.rand() < 0.5:
        return Drawn(pick(rng, ANY_ELEMENTS)(list(documents)))
    index = rng.randint(1, len(documents))
    documents[index] = pick(rng, ["a text", None, 3])
    return Drawn(documents, rf"at index {index} is of type .* transform all texts or none")


def train(rng: np.random.RandomState, call: Call, estimator: Any, texts: Any, n: int) -> None:
    is_regressor = isinstance(estimator, LongBertRegressor)
    draw = draw_values if is_regressor else draw_labels
    targets = draw(rng, n)
    y = call.take("y", targets)
    weights = call.take("sample_weight", draw_weights(rng, n))
    if rng.rand() < 0.7:
        call.parts.append("fit")
        known: dict[str, Any] = {}
        if rng.rand() < 0.1:
            known["X_val"] = call.take("X_val", draw_texts(rng, n, "X_val"))
            known["y_val"] = call.take("y_val", draw(rng, n, "y_val"))
        estimator.fit(texts, y, sample_weight=weights, **known)
        if rng.rand() < 0.2:
            call.parts.append("fit again")
            estimator.set_params(warm_start=True).fit(texts, call.take("y", draw(rng, n)))
        return
    call.parts.append("partial_fit")
    classes = None if is_regressor else call.take("classes", draw_classes(rng, targets))
    arguments = {} if is_regressor else {"classes": classes}
    estimator.partial_fit(texts, y, sample_weight=weights, **arguments)
    if rng.rand() < 0.5:
        call.parts.append("partial_fit again")
        estimator.partial_fit(texts, call.take("y", draw(rng, n)))


def draw_classes(rng: np.random.RandomState, labels: Drawn) -> Drawn:
    classes, luck = labels.classes, rng.rand()
    if classes is None:
        return Drawn([0, 1])
    if luck < 0.8:
        return Drawn(classes)
    if isinstance(classes, range):
        return Drawn([0, 0, 1], "must name each column")
    if luck < 0.9:
        return Drawn(None, "classes must be passed on the first call|is not known from a part")
    message = "where at least two are needed|not among the classes|is not known from a part"
    return Drawn(classes[:1], message)


def check_outputs(
    rng: np.random.RandomState, call: Call, estimator: Any, texts: Any, n: int
) -> None:
    """Apply an estimator, and check the shape and the values of what it makes."""
    if isinstance(estimator, TextChunker):
        documents = estimator.transform(texts)
        assert documents.shape == (n,)
        for document in documents:
            check_document(document)
        return
    if isinstance(estimator, LongBertVectorizer):
        size = len(estimator.get_feature_names_out())
        check_numbers(estimator.transform(texts), (n, size))
        return
    if isinstance(texts, list) and rng.rand() < 0.2:
        call.parts.append("explain")
        for explanation in estimator.explain(texts, level=pick(rng, ["chunk", "sentence"])):
            check_explanation(explanation)
        return
    if isinstance(estimator, LongBertRegressor):
        shape = np.shape(estimator._targets.mean)
        check_numbers(estimator.predict(texts), (n, *shape), np.float64)
        return
    is_binary = len(estimator.classes_) == 2 and not is_multilabel(estimator)
    method = pick(rng, ["predict", "predict_proba", "predict_log_proba", "decision_function"])
    call.parts.append(method)
    outputs = getattr(estimator, method)(texts)
    if method == "predict":
        assert outputs.shape == ((n, len(estimator.classes_)) if is_multilabel(estimator) else (n,))
        assert np.isin(outputs, [0, 1] if is_multilabel(estimator) else estimator.classes_).all()
        return
    is_column = method == "decision_function" and is_binary
    check_numbers(outputs, (n,) if is_column else (n, len(estimator.classes_)))
    if method == "predict_proba":
        assert ((outputs >= 0) & (outputs <= 1)).all()
        if not is_multilabel(estimator):
            np.testing.assert_allclose(outputs.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("kind", ["classifier", "vectorizer", "chunker"])
def test_every_value_of_a_parameter(kind: str, tiny_bert: str) -> None:
    texts, y = ["bad story " * 40, *["good news", ""] * 10], [0, 1, 1] * 7
    given: dict[str, Any] = {"model_name": tiny_bert}
    if kind == "classifier":
        given.update(max_epochs=1, head_init="random", max_grad_norm=1.0, **ENCODER_ALONE)
    for name, (accepted, refused) in parameters(kind, tiny_bert).items():
        for value in accepted:
            estimator = KINDS[kind](**{**given, name: value})
            error = error_of(fit_and_check, estimator, texts, y)
            said = f"{name}={value!r:.100}: {error!r}"
            assert error is None or re.search("became NaN or infinite in epoch", said), said
        for value in refused:
            error = error_of(KINDS[kind](**{**given, name: value}).fit, texts, y)
            said = f"{name}={value!r:.100}: {error!r}"
            assert error is not None, said
            assert is_raised_on_purpose(error), said
            assert name in str(error) or name == "model_name", said


def fit_and_check(estimator: Any, texts: Any, y: Any) -> None:
    estimator.fit(texts, y)
    check_outputs(np.random.RandomState(0), Call(0), estimator, texts, len(texts))


@pytest.mark.parametrize("start", range(0, 300, 50))
def test_random_calls(start: int, tiny_bert: str, fitted: dict[str, Any]) -> None:
    for seed in range(start, start + 50):
        run_call(seed, tiny_bert, fitted)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 11_000, 1000))
def test_ten_thousand_random_calls(start: int, tiny_encoder: Callable[[str], str]) -> None:
    same_size = [name for name, (*_, limit) in ARCHITECTURES.items() if limit == 64]
    folder = tiny_encoder(same_size[start // 1000 % len(same_size)])
    fitted = fit_estimators(folder)
    for seed in range(start, start + 1000):
        run_call(seed, folder, fitted)
