"""Stretches of users' histories, cut out of a batch of sequences and laid end to end as tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from models.parts.contract import SequenceBatch
from models.parts.transformer.unpadding import Unpadding

PART = "part"  # the column of events; its codes are:
LONG, SHORT = 0, 1


@dataclass(frozen=True)
class Histories:
    """Users' events, right-padded: ``items`` and ``times`` [B, W] int64, ``columns`` [B, W] by
    name, ``lengths`` [B]."""

    items: Tensor
    times: Tensor
    columns: Mapping[str, Tensor]
    lengths: Tensor

    @classmethod
    def of_inputs(cls, batch: SequenceBatch) -> Histories:
        """The events that a batch shows."""
        return cls(batch.items, batch.times, batch.columns, batch.lengths)

    @classmethod
    def whole(cls, batch: SequenceBatch) -> Histories:
        """The events that a batch shows, and the one after them, which it asks for."""
        lengths, width = batch.lengths, batch.items.shape[1]
        column = torch.arange(width + 1, device=lengths.device)
        at_end = column == lengths[:, None]
        last = (lengths - 1)[:, None]

        def joined(shown: Tensor, asked: Tensor) -> Tensor:
            wide = torch.cat([shown, shown[:, -1:]], 1)
            return torch.where(at_end, asked.gather(1, last).to(wide.dtype), wide)

        columns = {name: joined(c, batch.wanted[name]) for name, c in batch.columns.items()}
        return cls(
            joined(batch.items, batch.targets),
            joined(batch.times, batch.query_times),
            columns,
            lengths + 1,
        )

    def parts(self) -> tuple[Stretches, Stretches]:
        """The long and the short part of every user [B]; a part may be empty."""
        column = torch.arange(self.items.shape[1], device=self.lengths.device)
        short = (self.columns[PART] == SHORT) & (column < self.lengths[:, None])
        n_short = short.sum(1)
        rows = torch.arange(len(self.lengths), device=self.lengths.device)
        n_long = self.lengths - n_short
        return Stretches(rows, torch.zeros_like(rows), n_long), Stretches(rows, n_long, n_short)


@dataclass(frozen=True)
class Stretches:
    """Of each row some events: ``lengths`` [R] of them, from ``begins`` [R] on, of ``rows`` [R]."""

    rows: Tensor
    begins: Tensor
    lengths: Tensor

    def latest(self, most: int) -> Stretches:
        """Their latest ``most`` events."""
        cut = (self.lengths - most).clamp(min=0)
        return Stretches(self.rows, self.begins + cut, self.lengths - cut)

    def of(self, which: Tensor) -> Stretches:
        """Some of them, by a mask or an index."""
        return Stretches(self.rows[which], self.begins[which], self.lengths[which])


@dataclass(frozen=True)
class Tokens:
    """The events of stretches, end to end, the longest stretch first.

    ``items``, ``times`` and each of ``columns`` are [T], ``row`` [T] and ``position`` [T] say which
    stretch, in the order of the tokens, and where in it; ``first`` and ``last`` [T] are the times
    of its ends. ``back`` [R] int64 puts what is by stretch back into the order asked for.
    """

    items: Tensor
    times: Tensor
    columns: Mapping[str, Tensor]
    layout: Unpadding
    first: Tensor
    last: Tensor
    back: Tensor

    @property
    def row(self) -> Tensor:
        return self.layout.row

    @property
    def position(self) -> Tensor:
        return self.layout.position

    @property
    def rows(self) -> int:
        return self.layout.rows


def tokens_of(histories: Histories, stretches: Stretches) -> Tokens:
    """The events of these stretches."""
    order = stretches.lengths.argsort(descending=True, stable=True)
    sorted_ = stretches.of(order)
    layout = Unpadding(sorted_.lengths, int(sorted_.lengths.max()) if len(order) else 0)
    width = histories.items.shape[1]
    begins = sorted_.rows * width + sorted_.begins
    at = begins[layout.row] + layout.position
    times = histories.times.flatten()
    ends = (begins + sorted_.lengths - 1).clamp(min=0)
    return Tokens(
        histories.items.flatten()[at],
        times[at],
        {name: column.flatten()[at] for name, column in histories.columns.items()},
        layout,
        times[begins.clamp(max=len(times) - 1)][layout.row],
        times[ends][layout.row],
        order.argsort(),
    )
