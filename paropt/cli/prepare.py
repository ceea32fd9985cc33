"""``paropt prepare``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("events", nargs=-1, type=FILE)
@click.option("--out", required=True, type=FILE, metavar="DIR", help="The directory to make.")
@click.option("--train-full", type=FILE, help="Training data that was split elsewhere.")
@click.option("--test", type=FILE, help="Test data that was split elsewhere.")
@click.option("--train", type=FILE, help="The part of the training data to search on.")
@click.option("--valid", type=FILE, help="The part of the training data to judge a search on.")
@click.option("--session-key", show_default="SessionId", help="Column of sessions or users.")
@click.option("--item-key", show_default="ItemId", help="Column of items.")
@click.option("--time-key", show_default="Time", help="Column of times.")
@click.option("--order-column", help="Column of the order, where a log has no times.")
@click.option("--split-column", help="Column that says train, valid or test.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if it is a dataset.")
def prepare(
    events: tuple[Path, ...],
    out: Path,
    train_full: Path | None,
    test: Path | None,
    train: Path | None,
    valid: Path | None,
    overwrite: bool,
    **options: Any,
) -> None:
    """Turn event logs into a dataset directory."""
    from paropt.data.options import Options
    from paropt.data.prepare import prepare

    splits = {"train_full": train_full, "train": train, "valid": valid, "test": test}
    given = {name: path for name, path in splits.items() if path is not None}
    dataset = prepare(
        events,
        out,
        given,
        Options(**options),
        overwrite,
        note=lambda message: click.echo(message, err=True),
    )
    click.echo(f"{dataset.path} {dataset.fingerprint}")
