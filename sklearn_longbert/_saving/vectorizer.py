"""Save and load a fitted vectorizer: its encoder, its tokenizer and its parameters."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._encoding.poolings import TOKEN_POOLINGS
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
from sklearn_longbert._saving.manifest import Contents, load_folder, saved_folder
from sklearn_longbert._saving.saved import Saved
from sklearn_longbert._texts.chunker import TextChunker

KIND = "vectorizer"


def load(name: Any) -> Saved | None:
    """Return the vectorizer that was saved in the local folder of that name, None if none was.

    Raises
    ------
    ValueError
        See :func:`sklearn_longbert._saving.manifest.load_folder`.
    """
    return load_folder(name, KIND, CONTENTS)


def save(
    name: str | os.PathLike[str],
    network: ChunkEncoder,
    chunker: TextChunker,
    parameters: dict[str, Any],
    check: Callable[[Saved], object],
) -> None:
    """Write a folder that :func:`load` takes.

    Parameters
    ----------
    name : str or path-like
    network : ChunkEncoder
    chunker : TextChunker
        The fitted chunker.
    parameters : dict
        As in :class:`Saved`.
    check : callable
        Raises an error if no vectorizer can be made of what is loaded again.

    Raises
    ------
    FileExistsError, OSError, TypeError
        See :func:`sklearn_longbert._saving.manifest.saved_folder`.
    """
    sections = {
        "parameters": parameters,
        "chunker": chunker_settings(chunker),
        "network": {"token_pooling": network.token_pooling, "layers": network.layers},
    }
    warn_if_uncalibrated(network, parameters)
    with saved_folder(name, KIND, CONTENTS, sections, check) as folder:
        save_encoder(network.encoder, folder)
        save_tokenizer(chunker, folder)
        save_quantized(network, folder)


def _load(folder: Path, manifest: dict[str, Any]) -> Saved:
    token_pooling = manifest["network"]["token_pooling"]
    if token_pooling not in TOKEN_POOLINGS:
        raise ValueError("unknown pooling")
    network = ChunkEncoder(load_saved_encoder(folder), token_pooling, manifest["network"]["layers"])
    network.quantized = load_quantized(folder, manifest["files"])
    return Saved(
        folder=folder,
        version=manifest["version"],
        parameters=manifest["parameters"],
        shaped={"token_pooling": token_pooling, "layers": network.layers},
        network=network,
        chunker=load_saved_chunker(folder, manifest["chunker"], network.encoder.config),
    )


CONTENTS = Contents(
    files=FILES,
    sections=("parameters", "chunker", "network"),
    load=_load,
    optional=(QUANTIZED,),
)
