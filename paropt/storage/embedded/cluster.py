"""One PostgreSQL data directory: made, started, stopped. Nothing here decides when."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from paropt.errors import StorageUnreachable
from paropt.storage.embedded.binaries import MAJOR, Binaries

ROLE = "paropt"
DATABASE = "paropt"
# how long a server may take to recover from a crash, or to write out its memory
PATIENCE = 120


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What ``postmaster.pid`` says about the server that wrote it."""

    pid: int
    status: str

    @property
    def ready(self) -> bool:
        return self.status == "ready" and _alive(self.pid)


@dataclass(frozen=True, slots=True)
class Cluster:
    """A data directory and the programs that run it; ``run`` is the folder of socket and log."""

    data: Path
    run: Path
    binaries: Binaries

    @property
    def log(self) -> Path:
        return self.run / "server.log"

    def initialise(
        self, password: str, *, sync: bool = True, statements: Sequence[str] = ()
    ) -> None:
        """Make the data directory with one role and one database, both named ``paropt``.

        The role isn't a superuser, and nobody can log in as one: who holds the password can use
        the database, not the server's machine. The directory appears complete or not at all.

        Args:
            password: of the role; letters, digits, ``-`` and ``_``.
            sync: write everything to the disk before returning.
            statements: SQL for the superuser to run besides.

        Raises:
            StorageUnreachable: ``initdb`` failed (full disk, missing rights).
        """
        new = self.data.with_name(self.data.name + ".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self.binaries.own(new)
        options = ["--username=postgres", "--auth=reject", "--encoding=UTF8", "--locale=C"]
        done = self.binaries.run("initdb", *options, "--pgdata", str(new), *_sync(sync))
        if done.returncode != 0:
            shutil.rmtree(new, ignore_errors=True)
            raise StorageUnreachable(
                f"no database could be made in {self.data}: {_reason(done.stdout)}"
            )
        with (new / "postgresql.conf").open("a") as conf:
            conf.write("\ninclude_if_exists 'paropt.conf'  # written at every start\n")
        _single_user(
            self.binaries,
            new,
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}'",
            f"CREATE DATABASE {DATABASE} OWNER {ROLE}",
            *statements,
        )
        new.rename(self.data)

    def set_password(self, password: str) -> None:
        """Give the role a new password; only while the server is stopped."""
        _single_user(self.binaries, self.data, f"ALTER ROLE {ROLE} PASSWORD '{password}'")

    def check_version(self) -> None:
        """Raises :class:`StorageUnreachable` when another major version made the data."""
        found = (self.data / "PG_VERSION").read_text().strip()
        if found != str(MAJOR):
            raise StorageUnreachable(
                f"{self.data} was made by PostgreSQL {found}, and this paropt brings PostgreSQL "
                f"{MAJOR}; dump it with the old paropt, or move the directory away to start anew"
            )

    def start(
        self, settings: Mapping[str, str | int], access: Sequence[str], keep: tuple[int, ...] = ()
    ) -> None:
        """Start the server in a session of its own and wait until it takes connections.

        ``access`` are the lines of ``pg_hba.conf``; the server inherits the descriptors ``keep``.
        """
        conf = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        self._write("paropt.conf", conf)
        self._write("pg_hba.conf", "".join(f"{line}\n" for line in access))
        if self.log.exists() and self.log.stat().st_size > 10_000_000:
            self.log.replace(self.log.with_suffix(".old"))
        begin = self.log.stat().st_size if self.log.exists() else 0
        options = ["-D", str(self.data), "-l", str(self.log), "-w", "-t", str(PATIENCE), "-s"]
        done = self.binaries.run("pg_ctl", "start", *options, keep=keep)
        if done.returncode != 0:
            with self.log.open(errors="replace") as log:
                log.seek(begin)
                said = log.read()
            raise StorageUnreachable(
                f"the embedded PostgreSQL did not start: {_reason(said or done.stdout)} "
                f"(its log is {self.log})"
            )

    def stop(self) -> None:
        """Stop the server, ending its connections; a server that doesn't answer is cut short."""
        for mode, seconds in (("fast", PATIENCE), ("immediate", 20)):
            options = ["-D", str(self.data), "-m", mode, "-w", "-t", str(seconds), "-s"]
            if self.binaries.run("pg_ctl", "stop", *options).returncode == 0:
                return

    def postmaster(self) -> Postmaster | None:
        """What the running server says of itself, None where there is no sign of one."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return Postmaster(int(lines[0]), lines[7].strip() if len(lines) > 7 else "")
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _write(self, name: str, text: str) -> None:
        beside = self.data / f"{name}.new"
        beside.write_text(text)
        beside.chmod(0o600)
        self.binaries.own(beside).replace(self.data / name)


def _single_user(binaries: Binaries, data: Path, *statements: str) -> None:
    """Statements given to a server that nobody else can reach; they pass through its stdin."""
    script = "".join(f"{statement};\n" for statement in statements)
    done = binaries.run("postgres", "--single", "-D", str(data), "postgres", stdin=script)
    if done.returncode != 0 or "ERROR:" in done.stdout:
        raise StorageUnreachable(f"{data} could not be set up: {_reason(done.stdout)}")


def _sync(sync: bool) -> tuple[str, ...]:
    return () if sync else ("--no-sync",)


def _reason(output: str) -> str:
    """The line of a PostgreSQL program's output that says what went wrong."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for word in ("PANIC:", "FATAL:", "error:", "ERROR:", "could not"):
        for line in lines:
            if word in line:
                return line[line.index(word) :].removeprefix(word if ":" in word else "").strip()
    return lines[-1] if lines else "it said nothing"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
