"""Extra negatives for sampled losses, drawn by popularity (arXiv 1706.03847, section 3)."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from models.parts.noise import generator


class Negatives(Protocol):
    """Where a model takes its extra negatives from."""

    def draw(self, block: int, steps: int, device: torch.device) -> Tensor:
        """Item ids [steps, n_sample] int64 on ``device``; the same for the same block."""
        ...


class PopularityNegatives:
    """Draws with replacement, with probability ∝ support^alpha (1: popularity, 0: uniform).

    The inverse CDF is searched in float64: float32 has too few steps for a million items.
    """

    def __init__(self, support: Tensor, alpha: float, n_sample: int, seed: int) -> None:
        weights = support.to(torch.float64).pow(alpha)
        self.cdf = (weights.cumsum(0) / weights.sum()).contiguous()
        self.n_sample = n_sample
        self.seed = seed

    def draw(self, block: int, steps: int, device: torch.device) -> Tensor:
        self.cdf = self.cdf.to(device)
        source = generator(device, self.seed, "negatives", block)
        uniform = torch.rand(
            steps, self.n_sample, generator=source, device=device, dtype=torch.float64
        )
        # the CDF may end a rounding below 1
        return torch.searchsorted(self.cdf, uniform, right=True).clamp_(max=len(self.cdf) - 1)
