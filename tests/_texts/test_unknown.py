"""Pins that text which a tokenizer does not know is counted, and warned of once."""

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
)
from sklearn_longbert._texts import chunker as chunker_module
from sklearn_longbert._texts.unknown import Characters, count_characters, unknown_token_id

SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 32,
    "max_epochs": 1,
    "random_state": 0,
    "device": "cpu",
}
THAI = "ภาษาไทย" * 6  # 42 characters

# text: unknown tokens and the characters under them, by BERT's tokenizer
CASES = {
    "known": ("the quick brown fox", 0, 0),
    "empty": ("", 0, 0),
    "word with emoji": ("good😍 story", 1, 5),
    "emoji": ("good 😍 😡", 2, 2),
    "Thai": (THAI, 1, 42),
    "base64": ("the " + "abcd" * 26 + " fox", 1, 104),
    "Devanagari between": ("the हिन्दी fox", 1, 6),
}


@pytest.mark.parametrize("with_spans", [False, True])
@pytest.mark.parametrize(("text", "n_tokens", "n_characters"), CASES.values(), ids=CASES)
def test_counts_by_hand(
    text: str, n_tokens: int, n_characters: int, with_spans: bool, tiny_bert: str
) -> None:
    chunker = TextChunker(tiny_bert).fit()
    (document,) = chunker._cut([text], with_spans=with_spans)
    counted = document.characters
    assert (counted.n, counted.n_unknown_tokens, counted.n_unknown) == (
        len(text),
        n_tokens,
        n_characters,
    )
    assert pickle.loads(pickle.dumps(document)).characters == counted


@pytest.mark.parametrize("architecture", ["xlm-roberta", "albert", "deberta-v2", "mpnet"])
def test_every_kind_of_vocabulary(architecture: str, tiny_encoder: Callable[[str], str]) -> None:
    chunker = TextChunker(tiny_encoder(architecture)).fit()
    texts = ["the quick fox", "fox " + THAI, "fox 😍"]
    total = count_characters(chunker._cut(texts, with_spans=True))
    assert total.n_unknown_tokens == 2
    assert total.n_unknown == 43
    assert total.example == THAI[:40]


@pytest.mark.parametrize("architecture", ["roberta", "modernbert"])
def test_bytes_know_every_character(architecture: str, tiny_encoder: Callable[[str], str]) -> None:
    chunker = TextChunker(tiny_encoder(architecture)).fit()
    assert unknown_token_id(chunker.tokenizer_) is None
    assert count_characters(chunker.transform([THAI, "😍"])).n_unknown == 0


def test_known_texts_are_tokenized_once(tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chunker, seen = TextChunker(tiny_bert).fit(), []

    class Spy:
        """A tokenizer that tells which texts get positions."""

        def __getattr__(self, name: str) -> Any:
            return getattr(chunker_tokenizer, name)

        def encode_batch(self, texts: list[str], **settings: Any) -> Any:
            seen.extend(texts)
            return chunker_tokenizer.encode_batch(texts, **settings)

    chunker_tokenizer = chunker.tokenizer_
    monkeypatch.setattr(chunker, "tokenizer_", Spy())
    assert chunker_module.TOKENIZER_BATCH > 3
    chunker._cut(["the fox", "good 😍", "the dog"], with_spans=False)
    assert seen == ["good 😍"]


def test_sums_and_examples() -> None:
    total = Characters(10, 1, 4, "abcd").plus(Characters(30, 2, 6, "xyz"))
    assert total == Characters(40, 3, 10, "abcd")
    assert total.unknown_share == 0.25
    assert Characters().unknown_share == 0.0


def test_report(tiny_bert: str) -> None:
    known = ["good story " * 9, "bad news " * 9]
    estimator = LongBertClassifier(tiny_bert, **SETTINGS).fit(known, [0, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a report warns of nothing
        report = estimator.chunk_report(["good 😍", "bad", THAI])
    assert report["n_unknown_tokens"] == 2
    assert report["unknown_share"] == pytest.approx(43 / 51)
    assert estimator.chunk_report_["unknown_share"] == 0.0


WARNING = r"84\.3% of the characters of X are under unknown tokens of .*, such as 'ภา.*multilingual"
UNKNOWN = ["good 😍", "bad", THAI]


def test_calls_that_warn_once(tiny_bert: str) -> None:
    classifier = LongBertClassifier(tiny_bert, **SETTINGS)
    regressor = LongBertRegressor(tiny_bert, **SETTINGS)
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32)
    calls: dict[str, Callable[[Any], Any]] = {
        "fit": lambda X: classifier.fit(X, [0, 1, 0]),
        "predict": classifier.predict,
        "predict_proba": classifier.predict_proba,
        "score": lambda X: classifier.score(X, [0, 1, 0]),
        "fit of a regressor": lambda X: regressor.fit(X, [0.0, 1.0, 2.0]),
        "predict of a regressor": regressor.predict,
        "partial_fit": lambda X: regressor.partial_fit(X, [0.0, 1.0, 2.0]),
        "vectorizer": vectorizer.fit().transform,
    }
    for name, call in calls.items():
        with pytest.warns(UserWarning, match=WARNING) as caught:
            call(UNKNOWN)
        assert len(caught) == 1, name


def test_a_small_share_is_no_warning(tiny_bert: str) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32).fit()
    assert np.isfinite(vectorizer.transform(["good story " * 9 + "😍"])).all()


def test_stretches_of_a_vectorizer_warn_once(
    tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sklearn_longbert._texts.reader.STREAM_CHARACTERS", 10)
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=32).fit()
    with pytest.warns(UserWarning, match=WARNING) as caught:
        vectorizer.transform(UNKNOWN)
    assert len(caught) == 1


def test_validation_texts(tiny_bert: str) -> None:
    """A fit warns once, of those texts of which it knows less."""
    known, half = ["good story " * 9, "bad news " * 9, "good"], ["good 😍 ", "bad news " * 9, "a"]
    chunked = TextChunker(tiny_bert, chunk_size=32).fit().transform
    estimators: list[Any] = [
        LongBertClassifier(tiny_bert, **SETTINGS),
        LongBertClassifier(tiny_bert, early_stopping=True, **SETTINGS),
        LongBertRegressor(tiny_bert, **SETTINGS),
    ]
    for estimator in estimators:
        for X in (known, half):
            with pytest.warns(UserWarning, match=WARNING.replace("of X", "of X_val")) as caught:
                estimator.fit(X, [0, 1, 0], X_val=UNKNOWN, y_val=[0, 1, 0])
            assert len(caught) == 1
    with pytest.warns(UserWarning, match=WARNING) as caught:
        estimators[0].fit(UNKNOWN, [0, 1, 0], X_val=chunked(known), y_val=[0, 1, 0])
    assert len(caught) == 1


def test_a_chunker_alone(tiny_bert: str) -> None:
    chunker = TextChunker(tiny_bert, chunk_size=32)
    for call in (chunker.fit_transform, chunker.transform):
        with pytest.warns(UserWarning, match=WARNING) as caught:
            call(UNKNOWN)
        assert len(caught) == 1
        call(["good story " * 9])


def test_a_pipeline_warns_once(tiny_bert: str) -> None:
    """Documents are warned of where they are chunked, and not again where they are read."""
    for estimator in (LongBertClassifier(tiny_bert, **SETTINGS), LongBertVectorizer(tiny_bert)):
        model = make_pipeline(TextChunker(tiny_bert, chunk_size=32), estimator)
        calls: list[Any] = [partial(model.fit, UNKNOWN, [0, 1, 0])]
        calls.append(partial(getattr(model, "predict", None) or model.transform, UNKNOWN))
        for call in calls:
            with pytest.warns(UserWarning, match=WARNING) as caught:
                call()
            assert len(caught) == 1
