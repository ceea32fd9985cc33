"""Start points that suit many logs, chosen from tables of curves and judged on logs unseen.

    python benchmarks/search/portfolio.py [--space gru4rec_xe_shared] [--points N]
        [--by rate|mean|worst]

The rows of the tables of a space (curve_table.py) are the same configurations on every log, so a
portfolio is chosen from them directly, with nothing modelled: greedily, each next row is the one
after which the best of those chosen is nearest to the best of all rows, on average over the logs
(``--by mean``; ``worst``: on the worst of them; Xu et al., Hydra, AAAI 2010, is this greedy choice;
``rate``: by how much the mean of the squares falls for each second that it trains; squares, so that
a log that is far off counts more). *Regret* is by how much it stays below that, in per cent; a row
is worth the mean of its three best epochs. It is told by what training the rows costs, one after
another to the end. Rows that some table lacks are left out.

Leave one log out: the portfolio for a log is chosen on those of other sites. Rows that the tables
proposed (proposals.py) are candidates, but for the sites that proposed them; so are published
points, but not for the logs of PUBLISHED, which some of them are published for. Beside it: the
space's own published start points, which on those logs have seen them, and rows at random (the mean
over all draws). Last, the portfolio of all logs, which is what would be shipped, as JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from functools import cache
from math import comb
from pathlib import Path
from types import MappingProxyType

import numpy as np
from curve_table import FIRST_PROPOSED, proposed_file, published
from numpy.typing import NDArray
from surrogate import Table, read_table

from paropt.search.space.space import Config, Space
from paropt.training.evaluation.objective import Objective

CURVES = Path(__file__).parent / "curves"
MRR = Objective("mrr@20")
# by model, logs that points were published for, by a word of where these say they are from
TRANSFORMERS = {"ml1m": "MovieLens", "ml100k": "MovieLens", "beauty": "Beauty"}
SESSION_REC = {
    "retailrocket": "RetailRocket",
    "yoochoose_100k": "RSC15",
    "yoochoose1_64": "RSC15",
}
PUBLISHED = {
    "gru4rec": {
        "retailrocket": "RetailRocket",
        "yoochoose_100k": "Yoochoose",
        "yoochoose1_64": "Yoochoose",
    },
    "sasrec": TRANSFORMERS,
    "hstu": TRANSFORMERS,
    "session_knn": SESSION_REC,
    "markov": SESSION_REC,
    "linear": SESSION_REC,
}
# logs of one shop or site, by its name: where one is left out, so is the other
SITES = {
    "yoochoose_100k": "Yoochoose",
    "yoochoose1_64": "Yoochoose",
    "ml100k": "MovieLens",
    "ml1m": "MovieLens",
}
# points of a portfolio: more, where logs differ in what each of them wants, as SASRec's do
POINTS, MORE_POINTS = 8, {"sasrec": 12}
LEAST = 10  # rows that a table must have to count
SPENDS = (1, 2, 3, 5, 8)  # in average trainings
NOTHING = 100.0  # the regret of who has no model yet
Array = NDArray[np.float64]


def tables(space: str) -> dict[str, Table]:
    """The tables of a space that have rows enough, by log."""
    found = {}
    for path in sorted(CURVES.glob(f"*-{space}.csv")):
        if sum(1 for _ in path.open()) >= LEAST + 2:
            found[path.stem.removesuffix(f"-{space}")] = read_table(path)
    return found


def kin(log: str, other: str | None) -> bool:
    """Whether it is the same log, or one of the same site."""
    return other is not None and SITES.get(log, log) == SITES.get(other, other)


def published_for(space: Space) -> Mapping[str, str]:
    """Logs that the space's points were published for, with the word that their origin has."""
    return {log: word for model in space.models for log, word in PUBLISHED.get(model, {}).items()}


class Portfolios:
    """Portfolios from the rows that all tables share; ``proposed``: by number, the log that a row
    was proposed by."""

    def __init__(
        self, known: Mapping[str, Table], proposed: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        self.known, self.proposed = known, proposed
        shared = set.intersection(*(set(table.numbers) for table in known.values()))
        self.numbers = sorted(shared)
        some = next(iter(known.values()))
        self.points = MORE_POINTS.get(str(some.made["space"]), POINTS)
        self.published = len(published(some.space))  # the first rows of every table
        self.published_for = published_for(some.space)
        self.configs = [some.configs[some.numbers.index(number)] for number in self.numbers]
        self.regrets = {log: self._regrets(table) for log, table in known.items()}
        self.costs = {log: self._costs(table) for log, table in known.items()}

    def _regrets(self, table: Table) -> Array:
        """Of each shared row, in per cent of the best row of the whole table: [rows]."""
        worth = np.array([MRR.steady(curve.tolist()) or 0.0 for curve in table.curves])
        shared = worth[[table.numbers.index(number) for number in self.numbers]]
        return np.asarray(100 * (1 - shared / worth.max()))

    def _costs(self, table: Table) -> Array:
        """Of each shared row, in trainings of average seconds: [rows]."""
        seconds = table.seconds[[table.numbers.index(number) for number in self.numbers]]
        return np.asarray(seconds / seconds.mean())

    def chosen(self, points: int, without: str | None = None, by: str = "rate") -> list[int]:
        """Places of the rows that a portfolio is made of, the log ``without`` unseen."""
        logs = np.array([r for log, r in self.regrets.items() if not kin(log, without)])
        costs = np.array([c for log, c in self.costs.items() if not kin(log, without)]).mean(0)
        allowed = [k for k, number in enumerate(self.numbers) if not self.has_seen(number, without)]
        best, taken = np.full(len(logs), NOTHING), []
        for _ in range(min(points, len(allowed))):
            after = np.minimum(best[:, None], logs[:, allowed])
            mean = after.mean(0)
            if mean.min() >= best.mean():
                break  # nothing is left that any of these logs would gain from
            if by == "rate":
                order = ((after**2).mean(0) - (best**2).mean()) / costs[allowed]
            else:
                order = mean if by == "mean" else after.max(0) + mean / 1000
            place = allowed[int(order.argmin())]
            best = np.minimum(best, logs[:, place])
            allowed.remove(place)
            taken.append(place)
        return taken

    def has_seen(self, number: int, log: str | None) -> bool:
        """Whether a row may be one for which that log was looked at."""
        proposer = self.proposed.get(number)
        return (log in self.published_for and number < self.published) or (
            proposer is not None and kin(proposer, log)
        )

    def after(self, log: str, places: Sequence[int]) -> Array:
        """The regret on a log after each of these rows."""
        return np.minimum.accumulate(self.regrets[log][list(places)])

    def within(self, log: str, places: Sequence[int], spends: Sequence[float]) -> Array:
        """The regret on a log after those of these rows that are trained for so many average
        trainings, one after another."""
        ends = self.costs[log][list(places)].cumsum()
        counts = [int((ends <= spend).sum()) for spend in spends]
        regrets = self.after(log, places)
        return np.array([regrets[count - 1] if count else NOTHING for count in counts])

    def at_random(self, log: str, points: int) -> Array:
        """The mean regret after 1, 2, … rows that nobody chose, over all draws."""
        drawn = [
            r
            for number, r in zip(self.numbers, self.regrets[log], strict=True)
            if self.published <= number < FIRST_PROPOSED
        ]
        ordered, n = sorted(drawn), len(drawn)
        # the k-th smallest is the least of m rows if the other m - 1 are among the larger ones
        return np.array(
            [
                sum(ordered[k] * comb(n - 1 - k, m - 1) for k in range(n - m + 1)) / comb(n, m)
                for m in range(1, points + 1)
            ]
        )


@cache
def portfolios(space: str) -> Portfolios:
    """Of all tables of a space."""
    path = proposed_file(space, CURVES)
    rows = json.loads(path.read_text()) if path.exists() else []
    return Portfolios(tables(space), {row["number"]: row["log"] for row in rows})


def points_of(table: Table, configs: Sequence[Config]) -> list[Config]:
    """Configurations as start points: what is searched and in force."""
    return [
        {p.name: config[p.name] for p in table.space.active(config) if p.searched}
        for config in configs
    ]


def left_out(found: Portfolios, log: str) -> list[Config]:
    """The start points for a log that the other logs give."""
    places = found.chosen(found.points, log)
    return points_of(found.known[log], [found.configs[place] for place in places])


def _cells(values: Array) -> str:
    return " | ".join(f"{value:.2f}" for value in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default="gru4rec_xe_shared")
    parser.add_argument("--points", type=int, help="8, of SASRec 12")
    parser.add_argument("--by", choices=("rate", "mean", "worst"), default="rate")
    args = parser.parse_args()
    found = portfolios(args.space)
    points = args.points or found.points
    spends = ", ".join(map(str, SPENDS))
    print(f"{args.space}: {len(found.numbers)} rows on {len(found.known)} logs; regret in per cent "
          f"within {spends} average trainings")  # fmt: skip
    print(f"\n| log | start points | {' | '.join(map(str, SPENDS))} |")
    print("|---" * (len(SPENDS) + 2) + "|")
    kinds: dict[str, list[Array]] = {}
    for log in found.known:
        own = list(range(min(found.published, len(found.numbers))))
        seen = " (seen)" if log in found.published_for else ""
        for kind, values in {
            "portfolio of the others": found.within(
                log, found.chosen(points, log, args.by), SPENDS
            ),
            f"published{seen}": found.within(log, own, SPENDS),
            "random": found.at_random(log, max(SPENDS))[[spend - 1 for spend in SPENDS]],
        }.items():
            print(f"| {log} | {kind} | {_cells(values)} |")
            kinds.setdefault(kind.removesuffix(seen), []).append(values)
    for kind, rows in kinds.items():
        for what, over in (("median", np.median), ("worst", np.max)):
            print(f"| {what} | {kind} | {_cells(over(np.array(rows), axis=0))} |")
    places = found.chosen(points, by=args.by)
    some = next(iter(found.known.values()))
    print("\nof all logs:")
    for place in places:
        (point,) = points_of(some, [found.configs[place]])
        print(json.dumps(point), f" row {found.numbers[place]}")


if __name__ == "__main__":
    main()
