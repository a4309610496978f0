"""A token store stands for its texts, to the last bit, and keeps them out of memory."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.utils import indexable
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
    TokenStore,
)
from sklearn_longbert._texts import chunker as chunker_module
from sklearn_longbert._texts import store as store_module

WORDS = ["good", "bad", "news", "story", "world", "time", "sport", "Größe", "東京"]
TEXTS = [" ".join(WORDS[n % 9 :] + WORDS[: n % 5]) + " ." for n in range(19)] + [""]
LABELS = np.arange(20) % 2
CHUNK = {"chunk_size": 8}


@pytest.fixture(scope="module")
def chunker(tiny_bert: str) -> TextChunker:
    return TextChunker(tiny_bert, **CHUNK).fit()


@pytest.fixture
def store(chunker: TextChunker, tmp_path: Path) -> TokenStore:
    return chunker.transform_to(tmp_path / "store", iter(TEXTS))


@pytest.fixture
def classifier(tiny_bert: str) -> Callable[..., LongBertClassifier]:
    settings = {"max_epochs": 1, "batch_size": 4, "learning_rate": 1e-2, "random_state": 0}
    return partial(LongBertClassifier, tiny_bert, **CHUNK, **settings)


text = st.lists(st.sampled_from([*WORDS, "\n\n", "."]), max_size=40).map(" ".join)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    texts=st.lists(text, min_size=1, max_size=8),
    max_chunks=st.sampled_from([None, 2]),
    keep=st.booleans(),
)
def test_documents_are_those_of_the_texts(texts, max_chunks, keep, tiny_bert, tmp_path) -> None:
    chunker = TextChunker(tiny_bert, chunk_size=6, chunk_overlap=1, max_chunks=max_chunks).fit()
    store = chunker.transform_to(tmp_path / "store", iter(texts), keep_texts=keep)
    documents = chunker.transform(texts)
    assert len(store) == len(texts)
    assert store.has_texts == keep
    assert store.n_tokens.tolist() == [document.n_tokens for document in documents]
    for ours, theirs in zip(store, documents, strict=True):
        assert [c.tolist() for c in ours.chunks()] == [c.tolist() for c in theirs.chunks()]
        assert ours.cuts.tolist() == theirs.cuts.tolist()
        assert ours.characters[:3] == theirs.characters[:3]
        assert ours.layout == theirs.layout
        assert ours.text == (theirs.text if keep else None)


def test_it_is_indexed_as_an_array(store: TokenStore) -> None:
    everything = np.array(TEXTS, dtype=object)
    keys: list[Any] = [slice(3, 9), slice(None, None, -2), [4, 4, 0], np.arange(20) % 3 == 0]
    keys += [np.array([7]), [-1, 2]]
    for key in keys:
        assert [document.text for document in store[key]] == everything[key].tolist()
        assert store[key].n_tokens.tolist() == [document.n_tokens for document in store[key]]
        again = store[key][::-1][:2]
        assert [document.text for document in again] == everything[key][::-1][:2].tolist()
    assert store[5].text == store[np.int64(5)].text == TEXTS[5]
    assert store[-1].text == TEXTS[-1]
    with pytest.raises(IndexError):
        store[20]
    assert indexable(store)[0] is store
    train, test = train_test_split(store, random_state=0)
    assert sorted(document.text for part in (train, test) for document in part) == sorted(TEXTS)
    assert isinstance(train, TokenStore)
    assert np.asarray(store[2:4]).shape == store[2:4].shape == (2,)


def test_a_pickle_holds_a_name_and_rows(store: TokenStore, chunker: TextChunker) -> None:
    part = store[[3, 8, 5]]
    assert len(pickle.dumps(part)) < 1000
    again = pickle.loads(pickle.dumps(part))
    assert [document.text for document in again] == [TEXTS[3], TEXTS[8], TEXTS[5]]
    content = pickle.dumps(store)
    chunker.transform_to(store.folder, TEXTS[:4])
    with pytest.raises(ValueError, match="was replaced since this object was pickled"):
        pickle.loads(content)


MODELS: dict[str, dict[str, Any]] = {
    "words": {},
    "encoder alone": {"baseline": None, "layers": "last"},
    "early stopping": {"early_stopping": True, "validation_fraction": 0.3, "baseline": None},
    "random chunks": {"max_chunks": 1, "chunk_selection": "random", "baseline": None},
    "frozen": {"freeze_encoder": True, "baseline": None},
}


@pytest.mark.parametrize("name", MODELS)
def test_fits_and_predictions_are_equal(name, classifier, tiny_bert, tmp_path) -> None:
    model, other = classifier(**MODELS[name]), classifier(**MODELS[name])
    names = ("max_chunks", "chunk_selection")
    cut = {key: value for key, value in MODELS[name].items() if key in names}
    chunker = TextChunker(tiny_bert, **CHUNK, **cut).fit()
    keep = model.baseline is not None
    store = chunker.transform_to(tmp_path / "store", TEXTS, keep_texts=keep)
    model.fit(TEXTS, LABELS)
    other.fit(store, LABELS)
    for X in (TEXTS, store):
        np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(TEXTS))
    np.testing.assert_array_equal(other.predict(store[::3]), model.predict(TEXTS[::3]))
    assert other.chunk_report(store) == model.chunk_report(TEXTS)
    assert other.chunk_report_ == model.chunk_report_


def test_explanations_and_embeddings_are_equal(store, classifier, tiny_bert) -> None:
    model = classifier().fit(TEXTS, LABELS)
    for ours, theirs in zip(model.explain(store[:3]), model.explain(TEXTS[:3]), strict=True):
        assert ours.passages == theirs.passages
        np.testing.assert_array_equal(ours.contributions, theirs.contributions)
    vectorizer = LongBertVectorizer(tiny_bert, **CHUNK)
    np.testing.assert_array_equal(vectorizer.fit_transform(store), vectorizer.fit_transform(TEXTS))


def test_a_regressor_with_weights(store, tiny_bert) -> None:
    model = partial(LongBertRegressor, tiny_bert, **CHUNK, max_epochs=1, random_state=0)
    y, weights = np.linspace(-1, 1, 20), np.arange(20) % 4
    expected = model().fit(TEXTS, y, sample_weight=weights).predict(TEXTS)
    found = model().fit(store, y, sample_weight=weights, X_val=store[:4], y_val=y[:4])
    again = model().fit(TEXTS, y, sample_weight=weights, X_val=TEXTS[:4], y_val=y[:4])
    np.testing.assert_array_equal(found.predict(store), again.predict(TEXTS))
    assert expected.shape == (20,)


def test_searches_are_equal(store, classifier) -> None:
    model = classifier(baseline=None, layers="last", freeze_encoder=True)
    grid = {"pooling": ["mean", "max"]}
    expected = GridSearchCV(model, grid, cv=2, scoring="neg_log_loss").fit(TEXTS, LABELS)
    search = GridSearchCV(model, grid, cv=2, scoring="neg_log_loss", n_jobs=2).fit(store, LABELS)
    for key in ("mean_test_score", "std_test_score"):
        np.testing.assert_array_equal(search.cv_results_[key], expected.cv_results_[key])


def test_any_iterable_of_texts(chunker: TextChunker, tmp_path: Path, monkeypatch: Any) -> None:
    held = []
    write = chunker_module.write_store

    def record(folder: Any, batches: Iterator[Any], *arguments: Any) -> TokenStore:
        return write(folder, (held.append(len(b[0])) or b for b in batches), *arguments)

    monkeypatch.setattr(chunker_module, "write_store", record)
    monkeypatch.setattr(chunker_module, "STREAM_TEXTS", 6)
    expected = [document.token_ids.tolist() for document in chunker.transform(TEXTS)]
    inputs = [TEXTS, tuple(TEXTS), iter(TEXTS), (text for text in TEXTS), pd.Series(TEXTS)]
    inputs += [np.array(TEXTS), pd.DataFrame({"text": TEXTS}), dict.fromkeys(range(20))]
    inputs[-1] = map(str, TEXTS)
    for number, X in enumerate(inputs):
        store = chunker.transform_to(tmp_path / str(number), X)
        assert [document.token_ids.tolist() for document in store] == expected
        assert held == [6, 6, 6, 2]
        held.clear()


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "a number": (iter(["good"] * 7 + [3]), TypeError, "X at index 7 is of type int"),
    "a missing text": (iter(["good", None]), ValueError, "X at index 1 is missing"),
    "rows": (iter([{"text": "good"}]), TypeError, "X at index 0 is of type dict"),
    "nothing": (iter([]), ValueError, "0 sample"),
    "an empty list": ([], ValueError, "0 sample"),
    "one text": ("good", ValueError, "single str"),
    "no iterable": (3, TypeError, "X is a int"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_text_is_named(name, chunker, tmp_path, monkeypatch) -> None:
    X, error, message = WRONG[name]
    monkeypatch.setattr(chunker_module, "STREAM_TEXTS", 3)
    with pytest.raises(error, match=message):
        chunker.transform_to(tmp_path / "store", X)
    assert list(tmp_path.iterdir()) == []


def test_folders(store: TokenStore, chunker: TextChunker, tmp_path: Path) -> None:
    chunker.transform_to(store.folder, TEXTS[:3])
    assert len(TokenStore(store.folder)) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis"):
        chunker.transform_to(tmp_path / "mine", TEXTS)
    with pytest.raises(FileNotFoundError, match="holds no token store"):
        TokenStore(tmp_path / "mine")


@pytest.mark.parametrize("name", [*store_module.FILES, store_module.MANIFEST])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damage_is_named(name, damage, store: TokenStore) -> None:
    path = store.folder / name
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 3)
    else:
        path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=f"{name}|no token store"):
        TokenStore(store.folder)


def test_another_format_is_named(store: TokenStore) -> None:
    path = store.folder / store_module.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(ValueError, match="has format 2"):
        TokenStore(store.folder)


def test_what_needs_texts_says_so(chunker, classifier, tmp_path) -> None:
    bare = chunker.transform_to(tmp_path / "store", TEXTS, keep_texts=False)
    with pytest.raises(ValueError, match=r"store without its texts.*keep_texts=True"):
        classifier().fit(bare, LABELS)
    fitted = classifier(baseline=None).fit(bare, LABELS)
    with pytest.raises(ValueError, match="store without its texts"):
        fitted.explain(bare)
    with pytest.raises(ValueError, match="0 sample"):
        fitted.predict(bare[:0])


def test_another_chunker_is_refused(store, classifier) -> None:
    with pytest.raises(ValueError, match="chunk_size=9"):
        classifier(chunk_size=9).fit(store, LABELS)
    fitted = classifier(chunk_size=6).fit(TEXTS, LABELS)
    for method in (fitted.predict, fitted.explain):
        with pytest.raises(ValueError, match="other settings"):
            method(store)


def test_ids_beyond_two_bytes(chunker: TextChunker, tmp_path: Path, monkeypatch: Any) -> None:
    """A vocabulary of few entries may have high ids."""
    words = Tokenizer(WordLevel({"[UNK]": 0, "good": 65535, "bad": 70000}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    monkeypatch.setattr(chunker, "tokenizer_", words)
    (document,) = chunker.transform_to(tmp_path / "store", ["good bad"])
    assert document.token_ids.tolist() == [65535, 70000]
