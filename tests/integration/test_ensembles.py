"""Several saved models as one: the mean of their standardised scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paropt.data.dataset import Dataset
from paropt.data.prepare import prepare_demo
from paropt.errors import DataError
from paropt.results.final.seeds_together import Judging, together
from paropt.training.batches.plans import evaluation
from paropt.training.evaluation.bootstrap import Sample
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.ranking.judging import ROWS, evaluate
from paropt.training.saved_model.ensemble import VectorEnsemble, load_models
from paropt.training.saved_model.saved import SavedModel, load_model
from paropt.training.train import train
from paropt.training.train_request import TrainRequest

Cli = Callable[..., tuple[int, str, str]]
SASREC = {"dim": 16, "n_epochs": 3, "max_length": 20, "batch_size": 64}
GRU = {"layers": (16,), "n_epochs": 1, "loss": "cross-entropy", "n_sample": 64}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare_demo(tmp_path_factory.mktemp("data") / "demo")


@pytest.fixture(scope="module")
def models(demo: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of SASRec, the first with its epochs 2 and 3; and a GRU4Rec."""
    folder, said = tmp_path_factory.mktemp("models"), list[str]()
    sasrec = TrainRequest("sasrec", SASREC, threads=1)
    train(sasrec, demo.path, save=folder / "one", keep_last=2, note=said.append)
    assert said[-1] == f"the last 2 epochs: {folder / 'one-epoch-2'}, {folder / 'one-epoch-3'}"
    train(replace(sasrec, seed=7, epochs=1), demo.path, save=folder / "two")
    train(replace(sasrec, split="full", epochs=1), demo.path, save=folder / "full")
    train(TrainRequest("gru4rec", GRU, threads=1), demo.path, save=folder / "gru")
    assert not (folder / "one-epoch-1").exists()
    return folder


@pytest.fixture
def saved(models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(models)
    return models


def scores(saved: SavedModel, demo: Dataset) -> torch.Tensor:
    """Every item's score for the first targets, from vectors and table."""
    model = saved.model
    view = demo.view("search")
    batches = evaluation(view.test, view.n_items, model.max_length, ROWS, model.device)
    with torch.no_grad():
        return model.score(next(iter(batches)))


def test_an_ensemble_is_the_mean_of_standardised_scores(
    saved: Path, demo: Dataset, cli: Cli
) -> None:
    one, two, three = (load_model(saved / name) for name in ("one", "two", "one-epoch-2"))
    assert torch.equal(scores(load_model(saved / "one-epoch-3"), demo), scores(one, demo))
    together = load_models([saved / "one", saved / "two", saved / "one-epoch-2"])
    assert isinstance(together.model, VectorEnsemble)
    parts = [scores(model, demo).double() for model in (one, two, three)]
    expected = sum(
        (p - p.mean(1, keepdim=True)) / p.std(1, correction=0, keepdim=True) for p in parts
    )
    found = scores(together, demo).double()
    found = found - found.mean(1, keepdim=True)
    assert torch.allclose(found, torch.as_tensor(expected), atol=2e-4)
    view = demo.view("search")
    alone = evaluate(one.model, view.test, view.n_items)
    asked = ("--data", demo.path, "--with", "two", "--with", "one-epoch-2", "--json")
    code, out, err = cli("evaluate", "one", *asked)
    assert code == 0 and "the mean of 3 models' standardised scores" in err
    mrr = json.loads(out)["metrics"]["mrr@20"]
    assert mrr == pytest.approx(
        evaluate(together.model, view.test, view.n_items).metrics["mrr@20"], abs=1e-9
    )
    assert mrr != alone.metrics["mrr@20"]


def test_a_model_with_itself_ranks_as_it_does_alone(saved: Path, demo: Dataset, cli: Cli) -> None:
    view = demo.view("search")
    for name in ("one", "gru"):  # the second has a bias
        alone = evaluate(load_model(saved / name).model, view.test, view.n_items)
        twice = load_models([saved / name, saved / name])
        found = evaluate(twice.model, view.test, view.n_items)
        assert found.metrics["mrr@20"] == pytest.approx(alone.metrics["mrr@20"], abs=2e-4)
    lines = ["SessionId\tItemId\tTime", "s\t" + str(demo.item_ids()[3]) + "\t1"]
    (saved / "live.tsv").write_text("\n".join(lines) + "\n")
    listed = [
        [
            line.split("\t")[2]
            for line in cli("recommend", *words, "--sessions", "live.tsv")[1].splitlines()
        ]
        for words in (("one",), ("one", "--with", "one-epoch-3"))
    ]
    assert listed[0] == listed[1] and len(listed[0]) > 10


def test_a_final_tests_seeds_are_judged_as_one_model(saved: Path, demo: Dataset) -> None:
    """By hand: standardised, averaged, and ranked; beside the mean of the two."""
    view, objective = demo.view("search"), Objective("mrr@20")
    judging = Judging(view, (20,), ("parameters",), objective, EvaluationProtocol())
    found = together({42: saved / "one", 7: saved / "two"}, judging)
    total, reciprocal, each = 0, 0.0, 0.0
    models = [load_model(saved / name).model for name in ("one", "two")]
    batches = evaluation(view.test, view.n_items, models[0].max_length, ROWS, models[0].device)
    for batch in batches:
        targets = batch.targets[batch.targets >= 0]
        with torch.no_grad():
            parts = [model.score(batch).double() for model in models]
        mean = sum((p - p.mean(1, keepdim=True)) / p.std(1, correction=0)[:, None] for p in parts)
        for scores, into in ((torch.as_tensor(mean), 1), (parts[0], 0), (parts[1], 0)):
            own = scores.gather(1, targets[:, None])
            ranks = 1 + (scores > own).sum(1)
            gained = float(torch.where(ranks <= 20, 1.0 / ranks, 0.0).sum())
            reciprocal, each = reciprocal + gained * into, each + gained / 2 * (1 - into)
        total += len(targets)
    assert found.metrics.keys() == {"mrr@20", "recall@20", "ndcg@20"}
    assert found.metrics["mrr@20"] == pytest.approx(reciprocal / total, abs=2e-4)
    assert found.sample is not None
    alone = [evaluate(m, view.test, view.n_items, objective=objective) for m in models]
    samples = [one.sample(view.test.n_sessions, objective) for one in alone]
    told = found.to_json(Sample.mean([one for one in samples if one]))
    assert told["models"] == {"42": str(saved / "one"), "7": str(saved / "two")}
    above = told["difference"]["mrr@20"]
    assert above["mean"] == pytest.approx((reciprocal - each) / total, abs=2e-4)
    assert above["interval"][0] <= above["mean"] <= above["interval"][1]
    away = together({42: saved / "one", 8: saved / "gone"}, judging)
    assert away.to_json(None) == {"why": "what seed 8 became was not kept on this machine"}
    differ = together({42: saved / "one", 7: saved / "full"}, judging)
    assert "split is full, not search" in differ.why


def test_what_does_not_go_together_is_refused(saved: Path, demo: Dataset, cli: Cli) -> None:
    with pytest.raises(
        DataError, match=r"gru does not go together with .*max_length is None, not 20"
    ):
        load_models([saved / "one", saved / "gru"])
    code, _, err = cli("evaluate", "one", "--data", demo.path, "--with", "full")
    assert code == 1 and "split is full, not search" in err
    code, _, err = cli("train", "--data", demo.path, "--params", "layers=16", "--keep-last", 2)
    assert code == 2 and "say --save" in err
