"""Answers between the rows of a table of learning curves (curve_table.py).

A Gaussian process (Rasmussen & Williams, 2006, chapters 2 and 5) over the parameters of the space,
each scaled to [0, 1] (choices that are no numbers by a column each); the epochs of a curve share
the kernel, so that an answer is a smooth mixture of real curves. What it is wrong by is stated by
leaving each row out in turn (equations 5.10–5.12). The noise of a seed is drawn from real
differences between trainings that only the seed told apart.
"""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paropt.search.space.file import read_space
from paropt.search.space.parameter import Parameter
from paropt.search.space.shipped import find_space
from paropt.search.space.space import Config, Space
from paropt.search.strategy.epoch_costs import CostModel, numeric, sizes_of
from paropt.search.strategy.sampling import uniformly

Array = NDArray[np.float64]
STEPS = 300  # of Adam on the marginal likelihood


@dataclass(frozen=True)
class Table:
    """Rows of one data set and space, of the first seed: ``x`` [rows, columns] as the process sees
    their configurations, ``sizes`` [rows, columns] as the cost does, ``curves`` [rows, epochs]."""

    made: dict[str, Any]
    space: Space
    numbers: list[int]  # of the rows; the same number is the same configuration in other tables
    configs: list[Config]
    x: Array
    sizes: Array
    curves: Array  # a training that diverged has 0 from there on
    seconds: Array  # per epoch
    noise: Array  # [k, epochs]: from the mean of its configuration, corrected for the mean's own


def read_table(path: Path) -> Table:
    with path.open(newline="") as file:
        made = json.loads(file.readline().removeprefix("#"))
        rows = list(csv.DictReader(file))
    space = read_space(find_space(made["space"]) or made["space"], [made["fixed"]])
    configs = [_config(space, row) for row in rows]
    epochs = [name for name in rows[0] if name.startswith("epoch ")]
    curves = np.array([[float(row[name] or 0) for name in epochs] for row in rows])
    seconds = np.array([float(row["seconds"]) for row in rows])
    first = np.array([row["seed"] == rows[0]["seed"] for row in rows])
    noise = []
    keys = [space.canonical(config) for config in configs]
    for key in {k: None for k, f in zip(keys, first, strict=True) if not f}:
        same = curves[[k == key for k in keys]]
        noise.append((same - same.mean(0)) * np.sqrt(len(same) / (len(same) - 1)))
    kept = [k for k in range(len(rows)) if first[k]]
    found = [configs[k] for k in kept]
    return Table(
        made,
        space,
        [int(rows[k].get("row", k)) for k in kept],
        found,
        np.array([place(space, config) for config in found]),
        np.array([sizes_of(space, config) for config in found]),
        curves[kept],
        seconds[kept],
        np.vstack(noise or [np.zeros((1, len(epochs)))]),
    )


def _config(space: Space, row: Mapping[str, str]) -> Config:
    """The configuration that the cells of a row say."""

    def said(parameter: Parameter) -> Any:
        cell = row[parameter.label]
        if parameter.kind == "categorical":
            return next(choice for choice in parameter.choices if str(choice) == cell)
        return parameter.snap(float(cell))

    return space.walk(said)


def spearman(a: Array, b: Array) -> float:
    """The rank correlation."""
    ranks = [np.argsort(np.argsort(values)) for values in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def place(space: Space, config: Config) -> Array:
    """A configuration as the process sees it: each parameter in [0, 1].

    Numbers by where they lie in their range (choices that are numbers by their order), other
    choices each by a column of their own; a parameter that isn't in force lies in the middle.
    """
    active = {p.label for p in space.active(config)}
    cells: list[float] = []
    for p in space.searched:
        value = config[p.name] if p.label in active else None
        if p.kind == "categorical" and not numeric(p):
            cells += [0.5 if value is None else float(value == choice) for choice in p.choices]
        elif value is None:
            cells.append(0.5)
        elif p.kind == "categorical":
            cells.append(sorted(p.choices).index(value) / max(1, len(p.choices) - 1))
        elif p.log:
            cells.append(math.log(value / p.low) / math.log(p.high / p.low))
        else:
            cells.append((value - p.low) / (p.high - p.low))
    return np.array(cells)


class Process:
    """A Gaussian process on [0, 1]^d with several outputs that share the kernel.

    Matérn 5/2 with a length per parameter; outputs are standardised. ``log_length``,
    ``log_noise`` maximise the sum of the outputs' marginal likelihoods.
    """

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.mean, self.scale = x, y.mean(0), y.std(0)
        z = torch.as_tensor((y - self.mean) / self.scale)
        points = torch.as_tensor(x)
        log_length = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        log_noise = torch.tensor(-3.0, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.Adam([log_length, log_noise], lr=0.05)
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss = _negative_likelihood(points, z, log_length, log_noise)
            loss.backward()
            optimiser.step()
        self.length = log_length.detach().exp().numpy()
        self.noise = float(log_noise.detach().exp())
        gram = self._kernel(x) + self.noise * np.eye(len(x))
        self.inverse = np.linalg.inv(gram)
        self.weights = self.inverse @ z.numpy()

    def _kernel(self, x: Array) -> Array:
        distance = np.sqrt((((x[:, None] - self.x[None]) / self.length) ** 2).sum(-1))
        scaled = np.sqrt(5) * distance
        return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))

    def at(self, x: Array) -> Array:
        """The mean at ``x`` [n, d]: [n, outputs]."""
        return np.asarray(self._kernel(x) @ self.weights * self.scale + self.mean)

    def left_out(self) -> Array:
        """What each row would have been thought to be without it: [rows, outputs]."""
        z = np.linalg.solve(self.inverse, np.eye(len(self.x))) @ self.weights
        found = z - self.weights / np.diag(self.inverse)[:, None]
        return np.asarray(found * self.scale + self.mean)


def _negative_likelihood(
    x: torch.Tensor, z: torch.Tensor, log_length: torch.Tensor, log_noise: torch.Tensor
) -> torch.Tensor:
    apart = (x[:, None] - x[None]) / log_length.exp()
    scaled = (5 * (apart**2).sum(-1) + 1e-12).sqrt()
    gram = (1 + scaled + scaled**2 / 3) * torch.exp(-scaled)
    gram = gram + log_noise.exp() * torch.eye(len(x), dtype=x.dtype)
    root = torch.linalg.cholesky(gram)
    half = torch.linalg.solve_triangular(root, z, upper=False)
    outputs = z.shape[1]
    # a weak prior keeps the length of a parameter that does not matter from running away
    prior = ((log_length - 0.5) ** 2).sum() / 4
    return 0.5 * (half**2).sum() / outputs + root.diagonal().log().sum() + prior


class Surrogate:
    """The curve and the seconds per epoch of any configuration of the table's space.

    Values far below the best are squeezed together before the process sees them: what a search is
    about is told apart best near the top.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.top = float(table.curves.max()) * 1.03
        self.curves = Process(table.x, -np.log(self.top - table.curves))
        self.seconds = CostModel(table.sizes, table.seconds)
        self.best, self.best_config = self.optimum()

    def curve(self, config: Config) -> Array:
        """Without noise: [epochs]."""
        return np.asarray(self._curves([config])[0])

    def _curves(self, configs: Sequence[Config]) -> Array:
        x = np.array([place(self.table.space, config) for config in configs])
        return np.asarray(self.top - np.exp(-self.curves.at(x)))

    def _values(self, configs: Sequence[Config], most: float | None) -> Array:
        """The best of each curve; nothing for one that takes too long."""
        values = self._curves(configs).max(1)
        return values if most is None else np.where(self._costs(configs) <= most, values, 0.0)

    def cost(self, config: Config) -> float:
        """Seconds per epoch."""
        return float(self._costs([config])[0])

    def _costs(self, configs: Sequence[Config]) -> Array:
        return self.seconds.at(np.array([sizes_of(self.table.space, c) for c in configs]))

    def optimum(self, most: float | None = None) -> tuple[float, Config]:
        """The best value of the noiseless answers, over many points and their neighbourhoods.

        ``most``: among those whose epoch takes so many seconds at most.
        """
        space, rng = self.table.space, random.Random(1)
        candidates = [*self.table.configs, *(space.walk(uniformly(rng)) for _ in range(10_000))]
        for width in (0.1, 0.05, 0.02, 0.01):
            values = self._values(candidates, most)
            kept = [candidates[k] for k in np.argsort(-values)[:50]]
            candidates = kept + [_moved(space, kept[k % 50], width, rng) for k in range(4_000)]
        values = self._values(candidates, most)
        return float(values.max()), candidates[int(values.argmax())]

    def errors(self) -> dict[str, float]:
        """Of the rows' best values when each is left out: root mean square error in the metric and
        in the upper half of the rows, rank correlation (Spearman's), and of the seconds the mean
        error in per cent; the noise of a seed (standard deviation of the last epoch)."""
        real = self.table.curves.max(1)
        thought = (self.top - np.exp(-self.curves.left_out())).max(1)
        upper = real >= np.median(real)
        return {
            "rmse": float(np.sqrt(np.mean((real - thought) ** 2))),
            "rmse_upper_half": float(np.sqrt(np.mean((real - thought)[upper] ** 2))),
            "spearman": spearman(real, thought),
            "seconds_percent": float(
                100 * np.mean(np.abs(self.seconds.left_out / self.table.seconds - 1))
            ),
            "seed_noise": float(self.table.noise[:, -1].std()),
        }


def _moved(space: Space, config: Config, width: float, rng: random.Random) -> Config:
    """A neighbour: numbers moved by ``width`` of their range or so, a choice in ten drawn anew."""

    def choose(p: Parameter) -> Any:
        known = p.name in config and p.within(config[p.name])
        if not known or (p.kind == "categorical" and rng.random() < 0.1):
            return p.at(rng.random())
        if p.kind == "categorical":
            return config[p.name]
        if p.log:
            return p.snap(config[p.name] * (p.high / p.low) ** (width * rng.gauss(0, 1)))
        return p.snap(config[p.name] + width * rng.gauss(0, 1) * (p.high - p.low))

    return space.walk(choose)
