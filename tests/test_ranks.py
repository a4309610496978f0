"""Fits on several ranks are those of one device, and a rank that fails ends them on all.

`ranked_fits.py` runs the fits, started by torchrun; this file reads what came out.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import skorch.callbacks
import torch
from hypothesis import given
from hypothesis import strategies as st
from killed_fits import CLASSES, X, differences, result_of
from ranked_fits import CASES, EXACT, GENTLE, WAYS
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertVectorizer, TextChunker, distributed
from sklearn_longbert._encoding import passes
from sklearn_longbert._encoding.batches import ChunkBatch
from sklearn_longbert._encoding.encoder import encoder_state
from sklearn_longbert._encoding.follower import Follower
from sklearn_longbert._encoding.leader import Leader
from sklearn_longbert._ranks.group import Group, RankError
from sklearn_longbert._ranks.workers import worker_group, workers_of_process

TWO = ["cpu", "cpu"]
FEW = [  # the others are slow
    "defaults",
    "attention-labels",
    "frozen and stopped",
    "small micro-batches",
    "DeBERTa",
    "numbers and weights",
]


def on_ranks(*ways: str, encoders: Path, folder: Path, fails: bool = False) -> dict[int, Any]:
    """Return what each rank has seen, of those that have ended well."""
    script = Path(__file__).with_name("ranked_fits.py")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    launcher += ["--standalone", "--local-addr=127.0.0.1"]
    done = subprocess.run(
        [*launcher, script, encoders, folder, *ways],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "SAVED": str(folder / "saved")},
    )
    assert (done.returncode != 0) == fails, done.stderr
    return {int(p.stem): pickle.loads(p.read_bytes()) for p in sorted(folder.glob("*.pkl"))}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def seen(encoders: Path, saved: Path) -> dict[int, Any]:
    """What two ranks have seen, that were started once for most tests, because it takes long."""
    return on_ranks(*FEW, *(set(WAYS) - {"killed"}), encoders=encoders, folder=saved)


def but_gradients(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "gradients"}


def is_of_keys(name: str) -> bool:
    """Return whether a weight is a bias of attention's keys: its gradient is rounding alone."""
    return "key" in name and name.endswith("bias")


def are_close(weights: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> None:
    assert list(weights) == list(others)
    for name, weight in weights.items():
        if not is_of_keys(name):
            np.testing.assert_allclose(weight, others[name], atol=1e-5, err_msg=name)


def check_case(found: dict[str, Any], of_other_rank: dict[str, Any], case: str) -> None:
    result, alone = found["ranks"], found["alone"]
    gradients = [
        np.concatenate([part.ravel() for part in each["gradients"].values()])
        for each in (result, alone)
    ]
    assert list(result["gradients"]) == list(alone["gradients"])
    assert np.linalg.norm(gradients[0] - gradients[1]) <= 1e-6 * np.linalg.norm(gradients[1])
    are_close(result["weights"], alone["weights"])
    losses = [[epoch["train_loss"] for epoch in each["history"]] for each in (result, alone)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for name in ("best_epoch", "share", "counts"):
        assert result[name] == alone[name]
    for same in (of_other_rank["ranks"], found["again"]):
        assert differences(but_gradients(same), but_gradients(result)) == []
    if case == "warm start":  # whose first fit has no list
        are_close(found["list"]["weights"], result["weights"])
    else:  # a list shares predictions, and ranks do not
        of_list = differences(but_gradients(found["list"]), but_gradients(result))
        assert set(of_list) <= {"predictions"}
    assert of_other_rank["ranks"]["gradients"] == {}  # callbacks are rank 0's


@pytest.mark.parametrize("case", FEW)
def test_ranks_are_one_device(case: str, seen: dict[int, Any]) -> None:
    check_case(seen[0][case], seen[1][case], case)


@pytest.mark.slow
def test_all_cases(encoders: Path, tmp_path: Path) -> None:
    first, second = on_ranks(*CASES, encoders=encoders, folder=tmp_path).values()
    for case in CASES:
        check_case(first[case], second[case], case)


def test_ranks_share_what_is_drawn_and_saved(seen: dict[int, Any], saved: Path) -> None:
    first, second = (seen[rank]["other_seeds"] for rank in (0, 1))
    for name in ("fitted", "further", "warm"):
        assert differences(second[name], first[name]) == []
    assert differences(first["further"], first["fitted"])
    assert (saved / "saved").is_dir()


def test_a_search_around_fits(seen: dict[int, Any]) -> None:
    first, second = (seen[rank]["search"] for rank in (0, 1))
    for of_first, of_second, alone in zip(
        first["ranks"], second["ranks"], first["alone"], strict=True
    ):
        np.testing.assert_array_equal(of_second, of_first)
        np.testing.assert_allclose(of_first, alone, atol=1e-5)


def test_memory_that_runs_out_on_one_rank(seen: dict[int, Any]) -> None:
    found = dict(seen[0]["out_of_memory"])
    alone = found.pop("alone")
    assert len(found) == 4
    for result in found.values():
        are_close(result["weights"], alone["weights"])
        assert differences(result, alone)  # passes of other sizes


def test_an_error_on_one_rank_ends_the_fit_on_all(seen: dict[int, Any]) -> None:
    first, second = (seen[rank]["failing"] for rank in (0, 1))
    assert first["0"] == ("ValueError", "a disk is gone")
    assert second["0"][0] == first["1"][0] == second["1"][0] == "RankError"
    assert "rank 0 has raised ValueError: a disk is gone" in second["0"][1]
    assert "Rank 1 has failed: ValueError: a disk is gone" in first["1"][1]
    assert "Rank 1 has failed: ValueError: a disk is gone" in second["1"][1]
    for each in (first, second):
        assert "other texts, targets or parameters than rank 0" in each["unlike"][1]
        assert max(each["0 seconds"], each["1 seconds"]) < 30
    assert differences(second["afterwards"], first["afterwards"]) == []


def test_ranks_must_fit_the_same(seen: dict[int, Any]) -> None:
    for rank in (0, 1):
        kind, message = seen[rank]["labels"]["error"]
        assert kind == "RankError"
        assert "other texts, targets or parameters" in message


def test_ranks_stay_alike_whatever_fails(seen: dict[int, Any]) -> None:
    first, second = (seen[rank]["unlucky"] for rank in (0, 1))
    assert "pickle" in first["unpicklable"][1]
    assert "pickle" in second["unpicklable"][1]
    assert first["partial_fit"] == first["fit"] == ("ValueError", "a disk is gone")
    assert second["partial_fit"][0] == second["fit"][0] == "RankError"
    for name in ("nested", "after partial_fit", "generator"):
        assert differences(second[name], first[name]) == []
    assert first["after fit"] is second["after fit"] is None
    np.testing.assert_array_equal(second["drawn"], first["drawn"])


def test_a_rank_that_is_killed_ends_the_fit(encoders: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    seen = on_ranks("killed", encoders=encoders, folder=tmp_path, fails=True)
    assert all("error" in each["killed"] for each in seen.values())  # if torchrun lets it end
    assert time.monotonic() - start < 90  # of which the imports take most


# Lists of devices


@pytest.fixture
def model(tiny_bert: str) -> Callable[..., LongBertClassifier]:
    settings = {"chunk_size": 10, "batch_size": 3, "random_state": 7, **GENTLE}
    return partial(LongBertClassifier, tiny_bert, **ENCODER_ALONE, **settings)


def test_predictions_explanations_and_embeddings(model, tiny_bert: str) -> None:
    alone = model().fit(X, CLASSES)
    fitted = model(device=TWO).fit(X, CLASSES)
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.device_, again.device) == ("cpu", TWO)
    np.testing.assert_array_equal(again.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_allclose(fitted.predict_proba(X), alone.predict_proba(X), atol=1e-5)
    for level in ("chunk", "sentence"):
        pairs = zip(fitted.explain(X, level=level), alone.explain(X, level=level), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one.contributions, other.contributions, atol=1e-5)
    settings = {"chunk_size": 10, "layers": "spread", **EXACT}
    vectorizers = [LongBertVectorizer(tiny_bert, device=d, **settings).fit() for d in (TWO, "cpu")]
    embeddings = [vectorizer.transform(X) for vectorizer in vectorizers]
    np.testing.assert_allclose(*embeddings, atol=1e-5)
    shared = pickle.loads(pickle.dumps(vectorizers[0]))
    np.testing.assert_array_equal(shared.transform(X), embeddings[0])


def test_other_devices_encode(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes here are those of a half of the tokens."""
    fitted = model(device=TWO).fit(X, CLASSES)
    seen = []
    encode = type(fitted.net_.module_).encode
    monkeypatch.setattr(
        type(fitted.net_.module_),
        "encode",
        lambda self, micro, seed=0: seen.append(sum(micro.lengths)) or encode(self, micro, seed),
    )
    shared = fitted.decision_function(X)
    of_two, seen[:] = sum(seen), []
    fitted.net_.devices = ["cpu"]
    np.testing.assert_allclose(fitted.decision_function(X), shared, atol=1e-5)
    assert of_two == pytest.approx(sum(seen) / 2, rel=0.1)


class Act(skorch.callbacks.Callback):
    """Do something after a step."""

    def __init__(self, act: Callable[[Any], None], n_steps: int) -> None:
        self.act, self.n_steps = act, n_steps

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        if training and net.step_ == self.n_steps:
            self.act(net)


class Limits(skorch.callbacks.Callback):
    """Keep the limits of the last step."""

    def on_batch_end(self, net: Any, training: bool = False, **_: Any) -> None:
        self.seen = net.limits_


def kill_workers(net: Any) -> None:
    for executor in workers_of_process().executors:
        for pid in executor._processes:
            os.kill(pid, signal.SIGKILL)


def test_a_worker_that_is_killed(model) -> None:
    estimator = model(device=TWO, callbacks=[Act(kill_workers, 2)])
    start = time.monotonic()
    with pytest.raises(RankError, match=r"^Rank 1, on cpu, has ended: A worker process"):
        estimator.fit(X, CLASSES)
    assert time.monotonic() - start < 60  # of which the imports of the worker take most
    assert not hasattr(estimator, "net_")
    expected = model(device=TWO).fit(X, CLASSES)
    again = estimator.set_params(callbacks=None).fit(X, CLASSES)
    assert differences(result_of(again), result_of(expected)) == []


def test_an_error_of_this_process_ends_the_workers(model) -> None:
    def fail(net: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        model(device=TWO, callbacks=[Act(fail, 2)]).fit(X, CLASSES)
    assert workers_of_process().executors == []


def test_a_worker_forgets_weights_that_were_trained_further(model) -> None:
    first = model(device=TWO, max_epochs=1).fit(X, CLASSES)
    second, expected = pickle.loads(pickle.dumps(first)), first.decision_function(X)
    second.partial_fit(X, CLASSES)
    np.testing.assert_array_equal(first.decision_function(X), expected)
    assert np.abs(second.decision_function(X) - expected).max() > 1e-4


def test_a_callback_predicts_in_a_fit(model) -> None:
    other = model(device=TWO, max_epochs=1).fit(X, CLASSES)
    expected, seen = other.predict_proba(X), []
    callback = Act(lambda net: seen.append(other.predict_proba(X)), 2)
    model(device=TWO, callbacks=[callback]).fit(X, CLASSES)
    np.testing.assert_allclose(seen, [expected], atol=1e-5)


def test_threads_predict_at_the_same_time(model) -> None:
    fitted = model(device=TWO, max_epochs=1).fit(X, CLASSES)
    expected, seen = fitted.decision_function(X), []
    threads = [
        threading.Thread(target=lambda: seen.append(fitted.decision_function(X))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(seen, [expected] * 3, atol=1e-5)


@pytest.mark.parametrize("devices", [("cpu", TWO), (TWO, "cpu")])
def test_a_killed_fit_goes_on_with_other_devices(model, tmp_path: Path, devices: Any) -> None:
    def stop(net: Any) -> None:
        raise KeyboardInterrupt

    settings = {"checkpoint_folder": tmp_path / "checkpoints", "checkpoint_interval": 0}
    estimator = model(device=devices[0], callbacks=[Act(stop, 7)], **settings)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, CLASSES)
    steps: list[int] = []
    callback = Act(lambda net: steps.append(net.step_), 8)
    estimator.set_params(device=devices[1], callbacks=[callback]).fit(X, CLASSES)
    assert steps == [8]
    expected = model().fit(X, CLASSES)
    weights = estimator.net_.module_.state_dict()
    for name, weight in expected.net_.module_.state_dict().items():
        if not is_of_keys(name):
            torch.testing.assert_close(weights[name], weight, atol=1e-6, rtol=0)


def test_ctrl_c_while_a_worker_is_at_work(model, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, count = Leader._answers, 0

    def interrupted(self: Leader) -> Any:
        nonlocal count
        count += 1
        if count == 20:
            for pid in workers_of_process().executors[0]._processes:
                os.kill(pid, signal.SIGSTOP)  # its share takes long
            threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        return answers(self)

    monkeypatch.setattr(Leader, "_answers", interrupted)
    # a shell that starts the tests in the background lets them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    start = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            model(device=TWO).fit(X, CLASSES)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 60  # of which the imports of the worker take most
    monkeypatch.setattr(Leader, "_answers", answers)
    assert hasattr(model(device=TWO, max_epochs=1).fit(X, CLASSES), "net_")


def test_the_least_memory_of_all_devices_counts(model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rank 0 means to have more than the worker, which takes at most 16384 tokens on a CPU."""
    seen = []
    monkeypatch.setattr(passes, "auto_limits", lambda *given: seen.append(given) or (4096, 10**6))
    long_texts = [" ".join([text] * 60) for text in X]
    settings = {"device": TWO, "max_epochs": 1, "callbacks": [limits := Limits()]}
    model(**settings).fit(long_texts, CLASSES)
    assert len(seen) == 1
    assert limits.seen[0] <= 2048
    assert limits.seen[1] <= 16384


def test_memory_that_runs_out_where_weights_are_sent(model, monkeypatch) -> None:
    buffer, tries = Group.buffer, []

    def short(self: Group, *arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return buffer(self, *arguments)

    monkeypatch.setattr(Group, "buffer", short)
    fitted = model(device=TWO, max_epochs=1, head_init="random").fit(X, CLASSES)
    assert len(tries) == 2
    expected = model(max_epochs=1, head_init="random").fit(X, CLASSES)
    np.testing.assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), atol=1e-5)


def test_a_callback_freezes_the_encoder(model) -> None:
    def freeze(net: Any) -> None:
        net.module_.encoder.requires_grad_(False)

    fits = [
        model(device=device, callbacks=[Act(freeze, 3)]).fit(X, CLASSES) for device in (TWO, "cpu")
    ]
    are_close(*(result_of(fitted)["weights"] for fitted in fits))


def test_a_callback_adds_weights(model) -> None:
    def add(net: Any) -> None:
        net.module_.encoder.extra = torch.nn.Parameter(torch.zeros(3))

    with pytest.raises(RankError, match="the leader's encoder has got other weights"):
        model(device=TWO, callbacks=[Act(add, 2)]).fit(X, CLASSES)


def test_a_scorer_predicts_in_threads(model) -> None:
    def score(estimator: Any, X: Any, y: Any) -> float:
        with ThreadPoolExecutor(2) as pool:
            parts = list(pool.map(estimator.predict, [X[:2], X[2:]]))
        return float(np.mean(np.concatenate(parts) == y))

    settings = {"early_stopping": True, "validation_fraction": 0.25, "scoring": score}
    assert hasattr(model(device=TWO, **settings).fit(X, CLASSES), "net_")


def run_in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    folder = str(Path(__file__).parent)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {folder!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_process_ends_with_its_workers(tiny_bert: str) -> None:
    """A child of multiprocessing, and one that is gone without a word."""
    code = f"""
import multiprocessing, os
from killed_fits import CLASSES, X
from sklearn_longbert import LongBertVectorizer
from sklearn_longbert._ranks.workers import workers_of_process
def work(dies):
    LongBertVectorizer({tiny_bert!r}, device=["cpu", "cpu"]).fit().transform(X[:2])
    print(*workers_of_process().executors[0]._processes, flush=True)
    if dies:
        os._exit(0)
if __name__ == "__main__":
    for dies in (False, True):
        child = multiprocessing.get_context("fork").Process(target=work, args=(dies,))
        child.start()
        child.join(60)
        assert not child.is_alive()
"""
    done = run_in_a_process(code)
    assert done.returncode == 0, done.stderr
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(psutil.pid_exists, pids))


def test_an_encoder_is_remembered_with_its_device(tiny_bert: str) -> None:
    network = LongBertVectorizer(tiny_bert).fit().encoder_
    settings = {"token_pooling": network.token_pooling, "layers": network.layers}
    followers = [Follower(None, torch.device(place), b"") for place in ("cpu", "meta")]
    assert not followers[0].begin(b"key", None)
    followers[0].build(b"key", encoder_state(network), settings, True)
    assert followers[0].begin(b"key", None)
    assert not followers[1].begin(b"key", None)


def test_a_worker_that_cannot_start() -> None:
    with (
        pytest.raises(RankError, match=r"Rank 1, on nowhere, has ended: .*nowhere"),
        worker_group(["cpu", "nowhere"], print),
    ):
        pass


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ([], "is not a list of devices"),
        (["auto", "cpu"], "is not a list of devices"),
        (["cpu", "cuda:7"], "cuda:7"),
        (["cpu", "meta"], "meta"),
    ],
)
def test_lists_that_hold_no_devices(model, device: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(device=device).fit(X, CLASSES)


def test_there_must_be_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(RuntimeError, match=r"the environment lacks .*'MASTER_PORT'"), distributed():
        pass


# Shares


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    max_tokens=st.integers(1, 200),
    n_ranks=st.integers(2, 5),
    padded=st.booleans(),
)
def test_shares_hold_each_chunk_once_and_are_level(
    chunker: TextChunker, lengths: list[int], max_tokens: int, n_ranks: int, padded: bool
) -> None:
    batch = ChunkBatch(chunker.transform(["dog " * length for length in lengths]))
    shares = batch.shares(max_tokens, padded, n_ranks)
    numbers = np.concatenate([group for share in shares for group in share])
    assert sorted(numbers) == list(range(len(batch.lengths)))
    assert len(shares) == n_ranks
    assert shares[0]
    loads = [sum(batch.lengths[group].sum() for group in share) for share in shares]
    largest = max(batch.lengths[group].sum() for share in shares for group in share)
    assert max(loads) - min(loads) <= largest
    assert largest <= max(max_tokens, batch.lengths.max())


@pytest.fixture(scope="module")
def chunker(tiny_encoder: Callable[[str], str]) -> TextChunker:
    return TextChunker(tiny_encoder("bert"), chunk_size=64).fit()


def test_one_long_text_is_spread_over_all_devices(chunker: TextChunker) -> None:
    texts = ["dog " * (24 * 62), *["dog " * 62] * 7]
    batch = ChunkBatch(chunker.transform(texts))
    for limit in (2048, 1024, 256, 64):
        shares = batch.shares(limit, False, 2)
        loads = [sum(batch.lengths[group].sum() for group in share) for share in shares]
        assert max(loads) <= 16 * 64
