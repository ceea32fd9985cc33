"""Models for other runtimes: the same items, or nothing is written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.gru4rec import Gru4Rec
from paropt.data.dataset import View, open_dataset
from paropt.errors import ModelError
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.recommending.exporting import ExportError, ExportRequest, export_model
from paropt.training.saved_model.saved import save_model

SMALL: dict[str, Any] = {"dim": 8, "blocks": 1, "max_length": 6, "batch_size": 16}


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    return open_dataset(made_up_data(tmp_path_factory.mktemp("x") / "log", sessions=48)).view(
        "search"
    )


def saved(view: View, place: Path, model: str, **params: Any) -> Path:
    fit = Fit(model, params, view, seed=1, epochs=1)
    list(fit.epochs())
    save_model(place, fit)
    return place


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("gru4rec", {"layers": "6", "n_sample": 4, "constrained_embedding": False}),
        ("sasrec", SMALL | {"similarity": "cosine", "time_features": "gap"}),
        ("hstu", SMALL | {"rotary": "linear", "time_mode": "query"}),
    ],
)
def test_vectors_are_those_that_the_model_ranks_with(
    view: View, tmp_path: Path, model: str, params: dict[str, Any]
) -> None:
    place = saved(view, tmp_path / "m", model, **params)
    request = ExportRequest(place, tmp_path / "out", "torchscript", "vector", 5, 6)
    made = export_model(request)  # which compares with the model itself
    assert made.checked == 64 and made.farthest < 1e-4
    table = np.load(tmp_path / "out" / "items.npy")
    assert len(table) == view.n_items
    assert json.loads((tmp_path / "out" / "export.json").read_text())["length"] == 6
    with pytest.warns(DeprecationWarning):
        script = torch.jit.load(tmp_path / "out" / "model.pt")
    lengths = torch.tensor([2, 6, 1])
    padded = torch.ones(3, 6, dtype=torch.int64)
    found = script(padded, padded, lengths)
    assert found.shape == (3, table.shape[1])


def test_one_that_comes_out_otherwise_is_not_kept(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(torch.nn.Module):
        def forward(self, items: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
            return torch.ones(items.shape[0], 6) * lengths[:, None]

    place = saved(view, tmp_path / "m", "gru4rec", layers="6", n_sample=4)
    monkeypatch.setattr(Gru4Rec, "portable", lambda self: Wrong())
    with pytest.raises(ExportError, match=r"recommends otherwise: .* nothing was written"):
        export_model(ExportRequest(place, tmp_path / "out", "torchscript"))
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_what_cannot_be_exported_says_why(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = saved(view, tmp_path / "moe", "sasrec", **SMALL, experts=2, top_k=1)
    with pytest.raises(ModelError, match="'sasrec' can't be exported: its mixtures choose experts"):
        export_model(ExportRequest(mixed, tmp_path / "out", "torchscript"))
    counted = saved(view, tmp_path / "k", "markov")
    with pytest.raises(ModelError, match="it has no form for other runtimes"):
        export_model(ExportRequest(counted, tmp_path / "out", "torchscript"))
    with pytest.raises(ExportError, match="--length 9 is more than the model looks at, which is 6"):
        export_model(ExportRequest(mixed, tmp_path / "out", "torchscript", length=9))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ExportError, match=r"needs onnx, onnxruntime and onnxscript; .*'paropt\[onnx\]'"
    ):
        export_model(ExportRequest(mixed, tmp_path / "out", "onnx"))
