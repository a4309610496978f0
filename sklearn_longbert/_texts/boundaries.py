"""Find where paragraphs, sentences and words of a text end, in characters and in tokens.

Invariants: the joined sentences are the text; the time is linear in its length.
"""

import re
import sys

import numpy as np
from numpy.typing import NDArray

# A sentence ends
# - at marks that have other uses, too, if white space or a tag follows;
# - at marks that end sentences only, in whatever script, with white space after them or without;
# - at line breaks.
# Closing quotation marks, brackets and tags after a mark belong to the sentence, and so does the
# white space. Every repetition is possessive or bounded, and starts at the first of its marks, so
# that the time is linear in the length of the text.
MARK = r"[.!?…‼⁇⁈⁉]"
# CJK, Devanagari, Arabic, Urdu, Armenian, Ethiopic, Burmese, Khmer, Tibetan, Greek, Mongolian, N'Ko
FULL_STOP = r"(?:[。｡！？︒।॥؟۔։።፧፨။។៕།༎\u037e᠃᠉߹]|．(?!\d))"
CLOSING = r"(?:[\"'”’»›)\]}」』）】〕》〉］｝]|</[^<>]{0,99}>)*+"
LINE_BREAK = r"(?:\n|<[bB][rR]\b[^<>]{0,99}>)"
SENTENCE_END = re.compile(
    rf"(?:(?<!{MARK}){MARK}++{CLOSING}(?=[\s<])"
    rf"|{FULL_STOP}(?:\s*+{FULL_STOP}|{MARK})*+{CLOSING}"
    rf"|{LINE_BREAK})(?:\s|{LINE_BREAK})*+"
)
BREAK = re.compile(r"\n|<br\b|</p\b", re.IGNORECASE)

# What ends before a token, best first. FRAGMENT: nothing does, so the token goes on with a word.
PARAGRAPH, SENTENCE, WORD, FRAGMENT = range(4)

# Letters of scripts without spaces: Thai, Lao, Tibetan, Burmese, Khmer, kana, and Han.
UNSPACED = [
    *[(0x0E01, 0x0E2F), (0x0E40, 0x0E45), (0x0E81, 0x0EAF), (0x0EC0, 0x0EC5), (0x0F40, 0x0F6D)],
    *[(0x1000, 0x102B), (0x1780, 0x17B4), (0x3041, 0x3097), (0x30A1, 0x30FB), (0x3400, 0xA000)],
    *[(0xF900, 0xFB00), (0x20000, 0x40000)],
]
# A word may begin with white space, in the tokens of some, and with a letter of these scripts.
IS_SPACE = np.zeros(sys.maxunicode + 1, dtype=bool)
IS_SPACE[[code for code in range(0x3001) if chr(code).isspace()]] = True
BEGINS_WORD = IS_SPACE.copy()
for first, end in UNSPACED:
    BEGINS_WORD[first:end] = True


def sentence_bounds(text: str) -> NDArray[np.intp]:
    """Return the first and end character of each sentence; the joined sentences are the text."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return np.column_stack([[0, *ends[:-1]], ends]).astype(np.intp)


def token_starts(spans: NDArray[np.int32]) -> NDArray[np.intp]:
    """Return the first character of each token, at least that of every earlier token.

    RoBERTa's tokenizer trims white space off its spans. A token of nothing else has an empty span
    behind its last character, which is its first one here.
    """
    starts, ends = spans.T.astype(np.intp)
    return np.maximum.accumulate((starts - (starts == ends)).clip(0))


def boundary_kinds(text: str, spans: NDArray[np.int32]) -> NDArray[np.int8]:
    """Return what ends before each token.

    Sentences are those of :func:`sentence_bounds`. A paragraph ends where the mark of a sentence
    and a line break meet, at an empty line, and at ``</p>`` after a mark. A word ends behind the
    white space that follows it. In scripts without spaces, it ends before each letter.

    Parameters
    ----------
    text : str
    spans : ndarray of shape (n_tokens, 2)
        First and end character of each token.

    Returns
    -------
    kinds : ndarray of shape (n_tokens,)
        ``PARAGRAPH``, ``SENTENCE``, ``WORD`` or ``FRAGMENT``. That of the first token means
        nothing.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    starts = token_starts(spans)
    ends = np.maximum.accumulate(spans[:, 1].astype(np.intp))
    begins = codes[starts.clip(0, len(codes) - 1)]
    is_word = BEGINS_WORD[begins] | IS_SPACE[codes[(starts - 1).clip(0)]]
    is_word &= ~(IS_SPACE[begins] & IS_SPACE[codes[(ends - 1).clip(0)]])  # white space alone
    is_word[1:] &= ends[:-1] <= starts[1:]  # else the token is a further part of a character
    kinds = np.where(is_word, WORD, FRAGMENT).astype(np.int8)
    sentence_ends, end_paragraphs = _sentence_ends(text)
    tokens = np.searchsorted(ends, sentence_ends, side="right")  # the first to end behind
    here = tokens < len(kinds)
    # A token that holds the mark, too, cannot be divided.
    here[here] &= (starts[tokens[here]] >= sentence_ends[here]) | IS_SPACE[begins[tokens[here]]]
    kinds[tokens[here]] = SENTENCE
    kinds[tokens[here & end_paragraphs]] = PARAGRAPH
    return kinds


def _sentence_ends(text: str) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the end of each sentence that has an end, and whether a paragraph ends there."""
    ends, breaks = [], []
    for match in SENTENCE_END.finditer(text):
        ends.append(match.end())
        breaks.append(len(BREAK.findall(match[0])) + (match[0][0] not in "\n<"))
    return np.array(ends, dtype=np.intp), np.array(breaks) >= 2
