"""Callbacks around the batches of training: schedule, validation, stopping, progress."""

from collections.abc import Callable
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split
from skorch.callbacks import (
    Callback,
    EpochTimer,
    GradientNormClipping,
    LRScheduler,
    PassthroughScoring,
)
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

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


def default_callbacks(
    schedule: Callable[[int], float] | None,
    max_grad_norm: float | None,
    monitor: "ValidationMonitor | None",
) -> list[tuple[str, Callback]]:
    """Return the callbacks of every training.

    Parameters
    ----------
    schedule : callable or None
        Factor of the learning rate at each step; None keeps the rate constant.
    max_grad_norm : float or None
    monitor : ValidationMonitor or None
    """
    callbacks = [
        ("epoch_timer", EpochTimer()),
        ("train_loss", PassthroughScoring("train_loss", on_train=True)),
        ("gradient_clipping", GradientNormClipping(max_grad_norm)),
        ("progress_bar", ProgressBar()),
    ]
    if schedule is not None:
        scheduler = LRScheduler(
            LambdaLR, lr_lambda=schedule, step_every="batch", event_name="learning_rate"
        )
        callbacks.append(("schedule", scheduler))
    if monitor is not None:
        callbacks.append(("validation", monitor))
    return callbacks


def epochs_of(history: Any, learning_rate: float) -> list[dict[str, Any]]:
    """Return one dict an epoch, as the estimators show them in ``history_``.

    Parameters
    ----------
    history : skorch.history.History
    learning_rate : float
        The rate of an epoch without a schedule.
    """
    rows = []
    complete = [epoch for epoch in history if "train_loss" in epoch]  # not interrupted
    for number, epoch in enumerate(complete, start=1):
        rates = [batch["learning_rate"] for batch in epoch["batches"] if "learning_rate" in batch]
        rows.append(
            {
                "epoch": number,
                "train_loss": float(epoch["train_loss"]),
                "learning_rate": float(rates[-1] if rates else learning_rate),
                "seconds": float(epoch["dur"]),
                **{key: epoch[key] for key in ("valid_loss", "valid_score") if key in epoch},
            }
        )
    return rows


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


def hold_out(
    n_texts: int, fraction: float, strata: NDArray[Any] | None, seed: int
) -> list[NDArray[np.intp]]:
    """Return the rows that train and those that early stopping holds out.

    Parameters
    ----------
    n_texts : int
    fraction : float
        Share of the texts that is held out.
    strata : ndarray of shape (n_texts,) or None
        Classes whose proportions both parts keep.
    seed : int
    """
    try:
        return train_test_split(
            np.arange(n_texts), test_size=fraction, stratify=strata, random_state=seed
        )
    except ValueError as error:
        raise ValueError(
            f"early_stopping=True cannot hold out validation_fraction={fraction} of {n_texts} "
            f"texts, with some of each class: change it, or pass texts of your own as X_val and "
            f"y_val. ({error})"
        ) from error


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
    """Raise an error at the first element that is no skorch callback, or that cannot work."""
    for index, element in enumerate(callbacks or []):
        callback = element[-1] if isinstance(element, tuple) else element
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not (is_class or isinstance(callback, Callback)):
            raise TypeError(
                f"callbacks at index {index} is {element!r} where a skorch callback is expected: "
                f"pass an instance of a subclass of skorch.callbacks.Callback, "
                f"and scikit-learn's own to set_callbacks."
            )
        if isinstance(callback, LRScheduler) or (is_class and issubclass(callback, LRScheduler)):
            raise ValueError(
                f"callbacks at index {index} is {element!r}, whose learning rates the estimator's "
                f"own schedule would overwrite: leave it out, and set learning_rate and "
                f"warmup_fraction instead."
            )
