"""Pins examples/benchmarks/shares.py.

Its figures at a share are those of a fit with that share; honest logits are out of fold.
"""

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, log_loss
from skorch.callbacks import Callback

from sklearn_longbert import LongBertClassifier
from sklearn_longbert._encoding.passes import document_embeddings
from sklearn_longbert._targets.linear_probe import classification_probe
from sklearn_longbert._targets.pooled_linear import Embeddings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "benchmarks"))
from _quality_data import Split
from _quality_figures import figures
from shares import HonestStart, at_shares, judged

SHARES = [0.25, 1.0]
PLAIN = {"dropout": None, "learning_rate": 1e-3, "max_epochs": 1, "pooling": None}


@pytest.fixture(scope="module")
def split(bbc_news: tuple[np.ndarray, np.ndarray]) -> Split:
    texts, labels = bbc_news
    texts = np.array([" ".join(text.split()[:40]) for text in texts], dtype=object)
    return Split("bbc", 0, texts[:20], labels[:20], texts[20:50], labels[20:50])


def test_a_share_is_that_of_a_fit(split: Split) -> None:
    options = Namespace(**PLAIN, shares=SHARES, most_test=30, judges=0, honest=0.0, layer_decay=1.0)
    rows = list(at_shares(split, options))
    assert [row["share"] for row in rows] == SHARES
    model = LongBertClassifier(
        fine_tuning_share=0.25, learning_rate=1e-3, max_epochs=1, random_state=0
    ).fit(split.X, split.y)
    probabilities = model.predict_proba(split.X_test)
    expected = log_loss(split.y_test, probabilities, labels=model.classes_)
    assert rows[0]["nll"] == pytest.approx(expected, rel=1e-4)
    predicted = model.classes_[probabilities.argmax(axis=1)]
    assert rows[0]["accuracy"] == pytest.approx(accuracy_score(split.y_test, predicted))
    assert abs(rows[0]["nll"] - rows[1]["nll"]) > 1e-3


def test_judges_scale_the_figures_of_the_other_texts() -> None:
    """Of logits that are too certain."""
    y, classes = np.array(["a", "b"] * 30), np.array(["a", "b"])
    wrong, n_tokens = np.arange(60) % 5 == 0, np.full(60, 600)
    probabilities = np.where((y == "a") ^ wrong, 0.999, 0.001)
    probabilities = np.column_stack([probabilities, 1 - probabilities])
    found = judged(y, probabilities, classes, n_tokens, 40)
    expected = figures(y[40:], probabilities[40:], classes, n_tokens[40:])
    assert {name: found[name] for name in expected} == expected
    sure = np.log(0.8 / 0.2) / np.log(0.999 / 0.001)  # the scale at which they are as sure as right
    assert sure < found["scale"] < 1.5 * sure
    assert found["nll_scaled"] < 0.7 * found["nll"]
    assert judged(y, probabilities, classes, n_tokens, 0) == figures(
        y, probabilities, classes, n_tokens
    )


class See(Callback):
    """Keeps the offsets of the training texts, and what the network adds to them."""

    def on_train_begin(self, net, X, **_):
        self.offsets = X.offsets.numpy()
        self.means = document_embeddings(net.module_, X.documents, net._passes).numpy()
        self.head = net.module_.head.weight.detach().numpy(), net.module_.head.bias.detach().numpy()


def test_honest_logits_are_those_of_the_models_without_the_text(split: Split) -> None:
    before, after = See(), See()
    settings = {"layers": (0, 6), "max_epochs": 1, "learning_rate": 1e-30, "precision": "float32"}
    callbacks = [
        ("before", before),
        ("honest", HonestStart(1.0)),
        ("after", after),
    ]  # in this order
    LongBertClassifier(callbacks=callbacks, **settings).fit(split.X, split.y)
    embeddings = Embeddings.of_means(before.means, slice(2 * 384, 3 * 384))
    y = np.unique(split.y, return_inverse=True)[1]
    probe = classification_probe(embeddings, y, np.ones(20), y.max() + 1)
    weight, bias = before.head
    scale = np.linalg.norm(weight) / np.linalg.norm(probe.coefficients)
    known = np.isfinite(probe.out_of_fold).all(axis=1)
    added = after.offsets - before.offsets + before.means @ weight.T + bias
    np.testing.assert_allclose(added[known], scale * probe.out_of_fold[known], rtol=1e-2, atol=1e-2)
