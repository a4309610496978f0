"""Save and restore torch's random generators, on the CPU and on the device that trains."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

# state of the CPU; numbers of devices; states of devices
RandomStates = tuple[Tensor, list[int], list[Tensor]]


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
    gpus = []
    if device.type == "cuda":
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed would seed every device, and leave the others changed
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield
