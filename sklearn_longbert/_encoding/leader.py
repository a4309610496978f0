"""How a network shares its chunks with other devices: what the leader asks the other ranks for.

Texts, labels, the loss, the optimizer and all decisions are the leader's alone. So a fit has one
history, one memory of frozen embeddings and one stream of random numbers, and the ranks have the
same weights, because they get them before each step. Chunks keep their numbers in the batch, on
which their dropout depends. So gradients are those of one device, except for rounding.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._encoding.batches import ChunkBatch, Groups
from sklearn_longbert._encoding.encoder import ChunkEncoder, encoder_state
from sklearn_longbert._encoding.follower import (
    DISMISSED,
    FAILED,
    LEADER_FAILED,
    OUT_OF_MEMORY,
    follow,
    gradients_from,
    gradients_into,
    weights_into,
)
from sklearn_longbert._encoding.remembered import digest, encoder_digest
from sklearn_longbert._ranks.group import Group, OtherRankOutOfMemoryError, RankError, RankLostError
from sklearn_longbert._ranks.workers import worker_group

_at_work: ContextVar[tuple[ChunkEncoder, "Leader"] | None] = ContextVar("at_work", default=None)


class Leader:
    """What rank 0 asks the other ranks for.

    Parameters
    ----------
    group : Group
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self.last_message: Any = None  # what the others get when they are dismissed
        self.network: ChunkEncoder
        self.changes = False
        self.buffer: Tensor | None = None  # of all weights, or of their gradients
        self._awaited: list[int] = []  # ranks that have not answered yet
        self._asked: dict[int, Groups] = {}  # the micro-batches of each rank at work

    @property
    def n_ranks(self) -> int:
        """Number of the ranks, this one counted."""
        return self.group.size

    def _ask(self, rank: int, name: str, *arguments: Any) -> None:
        self.group.send(rank, (name, arguments))
        self._awaited.append(rank)

    def _answers(self) -> dict[int, Any]:
        """Return the answer of each rank that was asked."""
        answers, short = {}, []
        while self._awaited:
            rank = self._awaited[0]
            status, answer = self.group.receive(rank)
            self._awaited.pop(0)
            if status == FAILED:
                raise RankError(f"Rank {rank} has failed: {answer}")
            if status == OUT_OF_MEMORY:
                short.append(f"Memory has run out on rank {rank}: {answer}")
            answers[rank] = answer
        if short:
            raise OtherRankOutOfMemoryError(short[0])
        return answers

    def _ask_all(self, name: str, *arguments: Any) -> dict[int, Any]:
        self._drain()  # what a caught error has left
        for rank in self.group.others:
            self._ask(rank, name, *arguments)
        return self._answers()

    def meet(self, key: bytes) -> None:
        """Raise RankError if another rank means to fit something else, by its digest."""
        self._ask_all("meet", key)

    def begin(self, network: ChunkEncoder, autocast: torch.dtype | None, changes: bool) -> None:
        """Let all ranks work with the encoder of a network.

        Parameters
        ----------
        network : ChunkEncoder
        autocast : torch.dtype or None
        changes : bool
            Whether the weights change from one request to the next.
        """
        self.network, self.changes, self.buffer = network, changes, None
        settings = {"token_pooling": network.token_pooling, "layers": network.layers}
        key = digest(encoder_digest(network.encoder), network.configuration, settings)
        known = self._ask_all("begin", key, autocast)
        unknown = [rank for rank in self.group.others if not known[rank]]
        if unknown:
            state = {**encoder_state(network), "quantized": None}
            own = {f"encoder.{name}" for name in network.encoder.state_dict()}
            state["weights"] = {n: weight for n, weight in state["weights"].items() if n in own}
            for rank in unknown:
                self._ask(rank, "build", key, state, settings, not changes)
            self._answers()

    def _spread_weights(self) -> None:
        """Give all ranks the present weights, and which of them are trained."""
        if not self.changes:
            return
        weights = list(self.network.encoder.parameters())
        shapes = [tuple(weight.shape) for weight in weights]
        self._ask_all("prepare", shapes, [weight.requires_grad for weight in weights])
        if self.buffer is None:
            self.buffer = self.group.buffer(sum(w.numel() for w in weights), weights[0])
        weights_into(self.buffer, weights)
        self._together("take_weights", self.group.spread)

    def _together(self, name: str, collective: Callable[[Tensor], None]) -> None:
        """Let all ranks do what they must do at the same time."""
        assert self.buffer is not None
        with self.group.indivisible():
            for rank in self.group.others:
                self._ask(rank, name)
            collective(self.buffer)
        self._answers()

    def limits(
        self, own: tuple[int, int], bytes_per_token: float, reserved: int
    ) -> tuple[int, int]:
        """Return the least limits of all ranks, of which `own` are those of the leader."""
        all_limits = [own, *self._ask_all("limits", bytes_per_token, reserved).values()]
        return min(limit for limit, _ in all_limits), min(limit for _, limit in all_limits)

    def encode(self, batch: ChunkBatch, shares: list[Groups]) -> None:
        """Ask the other ranks to encode their shares of a batch; see :meth:`encoded`."""
        self._drain()
        self._spread_weights()
        for rank in self.group.others:
            if shares[rank]:
                self._ask(rank, "encode", batch.share(shares[rank]))

    def encoded(self) -> list[Tensor]:
        """Return the embeddings of the shares, on the CPU."""
        return list(self._answers().values())

    def forward(self, batch: ChunkBatch, shares: list[Groups], n_kept: list[int]) -> None:
        """Ask the other ranks for the first passes of a step over their shares of a batch.

        Parameters
        ----------
        batch : ChunkBatch
        shares : list of list of ndarray
            The micro-batches of each rank.
        n_kept : list of int
            Number of micro-batches of each rank that may keep their graphs.
        """
        self._spread_weights()
        self._asked = {rank: shares[rank] for rank in self.group.others if shares[rank]}
        for rank, groups in self._asked.items():
            self._ask(rank, "forward", batch.share(groups), n_kept[rank])

    def first_rows(self) -> tuple[NDArray[np.intp], Tensor]:
        """Return the numbers of the chunks of the other ranks, and their embeddings."""
        answers = self._answers()
        numbers = [group for rank in answers for group in self._asked[rank]]
        if not numbers:
            return np.empty(0, dtype=np.intp), torch.empty(0, self.network.embedding_size)
        return np.concatenate(numbers), torch.cat(list(answers.values()))

    def propagate(self, gradients: Tensor) -> None:
        """Ask the other ranks to propagate the gradients of their embeddings."""
        for rank, groups in self._asked.items():
            numbers = torch.from_numpy(np.concatenate(groups))
            self._ask(rank, "propagate", gradients[numbers.to(gradients.device)].cpu())

    def add_gradients(self) -> None:
        """Add the gradients of the other ranks to those of this one."""
        weights = list(self.network.encoder.parameters())
        present = [weight.grad is not None for weight in weights]
        for of_rank in self._answers().values():
            present = [own or other for own, other in zip(present, of_rank, strict=True)]
        if any(present):
            assert self.buffer is not None
            gradients_into(self.buffer, weights)
            self._together("sum_gradients", self.group.sum)
            gradients_from(self.buffer, weights, present)

    def drop(self) -> None:
        """Let all ranks free what they keep of a step, which is tried again."""
        self._ask_all("drop")

    def dismiss(self) -> None:
        """Tell all ranks that the work is done."""
        message = pickle.dumps((DISMISSED, self.last_message))
        for rank in self.group.others:
            self.group.send_bytes(rank, message)

    def give_up(self, error: BaseException) -> None:
        """Tell all ranks that the work has failed, unless they end with the group."""
        if self.group.is_broken or self.group.is_disposable:
            self.group.close()
            return
        self._drain()
        text = f"rank 0 has raised {type(error).__name__}: {error}"
        try:
            message = pickle.dumps((LEADER_FAILED, (text, self.last_message)))
        except Exception:  # pickles raise errors of any kind, and that is perhaps what has failed
            message = pickle.dumps((LEADER_FAILED, (text, None)))
        for rank in self.group.others:
            with suppress(RankLostError):  # one that has ended needs no message
                self.group.send_bytes(rank, message)

    def _drain(self) -> None:
        """Wait for the answers that nobody needs any more."""
        while self._awaited:
            with suppress(RankLostError):  # it has ended
                self.group.receive(self._awaited.pop())


@contextmanager
def leading(group: Group) -> Iterator[Leader]:
    """Lead a group, and dismiss it in the end."""
    leader = Leader(group)
    try:
        yield leader
        leader.dismiss()
    except BaseException as error:  # Ctrl-C, too: the other ranks would wait for ever
        leader.give_up(error)
        raise


@contextmanager
def sharing(
    devices: Sequence[str],
    network: ChunkEncoder,
    autocast: torch.dtype | None,
    changes: bool = False,
    leader: Leader | None = None,
) -> Iterator[None]:
    """Let other devices encode the chunks of a network, too, in this thread.

    Inside of another such context of the same network, that one goes on.

    Parameters
    ----------
    devices : sequence of str
        Names of devices. Workers start on all but the first.
    network, autocast, changes
        See :meth:`Leader.begin`.
    leader : Leader, default=None
        Leads ranks that exist already, in place of the workers.
    """
    if leader_of(network) is not None or (leader is None and len(devices) == 1):
        yield
        return
    with ExitStack() as stack:
        if leader is None:
            group = stack.enter_context(worker_group(devices, follow))
            if group is None:
                yield
                return
            leader = stack.enter_context(leading(group))
        leader.begin(network, autocast, changes)
        token = _at_work.set((network, leader))
        stack.callback(_at_work.reset, token)
        yield


def leader_of(network: ChunkEncoder) -> Leader | None:
    """Return what shares the chunks of a network with other devices, in this thread."""
    at_work = _at_work.get()
    return at_work[1] if at_work is not None and at_work[0] is network else None
