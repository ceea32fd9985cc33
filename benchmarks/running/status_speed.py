"""How long `paropt status` takes over many studies, its start included.

    python benchmarks/running/status_speed.py --studies 1000 --trials 8

makes one study in a database of its own (a temporary PAROPT_HOME, removed at the end), copies its
rows, and times the commands, the best of three of each. The server runs meanwhile, as it does
beside a search.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.connect import open_storage
from paropt.storage.engine import transaction
from paropt.storage.schema import create_tables
from paropt.training.evaluation.epochs import EpochReport

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 10},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 512, "step": 32},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
    },
}
NAMES = [f"{kind}@{k}" for kind in ("recall", "mrr", "ndcg") for k in (1, 5, 10, 20)]
# copies of every row of study 1, under the numbers that are added to its own
COPIES = """
INSERT INTO studies (study_id, study_name) SELECT s + 1, 'copy-' || s FROM generate_series(1, :n) s;
INSERT INTO study_directions (direction, study_id, objective)
    SELECT 'MAXIMIZE', s + 1, 0 FROM generate_series(1, :n) s;
INSERT INTO study_user_attributes (study_id, key, value_json)
    SELECT s + 1, key, value_json FROM study_user_attributes, generate_series(1, :n) s
    WHERE study_id = 1;
INSERT INTO trials (trial_id, number, study_id, state, datetime_start, datetime_complete)
    SELECT trial_id + s * :t, number, s + 1, state, datetime_start, datetime_complete
    FROM trials, generate_series(1, :n) s WHERE study_id = 1;
INSERT INTO trial_values (trial_id, objective, value, value_type)
    SELECT trial_id + s * :t, objective, value, value_type
    FROM trial_values, generate_series(1, :n) s WHERE trial_id <= :t;
INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
    SELECT trial_id + s * :t, param_name, param_value, distribution_json
    FROM trial_params, generate_series(1, :n) s WHERE trial_id <= :t;
INSERT INTO trial_intermediate_values
    (trial_id, step, intermediate_value, intermediate_value_type)
    SELECT trial_id + s * :t, step, intermediate_value, intermediate_value_type
    FROM trial_intermediate_values, generate_series(1, :n) s WHERE trial_id <= :t;
INSERT INTO trial_system_attributes (trial_id, key, value_json)
    SELECT trial_id + s * :t, key, value_json
    FROM trial_system_attributes, generate_series(1, :n) s WHERE trial_id <= :t;
ANALYZE
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=8)
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="paropt-status-", dir="/tmp"))
    home.chmod(0o711)
    os.environ["PAROPT_HOME"] = str(home / "home")
    os.environ.pop("PAROPT_STORAGE", None)
    try:
        with open_storage() as storage:
            _fill(storage, options.studies, options.trials)
            for words in (["status"], ["status", "--json"], ["status", "copy-1"], ["--help"]):
                wall, work = _seconds(words)
                print(f"paropt {' '.join(words)}: {wall:.2f} s, of it {work:.2f} s at work itself")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _fill(storage: Any, studies: int, trials: int) -> None:
    definition = StudyDefinition("one", SPACE, "mrr@20", [1, 5, 10, 20], "/data", "0" * 64)
    study = Study.create(storage.url, definition, budget=trials)
    create_tables(storage.engine())
    for index in range(trials):
        trial = study.next_trial({"host": "here", "slot": "here/cpu-0", "device": "cpu"})
        assert trial is not None
        for epoch in range(1, 11):
            value = 0.2 + 0.01 * epoch + 0.001 * index
            metrics = {name: value for name in NAMES}
            told = {"epoch": epoch, "metrics": metrics, "loss": 1.0 / epoch, "seconds": 2.0}
            trial.report(EpochReport.from_json(told))
        trial.complete()
    study.close()
    with transaction(storage.engine()) as connection:
        _copy(connection, studies - 1, trials)


def _copy(connection: Connection, studies: int, trials: int) -> None:
    for statement in COPIES.split(";"):
        values = {"n": studies, "t": trials}
        asked = {key: value for key, value in values.items() if f":{key}" in statement}
        connection.execute(text(statement), asked)


def _seconds(words: list[str]) -> tuple[float, float]:
    """Least wall-clock and processor time of three runs."""
    command = [sys.executable, "-m", "paropt", *words]
    walls, works = [], []
    for _ in range(3):
        begun, before = time.perf_counter(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        walls.append(time.perf_counter() - begun)
        user, system = after.children_user, after.children_system
        works.append(user + system - before.children_user - before.children_system)
    return min(walls), min(works)


if __name__ == "__main__":
    main()
