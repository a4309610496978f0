"""Pins linear models that are fitted to pooled outputs of chunks.

Their poolings and derivatives are the network's; a document of one chunk makes them the ordinary
linear model; a passage that decides is found where the mean of a document hides it, for every
kind of target; and copies are weights.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._encoding.batches import ChunkBatch
from sklearn_longbert._encoding.passes import encode_chunks
from sklearn_longbert._encoding.poolings import POOLINGS, Pooling, pool_documents
from sklearn_longbert._targets import linear_models as models
from sklearn_longbert._targets import linear_probe as probes
from sklearn_longbert._targets.pooled_linear import Embeddings
from sklearn_longbert._targets.scales import PRIOR_GROUPS, fit_scales

POOLED = ["max", "logsumexp"]


@pytest.mark.parametrize("pooling", POOLED)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.randoms())
def test_pools_as_the_network_does(pooling: str, counts: list[int], random: Any) -> None:
    numbers = random.sample(range(1000), 2 * sum(counts))  # equal ones share a maximum elsewhere
    logits = np.array(numbers, dtype=float).reshape(-1, 2) / 100
    documents = Embeddings(np.zeros((len(logits), 1)), np.array(counts), POOLINGS[pooling])
    pooled, shares = documents.pool(logits)
    tensor = torch.tensor(logits, requires_grad=True)
    expected = pool_documents(tensor, counts, pooling)
    np.testing.assert_allclose(pooled, expected.detach(), rtol=1e-9, atol=1e-9)
    expected.sum().backward()
    np.testing.assert_allclose(shares, tensor.grad, rtol=1e-9, atol=1e-12)


def test_the_first_of_equal_chunks_has_the_maximum() -> None:
    documents = Embeddings(np.zeros((3, 1)), np.array([2, 1]), POOLINGS["max"])
    pooled, shares = documents.pool(np.array([[2.0], [2.0], [5.0]]))
    np.testing.assert_array_equal(pooled, [[2], [5]])
    np.testing.assert_array_equal(shares, [[1], [0], [1]])


def test_takes_documents_with_all_their_rows() -> None:
    documents = Embeddings(np.arange(6.0)[:, None], np.array([1, 3, 2]))
    taken = documents.select(np.array([2, 0]))
    np.testing.assert_array_equal(taken.rows[:, 0], [4, 5, 0])
    np.testing.assert_array_equal(taken.counts, [2, 1])
    np.testing.assert_array_equal(documents.means[:, 0], [0, 2, 4.5])


@pytest.mark.parametrize("pooling", POOLED)
def test_with_one_chunk_a_document_it_is_the_ordinary_linear_model(
    pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.RandomState(0)
    X, y = rng.normal(size=(60, 4)), np.arange(60) % 3
    X[:, 0] += y
    weights = np.linspace(1, 2, 60) / 90
    documents = Embeddings(X, np.ones(60, dtype=np.intp), POOLINGS[pooling])
    monkeypatch.setattr(Embeddings, "are_rows", False)
    coefficients, intercepts = models._fit_softmax(documents, y, weights, 0.1, n_outputs=3)
    model = LogisticRegression(C=10, tol=1e-8).fit(X, y, sample_weight=weights)
    ours = softmax(X @ coefficients.T + intercepts, axis=1)
    np.testing.assert_allclose(ours, model.predict_proba(X), atol=2e-3)
    coefficients, intercepts = models._fit_sigmoids(
        documents, (y == 1)[:, None], weights[:, None], 0.1
    )
    model = LogisticRegression(C=10, tol=1e-8).fit(X, y == 1, sample_weight=weights)
    np.testing.assert_allclose(
        X @ coefficients[0] + intercepts, model.decision_function(X), atol=1e-2
    )
    coefficients, intercepts = models._fit_softmax(
        documents, (y == 1).astype(int), weights, 0.1, n_outputs=2
    )
    logits = X @ coefficients.T + intercepts
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], model.decision_function(X), atol=1e-2)
    targets = np.column_stack([y, X[:, 1]])
    coefficients, intercepts = models._fit_squares(documents, targets, weights, 0.1)
    ridge = Ridge(alpha=0.1).fit(X, targets, sample_weight=weights)
    np.testing.assert_allclose(X @ coefficients.T + intercepts, ridge.predict(X), atol=2e-2)


def hidden(n: int, seed: int, n_chunks: int = 20) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chunks of noise, one of which in each document tells which of two kinds it is of."""
    rng = np.random.RandomState(seed)
    counts = rng.randint(n_chunks, 2 * n_chunks, n)
    rows = rng.normal(size=(counts.sum(), 12)).astype(np.float32)
    y = np.arange(n) % 2
    told = np.cumsum(counts) - rng.randint(1, counts)
    rows[told] *= 0.3
    rows[told, y] += 4
    return rows, counts, y


@pytest.mark.parametrize("n_choosing", [200, 100])
@pytest.mark.parametrize("pooling", POOLED)
def test_finds_the_chunk_that_decides(
    pooling: str, n_choosing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "N_CHOOSING", n_choosing)
    rows, counts, y = hidden(200, 0)
    documents = Embeddings(rows, counts, POOLINGS[pooling])
    linear = probes.classification_probe(documents, y, np.ones(200), 2)
    new_rows, new_counts, new_y = hidden(400, 1)
    new = Embeddings(new_rows, new_counts, POOLINGS[pooling])
    found = (new.outputs(linear[:2]).argmax(axis=1) == new_y).mean()
    assert found > 0.95
    loss = models.softmax_losses
    assert loss(documents.outputs(linear[:2]), y).mean() < 0.3 * np.log(2)
    assert (linear.out_of_fold.argmax(axis=1) == y).mean() > 0.9
    of_means = probes.classification_probe(Embeddings.of_means(documents.means), y, np.ones(200), 2)
    assert (new.outputs(of_means[:2]).argmax(axis=1) == new_y).mean() < found


def test_max_is_found_from_logsumexp_where_it_is_not_alone() -> None:
    rows, counts, y = hidden(60, 4, n_chunks=60)
    new_rows, new_counts, new_y = hidden(300, 104, n_chunks=60)

    def accuracy(pooling: Pooling) -> float:
        linear = probes.classification_probe(Embeddings(rows, counts, pooling), y, np.ones(60), 2)
        outputs = Embeddings(new_rows, new_counts, pooling).outputs(linear[:2])
        return float((outputs.argmax(axis=1) == new_y).mean())

    alone = replace(POOLINGS["max"], smooth=None)
    assert accuracy(POOLINGS["max"]) > accuracy(alone) + 0.2


@pytest.mark.parametrize("pooling", POOLED)
def test_of_all_columns_and_a_part_the_better_is_taken(pooling: str) -> None:
    rows, counts, y = hidden(60, 0, n_chunks=6)
    noise = np.random.RandomState(1).normal(size=(len(rows), 30)).astype(np.float32)
    rows, telling, silent = np.hstack([rows, noise]), slice(0, 4), slice(20, 24)
    documents = Embeddings(rows, counts, POOLINGS[pooling])

    def fit(documents: Embeddings) -> Any:
        return probes.classification_probe(documents, y, np.ones(60), 2)

    taken, alone = fit(replace(documents, part=telling)), fit(documents.columns(telling))
    np.testing.assert_array_equal(taken.coefficients[:, telling], alone.coefficients)
    assert not taken.coefficients[:, 4:].any()
    taken, expected = fit(replace(documents, part=silent)), fit(documents)
    for one, other in zip(taken[:3], expected[:3], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("pooling", POOLED)
def test_of_one_chunk_a_document_all_columns_and_a_part_are_mixed(pooling: str) -> None:
    rng = np.random.RandomState(0)
    X, y, part = rng.normal(size=(60, 20)), np.arange(60) % 2, slice(0, 2)
    X[:, 0] += 2 * y
    documents = Embeddings(X, np.ones(60, dtype=np.intp), POOLINGS[pooling], part)
    taken = probes.classification_probe(documents, y, np.ones(60), 2)
    expected = probes.classification_probe(Embeddings.of_means(X, part), y, np.ones(60), 2)
    for one, other in zip(taken[:3], expected[:3], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    assert taken.coefficients[:, 2:].all()


@pytest.mark.parametrize("pooling", POOLED)
def test_other_targets_too(pooling: str) -> None:
    rows, counts, y = hidden(200, 0)
    documents = Embeddings(rows, counts, POOLINGS[pooling])
    table = np.column_stack([y, np.zeros(200)])
    linear = probes.multilabel_probe(documents, table, np.ones((200, 2)), 2)
    outputs = documents.outputs(linear[:2])
    assert ((outputs[:, 0] > 0) == y).mean() > 0.95
    assert (outputs[:, 1] < 0).all()
    linear = probes.regression_probe(documents, y[:, None] * 2.0 - 1, np.ones(200))
    assert ((documents.outputs(linear[:2])[:, 0] > 0) == y).mean() > 0.9


@pytest.mark.parametrize("pooling", POOLED)
def test_copies_are_weights(pooling: str) -> None:
    rows, counts, y = hidden(40, 0, n_chunks=3)
    documents = Embeddings(rows, counts, POOLINGS[pooling])
    times = 1 + np.arange(40) % 3
    copies = np.random.RandomState(0).permutation(np.repeat(np.arange(40), times))
    fit = partial(probes.classification_probe, n=2)
    weighted = fit(documents, y, times)
    copied = fit(documents.select(copies), y[copies], np.ones(len(copies)))
    for one, other in zip(weighted[:2], copied[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pooling", POOLED)
def test_a_class_without_documents(pooling: str) -> None:
    rows, counts, y = hidden(40, 0, n_chunks=3)
    documents = Embeddings(rows, counts, POOLINGS[pooling])
    coefficients, intercepts = probes.classification_probe(documents, y, np.ones(40), 3)[:2]
    assert coefficients.shape == (3, 12)
    assert np.isfinite(coefficients).all()
    assert (documents.outputs((coefficients, intercepts)).argmax(axis=1) < 2).all()


@pytest.mark.parametrize(("pooling", "freeze_encoder"), [("max", False), ("logsumexp", True)])
def test_is_where_the_head_starts(
    bbc_news: tuple[np.ndarray, np.ndarray], pooling: str, freeze_encoder: bool
) -> None:
    texts, labels = (part[:24] for part in bbc_news)
    X = np.array([" ".join(text.split()[:60]) for text in texts], dtype=object)
    settings: dict[str, Any] = {
        "layers": "last",
        "baseline": None,
        "pooling": pooling,
        "freeze_encoder": freeze_encoder,
        "chunk_size": 32,
        "max_epochs": 1,
        "learning_rate": 1e-30,  # that no float32 weight can feel
        "precision": "float32",
        "device": "cpu",
    }
    model = LongBertClassifier(**settings).fit(X, labels)
    batch = ChunkBatch(model.chunker_.transform(X))
    embeddings = encode_chunks(model.net_.module_, batch, model.net_._passes).numpy()
    documents = Embeddings(embeddings, np.array(batch.chunk_counts), POOLINGS[pooling])
    y = np.searchsorted(model.classes_, labels)
    linear = probes.classification_probe(documents, y, np.ones(24), len(model.classes_))
    prior = PRIOR_GROUPS / 24
    scale = float(fit_scales([linear.out_of_fold], y, np.ones(24), linear.kind, prior=prior)[0])
    scaled = (scale * linear.coefficients, scale * linear.intercepts)
    np.testing.assert_allclose(
        softmax(model.decision_function(X), axis=1),
        softmax(documents.outputs(scaled), axis=1),
        atol=1e-3,
    )
    numbers = np.array([len(text) for text in X], dtype=float)
    at_random = LongBertRegressor(head_init="random", **settings).fit(X, numbers)
    assert LongBertRegressor(**settings).fit(X, numbers).score(X, numbers) > at_random.score(
        X, numbers
    )
