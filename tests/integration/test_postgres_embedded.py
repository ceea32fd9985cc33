"""The embedded server: shared, stopped by the last, and back after whatever killed it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from paropt.errors import ParoptError, StorageUnreachable
from paropt.storage.connect import Storage, open_storage
from paropt.storage.embedded.binaries import find_binaries
from paropt.storage.embedded.server import EmbeddedServer

HOLDER = """
import sys
from sqlalchemy import text
from paropt.storage.connect import open_storage
with open_storage() as storage:
    with storage.engine().begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(1)"))
        connection.execute(text("CREATE TABLE IF NOT EXISTS seen (pid int)"))
        connection.execute(text("INSERT INTO seen VALUES (pg_backend_pid())"))
    print("ready", flush=True)
    sys.stdin.read()
"""

Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def made_home() -> Iterator[Path]:
    """A home whose database was made, its server stopped; copied, it saves a second per test."""
    directory = Path(tempfile.mkdtemp(prefix="paropt-test-made-", dir="/tmp"))
    directory.chmod(0o711)
    server = EmbeddedServer(directory / "home")
    server.join()
    server.leave()
    yield directory / "home"
    shutil.rmtree(directory)


@pytest.fixture
def used_home(paropt_home: Path, made_home: Path) -> Path:
    """A ``paropt_home`` that was used before."""
    subprocess.run(["cp", "-a", made_home, paropt_home], check=True)
    record = paropt_home / "postgres/server.json"
    record.write_text(record.read_text().replace(str(made_home), str(paropt_home)))
    return paropt_home


@pytest.fixture
def start_holder(paropt_home: Path) -> Iterator[Start]:
    """Starts processes that hold the embedded server until their stdin closes."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    line = process.stdout.readline()
    if line != "ready\n":
        _, errors = process.communicate()
        pytest.fail(f"the holder did not get the server: {errors}")


def _leave(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


def _postmaster(home: Path) -> int | None:
    try:
        return int((home / "postgres/data/postmaster.pid").read_text().split()[0])
    except FileNotFoundError:
        return None


def _rows(storage: Storage) -> int:
    with storage.engine().connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM seen")).scalar_one())


def test_ten_at_once_on_an_empty_home(start_holder: Start, paropt_home: Path) -> None:
    holders = [start_holder() for _ in range(10)]
    for holder in holders:
        _ready(holder)
    assert _postmaster(paropt_home) is not None
    for holder in holders:
        _leave(holder)
    assert _postmaster(paropt_home) is None
    with open_storage() as storage:
        assert _rows(storage) == 10


def test_the_last_who_leaves_stops_it(start_holder: Start, used_home: Path) -> None:
    first, second = start_holder(), start_holder()
    _ready(first)
    _ready(second)
    server = _postmaster(used_home)
    _leave(first)
    assert _postmaster(used_home) == server
    with open_storage():
        pass
    assert _postmaster(used_home) == server
    _leave(second)
    assert _postmaster(used_home) is None


def test_killed_holders_leave_no_trace(start_holder: Start, used_home: Path) -> None:
    first, second = start_holder(), start_holder()
    _ready(first)
    _ready(second)
    server = _postmaster(used_home)
    first.kill()
    first.wait()
    _leave(second)
    assert _postmaster(used_home) is None, "a killed holder still counted"

    third = start_holder()
    _ready(third)
    survivor = _postmaster(used_home)
    assert survivor not in (None, server)
    third.kill()
    third.wait()
    with open_storage() as storage:  # nobody stopped it: it is found, and then stopped
        assert _postmaster(used_home) == survivor
        assert _rows(storage) == 3
    assert _postmaster(used_home) is None


def test_crashed_server_comes_back_with_its_data(start_holder: Start, used_home: Path) -> None:
    holder = start_holder()
    _ready(holder)
    server = _postmaster(used_home)
    assert server is not None
    os.kill(server, signal.SIGKILL)
    with open_storage() as storage:
        assert _rows(storage) == 1
        assert _postmaster(used_home) != server


def test_a_dead_servers_lock_does_not_stop_the_next(used_home: Path, postgres_server: Any) -> None:
    """Its pid may be another server's by now, or that of a process nobody has reaped yet."""
    alive = postgres_server.cluster.postmaster()
    sockets = json.loads((used_home / "postgres" / "server.json").read_text())["sockets"]
    lock = Path(sockets, ".s.PGSQL.5432.lock")
    lock.write_text(f"{alive.pid}\n/gone\n0\n5432\n{sockets}\n\n")
    with open_storage() as storage:
        assert _postmaster(used_home) not in (None, alive.pid)
        with storage.engine().connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_who_uses_a_server_can_bring_it_back_after_its_crash(used_home: Path) -> None:
    with open_storage() as storage:
        with storage.engine().begin() as connection:
            connection.execute(text("CREATE TABLE seen AS SELECT 1 AS once"))
        server = _postmaster(used_home)
        assert server is not None
        os.kill(server, signal.SIGKILL)
        rows = None
        # a slot asks again, too: a server just killed may look alive, and one of its own answer
        while rows is None or _postmaster(used_home) in (None, server):
            storage.revive()
            with contextlib.suppress(OperationalError):
                rows = _rows(storage)
        assert rows == 1
        running = _postmaster(used_home)
        assert running not in (None, server)
        storage.revive()
        assert _postmaster(used_home) == running


def test_pid_of_a_dead_server_may_belong_to_another_program(used_home: Path) -> None:
    """After a reboot it often does, and PostgreSQL alone would refuse to start."""
    user = find_binaries().user
    other = subprocess.Popen(["sleep", "600"], user=user.uid if user else None)
    try:
        lie = used_home / "postgres/data/postmaster.pid"
        data = used_home / "postgres/data"
        lie.write_text(f"{other.pid}\n{data}\n1\n5432\n\n\n\nready\n")
        find_binaries().own(lie)
        with open_storage() as storage, storage.engine().connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        other.kill()
        other.wait()


def test_ctrl_c_in_the_terminal_does_not_reach_it(start_holder: Start, used_home: Path) -> None:
    holder = start_holder()
    _ready(holder)
    server = _postmaster(used_home)
    assert server is not None
    assert os.getsid(server) != os.getsid(holder.pid)
    with open_storage() as storage:
        os.killpg(holder.pid, signal.SIGINT)
        holder.wait()
        assert _rows(storage) == 1
        assert _postmaster(used_home) == server


def test_nobody_else_gets_in(used_home: Path) -> None:
    with open_storage() as storage:
        sockets = Path(str(storage.url.query["host"]))
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        password = used_home / "postgres/password"
        assert stat.S_IMODE(password.stat().st_mode) == 0o600
        secret = password.read_text().strip()
        assert secret == storage.url.password
        for shown in (repr(storage), storage.describe(), str(storage.url)):
            assert secret not in shown
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                assert secret.encode() not in process.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(host=str(sockets), user="paropt", dbname="paropt", password="guess")
        with pytest.raises(psycopg2.OperationalError, match="no pg_hba"):
            psycopg2.connect(host=str(sockets), user="postgres", dbname="postgres")
        with storage.engine().connect() as connection:
            role = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
            assert connection.execute(text(role)).scalar_one() is False
            assert connection.execute(text("SHOW listen_addresses")).scalar_one() == ""


def test_lost_password_file_is_replaced(used_home: Path) -> None:
    (used_home / "postgres/password").unlink()
    with open_storage() as storage, storage.engine().connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_path_too_long_for_a_socket(paropt_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = paropt_home / ("long" * 20) / ("longer" * 10)
    for parent in (*reversed(home.parents[:2]), home):
        parent.mkdir(exist_ok=True)
    monkeypatch.setenv("PAROPT_HOME", str(home))
    with open_storage() as storage:
        sockets = Path(str(storage.url.query["host"]))
        assert not sockets.is_relative_to(home)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    with open_storage() as storage:
        assert storage.url.query["host"] == str(sockets), "processes must agree on one place"
    sockets.rmdir()  # as a cleaner of /tmp does, or a reboot
    with open_storage() as storage, storage.engine().connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
        sockets = Path(str(storage.url.query["host"]))
    sockets.rmdir()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's server runs as another user")
def test_home_closed_to_the_servers_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    monkeypatch.setenv("PAROPT_HOME", str(home))
    with open_storage() as storage, storage.engine().begin() as connection:
        connection.execute(text("CREATE TABLE seen (pid int)"))
    area = Path(json.loads((home / "postgres/server.json").read_text())["area"])
    assert not area.is_relative_to(home)
    with open_storage() as storage:
        assert _rows(storage) == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    _remove(area)


def _remove(area: Path) -> None:
    assert area.parent == Path("/var/lib/paropt/servers")
    shutil.rmtree(area)


@pytest.mark.parametrize("place", ["/proc/paropt", "/dev/null/paropt"])
def test_home_that_cannot_be_made(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_HOME", place)
    with pytest.raises(StorageUnreachable, match="PAROPT_HOME"):
        open_storage()


def test_data_of_another_version(used_home: Path) -> None:
    (used_home / "postgres/data/PG_VERSION").write_text("17\n")
    with pytest.raises(StorageUnreachable, match=r"PostgreSQL 17.*PostgreSQL 18"):
        open_storage()


def test_data_in_use_on_another_machine(used_home: Path) -> None:
    """A home on a network file system: two servers on it would destroy the data."""
    record = used_home / "postgres/server.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"host": "else", "boot": "x"}))
    pid = used_home / "postgres/data/postmaster.pid"
    pid.write_text("99999999\n")
    with pytest.raises(StorageUnreachable, match="in use on the machine 'else'"):
        open_storage()
    pid.unlink()
    with open_storage() as storage:
        assert storage.is_embedded


def test_server_that_cannot_start_says_why(used_home: Path) -> None:
    (used_home / "postgres/data/global/pg_control").unlink()
    with pytest.raises(StorageUnreachable, match="could not find the database system") as caught:
        open_storage()
    assert "\n" not in str(caught.value)


def test_failed_initdb_leaves_nothing(paropt_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from paropt.storage.embedded.binaries import Binaries

    run = Binaries.run

    def full_disk(self: Binaries, program: str, *arguments: str, **options: Any) -> Any:
        if program == "initdb":
            script = 'echo "initdb: error: could not write: No space left on device"; exit 1'
            return subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
        return run(self, program, *arguments, **options)

    monkeypatch.setattr(Binaries, "run", full_disk)
    with pytest.raises(StorageUnreachable, match="No space left on device"):
        open_storage()
    assert not list(paropt_home.glob("postgres/data*"))
    monkeypatch.undo()
    monkeypatch.setenv("PAROPT_HOME", str(paropt_home))
    with open_storage() as storage:
        assert storage.is_embedded


# -- --listen -----------------------------------------------------------------------------------


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_listen_opens_tcp_until_told_otherwise(used_home: Path, free_port: int) -> None:
    with open_storage() as already, open_storage(listen=f"127.0.0.1:{free_port}") as storage:
        secret = storage.url.password
        assert secret is not None
        line = storage.worker_url()
        assert line == f"postgresql://paropt@127.0.0.1:{free_port}/paropt"
        # the connection of who was there before breaks, and comes back at the same place
        with already.engine().connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        with pytest.raises(StorageUnreachable, match="password") as caught:
            open_storage(line.replace("@", ":wrong-one@"))
        assert "wrong-one" not in str(caught.value)
    with open_storage() as storage:
        assert storage.listen == f"127.0.0.1:{free_port}"
        os.environ["PGPASSWORD"] = secret
        try:
            with open_storage(line) as remote:
                assert not remote.is_embedded
                assert secret not in remote.describe()
        finally:
            del os.environ["PGPASSWORD"]
    with open_storage(listen="off") as storage:
        assert storage.listen is None
        with pytest.raises(StorageUnreachable, match=f"127.0.0.1:{free_port}"):
            open_storage(line)


@pytest.mark.usefixtures("used_home")
def test_listen_on_a_taken_port_changes_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ParoptError, match=f"127.0.0.1:{port} cannot be had"):
            open_storage(listen=f"127.0.0.1:{port}")
    with open_storage() as storage:
        assert storage.listen is None


@pytest.mark.parametrize("address", ["5433", "host:", ":5433", "host:0", "host:99999", "a'b:5433"])
def test_listen_address_that_is_none(address: str, paropt_home: Path) -> None:
    with pytest.raises(ParoptError, match="HOST:PORT"):
        open_storage(listen=address)
    assert not paropt_home.exists()


@pytest.mark.usefixtures("used_home")
def test_listen_needs_the_embedded_server() -> None:
    with pytest.raises(ParoptError, match="--listen"):
        open_storage("postgresql://paropt@localhost/paropt", listen="0.0.0.0:5433")


def test_child_opens_the_same_storage(used_home: Path) -> None:
    with open_storage() as storage:
        child = subprocess.run(
            [sys.executable, "-c", HOLDER],
            env={"PATH": os.environ["PATH"], **storage.environment()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        assert _rows(storage) == 1
