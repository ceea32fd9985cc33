"""Declarations of parameters: what they take, what they refuse, in which words."""

from __future__ import annotations

import pytest

from models.parts.contract import Param

RATE = Param("learning_rate", "float", 0.1, "step size", low=0, low_open=True, high=1)
SIZES = Param("layers", "sizes", (100,), "units per layer", low=1)
LOSS = Param("loss", "str", "a", "what is minimised", choices=("a", "b"))
ACT = Param("act", "str", "linear", "activation", pattern=r"linear|elu-\d+(\.\d+)?")
SHARED = Param("shared", "bool", False, "one table")
COUNT = Param("count", "int", 3, "how many", low=0)


@pytest.mark.parametrize(
    ("param", "value", "expected"),
    [
        (RATE, "1e-05", 1e-05),
        (RATE, 1, 1.0),
        (SIZES, 100, (100,)),
        (SIZES, "200/100", (200, 100)),
        (SIZES, [64, 32], (64, 32)),
        (SHARED, "True", True),
        (SHARED, "0", False),
        (SHARED, 1, True),
        (COUNT, "7", 7),
        (COUNT, 7.0, 7),
        (ACT, "elu-0.5", "elu-0.5"),
        (LOSS, "b", "b"),
    ],
)
def test_parse(param: Param, value: object, expected: object) -> None:
    parsed = param.parse(value)
    assert parsed == expected
    assert type(parsed) is type(expected)


@pytest.mark.parametrize(
    ("param", "value", "message"),
    [
        (RATE, 0, "must be above 0, not 0.0"),
        (RATE, 1.5, "must be at most 1, not 1.5"),
        (RATE, "fast", "must be a number, not 'fast'"),
        (RATE, True, "must be a number, not True"),
        (RATE, float("nan"), "must be a finite number, not nan"),
        (RATE, "inf", "must be a finite number, not 'inf'"),
        (SIZES, "200/x", "must be an integer, not 'x'"),
        (SIZES, [], "must be a size, a list of sizes or '200/200', not []"),
        (SIZES, [100, 0], "must be at least 1, not 0"),
        (SHARED, "yes", "must be true or false, not 'yes'"),
        (SHARED, 2, "must be true or false, not 2"),
        (COUNT, 1.5, "must be an integer, not 1.5"),
        (COUNT, True, "must be an integer, not True"),
        (COUNT, -1, "must be at least 0, not -1"),
        (ACT, "elu-", "'elu-' is not of the form linear|elu-\\d+(\\.\\d+)?"),
        (LOSS, "c", "must be one of a, b, not 'c'"),
        (LOSS, 3, "must be text, not 3"),
    ],
)
def test_parse_refuses(param: Param, value: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        param.parse(value)
    assert str(caught.value) == message
