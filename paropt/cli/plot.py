"""``paropt plot``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paropt.cli._study import storage_option

if TYPE_CHECKING:
    from paropt.results.plot import Format


@click.command()
@click.argument("study")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=".",
    metavar="DIR",
    help="Where to write them.",
)
@click.option(
    "--format",
    type=click.Choice(["svg", "png"]),
    default="svg",
    help="png needs paropt[plot].",
)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plot(
    study: str, out: Path, format: Format, overwrite: bool, storage: str | None, as_json: bool
) -> None:
    """Write a study's figures as SVG or PNG files.

    They are those of the dashboard and of reports: the metric against device time, learning
    curves, models at equal spend, the importance of each model's parameters, and what models say
    of themselves (similarities, the load of experts).

    \b
    paropt plot shop --out figures
    paropt plot shop --out figures --format png --overwrite
    """
    from paropt.results.plot import plot

    files = plot(
        study,
        out,
        format=format,
        overwrite=overwrite,
        storage_url=storage,
    )
    if as_json:
        click.echo(json.dumps(files, indent=2))
    else:
        for file in files:
            click.echo(file["file"])
