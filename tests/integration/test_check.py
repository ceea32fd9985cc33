"""``paropt check``: what works is said, what doesn't comes with its remedy."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paropt.launch import preflight
from paropt.launch.preflight import Broken, checks

SPACE = {
    "model": "gru4rec",
    "search": {"layers": {"type": "int", "low": 32, "high": 96, "step": 32}},
}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.json"
    path.write_text(json.dumps(SPACE))
    return path


def test_all_is_well(
    database_url: str, space: Path, tmp_path: Path, run_paropt: Callable[..., Any]
) -> None:
    assert run_paropt("prepare", "--demo", "--out", tmp_path / "demo").rc == 0
    done = run_paropt(
        "check", "--storage", database_url, "--data", tmp_path / "demo", "--space", space
    )
    assert done.rc == 0, done.out + done.err
    assert [line.split()[:2] for line in done.out.splitlines()] == [
        ["ok", name] for name in ("python", "torch", "database", "data", "space")
    ]
    assert "3 configurations" in done.out


def test_event_files_and_shipped_spaces_by_name(
    database_url: str, tmp_path: Path, paropt_home: Path, run_paropt: Callable[..., Any]
) -> None:
    log = tmp_path / "log.tsv"
    rows = [
        f"{session}\t{(session + step) % 6}\t{1_700_000_000 + session * 10_000 + step}"
        for session in range(60)
        for step in range(4)
    ]
    log.write_text("\n".join(["SessionId\tItemId\tTime", *rows]))
    done = run_paropt("check", "--storage", database_url, "--data", log, "--space", "sasrec")
    assert done.rc == 0, done.out + done.err
    *_, data, space = done.out.splitlines()
    assert data.startswith("ok") and str(paropt_home / "datasets" / "log-") in data
    assert space.startswith("ok") and "sasrec, infinitely many configurations" in space
    log.write_text("a\tb\tc\n1\t2\t3\n")
    done = run_paropt("check", "--storage", database_url, "--data", log, "--space", "sasrek")
    assert done.rc == 1
    lines = done.out.splitlines()
    assert [line.split()[:2] for line in lines[3:]] == [["FAILED", "data"], ["FAILED", "space"]]
    assert "--session-key" in lines[3] and "--rows-in-order" in lines[3]
    assert "did you mean 'sasrec'?" in lines[4]


def test_each_failure_has_a_remedy(
    space: Path, tmp_path: Path, run_paropt: Callable[..., Any]
) -> None:
    space.write_text(json.dumps(SPACE).replace("layers", "layrs"))
    done = run_paropt(
        "check",
        "--json",
        "--data",
        tmp_path / "nothing",
        "--space",
        space,
        env={"PAROPT_STORAGE": "postgresql://me:secret@127.0.0.1:1/x"},
    )
    assert done.rc == 1
    told = json.loads(done.out)
    assert told["ok"] is False
    assert {check["name"]: check["state"] for check in told["checks"]} == {
        "python": "ok",
        "torch": "ok",
        "database": "failed",
        "data": "failed",
        "space": "failed",
    }
    found = {check["name"]: check["found"] for check in told["checks"]}
    assert "127.0.0.1:1" in found["database"]
    assert "nothing" in found["data"]
    assert "layers" in found["space"], "the suggestion"
    for text in (done.out, done.err):
        assert "secret" not in text
        assert "Traceback" not in text


def test_what_is_not_asked_is_skipped(database_url: str) -> None:
    states = {check.name: check.state for check in checks(database_url, None, None)}
    assert states["data"] == states["space"] == "skipped"


@pytest.mark.parametrize("compiler", ["cc", "/nowhere/cc"])
def test_a_missing_compiler_is_no_fault(compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(preflight, "find_gpus", list)
    told = preflight.check_torch()
    assert told.startswith(torch.__version__)
    assert ("without a C compiler" in told) == (compiler != "cc")


@pytest.mark.parametrize(
    ("probe", "gpus", "remedy"),
    [
        ({"torch": "2.3.0+cpu"}, [], "torch 2.8"),
        ({"trouble": "RuntimeError: no device"}, [], "--devices cpu"),
        ({}, ["NVIDIA A100"], "--devices cpu"),
        (None, [], "pip install"),
    ],
)
def test_torch_that_does_not_work(
    probe: dict[str, Any] | None, gpus: list[str], remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"torch": "2.13.0", "gpus": [], "trouble": "", "kernels": True, **(probe or {})}

    def run(*_: Any, **__: Any) -> Any:
        if probe is None:
            return subprocess.CompletedProcess([], 1, "", "ImportError: libtorch.so\n")
        return subprocess.CompletedProcess([], 0, json.dumps(whole) + "\n", "")

    named = [type("Gpu", (), {"name": name})() for name in gpus]
    monkeypatch.setattr(preflight.subprocess, "run", run)
    monkeypatch.setattr(preflight, "find_gpus", lambda: named)
    with pytest.raises(Broken) as caught:
        preflight.check_torch()
    assert remedy in caught.value.remedy
