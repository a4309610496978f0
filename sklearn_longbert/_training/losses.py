"""The losses of documents, and the error if they become infinite."""

from typing import Any

import torch
from skorch import NeuralNet
from skorch.history import History
from torch import Tensor

from sklearn_longbert._encoding.batches import TargetsAndWeights


class DivergedError(ValueError):
    """The loss or a weight became infinite or NaN."""


class LossNet(NeuralNet):
    """The base of LongBertNet with its loss."""

    history: History
    max_grad_norm: float | None
    autocast: torch.dtype | None

    def document_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the losses of each document, of shape (n_documents, 1 or n_outputs)."""
        if targets.is_floating_point():
            targets = targets.to(logits.dtype)
        losses = self.criterion_(logits, targets.to(logits.device))
        return losses.reshape(len(losses), -1)

    def get_loss(self, y_pred: Tensor, y_true: TargetsAndWeights, **_: Any) -> Tensor:
        targets, weights = y_true
        losses = self.document_losses(y_pred, targets)
        weights = weights.to(losses.dtype).to(losses.device).reshape(len(weights), -1)
        loss = (losses * weights).mean()
        if not torch.isfinite(loss):
            raise self.diverged("The loss")
        return loss

    def diverged(self, what: str) -> DivergedError:
        """Return the error that says `what` became NaN or infinite."""
        cure = f"lower learning_rate (it is {self.lr:g})"
        if self.max_grad_norm is None:
            cure += ", clip gradients with max_grad_norm=1.0"
        if self.autocast is not None:
            cure += ", or compute in precision='float32'"
        return DivergedError(f"{what} became NaN or infinite in epoch {len(self.history)}: {cure}.")
