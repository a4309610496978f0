"""The model card: a README.md that says what a saved folder holds, with the Hub's metadata.

Invariants: a card that anybody has changed is never replaced: its last line is a digest of the
others. A card tells no more than the manifest, and no name of a local folder is in it.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from sklearn_longbert._pretrained.hub import DEFAULT_MODEL

CARD = "README.md"
READMES = ("readme", "readme.md", "readme.rst", "readme.txt")  # of any case
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
MOST_CLASSES = 50  # that are listed
TASKS = {
    "classifier": "text-classification",
    "regressor": "text-classification",  # the Hub has no task of its own for numbers
    "vectorizer": "feature-extraction",
}
TITLES = {
    "classifier": "A classifier of long texts",
    "regressor": "A regressor of long texts",
    "vectorizer": "Embeddings of long texts",
}
USES = {"classifier": "predict", "regressor": "predict", "vectorizer": "transform"}
SETTINGS = {  # by the sections of the manifest
    "chunker": ("chunk_size", "chunk_overlap", "max_chunks", "chunk_selection"),
    "network": ("pooling", "token_pooling", "layers"),
}


def has_others_card(folder: Path) -> bool:
    """Return whether a folder, which may be missing, holds a README that is not as written here."""
    cards = {path.name: path for path in folder.glob("*") if path.name.lower() in READMES}
    if CARD in cards:
        return not _is_as_written(cards[CARD])
    return len(cards) > 0


def write_card(
    folder: Path, kind: str, class_name: str, sections: dict[str, Any], versions: dict[str, str]
) -> None:
    """Write a model card.

    Parameters
    ----------
    folder : Path
    kind : {"classifier", "regressor", "vectorizer"}
    class_name : str
        Name of the public class.
    sections : dict
        The manifest's dicts, with Python's own values.
    versions : dict of str to str
        The versions of libraries.
    """
    data = ModelCardData(
        library_name="sklearn_longbert",
        pipeline_tag=TASKS[kind],
        base_model=_base_model(sections),
        tags=["sklearn_longbert", "scikit-learn", "long-documents", kind],
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {TITLES[kind]}",
        "It cuts texts of any length into chunks, which its encoder reads, and pools the results.",
        _how_to_load(kind, class_name),
        _classes(sections.get("targets", {})),
        "## Settings\n\n" + _table(_settings(sections)),
        "## Versions\n\n" + _table(versions),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n\n"
    (folder / CARD).write_bytes(_signed(text.encode(errors="backslashreplace")))


def _signed(text: bytes) -> bytes:
    digest = hashlib.sha256(text).hexdigest()
    line = f"<!-- Saving again replaces this file if it is unchanged: {digest} -->\n"
    return text + line.encode()


def _is_as_written(path: Path) -> bool:
    """Return whether a file can be read and is as written, but for the ends of its lines."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        content = path.read_bytes().replace(b"\r\n", b"\n")
    except OSError:
        return False
    text = content[: content.rfind(b"<!--")]
    return content == _signed(text)


def _base_model(sections: dict[str, Any]) -> str | None:
    """Return the encoder's id on the Hub, None if it is not known to be one.

    A name such as "ours/encoder" may have been that of a local folder, which is elsewhere now. So
    the Hub's cache must hold it.
    """
    parameters = sections["parameters"]
    name, revision = sections.get("fitted", {}).get("encoder_name") or (
        parameters["model_name"],
        parameters["revision"],
    )
    if name == DEFAULT_MODEL:
        return DEFAULT_MODEL
    if not isinstance(name, str) or not HUB_ID.fullmatch(name) or Path(name).exists():
        return None
    try:
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
    except (HFValidationError, OSError):  # no possible id, or a cache that cannot be read
        return None
    return name if isinstance(cached, str) else None


def _how_to_load(kind: str, class_name: str) -> str:
    return (
        "```python\n"
        f"from sklearn_longbert import {class_name}\n\n"
        f'model = {class_name}.from_pretrained("the name of this repository, or a folder")\n'
        f"model.{USES[kind]}(texts)  # a list of str\n"
        "```"
    )


def _classes(targets: dict[str, Any]) -> str:
    """Return the section of the classes, empty if there are none."""
    classes = targets.get("classes")
    if not isinstance(classes, np.ndarray):
        return ""
    listed = classes[:MOST_CLASSES].tolist()
    lines = [json.dumps(label, ensure_ascii=False, default=str) for label in listed]
    if len(classes) > MOST_CLASSES:
        lines.append(f"... and {len(classes) - MOST_CLASSES} more")
    return "## Classes\n\n" + "\n".join(f"    {line}" for line in lines)  # shown as they are


def _settings(sections: dict[str, Any]) -> dict[str, Any]:
    settings = {
        name: sections[section][name]
        for section, names in SETTINGS.items()
        for name in names
        if name in sections[section]
    }
    if "frozen" in sections["network"]:
        settings["freeze_encoder"] = sections["network"]["frozen"]
    baseline = sections["parameters"].get("baseline")
    if isinstance(baseline, str):
        settings["baseline"] = baseline
    if "fine_tuning_share" in sections.get("fitted", {}):
        settings["fine_tuning_share"] = round(sections["fitted"]["fine_tuning_share"], 3)
    return settings


def _table(rows: dict[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])
