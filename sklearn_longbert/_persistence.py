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
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray
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
N_CHUNKS = "n_chunks_"  # among the tensors of the head
MOST_MANIFEST_BYTES = 2**23
MOST_TRIES = 5  # to read a folder that is being replaced
CHUNKING = ("chunk_size", "chunk_overlap", "max_chunks", "chunk_selection")
SECTIONS = ("estimator", "parameters", "fitted", "chunker", "network")


@dataclass(frozen=True)
class Saved:
    """What a folder says of an estimator.

    Attributes
    ----------
    folder : Path
    estimator : str
        "classifier" or "regressor".
    version : str
        Of this package, that saved it.
    parameters, fitted : dict
        Parameters and attributes of the estimator.
    used : dict
        Of the parameters that shape chunks and network, those that the fit has used.
    network : LongBertNetwork
        On the CPU.
    chunker : TextChunker
        Fitted.
    """

    folder: Path
    estimator: str
    version: str
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    used: dict[str, Any]
    network: LongBertNetwork
    chunker: TextChunker

    def damaged(self, why: object) -> ValueError:
        """Return the error for a folder that contradicts itself."""
        return _damaged(self.folder / MANIFEST, why)


def load(name: Any) -> Saved | None:
    """Return the estimator that was saved in the local folder of that name, None if none was.

    Where another process saves there meanwhile, it is the whole old one or the whole new one.

    Raises
    ------
    ValueError
        If the folder was not written by :func:`save`, has another format, or was damaged.
    """
    for _ in range(MOST_TRIES):
        folder = _find_saved(name)
        if folder is None:
            return None
        before = _identity(folder)
        try:
            saved = _read(folder)
        except (OSError, ValueError):
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                _warn_if_aside(folder, name)
                return saved
    raise ValueError(f"{folder} was replaced again and again while it was read: try once more.")


def save(
    name: str | os.PathLike[str],
    network: LongBertNetwork,
    chunker: TextChunker,
    **sections: Any,
) -> None:
    """Write a folder that :func:`load` reads.

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
    folder, layout = _checked_name(name), chunker.layout_
    sections["chunker"] = {**chunker.get_params(), "pad_id": layout.pad_id}
    sections["network"] = network_settings(network)
    sections["fitted"] = dict(sections["fitted"])
    n_chunks = sections["fitted"].pop("n_chunks_")  # one a training text
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
        save_file({**head, N_CHUNKS: n_chunks.astype(np.int64)}, beside / HEAD)
        content["versions"] = library_versions()
        content["files"] = {path.name: _fingerprint(path) for path in sorted(beside.iterdir())}
        manifest = {"format": FORMAT, "sha256": _digest_of(content), "content": content}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        if len(text) > MOST_MANIFEST_BYTES:
            raise ValueError("its labels and parameters are too large: keep it as a pickle")
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        for path in beside.iterdir():  # safetensors lets nobody else read what it writes
            shutil.copymode(beside / MANIFEST, path)


def is_saved(folder: Path) -> bool:
    """Whether an estimator was saved in that folder, undamaged or not."""
    return (folder / MANIFEST).is_file()


def _find_saved(name: Any) -> Path | None:
    """Return the folder of a saved estimator.

    Where a process was killed between the two renames of a save, it is the one it had put aside.
    """
    try:
        folder = _absolute(name)
        exists = folder.exists() or not folder.name
    except (OSError, ValueError, TypeError, RuntimeError):
        return None  # what it is instead, find_folder says
    if exists:
        return folder if is_saved(folder) else None
    aside = _aside(folder)
    return aside if is_saved(aside) else None


def _warn_if_aside(folder: Path, name: Any) -> None:
    if folder != _absolute(name):
        warn(
            f"{name} is missing, because a save there did not end: loaded what was saved before "
            f"it, {folder}. Rename that, or save again.",
            UserWarning,
            stacklevel=2,
        )


def _identity(folder: Path) -> tuple[int, int, int] | None:
    """Tell a folder from another one that has taken its name."""
    try:
        status = (folder / MANIFEST).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _read(folder: Path) -> Saved:
    manifest = _read_manifest(folder)
    try:
        with _naming_panics():
            network, n_chunks = _read_network(folder, manifest["network"])
            chunker = _read_chunker(folder, manifest["chunker"], network)
            _check_pass(network, chunker)
    except Exception as error:  # whatever a config, weights or a tokenizer of any content bring
        raise _damaged(folder, error) from error
    cut = chunker.get_params()
    return Saved(
        folder=folder,
        estimator=str(manifest["estimator"])[:20],
        version=str(manifest["version"])[:20],
        parameters=manifest["parameters"],
        fitted={**manifest["fitted"], "n_chunks_": n_chunks},
        used={
            **{name: cut[name] for name in CHUNKING},
            **{name: manifest["network"][name] for name in ("pooling", "token_pooling", "dropout")},
            "freeze_encoder": network.frozen,
            "attention_dropout": manifest["parameters"].get("attention_dropout"),
        },
        network=network,
        chunker=chunker,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
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
        sections = {section: decode(content[section]) for section in SECTIONS}
        for section in SECTIONS[1:]:
            if not isinstance(sections[section], dict):
                raise ValueError(f"its section {section} is no dict")
        return {**sections, "version": content["versions"]["sklearn-longbert"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _read_network(
    folder: Path, settings: dict[str, Any]
) -> tuple[LongBertNetwork, NDArray[np.intp]]:
    """Return the network, and the chunks of each training text, which lie beside its weights."""
    head = load_file(folder / HEAD)
    n_chunks = head.pop(N_CHUNKS)
    if n_chunks.dtype.kind != "i" or n_chunks.ndim != 1 or (n_chunks < 0).any():
        raise ValueError(f"{HEAD}: {N_CHUNKS} are no numbers of chunks")
    encoder = load_saved_encoder(folder)
    _check_settings(settings, head, encoder.config.hidden_size)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, then replaced
        network = LongBertNetwork(encoder, **settings)
    weights = {name: torch.from_numpy(weight) for name, weight in head.items()}
    if any(weight.dtype != network.dtype for weight in weights.values()):
        raise ValueError(f"{HEAD}: weights of another type than the encoder's")
    missing, unknown = network.load_state_dict(weights, strict=False)
    differing = unknown + [name for name in missing if not name.startswith("encoder.")]
    if differing:
        raise ValueError(f"{HEAD} lacks, or has beyond what is expected, {differing[0]}")
    return network, n_chunks.astype(np.intp)


def _read_chunker(folder: Path, settings: dict[str, Any], network: LongBertNetwork) -> TextChunker:
    parameters = dict(settings)
    pad_id, n_tokens = parameters.pop("pad_id"), network.encoder.config.vocab_size
    if type(pad_id) is not int or not 0 <= pad_id < n_tokens:
        raise ValueError(f"pad_id is {pad_id!r}")
    chunker = TextChunker(**parameters)
    chunker._validate_params()
    tokenizer = load_saved_tokenizer(folder)
    chunker._take(tokenizer, network.encoder.config, pad_id, folder)
    layout = chunker.layout_
    ids = [*layout.prefix, *layout.suffix, *tokenizer.get_vocab(with_added_tokens=True).values()]
    if max(ids) >= n_tokens:
        raise ValueError(f"the tokenizer has the token {max(ids)}, the encoder has {n_tokens}")
    return chunker


def _check_pass(network: LongBertNetwork, chunker: TextChunker) -> None:
    """Raise an error unless a chunk goes through encoder and head."""
    layout = chunker.layout_
    chunk = torch.tensor([[*layout.prefix, layout.pad_id, *layout.suffix]])
    with torch.inference_mode():
        output = network.eval().encoder(input_ids=chunk, attention_mask=torch.ones_like(chunk))
        network.chunk_outputs(output.last_hidden_state[:, 0])


@contextmanager
def _naming_panics() -> Iterator[None]:
    """Turn a panic of Rust, which is no Exception, into a ValueError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"the tokenizer cannot be used ({error})") from error


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
    if not isinstance(settings["frozen"], bool) or not 0 <= settings["dropout"] < 1:
        raise ValueError("frozen is no bool, or dropout no probability")


# Files


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(
        f"{path} cannot be read, {str(why)[:500]}: the saved estimator is damaged or was changed. "
        f"Save it again, or restore the folder from a copy."
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
    names = {path.name: path.is_file() for path in folder.iterdir()}
    ours = {MANIFEST, *REQUIRED} if names.get(MANIFEST) else set()
    others = [name for name, is_file in names.items() if not is_file or name not in ours]
    if others:
        raise FileExistsError(
            f"{folder} holds {min(others)}, which save_pretrained did not write and will not "
            f"delete: pass a new or empty folder, or one it has written."
        )


def _absolute(name: Any) -> Path:
    """Return the folder itself, where the name is relative or that of a link to it."""
    return Path(name).expanduser().resolve()


def _checked_name(name: Any) -> Path:
    """Return the folder to save in, whose name may be taken from what is there now."""
    try:
        folder = _absolute(name)
    except TypeError as error:
        raise TypeError(f"{name!r} is no name of a folder, which is a str or path.") from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name!r} is no name of a folder ({error}).") from error
    if not str(name) or folder == Path.cwd():
        raise ValueError(
            f"{name!r} is the current folder, which cannot be replaced: name one inside it."
        )
    return folder


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
        if not isinstance(error, Exception) or isinstance(error, FileExistsError):
            raise
        failed = OSError(  # safetensors and tokenizers have errors of their own
            f"The estimator could not be saved in {folder} ({type(error).__name__}: {error}): see "
            f"to room and permission there. What was in {folder} is unchanged."
        )
        failed.errno = getattr(error, "errno", None)
        raise failed from error


def _write_through(folder: Path) -> None:
    """Have the operating system put the files on the disk before they get their name."""
    folders = () if os.name == "nt" else (folder,)  # which Windows cannot open
    for path in (*folder.iterdir(), *folders):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(folder: Path, new: Path) -> None:
    aside = _aside(folder)
    for place in (folder, aside):  # once more: writing has taken its time
        _check_replaceable(place)
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
    except BaseException:  # Ctrl-C, too: what was put aside gets its name back
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
