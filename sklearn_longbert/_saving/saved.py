"""Saved, what a folder holds of a fitted estimator."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sklearn_longbert._encoding.hidden_states import layer_numbers
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._targets.base import Targets
from sklearn_longbert._texts.chunker import TextChunker


@dataclass(frozen=True)
class Saved:
    """A saved estimator, loaded from its folder.

    Attributes
    ----------
    folder : Path
    estimator : str
        "classifier" or "regressor".
    version : str
        The version of this package that saved it.
    parameters : dict
        The parameters of the estimator.
    fitted : dict
        Results of the fit, with the names in `LEARNED`, and `n_chunks`.
    used : dict
        The values that the fit used for the parameters that shape chunks and network.
    targets : Targets
    network : LongBertNetwork
        On the CPU.
    chunker : TextChunker
        The fitted chunker.
    """

    folder: Path
    estimator: str
    version: str
    parameters: dict[str, Any]
    fitted: dict[str, Any]
    used: dict[str, Any]
    targets: Targets
    network: LongBertNetwork
    chunker: TextChunker

    def check_class(
        self, cls: type, kind: str, new: dict[str, Any], known: Collection[str]
    ) -> None:
        """Raise an error if an estimator of class `cls` cannot be made of this one.

        Parameters
        ----------
        cls : type
            The class of the estimator.
        kind : str
            "classifier" or "regressor".
        new : dict
            Parameters that replace the saved ones.
        known : collection of str
            Names of the parameters that the class has.
        """
        if kind != self.estimator:
            raise ValueError(
                f"The folder {self.folder} holds a {self.estimator}, which {cls.__name__} is "
                f"not: use LongBertClassifier.from_pretrained or LongBertRegressor.from_pretrained."
            )
        unknown = new.keys() - known
        if unknown:
            raise TypeError(f"{cls.__name__} has no parameter {min(unknown)!r}.")
        if self.parameters.keys() - known:
            raise ValueError(
                f"The estimator saved in {self.folder} has other parameters than {cls.__name__} "
                f"({min(self.parameters.keys() - known)!r} is unknown): load it with the class and "
                f"the version that saved it, {self.version}."
            )

    def check_used(self, new: dict[str, Any]) -> None:
        """Raise ValueError if new parameters differ from those that the fit has used."""
        if "layers" in new:
            n_layers = self.network.encoder.config.num_hidden_layers
            new = {**new, "layers": layer_numbers(new["layers"], n_layers)}
        for name in self.used.keys() & new.keys():
            if new[name] != self.used[name] and (name, new[name]) != ("token_pooling", "auto"):
                raise ValueError(
                    f"{name}={new[name]!r}, but the saved estimator was fitted with {name}="
                    f"{self.used[name]!r}, which shapes its chunks or its network: leave it out, "
                    f"or fit a new one."
                )
