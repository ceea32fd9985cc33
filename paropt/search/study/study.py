"""A study: its definition, its budget, and who gets which trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine

from paropt.errors import ParoptError, StudyError, did_you_mean
from paropt.names import of_final_test
from paropt.search.history.budgets import Budgets, device_seconds, since_better
from paropt.search.history.history import (
    LOST,
    RETRAINED,
    History,
    best_first,
    counts,
    searched_values,
)
from paropt.search.space.file import from_json
from paropt.search.space.space import Space
from paropt.search.strategy.pruning import complete_pruner
from paropt.search.strategy.sampling import DEFAULT as DEFAULT_SAMPLER
from paropt.search.strategy.sampling import Sampler, complete_sampler
from paropt.search.study import summary
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.front import front
from paropt.search.study.plan import Job, jobs_of
from paropt.search.study.state import State, StudyState, now_of, seconds_left
from paropt.search.study.summary import Importance
from paropt.search.study.trial import Trial
from paropt.search.study.trial_queue import Claim, TrialQueue
from paropt.storage import overview_rows, row_schema, trial_rows
from paropt.storage.engine import initialise, lock, open_engine, transaction
from paropt.training.evaluation.objective import Objective

MAX_ATTEMPTS = 3
AT_ONCE = 200  # studies whose trials are read by one statement


@dataclass(frozen=True)
class Running:
    """A trial that some slot runs; ``token`` tells this ownership from a later one."""

    id: int
    number: int
    root: int
    attempt: int
    owner: Mapping[str, Any]
    token: str


class Study:
    """A study in a PostgreSQL database, as one process sees it. Threads may share it."""

    def __init__(
        self, engine: Engine, study: int, definition: StudyDefinition, space: Space | None = None
    ) -> None:
        """``space``: what the definition's says, if somebody has read it already."""
        self._engine = engine
        self.definition = definition
        self.space = space or from_json(definition.space, f"study {definition.name!r}")
        self.sampler = Sampler(
            self.space, definition.sampler, definition.seed or 0, definition.objective
        )
        self.jobs: list[Job] = jobs_of(definition.plan)
        jobs = {job.entry for job in self.jobs} if self.jobs else None
        ours = row_schema.meta(searched_values(self.space.searched), jobs)
        self.history = History(study, definition.name, ours)
        self._known_as(study)

    def _known_as(self, study: int) -> None:
        """The study's number in the database is this."""
        self._id = self.history.study = study
        self._state = StudyState(study, self.name, self.transaction)
        self._queue = TrialQueue(
            study,
            self.definition,
            space=self.space,
            sampler=self.sampler,
            jobs=self.jobs,
            history=self.history,
            state=self._state,
            transaction=self.transaction,
        )

    # -- opening --------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        url: str | URL,
        definition: StudyDefinition,
        budgets: Budgets | None = None,
        *,
        budget: int | None = None,
        timeout: float | None = None,
        space: Space | None = None,
        application_name: str = "paropt",
    ) -> Study:
        """A new study, or the one of that name, resumed.

        ``budget`` and ``timeout`` are those of ``budgets``, where there is no other. On a resume,
        None leaves a budget as it is and drops a deadline that has passed. ``space`` is the
        definition's, if somebody has read it already.

        Raises:
            StudyError: a study of that name searches something else; both values are named.
            StorageUnreachable: no answer.
        """
        given = budgets or Budgets(budget, timeout)
        initialise(url, application_name)
        engine = open_engine(url, application_name)
        with transaction(engine) as connection:
            lock(connection, "name", definition.name)
            found = trial_rows.find_study(connection, definition.name)
            if found is None:
                definition = definition.filled(
                    complete_sampler(definition.sampler), complete_pruner(definition.pruner)
                )
                # what cannot be sampled is refused before it is kept
                study = cls(engine, 0, definition, space)
                number = trial_rows.create_study(
                    connection,
                    definition.name,
                    definition.metric,
                    {
                        trial_rows.DEFINITION: definition.to_json(),
                        trial_rows.BUDGET: None,
                        **_attributes(given),
                    },
                    definition.direction,
                )
                study._known_as(number)
            else:
                recorded = _recorded(connection, found, definition.name)
                definition = definition.joined_to(recorded)
                trial_rows.set_study_attrs(connection, found, _attributes(given))
                same = space is not None and space.to_json() == definition.space
                study = cls(engine, found, definition, space if same else None)
            study._state.begin(connection, given.timeout)
            return study

    @classmethod
    def load(cls, url: str | URL, name: str, application_name: str = "paropt") -> Study:
        """The study of that name.

        Raises:
            StudyError: there is none, or another program made it.
            StorageUnreachable: no answer.
        """
        with _found(url, name, application_name) as (engine, connection, study):
            return cls(engine, study, _recorded(connection, study, name))

    @staticmethod
    def recorded(url: str | URL, name: str) -> StudyDefinition:
        """The definition of the study of that name; the errors are those of :meth:`load`."""
        with _found(url, name, "paropt") as (engine, connection, study):
            definition = _recorded(connection, study, name)
        engine.dispose()
        return definition

    @staticmethod
    def names(url: str | URL) -> list[str]:
        """The studies that paropt made, in the order of their making; none in an empty database."""
        engine = open_engine(url)
        try:
            with transaction(engine) as connection:
                if not connection.execute(text("SELECT to_regclass('studies')")).scalar():
                    return []
                rows = connection.execute(
                    text(
                        "SELECT study_name FROM studies JOIN study_user_attributes USING (study_id)"
                        " WHERE key = :key ORDER BY study_id"
                    ),
                    {"key": trial_rows.DEFINITION},
                )
                return [name for (name,) in rows]
        finally:
            engine.dispose()

    def close(self) -> None:
        """Gives the connections back."""
        self._engine.dispose()

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def url(self) -> URL:
        return self._engine.url

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction on the study's database."""
        with transaction(self._engine) as connection:
            yield connection

    # -- steering -------------------------------------------------------------------------------

    def state(self) -> State:
        """Whether trials may run; "stop" also when the time is over, or the device hours are.

        Raises:
            StudyEnded: the study was deleted.
        """
        found = self._state.state()
        return "stop" if found == "run" and self._queue.spent() else found

    @property
    def counts_seconds(self) -> bool:
        """Whether it has a budget of device time, as far as was read last."""
        return self._state.device_seconds is not None

    def set_state(self, state: State, why: str = "") -> None:
        """Pauses, stops or resumes the study for all its workers."""
        self._state.set_state(state, why)

    def set_floor(self, floor: Mapping[str, Mapping[str, float]]) -> None:
        """What needs no training: ``{"popularity": {"mrr@20": …}, "cooccurrence": {…}}``."""
        self._state.write(trial_rows.FLOOR, floor)

    def set_note(self, markdown: str) -> None:
        """A text about the study for its readers."""
        self._state.write(trial_rows.NOTE, markdown)

    def set_report(self, report: Mapping[str, Any]) -> None:
        """What a final test found (see docs/final.md)."""
        self._state.write(trial_rows.REPORT, report)

    def report(self) -> dict[str, Any] | None:
        """What :meth:`set_report` was given; None before."""
        found: dict[str, Any] | None = self._state.attributes().get(trial_rows.REPORT)
        return found

    # -- trials ---------------------------------------------------------------------------------

    def next_trial(self, owner: Mapping[str, Any], claim: Claim | None = None) -> Trial | None:
        """A trial to run; see :meth:`paropt.search.study.trial_queue.TrialQueue.next_trial`."""
        return self._queue.next_trial(owner, claim)

    def think_ahead(self) -> None:
        """Lets the sampler of a long study think while a trial runs, for the next call's sake."""
        self._queue.think_ahead()

    def requeue(self, trial_id: int, reason: str, token: str | None = None) -> bool:
        """Takes a trial from an owner that is lost and lets another attempt wait for a slot.

        The lost attempt ends as FAIL, so that its owner can write nothing more; after
        ``MAX_ATTEMPTS`` the configuration has failed for good. With the ``token`` of
        :class:`Running` only that very ownership is ended. False if the trial does not run
        (any more), or under another token.
        """
        with self.transaction() as connection:
            held = trial_rows.hold(connection, trial_id)
            if held is None or held.state != "RUNNING" or (token and held.token != token):
                return False
            meta = held.attrs.get(trial_rows.META)
            if meta is None:  # damaged: nobody can go on with it
                return False
            again = meta["attempt"] < MAX_ATTEMPTS
            end: dict[str, Any] = {"why": LOST if again else "given up", "message": reason}
            if again:
                system = {trial_rows.META: {**meta, "attempt": meta["attempt"] + 1}}
                kept = (trial_rows.CURVE, trial_rows.END)  # END: of one that waited once
                system |= {key: held.attrs[key] for key in kept if key in held.attrs}
                _, end["next"] = trial_rows.copy_trial(
                    connection, trial_id, self._id, system, value=True
                )
            owner = {**held.attrs.get(trial_rows.OWNER, {}), "token": None}
            trial_rows.set_attrs(
                connection, "system", trial_id, {trial_rows.OWNER: owner, trial_rows.END: end}
            )
            trial_rows.set_attrs(connection, "user", trial_id, {"why": f"{end['why']}: {reason}"})
            trial_rows.set_state(connection, trial_id, "FAIL")
            return True

    def retry_failed(self) -> int:
        """Lets what failed wait for a slot once more, from zero; returns how many."""
        with self.transaction() as connection:
            lock(connection, "study", self._id)
            self.history.refresh(connection)
            failed = [record for record in self.history.lineages() if record.failed]
            for record in failed:
                meta = {key: value for key, value in record.meta.items() if key != RETRAINED}
                system = {trial_rows.META: {**meta, "attempt": 1}}
                trial_rows.copy_trial(connection, record.id, self._id, system)
        return len(failed)

    def running(self) -> list[Running]:
        """The trials that run now, with their owners as :meth:`next_trial` got them."""
        self.refresh()
        return [
            Running(
                id=record.id,
                number=record.number,
                root=record.root,
                attempt=record.meta["attempt"],
                owner={key: value for key, value in record.owner.items() if key != "token"},
                token=str(record.owner.get("token")),
            )
            for record in self.history.in_state("RUNNING")
        ]

    # -- results --------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Brings :attr:`history` up to date."""
        with self.transaction() as connection:
            self.history.refresh(connection)

    def counts(self) -> dict[str, int]:
        """Configurations complete, pruned, failed, running and waiting."""
        self.refresh()
        return counts(self.history.lineages())

    def best(self, top: int = 1) -> list[dict[str, Any]]:
        """The ``top`` best trials, best first, as :func:`paropt.search.study.summary.described`."""
        self.refresh()
        best = best_first(self.history.lineages(), self.definition.objective)[:top]
        return [summary.described(record, self.definition.objective) for record in best]

    def front(self) -> list[dict[str, Any]]:
        """The trials of the Pareto front, as :meth:`best`."""
        self.refresh()
        found = front(self.history.lineages(), self.definition)
        return [summary.described(record, self.definition.objective) for record in found]

    def trials(self) -> list[dict[str, Any]]:
        """Every attempt, in order."""
        self.refresh()
        return [summary.described(r, self.definition.objective) for r in self.history.all()]

    def summary(self) -> dict[str, Any]:
        """What ``status STUDY --json`` and ``launch --json`` print, but for the workers."""
        with self.transaction() as connection:
            attrs, now = self._state.read(connection), now_of(connection)
            self.history.refresh(connection)
        return self._summary(attrs, now)

    def _summary(self, attrs: trial_rows.StudyAttributes, now: float) -> dict[str, Any]:
        return summary.summary(
            self.definition,
            self.space,
            self.history.lineages(),
            budget=attrs.get(trial_rows.BUDGET),
            state=attrs.get(trial_rows.STATE, {}),
            floor=attrs.get(trial_rows.FLOOR, {}),
            seconds_left=seconds_left(attrs, now),
            unread=self.history.unread,
            budgets=_used(attrs, self.history, self.definition.objective),
        )

    @classmethod
    def summaries(
        cls, engine: Engine, *, parts: bool
    ) -> Iterator[tuple[str, dict[str, Any] | StudyError]]:
        """Every study's name with its :meth:`summary`, or with why there is none.

        ``parts``: those of final tests, too. All trials are read by few statements, however many
        studies there are.
        """
        with transaction(engine) as connection:
            if not overview_rows.there(connection):
                return
            now = now_of(connection)
            found = list(overview_rows.studies(connection))
            for begin in range(0, len(found), AT_ONCE):
                some = found[begin : begin + AT_ONCE]
                rows = trial_rows.read_trials_of(connection, [study for study, _, _ in some])
                for identity, name, attrs in some:
                    try:
                        study = cls(engine, identity, _as_recorded(attrs, name))
                        if study.jobs and not parts:
                            continue
                        study.history.take(rows[identity])
                        yield name, study._summary(attrs, now)
                    except ParoptError as error:
                        yield name, StudyError(str(error))

    def importances(self) -> list[Importance]:
        """How much the parameters of each model matter, of models with enough trials to say so."""
        self.refresh()
        view = self.sampler.optuna_view(self.history)
        return summary.importances(view, self.space, self.history.lineages())


@contextmanager
def _found(
    url: str | URL, name: str, application_name: str
) -> Iterator[tuple[Engine, Connection, int]]:
    """A transaction on the database of the study of that name, and the study's number."""
    engine = open_engine(url, application_name)
    known = Study.names(url)
    if name not in known:
        raise StudyError(f"there is no study {name!r}; {hint(name, known)}")
    with transaction(engine) as connection:
        found = trial_rows.find_study(connection, name)
        if found is None:
            raise StudyError(f"there is no study {name!r}; it was deleted just now")
        yield engine, connection, found


def _recorded(connection: Connection, study: int, name: str) -> StudyDefinition:
    """What the study was made with, by the name that the database gives it now."""
    return _as_recorded(trial_rows.study_attrs(connection, study), name)


def _as_recorded(attrs: trial_rows.StudyAttributes, name: str) -> StudyDefinition:
    recorded = StudyDefinition.from_json(attrs.get(trial_rows.DEFINITION, {}))
    # what earlier versions made never ends a trial for standing still, nor asks what an epoch costs
    pruner = complete_pruner({"still": 0, **recorded.pruner})
    options = dict(recorded.sampler)
    if options.get("name", DEFAULT_SAMPLER) == DEFAULT_SAMPLER:
        options.setdefault("cost", int(options.pop("cheapest", 1) > 1))
    sampler = complete_sampler(options)
    return replace(recorded, name=name, sampler=sampler, pruner=pruner)


def _attributes(given: Budgets) -> dict[str, float]:
    """The budgets that were said, by the attributes that keep them."""
    said = {
        trial_rows.BUDGET: given.trials,
        trial_rows.DEVICE_SECONDS: given.device_seconds,
        trial_rows.STALE: given.stale,
    }
    return {key: value for key, value in said.items() if value is not None}


def _used(
    attrs: trial_rows.StudyAttributes, history: History, objective: Objective
) -> dict[str, Any]:
    """What a summary has of budgets other than trials and time."""
    device, stale = attrs.get(trial_rows.DEVICE_SECONDS), attrs.get(trial_rows.STALE)
    return {
        "device_seconds": None
        if device is None
        else {"budget": device, "spent": device_seconds(history.all())},
        "stale": None
        if stale is None
        else {"budget": stale, "since_better": since_better(history.lineages(), objective)},
        "over": attrs.get(trial_rows.STATE, {}).get("over", ""),
    }


def hint(name: str, known: list[str]) -> str:
    """What somebody may have meant who asks for a study that isn't there."""
    own = [one for one in known if not of_final_test(one)]  # as 'paropt status' lists them
    if not own:
        return "there are none here yet, 'paropt launch' makes one"
    return did_you_mean(name, known, f"'paropt status' lists them, {own[-1]!r} is the latest")
