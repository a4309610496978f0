"""Attention inside each of several chunks that follow one another without padding.

transformers lets an attention function be registered by a name. Ours takes the lengths of packed
chunks in place of a mask. Without lengths it calls transformers' own function for padded rows.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sklearn_longbert._encoding.dropout import ChunkRandomness, keep_elements, masked_scale

NAME = "sklearn_longbert"

BLOCK_BYTES = 2**20  # about the size of a core's own cache

Tokens = tuple[Tensor, ...]  # query, key and value


@dataclass(frozen=True)
class PackedChunks:
    """Positions of the chunks among the packed tokens.

    Attributes
    ----------
    lengths : list of int, of length n_chunks
    device : torch.device
    randomness : ChunkRandomness
        Source of the dropout masks of attention weights.
    """

    lengths: list[int]
    device: torch.device
    randomness: ChunkRandomness

    @cached_property
    def bounds(self) -> Tensor:
        """First token of each chunk and the end of the last, of shape (n_chunks + 1,)."""
        bounds = np.concatenate([[0], np.cumsum(self.lengths)])
        return torch.from_numpy(bounds.astype(np.int32)).to(self.device)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    packed_chunks: PackedChunks | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to the real tokens of the same row or, where they are packed, of the same chunk.

    Parameters
    ----------
    module : nn.Module
    query, key, value : Tensor of shape (n_rows, n_heads, length, head_size)
        Packed chunks are one row.
    attention_mask : Tensor or None
        Ignored if packed.
    dropout : float
        Probability with which attention weights are dropped.
    scaling : float
    packed_chunks : PackedChunks or None

    Returns
    -------
    output : Tensor of shape (n_rows, length, n_heads, head_size)
    None : in the place of the attention weights that other functions return
    """
    if packed_chunks is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    tokens = tuple(tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if dropout:
        output = _attend_and_drop(tokens, packed_chunks, scaling, dropout)
    elif query.is_cuda:
        output = _attend_in_kernel(tokens, packed_chunks, scaling)
    else:
        output = _attend_in_turn(tokens, packed_chunks, scaling)
    return output.unsqueeze(0), None


# Each of these functions takes query, key and value, and returns a tensor of shape
# (n_tokens, n_heads, head_size).


def _attend_in_turn(tokens: Tokens, chunks: PackedChunks, scaling: float) -> Tensor:
    """Call an attention kernel for each run of chunks of equal length.

    In bfloat16 on a CPU, torch's kernel computes in float32, so matrix products are faster.
    """
    runs = [(length, len(list(run))) for length, run in groupby(chunks.lengths)]
    # The gradient of split is one concatenation; that of each slice is as large as all tokens.
    parts = [tensor.split([length * n_rows for length, n_rows in runs]) for tensor in tokens]
    outputs = []
    for (length, n_rows), *of_run in zip(runs, *parts, strict=True):
        query, key, value = (part.unflatten(0, (n_rows, length)).transpose(1, 2) for part in of_run)
        if query.dtype == torch.bfloat16:
            output = _BlockedAttention.apply(query, key, value, scaling)
        else:
            output = scaled_dot_product_attention(query, key, value, scale=scaling)
        outputs.append(output.transpose(1, 2).flatten(0, 1))  # (n_rows * length, n_heads, ...)
    return torch.cat(outputs)


class _BlockedAttention(torch.autograd.Function):
    """Attention by matrix products over few heads at a time, so that weights stay in the cache.

    The weights are not kept but computed again in the backward pass, as in flash attention (Dao
    et al., 2022, https://arxiv.org/abs/2205.14135). Here a whole head is computed at once. This is
    our own code because torch's kernel computes bfloat16 in float32 on a CPU, which is slower.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> Tensor:
        heads = [tensor.flatten(0, 1) for tensor in (query, key, value)]  # (n_heads, length, ...)
        ctx.save_for_backward(*heads)
        ctx.shape, ctx.scale = value.shape, scale
        output = torch.empty_like(heads[2])
        with torch.autocast("cpu", enabled=False):  # it would compute the softmax in float32
            for block in _blocks(heads[0]):
                query, key, value = (tensor[block] for tensor in heads)
                torch.bmm(_attention_weights(query * scale, key), value, out=output[block])
        return output.view(ctx.shape)

    @staticmethod
    def backward(ctx, gradient: Tensor):  # type: ignore[no-untyped-def]
        heads = ctx.saved_tensors
        gradients = [torch.empty_like(tensor) for tensor in heads]
        of_output = gradient.flatten(0, 1)
        for block in _blocks(of_output):
            query, key, value, upstream = (tensor[block] for tensor in (*heads, of_output))
            of_query, of_key, of_value = (tensor[block] for tensor in gradients)
            query = query * ctx.scale
            weights = _attention_weights(query, key)
            torch.bmm(weights.transpose(1, 2), upstream, out=of_value)
            of_weights = torch.bmm(upstream, value.transpose(1, 2))
            of_scores = torch.ops.aten._softmax_backward_data(
                of_weights, weights, -1, weights.dtype
            )
            torch.bmm(of_scores.transpose(1, 2), query, out=of_key)
            torch.bmm(of_scores, key, out=of_query)
        gradients[0] *= ctx.scale
        return *(tensor.view(ctx.shape) for tensor in gradients), None


def _blocks(heads: Tensor) -> list[slice]:
    """Divide heads into blocks whose attention weights, in bfloat16, fit into BLOCK_BYTES."""
    n_heads, length, _ = heads.shape
    step = max(BLOCK_BYTES // (2 * length**2), 1)
    return [slice(start, start + step) for start in range(0, n_heads, step)]


def _attention_weights(scaled_query: Tensor, key: Tensor) -> Tensor:
    return torch.bmm(scaled_query, key.transpose(1, 2)).softmax(-1)


def _attend_in_kernel(tokens: Tokens, chunks: PackedChunks, scaling: float) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    longest = max(chunks.lengths)
    query, key, value = tokens
    own_scaling = query.shape[-1] ** -0.5
    if scaling != own_scaling:  # the kernel of torch 2.10 takes no other
        query = query * (scaling / own_scaling)
    output = varlen_attn(query, key, value, chunks.bounds, chunks.bounds, longest, longest)
    assert isinstance(output, Tensor)  # it is a tuple only if more is asked for
    return output


def _attend_and_drop(
    tokens: Tokens, chunks: PackedChunks, scaling: float, dropout: float
) -> Tensor:
    """Attend with dropout of the attention weights, which the fused kernels never hold."""
    assert chunks.randomness.keys is not None
    keys = chunks.randomness.keys[0].split(chunks.lengths)
    layer = chunks.randomness.next_layer()
    outputs = []
    for of_chunk, *parts in zip(keys, *(t.split(chunks.lengths) for t in tokens), strict=True):
        query, key, value = (part.transpose(0, 1) for part in parts)  # (n_heads, length, ...)
        weights = (query * scaling @ key.transpose(1, 2)).softmax(-1).to(value.dtype)
        shape = (weights.shape[0], 1, weights.shape[2])
        keep = keep_elements(of_chunk[:, None], layer, shape, dropout)
        outputs.append((masked_scale(weights, keep, 1 / (1 - dropout)) @ value).transpose(0, 1))
    return torch.cat(outputs)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)


def prepare_packing(encoder: PreTrainedModel) -> None:
    """Make `encoder` call :func:`attention`, if its attention can be chosen and is not local."""
    chosen = encoder.config._attn_implementation
    is_local = any(getattr(layer, "sliding_window", None) for layer in encoder.modules())
    if encoder._supports_attention_backend and chosen == "sdpa" and not is_local:
        encoder.set_attn_implementation(NAME)


def can_pack(encoder: PreTrainedModel, device: torch.device) -> bool:
    """Return whether chunks may be packed; the kernel on CUDA takes half precision only."""
    if encoder.config._attn_implementation != NAME:
        return False
    if device.type == "cuda":
        return torch.is_autocast_enabled("cuda")
    return device.type == "cpu"
