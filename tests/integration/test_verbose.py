"""``-v`` shows where an error is from, and ends in the same code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql://localhost:1/x", "no PostgreSQL answers at"),
        ("postgresql://me:sEcr@et99@nowhere.invalid/x", "write an @ in a password as %40"),
    ],
)
def test_an_error_has_its_code(tmp_path: Path, url: str, told: str) -> None:
    env = {**os.environ, "PAROPT_HOME": str(tmp_path), "PAROPT_STORAGE": url, "PAROPT_OUTAGE": "0"}
    for words in ([], ["-v"]):
        call = [sys.executable, "-m", "paropt", *words, "status"]
        done = subprocess.run(call, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 3 and told in done.stderr, done.stderr
        assert ("Traceback" in done.stderr) == bool(words)
        assert words or "et99" not in done.stderr
