"""SASRec's scores and the retriever's as one, without holding either.

Both are products of a vector and a table, so a weighted sum of them is one as well:
[a·h; b·r]·[E; T]ᵀ. Of log-probabilities a = w and b = 1 − w: what they are short by, their
log-sum-exps, is the same for all items of a row. Of scores of unit variance over the catalogue
a = w/σ_S and b = (1 − w)/σ_R, with σ² = vᵀ·Cov(table)·v.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.parts.transformer.blocks import linear

SHARPNESS = 3.0  # that training of z-scores begins with: they are no log-probabilities


class Fusion(nn.Module):
    """``kind`` "weighted" (a constant), "learned" (w = σ(θ)) or "adaptive" (w from h and r)."""

    def __init__(self, kind: str, weight: float, scale: str, dim: int) -> None:
        super().__init__()
        self.kind, self.constant, self.scale = kind, weight, scale
        inside = min(max(weight, 0.01), 0.99)
        start = math.log(inside / (1 - inside))
        if kind == "learned":
            self.theta = nn.Parameter(torch.tensor(start))
        if kind == "adaptive":
            last = linear(dim, 1)
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, start)
            self.mlp = nn.Sequential(linear(2 * dim, dim), nn.GELU(), last)
        if scale == "z-score":
            self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))

    @property
    def learns(self) -> bool:
        """Whether it has anything to learn."""
        return self.kind != "weighted"

    def weight(self, h: Tensor, r: Tensor) -> Tensor:
        """SASRec's part for each row [R, 1]; ``h`` and ``r`` [R, d]."""
        if self.kind == "learned":
            return torch.sigmoid(self.theta).expand(len(h), 1)
        if self.kind == "adaptive":
            return torch.sigmoid(self.mlp(torch.cat((h, r), 1).float()))
        return h.new_full((len(h), 1), self.constant)

    def forward(self, h: Tensor, items: Tensor, r: Tensor, texts: Tensor, weight: Tensor) -> Tensor:
        """Vectors [R, 2d] for the table [N, 2d] of ``items`` beside ``texts``; ``h``·``items`` and
        ``r``·``texts`` are logits."""
        first, second = h * weight, r * (1 - weight)
        if self.scale == "z-score":
            first, second = first / deviation(h, items), second / deviation(r, texts)
            sharpness = self.log_sharpness.exp()
            first, second = first * sharpness, second * sharpness
        return torch.cat((first, second), 1)


def deviation(vectors: Tensor, table: Tensor) -> Tensor:
    """The standard deviation of each row's scores over the table [R, 1], for a product of d × d."""
    centred = table.float() - table.float().mean(0)
    variance = ((vectors.float() @ (centred.T @ centred / len(table))) * vectors.float()).sum(1)
    return variance.clamp(min=1e-12).sqrt()[:, None]


def fuse(sasrec: Tensor, retriever: Tensor, weight: Tensor, scale: str) -> Tensor:
    """The same of scores that are held [R, C], over the C candidates of each row."""
    if scale == "z-score":
        parts = [
            (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-6)
            for x in (sasrec, retriever)
        ]
    else:
        parts = [torch.log_softmax(x, 1) for x in (sasrec, retriever)]
    return weight * parts[0] + (1 - weight) * parts[1]
