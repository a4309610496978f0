"""distributed, which takes up the processes that torchrun and other launchers have started."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

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
    variables ``RANK``, ``WORLD_SIZE``, ``MASTER_ADDR`` and ``MASTER_PORT``, which launchers set,
    and ended with the context. With ``device="auto"`` or "cuda", each rank takes the GPU whose
    number is ``LOCAL_RANK``.

    Callbacks, bars and checkpoints are those of rank 0. Threads and worker processes that are
    started inside of the context, such as those of ``n_jobs``, fit alone.

    Raises
    ------
    RuntimeError
        If there is neither a process group nor the variables to make one.
    RankError
        A subclass of RuntimeError, from a fit, if another rank fails or ends.

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
    with ExitStack() as stack:
        if not dist.is_initialized():
            missing = [
                name
                for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
                if name not in os.environ
            ]
            if missing:
                raise RuntimeError(
                    f"There is no process group to take up, and the environment lacks {missing} to "
                    f"make one: start the script by a launcher, such as torchrun --nproc-per-node "
                    f"2 script.py, or call torch.distributed.init_process_group before."
                )
            _choose_gpu()
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            stack.callback(dist.destroy_process_group)
        else:
            _choose_gpu()
        messages = dist.new_group(backend="gloo")
        stack.callback(dist.destroy_process_group, messages)
        reaches_gpus = "nccl" in str(dist.get_backend_config())
        group = Group(
            dist.get_rank(),
            dist.get_world_size(),
            messages,
            dist.group.WORLD if reaches_gpus else None,
        )
        token = _group.set(group)
        stack.callback(_group.reset, token)
        yield


def _choose_gpu() -> None:
    if torch.cuda.is_available():
        number = int(os.environ.get("LOCAL_RANK", os.environ.get("RANK", "0")))
        torch.cuda.set_device(number % torch.cuda.device_count())


def active_group() -> Group | None:
    """Return the group of the context in which the caller is, None if that is none."""
    group = _group.get()
    return None if group is None or group.size == 1 else group


def follows() -> bool:
    """Return whether another process leads the fits of this one."""
    group = active_group()
    return group is not None and group.rank > 0
