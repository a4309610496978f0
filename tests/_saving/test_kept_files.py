"""Pins that a clone of git or of the Hub can be saved in again, and loses no file of its user.

Files of git and the Hub are in the new folder when it takes its place, and stay in the old one
until then, whatever interrupts a save. Other files are still refused.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from tiny import ENCODER_ALONE

from sklearn_longbert import LongBertClassifier, LongBertVectorizer
from sklearn_longbert import _folders as folders

TEXTS = ["good fox jumps " * 9, "bad dog runs " * 9] * 2
OURS = {"config.json", "head.safetensors", "model.safetensors", "sklearn_longbert.json",
        "tokenizer.json", "tokenizer_config.json"}  # fmt: skip


@pytest.fixture(scope="module")
def fitted(tiny_bert: str) -> LongBertClassifier:
    settings: dict[str, Any] = {"max_epochs": 1, "device": "cpu", "random_state": 0}
    return LongBertClassifier(tiny_bert, **ENCODER_ALONE, **settings).fit(
        TEXTS, ["good", "bad"] * 2
    )


KEPT = {
    "README.md": "about",
    "LICENSE": "mine",
    "LICENSE.txt": "mine",
    "NOTICE": "mine",
    ".gitattributes": "*.safetensors filter=lfs",
    ".gitignore": "*.tmp",
    ".git/HEAD": "ref: refs/heads/main",
    ".git/objects/ab/cdef": "object",
    ".cache/huggingface/download/config.json.metadata": "etag",
    ".huggingface/download/config.json.metadata": "etag",
}


def put_kept(folder: Path) -> None:
    for name, text in KEPT.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / ".git/objects/ab/cdef").chmod(0o444)
    (folder / ".git/hooks").mkdir()
    (folder / ".git/link").symlink_to("HEAD")
    (folder / "README.nowhere").symlink_to("missing")


def check_kept(folder: Path) -> None:
    assert {name: (folder / name).read_text() for name in KEPT} == KEPT
    assert (folder / ".git/objects/ab/cdef").stat().st_mode & 0o777 == 0o444
    assert (folder / ".git/hooks").is_dir()
    assert (folder / ".git/link").readlink() == Path("HEAD")
    assert (folder / "README.nowhere").readlink() == Path("missing")


@pytest.fixture(params=["hard links", "copies"])
def hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("no hard links")

    if request.param == "copies":
        monkeypatch.setattr(os, "link", refuse)
    return request.param == "hard links"


def test_what_git_and_the_hub_put_there_is_kept(
    fitted: LongBertClassifier, tmp_path: Path, hard_links: bool
) -> None:
    """In a folder that was saved, twice, and in one that a new repository has made."""
    folder = tmp_path / "model"
    put_kept(folder)
    inode = (folder / "README.md").stat().st_ino
    for _ in range(3):
        fitted.save_pretrained(folder)
        check_kept(folder)
        assert (folder / "README.md").stat().st_nlink == 1
        assert ((folder / "README.md").stat().st_ino == inode) == hard_links
    (folder / "README.md").write_text("changed later")  # is not in the manifest
    again = LongBertClassifier.from_pretrained(folder)
    np.testing.assert_array_equal(again.predict(TEXTS), fitted.predict(TEXTS))
    tops = {name.split("/")[0] for name in KEPT} | {"README.nowhere"}
    assert {path.name for path in folder.iterdir()} == OURS | tops
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["notes.txt", "pytorch_model.bin", "git", "cache", "my README.md"])
def test_other_files_are_refused(name: str, fitted: LongBertClassifier, tmp_path: Path) -> None:
    fitted.save_pretrained(tmp_path / "model")
    put_kept(tmp_path / "model")
    (tmp_path / "model" / name).write_text("mine")
    with pytest.raises(FileExistsError, match=name):
        fitted.save_pretrained(tmp_path / "model")
    check_kept(tmp_path / "model")
    assert (tmp_path / "model" / name).read_text() == "mine"


@pytest.mark.parametrize("step", ["_write_through", "_carry_over", "_link"])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_save_that_fails_loses_nothing(
    error: BaseException,
    step: str,
    fitted: LongBertClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: Any) -> None:
        raise error

    put_kept(tmp_path / "model")
    fitted.save_pretrained(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(folders, step, fail)
        with pytest.raises(type(error)):
            fitted.save_pretrained(tmp_path / "model")
    check_kept(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    LongBertClassifier.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("n_renames", [1, 2])
def test_a_fault_at_a_rename_loses_nothing(
    n_renames: int, fitted: LongBertClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, rename = [], Path.rename

    def fail(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == n_renames:
            raise KeyboardInterrupt
        return rename(self, target)

    put_kept(tmp_path / "model")
    fitted.save_pretrained(tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(KeyboardInterrupt):
            fitted.save_pretrained(tmp_path / "model")
    check_kept(tmp_path / "model")


@pytest.mark.parametrize("moment", ["between the renames", "before the old one is deleted"])
def test_after_a_kill_the_next_save_keeps_them(
    moment: str, fitted: LongBertClassifier, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    put_kept(folder)
    fitted.save_pretrained(folder)
    aside = folders.folder_aside(folder)
    if moment == "between the renames":
        folder.rename(aside)
    else:
        shutil.copytree(folder, aside, symlinks=True)
        (aside / "README.md").write_text("old")
    fitted.save_pretrained(folder)
    check_kept(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


SAVER = """
import joblib, sys
model = joblib.load(sys.argv[1])
while True:
    model.save_pretrained(sys.argv[2])
    print("saved", flush=True)
"""


@pytest.mark.slow
def test_killed_at_any_time(fitted: LongBertClassifier, tmp_path: Path) -> None:
    folder = tmp_path / "saved" / "model"
    put_kept(folder)
    fitted.save_pretrained(folder)
    joblib.dump(fitted, tmp_path / "model.joblib")
    rng = np.random.RandomState(0)
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path / "model.joblib"), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "saved\n"
        try:
            process.wait(rng.uniform(0, 0.3))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
        check_kept(folder if folder.exists() else folders.folder_aside(folder))


def run_git(folder: Path) -> Callable[..., str]:
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *identity, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return git


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_clone_stays_one(fitted: LongBertClassifier, tiny_bert: str, tmp_path: Path) -> None:
    """A new repository, cloned, saved in, pushed; and the same again with another estimator."""
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "hub")], check=True)
    subprocess.run(
        ["git", "clone", "-q", str(tmp_path / "hub"), str(tmp_path / "clone")],
        check=True,
        capture_output=True,
    )
    git = run_git(tmp_path / "clone")
    (tmp_path / "clone" / "README.md").write_text("about")
    other = LongBertClassifier(tiny_bert, **ENCODER_ALONE, max_epochs=1, random_state=1)
    for n_commits, estimator in enumerate((fitted, other.fit(TEXTS, [1, 2] * 2)), start=1):
        estimator.save_pretrained(tmp_path / "clone")
        changed = {line[3:] for line in git("status", "--porcelain").splitlines()}
        if n_commits == 1:
            assert changed == {"README.md", *OURS}
        else:
            assert {"head.safetensors", "sklearn_longbert.json"} <= changed <= OURS
        git("add", "--all")
        git("commit", "-q", "-m", "a model")
        git("push", "-q", "origin", "HEAD")
        git("fsck", "--strict")
        assert len(git("log", "--oneline").splitlines()) == n_commits
        subprocess.run(
            ["git", "clone", "-q", str(tmp_path / "hub"), str(tmp_path / f"again{n_commits}")],
            check=True,
        )
        again = LongBertClassifier.from_pretrained(tmp_path / f"again{n_commits}")
        np.testing.assert_array_equal(again.predict(TEXTS), estimator.predict(TEXTS))


def test_a_vectorizer_keeps_them_too(tiny_bert: str, tmp_path: Path) -> None:
    put_kept(tmp_path / "model")
    vectorizer = LongBertVectorizer(tiny_bert, device="cpu").fit()
    for _ in range(2):
        vectorizer.save_pretrained(tmp_path / "model")
        check_kept(tmp_path / "model")
