"""Ranks up to a depth, on a CPU, without scoring every item exactly.

A metric at k asks whether a target's rank is at most k, and which it is; of the rest only that it
is worse. So scores are first found roughly, in bfloat16 where the CPU multiplies that faster, and
items are looked at exactly only where the rough score, with its largest possible error, may reach
the target's. A target that k items beat drops out; since items come in the order of their mean
score, most such targets do so early. The ranks are exactly those of float32's scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ROWS, ITEMS = 512, 2048  # of a tile of rough scores: few enough to stay in a CPU's cache
FEWEST_ITEMS = 8192  # of a catalogue for which the screen pays off
DENSE = 16  # items per row of a tile within reach of the target: drop rows by rough scores first
HOPELESS = 256  # items per row of a tile: the rough scores say nothing
PAIRS = 1 << 12  # looked at exactly at once


class Screen:
    """A table of items [N, d] with ``bias`` [N], laid out to find ranks up to ``depth``.

    Beside the table it holds a rough copy of it: half its size, or as much where the CPU has no
    fast bfloat16.
    """

    def __init__(self, table: Tensor, bias: Tensor | None, depth: int, likely: Tensor) -> None:
        """``likely`` [d] is a vector by whose scores items are ordered, highest first."""
        self.table = table
        self.bias = table.new_zeros(len(table)) if bias is None else bias
        self.depth = depth
        kind = rough_type()
        self.order = torch.argsort(torch.mv(table, likely) + self.bias, descending=True)
        self.blocks = [
            _Block.of(self.table, self.bias, items, kind)
            for items in torch.split(self.order, ITEMS)
        ]
        self.kind = kind
        self.scores = torch.empty(ROWS * ITEMS, dtype=kind)
        self.flags = torch.empty_like(self.scores)

    def count(
        self, vectors: Tensor, targets: Tensor, excluded: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """How many items score above each target of [T], and how many at least as high.

        ``excluded`` are row · N + item of pairs that don't count, ascending; the target always
        does. The third are the rows whose counts must be found otherwise. Counts of a target that
        ``depth`` items beat may be too low.
        """
        above = np.zeros(len(targets), dtype=np.int64)
        at_least = np.ones_like(above)
        hopeless: list[NDArray[np.int64]] = []
        for begin in range(0, len(targets), ROWS):
            rows = slice(begin, begin + ROWS)
            tile = _Rows(self, vectors, targets, np.arange(len(targets))[rows], excluded)
            tile.run(above, at_least)
            hopeless.append(tile.hopeless)
        return above, at_least, np.concatenate(hopeless)


class _Block:
    """Some items: their rough rows, with the bias in two more columns, and their largest norm."""

    def __init__(self, items: Tensor, rough: Tensor, norm: float, bias: float) -> None:
        self.items, self.rough, self.norm, self.bias = items, rough, norm, bias

    @classmethod
    def of(cls, table: Tensor, bias: Tensor, items: Tensor, kind: torch.dtype) -> _Block:
        rows, offsets = table[items], bias[items]
        high = offsets.to(kind)
        # the bias as a sum of two rough numbers is not rough any more
        low = (offsets - high.float()).to(kind)
        rough = torch.cat([rows.to(kind), high[:, None], low[:, None]], 1)
        norm = float(torch.linalg.vector_norm(rows, dim=1).max())
        return cls(items, rough, norm, float(offsets.abs().max()))


class _Rows:
    """Up to :data:`ROWS` targets on their way through the blocks."""

    def __init__(
        self,
        screen: Screen,
        vectors: Tensor,
        targets: Tensor,
        rows: NDArray[np.int64],
        excluded: NDArray[np.int64] | None,
    ) -> None:
        self.screen, self.excluded, self.rows = screen, excluded, rows
        self.vectors, self.targets = (
            vectors[rows[0] : rows[-1] + 1],
            targets[rows[0] : rows[-1] + 1],
        )
        n = len(rows)
        self.own = exact_scores(self.vectors, screen.table, screen.bias, self.targets)
        ones = self.vectors.new_ones(n, 2)
        self.rough = torch.cat([self.vectors, ones], 1).to(screen.kind)
        self.norms = torch.linalg.vector_norm(self.vectors, dim=1)
        self.open = torch.arange(n)  # the rows that are still in question
        self.above, self.at_least = (np.zeros(n, dtype=np.int64) for _ in range(2))
        self.hopeless = rows[:0]

    def run(self, above: NDArray[np.int64], at_least: NDArray[np.int64]) -> None:
        for block in self.screen.blocks:
            if not len(self.open):
                break
            self._pass(block)
        above[self.rows], at_least[self.rows] = self.above, self.at_least

    def _pass(self, block: _Block) -> None:
        """Count the items of a block, and close the rows that have enough above them."""
        screen, shape = self.screen, (len(self.open), len(block.items))
        own = self.own[self.open][:, None]
        margin = _margin(self.norms[self.open][:, None], own, block, self.rough)
        scores, flags = (
            t[: shape[0] * shape[1]].view(shape) for t in (screen.scores, screen.flags)
        )
        torch.mm(self.rough[self.open], block.rough.T, out=scores)
        torch.ge(scores, (own - margin).to(screen.kind), out=flags)
        row, column = _where(flags)
        if len(row) > DENSE * len(self.open):
            torch.gt(scores, (own + margin).to(screen.kind), out=flags)
            row, column = self._drop(flags.sum(1, dtype=torch.float32).numpy(), row, column)
        items = block.items.numpy()[column]
        for some in np.array_split(np.arange(len(row)), -(-len(row) // PAIRS) or 1):
            self._look(row[some], items[some])
        keep = self.above[self.open.numpy()] < screen.depth
        self.open = self.open[torch.from_numpy(keep)]

    def _drop(
        self, certain: NDArray[np.float32], row: NDArray[np.int64], column: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Close rows that enough items surely beat, or for which the screen is of no use.

        ``certain`` [open rows] counts the former, excluded ones too.
        """
        allowed = self.screen.depth + self._excluded_of(self.open.numpy())
        beaten = certain >= allowed
        self.above[self.open.numpy()[beaten]] = self.screen.depth
        reach = np.bincount(row, minlength=len(self.open))
        lost = ~beaten & (reach > HOPELESS + allowed)
        where = self.open.numpy()[lost]
        self.hopeless = np.concatenate([self.hopeless, self.rows[where]])
        self.above[where] = self.screen.depth
        stay = ~(beaten | lost)[row]
        return row[stay], column[stay]

    def _excluded_of(self, open_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.excluded is None:
            return np.zeros(len(open_rows), dtype=np.int64)
        n = len(self.screen.table)
        begin = self.rows[open_rows] * n
        low, high = np.searchsorted(self.excluded, [begin, begin + n])
        return np.asarray(high - low)

    def _look(self, row: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Score pairs of an open row and an item exactly, and count them."""
        local = self.open.numpy()[row]
        if self.excluded is not None and len(self.excluded):
            keys = self.rows[local] * len(self.screen.table) + items
            at = np.minimum(np.searchsorted(self.excluded, keys), len(self.excluded) - 1)
            counts = (self.excluded[at] != keys) | (items == self.targets.numpy()[local])
            local, items = local[counts], items[counts]
        if not len(local):
            return
        at_row, at_item = torch.from_numpy(local), torch.from_numpy(items)
        screen = self.screen
        scores = exact_scores(self.vectors[at_row], screen.table, screen.bias, at_item)
        own = self.own[at_row]
        self.above += np.bincount(local[(scores > own).numpy()], minlength=len(self.rows))
        self.at_least += np.bincount(local[(scores >= own).numpy()], minlength=len(self.rows))


def exact_scores(vectors: Tensor, table: Tensor, bias: Tensor, items: Tensor) -> Tensor:
    """``vectors`` [P, d] · rows ``items`` [P] of ``table`` + ``bias``: float32, each sum in the
    same order, so that equal factors give equal scores."""
    return (vectors * table[items]).sum(1).add_(bias[items])


def _margin(norms: Tensor, own: Tensor, block: _Block, rough: Tensor) -> Tensor:
    """How far rough scores may be from the exact ones, for rows with such norms [R, 1].

    Rounding both factors to u = 2⁻ᵖ changes each product by at most 2u + u² of itself, and
    Σ|x_i·y_i| ≤ |x|·|y|; of that, sums in float32, here and in the exact score, are off by at most
    2·width·2⁻²⁴. The bias is off by u². That a rough score is itself rounded keeps the order of
    numbers, and what it is compared with is rounded too.
    """
    u = 2.0**-9 if rough.dtype == torch.bfloat16 else 2.0**-24
    share = 2 * u + u * u + 4 * rough.shape[1] * 2.0**-24
    rest = (u * u + 2.0**-22) * block.bias
    return 1.01 * share * block.norm * norms + 2.0**-22 * own.abs() + rest


def _where(flags: Tensor) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the ones among zeros, of which there are few: looked for by the word."""
    bits = flags.view(torch.int16 if flags.dtype == torch.bfloat16 else torch.int32).numpy()
    lanes = 8 // bits.itemsize
    if bits.size % lanes:
        return np.divmod(np.flatnonzero(bits), flags.shape[1])
    words = np.flatnonzero(bits.reshape(-1).view(np.int64))
    word, lane = np.nonzero(bits.reshape(-1, lanes)[words])
    return np.divmod(words[word] * lanes + lane, flags.shape[1])


@cache
def rough_type() -> torch.dtype:
    """bfloat16 where this CPU multiplies it faster than float32, as tried once."""

    def seconds(kind: torch.dtype) -> Iterator[float]:
        a, b = torch.ones(256, 128, dtype=kind), torch.ones(1024, 128, dtype=kind)
        for _ in range(4):
            began = time.perf_counter()
            torch.mm(a, b.T)
            yield time.perf_counter() - began

    rough, plain = (min(seconds(kind)) for kind in (torch.bfloat16, torch.float32))
    return torch.bfloat16 if rough < 0.8 * plain else torch.float32
