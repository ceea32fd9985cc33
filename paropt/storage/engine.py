"""The way to PostgreSQL: engines, Optuna's tables, and errors without passwords."""

from __future__ import annotations

import hashlib
import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from paropt.errors import StorageUnreachable, StudyError

if TYPE_CHECKING:
    import optuna

CONNECT_TIMEOUT = 10  # seconds
STATEMENT_TIMEOUT = 60
LOCK_TIMEOUT = 20
IDLE_TIMEOUT = 30  # of a transaction whose process was stopped: it frees its locks then

_SETTINGS = {
    "timezone": "UTC",
    "statement_timeout": f"{STATEMENT_TIMEOUT}s",
    "lock_timeout": f"{LOCK_TIMEOUT}s",
    "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT}s",
}
_SET = "; ".join(f"SET {name} = '{value}'" for name, value in _SETTINGS.items())


def parse_url(url: str | URL) -> URL:
    """The URL of a PostgreSQL for psycopg2; a query such as ``?host=/run/pg`` is kept.

    Raises:
        StudyError: not a URL, or of another database.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        # the text may hold a password, so it is not repeated
        raise StudyError(
            "the storage is no URL of the form postgresql://user@host:5432/database"
        ) from None
    backend = parsed.get_backend_name()
    if backend not in ("postgresql", "postgres"):
        raise StudyError(f"paropt keeps studies in PostgreSQL (postgresql://…), not in {backend}")
    return parsed.set(drivername="postgresql+psycopg2")


def place(url: str | URL) -> str:
    """Host and port of a URL, as errors name them."""
    parsed = parse_url(url)
    host = parsed.host or parsed.query.get("host", "the local socket")
    return f"{host}:{parsed.port or 5432}" if parsed.host else str(host)


def engine_kwargs(application_name: str) -> dict[str, Any]:
    """How every connection of paropt is made.

    Pre-ping because a connection that the server dropped between two epochs must not cost the
    trial; UTC because Optuna compares naive times; timeouts so that nothing waits for ever.
    """
    return {
        "pool_size": 2,
        "max_overflow": 2,
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "pool_timeout": LOCK_TIMEOUT,
        "pool_events": [(_set_session, "connect")],
        "connect_args": connect_args(application_name),
    }


def connect_args(application_name: str) -> dict[str, Any]:
    """What libpq is told beside the URL."""
    return {
        "application_name": application_name[:63],
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives": 1,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }


def _set_session(connection: Any, record: object) -> None:
    """The settings of a new connection: PgBouncer drops those that come with its beginning."""
    before, connection.autocommit = connection.autocommit, True  # else a rollback undoes them
    with connection.cursor() as cursor:
        cursor.execute(_SET)
    connection.autocommit = before


def open_engine(url: str | URL, application_name: str = "paropt") -> Engine:
    """A pool of up to four connections; nothing is connected yet."""
    return sqlalchemy.create_engine(parse_url(url), **engine_kwargs(application_name))


@contextmanager
def storage_errors(url: str | URL) -> Iterator[None]:
    """Turns what the database's driver raises into :class:`StorageUnreachable`.

    Everything that calls paropt's own statements again would cure counts: no answer, a dropped
    connection, a restart, a timeout, a full disk, a standby. What the database refuses because its
    tables are not as they were made is a :class:`StudyError`. Errors of another kind pass.
    """
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError) as error:
        cause = getattr(error, "orig", None) or error
        raise StorageUnreachable(_sentence(url, cause)) from error
    except exc.DBAPIError as error:
        if error.connection_invalidated:
            raise StorageUnreachable(_sentence(url, error.orig)) from error
        if isinstance(error, exc.ProgrammingError | exc.DataError | exc.IntegrityError):
            raise StudyError(
                f"the tables at {place(url)} are not as this paropt needs them "
                f"({_reason(url, error.orig)}); use the versions of paropt and Optuna that made "
                "them, or another database"
            ) from error
        raise


def _sentence(url: str | URL, cause: BaseException | None) -> str:
    return f"no answer from PostgreSQL at {place(url)}: {_reason(url, cause)}"


def _reason(url: str | URL, cause: BaseException | None) -> str:
    reason = next(iter(str(cause).strip().splitlines()), "") or type(cause).__name__
    password = parse_url(url).password
    return reason.replace(password, "***") if password else reason


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end; database trouble is :class:`StorageUnreachable`."""
    with storage_errors(engine.url), engine.begin() as connection:
        yield connection


def lock_key(*words: object) -> int:
    """The number of an advisory lock: PostgreSQL takes a signed 64-bit integer."""
    digest = hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def lock(connection: Connection, *words: object) -> None:
    """Waits for an advisory lock that this transaction then holds to its end."""
    connection.execute(
        sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock_key("paropt", *words)}
    )


def initialise(url: str | URL, application_name: str = "paropt") -> None:
    """Makes Optuna's tables where they are missing; any number of processes may call it at once.

    Raises:
        StorageUnreachable: no answer.
        StudyError: the tables are of another version of Optuna, or may not be made.
    """
    importlib.import_module("optuna.storages")  # a second's work, not to be done under the lock

    engine = open_engine(url, application_name)
    try:
        with transaction(engine) as connection:
            # sixty processes that find an empty database wait here for the first
            connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '60s'"))
            lock(connection, "schema")
            missing = not sqlalchemy.inspect(connection).has_table("alembic_version")
            if missing:
                _open_rdb(url, application_name, create=True)._backend.engine.dispose()
        if not missing:  # Optuna compares its version with theirs
            _open_rdb(url, application_name, create=False)._backend.engine.dispose()
    finally:
        engine.dispose()


def open_rdb(url: str | URL, application_name: str = "paropt") -> optuna.storages._CachedStorage:
    """Optuna's own view of the studies, cached, for the dashboard; :func:`initialise` came first.

    Raises:
        StorageUnreachable: no answer.
        StudyError: the tables are of another version of Optuna.
    """
    return _open_rdb(url, application_name, create=False)


def _open_rdb(
    url: str | URL, application_name: str, *, create: bool
) -> optuna.storages._CachedStorage:
    import optuna

    parsed = parse_url(url)
    # Optuna runs the URL through str.format
    text = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    with storage_errors(parsed), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return optuna.storages._CachedStorage(
                optuna.storages.RDBStorage(
                    text,
                    engine_kwargs=engine_kwargs(application_name),
                    skip_table_creation=not create,
                )
            )
        except optuna.exceptions.StorageInternalError as error:
            if isinstance(error.__cause__, exc.DBAPIError):
                raise error.__cause__ from None
            raise StorageUnreachable(_sentence(parsed, error.__cause__ or error)) from error
        except exc.ProgrammingError as error:
            reason = str(error.orig).strip().splitlines()[0]
            raise StudyError(
                f"the database at {place(parsed)} refused to make or read the tables: {reason}"
            ) from error
        except RuntimeError as error:
            raise StudyError(
                f"the tables at {place(parsed)} were made by another version of Optuna; "
                f"run 'optuna storage upgrade' or use another database ({error})"
            ) from error
