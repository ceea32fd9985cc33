"""Reports for people: what the words say of the numbers, and pages whatever names hold."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.results import files
from paropt.results.figures.description import Lines, Mark, Marks, Series
from paropt.results.figures.svg import svg
from paropt.results.pages import html_page, markdown
from paropt.results.pages.final_page import final_summary
from paropt.results.pages.of_report import document

NAMES = [f"{measure}@{k}" for measure in ("recall", "mrr") for k in (1, 20)]
EVIL = "<script>alert('1')</script>"


def page(report: dict[str, Any]) -> str:
    return html_page.page(document(report))


def text_of(report: dict[str, Any]) -> str:
    return squeezed(markdown.markdown(document(report)))


def squeezed(text: str) -> str:
    """Without what fills the columns of tables."""
    lines = (re.sub(" +", " ", x) if x.startswith("|") else x for x in text.splitlines())
    return "\n".join(lines)


def numbers(mean: float, values: list[float] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"mean": mean, "interval": [mean - 0.01, mean + 0.01]}
    if values:
        spread = {"spread": 0.002, "least": min(values), "most": max(values), "values": values}
        found |= spread
    return {name: found for name in NAMES}


def entry(name: str, **more: Any) -> dict[str, Any]:
    found = {"name": name, "model": "gru4rec", "params": {"layers": 8}, "epochs": 4}
    return {**found, "found": {}, "source": "", "failures": [], **more}


@pytest.fixture
def report() -> dict[str, Any]:
    chosen = entry("candidate 1", found={"trial": 7, "value": 0.36, "epoch": 3})
    control = entry("control gru4rec", source="the model's defaults")
    trained = {"epoch": 2, "mean": 0.35, "spread": 0.001, "values": [0.34, 0.36], "seconds": 9.0}
    trained |= {"curve": [0.2, 0.35], "flattered": 0.01}
    tested = {"seconds": 5.0, "devices": ["cpu"], "threads": 1}
    counts = {"complete": 3, "pruned": 1, "failed": 0, "running": 0, "waiting": 0}
    best = {"trial": 7, "value": 0.36, "epoch": 3, "params": {"layers": 8}, "model": "gru4rec"}
    point = {"trial": 7, "state": "complete", "model": "gru4rec"}
    point |= {"value": 0.36, "spent": 30.0, "best": 0.36}
    return {
        "paropt_report": 1,
        "study": "shop",
        "final": 2,
        "metric": "mrr@20",
        "fingerprint": "f" * 64,
        "data": "/data/shop",
        "semantics": 1,
        "versions": {"torch": "2.9"},
        "ties": "standard",
        "at": [1, 5, 10, 20],
        "devices": ["cpu"],
        "search": {
            "split": "train → valid",
            "seed": 42,
            "counts": counts,
            "best": best,
            "floor": {"popularity": {"mrr@20": 0.1}},
            "points": [point],
        },
        "seeds": [11, 12],
        "entries": [chosen | trained, control | trained],
        "chosen": "candidate 1",
        "control": "control gru4rec",
        "flattery": {
            "entry": "candidate 1",
            "search": 0.36,
            "fresh": 0.35,
            "flattered": 0.01,
            "seeds": 2,
        },
        "test": {
            "split": "train_full → test",
            "chosen": chosen | tested | {"metrics": numbers(0.3, [0.29, 0.31])},
            "control": control | tested | {"metrics": numbers(0.28, [0.28, 0.28])},
            "difference": numbers(0.02),
            "baselines": {"popularity": {"metrics": numbers(0.1), "difference": numbers(0.2)}},
            "intervals": {
                "level": 0.95,
                "draws": 10_000,
                "groups": 1000,
                "hashed": True,
                "targets": 5000,
            },
        },
        "looks": [{"study": "shop", "number": 2, "at": "2026-02-03T10:00:00+00:00"}],
        "again": False,
    }


def test_every_number_says_what_it_is_of(report: dict[str, Any]) -> None:
    text = text_of(report)
    for words in ("f" * 64, "seeds: 11, 12", "train_full → test", "standard ties", "seed 42"):
        assert words in text
    assert "**mrr@20 on test 0.3000 [0.2900, 0.3100]**. The mean of 2 seeds" in text
    assert "(± 0.0020 between them) of the chosen configuration, gru4rec, trial 7" in text
    assert "The control (the model's defaults) has 0.2800 ± 0.0020" in text
    assert "the difference is +0.0200 [+0.0100, +0.0300]." in text
    assert "0.3600, is 0.0100 above the mean of 2 fresh seeds" in text
    assert "first look" in text
    assert "1,000 groups of sessions" in text


def test_one_number_then_a_grid_of_metrics_and_cut_offs(report: dict[str, Any]) -> None:
    lines = squeezed(markdown.markdown(final_summary(report))).splitlines()
    begin = lines.index("| | @1 | @20 |")
    assert lines[begin + 2] == (
        "| recall | 0.3000 ± 0.0020 [0.2900, 0.3100] | 0.3000 ± 0.0020 [0.2900, 0.3100] |"
    )
    # what was searched for stands out, and of others it is said by how much the chosen one is above
    assert lines[begin + 3].endswith("| **0.3000 ± 0.0020 [0.2900, 0.3100]** |")
    text = "\n".join(lines)
    assert "| recall | 0.2800 ± 0.0020 +0.0200 [+0.0100, +0.0300] |" in text
    assert "| recall | 0.1000 +0.2000 | 0.1000 +0.2000 |" in text
    assert "## The search" not in text and "## The search" in text_of(report)


def test_who_is_ahead_elsewhere_is_said(report: dict[str, Any]) -> None:
    assert "others are ahead" not in text_of(report)
    better = numbers(0.28, [0.28, 0.28]) | {"recall@1": {"mean": 0.31, "interval": None}}
    report["test"]["control"]["metrics"] = better
    report["test"]["baselines"]["popularity"]["metrics"]["mrr@1"] = {"mean": 0.4, "interval": None}
    for text in (text_of(report), page(report)):
        assert "others are ahead of it: the control at recall@1; popularity at mrr@1." in text
        assert "no better than the floor" not in text


def test_on_what_the_number_stands_is_said(report: dict[str, Any]) -> None:
    assert "targets ranked" not in text_of(report)  # paropt 0.1 did not count them
    stands = {"targets": 1932, "unknown": 9155, "sessions": 536, "with_misses": 0.0523}
    report["test"]["chosen"] |= stands
    report["test"]["evaluation"] = {"filter_seen": True, "ties": "standard"}
    report["flattery"]["flattered"] = None
    text = text_of(report)
    assert "1,932 of 11,087 targets ranked, of 536 sessions; the others were left out" in text
    assert "with these as misses it is 0.0523" in text
    assert "**Beware:** Only 1,932 of 11,087 targets were ranked" in text
    assert "train_full → test; history filtered, standard ties" in text
    assert "judged otherwise than this test" in text


def test_a_difference_that_other_sessions_might_turn_is_said(report: dict[str, Any]) -> None:
    assert "turn round" not in text_of(report)
    report["test"]["difference"]["mrr@20"] = {"mean": 0.002, "interval": [-0.001, 0.005]}
    assert "+0.0020 [-0.0010, +0.0050], which other sessions might turn round" in text_of(report)


def test_looks_again_and_lost_comparisons_are_said(report: dict[str, Any]) -> None:
    earlier = {"study": "old", "number": 1, "at": "2026-01-02T10:00:00+00:00"}
    report["looks"].insert(0, earlier)
    report["again"] = True
    report["test"]["baselines"]["session k-NN"] = {"metrics": numbers(0.31)}
    report["test"] |= {"control": None, "difference": None}
    report["flattery"] |= {"fresh": 0.37, "flattered": -0.01}
    for text in (text_of(report), re.sub(r"<[^>]*>", "", page(report))):
        assert "look 2 at this test set" in text and "old (2026-01-02)" in text
        assert "Without any training, session k-NN reaches 0.3100." in text
        assert "nothing better than its control" in text
        assert "it did not flatter" in text
    report["flattery"] |= {"search": 0.36, "fresh": 0.36, "flattered": 0.0}
    assert "0.3600, is the same as the mean of" in text_of(report)
    assert files.roles(report) == ["chosen"]


def test_pairs_and_costs_are_told(report: dict[str, Any]) -> None:
    pair = {"difference": 0.01, "interval": [0.005, 0.015], "p": 0.0002, "holm": 0.0004}
    even = {"difference": 0.0, "interval": [-0.1, 0.1], "p": 0.9, "holm": 0.9}
    report["test"]["pairs"] = [
        {"one": "chosen", "other": "cooccurrence", **pair},
        {"one": "chosen", "other": "control", **even},
    ]
    report["test"]["chosen"]["metrics"]["parameters"] = {"mean": 15963.0, "values": [15963.0]}
    told = squeezed(text_of(report))
    assert "Two by two" in told and "corrected for the 2 pairs (Holm)" in told
    assert re.search(r"chosen − co-occurrence.*\+0.0100.*< 0.001.*differ", told)
    assert re.search(r"chosen − control.*0.9000.*not told apart", told)
    assert "The chosen one costs parameters 15,963" in told


def test_seeds_as_one_model_are_told_beside_their_mean(
    report: dict[str, Any], tmp_path: Path
) -> None:
    assert "one model" not in text_of(report)  # paropt 0.1 had none
    kept = {str(seed): str(tmp_path / "kept" / str(seed)) for seed in (11, 12)}
    ensemble = {"why": None, "models": kept, "metrics": numbers(0.33), "difference": numbers(0.03)}
    report["test"]["chosen"]["ensemble"] = ensemble
    report["test"]["control"]["ensemble"] = {"why": "gru judges itself"}
    told = text_of(report)
    assert "## Its seeds as one model" in told and "standardised" in page(report)
    assert "The chosen one's 2 seeds as one model, and by how much it is above their mean" in told
    assert "| mrr | 0.3300 +0.0300 [+0.0200, +0.0400] |" in told
    assert "There is none of the control one: gru judges itself." in told
    assert (
        "paropt evaluate models/11 --with models/12 --data /data/shop --split full"
        in told.replace("\\", "")
    )
    files.write(report, tmp_path / "without")  # they are not on this machine
    assert not (tmp_path / "without" / "models").exists()
    for place in map(Path, kept.values()):
        place.mkdir(parents=True)
        (place / "model.json").write_text(place.name)
    files.write(report, tmp_path / "with")
    found = {p.parent.name: p.read_text() for p in tmp_path.glob("with/models/*/model.json")}
    assert found == {"11": "11", "12": "12"}


def test_metrics_of_a_models_own_have_a_grid_too(report: dict[str, Any]) -> None:
    report["metric"] = "auc"
    one = {"auc": {"mean": 0.7, "interval": None, "spread": 0.01, "values": [0.69, 0.71]}}
    report["test"] |= {"baselines": {}, "difference": None, "control": None}
    report["test"]["chosen"]["metrics"] = one
    report["test"]["intervals"] |= {"targets": 0}
    text = text_of(report)
    assert "**auc on test 0.7000**. The mean of 2 seeds (± 0.0100 between them)" in text
    assert "| auc | **0.7000 ± 0.0100** |" in text and "nan" not in page(report)


def test_a_page_needs_nothing_else_and_takes_any_name(report: dict[str, Any]) -> None:
    report = copy.deepcopy(report)
    report["study"] = report["data"] = EVIL
    report["entries"][0]["name"] = report["chosen"] = EVIL
    report["entries"][1]["failures"] = [EVIL]
    report["test"]["control"]["source"] = EVIL
    report["test"]["chosen"]["params"] = {EVIL: EVIL}
    report["test"]["baselines"][EVIL] = {"metrics": numbers(0.2)}
    report["search"]["best"]["params"] = {EVIL: EVIL}
    text = page(report)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.findall(r"(?:src|href)=|url\(|@import", text)
    assert text.count("<svg") == text.count("</svg>") == 2 * 3  # wide and narrow
    told = text_of(report)
    assert not re.search(r"(?<!\\)<script", re.sub(r"`[^`]*`|^    .*$", "", told, flags=re.M))


def test_a_search_alone(report: dict[str, Any]) -> None:
    report["test"] = None
    text = page(report)
    assert "Study shop" in text and text.count("<svg") == 2 * 1
    report["search"] |= {"best": None, "points": []}
    assert "No trial has a value yet." in page(report)
    del report["search"]["counts"]
    report["search"]["best"] = {"trial": 1}
    with pytest.raises(ParoptError, match="damaged"):
        document(report)


def test_a_directory_is_replaced_only_if_it_holds_a_report(
    report: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "report"
    files.write(report, out)
    (out / "mine.txt").touch()
    report["final"] = 3
    files.write(report, out)
    assert files.read(out) == report
    names = {path.name for path in out.iterdir()}
    assert names == {"report.json", "report.md", "report.html", "chosen.json", "control.json"}
    assert [path.name for path in out.parent.iterdir()] == ["report"]
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ParoptError, match="holds no report"):
        files.write(report, other)
    (out / "report.json").write_text('{"paropt_report": 99}')
    with pytest.raises(ParoptError, match="is of version 99"):
        files.read(out)


def test_paramfiles_of_a_test_say_how_to_train_it_again(report: dict[str, Any]) -> None:
    found = files.paramfile(report, "chosen")
    assert (found.model, found.params, found.epochs) == ("gru4rec", {"layers": 8}, 4)
    provenance = found.provenance
    assert (provenance["split"], provenance["seed"], provenance["threads"]) == ("full", 11, 1)
    report["test"]["view"] = "without-valid"
    assert files.paramfile(report, "chosen").provenance["split"] == "without-valid"
    assert "--split without-valid --seed" in markdown.markdown(document(report))
    assert "stages" not in provenance and "begun_from" not in provenance
    # a model with stages is trained by each one's epochs, and what it began with is said
    stages = {"pretrain": 3, "joint": 1}
    report["test"]["chosen"]["stages"], report["added"] = stages, {"sid": "0123"}
    report["search"]["begin"] = begin = {"model": "gru4rec", "path": "/a b", "digest": "12"}
    found = files.paramfile(report, "chosen")
    assert found.provenance["stages"] == stages and found.provenance["added"] == {"sid": "0123"}
    assert found.provenance["begun_from"] == begin
    assert "--params chosen.json --from '/a b' --data" in markdown.markdown(document(report))
    begin["optimiser"] = "34"
    again = "--params control.json --from '/a b' --keep-optimiser --data"
    assert again in markdown.markdown(document(report))


def test_targets_that_training_never_saw_are_in_a_paragraph_of_their_own(
    report: dict[str, Any],
) -> None:
    assert "never saw" not in markdown.markdown(document(report))
    cold = {"targets": 2010, "items": 1101, "sessions": 574, "candidates": 12784, "tied": 0.2}
    cold |= {"metrics": {"recall@5": 0.1, "mrr@20": 0.02, "recall@20": 0.2}, "stderr": {}}
    cold["conservative"] = {"recall@5": 0.05, "mrr@20": 0.01, "recall@20": 0.15}
    report["test"]["chosen"]["cold"] = cold
    assert (
        "Of 2,010 more targets, of 1,101 items that training never saw, each among all 12,784 "
        "items, the chosen one has mrr@20 0.0200 and recall@20 0.2000 (0.0100 and 0.1500 with ties "
        "against the target). They are in no other number here."
        in " ".join(markdown.markdown(document(report)).split())
    )


def test_plots_take_one_point_equal_values_and_gaps() -> None:
    one = [Series("a", [(1.0, 0.5)]), Series("empty", []), Series("gap", [(1.0, None), (2.0, 0.5)])]
    text = svg(Lines("name", "title", "x", "y", one, whole=True))
    assert "empty" not in text and "gap" in text and "nan" not in text
    marks = [Mark("a", 0.0), Mark("b", 0.0, [0.0, 0.0])]
    assert "nan" not in svg(Marks("name", "title", "x", "", marks))
    # the value lies in the picture where its axis says: the middle of equal margins
    picture = svg(Marks("name", "title", "x", "", [Mark("a", 2)]))
    (x,) = re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4.5"', picture)
    (grid,) = re.findall(r'<line x1="([\d.]+)"[^>]*class="rule"/><text[^>]*>2<', picture)
    assert x == grid
