"""One step of training: the gradients of a batch's loss, in the memory that there is."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self
from warnings import warn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sklearn_longbert._encoding.batches import ChunkBatch, DocumentDataset, TargetsAndWeights
from sklearn_longbert._encoding.gradient_cache import backward, seed_generators
from sklearn_longbert._encoding.leader import leader_of
from sklearn_longbert._encoding.memory import is_out_of_memory, own_modes
from sklearn_longbert._encoding.passes import Passes, cached_embeddings
from sklearn_longbert._training.losses import LossNet


class StepNet(LossNet):
    """The base of LongBertNet with its training step."""

    micro_batch_tokens: int | str
    cache_: dict[bytes, Tensor] | None
    inference: str
    limits_: tuple[int, int]
    weight_decay: float
    changes_ = False  # whether the weights of the encoder are being trained

    def _parameter_groups(self) -> list[dict[str, Any]]:
        weights = [weight for weight in self.module_.parameters() if weight.requires_grad]
        return [
            {"params": [w for w in weights if w.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [w for w in weights if w.ndim <= 1], "weight_decay": 0.0},
        ]

    def initialize_optimizer(self, triggered_directly: bool | None = None) -> Self:
        # one kernel updates all weights, where torch has one
        fused = True if self._place.type in ("cpu", "cuda") else None
        self.optimizer_ = self.optimizer(self._parameter_groups(), lr=self.lr, fused=fused)
        return self

    def train_step_single(
        self, batch: tuple[ChunkBatch, TargetsAndWeights], **_: Any
    ) -> dict[str, Tensor]:
        """Add the gradients of a batch's loss, with smaller micro-batches if they do not fit."""
        self._set_training(True)
        while True:
            seed_generators(batch[0].seed or 0, self._place)  # of the head, and of some encoders
            try:
                return self._backward(*batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                longest = int(batch[0].lengths.max())
                tried = min(self.limits_[1], int(batch[0].lengths.sum()))
                if tried <= longest:
                    raise self._passes.too_large(error, longest) from error
            # This is outside of the handler, because its traceback holds the graphs.
            leader = leader_of(self.module_)
            if leader is not None:
                leader.drop()
            self._zero_grad_optimizer(set_to_none=True)
            if self._place.type == "cuda":
                torch.cuda.empty_cache()
            graph_tokens = max(tried // 2, longest)
            self.limits_ = (min(self.limits_[0], graph_tokens), graph_tokens)

    def _backward(self, chunks: ChunkBatch, targets: TargetsAndWeights) -> dict[str, Tensor]:
        step: dict[str, Tensor] = {}

        def loss_of(embeddings: Tensor) -> Tensor:
            outputs = self.module_.chunk_outputs(embeddings)
            logits = self.module_.pool(outputs, chunks.chunk_counts)
            if chunks.offsets is not None:
                logits = logits + chunks.offsets.to(logits)
            step["y_pred"] = logits.detach()
            return self.get_loss(logits, targets)

        if self.cache_ is not None:
            self._set_training(False)  # for the encoder; the head's inputs are dropped
            embeddings = cached_embeddings(self.module_, chunks, self._passes, self.cache_)
            self._set_training(True)
            loss = loss_of(embeddings.to(self._place))
            loss.backward()
            return {**step, "loss": loss.detach()}
        step["loss"] = self._backward_encoder(chunks, loss_of)
        return step

    def _backward_encoder(self, chunks: ChunkBatch, loss_of: Callable[[Tensor], Tensor]) -> Tensor:
        pass_limit, graph_limit = self.limits_
        with self._passes.casting():
            padded = not self.module_.packs()
        shares = chunks.shares(pass_limit, padded, self._passes.n_ranks)
        n_kept = [chunks.n_within(groups, graph_limit, padded) for groups in shares]
        leader = leader_of(self.module_)
        if leader is not None:
            leader.forward(chunks, shares, n_kept)
        loss = backward(
            lambda numbers: self._encode(chunks, numbers),
            shares[0],
            n_kept[0],
            loss_of,
            self._place,
            leader,
        )
        if leader is not None:
            leader.add_gradients()
        return loss

    def _encode(self, batch: ChunkBatch, numbers: NDArray[np.intp]) -> Tensor:
        with self._passes.casting():
            return self.module_.encode(batch.micro_batch(numbers), batch.seed or 0)

    def snapshot(self) -> Self:
        """Return a copy, which does not change with this net.

        If this net is being trained, torch computes for the copy for ever: its weights have no
        graph.
        """
        copied = deepcopy(self)
        copied.changes_ = self.changes_
        return copied

    def _check_inference(self) -> None:
        """Raise an error, before any step, if a calibration after the last one would fail."""
        if self.inference != "torch":
            self.module_.check_graph(self.inference == "openvino_int8", self.autocast is not None)

    def _calibrate(self, dataset: DocumentDataset) -> None:
        """Make the graph in int8 of the weights that training has ended with, if it is wanted.

        If that fails, the fit stands, because it may have taken hours.
        """
        if self.inference != "openvino_int8":
            return
        try:
            with own_modes(self._place):
                self._passes.calibrate(self.module_, ChunkBatch(dataset.documents))
        except Exception as error:  # NNCF raises errors of any kind
            warn(
                f"The fit has ended, but not the calibration of precision='int8' "
                f"({type(error).__name__}: {str(error)[:500]}). The first prediction tries again: "
                f"inference='torch' with precision='auto' needs none.",
                UserWarning,
                stacklevel=8,
            )

    @property
    def _place(self) -> torch.device:
        return torch.device(self.device)

    @property
    def _passes(self) -> Passes:
        leader = leader_of(self.module_)
        passes = Passes(self.micro_batch_tokens, self._place, self.autocast, leader=leader)
        if self.changes_ or self.inference == "torch":
            return passes
        return replace(passes, leader=None, inference=self.inference)  # it takes all cores
