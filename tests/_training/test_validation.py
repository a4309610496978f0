"""Pins what scores validation texts: the parameter ``scoring``, as in scikit-learn.

The expected scores are those of scikit-learn's own scorers, of the fitted estimator.
"""

from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    get_scorer,
    log_loss,
    make_scorer,
    roc_auc_score,
)

from sklearn_longbert import LongBertClassifier, LongBertRegressor, TextChunker
from sklearn_longbert._encoding.network import LongBertNetwork

SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 3,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "head_init": "random",
    "random_state": 0,
}
TEXTS = [f"{word} story the quick fox {'brown ' * i}" for i in range(8) for word in ("good", "bad")]
LABELS = np.array(["yes", "no"] * 8)
TABLE = np.column_stack([np.arange(16) % 2, np.arange(16) // 2 % 2])
NUMBERS = np.arange(16) * 1e3 + 7
WEIGHTS = np.linspace(0.5, 3, 16)


@pytest.fixture
def classifier(tiny_bert: str) -> partial:
    return partial(LongBertClassifier, tiny_bert, **SETTINGS)


def share_of_yes(estimator: Any, X: Any, y: Any) -> float:
    """A scoring that asks for all predictions, and for those of a part of the texts."""
    assert estimator.classes_.tolist() == ["no", "yes"]
    assert estimator.predict_proba(X).shape == (len(X), 2)
    found = estimator.predict(X)
    some = [X[index] for index in (3, 0)]
    np.testing.assert_allclose(
        estimator.decision_function(some), estimator.decision_function(X)[[3, 0]], rtol=1e-4
    )
    assert isinstance(X[0], str)
    return float((found == "yes").mean() + (np.asarray(y) == "yes").mean())


SCORINGS: dict[str, Any] = {
    "macro F1": "f1_macro",
    "probabilities": "neg_log_loss",
    "decisions": "roc_auc",
    "positive label": make_scorer(f1_score, pos_label="yes"),
    "positive label of probabilities": make_scorer(
        average_precision_score, response_method="predict_proba", pos_label="no"
    ),
    "negated": make_scorer(log_loss, greater_is_better=False, response_method="predict_proba"),
    "callable": share_of_yes,
    "none": None,
}


@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
def test_the_score_is_that_of_scikit_learns_scorer(classifier: partial, scoring: Any) -> None:
    model = classifier(scoring=scoring).fit(TEXTS, LABELS, X_val=TEXTS[3:], y_val=LABELS[3:])
    scorer = get_scorer(scoring) or type(model).score
    expected = scorer(model, TEXTS[3:], LABELS[3:])
    assert model.history_[-1]["valid_score"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scoring", ["f1_macro", "average_precision", "roc_auc", None])
def test_scores_of_two_labels(classifier: partial, scoring: str | None) -> None:
    """scikit-learn's own scorers take the two columns of predictions for those of two classes."""
    model = classifier(scoring=scoring).fit(TEXTS, TABLE, X_val=TEXTS, y_val=TABLE)
    expected = {
        None: lambda: model.score(TEXTS, TABLE),
        "f1_macro": lambda: f1_score(TABLE, model.predict(TEXTS), average="macro"),
        "average_precision": lambda: average_precision_score(TABLE, model.predict_proba(TEXTS)),
        "roc_auc": lambda: roc_auc_score(TABLE, model.predict_proba(TEXTS)),
    }[scoring]()
    assert model.history_[-1]["valid_score"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "scoring", [None, "neg_mean_absolute_error", "neg_max_error", "neg_mean_squared_error"]
)
@pytest.mark.parametrize("columns", [1, 2])
def test_scores_of_numbers_are_in_the_callers_unit(
    tiny_bert: str, scoring: str | None, columns: int
) -> None:
    y = NUMBERS if columns == 1 else np.column_stack([NUMBERS, -NUMBERS])
    model = LongBertRegressor(tiny_bert, scoring=scoring, **SETTINGS)
    if scoring == "neg_max_error" and columns == 2:
        with pytest.raises(ValueError, match="Multioutput not supported"):
            model.fit(TEXTS, y, X_val=TEXTS, y_val=y)
        return
    model.fit(TEXTS, y, X_val=TEXTS, y_val=y)
    scorer = get_scorer(scoring) or LongBertRegressor.score
    assert model.history_[-1]["valid_score"] == pytest.approx(scorer(model, TEXTS, y), rel=1e-5)


@pytest.mark.parametrize("scoring", ["f1_macro", "neg_log_loss", None, "cohen", "no weights"])
def test_held_out_texts_are_scored_with_their_weights(
    classifier: partial, scoring: str | None
) -> None:
    seen: list[Any] = []

    def cohen(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> float:
        seen.append(sample_weight)
        return 0.5

    def without(estimator: Any, X: Any, y: Any) -> float:
        return float(len(X))

    own = {"cohen": cohen, "no weights": without}.get(str(scoring))
    model = classifier(early_stopping=True, validation_fraction=0.5, tol=0)
    model.set_params(scoring=own or scoring, n_iter_no_change=9)
    model.fit(TEXTS, LABELS, sample_weight=WEIGHTS)
    last = model.history_[model.best_epoch_ - 1]["valid_score"]
    kept: list[Any] = []
    model.set_params(scoring=lambda estimator, X, y, sample_weight: keep(kept, X, y, sample_weight))
    model.fit(TEXTS, LABELS, sample_weight=WEIGHTS)
    X, y, weights = kept[0]
    assert [WEIGHTS[TEXTS.index(text)] for text in X] == weights.tolist()
    assert [LABELS[TEXTS.index(text)] for text in X] == y.tolist()
    if own is None:
        model.set_params(scoring=scoring).fit(TEXTS, LABELS, sample_weight=WEIGHTS)
        scorer = get_scorer(scoring) or LongBertClassifier.score
        assert last == pytest.approx(scorer(model, X, y, sample_weight=weights), rel=1e-5)
    elif own is cohen:
        np.testing.assert_array_equal(seen[0], weights)
    else:
        assert last == 8


def keep(kept: list[Any], *values: Any) -> float:
    kept.append(values)
    return 0.0


def test_loss_is_negated_and_keeps_the_epoch_of_the_lowest(classifier: partial) -> None:
    model = classifier(scoring="loss", early_stopping=True, max_epochs=6, n_iter_no_change=1)
    model.set_params(learning_rate=5e-2, validation_fraction=0.5).fit(TEXTS, LABELS)
    losses = [row["valid_loss"] for row in model.history_]
    assert [row["valid_score"] for row in model.history_] == [-loss for loss in losses]
    assert model.best_epoch_ == 1 + int(np.argmin(losses))


def test_texts_are_encoded_once_an_epoch(
    classifier: partial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many predictions the scorer asks for; once more before the first epoch."""
    counts: list[int] = []
    forward = LongBertNetwork.encode

    def counting(self: Any, micro_batch: Any, *rest: Any) -> Any:
        if not self.training:
            counts.append(len(micro_batch.chunks))
        return forward(self, micro_batch, *rest)

    monkeypatch.setattr(LongBertNetwork, "encode", counting)

    def thrice(estimator: Any, X: Any, y: Any) -> float:
        return float(sum(estimator.predict_proba(X)[0, 0] for _ in range(3)))

    chunks = TextChunker(classifier().model_name, chunk_size=16).fit().transform(TEXTS[:4])
    n_chunks = sum(document.n_chunks for document in chunks)
    for scoring, n_passes in ((None, 3), (thrice, 4), ("loss", 3)):
        counts.clear()
        model = classifier(scoring=scoring)
        model.fit(TEXTS, LABELS, X_val=TEXTS[:4], y_val=LABELS[:4])
        assert sum(counts) == n_passes * n_chunks


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ("f1_makro", "'f1_makro' is not a valid scoring value"),
        (["f1_macro", "accuracy"], "'scoring' parameter of LongBertClassifier must be"),
        (f1_score, "looks like it is a metric function rather than a scorer"),
        ("f1", "pos_label=1 is not a valid label"),
        (lambda estimator, X, y: np.nan, "gave nan for the 4 validation texts"),
        (lambda estimator, X, y: None, "gave None for the 4 validation texts"),
    ],
)
def test_a_scoring_that_fails_does_so_before_training(
    classifier: partial, monkeypatch: pytest.MonkeyPatch, scoring: Any, message: str
) -> None:
    model = classifier(scoring=scoring)
    monkeypatch.setattr("sklearn_longbert._training.net.LongBertNet.fit_loop", None)  # no epoch
    with pytest.raises(ValueError, match=message):
        model.fit(TEXTS, LABELS, X_val=TEXTS[:4], y_val=LABELS[:4])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_a_score_that_is_undefined_is_an_error(classifier: partial) -> None:
    with pytest.raises(ValueError, match="gave nan for the 4 validation texts"):
        classifier(scoring="roc_auc").fit(TEXTS, LABELS, X_val=TEXTS[:8:2], y_val=LABELS[:8:2])


def test_a_callable_is_not_saved(classifier: partial, tmp_path: Any) -> None:
    model = classifier(scoring=share_of_yes, max_epochs=1).fit(TEXTS, LABELS)
    with pytest.warns(UserWarning, match=r"parameter scoring is not saved: .*set_params"):
        model.save_pretrained(tmp_path / "saved")
    assert LongBertClassifier.from_pretrained(tmp_path / "saved").scoring is None
    model.set_params(scoring="f1_macro").save_pretrained(tmp_path / "saved")
    assert LongBertClassifier.from_pretrained(tmp_path / "saved").scoring == "f1_macro"
