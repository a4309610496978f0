"""Worker processes of this machine, one for each further device of a list.

They are loky's, which joblib uses, too: new processes that share nothing with this one. A forked
process could not use CUDA once this one has. They are kept between calls, because they take seconds
to import torch, and end with this process.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
from joblib.externals.loky import ProcessPoolExecutor

from sklearn_longbert._ranks.group import Group, RankError, RankLostError

POLL_SECONDS = 0.02
IDLE_SECONDS = 600  # after which a worker ends
CONNECTING = timedelta(minutes=1)
LOSING = timedelta(seconds=10)  # until it is known why a worker has ended


class Workers:
    """The workers of one process, and who uses them.

    Each is an executor of one process, so that a rank keeps its process.
    """

    def __init__(self) -> None:
        self.made_by = os.getpid()
        self.executors: list[ProcessPoolExecutor] = []
        self.lock = threading.Lock()
        self.holder: int | None = None  # the thread that has the lock

    @contextmanager
    def held(self, number: int) -> Iterator[list[ProcessPoolExecutor]]:
        """Yield so many executors when no other thread uses them; after an error they end."""
        with self.lock:
            self.holder = threading.get_ident()
            try:
                while len(self.executors) < number:
                    self.executors.append(ProcessPoolExecutor(1, timeout=IDLE_SECONDS))
                yield self.executors[:number]
            except BaseException:  # a worker may be at work for long
                while self.executors:
                    self.executors.pop().shutdown(wait=True, kill_workers=True)
                raise
            finally:
                self.holder = None


_of_process = [Workers()]


def _workers() -> Workers:
    if _of_process[0].made_by != os.getpid():  # after a fork, they are the parent's
        _of_process[0] = Workers()
    return _of_process[0]


@contextmanager
def worker_group(devices: Sequence[str], follow: Callable[..., Any]) -> Iterator[Group | None]:
    """Start one worker for each device after the first, and yield the group that they form.

    If this thread is in such a context already, as a callback in a fit is, None is yielded.

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
    workers = _workers()
    if workers.holder == threading.get_ident():
        yield None
        return
    with (
        workers.held(len(devices) - 1) as executors,
        tempfile.TemporaryDirectory() as folder,
        _connected(executors, devices, follow, str(Path(folder) / "store")) as group,
    ):
        yield group


@contextmanager
def _connected(
    executors: list[ProcessPoolExecutor],
    devices: Sequence[str],
    follow: Callable[..., Any],
    path: str,
) -> Iterator[Group]:
    size, n_threads = len(devices), torch.get_num_threads()
    tasks = {
        rank: executor.submit(_work, follow, path, rank, devices, n_threads)
        for rank, executor in enumerate(executors, start=1)
    }
    store = dist.FileStore(path, size)

    def check() -> None:
        for rank, task in tasks.items():
            if task.done() and task.exception() is not None:
                error = task.exception()
                raise RankError(f"Rank {rank}, on {devices[rank]}, has ended: {error}") from error

    while not all(store.check([_ready(rank)]) for rank in tasks):
        check()
        sleep(POLL_SECONDS)
    try:
        yield _join(store, 0, devices)
    except RankLostError:
        wait(tasks.values(), LOSING.total_seconds())
        check()  # names the cause
        raise
    for task in tasks.values():
        task.result()


def _ready(rank: int) -> str:
    return f"rank {rank} is ready"


def _work(
    follow: Callable[..., Any], path: str, rank: int, devices: Sequence[str], n_threads: int
) -> None:
    torch.set_num_threads(n_threads)  # of this worker; as many as rank 0 has
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = dist.FileStore(path, len(devices))
    store.set(_ready(rank), "")
    follow(_join(store, rank, devices), devices[rank])


def _join(store: dist.Store, rank: int, devices: Sequence[str]) -> Group:
    size = len(devices)
    messages = dist.ProcessGroupGloo(dist.PrefixStore("gloo", store), rank, size, CONNECTING)
    weights = None
    if devices[0].startswith("cuda") and len(set(devices)) == size and dist.is_nccl_available():
        weights = dist.ProcessGroupNCCL(
            dist.PrefixStore("nccl", store), rank, size, dist.ProcessGroupNCCL.Options()
        )
    return Group(rank, size, messages, weights)
