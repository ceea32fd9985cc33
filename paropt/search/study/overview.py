"""All studies at a glance: counts and bests, without reading what every epoch reported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.state import seconds_left
from paropt.search.study.summary import below_floor
from paropt.storage import overview_rows, row_schema, trial_rows
from paropt.storage.overview_rows import TrialRow
from paropt.storage.trial_rows import StudyAttributes
from paropt.training.evaluation.objective import STEADY

OUTCOMES = ("complete", "pruned", "failed", "running", "waiting")


@dataclass
class Overview:
    """Of every study an object with the keys of ``status --json`` that a list shows.

    ``damaged`` says in a sentence each why others cannot be shown.
    """

    studies: list[dict[str, Any]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def overview(connection: Connection, *, parts: bool = False) -> Overview:
    """Every study of a database, in the order of their making; ``parts`` of final tests, too."""
    found = Overview()
    if not overview_rows.there(connection):
        return found
    by_study: dict[int, list[TrialRow]] = defaultdict(list)
    for row in overview_rows.trials(connection, STEADY):
        by_study[row.study].append(row)
    now = overview_rows.now(connection)
    beyond = overview_rows.Beyond(connection)
    for study, name, attributes in overview_rows.studies(connection):
        try:
            definition = StudyDefinition.from_json(attributes.get(trial_rows.DEFINITION, {}))
            if definition.plan and not parts:
                continue
            out = beyond.of(study) if definition.constraints else frozenset()
            found.studies.append(_listed(name, definition, attributes, by_study[study], out, now))
        except StudyError as error:
            found.damaged.append(f"study {name!r} cannot be shown: {error}")
    return found


def _listed(
    name: str,
    definition: StudyDefinition,
    attributes: StudyAttributes,
    rows: Sequence[TrialRow],
    beyond: Container[int],
    now: float,
) -> dict[str, Any]:
    latest, unread = _latest(rows)
    scored = [row for row in latest if row.value is not None and _outcome(row) != "failed"]
    scored = [row for row in scored if row.id not in beyond]
    objective = definition.objective
    best = min(scored, key=lambda row: (-objective.key(_worth(row)), row.number), default=None)
    floor = attributes.get(trial_rows.FLOOR, {})
    state = attributes.get(trial_rows.STATE, {})
    return {
        "study": name,
        "model": "/".join(models_of(definition.space)),
        "metric": definition.metric,
        "direction": definition.direction,
        "data": definition.data_path,
        "heartbeat": definition.heartbeat,
        "state": state.get("state", "run"),
        "why": state.get("failures") or state.get("message", ""),
        "counts": _counts(latest, beyond),
        "budget": attributes.get(trial_rows.BUDGET),
        "seconds_left": seconds_left(attributes, now),
        "over": state.get("over", ""),
        "best": {"trial": best.number, "value": best.value} if best else None,
        "floor": floor,
        "below_floor": below_floor(best.value, floor, objective) if best else [],
        "unread": unread,
    }


def models_of(space: Mapping[str, Any]) -> list[str]:
    """The models that a space chooses from, as its JSON object has them.

    Raises:
        StudyError: it has none.
    """
    search = space.get("search")
    searched = search.get("model") if isinstance(search, dict) else None
    if isinstance(searched, list) and len(searched) == 1:
        searched = searched[0]
    found = searched.get("choices") if isinstance(searched, dict) else [space.get("model")]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise StudyError("the study's space is damaged: it names no model")
    return found


def _latest(rows: Iterable[TrialRow]) -> tuple[list[TrialRow], int]:
    """Of every configuration its latest attempt; how many rows cannot be read."""
    latest: dict[int, TrialRow] = {}
    unread = 0
    for row in rows:
        if row.root is None or not _readable(row):
            unread += 1
        else:
            latest[row.root] = row
    return list(latest.values()), unread


def _readable(row: TrialRow) -> bool:
    lacks_value = row.state == "COMPLETE" and row.value is None
    return row.number is not None and row_schema.is_value(row.value) and not lacks_value


def _outcome(row: TrialRow) -> str:
    if row.state in ("RUNNING", "WAITING"):
        return row.state.lower()
    has_value = row.state in ("COMPLETE", "PRUNED") and row.value is not None
    return row.state.lower() if has_value else "failed"


def _counts(latest: Iterable[TrialRow], beyond: Container[int]) -> dict[str, int]:
    found = dict.fromkeys(OUTCOMES, 0)
    for row in latest:
        outcome = _outcome(row)
        if outcome == "failed" and row.id in beyond:
            outcome = "beyond"
        found[outcome] = found.get(outcome, 0) + 1
    return found


def _worth(row: TrialRow) -> float:
    found = row.worth if row.worth is not None else row.value
    return found or 0.0
