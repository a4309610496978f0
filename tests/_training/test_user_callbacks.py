"""Pins that skorch's own callbacks work inside of a fit, or are refused before it."""

import pickle
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, r2_score
from sklearn.model_selection import GridSearchCV
from skorch import callbacks as skorchs
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LoadInitState,
    PassthroughScoring,
    PrintLog,
)

from sklearn_longbert import HistoryDisplay, LongBertClassifier, LongBertRegressor

SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 4,
    "batch_size": 4,
    "learning_rate": 2e-2,
    "head_init": "random",
    "random_state": 0,
}
TEXTS = [f"{word} story the quick fox {'brown ' * i}" for i in range(8) for word in ("good", "bad")]
LABELS = np.array(["yes", "no"] * 8)
HALF = {"X_val": TEXTS[5:13], "y_val": LABELS[5:13]}


@pytest.fixture
def classifier(tiny_bert: str) -> partial:
    return partial(LongBertClassifier, tiny_bert, **SETTINGS)


class Snapshots(Callback):
    """Keeps the weights after each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Any]] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        state = net.module_.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})


def epochs_kept(model: Any, snapshots: Snapshots) -> list[int]:
    """Return the epochs, counted from 1, whose weights a fitted estimator has."""
    state = model.net_.module_.state_dict()
    return [
        number
        for number, weights in enumerate(snapshots.weights, start=1)
        if all(bool((weights[name] == value).all()) for name, value in state.items())
    ]


def column(model: Any, key: str) -> list[float]:
    return model.net_.history[:, key]


@pytest.mark.parametrize("held_out", ["given", "fraction"])
def test_early_stopping_on_the_f1_of_epoch_scoring(classifier: partial, held_out: str) -> None:
    snapshots = Snapshots()
    stopper = EarlyStopping("f1_macro", lower_is_better=False, load_best=True, patience=2)
    scoring = EpochScoring("f1_macro", lower_is_better=False)
    model = classifier(callbacks=[scoring, stopper, snapshots], scoring="f1_macro", max_epochs=9)
    if held_out == "given":
        model.fit(TEXTS, LABELS, **HALF)
        expected = f1_score(HALF["y_val"], model.predict(HALF["X_val"]), average="macro")
        assert max(column(model, "f1_macro")) == expected
    else:
        model.set_params(early_stopping=True, validation_fraction=0.5, n_iter_no_change=99)
        model.fit(TEXTS, LABELS)
    scores = column(model, "f1_macro")
    assert scores == column(model, "valid_score")
    assert model.n_iter_ == min(1 + int(np.argmax(scores)) + 2, 9)
    assert epochs_kept(model, snapshots) == [model.best_epoch_] == [1 + int(np.argmax(scores))]


def test_scoring_callbacks_get_named_targets_and_predictions(classifier: partial) -> None:
    asked: list[Any] = []

    def scoring(net: Any, X: Any, y: Any) -> float:
        asked.append((net.classes_.tolist(), y.tolist(), net.predict(X).tolist()))
        return float(net.predict_proba(X)[0, 1])

    callbacks = [
        EpochScoring(scoring, name="own"),
        EpochScoring("roc_auc", lower_is_better=None),
        BatchScoring("accuracy", name="of_batches", lower_is_better=False),
        EpochScoring(None, name="default", lower_is_better=False),
        PassthroughScoring("valid_loss"),
    ]
    model = classifier(callbacks=callbacks).fit(TEXTS, LABELS, **HALF)
    X, y = HALF["X_val"], HALF["y_val"]
    assert asked[-1] == (["no", "yes"], y.tolist(), model.predict(X).tolist())
    last = model.net_.history[-1]
    assert last["own"] == pytest.approx(model.predict_proba(X)[0, 1], rel=1e-5)
    assert last["default"] == last["of_batches"] == last["valid_score"] == model.score(X, y)
    assert "roc_auc" in last
    assert "roc_auc_best" not in last


def test_batches_of_training_are_scored_too(classifier: partial) -> None:
    seen: list[tuple[list[str], list[str]]] = []

    class Spy(Callback):
        def on_batch_end(self, net: Any, batch: Any, training: bool, **kwargs: Any) -> None:
            indices = kwargs["y_pred"].argmax(1).tolist()
            seen.append((batch[1][0].tolist(), indices))

    callbacks = [
        EpochScoring("accuracy", on_train=True, name="of_epoch", lower_is_better=False),
        BatchScoring("accuracy", on_train=True, name="of_batches", lower_is_better=False),
        Spy(),
    ]
    model = classifier(callbacks=callbacks, max_epochs=1)
    for run in (model.fit, model.partial_fit):
        seen.clear()
        run(TEXTS, LABELS)
        true, predicted = (np.concatenate(part) for part in zip(*seen, strict=True))
        last = model.net_.history[-1]
        assert last["of_epoch"] == last["of_batches"] == accuracy_score(true, predicted)


def test_epoch_scoring_of_labels_and_of_numbers(classifier: partial, tiny_bert: str) -> None:
    table = np.column_stack([np.arange(16) % 2, np.arange(16) // 2 % 2])
    scorings = [EpochScoring("average_precision"), EpochScoring("f1_macro", on_train=True)]
    model = classifier(callbacks=scorings).fit(TEXTS, table, X_val=TEXTS, y_val=table)
    expected = average_precision_score(table, model.predict_proba(TEXTS))
    assert column(model, "average_precision")[-1] == pytest.approx(expected)
    numbers = np.arange(16) * 1e3 + 7
    scorings = [EpochScoring("r2"), EpochScoring("neg_max_error", on_train=True)]
    model = LongBertRegressor(tiny_bert, callbacks=scorings, **SETTINGS)
    model.fit(TEXTS, numbers, X_val=TEXTS, y_val=numbers)
    expected = r2_score(numbers, model.predict(TEXTS))
    assert column(model, "r2")[-1] == pytest.approx(expected, rel=1e-4)
    assert column(model, "neg_max_error")[-1] < -100  # in the unit of the caller


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([EpochScoring("accuracy")], r"index 0, EpochScoring, scores validation texts.*X_val"),
        ([BatchScoring("accuracy")], r"BatchScoring, scores validation texts"),
        ([PassthroughScoring("valid_loss")], r"PassthroughScoring, scores validation texts"),
        ([EarlyStopping()], r"EarlyStopping, monitors 'valid_loss'.*'train_loss'.*X_val and y_val"),
        ([EarlyStopping], r"index 0, EarlyStopping, monitors 'valid_loss'"),
        ([Checkpoint()], r"Checkpoint, monitors 'valid_loss_best'"),
        ([("named", Checkpoint())], r"Checkpoint, monitors 'valid_loss_best'"),
        ([skorchs.WandbLogger(None)], r"WandbLogger, monitors 'valid_loss_best'"),
    ],
)
def test_what_needs_validation_texts_is_refused_without(
    classifier: partial, callbacks: list[Any], message: str
) -> None:
    model = classifier(callbacks=callbacks)
    for run in (model.fit, partial(model.partial_fit, classes=["no", "yes"])):
        with pytest.raises(ValueError, match=message):
            run(TEXTS, LABELS)
    assert not hasattr(model, "net_")


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ([EarlyStopping("valid_acc")], r"monitors 'valid_acc'.*'valid_loss', .*'valid_score'"),
        ([EarlyStopping("f1"), EpochScoring("f1")], r"monitors 'f1'.* callbacks after it"),
        ([EpochScoring("f1", name="x"), EarlyStopping("f1")], r"index 1.* monitors 'f1'.*'x_best'"),
        ([EpochScoring("f1_makro")], r"'f1_makro' is not a valid scoring value"),
        ([EpochScoring("accuracy", use_caching=False)], r"use_caching=False.* leave it at True"),
        ([skorchs.InputShapeSetter()], r"InputShapeSetter.* leave it out"),
    ],
)
def test_what_cannot_work_is_refused_before_training(
    classifier: partial, callbacks: list[Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(callbacks=callbacks).fit(TEXTS, LABELS, **HALF)


def test_monitors_of_keys_that_others_record(classifier: partial) -> None:
    class Recorder(Callback):
        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            net.history.record("own", -float(len(net.history)))

    names = ["train_loss", "valid_score", "train_loss_best", "event_cp", "dur"]
    callbacks = [Checkpoint(f_params=None, f_optimizer=None, f_criterion=None, f_history=None)]
    callbacks += [Recorder(), *map(EarlyStopping, [*names, "own"])]
    assert classifier(callbacks=callbacks).fit(TEXTS, LABELS, **HALF).n_iter_ == 4


def test_print_log_prints_its_columns(
    classifier: partial, capsys: pytest.CaptureFixture[str]
) -> None:
    score = EpochScoring("f1_macro", lower_is_better=False)
    model = classifier(callbacks=[score, PrintLog()]).fit(TEXTS, LABELS, **HALF)
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "epoch",
        "f1_macro",
        *("train_loss", "valid_loss", "valid_score", "dur"),
    ]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert f"{model.history_[0]['train_loss']:.4f}" in rows[0]
    classifier(callbacks=[EarlyStopping("train_loss", patience=1, threshold=9)]).fit(TEXTS, LABELS)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("monitor", ["valid_loss_best", "valid_score_best", "train_loss_best"])
def test_the_best_epoch_beside_checkpoint(
    classifier: partial, monitor: str, tmp_path: Path
) -> None:
    snapshots = Snapshots()
    checkpoint = Checkpoint(monitor, dirname=str(tmp_path), load_best=True)
    model = classifier(callbacks=[checkpoint, snapshots], max_epochs=6).fit(TEXTS, LABELS, **HALF)
    values = np.array([row[monitor.removesuffix("_best")] for row in model.history_])
    best = int(np.argmax(values if "score" in monitor else -values))
    assert model.n_iter_ == len(model.history_) == 6
    assert epochs_kept(model, snapshots) == [model.best_epoch_] == [1 + best]
    assert HistoryDisplay.from_estimator(model).best_epoch == 1 + best
    again = pickle.loads(pickle.dumps(model.set_params(callbacks=None)))
    assert (again.best_epoch_, again.n_iter_) == (1 + best, 6)


def test_the_best_epoch_of_weights_that_were_loaded(classifier: partial, tmp_path: Path) -> None:
    """The second fit goes on from the first epoch's weights and history, and gets worse."""
    rising = EpochScoring(lambda net, X, y: -float(len(net.history)), False, name="falling")
    checkpoint = Checkpoint("falling_best", dirname=str(tmp_path), load_best=True)
    first = classifier(callbacks=[rising, checkpoint]).fit(TEXTS, LABELS, **HALF)
    assert (first.best_epoch_, first.n_iter_) == (1, 4)
    callbacks = [LoadInitState(checkpoint), rising, checkpoint]
    second = classifier(callbacks=callbacks, max_epochs=2).fit(TEXTS, LABELS, **HALF)
    assert (second.best_epoch_, second.n_iter_) == (1, 3)  # one loaded, two run
    assert [row["epoch"] for row in second.history_] == [1, 2, 3]
    assert second.history_[0] == first.history_[0]
    np.testing.assert_array_equal(second.predict_proba(TEXTS), first.predict_proba(TEXTS))
    third = classifier(callbacks=[LoadInitState(checkpoint)], max_epochs=2).fit(TEXTS, LABELS)
    assert (third.best_epoch_, third.n_iter_) == (3, 3)


def test_the_best_epoch_beside_another_stopper(classifier: partial) -> None:
    """Both bring weights back in the end; the user's callback comes last."""
    snapshots = Snapshots()
    stopper = EarlyStopping("epoch", load_best=True, patience=9)  # the first epoch is best
    model = classifier(callbacks=[stopper, snapshots], early_stopping=True, n_iter_no_change=9)
    model.set_params(scoring=lambda estimator, X, y: float(len(estimator.history_)))
    model.fit(TEXTS, LABELS, **HALF)
    assert [row["valid_score"] for row in model.history_] == sorted(
        row["valid_score"] for row in model.history_
    )
    assert epochs_kept(model, snapshots) == [model.best_epoch_] == [1]


def test_frozen_parameters_stay(classifier: partial) -> None:
    snapshots = Snapshots()
    model = classifier(callbacks=[Freezer("encoder.*"), snapshots]).fit(TEXTS, LABELS)
    first, last = snapshots.weights[0], snapshots.weights[-1]
    changed = {name for name in first if not bool((first[name] == last[name]).all())}
    assert changed == {"head.weight", "head.bias"}
    assert epochs_kept(model, snapshots) == [4]


def test_progress_bar_counts_all_batches(
    classifier: partial, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier(callbacks=[skorchs.ProgressBar(detect_notebook=False)]).fit(TEXTS, LABELS, **HALF)
    assert "/5 [" in capsys.readouterr().err  # four of training, and the validation texts


class Holder(Callback):
    """Reports to something that cannot be copied."""

    def __init__(self, seen: list[int]) -> None:
        self.seen = seen
        self.lock = threading.Lock()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        with self.lock:
            self.seen.append(len(net.history))


def test_clones_and_searches_use_the_same_callbacks(classifier: partial) -> None:
    seen: list[int] = []
    callbacks = [Holder(seen), ("stopper", EarlyStopping("train_loss"))]
    model = classifier(callbacks=callbacks, max_epochs=2)
    copy = clone(model)
    assert copy.callbacks == callbacks
    assert copy.callbacks is not model.callbacks
    assert clone(copy.set_params(callbacks=None)).callbacks is None
    GridSearchCV(model, {"learning_rate": [1e-3, 1e-2]}, cv=2).fit(TEXTS, LABELS)
    assert seen == [1, 2] * 5
    assert model.callbacks == callbacks
