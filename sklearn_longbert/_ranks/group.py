"""Messages between the ranks of a group.

Rank 0 leads. It asks the others, one after the other, and each answers once to each request.
Weights and gradients alone go to all at once. Messages pass through the memory of the CPU, by
gloo. Weights and gradients go from GPU to GPU, by NCCL, where there is one.
"""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

TIMEOUT = timedelta(days=1)  # a rank may wait while another reads texts; one that ends is noticed
HEADER, BODY = 0, 1  # tags of the two parts of a message


class RankError(RuntimeError):
    """Another rank has failed."""


class RankLostError(RankError):
    """Another rank has ended, or cannot be reached."""


class OtherRankOutOfMemoryError(MemoryError):
    """Memory has run out on another rank."""


class Group:
    """The ranks that encode together, as one of them sees them.

    Parameters
    ----------
    rank : int
        Number of this rank. Rank 0 leads.
    size : int
        Number of the ranks.
    messages : ProcessGroup or Backend of torch.distributed
        Sends tensors on the CPU.
    weights : ProcessGroup or Backend, default=None
        Sends tensors on GPUs. None sends them through the memory of the CPU.
    """

    def __init__(self, rank: int, size: int, messages: Any, weights: Any = None) -> None:
        self.rank = rank
        self.size = size
        self._messages = messages
        self._weights = weights

    @property
    def others(self) -> range:
        """The ranks that follow."""
        return range(1, self.size)

    def send(self, rank: int, message: Any) -> None:
        """Send an object that can be pickled.

        Raises
        ------
        RankLostError
            If the other rank has ended.
        """
        body = torch.frombuffer(bytearray(pickle.dumps(message)), dtype=torch.uint8)
        with _naming(rank):
            self._messages.send([torch.tensor([len(body)])], rank, HEADER).wait(TIMEOUT)
            self._messages.send([body], rank, BODY).wait(TIMEOUT)

    def receive(self, rank: int) -> Any:
        """Wait for a message, and return it.

        Raises
        ------
        RankLostError
            If the other rank has ended.
        """
        size = torch.zeros(1, dtype=torch.int64)
        with _naming(rank):
            self._messages.recv([size], rank, HEADER).wait(TIMEOUT)
            body = torch.empty(int(size), dtype=torch.uint8)
            self._messages.recv([body], rank, BODY).wait(TIMEOUT)
        return pickle.loads(body.numpy().data)

    def spread(self, tensors: list[Tensor]) -> None:
        """Overwrite tensors with those of the leader; all ranks must call this together."""
        flat = _flat(tensors)
        with _naming(None), torch.no_grad():
            self._carrier(flat).broadcast(sent := self._sent(flat), 0, TIMEOUT).wait()
            if self.rank > 0:
                _set(tensors, sent)

    def sum(self, tensors: list[Tensor]) -> None:
        """Add the tensors of all ranks to those of the leader; all must call this together.

        Those of the others are undefined afterwards.
        """
        flat = _flat(tensors)
        with _naming(None), torch.no_grad():
            self._carrier(flat).reduce(sent := self._sent(flat), 0, timeout=TIMEOUT).wait()
            if self.rank == 0:
                _set(tensors, sent)

    def _carrier(self, flat: Tensor) -> Any:
        is_direct = self._weights is not None and flat.device.type == "cuda"
        return self._weights if is_direct else self._messages

    def _sent(self, flat: Tensor) -> Tensor:
        return flat if self._weights is not None else flat.cpu()


def _flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _set(tensors: list[Tensor], flat: Tensor) -> None:
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.reshape(tensor.shape))


@contextmanager
def _naming(rank: int | None) -> Iterator[None]:
    """Turn an error of the connection into one that says which rank has ended."""
    try:
        yield
    except RuntimeError as error:
        who = "Another rank" if rank is None else f"Rank {rank}"
        raise RankLostError(
            f"{who} has ended, or cannot be reached any more ({str(error).strip()}): its own "
            f"output may tell why. A process that is killed has perhaps run out of memory."
        ) from error
