"""What the user asked for, completed by a format's own schema and rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from paropt.data.log.formats import FORMATS, GENERIC, Format, Schema, guess_format
from paropt.data.log.guessing import Guess, guess_columns
from paropt.data.log.rules import LEAVE_ONE_OUT, LONG_SHORT, OF_LONG_SHORT, PART, Protocol, Rules
from paropt.data.log.split_files import SplitFiles, files_of_splits
from paropt.data.log.values.times import check_time_format
from paropt.data.reading.read import Layout, look_at, peek, refuse_header, require
from paropt.errors import DataError, closest

Note = Callable[[str], None]
AS_GIVEN = Rules(keep_repeats=True, min_session=1, min_support=1)
_FILE_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True)
class Options:
    """Options of ``prepare``; None leaves it to the format. Names as in Schema and Rules."""

    format: str | None = None
    session_key: str | None = None
    user_key: str | None = None
    item_key: str | None = None
    time_key: str | None = None
    category_key: str | None = None
    behaviour_key: str | None = None
    order_column: str | None = None
    rows_in_order: bool = False
    split_column: str | None = None
    time_format: str | None = None
    event_column: str | None = None
    events: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    drop_missing: bool = False
    drop_ids: tuple[str, ...] = ()
    skip_bad_rows: bool = False
    protocol: Protocol | None = None
    session_gap_ms: int | None = None
    keep_repeats: bool | None = None
    min_session: int | None = None
    min_support: int | None = None
    end_ms: int | None = None
    test_days: float | None = None
    test_fraction: float | None = None
    long_share: float | None = None
    part_gap_ms: int | None = None
    min_long: int | None = None
    min_short: int | None = None
    max_long: int | None = None
    max_short: int | None = None
    fold: int | None = None
    text_ids: bool = False
    words_are_ids: bool = False
    keep_columns: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    item_features: tuple[Path, ...] = ()
    item_features_key: str | None = None
    item_features_header: tuple[tuple[str, ...], ...] = ()
    item_columns: tuple[str, ...] = ()
    item_vectors: tuple[str, ...] = ()
    numpy_pickles: bool = False
    text_vectors: tuple[str, ...] = ()
    text_encoder: str | None = None
    user_features: tuple[Path, ...] = ()
    user_text_vectors: tuple[str, ...] = ()
    user_features_key: str | None = None
    user_features_header: tuple[tuple[str, ...], ...] = ()
    kinds: tuple[str, ...] = ()
    list_separator: str | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result: the files, how they are written, and the rules.

    ``splits`` names each file's split, or is empty where the rules split. ``guessed``: columns
    were found by :mod:`paropt.data.log.guessing`, and are among the ``options`` now. ``of_users``:
    the sessions are users, which are yet to be cut into visits or split by leave-one-out.
    """

    layouts: Sequence[Layout]
    splits: Sequence[str]
    format: Format
    schema: Schema
    rules: Rules
    options: Options = field(default_factory=Options)
    guessed: bool = False
    of_users: bool = False

    @property
    def has_times(self) -> bool:
        return self.schema.time_key is not None

    @property
    def is_split(self) -> bool:
        return bool(self.splits) or self.schema.split_column is not None

    @property
    def roles(self) -> dict[str, str]:
        """Columns that are kept by what they mean: ``category`` and ``behaviour``, where the log
        is cut into long and short parts or somebody named them."""
        asked, keys = self.rules.protocol == "long-short", self.schema
        said = {"category": keys.category_key, "behaviour": keys.behaviour_key}
        mine = {
            "category": self.options.category_key,
            "behaviour": self.options.behaviour_key,
        }
        return {role: key for role, key in (said if asked else mine).items() if key is not None}

    @property
    def event_columns(self) -> dict[str, str]:
        """The columns kept of events, each with the log's own name of it."""
        return self.roles | {name: name for name in self.options.keep_columns}

    @property
    def item_columns(self) -> dict[str, str]:
        """The columns of events that belong to the item, likewise."""
        category = {role: key for role, key in self.roles.items() if role == "category"}
        return category | {name: name for name in self.options.item_columns}


def make_recipe(events: Sequence[Path], given: SplitFiles, options: Options, note: Note) -> Recipe:
    """Look at the files and decide how they will be read, cleaned and split.

    ``given`` maps the names of splits to files that were split elsewhere.

    Raises:
        DataError: files, columns and options do not fit each other.
    """
    paths, splits = _sources(events, given)
    format = _format(paths[0], options, note)
    layouts = [_layout(path, format.schema, options) for path in paths]
    format = format.suited_to(layouts[0].names)
    guess = guess_columns(layouts[0], options) if format is GENERIC else Guess()
    if guess.said:
        note(guess.said)
    recipe = _recipe(layouts, splits, format, replace(options, **guess.columns))
    _check(recipe)
    of_users = guess.of_users and not recipe.is_split
    return replace(recipe, guessed=bool(guess.columns), of_users=of_users)


def _layout(path: Path, schema: Schema, options: Options) -> Layout:
    """A file's layout; one of a format without a header may have been given one."""
    names = options.names or schema.names
    if options.names:
        refuse_header(path, names, "--header")
    elif names and set(names) <= set((peek(path) or "").split(",")):
        names = ()
    return look_at(path, names, schema.delimiter)


def _recipe(
    layouts: Sequence[Layout], splits: Sequence[str], format: Format, options: Options
) -> Recipe:
    schema = _complete_schema(format.schema, options)
    is_split = bool(splits) or schema.split_column is not None
    return Recipe(layouts, splits, format, schema, _rules(format, options, is_split), options)


def of_visits(recipe: Recipe, gap_ms: int | None) -> Recipe:
    """The recipe for a log of users: cut into visits at gaps, or by leave-one-out if None."""
    if gap_ms is None:
        options = replace(recipe.options, protocol="leave-one-out")
    else:
        options = replace(recipe.options, session_gap_ms=gap_ms)
    settled = _recipe(recipe.layouts, recipe.splits, recipe.format, options)
    _check(settled)
    return replace(settled, guessed=recipe.guessed)


def as_written(recipe: Recipe) -> dict[str, Any]:
    """How the log is written and what its ids may be: for whoever reads more of it later."""
    return {
        **asdict(recipe.schema),
        "text_ids": recipe.options.text_ids,
        "words_are_ids": recipe.options.words_are_ids,
        "drop_missing": recipe.options.drop_missing,
        "drop_ids": recipe.options.drop_ids,
        "skip_bad_rows": recipe.options.skip_bad_rows,
        "where": recipe.options.where,
        "session_gap_ms": recipe.rules.session_gap_ms,
    }


def _sources(events: Sequence[Path], given: SplitFiles) -> tuple[list[Path], list[str]]:
    if bool(events) == bool(given):
        raise DataError(
            "give event files, or files that are split already"
            " (--train-full and --test, or --train and --valid, perhaps with --test)"
        )
    if not given:
        _refuse_twice(events)
        return list(events), []
    check_parts(set(given))
    found = files_of_splits(given)
    for split in given:
        _refuse_twice([path for name, path in found if name == split])
    return [path for _, path in found], [name for name, _ in found]


def _refuse_twice(paths: Sequence[Path]) -> None:
    known = [path.resolve() for path in paths]
    for path, found in zip(paths, known, strict=True):
        if known.count(found) > 1:
            raise DataError(
                f"{path} is given twice, and each event would count twice; name it once"
            )


def check_kind(column: str | None, events: Sequence[str]) -> None:
    """Refuse kinds of events without their column, and the other way round."""
    if bool(column) != bool(events):
        raise DataError("--event-column and --event belong together; say both")


def check_parts(names: set[str]) -> None:
    """Refuse splits from which the four cannot be completed."""
    if names not in (
        {"train_full", "test"},
        {"train", "valid"},
        {"train", "valid", "test"},
        {"train_full", "test", "train", "valid"},
    ):
        raise DataError(
            f"splits {', '.join(sorted(names))} are not enough: give train_full and test,"
            " or train and valid, or these and test, or all four"
        )


def _format(path: Path, options: Options, note: Note) -> Format:
    if options.format is not None:
        return FORMATS[options.format]
    guessed = guess_format(path)
    own_keys = options.session_key or options.item_key or options.time_key or options.order_column
    if guessed is None or own_keys or options.rows_in_order:
        return GENERIC
    note(f"format: {guessed.name} ({guessed.title}); --format names another")
    return guessed


def _complete_schema(schema: Schema, options: Options) -> Schema:
    """The format's schema with what the user named; an order replaces the time unless both are."""
    chosen = {
        field.name: value
        for field in fields(Schema)
        if (value := getattr(options, field.name, None)) not in (None, ())
    }
    ordered = options.order_column is not None or options.rows_in_order
    if ordered and options.time_key is None:
        chosen["time_key"] = None
    if options.protocol == "long-short":  # what a user did is a column there, and no filter
        schema = replace(schema, event_column=None, events=())
    return replace(schema, **chosen)


def _rules(format: Format, options: Options, is_split: bool) -> Rules:
    rules = format.rules
    if options.protocol == "leave-one-out" and rules.protocol != "leave-one-out":
        rules = LEAVE_ONE_OUT
    if options.protocol == "long-short":
        rules = LONG_SHORT
    if is_split:
        rules = replace(AS_GIVEN, protocol=rules.protocol, test_days=rules.test_days)
    chosen = {
        field.name: value
        for field in fields(Rules)
        if (value := getattr(options, field.name, None)) is not None
    }
    return replace(rules, **chosen)


def _check(recipe: Recipe) -> None:
    schema, rules, options = recipe.schema, recipe.rules, recipe.options
    check_time_format(options.time_format)
    if schema.time_key is None and schema.order_column is None and not schema.rows_in_order:
        raise DataError(
            "a log needs times (--time-key) or an order (--order-column, --rows-in-order)"
        )
    if schema.order_column is not None and schema.rows_in_order:
        raise DataError("--order-column and --rows-in-order are two orders; say one of them")
    if rules.session_gap_ms is not None and not recipe.has_times:
        raise DataError("--session-gap needs times, but the log has only an order")
    if options.end_ms is not None and not recipe.has_times:
        raise DataError("--end needs times, but the log has only an order")
    _check_test_size(recipe)
    if rules.protocol == "leave-one-out" and rules.min_session < 3 and not recipe.is_split:
        raise DataError(
            f"leave-one-out needs sequences of 3 events or more, not --min-session"
            f" {rules.min_session}: one to train on, one for valid, one for test"
        )
    _check_parts_of_users(recipe)
    check_kind(schema.event_column, schema.events)
    if recipe.splits and schema.split_column:
        raise DataError("--split-column is for one file; the files given are split already")
    for name, needed in OF_TABLES.items():
        if getattr(options, name) and not any(getattr(options, other) for other in needed):
            without = " or ".join(map(_option, needed))
            raise DataError(f"{_option(name)} has no effect without {without}; leave it out")
    for name in options.keep_columns:
        if not _FILE_NAME.fullmatch(name):
            raise DataError(f"column {name!r} cannot be kept: its name makes no file name")
        taken = recipe.roles.get(name, name)
        if taken != name:
            raise DataError(f"column {name!r} cannot be kept: {taken!r} is kept by that name")
    for layout in recipe.layouts:
        _check_keys(layout, recipe)
        for key in recipe.roles.values():
            require(layout, key)


# options about tables and vectors, and those of which one must be there
OF_TABLES = {
    "item_features_key": ("item_features", "item_vectors"),
    "item_features_header": ("item_features",),
    "user_features_key": ("user_features",),
    "user_features_header": ("user_features",),
    "list_separator": ("item_features", "user_features"),
    "text_encoder": ("text_vectors", "user_text_vectors"),
    "numpy_pickles": ("item_vectors",),
}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_test_size(recipe: Recipe) -> None:
    """Refuse to be told how large the test is where something else decides that."""
    days, fraction, protocol = "--test-days", "--test-fraction", recipe.rules.protocol
    if recipe.is_split:
        cut = protocol == "time" and recipe.has_times and "valid" not in recipe.splits
        decides, why = days if cut else "", "the parts that were given decide that"
    elif protocol == "leave-one-out":
        decides, why = "", "by leave-one-out the last event of each session is tested on"
    elif protocol == "long-short":
        decides, why = fraction, f"users are tested on, and {fraction} says how many"
    elif recipe.has_times:
        decides, why = days, f"the log has times, and {days} says what is tested on"
    else:
        decides, why = fraction, f"the log has only an order, and {fraction} says what is tested on"
    said = {days: recipe.options.test_days, fraction: recipe.options.test_fraction}
    for option, value in said.items():
        if value is not None and option != decides:
            other = ", or say --protocol time" if protocol == "leave-one-out" else ""
            raise DataError(f"{option} {value:g} has no effect: {why}; leave it out{other}")


def _check_parts_of_users(recipe: Recipe) -> None:
    rules, options = recipe.rules, recipe.options
    if rules.protocol != "long-short":
        said = next((name for name in OF_LONG_SHORT if getattr(options, name) is not None), None)
        if said is not None:
            option = "--gap" if said == "part_gap_ms" else f"--{said.replace('_', '-')}"
            raise DataError(
                f"{option} is about users' long and short parts; it needs --protocol long-short"
            )
        return
    if recipe.is_split:
        raise DataError(
            "--protocol long-short divides the users itself, so it takes no data that are split"
            " already; give one log"
        )
    if rules.part_gap_ms and not recipe.has_times:
        raise DataError("--gap needs times, but the log has only an order")
    for part, least, most in (
        ("long", rules.min_long, rules.max_long),
        ("short", rules.min_short, rules.max_short),
    ):
        if most is not None and most < least:
            raise DataError(
                f"--max-{part} {most} is below --min-{part} {least}: no user would be left"
            )
    if PART in options.keep_columns:
        raise DataError(f"column {PART!r} cannot be kept: long-short has one of that name")
    folds = round(1 / rules.test_fraction)
    if rules.fold >= folds:
        raise DataError(
            f"--fold {rules.fold}: with --test-fraction {rules.test_fraction:g} there are the folds"
            f" 0 to {folds - 1}"
        )


def _check_keys(layout: Layout, recipe: Recipe) -> None:
    """Refuse a file without the columns of sessions, items and times, all of them at once."""
    schema, options = recipe.schema, recipe.options
    keys = {
        "--session-key": (schema.session_key, options.session_key),
        "--item-key": (schema.item_key, options.item_key),
        "--time-key": (schema.time_key, options.time_key),
    }
    missing = {
        option: (key, said)
        for option, (key, said) in keys.items()
        if key is not None and key not in layout.names
    }
    for _, said in missing.values():
        if said is not None:
            require(layout, said)
    if len(missing) > 1:
        names = _listed([repr(key) for key, _ in missing.values()])
        raise DataError(
            f"{layout.path} has no columns {names} (it has {', '.join(layout.names)}); "
            f"name its own with {_listed(list(missing))}"
        )
    if "--time-key" in missing:
        raise DataError(
            f"{layout.path} has no column {schema.time_key!r} (it has {', '.join(layout.names)});"
            " name its times with --time-key, its order with --order-column, or say that the rows"
            " are in order with --rows-in-order"
        )
    for option, (key, _) in missing.items():
        close = closest(str(key), layout.names)
        hint = f"did you mean {close!r}? " if close else f"it has {', '.join(layout.names)}; "
        raise DataError(f"{layout.path} has no column {key!r}; {hint}name it with {option}")


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
