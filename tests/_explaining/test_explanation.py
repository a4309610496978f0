"""Pins what explain says: contributions add up, passages are the text, the needle is found.

Weights of each pooling against the plain formulas; passages and sentences for any text and any
way of cutting; sentence contributions against predictions of the text without the sentence; the
cost of one prediction; outcomes as predict, predict_proba and decision_function have them.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_hex
from scipy.special import logsumexp, softmax
from sklearn.exceptions import NotFittedError
from tiny import ARCHITECTURES

from sklearn_longbert import LongBertClassifier, LongBertRegressor, PassageDisplay, TextChunker
from sklearn_longbert._encoding import poolings
from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._explaining.contributions import chunk_contributions, passage_bounds
from sklearn_longbert._explaining.explanation import DocumentExplanation
from sklearn_longbert._targets.targets import Labels, Numbers

TEXTS = ["The quick fox jumps. " * 9 + "Good news!", "bad dog runs " * 20, "good", "", "bad. Good"]
SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
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


@pytest.mark.parametrize("layers", ["last", "spread"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("targets", TARGETS)
def test_contributions_add_up_to_what_is_predicted(
    targets: str, pooling: str, layers: str, tiny_bert: str
) -> None:
    estimator = fit(tiny_bert, targets, pooling=pooling, layers=layers)
    logits = estimator._predict_logits(TEXTS)
    for index, explanation in enumerate(estimator.explain(TEXTS)):
        predicted = estimator.predict(TEXTS)[index]
        np.testing.assert_array_equal(explanation.predicted, predicted)
        scale = 1.0
        if targets.endswith(("number", "numbers")):
            assert explanation.probabilities is None
            np.testing.assert_array_equal(explanation.logits, np.ravel(predicted))
            scale = np.abs(explanation.contributions).max()
            np.testing.assert_allclose(explanation.base_value, np.mean(TARGETS[targets][1], axis=0))
        else:
            np.testing.assert_array_equal(explanation.base_value, np.zeros(logits.shape[1]))
            np.testing.assert_array_equal(explanation.logits, logits[index])
            np.testing.assert_array_equal(
                explanation.probabilities, estimator.predict_proba(TEXTS)[index]
            )
            np.testing.assert_array_equal(explanation.classes, estimator.classes_)
        total = explanation.base_value + explanation.contributions.sum(0)
        np.testing.assert_allclose(total, explanation.logits, atol=1e-5 * scale, rtol=1e-5)
        assert explanation.chunk_logits is not None
        assert explanation.chunk_logits.shape == explanation.contributions.shape


def test_contributions_by_hand() -> None:
    outputs = torch.tensor([[1.0, 4.0], [3.0, 4.0], [2.0, -1.0]], dtype=torch.float64)
    labels = Labels(np.arange(2))
    found, logits = chunk_contributions(outputs, poolings.POOLINGS["mean"], labels)
    np.testing.assert_allclose(found, [[1 / 3, 4 / 3], [1, 4 / 3], [2 / 3, -1 / 3]])
    np.testing.assert_array_equal(logits, outputs)
    found, _ = chunk_contributions(outputs, poolings.POOLINGS["max"], labels)
    np.testing.assert_array_equal(found, [[0, 4], [3, 0], [0, 0]])  # the first of equal ones
    found, _ = chunk_contributions(outputs, poolings.POOLINGS["logsumexp"], labels)
    exponentials = np.exp([1, 3, 2])
    expected = exponentials / exponentials.sum() * np.log(exponentials.mean())
    np.testing.assert_allclose(found[:, 0], expected)
    scores = torch.tensor([[0.0], [np.log(3)], [0.0]], dtype=torch.float64)
    attended = torch.cat([outputs, scores], dim=1)
    found, logits = chunk_contributions(attended, poolings.POOLINGS["attention"], labels)
    np.testing.assert_allclose(found, [[0.2, 0.8], [1.8, 2.4], [0.4, -0.2]])
    np.testing.assert_array_equal(logits, outputs)


def test_contributions_to_numbers_are_in_their_unit() -> None:
    outputs = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    stars = Numbers(np.array(10.0), np.array(2.0))
    found, logits = chunk_contributions(outputs, poolings.POOLINGS["mean"], stars)
    np.testing.assert_allclose(logits, [[12], [16]])
    np.testing.assert_allclose(found, [[1], [3]])  # the prediction is 14, the mean of y is 10
    found, _ = chunk_contributions(outputs, poolings.POOLINGS["max"], stars)
    np.testing.assert_allclose(found, [[0], [6]])
    found, _ = chunk_contributions(outputs, poolings.POOLINGS["logsumexp"], stars)
    np.testing.assert_allclose(found.sum(), 2 * np.log((np.exp(1) + np.exp(3)) / 2))


def test_a_passage_that_tells_nothing_contributes_nothing(tiny_bert: str) -> None:
    """The mean of the targets is not spread over the passages, however many there are."""
    far = [1e6 + value for value in (1.0, 2.0, 3.0, 4.0, 5.0)]
    regressor = LongBertRegressor(tiny_bert, **SETTINGS).fit(TEXTS, far)
    for explanation in regressor.explain(TEXTS):
        np.testing.assert_allclose(explanation.base_value, [1e6 + 3])
        assert np.abs(explanation.contributions).max() < 100
    (chunks,) = regressor.explain(TEXTS[:1])
    (sentences,) = regressor.explain(TEXTS[:1], level="sentence")
    np.testing.assert_array_equal(chunks.base_value, sentences.base_value)
    np.testing.assert_array_equal(chunks.base_value, chunks.top(1).base_value)


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
            (document,) = chunker._cut([text], with_spans=True)
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
    # five and five of eight tokens: the two that both read belong to the first
    five = ["the quick  brown fox jumps ", "over\tlazy dog "]
    assert passages(chunk_size=7, chunk_overlap=2) == five
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


def test_a_last_space_belongs_to_the_last_sentence(tiny_encoder: Callable[[str], str]) -> None:
    """RoBERTa's tokenizer gives it a token, and that token the empty span behind the text."""
    estimator = fit(tiny_encoder("roberta"), chunk_size=None)
    texts = ["Good news!\nBad dog. ", "Bad dog. ", "Good news!\n"]
    (explanation,) = estimator.explain(texts[:1], level="sentence")
    assert explanation.passages == texts[:0:-1]
    without = np.array([shorter.logits for shorter in estimator.explain(texts[1:])])
    np.testing.assert_allclose(
        explanation.contributions, explanation.logits - without, rtol=1e-3, atol=1e-5
    )


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


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_sentences_of_empty_texts(
    pooling: str, architecture: str, tiny_encoder: Callable[[str], str]
) -> None:
    """Each is one sentence, without which nothing is left: it is worth what an empty text lacks.

    BERT's tokenizer sees nothing in white space, RoBERTa's does.
    """
    estimator = fit(tiny_encoder(architecture), pooling=pooling)
    texts = ["", " ", "\t\u2003 ", " \n\n ", "good"]
    explanations = estimator.explain(texts, level="sentence")
    empty, *others = explanations
    np.testing.assert_array_equal(empty.contributions, 0)
    for text, explanation in zip(texts, explanations, strict=True):
        assert explanation.passages == [text]
        assert explanation.contributions.shape == (1, 3)
        assert len(explanation.to_frame()) == 3
        assert text_of_html(explanation._repr_html_()) == text
        np.testing.assert_allclose(
            explanation.contributions[0], explanation.logits - empty.logits, atol=1e-5
        )
    worth = [np.abs(explanation.contributions).max() > 1e-4 for explanation in others]
    assert worth == [architecture == "roberta"] * 3 + [True]


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
    assert explanation.top(np.int64(99)).passages == explanation.top(len(explanation)).passages
    for n in (0, -1, 1.5, "2"):
        with pytest.raises(ValueError, match=f"n={n!r} where a whole number of at least 1"):
            explanation.top(n)


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
    with pytest.raises(NotFittedError):
        LongBertClassifier(tiny_bert).explain(TEXTS)
    with pytest.raises(ValueError, match=r"'level' parameter of LongBertClassifier\.explain"):
        fitted.explain(TEXTS, level="word")
    with pytest.raises(ValueError, match="'max_sentences' parameter"):
        fitted.explain(TEXTS, level="sentence", max_sentences=0)
    with pytest.raises(ValueError, match="X at index 1 is missing"):
        fitted.explain(["good", None])


# Pictures


@pytest.fixture(scope="module")
def dangerous(fitted: LongBertClassifier) -> DocumentExplanation:
    """Of a text that is HTML itself, in which a script would change the title."""
    attack = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    (explanation,) = fitted.explain([f"good fox & {attack} </div></style> " * 4 + "bad dog."])
    return replace(explanation, classes=np.array(["<b>", "'\"&", "<script>"]), predicted="<b>")


def text_of_html(html: str) -> str:
    """What a reader sees of the passages."""
    (shown,) = re.findall(r'<div class="text">(.*)</div></div>$', html, re.DOTALL)
    return unescape(re.sub(r"<[^<>]*>", "", shown))


def test_html_shows_the_text_and_nothing_of_it_as_html(dangerous: DocumentExplanation) -> None:
    html = dangerous._repr_html_()
    assert text_of_html(html) == dangerous.text
    allowed = "style div table tr th td p b span mark nav a"
    assert set(re.findall(r"<(\w+)", html)) <= set(allowed.split())
    assert "&lt;script&gt;" in html
    assert len(re.findall("<mark ", html)) == len(dangerous)


def test_html_tints_by_contribution(fitted: LongBertClassifier) -> None:
    (explanation,) = fitted.explain(TEXTS[:1])
    found = re.findall(r"var\(--(for|against)\),([0-9.]+)\)\" title", explanation._repr_html_())
    tints = [float(t) * (1 if side == "for" else -1) for side, t in found]
    contributions = explanation.contributions[:, explanation.main_class]
    expected = 0.6 * contributions / np.abs(contributions).max()
    np.testing.assert_allclose(tints, expected, atol=1e-3)


def test_html_of_a_long_text_is_short(fitted: LongBertClassifier) -> None:
    text = "".join(f"The quick fox no. {number} jumps. " for number in range(3000))
    (explanation,) = fitted.explain([text])
    assert len(explanation) > 1000
    html = explanation._repr_html_()
    assert len(html) < 60_000  # half of it is the strip
    top = explanation[
        np.argsort(-np.abs(explanation.contributions[:, explanation.main_class]))[:20]
    ]
    assert all(f">{passage}</mark>" in html for passage in top.passages)
    numbers = [int(n) for n in re.findall(r"\[(\d+) passages", html)]
    assert sum(numbers) == len(explanation) - 20


@pytest.mark.parametrize("n_classes", [8, 10])
def test_html_names_the_classes_with_the_largest_logits(
    n_classes: int, fitted: LongBertClassifier
) -> None:
    (explanation,) = fitted.explain(TEXTS[:1])
    logits = np.roll(np.arange(n_classes, dtype=np.float32), 3)
    html = replace(
        explanation,
        classes=np.array([f"of {logit:.0f}" for logit in logits]),
        contributions=np.ones((len(explanation), n_classes)),
        logits=logits,
        probabilities=softmax(logits),
    )._repr_html_()
    named = [f"of {logit}" for logit in range(n_classes)][::-1][:8]
    assert re.findall(r"<td>(of \d)</td>", html) == named
    assert re.findall(r"<td>(and .*?)</td>", html) == (["and 2 more"] if n_classes == 10 else [])


def test_html_of_other_kinds(tiny_bert: str) -> None:
    regressor = fit(tiny_bert, "several numbers", max_chunks=1)
    (explanation,) = regressor.explain(TEXTS[:1])
    html = explanation._repr_html_()
    assert "<th>prediction</th><th>base value</th>" in html
    assert re.findall(r"<td>([^<]+)</td></tr>", html) == ["2", "0.2"]  # the means of TARGETS
    assert "base value" not in fit(tiny_bert).explain(TEXTS[:1])[0]._repr_html_()
    assert "[not explained: " in html
    (empty,) = regressor.explain([""])
    assert text_of_html(empty._repr_html_()) == ""
    (sentences,) = fit(tiny_bert).explain(TEXTS[:1], level="sentence")
    assert text_of_html(sentences._repr_html_()) == TEXTS[0]


@pytest.mark.browser
@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium is installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_in_a_browser(dangerous: DocumentExplanation, scheme: str, tmp_path: Path) -> None:
    """No script runs; a tinted passage is blue, and text and its background differ."""
    page = tmp_path / "page.html"
    probe = """<script>
    const box = document.querySelector('.longbert'), style = getComputedStyle(box);
    const mark = getComputedStyle(document.querySelector('mark'));
    const cell = getComputedStyle(document.querySelector('.longbert td'));
    document.body.dataset.seen = JSON.stringify([document.title, style.color,
        style.backgroundColor, mark.color, cell.color, box.querySelectorAll('mark').length]);
    </script>"""
    html = f"<meta charset='utf-8'><title>calm</title>{dangerous._repr_html_()}{probe}"
    page.write_text(html, encoding="utf-8")
    settings = f"preferredColorScheme={0 if scheme == 'dark' else 1}"
    done = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--blink-settings={settings}",
         "--virtual-time-budget=2000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (seen,) = re.findall(r'data-seen="([^"]*)"', done.stdout)
    title, color, background, of_mark, of_cell, n_marks = json.loads(unescape(seen))
    assert title == "calm"
    assert "<title>calm</title>" in done.stdout
    assert n_marks == len(dangerous)
    light, dark = (
        ["rgb(26, 26, 26)", "rgb(255, 255, 255)"],
        ["rgb(238, 238, 238)", "rgb(27, 27, 27)"],
    )
    assert [color, background] == (light if scheme == "light" else dark)
    assert of_mark == of_cell == color


def test_display(fitted: LongBertClassifier) -> None:
    plt.switch_backend("agg")
    display = PassageDisplay.from_estimator(fitted, TEXTS[0], label=1)
    (explanation,) = fitted.explain(TEXTS[:1])
    assert display.figure_ is display.ax_.figure
    for bar, start, end, height in zip(
        display.bars_,
        explanation.start,
        explanation.end,
        explanation.contributions[:, 1],
        strict=True,
    ):
        assert (bar.get_x(), bar.get_width()) == (start, end - start)
        assert bar.get_height() == height
        assert to_hex(bar.get_facecolor()).upper() == ("#0072B2" if height >= 0 else "#D55E00")
    others = [line.get_label() for line in display.lines_]
    assert sorted(others) == ["0", "2"]
    for line in display.lines_:
        np.testing.assert_array_equal(
            line.get_data().values, explanation.contributions[:, int(line.get_label())]
        )
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["1", *others]
    plt.close(display.figure_)


def test_bars_are_blue_for_and_orange_against(fitted: LongBertClassifier) -> None:
    """Bar by bar along the text, whatever the order of the passages in the explanation."""
    plt.switch_backend("agg")
    (explanation,) = fitted.explain(["The quick fox jumps. " * 11])
    heights = np.array([0.5, -0.25, 0.0, -1.0])
    assert len(explanation) == len(heights)
    explanation = replace(explanation, contributions=np.column_stack([-heights, heights, heights]))
    blue, orange = "#0072b2", "#d55e00"
    for label, colors in (1, [blue, orange, blue, orange]), (0, [orange, blue, blue, blue]):
        display = PassageDisplay.from_explanation(explanation[[2, 0, 3, 1]], label=label)
        assert [bar.get_x() for bar in display.bars_] == explanation.start.tolist()
        assert [to_hex(bar.get_facecolor()) for bar in display.bars_] == colors
        signs = [np.sign(bar.get_height()) for bar in display.bars_]
        assert signs == np.sign(explanation.contributions[:, label]).tolist()
        plt.close(display.figure_)


def test_display_draws_where_it_is_told(fitted: LongBertClassifier) -> None:
    plt.switch_backend("agg")
    figure, ax = plt.subplots()
    display = PassageDisplay.from_estimator(
        fitted, TEXTS[0], level="sentence", max_sentences=2, n_others=0, ax=ax
    )
    assert display.ax_ is ax
    assert (len(display.bars_), display.lines_) == (2, [])
    assert PassageDisplay.from_explanation(fitted.explain([""])[0], ax=ax).bars_
    plt.close(figure)
    with pytest.raises(TypeError, match="text is a list where one str is expected"):
        PassageDisplay.from_estimator(fitted, TEXTS)
    with pytest.raises(ValueError, match="label=9 is not among the classes"):
        PassageDisplay.from_estimator(fitted, TEXTS[0], label=9)


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


def test_repr_of_numbers(tiny_bert: str) -> None:
    (one,) = fit(tiny_bert, "a number").explain(TEXTS[:1])
    first = repr(one).splitlines()[0]
    assert first.endswith(f"predicted {one.predicted.item()!r}, base value 2200>")
    (several,) = fit(tiny_bert, "several numbers").explain(TEXTS[:1])
    base = [2, 0.2][several.main_class]
    assert f", contributions to target {several.main_class}, base value {base}>" in repr(several)
