"""Sharing a device between slots, and having it alone: two file locks, released by any death.

Everybody who trains holds the device's lock shared; who must be alone holds it exclusively. A
second lock, the gate before it, makes that fair: who waits to be alone holds the gate, so nobody
new gets in.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class DeviceLock:
    """One slot's way to one device of this machine."""

    def __init__(self, directory: Path, device: str) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._gate = os.open(directory / f"{device}.gate", os.O_RDWR | os.O_CREAT, 0o600)
        self._device = os.open(directory / f"{device}.lock", os.O_RDWR | os.O_CREAT, 0o600)

    def try_enter(self, *, alone: bool) -> bool:
        """Take the device if it is free for that; ask again later if not, or :meth:`leave`."""
        if not _lock(self._gate, fcntl.LOCK_EX):
            return False
        entered = _lock(self._device, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if entered or not alone:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        return entered

    def leave(self) -> None:
        fcntl.flock(self._device, fcntl.LOCK_UN)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._gate)
        os.close(self._device)


def _lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
