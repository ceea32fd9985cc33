"""docs/cli.md is what the commands say now, and its examples are commands that exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from paropt.cli._log_options import LogOption
from paropt.cli.main import VERBS, cli

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "cli.md").read_text("utf-8")
WALK = (DOCS / "ads.md").read_text("utf-8")
EXAMPLES = re.findall(r"(?m)^(paropt [a-z]+ .*)$", "".join([*PAGE.split("Examples:\n")[1:], WALK]))


def test_the_page_is_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    spec = importlib.util.spec_from_file_location("docs_cli", DOCS / "cli.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == PAGE, "run `make docs`"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_options_and_an_example(verb: str) -> None:
    section = PAGE.split(f"\n## paropt {verb}\n")[1].split("\n## ")[0]
    command = cli.get_command(click.Context(cli), verb)
    assert command
    listed = [p for p in command.params if verb == "prepare" or not isinstance(p, LogOption)]
    if len(listed) < len(command.params):
        assert "also the options of [`prepare`](#paropt-prepare) from `--format` to" in section
    for parameter in listed:
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert f"`{option}" in section or f"{option} " in section or f"/ {option}" in section
    assert re.search(rf"(?m)^paropt {verb}\b", section.split("Examples:")[1])


@pytest.mark.parametrize("example", dict.fromkeys(EXAMPLES))
def test_examples_are_commands(example: str) -> None:
    """Their options exist; what stands behind a pipe is the shell's."""
    words = shlex.split(re.split(r" [|>] ", example)[0])[1:]
    context, group = click.Context(cli), cli
    name, command, rest = group.resolve_command(context, words)
    assert command
    command.make_parser(click.Context(command, info_name=name)).parse_args(rest)


def test_options_come_from_the_environment_too() -> None:
    """As the page says; 0 trials are refused whoever says it."""
    result = CliRunner().invoke(cli, ["launch"], env={"PAROPT_LAUNCH_TRIALS": "0"})
    assert result.exit_code == 2
    assert "0 is not in the range" in result.output
