"""``paropt models``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from paropt.training.registry import Param


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the models, or one model's parameters.

    \b
    paropt models
    paropt models gru4rec
    """
    from paropt.training import registry

    if name is None:
        summaries = {model: registry.summary(model) for model in registry.names()}
        if as_json:
            click.echo(json.dumps([{"name": n, "summary": s} for n, s in summaries.items()]))
            return
        width = max(map(len, summaries), default=0)
        for model, summary in summaries.items():
            click.echo(f"{model.ljust(width)}  {summary}")
        return
    declared = registry.declaration(name)
    if as_json:
        params = [asdict(param) for param in declared.values()]
        click.echo(json.dumps({"name": name, "params": params}, indent=1))
        return
    _table(list(declared.values()))


def _table(params: list[Param]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from paropt.training.registry import range_of

    table = Table("name", "type", "default", "meaning", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for param in params:
        kind = ", ".join(filter(None, [param.type, range_of(param)]))
        default = "/".join(map(str, param.default)) if param.type == "sizes" else str(param.default)
        meaning = f"{param.help} ({param.source})" if param.source else param.help
        table.add_row(param.name, kind, default, meaning)
    # a file or a pipe takes lines of any length, and is easier to search when nothing wraps
    width = None if sys.stdout.isatty() else 240
    Console(width=width, markup=False, highlight=False).print(table)
