"""Pins that somebody else's fine-tuned checkpoint gives chunks the logits transformers gives.

Tiny random models of every architecture whose head is known; labels, label orders, numbers;
further training; errors.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers
from scipy.special import expit, softmax
from tiny import ARCHITECTURES

from sklearn_longbert import LongBertClassifier, LongBertRegressor
from sklearn_longbert._saving.checkpoint import HEADS

TEXTS = ["good", "bad news " * 70, "", "the quick brown fox story " * 25]
NAMES = {0: "neutral", 1: "positive", 2: "negative"}
SETTINGS: dict[str, Any] = {"chunk_size": 16, "precision": "float32", "device": "cpu"}


def save_checkpoint(folder: Path, architecture: str = "bert", **config: Any) -> Any:
    """Save a random fine-tuned model and its tokenizer; return the model."""
    make_tokenizer, make_config, _ = ARCHITECTURES[architecture]
    tokenizer = make_tokenizer()
    settings = make_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    for name, value in {"id2label": NAMES, **config}.items():
        setattr(settings, name, value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_config(settings)
        for weight in model.parameters():  # biases start at zero, which would hide their order
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model.eval()


def their_chunk_logits(model: Any, estimator: Any, text: str) -> np.ndarray:
    """Each chunk by itself through transformers' own model."""
    (document,) = estimator.chunker_.transform([text])
    with torch.no_grad():
        rows = [
            model(input_ids=torch.from_numpy(chunk.astype(np.int64))[None]).logits[0]
            for chunk in document.chunks()
        ]
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("pooling", ["mean", "max", "logsumexp", "attention"])
@pytest.mark.parametrize("architecture", [name for name in HEADS if name in ARCHITECTURES])
def test_chunk_logits_are_transformers_own(architecture: str, pooling: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, architecture)
    estimator = LongBertClassifier.from_pretrained(tmp_path, pooling=pooling, **SETTINGS)
    assert estimator.classes_.tolist() == ["negative", "neutral", "positive"]
    order = [2, 0, 1]
    pool = {
        "mean": lambda rows: rows.mean(0),
        "attention": lambda rows: rows.mean(0),  # until it is trained
        "max": lambda rows: rows.max(0),
        "logsumexp": lambda rows: np.log(np.exp(rows).mean(0)),
    }[pooling]
    theirs = [their_chunk_logits(model, estimator, text) for text in TEXTS]
    assert {len(rows) for rows in theirs} > {1}
    expected = np.stack([pool(rows)[order] for rows in theirs])
    np.testing.assert_allclose(estimator.decision_function(TEXTS), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(
        estimator.predict(TEXTS), estimator.classes_[expected.argmax(axis=1)]
    )
    probabilities = estimator.predict_proba(TEXTS)
    np.testing.assert_allclose(probabilities, softmax(expected, axis=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_the_activation_is_the_checkpoints(activation: str, tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, "deberta-v2", pooler_hidden_act=activation)
    estimator = LongBertClassifier.from_pretrained(tmp_path, **SETTINGS)
    theirs = np.stack([their_chunk_logits(model, estimator, text).mean(0) for text in TEXTS])
    np.testing.assert_allclose(
        estimator.decision_function(TEXTS), theirs[:, [2, 0, 1]], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("architecture", "layer"), [("bert", "pooler"), ("albert", "pooler")])
def test_a_pooler_that_is_part_of_the_head_must_be_there(
    architecture: str, layer: str, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path, architecture)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if layer not in name}
    assert len(kept) == len(weights) - 2
    safetensors.torch.save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no head for sequence classification .*pooler.* missing"):
        LongBertClassifier.from_pretrained(tmp_path, **SETTINGS)


def test_a_frozen_checkpoint_trains_its_head_alone(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    settings = {"freeze_encoder": True, "learning_rate": 1e-2, "random_state": 0, **SETTINGS}
    estimator = LongBertClassifier.from_pretrained(tmp_path, **settings)
    start = {name: w.clone() for name, w in estimator.net_.module_.state_dict().items()}
    estimator.partial_fit(TEXTS, ["positive", "negative", "neutral", "positive"])
    end = estimator.net_.module_.state_dict()
    changed = {name for name in start if (start[name] != end[name]).any()}
    assert changed == {"head.weight", "head.bias", "transform.0.weight", "transform.0.bias"}


def test_dropout_and_attention_are_behind_the_first_layer_of_the_head(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    estimator = LongBertClassifier.from_pretrained(
        tmp_path, pooling="attention", dropout=0.5, **SETTINGS
    )
    network = estimator.net_.module_.train()
    torch.nn.init.normal_(network.attention.score.weight)
    embeddings = torch.randn(5, 16, generator=torch.Generator().manual_seed(0), requires_grad=True)
    features = network.transform(embeddings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        outputs = network.chunk_outputs(embeddings)
        torch.manual_seed(0)
        expected = network.head(network.dropout(features))
    torch.testing.assert_close(outputs[:, :-1], expected)
    torch.testing.assert_close(outputs[:, -1:], network.attention(features))
    (gradient,) = torch.autograd.grad(outputs[:, -1].sum(), embeddings)
    assert (gradient != 0).any()  # the encoder learns from the scores too


def test_every_known_head_is_tested_or_is_another_ones() -> None:
    assert set(HEADS) - set(ARCHITECTURES) == {"camembert"}  # RoBERTa by another name


def test_two_labels(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, id2label={0: "POSITIVE", 1: "NEGATIVE"})
    estimator = LongBertClassifier.from_pretrained(tmp_path, **SETTINGS)
    assert estimator.classes_.tolist() == ["NEGATIVE", "POSITIVE"]
    logits = np.stack([their_chunk_logits(model, estimator, text).mean(0) for text in TEXTS])
    decision = estimator.decision_function(TEXTS)
    np.testing.assert_allclose(decision, logits[:, 0] - logits[:, 1], rtol=1e-4, atol=1e-5)


def test_several_labels_a_text(tmp_path: Path) -> None:
    model = save_checkpoint(tmp_path, problem_type="multi_label_classification")
    estimator = LongBertClassifier.from_pretrained(tmp_path, **SETTINGS)
    assert estimator.classes_.tolist() == list(NAMES.values())  # the columns
    logits = np.stack([their_chunk_logits(model, estimator, text).mean(0) for text in TEXTS])
    np.testing.assert_allclose(estimator.predict_proba(TEXTS), expit(logits), rtol=1e-4)
    np.testing.assert_array_equal(estimator.predict(TEXTS), logits > 0)
    y = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    before = estimator.predict_proba(TEXTS)
    estimator.partial_fit(TEXTS, y)
    estimator.set_params(warm_start=True, max_epochs=1).fit(TEXTS, y)
    assert estimator.classes_.tolist() == list(NAMES.values())
    assert np.abs(estimator.predict_proba(TEXTS) - before).max() > 1e-4


@pytest.mark.parametrize("n_targets", [1, 2])
def test_numbers(tmp_path: Path, n_targets: int) -> None:
    problem = None if n_targets == 1 else "regression"
    names = {index: f"LABEL_{index}" for index in range(n_targets)}
    model = save_checkpoint(tmp_path, id2label=names, problem_type=problem)
    estimator = LongBertRegressor.from_pretrained(tmp_path, **SETTINGS)
    logits = np.stack([their_chunk_logits(model, estimator, text).mean(0) for text in TEXTS])
    expected = logits[:, 0] if n_targets == 1 else logits
    np.testing.assert_allclose(estimator.predict(TEXTS), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"use LongBertRegressor.from_pretrained"):
        LongBertClassifier.from_pretrained(tmp_path)


def test_goes_on_training_from_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    estimator = LongBertClassifier.from_pretrained(
        tmp_path, max_epochs=60, learning_rate=3e-3, random_state=0, **SETTINGS
    )
    y = ["positive", "negative", "neutral", "positive"]
    start = estimator.predict_proba(TEXTS)
    still = pickle.loads(pickle.dumps(estimator)).set_params(warm_start=True, learning_rate=1e-30)
    np.testing.assert_allclose(still.fit(TEXTS, y).predict_proba(TEXTS), start, rtol=1e-5)
    assert still.net_.module_.hidden_layer == (16, "tanh")
    estimator.set_params(warm_start=True).fit(TEXTS, y)
    rows = np.arange(4), np.searchsorted(estimator.classes_, y)
    assert np.log(estimator.predict_proba(TEXTS)[rows]).mean() > np.log(start[rows]).mean() + 0.1
    again = pickle.loads(pickle.dumps(estimator))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), estimator.predict_proba(TEXTS))
    dense = again.net_.module_.get_submodule("transform.0").weight
    assert (dense != still.net_.module_.get_submodule("transform.0").weight).any()


def test_partial_fit_goes_on_from_there(tmp_path: Path) -> None:
    save_checkpoint(tmp_path)
    estimator = LongBertClassifier.from_pretrained(tmp_path, learning_rate=1e-30, **SETTINGS)
    before = estimator.predict_proba(TEXTS)
    estimator.partial_fit(TEXTS[:2], ["positive", "negative"])
    np.testing.assert_allclose(estimator.predict_proba(TEXTS), before, rtol=1e-5)


def test_what_cannot_be_read(tmp_path: Path, tiny_bert: str, tiny_encoder: Any) -> None:
    with pytest.raises(ValueError, match=r"have no head for sequence classification .*missing"):
        LongBertClassifier.from_pretrained(tiny_bert)
    with pytest.raises(ValueError, match=r"holds a modernbert, whose head .*cannot be read"):
        LongBertClassifier.from_pretrained(tiny_encoder("modernbert"))
    save_checkpoint(tmp_path, id2label={0: "yes", 1: "yes"})
    with pytest.raises(ValueError, match=r"id2label repeats a label"):
        LongBertClassifier.from_pretrained(tmp_path)
    for names in ({1: "yes", 2: "no"}, {0: "yes", 1: None}):
        save_checkpoint(tmp_path / "odd", id2label={0: "yes", 1: "no"})
        path = tmp_path / "odd" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names}))
        with pytest.raises(
            ValueError, match=r"id2label(' with value| must name its outputs, 0 to 1)"
        ):
            LongBertClassifier.from_pretrained(tmp_path / "odd")
    with pytest.raises(ValueError, match=r"use LongBertClassifier.from_pretrained"):
        LongBertRegressor.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r'leave token_pooling="cls"'):
        LongBertClassifier.from_pretrained(tmp_path, token_pooling="mean")
    with pytest.raises(ValueError, match=r'leave token_pooling="cls" and layers="last"'):
        LongBertClassifier.from_pretrained(tmp_path, layers="spread")
    with pytest.raises(ValueError, match=r"'pooling' parameter .* must be a str among"):
        LongBertClassifier.from_pretrained(tmp_path, pooling="median")
    with pytest.raises(TypeError, match="unexpected keyword argument 'poolling'"):
        LongBertClassifier.from_pretrained(tmp_path, poolling="max")


def test_the_last_layer_by_its_number(tmp_path):
    save_checkpoint(tmp_path)
    same = LongBertClassifier.from_pretrained(tmp_path, layers=(-1,))
    plain = LongBertClassifier.from_pretrained(tmp_path)
    np.testing.assert_array_equal(*(m.decision_function(["good"]) for m in (same, plain)))
    assert plain.layers == "last"
