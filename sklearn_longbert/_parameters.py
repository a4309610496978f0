"""BaseParameters, the parameters that both estimators share, and their constraints."""

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from os import PathLike
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils._param_validation import Interval, StrOptions

from sklearn_longbert._encoding.poolings import EMBEDDING_CONSTRAINTS, POOLINGS
from sklearn_longbert._pretrained.devices import INFERENCE_CONSTRAINTS
from sklearn_longbert._pretrained.hub import DEFAULT_MODEL
from sklearn_longbert._texts.chunker import TextChunker
from sklearn_longbert._texts.reader import TextReader


class BaseParameters(TextReader):
    """Parameters of both estimators."""

    _parameter_constraints: dict[str, Any] = {
        **TextChunker._parameter_constraints,
        **EMBEDDING_CONSTRAINTS,
        "micro_batch_tokens": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "device": [str, torch.device, list, tuple],
        **INFERENCE_CONSTRAINTS,
        "verbose": ["verbose"],
        "pooling": [StrOptions(set(POOLINGS))],
        "head_init": [StrOptions({"linear_probe", "random"})],
        "freeze_encoder": ["boolean"],
        "baseline": "no_validation",  # new_baseline checks it
        "fine_tuning_share": [Interval(Real, 0, 1, closed="right"), StrOptions({"auto"})],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "warmup_fraction": [Interval(Real, 0, 1, closed="both")],
        "max_grad_norm": [Interval(Real, 0, None, closed="neither"), None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "attention_dropout": [Interval(Real, 0, 1, closed="left")],
        "early_stopping": ["boolean"],
        "scoring": [str, callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "callbacks": [list, None],
        "checkpoint_folder": [str, PathLike, None],
        "checkpoint_interval": [Interval(Real, 0, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        model_name: str | PathLike[str] = DEFAULT_MODEL,
        *,
        chunk_size: int | None = None,
        chunk_overlap: int = 0,
        max_chunks: int | None = None,
        chunk_selection: str = "head",
        missing: str = "error",
        pooling: str = "mean",
        token_pooling: str = "auto",
        layers: str | tuple[int, ...] = "spread",
        baseline: Any = "words",
        head_init: str = "linear_probe",
        freeze_encoder: bool = False,
        fine_tuning_share: float | str = "auto",
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
        scoring: str | Callable[..., float] | None = None,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 2,
        tol: float = 1e-4,
        warm_start: bool = False,
        device: str | torch.device | Sequence[str | torch.device] = "auto",
        precision: str = "auto",
        inference: str = "torch",
        callbacks: list[Any] | None = None,
        checkpoint_folder: str | PathLike[str] | None = None,
        checkpoint_interval: float = 600,
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
        self.missing = missing
        self.pooling = pooling
        self.token_pooling = token_pooling
        self.layers = layers
        self.baseline = baseline
        self.head_init = head_init
        self.freeze_encoder = freeze_encoder
        self.fine_tuning_share = fine_tuning_share
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
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.warm_start = warm_start
        self.device = device
        self.precision = precision
        self.inference = inference
        self.callbacks = callbacks
        self.checkpoint_folder = checkpoint_folder
        self.checkpoint_interval = checkpoint_interval
        self.revision = revision
        self.local_files_only = local_files_only
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_clone__(self) -> Self:
        """Return an unfitted copy, whose callbacks are this estimator's own.

        So they report where the user expects it, to a writer or a trial that cannot be copied.
        scikit-learn shares the callbacks of `set_callbacks` between clones in the same way.
        """
        bare = type(self).__new__(type(self))
        bare.__dict__.update(vars(self), callbacks=None)
        copy: Self = super(BaseParameters, bare).__sklearn_clone__()
        shared = self.callbacks
        copy.callbacks = list(shared) if isinstance(shared, list) else shared
        return copy
