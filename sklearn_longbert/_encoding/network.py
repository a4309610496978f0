"""The network: a chunk encoder, a head, a pooling.

Invariant: its two halves, :meth:`LongBertNetwork.encode` and the rest, meet at the embeddings.
Code that groups chunks into micro-batches works between them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from sklearn_longbert._encoding.encoder import (
    ChunkEncoder,
    encoder_from_state,
    encoder_state,
    quantized_from_state,
)
from sklearn_longbert._encoding.hidden_states import Layers
from sklearn_longbert._encoding.poolings import POOLINGS, GatedAttention, pool_documents


class LongBertNetwork(ChunkEncoder):
    """Compute the logits of each chunk, and pool them into the logits of each document.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
    n_outputs : int
        Number of logits of a document.
    pooling : {"mean", "max", "logsumexp", "attention"}
        How chunk logits become document logits.
    token_pooling : {"mean", "max", "mean_max", "cls"}
        How hidden states become the embedding of a chunk.
    dropout : float
        Probability with which the head's inputs are dropped in training.
    hidden_layer : tuple of (int, str), default=None
        Size and activation of a layer between embedding and head. Checkpoints that somebody
        else fine-tuned have one.
    frozen : bool, default=False
        Whether the encoder's weights stay as they are.
    layers : {"last", "spread"} or tuple of int, default="last"
        Numbers of the hidden states that the embedding is made of.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        n_outputs: int,
        pooling: str,
        token_pooling: str,
        dropout: float,
        hidden_layer: tuple[int, str] | None = None,
        frozen: bool = False,
        layers: Layers = "last",
    ) -> None:
        super().__init__(encoder, token_pooling, layers)
        config = encoder.config
        size = self.embedding_size
        self.encoder.requires_grad_(not frozen)
        self.frozen = frozen
        self.hidden_layer = hidden_layer
        self.transform: nn.Module = nn.Identity()
        if hidden_layer is not None:
            size, activation = hidden_layer
            dense = nn.Linear(self.embedding_size, size, dtype=self.dtype)
            self.transform = nn.Sequential(dense, ACT2FN[activation])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(size, n_outputs, dtype=self.dtype)
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)
        self.pooling = pooling
        # attention computes scores from embeddings, and weights the head's logits by them
        self.attention = GatedAttention(size, self.dtype) if POOLINGS[pooling].scores else None

    def chunk_outputs(self, embeddings: Tensor) -> Tensor:
        """Return the outputs of each chunk before pooling, of shape (n_chunks, n_columns).

        These are its logits and, with attention pooling, its score in the last column.
        """
        features = self.transform(embeddings)
        logits = self.head(self.dropout(features))  # (n_chunks, n_outputs)
        if self.attention is None:
            return logits
        return torch.cat([logits, self.attention(features)], dim=1)  # (n_chunks, n_outputs + 1)

    def pool(self, chunk_outputs: Tensor, chunk_counts: Sequence[int]) -> Tensor:
        """Return the document logits, of shape (n_documents, n_outputs).

        Parameters
        ----------
        chunk_outputs : Tensor of shape (n_chunks, n_columns)
            Outputs of the chunks, in the order of the documents.
        chunk_counts : sequence of int, of length n_documents
        """
        return pool_documents(chunk_outputs, chunk_counts, self.pooling)


def network_settings(network: LongBertNetwork) -> dict[str, Any]:
    """Return all arguments, except the encoder, that make an equal network."""
    return {
        "n_outputs": network.head.out_features,
        "pooling": network.pooling,
        "token_pooling": network.token_pooling,
        "dropout": network.dropout.p,
        "hidden_layer": network.hidden_layer,
        "frozen": network.frozen,
        "layers": network.layers,
    }


def network_state(network: LongBertNetwork) -> dict[str, Any]:
    """Return what :func:`network_from_state` needs to make an equal network."""
    return {**encoder_state(network), "settings": network_settings(network)}


def network_from_state(
    state: dict[str, Any], encoder_dropouts: tuple[float, float] | None = None, **settings: Any
) -> LongBertNetwork:
    """Make a network from its state, on the CPU, without loading weights from anywhere.

    Parameters
    ----------
    state : dict
        Result of :func:`network_state`. The network uses its arrays as weights.
    encoder_dropouts : tuple of float, default=None
        New dropout and attention_dropout of the encoder.
    **settings : Any
        New settings of the network, such as pooling and dropout. If the new pooling is attention
        and the old one is not, it begins as the mean. In the opposite case attention is left out.

    Raises
    ------
    ValueError
        If embeddings of the new settings have another size, for which the head has no weights.
    """
    encoder, weights = encoder_from_state(state, encoder_dropouts)
    with torch.random.fork_rng(devices=[]):  # the head's first weights are drawn, then replaced
        network = LongBertNetwork(encoder, **{**state["settings"], **settings})
    wanted = network.state_dict()
    first = "head.weight" if network.hidden_layer is None else "transform.0.weight"
    if wanted[first].shape != weights[first].shape:
        raise ValueError(
            f"warm_start=True goes on from weights for embeddings of size "
            f"{weights[first].shape[1]}, but those of layers={network.layers} and "
            f"token_pooling={network.token_pooling!r} have the size {network.embedding_size}: "
            f"leave both as they were, or set warm_start=False."
        )
    attention = {name: value for name, value in wanted.items() if name.startswith("attention.")}
    known = {name: value for name, value in weights.items() if name in wanted}
    network.load_state_dict({**attention, **known}, assign=True)
    network.shares_memory = True  # by a file, or by the network that the state was taken from
    if network.layers == state["settings"]["layers"]:
        network.quantized = quantized_from_state(state)
    return network
