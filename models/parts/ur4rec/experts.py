"""Experts with cross-attention, and the router that mixes them.

    q' = q + MHA_k(q, C_k, C_k),  o_k = q' + FFN_k(LN q')
    w = softmax(W₂ GELU(W₁ LN[q; pool C_pref; pool C_desc; pool C_item]) / T),  m = Σ w_k o_k

An expert whose context is empty gives q, and the router's logit for it is −∞.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.transformer.blocks import FeedForward, LayerNorm, linear
from models.parts.transformer.dropout import Dropout
from models.parts.ur4rec.attention import FewKeys


@dataclass(frozen=True)
class Context:
    """What one expert reads: rows of a small ``table`` [n, d], which each of R queries' rows picks
    by ``index`` [R, K], where ``there`` [R, K]."""

    table: Tensor
    index: Tensor
    there: Tensor

    def pool(self) -> Tensor:
        """The mean of each row's context [R, d]; zeros where it is empty."""
        count = self.there.sum(1, keepdim=True).clamp(min=1)
        return (
            F.embedding_bag(
                self.index,
                self.table,
                mode="sum",
                per_sample_weights=self.there.to(self.table.dtype),
            )
            / count
        )


class Expert(nn.Module):
    """One context's expert. Queries [R, C, d] in and out."""

    def __init__(self, dim: int, heads: int, hidden: int, dropout: float, single: bool) -> None:
        super().__init__()
        self.single = single  # contexts of one key, which needs no weighing
        self.attention = FewKeys(dim, heads)
        self.norm, self.feed = LayerNorm(dim), FeedForward(dim, hidden, "gelu", dropout)
        self.drop = Dropout(dropout)

    def forward(self, q: Tensor, context: Context) -> Tensor:
        kv = F.embedding(context.index, self.attention.key_value(context.table))
        if self.single:
            seen = self.attention.of_one_key(kv)
        else:
            seen = self.attention(q, kv, context.there)
        x = q + self.drop(seen)
        out = x + self.drop(self.feed(self.norm(x)))
        return torch.where(context.there.any(1)[:, None, None], out, q)


class Mixture(nn.Module):
    """The experts by name, and their router (``routed``) or plain average."""

    def __init__(
        self,
        names: Sequence[str],
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
        routed: bool,
        temperature: float,
    ) -> None:
        super().__init__()
        self.names, self.temperature = list(names), temperature
        self.experts = nn.ModuleDict(
            {name: Expert(dim, heads, hidden, dropout, name == "preference") for name in names}
        )
        self.router: nn.Module | None = None
        if routed and len(self.names) > 1:
            inputs = dim * (1 + len(self.names))
            self.router = nn.Sequential(
                LayerNorm(inputs), linear(inputs, dim), nn.GELU(), linear(dim, len(self.names))
            )

    def forward(self, q: Tensor, contexts: Mapping[str, Context]) -> tuple[Tensor, Tensor]:
        """Mixed [R, C, d], and the weights [R, C, experts]; q itself without any expert."""
        if not self.names:
            return q, q.new_zeros(*q.shape[:2], 0)
        given = [contexts[name] for name in self.names]
        outputs = torch.stack([self.experts[n](q, contexts[n]) for n in self.names], 2)
        there = torch.stack([context.there.any(1) for context in given], 1)
        weights = self._weights(q, given, there)
        return (weights[..., None] * outputs).sum(2), weights

    def _weights(self, q: Tensor, given: Sequence[Context], there: Tensor) -> Tensor:
        if self.router is None:
            logits = q.new_zeros(*q.shape[:2], len(self.names))
        else:
            pools = [context.pool()[:, None].expand_as(q) for context in given]
            logits = self.router(torch.cat((q, *pools), -1)).float() / self.temperature
        # where no expert has a context all give q, and any weights will do
        empty = there.any(1, keepdim=True) & ~there
        weights = torch.softmax(logits.masked_fill(empty[:, None], -math.inf), -1)
        return weights.to(q.dtype)
