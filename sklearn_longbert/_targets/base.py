"""What every kind of target can do, and what kinds with classes can do beside it."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn

from sklearn_longbert._targets.class_weights import ClassWeight
from sklearn_longbert._targets.linear_models import LinearKind
from sklearn_longbert._targets.linear_probe import FittedProbe
from sklearn_longbert._targets.pooled_linear import Embeddings


class Probe(Protocol):
    """Fits the linear model at which a head starts."""

    def __call__(
        self,
        embeddings: Embeddings,
        y: NDArray[Any],
        weights: NDArray[Any],
        *,
        groups: NDArray[Any] | None = None,
    ) -> FittedProbe: ...


class Targets(ABC):
    """One kind of target, with the values that a fit has learned of it.

    Attributes
    ----------
    names : ndarray of shape (n_outputs,)
        Names or numbers of the outputs, in their order.
    criterion : type of nn.Module
        Loss of logits and of the tensors that :meth:`to_tensor` returns.
    unit : float or ndarray of shape (n_outputs,)
        Rise of a prediction if its logit rises by one.
    output_methods : tuple of str
        Methods of other estimators that :meth:`logits_of` understands, the preferred one first.
    origin : float or ndarray of shape (n_outputs,)
        Prediction of a logit of zero.
    """

    criterion: ClassVar[type[nn.Module]]
    output_methods: ClassVar[tuple[str, ...]]
    unit: Any = 1.0
    origin: Any = 0.0

    @property
    @abstractmethod
    def names(self) -> NDArray[Any]: ...

    @property
    def n_outputs(self) -> int:
        """Number of logits of a text."""
        return len(self.names)

    @property
    @abstractmethod
    def probe(self) -> Probe:
        """The function that fits the linear model at which a head starts."""

    @property
    @abstractmethod
    def linear_kind(self) -> LinearKind:
        """The kind of linear model, and the loss of logits as arrays."""

    @abstractmethod
    def index(self, y: NDArray[Any], name: str = "y") -> NDArray[Any]:
        """Return checked targets as numbers, or raise ValueError at one that does not fit."""

    @abstractmethod
    def to_tensor(self, y: NDArray[Any]) -> Tensor:
        """Return the tensor that the loss compares logits with, from a result of :meth:`index`."""

    @abstractmethod
    def originals(self, y: NDArray[Any]) -> NDArray[Any]:
        """Return the caller's own targets, from values of :meth:`to_tensor`."""

    @abstractmethod
    def logits_of(self, method: str, outputs: Any, classes: Any) -> NDArray[np.float64]:
        """Return the logits that stand for another estimator's outputs.

        Parameters
        ----------
        method : str
            One of `output_methods`.
        outputs : ndarray or list of ndarray
            What that method returned.
        classes : ndarray, list of ndarray or None
            The ``classes_`` of that estimator, which may lack some.
        """

    def agreed_logits(self, y: NDArray[Any]) -> NDArray[np.float64]:
        """Return the logits of outputs that are certain, because all rows agree; NaN of others."""
        return np.full(self.n_outputs, np.nan)

    def strata(self, y: NDArray[Any]) -> NDArray[Any] | None:
        """Return the classes whose proportions a split keeps, None if there are none."""
        return None

    def members(self, y: NDArray[Any]) -> csr_array:
        """Return which rows are of which class, of shape (n_rows, n_classes); all are of one here.

        These are the classes most of whose rows have to train.
        """
        return csr_array(np.ones((len(y), 1), dtype=np.intp))

    @abstractmethod
    def predictions(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the result of ``predict`` for logits of shape (n_documents, n_outputs)."""

    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any] | None:
        """Return probabilities of the shape of `logits`, None where there are none."""
        return None

    def in_unit(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return logits in the unit in which they are explained."""
        return logits

    def check_scored(self, n_texts: int) -> None:  # noqa: B027 - accuracy needs no more than one
        """Raise ValueError unless ``score`` of the estimator takes `n_texts` held-out texts."""

    @abstractmethod
    def check(self, n_outputs: int) -> None:
        """Raise ValueError unless these targets fit a head of `n_outputs` outputs."""


class ClassTargets(Targets):
    """The base of classes and labels, which the caller names and which have class weights.

    Attributes
    ----------
    names_columns : bool
        Whether the names are those of the columns of an indicator matrix.
    """

    names_columns: ClassVar[bool] = False

    output_methods: ClassVar[tuple[str, ...]] = ("predict_proba", "decision_function")

    @abstractmethod
    def probabilities(self, logits: NDArray[Any]) -> NDArray[Any]: ...

    @abstractmethod
    def log_probabilities(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the logarithms of the probabilities, finite even where these round to 0."""

    @abstractmethod
    def decisions(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Return the result of ``decision_function`` for logits."""

    @abstractmethod
    def class_weights(
        self, class_weight: ClassWeight, y: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the class weight of each text, or of each label of each text."""

    @abstractmethod
    def is_like(self, other: "ClassTargets") -> bool:
        """Return whether a fit of these targets may go on from a fit of `other` ones."""

    @abstractmethod
    def check_given(self, classes: ArrayLike) -> None:
        """Raise ValueError unless ``partial_fit`` was given the same classes as at first."""
