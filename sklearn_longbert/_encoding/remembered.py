"""Embeddings of frozen encoders, remembered from fit to fit in one process.

A grid over parameters of the head would encode the chunks of each fold again for each candidate,
though a frozen encoder gives them the same embeddings. The ``memory`` of a pipeline cannot spare
that: it keeps what transformers return, and here the encoder is in the estimator. The embeddings
that one fit keeps end with it. `examples/benchmarks/grid.py --frozen` shows what it spares.

A set of chunks is remembered as a whole, under a key of all that its embeddings depend on to the
last bit, such as the other chunks of its encoder passes. So it is what would be computed.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

MOST_BYTES, MOST_SETS = 2**28, 256  # in all
FEWEST_CHUNKS = 32  # of a set; fewer are encoded in less time than the weights are hashed

_remembered: OrderedDict[bytes, Tensor] = OrderedDict()  # the latest used last
_lock = Lock()


def digest(*parts: Any) -> bytes:
    """Return what tells these bytes, or what is printed like them, from others."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        piece = part if isinstance(part, bytes) else repr(part).encode()
        total.update(len(piece).to_bytes(8, "little") + piece)
    return total.digest()


def encoder_digest(encoder: PreTrainedModel) -> bytes:
    """Return what tells an encoder from those with another configuration or other weights."""
    config = encoder.config.to_dict()  # less what tells in training only
    parts: list[Any] = [sorted((key, str(config[key])) for key in config if "drop" not in key)]
    for name, weight in encoder.state_dict().items():
        raw = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        parts += [name, weight.shape, weight.dtype, hashlib.blake2b(raw).digest()]
    return digest(*parts)


def is_worth_it(n_chunks: int, n_bytes: int) -> bool:
    """Whether a set of so many chunks, and bytes of embeddings, is remembered."""
    return n_chunks >= FEWEST_CHUNKS and n_bytes <= MOST_BYTES // 4


def remembered(key: bytes, compute: Callable[[], Tensor]) -> Tensor:
    """Return what was computed for `key` before, or compute it; nobody may change it."""
    with _lock:
        found = _remembered.get(key)
        if found is not None:
            _remembered.move_to_end(key)
            return found
    found = compute()
    with _lock:
        _remembered[key] = found
        n_bytes = sum(rows.nbytes for rows in _remembered.values())
        while n_bytes > MOST_BYTES or len(_remembered) > MOST_SETS:
            n_bytes -= _remembered.popitem(last=False)[1].nbytes
    return found
