"""``paropt check``."""

from __future__ import annotations

import json

import click

from paropt.cli._study import DataVerb, data_option, say, storage_option
from paropt.errors import EXIT_FAILURE


@click.command(cls=DataVerb)
@storage_option
@data_option("A dataset directory, of which all is read", envvar="PAROPT_DATASET", show_envvar=True)
@click.option("--space", metavar="FILE|NAME", help="A space.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context, storage: str | None, data: tuple[str, ...], space: str | None, as_json: bool
) -> None:
    """Check that everything paropt needs works here.

    One line for each thing, with the remedy if it doesn't work; then the exit code is 1.

    \b
    paropt check
    paropt check --data data/shop --space paramspaces/gru4rec_xe_shared.json
    """
    from dataclasses import asdict

    from paropt.launch.preflight import checks

    done = []
    for checked in checks(storage, data, space, say):
        done.append(checked)
        if not as_json:
            click.echo(checked.line())
    works = all(checked.state != "failed" for checked in done)
    if as_json:
        click.echo(json.dumps({"ok": works, "checks": [asdict(c) for c in done]}, indent=2))
    if not works:
        ctx.exit(EXIT_FAILURE)
