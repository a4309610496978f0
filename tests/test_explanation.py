"""Pins what explain says: contributions add up, passages are the text, the needle is found.

Weights of each pooling against the plain formulas; passages and sentences for any text and any
way of cutting; sentence contributions against predictions of the text without the sentence; the
cost of one prediction; outcomes as predict, predict_proba and decision_function have them.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax
from sklearn.exceptions import NotFittedError
from tiny import ARCHITECTURES

from sklearn_longbert import LongBertClassifier, LongBertRegressor, TextChunker
from sklearn_longbert._encoder import ChunkEncoder
from sklearn_longbert._explanation import (
    chunk_weights,
    passage_bounds,
    sentence_bounds,
)

TEXTS = ["The quick fox jumps. " * 9 + "Good news!", "bad dog runs " * 20, "good", "", "bad. Good"]
SETTINGS: dict[str, Any] = {
    "chunk_size": 16,
    "max_epochs": 1,
    "learning_rate": 1e-2,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
}
TARGETS: dict[str, tuple[type, Any]] = {
    "two classes": (LongBertClassifier, ["good", "bad", "good", "bad", "bad"]),
    "three classes": (LongBertClassifier, [2, 0, 1, 0, 1]),
    "several labels": (LongBertClassifier, [[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [1, 1, 0]]),
    "a number": (LongBertRegressor, [1e3, 2e3, 3e3, 0, 5e3]),
    "several numbers": (LongBertRegressor, [[1.0, -5], [2, 5], [3, 0], [4, 1], [0, 0]]),
}
POOLINGS = ["mean", "max", "logsumexp", "attention"]
WORDS = ["good", "naïve", "東京。", "e\u0301", "\U0001f44d", ".", "\n", "\0", "\u2003", "ﬁ", "İ"]
texts_of_any_kind = st.text(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=60).map(
    " ".join
)


def fit(encoder: str, targets: str = "three classes", **parameters: Any) -> Any:
    make, y = TARGETS[targets]
    return make(encoder, **{**SETTINGS, **parameters}).fit(TEXTS, y)


@pytest.fixture(scope="module")
def fitted(tiny_bert: str) -> LongBertClassifier:
    return fit(tiny_bert)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("targets", TARGETS)
def test_contributions_add_up_to_what_is_predicted(
    targets: str, pooling: str, tiny_bert: str
) -> None:
    estimator = fit(tiny_bert, targets, pooling=pooling)
    logits = estimator._predict_logits(TEXTS)
    for index, explanation in enumerate(estimator.explain(TEXTS)):
        predicted = estimator.predict(TEXTS)[index]
        np.testing.assert_array_equal(explanation.predicted, predicted)
        scale = 1.0
        if targets.endswith(("number", "numbers")):
            assert explanation.probabilities is None
            np.testing.assert_array_equal(explanation.logits, np.ravel(predicted))
            scale = np.abs(explanation.contributions).max()
        else:
            np.testing.assert_array_equal(explanation.logits, logits[index])
            np.testing.assert_array_equal(
                explanation.probabilities, estimator.predict_proba(TEXTS)[index]
            )
            np.testing.assert_array_equal(explanation.classes, estimator.classes_)
        np.testing.assert_allclose(
            explanation.contributions.sum(0), explanation.logits, atol=1e-5 * scale, rtol=1e-5
        )
        assert explanation.chunk_logits is not None
        assert explanation.chunk_logits.shape == explanation.contributions.shape


def test_weights_by_hand() -> None:
    outputs = np.array([[1.0, 4.0], [3.0, 4.0], [2.0, -1.0]])
    weights, logits = chunk_weights(outputs, "mean")
    np.testing.assert_array_equal(weights, np.full((3, 2), 1 / 3))
    np.testing.assert_array_equal(logits, outputs)
    weights, _ = chunk_weights(outputs, "max")
    np.testing.assert_array_equal(weights, [[0, 1], [1, 0], [0, 0]])  # the first of equal ones
    weights, _ = chunk_weights(outputs, "logsumexp")
    np.testing.assert_allclose(weights[:, 0], np.exp([1, 3, 2]) / np.exp([1, 3, 2]).sum())
    scores = np.array([[0.0], [np.log(3)], [0.0]])
    weights, logits = chunk_weights(np.hstack([outputs, scores]), "attention")
    np.testing.assert_allclose(weights, [[0.2, 0.2], [0.6, 0.6], [0.2, 0.2]])
    np.testing.assert_array_equal(logits, outputs)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_contributions_are_the_formulas(tiny_bert: str, pooling: str) -> None:
    """From the chunk logits that an explanation shows, by another way."""
    explanation = fit(tiny_bert, pooling=pooling).explain(TEXTS[:1])[0]
    logits, found = explanation.chunk_logits.astype(np.float64), explanation.contributions
    if pooling == "mean":
        expected = logits / len(logits)
    elif pooling == "max":
        expected = np.where(logits == logits.max(0), logits, 0)
    elif pooling == "logsumexp":
        expected = softmax(logits, axis=0) * (logsumexp(logits, axis=0) - np.log(len(logits)))
    else:
        weights = found / logits
        np.testing.assert_allclose(weights, np.repeat(weights[:, :1], 3, axis=1), rtol=1e-4)
        np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-4)
        assert np.ptp(weights[:, 0]) > 1e-6  # it was trained
        expected = weights * logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# Passages


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_passages_are_the_text(architecture: str, tiny_encoder: Callable[[str], str]) -> None:
    chunkers = [
        TextChunker(tiny_encoder(architecture), chunk_size=size, chunk_overlap=overlap).fit()
        for size, overlap in [(6, 0), (8, 2), (9, 5), (12, 9)]
    ]

    @given(texts_of_any_kind)
    @settings(deadline=None, max_examples=40)
    def check(text: str) -> None:
        for chunker in chunkers:
            (document,) = chunker.transform([text])
            bounds = passage_bounds(document, len(text))
            assert len(bounds) == document.n_chunks
            assert "".join(text[start:end] for start, end in bounds) == text
            assert (bounds[:, 0] <= bounds[:, 1]).all()

    check()


def test_passages_by_hand(tiny_bert: str) -> None:
    text = "the quick  brown fox jumps over\tlazy dog "

    def passages(**parameters: Any) -> list[str]:
        (document,) = TextChunker(tiny_bert, **parameters).fit_transform([text])
        return [text[start:end] for start, end in passage_bounds(document, len(text))]

    halves = ["the quick  brown fox ", "jumps over\tlazy dog "]
    assert passages(chunk_size=6) == halves
    # five and five of eight tokens: the two that both read are divided
    assert passages(chunk_size=7, chunk_overlap=2) == halves
    tails = passages(chunk_size=4, max_chunks=2, chunk_selection="head_tail")
    assert tails == ["the quick  ", "lazy dog "]  # and nothing of what is not read


def test_passages_hold_the_tokens_of_their_chunk(tiny_bert: str) -> None:
    chunker = TextChunker(tiny_bert, chunk_size=9).fit()
    (document,) = chunker.transform(TEXTS[:1])
    for (start, end), (first, last) in zip(
        passage_bounds(document, len(TEXTS[0])), document.bounds(), strict=True
    ):
        (alone,) = chunker.transform([TEXTS[0][start:end]])
        np.testing.assert_array_equal(alone.token_ids, document.token_ids[first:last])


@given(texts_of_any_kind)
@settings(deadline=None)
def test_sentences_are_the_text(text: str) -> None:
    bounds = sentence_bounds(text)
    assert "".join(text[start:end] for start, end in bounds) == text
    assert all(one[1] == two[0] for one, two in pairwise(bounds))


def test_sentences_by_hand() -> None:
    text = 'It rains. "Really?" Yes... 3.14 is pi!\nAnd a heading\n\n東京。大阪。Dr. Who'
    assert [text[start:end] for start, end in sentence_bounds(text)] == [
        "It rains. ", '"Really?" ', "Yes... ", "3.14 is pi!\n", "And a heading\n\n",
        "東京。", "大阪。", "Dr. ", "Who",
    ]  # fmt: skip


# Sentences


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("targets", ["three classes", "a number"])
def test_a_sentence_is_worth_what_the_prediction_loses_without_it(
    targets: str, pooling: str, tiny_bert: str
) -> None:
    """Of a text of one chunk, which stays one: compared with predicting the shorter text."""
    estimator = fit(tiny_bert, targets, pooling=pooling, chunk_size=None)
    text = "The quick fox jumps. Good news! And the lazy dog runs away. Bad"
    (explanation,) = estimator.explain([text], level="sentence")
    assert explanation.passages == [
        "The quick fox jumps. ", "Good news! ", "And the lazy dog runs away. ", "Bad"
    ]  # fmt: skip
    whole = explanation.logits.astype(np.float64)
    for passage, contribution in zip(explanation.passages, explanation.contributions, strict=True):
        (shorter,) = estimator.explain([text.replace(passage, "")])
        np.testing.assert_allclose(contribution, whole - shorter.logits, rtol=1e-3, atol=1e-5)


def test_only_chunks_that_hold_the_sentence_are_encoded_again(
    fitted: LongBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, encode = [], ChunkEncoder.encode

    def count(self: ChunkEncoder, micro_batch: Any, *args: Any) -> Any:
        encoded.append(len(micro_batch.lengths))
        return encode(self, micro_batch, *args)

    monkeypatch.setattr(ChunkEncoder, "encode", count)
    # 16 tokens, 14 of the text in a chunk: three chunks, one sentence in two of them
    text = "fox " * 13 + "fox. " + "good dog " * 5 + ". " + "bad news " * 4 + "."
    (explanation,) = fitted.explain([text], level="sentence")
    n_whole = len(fitted.explain([text])[0])
    parts = [np.count_nonzero(explanation.contributions[i]) for i in range(len(explanation))]
    assert all(parts)
    encoded.clear()
    fitted.explain([text], level="sentence")
    assert n_whole + len(explanation) <= sum(encoded) <= n_whole + 2 * len(explanation)


def test_a_budget_of_sentences(fitted: LongBertClassifier) -> None:
    text = " ".join(f"{word} fox jumps over." for word in ["good", "bad", "news", "story"] * 5)
    (every,) = fitted.explain([text], level="sentence")
    (some,) = fitted.explain([text], level="sentence", max_sentences=4)
    assert (len(every), len(some)) == (20, 4)
    np.testing.assert_allclose(some.contributions, every[some.chunk].contributions, atol=1e-6)
    (chunks,) = fitted.explain([text])
    best = chunks.top(2)
    middles = (some.start + some.end) // 2
    assert all(((best.start <= middle) & (middle < best.end)).any() for middle in middles)


def test_sentences_that_are_not_read_are_not_explained(tiny_bert: str) -> None:
    estimator = fit(tiny_bert, max_chunks=1)
    text = "The fox. " * 3 + "The dog. " * 30
    (explanation,) = estimator.explain([text], level="sentence")
    (chunk,) = estimator.explain([text])
    assert explanation.end[-1] <= chunk.end[0] + len("The dog. ")
    assert len(explanation) < 8


# Explanations


def test_to_frame(fitted: LongBertClassifier) -> None:
    (explanation,) = fitted.explain(TEXTS[1:2])
    frame = explanation.to_frame()
    assert list(frame) == ["chunk", "start", "end", "passage", "class", "contribution"]
    assert len(frame) == len(explanation) * 3
    row = frame.iloc[4]
    assert (row["chunk"], row["class"]) == (1, 1)
    assert row["passage"] == TEXTS[1][row["start"] : row["end"]] == explanation.passages[1]
    assert row["contribution"] == explanation.contributions[1, 1]
    sums = frame.groupby("class")["contribution"].sum()
    np.testing.assert_allclose(sums, explanation.logits, atol=1e-5)
    (sentences,) = fitted.explain(TEXTS[:1], level="sentence")
    assert next(iter(sentences.to_frame())) == "sentence"


def test_slices_and_the_top(fitted: LongBertClassifier) -> None:
    (explanation,) = fitted.explain(TEXTS[:1])
    assert len(explanation) >= 4
    part = explanation[1:3]
    assert part.passages == explanation.passages[1:3]
    np.testing.assert_array_equal(part.logits, explanation.logits)
    assert explanation[-1].passages == explanation.passages[-1:]
    assert [one.passages[0] for one in explanation] == explanation.passages
    top = explanation.top(2, label=1)
    order = np.argsort(-explanation.contributions[:, 1])
    assert top.chunk.tolist() == order[:2].tolist()
    predicted = int(np.argmax(explanation.logits))
    assert explanation.top(1).chunk[0] == explanation.contributions[:, predicted].argmax()
    with pytest.raises(ValueError, match=r"label=7 is not among the classes \[0, 1, 2\]"):
        explanation.top(label=7)


def test_repr(fitted: LongBertClassifier) -> None:
    (explanation,) = fitted.explain(["The quick fox\n" * 200])
    lines = repr(explanation).splitlines()
    assert lines[0].startswith(f"<DocumentExplanation: {len(explanation)} passages, predicted ")
    assert len(lines) == 12
    assert lines[6] == f"  ... {len(explanation) - 10} more"
    assert max(map(len, lines)) < 150
    assert "\\n" in lines[1]


def test_it_costs_one_prediction(
    fitted: LongBertClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, encode = [], ChunkEncoder.encode

    def count(self: ChunkEncoder, micro_batch: Any, *args: Any) -> Any:
        passes.append(len(micro_batch.lengths))
        return encode(self, micro_batch, *args)

    monkeypatch.setattr(ChunkEncoder, "encode", count)
    fitted.predict_proba(TEXTS)
    expected = list(passes)
    passes.clear()
    fitted.explain(TEXTS)
    assert passes == expected


def test_a_frozen_encoder(tiny_bert: str) -> None:
    estimator = fit(tiny_bert, freeze_encoder=True)
    texts = TEXTS * 10
    logits = np.array([explanation.logits for explanation in estimator.explain(texts)])
    np.testing.assert_allclose(logits, estimator._predict_logits(texts), atol=1e-6)


def test_what_cannot_be_explained(fitted: LongBertClassifier, tiny_bert: str) -> None:
    chunked = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    with pytest.raises(TypeError, match="pass the texts themselves"):
        fitted.explain(chunked)
    with pytest.raises(NotFittedError):
        LongBertClassifier(tiny_bert).explain(TEXTS)
    with pytest.raises(ValueError, match=r"'level' parameter of LongBertClassifier\.explain"):
        fitted.explain(TEXTS, level="word")
    with pytest.raises(ValueError, match="'max_sentences' parameter"):
        fitted.explain(TEXTS, level="sentence", max_sentences=0)
    with pytest.raises(ValueError, match="X at index 1 is missing"):
        fitted.explain(["good", None])


# Real texts


@pytest.mark.slow
def test_the_top_passage_moves_the_prediction(bbc_news: tuple[np.ndarray, np.ndarray]) -> None:
    """Of news of three chunks or more: the logit falls by more than without another passage."""
    texts, labels = bbc_news
    classifier = LongBertClassifier(chunk_size=128, random_state=0, max_epochs=2)
    classifier.fit(texts[:100], labels[:100])
    explained = classifier.explain(texts[100:400])
    rng, without_top, without_any, whole = np.random.RandomState(0), [], [], []
    for explanation in explained:
        if len(explanation) < 3:
            continue
        index = explanation.main_class
        top = explanation.top(1)
        other = explanation[rng.choice(np.setdiff1d(np.arange(len(explanation)), top.chunk))]
        for shorter, passage in ((without_top, top), (without_any, other)):
            start, end = passage.start[0], passage.end[0]
            shorter.append((explanation.text[:start] + explanation.text[end:], index))
        whole.append(explanation.logits[index])
    falls = []
    for shorter in (without_top, without_any):
        logits = classifier.decision_function([text for text, _ in shorter])
        falls.append(np.array(whole) - logits[np.arange(len(shorter)), [i for _, i in shorter]])
    assert len(whole) > 100
    share = (falls[0] > falls[1]).mean()
    assert share >= 0.9, share
