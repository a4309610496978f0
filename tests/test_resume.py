"""A fit that was killed goes on, and ends at the weights of one that was not.

`killed_fits.py` runs the fits in processes of their own; this file reads what came out.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import joblib
import numpy as np
import pytest
import skorch.callbacks
import torch
from killed_fits import CASES, CLASSES, X
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, TextChunker
from sklearn_longbert._net_factory import NOT_IN_KEY
from sklearn_longbert._targets.targets import targets_of_labels
from sklearn_longbert._training import resume
from sklearn_longbert._training.labelled import Labelled

FEW = ["defaults", "random chunks"]


class Stop(skorch.callbacks.Callback):
    """Fail when some steps are done, as Ctrl-C would."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def on_batch_begin(self, net: Any, training: bool = False, **_: Any) -> None:
        if training and net.step_ == self.n_steps:
            raise KeyboardInterrupt


@pytest.fixture
def model(tiny_bert: str, tmp_path: Path) -> Callable[..., LongBertClassifier]:
    """An estimator of 15 steps, whose checkpoints are written after each."""
    settings = {"chunk_size": 10, "batch_size": 3, "learning_rate": 1e-2, "random_state": 7}
    settings |= {"checkpoint_folder": tmp_path / "checkpoints", "checkpoint_interval": 0}
    return partial(LongBertClassifier, tiny_bert, **ENCODER_ALONE, **settings)


def interrupted(estimator: LongBertClassifier, n_steps: int, *data: Any) -> LongBertClassifier:
    """Return the estimator, whose fit was interrupted after some steps, ready for another one."""
    estimator.set_params(callbacks=[Stop(n_steps)])
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*(data or (X, CLASSES)))
    return estimator.set_params(callbacks=None)


def files(estimator: LongBertClassifier) -> list[Path]:
    return sorted(Path(estimator.checkpoint_folder).glob("*/*"))


def n_steps_of(estimator: Any, *data: Any) -> int:
    """Return how many steps a fit takes."""
    steps: list[int] = []

    class Count(skorch.callbacks.Callback):
        def on_grad_computed(self, net: Any, **_: Any) -> None:
            steps.append(net.step_)

    estimator.set_params(callbacks=[Count()]).fit(*(data or (X, CLASSES)))
    return len(steps)


def check_killed(encoders: Path, folder: Path, *cases: str) -> list[str]:
    """Return how the fits of these cases were killed; all else must be as without kills."""
    script = Path(__file__).with_name("killed_fits.py")
    done = subprocess.run(
        [sys.executable, script, encoders, folder, *cases],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["case"] for line in lines[::2]] == list(cases)
    for line in lines:
        assert line["kills"]
        assert line["differences"] == line["left"] == []
    return [kill for line in lines for kill in line["kills"]]


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_kills(encoders: Path, tmp_path: Path) -> None:
    assert len(check_killed(encoders, tmp_path, *FEW)) > 7


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_kills_of_all_cases(encoders: Path, tmp_path: Path) -> None:
    assert len(check_killed(encoders, tmp_path, *CASES)) > 100


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_goes_on_and_leaves_nothing(
    model: Callable[..., LongBertClassifier], precision: str
) -> None:
    expected = model(checkpoint_folder=None, precision=precision).fit(X, CLASSES)
    other = interrupted(model(precision=precision), 7)
    assert [path.name for path in files(other)] == [resume.FILE]
    assert n_steps_of(other) == 15 - 7
    np.testing.assert_array_equal(other.decision_function(X), expected.decision_function(X))
    assert other.best_epoch_ == other.n_iter_ == 3
    assert files(other) == []
    assert n_steps_of(other) == 15  # a fit that has ended is run anew


OTHERS = {
    "micro_batch_tokens": 20,
    "verbose": 1,
    "device": torch.device("cpu"),
    "checkpoint_interval": 10,
}
PLACES = {"checkpoint_folder", "checkpoint_interval"}


@pytest.mark.parametrize("name", OTHERS)
def test_what_weights_do_not_depend_on_may_change(name, model) -> None:
    assert n_steps_of(interrupted(model(), 7).set_params(**{name: OTHERS[name]})) == 15 - 7


def test_other_parameters_start_anew(model) -> None:
    other = interrupted(model(), 7).set_params(max_epochs=4)
    assert n_steps_of(other) == 20
    assert len(files(other)) == 1  # that of the first fit, which may go on
    assert n_steps_of(interrupted(model(), 9)) == 15 - 9


class Own:
    """A baseline or a scoring whose repr tells nothing of it."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        return float(self.value)


def test_the_key_has_each_parameter(model) -> None:
    """And their values whole, whatever their repr shows."""
    targets = targets_of_labels(CLASSES)
    data = Labelled(X, CLASSES, np.ones(len(X)))

    def key(**parameters: Any) -> bytes:
        estimator = model().set_params(**parameters)
        return estimator._make_checkpoint(targets, data, None).key

    for name in model().get_params():
        if name not in PLACES:
            assert (key(**{name: f"another {name}"}) == key()) == (name in NOT_IN_KEY), name
    many = [f"word{number}" for number in range(100)]
    values: list[Any] = [Own(1), Own(2), TfidfVectorizer(stop_words=many)]
    values += [TfidfVectorizer(stop_words=[*many[:-1], "other"])]
    assert len({key(baseline=value) for value in values}) == 4
    assert key(class_weight={1: 2.0, 0: 3.0}) == key(class_weight={0: 3.0, 1: np.float64(2)})
    other = targets_of_labels(np.array(["a", "b", "c"])[CLASSES])
    assert model()._make_checkpoint(other, data, None).key != key()
    assert model()._make_checkpoint(targets, data, data).key != key()
    grouped = replace(data, groups=np.arange(len(X)) // 2)
    assert model()._make_checkpoint(targets, grouped, None).key != key()


def test_micro_batches_may_shrink(model) -> None:
    """A fit that was killed because memory ran out."""
    other = interrupted(model(micro_batch_tokens=1000), 7).set_params(micro_batch_tokens=12)
    limits = []

    class Look(skorch.callbacks.Callback):
        def on_grad_computed(self, net: Any, **_: Any) -> None:
            limits.append(net.limits_)

    other.set_params(callbacks=[Look()]).fit(X, CLASSES)
    assert set(limits) == {(12, 12)}


def test_layers_that_a_callback_freezes(model) -> None:
    def callbacks(*more: Any) -> list[Any]:
        freezer = skorch.callbacks.Freezer("encoder.*", at=2)
        return [freezer, skorch.callbacks.Unfreezer("encoder.*", at=3), *more]

    expected = model(checkpoint_folder=None, callbacks=[callbacks()[0]]).fit(X, CLASSES)
    stopped = model(callbacks=[callbacks()[0], Stop(12)])  # an epoch later, it is still frozen
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, CLASSES)
    stopped.set_params(callbacks=[callbacks()[0]]).fit(X, CLASSES)
    np.testing.assert_array_equal(stopped.decision_function(X), expected.decision_function(X))
    expected = model(checkpoint_folder=None, callbacks=callbacks()).fit(X, CLASSES)
    for n_steps in (7, 12):
        other = model(callbacks=callbacks(Stop(n_steps)))
        with pytest.raises(KeyboardInterrupt):
            other.fit(X, CLASSES)
        other.set_params(callbacks=callbacks()).fit(X, CLASSES)
        np.testing.assert_array_equal(other.decision_function(X), expected.decision_function(X))


def test_best_scores_go_on(model) -> None:
    """Those of the losses, by which skorch's Checkpoint keeps an epoch."""
    seen = []

    class Look(skorch.callbacks.Callback):
        def on_batch_begin(self, net: Any, **_: Any) -> None:
            losses = [epoch["train_loss"] for epoch in net.history if "train_loss" in epoch]
            seen.append((dict(net.callbacks_)["train_loss"].best_score_, min(losses)))

    interrupted(model(), 7).set_params(callbacks=[Look()]).fit(X, CLASSES)
    assert len(seen) == 8
    assert all(best == least for best, least in seen)


def test_a_fit_killed_at_its_very_end(model, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model(checkpoint_folder=None).fit(X, CLASSES)
    with monkeypatch.context() as patch:
        patch.setattr(resume.FitCheckpoint, "remove", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            model().fit(X, CLASSES)
    other = model()
    assert n_steps_of(other) == 0
    np.testing.assert_array_equal(other.decision_function(X), expected.decision_function(X))


def test_an_equal_fit_that_ends_first_does_no_harm(model) -> None:
    """It deletes the folder in which this one is writing."""
    save_file, calls = resume.save_file, []

    def delete_once(*arguments: Any) -> None:
        if not calls:
            shutil.rmtree(Path(arguments[1]).parent)
        calls.append(arguments)
        save_file(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume, "save_file", delete_once)
        assert n_steps_of(model()) == 15
    assert len(calls) > 2


def test_failing_writes_are_named(model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "save_file", Mock(side_effect=OSError("No space left on device")))
    with pytest.raises(OSError, match=r"checkpoint .*fit.safetensors could not be written \(No sp"):
        model().fit(X, CLASSES)


def test_a_history_without_a_form_is_named(model) -> None:
    class Record(skorch.callbacks.Callback):
        def on_batch_end(self, net: Any, **_: Any) -> None:
            net.history.record("odd", torch.tensor(1.0))

    with pytest.raises(TypeError, match=r"checkpoint cannot be written, .* a callback has put it"):
        model(callbacks=[Record()]).fit(X, CLASSES)


DATA = {
    "another text": ([*X[:-1], X[-1] + " good"], CLASSES),
    "another case": ([*X[:-1], X[-1].upper()], CLASSES),
    "another order": (X[::-1], CLASSES[::-1]),
    "another label": (X, [*CLASSES[:-1], 0]),
    "a weight": (X, CLASSES, [1.0] * 13 + [2.0]),
}


@pytest.mark.parametrize("name", DATA)
def test_other_data_starts_anew(name, model) -> None:
    assert n_steps_of(interrupted(model(), 7), *DATA[name]) == 15


def test_other_chunks_start_anew(model, tiny_bert: str) -> None:
    """Where TextChunker has cut, the parameters of the estimator do not tell how."""
    cut = [TextChunker(tiny_bert, chunk_size=size).fit_transform(X) for size in (10, 9)]
    other = interrupted(model(chunk_size=None), 7, cut[0], CLASSES)
    assert n_steps_of(other, cut[1], CLASSES) == 15
    assert n_steps_of(other, cut[0], CLASSES) == 15 - 7


def test_another_encoder_of_the_same_name_starts_anew(
    tiny_bert: str, model, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_bert, folder)
    other = interrupted(model().set_params(model_name=folder), 7)
    changed = LongBertClassifier(folder, **ENCODER_ALONE, max_epochs=1).fit(X, CLASSES)
    changed.net_.module_.encoder.save_pretrained(folder)
    assert n_steps_of(other) == 15


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_file_is_named(damage, model) -> None:
    other = interrupted(model(), 7)
    (path,) = files(other)
    content = bytearray(path.read_bytes())
    if damage == "changed":
        content[-1] ^= 1
    path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    with pytest.raises(ValueError, match=f"The checkpoint .*{resume.FILE} is damaged"):
        other.fit(X, CLASSES)
    path.unlink()
    assert n_steps_of(other) == 15


@pytest.mark.parametrize("random_state", [None, np.random.RandomState(0)])
def test_a_seed_is_needed(random_state, model) -> None:
    with pytest.raises(ValueError, match="checkpoint_folder needs a random_state that is the same"):
        model(random_state=random_state).fit(X, CLASSES)


def test_what_is_refused(model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="partial_fit does not support checkpoint_folder"):
        model().partial_fit(X, CLASSES, classes=[0, 1, 2])
    with pytest.raises(ValueError, match="'checkpoint_interval' parameter"):
        model(checkpoint_interval=-1).fit(X, CLASSES)
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(OSError, match=r"checkpoint_folder=.* cannot be made .*pass a folder"):
            model(checkpoint_folder=folder).fit(X, CLASSES)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        model(checkpoint_folder=tmp_path / "file").fit(X, CLASSES)


def test_weights_that_diverge_are_not_kept(model) -> None:
    other = model(learning_rate=1e30, max_grad_norm=None, head_init="random")
    with pytest.raises(ValueError, match="NaN or infinite"):
        other.fit(X, CLASSES)
    assert files(other) == []
    last = model(learning_rate=1e38, max_epochs=1, batch_size=100, max_grad_norm=None)
    with pytest.raises(ValueError, match="NaN or infinite"):
        last.fit(X, CLASSES)
    assert files(last) == []


def test_clones_of_a_search_do_not_collide(model) -> None:
    grid = {"learning_rate": [2e-2, 3e-2]}  # not that of the fit that is interrupted
    expected = GridSearchCV(model(checkpoint_folder=None), grid, cv=2).fit(X, CLASSES)
    search = GridSearchCV(interrupted(model(), 7), grid, cv=2).fit(X, CLASSES)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"]
    )
    assert len(files(model())) == 1  # of the fit that was interrupted


def test_a_copy_that_was_saved_goes_on(model, tmp_path: Path) -> None:
    """The estimator is another one, as in another process."""
    other = interrupted(model(), 7)
    joblib.dump(clone(other), tmp_path / "estimator")
    assert n_steps_of(joblib.load(tmp_path / "estimator")) == 15 - 7


def test_another_process_finds_it(model, tiny_bert: str) -> None:
    """Whatever the seed of Python's hashes, and where a function or a scorer lies in memory."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from killed_fits import CLASSES, X
from sklearn.metrics import accuracy_score, make_scorer
from sklearn_longbert import LongBertClassifier, TextChunker
from test_resume import Stop
model = LongBertClassifier(
    {tiny_bert!r}, layers="last", baseline=None, max_epochs=1, random_state=0,
    checkpoint_folder={str(model().checkpoint_folder)!r}, scoring=make_scorer(accuracy_score),
)
model.set_params(callbacks=[Stop(1)])
try:
    model.fit(X, CLASSES)
except KeyboardInterrupt:
    pass
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONHASHSEED": "1"})
    here = LongBertClassifier(
        tiny_bert,
        **ENCODER_ALONE,
        max_epochs=1,
        random_state=0,
        checkpoint_folder=model().checkpoint_folder,
        scoring=make_scorer(accuracy_score),
    )
    interrupted(here, 1)
    assert len(files(here)) == 1


def test_callbacks_of_skorch_see_the_whole_history(model, tiny_bert: str) -> None:
    checkpoint = skorch.callbacks.EpochScoring("accuracy", lower_is_better=False, name="seen")
    given = {"X_val": X, "y_val": CLASSES}
    expected = model(checkpoint_folder=None).set_params(callbacks=[checkpoint])
    expected.fit(X, CLASSES, **given)
    other = model().set_params(callbacks=[checkpoint, Stop(8)])
    with pytest.raises(KeyboardInterrupt):
        other.fit(X, CLASSES, **given)
    other.set_params(callbacks=[checkpoint]).fit(X, CLASSES, **given)
    names = ["epoch", "seen", "seen_best", "train_batch_count", "valid_batch_count"]
    names += ["train_loss_best", "valid_loss_best"]
    for name in names:
        assert other.net_.history[:, name] == expected.net_.history[:, name]


def test_what_callbacks_record_of_a_batch_is_kept(model) -> None:
    """A checkpoint is written after them, and never between the last batch and the epoch's end."""
    places = []
    write = resume.FitCheckpoint.write

    def record_place(checkpoint: Any, net: Any, is_finished: bool = False) -> None:
        if not is_finished:
            places.append(len(net.history[-1]["batches"]))
        write(checkpoint, net, is_finished)

    class Record(skorch.callbacks.Callback):
        def on_batch_end(self, net: Any, **_: Any) -> None:
            net.history.record_batch("mine", net.step_)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resume.FitCheckpoint, "write", record_place)
        with pytest.raises(KeyboardInterrupt):
            model(callbacks=[Record(), Stop(7)]).fit(X, CLASSES)
        other = model(callbacks=[Record()]).fit(X, CLASSES)
    assert places == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert [row for epoch in other.net_.history[:, "batches", :, "mine"] for row in epoch] == [
        *range(1, 16)
    ]
