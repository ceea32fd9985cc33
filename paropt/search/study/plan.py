"""A study that follows a plan instead of searching: what it trains, with which seeds.

The two parts of a final test are such studies (:mod:`paropt.results.final.final_plan`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from paropt.errors import StudyError

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
    stages: Mapping[str, int] = field(default_factory=dict)

    def to_meta(self) -> dict[str, Any]:
        """As a trial stores it."""
        return {
            "job": self.entry,
            "model": self.model,
            "params": dict(self.params),
            "epochs": self.epochs,
            "seed": self.seed,
            "once": self.once,
            **({"stages": dict(self.stages)} if self.stages else {}),
        }


@dataclass(frozen=True)
class Candidate:
    """A configuration of a plan.

    ``found`` has the search's trial, value and epoch of a candidate; ``source`` says where a
    control is from. One that the search found and that is also the control has both. ``stages``
    are the epochs of each stage, once they are chosen, of a model that has some.
    """

    name: str
    model: str
    params: Mapping[str, Any]
    epochs: int
    found: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    stages: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class FinalPlan:
    """What one part of a final test trains: every entry with every seed.

    ``number`` counts the final tests of the study ``of``. ``once``: judged after the last epoch
    only. ``again`` says that an earlier look at this test set was known.
    """

    of: str
    number: int
    entries: tuple[Candidate, ...]
    seeds: tuple[int, ...]
    once: bool = False
    again: bool = False
    without_valid: bool = False

    @property
    def view(self) -> str:
        """The view of the data that it trains and judges on."""
        if not self.once:
            return "search"
        return "without-valid" if self.without_valid else "full"

    def to_json(self) -> dict[str, Any]:
        """What a study's definition holds."""
        found = asdict(self)
        if not self.without_valid:
            del found["without_valid"]  # as versions before it wrote it
        return found

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FinalPlan:
        """Reads what :meth:`to_json` gave.

        Raises:
            StudyError: it isn't a plan that this paropt can read.
        """
        try:
            entries = tuple(Candidate(**entry) for entry in stored["entries"])
            return cls(**{**stored, "entries": entries, "seeds": tuple(stored["seeds"])})
        except (KeyError, TypeError) as error:
            raise StudyError(f"the study's plan cannot be read: {error}") from None

    def jobs(self) -> list[Job]:
        """All trainings, one seed of every entry after the other."""
        return [
            Job(e.name, e.model, e.params, e.epochs, seed, self.once, e.stages)
            for seed in self.seeds
            for e in self.entries
        ]


def jobs_of(plan: Mapping[str, Any]) -> list[Job]:
    """The trainings of a definition's plan; none for a study that searches.

    Raises:
        StudyError: it isn't a plan that this paropt can read.
    """
    return FinalPlan.from_json(plan).jobs() if plan else []


def part_name(study: str, number: int, part: str) -> str:
    """What the study of a part, "valid" or "test", is called."""
    return f"{study}.final-{number}.{part}"
