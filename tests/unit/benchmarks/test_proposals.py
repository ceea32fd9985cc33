"""Which rows the tables of curves propose."""

from __future__ import annotations

import proposals
import pytest
from surrogate import read_table

from paropt.search.space.file import read_space
from paropt.search.space.shipped import find_space


def test_points_are_near_where_choices_are_equal_and_numbers_side_by_side() -> None:
    space = read_space(find_space("sasrec") or "", [])
    one = {"learning_rate": 0.002, "dim": 64, "dropout": 0.2, "loss": "cross-entropy"}
    assert proposals.near(space, one, one | {"learning_rate": 0.00201})
    assert not proposals.near(space, one, one | {"learning_rate": 0.003})
    assert not proposals.near(space, one, one | {"dim": 128}), (
        "a neighbour among choices is another"
    )
    assert not proposals.near(space, one, one | {"loss": "gbce"})


def test_a_row_that_lies_beside_another_is_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    table = read_table(proposals.CURVES / "beauty-sasrec.csv")
    here, beside, away = (dict(table.configs[0]) for _ in range(3))
    beside["learning_rate"] *= 1.01
    away["learning_rate"] /= 3
    answers = iter([beside, away, away | {"learning_rate": away["learning_rate"] * 1.01}])

    class Answers:
        def __init__(self, _: object) -> None: ...

        def optimum(self, _: float | None) -> tuple[float, dict[str, object]]:
            return 0.0, next(answers)

    monkeypatch.setattr(proposals, "Surrogate", Answers)
    monkeypatch.setattr(proposals, "tables", lambda space: {"beauty": table})
    monkeypatch.setattr(proposals, "read_proposals", lambda space: [])
    (only,) = proposals.proposals("sasrec")
    assert (only.number, only.log) == (1000, "beauty")
    assert only.point["learning_rate"] == pytest.approx(here["learning_rate"] / 3)
