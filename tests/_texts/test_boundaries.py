"""Pins where paragraphs, sentences and words end: by hand, in many scripts, in linear time."""

import re
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sklearn_longbert._texts.boundaries import (
    FRAGMENT,
    SENTENCE,
    WORD,
    boundary_kinds,
    sentence_bounds,
)

WORDS = ["good", "naïve", "東京。", "e\u0301", "\U0001f44d", ".", "\n", "\0", "\u2003", "ﬁ", "İ"]
texts_of_any_kind = st.text(max_size=200) | st.lists(st.sampled_from(WORDS), max_size=60).map(
    " ".join
)


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


# sentences of many scripts, divided by |
SENTENCES = {
    "Hindi": "यह अच्छा है। |वह बुरा है॥ |क्या यह सच है? |हाँ।",
    "Arabic": "هل هذا جيد؟ |نعم، هو جيد. |شكرا!",
    "Urdu": "یہ اچھا ہے۔ |وہ برا ہے۔ |کیا یہ سچ ہے؟",
    "Armenian": "Սա լավ է։ |Դա վատ է։",
    "Tibetan": "བཀྲ་ཤིས། །|བདེ་ལེགས།",
    "Amharic": "ሰላም ነው። |እንዴት ነህ፧ |ደህና።",
    "Burmese": "ဒါကောင်းတယ်။ |ဒါဆိုးတယ်။",
    "Khmer": "នេះល្អ។ |នោះអាក្រក់។",
    "Chinese": "今天很好。|「真的吗？」|他说。|明天呢？！|不知道！",
    "Japanese": "これは良い｡|あれは３．１４．|（本当です。）|次です。",
    "marks and brackets": "“Stop!” |(It was late.) |[He left?!] |«Go.» |So she went.",
    "HTML": "<p>It was good.</p>|<p>Bad!</p> |<i>Ah, etc.</i>, and (<b>no.</b>) |So<BR/>|he left.",
    "stop before a tag": "He left.<br/>|Then rain.|<b>A lot</b> of 3.14.x",
    "lower case": "i liked it. |it was good! |would i see it again? |yes.",
    "only marks": "... |?! |。。|x",
}


@pytest.mark.parametrize("divided", SENTENCES.values(), ids=SENTENCES)
def test_sentences_of_many_scripts(divided: str) -> None:
    text = divided.replace("|", "")
    assert "|".join(text[start:end] for start, end in sentence_bounds(text)) == divided


@pytest.mark.parametrize("unit", [". ", "...", ".)", ".</b", "<br", "。 ", '."', "．1", "(.", " "])
def test_sentences_are_found_in_linear_time(unit: str) -> None:
    """A quadratic rule takes minutes for this text, and the linear one hundredths of a second."""
    text = unit * (10**6 // len(unit)) + "x"
    start = time.process_time()
    assert sentence_bounds(text)[-1, 1] == len(text)
    assert time.process_time() - start < 5


# A sign stands before each token but the first: ¶ after a paragraph, § after a sentence, ¦ after
# a word, + within one.
KINDS = {
    "words": "The ¦fox+es ¦run+.",
    "sentences": 'It ¦rains+. §A ¦dog+!+" §"+Yes+?+"§\tNo',
    "an empty line": "Title\n\n¶It ¦rains+.\n¶A ¦dog",
    "line breaks": "fox\n§dog \n§cat",
    "HTML": "Rain+.+</p> ¶A ¦fox+<br>§A ¦dog+<br><br>¶yes",
    "Chinese": "我¦们¦好+，¦你+。§他+AI",
    "Thai": "ไ¦ป¦ไ¦ห¦น¦ม+า¦วั¦น",
    "no space": "a+,+b+;+c",
}
SIGNS = "¶§¦+"


@pytest.mark.parametrize("case", KINDS.values(), ids=KINDS)
def test_kinds_by_hand(case: str) -> None:
    parts = re.split(f"[{SIGNS}]", case)
    ends = np.cumsum([len(part) for part in parts])
    spans = [
        (end - len(part.lstrip()), end - len(part) + len(part.rstrip()))
        for part, end in zip(parts, ends, strict=True)
    ]
    kinds = boundary_kinds("".join(parts), np.array(spans, dtype=np.int32))
    assert "".join(SIGNS[kind] for kind in kinds[1:]) == re.sub(f"[^{SIGNS}]", "", case)


def test_kinds_of_tokens_that_are_no_words() -> None:
    text = "fox.  東A。"
    # the bytes of a character, trimmed and untrimmed white space, a token that ends with a mark
    spans = [(0, 3), (3, 4), (5, 5), (5, 6), (6, 7), (6, 7), (7, 9)]
    kinds = boundary_kinds(text, np.array(spans, dtype=np.int32)).tolist()
    assert kinds[1:] == [FRAGMENT, FRAGMENT, FRAGMENT, SENTENCE, FRAGMENT, FRAGMENT]
    # tokens that begin with the white space before them
    spans = [(0, 3), (3, 4), (4, 7), (7, 9)]
    assert boundary_kinds(text, np.array(spans, dtype=np.int32)).tolist()[1:] == [
        *[FRAGMENT, SENTENCE, FRAGMENT]
    ]


@given(texts_of_any_kind)
@settings(deadline=None)
def test_every_end_of_a_sentence_is_found(text: str) -> None:
    """Of tokens that are characters, those that begin a sentence; words as ``str.split``."""
    ends = np.arange(len(text)) + 1
    spans = np.column_stack([ends - 1, ends]).astype(np.int32)
    kinds = boundary_kinds(text, spans) if text else np.empty(0)
    begin = sentence_bounds(text)[1:, 0].tolist()
    assert np.flatnonzero(kinds[1:] <= SENTENCE).tolist() == [place - 1 for place in begin]
    words = [match.start() for match in re.finditer(r"(?<=\s)\S", text)]
    assert all(kinds[place] <= WORD for place in words)
