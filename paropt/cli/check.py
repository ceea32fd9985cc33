"""``paropt check``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paropt.cli._study import storage_option
from paropt.errors import EXIT_FAILURE


@click.command()
@storage_option
@click.option(
    "--data",
    envvar="PAROPT_DATASET",
    show_envvar=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A dataset directory; all of it is read.",
)
@click.option("--space", type=click.Path(path_type=Path), metavar="FILE", help="A space.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context, storage: str | None, data: Path | None, space: Path | None, as_json: bool
) -> None:
    """Check that everything paropt needs works here.

    One line for each thing, with the remedy if it doesn't work; then the exit code is 1.

    \b
    paropt check
    paropt check --data data/shop --space paramspaces/gru4rec_xe_shared.json
    """
    from dataclasses import asdict

    from paropt.service.checking import checks

    done = []
    for checked in checks(storage, data, space):
        done.append(checked)
        if not as_json:
            click.echo(checked.line())
    works = all(checked.state != "failed" for checked in done)
    if as_json:
        click.echo(json.dumps({"ok": works, "checks": [asdict(c) for c in done]}, indent=2))
    if not works:
        ctx.exit(EXIT_FAILURE)
