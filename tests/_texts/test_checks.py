"""Pins that every bad input has one clear error of its own, with the index and the cure."""

import sqlite3
from collections import deque
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse

from sklearn_longbert._texts.checks import check_texts

TEXTS = ["one two", "", "größer"]


class Subclass(str):
    """What a library may hand out in the place of str."""

    __slots__ = ()


class Row(NamedTuple):
    """What a database may hand out in the place of a tuple."""

    text: str


class Table:
    """A table of texts that are not in memory."""


def table(*methods: str) -> Any:
    """Return a table with the methods by which its library is known."""
    return type("Table", (Table,), dict.fromkeys((*methods, "__len__", "__getitem__"), len))()


# ---------------------------------------------------------------------------------------------
# Texts: what is accepted

ACCEPTED = {
    "list": TEXTS,
    "tuple": tuple(TEXTS),
    "deque": deque(TEXTS),
    "object array": np.array(TEXTS, dtype=object),
    "str array": np.array(TEXTS),
    "read-only array": np.broadcast_to(np.array(TEXTS), (3,)),
    "StringDType array": np.array(TEXTS, dtype=np.dtypes.StringDType()),
    "array without a masked element": np.ma.array(TEXTS, mask=[False, False, False]),
    "NumPy's str": [np.str_(text) for text in TEXTS],
    "subclass of str": [Subclass(text) for text in TEXTS],
    "pandas object": pd.Series(TEXTS, dtype=object),
    "pandas string": pd.Series(TEXTS, dtype="string"),
    "pandas default": pd.Series(TEXTS),
    "pandas category": pd.Series(TEXTS, dtype="category"),
    "pandas with pyarrow": pd.Series(TEXTS, dtype=pd.ArrowDtype(pa.string())),
    "pandas with its own index": pd.Series(TEXTS, index=[7, 5, 6]),
    "pandas index": pd.Index(TEXTS),
    "pandas array": pd.array(TEXTS, dtype="string"),
    "pandas frame": pd.DataFrame({"text": TEXTS}),
    "array of one column": np.array(TEXTS)[:, None],
    "object array of one column": np.array(TEXTS, dtype=object)[:, None],
    "StringDType array of one column": np.array(TEXTS, dtype=np.dtypes.StringDType())[:, None],
    "masked array of one column": np.ma.array(TEXTS, mask=False)[:, None],
    "rows of one column": [(text,) for text in TEXTS],
    "lists of one element": [[text] for text in TEXTS],
    "named tuples": [Row(text) for text in TEXTS],
    "arrays of one element": [np.array([text]) for text in TEXTS],
    "rows of a database": sqlite3.connect(":memory:")
    .execute("VALUES (?), (?), (?)", TEXTS)
    .fetchall(),
    "polars": pl.Series(TEXTS),
    "polars frame": pl.DataFrame({"text": TEXTS}),
    "pyarrow": pa.array(TEXTS),
    "pyarrow large": pa.array(TEXTS, type=pa.large_string()),
    "pyarrow dictionary": pa.array(TEXTS).dictionary_encode(),
    "pyarrow chunked": pa.chunked_array([TEXTS[:1], TEXTS[1:]]),
    "pyarrow table": pa.table({"text": TEXTS}),
    "pyarrow batch": pa.record_batch({"text": TEXTS}),
}


@pytest.mark.parametrize("texts", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted_containers(texts: Any) -> None:
    checked = check_texts(texts)
    assert checked == TEXTS
    assert {type(text) for text in checked} == {str}


@pytest.mark.parametrize(
    "text", ["", " \n\t", "\0", "e\u0301", "\U0001f600", "\ufffe", "x" * 10**6]
)
def test_any_unicode_text_is_accepted_as_it_is(text: str) -> None:
    assert check_texts([text, text]) == [text, text]


def test_the_callers_container_is_left_alone() -> None:
    texts = [Subclass("a"), np.str_("b")]
    array = np.array([Subclass("a"), "b"], dtype=object)
    check_texts(texts)
    check_texts(array)
    assert [type(text) for text in texts] == [Subclass, np.str_]
    assert type(array[0]) is Subclass


# ---------------------------------------------------------------------------------------------
# Texts: what is refused

WRONG_CONTAINERS = {
    "str": ("one text", ValueError, r"X is a single str .* pass it in a list, \[X\]"),
    "subclass": (Subclass("one"), ValueError, r"X is a single Subclass .* in a list, \[X\]"),
    "NumPy's str": (np.str_("one"), ValueError, r"X is a single str_ .* in a list, \[X\]"),
    "bytes": (b"one text", ValueError, r"X is a single bytes .* pass it in a list, \[X\]"),
    "array of no dimension": (np.array("one"), ValueError, r"shape \(\) .* in a list, \[X\]"),
    "None": (None, TypeError, r"X is a NoneType where a list"),
    "number": (3, TypeError, r"X is a int where a list"),
    "object": (object(), TypeError, r"X is a object where a list"),
    "generator": ((text for text in TEXTS), TypeError, r"X is a generator .* pass list\(X\)"),
    "iterator": (iter(TEXTS), TypeError, r"X is a list_iterator .* pass list\(X\)"),
    "map": (map(str, TEXTS), TypeError, r"X is a map .* pass list\(X\)"),
    "dict": ({"text": 1}, TypeError, r"X is a dict .* pass list\(X\)"),
    "dict keys": ({"text": 1}.keys(), TypeError, r"X is a dict_keys .* pass list\(X\)"),
    "dict values": ({1: "text"}.values(), TypeError, r"X is a dict_values .* pass list\(X\)"),
    "set": ({"text"}, TypeError, r"X is a set .* pass list\(X\)"),
    "frozenset": (frozenset(["text"]), TypeError, r"X is a frozenset .* pass list\(X\)"),
    "sparse matrix": (scipy.sparse.csr_matrix([[1.0]]), TypeError, r"(?i)sparse"),
    "sparse array": (scipy.sparse.csr_array([[1.0]]), TypeError, r"(?i)sparse"),
    "lazy frame": (
        pl.LazyFrame({"text": TEXTS}),
        TypeError,
        r'X is a LazyFrame where a list.*: pass X.select\("text"\).collect\(\)',
    ),
    "cursor": (
        sqlite3.connect(":memory:").execute("SELECT 1"),
        TypeError,
        r"X is a Cursor .*: let it select the column of texts alone, and pass X.fetchall\(\)",
    ),
    "duckdb": (table("fetchall"), TypeError, r"X is a Table .* pass X.fetchall\(\)"),
    "datasets": (table("cast_column"), TypeError, r'X is a Table .* pass list\(X\["text"\]\)'),
    "title and body": (
        [("a", "b"), ("c", "d")],
        ValueError,
        r'X has shape \(2, 2\) .* pass \[" ".join\(row\) for row in X\]',
    ),
    "2-D array": (np.array([["a", "b"]]), ValueError, r"shape \(1, 2\) .* such as X\[:, 0\]"),
    "3-D array": (np.array([[["a"]]]), ValueError, r"shape \(1, 1, 1\) .* as X\[:, 0\]"),
    "list of rows": ([["a", "b"], ["c", "d"]], ValueError, r'shape \(2, 2\) .*" ".join\(row\)'),
    "list of empty rows": ([[], []], ValueError, r"shape \(2, 0\) .* the column that holds"),
}


@pytest.mark.parametrize(("X", "error", "message"), WRONG_CONTAINERS.values(), ids=WRONG_CONTAINERS)
def test_wrong_containers(X: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_texts(X)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table, pa.record_batch])
@pytest.mark.parametrize("rows", [0, 2])
@pytest.mark.parametrize("columns", [0, 2])
def test_frames_need_one_column(make: Any, rows: int, columns: int) -> None:
    frame = make({f"column_{index}": ["text"] * rows for index in range(columns)})
    with pytest.raises(ValueError, match=r"X has shape .*: select the column that holds the texts"):
        check_texts(frame)


EMPTY = {
    "list": [],
    "tuple": (),
    "array": np.array([]),
    "str array": np.array([], dtype=str),
    "pandas": pd.Series([], dtype=object),
    "pandas frame": pd.DataFrame({"text": []}),
    "polars": pl.Series([], dtype=pl.String),
    "pyarrow": pa.array([], type=pa.string()),
}


@pytest.mark.parametrize("X", EMPTY.values(), ids=EMPTY)
def test_empty_containers(X: Any) -> None:
    message = r"Found array with 0 sample\(s\) .*: X is empty, pass at least one text"
    with pytest.raises(ValueError, match=message):
        check_texts(X)


MISSING = {
    "None": ["a", None, "b"],
    "NaN": ["a", float("nan"), "b"],
    "NumPy's NaN": ["a", np.float32("nan"), "b"],
    "pd.NA": ["a", pd.NA, "b"],
    "pd.NaT": ["a", pd.NaT, "b"],
    "array": np.array(["a", None, "b"], dtype=object),
    "StringDType": np.array(["a", None, "b"], dtype=np.dtypes.StringDType(na_object=None)),
    "StringDType with NaN": np.array(
        ["a", np.nan, "b"], dtype=np.dtypes.StringDType(na_object=np.nan)
    ),
    "masked array": np.ma.array(["a", "hidden", "b"], mask=[False, True, False]),
    "masked objects": np.ma.array(["a", "hidden", "b"], mask=[False, True, False], dtype=object),
    "pandas object": pd.Series(["a", None, "b"], dtype=object),
    "pandas string": pd.Series(["a", None, "b"], dtype="string"),
    "pandas default": pd.Series(["a", None, "b"]),
    "pandas category": pd.Series(["a", None, "b"], dtype="category"),
    "pandas with pyarrow": pd.Series(["a", None, "b"], dtype=pd.ArrowDtype(pa.string())),
    "pandas index of its own": pd.Series(["a", None, "b"], index=[1, 0, 2]),
    "pandas frame": pd.DataFrame({"text": ["a", None, "b"]}),
    "rows of one column": [("a",), (None,), ("b",)],
    "masked array of one column": np.ma.array([["a"], ["x"], ["b"]], mask=[[0], [1], [0]]),
    "decimal": ["a", Decimal("NaN"), "b"],
    "datetime": ["a", np.datetime64("NaT"), "b"],
    "polars": pl.Series(["a", None, "b"]),
    "polars frame": pl.DataFrame({"text": ["a", None, "b"]}),
    "pyarrow": pa.array(["a", None, "b"]),
    "pyarrow chunked": pa.chunked_array([["a"], [None, "b"]]),
    "pyarrow table": pa.table({"text": ["a", None, "b"]}),
}


@pytest.mark.parametrize("X", MISSING.values(), ids=MISSING)
def test_missing_texts(X: Any) -> None:
    with pytest.raises(
        ValueError, match=r'X at index 1 is missing .*: drop the row, .* set missing="empty"'
    ):
        check_texts(X)
    assert check_texts(X, missing="empty") == ["a", "", "b"]


def test_a_number_is_no_missing_text() -> None:
    with pytest.raises(TypeError, match=r"X at index 1 is of type int where a str"):
        check_texts([None, 3], missing="empty")


@pytest.mark.parametrize("X", [pl.Series([None]), pa.array([None]), pd.Series([None]), [None]])
def test_nothing_but_missing_texts(X: Any) -> None:
    with pytest.raises(ValueError, match=r"X at index 0 is missing"):
        check_texts(X)


WRONG_ELEMENTS = {
    "bytes": (["a", b"b"], r'index 1 is bytes .*: decode it, \.decode\("utf-8"\)'),
    "bytes array": (np.array([b"a"]), r'index 0 is bytes .*: decode it, \.decode\("utf-8"\)'),
    "bytearray": (bytearray(b"ab"), r"index 0 is of type int where a str"),
    "int": (["a", "b", 3], r"index 2 is of type int where a str is expected: X must be a list"),
    "huge int": (["a", 10**400], r"index 1 is of type int where a str"),
    "float": (["a", 0.5], r"index 1 is of type float where a str"),
    "bool": (["a", True], r"index 1 is of type bool where a str"),
    "list": ([["a"], ["b", "c"]], r'index 0 is of type list .* pass \[" ".join\(row\)'),
    "tuple": ([("a", "b"), ("c",)], r'index 0 is of type tuple .* pass \[" ".join\(row\)'),
    "dict": ([{"text": "a"}], r"index 0 is of type dict where a str"),
    "number array": (np.array([1.0, 2.0]), r"index 0 is of type float where a str"),
    "pandas numbers": (pd.Series([1, 2]), r"index 0 is of type int where a str"),
    "pandas frame of numbers": (pd.DataFrame({"a": [1]}), r"index 0 is of type int where a str"),
    "polars numbers": (pl.Series([1, 2]), r"index 0 is of type int where a str"),
    "pyarrow numbers": (pa.array([1, 2]), r"index 0 is of type int where a str"),
}


@pytest.mark.parametrize(("X", "message"), WRONG_ELEMENTS.values(), ids=WRONG_ELEMENTS)
def test_wrong_elements(X: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"X at {message}"):
        check_texts(X)


@pytest.mark.parametrize("code", [0xD800, 0xDBFF, 0xDC80, 0xDFFF])
@pytest.mark.parametrize("container", [list, np.array, pd.Series])
def test_lone_surrogates(code: int, container: Any) -> None:
    texts = ["fine", f"größer{chr(code)} as {chr(code)}"]
    column = pd.Series(texts, dtype=object) if container is pd.Series else container(texts)
    message = rf"X at index 1 has a lone surrogate, '\\u{code:x}', at character 6, .*: replace it"
    with pytest.raises(ValueError, match=message) as caught:
        check_texts(column)
    # the cure that the message gives works
    assert 'text.encode("utf-8", "replace").decode("utf-8")' in str(caught.value)
    assert check_texts([text.encode("utf-8", "replace").decode("utf-8") for text in texts])


def test_the_message_calls_the_texts_what_the_caller_does() -> None:
    with pytest.raises(ValueError, match=r"X_val at index 0 is missing"):
        check_texts([None], name="X_val")
    with pytest.raises(ValueError, match=r"X_val is empty"):
        check_texts([], name="X_val")
