"""TokenStore, a folder of chunked texts that need not fit into memory.

Files: the token ids of all texts, one after the other; where texts are cut; the texts themselves,
compressed; and an index of where each text ends in these files. They are memory-mapped, so that
processes share them. A manifest in JSON has the rules by which the texts were cut.

Invariant: a document of the store is the document that the estimators make of its text.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from sklearn_longbert._folders import absolute, check_replaceable, named_folder, written_beside
from sklearn_longbert._texts.documents import ChunkedDocument, ChunkLayout
from sklearn_longbert._texts.unknown import Characters

FORMAT = 1
MANIFEST = "token_store.json"
TOKENS, CUTS, TEXTS, INDEX = FILES = ("tokens.bin", "cuts.bin", "texts.bin", "index.bin")
# of each text: where it ends in the first three files, and its characters
COLUMNS = ("tokens", "cuts", "texts", "n", "n_unknown_tokens", "n_unknown")


class TokenStore:
    """Chunked texts in a folder, which :meth:`TextChunker.transform_to` writes.

    It takes the place of an array of documents: estimators, searches and ``train_test_split``
    accept it as `X`. Its files are memory-mapped. So a process holds the tokens that it works on,
    the processes of a search share them, and a pickle holds the name of the folder and the chosen
    rows.

    Parameters
    ----------
    folder : str or path-like
        Folder of a token store.

    Attributes
    ----------
    folder : Path
        The absolute path of the folder.
    shape : tuple of int
        The number of texts, (n_samples,).
    has_texts : bool
        Whether it keeps the texts, which a baseline and explanations need.

    Raises
    ------
    FileNotFoundError
        If the folder holds no token store.
    ValueError
        If it is damaged or has another format.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> from sklearn_longbert import TextChunker, TokenStore
    >>> lines = (f"This is the text of number {number}." for number in range(1000))
    >>> store = TextChunker().fit().transform_to(mkdtemp(), lines)
    >>> store.shape, TokenStore(store.folder)[7].text
    ((1000,), 'This is the text of number 7.')
    """

    ndim = 1
    dtype = np.dtype(object)

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = absolute(folder)
        self._rows: NDArray[np.intp] | None = None
        self._open()

    def _open(self) -> None:
        manifest = _manifest_of(self.folder)
        self._identity = manifest["identity"]
        self.layout = ChunkLayout(**manifest["layout"])
        self.has_texts = bool(manifest["has_texts"])
        self._kinds = {TOKENS: manifest["dtype"], CUTS: "<i4", TEXTS: "u1", INDEX: "<i8"}
        self._n_all = manifest["sizes"][INDEX] // (8 * len(COLUMNS))
        self._maps: dict[str, NDArray[Any]] | None = None

    def _mapped(self, name: str) -> NDArray[Any]:
        """Return a file as an array.

        Each part of a store maps the files anew. What a part has read is in the memory of the
        process only as long as the part or its documents are.
        """
        if self._maps is None:
            self._maps = {
                each: _map(self.folder / each, kind) for each, kind in self._kinds.items()
            }
        return self._maps[name]

    @property
    def shape(self) -> tuple[int]:
        """The number of texts."""
        return (self._n_all if self._rows is None else len(self._rows),)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"<TokenStore: {len(self)} texts in {self.folder}>"

    def __getitem__(self, key: Any) -> Any:
        """Return the document of an index, or a store of the texts that a slice or array names."""
        if isinstance(key, tuple) and len(key) == 2 and key[1] is Ellipsis:  # scikit-learn's form
            key = key[0]
        if self._rows is None and isinstance(key, slice):
            chosen = np.arange(*key.indices(self._n_all))
        else:
            chosen = (np.arange(self._n_all) if self._rows is None else self._rows)[key]
        if chosen.ndim == 0:
            return self._document(int(chosen))
        part = object.__new__(type(self))
        part.__dict__.update(vars(self), _rows=chosen, _maps=None)
        return part

    def __iter__(self) -> Iterator[ChunkedDocument]:
        for row in range(self._n_all) if self._rows is None else self._rows:
            yield self._document(int(row))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.object_]:
        documents = np.empty(len(self), dtype=object)
        documents[:] = list(self)
        return documents

    @property
    def n_tokens(self) -> NDArray[np.int64]:
        """Number of tokens of each text, of shape (n_samples,)."""
        # of a map that is dropped again, so that only the numbers stay in memory
        ends = _map(self.folder / INDEX, self._kinds[INDEX]).reshape(-1, len(COLUMNS))[:, 0]
        sizes = np.diff(ends, prepend=0)
        return sizes if self._rows is None else sizes[self._rows]

    def _document(self, row: int) -> ChunkedDocument:
        index = self._mapped(INDEX).reshape(-1, len(COLUMNS))
        start = index[row - 1] if row else np.zeros(len(COLUMNS), dtype=np.int64)
        end = index[row]

        def part(name: str, column: int) -> NDArray[Any]:
            return np.asarray(self._mapped(name)[start[column] : end[column]])

        text: Callable[[], str] | None = None
        if self.has_texts:
            text = partial(_decompressed, self._mapped(TEXTS), int(start[2]), int(end[2]))
        n, n_unknown_tokens, n_unknown = map(int, end[3:])
        characters = Characters(n, n_unknown_tokens, n_unknown)
        return ChunkedDocument(part(TOKENS, 0)[None], self.layout, characters, part(CUTS, 1), text)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "identity": self._identity, "rows": self._rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.folder, self._rows = Path(state["folder"]), state["rows"]
        self._open()
        if self._identity != state["identity"]:
            raise ValueError(
                f"The token store {self.folder} was replaced since this object was pickled: make "
                f"the object anew."
            )


def write_store(
    folder: str | os.PathLike[str],
    batches: Iterable[tuple[list[str], NDArray[np.object_]]],
    layout: ChunkLayout,
    highest_id: int,
    keep_texts: bool,
) -> TokenStore:
    """Write texts and their documents, a batch at a time, and return the store of them."""
    place, ours = named_folder(folder), (MANIFEST, *FILES)
    check_replaceable(place, ours)
    kind = "<u2" if highest_id < 2**16 else "<i4"
    with written_beside(place, ours) as beside:
        with ExitStack() as stack:
            files = {name: stack.enter_context((beside / name).open("wb")) for name in FILES}
            ends = np.zeros(3, dtype=np.int64)
            for texts, documents in batches:
                for text, document in zip(texts, documents, strict=True):
                    content = zlib.compress(text.encode(), 1) if keep_texts else b""
                    files[TOKENS].write(document.token_ids.astype(kind).tobytes())
                    files[CUTS].write(document.cuts.astype("<i4").tobytes())
                    files[TEXTS].write(content)
                    ends += document.n_tokens, len(document.cuts), len(content)
                    row = np.array([*ends, *document.characters[:3]], dtype="<i8")
                    files[INDEX].write(row.tobytes())
        manifest = {
            "format": FORMAT,
            "identity": os.urandom(8).hex(),
            "layout": vars(layout),
            "dtype": kind,
            "has_texts": keep_texts,
            "sizes": {name: (beside / name).stat().st_size for name in FILES},
        }
        (beside / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return TokenStore(place)


def _map(path: Path, kind: str) -> NDArray[Any]:
    if path.stat().st_size == 0:  # which cannot be mapped
        return np.empty(0, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r")


def _decompressed(content: NDArray[np.uint8], start: int, end: int) -> str:
    return zlib.decompress(content[start:end].tobytes()).decode()


def _manifest_of(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no token store: write one with TextChunker.transform_to."
        )
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        number, sizes = manifest["format"], manifest["sizes"]
        layout = manifest["layout"]
        manifest["layout"] = {**layout, **{k: tuple(layout[k]) for k in ("prefix", "suffix")}}
    except (ValueError, KeyError, TypeError) as error:
        _raise_damaged(path, repr(error))
    if number != FORMAT:
        raise ValueError(
            f"{path} has format {number!r:.20}, where this version takes {FORMAT}: write the store "
            f"anew."
        )
    for name in FILES:
        file = folder / name
        n_bytes = file.stat().st_size if file.is_file() else None
        if n_bytes != sizes.get(name):
            _raise_damaged(file, f"it has {n_bytes} bytes and not {sizes.get(name)}")
    return manifest


def _raise_damaged(path: Path, why: str) -> NoReturn:
    raise ValueError(f"{path} cannot be read, {why}: the token store is damaged, write it anew.")
