"""Checkpoints of a fit, from which the same fit goes on after it was killed.

A checkpoint holds what training has changed: weights, moments of the optimizer, history and the
state of the validation. The rest is made again, by the same script. No state of a generator is
needed: see :class:`~sklearn_longbert._encoding.batches.Batches`.

Invariants: a checkpoint is found by a digest of all that the weights depend on, so that no other
fit takes it; its file is written whole or not at all; nothing in it is run when it is read.

The convention is that of CatBoost's snapshots and of Keras' BackupAndRestore.
"""

import json
import shutil
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from skorch.callbacks import Callback, PassthroughScoring
from skorch.history import History
from torch import Tensor

from sklearn_longbert._encoding.remembered import digest, encoder_digest, tensors_digest
from sklearn_longbert._folders import written_file
from sklearn_longbert._plain import plain
from sklearn_longbert._saving.json import from_json, to_json
from sklearn_longbert._texts.documents import ChunkLayout
from sklearn_longbert._training.averaging import Weights, copy_weights, set_weights
from sklearn_longbert._training.callbacks import KeptEpoch

FILE = "fit.safetensors"
STATE = "state"  # the tensor that holds plain values as JSON


@dataclass(frozen=True)
class Progress:
    """How far a fit has come.

    Attributes
    ----------
    state : dict
        Plain values.
    tensors : dict
        Tensors on the CPU, by names with a prefix and a dot.
    """

    state: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> Weights:
        """Return the tensors of a prefix, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }


class FitCheckpoint(Callback):
    """Write the progress of a fit into a file, and find it there.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints of all fits.
    interval : float
        Seconds between two writes within an epoch. Each epoch's end is written, too.
    key : bytes
        Digest of the parameters and the data of the fit.
    """

    def __init__(self, folder: Path, interval: float, key: bytes) -> None:
        self.folder = folder
        self.interval = interval
        self.key = key

    def find(self, net: Any, layout: ChunkLayout) -> Progress | None:
        """Return the progress of an earlier run of this fit, None if there is none.

        Parameters
        ----------
        net : LongBertNet
            With the weights before training.
        layout : ChunkLayout
            The rules by which the texts were cut.

        Raises
        ------
        ValueError
            If the file is damaged.
        """
        network = net.module_
        parts = encoder_digest(network.encoder), tensors_digest(network.state_dict())
        taken = network.layers, network.token_pooling
        name = digest(self.key, *parts, taken, layout, net.seed).hex()
        self.path_ = self.folder / name / FILE
        self.written_at_ = monotonic()
        return read_progress(self.path_) if self.path_.is_file() else None

    def on_train_begin(self, net: Any, X: Any = None, y: Any = None, **_: Any) -> None:
        self.n_batches_ = ceil(len(X) / net.batch_size)

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        if not net.history[-1]["batches"]:  # else the fit goes on from here
            self.write(net)

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        is_last = len(net.history[-1]["batches"]) == self.n_batches_  # the epoch's end follows
        if training and not is_last and monotonic() - self.written_at_ >= self.interval:
            self.write(net)

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        # skorch has counted the batches of this run only
        batches = net.history[-1]["batches"]
        net.history.record("train_batch_count", sum("train_loss" in batch for batch in batches))

    def write(self, net: Any, is_finished: bool = False) -> None:
        """Write the progress; `is_finished` tells that no epoch is left.

        Raises
        ------
        OSError
            If the file cannot be written.
        TypeError
            If the history holds what has no form in JSON.
        """
        progress = progress_of(net, is_finished)
        try:
            self._write(progress)
        except (OSError, SafetensorError):  # perhaps an equal fit has ended, and deleted the folder
            try:
                self._write(progress)
            except (OSError, SafetensorError) as error:
                raise OSError(
                    f"The checkpoint {self.path_} could not be written ({error}): see to room and "
                    f"permission there, and run the fit again to go on from the last checkpoint."
                ) from error
        self.written_at_ = monotonic()

    def _write(self, progress: Progress) -> None:
        tensors = {**progress.tensors, STATE: _as_tensor(progress.state)}
        self.path_.parent.mkdir(parents=True, exist_ok=True)
        with written_file(self.path_) as path:
            save_file(tensors, path, {"digest": _digest_of(tensors)})

    def remove(self) -> None:
        """Delete the checkpoint; one that cannot be deleted does no harm."""
        shutil.rmtree(self.path_.parent, ignore_errors=True)


def _as_tensor(state: dict[str, Any]) -> Tensor:
    """Return JSON as a tensor, because the header of a file of safetensors is limited."""
    try:
        content = json.dumps(to_json(state)).encode()
    except TypeError as error:
        raise TypeError(
            f"A checkpoint cannot be written, {error}, which has no form in JSON, and a callback "
            f"has put it into the history: record plain values, or set checkpoint_folder=None."
        ) from error
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


def _digest_of(tensors: Weights) -> str:
    return tensors_digest(dict(sorted(tensors.items()))).hex()


def read_progress(path: Path) -> Progress:
    """Return the progress that is in a file.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if file.metadata()["digest"] != _digest_of(tensors):
                raise ValueError("its content has changed since it was written")
        state = json.loads(tensors.pop(STATE).numpy().tobytes())
        return Progress(from_json(state), tensors)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The checkpoint {path} is damaged ({error}): delete it, and the fit starts anew."
        ) from error


def progress_of(net: Any, is_finished: bool) -> Progress:
    """Return how far the training of a net has come."""
    callbacks = dict(net.callbacks_)
    marks = callbacks["kept_epoch"].marks_
    optimizer = net.optimizer_.state_dict()["state"]
    parts: dict[str, Weights] = {
        "weights": copy_weights(net.module_),
        "optimizer": {
            f"{number}.{name}": tensor.detach().to("cpu", copy=True)
            for number, of_weight in optimizer.items()
            for name, tensor in of_weight.items()
        },
        "start": net.average.start or {},
        "marks": {str(epoch): mark.cpu() for epoch, mark in marks.items()},
        "best": {},
    }
    state: dict[str, Any] = {
        "is_finished": is_finished,
        "step": net.step_,
        "n_earlier_epochs": net.n_earlier_epochs_,
        "history": [plain(dict(epoch)) for epoch in net.history],
        "best_epoch": net.best_epoch_,
        "trained": [
            name for name, weight in net.module_.named_parameters() if weight.requires_grad
        ],
        "limits": list(net.limits_),
        "limited_by": _what_limits(net),
        "baseline_scales": net.baseline_scales,
        "n_groups": net.average.n_groups,
    }
    if net.monitor is not None:
        parts["best"] = net.monitor.best_weights_ or {}
        state["best_score"] = float(net.monitor.best_score_)
        state["n_without_gain"] = net.monitor.n_without_gain_
    tensors = {
        f"{part}.{name}": tensor for part, of in parts.items() for name, tensor in of.items()
    }
    return Progress(state, tensors)


def _what_limits(net: Any) -> list[str]:
    return [str(net.micro_batch_tokens), net._place.type]


def restore_start(net: Any, progress: Progress) -> None:
    """Give a net what it has found out before its first step."""
    net.history = History(progress.state["history"])  # for callbacks that begin
    net.baseline_scales = progress.state["baseline_scales"]
    net.average.start = progress.part("start") or None
    net.average.n_groups = progress.state["n_groups"]


def restore_training(net: Any, progress: Progress) -> None:
    """Bring a net, whose training has begun, to where the earlier run was.

    It has measured the memory of a step, which counts where the earlier run had another device or
    another `micro_batch_tokens`.
    """
    state = progress.state
    if state["limited_by"] == _what_limits(net):
        net.limits_ = tuple(state["limits"])
    set_weights(net.module_, progress.part("weights"))
    for name, weight in net.module_.named_parameters():
        weight.requires_grad_(name in state["trained"])
    optimizer = net.optimizer_.state_dict()
    of_weights: dict[int, dict[str, Tensor]] = {}
    for name, tensor in progress.part("optimizer").items():
        number, _, kind = name.partition(".")
        of_weights.setdefault(int(number), {})[kind] = tensor
    net.optimizer_.load_state_dict({**optimizer, "state": of_weights})
    net.history = History(state["history"])
    net.step_, net.best_epoch_ = state["step"], state["best_epoch"]
    net.n_earlier_epochs_ = state["n_earlier_epochs"]
    for _, callback in net.callbacks_:
        if isinstance(callback, PassthroughScoring):
            _restore_best(callback, net.history)
    kept_epoch: KeptEpoch = dict(net.callbacks_)["kept_epoch"]
    place = net.module_.head.weight.device
    kept_epoch.marks_ = {int(n): mark.to(place) for n, mark in progress.part("marks").items()}
    if net.monitor is not None:
        net.monitor.best_score_ = state["best_score"]
        net.monitor.n_without_gain_ = state["n_without_gain"]
        net.monitor.best_weights_ = progress.part("best") or None


def _restore_best(callback: PassthroughScoring, history: History) -> None:
    """Let a callback go on with the best score that the history has."""
    scores = [epoch[callback.name] for epoch in history if callback.name in epoch]
    if scores:
        callback.best_score_ = (min if callback.lower_is_better else max)(scores)
