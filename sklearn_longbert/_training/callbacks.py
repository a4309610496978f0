"""Callbacks around the batches of training: schedule, validation, stopping, progress."""

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback
from torch import Tensor

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._fit_tasks import FitTask

Score = Callable[[NDArray[Any], NDArray[Any], NDArray[Any]], float]


class StopTraining(Exception):  # noqa: N818 - a signal like StopIteration, not an error
    """Signal that ends the epochs. skorch's own, KeyboardInterrupt, is left to the user."""


def linear_schedule(step: int, n_warmup: int, n_steps: int) -> float:
    """Return the factor of the learning rate at a step, from 0: up to 1, then down, never 0."""
    if step < n_warmup:
        return (step + 1) / (n_warmup + 1)
    return max(n_steps - step, 1) / max(n_steps - n_warmup, 1)


class ValidationMonitor(Callback):
    """Score held-out documents after each epoch; optionally stop early with the best weights.

    Stopping follows scikit-learn's MLPClassifier: training ends when the score has not risen
    by `tol` over the best one for more than `n_iter_no_change` epochs in a row.

    Parameters
    ----------
    dataset : DocumentDataset
    score : callable
        Maps (logits, targets, weights) to a float; higher is better.
    early_stopping : bool
    n_iter_no_change : int
    tol : float
    """

    def __init__(
        self,
        dataset: DocumentDataset,
        score: Score,
        early_stopping: bool,
        n_iter_no_change: int,
        tol: float,
    ) -> None:
        self.dataset = dataset
        self.score = score
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.best_score_, self.best_loss_ = -np.inf, np.inf
        self.best_weights_: dict[str, Tensor] | None = None
        self.n_without_gain_ = 0

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        logits = net.predict_logits(self.dataset.documents)
        if not np.isfinite(logits).all():
            raise net.diverged("A logit of the validation texts")
        targets, weights = self.dataset.targets, self.dataset.weights
        losses = net.document_losses(torch.from_numpy(logits), targets)
        loss = float((losses.mean(1) * weights).sum() / weights.sum())
        net.history.record("valid_loss", loss)
        net.history.record("valid_loss_best", loss < self.best_loss_)  # for skorch's Checkpoint
        self.best_loss_ = min(loss, self.best_loss_)
        score = float(self.score(logits, targets.numpy(), weights.numpy()))
        net.history.record("valid_score", score)
        if not self.early_stopping:
            return
        gained = score >= self.best_score_ + self.tol
        self.n_without_gain_ = 0 if gained else self.n_without_gain_ + 1
        if score > self.best_score_:
            self.best_score_ = score
            net.best_epoch_ = len(net.history)
            self.best_weights_ = {
                name: weight.detach().to("cpu", copy=True)
                for name, weight in net.module_.state_dict().items()
            }
        if self.n_without_gain_ > self.n_iter_no_change:
            raise StopTraining

    def on_train_end(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        if self.best_weights_ is not None:
            net.module_.load_state_dict(self.best_weights_)
        self.best_weights_ = None


class ProgressBar(Callback):
    """Advance the net's bar, which is new in each call of train, after each training batch."""

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if training:
            net.bar_.set_postfix(loss=f"{kwargs['loss'].item():.3g}", refresh=False)
            net.bar_.update()


class TaskReporter(Callback):
    """Report epochs and batches to the callbacks of scikit-learn, and stop if one asks for it.

    Parameters
    ----------
    task : FitTask
        The task of the fit.
    fitted : callable
        Maps the net to the attributes of an estimator that predicts as if training had ended.
    """

    def __init__(self, task: FitTask, fitted: Callable[[Any], dict[str, Any]]) -> None:
        self.task = task
        self.fitted = fitted

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.n_batches_ = ceil(len(X) / net.batch_size)

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        self.epoch_ = self.task.subtask("epoch", self.n_batches_)
        self.stops_ = False

    def on_batch_begin(self, net: Any, **_: Any) -> None:
        self.batch_ = self.epoch_.subtask("batch")

    def on_batch_end(self, net: Any, **_: Any) -> None:
        self.stops_ |= self.batch_.end()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.stops_ |= self.epoch_.end(lambda: self.fitted(net))
        if self.stops_:
            raise StopTraining


def check_callbacks(callbacks: list[Any] | None) -> None:
    """Raise TypeError at the first element that is not a skorch callback."""
    for index, element in enumerate(callbacks or []):
        callback = element[-1] if isinstance(element, tuple) else element
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not (is_class or isinstance(callback, Callback)):
            raise TypeError(
                f"callbacks at index {index} is {element!r} where a skorch callback is expected: "
                f"pass an instance of a subclass of skorch.callbacks.Callback, "
                f"and scikit-learn's own to set_callbacks."
            )
