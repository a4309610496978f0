"""Embeddings and quantized graphs of frozen encoders, remembered from fit to fit in one process.

In a grid over parameters of the head, each candidate would encode the chunks of each fold again,
although a frozen encoder gives them the same embeddings. The ``memory`` of a pipeline cannot
prevent that: it keeps the outputs of transformers, but here the encoder is part of the estimator.
The embeddings that one fit caches are dropped when it ends. `examples/benchmarks/grid.py --frozen`
measures the time saved.

Invariant: remembered embeddings equal computed ones to the last bit. So a set of chunks is
remembered as a whole, under a key of everything that its embeddings depend on, such as the other
chunks of its encoder passes.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel


class Sized(Protocol):
    """What tells its size."""

    @property
    def nbytes(self) -> int:
        """Number of bytes."""


Found = TypeVar("Found", bound=Sized)

MOST_BYTES, MOST_SETS = 2**29, 256  # limits of all remembered sets together
FEWEST_CHUNKS = 32  # in a set; encoding fewer takes less time than hashing the weights

_remembered: OrderedDict[bytes, Any] = OrderedDict()  # the most recently used is last
_lock = Lock()


def digest(*parts: Any) -> bytes:
    """Return one digest of all parts: of bytes as they are, of other objects by their repr."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        piece = part if isinstance(part, bytes) else repr(part).encode()
        total.update(len(piece).to_bytes(8, "little") + piece)
    return total.digest()


def encoder_digest(encoder: PreTrainedModel) -> bytes:
    """Return a digest of an encoder's configuration and weights."""
    config = encoder.config.to_dict()  # dropout, left out below, acts in training only
    plain = sorted((key, str(config[key])) for key in config if "drop" not in key)
    return digest(plain, tensors_digest(encoder.state_dict()))


def tensors_digest(tensors: Mapping[str, Tensor]) -> bytes:
    """Return a digest of tensors and their names."""
    parts: list[Any] = []
    for name, tensor in tensors.items():
        raw: Any = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [name, tensor.shape, tensor.dtype, hashlib.blake2b(raw).digest()]
    return digest(*parts)


def is_worth_it(n_chunks: int, n_bytes: int) -> bool:
    """Return whether a set of so many chunks and bytes of embeddings is remembered."""
    return n_chunks >= FEWEST_CHUNKS and n_bytes <= MOST_BYTES // 2


def remembered(key: bytes, compute: Callable[[], Found]) -> Found:
    """Return what is remembered for `key`, or compute it. Callers must not change it."""
    with _lock:
        found = _remembered.get(key)
        if found is not None:
            _remembered.move_to_end(key)
            return found
    found = compute()
    if found.nbytes > MOST_BYTES // 2:
        return found
    with _lock:
        _remembered[key] = found
        n_bytes = sum(rows.nbytes for rows in _remembered.values())
        while n_bytes > MOST_BYTES or len(_remembered) > MOST_SETS:
            n_bytes -= _remembered.popitem(last=False)[1].nbytes
    return found
