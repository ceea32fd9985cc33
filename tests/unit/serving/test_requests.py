"""What a server is asked, field by field; its counts; and what it says where it lacks something."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from paropt.serving.limits import Limits, Refused
from paropt.serving.metrics import Metrics
from paropt.serving.requests import read_request
from paropt.serving.server import ServeError, ServeRequest, serve

FEW = Limits(sessions=2, events=3, top=5, listed=2)


def read(given: Any) -> Any:
    return read_request(json.dumps(given).encode(), FEW)


def test_what_stands_beside_the_sessions_holds_for_those_that_say_nothing_else() -> None:
    first, second = read(
        {
            "sessions": [{"id": 7, "items": ["a", 5]}, {"items": ["b"], "top": 2, "exclude": []}],
            "top": 4,
            "exclude": ["c"],
        }
    )
    assert (first[0], first[1].items, first[1].top, first[1].exclude) == ("7", ["a", "5"], 4, ["c"])
    assert (second[0], second[1].top, second[1].exclude) == (None, 2, [])


def test_times_are_seconds_or_iso_8601_in_utc() -> None:
    ((_, ask),) = read(
        {"items": [1, 2, 3], "times": [1.5, "1970-01-01", "1970-01-01T01:00:02+01:00"]}
    )
    assert ask.times == [1500, 0, 2000]


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ([], 400, "the body is no JSON object"),
        ({"items": [True]}, 400, "'items' has true, and ids are text or whole numbers"),
        ({"items": [1, 2, 3, 4]}, 422, "'items' has at most 3 entries, not 4"),
        ({"items": [1], "top": True}, 400, "'top' is a whole number from 1, not true"),
        ({"items": [1], "top": 6}, 422, "'top' is at most 5, not 6"),
        ({"items": [1], "times": [1e13]}, 400, "times are seconds since 1970"),
        ({"items": [1], "filter_seen": 1}, 400, "'filter_seen' is true or false, not 1"),
        ({"items": [1], "columns": {"a": [[]]}}, 400, "column 'a' has [], no text or number"),
        ({"sessions": [{"items": []}] * 3}, 422, "at most 2 sessions, not 3"),
        ({"sessions": [{"items": []}, 5]}, 400, "session 2 is no JSON object"),
        ({"sessions": [{"items": []}, {"itens": []}]}, 400, "session 2: there is no 'itens'"),
        ({"sessions": [], "items": []}, 400, "there is no 'items' beside 'sessions'"),
    ],
)
def test_what_is_wrong_is_one_sentence(given: Any, status: int, message: str) -> None:
    with pytest.raises(Refused) as refused:
        read(given)
    assert refused.value.status == status and message in str(refused.value)


def test_counts_are_written_as_prometheus_reads_them() -> None:
    metrics = Metrics({"model": 'a"b'})
    for sessions in (1, 3, 300):
        metrics.batched(sessions)
    metrics.requested(200, 0.002)
    metrics.answered(popular=True, unknown=2)
    lines = metrics.text().splitlines()
    assert r'paropt_model_info{model="a\"b"} 1' in lines
    assert 'paropt_batch_sessions_bucket{le="1"} 1' in lines
    assert 'paropt_batch_sessions_bucket{le="4"} 2' in lines
    assert 'paropt_batch_sessions_bucket{le="+Inf"} 3' in lines
    assert "paropt_batch_sessions_sum 304" in lines
    assert 'paropt_request_seconds_bucket{le="0.001"} 0' in lines
    assert 'paropt_request_seconds_bucket{le="0.0025"} 1' in lines
    assert 'paropt_sessions_total{by="popularity"} 1' in lines
    assert "paropt_unknown_items_total 2" in lines


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ServeError, match=r"needs starlette and uvicorn; .*'paropt\[serve\]'"):
        serve(ServeRequest([tmp_path]), lambda line: None)
