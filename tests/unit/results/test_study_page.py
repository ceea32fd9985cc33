"""The page of a search: what it says while it runs, of nothing, of one trial and of many."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from paropt.results.pages.html_page import page
from paropt.results.pages.markdown import markdown
from paropt.results.pages.study_page import study_page
from paropt.results.searched import DatasetFacts, Searched, TrialFacts
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.summary import Importance

EVIL = "<script>alert('1')</script> | [x](y)"
SPACE: dict[str, Any] = {
    "models": ["gru4rec"],
    "search": [
        {"name": "learning_rate", "range": "0.01 … 0.3, log", "when": {}},
        {"name": "loss", "range": "cross-entropy, bpr-max", "when": {}},
        {"name": "bpreg", "range": "0 … 2", "when": {"loss": ["bpr-max"]}},
    ],
    "fixed": {"n_epochs": 5},
    "start": [],
}


def trial(number: int, **more: Any) -> TrialFacts:
    found: dict[str, Any] = {
        "params": {"learning_rate": 0.0123456, "loss": "cross-entropy", "n_epochs": 5},
        "value": 0.25,
        "steady": 0.24,
        "epoch": 3,
        "epochs": 5,
        "planned": 5,
        "curve": [0.1, 0.2, 0.25, 0.2, 0.2],
        "seconds": 40.0,
    }
    outcome = more.pop("outcome", "complete")
    return TrialFacts(number, outcome, more.pop("model", "gru4rec"), **{**found, **more})


def searched(*best: TrialFacts, **more: Any) -> Searched:
    points = [
        {
            "trial": t.trial,
            "state": t.outcome,
            "model": t.model,
            "value": t.value,
            "spent": 40.0 * place,
            "best": best[0].value,
        }
        for place, t in enumerate(best, 1)
    ]
    counts = {"complete": len(best), "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    found: dict[str, Any] = {
        "counts": counts,
        "space": SPACE,
        "points": points,
        "best": best,
        "curves": best,
        "epochs": {"run": 5 * len(best), "saved": 0},
        "budget": 10,
        "seed": 7,
        "sampler": {"name": "tpe", "startup": 10},
        "pruner": {"name": "asha"},
        "spent": 40.0 * len(best),
    }
    name = more.pop("name", "shop")
    return Searched(name, "mrr@20", "f" * 64, "data/shop", **{**found, **more})


def text_of(found: Searched) -> str:
    return squeezed(markdown(study_page(found)))


def squeezed(text: str) -> str:
    """Without what fills the columns of tables."""
    lines = (re.sub(" +", " ", x) if x.startswith("|") else x for x in text.splitlines())
    return "\n".join(lines)


def test_a_study_without_a_value_says_so_and_how_to_go_on() -> None:
    counts = {"complete": 0, "pruned": 0, "failed": 0, "running": 2, "waiting": 0}
    text = text_of(searched(counts=counts))
    assert "No trial has a value yet. 0 of 10 done: 0 complete, 0 pruned, 2 running" in text
    assert "paropt launch --study shop" in text and "paropt final" not in text
    assert "<svg" not in page(study_page(searched(counts=counts)))


def test_the_only_trial() -> None:
    text = text_of(searched(trial(4)))
    assert "**best mrr@20 on valid 0.2500**. Trial 4 of gru4rec, after its epoch 3" in text
    assert "the only one with a value; the number to quote is that of `paropt final shop`" in text
    several = text_of(searched(trial(4), trial(5)))
    assert "the best of 2 trials, so it is flattered by luck; the number to quote" in several
    assert "## The only trial with a value" in text
    header, _, row = text[text.index("| trial |") :].splitlines()[:3]
    assert header.endswith("| device time | learning_rate | loss |")
    assert row == "| 4 | **0.2500** | 0.2400 | 3 of 5 | 40 s | 0.01235 | cross-entropy |"
    assert "Too few trials have a value" in text


def test_what_varies_is_a_column_and_what_does_not_is_said_once() -> None:
    other = {"learning_rate": 0.1, "loss": "cross-entropy", "n_epochs": 5}
    text = text_of(searched(trial(4), trial(2, params=other, value=0.2)))
    header, _, first, second = text[text.index("| trial |") :].splitlines()[:4]
    assert header.endswith("| device time | learning_rate |")
    assert (first.split(" | ")[0], second.split(" | ")[0]) == ("| 4", "| 2")
    assert "All of these have `loss=cross-entropy`." in text


def test_models_have_tables_of_their_own_and_their_rank() -> None:
    hstu = trial(2, model="hstu", params={"dropout": 0.1}, value=0.2)
    space = SPACE | {"models": ["gru4rec", "hstu"]}
    rows = [
        {"model": "hstu", "best": 0.2, "trial": 2, "trials": 1, "spent": 40.0, "overall": 0.2},
        {"model": "gru4rec", "best": None, "trial": None, "trials": 0, "spent": 0, "overall": None},
    ]
    found = searched(trial(4), hstu, space=space, by_model={"spend": 40.0, "models": rows})
    text = text_of(found)
    assert "gru4rec:\n" in text and "hstu:\n" in text
    assert "| 2 no. 2 |" in text
    assert "| **hstu** | 0.2000 | 2 | 0.2000 | 1 | 40 s |" in text
    assert "| gru4rec | - | - | - | 0 | 0 s |" in text
    assert "when each had used 40 device seconds" in text


def test_below_the_floor_is_said_where_the_best_is() -> None:
    floor = {"cooccurrence": {"mrr@20": 0.3}, "popularity": {"mrr@20": 0.1}}
    text = text_of(searched(trial(4), floor=floor))
    assert (
        "**Beware:** The best trial is no better than the floor: co-occurrence needs no training"
        in text
    )
    above = text_of(searched(trial(4, value=0.4), floor=floor))
    assert "It is better than the floor, what needs no training: co-occurrence 0.3000" in above


@pytest.mark.parametrize(
    ("ranked", "unknown", "warned"), [(5000, 0, False), (999, 0, True), (2000, 2001, True)]
)
def test_on_how_many_targets_the_best_stands(ranked: int, unknown: int, warned: bool) -> None:
    best = trial(4, targets=ranked, unknown=unknown, sessions=70, with_misses=0.125, tied=0.0)
    text = text_of(searched(best))
    assert ("**Beware:** Only" in text) == warned
    assert "targets ranked, of 70 sessions" in text and f"{ranked:,}" in text
    assert ("with these as misses it is 0.1250" in text) == bool(unknown)


def test_importance_pruning_and_failures() -> None:
    failed = trial(9, outcome="failed", value=None, why="oom", message="too\nlarge " + "x" * 200)
    counts = {"complete": 1, "pruned": 3, "failed": 2, "running": 0, "waiting": 0}
    found = searched(
        trial(4),
        importances=[Importance("gru4rec", {"learning_rate": 1.0}, 12, ["bpreg"])],
        counts=counts,
        epochs={"run": 15, "saved": 5, "rested": 1, "unneeded": 5},
        saved=120.0,
        failed={"oom": 2},
        failures=[failed],
    )
    text = text_of(found)
    assert "by 12 trials: learning_rate 100%. " in text and "Only some trials have bpreg" in text
    assert "## The course of the search" not in text  # it has nothing but figures
    assert "3 trials of 6 were pruned, after which 5 of 25 epochs (20%) were not run" in text
    assert "1 trial ended complete before the last epoch, with nothing more to gain: 5 " in text
    assert "about 2 min at their own speed" in text
    assert "Without a value: 2 oom. The latest:" in text
    assert "| 9 | gru4rec | 5 | oom | too large xxx" in text and "x" * 200 not in text
    assert "x" * 200 in page(study_page(found))  # where one points at it


def test_data_space_and_funnel() -> None:
    splits = {"train": {"events": 900, "sessions": 90, "items": 40, "targets": 810}}
    funnel = [
        {"name": "read", "option": "", "events": 2000, "sessions": 100, "items": 50},
        {
            "name": "support",
            "option": "--min-support 5",
            "events": 900,
            "sessions": 90,
            "items": 40,
        },
    ]
    facts = DatasetFacts("generic", "time", True, ["log.csv"], {}, splits, funnel, ["it is small"])
    text = text_of(searched(trial(4), dataset=facts))
    assert "| support | 900 | 45.0% | 90 | 40 | --min-support 5 |" in text
    assert "| train | 900 | 90 | 40 | 810 |" in text
    assert "**Beware:** It is small." in text
    assert "| bpreg | 0 … 2 | loss = bpr-max |" in text
    assert "- fixed: `n_epochs=5`" in text and "- sampler: tpe (startup 10)" in text
    assert "log.csv" in text


def test_the_data_is_told_only_of_the_very_same_data(tmp_path: Path) -> None:
    meta = {"fingerprint": "f" * 64, "splits": {}, "format_name": "generic", "protocol": "time"}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    mine = StudyDefinition("shop", {}, "mrr@20", [20], str(tmp_path), "f" * 64)
    other = StudyDefinition("shop", {}, "mrr@20", [20], str(tmp_path), "0" * 64)
    assert DatasetFacts.of(mine) == DatasetFacts("generic", "time", True)
    assert DatasetFacts.of(other) is None
    (tmp_path / "meta.json").write_text("[]")
    assert DatasetFacts.of(mine) is None


def test_the_model_that_trials_begin_with_is_named() -> None:
    begin = {"model": "gru4rec", "path": "models/april", "digest": "d" * 64}
    text = text_of(searched(trial(4), begin=begin))
    assert "\n- begins with: `models/april`, a gru4rec whose weights have the digest ddd" in text
    assert "begins with" not in text_of(searched(trial(4)))


def test_a_page_takes_any_name_and_commands_can_be_typed() -> None:
    evil = trial(4, params={"loss": EVIL, "learning_rate": 1}, message=EVIL)
    found = searched(evil, name=EVIL, failures=[evil], failed={EVIL: 1}, devices=[EVIL])
    text = page(study_page(found))
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.findall(r"(?:src|href)=|url\(|@import", text)
    told = re.sub(r"`[^`]*`|^    .*$", "", text_of(found), flags=re.M)
    assert not re.search(r"(?<!\\)<script|(?<!\\)\]\(", told)
    spaced = text_of(searched(trial(4), name="my shop"))
    assert "    paropt final 'my shop' --out reports/my-shop-" in spaced


def test_a_search_that_has_tried_its_space_is_not_told_to_go_on() -> None:
    assert "paropt launch --study shop" in text_of(searched(trial(4), over="budget"))
    text = text_of(searched(trial(4), over="space"))
    assert "paropt export shop" in text and "launch" not in text


def test_json_and_back() -> None:
    one = Importance("gru4rec", {"learning_rate": 1.0}, 12, ["bpreg"])
    facts = DatasetFacts("generic", "time")
    begin = {"model": "gru4rec", "path": "models/april", "digest": "d" * 64}
    more: dict[str, Any] = {"importances": [one], "devices": ["cpu"], "begin": begin}
    found = searched(trial(4), trial(5), dataset=facts, **more)
    stored = json.loads(json.dumps({"search": found.to_json(), **beside(found)}))
    again = Searched.from_json(stored)
    assert markdown(study_page(again)) == markdown(study_page(found))
    assert page(study_page(again)) == page(study_page(found))


def beside(found: Searched) -> dict[str, Any]:
    names = ("metric", "fingerprint", "data", "semantics", "versions", "ties", "devices")
    return {"study": found.name, **{name: getattr(found, name) for name in names}}
