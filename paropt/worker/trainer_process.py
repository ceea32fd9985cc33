"""A trainer as its slot sees it: a process with two pipes that may die at any moment."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from paropt.worker.protocol import LineReader, Message, encode

DATABASE = {
    "PAROPT_STORAGE",
    "PGPASSWORD",
}  # which a trainer, and a model of others, has no use for


class TrainerProcess:
    """A running trainer. ``select`` on it; :meth:`receive` never waits.

    Attributes:
        ready: what it said when it was ready for work, None until then.
        ended: its end of the pipe is closed: it has died, or is about to.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.ready: Message | None = None
        self.ended = False
        self._lines = LineReader()
        self._process = subprocess.Popen(
            trainer_command(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={key: value for key, value in environment.items() if key not in DATABASE},
        )
        assert self._process.stdout is not None
        self._descriptor = self._process.stdout.fileno()
        os.set_blocking(self._descriptor, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        """Of the pipe that it speaks through, also once that is closed."""
        return self._descriptor

    def send(self, **message: Any) -> None:
        """Tell it something; if it is dead, :attr:`ended` will say so."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            os.write(self._process.stdin.fileno(), encode(message))

    def receive(self) -> list[Message]:
        """What it has said since the last time."""
        messages: list[Message] = []
        while True:
            try:
                chunk = os.read(self.fileno(), 1 << 16)
            except BlockingIOError:
                break
            except OSError:
                chunk = b""
            if not chunk:
                self.ended = True
                break
            messages += self._lines.feed(chunk)
        for message in messages:
            if message.get("event") == "ready":
                self.ready = message
        return messages

    def wait(self, seconds: float) -> str | None:
        """How it ended, in words; None if it has not ended in this time."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with exit code {status}"

    def close(self, seconds: float = 5.0) -> str:
        """Ask it to quit, make it if it doesn't; how it ended."""
        self.send(do="quit")
        return self.wait(seconds) or self.kill()

    def kill(self) -> str:
        """End it now; how it ended."""
        self._process.kill()
        status = self.wait(30) or "cannot be killed"
        assert self._process.stdin is not None and self._process.stdout is not None
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return status


def trainer_command(environment: Mapping[str, str]) -> list[str]:
    """``PAROPT_TRAINER`` replaces the program: tests script trainers with known outcomes."""
    named = environment.get("PAROPT_TRAINER")
    if named:
        return shlex.split(named)
    # -P: a folder named models in the working directory must not shadow ours
    return [sys.executable, "-P", "-m", "paropt.worker.trainer"]
