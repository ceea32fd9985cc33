"""``paropt export-model`` to ONNX, run by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paropt.data.dataset import open_dataset
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.saved_model.answering import Answerer, Ask
from paropt.training.saved_model.exporting import ExportRequest, export_model
from paropt.training.saved_model.saved import load_model, save_model

runtime: Any = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


@pytest.mark.parametrize(
    ("model", "params", "inputs"),
    [
        ("gru4rec", {"layers": "6/4", "n_sample": 4}, ["items", "lengths"]),
        ("sasrec", {"dim": 8, "max_length": 6, "tied": False}, ["items", "lengths"]),
        ("hstu", {"dim": 8, "max_length": 6, "rotary": "cumlog"}, ["items", "times", "lengths"]),
    ],
)
def test_the_same_items_come_out(
    tmp_path: Path, model: str, params: dict[str, Any], inputs: list[str]
) -> None:
    view = open_dataset(made_up_data(tmp_path / "log", sessions=48)).view("search")
    fit = Fit(model, params, view, seed=1, epochs=1)
    list(fit.epochs())
    save_model(tmp_path / "m", fit)
    made = export_model(ExportRequest(tmp_path / "m", tmp_path / "out", top=4, length=6))
    assert made.inputs == inputs
    session = runtime.InferenceSession(str(tmp_path / "out" / made.file))
    items = np.array([[3, 1, 2, 0, 0, 0]])
    times = 1_700_000_000_000 + np.arange(6)[None] * 60_000
    given = {"items": items, "times": times, "lengths": np.array([3])}
    rows, scores = session.run(None, {name: given[name] for name in inputs})
    answerer = Answerer(load_model(tmp_path / "m"))
    ids = [str(item) for item in answerer.saved.item_ids]
    ask = Ask([ids[3], ids[1], ids[2]], times[0, :3].tolist(), top=4)
    (answer,) = answerer.answer([answerer.prepare(ask)])
    assert [ids[row] for row in rows[0]] == answer.items
    assert scores[0].tolist() == pytest.approx(answer.scores, rel=1e-4, abs=1e-6)
