"""The final test of a study: what it trains, in which order.

The best of many noisy trials flatters itself, so a final test has two parts, each a study of its
own that follows a :class:`FinalPlan` instead of searching, on the same slots as any other:

1. the K best configurations and a control, with S fresh seeds each, on ``train`` → ``valid``;
   one is chosen by its mean, at the epoch where the mean over its seeds is best;
2. that one and the control, with the same seeds, on ``train_full`` → ``test`` (``train`` → ``test``
   where it is asked to train without valid), judged once.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from paropt.errors import DataError, ParamError, StudyError
from paropt.names import quoted
from paropt.results.final.final_choice import Judged
from paropt.search.history.history import Record, best_first, key_of
from paropt.search.space.parameter import Parameter
from paropt.search.strategy.sampling import derived_seed
from paropt.search.study.plan import Candidate, FinalPlan
from paropt.training.semantics import as_then

if TYPE_CHECKING:
    from paropt.data.dataset import View
    from paropt.search.space.paramfiles import Paramfile
    from paropt.search.space.space import Space
    from paropt.search.study.study import Study

ON_EPOCHS = ("n_epochs",)  # which every space says
CANDIDATES = 3
SEEDS = 5


def make_plan(
    study: Study,
    number: int,
    *,
    top: int = CANDIDATES,
    seeds: int = SEEDS,
    control: tuple[str, Paramfile] | None = None,
    again: bool = False,
    without_valid: bool = False,
) -> FinalPlan:
    """The first part of a study's final test: its ``top`` best configurations and a control.

    ``control`` is a paramfile and how to call it. Without one, each candidate's model has its own
    control: the space's first complete start point that says where it is from, which in paropt's
    spaces is a published configuration; else its first complete one, else the model's defaults
    with what the space fixes.

    Raises:
        StudyError: no trial has a value yet.
        ParamError: the control's model refuses its parameters.
    """
    study.refresh()
    lineages = study.history.lineages()
    candidates = _candidates(study, best_first(lineages, study.definition.objective), top)
    if not candidates:
        raise StudyError(
            f"study {study.name!r} has no trial with a value yet; "
            f"{quoted('launch', '--study', study.name)} goes on with it"
        )
    if control:
        controls = [_given(*control)]
    else:
        models = dict.fromkeys(entry.model for entry in candidates)
        controls = [_control_of(study, model) for model in models]
    entries = _joined(candidates, controls)
    used = {record.meta["seed"] for record in lineages}
    fresh = _fresh(study, number, seeds, used)
    return FinalPlan(study.name, number, entries, fresh, False, again, without_valid)


def test_plan(plan: FinalPlan, chosen: Judged, control: Judged) -> FinalPlan:
    """The second part: the chosen one and the control, for as many epochs as suited each."""
    both = [chosen] if chosen.entry.name == control.entry.name else [chosen, control]
    entries = tuple(replace(one.entry, epochs=one.epoch, stages=one.stages) for one in both)
    return replace(plan, entries=entries, once=True)


def _candidates(study: Study, best: Sequence[Record], top: int) -> list[Candidate]:
    found: dict[str, Candidate] = {}
    for record in best:
        if len(found) == top:
            break
        version = study.definition.versions.get("paropt")
        model, params = record.meta["model"], as_then(record.meta["params"], version)
        fact = {"trial": record.number, "value": record.value, "epoch": record.end.get("epoch")}
        name = f"candidate {len(found) + 1}"
        entry = Candidate(name, model, params, int(record.meta["epochs"]), fact)
        found.setdefault(_identity(entry), entry)
    return list(found.values())


def _given(source: str, paramfile: Paramfile) -> Candidate:
    return _as_control(paramfile.model, dict(paramfile.params), source)


def _control_of(study: Study, model: str) -> Candidate:
    space = study.space
    found: list[Candidate] = []
    for index, (point, origin) in enumerate(zip(space.start, space.start_from, strict=True), 1):
        try:
            config = space.complete(point, _no_choice)
        except LookupError:
            continue
        if config.pop("model") == model:
            source = f"start point {index} of the space" + (f", from {origin}" if origin else "")
            found.append(_as_control(model, config, source))
            if origin:
                return found[-1]
    return found[0] if found else _defaults(space, model)


def _defaults(space: Space, model: str) -> Candidate:
    """The model's defaults, but for what the space fixes: on which columns, with which loss."""
    from paropt.training import registry

    defaults = registry.complete_params(model, {})
    config = space.walk(lambda p: model if p.name == "model" else defaults[p.name])
    fixed = {p.name for p in space.active(config) if not p.searched} - {"model", *ON_EPOCHS}
    params = {name: value for name, value in config.items() if name != "model"}
    try:
        registry.complete_params(model, params)
    except ParamError:  # what is fixed suits none of the defaults
        return _as_control(model, {}, "the model's defaults")
    beside = f", with the space's {' and '.join(sorted(fixed))}" if fixed else ""
    return _as_control(model, params, f"the model's defaults{beside}")


def check_data(plan: FinalPlan, view: View) -> None:
    """Refuse what could not be trained on the data, before anything is.

    Raises:
        StudyError: an entry reads what the data lack.
    """
    from paropt.training import registry
    from paropt.training.batches.catalogue import facts

    about = facts(view)
    for entry in plan.entries:
        try:
            registry.complete_params(entry.model, entry.params, about)
        except (DataError, ParamError) as error:
            remedy = "" if entry.found else "; name another with --control FILE"
            who = f"{entry.name} ({entry.source})" if entry.source else entry.name
            raise StudyError(f"{who} can't be trained on these data: {error}{remedy}") from None


def _no_choice(parameter: Parameter) -> Any:
    raise LookupError(parameter.name)


def _as_control(model: str, params: dict[str, Any], source: str) -> Candidate:
    from paropt.training import registry

    complete = registry.complete_params(model, params)
    epochs = registry.epochs_of(model, complete)
    return Candidate(f"control {model}", model, params, epochs, source=source)


def _joined(
    candidates: Sequence[Candidate], controls: Sequence[Candidate]
) -> tuple[Candidate, ...]:
    """Nothing is trained twice: a candidate that is a control serves as both."""
    entries = {_identity(entry): entry for entry in candidates}
    for control in controls:
        key = _identity(control)
        entries[key] = replace(entries.get(key, control), source=control.source)
    return tuple(entries.values())


def _identity(entry: Candidate) -> str:
    """Equal for equal configurations, whether a default is said or not."""
    from paropt.training import registry

    return key_of({"model": entry.model, **registry.complete_params(entry.model, entry.params)})


def _fresh(study: Study, number: int, seeds: int, used: Container[int]) -> tuple[int, ...]:
    """Seeds that follow from the study's and the final test's number, and that no trial had."""
    drawn = (derived_seed(study.definition.seed, "final", number, i) for i in itertools.count())
    return tuple(itertools.islice((seed for seed in drawn if seed not in used), seeds))
