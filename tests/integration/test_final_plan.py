"""Studies that follow a plan, the choice after them, and looks at a test set: a real database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from paropt.data.dataset import open_dataset
from paropt.errors import StudyError
from paropt.results.final import final_choice, final_plan, looks_at_test
from paropt.results.final.final_test import FinalRequest, _plan
from paropt.results.final.looks_at_test import Look
from paropt.results.spend_curve import best_within, points
from paropt.search.space.paramfiles import Paramfile
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.plan import Candidate, FinalPlan
from paropt.search.study.state import StudyEnded
from paropt.search.study.study import Study
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective
from paropt.training.made_up import made_up_data
from paropt.training.registry import declaration

MRR = Objective("mrr@20")

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"n_epochs": 4},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 96, "step": 32},
        "momentum": {"type": "categorical", "choices": [0.0, 0.5]},
    },
    "start": [{"layers": 64}, {"layers": 32, "momentum": 0.5}],
}
ENTRIES = (
    Candidate("candidate 1", "gru4rec", {"layers": 64}, 3, {"trial": 4, "value": 0.5, "epoch": 2}),
    Candidate("control gru4rec", "gru4rec", {}, 3, source="the model's defaults"),
)

Create = Callable[..., Study]


@pytest.fixture
def create(database_url: str) -> Iterator[Create]:
    opened: list[Study] = []

    def create(
        name: str = "shop",
        plan: FinalPlan | None = None,
        budget: int = 4,
        space: dict[str, Any] = SPACE,
    ) -> Study:
        definition = StudyDefinition(
            name,
            space,
            "mrr@20",
            [20],
            "/data",
            "f" * 64,
            sampler={"name": "random"},
            pruner={"name": "none"},
            plan=plan.to_json() if plan else {},
        )
        opened.append(Study.create(database_url, definition, budget=budget))
        return opened[-1]

    yield create
    for study in opened:
        study.close()


def train(study: Study, values: Sequence[float] | None) -> Any:
    """Runs the next trial: these are its epochs' values; None: it fails."""
    trial = study.next_trial({"slot": "s", "threads": 1})
    assert trial is not None
    if values is None:
        trial.fail("error", "boom")
        return trial
    for epoch, value in enumerate(values, 1):
        trial.report(
            EpochReport.from_json({"epoch": epoch, "metrics": {"mrr@20": value}, "seconds": 1.5})
        )
    trial.complete()
    return trial


def ended(study: Study) -> StudyEnded:
    with pytest.raises(StudyEnded) as caught:
        study.next_trial({})
    return caught.value


def test_a_plan_is_trained_in_its_order_and_nothing_else(create: Create) -> None:
    study = create(plan=FinalPlan("old", 1, ENTRIES, (11, 12)))
    trials = [train(study, [0.1, 0.3, 0.2]) for _ in range(4)]
    assert [(t.params, t.seed, t.epochs, t.once) for t in trials] == [
        ({"layers": 64}, 11, 3, False),
        ({}, 11, 3, False),
        ({"layers": 64}, 12, 3, False),
        ({}, 12, 3, False),
    ]
    assert ended(study).reason == "budget"
    assert study.counts()["complete"] == 4


def test_a_failed_job_is_not_replaced_but_may_be_tried_again(create: Create) -> None:
    study = create(plan=FinalPlan("old", 1, ENTRIES[:1], (11, 12)))
    train(study, None)
    train(study, [0.2])
    assert ended(study).reason == "budget"
    assert final_choice.judge(study)[0].failures == ("seed 11: boom",)
    assert study.retry_failed() == 1
    again = train(study, [0.4])
    assert (again.seed, again.root, again.attempt) == (11, 0, 1)
    assert ended(study).reason == "budget"
    assert study.retry_failed() == 0
    (judged,) = final_choice.judge(study)
    assert sorted(judged.values) == [0.2, 0.4] and not judged.failures


def test_another_plan_under_the_same_name_is_refused(create: Create) -> None:
    create(plan=FinalPlan("old", 1, ENTRIES, (11, 12)))
    create(plan=FinalPlan("old", 1, ENTRIES, (11, 12)))
    with pytest.raises(StudyError, match=r"another plan: seeds is \[11, 12\] there and \[11, 13\]"):
        create(plan=FinalPlan("old", 1, ENTRIES, (11, 13)))


def test_the_epoch_is_the_mean_curves_best_that_every_seed_reached(create: Create) -> None:
    study = create(plan=FinalPlan("old", 1, ENTRIES[:1], (11, 12)))
    train(study, [0.1, 0.5, 0.2, 0.9])
    train(study, [0.3, 0.2, 0.6])
    (judged,) = final_choice.judge(study)
    # means 0.2, 0.35, 0.4; each seed's own best are other epochs
    assert (judged.epoch, judged.values) == (3, (0.2, 0.6))
    assert judged.curve == pytest.approx((0.2, 0.35, 0.4))
    assert judged.seconds == 7 * 1.5


def test_the_best_mean_is_chosen_with_the_control_of_its_model(create: Create) -> None:
    entries = (
        *ENTRIES,
        Candidate("candidate 2", "sasrec", {}, 3, {"trial": 1, "value": 0.4, "epoch": 1}),
        Candidate("control sasrec", "sasrec", {"blocks": 1}, 3, source="the model's defaults"),
    )
    study = create(plan=FinalPlan("old", 1, entries, (11, 12)))
    for value in (0.9, 0.1, 0.5, 0.2, 0.0, 0.1, 0.5, 0.2):
        train(study, [value])
    chosen, control = final_choice.choose(final_choice.judge(study), MRR)
    assert (chosen.entry.name, control.entry.name) == ("candidate 2", "control sasrec")
    plan = FinalPlan("old", 1, entries, (11, 12))
    second = final_plan.test_plan(plan, chosen, control)
    assert (plan.view, second.view) == ("search", "full") and "without_valid" not in plan.to_json()
    without = final_plan.test_plan(replace(plan, without_valid=True), chosen, control)
    assert without.view == "without-valid" and FinalPlan.from_json(without.to_json()) == without
    assert [(e.name, e.epochs) for e in second.entries] == [
        ("candidate 2", 1),
        ("control sasrec", 1),
    ]
    assert second.once and all(job.once for job in second.jobs())


def test_who_has_a_failed_seed_is_not_chosen(create: Create) -> None:
    study = create(plan=FinalPlan("old", 1, ENTRIES, (11, 12)))
    for values in ([0.9], [0.1], None, [0.1]):
        train(study, values)
    with pytest.raises(StudyError, match=r"no candidate could be trained with every seed.*boom"):
        final_choice.choose(final_choice.judge(study), MRR)


def test_spending_counts_every_trial_in_the_order_of_their_ends(create: Create) -> None:
    study = create()
    late = study.next_trial({})
    train(study, [0.1, 0.4])
    train(study, None)
    assert late is not None
    late.report(EpochReport.from_json({"epoch": 1, "metrics": {"mrr@20": 0.3}, "seconds": 10.0}))
    late.prune("weak")
    train(study, [0.5])
    found = points(study)
    assert [(p.trial, p.spent, p.value, p.best) for p in found] == [
        (1, 3.0, 0.4, 0.25),  # the mean of its epochs is what it is worth
        (2, 3.0, None, 0.25),
        (0, 13.0, 0.3, 0.3),
        (3, 14.5, 0.5, 0.5),
    ]
    assert best_within(found, 2.9, MRR) is None
    assert [best_within(found, spend, MRR) for spend in (3.0, 14.4, 14.5)] == [
        found[0],
        found[2],
        found[3],
    ]


# -- planning -----------------------------------------------------------------------------------


def test_a_plan_has_the_best_with_fresh_seeds_and_a_control(create: Create) -> None:
    study = create(budget=5)
    with pytest.raises(StudyError, match="no trial with a value"):
        final_plan.make_plan(study, 1)
    trials = [train(study, [value]) for value in (0.3, 0.1, 0.5, 0.4, 0.2)]
    plan = final_plan.make_plan(study, 1, top=2, seeds=3)
    first, second, control = plan.entries
    assert (first.name, first.params, first.epochs) == ("candidate 1", trials[2].params, 4)
    assert first.found == {"trial": 2, "value": 0.5, "epoch": 1}
    assert second.params == trials[3].params
    # the first start point leaves the momentum to be drawn, so it is no configuration
    assert control.source == "start point 2 of the space"
    assert control.params == {"n_epochs": 4, "layers": 32, "momentum": 0.5}
    assert not set(plan.seeds) & {trial.seed for trial in trials} and len(set(plan.seeds)) == 3
    assert final_plan.make_plan(study, 1, top=2, seeds=3) == plan
    assert not set(final_plan.make_plan(study, 2).seeds) & set(plan.seeds)
    assert FinalPlan.from_json(plan.to_json()) == plan


def test_a_point_that_says_whose_it_is_is_the_control(create: Create) -> None:
    published = {"from": "a shop's best", "layers": 64, "momentum": 0}
    study = create(budget=1, space={**SPACE, "start": [*SPACE["start"], published]})
    train(study, [0.3])
    control = final_plan.make_plan(study, 1).entries[-1]
    assert control.source == "start point 3 of the space, from a shop's best"
    assert control.params == {"n_epochs": 4, "layers": 64, "momentum": 0}


def test_what_is_candidate_and_control_is_trained_once(create: Create) -> None:
    study = create(budget=2)
    for _ in range(2):
        train(study, [0.3])
    plan = final_plan.make_plan(study, 1, top=5)
    assert [bool(e.source) for e in plan.entries] == [False, True]
    assert plan.entries[1].found["trial"] == 1
    # said or left out, a default is the same
    given = Paramfile("gru4rec", {"n_epochs": 4, "layers": 32, "momentum": 0.5, "adapt": "adagrad"})
    plan = final_plan.make_plan(study, 1, top=5, control=("paramfile x", given))
    assert [e.source for e in plan.entries] == ["", "paramfile x"]


def test_the_defaults_as_a_control_keep_what_the_space_fixes(
    create: Create, tmp_path: Path
) -> None:
    """Whose own space reads a column by another name than the model's default has a control, too;
    what data lack is said before anything is trained."""
    space = {
        "model": "sasrec",
        "fixed": {"n_epochs": 4, "features": "brand", "max_length": 6},
        "search": {
            "dim": {"type": "categorical", "choices": [8, 16]},
            "loss": {"type": "categorical", "choices": ["cross-entropy", "bce"]},
            "n_sample": {"type": "categorical", "choices": [4], "when": {"loss": "bce"}},
        },
    }
    study = create(budget=1, space=space)
    train(study, [0.3])
    plan = final_plan.make_plan(study, 1)
    control = plan.entries[-1]
    assert control.source == "the model's defaults, with the space's features and max_length"
    default = {name: param.default for name, param in declaration("sasrec").items()}
    assert control.params == {
        "n_epochs": 4, "features": "brand", "max_length": 6, "dim": default["dim"],
        "loss": default["loss"],
    }  # fmt: skip
    view = open_dataset(made_up_data(tmp_path / "data")).view("search")
    with pytest.raises(StudyError, match=r"candidate 1 can't be trained on these.*feature 'brand'"):
        final_plan.check_data(plan, view)
    alone = replace(plan, entries=(control,))
    with pytest.raises(StudyError, match=r"control sasrec .*name another with --control FILE"):
        final_plan.check_data(alone, view)
    final_plan.check_data(replace(plan, entries=(replace(control, params={}),)), view)


def test_something_else_is_asked_for_by_again_also_while_a_test_is_under_way(
    create: Create,
) -> None:
    study = create(budget=2)
    for value in (0.3, 0.4):
        train(study, [value])
    request = FinalRequest("shop", top=1, seeds=2)
    plan = _plan(request, study)
    assert (plan.number, plan.again) == (1, False)
    create("shop.final-1.valid", plan=plan)
    assert _plan(request, study) == plan
    assert _plan(FinalRequest("shop", again=True), study) == replace(plan, again=True)
    other = FinalRequest("shop", top=2, seeds=2)
    with pytest.raises(StudyError, match=r"final test 1 .* has --top 1, not 2; .*--again for"):
        _plan(other, study)
    with pytest.raises(StudyError, match=r"has the rules .*standard ties, not .*conservative"):
        _plan(FinalRequest("shop", ties="conservative"), study)
    second = _plan(replace(other, again=True), study)
    found = sum(bool(entry.found) for entry in second.entries)
    assert (second.number, second.again, found) == (2, True, 2)


# -- looks --------------------------------------------------------------------------------------


def look(study: Study, plan: FinalPlan, data: str = "f" * 64) -> list[tuple[str, int]]:
    with study.transaction() as connection:
        return [(x.study, x.number) for x in looks_at_test.take_look(connection, data, plan)]


def test_looks_are_counted_once_per_final_test_and_per_data(create: Create) -> None:
    study, plan = create(), FinalPlan("shop", 1, ENTRIES, (1,))
    assert look(study, plan) == [("shop", 1)]
    assert look(study, plan) == [("shop", 1)]
    other = FinalPlan("other", 1, ENTRIES, (1,))
    with pytest.raises(StudyError, match=r"looked at once \(first by 'shop'.*--again"):
        look(study, other)
    assert look(study, other, "0" * 64) == [("other", 1)]
    again = replace(other, again=True)
    assert look(study, again) == [("shop", 1), ("other", 1)]
    assert look(study, again) == [("shop", 1), ("other", 1)]
    with pytest.raises(StudyError, match="looked at 2 times"):
        look(study, FinalPlan("shop", 2, ENTRIES, (1,)))


def test_a_training_that_was_judged_on_test_counts(create: Create) -> None:
    study, plan, data = create(), FinalPlan("shop", 1, ENTRIES, (1,)), "f" * 64
    here = [Look("paropt train, sasrec", 7, datetime(2026, 1, 2, tzinfo=UTC))]
    for _ in range(2):
        with study.transaction() as connection:
            looks_at_test.count_looks(connection, data, here)
    with pytest.raises(StudyError, match=r"once \(first by 'paropt train, sasrec' on 2026-01-02"):
        look(study, plan)
    again = replace(plan, again=True)
    assert look(study, again) == [("paropt train, sasrec", 7), ("shop", 1)]


def test_of_those_who_look_at_once_one_is_first(create: Create, database_url: str) -> None:
    study = create()
    start = threading.Barrier(6)
    found: list[Any] = []

    def run(number: int) -> None:
        mine = Study.load(database_url, study.name)
        start.wait(60)
        try:
            found.append(look(mine, FinalPlan(f"shop{number}", 1, ENTRIES, (1,))))
        except StudyError:
            found.append(None)
        finally:
            mine.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6 and found.count(None) == 5
