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
from pathlib import Path
from time import monotonic
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from skorch.callbacks import Callback
from skorch.history import History
from torch import Tensor

from sklearn_longbert._encoding.remembered import digest, tensors_digest
from sklearn_longbert._folders import written_file
from sklearn_longbert._plain import plain
from sklearn_longbert._saving.json import from_json, to_json
from sklearn_longbert._texts.documents import ChunkLayout
from sklearn_longbert._training.averaging import Weights, copy_weights, set_weights
from sklearn_longbert._training.callbacks import KeptEpoch

FILE = "fit.safetensors"


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
        weights = tensors_digest(net.module_.state_dict())
        taken = net.module_.layers, net.module_.token_pooling
        name = digest(self.key, weights, taken, layout, net.seed).hex()
        self.path_ = self.folder / name / FILE
        self.written_at_ = monotonic()
        return read_progress(self.path_) if self.path_.is_file() else None

    def on_epoch_begin(self, net: Any, **_: Any) -> None:
        if not net.history[-1]["batches"]:  # else the fit goes on from here
            self.write(net)

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        if training and monotonic() - self.written_at_ >= self.interval:
            self.write(net)

    def on_epoch_end(self, net: Any, **_: Any) -> None:
        # skorch has counted the batches of this run only
        batches = net.history[-1]["batches"]
        net.history.record("train_batch_count", sum("train_loss" in batch for batch in batches))

    def write(self, net: Any, is_finished: bool = False) -> None:
        """Write the progress; `is_finished` tells that no epoch is left."""
        self.path_.parent.mkdir(parents=True, exist_ok=True)
        progress = progress_of(net, is_finished)
        text = json.dumps(to_json(progress.state))
        metadata = {"state": text, "digest": _digest_of(text, progress.tensors)}
        with written_file(self.path_) as path:
            save_file(progress.tensors, path, metadata)
        self.written_at_ = monotonic()

    def remove(self) -> None:
        """Delete the checkpoint; one that cannot be deleted does no harm."""
        shutil.rmtree(self.path_.parent, ignore_errors=True)


def _digest_of(text: str, tensors: Weights) -> str:
    return digest(text, tensors_digest(tensors)).hex()


def read_progress(path: Path) -> Progress:
    """Return the progress that is in a file.

    Raises
    ------
    ValueError
        If the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if metadata["digest"] != _digest_of(metadata["state"], tensors):
            raise ValueError("its content has changed since it was written")
        return Progress(from_json(json.loads(metadata["state"])), tensors)
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
        "limits": list(net.limits_),
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
    return Progress(state, dict(sorted(tensors.items())))  # in the order in which they are read


def restore_start(net: Any, progress: Progress) -> None:
    """Give a net what it has found out before its first step."""
    net.history = History(progress.state["history"])  # for callbacks that begin
    net.baseline_scales = progress.state["baseline_scales"]
    net.limits_ = tuple(progress.state["limits"])
    net.average.start = progress.part("start") or None
    net.average.n_groups = progress.state["n_groups"]


def restore_training(net: Any, progress: Progress) -> None:
    """Bring a net, whose training has begun, to where the earlier run was."""
    state = progress.state
    set_weights(net.module_, progress.part("weights"))
    optimizer = net.optimizer_.state_dict()
    of_weights: dict[int, dict[str, Tensor]] = {}
    for name, tensor in progress.part("optimizer").items():
        number, _, kind = name.partition(".")
        of_weights.setdefault(int(number), {})[kind] = tensor
    net.optimizer_.load_state_dict({**optimizer, "state": of_weights})
    net.history = History(state["history"])
    net.step_, net.best_epoch_ = state["step"], state["best_epoch"]
    net.n_earlier_epochs_ = state["n_earlier_epochs"]
    kept_epoch: KeptEpoch = dict(net.callbacks_)["kept_epoch"]
    place = net.module_.head.weight.device
    kept_epoch.marks_ = {int(n): mark.to(place) for n, mark in progress.part("marks").items()}
    if net.monitor is not None:
        net.monitor.best_score_ = state["best_score"]
        net.monitor.n_without_gain_ = state["n_without_gain"]
        net.monitor.best_weights_ = progress.part("best") or None
