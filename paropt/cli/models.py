"""``paropt models``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from paropt.cli._study import DataVerb, data_option, directory_of
from paropt.errors import ModelError

if TYPE_CHECKING:
    from paropt.training.conformance import CheckResult
    from paropt.training.registry import Param


class _Names(click.Group):
    """A first word that is no verb is the name of a model to show."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands:
            return "show", self.commands["show"], args
        return super().resolve_command(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS] [NAME | check NAME]"]


@click.group(cls=_Names, invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def models(ctx: click.Context, as_json: bool) -> None:
    """List the models, or one model's parameters, or check a model.

    \b
    paropt models
    paropt models gru4rec
    paropt models check shop.models:Mine
    """
    if ctx.invoked_subcommand is not None:
        ctx.obj = {**(ctx.obj or {}), "as_json": as_json}
        return
    from paropt.training import registry

    summaries = {model: registry.summary(model) for model in registry.names()}
    if as_json:
        click.echo(json.dumps([{"name": n, "summary": s} for n, s in summaries.items()]))
        return
    width = max(map(len, summaries), default=0)
    for model, summary in summaries.items():
        click.echo(f"{model.ljust(width)}  {summary}")


@models.command(hidden=True)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def show(ctx: click.Context, name: str, as_json: bool) -> None:
    """Show a model's parameters."""
    from paropt.training import registry

    declared = registry.declaration(name)
    if as_json or ctx.obj["as_json"]:
        params = [asdict(param) for param in declared.values()]
        click.echo(json.dumps({"name": name, "params": params}, indent=1))
        return
    _table(list(declared.values()))


@models.command(cls=DataVerb)
@click.argument("name")
@click.option("--params", metavar="K=V,…", default="", help="Parameters other than the defaults.")
@data_option("A dataset directory to check it on", show_default="a small made-up log")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(ctx: click.Context, name: str, params: str, data: tuple[str, ...], as_json: bool) -> None:
    """Check that a model keeps the contract: causal, repeatable, resumable, saved, declared.

    \b
    paropt models check sasrec
    paropt models check shop.models:Mine --data data/shop
    """
    from paropt.training.conformance import check_model
    from paropt.training.train_request import parse_params

    results = check_model(
        name, parse_params(params) if params else {}, directory_of(data) if data else None
    )
    if as_json or ctx.obj["as_json"]:
        click.echo(json.dumps([asdict(result) for result in results], indent=1))
    else:
        _report(results)
    failed = sum(result.status == "failed" for result in results)
    if failed:
        raise ModelError(f"{name} fails {failed} of {len(results)} checks")


def _report(results: list[CheckResult]) -> None:
    for result in results:
        click.echo(f"{result.status}  {result.name}" + (result.message and f": {result.message}"))


def _table(params: list[Param]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from paropt.training.registry import default_of, range_of

    table = Table("name", "type", "default", "meaning", box=box.SIMPLE_HEAD, pad_edge=False)
    table.columns[0].no_wrap = True
    for param in params:
        kind = ", ".join(filter(None, [param.type, range_of(param)]))
        default = default_of(param)
        meaning = f"{param.help} ({param.source})" if param.source else param.help
        table.add_row(param.name, kind, default, meaning)
    # a file or a pipe takes lines of any length, and is easier to search when nothing wraps
    width = None if sys.stdout.isatty() else 240
    Console(width=width, markup=False, highlight=False).print(table)
