"""Opening storages: what answers, and what is said when nothing does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import make_url, text

from paropt.errors import EXIT_STORAGE, ParoptError, StorageUnreachable
from paropt.storage import connect as storage_module
from paropt.storage.connect import open_storage, parse_url, show


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql(database_url: str, scheme: str) -> None:
    url = database_url.replace("postgresql", scheme, 1)
    with open_storage(url) as storage, storage.engine().connect() as connection:
        assert connection.execute(text("SHOW timezone")).scalar_one() == "UTC"
        assert not storage.is_embedded


def test_environment_names_the_storage(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(database_url) as storage:
        (name, value), *rest = storage.environment().items()
        assert not rest
    monkeypatch.setenv(name, value)
    with open_storage(None) as again:
        assert again.url == storage.url
        with pytest.raises(ParoptError, match="postgresql://"):
            open_storage("sqlite:///studies.db")  # the option comes first


@pytest.mark.parametrize(
    "url", ["sqlite:///studies.db", "mysql://root:secret@host/db", "postgresql+asyncpg://h/d"]
)
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ParoptError, match="PostgreSQL: postgresql://") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["studies.db", "host:5432", "postgresql://user:secret@h:port/d"])
def test_what_is_no_url_is_not_repeated(url: str) -> None:
    with pytest.raises(ParoptError, match="not a URL") as caught:
        open_storage(url)
    assert "secret" not in str(caught.value)


def test_shown_url_has_no_password() -> None:
    for url in (
        "postgresql://me:secret@db.example:5433/shop?sslmode=require",
        "postgresql://me@db.example:5433/shop?sslmode=require&password=secret",
    ):
        parsed = parse_url(url)
        assert parsed.password == "secret"
        assert show(parsed) == "postgresql://me@db.example:5433/shop?sslmode=require"


def test_missing_database_tells_how_to_make_it(database_url: str) -> None:
    url = make_url(database_url).set(database="nowhere")
    with pytest.raises(StorageUnreachable, match="'nowhere' does not exist") as caught:
        open_storage(url.render_as_string(hide_password=False))
    assert f"createdb -h 127.0.0.1 -p {url.port} -U paropt nowhere" in str(caught.value)
    assert str(url.password) not in str(caught.value)
    assert caught.value.exit_code == EXIT_STORAGE


def test_wrong_password_and_none(database_url: str) -> None:
    for password in ("not-this-one", None):
        url = make_url(database_url)._replace(password=password)
        with pytest.raises(StorageUnreachable, match="PGPASSWORD") as caught:
            open_storage(url.render_as_string(hide_password=False))
        assert "not-this-one" not in str(caught.value)


def test_password_from_the_environment(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_url(database_url)
    monkeypatch.setenv("PGPASSWORD", str(url.password))
    with open_storage(url._replace(password=None).render_as_string()) as storage:
        assert storage.url.password is None


def test_nobody_answers() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        with pytest.raises(StorageUnreachable, match=f"127.0.0.1:{port}") as caught:
            open_storage(f"postgresql://me:secret@127.0.0.1:{port}/shop")
    assert "secret" not in str(caught.value)


def test_unknown_host() -> None:
    with pytest.raises(StorageUnreachable, match=r"'nowhere\.invalid'"):
        open_storage("postgresql://me@nowhere.invalid/shop")


def test_waits_for_a_database_that_comes_up(own_postgres_server: Any) -> None:
    own_postgres_server.stop()
    with pytest.raises(StorageUnreachable):
        open_storage(own_postgres_server.url)
    tried = threading.Event()
    probe = storage_module.time.sleep

    def sleep(seconds: float) -> None:
        tried.set()
        probe(seconds)

    def start() -> None:
        tried.wait()
        own_postgres_server.start()

    starter = threading.Thread(target=start)
    starter.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_module.time, "sleep", sleep)
        told: list[str] = []
        with open_storage(own_postgres_server.url, wait=120, note=told.append) as storage:
            assert "127.0.0.1" in storage.describe()
    starter.join()
    (said,) = told
    assert said.startswith("no PostgreSQL answers at 127.0.0.1:")
    assert said.endswith("; it is waited for, 120 s at most")


def test_old_server_is_refused(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_module, "OLDEST", 99)
    with pytest.raises(StorageUnreachable, match="paropt needs 99 or newer"):
        open_storage(database_url)


def test_storage_tells_where_studies_are(postgres_url: str, run_paropt: Callable[..., Any]) -> None:
    secret = make_url(postgres_url).password
    assert secret is not None
    environment = {"PAROPT_STORAGE": postgres_url}
    plain = run_paropt("storage", "--url", env=environment)
    assert (plain.rc, plain.err) == (0, "")
    assert secret not in plain.out
    assert run_paropt("storage", env=environment).out == plain.out
    whole = run_paropt("storage", "--url", "--password", env=environment)
    assert whole.out.strip() == postgres_url
    assert run_paropt("storage", "--password", env=environment).rc == 2
