"""Choose where a text is cut into chunks.

A text that is kept whole is cut into the fewest chunks that hold its tokens. The places of equal
lengths are those that divide it into chunks of equal length, to a token. Of all ways to cut it
into this number of chunks, :func:`even_cuts` takes the one with

1. the fewest cuts inside words;
2. among those, the least sum of costs. A cut costs its distance from its place of equal lengths,
   in tokens. A cut at the end of a sentence costs a quarter of the equal length more than at the
   end of a paragraph, and a cut between words three quarters more.

So a sentence end beats the nearest space if it is at most half of the equal length farther away,
and a paragraph end beats the nearest sentence end within a quarter. Texts in which every place is
of one kind have equal lengths. A cut is inside a word only if there is no other way to cut the
text into so few chunks.

If `max_chunks` leaves out a part of the text, :func:`full_cuts` makes each chunk as full as whole
words allow, so that most of the text is read.

With an overlap, a chunk repeats exactly so many tokens from the chunk before. Cuts are where new
text begins: a cut is the end of a chunk, and the next chunk starts `overlap` tokens before it.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sklearn_longbert._texts.boundaries import FRAGMENT, PARAGRAPH, SENTENCE, WORD

QUARTERS = {PARAGRAPH: 0, SENTENCE: 1, WORD: 3}  # of the equal length


def even_cuts(
    kinds: NDArray[np.int8], n_chunks: int, body_size: int, overlap: int
) -> NDArray[np.int32]:
    """Return the end of each chunk but the last, for chunks of about equal length.

    The end of chunk k is at least that of full chunks, less all room that full chunks would leave
    in the last one. So each cut has a window of its own, and windows do not overlap. Two chunks
    differ from full ones by their shifts: the room that is used up so far. Shifts never fall, and
    the least costs up to a cut are running minima over its shift. The time is linear in the number
    of tokens.

    Parameters
    ----------
    kinds : ndarray of shape (n_tokens,)
        What ends before each token, from :func:`boundary_kinds`.
    n_chunks : int
        The fewest chunks that hold the tokens.
    body_size : int
        Most tokens of a chunk.
    overlap : int
        Tokens that a chunk repeats from the one before.

    Returns
    -------
    cuts : ndarray of shape (n_chunks - 1,)
    """
    n_new, most_new = len(kinds) - overlap, body_size - overlap
    room = n_chunks * most_new - n_new
    numbers = np.arange(1, n_chunks)
    full = numbers * most_new + overlap  # (n_chunks - 1,)
    even = numbers * n_new // n_chunks + overlap
    shifts = np.arange(room + 1)
    costs = 4 * np.abs(shifts - (full - even)[:, None])  # (n_chunks - 1, room + 1)
    costs += _penalties(n_new // n_chunks, n_chunks, room)[kinds[full[:, None] - shifts]]
    for before, row in pairwise(costs):
        np.add(row, np.minimum.accumulate(before, out=before), out=row)
    cuts, most = np.empty(n_chunks - 1, dtype=np.int32), room + 1
    for number in range(n_chunks - 2, -1, -1):
        shift = int(np.argmin(costs[number, :most]))
        cuts[number], most = full[number] - shift, shift + 1
    return cuts


def _penalties(length: int, n_chunks: int, room: int) -> NDArray[np.int64]:
    """Return what a cut of each kind costs, in quarters of a token."""
    penalties = np.zeros(FRAGMENT + 1, dtype=np.int64)
    for kind, quarters in QUARTERS.items():
        penalties[kind] = quarters * length
    # One of these is more than all other costs together.
    penalties[FRAGMENT] = n_chunks * (4 * room + penalties.max() + 1)
    return penalties


def full_cuts(kinds: NDArray[np.int8], body_size: int, overlap: int) -> NDArray[np.int32]:
    """Return the end of each chunk but the last, for chunks as full as whole words allow.

    Parameters
    ----------
    kinds, body_size, overlap
        As those of :func:`even_cuts`.

    Returns
    -------
    cuts : ndarray of shape (n_chunks - 1,)
    """
    words = np.flatnonzero(kinds < FRAGMENT)
    cuts, start = [], 0
    while start + body_size < len(kinds):
        full = start + body_size
        index = np.searchsorted(words, full, side="right") - 1
        is_new = index >= 0 and words[index] > start + overlap
        cuts.append(int(words[index]) if is_new else full)
        start = cuts[-1] - overlap
    return np.array(cuts, dtype=np.int32)
