"""The short form of the fault suite, and what a broken promise looks like to its checker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
@pytest.mark.parametrize(
    ("mutation", "seen"),
    [
        ("no fencing", "BROKEN fenced writes"),
        ("forgetful", "BROKEN lost: epoch 3"),
    ],
)
def test_the_checker_sees_a_broken_promise(mutation: str, seen: str) -> None:
    code, said = play("--mutation", mutation)
    assert code == 1, said
    assert seen in said
