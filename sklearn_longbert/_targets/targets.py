"""Kinds of targets: classes, labels and numbers.

Each kind of target is one class. It knows its names, its number of outputs, its loss and its
linear probe, how targets become tensors, how logits become predictions, probabilities and a score,
and which logits stand for the outputs of another estimator. Invariant: no other module asks which
kind of target it has. A new kind of target is a new class here, with an entry in `TARGETS`.
"""

from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack
from scipy.special import expit, log_expit, log_softmax, logit, softmax
from torch import Tensor, nn

from sklearn_longbert._targets.base import ClassTargets, Probe, Targets
from sklearn_longbert._targets.checks import check_classes
from sklearn_longbert._targets.class_weights import (
    ClassWeight,
    weights_of_classes,
    weights_of_labels,
)
from sklearn_longbert._targets.linear_models import (
    LinearKind,
    certainty,
    sigmoid_models,
    softmax_model,
    square_models,
)
from sklearn_longbert._targets.linear_probe import (
    classification_probe,
    multilabel_probe,
    regression_probe,
)

LEAST_PROBABILITY = 1e-4  # that an estimator is believed; forests say 0 of what then happens


@dataclass(frozen=True, eq=False)
class Classes(ClassTargets):
    """One of several classes for each text.

    Attributes
    ----------
    classes : ndarray of shape (n_classes,)
        The labels, sorted.
    """

    classes: NDArray[Any]
    criterion: ClassVar[type[nn.Module]] = nn.CrossEntropyLoss

    @property
    def names(self) -> NDArray[Any]:
        """The classes."""
        return self.classes

    @property
    def probe(self) -> Probe:
        return partial(classification_probe, n=self.n_outputs)

    @property
    def linear_kind(self) -> LinearKind:
        return softmax_model(self.n_outputs)

    def index(self, y: NDArray[Any], name: str = "y") -> NDArray[np.int64]:
        if y.ndim == 2:
            raise ValueError(f"{name} has shape {y.shape} where one label a text is expected.")
        index_of = {label: index for index, label in enumerate(self.classes.tolist())}
        indices = np.array([index_of.get(label, -1) for label in y.tolist()], dtype=np.int64)
        if (indices < 0).any():
            unknown = int(np.flatnonzero(indices < 0)[0])
            raise ValueError(
                f"{name} at index {unknown} is {y.tolist()[unknown]!r}, which is not among "
                f"the classes {self.classes.tolist()}: name all that will ever come in the first "
                f"call, or leave the text out."
            )
        return indices

    def to_tensor(self, y: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(y)

    def originals(self, y: NDArray[np.int64]) -> NDArray[Any]:
        return self.classes[y]

    def logits_of(self, method: str, outputs: Any, classes: Any) -> NDArray[np.float64]:
        outputs = np.asarray(outputs, dtype=np.float64)
        if method == "predict_proba":
            outputs = np.log(np.clip(outputs, LEAST_PROBABILITY, 1.0))
        elif outputs.ndim == 1:
            outputs = np.column_stack([-outputs, outputs]) / 2
        classes = self.classes if classes is None else np.asarray(classes)
        fitted_to = self.classes.tolist()
        unknown = set(classes.ravel().tolist()).difference(fitted_to)
        if unknown:
            raise ValueError(
                f"classes_ holds {unknown.pop()!r}, which is not among the classes {fitted_to} "
                f"that the estimator was fitted to."
            )
        present = self.index(classes)
        if outputs.shape[1:] != present.shape:
            return outputs
        logits = np.repeat(outputs.min(axis=1, keepdims=True), self.n_outputs, axis=1)
        if method == "predict_proba":
            logits[:] = np.log(LEAST_PROBABILITY)
        logits[:, present] = outputs
        return logits

    def strata(self, y: NDArray[Any]) -> NDArray[Any]:
        return y

    def members(self, y: NDArray[np.int64]) -> csr_array:
        ones, rows = np.ones(len(y), dtype=np.intp), np.arange(len(y))
        return csr_array((ones, (rows, y)), shape=(len(y), self.n_outputs))

    def predictions(self, logits: NDArray[Any]) -> NDArray[Any]:
        return self.classes[self.probabilities(logits).argmax(axis=1)]

    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        if self.n_outputs == 2:
            difference = self.decisions(logits)
            return np.column_stack([expit(-difference), expit(difference)])
        return softmax(logits, axis=1)

    def log_probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        return log_softmax(logits, axis=1)

    def decisions(self, logits: NDArray[Any]) -> NDArray[Any]:
        return logits[:, 1] - logits[:, 0] if self.n_outputs == 2 else logits

    def class_weights(
        self, class_weight: ClassWeight, y: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return weights_of_classes(class_weight, y, weights, self.classes)

    def is_like(self, other: ClassTargets) -> bool:
        return isinstance(other, Classes) and np.array_equal(self.classes, other.classes)

    def check_given(self, classes: ArrayLike) -> None:
        if not np.array_equal(np.unique(check_classes(classes)), self.classes):
            raise ValueError(
                f"classes={classes!r} is not the same as on last call to partial_fit, "
                f"{self.classes}: pass the same or none."
            )

    def check(self, n_outputs: int) -> None:
        _check_distinct(self.classes, n_outputs)
        if not (self.classes == np.unique(self.classes)).all():
            raise ValueError("the classes are not sorted")


@dataclass(frozen=True, eq=False)
class Labels(ClassTargets):
    """Any number of labels for each text: an indicator matrix with one column per label.

    Attributes
    ----------
    columns : ndarray of shape (n_labels,)
        Names or numbers of the columns, in their order.
    """

    columns: NDArray[Any]
    names_columns: ClassVar[bool] = True
    criterion: ClassVar[type[nn.Module]] = nn.BCEWithLogitsLoss

    @property
    def names(self) -> NDArray[Any]:
        """The names of the columns."""
        return self.columns

    @property
    def probe(self) -> Probe:
        return partial(multilabel_probe, n=self.n_outputs)

    @property
    def linear_kind(self) -> LinearKind:
        return sigmoid_models(self.n_outputs)

    def index(self, y: NDArray[Any], name: str = "y") -> NDArray[np.int64]:
        if y.ndim != 2:
            raise ValueError(f"{name} has shape {y.shape} where an indicator matrix is expected.")
        if y.shape[1] != self.n_outputs:
            raise ValueError(
                f"{name} has {y.shape[1]} columns where {self.n_outputs}, one a label, are "
                f"expected."
            )
        return y

    def to_tensor(self, y: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(y).float()

    def originals(self, y: NDArray[Any]) -> NDArray[np.int64]:
        return y.astype(np.int64)

    def logits_of(self, method: str, outputs: Any, classes: Any) -> NDArray[np.float64]:
        if method == "decision_function":
            return np.asarray(outputs, dtype=np.float64)
        if isinstance(outputs, list):  # of arrays with a column for each class of a label
            outputs = np.column_stack(
                [
                    np.asarray(of_label) @ np.asarray(of_classes)
                    for of_label, of_classes in zip(outputs, classes, strict=True)
                ]
            )
        return logit(np.clip(outputs, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))

    def members(self, y: NDArray[np.int64]) -> csr_array:
        rarer = (y.mean(axis=0) <= 0.5).astype(y.dtype)  # of the two values of each label
        return csr_array(hstack([super().members(y), csr_array((y == rarer).astype(np.intp))]))

    def agreed_logits(self, y: NDArray[Any]) -> NDArray[np.float64]:
        sure = certainty(len(y))
        return np.select([(y == 1).all(axis=0), (y == 0).all(axis=0)], [sure, -sure], np.nan)

    def predictions(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        return (self.probabilities(logits) > 0.5).astype(np.int64)

    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        return expit(logits)

    def log_probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        return log_expit(logits)

    def decisions(self, logits: NDArray[Any]) -> NDArray[Any]:
        return logits

    def class_weights(
        self, class_weight: ClassWeight, y: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        return weights_of_labels(class_weight, y, weights)

    def is_like(self, other: ClassTargets) -> bool:
        # names are not compared: a checkpoint may have them, an indicator matrix has none
        return isinstance(other, Labels) and self.n_outputs == other.n_outputs

    def check_given(self, classes: ArrayLike) -> None:
        if not np.array_equal(np.asarray(classes), self.columns):
            raise ValueError(
                f"classes={classes!r} differs from that of the first call, {self.columns}, which "
                f"are the columns of the indicator matrix in order: pass the same or none."
            )

    def check(self, n_outputs: int) -> None:
        _check_distinct(self.columns, n_outputs)


@dataclass(frozen=True, eq=False)
class Numbers(Targets):
    """One or several numbers for each text, which are standardised for training.

    Attributes
    ----------
    mean, spread : ndarray of shape () or (n_targets,)
        Mean and standard deviation of the targets of the first fit. If there is one column of
        targets, both have no axis, and predictions have the shape (n_documents,).
    """

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    criterion: ClassVar[type[nn.Module]] = nn.MSELoss
    output_methods: ClassVar[tuple[str, ...]] = ("predict",)

    @classmethod
    def of(cls, values: NDArray[np.float64], weights: NDArray[np.float64]) -> Self:
        """Return the targets of a first fit, for values of shape (n_samples,) or (n_samples, k)."""
        largest = np.abs(values).max(axis=0)
        scale = np.where(largest == 0, 1.0, largest)  # squares neither overflow nor vanish
        scaled = values / scale
        mean = np.average(scaled, axis=0, weights=weights)
        spread = np.sqrt(np.average((scaled - mean) ** 2, axis=0, weights=weights))
        is_constant = (spread <= 1e-10) | (spread * scale == 0)
        return cls(mean * scale, np.where(is_constant, 1.0, spread * scale))

    @property
    def names(self) -> NDArray[np.intp]:
        """The numbers of the targets."""
        return np.arange(np.size(self.mean))

    @property
    def unit(self) -> NDArray[np.float64]:
        """The spread of the targets."""
        return self.spread

    @property
    def origin(self) -> NDArray[np.float64]:
        """The mean of the targets."""
        return self.mean

    @property
    def probe(self) -> Probe:
        return regression_probe

    @property
    def linear_kind(self) -> LinearKind:
        return square_models(self.n_outputs)

    def index(self, y: NDArray[np.float64], name: str = "y") -> NDArray[np.float64]:
        if y.shape[1:] != np.shape(self.mean):
            expected = (len(y), *np.shape(self.mean))
            raise ValueError(
                f"{name} has shape {y.shape} where {expected} is expected, after the targets that "
                f"fit was given: pass as many a text."
            )
        return y

    def to_tensor(self, y: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((y - self.mean) / self.spread).reshape(len(y), -1)

    def originals(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.predictions(y)

    def logits_of(self, method: str, outputs: Any, classes: Any) -> NDArray[np.float64]:
        values = np.asarray(outputs, dtype=np.float64)
        values = values.reshape(len(values), *np.shape(self.mean))
        return ((values - self.mean) / self.spread).reshape(len(values), -1)

    def predictions(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        values = self.in_unit(logits)
        return values if np.ndim(self.mean) else values[:, 0]

    def in_unit(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        return logits.astype(np.float64) * self.spread + self.mean

    def check_scored(self, n_texts: int) -> None:
        if n_texts < 2:
            raise ValueError(
                "The coefficient of determination needs at least two held-out texts, got one: "
                "raise validation_fraction, or pass more X_val and y_val."
            )

    def check(self, n_outputs: int) -> None:
        mean, spread = self.mean, self.spread
        if not all(isinstance(value, np.ndarray | np.generic) for value in (mean, spread)):
            raise ValueError("mean and spread are no arrays")
        if np.size(mean) != n_outputs or np.shape(mean) != np.shape(spread) or np.ndim(mean) > 1:
            raise ValueError(f"{np.size(mean)} targets and {n_outputs} outputs")
        if not (np.isfinite(mean).all() and np.isfinite(spread).all() and np.all(spread > 0)):
            raise ValueError("mean and spread must be finite, and spread above 0")


TARGETS: dict[str, type[Classes] | type[Labels] | type[Numbers]] = {
    "classes": Classes,
    "labels": Labels,
    "numbers": Numbers,
}
CRITERIA = {cls.criterion.__name__: cls.criterion for cls in TARGETS.values()}


def targets_state(targets: Targets) -> dict[str, Any]:
    """Return the kind of the targets and their attributes."""
    kind = next(kind for kind, cls in TARGETS.items() if type(targets) is cls)
    return {"kind": kind, **vars(targets)}


def targets_from_state(state: dict[str, Any]) -> Targets:
    """Return the targets that :func:`targets_state` was given.

    Raises
    ------
    ValueError
        If there is no such kind, or it has other attributes.
    """
    kind = state.get("kind")
    if kind not in TARGETS:
        raise ValueError(f"unknown kind of targets {kind!r}")
    values = {name: value for name, value in state.items() if name != "kind"}
    if set(values) != {field.name for field in fields(TARGETS[kind])}:
        raise ValueError(f"{kind} with the attributes {sorted(values)}")
    return TARGETS[kind](**values)


def targets_of_labels(labels: NDArray[Any]) -> ClassTargets:
    """Return the targets of a fit of these labels, which :func:`check_labels` has returned.

    Raises
    ------
    ValueError
        If all labels are the same.
    """
    if labels.ndim == 2:
        return Labels(np.arange(labels.shape[1]))
    classes = np.unique(labels)
    if len(classes) < 2:
        raise ValueError(
            f"y has one class only, {classes.tolist()[0]!r}, where at least two are needed: "
            f"check y, and that not all texts of the other classes have a weight of 0."
        )
    return Classes(classes)


def targets_of_parts(labels: NDArray[Any], classes: ArrayLike | None) -> ClassTargets:
    """Return the targets of a first ``partial_fit``; later ones may bring other labels.

    Raises
    ------
    ValueError
        If `classes`, all labels that will ever come, is missing or has fewer than two; or, with an
        indicator matrix, if it does not name each column once.
    """
    if labels.ndim == 2:
        if classes is None:
            return Labels(np.arange(labels.shape[1]))
        columns = np.asarray(classes)
        if columns.ndim != 1 or len(np.unique(columns)) < len(columns):
            raise ValueError(
                f"classes must name each column of the indicator matrix once, got {classes!r}."
            )
        return Labels(columns)
    if classes is None:
        raise ValueError("classes must be passed on the first call to partial_fit.")
    known = np.unique(check_classes(classes))
    if len(known) < 2:
        raise ValueError(
            f"classes={known.tolist()!r} where at least two are needed: pass all that will ever "
            f"come."
        )
    return Classes(known)


def _check_distinct(names: NDArray[Any], n_outputs: int) -> None:
    if not isinstance(names, np.ndarray) or names.shape != (n_outputs,):
        raise ValueError(f"names of shape {np.shape(names)} and {n_outputs} outputs")
    if len(np.unique(names)) < n_outputs:
        raise ValueError("the names are not distinct")
