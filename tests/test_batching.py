"""Micro-batches hold every chunk once, within the budget, and padded to their own longest."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sklearn_longbert._batching import ChunkBatch, Collate, DocumentDataset, document_loader
from sklearn_longbert._chunking import ChunkedDocument, ChunkLayout

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
    chunks = [np.full(length, index, dtype=np.int32) for index, length in enumerate(lengths)]
    return ChunkBatch(chunks, [1] * len(chunks), PAD)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 100))
def test_micro_batches(lengths, max_tokens):
    batch = batch_of(lengths)
    rows = []
    for micro_batch in batch.micro_batches(max_tokens):
        n_rows, longest = micro_batch.input_ids.shape
        assert n_rows * longest <= max_tokens or n_rows == 1
        real = micro_batch.attention_mask.sum(1)
        assert real.max() == longest  # padded to its own longest only
        for ids, length in zip(micro_batch.input_ids, real, strict=True):
            assert (ids[length:] == PAD).all()
            assert len(set(ids[:length].tolist())) == 1
            rows.append(int(ids[0]))
    assert rows == batch.row_order.tolist()
    assert sorted(rows) == list(range(len(lengths)))
    assert sorted(lengths, reverse=True) == [lengths[row] for row in rows]


def test_micro_batches_by_hand():
    shapes = [tuple(m.input_ids.shape) for m in batch_of([2, 5, 3, 5, 1]).micro_batches(10)]
    assert shapes == [(2, 5), (3, 3)]


def test_collate_keeps_documents_apart():
    documents = [document(9), document(0), document(4, first_id=50)]
    rows = [(d, torch.tensor(i), torch.tensor(1.0)) for i, d in enumerate(documents)]
    batch, (targets, weights) = Collate()(rows)
    assert len(batch) == 3  # documents, not chunks: what skorch weights the loss by
    assert batch.chunk_counts == [3, 1, 1]
    assert [chunk.tolist() for chunk in batch.chunks] == [
        [1, 10, 11, 12, 13, 2],
        [1, 14, 15, 16, 17, 2],
        [1, 18, 2],
        [1, 2],
        [1, 50, 51, 52, 53, 2],
    ]
    assert targets.tolist() == [0, 1, 2]
    assert weights.tolist() == [1, 1, 1]


def test_random_chunks_are_drawn_anew_in_training_only():
    documents = np.array([document(80, max_chunks=2, chunk_selection="random")], dtype=object)
    loader = document_loader(DocumentDataset(documents), 1, seed=0)
    epochs = {tuple(chunk[1] for chunk in batch.chunks) for _ in range(8) for batch, _ in loader}
    assert len(epochs) > 3
    assert all(len(chunks) == 2 for chunks in epochs)
    loader = document_loader(DocumentDataset(documents), 1)
    ((batch, _),) = loader
    assert [chunk[1] for chunk in batch.chunks] == [30, 70]  # the 6th and the 16th of 20 chunks


@pytest.mark.parametrize("seed", [None, 3])
def test_loader_leaves_the_global_generator_alone(seed):
    documents = np.array([document(n) for n in range(5)], dtype=object)
    before = torch.get_rng_state()
    batches = list(document_loader(DocumentDataset(documents), 2, seed))
    assert torch.equal(before, torch.get_rng_state())
    assert [len(batch) for batch, _ in batches] == [2, 2, 1]


def test_shuffling_depends_on_the_seed_alone():
    dataset = DocumentDataset(
        np.array([document(n) for n in range(20)], dtype=object), torch.arange(20)
    )

    def order(seed):
        loader = document_loader(dataset, 4, seed)
        return [t for _ in range(2) for _, (targets, _) in loader for t in targets.tolist()]

    assert order(1) == order(1)
    assert order(1) != order(2)
    first, second = order(1)[:20], order(1)[20:]
    assert sorted(first) == list(range(20))
    assert first != second
