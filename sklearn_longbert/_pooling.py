"""Poolings: from hidden states to chunk embeddings, from chunk logits to document logits."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def mean_tokens(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """Mean over the real tokens of each chunk, special tokens among them, not over padding."""
    mask = attention_mask.unsqueeze(-1).to(hidden_states.dtype)  # (n_rows, length, 1)
    return (hidden_states * mask).sum(1) / mask.sum(1)  # (n_rows, hidden_size)


def first_token(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """The hidden state of the first token, which BERT calls [CLS]."""
    return hidden_states[:, 0]  # (n_rows, hidden_size)


def mean_chunks(chunk_logits: Tensor) -> Tensor:
    return chunk_logits.mean(0)  # (n_outputs,)


def max_chunks(chunk_logits: Tensor) -> Tensor:
    return chunk_logits.amax(0)  # (n_outputs,)


TOKEN_POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
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
