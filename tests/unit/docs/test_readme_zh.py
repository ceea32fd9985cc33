"""README.zh.md is README.md in Chinese: the same commands, links and figures."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
ENGLISH, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
COMMENT = re.compile(r"(^| +)# .*$", re.MULTILINE)


def _blocks(path: Path) -> list[str]:
    """What stands in fences, without comments."""
    found = re.findall(r"```.*?```", path.read_text("utf-8"), re.DOTALL)
    return [COMMENT.sub("", block) for block in found]


def _figures(path: Path) -> list[str]:
    """The rows of numbers of tables, without their first column and words."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line.startswith("| ")]
    lines = [line.split("|", 2)[2] for line in lines]
    return [found for line in lines if (found := "".join(re.findall(r"[\d.±+\[\],;|]+", line)))]


def test_the_commands_are_the_same() -> None:
    assert len(_blocks(ENGLISH)) > 5
    assert _blocks(CHINESE) == _blocks(ENGLISH)


def test_the_pages_that_are_linked_are_the_same() -> None:
    def links(path: Path) -> set[str]:
        return set(re.findall(r"\]\(([^)]+)\)", path.read_text("utf-8")))

    assert links(CHINESE) - {"README.md"} == links(ENGLISH) - {"README.zh.md"}


def test_the_figures_are_the_same() -> None:
    table = [line for line in _figures(ENGLISH) if "." in line and "±" in line]
    assert len(table) == 4
    assert [line for line in _figures(CHINESE) if "±" in line] == table


def test_the_parts_are_the_same() -> None:
    def parts(path: Path) -> int:
        return path.read_text("utf-8").count("\n## ")

    assert parts(CHINESE) == parts(ENGLISH)
