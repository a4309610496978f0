"""A net that skorch's scoring callbacks can score in training, as if it were the estimator.

skorch hands the net to a scorer of scikit-learn, with logits that are known already. The scorer
asks it for predictions, which the estimator makes of the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import Tags, get_tags
from skorch.callbacks import BatchScoring, Callback, EarlyStopping, EpochScoring
from torch import Tensor

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.poolings import POOLINGS
from sklearn_longbert._training.callbacks import StopTraining
from sklearn_longbert._training.evidence import least_loss
from sklearn_longbert._training.head_start import Start
from sklearn_longbert._training.steps import StepNet
from sklearn_longbert._training.validation import ValidationMonitor


@dataclass(frozen=True)
class Naming:
    """How tensors become what the caller knows.

    Attributes
    ----------
    targets_of : callable
        Maps tensors of targets to targets as the caller names them.
    estimator_of : callable
        Maps (net, X, logits) to an estimator whose predictions of `X` follow from `logits`.
    """

    targets_of: Callable[[Tensor], NDArray[Any]]
    estimator_of: Callable[[Any, Any, NDArray[Any]], Any]


class ScoredNet(StepNet):
    """The base of LongBertNet, with its validation texts and what callbacks are told and ask."""

    monitor: ValidationMonitor | None
    held_out: DocumentDataset | None
    first_start: Start | None
    naming_: Naming | None = None  # in training
    predict_logits: Callable[..., NDArray[Any]]  # of LongBertNet
    asked_: tuple[Any, Any] = (None, None)  # what gave the last logits, and they

    def get_split_datasets(
        self, X: DocumentDataset, y: Any = None, **_: Any
    ) -> tuple[DocumentDataset, DocumentDataset | None]:
        return X, None if self.monitor is None else self.monitor.dataset

    @property
    def evidence(self) -> Callable[[], tuple[float, float]] | None:
        """What returns the least loss of the held-out texts, and at which scale of the logits.

        It is None if no texts are held out, or no start tells which loss there is.
        """
        dataset, start = self.held_out, self.first_start
        if dataset is None or start is None:
            return None
        scalable = POOLINGS[self.module_.pooling].adds_up

        def judge() -> tuple[float, float]:
            logits = self.predict_logits(dataset.documents, dataset.parts)
            loss, scale = least_loss(logits.astype(np.float64), dataset, start.kind, scalable)
            if not np.isfinite(loss):
                raise self.diverged("The loss of the held-out texts")
            return loss, scale

        return judge

    def seen_by(self, callback: Callback, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments of a callback's method, with named targets if it scores them."""
        if self.naming_ is None or not isinstance(callback, BatchScoring | EpochScoring):
            return arguments
        if "batch" not in arguments:
            return arguments
        chunks, (targets, _) = arguments["batch"]
        return {**arguments, "batch": (chunks, self.naming_.targets_of(targets))}

    def notify(self, method_name: str, **kwargs: Any) -> None:
        getattr(self, method_name)(self, **kwargs)
        stop = False
        for _, callback in self.callbacks_:
            try:
                getattr(callback, method_name)(self, **self.seen_by(callback, kwargs))
            except StopTraining:
                stop = True
            except KeyboardInterrupt:
                # skorch's EarlyStopping raises the same error as a user who presses Ctrl-C
                if isinstance(callback, EarlyStopping) and callback.misses_ == callback.patience:
                    stop = True
                else:
                    raise
        if stop:  # after all callbacks have seen the last epoch
            raise StopTraining

    def estimator_of(self, X: Any, logits: Any) -> Any:
        """Return an estimator with the present weights, whose predictions of `X` are known."""
        if self.naming_ is None:
            raise AttributeError("a net predicts only in training: ask the estimator instead")
        return self.naming_.estimator_of(self, X, logits)

    def _asked(self, X: Any) -> Any:
        known = vars(self).get("forward_iter")  # skorch sets it, and it gives its logits only once
        if known is None or known is not self.asked_[0]:
            self.asked_ = known, torch.cat(list(self.forward_iter(X))).numpy()
        return self.estimator_of(X, self.asked_[1])

    def predict(self, X: Any) -> NDArray[Any]:
        return self._asked(X).predict(X)

    def predict_proba(self, X: Any) -> NDArray[Any]:
        return self._asked(X).predict_proba(X)

    def decision_function(self, X: Any) -> NDArray[Any]:
        return self._asked(X).decision_function(X)

    def score(self, X: Any, y: Any) -> float:
        return self._asked(X).score(X, y)

    @property
    def classes_(self) -> NDArray[Any]:
        """The classes of the estimator."""
        return self.estimator_of(None, None).classes_

    def __sklearn_tags__(self) -> Tags:
        return get_tags(self.estimator_of(None, None))
