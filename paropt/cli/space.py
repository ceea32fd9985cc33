"""``paropt space``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paropt.cli._study import ShippedFile


@click.command()
@click.argument("file", type=ShippedFile("space"), metavar="FILE|NAME")
@click.option("--fixed", multiple=True, metavar="K=V,…", help="Parameters that FILE leaves out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def space(file: Path, fixed: tuple[str, ...], as_json: bool) -> None:
    """Show a parameter space as a table.

    FILE is a JSON object as in paramspaces/, or a space in GRU4Rec's own JSON lines; NAME is one of
    paropt's own. It is checked against the parameters that its models declare.

    \b
    paropt space gru4rec_bprmax_shared
    paropt space gru4rec_xe_standard_parspace.json --fixed loss=cross-entropy,logq=1
    """
    from paropt.search.setup.check_space import read_checked_space
    from paropt.search.space.table import as_object, as_text

    checked = read_checked_space(file, fixed)
    click.echo(json.dumps(as_object(checked), indent=2) if as_json else as_text(checked))
