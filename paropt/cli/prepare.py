"""``paropt prepare``."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._log_options import log_options, options_of
from paropt.cli._study import say

if TYPE_CHECKING:
    from rich.table import Table

    from paropt.data import Dataset

FILE = click.Path(path_type=Path)


def _columns(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _name_lists(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(names.split(",")) if names else () for names in value)


@click.command(short_help="Turn event logs into a dataset directory.")
@click.argument("files", nargs=-1, type=FILE, metavar="[EVENTS]...")
@click.option("--out", required=True, type=FILE, metavar="DIR", help="The directory to make.")
@click.option("--overwrite", is_flag=True, help="Replace DIR if it is a dataset.")
@click.option("--demo", is_flag=True, help="Make the synthetic demo set; no files are read.")
@log_options
@click.option("--split-column", help="Column that says train, valid or test.")
@click.option(
    "--train-full",
    type=FILE,
    multiple=True,
    help="Training data, split from --test elsewhere; repeatable.",
)
@click.option(
    "--test", type=FILE, multiple=True, help="Test data that was split elsewhere; repeatable."
)
@click.option(
    "--train",
    type=FILE,
    multiple=True,
    help="The part of the training data to train a search on; repeatable.",
)
@click.option(
    "--valid",
    type=FILE,
    multiple=True,
    help="The part of the training data to judge a search on; repeatable.",
)
@click.option("--keep-column", "keep_columns", multiple=True, help="Keep this column; repeatable.")
@click.option(
    "--item-features",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="A table of items, one row each: Parquet, CSV, JSON lines; repeatable.",
)
@click.option(
    "--item-features-key",
    metavar="COLUMN",
    show_default="--item-key",
    help="The ids in tables and vectors of items.",
)
@click.option(
    "--item-features-header",
    multiple=True,
    metavar="a,b,c",
    callback=_name_lists,
    help="Names if a table of items has no header; one per table, in their order.",
)
@click.option(
    "--item-column",
    "item_columns",
    multiple=True,
    metavar="COLUMN",
    help="A column of the events that belongs to the item; repeatable.",
)
@click.option(
    "--item-vectors",
    multiple=True,
    metavar="NAME=FILE",
    help="Vectors of items: .npy (with ids: NAME=FILE,IDS), Parquet, JSON lines; repeatable.",
)
@click.option(
    "--numpy-pickles",
    is_flag=True,
    help="Read vectors that are pickled numpy arrays; no code of a pickle is run.",
)
@click.option(
    "--text-vectors",
    metavar="COLUMN,…",
    callback=_columns,
    help="Vectors COLUMN_vector of texts in tables of items, by a sentence encoder.",
)
@click.option(
    "--text-encoder",
    metavar="FOLDER|NAME",
    show_default="all-MiniLM-L6-v2",
    help="A sentence-transformers model, in a folder or by its name; hashing: no model at all.",
)
@click.option(
    "--user-features",
    type=FILE,
    multiple=True,
    metavar="FILE",
    help="A table of users, one row each; repeatable.",
)
@click.option(
    "--user-text-vectors",
    metavar="COLUMN,…",
    callback=_columns,
    help="Vectors COLUMN_vector of texts in tables of users, by the same encoder.",
)
@click.option(
    "--user-features-key",
    metavar="COLUMN",
    show_default="--user-key",
    help="The ids in tables of users.",
)
@click.option(
    "--user-features-header",
    multiple=True,
    metavar="a,b,c",
    callback=_name_lists,
    help="Names if a table of users has no header; one per table, in their order.",
)
@click.option(
    "--list-separator", metavar="TEXT", help="What separates several values in a table's text."
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="NAME=KIND",
    help="A table's column is a number, category, categories or text; repeatable.",
)
@click.option(
    "--categorical",
    multiple=True,
    help="A kept column or feature whose numbers are names; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def prepare(
    files: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    demo: bool,
    train_full: tuple[Path, ...],
    test: tuple[Path, ...],
    train: tuple[Path, ...],
    valid: tuple[Path, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Turn event logs into a dataset directory.

    EVENTS are TSV, CSV, JSON lines (plain or gzip) or Parquet files or directories of these, with
    one event per row; several are read as one log. Sessions of the last days become the test part,
    those of the days before that the valid part.

    \b
    paropt prepare events.tsv --out data/shop
    paropt prepare --demo --out data/demo
    paropt prepare log.csv.gz --session-key user --session-gap 30m --out data/log
    paropt prepare --train-full train.tsv --test test.tsv --out data/shop
    paropt prepare --train train.tsv --valid valid.tsv --out data/shop
    """
    splits = {"train_full": train_full, "train": train, "valid": valid, "test": test}
    given = {name: paths for name, paths in splits.items() if paths}
    if demo and (files or given):
        raise click.UsageError("--demo makes its own events; leave out the files")
    if not (demo or files or given):
        raise click.UsageError("nothing to prepare: give event files, or --demo")

    from paropt.data.prepare import prepare, prepare_demo

    if demo:
        dataset = prepare_demo(out, overwrite)
    else:
        from paropt.machine.home import paropt_home

        cache = paropt_home() / "text-vectors"
        dataset = prepare(files, out, given, options_of(options), overwrite, say, cache)
    if as_json:
        click.echo(json.dumps(_json(dataset), indent=2))
    else:
        _show(dataset)


def _json(dataset: Dataset) -> dict[str, Any]:
    counts = ("events", "sessions", "items", "targets", "known_targets")
    return {
        "path": str(dataset.path),
        "fingerprint": dataset.fingerprint,
        "protocol": dataset.protocol,
        "items": dataset.n_items("test"),
        "splits": {
            name: {count: split[count] for count in counts}
            for name, split in dataset.meta["splits"].items()
        },
        "funnel": dataset.meta["funnel"],
        "equal_times": dataset.meta["equal_times"],
        "warnings": dataset.meta["warnings"],
        "users": dataset.n_users("test"),
        "fields": _fields(dataset),
    }


def _show(dataset: Dataset) -> None:
    from rich.console import Console

    steps = dataset.meta["funnel"]
    # a log or a pipe gets whole lines too, however narrow it says it is
    longest = max(len(step["option"]) for step in steps)
    console = Console(width=max(Console().width, 120, 70 + longest))
    console.print(_funnel(steps))
    click.echo()
    console.print(_splits(dataset.meta["splits"]))
    if fields := _fields(dataset):
        click.echo()
        console.print(_kept(fields))
    click.echo(f"\nfingerprint  {dataset.fingerprint}")
    click.echo(f"next         paropt launch --data {shlex.quote(str(dataset.path))}")


def _table(left: Iterable[str], right: Iterable[str], last: Iterable[str]) -> Table:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in last:
        table.add_column(name, no_wrap=True)
    return table


def _funnel(steps: list[dict[str, Any]]) -> Table:
    """What each step leaves."""
    table = _table(["after"], ["events", "sessions", "items"], ["decided by"])
    for step in steps:
        counts = [f"{step[count]:,}" for count in ("events", "sessions", "items")]
        table.add_row(step["name"], *counts, step["option"])
    return table


def _splits(splits: dict[str, dict[str, Any]]) -> Table:
    counts = ("events", "sessions", "items", "targets")
    table = _table(["split"], [*counts, "known", "density"], ["span"])
    for name, split in splits.items():
        numbers = [f"{split[count]:,}" for count in (*counts, "known_targets")]
        cells = split["sessions"] * split["items"]
        table.add_row(name, *numbers, f"{split['pairs'] / max(cells, 1):.3%}", _span(split))
    return table


def _fields(dataset: Dataset) -> list[dict[str, Any]]:
    """What is kept beside ids and times."""
    return [
        {
            "name": field.name,
            "of": of,
            "kind": field.kind,
            "size": field.size,
            "missing": None if of == "events" else field.missing,
        }
        for of in ("events", "items", "users")
        for field in dataset.fields(of).values()
    ]


def _kept(fields: list[dict[str, Any]]) -> Table:
    table = _table(["kept", "of", "kind"], ["size", "missing"], [])
    for field in fields:
        size, missing = field["size"], field["missing"]
        numbers = [f"{size:,}" if size else "", "" if missing is None else f"{missing:,}"]
        table.add_row(field["name"], field["of"], field["kind"], *numbers)
    return table


def _span(split: dict[str, Any]) -> str:
    """First and last event's day, and how many days lie between."""
    from datetime import UTC, datetime

    if split["first"] is None:
        return "order only" if split["events"] else "not given"
    first, last = (datetime.fromtimestamp(split[end] / 1000, UTC) for end in ("first", "last"))
    days = (last - first).total_seconds() / 86_400
    return f"{first:%Y-%m-%d} to {last:%Y-%m-%d}, {days:.1f} days"
