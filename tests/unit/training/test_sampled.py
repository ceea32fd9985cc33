"""The legacy evaluation among 100 candidates: which they are, and ranks among them by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from paropt.cli.main import cli
from paropt.data.dataset import View, open_dataset
from paropt.training.batches import plans
from paropt.training.evaluation.ranking.judging import queries
from paropt.training.evaluation.sampled import DRAWN, drawn, evaluate_sampled
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.saved_model.saved import save_model


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """160 sessions over 300 items, of which each session has at most nine."""
    path = made_up_data(tmp_path_factory.mktemp("data") / "log", items=300, sessions=400)
    return open_dataset(path).view("search")


def batch_of(view: View) -> tuple[Any, plans.QueryBatches]:
    batches = plans.evaluation(view.test, view.n_items, None, 1024)
    return next(queries(batches)), batches


@pytest.mark.parametrize("filter_seen", [True, False])
def test_candidates_are_drawn_once_each_and_never_the_target(view: View, filter_seen: bool) -> None:
    batch, batches = batch_of(view)
    found, there = drawn(batch, batches, view.n_items, filter_seen)
    targets = batch.targets[batch.targets >= 0]
    assert torch.equal(found[:, 0], targets) and bool(there.all())
    met = 0
    for row, (begin, at) in zip(found.tolist(), batch.histories.tolist(), strict=True):
        assert len(set(row)) == 1 + DRAWN and max(row) < view.n_items
        met += len(set(row[1:]) & set(batches.store.items[begin:at].tolist()))
    assert (met == 0) == filter_seen
    again, _ = drawn(batch, batches, view.n_items, filter_seen)
    assert torch.equal(again, found)
    few, there = drawn(batch, batches, 40, filter_seen)
    assert 20 < int(there[0].sum()) <= 40 and int(few.max()) < view.n_items


def test_ranks_and_popularitys_are_those_among_the_candidates(view: View) -> None:
    fit = Fit("markov", {}, view, seed=1)
    list(fit.epochs())
    judged, floor = evaluate_sampled(fit.model, view.test, view.n_items, at=(10,), also=["mrr"])
    support = view.support()
    expected, popular = [], []
    batches = plans.evaluation(view.test, view.n_items, fit.model.max_length, 1024)
    for batch in queries(batches):
        found, _ = drawn(batch, batches, view.n_items, False)
        scores = fit.model.score(batch)
        for row, candidates in enumerate(found.numpy()):
            own, *others = scores[row][candidates].tolist()
            expected.append(1 + sum(other > own for other in others))
            own, *others = support[candidates]
            popular.append(1 + sum(other > own for other in others))
    assert judged.ranks.tolist() == expected
    assert judged.metrics["recall@10"] == np.mean([rank <= 10 for rank in expected])
    assert floor["popularity"]["mrr"] == pytest.approx(np.mean([1 / rank for rank in popular]))


def test_the_verb_says_what_its_numbers_are(view: View, tmp_path: Path) -> None:
    fit = Fit("markov", {}, view, seed=1)
    list(fit.epochs())
    save_model(tmp_path / "saved", fit)
    asked = ["evaluate", str(tmp_path / "saved"), "--data", str(view.dataset.path)]
    asked += ["--candidates", "sampled-100"]
    done = CliRunner().invoke(cli, [*asked, "--filter-seen"])
    assert done.exit_code == 0, done.output
    assert "99 items drawn, none of the history, standard ties" in done.stdout
    assert "a legacy evaluation: its numbers can't be compared" in done.stderr
    assert "popularity" in done.stdout and "co-occurrence" not in done.stdout
    told = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    assert told["candidates"] == "sampled-100" and set(told["floor"]) == {"popularity"}
    other = CliRunner().invoke(cli, [*asked, "--cold-items"])
    assert other.exit_code == 2 and "--candidates sampled-100 is of a dataset" in other.output
