"""How much of a log is held at once: at 100 million events a copy too many is a machine too few."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from paropt.data import summary
from paropt.data.log.values import times
from paropt.data.prepare import prepare

EVENTS = 120_000


@pytest.mark.parametrize("seconds", [pa.int64(), pa.float64()])
def test_preparing_holds_few_copies_of_the_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: pa.DataType
) -> None:
    """An event has 20 bytes: two splits, the encoded ones and what sorts them are 66."""
    for module in (times, summary):  # blocks as small beside this log as the usual beside a large
        monkeypatch.setattr(module, "_BLOCK", EVENTS // 32)
    random = np.random.default_rng(1)
    session = random.integers(0, EVENTS // 6, EVENTS)
    time = 1_700_000_000 + session * 129 + random.integers(0, 900, EVENTS)  # over a month
    columns = {"SessionId": session, "ItemId": random.integers(0, 300, EVENTS), "Time": time}
    table = pa.table(columns).sort_by("Time")
    table = table.set_column(2, "Time", table["Time"].cast(seconds))
    pa.parquet.write_table(table, tmp_path / "log.parquet")
    tracemalloc.start()
    try:
        prepare([tmp_path / "log.parquet"], tmp_path / "set")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 76 * EVENTS
