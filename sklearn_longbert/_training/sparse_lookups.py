"""Give tables of token embeddings sparse gradients while they are trained on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def sparse_lookups(network: nn.Module) -> Iterator[None]:
    """On a CPU, let passes compute gradients only for the rows of tables that they look up.

    Otherwise every pass would fill a dense gradient, as large as the vocabulary, with zeros and
    add it. Instead, the first pass of a step makes its sparse gradient dense, and further passes
    add rows to it.
    """
    tables = [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Embedding)
        and layer.weight.requires_grad
        and layer.weight.device.type == "cpu"
        and not layer.sparse
    ]
    hooks = [layer.weight.register_post_accumulate_grad_hook(_make_dense) for layer in tables]
    for layer in tables:
        layer.sparse = True
    try:
        yield
    finally:
        for layer, hook in zip(tables, hooks, strict=True):
            layer.sparse = False
            hook.remove()


def _make_dense(weight: Tensor) -> None:
    if weight.grad is not None and weight.grad.is_sparse:
        weight.grad = weight.grad.to_dense()
