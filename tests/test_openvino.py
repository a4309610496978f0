"""Inference by OpenVINO agrees with torch, whatever the encoder, and is kept where it is in int8.

The last tests need no OpenVINO: they say what happens without it.
"""

import importlib
import pickle
import shutil
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import Callback
from tiny import ARCHITECTURES, ENCODER_ALONE, save_tiny_encoder

from sklearn_longbert import LongBertClassifier, LongBertRegressor, LongBertVectorizer
from sklearn_longbert._encoding import graph as graph_module
from sklearn_longbert._encoding import remembered
from sklearn_longbert._encoding.graph import QuantizedGraph
from sklearn_longbert._encoding.passes import CALIBRATION_CHUNKS, FEWEST_CALIBRATION_CHUNKS
from sklearn_longbert._pretrained.devices import select_autocast
from sklearn_longbert._saving.encoder_files import QUANTIZED

X = [f"good film number {n} " * (1 + n % 7) for n in range(24)]
Y = [0, 1, 2] * 8
INT8 = {"inference": "openvino", "precision": "int8"}
FLOAT32 = {"inference": "openvino", "precision": "float32"}

needs_openvino = pytest.mark.clients


@pytest.fixture
def model(tiny_bert: str) -> Callable[..., LongBertClassifier]:
    settings = {"chunk_size": 12, "max_epochs": 1, "precision": "float32", "random_state": 0}
    return lambda **more: LongBertClassifier(tiny_bert, **{**ENCODER_ALONE, **settings, **more})


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The number of rows of each pass of OpenVINO, and their length."""
    seen: list[tuple[int, int]] = []
    call = graph_module.Graph.__call__
    monkeypatch.setattr(
        graph_module.Graph,
        "__call__",
        lambda self, ids, mask: seen.append(tuple(ids.shape)) or call(self, ids, mask),
    )
    return seen


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The chunks of each calibration."""
    seen: list[Any] = []
    quantize = graph_module.quantize
    monkeypatch.setattr(
        "sklearn_longbert._encoding.encoder.quantize",
        lambda *arguments: seen.append(arguments[3]) or quantize(*arguments),
    )
    return seen


INT8_ERROR = 0.5  # of an untrained encoder, where a CPU without VNNI limits sums to 16 bits


def relative(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.linalg.norm(one - two) / np.linalg.norm(two))


@needs_openvino
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_embeddings_of_every_architecture(architecture: str, tmp_path: Path) -> None:
    """Of chunks beyond a window of local attention, too, and of a text that spells out padding."""
    folder = save_tiny_encoder(architecture, tmp_path / architecture)
    vectorizer = LongBertVectorizer(
        folder, layers="spread", token_pooling="mean_max", precision="float32"
    ).fit()
    padding = vectorizer.chunker_.tokenizer_.id_to_token(vectorizer.chunker_.layout_.pad_id)
    texts = [*X, "", f"good {padding} film", "the quick brown fox jumps over " * 150]
    expected = vectorizer.transform(texts)
    vectorizer.set_params(inference="openvino")
    assert relative(vectorizer.transform(texts), expected) < 1e-5
    vectorizer.set_params(precision="bfloat16")
    is_native = select_autocast("auto", torch.device("cpu")) is not None  # else it may be float32
    assert 1e-4 * is_native < relative(vectorizer.transform(texts), expected) < 0.05


@needs_openvino
def test_few_lengths_are_prepared(tiny_bert: str, passes: list[Any]) -> None:
    """Of rows that are at most a sixteenth longer than needed, and never beyond the limit of 64."""
    vectorizer = LongBertVectorizer(tiny_bert, **FLOAT32).fit()
    for n in range(1, 62):
        vectorizer.transform(["a " * n])
    # the first is that of the comparison with torch
    assert {length for _, length in passes} == set(range(8, 65, 8))
    lengths = [(n, vectorizer.encoder_._length_of_graph(n)) for n in range(3, 65)]
    assert all(n <= length <= max(n + 7, n * 17 // 16) for n, length in lengths)


@needs_openvino
@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_predictions_and_explanations(model: Any, pooling: str, passes: list[Any]) -> None:
    fitted = model(pooling=pooling, baseline="words").fit(X, Y)
    logits = fitted.decision_function(X)
    contributions = [each.contributions for each in fitted.explain(X[:4])]
    fitted.set_params(**FLOAT32)
    passes.clear()
    np.testing.assert_allclose(fitted.decision_function(X), logits, atol=1e-5)
    n_passes = len(passes)
    assert n_passes > 0
    for each, expected in zip(fitted.explain(X[:4]), contributions, strict=True):
        np.testing.assert_allclose(each.contributions, expected, atol=1e-5)
        np.testing.assert_allclose(each.contributions.sum(0), each.logits, atol=1e-5)
    assert len(passes) > n_passes
    np.testing.assert_array_equal(
        np.concatenate([fitted.decision_function([text]) for text in X[:3]]).argmax(1),
        logits[:3].argmax(1),
    )
    fitted.set_params(inference="torch")
    np.testing.assert_array_equal(fitted.decision_function(X), logits)


@needs_openvino
def test_training_does_not_change(model: Any) -> None:
    """It is torch's, with weights that are the same to the last bit."""
    given = {"X_val": X, "y_val": Y}
    plain, other = (each.fit(X, Y, **given) for each in (model(), model(**FLOAT32)))
    for name, weight in plain.net_.module_.state_dict().items():
        assert torch.equal(weight, other.net_.module_.state_dict()[name])


@needs_openvino
def test_weights_that_are_trained_further(model: Any) -> None:
    """A graph of the earlier weights is forgotten."""
    fitted = model(**FLOAT32, learning_rate=1e-2).fit(X, Y)
    before = fitted.decision_function(X)
    for go_on in (
        lambda: fitted.partial_fit(X, Y),
        lambda: fitted.set_params(warm_start=True).fit(X, Y),
    ):
        go_on()
        by_openvino = fitted.decision_function(X)
        assert np.abs(by_openvino - before).max() > 1e-2
        by_torch = fitted.set_params(inference="torch").decision_function(X)
        np.testing.assert_allclose(by_openvino, by_torch, atol=1e-5)
        fitted.set_params(inference="openvino")


@needs_openvino
def test_a_frozen_encoder_in_a_search(tiny_bert: str, passes: list[Any]) -> None:
    grid = {"learning_rate": [1e-2, 1e-3]}
    scores = []
    for inference in ("torch", "openvino"):
        estimator = LongBertRegressor(
            tiny_bert,
            **ENCODER_ALONE,
            freeze_encoder=True,
            precision="float32",
            inference=inference,
            random_state=0,
        )
        search = GridSearchCV(estimator, grid, cv=2, scoring="neg_mean_squared_error")
        scores.append(search.fit(X, np.arange(24.0)).cv_results_["mean_test_score"])
    np.testing.assert_allclose(*scores, rtol=1e-3)
    assert len(passes) > 0


@needs_openvino
@pytest.mark.parametrize("freeze_encoder", [False, True])
def test_int8_is_kept(model: Any, freeze_encoder: bool, tmp_path: Path) -> None:
    """In pickles and folders, of which the caller has no text; equal fits are equal."""
    fitted = model(**INT8, freeze_encoder=freeze_encoder).fit(X, Y)
    logits = fitted.decision_function(X[:2])
    exact = clone(fitted).set_params(inference="torch", precision="auto").fit(X, Y)
    assert 0 < relative(logits, exact.decision_function(X[:2])) < INT8_ERROR
    assert (clone(fitted).fit(X, Y).decision_function(X[:2]) == logits).all()
    assert (pickle.loads(pickle.dumps(fitted)).decision_function(X[:2]) == logits).all()
    joblib.dump(fitted, tmp_path / "mapped")
    mapped = joblib.load(tmp_path / "mapped", mmap_mode="r")
    assert (mapped.decision_function(X[:2]) == logits).all()
    for _ in range(2):  # a folder that is saved again, too
        fitted.save_pretrained(tmp_path / "saved")
        fitted = LongBertClassifier.from_pretrained(tmp_path / "saved")
        assert (fitted.decision_function(X[:2]) == logits).all()
    by_torch = LongBertClassifier.from_pretrained(
        tmp_path / "saved", inference="torch", precision="float32"
    )
    assert relative(by_torch.decision_function(X[:2]), logits) > 0
    fitted.set_params(inference="torch", precision="float32").partial_fit(X, Y)
    fitted.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / QUANTIZED).exists() == freeze_encoder  # of the same weights


@needs_openvino
def test_int8_of_a_vectorizer(tiny_bert: str, tmp_path: Path) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, chunk_size=12, **INT8).fit()
    with pytest.raises(
        ValueError, match=rf"at least {FEWEST_CALIBRATION_CHUNKS} different ones first"
    ):
        vectorizer.transform(X[:2])
    with pytest.raises(ValueError, match="1 different chunks are too few"):
        vectorizer.transform(["film"] * 100)
    embeddings = vectorizer.transform(X)
    exact = LongBertVectorizer(tiny_bert, chunk_size=12, precision="float32").fit_transform(X)
    assert 0 < relative(embeddings, exact) < INT8_ERROR
    vectorizer.save_pretrained(tmp_path / "saved")
    for again in (
        pickle.loads(pickle.dumps(vectorizer)),
        LongBertVectorizer.from_pretrained(tmp_path / "saved"),
    ):
        np.testing.assert_array_equal(again.transform(X), embeddings)


def test_int8_without_a_calibration_is_saved_with_a_warning(tiny_bert: str, tmp_path: Path) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, **INT8).fit()
    with pytest.warns(UserWarning, match="saved without a calibration") as seen:
        vectorizer.save_pretrained(tmp_path / "saved")
    assert [Path(one.filename).name for one in seen] == [Path(__file__).name]
    assert LongBertVectorizer.from_pretrained(tmp_path / "saved").precision == "int8"


@needs_openvino
def test_int8_is_calibrated_on_some_chunks(model: Any, calibrations: list[Any]) -> None:
    """Drawn with a fixed seed; in a fit of few texts on all of them; once for equal weights."""
    draw = np.random.RandomState(0).choice
    texts = [" ".join(draw(["good", "bad", "film", "story", "dog"], 150)) for _ in range(12)]
    frozen = model(**INT8, freeze_encoder=True).fit(texts, Y[:12])
    clone(frozen).fit(texts, Y[:12])
    frozen.predict(texts)
    assert [len(chunks) for chunks in calibrations] == [CALIBRATION_CHUNKS]
    few = model(**INT8, freeze_encoder=True, chunk_size=64).fit(X[:3], Y[:3])
    assert len(calibrations[-1]) == few.n_chunks_.sum() == 3 < FEWEST_CALIBRATION_CHUNKS


@needs_openvino
def test_threads_predict_at_the_same_time(model: Any) -> None:
    fitted = model(**FLOAT32).fit(X, Y)
    expected = [fitted.decision_function(X[n:]) for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: fitted.decision_function(X[n:]), range(8)))
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


@needs_openvino
def test_threads_calibrate_once(model: Any, calibrations: list[Any]) -> None:
    """The graph that they use is the one that is kept, and NNCF's log and bars are as before."""
    fitted = model().fit(X, Y).set_params(**INT8)
    console = importlib.import_module("rich").get_console()
    before = console.quiet
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: fitted.decision_function(X[n:]), range(4)))
    assert console.quiet == before
    assert len(calibrations) == 1
    kept = pickle.loads(pickle.dumps(fitted))
    for n, logits in enumerate(found):
        np.testing.assert_array_equal(kept.decision_function(X[n:]), logits)


@needs_openvino
def test_an_encoder_is_copied_without_its_graph(tiny_bert: str) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, **FLOAT32).fit()
    expected = vectorizer.transform(X)
    vectorizer.encoder_ = pickle.loads(pickle.dumps(deepcopy(vectorizer.encoder_)))
    np.testing.assert_array_equal(vectorizer.transform(X), expected)


@needs_openvino
def test_a_file_that_the_manifest_does_not_list_is_not_loaded(model: Any, tmp_path: Path) -> None:
    """An upload to the Hub leaves files of the version before."""
    model(**INT8, random_state=1).fit(X, Y).save_pretrained(tmp_path / "other")
    fitted = model(**FLOAT32).fit(X, Y)
    fitted.save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "other" / QUANTIZED, tmp_path / "saved")
    again = LongBertClassifier.from_pretrained(tmp_path / "saved", **INT8)
    assert again.net_.module_.quantized is None


@needs_openvino
def test_callbacks_predict_few_texts_during_training(model: Any) -> None:
    callback = pytest.importorskip("sklearn.callback", reason="scikit-learn 1.8 has no callbacks")
    seen = []

    class Predicts(callback.ScoringMonitor):
        def on_fit_task_end(self, *args: Any, fitted_estimator: Any, **more: Any) -> None:
            if fitted_estimator is not None:  # of the tasks that have one
                seen.append(fitted_estimator.predict(X[:2]))

    model(**INT8).set_callbacks(Predicts(scoring="accuracy")).fit(X, Y)
    assert len(seen) > 1


@pytest.mark.parametrize("name", ["openvino", "nncf"])
def test_a_missing_library_stops_a_fit_before_its_first_step(
    model: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", ModuleType("openvino"))
    monkeypatch.setitem(sys.modules, name, None)
    started: list[Any] = []
    monkeypatch.setattr(Callback, "on_batch_begin", lambda *args, **more: started.append(1))
    with pytest.raises(ImportError, match=f"needs {name}"):
        model(**INT8, callbacks=[Callback()]).fit(X, Y)
    assert not started
    fitted = model().fit(X, Y).set_params(**INT8)
    fitted.net_.module_.quantized = calibrated = QuantizedGraph("", np.zeros(1, dtype=np.uint8))
    with pytest.raises(ImportError, match=f"needs {name}"):
        fitted.partial_fit(X, Y)
    assert fitted.net_.module_.quantized is calibrated


@needs_openvino
def test_a_fit_is_not_lost_if_its_calibration_fails(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any) -> Any:
        raise RuntimeError("no room")

    by_torch = model(precision="auto").fit(X, Y).decision_function(X)
    expected = model(**INT8).fit(X, Y).decision_function(X)
    with monkeypatch.context() as patch:
        patch.setattr("sklearn_longbert._encoding.encoder.quantize", fails)
        with pytest.warns(UserWarning, match=r"not the calibration .* \(RuntimeError: no room\)"):
            fitted = model(**INT8).fit(X, Y)
        with pytest.warns(UserWarning, match="no room") as seen:
            deepcopy(fitted).partial_fit(X, Y)
    assert [Path(one.filename).name for one in seen] == [Path(__file__).name]
    np.testing.assert_array_equal(fitted.decision_function(X), expected)  # by the first prediction
    assert relative(expected, by_torch) > 0
    fitted.set_params(inference="torch", precision="auto")
    np.testing.assert_array_equal(fitted.decision_function(X), by_torch)


@needs_openvino
def test_weights_that_diverge_are_not_calibrated(model: Any) -> None:
    fitted = model(**INT8).fit(X, Y)
    fitted.set_params(learning_rate=1e25, weight_decay=1e14, batch_size=24)
    with pytest.raises(ValueError, match="lower learning_rate"):
        fitted.partial_fit(X, Y)


@needs_openvino
def test_graphs_of_trained_weights_are_not_remembered(
    model: Any, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "_remembered", OrderedDict())
    model(**INT8).fit(X, Y)
    assert not remembered._remembered
    model(**INT8, freeze_encoder=True).fit(X, Y)
    assert QuantizedGraph in {type(each) for each in remembered._remembered.values()}
    vectorizers = [LongBertVectorizer(tiny_bert, chunk_size=12, **INT8).fit() for _ in range(2)]
    for each in vectorizers:
        each.transform(X)
    assert vectorizers[0].encoder_.quantized is vectorizers[1].encoder_.quantized
    monkeypatch.setattr(remembered, "MOST_BYTES", 100)
    large = QuantizedGraph("x" * 51, np.zeros(0, dtype=np.uint8))
    assert remembered.remembered(b"large", lambda: large) is large
    assert b"large" not in remembered._remembered


@needs_openvino
def test_a_damaged_graph(model: Any) -> None:
    fitted = model(**INT8).fit(X, Y)
    network = fitted.net_.module_
    xml, weights = network.quantized.files
    for wrong in (xml[: len(xml) // 2], xml.replace('version="11"', 'version="99"'), "<net/>"):
        network.forget_graphs()
        network.quantized = QuantizedGraph(wrong, weights)
        with pytest.raises(ValueError, match="The graph in int8 cannot be used"):
            fitted.predict(X)
    other = LongBertVectorizer(fitted.model_name, layers="spread", **INT8).fit()
    other.encoder_.quantized = QuantizedGraph(xml, weights)
    with pytest.raises(ValueError, match="its outputs have the sizes"):
        other.transform(X)


@needs_openvino
def test_an_encoder_that_openvino_cannot_compute(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = model(**FLOAT32).fit(X, Y)
    call = graph_module.Graph.__call__
    monkeypatch.setattr(
        graph_module.Graph,
        "__call__",
        lambda self, *inputs: [states * 1.01 for states in call(self, *inputs)],
    )
    with pytest.raises(ValueError, match=r"a bert \(its hidden states differ .* by 0.01\)"):
        fitted.predict(X)


@needs_openvino
def test_nothing_is_reported(tiny_bert: str) -> None:
    """Neither OpenVINO nor NNCF loads what would send reports; nothing is printed."""
    code = f"""
import socket, sys
socket.socket.connect = None  # fails if it is called
from sklearn_longbert import LongBertVectorizer
assert not {{"openvino", "nncf"}} & set(sys.modules)
X = [f"good film {{n}}" for n in range(40)]
vectorizer = LongBertVectorizer({tiny_bert!r}, inference="openvino", precision="int8").fit()
assert not {{"openvino", "nncf"}} & set(sys.modules)
vectorizer.transform(X)
assert "nncf" in sys.modules
assert not [name for name in sys.modules if name.startswith("openvino_telemetry")]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_without_openvino(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = model().fit(X, Y)
    monkeypatch.setitem(sys.modules, "openvino", None)
    fitted.set_params(inference="openvino")
    with pytest.raises(ImportError, match=r'pip install "sklearn-longbert\[openvino\]"'):
        fitted.predict(X)
    assert "openvino_telemetry" not in sys.modules
    assert len(fitted.set_params(inference="torch").predict(X)) == len(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"precision": "int8"}, "needs inference='openvino'"),
        ({"inference": "onnx"}, "'inference' parameter of LongBertClassifier must be"),
        ({"inference": "openvino", "device": ["cpu", "cpu"]}, "takes one CPU"),
    ],
)
def test_what_does_not_fit_together(model: Any, settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**settings).fit(X, Y)
    fitted = model(device=settings.get("device", "cpu")).fit(X, Y)
    with pytest.raises(ValueError, match=message):
        fitted.set_params(**settings).predict(X)
