"""The database: order, patience, answers in the thread that asks for them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from paropt.errors import StorageUnreachable
from paropt.worker.database_thread import Answer, DatabaseThread


class Desk:
    """An database whose answers a test waits for."""

    def __init__(self, patience: float) -> None:
        self.news = threading.Semaphore(0)
        self.database = DatabaseThread(patience, self.news.release)

    def settle(self, answers: int) -> None:
        for _ in range(answers):
            assert self.news.acquire(timeout=30)
        self.database.deliver()


def failing(times: int, then: Callable[[], str]) -> Callable[[], str]:
    """An operation that finds no database so many times."""
    left = [times]

    def operation() -> str:
        if left[0]:
            left[0] -= 1
            raise StorageUnreachable("no answer")
        return then()

    return operation


def test_calls_keep_their_order_through_an_outage() -> None:
    desk, done, said = Desk(30), list[str](), list[Answer[str]]()
    desk.database.put(failing(2, lambda: done.append("first") or "a"), said.append)
    desk.database.put(lambda: done.append("second") or "b", said.append)
    desk.settle(2)
    assert done == ["first", "second"]
    assert [answer.get() for answer in said] == ["a", "b"]
    assert desk.database.pending == 0 and desk.database.away == 0


def test_other_errors_are_answers_and_are_not_repeated() -> None:
    desk, tries, said = Desk(30), list[int](), list[Answer[None]]()

    def broken() -> None:
        tries.append(1)
        raise ValueError("nonsense")

    desk.database.put(broken, said.append)
    desk.settle(1)
    assert len(tries) == 1
    with pytest.raises(ValueError, match="nonsense"):
        said[0].get()


def test_patience_has_an_end_for_everything_that_waits() -> None:
    desk, said = Desk(0), list[Answer[str]]()
    for _ in range(2):
        desk.database.put(failing(1000, lambda: "never"), said.append)
    desk.settle(2)
    assert all(isinstance(answer.error, StorageUnreachable) for answer in said)
    assert "no answer" in desk.database.trouble


def test_who_leaves_does_not_wait_for_ten_minutes() -> None:
    desk, said, tried = Desk(600), list[Answer[None]](), threading.Event()

    def away() -> None:
        tried.set()
        raise StorageUnreachable("no answer")

    desk.database.put(away, said.append)
    assert tried.wait(30)
    desk.database.hurry(0.0)
    desk.settle(1)
    assert isinstance(said[0].error, StorageUnreachable)


def test_answers_wait_until_they_are_asked_for() -> None:
    desk, threads = Desk(30), list[str]()
    desk.database.put(lambda: None, lambda _: threads.append(threading.current_thread().name))
    assert desk.news.acquire(timeout=30)
    assert threads == []
    desk.database.deliver()
    assert threads == [threading.current_thread().name]


def test_an_embedded_server_is_brought_back_while_it_is_away() -> None:
    news, revived, said = threading.Semaphore(0), list[bool](), list[Answer[str]]()
    database = DatabaseThread(30, news.release, revive=lambda: revived.append(True))

    def operation() -> str:
        if not revived:
            raise StorageUnreachable("it crashed")
        return "there"

    database.put(operation, said.append)
    assert news.acquire(timeout=30)
    database.deliver()
    assert [answer.get() for answer in said] == ["there"]
