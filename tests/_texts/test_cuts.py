"""Pins where texts are cut: against every possible way on small texts, and by hand.

Texts have as few chunks as full ones would be. Words are whole where there is a way, and cuts are
at ends of paragraphs and sentences unless these lie far from equal lengths.
"""

import itertools
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._explaining.contributions import passage_bounds
from sklearn_longbert._texts.boundaries import FRAGMENT, PARAGRAPH, SENTENCE, WORD
from sklearn_longbert._texts.cuts import even_cuts, full_cuts

LETTERS = {"¶": PARAGRAPH, ".": SENTENCE, " ": WORD, "-": FRAGMENT}


def kinds_of(pattern: str) -> np.ndarray:
    """What ends before each token, a letter a token."""
    return np.array([LETTERS[letter] for letter in pattern], dtype=np.int8)


def fewest(n_tokens: int, body_size: int, overlap: int) -> int:
    return max(-(-(n_tokens - overlap) // (body_size - overlap)), 1)


def cost(cuts: tuple[int, ...], pattern: str, overlap: int) -> tuple[int, int]:
    """The objective as the module states it: words cut, and quarters of tokens."""
    n_new, n_chunks = len(pattern) - overlap, len(cuts) + 1
    length = n_new // n_chunks
    worth = {"¶": 0, ".": length, " ": 3 * length, "-": 0}
    of_cuts = [
        4 * abs(cut - overlap - number * n_new // n_chunks) + worth[pattern[cut]]
        for number, cut in enumerate(cuts, 1)
    ]
    return sum(pattern[cut] == "-" for cut in cuts), sum(of_cuts)


def lengths(cuts: Any, n_tokens: int, overlap: int) -> list[int]:
    starts = [0, *(cut - overlap for cut in cuts)]
    return [end - start for start, end in zip(starts, [*cuts, n_tokens], strict=True)]


@given(st.text("¶. -", min_size=1, max_size=15) | st.text(" -", max_size=15), st.data())
@settings(deadline=None, max_examples=400)
def test_no_other_way_is_better(pattern: str, data: st.DataObject) -> None:
    """All ways to cut a small text into its fewest chunks, tried one after the other."""
    body_size = data.draw(st.integers(1, 9), label="body_size")
    overlap = data.draw(st.integers(0, body_size - 1), label="overlap")
    n_tokens = len(pattern)
    n_chunks = fewest(n_tokens, body_size, overlap)

    cuts = even_cuts(kinds_of(pattern), n_chunks, body_size, overlap).tolist()

    assert len(cuts) == n_chunks - 1
    assert cuts == sorted(set(cuts))
    assert max(lengths(cuts, n_tokens, overlap)) <= body_size
    assert min(lengths(cuts, n_tokens, overlap)) > overlap or n_chunks == 1
    ways = [
        way
        for way in itertools.combinations(range(overlap + 1, n_tokens), n_chunks - 1)
        if max(lengths(way, n_tokens, overlap)) <= body_size
    ]
    assert cost(tuple(cuts), pattern, overlap) == min(cost(way, pattern, overlap) for way in ways)
    if len(set(pattern)) == 1:  # every place is as good
        even = lengths(cuts, n_tokens, overlap)
        assert max(even) - min(even) <= 1


@given(st.text("¶. -", max_size=40), st.data())
@settings(deadline=None, max_examples=200)
def test_full_chunks_end_with_the_last_word_that_fits(pattern: str, data: st.DataObject) -> None:
    body_size = data.draw(st.integers(1, 12), label="body_size")
    overlap = data.draw(st.integers(0, body_size - 1), label="overlap")
    cuts = full_cuts(kinds_of(pattern), body_size, overlap).tolist()
    start = 0
    for cut in cuts:
        places = range(start + overlap + 1, start + body_size + 1)
        assert cut == max((p for p in places if pattern[p] != "-"), default=places[-1])
        start = cut - overlap
    assert len(pattern) - start <= body_size  # the last chunk reaches the end of the text
    assert fewest(len(pattern), body_size, overlap) <= len(cuts) + 1


# a pattern, most tokens of a chunk, and the cuts
BY_HAND = {
    "equal lengths where every place is as good": (" " * 10, 6, [5]),
    "the nearest space": ("------ -----", 11, [6]),
    "a sentence end beats spaces": (" " * 6 + "." + " " * 13, 19, [6]),
    "but not from half of the equal length on": (" " * 5 + "." + " " * 14, 19, [10]),
    "a paragraph end beats sentence ends": ("." * 8 + "¶" + "." * 11, 19, [8]),
    "but not from a quarter on": ("." * 7 + "¶" + "." * 12, 19, [10]),
    "a word that fits is whole": ("- " + "-" * 18, 19, [1]),
    "a word that does not fit is cut in the middle": ("-" * 20, 19, [10]),
    "full chunks have one way": ("---- ------ -", 7, [6]),
    "each cut has its window": ("   .     .    ", 6, [3, 9]),
}


@pytest.mark.parametrize(("pattern", "body_size", "expected"), BY_HAND.values(), ids=BY_HAND)
def test_by_hand(pattern: str, body_size: int, expected: list[int]) -> None:
    n_chunks = fewest(len(pattern), body_size, 0)
    assert even_cuts(kinds_of(pattern), n_chunks, body_size, 0).tolist() == expected


def test_a_million_tokens() -> None:
    """They take well under a second, where time is not linear they take hours."""
    pattern = np.random.RandomState(0).choice(4, 10**6, p=[0.01, 0.04, 0.75, 0.2]).astype(np.int8)
    for body_size in (510, 30):
        cuts = even_cuts(pattern, fewest(10**6, body_size, 3), body_size, 3)
        assert max(lengths(cuts, 10**6, 3)) <= body_size


# ---------------------------------------------------------------------------------------------
# Of texts

STORY = (
    "The fox jumps over the quick dog. The news is good! The lazy dog runs away, and the fox "
    "goes on.\n\nA goodish day: the news is bad, the fox is quick. The dog is bad, too. Good news "
    "of the lazy fox. Over and over the quick dog jumps; it is a good day."
)


def passages(encoder: str, text: str, **parameters: Any) -> list[str]:
    (document,) = TextChunker(encoder, **parameters).fit_transform([text])
    return [text[start:end] for start, end in passage_bounds(document, len(text))]


def with_room(encoder: str, text: str, overlap: int) -> TextChunker:
    """Return a chunker with three chunks of the text, full by five sixths."""
    (document,) = TextChunker(encoder).fit_transform([text])
    size = (document.n_tokens - overlap) * 2 // 5 + overlap + 2
    return TextChunker(encoder, chunk_size=size, chunk_overlap=overlap).fit()


@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta", "deberta-v2", "modernbert"])
@pytest.mark.parametrize("overlap", [0, 4])
def test_passages_begin_with_sentences(
    name: str, overlap: int, tiny_encoder: Callable[[str], str]
) -> None:
    (document,) = with_room(tiny_encoder(name), STORY, overlap).transform([STORY])
    found = [STORY[start:end].strip() for start, end in passage_bounds(document, len(STORY))]
    assert found == [
        STORY[: STORY.index("A goodish")].strip(),
        STORY[STORY.index("A goodish") : STORY.index("Good news")].strip(),
        STORY[STORY.index("Good news") :],
    ]


@pytest.mark.parametrize("selection", ["head", "tail", "head_tail", "even"])
def test_max_chunks_keeps_whole_words(selection: str, tiny_encoder: Callable[[str], str]) -> None:
    """Full chunks of seven tokens would end within the second word of four."""
    encoder, text = tiny_encoder("bert"), "goodish news " * 12
    settings = {"max_chunks": 3, "chunk_selection": selection}
    (document,) = TextChunker(encoder, chunk_size=9, **settings).fit_transform([text])
    found = [text[start:end] for start, end in passage_bounds(document, len(text))]
    assert len(found) == 3
    assert {word for passage in found for word in passage.split()} == {"goodish", "news"}


TEXTS_OF_ALL_KINDS = {
    "no sentence": "the quick fox jumps over the lazy dog " * 9,
    "short lines": "the fox\nthe dog\n" * 10,
    "code": "".join(f"  if fox[{i}] == dog:\n    over({i})\n\n" for i in range(4)),
    "a huge word": "The fox. " + "-good" * 16 + " The dog. " + "bad " * 9,
    "Chinese": "東京日本語。" * 7,
    "Chinese without marks": "東京都日本語" * 6,
    "tabs": "\t".join(["fox", "dog"] * 15),
}


@pytest.mark.filterwarnings("ignore:.* under unknown tokens")
@pytest.mark.parametrize("name", ["bert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("kind", TEXTS_OF_ALL_KINDS)
@pytest.mark.parametrize("overlap", [0, 5])
def test_texts_of_all_kinds(
    kind: str, name: str, overlap: int, tiny_encoder: Callable[[str], str]
) -> None:
    text = TEXTS_OF_ALL_KINDS[kind]
    (document,) = with_room(tiny_encoder(name), text, overlap).transform([text])
    bounds = document.bounds()
    assert document.n_chunks == fewest(document.n_tokens, document.layout.body_size, overlap) == 3
    np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1] - overlap)
    assert (bounds[:, 1] - bounds[:, 0] <= document.layout.body_size).all()
    found = [text[start:end] for start, end in passage_bounds(document, len(text))]
    assert "".join(found) == text
    if kind != "a huge word":
        assert not any(passage[0].isspace() and text[0] != " " for passage in found)
        joints = [one[-1] + two[0] for one, two in itertools.pairwise(found)]
        assert not any(joint.isascii() and joint.isalnum() for joint in joints)
        assert max(map(len, found)) < 2 * min(map(len, found))


def test_documents_are_cut_as_in_an_estimator(tiny_bert: str) -> None:
    chunker = TextChunker(tiny_bert, chunk_size=16).fit()
    texts = [STORY, "good " * 40 + STORY, "fox", ""]
    for text, document, bare in zip(
        texts, chunker.transform(texts), chunker._cut(texts, with_spans=False), strict=True
    ):
        assert (document.tokens.shape[0], bare.tokens.shape[0]) == (3, 1)
        for other in (
            bare,
            chunker.transform([text])[0],
            pickle.loads(pickle.dumps(document)),
        ):
            np.testing.assert_array_equal(other.bounds(), document.bounds())


def test_texts_of_more_tokens_than_characters(tiny_encoder: Callable[[str], str]) -> None:
    """A batch that seems to hold short texts only."""
    text = "👍🏽 " * 4 + "東京 " * 3
    chunker = TextChunker(tiny_encoder("roberta"), chunk_size=32).fit()
    assert len(text) < 30 < chunker.transform([text])[0].n_tokens
    (bare,) = chunker._cut([text], with_spans=False)
    np.testing.assert_array_equal(bare.bounds(), chunker.transform([text])[0].bounds())


def test_explanations_show_the_chunks_of_predictions(tiny_bert: str) -> None:
    estimator = LongBertClassifier(
        tiny_bert, **ENCODER_ALONE, chunk_size=32, max_epochs=1, random_state=0
    )
    estimator.fit([STORY, "bad " * 50, "good"], [0, 1, 0])
    (explanation,) = estimator.explain([STORY])
    assert explanation.passages == passages(tiny_bert, STORY, chunk_size=32)
    assert len(explanation) == estimator.n_chunks_[0]
