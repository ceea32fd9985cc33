"""``paropt compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paropt.cli._study import complete_study, storage_option


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY…", shell_complete=complete_study)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write an HTML page with figures there, too.",
)
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(studies: tuple[str, ...], out: Path | None, storage: str | None, as_json: bool) -> None:
    """Compare studies on the same data, at equal spend.

    Each study's best value when it had spent as many device seconds as the one that spent least.

    \b
    paropt compare gru4rec-shop sasrec-shop
    paropt compare gru4rec-shop sasrec-shop --out compared.html
    """
    from paropt.files import write_text
    from paropt.results.compare import compare
    from paropt.results.pages.compare_page import compare_page
    from paropt.results.pages.html_page import page
    from paropt.results.pages.markdown import markdown
    from paropt.storage.connect import open_storage

    with open_storage(storage) as opened:
        found = compare(opened, studies)
    document = compare_page(found)
    if out:
        write_text(out, page(document), overwrite=True)
        click.echo(f"the page is {out}", err=True)
    click.echo(json.dumps(found, indent=1) if as_json else markdown(document).rstrip())
