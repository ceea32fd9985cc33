"""What ``prepare`` keeps beside events: tables of items and users, vectors of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from paropt.data.encoding import Index
from paropt.data.events import Events
from paropt.data.features.columns import Column
from paropt.data.features.encoders import Encoder, encoder_of
from paropt.data.features.fields import KINDS, FieldOf, Kind, Texts, array_path
from paropt.data.features.made_from import check_made_from, forget_writer
from paropt.data.features.tables import Fields, TableField, Told, described, lifted, read_tables
from paropt.data.features.texts import write_text_vectors
from paropt.data.features.vectors import VectorFile, write_vectors
from paropt.data.log.options import Options
from paropt.errors import DataError

Note = Callable[[str], None]
Write = Callable[[Path], NDArray[np.bool_]]
"""Writes ``rows.npy`` at a path; gives which rows are missing [n]."""


@dataclass(frozen=True)
class Beside:
    """Arrays by path, what writes those too large for memory, and what meta.json says of both."""

    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    large: Mapping[str, Write] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def told(options: Options) -> Told:
    """The kinds of columns that the user named.

    Raises:
        DataError: a kind that there isn't.
    """
    kinds: dict[str, Kind] = dict.fromkeys(options.categorical, "category")
    for text in options.kinds:
        name, _, word = text.rpartition("=")
        found = next((kind for kind in KINDS if kind == word and kind != "vector"), None)
        if not name or found is None:
            raise DataError(
                f"--kind {text}: write NAME=KIND, with number, category, categories or text"
            )
        kinds[name] = found
    separator = options.list_separator or ""
    return Told(kinds, separator, options.skip_bad_rows, bool(options.drop_missing))


def keep_beside(
    options: Options,
    item_key: str,
    items: pa.Array,
    users: tuple[str, pa.Array] | None,
    from_events: Fields,
    note: Note,
    text_cache: Path | None = None,
    mark: str = "",
) -> Beside:
    """All tables and vectors that ``options`` name, for the ids of ``items`` and of ``users``.

    ``users`` are the name of their column and their ids; ``from_events`` are fields of items that
    came with the events; ``text_cache`` keeps what was encoded of texts; ``mark`` is that of the
    training events (:func:`paropt.data.features.made_from.training_mark`).

    Raises:
        DataError: something of it cannot be used.
    """
    key = options.item_features_key or item_key
    of_items = read_tables(
        options.item_features,
        options.item_features_header,
        key,
        "--item-features",
        items,
        told(options),
        note,
        lambda path, fields: forget_writer(fields),
    )
    for name in from_events:
        if name in of_items:
            raise DataError(f"--item-column {name}: a table of items has a column of that name")
    of_items |= from_events
    of_users: Fields = {}
    if options.user_features:
        if users is None:
            raise DataError(
                "--user-features needs to know whose session it is: say --user-key COLUMN"
            )
        of_users = read_tables(
            options.user_features,
            options.user_features_header,
            options.user_features_key or users[0],
            "--user-features",
            users[1],
            told(options),
            note,
            lambda path, fields: check_made_from(path, fields, mark, note),
        )
    large: dict[FieldOf, dict[str, Write]] = {
        "items": _vectors(options, key, items, of_items, note),
        "users": {},
    }
    tables: dict[FieldOf, Fields] = {"items": of_items, "users": of_users}
    wanted: dict[FieldOf, Sequence[str]] = {
        "items": options.text_vectors,
        "users": options.user_text_vectors,
    }
    for of, names in wanted.items():
        if names:
            texts = TextFields(of, names, tables[of], options.text_encoder)
            large[of] |= _text_vectors(texts, large[of], text_cache, note)
    kinds = described(of_items) | dict.fromkeys(large["items"], "vector")
    meta: dict[str, Any] = {"features": kinds}
    if of_users:
        meta["user_features"] = described(of_users) | dict.fromkeys(large["users"], "vector")
    arrays: dict[str, NDArray[Any]] = {}
    paths: dict[str, Write] = {}
    for of, fields in tables.items():
        for name, kept in fields.items():
            arrays |= kept.named(of, name)
        paths |= {array_path(of, name, "rows"): write for name, write in large[of].items()}
    return Beside(arrays, paths, meta)


def _vectors(
    options: Options, key: str, items: pa.Array, of_items: Fields, note: Note
) -> dict[str, Write]:
    large: dict[str, Write] = {}
    for text in options.item_vectors:
        try:
            file = VectorFile.parse(text)
        except ValueError as error:
            raise DataError(f"--item-vectors: {error}") from None
        if file.name in of_items or file.name in large:
            raise DataError(f"--item-vectors {file.name}: items have that feature already")
        file = replace(file, pickled=options.numpy_pickles)
        large[file.name] = _of_file(file, key, items, note)
    return large


@dataclass(frozen=True)
class TextFields:
    """Texts ``names`` among the ``fields`` of items or users, and the encoder's name."""

    of: FieldOf
    names: Sequence[str]
    fields: Fields
    encoder: str | None

    @property
    def option(self) -> str:
        return "--text-vectors" if self.of == "items" else "--user-text-vectors"


def _text_vectors(
    texts: TextFields, others: Mapping[str, Write], cache: Path | None, note: Note
) -> dict[str, Write]:
    encoder = encoder_of(texts.encoder)
    found: dict[str, Write] = {}
    for name in texts.names:
        kept, option = texts.fields.get(name), f"{texts.option} {name}"
        if kept is None or kept.kind != "text":
            has = [other for other, field in texts.fields.items() if field.kind == "text"]
            raise DataError(
                f"{option}: {texts.of} have no text {name!r} (they have"
                f" {', '.join(has) or 'none'}); --kind {name}=text makes a column one"
            )
        if f"{name}_vector" in {*texts.fields, *others}:
            raise DataError(f"{option}: {texts.of} have a feature '{name}_vector' already")
        found[f"{name}_vector"] = _of_texts(name, kept, texts.of, encoder, cache, note)
    return found


def _of_texts(
    name: str, kept: TableField, of: FieldOf, encoder: Encoder, cache: Path | None, note: Note
) -> Write:
    texts = Texts(kept.arrays["bytes"], kept.arrays["offsets"], kept.arrays["missing"])
    return lambda path: write_text_vectors(path, name, texts, encoder, cache, note, of)


def _of_file(file: VectorFile, key: str, items: pa.Array, note: Note) -> Write:
    return lambda path: write_vectors(path, file, key, items.to_pylist(), note)


def item_columns(
    names: Sequence[str],
    columns: Mapping[str, Column],
    splits: Mapping[str, Events],
    index: Index,
    note: Note,
) -> Fields:
    """Columns of events that belong to the item, as fields of items."""
    parts = [
        (index.index_of[splits[name].item], splits[name].row)
        for name in ("train", "train_full", "valid", "test")
    ]
    found: dict[str, TableField] = {}
    for name in names:
        column = columns[name]
        n_items = len(index.code_of)
        found[name], varying = lifted(column.values, column.vocabulary, parts, n_items)
        if varying:
            note(
                f"{name!r} is not the same throughout for {varying:,} of {n_items:,} items; each"
                " has its most frequent value"
            )
    return found
