"""The encoder, which encodes chunks packed or padded and pools them into one embedding each.

Invariant: only this module packs or pads micro-batches. Others ask :meth:`ChunkEncoder.packs` only
to know whether padding counts.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import RLock
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import CONFIG_MAPPING, PreTrainedModel

from sklearn_longbert._encoding.attention import PackedChunks, can_pack, prepare_packing
from sklearn_longbert._encoding.batches import MicroBatch
from sklearn_longbert._encoding.dropout import replace_dropouts
from sklearn_longbert._encoding.graph import (
    Graph,
    QuantizedGraph,
    imported,
    make_graph,
    make_quantized_graph,
    quantize,
)
from sklearn_longbert._encoding.hidden_states import (
    Layers,
    layer_numbers,
    take_hidden_states,
    watch_layers,
)
from sklearn_longbert._encoding.memory import is_out_of_memory
from sklearn_longbert._encoding.poolings import TOKEN_POOLINGS, pool_tokens
from sklearn_longbert._encoding.remembered import digest, encoder_digest, remembered
from sklearn_longbert._pretrained.loading import first_position, rebuild_encoder

TokenPooling = Callable[[Tensor], Tensor]

PACKING_AGREES: dict[tuple[str, str, bool], bool] = {}  # see ChunkEncoder.packs

_making_graphs = RLock()  # of all encoders, because NNCF's log is that of the process


class ChunkEncoder(nn.Module):
    """Compute one embedding for each chunk.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
    token_pooling : {"mean", "max", "mean_max", "cls"}
        How hidden states become the embedding of a chunk.
    layers : {"last", "spread"} or tuple of int, default="last"
        Numbers of these hidden states. An embedding is the poolings of the first number's hidden
        states, then those of the second, and so on.
    """

    frozen = True  # whether fits leave the weights as they are

    def __init__(
        self, encoder: PreTrainedModel, token_pooling: str, layers: Layers = "last"
    ) -> None:
        super().__init__()
        self.layers = layer_numbers(layers, encoder.config.num_hidden_layers)
        self.encoder = encoder
        watch_layers(encoder)
        self.randomness = replace_dropouts(encoder)
        prepare_packing(encoder)
        self.first_position = first_position(encoder)
        self.dtype = next(encoder.parameters()).dtype
        self.configuration = encoder.config.to_json_string()
        self.token_pooling = token_pooling
        self.shares_memory = False  # whether others use the weights' memory, too
        self.quantized: QuantizedGraph | None = None
        self._graphs: dict[tuple[bool, bool, int], Graph] = {}

    @property
    def blocks(self) -> list[tuple[int, str]]:
        """Layer and kind of pooling of each part of an embedding, all of the hidden size."""
        return [
            (layer, kind) for layer in self.layers for kind in TOKEN_POOLINGS[self.token_pooling]
        ]

    @property
    def embedding_size(self) -> int:
        """Number of columns of an embedding."""
        return self.encoder.config.hidden_size * len(self.blocks)

    @property
    def highest_part(self) -> slice | None:
        """Columns of the highest layer's first kind of pooling; None if there are no others.

        Encoders of sentences are trained to tell their meaning there.
        """
        if len(self.blocks) == 1:
            return None
        layers = [layer for layer, _ in self.blocks]
        start = layers.index(max(layers)) * self.encoder.config.hidden_size
        return slice(start, start + self.encoder.config.hidden_size)

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.encoder.parameters()).device

    def make_writable(self) -> None:
        """Copy the weights if others share their memory, such as a mapped file."""
        if self.shares_memory:
            for weight in self.state_dict(keep_vars=True).values():
                weight.data = weight.data.clone()
            self.shares_memory = False

    def quantize(self, chunks: Sequence[NDArray[np.int32]], bfloat16: bool) -> None:
        """Make the graph in int8, unless there is one, with ranges of activations by the chunks."""

        def compute() -> QuantizedGraph:
            return quantize(self.encoder, self.layers, bfloat16, chunks)

        with _making_graphs:
            if self.quantized is not None:
                return
            if not self.frozen:  # no other fit will have its weights
                self.quantized = compute()
                return
            tokens = [chunk.tobytes() for chunk in chunks]
            key = digest("quantized", encoder_digest(self.encoder), self.layers, bfloat16, *tokens)
            self.quantized = remembered(key, compute)

    def graph(self, is_int8: bool, bfloat16: bool) -> Graph:
        """Return what computes hidden states by OpenVINO, made once for the present weights."""
        kind = is_int8, bfloat16, torch.get_num_threads()
        found = self._graphs.get(kind)
        if found is not None:  # does not wait for the graphs of others
            return found
        with _making_graphs:
            if kind not in self._graphs:
                of_kind = {key: graph for key, graph in self._graphs.items() if key[:2] == kind[:2]}
                size = self.encoder.config.hidden_size
                if is_int8:
                    assert self.quantized is not None
                    graph = make_quantized_graph(self.quantized, len(self.layers), size, bfloat16)
                else:
                    graph = make_graph(self.encoder, self.layers, bfloat16)
                self._graphs = {**of_kind, kind: graph}
            return self._graphs[kind]

    def forget_graphs(self) -> None:
        """Drop the graphs, because the weights are about to change."""
        self.quantized = None
        self._graphs = {}

    def check_graph(self, is_int8: bool, bfloat16: bool) -> None:
        """Raise an error if a library is missing, or OpenVINO cannot compute this encoder in int8.

        Raises
        ------
        ImportError, ValueError
            See :func:`sklearn_longbert._encoding.graph.make_graph`.
        """
        with _making_graphs:
            imported("openvino")
            if is_int8:
                imported("nncf")
                make_graph(self.encoder, self.layers, bfloat16)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out compiled graphs, which cannot be copied."""
        return {**self.__dict__, "_graphs": {}}

    def encode(self, micro_batch: MicroBatch, seed: int = 0) -> Tensor:
        """Return the chunk embeddings, of shape (n_chunks, embedding_size).

        Parameters
        ----------
        micro_batch : MicroBatch
        seed : int, default=0
            Seed of dropout in training, which also depends on the numbers of the chunks.
        """
        encode = self._encode_packed if self.packs() else self._encode_padded
        pool = partial(self._pool, micro_batch)
        embeddings = encode(micro_batch, seed if self.training else None, pool)
        self.randomness.begin(None)
        return embeddings

    def encode_by_graph(self, micro_batch: MicroBatch, graph: Graph) -> Tensor:
        """Return the chunk embeddings, whose hidden states the graph computes.

        Parameters
        ----------
        micro_batch : MicroBatch
        graph : Graph
            Result of :meth:`graph`.
        """
        input_ids, mask = _padded(micro_batch)
        more = self._length_of_graph(mask.shape[1]) - mask.shape[1]
        input_ids, mask = pad(input_ids, (0, more), value=micro_batch.pad_id), pad(mask, (0, more))
        states = graph(input_ids, mask.long())
        return torch.cat([self._pool(micro_batch, each[mask]) for each in states], dim=1)

    def _length_of_graph(self, longest: int) -> int:
        """Return the length that rows are padded to, which is at most a sixteenth longer, or 8.

        OpenVINO prepares its kernels for each new length, and keeps them: it would grow with every
        text.
        """
        step = max(2 ** (longest.bit_length() - 5), 8)
        most = getattr(self.encoder.config, "max_position_embeddings", 0) - self.first_position
        length = -(-longest // step) * step
        return max(min(length, most), longest) if most > 0 else length

    def _pool(self, micro_batch: MicroBatch, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states.to(self.dtype)  # autocast may have narrowed it
        return pool_tokens(hidden_states, micro_batch.lengths, self.token_pooling)

    def packs(self) -> bool:
        """Return whether micro-batches are encoded without padding, on the present device.

        They are if packing gives the same hidden states as padding. The two are compared once
        for each configuration, type of device and precision, because no encoder states whether
        it can encode packed chunks.
        """
        device = self.device
        if not can_pack(self.encoder, device):
            return False
        precise = not torch.is_autocast_enabled(device.type)
        kind = (self.configuration, device.type, precise)
        if kind not in PACKING_AGREES:
            PACKING_AGREES[kind] = self._packing_agrees(precise)
        return PACKING_AGREES[kind]

    def _packing_agrees(self, precise: bool) -> bool:
        device_type = self.device.type
        rng = np.random.RandomState(0)
        n_positions = getattr(self.encoder.config, "max_position_embeddings", 0)
        half = max(min(n_positions, 1024), 8) // 2
        # Together they are longer than the encoder's limit, and each of a usual limit is longer
        # than 128 tokens, from where on torch 2.14 takes another kernel on some GPUs.
        chunks = [
            rng.randint(self.encoder.config.vocab_size, size=size).astype(np.int32)
            for size in (half + 2, half + 1)
        ]
        probe = MicroBatch(chunks, np.arange(len(chunks)), pad_id=0)
        was_training = self.encoder.training
        if was_training:
            self.encoder.eval()
        dtype = torch.get_autocast_dtype(device_type)
        # Autocast's cache is off, because it would keep weights that were cast without a gradient.
        with (
            torch.no_grad(),
            torch.autocast(device_type, dtype=dtype, enabled=not precise, cache_enabled=False),
        ):
            padded = self._encode_padded(probe, None).float()
            try:
                packed = self._encode_packed(probe, None).float()
            except Exception as error:  # any error of an architecture means padding
                if is_out_of_memory(error):
                    raise
                agrees = False
            else:
                difference = torch.linalg.vector_norm(packed - padded)
                tolerance = 1e-4 if precise else 0.05  # many times bfloat16's rounding
                agrees = bool(difference <= tolerance * torch.linalg.vector_norm(padded))
        if was_training:
            self.encoder.train()
        return agrees

    # Both ways to encode give the wanted hidden states of the real tokens, (n_tokens, hidden_size),
    # to `pool` as they are made, and return its results side by side.

    def _encode_packed(
        self, micro_batch: MicroBatch, seed: int | None, pool: TokenPooling | None = None
    ) -> Tensor:
        device = self.device
        keys = None if seed is None else micro_batch.dropout_keys(seed).to(device)[None]
        self.randomness.begin(keys, seed or 0)
        return self._encode(
            0,
            pool,
            input_ids=micro_batch.input_ids.to(device)[None],
            position_ids=self._positions(micro_batch).to(device)[None],
            packed_chunks=PackedChunks(micro_batch.lengths, device, self.randomness),
        )

    def _positions(self, micro_batch: MicroBatch) -> Tensor:
        """Return the position of each token in its chunk, of shape (n_tokens,).

        Encoders that number from the padding index on, as RoBERTa does, do not count padding
        tokens. A text that spells out the padding token holds such tokens.
        """
        if self.first_position == 0:
            return torch.cat([torch.arange(length) for length in micro_batch.lengths])
        padding = self.first_position - 1
        is_real = [chunk != padding for chunk in micro_batch.chunks]
        positions = [np.cumsum(real) * real + padding for real in is_real]
        return torch.from_numpy(np.concatenate(positions))

    def _encode_padded(
        self, micro_batch: MicroBatch, seed: int | None, pool: TokenPooling | None = None
    ) -> Tensor:
        device = self.device
        input_ids, mask = _padded(micro_batch)
        keys = None
        if seed is not None:
            of_tokens = micro_batch.dropout_keys(seed)
            keys = torch.zeros_like(input_ids).masked_scatter(mask, of_tokens).to(device)
        self.randomness.begin(keys, seed or 0)
        mask = mask.to(device)
        return self._encode(mask, pool, input_ids=input_ids.to(device), attention_mask=mask.long())

    def _encode(self, real: Tensor | int, pool: TokenPooling | None, **inputs: Any) -> Tensor:
        """Encode rows of tokens; `real` is the index of the real ones among them."""

        def take(hidden_states: Tensor) -> Tensor:
            return hidden_states[real] if pool is None else pool(hidden_states[real])

        return torch.cat(take_hidden_states(self.encoder, self.layers, take, **inputs), dim=1)


def _padded(micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
    """Return the token ids as rows of equal length, and where the real ones are."""
    mask = micro_batch.attention_mask
    padding = torch.full(mask.shape, micro_batch.pad_id)
    return padding.masked_scatter(mask, micro_batch.input_ids), mask


def encoder_state(network: ChunkEncoder) -> dict[str, Any]:
    """Return the encoder's config as a dict, and all weights of the network as NumPy arrays."""
    weights = network.state_dict().items()
    return {
        "config": network.encoder.config.to_dict(),
        "weights": {name: weight.detach().cpu().numpy() for name, weight in weights},
        "quantized": None if network.quantized is None else network.quantized.files,
    }


def quantized_from_state(state: dict[str, Any]) -> QuantizedGraph | None:
    """Return the graph in int8 of a state, None if there is none."""
    return None if state["quantized"] is None else QuantizedGraph(*state["quantized"])


def encoder_from_state(
    state: dict[str, Any], dropouts: tuple[float, float] | None = None
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """Return an encoder with uninitialised weights, on the CPU, and the weights of the network.

    Parameters
    ----------
    state : dict
        Result of :func:`encoder_state`. The tensors share the memory of its arrays.
    dropouts : tuple of float, default=None
        New dropout and attention_dropout.
    """
    with catch_warnings():  # torch warns of read-only arrays: see make_writable
        simplefilter("ignore", UserWarning)
        weights = {name: torch.from_numpy(weight) for name, weight in state["weights"].items()}
    dtype = next(iter(weights.values())).dtype
    config = CONFIG_MAPPING[state["config"]["model_type"]].from_dict(state["config"])
    return rebuild_encoder(config, dropouts, dtype), weights


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
