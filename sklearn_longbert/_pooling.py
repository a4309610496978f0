"""Poolings: from hidden states to chunk embeddings, from chunk logits to document logits."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ATTENTION_SIZE = 128  # as in Ilse et al.


def mean_tokens(hidden_states: Tensor, lengths: list[int]) -> Tensor:
    """Mean over the tokens of each chunk, special tokens among them."""
    return torch.stack([chunk.mean(0) for chunk in hidden_states.split(lengths)])


def first_token(hidden_states: Tensor, lengths: list[int]) -> Tensor:
    """The hidden state of the first token of each chunk, which BERT calls [CLS]."""
    return torch.stack([chunk[0] for chunk in hidden_states.split(lengths)])


def mean_chunks(chunk_logits: Tensor) -> Tensor:
    return chunk_logits.mean(0)  # (n_outputs,)


def max_chunks(chunk_logits: Tensor) -> Tensor:
    return chunk_logits.amax(0)  # (n_outputs,)


def logsumexp_chunks(chunk_logits: Tensor) -> Tensor:
    """Logarithm of the mean of the exponentials: K equal chunks have the logits of one."""
    return chunk_logits.logsumexp(0) - math.log(len(chunk_logits))  # (n_outputs,)


def attend_chunks(chunk_outputs: Tensor) -> Tensor:
    """Sum of the chunk logits, weighted by the softmax of the scores in the last column."""
    weights = chunk_outputs[:, -1:].softmax(0)  # (n_chunks, 1)
    return (weights * chunk_outputs[:, :-1]).sum(0)  # (n_outputs,)


# From hidden states, of shape (n_tokens, hidden_size), and how many tokens each chunk has, to
# embeddings, of shape (n_chunks, hidden_size).
TOKEN_POOLINGS: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "mean": mean_tokens,
    "cls": first_token,
}
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": mean_chunks,
    "max": max_chunks,
    "logsumexp": logsumexp_chunks,
    "attention": attend_chunks,
}
# Of these, a new network's logits of a document are those of its mean embedding.
BEGIN_AS_MEAN = {"mean", "attention"}


class GatedAttention(nn.Module):
    """Score chunks by their embeddings: a learned part of each, gated by another.

    The first scores are all zero, so that the attention begins as the mean.

    Parameters
    ----------
    size : int
        Of an embedding.
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
        The chunks of the first document, then those of the second, and so on; for "attention"
        with a last column of scores.
    chunk_counts : sequence of int, of length n_documents
        How many chunks each document has, at least one.
    pooling : {"mean", "max", "logsumexp", "attention"}

    Returns
    -------
    logits : Tensor of shape (n_documents, n_outputs)
    """
    # A loop, because scatter operations would make a GPU's sums differ from run to run.
    pool = POOLINGS[pooling]
    return torch.stack([pool(rows) for rows in chunk_outputs.split(list(chunk_counts))])
