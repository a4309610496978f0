"""Check texts as they come from the caller.

Every error says what was found, at which index, and what to do about it.
"""

import numbers
import reprlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

ACCEPTED = "a list, tuple, NumPy array, or pandas, polars or pyarrow column of str"
CURES = {  # a method of tables that hold no texts in memory, and how to get the texts out of them
    "collect": 'pass {name}.select("text").collect(), with the name of the column of texts',
    "fetchall": "let it select the column of texts alone, and pass {name}.fetchall()",
    "cast_column": 'of one split, pass list({name}["text"]), with the name of the column of texts',
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def is_missing(value: Any) -> bool:
    """Return whether `value` is missing.

    Missing are None, NaN, pd.NA, pd.NaT, and the nulls of NumPy, PyArrow and masked arrays.
    """
    if value is None or value is np.ma.masked or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, Decimal):  # a signalling NaN cannot be compared
        return value.is_nan()
    return isinstance(value, numbers.Number | np.datetime64 | np.timedelta64) and bool(
        value != value
    )


def show(value: Any) -> str:
    """Return a short form of `value` for a message, even where its repr fails."""
    try:
        return _short.repr(value)
    except Exception:  # repr of an int of too many digits, or of the caller's own class
        return f"<{type(value).__name__}>"


def as_column(X: Any, name: str = "X") -> NDArray[np.object_]:
    """Return any accepted container as an object array of shape (n_samples,).

    The elements are left as they are. A data frame, a table and an array of two dimensions must
    have one column.
    """
    _check_container(X, name)
    column = _to_object_array(X, name)
    if isinstance(X, np.ma.MaskedArray) and X.mask is not np.ma.nomask:
        column = np.where(X.mask, np.array(None, dtype=object), column)
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    if column.ndim != 1:
        raise ValueError(
            f"{name} has shape {column.shape} where {ACCEPTED}, of shape (n_samples,) or "
            f"(n_samples, 1), is expected: {_cure_of_shape(X, column, name)}."
        )
    if len(column) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required: "
            f"{name} is empty, pass at least one text."
        )
    return column


def _cure_of_shape(X: Any, column: NDArray[np.object_], name: str) -> str:
    if column.ndim == 0:
        return f"for one text, pass it in a list, [{name}]"
    if isinstance(X, list | tuple) and column.ndim == 2 and column.shape[1]:
        return f"for the texts of rows in one, pass {_joined(name)}"
    return f"pass the column that holds the texts, such as {name}[:, 0]"


def _joined(name: str) -> str:
    return f'[" ".join(row) for row in {name}]'


def _check_container(X: Any, name: str) -> None:
    """Raise an error if `X` is no container, or one of several columns."""
    if isinstance(X, str | bytes):
        raise ValueError(
            f"{name} is a single {type(X).__name__} where {ACCEPTED} is expected: "
            f"for one text, pass it in a list, [{name}]."
        )
    cures = [cure for method, cure in CURES.items() if hasattr(X, method)]
    is_sequence = hasattr(X, "__len__") and hasattr(X, "__getitem__")
    if cures or isinstance(X, Mapping) or not (is_sequence or hasattr(X, "__array__")):
        cure = cures[0] if cures else "pass list({name}) if its elements are the texts"
        raise TypeError(
            f"{name} is a {type(X).__name__} where {ACCEPTED} is expected: "
            f"{cure.format(name=name)}."
        )
    if hasattr(X, "columns") and X.shape[1] != 1:
        raise ValueError(
            f"{name} has shape {tuple(X.shape)} where {ACCEPTED}, of shape (n_samples,), is "
            f"expected: select the column that holds the texts."
        )


def _to_object_array(X: Any, name: str) -> NDArray[np.object_]:
    try:
        return check_array(
            X,
            dtype=object,
            ensure_2d=False,
            allow_nd=True,
            ensure_all_finite=False,
            ensure_min_samples=0,
            ensure_min_features=0,
            input_name=name,
        )
    except (TypeError, ValueError):
        raise
    except Exception as error:
        raise_no_array(X, name, error)


def check_texts(X: Any, name: str = "X", missing: str = "error", first: int = 0) -> list[str]:
    """Return `X` as a list of str, or say which element is not a text.

    Parameters
    ----------
    X : array-like of shape (n_samples,)
        A list, tuple, NumPy array (object, str, StringDType), pandas or polars Series,
        pyarrow array, or a frame or an array with one column.
    name : str, default="X"
        Name of `X` in error messages.
    missing : {"error", "empty"}, default="error"
        Whether a missing text is an error or an empty text.
    first : int, default=0
        Index of the first text, for messages.

    Returns
    -------
    texts : list of str

    Raises
    ------
    ValueError
        If `X` is empty, a single text or of several columns, or if an element cannot be encoded
        in UTF-8, or is missing where that is an error.
    TypeError
        If `X` is not such a container, or an element is not a str.
    """
    texts = as_column(X, name).tolist()
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            if missing != "empty" or not is_missing(text):
                _raise_not_a_text(text, first + index, name)
            texts[index] = ""
        elif type(text) is not str:
            texts[index] = str.__str__(text)  # str() of an enumeration's member is its name
        if not texts[index].isascii():
            _check_encodable(texts[index], first + index, name)
    return texts


def raise_no_array(values: Any, name: str, error: Exception) -> NoReturn:
    raise TypeError(
        f"{name} is a {type(values).__name__}, which cannot be made a NumPy array: {error}"
    ) from error


def _raise_not_a_text(value: Any, index: int, name: str) -> NoReturn:
    where = f"{name} at index {index} is"
    if is_missing(value):
        raise ValueError(
            f"{where} missing ({value!r}) where a str is expected: drop the row, put an empty "
            f'text "" in its place, or set missing="empty".'
        )
    if isinstance(value, list | tuple):
        raise TypeError(
            f"{where} of type {type(value).__name__} where a str is expected: for the texts of "
            f"rows in one, pass {_joined(name)}."
        )
    if isinstance(value, bytes):
        raise TypeError(f'{where} bytes where a str is expected: decode it, .decode("utf-8").')
    raise TypeError(
        f"{where} of type {type(value).__name__} where a str is expected: {name} must be "
        f"{ACCEPTED}."
    )


def _check_encodable(text: str, index: int, name: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} at index {index} has a lone surrogate, {text[error.start]!r}, at character "
            f"{error.start}, which is not valid Unicode: replace it, "
            f'text.encode("utf-8", "replace").decode("utf-8").'
        ) from error
