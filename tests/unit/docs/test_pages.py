"""Pages have each section once, and what they point at is there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_no_section_stands_twice(page: Path) -> None:
    lines = page.read_text("utf-8").splitlines()
    counted = Counter(line for line in lines if line.startswith("## "))
    assert [line for line, count in counted.items() if count > 1] == []


def anchors(page: Path) -> set[str]:
    """What a link to one of a page's sections may say after ``#``, as GitHub makes it."""
    headings = re.findall(r"(?m)^#+ (.*)$", page.read_text("utf-8"))
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in plain}


@each_page
def test_links_lead_to_a_file_and_a_section(page: Path) -> None:
    astray = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        path, _, section = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue  # a page elsewhere
        file = page.parent / path if path else page
        if not file.exists() or (section and section not in anchors(file)):
            astray.append(target)
    assert astray == []


def test_programs_that_are_named_are_there() -> None:
    code = [
        path for room in ("paropt", "models", "benchmarks") for path in (ROOT / room).rglob("*")
    ]
    sources = [path for path in code if path.suffix == ".py"]
    named = {
        name
        for path in [*PAGES, *sources, ROOT / "Makefile"]
        if path.name != "CHANGELOG.md"  # which tells of what was
        for name in re.findall(r"\bbenchmarks/[\w/]+\.(?:py|json|md)\b", path.read_text("utf-8"))
    }
    assert len(named) > 30
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_files_that_moved_are_where_the_changelog_says() -> None:
    lines = (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines()
    rows = [line.split("|")[2] for line in lines if line.startswith("| `")]
    now = [name for row in rows for name in re.findall(r"`([^`]+)`", row) if "/" in name]
    places = [place for name in now for place in one_by_one(name)]

    assert len(places) > 100
    assert [place for place in places if not (ROOT / place).exists()] == []


def one_by_one(name: str) -> list[str]:
    """``a/{b,c}.py`` is ``a/b.py`` and ``a/c.py``."""
    before, brace, rest = name.partition("{")
    inner, _, after = rest.partition("}")
    return [before + one + after for one in inner.split(",")] if brace else [name]
