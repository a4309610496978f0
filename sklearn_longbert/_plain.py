"""Plain values of parameters, which may be relatives of bool, int, float, str or Path.

Invariant: an estimator keeps what the caller passed. Its parameters are checked, used and saved as
plain values, so that what the check lets in can be used, saved and loaded.
"""

import os
from math import inf
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import validate_parameter_constraints


def plain(value: Any) -> Any:
    """Return a parameter as bool, int, float, str or Path if it is a relative of one of these.

    Lists, tuples and dicts hold plain values. The keys of a dict may be class labels: those of
    NumPy's types keep their type. All else is returned as it is.
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _float(value)
    if isinstance(value, str):
        return str.__str__(value)  # str() of an enumeration's member may be its name
    if isinstance(value, os.PathLike):
        return Path(os.fsdecode(value))
    if isinstance(value, dict):
        return {
            key if isinstance(key, np.generic) else plain(key): plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return (list if isinstance(value, list) else tuple)(map(plain, value))
    return value


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # NumPy's long double is infinite then, too; no parameter may be
        return inf if value > 0 else -inf


class PlainParameters(BaseEstimator):
    """Base of classes whose parameters are checked as plain values."""

    def _validate_params(self) -> None:
        validate_parameter_constraints(
            self._parameter_constraints,
            {name: plain(value) for name, value in self.get_params(deep=False).items()},
            caller_name=type(self).__name__,
        )
