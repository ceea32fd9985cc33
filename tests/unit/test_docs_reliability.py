"""Every promise names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_promise_names_tests_that_exist() -> None:
    tests = {path.name: path.read_text() for path in (ROOT / "tests").rglob("test_*.py")}
    rows = re.findall(r"^\| \d+ \|.*$", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        name, named = "", re.findall(r"`([\w.…]+\.py|…)(?:::(\w+))?`", row.rpartition(" | ")[2])
        assert named, row
        for file, function in named:
            name = file if file != "…" else name
            assert name in tests, f"{name}: {row}"
            assert not function or f"def {function}(" in tests[name], f"{function}: {row}"
