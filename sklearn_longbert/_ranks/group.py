"""Messages between the ranks of a group.

Rank 0 leads. It asks the others, one after the other, and each answers once to each request.
Weights and gradients alone go to all at once. Messages pass through the memory of the CPU, by
gloo. Weights and gradients go from GPU to GPU, by NCCL, where there is one.

Invariant: an error between the first and the last byte of an exchange leaves the group unusable,
because nobody knows what the other side waits for.
"""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import timedelta
from threading import Thread
from typing import Any

import torch
from torch import Tensor

TIMEOUT = timedelta(days=1)  # a rank may wait while another reads texts; one that ends is noticed
LOOKING_SECONDS = 0.2  # between two looks for Ctrl-C and for workers that have ended
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
    look : callable, default=None
        Called again and again while this rank waits; it raises an error if there is no use in
        waiting.
    close : callable, default=None
        Ends the connections. None ends them when nobody holds `messages` any more.
    is_disposable : bool, default=False
        Whether an error ends the other ranks, too, so that they need not be told.

    Attributes
    ----------
    is_broken : bool
        Whether an exchange has begun that has not ended.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        messages: Any,
        weights: Any = None,
        look: Callable[[], None] | None = None,
        close: Callable[[], None] | None = None,
        is_disposable: bool = False,
    ) -> None:
        self.rank = rank
        self.size = size
        self.is_disposable = is_disposable
        self.is_broken = False
        self._depth = 0
        self._messages = messages
        self._weights = weights
        self._look = look
        self._close = close

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
        self.send_bytes(rank, pickle.dumps(message))

    def send_bytes(self, rank: int, pickled: bytes) -> None:
        """Send a message that is pickled already; see :meth:`send`."""
        body = torch.frombuffer(bytearray(pickled), dtype=torch.uint8)
        with self._exchange(rank):
            self._wait(self._messages.send([torch.tensor([len(body)])], rank, HEADER))
            self._wait(self._messages.send([body], rank, BODY))

    def receive(self, rank: int) -> Any:
        """Wait for a message, and return it.

        Raises
        ------
        RankLostError
            If the other rank has ended.
        """
        size = torch.zeros(1, dtype=torch.int64)
        with self._exchange(rank):
            self._wait(self._messages.recv([size], rank, HEADER))
            body = torch.empty(int(size), dtype=torch.uint8)
            self._wait(self._messages.recv([body], rank, BODY))
        return pickle.loads(body.numpy().data)

    def buffer(self, n_numbers: int, like: Tensor) -> Tensor:
        """Return memory to send as many numbers in; see :meth:`spread` and :meth:`sum`."""
        device = like.device if self._weights is not None else "cpu"
        with torch.inference_mode(False):  # it serves outside of the caller's mode, too
            return torch.empty(n_numbers, dtype=like.dtype, device=device)

    def spread(self, buffer: Tensor) -> None:
        """Overwrite a buffer with that of the leader; all ranks must call this together."""
        with self._exchange(None):
            self._wait(self._carrier(buffer).broadcast(buffer, 0, TIMEOUT))

    def sum(self, buffer: Tensor) -> None:
        """Add the buffers of all ranks to that of the leader; all must call this together.

        Those of the others are undefined afterwards.
        """
        with self._exchange(None):
            self._wait(self._carrier(buffer).reduce(buffer, 0, timeout=TIMEOUT))

    def _carrier(self, buffer: Tensor) -> Any:
        return self._weights if buffer.device.type == "cuda" else self._messages

    def _wait(self, work: Any) -> None:
        """Wait in another thread, so that this one sees Ctrl-C."""
        waiting: Future[Any] = Future()

        def wait() -> None:
            try:
                waiting.set_result(work.wait(TIMEOUT))
            except BaseException as error:  # the waiting thread raises it
                waiting.set_exception(error)

        Thread(target=wait, daemon=True).start()  # no obstacle to the end of this process
        while True:
            try:
                waiting.result(LOOKING_SECONDS)
            except TimeoutError:
                if waiting.done():
                    raise
                if self._look is not None:
                    self._look()
            else:
                return

    @contextmanager
    def indivisible(self) -> Iterator[None]:
        """Mark what the ranks do together, which an error would leave half done."""
        if self.is_broken and self._depth == 0:
            raise RankLostError(
                "An earlier error has parted the ranks in the middle of a message: start all "
                "processes anew."
            )
        self.is_broken = True
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        self.is_broken = self._depth > 0

    @contextmanager
    def _exchange(self, rank: int | None) -> Iterator[None]:
        """Turn an error of the connection into one that says which rank has ended."""
        with self.indivisible():
            try:
                yield
            except RankError:
                raise
            except RuntimeError as error:
                who = "Another rank" if rank is None else f"Rank {rank}"
                raise RankLostError(
                    f"{who} has ended, or cannot be reached any more ({str(error).strip()}): its "
                    f"own output may tell why. A process that is killed has perhaps run out of "
                    f"memory."
                ) from error

    def close(self) -> None:
        """End the connections, so that no other rank waits for this one."""
        self.is_broken = True
        self._messages = self._weights = None
        if self._close is not None:
            self._close()
            self._close = None
