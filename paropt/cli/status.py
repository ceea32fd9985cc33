"""``paropt status``."""

from __future__ import annotations

import json

import click

from paropt.cli._study import complete_study, storage_option


@click.command()
@click.argument("study", required=False, shell_complete=complete_study)
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--all", "parts", is_flag=True, help="The parts of final tests, too.")
@click.option("--watch", is_flag=True, help="Stay, and show every change (on a terminal).")
def status(study: str | None, storage: str | None, as_json: bool, parts: bool, watch: bool) -> None:
    """Show the studies, or one study's trials and workers.

    \b
    paropt status
    paropt status shop --watch
    paropt status shop --json | jq .best.params
    """
    if as_json and watch:
        raise click.UsageError("--json prints once, and --watch stays; leave one of them out.")
    from paropt.storage.connect import open_storage
    from paropt.terminal.study_list import print_studies

    if study is None and not as_json and not watch:
        with open_storage(storage) as opened:
            print_studies(opened, parts=parts)
        return
    from paropt.terminal.status import Looking

    with open_storage(storage) as opened, Looking(opened, study, parts=parts) as looking:
        if as_json:
            click.echo(json.dumps(looking.look(), indent=2))
        elif watch:
            looking.watch()
        else:
            looking.print()
