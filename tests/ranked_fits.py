"""Run fits on several ranks, beside the same fits on one device and on a list of devices.

    torchrun --nproc-per-node 2 tests/ranked_fits.py ENCODERS FOLDER WAY ...

Each rank writes what it has seen to FOLDER, as a pickle. A WAY is one of CASES, or the name of a
function in WAYS, which says how fits are disturbed.
"""

import functools
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import skorch.callbacks
import torch
import torch.distributed as dist
from killed_fits import CASES, CLASSES, LABELS, STOPPING, WEIGHTS, X, fit, result_of
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sklearn_longbert import LongBertClassifier, distributed
from sklearn_longbert._encoding.encoder import ChunkEncoder

EXACT = {"precision": "float32"}  # on every machine
GENTLE = {**EXACT, "learning_rate": 1e-3}  # AdamW scales the rounding of small gradients up
MORE_CASES: dict[str, dict[str, Any]] = {
    "one text a batch": {"batch_size": 1},
    "numbers and weights": {"kind": "numbers", "sample_weight": WEIGHTS},
    "attention dropout": {"attention_dropout": 0.2},
    "frozen and stopped": {"freeze_encoder": True, **STOPPING},
}
CASES.update(MORE_CASES)


class Gradients(skorch.callbacks.Callback):
    """Keep the gradients of the first step."""

    def initialize(self) -> "Gradients":
        self.first: dict[str, np.ndarray] = {}
        return self

    def on_grad_computed(self, net: Any, **_: Any) -> None:
        if not self.first:
            self.first = {
                name: weight.grad.cpu().numpy().copy()
                for name, weight in net.module_.named_parameters()
                if weight.grad is not None
            }


def seen(case: str, encoders: Path, **more: Any) -> dict[str, Any]:
    """Return the result of a case, and the gradients of its first step."""
    callback = Gradients()
    model = fit(case, encoders, callback, **GENTLE, **more)
    return {**result_of(model), "gradients": getattr(callback, "first", {})}


def beside_others(encoders: Path, case: str) -> dict[str, Any]:
    """Fit a case twice on all ranks; then on rank 0 alone, and with a list of devices."""
    with distributed():
        rank = dist.get_rank()
        found = {"ranks": seen(case, encoders), "again": seen(case, encoders)}
    if rank == 0:
        found["alone"] = seen(case, encoders)
        found["list"] = seen(case, encoders, device=["cpu", "cpu"])
    return found


def other_seeds(encoders: Path) -> dict[str, Any]:
    """Fit without a seed, go on with partial_fit; predict and save on rank 0 alone."""
    with distributed():
        model = fit("mean-classes", encoders, random_state=None)
        fitted = result_of(model)
        model.partial_fit(X, CLASSES)
        if dist.get_rank() == 0:
            folder = Path(os.environ["SAVED"])
            model.save_pretrained(folder)
            again = LongBertClassifier.from_pretrained(folder)
            np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        further = result_of(model)
        model.set_params(warm_start=True, max_epochs=1).fit(X, CLASSES)
        return {"fitted": fitted, "further": further, "warm": result_of(model)}


def search(encoders: Path) -> dict[str, Any]:
    """Search on all ranks, and on rank 0 alone."""
    model = fit("mean-classes", encoders, max_epochs=1, **EXACT)
    grid = GridSearchCV(model, {"pooling": ["mean", "max"]}, cv=2, scoring="neg_log_loss")
    found = {}
    with distributed():
        rank = dist.get_rank()
        grid.fit(X, CLASSES)
        found["ranks"] = grid.cv_results_["mean_test_score"], grid.decision_function(X)
    if rank == 0:
        grid.fit(X, CLASSES)
        found["alone"] = grid.cv_results_["mean_test_score"], grid.decision_function(X)
    return found


@contextmanager
def disturbed(rank: int, number: int, act: Callable[[], None]) -> Iterator[None]:
    """Act before a pass of this number in training, on one rank."""
    encode, count = ChunkEncoder.encode, 0

    @functools.wraps(encode)
    def disturbing(self: ChunkEncoder, *arguments: Any) -> Any:
        nonlocal count
        count += self.training
        if self.training and count == number and dist.get_rank() == rank:
            act()
        return encode(self, *arguments)

    ChunkEncoder.encode = disturbing
    try:
        yield
    finally:
        ChunkEncoder.encode = encode


def run_out() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")


def out_of_memory(encoders: Path) -> dict[str, Any]:
    """Let memory run out on each rank, in a first pass and in a second pass of a step."""
    settings = {**GENTLE, "micro_batch_tokens": 40, "batch_size": 7, "max_epochs": 1}
    found = {}
    with distributed():
        for rank, number in ((0, 1), (0, 7), (1, 1), (1, 10)):
            with disturbed(rank, number, run_out):
                found[rank, number] = result_of(fit("mean-classes", encoders, **settings))
        rank = dist.get_rank()
    if rank == 0:
        found["alone"] = result_of(fit("mean-classes", encoders, **settings))
    return found


def go_wrong() -> None:
    raise ValueError("a disk is gone")


def failing(encoders: Path) -> dict[str, Any]:
    """Let one rank fail after the other, and then fit on all."""
    found: dict[str, Any] = {}
    with distributed():
        for rank in (0, 1):
            start = time.monotonic()
            with disturbed(rank, 3, go_wrong):
                try:
                    fit("mean-classes", encoders)
                except Exception as error:  # all ranks must have one
                    found[f"{rank}"] = type(error).__name__, str(error)
            found[f"{rank} seconds"] = time.monotonic() - start
        try:
            fit("mean-classes", encoders, max_epochs=1 + dist.get_rank())
        except Exception as error:
            found["unlike"] = type(error).__name__, str(error)
        found["afterwards"] = result_of(fit("mean-classes", encoders))
    return found


def killed(encoders: Path) -> dict[str, Any]:
    """Kill rank 1 inside of a step."""
    with distributed(), disturbed(1, 3, lambda: os.kill(os.getpid(), signal.SIGKILL)):
        try:
            fit("mean-classes", encoders)
        except Exception as error:
            return {"error": (type(error).__name__, str(error))}
    return {}


def labels(encoders: Path) -> dict[str, Any]:
    """Let rank 1 have other labels."""
    with distributed():
        model = fit("mean-labels", encoders, max_epochs=1)
        try:
            model.fit(X, LABELS if dist.get_rank() else 1 - LABELS)
        except Exception as error:
            return {"error": (type(error).__name__, str(error))}
    return {}


def unlucky(encoders: Path) -> dict[str, Any]:
    """Fit what fails late, or fits something itself; each time the ranks must stay alike."""
    found: dict[str, Any] = {}

    def tried(name: str, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception as error:
            found[name] = type(error).__name__, str(error)

    with distributed():
        vectorizer = TfidfVectorizer(preprocessor=lambda text: text)
        unpicklable = make_pipeline(vectorizer, LogisticRegression())
        tried("unpicklable", lambda: fit("mean-classes", encoders, baseline=unpicklable))
        inner = fit("mean-classes", encoders, max_epochs=1)
        outer = fit("mean-classes", encoders, max_epochs=1, baseline=clone(inner))
        found["nested"] = result_of(outer)
        model = fit("mean-classes", encoders)
        with disturbed(0, 7, go_wrong):
            tried("partial_fit", lambda: model.partial_fit(X, CLASSES))
        found["after partial_fit"] = result_of(model)
        with disturbed(0, 7, go_wrong):
            tried("fit", lambda: model.fit(X, CLASSES))
        found["after fit"] = vars(model).get("net_")
    with distributed():  # once more
        generator = np.random.RandomState(3)
        found["generator"] = result_of(fit("mean-classes", encoders, random_state=generator))
        found["drawn"] = generator.randint(1000, size=5)
    return found


WAYS = {
    way.__name__: way
    for way in (other_seeds, search, out_of_memory, failing, killed, labels, unlucky)
}


def main() -> None:
    encoders, folder = map(Path, sys.argv[1:3])
    found = {
        way: WAYS[way](encoders) if way in WAYS else beside_others(encoders, way)
        for way in sys.argv[3:]
    }
    (folder / f"{os.environ['RANK']}.pkl").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main()
