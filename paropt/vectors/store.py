"""What a place of vectors is asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.vectors.about import About

Note = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """How a place stands at the end: ``compared`` vectors were read back and are the same."""

    compared: int
    warnings: list[str] = field(default_factory=list)


class Store(Protocol):
    """A place where vectors go. ``str`` is its name for people, without a password."""

    @property
    def batch(self) -> int:
        """How many vectors :meth:`write` takes at once."""
        ...

    def check(self) -> None:
        """Refuse a place that can't be had at all, before anything is worked out.

        Raises:
            ParoptError: see above; nothing was changed.
        """
        ...

    def begin(self, about: About, ids: pa.Array, note: Note) -> int:
        """Make ready, and say how many of these vectors an earlier run has written already.

        Raises:
            ParoptError: other vectors are there, or nothing can be written; nothing was changed.
        """
        ...

    def write(self, first: int, vectors: NDArray[np.float32]) -> None:
        """Write the vectors of ids ``first``, ``first`` + 1, …

        Raises:
            ParoptError: it can't be done; what was written before stays, and is told by the next
                :meth:`begin`.
        """
        ...

    def finish(self) -> Written:
        """Put everything in place, and compare some of it with what was to be written.

        Raises:
            ParoptError: it can't be done, or they differ.
        """
        ...

    def close(self) -> None:
        """Let go of the place, finished or not."""
        ...
