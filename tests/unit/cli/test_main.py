"""The group of verbs: cheap to start, one line per error, the promised exit codes."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from paropt.cli import main
from paropt.cli._log_options import LogOption


def test_help_imports_nothing_heavy() -> None:
    """What ``paropt --help`` ≤ 0.3 s rests on; the seconds themselves depend on the machine."""
    program = (
        "import sys; from paropt.cli.main import run\n"
        "try:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'optuna', 'numpy', 'pandas', 'pyarrow', 'sqlalchemy', 'rich'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in main.VERBS)


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_is_there_with_its_own_help(verb: str) -> None:
    result = CliRunner().invoke(main.cli, [verb, "--help"])
    assert result.exit_code == 0, result.output
    first_line = main.VERBS[verb][1]
    assert first_line.rstrip(".") in " ".join(result.output.split())


@pytest.mark.parametrize("verb", list(main.VERBS))
def test_every_verb_takes_what_its_options_give(verb: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), verb)
    assert command is not None
    assert command.callback is not None
    takes = inspect.signature(command.callback).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in takes):
        return
    own = [param for param in command.params if not isinstance(param, LogOption)]
    given = {param.name for param in own if param.expose_value and param.name != "help"}
    assert {one.name for one in takes} >= given


def test_a_terminal_without_utf8_gets_its_output() -> None:
    """Results have bars and dashes in them; an old locale must not end in a traceback."""
    program = (
        "from paropt.cli.main import run\n"
        "try:\n    run(['--version'])\nexcept SystemExit:\n    pass\n"
        "from rich.console import Console\n"
        "Console().print('layers ▇▇▇')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "layers ???"), done.stderr


def test_an_interrupt_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def models() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(main.LazyGroup, "get_command", lambda *given: models)
    result = CliRunner().invoke(main.cli, ["models"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_misspelt_verb_and_option_are_usage_errors() -> None:
    result = CliRunner().invoke(main.cli, ["lunch"])
    assert result.exit_code == 2
    assert "launch" in result.output
    result = CliRunner().invoke(main.cli, ["launch", "--spce", "x.json"])
    assert result.exit_code == 2
    assert "--space" in result.output
