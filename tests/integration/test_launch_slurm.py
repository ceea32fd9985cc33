"""``launch --on slurm`` to its end, with an ``sbatch`` that only takes note."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPACE = {"model": "gru4rec", "search": {"layers": {"type": "int", "low": 8, "high": 32}}}


def test_the_array_is_handed_over_and_the_launch_ends(
    cli: Callable[..., tuple[int, str, str]],
    ring: Path,
    database_url: str,
    paropt_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "sbatch"
    program.write_text(f'#!/bin/sh\ncat > {tmp_path}/script\necho "42;cluster"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PAROPT_STORAGE", database_url)
    (tmp_path / "small.json").write_text(json.dumps(SPACE))
    words = ["launch", "--space", tmp_path / "small.json", "--data", ring, "--on", "slurm"]
    code, out, said = cli(*words, "--slots", "2", "--json")
    assert code == 0 and "job array 42 has 2 slots" in said, said
    status: dict[str, Any] = json.loads(out)
    assert (status["job"], status["activity"]) == ("42", "idle")
    assert status["floor"].keys() == {"popularity", "cooccurrence"}  # nobody else computes it
    script = (tmp_path / "script").read_text()
    assert f"--storage {database_url.replace(':' + password(database_url), '')}" in script
    assert password(database_url) not in script + said + out


def password(url: str) -> str:
    return url.split("@")[0].rpartition(":")[2]
