"""Random numbers that depend on where training is, not on how it got there.

Samples and dropout masks are drawn for fixed blocks of steps. Each block has a generator of its
own, seeded by (seed, purpose, block), so that training in ranges of any size, or resumed anywhere,
sees the same numbers, and the step counter is all that a checkpoint must hold.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


def generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator on ``device`` whose stream is a function of ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    # 32 bits: the CPU's Mersenne Twister looks at no more of its seed
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


@dataclass(frozen=True, slots=True)
class DropoutMasks:
    """Masks of inverted dropout (Srivastava et al. 2014): 0 with probability p, else 1/(1−p).

    ``places`` are (width, p) of each vector that dropout may touch; ``rows`` vectors a step.
    """

    places: tuple[tuple[int, float], ...]
    rows: int
    seed: int

    @property
    def numbers(self) -> int:
        """How many are drawn for one step."""
        return self.rows * sum(width for width, p in self.places if p)

    def draw(
        self, block: int, steps: int, device: torch.device, dtype: torch.dtype
    ) -> list[Tensor | None]:
        """Masks [steps, rows, width] for each place, None where p is 0; the same for a block."""
        source = generator(device, self.seed, "dropout", block)
        masks: list[Tensor | None] = []
        for width, p in self.places:
            if p:
                drawn = torch.rand(steps, self.rows, width, generator=source, device=device)
                masks.append(torch.ge(drawn, p, out=drawn).mul_(1 / (1 - p)).to(dtype))
            else:
                masks.append(None)
        return masks


def blocks(begin: int, end: int, size: int) -> list[tuple[int, int, int]]:
    """Cut steps begin…end−1 at multiples of ``size``: (block, first step, step after the last)."""
    cuts = [begin, *range(begin - begin % size + size, end, size), end]
    return [(a // size, a, b) for a, b in pairwise(cuts) if a < b]
