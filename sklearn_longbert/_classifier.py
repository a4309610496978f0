"""LongBertClassifier, which predicts labels and their probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import StrOptions

from sklearn_longbert._estimator import LongBertEstimator
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._plain import plain
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL
from sklearn_longbert._shared_docs import with_shared_docs
from sklearn_longbert._targets.base import ClassTargets
from sklearn_longbert._targets.checks import check_labels, warn_of_one_hot
from sklearn_longbert._targets.class_weights import ClassWeight
from sklearn_longbert._targets.targets import targets_of_labels, targets_of_parts
from sklearn_longbert._training.labelled import Labelled


@with_shared_docs(score_name="the accuracy")
class LongBertClassifier(ClassifierMixin, LongBertEstimator):
    """Classify texts of any length with a pretrained encoder.

    A text is cut into chunks that the encoder can encode at once. Each chunk gets logits, and
    these are pooled into the logits of the text. Training computes one cross-entropy per text from
    its pooled logits, and back-propagates through all its chunks [1]_. A linear model of words says
    what it can before, and the encoder learns the rest. Nothing is truncated unless `max_chunks`
    is given. If `y` is an indicator matrix of zeros and ones, with one
    column per label, texts may have several labels or none. The loss is then the mean of the
    labels' binary cross-entropies.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The sorted labels. If `y` is an indicator matrix, the numbers of its columns, or the names
        that `partial_fit` was given for them.
    {attributes}

    See Also
    --------
    LongBertRegressor : The same for numeric targets.
    TextChunker : The first step alone, which a pipeline can cache.

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
        **LongBertEstimator._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }
    _check_targets = staticmethod(check_labels)
    _targets: ClassTargets

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        missing: str = "error",
        pooling: str = "mean",
        token_pooling: str = "auto",
        layers: str | tuple[int, ...] = "spread",
        baseline: Any = "words",
        head_init: str = "linear_probe",
        freeze_encoder: bool = False,
        fine_tuning_share: float | str = "auto",
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
        scoring: str | Callable[..., float] | None = None,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        tol: float = 1e-4,
        class_weight: ClassWeight = None,
        warm_start: bool = False,
        device: str | torch.device | Sequence[str | torch.device] = "auto",
        precision: str = "auto",
        inference: str = "torch",
        callbacks: list[Any] | None = None,
        checkpoint_folder: str | PathLike[str] | None = None,
        checkpoint_interval: float = 600,
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
            missing=missing,
            pooling=pooling,
            token_pooling=token_pooling,
            layers=layers,
            baseline=baseline,
            head_init=head_init,
            freeze_encoder=freeze_encoder,
            fine_tuning_share=fine_tuning_share,
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
            scoring=scoring,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            warm_start=warm_start,
            device=device,
            precision=precision,
            inference=inference,
            callbacks=callbacks,
            checkpoint_folder=checkpoint_folder,
            checkpoint_interval=checkpoint_interval,
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
        groups: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train the encoder and the head on labelled texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str; or
            documents or a TokenStore that TextChunker made of them.
        y : array-like of shape (n_samples,) or (n_samples, n_classes)
            Labels of at least two classes, or zeros and ones with one column per label. If each
            text has one class, pass labels: columns with a single 1 a row are warned of.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss. A text of weight 0 is left out.
        groups : array-like of shape (n_samples,), default=None
            Group of each text, such as its speaker, patient or author. The texts of a group are
            on one side of every inner split: of those of the baseline and of the linear probe,
            and of what early stopping or `fine_tuning_share` holds out.
        X_val, y_val : array-like of shape (n_validation_samples,), default=None
            Texts and labels that are scored after each epoch. Early stopping uses this score, and
            `fine_tuning_share` their loss.

        Returns
        -------
        self : LongBertClassifier

        Raises
        ------
        ValueError
            If texts, labels or parameters are not as described, the encoder cannot be
            loaded, training diverges, or the fit's file in `checkpoint_folder` is damaged.
        TypeError
            If `X` is not an array-like of str.
        OSError
            If the Hub is needed and cannot be reached, or `checkpoint_folder` not be written.
        """
        task = FitTask.of(self, X, y, sample_weight, plain(self.max_epochs))
        data = self._check_fit(X, y, sample_weight, groups, X_val is not None)
        validation = self._check_validation(X_val, y_val)
        targets = targets_of_labels(data.y)
        if self._is_warm():
            if not targets.is_like(self._targets):
                raise ValueError(
                    f"warm_start=True needs the same classes as the last fit, {self.classes_}, but "
                    f"y has {targets.names}: set warm_start=False; partial_fit takes texts of a "
                    f"part of the classes."
                )
            targets = self._targets
        data = self._indexed(targets, data)
        warn_of_one_hot(data.y)
        return self._fit(task, targets, data, validation)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train for one epoch, at a constant learning rate, on a part of the texts.

        It goes on from the weights of the last `partial_fit` or `fit`. Some settings stay those of
        the first call: those that shape the chunks and the network, `freeze_encoder`, `dropout`
        and the device. A pickle does not keep AdamW's running averages, so training goes on from it
        with new ones.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, as in :meth:`fit`.
        y : array-like of shape (n_samples,)
            Labels, all of them in `classes`, or zeros and ones with one column per label.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever come. It is needed in the first call only. For an indicator
            matrix it is never needed, and names the columns in their order.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss, relative to the others of this call.

        Returns
        -------
        self : LongBertClassifier

        Raises
        ------
        ValueError
            In the cases of :meth:`fit`; also if `classes` is missing in the first call or
            differs from it later, if `early_stopping` or `checkpoint_folder` is set, if
            `class_weight` is "balanced", or if the first call has texts of one class only and an
            estimator as `baseline`.
        """
        data = self._check_fit(X, y, sample_weight)
        if self.class_weight == "balanced":
            raise ValueError(
                'class_weight="balanced" is not known from a part of the texts: pass the weights '
                "as a dict."
            )
        if not hasattr(self, "net_"):
            targets = targets_of_parts(data.y, classes)
        else:
            targets = self._targets
            if classes is not None:
                targets.check_given(classes)
        return self._partial_fit(targets, self._indexed(targets, data))

    def _indexed(self, targets: ClassTargets, data: Labelled) -> Labelled:
        """Return the texts with indexed labels, and with weights of their classes."""
        indices = targets.index(data.y)
        of_classes = targets.class_weights(self.class_weight, indices, data.weights)
        return replace(data, y=indices, loss_weights=(of_classes.T * data.weights).T)

    @property
    def classes_(self) -> NDArray[Any]:
        """The labels, in the order of the outputs."""
        if not hasattr(self, "_targets"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'classes_'")
        return self._targets.names

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label, or all labels, of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        labels : ndarray of shape (n_samples,) or (n_samples, n_classes)
            Labels as fit was given them. If that was an indicator matrix, they are 1 where the
            probability exceeds one half.
        """
        logits = self._predict_logits(X)
        return self._targets.predictions(logits)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the probability of each class for each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        probabilities : ndarray of shape (n_samples, n_classes), dtype float32
            Probabilities in the order of `classes_`. If texts may have several labels, each
            label has a probability of its own, and rows do not sum to 1.
        """
        logits = self._predict_logits(X)
        return self._targets.probabilities(logits)

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the logarithm of the probability of each class for each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        log_probabilities : ndarray of shape (n_samples, n_classes), dtype float32
            Logarithms, which are finite even where the probability rounds to 0.
        """
        logits = self._predict_logits(X)
        return self._targets.log_probabilities(logits)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the pooled logits of each text, to which those of the baseline are added.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes) or (n_samples,), dtype float32
            Logits in the order of `classes_`. If each text has one of two classes, they are the
            logit of the second class less that of the first: a positive value means
            ``classes_[1]``.
        """
        logits = self._predict_logits(X)
        return self._targets.decisions(logits)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        if self._known is not None and self._targets.names_columns:
            tags.estimator_type = None  # scorers would take two columns for two classes
        return tags
