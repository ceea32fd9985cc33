"""Steps that a device repeats by itself: fixed shapes, fixed addresses, nothing asked of the host.

A training step of a small model is many tiny kernels, and telling the device each of them takes
longer than running it. A CUDA graph is told once. It reads and writes the same memory every time,
so what differs between steps is laid out for a block of steps and picked by a counter that lives on
the device (:class:`Feed`), and everything else is moved in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

UNROLLED = 8  # steps of the longer of the two graphs: fewer launches, and no gap between its steps
WARM_UP = 3  # steps before a capture: libraries set themselves up in the first


class Feed:
    """What steps read, by name: rows of a block's tensors, one step's at fixed addresses.

    ``fields`` are tensors [T, …] of the first block, whose shapes all blocks have but for fewer
    steps. Fields of one type share a buffer, so that fetching a step's is one kernel per type.
    """

    def __init__(self, fields: Mapping[str, Tensor], steps: int) -> None:
        first = next(iter(fields.values()))
        self.cursor = torch.zeros(1, dtype=torch.int64, device=first.device)
        self._blocks: list[tuple[Tensor, Tensor]] = []  # [steps, width] and the step's [1, width]
        self._wide: dict[str, Tensor] = {}
        self.now: dict[str, Tensor] = {}  # the step's, by name
        for dtype in dict.fromkeys(field.dtype for field in fields.values()):
            mine = {name: field for name, field in fields.items() if field.dtype == dtype}
            sizes = [math.prod(field.shape[1:]) for field in mine.values()]
            block = torch.zeros(steps, sum(sizes), dtype=dtype, device=first.device)
            row = block.new_zeros(1, sum(sizes))
            self._blocks.append((block, row))
            for (name, field), wide, now in zip(
                mine.items(), torch.split(block, sizes, 1), torch.split(row, sizes, 1), strict=True
            ):
                self._wide[name] = wide
                self.now[name] = now.view(field.shape[1:])

    def fill(self, fields: Mapping[str, Tensor]) -> None:
        """Lay out another block, and begin at its first step."""
        for name, field in fields.items():
            self._wide[name][: len(field)].copy_(field.flatten(1))
        self.cursor.zero_()

    def fetch(self) -> None:
        """Bring the fields of the step at the cursor to their fixed places."""
        for block, row in self._blocks:
            torch.index_select(block, 0, self.cursor, out=row)


class GraphReplay:
    """Runs ``step`` again and again: on a CUDA device as a graph, elsewhere by calling it.

    ``step`` must do the same on the same memory whenever it is called, without asking the device
    for a number.
    """

    def __init__(self, step: Callable[[], None], device: torch.device) -> None:
        self.step, self.device = step, device
        self._left_to_warm = WARM_UP
        self._one: torch.cuda.CUDAGraph | None = None
        self._many: torch.cuda.CUDAGraph | None = None

    def run(self, n: int) -> None:
        """The next n steps."""
        if self.device.type != "cuda":
            for _ in range(n):
                self.step()
            return
        n -= self._warm_up(n)
        if n and (self._one is None or self._many is None):
            self._one, self._many = self._captured(1), self._captured(UNROLLED)
        for graph, size in ((self._many, UNROLLED), (self._one, 1)):
            for _ in range(n // size):
                assert graph is not None
                graph.replay()
            n %= size

    def _warm_up(self, n: int) -> int:
        """The first steps, which are training like all others; how many."""
        n = min(n, self._left_to_warm)
        self._left_to_warm -= n
        if n:
            aside = torch.cuda.Stream(self.device)
            here = torch.cuda.current_stream(self.device)
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                for _ in range(n):
                    self.step()
            here.wait_stream(aside)
        return n

    def _captured(self, steps: int) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # other threads of the process may do what they like meanwhile
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(steps):
                self.step()
        return graph


@contextmanager
def order_kept_by_hand() -> Iterator[None]:
    """Within, torch's deterministic substitutes are off.

    They sort the rows of every indexed write, which costs more than the step. Steps that name each
    row once, and sum what belongs together in a fixed order, need none of it.
    """
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
