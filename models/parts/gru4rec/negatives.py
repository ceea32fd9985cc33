"""Extra negatives for sampled losses, drawn by popularity (arXiv 1706.03847, section 3)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.parts.gru4rec.seeded_random import generator


class Negatives(Protocol):
    """Where a model takes its extra negatives from."""

    def draw(self, block: int, steps: int, device: torch.device) -> Tensor:
        """Item ids [steps, n_sample] int64 on ``device``; the same for the same block."""
        ...


class PopularityNegatives:
    """Draws with replacement, with probability ∝ support^alpha (1: popularity, 0: uniform).

    By the alias method (Walker 1977): place i of n is taken with chance ``keep[i]``, else its
    ``alias[i]``; two reads per draw, where a search in a CDF makes log n that no cache expects.
    """

    def __init__(self, support: Tensor, alpha: float, n_sample: int, seed: int) -> None:
        self.keep, self.alias = alias_table(support.to(torch.float64).pow(alpha))
        self.n_sample = n_sample
        self.seed = seed

    def draw(self, block: int, steps: int, device: torch.device) -> Tensor:
        self.keep, self.alias = self.keep.to(device), self.alias.to(device)
        source = generator(device, self.seed, "negatives", block)
        # float64: what is left of 53 bits after the place decides between place and alias
        drawn = torch.rand(
            steps, self.n_sample, generator=source, device=device, dtype=torch.float64
        ).mul_(len(self.keep))
        place = drawn.long().clamp_(max=len(self.keep) - 1)
        return torch.where(drawn.sub_(place) < self.keep[place], place, self.alias[place])


def alias_table(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Walker's table for ``weights`` [n] float64, without a loop: keep [n], alias [n].

    Scaled to mean 1, small weights have deficits and large ones excesses. Smalls are filled up in
    order, each from the first large that is not used up; a large that a small uses up is itself
    short of what it gave too much, and takes that from the next large. Where that happens follows
    from the running sums of deficits and excesses (Hübschle-Schneider and Sanders 2019, section
    4).
    """
    scaled = weights * (len(weights) / weights.sum())
    keep, alias = torch.ones_like(scaled), torch.arange(len(scaled), device=scaled.device)
    small, large = (scaled < 1).nonzero().squeeze(1), (scaled >= 1).nonzero().squeeze(1)
    missing, spare = (1 - scaled[small]).cumsum(0), (scaled[large] - 1).cumsum(0)
    if len(small) == 0 or len(large) == 0:  # all alike, but for rounding
        return keep, alias
    before = torch.cat([missing.new_zeros(1), missing[:-1]])
    giver = torch.searchsorted(spare, before).clamp_(max=len(large) - 1)
    keep[small], alias[small] = scaled[small], large[giver]
    emptier = torch.searchsorted(missing, spare, right=True)[:-1]
    emptied = emptier < len(small)
    at = large[:-1][emptied]
    keep[at] = (1 + spare[:-1][emptied] - missing[emptier[emptied]]).clamp_(0, 1)
    alias[at] = large[1:][emptied]
    return keep, alias
