"""A study in PostgreSQL whose rows are damaged by SQL and put back; what paropt says of it."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
from rich.console import Console

from paropt.dashboard.overlay import Exhibits
from paropt.errors import ParoptError, StorageUnreachable
from paropt.launch.opening import open_study
from paropt.results.compare import compare
from paropt.results.export import export
from paropt.results.pages.compare_page import compare_page
from paropt.results.pages.html_page import page
from paropt.results.plot import figures
from paropt.results.render import render
from paropt.results.spend_curve import points
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.storage.connect import Storage, parse_url
from paropt.storage.leases import Leases, Observer, Rhythm, Slots
from paropt.storage.schema import create_tables
from paropt.terminal.status import all_statuses, studies_table, study_report, study_status
from paropt.terminal.study_list import listed_studies, study_lines
from paropt.training.evaluation.epochs import EpochReport

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 3},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 512, "step": 32},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
        "final_act": {"type": "categorical", "choices": ["elu-0.5", "linear"]},
        "bpreg": {"type": "float", "low": 0.0, "high": 2.0, "when": {"final_act": ["linear"]}},
    },
    "start": [{"layers": 64}],
}
STATE = {"phase": "training", "trial": 6, "epoch": 1, "epochs": 3, "value": 0.25}
TABLES = (
    "studies",
    "study_directions",
    "study_user_attributes",
    "study_system_attributes",
    "trials",
    "trial_params",
    "trial_values",
    "trial_intermediate_values",
    "trial_system_attributes",
    "trial_user_attributes",
    "paropt_slot",
    "paropt_lease",
)
KEPT = "; ".join(f"CREATE TABLE kept.{table} AS TABLE {table}" for table in TABLES)
RESTORE = "; ".join(
    [
        *(f"DELETE FROM {table}" for table in reversed(TABLES)),
        *(f"INSERT INTO {table} SELECT * FROM kept.{table}" for table in TABLES),
    ]
)
ALL = " UNION ALL ".join(f"SELECT '{table}', t::text FROM {table} t" for table in TABLES)

Cursor = psycopg2.extensions.cursor


def epoch(number: int, value: float) -> dict[str, Any]:
    told = {"epoch": number, "metrics": {"mrr@20": value, "recall@20": 2 * value}}
    extra = {"similarity": {"positive": value, "negative": 0.0}}
    return {**told, "loss": 1.0, "seconds": 1.5, "peak_memory": 5e8, "extra": extra}


class Shop:
    """A study with five trials that ended in every way, one that runs and one that waits."""

    name = "shop"

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        sampler = {"name": "tpe", "startup": 2}
        self.definition = StudyDefinition(
            self.name, SPACE, "mrr@20", [20], "nowhere", "f" * 64, sampler=sampler
        )
        study = Study.create(url, self.definition, budget=20)
        create_tables(study._engine)
        for value in (0.25, 0.5):
            trial = self.ask(study)
            trial.report(EpochReport.from_json(epoch(1, value)))
            trial.report(EpochReport.from_json(epoch(2, value / 2)))
            trial.complete()
        trial = self.ask(study)
        trial.report(EpochReport.from_json(epoch(1, 0.125)))
        trial.prune("below the median")
        self.ask(study).out_of_memory("8 GiB asked of 4 GiB")
        self.ask(study).fail("error", "a bug")
        waiting, running = self.ask(study), self.ask(study)
        waiting.hand_back("asked to")
        running.report(EpochReport.from_json(epoch(1, 0.25)))
        study.set_floor({"popularity": {"mrr@20": 0.0625}})
        study.set_note("# shop")
        slots = Slots(study._engine)
        slot = slots.register(self.name, device="cpu", slot=0, host="rome")
        slots.beat(slot, STATE)
        with study.transaction() as connection:
            Leases.take(connection, self.name, running.id, slot)
        study.close()
        self.running = running.id
        self.connection = psycopg2.connect(url)
        self.connection.autocommit = True
        self.cursor: Cursor = self.connection.cursor()
        self.cursor.execute(f"CREATE SCHEMA kept; {KEPT}")
        self.storage = Storage(parse_url(url))

    @staticmethod
    def ask(study: Study) -> Any:
        trial = study.next_trial({"host": "rome", "device": "cpu", "slot": "rome/cpu-0"})
        assert trial is not None
        return trial

    def rows(self) -> set[tuple[str, str]]:
        self.cursor.execute(ALL)
        return set(self.cursor.fetchall())

    def restore(self) -> None:
        self.cursor.execute(f"BEGIN; {RESTORE}; COMMIT")

    def close(self) -> None:
        self.storage.close()
        self.connection.close()

    # -- what the verbs call --------------------------------------------------------------------

    def look(self) -> list[str]:
        """Everything that reads; what was said instead of a result."""
        said: list[str] = []

        def try_out(read: Callable[[], object]) -> None:
            try:
                read()
            except StorageUnreachable:
                raise
            except ParoptError as error:
                said.append(str(error))

        try_out(self.listed)
        try_out(lambda: page(compare_page(compare(self.storage, [self.name]))))
        try_out(lambda: render(self.name, self.folder / "page.html", self.url))
        try_out(lambda: open_study.join(self.name, self.url, None))
        try_out(lambda: self.all_of_study(try_out))
        for sentence in said:
            assert sentence.strip()
            assert "\n" not in sentence, sentence
        return said

    def all_of_study(self, try_out: Callable[[Callable[[], object]], None]) -> None:
        """Each by itself, for a verb calls only some of it."""
        study = Study.load(self.url, self.name)
        reads: list[Callable[[Study], object]] = [
            *(Study.trials, Study.best, Study.importances, Study.running, Study.state),
            *(Study.report, self.status, points, figures),
            lambda study: export(study, self.folder, top=5, overwrite=True),
        ]
        try:
            for read in reads:
                try_out(partial(self.as_text, read, study))
        finally:
            study.close()

    @staticmethod
    def as_text(read: Callable[[Study], object], study: Study) -> None:
        json.dumps(read(study), allow_nan=False, default=str).encode()

    def status(self, study: Study) -> object:
        found = study_status(self.storage, study)
        Console(file=io.StringIO(), width=80).print(study_report(found, study))
        return found

    def listed(self) -> None:
        found, _ = all_statuses(self.storage)
        Console(file=io.StringIO(), width=80).print(studies_table(found))
        json.dumps(found, allow_nan=False)
        json.dumps(study_lines(listed_studies(self.storage)[0])).encode()

    def show(self) -> bool:
        """Whether the dashboard has something of ours to show."""
        exhibits = Exhibits(self.storage.url)
        self.cursor.execute("SELECT study_id FROM studies WHERE study_name = %s", (self.name,))
        found = self.cursor.fetchone()
        try:
            return bool(found and exhibits.of(found[0], self.name).attributes)
        finally:
            exhibits.close()

    def work(self) -> None:
        """What a slot does: it joins, takes over what is lost, asks, reports, ends."""
        with contextlib.suppress(StudyEnded):
            study = Study.create(self.url, self.definition)
            try:
                Observer(Leases(self.storage.engine()), self.name, Rhythm()).observe(
                    trial.id for trial in study.running()
                )
                study.requeue(self.running, "lost")
                for _ in range(2):
                    if trial := study.next_trial({"host": "rome"}):
                        trial.report(EpochReport.from_json(epoch(1, 0.25)))
                        trial.complete()
            finally:
                study.close()


def spoil(shop: Shop, key: str, text: str | None, trial: int = 0) -> None:
    """Another program writes ``text`` where an attribute of a trial, or of the study, was."""
    if key in ("trial", "owner", "curve", "end"):
        where, owner = "trial_system_attributes", "trial_id"
        shop.cursor.execute("SELECT trial_id FROM trials WHERE number = %s", (trial,))
    else:
        where, owner = "study_user_attributes", "study_id"
        shop.cursor.execute("SELECT study_id FROM studies")
    shop.cursor.execute(
        f"UPDATE {where} SET value_json = %s WHERE {owner} = %s AND key = %s",
        (text, shop.cursor.fetchone(), f"paropt:{key}"),
    )
    assert shop.cursor.rowcount == 1


LEFT_OUT = (
    "study 'shop' is shown without 1 trial, which cannot be read: another program changed what is "
    "stored of it"
)


def opened(shop: Shop) -> Study:
    return Study.load(shop.url, shop.name)
