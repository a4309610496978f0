"""Pins LongBertVectorizer: embeddings by a plain computation, and scikit-learn's tools."""

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from tiny import save_tiny_encoder

from sklearn_longbert import LongBertVectorizer, TextChunker, _vectorizer
from sklearn_longbert._texts import reader as reader_module

TEXTS = ["good", "bad news " * 70, "", "the quick brown fox story " * 25, "sport match " * 9]
SETTINGS: dict[str, Any] = {"chunk_size": 16, "precision": "float32", "device": "cpu"}


@pytest.fixture
def vectorizer(tiny_bert: str) -> LongBertVectorizer:
    return LongBertVectorizer(tiny_bert, **SETTINGS)


@pytest.mark.parametrize("token_pooling", ["mean", "cls"])
@pytest.mark.parametrize("norm", ["l2", None])
def test_is_the_mean_of_the_chunks(
    vectorizer: LongBertVectorizer, token_pooling: str, norm: str | None
) -> None:
    """Each chunk by itself, without padding or packing, by hand."""
    vectorizer.set_params(token_pooling=token_pooling, norm=norm).fit()
    encoder = vectorizer.encoder_.encoder
    embeddings = vectorizer.transform(TEXTS)
    for document, ours in zip(vectorizer.chunker_.transform(TEXTS), embeddings, strict=True):
        rows = []
        for chunk in document.chunks():
            with torch.no_grad():
                states = encoder(torch.from_numpy(chunk.astype(np.int64))[None])[0][0]
            rows.append(states.mean(0) if token_pooling == "mean" else states[0])
        expected = torch.stack(rows).mean(0).numpy()
        if norm:
            expected /= np.sqrt((expected**2).sum())
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    assert embeddings.dtype == np.float32


def test_streams_in_stretches(
    vectorizer: LongBertVectorizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = vectorizer.fit_transform(TEXTS * 3)
    sizes = []
    embed = _vectorizer.document_embeddings

    def record(network: Any, documents: Any, passes: Any) -> Any:
        sizes.append(len(documents))
        return embed(network, documents, passes)

    monkeypatch.setattr(_vectorizer, "document_embeddings", record)
    monkeypatch.setattr(reader_module, "STREAM_TEXTS", 4)
    np.testing.assert_allclose(vectorizer.transform(TEXTS * 3), whole, rtol=1e-4, atol=1e-6)
    assert sizes == [4, 4, 4, 3]
    sizes.clear()
    documents = TextChunker(vectorizer.model_name, chunk_size=16).fit_transform(TEXTS)
    n_tokens = [document.n_tokens for document in documents]
    monkeypatch.setattr(reader_module, "STREAM_TOKENS", sum(n_tokens[:3]))
    for X in (TEXTS, documents):
        vectorizer.transform(X)
        assert sizes == [3, 1, 1]
        sizes.clear()


def test_chunked_texts_are_accepted(vectorizer: LongBertVectorizer, tiny_bert: str) -> None:
    expected = vectorizer.fit_transform(TEXTS)
    pipeline = make_pipeline(TextChunker(tiny_bert, chunk_size=16), clone(vectorizer))
    pipeline[-1].set_params(chunk_size=None)
    np.testing.assert_array_equal(pipeline.fit_transform(TEXTS), expected)
    with pytest.raises(ValueError, match="other settings"):
        vectorizer.transform(TextChunker(tiny_bert, chunk_size=8).fit_transform(TEXTS))


def test_output_containers_and_names(vectorizer: LongBertVectorizer) -> None:
    names = [f"longbertvectorizer_layer2_mean_{index}" for index in range(16)]
    expected = vectorizer.fit_transform(TEXTS)
    assert vectorizer.get_feature_names_out().tolist() == names
    series = pd.Series(TEXTS, index=list("abcde"))
    frame = clone(vectorizer).set_output(transform="pandas").fit_transform(series)
    assert frame.columns.tolist() == names
    assert frame.index.tolist() == list("abcde")
    np.testing.assert_array_equal(frame, expected)
    frame = clone(vectorizer).set_output(transform="polars").fit_transform(pl.Series(TEXTS))
    np.testing.assert_array_equal(frame.to_numpy(), expected)


@pytest.mark.parametrize("norm", ["l2", None])
def test_several_layers_and_kinds(vectorizer: LongBertVectorizer, norm: str | None) -> None:
    """Each part is what it is alone, and has its name; with a norm all have equal lengths."""
    both = clone(vectorizer).set_params(token_pooling="mean_max", layers=(-1, 0), norm=norm)
    embeddings = both.fit_transform(TEXTS)
    names = both.get_feature_names_out().tolist()
    assert embeddings.shape == (len(TEXTS), len(names)) == (len(TEXTS), 64)
    start = 0
    for layer in (2, 0):
        for kind in ("mean", "max"):
            alone = clone(vectorizer).set_params(token_pooling=kind, layers=(layer,), norm=norm)
            expected = alone.fit_transform(TEXTS) / (2 if norm else 1)  # four parts of length 1/2
            part = slice(start, start + 16)
            np.testing.assert_allclose(embeddings[:, part], expected, rtol=1e-5, atol=1e-6)
            assert alone.get_feature_names_out().tolist() == names[part]
            assert names[start] == f"longbertvectorizer_layer{layer}_{kind}_0"
            start += 16
    both.set_params(layers="last")  # for the next fit
    for twin in (both, pickle.loads(pickle.dumps(both)), copy.deepcopy(both)):
        np.testing.assert_array_equal(twin.transform(TEXTS), embeddings)
        assert twin.get_feature_names_out().tolist() == names
    frame = both.set_output(transform="pandas").transform(TEXTS)
    assert frame.columns.tolist() == names
    with pytest.raises(ValueError, match=r"layers=\(3,\), but the encoder has the hidden states"):
        both.set_params(layers=(3,)).fit()


def test_beside_tf_idf_and_numbers(vectorizer: LongBertVectorizer) -> None:
    y = [1, 0, 0, 1, 1]
    union = FeatureUnion([("tfidf", TfidfVectorizer()), ("encoder", vectorizer)])
    features = union.fit_transform(TEXTS)
    n_words = len(union.transformer_list[0][1].vocabulary_)
    assert features.shape == (5, n_words + 16)
    assert len(union.get_feature_names_out()) == n_words + 16
    make_pipeline(union, LogisticRegression()).fit(TEXTS, y).predict(TEXTS)

    frame = pd.DataFrame({"text": TEXTS, "age": [1.0, 2, 3, 4, 5], "size": [5.0, 1, 4, 2, 3]})
    columns = ColumnTransformer(
        [("text", vectorizer, "text"), ("numbers", StandardScaler(), ["age", "size"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    table = columns.fit_transform(frame)
    assert table.columns.tolist()[15:] == ["longbertvectorizer_layer2_mean_15", "age", "size"]
    np.testing.assert_allclose(table.iloc[:, :16], vectorizer.fit_transform(TEXTS), rtol=1e-6)
    assert make_pipeline(columns, Ridge()).fit(frame, y).predict(frame).shape == (5,)


def test_copies_and_pickles(vectorizer: LongBertVectorizer, tmp_path: Any) -> None:
    folder = tmp_path / "encoder"
    save_tiny_encoder("bert", folder)
    vectorizer.set_params(model_name=str(folder))
    expected = vectorizer.fit_transform(TEXTS)
    data = pickle.dumps(vectorizer)
    folder.rename(tmp_path / "elsewhere")  # the pickle needs no folder
    for twin in (pickle.loads(data), copy.deepcopy(vectorizer)):
        np.testing.assert_array_equal(twin.transform(TEXTS), expected)
        assert twin.get_params() == vectorizer.get_params()
        assert twin.device_ == "cpu"
    unfitted = pickle.loads(pickle.dumps(clone(vectorizer)))
    assert not hasattr(unfitted, "encoder_")


def test_pickle_is_hardly_larger_than_the_weights() -> None:
    vectorizer = LongBertVectorizer().fit()
    n_bytes = sum(weight.nbytes for weight in vectorizer.encoder_.state_dict().values())
    assert len(pickle.dumps(vectorizer)) < 1.05 * n_bytes


def test_typical_mistakes(vectorizer: LongBertVectorizer) -> None:
    with pytest.raises(NotFittedError):
        vectorizer.transform(TEXTS)
    vectorizer.fit()
    for X, error, message in (
        ([], ValueError, "0 sample"),
        ("one text", ValueError, "in a list"),
        ([1, 2], TypeError, "X at index 0"),
        (["a", None], ValueError, "X at index 1"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ValueError, "select the column"),
    ):
        with pytest.raises(error, match=message):
            vectorizer.transform(X)
    with pytest.raises(ValueError, match="'norm' parameter"):
        vectorizer.set_params(norm="l3").fit()


def test_micro_batches_change_nothing(vectorizer: LongBertVectorizer) -> None:
    expected = vectorizer.fit_transform(TEXTS)
    one_by_one = vectorizer.set_params(micro_batch_tokens=1).transform(TEXTS)
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-4, atol=1e-5)
    alone = np.concatenate([vectorizer.transform([text]) for text in TEXTS])
    np.testing.assert_allclose(alone, expected, rtol=1e-4, atol=1e-5)


def test_a_copy_reads_as_the_fitted_one(vectorizer: LongBertVectorizer) -> None:
    expected = vectorizer.fit(TEXTS).transform(TEXTS)
    vectorizer.set_params(token_pooling="cls")  # for the next fit
    np.testing.assert_array_equal(vectorizer.transform(TEXTS), expected)
    again = pickle.loads(pickle.dumps(vectorizer))
    np.testing.assert_array_equal(again.transform(TEXTS), expected)
    assert np.abs(vectorizer.fit(TEXTS).transform(TEXTS) - expected).max() > 0.1


def test_precision_is_what_the_encoder_multiplies_in(vectorizer: LongBertVectorizer) -> None:
    wide = clone(vectorizer).set_params(precision="float32").fit_transform(TEXTS)
    narrow = clone(vectorizer).set_params(precision="bfloat16").fit_transform(TEXTS)
    assert 1e-5 < np.abs(wide - narrow).max() < 0.1
