"""Options that the verbs around a running study share."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from click.shell_completion import CompletionItem

from paropt.cli._log_options import (
    LogOption,
    log_options,
    names_of_log_options,
    options_of,
    said_of,
)
from paropt.errors import ParoptError

if TYPE_CHECKING:
    from paropt.launch.data.data_source import EventFiles, Given

PART = re.compile(r"\.final-\d+\.(valid|test)$")  # a part of a final test


class Duration(click.ParamType[float]):
    """``90s``, ``30m``, ``2h`` as seconds."""

    name = "2h"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from paropt.data.log.values.times import parse_duration

        if isinstance(value, int | float):
            return float(value)
        try:
            return parse_duration(str(value)) / 1000
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Choice(click.ParamType[dict[str, Any]]):
    """A sampler or pruner: its name, or a JSON object with its options too."""

    name = "NAME|JSON"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, Any]:
        if isinstance(value, dict):
            return value
        text = str(value).strip()
        if not text.startswith("{"):
            return {"name": text}
        try:
            chosen: dict[str, Any] = json.loads(text)
        except ValueError as error:
            self.fail(f"{text} is no JSON: {error}", param, ctx)
        return chosen


class NewName(click.ParamType[str]):
    """A name that a study may have."""

    name = "NAME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from paropt.names import check_name

        try:
            check_name(str(value))
        except ParoptError as error:
            raise click.UsageError(f"--study: {error}", ctx) from None
        return str(value)


class PerDevice(click.ParamType[int | str]):
    """A number of slots, or ``auto``."""

    name = "N|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        if value == "auto":
            return "auto"
        return int(click.IntRange(min=1).convert(value, param, ctx))


class ShippedFile(click.ParamType[Path]):
    """A file, or the name of a shipped one."""

    name = "FILE"

    def __init__(self, kind: Literal["space", "paramfile"]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        from paropt.search.space import shipped

        find = shipped.find_space if self.kind == "space" else shipped.find_paramfile
        found = find(value)
        if found is None:
            return self.fail(shipped.missing(value, self.kind), param, ctx)
        return found

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from paropt.search.space import shipped

        known = shipped.spaces() if self.kind == "space" else shipped.paramfiles()
        names = [name for name in known if name.startswith(incomplete)]
        return [*map(CompletionItem, names), CompletionItem(incomplete, type="file")]


def complete_study(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Studies that this machine has worked on: a look at a directory, not at the database."""
    from paropt.machine.home import paropt_home
    from paropt.machine.slot_files import study_of

    names = {study_of(path) for path in paropt_home().glob("slots/*-*")}
    whole = sorted(name for name in names if not PART.search(name))
    return [CompletionItem(name) for name in whole if name.startswith(incomplete)]


class DataVerb(click.Command):
    """A verb with ``--data``, which says how several files are given, and how they are read."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own: list[tuple[str, str]] = []
        of_logs: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                (of_logs if isinstance(param, LogOption) else own).append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        with formatter.section("Where --data is event files, as in paropt prepare"):
            formatter.write_dl(of_logs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "unexpected extra argument" in error.message and "--data" in typed:
                hint = "several files are given as --data FILE --data FILE"
                raise click.UsageError(f"{error.message}; {hint}", ctx) from None
            raise


def data_option(
    help: str, *, or_files: str = "", **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--data``: a dataset directory, or event files that are prepared on the fly.

    The options on how those are prepared come with it; the verb gets all as one ``data``.
    ``or_files`` is an option of the verb's own that takes event files as well: how those are read
    it gets as ``log``.
    """

    def add(verb: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(verb)
        def call(*args: Any, data: tuple[str, ...], **given: Any) -> Any:
            said = said_of({name: given.pop(name) for name in names_of_log_options(or_files)})
            if or_files and not data:
                return verb(*args, data=data, log=said, **given)
            return verb(*args, data=_with_options(data, said), **given)

        option = click.option(
            "--data",
            multiple=True,
            type=click.Path(),
            metavar="DIR|FILE|URL",
            help=f"{help}, or event files to prepare and keep; also by URL. Repeatable.",
            **settings,
        )
        return log_options(option(call), or_files)

    return add


def _with_options(data: tuple[str, ...], said: dict[str, Any]) -> tuple[str, ...] | EventFiles:
    """What ``--data`` names, with what was said of it."""
    if not said:
        return data
    from paropt.launch.data.data_source import EventFiles

    if not data:
        raise click.UsageError("options on how a log is read need its event files: add --data FILE")
    return EventFiles(data, options_of(said))


def say(line: str) -> None:
    """Something that people should know, on stderr."""
    click.echo(line, err=True)


def directory_of(data: Given) -> Path:
    """The dataset directory that ``--data`` names, prepared if it has to be."""
    from paropt.launch.data.data_source import named_data

    return named_data(data, say)


def exit_if_sent_away(status: dict[str, Any]) -> None:
    """With the code of ``PAROPT_LEFT_EXIT``, where a scheduler must tell a slot that was sent away,
    whose work goes on elsewhere, from one that has seen the end of its study."""
    said = os.environ.get("PAROPT_LEFT_EXIT")
    if not said or not status.get("interrupted"):
        return
    if not said.isdecimal() or int(said) > 255:
        raise ParoptError(f"PAROPT_LEFT_EXIT is an exit code from 0 to 255, not {said!r}")
    raise SystemExit(int(said))


storage_option = click.option(
    "--storage",
    envvar="PAROPT_STORAGE",
    metavar="URL",
    show_envvar=True,
    help="postgresql://USER@HOST/DATABASE instead of the embedded server.",
)


tensorboard_option = click.option(
    "--tensorboard",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write every epoch's figures for TensorBoard, in folders of DIR.",
)


def slot_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where slots run, and what they leave there."""
    options = [
        click.option(
            "--devices", default="auto", metavar="auto|cpu|0,1", help="All GPUs, else the CPU."
        ),
        click.option(
            "--per-device",
            type=PerDevice(),
            metavar="N|auto",
            show_default="1 on a GPU; on the CPU one per core, at most 8",
            help="Slots on each device; auto finds out while they run.",
        ),
        click.option(
            "--checkpoint-dir",
            type=click.Path(file_okay=False),
            show_default="under PAROPT_HOME",
            metavar="DIR|URL",
            help="Share it between machines to let any of them go on with any trial; "
            "s3://BUCKET/FOLDER where they share no disk.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
