"""Definitions: stored, read again, and compared with both values named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from paropt.errors import StudyError
from paropt.search.study import study
from paropt.search.study.definition import StudyDefinition
from paropt.storage import trial_rows

SPACE = {"model": "gru4rec", "search": {"layers": {"type": "int", "low": 32, "high": 96}}}
RECORDED = StudyDefinition(
    name="shop", space=SPACE, metric="mrr@20", at=[20], data_path="/data", fingerprint="aaa",
    seed=42, sampler={"name": "tpe"}, pruner={"name": "none"},
)  # fmt: skip


STORED = json.loads(json.dumps(RECORDED.to_json()))


def test_round_trip() -> None:
    stored = json.loads(json.dumps(RECORDED.to_json()))
    assert StudyDefinition.from_json(stored) == RECORDED
    assert StudyDefinition.from_json({**stored, "of_a_later_version": 1}) == RECORDED


def test_what_changes_no_number_may_differ() -> None:
    elsewhere = replace(
        RECORDED, data_path="/other", versions={"torch": "9"}, sampler={}, pruner={}, seed=None,
        space={**SPACE, "data": "x", "start": [{"layers": 64}]},
    )  # fmt: skip
    assert elsewhere.joined_to(RECORDED) is RECORDED


def test_options_that_are_not_said_are_as_the_study_has_them() -> None:
    recorded = replace(RECORDED, pruner={"name": "asha", "factor": 3, "still": 4})
    for said in ({"name": "asha"}, {"name": "asha", "factor": 3}):
        assert replace(RECORDED, pruner=said).joined_to(recorded) is recorded
    with pytest.raises(StudyError, match=r"factor.: 3, .still.: 4}, not .*2}; leave it out"):
        replace(RECORDED, pruner={"name": "asha", "factor": 2}).joined_to(recorded)


WIDER = {"model": "gru4rec", "search": {"layers": {"type": "int", "low": 32, "high": 128}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "recall@20"}, "has the metric 'mrr@20', not 'recall@20'"),
        ({"fingerprint": "bbb"}, "has the data fingerprint 'aaa', not 'bbb'"),
        ({"semantics": 2}, "training semantics 1, not 2"),
        ({"view": "full"}, "'search', not 'full'"),
        ({"seed": 1}, "has the seed 42, not 1"),
        ({"sampler": {"name": "random"}}, '{"name": "tpe"}, not {"name": "random"}'),
        ({"space": WIDER}, "search.layers.high is 96 there and 128 here"),
        ({"space": {**SPACE, "fixed": {"loss": "x"}}}, "fixed is missing there"),
        ({"space": {"model": "gru4rec"}}, "search is {"),
    ],
)
def test_what_changes_numbers_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError) as caught:
        replace(RECORDED, **change).joined_to(RECORDED)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "not made by paropt"),
        ({"format": 99}, "of format 99, and this paropt reads up to 4"),
        ({"format": 1, "name": "x"}, "damaged: it has no 'space'"),
        ({**STORED, "sampler": 5}, "it.sampler is 5, not an object"),
        ({**STORED, "metric": 3}, "it.metric is 3, not a name"),
        ({**STORED, "heartbeat": "x"}, "it.heartbeat is 'x', not a number"),
        ({**STORED, "heartbeat": float("nan")}, "it.heartbeat is nan, not a number"),
        ({**STORED, "at": {}}, "it.at is {}, not a list"),
        ({**STORED, "at": [20, "x"]}, r"it.at\[1\] is 'x', not an integer"),
        ({**STORED, "seed": True}, "it.seed is True, not an integer"),
        ({**STORED, "begin": {"path": "x"}}, "it.begin has no 'model'"),
        ({**STORED, "plan": {"of": "x"}}, "it.plan has no 'number'"),
        ({**STORED, "space": "\n" * 99}, r"it.space is '(\\n)+…, not an object"),
        ({"format": True}, "not made by paropt"),
        ({**STORED, "constraints": ["latency_ms<2"]}, "damaged: 'latency_ms<2' is no limit"),
    ],
)
def test_other_definitions_are_refused(stored: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        StudyDefinition.from_json(stored)
    assert "\n" not in str(caught.value)


def test_the_model_that_trials_begin_with_is_known_by_its_digest() -> None:
    begun = replace(RECORDED, begin={"model": "gru4rec", "path": "/m", "digest": "d" * 64})
    moved = replace(begun, begin={**begun.begin, "path": "/elsewhere"})

    assert RECORDED.to_json()["format"] == 2  # as earlier versions read it
    assert begun.to_json()["format"] == 3
    assert StudyDefinition.from_json(json.loads(json.dumps(begun.to_json()))) == begun
    assert moved.joined_to(begun) is begun
    kept = replace(begun, begin={**begun.begin, "optimiser": "f" * 64})
    assert kept.to_json()["format"] == 4
    for ours, theirs, message in (
        (RECORDED, begun, "begins with /m, whose weights have the digest dddddddddddd; say so"),
        (begun, RECORDED, "begins with no saved model; leave --from out"),
        (replace(begun, begin={**begun.begin, "digest": "e" * 64}), begun, "not eeeeeeeeeeee;"),
        (begun, kept, "what the model's optimiser had gathered; say so with --keep-optimiser"),
        (kept, begun, "begins with a new optimiser; leave --keep-optimiser out"),
    ):
        with pytest.raises(StudyError, match=message):
            ours.joined_to(theirs)


def test_a_part_of_a_final_test_has_no_front() -> None:
    asked = replace(RECORDED, also=["coverage@20", "latency_ms"])
    assert asked.beside == {"coverage@20": "maximize", "latency_ms": "minimize"}
    part = replace(asked, plan={"of": "shop"})
    assert part.beside == {} and part.recorded == ["coverage@20", "latency_ms"]


@pytest.mark.parametrize(
    ("options", "cost"),
    [
        ({}, 0),
        ({"startup": 10, "candidates": 24}, 0),
        ({"cheapest": 1}, 0),
        ({"cheapest": 3}, 1),
        ({"cost": 1}, 1),
    ],
)
def test_studies_that_did_not_ask_what_an_epoch_costs_do_not_begin_to(
    options: dict[str, int], cost: int
) -> None:
    recorded = replace(RECORDED, sampler={"name": "tpe", **options}).to_json()
    attrs = trial_rows.StudyAttributes({trial_rows.DEFINITION: json.dumps(recorded)})
    found = study._as_recorded(attrs, "shop")
    assert found.sampler == {"name": "tpe", "startup": 10, "candidates": 24, "cost": cost}
