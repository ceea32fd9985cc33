"""All that a page says of a search: what was searched on what, and what was found.

It is made of a study, or read from a report's JSON, where the database is elsewhere. Reports of
paropt 0.1 hold less; what they do not know is empty, and pages leave it out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from paropt.results.spend_curve import points
from paropt.search.history.history import Record, best_first
from paropt.search.space import table
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.search.study.summary import Importance, below_floor, described
from paropt.training.evaluation.objective import Objective
from paropt.training.metrics import Direction

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Some = TypeVar("Some", bound=DataclassInstance)

BEST = 10  # trials that are told in full
CURVES = 100  # beyond these they cannot be told apart
FAILURES = 5  # that are told with their message

Json = Mapping[str, Any]


@dataclass(frozen=True)
class DatasetFacts:
    """Of the dataset's ``meta.json``: what was made of which files.

    ``splits`` has of each split its ``events``, ``sessions``, ``items`` and ``targets``; ``funnel``
    has the steps of the preparation, each with what it left.
    """

    format_name: str = ""
    protocol: str = ""
    has_times: bool = True
    sources: Sequence[str] = ()
    items: Mapping[str, int] = field(default_factory=dict)
    splits: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    funnel: Sequence[Json] = ()
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, definition: StudyDefinition) -> DatasetFacts | None:
        """None where the study's very data cannot be looked at from here."""
        try:
            meta = json.loads((Path(definition.data_path) / "meta.json").read_text("utf-8"))
            return read(cls, meta) if meta["fingerprint"] == definition.fingerprint else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


@dataclass(frozen=True)
class TrialFacts:
    """A trial. ``outcome`` is complete, pruned, failed, running or waiting; ``epoch`` is the best,
    ``epochs`` are those that were run, of ``planned`` ones; ``seconds`` are of its device.

    ``steady`` is what trials are ranked by, the mean of the three best epochs. ``interval`` covers
    the value at 95 %; ``targets`` were ranked and ``unknown`` ones left out, as training never saw
    their item; ``with_misses`` is the value that counts these as misses. ``tied`` is the share of
    targets with the score of another item; ``conservative`` metrics count these against.
    ``stage`` names the part of the training that the best epoch is of, where there are several.
    ``given`` are columns of the targets themselves that the model was told.
    """

    trial: int
    outcome: str
    model: str
    params: Json = field(default_factory=dict)
    value: float | None = None
    steady: float | None = None
    interval: Sequence[float] | None = None
    epoch: int | None = None
    epochs: int = 0
    planned: int = 0
    curve: Sequence[float | None] = ()
    seconds: float = 0.0
    why: str = ""
    message: str = ""
    metrics: Json = field(default_factory=dict)
    targets: int | None = None
    unknown: int | None = None
    sessions: int | None = None
    with_misses: float | None = None
    tied: float | None = None
    conservative: Mapping[str, float] | None = None
    stage: str | None = None
    given: Sequence[str] | None = None

    @classmethod
    def of(cls, record: Record, objective: Objective) -> TrialFacts:
        found = described(record, objective)
        planned = int(record.meta["epochs"])
        more = {"outcome": record.outcome, "planned": planned, "why": found["why"] or ""}
        return read(cls, {**found, **more})

    @property
    def unspent(self) -> float:
        """The device seconds that a pruned trial would have gone on for, at its own speed."""
        if self.outcome != "pruned" or not self.epochs:
            return 0.0
        return self.seconds / self.epochs * (self.planned - self.epochs)


@dataclass(frozen=True)
class Searched:
    """A search. ``best`` are its ten best trials, ``curves`` the latest hundred and the best,
    without parameters; ``failed`` counts failures by their kind, ``failures`` are the latest.

    ``points`` are of :mod:`paropt.results.spend_curve`, ``space`` of
    :func:`paropt.search.space.table.as_object`; ``saved`` are the device seconds that pruned trials
    would have taken at their own speed; ``part_of`` names the study whose final test it is part of.
    """

    name: str
    metric: str
    fingerprint: str
    data: str
    direction: Direction = "maximize"
    semantics: int = 1
    versions: Mapping[str, str] = field(default_factory=dict)
    ties: str = "standard"
    evaluation: str = ""
    begin: Mapping[str, str] = field(default_factory=dict)  # the model that its trials begin with
    split: str = "train → valid"
    seed: int | None = None
    part_of: str = ""
    state: str = "run"
    why: str = ""
    budget: int | None = None
    over: str = ""  # why it is over: "budget", "stale", "space"
    sampler: Json = field(default_factory=dict)
    pruner: Json = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)
    floor: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    runner_up: Json | None = None
    unread: int = 0
    points: Sequence[Json] = ()
    by_model: Json | None = None
    devices: Sequence[str] = ()
    space: Json = field(default_factory=dict)
    dataset: DatasetFacts | None = None
    best: Sequence[TrialFacts] = ()
    curves: Sequence[TrialFacts] = ()
    failed: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[TrialFacts] = ()
    importances: Sequence[Importance] = ()
    spent: float = 0.0
    saved: float = 0.0
    constraints: Json | None = None
    pareto: Json | None = None

    @property
    def models(self) -> list[str]:
        """The models of the space; in a report that does not say it, those of its trials."""
        told: list[str] = list(self.space.get("models", ()))
        return told or list(dict.fromkeys(str(point.get("model", "")) for point in self.points))

    @property
    def objective(self) -> Objective:
        return Objective(self.metric, self.direction)

    @property
    def below_floor(self) -> list[str]:
        """What needs no training and is as good as the best trial, or better."""
        return below_floor(self.best[0].value if self.best else None, self.floor, self.objective)

    def ranked(self, models: Sequence[Json]) -> list[Json]:
        """Rows of ``by_model``, best first; those without a value last."""
        worth = [row.get("steady", row["best"]) for row in models]
        keys = [(v is not None, self.objective.key(v or 0.0)) for v in worth]
        order = sorted(range(len(models)), key=lambda place: keys[place], reverse=True)
        return [models[place] for place in order]

    @property
    def floors(self) -> dict[str, float]:
        """What needs no training, by this search's metric."""
        found = {name: self.objective.of(values) for name, values in self.floor.items()}
        return {name: value for name, value in found.items() if value is not None}

    @classmethod
    def of(cls, study: Study) -> Searched:
        """Brought up to date."""
        spend = points(study)  # refreshes the history
        summary, definition = study.summary(), study.definition
        objective, lineages = definition.objective, study.history.lineages()
        ranked = best_first(lineages, objective)
        trials = [TrialFacts.of(record, objective) for record in lineages]
        failures = [trial for trial in trials if trial.outcome == "failed"]
        return cls(
            name=definition.name,
            metric=definition.metric,
            direction=objective.direction,
            evaluation=definition.protocol.words(),
            ties=definition.protocol.ties,
            fingerprint=definition.fingerprint,
            data=definition.data_path,
            semantics=definition.semantics,
            versions=dict(definition.versions),
            seed=definition.seed,
            begin=dict(definition.begin),
            part_of=str(definition.plan.get("of", "")),
            state=summary["state"],
            why=summary["why"],
            budget=summary["budget"],
            over=summary["over"],
            sampler=dict(definition.sampler),
            pruner=dict(definition.pruner),
            counts=summary["counts"],
            epochs=summary["epochs"],
            constraints=summary["constraints"],
            pareto=summary["pareto"],
            floor=summary["floor"],
            runner_up=summary["runner_up"],
            unread=summary["unread"],
            points=[point.to_json() for point in spend],
            by_model=summary["by_model"],
            devices=sorted({str(r.owner["device"]) for r in lineages if r.owner.get("device")}),
            space=table.as_object(study.space),
            dataset=DatasetFacts.of(definition),
            best=[TrialFacts.of(record, objective) for record in ranked[:BEST]],
            curves=_told_apart(trials, ranked),
            failed=dict(Counter(trial.why or "unknown" for trial in failures)),
            failures=failures[-FAILURES:],
            importances=study.importances(),
            spent=spend[-1].spent if spend else 0.0,
            saved=sum(trial.unspent for trial in trials),
        )

    def to_json(self) -> dict[str, Any]:
        """What a report holds under ``search``."""
        stored = asdict(self)
        for name in _BESIDE:
            del stored[name]
        return {**stored, "best": stored["best"][0] if self.best else None, "ten": stored["best"]}

    @classmethod
    def from_json(cls, report: Json) -> Searched:
        """Of a whole report.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        stored = report["search"]
        ten = stored.get("ten") or ([stored["best"]] if stored["best"] else [])
        beside = {name: report[name] for name in _BESIDE if name in report}
        dataset = stored.get("dataset")
        nested = {
            "name": report["study"],
            "best": [read(TrialFacts, {"outcome": "complete", **trial}) for trial in ten],
            "curves": [read(TrialFacts, trial) for trial in stored.get("curves", ())],
            "failures": [read(TrialFacts, trial) for trial in stored.get("failures", ())],
            "importances": [read(Importance, one) for one in stored.get("importances", ())],
            "dataset": read(DatasetFacts, dataset) if dataset else None,
        }
        return read(cls, {**stored, **beside, **nested})


# what stands at the top of a report, as its test is of the same
_BESIDE = ("name", "metric", "fingerprint", "data", "semantics", "versions", "ties", "devices")


def read(kind: type[Some], stored: Json) -> Some:
    """A dataclass of a JSON object, which may hold more, or less where there are defaults."""
    known = {one.name for one in fields(kind)}
    return kind(**{key: value for key, value in stored.items() if key in known})


def _told_apart(trials: Sequence[TrialFacts], ranked: Sequence[Record]) -> list[TrialFacts]:
    """The latest with a curve, and the best: figures draw these."""
    run = [trial for trial in trials if trial.curve]
    best = ranked[0].number if ranked else None
    kept = [t for t in run[:-CURVES] if t.trial == best] + run[-CURVES:]
    return [
        TrialFacts(t.trial, t.outcome, t.model, value=t.value, curve=t.curve, epochs=t.epochs)
        for t in kept
    ]
