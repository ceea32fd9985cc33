"""Options of launch_study, held to what the command line takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paropt.api.options import checked
from paropt.errors import ParoptError


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"trials": np.int64(3), "seed": np.int32(0)}, {"trials": 3, "seed": 0}),
        ({"timeout": "2h", "heartbeat": np.float32(2.5)}, {"timeout": 7200.0, "heartbeat": 2.5}),
        ({"also": "coverage@20"}, {"also": ("coverage@20",)}),
        ({"constraint": ["a<=9"], "fixed": ()}, {"constraint": ("a<=9",), "fixed": ()}),
        ({"ties": "median", "filter_seen": False}, {"ties": "median", "filter_seen": False}),
        ({"trials": None, "study": None}, {}),
        ({"sampler": "random", "pruner": {"name": "none"}},
         {"sampler": {"name": "random"}, "pruner": {"name": "none"}}),
        ({"warm_start": [Path("a/b.json")], "fixed": iter(["dim=8"])},
         {"warm_start": ("a/b.json",), "fixed": ("dim=8",)}),
        ({"filter_seen": np.True_}, {"filter_seen": True}),
    ],
)  # fmt: skip
def test_values_become_plain(given: dict[str, Any], found: dict[str, Any]) -> None:
    plain = checked(given)
    assert plain == found
    assert {type(value) for value in plain.values()} <= {int, float, bool, str, tuple, dict}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"trials": "6"}, "trials is a whole number, not '6'"),
        ({"trials": 2.5}, "trials is a whole number, not 2.5"),
        ({"trials": True}, "trials is a whole number, not True"),
        ({"trials": 0}, "trials is 1 or more, not 0"),
        ({"stop_after_stale": 0}, "stop_after_stale is 1 or more"),
        ({"seed": -3}, "seed is 0 or more, not -3"),
        ({"timeout": -5.0}, "timeout is above 0, not -5.0"),
        ({"timeout": "2"}, "timeout: '2' is no duration without a unit"),
        ({"device_hours": "x"}, "device_hours is a number, not 'x'"),
        ({"heartbeat": 0}, "heartbeat is above 0"),
        ({"ties": "nope"}, "ties are standard, conservative, median, not 'nope'"),
        ({"filter_seen": "no"}, "filter_seen is True or False, not 'no'"),
        ({"also": 3}, "also is a list of texts, not 3"),
        ({"study": "-x"}, "would be taken for an option"),
        ({"fixed": {"dim": 32}}, "fixed is a list of texts, not {'dim': 32}"),
        ({"sampler": 3}, "sampler is a name or a dict with its options, not 3"),
        ({"timeout": 10**400}, "timeout is a number, not"),
        ({"trails": 3}, "a study has no option 'trails'; did you mean 'trials'?"),
    ],
)
def test_what_the_command_line_would_refuse_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ParoptError) as refused:
        checked(given)
    assert told in str(refused.value)
