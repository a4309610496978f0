"""Write encoder and tokenizer to a folder that transformers opens too, and load them again.

Invariants: nothing is looked for outside of the folder, whatever its config names; sizes in the
config are compared with those of the weights before anything of such a size is made. Both matter
because a folder may come from anybody. Nothing is computed while an encoder is loaded: computing
starts torch's threads, which a process that is forked off later waits for, and does not have.
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any
from warnings import warn

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._encoding.graph import QuantizedGraph
from sklearn_longbert._pretrained.loading import load_config, rebuild_encoder, silenced
from sklearn_longbert._texts.chunker import TextChunker

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
FILES = (CONFIG, WEIGHTS, TOKENIZER, "tokenizer_config.json")
QUANTIZED = "quantized.safetensors"  # the graph in int8, if there is one
MOST_LAYERS, MOST_LABELS, LARGEST_SIZE = 1000, 10**5, 2**24  # far beyond any encoder
MOST_CONFIG_BYTES = 2**24
# Settings by which transformers would fetch or import something that is not in the folder.
ELSEWHERE = re.compile(
    "backbone|quantization|auto_map|transformers_weights|(attn|experts)_implementation|per_layer"
)


def save_encoder(encoder: PreTrainedModel, folder: Path) -> None:
    """Write config.json, and the weights in one file.

    Raises
    ------
    ValueError
        If transformers saves this architecture under other names than its own.
    """
    weights = encoder.state_dict()
    n_bytes = sum(weight.nbytes for weight in weights.values())
    with silenced():
        encoder.save_pretrained(folder, max_shard_size=n_bytes + 1)
    _leave_out_foreign(folder / CONFIG, type(encoder.config))
    with safe_open(folder / WEIGHTS, "pt") as file:
        if set(file.keys()) != set(weights):
            raise ValueError(
                f"the weights of a {encoder.config.model_type} have other names in a file: keep "
                f"the estimator as a pickle, with joblib.dump"
            )


def warn_if_uncalibrated(network: ChunkEncoder, parameters: dict[str, Any]) -> None:
    """Warn the caller of ``save_pretrained`` if the parameters want a graph and there is none."""
    if network.quantized is None and parameters["precision"] == "int8":
        warn(
            "precision='int8' is saved without a calibration: every process would calibrate on "
            "the first texts that it gets. Call the estimator once with typical texts, and "
            "save it then.",
            UserWarning,
            stacklevel=4,
        )


def save_quantized(network: ChunkEncoder, folder: Path) -> None:
    """Write the graph in int8 if there is one."""
    if network.quantized is not None:
        xml, weights = network.quantized.files
        xml_bytes = np.frombuffer(xml.encode(), dtype=np.uint8)
        save_file({"xml": xml_bytes, "weights": weights}, folder / QUANTIZED)


def load_quantized(folder: Path, files: Collection[str]) -> QuantizedGraph | None:
    """Return the graph in int8 that :func:`save_quantized` wrote, None if it wrote none.

    Parameters
    ----------
    folder : Path
    files : collection of str
        Names of the files that the manifest lists, and whose checksums are right. Others may lie
        in the folder, such as those of an earlier upload.
    """
    if QUANTIZED not in files:
        return None
    found = load_arrays(folder / QUANTIZED)
    if found.keys() != {"xml", "weights"} or any(a.dtype != np.uint8 for a in found.values()):
        raise ValueError(f"{QUANTIZED} holds no graph")
    return QuantizedGraph(found["xml"].tobytes().decode(), found["weights"])


def _leave_out_foreign(path: Path, config_class: Any) -> None:
    """Leave out settings that loading refuses, if the architecture has none of that name.

    A config keeps whatever its file held: where its code was, or the number of training tokens.
    """
    config = json.loads(path.read_bytes())
    refused = {name for name, value in config.items() if _is_refused(name, value)}
    if refused:
        refused -= config_class().to_dict().keys()
        kept = {name: value for name, value in config.items() if name not in refused}
        path.write_text(json.dumps(kept, indent=2), encoding="utf-8")


def save_tokenizer(chunker: TextChunker, folder: Path) -> None:
    """Write a chunker's tokenizer, and what transformers needs to know about special tokens."""
    tokenizer, layout = chunker.tokenizer_, chunker.layout_
    tokens = {"pad_token": layout.pad_id}
    if len(layout.prefix) == 1:
        tokens["cls_token"] = layout.prefix[0]
    if len(layout.suffix) == 1:
        tokens["sep_token"] = layout.suffix[0]
    names = {role: tokenizer.id_to_token(token_id) for role, token_id in tokens.items()}
    with silenced():
        wrapper = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **{role: name for role, name in names.items() if name}
        )
        wrapper.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name not in FILES:
            path.unlink()
    tokenizer.save(str(folder / TOKENIZER))  # again, without the tokens that the wrapper added


def chunker_settings(chunker: TextChunker) -> dict[str, Any]:
    """Return all that :func:`load_saved_chunker` needs beside the tokenizer."""
    return {**chunker.get_params(), "pad_id": chunker.layout_.pad_id}


def load_saved_chunker(folder: Path, settings: dict[str, Any], config: Any) -> TextChunker:
    """Return a fitted chunker with the tokenizer that :func:`save_tokenizer` wrote.

    Parameters
    ----------
    folder : Path
    settings : dict
        Result of :func:`chunker_settings`.
    config : transformers.PretrainedConfig
        The encoder's.

    Raises
    ------
    ValueError
        If the tokenizer and the encoder do not belong together.
    """
    parameters = dict(settings)
    pad_id, n_tokens = parameters.pop("pad_id"), config.vocab_size
    if type(pad_id) is not int or not 0 <= pad_id < n_tokens:
        raise ValueError(f"pad_id is {pad_id!r}")
    chunker = TextChunker(**parameters)
    chunker._validate_params()
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    chunker._use_tokenizer(tokenizer, config, pad_id, folder)
    layout = chunker.layout_
    ids = [*layout.prefix, *layout.suffix, *tokenizer.get_vocab(with_added_tokens=True).values()]
    if max(ids) >= n_tokens:
        raise ValueError(f"the tokenizer has the token {max(ids)}, the encoder has {n_tokens}")
    return chunker


def load_saved_encoder(folder: Path) -> PreTrainedModel:
    """Return the encoder that :func:`save_encoder` wrote, with its own dropout, on the CPU.

    Raises
    ------
    ValueError
        If config and weights cannot be loaded, or do not belong together.
    """
    _check_raw_config(folder / CONFIG)
    config = load_config(folder)
    _check_sizes(config, folder)
    weights = load_file(folder / WEIGHTS)
    encoder = rebuild_encoder(config, dtype=next(iter(weights.values())).dtype)
    encoder.load_state_dict(weights, assign=True)
    return encoder


def _check_raw_config(path: Path) -> None:
    """Raise ValueError at settings that transformers would act on while it loads a config."""
    if path.stat().st_size > MOST_CONFIG_BYTES:
        raise ValueError(f"{path} has more than {MOST_CONFIG_BYTES} bytes")
    config = json.loads(path.read_bytes())
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds no object")
    _check_settings(config)


def _is_refused(name: str, value: Any) -> bool:
    try:
        _check_settings({name: value})
    except ValueError:
        return True
    return False


def _check_settings(config: dict[str, Any]) -> None:
    for name, value in config.items():
        if ELSEWHERE.search(name):
            raise ValueError(f"the config has {name}, which no saved encoder has")
        most = LARGEST_SIZE
        if "layer" in name or "group" in name:
            most = MOST_LAYERS
        elif "label" in name:
            most = MOST_LABELS
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int) and abs(number) > most:
                raise ValueError(f"{name} is {number:.3g}, at most {most} is possible")
            if isinstance(number, dict):
                _check_settings(number)


def _check_sizes(config: Any, folder: Path) -> None:
    """Raise ValueError unless an encoder of this config is as large as its weights."""
    with safe_open(folder / WEIGHTS, "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    sizes = {size for shape in shapes for size in shape}
    for name in ("hidden_size", "vocab_size"):
        if getattr(config, name) not in sizes:
            raise ValueError(f"{name} is {getattr(config, name)}, which no weight is")
    with silenced(), no_init_weights(), torch.device("meta"):
        encoder = AutoModel.from_config(config)
    expected = encoder.state_dict()
    n_found = sum(torch.Size(shape).numel() for shape in shapes)
    of_pooler = {name for name in expected if name.startswith("pooler.")}
    n_expected = sum(w.numel() for name, w in expected.items() if name not in of_pooler)
    if n_found != n_expected or sum(expected[name].numel() for name in of_pooler) > n_found:
        raise ValueError(
            f"the weights are {n_found} numbers where the config describes {n_expected}"
        )
    _check_pass(encoder)


def _check_pass(encoder: PreTrainedModel) -> None:
    """Raise an error unless a chunk goes through an encoder that is on the meta device.

    That device has shapes and no numbers. Some architectures ask for numbers on their way, and are
    checked as far as that.
    """
    size = encoder.get_input_embeddings().weight.shape[-1]
    chunk = torch.empty((1, 3, size), device="meta")
    try:
        with silenced(), torch.inference_mode():
            shape = encoder.eval()(inputs_embeds=chunk).last_hidden_state.shape
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
    else:
        if shape != (1, 3, encoder.config.hidden_size):
            raise ValueError(f"the encoder's hidden states have the shape {tuple(shape)}")
