"""Is there a connection pooler before PostgreSQL, and does it lend whole sessions?

paropt's sessions keep their own time zone and timeouts. A pooler that lends a server per
transaction (PgBouncer's ``pool_mode = transaction``) lets a session's settings land in other
clients' sessions, and theirs in ours: statements would run without our timeouts, now and then. So
such a pool is found out and refused. What a pooler calls itself is not asked: that takes rights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
from sqlalchemy import URL

from paropt.errors import StorageUnreachable
from paropt.storage.engine import connect_args

ROUNDS = 5  # a pool that others keep busy may hide once; it does not five times


def lends_transactions(url: URL) -> bool:
    """Whether two connections to ``url`` may find themselves in one server process.

    Raises:
        psycopg2.Error: no answer.
    """
    with _session(url) as first:
        if _pid(first) == first.info.backend_pid:
            return False  # PostgreSQL itself: a pooler answers with a number of its own
        with _session(url) as second:
            return any(_shared(first, second) for _ in range(ROUNDS))


def _shared(first: Any, second: Any) -> bool:
    """Whether a server process that was ``first``'s a moment ago is somebody else's now.

    A pool that takes turns gives ``first`` another process at once; one that lends what came back
    last gives ``second`` the process of ``first``, which then needs another. Either shows.
    """
    was = _pid(first)
    if _pid(first) != was:
        return True
    try:
        _run(second, "BEGIN")  # a transaction, which keeps its server to the end
    except psycopg2.OperationalError:
        _pid(first)  # it is not that nobody is there: a pool of single statements hangs up
        return True
    shared = _pid(second) == was or _pid(first) != was
    _run(second, "ROLLBACK")
    return shared


def _pid(connection: Any) -> int:
    """The server process of this statement, or of the transaction that was begun."""
    return int(_run(connection, "SELECT pg_backend_pid()"))


def _run(connection: Any, statement: str) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0] if cursor.description else None


@contextlib.contextmanager
def _session(url: URL) -> Iterator[Any]:
    arguments = url.get_dialect()().create_connect_args(url)[1]
    connection = psycopg2.connect(**{**arguments, **connect_args("paropt")})
    connection.autocommit = True  # a transaction for each statement
    try:
        yield connection
    finally:
        connection.close()


def refuse_transaction_pools(url: URL, name: str) -> None:
    """See :func:`lends_transactions`; ``name`` is the storage's name for people.

    Raises:
        StorageUnreachable: a pool that doesn't lend whole sessions.
        psycopg2.Error: no answer.
    """
    if lends_transactions(url):
        raise StorageUnreachable(
            f"{name} is a connection pool that lends a server for a transaction at a time, and "
            "paropt needs whole sessions; set pool_mode = session for this database in PgBouncer, "
            "or name PostgreSQL itself"
        )
