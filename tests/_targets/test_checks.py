"""Pins that every bad input has one clear error of its own, with the index and the cure."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from scipy.sparse import csr_array
from sklearn.exceptions import DataConversionWarning
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._targets.checks import (
    check_classes,
    check_groups,
    check_labels,
    check_values,
    check_weights,
    warn_of_one_hot,
)

TEXTS = ["one two", "", "größer"]


# ---------------------------------------------------------------------------------------------
# Labels


@pytest.mark.parametrize(
    "y",
    [
        ["b", "a"],
        (True, False),
        np.array([3, 1]),
        [1.0, 2.0],
        np.array(["b", "a"], dtype=object),
        pd.Series(["b", "a"], index=[3, 2]),
        pd.Series(["b", "a"], dtype="category"),
        pl.Series(["b", "a"]),
        pa.array(["b", "a"]),
        np.ma.array([2, 1], mask=[False, False]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_labels_are_kept(y: Any) -> None:
    labels = check_labels(y)
    assert labels.shape == (2,)
    assert labels.tolist() == (y.to_pylist() if isinstance(y, pa.Array) else list(y))


@pytest.mark.parametrize("check", [check_labels, check_values])
def test_no_target(check: Any) -> None:
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        check(None)
    with pytest.raises(ValueError, match="requires y_val to be passed"):
        check(None, name="y_val")


MISSING_LABELS = {
    "None": ["a", None],
    "NaN among str": ["a", np.nan],  # np.array makes the label "nan" of it
    "NaN among str in a tuple": ("a", float("nan")),
    "pd.NA": ["a", pd.NA],
    "NaN": [1.0, np.nan],
    "object array": np.array(["a", np.nan], dtype=object),
    "number array": np.array([1.0, np.nan]),
    "masked": np.ma.array([1, 2], mask=[False, True]),
    "masked str": np.ma.array(["a", "b"], mask=[False, True]),
    "pandas": pd.Series(["a", None]),
    "pandas category": pd.Series(["a", None], dtype="category"),
    "pandas Int64": pd.Series([1, None], dtype="Int64"),
    "pandas boolean": pd.Series([True, None], dtype="boolean"),
    "polars": pl.Series(["a", None]),
    "polars numbers": pl.Series([1, None]),
    "pyarrow": pa.array(["a", None]),
    "pyarrow numbers": pa.array([1, None]),
    "StringDType": np.array(["a", None], dtype=np.dtypes.StringDType(na_object=None)),
    "dates": np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
}


@pytest.mark.parametrize("y", MISSING_LABELS.values(), ids=MISSING_LABELS)
def test_missing_labels(y: Any) -> None:
    with pytest.raises(ValueError, match=r"Input y contains NaN .*, at index 1: drop the row"):
        check_labels(y)


def test_the_str_nan_is_a_label() -> None:
    assert check_labels(["nan", "None"]).tolist() == ["nan", "None"]


TABLE = [[1, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize(
    "y",
    [
        TABLE,
        np.array(TABLE),
        np.array(TABLE, dtype=bool),
        np.array(TABLE, dtype=float),
        np.array(TABLE, dtype=object),
        pd.DataFrame(TABLE),
        pd.DataFrame(TABLE, dtype="Int64"),
        pl.DataFrame(TABLE, orient="row"),
        scipy.sparse.csr_array(TABLE),
    ],
    ids=lambda y: f"{type(y).__module__}-{getattr(y, 'dtype', '')}",
)
def test_several_columns(y: Any) -> None:
    labels, values = check_labels(y), check_values(y)
    assert labels.tolist() == values.tolist() == TABLE
    assert (labels.dtype, values.dtype) == (np.int64, np.float64)


def test_several_columns_that_are_no_indicator() -> None:
    for y in ([[0, 1], [0, 2]], [["a", "b"], ["a", "c"]], np.array([[0.0, 1.0], [0.5, 1.0]])):
        with pytest.raises(ValueError, match=r"y has 2 columns and is .* at index [01], .*Multi"):
            check_labels(y)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [["a"], ["a", "b"]]
    for y in ([["a"], ["a", "b"]], [{"a"}, {"a", "b"}], pd.Series([{"a"}, set()]), ragged):
        with pytest.raises(ValueError, match=r"y holds sets of labels, .*MultiLabelBinarizer"):
            check_labels(y)
    for check in (check_labels, check_values):
        for missing in (np.nan, None, pd.NA):
            with pytest.raises(ValueError, match=r"Input y contains NaN .* at index 1"):
                check(pd.DataFrame([[1, 0], [0, missing]]))
    with pytest.raises(ValueError, match=r"y at index 1 is 'x' where a number"):
        check_values([[1, 2], [3, "x"]])
    with pytest.raises(ValueError, match=r"y at index 2 is 1e\+301, more than 1e\+300"):
        check_values([[1, 2], [3, 4], [5, 1e301]])


@pytest.mark.parametrize("check", [check_labels, check_values])
@pytest.mark.parametrize("y", [[[1], [2]], pd.DataFrame({"a": [1, 2]})])
def test_one_column_is_taken_with_a_warning(check: Any, y: Any) -> None:
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        assert check(y).tolist() == [1, 2]


NO_COLUMNS: list[Any] = [
    ("ab", ValueError, r"='ab' where an array-like is expected: pass a list or an array"),
    ({1, 2}, TypeError, r" is a set where .* a set has no order"),
    ({0: 1}, TypeError, r" is a dict where .*: pass list\(\w+\.values\(\)\)"),
    (iter([1, 2]), TypeError, r" is a list_iterator where .*: pass list\(\w+\)"),
    (map(int, "12"), TypeError, r" is a map where .*: pass list\(\w+\)"),
]


@pytest.mark.parametrize(("given", "error", "message"), NO_COLUMNS)
def test_containers_of_no_column_are_named_with_the_cure(
    given: Any, error: Any, message: str
) -> None:
    for check, name in ((check_labels, "y_val"), (check_classes, "classes"), (check_values, "y")):
        with pytest.raises(error, match=f"^{name}{message}"):
            check(given, name)
    with pytest.raises(error, match=f"^groups{message}"):
        check_groups(given, 2)
    with pytest.raises(error, match=f"^sample_weight{message}"):
        check_weights(given, [1, 2])


def test_balanced_is_no_sample_weight() -> None:
    with pytest.raises(ValueError, match=r"^sample_weight='balanced' .* class_weight=\"balanced\""):
        check_weights("balanced", [1, 2])


@pytest.mark.parametrize("check", [check_labels, check_values])
def test_one_number_is_no_column(check: Any) -> None:
    with pytest.raises(ValueError, match=r"y should be a 1d array"):
        check(3)


@pytest.mark.parametrize("y", [[0.5, 1.5], np.array([0.1, 2.0], dtype=np.float32)])
def test_continuous_labels(y: Any) -> None:
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        check_labels(y)


@pytest.mark.parametrize("check", [check_labels, check_values])
@pytest.mark.parametrize("y", [[1.0, np.inf], np.array([-np.inf, 1.0], dtype=np.float32)])
def test_infinite_targets(check: Any, y: Any) -> None:
    with pytest.raises(ValueError, match="Input y contains infinity"):
        check(y)


# ---------------------------------------------------------------------------------------------
# Values


@pytest.mark.parametrize(
    "y",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([1, 2], dtype=object),
        np.array([1, 2], dtype=np.float16),
        pd.Series([1, 2], dtype="Int64"),
        pl.Series([1, 2]),
        pa.array([1.0, 2.0]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_values_become_float64(y: Any) -> None:
    values = check_values(y)
    assert values.dtype == np.float64
    assert values.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "y",
    [
        [1.0, np.nan],
        [1.0, None],
        (1, pd.NA),
        np.ma.array([1.0, 2.0], mask=[False, True]),
        pd.Series([1.0, None]),
        pd.Series([1.0, None], dtype="Float64"),
        pl.Series([1.0, None]),
        pa.array([1, None]),
    ],
    ids=lambda y: type(y).__name__,
)
def test_missing_values(y: Any) -> None:
    with pytest.raises(ValueError, match=r"Input y contains NaN .*, at index 1: drop the row"):
        check_values(y)


@pytest.mark.parametrize(
    ("y", "index"),
    [
        (["good", "bad"], 0),
        (np.array([1, "x"], dtype=object), 1),
        (pd.Series(["1.5", "x"]), 1),
        (np.array(["a", "b"], dtype=np.dtypes.StringDType()), 0),
        ([1, 10**400], 1),
        (np.array([1, 2j], dtype=object), 1),
    ],
    ids=["str", "object", "pandas", "StringDType", "too large", "complex"],
)
def test_values_that_are_no_numbers(y: Any, index: int) -> None:
    message = rf"y at index {index} is .* where a number is expected: pass numbers, or fit a class"
    with pytest.raises(ValueError, match=message):
        check_values(y)


# ---------------------------------------------------------------------------------------------
# Weights


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (None, [1, 1, 1]),
        ([0, 1, 2.5], [0, 1, 2.5]),
        (2, [2, 2, 2]),
        (np.array([True, False, True]), [1, 0, 1]),
        (pd.Series([1, 2, 3], index=[2, 1, 0]), [1, 2, 3]),
        (pl.Series([1.0, 2.0, 3.0]), [1, 2, 3]),
    ],
    ids=["None", "list", "scalar", "bool", "pandas", "polars"],
)
def test_one_weight_a_text(weights: Any, expected: list[float]) -> None:
    checked = check_weights(weights, TEXTS)
    assert checked.dtype == np.float64
    assert checked.tolist() == expected


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], r"sample_weight\.shape == \(2,\), expected \(3,\)"),
        ([1, 2, 3, 4], r"sample_weight\.shape == \(4,\), expected \(3,\)"),
        ([[1], [2], [3]], r"must be 1D array or scalar"),
        ([1, -1, 1], r"Negative values in data passed to .sample_weight"),
        ([1, np.nan, 1], r"sample_weight contains NaN"),
        ([1, None, 1], r"sample_weight contains NaN"),
        ([1, np.inf, 1], r"sample_weight contains infinity"),
        ([0, 0, 0], r"(?i)(all sample_weight are zero|at least one non-zero)"),
        (0, r"(?i)(all sample_weight are zero|at least one non-zero)"),
    ],
    ids=["short", "long", "2-D", "negative", "NaN", "None", "infinite", "zeros", "zero"],
)
def test_bad_weights(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_weights(weights, TEXTS)


def test_values_whose_differences_overflow():
    with pytest.raises(ValueError, match=r"y at index 1 is -1e\+301, more than 1e\+300 in size"):
        check_values([1.0, -1e301])
    assert check_values([1.0, -1e299])[1] == -1e299


@pytest.mark.parametrize("dtype", ["datetime64[s]", "timedelta64[s]"])
def test_dates_are_no_values(dtype):
    with pytest.raises(ValueError, match="y holds dates or durations"):
        check_values(np.array([1, 2], dtype=dtype))


ONE_HOT = np.eye(3, dtype=int)[np.arange(12) % 3]


@pytest.mark.parametrize(
    "y",
    [
        ONE_HOT,
        ONE_HOT.astype(bool),
        ONE_HOT.tolist(),
        csr_array(ONE_HOT),
        pd.DataFrame(ONE_HOT, columns=["a", "b", "c"]),
        np.column_stack([ONE_HOT, np.zeros(12)]),
    ],
    ids=["int", "bool", "lists", "sparse", "frame", "empty column"],
)
def test_one_hot_rows_get_a_hint(y: Any, tiny_bert: str) -> None:
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )
    with pytest.warns(UserWarning, match=r"12 rows of y .* exactly one 1.*y\.argmax") as caught:
        estimator.fit(["good fox"] * 12, y)
    assert len(caught) == 1


@pytest.mark.parametrize(
    "y",
    [
        ONE_HOT[:9],
        ONE_HOT[:, :2],
        np.column_stack([1 - ONE_HOT[:, 0], ONE_HOT[:, 0]]),
        np.vstack([ONE_HOT, [1, 0, 1]]),
        np.vstack([ONE_HOT, [0, 0, 0]]),
        np.arange(12) % 3,
    ],
    ids=["few texts", "two columns", "two classes", "a row of two", "a row of none", "labels"],
)
def test_other_rows_get_no_hint(y: Any) -> None:
    """Any warning would be an error here."""
    warn_of_one_hot(check_labels(y))
