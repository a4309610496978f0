"""Pins that the callbacks of scikit-learn see a fit as it is, and leave it as it would be."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from tiny import ENCODER_ALONE

from sklearn_longbert import (
    HistoryDisplay,
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
)
from sklearn_longbert._fit_tasks import FitTask

mpl.use("agg")

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.8 has no callbacks")


class Recorder:
    """Keeps what it is told, and asks to stop at the end of the tasks of one name."""

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.told, self.given, self.fitted = [], [], []

    def setup(self, estimator, context):
        self.told.append("setup")

    def teardown(self, estimator, context):
        self.told.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.told.append(f"begin {context.task_name} {context.task_id}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.told.append(f"end {context.task_name} {context.task_id}")
        self.given.append((X, y, metadata))
        if hasattr(fitted_estimator, "predict"):
            self.fitted.append((fitted_estimator, fitted_estimator.predict(X[:5])))
        return context.task_name == self.stop_at


def make(tiny_bert, estimator_class=LongBertClassifier, **settings):
    settings = {"max_epochs": 2, "batch_size": 8, "random_state": 0, **ENCODER_ALONE, **settings}
    return estimator_class(tiny_bert, learning_rate=3e-2, **settings)


@pytest.mark.parametrize("estimator_class", [LongBertClassifier, LongBertRegressor])
def test_a_fit_is_told_epoch_by_epoch_and_batch_by_batch(tiny_bert, toy, estimator_class):
    texts, labels = toy[0][:12], (np.array(toy[1][:12]) == toy[1][0]).astype(int)
    recorder, weights = Recorder(), np.linspace(1, 2, 12)
    estimator = make(tiny_bert, estimator_class).set_callbacks(recorder)
    estimator.fit(texts, labels, sample_weight=weights)
    epoch = ["begin batch 0", "end batch 0", "begin batch 1", "end batch 1"]  # of 8 and 4 texts
    assert recorder.told == [
        *["setup", "begin fit 0"],
        *["begin epoch 0", *epoch, "end epoch 0"],
        *["begin epoch 1", *epoch, "end epoch 1"],
        *["end fit 0", "teardown"],
    ]
    for X, y, metadata in recorder.given:
        assert X is texts
        assert y is labels
        assert metadata["sample_weight"] is weights


@pytest.mark.parametrize("transformer_class", [TextChunker, LongBertVectorizer])
def test_a_transformer_has_one_task(tiny_bert, toy, transformer_class):
    recorder = Recorder()
    transformer_class(tiny_bert).set_callbacks(recorder).fit(toy[0])
    assert recorder.told == ["setup", "begin fit 0", "end fit 0", "teardown"]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_told_changes_nothing(tiny_bert, toy, frozen):
    plain = make(tiny_bert, freeze_encoder=frozen, max_epochs=3).fit(*toy)
    recorder = Recorder()
    told = make(tiny_bert, freeze_encoder=frozen, max_epochs=3).set_callbacks(recorder).fit(*toy)
    assert (told.decision_function(toy[0]) == plain.decision_function(toy[0])).all()
    # copies that predict as they did, while training went on; the last one is of the whole fit
    assert len(recorder.fitted) == 4
    for copy, predicted in recorder.fitted:
        assert (copy.predict(toy[0][:5]) == predicted).all()
    first, last = recorder.fitted[0][0], recorder.fitted[-1][0]
    assert (last.decision_function(toy[0]) == told.decision_function(toy[0])).all()
    assert (first.decision_function(toy[0]) != told.decision_function(toy[0])).any()


def test_a_copy_is_a_fitted_estimator_of_its_own(tiny_bert, toy, tmp_path):
    recorder = Recorder()
    settings = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 30}
    told = make(tiny_bert, max_epochs=3, **settings).fit(*toy)
    told.set_callbacks(recorder).set_params(max_epochs=2).fit(*toy)
    plain = make(tiny_bert, max_epochs=2, **settings).fit(*toy)
    for number, (copy, _) in enumerate(recorder.fitted[:2], start=1):
        assert copy.n_iter_ == copy.best_epoch_ == len(copy.history_) == number
        assert HistoryDisplay.from_estimator(copy).lines_
        plt.close("all")
        copy.save_pretrained(tmp_path / str(number))
        again = LongBertClassifier.from_pretrained(tmp_path / str(number))
        assert (again.decision_function(toy[0]) == copy.decision_function(toy[0])).all()
        copy.set_params(early_stopping=False).partial_fit(*toy)
    whole = recorder.fitted[-1][0]
    assert whole.best_epoch_ == told.best_epoch_ == plain.best_epoch_
    assert (whole.decision_function(toy[0]) == told.decision_function(toy[0])).all()
    # nor does what becomes of the copies change what the estimator draws next
    for estimator in (told, plain):
        estimator.set_params(early_stopping=False).partial_fit(*toy)
    assert (told.decision_function(toy[0]) == plain.decision_function(toy[0])).all()


def test_scoring_monitor_sees_what_validation_sees(tiny_bert, toy):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    classifier = make(tiny_bert, max_epochs=4, head_init="random").set_callbacks(monitor)
    classifier.fit(*toy, X_val=toy[0], y_val=toy[1])
    scores = [row["accuracy"] for row in monitor.get_logs().data]
    assert scores[1:] == [epoch["valid_score"] for epoch in classifier.history_]
    assert len(set(scores)) > 1
    assert scores[0] == classifier.score(*toy)  # of the fit itself


@pytest.mark.parametrize("stop_at", ["epoch", "batch"])
def test_a_callback_that_asks_ends_training_after_the_epoch(tiny_bert, toy, stop_at):
    recorder = Recorder(stop_at)
    classifier = make(tiny_bert, max_epochs=5).set_callbacks(recorder).fit(*toy)
    assert classifier.n_iter_ == 1
    assert recorder.told[-3:] == ["end epoch 0", "end fit 0", "teardown"]
    assert len(classifier.predict(toy[0])) == len(toy[0])


def test_early_stopping_ends_the_tasks_too(tiny_bert, toy):
    recorder = Recorder()
    classifier = make(tiny_bert, max_epochs=30, early_stopping=True, n_iter_no_change=1)
    classifier.set_callbacks(recorder).fit(*toy)
    assert classifier.n_iter_ < 30
    last = f"end epoch {classifier.n_iter_ - 1}"
    assert recorder.told[-3:] == [last, "end fit 0", "teardown"]


def test_a_fit_that_fails_is_torn_down(tiny_bert, toy):
    recorder = Recorder()
    classifier = make(tiny_bert).set_callbacks(recorder)
    with pytest.raises(ValueError, match="one class only"):
        classifier.fit(toy[0], ["same"] * len(toy[0]))
    assert recorder.told == ["setup", "begin fit 0", "teardown"]


def search(tiny_bert, n_jobs):
    pipeline = make_pipeline(TextChunker(tiny_bert), make(tiny_bert))
    grid = {"longbertclassifier__learning_rate": [1e-3, 1e-2]}
    return GridSearchCV(pipeline, grid, cv=2, n_jobs=n_jobs)


def test_a_search_shows_every_epoch(tiny_bert, toy, capsys):
    pytest.importorskip("rich", reason="scikit-learn's ProgressBar needs it")
    bar = callback.ProgressBar(max_propagation_depth=None)
    search(tiny_bert, 1).set_callbacks(bar).fit(*toy)
    out = capsys.readouterr().out
    assert out.count("LongBertClassifier - epoch #1") == 5  # four candidate splits and the refit
    assert out.count("TextChunker") == 5


@pytest.mark.slow
def test_monitors_hear_from_workers(tiny_bert, toy):
    monitor = callback.ScoringMonitor(scoring="accuracy")
    searched = search(tiny_bert, 2)
    searched.estimator.steps[-1][1].set_callbacks(monitor)
    searched.fit(*toy)
    assert len([row for log in monitor.get_logs("all") for row in log.data]) == 15


def test_without_callbacks_in_scikit_learn_nothing_is_told():
    task = FitTask.of(object(), ["text"], n_subtasks=1)
    assert task.subtask("epoch").end(fitted=lambda: 1 / 0) is False
    assert task.end() is False
