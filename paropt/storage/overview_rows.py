"""What a list of all studies needs: a few statements, however many studies there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.engine import Connection

from paropt.storage import trial_rows


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One attempt, without its curves.

    ``root`` is the number of the first attempt at its configuration; None where that is damaged.
    ``worth`` is the mean of so many of its best epochs, of one that has a value.
    """

    study: int
    id: int
    number: int | None
    state: str
    value: float | None
    worth: float | None
    root: int | None


def there(connection: Connection) -> bool:
    """Whether any study was ever kept here."""
    found: bool = connection.execute(text("SELECT to_regclass('studies') IS NOT NULL")).scalar_one()
    return found


def studies(connection: Connection) -> Iterator[tuple[int, str, trial_rows.StudyAttributes]]:
    """The studies that paropt made, in the order of their making, without reports and notes."""
    rows = connection.execute(
        text(
            "SELECT study_id, study_name, json_object_agg(key, value_json) AS attributes"
            " FROM studies JOIN study_user_attributes USING (study_id)"
            " WHERE starts_with(key, 'paropt:') AND key <> ALL(CAST(:large AS text[]))"
            " GROUP BY study_id HAVING bool_or(key = :definition) ORDER BY study_id"
        ),
        {"large": [trial_rows.REPORT, trial_rows.NOTE], "definition": trial_rows.DEFINITION},
    )
    for study, name, attributes in rows:
        yield study, name, trial_rows.StudyAttributes(attributes)


def trials(connection: Connection, best_epochs: int) -> list[TrialRow]:
    """All trials that paropt made, of all studies, in the order of their ids.

    The number of the first attempt stands at the end of what paropt writes: cutting it out is a
    tenth of the work of sending and reading the JSON.
    """
    rows = connection.execute(
        text(
            "SELECT t.study_id, t.trial_id, t.number, CAST(t.state AS text), v.value, w.worth,"
            " split_part(right(m.value_json, 20), ',\"root\":', 2)"
            " FROM trials t JOIN trial_system_attributes m"
            "  ON m.trial_id = t.trial_id AND m.key = :meta"
            " LEFT JOIN trial_values v ON v.trial_id = t.trial_id AND v.objective = 0"
            " LEFT JOIN study_directions d ON d.study_id = t.study_id AND d.objective = 0"
            " LEFT JOIN LATERAL (SELECT avg(intermediate_value) AS worth FROM"
            "  (SELECT intermediate_value FROM trial_intermediate_values i"
            "   WHERE i.trial_id = t.trial_id AND intermediate_value_type = 'FINITE'"
            "   ORDER BY CASE d.direction WHEN 'MINIMIZE' THEN intermediate_value"
            "    ELSE -intermediate_value END LIMIT :best) b) w"
            "  ON v.value IS NOT NULL AND t.state <> 'FAIL'"
            " ORDER BY t.trial_id"
        ),
        {"meta": trial_rows.META, "best": best_epochs},
    ).all()
    odd = [row[1] for row in rows if not _is_end(row[-1])]
    read = _read_roots(connection, odd) if odd else {}
    roots = (int(row[-1][:-1]) if _is_end(row[-1]) else read.get(row[1]) for row in rows)
    return [
        TrialRow(row[0], row[1], row[2], row[3], row[4], row[5], root)
        for row, root in zip(rows, roots, strict=True)
    ]


class Beyond:
    """Trials that are beyond a limit of their study, read when they are asked for."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def of(self, study: int) -> frozenset[int]:
        """By their ids; those that failed by themselves are not among them."""
        rows = self._connection.execute(
            text(
                "SELECT trial_id, value_json FROM trials JOIN trial_system_attributes a"
                " USING (trial_id) WHERE study_id = :study AND starts_with(a.key, 'constraints:')"
                " AND a.key <> ALL(CAST(:others AS text[]))"
            ),
            {"study": study, "others": ["constraints:oom", "constraints:diverged"]},
        )
        return frozenset(trial for trial, value in rows if _above_zero(value))


def _above_zero(value: object) -> bool:
    try:
        return float(str(value)) > 0
    except ValueError:
        return False


def _is_end(text: str) -> bool:
    return text[-1:] == "}" and text[:-1].isdecimal()


def _read_roots(connection: Connection, trials: Sequence[int]) -> Mapping[int, int]:
    """Of trials whose JSON is not as paropt writes it; damaged ones are left out."""
    rows = connection.execute(
        text(
            "SELECT trial_id, value_json FROM trial_system_attributes"
            " WHERE key = :meta AND trial_id = ANY(:trials)"
        ),
        {"meta": trial_rows.META, "trials": list(trials)},
    )
    kind = trial_rows.TRIAL[trial_rows.META]
    found = {trial: trial_rows.trial_attr(trial_rows.META, value, kind) for trial, value in rows}
    return {trial: int(meta["root"]) for trial, meta in found.items() if meta is not None}


def now(connection: Connection) -> float:
    """Seconds since 1970 by the server's clock."""
    found = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    return float(found)
