"""Options that the verbs around a running study share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click


class Duration(click.ParamType[float]):
    """``90s``, ``30m``, ``2h`` as seconds."""

    name = "2h"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from paropt.data.times import parse_duration

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


storage_option = click.option(
    "--storage",
    envvar="PAROPT_STORAGE",
    metavar="URL",
    show_envvar=True,
    help="postgresql://USER@HOST/DATABASE instead of the embedded server.",
)


def slot_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Where slots run."""
    options = [
        click.option(
            "--devices", default="auto", metavar="auto|cpu|0,1", help="All GPUs, else the CPU."
        ),
        click.option(
            "--per-device",
            type=click.IntRange(min=1),
            show_default="1 on a GPU; on the CPU one per core, at most 8",
            help="Slots on each device.",
        ),
        click.option(
            "--checkpoint-dir",
            type=click.Path(file_okay=False),
            show_default="under PAROPT_HOME",
            metavar="DIR",
            help="Share it between machines to let any of them go on with any trial.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function
