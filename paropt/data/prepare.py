"""``prepare``: from event files to a dataset directory, column by column, never event by event."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from paropt.data.dataset import SPLITS, Content, Dataset, check_out, write_dataset
from paropt.data.demo import demo_log
from paropt.data.encoded_log import Log, odd_times, of_kind, read_log
from paropt.data.encoding import (
    Index,
    SplitArrays,
    encode_split,
    index_items,
    index_users,
    pack_ids,
    unpack_ids,
)
from paropt.data.events import Bools, Events, cut_at_gaps, in_order, number_by_order
from paropt.data.features.collect import Beside, item_columns, keep_beside
from paropt.data.features.columns import Column
from paropt.data.features.fields import vocabulary_path
from paropt.data.features.made_from import training_mark
from paropt.data.features.tables import Fields
from paropt.data.features.users import shared_sessions, users_of_sessions
from paropt.data.log.command import option_text, option_words, prepare_command
from paropt.data.log.filtering.funnel import Funnel, Step, deciding, equal_times, warnings
from paropt.data.log.filtering.rows import none_left
from paropt.data.log.options import Note, Options, Recipe, check_parts, make_recipe
from paropt.data.log.rules import PART, Rules
from paropt.data.log.split_files import SplitFiles
from paropt.data.log.splitting.cleaning import REPEATS, clean
from paropt.data.log.splitting.ends import other_end, span, stragglers, tenth
from paropt.data.log.splitting.long_short import WORDS, cut_parts, divided, split_users
from paropt.data.log.splitting.oddities import (
    ValueCounts,
    lost_values,
    odd_parts,
    odd_sessions,
)
from paropt.data.log.splitting.splits import complete_splits, split_events
from paropt.data.log.splitting.visits import settle_users
from paropt.data.summary import described, summary
from paropt.data.tencent_gr import prepare as tencent_gr
from paropt.errors import DataError, did_you_mean

CLEANING = ("min_session", "min_support")  # and --drop-repeats


def prepare(
    events: Sequence[Path],
    out: Path,
    given: SplitFiles | None = None,
    options: Options | None = None,
    overwrite: bool = False,
    note: Note = lambda message: None,
    text_cache: Path | None = None,
) -> Dataset:
    """Make a dataset directory from event files, or from files ``given`` per split.

    Args:
        events: files that are read one after the other as one log.
        out: the directory to make; it must not exist unless ``overwrite``.
        given: files of data that was split elsewhere, by the split's name.
        options: columns, format and rules.
        note: takes remarks on decisions that the user did not make.
        text_cache: where vectors of texts are kept, so that each is encoded once.

    Raises:
        DataError: the input cannot be used; nothing is written then.
    """
    if tencent_gr.is_asked(events, options, note):
        if given or len(events) != 1:
            raise DataError(f"--format {tencent_gr.NAME} takes one directory, and nothing else")
        return tencent_gr.prepare_tencent(events[0], out, options or Options(), overwrite, note)
    check_out(out, overwrite)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        note(line)

    recipe = make_recipe(events, given or {}, options or Options(), say)
    funnel = Funnel()
    log = read_log(recipe, funnel, say)
    odd = odd_times(recipe, log)
    for warning in odd:
        say(f"warning: {warning}")
    known = len(odd)
    if recipe.of_users:
        recipe, why = settle_users(recipe, of_kind(log))
        say(why)
    options_now = option_words(recipe.options)
    if recipe.guessed:
        note(f"to change it: {prepare_command(events, options_now, given)}")
    splits, sessions = _split(recipe, log, funnel, odd)
    for warning in odd[known:]:
        say(f"warning: {warning}")
    if recipe.rules.protocol == "long-short":
        say(divided(splits))
    _refuse_empty(splits, recipe, log)
    index = index_items(splits, log.items)
    users = index_users(splits, log.users) if log.events.user is not None else None
    if shared := shared_sessions(splits.values()):
        say(f"{shared} sessions have events of several users; each is the first one's")
    of_items = item_columns(list(recipe.item_columns), log.columns, splits, index, say)
    equal = equal_times(splits["train_full"]) if _time_decides(recipe) else None
    arrays = {  # each split is let go when it is encoded
        name: encode_split(name, splits.pop(name), index, sessions, recipe.rules.protocol, users)
        for name in SPLITS
    }
    beside = _beside(recipe, log, arrays, (index, users), of_items, say, text_cache)
    content = _content(recipe, log, arrays, (index, users), beside, funnel, equal)
    for warning in content.meta["warnings"]:
        say(f"warning: {warning}")
    told = {"warnings": odd + content.meta["warnings"], "said": said, "options": options_now}
    content = replace(content, meta={**content.meta, **told})
    return write_dataset(out, content, overwrite)


def prepare_demo(out: Path, overwrite: bool = False) -> Dataset:
    """The demo set (:mod:`paropt.data.demo`), prepared like any log; always the same.

    Raises:
        DataError: ``out`` cannot be written.
    """
    check_out(out, overwrite)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "demo.parquet"
        pa.parquet.write_table(demo_log(), log)
        return prepare([log], out, overwrite=overwrite)


# -- splitting ------------------------------------------------------------------------------


def _split(
    recipe: Recipe, log: Log, funnel: Funnel, odd: list[str]
) -> tuple[dict[str, Events], pa.Array]:
    """The four splits, and the names of their sessions; what is odd goes to ``odd``."""
    rules = recipe.rules
    parts, names = _in_sessions(recipe, log)
    for name in list(parts):  # no name holds on to events that a step leaves out
        parts[name] = _before_end(rules, parts.pop(name), funnel)
    kept = {} if rules.keep_repeats else _categories(recipe, log)
    before, left = (ValueCounts(kept) for _ in range(2))
    for events in parts.values():
        before.add(events)

    def count(step: str, option: str, events: Events) -> None:
        funnel.count(step, option, events)
        if step == REPEATS:
            left.add(events)

    parts = clean(parts, rules, count)
    odd += lost_values(before, left)
    if rules.protocol == "long-short":
        parts = {_WHOLE: cut_parts(parts[_WHOLE], rules, funnel.count)}
    if emptied := funnel.emptied_by():
        raise DataError(_all_gone(recipe, log, emptied))
    if rules.protocol == "long-short":
        splits = split_users(parts[_WHOLE], names, rules)
    elif log.part is None:
        odd += odd_sessions(parts[_WHOLE], names, rules, recipe.has_times)
        splits = split_events(parts.pop(_WHOLE), rules, recipe.has_times)
    else:
        splits = complete_splits(parts, rules, recipe.has_times)
        odd += odd_parts(splits, set(np.unique(log.part).tolist()), rules, recipe.has_times)
    whole = rules.protocol == "leave-one-out" and log.part is None  # test has all of a sequence
    for name in ("test",) if whole else ("train_full", "test"):
        funnel.count("split", deciding(rules, recipe.is_split, recipe.has_times), splits[name])
    return splits, names


def _categories(recipe: Recipe, log: Log) -> dict[str, list[str]]:
    """The values of the categories that are kept of events."""
    vocabularies = {name: log.columns[name].vocabulary for name in recipe.event_columns}
    return {
        name: unpack_ids(vocabulary).tolist()
        for name, vocabulary in vocabularies.items()
        if vocabulary is not None
    }


def _before_end(rules: Rules, events: Events, funnel: Funnel) -> Events:
    if rules.session_gap_ms is not None:
        gap = option_text("session_gap_ms", rules.session_gap_ms)
        funnel.count("session gap", gap, events)
    if rules.end_ms is not None:
        events = events.take(events.time < rules.end_ms)
        funnel.count("end", option_text("end_ms", rules.end_ms), events)
    return events


_WHOLE = "all"  # the one part of a log that is not split yet


def _in_sessions(recipe: Recipe, log: Log) -> tuple[dict[str, Events], pa.Array]:
    """The log's parts in order, cut at gaps, and the names of the sessions."""
    everything = np.ones(len(log.events), bool)
    if log.part is None:
        events, names = _sessions(recipe, log, everything, 0)
        return {_WHOLE: events}, names
    found = set(np.unique(log.part).tolist())
    check_parts(found)
    ordered = [name for name in ("train_full", "train", "valid", "test") if name in found]
    if recipe.rules.session_gap_ms is not None:  # a visit may begin in one part and end in another
        events, names = _sessions(recipe, log, everything, 0)
        return {name: events.take(log.part[events.row] == name) for name in ordered}, names
    parts, base = {}, 0
    for name in ordered:
        parts[name], _ = _sessions(recipe, log, log.part == name, base)
        base += len(parts[name])
    return parts, log.sessions


def _sessions(recipe: Recipe, log: Log, which: Bools, base: int) -> tuple[Events, pa.Array]:
    """Some rows in order, cut at gaps, without the rows that are no events."""
    if log.kept is not None and (recipe.rules.session_gap_ms is None or recipe.schema.filter_first):
        which = which & log.kept
    events, order, names = log.events.take(which), log.order, log.sessions
    if log.part is None:
        log.forget_events()
    if order is not None:
        order = order[which]
        if not recipe.has_times:
            events, order = number_by_order(events, order, base), None
    events = in_order(events, order)
    if recipe.rules.session_gap_ms is not None:
        events, names = cut_at_gaps(events, names, recipe.rules.session_gap_ms)
    if log.kept is not None:
        events = events.take(log.kept[events.row])
    return events, names


def _all_gone(recipe: Recipe, log: Log, step: Step) -> str:
    said = none_left(recipe, log.ends.n, step)
    if step.name == "end":
        return f"{said}; {span(log.ends)}: choose {other_end(recipe, log.ends)}"
    if step.name == "session length":
        key = recipe.schema.session_key
        return f"{said}; if {key!r} is not the session, name it: --session-key"
    return said


def _refuse_empty(splits: Mapping[str, Events], recipe: Recipe, log: Log) -> None:
    for name, events in splits.items():
        if name == "test" and _lacks_test(log):
            continue
        if len(events) and (events.lengths() >= 2).any():
            continue
        remedy = "give a longer log, or another --test-fraction"
        if recipe.is_split:
            remedy = _remedy_of_parts(recipe, name, log)
        elif recipe.rules.protocol == "long-short":
            remedy = "give a log of more users, or a larger --test-fraction"
        elif recipe.rules.protocol == "leave-one-out":
            remedy = "leave-one-out needs sequences of four events or more"
        elif recipe.has_times:
            remedy = f"{span(log.ends)}: choose other --test-days than"
            remedy += (
                f" {recipe.rules.test_days:g} (a tenth of the log is {tenth(recipe, log.ends)})"
            )
            remedy += f", or {other_end(recipe, log.ends)}"
        raise DataError(f"the split {name} would hold no session of two events; {remedy}")


def _remedy_of_parts(recipe: Recipe, name: str, log: Log) -> str:
    """What to say where a part that was given, or cut from one, has no session of two events."""
    if recipe.rules.protocol == "leave-one-out":
        return (
            "by --protocol leave-one-out each part holds whole sequences, of which the last event"
            " is tested on; last events alone belong into the log, which is given as one"
        )
    if not np.any(log.part == name):
        return f"it is cut from the training part that was given; give {name} too, or a longer one"
    rules = recipe.rules
    if rules.min_support > 1 or rules.min_session > 2 or not rules.keep_repeats:
        cleaned = [option_text(name, getattr(rules, name)) for name in CLEANING]
        return f"leave out {' and '.join(cleaned)}, or give a larger part"
    return "give a larger part"


def _lacks_test(log: Log) -> bool:
    """Whether it was split elsewhere into parts for a search only."""
    return log.part is not None and not np.any(log.part == "test")


# -- the result -----------------------------------------------------------------------------


def _content(
    recipe: Recipe,
    log: Log,
    arrays: Mapping[str, SplitArrays],
    indices: tuple[Index, Index | None],
    beside: Beside,
    funnel: Funnel,
    equal: float | None,
) -> Content:
    index, users = indices
    items = log.items.take(pa.array(index.code_of))
    kept = {name: log.columns[name] for name in recipe.event_columns}
    if recipe.rules.protocol == "long-short":
        kept[PART] = Column(arrays["train"].columns[PART], pack_ids(pa.array(WORDS)))
    fields = dict(beside.arrays) | {
        vocabulary_path("events", name): column.vocabulary
        for name, column in kept.items()
        if column.vocabulary is not None
    }
    summaries = {
        name: summary(name, array, index, recipe.has_times) for name, array in arrays.items()
    }
    if users is not None:
        fields["users"] = pack_ids(log.users.take(pa.array(users.code_of)))
    by_parts = recipe.rules.protocol == "long-short"
    told = [
        *warnings(funnel.steps, summaries, equal, by_parts),
        *stragglers(recipe, log.ends),
    ]
    kinds = {name: column.kind for name, column in kept.items()}
    meta = described(recipe, index, summaries, funnel, equal, told, kinds) | dict(beside.meta)
    if users is not None:
        known = {"train": users.n_train, "train_full": users.n_train_full}
        meta["users"] = {"all": len(users.code_of), **known, "key": recipe.options.user_key}
    return Content(arrays, items, fields, meta, beside.large)


def _beside(
    recipe: Recipe,
    log: Log,
    arrays: Mapping[str, SplitArrays],
    indices: tuple[Index, Index | None],
    of_items: Fields,
    note: Note,
    text_cache: Path | None,
) -> Beside:
    options, (index, users) = recipe.options, indices
    items, ids, mark = log.items.take(pa.array(index.code_of)), None, ""
    if options.user_features:  # only then every session's id is looked at
        train = arrays["train"]
        mark = training_mark(train.sessions, train.offsets, train.items, items.to_pylist())
        ids = _user_ids(recipe, log, arrays, users)
    key = recipe.schema.item_key
    found = keep_beside(options, key, items, ids, of_items, note, text_cache, mark)
    _refuse_unknown_kinds(recipe, found)
    return found


def _refuse_unknown_kinds(recipe: Recipe, beside: Beside) -> None:
    """Refuse a kind that was said of a column that is nowhere kept."""
    options = recipe.options
    of_events = {**recipe.event_columns, **recipe.item_columns}
    known = {*of_events, *beside.meta["features"], *beside.meta.get("user_features", {})}
    said = {name: f"--categorical {name}" for name in options.categorical}
    said |= {text.rpartition("=")[0]: f"--kind {text}" for text in options.kinds}
    for name, option in said.items():
        if name not in known:
            hint = did_you_mean(name, known, f"there are {', '.join(sorted(known)) or 'none'}")
            raise DataError(
                f"{option}: no column {name!r} is kept of events, items or users; {hint}"
            )


def _user_ids(
    recipe: Recipe, log: Log, arrays: Mapping[str, SplitArrays], users: Index | None
) -> tuple[str, pa.Array] | None:
    """The column that names users, and their ids; None where sessions are nobody's."""
    if users is not None and recipe.options.user_key:
        return recipe.options.user_key, log.users.take(pa.array(users.code_of))
    if recipe.rules.protocol == "time":
        return None
    packed = {name: split.sessions for name, split in arrays.items()}
    return recipe.schema.session_key, pa.array(users_of_sessions(packed).texts(), pa.string())


def _time_decides(recipe: Recipe) -> bool:
    """Whether nothing but the time says in which order a session's events are."""
    ordered = recipe.schema.order_column is not None or recipe.schema.rows_in_order
    return recipe.has_times and not ordered
