"""``paropt plot`` as users run it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.training.evaluation.epochs import EpochReport

SPACE = {
    "model": "hstu",
    "fixed": {"n_epochs": 2, "experts": 2, "blocks": 1},
    "search": {"learning_rate": {"type": "float", "low": 0.001, "high": 0.01}},
}
LAYER = {"load": [0.75, 0.25], "max_violation": 0.5, "entropy": 0.81, "dead": 0}
COSINES = {"positive": 0.5, "negative": 0.1, "gap": 0.4, "positive_histogram": [1, 3]}
EXTRA = {"similarity": COSINES, "experts": [LAYER]}
NAMES = {
    "over-time",
    "learning-curves",
    "similarity",
    "separation",
    "cosines-hstu-positives",
    "experts-hstu-load",
    "experts-hstu-max-violation",
    "experts-hstu-entropy",
    "experts-hstu-dead",
}


@pytest.fixture
def study(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Study]:
    monkeypatch.setenv("PAROPT_STORAGE", database_url)
    definition = StudyDefinition(
        "shop", SPACE, "mrr@20", [20], "data/shop", "f" * 64, pruner={"name": "none"}
    )
    study = Study.create(database_url, definition, budget=2)
    yield study
    study.close()


def run_a_trial(study: Study, extra: dict[str, Any]) -> None:
    trial = study.next_trial({"host": "rome"})
    assert trial
    for epoch in (1, 2):
        metrics = {"mrr@20": 0.1 * epoch}
        trial.report(
            EpochReport.from_json(
                {"epoch": epoch, "metrics": metrics, "seconds": 60.0, "extra": extra}
            )
        )
    trial.complete()


def test_files_are_written_listed_and_replaced_only_if_asked(
    study: Study, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    nothing = run_paropt("plot", "shop", "--out", "figures")
    assert nothing.rc == 1 and "nothing to plot" in nothing.err
    assert not (tmp_path / "figures").exists()

    run_a_trial(study, EXTRA)
    done = run_paropt("plot", "shop", "--out", "figures", "--json")
    assert done.rc == 0, done.err
    listed = json.loads(done.out)
    assert {file["figure"] for file in listed} == NAMES
    files = {Path(file["file"]).name for file in listed}
    assert files == {f"shop-{name}.svg" for name in NAMES}
    assert {path.name for path in (tmp_path / "figures").iterdir()} == files
    for name in files:
        ElementTree.parse(tmp_path / "figures" / name)

    (tmp_path / "figures" / "shop-similarity.svg").write_text("mine")
    (tmp_path / "figures" / "shop-over-time.svg").unlink()
    again = run_paropt("plot", "shop", "--out", "figures")
    assert again.rc == 1 and "add --overwrite" in again.err
    assert not (tmp_path / "figures" / "shop-over-time.svg").exists()
    assert (tmp_path / "figures" / "shop-similarity.svg").read_text() == "mine"
    replaced = run_paropt("plot", "shop", "--out", "figures", "--overwrite")
    assert replaced.rc == 0 and set(replaced.out.split("\n")) >= {
        f"figures/shop-{name}.svg" for name in NAMES
    }
    ElementTree.parse(tmp_path / "figures" / "shop-similarity.svg")


def test_png_and_only_the_figures_that_have_data(
    study: Study, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    run_a_trial(study, {})
    done = run_paropt("plot", "shop", "--out", "figures", "--format", "png")
    assert done.rc == 0, done.err
    written = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in written] == [
        "shop-learning-curves.png",
        "shop-over-time.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in written)
    unknown = run_paropt("plot", "nobody", "--out", "figures")
    assert unknown.rc == 1 and "shop" in unknown.err
