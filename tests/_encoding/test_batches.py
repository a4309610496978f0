"""Micro-batches hold every chunk once, by length, and within the budget."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_longbert._encoding.batches import Batches, ChunkBatch, DocumentDataset
from sklearn_longbert._texts.documents import ChunkedDocument, ChunkLayout

PAD = 9


def layout(**settings) -> ChunkLayout:
    defaults = {
        "chunk_size": 6,
        "chunk_overlap": 0,
        "max_chunks": None,
        "chunk_selection": "head",
        "prefix": (1,),
        "suffix": (2,),
        "pad_id": PAD,
        "tokenizer_hash": "",
    }
    return ChunkLayout(**{**defaults, **settings})


def document(n_tokens: int, first_id: int = 10, **settings) -> ChunkedDocument:
    tokens = np.zeros((3, n_tokens), dtype=np.int32)
    tokens[0] = first_id + np.arange(n_tokens)
    return ChunkedDocument(tokens, layout(**settings))


def batch_of(lengths: list[int]) -> ChunkBatch:
    """Documents of one chunk of each of these lengths, of which two tokens are special."""
    return ChunkBatch([document(length - 2, 10 * length, chunk_size=99) for length in lengths])


@given(st.lists(st.integers(2, 30), min_size=1, max_size=40), st.integers(1, 100), st.booleans())
def test_plan(lengths, max_tokens, padded):
    batch = batch_of(lengths)
    groups = batch.plan(max_tokens, padded)
    sizes = []
    for numbers in groups:
        of_group = [lengths[number] for number in numbers]
        sizes.append(max(of_group) * len(of_group) if padded else sum(of_group))
        assert sizes[-1] <= max_tokens or len(of_group) == 1
    order = np.concatenate(groups)
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[number] for number in order] == sorted(lengths, reverse=True)
    for (first, second), size in zip(pairwise(groups), sizes, strict=False):
        # as few as they can be in this order: the next chunk would not have fitted
        more = lengths[first[0]] if padded else lengths[second[0]]
        assert size + more > max_tokens


def test_plan_by_hand():
    batch = batch_of([3, 5, 3, 5, 2])
    assert [list(group) for group in batch.plan(10, padded=True)] == [[1, 3], [0, 2, 4]]
    assert [list(group) for group in batch.plan(13, padded=False)] == [[1, 3, 0], [2, 4]]
    some = batch.plan(8, False, numbers=np.array([4, 0, 3]))
    assert [list(group) for group in some] == [[3, 0], [4]]


def test_micro_batch_by_hand():
    batch = ChunkBatch([document(9), document(0), document(4, first_id=50)])
    micro_batch = batch.micro_batch(np.array([2, 3, 4]))
    assert micro_batch.lengths == [5, 2, 6]
    assert micro_batch.input_ids.tolist() == [1, 16, 17, 18, 2, 1, 2, 1, 50, 51, 52, 53, 2]
    assert micro_batch.attention_mask.int().tolist() == [
        [1, 1, 1, 1, 1, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
    ]
    assert micro_batch.pad_id == PAD


def test_a_batch_keeps_documents_apart():
    documents = [document(9), document(0), document(4, first_id=50)]
    offsets = torch.tensor([[0.5, 0.0], [1.0, 2.0], [0.0, -1.0]])
    dataset = with_targets(np.array(documents))
    dataset.offsets = offsets
    ((batch, (targets, weights)),) = Batches(dataset, 8)
    assert len(batch) == 3  # documents, not chunks: what skorch weights the loss by
    assert batch.chunk_counts == [3, 1, 1]
    assert [batch.chunk(number).tolist() for number in range(5)] == [
        [1, 10, 11, 12, 2],
        [1, 13, 14, 15, 2],
        [1, 16, 17, 18, 2],
        [1, 2],
        [1, 50, 51, 52, 53, 2],
    ]
    assert batch.lengths.tolist() == [5, 5, 5, 2, 6]
    assert torch.equal(batch.offsets, offsets)
    assert targets.tolist() == [0, 1, 2]
    assert weights.tolist() == [1, 1, 1]


@given(st.lists(st.sampled_from([0, 3, 4, 8, 11]), min_size=1, max_size=12), st.randoms())
def test_distinct(sizes, random):
    batch = ChunkBatch([document(size, random.choice([10, 50])) for size in sizes])
    numbers, stand_ins = batch.distinct()
    chunks = [tuple(batch.chunk(number)) for number in range(len(batch.lengths))]
    assert len(numbers) == len(set(chunks))
    assert set(stand_ins) == set(numbers)
    assert [chunks[number] for number in stand_ins] == chunks
    backwards = ChunkBatch(batch.documents[::-1])
    assert [tuple(backwards.chunk(number)) for number in backwards.distinct()[0]] == [
        chunks[number] for number in numbers
    ]


def test_a_batch_copies_no_token_ids():
    """A million tokens: their own array, and a table of the chunks."""
    long = document(1_000_000, chunk_size=512)
    tracemalloc.start()
    batch = ChunkBatch([long])
    batch.plan(4096, padded=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert long.tokens.nbytes == 12_000_000
    assert peak < 1_000_000


def with_targets(documents: np.ndarray) -> DocumentDataset:
    return DocumentDataset(documents, torch.arange(len(documents)), np.ones(len(documents)))


def starts(batch: ChunkBatch) -> tuple[int, ...]:
    return tuple(int(batch.chunk(number)[1]) for number in range(len(batch.lengths)))


def test_random_chunks_are_drawn_anew_in_training_only():
    documents = np.array([document(80, max_chunks=2, chunk_selection="random")], dtype=object)

    def chunks(seed, epoch=1):
        ((batch, _),) = Batches(with_targets(documents), 1, seed, lambda: (epoch, 0))
        return starts(batch)

    epochs = {chunks(0, epoch) for epoch in range(1, 9)}
    assert len(epochs) > 3
    assert all(len(of_epoch) == 2 for of_epoch in epochs)
    assert len({chunks(seed) for seed in range(8)}) > 3
    assert chunks(None) == (30, 70)  # the 6th and the 16th of 20 chunks


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_leave_the_global_generators_alone(seed):
    documents = np.array([document(n) for n in range(5)], dtype=object)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    batches = list(Batches(with_targets(documents), 2, seed))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(before_numpy, np.random.get_state()[1])  # noqa: NPY002
    assert [len(batch) for batch, _ in batches] == [2, 2, 1]


def drawn(seed, place):
    """Return the targets, the chunks and the seed of each batch, from a place on."""
    settings = {"max_chunks": 1, "chunk_selection": "random"}
    documents = np.array([document(40, 100 * n, **settings) for n in range(20)], dtype=object)
    batches = Batches(with_targets(documents), 3, seed, lambda: place)
    return [(targets.tolist(), starts(chunks), chunks.seed) for chunks, (targets, _) in batches]


def test_an_order_depends_on_seed_and_epoch_alone():
    assert drawn(1, (1, 0)) == drawn(1, (1, 0))
    order, *others = (
        [target for targets, _, _ in drawn(*place) for target in targets]
        for place in [(1, (1, 0)), (2, (1, 0)), (1, (2, 0))]
    )
    assert sorted(order) == list(range(20))
    for other in others:
        assert sorted(other) == list(range(20))
        assert other != order
    seeds = [seed for epoch in (1, 2) for _, _, seed in drawn(1, (epoch, 0))]
    assert len(set(seeds)) == 14


@given(st.integers(0, 2**31), st.integers(1, 99), st.integers(0, 7))
def test_an_epoch_goes_on_at_any_batch(seed, epoch, first):
    assert drawn(seed, (epoch, first)) == drawn(seed, (epoch, 0))[first:]


def test_offsets_of_rows_that_no_fold_tests_are_weighted():
    documents = np.array([document(3) for _ in range(3)], dtype=object)
    part = np.array([[1.0, -1.0], [5.0, 3.0], [np.nan, np.nan]])
    targets, weights = torch.zeros(3), np.array([3.0, 1.0, 7.0])
    dataset = DocumentDataset(documents, targets, weights, [part])
    assert not dataset.offsets.any()
    dataset.offset_by(None)
    assert not dataset.offsets.any()
    dataset.offset_by(np.array([0.5]))
    expected = [[0.5, -0.5], [2.5, 1.5], [1.0, 0.0]]
    np.testing.assert_allclose(dataset.offsets, expected, atol=1e-7)
