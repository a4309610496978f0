"""LongBertClassifier: labels in, labels and probabilities out."""

from functools import partial
from numbers import Real
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from sklearn_longbert import _pretrained
from sklearn_longbert._base import BaseLongBert, with_shared_docs
from sklearn_longbert._checkpoint import is_regression
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._linear_probe import classification_probe, multilabel_probe
from sklearn_longbert._net import Probe
from sklearn_longbert._validation import check_classes, check_labels, show

CLASS_WEIGHT_DOC = """class_weight : dict, "balanced" or None, default=None
        Weight of each class, multiplied with `sample_weight`. "balanced" weights classes
        inversely to their share of the (weighted) training texts. With several labels a text
        the classes are 0 and 1, of each label by itself.
    """


@with_shared_docs(score_name="Accuracy", class_weight=CLASS_WEIGHT_DOC)
class LongBertClassifier(ClassifierMixin, BaseLongBert):
    """Classify texts of any length with a pretrained encoder.

    A text is cut into chunks that the encoder can read, each chunk gets logits, and these
    are pooled into the logits of the text. Training computes one cross-entropy a text from
    its pooled logits, and back-propagates through all its chunks [1]_. Nothing is truncated
    unless `max_chunks` is given. Where `y` is an indicator matrix, of zeros and ones and with
    a column a label, texts may have several labels or none: the loss is the mean of the
    labels' binary cross-entropies.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, sorted; of an indicator matrix the numbers of its columns.
    {attributes}

    See Also
    --------
    LongBertRegressor : The same for numeric targets.
    TextChunker : The first step alone, to be cached in a pipeline.

    References
    ----------
    .. [1] J. Devlin, "Plans to support longer sequences?", google-research/bert issue 27,
       2018.

    Examples
    --------
    >>> from sklearn_longbert import LongBertClassifier
    >>> texts = ["A dull film. " * 40, "A lovely film. " * 40] * 4
    >>> labels = ["bad", "good"] * 4
    >>> classifier = LongBertClassifier(chunk_size=64, learning_rate=1e-3, random_state=0)
    >>> classifier.fit(texts, labels).predict(["Lovely, lovely, lovely."])
    array(['good'], dtype='<U4')
    >>> classifier.n_chunks_
    array([3, 3, 3, 3, 3, 3, 3, 3])
    """

    _parameter_constraints = {
        **BaseLongBert._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }
    _check_targets = staticmethod(check_labels)

    def __init__(
        self,
        model_name: str | PathLike[str] = _pretrained.DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        pooling: str = "mean",
        token_pooling: str = "mean",
        head_init: str = "linear_probe",
        freeze_encoder: bool = False,
        max_epochs: int = 3,
        batch_size: int = 8,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        max_grad_norm: float | None = 1.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        micro_batch_tokens: int | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        tol: float = 1e-4,
        class_weight: dict[Any, float] | str | None = None,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        callbacks: list[Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(
            model_name,
            chunk_size=chunk_size,
            chunk_overlap=chunk_overlap,
            max_chunks=max_chunks,
            chunk_selection=chunk_selection,
            pooling=pooling,
            token_pooling=token_pooling,
            head_init=head_init,
            freeze_encoder=freeze_encoder,
            max_epochs=max_epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup_fraction=warmup_fraction,
            max_grad_norm=max_grad_norm,
            dropout=dropout,
            attention_dropout=attention_dropout,
            micro_batch_tokens=micro_batch_tokens,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            device=device,
            precision=precision,
            callbacks=callbacks,
            revision=revision,
            local_files_only=local_files_only,
            random_state=random_state,
            verbose=verbose,
        )
        self.class_weight = class_weight

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train the encoder and the head on labelled texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str; or
            what TextChunker makes of them.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of at least two classes; or zeros and ones, with a column a label.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss. A text of weight 0 is left out.
        X_val, y_val : array-like of shape (n_validation_samples,), default=None
            Texts and labels that are scored after each epoch; early stopping goes by them.

        Returns
        -------
        self : LongBertClassifier

        Raises
        ------
        ValueError
            If texts, labels or parameters are not as described, the encoder cannot be
            loaded, or training diverges.
        TypeError
            If `X` is no array-like of str.
        OSError
            If the Hub is needed and cannot be reached.
        """
        task = FitTask.of(self, X, y, sample_weight, self.max_epochs)
        inputs, labels, weights = self._check_fit(X, y, sample_weight)
        validation = self._check_validation(X_val, y_val)
        is_multilabel = labels.ndim == 2
        classes = np.arange(labels.shape[1]) if is_multilabel else np.unique(labels)
        if len(classes) < 2:
            raise ValueError(
                f"y has one class only, {classes.tolist()[0]!r}, where at least two are needed: "
                f"check y, and that not all texts of the other classes have a weight of 0."
            )
        if not self._continues():
            self.classes_, self._is_multilabel = classes, is_multilabel
        elif not self._has_classes(classes, is_multilabel):
            raise ValueError(
                f"warm_start=True needs the same classes as the last fit, {self.classes_}, but y "
                f"has {classes}: set warm_start=False, or use partial_fit."
            )
        indices = self._encode_labels(labels, "y")
        class_weights = self._class_weights(indices, weights)
        if validation is not None:
            validation = validation[0], self._encode_labels(validation[1], "y_val")
        return self._fit(task, inputs, indices, weights, validation, class_weights)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch, at a constant learning rate, on a part of the texts.

        It goes on from the weights of the last `partial_fit` or `fit`. What shapes the chunks
        and the network, `freeze_encoder`, `dropout`, the device and the precision are those of
        the first call. A pickle does not keep AdamW's running averages, so that training goes on
        from it with new ones.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, as in :meth:`fit`.
        y : array-like of shape (n_samples,)
            Labels, all of them in `classes`; or zeros and ones, with a column a label.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come; needed in the first call only. For an indicator
            matrix not at all: there it names the columns, in their order.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss, relative to the others of this call.

        Returns
        -------
        self : LongBertClassifier

        Raises
        ------
        ValueError
            As :meth:`fit`; and if `classes` is missing in the first call or differs from
            it later, `early_stopping` is set, or `class_weight` is "balanced".
        """
        inputs, labels, weights = self._check_fit(X, y, sample_weight)
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" is not known from a part of the texts: pass the weights '
                "as a dict."
            )
        if not hasattr(self, "net_"):
            self.__dict__.pop("classes_", None)  # what a call that failed has left
            self._is_multilabel = labels.ndim == 2
            if self._is_multilabel and classes is None:
                classes = np.arange(labels.shape[1])
        self._check_classes(classes)
        if len(self.classes_) < 2:
            raise ValueError(
                f"classes has one class only, {self.classes_.tolist()[0]!r}, where at least two "
                f"are needed: pass all that will ever come."
            )
        indices = self._encode_labels(labels, "y")
        weights = (self._class_weights(indices, weights).T * weights).T
        return self._partial_fit(inputs, indices, weights)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label, or all labels, of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        labels : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Of the kind that fit was given; of an indicator matrix 1 where the probability
            exceeds one half.
        """
        return self._labels_of(self._probabilities_of(self._predict_logits(X)))

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the probability of each class for each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), dtype float32
            In the order of `classes_`. Where texts have several labels, each has a
            probability of its own, and rows do not sum to 1.
        """
        return self._probabilities_of(self._predict_logits(X))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the logarithm of the probability of each class for each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), dtype float32
            Finite also where the probability rounds to 0.
        """
        logits = self._predict_logits(X)
        return log_expit(logits) if self._is_multilabel else log_softmax(logits, axis=1)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the pooled logits of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,), dtype float32
            With two classes, one a text, the logit of the second less that of the first, so that a
            positive value means ``classes_[1]``.
        """
        logits = self._predict_logits(X)
        return logits[:, 1] - logits[:, 0] if self._is_binary(logits) else logits

    def _is_binary(self, logits: NDArray[np.float32]) -> bool:
        return logits.shape[1] == 2 and not self._is_multilabel

    def _probabilities_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._is_multilabel:
            return expit(logits)
        if self._is_binary(logits):
            difference = logits[:, 1] - logits[:, 0]
            return np.column_stack([expit(-difference), expit(difference)])
        return softmax(logits, axis=1)

    def _labels_of(self, probabilities: NDArray[np.float32]) -> NDArray[Any]:
        if self._is_multilabel:
            return (probabilities > 0.5).astype(np.int64)
        return self.classes_[probabilities.argmax(axis=1)]

    def _outcome(self, pooled: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None, Any]:
        probabilities = self._probabilities_of(pooled[None])
        return pooled, probabilities[0], self._labels_of(probabilities)[0]

    def _explained_classes(self) -> NDArray[Any]:
        return self.classes_

    _saved_attributes = BaseLongBert._saved_attributes | {"classes_", "_is_multilabel"}

    def _check_classes(self, classes: ArrayLike | None) -> None:
        """Take over, or compare, what a call of partial_fit was given."""
        if not self._is_multilabel:
            known = None if classes is None else np.unique(check_classes(classes))
            if not hasattr(self, "classes_"):
                if known is None:
                    raise ValueError("classes must be passed on the first call to partial_fit.")
                self.classes_ = known
            elif known is not None and not np.array_equal(known, self.classes_):
                raise ValueError(
                    f"classes={classes!r} is not the same as on last call to partial_fit, "
                    f"{self.classes_}: pass the same or none."
                )
            return
        if classes is None:
            return
        names = np.asarray(classes)  # of the columns, in their order
        if not hasattr(self, "classes_"):
            if names.ndim != 1 or len(np.unique(names)) < len(names):
                raise ValueError(
                    f"classes must name each column of the indicator matrix once, got {classes!r}."
                )
            self.classes_ = names
        elif not np.array_equal(names, self.classes_):
            raise ValueError(
                f"classes={classes!r} differs from that of the first call, {self.classes_}, which "
                f"are the columns of the indicator matrix in order: pass the same or none."
            )

    def _class_weights(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the weight that its class gives each text, or each label of each text."""
        if not self._is_multilabel:
            return self._weights_of(indices, weights, self.classes_)
        of_labels = [self._weights_of(label, weights, np.arange(2)) for label in indices.T]
        return np.column_stack(of_labels)

    def _weights_of(
        self, indices: NDArray[np.int64], weights: NDArray[np.float64], classes: NDArray[Any]
    ) -> NDArray[np.float64]:
        if self.class_weight == "balanced":
            # of weighted counts, so that a weight of k is as good as k copies
            counts = np.bincount(indices, weights, minlength=len(classes))
            return weights.sum() / (len(counts) * counts[indices])
        given: dict[Any, Any] = self.class_weight if isinstance(self.class_weight, dict) else {}
        for label, weight in given.items():
            # within limits, so that products with sample weights neither overflow nor vanish
            is_number = isinstance(weight, Real)
            if not (is_number and 1e-50 <= weight <= 1e50):
                raise ValueError(
                    f"class_weight must be finite and above 0, from 1e-50 to 1e50, got "
                    f"{show(weight)} for {label!r}: to leave a class out, leave out its texts."
                )
        # of all classes, because a part of the texts may lack one that has a weight
        return compute_class_weight(self.class_weight, classes=classes, y=classes)[indices]

    def _encode_labels(self, labels: NDArray[Any], name: str) -> NDArray[np.int64]:
        """Return indices of classes, or the indicator matrix as it is."""
        if (labels.ndim == 2) != self._is_multilabel:
            expected = "an indicator matrix" if self._is_multilabel else "one label a text"
            raise ValueError(f"{name} has shape {labels.shape} where {expected} is expected.")
        if self._is_multilabel:
            if labels.shape[1] != len(self.classes_):
                raise ValueError(
                    f"{name} has {labels.shape[1]} columns where {len(self.classes_)}, one a "
                    f"label, are expected."
                )
            return labels
        index_of = {label: index for index, label in enumerate(self.classes_.tolist())}
        indices = np.array([index_of.get(label, -1) for label in labels.tolist()], dtype=np.int64)
        if (indices < 0).any():
            unknown = int(np.flatnonzero(indices < 0)[0])
            raise ValueError(
                f"{name} at index {unknown} is {labels.tolist()[unknown]!r}, which is not among "
                f"the classes {self.classes_.tolist()}."
            )
        return indices

    def _has_classes(self, classes: NDArray[Any], is_multilabel: bool) -> bool:
        if self._is_multilabel and is_multilabel:  # a checkpoint may have names for the columns
            return len(classes) == len(self.classes_)
        return self._is_multilabel == is_multilabel and np.array_equal(classes, self.classes_)

    def _take_labels(self, config: Any) -> list[int]:
        if is_regression(config):
            raise ValueError(
                f"The checkpoint predicts {config.num_labels} numbers (problem_type="
                f"{config.problem_type!r}): use LongBertRegressor.from_pretrained."
            )
        labels = [config.id2label.get(index) for index in range(config.num_labels)]
        if not all(isinstance(label, str) for label in labels):
            raise ValueError(
                f"The checkpoint's id2label must name its outputs, 0 to {len(labels) - 1}, got "
                f"{config.id2label}: mend its config.json."
            )
        if len(set(labels)) < len(labels):
            raise ValueError(
                f"The checkpoint's id2label repeats a label, {config.id2label}: mend its "
                f"config.json."
            )
        names = np.array(labels)
        self._is_multilabel = config.problem_type == "multi_label_classification"
        if self._is_multilabel:
            self.classes_ = names
            return list(range(len(names)))
        self.classes_, order = np.unique(names, return_index=True)
        return order.tolist()

    def _check_saved(self, fitted: dict[str, Any], n_outputs: int) -> None:
        super()._check_saved(fitted, n_outputs)
        classes, is_multilabel = fitted["classes_"], fitted["_is_multilabel"]
        if classes.shape != (n_outputs,) or not isinstance(is_multilabel, bool):
            raise ValueError(f"classes_ of shape {classes.shape} and {n_outputs} outputs")
        distinct = np.unique(classes)
        if len(distinct) < n_outputs or not (is_multilabel or (classes == distinct).all()):
            raise ValueError("classes_ must be distinct and sorted")

    def _criterion(self) -> type[nn.Module]:
        return nn.BCEWithLogitsLoss if self._is_multilabel else nn.CrossEntropyLoss

    def _probe(self) -> Probe:
        probe = multilabel_probe if self._is_multilabel else classification_probe
        return partial(probe, n=self._n_outputs(), shrink=not self.freeze_encoder)

    def _n_outputs(self) -> int:
        return len(self.classes_)

    def _encode_targets(self, y: NDArray[np.int64], name: str = "y") -> Tensor:
        targets = torch.from_numpy(y)
        return targets.float() if self._is_multilabel else targets

    @staticmethod
    def _score_logits(logits: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any]) -> float:
        predicted = logits > 0 if targets.ndim == 2 else logits.argmax(axis=1)
        return accuracy_score(targets, predicted, sample_weight=weights)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
