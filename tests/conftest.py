"""What tests share: a PostgreSQL over TCP, a paropt home, paropt as a process, places of data."""

from __future__ import annotations

import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from forked import Forks

    from paropt.storage.embedded.binaries import Binaries

# small tensors: threads cost more than they give; read when torch is first imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell makes its background jobs deaf to Ctrl-C, and what a test starts would inherit that
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# set by .ci/run where everything that a test may need is at hand,
_NO_SKIP = bool(os.environ.get("PAROPT_NO_SKIP"))
# another PostgreSQL than the embedded one's: the directory of its programs
_PROGRAMS = os.environ.get("PAROPT_TEST_POSTGRES", "")
# and this where a browser could not be had after all: the reason
_NO_BROWSER = bool(os.environ.get("PAROPT_NO_BROWSER"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test is a failed one when PAROPT_NO_SKIP is set."""
    report = yield
    # the extra "text" is large, and what it is for is tested with a small encoder as well
    excused = (_NO_BROWSER and item.get_closest_marker("browser") is not None) or (
        item.get_closest_marker("encoder") is not None
    )
    if _NO_SKIP and not excused and report.skipped and call.excinfo is not None:
        report.outcome = "failed"
        report.longrepr = f"skipped though PAROPT_NO_SKIP is set: {call.excinfo.value}"
    return report


def _open_directory(prefix: str) -> Path:
    """A temporary directory that the server's user may pass through: root's ``tmp_path`` isn't."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    path.chmod(0o711)
    return path


class PostgresServer:
    """A real PostgreSQL server on a free loopback port, which a test may stop and start.

    ``url`` is a URL with password; the role may create databases. Nothing is synced to the disk.
    """

    max_connections = 300

    def __init__(self, binaries: Binaries | None = None) -> None:
        from paropt.storage.embedded.binaries import find_binaries
        from paropt.storage.embedded.cluster import Cluster

        self.directory = _open_directory("paropt-test-server-")
        binaries = binaries or find_binaries()
        if _PROGRAMS:
            binaries = replace(binaries, directory=Path(_PROGRAMS))
        run = self.directory / "run"
        run.mkdir(mode=0o700)
        binaries.own(run)
        self.cluster = Cluster(self.directory / "data", run, binaries)
        self.password = secrets.token_urlsafe(12)
        self.port = _free_port()
        self.directory.chmod(0o711)
        self.cluster.initialise(
            self.password, sync=False, statements=["ALTER ROLE paropt CREATEDB"]
        )
        self._names = (f"test{number}" for number in itertools.count())
        self.start()

    @property
    def url(self) -> str:
        return self.url_of("paropt")

    def url_of(self, database: str) -> str:
        return f"postgresql://paropt:{self.password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings: dict[str, str | int] = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": self.max_connections,
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "autovacuum": "off",  # its workers are the server's own: no other role may end them
            "timezone": "Asia/Tokyo",  # nothing may depend on it
        }
        self.cluster.start(settings, ["host all paropt 127.0.0.1/32 scram-sha-256"])

    def stop(self) -> None:
        """Stop it, ending all connections."""
        self.cluster.stop()

    def create_database(self) -> str:
        """The URL of a new, empty database."""
        name = next(self._names)
        self._execute(f"CREATE DATABASE {name}")
        return self.url_of(name)

    def drop_database(self, url: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        import psycopg2

        connection = psycopg2.connect(self.url)
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's server. Don't stop it; a test that must, takes ``own_postgres_server``."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def new_postgres_server() -> type[PostgresServer]:
    """Makes servers; whoever makes one removes it."""
    return PostgresServer


@pytest.fixture
def own_postgres_server() -> Iterator[PostgresServer]:
    """A server that this test may stop, start and kill."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def postgres_url(postgres_server: PostgresServer) -> str:
    """The URL (with password) of the session's server over TCP; its role may create databases."""
    return postgres_server.url


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh, empty database for this test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def module_database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh database that the tests of a module share."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture(autouse=True)
def _no_paropt_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own storage, home and defaults stay out of the tests."""
    for name in list(os.environ):
        if name.startswith(("PAROPT_", "PG")) and name not in ("PAROPT_VECTORS", "PAROPT_DATA"):
            monkeypatch.delenv(name)


@pytest.fixture
def paropt_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty PAROPT_HOME, set in the environment; its server is stopped at the end."""
    from paropt.storage.embedded.server import EmbeddedServer

    directory = _open_directory("paropt-test-home-")
    home = directory / "home"
    monkeypatch.setenv("PAROPT_HOME", str(home))
    yield home
    assert EmbeddedServer(home).stop_if_unused(), "a process of this test still runs"
    shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Done:
    """How a paropt process ended."""

    rc: int
    out: str
    err: str


@pytest.fixture(scope="session")
def _forks() -> Iterator[Forks]:
    from forked import Forks

    forks = Forks()
    yield forks
    forks.close()


@pytest.fixture
def run_paropt(tmp_path: Path, _forks: Forks) -> Callable[..., Done]:
    """``run_paropt("status", "--json", env={…}, timeout=60)``: paropt as a process, to its end.

    It runs in ``tmp_path`` unless ``cwd`` says otherwise, with this process's environment and
    ``env`` on top (None removes a name).
    """

    def run(
        *arguments: str | Path,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: str = "",
        timeout: float = 120,
    ) -> Done:
        wanted = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
        environment = {name: value for name, value in wanted.items() if value is not None}
        words = [str(argument) for argument in arguments]
        return Done(*_forks.run(words, environment, cwd or tmp_path, stdin, timeout))

    return run


@pytest.fixture(scope="session")
def vectors_dir() -> Path:
    """The recorded GRU4Rec vectors."""
    return _directory_of("PAROPT_VECTORS")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The real data sets."""
    return _directory_of("PAROPT_DATA")


def _directory_of(name: str) -> Path:
    value = os.environ.get(name)
    if not value:
        pytest.skip(f"{name} is unset")
    path = Path(value).resolve()
    if not path.is_dir():
        pytest.skip(f"{name}={value} is no directory")
    return path


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset: 400 sessions over four days that walk along a ring of 30 items."""
    from rings import write_ring

    from paropt.data.prepare import prepare

    directory = tmp_path_factory.mktemp("ring")
    log = write_ring(directory / "log.tsv", 400, random.Random(7))
    return prepare([log], directory / "data").path
