"""A study: its definition, its budget, and who gets which trial."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

from sqlalchemy import text
from sqlalchemy.engine import URL, Connection, Engine

from paropt.errors import ParoptError, StudyError, did_you_mean
from paropt.search.space.file import EPOCHS, from_json
from paropt.search.space.space import Config, Space
from paropt.search.study import failures, summary
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.history import LOST, History, Record, best_first, counts, searched_values
from paropt.search.study.overview import seconds_left
from paropt.search.study.plan import DEFAULT_EPOCHS, Job, jobs_of
from paropt.search.study.pruning import complete_pruner
from paropt.search.study.sampling import Proposal, Sampler, Undrawn, complete_sampler, derived_seed
from paropt.search.study.summary import Importance
from paropt.search.study.trial import Trial
from paropt.storage import overview_rows, row_schema, trial_rows
from paropt.storage.engine import initialise, lock, open_engine, transaction

State = Literal["run", "pause", "stop"]
Why = Literal["budget", "space", "stopped", "timeout", "failures", "deleted"]

Claim = Callable[[Connection, int], None]

MAX_ATTEMPTS = 3
# from so many trials on, one more tells the sampler little, and it takes long to think
AHEAD = 1000
AT_ONCE = 200  # studies whose trials are read by one statement


class StudyEnded(StudyError):
    """There is nothing more to do in the study; ``reason`` says why, the message in a sentence."""

    def __init__(self, reason: Why, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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
        self._id = study
        self._asking = threading.Lock()
        self._unanswered: str | None = None
        self._proposal: Proposal | None = None
        self._informed = False  # the sampler has a say by now
        self._proposed_at, self._crowded = 0, False  # trials known then; others came since
        self.definition = definition
        self.space = space or from_json(definition.space, f"study {definition.name!r}")
        self.sampler = Sampler(
            self.space, definition.sampler, definition.seed or 0, definition.objective
        )
        self.jobs: list[Job] = jobs_of(definition.plan)
        jobs = {job.entry for job in self.jobs} if self.jobs else None
        ours = row_schema.meta(searched_values(self.space.searched), jobs)
        self.history = History(study, definition.name, ours)

    # -- opening --------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        url: str | URL,
        definition: StudyDefinition,
        *,
        budget: int | None = None,
        timeout: float | None = None,
        space: Space | None = None,
        application_name: str = "paropt",
    ) -> Study:
        """A new study, or the one of that name, resumed.

        ``budget`` is how many distinct configurations end complete or pruned; ``timeout`` is in
        seconds from now. On a resume, None leaves the budget as it is and drops a deadline that
        has passed. ``space`` is the definition's, if somebody has read it already.

        Raises:
            StudyError: a study of that name searches something else; both values are named.
            StorageUnreachable: no answer.
        """
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
                study._id = study.history.study = trial_rows.create_study(
                    connection,
                    definition.name,
                    definition.metric,
                    {trial_rows.DEFINITION: definition.to_json(), trial_rows.BUDGET: budget},
                    definition.direction,
                )
            else:
                recorded = _recorded(connection, found, definition.name)
                definition = _completed(definition).joined_to(recorded)
                if budget is not None:
                    trial_rows.set_study_attrs(connection, found, {trial_rows.BUDGET: budget})
                same = space is not None and space.to_json() == definition.space
                study = cls(engine, found, definition, space if same else None)
            study._begin(connection, timeout)
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

    def _begin(self, connection: Connection, timeout: float | None) -> None:
        now = _now(connection)
        attrs = self._read(connection)
        deadline = attrs.get(trial_rows.DEADLINE) if timeout is None else now + timeout
        if deadline is not None and deadline <= now and timeout is None:
            deadline = None
        changed: dict[str, Any] = {trial_rows.DEADLINE: deadline}
        if attrs.get(trial_rows.STATE, {}).get("state") != "run":
            changed[trial_rows.STATE] = {"state": "run", "since": now}
        trial_rows.set_study_attrs(connection, self._id, changed)

    # -- steering -------------------------------------------------------------------------------

    def _attrs(self) -> trial_rows.StudyAttributes:
        with self.transaction() as connection:
            return self._read(connection)

    def _read(self, connection: Connection) -> trial_rows.StudyAttributes:
        """
        Raises:
            StudyEnded: the study was deleted.
        """
        attrs = trial_rows.study_attrs(connection, self._id)
        if trial_rows.DEFINITION not in attrs:
            raise StudyEnded("deleted", f"study {self.name!r} was deleted")
        return attrs

    def _write(self, key: str, value: Any) -> None:
        with self.transaction() as connection:
            self._keep(connection)
            trial_rows.set_study_attrs(connection, self._id, {key: value})

    def _keep(self, connection: Connection) -> None:
        """Nobody deletes the study until the end of this transaction; raises as :meth:`_read`."""
        row = text("SELECT 1 FROM studies WHERE study_id = :study FOR KEY SHARE")
        connection.execute(row, {"study": self._id})
        self._read(connection)

    def state(self) -> State:
        """Whether trials may run; "stop" also when the time is over.

        Raises:
            StudyEnded: the study was deleted.
        """
        with self.transaction() as connection:
            attrs = self._read(connection)
            if _overdue(connection, attrs):
                return "stop"
        found: State = attrs.get(trial_rows.STATE, {}).get("state", "run")
        return found

    def set_state(self, state: State, why: str = "") -> None:
        """Pauses, stops or resumes the study for all its workers."""
        with self.transaction() as connection:
            self._keep(connection)
            self._set_state(connection, state, {"message": why} if why else {})

    def _set_state(self, connection: Connection, state: State, more: Mapping[str, Any]) -> None:
        value = {"state": state, "since": _now(connection), **more}
        trial_rows.set_study_attrs(connection, self._id, {trial_rows.STATE: value})

    def set_floor(self, floor: Mapping[str, Mapping[str, float]]) -> None:
        """What needs no training: ``{"popularity": {"mrr@20": …}, "cooccurrence": {…}}``."""
        self._write(trial_rows.FLOOR, floor)

    def set_note(self, markdown: str) -> None:
        """A text about the study for its readers."""
        self._write(trial_rows.NOTE, markdown)

    def set_report(self, report: Mapping[str, Any]) -> None:
        """What a final test found (see docs/final.md)."""
        self._write(trial_rows.REPORT, report)

    def report(self) -> dict[str, Any] | None:
        """What :meth:`set_report` was given; None before."""
        found: dict[str, Any] | None = self._attrs().get(trial_rows.REPORT)
        return found

    # -- trials ---------------------------------------------------------------------------------

    def next_trial(self, owner: Mapping[str, Any], claim: Claim | None = None) -> Trial | None:
        """A trial for ``owner`` to run; None while there is nothing to do but others still run.

        Handed back trials come first, then new configurations while the budget lasts. If an answer
        was lost with the connection, the next call returns the trial that it had promised.
        ``claim`` is called with the trial's id in the transaction that gives it out.

        Raises:
            StudyEnded: the budget, the space or the time is used up, the study was stopped or
                deleted, or it paused because its trials fail alike.
            StorageUnreachable: call again.
        """
        with self._asking:
            self._warm_up()
            token = self._unanswered or secrets.token_hex(8)
            self._unanswered = token
            proposal, self._proposal = self._proposal, None
            if proposal is None and self._informed:
                self.refresh()
                proposal = self._propose(token)
            decided = self._ask(owner, claim, token, proposal)
            while isinstance(decided, Undrawn):
                self._informed = True
                proposal = self._propose(token)
                decided = self._ask(owner, claim, token, proposal)
            self._unanswered = None
            if decided is None:
                self._informed = False  # who waits for others need not think each time
        if isinstance(decided, StudyEnded):
            raise decided
        return decided

    def _propose(self, token: str) -> Proposal | None:
        """The sampler's proposal, made without the lock: nobody has to wait while it thinks.

        If others were given trials meanwhile the last time, they now draw from the same history as
        we do: then the token makes ours a proposal of its own.
        """
        self._proposed_at = len(self.history.records)
        return self.sampler.propose(self.history, token if self._crowded else "")

    def _ask(
        self,
        owner: Mapping[str, Any],
        claim: Claim | None,
        token: str,
        proposal: Proposal | None,
    ) -> Trial | StudyEnded | Undrawn | None:
        with self.transaction() as connection:
            lock(connection, "study", self._id)
            self.history.refresh(connection)
            if proposal is not None:
                self._crowded = len(self.history.records) > self._proposed_at
            decided = self._decide(connection, dict(owner), token, proposal)
            if isinstance(decided, Trial) and claim is not None:
                claim(connection, decided.id)
            return decided

    def think_ahead(self) -> None:
        """Lets the sampler of a long study think while a trial runs, for the next call's sake."""
        with self._asking:
            self.refresh()
            if not self.jobs and len(self.history.records) >= AHEAD:
                self._proposal = self.sampler.propose(self.history)
                self._proposed_at = len(self.history.records)

    def _warm_up(self) -> None:
        """Imports, and reads a long history, before the lock that all workers queue for."""
        if not self.history.records:
            self.refresh()
            self.sampler.optuna_view(self.history)

    def _decide(
        self,
        connection: Connection,
        owner: dict[str, Any],
        token: str,
        proposal: Proposal | None,
    ) -> Trial | StudyEnded | Undrawn | None:
        running = self.history.in_state("RUNNING")
        for record in running:
            if record.owner.get("token") == token:
                return self._trial(record, token)
        attrs = self._read(connection)
        if ended := self._ended(connection, attrs):
            return ended
        if attrs.get(trial_rows.STATE, {}).get("state") == "pause":
            return None
        for record in self.history.in_state("WAITING"):
            if taken := self._take(connection, record, owner, token):
                return taken
        meta = self._next_job() if self.jobs else self._draw(attrs.get(trial_rows.BUDGET), proposal)
        if isinstance(meta, Undrawn):
            return meta
        if isinstance(meta, StudyEnded):
            return None if running else meta
        return self._new(connection, meta, owner, token)

    def _trial(self, record: Record, token: str) -> Trial:
        return Trial(self.definition, self.history, self.transaction, record, token)

    def _ended(
        self, connection: Connection, attrs: trial_rows.StudyAttributes
    ) -> StudyEnded | None:
        state = attrs.get(trial_rows.STATE, {})
        if state.get("state") == "stop":
            return StudyEnded("stopped", f"study {self.name!r} was stopped")
        if state.get("state") == "pause":
            message = state.get("failures")
            return StudyEnded("failures", message) if message else None
        if _overdue(connection, attrs):
            message = f"study {self.name!r} has had the time that --timeout gave it"
            return StudyEnded("timeout", message)
        message = failures.alike(self.history.lineages(), state.get("since", 0.0), self.name)
        if message:
            self._set_state(connection, "pause", {"failures": message})
            return StudyEnded("failures", message)
        return None

    def _take(
        self, connection: Connection, record: Record, owner: dict[str, Any], token: str
    ) -> Trial | None:
        held = trial_rows.hold(connection, record.id)
        if held is None or held.state != "WAITING":
            return None
        trial_rows.set_state(connection, record.id, "RUNNING")
        trial_rows.set_attrs(
            connection, "system", record.id, {trial_rows.OWNER: {**owner, "token": token}}
        )
        shown = {"model": record.meta["model"], "attempt": record.meta["attempt"]}
        trial_rows.set_attrs(connection, "user", record.id, {**shown, **_shown_owner(owner)})
        return self._trial(record, token)

    def _new(
        self, connection: Connection, meta: dict[str, Any], owner: dict[str, Any], token: str
    ) -> Trial:
        user = {"model": meta["model"], "attempt": 1, **_shown_owner(owner)}
        if "job" in meta:
            user |= {"job": meta["job"], "seed": meta["seed"]}
        params = self.sampler.stored(meta["searched"])
        system = {trial_rows.OWNER: {**owner, "token": token}}
        trial, number = trial_rows.insert_trial(
            connection, self._id, "RUNNING", params, system, user
        )
        meta["root"] = number
        trial_rows.set_attrs(connection, "system", trial, {trial_rows.META: meta})
        record = Record(trial, number, "RUNNING", None, None, None, meta, {}, {}, {})
        return self._trial(record, token)

    def _draw(
        self, budget: int | None, proposal: Proposal | None
    ) -> dict[str, Any] | Undrawn | StudyEnded:
        found = counts(self.history.lineages())
        done = found["complete"] + found["pruned"]
        if budget is not None and done + found["running"] + found["waiting"] >= budget:
            return StudyEnded("budget", f"study {self.name!r} has its {budget} trials")
        config = self.sampler.choose(self.history, proposal)
        if isinstance(config, Undrawn):
            return config
        if config is None:
            message = f"study {self.name!r} has tried all {self.sampler.size:g} configurations"
            return StudyEnded("space", message)
        return self._meta(config)

    def _next_job(self) -> dict[str, Any] | StudyEnded:
        """The plan's next job, whatever became of the earlier ones."""
        done = {record.meta["index"] for record in self.history.lineages()}
        index = next((index for index in range(len(self.jobs)) if index not in done), None)
        if index is None:
            return StudyEnded("budget", f"study {self.name!r} has trained all of its plan")
        return {"index": index, "attempt": 1, "searched": {}, **self.jobs[index].to_meta()}

    def _meta(self, config: Config) -> dict[str, Any]:
        index = len(self.history.lineages())
        model = str(config["model"])
        params = {name: value for name, value in config.items() if name != "model"}
        return {
            "index": index,
            "attempt": 1,
            "model": model,
            "params": params,
            "searched": self.sampler.searched(config),
            "seed": derived_seed(self.definition.seed, "training", index),
            "epochs": int(params.get(EPOCHS, self.space.epochs.get(model, DEFAULT_EPOCHS))),
        }

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
                if trial_rows.CURVE in held.attrs:
                    system[trial_rows.CURVE] = held.attrs[trial_rows.CURVE]
                _, end["next"] = trial_rows.copy_trial(connection, trial_id, self._id, system)
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
                system = {trial_rows.META: {**record.meta, "attempt": 1}}
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

    def trials(self) -> list[dict[str, Any]]:
        """Every attempt, in order."""
        self.refresh()
        return [summary.described(r, self.definition.objective) for r in self.history.all()]

    def summary(self) -> dict[str, Any]:
        """What ``status STUDY --json`` and ``launch --json`` print, but for the workers."""
        with self.transaction() as connection:
            attrs, now = self._read(connection), _now(connection)
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
            now = _now(connection)
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

    def importances(self) -> dict[str, float]:
        """How much each searched parameter matters, from 0 to 1; empty while that is unknown."""
        self.refresh()
        return summary.importances(self.sampler.optuna_view(self.history))

    def importances_by_model(self) -> list[Importance]:
        """How much the parameters of each model matter, of models with enough trials to say so."""
        self.refresh()
        memory = self.sampler.optuna_view(self.history)
        return summary.importances_by_model(memory, self.space, self.history.lineages())


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


def _completed(definition: StudyDefinition) -> StudyDefinition:
    """What was said of sampler and pruner, with its defaults; unsaid stays unsaid."""
    return replace(
        definition,
        sampler=complete_sampler(definition.sampler) if definition.sampler else {},
        pruner=complete_pruner(definition.pruner) if definition.pruner else {},
    )


def _recorded(connection: Connection, study: int, name: str) -> StudyDefinition:
    """What the study was made with, by the name that the database gives it now."""
    return _as_recorded(trial_rows.study_attrs(connection, study), name)


def _as_recorded(attrs: trial_rows.StudyAttributes, name: str) -> StudyDefinition:
    recorded = StudyDefinition.from_json(attrs.get(trial_rows.DEFINITION, {}))
    sampler, pruner = complete_sampler(recorded.sampler), complete_pruner(recorded.pruner)
    return replace(recorded, name=name, sampler=sampler, pruner=pruner)


def _now(connection: Connection) -> float:
    """Seconds since 1970 by the server's clock, the only one that all workers share."""
    found = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    return float(found)


def _overdue(connection: Connection, attrs: trial_rows.StudyAttributes) -> bool:
    deadline = attrs.get(trial_rows.DEADLINE)
    return deadline is not None and _now(connection) >= deadline


def _shown_owner(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {key: owner[key] for key in ("host", "device", "slot") if key in owner}


def hint(name: str, known: list[str]) -> str:
    """What somebody may have meant who asks for a study that isn't there."""
    if not known:
        return "there are none here yet, 'paropt launch' makes one"
    return did_you_mean(name, known, f"'paropt status' lists them, {known[-1]!r} is the latest")
