"""From a dataset to a file with a text per user, or per item, that ``prepare`` reads back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paropt.data.dataset import Dataset
from paropt.data.describing.prompts import About, Prompt, Source, item_values, user_values
from paropt.data.features.made_from import COLUMN, WRITTEN_BY, training_mark
from paropt.errors import DataError
from paropt.files import write_text


def field_name(about: About) -> str:
    """The column that the texts are in."""
    return "taste" if about == "users" else "description"


def id_column(dataset: Dataset, about: About) -> str:
    """The column of ids that ``prepare`` will look for."""
    log: Mapping[str, Any] = dataset.meta.get("log", {})
    if about == "items":
        return str(log.get("item_key") or "item_id")
    users: Mapping[str, Any] = dataset.meta.get("users", {})
    return str(users.get("key") or log.get("session_key") or "user_id")


def ids_of(source: Source, about: About) -> list[str]:
    """Those that are written about: users with training events, or all items."""
    if about == "items":
        return source.item_ids
    ids = source.user_ids
    return [ids[user] for user in sorted(source.histories)]


def prompts_of(source: Source, about: About, prompt: Prompt, limit: int | None) -> dict[str, str]:
    """A filled prompt by id; not of those of whom nothing is known."""
    found: dict[str, str] = {}
    if about == "users":
        for user in sorted(source.histories)[:limit]:
            values = user_values(source, user)
            if values["history"] or values["kinds"]:
                found[source.user_ids[user]] = prompt.filled(values)
        return found
    for item, one in enumerate(source.item_ids[:limit]):
        values = item_values(source, item)
        if values["fields"]:
            found[one] = prompt.filled(values)
    return found


def texts_from_history(source: Source, limit: int | None) -> dict[str, str]:
    """A text by user, from titles alone."""
    found: dict[str, str] = {}
    for user in sorted(source.histories)[:limit]:
        if text := source.from_history(user):
            found[source.user_ids[user]] = text
    return found


def check_out(out: Path, overwrite: bool) -> None:
    """Refuse a file that isn't ours to replace: ours may grow by the same command.

    Raises:
        DataError: it exists, and neither is a file of texts nor may be overwritten.
    """
    if overwrite or not out.exists():
        return
    try:
        with out.open(encoding="utf-8") as file:
            first = json.loads(file.readline() or "{}")
        ours = isinstance(first, dict) and WRITTEN_BY in first
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise DataError(f"{out} exists; choose another --out, or say --overwrite to replace it")


def write_texts(
    out: Path, dataset: Dataset, about: About, texts: Mapping[str, str], by: str
) -> None:
    """JSON lines with the id, the text, who wrote it, and, of users, from which events.

    Raises:
        ParoptError: the file cannot be written.
    """
    key, name = id_column(dataset, about), field_name(about)
    more = {WRITTEN_BY: by}
    if about == "users":
        more[COLUMN] = mark_of(dataset)
    rows = ({key: one, name: text, **more} for one, text in texts.items())
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(out, lines, overwrite=True)


def mark_of(dataset: Dataset) -> str:
    """The mark of a dataset's training events."""
    train = dataset.split("train")
    ids = [str(one) for one in dataset.item_ids()]
    return training_mark(train.packed_sessions(), train.offsets, train.items, ids)
