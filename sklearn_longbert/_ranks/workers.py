"""Worker processes of this machine, one for each further device of a list.

They are loky's, which joblib uses, too: new processes that share nothing with this one. A forked
process could not use CUDA once this one has. They are kept between calls, because they take seconds
to import torch, and end with this process.
"""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from multiprocessing.util import Finalize
from pathlib import Path
from time import sleep
from typing import Any

import psutil
import torch
import torch.distributed as dist
from joblib.externals.loky import ProcessPoolExecutor

from sklearn_longbert._ranks.group import Group, RankError, RankLostError

POLL_SECONDS = 0.02
IDLE_SECONDS = 600  # after which a worker ends
CONNECTING = timedelta(minutes=1)
LOSING_SECONDS = 5  # until it is known why a worker has ended


class Workers:
    """The workers of one process, of which each is an executor, so that a rank keeps its process.

    They end with this process, and after an error, because they may be at work for long.
    """

    def __init__(self) -> None:
        self.executors: list[ProcessPoolExecutor] = []
        self.lock = threading.Lock()
        # before multiprocessing waits for its children
        Finalize(None, self.end, exitpriority=100)

    def start(self, number: int) -> list[ProcessPoolExecutor]:
        """Return so many executors."""
        while len(self.executors) < number:
            self.executors.append(ProcessPoolExecutor(1, timeout=IDLE_SECONDS))
        return self.executors[:number]

    def end(self) -> None:
        """End all workers, whatever they do."""
        while self.executors:
            self.executors.pop().shutdown(wait=True, kill_workers=True)


_workers: dict[int, Workers] = {}  # by process: after a fork, those of the parent are not ours


def workers_of_process() -> Workers:
    """Return the workers of this process."""
    if os.getpid() not in _workers:
        _workers[os.getpid()] = Workers()
    return _workers[os.getpid()]


@contextmanager
def worker_group(devices: Sequence[str], follow: Callable[..., Any]) -> Iterator[Group | None]:
    """Start one worker for each device after the first, and yield the group that they form.

    None is yielded if the workers are in use, by another thread or by a fit around this call.

    Parameters
    ----------
    devices : sequence of str
        Names of the devices of all ranks.
    follow : callable
        What workers call with their group and the name of their device, until it returns.

    Raises
    ------
    RankError
        If a worker ends.
    """
    workers = workers_of_process()
    if not workers.lock.acquire(blocking=False):
        yield None
        return
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "store")
            with _connected(workers.start(len(devices) - 1), devices, follow, path) as group:
                yield group
    except BaseException:  # Ctrl-C, too: a worker may be at work for long, and waits for us
        workers.end()
        raise
    finally:
        workers.lock.release()


@contextmanager
def _connected(
    executors: list[ProcessPoolExecutor],
    devices: Sequence[str],
    follow: Callable[..., Any],
    path: str,
) -> Iterator[Group]:
    size, settings = len(devices), (os.getpid(), torch.get_num_threads())
    tasks = {
        rank: executor.submit(_work, follow, path, rank, devices, *settings)
        for rank, executor in enumerate(executors, start=1)
    }
    store = dist.FileStore(path, size)

    def look() -> None:
        for rank, task in tasks.items():
            error = task.exception() if task.done() else None
            if error is not None and not isinstance(error, RankError):
                raise RankLostError(
                    f"Rank {rank}, on {devices[rank]}, has ended: {error}"
                ) from error

    while not all(store.check([_ready(rank)]) for rank in tasks):
        look()
        sleep(POLL_SECONDS)
    try:
        group = _join(store, 0, devices, look)
        yield group
    except RuntimeError:
        wait(tasks.values(), LOSING_SECONDS)
        look()  # names the cause, if a worker has ended
        raise
    for task in tasks.values():
        task.result()
    group.close()


def _ready(rank: int) -> str:
    return f"rank {rank} is ready"


def _work(
    follow: Callable[..., Any],
    path: str,
    rank: int,
    devices: Sequence[str],
    parent: int,
    n_threads: int,
) -> None:
    _watch(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for us
    torch.set_num_threads(n_threads)  # of this worker; as many as rank 0 has
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = dist.FileStore(path, len(devices))
    store.set(_ready(rank), "")
    group = _join(store, rank, devices)
    try:
        follow(group, devices[rank])
    finally:
        group.close()


@lru_cache
def _watch(parent: int) -> None:
    """Let this worker end when the process that has started it ends, even if that is killed."""
    process = psutil.Process(parent)

    def watch() -> None:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _join(
    store: dist.Store,
    rank: int,
    devices: Sequence[str],
    look: Callable[[], None] | None = None,
) -> Group:
    size = len(devices)
    options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
    options._devices = [dist.ProcessGroupGloo.create_device(hostname="127.0.0.1")]
    options._timeout = CONNECTING
    messages = dist.ProcessGroupGloo(dist.PrefixStore("gloo", store), rank, size, options)
    weights = None
    if devices[0].startswith("cuda") and len(set(devices)) == size and dist.is_nccl_available():
        weights = dist.ProcessGroupNCCL(
            dist.PrefixStore("nccl", store), rank, size, dist.ProcessGroupNCCL.Options()
        )
    return Group(rank, size, messages, weights, look, is_disposable=True)
