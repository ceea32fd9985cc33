"""``paropt export-model`` by torch's exporter: run by ONNX Runtime, and by torch itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paropt.data.dataset import open_dataset
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.recommending import exporting
from paropt.training.recommending.answering import Answerer, Ask
from paropt.training.recommending.exporting import ExportRequest, export_model
from paropt.training.saved_model.saved import load_model, save_model

runtime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

TIMES = 1_700_000_000_000 + np.arange(6) * 60_000
SESSIONS = ([3, 1, 2], [2], [1, 1, 3, 2, 0, 4])
GRU = {"layers": "6/4", "n_sample": 4}


def trained(place: Path, model: str, params: dict[str, Any]) -> Path:
    view = open_dataset(made_up_data(place / "log", sessions=48)).view("search")
    fit = Fit(model, params, view, seed=1, epochs=1)
    list(fit.epochs())
    save_model(place / "m", fit)
    return place / "m"


def given(sessions: tuple[list[int], ...]) -> dict[str, Any]:
    """As a file takes them: right-padded."""
    items = np.zeros((len(sessions), 6), np.int64)
    for row, session in enumerate(sessions):
        items[row, : len(session)] = session
    lengths = np.array([len(session) for session in sessions])
    return {"items": items, "times": np.tile(TIMES, (len(sessions), 1)), "lengths": lengths}


def answers(model: Path) -> list[tuple[list[int], list[float]]]:
    """What paropt recommends, by row."""
    answerer = Answerer(load_model(model))
    ids = [str(item) for item in answerer.saved.item_ids]
    asks = [Ask([ids[i] for i in s], TIMES[: len(s)].tolist(), top=4) for s in SESSIONS]
    found = answerer.answer([answerer.prepare(ask) for ask in asks])
    return [([ids.index(item) for item in one.items], one.scores) for one in found]


@pytest.mark.parametrize(
    ("model", "params", "inputs"),
    [
        ("gru4rec", GRU, ["items", "lengths"]),
        ("sasrec", {"dim": 8, "max_length": 6, "tied": False}, ["items", "lengths"]),
        ("hstu", {"dim": 8, "max_length": 6, "rotary": "cumlog"}, ["items", "times", "lengths"]),
    ],
)
def test_the_same_items_come_out(
    tmp_path: Path, model: str, params: dict[str, Any], inputs: list[str]
) -> None:
    place = trained(tmp_path, model, params)
    made = export_model(ExportRequest(place, tmp_path / "out", top=4, length=6))
    assert made.inputs == inputs
    session = runtime.InferenceSession(str(tmp_path / "out" / made.file))
    expected = answers(place)
    for sessions in (SESSIONS, SESSIONS[:1]):  # any number of them
        rows, scores = session.run(None, {name: given(sessions)[name] for name in inputs})
        for number in range(len(sessions)):
            assert rows[number].tolist() == expected[number][0]
            assert scores[number].tolist() == pytest.approx(expected[number][1], rel=1e-4, abs=1e-6)


def test_weights_that_one_file_cannot_hold_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(exporting, "ONE_FILE", 100)
    place = trained(tmp_path, "gru4rec", GRU)
    export_model(ExportRequest(place, tmp_path / "out", top=4, length=6))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "model.onnx", "model.onnx.data", "items.parquet", "export.json",
    }  # fmt: skip
    runtime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert capfd.readouterr() == ("", "")  # nothing of the exporter's own


def test_a_program_of_torch_gives_the_same(tmp_path: Path) -> None:
    place = trained(tmp_path, "gru4rec", GRU)
    export_model(ExportRequest(place, tmp_path / "out", "torch-export", top=4, length=6))
    assert json.loads((tmp_path / "out" / "export.json").read_text())["file"] == "model.pt2"
    program = torch.export.load(tmp_path / "out" / "model.pt2").module()
    for sessions in (SESSIONS, SESSIONS[:1]):
        with torch.no_grad():
            rows, _ = program(*(torch.from_numpy(part) for part in given(sessions).values()))
        assert rows.tolist() == [one for one, _ in answers(place)[: len(sessions)]]
