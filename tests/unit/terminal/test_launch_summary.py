"""What a search ends in: which model won at equal spend, and which parameters mattered."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from paropt.search.study.summary import Importance
from paropt.terminal.launch_summary import _importances, _models


def importances(models: list[str] | None = None, **found: float) -> list[str]:
    models = models or ["gru4rec"]
    told = [Importance(model, found, 12) for model in models] if found else []
    space = SimpleNamespace(models=models)
    study: Any = SimpleNamespace(importances=lambda: told, space=space)
    return _importances(study)


def test_parameters_that_do_not_matter_are_counted_not_listed() -> None:
    lines = importances(layers=0.5, rate=0.491, tied=0.009, skip=0.0)
    assert lines[2].split() == ["layers", "50%", "▇" * 10]
    assert lines[3].split() == ["rate", "49%", "▇" * 10]
    assert lines[4:] == ["  2 others less than 1% each"]
    assert importances(layers=0.995, tied=0.005)[-1] == "  1 other less than 1% each"
    assert "less than" not in importances(layers=1.0)[-1]
    assert importances() == []
    assert importances(layers=1.0)[1] == "how much each parameter mattered, by 12 trials:"
    both = importances(["gru4rec", "hstu"], layers=1.0)
    assert both[4] == "how much each parameter of hstu mattered, by 12 trials:"


def test_models_at_equal_spend_stand_beside_the_floors() -> None:
    rows = [
        ("gru4rec", 0.30, 4, 9, 120.4, 0.35),
        ("sasrec", 0.31, 2, 5, 60.0, 0.31),
        ("hstu", None, None, 1, 3.0, None),
    ]
    names = ("model", "best", "trial", "trials", "spent", "overall")
    status = {
        "metric": "mrr@20",
        "by_model": {"spend": 60.0, "models": [dict(zip(names, row, strict=True)) for row in rows]},
        "floor": {"cooccurrence": {"mrr@20": 0.28, "recall@20": 0.5}},
    }
    console = Console(file=io.StringIO(), width=100)
    console.print(_models(status))
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in printed[1:]] == [
        ["sasrec", "0.3100", "2", "5", "60", "s", "0.3100"],
        ["gru4rec", "0.3000", "4", "9", "120", "s", "0.3500"],
        ["hstu", "-", "-", "1", "3", "s", "-"],
        ["co-occurrence", "0.2800", "-", "-", "0", "s", "0.2800"],
    ]
