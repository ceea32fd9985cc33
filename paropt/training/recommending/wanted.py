"""What is wanted of the next event, where a model reads that: the clicked rather than the seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from paropt.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    from paropt.training.saved_model.known_data import Knowledge
    from paropt.training.saved_model.saved import SavedModel

SHOWN = 10  # values that are named where one isn't known


def wanted_values(saved: SavedModel, want: Sequence[str]) -> dict[str, float]:
    """Values or codes by column of what is ``want``\\ ed: "click", or "action=click".

    Raises:
        ModelError: the model reads no such column of the next event, or doesn't know the value.
    """
    found: dict[str, float] = {}
    for entry in want:
        column, value = _split(saved, entry)
        if column in found:
            raise ModelError(f"--want says twice which {column} is wanted")
        found[column] = _encoded(saved.knowledge, column, value)
    return found


def unsaid(saved: SavedModel, wanted: Mapping[str, float]) -> list[str]:
    """What to say of columns of the next event that the model reads and nobody named."""
    missing = [column for column in saved.knowledge.needs.given if column not in wanted]
    return [
        f"the model reads which {column} is wanted next, and nobody says: it is unknown; "
        f"--want {example} names one"
        for column in missing
        for example in [next(iter(_known(saved.knowledge, column)), "VALUE")]
    ]


def _split(saved: SavedModel, entry: str) -> tuple[str, str]:
    """The column that a wish is about, and its value there."""
    columns = saved.knowledge.needs.wanted
    if not columns:
        raise ModelError(
            f"model {saved.meta['model']!r} reads nothing of what is wanted next as it was "
            "trained; leave --want out"
        )
    name, equals, value = entry.partition("=")
    if equals and name in columns:
        return name, value
    if len(columns) == 1:
        return columns[0], entry
    raise ModelError(
        f"--want {entry!r} does not say which column it is of; write {columns[0]}={entry}, "
        f"there are {', '.join(columns)}"
    )


def _encoded(knowledge: Knowledge, column: str, value: str) -> float:
    encoded = knowledge.encoded(column, pa.chunked_array([[value]], pa.string())).tolist()[0]
    if encoded != encoded or (encoded == -1 and knowledge.columns[column].kind == "category"):
        known = _known(knowledge, column)
        there = f"there are {', '.join(known[:SHOWN])}" if known else "it takes numbers"
        raise ModelError(
            f"the model knows no {column} {value!r}; {did_you_mean(value, known, there)}"
        )
    return float(encoded)


def _known(knowledge: Knowledge, column: str) -> list[str]:
    """The words of a category that training saw."""
    words = knowledge.columns[column].vocabulary
    seen = knowledge.known.get(column)
    return [word for code, word in enumerate(words) if seen is None or seen[code]]
