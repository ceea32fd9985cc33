"""Event logs from files or data frames."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

from paropt.data import Dataset
from paropt.errors import DataError, ParoptError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

    from paropt.data.log.options import Options

Events: TypeAlias = "pd.DataFrame | str | Path | Sequence[str | Path]"


def say(line: str) -> None:
    """A remark, on stderr: where a notebook shows it, and a program's output isn't disturbed."""
    print(line, file=sys.stderr, flush=True)


def prepare(
    events: Events, out: str | Path | None = None, *, overwrite: bool = False, **options: Any
) -> Dataset:
    """Make a dataset of an event log, as ``paropt prepare`` does.

    Args:
        events: a data frame with a row per event, a file, or several.
        out: the directory to make; None keeps it under PAROPT_HOME, made once for the same events.
        overwrite: replace ``out`` if it is there.
        options: columns and rules by the names of :class:`paropt.data.log.options.Options`, which
            are those of the command line: ``session_key="visitor"``, ``protocol="leave-one-out"``,
            ``session_gap_ms=1_800_000``.

    Returns:
        The dataset. What was decided about the log is said on stderr.

    Raises:
        DataError: the events cannot be used, or there is no such option; nothing is written then.
    """
    chosen = _options(options)
    with as_files(events, "events") as (files, note):
        if out is None:
            from paropt.data import open_dataset
            from paropt.launch.data.data_source import prepared

            return open_dataset(prepared(files, note, chosen))
        from paropt.data.prepare import prepare
        from paropt.machine.home import paropt_home

        cache = paropt_home() / "text-vectors"
        return prepare(files, Path(out), None, chosen, overwrite, note, cache)


def _options(given: dict[str, Any]) -> Options:
    from paropt.data.log.options import Options

    known = [field.name for field in fields(Options)]
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known, "docs/python.md says where they are listed")
            raise DataError(f"prepare has no option {name!r}; {hint}")
    listed: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    return Options(**listed)


@contextmanager
def as_files(events: Events, name: str) -> Iterator[tuple[list[Path], Callable[[str], None]]]:
    """The events as files, and who takes remarks on them.

    A data frame becomes a file for the time being; remarks and errors call it "the data frame".

    Raises:
        DataError: the frame is empty, or holds what no column of a file can.
    """
    import pandas as pd

    if isinstance(events, str | Path):
        yield [Path(events)], say
        return
    to_pandas = None if isinstance(events, pd.DataFrame) else getattr(events, "to_pandas", None)
    if to_pandas is not None:  # a frame of polars, a table of Arrow
        events = to_pandas()
    if not isinstance(events, pd.DataFrame):
        if not isinstance(events, Sequence) or not all(isinstance(p, str | Path) for p in events):
            what = type(events).__name__
            raise DataError(f"events are a data frame, a file or a list of files, not {what}")
        yield [Path(part) for part in events], say
        return
    indexed = [n for n in events.index.names if n is not None and n not in events.columns]
    if indexed:  # as after set_index("session")
        events = events.reset_index(level=indexed)
    if events.empty:
        raise DataError("the data frame has no rows; give it an event in each")
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.parquet"

        def called(line: str) -> str:
            return line.replace(str(path), "the data frame")

        try:
            events.rename(columns=str).to_parquet(path, index=False)
        except (ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(
                f"the data frame cannot be read as events ({reason}); give each column one type"
            ) from None
        try:
            yield [path], lambda line: say(called(line))
        except ParoptError as error:
            raise type(error)(called(str(error))) from None
