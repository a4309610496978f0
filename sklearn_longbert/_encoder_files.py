"""Encoder and tokenizer in a folder that transformers opens too, and back, without the Hub.

What is read may come from anybody: sizes are compared with those of the weights before anything
that large is made.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from sklearn_longbert._pretrained import load_config, load_weights, silenced, without_pooler

WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
FILES = ("config.json", WEIGHTS, TOKENIZER, "tokenizer_config.json")
MOST_LAYERS, LARGEST_SIZE = 1000, 2**24  # far beyond any encoder


def save_encoder(encoder: PreTrainedModel, folder: Path) -> None:
    """Write config.json and the weights, in one file."""
    n_bytes = sum(weight.nbytes for weight in encoder.state_dict().values())
    with silenced():
        encoder.save_pretrained(folder, max_shard_size=n_bytes + 1)


def save_tokenizer(
    tokenizer: Tokenizer,
    prefix: tuple[int, ...],
    suffix: tuple[int, ...],
    pad_id: int,
    folder: Path,
) -> None:
    """Write the tokenizer, and what transformers needs to know about its special tokens.

    Parameters
    ----------
    tokenizer : tokenizers.Tokenizer
    prefix, suffix : tuple of int
        Special tokens before and after a text.
    pad_id : int
    folder : Path
    """
    tokens = {"pad_token": pad_id}
    if len(prefix) == 1:
        tokens["cls_token"] = prefix[0]
    if len(suffix) == 1:
        tokens["sep_token"] = suffix[0]
    names = {role: tokenizer.id_to_token(token_id) for role, token_id in tokens.items()}
    with silenced():
        wrapper = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, **{role: name for role, name in names.items() if name}
        )
        wrapper.save_pretrained(folder)
    for path in folder.iterdir():
        if path.name not in FILES:
            path.unlink()
    tokenizer.save(str(folder / TOKENIZER))  # as it is: the wrapper has added its tokens


def load_saved_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer that :func:`save_tokenizer` wrote.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        return Tokenizer.from_file(str(folder / TOKENIZER))
    except Exception as error:  # a bare one, of the Rust side
        raise ValueError(f"{folder / TOKENIZER} cannot be read ({error}).") from error


def load_saved_encoder(folder: Path) -> PreTrainedModel:
    """Return the encoder that :func:`save_encoder` wrote, with its own dropout.

    Raises
    ------
    ValueError
        If config and weights do not belong together, or cannot be read.
    """
    config = load_config(folder)
    _check_sizes(config, folder)
    encoder, missing = load_weights(AutoModel, folder, config)
    encoder = without_pooler(encoder)
    missing &= encoder.state_dict().keys()
    if missing:
        raise ValueError(f"The weights in {folder} have no {min(missing)}.")
    return encoder


def _check_sizes(config: Any, folder: Path) -> None:
    """Raise ValueError unless an encoder of this config is as large as its weights."""
    wrong = f"The weights in {folder} are not those of the encoder that its config.json describes"
    for name, value in config.to_dict().items():
        most = MOST_LAYERS if "layer" in name or "group" in name else LARGEST_SIZE
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{wrong}: {name} is {value}, at most {most} is possible.")
    try:
        with safe_open(folder / WEIGHTS, "pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
        sizes = {size for shape in shapes for size in shape}
        for name in ("hidden_size", "vocab_size"):
            if getattr(config, name) not in sizes:
                raise ValueError(f"{name} is {getattr(config, name)}")
        with silenced(), no_init_weights(), torch.device("meta"):
            expected = AutoModel.from_config(config).state_dict()
    except Exception as error:  # of safetensors, and whatever a config of any content brings about
        raise ValueError(f"{wrong}: {error}.") from error
    n_expected = sum(w.numel() for name, w in expected.items() if not name.startswith("pooler."))
    n_found = sum(torch.Size(shape).numel() for shape in shapes)
    if n_found != n_expected:
        raise ValueError(f"{wrong}: they are {n_found} numbers, {n_expected} are expected.")
