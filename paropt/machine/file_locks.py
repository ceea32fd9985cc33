"""File locks that the kernel releases, however their holder ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

from paropt.errors import StorageUnreachable

try:
    import fcntl
except ImportError as error:  # Windows
    raise StorageUnreachable(
        "the embedded PostgreSQL needs Linux or macOS; name a server with "
        "--storage postgresql://USER@HOST/DATABASE"
    ) from error


class FileLock:
    """``flock`` on a file that stays. Closing the last descriptor of it releases the lock."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def share(self) -> None:
        """Hold it together with others; waits for an exclusive holder to leave."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def exclude(self) -> None:
        """Hold it alone; waits for every other holder to leave."""
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def try_exclude(self, patience: float = 0.0) -> bool:
        """Hold it alone if the others leave within ``patience`` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.02)
            else:
                return True

    def close(self) -> None:
        """Let go, unless a child process inherited the descriptor: then it goes on holding."""
        os.close(self.fd)

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
