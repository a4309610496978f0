"""Pins that token_pooling="auto" is what the folder of the encoder states."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sklearn_longbert import LongBertClassifier, LongBertVectorizer
from sklearn_longbert._pretrained.loading import saved_token_pooling

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9, "good news", "bad"] * 2
LABELS = ["good", "bad"] * 4
SETTINGS = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 1,
    "precision": "float32",
    "random_state": 0,
}
ST = "pooling_mode_"  # the names of sentence-transformers before version 6


def flags(mode: str) -> dict[str, Any]:
    names = (
        "cls_token",
        "mean_tokens",
        "max_tokens",
        "mean_sqrt_len_tokens",
        "weightedmean_tokens",
        "lasttoken",
    )
    return {"word_embedding_dimension": 16} | {f"{ST}{name}": name == mode for name in names}


@pytest.fixture
def folder(tiny_bert: str, tmp_path: Path) -> Path:
    (tmp_path / "1_Pooling").mkdir()
    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    return tmp_path


def state(folder: Path, config: Any) -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (flags("cls_token"), "cls"),
        (flags("mean_tokens"), "mean"),
        (flags("max_tokens"), "max"),
        ({**flags("max_tokens"), "pooling_mode_mean_tokens": True}, "mean_max"),
        ({"pooling_mode": ["max", "mean"]}, "mean_max"),
        ({"pooling_mode": ["max"]}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
    ],
)
def test_what_the_folder_states_is_taken(folder: Path, config: Any, expected: str) -> None:
    state(folder, config)
    assert saved_token_pooling(folder) == expected
    found = LongBertVectorizer(folder, chunk_size=16).fit_transform(TEXTS)
    right = LongBertVectorizer(folder, chunk_size=16, token_pooling=expected).fit_transform(TEXTS)
    np.testing.assert_array_equal(found, right)
    wrong = "mean" if expected == "cls" else "cls"
    other = LongBertVectorizer(folder, chunk_size=16, token_pooling=wrong).fit_transform(TEXTS)
    assert np.abs(found[:, :16] - other).max() > 0.1


def test_a_folder_that_states_nothing_has_the_mean(tiny_bert: str) -> None:
    assert saved_token_pooling(Path(tiny_bert)) == "mean"
    model = LongBertClassifier(tiny_bert, **SETTINGS).fit(TEXTS, LABELS)
    assert model.net_.module_.token_pooling == "mean"


@pytest.mark.parametrize(
    "config",
    [
        flags("weightedmean_tokens"),
        flags("mean_sqrt_len_tokens"),
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["cls", "mean"]},
        {},
    ],
)
def test_a_pooling_that_is_not_known_warns(folder: Path, config: Any) -> None:
    state(folder, config)
    with pytest.warns(UserWarning, match=r"states the token pooling \[.*the mean is taken"):
        assert saved_token_pooling(folder) == "mean"


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pooling_mode": {}}'])
def test_a_damaged_file_is_named(folder: Path, content: str) -> None:
    (folder / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"1_Pooling.config\.json is not the configuration of a"):
        LongBertClassifier(folder, **SETTINGS).fit(TEXTS, LABELS)


def test_a_fitted_estimator_keeps_its_pooling(folder: Path, tmp_path: Path) -> None:
    state(folder, flags("cls_token"))
    model = LongBertClassifier(folder, warm_start=True, **SETTINGS).fit(TEXTS, LABELS)
    expected = model.decision_function(TEXTS)
    model.save_pretrained(tmp_path / "saved")
    state(folder, flags("mean_tokens"))
    for twin in (
        pickle.loads(pickle.dumps(model)),
        LongBertClassifier.from_pretrained(tmp_path / "saved"),
        LongBertClassifier.from_pretrained(tmp_path / "saved", token_pooling="auto"),
    ):
        assert twin.token_pooling == "auto"
        np.testing.assert_array_equal(twin.decision_function(TEXTS), expected)
        assert twin.fit(TEXTS, LABELS).net_.module_.token_pooling == "cls"
    with pytest.raises(
        ValueError, match="token_pooling='mean', but the saved estimator was fitted"
    ):
        LongBertClassifier.from_pretrained(tmp_path / "saved", token_pooling="mean")
