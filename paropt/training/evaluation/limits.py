"""What a configuration must keep to: ``parameters<=5e6``, ``coverage@20>=0.3``.

A limit is no part of a trial's value. A trial beyond one keeps the value that it reached, is never
the best, and the sampler is told by how much it is beyond.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from paropt.errors import ParamError
from paropt.training import metrics

_TEXT = re.compile(r"\s*([^<>=≤≥]+?)\s*(<=|>=|≤|≥|<|>|==?)\s*(\S+)\s*")
_SIDES = {"<=": "<=", "≤": "<=", ">=": ">=", "≥": ">="}


@dataclass(frozen=True)
class Limit:
    """``name`` is a metric's or a measure's; its value may be ``bound`` at most (``<=``) or at
    least (``>=``)."""

    name: str
    side: str
    bound: float

    @classmethod
    def parse(cls, text: str, own: Iterable[str] = ()) -> Limit:
        """``latency_ms<=2``; ``own`` are the metrics that models report of themselves.

        Raises:
            ParamError: it says no limit, or of nothing that is recorded.
        """
        found = _TEXT.fullmatch(text)
        if found is None or found[2] not in _SIDES:
            raise ParamError(
                f"--constraint {text!r}: a limit is written like parameters<=5e6, coverage@20>=0.3"
            )
        try:
            name = metrics.recorded(found[1], own)
        except ParamError as error:
            raise ParamError(f"--constraint {text!r}: {error}") from None
        bound = _number(found[3])
        if bound is None:
            raise ParamError(f"--constraint {text!r}: {found[3]!r} is no number")
        return cls(name, _SIDES[found[2]], bound)

    @classmethod
    def stored(cls, text: str) -> Limit:
        """Reads what :attr:`text` gave, whichever model the name is of.

        Raises:
            ParamError: it is something else.
        """
        found = _TEXT.fullmatch(text)
        bound = None if found is None else _number(found[3])
        if found is None or bound is None or found[2] not in _SIDES:
            raise ParamError(f"{text!r} is no limit")
        return cls(found[1], _SIDES[found[2]], bound)

    @property
    def text(self) -> str:
        """As a study keeps it."""
        return f"{self.name}{self.side}{self.bound:.12g}"

    def excess(self, value: float) -> float:
        """By how much a value is beyond it: above 0 if it is, else how far it is from that."""
        return value - self.bound if self.side == "<=" else self.bound - value

    def words(self, value: float) -> str:
        """That a value is beyond it: ``latency_ms 3.1 is above 2``."""
        where = "above" if self.side == "<=" else "below"
        written = metrics.written
        return (
            f"{self.name} {written(self.name, value)} is {where} {written(self.name, self.bound)}"
        )


def read_limits(texts: Sequence[str], own: Iterable[str] = ()) -> tuple[Limit, ...]:
    """Those of ``--constraint``, by their names.

    Raises:
        ParamError: one is none, or two of them say different things of one value.
    """
    own = list(own)
    found: dict[tuple[str, str], Limit] = {}
    for text in texts:
        limit = Limit.parse(text, own)
        key = limit.name, limit.side
        if key in found and found[key] != limit:
            raise ParamError(
                f"--constraint {text!r}: {limit.name} is limited by {found[key].text} already"
            )
        found[key] = limit
    for (name, side), limit in found.items():
        other = found.get((name, ">="))
        if side == "<=" and other is not None and other.bound > limit.bound:
            raise ParamError(f"no value keeps to both {limit.text} and {other.text}")
    return tuple(found[key] for key in sorted(found))


def read_stored(texts: Iterable[str]) -> tuple[Limit, ...]:
    """:meth:`Limit.stored` of each."""
    return tuple(map(Limit.stored, texts))


def broken(limits: Iterable[Limit], values: Mapping[str, float]) -> list[str]:
    """A clause for each limit that a known value is beyond."""
    return [
        limit.words(values[limit.name])
        for limit in limits
        if limit.name in values and limit.excess(values[limit.name]) > 0
    ]


def scaled_excesses(limits: Iterable[Limit], values: Mapping[str, float]) -> dict[str, float]:
    """By the limits' texts how far each known value is beyond, in multiples of the bound.

    Samplers add up what is beyond: a million parameters too many must not outweigh all seconds.
    """
    return {
        limit.text: limit.excess(values[limit.name]) / (abs(limit.bound) or 1.0)
        for limit in limits
        if limit.name in values
    }


def keeps(limits: Iterable[Limit], values: Mapping[str, float]) -> bool:
    """Whether all values are known and within their limits."""
    return all(limit.name in values and limit.excess(values[limit.name]) <= 0 for limit in limits)


def _number(text: str) -> float | None:
    try:
        value = float(text.replace("_", ""))
    except ValueError:
        return None
    return value if abs(value) < 1e100 else None
