"""``paropt export-model``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from paropt.cli._training import DIRECTORY

if TYPE_CHECKING:
    from paropt.training.recommending.exporting import Format, Gives


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["onnx", "torch-export", "torchscript"]),
    default="onnx",
    help="For ONNX Runtime, torch.export.load, or torch.jit.load (which torch calls deprecated).",
)
@click.option("--out", required=True, type=DIRECTORY, metavar="DIR", help="A new directory.")
@click.option(
    "--gives",
    type=click.Choice(["top", "vector"]),
    default="top",
    help="top: the best items and their scores; vector: the session's, and the items' in a file.",
)
@click.option("--top", type=click.IntRange(min=1), default=20, help="How many items it gives.")
@click.option(
    "--length",
    type=click.IntRange(min=1),
    show_default="the model's max_length, or 50",
    help="Events of a session that it takes; of longer ones give it the last.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def export_model(
    directory: Path,
    format_: Format,
    out: Path,
    gives: Gives,
    top: int,
    length: int | None,
    as_json: bool,
) -> None:
    """Write a saved model as ONNX, or as a program of torch.

    It is checked to recommend the same. GRU4Rec, SASRec and HSTU: right-padded sessions of items'
    rows in, the best items' rows and scores out, or vectors. 64 made-up sessions are asked of both
    before anything is kept.

    \b
    paropt export-model models/shop --out shop-onnx
    paropt export-model models/shop --format torch-export --gives vector --out shop-torch
    """
    from paropt.training.recommending.exporting import ExportRequest, export_model

    made = export_model(ExportRequest(directory, out, format_, gives, top, length))
    if as_json:
        click.echo(json.dumps(asdict(made), indent=1))
        return
    click.echo(
        f"written to {out}: {made.file}, {', '.join(made.inputs)} in, "
        f"{' and '.join(made.outputs)} out"
    )
    click.echo(
        f"{made.checked} sessions of 1 to {made.length} events get the same items; scores are at "
        f"most {made.farthest:.2g} from ours"
    )
