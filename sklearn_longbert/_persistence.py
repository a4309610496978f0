"""A fitted estimator as a folder: weights as safetensors, everything else as JSON.

Invariants: a folder is written beside its place and renamed, so that what was there stays whole
until the new one is; nothing that is read is run; what was not written here, or has changed
since, is an error.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from transformers.activations import ACT2FN

from sklearn_longbert._chunking import TextChunker
from sklearn_longbert._encoder_files import (
    FILES,
    load_saved_encoder,
    load_saved_tokenizer,
    save_encoder,
    save_tokenizer,
)
from sklearn_longbert._json import decode, encode
from sklearn_longbert._network import LongBertNetwork, network_settings
from sklearn_longbert._pooling import POOLINGS, TOKEN_POOLINGS
from sklearn_longbert._provenance import library_versions

FORMAT = 1  # raise it when a folder of the old format can no longer be read as one of the new
MANIFEST = "sklearn_longbert.json"
HEAD = "head.safetensors"
REQUIRED = (HEAD, *FILES)
MOST_MANIFEST_BYTES = 2**28  # it has a number for each training text
SECTIONS = ("estimator", "parameters", "fitted", "chunker", "network")


@dataclass(frozen=True)
class Saved:
    """What a manifest says of an estimator.

    Attributes
    ----------
    folder : Path
    estimator : str
        "classifier" or "regressor".
    version : str
        Of this package, that saved it.
    parameters, fitted : dict
        Parameters and attributes of the estimator.
    chunker : dict
        Parameters of the chunker, and `pad_id`.
    network : dict
        What the network is made with.
    """

    folder: Path
    estimator: str
    version: str
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    chunker: dict[str, Any]
    network: dict[str, Any]

    def damaged(self, why: str) -> ValueError:
        """Return the error for a manifest that contradicts itself."""
        return _damaged(self.folder / MANIFEST, why)

    def load(self) -> tuple[LongBertNetwork, TextChunker]:
        """Return the network, on the CPU, and the fitted chunker.

        Raises
        ------
        ValueError
            If weights, config, tokenizer and manifest do not belong together.
        """
        network = self._load_network()
        try:
            chunker_parameters = dict(self.chunker)
            pad_id = chunker_parameters.pop("pad_id")
            chunker = TextChunker(**chunker_parameters)
            chunker._validate_params()
            config = network.encoder.config
            if not 0 <= pad_id < config.vocab_size:
                raise ValueError(f"pad_id is {pad_id}")
            chunker._take(load_saved_tokenizer(self.folder), config, pad_id, self.folder)
        except (ValueError, KeyError, TypeError) as error:
            raise self.damaged(f"its chunks cannot be made: {error}") from error
        return network, chunker

    def _load_network(self) -> LongBertNetwork:
        path = self.folder / HEAD
        try:
            head = load_file(path)
            encoder = load_saved_encoder(self.folder)
            _check_settings(self.network, head, encoder.config.hidden_size)
            with torch.random.fork_rng(devices=[]):  # first weights are drawn, then replaced
                network = LongBertNetwork(encoder, **self.network)
            weights = {name: torch.from_numpy(weight) for name, weight in head.items()}
            missing, unknown = network.load_state_dict(weights, strict=False)
            differing = unknown + [name for name in missing if not name.startswith("encoder.")]
            if differing:
                raise ValueError(f"it lacks, or has beyond what is expected, {differing[0]}")
        except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise _damaged(path, f"{error}") from error
        return network


def save(
    name: str | os.PathLike[str],
    network: LongBertNetwork,
    chunker: TextChunker,
    **sections: Any,
) -> None:
    """Write a folder that :func:`read_manifest` reads.

    Parameters
    ----------
    name : str or path-like
        Folder, that does not exist, is empty, or was saved before and is replaced.
    network : LongBertNetwork
    chunker : TextChunker
        Fitted.
    **sections : dict
        `estimator`, `parameters` and `fitted`, as in :class:`Saved`.

    Raises
    ------
    FileExistsError
        If the folder holds anything else.
    OSError
        If it cannot be written, for instance because the disk is full.
    TypeError
        If a section holds what JSON has no form for.
    """
    folder, layout = _absolute(name), chunker.layout_
    sections["chunker"] = {**chunker.get_params(), "pad_id": layout.pad_id}
    sections["network"] = network_settings(network)
    content = {name: _encoded(section) for name, section in sections.items()}
    _check_replaceable(folder)
    with _written_beside(folder) as beside:
        save_encoder(network.encoder, beside)
        save_tokenizer(chunker.tokenizer_, layout.prefix, layout.suffix, layout.pad_id, beside)
        head = {
            name: weight.detach().cpu().contiguous().numpy()
            for name, weight in network.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file(head, beside / HEAD)
        content["versions"] = library_versions()
        content["files"] = {path.name: _fingerprint(path) for path in sorted(beside.iterdir())}
        manifest = {"format": FORMAT, "sha256": _digest_of(content), "content": content}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        for path in beside.iterdir():  # safetensors lets nobody else read what it writes
            shutil.copymode(beside / MANIFEST, path)


def find_saved(name: str | os.PathLike[str]) -> Path | None:
    """Return the local folder of that name if an estimator was saved there.

    Where a process was killed between the two renames of a save, it is the one it had put aside.
    """
    folder = _absolute(name)
    for place in (folder, _aside(folder)):
        if is_saved(place):
            return place
        if place.exists():
            return None
    return None


def is_saved(folder: Path) -> bool:
    """Whether an estimator was saved in that folder, undamaged or not."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Saved:
    """Return what is known of a saved estimator, all of whose files are unchanged.

    Raises
    ------
    ValueError
        If the folder was not written by :func:`save`, has another format, or was damaged.
    """
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
            f"{path} has format {number!r:.20}, where this version of sklearn_longbert reads "
            f"{FORMAT}: load it with the version that saved it, and save it with this one."
        )
    try:
        if manifest["sha256"] != _digest_of(content):
            raise ValueError("its content has changed since it was saved")
        _check_files(folder, content["files"])
        saved = Saved(
            folder=folder,
            version=str(content["versions"]["sklearn-longbert"]),
            **{section: decode(content[section]) for section in SECTIONS},
        )
        for section in SECTIONS[1:]:
            if not isinstance(getattr(saved, section), dict):
                raise ValueError(f"its section {section} is no dict")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{error}") from error
    return saved


def _encoded(section: Any) -> Any:
    try:
        return encode(section)
    except TypeError as error:
        raise TypeError(
            f"The estimator cannot be saved, {error}, which has no form in JSON: change that "
            f"parameter or label, or keep the estimator as a pickle, with joblib.dump."
        ) from error


def _check_settings(settings: dict[str, Any], head: dict[str, Any], hidden_size: int) -> None:
    """Raise ValueError before anything is made as large as wrong settings say."""
    size = hidden_size
    if settings["hidden_layer"] is not None:
        size, activation = settings["hidden_layer"]
        if activation not in ACT2FN:
            raise ValueError(f"unknown activation {activation!r}")
        if head["transform.0.weight"].shape != (size, hidden_size):
            raise ValueError(f"a hidden layer of size {size!r}, but its weights differ")
    if head["head.weight"].shape != (settings["n_outputs"], size):
        raise ValueError(f"{settings['n_outputs']!r} outputs, but the head's weights differ")
    if settings["pooling"] not in POOLINGS or settings["token_pooling"] not in TOKEN_POOLINGS:
        raise ValueError("unknown pooling")
    if not isinstance(settings["frozen"], bool):
        raise ValueError("frozen is no bool")


# Files


def _damaged(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path} cannot be read, {why}: the saved estimator is damaged or was changed. Save it "
        f"again, or restore the folder from a copy."
    )


def _digest_of(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _fingerprint(path: Path) -> list[Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]


def _check_files(folder: Path, files: dict[str, Any]) -> None:
    if set(files) != set(REQUIRED):  # so that no name can lead elsewhere
        raise ValueError(
            f"it names the files {sorted(files)} where {sorted(REQUIRED)} are expected"
        )
    for name, (n_bytes, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if path.stat().st_size != n_bytes:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, not {n_bytes}")
        if _fingerprint(path)[1] != digest:
            raise ValueError(f"{name} has changed since it was saved")


def _check_replaceable(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: pass the path of a folder.")
    names = {path.name for path in folder.iterdir()}
    others = names - {MANIFEST, *REQUIRED} if MANIFEST in names else names
    if others:
        raise FileExistsError(
            f"{folder} holds {min(others)}, which save_pretrained did not write and will not "
            f"delete: pass a new or empty folder, or one it has written."
        )


def _absolute(name: str | os.PathLike[str]) -> Path:
    """Return the folder itself, where the name is relative or that of a link to it."""
    return Path(name).expanduser().resolve()


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


@contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """Yield an empty folder, which takes the place of `folder` unless there is an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.partial")
    try:
        beside.mkdir(mode=0o700)  # nobody else's until it is complete
        yield beside
        _write_through(beside)
        _replace(folder, beside)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, Exception):  # of safetensors and tokenizers, which have their own
            raise OSError(
                f"The estimator could not be saved in {folder} ({type(error).__name__}: {error}): "
                f"see to room and permission there. What was in {folder} is unchanged."
            ) from error
        raise


def _write_through(folder: Path) -> None:
    """Have the operating system put the files on the disk before they get their name."""
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(folder: Path, new: Path) -> None:
    aside = _aside(folder)
    _check_replaceable(aside)
    if folder.exists():
        shutil.copymode(folder, new)
        shutil.rmtree(aside, ignore_errors=True)
    else:
        usual = new / "usual"  # permissions of a new folder here, without asking for the umask
        usual.mkdir()
        shutil.copymode(usual, new)
        usual.rmdir()
    try:
        if folder.exists():
            folder.rename(aside)
        new.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
