"""Hidden states of chosen layers, taken while an encoder encodes.

Invariants: hidden state i is what transformers returns as ``hidden_states[i]``: 0 is what the first
layer takes, i what the next layer takes, and the last one is ``last_hidden_state``. Only what the
caller makes of a wanted one is kept, because hidden states of all layers would fill memory.
"""

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Layers = str | tuple[int, ...]

IS_WATCHED: dict[str, bool] = {}  # see _is_watched


def layer_numbers(layers: Layers, n_layers: int) -> tuple[int, ...]:
    """Return the numbers of the hidden states that `layers` names, from 0 to `n_layers`.

    Parameters
    ----------
    layers : {"last", "spread"} or tuple of int
        "spread" is the embeddings, the middle and the last layer. Negative numbers count from the
        end, as in Python.
    n_layers : int
        Number of the encoder's layers.

    Raises
    ------
    ValueError
        If a number is that of no hidden state, or is repeated.
    """
    if layers == "last":
        return (n_layers,)
    if layers == "spread":
        return tuple(sorted({0, n_layers // 2, n_layers}))
    are_numbers = all(isinstance(n, Integral) and not isinstance(n, bool) for n in layers)
    if are_numbers and all(-n_layers - 1 <= int(n) <= n_layers for n in layers):
        numbers = tuple(int(n) % (n_layers + 1) for n in layers)
        if len(numbers) == len(set(numbers)) > 0:
            return numbers
    raise ValueError(
        f"layers={layers!r}, but the encoder has the hidden states 0 (its embeddings) to "
        f"{n_layers} (its last layer), and negative numbers count from the end: pass a tuple of "
        f'one or several of them, each once, or "last" or "spread".'
    )


class _Watch:
    """What is made of the inputs of chosen layers in one pass."""

    def __init__(self, take: Callable[[Tensor], Any], numbers: Sequence[int] | range) -> None:
        self.take = take
        self.numbers = numbers
        self.n_calls = 0
        self.taken: dict[int, Any] = {}

    def see(self, hidden_states: Tensor) -> None:
        if self.n_calls in self.numbers:
            self.taken[self.n_calls] = self.take(hidden_states)
        self.n_calls += 1


_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)  # one for each thread


def _forward(forward: Callable[..., Any], hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    watch = _watch.get()
    if watch is not None:
        watch.see(hidden_states)
    return forward(hidden_states, *args, **kwargs)


def watch_layers(encoder: PreTrainedModel) -> None:
    """Make :func:`take_hidden_states` see what each layer of an encoder takes.

    The layers get no hooks: the traceback of an error in a layer with a hook holds its tensors.
    """
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    for layer in stacks[0] if stacks else ():
        layer.forward = partial(_forward, layer.forward)


def take_hidden_states(
    encoder: PreTrainedModel,
    numbers: tuple[int, ...],
    take: Callable[[Tensor], Tensor],
    **inputs: Any,
) -> list[Tensor]:
    """Encode, and return what `take` makes of the hidden states of these numbers.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
        An encoder that :func:`watch_layers` was given, if `numbers` hold more than the last one.
    numbers : tuple of int
        Result of :func:`layer_numbers`.
    take : callable
        Maps hidden states, of shape (n_rows, length, hidden_size), to a tensor.
    **inputs : Any
        The encoder's own arguments.
    """
    last = encoder.config.num_hidden_layers
    if numbers == (last,):
        return [take(encoder(**inputs).last_hidden_state)]
    if not _is_watched(encoder):
        output = encoder(**inputs, output_hidden_states=True)
        return [take(states) for states in wanted_states(output, numbers, last)]
    watch = _Watch(take, numbers)
    token = _watch.set(watch)
    try:
        output = encoder(**inputs)
    finally:
        _watch.reset(token)
    assert watch.n_calls == last
    if last in numbers:
        watch.taken[last] = take(output.last_hidden_state)
    return [watch.taken[number] for number in numbers]


def wanted_states(output: Any, numbers: tuple[int, ...], last: int) -> tuple[Tensor, ...]:
    """Return the hidden states of these numbers, of an output that holds all of them.

    `last` is the number of the last one. Funnel, for instance, returns those of a decoder as well.
    """
    states = (*output.hidden_states[:last], output.last_hidden_state)
    return tuple(states[number] for number in numbers)


def _is_watched(encoder: PreTrainedModel) -> bool:
    """Return whether the layers that are watched take the hidden states that transformers returns.

    It is asked once for each configuration, because no encoder states which modules its layers
    are. If they are others, transformers returns the hidden states of all layers.
    """
    configuration = encoder.config.to_json_string()
    if configuration not in IS_WATCHED:
        n_layers = encoder.config.num_hidden_layers
        watch = _Watch(lambda hidden_states: hidden_states, range(n_layers))
        chunk = torch.zeros((1, 8), dtype=torch.int64, device=next(encoder.parameters()).device)
        was_training = encoder.training
        encoder.eval()
        token = _watch.set(watch)
        try:
            with torch.no_grad():
                states = encoder(
                    input_ids=chunk,
                    attention_mask=torch.ones_like(chunk),
                    output_hidden_states=True,
                )
        finally:
            _watch.reset(token)
            encoder.train(was_training)
        expected = states.hidden_states[:-1]
        IS_WATCHED[configuration] = watch.n_calls == len(expected) == n_layers and all(
            watch.taken[number] is state for number, state in enumerate(expected)
        )
    return IS_WATCHED[configuration]
