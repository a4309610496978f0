"""LongBertRegressor, which predicts numbers in the caller's unit."""

from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils import Tags

from sklearn_longbert._estimator import LongBertEstimator
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._plain import plain
from sklearn_longbert._shared_docs import with_shared_docs
from sklearn_longbert._targets.checks import check_values
from sklearn_longbert._targets.targets import Numbers


@with_shared_docs(score_name="the coefficient of determination")
class LongBertRegressor(RegressorMixin, LongBertEstimator):
    """Predict numbers from texts of any length with a pretrained encoder.

    It is trained like :class:`LongBertClassifier`, with one output per target and the squared
    error as loss. Targets are standardised for training, and predictions are in the caller's unit.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    {attributes}

    See Also
    --------
    LongBertClassifier : The same for labels.

    Examples
    --------
    >>> from sklearn_longbert import LongBertRegressor
    >>> texts = ["A dull film. " * 40, "A lovely film. " * 40] * 4
    >>> stars = [1.0, 5.0] * 4
    >>> regressor = LongBertRegressor(chunk_size=64, random_state=0)
    >>> dull, lovely = regressor.fit(texts, stars).predict(["Dull, dull.", "Lovely, lovely."])
    >>> bool(dull < lovely)
    True
    """

    _check_targets = staticmethod(check_values)

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
        """Train the encoder and the head on texts with numeric targets.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str; or
            documents or a TokenStore that TextChunker made of them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss. A text of weight 0 is left out.
        groups : array-like of shape (n_samples,), default=None
            Group of each text, such as its speaker, patient or author. The texts of a group are
            on one side of every inner split: of those of the baseline and of the linear probe,
            and of what early stopping or `fine_tuning_share` holds out.
        X_val, y_val : array-like of shape (n_validation_samples,), default=None
            Texts and targets that are scored after each epoch. Early stopping uses this score, and
            `fine_tuning_share` their loss.

        Returns
        -------
        self : LongBertRegressor

        Raises
        ------
        ValueError
            If texts, targets or parameters are not as described, the encoder cannot be
            loaded, training diverges, or the fit's file in `checkpoint_folder` is damaged.
        TypeError
            If `X` is not an array-like of str.
        OSError
            If the Hub is needed and cannot be reached, or `checkpoint_folder` not be written.
        """
        task = FitTask.of(self, X, y, sample_weight, plain(self.max_epochs))
        data = self._check_fit(X, y, sample_weight, groups, X_val is not None)
        validation = self._check_validation(X_val, y_val)
        targets = self._targets if self._is_warm() else Numbers.of(data.y, data.weights)
        data = replace(data, y=targets.index(data.y))
        return self._fit(task, targets, data, validation)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch, at a constant learning rate, on a part of the texts.

        It goes on from the weights of the last `partial_fit` or `fit`. Some settings stay those of
        the first call: those that shape the chunks and the network, `freeze_encoder`, `dropout`,
        the device, and the mean and spread by which targets are standardised. A
        pickle does not keep AdamW's running averages, so training goes on from it with new ones.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss, relative to the others of this call.

        Returns
        -------
        self : LongBertRegressor

        Raises
        ------
        ValueError
            In the cases of :meth:`fit`, and if `early_stopping` or `checkpoint_folder` is set.
        """
        data = self._check_fit(X, y, sample_weight)
        targets = self._targets if hasattr(self, "net_") else Numbers.of(data.y, data.weights)
        return self._partial_fit(targets, replace(data, y=targets.index(data.y)))

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the predicted target of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or documents or a TokenStore that TextChunker made of them.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_targets), dtype float64
            Predictions in the unit of the targets of fit, and in the same form.
        """
        logits = self._predict_logits(X)
        return self._targets.predictions(logits)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
