"""The skorch net: batches, training step, schedule, validation.

Invariants: each document has one loss in the mean of a batch, whatever its number of chunks. The
net gets no texts and no labels, which the estimators translate for it and for scorers.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from math import ceil
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback, PrintLog
from skorch.history import History
from torch import Tensor, nn

from sklearn_longbert._encoding.batches import Batches, ChunkBatch, DocumentDataset
from sklearn_longbert._encoding.encoder import sparse_lookups
from sklearn_longbert._encoding.gradient_cache import own_random_state
from sklearn_longbert._encoding.leader import Leader, sharing
from sklearn_longbert._encoding.memory import own_modes
from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._encoding.passes import (
    Passes,
    cached_embeddings,
    can_remember,
    encode_chunks,
    frozen_embeddings,
    training_limits,
)
from sklearn_longbert._encoding.progress import Bar
from sklearn_longbert._pretrained.devices import select_autocast, select_inference
from sklearn_longbert._targets.scales import scaled_sum
from sklearn_longbert._training.averaging import WeightAverage
from sklearn_longbert._training.callbacks import (
    KeptEpoch,
    StopTraining,
    default_callbacks,
    linear_schedule,
)
from sklearn_longbert._training.head_start import Start, start_network
from sklearn_longbert._training.losses import DivergedError
from sklearn_longbert._training.resume import (
    FitCheckpoint,
    Progress,
    restore_start,
    restore_training,
)
from sklearn_longbert._training.scored_net import Naming, ScoredNet
from sklearn_longbert._training.state import net_state, network_and_settings
from sklearn_longbert._training.validation import ValidationMonitor


class LongBertNet(ScoredNet):
    """Train and apply a :class:`LongBertNetwork` on datasets of chunked documents.

    Parameters
    ----------
    module : callable
        Makes the network. It is called once, when training begins.
    criterion : type of nn.Module
        A loss that takes (logits, targets). Its ``reduction`` is set to "none".
    weight_decay : float
        AdamW's weight decay. Biases and norms, the parameters of one dimension, are spared.
    warmup_fraction : float or None
        Share of the steps in which the learning rate rises, before it falls linearly. None
        keeps the learning rate constant.
    max_grad_norm : float or None
    micro_batch_tokens : int or "auto"
        Most tokens, padding counted, in one encoder pass, and in the graphs that are kept.
    autocast : torch.dtype or None
    devices : list of str
        Names of the devices that encode. The net is on the first of them.
    seed : int
        Decides the head's first weights, dropout, the order of the documents and drawn chunks.
    progress : bool
        Whether to show a bar in training.
    inference : {"torch", "openvino", "openvino_int8"}
        What computes the encoder while its weights are not trained.
    monitor : ValidationMonitor or None
    held_out : DocumentDataset or None
        Documents that tell how far training may go: those of the monitor if there is one.
    start : Start or None
        How the first training starts. None starts at the weights of `module`.
    share : float or "auto"
        Where the weights are in the end, between the start at a linear probe and the end of the
        first training.
    baseline_scales : ndarray of shape (n_models,) or None
        Scales of the baseline's models, if they are known before the first training.
    checkpoint : FitCheckpoint or None
        Where the first training is written, and found if an earlier run was killed.
    **kwargs : dict
        Parameters of skorch.NeuralNet.
    """

    def __init__(
        self,
        module: Callable[[], LongBertNetwork],
        criterion: type[nn.Module],
        *,
        weight_decay: float,
        warmup_fraction: float | None,
        max_grad_norm: float | None,
        micro_batch_tokens: int | str,
        autocast: torch.dtype | None,
        devices: list[str],
        seed: int,
        progress: bool,
        inference: str = "torch",
        monitor: ValidationMonitor | None = None,
        held_out: DocumentDataset | None = None,
        start: Start | None = None,
        share: float | str = 1.0,
        baseline_scales: NDArray[np.float64] | None = None,
        checkpoint: FitCheckpoint | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module,
            criterion,
            criterion__reduction="none",
            optimizer=torch.optim.AdamW,
            train_split=None,
            iterator_valid__batch_size=sys.maxsize,  # validation texts are one batch
            verbose=0,
            device=devices[0],
            **kwargs,
        )
        self.weight_decay = weight_decay
        self.warmup_fraction = warmup_fraction
        self.max_grad_norm = max_grad_norm
        self.micro_batch_tokens = micro_batch_tokens
        self.autocast = autocast
        self.devices = devices
        self.seed = seed
        self.progress = progress
        self.inference = inference
        self.monitor = monitor
        self.held_out = held_out
        self.first_start = start
        self.average = WeightAverage(share)
        self.baseline_scales = baseline_scales
        self.checkpoint = checkpoint
        self.goes_on_ = False  # with an epoch that an earlier run has begun
        self.cache_: dict[bytes, Tensor] | None = None  # embeddings, in training

    def train(
        self,
        dataset: DocumentDataset,
        n_epochs: int,
        naming: Naming | None = None,
        leader: Leader | None = None,
    ) -> None:
        """Train for `n_epochs` on the documents, from the present weights if there are any.

        Scorers need `naming`. A `leader` shares the work with the ranks of its group.

        Raises
        ------
        ValueError
            If the loss or a weight becomes infinite or NaN.
        """
        self.n_steps_ = n_epochs * ceil(len(dataset) / self.batch_size)
        self.step_ = 0  # steps that are done
        self.best_epoch_: int | None = None
        self.naming_ = naming
        try:
            with (
                own_modes(self._place),
                own_random_state(self.seed, self._place),
                Bar(total=self.n_steps_, desc="fit", disable=not self.progress) as self.bar_,
            ):
                self._train(dataset, n_epochs, leader)
            for name, weight in self.module_.named_parameters():
                if not torch.isfinite(weight.sum()):
                    raise self.diverged(f"Parameter {name}")
            self._calibrate(dataset)
        except DivergedError:
            if self.checkpoint is not None:
                self.checkpoint.remove()
            raise
        finally:
            self.naming_, self.asked_ = None, (None, None)
            self.changes_ = False
            if hasattr(self, "optimizer_"):
                self._zero_grad_optimizer(set_to_none=True)
                self._set_training(False)
        if self.checkpoint is not None:
            self.checkpoint.remove()

    def _train(self, dataset: DocumentDataset, n_epochs: int, leader: Leader | None) -> None:
        is_new = not self.initialized_
        if is_new:
            self.initialize()
        else:
            self._initialize_callbacks()
            if hasattr(self, "optimizer_"):
                for group, new in zip(
                    self.optimizer_.param_groups, self._parameter_groups(), strict=True
                ):
                    group.update(weight_decay=new["weight_decay"], lr=self.lr)
            else:
                self._initialize_optimizer()
        self.module_.make_writable()
        self.changes_ = not self.module_.frozen
        if self.changes_:
            self._check_inference()
            self.module_.forget_graphs()
        # The callable keeps in memory what it refers to: the estimator or the last fit's weights.
        self.module: Callable[[], LongBertNetwork] | None = None
        with self.sharing(leader, trains=True), self._caching(dataset):
            progress = None
            if self.checkpoint is not None:
                progress = self.checkpoint.find(self, dataset.documents[0].layout)
            if progress is not None:
                restore_start(self, progress)
            elif is_new and self.first_start is not None:
                self._set_training(False)
                passes = self._shown_passes(dataset)
                scales = start_network(self.module_, dataset, self.first_start, passes, self.cache_)
                self.baseline_scales = scales if len(scales) else None
            for each in [dataset] if self.held_out is None else [dataset, self.held_out]:
                each.offset_by(self.baseline_scales)
            self.bar_.set_postfix_str("", refresh=False)
            self.bar_.set_description("fit")
            self._set_training(True)
            self.limits_ = training_limits(
                self.module_, dataset.documents, self.batch_size, self._passes, self._encode
            )
            self._set_training(False)  # until the first step, as callbacks expect it
            start = self.first_start if is_new and progress is None else None
            if start is not None and start.probe is not None:
                self.average.begin(self.module_, start.n_groups)
            self._run(dataset, n_epochs, progress)
            self.average.end(self.module_, self.evidence)
            self._scale_logits(self.average.scale)
            self.changes_ = False

    def _scale_logits(self, scale: float) -> None:
        """Multiply the logits of the network and of a baseline."""
        with torch.no_grad():
            self.module_.head.weight *= scale
            self.module_.head.bias *= scale
        if self.baseline_scales is not None:
            self.baseline_scales = self.baseline_scales * scale

    def _run(self, dataset: DocumentDataset, n_epochs: int, progress: Progress | None) -> None:
        """Run the epochs, and what callbacks do before and after them."""
        callbacks = [callback for _, callback in self.callbacks_]
        prints = any(isinstance(callback, PrintLog) for callback in callbacks)
        self.verbose = int(self.progress or prints)  # PrintLog prints nothing without it
        kept_epoch = next(callback for callback in callbacks if isinstance(callback, KeptEpoch))
        self.notify("on_train_begin", X=dataset, y=None)
        kept_epoch.remember(self)  # skorch's LoadInitState brings weights and epochs
        self.n_earlier_epochs_ = len(self.history)
        if progress is not None:
            n_epochs = self._go_on(progress, n_epochs)
        with suppress(StopTraining), sparse_lookups(self.module_):
            self.fit_loop(dataset, epochs=n_epochs)
        if self.checkpoint is not None:
            self.checkpoint.write(self, is_finished=True)
        history = self.history
        self.notify("on_train_end", X=dataset, y=None)
        self.history = history  # skorch's Checkpoint takes it back to an earlier epoch
        kept_epoch.settle(self)

    def _go_on(self, progress: Progress, n_epochs: int) -> int:
        """Go on where an earlier run was, and return how many of the epochs are left."""
        restore_training(self, progress)
        self.bar_.update(self.step_)
        if progress.state["is_finished"]:
            return 0
        self.goes_on_ = True
        return n_epochs - (len(self.history) - self.n_earlier_epochs_ - 1)

    def prepare(
        self,
        *,
        lr: float,
        batch_size: int,
        weight_decay: float,
        max_grad_norm: float | None,
        micro_batch_tokens: int | str,
        progress: bool,
        callbacks: list[Any] | None,
        seed: int,
    ) -> None:
        """Take over new settings, for further training at a constant learning rate."""
        self.lr, self.batch_size, self.weight_decay = lr, batch_size, weight_decay
        self.max_grad_norm, self.micro_batch_tokens = max_grad_norm, micro_batch_tokens
        self.progress, self.seed = progress, seed
        self.callbacks: list[Any] | None = callbacks
        self.warmup_fraction = None

    def compute_with(self, micro_batch_tokens: int | str, precision: str, inference: str) -> None:
        """Take over new settings of predictions; raise ValueError if the devices have not these."""
        devices = [torch.device(device) for device in self.devices]
        self.inference = select_inference(inference, precision, devices)
        self.autocast = select_autocast(precision, self._place)
        self.micro_batch_tokens = micro_batch_tokens

    def start(self, module: Callable[[], LongBertNetwork]) -> None:
        """Make a network without training it."""
        self.module, self.best_epoch_ = module, None
        with own_modes(self._place), own_random_state(self.seed, self._place):
            self.initialize()
        self.module = None
        self._set_training(False)
        self.drop_optimizer()

    def sharing(
        self, leader: Leader | None = None, trains: bool = False
    ) -> AbstractContextManager[None]:
        """Return a context in which other devices encode, too; see its function."""
        changes = trains and not self.module_.frozen
        return sharing(self.devices, self.module_, self.autocast, changes, leader)

    @contextmanager
    def _caching(self, dataset: DocumentDataset) -> Iterator[None]:
        """If the encoder is frozen, encode each chunk once, without dropout, and cache it."""
        if self.module_.frozen:
            self._set_training(False)
            batch = ChunkBatch(dataset.documents)
            self._passes.calibrate(self.module_, batch)
            embeddings = frozen_embeddings(self.module_, batch, self._shown_passes(dataset))
            self.cache_ = dict(zip(batch.digests, embeddings, strict=True))
        try:
            yield
        finally:
            self.cache_ = None

    def _shown_passes(self, dataset: DocumentDataset) -> Passes:
        """Return the passes before the first step of training, whose chunks the bar counts."""
        self.bar_.set_description("embed")
        if not self.progress:
            return self._passes
        total, done = len(ChunkBatch(dataset.documents).distinct()[0]), 0

        def show(n_chunks: int) -> None:
            nonlocal done
            done += n_chunks
            # done may exceed total: a chunk that several stretches hold is encoded in each
            self.bar_.set_postfix_str(f"{min(done, total)} of {total} chunks")

        return replace(self._passes, on_pass=show)

    def predict_logits(
        self,
        documents: NDArray[np.object_],
        parts: Sequence[NDArray[Any]] = (),
        progress: bool = False,
    ) -> NDArray[Any]:
        """Return the document logits, of shape (n_documents, n_outputs), in their order.

        `parts` are the logits of the baseline's models, if there is a baseline.
        """
        self._set_training(False)
        batch = ChunkBatch(documents, offsets=self.offsets(parts, len(documents)))
        with own_modes(self._place), self.sharing():
            return self.infer(batch, progress=progress).numpy()

    def offsets(self, parts: Sequence[NDArray[Any]], n_documents: int) -> Tensor:
        """Return what the baseline adds to the logits, of shape (n_documents, 1 or n_outputs)."""
        if self.baseline_scales is None:
            return torch.zeros(n_documents, 1)
        return torch.from_numpy(scaled_sum(parts, self.baseline_scales)).float()

    def predict_chunks(
        self, documents: NDArray[np.object_], progress: bool = False
    ) -> list[Tensor]:
        """Return the outputs of the chunks of each document, of shape (n_chunks, n_columns)."""
        self._set_training(False)
        batch = ChunkBatch(documents)
        with own_modes(self._place), self.sharing(), torch.inference_mode():
            outputs = self._chunk_outputs(batch, "explain" if progress else None)
        return list(outputs.split(batch.chunk_counts))

    def drop_optimizer(self) -> None:
        """Free the optimizer's state, twice the size of the weights, and all callbacks."""
        del self.optimizer_
        self.callbacks, self.monitor, self.held_out, self.checkpoint = None, None, None, None
        self.callbacks_: list[tuple[str, Callback]] = []

    def release(self) -> None:
        """Free the weights and all that trains them, even if others still hold this failed net."""
        training = ("module", "optimizer_", "callbacks", "callbacks_", "monitor", "held_out")
        for name in ("module_", *training):
            self.__dict__.pop(name, None)
        self.average.start = None

    # The following methods override skorch's hooks.

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        schedule = None
        if self.warmup_fraction is not None:
            n_warmup = ceil(self.warmup_fraction * self.n_steps_)
            schedule = partial(linear_schedule, n_warmup=n_warmup, n_steps=self.n_steps_)
        return default_callbacks(schedule, self.max_grad_norm, self.monitor)

    def get_iterator(self, dataset: DocumentDataset, training: bool = False) -> Any:
        if training:
            return Batches(dataset, self.batch_size, self.seed, self._place_of_batch)
        return Batches(dataset, len(dataset))  # the passes are bounded by their tokens

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        if not self.goes_on_:  # else the history has the epoch
            super().on_epoch_begin(net, **kwargs)
        self.goes_on_ = False

    def _place_of_batch(self) -> tuple[int, int]:
        """Return the number of the epoch in this training, and how many batches of it are done."""
        return len(self.history) - self.n_earlier_epochs_, len(self.history[-1]["batches"])

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **_: Any) -> None:
        self.step_ += training

    def infer(self, x: ChunkBatch, progress: bool = False, **_: Any) -> Tensor:
        """Return the document logits of a batch, on the CPU."""
        with torch.inference_mode():
            outputs = self._chunk_outputs(x, "predict" if progress else None)
            logits = self.module_.pool(outputs, x.chunk_counts)
            return logits if x.offsets is None else logits + x.offsets

    def _chunk_outputs(self, batch: ChunkBatch, progress: str | None) -> Tensor:
        """Return the outputs of each chunk before pooling, on the CPU."""
        network = self.module_
        if self.cache_ is not None:
            embeddings = cached_embeddings(network, batch, self._passes, self.cache_)
        elif network.frozen and can_remember(network, batch):
            embeddings = frozen_embeddings(network, batch, self._passes, progress)
        else:
            return encode_chunks(network, batch, self._passes, network.chunk_outputs, progress)
        return network.chunk_outputs(embeddings.to(self._place)).cpu()

    def __getstate__(self) -> dict[str, Any]:
        return net_state(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        with own_modes(torch.device("cpu")):
            network, settings = network_and_settings(state)
        LongBertNet.__init__(self, lambda: network, **settings)
        self.start(lambda: network)
        self.history, self.best_epoch_ = History(state["history"]), state["best_epoch"]
