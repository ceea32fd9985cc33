"""Rows for the tables of curves where their random ones say too little: near the best.

    python benchmarks/search/proposals.py [--space gru4rec_xe_shared]

What a search is about is told apart near the top, where few random configurations lie and the
surrogate (surrogate.py) has to guess. So each log proposes what its own surrogate thinks best: at
any cost, at half of an average training's and at a quarter. They are added to
curves/proposed-SPACE.json, with numbers from 1000 on; ``curve_table.py --proposed`` trains them on
every log. What lies within a fiftieth of every parameter's range from a row that is there tells
nothing new and isn't proposed. Where a log is left out, what its site proposed is no candidate
(portfolio.py): it has seen it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from curve_table import CURVES, FIRST_PROPOSED, proposed_file
from portfolio import points_of, tables
from surrogate import Surrogate, place

from paropt.search.space.space import Config, Space

SHARES = (None, 0.5, 0.25)  # of an average training's seconds, at most
NEAR = 0.02  # of each parameter's range


@dataclass(frozen=True)
class Proposal:
    """A row that a log proposes: what is searched and in force."""

    number: int
    log: str
    point: dict[str, Any]


def read_proposals(space: str, curves: Path = CURVES) -> list[Proposal]:
    """Those so far; none without a file."""
    path = proposed_file(space, curves)
    return [Proposal(**one) for one in json.loads(path.read_text())] if path.exists() else []


def proposals(space: str) -> Iterator[Proposal]:
    """What every table of a space proposes, and none has proposed yet."""
    known = read_proposals(space)
    points: list[Config] = [one.point for one in known]
    number = max((one.number for one in known), default=FIRST_PROPOSED - 1)
    for log, table in tables(space).items():
        surrogate = Surrogate(table)
        points += points_of(table, table.configs)
        for share in SHARES:
            most = None if share is None else share * float(table.seconds.mean())
            (point,) = points_of(table, [surrogate.optimum(most)[1]])
            if not any(near(table.space, point, other) for other in points):
                points.append(dict(point))
                number += 1
                yield Proposal(number, log, dict(point))


def near(space: Space, one: Config, other: Config) -> bool:
    """Whether two start points are as good as the same: choices equal, numbers side by side."""
    first, second = (
        place(space, space.complete(point, lambda p: p.at(0.5))) for point in (one, other)
    )
    return bool(np.abs(first - second).max() < NEAR)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--space", default="gru4rec_xe_shared")
    args = parser.parse_args()
    found = read_proposals(args.space)
    for one in proposals(args.space):
        print(f"{one.number} {one.log}: {json.dumps(one.point)}", flush=True)
        found.append(one)
    lines = ",\n".join(json.dumps(vars(one)) for one in found)
    proposed_file(args.space, CURVES).write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
