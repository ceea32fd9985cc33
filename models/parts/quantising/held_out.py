"""Which items are learned from and which are only judged by: decided by a hash of their index."""

from __future__ import annotations

from torch import Tensor

_GOLDEN, _MIX = 0x9E3779B97F4A7C15 - (1 << 64), 0xBF58476D1CE4E5B9 - (1 << 64)  # of splitmix64
_BITS = 53


def split_items(missing: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The items to learn from, and about ``share`` of them held out: indices int64 of those that
    are not ``missing`` [n]. Which they are depends on nothing but their index.
    """
    there = (~missing).nonzero()[:, 0].cpu()
    out = hashed(there) < share
    return there[~out], there[out]


def hashed(index: Tensor) -> Tensor:
    """A number in [0, 1) float64 that looks random, for every index."""
    mixed = index * _GOLDEN
    for shift in (30, 27):
        mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * _MIX
    return ((mixed >> (64 - _BITS)) & ((1 << _BITS) - 1)).double() / (1 << _BITS)
