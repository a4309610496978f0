"""Embeddings of several layers are made of what transformers returns as hidden states."""

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import ARCHITECTURES, PACKABLE, save_tiny_encoder
from transformers import AutoConfig, AutoModel, FunnelConfig, XLMConfig

from sklearn_longbert._encoding import hidden_states as hidden_states_module
from sklearn_longbert._encoding.batches import MicroBatch
from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._pretrained.loading import load_encoder

LAYERS: list[Any] = ["last", "spread", (0,), (-2, 2), (2, 0, 1)]


@pytest.fixture(autouse=True)
def nothing_asked_yet(monkeypatch):
    monkeypatch.setattr(hidden_states_module, "IS_WATCHED", {})


def network_of(folder: str, token_pooling: str, layers: Any, dropout: float = 0.0) -> ChunkEncoder:
    return ChunkEncoder(load_encoder(Path(folder), dropout, 0.0), token_pooling, layers).eval()


def chunks_of(lengths: list[int], vocab_size: int) -> MicroBatch:
    rng = np.random.RandomState(0)
    chunks = [rng.randint(5, vocab_size, size=length).astype(np.int32) for length in lengths]
    return MicroBatch(chunks, np.arange(len(chunks)), pad_id=1)


def plain_embeddings(folder: str, chunks: MicroBatch, token_pooling: str, layers: Any) -> Any:
    """Each chunk alone, through transformers' own output_hidden_states=True."""
    encoder = AutoModel.from_pretrained(folder).eval()
    parts = {"mean": lambda h: h.mean(0), "max": lambda h: h.max(0)[0], "cls": lambda h: h[0]}
    rows = []
    for chunk in chunks.chunks:
        with torch.no_grad():
            output = encoder(
                torch.from_numpy(chunk.astype(np.int64))[None], output_hidden_states=True
            )
        torch.testing.assert_close(output.hidden_states[-1], output.last_hidden_state)
        numbers = {"last": [-1], "spread": [0, 1, 2]}.get(layers, layers)
        states = [output.hidden_states[number][0] for number in numbers]
        kinds = token_pooling.split("_")
        rows.append(torch.cat([parts[kind](state) for state in states for kind in kinds]))
    return torch.stack(rows)


PADDED = [(architecture, False) for architecture in ARCHITECTURES]
PACKED = [(architecture, True) for architecture in sorted(PACKABLE)]


@pytest.mark.parametrize("layers", LAYERS, ids=str)
@pytest.mark.parametrize(("architecture", "packed"), PADDED + PACKED)
def test_hidden_states_are_those_of_transformers(
    architecture, packed, layers, tiny_encoder, monkeypatch
):
    folder = tiny_encoder(architecture)
    network = network_of(folder, "mean_max", layers)
    assert network.packs() == (architecture in PACKABLE)
    monkeypatch.setattr(ChunkEncoder, "packs", lambda self: packed)
    chunks = chunks_of([20, 20, 7, 3, 1], network.encoder.config.vocab_size)
    with torch.no_grad():
        embeddings = network.encode(chunks)
    expected = plain_embeddings(folder, chunks, "mean_max", layers)
    assert embeddings.shape == (5, network.embedding_size)
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)
    assert all(hidden_states_module.IS_WATCHED.values())


@pytest.mark.parametrize("token_pooling", ["mean", "max", "mean_max", "cls"])
def test_token_poolings_of_several_layers(token_pooling, tiny_bert):
    network = network_of(tiny_bert, token_pooling, (2, 0))
    chunks = chunks_of([9, 4], network.encoder.config.vocab_size)
    with torch.no_grad():
        embeddings = network.encode(chunks)
    expected = plain_embeddings(tiny_bert, chunks, token_pooling, (2, 0))
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)
    kinds = token_pooling.split("_")
    assert network.blocks == [(layer, kind) for layer in (2, 0) for kind in kinds]
    assert network.embedding_size == 32 * len(kinds) == embeddings.shape[1]


CONVOLUTION = {"conv_kernel_size": 3, "conv_act": "gelu"}  # behind the first layer of DeBERTa


def test_what_stands_between_two_layers_is_seen(tmp_path):
    folder = str(save_tiny_encoder("deberta-v2", tmp_path, **CONVOLUTION))
    network = network_of(folder, "mean", (1,))
    assert network.encoder.encoder.conv is not None
    chunks = chunks_of([9, 9], network.encoder.config.vocab_size)
    with torch.no_grad():
        embeddings = network.encode(chunks)
    torch.testing.assert_close(embeddings, plain_embeddings(folder, chunks, "mean", (1,)))


OTHERS = {  # in these, other modules than the layers stand in the first list of modules, or none
    "xlm": XLMConfig(vocab_size=40, emb_dim=16, n_layers=2, n_heads=2, max_position_embeddings=64),
    "funnel": FunnelConfig(
        vocab_size=40,
        block_sizes=[1, 1],
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=32,
        architectures=["FunnelModel"],
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", OTHERS)
def test_other_encoders_give_what_transformers_returns(name):
    torch.manual_seed(0)
    encoder = AutoModel.from_config(OTHERS[name]).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12]])
    output = encoder(ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    network = ChunkEncoder(encoder, "mean", (0, -1)).eval()
    embeddings = network.encode(MicroBatch([ids[0].numpy().astype(np.int32)], np.arange(1), 0))
    states = (output.hidden_states[0], output.last_hidden_state)
    expected = torch.cat([state[0].mean(0) for state in states])
    torch.testing.assert_close(embeddings[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "albert"])
def test_hidden_states_of_all_layers_where_layers_are_not_seen(
    architecture, tiny_encoder, monkeypatch
):
    folder = tiny_encoder(architecture)
    network = network_of(folder, "mean", (2, 0, 1))
    monkeypatch.setattr(hidden_states_module, "_is_watched", lambda encoder: False)
    chunks = chunks_of([9, 4], network.encoder.config.vocab_size)
    with torch.no_grad():
        embeddings = network.encode(chunks)
    expected = plain_embeddings(folder, chunks, "mean", (2, 0, 1))
    torch.testing.assert_close(embeddings, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "albert", "modernbert"])
def test_no_other_hidden_states_are_kept(architecture, tiny_encoder):
    """When the last layer begins, those of the first ones are gone."""
    config = AutoConfig.from_pretrained(tiny_encoder(architecture))
    config.num_hidden_layers = 6
    if hasattr(config, "layer_types"):
        config.layer_types = None
    torch.manual_seed(0)
    encoder = AutoModel.from_config(type(config)(**config.to_dict())).eval()
    network = ChunkEncoder(encoder, "mean_max", (0, 3)).eval()
    chunks = chunks_of([20, 20], network.encoder.config.vocab_size)
    seen: list[Any] = []
    alive: list[int] = []

    def look(layer: Any, inputs: Any) -> None:
        seen.append(weakref.ref(inputs[0]))
        alive.append(sum(state() is not None for state in seen))

    (stack,) = [m for m in encoder.modules() if isinstance(m, torch.nn.ModuleList)][:1]
    with torch.inference_mode():
        network.encode(chunks)  # asks which modules are the layers
        for layer in stack:
            layer.register_forward_pre_hook(look)
        network.encode(chunks)
    assert len(alive) == 6
    assert max(alive) <= 2, alive


def test_training_mode_and_random_state_are_left_alone(tiny_bert):
    network = network_of(tiny_bert, "mean", "spread", dropout=0.5).train()
    before = torch.get_rng_state()
    network.encode(chunks_of([5, 5], 20), seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in network.modules())
    assert list(hidden_states_module.IS_WATCHED.values()) == [True]


@pytest.mark.parametrize("architecture", ["bert", "mpnet", "albert", "deberta-v2"])
def test_gradients_of_all_layers(architecture, tiny_encoder):
    """They are those of transformers' own hidden states, pooled plainly."""
    folder = tiny_encoder(architecture)
    network = network_of(folder, "mean_max", "spread")
    chunks = chunks_of([9, 9], network.encoder.config.vocab_size)
    network.encode(chunks).tanh().sum().backward()
    encoder = load_encoder(Path(folder), 0.0, 0.0).eval()
    ids = torch.from_numpy(np.stack(chunks.chunks).astype(np.int64))
    output = encoder(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
    parts = [part for h in output.hidden_states for part in (h.mean(1), h.max(1).values)]
    torch.cat(parts, dim=1).tanh().sum().backward()
    theirs = dict(encoder.named_parameters())
    for name, weight in network.encoder.named_parameters():
        if theirs[name].grad is not None:
            torch.testing.assert_close(weight.grad, theirs[name].grad, rtol=1e-3, atol=1e-4)


# Numbers


def test_numbers_by_hand():
    assert layer_numbers("last", 6) == (6,)
    assert layer_numbers("spread", 6) == (0, 3, 6)
    assert layer_numbers("spread", 1) == (0, 1)
    assert layer_numbers((0, -1, 2), 6) == (0, 6, 2)
    assert layer_numbers((-7, np.int64(5)), 6) == (0, 5)


@given(st.integers(1, 30), st.lists(st.integers(-40, 40), max_size=6).map(tuple))
def test_numbers_count_as_in_python(n_layers, layers):
    states = list(range(n_layers + 1))
    try:
        expected = [states[number] for number in layers]
    except IndexError:
        expected = []
    if 0 < len(expected) == len(set(expected)):
        assert layer_numbers(layers, n_layers) == tuple(expected)
    else:
        with pytest.raises(ValueError, match="has the hidden states 0"):
            layer_numbers(layers, n_layers)


@pytest.mark.parametrize("layers", [(), (7,), (-8,), (6, -1), (1.0,), ("last",), (True,), (None,)])
def test_wrong_numbers(layers):
    with pytest.raises(ValueError, match=r"hidden states 0 \(its embeddings\) to 6 \(its last"):
        layer_numbers(layers, 6)
