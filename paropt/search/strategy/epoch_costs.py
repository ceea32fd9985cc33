"""What an epoch of a configuration costs, as the trials so far tell.

A search spends time, and configurations that promise the same may take ten times as long as each
other. So the sampler looks for what promises most for a second (Snoek et al., NIPS 2012, section
3.2). What that brings is in benchmarks/search/README.md.

Seconds are thought of as a product of powers of sizes: their logarithm is quadratic in the
logarithms of the parameters, by least squares with a ridge that is chosen by leaving trials out.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from paropt.search.history.history import Record
from paropt.search.space.parameter import Parameter
from paropt.search.space.space import Config, Space

Array = NDArray[np.float64]
LEAST = 8  # trials that must have told
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


class CostModel:
    """Seconds as a function of ``sizes`` [n, columns], fitted to ``seconds`` [n].

    ``left_out`` [n] is what each would have been thought to be without it.
    """

    def __init__(self, sizes: Array, seconds: Array) -> None:
        # where all have the same, nobody knows what another would cost
        self.tells = sizes.std(0) > 1e-9
        sizes = sizes[:, self.tells]
        self.middle, self.scale = sizes.mean(0), sizes.std(0)
        design, wanted = self._features(sizes), np.log(seconds)
        found = []
        for ridge in RIDGES:
            penalty = ridge * np.eye(design.shape[1])
            penalty[0, 0] = 0
            solved = np.linalg.solve(design.T @ design + penalty, design.T)
            weights, hat = solved @ wanted, np.einsum("ij,ji->i", design, solved)
            missed = (wanted - design @ weights) / (1 - hat).clip(1e-3)
            found.append((float((missed**2).mean()), weights, np.exp(wanted - missed)))
        _, self.weights, self.left_out = min(found, key=lambda one: one[0])

    def _features(self, sizes: Array) -> Array:
        z = (sizes - self.middle) / self.scale
        return np.hstack([np.ones((len(z), 1)), z, z**2])

    def at(self, sizes: Array) -> Array:
        """Seconds of ``sizes`` [m, columns]: [m]."""
        return np.asarray(np.exp(self._features(sizes[:, self.tells]) @ self.weights))


def sizes_of(space: Space, config: Config) -> Array:
    """A configuration as its cost sees it [columns]: the logarithms of numbers above zero, and for
    each other choice whether it is made; what it doesn't say is as small as it can be."""
    active = {p.label for p in space.active(config)}
    cells: list[float] = []
    for p in space.searched:
        value = config.get(p.name) if p.label in active else None
        if p.kind != "categorical" or numeric(p):
            low = min(p.choices) if p.kind == "categorical" else p.low
            if low > 0:
                cells.append(math.log(low if value is None else value))
        else:
            cells += [float(value == choice) for choice in p.choices[1:]]
    return np.array(cells)


def numeric(parameter: Parameter) -> bool:
    """Whether all its choices are numbers."""
    return all(type(choice) in (int, float) for choice in parameter.choices)


class EpochCosts:
    """What the trials of a study tell; each that ended is asked once."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._ended: dict[int, tuple[Array, float]] = {}

    def of_model(self, model: str, records: Iterable[Record]) -> CostModel | None:
        """What an epoch of a model costs by its ``sizes_of``; None if too few trials tell."""
        known = (self._of(record) for record in records if record.meta["model"] == model)
        told = [one for one in known if one is not None]
        if len(told) < LEAST:
            return None
        sizes, seconds = zip(*told, strict=True)
        return CostModel(np.array(sizes), np.array(seconds))

    def _of(self, record: Record) -> tuple[Array, float] | None:
        """Its sizes, and the seconds of a typical epoch; None before any."""
        if record.id in self._ended:
            return self._ended[record.id]
        took = [seconds for seconds in record.curves.get("seconds", ()) if seconds]
        if not took:
            return None
        config = {**record.meta["params"], "model": record.meta["model"]}
        found = sizes_of(self.space, config), statistics.median(took)
        if not record.open:
            self._ended[record.id] = found
        return found
