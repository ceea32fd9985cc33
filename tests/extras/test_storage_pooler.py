"""PgBouncer before PostgreSQL: whole sessions work, transactions are found out and refused."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from pgbouncer import PgBouncer
from sqlalchemy import make_url, text

from paropt.errors import StorageUnreachable
from paropt.storage.connect import open_storage, parse_url
from paropt.storage.pooler import lends_transactions

pytestmark = [pytest.mark.extras, pytest.mark.postgres]
# a pool that takes the newest of its servers, the oldest, or has just one
POOLS: list[dict[str, object]] = [{}, {"server_round_robin": 1}, {"default_pool_size": 1}]


@contextlib.contextmanager
def pooler(url: str, mode: str, **settings: object) -> Iterator[PgBouncer]:
    found = PgBouncer(url, mode, **settings)
    try:
        yield found
    finally:
        found.stop()


@pytest.mark.parametrize("settings", POOLS, ids=str)
def test_a_pool_of_transactions_is_refused(database_url: str, settings: dict[str, object]) -> None:
    with pooler(database_url, "transaction", **settings) as pool:
        with pytest.raises(StorageUnreachable, match="pool_mode = session") as caught:
            open_storage(pool.url)
        assert str(make_url(pool.url).password) not in str(caught.value)


def test_nothing_of_ours_is_left_in_a_refused_pool(database_url: str) -> None:
    with pooler(database_url, "transaction", default_pool_size=1) as pool:
        with pytest.raises(StorageUnreachable):
            open_storage(pool.url)
        connection = psycopg2.connect(pool.url)
        with connection.cursor() as cursor:
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == ("0",)
        connection.close()


def test_a_busy_pool_of_transactions_is_refused_every_time(database_url: str) -> None:
    over = threading.Event()

    def client(url: str) -> None:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not over.is_set():
                cursor.execute("SELECT pg_sleep(0.002)")
        connection.close()

    with pooler(database_url, "transaction") as pool:
        others = [threading.Thread(target=client, args=(pool.url,)) for _ in range(6)]
        for other in others:
            other.start()
        try:
            assert all(lends_transactions(parse_url(pool.url)) for _ in range(20))
        finally:
            over.set()
            for other in others:
                other.join()


def test_a_pool_of_statements_is_refused(database_url: str) -> None:
    with (
        pooler(database_url, "statement") as pool,
        pytest.raises(StorageUnreachable, match="pool_mode = session"),
    ):
        open_storage(pool.url)


@pytest.mark.parametrize("settings", [{}, {"server_round_robin": 1}], ids=str)
def test_a_pool_of_sessions_works_with_our_settings(
    database_url: str, settings: dict[str, object]
) -> None:
    with pooler(database_url, "session", **settings) as pool:
        assert not lends_transactions(parse_url(pool.url))
        with open_storage(pool.url) as storage, storage.engine().connect() as connection:
            for name, value in [("timezone", "UTC"), ("lock_timeout", "20s")]:
                assert connection.execute(text(f"SHOW {name}")).scalar_one() == value


def test_postgresql_itself_is_no_pool(database_url: str) -> None:
    assert not lends_transactions(parse_url(database_url))


def test_a_study_runs_behind_a_pool_of_sessions(
    database_url: str, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    home = str(tmp_path / "home")
    with pooler(database_url, "session", default_pool_size=20) as pool:
        words = "--space demo --study pooled --trials 3 --devices cpu --per-device 2"
        environment = {"PAROPT_STORAGE": pool.url, "PAROPT_HOME": home}
        made = run_paropt("launch", *words.split(), "--fixed", "n_epochs=1", env=environment)
        assert made.rc == 0, made.err
        told = run_paropt("status", "pooled", "--json", env=environment)
        assert json.loads(told.out)["counts"]["complete"] == 3


def test_a_pool_that_is_full_is_said(
    database_url: str, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    with pooler(database_url, "session", default_pool_size=1, query_wait_timeout=1) as pool:
        connection = psycopg2.connect(pool.url)
        connection.cursor().execute("SELECT 1")
        told = run_paropt(
            "status", env={"PAROPT_STORAGE": pool.url, "PAROPT_HOME": str(tmp_path / "home")}
        )
        connection.close()
    assert (told.rc, told.out) == (3, "")
    assert "default_pool_size" in told.err
