"""Where studies live: the embedded server, or any PostgreSQL from version 14 on."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import psycopg2
from sqlalchemy import URL, Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from paropt.errors import ParoptError, StorageUnreachable
from paropt.machine.address import address_for_others
from paropt.storage.engine import open_engine
from paropt.storage.pooler import refuse_transaction_pools

if TYPE_CHECKING:
    from paropt.storage.embedded.server import EmbeddedServer

OLDEST = 14
# keys of a URL's query that must not be shown
SECRETS = {"password", "sslpassword"}
# what libpq says while a server is on its way up, or the network to it
PASSING = (
    "refused",
    "starting up",
    "shutting down",
    "recovery mode",
    "not yet accepting",
    "timeout expired",
    "timed out",
    "could not translate host name",
    "No such file or directory",
    "closed the connection unexpectedly",
    "unreachable",
    "too many clients",
    "remaining connection slots",
    # PgBouncer's words
    "server_login_retry",
    "cannot connect to server",
    "no more connections allowed",
    "query_wait_timeout",
)
# what is heard of PgBouncer's "query_wait_timeout" is mostly the last of these
POOL_IS_FULL = ("query_wait_timeout", "no more connections allowed", "closed the connection")


class Storage:
    """A place of studies that answered when it was opened. Close it, or use it with ``with``.

    Attributes:
        url: for SQLAlchemy, with the password if one was given (``repr`` hides it).
        is_embedded: it is paropt's own server, which stops with its last user.
        listen: ``HOST:PORT`` if the embedded server is open to other machines.
    """

    def __init__(self, url: URL, server: EmbeddedServer | None = None) -> None:
        self.url = url
        self._server = server
        self._engine: Engine | None = None

    @property
    def is_embedded(self) -> bool:
        return self._server is not None

    @property
    def listen(self) -> str | None:
        return self._server.listen if self._server else None

    def describe(self) -> str:
        """The storage's name for people: no password in it."""
        if self._server is None:
            return show(self.url)
        from paropt.storage.embedded.server import describe_home

        return f"embedded PostgreSQL in {describe_home(self._server.home)}"

    def environment(self) -> dict[str, str]:
        """What a child process needs in its environment to open the same storage with None."""
        if self._server is None:
            return {"PAROPT_STORAGE": self.url.render_as_string(hide_password=False)}
        return {"PAROPT_STORAGE": "", "PAROPT_HOME": str(self._server.home)}

    def options(self) -> list[str]:
        """The words by which a command finds it, without the password: none where it finds it
        anyway, as the embedded one or by the environment's PAROPT_STORAGE."""
        if self.is_embedded or os.environ.get("PAROPT_STORAGE"):
            return []
        return ["--storage", show(self.url)]

    def worker_url(self) -> str:
        """What another machine gives to ``--storage``, without the password.

        Raises:
            ParoptError: the embedded server isn't open to other machines.
        """
        if self._server is None:
            return show(self.url)
        if not self._server.listen:
            raise ParoptError(
                "the embedded database takes no connections from other machines; "
                "open it with --listen HOST:PORT"
            )
        from paropt.storage.embedded.cluster import DATABASE, ROLE
        from paropt.storage.embedded.server import parse_listen

        bound, port = parse_listen(self._server.listen) or ("", 0)
        host = address_for_others(bound) or bound
        return f"postgresql://{ROLE}@{f'[{host}]' if ':' in host else host}:{port}/{DATABASE}"

    def password_file(self) -> Path | None:
        """Where the embedded server's generated password is kept."""
        return self._server.password_file if self._server else None

    def engine(self) -> Engine:
        """The connections of paropt's own tables: few, checked before use, in UTC."""
        if self._engine is None:
            self._engine = open_engine(self.url)
        return self._engine

    def revive(self) -> None:
        """Start the embedded server again if it crashed; nothing where it is somebody else's."""
        if self._server is not None:
            with contextlib.suppress(ParoptError, OSError):  # whoever waits will try again
                self._server.revive()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None
        if self._server is not None:
            self._server.leave()

    def __enter__(self) -> Storage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Storage({self.describe()!r})"


def open_storage(
    url: str | None = None,
    *,
    listen: str | None = None,
    wait: float = 0,
    note: Callable[[str], None] = lambda line: None,
) -> Storage:
    """Open the storage that the user named, or the embedded server.

    Args:
        url: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``; None or empty takes
            ``PAROPT_STORAGE`` from the environment, and without that the embedded server. A
            password may come from ``PGPASSWORD`` or ``~/.pgpass`` instead.
        listen: ``HOST:PORT`` opens the embedded server to other machines, until ``off``.
        wait: seconds to wait for a database that isn't up yet; ``note`` is told so.

    Raises:
        StorageUnreachable: no answer, no such database, wrong password, or too old a server.
        ParoptError: not a PostgreSQL URL, or a ``listen`` that can't be had.
    """
    check_storage(url, listen)
    named = url or os.environ.get("PAROPT_STORAGE")
    if not named:
        return _open_embedded(listen)
    return _answering(Storage(parse_url(named)), wait, note)


def check_storage(url: str | None, listen: str | None) -> None:
    """Refuse what :func:`open_storage` could only refuse, before anything is made or asked.

    Raises:
        ParoptError: not a PostgreSQL URL, or a ``listen`` that can't be had.
    """
    named = url or os.environ.get("PAROPT_STORAGE")
    if named:
        parse_url(named)
    if not listen:
        return
    if named:
        raise ParoptError(
            "--listen opens paropt's embedded database, and --storage names another one; "
            "leave one of them out"
        )
    from paropt.storage.embedded.server import EmbeddedServer, paropt_home

    EmbeddedServer(paropt_home()).check_listen(listen)


def _open_embedded(listen: str | None) -> Storage:
    storage = _join_embedded(listen)
    with contextlib.suppress(StorageUnreachable):
        return _answering(storage, wait=3)
    # it died just after we found it running: start it anew
    return _answering(_join_embedded(None), wait=60)


def _join_embedded(listen: str | None) -> Storage:
    from paropt.storage.embedded.server import EmbeddedServer, paropt_home

    server = EmbeddedServer(paropt_home())
    server.join(listen)
    return Storage(server.url, server)


def _answering(
    storage: Storage, wait: float, note: Callable[[str], None] = lambda line: None
) -> Storage:
    try:
        _probe(storage, wait, note)
    except BaseException:
        storage.close()
        raise
    return storage


def parse_url(named: str) -> URL:
    """The URL of a PostgreSQL database, for SQLAlchemy's psycopg2.

    Raises:
        ParoptError: it is no URL, or one of another kind of database.
    """
    accepted = "paropt keeps studies in PostgreSQL: postgresql://USER@HOST:PORT/DATABASE"
    try:
        url = make_url(named)
    except (ArgumentError, ValueError) as error:
        raise ParoptError(f"--storage is not a URL; {accepted}") from error
    if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg2"):
        raise ParoptError(f"--storage is a {url.drivername} URL; {accepted}")
    query = dict(url.query)
    password = query.pop("password", None)
    if isinstance(password, str) and url.password is None:
        url = url.set(password=password)
    return url.set(drivername="postgresql+psycopg2", query=query)


def show(url: URL) -> str:
    """A URL for people: ``postgresql://user@host:port/database``, no password, no stars."""
    kept = {key: value for key, value in url.query.items() if key not in SECRETS}
    plain, _ = without_password(url.set(drivername="postgresql", query=kept))
    return plain.render_as_string()


def without_password(url: URL) -> tuple[URL, str | None]:
    """A URL without the password of its user, and that password."""
    plain = URL.create(
        url.drivername,
        username=url.username,
        host=url.host,
        port=url.port,
        database=url.database,
        query=url.query,
    )
    return plain, None if url.password is None else str(url.password)


def _probe(storage: Storage, wait: float, note: Callable[[str], None]) -> None:
    """Connect once, waiting as long as allowed, and look at what answers."""
    deadline = time.monotonic() + wait
    pause, said_so = 0.1, False
    while True:
        try:
            if not storage.is_embedded:
                refuse_transaction_pools(storage.url, storage.describe())
            with storage.engine().connect() as connection:
                version = connection.execute(text("SHOW server_version_num")).scalar_one()
                standby = connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one()
            break
        except (DBAPIError, psycopg2.Error) as error:
            said = str(error.orig if isinstance(error, DBAPIError) else error)
            left = deadline - time.monotonic()
            if left <= 0 or not any(sign in said for sign in PASSING):
                raise StorageUnreachable(_explain(storage, said)) from None
            if not said_so:
                note(f"{_explain(storage, said)}; it is waited for, {wait:g} s at most")
                said_so = True
            time.sleep(min(pause, left))
            pause = min(pause * 2, 2.0)
    if int(version) < OLDEST * 10_000:
        raise StorageUnreachable(
            f"{storage.describe()} is PostgreSQL {int(version) // 10_000}; "
            f"paropt needs {OLDEST} or newer"
        )
    if standby:
        raise StorageUnreachable(
            f"{storage.describe()} is a read-only standby; name the primary server"
        )


def _explain(storage: Storage, said: str) -> str:
    """One sentence out of libpq's message: what is wrong and what to do, never a password."""
    url, name = storage.url, storage.describe()
    where = f"{url.host or url.query.get('host') or 'localhost'}:{url.port or 5432}"
    first = said.strip().splitlines()[0] if said.strip() else "no reason given"
    if url.password:
        first = first.replace(str(url.password), "***")
    if storage.is_embedded:
        return f"{name} does not answer: {first}"
    if "password authentication failed" in said or "no password supplied" in said:
        return (
            f"{name} does not accept the password for {url.username or 'this user'}; set "
            "PGPASSWORD, or put it into ~/.pgpass or the URL in PAROPT_STORAGE"
        )
    if "does not exist" in said and "database" in said:
        server = f"-h {url.host or 'localhost'} -p {url.port or 5432}"
        user = f" -U {url.username}" if url.username else ""
        return (
            f"the database {url.database!r} does not exist on {where}; make it with "
            f"`createdb {server}{user} {url.database}`"
        )
    if "does not exist" in said and "role" in said:
        return f"{name} knows no user {url.username!r}; correct the URL, or create the user there"
    if "no pg_hba.conf entry" in said:
        return (
            f"{name} takes no connections of this user from this machine; "
            "add a line for it to the server's pg_hba.conf"
        )
    if told := _explain_tls(name, url, said):
        return told
    if any(sign in said for sign in POOL_IS_FULL):
        return (
            f"{name} took the connection and closed it; its log says why (a PgBouncer does so when "
            "its pool is full: raise its default_pool_size and max_client_conn, 4 per slot)"
        )
    if "could not translate host name" in said:
        host = str(url.host).rpartition("@")[2]  # before a second @ is the rest of a password
        return (
            f"the host {host!r} of --storage is not known here; check its name, and write an @ in a"
            " password as %40"
            if host != url.host
            else f"the host {host!r} of --storage is not known here; check its name"
        )
    if "too many clients" in said or "remaining connection slots" in said:
        return f"{name} has no connection left; raise its max_connections (4 per slot are enough)"
    if "refused" in said or "No such file" in said or "timeout expired" in said:
        return (
            f"no PostgreSQL answers at {where}; start it, or check the host and port of --storage"
        )
    return f"{name} cannot be used: {first}"


def _explain_tls(name: str, url: URL, said: str) -> str:
    """The same for what goes wrong before PostgreSQL is spoken; empty if that is not it."""
    if "does not match host name" in said:
        return (
            f"the certificate of {name} is not for the host {url.host!r}; name the host as the "
            "certificate does, or give the server one for this name"
        )
    if "root certificate file" in said:
        return (
            f"{name} cannot be verified, because the file of the certificate authority is not "
            "there; name it with &sslrootcert=FILE at the end of the URL"
        )
    if "certificate verify failed" in said:
        return (
            f"the certificate of {name} is not one of the certificate authority that "
            "sslrootcert names, or has expired; correct one of the two"
        )
    if "server does not support SSL" in said:
        return f"{name} does not speak TLS; turn it on there (ssl = on), or take sslmode out"
    return ""
