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

# the encoder of a worker's last prediction, for the next one, by its digest and its device
_known: dict[tuple[bytes, torch.device], ChunkEncoder] = {}


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
    LeaderFailedError
        If the leader has failed, for instance because another rank has.
    """
    return Follower(group, torch.device(device), key).run()


class LeaderFailedError(RankError):
    """The leader has failed. The second argument is its last message."""


class Follower:
    """The state of a rank that follows; the leader calls its public methods by their names."""

    def __init__(self, group: Group, device: torch.device, key: bytes) -> None:
        self.group = group
        self.device = device
        self.key = key
        self.error: BaseException | None = None
        self.network: ChunkEncoder
        self.passes: Passes
        self.buffer: Tensor  # of all weights, or of their gradients
        self.share: ChunkShare  # of the step
        self.first: list[FirstPass] = []  # of the step

    def run(self) -> Any:
        """Answer one request after the other."""
        with own_modes(self.device), own_random_state(0, self.device):
            while True:
                name, arguments = self.group.receive(0)
                if name == DISMISSED:
                    return arguments
                if name == LEADER_FAILED:
                    text, last_message = arguments
                    failed = f"The fit has ended: {text}"
                    raise LeaderFailedError(failed, last_message) from self.error
                self.group.send(0, self._answer(getattr(self, name), arguments))

    def _answer(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[str, Any]:
        try:
            return FINE, method(*arguments)
        except Exception as error:  # the leader raises it
            if is_out_of_memory(error):
                return OUT_OF_MEMORY, str(error)
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
        known = _known.get((key, self.device))
        if known is not None:
            self.network = known
        return known is not None

    def build(
        self, key: bytes, state: dict[str, Any], settings: dict[str, Any], is_kept: bool
    ) -> None:
        """Build the encoder that is not known; keep it if its weights do not change."""
        _known.clear()
        encoder, weights = encoder_from_state(state)
        self.network = ChunkEncoder(encoder, **settings)
        self.network.load_state_dict(weights, assign=True)
        self.network.shares_memory = True
        self.network.make_writable()
        self.network.to(self.device).eval()
        if is_kept and not self.key:
            _known[key, self.device] = self.network

    def limits(self, bytes_per_token: float, reserved: int) -> tuple[int, int]:
        """Return the limits of :func:`auto_limits` on this device."""
        return auto_limits(bytes_per_token, reserved, self.device)

    def prepare(self, shapes: list[tuple[int, ...]], trained: list[bool]) -> None:
        """Make room for the leader's weights; some of them are trained."""
        _known.clear()  # by the digest of weights that change now
        weights = list(self.network.encoder.parameters())
        if shapes != [tuple(weight.shape) for weight in weights]:
            raise ValueError(
                "the leader's encoder has got other weights than it had when the fit began: add "
                "none in a callback, or fit on one device."
            )
        for weight, is_trained in zip(weights, trained, strict=True):
            weight.requires_grad_(is_trained)
        if not hasattr(self, "buffer"):
            self.buffer = self.group.buffer(sum(w.numel() for w in weights), weights[0])

    def take_weights(self) -> None:
        """Take over the leader's weights."""
        self.group.spread(self.buffer)
        weights_from(self.buffer, list(self.network.encoder.parameters()))

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
        return [weight.grad is not None for weight in self.network.encoder.parameters()]

    def sum_gradients(self) -> None:
        """Add the gradients of all weights to the leader's."""
        gradients_into(self.buffer, list(self.network.encoder.parameters()))
        self.group.sum(self.buffer)
        self.drop()

    def drop(self) -> None:
        """Free graphs and gradients."""
        self.first = []
        self.network.zero_grad(set_to_none=True)


def weights_into(buffer: Tensor, weights: list[Tensor]) -> None:
    """Copy weights into a buffer, one after the other."""
    for weight, part in zip(weights, _parts(buffer, weights), strict=True):
        part.copy_(weight.detach())


def weights_from(buffer: Tensor, weights: list[Tensor]) -> None:
    """Set weights to those that :func:`weights_into` has put into a buffer."""
    with torch.no_grad():
        for weight, part in zip(weights, _parts(buffer, weights), strict=True):
            weight.copy_(part)


def gradients_into(buffer: Tensor, weights: list[Tensor]) -> None:
    """Copy the gradients of weights into a buffer, with zeros for those that are missing."""
    for weight, part in zip(weights, _parts(buffer, weights), strict=True):
        if weight.grad is None:
            part.zero_()
        else:
            part.copy_(weight.grad)


def gradients_from(buffer: Tensor, weights: list[Tensor], wanted: list[bool]) -> None:
    """Set the gradients of the wanted weights to those in a buffer."""
    parts = _parts(buffer, weights)
    for weight, part, is_wanted in zip(weights, parts, wanted, strict=True):
        if is_wanted and weight.grad is None:
            weight.grad = part.to(weight.device, copy=True)
        elif is_wanted:
            weight.grad.copy_(part)  # type: ignore[union-attr]


def _parts(buffer: Tensor, weights: list[Tensor]) -> list[Tensor]:
    """Return the part of a buffer of each weight, in its shape."""
    parts = buffer.split([weight.numel() for weight in weights])
    return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]
