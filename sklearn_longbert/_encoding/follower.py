"""What a rank that follows does: it encodes chunks for the leader, and computes gradients.

It knows neither texts nor labels nor losses. The leader sends the token ids of chunks, weights, and
the gradients of embeddings.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sklearn_longbert._encoding.batches import ChunkShare
from sklearn_longbert._encoding.encoder import ChunkEncoder, encoder_from_state, sparse_lookups
from sklearn_longbert._encoding.gradient_cache import (
    FirstPass,
    first_passes,
    own_random_state,
    propagate,
    rows_of,
    seed_generators,
)
from sklearn_longbert._encoding.memory import auto_limits, is_out_of_memory, own_modes
from sklearn_longbert._encoding.passes import Passes, encode_groups
from sklearn_longbert._ranks.group import Group, RankError

# how an answer begins
FINE, OUT_OF_MEMORY, FAILED = "fine", "out of memory", "failed"
# how the leader ends the work
DISMISSED, LEADER_FAILED = "dismissed", "leader failed"

_known: dict[bytes, ChunkEncoder] = {}  # the encoder of the last prediction, for the next one


def follow(group: Group, device: str, key: bytes = b"") -> Any:
    """Do what the leader asks for, until it dismisses this rank; return its last message.

    Parameters
    ----------
    group : Group
    device : str
        Name of the device of this rank.
    key : bytes
        Digest of what this rank means to fit, which must be the leader's.

    Raises
    ------
    RankError
        If the leader or a rank has failed.
    """
    return Follower(group, torch.device(device), key).run()


class Follower:
    """The state of a rank that follows; the leader calls its public methods by their names."""

    def __init__(self, group: Group, device: torch.device, key: bytes) -> None:
        self.group = group
        self.device = device
        self.key = key
        self.error: BaseException | None = None
        self.first: list[FirstPass] = []  # of the step

    def run(self) -> Any:
        """Answer one request after the other."""
        with own_modes(self.device), own_random_state(0, self.device):
            while True:
                name, arguments = self.group.receive(0)
                if name == DISMISSED:
                    return arguments
                if name == LEADER_FAILED:
                    raise RankError(f"The fit has ended: {arguments}") from self.error
                self.group.send(0, self._answer(getattr(self, name), arguments))

    def _answer(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return FINE, method(*arguments)
        except Exception as error:  # the leader raises it
            if is_out_of_memory(error):
                return OUT_OF_MEMORY, None
            self.error = error
            return FAILED, f"{type(error).__name__}: {error}"

    def meet(self, key: bytes) -> None:
        """Raise ValueError if the leader fits something else."""
        if key != self.key:
            raise ValueError(
                "it has other texts, targets or parameters than rank 0: call the same methods on "
                "all ranks, with the same arguments."
            )

    def begin(self, key: bytes, autocast: torch.dtype | None) -> bool:
        """Begin to work with an encoder, and return whether it is known."""
        self.passes = Passes(1, self.device, autocast)
        if key in _known:
            self.network = _known[key]
        return key in _known

    def build(self, key: bytes, state: dict[str, Any], settings: dict[str, Any]) -> None:
        """Build the encoder that is not known."""
        encoder, weights = encoder_from_state(state)
        self.network = ChunkEncoder(encoder, **settings)
        self.network.load_state_dict(weights, assign=True)
        self.network.shares_memory = True
        self.network.make_writable()
        self.network.to(self.device).eval()
        _known.clear()
        _known[key] = self.network

    def limits(self, bytes_per_token: float, reserved: int) -> tuple[int, int]:
        """Return the limits of :func:`auto_limits` on this device."""
        return auto_limits(bytes_per_token, reserved, self.device)

    def take_weights(self, trained: list[bool]) -> None:
        """Take over the leader's weights, and which of them are trained."""
        _known.clear()  # the key is that of other weights
        weights = list(self.network.encoder.parameters())
        for weight, is_trained in zip(weights, trained, strict=True):
            weight.requires_grad_(is_trained)
        self.group.spread(weights)

    def encode(self, share: ChunkShare) -> Tensor:
        """Return the embeddings of chunks, in their order in the micro-batches."""
        self.network.eval()
        with torch.inference_mode():
            return torch.cat(list(encode_groups(self.network, share, share.groups, self.passes)))

    def forward(self, share: ChunkShare, n_kept: int) -> Tensor:
        """Return the embeddings of chunks in training, and keep the graphs of the first ones."""
        self.drop()
        self.network.train()
        seed_generators(share.seed or 0, self.device)
        self.share = share
        with sparse_lookups(self.network):
            self.first = first_passes(self._encode, share.groups, n_kept, self.device)
        return rows_of(self.first).cpu()

    def _encode(self, numbers: np.ndarray) -> Tensor:
        with self.passes.casting():
            return self.network.encode(self.share.micro_batch(numbers), self.share.seed or 0)

    def propagate(self, gradients: Tensor) -> list[bool]:
        """Propagate gradients of embeddings; return which weights have a gradient now."""
        of_number = torch.zeros(int(max(self.share.chunks)) + 1, gradients.shape[1])
        of_number[np.concatenate(self.share.groups)] = gradients
        with sparse_lookups(self.network):
            propagate(self._encode, self.first, of_number.to(self.device), self.device)
        return self.have_gradients()

    def have_gradients(self) -> list[bool]:
        """Return which weights have a gradient."""
        return [weight.grad is not None for weight in self.network.encoder.parameters()]

    def sum_gradients(self, wanted: list[bool]) -> None:
        """Add the gradients of these weights to the leader's."""
        self.group.sum(gradients_of(self.network, wanted))
        self.drop()

    def drop(self) -> None:
        """Free graphs and gradients."""
        self.first = []
        self.network.zero_grad(set_to_none=True)


def gradients_of(network: ChunkEncoder, wanted: list[bool]) -> list[Tensor]:
    """Return the gradients of the wanted weights of an encoder; a missing one becomes zero."""
    gradients = []
    for weight, is_wanted in zip(network.encoder.parameters(), wanted, strict=True):
        if is_wanted:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
    return gradients
