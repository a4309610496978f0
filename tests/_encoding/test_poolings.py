"""Poolings by hand-computed numbers and by the properties that define them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sklearn_longbert._encoding.memory import graph_bytes
from sklearn_longbert._encoding.poolings import (
    POOLINGS,
    GatedAttention,
    pool_documents,
    pool_tokens,
)

LOGITS = torch.tensor([[1.0, 8.0], [3.0, -2.0], [5.0, 5.0], [0.0, 7.0], [4.0, 1.0], [2.0, 4.0]])


def test_by_hand():
    mean = pool_documents(LOGITS, [2, 1, 3], "mean")
    np.testing.assert_allclose(mean, [[2, 3], [5, 5], [2, 4]])
    largest = pool_documents(LOGITS, [2, 1, 3], "max")
    np.testing.assert_allclose(largest, [[3, 8], [5, 5], [4, 7]])
    smooth = pool_documents(torch.tensor([[0.0], [np.log(3.0)], [5.0]]), [2, 1], "logsumexp")
    np.testing.assert_allclose(smooth, [[np.log(2)], [5]])  # of the mean of 1 and 3
    # the last column holds scores: weights of 1/4 and 3/4, then of one chunk alone
    attended = torch.tensor([[4.0, 0.0, 0.0], [8.0, -4.0, np.log(3.0)], [1.0, 2.0, 9.0]])
    attended = pool_documents(attended, [2, 1], "attention")
    np.testing.assert_allclose(attended, [[7, -3], [1, 2]])


@given(st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=9))
def test_logsumexp_lies_between_mean_and_max(values):
    logits, counts = torch.tensor(values)[:, None], [len(values)]
    mean, smooth, largest = (
        float(pool_documents(logits, counts, name)) for name in ("mean", "logsumexp", "max")
    )
    assert mean - 1e-4 <= smooth <= largest + 1e-4


def test_attention_begins_as_the_mean_and_learns():
    attention = GatedAttention(4, torch.float32)
    embeddings, logits = torch.randn(7, 4), torch.randn(7, 3)
    outputs = torch.cat([logits, attention(embeddings)], dim=1)
    pooled = pool_documents(outputs, [3, 4], "attention")
    torch.testing.assert_close(pooled, pool_documents(logits, [3, 4], "mean"))
    pooled[:, 0].sum().backward()
    assert attention.score.weight.grad.abs().max() > 0


def test_gated_attention_by_hand():
    """Against the formula of Ilse et al., equation 9, written plainly."""
    attention = GatedAttention(2, torch.float64)
    torch.nn.init.normal_(attention.score.weight)
    h = torch.randn(5, 2, dtype=torch.float64)
    (V, v), (U, u) = ((layer.weight, layer.bias) for layer in (attention.value, attention.gate))
    w = attention.score.weight[0]
    for k in range(5):
        score = w @ (torch.tanh(V @ h[k] + v) * torch.sigmoid(U @ h[k] + u))
        assert attention(h)[k, 0].item() == pytest.approx(score.item())


def test_token_poolings_by_hand():
    hidden_states = torch.tensor([[1.0, 2.0], [3.0, 6.0], [1, 1], [2, 2], [6, 0]])
    np.testing.assert_allclose(pool_tokens(hidden_states, [2, 3], "mean"), [[2, 4], [3, 1]])
    np.testing.assert_allclose(pool_tokens(hidden_states, [2, 3], "cls"), [[1, 2], [1, 1]])
    np.testing.assert_allclose(pool_tokens(hidden_states, [2, 3], "max"), [[3, 6], [6, 2]])
    np.testing.assert_allclose(
        pool_tokens(hidden_states, [2, 3], "mean_max"), [[2, 4, 3, 6], [3, 1, 6, 2]]
    )


def test_the_maximum_keeps_no_hidden_states_for_the_backward_pass():
    hidden_states = torch.randn(300, 8, requires_grad=True)
    n_kept = graph_bytes(lambda: pool_tokens(hidden_states, [200, 100], "max"))
    assert n_kept < hidden_states.nbytes / 10
    pool_tokens(hidden_states, [200, 100], "max")[0].sum().backward()
    winners = hidden_states[:200].argmax(0)
    expected = torch.zeros(300, 8).scatter(0, winners[None], 1.0)
    torch.testing.assert_close(hidden_states.grad, expected)


@pytest.mark.parametrize("pooling", list(POOLINGS))
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms())
def test_documents_do_not_touch_each_other(pooling, chunk_counts, random):
    logits = torch.tensor([[random.uniform(-9, 9)] * 2 for _ in range(sum(chunk_counts))])
    logits.requires_grad_()
    scores = torch.tensor([[random.uniform(-3, 3)] for _ in range(sum(chunk_counts))])
    outputs = torch.cat([logits, scores], dim=1) if pooling == "attention" else logits
    pooled = pool_documents(outputs, chunk_counts, pooling)
    assert pooled.shape == (len(chunk_counts), 2)
    start = 0
    for index, count in enumerate(chunk_counts):
        alone = pool_documents(outputs[start : start + count], [count], pooling)
        torch.testing.assert_close(pooled[index], alone[0])
        (gradient,) = torch.autograd.grad(pooled[index, 0], logits, retain_graph=True)
        # shares of one document add up to one, and no other document has any
        assert gradient[start : start + count].sum() == pytest.approx(1, abs=1e-6)
        assert gradient.abs().sum() == pytest.approx(1, abs=1e-6)
        start += count


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_repeated_chunks_change_nothing(pooling):
    scores = torch.arange(6.0)[:, None]
    outputs = torch.cat([LOGITS, scores], dim=1) if pooling == "attention" else LOGITS
    repeated = outputs.repeat_interleave(3, dim=0)
    torch.testing.assert_close(
        pool_documents(repeated, [6, 3, 9], pooling), pool_documents(outputs, [2, 1, 3], pooling)
    )


# Shares

SHARES = {
    "mean": [[1 / 3, 1 / 3], [1 / 3, 1 / 3], [1 / 3, 1 / 3]],
    "max": [[0, 1], [1, 0], [0, 0]],  # the first of equal ones has all
    "logsumexp": [[0.2, 0.4], [0.6, 0.4], [0.2, 0.2]],
    "attention": [[0.25, 0.25], [0.5, 0.5], [0.25, 0.25]],
}
random_outputs = arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(2, 4)),
    elements=st.floats(-20, 20, width=32),
).map(torch.from_numpy)  # (n_documents, n_chunks, n_columns)
outputs_without_ties = arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 4)),
    elements=st.floats(-20, 20, width=32),
    unique=True,
).map(torch.from_numpy)  # (n_chunks, n_columns)


def chunk_logits(outputs: torch.Tensor, pooling: str) -> torch.Tensor:
    return outputs[..., :-1] if POOLINGS[pooling].scores else outputs


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_shares_by_hand(pooling):
    outputs = torch.tensor([[1.0, 2.0, 1.0], [3.0, 2.0, 2.0], [1.0, 1.0, 1.0]]).log()
    if pooling != "attention":  # of which the last column are scores
        outputs = outputs[:, :2]
    np.testing.assert_allclose(POOLINGS[pooling].shares(outputs), SHARES[pooling], rtol=1e-6)
    assert POOLINGS[pooling].adds_up == (pooling != "logsumexp")


@pytest.mark.parametrize("pooling", list(POOLINGS))
@given(random_outputs)
def test_shares_add_up(pooling, outputs):
    shares, logits = POOLINGS[pooling].shares(outputs), chunk_logits(outputs, pooling)
    assert shares.shape == logits.shape
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(-2), torch.ones_like(logits[:, 0]))
    if POOLINGS[pooling].adds_up:
        torch.testing.assert_close((shares * logits).sum(-2), POOLINGS[pooling].pool(outputs))


@pytest.mark.parametrize("pooling", list(POOLINGS))
@given(outputs_without_ties)
def test_shares_are_the_derivative(pooling, outputs):
    """A document logit depends on the chunk logits of its own class, each by its share."""
    shares = POOLINGS[pooling].shares(outputs)
    slopes = torch.autograd.functional.jacobian(POOLINGS[pooling].pool, outputs)
    slopes = chunk_logits(slopes, pooling)  # (n_outputs, n_chunks, n_outputs)
    torch.testing.assert_close(slopes, torch.diag_embed(shares, dim1=0, dim2=2))


@pytest.mark.parametrize("pooling", list(POOLINGS))
@given(random_outputs)
def test_several_documents_are_pooled_as_each_alone(pooling, outputs):
    for of_outputs in (POOLINGS[pooling].pool, POOLINGS[pooling].shares):
        alone = torch.stack([of_outputs(document) for document in outputs])
        torch.testing.assert_close(of_outputs(outputs), alone)
