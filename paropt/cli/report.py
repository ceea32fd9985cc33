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
    help="Where to write the page.",
)
@storage_option
def report(source: str, out: Path | None, storage: str | None) -> None:
    """Render a report as one HTML page that needs nothing else.

    DIR is what `paropt final --out` wrote. Of a STUDY its last final test is shown, else what its
    search has found so far.

    \b
    paropt report reports/shop
    paropt report shop --out shop.html
    """
    from paropt.results.render import render

    click.echo(render(source, out, storage))
