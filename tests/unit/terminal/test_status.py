"""The table of a study's best trials in ``paropt status``."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from paropt.terminal.status import _best_table


def table(models: list[str]) -> list[list[str]]:
    trial = {
        "trial": 4,
        "value": 0.3,
        "steady": 0.28,
        "tied": None,
        "conservative": None,
        "epoch": 2,
        "epochs": 3,
        "stages": {},
        "stage": "main",
        "state": "complete",
        "model": "markov",
        "params": {"steps": 8, "rules": 500},
    }
    space = SimpleNamespace(models=models, searched=[SimpleNamespace(name="steps")])
    study: Any = SimpleNamespace(space=space, best=lambda count: [trial][:count])
    out = io.StringIO()
    Console(file=out, width=120).print(_best_table("mrr@20", study, 5, 120))
    return [line.split() for line in out.getvalue().splitlines()]


def test_a_model_is_named_where_several_are_searched() -> None:
    heads, row = table(["markov", "item_knn"])
    assert heads[:5] == ["trial", "mrr@20", "mean", "of", "3"]
    assert row == ["4", "0.3000", "0.2800", "2/3", "complete", "model=markov", "steps=8"]
    assert table(["markov"])[1][-2:] == ["complete", "steps=8"]
