"""Some of the vectors that are written, to be compared with what is read back."""

from __future__ import annotations

import numpy as np

SIZE = 20


class Sample:
    """Rows spread evenly over ``begin`` … ``end`` − 1, with what was written for each."""

    def __init__(self, begin: int, end: int) -> None:
        self.rows = np.unique(np.linspace(begin, end - 1, SIZE).round().astype(np.int64))
        self.values: dict[int, bytes] = {}

    def among(self, first: int, count: int) -> list[int]:
        """Those of the rows from ``first`` on."""
        left, right = np.searchsorted(self.rows, [first, first + count])
        found: list[int] = self.rows[left:right].tolist()
        return found
