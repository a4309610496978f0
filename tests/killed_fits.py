"""Run fits whose process is killed again and again, beside the same fits uninterrupted.

    python tests/killed_fits.py ENCODERS FOLDER [CASE ...]

writes two lines of JSON for each case, or for all of CASES. Every run is a forked process of its
own, which kills itself by SIGKILL: after a step, inside a write, or before a file that is whole has
its name. ENCODERS is a folder of encoders, FOLDER an empty one.
"""

import json
import os
import pickle
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import skorch.callbacks
import torch

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._training import resume

WORDS = ["good", "bad", "news", "story", "world", "time", "sport", "year", "fox", "dog", "lazy"]
rng = np.random.RandomState(0)
X = [" ".join(rng.choice(WORDS, size=size)) for size in rng.randint(2, 40, size=14)]
CLASSES = np.arange(14) % 3
LABELS = np.column_stack([CLASSES > 0, CLASSES == 1]).astype(int)
NUMBERS = rng.normal(size=14)
WEIGHTS = rng.uniform(0.5, 2, size=14)
KINDS = {"classes": CLASSES, "labels": LABELS, "numbers": NUMBERS}

STOPPING = {"early_stopping": True, "validation_fraction": 0.25}

# settings of each case; "kind" names its targets
CASES: dict[str, dict[str, Any]] = {
    f"{pooling}-{kind}": {"kind": kind, "pooling": pooling}
    for pooling in ("mean", "max", "logsumexp", "attention")
    for kind in KINDS
} | {
    "defaults": {"layers": "spread", "baseline": "words"},
    "early stopping": {**STOPPING, "max_epochs": 5, "learning_rate": 0.3},
    "stopped by tol": {**STOPPING, "n_iter_no_change": 1, "tol": 10, "max_epochs": 9},
    "validation texts": {"X_val": X[:5], "y_val": CLASSES[:5], "scoring": "accuracy"},
    "frozen": {"freeze_encoder": True},
    "random chunks": {"chunk_selection": "random", "max_chunks": 2},
    "random head": {"head_init": "random"},
    "warm start": {"warm_start": True},
    "sample weights": {"sample_weight": WEIGHTS},
    "small micro-batches": {"micro_batch_tokens": 20},
    "a part of the way": {"fine_tuning_share": 0.5},
    "DeBERTa": {"encoder": "deberta-v2"},
}


def fit(case: str, encoders: Path, callback: Any = None, **more: Any) -> Any:
    """Return the fitted estimator of a case."""
    given = dict(CASES[case])
    kind, encoder = given.pop("kind", "classes"), given.pop("encoder", "bert")
    arguments = {
        name: given.pop(name) for name in ("X_val", "y_val", "sample_weight") if name in given
    }
    settings = {"layers": "last", "baseline": None, "chunk_size": 10, "batch_size": 3}
    settings |= {"max_epochs": 3, "learning_rate": 1e-2, "dropout": 0.3, "random_state": 7}
    cls = LongBertRegressor if kind == "numbers" else LongBertClassifier
    model = cls(encoders / encoder, **settings | given)
    if case == "warm start":
        model.set_params(max_epochs=1).fit(X[:7], KINDS[kind][:7]).set_params(max_epochs=3)
    model.set_params(callbacks=[callback] if callback else None, **more)
    return model.fit(X, KINDS[kind], **arguments)


def result_of(model: Any) -> dict[str, Any]:
    """Return all that two equal fits have in common."""
    return {
        "weights": {
            name: w.cpu().numpy().copy() for name, w in model.net_.module_.state_dict().items()
        },
        "history": [
            {key: value for key, value in epoch.items() if key != "seconds"}
            for epoch in model.history_
        ],
        "counts": [epoch.get("train_batch_count") for epoch in model.net_.history],
        "best_epoch": model.best_epoch_,
        "share": model.fine_tuning_share_,
        "predictions": model.predict(X),
    }


class Kill(skorch.callbacks.Callback):
    """Kill the process after a number of steps of its own, in a way."""

    def __init__(self, n_steps: int, way: str) -> None:
        self.n_steps, self.way = n_steps, way

    def initialize(self) -> "Kill":
        self.n_done_ = 0
        return self

    def on_batch_begin(self, net: Any, training: bool = False, **_: Any) -> None:
        self.n_done_ += training
        if self.n_done_ <= self.n_steps:
            return
        if self.way == "step":
            os.kill(os.getpid(), signal.SIGKILL)
        save_file = resume.save_file

        def killed(tensors: Any, path: Path, metadata: Any) -> None:
            save_file(tensors, path, metadata)
            if self.way == "half a file":
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        resume.save_file = killed


def forked(run: Any) -> Any:
    """Return what `run` returns in a forked process, None if it was killed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(read_end)
            with os.fdopen(write_end, "wb") as pipe:
                pickle.dump(run(), pipe)
            status = 0
        except BaseException:  # the status tells the parent
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        content = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if os.WEXITSTATUS(status):
        raise RuntimeError("a fit has failed")
    return pickle.loads(content)


def differences(result: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return the names of what differs in the last bit."""
    weights, expected_weights = result["weights"], expected["weights"]
    found = [name for name in expected_weights if not same(weights[name], expected_weights[name])]
    return found + [n for n in expected if n != "weights" and not same(result[n], expected[n])]


def same(value: Any, other: Any) -> bool:
    if isinstance(value, np.ndarray):
        return bool(np.array_equal(value, other))
    return bool(value == other)


def killed_and_resumed(
    case: str, encoders: Path, settings: dict[str, Any], random: Any
) -> tuple[dict[str, Any], list[str]]:
    """Return the result of a fit that is killed up to three times, and how it was killed."""
    # without writes within an epoch, five steps and more reach an epoch's end
    fewest, most = (1, 5) if settings["checkpoint_interval"] == 0 else (5, 8)
    kills = []
    for attempt in range(4):
        way = str(random.choice(["step", "half a file", "before its name"]))
        n_steps = int(random.randint(fewest, most))
        kill = Kill(n_steps, way) if attempt < 3 else None
        result = forked(lambda kill=kill: result_of(fit(case, encoders, kill, **settings)))
        if result is not None:
            return result, kills
        kills.append(f"{way} {n_steps}")
    raise RuntimeError(f"{case} was killed by something else")


def main() -> None:
    torch.set_num_threads(1)
    encoders, folder = map(Path, sys.argv[1:3])
    random = np.random.RandomState(1)
    for case in sys.argv[3:] or CASES:
        expected = forked(lambda case=case: result_of(fit(case, encoders)))
        for interval in (0, 600):
            checkpoints = folder / f"{case}-{interval}"
            settings = {"checkpoint_folder": checkpoints, "checkpoint_interval": interval}
            result, kills = killed_and_resumed(case, encoders, settings, random)
            line = {
                "case": case,
                "interval": interval,
                "kills": kills,
                "differences": differences(result, expected),
                "left": [path.name for path in checkpoints.iterdir()],
            }
            sys.stdout.write(f"{json.dumps(line)}\n")


if __name__ == "__main__":
    main()
