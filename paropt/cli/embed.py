"""``paropt embed``."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._log_options import options_of, reading_options, said_of
from paropt.cli._study import Duration, directory_of, say
from paropt.cli._training import DIRECTORY

if TYPE_CHECKING:
    from paropt.vectors.embed import Embedded, Request

EVERY = 10.0  # seconds between lines of progress, off a terminal
_PASSWORD = re.compile(r"(\w+://)[^\s'\"]*@")


class Discreet(click.Command):
    """A verb whose messages about its own command line show no password of a URL in it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise click.UsageError(_PASSWORD.sub(r"\1…@", error.message), ctx) from None


@click.command(cls=Discreet)
@click.argument("directory", metavar="MODEL", type=DIRECTORY)
@click.option(
    "--data",
    metavar="DIR|FILE",
    help="Whose events: a dataset directory, or a log as paropt recommend reads it.",
)
@click.option(
    "--to",
    metavar="PLACE",
    show_default="PAROPT_REDIS_URL in the environment",
    help="redis://HOST:PORT/DB, rediss://… (TLS), unix:///PATH, DIR.parquet or FILE.npy.",
)
@click.option(
    "--to-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with the place, for a URL with a password.",
)
@click.option(
    "--what", type=click.Choice(["users", "items"]), default="users", help="Whose vectors."
)
@click.option(
    "--split",
    type=click.Choice(["all", "train", "valid", "train_full", "test"]),
    default="all",
    help="Which events of a dataset; all: those of train_full and test.",
)
@click.option(
    "--encoding",
    type=click.Choice(["float32", "json"]),
    show_default="float32",
    help="In Redis: little-endian bytes, or text.",
)
@click.option(
    "--key", metavar="KEY", show_default="user:{id}, item:{id}", help="In Redis: a vector's key."
)
@click.option("--ttl", type=Duration(), metavar="7d", help="In Redis: how long a vector stays.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option(
    "--batch",
    type=click.IntRange(min=1, max=100_000),
    show_default="1000",
    help="In Redis: vectors of a pipeline.",
)
@click.option(
    "--want",
    multiple=True,
    metavar="[COLUMN=]VALUE",
    help="What is wanted of the next event, for a model that reads it: click, say.",
)
@reading_options
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
def embed(
    directory: Path,
    data: str | None,
    to: str | None,
    to_file: Path | None,
    what: Any,
    split: str,
    encoding: Any,
    key: str | None,
    ttl: float | None,
    overwrite: bool,
    batch: int | None,
    want: tuple[str, ...],
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Write every user's vector, or every item's, to Redis or to files.

    A user's vector is what the model makes of the user's latest events: what a request would rank
    by. A run that was ended goes on where it was when it is typed again, and nothing that is there
    is ever removed.

    \b
    paropt embed shop --data data/shop --to redis://localhost:6379/0 --ttl 7d
    paropt embed shop --data today.csv --to users.npy
    paropt embed shop --what items --to items.parquet
    """
    from paropt.training.saved_model.header import read_header
    from paropt.vectors.places import Settings, named_place, open_place

    read_header(directory)  # what can't be is said before torch is imported, which takes seconds
    place = named_place(to, to_file)
    _warn_of_password(to)
    lasting = None if ttl is None else max(1, round(ttl))
    store = open_place(place, Settings(what, encoding, key, lasting, overwrite, batch))
    from paropt.vectors.embed import Request
    from paropt.vectors.embed import embed as write

    base = Request(directory, what=what, split=split, want=want, device=device)
    request = _with_data(base, data, said_of(given))
    with _progress() as progress:
        done = write(request, store, say, progress)
    _show(done, as_json)


def _warn_of_password(to: str | None) -> None:
    if to is not None and re.match(r"\w+://[^/]*:[^/]*@", to):
        say(
            "everybody on this machine can read the password while this runs; give the URL in"
            " PAROPT_REDIS_URL, or in a file (--to-file)"
        )


def _with_data(request: Request, data: str | None, said: dict[str, Any]) -> Request:
    """The request with its dataset directory or log, and how that is read."""
    from paropt.launch.data.data_source import EventFiles, check_file, is_dataset

    if request.what == "items":
        if data is not None:
            say("--data is not read: the items' vectors are the model's own")
        return request
    if data is None:
        raise click.UsageError("whose vectors? give --data DIR or FILE, or --what items")
    if is_dataset(data):
        named = EventFiles((data,), options_of(said)) if said else data
        return replace(request, data=directory_of(named))
    check_file(Path(data))
    if request.split != "all":
        raise click.UsageError(f"--split is of a dataset, and {data} is a log; leave it out")
    return replace(request, data=Path(data), log=options_of(said))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, else a line now and then, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("vectors"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=1, visible=False)
    last = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal last
        bar.update(task, completed=done, total=total, visible=True)
        if not console.is_terminal and time.monotonic() - last >= EVERY:
            last = time.monotonic()
            say(f"{done:,} of {total:,} vectors")

    try:
        with bar:
            yield tell
    except KeyboardInterrupt:
        say("ended; the same command goes on where this one was")
        raise


def _show(done: Embedded, as_json: bool) -> None:
    for line in done.warnings:
        click.echo(f"Warning: {line}", err=True)
    if as_json:
        click.echo(json.dumps(asdict(done), indent=1))
        return
    new = done.vectors - done.there
    split = f", split {done.split}" if done.split else ""
    before = f", {done.there:,} of them before" if done.there else ""
    click.echo(f"{done.vectors:,} vectors of {done.what} in {done.to}{before}")
    click.echo(f"{done.dimension} dimensions, {done.model} {done.version[:12]}{split}")
    click.echo(f"{done.compared} of them read back: the same")
    click.echo(
        f"{done.seconds:,.1f} s, {done.writing:,.1f} s of them writing {new:,} vectors"
        f" ({done.vectors_per_second:,.0f} vectors/s)"
    )
