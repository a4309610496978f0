"""Exact backward pass through many chunks in the memory of a few.

Steps, for one batch of documents:

1. Encode the micro-batches one after the other. The first ones, as long as their graphs fit
   into memory, are encoded with a graph, the others without.
2. Compute the loss from all chunk embeddings, and its gradient with respect to them.
3. Propagate that gradient through the graphs that were kept. Then encode each other micro-batch
   again, now with a graph, propagate through it, and free it.

Invariant: the gradients are those of one graph through all chunks, for any loss and pooling.
This holds because both passes see the same dropout. Masks belong to the chunks (see
:mod:`sklearn_longbert._encoding.dropout`). So chunks whose embeddings have no gradient may even be
left out of the second pass; under max pooling these are most chunks. If an encoder draws from
torch's generators itself, their states are replayed, and micro-batches stay whole. Its masks then
depend on the grouping, but its two passes still see the same ones.

References
----------
Gao, Zhang, Han and Callan (2021). Scaling deep contrastive learning batch size under memory
limited setup. RepL4NLP. https://arxiv.org/abs/2101.06983
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from sklearn_longbert._encoding.batches import in_order

Numbers = NDArray[np.intp]
# state of the CPU; numbers of devices; states of devices
RandomStates = tuple[Tensor, list[int], list[Tensor]]


class FirstPass(NamedTuple):
    """Results of a micro-batch in the first pass."""

    numbers: Numbers
    output: Tensor  # has a graph if `replay` is false
    replay: bool
    random_states: RandomStates | None  # if the encoder drew from torch's generators


class Remote(Protocol):
    """Other devices, which encode and propagate their own chunks at the same time."""

    def first_rows(self) -> tuple[Numbers, Tensor]:
        """Return the numbers of their chunks, and the embeddings of these."""

    def propagate(self, gradients: Tensor) -> None:
        """Begin to propagate the gradients of the embeddings of all chunks."""


def backward(
    encode: Callable[[Numbers], Tensor],
    micro_batches: Sequence[Numbers],
    n_kept: int,
    loss_of: Callable[[Tensor], Tensor],
    device: torch.device,
    remote: Remote | None = None,
) -> Tensor:
    """Add the gradients of a loss to those of the parameters, and return the loss.

    Parameters
    ----------
    encode : callable
        Maps the numbers of some chunks to their embeddings, of shape (n_chunks, embedding_size).
    micro_batches : sequence of ndarray
        The numbers of the chunks of each micro-batch. Each of 0, ..., n_chunks - 1 occurs once,
        here or among those of `remote`.
    n_kept : int
        Number of micro-batches, from the first, that may keep their graphs.
    loss_of : callable
        Maps the embeddings of all chunks, in the order of their numbers, to the loss.
    device : torch.device
        Random states of this device are replayed, as are those of the CPU.
    remote : Remote, default=None
        What has begun to encode the other chunks. It keeps the gradients that it computes.
    """
    passes = first_passes(encode, micro_batches, n_kept, device)
    numbers, rows = np.concatenate(micro_batches), rows_of(passes)
    if remote is not None:
        other_numbers, other_rows = remote.first_rows()
        numbers = np.concatenate([numbers, other_numbers])
        rows = torch.cat([rows, other_rows.to(rows)])
    embeddings = in_order(rows, numbers, np.arange(len(numbers))).requires_grad_()
    loss = loss_of(embeddings)
    loss.backward()
    assert embeddings.grad is not None
    if remote is not None:
        remote.propagate(embeddings.grad)
    propagate(encode, passes, embeddings.grad, device)
    return loss.detach()


def first_passes(
    encode: Callable[[Numbers], Tensor],
    micro_batches: Sequence[Numbers],
    n_kept: int,
    device: torch.device,
) -> list[FirstPass]:
    """Encode micro-batches, of which the first `n_kept` keep their graphs; see `backward`."""
    passes = []
    for index, numbers in enumerate(micro_batches):
        before = random_states(device)
        with torch.set_grad_enabled(index < n_kept):
            output = encode(numbers)
        drew = not are_equal(before, random_states(device))
        passes.append(FirstPass(numbers, output, index >= n_kept, before if drew else None))
    return passes


def rows_of(passes: Sequence[FirstPass]) -> Tensor:
    """Return the embeddings of all micro-batches, one after the other, without graphs."""
    return torch.cat([one.output.detach() for one in passes])


def propagate(
    encode: Callable[[Numbers], Tensor],
    passes: list[FirstPass],
    gradients: Tensor,
    device: torch.device,
) -> None:
    """Propagate gradients of embeddings through the micro-batches, and empty the list of these.

    Parameters
    ----------
    encode, device
        See :func:`backward`.
    passes : list of FirstPass
    gradients : Tensor of shape (n_chunks, embedding_size)
        The gradient of each chunk's embedding, by the number of the chunk.
    """
    after = random_states(device)
    while passes:
        _propagate(encode, passes.pop(0), gradients, device)
    restore(after, device)


def _propagate(
    encode: Callable[[Numbers], Tensor], one: FirstPass, gradients: Tensor, device: torch.device
) -> None:
    numbers, output = one.numbers, one.output
    if one.replay:
        if one.random_states is not None:
            restore(one.random_states, device)
        else:
            has_gradient = gradients[torch.from_numpy(numbers)].any(1).cpu().numpy()
            numbers = numbers[has_gradient]
            if len(numbers) == 0:
                return
        output = encode(numbers)
    if output.requires_grad:  # not if the encoder is frozen
        output.backward(gradients[torch.from_numpy(numbers)])


def random_states(device: torch.device) -> RandomStates:
    """Return the states of torch's generators that a pass on `device` may draw from."""
    return torch.get_rng_state(), *get_device_states(torch.empty(0, device=device))


def restore(states: RandomStates, device: torch.device) -> None:
    """Set the generators to the states that :func:`random_states` returned."""
    of_cpu, numbers, of_devices = states
    torch.set_rng_state(of_cpu)
    set_device_states(numbers, of_devices, device_type=device.type)


def are_equal(states: RandomStates, others: RandomStates) -> bool:
    """Return whether nothing was drawn between the two states."""
    return all(map(torch.equal, [states[0], *states[2]], [others[0], *others[2]]))


@contextmanager
def own_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the generators that training draws from, and restore the caller's afterwards."""
    with torch.random.fork_rng(devices=gpus_of(device)):
        seed_generators(seed, device)
        yield


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that a step on `device` draws from.

    torch.manual_seed would seed every device.
    """
    torch.default_generator.manual_seed(seed)
    for gpu in gpus_of(device):
        torch.cuda.default_generators[gpu].manual_seed(seed)


def gpus_of(device: torch.device) -> list[int]:
    """Return the number of the device if it is a GPU of CUDA."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
