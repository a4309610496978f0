"""Find the baseline that a parameter names, and what a file keeps of it."""

from typing import Any

from sklearn.base import is_classifier

from sklearn_longbert._baselines.estimator import EstimatorBaseline
from sklearn_longbert._baselines.words import WordsBaseline
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._texts.checks import show

BASELINES: dict[str, type[WordsBaseline]] = {"words": WordsBaseline}

Baseline = WordsBaseline | EstimatorBaseline


def new_baseline(baseline: Any, targets: Targets) -> Baseline | None:
    """Return an unfitted baseline, or None if there is to be none.

    Parameters
    ----------
    baseline : None, str or estimator
    targets : Targets

    Raises
    ------
    ValueError
        If it is the name of no baseline.
    TypeError
        If it is no estimator, or one without the outputs that the targets need.
    """
    if baseline is None:
        return None
    expected = f"None, {', '.join(map(repr, BASELINES))} or an estimator of raw texts"
    if isinstance(baseline, str):
        if baseline not in BASELINES:
            raise ValueError(f"baseline={baseline!r} where {expected} is expected.")
        return BASELINES[baseline]()
    if isinstance(baseline, type):
        name = baseline.__name__
        raise TypeError(
            f"baseline is the class {name} where {expected} is expected: pass {name}()."
        )
    name = type(baseline).__name__
    if not (hasattr(baseline, "fit") and hasattr(baseline, "get_params")):
        raise TypeError(
            f"baseline={show(baseline)} where {expected} is expected: it lacks fit or get_params."
        )
    methods = targets.output_methods
    if not any(hasattr(baseline, method) for method in methods):
        raise TypeError(
            f"baseline={name} has no {' or '.join(methods)}: pass an estimator that has it."
        )
    if "predict_proba" not in methods and is_classifier(baseline):
        raise TypeError(f"baseline={name} is a classifier where a regressor is expected.")
    return EstimatorBaseline(baseline)


def check_same(baseline: Any, fitted: Baseline | None, targets: Targets) -> None:
    """Raise ValueError if the parameter `baseline` asks for another kind than the fitted one."""
    asked = new_baseline(baseline, targets)
    if type(asked) is not type(fitted):
        raise ValueError(
            f"The baseline of the first fit, {fitted!r}, is kept, but the parameter is now "
            f"baseline={show(baseline)}: leave it as it was, or fit a new estimator."
        )


def baseline_state(baseline: Baseline, in_pickle: bool = False) -> dict[str, Any]:
    """Return the kind of a fitted baseline, and its arrays and plain values.

    If `in_pickle`, an estimator is kept as it is.
    """
    kind = next((kind for kind, cls in BASELINES.items() if type(baseline) is cls), "estimator")
    return {"kind": kind, **(baseline.pickled() if in_pickle else baseline.state())}


def baseline_from_state(state: dict[str, Any], targets: Targets) -> Baseline:
    """Return the baseline whose :func:`baseline_state` this is.

    Raises
    ------
    ValueError
        If there is no such kind, or values are missing or do not fit each other.
    """
    kind = state.get("kind")
    cls: Any = EstimatorBaseline if kind == "estimator" else BASELINES.get(str(kind))
    if cls is None:
        raise ValueError(f"unknown kind of baseline {kind!r}")
    return cls.from_state(state, targets)
