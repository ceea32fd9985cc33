"""A study in memory that Optuna's samplers read: no statement leaves this process.

Optuna's cached storage re-reads every unfinished trial for each parameter and copies deeply; with
thousands of trials that is what asking costs. Here each ended trial is converted once.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from paropt.search.history.history import Record, constraint_attributes
from paropt.training.evaluation.objective import Objective

_NAME = "memory"
_CONSTRAINT = "constraints:feasible"  # Optuna's key for Trial.set_constraint("feasible", …)


class _Trials(InMemoryStorage):
    """Optuna's own in-memory storage with a list of trials that is given from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen: list[FrozenTrial] = []
        self.remembers = False  # what samplers note of trials
        self._of_study: dict[str, Any] = {}

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        return [t for t in self.frozen if states is None or t.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """The sampler tells others what it is about to draw; here nobody else reads it, unless it
        is to find it again itself."""
        if self.remembers:
            trial = next(t for t in reversed(self.frozen) if t._trial_id == trial_id)
            trial.system_attrs[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return dict(self._of_study)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._of_study[key] = value

    def restore(self, attributes: dict[str, Any]) -> None:
        """The study's attributes as they were before."""
        self._of_study = attributes


def _empty(objective: Objective) -> _Trials:
    """With one study, and no trial in it."""
    trials = _Trials()
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce a new study
    trials.create_new_study([optuna.study.StudyDirection[objective.direction.upper()]], _NAME)
    optuna.logging.set_verbosity(verbosity)
    return trials


class OptunaView:
    """Converts records into Optuna's trials, each ended one once."""

    def __init__(self, distributions: Mapping[str, BaseDistribution], objective: Objective) -> None:
        self.distributions = distributions
        self.objective = objective
        self.trials = _empty(objective)
        self._ended: dict[int, FrozenTrial] = {}

    def update(self, records: Iterable[Record]) -> None:
        frozen = []
        for record in records:
            trial = self._ended.get(record.id)
            if trial is None:
                trial = self._frozen(record)
                if not record.open:
                    self._ended[record.id] = trial
            frozen.append(trial)
        self.trials.frozen = sorted(frozen, key=lambda trial: trial.number)

    def study(self, only: Container[int] | None = None) -> optuna.Study:
        """A fresh handle, so that nothing of an earlier draw is cached in it; of all trials, or
        ``only`` of those with these numbers."""
        if only is None:
            return optuna.Study(_NAME, self.trials)
        some = _empty(self.objective)
        some.frozen = [trial for trial in self.trials.frozen if trial.number in only]
        return optuna.Study(_NAME, some)

    def new_trial(self) -> FrozenTrial:
        """A trial without parameters, numbered after all others."""
        number = max((trial.number for trial in self.trials.frozen), default=-1) + 1
        return _trial(number, number, TrialState.RUNNING, None, {}, {}, {}, {})

    def _frozen(self, record: Record) -> FrozenTrial:
        searched = record.meta["searched"]
        known = {label: self.distributions[label] for label in searched}
        state = TrialState[record.state]
        attrs: dict[str, Any] = {}
        if record.failed and state is TrialState.PRUNED:
            attrs = {_CONSTRAINT: 1.0}
        elif not record.open and state is not TrialState.FAIL:
            attrs = constraint_attributes(self.objective, record.values, record.end)
        curve = record.curve(self.objective)
        steps = {epoch: value for epoch, value in enumerate(curve, 1) if value is not None}
        worth = None if record.open else record.worth(self.objective)  # it will be worth more
        return _trial(record.id, record.number, state, worth, dict(searched), known, attrs, steps)


def _trial(
    trial: int,
    number: int,
    state: TrialState,
    value: float | None,
    params: dict[str, Any],
    distributions: dict[str, BaseDistribution],
    attrs: dict[str, Any],
    steps: dict[int, float],
) -> FrozenTrial:
    return FrozenTrial(
        trial_id=trial,
        number=number,
        state=state,
        value=value,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs=attrs,
        intermediate_values=steps,
    )
