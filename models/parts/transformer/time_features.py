"""When an event was, as part of the input: how long after the one before, at what hour and day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.parts.contract import Facts, Param, SequenceBatch
from models.parts.transformer.unpadding import Unpadding

GAPS = 32  # buckets of gaps: the last begins at 2^31 s
FIRST = GAPS  # the bucket of an event that has none before it
_MS, _HOUR, _DAY = 1000, 3_600_000, 86_400_000
_MONDAY = 3  # 1970-01-01 was a Thursday

TIME_PARAMS: tuple[Param, ...] = (
    Param("time_features", "str", "none",
          "what is added to a position: its event's gap to the one before (buckets of log2 "
          "seconds), hour and weekday (UTC), or both",
          choices=("none", "gap", "calendar", "both"), source="arXiv 2004.11780 (gaps)"),
)  # fmt: skip


def check_times(params: Mapping[str, Any], facts: Facts | None) -> None:
    """Refuse features of times for data that have an order only.

    Raises:
        ValueError: one clause.
    """
    kind = params["time_features"]
    if kind != "none" and facts is not None and not facts.has_times:
        raise ValueError(
            f"time_features {kind} needs time stamps and the data has only an order; "
            "set time_features to none"
        )


class TimeFeatures(nn.Module):
    """Embeddings of gap, hour and weekday, those that are asked for."""

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        self.gap = self.hour = self.weekday = None
        if kind in ("gap", "both"):
            self.gap = _embedding(GAPS + 1, dim)
        if kind in ("calendar", "both"):
            self.hour, self.weekday = _embedding(24, dim), _embedding(7, dim)

    def add(self, h: Tensor, batch: SequenceBatch, layout: Unpadding) -> Tensor:
        """Tokens [T, d] with what their times say."""
        if self.gap is not None:
            h = h + self.gap(layout.pack(gap_buckets(batch.times)))
        if self.hour is not None and self.weekday is not None:
            times = layout.pack(batch.times)
            h = h + self.hour(times // _HOUR % 24)
            h = h + self.weekday((times // _DAY + _MONDAY) % 7)
        return h


def gap_buckets(times: Tensor) -> Tensor:
    """⌊log2(1 + seconds since the event before)⌋, at most GAPS − 1, of times [B, L] int64 ms.

    The first event of a row has the bucket FIRST.
    """
    seconds = (times[:, 1:] - times[:, :-1]).clamp(min=0).double() / _MS
    found = torch.full_like(times, FIRST)
    found[:, 1:] = torch.log2(1 + seconds).long().clamp_(max=GAPS - 1)
    return found


def _embedding(count: int, dim: int) -> nn.Embedding:
    embedding = nn.Embedding(count, dim)
    nn.init.normal_(embedding.weight, std=0.02)
    return embedding
