"""Options of ``paropt prepare`` as one writes them: in advice, and as a whole command line."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paropt.data.log.split_files import SplitFiles, files_of_splits
from paropt.names import command

if TYPE_CHECKING:
    from paropt.data.log.options import Options

# the file, or files, of each split of data that was split elsewhere
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1))


def duration_text(ms: int) -> str:
    """``30m``, ``1h``, ``1d``: what the option takes."""
    return next(f"{ms // size}{unit}" for unit, size in _UNITS if ms % size == 0)


def moment_text(ms: int) -> str:
    """``2017-10-16`` or ``2015-09-18T00:40:00``, UTC."""
    moment = datetime.fromtimestamp(ms / 1000, UTC).replace(tzinfo=None)
    if ms % 86_400_000 == 0:
        return moment.date().isoformat()
    return moment.isoformat(timespec="seconds" if ms % 1000 == 0 else "milliseconds")


# how an option is called and written where that is not its field's name and value
_CALLED = {
    "events": "--event",
    "names": "--header",
    "keep_columns": "--keep-column",
    "session_gap_ms": "--session-gap",
    "end_ms": "--end",
    "part_gap_ms": "--gap",
    "drop_ids": "--drop-id",
    "item_columns": "--item-column",
    "kinds": "--kind",
}
_WRITTEN: dict[str, Callable[[Any], str]] = {
    "names": ",".join,
    "session_gap_ms": duration_text,
    "end_ms": moment_text,
    "part_gap_ms": duration_text,
    "long_share": "{:g}".format,
    "test_days": "{:g}".format,
    "test_fraction": "{:g}".format,
    "text_vectors": ",".join,
    "user_text_vectors": ",".join,
}


def option_text(name: str, value: Any) -> str:
    """An option of :class:`~paropt.data.log.options.Options` as typed, quoted for a shell."""
    return " ".join(map(shlex.quote, _words(name, value)))


def _words(name: str, value: Any) -> Iterator[str]:
    if name == "keep_repeats":
        yield "--keep-repeats" if value else "--drop-repeats"
        return
    option = _CALLED.get(name) or f"--{name.replace('_', '-')}"
    write = _WRITTEN.get(name, str)
    if isinstance(value, bool):
        yield option
    elif isinstance(value, tuple) and name != "names":
        for one in value:
            yield from (option, ",".join(one) if isinstance(one, tuple) else str(one))
    else:
        yield from (option, write(value))


def said_options(options: Options) -> dict[str, Any]:
    """The options that are not as they are by default, by name."""
    values = {option.name: getattr(options, option.name) for option in fields(options)}
    return {o.name: values[o.name] for o in fields(options) if values[o.name] != o.default}


def option_words(options: Options) -> list[str]:
    """All options that were said, as words of a command line."""
    return [word for name, value in said_options(options).items() for word in _words(name, value)]


def prepare_command(
    events: Sequence[Path], options: Sequence[str], given: SplitFiles | None = None
) -> str:
    """The ``paropt prepare`` line with these words as options, to be pasted into a shell."""
    words = [*map(str, events)]
    for split, path in files_of_splits(given or {}):
        words += [f"--{split.replace('_', '-')}", str(path)]
    return command("prepare", *words, *options, "--out", "DIR")
