"""The short form of the fault suite, and what a broken promise looks like to its checker."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUN = Path(__file__).parent / "run.py"


def play(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(RUN), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout


@pytest.mark.postgres
@pytest.mark.slow
def test_nothing_is_lost_whatever_is_killed() -> None:
    code, said = play("--short")
    print(said)  # the table
    assert code == 0


@pytest.mark.postgres
@pytest.mark.long
@pytest.mark.parametrize(
    ("mutation", "seen"),
    [("no fencing", "BROKEN fenced writes"), ("forgetful", "BROKEN lost: epoch 3")],
)
def test_the_checker_sees_a_broken_promise(mutation: str, seen: str) -> None:
    code, said = play("--mutation", mutation)
    assert code == 1, said
    assert seen in said


@pytest.fixture
def checker(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RUN.parent))  # for the modules beside it
    spec = importlib.util.spec_from_file_location("chaos_checker", RUN.with_name("checker.py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("event", "epoch", "value", "broken"),
    [
        ("saved", 1, 0.25, False),  # the answer was held up; the write was not
        ("saved", 1, 0.26, True),
        ("saved", 2, 0.5, True),
        ("done", None, None, True),
    ],
)
def test_a_late_answer_is_true_only_if_the_row_holds_its_value(
    checker: Any, event: str, epoch: int | None, value: float | None, broken: bool
) -> None:
    trial = checker.Trial(1, 0, "FAIL", 100.0, None, {"root": 0}, {}, {"why": "lost"}, {1: 0.25})
    record = {"event": event, "trial": 0, "time": 105.0, "epoch": epoch, "value": value}
    evidence = checker.Evidence({}, [trial], [], [], [], [], [record], [])
    verdict = checker.Verdict()
    checker._check_fences(evidence, verdict)
    assert bool(verdict.broken) == broken


@pytest.mark.parametrize(
    ("second", "why", "broken"),
    [
        ((7, 102.0), None, True),  # attempt 2 begins at zero and hides it
        ((7, 102.0), "no checkpoint of it", False),
        ((5, 104.0), None, False),  # the first owner, stopped meanwhile, begins too late
        ((5, 102.0), None, True),  # handed back with an epoch, and begun anew
    ],
)
def test_who_begins_at_zero_again_says_why(
    checker: Any, second: tuple[int, float], why: str | None, broken: bool
) -> None:
    def started(trial: int, time: float, host: str, why: str | None) -> dict[str, Any]:
        return {"event": "started", "trial": trial, "time": time, "host": host} | {
            "resumed_epoch": None,
            "why_from_zero": why,
        }

    first = 7 if second == (5, 104.0) else 5
    trials = [checker.Trial(n, n, "FAIL", 110.0, None, {"root": 5}, {}, {}, {}) for n in (5, 7)]
    records = [
        started(first, 100.0, "h1", "no checkpoint of it" if first == 7 else None),
        {"event": "saved", "trial": first, "time": 101.0, "epoch": 1, "value": 0.5, "host": "h1"},
        started(*second, "h2", why),
    ]
    trained = [("h1", 5, 1, 1), ("h2", 5, 2, 1)]
    evidence = checker.Evidence({"epochs": 4}, trials, [], [], [], [], records, trained)
    verdict = checker.Verdict()
    checker._check_repeated(evidence, verdict)
    assert bool(verdict.broken) == broken, verdict.broken
