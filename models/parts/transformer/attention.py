"""Causal softmax attention within rows (SASRec); HSTU's is in pointwise.py."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.kernels.library import Kernels, kernels
from models.parts.transformer.unpadding import Unpadding

LONGEST = 1024  # of sequences whose triangle of scores fits in a cache


def to_rows(tokens: Tensor, layout: Unpadding, heads: int) -> Tensor:
    """[T, H·d] → [B, H, L, d]."""
    rows = layout.unpack(tokens)
    return rows.view(layout.rows, layout.width, heads, -1).transpose(1, 2)


def to_tokens(rows: Tensor, layout: Unpadding) -> Tensor:
    """[B, H, L, d] → [T, H·d]."""
    return layout.pack(rows.transpose(1, 2).flatten(2))


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Unpadding, heads: int, dropout: float = 0.0
) -> Tensor:
    """softmax(QKᵀ/√d)·V over tokens [T, H·d], each seeing its row up to itself.

    Rows are padded on the right, where causality hides the padding: no mask is needed. On a CPU
    with kernels of its own nothing is padded.
    """
    own = not (dropout or layout.plain)
    native = kernels() if own and Kernels.take(*(x[:, :0] for x in (q, k, v))) else None
    long_enough = native is not None and q.shape[1] // heads >= native.shortest_row
    if native is not None and long_enough and layout.width <= LONGEST:
        found: Tensor = _Causal.apply(q, k, v, layout, heads, native)
        return found
    seen = []
    for _, tokens, group in layout.groups:
        query, key, value = (to_rows(x[tokens], group, heads) for x in (q, k, v))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        seen.append(to_tokens(out, group))
    return seen[0] if len(seen) == 1 else torch.cat(seen)


class _Causal(Function):
    """The same on tokens, forwards and backwards by :mod:`models.kernels.library`."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Unpadding, heads: int, native: Kernels
    ) -> Tensor:
        ctx.how = layout.bounds, layout.width, heads, (q.shape[1] // heads) ** -0.5
        ctx.native = native
        q, k, v = (x if x.stride(1) == 1 else x.contiguous() for x in (q, k, v))
        out, log_sums = native.attention(q, k, v, *ctx.how)
        ctx.save_for_backward(log_sums, q, k, v)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found = ctx.native.attention_backward(grads[0].contiguous(), *ctx.saved_tensors, *ctx.how)
        return (*found, None, None, None)
