"""Save and load folders whole: what an estimator keeps beside its weights, as JSON in a manifest.

Invariants: nothing in a folder is run when it is loaded; a file that was not written here, or has
changed since, is an error; a folder that cannot be loaded again never replaces another one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar
from warnings import warn

from sklearn_longbert._folders import (
    absolute,
    check_files,
    check_replaceable,
    fingerprint,
    folder_aside,
    named_folder,
    written_beside,
)
from sklearn_longbert._provenance import library_versions
from sklearn_longbert._saving.card import CARD, has_others_card, write_card
from sklearn_longbert._saving.encoder_files import FILES, QUANTIZED
from sklearn_longbert._saving.json import from_json, to_json
from sklearn_longbert._version import __version__

FORMAT = 2  # to be raised when this code can no longer load folders of the old format
MANIFEST = "sklearn_longbert.json"
HEAD = "head.safetensors"
BASELINE = "baseline.safetensors"
OURS = (MANIFEST, HEAD, BASELINE, QUANTIZED, *FILES)
MOST_MANIFEST_BYTES = 2**23
MOST_TRIES = 5  # tries to load a folder that is being replaced
CLASSES = {
    "classifier": "LongBertClassifier",
    "regressor": "LongBertRegressor",
    "vectorizer": "LongBertVectorizer",
}

SavedType = TypeVar("SavedType")


@dataclass(frozen=True)
class Contents(Generic[SavedType]):
    """What the folders of some classes hold.

    Attributes
    ----------
    files : tuple of str
        Names of the files that are always there, but the manifest.
    sections : tuple of str
        Names of the manifest's dicts.
    load : callable
        Makes what was saved of a folder and its manifest. It may raise any error.
    optional : tuple of str, default=()
        Names of files that may be there.
    """

    files: tuple[str, ...]
    sections: tuple[str, ...]
    load: Callable[[Path, dict[str, Any]], SavedType]
    optional: tuple[str, ...] = ()


def load_folder(name: Any, kind: str, contents: Contents[SavedType]) -> SavedType | None:
    """Return what was saved in the local folder of that name, None if nothing was.

    If another process saves there meanwhile, it is the whole old or the whole new one.

    Parameters
    ----------
    name : Any
        Any value that may be the name of a folder.
    kind : str
        A key of `CLASSES`.
    contents : Contents

    Raises
    ------
    ValueError
        If the folder was not written by :func:`saved_folder`, holds another kind, has another
        format, or was damaged.
    """
    for _ in range(MOST_TRIES):
        folder = _find_saved(name)
        if folder is None:
            return None
        before = _identity(folder)
        try:
            saved = _load_once(folder, kind, contents)
        except (OSError, ValueError):
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                _warn_if_aside(folder, name)
                return saved
    raise ValueError(f"{folder} was replaced again and again while it was loaded: try once more.")


@contextmanager
def saved_folder(
    name: str | os.PathLike[str],
    kind: str,
    contents: Contents[SavedType],
    sections: dict[str, Any],
    check: Callable[[SavedType], object],
) -> Iterator[Path]:
    """Yield a folder to write the files in. It gets its name when they can be loaded again.

    Parameters
    ----------
    name : str or path-like
        Folder that does not exist, is empty, or was saved before and is replaced.
    kind : str
        A key of `CLASSES`.
    contents : Contents
    sections : dict
        The manifest's dicts.
    check : callable
        Raises an error if no estimator can be made of what is loaded again.

    Raises
    ------
    FileExistsError
        If the folder holds anything else.
    OSError
        If it cannot be written, for instance because the disk is full, or not be loaded again.
    TypeError
        If a section holds a value that has no form in JSON.
    """
    folder = named_folder(name)
    content: dict[str, Any] = {name: _in_json(section) for name, section in sections.items()}
    check_replaceable(folder, OURS)
    with _failing_as_a_whole(folder), written_beside(folder, OURS) as beside:
        yield beside
        content["estimator"] = kind
        content["versions"] = library_versions()
        content["files"] = {path.name: fingerprint(path) for path in sorted(beside.iterdir())}
        manifest = {"format": FORMAT, "sha256": _digest_of(content), "content": content}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        if len(text) > MOST_MANIFEST_BYTES:
            raise ValueError("its labels and parameters are too large: keep it as a pickle")
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        for path in beside.iterdir():  # only its owner can read a file of safetensors
            shutil.copymode(beside / MANIFEST, path)
        _check_loadable(beside, kind, contents, check)
        if not any(has_others_card(place) for place in (folder, folder_aside(folder))):
            write_card(beside, kind, CLASSES[kind], sections, content["versions"])
            shutil.copymode(beside / MANIFEST, beside / CARD)


@contextmanager
def _failing_as_a_whole(folder: Path) -> Iterator[None]:
    """Turn errors of safetensors, tokenizers and the system into one that says what failed."""
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        # a ValueError says its cure
        cure = "" if isinstance(error, ValueError) else ": see to room and permission there"
        failed = OSError(
            f"The estimator could not be saved in {folder} ({type(error).__name__}: {error})"
            f"{cure}. What was in {folder} is unchanged."
        )
        failed.errno = getattr(error, "errno", None)
        raise failed from error


def _check_loadable(
    folder: Path,
    kind: str,
    contents: Contents[SavedType],
    check: Callable[[SavedType], object],
) -> None:
    try:
        check(_load_once(folder, kind, contents))
    except (TypeError, ValueError) as error:
        cause = error.__cause__ or error
        raise ValueError(
            f"what was written cannot be loaded again, {type(cause).__name__}: {cause}: change "
            f"what is named, or keep the estimator as a pickle, with joblib.dump"
        ) from error


def _find_saved(name: Any) -> Path | None:
    """Return the folder of a saved estimator, None if there is none.

    If a process was killed between the two renames of a save, it is the folder put aside.
    """
    try:
        folder = absolute(name)
        exists = folder.exists() or not folder.name
    except (OSError, ValueError, TypeError, RuntimeError):
        return None  # find_folder then says what is wrong with the name
    if exists:
        return folder if (folder / MANIFEST).is_file() else None
    aside = folder_aside(folder)
    return aside if (aside / MANIFEST).is_file() else None


def _warn_if_aside(folder: Path, name: Any) -> None:
    if folder != absolute(name):
        warn(
            f"{name} is missing, because a save there did not end: loaded what was saved before "
            f"it, {folder}. Rename that, or save again.",
            UserWarning,
            stacklevel=2,
        )


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """Return what differs between a folder and another one that takes its name."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _load_once(folder: Path, kind: str, contents: Contents[SavedType]) -> SavedType:
    manifest = _load_manifest(folder, kind, contents)
    try:
        with _naming_panics():
            return contents.load(folder, manifest)
    except ImportError:  # what is missing is named by its own error
        raise
    except Exception as error:  # wrong content brings errors of any kind
        raise _damaged(folder, error) from error


def _load_manifest(folder: Path, kind: str, contents: Contents[Any]) -> dict[str, Any]:
    path = folder / MANIFEST
    if path.stat().st_size > MOST_MANIFEST_BYTES:
        raise _damaged(path, f"it has more than {MOST_MANIFEST_BYTES} bytes")
    try:
        manifest = json.loads(path.read_bytes())
        number, content = manifest["format"], manifest["content"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, f"it is no JSON with a format number ({error!r})") from error
    if number != FORMAT:
        raise ValueError(
            f"{path} has format {number!r:.20}, where sklearn_longbert {__version__} takes "
            f"{FORMAT}: load it with the version that saved it, {_saving_version(content)}, or fit "
            f"anew."
        )
    _check_kind(folder, content, kind)
    try:
        if manifest["sha256"] != _digest_of(content):
            raise ValueError("its content has changed since it was saved")
        if content["estimator"] != kind:
            raise ValueError(f"its kind is {content['estimator']!r:.20}")
        more = [name for name in contents.optional if name in content["files"]]
        check_files(folder, content["files"], (*contents.files, *more))
        sections = {section: from_json(content[section]) for section in contents.sections}
        for name, section in sections.items():
            if not isinstance(section, dict):
                raise ValueError(f"its section {name} is no dict")
        return {
            **sections,
            "estimator": kind,
            "files": tuple(content["files"]),
            "version": str(content["versions"]["sklearn-longbert"])[:20],
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _check_kind(folder: Path, content: Any, kind: str) -> None:
    """Raise ValueError, which names the class to use, if the folder holds another kind."""
    found = content.get("estimator") if isinstance(content, dict) else None
    if found != kind and found in tuple(CLASSES):
        raise ValueError(
            f"The folder {folder} holds a {found}, and no {kind}: use "
            f"{CLASSES[found]}.from_pretrained."
        )


def _saving_version(content: Any) -> str:
    """Return the version that wrote a manifest of another format, if the manifest names it."""
    versions = content.get("versions") if isinstance(content, dict) else None
    version = versions.get("sklearn-longbert") if isinstance(versions, dict) else None
    return f"{version or 'unknown'!s:.20}"


@contextmanager
def _naming_panics() -> Iterator[None]:
    """Turn a panic of Rust, which is no Exception, into a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer cannot be used ({error})") from error


def _in_json(section: Any) -> Any:
    try:
        return to_json(section)
    except TypeError as error:
        raise TypeError(
            f"The estimator cannot be saved, {error}, which has no form in JSON: change that "
            f"parameter or label, or keep the estimator as a pickle, with joblib.dump."
        ) from error


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(
        f"{path} cannot be read, {str(why)[:500]}: the saved estimator is damaged or was changed. "
        f"Save it again, or restore the folder from a copy."
    )


def _digest_of(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
