"""Checks of the callbacks that users pass, so that those that cannot work end no long fit."""

from copy import copy
from typing import Any

from sklearn.metrics import get_scorer
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EpochScoring,
    InputShapeSetter,
    LRScheduler,
    PassthroughScoring,
    WandbLogger,
)

REFUSED = {
    LRScheduler: "whose learning rates the estimator's own schedule would overwrite: leave it "
    "out, and set learning_rate and warmup_fraction instead",
    InputShapeSetter: "but the shape of the input is the encoder's: leave it out",
}
# what an epoch of the history holds before the user's callbacks are called
EPOCH_KEYS = ["epoch", "train_batch_count", "dur", "train_loss", "train_loss_best"]
VALIDATION_KEYS = [
    *("valid_batch_count", "valid_loss", "valid_loss_best"),
    *("valid_score", "valid_score_best"),
]
VALIDATION_CURE = "pass X_val and y_val to fit, or set early_stopping=True"


def check_callbacks(callbacks: list[Any] | None) -> None:
    """Raise an error at the first element that is no skorch callback, or that cannot work."""
    for index, element in enumerate(callbacks or []):
        callback = _callback_of(element)
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, Callback):
            raise TypeError(
                f"callbacks at index {index} is {element!r} where a skorch callback is expected: "
                f"pass an instance of a subclass of skorch.callbacks.Callback, "
                f"and scikit-learn's own to set_callbacks."
            )
        for refused, reason in REFUSED.items():
            if issubclass(kind, refused):
                raise ValueError(f"callbacks at index {index} is {element!r}, {reason}.")


def check_history_keys(callbacks: list[Any] | None, is_validated: bool) -> None:
    """Raise ValueError at the first callback that scores or monitors what a fit does not record.

    Parameters
    ----------
    callbacks : list or None
        Elements that :func:`check_callbacks` takes.
    is_validated : bool
        Whether the fit has validation texts.
    """
    keys = [*EPOCH_KEYS, *(VALIDATION_KEYS if is_validated else [])]
    may_be_more = False  # callbacks of other libraries may record what they like
    for index, element in enumerate(callbacks or []):
        callback = _callback_of(element)
        is_skorchs = getattr(callback, "__module__", "").startswith("skorch.")
        if isinstance(callback, type):
            if not is_skorchs:
                may_be_more = True
                continue
            callback = callback()
        where = f"callbacks at index {index}, {type(callback).__name__},"
        monitor = _monitor_of(callback)
        if isinstance(monitor, str) and monitor not in keys and not may_be_more:
            cure = "" if is_validated else f"For those of validation, {VALIDATION_CURE}. "
            raise ValueError(
                f"{where} monitors {monitor!r}, but when it is called an epoch has only recorded "
                f"{keys}. {cure}The scores of an EpochScoring are recorded for the callbacks "
                f"after it."
            )
        keys += _recorded_by(callback, where, is_validated)
        may_be_more |= monitor is None and not is_skorchs


def _callback_of(element: Any) -> Any:
    return element[-1] if isinstance(element, tuple) else element


def _monitor_of(callback: Callback) -> Any:
    if isinstance(callback, WandbLogger):
        return "valid_loss_best" if callback.save_model else None
    return getattr(callback, "monitor", getattr(callback, "_monitor", None))  # optuna's has _


def _recorded_by(callback: Callback, where: str, is_validated: bool) -> list[str]:
    """Return the keys that a callback records, or raise ValueError if it cannot score."""
    if isinstance(callback, Checkpoint):
        return [callback.event_name]
    if not isinstance(callback, BatchScoring | EpochScoring | PassthroughScoring):
        return []
    if not (is_validated or callback.on_train):
        raise ValueError(
            f"{where} scores validation texts, of which this fit has none: {VALIDATION_CURE}. "
            f"With on_train=True it scores the batches of training."
        )
    if isinstance(callback, PassthroughScoring):
        name = callback.name
    else:
        if not callback.use_caching:
            raise ValueError(
                f"{where} has use_caching=False, and would encode the texts once more: leave it "
                f"at True."
            )
        initialized = copy(callback).initialize()
        name = initialized.name_
        if isinstance(initialized.scoring_, str):
            get_scorer(initialized.scoring_)
    return [name] if callback.lower_is_better is None else [name, f"{name}_best"]
