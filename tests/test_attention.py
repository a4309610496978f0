"""Packed chunks give what padded ones give, or are not packed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from sklearn_longbert import _attention
from sklearn_longbert._attention import PackedChunks
from sklearn_longbert._batching import MicroBatch
from sklearn_longbert._dropout import ChunkRandomness
from sklearn_longbert._network import LongBertNetwork
from sklearn_longbert._pretrained import load_encoder
from tests.tiny import ARCHITECTURES

# Their attention is transformers' own choice, their positions are given, none has a window.
PACKABLE = {"bert", "roberta", "xlm-roberta", "distilbert", "electra", "albert"}


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
        packed = network._read_packed(micro_batch, None)
        padded = network._read_padded(micro_batch, None)
        alone = [
            network._read_padded(MicroBatch([chunk], np.arange(1), 1), None)
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
    monkeypatch.setattr(
        _attention,
        "_attend_in_turn",
        lambda tokens, chunks, scaling: scaled_dot_product_attention(
            *(tensor.transpose(0, 1) for tensor in tokens)
        ).transpose(0, 1),
    )
    assert not network.packs()
    monkeypatch.undo()
    assert not network.packs()  # asked once for each device and precision
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.packs()


def test_an_encoder_that_takes_no_layout_is_padded(tiny_bert):
    network = network_of(tiny_bert)
    forward = network.encoder.forward

    def without_layout(input_ids, attention_mask):
        return forward(input_ids, attention_mask)

    network.encoder.forward = without_layout
    assert not network.packs()
    embeddings = network.encode(chunks_of([5, 2], 20))
    assert embeddings.shape == (2, 16)


def test_asking_leaves_training_mode_and_random_state_alone(tiny_bert):
    network = network_of(tiny_bert, dropout=0.5).train()
    before = torch.get_rng_state()
    assert network.packs()
    assert torch.equal(before, torch.get_rng_state())
    assert all(module.training for module in network.modules())


def test_kernel_is_given_what_it_needs(monkeypatch):
    """The kernel runs on CUDA only; a stand-in with its signature checks what it is told."""
    varlen = pytest.importorskip("torch.nn.attention.varlen", reason="torch < 2.10 lacks it")

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None):
        assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
        assert max_q == max_k == max(np.diff(cu_seq_q))
        rows = []
        for start, end in zip(cu_seq_q[:-1], cu_seq_k[1:], strict=True):
            one = [t[start:end].transpose(0, 1) for t in (query, key, value)]
            rows.append(scaled_dot_product_attention(*one, scale=scale).transpose(0, 1))
        return torch.cat(rows)

    monkeypatch.setattr(varlen, "varlen_attn", varlen_attn)
    chunks = PackedChunks([6, 6, 3, 1], torch.device("cpu"), ChunkRandomness())
    tokens = tuple(torch.randn(16, 2, 8) for _ in range(3))
    expected = _attention._attend_in_turn(tokens, chunks, 0.3)
    torch.testing.assert_close(_attention._attend_in_kernel(tokens, chunks, 0.3), expected)
    assert chunks.positions.tolist() == [*range(6), *range(6), *range(3), 0]


def attend(tokens, chunks):
    return _attention._attend_in_turn(tokens, chunks, None)


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
    ours = _attention._BlockedAttention
    torch.testing.assert_close(
        ours.apply(*tensors, 0.3), scaled_dot_product_attention(*tensors, scale=0.3)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_attention, "BLOCK_BYTES", 2 * 25 * 3)  # three heads of eight
        assert len(_attention._blocks(tensors[0].flatten(0, 1))) == 3
        assert torch.autograd.gradcheck(lambda *args: ours.apply(*args, 0.3), tensors)
