"""The final test of a study: what it trains, in which order, and who has looked at a test set.

The best of many noisy trials flatters itself, so a final test has two parts, each a study of its
own that follows a *plan* instead of searching, on the same slots as any other:

1. the K best configurations and a control, with S fresh seeds each, on ``train`` → ``valid``;
   one is chosen by its mean, at the epoch where the mean over its seeds is best;
2. that one and the control, with the same seeds, on ``train_full`` → ``test``, judged once.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.engine import Connection

from paropt.errors import StudyError
from paropt.search.history import Record, best_first, key_of
from paropt.search.parameter import Parameter
from paropt.search.sampling import derived_seed
from paropt.search.spacefile import EPOCHS
from paropt.search.storage import lock
from paropt.search.trial import metrics_at

if TYPE_CHECKING:
    from paropt.search.paramfiles import Paramfile
    from paropt.search.study import Study

CANDIDATES = 3
SEEDS = 5
DEFAULT_EPOCHS = 10


@dataclass(frozen=True)
class Job:
    """One training of a plan: an entry with one of the seeds."""

    entry: str
    model: str
    params: Mapping[str, Any]
    epochs: int
    seed: int
    once: bool

    def to_meta(self) -> dict[str, Any]:
        """As a trial stores it."""
        return {
            "job": self.entry,
            "model": self.model,
            "params": dict(self.params),
            "epochs": self.epochs,
            "seed": self.seed,
            "once": self.once,
        }


@dataclass(frozen=True)
class Entry:
    """A configuration of a plan.

    ``found`` has the search's trial, value and epoch of a candidate; ``source`` says where a
    control is from. One that the search found and that is also the control has both.
    """

    name: str
    model: str
    params: Mapping[str, Any]
    epochs: int
    found: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True)
class Plan:
    """What one part of a final test trains: every entry with every seed.

    ``number`` counts the final tests of the study ``of``. ``once``: judged after the last epoch
    only. ``again`` says that an earlier look at this test set was known.
    """

    of: str
    number: int
    entries: tuple[Entry, ...]
    seeds: tuple[int, ...]
    once: bool = False
    again: bool = False

    def to_json(self) -> dict[str, Any]:
        """What a study's definition holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Plan:
        """Reads what :meth:`to_json` gave.

        Raises:
            StudyError: it isn't a plan that this paropt can read.
        """
        try:
            entries = tuple(Entry(**entry) for entry in stored["entries"])
            return cls(**{**stored, "entries": entries, "seeds": tuple(stored["seeds"])})
        except (KeyError, TypeError) as error:
            raise StudyError(f"the study's plan cannot be read: {error}") from None

    def jobs(self) -> list[Job]:
        """All trainings, one seed of every entry after the other."""
        return [
            Job(e.name, e.model, e.params, e.epochs, seed, self.once)
            for seed in self.seeds
            for e in self.entries
        ]


def jobs_of(plan: Mapping[str, Any]) -> list[Job]:
    """The trainings of a definition's plan; none for a study that searches.

    Raises:
        StudyError: it isn't a plan that this paropt can read.
    """
    return Plan.from_json(plan).jobs() if plan else []


def part_name(study: str, number: int, part: str) -> str:
    """What the study of a part, "valid" or "test", is called."""
    return f"{study}.final-{number}.{part}"


# -- planning -----------------------------------------------------------------------------------


def make_plan(
    study: Study,
    number: int,
    *,
    top: int = CANDIDATES,
    seeds: int = SEEDS,
    control: tuple[str, Paramfile] | None = None,
    again: bool = False,
) -> Plan:
    """The first part of a study's final test: its ``top`` best configurations and a control.

    ``control`` is a paramfile and how to call it. Without one, each candidate's model has its own
    control: the space's first complete start point, which in paropt's spaces is a published
    configuration, else the model's defaults.

    Raises:
        StudyError: no trial has a value yet.
        ParamError: the control's model refuses its parameters.
    """
    study.refresh()
    lineages = study.history.lineages()
    candidates = _candidates(study, best_first(lineages, study.definition.metric), top)
    if not candidates:
        raise StudyError(
            f"study {study.name!r} has no trial with a value yet; "
            f"'paropt launch --study {study.name}' goes on with it"
        )
    if control:
        controls = [_given(*control)]
    else:
        models = dict.fromkeys(entry.model for entry in candidates)
        controls = [_control_of(study, model) for model in models]
    entries = _joined(candidates, controls)
    used = {record.meta["seed"] for record in lineages}
    return Plan(study.name, number, entries, _fresh(study, number, seeds, used), False, again)


def test_plan(plan: Plan, chosen: Judged, control: Judged) -> Plan:
    """The second part: the chosen one and the control, for as many epochs as suited each."""
    both = [chosen] if chosen.entry.name == control.entry.name else [chosen, control]
    entries = tuple(replace(one.entry, epochs=one.epoch) for one in both)
    return replace(plan, entries=entries, once=True)


def _candidates(study: Study, best: Sequence[Record], top: int) -> list[Entry]:
    found: dict[str, Entry] = {}
    for record in best:
        if len(found) == top:
            break
        model, params = record.meta["model"], dict(record.meta["params"])
        fact = {"trial": record.number, "value": record.value, "epoch": record.end.get("epoch")}
        name = f"candidate {len(found) + 1}"
        entry = Entry(name, model, params, int(record.meta["epochs"]), fact)
        found.setdefault(_identity(entry), entry)
    return list(found.values())


def _given(source: str, paramfile: Paramfile) -> Entry:
    return _as_control(paramfile.model, dict(paramfile.params), source, DEFAULT_EPOCHS)


def _control_of(study: Study, model: str) -> Entry:
    space = study.space
    epochs = space.epochs.get(model, DEFAULT_EPOCHS)
    for index, point in enumerate(space.start, 1):
        try:
            config = space.complete(point, _no_choice)
        except LookupError:
            continue
        if config.pop("model") == model:
            return _as_control(model, config, f"start point {index} of the space", epochs)
    return _as_control(model, {}, "the model's defaults", epochs)


def _no_choice(parameter: Parameter) -> Any:
    raise LookupError(parameter.name)


def _as_control(model: str, params: dict[str, Any], source: str, epochs: int) -> Entry:
    from paropt.training import registry

    complete = registry.complete_params(model, params)
    epochs = int(complete.get(EPOCHS, epochs))
    return Entry(f"control {model}", model, params, epochs, source=source)


def _joined(candidates: Sequence[Entry], controls: Sequence[Entry]) -> tuple[Entry, ...]:
    """Nothing is trained twice: a candidate that is a control serves as both."""
    entries = {_identity(entry): entry for entry in candidates}
    for control in controls:
        key = _identity(control)
        entries[key] = replace(entries.get(key, control), source=control.source)
    return tuple(entries.values())


def _identity(entry: Entry) -> str:
    """Equal for equal configurations, whether a default is said or not."""
    from paropt.training import registry

    return key_of({"model": entry.model, **registry.complete_params(entry.model, entry.params)})


def _fresh(study: Study, number: int, seeds: int, used: Container[int]) -> tuple[int, ...]:
    """Seeds that follow from the study's and the final test's number, and that no trial had."""
    drawn = (derived_seed(study.definition.seed, "final", number, i) for i in itertools.count())
    return tuple(itertools.islice((seed for seed in drawn if seed not in used), seeds))


# -- choosing -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judged:
    """An entry after its trainings.

    ``epoch`` is where the mean over the seeds is best; ``values`` are the seeds' at that epoch and
    ``metrics`` all that they reported there; ``ranks`` are their rank tables, packed, if they were
    judged once and by their ranks; ``owners`` are the slots. ``failures`` are the messages of
    trainings without a value; then there is nothing else.
    """

    entry: Entry
    epoch: int = 0
    values: tuple[float, ...] = ()
    curve: tuple[float, ...] = ()
    metrics: tuple[Mapping[str, float], ...] = ()
    ranks: tuple[Mapping[str, Any] | None, ...] = ()
    seconds: float = 0.0
    owners: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        return fmean(self.values)


def judge(study: Study) -> list[Judged]:
    """The entries of a study's plan by what their trainings reported, in the plan's order.

    Only call it when nothing waits or runs. An epoch counts if every seed reached it.
    """
    study.refresh()
    plan = Plan.from_json(study.definition.plan)
    metric = study.definition.metric
    by_entry: dict[str, list[Record]] = {entry.name: [] for entry in plan.entries}
    for record in study.history.lineages():
        by_entry[record.meta["job"]].append(record)
    return [_judged(entry, by_entry[entry.name], metric) for entry in plan.entries]


def _judged(entry: Entry, records: Sequence[Record], metric: str) -> Judged:
    import numpy as np  # here, as every verb imports this module

    failures = tuple(
        f"seed {r.meta['seed']}: {r.end.get('message', '')}" for r in records if not r.scored
    )
    if failures or not records:
        return Judged(entry, failures=failures or ("it was not trained",))
    reached = min(len(record.curve(metric)) for record in records)
    curves = np.array([record.curve(metric)[:reached] for record in records], dtype=np.float64)
    curve = curves.mean(0)  # nan where an epoch was not evaluated
    epoch = int(np.nanargmax(curve)) + 1
    return Judged(
        entry=entry,
        epoch=epoch,
        values=tuple(curves[:, epoch - 1].tolist()),
        curve=tuple(curve.tolist()),
        metrics=tuple(metrics_at(record.curves, epoch) for record in records),
        ranks=tuple(_extra(record, epoch).get("ranks") for record in records),
        seconds=sum(s for r in records for s in r.curves.get("seconds", []) if s is not None),
        owners=tuple(record.owner for record in records),
    )


def _extra(record: Record, epoch: int) -> Mapping[str, Any]:
    extras = record.curves.get("extra", [])
    return extras[epoch - 1] or {} if len(extras) >= epoch else {}


def choose(judged: Sequence[Judged]) -> tuple[Judged, Judged]:
    """The candidate with the best mean, and the control of its model, which may be itself.

    Raises:
        StudyError: no candidate, or no control, was trained with every seed.
    """
    usable = [one for one in judged if not one.failures]
    candidates = [one for one in usable if one.entry.found]
    if not candidates:
        reason = next((f for one in judged for f in one.failures), "there is none")
        raise StudyError(f"no candidate could be trained with every seed; the first: {reason}")
    best = max(candidates, key=lambda one: one.mean)
    controls = [one for one in judged if one.entry.source]
    if len(controls) > 1:
        controls = [one for one in controls if one.entry.model == best.entry.model]
    control = controls[0]
    if control.failures:
        reason = control.failures[0]
        raise StudyError(f"the control could not be trained with every seed: {reason}")
    return best, control


# -- looks at a test set ------------------------------------------------------------------------

_LOOKS = """
CREATE TABLE IF NOT EXISTS paropt_look (
    fingerprint text NOT NULL,
    study       text NOT NULL,
    number      integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (fingerprint, study, number))
"""


@dataclass(frozen=True)
class Look:
    """A final test that judged on a test set."""

    study: str
    number: int
    at: datetime

    def to_json(self) -> dict[str, Any]:
        return {"study": self.study, "number": self.number, "at": self.at.isoformat("T", "seconds")}


def looks(connection: Connection, fingerprint: str) -> list[Look]:
    """Who has looked at the test set of this data, in order."""
    if not connection.execute(text("SELECT to_regclass('paropt_look') IS NOT NULL")).scalar():
        return []
    rows = connection.execute(
        text(
            "SELECT study, number, at FROM paropt_look WHERE fingerprint = :fingerprint"
            " ORDER BY at, study, number"
        ),
        {"fingerprint": fingerprint},
    )
    return [Look(*row) for row in rows]


def check_looks(connection: Connection, fingerprint: str, plan: Plan) -> None:
    """Raises :class:`StudyError` if another final test looked there, and the plan says not again.

    A test set looked at twice is a validation set.
    """
    if plan.again:
        return
    others = [x for x in looks(connection, fingerprint) if (x.study, x.number) != _key(plan)]
    if others:
        first = others[0]
        times = "once" if len(others) == 1 else f"{len(others)} times"
        raise StudyError(
            f"the test set of data {fingerprint[:12]} was looked at {times} (first by study "
            f"{first.study!r} on {first.at:%Y-%m-%d}), and looked at again it is a validation set; "
            "add --again to do so, which the report will say"
        )


def take_look(connection: Connection, fingerprint: str, plan: Plan) -> list[Look]:
    """Count this final test's look, once; all looks up to this one.

    Of two that come at the same time without ``again``, one is refused.

    Raises:
        StudyError: see :func:`check_looks`.
    """
    lock(connection, "looks", "all")
    connection.execute(text(_LOOKS))
    check_looks(connection, fingerprint, plan)
    connection.execute(
        text(
            "INSERT INTO paropt_look (fingerprint, study, number)"
            " VALUES (:fingerprint, :study, :number) ON CONFLICT DO NOTHING"
        ),
        {"fingerprint": fingerprint, "study": plan.of, "number": plan.number},
    )
    found = looks(connection, fingerprint)
    own = [(look.study, look.number) for look in found].index(_key(plan))
    return found[: own + 1]


def _key(plan: Plan) -> tuple[str, int]:
    return plan.of, plan.number
