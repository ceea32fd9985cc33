"""Every promise names tests, and they are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_promise_names_tests_that_exist() -> None:
    tests = sorted((ROOT / "tests").rglob("test_*.py"))
    rows = re.findall(r"^\| \d+ \|.*$", (ROOT / "docs/reliability.md").read_text(), re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        name, named = "", re.findall(r"`([\w.…/]+\.py|…)(?:::(\w+))?`", row.rpartition(" | ")[2])
        assert named, row
        for file, function in named:
            name = file if file != "…" else name
            found = [path for path in tests if path.as_posix().endswith(f"/{name}")]
            assert len(found) == 1, f"{name}: {row}"
            assert not function or f"def {function}(" in found[0].read_text(), f"{function}: {row}"
