"""Shell completion: cheap, and it knows verbs, options, choices, spaces and studies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from paropt.cli.main import VERBS, cli
from paropt.machine.slot_files import name_study, slots_directory

PROGRAM = Path(sys.executable).with_name("paropt")


def complete(*words: str, **environment: str) -> list[str]:
    """What bash is offered for the last of the words."""
    done = subprocess.run(
        [sys.executable, "-m", "paropt"],
        env={
            **os.environ,
            "_PAROPT_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["paropt", *words]),
            "COMP_CWORD": str(len(words)),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_words(tmp_path: Path) -> None:
    assert complete("la") == ["launch"]
    assert complete("launch", "--sp") == ["--space"]
    assert complete("export", "--format", "gru4rec-t") == ["gru4rec-theano"]
    assert "sasrec_moe" in complete("launch", "--space", "sas")
    for directory in ("shop-01234567", "shoes-2-89abcdef", "other-01234567"):
        (tmp_path / "slots" / directory).mkdir(parents=True)
    home = {"PAROPT_HOME": str(tmp_path)}
    assert complete("export", "sho", **home) == ["shoes-2", "shop"]
    assert complete("launch", "--study", "shop", **home) == ["shop"]
    assert complete("stop", "", **home) == ["other", "shoes-2", "shop"]
    for name in ("团购", "my shop", "shop.final-1.valid"):
        directory = slots_directory(tmp_path, "a database", name)
        directory.mkdir()
        name_study(directory, name)
    assert complete("stop", "团", **home) == ["团购"]
    assert complete("stop", "my", **home) == ["my shop"]
    assert complete("stop", "shop", **home) == ["shop"]


def test_it_imports_nothing_heavy() -> None:
    """What its speed rests on; the seconds themselves depend on the machine."""
    program = (
        "import sys; from paropt.cli.main import run\n"
        "try:\n    run([])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'optuna', 'numpy', 'pandas', 'pyarrow', 'sqlalchemy', 'rich'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    for words in ("paropt ", "paropt launch --space ", "paropt export ", "paropt prepare --"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={
                **os.environ,
                "_PAROPT_COMPLETE": "zsh_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split(" ")) - 1),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_each_shell(shell: str) -> None:
    result = CliRunner().invoke(cli, ["completion", shell], prog_name="paropt")
    assert result.exit_code == 0, result.output
    assert "_PAROPT_COMPLETE" in result.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=result.output, text=True, check=True)


def test_bash_itself() -> None:
    script = """
    eval "$(paropt completion bash)"
    COMP_WORDS=(paropt st) COMP_CWORD=1
    _paropt_completion paropt st paropt
    echo "${COMPREPLY[@]}"
    """
    assert PROGRAM.exists() and shutil.which("bash")
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [verb for verb in VERBS if verb.startswith("st")], done.stderr
