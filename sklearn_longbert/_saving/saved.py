"""Saved, what a folder holds of a fitted estimator or vectorizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn_longbert._encoding.encoder import ChunkEncoder
from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._plain import plain
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._texts.chunker import TextChunker

LOOKUPS = {"revision", "local_files_only"}  # for the Hub only; what was saved keeps its own
CHUNKING = ("chunk_size", "chunk_overlap", "max_chunks", "chunk_selection")


@dataclass(frozen=True)
class Saved:
    """What an estimator and a vectorizer have in common, loaded from a folder.

    Attributes
    ----------
    folder : Path
    version : str
        The version of this package that saved it.
    parameters : dict
        The parameters, plain values.
    shaped : dict
        The parameters that shape the network, as the fit has used them.
    network : ChunkEncoder
        On the CPU.
    chunker : TextChunker
        The fitted chunker.
    """

    folder: Path
    version: str
    parameters: dict[str, Any]
    shaped: dict[str, Any]
    network: ChunkEncoder
    chunker: TextChunker

    def make(self, cls: Any, new: dict[str, Any]) -> Any:
        """Return an estimator that is not fitted yet, with the saved parameters and new ones.

        Parameters
        ----------
        cls : type
            The class of the estimator.
        new : dict
            Parameters that replace the saved ones.

        Raises
        ------
        ValueError, TypeError
            If the class has other parameters, or one of them is not as described, or differs
            from what the fit has used.
        """
        new = {name: value for name, value in new.items() if name not in LOOKUPS}
        known = cls._get_param_names()
        unknown = new.keys() - known
        if unknown:
            raise TypeError(f"{cls.__name__} has no parameter {min(unknown)!r}.")
        if self.parameters.keys() - known:
            raise ValueError(
                f"The estimator saved in {self.folder} has other parameters than {cls.__name__} "
                f"({min(self.parameters.keys() - known)!r} is unknown): load it with the class and "
                f"the version that saved it, {self.version}."
            )
        estimator = cls(**{**self.parameters, **new})
        estimator._validate_params()
        self._check_used(plain(new))
        return estimator

    def _check_used(self, new: dict[str, Any]) -> None:
        """Raise ValueError if new parameters differ from those that the fit has used."""
        used = {**{name: getattr(self.chunker, name) for name in CHUNKING}, **self.shaped}
        if "layers" in new:
            n_layers = self.network.encoder.config.num_hidden_layers
            new = {**new, "layers": layer_numbers(new["layers"], n_layers)}
        for name in used.keys() & new.keys():
            if new[name] != used[name] and (name, new[name]) != ("token_pooling", "auto"):
                raise ValueError(
                    f"{name}={new[name]!r}, but the saved estimator was fitted with {name}="
                    f"{used[name]!r}, which shapes its chunks or its network: leave it out, "
                    f"or fit a new one."
                )


@dataclass(frozen=True)
class SavedEstimator(Saved):
    """A saved classifier or regressor.

    Attributes
    ----------
    fitted : dict
        Results of the fit, with the names in `LEARNED`, and `n_chunks`.
    targets : Targets
    """

    network: LongBertNetwork
    fitted: dict[str, Any]
    targets: Targets
