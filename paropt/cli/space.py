"""``paropt space``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paropt.cli._study import ShippedFile, say


@click.command()
@click.argument("file", required=False, type=ShippedFile("space"), metavar="[FILE|NAME]")
@click.option(
    "--fixed",
    multiple=True,
    metavar="K=V,…",
    help="Parameters with one value: what FILE leaves out, or searches otherwise.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def space(file: Path | None, fixed: tuple[str, ...], as_json: bool) -> None:
    """Show a parameter space as a table, or list paropt's own.

    FILE is a JSON object as in paramspaces/, or a space in GRU4Rec's own JSON lines; NAME is one of
    paropt's own. It is checked against the parameters that its models declare.

    \b
    paropt space
    paropt space gru4rec_bprmax_shared
    paropt space gru4rec_bprmax_shared --fixed layers=96
    paropt space gru4rec_xe_standard_parspace.json --fixed loss=cross-entropy,logq=1
    """
    from paropt.search.setup.check_space import read_checked_space
    from paropt.search.space.pinning import pinned_words
    from paropt.search.space.table import as_object, as_text

    if file is None:
        _list(fixed, as_json)
        return
    checked = read_checked_space(file, fixed)
    for line in pinned_words(checked):
        say(line)
    click.echo(json.dumps(as_object(checked), indent=2) if as_json else as_text(checked))


def _list(fixed: tuple[str, ...], as_json: bool) -> None:
    from paropt.search.space.table import listed, shipped_spaces

    if fixed:
        raise click.UsageError("--fixed is of one space; name it")
    found = shipped_spaces()
    click.echo(json.dumps(found, indent=2) if as_json else listed(found))
