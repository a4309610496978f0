"""distributed, which takes up the processes that torchrun and other launchers have started."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import torch
import torch.distributed as dist

from sklearn_longbert._ranks.group import Group

_group: ContextVar[Group | None] = ContextVar("sklearn_longbert_group", default=None)


@contextmanager
def distributed() -> Iterator[None]:
    """Let fits inside of this context use all processes of a launcher.

    torchrun, Ray Train, Spark's TorchDistributor and Slurm start the same script several times.
    Each process, called a rank, runs the same fits on the same texts. Rank 0 leads a fit. It cuts
    the texts and sends chunks to the others, which encode them and compute gradients. So one long
    text uses all devices. Afterwards each rank has the fitted estimator, and predicts alone. The
    weights are those of a fit on one device, except for rounding.

    An existing process group of torch.distributed is used. Without one, it is made from the
    variables ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, which launchers set.
    With ``device="auto"`` or "cuda", each rank takes the GPU whose number is ``LOCAL_RANK``, and
    keeps it. Do not name a device.

    Callbacks, bars and checkpoints are those of rank 0. LongBertVectorizer, threads and worker
    processes that are started inside of the context, such as those of ``n_jobs``, and fits inside
    of a fit work alone.

    Raises
    ------
    RuntimeError
        If there is neither a process group nor the variables to make one. A fit raises it if
        another rank fails or ends.

    Examples
    --------
    ``torchrun --nproc-per-node 2 script.py`` runs a script without the two lines about the process
    group. They make a group of one, so that the example runs without a launcher.

    >>> from tempfile import mkdtemp
    >>> import torch.distributed
    >>> from sklearn_longbert import LongBertClassifier, distributed
    >>> texts, labels = ["A dull film. " * 40, "A lovely film. " * 40] * 4, [0, 1] * 4
    >>> where = f"file://{mkdtemp()}/store"
    >>> torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    >>> with distributed():
    ...     classifier = LongBertClassifier(chunk_size=64, random_state=0).fit(texts, labels)
    >>> torch.distributed.destroy_process_group()
    >>> classifier.predict(texts[:2]).tolist()
    [0, 1]
    """
    if not dist.is_initialized():
        _make_process_group()
    messages = dist.new_group(backend="gloo")
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    is_nccl = "nccl" in str(dist.get_backend_config()) and n_local <= torch.cuda.device_count()
    group = Group(
        dist.get_rank(),
        dist.get_world_size(),
        messages,
        dist.group.WORLD if is_nccl else None,
        close=partial(dist.destroy_process_group, messages),
    )
    _choose_gpu()
    token = _group.set(group)
    try:
        yield
    finally:
        _group.reset(token)
        group.close()


def _make_process_group() -> None:
    """Make a group that lasts until this process ends, because a launcher's store serves once."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if name not in os.environ]
    if missing:
        raise RuntimeError(
            f"There is no process group to take up, and the environment lacks {missing} to make "
            f"one: start the script by a launcher, such as torchrun --nproc-per-node 2 script.py, "
            f"or call torch.distributed.init_process_group before."
        )
    _choose_gpu()
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    atexit.register(_end_process_group)


def _end_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _choose_gpu() -> None:
    """Let "cuda" be the GPU of this rank, for good: its estimators stay on it."""
    if torch.cuda.is_available():
        names = ("LOCAL_RANK", "SLURM_LOCALID", "RANK")
        number = next((os.environ[name] for name in names if name in os.environ), "0")
        torch.cuda.set_device(int(number) % torch.cuda.device_count())


@contextmanager
def fitting_alone() -> Iterator[None]:
    """Let fits inside of a fit, such as that of a baseline, use this process only."""
    token = _group.set(None)
    try:
        yield
    finally:
        _group.reset(token)


def active_group() -> Group | None:
    """Return the group of the context in which the caller is, None if that is none."""
    group = _group.get()
    return None if group is None or group.size == 1 else group


def follows() -> bool:
    """Return whether another process leads the fits of this one."""
    group = active_group()
    return group is not None and group.rank > 0
