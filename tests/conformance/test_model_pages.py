"""Pages of the documentation say what the models declare."""

from __future__ import annotations

from pathlib import Path

from paropt.training.model_tables import rewritten, table
from paropt.training.registry import declaration, names

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def test_tables_are_up_to_date() -> None:
    text = PAGE.read_text()
    assert rewritten(text) == text, "run: python -m paropt.training.model_tables docs/models.md"


def test_every_parameter_has_a_row() -> None:
    for name in names():
        if name == "gru4rec":
            continue  # it has a page of its own
        rows = table(name).splitlines()[2:]
        assert [row.split("`")[1] for row in rows] == list(declaration(name))
        assert all(row in PAGE.read_text() for row in rows)
