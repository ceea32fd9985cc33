"""Logs whose sessions walk along a ring of 30 items: a small model learns them in seconds."""

from __future__ import annotations

import random
from pathlib import Path

DAYS = 4 * 86_400


def write_ring(log: Path, sessions: int, chance: random.Random) -> Path:
    """``sessions`` of three to seven events over four days; one step in four skips an item."""
    with log.open("w") as file:
        file.write("SessionId\tItemId\tTime\n")
        for session in range(sessions):
            begin, item = 1_700_000_000 + session * (DAYS // sessions), chance.randrange(30)
            for step in range(chance.randrange(3, 8)):
                file.write(f"{session}\t{item}\t{begin + 30 * step}\n")
                item = (item + chance.choice((1, 1, 1, 2))) % 30
    return log
