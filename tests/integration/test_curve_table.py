"""Tables of learning curves for the simulator: complete, and gone on with where they stopped."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import curve_table
import pytest
from curve_table import Cut

from paropt.data.log.options import Options


def _log(path: Path) -> None:
    """80 sessions of five items in a ring, an hour apart."""
    rows = [
        f"{s},{(s + k) % 7},{1_400_000_000 + 3600 * s + k}" for s in range(80) for k in range(5)
    ]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(["session,item,time", *rows, ""]))


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        file.readline()
        return list(csv.DictReader(file))


def test_a_table_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _log(tmp_path / "ring.csv.gz")
    options = Options(session_key="session", item_key="item", time_key="time", test_days=0.5)
    cut = Cut("ring.csv.gz", "session", 70, options, times=True)
    space = "gru4rec_xe_shared"
    monkeypatch.setattr(curve_table, "CUTS", {"ring": cut})
    fixed = ("n_sample=4", "n_epochs=2")
    curves = tmp_path / "curves"
    found = curve_table.dataset(tmp_path, "ring", tmp_path)
    assert found.view("search").train.n_sessions < 70, "only the last sessions are used"

    curve_table.table(found, "ring", space, range(2), math.inf, curves, fixed)
    path = curves / f"ring-{space}.csv"
    begun = path.read_text()
    curve_table.table(found, "ring", space, range(3), math.inf, curves, fixed)
    assert path.read_text().startswith(begun)
    rows = _rows(path)
    assert [row["row"] for row in rows] == ["0", "1", "2"]
    assert [row["layers"] for row in rows[:2]] == ["192", "480"], "the space's start points"
    assert all(0 < float(row[f"epoch {k}"]) <= 1 for row in rows for k in (1, 2))
    curve_table.table(found, "ring", space, range(4), -math.inf, curves, fixed)
    assert len(_rows(path)) == 3, "no time is left for another"
    curve_table.table(found, "ring", space, [5, 2], math.inf, curves, fixed)
    assert [row["row"] for row in _rows(path)] == ["0", "1", "2", "5"]
    larger = curve_table.dataset(tmp_path, "ring", tmp_path, times=2)
    assert larger.view("search").train.n_sessions > found.view("search").train.n_sessions
