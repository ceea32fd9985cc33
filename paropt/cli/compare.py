"""``paropt compare``."""

from __future__ import annotations

import json

import click

from paropt.cli._study import complete_study, storage_option


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY…", shell_complete=complete_study)
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def compare(studies: tuple[str, ...], storage: str | None, as_json: bool) -> None:
    """Compare studies on the same data, at equal spend.

    Each study's best value when it had spent as many device seconds as the one that spent least.

    \b
    paropt compare gru4rec-shop sasrec-shop
    """
    from paropt.results.compare import compare, printed
    from paropt.storage.connect import open_storage

    with open_storage(storage) as opened:
        found = compare(opened, studies)
    click.echo(json.dumps(found, indent=1) if as_json else printed(found))
