"""Pins that the code of README.md and of the user guide runs, and prints what is shown there.

All blocks of a page run in order, in one namespace, and in a folder of their own.
"""

import re
from contextlib import suppress
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest

import pytest
import torch
from sybil import Document, Sybil
from sybil.parsers import markdown, rest
from tiny import ARCHITECTURES
from transformers import AutoModelForSequenceClassification

ROOT = Path(__file__).resolve().parents[1]
GUIDE = sorted(ROOT.joinpath("docs", "guide").glob("*.rst"))
BLOCK = r"^ *(>>> |\.\. (invisible-)?code-block::? python|\.\. skip:)"
FLAGS = ELLIPSIS | NORMALIZE_WHITESPACE
MARKDOWN = Sybil([markdown.PythonCodeBlockParser(doctest_optionflags=FLAGS)])
REST = Sybil([rest.DocTestParser(FLAGS), rest.PythonCodeBlockParser(), rest.SkipParser()])


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the blocks write stays here, and pictures open no window."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    return tmp_path


def run(document: Document, n_blocks: int) -> None:
    """Run the blocks of a page, of which there are so many, except those that it skips."""
    examples = list(document.examples())
    assert len(examples) == n_blocks
    for example in examples:
        with suppress(SkipTest):
            example.evaluate()


def test_readme() -> None:
    document = MARKDOWN.parse(ROOT / "README.md")
    texts = ["The cook bakes the bread.", "The telescope shows a distant comet."] * 3
    document.namespace.update(
        texts=texts, labels=["cooking", "astronomy"] * 3, new_texts=texts[:2], text=texts[0]
    )
    run(document, document.text.count("```python"))


@pytest.mark.parametrize("name", [page.stem for page in GUIDE if page.stem != "clients"])
def test_page(name: str, empty_folder: Path) -> None:
    run_page(name, empty_folder)


@pytest.mark.filterwarnings("ignore")  # other libraries warn of each other
def test_recipes_for_libraries_that_are_installed(empty_folder: Path) -> None:
    run_page("clients", empty_folder)


@pytest.mark.clients
@pytest.mark.parametrize("name", ["inference", "saving"])
def test_recipes_for_openvino(name: str, empty_folder: Path) -> None:
    assert find_spec("openvino")
    run_page(name, empty_folder)


@pytest.mark.clients
@pytest.mark.filterwarnings("ignore")
def test_recipes_for_other_libraries(empty_folder: Path) -> None:
    for name in ("datasets", "fastapi", "mlflow", "skactiveml"):
        assert find_spec(name), name
    run_page("clients", empty_folder)


def run_page(name: str, empty_folder: Path) -> None:
    # The lookup of an encoder begins with local folders, so that this one replaces the Hub's.
    save_tiny_classifier(empty_folder / "distilbert-base-uncased-finetuned-sst-2-english")
    document = REST.parse(ROOT / "docs" / "guide" / f"{name}.rst")
    run(document, len(re.findall(BLOCK, document.text, re.MULTILINE)))


def save_tiny_classifier(folder: Path) -> None:
    """Save a tiny random network for sequence classification, with its tokenizer."""
    make_tokenizer, make_config, _ = ARCHITECTURES["distilbert"]
    tokenizer = make_tokenizer()
    config = make_config(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    config.id2label = {0: "NEGATIVE", 1: "POSITIVE"}
    with torch.random.fork_rng(devices=[]):
        AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_links_of_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [one for one in re.findall(r"\]\(([^)]+)\)", text) if not one.startswith("http")]
    assert targets
    assert [one for one in targets if not (ROOT / one).is_file()] == []


def test_the_guide_lists_its_pages() -> None:
    index = ROOT.joinpath("docs", "guide", "index.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   (\w+)$", index, re.MULTILINE)
    assert sorted([*listed, "index"]) == [page.stem for page in GUIDE]
