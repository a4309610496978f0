"""Folders that are written whole or not at all, and replaced by renaming.

Invariant: a folder is written beside its place, so that the old folder stays whole until the new
one is complete; files of git and the Hub are in both, so that none is lost. This is our own code
because no library replaces a whole folder, checks what it replaces, and keeps the old one readable
meanwhile.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

# names of what git and the Hub put beside a model, in lower case
KEPT = ("readme*", "license*", "licence*", "notice*", ".git*", ".cache", ".huggingface")


def fingerprint(path: Path) -> list[Any]:
    """Return the size of a file and its SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]


def check_files(folder: Path, files: dict[str, Any], required: Collection[str]) -> None:
    """Raise ValueError unless `files` are the required ones, with their fingerprints."""
    if set(files) != set(required):  # so that no name can lead out of the folder
        raise ValueError(
            f"it names the files {sorted(files)} where {sorted(required)} are expected"
        )
    for name, (n_bytes, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != n_bytes:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {n_bytes}")
        if fingerprint(path)[1] != digest:
            raise ValueError(f"{name} has changed since it was saved")


def check_replaceable(folder: Path, ours: Collection[str]) -> None:
    """Raise FileExistsError if the folder is a file, or holds anything but `ours` and `KEPT`.

    Parameters
    ----------
    folder : Path
    ours : collection of str
        Names of the files that may be replaced, if the first of them is there.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: pass the path of a folder.")
    names = {path.name: path.is_file() for path in folder.iterdir() if not _is_kept(path)}
    known = ours if names.get(next(iter(ours))) else ()
    others = [name for name, is_file in names.items() if not is_file or name not in known]
    if others:
        raise FileExistsError(
            f"{folder} holds {min(others)}, which sklearn_longbert did not write and will "
            f"not delete: pass a new or empty folder, or one it has written."
        )


def _is_kept(path: Path) -> bool:
    return any(fnmatch(path.name.lower(), pattern) for pattern in KEPT)


def _carry_over(folder: Path, new: Path) -> None:
    """Put what is kept in `folder` into `new`, too: files as hard links where there are any."""
    for path in folder.iterdir() if folder.exists() else ():
        if not _is_kept(path) or os.path.lexists(new / path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True, copy_function=_link)
        else:
            _link(path, new / path.name)


def _link(path: str | Path, new: str | Path) -> None:
    try:
        os.link(path, new, follow_symlinks=False)
    except (OSError, NotImplementedError):  # not all file systems have hard links
        shutil.copy2(path, new, follow_symlinks=False)
        if not Path(new).is_symlink():
            _sync(Path(new))


def absolute(name: Any) -> Path:
    """Return the absolute path of a folder, with links in its name resolved."""
    return Path(name).expanduser().resolve()


def named_folder(name: Any) -> Path:
    """Return the folder to save in; raise an error if it is no name or the current folder."""
    try:
        folder = absolute(name)
    except TypeError as error:
        raise TypeError(f"{name!r} is no name of a folder, which is a str or path.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name!r} is no name of a folder ({error}).") from error
    if not str(name) or folder == Path.cwd():
        raise ValueError(
            f"{name!r} is the current folder, which cannot be replaced: name one inside it."
        )
    return folder


def folder_aside(folder: Path) -> Path:
    """Return where a folder is put aside while another one takes its place."""
    return folder.with_name(f".{folder.name}.previous")


@contextmanager
def written_beside(folder: Path, ours: Collection[str]) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `folder` unless there is an error.

    Parameters
    ----------
    folder : Path
    ours : collection of str
        See :func:`check_replaceable`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
    try:
        beside.mkdir(mode=0o700)  # closed to others until it is complete
        yield beside
        _write_through(beside)
        _replace(folder, beside, ours)
    except BaseException:  # Ctrl-C, too
        shutil.rmtree(beside, ignore_errors=True)
        raise


@contextmanager
def written_file(path: Path) -> Iterator[Path]:
    """Yield the name of a new file, which takes the place of `path` unless there is an error."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        yield beside
        _sync(beside)
        beside.replace(path)
        if os.name != "nt":  # Windows cannot open a folder
            _sync(path.parent)
    except BaseException:  # Ctrl-C, too
        beside.unlink(missing_ok=True)
        raise


def _write_through(folder: Path) -> None:
    """Make the operating system write the files to disk before the folder gets its name."""
    folders = () if os.name == "nt" else (folder,)  # Windows cannot open a folder
    for path in (*folder.iterdir(), *folders):
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(folder: Path, new: Path, ours: Collection[str]) -> None:
    aside = folder_aside(folder)
    for place in (folder, aside):  # checked again, because writing took a while
        check_replaceable(place, ours)
    for place in (folder, aside):  # aside, too: it is the last save's if that was killed
        _carry_over(place, new)
    if folder.exists():
        shutil.copymode(folder, new)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        usual = new / "usual"  # shows the permissions of a new folder here
        usual.mkdir()
        shutil.copymode(usual, new)
        usual.rmdir()
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    except BaseException:  # Ctrl-C, too: the folder put aside gets its name back
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
