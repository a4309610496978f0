"""Pins what a call leaves behind, whether it ends well, in an error or by Ctrl-C: nothing.

An interrupt stops within the pass it falls in and is never swallowed; errors of callbacks surface;
what failed keeps no weights alive; global state, files, threads and memory are as they were; and
threads that predict at the same time get their own answers.
"""

import copy
import gc
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import psutil
import pytest
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from transformers.utils import logging as transformers_logging

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker
from sklearn_longbert._encoding import memory as memory_module
from sklearn_longbert._encoding.encoder import ChunkEncoder

TEXTS = ["good fox jumps over the lazy dog " * 9, "bad dog runs " * 20, "good news", "bad"] * 3
LABELS = ["good", "bad"] * 6
SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 2,
    "batch_size": 4,
    "micro_batch_tokens": 64,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
}


@pytest.fixture
def classifier(tiny_bert: str) -> partial:
    return partial(LongBertClassifier, tiny_bert, **SETTINGS)


# Ctrl-C


class Passes:
    """Counts encoder passes; in the one of number `at`, presses Ctrl-C."""

    def __init__(self) -> None:
        self.n, self.at = 0, 0

    def count(self) -> None:
        self.n += 1
        if self.n == self.at:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    passes, encode = Passes(), ChunkEncoder.encode

    def counting(self: ChunkEncoder, *args: Any, **kwargs: Any) -> Any:
        embeddings = encode(self, *args, **kwargs)
        passes.count()
        return embeddings

    monkeypatch.setattr(ChunkEncoder, "encode", counting)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield passes
    signal.signal(signal.SIGINT, before)


def number_of_passes(passes: Passes, run: Callable[[], Any]) -> int:
    passes.n, passes.at = 0, 0
    run()
    return passes.n


def interrupt(passes: Passes, at: int, run: Callable[[], Any]) -> None:
    """Run, press Ctrl-C in pass `at`, and see that it was the last one."""
    passes.n, passes.at = 0, at
    with pytest.raises(KeyboardInterrupt):
        run()
    assert passes.n == at


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_a_fit_stops_within_a_pass(classifier: partial, passes: Passes, share: float) -> None:
    """In the probe, in either pass of a training step, in the validation after an epoch."""
    run = partial(classifier(early_stopping=True, validation_fraction=0.25).fit, TEXTS, LABELS)
    n = number_of_passes(passes, run)
    assert n > 20
    model = classifier(early_stopping=True, validation_fraction=0.25)
    interrupt(passes, max(int(share * n), 1), partial(model.fit, TEXTS, LABELS))
    with pytest.raises(NotFittedError):
        model.predict(TEXTS)
    passes.at = 0
    whole = classifier(early_stopping=True, validation_fraction=0.25).fit(TEXTS, LABELS)
    np.testing.assert_array_equal(
        model.fit(TEXTS, LABELS).predict_proba(TEXTS), whole.predict_proba(TEXTS)
    )


def test_an_interrupted_warm_start_leaves_the_last_fit(classifier: partial, passes: Passes) -> None:
    model = classifier(warm_start=True).fit(TEXTS, LABELS)
    expected = model.predict_proba(TEXTS)
    interrupt(passes, 9, partial(model.fit, TEXTS, LABELS))
    passes.at = 0
    np.testing.assert_array_equal(model.predict_proba(TEXTS), expected)


def test_an_interrupted_partial_fit_leaves_usable_weights(
    classifier: partial, passes: Passes
) -> None:
    model = classifier().fit(TEXTS, LABELS)
    interrupt(passes, 9, partial(model.partial_fit, TEXTS, LABELS))
    passes.at = 0
    assert all(weight.grad is None for weight in model.net_.module_.parameters())
    assert not model.net_.module_.training
    assert np.isfinite(model.predict_proba(TEXTS)).all()
    model.partial_fit(TEXTS, LABELS)
    pickle.loads(pickle.dumps(model)).predict(TEXTS)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_prediction_stops_within_a_pass(
    classifier: partial, passes: Passes, frozen: bool
) -> None:
    model = classifier(freeze_encoder=frozen).fit(TEXTS, LABELS)
    expected = model.predict_proba(TEXTS)
    interrupt(passes, 2, partial(model.predict, TEXTS[:2]))
    passes.at = 0
    np.testing.assert_array_equal(model.predict_proba(TEXTS), expected)


def test_a_vectorizer_stops_within_a_pass(tiny_bert: str, passes: Passes) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=16, micro_batch_tokens=32).fit()
    interrupt(passes, 2, partial(vectorizer.transform, TEXTS))


@pytest.mark.parametrize("error_score", [np.nan, "raise"])
def test_a_search_does_not_swallow_it(
    classifier: partial, passes: Passes, error_score: Any
) -> None:
    search = GridSearchCV(classifier(), {"dropout": [0.0, 0.1]}, cv=2, error_score=error_score)
    n = number_of_passes(passes, partial(search.fit, TEXTS, LABELS))
    interrupt(passes, n // 2, partial(search.fit, TEXTS, LABELS))


# Errors


class Boom(Callback):
    """Fails at an event, and keeps a look at what was there."""

    seen: ClassVar[list[weakref.ref]] = []

    def __init__(self, event: str = "on_batch_end") -> None:
        self.event = event

    def initialize(self) -> "Boom":
        setattr(self, self.event, self._fail)
        return self

    def _fail(self, net: Any, **kwargs: Any) -> None:
        self.seen[:] = [weakref.ref(weight) for weight in net.module_.parameters()]
        raise ZeroDivisionError("of a callback")


EVENTS = ["train_begin", "epoch_begin", "batch_begin", "batch_end", "epoch_end"]


@pytest.mark.parametrize("event", [*EVENTS, "train_end"])
def test_an_error_of_a_callback_surfaces_and_keeps_no_weights(
    classifier: partial, event: str
) -> None:
    model = classifier(callbacks=[Boom(f"on_{event}")])
    try:
        model.fit(TEXTS, LABELS)
    except ZeroDivisionError as error:
        kept = error  # as a notebook keeps the last one
    gc.collect()
    assert str(kept) == "of a callback"
    assert len(Boom.seen) > 30
    assert [weight() for weight in Boom.seen if weight() is not None] == []
    with pytest.raises(NotFittedError):
        model.predict(TEXTS)


@pytest.mark.parametrize("event", ["batch_end", "epoch_end"])
def test_a_first_partial_fit_that_fails_keeps_no_weights(classifier: partial, event: str) -> None:
    model = classifier(callbacks=[Boom(f"on_{event}")])
    try:
        model.partial_fit(TEXTS, LABELS, classes=["bad", "good"])
    except ZeroDivisionError as error:
        kept = error
    gc.collect()
    assert str(kept) == "of a callback"
    assert [weight() for weight in Boom.seen if weight() is not None] == []


class Cyclic(Callback):
    def on_batch_end(self, net: Any, **kwargs: Any) -> None:
        error = ValueError("behind itself")
        raise error from error


def test_any_error_of_a_later_partial_fit_leaves_the_weights(classifier: partial) -> None:
    """Also a ValueError, as that of training that diverged is; and one that is its own cause."""
    model = classifier().fit(TEXTS, LABELS).set_params(callbacks=[Cyclic()])
    with pytest.raises(ValueError, match="behind itself"):
        model.partial_fit(TEXTS, LABELS)
    assert np.isfinite(model.predict_proba(TEXTS)).all()
    model.set_params(callbacks=None, learning_rate=1e30, max_grad_norm=None)
    with pytest.raises(ValueError, match="became NaN or infinite"):
        model.partial_fit(TEXTS, LABELS)
    with pytest.raises(NotFittedError):
        model.predict(TEXTS)


def test_an_error_of_a_callback_surfaces_in_a_search(classifier: partial) -> None:
    grid = {"dropout": [0.0]}
    search = GridSearchCV(classifier(callbacks=[Boom()]), grid, cv=2, error_score="raise")
    with pytest.raises(ZeroDivisionError, match="of a callback"):
        search.fit(TEXTS, LABELS)


@pytest.mark.parametrize("what", ["fit", "partial_fit", "predict"])
def test_running_out_of_memory_keeps_no_tensors(
    classifier: partial, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the error is kept, whose traceback has the variables of all its frames."""
    monkeypatch.setattr(
        memory_module, "HOLD_TENSORS", memory_module.HOLD_TENSORS | {__name__.partition(".")[0]}
    )
    model, hidden_states = classifier().fit(TEXTS, LABELS), []

    normalise = torch.nn.LayerNorm.forward

    def fail(self: torch.nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        output = normalise(self, x)
        hidden_states.append(weakref.ref(output))
        if len(hidden_states) % 4 == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return output

    call = partial(getattr(model, what), TEXTS, *([LABELS] if what != "predict" else []))
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.LayerNorm, "forward", fail)
        try:
            call()
        except MemoryError as error:
            kept = error
    gc.collect()
    assert "does not fit" in str(kept)
    assert len(hidden_states) >= 8  # it was tried again with less
    assert [state() for state in hidden_states if state() is not None] == []
    if what != "fit":
        assert all(weight.grad is None for weight in model.net_.module_.parameters())
        call()


KILLER = """
import os, signal, sys
import numpy as np
from skorch.callbacks import Callback
from sklearn.model_selection import GridSearchCV
from sklearn_longbert import LongBertClassifier

class Kill(Callback):
    def on_batch_end(self, net, **kwargs):
        os.kill(os.getpid(), signal.SIGKILL)

model = LongBertClassifier(sys.argv[1], chunk_size=16, max_epochs=1, callbacks=[Kill()])
GridSearchCV(model, {"dropout": [0.0, 0.1]}, cv=2, n_jobs=2).fit(["good", "bad"] * 4, [0, 1] * 4)
"""


@pytest.mark.slow
def test_a_killed_worker_is_joblibs_error(tiny_bert: str, tmp_path: Path) -> None:
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    done = subprocess.run(
        [sys.executable, str(script), tiny_bert],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "TerminatedWorkerError" in done.stderr


# Global state


def global_state() -> dict[str, Any]:
    loggers = [
        logging.getLogger(),
        *map(logging.getLogger, sorted(logging.root.manager.loggerDict)),
    ]
    return {
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "numpy errors": np.geterr(),
        "threads of torch": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch settings": (
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.is_autocast_cache_enabled(),
            torch.get_float32_matmul_precision(),
            torch.are_deterministic_algorithms_enabled(),
        ),
        "warning filters": list(warnings.filters),
        "loggers": [(one.name, one.level, len(one.handlers), one.disabled) for one in loggers],
        "verbosity": transformers_logging.get_verbosity(),
        "bars": transformers_logging.is_progress_bar_enabled(),
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "files": sorted(str(f.readlink()) for f in Path("/proc/self/fd").iterdir() if f.exists()),
        "native threads": len(list(Path("/proc/self/task").iterdir())),
        "child processes": len(psutil.Process().children()),
    }


def wait_for_threads(before: dict[str, Any]) -> None:
    """Give those that transformers loads weights with, and does not wait for, time to end."""
    for _ in range(100):
        after = global_state()
        if all(after[key] == before[key] for key in ("threads", "native threads")):
            return
        time.sleep(0.05)


def calls(tiny_bert: str, folder: Path, verbose: int) -> dict[str, Callable[[], Any]]:
    """Everything that a user may call, and calls that fail."""
    settings = {**SETTINGS, "verbose": verbose}
    classifier = LongBertClassifier(tiny_bert, **settings)
    fitted = copy.deepcopy(classifier).fit(TEXTS, LABELS)
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=16, device="cpu").fit()
    folder = folder / "saved"
    return {
        "fit": lambda: classifier.fit(TEXTS, LABELS),
        "fit frozen": lambda: LongBertClassifier(
            tiny_bert, **settings, freeze_encoder=True, pooling="max"
        ).fit(TEXTS, LABELS),
        "fit in bfloat16": lambda: LongBertClassifier(
            tiny_bert, **{**settings, "precision": "bfloat16"}
        ).fit(TEXTS, LABELS),
        "fit a regressor": lambda: LongBertRegressor(tiny_bert, **settings).fit(TEXTS, range(12)),
        "fit and stop early": lambda: LongBertClassifier(
            tiny_bert, **settings, early_stopping=True, validation_fraction=0.25
        ).fit(TEXTS, LABELS),
        "partial_fit": lambda: fitted.partial_fit(TEXTS, LABELS),
        "predict": lambda: fitted.predict_proba(TEXTS),
        "transform": lambda: vectorizer.transform(TEXTS),
        "cut": lambda: TextChunker(tiny_bert).fit_transform(TEXTS),
        "pickle": lambda: pickle.loads(pickle.dumps(fitted)),
        "save": lambda: fitted.save_pretrained(folder),
        "load": lambda: LongBertClassifier.from_pretrained(folder),
        "search": lambda: GridSearchCV(classifier, {"dropout": [0, 0.1]}, cv=2).fit(TEXTS, LABELS),
        "wrong texts": lambda: classifier.fit([None, "x"], [0, 1]),
        "wrong encoder": lambda: LongBertClassifier(str(folder.parent)).fit(TEXTS, LABELS),
        "diverged": lambda: LongBertClassifier(
            tiny_bert, **settings, learning_rate=1e30, max_grad_norm=None
        ).fit(TEXTS, LABELS),
        "failed callback": lambda: LongBertClassifier(
            tiny_bert, **settings, callbacks=[Boom()]
        ).fit(TEXTS, LABELS),
        "damaged folder": lambda: LongBertRegressor.from_pretrained(folder),
    }


FAILING = {"wrong texts", "wrong encoder", "diverged", "failed callback", "damaged folder"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("verbose", [0, 1])
def test_global_state_is_as_it_was(
    tiny_bert: str, tmp_path: Path, verbose: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """After a first round, in which libraries start pools of threads and make their loggers."""
    get_reusable_executor().shutdown(wait=True)  # joblib's idle workers end at any time
    gc.collect()
    runs = calls(tiny_bert, tmp_path, verbose)
    for is_first in (True, False):
        for name, run in runs.items():
            before = global_state()
            if name in FAILING:
                with pytest.raises((ValueError, TypeError, ZeroDivisionError)):
                    run()
            else:
                run()
            if not is_first:
                wait_for_threads(before)
                after = global_state()
                changed = {
                    key: (before[key], after[key]) for key in before if before[key] != after[key]
                }
                assert changed == {}, name


# Memory


@pytest.mark.slow
def test_thirty_fits_of_a_grid_leave_no_memory(bbc_news: tuple[np.ndarray, np.ndarray]) -> None:
    """With the real encoder, whose weights are 90 MB: one that stayed would show."""
    texts, labels = bbc_news[0][:20], bbc_news[1][:20] == "sports"
    model = LongBertClassifier(chunk_size=64, max_chunks=2, max_epochs=1, device="cpu")
    process, resident = psutil.Process(), []
    for _ in range(5):
        grid = {"learning_rate": [1e-5, 2e-5, 5e-5]}
        search = GridSearchCV(model, grid, cv=2, refit=False).fit(texts, labels)  # six fits
        del search
        gc.collect()
        resident.append(process.memory_info().rss)
    assert max(resident[2:]) - resident[1] < 45e6, resident


# Threads


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("frozen", [False, True])
def test_threads_predict_at_the_same_time(
    classifier: partial, precision: str, frozen: bool
) -> None:
    model = classifier(precision=precision, freeze_encoder=frozen).fit(TEXTS, LABELS)
    rng = np.random.RandomState(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "good", "bad", "news"]
    inputs = [[" ".join(rng.choice(words, n)) for n in rng.randint(1, 90, 40)] for _ in range(12)]
    expected = [model.decision_function(texts) for texts in inputs]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(
            pool.map(model.decision_function, inputs * 2), expected * 2, strict=True
        ):
            np.testing.assert_array_equal(found, right)


def test_threads_vectorize_and_cut_at_the_same_time(tiny_bert: str) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=16, device="cpu", layers="spread").fit()
    chunker = TextChunker(tiny_bert, chunk_size=16).fit()
    inputs = [[text[:n] for text in TEXTS] for n in range(1, 60, 5)]
    embeddings = [vectorizer.transform(texts) for texts in inputs]
    counts = [[d.n_chunks for d in chunker.transform(texts)] for texts in inputs]
    with ThreadPoolExecutor(4) as pool:
        for found, right in zip(pool.map(vectorizer.transform, inputs), embeddings, strict=True):
            np.testing.assert_array_equal(found, right)
        for found, right in zip(pool.map(chunker.transform, inputs), counts, strict=True):
            assert [d.n_chunks for d in found] == right


def test_threads_load_and_fit_at_the_same_time(classifier: partial, tmp_path: Path) -> None:
    """Not to the same weights, as torch has one generator; but each to weights of its own."""
    classifier().fit(TEXTS, LABELS).save_pretrained(tmp_path / "saved")
    with ThreadPoolExecutor(4) as pool:
        models = list(
            pool.map(lambda seed: classifier(random_state=seed).fit(TEXTS, LABELS), range(4))
        )
        loaded = list(pool.map(LongBertClassifier.from_pretrained, [tmp_path / "saved"] * 4))
    assert all(np.isfinite(model.predict_proba(TEXTS)).all() for model in models + loaded)
    for own in ("head.weight", "encoder.embeddings.word_embeddings.weight"):
        places = {model.net_.module_.get_parameter(own).data_ptr() for model in models + loaded}
        assert len(places) == 8


MODES = {
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "errors of NumPy": lambda: np.errstate(all="raise"),
}


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp", "attention"])
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_modes_of_the_caller_change_nothing(
    classifier: partial, tmp_path: Path, mode: Any, pooling: str
) -> None:
    plain = classifier(pooling=pooling).fit(TEXTS, LABELS)
    expected = plain.decision_function(TEXTS)
    with mode():
        model = classifier(pooling=pooling).fit(TEXTS, LABELS)
        np.testing.assert_array_equal(model.decision_function(TEXTS), expected)
        np.testing.assert_array_equal(plain.decision_function(TEXTS), expected)
        (explained,) = plain.explain(TEXTS[:1])
        np.testing.assert_allclose(explained.contributions.sum(0), explained.logits, atol=1e-5)
        model.save_pretrained(tmp_path / "saved")
        twins = [
            pickle.loads(pickle.dumps(model)),
            LongBertClassifier.from_pretrained(tmp_path / "saved"),
        ]
        for twin in twins:
            twin.partial_fit(TEXTS, LABELS)
    for twin in twins:
        twin.partial_fit(TEXTS, LABELS)  # weights can be trained outside, too
    np.testing.assert_array_equal(*(twin.decision_function(TEXTS) for twin in twins))


def test_the_vectorizer_under_the_modes_of_the_caller(tiny_bert: str) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, precision="float32").fit()
    expected = vectorizer.transform(TEXTS)
    for mode in MODES.values():
        with mode():
            np.testing.assert_array_equal(vectorizer.transform(TEXTS), expected)
            again = LongBertVectorizer(tiny_bert, precision="float32").fit_transform(TEXTS)
        np.testing.assert_array_equal(again, expected)


def test_no_console(classifier: partial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    model = classifier(verbose=1).fit(TEXTS, LABELS)
    assert len(model.predict(TEXTS)) == len(TEXTS)
