"""A tower: a Transformer that sees its whole stretch, from events to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.long_short.stretches import Tokens
from models.parts.transformer.attention import to_rows, to_tokens
from models.parts.transformer.blocks import SwiGLU, linear, make_norm
from models.parts.transformer.dropout import Dropout
from models.parts.transformer.moe import MoE
from models.parts.transformer.positions import rotate
from models.parts.transformer.unpadding import Unpadding

_BASE = 10_000.0  # of the rotary speeds (arXiv 2104.09864)


class Tower(nn.Module):
    """Events [T, dim] of stretches, [R, out] out in the order that was asked for.

    With ``pool`` "cls" a learned token stands before each stretch and its state is read; with
    "mean" the mean of all states is. The vector is not normalised.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        dim, hidden = int(params["dim"]), round(params["dim"] * params["ffn_mult"])
        self.heads, self.head_dim = int(params["heads"]), int(params["head_dim"])
        self.pool, self.turns = params["pool"], params["rotary"] == "index"
        self.first = nn.Parameter(torch.randn(1, dim) * 0.02)
        placed = params["moe_place"] if params["experts"] else "none"
        self.before = MoE.from_params(params, dim, hidden) if placed == "before" else None
        self.norm_before = make_norm("layer", dim) if self.before else None
        self.blocks = nn.ModuleList(
            Block(params, _feed(params, placed == "blocks", number))
            for number in range(int(params["depth"]))
        )
        self.norm = make_norm("layer", dim)
        self.out = linear(dim, int(params["out_dim"]))
        nn.init.xavier_uniform_(self.out.weight)
        self.drop = Dropout(params["dropout"])

    def forward(self, events: Tensor, tokens: Tokens) -> Tensor:
        if self.before is not None and self.norm_before is not None:
            events = events + self.before(self.norm_before(events))
        lengths = tokens.layout.lengths + 1
        layout = Unpadding(lengths, tokens.layout.width + 1)
        begins = layout.bounds[:-1]
        at_first = torch.zeros(layout.tokens, dtype=torch.bool, device=begins.device)
        at_first[begins] = True
        # 0 is the learned token, then come the events in their order
        number = torch.where(at_first, 0, (~at_first).cumsum(0))
        h = torch.cat([self.first.to(events.dtype), events]).index_select(0, number)
        h = self.drop(h)
        angles = self._angles(layout) if self.turns else None
        for block in self.blocks:
            h = block(h, layout, angles)
        h = self.norm(h)
        if self.pool == "mean":
            summed = h.new_zeros(layout.rows, h.shape[1]).index_add(0, layout.row, h)
            state = summed / lengths[:, None]
        else:
            state = h.index_select(0, begins)
        out: Tensor = self.out(state)
        return out[tokens.back]

    def _angles(self, layout: Unpadding) -> tuple[Tensor, Tensor]:
        pairs = self.head_dim // 2
        steps = torch.arange(pairs, device=layout.position.device, dtype=torch.float32)
        angle = layout.position[:, None, None] * _BASE ** (-steps / pairs)
        return angle.cos(), angle.sin()


def _feed(params: Mapping[str, Any], mixed: bool, number: int) -> nn.Module:
    dim, hidden = int(params["dim"]), round(params["dim"] * params["ffn_mult"])
    if mixed and (number + 1) % int(params["moe_every"]) == 0:
        return MoE.from_params(params, dim, hidden)
    return SwiGLU(dim, hidden, params["dropout"])


class Block(nn.Module):
    """Pre-norm attention that sees all of its row, and a feed-forward or a mixture, on tokens."""

    def __init__(self, params: Mapping[str, Any], feed: nn.Module) -> None:
        super().__init__()
        dim, self.heads = int(params["dim"]), int(params["heads"])
        inner = self.heads * int(params["head_dim"])
        self.query_key_value, self.merge = linear(dim, 3 * inner), linear(inner, dim)
        self.norm1, self.norm2 = (make_norm("layer", dim) for _ in range(2))
        self.feed, self.drop = feed, Dropout(params["dropout"])

    def forward(self, h: Tensor, layout: Unpadding, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        q, k, v = self.query_key_value(self.norm1(h)).chunk(3, -1)
        if angles is not None:
            q, k = (rotate(x.view(len(x), self.heads, -1), angles).flatten(1) for x in (q, k))
        h = h + self.drop(self.merge(full_attention(q, k, v, layout, self.heads)))
        out: Tensor = h + self.drop(self.feed(self.norm2(h)))
        return out


def full_attention(q: Tensor, k: Tensor, v: Tensor, layout: Unpadding, heads: int) -> Tensor:
    """softmax(QKᵀ/√d)·V over tokens [T, H·d], each seeing all of its row and no padding."""
    seen = []
    for _, tokens, group in layout.groups:
        query, key, value = (to_rows(x[tokens], group, heads) for x in (q, k, v))
        column = torch.arange(group.width, device=q.device)
        real = (column < group.lengths[:, None])[:, None, None, :]
        mask = None if group.full else real
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        seen.append(to_tokens(out, group))
    return seen[0] if len(seen) == 1 else torch.cat(seen)
