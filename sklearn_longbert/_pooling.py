"""Poolings: from hidden states to chunk embeddings, from chunk logits to document logits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


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


# From hidden states, of shape (n_tokens, hidden_size), and how many tokens each chunk has, to
# embeddings, of shape (n_chunks, hidden_size).
TOKEN_POOLINGS: dict[str, Callable[[Tensor, list[int]], Tensor]] = {
    "mean": mean_tokens,
    "cls": first_token,
}
POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {"mean": mean_chunks, "max": max_chunks}


def pool_documents(chunk_logits: Tensor, chunk_counts: Sequence[int], pooling: str) -> Tensor:
    """Pool the chunk logits of each document into the document's logits.

    Parameters
    ----------
    chunk_logits : Tensor of shape (n_chunks, n_outputs)
        The chunks of the first document, then those of the second, and so on.
    chunk_counts : sequence of int, of length n_documents
        How many chunks each document has, at least one.
    pooling : {"mean", "max"}

    Returns
    -------
    logits : Tensor of shape (n_documents, n_outputs)
    """
    # A loop, because scatter operations would make a GPU's sums differ from run to run.
    pool = POOLINGS[pooling]
    return torch.stack([pool(rows) for rows in chunk_logits.split(list(chunk_counts))])
