"""``launch --on``: the script for Slurm, what sbatch gets, and what is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from paropt.cli.main import cli
from paropt.errors import ParoptError
from paropt.launch.slots import slurm
from paropt.launch.slots.elsewhere import Elsewhere, asked_for, check_reach
from paropt.machine.devices import device_shares, usable_cores

WORDS = ["worker", "--study", "my shop", "--storage", "postgresql://me@db/x"]


def test_the_script_is_bash_and_asks_for_what_was_said() -> None:
    text = slurm.script("my shop", WORDS, Elsewhere(4, 1, 2), "-p gpu -t 4:00:00")
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    for line in ("--array=0-3", "--cpus-per-task=2", "--gpus-per-task=1", "-p gpu -t 4:00:00"):
        assert f"#SBATCH {line}\n" in text
    assert "worker --study 'my shop' --storage postgresql://me@db/x &\n" in text


def test_a_warned_job_hands_back_and_is_queued_again(tmp_path: Path) -> None:
    """The script with a worker and a Slurm that write down what they hear."""
    heard = tmp_path / "heard"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho scontrol $* >> {heard}\n")
    scontrol.chmod(0o755)
    on_signal = f"echo told >> {heard}; exit 7"
    worker = f"trap '{on_signal}' USR1; echo up > {heard}.up; while :; do sleep .01; done"
    text = slurm.script("shop", [], Elsewhere(), "").splitlines()
    text = [f"bash -c {worker!r} &" if line.endswith("-m paropt &") else line for line in text]
    process = subprocess.Popen(
        ["bash", "-c", "\n".join(text)],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "5"}
        | {"SLURM_ARRAY_TASK_ID": "2"},
    )
    while not (tmp_path / "heard.up").exists():
        assert process.poll() is None
    process.send_signal(10)  # SIGUSR1
    assert process.wait(30) == 7
    assert heard.read_text() == "told\nscontrol requeue 5_2\n"


def test_what_sbatch_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setenv("PATH", str(tmp_path / "empty"))
        with pytest.raises(ParoptError, match="--print-script"):
            slurm.submit("script", {})
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\ncat > got\necho "$PGPASSWORD" >> got\necho "42;cluster"\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    assert slurm.submit("script\n", {"PGPASSWORD": "word"}) == "42"
    assert (tmp_path / "got").read_text() == "script\nword\n"
    sbatch.write_text('#!/bin/sh\necho "sbatch: error: invalid partition" >&2\nexit 1\n')
    with pytest.raises(ParoptError, match="refuses the script: error: invalid partition"):
        slurm.submit("script", {})


def test_what_is_refused() -> None:
    with pytest.raises(ParoptError, match="not 'pbs'"):
        asked_for("pbs", 1, 0, 1)
    with pytest.raises(ParoptError, match="needs --slots N"):
        asked_for("ray", None, 0, 1)
    with pytest.raises(ParoptError, match=r"whole GPUs, not 0\.5"):
        slurm.script("shop", WORDS, Elsewhere(1, 0.5), "")
    with pytest.raises(ParoptError, match="one line"):
        slurm.script("shop", WORDS, Elsewhere(), "-p gpu\nrm -r x")
    for words in (["--slots", "3"], ["--on", "ray", "--slots", "1", "--sbatch", "-p x"]):
        assert CliRunner().invoke(cli, ["launch", *words]).exit_code == 2


def test_a_database_that_nobody_could_reach_is_refused_before_a_study_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("PAROPT_HOME", str(home))
    monkeypatch.delenv("PAROPT_STORAGE", raising=False)
    (tmp_path / "log.csv").write_text("SessionId,ItemId,Time\n")
    words = ["launch", "--data", str(tmp_path / "log.csv"), "--on", "slurm", "--slots", "2"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1 and "cannot reach the embedded database" in str(done.exception)
    assert not home.exists()
    check_reach(None, "0.0.0.0:5433")
    check_reach("postgresql://me@db/x", None)
    with pytest.raises(ParoptError, match="cannot reach"):
        check_reach(None, "off")
    record = {"area": "a", "sockets": "s", "listen": "0.0.0.0:5433"}
    (home / "postgres").mkdir(parents=True)
    (home / "postgres" / "server.json").write_text(json.dumps(record))
    check_reach(None, None)


def test_workers_of_one_home_have_slots_and_cores_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PAROPT_FIRST_SLOT", "3")
    monkeypatch.setenv("PAROPT_CORES", "1")
    assert usable_cores() == 1
    (share,) = device_shares("cpu", 1)
    assert (share.name, share.threads) == ("cpu-3", 1)
    monkeypatch.setenv("PAROPT_FIRST_SLOT", "three")
    with pytest.raises(ParoptError, match="PAROPT_FIRST_SLOT is a number"):
        device_shares("cpu", 1)
