"""A model's memory: bounded, frozen in evaluation, saved as data, resumed, looked at, forgotten."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from models.parts.contract import Catalogue, Facts
from paropt.cli.main import cli
from paropt.data.dataset import View, open_dataset
from paropt.errors import DataError, ModelError
from paropt.training.batches import plans
from paropt.training.conformance import made_up_data
from paropt.training.evaluation.ranking.judging import judge
from paropt.training.fitting.fit import Fit
from paropt.training.fitting.memory import digest, facts_of
from paropt.training.registry import model_class
from paropt.training.saved_model.saved import load_model, save_model

SHOP = Path(__file__).parents[2] / "conformance"
KEEPER = "shop.keeper:Keeper"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SHOP)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return open_dataset(made_up_data(tmp_path_factory.mktemp("data") / "log")).view("search")


def trained(view: View, **params: Any) -> Fit:
    fit = Fit(KEEPER, {"n_epochs": 2, **params}, view, seed=1)
    list(fit.epochs())
    return fit


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_an_evaluation_moves_no_memory(view: View) -> None:
    fit = trained(view)
    before = digest(fit.model.memory())
    batches = plans.evaluation(view.test, view.n_items, None, 64)
    judge(fit.model, batches, at=(20,), ties="standard", filter_seen=False)
    assert digest(fit.model.memory()) == before
    assert digest({"pairs": fit.model.memory()["pairs"] + 1}) != before


def test_it_is_bounded_and_told_with_every_epoch(view: View) -> None:
    fit = Fit(KEEPER, {"n_epochs": 1, "memory_pairs": 12}, view, seed=1)
    (epoch,) = fit.epochs()
    kept = fit.model.memory()["pairs"]
    assert epoch.extra["memory"] == {
        "rows": 12,
        "most": 12,
        "bytes": 12 * 2 * 8,
        "shapes": {"pairs": [12, 2]},
        "says": {"items": float(len(kept[:, 0].unique()))},
    }
    off = Fit(KEEPER, {"n_epochs": 1, "memory_pairs": 0}, view, seed=1)
    assert "memory" not in next(iter(off.epochs())).extra


def test_more_rows_than_the_bound_are_refused(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(self: Any) -> dict[str, Tensor]:
        return {"pairs": torch.zeros(41, 2)}

    monkeypatch.setattr(model_class(KEEPER), "memory", all_of_it)
    with pytest.raises(ModelError, match="Keeper remembers 41 rows, and memory_pairs is 40"):
        trained(view)


def test_a_killed_training_remembers_what_an_uninterrupted_one_does(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fit, "_next_range", lambda self, steps, took: 2)
    whole = trained(view)
    cut = Fit(KEEPER, {"n_epochs": 2}, view, seed=1)
    cut.on_progress = lambda epoch, step, steps, rate: cut.stop() if epoch == 2 else None
    list(cut.epochs())
    assert 0 < cut.step < cut.plans.steps_per_epoch
    cut.save(tmp_path / "checkpoint")
    resumed = Fit(KEEPER, {"n_epochs": 2}, view, seed=1)
    resumed.resume(tmp_path / "checkpoint")
    assert digest(resumed.model.memory()) == digest(cut.model.memory())
    list(resumed.epochs())
    assert digest(resumed.model.memory()) == digest(whole.model.memory())


def test_a_saved_model_remembers_and_forgets_by_the_verb(view: View, tmp_path: Path) -> None:
    fit, place = trained(view), tmp_path / "saved"
    save_model(place, fit)
    assert digest(load_model(place).model.memory()) == digest(fit.model.memory())
    shown = run("memory", place)
    assert shown.exit_code == 0
    assert f"{KEEPER} remembers 40 of at most 40 rows" in shown.stdout
    assert "pairs: 40 × 2" in shown.stdout and digest(fit.model.memory()) in shown.stdout
    weights = (place / "model.safetensors").read_bytes()
    done = run("memory", place, "--reset", "--json")
    assert done.exit_code == 0 and "40 rows forgotten" in done.stderr
    assert json.loads(done.stdout)["memory"]["rows"] == 0
    assert len(load_model(place).model.memory()["pairs"]) == 0
    assert (place / "model.safetensors").read_bytes() == weights
    assert json.loads(run("memory", place, "--json").stdout)["memory"]["rows"] == 0


def test_a_model_without_a_memory_says_so(view: View, tmp_path: Path) -> None:
    fit = Fit("markov", {}, view, seed=1)
    list(fit.epochs())
    save_model(tmp_path / "saved", fit)
    assert not (tmp_path / "saved" / "memory.safetensors").exists()
    assert run("memory", tmp_path / "saved").stdout == "markov keeps no memory\n"
    assert json.loads(run("memory", tmp_path / "saved", "--json").stdout)["memory"] is None
    refused = run("memory", tmp_path / "saved", "--reset")
    assert refused.exit_code == 1 and "which has no memory" in str(refused.exception)


def test_the_memory_of_another_model_and_a_damaged_one_are_refused(
    view: View, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    save_model(one, trained(view))
    save_model(other, trained(view, dim=4))
    kept = one / "memory.safetensors"
    own = kept.read_bytes()
    kept.write_bytes((other / "memory.safetensors").read_bytes())
    with pytest.raises(DataError, match="is the memory of another model: its params is"):
        load_model(one)
    kept.write_bytes(own[:-3])
    with pytest.raises(DataError, match="cannot be used as a memory"):
        load_model(one)
    kept.unlink()
    assert len(load_model(one).model.memory()["pairs"]) == 0, "nothing is remembered"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("MEMORY = 'rows'", "bounds its memory by 'rows', which is no parameter of it"),
        ("MEMORY = ''", "has a memory\\(\\) that nothing bounds"),
    ],
)
def test_what_bounds_a_memory_must_be_declared(
    body: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unbound.py").write_text(
        f"from shop.keeper import Keeper\nclass Unbound(Keeper):\n    {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "unbound", raising=False)
    with pytest.raises(ModelError, match=message):
        model_class("unbound:Unbound")


def test_facts_of_what_is_turned_off_are_none() -> None:
    kind: Any = model_class(KEEPER)
    params: Mapping[str, Any] = {p.name: p.default for p in kind.PARAMS} | {"memory_pairs": 0}
    facts = Facts(4, 1, 4, 4, has_times=True)
    assert facts_of(kind(params, Catalogue(facts, torch.ones(4)), 1)) is None
