"""The notes of studies and trials: what they say, and that no name can be markup."""

from __future__ import annotations

import re
from typing import Any

import pytest

from paropt.dashboard.notes import study_facts, study_note, trial_note
from paropt.results.pages.markdown import markdown
from paropt.results.pages.study_page import study_page
from paropt.results.searched import DatasetFacts, Searched, TrialFacts
from paropt.search.history.history import Record
from paropt.training.evaluation.objective import Objective

EVIL = "`<script>alert(1)</script>` | [x](y)\n# z"


def searched(name: str = "shop", **more: Any) -> Searched:
    best = TrialFacts(3, "complete", "gru4rec", {"learning_rate": 0.0123456}, 0.25, epoch=5)
    found: dict[str, Any] = {
        "space": {
            "models": ["gru4rec"],
            "search": [{"name": "learning_rate", "range": "0 … 1", "when": {}}],
            "fixed": {},
            "start": [],
        },
        "counts": {"complete": 4, "pruned": 1},
        "budget": 10,
        "seed": 7,
        "sampler": {"name": "tpe", "startup": 10},
        "pruner": {"name": "none"},
        "evaluation": "history not filtered, standard ties",
        "floor": {"cooccurrence": {"mrr@20": 0.5}},
        "best": [best],
    }
    return Searched(name, "mrr@20", "f" * 64, more.pop("data", "data/shop"), **{**found, **more})


def test_a_study_says_what_its_report_does() -> None:
    found = searched()
    text = study_note(found)
    assert text == markdown(study_page(found))
    for words in (
        "Trial 3 of gru4rec",
        "no better than the floor: co-occurrence",
        "paropt final shop",
    ):
        assert words in text


def test_the_definition_is_shown_in_words() -> None:
    facts = study_facts(searched(state="pause", why="the disk is full"))
    assert facts["models"] == "gru4rec"
    assert facts["searched for"] == "mrr@20, history not filtered, standard ties"
    assert facts["sampler"] == "tpe (startup 10)"
    assert facts["state"] == "paused: the disk is full"
    assert study_facts(searched(budget=5))["state"] == "done"  # 4 complete and 1 pruned
    assert study_facts(searched(budget=6))["state"] == "not done"
    assert facts["floor: co-occurrence"] == "0.5000"
    assert not any("{" in value for value in facts.values())


@pytest.mark.parametrize(
    ("facts", "known"),
    [(DatasetFacts("diginetica"), True), (DatasetFacts("generic"), False), (None, False)],
)
def test_published_numbers_stand_beside_the_very_same_data(
    facts: DatasetFacts | None, known: bool
) -> None:
    text = study_note(searched(dataset=facts))
    expected = "published: for GRU4Rec, on test: recall@20 0.4995, mrr@20 0.1542"
    assert (expected in text) == known
    assert ("published" in text) == known


def record(**more: Any) -> Record:
    meta = {"root": 4, "attempt": 2, "model": EVIL, "epochs": 3}
    found: dict[str, Any] = {
        "id": 5,
        "number": 4,
        "state": "PRUNED",
        "value": 0.25,
        "started": None,
        "ended": None,
        "meta": meta,
        "owner": {"device": "cuda:0", "host": EVIL},
        "curves": {
            "mrr@20": [0.25, 0.125],
            "recall@20": [0.5, 0.25],
            "seconds": [1.0, 3.0],
            "events_per_second": [1000.0, 3000.0],
            "peak_memory": [1 << 30, 2 << 30],
        },
        "end": {"why": "pruned", "message": EVIL},
    }
    return Record(**{**found, **more})


def test_a_trial_says_what_one_wants_to_know_first() -> None:
    text = trial_note(record(), Objective("mrr@20"))
    for row in (
        "| mrr@20 | 0.2500 |",
        "| recall@20 | 0.5000 |",
        "| best epoch | 1 of 2 run |",
        "| events/s | 2,000 |",
        "| seconds per epoch | 2.0 |",
        "| peak memory | 2,048 MiB |",
        "| attempt | 2 |",
    ):
        assert row in text
    waiting = trial_note(record(owner={}, curves={}, end={}, state="WAITING"), Objective("mrr@20"))
    assert "device" not in waiting and "why" not in waiting and "events" not in waiting


def test_a_trial_says_what_its_value_stands_on() -> None:
    curves = {"mrr@20": [0.25], "targets": [900], "unknown": [100], "stderr": [{"mrr@20": 0.01}]}
    text = trial_note(record(curves=curves, end={"epoch": 1}), Objective("mrr@20"))
    assert "| 95% interval | 0.2304, 0.2696 |" in text
    assert "| targets | 900, and 100 left out: training never saw their item |" in text


def test_no_name_is_markup() -> None:
    of_study = study_note(searched(EVIL, data=EVIL, devices=[EVIL], why=EVIL))
    for text in (trial_note(record(), Objective("mrr@20")), of_study):
        for line in text.splitlines():
            bare = re.sub(r"\\.", "", line)  # what is escaped is no markup
            code = "".join(bare.split("`")[1::2])
            bare = "" if line.startswith("    ") else "".join(bare.split("`")[::2])
            assert "<" not in bare and "](" not in bare and not bare.startswith("# z"), line
            assert not code or line.replace("\\`", "").count("`") % 2 == 0
    assert any(line.startswith("    paropt final '`<script>") for line in of_study.splitlines())
