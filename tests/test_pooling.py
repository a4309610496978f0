"""Poolings by hand-computed numbers and by the properties that define them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_longbert._pooling import POOLINGS, TOKEN_POOLINGS, pool_documents

LOGITS = torch.tensor([[1.0, 8.0], [3.0, -2.0], [5.0, 5.0], [0.0, 7.0], [4.0, 1.0], [2.0, 4.0]])


def test_by_hand():
    mean = pool_documents(LOGITS, [2, 1, 3], "mean")
    np.testing.assert_allclose(mean, [[2, 3], [5, 5], [2, 4]])
    largest = pool_documents(LOGITS, [2, 1, 3], "max")
    np.testing.assert_allclose(largest, [[3, 8], [5, 5], [4, 7]])


def test_token_poolings_by_hand():
    hidden_states = torch.tensor([[1.0, 2.0], [3.0, 6.0], [1, 1], [2, 2], [6, 0]])
    np.testing.assert_allclose(TOKEN_POOLINGS["mean"](hidden_states, [2, 3]), [[2, 4], [3, 1]])
    np.testing.assert_allclose(TOKEN_POOLINGS["cls"](hidden_states, [2, 3]), [[1, 2], [1, 1]])


@pytest.mark.parametrize("pooling", list(POOLINGS))
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms())
def test_documents_do_not_touch_each_other(pooling, chunk_counts, random):
    logits = torch.tensor([[random.uniform(-9, 9)] * 2 for _ in range(sum(chunk_counts))])
    logits.requires_grad_()
    pooled = pool_documents(logits, chunk_counts, pooling)
    assert pooled.shape == (len(chunk_counts), 2)
    start = 0
    for index, count in enumerate(chunk_counts):
        alone = pool_documents(logits[start : start + count], [count], pooling)
        torch.testing.assert_close(pooled[index], alone[0])
        (gradient,) = torch.autograd.grad(pooled[index, 0], logits, retain_graph=True)
        # shares of one document add up to one, and no other document has any
        assert gradient[start : start + count].sum() == pytest.approx(1, abs=1e-6)
        assert gradient.abs().sum() == pytest.approx(1, abs=1e-6)
        start += count


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_repeated_chunks_change_nothing(pooling):
    repeated = LOGITS.repeat_interleave(3, dim=0)
    torch.testing.assert_close(
        pool_documents(repeated, [6, 3, 9], pooling), pool_documents(LOGITS, [2, 1, 3], pooling)
    )
