"""Does a model keep the contract? The checks behind ``paropt models check NAME``.

A small log is made up and prepared, and the model is built, trained, stopped, resumed, saved and
asked on it, with its default parameters: a few seconds. Each check says in one sentence what is
wrong. Shipped models and a user's own pass the same ones.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from paropt.data.dataset import View, open_dataset
from paropt.errors import ParamError, ParoptError
from paropt.training import registry
from paropt.training.batches import plans
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.ranking.judging import ROWS, judge
from paropt.training.fitting.earlier import Earlier
from paropt.training.fitting.fit import Fit
from paropt.training.fitting.memory import digest, facts_of
from paropt.training.made_up import DAY, START, made_up_data
from paropt.training.recommending.new_sessions import read_sessions, recommend
from paropt.training.registry import Model, Param, SequenceBatch
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.saved import load_model, save_model

Status = Literal["passed", "failed", "skipped"]

FEW = 48  # sessions of the made-up log on which every choice is tried
LEAK = 1e-3  # of the change that a changed event makes at its own position


@dataclass(frozen=True)
class CheckResult:
    """What became of one check; ``message`` says why where it did not pass."""

    name: str
    status: Status
    message: str = ""


class _Failed(Exception):
    """What a check found wrong."""


class _Skipped(Exception):
    """Why a check does not apply."""


def check_model(
    name: str,
    params: Mapping[str, Any] | None = None,
    data: str | Path | None = None,
    only: str = "",
    without: str = "",
) -> list[CheckResult]:
    """Run every check on a model, on its parameters' defaults but for ``params``.

    ``data`` is a dataset directory in place of the made-up log, which has what the model says it
    needs. ``only`` runs the checks whose name contains it, ``without`` those whose name doesn't.

    Raises:
        ModelError: there is no such model.
        ParamError, DataError: ``params`` or ``data`` cannot be used.
    """
    registry.model_class(name)
    with tempfile.TemporaryDirectory(prefix="paropt-check-") as folder:
        made_up = data is None
        complete = registry.complete_params(name, dict(params or {}))
        needs = registry.model_class(name).needs(complete)
        where = Path(data or made_up_data(Path(folder) / "data", needs=needs))
        kit = Kit(name, dict(params or {}), open_dataset(where).view("search"), Path(folder))
        kit.made_up = made_up
        registry.complete_params(name, kit.given, facts(kit.view))
        kind = registry.model_class(name)
        own = MEMORY_CHECKS if kind.MEMORY else ()
        if kind.keyed_rows is not Model.keyed_rows and not registry.counts(name):
            own = (*own, *GOING_ON_CHECKS)
        checks = (*CHECKS, *own, *(MADE_UP_CHECKS if made_up else ()))
        names = {check: _name(check) for check in checks}
        asked = [check for check, name in names.items() if only in name]
        return [_run(check, kit) for check in asked if not without or without not in names[check]]


def _name(check: Callable[[Kit], None]) -> str:
    return (check.__doc__ or check.__name__).splitlines()[0].rstrip(".")


def _run(check: Callable[[Kit], None], kit: Kit) -> CheckResult:
    name = _name(check)
    try:
        check(kit)
    except _Skipped as why:
        return CheckResult(name, "skipped", str(why))
    except _Failed as what:
        return CheckResult(name, "failed", str(what))
    except Exception as error:
        return CheckResult(name, "failed", f"{type(error).__name__}: {_first_line(error)}")
    return CheckResult(name, "passed")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Failed(otherwise)


# -- data ------------------------------------------------------------------------------------


class Kit:
    """A model with its data, and what several checks ask of it."""

    def __init__(self, name: str, given: dict[str, Any], view: View, folder: Path) -> None:
        self.name, self.given, self.view, self.folder = name, given, view, folder
        self.declared = registry.declaration(name)
        self.made_up = False

    def few(self) -> View:
        """Data of the same kind for an epoch of a few steps."""
        if not self.made_up:
            return self.view
        complete = registry.complete_params(self.name, self.given)
        needs = registry.model_class(self.name).needs(complete)
        place = self.folder / "few"
        if not place.exists():
            made_up_data(place, sessions=FEW, needs=needs)
        return open_dataset(place).view("search")

    def params(self, **more: Any) -> dict[str, Any]:
        """Few epochs of several steps, where the model has such parameters."""
        small = {"n_epochs": 2, "batch_size": 16, "patience": 0}
        known = {
            key: _nearest(self.declared[key], value)
            for key, value in small.items()
            if key in self.declared
        }
        return known | self.given | more

    @property
    def counts(self) -> bool:
        """Whether the model learns without losses and seeds."""
        return registry.counts(self.name)

    @property
    def epochs(self) -> int:
        """How many epochs a fit of this kit has."""
        return 1 if self.counts else 2

    def fit(
        self,
        seed: int = 1,
        view: View | None = None,
        earlier: Earlier | None = None,
        **more: Any,
    ) -> Fit:
        params, data = self.params(**more), view or self.view
        return Fit(self.name, params, data, seed=seed, epochs=2, earlier=earlier)

    @cached_property
    def trained(self) -> tuple[Fit, list[EpochReport]]:
        """A fit that went to its end, and its epochs; checks leave it as it is."""
        fit = self.fit()
        return fit, list(fit.epochs())

    @cached_property
    def model(self) -> Model:
        """The trained model in eval mode."""
        fit, _ = self.trained
        return fit.model.eval()

    @cached_property
    def queries(self) -> plans.QueryBatches:
        length = self.model.max_length
        needs = self.model.needs(self.model.params)
        return plans.evaluation(self.view.test, self.view.n_items, length, ROWS, "cpu", needs)

    def batch(self) -> SequenceBatch:
        """The longest sessions of the evaluation, a target at every position."""
        if type(self.model).encode is Model.encode and not registry.scores_itself(self.model):
            raise _Skipped("the model has neither encode() nor score()")
        batch = self.queries[0]
        rows = slice(0, 6)
        items, lengths = batch.items[rows], batch.lengths[rows]
        real = torch.arange(items.shape[1]) < lengths[:, None]
        # any item will do as a target
        return batch.part(rows, items.shape[1], items.where(real, -1))

    def rows(self, batch: SequenceBatch) -> Tensor:
        """Vectors [B, L, d], or scores [B, L, n_items] of a model without any; NaN where padded."""
        given = self.model.score if registry.scores_itself(self.model) else self.model.encode
        with torch.no_grad():
            vectors = given(batch).float()
        padded = vectors.new_full((*batch.items.shape, vectors.shape[1]), math.nan)
        padded[batch.targets >= 0] = vectors
        return padded


def _nearest(param: Param, value: int) -> Any:
    """``value``, or the bound nearest to it; the default where that cannot be."""
    low, high = param.low, param.high
    inside = max(value, low) if low is not None else value
    inside = min(inside, high) if high is not None else inside
    try:
        return param.parse(inside)
    except ValueError:  # an open bound, or choices
        return param.default


# -- checks: the first line of each docstring is its name ---------------------------------------


def _declaration(kit: Kit) -> None:
    """parameters are declared in full."""
    names = [param.name for param in registry.model_class(kit.name).PARAMS]
    double = {name for name in names if names.count(name) > 1}
    _require(not double, f"declared twice: {', '.join(sorted(double))}")
    for param in kit.declared.values():
        _require(bool(param.help.strip()), f"{param.name} has no help")
        try:
            parsed = param.parse(param.default)
        except ValueError as error:
            raise _Failed(f"the default of {param.name} {error}") from None
        _require(parsed == param.default, f"the default of {param.name} reads back as {parsed!r}")
        _require(
            param.type != "str" or bool(param.choices or param.pattern),
            f"{param.name} is text without choices or a pattern",
        )
    complete = registry.complete_params(kit.name, kit.given)
    again = registry.complete_params(kit.name, json.loads(json.dumps(complete)))
    _require(again == complete, "parameters are not what they were after a paramfile")


def _choices(kit: Kit) -> None:
    """every declared choice trains or is refused in a sentence."""
    few = kit.few()
    for param in kit.declared.values():
        for value in _values(param):
            with _told(f"{param.name} = {value}"):
                fit = kit.fit(view=few, **{param.name: value})
                next(iter(fit.epochs()))


def _values(param: Param) -> Iterable[Any]:
    values = (False, True) if param.type == "bool" else param.choices
    return [value for value in values if value != param.default]


@contextmanager
def _told(case: str) -> Any:
    """Refusals of one line are fine; anything else that goes wrong is not."""
    try:
        yield
    except ParoptError as error:
        _require("\n" not in str(error), f"{case}: the refusal has several lines")
    except Exception as error:
        what = f"{type(error).__name__}: {_first_line(error)}"
        raise _Failed(f"{case} ends in {what}, which check() should refuse") from error


def _ranges(kit: Kit) -> None:
    """values outside of declared ranges are refused."""
    for param in kit.declared.values():
        for bound, outside in ((param.low, -1), (param.high, 1)):
            if bound is None:
                continue
            try:
                registry.complete_params(kit.name, kit.given | {param.name: bound + outside})
            except ParamError:
                continue
            raise _Failed(f"{param.name} = {bound + outside} was accepted")


def _learning(kit: Kit) -> None:
    """training lowers a finite loss and gives metrics."""
    _, epochs = kit.trained
    asked = kit.epochs
    _require(len(epochs) == asked, f"{asked} epochs were asked for and {len(epochs)} came")
    _require(bool(epochs[-1].metrics), "there are no metrics")
    if kit.counts:
        return
    losses = [math.nan if epoch.loss is None else epoch.loss for epoch in epochs]
    _require(all(map(math.isfinite, losses)), f"the losses are {losses}")
    if epochs[0].stage == epochs[1].stage:
        _require(losses[1] < losses[0], f"the loss rose from {losses[0]:g} to {losses[1]:g}")


def _determinism(kit: Kit) -> None:
    """the same seed gives the same numbers."""
    first, epochs = kit.trained
    torch.rand(3)  # what else draws in the process must not matter
    second = kit.fit()
    again = list(second.epochs())
    _same_state(first.model, second.model, "a second training of the same seed has another")
    _require(
        [e.metrics for e in epochs] == [e.metrics for e in again], "metrics differ between runs"
    )


def _seed(kit: Kit) -> None:
    """another seed gives other weights."""
    if kit.counts:
        raise _Skipped("the model counts, and nothing in it is random")
    about = catalogue(kit.view)
    one, two = (registry.build(kit.name, kit.params(), about, seed) for seed in (1, 2))
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    _require(
        any(not torch.equal(a, b) for a, b in pairs), "seeds 1 and 2 give the same initial weights"
    )


def _same_state(one: Model, two: Model, what: str) -> None:
    ours, theirs = one.state_dict(), two.state_dict()
    for key, value in ours.items():
        _require(torch.equal(value, theirs[key]), f"{what} {key}")


def _causality(kit: Kit) -> None:
    """later events change nothing earlier."""
    batch = kit.batch()
    before = kit.rows(batch)
    n_items = kit.view.n_items
    for position in range(1, batch.items.shape[1]):
        items, times, asked = batch.items.clone(), batch.times.clone(), batch.query_times.clone()
        items[:, position:] = (items[:, position:] + n_items // 2) % n_items
        times[:, position:] += 3 * DAY * 1000
        asked[:, position:] += 3 * DAY * 1000
        columns = {name: _others(column, position) for name, column in batch.columns.items()}
        changed = replace(batch, items=items, times=times, query_times=asked, columns=columns)
        moved = (kit.rows(changed) - before).nan_to_num().abs()
        at, earlier = moved[:, position:].max(), moved[:, :position].max()
        _require(bool(at > 0), f"another item at position {position} changes nothing")
        _require(
            bool(earlier <= LEAK * at), f"another item at position {position} changes earlier ones"
        )


def _others(column: Tensor, position: int) -> Tensor:
    """Other values of a column [B, L] from a position on."""
    changed = column.clone()
    later = changed[:, position:]
    if column.is_floating_point():
        changed[:, position:] = later.nan_to_num() + 1
    else:
        changed[:, position:] = torch.where(later > 0, 0, 1)
    return changed


def _padding(kit: Kit) -> None:
    """a row gets the same vectors alone as in a padded batch."""
    batch = kit.batch()
    together = kit.rows(batch)
    for row, length in enumerate(batch.lengths.tolist()):
        alone = kit.rows(batch.part(slice(row, row + 1), length, batch.targets[[row], :length]))
        _require(
            torch.allclose(alone[0], together[row, :length], rtol=1e-3, atol=1e-5),
            f"a session of {length} events has other vectors beside longer ones",
        )


def _evaluation(kit: Kit) -> None:
    """an evaluation changes no weights and repeats its numbers."""
    before = {key: value.clone() for key, value in kit.model.state_dict().items()}
    remembered = digest(kit.model.memory())
    one, two = (
        judge(kit.model, kit.queries, at=(5, 20), ties="standard", filter_seen=False).metrics
        for _ in range(2)
    )
    _require(one == two, f"it gave {one}, then {two}")
    for key, value in kit.model.state_dict().items():
        _require(torch.equal(value, before[key]), f"it changed {key}")
    _require(digest(kit.model.memory()) == remembered, "it changed what the model remembers")


def _resume(kit: Kit) -> None:
    """resumed training equals uninterrupted training bit for bit."""
    whole, epochs = kit.trained
    cut, path = kit.fit(), kit.folder / "checkpoint"

    def stop_in_the_second(epoch: int, step: int, steps: int, rate: float) -> None:
        if epoch == 2:
            cut.stop()

    cut.on_progress = stop_in_the_second
    list(cut.epochs())
    cut.save(path)
    resumed = kit.fit()
    resumed.resume(path)
    rest = list(resumed.epochs())
    _same_state(whole.model, resumed.model, "after a resume there is another")
    states = [fit.model.training_state() for fit in (whole, resumed)]
    for key, value in states[0].items():
        alike = _alike(value, states[1].get(key))
        _require(alike, f"after a resume training_state() has another {key}")
    left = epochs[cut.epoch - (not cut.closed) :]
    one, two = (digest(fit.model.memory()) for fit in (whole, resumed))
    _require(one == two, "after a resume the model remembers something else")
    _require(
        [epoch.metrics for epoch in rest] == [epoch.metrics for epoch in left],
        "metrics after a resume are not those of an uninterrupted training",
    )


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    return bool(one == other)


def _diagnostics(kit: Kit) -> None:
    """diagnostics of an epoch can be stored as JSON."""
    for epoch in kit.trained[1]:
        try:
            json.dumps(epoch.extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise _Failed(f"end_epoch() of epoch {epoch.epoch}: {error}") from None


def _save(kit: Kit) -> None:
    """a saved model opens and gives the same numbers."""
    saved = load_model(_saved(kit))
    _same_state(kit.model, saved.model, "the loaded model has another")
    judged = [
        judge(model, kit.queries, at=(20,), ties="standard", filter_seen=False).metrics
        for model in (kit.model, saved.model)
    ]
    _require(judged[0] == judged[1], f"metrics were {judged[0]} and are {judged[1]}")


def _memory(kit: Kit) -> None:
    """what is remembered is bounded, saved, and can be forgotten."""
    name = kit.model.MEMORY
    trained = digest(kit.model.memory())
    saved = load_model(_saved(kit))
    _require(digest(saved.model.memory()) == trained, "a saved model remembers something else")
    saved.model.load_memory({})
    nothing = facts_of(saved.model)
    left = 0 if nothing is None else nothing.rows
    _require(left == 0, f"{left} rows are left when everything is forgotten")
    for most in (0, 3):
        with _told(f"{name} = {most}"):
            fit = kit.fit(**{name: _nearest(kit.declared[name], most)})
            next(iter(fit.epochs()))
            facts_of(fit.model)  # more rows than it may is said there


def _saved(kit: Kit) -> Path:
    path = kit.folder / "saved"
    if not path.exists():
        save_model(path, kit.trained[0])
    return path


def _recommend(kit: Kit) -> None:
    """a saved model recommends items it knows, best first."""
    kit.batch()  # skips a model that scores no items
    if type(kit.model).item_table is Model.item_table and not registry.scores_itself(kit.model):
        raise _Skipped("the model's vectors are not for items")
    saved = load_model(_saved(kit))
    ids = [str(item) for item in saved.item_ids]
    file = kit.folder / "sessions.tsv"
    rows = [f"new\t{item}\t{START + 60 * i}" for i, item in enumerate(ids[:3])]
    file.write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    (found,) = recommend(saved, read_sessions(file, saved), top=5)
    _require(len(found.items) == min(5, len(ids)), f"5 items were asked for, not {found.items}")
    _require(set(found.items) <= set(ids), f"{found.items} are not all in the catalogue")
    _require(found.scores == sorted(found.scores, reverse=True), f"scores {found.scores}")


def _going_on(kit: Kit) -> None:
    """a training on other data begins with a saved model."""
    try:
        kit.model.keyed_rows()
    except NotImplementedError:
        return  # it says why it can't
    earlier = read_earlier(_saved(kit))
    fit = kit.fit(view=kit.few(), earlier=earlier)
    carried = fit.carried
    _require(carried is not None and carried.known > 0, "no item's rows were found again")
    next(iter(fit.epochs()))


def _small_data(kit: Kit) -> None:
    """data that is too small trains or is refused in a sentence."""
    _try(kit, "three-items", sessions=60, items=3)
    _try(kit, "one-event", sessions=60, items=8, length=1)


def _order_only(kit: Kit) -> None:
    """data without times trains or is refused in a sentence."""
    _try(kit, "order-only", has_times=False)


def _try(kit: Kit, case: str, **data: Any) -> None:
    with _told(f"training on made-up data ({case})"):
        needs = kit.model.needs(kit.model.params)
        made = made_up_data(kit.folder / case, needs=needs, **data)
        view = open_dataset(made).view("search")
        next(iter(kit.fit(view=view).epochs()))


CHECKS: tuple[Callable[[Kit], None], ...] = (
    _declaration,
    _ranges,
    _choices,
    _seed,
    _learning,
    _determinism,
    _causality,
    _padding,
    _evaluation,
    _resume,
    _diagnostics,
    _save,
    _recommend,
)
GOING_ON_CHECKS: tuple[Callable[[Kit], None], ...] = (_going_on,)  # of models that say how
MEMORY_CHECKS: tuple[Callable[[Kit], None], ...] = (_memory,)  # of models that have one
# these make up other data, which a model that needs data of its own cannot be asked to take
MADE_UP_CHECKS: tuple[Callable[[Kit], None], ...] = (_small_data, _order_only)
