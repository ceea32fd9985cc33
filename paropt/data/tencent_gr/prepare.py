"""From a directory of the ads competition to a dataset directory, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from paropt.data.dataset import Content, Dataset, check_out, write_dataset
from paropt.data.encoding import Index, pack_ids
from paropt.data.features.collect import Write
from paropt.data.features.fields import array_path, vocabulary_path
from paropt.data.features.tables import Fields
from paropt.data.features.tables import described as kinds_of
from paropt.data.features.vectors import VectorFile, write_vectors
from paropt.data.log.command import option_words, said_options
from paropt.data.log.filtering.funnel import Funnel, warnings
from paropt.data.log.formats import FORMATS
from paropt.data.log.options import Options, Recipe
from paropt.data.log.values.times import odd_span
from paropt.data.reading.layouts import Layout
from paropt.data.reading.pickles import NUMPY_OPTION
from paropt.data.summary import described, summary
from paropt.data.tencent_gr.candidates import Candidates, read_candidates
from paropt.data.tencent_gr.features import fields_of, read_dict, read_folder, table_of
from paropt.data.tencent_gr.indexer import Indexer, read_indexer
from paropt.data.tencent_gr.json_lines import read_json_lines
from paropt.data.tencent_gr.last_click import ACTIONS, Cuts, Splits, cut, first_events, index_items
from paropt.data.tencent_gr.layout import Directory, VectorFiles, is_one, look_into
from paropt.data.tencent_gr.parquet import read_parquet
from paropt.data.tencent_gr.sequences import Sequences, Tally, joined, named_once
from paropt.errors import DataError

Note = Callable[[str], None]
NAME = "tencent-gr"
VECTOR_BYTES = 2 << 30  # of vectors that are kept without being asked for
_APPLY = ("format", "item_vectors", "numpy_pickles")
_TARGET = "the last event of action_type 1"


def is_asked(events: Sequence[Path], options: Options | None, note: Note) -> bool:
    """Whether the competition's format was named, or a directory of it is all that was given."""
    named = options.format if options else None
    if named is None and len(events) == 1 and is_one(events[0]):
        note(f"format: {NAME} ({FORMATS[NAME].title}); --format names another")
        return True
    return named == NAME


def prepare_tencent(
    path: Path, out: Path, options: Options, overwrite: bool, note: Note
) -> Dataset:
    """Make a dataset directory from the competition's files.

    Raises:
        DataError: they cannot be used; nothing is written then.
    """
    check_out(out, overwrite)
    _check(options)
    directory = look_into(path)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        note(line)

    indexer = read_indexer(directory.indexer) if directory.indexer else None
    if indexer is None:
        say("there is no indexer.pkl: original ids are unknown, and so are vectors")
    chosen = _chosen(directory, options, indexer, say)
    sequences = _read(directory, indexer, say)
    content = _content(directory, sequences, indexer, chosen, options, say)
    for warning in content.meta["warnings"]:
        say(f"warning: {warning}")
    told = {"said": said, "options": option_words(options)}
    return write_dataset(out, replace(content, meta={**content.meta, **told}), overwrite)


def _check(options: Options) -> None:
    others = [name for name in said_options(options) if name not in _APPLY]
    if others:
        words = option_words(replace(Options(), **{others[0]: getattr(options, others[0])}))
        raise DataError(
            f"{words[0]} does not apply to --format {NAME}, whose layout and protocol are fixed; it"
            " takes --item-vectors and --numpy-pickles"
        )


def _read(directory: Directory, indexer: Indexer | None, say: Note) -> Sequences:
    tally = Tally()
    most = indexer.n_items if indexer else None
    read = read_parquet if directory.parquet else read_json_lines
    sequences = joined(read(directory.sequences, most, tally))
    tally.say(say)
    if not len(sequences.items):
        raise DataError(f"{directory.sequences} has no events")
    if odd := odd_span(sequences.times):
        say(f"warning: {odd.removesuffix(' --time-format says which')}")
    return replace(sequences, users=named_once(sequences.users))


# -- vectors -----------------------------------------------------------------------------------


def _chosen(
    directory: Directory, options: Options, indexer: Indexer | None, say: Note
) -> list[VectorFile]:
    """The vectors that were asked for, else those that are there and not too large."""
    asked = options.item_vectors
    if indexer is None or asked == ("none",):
        if asked and asked != ("none",):
            raise DataError(f"--item-vectors {asked[0]}: {directory.path} has no indexer.pkl")
        return []
    found = directory.vectors
    if not asked:
        kept = [one for one in found.values() if _kept(one, indexer, options, say)]
        return [_file(one, options) for one in kept]
    chosen = []
    for text in asked:
        if "=" in text:
            try:
                chosen.append(replace(VectorFile.parse(text), pickled=options.numpy_pickles))
            except ValueError as error:
                raise DataError(f"--item-vectors: {error}") from None
        elif text.isdecimal() and int(text) in found:
            if _is_refused(found[int(text)], options):
                raise DataError(
                    f"{found[int(text)].path} is a pickle; say {NUMPY_OPTION}, which reads numpy"
                    " arrays by id out of it and runs nothing"
                )
            chosen.append(_file(found[int(text)], options))
        else:
            has = ", ".join(map(str, found)) or "none"
            raise DataError(
                f"--item-vectors {text}: {directory.path} has no such vectors (it has {has}); give"
                " a number, NAME=FILE, or none"
            )
    return chosen


def _is_refused(vectors: VectorFiles, options: Options) -> bool:
    return vectors.path.suffix == ".pkl" and not options.numpy_pickles


def _kept(vectors: VectorFiles, indexer: Indexer, options: Options, say: Note) -> bool:
    """Whether vectors are kept without being asked for."""
    if _is_refused(vectors, options):
        say(f"{vectors.path.name} is left out: {NUMPY_OPTION} reads it, without running anything")
        return False
    size = 2 * vectors.dim * indexer.n_items
    if size <= VECTOR_BYTES:
        return True
    say(
        f"{vectors.path.name} is left out, as it may take {size / 1e9:.1f} GB; --item-vectors"
        f" {vectors.number} keeps it"
    )
    return False


def _file(vectors: VectorFiles, options: Options) -> VectorFile:
    return VectorFile(vectors.name, vectors.path, pickled=options.numpy_pickles)


# -- the content -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Beside:
    items: Fields
    users: Fields
    large: Mapping[str, Write]


def _content(
    directory: Directory,
    sequences: Sequences,
    indexer: Indexer | None,
    chosen: list[VectorFile],
    options: Options,
    say: Note,
) -> Content:
    cuts = cut(sequences)
    n_ids = 1 + max(int(sequences.items.max()), indexer.n_items if indexer else 0)
    ids = pa.array(np.arange(n_ids)).cast(pa.string())
    candidates = read_candidates(directory.candidates, indexer, n_ids, say)
    index = index_items(sequences, cuts, ids, candidates.items)
    splits = Splits(sequences, cuts, index)
    users = sequences.users.take(pa.array(splits.order))
    items = ids.take(pa.array(index.code_of))
    beside = _beside(directory, sequences, items, users, say)
    large = {file.name: _writer(file, _original(indexer, index), say) for file in chosen if indexer}
    # one split at a time is in memory
    summaries = {name: summary(name, splits[name], index, True) for name in splits}
    funnel = _funnel(sequences, cuts)
    recipe = _recipe(directory, options)
    told = warnings(funnel.steps, summaries, None)
    meta = described(recipe, index, summaries, funnel, None, told, {"action_type": "categorical"})
    known = dict.fromkeys(("all", "train", "train_full"), len(users))
    meta |= {
        "rules": meta["rules"] | {"target": _TARGET},
        "users": {**known, "key": recipe.schema.session_key},
        "features": kinds_of(beside.items) | dict.fromkeys(large, "vector"),
        "user_features": kinds_of(beside.users),
        "candidates": {"all": len(candidates.items), "unknown": candidates.unknown},
    }
    fields = _arrays(beside, users, candidates, index)
    rows = {array_path("items", name, "rows"): write for name, write in large.items()}
    return Content(splits, items, fields, meta, rows)


def _beside(
    directory: Directory, sequences: Sequences, items: pa.Array, users: pa.Array, say: Note
) -> _Beside:
    of_items: Fields = {}
    if directory.items is None:
        say("there are no features of items")
    else:
        read = read_folder if directory.parquet else read_dict
        table = read(directory.items, "item_id")
        of_items = fields_of(table, "item_id", items, directory.items)
        _say_lacking(directory.items, "items", items, table.column("item_id"), say)
    return _Beside(of_items, _user_fields(directory, sequences, users, say), {})


def _user_fields(directory: Directory, sequences: Sequences, users: pa.Array, say: Note) -> Fields:
    """Features of users, from a table or from the lines that name them."""
    if directory.users is not None:
        table = read_folder(directory.users, "user_id")
        path = directory.users
    else:
        there = [(i, told) for i, told in enumerate(sequences.profiles) if told]
        if not there:
            say("there are no features of users")
            return {}
        names = sequences.users.take(pa.array([i for i, _ in there])).to_pylist()
        pairs = ((name.encode(), told) for name, (_, told) in zip(names, there, strict=True))
        table, path = table_of(pairs, "user_id", directory.sequences), directory.sequences
    _say_lacking(path, "users", users, table.column("user_id"), say)
    return fields_of(table, "user_id", users, path)


def _say_lacking(path: Path, what: str, ids: pa.Array, there: pa.ChunkedArray, say: Note) -> None:
    lacking = len(ids) - (pc.sum(pc.is_in(ids, value_set=there.combine_chunks())).as_py() or 0)
    if lacking:
        say(f"{path}: {lacking:,} of {len(ids):,} {what} have no features")


def _original(indexer: Indexer, index: Index) -> list[str]:
    """The original ids of the dataset's items, by which vectors are called."""
    beyond = index.code_of > indexer.n_items
    taken = indexer.original.take(pa.array(np.where(beyond, 0, index.code_of)))
    return [str(one) for one in taken.fill_null("").to_pylist()]


def _writer(file: VectorFile, ids: list[str], say: Note) -> Write:
    return lambda path: write_vectors(path, file, "anonymous_cid", ids, say)


def _arrays(
    beside: _Beside, users: pa.Array, candidates: Candidates, index: Index
) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "users": pack_ids(users),
        vocabulary_path("events", "action_type"): pack_ids(ACTIONS),
    }
    for name, kept in beside.items.items():
        arrays |= kept.named("items", name)
    for name, kept in beside.users.items():
        arrays |= kept.named("users", name)
    if len(candidates.items):
        arrays["candidates/items"] = index.index_of[candidates.items]
        arrays["candidates/retrieval"] = candidates.retrieval
    return arrays


def _funnel(sequences: Sequences, cuts: Cuts) -> Funnel:
    funnel, option = Funnel(), f"--format {NAME}"
    known = np.where(cuts.judged, cuts.lengths["test"], sequences.lengths)
    steps = {
        ("read", ""): sequences.lengths,
        ("last click", option): known,
        ("two clicks", option): cuts.lengths["test"],
    }
    for step, lengths in steps.items():
        for users, items, _ in first_events(sequences, lengths):
            funnel.count_rows(*step, users, items)
    return funnel


def _recipe(directory: Directory, options: Options) -> Recipe:
    format = FORMATS[NAME]
    schema = format.schema
    names = (schema.session_key, schema.item_key, str(schema.time_key), "action_type")
    options = replace(options, user_key=schema.session_key, keep_columns=("action_type",))
    return Recipe([Layout(directory.path, names)], [], format, schema, format.rules, options)
