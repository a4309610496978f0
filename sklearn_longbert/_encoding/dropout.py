"""Dropout whose masks belong to the chunks, however these are grouped into micro-batches.

A mask is not drawn but computed: an element is kept or dropped by a hash of the batch's seed,
the chunk's number in the batch, the token's position in the chunk, the number of the dropout
layer in the pass, and the element's index in the hidden state. So a chunk gets the same masks in
every micro-batch, alone or with others, packed or padded, and however often it is encoded.
Invariants: gradients do not depend on the grouping, and no random state has to be replayed. On a
CPU this is also faster than torch's Bernoulli numbers. It is our own code because the
masks of torch's dropout depend on what else is in the micro-batch. Other dropout, such as that of
torch's attention kernels for padded chunks where ``attention_dropout > 0``, draws from torch's
generators.

The hash is multiplicative (Dietzfelbinger et al., 1997): a random odd number for each element is
multiplied by a random number for each token, and the product is compared with the probability.

References
----------
Dietzfelbinger, Hagerup, Katajainen and Penttonen (1997). A reliable randomized algorithm for
the closest-pair problem. Journal of Algorithms 25(1). https://doi.org/10.1006/jagm.1997.0873
"""

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
NO_CHUNK = 2**40  # in place of a chunk number, for tables that belong to no chunk


def _mix(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Scatter 64-bit numbers by the finalizer of splitmix64."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def token_keys(seed: int, chunk_numbers: ArrayLike, lengths: list[int]) -> Tensor:
    """Return a random number for each token, of shape (n_tokens,), dtype int64.

    Parameters
    ----------
    seed : int
        Seed of the batch.
    chunk_numbers : array-like of int, of shape (n_chunks,)
        Number of each chunk in the batch, whatever the order in which they are encoded.
    lengths : list of int, of length n_chunks
        Number of tokens of each chunk.
    """
    with np.errstate(over="ignore"):
        of_batch = _mix(np.array([seed], dtype=np.uint64) * GOLDEN)
        numbers = np.asarray(chunk_numbers, dtype=np.uint64) + np.uint64(1)
        of_chunk = np.repeat(_mix(of_batch + numbers * GOLDEN), lengths)
        positions = np.concatenate([np.arange(length) for length in lengths]).astype(np.uint64)
        keys = _mix(of_chunk + positions * GOLDEN)
    return torch.from_numpy(keys.view(np.int64))


@lru_cache(maxsize=1024)
def _element_keys(layer: int, shape: tuple[int, ...]) -> Tensor:
    """Return a random odd number for each element of a token, of the given shape, dtype int32."""
    with np.errstate(over="ignore"):
        index = np.zeros(shape, dtype=np.uint64)
        for axis, size in enumerate(shape):  # a running number would depend on sizes
            along = np.arange(size, dtype=np.uint64) << np.uint64(24 * axis)
            index += along.reshape([-1 if other == axis else 1 for other in range(len(shape))])
        keys = _mix(_mix(index + GOLDEN) + np.uint64(layer + 1) * GOLDEN)
    odd = (keys >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    return torch.from_numpy(odd.view(np.int32))


@lru_cache(maxsize=1024)
def _layer_key(layer: int) -> int:
    with np.errstate(over="ignore"):
        key = _mix(np.array([layer + 1], dtype=np.uint64) * GOLDEN) | np.uint64(1)
    return int(key.view(np.int64)[0])


class ChunkRandomness:
    """State that the dropout layers of one encoder share while it encodes a micro-batch.

    Attributes
    ----------
    keys : Tensor of shape (n_rows, length) or None
        Keys of the tokens, arranged as in the encoder's input; None outside of training.
    """

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, keys: Tensor | None, seed: int = 0) -> None:
        """Start a pass over tokens with these keys, which were made with `seed`."""
        self.keys = keys
        self._seed = seed
        self._n_layers = 0

    def next_layer(self) -> int:
        """Return the next number; layers are numbered in the order in which a pass reaches them."""
        self._n_layers += 1
        return self._n_layers

    def keep(self, shape: torch.Size, p: float) -> Tensor | None:
        """Return where the next layer keeps a tensor's elements; None if its axes are unknown.

        Three kinds of tensors are known: hidden states, (n_rows, length, size); attention weights,
        (n_rows, n_heads, length, length); and tables that belong to no chunk, such as embeddings
        of relative positions, (n_entries, size). Vectors of chunks, (n_rows, size), would look
        like such a table, but no encoder without a pooler has them.
        """
        if self.keys is None:
            return None
        n_rows, length = self.keys.shape
        of_element: tuple[int, ...]
        if len(shape) == 3 and shape[:2] == (n_rows, length):
            keys, of_element = self.keys[:, :, None], shape[2:]
        elif len(shape) == 4 and (shape[0], shape[2]) == (n_rows, length):
            keys, of_element = self.keys[:, None, :, None], (shape[1], 1, shape[3])
        elif len(shape) == 2:
            table = token_keys(self._seed, [NO_CHUNK], [shape[0]])
            keys, of_element = table[:, None].to(self.keys.device), shape[1:]
        else:
            return None
        return keep_elements(keys, self.next_layer(), of_element, p)


def keep_elements(keys: Tensor, layer: int, shape: tuple[int, ...], p: float) -> Tensor:
    """Return a mask that is False with probability `p`; `keys` broadcast against `shape`."""
    of_token = ((keys * _layer_key(layer)) >> 32).to(torch.int32)
    of_element = _element_keys(layer, tuple(shape)).to(keys.device)
    numbers = of_token * of_element  # uniform over int32
    return numbers >= int(p * 2**32) - 2**31


class ChunkDropout(nn.Module):
    """Dropout by the masks of :class:`ChunkRandomness`, or torch's own where it has none.

    Parameters
    ----------
    p : float
        Probability with which an element is dropped; the others are scaled by 1 / (1 - p).
    randomness : ChunkRandomness
    """

    def __init__(self, p: float, randomness: ChunkRandomness) -> None:
        super().__init__()
        self.p = p
        self.randomness = randomness

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = self.randomness.keep(x.shape, self.p)
        if keep is None:
            return nn.functional.dropout(x, self.p)
        return masked_scale(x, keep, 1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _MaskedScale(torch.autograd.Function):
    """Scaling by a mask that keeps one byte per element for backward; torch's own keeps four."""

    @staticmethod
    def forward(ctx, x: Tensor, keep: Tensor, scale: float) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.where(keep, x, 0).mul_(scale)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        (keep,) = ctx.saved_tensors
        return torch.where(keep, gradient, 0).mul_(ctx.scale), None, None


def masked_scale(x: Tensor, keep: Tensor, scale: float) -> Tensor:
    """Return `x` times `scale` where `keep` is true, else 0."""
    return _MaskedScale.apply(x, keep, scale)


def replace_dropouts(encoder: nn.Module) -> ChunkRandomness:
    """Replace every nn.Dropout in `encoder`, and return the state that the new ones share."""
    randomness = ChunkRandomness()
    for parent in list(encoder.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, ChunkDropout(child.p, randomness).train(child.training))
    return randomness
