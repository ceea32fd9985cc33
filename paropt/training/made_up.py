"""Made-up data for ``paropt models check``: a ring of items, and whatever a model says it reads."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from paropt.data.log.options import Options
from paropt.data.log.rules import PART
from paropt.data.prepare import prepare
from paropt.training.registry import FieldKind, Kinds, Needs

SESSIONS, ITEMS, DAYS, USERS = 160, 24, 8, 12
START, DAY = 1_700_000_000, 86_400  # seconds
DIM = 6  # of vectors
# a fifth of the users for each of valid and test, and whatever is left of the shortest is short
CUT: dict[str, Any] = {
    "protocol": "long-short",
    "long_share": 0.6,
    "min_long": 1,
    "min_short": 1,
    "test_fraction": 0.2,
}
Value = Callable[[int], str]


def made_up_data(
    out: Path,
    sessions: int = SESSIONS,
    items: int = ITEMS,
    length: int = 9,
    has_times: bool = True,
    needs: Needs | None = None,
) -> Path:
    """A dataset directory: walks along a ring of items, up to ``length`` events each.

    Items have the features ``kind`` (of 4, text) and ``price``, and besides everything there is
    what ``needs`` names: of the first kind that will do, unknown here and there.
    """
    needs = needs or Needs()
    source = random.Random(7)
    cut = PART in needs.columns  # not a column of the log, but of what becomes of it
    columns = {
        name: _values(_kind(kinds, "category"))
        for name, kinds in needs.columns.items()
        if name != PART
    }
    lines = ["\t".join(["SessionId", "ItemId", "Time", "UserId", *columns])]
    for session in range(sessions):
        item = source.randrange(items)
        clock = START + session * DAYS * DAY // sessions
        user = f"u{session % USERS}" if session % 17 else ""
        for _ in range(source.randint(min(2, length), length)):
            more = [value((item + session) % items) for value in columns.values()]
            lines.append("\t".join([str(session), str(item), str(clock), user, *more]))
            clock += source.randint(1, 600)
            item = (item + source.choice((1, 1, 1, 2, 5))) % items
    log = out.with_suffix(".tsv")
    log.write_text("\n".join(lines) + "\n")
    of_items = {"kind": _values("category"), "price": lambda i: str(i * 1.5)}
    of_items |= _fields(needs.items)
    users = [f"u{user}" for user in range(USERS)]
    options = Options(
        user_key="UserId" if needs.who else None,
        keep_columns=tuple(columns),
        item_features=(_table(out, "items", "ItemId", map(str, range(items)), of_items),),
        user_features=(_table(out, "users", "UserId", users, _fields(needs.users)),)
        if needs.users
        else (),
        item_vectors=tuple(_vectors(out, needs, items)),
        kinds=tuple(_kinds(needs)),
        list_separator="|",
        order_column=None if has_times else "Time",
        min_support=1,
        min_session=1,
        keep_repeats=True,
        **(CUT if cut else {}),
    )
    prepare([log], out, options=options)
    return out


def _kind(kinds: Kinds, otherwise: FieldKind) -> FieldKind:
    return kinds[0] if kinds else otherwise


def _fields(wanted: Mapping[str, Kinds]) -> dict[str, Value]:
    kinds = {name: _kind(kinds, "category") for name, kinds in wanted.items()}
    return {name: _values(kind) for name, kind in kinds.items() if kind != "vector"}


def _kinds(needs: Needs) -> Iterable[str]:
    """What is said of the tables' columns."""
    yield "kind=category"
    for name, kinds in (*needs.items.items(), *needs.users.items()):
        if (kind := _kind(kinds, "category")) != "vector":
            yield f"{name}={kind}"


def _values(kind: FieldKind) -> Value:
    """A value per item, user or event as text; every eleventh is unknown but for categories."""
    if kind == "category":
        return lambda i: "abcd"[i % 4]
    forms: dict[FieldKind, Value] = {
        "number": lambda i: str(i % 7 + 0.5),
        "categories": lambda i: "|".join("pqrst"[k] for k in range(5) if (i >> k) & 1) or "p",
        "text": lambda i: f"number {i} of a kind {'abcd'[i % 4]}",
    }
    write = forms[kind]
    return lambda i: "" if i % 11 == 10 else write(i)


def _table(out: Path, name: str, key: str, ids: Iterable[str], fields: Mapping[str, Value]) -> Path:
    path = out.with_suffix(f".{name}.tsv")
    rows = ["\t".join([key, *fields])]
    for number, one in enumerate(ids):
        rows.append("\t".join([one, *(write(number) for write in fields.values())]))
    path.write_text("\n".join(rows) + "\n")
    return path


def _vectors(out: Path, needs: Needs, items: int) -> Iterable[str]:
    """Of every item but the last."""
    source = random.Random(8)
    for name, kinds in needs.items.items():
        if _kind(kinds, "category") != "vector":
            continue
        path = out.with_suffix(f".{name}.jsonl")
        vectors = [[source.gauss(0, 1) for _ in range(DIM)] for _ in range(max(1, items - 1))]
        lines = [json.dumps({"ItemId": str(i), "v": vector}) for i, vector in enumerate(vectors)]
        path.write_text("\n".join(lines) + "\n")
        yield f"{name}={path}"
