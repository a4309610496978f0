"""LongBertParameters, the parameters of both estimators and the nets that they define."""

import sys
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone
from sklearn.utils._param_validation import (
    Interval,
    StrOptions,
)
from torch import nn

from sklearn_longbert._encoding.batches import DocumentDataset
from sklearn_longbert._encoding.network import LongBertNetwork, network_from_state, network_state
from sklearn_longbert._encoding.poolings import POOLINGS, TOKEN_POOLINGS
from sklearn_longbert._pretrained.devices import available_device, select_autocast, select_device
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL, find_folder
from sklearn_longbert._pretrained.loading import load_encoder
from sklearn_longbert._targets.targets import Targets
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.reader import TextReader
from sklearn_longbert._training.callbacks import (
    ValidationMonitor,
)
from sklearn_longbert._training.net import LongBertNet


class LongBertParameters(TextReader):
    """Base of both estimators: their parameters, and the nets that these define."""

    _parameter_constraints: dict[str, list[Any]] = {
        **TextChunker._parameter_constraints,
        "pooling": [StrOptions(set(POOLINGS))],
        "token_pooling": [StrOptions(set(TOKEN_POOLINGS))],
        "head_init": [StrOptions({"linear_probe", "random"})],
        "freeze_encoder": ["boolean"],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="both")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "micro_batch_tokens": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "device": [str, torch.device],
        "precision": [StrOptions({"auto", "float32", "bfloat16"})],
        "callbacks": [list, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        pooling: str = "mean",
        token_pooling: str = "mean",
        head_init: str = "linear_probe",
        freeze_encoder: bool = False,
        max_epochs: int = 3,
        batch_size: int = 8,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        warmup_fraction: float = 0.1,
        max_grad_norm: float | None = 1.0,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        micro_batch_tokens: int | str = "auto",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str | torch.device = "auto",
        precision: str = "auto",
        callbacks: list[Any] | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.model_name = model_name
        self.chunk_size = chunk_size
        self.chunk_overlap = chunk_overlap
        self.max_chunks = max_chunks
        self.chunk_selection = chunk_selection
        self.pooling = pooling
        self.token_pooling = token_pooling
        self.head_init = head_init
        self.freeze_encoder = freeze_encoder
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.micro_batch_tokens = micro_batch_tokens
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.callbacks = callbacks
        self.revision = revision
        self.local_files_only = local_files_only
        self.random_state = random_state
        self.verbose = verbose

    @property
    def device_(self) -> str:
        """Device of the network."""
        return str(self.net_.device)

    def _is_warm(self) -> bool:
        """Return whether fit goes on from the weights of the last fit."""
        return self.warm_start and hasattr(self, "net_")

    def _make_net(
        self,
        chunker: TextChunker,
        targets: Targets,
        random_state: np.random.RandomState,
        held_out: DocumentDataset | None = None,
        previous: LongBertNet | None = None,
        anywhere: bool = False,
        **settings: Any,
    ) -> LongBertNet:
        """Return a net that makes its network when it starts or trains.

        If `anywhere` is set and the device is missing, the net is on the device of "auto".
        """
        self._check_token_pooling(chunker)
        choose_device = available_device if anywhere else select_device
        device = choose_device(str(self.device))
        monitor = None
        if held_out is not None:
            monitor = ValidationMonitor(
                held_out, targets.score, self.early_stopping, self.n_iter_no_change, self.tol
            )
        has_probe = previous is None and self.head_init == "linear_probe"
        settings = {"warmup_fraction": self.warmup_fraction, **settings}
        return LongBertNet(
            self._network_factory(targets.n_outputs, previous),
            targets.criterion,
            autocast=select_autocast(self.precision, device),
            seed=draw_seed(random_state),
            monitor=monitor,
            probe=targets.probe(shrink=not self.freeze_encoder) if has_probe else None,
            device=str(device),
            **self._training_settings(),
            **settings,
        )

    def _training_settings(self) -> dict[str, Any]:
        """Return the settings of a net that may change from one training to the next."""
        return {
            "lr": float(self.learning_rate),
            "batch_size": min(int(self.batch_size), sys.maxsize),  # torch takes no NumPy integer
            "weight_decay": float(self.weight_decay),
            "max_grad_norm": self.max_grad_norm,
            "micro_batch_tokens": self.micro_batch_tokens,
            "progress": bool(self.verbose),
            "callbacks": clone(self.callbacks, safe=False),
        }

    def _network_factory(
        self, n_outputs: int, previous: LongBertNet | None
    ) -> Callable[[], LongBertNetwork]:
        """Return a function that makes a network: skorch would train a given network itself."""
        dropouts = (self.dropout, self.attention_dropout)
        settings: dict[str, Any] = {
            "pooling": self.pooling,
            "token_pooling": self.token_pooling,
            "dropout": self.dropout,
            "frozen": self.freeze_encoder,
        }
        if previous is not None:
            if self._encoder_name != (self.model_name, self.revision):
                name, revision = self._encoder_name
                raise ValueError(
                    f"warm_start=True goes on from the weights of {name!r}, revision={revision!r}, "
                    f"but the parameters are now model_name={self.model_name!r}, "
                    f"revision={self.revision!r}: set warm_start=False."
                )
            state = network_state(previous.module_)  # the previous net may go on to predict
            return partial(network_from_state, state, dropouts, **settings)

        def make_network() -> LongBertNetwork:
            folder = find_folder(self.model_name, self.revision, self.local_files_only)
            encoder = self._load_encoder(folder, dropouts)
            return LongBertNetwork(encoder, n_outputs=n_outputs, **settings)

        return make_network

    def _load_encoder(self, folder: Path, dropouts: tuple[float, float]) -> nn.Module:
        return load_encoder(folder, *dropouts)


def draw_seed(random_state: np.random.RandomState) -> int:
    """Draw a seed that every library accepts."""
    return int(random_state.randint(np.iinfo(np.int32).max))
