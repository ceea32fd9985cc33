"""Whose start points are: kept where a point stays what it was, lost where it is changed."""

from __future__ import annotations

from typing import Any

import pytest

from paropt.errors import SpaceError
from paropt.search.setup.warm_start import warmed
from paropt.search.space.file import from_json, of_object
from paropt.search.space.start_points import changed, distinct
from paropt.search.space.table import as_object, as_text

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "search": {
        "layers": {"type": "int", "low": 32, "high": 96, "step": 32},
        "momentum": {"type": "categorical", "choices": [0.0, 0.5]},
    },
    "start": [
        {"layers": 32, "momentum": 0.5},
        {"from": "a shop", "layers": 64, "momentum": 0.5},
        {"from": "a paper", "layers": 96, "momentum": 0},
    ],
}


def test_a_name_is_no_parameter() -> None:
    space = of_object(SPACE)
    assert space.start[1] == {"layers": 64, "momentum": 0.5}
    assert space.start_from == (None, "a shop", "a paper")
    assert from_json(space.to_json()).start_from == space.start_from


def test_it_is_shown() -> None:
    space = of_object(SPACE)
    assert as_text(space).endswith("3 points to start from\n  from a shop\n  from a paper")
    assert as_object(space)["start"] == [
        {"layers": 32, "momentum": 0.5},
        {"layers": 64, "momentum": 0.5, "from": "a shop"},
        {"layers": 96, "momentum": 0, "from": "a paper"},
    ]


def test_fixed_values_make_it_nobodys() -> None:
    space = of_object(SPACE, ["layers=64"])
    assert space.start == ({"layers": 64, "momentum": 0.5}, {"layers": 64, "momentum": 0})
    assert space.start_from == ("a shop", None)  # the first became the second, which has a name


def test_earlier_points_come_first_and_names_stay() -> None:
    space = warmed(
        of_object(SPACE), [{"layers": 96, "momentum": 0.5}, {"layers": 96, "momentum": 0}]
    )
    assert space.start_from == (None, "a paper", None, "a shop")
    assert space.start[0] == {"layers": 96, "momentum": 0.5}


def test_a_name_is_text() -> None:
    with pytest.raises(SpaceError, match='start point 1: "from" should be a text'):
        of_object({**SPACE, "start": [{"from": 3, "layers": 32}]})


def test_changed_and_distinct() -> None:
    point = {"from": "x", "a": 1}
    assert changed(point, {"a": 1}) == point
    assert changed(point, {"a": 2}) == {"a": 2}
    assert changed({"a": 1}, {"a": 1}) == {"a": 1}
    assert distinct([{"a": 1}, point, {"a": 2}, {"from": "y", "a": 1}]) == [point, {"a": 2}]
