"""``paropt final``, ``report`` and ``compare`` as users run them: real trainings, real database."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rings import write_ring

SPACE = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy", "n_epochs": 2, "batch_size": 16, "n_sample": 16},
    "search": {
        "layers": {"type": "int", "low": 8, "high": 32, "step": 8},
        "learning_rate": {"type": "float", "low": 0.05, "high": 0.2, "step": 0.05},
    },
    "start": [{"layers": 8, "learning_rate": 0.05}],
}
SLOTS = ("--devices", "cpu", "--per-device", "1")


def ring(directory: Path, seed: int) -> Path:
    """120 sessions over four days that walk along a ring of 30 items."""
    from paropt.data.prepare import prepare

    log = write_ring(directory / "log.tsv", 120, random.Random(seed))
    return prepare([log], directory / f"data{seed}").path


class Shop:
    """A database with a study "shop" of four trials; ``run`` runs paropt on it."""

    def __init__(self, url: str, directory: Path, run: Callable[..., Any]) -> None:
        self.url, self.directory, self._run = url, directory, run
        self.data = ring(directory, 7)
        self.space = directory / "ring.json"
        self.space.write_text(json.dumps(SPACE))

    @property
    def environment(self) -> dict[str, str]:
        return {"PAROPT_STORAGE": self.url, "PAROPT_HOME": str(self.directory / "home")}

    def run(self, *words: str | Path, cwd: Path | None = None) -> Any:
        return self._run(*words, env=self.environment, cwd=cwd, timeout=300)

    def ok(self, *words: str | Path, cwd: Path | None = None) -> Any:
        done = self.run(*words, cwd=cwd)
        assert done.rc == 0, done.err
        return done

    def launch(self, name: str, trials: int, *more: str) -> None:
        space = ("--space", self.space, "--data", self.data, "--pruner", "none")
        self.ok("launch", *space, "--study", name, "--trials", str(trials), *more, *SLOTS)

    def interrupt(self, *words: str, study: str) -> tuple[int | None, str]:
        """Ctrl-C when a trial of ``study`` runs; its exit code and what it said."""
        from paropt.search.study.study import Study

        process = subprocess.Popen(
            [sys.executable, "-m", "paropt", *words],
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
        )
        while process.poll() is None and study not in Study.names(self.url):
            time.sleep(0.05)
        watched = Study.load(self.url, study)
        while process.poll() is None and not any(
            watched.counts()[state] for state in ("running", "complete")
        ):
            time.sleep(0.02)
        watched.close()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
        return process.returncode, said


@pytest.fixture(scope="module")
def shop(
    module_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Callable[..., Any]], Shop]]:
    made: list[Shop] = []

    def make(run: Callable[..., Any]) -> Shop:
        if not made:
            made.append(Shop(module_database_url, tmp_path_factory.mktemp("shop"), run))
            made[0].launch("shop", 4)
        made[0]._run = run
        return made[0]

    yield make


@pytest.fixture
def at(shop: Any, run_paropt: Callable[..., Any]) -> Shop:
    made: Shop = shop(run_paropt)
    return made


FINAL = ("final", "shop", "--top", "2", "--seeds", "2", *SLOTS)


@pytest.fixture
def report(at: Shop) -> dict[str, Any]:
    """Of a final test that was interrupted and went on; made once, its files are in OUT."""
    out = at.directory / "report"
    if not out.exists():
        rc, said = at.interrupt(*FINAL, study="shop.final-1.valid")
        assert rc == 1 and "was interrupted" in said and "the same command goes on" in said
        before = trials_of(at, "shop.final-1.valid")
        done = at.ok(*FINAL, "--out", out, "--json")
        after = trials_of(at, "shop.final-1.valid")
        assert {**after, **before} == after
        assert len(after) == 2 * len(json.loads(done.out)["entries"])
        assert json.loads((out / "report.json").read_text()) == json.loads(done.out)
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_a_final_test(at: Shop, report: dict[str, Any]) -> None:
    out = at.directory / "report"
    check_report(report)
    check_files(at, report, out)


@pytest.mark.long
def test_others_get_the_same_numbers(at: Shop, report: dict[str, Any]) -> None:
    check_numbers(at, report, at.directory / "report")
    check_ensemble(at, report, at.directory / "report")


@pytest.mark.long
def test_a_second_look_and_comparisons(at: Shop, report: dict[str, Any], tmp_path: Path) -> None:
    check_looks(at, report, tmp_path)
    check_compare(at, tmp_path)


def trials_of(at: Shop, name: str) -> dict[int, Any]:
    """When each trial that is complete ended, by its number."""
    from paropt.search.study.study import Study

    study = Study.load(at.url, name)
    try:
        study.refresh()
        found = study.history.all()
        return {r.number: r.ended for r in found if r.state == "COMPLETE"}
    finally:
        study.close()


def check_report(report: dict[str, Any]) -> None:
    assert (report["study"], report["final"], report["metric"]) == ("shop", 1, "mrr@20")
    names = [entry["name"] for entry in report["entries"]]
    assert names[:2] == ["candidate 1", "candidate 2"]
    control = next(entry for entry in report["entries"] if entry["source"])
    assert control["source"] == "start point 1 of the space"
    assert control["params"] | {"layers": 8, "learning_rate": 0.05} == control["params"]
    candidates = [entry for entry in report["entries"] if entry["found"]]
    for entry in candidates:
        assert len(entry["values"]) == 2 and len(entry["curve"]) == 2
        assert entry["mean"] == pytest.approx(sum(entry["values"]) / 2)
        assert entry["curve"][entry["epoch"] - 1] == max(entry["curve"])
    best = max(candidates, key=lambda entry: entry["mean"])
    assert report["chosen"] == best["name"]
    first = candidates[0]
    assert first["found"]["value"] == report["search"]["best"]["value"]
    assert report["flattery"]["flattered"] == pytest.approx(
        report["search"]["best"]["value"] - first["mean"]
    )
    assert len(report["looks"]) == 1 and not report["again"]
    assert report["test"]["chosen"]["epochs"] == best["epoch"]
    found = set(report["test"]["chosen"]["metrics"])
    wanted = {f"{m}@{k}" for m in ("recall", "mrr", "ndcg") for k in (1, 5, 10, 20)}
    assert wanted <= found
    assert set(report["test"]["baselines"]) == {"popularity", "cooccurrence", "session k-NN"}


def check_numbers(at: Shop, report: dict[str, Any], out: Path) -> None:
    """The same configuration with the same seed by ``paropt train`` gives the same test numbers."""
    tested = report["test"]["chosen"]["metrics"]
    words = ("train", "--params", out / "chosen.json", "--data", at.data)
    again = json.loads(at.ok(*words, "--seed", str(report["seeds"][1]), "--json").out)
    assert again["split"] == "full"
    for name, value in again["metrics"].items():
        assert tested[name]["values"][1] == pytest.approx(value, abs=1e-9)
    for name, value in tested.items():
        assert value["least"] <= value["mean"] <= value["most"]
        assert value["interval"][0] <= value["mean"] <= value["interval"][1], name
    floor = again["floor"]
    for name in ("popularity", "cooccurrence"):
        found = report["test"]["baselines"][name]["metrics"]
        assert found["mrr@20"]["mean"] == pytest.approx(floor[name]["mrr@20"], abs=1e-12)
    if difference := report["test"]["difference"]:
        control = report["test"]["control"]["metrics"]
        for name, value in difference.items():
            assert value["mean"] == pytest.approx(tested[name]["mean"] - control[name]["mean"])


def check_ensemble(at: Shop, report: dict[str, Any], out: Path) -> None:
    """Its seeds as one model, as the report has it and as whoever takes them home gets it."""
    chosen = report["test"]["chosen"]
    ensemble = chosen["ensemble"]
    assert ensemble["why"] is None
    first, second = (out / "models" / str(seed) for seed in report["seeds"])
    words = ("evaluate", first, "--with", second, "--data", at.data, "--at", "1,5,10,20", "--json")
    found = json.loads(at.ok(*words).out)
    assert found["split"] == "full" and found["ties"] == "standard"
    for name, value in found["metrics"].items():
        told = ensemble["metrics"][name]
        assert told["mean"] == pytest.approx(value, abs=1e-9)
        assert told["interval"][0] <= value <= told["interval"][1]
        above = value - chosen["metrics"][name]["mean"]
        assert ensemble["difference"][name]["mean"] == pytest.approx(above, abs=1e-9)
    for seed, value in zip(report["seeds"], chosen["metrics"]["mrr@20"]["values"], strict=True):
        kept = json.loads((out / "models" / str(seed) / "model.json").read_text())
        assert (kept["seed"], kept["metrics"]["mrr@20"]) == (seed, value)
    assert "one model" in (out / "report.md").read_text()


def check_files(at: Shop, report: dict[str, Any], out: Path) -> None:
    assert {path.name for path in out.iterdir()} >= {
        "report.json",
        "report.md",
        "report.html",
        "chosen.json",
    }
    text = (out / "report.md").read_text()
    for word in (report["fingerprint"], "standard", "first look", *map(str, report["seeds"])):
        assert word in text
    page = out / "again.html"
    assert at.ok("report", out, "--out", page).out.strip() == str(page)
    assert page.read_text() == (out / "report.html").read_text()
    markup = page.read_text()
    assert "<svg" in markup and "<script" not in markup
    assert not re.findall(r"(?:src|href)=|url\(|@import", markup)


def check_looks(at: Shop, report: dict[str, Any], tmp_path: Path) -> None:
    """The same again trains nothing; another test of the same test set is told or refused."""
    done = at.ok(*FINAL, "--json")
    assert json.loads(done.out) == report
    assert "done before" in done.err
    done = at.run("final", "shop", "--seeds", "3", *SLOTS)
    assert done.rc == 1 and "has --seeds 2, not 3" in done.err and "--again" in done.err
    at.launch("other", 1, "--seed", "5")
    done = at.run("final", "other", "--top", "1", "--seeds", "1", *SLOTS)
    assert done.rc == 1 and "looked at once (first by 'shop'" in done.err
    assert "other.final" not in at.ok("status", "--json").out
    out = tmp_path / "other"
    at.ok("final", "other", "--top", "1", "--seeds", "1", "--again", "--out", out, *SLOTS)
    second = json.loads((out / "report.json").read_text())
    assert second["again"] and [look["study"] for look in second["looks"]] == ["shop", "other"]
    assert "look 2 at this test set" in (out / "report.md").read_text()
    assert second["test"]["chosen"]["metrics"]["mrr@20"]["spread"] is None
    assert not set(second["seeds"]) & set(report["seeds"])


def check_compare(at: Shop, tmp_path: Path) -> None:
    found = json.loads(at.ok("compare", "shop", "other", "--json").out)
    assert found["spend"] == max(1, min(row["spent"] for row in found["studies"]))
    for row in found["studies"]:
        # the study that spent most may have had no trial by then: its first is its slowest
        if at_spend := row["at_spend"]:
            assert at_spend["spent"] <= found["spend"]
            assert at_spend["value"] <= row["best"]["value"]
        assert row["test"]["final"] == 1
    assert any(row["at_spend"] == row["best"] for row in found["studies"])
    assert "look 2" in at.ok("compare", "shop", "other").out
    page = at.ok("report", "shop.final-1.valid", cwd=tmp_path).out.strip()
    assert "part of a final test" in (tmp_path / page).read_text()
    far = ring(tmp_path, 8)
    create(at.url, "far", far)
    done = at.run("compare", "shop", "far")
    ours, theirs = (
        json.loads((d / "meta.json").read_text())["fingerprint"] for d in (at.data, far)
    )
    assert done.rc == 1 and ours in done.err and theirs in done.err
    done = at.run("compare", "shop", "shop.final-1.valid")
    assert done.rc == 1 and "part of a final test" in done.err


def create(url: str, name: str, data: Path) -> None:
    """A study without trials."""
    from paropt.data import open_dataset
    from paropt.search.study.definition import StudyDefinition
    from paropt.search.study.study import Study

    fingerprint = open_dataset(data).fingerprint
    Study.create(url, StudyDefinition(name, SPACE, "mrr@20", [20], str(data), fingerprint)).close()


def test_what_is_refused(at: Shop, tmp_path: Path) -> None:
    done = at.run("final", "nothing", *SLOTS)
    assert done.rc == 1 and "no study 'nothing'" in done.err
    (tmp_path / "mine").mkdir()
    done = at.run("final", "shop.final-1.valid", *SLOTS)
    assert done.rc == 1 and "name the study that it tests, 'shop'" in done.err
    done = at.run(*FINAL, "--out", tmp_path / "mine")
    assert done.rc == 1 and "holds no report" in done.err
    done = at.run("report", tmp_path / "mine")
    assert done.rc == 1 and "is no report" in done.err
