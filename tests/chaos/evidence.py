"""What a run of the fault suite left behind, read without anything of paropt's.

The database in SQL of its own, what each slot wrote down of what it was told was saved, what the
trainers trained, and what the driver did.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# the driver puts this into the database: every write to a trial, in the order in which it was made
AUDIT = """
CREATE TABLE chaos_audit (
    id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(),
    tx bigint NOT NULL DEFAULT txid_current(), what text, trial_id integer, said text);
CREATE FUNCTION chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE it record;
BEGIN
    IF TG_OP = 'DELETE' THEN it := OLD; ELSE it := NEW; END IF;
    INSERT INTO chaos_audit (what, trial_id, said) VALUES (TG_TABLE_NAME, it.trial_id,
        CASE TG_TABLE_NAME WHEN 'trials' THEN to_jsonb(it) ->> 'state' ELSE TG_OP END);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE OR DELETE ON trials
    FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE TRIGGER chaos AFTER INSERT OR UPDATE OR DELETE ON trial_values
    FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE TRIGGER chaos AFTER INSERT OR UPDATE OR DELETE ON trial_intermediate_values
    FOR EACH ROW EXECUTE FUNCTION chaos_note();
CREATE FUNCTION chaos_beat() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO chaos_audit (what, said) VALUES ('beat', NEW.host || '/' || NEW.id);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE ON paropt_slot
    FOR EACH ROW EXECUTE FUNCTION chaos_beat();
CREATE FUNCTION chaos_lease() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE it record;
BEGIN
    IF TG_OP = 'DELETE' THEN it := OLD; ELSE it := NEW; END IF;
    INSERT INTO chaos_audit (what, trial_id, said)
        VALUES ('lease', it.trial_id, TG_OP || ' ' || it.owner);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos AFTER INSERT OR UPDATE OR DELETE ON paropt_lease
    FOR EACH ROW EXECUTE FUNCTION chaos_lease();
"""


def lines(path: Path) -> list[str]:
    """The complete lines of a file that may be written to, or not be there."""
    try:
        return path.read_text(errors="replace").split("\n")[:-1]
    except OSError:
        return []


@dataclass
class Trial:
    """One attempt, as the database has it."""

    id: int
    number: int
    state: str
    ended: float
    value: float | None
    meta: dict[str, Any]
    owner: dict[str, Any]
    end: dict[str, Any]
    curve: dict[int, float]

    @property
    def root(self) -> int:
        return int(self.meta["root"])

    @property
    def x(self) -> float:
        return float(self.meta["params"]["x"])

    @property
    def finished(self) -> bool:
        """What the budget counts."""
        return self.state in ("COMPLETE", "PRUNED") and self.value is not None


@dataclass
class Evidence:
    """All that is known of a run."""

    manifest: dict[str, Any]
    trials: list[Trial]
    reference: list[Trial]  # of a study that ran in peace
    audit: list[tuple[float, int, str, int, str]]  # time, transaction, what, trial, said
    leases: list[int]
    diary: list[dict[str, Any]]
    records: list[dict[str, Any]]  # of all slots, times by the driver's clock
    trained: list[tuple[str, int, int, int]]  # host, root, attempt, epoch

    def lineages(self) -> dict[int, list[Trial]]:
        found: dict[int, list[Trial]] = defaultdict(list)
        for trial in self.trials:
            found[trial.root].append(trial)
        return found


def collect(run: Path, manifest: dict[str, Any], connection: Any) -> Evidence:
    cursor = connection.cursor()
    trials = list(_trials(cursor, manifest["study"]))
    reference = list(_trials(cursor, manifest.get("reference")))
    cursor.execute("SELECT to_regclass('chaos_audit')")
    audit = []
    if cursor.fetchone()[0]:
        cursor.execute(
            "SELECT extract(epoch FROM at)::float8, tx, what, trial_id, said FROM chaos_audit"
            " ORDER BY id"
        )
        audit = cursor.fetchall()
    cursor.execute("SELECT trial_id FROM paropt_lease")
    leases = [trial for (trial,) in cursor]
    records, trained = [], []
    for host in manifest["hosts"]:
        place = Path(host["directory"])
        for path in sorted(place.glob(host["records"])):
            for line in lines(path):
                record = json.loads(line)
                record |= {"time": record["time"] - host["clock"], "host": host["name"]}
                records.append(record | {"place": path.stem})
        for line in lines(place / "epochs.txt"):
            root, attempt, epoch, *_ = line.split()
            trained.append((host["name"], int(root), int(attempt), int(epoch)))
    records.sort(key=lambda record: record["time"])
    diary = [json.loads(line) for line in lines(run / "diary.jsonl")]
    return Evidence(manifest, trials, reference, audit, leases, diary, records, trained)


def _trials(cursor: Any, study: str | None) -> Iterator[Trial]:
    curves: dict[int, dict[int, float]] = defaultdict(dict)
    cursor.execute("SELECT trial_id, step, intermediate_value FROM trial_intermediate_values")
    for trial, step, value in cursor:
        curves[trial][step] = value
    attrs: dict[int, dict[str, Any]] = defaultdict(dict)
    cursor.execute("SELECT trial_id, key, value_json FROM trial_system_attributes")
    for trial, key, value in cursor:
        attrs[trial][key] = json.loads(value)
    values: dict[int, list[float]] = defaultdict(list)
    cursor.execute("SELECT trial_id, value FROM trial_values")
    for trial, value in cursor:
        values[trial].append(value)
    cursor.execute(
        "SELECT trial_id, number, state::text, datetime_complete FROM trials"
        " JOIN studies USING (study_id) WHERE study_name = %s ORDER BY number",
        (study,),
    )
    for trial, number, state, ended in cursor:
        found = attrs[trial]
        yield Trial(
            trial,
            number,
            state,
            _seconds(ended),
            values[trial][0] if values[trial] else None,
            found.get("paropt:trial", {}),
            found.get("paropt:owner", {}),
            found.get("paropt:end", {}),
            curves[trial],
        )


def _seconds(moment: datetime | None) -> float:
    """Optuna keeps naive UTC."""
    return moment.replace(tzinfo=UTC).timestamp() if moment else 0.0
