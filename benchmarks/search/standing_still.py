"""What ending a trial that stands still saves and loses, on tables of curves (curve_table.py).

    python benchmarks/search/standing_still.py curves/TABLE.csv … [--still 10 20 30]

For each share ``still`` of the epochs (paropt's rule: ``stands_still`` in
paropt/search/strategy/pruning.py), over all rows of a table: the device seconds that are not spent;
by how much the mean of a curve's three best epochs, which trials are ranked by, is below that of
the whole curve, on average, at worst, and at worst among the rows that are within 3 % of the best;
and what the whole curve of the row that one would then choose loses against the best one.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from dataclasses import dataclass
from pathlib import Path

from paropt.search.strategy.pruning import stands_still
from paropt.training.evaluation.objective import Objective

MRR = Objective("mrr@20")
NEAR = 0.97  # of the best: rows that a search is about


@dataclass(frozen=True)
class Row:
    """A training: what an epoch cost, and its curve."""

    seconds: float
    curve: list[float]

    def worth(self, epochs: int | None = None) -> float:
        found = MRR.steady(self.curve[:epochs])
        assert found is not None
        return found

    def ends(self, still: int) -> int:
        """After how many epochs it would have ended."""
        whole = len(self.curve)
        for epochs in range(1, whole):
            if stands_still({"still": still}, self.curve[:epochs], whole, MRR):
                return epochs
        return whole


def read(path: Path) -> list[Row]:
    """The rows of a table whose curves are whole."""
    with path.open(newline="") as file:
        file.readline()
        rows = list(csv.DictReader(file))
    names = [name for name in (rows[0] if rows else ()) if name.startswith("epoch ")]
    whole = [row for row in rows if all(row[name] for name in names)]
    return [Row(float(row["seconds"]), [float(row[n]) for n in names]) for row in whole]


def line(rows: list[Row], still: int) -> str:
    """One row of the table that is printed."""
    ends = [row.ends(still) for row in rows]
    spent = sum(row.seconds * end for row, end in zip(rows, ends, strict=True))
    whole = sum(row.seconds * len(row.curve) for row in rows)
    values = [row.worth() for row in rows]
    best = max(values)
    seen = [row.worth(end) for row, end in zip(rows, ends, strict=True)]
    lost = [100 * (1 - s / v) if v else 0.0 for s, v in zip(seen, values, strict=True)]
    near = [loss for loss, value in zip(lost, values, strict=True) if value >= NEAR * best]
    chosen = values[seen.index(max(seen))]
    return (
        f"| {still} % | {1 - spent / whole:.1%} | {statistics.mean(lost):.2f} % "
        f"| {max(lost):.2f} % | {max(near):.2f} % of {len(near)} "
        f"| {100 * (1 - chosen / best):.2f} % |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path, nargs="+")
    parser.add_argument("--still", type=int, nargs="+", default=[10, 20, 30, 40])
    args = parser.parse_args()
    for path in args.table:
        if not (rows := read(path)):
            continue
        print(f"\n{path.stem}: {len(rows)} trainings of {len(rows[0].curve)} epochs\n")
        print("| still | seconds saved | mean loss | worst | worst near the best | of the chosen |")
        print("|---|---|---|---|---|---|")
        for still in args.still:
            print(line(rows, still))


if __name__ == "__main__":
    main()
