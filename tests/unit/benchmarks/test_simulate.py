"""The simulator's arithmetic: what answers between rows, what is counted, when something is cut."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simulate as simulator
from portfolio import Portfolios
from replay import Job, Ours, Trace, Twice, World, run
from simulate import Outcome, over_logs, regret, simulate, spend_to
from strategies import Strategy
from surrogate import Surrogate, place, read_table

from paropt.search.space.file import from_json, read_space
from paropt.search.space.shipped import find_space
from paropt.search.strategy.epoch_costs import sizes_of
from paropt.search.strategy.sampling import uniformly
from paropt.training.evaluation import objective
from paropt.training.evaluation.objective import Objective

SPACE, EPOCHS = "gru4rec_xe_shared", 4
ROWS = 40


def value(config: dict[str, Any], epoch: int) -> float:
    """A smooth curve: best at layers 256 and a learning rate of .1."""
    off = ((config["layers"] - 256) / 448) ** 2 + 4 * ((config["learning_rate"] - 0.1) / 0.24) ** 2
    return 0.3 * math.exp(-off) * (1 - math.exp(-epoch))


@pytest.fixture(scope="module")
def table_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("curves") / "made_up.csv"
    found = find_space(SPACE)
    assert found is not None
    space = read_space(found, ["n_sample=512"])
    rng = random.Random(1)
    configs = [space.walk(uniformly(rng)) for _ in range(ROWS)]
    names = [p.label for p in space.searched]
    made = {"set": "made up", "space": SPACE, "fixed": "n_sample=512", "metric": "mrr@20"}
    with path.open("w", newline="") as file:
        file.write(f"# {json.dumps(made)}\n")
        writer = csv.writer(file)
        writer.writerow([*names, "seed", "seconds", *(f"epoch {k + 1}" for k in range(EPOCHS))])
        for seed, shift, config in [
            *((42, 0.0, config) for config in configs),
            (43, 0.01, configs[0]),
            (44, -0.01, configs[0]),
        ]:
            curve = [value(config, k + 1) + shift for k in range(EPOCHS)]
            writer.writerow([*(config[n] for n in names), seed, config["layers"] / 100, *curve])
    return path


@pytest.fixture(scope="module")
def surrogate(table_file: Path) -> Surrogate:
    return simulator.surrogate(table_file)


def test_the_table_is_read_with_the_noise_of_its_seeds(table_file: Path) -> None:
    table = read_table(table_file)
    assert table.x.shape == (ROWS, 7)
    assert table.curves.shape == (ROWS, EPOCHS)
    assert table.x.min() >= 0
    assert table.x.max() <= 1
    # three trainings of one configuration, .01 apart: their deviations, corrected for three
    expected = np.array([0.0, 0.01, -0.01]) * math.sqrt(3 / 2)
    assert table.noise == pytest.approx(np.repeat(expected[:, None], EPOCHS, axis=1), abs=1e-9)


def test_what_it_says_between_rows_is_near_the_truth(surrogate: Surrogate) -> None:
    space, rng = surrogate.table.space, random.Random(2)
    configs = [space.walk(uniformly(rng)) for _ in range(50)]
    apart = [abs(surrogate.curve(c)[-1] - value(c, EPOCHS)) for c in configs]
    assert float(np.median(apart)) < 0.01
    costs = [surrogate.cost(c) / c["layers"] * 100 for c in configs]
    assert float(np.median(costs)) == pytest.approx(1, abs=0.05)
    assert surrogate.best == pytest.approx(0.3 * (1 - math.exp(-EPOCHS)), abs=0.015)
    assert surrogate.best >= max(surrogate.curve(c).max() for c in surrogate.table.configs)


def test_where_a_configuration_lies() -> None:
    """Numbers in their range, by logarithm where they are drawn so; choices that are numbers by
    their order, others each in a column; what isn't in force in the middle."""
    source = {
        "model": "sasrec",
        "search": {
            "dropout": {"type": "float", "low": 0.1, "high": 0.5},
            "learning_rate": {"type": "float", "low": 0.001, "high": 0.1, "log": True},
            "dim": {"type": "categorical", "choices": [32, 64, 128]},
            "loss": {"type": "categorical", "choices": ["cross-entropy", "gbce"]},
            "gbce_t": {"type": "float", "low": 0, "high": 1, "when": {"loss": "gbce"}},
        },
    }
    space = from_json(source)
    config = {"dropout": 0.2, "learning_rate": 0.01, "dim": 64, "loss": "cross-entropy"}
    assert place(space, config) == pytest.approx([0.25, 0.5, 0.5, 1, 0, 0.5])
    # as work: logarithms of what is above zero, and whether the second choice is made
    assert sizes_of(space, config) == pytest.approx([math.log(v) for v in (0.2, 0.01, 64)] + [0])


class Known:
    """As much of a table as portfolios need: five rows of an epoch, the first of them published."""

    def __init__(self, worth: list[float], seconds: list[float] | None = None) -> None:
        self.made = {"space": "some"}
        self.numbers = list(range(5))
        self.configs = [{"row": row} for row in self.numbers]
        self.curves = np.array(worth)[:, None]
        self.seconds = np.array(seconds or [1.0] * 5)
        self.space = SimpleNamespace(models=["gru4rec"], start=[{}], start_from=["a shop"])


def test_a_portfolio_is_chosen_on_the_other_logs() -> None:
    """On a and b row 1 is nearest to the best on average ((0 + 20) / 2 %), then row 2 is what b
    lacks; c, which knows better, isn't asked. Rows published for a log are no candidates there."""
    known: Any = {
        "a": Known([0.5, 1.0, 0.5, 0.9, 0.1]),
        "b": Known([0.5, 0.8, 1.0, 0.6, 0.1]),
        "c": Known([0.1, 0.1, 0.1, 0.1, 1.0]),
        "retailrocket": Known([1.0, 0.1, 0.1, 0.1, 0.5]),
    }
    found = Portfolios({log: known[log] for log in "abc"})
    assert found.chosen(2, without="c", by="mean") == [1, 2]
    assert found.chosen(9, without="c", by="mean") == [1, 2], "no other brings anything"
    assert found.after("c", [1, 2, 4]) == pytest.approx([90, 90, 0])
    assert Portfolios({log: known[log] for log in ("a", "retailrocket")}).chosen(
        1, "a", "mean"
    ) == [0]
    with_published = Portfolios({"retailrocket": known["retailrocket"], "c": known["c"]})
    assert with_published.chosen(1, "c", "mean") == [0]
    assert with_published.chosen(5, "retailrocket", "mean") == [4]
    site = {"ml1m": known["a"], "ml100k": known["b"], "c": known["c"]}
    assert Portfolios(site).chosen(1, "ml100k", "mean") == [4], "its sibling isn't asked either"
    assert Portfolios(site, {4: "ml1m"}).chosen(1, "ml100k", "mean") != [4], "nor what it proposed"
    proposed = Portfolios({log: known[log] for log in "abc"}, {1: "c", 2: "b"})
    assert proposed.chosen(2, without="c", by="mean") == [2, 3], "c itself has proposed row 1"
    assert proposed.chosen(2, without="b", by="mean") == [1, 4], "a candidate for b"


def test_a_portfolio_by_rate_begins_with_what_is_cheap() -> None:
    """From 100 % row 3 falls to 60 in a tenth of an average training; then row 1 to nothing."""
    known: Any = {"a": Known([0.5, 1.0, 0.9, 0.4, 0.1], [10.0, 20.0, 20.0, 1.0, 0.4])}
    assert Portfolios(known).chosen(5, by="rate") == [3, 1]


def test_a_portfolio_by_rate_leaves_no_log_far_off() -> None:
    """Row 1 leaves 10 and 50 %, 30 on average, row 2 twice 35: squares 1,300 and 1,225."""
    known: Any = {
        "a": Known([0.1, 0.9, 0.65, 1.0, 0.0]),
        "b": Known([0.1, 0.5, 0.65, 0.0, 1.0]),
    }
    assert Portfolios(known).chosen(1, by="rate") == [2]
    assert Portfolios(known).chosen(1, by="mean") == [1]


def test_random_rows_are_averaged_over_all_draws() -> None:
    """Of regrets 0, 50, 90 and 90 without the published row: one row 57.5; two rows: three of six
    pairs have the 0, two more the 50, one is 90."""
    known: Any = {"a": Known([0.7, 1.0, 0.5, 0.1, 0.1])}
    found = Portfolios(known).at_random("a", 2)
    assert found == pytest.approx([57.5, (3 * 0 + 2 * 50 + 90) / 6])


def test_leaving_a_row_out_is_what_it_says(surrogate: Surrogate) -> None:
    """The shortcut against solving again without the row."""
    process = surrogate.curves
    for row in (0, 17):
        kept = np.arange(ROWS) != row
        z = (-np.log(surrogate.top - surrogate.table.curves) - process.mean) / process.scale
        gram = process._kernel(process.x)
        noisy = gram[np.ix_(kept, kept)] + process.noise * np.eye(ROWS - 1)
        without = gram[row, kept] @ np.linalg.solve(noisy, z[kept]) * process.scale + process.mean
        assert process.left_out()[row] == pytest.approx(without, rel=1e-6)


class Scripted:
    """Jobs with given curves and costs; what is below the limit after an epoch is cut."""

    def __init__(self, jobs: list[tuple[list[float], float]], limit: float) -> None:
        self.jobs, self.limit = jobs, limit
        self.ended: list[tuple[int, bool, int]] = []

    def ask(self, world: World, index: int) -> Job:
        curve, cost = self.jobs[index]
        return Job(curve, cost, max(curve), index, {})

    def worth(self, job: Job) -> float:
        return max(job.seen)

    def prune(self, job: Job) -> bool:
        return job.seen[-1] < self.limit

    def end(self, job: Job, pruned: bool) -> None:
        self.ended.append((job.handle, pruned, len(job.seen)))


def test_every_epoch_is_paid_for_and_workers_take_turns_by_their_time(
    surrogate: Surrogate,
) -> None:
    jobs = [
        ([0.1, 0.2, 0.3, 0.4], 1.0),  # on the first worker, with an epoch to go at the end
        ([0.05, 0.9, 0.9, 0.9], 0.5),  # on the second, cut after its first epoch at .5
        ([0.2, 0.25, 0.2, 0.2], 0.5),  # on the second from .5 until 2.5
        ([0.5] * 4, 1.0),
        ([0.5] * 4, 1.0),
    ]
    search = Scripted(jobs, limit=0.1)
    trace = run(search, World(surrogate, 1), 6.5, 2)
    assert search.ended == [(1, True, 1), (2, False, 4)]
    assert trace.spent == pytest.approx([0.5, 1.5, 2.0, 2.5, 3.5, 4.0, 4.5, 5.5, 6.5])
    # what was thought best after each: by what was seen, told by its noiseless best
    assert trace.value == [0.9, 0.4, 0.25, 0.25, 0.25, 0.25, 0.25, 0.4, 0.5]
    assert (trace.trials, trace.epochs, trace.first_epochs) == (2, 9, 1)
    assert trace.at(0.4) == 0.0
    assert trace.at(1.9) == 0.4


def test_the_least_spend_is_the_one_from_which_on_it_holds(surrogate: Surrogate) -> None:
    def trace(*steps: tuple[float, float]) -> Trace:
        values = [surrogate.best * (1 - percent / 100) for _, percent in steps]
        return Trace([spent for spent, _ in steps], values)

    traces = [trace((1, 5.0), (2, 1.0), (3, 4.0), (4, 1.0)) for _ in range(3)]
    assert regret(surrogate, traces[0].at(2)) == pytest.approx(1.0)
    assert spend_to(surrogate, traces, 2.0, 10) == 4.0  # not 2: at 3 it was worse again
    assert spend_to(surrogate, traces, 0.5, 10) == math.inf


def test_the_same_seed_gives_the_same_search(table_file: Path, surrogate: Surrogate) -> None:
    way = Strategy(pruner="asha", start="space")
    first, again, other = (simulate(table_file, way, seed, 6, 2, None) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.epochs < 4 * first.trials + 8  # something was cut
    assert 0 < max(first.value) <= surrogate.best + 1e-9


def test_ours_is_told_what_a_study_would_be_told(surrogate: Surrogate) -> None:
    search = Ours(surrogate.table.space, Strategy(pruner="median", start="space"), 1)
    job = search.ask(World(surrogate, 1), 0)
    first = dict(surrogate.table.space.start[0])
    record = search.history.records[0]
    assert record.meta["searched"] == first
    job.seen = [0.3, 0.2]
    assert not search.prune(job)  # nothing has ended yet
    search.end(job, pruned=True)
    record = search.history.records[0]
    assert (record.outcome, record.value, record.curve(Objective("mrr@20"))) == (
        "pruned",
        0.3,
        [0.3, 0.2],
    )


@pytest.mark.parametrize(("steady", "worth"), [(1, 0.5), (2, 0.45), (3, 0.4)])
def test_a_strategy_says_by_how_many_epochs_it_compares(
    table_file: Path, surrogate: Surrogate, steady: int, worth: float
) -> None:
    way = Strategy(steady=steady)
    simulate(table_file, way, 1, 1, 1, None)  # where it takes hold, for this process
    try:
        job = Job([], 1.0, 0.0, 0, {}, seen=[0.1, 0.4, 0.3, 0.5])
        assert Ours(surrogate.table.space, way, 1).worth(job) == pytest.approx(worth)
    finally:
        objective.STEADY = Strategy().steady


def test_a_trial_that_was_cut_goes_on_when_it_would_not_be_cut_today(surrogate: Surrogate) -> None:
    """The first rung of four epochs is after the first, and half is kept."""
    way = Strategy("random", pruner={"name": "asha", "min_epochs": 1}, promote=True)
    search, world = Ours(surrogate.table.space, way, 1), World(surrogate, 1)

    def trial(index: int, value: float) -> tuple[Job, bool]:
        job = search.ask(world, index)
        job.seen.append(value)
        cut = search.prune(job)
        search.end(job, pruned=cut)
        return job, cut

    assert [trial(0, 0.3)[1], trial(1, 0.2)[1]] == [False, True]
    assert search._promoted() is None  # the best of two is kept, and this is not it
    _, cut = trial(2, 0.1)
    assert cut and search._promoted() is None
    _, cut = trial(3, 0.1)
    assert cut
    job = search.ask(world, 4)  # of four, two are kept
    assert (job.handle, job.seen, search.history.records[1].state) == (1, [0.2], "RUNNING")
    assert search._promoted() is None
    assert 4 not in search.history.records  # nothing new was drawn


def test_of_two_the_one_that_is_better_by_two_seeds_is_chosen(surrogate: Surrogate) -> None:
    again = {"a": [0.1, 0.1, 0.1], "b": [0.3, 0.3, 0.3]}
    world = SimpleNamespace(train=lambda config, index: (again[config["name"]], 0.5, 0.0))
    twice = Twice(world)
    first = Job([0.0] * 3, 0.5, 0.7, 0, {"name": "a"})
    second = Job([0.0] * 3, 1.0, 0.8, 1, {"name": "b"})
    assert twice.choose(first, 0.4) == (1.5, 0.7)  # three epochs of the only one
    assert twice.choose(second, 0.3) == (4.5, 0.8)  # (.3 + .3) / 2 against (.4 + .1) / 2
    third = Job([0.0] * 3, 1.0, 0.9, 2, {"name": "b"})
    assert twice.choose(third, 0.2) == (4.5, 0.8)  # the third is not among the two


def test_over_tables_the_median_and_the_worst_of_their_medians_count() -> None:
    def of(name: str, at_five: list[float], to_half: float, to_whole: float) -> Outcome:
        return Outcome(name, {5: at_five}, 7, to_half, to_whole)

    found = {
        Path("a"): [of("official", [3.0, 9.0, 4.0], 4, 8), of("ours", [1.0], 2, 6)],
        Path("b"): [of("official", [2.0], 5, 9), of("ours", [8.0], 3, math.inf)],
        Path("c"): [of("official", [6.0], 5, 10), of("ours", [5.0], 1, 2)],
    }
    lines = list(over_logs(found, budget=10))
    assert lines[0] == "| | at 5 | at 10 | to official's at 5 | to its at 10 |"
    assert lines[2] == "| official | 4.00, worst 6.00 | – | 5.0, worst 5.0 | 9.0, worst 10.0 |"
    assert lines[3] == "| ours | 5.00, worst 8.00 | – | 2.0, worst 3.0 | 6.0, worst – |"
    row = found[Path("b")][1].row([5, 10], budget=10)
    assert row == "| ours | 8.00 (8.00…8.00) | – | 7 | 3.0 | – | – |"
