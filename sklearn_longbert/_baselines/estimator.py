"""A baseline of the caller's own: any estimator of raw texts.

Invariants: the caller's estimator is cloned and never changed; it gets the caller's own targets,
but of several labels those only that some texts have and others have not; and its outputs become
logits, of all classes in their order, by :mod:`sklearn_longbert._targets`.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import BaseEstimator, clone
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import has_fit_parameter

from sklearn_longbert._targets.base import Targets
from sklearn_longbert._targets.folds import inner_folds, join_groups
from sklearn_longbert._targets.pooled_linear import Floats

ROUNDING = 1e-3  # by which probabilities may be out of bounds


class EstimatorBaseline:
    """A model of raw texts, by an estimator of the caller.

    Parameters
    ----------
    estimator : estimator
        It takes a one-dimensional array of str.
    targets : Targets or None, default=None
        Those of a fitted estimator.
    agreed : ndarray of shape (n_outputs,) or None, default=None
        The logits of labels that all texts have, or none, of which a fitted estimator knows
        nothing; NaN of the others.

    Attributes
    ----------
    estimator : estimator
        Fitted to all texts, after ``fit``.
    """

    names = ("baseline",)
    weighs_classes = False
    takes_one_class = False

    def __init__(
        self,
        estimator: BaseEstimator,
        targets: Targets | None = None,
        agreed: Floats | None = None,
    ) -> None:
        self.estimator = estimator
        self._targets = targets
        self._agreed = agreed

    @property
    def shown(self) -> BaseEstimator:
        """What the user is shown: the estimator."""
        return self.estimator

    def unfitted(self) -> Self:
        """Return a new baseline like this one."""
        return type(self)(clone(self.estimator))

    def fit(
        self,
        texts: Sequence[str],
        targets: Targets,
        y: NDArray[Any],
        weights: NDArray[Any],
        groups: NDArray[Any] | None = None,
    ) -> list[Floats]:
        """Fit the estimator, and return what it says of texts that it was not fitted on.

        Parameters
        ----------
        texts : sequence of str
        targets : Targets
        y : ndarray of shape (n_texts,) or (n_texts, n_outputs)
            Targets, as the loss takes them.
        weights : ndarray of shape (n_texts,) or (n_texts, n_outputs)
            Several weights a text are averaged.
        groups : ndarray of shape (n_texts,) or None
            Texts of one group are on one side of every inner split.

        Returns
        -------
        out_of_fold : list of one ndarray of shape (n_texts, n_outputs)
            NaN in rows of texts that no fold tests.

        Raises
        ------
        ValueError
            If texts have different weights and the estimator takes none.
        """
        X = _as_array(texts)
        weights = weights.reshape(len(y), -1).mean(axis=1)
        strata = targets.strata(y)
        out_of_fold = np.full((len(y), targets.n_outputs), np.nan)
        for train, test in inner_folds(y, join_groups(texts, groups)):
            if strata is not None and len(np.unique(strata[train])) < 2:
                continue  # classifiers refuse one class
            model = self._fitted(X[train], y[train], weights[train], targets)
            out_of_fold[test] = model._logits(X[test])
        whole = self._fitted(X, y, weights, targets)
        self.estimator, self._targets, self._agreed = whole.estimator, targets, whole._agreed
        return [out_of_fold]

    def parts(self, texts: Sequence[str]) -> list[Floats]:
        """Return the logits for new texts, of shape (n_texts, n_outputs), as the only part."""
        return [self._logits(_as_array(texts))]

    def occurrences(self, text: str) -> None:
        """Return None: what an estimator makes of a text has no place in it."""

    def state(self) -> dict[str, Any]:
        """Return what a file keeps: the estimator as skops writes it.

        Raises
        ------
        ImportError
            If skops is not installed.
        TypeError
            If skops cannot write the estimator, or would not trust what it reads.
        """
        data = np.frombuffer(_dump(self.estimator), dtype=np.uint8)
        return {"skops": data, "agreed": self._agreed}

    def pickled(self) -> dict[str, Any]:
        """Return what a pickle keeps: the estimator itself."""
        return {"estimator": self.estimator, "agreed": self._agreed}

    @classmethod
    def from_state(cls, state: dict[str, Any], targets: Targets) -> Self:
        """Return the baseline whose :meth:`state` or :meth:`pickled` this is.

        Raises
        ------
        ImportError
            If skops is not installed.
        ValueError
            If the state holds no estimator, or types that skops does not trust.
        """
        data, estimator, agreed = state.get("skops"), state.get("estimator"), state.get("agreed")
        if not hasattr(estimator, "fit"):  # it has it in a pickle, and need not be a BaseEstimator
            if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
                raise ValueError("the baseline lacks its estimator")
            estimator = _load(data.tobytes())
        if not isinstance(agreed, np.ndarray) or agreed.shape != (targets.n_outputs,):
            raise ValueError("the baseline does not say which labels all its texts had")
        return cls(estimator, targets, agreed)

    def __repr__(self) -> str:
        return f"EstimatorBaseline({self.estimator!r})"

    def _fitted(
        self, X: NDArray[np.object_], y: NDArray[Any], weights: Floats, targets: Targets
    ) -> Self:
        """Return a fitted copy. Its estimator stays unfitted if all texts have the same labels."""
        agreed = targets.agreed_logits(y)
        caller_y, differing = targets.originals(y), np.flatnonzero(np.isnan(agreed))
        if len(differing) < len(agreed):
            # one label is given twice: estimators take one column for no indicator matrix
            caller_y = caller_y[:, np.repeat(differing, 2 if len(differing) == 1 else 1)]
        model = clone(self.estimator)
        if len(differing):
            _fit(model, X, caller_y, weights)
        return type(self)(model, targets, agreed)

    def _logits(self, X: NDArray[np.object_]) -> Floats:
        assert self._targets is not None
        assert self._agreed is not None
        logits = np.tile(self._agreed, (len(X), 1))
        differing = np.isnan(self._agreed)
        if differing.any():
            n_known = int(differing.sum())
            n_fitted = 2 if n_known == 1 < len(differing) else n_known
            known = _logits(self.estimator, X, self._targets, n_fitted)
            logits[:, differing] = known[:, :n_known]
        return logits


def _as_array(texts: Sequence[str]) -> NDArray[np.object_]:
    return np.fromiter(texts, dtype=object, count=len(texts))


def _fit(model: BaseEstimator, X: NDArray[np.object_], y: NDArray[Any], weights: Floats) -> None:
    given = _weights_for(model, weights)
    try:
        model.fit(X, y, **given)  # it may return None
    except Exception as error:
        error.add_note(
            f"This error is that of baseline={type(model).__name__}.fit, which gets raw texts and "
            f"targets of shape {y.shape}. A model of numbers needs a vectorizer before it, as in "
            f"make_pipeline(TfidfVectorizer(), Ridge()). A model of one target needs a "
            f"MultiOutputClassifier or MultiOutputRegressor around it if there are several."
        )
        raise


def _weights_for(estimator: BaseEstimator, weights: Floats) -> dict[str, Any]:
    """Return the arguments by which ``fit`` gets the weights, none where all are equal."""
    if (weights == weights[0]).all():
        return {}
    if get_config()["enable_metadata_routing"]:
        if get_routing_for_object(estimator).consumes("fit", ["sample_weight"]):
            return {"sample_weight": weights}
    elif has_fit_parameter(estimator, "sample_weight"):
        return {"sample_weight": weights}
    elif isinstance(estimator, Pipeline):
        name, last = estimator.steps[-1]
        if has_fit_parameter(last, "sample_weight"):
            return {f"{name}__sample_weight": weights}
    raise ValueError(
        f"baseline={type(estimator).__name__} takes no sample_weight, and texts have different "
        f"weights: pass an estimator that takes it, or, for one inside of another, "
        f"sklearn.set_config(enable_metadata_routing=True) and "
        f".set_fit_request(sample_weight=True)."
    )


def _logits(model: Any, X: NDArray[np.object_], targets: Targets, n_outputs: int) -> Floats:
    method = next(method for method in targets.output_methods if hasattr(model, method))
    if method == "decision_function" and n_outputs > 2:
        _check_one_per_class(model)
    returned = f"{method} of baseline={type(model).__name__} returned"
    try:
        outputs = getattr(model, method)(X)
        logits = targets.logits_of(method, outputs, getattr(model, "classes_", None))
    except Exception as error:
        error.add_note(f"This is an error of {method} of baseline={type(model).__name__}.")
        raise
    if logits.shape != (len(X), n_outputs):
        raise ValueError(
            f"{returned} values of shape {np.shape(outputs)} for {len(X)} texts, where one value "
            f"for each of {n_outputs} outputs is expected."
        )
    if not np.isfinite(logits).all():
        raise ValueError(f"{returned} values that are not finite.")
    if method == "predict_proba" and not _are_probabilities(outputs):
        raise ValueError(f"{returned} values that are not between 0 and 1.")
    return logits


def _are_probabilities(outputs: Any) -> bool:
    arrays = outputs if isinstance(outputs, list) else [outputs]  # of each label, or of all
    return all(
        ((values > -ROUNDING) & (values < 1 + ROUNDING)).all() for values in map(np.asarray, arrays)
    )


def _check_one_per_class(model: Any) -> None:
    """Raise ValueError if decisions are of pairs of classes: three classes have three pairs."""
    last = model
    while hasattr(last, "best_estimator_") or isinstance(last, Pipeline):
        last = last.steps[-1][1] if isinstance(last, Pipeline) else last.best_estimator_
    if getattr(last, "decision_function_shape", None) == "ovo":
        inside = "" if last is model else f", in {type(model).__name__},"
        raise ValueError(
            f"baseline={type(last).__name__}(decision_function_shape='ovo'){inside} decides "
            f"between pairs of classes, where one value for each class is expected: set "
            f"decision_function_shape='ovr'."
        )


def _skops() -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise ImportError(
            "To save or load an estimator as a baseline, skops is needed: "
            "pip install sklearn-longbert[skops]"
        ) from error
    return skops.io


def _dump(estimator: BaseEstimator) -> bytes:
    io = _skops()
    name = type(estimator).__name__
    try:
        data = io.dumps(estimator)
    except Exception as error:
        raise TypeError(f"skops cannot save baseline={name}: {error}") from error
    untrusted = io.get_untrusted_types(data=data)
    if untrusted:
        raise TypeError(
            f"baseline={name} holds {', '.join(untrusted)}, which skops does not trust when it "
            f'loads: use types of scikit-learn, or baseline="words", or keep it as a pickle.'
        )
    return data


def _load(data: bytes) -> Any:
    io = _skops()
    untrusted = io.get_untrusted_types(data=data)
    if untrusted:
        raise ValueError(f"the baseline holds {', '.join(untrusted)}, which skops does not trust")
    return io.loads(data)
