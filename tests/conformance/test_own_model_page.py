"""The examples of docs/own-model.md are models: each is trained, judged, saved and checked."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from paropt.training.conformance import check_model

PAGE = Path(__file__).parents[2] / "docs" / "own-model.md"
CODE = re.compile(r"```python\n(.*?)```", re.DOTALL)
SKIPS = {"another seed gives other weights"}  # of a model that counts


@pytest.fixture(autouse=True)
def _written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "\n\n".join(CODE.findall(PAGE.read_text(encoding="utf-8")))
    (tmp_path / "own_models.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


@pytest.mark.parametrize("name", ["Average", "Successors", "Halves", "TwoSteps", "Lately"])
def test_each_example_keeps_the_contract(name: str) -> None:
    results = check_model(f"own_models:{name}", {"dim": 8} if name != "Successors" else {})
    assert [f"{r.name}: {r.message}" for r in results if r.status == "failed"] == []
    skipped = {result.name for result in results if result.status == "skipped"}
    assert skipped == (SKIPS if name == "Successors" else set())


def test_the_example_that_goes_on_does() -> None:
    (result,) = check_model("own_models:GoingOn", {"dim": 8}, only="begins with a saved model")
    assert (result.status, result.message) == ("passed", "")
