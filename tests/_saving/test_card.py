"""A saved folder has a model card, unless somebody wrote a README there."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer
from sklearn_longbert._saving.card import CARD, MOST_CLASSES

TEXTS = ["good film", "bad match", "old story"] * 2


@pytest.fixture
def fitted(tiny_bert: str) -> LongBertClassifier:
    labels = ["# a\n---\nb", "<b>'\"`|", "größe"] * 2
    return LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1).fit(TEXTS, labels)


def test_what_it_says(fitted: Any, tiny_bert: str, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / CARD)
    data = card.data.to_dict()
    assert data["library_name"] == "sklearn_longbert"
    assert data["pipeline_tag"] == "text-classification"
    assert "classifier" in data["tags"]
    assert "base_model" not in data  # a local folder, whose name is in no card
    assert tiny_bert not in card.content
    assert "LongBertClassifier.from_pretrained" in card.text
    shown = [line[4:] for line in card.text.splitlines() if line.startswith("    ")]
    assert [json.loads(line) for line in shown] == list(fitted.classes_)
    assert "| pooling | mean |" in card.text
    manifest = json.loads((tmp_path / "saved" / "sklearn_longbert.json").read_text())
    for name, version in manifest["content"]["versions"].items():
        assert f"| {name} | {version} |" in card.text
    assert CARD not in manifest["content"]["files"]  # so that it may be edited


def test_other_kinds(tiny_bert: str, tmp_path: Path) -> None:
    many = [f"label {number}" for number in range(MOST_CLASSES + 3)]
    settings = {**ENCODER_ALONE, "max_epochs": 1}
    for name, estimator in {
        "Classes": LongBertClassifier(tiny_bert, **settings).fit(
            ["good"] * 3 * len(many), many * 3
        ),
        "Regressor": LongBertRegressor(tiny_bert, **settings).fit(TEXTS, range(6)),
        "Vectorizer": LongBertVectorizer(tiny_bert).fit(),
    }.items():
        estimator.save_pretrained(tmp_path / name)
        text = (tmp_path / name / CARD).read_text(encoding="utf-8")
        assert f"{type(estimator).__name__}.from_pretrained" in text
        assert ("## Classes" in text) == (name == "Classes")
        assert ("    ... and 3 more" in text) == (name == "Classes")


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        ([0, 10, 2], ["0", "2", "10"]),
        ([True, False, True], ["false", "true"]),
        (["a\ud800", "b", "c"], ['"a\\ud800"', '"b"', '"c"']),
    ],
)
def test_classes_as_they_are(tiny_bert: str, labels: Any, lines: Any, tmp_path: Path) -> None:
    """Numbers look like numbers; a lone surrogate is written as its escape."""
    classifier = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1)
    classifier.fit(TEXTS, labels * 2).save_pretrained(tmp_path / "saved")
    text = (tmp_path / "saved" / CARD).read_text(encoding="utf-8")
    assert [line[4:] for line in text.splitlines() if line.startswith("    ")] == lines


@pytest.mark.parametrize("name", ["secret/encoder", "secret--encoder", "./secret.git"])
def test_a_folder_s_name_may_look_like_that_of_a_repository(
    tiny_bert: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in no card, even if the folder is missing when the estimator is saved."""
    shutil.copytree(tiny_bert, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    vectorizer = LongBertVectorizer(name).fit()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    vectorizer.save_pretrained("saved")
    assert "secret" not in Path("saved", CARD).read_text(encoding="utf-8")


def test_the_hub_s_encoder_is_the_base_model(tmp_path: Path) -> None:
    LongBertVectorizer().fit().save_pretrained(tmp_path / "saved")
    card = ModelCard.load(tmp_path / "saved" / CARD)
    assert card.data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert card.data.pipeline_tag == "feature-extraction"


def test_saving_again_replaces_a_card_that_is_unchanged(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "saved")
    first = (tmp_path / "saved" / CARD).read_bytes()
    fitted.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / CARD).read_bytes() == first
    fitted.set_params(warm_start=True, pooling="max").fit(TEXTS, [*fitted.classes_] * 2)
    fitted.save_pretrained(tmp_path / "saved")
    assert "| pooling | max |" in (tmp_path / "saved" / CARD).read_text(encoding="utf-8")


@pytest.mark.parametrize("change", [lambda text: f"{text}x", lambda text: f"x{text}"])
def test_a_card_that_somebody_changed_stays(fitted: Any, change: Any, tmp_path: Path) -> None:
    path = tmp_path / "saved" / CARD
    fitted.save_pretrained(path.parent)
    changed = change(path.read_text(encoding="utf-8"))
    path.write_text(changed, encoding="utf-8")
    for _ in range(2):
        fitted.save_pretrained(path.parent)
        assert path.read_text(encoding="utf-8") == changed
    assert LongBertClassifier.from_pretrained(path.parent).predict(TEXTS).shape == (6,)


@pytest.mark.parametrize("name", ["README.md", "readme.txt", "README"])
def test_a_readme_of_one_s_own_stays_alone(fitted: Any, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("Mine")
    fitted.save_pretrained(tmp_path)
    cards = [path for path in tmp_path.iterdir() if path.name.lower().startswith("readme")]
    assert [(path.name, path.read_text()) for path in cards] == [(name, "Mine")]


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root reads every file")
def test_a_card_that_cannot_be_read_stays(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path)
    (tmp_path / CARD).chmod(0)
    fitted.save_pretrained(tmp_path)
    assert (tmp_path / CARD).stat().st_mode & 0o777 == 0


def test_ends_of_lines_are_no_change(fitted: Any, tmp_path: Path) -> None:
    """Git may have changed them. A README in another language is none of ours."""
    fitted.save_pretrained(tmp_path)
    first = (tmp_path / CARD).read_bytes()
    (tmp_path / CARD).write_bytes(first.replace(b"\n", b"\r\n"))
    (tmp_path / "README.zh.md").write_text("Mine")
    fitted.save_pretrained(tmp_path)
    assert (tmp_path / CARD).read_bytes() == first


def test_a_link_stays_a_link(fitted: Any, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "saved")
    path, elsewhere = tmp_path / "saved" / CARD, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    fitted.save_pretrained(tmp_path / "saved")
    assert path.is_symlink()


def test_a_card_of_a_save_that_was_killed_stays(fitted: Any, tmp_path: Path) -> None:
    """The folder is aside then, between two renames."""
    fitted.save_pretrained(tmp_path / "saved")
    (tmp_path / "saved" / CARD).write_text("Mine")
    (tmp_path / "saved").rename(tmp_path / ".saved.previous")
    fitted.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / CARD).read_text() == "Mine"
