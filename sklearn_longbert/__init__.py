"""Classify and regress texts that are longer than the encoder can encode at once.

Importing this package is cheap: torch and transformers are imported with the first public
name that is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sklearn_longbert._version import __version__ as __version__

if TYPE_CHECKING:
    from sklearn_longbert._classifier import LongBertClassifier
    from sklearn_longbert._explaining.display import PassageDisplay
    from sklearn_longbert._explaining.explanation import DocumentExplanation
    from sklearn_longbert._history_display import HistoryDisplay
    from sklearn_longbert._ranks.distributed import distributed
    from sklearn_longbert._regressor import LongBertRegressor
    from sklearn_longbert._texts.chunker import TextChunker
    from sklearn_longbert._texts.store import TokenStore
    from sklearn_longbert._vectorizer import LongBertVectorizer

__all__ = [
    "DocumentExplanation",
    "HistoryDisplay",
    "LongBertClassifier",
    "LongBertRegressor",
    "LongBertVectorizer",
    "PassageDisplay",
    "TextChunker",
    "TokenStore",
    "distributed",
]

_MODULE_OF = {
    "DocumentExplanation": "_explaining.explanation",
    "HistoryDisplay": "_history_display",
    "LongBertClassifier": "_classifier",
    "LongBertRegressor": "_regressor",
    "LongBertVectorizer": "_vectorizer",
    "PassageDisplay": "_explaining.display",
    "TextChunker": "_texts.chunker",
    "TokenStore": "_texts.store",
    "distributed": "_ranks.distributed",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
