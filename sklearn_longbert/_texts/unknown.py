"""Count the characters of texts that a tokenizer does not know, and warn of them.

Invariant: a text is tokenized a second time, for the positions of its unknown tokens, only if it
has one.
"""

from collections.abc import Sequence
from os import PathLike
from typing import NamedTuple
from warnings import warn

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

LARGE_SHARE = 0.03  # all of BBC news has no unknown token of MiniLM
RARE_CHARACTER = "\U00010600"  # of Linear A, which no vocabulary holds
MOST_SHOWN = 40  # characters of an example


class Characters(NamedTuple):
    """The characters of texts, and those under tokens that stand for anything unknown.

    Attributes
    ----------
    n : int
    n_unknown_tokens : int
    n_unknown : int
        Number of characters under unknown tokens.
    example : str
        The longest of the fragments under an unknown token, cut after `MOST_SHOWN` characters.
    """

    n: int = 0
    n_unknown_tokens: int = 0
    n_unknown: int = 0
    example: str = ""

    @property
    def unknown_share(self) -> float:
        """Share of the characters that are under unknown tokens."""
        return self.n_unknown / max(self.n, 1)

    def plus(self, other: "Characters") -> "Characters":
        """Return the sums of both, with the longer example."""
        return Characters(
            self.n + other.n,
            self.n_unknown_tokens + other.n_unknown_tokens,
            self.n_unknown + other.n_unknown,
            max(self.example, other.example, key=len),
        )


def unknown_token_id(tokenizer: Tokenizer) -> int | None:
    """Return the id of the token for what is not in the vocabulary, None if there is none."""
    token = getattr(tokenizer.model, "unk_token", None)
    if token is not None:
        return tokenizer.token_to_id(token)
    # A Unigram model does not tell its unknown token.
    ids = tokenizer.encode(RARE_CHARACTER, add_special_tokens=False).ids
    return ids[-1] if len(ids) in (1, 2) else None


def characters_of(
    tokenizer: Tokenizer, texts: Sequence[str], ids: Sequence[NDArray[np.int32]]
) -> list[Characters]:
    """Return the characters of each text with these token ids."""
    unknown_id = unknown_token_id(tokenizer)
    characters = [Characters(len(text)) for text in texts]
    rows = [index for index, of_text in enumerate(ids) if (of_text == unknown_id).any()]
    again = tokenizer.encode_batch([texts[index] for index in rows], add_special_tokens=False)
    for index, encoding in zip(rows, again, strict=True):
        text, spans = texts[index], np.array(encoding.offsets)[ids[index] == unknown_id]
        lengths = spans[:, 1] - spans[:, 0]
        start, end = spans[np.argmax(lengths)]
        example = text[start : min(end, start + MOST_SHOWN)]
        characters[index] = Characters(len(text), len(spans), int(lengths.sum()), example)
    return characters


def count_characters(documents: NDArray[np.object_]) -> Characters:
    """Return the characters of all documents together."""
    total, of_unknown = 0, []
    for document in documents:
        total += document.characters.n
        if document.characters.n_unknown_tokens:
            of_unknown.append(document.characters)
    return Characters(
        total,
        sum(characters.n_unknown_tokens for characters in of_unknown),
        sum(characters.n_unknown for characters in of_unknown),
        max((characters.example for characters in of_unknown), key=len, default=""),
    )


def warn_of_unknown_tokens(
    characters: Characters, model_name: str | PathLike[str], name: str = "X"
) -> None:
    """Warn if a large share of the texts is under unknown tokens."""
    if characters.unknown_share > LARGE_SHARE:
        warn(
            f"{characters.unknown_share:.1%} of the characters of {name} are under unknown tokens "
            f"of {model_name}, such as {characters.example!r}: the encoder cannot tell them apart. "
            f"Choose an encoder whose tokenizer knows them, such as a multilingual or a cased one; "
            f"chunk_report counts them.",
            UserWarning,
            stacklevel=2,
        )
