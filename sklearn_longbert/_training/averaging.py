"""Weights between those before training and those after it.

A few dozen texts move a pretrained encoder farther than they tell it where to go. Weights on the
line between the start and the end keep most of the gain and lose less of what the encoder knew
(WiSE-FT; Wortsman et al., 2022, https://arxiv.org/abs/2109.01903). They cost nothing in prediction.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sklearn_longbert._encoding.network import LongBertNetwork

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # that validation texts choose from
TEXTS_OF_A_HALF = 50  # for each output, with which start and end are trusted alike
LARGEST_DEFAULT = 0.6  # of the way, without held-out texts

Weights = dict[str, Tensor]


def default_share(n_groups: int, n_outputs: int) -> float:
    """Return the share of the way that a training with `n_groups` distinct texts is trusted with.

    What counts is how many texts there are for each output: with 25 texts of five classes the log
    loss is least near the start, with 1,000 of twenty classes at a third of the way, with 121 of
    two classes near the end. The texts of a group count once: with 90 excerpts of nine books, the
    loss rises all the way. More texts do not make the end safe: with 11,000 of twenty classes, the
    loss is less at .4 and .6 than there. `examples/benchmarks/shares.py` measures it.
    """
    return min(n_groups / (n_groups + TEXTS_OF_A_HALF * n_outputs), LARGEST_DEFAULT)


def copy_weights(network: nn.Module) -> Weights:
    """Return copies of the weights that training may change, on the CPU.

    Callbacks may freeze weights for a while, which are copied, too.
    """
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in network.named_parameters()
        if weight.requires_grad or not network.frozen
    }


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Set the weights that :func:`copy_weights` copied."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in weights:
                weight.copy_(weights[name])


def set_between(network: nn.Module, start: Weights, end: Weights, share: float) -> None:
    """Set the weights to those at a share of the way from `start` to `end`."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name in start:
                weight.copy_(torch.lerp(start[name], end[name], share))


class WeightAverage:
    """The weights before training, and where between them and the end weights shall be.

    Parameters
    ----------
    share : float or "auto"
        Share of the way. "auto" is that with the least loss of held-out texts, or without them the
        default for the numbers of groups or distinct texts and of outputs.

    Attributes
    ----------
    taken : float
        The share at which the last training has ended: 1 unless it moved the weights back.
    scale : float
        What multiplies the logits since then: 1 unless held-out texts have chosen.
    """

    def __init__(self, share: float | str) -> None:
        self.share = share
        self.start: Weights | None = None
        self.n_groups = 0
        self.taken, self.scale = 1.0, 1.0

    def begin(self, network: nn.Module, n_groups: int) -> None:
        """Remember the weights before training, and the number of groups or distinct texts."""
        self.start = None if self.share == 1 else copy_weights(network)
        self.n_groups = n_groups

    def end(
        self, network: LongBertNetwork, evidence: Callable[[], tuple[float, float]] | None
    ) -> None:
        """Move the weights back, if :meth:`begin` was called.

        `evidence` returns the loss of held-out texts with the present weights, and the scale of
        their logits that it is the least loss at.
        """
        self.taken, self.scale = 1.0, 1.0
        if self.start is None:
            return
        start, end, self.start = self.start, copy_weights(network), None
        share = self.share
        if share == "auto" and evidence is not None:
            found = {}
            for each in SHARES:
                set_between(network, start, end, each)
                found[each] = evidence()
            share = min(reversed(SHARES), key=lambda each: found[each][0])
            self.scale = found[share][1]
        elif share == "auto":
            share = default_share(self.n_groups, network.head.out_features)
        self.taken = float(share)
        set_between(network, start, end, self.taken)
