"""A log as large as one likes, written a block at a time as Parquet.

    python benchmarks/speed/large_log.py OUT.parquet [--events 100000000] [--items 1000000]
        [--days 30]

Sessions of six events on average interleave, rows are in the order of time. Items follow Zipf's
law; half of them are one of the next few after the one before, in the order of popularity, so that
there is something to learn. Memory is that of one block, whatever the number of events.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

BLOCK = 1_000_000  # events that are made at once
MEAN = 6  # events of a session
EXPONENT = 0.9  # of Zipf's law; the rarest of 1 M items still has a dozen of 100 M events
BEGIN = 1_700_000_000  # seconds
STEPS = 3  # how far the next item is at most, in the order of popularity


def blocks(events: int, items: int, days: float, seed: int = 1) -> Iterator[pa.Table]:
    """The log in pieces: SessionId and ItemId, integers, and Time, seconds in a double."""
    seconds, sessions = days * 86_400 / events, 0
    for begin in range(0, events, BLOCK):
        random = np.random.default_rng((seed, begin))
        count = min(BLOCK, events - begin)
        lengths = random.poisson(MEAN - 2, count // MEAN + 1) + 2
        session = np.repeat(np.arange(len(lengths)), lengths)[:count]
        count = len(session)
        starts = random.uniform(begin, begin + count, len(lengths)) * seconds
        time = BEGIN + starts[session] + _since_start(random, session)
        order = np.argsort(time, kind="stable")
        # no straggling end, by which a split of the last minutes would be empty
        order = order[: np.searchsorted(time[order], BEGIN + days * 86_400)]
        yield pa.table(
            {
                "SessionId": 10_000_000 + sessions + session[order],
                "ItemId": 214_000_000 + _walks(random, session, items)[order],
                "Time": np.round(time[order], 3),
            }
        )
        sessions += len(lengths)


def _since_start(random: np.random.Generator, session: NDArray[np.int64]) -> NDArray[np.float64]:
    """Seconds since the session's first event, about a minute from event to event."""
    passed = np.cumsum(random.exponential(60, len(session)))
    first = np.flatnonzero(np.r_[True, session[1:] != session[:-1]])
    since: NDArray[np.float64] = passed - passed[first][session]
    return since


def _walks(
    random: np.random.Generator, session: NDArray[np.int64], items: int
) -> NDArray[np.int64]:
    """Items by their place in popularity: half of them follow from the one before."""
    left = 1 - EXPONENT  # the integral of Zipf's law, turned around
    drawn = (1 + random.random(len(session)) * (items**left - 1)) ** (1 / left) - 1
    anew = np.r_[True, session[1:] != session[:-1]] | (random.random(len(session)) < 0.5)
    walked = np.cumsum(random.integers(1, STEPS + 1, len(session)))
    since = np.flatnonzero(anew)[np.cumsum(anew) - 1]
    return np.asarray((drawn.astype(np.int64)[since] + walked - walked[since]) % items)


def write(path: Path, events: int, items: int, days: float) -> int:
    """How many events were written."""
    written, writer = 0, None
    for table in blocks(events, items, days):
        writer = writer or pa.parquet.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
        written += table.num_rows
    if writer is not None:
        writer.close()
    return written


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--events", type=int, default=100_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=30.0)
    given = parser.parse_args()
    written = write(given.out, given.events, given.items, given.days)
    print(f"{written:,} events, {given.out.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
