"""Load configs, tokenizers and encoders from a folder, with the network switched off."""

import copy
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.initialization import no_init_weights
from transformers.utils import logging as transformers_logging

from sklearn_longbert._pretrained.hub import TOKENIZER_FILES, WEIGHT_FILES, has_any

# Names of dropout probabilities in encoders' configs: transformers has no common name for them.
HIDDEN_DROPOUTS = (
    "hidden_dropout_prob",
    "hidden_dropout",
    "dropout",
    "embedding_dropout",
    "mlp_dropout",
    "resid_pdrop",
    "embd_pdrop",
)
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")

# where sentence-transformers states how hidden states become embeddings, and its names for that
POOLING_CONFIG = "1_Pooling/config.json"
POOLING_MODE = re.compile("pooling_mode_(.+?)(?:_tokens?)?")

_silence_lock = threading.RLock()


@contextmanager
def silenced() -> Iterator[None]:
    """Switch off transformers' load report and progress bars, and restore them afterwards."""
    with _silence_lock:
        verbosity = transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(transformers_logging.CRITICAL)
        # The public switch would also change those of the Hub, which cannot all be restored.
        transformers_logging._tqdm_active = False
        try:
            yield
        finally:
            transformers_logging.set_verbosity(verbosity)
            transformers_logging._tqdm_active = bars


def load_config(folder: Path) -> Any:
    """Return the encoder's config.

    Raises
    ------
    ValueError
        If the folder holds no config.json that describes a text encoder known to transformers.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(
            f"The folder {folder} holds no config.json, so it is not a saved encoder: pass the "
            f"folder that encoder.save_pretrained(...) wrote."
        )
    try:
        json.loads(path.read_text(encoding="utf-8"))
        with silenced():
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # validation of the fields raises errors of other kinds
        raise ValueError(
            f"{path} is not the configuration of an encoder that transformers can load "
            f"({error}): save or download it again, or pass an encoder whose code is part of "
            f"transformers; code that comes with a model is never run."
        ) from error
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{path} describes an encoder-decoder ({config.model_type}) where an encoder is "
            f"expected: pass one such as BERT, RoBERTa, MPNet, DeBERTa or ModernBERT."
        )
    if not hasattr(config, "vocab_size"):
        raise ValueError(
            f"{path} describes a model of another kind ({config.model_type}) where a text encoder "
            f"is expected: pass one such as BERT, RoBERTa, MPNet, DeBERTa or ModernBERT."
        )
    return config


def saved_token_pooling(folder: Path) -> str:
    """Return the token pooling that a folder of sentence-transformers states, else "mean".

    Raises
    ------
    ValueError
        If the file that states it is damaged.
    """
    path = folder / POOLING_CONFIG
    if not path.is_file():
        return "mean"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if "pooling_mode" in config:
            stated = config["pooling_mode"]
            modes = set(stated) if isinstance(stated, list) else {stated}
        else:
            flags = [
                POOLING_MODE.fullmatch(name) for name, is_on in config.items() if is_on is True
            ]
            modes = {found[1] for found in flags if found}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is not the configuration of a pooling ({error}): save or download the folder "
            f"again, or pass token_pooling."
        ) from error
    for token_pooling in ("mean", "cls", "max", "mean_max"):
        if modes == set(token_pooling.split("_")):
            return token_pooling
    warn(
        f"{path} states the token pooling {sorted(map(str, modes))}, which is not known here: the "
        f'mean is taken. Pass token_pooling="mean", "max" or "cls" to choose it yourself.',
        UserWarning,
        stacklevel=2,
    )
    return "mean"


def load_tokenizer(folder: Path, config: Any) -> Any:
    """Return a private tokenizer with a Rust backend.

    Raises
    ------
    ValueError
        If the folder holds no tokenizer, or if its vocabulary is not the encoder's, or if it has
        no Rust backend.
    """
    if not has_any(folder, TOKENIZER_FILES):
        raise ValueError(
            f"The folder {folder} holds no tokenizer ({', '.join(TOKENIZER_FILES)}): save it "
            f"beside the encoder with tokenizer.save_pretrained({str(folder)!r})."
        )
    try:
        with silenced():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the Rust side raises bare Exception for a damaged file
        raise ValueError(
            f"The tokenizer in {folder} cannot be loaded ({type(error).__name__}: {error}): save "
            f"it again with tokenizer.save_pretrained({str(folder)!r})."
        ) from error
    # Where the vocabulary file is missing, transformers makes an almost empty one without a word.
    n_tokens, n_expected = len(tokenizer), getattr(config, "vocab_size", len(tokenizer))
    if n_tokens > n_expected > n_tokens / 2:
        raise ValueError(
            f"The tokenizer in {folder} has {n_tokens} tokens but the encoder's vocab_size is "
            f"{n_expected}: call encoder.resize_token_embeddings(len(tokenizer)), train the new "
            f"rows, and save the encoder again with encoder.save_pretrained({str(folder)!r})."
        )
    if not n_expected / 2 < n_tokens <= n_expected:
        raise ValueError(
            f"The tokenizer in {folder} has {n_tokens} tokens but the encoder's vocab_size is "
            f"{n_expected}: its vocabulary file is missing or another encoder's. Save the right "
            f"tokenizer there with tokenizer.save_pretrained({str(folder)!r})."
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer in {folder}, {type(tokenizer).__name__}, has no Rust backend, which "
            f"is needed to tokenize long texts whole: pass an encoder with a tokenizer.json."
        )
    return tokenizer


def encoder_limit(config: Any) -> int | None:
    """Return how many tokens the encoder can encode at once, None if there is no limit.

    RoBERTa and its relatives number positions from the padding index + 1. Their table of position
    embeddings shows it by its own ``padding_idx``. Tokens cannot use the rows before.
    """
    n_positions = getattr(config, "max_position_embeddings", None)
    if n_positions is None or n_positions <= 0:
        return None
    with silenced(), no_init_weights(), torch.device("meta"):
        encoder = AutoModel.from_config(config)
    return int(n_positions) - first_position(encoder)


def first_position(encoder: nn.Module) -> int:
    """Return the position that the encoder gives to the first token of a chunk."""
    reserved = [
        table.padding_idx + 1
        for name, table in encoder.named_modules()
        if name.endswith("position_embeddings")
        and isinstance(table, nn.Embedding)
        and table.padding_idx is not None
    ]
    return max(reserved, default=0)


def set_dropout(config: Any, dropout: float, attention_dropout: float) -> Any:
    """Return a copy of `config` with these dropout probabilities, whatever it calls them."""
    config = copy.deepcopy(config)
    for names, value, parameter in (
        (HIDDEN_DROPOUTS, dropout, "dropout"),
        (ATTENTION_DROPOUTS, attention_dropout, "attention_dropout"),
    ):
        known = [name for name in names if hasattr(config, name)]
        for name in known:
            setattr(config, name, float(value))  # because configs check the types of fields
        if not known and value > 0:
            warn(
                f"The encoder ({config.model_type}) has no setting that is known to be its "
                f"{parameter}: {parameter}={value} does not reach it. Pass {parameter}=0.",
                UserWarning,
                stacklevel=2,
            )
    return config


def load_encoder(folder: Path, dropout: float, attention_dropout: float) -> PreTrainedModel:
    """Return the encoder with its weights in float32, without a pooler.

    Raises
    ------
    ValueError
        If the folder holds no weights, or if they are damaged or of another architecture.
    """
    encoder, missing_keys = load_weights(
        AutoModel, folder, set_dropout(load_config(folder), dropout, attention_dropout)
    )
    encoder = without_pooler(encoder)
    _check_complete(encoder, missing_keys, folder)
    return encoder


def load_sequence_classifier(
    folder: Path, head: tuple[str, ...], dropout: float, attention_dropout: float
) -> PreTrainedModel:
    """Return an encoder with the head that it was fine-tuned with, in float32.

    Parameters
    ----------
    folder : Path
    head : tuple of str
        Names of the head's layers. In some architectures one of them is the encoder's pooler.
    dropout, attention_dropout : float

    Raises
    ------
    ValueError
        If the folder holds no weights, or if they are damaged, of another architecture, or
        without a head.
    """
    auto = AutoModelForSequenceClassification
    config = set_dropout(load_config(folder), dropout, attention_dropout)
    model, missing_keys = load_weights(auto, folder, config)
    in_encoder = {id(weight) for weight in model.base_model.parameters()}
    missing = [
        name
        for name, weight in model.named_parameters()
        if name in missing_keys
        and (id(weight) not in in_encoder or name.startswith(tuple(f"{layer}." for layer in head)))
    ]
    if missing:
        raise ValueError(
            f"The weights in {folder} have no head for sequence classification ({missing[0]} is "
            f"missing): to train one, pass model_name={str(folder)!r} to an estimator, and fit it."
        )
    _check_complete(model, missing_keys, folder)
    return model


def load_weights(auto: Any, folder: Path, config: Any) -> tuple[PreTrainedModel, set[str]]:
    """Return a network of `auto`'s kind, and the names of weights that the folder lacks.

    Raises
    ------
    ValueError
        If the folder holds no weights, or if they are damaged or of another architecture.
    """
    if not has_any(folder, WEIGHT_FILES):
        raise ValueError(
            f"The folder {folder} holds no weights ({' or '.join(WEIGHT_FILES)}): save them with "
            f"encoder.save_pretrained({str(folder)!r})."
        )
    try:
        # Missing weights are drawn from torch's global generator, whose state is then restored.
        with silenced(), torch.random.fork_rng(devices=[]):
            model, info = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # that error refers to the silenced report
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, torch and transformers each raise their own errors
        raise ValueError(
            f"The weights in {folder} cannot be loaded ({type(error).__name__}: {error}): save "
            f"the encoder again, or download it anew."
        ) from error
    _check_shapes(info["mismatched_keys"], folder)
    return model, set(info["missing_keys"])


def _check_shapes(mismatched: set[tuple[str, Any, Any]], folder: Path) -> None:
    if mismatched:
        name, found, expected = min(mismatched)
        raise ValueError(
            f"The weights in {folder} are not those of the encoder that its config.json "
            f"describes: {name} has shape {tuple(found)}, expected {tuple(expected)}. Put both "
            f"files of one encoder in the folder."
        )


def _check_complete(encoder: PreTrainedModel, missing_keys: set[str], folder: Path) -> None:
    parameters = {name for name, _ in encoder.named_parameters()}
    missing = sorted(parameters & set(missing_keys))
    if 2 * len(missing) > len(parameters):
        raise ValueError(
            f"The weights in {folder} are not those of the encoder that its config.json "
            f"describes: {len(missing)} of {len(parameters)} parameters are missing, "
            f"{missing[0]} among them. Put both files of one encoder in the folder."
        )
    if missing:
        warn(
            f"{len(missing)} of {len(parameters)} parameters are missing in the weights in "
            f"{folder} and start at random, {missing[0]} among them: if that is not intended, "
            f"save the encoder again.",
            UserWarning,
            stacklevel=2,
        )


def rebuild_encoder(
    config: Any,
    dropouts: tuple[float, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> PreTrainedModel:
    """Return an encoder of this config, with uninitialised weights that the caller sets.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    dropouts : tuple of float, default=None
        New dropout and attention_dropout; those of the config if None.
    dtype : torch.dtype, default=torch.float32
        Type of the weights.
    """
    if dropouts is not None:
        config = set_dropout(config, *dropouts)
    with silenced(), no_init_weights():
        encoder = AutoModel.from_config(config, dtype=dtype)
    return without_pooler(encoder)


def without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Remove the pooler, if any: it takes memory and would never get a gradient."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
