"""What is made, or fetched, once per machine: one process at a time makes it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paropt.errors import DataError
from paropt.machine.file_locks import FileLock


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Only one process of this machine at a time makes ``path``; leaves nothing but ``path``."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        held = _lock(lock)
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.strerror or error}); "
            "set PAROPT_HOME to a place for paropt's files"
        ) from None
    try:
        yield
    except BaseException:
        lock.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()
        raise
    finally:
        lock.unlink(missing_ok=True)
        held.close()


def _lock(path: Path) -> FileLock:
    """Hold the lock of the file that has this name now: its last holder may have removed it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path)
        except FileNotFoundError:
            continue
        lock.exclude()
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fd), path.stat()):
                return lock
        lock.close()
