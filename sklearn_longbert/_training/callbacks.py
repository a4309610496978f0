"""Callbacks around the batches of training: schedule, stopping, progress."""

from collections.abc import Callable
from math import ceil
from typing import Any

import torch
from skorch.callbacks import (
    Callback,
    EpochTimer,
    GradientNormClipping,
    PassthroughScoring,
)
from torch import Tensor, nn

from sklearn_longbert._fit_tasks import FitTask


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
    monitor: Callback | None,
) -> list[tuple[str, Callback]]:
    """Return the callbacks of every training.

    Parameters
    ----------
    schedule : callable or None
        Factor of the learning rate at each step; None keeps the rate constant.
    max_grad_norm : float or None
    monitor : Callback or None
        Gets the losses of the validation texts, which are passed on to the history.
    """
    callbacks: list[tuple[str, Callback]] = [
        ("epoch_timer", EpochTimer()),
        ("train_loss", PassthroughScoring("train_loss", on_train=True)),
        ("gradient_clipping", GradientNormClipping(max_grad_norm)),
        ("progress_bar", ProgressBar()),
        ("kept_epoch", KeptEpoch()),
    ]
    if schedule is not None:
        callbacks.append(("schedule", Schedule(schedule)))
    if monitor is not None:
        callbacks += [("valid_loss", PassthroughScoring("valid_loss")), ("validation", monitor)]
    return callbacks


def epochs_of(history: Any, learning_rate: float) -> list[dict[str, Any]]:
    """Return one dict an epoch, as the estimators show them in ``history_``.

    Parameters
    ----------
    history : skorch.history.History
    learning_rate : float
        The rate of an epoch without a schedule.
    """
    rows: list[dict[str, Any]] = []
    for number, epoch in enumerate(_complete(history), start=1):
        rates = [batch["learning_rate"] for batch in epoch["batches"] if "learning_rate" in batch]
        rows.append(
            {
                "epoch": number,
                "train_loss": float(epoch["train_loss"]),
                "learning_rate": float(rates[-1] if rates else learning_rate),
                "seconds": float(epoch["dur"]),
                **{key: float(epoch[key]) for key in ("valid_loss", "valid_score") if key in epoch},
            }
        )
    return rows


def _complete(history: Any) -> list[Any]:
    return [epoch for epoch in history if "train_loss" in epoch]  # the others were interrupted


class Schedule(Callback):
    """Set the learning rate of each step.

    Parameters
    ----------
    factor : callable
        Maps the number of a step, from 0, to the factor of the net's rate. It depends on nothing
        else, unlike the schedulers of torch, which count the steps that they have seen.
    """

    def __init__(self, factor: Callable[[int], float]) -> None:
        self.factor = factor

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **_: Any) -> None:
        if training:
            rate = net.lr * self.factor(net.step_)
            for group in net.optimizer_.param_groups:
                group["lr"] = rate
            net.history.record_batch("learning_rate", rate)


class ProgressBar(Callback):
    """Advance the net's bar, which is new in each call of train, after each training batch."""

    def on_batch_end(
        self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any
    ) -> None:
        if training:
            net.bar_.set_postfix(loss=f"{kwargs['loss'].item():.3g}", refresh=False)
            net.bar_.update()


class KeptEpoch(Callback):
    """Remember marks of the weights of each epoch, to tell whose weights are kept in the end.

    Callbacks such as skorch's Checkpoint bring the weights of an epoch back without saying so.
    """

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.marks_: dict[int, Tensor] = {}

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.remember(net)

    def remember(self, net: Any) -> None:
        """Remember the present weights as those of the last epoch that is complete."""
        self.marks_[len(_complete(net.history))] = _mark(net.module_)

    def settle(self, net: Any) -> None:
        """Set the net's best epoch to the one that has the present weights, if there is one."""
        mark, last = _mark(net.module_), max(self.marks_, default=0)
        found = [epoch for epoch, other in self.marks_.items() if torch.equal(mark, other)]
        if (net.best_epoch_ or last) not in found:
            net.best_epoch_ = max(found, default=None)


def _mark(network: nn.Module) -> Tensor:
    return torch.stack([weight.detach().sum() for weight in network.parameters()])


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

    def on_batch_begin(self, net: Any, batch: Any = None, training: bool = False, **_: Any) -> None:
        if training:
            self.batch_ = self.epoch_.subtask("batch")

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **_: Any) -> None:
        if training:
            self.stops_ |= self.batch_.end()

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        self.stops_ |= self.epoch_.end(lambda: self.fitted(net))
        if self.stops_:
            raise StopTraining
