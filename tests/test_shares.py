"""Pins examples/benchmarks/shares.py: its figures at a share are those of a fit with that share."""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss

from sklearn_longbert import LongBertClassifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "benchmarks"))
from _quality_data import Split
from shares import at_shares

SHARES = [0.25, 1.0]
PLAIN = {"dropout": None, "learning_rate": 1e-3, "max_epochs": 1, "pooling": None}


@pytest.fixture(scope="module")
def split(bbc_news: tuple[np.ndarray, np.ndarray]) -> Split:
    texts, labels = bbc_news
    texts = np.array([" ".join(text.split()[:40]) for text in texts], dtype=object)
    return Split("bbc", 0, texts[:20], labels[:20], texts[20:50], labels[20:50])


def test_shares_are_those_of_fits(split: Split) -> None:
    options = Namespace(**PLAIN, shares=SHARES, most_test=30, judges=0, honest=0.0, layer_decay=1.0)
    rows = list(at_shares(split, options))
    assert [row["share"] for row in rows] == SHARES
    for row in rows:
        model = LongBertClassifier(
            fine_tuning_share=row["share"], learning_rate=1e-3, max_epochs=1, random_state=0
        ).fit(split.X, split.y)
        probabilities = model.predict_proba(split.X_test)
        expected = log_loss(split.y_test, probabilities, labels=model.classes_)
        assert row["nll"] == pytest.approx(expected, rel=1e-4)
        predicted = model.classes_[probabilities.argmax(axis=1)]
        assert row["accuracy"] == pytest.approx(accuracy_score(split.y_test, predicted))
    assert abs(rows[0]["nll"] - rows[1]["nll"]) > 1e-3


def test_judges_are_no_texts_of_the_figures(split: Split) -> None:
    """A scale that they tell is no larger than 1, and the figures are of the other texts."""
    options = Namespace(**PLAIN, shares=[1.0], most_test=30, judges=10, honest=0.0, layer_decay=1.0)
    (judged,) = at_shares(split, options)
    options.judges = 0
    rows = np.random.default_rng(0).permutation(30)[10:]
    others = Split("bbc", 0, split.X, split.y, split.X_test[rows], split.y_test[rows])
    (plain,) = at_shares(others, options)
    assert judged["nll"] == pytest.approx(plain["nll"], rel=1e-4)
    assert 0 < judged["scale"] <= 1
    options.honest = 1.0
    (honest,) = at_shares(others, options)
    assert np.isfinite(honest["nll"])
    assert honest["nll"] != plain["nll"]
