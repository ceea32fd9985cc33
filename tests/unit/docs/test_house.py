"""The house can be drawn: no import circle anywhere, and a map that names every room."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
ARCHITECTURE = ROOT / "docs" / "architecture.md"


def modules() -> dict[str, Path]:
    """Every module of paropt and models by its dotted name."""
    found = {}
    for package in ("paropt", "models"):
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules of ours that a file imports: at its top, in a function, or for types only."""

    def named() -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    below = f"{node.module}.{alias.name}"
                    yield below if below in known else node.module

    return {name for name in named() if name in known}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected sets of more than one module (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            members = set(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(members) > 1:
                found.append(members)

    for name in graph:
        if name not in order:
            visit(name)
    return found


def house() -> dict[str, set[str]]:
    found = modules()
    return {name: imports(path, set(found)) - {name} for name, path in found.items()}


def test_a_circle_is_seen() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}

    assert circles(graph) == [{"a", "b", "c"}]
    assert circles({**graph, "c": set()}) == []


def test_an_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport a\nfrom b import c\n"
        "if TYPE_CHECKING:\n    from d import thing\ndef f():\n    import e\n"
    )

    assert imports(path, {"a", "b", "b.c", "d", "e", "f"}) == {"a", "b.c", "d", "e"}


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = house()

    assert len(graph) > 150
    assert circles(graph) == []


def test_the_map_names_every_room() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    rooms = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for path in modules().values()
        if path.name == "__init__.py" and path.parent.name != "paropt"
    }

    assert [room for room in sorted(rooms) if f"`{room}`" not in text] == []


def named(dotted: str) -> Any:
    """What a dotted name means: a module, or something in one.

    Raises:
        AttributeError: there is no such thing.
    """
    parts = dotted.split(".")
    known = modules()
    depth = max(n for n in range(1, len(parts) + 1) if ".".join(parts[:n]) in known)
    found: Any = importlib.import_module(".".join(parts[:depth]))
    for part in parts[depth:]:
        found = getattr(found, part)
    return found


def test_the_walk_of_a_trial_names_what_there_is() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    walk = text.partition("## A trial, walked")[2].partition("\n## ")[0]
    steps = re.findall(r"`((?:paropt|models)(?:\.\w+)+)`", walk)

    assert len(steps) > 20
    for step in steps:
        assert callable(named(step)), step
    with pytest.raises(AttributeError):
        named("paropt.cli.launch.lunch")


def test_pages_name_files_that_are_there() -> None:
    rooms = ("paropt", "models", "tests", "docs", "benchmarks")
    files = {path.as_posix() for room in rooms for path in (ROOT / room).rglob("*.*")}
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for name in re.findall(r"`([a-z0-9_/]+\.(?:py|c|h))`", page.read_text("utf-8")):
            assert any(file.endswith(f"/{name}") for file in files), f"{page.name}: {name}"
