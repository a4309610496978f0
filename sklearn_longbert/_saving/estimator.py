"""Save and load a fitted classifier or regressor: weights as safetensors, all else as JSON.

To add a file, write it in :func:`save`, name it in `CONTENTS`, and load it in `_load`.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from sklearn.base import clone
from transformers.activations import ACT2FN

from sklearn_longbert._baselines.choose import Baseline, baseline_from_state, baseline_state
from sklearn_longbert._baselines.estimator import EstimatorBaseline
from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._encoding.network import LongBertNetwork, network_settings
from sklearn_longbert._encoding.poolings import POOLINGS, TOKEN_POOLINGS
from sklearn_longbert._saving.encoder_files import (
    FILES,
    QUANTIZED,
    chunker_settings,
    load_quantized,
    load_saved_chunker,
    load_saved_encoder,
    save_encoder,
    save_quantized,
    save_tokenizer,
    warn_if_uncalibrated,
)
from sklearn_longbert._saving.manifest import BASELINE, HEAD, Contents, load_folder, saved_folder
from sklearn_longbert._saving.saved import SavedEstimator
from sklearn_longbert._targets.base import ClassTargets, Targets
from sklearn_longbert._targets.targets import targets_from_state, targets_state
from sklearn_longbert._texts.chunker import TextChunker

N_CHUNKS = "n_chunks_"  # the name of a tensor beside those of the head
LEARNED = {  # results of a fit, besides network, chunker and targets, and their types
    "history": list,
    "best_epoch": int,
    "fine_tuning_share": float,
    "chunk_report": dict,
    "encoder_name": tuple,
    "random_state": np.random.RandomState | None,
    "baseline_scales": np.ndarray | None,
}
THE_FITTED_ONE = "fitted"  # what stands for the parameter `baseline` if it is an estimator


def load(name: Any, kind: str) -> SavedEstimator | None:
    """Return the estimator that was saved in the local folder of that name, None if none was.

    Parameters
    ----------
    name : Any
    kind : {"classifier", "regressor"}

    Raises
    ------
    ValueError
        See :func:`sklearn_longbert._saving.manifest.load_folder`.
    """
    return load_folder(name, kind, CONTENTS)


def save(
    name: str | os.PathLike[str],
    kind: str,
    network: LongBertNetwork,
    chunker: TextChunker,
    targets: Targets,
    baseline: Baseline | None,
    *,
    parameters: dict[str, Any],
    fitted: dict[str, Any],
    check: Callable[[SavedEstimator], object],
) -> None:
    """Write a folder that :func:`load` takes.

    Parameters
    ----------
    name : str or path-like
    kind : {"classifier", "regressor"}
    network : LongBertNetwork
    chunker : TextChunker
        The fitted chunker.
    targets : Targets
    baseline : Baseline or None
        The fitted baseline.
    parameters, fitted : dict
        As in :class:`SavedEstimator`.
    check : callable
        Raises an error if no estimator can be made of what is loaded again.

    Raises
    ------
    FileExistsError, OSError, TypeError
        See :func:`sklearn_longbert._saving.manifest.saved_folder`.
    """
    fitted = dict(fitted)
    n_chunks = fitted.pop("n_chunks")  # one per training text
    state = {} if baseline is None else baseline_state(baseline)
    arrays = {
        key: np.ascontiguousarray(value)  # safetensors would write another order as it lies
        for key, value in state.items()
        if isinstance(value, np.ndarray)
    }
    sections = {
        "parameters": parameters,
        "fitted": fitted,
        "chunker": chunker_settings(chunker),
        "network": network_settings(network),
        "targets": targets_state(targets),
        "baseline": {key: value for key, value in state.items() if key not in arrays},
    }
    if isinstance(baseline, EstimatorBaseline):  # the parameter is an estimator, too
        sections["parameters"] = {**parameters, "baseline": THE_FITTED_ONE}
    warn_if_uncalibrated(network, parameters)
    with saved_folder(name, kind, CONTENTS, sections, check) as folder:
        save_encoder(network.encoder, folder)
        save_tokenizer(chunker, folder)
        save_quantized(network, folder)
        head = {
            name: weight.detach().cpu().contiguous().numpy()
            for name, weight in network.state_dict().items()
            if not name.startswith("encoder.")
        }
        save_file({**head, N_CHUNKS: n_chunks.astype(np.int64)}, folder / HEAD)
        if baseline is not None:
            save_file(arrays, folder / BASELINE)


def _load(folder: Path, manifest: dict[str, Any]) -> SavedEstimator:
    network, n_chunks = _load_network(folder, manifest["network"], manifest["files"])
    chunker = load_saved_chunker(folder, manifest["chunker"], network.encoder.config)
    targets = targets_from_state(manifest["targets"])
    targets.check(network.head.out_features)
    _check_kind(targets, manifest["estimator"])
    _check_fitted(manifest["fitted"])
    baseline = _load_baseline(folder, manifest, targets)
    parameters = manifest["parameters"]
    if parameters.get("baseline") == THE_FITTED_ONE:
        parameters = {**parameters, "baseline": clone(baseline.shown)}
    return SavedEstimator(
        folder=folder,
        version=manifest["version"],
        parameters=parameters,
        shaped={
            **{name: manifest["network"][name] for name in ("pooling", "token_pooling", "dropout")},
            "layers": network.layers,
            "freeze_encoder": network.frozen,
            "attention_dropout": manifest["parameters"].get("attention_dropout"),
        },
        network=network,
        chunker=chunker,
        fitted={**manifest["fitted"], "n_chunks": n_chunks, "baseline": baseline},
        targets=targets,
    )


def _load_baseline(folder: Path, manifest: dict[str, Any], targets: Targets) -> Any:
    scales, state = manifest["fitted"]["baseline_scales"], manifest["baseline"]
    has_file = BASELINE in manifest["files"]
    if not state:
        is_named = manifest["parameters"].get("baseline") == THE_FITTED_ONE
        if scales is not None or is_named or has_file:
            raise ValueError("it lacks its baseline, or a part of it")
        return None
    if not has_file:
        raise ValueError(f"it lacks {BASELINE}")
    baseline = baseline_from_state({**load_file(folder / BASELINE), **state}, targets)
    if not isinstance(scales, np.ndarray) or scales.shape != (len(baseline.names),):
        raise ValueError(f"{len(baseline.names)} models of a baseline have the scales {scales!r}")
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise ValueError("scales of a baseline are no finite numbers from 0")
    return baseline


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
    if not 0 <= fitted["fine_tuning_share"] <= 1:
        raise ValueError(f"fine_tuning_share is {fitted['fine_tuning_share']}")
    values = [value for epoch in fitted["history"] for value in epoch.values()]
    if not all(isinstance(value, int | float) for value in values):
        raise ValueError("history holds what is no number")


def _load_network(
    folder: Path, settings: dict[str, Any], files: Collection[str]
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
    network.quantized = load_quantized(folder, files)
    return network, n_chunks.astype(np.intp)


def _check_settings(settings: dict[str, Any], head: dict[str, Any], config: Any) -> None:
    """Raise ValueError at wrong settings, before anything is made in the sizes that they name."""
    if settings["pooling"] not in POOLINGS or settings["token_pooling"] not in TOKEN_POOLINGS:
        raise ValueError("unknown pooling")
    n_layers = len(layer_numbers(settings["layers"], config.num_hidden_layers))
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


CONTENTS = Contents(
    files=(HEAD, *FILES),
    sections=("parameters", "fitted", "targets", "chunker", "network", "baseline"),
    load=_load,
    optional=(BASELINE, QUANTIZED),
)
