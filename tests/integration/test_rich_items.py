"""quality/rich_items.py: rows that it goes on from, and tables whose numbers are the ranks'."""

from __future__ import annotations

import csv
import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import rich_items
from rich_items import Set

from paropt.data.log.options import Options
from paropt.data.prepare import prepare

SMALL = {"dim": 8, "blocks": 1, "max_length": 6, "batch_size": 16, "dropout": 0.0}


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Forty users on a ring of twelve items, which have a colour, and a vector but for one."""
    source = random.Random(5)
    lines = ["SessionId,ItemId,Time"]
    for user in range(40):
        item = source.randrange(12)
        for step in range(source.randint(5, 8)):
            lines.append(f"u{user},i{item},{1_700_000_000 + user * 1000 + step}")
            item = (item + source.choice((1, 1, 2))) % 12
    (tmp_path / "log.csv").write_text("\n".join(lines))
    table = ["ItemId,colour", *(f"i{item},{'abc'[item % 3]}" for item in range(12))]
    (tmp_path / "items.csv").write_text("\n".join(table))
    vectors = [{"ItemId": f"i{i}", "v": [np.cos(i), np.sin(i), i % 2]} for i in range(11)]
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, vectors)))
    options = Options(
        protocol="leave-one-out",
        item_features=(tmp_path / "items.csv",),
        item_vectors=(f"v={tmp_path / 'v.jsonl'}",),
        min_support=1,
        keep_repeats=True,
    )
    prepare([tmp_path / "log.csv"], tmp_path / "sets" / "ring", options=options)
    return tmp_path / "sets"


def run(sets: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["rich_items.py", "--sets", str(sets), "--set", "ring", "--out", str(out)]
    words += ["--model", "sasrec", "--variant", "ids", "zero-ids-text", "--seeds", "1", "2"]
    monkeypatch.setattr(sys, "argv", [*words, "--epochs", "2"])
    monkeypatch.setattr(rich_items, "SETS", {"ring": Set("colour", "v", SMALL)})
    rich_items.main()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_it_goes_on_from_its_rows(
    sets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = sets.parent / "out"
    run(sets, out, monkeypatch)
    first = capsys.readouterr().out
    rows = rows_of(out / "rows.csv")
    assert len(rows) == 8 and len(rows_of(out / "curves.csv")) == 4
    for row in rows:
        ranks = np.load(out / "ranks" / row["ranks"])["ranks"]
        assert len(ranks) == int(row["targets"]) == 40 - int(row["unknown"])
        assert float(row["recall@10"]) == pytest.approx(np.mean(ranks <= 10), abs=1e-5)
    # the last of two protocols trains on less, so it knows no other items
    lines = [line for line in first.splitlines() if line.startswith("| sasrec")]
    assert len(lines) == 4 and all("[2]" in line for line in lines)
    ids = [line.split(" | ") for line in lines if ", ids " in line]
    assert all("+0.0000 (+0.0000 … +0.0000)" in cells[-1] for cells in ids)
    # without its last row it is trained again, to the same
    kept = (out / "rows.csv").read_text().splitlines()
    (out / "rows.csv").write_text("\n".join(kept[:-1]) + "\n")
    run(sets, out, monkeypatch)
    assert [{k: v for k, v in row.items() if "seconds" not in k} for row in rows] == [
        {k: v for k, v in row.items() if "seconds" not in k} for row in rows_of(out / "rows.csv")
    ]
    assert capsys.readouterr().out == first
