"""Rows that another program wrote: a result without them, or one sentence; nothing is changed.

A study is made through paropt's own functions, then rows are damaged by SQL, a few at a time,
and everything that the verbs call is called. Afterwards the rows are put back.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from paropt.errors import ParoptError, StorageUnreachable, StudyError
from paropt.search import history
from paropt.search.definition import StudyDefinition
from paropt.search.export import export
from paropt.search.spending import points
from paropt.search.study import Study, StudyEnded
from paropt.service import joining
from paropt.service.comparing import compare, printed
from paropt.service.exhibits import Exhibits
from paropt.service.leases import Leases, Observer, Rhythm, Slots, create_tables
from paropt.service.plotting import figures
from paropt.service.rendering import render
from paropt.service.status import all_statuses, studies_table, study_report, study_status
from paropt.service.storage import Storage, parse_url

pytestmark = pytest.mark.postgres

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
            trial.report(epoch(1, value))
            trial.report(epoch(2, value / 2))
            trial.complete()
        trial = self.ask(study)
        trial.report(epoch(1, 0.125))
        trial.prune("below the median")
        self.ask(study).out_of_memory("8 GiB asked of 4 GiB")
        self.ask(study).fail("error", "a bug")
        waiting, running = self.ask(study), self.ask(study)
        waiting.hand_back("asked to")
        running.report(epoch(1, 0.25))
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
        try_out(lambda: printed(compare(self.storage, [self.name])))
        try_out(lambda: render(self.name, self.folder / "page.html", self.url))
        try_out(lambda: joining.join(self.name, self.url, None))
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
                        trial.report(epoch(1, 0.25))
                        trial.complete()
            finally:
                study.close()


@pytest.fixture(scope="module")
def shop(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(module_database_url, tmp_path_factory.mktemp("damaged"))
    yield shop
    shop.close()


@pytest.fixture
def whole(shop: Shop) -> Iterator[Shop]:
    """The same for a test that damages rows itself."""
    yield shop
    shop.restore()


# -- damage -----------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
ODD = [
    "", "{", "null", "[]", "{}", "5", '"x"', "NaN", "1e999", "-1e308", "[" * 3000, '"\\ud800"',
    '{"a": ' * 60 + "1" + "}" * 60, '{"root": 0}', "1" * 5000, json.dumps("x" * 100_000),
    '{"\\u0000": "\\u0000"}', '{"mrr@20": ["0.5"]}', '{"mrr@20": 0.5}', '{"token": 5}',
]  # fmt: skip
NUMBERS = ["'NaN'", "'Infinity'", "1e308", "-1", "0", "NULL"]
TIMES = ["NULL", "'infinity'", "'-infinity'", "'20000-01-01'", "'0044-03-15 BC'", "now()"]
COLUMNS = [
    ("trials", "number", ["NULL", "-1", "0", "2147483647"]),
    ("trials", "state", [f"'{state}'" for state in ("COMPLETE", "FAIL", "PRUNED", "WAITING")]),
    ("trials", "datetime_start", TIMES),
    ("trials", "datetime_complete", TIMES),
    ("trial_values", "value", NUMBERS),
    ("trial_values", "objective", ["1", "-1"]),
    ("trial_params", "param_value", NUMBERS),
    ("trial_params", "distribution_json", ["NULL", "''", "'{}'"]),
    ("trial_intermediate_values", "intermediate_value", NUMBERS),
    ("paropt_slot", "state", ["'5'", "'[]'", "'{\"trial\": \"x\", \"value\": 1e999}'"]),
    ("paropt_slot", "beaten_at", TIMES[1:]),
    ("paropt_slot", "started", TIMES[1:]),
    ("paropt_slot", "pid", ["-1", "9223372036854775807"]),
    ("paropt_lease", "beaten_at", TIMES[1:]),
    ("paropt_lease", "beats", ["-1", "9223372036854775807"]),
    ("paropt_lease", "trial_id", ["-1", "9223372036854775807"]),
]  # fmt: skip
ATTRIBUTES = {"trial_system_attributes": "trial_id", "study_user_attributes": "study_id"}


@st.composite
def changed(draw: st.DrawFn, document: Any) -> str:
    """A JSON document with one part replaced or removed."""
    root = {"": copy.deepcopy(document)}
    node: Any = root
    key: Any = ""
    while isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 4)):
        node = node[key]
        key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
    if node is root or draw(st.integers(0, 3)):
        node[key] = draw(VALUES)
    else:
        del node[key]
    return json.dumps(root[""])


TRIALS = ["trial_system_attributes"] * 4 + ["column"] * 2 + ["row"]


def damage(cursor: Cursor, data: st.DataObject) -> None:
    """Something is done to the study, or to several of its trials and slots."""
    if data.draw(st.integers(0, 3)) == 0:
        damage_row(cursor, data, "study_user_attributes")
        return
    for _ in range(data.draw(st.integers(2, 4))):
        damage_row(cursor, data, data.draw(st.sampled_from(TRIALS)))


def damage_row(cursor: Cursor, data: st.DataObject, kind: str) -> None:
    if kind == "column":
        table, column, values = data.draw(st.sampled_from(COLUMNS))
        value = data.draw(st.sampled_from(values))
        row = one_row(cursor, table, data)
        cursor.execute(f"UPDATE {table} SET {column} = {value} WHERE ctid = %s", (row,))
    elif kind == "row":
        table = data.draw(st.sampled_from([table for table in TABLES[2:] if table != "trials"]))
        cursor.execute(f"DELETE FROM {table} WHERE ctid = %s", (one_row(cursor, table, data),))
    else:
        cursor.execute(f"SELECT ctid, value_json FROM {kind} ORDER BY {ATTRIBUTES[kind]}, key")
        row, text = data.draw(st.sampled_from(cursor.fetchall()))
        try:
            mutant = changed(json.loads(text))
        except (ValueError, RecursionError):  # it was damaged before
            mutant = st.just("")
        new = data.draw(st.sampled_from(ODD) | mutant)
        cursor.execute(f"UPDATE {kind} SET value_json = %s WHERE ctid = %s", (new, row))


def one_row(cursor: Cursor, table: str, data: st.DataObject) -> Any:
    cursor.execute(f"SELECT ctid FROM {table} ORDER BY 1")
    rows = cursor.fetchall()
    return rows[data.draw(st.integers(0, len(rows) - 1))][0] if rows else None


@settings(
    max_examples=int(os.environ.get("PAROPT_FUZZ", "40")),
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # an example takes a moment, so a bug is not made smaller
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_stands_in_a_row(shop: Shop, data: st.DataObject) -> None:
    try:
        damage(shop.cursor, data)
        before = shop.rows()
        shop.look()
        shop.show()
        assert shop.rows() == before, "who only looks changes nothing"
        try:
            shop.work()
        except StorageUnreachable:
            raise
        except ParoptError as error:
            assert "\n" not in str(error)
    finally:
        shop.restore()


# -- what is told -------------------------------------------------------------------------------


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


def test_without_damage_everything_is_shown(whole: Shop) -> None:
    said = whole.look()
    assert len(said) == 1, said
    assert "recorded its data in nowhere" in said[0]
    assert whole.show()
    whole.work()


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("trial", "no JSON"),
        ("trial", '{"root": 1}'),
        ("trial", None),
        ("owner", "5"),
        ("curve", '{"mrr@20": ["0.5"]}'),
        ("curve", '{"mrr@20": [NaN]}'),
        ("end", "[]"),
    ],
)
def test_a_damaged_trial_is_left_out_and_counted(
    whole: Shop, key: str, text: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    history._tell.cache_clear()
    spoil(whole, key, text, trial=1)
    for _ in range(2):
        study = opened(whole)
        summary = study.summary()
        assert summary["unread"] == 1
        assert summary["counts"]["complete"] == 1
        assert summary["best"]["trial"] == 0
        assert [trial["trial"] for trial in study.trials()] == [0, 2, 3, 4, 5, 6]
        assert whole.show()
        study.close()
    assert caplog.messages == [LEFT_OUT]


@pytest.mark.parametrize(
    ("statement", "unread"),
    [
        ("DELETE FROM trial_values", 2),
        ("UPDATE trial_values SET value = 'NaN'", 3),
        ("UPDATE trials SET number = NULL WHERE number = 4", 1),
        ("UPDATE trials SET datetime_complete = '20000-01-01' WHERE number = 1", 0),
        ("DELETE FROM trial_params", 0),
        (
            "UPDATE trial_system_attributes SET value_json ="
            " replace(value_json, '\"layers\":64', '\"layers\":63999')"
            " WHERE key = 'paropt:trial'",
            1,
        ),
        (
            "UPDATE trial_system_attributes SET value_json ="
            " replace(value_json, '\"layers\":', '\"height\":') WHERE key = 'paropt:trial'",
            7,
        ),
    ],
)
def test_values_that_cannot_be(whole: Shop, statement: str, unread: int) -> None:
    whole.cursor.execute(statement)
    study = opened(whole)
    assert study.summary()["unread"] == unread
    trial = study.next_trial({})
    assert trial is not None
    study.close()
    whole.look()


def test_a_running_trial_that_is_written_anew_is_read_again(whole: Shop) -> None:
    study = opened(whole)
    trial = study.next_trial({})
    assert trial is not None
    trial.report(epoch(1, 0.5))
    spoil(whole, "curve", "{", trial.number)
    assert study.summary()["unread"] == 1
    trial.report(epoch(2, 0.5))
    trial.complete()
    assert study.summary()["unread"] == 0
    spoil(whole, "owner", "{}", trial.number)
    study.close()


def test_a_lost_trial_that_cannot_be_read_is_left_alone(whole: Shop) -> None:
    spoil(whole, "trial", "{", trial=6)
    before = whole.rows()
    study = opened(whole)
    assert study.requeue(whole.running, "lost") is False
    study.close()
    assert whole.rows() == before


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("definition", "{", "'paropt:definition' is damaged: it is no JSON"),
        ("definition", "null", "the study was not made by paropt"),
        ("state", '{"state": "dance"}', "it.state is 'dance', not one of run, pause and stop; "),
        ("state", "[1]", "'paropt:state' is damaged: it is [1], not an object"),
        ("budget", '"20"', "'paropt launch --study STUDY --trials N' writes it anew"),
        ("deadline", "1e400", "it holds a number beyond all measure"),
        ("floor", '{"popularity": 5}', "it['popularity'] is 5, not an object"),
    ],
)
def test_a_damaged_study_says_what_is_wrong(whole: Shop, key: str, text: str, message: str) -> None:
    spoil(whole, key, text)
    before = whole.rows()

    def read() -> None:
        study = opened(whole)
        try:
            study.state()
            study.summary()
        finally:
            study.close()

    with pytest.raises(StudyError) as caught:
        read()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    found, damaged = all_statuses(whole.storage)
    assert len(found) + len(damaged) == 1  # a deadline isn't shown
    assert bool(found) == (key == "deadline")
    assert whole.rows() == before


def test_resuming_mends_the_state_and_a_budget_the_budget(whole: Shop) -> None:
    spoil(whole, "state", "5")
    spoil(whole, "budget", "-1")
    study = opened(whole)
    study.set_state("run")
    study.close()
    study = Study.create(whole.url, whole.definition, budget=7)
    assert study.state() == "run"
    assert study.summary()["budget"] == 7
    study.close()


def test_a_plan_trains_again_what_was_lost_to_damage(whole: Shop) -> None:
    entries = [{"name": name, "model": "gru4rec", "params": {}, "epochs": 1} for name in ("a", "b")]
    plan = {"of": "shop", "number": 1, "entries": entries, "seeds": [1, 2]}
    definition = replace(whole.definition, name="planned", plan=plan, sampler={"name": "random"})
    study = Study.create(whole.url, definition)
    trials = [study.next_trial({}) for _ in range(4)]
    assert [(t.seed, t.number) for t in trials if t] == [(1, 0), (1, 1), (2, 2), (2, 3)]
    whole.cursor.execute(
        "UPDATE trial_system_attributes SET value_json = '{}' WHERE trial_id = %s"
        " AND key = 'paropt:trial'",
        (trials[1].id if trials[1] else 0,),
    )
    study.close()
    study = Study.load(whole.url, "planned")
    again = study.next_trial({})
    assert again is not None
    assert again.seed == 1
    study.close()


# -- verbs --------------------------------------------------------------------------------------

Said = tuple[int, str, str]
Verb = Callable[..., Said]
SHOWING = {
    "status": ["status", "shop"],
    "export": ["export", "shop", "--out", "best"],
    "plot": ["plot", "shop", "--out", "figures"],
    "compare": ["compare", "shop"],
    "report": ["report", "shop", "--out", "page.html"],
}
OTHERS = {
    "worker": ["worker", "--study", "shop", "--devices", "cpu"],
    "launch": ["launch", "--study", "shop", "--devices", "cpu"],
}


@pytest.fixture
def verb(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Verb:
    """``verb(url, "status", …)``: exit code, stdout and stderr of paropt, in this process."""
    from paropt.cli.main import run

    monkeypatch.chdir(tmp_path)

    def called(url: str, *arguments: str) -> Said:
        history._tell.cache_clear()
        with pytest.raises(SystemExit) as caught:
            run([*arguments, "--storage", url])
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return called


@pytest.mark.parametrize("name", SHOWING)
def test_a_verb_shows_the_rest_and_says_what_is_missing(
    whole: Shop, verb: Verb, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(whole, "trial", '{"root": 1}', trial=1)
    code, out, err = verb(whole.url, *SHOWING[name])
    assert code == 0, err
    assert out
    if name == "status":
        assert "1 trial more cannot be read" in out
    assert caplog.messages == [LEFT_OUT]


def test_it_is_said_once_on_stderr(whole: Shop, run_paropt: Callable[..., Any]) -> None:
    spoil(whole, "trial", '{"root": 1}', trial=1)
    done = run_paropt("compare", "shop", "--storage", whole.url)
    assert (done.rc, done.err) == (0, LEFT_OUT + "\n")


def test_status_counts_them_in_json(whole: Shop, verb: Verb) -> None:
    spoil(whole, "curve", "[" * 3000, trial=1)
    code, out, _ = verb(whole.url, "status", "shop", "--json")
    assert code == 0
    assert json.loads(out)["unread"] == 1


@pytest.mark.parametrize("name", [*SHOWING, *OTHERS])
def test_a_verb_refuses_a_damaged_study_in_a_sentence(whole: Shop, verb: Verb, name: str) -> None:
    whole.cursor.execute(
        "UPDATE study_user_attributes SET value_json ="
        " jsonb_set(value_json::jsonb, '{heartbeat}', '\"x\"')::text WHERE key = %s",
        ("paropt:definition",),
    )
    before = whole.rows()
    code, out, err = verb(whole.url, *{**SHOWING, **OTHERS}[name])
    assert (code, out) == (1, "")
    assert err == (
        "Error: the study's definition is damaged: it.heartbeat is 'x', not a number from 0.01 to "
        "1e+06\n"
    )
    assert whole.rows() == before


def test_one_damaged_study_does_not_hide_the_others(whole: Shop, verb: Verb) -> None:
    Study.create(whole.url, replace(whole.definition, name="other")).close()
    whole.cursor.execute(
        "UPDATE study_user_attributes SET value_json = 'null' WHERE key = 'paropt:definition'"
        " AND study_id = (SELECT study_id FROM studies WHERE study_name = 'shop')"
    )
    code, out, err = verb(whole.url, "status")
    assert code == 0
    assert "other" in out
    assert err == "study 'shop' cannot be shown: the study was not made by paropt\n"


def test_a_study_that_was_renamed_goes_by_its_new_name(whole: Shop) -> None:
    whole.cursor.execute("UPDATE studies SET study_name = 'renamed'")
    study = Study.load(whole.url, "renamed")
    assert study.name == study.summary()["study"] == "renamed"
    study.close()


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ALTER TABLE trials DROP COLUMN number CASCADE", "column t.number does not exist"),
        ("DROP TABLE trial_system_attributes", '"trial_system_attributes" does not exist'),
        ("ALTER TABLE trials ALTER COLUMN state TYPE text", ""),
        ("ALTER TABLE paropt_slot DROP COLUMN state", 'column "state" does not exist'),
        ("DROP TABLE paropt_slot, paropt_lease", ""),
        ("DROP TABLE study_user_attributes", '"study_user_attributes" does not exist'),
        ("REVOKE ALL ON studies FROM CURRENT_USER", "permission denied"),
    ],
)
def test_tables_of_another_version(
    database_url: str, verb: Verb, statement: str, sentence: str
) -> None:
    study = Study.create(database_url, StudyDefinition("shop", SPACE, "mrr@20", [20], "d", "f"))
    create_tables(study._engine)
    with study.transaction() as connection:
        connection.exec_driver_sql(statement)
    study.close()
    code, out, err = verb(database_url, "status", "shop")
    if sentence:
        assert code == 1
        assert sentence in err
        assert "are not as this paropt needs them" in err
        assert (err.count("\n"), out) == (1, "")
    else:
        assert code == 0, err


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'v9.9.9'",
        "DELETE FROM alembic_version",
        "DELETE FROM version_info",
        "DROP TABLE version_info",
    ],
)
def test_tables_of_another_optuna(database_url: str, statement: str) -> None:
    definition = StudyDefinition("shop", SPACE, "mrr@20", [20], "d", "f")
    study = Study.create(database_url, definition)
    with study.transaction() as connection:
        connection.exec_driver_sql(statement)
    study.close()
    with contextlib.suppress(StudyError):
        Study.create(database_url, definition).close()
