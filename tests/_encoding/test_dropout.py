"""Masks belong to chunks, keep the right share, and are as good as independent."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import nn

from sklearn_longbert._encoding.dropout import (
    ChunkDropout,
    ChunkRandomness,
    keep_elements,
    masked_scale,
    replace_dropouts,
    token_keys,
)


def masks(seed=0, numbers=range(8), lengths=(512,) * 8, layer=1, size=64, p=0.1):
    keys = token_keys(seed, list(numbers), list(lengths))
    return keep_elements(keys[:, None], layer, (size,), p)


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_share_that_is_dropped(p):
    dropped = ~masks(p=p)
    n = dropped.numel()
    assert abs(dropped.float().mean() - p) < 5 * (p * (1 - p) / n) ** 0.5
    # every token and every element of the hidden state: five sigma of a binomial of its own
    for axis, count in ((0, len(dropped)), (1, dropped.shape[1])):
        shares = dropped.float().mean(axis)
        assert (shares - p).abs().max() < 5.5 * (p * (1 - p) / count) ** 0.5 + 1 / count


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize(
    "neighbours",
    [
        lambda m, p: (m[:, 0::2], m[:, 1::2]),  # elements of one token
        lambda m, p: (m[0::2], m[1::2]),  # tokens of one chunk
        lambda m, p: (m[:2048], m[2048:]),  # chunks
        lambda m, p: (m, masks(p=p, layer=2)),
        lambda m, p: (m, masks(p=p, seed=1)),
        lambda m, p: (m[:, 0::2] ^ m[:, 1::2], m.roll(1, 1)[:, 0::2]),  # three at once
    ],
    ids=["elements", "tokens", "chunks", "layers", "seeds", "triples"],
)
def test_masks_are_independent(neighbours, p):
    first, second = (part.numpy().ravel() for part in neighbours(masks(p=p), p))
    a, b = first.mean(), second.mean()
    counts = np.bincount(2 * first + second, minlength=4)
    expected = np.array([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b]) * len(first)
    assert chisquare(counts, expected, ddof=2).pvalue > 1e-4


@given(st.permutations(range(5)), st.integers(1, 5), st.integers(0, 2**62))
def test_a_chunk_keeps_its_masks_in_any_company(order, n_together, seed):
    lengths = [7, 1, 3, 12, 2]
    whole = masks(seed, range(5), lengths, size=6, p=0.5).split(lengths)
    some = order[:n_together]
    grouped = masks(seed, some, [lengths[number] for number in some], size=6, p=0.5)
    for number, mask in zip(some, grouped.split([lengths[n] for n in some]), strict=True):
        assert torch.equal(mask, whole[number])


def test_padded_and_packed_chunks_have_the_same_masks():
    keys = token_keys(3, [0, 1], [5, 2])
    packed, padded = ChunkRandomness(), ChunkRandomness()
    packed.begin(keys[None])
    rows = torch.zeros(2, 5, dtype=torch.int64)
    rows[0], rows[1, :2] = keys[:5], keys[5:]
    padded.begin(rows)
    for _ in range(3):
        one = packed.keep(torch.Size([1, 7, 4]), 0.5)[0]
        other = padded.keep(torch.Size([2, 5, 4]), 0.5)
        assert torch.equal(one, torch.cat([other[0], other[1, :2]]))
    longer = padded.keep(torch.Size([2, 3, 5, 5]), 0.5)  # attention weights
    short = ChunkRandomness()
    short.begin(keys[None, 5:])
    for _ in range(3):
        short.next_layer()
    assert torch.equal(longer[1, :, :2, :2], short.keep(torch.Size([1, 3, 2, 2]), 0.5)[0])


def test_layers_of_one_pass_differ_and_passes_are_alike():
    randomness = ChunkRandomness()
    layer = ChunkDropout(0.5, randomness)
    x = torch.ones(1, 9, 32)
    passes = []
    for _ in range(2):
        randomness.begin(token_keys(0, [0], [9])[None])
        passes.append([layer(x), layer(x)])
    assert torch.equal(passes[0][0], passes[1][0])
    assert torch.equal(passes[0][1], passes[1][1])
    assert not torch.equal(passes[0][0], passes[0][1])
    assert set(passes[0][0].unique().tolist()) == {0.0, 2.0}
    assert layer.eval()(x) is x


def test_tables():
    """A table belongs to no chunk, so it has one mask in all micro-batches of a batch."""

    def keep(numbers, shape, seed=3):
        randomness = ChunkRandomness()
        randomness.begin(token_keys(seed, numbers, [4] * len(numbers)).view(-1, 4), seed)
        return randomness.keep(torch.Size(shape), 0.5)

    assert torch.equal(keep([0, 1, 2], (50, 8)), keep([4], (50, 8)))
    assert not torch.equal(keep([0], (50, 8)), keep([0], (50, 8), seed=4))
    assert torch.equal(keep([0, 1, 2], (3, 64)), keep([4], (3, 64)))  # as many entries as chunks


@pytest.mark.parametrize("n_entries", [1, 3, 4, 50])
def test_a_table_as_long_as_something_else_is_still_a_table(n_entries):
    """Rows, tokens or neither may be as many as its entries, in any micro-batch."""
    masks_of_table = []
    for numbers in ([0, 1, 2], [2], [4, 0]):
        randomness = ChunkRandomness()
        randomness.begin(token_keys(3, numbers, [4] * len(numbers)).view(-1, 4), seed=3)
        masks_of_table.append(randomness.keep(torch.Size([n_entries, 64]), 0.5))
    assert torch.equal(masks_of_table[0], masks_of_table[1])
    assert torch.equal(masks_of_table[0], masks_of_table[2])


@pytest.mark.parametrize("number", [0, 1, 7])
def test_a_table_shares_no_numbers_with_a_chunk(number):
    keys, randomness = token_keys(3, [number], [50])[None], ChunkRandomness()
    randomness.begin(keys, seed=3)
    of_table = randomness.keep(torch.Size([50, 64]), 0.5)
    randomness.begin(keys, seed=3)
    of_chunk = randomness.keep(torch.Size([1, 50, 64]), 0.5)[0]
    assert abs((of_table == of_chunk).float().mean() - 0.5) < 5 * (0.25 / of_chunk.numel()) ** 0.5


def test_gradient_is_that_of_the_mask():
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    keep = torch.rand(4, 6) < 0.5
    torch.testing.assert_close(masked_scale(x, keep, 2.0), x * keep * 2)
    assert torch.autograd.gradcheck(lambda t: masked_scale(t, keep, 2.0), x)


def test_elsewhere_it_is_torchs_own_dropout():
    """Outside of a pass over chunks, and for tensors whose axes it does not know."""
    randomness = ChunkRandomness()
    layer = ChunkDropout(0.5, randomness)
    x = torch.ones(3, 200, 1, 1, 1)
    torch.manual_seed(0)
    expected = nn.functional.dropout(x, 0.5)
    torch.manual_seed(0)
    assert torch.equal(layer(x), expected)
    randomness.begin(token_keys(0, [0], [3])[None])
    torch.manual_seed(0)
    assert torch.equal(layer(x), expected)


def test_replaces_every_dropout_and_nothing_else():
    class Own(nn.Dropout):
        pass

    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.3)), Own(0.2))
    randomness = replace_dropouts(network.eval())
    assert isinstance(network[1][0], ChunkDropout)
    assert network[1][0].p == 0.3
    assert network[1][0].randomness is randomness
    assert not network[1][0].training
    assert type(network[2]) is Own
