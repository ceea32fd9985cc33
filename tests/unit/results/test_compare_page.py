"""What a comparison of studies says."""

from __future__ import annotations

import re
from typing import Any

from paropt.results.pages.compare_page import compare_page
from paropt.results.pages.html_page import page
from paropt.results.pages.markdown import markdown


def row(study: str, value: float, steady: float, **more: Any) -> dict[str, Any]:
    at = {"trial": 3, "model": "gru4rec", "value": value, "steady": steady, "interval": None}
    at |= {"targets": 900, "unknown": 100}
    return {
        "study": study,
        "models": ["gru4rec", "hstu"],
        "seed": 42,
        "devices": ["cpu"],
        "trials": 8,
        "spent": 240.0,
        "at_spend": at | more.pop("at", {}),
        "trials_at_spend": 5,
        "best": {"value": 0.5},
        "points": [{"spent": 60.0, "best": None}, {"spent": 240.0, "best": steady}],
        "floor": {"cooccurrence": {"mrr@20": 0.1}},
        "test": None,
        **more,
    }


def compared(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    found = {"metric": "mrr@20", "direction": "maximize", "split": "train → valid", "spend": 120.0}
    evaluation = {"filter_seen": True, "ties": "standard"}
    return {**found, "fingerprint": "f" * 64, "evaluation": evaluation, "studies": rows, **more}


def text_of(found: dict[str, Any]) -> str:
    return re.sub(" +", " ", markdown(compare_page(found)))


def test_what_is_compared_how_and_on_what() -> None:
    test = {"mean": 0.3, "spread": 0.01, "interval": [0.2, 0.4], "looks": 2, "values": [0.3]}
    text = text_of(compared(row("a", 0.4, 0.2), row("b", 0.3, 0.25, test=test)))
    assert "judged by: `mrr@20` on train → valid; history filtered, standard ties" in text
    assert "at equal spend: when each had used 120 device seconds" in text
    # first is who has the better mean of three epochs, as in status and export
    first, second = (line for line in text.splitlines() if re.match(r"\| \**[ab]\b", line))
    assert first.startswith("| **b** | gru4rec, hstu | 0.3000 | trial 3, gru4rec | 0.5000 |")
    assert first.endswith("| 5 of 8 | 4 min | 0.3000 ± 0.0100 [0.2000, 0.4000], look 2 |")
    assert second.endswith("| - |")
    assert "Judged on 900 targets (100 left out)." in text
    assert "Below" not in text and "not alike" not in text


def test_a_second_is_one() -> None:
    text = text_of(compared(row("a", 0.4, 0.4), row("b", 0.3, 0.3), spend=1.0))
    assert "when each had used 1 device second\n" in text


def test_less_may_be_better() -> None:
    text = text_of(compared(row("a", 0.4, 0.4), row("b", 0.3, 0.3), direction="minimize"))
    assert "| **b** |" in text


def test_what_a_reader_must_know_is_said() -> None:
    low = row("b", 0.05, 0.05, devices=["gpu0"], at={"targets": 800})
    text = text_of(compared(row("a", 0.06, 0.06, at={"interval": [0.04, 0.08]}), low))
    for words in (
        "b is within the interval of a: which is better is open.",
        "Not judged on the same targets: a on 900 targets (100 left out); b on 800 targets",
        "Seconds of different devices are not alike: cpu, gpu0.",
        "At equal spend no better than the floor: a and b.",
    ):
        assert words in text
    assert "0.0600 [0.0400, 0.0800]" in text


def test_a_page_takes_any_name() -> None:
    evil = "<script>alert('1')</script>"
    text = page(compare_page(compared(row(evil, 0.4, 0.4), row("b", 0.3, 0.3))))
    assert "<script" not in text and text.count("<svg") == 2 * 2
