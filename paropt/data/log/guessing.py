"""Which columns of a log are its sessions, items and times: by their names, and what they hold.

Nothing is taken where two columns may be meant, and what is taken is always said.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet

from paropt.data.log.formats import Schema
from paropt.data.log.values.ids import names_nobody
from paropt.data.log.values.times import parse_moment
from paropt.data.reading.read import Layout, on_disk
from paropt.errors import DataError

_SAMPLE_BYTES = 1 << 16
_SAMPLE_ROWS = 1000


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS: Mapping[str, frozenset[str]] = {
    "session": _words("session sess sid visit usersession browsingsession"),
    "user": _words(
        "user usr uid visitor customer cust client member reviewer rater account cookie buyer"
        " shopper person player listener reader viewer profile household"
    ),
    "item": _words(
        "item iid product prod sku stock song track article movie film book isbn asin video news"
        " content doc document poi venue business game app recipe goods material offer listing"
        " hotel restaurant podcast episode anime joke beer course job"
    ),
    "time": _words("time timestamp ts date datetime dt moment epoch stamp when t"),
    "order": _words("pos position order seq sequence step"),
}
# what a name may say beside that
_ABOUT_IDS = _words(
    "id ids key hash hashed code no nr num number idx uuid guid anonymous anon click clicked view"
    " viewed encoded enc"
)
_ABOUT: Mapping[str, frozenset[str]] = {
    "session": _ABOUT_IDS | _WORDS["user"],
    "user": _ABOUT_IDS,
    "item": _ABOUT_IDS | _WORDS["item"],
    "time": _words(
        "event click view create created creation at server client epoch ms sec seconds s us ns"
        " millis unix utc gmt local invoice order purchase review rating visit transaction action"
        " request log play listen"
    ),
    "order": _words("event click item in session"),
}
_GLUED = re.compile(r"(.+?)(?:id|key|hash|code|num|no|idx)+")
_GLUED_TIME = re.compile(r"(.*)(timestamp|datetime|time|date)")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")

_OPTIONS = {"session": "--session-key", "item": "--item-key", "time": "--time-key"}


class ColumnOptions(Protocol):
    """What was said of the columns: these options of ``prepare``, None where nothing was."""

    @property
    def session_key(self) -> str | None: ...
    @property
    def item_key(self) -> str | None: ...
    @property
    def time_key(self) -> str | None: ...
    @property
    def order_column(self) -> str | None: ...
    @property
    def rows_in_order(self) -> bool: ...
    @property
    def protocol(self) -> str | None: ...
    @property
    def session_gap_ms(self) -> int | None: ...


@dataclass(frozen=True)
class Guess:
    """The columns that were found, by the options that name them, and what to say of them.

    ``of_users``: the sessions are users, and nobody said how to cut or to split those.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    of_users: bool = False
    said: str = ""


def guess_columns(layout: Layout, options: ColumnOptions) -> Guess:
    """Find the columns that neither ``options`` nor the default names give.

    Raises:
        DataError: a column is not to be found, or two may be meant.
    """
    finder = _Finder(layout)
    usual = Schema()
    session, kind = finder.session(options.session_key or _there(layout, usual.session_key))
    item = finder.one("item", options.item_key or _there(layout, usual.item_key))
    time, order = options.time_key, options.order_column
    if time is None and order is None:
        time = _there(layout, usual.time_key)
    if time is None and order is None and not options.rows_in_order:
        time = finder.time()
        order = None if time else finder.one("order", None, required=False)
    session, item = finder.remaining(session, item, (time, order))
    finder.require(session, item, time or order or ("rows" if options.rows_in_order else None))
    again = finder.sessions_of_several(session) if kind == "session" and session else ""
    if not finder.found:
        return Guess(said=again)
    chosen = {
        "session_key": session,
        "item_key": item,
        "time_key": time,
        "order_column": order,
    }
    untold = options.session_key is None and kind == "user"
    of_users = untold and options.protocol is None and options.session_gap_ms is None
    said = finder.said(kind, session, item, time, order)
    return Guess(chosen, of_users, f"{said}; {again}" if again else said)


def guess_when(layout: Layout) -> tuple[str | None, str | None]:
    """The column of times, else the one of an order; None and None where there is neither.

    Raises:
        DataError: two may be meant.
    """
    finder = _Finder(layout)
    time = _there(layout, Schema().time_key) or finder.time()
    return time, None if time else finder.one("order", None, required=False)


def _there(layout: Layout, name: str | None) -> str | None:
    """The usual name, if the file has it."""
    return name if name in layout.names else None


class _Finder:
    """Looks for columns by role, and remembers which were ``found`` rather than given."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.found: list[str] = []
        self._sample: Mapping[str, Sequence[str]] | None = None

    def named(self, role: str) -> list[str]:
        return [name for name in self.layout.names if _means(name, role)]

    def session(self, given: str | None) -> tuple[str | None, str]:
        """The column of sessions, else the one of users, and which of both it is."""
        if given is not None:
            return given, "session"
        for role in ("session", "user"):
            if name := self.one(role, None):
                return name, role
        return None, "session"

    def one(self, role: str, given: str | None, required: bool = True) -> str | None:
        """The only column of a role; None if there is none."""
        if given is not None:
            return given
        candidates = self.named(role)
        if len(candidates) > 1 and required:
            raise self.ambiguous(role, candidates)
        if len(candidates) != 1:
            return None
        self.found.append(candidates[0])
        return candidates[0]

    def time(self) -> str | None:
        """The column of times: named so and looking so, else named so, else looking so."""
        named = self.named("time")
        looking = [name for name in self.layout.names if self.looks_like_times(name)]
        both = [name for name in named if name in looking]
        candidates = both or named or [name for name in looking if not self._has_a_role(name)]
        if len(candidates) > 1:
            candidates = self.finest(candidates)
        if len(candidates) > 1:
            raise self.ambiguous("time", candidates)
        self.found += candidates
        return candidates[0] if candidates else None

    def _has_a_role(self, name: str) -> bool:
        return any(_means(name, role) for role in ("session", "user", "item"))

    def finest(self, names: list[str]) -> list[str]:
        """Of several columns of times, the one that tells more moments apart than any other."""
        different = {name: len(set(self.sample.get(name, ()))) for name in names}
        most = max(different.values())
        return [name for name in names if different[name] == most]

    def remaining(
        self, session: str | None, item: str | None, others: Iterable[str | None]
    ) -> tuple[str | None, str | None]:
        """The one that is missing is the only column that is left, if there is only one."""
        left = [name for name in self.layout.names if name not in (session, item, *others)]
        if len(left) != 1 or (session is None) == (item is None):
            return session, item
        self.found += left
        return session or left[0], item or left[0]

    def require(self, session: str | None, item: str | None, time: str | None) -> None:
        found = {"session": session, "item": item, "time": time}
        missing = [role for role, name in found.items() if name is None]
        if not missing:
            return
        names = self.layout.names
        if self.layout.has_header and (all(map(_is_value, names)) or any(map(_is_moment, names))):
            raise DataError(
                f"{self.layout.path} seems to have no header line (its first line is"
                f" {', '.join(names)}); name its columns,"
                f" as in --header {_example(self.layout)}"
            )
        what = _listed([f"{role}s" for role in missing])
        options = _listed([_OPTIONS[role] for role in missing])
        order = ", or --order-column (or say --rows-in-order)" if "time" in missing else ""
        raise DataError(
            f"{self.layout.path} names no column that is clearly its {what} (it has"
            f" {', '.join(self.layout.names)}); name its own with {options}{order}"
        )

    def ambiguous(self, role: str, candidates: Sequence[str]) -> DataError:
        option = _OPTIONS.get(role, "--session-key")
        return DataError(
            f"{self.layout.path} may have its {role}s in {' or '.join(map(repr, candidates))};"
            f" say which with {option}"
        )

    def said(
        self, kind: str, session: str | None, item: str | None, time: str | None, order: str | None
    ) -> str:
        when = f"times {time!r}" if time else f"order {order!r}" if order else "the rows' order"
        return f"columns taken: {kind}s {session!r}, items {item!r}, {when}"

    def sessions_of_several(self, session: str) -> str:
        """What to say of sessions that are numbered anew for each user; empty where they aren't."""
        users = [name for name in self.named("user") if name != session]
        if len(users) != 1:
            return ""
        of: dict[str, set[str]] = {}
        pairs = zip(self.sample.get(session, ()), self.sample.get(users[0], ()), strict=False)
        for one, user in pairs:
            if not names_nobody(user):  # who logs in meanwhile is no second user
                of.setdefault(one, set()).add(user)
        shared = [one for one, its in of.items() if len(its) > 1]
        if 2 * len(shared) <= len(of):
            return ""
        return (
            f"warning: {session!r} {shared[0]!r} is of several {users[0]!r}; if sessions are"
            " numbered anew for each, write both into one column, and name it with --session-key"
        )

    # -- by content -------------------------------------------------------------------------

    @property
    def sample(self) -> Mapping[str, Sequence[str]]:
        """Some values of each column, as text; empty where there is no telling."""
        if self._sample is None:
            self._sample = _sample(self.layout)
        return self._sample

    def looks_like_times(self, name: str) -> bool:
        values = [value for value in self.sample.get(name, ()) if value.strip()]
        return bool(values) and all(map(_is_moment, values))


def _sample(layout: Layout) -> Mapping[str, Sequence[str]]:
    layout = layout.parts[0] if layout.parts else layout
    try:
        rows = _parquet_rows(layout) if layout.is_parquet else _text_rows(layout)
    except (OSError, ValueError, EOFError, csv.Error, pa.ArrowException):
        return {}  # whoever reads the whole file says what is wrong with it
    fitting = [row[: len(layout.names)] for row in rows if len(row) >= len(layout.names)]
    return {name: [row[at] for row in fitting] for at, name in enumerate(layout.names)}


def _text_rows(layout: Layout) -> list[list[str]]:
    path = on_disk(layout.path)
    with gzip.open(path) if layout.gzipped else path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES).decode("utf-8-sig", "replace")
    lines = [line for line in head.splitlines() if line.strip()]
    if len(head) == _SAMPLE_BYTES:
        lines = lines[:-1]
    if layout.is_json:
        objects = [json.loads(line) for line in lines]
        return [[_as_text(row.get(name)) for name in layout.names] for row in objects]
    return [layout.split(line) for line in lines[int(layout.has_header) :]]


def _parquet_rows(layout: Layout) -> list[list[str]]:
    file = pa.parquet.ParquetFile(on_disk(layout.path))
    batch = next(file.iter_batches(batch_size=_SAMPLE_ROWS), None)
    if batch is None:
        return []
    there = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    columns = [there.get(name, [layout.fixed.get(name)] * len(batch)) for name in layout.names]
    return [[_as_text(value) for value in row] for row in zip(*columns, strict=True)]


def _as_text(value: object) -> str:
    return "" if value is None else str(value)


_LIKELY = (631_152_000, 2_208_988_800)  # 1990 to 2040, in seconds
_INTEGER = re.compile(r"\d{9,19}(\.\d+)?")


def _is_moment(text: str) -> bool:
    """An epoch between 1990 and 2040 in any unit, or a date."""
    if _INTEGER.fullmatch(text.strip()):
        number = float(text)
        return any(_LIKELY[0] <= number / unit < _LIKELY[1] for unit in (1, 1e3, 1e6, 1e9))
    if not re.match(r"\s*\d{4}-\d\d-\d\d", text):
        return False
    try:
        parse_moment(text)
    except ValueError:
        return False
    return True


# -- by name --------------------------------------------------------------------------------


def _means(name: str, role: str) -> bool:
    """Whether a column's name says the role, and nothing else."""
    parts = [part.lower() for part in _PART.findall(name)]
    words, about = _WORDS[role], _ABOUT[role]
    glued = _glued_time if role == "time" else _glued
    kinds = [part if part in words or part in about else glued(part) for part in parts]
    return any(kind in words for kind in kinds) and all(
        kind in words or kind in about for kind in kinds
    )


def _glued(part: str) -> str:
    """``visitor`` of ``visitorid``: words that were written as one."""
    match = _GLUED.fullmatch(part)
    return match[1] if match else part


def _glued_time(part: str) -> str:
    match = _GLUED_TIME.fullmatch(part)
    return match[2] if match and match[1] in _ABOUT["time"] else part


def _is_value(name: str) -> bool:
    """What a header would hardly say: a number, a date or nothing."""
    return not name.strip() or bool(re.fullmatch(r"[-+\d.eE:TZ/ ]+", name.strip()))


def _example(layout: Layout) -> str:
    names = [f"column{n}" for n in range(4, len(layout.names) + 1)]
    return ",".join([*("session_id", "item_id", "time")[: len(layout.names)], *names])


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
