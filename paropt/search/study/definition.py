"""What defines a study, stored with it and compared whenever somebody joins."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from paropt.errors import ParamError, StudyError
from paropt.storage import row_schema
from paropt.storage.leases import HEARTBEAT
from paropt.training.evaluation.limits import Limit, read_stored
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.metrics import Direction, direction_of
from paropt.training.semantics import DEFAULT_SEED

# 2 added how trials are judged, 3 limits and a model that trials begin with, 4 its optimiser's
# state; who reads less would judge, choose, or begin otherwise
FORMAT = 4
SHOWN = 12  # characters of a fingerprint in messages

_NAMES = {
    "metric": "metric",
    "direction": "direction",
    "also": "further metrics",
    "fingerprint": "data fingerprint",
    "view": "view of the data",
    "semantics": "version of the training semantics",
}


@dataclass(frozen=True)
class StudyDefinition:
    """Everything that makes two studies comparable.

    ``space`` is :meth:`Space.to_json`'s object; ``metric`` and ``direction`` are those of an
    :class:`Objective` (``mrr@20``, "maximize"); ``at`` lists the cut-offs to evaluate and ``also``
    further metrics; ``evaluation`` is an :class:`EvaluationProtocol`'s object, empty in studies of
    paropt 0.1. ``semantics`` is raised only when the
    same parameters would give other numbers. An empty ``sampler`` or ``pruner`` and a ``seed`` of
    None take what the study has, or the defaults for a new one. ``heartbeat`` is in seconds.
    ``added`` are digests of what the space reads of what was added to the data since they were
    prepared (semantic ids): the fingerprint says nothing of it.
    ``constraints`` are the texts of what trials must keep to
    (:mod:`paropt.training.evaluation.limits`). ``directions`` says what is better of those in
    ``also`` that a model reports of itself, where that is less.
    ``begin`` says which saved model every trial begins with, if any: the kind of ``model``, the
    ``path`` where it was, and the ``digest`` of its weights, by which it is known; ``optimiser`` is
    the digest of what its optimiser had gathered, where trials begin with that, too.
    A ``plan`` (:mod:`paropt.search.study.plan`) makes it a study that searches nothing: it trains
    what the plan lists.
    """

    name: str
    space: Mapping[str, Any]
    metric: str
    at: list[int]
    data_path: str
    fingerprint: str
    direction: Direction = "maximize"
    also: list[str] = field(default_factory=list)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    view: str = "search"
    semantics: int = 1
    seed: int | None = None
    sampler: Mapping[str, Any] = field(default_factory=dict)
    pruner: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    heartbeat: float = HEARTBEAT
    plan: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, str] = field(default_factory=dict)
    constraints: list[str] = field(default_factory=list)
    directions: Mapping[str, Direction] = field(default_factory=dict)
    begin: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def objective(self) -> Objective:
        """What the study looks for."""
        return Objective(self.metric, self.direction, self._limits())

    def _limits(self) -> tuple[Limit, ...]:
        try:
            return read_stored(self.constraints)
        except ParamError as error:
            raise StudyError(f"the study's definition is damaged: {error}") from None

    @property
    def beside(self) -> dict[str, Direction]:
        """What is recorded beside the objective for its own sake, and what is better of each.

        Nothing of a part of a final test, which has no front: it trains what was chosen already.
        """
        if self.plan:
            return {}
        others = (name for name in self.also if name != self.metric)
        return {name: self.directions.get(name) or direction_of(name) for name in others}

    @property
    def recorded(self) -> list[str]:
        """The metrics and measures beside the objective that its trials report."""
        named = [*self.also, *(limit.name for limit in self.objective.limits)]
        return list(dict.fromkeys(named))

    @property
    def protocol(self) -> EvaluationProtocol:
        """How its trials are judged."""
        return EvaluationProtocol.from_json(self.evaluation)

    def to_json(self) -> dict[str, Any]:
        found = {"format": FORMAT if "optimiser" in self.begin else 3, **asdict(self)}
        later = [name for name in ("constraints", "begin") if not found[name]]
        for name in later:  # then it is what versions before wrote, and read
            del found[name]
        if len(later) == 2:
            found["format"] = 2
        if not self.directions:
            del found["directions"]
        return found

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> StudyDefinition:
        """Reads what :meth:`to_json` gave.

        Raises:
            StudyError: it is of a newer format, damaged, or no definition at all.
        """
        if not isinstance(stored, Mapping) or type(stored.get("format")) is not int:
            raise StudyError("the study was not made by paropt")
        if stored["format"] > FORMAT:
            raise StudyError(
                f"the study is of format {stored['format']}, and this paropt reads up to {FORMAT}; "
                "use the version that made it"
            )
        known = {f.name for f in fields(cls)}
        if fault := row_schema.DEFINITION.fault(stored):
            raise StudyError(f"the study's definition is damaged: it{fault}")
        found = cls(**{key: value for key, value in stored.items() if key in known})
        _ = found.objective  # its limits can be read
        return found

    def joined_to(self, recorded: StudyDefinition) -> StudyDefinition:
        """The recorded definition, if this one may go on with it.

        Raises:
            StudyError: they differ in what may not; names both values.
        """
        for key, words in _NAMES.items():
            ours, theirs = getattr(self, key), getattr(recorded, key)
            if ours != theirs:
                if key == "fingerprint":
                    ours, theirs = ours[:SHOWN], theirs[:SHOWN]
                raise StudyError(
                    f"study {self.name!r} has the {words} {theirs!r}, not {ours!r}; "
                    "give it what it has, or launch under another name"
                )
        recorded.check_added(self.added)
        recorded.check_begin(self.begin)
        if self.protocol != recorded.protocol:
            raise StudyError(
                f"study {self.name!r} is judged with {recorded.protocol.words()}, not "
                f"{self.protocol.words()}; give it what it has, or launch under another name"
            )
        if difference := _difference(_compared(self.space), _compared(recorded.space)):
            raise StudyError(
                f"study {self.name!r} searches another space: {difference}; "
                "launch under another name"
            )
        for key in ("sampler", "pruner"):
            ours, theirs = getattr(self, key), getattr(recorded, key)
            # options that are not said are as the study has them
            if any(theirs.get(option) != value for option, value in ours.items()):
                raise StudyError(
                    f"study {self.name!r} has the {key} {json.dumps(theirs)}, "
                    f"not {json.dumps(ours)}; leave it out, or launch under another name"
                )
        if self.constraints and self.constraints != recorded.constraints:
            has = " and ".join(recorded.constraints) or "no constraint"
            raise StudyError(
                f"study {self.name!r} has {has}, not {' and '.join(self.constraints)}: what its "
                "trials are compared by; leave --constraint out, or launch under another name"
            )
        if difference := _difference(_plain(self.plan), _plain(recorded.plan)):
            raise StudyError(f"study {self.name!r} follows another plan: {difference}")
        if self.seed is not None and self.seed != recorded.seed:
            raise StudyError(
                f"study {self.name!r} has the seed {recorded.seed}, not {self.seed}; "
                "leave it out, or launch under another name"
            )
        return recorded

    def check_added(self, added: Mapping[str, str]) -> None:
        """Whether data have what was added to them and is read here, by digests.

        Raises:
            StudyError: it was made anew since, or isn't there.
        """
        for name, digest in self.added.items():
            if added.get(name) != digest:
                what = "was made anew since" if name in added else "is not there"
                raise StudyError(
                    f"study {self.name!r} reads {name!r} of the data, which {what}; add it as it"
                    " was, or launch under another name"
                )

    def check_begin(self, begin: Mapping[str, str]) -> None:
        """Whether trials that begin with this model are the study's.

        Raises:
            StudyError: they begin with another, or with none.
        """
        ours, theirs = begin.get("digest"), self.begin.get("digest")
        if ours == theirs:
            if ours is not None:
                self.check_optimiser(kept="optimiser" in begin)
            return
        if theirs is None:
            raise StudyError(
                f"study {self.name!r} begins with no saved model; leave --from out, or launch "
                "under another name"
            )
        what = f"{self.begin['path']}, whose weights have the digest {theirs[:SHOWN]}"
        if ours is None:
            raise StudyError(f"study {self.name!r} begins with {what}; say so with --from")
        raise StudyError(
            f"study {self.name!r} begins with {what}, not {ours[:SHOWN]}; give it what it has, or "
            "launch under another name"
        )

    def check_optimiser(self, *, kept: bool) -> None:
        """Whether the study's trials begin with what the model's optimiser had gathered, or anew.

        Raises:
            StudyError: they don't as ``kept`` says.
        """
        if kept and "optimiser" not in self.begin:
            raise StudyError(
                f"study {self.name!r} begins with a new optimiser; leave --keep-optimiser out, or "
                "launch under another name"
            )
        if not kept and "optimiser" in self.begin:
            raise StudyError(
                f"study {self.name!r} begins with what the model's optimiser had gathered; say so "
                "with --keep-optimiser, or launch under another name"
            )

    def filled(self, sampler: Mapping[str, Any], pruner: Mapping[str, Any]) -> StudyDefinition:
        """A new study's definition: nothing left open."""
        return replace(
            self,
            sampler=sampler,
            pruner=pruner,
            seed=DEFAULT_SEED if self.seed is None else self.seed,
        )


def _compared(space: Mapping[str, Any]) -> dict[str, Any]:
    """Without what changes no trial: notes, where the data lies, which points are tried first."""
    kept = {key: value for key, value in space.items() if key not in ("data", "note", "start")}
    return _plain(kept)


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from the database."""
    plain: dict[str, Any] = json.loads(json.dumps(value))
    return plain


def _difference(ours: Any, theirs: Any, path: str = "") -> str:
    """Where two JSON values first differ, in words; empty if nowhere."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**theirs, **ours}:
            below = f"{path}.{key}" if path else key
            if key not in ours:
                return f"{below} is {json.dumps(theirs[key])} there and missing here"
            if key not in theirs:
                return f"{below} is missing there and {json.dumps(ours[key])} here"
            if found := _difference(ours[key], theirs[key], below):
                return found
        return ""
    if ours == theirs:
        return ""
    return f"{path} is {json.dumps(theirs)} there and {json.dumps(ours)} here"
