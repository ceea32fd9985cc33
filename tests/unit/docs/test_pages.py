"""Pages have each section once: a slip of an editor doubles whole sections unnoticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_section_stands_twice(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    counted = Counter(line for line in lines if line.startswith("## "))
    assert [line for line, count in counted.items() if count > 1] == []
