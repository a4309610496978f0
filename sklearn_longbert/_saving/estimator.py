"""Save and load a fitted estimator as a folder: weights as safetensors, all else as JSON.

Invariants: nothing in the folder is run when it is loaded; a file that was not written here, or has
changed since, is an error. To add a file, write it in :func:`save`, name it in `REQUIRED`, and load
it in `_load_once`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers.activations import ACT2FN

from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._encoding.network import LongBertNetwork, network_settings
from sklearn_longbert._encoding.poolings import POOLINGS, TOKEN_POOLINGS
from sklearn_longbert._provenance import library_versions
from sklearn_longbert._saving.encoder_files import (
    FILES,
    load_saved_encoder,
    load_saved_tokenizer,
    save_encoder,
    save_tokenizer,
)
from sklearn_longbert._saving.folders import (
    absolute,
    check_files,
    check_replaceable,
    fingerprint,
    folder_aside,
    named_folder,
    written_beside,
)
from sklearn_longbert._saving.json import from_json, to_json
from sklearn_longbert._saving.saved import Saved
from sklearn_longbert._targets.base import ClassTargets, Targets
from sklearn_longbert._targets.targets import targets_from_state, targets_state
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._version import __version__

FORMAT = 2  # to be raised when this code can no longer load folders of the old format
MANIFEST = "sklearn_longbert.json"
HEAD = "head.safetensors"
REQUIRED = (HEAD, *FILES)
OURS = (MANIFEST, *REQUIRED)
N_CHUNKS = "n_chunks_"  # the name of a tensor beside those of the head
MOST_MANIFEST_BYTES = 2**23
MOST_TRIES = 5  # tries to load a folder that is being replaced
CHUNKING = ("chunk_size", "chunk_overlap", "max_chunks", "chunk_selection")
SECTIONS = ("estimator", "parameters", "fitted", "targets", "chunker", "network")
LOOKUPS = {"revision", "local_files_only"}  # for the Hub only; a saved estimator keeps its own
LEARNED = {  # results of a fit, besides network, chunker and targets, and their types
    "history": list,
    "best_epoch": int,
    "chunk_report": dict,
    "encoder_name": tuple,
    "random_state": np.random.RandomState | None,
}


def load(name: Any) -> Saved | None:
    """Return the estimator that was saved in the local folder of that name, None if none was.

    If another process saves there meanwhile, it is the whole old or the whole new one.

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
            saved = _load_once(folder)
        except (OSError, ValueError):
            if _identity(folder) == before:
                raise
        else:
            if _identity(folder) == before:
                _warn_if_aside(folder, name)
                return saved
    raise ValueError(f"{folder} was replaced again and again while it was loaded: try once more.")


def save(
    name: str | os.PathLike[str],
    network: LongBertNetwork,
    chunker: TextChunker,
    targets: Targets,
    **sections: Any,
) -> None:
    """Write a folder that :func:`load` takes.

    Parameters
    ----------
    name : str or path-like
        Folder that does not exist, is empty, or was saved before and is replaced.
    network : LongBertNetwork
    chunker : TextChunker
        The fitted chunker.
    targets : Targets
    **sections : dict
        `estimator`, `parameters` and `fitted`, as in :class:`Saved`.

    Raises
    ------
    FileExistsError
        If the folder holds anything else.
    OSError
        If it cannot be written, for instance because the disk is full.
    TypeError
        If a section holds a value that has no form in JSON.
    """
    folder, layout = named_folder(name), chunker.layout_
    sections["chunker"] = {**chunker.get_params(), "pad_id": layout.pad_id}
    sections["network"] = network_settings(network)
    sections["targets"] = targets_state(targets)
    sections["fitted"] = dict(sections["fitted"])
    n_chunks = sections["fitted"].pop("n_chunks")  # one per training text
    content = {name: _in_json(section) for name, section in sections.items()}
    check_replaceable(folder, OURS)
    with written_beside(folder, OURS) as beside:
        save_encoder(network.encoder, beside)
        save_tokenizer(chunker.tokenizer_, layout.prefix, layout.suffix, layout.pad_id, beside)
        head = {
            name: weight.detach().cpu().contiguous().numpy()
            for name, weight in network.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file({**head, N_CHUNKS: n_chunks.astype(np.int64)}, beside / HEAD)
        content["versions"] = library_versions()
        content["files"] = {path.name: fingerprint(path) for path in sorted(beside.iterdir())}
        manifest = {"format": FORMAT, "sha256": _digest_of(content), "content": content}
        text = json.dumps(manifest, indent=1, allow_nan=False)
        if len(text) > MOST_MANIFEST_BYTES:
            raise ValueError("its labels and parameters are too large: keep it as a pickle")
        (beside / MANIFEST).write_text(text, encoding="utf-8")
        for path in beside.iterdir():  # only its owner can read a file of safetensors
            shutil.copymode(beside / MANIFEST, path)


def is_saved(folder: Path) -> bool:
    """Return whether an estimator was saved in that folder, undamaged or not."""
    return (folder / MANIFEST).is_file()


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
        return folder if is_saved(folder) else None
    aside = folder_aside(folder)
    return aside if is_saved(aside) else None


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


def _load_once(folder: Path) -> Saved:
    manifest = _load_manifest(folder)
    try:
        with _naming_panics():
            network, n_chunks = _load_network(folder, manifest["network"])
            chunker = _load_chunker(folder, manifest["chunker"], network)
            targets = targets_from_state(manifest["targets"])
            targets.check(network.head.out_features)
            _check_kind(targets, manifest["estimator"])
            _check_fitted(manifest["fitted"])
    except Exception as error:  # wrong content brings errors of any kind
        raise _damaged(folder, error) from error
    cut = chunker.get_params()
    return Saved(
        folder=folder,
        estimator=str(manifest["estimator"])[:20],
        version=str(manifest["version"])[:20],
        parameters=manifest["parameters"],
        fitted={**manifest["fitted"], "n_chunks": n_chunks},
        used={
            **{name: cut[name] for name in CHUNKING},
            **{name: manifest["network"][name] for name in ("pooling", "token_pooling", "dropout")},
            "layers": network.layers,
            "freeze_encoder": network.frozen,
            "attention_dropout": manifest["parameters"].get("attention_dropout"),
        },
        targets=targets,
        network=network,
        chunker=chunker,
    )


def _load_manifest(folder: Path) -> dict[str, Any]:
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
    try:
        if manifest["sha256"] != _digest_of(content):
            raise ValueError("its content has changed since it was saved")
        check_files(folder, content["files"], REQUIRED)
        sections = {section: from_json(content[section]) for section in SECTIONS}
        for section in SECTIONS[1:]:
            if not isinstance(sections[section], dict):
                raise ValueError(f"its section {section} is no dict")
        return {**sections, "version": content["versions"]["sklearn-longbert"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, error) from error


def _saving_version(content: Any) -> str:
    """Return the version that wrote a manifest of another format, if the manifest names it."""
    versions = content.get("versions") if isinstance(content, dict) else None
    version = versions.get("sklearn-longbert") if isinstance(versions, dict) else None
    return f"{version or 'unknown'!s:.20}"


def _check_kind(targets: Targets, estimator: str) -> None:
    if isinstance(targets, ClassTargets) != (estimator == "classifier"):
        raise ValueError(f"a {estimator!s:.20} of {type(targets).__name__.lower()}")


def _check_fitted(fitted: dict[str, Any]) -> None:
    """Raise ValueError unless these could be the results of a fit."""
    if fitted.keys() != LEARNED.keys():
        raise ValueError(f"a fit with the attributes {sorted(fitted)}")
    for name, kind in LEARNED.items():
        if not isinstance(fitted[name], kind) or isinstance(fitted[name], bool):
            raise ValueError(f"{name} is of the wrong type")
    name, revision = fitted["encoder_name"]
    if not (isinstance(name, str | os.PathLike) and isinstance(revision, str | None)):
        raise ValueError("encoder_name is of the wrong type")
    if not 0 <= fitted["best_epoch"] < 2**31:
        raise ValueError(f"best_epoch is {fitted['best_epoch']}")
    values = [value for epoch in fitted["history"] for value in epoch.values()]
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError("history holds what is no number")


def _load_network(
    folder: Path, settings: dict[str, Any]
) -> tuple[LongBertNetwork, NDArray[np.intp]]:
    """Return the network, and the number of chunks of each training text, stored beside it."""
    head = load_file(folder / HEAD)
    n_chunks = head.pop(N_CHUNKS)
    if n_chunks.dtype.kind != "i" or n_chunks.ndim != 1 or (n_chunks < 0).any():
        raise ValueError(f"{HEAD}: {N_CHUNKS} are no numbers of chunks")
    encoder = load_saved_encoder(folder)
    _check_settings(settings, head, encoder.config)
    with torch.random.fork_rng(devices=[]):  # first weights are drawn, then replaced
        network = LongBertNetwork(encoder, **settings)
    weights = {name: torch.from_numpy(weight) for name, weight in head.items()}
    if any(weight.dtype != network.dtype for weight in weights.values()):
        raise ValueError(f"{HEAD}: weights of another type than the encoder's")
    missing, unknown = network.load_state_dict(weights, strict=False, assign=True)
    differing = unknown + [name for name in missing if not name.startswith("encoder.")]
    if differing:
        raise ValueError(f"{HEAD} lacks, or has beyond what is expected, {differing[0]}")
    return network, n_chunks.astype(np.intp)


def _load_chunker(folder: Path, settings: dict[str, Any], network: LongBertNetwork) -> TextChunker:
    parameters = dict(settings)
    pad_id, n_tokens = parameters.pop("pad_id"), network.encoder.config.vocab_size
    if type(pad_id) is not int or not 0 <= pad_id < n_tokens:
        raise ValueError(f"pad_id is {pad_id!r}")
    chunker = TextChunker(**parameters)
    chunker._validate_params()
    tokenizer = load_saved_tokenizer(folder)
    chunker._use_tokenizer(tokenizer, network.encoder.config, pad_id, folder)
    layout = chunker.layout_
    ids = [*layout.prefix, *layout.suffix, *tokenizer.get_vocab(with_added_tokens=True).values()]
    if max(ids) >= n_tokens:
        raise ValueError(f"the tokenizer has the token {max(ids)}, the encoder has {n_tokens}")
    return chunker


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


def _check_settings(settings: dict[str, Any], head: dict[str, Any], config: Any) -> None:
    """Raise ValueError at wrong settings, before anything is made in the sizes that they name."""
    if settings["pooling"] not in POOLINGS or settings["token_pooling"] not in TOKEN_POOLINGS:
        raise ValueError("unknown pooling")
    layers = settings.get("layers", "last")  # folders of the first version have none
    n_layers = len(layer_numbers(layers, config.num_hidden_layers))
    n_parts = n_layers * len(TOKEN_POOLINGS[settings["token_pooling"]])
    size = embedding_size = n_parts * config.hidden_size
    if settings["hidden_layer"] is not None:
        size, activation = settings["hidden_layer"]
        if activation not in ACT2FN:
            raise ValueError(f"unknown activation {activation!r}")
        if head["transform.0.weight"].shape != (size, embedding_size):
            raise ValueError(f"a hidden layer of size {size!r}, but its weights differ")
    if head["head.weight"].shape != (settings["n_outputs"], size):
        raise ValueError(f"{settings['n_outputs']!r} outputs, but the head's weights differ")
    if not isinstance(settings["frozen"], bool) or not 0 <= settings["dropout"] < 1:
        raise ValueError("frozen is no bool, or dropout no probability")


def _damaged(path: Path, why: object) -> ValueError:
    return ValueError(
        f"{path} cannot be read, {str(why)[:500]}: the saved estimator is damaged or was changed. "
        f"Save it again, or restore the folder from a copy."
    )


def _digest_of(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
