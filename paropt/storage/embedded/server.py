"""The embedded server: shared by every paropt process of the machine, stopped by the last.

Who needs the server holds ``holders.lock`` shared. Who leaves tries to hold it alone, and if that
works, nobody else is there, and the server is stopped. Both are ``flock``, which the kernel
releases however a process ends, so there is no list of holders that could be wrong. If all holders
were killed the server goes on running; the next paropt command finds it and stops it when done.

The server itself inherits ``server.lock``, so that lock tells exactly whether any process of it is
left, after a crash too, when ``postmaster.pid`` lies. Files, under ``PAROPT_HOME/postgres``:

    data/  run/                   PostgreSQL's data; its socket and log
    password                      of the role ``paropt``, mode 0600
    server.json                   where data and socket are, what it listens on, its machine
    start.lock  holders.lock  server.lock
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import URL

from paropt.errors import ParoptError, StorageUnreachable
from paropt.machine.file_locks import FileLock
from paropt.machine.home import SYSTEM_ROOT
from paropt.machine.home import paropt_home as paropt_home
from paropt.storage.embedded.binaries import find_binaries
from paropt.storage.embedded.cluster import DATABASE, PATIENCE, ROLE, Cluster

# the socket is always found under this port's name, whatever port TCP uses
SOCKET_PORT = 5432
# sockaddr_un holds 104 bytes on macOS, 108 on Linux
SOCKET_PATH_LIMIT = 103
SETTINGS: dict[str, str | int] = {
    "max_connections": 300,  # 64 slots with up to four each, and the people who look on
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_min_error_statement": "panic",  # statements hold users' data, and errors are expected
    "update_process_title": "off",
}


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """``server.json``: what the processes that share the server must agree on."""

    area: str  # the folder of data/ and run/
    sockets: str  # the folder of the socket
    listen: str | None = None  # HOST:PORT
    host: str = ""  # the machine that the server last ran on
    boot: str = ""


class EmbeddedServer:
    """This process's hold on the embedded server; :meth:`join` and :meth:`leave` pair up."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "postgres"
        self._pid = os.getpid()
        self._holder: FileLock | None = None
        self._record = ServerRecord("", "")

    # -- what others ask ------------------------------------------------------------------------

    @property
    def url(self) -> URL:
        """Where this machine's processes connect, with the password."""
        return URL.create(
            "postgresql+psycopg2",
            username=ROLE,
            password=(self.folder / "password").read_text().strip(),
            database=DATABASE,
            query={"host": self._record.sockets, "port": str(SOCKET_PORT)},
        )

    @property
    def listen(self) -> str | None:
        """``HOST:PORT`` if the server takes TCP connections."""
        return self._record.listen

    # -- coming and going -----------------------------------------------------------------------

    def join(self, listen: str | None = None) -> None:
        """Have the server running until :meth:`leave`.

        Args:
            listen: ``HOST:PORT`` to open it to other machines from now on, ``off`` to close it
                again, None to leave it as it is. A change restarts a running server.

        Raises:
            StorageUnreachable: it can't be made or started here.
            ParoptError: ``listen`` can't be had.
        """
        wanted = None if listen is None else format_listen(parse_listen(listen))
        try:
            self._prepare_folder()
            self._holder = FileLock(self.folder / "holders.lock")
            self._holder.share()
            with FileLock(self.folder / "start.lock") as starting:
                starting.exclude()
                self._ensure_running(wanted)
        except OSError as error:
            self.leave()
            place = error.filename or self.folder
            raise StorageUnreachable(
                f"the embedded database cannot use {place}: {error.strerror}; "
                "set PAROPT_HOME to a directory that you can write to"
            ) from error
        except BaseException:
            self.leave()
            raise

    def check_listen(self, listen: str) -> None:
        """Refuse an address that a new server could not have; writes nothing.

        Raises:
            ParoptError: it is none, or taken and not by the server that is here.
        """
        address = parse_listen(listen)
        found = self._read() if self.folder.is_dir() else None
        if address and (found is None or found.listen != format_listen(address)):
            _check_port_free(listen)

    def kept_listen(self) -> str | None:
        """What a server that was made here listens on, whether it runs or not."""
        found = self._read() if self.folder.is_dir() else None
        return found.listen if found else None

    def revive(self) -> None:
        """Between :meth:`join` and :meth:`leave`: have it running again, should it have crashed.

        Raises:
            StorageUnreachable: it can't be started any more.
        """
        with FileLock(self.folder / "start.lock") as starting:
            starting.exclude()
            self._ensure_running(None)

    def leave(self) -> None:
        """Let go of the server, and stop it if nobody else holds it."""
        holder, self._holder = self._holder, None
        if holder is None:
            return
        try:
            # a fork of us shares our lock and must not stop what we use
            if os.getpid() == self._pid and holder.try_exclude():
                self._stop()
        finally:
            holder.close()

    def stop_if_unused(self) -> bool:
        """Stop a server whose holders were all killed; False if somebody uses it."""
        if not self.folder.exists():
            return True
        with FileLock(self.folder / "holders.lock") as holder:
            if not holder.try_exclude():
                return False
            self._stop()
            return True

    def _stop(self) -> None:
        record = self._read()
        if record is None or not Path(record.area, "data").exists():
            return
        with FileLock(self.folder / "server.lock") as server:
            if not server.try_exclude():
                self._cluster(record).stop()
                server.try_exclude(patience=5)

    # -- under start.lock -----------------------------------------------------------------------

    def _ensure_running(self, wanted: str | None) -> None:
        found = self._read()
        record = found or self._new_record()
        if wanted is not None:
            record = replace(record, listen=wanted or None)
        with FileLock(self.folder / "server.lock") as server:
            running = not server.try_exclude()
            if running:
                running = self._wait_until_ready(server, record)
            if running and found == record and self._sockets_ok(record):
                self._record = record
                return
            if record.listen and (found is None or found.listen != record.listen):
                _check_port_free(record.listen)
            cluster = self._cluster(record)
            if running:
                cluster.stop()
                if not server.try_exclude(patience=PATIENCE):
                    raise StorageUnreachable(f"the PostgreSQL in {cluster.data} does not stop")
            self._start(cluster, record, server)

    def _wait_until_ready(self, server: FileLock, record: ServerRecord) -> bool:
        """True once the running server takes connections, False once its last process ended."""
        cluster = self._cluster(record)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            postmaster = cluster.postmaster()
            if postmaster and postmaster.ready and _connects(record):
                return True
            if server.try_exclude(patience=0.1):
                return False
        raise StorageUnreachable(
            f"the PostgreSQL in {cluster.data} neither answers nor ends; another container may be "
            f"using it: stop that one, or set PAROPT_HOME to a directory of your own"
        )

    def _start(self, cluster: Cluster, record: ServerRecord, server: FileLock) -> None:
        """Start the server; we hold ``server.lock`` alone, so nothing of an old one is left."""
        here = replace(record, host=socket.gethostname(), boot=_boot_id())
        self._ensure_data(cluster)
        if cluster.postmaster():
            if record.host != here.host and record.boot != here.boot:
                raise StorageUnreachable(
                    f"the database in {cluster.data} is in use on the machine {record.host!r}; "
                    f"work there, or set PAROPT_HOME to a directory of this machine (if that "
                    f"machine is gone, delete {cluster.data / 'postmaster.pid'})"
                )
            # its pid may belong to another program by now, and would stop the start
            (cluster.data / "postmaster.pid").unlink()
        here = self._with_sockets(here, cluster)
        for stale in Path(here.sockets).glob(".s.PGSQL.*.lock"):
            stale.unlink()  # names that pid, too; nobody else uses the folder
        host, port = parse_listen(here.listen or "") or ("", SOCKET_PORT)
        settings = SETTINGS | {
            "listen_addresses": host,
            "port": port,
            "unix_socket_directories": here.sockets,
            "unix_socket_permissions": "0700",
        }
        access = [f"local {DATABASE} {ROLE} scram-sha-256"]
        if host:
            access.append(f"host {DATABASE} {ROLE} all scram-sha-256")
        self._write(here)
        cluster.start(settings, access, keep=(server.fd,))
        if port != SOCKET_PORT:
            _link(Path(here.sockets), port)
        self._record = here

    @property
    def password_file(self) -> Path:
        return self.folder / "password"

    def _ensure_data(self, cluster: Cluster) -> None:
        """Have data and password; both are made together, and a lost password file is replaced."""
        if cluster.data.exists():
            cluster.check_version()
            if self.password_file.exists():
                return
        password = secrets.token_urlsafe(24)
        self._write_secret(password)
        if cluster.data.exists():
            cluster.set_password(password)
        else:
            cluster.initialise(password)

    # -- places ---------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        if not self.home.is_absolute():
            self.home = self.home.absolute()
        # a root's server user must pass through; what is inside has modes of its own
        mode = 0o711 if os.geteuid() == 0 else 0o700
        if not self.home.exists():
            self.home.mkdir(parents=True, exist_ok=True)
            self.home.chmod(0o755 if os.geteuid() == 0 else 0o700)
        self.folder.mkdir(mode=mode, exist_ok=True)

    def _new_record(self) -> ServerRecord:
        binaries = find_binaries()
        area = self.folder
        if binaries.user and not binaries.user.can_reach(area / "data"):
            area = self._area_elsewhere()
        run = area / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        binaries.own(run)
        record = ServerRecord(str(area), "")
        self._write(record)
        return record

    def _area_elsewhere(self) -> Path:
        """A folder for the data where a root's home is closed to the server's user."""
        servers = SYSTEM_ROOT / "servers"
        servers.mkdir(mode=0o755, parents=True, exist_ok=True)
        for old in servers.iterdir():
            _remove_if_forsaken(old)
        area = Path(tempfile.mkdtemp(dir=servers))
        area.chmod(0o711)
        (area / "home").write_text(str(self.folder))
        return area

    def _cluster(self, record: ServerRecord) -> Cluster:
        data = Path(record.area, "data")
        owner = data.stat().st_uid if data.exists() else None
        return Cluster(data, Path(record.area, "run"), find_binaries(owner))

    def _with_sockets(self, record: ServerRecord, cluster: Cluster) -> ServerRecord:
        if record.sockets and self._sockets_ok(record, running=False):
            return record
        sockets = cluster.run
        if len(os.fsencode(sockets / ".s.PGSQL.65535")) > SOCKET_PATH_LIMIT:
            place = "/tmp" if os.access("/tmp", os.W_OK) else None
            # an unpredictable name: nobody else can have made it before us
            sockets = Path(tempfile.mkdtemp(prefix="paropt-", dir=place))
        cluster.binaries.own(sockets)
        return replace(record, sockets=str(sockets))

    def _sockets_ok(self, record: ServerRecord, *, running: bool = True) -> bool:
        sockets = Path(record.sockets)
        if not running:
            return sockets.is_dir()
        return os.path.lexists(sockets / f".s.PGSQL.{SOCKET_PORT}")

    # -- small files ----------------------------------------------------------------------------

    def _read(self) -> ServerRecord | None:
        try:
            return ServerRecord(**json.loads((self.folder / "server.json").read_text()))
        except FileNotFoundError:
            return None
        except (TypeError, ValueError) as error:
            raise StorageUnreachable(
                f"{self.folder / 'server.json'} is damaged ({error}); delete it if it names no "
                "other directory than this one"
            ) from error

    def _write(self, record: ServerRecord) -> None:
        self._write_file("server.json", json.dumps(asdict(record), indent=1) + "\n")

    def _write_secret(self, password: str) -> None:
        self._write_file("password", password + "\n")

    def _write_file(self, name: str, text: str) -> None:
        fd, beside = tempfile.mkstemp(dir=self.folder)  # mode 0600
        try:
            with os.fdopen(fd, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(self.folder / name)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise


def parse_listen(text: str) -> tuple[str, int] | None:
    """``HOST:PORT`` (``[::]:5433`` for IPv6) as a pair; None for ``off`` and for nothing.

    Raises:
        ParoptError: it is neither.
    """
    if text in ("", "off"):
        return None
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536 or not _is_host(host):
        raise ParoptError(
            f"--listen takes HOST:PORT, say 0.0.0.0:5433, or `off` to close it; not {text!r}"
        )
    return host, int(port)


def format_listen(address: tuple[str, int] | None) -> str:
    """The text that :func:`parse_listen` reads; empty for None."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(host: str) -> bool:
    """Letters of names and addresses only: it is written into PostgreSQL's configuration."""
    return all(c.isalnum() or c in ".-:_%" for c in host)


def _check_port_free(listen: str) -> None:
    address = parse_listen(listen)
    assert address is not None
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            *address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise ParoptError(
            f"--listen {listen} cannot be had ({error.strerror}); choose another port, or an "
            "address of this machine"
        ) from error


def _connects(record: ServerRecord) -> bool:
    """Whether somebody listens; a postmaster just killed may still look alive otherwise."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(Path(record.sockets, f".s.PGSQL.{SOCKET_PORT}")))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True  # its socket was removed: it must be restarted, not waited for
    return True


def _link(sockets: Path, port: int) -> None:
    """Keep the socket's name across ports, so that connections come back after ``--listen``."""
    link = sockets / f".s.PGSQL.{SOCKET_PORT}"
    link.unlink(missing_ok=True)
    link.symlink_to(f".s.PGSQL.{port}")


def _boot_id() -> str:
    """Which run of which kernel this is: alike in all containers of a machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
    return hashlib.sha256(boot.encode()).hexdigest()[:16]


def _remove_if_forsaken(area: Path) -> None:
    """Remove a root's data area whose home was deleted, as tests and containers do."""
    try:
        folder = Path((area / "home").read_text())
        record = folder / "server.json"
        if record.exists() and json.loads(record.read_text())["area"] == str(area):
            return
        if time.time() - area.stat().st_mtime < 3600:
            return  # perhaps just being made
        shutil.rmtree(area)  # a server that still runs there sees that, and ends
    except (OSError, ValueError, KeyError):
        return


def describe_home(home: Path) -> str:
    """The home as a person would write it."""
    try:
        return f"~/{home.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(home)
