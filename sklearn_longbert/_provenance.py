"""Record the versions that an estimator was pickled or saved with, and compare them."""

from importlib.metadata import version
from typing import Any
from warnings import warn

from sklearn.base import BaseEstimator
from sklearn.exceptions import InconsistentVersionWarning

from sklearn_longbert._version import __version__

VERSION_KEY = "_sklearn_longbert_version"
LIBRARIES = ("numpy", "scikit-learn", "skorch", "tokenizers", "torch", "transformers")


def library_versions() -> dict[str, str]:
    """Return the versions that a saved estimator's results may depend on."""
    return {"sklearn-longbert": __version__} | {name: version(name) for name in LIBRARIES}


def warn_of_another_version(name: str, original: str) -> None:
    """Warn, as scikit-learn does, of an estimator of another version of this package."""
    if original != __version__:
        warning = InconsistentVersionWarning(
            estimator_name=name,
            current_sklearn_version=__version__,
            original_sklearn_version=original,
        )
        warn(warning, stacklevel=2)


def refusal_of_pickle(version: str) -> ImportError:
    """Return the error for a pickle made by a version with other modules."""
    return ImportError(
        f"This pickle was made by sklearn_longbert {version}, whose modules {__version__} does not "
        f"have: load it with {version}, or fit the estimator again."
    )


class Versioned(BaseEstimator):
    """Keep the version in pickles, as scikit-learn does with its own estimators."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), VERSION_KEY: __version__}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        warn_of_another_version(type(self).__name__, state.pop(VERSION_KEY, "unknown"))
        super().__setstate__(state)
