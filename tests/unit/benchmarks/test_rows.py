"""A long measurement goes on where it ended."""

from __future__ import annotations

from pathlib import Path

from rows import Rows


def test_rows_are_kept_and_found_by_their_key(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.csv", ("set", "seed", "value", "trials"))
    assert rows.read() == []
    assert not rows.has({"set": "shop"})

    rows.add([{"set": "shop", "seed": "1", "value": "0.5"}])
    rows.add([{"set": "shop", "seed": "2", "value": "0.6", "trials": 7}])

    again = Rows(rows.path, rows.columns)
    assert rows.path.read_text() == "set,seed,value,trials\nshop,1,0.5,\nshop,2,0.6,7\n"
    assert again.has({"set": "shop", "seed": "2"})
    assert not again.has({"set": "shop", "seed": "3"})
    assert [row["value"] for row in again.read()] == ["0.5", "0.6"]
