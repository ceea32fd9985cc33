"""Where and when a token stands: rotary angles and relative biases, from positions and times.

Times are int64 milliseconds. They are subtracted from each other as integers before anything is
rounded: float32 cannot tell two Unix times apart that are two minutes from each other.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import SequenceBatch
from models.parts.transformer.unpadding import Unpadding

BUCKET_WIDTH = 0.301  # of a time bucket, in ln(seconds)
_BASE = 10_000.0  # ratio of the longest wavelength to the shortest


# -- rotary ----------------------------------------------------------------------------------


def time_positions(batch: SequenceBatch, kind: str, scale: float) -> Tensor:
    """Positions [B, L] float64 in time, from each row's first event on.

    "linear": elapsed time in units of ``scale`` seconds. "cumlog": Σ_{j ≤ i} ln(1 + Δ_j / scale)
    over the gaps up to here. Neither looks ahead: a logarithm of the age before the *last* event
    would tell earlier positions when that event is.
    """
    if kind == "linear":
        return (batch.times - batch.times[:, :1]).double() / (1000 * scale)
    gaps = torch.zeros_like(batch.times, dtype=torch.float64)
    gaps[:, 1:] = (batch.times[:, 1:] - batch.times[:, :-1]).double() / (1000 * scale)
    return torch.log1p(gaps.clamp_(min=0)).cumsum(1)


class Rotary:
    """Rotary encoding (RoPE, arXiv 2104.09864) driven by the index and by time stamps.

    The first half of the channel pairs turns by the index; the second by time ("linear",
    "cumlog") or not at all ("index"), so that events at one time leave exactly the index.
    """

    def __init__(self, kind: str, dim: int, scale: float) -> None:
        self.kind, self.scale, self.pairs = kind, scale, dim // 2
        self.by_index = (self.pairs + 1) // 2

    def angles(self, batch: SequenceBatch, layout: Unpadding) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, 1, pairs] for :func:`rotate`."""
        index = layout.position.double()[:, None] * self._speeds(self.by_index, batch.items.device)
        rest = self.pairs - self.by_index
        if self.kind == "index":
            timed = index.new_zeros(index.shape[0], rest)
        else:
            position = layout.pack(time_positions(batch, self.kind, self.scale))
            timed = position[:, None] * self._speeds(rest, batch.items.device)
        angle = torch.cat([index, timed], 1)[:, None]
        return angle.cos().float(), angle.sin().float()

    @staticmethod
    def _speeds(count: int, device: torch.device) -> Tensor:
        steps = torch.arange(count, dtype=torch.float64, device=device)
        speeds: Tensor = _BASE ** (-steps / max(1, count))
        return speeds


def rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the channel pairs (i, i + pairs) of x [T, H, 2·pairs]; norms stay as they are."""
    cos, sin = (part.to(x.dtype) for part in angles)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


# -- relative bias ---------------------------------------------------------------------------


def time_buckets(since: Tensor, times: Tensor, n_buckets: int) -> Tensor:
    """Buckets [B, L, L] int32 of how long key j's ``times`` lie before query i's ``since``.

    b = min(n, ⌊ln(max(1, |since_i − times_j| in s)) / 0.301⌋) (HSTU, arXiv 2402.17152, and its
    code); both [B, L] int64 milliseconds.
    """
    return _bucket((since[:, :, None] - times[:, None, :]).float().abs_(), n_buckets)


def _bucket(apart: Tensor, n_buckets: int) -> Tensor:
    """int32, of milliseconds ≥ 0 in float32, which are written over."""
    logs = apart.div_(1000).clamp_(min=1).log_().div_(BUCKET_WIDTH)
    return logs.int().clamp_(max=n_buckets)


@functools.cache
def bucket_cells(n_buckets: int) -> tuple[Tensor, Tensor]:
    """The same by looking up: ``first`` [1024] int32 and ``edge`` [1024] float32.

    A float's exponent and first two binary digits say which of 1024 cells it is in. A bucket is
    wider than a cell, so within a cell is at most one bucket's least float: ``edge``, from which
    on it is one more than ``first``.
    """
    longest = torch.tensor([2.0**63])  # milliseconds that an int64 holds
    wanted = torch.arange(1, int(_bucket(longest.clone(), n_buckets)) + 1)
    low = torch.zeros(len(wanted), dtype=torch.int32)
    high = longest.view(torch.int32).expand(len(wanted))
    for _ in range(31):  # halves the bits, which are in the floats' order
        middle = low + (high - low) // 2
        reached = _bucket(middle.view(torch.float32).clone(), n_buckets) >= wanted
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
    edges = high.view(torch.float32)
    cells = (torch.arange(1024, dtype=torch.int32) << 21).view(torch.float32)
    first = torch.searchsorted(edges, cells, right=True)
    return first.int(), F.pad(edges, (0, 1), value=torch.inf)[first]


class RelativeBias(nn.Module):
    """rab = w_pos[i − j] + w_time[bucket], shared by all heads of a layer.

    Only the past is seen, so of the paper's 2N − 1 position weights N are needed.
    """

    def __init__(self, kind: str, max_length: int, n_buckets: int) -> None:
        """``kind``: "position", "time" or "both"."""
        super().__init__()
        self.position = self.time = None
        if kind in ("position", "both"):
            self.position = nn.Parameter(torch.randn(max_length) * 0.02)
        if kind in ("time", "both"):
            self.time = nn.Parameter(torch.randn(n_buckets + 1) * 0.02)

    def forward(self, width: int, buckets: Tensor | None) -> Tensor:
        """[1 or B, 1, L, L]; above the diagonal it means nothing."""
        bias: Tensor | None = None
        if self.position is not None:
            index = torch.arange(width, device=self.position.device)
            back = (index[:, None] - index).clamp_(min=0)
            bias = self.position.index_select(0, back.flatten()).view(1, 1, width, width)
        if self.time is not None:
            assert buckets is not None
            # index_select: its backward is one pass; indexing by [] sorts
            times = self.time.index_select(0, buckets.flatten()).view(-1, 1, width, width)
            bias = times if bias is None else bias + times
        assert bias is not None
        return bias
