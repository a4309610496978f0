"""Pins what is left of an estimator in a file: pickles, joblib, and the folder of save_pretrained.

It predicts to the last bit as before and trains on alike; what is saved is as large as the
weights; a mapped file is shared; a folder is whole or an error that names the file; whatever
interrupts a save, what was saved before can be read.
"""

import copy
import errno
import hashlib
import json
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pytest
import skops.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from skorch.callbacks import EpochTimer
from tiny import ARCHITECTURES, ENCODER_ALONE, save_tiny_encoder
from transformers import AutoModel, AutoTokenizer

from sklearn_longbert import (
    LongBertClassifier,
    LongBertRegressor,
    LongBertVectorizer,
    TextChunker,
    __version__,
)
from sklearn_longbert import _folders as folders
from sklearn_longbert import _provenance as provenance
from sklearn_longbert._saving import estimator as persistence
from sklearn_longbert._saving import manifest
from sklearn_longbert._saving.json import from_json, to_json

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9, "good news", "bad"] * 2
SETTINGS: dict[str, Any] = {
    "layers": "last",
    "baseline": None,
    "chunk_size": 16,
    "max_epochs": 1,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "device": "cpu",
    "precision": "float32",
    "random_state": 0,
}
# Of every kind of target: the estimator, the targets
TARGETS: dict[str, tuple[type, Any]] = {
    "labels": (LongBertClassifier, ["good", "bad"] * 4),
    "numbers as labels": (LongBertClassifier, np.array([3, 1, 2, 1] * 2)),
    "several labels": (LongBertClassifier, [[1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0]] * 2),
    "a number": (LongBertRegressor, [1e6, 2e6, 1.5e6, 0] * 2),
    "several numbers": (LongBertRegressor, [[1.0, -5], [2, 5], [3, 0], [4, 1]] * 2),
}


def fit(encoder: str, targets: str = "labels", **parameters: Any) -> Any:
    make, y = TARGETS[targets]
    return make(encoder, **{**SETTINGS, **parameters}).fit(TEXTS, y)


def logits_of(estimator: Any, texts: list[str] = TEXTS) -> np.ndarray:
    return estimator._predict_logits(texts)


def weights_of(estimator: Any) -> dict[str, torch.Tensor]:
    return estimator.net_.module_.state_dict()


@pytest.fixture(scope="module")
def fitted(tiny_bert: str) -> LongBertClassifier:
    return fit(tiny_bert)


@pytest.fixture
def saved(fitted: LongBertClassifier, tmp_path: Path) -> Path:
    fitted.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


# All ways of keeping an estimator

TRUSTED = [
    "sklearn_longbert._classifier.LongBertClassifier",
    "sklearn_longbert._regressor.LongBertRegressor",
    "sklearn_longbert._texts.chunker.TextChunker",
    "sklearn_longbert._vectorizer.LongBertVectorizer",
]


def through_pickle(estimator: Any, folder: Path) -> Any:
    return pickle.loads(pickle.dumps(estimator))


def through_cloudpickle(estimator: Any, folder: Path) -> Any:
    return pickle.loads(cloudpickle.dumps(estimator))


def through_joblib(estimator: Any, folder: Path) -> Any:
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib")


def through_mapped_file(estimator: Any, folder: Path) -> Any:
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib", mmap_mode="r")


def through_private_mapped_file(estimator: Any, folder: Path) -> Any:
    joblib.dump(estimator, folder / "estimator.joblib")
    return joblib.load(folder / "estimator.joblib", mmap_mode="c")


def through_skops(estimator: Any, folder: Path) -> Any:
    """With no type to be trusted but the four classes, whatever the targets."""
    skops.io.dump(estimator, folder / "estimator.skops")
    return skops.io.load(folder / "estimator.skops", trusted=TRUSTED)


def through_deepcopy(estimator: Any, folder: Path) -> Any:
    return copy.deepcopy(estimator)


def through_folder(estimator: Any, folder: Path) -> Any:
    estimator.save_pretrained(folder / "estimator")
    return type(estimator).from_pretrained(folder / "estimator")


WAYS = [
    through_pickle,
    through_cloudpickle,
    through_joblib,
    through_mapped_file,
    through_private_mapped_file,
    through_deepcopy,
    through_skops,
    through_folder,
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("targets", TARGETS)
def test_predicts_and_trains_on_alike(
    targets: str, way: Callable[..., Any], tiny_bert: str, tmp_path: Path
) -> None:
    estimator, y = fit(tiny_bert, targets), TARGETS[targets][1]
    again = way(estimator, tmp_path)
    assert type(again) is type(estimator)
    assert repr(again.get_params()) == repr(estimator.get_params())
    np.testing.assert_array_equal(again.predict(TEXTS), estimator.predict(TEXTS))
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    for name in ("history_", "n_iter_", "best_epoch_", "device_"):
        assert getattr(again, name) == getattr(estimator, name)
    np.testing.assert_array_equal(again.n_chunks_, estimator.n_chunks_)
    if hasattr(estimator, "classes_"):
        np.testing.assert_array_equal(again.classes_, estimator.classes_)
        assert again.classes_.dtype == estimator.classes_.dtype
    before = logits_of(estimator)
    trained = [copy.deepcopy(model).partial_fit(TEXTS, y) for model in (estimator, again)]
    np.testing.assert_array_equal(*map(logits_of, trained))
    warm = [
        copy.deepcopy(model).set_params(warm_start=True, max_epochs=2).fit(TEXTS, y)
        for model in (estimator, again)
    ]
    np.testing.assert_array_equal(*map(logits_of, warm))
    np.testing.assert_array_equal(logits_of(again.partial_fit(TEXTS, y)), logits_of(trained[0]))
    np.testing.assert_array_equal(logits_of(estimator), before)  # they share no memory


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "parameters",
    [
        {"pooling": "attention", "token_pooling": "cls"},
        {"layers": (0, -1), "pooling": "attention", "token_pooling": "mean_max"},
        {"pooling": "max", "max_chunks": 2, "chunk_selection": "random", "chunk_overlap": 3},
        {"freeze_encoder": True, "pooling": "logsumexp", "head_init": "random"},
        {"early_stopping": True, "validation_fraction": 0.5, "max_epochs": 2},
    ],
    ids=lambda parameters: next(iter(parameters)),
)
def test_settings_are_kept(
    parameters: dict[str, Any], way: Callable[..., Any], tiny_bert: str, tmp_path: Path
) -> None:
    estimator = fit(tiny_bert, **parameters)
    again = way(estimator, tmp_path)
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    assert again.net_.module_.frozen == estimator.net_.module_.frozen
    for model in (estimator, again):
        model.set_params(warm_start=True).fit(TEXTS, ["good", "bad"] * 4)
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(
    architecture: str, tiny_encoder: Callable[[str], str], tmp_path: Path
) -> None:
    """Tokens and logits are the same; transformers opens encoder and tokenizer; so do we."""
    estimator = fit(tiny_encoder(architecture))
    again = through_folder(estimator, tmp_path)
    texts = [*TEXTS, "", "[SEP] </s> <pad> naïve 東京都", "\N{THUMBS UP SIGN}"]
    np.testing.assert_array_equal(logits_of(again, texts), logits_of(estimator, texts))
    assert again.chunker_.layout_ == estimator.chunker_.layout_
    folder = tmp_path / "estimator"
    ours = {n: w for n, w in weights_of(estimator).items() if n.startswith("encoder.")}
    theirs = AutoModel.from_pretrained(folder).state_dict()
    assert all(torch.equal(theirs[name.removeprefix("encoder.")], ours[name]) for name in ours)
    ids = AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]
    layout = estimator.chunker_.layout_
    whole = TextChunker(tiny_encoder(architecture)).fit_transform(TEXTS[:1])[0]
    assert ids == [*layout.prefix, *whole.token_ids, *layout.suffix]
    encoder_of_another = LongBertClassifier(str(folder), **SETTINGS).fit(TEXTS, [0, 1] * 4)
    assert encoder_of_another.predict(TEXTS).shape == (8,)


def test_the_real_encoder(bbc_news: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    texts, labels = bbc_news[0][:8], bbc_news[1][:8]
    real = {**SETTINGS, "chunk_size": 64, "max_chunks": 1, "learning_rate": 1e-4}
    estimator = LongBertClassifier(**real).fit(texts, labels)
    expected = logits_of(estimator, texts)
    n_bytes = sum(weight.nbytes for weight in weights_of(estimator).values())
    for way in (through_mapped_file, through_folder):
        np.testing.assert_array_equal(logits_of(way(estimator, tmp_path), texts), expected)
    assert (tmp_path / "estimator.joblib").stat().st_size < 1.05 * n_bytes
    assert sum(p.stat().st_size for p in (tmp_path / "estimator").iterdir()) < 1.05 * n_bytes


def test_vectorizers_and_chunkers(tiny_bert: str, tmp_path: Path) -> None:
    vectorizer = LongBertVectorizer(tiny_bert, device="cpu", precision="float32").fit()
    chunker = TextChunker(tiny_bert, chunk_size=16).fit()
    for way in WAYS[:-1]:
        again = way(vectorizer, tmp_path).transform(TEXTS)
        np.testing.assert_array_equal(again, vectorizer.transform(TEXTS))
        cut_again = way(chunker, tmp_path).transform(TEXTS)
        documents = zip(cut_again, chunker.transform(TEXTS), strict=True)
        assert all((one.tokens == two.tokens).all() for one, two in documents)


def test_one_that_is_not_fitted(tiny_bert: str, tmp_path: Path) -> None:
    estimator = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=2)
    for way in WAYS[:-1]:
        assert repr(way(estimator, tmp_path)) == repr(estimator)
    with pytest.raises(NotFittedError):
        estimator.save_pretrained(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_in_skops(
    architecture: str, tiny_encoder: Callable[[str], str], tmp_path: Path
) -> None:
    """The encoder is made again from a dict, and not from the config that it was loaded with."""
    estimator = fit(tiny_encoder(architecture), freeze_encoder=True)
    again = through_skops(estimator, tmp_path)
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    ours, theirs = estimator.net_.module_.encoder.config, again.net_.module_.encoder.config
    assert theirs.to_dict() == ours.to_dict()


def test_types_that_skops_is_to_trust(tiny_bert: str, tmp_path: Path) -> None:
    """Those of parameters that skops does not know, and of chunked documents, come in addition."""
    odd = {"device": torch.device("cpu"), "random_state": np.random.RandomState(3)}
    estimator = fit(Path(tiny_bert), **odd, freeze_encoder=np.True_, max_epochs=np.int64(1))
    documents = TextChunker(tiny_bert, chunk_size=16).fit_transform(TEXTS)
    layout = "sklearn_longbert._texts.documents.ChunkLayout"
    document = "sklearn_longbert._texts.documents.ChunkedDocument"
    types = {TRUSTED[0], TRUSTED[2], "pathlib.PosixPath", "torch.device"}
    again = through_skops_trusting(types, estimator, tmp_path)
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    assert (again.model_name, again.device) == (estimator.model_name, estimator.device)
    cut = through_skops_trusting({document, layout}, documents, tmp_path)
    np.testing.assert_array_equal(logits_of(again, cut), logits_of(estimator))
    assert cut[0].layout is cut[-1].layout


def through_skops_trusting(types: set[str], value: Any, folder: Path) -> Any:
    file = folder / "saved.skops"
    skops.io.dump(value, file)
    assert set(skops.io.get_untrusted_types(file=file)) == types
    return skops.io.load(file, trusted=sorted(types))


# Pickles


@pytest.mark.parametrize(
    "make", [LongBertClassifier, LongBertRegressor, LongBertVectorizer, TextChunker]
)
def test_another_version_warns_as_scikit_learn_does(
    make: type, tiny_bert: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "__version__", "0.0.7")
        stored = pickle.dumps(make(tiny_bert))
    expected = f"{make.__name__} from version 0.0.7"
    with pytest.warns(InconsistentVersionWarning, match=expected) as seen:
        again = pickle.loads(stored)
    assert seen[0].message.current_sklearn_version == __version__
    assert not hasattr(again, provenance.VERSION_KEY)


def mapped_weights(estimator: Any, path: Path) -> list[bool]:
    """Whether each weight lies in memory that is a mapping of the file."""
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    return [
        any(start <= weight.data_ptr() < end for start, end in ranges)
        for weight in weights_of(estimator).values()
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/maps")
def test_a_mapped_file_is_shared_until_training(fitted: LongBertClassifier, tmp_path: Path) -> None:
    again = through_mapped_file(fitted, tmp_path)
    again.predict(TEXTS)
    file = tmp_path / "estimator.joblib"
    assert all(mapped_weights(again, file))
    before = file.read_bytes()
    again.partial_fit(TEXTS, ["good", "bad"] * 4)
    assert not any(mapped_weights(again, file))
    assert file.read_bytes() == before


def predict_of_estimator(estimator: Any, texts: list[str]) -> np.ndarray:
    torch.set_num_threads(1)
    return estimator.predict_proba(texts)


def test_memory_that_others_see_is_not_trained_on(
    fitted: LongBertClassifier, tmp_path: Path
) -> None:
    """A file mapped for writing; buffers that a pickle shares; a shallow copy of the net."""
    y, file, expected = ["good", "bad"] * 4, tmp_path / "estimator.joblib", logits_of(fitted)
    joblib.dump(fitted, file)
    before = file.read_bytes()
    joblib.load(file, mmap_mode="r+").partial_fit(TEXTS, y)
    assert file.read_bytes() == before
    buffers: list[pickle.PickleBuffer] = []
    stored = pickle.dumps(fitted, protocol=5, buffer_callback=buffers.append)
    pickle.loads(stored, buffers=buffers).partial_fit(TEXTS, y)
    np.testing.assert_array_equal(logits_of(fitted), expected)
    mapped = joblib.load(file, mmap_mode="r")
    mapped.net_ = copy.copy(mapped.net_)
    mapped.partial_fit(TEXTS, y)


@pytest.mark.slow
def test_workers_take_it(fitted: LongBertClassifier, tmp_path: Path) -> None:
    expected = fitted.predict_proba(TEXTS)
    task = joblib.delayed(predict_of_estimator)
    for result in joblib.Parallel(n_jobs=2)(task(fitted, TEXTS) for _ in range(2)):
        np.testing.assert_array_equal(result, expected)
    # memory of joblib's own, mapped and read-only, is what the workers train on
    train = joblib.delayed(lambda model: model.partial_fit(TEXTS, ["good", "bad"] * 4))
    parallel = joblib.Parallel(n_jobs=2, max_nbytes=100)
    for trained in parallel(train(fitted) for _ in range(2)):
        expected_after = copy.deepcopy(fitted).partial_fit(TEXTS, ["good", "bad"] * 4)
        np.testing.assert_array_equal(logits_of(trained), logits_of(expected_after))
    with get_context("spawn").Pool(1) as pool:
        result = pool.apply(predict_of_estimator, (fitted, TEXTS))
    np.testing.assert_array_equal(result, expected)


def test_a_device_that_is_missing_here(
    fitted: LongBertClassifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted elsewhere on CUDA: the pickle and the folder say so, and load on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    state = fitted.__getstate__()
    state["net_"]["device"] = "cuda:5"
    state["device"] = "cuda:5"
    again = LongBertClassifier()
    again.__setstate__(pickle.loads(pickle.dumps(state)))
    change_manifest(saved, lambda content: content["parameters"].update(device="cuda:5"))
    for model in (again, LongBertClassifier.from_pretrained(saved)):
        assert (model.device, model.device_) == ("cuda:5", "cpu")
        np.testing.assert_array_equal(model.predict(TEXTS), fitted.predict(TEXTS))
    with pytest.raises(ValueError, match="device='cuda:5' cannot be used"):
        LongBertClassifier.from_pretrained(saved, device="cuda:5")


# The folder


def test_what_is_in_it(saved: Path) -> None:
    names = {path.name for path in saved.iterdir()}
    assert names == {
        "README.md", "config.json", "head.safetensors", "model.safetensors",
        "sklearn_longbert.json", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]  # nothing beside it
    whole = json.loads((saved / "sklearn_longbert.json").read_text())
    assert whole["format"] == 2
    content = whole["content"]
    assert content["parameters"]["chunk_size"] == 16
    classes = {"$array": ["<U4", [2], ["bad", "good"]]}
    assert content["targets"] == {"kind": "classes", "classes": classes}
    assert torch.__version__.startswith(content["versions"]["torch"])  # which lacks +cu128
    digest = hashlib.sha256((saved / "model.safetensors").read_bytes()).hexdigest()
    assert content["files"]["model.safetensors"][1] == digest


def test_usual_permissions(fitted: LongBertClassifier, saved: Path, tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.mkdir()
    (usual / "file").write_text("")
    for path in (saved, *saved.iterdir()):
        like = usual if path == saved else usual / "file"
        assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(like.stat().st_mode)
    saved.chmod(0o750)
    fitted.save_pretrained(saved)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o750  # of the one it replaces


@pytest.mark.parametrize("make_name", [str, Path, os.path.relpath])
def test_names_of_folders(
    make_name: Callable[[Path], Any], fitted: LongBertClassifier, tmp_path: Path
) -> None:
    name = make_name(tmp_path / "new" / "parents" / "model")
    fitted.save_pretrained(name)
    np.testing.assert_array_equal(
        LongBertClassifier.from_pretrained(name).predict(TEXTS), fitted.predict(TEXTS)
    )


def test_a_link_to_the_folder_stays_one(fitted: LongBertClassifier, saved: Path) -> None:
    link = saved.with_name("link")
    link.symlink_to(saved, target_is_directory=True)
    fitted.save_pretrained(link)
    assert link.is_symlink()
    assert LongBertClassifier.from_pretrained(link).predict(TEXTS[:1]) == ["good"]


def test_what_is_not_ours_is_not_replaced(
    fitted: LongBertClassifier, saved: Path, tiny_bert: str, tmp_path: Path
) -> None:
    (saved / "notes.md").write_text("mine")
    encoder = shutil.copytree(tiny_bert, tmp_path / "encoder")
    (tmp_path / "file").write_text("mine")
    (tmp_path / ".new.previous").mkdir()
    (tmp_path / ".new.previous" / "mine").write_text("mine")
    for name in ("saved", "encoder", "file", "new"):
        before = contents(tmp_path)
        with pytest.raises(OSError, match=r"mine|notes\.md|will not delete|is a file"):
            fitted.save_pretrained(tmp_path / name)
        assert contents(tmp_path) == before
    assert encoder.is_dir()
    (tmp_path / "empty").mkdir()
    fitted.save_pretrained(tmp_path / "empty")


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_what_is_put_there_meanwhile_is_not_deleted(
    fitted: LongBertClassifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folders._write_through

    def put_a_file(beside: Path) -> None:
        write(beside)
        assert stat.S_IMODE(beside.stat().st_mode) == 0o700  # nobody else reads what is not whole
        (saved / "notes.txt").write_text("mine")

    monkeypatch.setattr(folders, "_write_through", put_a_file)
    with pytest.raises(FileExistsError, match=r"notes\.txt"):
        fitted.save_pretrained(saved)
    assert (saved / "notes.txt").read_text() == "mine"
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_folder_named_like_a_file_of_ours(fitted: LongBertClassifier, saved: Path) -> None:
    (saved / "config.json").unlink()
    (saved / "config.json").mkdir()
    (saved / "config.json" / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match=r"config\.json"):
        fitted.save_pretrained(saved)


@pytest.mark.parametrize("name", ["", ".", "a\0b", "~nobody-of-this-name/x", "x" * 300])
def test_names_that_cannot_be(
    name: str, fitted: LongBertClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=r"folder|could not be saved|name"):
        fitted.save_pretrained(name)
    with pytest.raises((ValueError, OSError), match=r"model_name|holds no config"):
        LongBertClassifier.from_pretrained(name)
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_name(fitted: LongBertClassifier) -> None:
    for odd in (3, None, ["x"]):
        with pytest.raises(TypeError, match="is no name of a folder"):
            fitted.save_pretrained(odd)
        with pytest.raises(ValueError, match="'model_name' parameter"):
            LongBertClassifier.from_pretrained(odd)


class WithAnother(LongBertClassifier):
    """A subclass with a parameter of its own, that has no default."""

    def __init__(self, model_name: str, *, threshold: float, **parameters: Any) -> None:
        super().__init__(model_name, **parameters)
        self.threshold = threshold

    @classmethod
    def _get_param_names(cls) -> list[str]:
        return sorted([*LongBertClassifier._get_param_names(), "threshold"])

    _parameter_constraints = {**LongBertClassifier._parameter_constraints, "threshold": [float]}


def test_subclasses(tiny_bert: str, tmp_path: Path) -> None:
    estimator = WithAnother(tiny_bert, threshold=0.25, **SETTINGS).fit(TEXTS, ["good", "bad"] * 4)
    estimator.save_pretrained(tmp_path / "saved")
    again = WithAnother.from_pretrained(tmp_path / "saved")
    assert again.threshold == 0.25
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    with pytest.raises(ValueError, match="other parameters than LongBertClassifier"):
        LongBertClassifier.from_pretrained(tmp_path / "saved")


def test_parameters_of_every_kind(tiny_bert: str, tmp_path: Path) -> None:
    parameters = {
        "model_name": Path(tiny_bert),
        "class_weight": {"good": 2.0, "bad": np.float64(1.0)},
        "device": torch.device("cpu"),
        "random_state": np.random.RandomState(3),
        "max_epochs": np.int64(1),
        "learning_rate": np.float32(1e-2),
        "max_grad_norm": None,
        "callbacks": [EpochTimer()],
    }
    estimator = LongBertClassifier(**{**SETTINGS, **parameters}).fit(TEXTS, ["good", "bad"] * 4)
    with pytest.warns(UserWarning, match=r"callbacks is not saved: .*set_params"):
        estimator.save_pretrained(tmp_path / "saved")
    again = LongBertClassifier.from_pretrained(tmp_path / "saved")
    for name, value in parameters.items():
        found = getattr(again, name)
        if name not in ("random_state", "callbacks"):
            assert found == value
            assert type(found) in (type(Path()), dict, torch.device, int, float, type(None))
    assert again.callbacks is None
    assert again.random_state is again._random_state
    assert again.random_state.randint(1000) == estimator.random_state.randint(1000)
    clone(again).fit(TEXTS, ["good", "bad"] * 4)


def test_parameters_may_be_replaced_unless_a_fit_has_used_them(saved: Path) -> None:
    load = partial(LongBertClassifier.from_pretrained, saved)
    again = load(micro_batch_tokens=32, verbose=0, learning_rate=1e-3, chunk_size=16)
    assert (again.micro_batch_tokens, again.learning_rate, again.batch_size) == (32, 1e-3, 4)
    with pytest.raises(ValueError, match=r"pooling='max', but .* with pooling='mean'"):
        load(pooling="max")
    with pytest.raises(TypeError, match="LongBertClassifier has no parameter 'lerning_rate'"):
        load(lerning_rate=1e-3)
    with pytest.raises(TypeError, match="callbacks at index 0 is 1"):
        load(callbacks=[1])
    with pytest.raises(ValueError, match="'dropout' parameter"):
        load(dropout=np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="'learning_rate' parameter of LongBertClassifier must be"):
        load(learning_rate=-1)
    assert load(revision="v1").revision is None  # of the saved folder on the Hub
    with pytest.raises(ValueError, match="a classifier, and no regressor: use LongBertCl"):
        LongBertRegressor.from_pretrained(saved)


def test_layers_may_be_named_otherwise(tiny_bert: str, tmp_path: Path) -> None:
    model = fit(tiny_bert, layers="spread")
    model.save_pretrained(tmp_path / "saved")
    load = partial(LongBertClassifier.from_pretrained, tmp_path / "saved")
    for layers in ("spread", (0, 1, 2), (0, -2, -1)):
        again = load(layers=layers)
        assert again.layers == layers
        np.testing.assert_array_equal(logits_of(again), logits_of(model))
    for layers in ("last", (2, 1, 0)):
        with pytest.raises(ValueError, match=r"but the saved .* with layers=\(0, 1, 2\)"):
            load(layers=layers)
    with pytest.raises(ValueError, match=r"the hidden states 0 \(its embeddings\) to 2"):
        load(layers=(3,))


def test_a_folder_that_another_version_saved(
    fitted: LongBertClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "__version__", "0.0.7")
        fitted.save_pretrained(tmp_path / "saved")
    with pytest.warns(InconsistentVersionWarning, match="from version 0.0.7"):
        LongBertClassifier.from_pretrained(tmp_path / "saved")


def test_labels_that_json_cannot_hold(fitted: LongBertClassifier, tmp_path: Path) -> None:
    odd = copy.deepcopy(fitted).set_params(class_weight={object: 1.0})
    with pytest.raises(TypeError, match=r"cannot be saved, .*joblib\.dump"):
        odd.save_pretrained(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_somebody_else_can_be_saved(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = save_tiny_encoder("roberta", tmp_path / "theirs")
    config = AutoConfig.from_pretrained(folder, num_labels=3)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    estimator = LongBertClassifier.from_pretrained(folder, chunk_size=16, device="cpu")
    again = through_folder(estimator, tmp_path)
    np.testing.assert_array_equal(logits_of(again), logits_of(estimator))
    assert again.token_pooling == "cls"


def test_from_the_hub(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder that the Hub's cache holds, whose files are links."""
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for path in saved.iterdir():
        (snapshot / path.name).symlink_to(path)
    asked = []

    def find_folder(*args: Any) -> Path:
        asked.append(args)
        return snapshot

    monkeypatch.setattr("sklearn_longbert._estimator.find_folder", find_folder)
    again = LongBertClassifier.from_pretrained("me/reviews", revision="v2", local_files_only=True)
    assert asked == [("me/reviews", "v2", True)]
    assert again.predict(TEXTS[:1]) == ["good"]


# Damage: by accident, and on purpose


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change what the manifest says, and its checksum with it, as somebody would on purpose."""
    path = folder / manifest.MANIFEST
    whole = json.loads(path.read_text())
    change(whole["content"])
    whole["sha256"] = manifest._digest_of(whole["content"])
    path.write_text(json.dumps(whole))


def change_file(folder: Path, name: str, content: bytes) -> None:
    """Change a file, and what the manifest says of it."""
    (folder / name).write_bytes(content)
    fingerprint = folders.fingerprint(folder / name)
    change_manifest(folder, lambda content: content["files"].update({name: fingerprint}))


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_file(folder, "config.json", json.dumps({**config, **changes}).encode())


def change_tensors(folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = load_file(folder / name)
    change(tensors)
    save_file(tensors, folder / "changed", metadata={"format": "pt"})
    content = (folder / "changed").read_bytes()
    (folder / "changed").unlink()
    change_file(folder, name, content)


def load(folder: Path) -> Any:
    return LongBertClassifier.from_pretrained(folder)


def error_of(function: Callable[..., Any], *args: Any) -> Exception | None:
    try:
        function(*args)
    except Exception as error:
        return error
    return None


FILES = sorted(persistence.CONTENTS.files)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["missing", "empty", "truncated", "longer", "a folder"])
def test_a_file_that_is_not_whole(how: str, name: str, saved: Path) -> None:
    path = saved / name
    content = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "missing":
        changed = {"empty": b"", "truncated": content[:-1], "longer": content + b"\0"}
        path.write_bytes(changed[how])
    with pytest.raises(ValueError, match=rf"{name}.*damaged or was changed"):
        load(saved)


@pytest.mark.parametrize("name", [*FILES, manifest.MANIFEST])
def test_a_changed_byte_anywhere(name: str, saved: Path) -> None:
    """At 200 offsets of each file, also where JSON or a header would still be read."""
    path = saved / name
    content = path.read_bytes()
    rng = np.random.RandomState(0)
    for offset in rng.randint(len(content), size=200):
        byte = (content[offset] + rng.randint(1, 256)) % 256
        path.write_bytes(content[:offset] + bytes([byte]) + content[offset + 1 :])
        error = error_of(manifest._load_manifest, saved, "classifier", persistence.CONTENTS)
        if error is None:  # the same JSON in other words: white space, an escaped character
            assert json.loads(path.read_bytes()) == json.loads(content)
        else:
            assert isinstance(error, ValueError)
            assert "sklearn_longbert.json" in str(error)
    path.write_bytes(content)
    load(saved)


MANIFESTS: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"format: 1",
    "no object": b"[1, 2]",
    "no text": b"\xff\xfe\x00",
    "nothing": b"{}",
    "no content": b'{"format": 2}',
    "content of another kind": b'{"format": 2, "sha256": "", "content": 3}',
    "nested": b"[" * 100_000,
    "a huge number": b'{"format": ' + b"9" * 10_000 + b"}",
}


@pytest.mark.parametrize("content", MANIFESTS.values(), ids=MANIFESTS)
def test_no_manifest_at_all(content: bytes, saved: Path) -> None:
    (saved / manifest.MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"sklearn_longbert\.json cannot be read"):
        load(saved)


@pytest.mark.parametrize("number", [0, 1, -1, 10**30, "1", None, [1], 1.5, "x" * 10**6])
def test_another_format(number: Any, saved: Path) -> None:
    path = saved / manifest.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": number}))
    with pytest.raises(ValueError, match=r"has format .{1,30}, where .* takes 2: load it") as error:
        load(saved)
    assert len(str(error.value)) < 500


def test_a_manifest_that_is_too_large(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MOST_MANIFEST_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        load(saved)


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def put(section: str, **values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: content[section].update(values)


def move(content: dict[str, Any], position: int) -> None:
    content["fitted"]["random_state"]["$random_state"]["state"]["pos"] = position


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a path to elsewhere": lambda c: c["files"].update({"../../etc/passwd": [1, "x"]}),
    "an absolute path": lambda c: c["files"].update({"/etc/passwd": [1, "x"]}),
    "another file": lambda c: c["files"].update({"pytorch_model.bin": [1, "x"]}),
    "a file less": lambda c: c["files"].pop("head.safetensors"),
    "a negative size": lambda c: c["files"]["config.json"].__setitem__(0, -1),
    "a huge size": lambda c: c["files"]["config.json"].__setitem__(0, 10**30),
    "no fingerprint": lambda c: c["files"].update({"config.json": None}),
    "files of another kind": lambda c: c.update(files=[]),
    "no versions": lambda c: c.pop("versions"),
    "versions of another kind": lambda c: c.update(versions=3),
    "no section": lambda c: c.pop("network"),
    "a section of another kind": lambda c: c.update(fitted=[1]),
    "an unknown type": put("parameters", tol={"$pickle": "gASVAAAA"}),
    "two types": put("parameters", tol={"$float": "nan", "$tuple": []}),
    "a dtype that runs code": put("targets", classes={"$array": ["V8", [1], [0]]}),
    "a huge shape": put("targets", classes={"$array": ["<U4", [10**12], ["bad", "good"]]}),
    "a negative shape": put("targets", classes={"$array": ["<U4", [-2], ["bad", "good"]]}),
    "nested arrays": put("targets", classes={"$array": ["object", [1], [nested(200)]]}),
    "deep": put("parameters", class_weight=nested(900)),
    "too few classes": put("targets", classes={"$array": ["<U4", [1], ["bad"]]}),
    "one class twice": put("targets", classes={"$array": ["<U4", [2], ["bad", "bad"]]}),
    "classes in another order": put("targets", classes={"$array": ["<U4", [2], ["good", "bad"]]}),
    "classes of another kind": put("targets", classes=3),
    "no classes": lambda c: c["targets"].pop("classes"),
    "an unknown kind of target": put("targets", kind="words"),
    "another kind of target": put("targets", kind="numbers"),
    "targets of a regressor": lambda c: c.update(
        targets={
            "kind": "numbers",
            "mean": {"$array": ["<f8", [2], [0.0, 0.0]]},
            "spread": {"$array": ["<f8", [2], [1.0, 1.0]]},
        }
    ),
    "classes that are no array": put("targets", classes=["bad", "good"]),
    "a method as an attribute": put("fitted", predict=3),
    "history of another kind": put("fitted", history=3),
    "a number of another kind": put("fitted", best_epoch="3"),
    "a share of another kind": put("fitted", fine_tuning_share="all"),
    "a share beyond one": put("fitted", fine_tuning_share=1.5),
    "no share": lambda c: c["fitted"].pop("fine_tuning_share"),
    "a random state of another kind": put("fitted", random_state=3),
    "a random state without numbers": put("fitted", random_state={"$random_state": {}}),
    "a random state beyond its numbers": lambda c: move(c, 625),
    "a random state before its numbers": lambda c: move(c, -5),
    "a random state far beyond": lambda c: move(c, 2**31 - 1),
    "an unknown parameter": put("parameters", eval="1"),
    "no parameter": lambda c: c.update(parameters=3),
    "a wrong parameter": put("parameters", max_epochs=-1),
    "a parameter of another kind": put("parameters", pooling=["mean"]),
    "huge outputs": put("network", n_outputs=10**12),
    "negative outputs": put("network", n_outputs=-2),
    "a huge layer": put("network", hidden_layer={"$tuple": [10**12, "tanh"]}),
    "an activation of another kind": put("network", hidden_layer={"$tuple": [16, "os.system"]}),
    "an unknown pooling": put("network", pooling="sum"),
    "pooling of another kind": put("network", pooling=[]),
    "attention without weights": put("network", pooling="attention"),
    "dropout beyond one": put("network", dropout=7),
    "dropout of another kind": put("network", dropout="much"),
    "frozen of another kind": put("network", frozen="yes"),
    "an unknown setting": put("network", encoder=3),
    "more layers than weights": put("network", layers={"$tuple": [0, 2]}),
    "layers beyond the encoder": put("network", layers={"$tuple": [9]}),
    "a billion layers": put("network", layers={"$tuple": [2] * 1000}),
    "layers of another kind": put("network", layers=3),
    "an unknown name of layers": put("network", layers="all"),
    "more kinds than weights": put("network", token_pooling="mean_max"),
    "a chunk of a billion": put("chunker", chunk_size=10**9),
    "a negative chunk": put("chunker", chunk_size=-5),
    "an overlap beyond the chunk": put("chunker", chunk_overlap=100),
    "an unknown setting of chunks": put("chunker", stride=3),
    "padding beyond the vocabulary": put("chunker", pad_id=10**9),
    "padding of another kind": put("chunker", pad_id="0"),
    "padding between two tokens": put("chunker", pad_id=1.5),
    "padding that is true": put("chunker", pad_id=True),
    "dropout that is no number": put("network", dropout={"$float": "nan"}),
    "a negative number of epochs": put("fitted", best_epoch=-1),
    "a huge number of epochs": put("fitted", best_epoch=10**400),
    "history that is no list": put("fitted", history={}),
    "no padding": lambda c: c["chunker"].pop("pad_id"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manifest_that_lies(lie: Callable[..., Any], saved: Path) -> None:
    change_manifest(saved, lie)
    with pytest.raises(ValueError, match=r"damaged|other parameters|parameter of Long"):
        load(saved)


def test_a_regressor_that_lies(tiny_bert: str, tmp_path: Path) -> None:
    fit(tiny_bert, "several numbers").save_pretrained(tmp_path / "saved")
    one = {"$scalar": ["<f8", 1.0]}
    two = {"$array": ["<f8", [2], [1.0, 0.0]]}
    nan = {"$array": ["<f8", [2], [1.0, {"$float": "nan"}]]}
    good = json.loads((tmp_path / "saved" / manifest.MANIFEST).read_text())["content"]["targets"]
    for changes in ({"mean": one}, {"spread": two}, {"mean": nan}, {"spread": "x"}):
        change_manifest(tmp_path / "saved", put("targets", **{**good, **changes}))
        with pytest.raises(ValueError, match="damaged"):
            LongBertRegressor.from_pretrained(tmp_path / "saved")
    change_manifest(tmp_path / "saved", put("targets", **good))
    LongBertRegressor.from_pretrained(tmp_path / "saved")


CONFIGS: dict[str, dict[str, Any]] = {
    "a huge encoder": {"hidden_size": 10**9},
    "a huge vocabulary": {"vocab_size": 10**12},
    "a negative size": {"hidden_size": -16},
    "a million layers": {"num_hidden_layers": 10**6},
    "another number of layers": {"num_hidden_layers": 1},
    "huge layers inside": {"intermediate_size": 2**23},
    "another size": {"hidden_size": 32},
    "more positions": {"max_position_embeddings": 2**24},
    "heads that do not divide": {"num_attention_heads": 3},
    "a size of another kind": {"hidden_size": "16"},
    "another architecture": {"model_type": "distilbert"},
    "no architecture": {"model_type": "nonsense"},
    "millions of labels": {"num_labels": 10**7},
    "a huge size inside": {"rope_parameters": {"hidden_size": 10**9}},
    "a huge size in a list": {"pruned": [10**9]},
    "a wide pooler": {"hidden_size": 20_000, "num_hidden_layers": 0},
    "a backbone of the Hub": {"model_type": "dpt", "backbone": "microsoft/resnet-50"},
    "weights elsewhere": {"transformers_weights": "../../other.safetensors"},
    "kernels of the Hub": {"attn_implementation": "org/kernel"},
    "quantization": {"quantization_config": {"quant_method": "bitsandbytes"}},
    "no dictionary as output": {"return_dict": False},
    "negative heads": {"num_attention_heads": -2},
    "code of its own": {"auto_map": {"AutoModel": "evil.Model"}, "model_type": "evil"},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_lies(
    changes: dict[str, Any], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: asked.append(args) or [])
    (saved.parent / "evil.py").write_text("raise SystemExit('ran')")
    change_config(saved, **changes)
    with pytest.raises(ValueError, match="damaged"):
        load(saved)
    assert asked == []


NO_CHARACTERS = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
TOKENIZERS: dict[str, dict[str, Any]] = {
    "a normalizer that panics": {"normalizer": NO_CHARACTERS},
    "no unknown token": {"model": {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "?"}},
    "tokens beyond the vocabulary": {
        "model": {"type": "WordLevel", "vocab": {"a": 10**6, "?": 1}, "unk_token": "?"}
    },
    "a special token that it has not": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[NO]", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("changes", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_tokenizer_that_lies(changes: dict[str, Any], saved: Path) -> None:
    tokenizer = json.loads((saved / "tokenizer.json").read_text(encoding="utf-8"))
    change_file(saved, "tokenizer.json", json.dumps({**tokenizer, **changes}).encode())
    with pytest.raises(ValueError, match="damaged"):
        load(saved)


WEIGHTS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "no head": ("head.safetensors", lambda t: t.pop("head.weight")),
    "no bias": ("head.safetensors", lambda t: t.pop("head.bias")),
    "a wider head": (
        "head.safetensors",
        lambda t: t.update({"head.weight": np.ones((2, 17), "f4")}),
    ),
    "another bias": ("head.safetensors", lambda t: t.update({"head.bias": np.ones(3, "f4")})),
    "more in the head": ("head.safetensors", lambda t: t.update(more=np.ones(3, "f4"))),
    "a table less": ("model.safetensors", lambda t: t.pop("embeddings.LayerNorm.weight")),
    "another name": (
        "model.safetensors",
        lambda t: t.update(more=t.pop("embeddings.LayerNorm.weight")),
    ),
    "another shape": (
        "model.safetensors",
        lambda t: t.update({"embeddings.LayerNorm.weight": np.ones((4, 4), "f4")}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "change"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_belong(name: str, change: Callable[..., Any], saved: Path) -> None:
    change_tensors(saved, name, change)
    with pytest.raises(ValueError, match="damaged"):
        load(saved)


@pytest.mark.parametrize("name", [n for n in FILES if n != "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 64, b"{}", b"[" * 10_000])
def test_files_of_nonsense_with_the_right_checksum(name: str, content: bytes, saved: Path) -> None:
    change_file(saved, name, content)
    with pytest.raises(ValueError, match=r"damaged|config"):
        load(saved)


def test_nothing_is_unpickled(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load(saved)


@pytest.mark.parametrize("moment", ["_load_network", "load_saved_chunker"])
def test_a_folder_that_is_replaced_while_it_is_read(
    moment: str, tiny_bert: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes out is one of both estimators, and not the labels of one with the other's head."""
    other = fit(tiny_bert, "numbers as labels")
    read = getattr(persistence, moment)
    times = []

    def replace_first(*args: Any) -> Any:
        times.append(1)
        if len(times) == 1:
            other.save_pretrained(saved)
        return read(*args)

    monkeypatch.setattr(persistence, moment, replace_first)
    again = load(saved)
    assert len(times) == 3  # the save in between loads what it has written
    np.testing.assert_array_equal(again.classes_, other.classes_)
    np.testing.assert_array_equal(logits_of(again), logits_of(other))


def test_a_folder_that_is_always_replaced(
    fitted: LongBertClassifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = persistence.load_saved_chunker

    def replace_always(folder: Path, *args: Any) -> Any:
        if folder == saved:  # and not what is loaded while it is saved
            fitted.save_pretrained(saved)
        return read(folder, *args)

    monkeypatch.setattr(persistence, "load_saved_chunker", replace_always)
    with pytest.raises(ValueError, match="replaced again and again"):
        load(saved)


# Faults in the middle of a save


STEPS = {
    "save_encoder": persistence,
    "save_tokenizer": persistence,
    "save_file": persistence,
    "fingerprint": manifest,
    "_load_once": manifest,
    "_write_through": folders,
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        RuntimeError("of Rust"),
        KeyboardInterrupt(),
        MemoryError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_leaves_the_old_folder(
    error: BaseException,
    step: str,
    tiny_bert: str,
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise error

    before = contents(saved.parent)
    other = fit(tiny_bert, random_state=1)
    with monkeypatch.context() as patch:
        patch.setattr(STEPS[step], step, fail)
        expected = OSError if isinstance(error, Exception) else KeyboardInterrupt
        with pytest.raises(expected) as raised:
            other.save_pretrained(saved)
    if expected is OSError:
        assert "could not be saved" in str(raised.value)
        assert raised.value.__cause__ is error
    assert contents(saved.parent) == before


@pytest.mark.parametrize("n_renames", [1, 2, 3])
def test_a_fault_between_the_renames(
    n_renames: int, fitted: LongBertClassifier, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last rename fails, or is interrupted; what was put aside is put back."""
    before, done, rename = contents(saved.parent), [], Path.rename

    def fail(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == n_renames:
            raise KeyboardInterrupt
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        if n_renames < 3:
            with pytest.raises(KeyboardInterrupt):
                fitted.save_pretrained(saved)
            assert contents(saved.parent) == before
        else:
            fitted.save_pretrained(saved)
            assert len(done) == 2


def test_a_process_that_was_killed_between_the_renames(
    fitted: LongBertClassifier, saved: Path
) -> None:
    """What was put aside is found under its old name, and the next save cleans up."""
    saved.rename(folders.folder_aside(saved))
    with pytest.warns(UserWarning, match="a save there did not end: loaded what was saved before"):
        assert load(saved).predict(TEXTS[:1]) == ["good"]
    fitted.save_pretrained(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]
    shutil.copytree(saved, folders.folder_aside(saved))  # killed before it was deleted
    fitted.save_pretrained(saved)
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


SAVER = """
import joblib, sys
print("ready", flush=True)
model = joblib.load(sys.argv[1])
while True:
    model.save_pretrained(sys.argv[2])
    print("saved", flush=True)
"""


@pytest.fixture
def saver(
    fitted: LongBertClassifier, saved: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start processes that save the estimator over and over; a prefix may limit them."""
    model = tmp_path_factory.mktemp("saver") / "model.joblib"
    joblib.dump(fitted, model)
    started = []

    def start(*prefix: str) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-c", SAVER, str(model), str(saved)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_killed_at_any_time(
    saver: Callable[..., subprocess.Popen[str]], fitted: LongBertClassifier, saved: Path
) -> None:
    expected = fitted.predict_proba(TEXTS)
    rng = np.random.RandomState(0)
    for _ in range(20):
        process = saver()
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert process.stdout.readline() == "saved\n"
        try:
            process.wait(rng.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        with warnings.catch_warnings():  # killed between the renames, it is what was put aside
            warnings.filterwarnings("ignore", ".*a save there did not end")
            again = load(saved)
        np.testing.assert_array_equal(again.predict_proba(TEXTS), expected)


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit is of Linux")
def test_a_file_that_may_not_grow(
    saver: Callable[..., subprocess.Popen[str]], fitted: LongBertClassifier, saved: Path
) -> None:
    """RLIMIT_FSIZE, which fails as a full disk does."""
    before = contents(saved.parent)
    process = saver("prlimit", f"--fsize={(saved / 'tokenizer.json').stat().st_size // 2}")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "OSError: The estimator could not be saved" in errors
    assert contents(saved.parent) == before


# JSON


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text()
    | arrays(
        st.sampled_from([np.int8, np.uint64, np.float32, np.float64, np.bool_]),
        st.integers(0, 3),
    )
    | arrays("U3", st.integers(0, 3), elements=st.text("ab", max_size=3))
    | st.sampled_from([np.float32(0.1), np.int64(-3), np.str_("x"), np.bool_(True), Path("a/b")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.just("$array"), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(one: Any, two: Any) -> bool:
    if type(one) is not type(two):
        return False
    if isinstance(one, np.ndarray):
        is_alike = one.shape == two.shape and one.dtype.kind == two.dtype.kind
        return is_alike and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict):
        return list(one) == list(two) and all(map(same, one.values(), two.values()))
    return bool(one == two)


@given(values)
@settings(deadline=None)
def test_json_and_back(value: Any) -> None:
    assert same(from_json(json.loads(json.dumps(to_json(value), allow_nan=False))), value)


def test_a_dtype_does_not_decide_how_much_memory_is_taken() -> None:
    assert from_json({"$array": ["<U400000000", [1], ["a"]]}).nbytes == 4


def test_json_of_what_has_no_number() -> None:
    for value in (np.inf, -np.inf, np.nan):
        assert repr(from_json(json.loads(json.dumps(to_json(value), allow_nan=False)))) == repr(
            value
        )
    strings = np.array(["a", "long " * 9], dtype=np.dtypes.StringDType())
    again = from_json(to_json(strings))
    assert (again.dtype, again.tolist()) == (strings.dtype, strings.tolist())
    for odd in (
        np.longdouble(1),
        np.array([1], dtype=np.longdouble),
        object(),
        {1, 2},
        b"x",
        1j,
        np.datetime64("2020-01-01"),
        len,
        [print],
    ):
        with pytest.raises(TypeError, match="is a "):
            to_json(odd)
