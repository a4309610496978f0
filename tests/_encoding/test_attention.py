"""Packed chunks give what padded ones give, or are not packed."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import ARCHITECTURES, ENCODER_ALONE, PACKABLE, save_bert, save_tiny_encoder
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoModel

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._encoding import attention as attention_module
from sklearn_longbert._encoding import encoder as encoder_module
from sklearn_longbert._encoding.attention import PackedChunks
from sklearn_longbert._encoding.batches import MicroBatch
from sklearn_longbert._encoding.dropout import ChunkRandomness
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._pretrained.loading import load_encoder


def network_of(folder: str, dropout: float = 0.0) -> LongBertNetwork:
    torch.manual_seed(0)
    return LongBertNetwork(
        load_encoder(Path(folder), dropout, 0.0), 2, "mean", "mean", dropout
    ).eval()


def chunks_of(lengths: list[int], vocab_size: int) -> MicroBatch:
    rng = np.random.RandomState(0)
    chunks = [rng.randint(vocab_size, size=length).astype(np.int32) for length in lengths]
    return MicroBatch(chunks, np.arange(len(chunks)), pad_id=1)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_packed_and_padded_hidden_states(architecture, tiny_encoder):
    network = network_of(tiny_encoder(architecture))
    assert network.packs() == (architecture in PACKABLE)
    if not network.packs():
        return
    micro_batch = chunks_of([20, 20, 7, 3, 1], network.encoder.config.vocab_size)
    with torch.no_grad():
        packed = network._encode_packed(micro_batch, None)
        padded = network._encode_padded(micro_batch, None)
        alone = [
            network._encode_padded(MicroBatch([chunk], np.arange(1), 1), None)
            for chunk in micro_batch.chunks
        ]
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", sorted(PACKABLE))
def test_dropout_and_gradients_of_packed_and_padded_chunks(architecture, tiny_encoder, monkeypatch):
    gradients = []
    for packed in (True, False):
        network = network_of(tiny_encoder(architecture), dropout=0.3).train()
        assert network.packs()
        monkeypatch.setattr(LongBertNetwork, "packs", lambda self, packed=packed: packed)
        micro_batch = chunks_of([20, 20, 7, 3], network.encoder.config.vocab_size)
        network.encode(micro_batch, seed=5).tanh().sum().backward()
        gradients.append(
            torch.cat([w.grad.ravel() for w in network.parameters() if w.grad is not None])
        )
        monkeypatch.undo()
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_an_encoder_that_ignores_the_layout_is_padded(tiny_bert, monkeypatch):
    """Packed chunks that saw each other would be wrong without an error: the probe sees it."""
    network = network_of(tiny_bert)
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    monkeypatch.setattr(
        attention_module,
        "_attend_in_turn",
        lambda tokens, chunks, scaling: scaled_dot_product_attention(
            *(tensor.transpose(0, 1) for tensor in tokens)
        ).transpose(0, 1),
    )
    assert not network.packs()
    assert not network_of(tiny_bert).packs()
    assert list(encoder_module.PACKING_AGREES.values()) == [False]  # asked once


@torch.no_grad()
def test_each_configuration_is_asked(tiny_bert, tmp_path, monkeypatch):
    """A BERT that is a decoder hides later tokens, with a mask that packed chunks have not."""
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    folder = save_tiny_encoder("bert", tmp_path, is_decoder=True)
    assert network_of(tiny_bert).packs()
    decoder = network_of(str(folder))
    micro_batch = chunks_of([20, 7, 7, 3], decoder.encoder.config.vocab_size)
    embeddings = decoder.encode(micro_batch)
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    in_a_fresh_process = decoder.encode(micro_batch)
    torch.testing.assert_close(embeddings, in_a_fresh_process, rtol=0, atol=0)
    monkeypatch.setattr(LongBertNetwork, "packs", lambda self: False)
    padded = decoder.encode(micro_batch)
    torch.testing.assert_close(embeddings, padded, rtol=1e-4, atol=1e-5)
    encoder = AutoModel.from_pretrained(folder).eval()
    chunks = [torch.from_numpy(chunk.astype(np.int64))[None] for chunk in micro_batch.chunks]
    alone = torch.cat([encoder(chunk).last_hidden_state.mean(1) for chunk in chunks])
    torch.testing.assert_close(embeddings, alone, rtol=1e-4, atol=1e-5)


@pytest.fixture
def probe_lengths(monkeypatch):
    """The lengths of the chunks by which packing is compared with padding, once it was asked."""
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    lengths = []
    encode = LongBertNetwork._encode_packed
    monkeypatch.setattr(
        LongBertNetwork,
        "_encode_packed",
        lambda self, probe, seed: lengths.extend(probe.lengths) or encode(self, probe, seed),
    )
    return lengths


@pytest.mark.parametrize("precise", [True, False])
def test_asking_takes_more_tokens_than_the_encoder_reads(precise, tiny_bert, probe_lengths):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
        assert network_of(tiny_bert).packs()
    assert sum(probe_lengths) > 64


def test_an_encoder_that_takes_no_layout_is_padded(tiny_bert, monkeypatch):
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    network = network_of(tiny_bert)
    forward = network.encoder.forward

    def without_layout(input_ids, attention_mask):
        return forward(input_ids, attention_mask)

    network.encoder.forward = without_layout
    assert not network.packs()
    embeddings = network.encode(chunks_of([5, 2], 20))
    assert embeddings.shape == (2, 16)


def test_a_copy_from_a_pickle_packs_too(tiny_bert):
    fitted = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1, random_state=0).fit(
        ["a", "b"], [0, 1]
    )
    assert fitted.net_.module_.packs()
    assert pickle.loads(pickle.dumps(fitted)).net_.module_.packs()


def test_registering_leaves_other_models_alone(tiny_bert, tmp_path):
    network = network_of(tiny_bert)
    assert AutoModel.from_pretrained(tiny_bert).config._attn_implementation == "sdpa"
    network.encoder.save_pretrained(tmp_path)
    assert attention_module.NAME not in (tmp_path / "config.json").read_text()


def test_a_text_that_spells_the_padding_token(tiny_encoder):
    """RoBERTa and its kin give it no position of its own, alone, packed or padded."""
    for architecture in ("roberta", "xlm-roberta", "bert"):
        network = network_of(tiny_encoder(architecture))
        pad = network.encoder.config.pad_token_id
        chunk = np.array([7, pad, 9, pad, pad, 11], dtype=np.int32)
        micro_batch = MicroBatch([chunk, chunk[:3]], np.arange(2), pad)
        with torch.no_grad():
            packed = network._encode_packed(micro_batch, None)
            alone = network.encoder(torch.from_numpy(chunk.astype(np.int64))[None])
        torch.testing.assert_close(packed[:6], alone.last_hidden_state[0], rtol=1e-4, atol=1e-5)


def test_asking_leaves_training_mode_and_random_state_alone(tiny_bert, monkeypatch):
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    network = network_of(tiny_bert, dropout=0.5).train()
    before = torch.get_rng_state()
    assert network.packs()
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in network.modules())


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
    """The kernel in plain torch, with no arguments but those of every version since torch 2.10."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert max_q == max_k == max(np.diff(cu_seq_q))
    assert all(tensor.stride(-1) == 1 for tensor in (query, key, value))
    rows = []
    for start, end in zip(cu_seq_q[:-1], cu_seq_k[1:], strict=True):
        one = [tensor[start:end].transpose(0, 1) for tensor in (query, key, value)]
        rows.append(scaled_dot_product_attention(*one).transpose(0, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("scaling", [8**-0.5, 0.3])
def test_kernel_is_given_what_it_needs(scaling, monkeypatch):
    """The kernel runs on CUDA only; a stand-in checks what it is told."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    chunks = PackedChunks([6, 6, 3, 1], torch.device("cpu"), ChunkRandomness())
    tokens = tuple(torch.randn(16, 2, 8) for _ in range(3))
    expected = attention_module._attend_in_turn(tokens, chunks, scaling)
    output = attention_module._attend_in_kernel(tokens, chunks, scaling)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize("scaling", [8**-0.5, 0.3])
def test_the_installed_kernel_takes_the_call(scaling):
    """On a device without numbers, torch checks arguments and shapes, of gradients, too."""
    chunks = PackedChunks([6, 6, 3, 1], torch.device("meta"), ChunkRandomness())
    tokens = tuple(
        torch.empty(16, 2, 8, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for _ in range(3)
    )
    output = attention_module._attend_in_kernel(tokens, chunks, scaling)
    assert (output.shape, output.dtype) == ((16, 2, 8), torch.bfloat16)
    output.sum().backward()
    assert all(tensor.grad.shape == (16, 2, 8) for tensor in tokens)


@pytest.mark.parametrize("architecture", sorted(PACKABLE))
def test_every_architecture_through_the_kernel(architecture, tiny_encoder, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(
        attention_module, "_attend_in_turn", attention_module._attend_in_kernel
    )  # what CUDA takes
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    network = network_of(tiny_encoder(architecture), dropout=0.3).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        assert network.packs()
    gradients = []
    for packed in (True, False):
        monkeypatch.setattr(LongBertNetwork, "packs", lambda self, packed=packed: packed)
        micro_batch = chunks_of([20, 20, 7, 3], network.encoder.config.vocab_size)
        network.zero_grad()
        network.encode(micro_batch, seed=5).tanh().sum().backward()
        gradients.append(
            torch.cat([w.grad.ravel() for w in network.parameters() if w.grad is not None])
        )
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[1].norm()


def test_what_the_kernel_refuses_is_padded(tiny_bert, monkeypatch):
    """Such are sizes of heads, GPUs before Ampere, and versions of torch with another kernel."""

    def refuse(*args, **kwargs):
        raise RuntimeError("query must have a head size that is a multiple of 8")

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", refuse)
    monkeypatch.setattr(attention_module, "_attend_in_turn", attention_module._attend_in_kernel)
    monkeypatch.setattr(encoder_module, "PACKING_AGREES", {})
    network = network_of(tiny_bert)
    assert not network.packs()
    assert network.encode(chunks_of([5, 2], 20)).shape == (2, 16)


def test_asking_takes_chunks_as_long_as_those_of_another_kernel(tmp_path, probe_lengths):
    """Above 128 tokens torch 2.14 computes by cuDNN on some GPUs."""
    assert network_of(str(save_bert(tmp_path, max_position_embeddings=512))).packs()
    assert min(probe_lengths) > 128
    assert sum(probe_lengths) > 512


def attend(tokens, chunks):
    return attention_module._attend_in_turn(tokens, chunks, 8**-0.5)


@pytest.mark.parametrize("lengths", [[1], [7, 7, 3], [600]])
def test_blocked_attention_in_bfloat16(lengths):
    """Outputs and gradients are those of float64 up to bfloat16's rounding (2**-8)."""
    chunks = PackedChunks(lengths, torch.device("cpu"), ChunkRandomness())
    shape = (sum(lengths), 3, 8)
    narrow = tuple(torch.randn(shape).bfloat16().requires_grad_() for _ in range(3))
    exact = tuple(tensor.detach().double().requires_grad_() for tensor in narrow)
    output = attend(narrow, chunks)
    assert output.dtype == torch.bfloat16
    expected = attend(exact, chunks)
    gradient = torch.randn(shape).bfloat16()
    output.backward(gradient)
    expected.backward(gradient.double())
    scale = expected.detach().norm()
    assert (output - expected).norm() < 0.02 * scale
    for ours, theirs in zip(narrow, exact, strict=True):
        # of one token there is nothing to attend to: its query and key have no gradient
        bound = 0.03 * theirs.grad.norm() + 1e-3 * scale
        assert (ours.grad - theirs.grad).norm() < bound


def test_blocked_attention_is_exact_but_for_rounding():
    """In float64, which it is not meant for, over several blocks of heads."""
    tensors = [torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    ours = attention_module._BlockedAttention
    torch.testing.assert_close(
        ours.apply(*tensors, 0.3), scaled_dot_product_attention(*tensors, scale=0.3)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_module, "BLOCK_BYTES", 2 * 25 * 3)  # three heads of eight
        assert len(attention_module._blocks(tensors[0].flatten(0, 1))) == 3
        assert torch.autograd.gradcheck(lambda *args: ours.apply(*args, 0.3), tensors)
