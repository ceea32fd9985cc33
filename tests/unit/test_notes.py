"""The notes of studies and trials: what they say, and that no name can be markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paropt.dashboard.notes import study_note, trial_note
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.history import Record
from paropt.training.objective import Objective

EVIL = "`<script>alert(1)</script>` | [x](y)\n# z"


def definition(data: Path | str, name: str = "shop") -> StudyDefinition:
    space = {"model": "gru4rec", "search": {"learning_rate": {"type": "float"}}}
    return StudyDefinition(
        name=name,
        space=space,
        metric="mrr@20",
        at=[20],
        data_path=str(data),
        fingerprint="f" * 64,
        seed=7,
    )


def summary(**more: Any) -> dict[str, Any]:
    best = {"trial": 3, "epoch": 5, "value": 0.25, "params": {"learning_rate": 0.0123456, "k": 1}}
    found = {"model": "gru4rec", "counts": {"complete": 4, "pruned": 1}, "budget": 10}
    return {**found, "best": best, "floor": {"cooccurrence": {"mrr@20": 0.125}}, **more}


def test_a_study_says_what_it_searches_and_how_to_repeat_it(tmp_path: Path) -> None:
    text = study_note(definition(tmp_path), summary())
    for words in (
        "Searched: `learning_rate`.",
        "| co-occurrence (no training) | | | 0.1250 |",
        "| **best** | 3 | 5 | **0.2500** |",
        "4 complete, 1 pruned; budget 10.",
        "Best parameters: `learning_rate=0.01235`\n",
        "paropt export shop --out best",
    ):
        assert words in text
    assert "Published" not in text
    unborn = study_note(definition(tmp_path), summary(best=None))
    assert "best" not in unborn


@pytest.mark.parametrize(
    ("meta", "known"),
    [
        ({"fingerprint": "f" * 64, "format_name": "diginetica"}, True),
        ({"fingerprint": "0" * 64, "format_name": "diginetica"}, False),
        ({"fingerprint": "f" * 64, "format_name": "generic"}, False),
        ([], False),
    ],
)
def test_published_numbers_stand_beside_the_very_same_data(
    tmp_path: Path, meta: Any, known: bool
) -> None:
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    text = study_note(definition(tmp_path), summary())
    expected = "Published for GRU4Rec, on test: recall@20 0.4995, mrr@20 0.1542."
    assert (expected in text) == known
    assert ("Published" in text) == known


def record(**more: Any) -> Record:
    meta = {"root": 4, "attempt": 2, "model": EVIL, "epochs": 3}
    found: dict[str, Any] = {
        "id": 5,
        "number": 4,
        "state": "PRUNED",
        "value": 0.25,
        "started": None,
        "ended": None,
        "meta": meta,
        "owner": {"device": "cuda:0", "host": EVIL},
        "curves": {
            "mrr@20": [0.25, 0.125],
            "recall@20": [0.5, 0.25],
            "seconds": [1.0, 3.0],
            "events_per_second": [1000.0, 3000.0],
            "peak_memory": [1 << 30, 2 << 30],
        },
        "end": {"why": "pruned", "message": EVIL},
    }
    return Record(**{**found, **more})


def test_a_trial_says_what_one_wants_to_know_first() -> None:
    text = trial_note(record(), Objective("mrr@20"))
    for row in (
        "| mrr@20 | 0.2500 |",
        "| recall@20 | 0.5000 |",
        "| best epoch | 1 of 2 run |",
        "| events/s | 2,000 |",
        "| seconds per epoch | 2.0 |",
        "| peak memory | 2,048 MiB |",
        "| attempt | 2 |",
    ):
        assert row in text
    waiting = trial_note(record(owner={}, curves={}, end={}, state="WAITING"), Objective("mrr@20"))
    assert "device" not in waiting and "why" not in waiting and "events" not in waiting


def test_no_name_is_markup(tmp_path: Path) -> None:
    of_study = study_note(definition(f"{tmp_path}/{EVIL}", EVIL), summary(model=EVIL))
    for text in (trial_note(record(), Objective("mrr@20")), of_study):
        for line in text.splitlines():
            code = "".join(line.split("`")[1::2])
            bare = "" if line.startswith("    ") else "".join(line.split("`")[::2])
            assert "<" not in bare and "](" not in bare and not bare.startswith("# "), line
            assert not code or line.count("`") % 2 == 0
    assert "    paropt final '`<script>alert(1)</script>` | [x](y) # z'" in of_study.splitlines()
