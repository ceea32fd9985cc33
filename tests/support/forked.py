"""paropt as a process that was forked from one which has imported torch: two seconds less each.

What is imported beforehand is other people's. The process has its own command line, environment,
directory, standard files and process group as ``python -m paropt`` has them, and reads paropt's
modules itself. Tests that look at a process from outside (its command line, its signals) start it
by hand.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

BEFOREHAND = ("numpy", "torch", "optuna", "sqlalchemy.dialects.postgresql", "psycopg2", "rich.live")
MOST = 1 << 20  # bytes of a command with its environment


class Forks:
    """The process that others are forked from; it ends with its ``close`` or with its owner."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._server = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def run(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        cwd: Path,
        stdin: str,
        timeout: float,
    ) -> tuple[int, str, str]:
        """The exit code and what was said, as :func:`subprocess.run` has it.

        Raises:
            TimeoutExpired: it was killed.
        """
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as given,
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as err,
        ):
            given.write(stdin)
            given.seek(0)
            code = self._code([given, out, err], [words, dict(environment), str(cwd)], timeout)
            said = [stream.seek(0) or stream.read() for stream in (out, err)]
        if code is None:
            raise subprocess.TimeoutExpired(["paropt", *words], timeout, *said)
        return code, said[0], said[1]

    def _code(self, streams: list[IO[str]], what: object, timeout: float) -> int | None:
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                files = [*(stream.fileno() for stream in streams), theirs.fileno()]
                socket.send_fds(self._ours, [json.dumps(what).encode()], files)
            with ours.makefile() as told:
                pid = int(told.readline())
                ours.settimeout(timeout)
                try:
                    return int(told.readline())
                except BaseException as error:  # a Ctrl-C of the tests, too
                    os.kill(pid, signal.SIGKILL)
                    if isinstance(error, TimeoutError):
                        return None
                    raise

    def close(self) -> None:
        self._ours.close()
        self._server.wait()


def serve(owner: socket.socket) -> None:
    """Fork what is asked for, until the owner has gone."""
    for name in BEFOREHAND:
        __import__(name)
    gc.freeze()  # a collection would touch, and so copy, all that was imported
    watchers = []
    while True:
        message, files, _, _ = socket.recv_fds(owner, MOST, 4)
        watchers = [pid for pid in watchers if os.waitpid(pid, os.WNOHANG) == (0, 0)]
        if not message:
            break
        if not (pid := os.fork()):
            owner.close()
            watch(message, files)
        watchers.append(pid)
        for file in files:
            os.close(file)
    for pid in watchers:
        os.waitpid(pid, 0)


def watch(message: bytes, files: list[int]) -> None:
    """Fork it, say which process it is, and how it ended."""
    *streams, told = files
    if not (pid := os.fork()):
        os.close(told)
        be_paropt(*json.loads(message), streams)
    os.write(told, f"{pid}\n".encode())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):  # who asked may have given up
        os.write(told, f"{code}\n".encode())
    os._exit(0)


def be_paropt(words: list[str], environment: dict[str, str], cwd: str, streams: list[int]) -> None:
    """As ``python -m paropt WORDS`` from here on."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 256)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    folders = [f for f in environment.get("PYTHONPATH", "").split(os.pathsep) if f]
    sys.path[:0] = [cwd, *folders]
    sys.argv = ["paropt", *words]
    try:
        runpy.run_module("paropt", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # as an interpreter ends, but for taking all of torch apart, which is most of its time
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
