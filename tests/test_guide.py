"""Pins that the code of README.md and of the user guide runs, and prints what is shown there.

All blocks of a page run in order, in one namespace, and in a folder of their own.
"""

import re
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from pathlib import Path
from unittest import SkipTest

import pytest
from sybil import Sybil
from sybil.parsers import markdown, rest
from tiny import save_tiny_encoder

ROOT = Path(__file__).resolve().parents[1]
GUIDE = sorted(ROOT.joinpath("docs", "guide").glob("*.rst"))
FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE
MARKDOWN = Sybil([markdown.PythonCodeBlockParser(doctest_optionflags=FLAGS)])
REST = Sybil([rest.DocTestParser(FLAGS), rest.PythonCodeBlockParser(), rest.SkipParser()])


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the blocks write stays here, and pictures open no window."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def run(document) -> int:
    """Run the blocks of a page; return how many were not skipped."""
    n_run = 0
    for example in document.examples():
        try:
            example.evaluate()
        except SkipTest:
            continue
        n_run += 1
    return n_run


def test_readme() -> None:
    document = MARKDOWN.parse(ROOT / "README.md")
    texts = ["The cook bakes the bread.", "The telescope shows a distant comet."] * 3
    document.namespace.update(
        texts=texts, labels=["cooking", "astronomy"] * 3, new_texts=texts[:2], text=texts[0]
    )
    assert run(document) == document.text.count("```python")


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_page(page: Path, empty_folder: Path) -> None:
    # The lookup of an encoder begins with local folders, so that this stands for the Hub's.
    save_tiny_classifier(empty_folder / "distilbert-base-uncased-finetuned-sst-2-english")
    document = REST.parse(page)
    n_blocks = len(re.findall(r"^ *>>> |code-block:: python", document.text, re.MULTILINE))
    assert (run(document) > 0) == (n_blocks > 0)


def save_tiny_classifier(folder: Path) -> None:
    """Save a tiny random network for sequence classification of two classes."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    save_tiny_encoder("distilbert", folder)
    config = AutoConfig.from_pretrained(folder, id2label={0: "NEGATIVE", 1: "POSITIVE"})
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


def test_links_of_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [one for one in re.findall(r"\]\(([^)]+)\)", text) if not one.startswith("http")]
    assert targets
    assert [one for one in targets if not (ROOT / one).is_file()] == []


def test_the_guide_lists_its_pages() -> None:
    index = ROOT.joinpath("docs", "guide", "index.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", index, re.MULTILINE)
    assert sorted([*listed, "index"]) == [page.stem for page in GUIDE]
