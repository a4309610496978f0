"""What a new network starts with."""

from pathlib import Path

import pytest
import torch

from sklearn_longbert._encoding.network import LongBertNetwork
from sklearn_longbert._pretrained.loading import load_encoder


@pytest.mark.parametrize("initializer_range", [0.2, 0.01])
def test_the_first_weights_of_the_head(initializer_range, tiny_bert):
    """Normal numbers, as small as the encoder's own first weights were, and no preference."""
    encoder = load_encoder(Path(tiny_bert), 0.0, 0.0)
    encoder.config.initializer_range = initializer_range
    torch.manual_seed(0)
    head = LongBertNetwork(encoder, 500, "mean", "mean", 0.0).head
    weights = head.weight.detach() / initializer_range  # 8000 numbers
    assert abs(weights.mean()) < 0.05
    assert weights.std() == pytest.approx(1, abs=0.05)
    assert (weights.abs() < 1).float().mean() == pytest.approx(0.683, abs=0.03)
    assert (head.bias == 0).all()
