"""Pins that a vectorizer saved in a folder embeds the same to the last bit, or is an error."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from tiny import ARCHITECTURES, save_tiny_encoder
from transformers import AutoModel, AutoTokenizer

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer
from sklearn_longbert import _provenance as provenance
from sklearn_longbert._saving import manifest

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9, "", "[SEP] naïve 東京都"]
SETTINGS: dict[str, Any] = {"chunk_size": 16, "device": "cpu", "precision": "float32"}


@pytest.fixture
def vectorizer(tiny_bert: str) -> LongBertVectorizer:
    return LongBertVectorizer(tiny_bert, **SETTINGS).fit()


@pytest.fixture
def saved(vectorizer: LongBertVectorizer, tmp_path: Path) -> Path:
    vectorizer.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.filterwarnings("ignore:.*has no token for")  # texts in another script
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(
    architecture: str, tiny_encoder: Callable[[str], str], tmp_path: Path
) -> None:
    """Without the folder of the encoder; transformers opens what is saved."""
    encoder = save_tiny_encoder(architecture, tmp_path / "encoder")
    vectorizer = LongBertVectorizer(encoder, norm="l2", max_chunks=2, **SETTINGS).fit()
    expected = vectorizer.transform(TEXTS[:3])
    vectorizer.save_pretrained(tmp_path / "saved")
    encoder.rename(tmp_path / "gone")
    again = LongBertVectorizer.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.transform(TEXTS[:3]), expected)
    assert again.get_params() == vectorizer.get_params()
    assert again.chunker_.layout_ == vectorizer.chunker_.layout_
    assert list(again.get_feature_names_out()) == list(vectorizer.get_feature_names_out())
    assert again.device_ == "cpu"
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).transform(TEXTS[:3]), expected)
    weights = AutoModel.from_pretrained(tmp_path / "saved").state_dict()
    ours = vectorizer.encoder_.encoder.state_dict()
    assert all(torch.equal(weights[name], weight) for name, weight in ours.items())
    AutoTokenizer.from_pretrained(tmp_path / "saved")


def test_the_real_encoder(tmp_path: Path) -> None:
    vectorizer = LongBertVectorizer(chunk_size=32).fit()
    vectorizer.save_pretrained(tmp_path)
    texts = ["The striker scored a late goal. " * 8, "The cook fries the fish. " * 9]
    again = LongBertVectorizer.from_pretrained(str(tmp_path))
    np.testing.assert_array_equal(again.transform(texts), vectorizer.transform(texts))


def test_what_fit_has_used_is_kept(tiny_bert: str, tmp_path: Path) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, token_pooling="cls", **SETTINGS).fit()
    expected = vectorizer.transform(TEXTS[:2])
    vectorizer.set_params(token_pooling="mean").save_pretrained(tmp_path)
    again = LongBertVectorizer.from_pretrained(tmp_path)
    assert again.token_pooling == "mean"
    np.testing.assert_array_equal(again.transform(TEXTS[:2]), expected)
    assert not np.array_equal(again.fit().transform(TEXTS[:2]), expected)


def test_parameters_may_be_replaced_unless_fit_has_used_them(
    vectorizer: LongBertVectorizer, saved: Path
) -> None:
    load = LongBertVectorizer.from_pretrained
    again = load(saved, norm="l2", micro_batch_tokens=np.int8(32), chunk_size=np.int64(16))
    embeddings = again.transform(TEXTS[:2])
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    with pytest.raises(ValueError, match=r"chunk_size=32, but .* with chunk_size=16"):
        load(saved, chunk_size=32)
    with pytest.raises(ValueError, match=r"token_pooling='cls', but"):
        load(saved, token_pooling="cls")
    with pytest.raises(TypeError, match="LongBertVectorizer has no parameter 'nrom'"):
        load(saved, nrom="l2")
    with pytest.raises(ValueError, match="'norm' parameter of LongBertVectorizer"):
        load(saved, norm="l3")
    with pytest.raises(ValueError, match="cannot be used on this machine"):
        load(saved, device="cuda:77")


def test_the_error_names_the_class_to_use(
    vectorizer: LongBertVectorizer, tiny_bert: str, tmp_path: Path
) -> None:
    classes: dict[type, Any] = {LongBertClassifier: ["a", "b"], LongBertRegressor: [0.5, 1.5]}
    vectorizer.save_pretrained(tmp_path / "LongBertVectorizer")
    for cls, y in classes.items():
        estimator = cls(tiny_bert, max_epochs=1, head_init="random", **SETTINGS)
        estimator.fit(TEXTS[:2], y).save_pretrained(tmp_path / cls.__name__)
    everything = [LongBertVectorizer, *classes]
    for cls in everything:
        for other in everything:
            folder = tmp_path / other.__name__
            if cls is other:
                cls.from_pretrained(folder)
            else:
                with pytest.raises(ValueError, match=rf"use {other.__name__}\.from_pretrained"):
                    cls.from_pretrained(folder)
    vectorizer.save_pretrained(tmp_path / "LongBertClassifier")  # they replace each other
    assert not (tmp_path / "LongBertClassifier" / "head.safetensors").exists()
    LongBertVectorizer.from_pretrained(tmp_path / "LongBertClassifier")


def test_a_folder_of_an_encoder_only(tiny_bert: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no saved vectorizer: .*fit LongBertVectorizer\(model_n"):
        LongBertVectorizer.from_pretrained(tiny_bert)
    with pytest.raises(ValueError, match="is not a folder"):
        LongBertVectorizer.from_pretrained(tmp_path / "nothing")
    with pytest.raises(NotFittedError):
        LongBertVectorizer(tiny_bert).save_pretrained(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file(name: str, saved: Path) -> None:
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[:-1] + b" ")
    with pytest.raises(ValueError, match=rf"{name} has changed.*damaged"):
        LongBertVectorizer.from_pretrained(saved)


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an unknown pooling": lambda c: c["network"].update(token_pooling="sum"),
    "pooling of another kind": lambda c: c["network"].update(token_pooling=[]),
    "no pooling": lambda c: c.update(network={}),
    "no section": lambda c: c.pop("network"),
    "another kind": lambda c: c.update(estimator="pipeline"),
    "a kind of another kind": lambda c: c.update(estimator=["vectorizer"]),
    "a path to elsewhere": lambda c: c["files"].update({"../../etc/passwd": [1, "x"]}),
    "a chunk of a billion": lambda c: c["chunker"].update(chunk_size=10**9),
    "padding beyond the vocabulary": lambda c: c["chunker"].update(pad_id=10**9),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manifest_that_lies(lie: Callable[..., Any], saved: Path) -> None:
    path = saved / manifest.MANIFEST
    whole = json.loads(path.read_text())
    lie(whole["content"])
    canonical = json.dumps(whole["content"], sort_keys=True, separators=(",", ":"))
    whole["sha256"] = hashlib.sha256(canonical.encode()).hexdigest()
    path.write_text(json.dumps(whole))
    with pytest.raises(ValueError, match="damaged"):
        LongBertVectorizer.from_pretrained(saved)


def test_another_version_warns(
    vectorizer: LongBertVectorizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "__version__", "0.0.7")
        vectorizer.save_pretrained(tmp_path / "saved")
    with pytest.warns(InconsistentVersionWarning, match="LongBertVectorizer from version 0.0.7"):
        LongBertVectorizer.from_pretrained(tmp_path / "saved")


def test_from_the_hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find_folder(*args: Any) -> Path:
        asked.append(args)
        return saved

    monkeypatch.setattr("sklearn_longbert._vectorizer.find_folder", find_folder)
    again = LongBertVectorizer.from_pretrained("me/vectors", revision="v2", local_files_only=True)
    assert asked == [("me/vectors", "v2", True)]
    assert again.revision is None
    assert again.transform(TEXTS[:1]).shape == (1, 16)


def test_under_the_modes_of_the_caller(vectorizer: LongBertVectorizer, tmp_path: Path) -> None:
    with torch.inference_mode():
        vectorizer.save_pretrained(tmp_path / "saved")
        again = LongBertVectorizer.from_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(again.transform(TEXTS[:2]), vectorizer.transform(TEXTS[:2]))
    assert not any(weight.is_inference() for weight in again.encoder_.parameters())
