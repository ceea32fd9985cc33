"""A slot's first steps, in which the database may go away again."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

import pytest

from paropt.errors import StorageUnreachable
from paropt.worker import slot
from paropt.worker.limits import Limits


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the slot waits for the database to answer, each time that it does."""
    asked: list[float] = []

    def open_storage(wait: float) -> Any:
        asked.append(wait)
        return contextlib.ExitStack()

    monkeypatch.setattr(slot, "open_storage", open_storage)
    return asked


def load(monkeypatch: pytest.MonkeyPatch, failures: int) -> Any:
    left = [failures]

    def found(storage: Any, options: argparse.Namespace) -> str:
        if left[0]:
            left[0] -= 1
            raise StorageUnreachable("no answer")
        return "the study"

    monkeypatch.setattr(slot, "_load", found)
    return slot._study(None, argparse.Namespace(), Limits(outage=7.0))  # type: ignore[arg-type]


def test_it_waits_for_a_database_that_was_there_a_moment_ago(
    monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    assert load(monkeypatch, 2) == "the study"
    assert waits == [7.0, 7.0]


def test_a_database_that_answers_and_refuses_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    with pytest.raises(StorageUnreachable):
        load(monkeypatch, 100)
    assert waits == [7.0] * (slot.OPEN_TRIES - 1)
