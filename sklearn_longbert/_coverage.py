"""How much of the texts is read: nothing is left out in silence."""

from typing import Any
from warnings import warn

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"min": 0.0, "median": 0.5, "90 %": 0.9, "max": 1.0}


def chunk_report(documents: NDArray[np.object_]) -> dict[str, Any]:
    """Return how long texts are, into how many chunks they are cut, and what is not read.

    Parameters
    ----------
    documents : array of ChunkedDocument

    Returns
    -------
    report : dict
        As ``chunk_report`` of the estimators returns it.
    """
    n_read = np.array([_n_read_tokens(document) for document in documents], dtype=np.intp)
    n_tokens = np.array([document.n_tokens for document in documents], dtype=np.intp)
    n_chunks = [document.n_chunks for document in documents]
    is_long = [document.n_tokens > document.layout.body_size for document in documents]
    quantiles = {name: float(np.quantile(n_chunks or [0], q)) for name, q in QUANTILES.items()}
    return {
        "n_texts": len(documents),
        "n_long_texts": sum(is_long),
        "chunks_per_text": quantiles,
        "n_tokens": int(n_tokens.sum()),
        "n_cut_texts": int((n_read < n_tokens).sum()),
        "n_skipped_tokens": int((n_tokens - n_read).sum()),
    }


def warn_of_cut_texts(report: dict[str, Any], max_chunks: int | None) -> None:
    """Warn if `max_chunks` cuts any text."""
    if report["n_cut_texts"]:
        share = report["n_skipped_tokens"] / report["n_tokens"]
        warn(
            f"max_chunks={max_chunks} cuts {report['n_cut_texts']} of {report['n_texts']} training "
            f"texts and skips {share:.1%} of their tokens: raise it, or set None to read them "
            f"whole. verbose=0 does not warn.",
            UserWarning,
            stacklevel=2,
        )


def _n_read_tokens(document: Any) -> int:
    """Count the tokens that are in at least one chunk that is read."""
    first, end = document.bounds().T
    new = np.maximum(first[1:], end[:-1])  # what the chunk before has not read
    return int(end[0] - first[0] + (end[1:] - new).sum())
