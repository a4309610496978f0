"""Poolings: from hidden states to chunk embeddings, from chunk logits to document logits."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn

ATTENTION_SIZE = 128  # as in Ilse et al.


def mean_tokens(hidden_states: Tensor, lengths: list[int]) -> Tensor:
    """Return the mean over the tokens of each chunk, special tokens included."""
    return torch.stack([chunk.mean(0) for chunk in hidden_states.split(lengths)])


def first_token(hidden_states: Tensor, lengths: list[int]) -> Tensor:
    """Return the hidden state of the first token of each chunk, which BERT calls [CLS]."""
    return torch.stack([chunk[0] for chunk in hidden_states.split(lengths)])


def max_tokens(hidden_states: Tensor, lengths: list[int]) -> Tensor:
    """Return the maximum of each column over the tokens of each chunk, special tokens included."""
    # The values of `max` keep the winners for the backward pass; `amax` would keep all tokens.
    return torch.stack([chunk.max(0).values for chunk in hidden_states.split(lengths)])


# The parts of an embedding by name. Each function maps hidden states, of shape
# (n_tokens, hidden_size), and the number of tokens of each chunk to the part, of shape
# (n_chunks, hidden_size).
TOKEN_POOLINGS: dict[str, dict[str, Callable[[Tensor, list[int]], Tensor]]] = {
    "mean": {"mean": mean_tokens},
    "max": {"max": max_tokens},
    "mean_max": {"mean": mean_tokens, "max": max_tokens},
    "cls": {"cls": first_token},
}
EMBEDDING_CONSTRAINTS: dict[str, list[Any]] = {
    "token_pooling": [StrOptions({"auto", *TOKEN_POOLINGS})],
    "layers": [StrOptions({"last", "spread"}), tuple],  # see hidden_states.layer_numbers
}


def pool_tokens(hidden_states: Tensor, lengths: list[int], token_pooling: str) -> Tensor:
    """Pool the hidden states of each chunk, and return the parts of its embedding side by side.

    Parameters
    ----------
    hidden_states : Tensor of shape (n_tokens, hidden_size)
    lengths : list of int
        Number of tokens of each chunk.
    token_pooling : {"mean", "max", "mean_max", "cls"}

    Returns
    -------
    embeddings : Tensor of shape (n_chunks, n_parts * hidden_size)
    """
    parts = TOKEN_POOLINGS[token_pooling].values()
    return torch.cat([part(hidden_states, lengths) for part in parts], dim=1)


@dataclass(frozen=True)
class Pooling:
    """A rule by which outputs of chunks become document logits, with the share of each chunk.

    Both functions take outputs of shape (..., n_chunks, n_columns): those of one document, or of
    several documents that have equally many chunks.

    Attributes
    ----------
    pool : callable
        Maps outputs to the document logits, of shape (..., n_outputs).
    shares : callable
        Maps outputs to the share of each chunk, of shape (..., n_chunks, n_outputs). A share is
        the derivative of a document logit by a chunk logit. Over the chunks, shares add up to 1.
    adds_up : bool
        Whether the document logits are the sum of shares times chunk logits.
    begins_as_mean : bool
        Whether a new network's document logits are those of the mean embedding of the chunks.
    scores : bool
        Whether the last column of the outputs holds scores of the chunks and not logits.
    smooth : Pooling or None
        A smooth pooling, whose fitted minimum is where a fit of this pooling starts.
    """

    pool: Callable[[Tensor], Tensor]
    shares: Callable[[Tensor], Tensor]
    adds_up: bool = True
    begins_as_mean: bool = False
    scores: bool = False
    smooth: "Pooling | None" = None


def _mean(outputs: Tensor) -> Tensor:
    return outputs.mean(-2)  # (..., n_outputs)


def _equal_shares(outputs: Tensor) -> Tensor:
    return torch.full_like(outputs, 1 / outputs.shape[-2])


def _max(outputs: Tensor) -> Tensor:
    return outputs.amax(-2)  # (..., n_outputs)


def _share_of_the_first_largest(outputs: Tensor) -> Tensor:
    winners = outputs.argmax(-2, keepdim=True)
    return torch.zeros_like(outputs).scatter(-2, winners, 1.0)


def _logsumexp(outputs: Tensor) -> Tensor:
    """Return the logarithm of the mean exponential: K equal chunks have the logits of one."""
    return outputs.logsumexp(-2) - math.log(outputs.shape[-2])  # (..., n_outputs)


def _exponential_shares(outputs: Tensor) -> Tensor:
    return outputs.softmax(-2)


def _attend(outputs: Tensor) -> Tensor:
    """Return the sum of the chunk logits, weighted by the softmax of the last column's scores."""
    weights = outputs[..., -1:].softmax(-2)  # (..., n_chunks, 1)
    return (weights * outputs[..., :-1]).sum(-2)  # (..., n_outputs)


def _attention_shares(outputs: Tensor) -> Tensor:
    return outputs[..., -1:].softmax(-2).expand_as(outputs[..., :-1])


_LOGSUMEXP = Pooling(_logsumexp, _exponential_shares, adds_up=False)
POOLINGS = {
    "mean": Pooling(_mean, _equal_shares, begins_as_mean=True),
    "max": Pooling(_max, _share_of_the_first_largest, smooth=_LOGSUMEXP),
    "logsumexp": _LOGSUMEXP,
    "attention": Pooling(_attend, _attention_shares, begins_as_mean=True, scores=True),
}


class GatedAttention(nn.Module):
    """Score chunks by learned features of their embeddings, gated by other learned features.

    The first scores are all zero, so that the attention begins as the mean.

    Parameters
    ----------
    size : int
        Size of an embedding.
    dtype : torch.dtype

    References
    ----------
    Ilse, Tomczak and Welling (2018). Attention-based deep multiple instance learning. ICML.
    https://arxiv.org/abs/1802.04712
    """

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.value = nn.Linear(size, ATTENTION_SIZE, dtype=dtype)
        self.gate = nn.Linear(size, ATTENTION_SIZE, dtype=dtype)
        self.score = nn.Linear(ATTENTION_SIZE, 1, bias=False, dtype=dtype)
        nn.init.zeros_(self.score.weight)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the scores, of shape (n_chunks, 1)."""
        return self.score(self.value(embeddings).tanh() * self.gate(embeddings).sigmoid())


def pool_documents(chunk_outputs: Tensor, chunk_counts: Sequence[int], pooling: str) -> Tensor:
    """Pool the chunk logits of each document into the document's logits.

    Parameters
    ----------
    chunk_outputs : Tensor of shape (n_chunks, n_outputs), or (n_chunks, n_outputs + 1)
        The chunks of the first document, then those of the second, and so on. For "attention",
        the last column holds scores.
    chunk_counts : sequence of int, of length n_documents
        How many chunks each document has, at least one.
    pooling : {"mean", "max", "logsumexp", "attention"}

    Returns
    -------
    logits : Tensor of shape (n_documents, n_outputs)
    """
    # A loop, because scatter operations would make a GPU's sums differ from run to run.
    pool = POOLINGS[pooling].pool
    return torch.stack([pool(rows) for rows in chunk_outputs.split(list(chunk_counts))])
