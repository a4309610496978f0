"""Pins that the picture of a fit shows the numbers of history_, and what cannot be shown."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from tiny import ENCODER_ALONE

from sklearn_longbert import HistoryDisplay, LongBertClassifier, LongBertRegressor

mpl.use("agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def make(tiny_bert, estimator_class=LongBertClassifier, **settings):
    settings = {
        "max_epochs": 4,
        "random_state": 0,
        "learning_rate": 1e-2,
        **ENCODER_ALONE,
        **settings,
    }
    return estimator_class(tiny_bert, **settings)


@pytest.mark.parametrize(
    ("estimator_class", "score_name"), [(LongBertClassifier, "accuracy"), (LongBertRegressor, "R²")]
)
def test_lines_are_those_of_history(tiny_bert, toy, estimator_class, score_name):
    y = [float(label == toy[1][0]) for label in toy[1]]
    estimator = make(tiny_bert, estimator_class, early_stopping=True, validation_fraction=0.3)
    display = HistoryDisplay.from_estimator(estimator.fit(toy[0], y))
    for name in ("train_loss", "valid_loss", "valid_score", "learning_rate"):
        x, values = display.lines_[name].get_data()
        assert list(x) == list(range(1, estimator.n_iter_ + 1))
        assert list(values) == [epoch[name] for epoch in estimator.history_]
    labels = [ax.get_ylabel() for ax in display.axes_]
    assert labels == ["loss", f"validation {score_name}", "learning rate"]
    marks = [line for line in display.axes_[1].lines if line.get_label() == "weights kept"]
    assert [list(line.get_xdata()) for line in marks] == [[estimator.best_epoch_] * 2]
    assert display.figure_ is display.axes_[0].figure


def test_without_validation_there_are_two_panels(tiny_bert, toy):
    classifier = make(tiny_bert, max_epochs=1).fit(*toy)
    _, axes = plt.subplots(1, 2)
    display = HistoryDisplay.from_estimator(classifier, axes=axes)
    assert list(display.axes_) == list(axes)
    assert set(display.lines_) == {"train_loss", "learning_rate"}
    assert all(line.get_label() != "weights kept" for ax in axes for line in ax.lines)
    assert [ax.get_xlabel() for ax in axes] == ["epoch"] * 2
    with pytest.raises(ValueError, match="1 axes where 2 are needed, for loss, learning rate"):
        HistoryDisplay.from_estimator(classifier, axes=axes[0])
    classifier.partial_fit(*toy)
    assert len(HistoryDisplay.from_estimator(classifier).lines_["train_loss"].get_xdata()) == 2


def test_partial_fits_after_validation_are_shown_too(tiny_bert, toy):
    classifier = make(tiny_bert, max_epochs=2).fit(*toy, X_val=toy[0], y_val=toy[1])
    display = HistoryDisplay.from_estimator(classifier.partial_fit(*toy))
    assert list(display.lines_["train_loss"].get_xdata()) == [1, 2, 3]
    assert list(display.lines_["valid_score"].get_xdata()) == [1, 2]


def test_what_cannot_be_shown_says_so(tiny_bert):
    with pytest.raises(NotFittedError):
        HistoryDisplay.from_estimator(make(tiny_bert))
    with pytest.raises(TypeError, match=r"a Pipeline where .* pipeline\[-1\]"):
        HistoryDisplay.from_estimator(make_pipeline(make(tiny_bert)))
    with pytest.raises(ValueError, match="no epoch"):
        HistoryDisplay([]).plot()
