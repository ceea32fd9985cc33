"""Writes docs/cli.md from the commands themselves: `make docs`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from paropt.cli._log_options import LogOption
from paropt.cli.main import cli

PAGE = Path(__file__).with_name("cli.md")
HEAD = """\
# The command line

Made from the commands by `make docs`; `paropt VERB -h` prints the same.

Results go to stdout and everything else to stderr, so that `--json` can be piped
([what programs read](json.md)). Every option can also be set in the environment, as
`PAROPT_VERB_OPTION`: `PAROPT_LAUNCH_TRIALS=50` is `paropt launch --trials 50`.

| variable | what |
|---|---|
| `PAROPT_HOME` | where paropt keeps its database, prepared logs and checkpoints |
| `PAROPT_STORAGE` | as `--storage` of every verb; [more](storage.md) |
| `PAROPT_REDIS_URL` | as `--to` of `paropt embed`; [more](embed.md) |
| `PAROPT_DATASET` | the data, where `--data` and the space name none |
| `PAROPT_OUTAGE` | seconds for which a database that does not answer is waited for (600) |

| exit code | what |
|---|---|
| 0 | done; an interrupted `launch` that handed its trials back too |
| 1 | it cannot be done: one sentence on stderr says why, and what to do |
| 2 | the command line is wrong |
| 3 | the database, or Redis, cannot be reached |
"""


def page() -> str:
    """The whole of docs/cli.md."""
    root = click.Context(cli, info_name="paropt", **cli.context_settings)
    return "\n".join([HEAD, *_overview(root), *_verbs(cli, root)])


def _overview(root: click.Context) -> Iterator[str]:
    yield "| verb | what |"
    yield "|---|---|"
    for verb in cli.list_commands(root):
        command = cli.get_command(root, verb)
        assert command is not None
        yield f"| [`{verb}`](#paropt-{verb}) | {_paragraphs(command)[0][0]} |"
    yield ""
    yield from _options(cli, root)


def _verbs(group: click.Group, above: click.Context) -> Iterator[str]:
    for name in group.list_commands(above):
        command = group.get_command(above, name)
        assert command is not None
        if command.hidden:
            continue
        context = click.Context(command, parent=above, info_name=name, **command.context_settings)
        yield from _verb(command, context)
        if isinstance(command, click.Group):
            yield from _verbs(command, context)


def _verb(command: click.Command, context: click.Context) -> Iterator[str]:
    text, examples = _paragraphs(command)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"## {context.command_path}"
    yield ""
    for paragraph in text:
        yield paragraph
        yield ""
    yield "```"
    yield usage
    yield "```"
    yield ""
    yield from _options(command, context)
    if examples:
        yield "Examples:"
        yield ""
        yield "```"
        yield from examples
        yield "```"
        yield ""


def _paragraphs(command: click.Command) -> tuple[list[str], list[str]]:
    """What a docstring says, and the lines of its examples."""
    text, examples = [], []
    for paragraph in (command.help or "").split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        if lines[0].strip() == "\b":
            examples += [line.strip() for line in lines[1:] if line.strip()]
        elif any(lines):
            text.append(" ".join(line.strip() for line in lines))
    return text, examples


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    params = command.get_params(context)
    beside = [p for p in params if isinstance(p, LogOption) and command.name != "prepare"]
    records = [p.get_help_record(context) for p in params if p not in beside]
    # arguments are explained by the text
    rows = [record for record in records if record and record[0].startswith("-")]
    rows = [record for record in rows if "--help" not in record[0]]
    if not rows:
        return
    yield "| option | what | default, limits |"
    yield "|---|---|---|"
    for option, what in rows:
        # click puts two blanks before what it adds itself: [default: (…); required; 0<=x]
        said, _, added = what.partition("  [")
        added = re.sub(r"default: \(([^)]*)\)", r"\1", added.removesuffix("]"))
        added = added.replace("default: ", "").replace("env var: ", "or ")
        option = re.sub(r"(INTEGER|FLOAT)( RANGE)?", "N", option)
        cells = (f"`{option}`", said.strip(), added)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells).rstrip() + " |"
    yield ""
    if beside:
        first, last = (param.opts[0] for param in (beside[0], beside[-1]))
        yield (
            "Where `--data` is event files, also the options of [`prepare`](#paropt-prepare)"
            f" from `{first}` to `{last}`."
        )
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
