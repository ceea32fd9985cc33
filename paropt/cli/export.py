"""``paropt export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paropt.cli._study import complete_study

if TYPE_CHECKING:
    from paropt.search.space.paramfiles import Format

# as paropt.search.space.paramfiles.FORMATS; repeated because help needs none of that room
FORMATS = ("json", "gru4rec-theano", "gru4rec-pytorch")


@click.command()
@click.argument("study", shell_complete=complete_study)
@click.option(
    "--top", type=click.IntRange(min=1), show_default="1", help="How many of the best trials."
)
@click.option(
    "--pareto",
    is_flag=True,
    help="All trials that no other is better than in both the metric and what --also recorded.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="DIR",
    help="Where to write them.",
)
@click.option("--format", type=click.Choice(FORMATS), default="json", help="Whose paramfiles.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option(
    "--storage",
    envvar="PAROPT_STORAGE",
    metavar="URL",
    show_envvar=True,
    help="A PostgreSQL other than the embedded one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export(
    study: str,
    top: int | None,
    pareto: bool,
    out: Path,
    format: Format,
    overwrite: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Write a study's best paramfiles.

    The gru4rec formats are what the official run.py reads with -pf.

    \b
    paropt export shop --top 3 --out best
    paropt export shop --pareto --out front
    paropt train --params best/shop_1_trial17.json --data data/shop
    """
    from paropt.results.export import export
    from paropt.search.study.study import Study
    from paropt.storage.connect import open_storage

    if pareto and top is not None:
        raise click.UsageError("--pareto writes all trials of the front; leave --top out")
    with open_storage(storage) as opened:
        files = export(
            Study.load(opened.url, study),
            out,
            top=top or 1,
            pareto=pareto,
            format=format,
            overwrite=overwrite,
        )
    if as_json:
        click.echo(json.dumps(files, indent=2))
    else:
        for file in files:
            click.echo(file["file"])
