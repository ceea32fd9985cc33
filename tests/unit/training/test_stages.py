"""Trainings of several stages: best weights handed on, frozen parts, patience, resuming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.parts.contract import Catalogue, Model, Param, SequenceBatch, Stage
from paropt.data.dataset import View, open_dataset
from paropt.errors import ModelError, ParamError
from paropt.training import registry
from paropt.training.conformance import made_up_data
from paropt.training.evaluation.objective import Objective
from paropt.training.fitting.fit import Fit

NAME = "staged_for_test:Staged"


class Staged(Model):
    """Items and a matrix, trained one after the other and then together, with dropout.

    ``wish`` are the values that an evaluation reports, epoch by epoch.
    """

    PARAMS = (
        Param("first", "int", 3, "epochs of the items alone", low=0),
        Param("second", "int", 3, "epochs of the matrix alone", low=0),
        Param("last", "int", 2, "epochs of all", low=0),
        Param("patience", "int", 0, "of the second stage", low=0),
        Param("schedule", "str", "constant", "of all", choices=("constant", "linear")),
        Param("learning_rate", "float", 0.01, "of all but the last", low=0),
        Param("batch_size", "int", 16, "sessions", low=1),
        Param("unknown", "bool", False, "a stage trains what there is not"),
    )
    wish: Sequence[float] = ()

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        draw = torch.Generator().manual_seed(seed)
        self.items = nn.Embedding(catalogue.n_items, 8)
        self.items.weight.data = torch.randn(catalogue.n_items, 8, generator=draw)
        self.mix = nn.Parameter(torch.randn(8, 8, generator=draw) / 3)
        self.judged = 0
        self.seen: list[tuple[str, float]] = []

    @classmethod
    def stages(cls, params: Mapping[str, Any]) -> tuple[Stage, ...]:
        return (
            Stage("items", params["first"], trains=("items",)),
            Stage("mix", params["second"], trains=("mix",), patience=params["patience"]),
            Stage("all", params["last"], ("x",) if params["unknown"] else (), learning_rate=0.001),
        )

    def begin_epoch(self, epoch: int) -> str:
        return f"{self.stage} {epoch}"  # nobody looks

    def loss(self, batch: SequenceBatch) -> Tensor:
        vectors = nn.functional.dropout(self.encode(batch), 0.2)
        targets = batch.targets[batch.targets >= 0]
        return nn.functional.cross_entropy(vectors @ self.items.weight.T, targets)

    def encode(self, batch: SequenceBatch) -> Tensor:
        return self.items(batch.items[batch.targets >= 0]) @ self.mix

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.items.weight, None

    def evaluate(self, batches: Any) -> dict[str, float] | None:
        self.judged += 1
        return {"told": self.wish[self.judged - 1]} if self.wish else None

    def training_state(self) -> dict[str, Any]:
        return {"judged": self.judged}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self.judged = state["judged"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "model_class", lambda name: Staged)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return open_dataset(made_up_data(tmp_path_factory.mktemp("data") / "log")).view("search")


@pytest.fixture
def told() -> Iterator[list[float]]:
    """What evaluations are to report."""
    values: list[float] = []
    Staged.wish = values
    yield values
    Staged.wish = ()


def make(view: View, metric: str = "mrr@20", **given: Any) -> Fit:
    epochs = given.pop("epochs", None)
    evaluate = given.pop("evaluate", True)
    objective = Objective(metric, given.pop("direction", "maximize"))
    return Fit(NAME, given, view, seed=3, epochs=epochs, objective=objective, evaluate=evaluate)


def weights(fit: Fit) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in fit.model.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor], name: str) -> bool:
    return torch.equal(one[name], other[name])


def test_each_stage_trains_its_parts_and_leaves_the_others_as_they_are(view: View) -> None:
    fit = make(view)
    before = weights(fit)
    stages, after = [], []
    for epoch in fit.epochs():
        stages.append((epoch.stage, epoch.stage_epoch, epoch.stage_epochs))
        after.append(weights(fit))
    assert stages == [
        *(("items", n, 3) for n in (1, 2, 3)),
        *(("mix", n, 3) for n in (1, 2, 3)),
        *(("all", n, 2) for n in (1, 2)),
    ]
    assert all(equal(now, before, "mix") for now in after[:3])
    assert not equal(after[0], before, "items.weight")
    assert not equal(after[3], before, "mix")
    items = after[3]["items.weight"]
    assert any(torch.equal(items, now["items.weight"]) for now in after[:3]), "one epoch's"
    assert all(torch.equal(items, now["items.weight"]) for now in after[3:6])


def test_the_best_weights_are_handed_on_and_kept(view: View, told: list[float]) -> None:
    told += [0.2, 0.5, 0.3, 0.4, 0.45, 0.1, 0.2, 0.3]
    fit = make(view, "told")
    after = []
    reports = []
    for epoch in fit.epochs():
        reports.append(epoch)
        after.append(weights(fit))
    assert equal(after[3], after[1], "items.weight"), "of the second epoch, the best"
    assert not equal(after[3], after[2], "items.weight")
    # the third stage begins with the second's best, and the training ends with the first's
    assert fit.best_epoch == 2 and fit.best == 0.5 and fit.best_report == reports[1]
    assert all(equal(weights(fit), after[1], name) for name in after[1])


def test_less_may_be_better(view: View, told: list[float]) -> None:
    told += [5.0, 3.0, 4.0, 6.0, 2.0, 7.0, 3.0, 9.0]
    fit = make(view, "told", direction="minimize")
    after = [weights(fit) for _ in fit.epochs()]
    assert equal(after[3], after[1], "items.weight")
    assert fit.best_epoch == 5 and equal(weights(fit), after[4], "mix")


def test_a_stage_ends_early_by_its_own_patience(view: View, told: list[float]) -> None:
    told += [0.9, 0.1, 0.1, 0.3, 0.2, 0.2, 0.2, 0.2, 0.2]
    fit = make(view, "told", second=9, patience=2)
    stages = [(epoch.stage, epoch.stage_epoch) for epoch in fit.epochs()]
    # the first stage has none; the second's first epoch is its best, however good the first was
    assert stages[3:] == [("mix", 1), ("mix", 2), ("mix", 3), ("all", 1), ("all", 2)]


def test_each_stage_has_its_own_schedule(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    from paropt.training.fitting import optimisers

    rates = []
    real = optimisers.multiplier

    def heard(step: int, steps: int, warmup: float, schedule: str) -> float:
        rates.append((step, steps))
        return real(step, steps, warmup, schedule)

    monkeypatch.setattr(optimisers, "multiplier", heard)
    fit = make(view, first=2, second=1, last=0, schedule="linear")
    list(fit.epochs())
    per_epoch = fit.plans.steps_per_epoch
    expected = [(step, 2 * per_epoch) for step in range(2 * per_epoch)]
    assert [*dict.fromkeys(rates)] == [*expected, *((s, per_epoch) for s in range(per_epoch))]
    assert fit.optimiser is not None and fit.optimiser.rate == 0.01


@pytest.mark.parametrize("cut", [(1, 3), (2, 7), (4, 3), (6, 8), (7, 5)])
def test_killed_anywhere_it_goes_on_bit_for_bit(
    view: View,
    tmp_path: Path,
    cut: tuple[int, int],
    told: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fit, "_next_range", lambda self, steps, took: 2)
    told += [0.2, 0.5, 0.3, 0.4, 0.45, 0.1, 0.2, 0.3]
    whole = make(view, "told")
    expected = list(whole.epochs())
    first = make(view, "told")

    def stop_there(epoch: int, step: int, steps: int, rate: float) -> None:
        if (epoch, step) >= cut:
            first.stop()

    first.on_progress = stop_there
    done = list(first.epochs())
    first.save(tmp_path / "checkpoint")
    second = make(view, "told")
    assert second.resume(tmp_path / "checkpoint") == len(done)
    rest = list(second.epochs())
    told_of = [(e.epoch, e.stage, e.stage_epoch, e.metrics, e.loss) for e in [*done, *rest]]
    assert told_of == [(e.epoch, e.stage, e.stage_epoch, e.metrics, e.loss) for e in expected]
    assert all(equal(weights(second), weights(whole), name) for name in weights(whole))
    assert (second.best, second.best_epoch) == (whole.best, whole.best_epoch)


def test_any_subset_of_stages_may_be_trained(view: View) -> None:
    fit = make(view, first=0, last=0)
    assert [epoch.stage for epoch in fit.epochs()] == ["mix"] * 3
    with pytest.raises(ParamError, match="none of the stages items, mix, all has an epoch"):
        make(view, first=0, second=0, last=0)
    with pytest.raises(ModelError, match="stage 'all' trains 'x', which names none of its"):
        list(make(view, first=0, second=0, unknown=True).epochs())


def test_a_training_may_be_cut_in_all_or_by_stage(view: View) -> None:
    assert [e.stage for e in make(view, epochs=4).epochs()] == [*["items"] * 3, "mix"]
    fit = make(view, epochs={"items": 1, "all": 2}, evaluate="last")
    found = list(fit.epochs())
    assert [(epoch.stage, bool(epoch.metrics)) for epoch in found] == [
        ("items", False),
        ("all", False),
        ("all", True),
    ]


def test_epochs_of_stages_are_known_beforehand() -> None:
    assert registry.epochs_of(NAME) == 8
    assert registry.epochs_of(NAME, {"first": 10, "last": 0}) == 13
