"""Numbers that are the same on any number of threads: work that is done on one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch works on one thread meanwhile.

    A product of matrices may add its terms in another order on other numbers of threads, and a
    vector that lies between two codes would then have the one or the other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
