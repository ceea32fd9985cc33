"""The numbers of a final test, as a report's JSON holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paropt.names import baseline
from paropt.results.searched import Json, Searched, read
from paropt.results.words import between, number
from paropt.training.evaluation.objective import Objective
from paropt.training.metrics import is_measure

CHOSEN, CONTROL = "chosen", "control"
MODELS = "models"  # of the chosen one, by seed, beside the report


@dataclass(frozen=True)
class Measured:
    """A metric: its ``mean`` over the seeds, their ``spread`` and ``values``, and the ``interval``
    over sessions; what is not known is None."""

    mean: float
    interval: Sequence[float] | None = None
    spread: float | None = None
    values: Sequence[float] = ()

    @classmethod
    def of(cls, stored: Json) -> Measured:
        """As a report holds it."""
        return read(cls, stored)

    @property
    def text(self) -> str:
        """``0.1234 ± 0.0012 [0.1201, 0.1268]``."""
        bounds = f" [{between(self.interval)}]" if self.interval else ""
        return f"{self.spreading}{bounds}"

    @property
    def spreading(self) -> str:
        """``0.1234 ± 0.0012``."""
        return number(self.mean) + (f" ± {number(self.spread)}" if self.spread is not None else "")


Metrics = Mapping[str, Measured]


@dataclass(frozen=True)
class Contender:
    """Something that the chosen configuration is compared with: the control, or what needs no
    training. ``difference`` is chosen less contender, paired by session."""

    name: str
    metrics: Metrics
    difference: Metrics = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A report with a test, read from its JSON."""

    searched: Searched
    stored: Json
    chosen: Json
    metrics: Metrics
    contenders: Sequence[Contender]

    @classmethod
    def of(cls, report: Json) -> Finished:
        """
        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        test, searched = report["test"], Searched.from_json(report)
        contenders = []
        if test["control"]:
            contenders = [_contender(CONTROL, test["control"], test["difference"], searched)]
        for name, found in test["baselines"].items():
            beside = found.get("difference")
            contenders.append(_contender(baseline(name), found, beside, searched))
        ours = measured(test["chosen"]["metrics"], searched.objective)
        return cls(searched, report, test["chosen"], ours, contenders)

    @property
    def metric(self) -> str:
        return self.searched.metric

    @property
    def test(self) -> Json:
        found: Json = self.stored["test"]
        return found

    @property
    def roles(self) -> list[str]:
        """Who was trained for the test: the control only where it is another one."""
        return [role for role in (CHOSEN, CONTROL) if self.test[role]]

    @property
    def title(self) -> str:
        return f"Final test {self.stored['final']} of study {self.searched.name}"


def _contender(name: str, found: Json, difference: Json | None, searched: Searched) -> Contender:
    beside = measured(difference or {}, searched.objective)
    return Contender(name, measured(found["metrics"], searched.objective), beside)


def measured(metrics: Json, objective: Objective) -> dict[str, Measured]:
    """The metrics of a report, and what the study was searched for where that is a sum of them:
    its interval is not known, as that of a sum is not the sum of the intervals."""
    found = {name: Measured.of(value) for name, value in metrics.items() if not is_measure(name)}
    mean = objective.of({name: one.mean for name, one in found.items()})
    if mean is not None and objective.metric not in found:
        of_seeds = zip(*(found[name].values for name in objective.names), strict=True)
        values = [objective.of(dict(zip(objective.names, v, strict=True))) for v in of_seeds]
        found[objective.metric] = Measured(mean, values=[v for v in values if v is not None])
    return found
