"""Divide many texts into stretches that are held in memory one at a time."""

from collections.abc import Iterator, Sequence

STREAM_TEXTS = 1024  # most texts of a stretch, which are sorted together
STREAM_TOKENS = 2**21  # most tokens of a stretch
STREAM_CHARACTERS = 2**23  # most characters that are chunked at once


def stretches(sizes: Sequence[int], largest: int) -> Iterator[slice]:
    """Yield slices of at most `STREAM_TEXTS` texts whose sizes sum to at most `largest`.

    A single text is never divided, so a larger one comes alone.
    """
    start = total = 0
    for index, size in enumerate(sizes):
        is_full = index - start == STREAM_TEXTS or total + size > largest
        if is_full and index > start:
            yield slice(start, index)
            start, total = index, 0
        total += size
    yield slice(start, len(sizes))
