"""Rows that another program wrote are left out and counted; nothing of them is changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from damaged import LEFT_OUT, Shop, epoch, opened, spoil

from paropt.errors import StudyError
from paropt.search.history import history
from paropt.search.study.study import Study
from paropt.terminal.status import all_statuses
from paropt.terminal.study_list import listed_studies
from paropt.training.evaluation.epochs import EpochReport

pytestmark = pytest.mark.postgres


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
            2,
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
    trial.report(EpochReport.from_json(epoch(1, 0.5)))
    spoil(whole, "curve", "{", trial.number)
    assert study.summary()["unread"] == 1
    trial.report(EpochReport.from_json(epoch(2, 0.5)))
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
    assert (found, len(damaged)) == ([], 1)
    assert listed_studies(whole.storage) == (found, damaged)
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
