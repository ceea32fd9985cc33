"""``paropt recommend``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._log_options import options_of, reading_options
from paropt.cli._study import say
from paropt.cli._training import DIRECTORY

if TYPE_CHECKING:
    from paropt.data.features.item_files import ItemFiles
    from paropt.training.recommending.new_sessions import Recommendation
    from paropt.training.saved_model.header import Header

FILE = click.Path(path_type=Path)
SHOWN = 3  # sessions that are named where nothing of them is known


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--sessions",
    "file",
    required=True,
    type=FILE,
    metavar="FILE",
    help="Events of sessions: TSV, CSV, JSON lines or Parquet.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=DIRECTORY,
    metavar="DIR",
    help="Average this model's scores too: another seed, or an earlier epoch; repeatable.",
)
@click.option("--top", type=click.IntRange(min=1), default=20, help="Items for each session.")
@click.option("--filter-seen", is_flag=True, help="Leave out the items of the session.")
@click.option(
    "--candidates",
    type=FILE,
    metavar="FILE",
    help="Recommend only these items: ids, one per line, or the item column of a table.",
)
@click.option(
    "--exclude", type=FILE, metavar="FILE", help="Never recommend these items; as --candidates."
)
@click.option(
    "--want",
    multiple=True,
    metavar="[COLUMN=]VALUE",
    help="What is wanted of the next event, for a model that reads it: click, say.",
)
@click.option(
    "--names",
    "names_from",
    metavar="COLUMN",
    show_default="title or name, if the model keeps them",
    help="Show the items' names from this column of the table of items.",
)
@click.option(
    "--items",
    type=FILE,
    metavar="FILE",
    help="A table of items for --names, by --item-key.",
)
@click.option(
    "--item-features",
    multiple=True,
    type=FILE,
    metavar="FILE",
    help="Tables of items that the model may not know, which it then ranks and reads as well.",
)
@click.option(
    "--item-vectors",
    multiple=True,
    metavar="NAME=FILE[,IDS]",
    help="Vectors of such items, for one of the model's vectors.",
)
@click.option(
    "--item-features-key", show_default="as in the model's own log", help="Their column of ids."
)
@click.option(
    "--list-separator", metavar="TEXT", help="What separates several values in a table's text."
)
@click.option(
    "--update-memory",
    is_flag=True,
    help="Let the model remember the sessions, after recommending; written back to DIR.",
)
@reading_options
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per session.")
def recommend(
    directory: Path,
    file: Path,
    others: tuple[Path, ...],
    top: int,
    filter_seen: bool,
    candidates: Path | None,
    exclude: Path | None,
    want: tuple[str, ...],
    names_from: str | None,
    items: Path | None,
    item_features: tuple[Path, ...],
    item_vectors: tuple[str, ...],
    item_features_key: str | None,
    list_separator: str | None,
    update_memory: bool,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Next items for the sessions of a file.

    The file is read as the log that the model was trained on: its columns, header, times and kinds
    of events are remembered. Without times the rows are taken to be in order. A session of which
    the model knows nothing gets the most popular items. A model that was trained with features or
    vectors of items takes items that it never saw, from files like those that prepare was given.

    \b
    paropt recommend shop --sessions live.tsv --top 20
    paropt recommend shop --sessions live.csv --session-key visitor --items items.csv --names title
    paropt recommend shop --sessions live.csv --candidates in-stock.txt --exclude adult.csv
    paropt recommend ads --sessions live.csv --want click
    paropt recommend shop --sessions live.csv --item-features new.csv --item-vectors look=new.npy
    """
    from paropt.data.log.item_list import read_item_list
    from paropt.data.log.sessions_file import read_asked
    from paropt.training.saved_model.header import read_header

    # the file is looked at before torch is imported, which takes seconds
    header = read_header(directory)
    options = options_of(given)
    users = (options.user_key, header.meta.get("user_key"))
    further = [*header.sources.values(), *filter(None, users)]
    asked = read_asked(file, options, header.log, further)
    more = _item_files(item_features, item_vectors, item_features_key, list_separator)
    if more and others:
        raise click.UsageError(
            "--item-features and --item-vectors are for one model, without --with"
        )
    if update_memory and (more or others):
        raise click.UsageError("--update-memory is of one model alone, with the items it knows")
    if not more:
        asked.refuse_strangers(header.item_ids)
    item_key = options.item_key or asked.item_key
    listed = read_item_list(candidates, item_key, "--candidates") if candidates else None
    barred = read_item_list(exclude, item_key, "--exclude") if exclude else []
    called = _names(header, names_from, items, item_key)

    from paropt.training.recommending.new_items import with_new_items
    from paropt.training.recommending.new_sessions import known_sessions, recommend
    from paropt.training.recommending.offer import make_offer
    from paropt.training.saved_model.ensemble import load_models

    with with_new_items(load_models([directory, *others], device), more, say) as saved:
        offer = make_offer(saved, listed, barred)
        known = known_sessions(asked, saved, options.user_key, want)
        for note in (*known.notes, *offer.notes):
            say(note)
        if top > (left := offer.left(saved.n_items)):
            say(f"--top {top} asks for more than the {left:,} items that there are to recommend")
        _say_empty(known.empty)
        if update_memory:
            from paropt.training.recommending.memory_rows import check_memory

            check_memory(saved, directory)
        show = _Show(called, as_json)
        for found in recommend(saved, known, top, filter_seen, offer):
            show(found)
        if update_memory:
            from paropt.training.recommending.memory_rows import update

            count = update(saved, directory, known)
            of = f"of {len(known.ids):,} sessions; users that training never saw are not remembered"
            say(f"the memory moved by {count:,} {of}")


def _item_files(
    tables: tuple[Path, ...], vectors: tuple[str, ...], key: str | None, separator: str | None
) -> ItemFiles:
    from paropt.data.features.item_files import ItemFiles
    from paropt.data.features.vectors import VectorFile

    try:
        files = [VectorFile.parse(text) for text in vectors]
    except ValueError as error:
        raise click.UsageError(f"--item-vectors {error}") from None
    return ItemFiles(tables, files, key, separator)


def _names(
    header: Header, column: str | None, table: Path | None, item_key: str
) -> Mapping[str, str] | None:
    """The items' names by their ids."""
    if table is not None:
        from paropt.data.log.sessions_file import read_names

        return read_names(table, item_key, column)
    kept = header.names(column)
    if kept is None:
        return None
    found = zip(header.item_ids, kept, strict=True)
    return {item: name for item, name in found if name is not None}


def _say_empty(sessions: list[str]) -> None:
    for session in sessions[:SHOWN]:
        say(f"session {session} has no item that the model knows: it gets the most popular ones")
    if len(sessions) > SHOWN:
        say(f"so do {len(sessions) - SHOWN:,} more sessions")


class _Show:
    """Prints recommendations, a line each or an object per session."""

    def __init__(self, names: Mapping[str, str] | None, as_json: bool) -> None:
        self.names = names
        self.as_json = as_json
        self.begun = False

    def _begin(self) -> None:
        if not (self.begun or self.as_json):
            columns = ("session", "rank", "item", "score", "by", "name")
            click.echo("\t".join(columns if self.names is not None else columns[:-1]))
        self.begun = True

    def __call__(self, found: Recommendation) -> None:
        self._begin()
        if self.as_json:
            items = [self._object(*pair) for pair in zip(found.items, found.scores, strict=True)]
            told = {"session": found.session, "popular": found.popular, "items": items}
            click.echo(json.dumps(told, ensure_ascii=False))
            return
        by = "popularity" if found.popular else "model"
        for rank, (item, score) in enumerate(zip(found.items, found.scores, strict=True), 1):
            cells = [found.session, str(rank), item, f"{score:.6g}", by]
            if self.names is not None:
                cells.append(" ".join(self.names.get(item, "").split()))
            click.echo("\t".join(cells))

    def _object(self, item: str, score: float) -> dict[str, Any]:
        told: dict[str, Any] = {"item": item, "score": score}
        return told if self.names is None else told | {"name": self.names.get(item)}
