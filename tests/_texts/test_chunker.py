"""Pins that every token of a text is read, in chunks that the encoder can read.

Joining the chunks of a text without overlap gives the tokenizer's own ids; consecutive chunks
repeat exactly `chunk_overlap` tokens; only the last window reaches the end of the text. Chunks of
a text that is read whole are as few as full ones would be, and equally long, to a token, where
every place is as good. :mod:`test_cuts` has the places that are better.
"""

import itertools
import json
import pickle
import re
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_longbert import TextChunker
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, find_folder
from sklearn_longbert._texts import chunker as chunker_module
from sklearn_longbert._texts.documents import (
    CHUNK_SELECTIONS,
    ChunkedDocument,
    ChunkLayout,
    as_documents,
    select_chunks,
)

# Word pieces, byte-level pairs, and two kinds of SentencePiece.
TOKENIZERS = ["bert", "roberta", "albert", "xlm-roberta"]

SCRIPTS = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.text("абвгдежзийклмн ", max_size=40),
    st.text("東京都日本語。、 ", max_size=40),
    st.text("אבגד שלום", max_size=40),
    st.text("हिन्दी क्षि ", max_size=40),
    st.text("e\u0301o\u0308n\u0303\u0323 \u200d\ufe0f", max_size=40),
    st.sampled_from(["👩‍👩‍👧‍👦", "🇯🇵🇩🇪", "👍🏽 ", "\U0001f600" * 9]),
    st.sampled_from(
        ["", " ", "\n\t \r\n", "\u00a0\u3000", "\0", "\ufeff", "[CLS] [SEP]", "</s><s>"]
    ),
    st.builds(lambda letter, n: letter * n, st.sampled_from("axé東"), st.integers(1, 300)),
    st.text(max_size=30),  # any Unicode but surrogates
    st.lists(st.sampled_from(["the", "quick", "fox", "goodish", "news"]), max_size=80).map(
        " ".join
    ),
)
TEXTS = st.lists(SCRIPTS, max_size=4).map("".join)

ENOUGH = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def windows(n_tokens: int, body: int, overlap: int) -> list[tuple[int, int]]:
    """Slide a window over the tokens, one step at a time, until one reaches the end."""
    start, found = 0, []
    while True:
        found.append((start, min(start + body, n_tokens)))
        if start + body >= n_tokens:
            return found
        start += body - overlap


@pytest.fixture(scope="session")
def tokenizers(tiny_encoder: Callable[[str], str]) -> dict[str, tuple[str, Any]]:
    """Return the folder of each tiny encoder, and transformers' own tokenizer of it."""
    folders = {name: tiny_encoder(name) for name in TOKENIZERS}
    return {
        name: (folder, transformers.AutoTokenizer.from_pretrained(folder))
        for name, folder in folders.items()
    }


def make_layout(**changes: Any) -> ChunkLayout:
    values: dict[str, Any] = {
        "chunk_size": 6,
        "chunk_overlap": 1,
        "max_chunks": None,
        "chunk_selection": "head",
        "prefix": (101,),
        "suffix": (102,),
        "pad_id": 0,
        "tokenizer_hash": "",
    }
    return ChunkLayout(**{**values, **changes})


def make_document(n_tokens: int, **changes: Any) -> ChunkedDocument:
    tokens = np.tile(np.arange(n_tokens, dtype=np.int32), (3, 1))
    return ChunkedDocument(tokens, make_layout(**changes))


def lists(chunks: Any) -> list[list[int]]:
    return [chunk.tolist() for chunk in chunks]


# ---------------------------------------------------------------------------------------------
# Every token is read


@pytest.mark.filterwarnings("ignore:.*under unknown tokens")
@pytest.mark.parametrize("name", TOKENIZERS)
@ENOUGH
@given(text=TEXTS, data=st.data())
def test_chunks_cover_the_tokenizers_own_tokens(
    name: str, text: str, data: st.DataObject, tokenizers: dict[str, tuple[str, Any]]
) -> None:
    folder, tokenizer = tokenizers[name]
    chunk_size = data.draw(st.integers(3, 64), label="chunk_size")
    body = chunk_size - 2
    overlap = data.draw(st.integers(0, body - 1), label="chunk_overlap")
    own = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
    )
    ids = own["input_ids"]

    document = chunker(folder, chunk_size, overlap).transform([text])[0]
    chunks = lists(document.chunks())

    assert document.token_ids.tolist() == ids
    special = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    bounds = document.bounds()
    assert chunks == [special[0] + ids[start:end] + special[1] for start, end in bounds]
    assert len(chunks) == len(windows(len(ids), body, overlap))
    assert (document.n_tokens, document.n_chunks) == (len(ids), len(chunks))

    bodies = [chunk[1:-1] for chunk in chunks]
    assert max(map(len, chunks)) <= chunk_size
    joined = bodies[0] + [token for chunk in bodies[1:] for token in chunk[overlap:]]
    assert joined == ids
    for before, after in itertools.pairwise(bodies):
        assert after[:overlap] == before[len(before) - overlap :]
        assert len(after) > overlap  # no chunk lies wholly inside the one before
    assert [end for _, end in document.bounds()].count(len(ids)) == 1

    spans = document.spans.tolist()
    assert spans == [list(span) for span in own["offset_mapping"]]
    assert all(0 <= start <= end <= len(text) for start, end in spans)


_fitted: dict[tuple[str, int, int], TextChunker] = {}


def chunker(folder: str, chunk_size: int, overlap: int) -> TextChunker:
    """Return a fitted chunker; fitting one for each example would take minutes."""
    key = folder, chunk_size, overlap
    if key not in _fitted:
        _fitted[key] = TextChunker(folder, chunk_size=chunk_size, chunk_overlap=overlap).fit()
    return _fitted[key]


@pytest.mark.parametrize("n_tokens", [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 100])
@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_windows_about_the_size_of_a_chunk(n_tokens: int, overlap: int) -> None:
    full = windows(n_tokens, 4, overlap)
    document = make_document(n_tokens, chunk_overlap=overlap)
    bounds = document.bounds()
    assert document.n_chunks == len(bounds) == len(full)
    lengths = bounds[:, 1] - bounds[:, 0]
    assert max(lengths) <= 4
    assert max(lengths) - min(lengths) <= 1
    np.testing.assert_array_equal(bounds[1:, 0], bounds[:-1, 1] - overlap)
    assert (bounds[0, 0], bounds[-1, 1]) == (0, n_tokens)
    for max_chunks in range(1, len(full)):  # where it cuts, they are full
        cut = make_document(n_tokens, chunk_overlap=overlap, max_chunks=max_chunks)
        assert cut.bounds().tolist() == [list(window) for window in full[:max_chunks]]


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        (0, [[101, 0, 1, 2, 102], [101, 3, 4, 5, 102], [101, 6, 7, 8, 102]]),
        (1, [[101, 0, 1, 2, 102], [101, 2, 3, 4, 5, 102], [101, 5, 6, 7, 8, 102]]),
        (
            2,
            [
                [101, 0, 1, 2, 102],
                [101, 1, 2, 3, 4, 102],
                [101, 3, 4, 5, 6, 102],
                [101, 5, 6, 7, 8, 102],
            ],
        ),
    ],
)
def test_chunks_written_out(overlap: int, expected: list[list[int]]) -> None:
    assert lists(make_document(9, chunk_overlap=overlap).chunks()) == expected


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_chunks", [None, 1, 3])
def test_an_empty_text_is_one_chunk_of_special_tokens(
    name: str, max_chunks: int | None, tokenizers: dict[str, tuple[str, Any]]
) -> None:
    folder, tokenizer = tokenizers[name]
    document = TextChunker(folder, max_chunks=max_chunks).fit_transform([""])[0]
    assert lists(document.chunks()) == [[tokenizer.cls_token_id, tokenizer.sep_token_id]]
    assert document.n_chunks == 1
    assert document.spans.shape == (0, 2)


def test_many_texts_stay_in_order(tiny_bert: str) -> None:
    # more than are given to the tokenizer at once
    texts = [f"{'fox ' * (index % 7)}{index}" for index in range(600)]
    one_by_one = TextChunker(tiny_bert).fit()
    documents = TextChunker(tiny_bert).fit_transform(texts)
    assert documents.shape == (600,)
    for text, document in zip(texts, documents, strict=True):
        expected = one_by_one.tokenizer_.encode(text, add_special_tokens=False).ids
        assert document.token_ids.tolist() == expected


def test_truncation_and_padding_of_the_tokenizers_file_are_switched_off() -> None:
    folder = find_folder(DEFAULT_MODEL, local_files_only=True)
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert described["truncation"]["max_length"] == 128
    assert described["padding"] is not None
    long_text, short_text = "word " * 1500, "word"
    documents = TextChunker(local_files_only=True).fit_transform([long_text, short_text])
    assert documents[0].n_tokens == 1500
    assert [len(chunk) for chunk in documents[0].chunks()] == [502, 502, 502]
    assert lists(documents[1].chunks()) == [[101, 2773, 102]]


# ---------------------------------------------------------------------------------------------
# max_chunks

SELECTIONS = {
    # (n_chunks, max_chunks): by hand. "even" takes the middle of equal stretches: of 10 chunks
    # in 3 stretches of 3 1/3 these are 1 2/3, 5, 8 1/3, rounded down.
    ("head", 10, 3): [0, 1, 2],
    ("tail", 10, 3): [7, 8, 9],
    ("head_tail", 10, 1): [0],
    ("head_tail", 10, 2): [0, 9],
    ("head_tail", 10, 3): [0, 1, 9],
    ("head_tail", 10, 4): [0, 1, 8, 9],
    ("head_tail", 4, 3): [0, 1, 3],
    ("even", 10, 3): [1, 5, 8],
    ("even", 9, 3): [1, 4, 7],
    ("even", 5, 1): [2],
    ("even", 4, 2): [1, 3],
    ("even", 3, 2): [0, 2],
    ("random", 10, 3): [1, 5, 8],
}


@pytest.mark.parametrize(("case", "expected"), SELECTIONS.items(), ids=str)
def test_selections_by_hand(case: tuple[str, int, int], expected: list[int]) -> None:
    selection, n_chunks, max_chunks = case
    assert select_chunks(n_chunks, max_chunks, selection).tolist() == expected


@pytest.mark.parametrize("drawn", [False, True])
@pytest.mark.parametrize("selection", sorted(CHUNK_SELECTIONS))
@settings(max_examples=60, deadline=None, derandomize=True)
@given(n_chunks=st.integers(1, 400), max_chunks=st.none() | st.integers(1, 400))
def test_selections_keep_some_chunks_in_order(
    selection: str, drawn: bool, n_chunks: int, max_chunks: int | None
) -> None:
    random_state = np.random.RandomState(0) if drawn else None
    chosen = select_chunks(n_chunks, max_chunks, selection, random_state).tolist()
    assert len(chosen) == min(n_chunks, max_chunks or n_chunks)
    assert chosen == sorted(set(chosen))
    assert chosen[0] >= 0
    assert chosen[-1] < n_chunks
    if selection == "even" and max_chunks is not None and max_chunks < n_chunks:
        stretch = Fraction(n_chunks, max_chunks)
        middles = [stretch * index + stretch / 2 for index in range(max_chunks)]
        assert all(
            index <= middle < index + 1 for index, middle in zip(chosen, middles, strict=True)
        )


def test_documents_read_the_selected_chunks() -> None:
    cut = make_document(30, chunk_overlap=0, max_chunks=2, chunk_selection="head_tail")
    assert make_document(30, chunk_overlap=0).n_chunks == 8
    assert lists(cut.chunks()) == [[101, 0, 1, 2, 3, 102], [101, 28, 29, 102]]
    assert cut.bounds().tolist() == [[0, 4], [28, 30]]
    assert (cut.n_chunks, cut.n_tokens) == (2, 30)
    assert "30 tokens, 2 chunks" in repr(cut)


def test_random_is_drawn_anew_but_even_without_a_random_state() -> None:
    document = make_document(200, max_chunks=3, chunk_selection="random")
    even = make_document(200, max_chunks=3, chunk_selection="even")
    random_state = np.random.RandomState(0)
    draws = [lists(document.chunks(random_state)) for _ in range(30)]
    assert len({str(draw) for draw in draws}) > 20
    assert lists(document.chunks(np.random.RandomState(0))) == draws[0]
    # all chunks have their turn
    starts = {chunk[1] for draw in draws for chunk in draw}
    assert len(starts) > 40
    assert lists(document.chunks()) == lists(document.chunks()) == lists(even.chunks())


@pytest.mark.parametrize("selection", sorted(set(CHUNK_SELECTIONS) - {"random"}))
def test_only_random_draws(selection: str) -> None:
    document = make_document(200, max_chunks=3, chunk_selection=selection)
    random_state = np.random.RandomState(0)
    assert lists(document.chunks(random_state)) == lists(document.chunks())
    assert random_state.randint(10**9) == np.random.RandomState(0).randint(10**9)


# ---------------------------------------------------------------------------------------------
# What goes in and what comes out

INPUT = ["the quick brown fox", "", "Größe 東京都 👍🏽", "good " * 70]
CONTAINERS: dict[str, Callable[[list[str]], Any]] = {
    "tuple": tuple,
    "object array": lambda texts: np.array(texts, dtype=object),
    "str array": np.array,
    "StringDType array": lambda texts: np.array(texts, dtype=np.dtypes.StringDType()),
    "pandas object": lambda texts: pd.Series(texts, dtype=object, index=[9, 3, 5, 1]),
    "pandas string": lambda texts: pd.Series(texts, dtype="string"),
    "pandas default": pd.Series,
    "polars": pl.Series,
    "pyarrow": pa.array,
    "pyarrow chunked": lambda texts: pa.chunked_array([texts[:1], [], texts[1:]]),
    "pandas frame": lambda texts: pd.DataFrame({"text": texts}),
    "polars frame": lambda texts: pl.DataFrame({"text": texts}),
    "pyarrow table": lambda texts: pa.table({"text": texts}),
}


@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_same_documents(
    contain: Callable[[list[str]], Any], tiny_bert: str
) -> None:
    fitted = TextChunker(tiny_bert, chunk_overlap=5).fit(contain(INPUT))
    found, expected = fitted.transform(contain(INPUT)), fitted.transform(INPUT)
    assert found.shape == expected.shape == (4,)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
        assert lists(ours.chunks()) == lists(theirs.chunks())


def test_documents_are_compact(tiny_bert: str) -> None:
    text = "the quick brown fox " * 20_000
    document = TextChunker(tiny_bert).fit_transform([text])[0]
    assert document.n_tokens >= 80_000
    assert document.tokens.base is None  # and do not keep something larger alive
    assert document.tokens.nbytes <= 16 * document.n_tokens
    assert document.text is text
    assert len(pickle.dumps(document)) <= 16 * document.n_tokens + len(text) + 1_000


def test_documents_of_equal_length_stay_one_object_each(tiny_bert: str) -> None:
    documents = TextChunker(tiny_bert).fit_transform(["good bad", "bad good", "news film"])
    assert documents.shape == np.array(list(documents), dtype=object).shape == (3,)
    assert documents.dtype == object


def test_pickled_chunkers_cut_alike(tiny_bert: str) -> None:
    fitted = TextChunker(tiny_bert, chunk_size=16, chunk_overlap=3, max_chunks=2).fit()
    restored = pickle.loads(pickle.dumps(fitted))
    assert restored.layout_ == fitted.layout_
    for ours, theirs in zip(restored.transform(INPUT), fitted.transform(INPUT), strict=True):
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    assert restored.transform(["good " * 5_000])[0].n_tokens == 5_000


def test_pickled_documents_share_their_layout(tiny_bert: str) -> None:
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(INPUT)
    restored = pickle.loads(pickle.dumps(documents))
    assert len({id(document.layout) for document in documents}) == 1
    assert len({id(document.layout) for document in restored}) == 1
    for ours, theirs in zip(restored, documents, strict=True):
        assert ours.layout == theirs.layout
        np.testing.assert_array_equal(ours.tokens, theirs.tokens)


def test_documents_are_told_from_texts(tiny_bert: str) -> None:
    documents = TextChunker(tiny_bert).fit_transform(INPUT)
    again = as_documents(list(documents))
    assert again is not None
    assert all(ours is theirs for ours, theirs in zip(again, documents, strict=True))
    assert as_documents(INPUT) is None
    pickled = [documents[0], pickle.loads(pickle.dumps(documents[1]))]  # an equal layout
    assert as_documents(pickled) is not None
    with pytest.raises(ValueError, match=r"X at index 1 is of type str.*transform all .* or none"):
        as_documents([documents[0], "text"])
    other = TextChunker(tiny_bert, chunk_size=9).fit_transform(["good"])
    with pytest.raises(ValueError, match=r"X at index 4 was cut by another TextChunker"):
        as_documents([*documents, *other])


def test_documents_tell_their_tokenizer(tokenizers: dict[str, tuple[str, Any]]) -> None:
    hashes = {TextChunker(folder).fit().layout_.tokenizer_hash for folder, _ in tokenizers.values()}
    assert len(hashes) == len(TOKENIZERS)
    folder = tokenizers["bert"][0]
    again = [TextChunker(folder, chunk_size=size).fit().layout_.tokenizer_hash for size in (8, 9)]
    assert again[0] == again[1]
    assert again[0] in hashes


# ---------------------------------------------------------------------------------------------
# As a scikit-learn transformer


def test_fit_changes_no_parameter_and_fits_the_same_with_and_without_texts(tiny_bert: str) -> None:
    parameters = {
        "model_name": tiny_bert,
        "chunk_size": 12,
        "chunk_overlap": 2,
        "max_chunks": 3,
        "chunk_selection": "tail",
        "missing": "empty",
        "revision": None,
        "local_files_only": True,
    }
    first = TextChunker(**parameters)
    assert first.get_params() == parameters
    assert vars(first) == parameters
    assert first.fit(INPUT) is first
    assert first.get_params() == parameters
    copy = clone(first)
    assert copy.get_params() == parameters
    assert not hasattr(copy, "layout_")
    for found in (copy.fit().transform(INPUT), clone(first).fit_transform(INPUT)):
        for ours, theirs in zip(found, first.transform(INPUT), strict=True):
            assert ours.layout == theirs.layout
            np.testing.assert_array_equal(ours.tokens, theirs.tokens)


def test_a_second_fit_follows_new_parameters(tiny_bert: str) -> None:
    fitted = TextChunker(tiny_bert, chunk_size=12).fit()
    old = fitted.transform(["good " * 40])[0]
    new = fitted.set_params(chunk_size=22, chunk_overlap=1).fit().transform(["good " * 40])[0]
    assert [len(chunk) for chunk in old.chunks()] == [12, 12, 12, 12]
    assert [len(chunk) for chunk in new.chunks()] == [16, 16, 16]


def test_pandas_output_does_not_break_it(tiny_bert: str) -> None:
    # scikit-learn makes a frame of what a transformer with named features returns, and pandas
    # holds no ragged output
    fitted = TextChunker(tiny_bert)
    with config_context(transform_output="pandas"):
        documents = fitted.fit_transform(pd.Series(INPUT))
    assert isinstance(documents, np.ndarray)
    assert isinstance(documents[0], ChunkedDocument)
    assert not hasattr(fitted, "get_feature_names_out")


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_chunkers_in_threads(name: str, tokenizers: dict[str, tuple[str, Any]]) -> None:
    folder, _ = tokenizers[name]
    texts = [f"{'good bad news ' * (index % 40)}{index}" for index in range(120)]
    sizes = [5, 16, 33, 64]
    expected = {
        size: [lists(document.chunks()) for document in chunker(folder, size, 2).transform(texts)]
        for size in sizes
    }
    found: dict[int, Any] = {}
    started = threading.Barrier(len(sizes))

    def work(size: int) -> None:
        started.wait()
        for _ in range(5):
            fitted = TextChunker(folder, chunk_size=size, chunk_overlap=2).fit()
            found[size] = [lists(document.chunks()) for document in fitted.transform(texts)]
            assert found[size] == expected[size]

    threads = [threading.Thread(target=work, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


# ---------------------------------------------------------------------------------------------
# Errors


def test_chunk_size_over_the_limit(tokenizers: dict[str, tuple[str, Any]]) -> None:
    for folder, _ in tokenizers.values():
        assert TextChunker(folder, chunk_size=64).fit().chunk_size_ == 64
        with pytest.raises(ValueError, match=r"chunk_size=65 is more than .*: pass at most 64"):
            TextChunker(folder, chunk_size=65).fit()


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_no_room_beside_the_special_tokens(chunk_size: int, tiny_bert: str) -> None:
    assert TextChunker(tiny_bert, chunk_size=3).fit_transform(["good bad"])[0].n_chunks == 2
    message = rf"chunk_size={chunk_size} leaves no room .* beside 2 special .*: pass at least 3"
    with pytest.raises(ValueError, match=message):
        TextChunker(tiny_bert, chunk_size=chunk_size).fit()


@pytest.mark.parametrize(("chunk_size", "most"), [(3, 0), (10, 7), (None, 61)])
def test_overlap_too_large(chunk_size: int | None, most: int, tiny_bert: str) -> None:
    TextChunker(tiny_bert, chunk_size=chunk_size, chunk_overlap=most).fit(INPUT)
    for overlap in (most + 1, most + 2, most + 100):
        message = rf"chunk_overlap={overlap} is too large: .* must be at most {most}\."
        with pytest.raises(ValueError, match=message):
            TextChunker(tiny_bert, chunk_size=chunk_size, chunk_overlap=overlap).fit()


def test_transform_before_fit(tiny_bert: str) -> None:
    with pytest.raises(NotFittedError, match="TextChunker instance is not fitted yet"):
        TextChunker(tiny_bert).transform(INPUT)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("chunk_selection", "middle"),
        ("chunk_size", 0),
        ("chunk_size", 10.0),
        ("chunk_overlap", -1),
        ("chunk_overlap", None),
        ("max_chunks", 0),
        ("max_chunks", "all"),
        ("model_name", None),
        ("revision", 3),
        ("local_files_only", "yes"),
    ],
)
def test_bad_parameters_are_named(parameter: str, value: Any, tiny_bert: str) -> None:
    message = rf"The '{parameter}' parameter of TextChunker must be .* Got {re.escape(repr(value))}"
    with pytest.raises(ValueError, match=message):
        TextChunker(**{"model_name": tiny_bert, parameter: value}).fit()


def test_unknown_selections_name_the_known_ones(tiny_bert: str) -> None:
    with pytest.raises(ValueError, match="chunk_selection") as caught:
        TextChunker(tiny_bert, chunk_selection="middle").fit()
    for known in ("head", "tail", "head_tail", "even", "random"):
        assert f"'{known}'" in str(caught.value)


@pytest.mark.parametrize("call", ["fit", "transform", "fit_transform"])
def test_bad_texts_are_named(call: str, tiny_bert: str) -> None:
    fitted = TextChunker(tiny_bert).fit()
    with pytest.raises(ValueError, match="X at index 1 is missing"):
        getattr(fitted, call)(["good", None])
    with pytest.raises(ValueError, match="X is a single str"):
        getattr(fitted, call)("good")


def test_long_texts_are_tokenized_few_at_a_time(tiny_bert, monkeypatch):
    """What Rust holds of a text is many times its size: bounded by characters, not by texts."""
    monkeypatch.setattr(chunker_module, "TOKENIZER_BATCH", 3)
    monkeypatch.setattr(chunker_module, "TOKENIZER_CHARACTERS", 20)
    texts = ["a" * 8, "b" * 8, "c" * 8, "d" * 99, "", "e", "f", "g" * 20, "h"]
    batches = list(chunker_module._batches(texts))
    assert [len(batch) for batch in batches] == [2, 1, 1, 3, 1, 1]
    assert list(itertools.chain(*batches)) == texts
    chunker = TextChunker(tiny_bert).fit()
    for ours, text in zip(chunker.transform(texts), texts, strict=True):
        np.testing.assert_array_equal(ours.tokens, chunker.transform([text])[0].tokens)


def test_documents_without_spans_have_the_same_ids(tiny_bert):
    chunker = TextChunker(tiny_bert).fit()
    texts = ["good news", "", "Größe 東京 unknownword"]
    for ours, theirs in zip(chunker._cut(texts, False), chunker.transform(texts), strict=True):
        np.testing.assert_array_equal(ours.token_ids, theirs.token_ids)
        assert ours.tokens.nbytes == 4 * ours.n_tokens
