"""Who gets which trial: those that wait, then new configurations while the budget lasts."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from sqlalchemy.engine import Connection

from paropt.search.history import failures
from paropt.search.history.budgets import device_seconds, since_better
from paropt.search.history.history import History, Record, best_first, counts
from paropt.search.space.file import EPOCHS
from paropt.search.space.space import Config, Space
from paropt.search.strategy.first_looks import FirstLook, gave_way, unseen
from paropt.search.strategy.sampling import Proposal, Sampler, Undrawn, derived_seed
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.plan import DEFAULT_EPOCHS, Job
from paropt.search.study.state import (
    StudyEnded,
    StudyState,
    Transaction,
    now_of,
    overdue,
    seconds_left,
)
from paropt.search.study.trial import Trial
from paropt.storage import trial_rows
from paropt.storage.engine import lock

Claim = Callable[[Connection, int], None]

# from so many trials on, one more tells the sampler little, and it takes long to think
AHEAD = 1000


class TrialQueue:
    """Hands out the trials of one study, to one process. Threads may share it."""

    def __init__(
        self,
        study: int,
        definition: StudyDefinition,
        *,
        space: Space,
        sampler: Sampler,
        jobs: list[Job],
        history: History,
        state: StudyState,
        transaction: Transaction,
    ) -> None:
        self._study, self.definition, self.name = study, definition, definition.name
        self.space, self.sampler, self.jobs = space, sampler, jobs
        self.history, self._state, self._transaction = history, state, transaction
        self._asking = threading.Lock()
        self._unanswered: str | None = None
        self._proposal: Proposal | None = None
        self._informed = False  # the sampler has a say by now
        self._proposed_at, self._crowded = 0, False  # trials known then; others came since

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
                self._refresh()
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

    def _refresh(self) -> None:
        with self._transaction() as connection:
            self.history.refresh(connection)

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
        with self._transaction() as connection:
            lock(connection, "study", self._study)
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
            self._refresh()
            if not self.jobs and len(self.history.records) >= AHEAD:
                self._proposal = self.sampler.propose(self.history)
                self._proposed_at = len(self.history.records)

    def _warm_up(self) -> None:
        """Imports, and reads a long history, before the lock that all workers queue for."""
        if not self.history.records:
            self._refresh()
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
        attrs = self._state.read(connection)
        if ended := self._ended(connection, attrs):
            if ended.reason == "spent":
                self._state.say_over(connection, ended)
            return ended
        if attrs.get(trial_rows.STATE, {}).get("state") == "pause":
            return None
        waiting = self.history.in_state("WAITING")
        if waiting and not self.jobs and (over := self._has_its_trials(attrs)):
            return over  # those wait for a larger budget
        put_off = [record for record in waiting if gave_way(record)]
        for record in waiting:
            if record not in put_off and (taken := self._take(connection, record, owner, token)):
                return taken
        if put_off and not unseen(self.sampler.starting, self.history.lineages()):
            if taken := self._take_best(connection, put_off, owner, token):
                return taken
            put_off = []
        meta = self._next_job() if self.jobs else self._draw(attrs, proposal)
        if isinstance(meta, Undrawn):
            return meta
        if isinstance(meta, StudyEnded):
            if taken := self._take_best(connection, put_off, owner, token):
                return taken
            if meta.reason in ("stale", "space") and not running:
                self._state.say_over(connection, meta)
            return None if running else meta
        return self._new(connection, meta, owner, token)

    def _trial(self, record: Record, token: str) -> Trial:
        look = None if self.jobs else self._first_look
        return Trial(self.definition, self.history, self._transaction, record, token, look)

    @cached_property
    def _first_look(self) -> FirstLook:
        models, objective = self.sampler.starting, self.definition.objective
        return FirstLook(self.history, objective, models, self._seconds_left)

    def _seconds_left(self, connection: Connection, slots: int) -> float | None:
        """How long so many slots may go on; None without a limit."""
        attrs = self._state.read(connection)
        left = [seconds_left(attrs, now_of(connection))]
        if (budget := attrs.get(trial_rows.DEVICE_SECONDS)) is not None:
            left.append((budget - device_seconds(self.history.all())) / slots)
        return min((seconds for seconds in left if seconds is not None), default=None)

    def _take_best(
        self, connection: Connection, put_off: list[Record], owner: dict[str, Any], token: str
    ) -> Trial | None:
        """Of those that gave way the best goes on first."""
        for record in best_first(put_off, self.definition.objective):
            if taken := self._take(connection, record, owner, token):
                return taken
        return None

    def _ended(
        self, connection: Connection, attrs: trial_rows.StudyAttributes
    ) -> StudyEnded | None:
        state = attrs.get(trial_rows.STATE, {})
        if state.get("state") == "stop":
            return StudyEnded("stopped", f"study {self.name!r} was stopped")
        if overdue(connection, attrs):  # also while it pauses: nobody is to wait for that
            message = f"study {self.name!r} has had the time that --timeout gave it"
            return StudyEnded("timeout", message)
        if spent := self._spent(attrs.get(trial_rows.DEVICE_SECONDS)):
            return spent
        if state.get("state") == "pause":
            failed = state.get("failures")
            return StudyEnded("failures", failed) if failed else None
        alike = failures.alike(self.history.lineages(), state.get("since", 0.0), self.name)
        if alike:
            self._state.set_in(connection, "pause", {"failures": alike})
            return StudyEnded("failures", alike)
        return None

    def spent(self) -> bool:
        """Whether the device hours, if there is a budget of them, are used up by now."""
        if self._state.device_seconds is None:
            return False
        self._refresh()
        return self._spent(self._state.device_seconds) is not None

    def _spent(self, budget: float | None) -> StudyEnded | None:
        if budget is None or device_seconds(self.history.all()) < budget:
            return None
        hours = f"{budget / 3600:.12g}"
        message = f"study {self.name!r} has used the {hours} device hours that --device-hours gave"
        return StudyEnded("spent", message)

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
            connection, self._study, "RUNNING", params, system, user
        )
        meta["root"] = number
        trial_rows.set_attrs(connection, "system", trial, {trial_rows.META: meta})
        record = Record(trial, number, "RUNNING", None, None, None, meta, {}, {}, {})
        return self._trial(record, token)

    def _draw(
        self, attrs: trial_rows.StudyAttributes, proposal: Proposal | None
    ) -> dict[str, Any] | Undrawn | StudyEnded:
        stale = attrs.get(trial_rows.STALE)
        lineages = self.history.lineages()
        found = counts(lineages)
        at_work = found["running"] + found["waiting"]
        if over := self._has_its_trials(attrs, at_work):
            return over
        if stale is not None:
            since = since_better(lineages, self.definition.objective)
            if since + at_work >= stale:  # one of those at work may be better
                message = f"study {self.name!r} has found nothing better in its last {since} trials"
                return StudyEnded("stale", message)
        config = self.sampler.choose(self.history, proposal)
        if isinstance(config, Undrawn):
            return config
        if config is None:
            message = f"study {self.name!r} has tried all {self.sampler.size:g} configurations"
            return StudyEnded("space", message)
        return self._meta(config)

    def _has_its_trials(
        self, attrs: trial_rows.StudyAttributes, at_work: int = 0
    ) -> StudyEnded | None:
        """The end of a study whose budget those that are done, and so many others, use up."""
        budget, found = attrs.get(trial_rows.BUDGET), counts(self.history.lineages())
        if budget is None or found["complete"] + found["pruned"] + at_work < budget:
            return None
        has = "trial" if budget == 1 else f"{budget} trials"
        return StudyEnded("budget", f"study {self.name!r} has its {has}")

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


def _shown_owner(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {key: owner[key] for key in ("host", "device", "slot") if key in owner}
