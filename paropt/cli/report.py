"""``paropt report``."""

from __future__ import annotations

from pathlib import Path

import click

from paropt.cli._study import complete_study, storage_option


@click.command()
@click.argument("source", metavar="DIR|STUDY", shell_complete=complete_study)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    show_default="DIR/report.html, or STUDY.html",
    help="Where to write the page; FILE.md is Markdown, without figures.",
)
@storage_option
def report(source: str, out: Path | None, storage: str | None) -> None:
    """Write a report as one HTML page that needs nothing else.

    It says what was searched on what, the best trials, models at equal spend, learning curves,
    which parameters matter, what pruning saved and how to go on; after a final test first of all
    its number. DIR is what `paropt final --out` wrote. Of a STUDY its last final test is shown,
    else what its search has found so far.

    \b
    paropt report reports/shop
    paropt report shop --out shop.html
    """
    from paropt.results.render import render

    click.echo(render(source, out, storage))
