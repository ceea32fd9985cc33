"""What packing trials of one shape could bring: who has one shape, and the arithmetic."""

from __future__ import annotations

import pytest
from packing_shapes import at_most, shape

from paropt.search.space.file import from_json

SPACE = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy"},
    "search": {
        "layers": {"type": "int", "low": 8, "high": 32, "step": 8},
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.2, "step": 0.05},
    },
}


def test_a_shape_is_sizes_and_not_rates() -> None:
    space = from_json(SPACE)
    one, slower, wider = (
        {"model": "gru4rec", "loss": "cross-entropy", "layers": layers, "learning_rate": rate}
        for layers, rate in ((8, 0.1), (8, 0.05), (16, 0.1))
    )
    assert shape(space, one) == shape(space, slower)
    assert dict(shape(space, one)) == {"model": "gru4rec", "loss": "cross-entropy", "layers": 8}
    assert shape(space, one) != shape(space, wider)


@pytest.mark.parametrize(
    ("groups", "beside", "rate"),
    [
        ([1, 1, 1], 0.75, 1.0),  # nobody shares anything
        ([8], 0.5, 8 / (8 * 0.5 + 0.5)),  # eight pay half a step each, and the other half once
        ([2, 1], 0.5, 3 / (1.5 + 1.0)),
        ([4], 0.0, 1.0),  # nothing but arithmetic
    ],
)
def test_what_a_group_pays_once(groups: list[int], beside: float, rate: float) -> None:
    assert at_most(groups, beside) == pytest.approx(rate)
