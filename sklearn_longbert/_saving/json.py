"""Write values of Python and NumPy as JSON, and read them: parameters and labels, never code.

This is our own code because a library for more types, or for any type, would run code that a file
names.

Invariants: a value that JSON has no form for becomes an object with one key, which begins with "$"
and names its type. Reading makes values of these few types only, and checks them.
"""

from collections.abc import Callable
from math import isfinite
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, Philox

# the generators of RandomState, and the largest numbers in their states
GENERATORS = {kind.__name__: kind for kind in (MT19937, PCG64, PCG64DXSM, Philox, SFC64)}
MOST_OF_STATE = {
    "pos": 624,
    "buffer_pos": 4,
    "has_gauss": 1,
    "has_uint32": 1,
    "uinteger": 2**32 - 1,
    "state": 2**128 - 1,
    "inc": 2**128 - 1,
}
ARRAY_KINDS = "biufUOT"  # bool, numbers, str, objects that to_json takes, StringDType


def to_json(value: Any) -> Any:
    """Return a form that ``json.dumps`` takes, and :func:`from_json` turns into an equal value.

    Raises
    ------
    TypeError
        If `value`, or something in it, is of another type than None, bool, int, float, str, list,
        tuple, dict, path, torch.device, RandomState, NumPy scalar or array.
    """
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and isfinite(value):
        return value  # JSON keeps it to the last bit
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, dict) and all(type(k) is str and k[:1] != "$" for k in value):
        return {key: to_json(item) for key, item in value.items()}
    for kind, (types, form, _) in KINDS.items():
        if isinstance(value, types) and not _is_odd_array(value):
            return {kind: form(value)}
    raise TypeError(f"{value!r} is a {type(value).__name__}")


def from_json(value: Any) -> Any:
    """Return the value that :func:`to_json` was given.

    Raises
    ------
    ValueError
        If `value` did not come from :func:`to_json`.
    """
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    kinds = [key for key in value if key.startswith("$")]
    if not kinds:
        return {key: from_json(item) for key, item in value.items()}
    kind = kinds[0]
    if len(value) > 1 or kind not in KINDS:
        raise ValueError(f"unknown type {kind!r}")
    try:
        return KINDS[kind][2](value[kind])
    except ValueError:
        raise
    except Exception as error:  # wrong content brings errors of any kind
        raise ValueError(f"no {kind}: {error}") from error


def _is_odd_array(value: Any) -> bool:
    if not isinstance(value, np.ndarray | np.generic):
        return False
    is_extended = value.dtype.kind == "f" and value.dtype.itemsize > 8
    return is_extended or value.dtype.kind not in ARRAY_KINDS


def _dtype_name(dtype: np.dtype[Any]) -> str:
    return {"O": "object", "T": "StringDType"}.get(dtype.kind, dtype.str)


def _dtype(name: str) -> Any:
    if name == "StringDType":
        return np.dtypes.StringDType()
    dtype = np.dtype(name)
    if dtype.kind not in ARRAY_KINDS:
        raise ValueError(f"unknown dtype {name!r}")
    # Items give an array of str its width. A large width from a file would be allocated.
    return np.dtype(str) if dtype.kind == "U" else dtype


def _array_to_json(array: np.ndarray) -> list[Any]:
    return [_dtype_name(array.dtype), list(array.shape), to_json(array.tolist())]


def _array_from_json(content: Any) -> np.ndarray:
    name, shape, items = content
    dtype, items = _dtype(name), from_json(items)
    array: np.ndarray
    if dtype.kind == "O":
        array = np.empty(len(items), dtype=object)
        array[:] = items
    else:
        array = np.array(items, dtype=dtype)
    if array.shape != tuple(shape):
        raise ValueError(f"an array of shape {array.shape} where {tuple(shape)} is expected")
    return array


def _scalar_from_json(content: Any) -> Any:
    name, item = content
    return _dtype(name).type(from_json(item))


def _random_state_from_json(content: Any) -> np.random.RandomState:
    state = from_json(content)
    random_state = np.random.RandomState(GENERATORS[state["bit_generator"]](0))
    _check_state(state, random_state.get_state(legacy=False))
    random_state.set_state(state)
    return random_state


def _check_state(state: dict[str, Any], like: dict[str, Any]) -> None:
    """Raise ValueError unless the state of a generator has the form of another one.

    NumPy does not check it, and would read beyond a short key.
    """
    if state.keys() != like.keys():
        raise ValueError(f"a generator's state of {sorted(state)}")
    for name, expected in like.items():
        value = state[name]
        if type(value) is not type(expected):
            raise ValueError(f"{name} of a generator is of the wrong type")
        if isinstance(expected, dict):
            _check_state(value, expected)
        elif isinstance(expected, np.ndarray):
            if (value.shape, value.dtype) != (expected.shape, expected.dtype):
                raise ValueError(f"{name} of a generator has the wrong shape or type")
        elif isinstance(expected, int) and not 0 <= value <= MOST_OF_STATE[name]:
            raise ValueError(f"{name} of a generator is {value}")


# Each kind has its types, a function that makes a JSON form, and one that makes the value again.
# The first kind that fits a value is taken, because NumPy's float64 is a float, too.
KINDS: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "$array": (np.ndarray, _array_to_json, _array_from_json),
    "$scalar": (np.generic, lambda v: [v.dtype.str, to_json(v.item())], _scalar_from_json),
    "$float": (float, repr, float),  # NaN and infinity, which are no numbers in JSON
    "$tuple": (tuple, lambda v: [to_json(item) for item in v], lambda v: tuple(map(from_json, v))),
    "$dict": (
        dict,
        lambda v: [[to_json(key), to_json(item)] for key, item in v.items()],
        lambda v: {from_json(key): from_json(item) for key, item in v},
    ),
    "$path": (PathLike, fspath, Path),
    "$device": (torch.device, str, torch.device),
    "$random_state": (
        np.random.RandomState,
        lambda v: to_json(v.get_state(legacy=False)),
        _random_state_from_json,
    ),
}
