"""Every verb on a study with damaged rows: the rest, or one sentence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from damaged import LEFT_OUT, SPACE, Shop, spoil

from paropt.errors import StudyError
from paropt.search.history import history
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.storage.schema import create_tables

pytestmark = pytest.mark.postgres

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
