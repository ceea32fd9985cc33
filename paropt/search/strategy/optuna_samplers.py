"""Optuna's samplers by the names of their classes, with arguments from JSON.

Some keep what they have learned in attributes of trials: CMA-ES its whole optimiser, pickled,
genetic algorithms their generations, quasi Monte Carlo its place in the sequence. Nothing that is
unpickled may come from a database that others write to, so none of it is stored. It follows from
the history: each trial is asked for once more in the order of their beginnings, with those that had
ended by then, and so every worker has the same state (:class:`Replayed`).
"""

from __future__ import annotations

import contextlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from optuna import samplers
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from paropt.errors import StudyError, UsageError, did_you_mean
from paropt.search.history.history import History, Record
from paropt.search.strategy.optuna_view import OptunaView

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from paropt.training.evaluation.objective import Objective

OURS = ("seed",)  # what paropt says itself
OTHERWISE = {
    "BruteForceSampler": "goes through all configurations, as --sampler grid does",
    "GridSampler": "needs a grid of its own; --sampler grid goes through the space's",
    "PartialFixedSampler": "fixes what --fixed fixes, around a sampler that no JSON can say",
}
REMEMBER = ("CmaEsSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler")


def named(name: str) -> type[BaseSampler]:
    """The class of that name.

    Raises:
        UsageError: Optuna has none of that name.
        StudyError: it cannot work here.
    """
    known = [one for one in samplers.__all__ if one.endswith("Sampler") and one != "BaseSampler"]
    if name not in known:
        ours = "there are tpe, random and grid, and Optuna's by their names, CmaEsSampler say"
        told = did_you_mean(name, ["tpe", "random", "grid", *known], ours)
        raise UsageError(f"no sampler {name!r}; {told}")
    if name in OTHERWISE:
        raise StudyError(f"the sampler {name!r} {OTHERWISE[name]}")
    found: type[BaseSampler] = getattr(samplers, name)
    return found


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, if there is such a sampler with such arguments.

    Raises:
        StudyError: there is none.
    """
    asked = dict(given)
    kind = named(asked.pop("name"))
    takes = [name for name in inspect.signature(kind).parameters if name not in OURS]
    for name in asked:
        if name in OURS:
            raise StudyError(f"the sampler's {name} follows from the study's; say --{name}")
        if name not in takes:
            told = did_you_mean(name, takes, f"it has {', '.join(takes)}")
            raise StudyError(f"the sampler {kind.__name__!r} has no argument {name!r}; {told}")
    return dict(given)


def make(options: Mapping[str, Any], seed: int) -> BaseSampler:
    """A sampler.

    Raises:
        StudyError: it needs a package that is not there, or refuses its arguments.
    """
    arguments = dict(options)
    kind = named(arguments.pop("name"))
    takes = inspect.signature(kind).parameters
    if "seed" in takes:
        arguments["seed"] = seed
    if "warn_independent_sampling" in takes:
        arguments.setdefault("warn_independent_sampling", False)
    with failing(kind.__name__), quiet():
        return kind(**arguments)


@contextlib.contextmanager
def failing(name: str) -> Iterator[None]:
    """Say in a sentence what a sampler that fails lacks.

    Raises:
        StudyError: in place of whatever it raised.
    """
    try:
        yield
    except ImportError as error:
        lacks = error.name or next(iter(re.findall(r"'([\w.]+)'", str(error))), "another package")
        raise StudyError(
            f"the sampler {name!r} needs {lacks.split('.')[0]}, which is not installed; "
            "pip install 'paropt[samplers]'"
        ) from None
    except StudyError:
        raise
    except Exception as error:  # a sampler may raise anything about arguments that don't suit it
        said = " ".join(str(error).split()) or type(error).__name__
        raise StudyError(f"the sampler {name!r} cannot work with this: {said[:200]}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without Optuna's remarks on what is new in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Replayed(OptunaView):
    """The view of a sampler that keeps what it learned in attributes, which follow from history."""

    def __init__(
        self,
        distributions: Mapping[str, BaseDistribution],
        objective: Objective,
        options: Mapping[str, Any],
        seeds: Callable[[int], int],
    ) -> None:
        super().__init__(distributions, objective)
        self._options, self._seed_of = options, seeds
        self.trials.remembers = True
        self._asked: dict[int, dict[str, Any]] = {}  # attributes by lineage

    def replay(self, history: History) -> None:
        """Ask for what is new once more, each as it was when it began."""
        records = {record.number: record for record in history.all()}
        lineages = sorted(history.lineages(), key=lambda record: record.root)
        for place, record in enumerate(lineages):
            if record.root in self._asked:
                continue
            first = records.get(record.root, record)
            before = [_as_of(other, first) for other in lineages[:place]]
            self._show(before)
            self._asked[record.root] = {}
            trial = self._trial(record.root, self._asked[record.root])
            self.trials.frozen.append(trial)
            self.ask(trial, self._seed_of(place))
        self._show(lineages)

    def ask(self, trial: FrozenTrial, seed: int) -> tuple[BaseSampler, dict[str, Any]]:
        """The sampler that was asked, and what it draws together."""
        study, sampler = self.study(), make(self._options, seed)
        with failing(type(sampler).__name__), quiet():
            together = sampler.infer_relative_search_space(study, trial)
            return sampler, sampler.sample_relative(study, trial, together)

    @contextlib.contextmanager
    def draft(self) -> Iterator[FrozenTrial]:
        """A trial that may come next; whatever the sampler notes of it is forgotten after."""
        kept = self.trials.get_study_system_attrs(0)
        frozen = list(self.trials.frozen)
        number = max(self._asked, default=-1) + 1
        trial = self._trial(number, {})
        self.trials.frozen.append(trial)
        try:
            yield trial
        finally:
            self.trials.frozen = frozen
            self.trials.restore(kept)

    def _show(self, lineages: Iterable[Record]) -> None:
        self.trials.frozen = [self._of(record) for record in lineages]

    def _of(self, record: Record) -> FrozenTrial:
        found = self._frozen(record)
        found._trial_id = found.number = record.root
        found.system_attrs = {**found.system_attrs, **self._asked.get(record.root, {})}
        return found

    def _trial(self, number: int, attrs: dict[str, Any]) -> FrozenTrial:
        trial = self.new_trial()
        trial._trial_id = trial.number = number
        trial.system_attrs = attrs
        return trial


def _as_of(other: Record, first: Record) -> Record:
    """A lineage as it was when another began."""
    known = other.ended is not None and first.started is not None
    later = known and str(other.ended) > str(first.started)
    if not other.open and not later:
        return other
    return Record(
        other.id, other.number, TrialState.RUNNING.name, None, other.started, None,
        other.meta, {}, {}, {},
    )  # fmt: skip
