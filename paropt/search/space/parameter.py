"""One parameter of a space: what it may be, when it counts, and arithmetic on its grid."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, Literal

Kind = Literal["value", "int", "float", "categorical"]
_OFF_GRID = 1e-6  # of a step: written decimals miss binary ones by far less, typing errors by more


def same(left: Any, right: Any) -> bool:
    """Equality as JSON means it: ``1`` is ``1.0``, but not ``true``."""
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


@dataclass(frozen=True)
class Parameter:
    """A constant or a range, in force where every condition of ``when`` holds.

    ``label`` is unique within a space: the name, unless a name has several ranges under different
    conditions. ``when`` maps the names of other parameters to the values under which this counts.
    Bounds are inclusive. ``step`` is None for a continuous float.
    """

    name: str
    kind: Kind
    label: str = ""
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    where: tuple[str | int, ...] = field(default=(), compare=False)  # in the file's object

    @property
    def searched(self) -> bool:
        return self.kind != "value"

    @property
    def count(self) -> float:
        """How many values it can have; inf for a continuous one."""
        if self.kind in ("value", "categorical"):
            return len(self.choices)
        if self.step is None:
            return 1 if self.low == self.high else math.inf
        return round((self.high - self.low) / self.step) + 1

    @cached_property
    def _decimals(self) -> tuple[Decimal, Decimal]:
        return Decimal(repr(self.low)), Decimal(repr(self.step))

    def nth(self, index: int) -> Any:
        """The value with that index on the grid, as it would be written: 0.1 + 3·0.05 is 0.25."""
        if self.kind in ("value", "categorical"):
            return self.choices[index]
        if self.step is None:
            return self.low
        low, step = self._decimals
        value = low + index * step
        return int(value) if self.kind == "int" else float(value)

    def values(self) -> Iterator[Any]:
        """Every value of a finite parameter, in order."""
        return map(self.nth, range(int(self.count)))

    def nearest(self, value: Any) -> Any:
        """A value from within the range, moved onto the grid.

        Raises:
            ValueError: it is outside the range, off the grid, or no such choice; one clause.
        """
        if self.kind in ("value", "categorical"):
            for choice in self.choices:
                if same(choice, value):
                    return choice
            known = ", ".join(map(str, self.choices))
            raise ValueError(f"{value!r} is none of {known}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{value!r} is no number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{value} is outside {self.low}…{self.high}")
        if self.step is None:
            return float(value)
        index = (value - self.low) / self.step
        if abs(index - round(index)) > _OFF_GRID:
            raise ValueError(f"{value} is not on the grid {self.low} + k·{self.step}")
        return self.nth(round(index))

    def within(self, value: Any) -> bool:
        """Whether it is a choice or a number of the range, on the grid or not."""
        if self.kind in ("value", "categorical"):
            return any(same(choice, value) for choice in self.choices)
        return type(value) in (int, float) and self.low <= value <= self.high

    def snap(self, value: float) -> Any:
        """The grid's value nearest to what a sampler drew."""
        if self.kind in ("value", "categorical"):
            return self.nearest(value)
        if self.step is None:
            return min(max(float(value), self.low), self.high)
        index = round((value - self.low) / self.step)
        return self.nth(min(max(index, 0), int(self.count) - 1))

    def at(self, unit: float) -> Any:
        """The value at ``unit`` in [0, 1) of the range: evenly, or by logarithm if ``log``."""
        if self.kind in ("value", "categorical"):
            return self.choices[int(unit * len(self.choices))]
        if self.log:
            return self.snap(math.exp(math.log(self.low) + unit * math.log(self.high / self.low)))
        if self.step is None:
            return self.snap(self.low + unit * (self.high - self.low))
        return self.nth(int(unit * self.count))

    def can_be(self, value: Any) -> bool:
        try:
            self.nearest(value)
        except ValueError:
            return False
        return True

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Whether its conditions hold for the parameters chosen so far."""
        return all(
            name in config and any(same(config[name], value) for value in values)
            for name, values in self.when.items()
        )

    def range_text(self) -> str:
        """Its range in words, for tables."""
        if self.kind == "value":
            return str(self.choices[0])
        if self.kind == "categorical":
            return ", ".join(map(str, self.choices))
        step = f", step {self.step:g}" if self.step not in (None, 1) else ""
        return f"{self.low:g} … {self.high:g}{step}{', log' if self.log else ''}"

    def when_text(self) -> str:
        return " and ".join(
            f"{name} = {' or '.join(map(str, values))}" for name, values in self.when.items()
        )
