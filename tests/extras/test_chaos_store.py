"""The fault suite with checkpoints in an object store that goes away, expires, and cuts short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parents[1] / "chaos" / "run.py"


@pytest.mark.extras
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_whatever_becomes_of_the_store() -> None:
    pytest.importorskip("s3fs")
    done = subprocess.run(
        [sys.executable, str(RUN), "--short", "--store"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    print(done.stdout)  # the table
    assert done.returncode == 0
