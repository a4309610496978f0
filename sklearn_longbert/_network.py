"""The network: encoder, token pooling, head, pooling.

Its two halves, :meth:`LongBertNetwork.encode` and :meth:`LongBertNetwork.head_and_pool`, meet
at the chunk embeddings: whatever groups chunks into micro-batches does so between them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from sklearn_longbert._pooling import TOKEN_POOLINGS, pool_documents
from sklearn_longbert._pretrained import rebuild_encoder


class LongBertNetwork(nn.Module):
    """Give every chunk its logits, and pool them into one vector of logits a document.

    Parameters
    ----------
    encoder : transformers.PreTrainedModel
    n_outputs : int
        Logits of a document.
    pooling : {"mean", "max"}
        Chunk logits to document logits.
    token_pooling : {"mean", "cls"}
        Hidden states to chunk embedding.
    dropout : float
        Probability with which the head's inputs are dropped in training.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        n_outputs: int,
        pooling: str,
        token_pooling: str,
        dropout: float,
    ) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(config.hidden_size, n_outputs, dtype=next(encoder.parameters()).dtype)
        nn.init.normal_(self.head.weight, std=getattr(config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)
        self.pooling = pooling
        self.token_pooling = token_pooling

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the chunk embeddings, of shape (n_rows, hidden_size).

        Parameters
        ----------
        input_ids, attention_mask : Tensor of shape (n_rows, length)
        """
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden_states = output.last_hidden_state  # (n_rows, length, hidden_size)
        hidden_states = hidden_states.to(self.head.weight.dtype)  # autocast may have narrowed it
        return TOKEN_POOLINGS[self.token_pooling](hidden_states, attention_mask)

    def head_and_pool(self, embeddings: Tensor, chunk_counts: Sequence[int]) -> Tensor:
        """Return the document logits, of shape (n_documents, n_outputs).

        Parameters
        ----------
        embeddings : Tensor of shape (n_chunks, hidden_size)
            In the order of the documents.
        chunk_counts : sequence of int, of length n_documents
        """
        chunk_logits = self.head(self.dropout(embeddings))  # (n_chunks, n_outputs)
        return pool_documents(chunk_logits, chunk_counts, self.pooling)


def network_state(network: LongBertNetwork) -> dict[str, Any]:
    """Return what :func:`network_from_state` needs to make an equal network."""
    return {
        "config": network.encoder.config,
        "settings": {
            "n_outputs": network.head.out_features,
            "pooling": network.pooling,
            "token_pooling": network.token_pooling,
            "dropout": network.dropout.p,
        },
        "weights": {
            name: weight.detach().cpu().numpy() for name, weight in network.state_dict().items()
        },
    }


def network_from_state(
    state: dict[str, Any], encoder_dropouts: tuple[float, float] | None = None, **settings: Any
) -> LongBertNetwork:
    """Make a network from its state, on the CPU, asking nobody for weights.

    Parameters
    ----------
    state : dict
        As :func:`network_state` returns it.
    encoder_dropouts : tuple of float, default=None
        New dropout and attention_dropout of the encoder.
    **settings : Any
        New settings of the network: pooling, token_pooling, dropout.
    """
    weights = {name: torch.tensor(weight) for name, weight in state["weights"].items()}
    encoder = rebuild_encoder(state["config"], encoder_dropouts)
    encoder.to(next(iter(weights.values())).dtype)
    with torch.random.fork_rng(devices=[]):  # the head's first weights are drawn, then replaced
        network = LongBertNetwork(encoder, **{**state["settings"], **settings})
    network.load_state_dict(weights)
    return network
