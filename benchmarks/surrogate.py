"""Answers between the rows of a table of learning curves (curve_table.py).

A Gaussian process (Rasmussen & Williams, 2006, chapters 2 and 5) over the parameters of the space,
each scaled to [0, 1]; the epochs of a curve share the kernel, so that an answer is a smooth mixture
of real curves. What it is wrong by is stated by leaving each row out in turn (equations 5.10–5.12).
The noise of a seed is drawn from real differences between trainings that only the seed told apart.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paropt.search.space.file import read_space
from paropt.search.space.shipped import find_space
from paropt.search.space.space import Config, Space

Array = NDArray[np.float64]
STEPS = 300  # of Adam on the marginal likelihood


@dataclass(frozen=True)
class Table:
    """Rows of one data set: ``x`` [rows, parameters] in [0, 1], ``curves`` [rows, epochs]."""

    made: dict[str, Any]
    space: Space
    names: list[str]
    low: Array  # [parameters], and
    high: Array  # what 0 and 1 stand for
    x: Array
    curves: Array
    seconds: Array  # per epoch
    noise: Array  # [k, epochs]: from the mean of its configuration, corrected for the mean's own


def read_table(path: Path) -> Table:
    with path.open(newline="") as file:
        made = json.loads(file.readline().removeprefix("#"))
        rows = list(csv.DictReader(file))
    space = read_space(find_space(made["space"]) or made["space"], [made["fixed"]])
    names = [p.label for p in space.searched]
    epochs = [name for name in rows[0] if name.startswith("epoch ")]
    raw = np.array([[float(row[name]) for name in names] for row in rows])
    low = np.array([p.low for p in space.searched])
    high = np.array([p.high for p in space.searched])
    x = (raw - low) / (high - low)
    curves = np.array([[float(row[name]) for name in epochs] for row in rows])
    seconds = np.array([float(row["seconds"]) for row in rows])
    first = np.array([row["seed"] == rows[0]["seed"] for row in rows])
    noise = []
    for point in np.unique(x[~first], axis=0):
        same = curves[np.all(x == point, axis=1)]
        noise.append((same - same.mean(0)) * np.sqrt(len(same) / (len(same) - 1)))
    return Table(
        made, space, names, low, high, x[first], curves[first], seconds[first], np.vstack(noise)
    )


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


class Cost:
    """Seconds as least squares have them: their logarithm, quadratic in the logarithms of ``raw``.

    Work is a product of sizes, so in logarithms it is nearly a plane.
    """

    def __init__(self, raw: Array, seconds: Array) -> None:
        self.middle, self.scale = np.log(raw).mean(0), np.log(raw).std(0)
        design, wanted = self._features(raw), np.log(seconds)
        self.weights = np.linalg.lstsq(design, wanted, rcond=None)[0]
        hat = np.einsum("ij,ij->i", design @ np.linalg.pinv(design.T @ design), design)
        self.left_out = np.exp(wanted - (wanted - design @ self.weights) / (1 - hat))

    def _features(self, raw: Array) -> Array:
        z = (np.log(raw) - self.middle) / self.scale
        return np.hstack([np.ones((len(z), 1)), z, z**2])

    def at(self, raw: Array) -> Array:
        return np.asarray(np.exp(self._features(raw) @ self.weights))


class Surrogate:
    """The curve and the seconds per epoch of any configuration of the table's space.

    Values far below the best are squeezed together before the process sees them: what a search is
    about is told apart best near the top.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.top = float(table.curves.max()) * 1.03
        self.curves = Process(table.x, -np.log(self.top - table.curves))
        self.sizes = table.low > 0  # whose logarithm exists
        self.seconds = Cost(self._raw(table.x), table.seconds)
        self.best, self.best_at = self._optimum()

    def curve(self, x: Array) -> Array:
        """Without noise: [n, epochs]."""
        return np.asarray(self.top - np.exp(-self.curves.at(x)))

    def cost(self, x: Array) -> Array:
        """Seconds per epoch: [n]."""
        return self.seconds.at(self._raw(x))

    def _raw(self, x: Array) -> Array:
        low, high = self.table.low[self.sizes], self.table.high[self.sizes]
        return np.asarray(low + x[:, self.sizes] * (high - low))

    def place(self, config: Config) -> Array:
        """A configuration as a row of ``x``."""
        bounds = [(config[p.name], p.low, p.high) for p in self.table.space.searched]
        return np.array([[(value - low) / (high - low) for value, low, high in bounds]])

    def _optimum(self) -> tuple[float, Array]:
        """The best value of the noiseless answers, over many points and their neighbourhoods."""
        rng = np.random.default_rng(1)
        candidates = np.vstack([self.table.x, rng.random((20_000, self.table.x.shape[1]))])
        for width in (0.1, 0.05, 0.02, 0.01):
            values = self.curve(candidates).max(1)
            kept = candidates[np.argsort(-values)[:50]]
            moved = kept.repeat(200, 0) + width * rng.standard_normal((10_000, kept.shape[1]))
            candidates = np.vstack([kept, moved.clip(0, 1)])
        values = self.curve(candidates).max(1)
        return float(values.max()), candidates[values.argmax()]

    def errors(self) -> dict[str, float]:
        """Of the rows' best values when each is left out: root mean square error in the metric and
        in the upper half of the rows, rank correlation (Spearman's), and of the seconds the mean
        error in per cent; the noise of a seed (standard deviation of the last epoch)."""
        real = self.table.curves.max(1)
        thought = (self.top - np.exp(-self.curves.left_out())).max(1)
        upper = real >= np.median(real)
        ranks = [np.argsort(np.argsort(values)) for values in (real, thought)]
        return {
            "rmse": float(np.sqrt(np.mean((real - thought) ** 2))),
            "rmse_upper_half": float(np.sqrt(np.mean((real - thought)[upper] ** 2))),
            "spearman": float(np.corrcoef(ranks[0], ranks[1])[0, 1]),
            "seconds_percent": float(
                100 * np.mean(np.abs(self.seconds.left_out / self.table.seconds - 1))
            ),
            "seed_noise": float(self.table.noise[:, -1].std()),
        }
