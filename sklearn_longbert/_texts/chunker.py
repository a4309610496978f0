"""Cut raw texts into chunks of token ids: the only module that calls a tokenizer.

Invariant: a text is tokenized once, as a whole. :mod:`sklearn_longbert._texts.cuts` chooses where
its token ids are cut into chunks.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from numbers import Integral
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin, _fit_context
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted
from tokenizers import Tokenizer

from sklearn_longbert._fit_tasks import CallbackSupportMixin, FitTask
from sklearn_longbert._plain import PlainParameters, plain
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, find_folder
from sklearn_longbert._pretrained.loading import encoder_limit, load_config, load_tokenizer
from sklearn_longbert._provenance import Versioned
from sklearn_longbert._shared_docs import with_shared_docs
from sklearn_longbert._texts.boundaries import boundary_kinds
from sklearn_longbert._texts.checks import as_column, check_texts
from sklearn_longbert._texts.documents import CHUNK_SELECTIONS, ChunkedDocument, ChunkLayout
from sklearn_longbert._texts.store import TokenStore, write_store
from sklearn_longbert._texts.stretches import STREAM_CHARACTERS, STREAM_TEXTS
from sklearn_longbert._texts.unknown import (
    Characters,
    characters_of,
    count_characters,
    warn_of_unknown_tokens,
)

DEFAULT_CHUNK_SIZE = 512  # if the encoder can encode more at once, or states no limit
# Most texts and characters that the tokenizer gets at once. They bound memory and cost no speed.
TOKENIZER_BATCH, TOKENIZER_CHARACTERS = 256, 2**22
PROBE_WORDS = ("a", "the", "0", ".", "に")


@with_shared_docs()
class TextChunker(CallbackSupportMixin, TransformerMixin, PlainParameters, Versioned):
    """Cut texts of any length into chunks of tokens that an encoder can encode at once.

    Each text is tokenized once, as a whole. Its token ids are cut into chunks, and each chunk
    gets the encoder's own special tokens. A text whose chunks are all kept is cut into the fewest
    possible chunks, about equally long: a short last chunk would count as much in the pooled
    prediction as the others. Chunks end where a paragraph ends, else a sentence, else a word. A
    word is cut only if there is no other way to so few chunks. The estimators of this package
    accept the result in place of texts. A pipeline with ``memory`` tokenizes the training texts of
    a fold once for all candidates of a grid search. Texts that are chunked before the search are
    not tokenized in it at all.

    Parameters
    ----------
    {parameters}

    Attributes
    ----------
    chunk_size_ : int
        The number of tokens of a full chunk, special tokens included.
    layout_ : ChunkLayout
        The rules by which texts are cut, shared by all documents of this chunker.
    tokenizer_ : tokenizers.Tokenizer
        A private copy of the encoder's tokenizer, which neither truncates nor pads.

    See Also
    --------
    LongBertClassifier : Takes texts or what this transformer returns.

    Examples
    --------
    >>> from sklearn_longbert import TextChunker
    >>> documents = TextChunker(chunk_size=8).fit_transform(["one two three four five six seven"])
    >>> documents
    array([<ChunkedDocument: 7 tokens, 2 chunks>], dtype=object)
    >>> [chunk.tolist() for chunk in documents[0].chunks()]
    [[101, 2028, 2048, 2093, 102], [101, 2176, 2274, 2416, 2698, 102]]
    """

    _parameter_constraints = {
        "model_name": [str, PathLike],
        "chunk_size": [Interval(Integral, 1, None, closed="left"), None],
        "chunk_overlap": [Interval(Integral, 0, None, closed="left")],
        "max_chunks": [Interval(Integral, 1, None, closed="left"), None],
        "chunk_selection": [StrOptions(set(CHUNK_SELECTIONS))],
        "revision": [str, None],
        "local_files_only": ["boolean"],
        "missing": [StrOptions({"error", "empty"})],
    }

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        missing: str = "error",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self.model_name = model_name
        self.chunk_size = chunk_size
        self.chunk_overlap = chunk_overlap
        self.max_chunks = max_chunks
        self.chunk_selection = chunk_selection
        self.missing = missing
        self.revision = revision
        self.local_files_only = local_files_only

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: ArrayLike | None = None, y: object = None) -> Self:
        """Load the tokenizer; nothing is learned from the texts.

        Parameters
        ----------
        X : array-like of shape (n_samples,), default=None
            Texts, which are checked if given.
        y : object, default=None
            Ignored.

        Returns
        -------
        self : TextChunker

        Raises
        ------
        ValueError
            If the chunks do not fit the encoder, the overlap does not fit the chunks, the
            tokenizer cannot be loaded, or `X` is not an array of texts.
        OSError
            If the Hub is needed and cannot be reached.
        """
        task = FitTask.of(self, X, y)
        if X is not None:
            self._check_input(X)
        self._load()
        task.end(dict)
        return self

    def fit_transform(self, X: ArrayLike, y: object = None) -> NDArray[np.object_]:
        """Load the tokenizer and cut texts into chunks.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts.
        y : object, default=None
            Ignored.

        Returns
        -------
        documents : ndarray of shape (n_samples,), dtype object
            The documents that :meth:`transform` returns.
        """
        return self.fit(None, y).transform(X)

    def transform(self, X: ArrayLike) -> NDArray[np.object_]:
        """Cut texts into chunks.

        Parameters
        ----------
        X : array-like of shape (n_samples,)
            Texts: a list, tuple, NumPy array, or pandas, polars or pyarrow column of str.

        Returns
        -------
        documents : ndarray of shape (n_samples,), dtype object
            One ChunkedDocument per text, with ``text``, ``token_ids``, ``spans`` (characters of
            each token), ``n_tokens``, ``n_chunks`` and ``chunks()``. It takes 12 bytes per token
            beside the text.

        Raises
        ------
        ValueError, TypeError
            If `X` is not an array of texts; the message names the index.
        """
        check_is_fitted(self)
        documents = self._cut(self._check_input(X), with_spans=True)
        warn_of_unknown_tokens(count_characters(documents), self.model_name)
        return documents

    def transform_to(
        self, folder: str | PathLike[str], X: Iterable[str], keep_texts: bool = True
    ) -> TokenStore:
        """Cut texts into chunks, and write them into a folder, a stretch at a time.

        So the texts need not fit into memory. The store is given to the estimators in place of the
        texts.

        Parameters
        ----------
        folder : str or path-like
            Folder that does not exist, is empty, or holds a token store, which is replaced.
        X : iterable of str
            Texts: an array-like as in :meth:`transform`, or an iterator, such as a generator that
            reads files.
        keep_texts : bool, default=True
            Whether to keep the texts, compressed. A `baseline` needs them, and so do explanations.

        Returns
        -------
        store : TokenStore
            It takes two or four bytes a token and 48 bytes a text, beside the compressed texts.

        Raises
        ------
        ValueError, TypeError
            If an element is not a text, the message names its index, or there is none.
        FileExistsError
            If the folder holds anything else.
        OSError
            If the folder cannot be written. What was in it before is unchanged.

        Examples
        --------
        >>> from tempfile import mkdtemp
        >>> from sklearn_longbert import TextChunker
        >>> lines = (f"This is the text of number {number}." for number in range(1000))
        >>> store = TextChunker().fit().transform_to(mkdtemp(), lines)
        >>> len(store), store[7]
        (1000, <ChunkedDocument: 8 tokens, 1 chunks>)
        """
        check_is_fitted(self)
        characters = Characters()

        def batches() -> Iterator[tuple[list[str], NDArray[np.object_]]]:
            nonlocal characters
            for first, batch in _stretches_of(X):
                texts = check_texts(batch, missing=self.missing, first=first)
                documents = self._cut(texts, with_spans=False, first=first)
                characters = characters.plus(count_characters(documents))
                yield texts, documents

        highest = max(self.tokenizer_.get_vocab().values())  # ids may have gaps
        store = write_store(folder, batches(), self.layout_, highest, keep_texts)
        warn_of_unknown_tokens(characters, self.model_name)
        return store

    def _cut(self, texts: list[str], with_spans: bool, first: int = 0) -> NDArray[np.object_]:
        """Cut checked texts; documents without spans and text take a quarter of the memory.

        Parameters
        ----------
        texts : list of str
        with_spans : bool
            Whether documents hold their text and the character positions of their tokens.
        first : int, default=0
            Index of the first text, for messages.

        Returns
        -------
        documents : ndarray of shape (n_samples,), dtype object
        """
        documents = np.empty(len(texts), dtype=object)
        start = 0
        longest_bare = -1 if with_spans else self.layout_.body_size
        for batch in _batches(texts):
            tokens = list(_tokenize(self.tokenizer_, batch, longest_bare))
            characters = characters_of(self.tokenizer_, batch, [of_text[0] for of_text in tokens])
            for index, of_text in enumerate(zip(batch, tokens, characters, strict=True), start):
                documents[index] = self._document(*of_text, with_spans)
            start += len(batch)
        self._check_not_empty(documents, first)
        return documents

    def _document(
        self, text: str, tokens: NDArray[np.int32], characters: Characters, with_spans: bool
    ) -> ChunkedDocument:
        cuts = None
        if tokens.shape[1] > self.layout_.body_size:
            cuts = self.layout_.cuts(boundary_kinds(text, tokens[1:].T))
            tokens = tokens if with_spans else tokens[:1].copy()
        known = text if with_spans else None
        return ChunkedDocument(tokens, self.layout_, characters, cuts, known)

    def _check_input(self, X: ArrayLike) -> list[str]:
        return check_texts(X, missing=self.missing)

    def _load(self) -> None:
        folder = find_folder(self.model_name, self.revision, self.local_files_only)
        config = load_config(folder)
        tokenizer = load_tokenizer(folder, config)
        # It is copied, because every call of transformers' wrapper changes the shared backend.
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        pad_id = tokenizer.pad_token_id
        if pad_id is None:
            pad_id = getattr(config, "pad_token_id", None) or 0
        self._use_tokenizer(backend, config, pad_id, folder)

    def _use_tokenizer(self, backend: Tokenizer, config: Any, pad_id: int, folder: Path) -> None:
        """Take over this tokenizer, which is changed in place, and set the layout of chunks."""
        backend.no_truncation()
        backend.no_padding()
        prefix, suffix = _probe_special_tokens(backend, folder)
        self.tokenizer_ = backend
        self.chunk_size_ = self._resolve_chunk_size(encoder_limit(config))
        self._check_overlap(len(prefix) + len(suffix))
        self.layout_ = ChunkLayout(
            chunk_size=self.chunk_size_,
            chunk_overlap=int(self.chunk_overlap),
            max_chunks=None if self.max_chunks is None else int(self.max_chunks),
            chunk_selection=plain(self.chunk_selection),
            prefix=prefix,
            suffix=suffix,
            pad_id=pad_id,
            tokenizer_hash=hashlib.sha256(backend.to_str().encode()).hexdigest(),
        )

    def _resolve_chunk_size(self, limit: int | None) -> int:
        if self.chunk_size is None:
            return min(limit or DEFAULT_CHUNK_SIZE, DEFAULT_CHUNK_SIZE)
        if limit is not None and self.chunk_size > limit:
            raise ValueError(
                f"chunk_size={self.chunk_size} is more than {self.model_name} can take: pass at "
                f"most {limit} (special tokens included), or None."
            )
        return int(self.chunk_size)

    def _check_overlap(self, n_special: int) -> None:
        body_size = self.chunk_size_ - n_special
        if body_size < 1:
            raise ValueError(
                f"chunk_size={self.chunk_size_} leaves no room for text beside {n_special} special "
                f"tokens: pass at least {n_special + 1}."
            )
        if self.chunk_overlap >= body_size:
            raise ValueError(
                f"chunk_overlap={self.chunk_overlap} is too large: a chunk of {self.chunk_size_} "
                f"tokens holds {body_size} of the text beside {n_special} special tokens, so "
                f"chunk_overlap must be at most {body_size - 1}."
            )

    def _check_not_empty(self, documents: NDArray[np.object_], first: int) -> None:
        if self.layout_.prefix or self.layout_.suffix:
            return
        for index, document in enumerate(documents, first):
            if document.n_tokens == 0:
                raise ValueError(
                    f"X at index {index} has no tokens, and this tokenizer adds no special ones: "
                    f"drop the text."
                )

    def __getstate__(self) -> dict[str, Any]:
        """Keep the tokenizer as JSON text, and the layout as a dict."""
        state = super().__getstate__()
        if "tokenizer_" in state:
            state["tokenizer_"] = self.tokenizer_.to_str()
            state["layout_"] = dict(vars(self.layout_))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        if "tokenizer_" in state:
            state["tokenizer_"] = Tokenizer.from_str(state["tokenizer_"])
            state["layout_"] = ChunkLayout(**state["layout_"])
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.allow_nan = self.missing == "empty"
        tags.input_tags.two_d_array = False
        tags.transformer_tags.preserves_dtype = []  # the output holds documents
        return tags


def _stretches_of(X: Any) -> Iterator[tuple[int, list[Any]]]:
    """Yield elements of an iterable, as many as are chunked at once, with the index of the first.

    An empty iterable has one empty stretch.
    """
    if isinstance(X, str | bytes) or hasattr(X, "__len__") or not isinstance(X, Iterable):
        X = as_column(X).tolist()
    first, n_characters = 0, 0
    batch: list[Any] = []
    for element in X:
        size = len(element) if isinstance(element, str) else 0
        if batch and (len(batch) == STREAM_TEXTS or n_characters + size > STREAM_CHARACTERS):
            yield first, batch
            first, n_characters, batch = first + len(batch), 0, []
        batch.append(element)
        n_characters += size
    yield first, batch


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    n_characters = 0
    for text in texts:
        n_characters += len(text)
        if batch and (len(batch) == TOKENIZER_BATCH or n_characters > TOKENIZER_CHARACTERS):
            yield batch
            batch, n_characters = [], len(text)
        batch.append(text)
    yield batch


def _tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], longest_bare: int
) -> Iterator[NDArray[np.int32]]:
    """Yield ``ChunkedDocument.tokens`` of each text.

    Texts of at most `longest_bare` tokens come without character positions. If a batch seems to
    hold no others, it is tokenized without them, which takes less time.
    """
    seems_bare = max(map(len, texts), default=0) <= longest_bare
    if seems_bare:
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    if not seems_bare or max(map(len, encodings), default=0) > longest_bare:
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    for encoding in encodings:
        if len(encoding) <= longest_bare:
            yield np.array([encoding.ids], dtype=np.int32)
            continue
        tokens = np.empty((3, len(encoding)), dtype=np.int32)
        tokens[0] = encoding.ids
        flat = chain.from_iterable(encoding.offsets)
        tokens[1:] = np.fromiter(flat, np.int32, 2 * len(encoding)).reshape(-1, 2).T
        yield tokens


def _probe_special_tokens(
    tokenizer: Tokenizer, folder: Path
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the special tokens that the tokenizer puts before and after a text."""
    for word in PROBE_WORDS:
        bare = tokenizer.encode(word, add_special_tokens=False).ids
        full = tokenizer.encode(word, add_special_tokens=True).ids
        for start in range(len(full) - len(bare) + 1):
            if bare and full[start : start + len(bare)] == bare:
                return tuple(full[:start]), tuple(full[start + len(bare) :])
    raise ValueError(
        f"The tokenizer in {folder} has no token for any of {PROBE_WORDS}, so its special tokens "
        f"cannot be found: check that its vocabulary is complete."
    )
