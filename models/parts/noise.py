"""Random numbers that depend on where training is, not on how it got there.

Samples and dropout masks are drawn for fixed blocks of steps. Each block has a generator of its
own, seeded by (seed, purpose, block), so that training in ranges of any size, or resumed anywhere,
sees the same numbers, and the step counter is all that a checkpoint must hold.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch
from torch import Tensor


def generator(device: torch.device, *key: int | str) -> torch.Generator:
    """A generator on ``device`` whose stream is a function of ``key`` alone."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=4).digest()
    # 32 bits: the CPU's Mersenne Twister looks at no more of its seed
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "little"))


def dropout_masks(
    shape: tuple[int, ...], p: float, source: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Masks of inverted dropout (Srivastava et al. 2014): 0 with probability p, else 1/(1−p)."""
    masks = torch.rand(shape, generator=source, device=source.device)
    return torch.ge(masks, p, out=masks).mul_(1 / (1 - p)).to(dtype)


def blocks(begin: int, end: int, size: int) -> list[tuple[int, int, int]]:
    """Cut steps begin…end−1 at multiples of ``size``: (block, first step, step after the last)."""
    cuts = [begin, *range(begin - begin % size + size, end, size), end]
    return [(a // size, a, b) for a, b in pairwise(cuts) if a < b]
