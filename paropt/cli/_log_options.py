"""Options on how an event log is read, cleaned and split: of ``prepare``, and beside ``--data``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from paropt.data.log.options import Options

FORMATS = (
    "generic",
    "retailrocket",
    "diginetica",
    "yoochoose",
    "rsc15",
    "rees46",
    "coveo",
    "movielens-100k",
    "movielens-1m",
    "movielens-20m",
    "recbole",
    "tianchi",
    "taobao",
    "tencent-gr",
)
Function = TypeVar("Function", bound=Callable[..., Any])


class LogOption(click.Option):
    """An option on how a log is prepared; beside ``--data`` they are listed by themselves."""


def log_options(function: Function, without: str = "") -> Function:
    """Add them all; a command is given them by the names of ``paropt.data.log.options.Options``.

    ``without`` names one that means something else there.
    """
    for declarations, settings in reversed(_DECLARED):
        if without in declarations:
            continue
        function = click.option(*declarations, cls=LogOption, **settings)(function)
    return function


def reading_options(function: Function) -> Function:
    """Add those that say how a log is written and which of its rows are read."""
    for declarations, settings in reversed(_DECLARED):
        if declarations[0] in _OF_READING:
            remembered = {"show_default": "as in the model's own log"}
            unsaid = settings if settings.get("multiple") else settings | remembered
            function = click.option(*declarations, **unsaid)(function)
    return function


_OF_READING = (
    "--session-key",
    "--user-key",
    "--item-key",
    "--time-key",
    "--time-format",
    "--order-column",
    "--rows-in-order",
    "--header",
    "--event-column",
    "--event",
    "--where",
    "--drop-missing",
    "--drop-id",
    "--skip-bad-rows",
)


def names_of_log_options(without: str = "") -> list[str]:
    """The parameters that :func:`log_options` adds."""
    declared = [words for words, _ in _DECLARED if without not in words]
    words = [[word for word in words if "--" not in word] for words in declared]
    return [
        named[0] if named else declared[0][2:].split("/")[0].replace("-", "_")
        for named, declared in zip(words, declared, strict=True)
    ]


def said_of(given: dict[str, Any]) -> dict[str, Any]:
    """Without the options that nobody said anything about."""
    unsaid = (None, (), False)
    return {
        name: value
        for name, value in given.items()
        if value not in unsaid or (name == "keep_repeats" and value is False)
    }


def options_of(given: dict[str, Any]) -> Options:
    """What was said, as Options."""
    from paropt.data.log.options import Options

    return Options(**said_of(given))


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``30m``, ``1h``, ``1d`` as milliseconds."""
    if value is None:
        return None
    from paropt.data.log.values.times import parse_duration

    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _pause(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A duration that may be none, ``0h``, as milliseconds."""
    nothing = value is not None and value.rstrip("smhd") == "0"
    return 0 if nothing else _duration(ctx, param, value)


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """An ISO 8601 time as milliseconds."""
    if value is None:
        return None
    from paropt.data.log.values.times import parse_moment

    try:
        return parse_moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(value.split(",")) if value else ()


def _conditions(
    ctx: click.Context, param: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Conditions that can be parsed."""
    if value:
        from paropt.data.log.filtering.conditions import parse_condition

        for text in value:
            try:
                parse_condition(text)
            except ValueError as error:
                raise click.BadParameter(str(error), ctx, param) from None
    return value


_DECLARED: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (
        ("--format",),
        {
            "type": click.Choice(FORMATS),
            "show_default": "guessed where it is unmistakable, else generic",
            "help": "A public log's own columns, cleaning and split.",
        },
    ),
    (
        ("--session-key",),
        {"show_default": "SessionId, else guessed", "help": "Column of sessions or users."},
    ),
    (("--user-key",), {"help": "Column of users: whose session it is."}),
    (("--item-key",), {"show_default": "ItemId, else guessed", "help": "Column of items."}),
    (("--time-key",), {"show_default": "Time, else guessed", "help": "Column of times."}),
    (
        ("--time-format",),
        {
            "show_default": "epoch of any unit, or ISO 8601",
            "help": "s, ms, us, ns, iso, or a strptime format such as '%d/%m/%Y %H:%M'.",
        },
    ),
    (
        ("--category-key",),
        {
            "show_default": "the format's, with --protocol long-short",
            "help": "Column of items' categories, kept as 'category' of events and items.",
        },
    ),
    (
        ("--behaviour-key",),
        {
            "show_default": "the format's, with --protocol long-short",
            "help": "Column of what a user did, kept as 'behaviour' of events.",
        },
    ),
    (("--order-column",), {"help": "Column of the order, where a log has no times."}),
    (
        ("--rows-in-order",),
        {"is_flag": True, "help": "The rows are in order; the log has no times."},
    ),
    (
        ("--header", "names"),
        {
            "callback": _names,
            "metavar": "a,b,c",
            "help": "The columns' names, if a file has no header line.",
        },
    ),
    (("--event-column",), {"help": "Column of the kind of event, for --event."}),
    (
        ("--event", "events"),
        {"multiple": True, "help": "Keep events of this kind; repeatable."},
    ),
    (
        ("--where",),
        {
            "multiple": True,
            "callback": _conditions,
            "metavar": "CONDITION",
            "help": "Keep rows for which this holds, as in 'Quantity > 0'; repeatable.",
        },
    ),
    (
        ("--drop-missing",),
        {"is_flag": True, "help": "Leave out rows without a session, an item or a time."},
    ),
    (
        ("--drop-id", "drop_ids"),
        {"multiple": True, "help": "Leave out rows with this session or item; repeatable."},
    ),
    (
        ("--skip-bad-rows",),
        {"is_flag": True, "help": "Leave out rows that cannot be read, and say how many."},
    ),
    (
        ("--words-are-ids",),
        {"is_flag": True, "help": "Take nan, NULL, unknown … as ids."},
    ),
    (
        ("--text-ids",),
        {"is_flag": True, "help": "Take any text as an id, also 7 beside 7.0."},
    ),
    (
        ("--protocol",),
        {
            "type": click.Choice(["time", "leave-one-out", "long-short"]),
            "show_default": "time, or the format's",
            "help": "Test on the last days' sessions, on each sequence's last event, or on other"
            " users, whose histories are cut into a long and a short part.",
        },
    ),
    (
        ("--session-gap", "session_gap_ms"),
        {
            "callback": _duration,
            "metavar": "30m",
            "help": "Cut users' logs (or sessions) where more time passes than this.",
        },
    ),
    (
        ("--end", "end_ms"),
        {
            "callback": _moment,
            "metavar": "TIME",
            "show_default": "the last event",
            "help": "Leave out events from this time on (ISO 8601), and count days back from it.",
        },
    ),
    (
        ("--test-days",),
        {
            "type": click.FloatRange(min=0, min_open=True),
            "show_default": "1, or the format's",
            "help": "Days of the test part, and of the valid part before it.",
        },
    ),
    (
        ("--test-fraction",),
        {
            "type": click.FloatRange(0, 0.5, min_open=True, max_open=True),
            "show_default": "0.1",
            "help": "Share of sessions in the test part, where a log has no times; of users, for"
            " long-short.",
        },
    ),
    (
        ("--long-share",),
        {
            "type": click.FloatRange(0, 1, min_open=True, max_open=True),
            "show_default": "0.9",
            "help": "Of long-short: share of a user's events in the long part.",
        },
    ),
    (
        ("--gap", "part_gap_ms"),
        {
            "callback": _pause,
            "metavar": "24h",
            "show_default": "0h",
            "help": "Of long-short: the short part begins so much after the long part's end.",
        },
    ),
    (
        ("--min-long",),
        {
            "type": click.IntRange(min=1),
            "show_default": "100",
            "help": "Of long-short: drop users with a shorter long part.",
        },
    ),
    (
        ("--min-short",),
        {
            "type": click.IntRange(min=1),
            "show_default": "10",
            "help": "Of long-short: drop users with a shorter short part.",
        },
    ),
    (
        ("--max-long",),
        {
            "type": click.IntRange(min=1),
            "show_default": "all",
            "help": "Of long-short: keep so many of the long part, the latest.",
        },
    ),
    (
        ("--max-short",),
        {
            "type": click.IntRange(min=1),
            "show_default": "all",
            "help": "Of long-short: keep so many of the short part, the latest.",
        },
    ),
    (
        ("--fold",),
        {
            "type": click.IntRange(min=0),
            "show_default": "0",
            "help": "Of long-short: which part of the users is tested on, from 0.",
        },
    ),
    (
        ("--min-support",),
        {
            "type": click.IntRange(min=1),
            "show_default": "5, 1 for leave-one-out",
            "help": "Drop items with fewer events.",
        },
    ),
    (
        ("--min-session",),
        {
            "type": click.IntRange(min=1),
            "show_default": "2, 3 for leave-one-out",
            "help": "Drop sessions with fewer events.",
        },
    ),
    (
        ("--keep-repeats/--drop-repeats",),
        {
            "default": None,
            "show_default": "drop, keep for leave-one-out",
            "help": "Whether an item may directly follow itself in a session.",
        },
    ),
]
