"""LongBertRegressor: numbers in, numbers out, in the caller's unit."""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from torch import Tensor, nn

from sklearn_longbert._base import BaseLongBert, with_shared_docs
from sklearn_longbert._checkpoint import is_regression
from sklearn_longbert._fit_tasks import FitTask
from sklearn_longbert._linear_probe import regression_probe
from sklearn_longbert._net import Probe
from sklearn_longbert._validation import check_values


@with_shared_docs(score_name="The coefficient of determination", class_weight="")
class LongBertRegressor(RegressorMixin, BaseLongBert):
    """Predict numbers from texts of any length with a pretrained encoder.

    As :class:`LongBertClassifier`, with an output a target and the squared error as loss.
    Targets are standardised for training, and predictions are returned in the caller's unit.

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
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train the encoder and the head on texts with numeric targets.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str; or
            what TextChunker makes of them.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weight of each text in the loss. A text of weight 0 is left out.
        X_val, y_val : array-like of shape (n_validation_samples,), default=None
            Texts and targets that are scored after each epoch; early stopping goes by them.

        Returns
        -------
        self : LongBertRegressor

        Raises
        ------
        ValueError
            If texts, targets or parameters are not as described, the encoder cannot be
            loaded, or training diverges.
        TypeError
            If `X` is no array-like of str.
        OSError
            If the Hub is needed and cannot be reached.
        """
        task = FitTask.of(self, X, y, sample_weight, self.max_epochs)
        inputs, values, weights = self._check_fit(X, y, sample_weight)
        validation = self._check_validation(X_val, y_val)
        if not self._continues():
            self._set_unit(values, weights)
        return self._fit(task, inputs, values, weights, validation)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch, at a constant learning rate, on a part of the texts.

        It goes on from the weights of the last `partial_fit` or `fit`. What shapes the chunks
        and the network, `freeze_encoder`, `dropout`, the device and the precision, and the mean
        and spread by which targets are standardised, are those of the first call. A pickle does
        not keep AdamW's running averages, so that training goes on from it with new ones.

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
            As :meth:`fit`, and if `early_stopping` is set.
        """
        inputs, values, weights = self._check_fit(X, y, sample_weight)
        if not hasattr(self, "net_"):
            self._set_unit(values, weights)
        return self._partial_fit(inputs, values, weights)

    def predict(self, X: ArrayLike) -> NDArray[np.float32]:
        """Return the predicted target of each text.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts, or what TextChunker makes of them.

        Returns
        -------
        values : ndarray of shape (n_samples,) or (n_samples, n_targets), dtype float32
            In the unit, and of the shape, of the targets of fit.
        """
        return self._values_of(self._predict_logits(X))

    def _values_of(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        in_unit = self._in_unit(logits.astype(np.float64))
        largest = np.finfo(np.float32).max  # a target next to it may be predicted beyond it
        values = np.clip(in_unit, -largest, largest).astype(np.float32)
        return values if np.ndim(self._mean) else values[:, 0]

    def _outcome(self, pooled: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None, Any]:
        values = self._values_of(pooled[None])
        return values.reshape(-1), None, values[0]

    def _explained_classes(self) -> NDArray[Any]:
        return np.arange(self._n_outputs())

    def _in_unit(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        return logits * self._unit() + self._mean

    def _unit(self) -> float | NDArray[np.float64]:
        return self._spread

    def _set_unit(self, values: NDArray[np.float64], weights: NDArray[np.float64]) -> None:
        self._mean = np.average(values, axis=0, weights=weights)
        spread = np.sqrt(np.average((values - self._mean) ** 2, axis=0, weights=weights))
        is_rounding = spread <= 1e-10 * np.abs(values).max(axis=0)
        self._spread = np.where(is_rounding, 1.0, spread)

    def _take_labels(self, config: Any) -> list[int]:
        if not is_regression(config):
            raise ValueError(
                f"The checkpoint predicts {config.num_labels} labels (problem_type="
                f"{config.problem_type!r}): use LongBertClassifier.from_pretrained."
            )
        shape = (config.num_labels,) if config.num_labels > 1 else ()
        self._mean, self._spread = np.zeros(shape), np.ones(shape)
        return list(range(config.num_labels))

    _saved_attributes = BaseLongBert._saved_attributes | {"_mean", "_spread"}

    def _check_saved(self, fitted: dict[str, Any], n_outputs: int) -> None:
        super()._check_saved(fitted, n_outputs)
        mean, spread = fitted["_mean"], fitted["_spread"]
        if np.size(mean) != n_outputs or np.shape(mean) != np.shape(spread) or np.ndim(mean) > 1:
            raise ValueError(f"{np.size(mean)} targets and {n_outputs} outputs")
        if not (np.isfinite(mean).all() and np.isfinite(spread).all() and np.all(spread > 0)):
            raise ValueError("_mean and _spread must be finite, and _spread above 0")

    def _criterion(self) -> type[nn.Module]:
        return nn.MSELoss

    def _probe(self) -> Probe:
        return regression_probe

    def _n_outputs(self) -> int:
        return int(np.size(self._mean))

    def _encode_targets(self, y: NDArray[np.float64], name: str = "y") -> Tensor:
        if y.shape[1:] != np.shape(self._mean):
            expected = (len(y), *np.shape(self._mean))
            raise ValueError(
                f"{name} has shape {y.shape} where {expected} is expected, after the targets that "
                f"fit was given: pass as many a text."
            )
        return torch.from_numpy((y - self._mean) / self._spread).reshape(len(y), -1)

    @staticmethod
    def _score_logits(logits: NDArray[Any], targets: NDArray[Any], weights: NDArray[Any]) -> float:
        return r2_score(targets, logits, sample_weight=weights)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
