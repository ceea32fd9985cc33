"""Attention within rows: causal softmax (SASRec), and HSTU's pointwise kind without a softmax."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.parts.packing import Layout


def to_rows(tokens: Tensor, layout: Layout, heads: int) -> Tensor:
    """[T, H·d] → [B, H, L, d]."""
    rows = layout.unpack(tokens)
    return rows.view(layout.rows, layout.width, heads, -1).transpose(1, 2)


def to_tokens(rows: Tensor, layout: Layout) -> Tensor:
    """[B, H, L, d] → [T, H·d]."""
    return layout.pack(rows.transpose(1, 2).flatten(2))


def causal_attention(
    q: Tensor, k: Tensor, v: Tensor, layout: Layout, heads: int, dropout: float = 0.0
) -> Tensor:
    """softmax(QKᵀ/√d)·V over tokens [T, H·d], each seeing its row up to itself.

    Rows are padded on the right, where causality hides the padding: no mask is needed.
    """
    seen = []
    for _, tokens, group in layout.groups:
        query, key, value = (to_rows(x[tokens], group, heads) for x in (q, k, v))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, dropout_p=dropout)
        seen.append(to_tokens(out, group))
    return seen[0] if len(seen) == 1 else torch.cat(seen)


def pointwise_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, weight: Tensor
) -> Tensor:
    """(SiLU(QKᵀ + bias) ⊙ weight)·V for rows [B, H, L, d] (HSTU, arXiv 2402.17152, eq. 2).

    ``weight`` [L, L] is the causal mask over the normaliser. It comes after the SiLU: a masked
    key must count for exactly zero, and SiLU has no value that −inf would reach.
    """
    scores = q @ k.transpose(2, 3)
    if bias is not None:
        scores = scores + bias
    return (F.silu(scores) * weight) @ v


def causal_weight(width: int, normaliser: str, max_length: int, device: torch.device) -> Tensor:
    """[L, L]: 1/N on and below the diagonal. N is ``max_length`` ("max"; not the row's own
    length, which would tell a token how many follow it), or what the query sees ("visible")."""
    ones = torch.ones(width, width, device=device).tril()
    if normaliser == "visible":
        return ones / torch.arange(1, width + 1, device=device)[:, None]
    return ones / max_length
