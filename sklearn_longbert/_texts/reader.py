"""TextReader, the base of estimators and vectorizer, which checks and chunks their input."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import Tags

from sklearn_longbert._fit_tasks import CallbackSupportMixin
from sklearn_longbert._plain import PlainParameters, plain
from sklearn_longbert._pretrained.loading import saved_token_pooling
from sklearn_longbert._provenance import Versioned
from sklearn_longbert._texts.checks import check_texts
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.documents import (
    ChunkedDocument,
    array_of,
    as_documents,
    check_have_texts,
    chunk_report,
    warn_of_cut_texts,
    warn_of_empty_texts,
)
from sklearn_longbert._texts.store import TokenStore
from sklearn_longbert._texts.stretches import (
    STREAM_CHARACTERS,
    STREAM_TEXTS,
    STREAM_TOKENS,
    stretches,
)
from sklearn_longbert._texts.unknown import Characters, count_characters, warn_of_unknown_tokens

Inputs = list[str] | NDArray[np.object_] | TokenStore


def texts_of(inputs: Inputs) -> list[str]:
    """Return the texts of inputs, which may be documents that hold them."""
    if isinstance(inputs, list):
        return inputs
    texts: list[Any] = [document.text for document in inputs]  # they are checked to be there
    return texts


def keys_of(inputs: Inputs) -> list[Any]:
    """Return what is the same for equal texts: they themselves, or token ids where they are not."""
    if isinstance(inputs, list):
        return inputs
    texts = [document.text for document in inputs]
    if None not in texts:
        return texts
    return [document.token_ids.tobytes() for document in inputs]


class TextReader(CallbackSupportMixin, PlainParameters, Versioned):
    """Accept texts or documents of TextChunker, and chunk them as the parameters say."""

    def _check_input(self, X: ArrayLike, name: str = "X", needs_texts: bool = False) -> Inputs:
        """Return texts as a list of str, and documents or a store of TextChunker unchanged.

        If `needs_texts`, documents must hold their texts.
        """
        if isinstance(X, TokenStore):
            return _checked_store(X, name, needs_texts)
        documents = as_documents(X, name)
        if documents is None:
            return check_texts(X, name, self.missing)
        if needs_texts:
            check_have_texts(documents, name)
        return documents

    def _chunker_for(self, inputs: Inputs) -> TextChunker:
        """Return an unfitted chunker that cuts as this estimator's parameters say.

        Documents of a TextChunker keep its settings. Those of the estimator must then be the
        same, or be left at their defaults.
        """
        names = ("chunk_size", "chunk_overlap", "max_chunks", "chunk_selection")
        settings = {name: plain(getattr(self, name)) for name in names}
        if isinstance(inputs[0], ChunkedDocument):
            layout, defaults = inputs[0].layout, TextChunker()
            for name in names:
                cut = getattr(layout, name)
                if settings[name] not in (getattr(defaults, name), cut):
                    raise ValueError(
                        f"{name}={settings[name]!r}, but the texts were cut by a TextChunker with "
                        f"{name}={cut!r}: set it there, and leave it out of "
                        f"{type(self).__name__}."
                    )
                settings[name] = cut
        return TextChunker(
            plain(self.model_name),
            revision=plain(self.revision),
            local_files_only=plain(self.local_files_only),
            **settings,
        )

    def _check_token_pooling(self, token_pooling: str, chunker: TextChunker) -> None:
        if token_pooling == "cls" and not chunker.layout_.prefix:
            raise ValueError(
                f'token_pooling="cls" takes the special token before the text, but the tokenizer '
                f'of {self.model_name} adds none: pass token_pooling="mean".'
            )

    def _token_pooling_of(self, folder: Path, chunker: TextChunker) -> str:
        """Return how hidden states of the encoder in `folder` become embeddings."""
        if self.token_pooling != "auto":
            return plain(self.token_pooling)
        if plain(self.layers) != "last":
            return "mean_max"
        token_pooling = saved_token_pooling(folder)
        self._check_token_pooling(token_pooling, chunker)
        return token_pooling

    def _chunk(
        self, inputs: Inputs, chunker: TextChunker, name: str, first: int = 0
    ) -> NDArray[np.object_]:
        """Return the documents of texts, the first of which has the index `first` in `name`."""
        if isinstance(inputs, list):
            return chunker._cut(inputs, with_spans=False, first=first)
        theirs, ours = inputs[0].layout, chunker.layout_
        if theirs == ours:
            return np.asarray(inputs, dtype=object)
        if theirs.tokenizer_hash != ours.tokenizer_hash:
            raise ValueError(
                f"{name} was cut by a TextChunker with another tokenizer than the encoder's: give "
                f"it model_name={self.model_name!r} too."
            )
        differing = [key for key, value in vars(ours).items() if getattr(theirs, key) != value]
        settings = ", ".join(
            f"{key}={getattr(theirs, key)!r} instead of {getattr(ours, key)!r}" for key in differing
        )
        raise ValueError(
            f"{name} was cut by a TextChunker with other settings than the texts of fit, "
            f"{settings}: use the same one."
        )

    def _chunk_and_warn(self, inputs: Inputs, chunker: TextChunker) -> NDArray[np.object_]:
        documents = self._chunk(inputs, chunker, "X")
        warn_of_unknown_tokens(characters_to_warn_of(inputs, documents), self.model_name)
        return documents

    def _stretches(
        self, inputs: Inputs, chunker: TextChunker
    ) -> Iterator[tuple[slice, NDArray[np.object_]]]:
        """Yield documents, a stretch at a time with its rows; at the end, warn of unknown tokens.

        Stretches depend on the tokens alone. So they are the same for texts and for documents of
        them.
        """
        # one token is about four characters
        sizes: Any
        if isinstance(inputs, TokenStore):
            sizes = 4 * inputs.n_tokens
        else:
            sizes = [len(text) if isinstance(text, str) else 4 * text.n_tokens for text in inputs]
        characters, start, n_tokens = Characters(), 0, 0
        held: list[ChunkedDocument] = []
        for rows in stretches(sizes, STREAM_CHARACTERS):
            documents = self._chunk(inputs[rows], chunker, "X", rows.start)
            characters = characters.plus(characters_to_warn_of(inputs, documents))
            for document in documents:
                n_tokens += document.n_tokens
                if held and (len(held) == STREAM_TEXTS or n_tokens > STREAM_TOKENS):
                    yield slice(start, start + len(held)), array_of(held)
                    start, n_tokens, held = start + len(held), document.n_tokens, []
                held.append(document)
        yield slice(start, start + len(held)), array_of(held)
        warn_of_unknown_tokens(characters, self.model_name)

    def _chunk_to_train(
        self, inputs: Inputs, validation: Inputs | None, chunker: TextChunker
    ) -> tuple[NDArray[np.object_], NDArray[np.object_] | None]:
        """Chunk texts of both kinds, and warn once of unknown tokens: where they are the most."""
        documents = self._chunk(inputs, chunker, "X")
        counted, chunked = {"X": characters_to_warn_of(inputs, documents)}, None
        if validation is not None:
            chunked = self._chunk(validation, chunker, "X_val")
            counted["X_val"] = characters_to_warn_of(validation, chunked)
        name = max(counted, key=lambda name: counted[name].unknown_share)
        warn_of_unknown_tokens(counted[name], self.model_name, name)
        warn_of_empty_texts(documents)
        if self.verbose:
            warn_of_cut_texts(chunk_report(documents), chunker.max_chunks)
        return documents, chunked

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.allow_nan = self.missing == "empty"
        tags.input_tags.two_d_array = False
        return tags


def characters_to_warn_of(inputs: Inputs, documents: NDArray[np.object_]) -> Characters:
    """Return the characters of texts; TextChunker has warned of those of its documents."""
    return count_characters(documents) if isinstance(inputs, list) else Characters()


def _checked_store(store: TokenStore, name: str, needs_texts: bool) -> TokenStore:
    """Return a store, or raise ValueError if it is empty or lacks the texts that are needed."""
    if len(store) == 0:
        raise ValueError(
            f"Found array with 0 sample(s) (shape=(0,)) while a minimum of 1 is required: {name} "
            f"is empty, pass at least one text."
        )
    if needs_texts and not store.has_texts:
        raise ValueError(
            f"{name} is a token store without its texts, which a baseline and explain need: write "
            f"it with keep_texts=True, or fit with baseline=None."
        )
    return store
