"""Saved models and checkpoints are data: what is damaged does not open, and a sentence says so."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paropt.data import View, open_dataset
from paropt.data.prepare import prepare
from paropt.errors import CheckpointError, DataError, ModelError, ParamError, ParoptError
from paropt.training.fitting.fit import Fit
from paropt.training.saved_model.saved import load_model, save_model

PARAMS = {"loss": "cross-entropy", "layers": 4, "batch_size": 4, "n_epochs": 2, "n_sample": 4}
fuzz = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just([]) | st.just({})


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    folder = tmp_path_factory.mktemp("data")
    log = folder / "log.tsv"
    lines = [
        f"{session}\t{(session + step) % 7}\t{1_700_000_000 + 9000 * session + step}"
        for session in range(40)
        for step in range(4)
    ]
    log.write_text("SessionId\tItemId\tTime\n" + "\n".join(lines) + "\n")
    prepare([log], folder / "set")
    return open_dataset(folder / "set").view("search")


@pytest.fixture(scope="module")
def trained(view: View, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a saved model and a checkpoint."""
    folder = tmp_path_factory.mktemp("trained")
    fit = fresh(view)
    next(iter(fit.epochs()))
    fit.save(folder / "1.ckpt")
    save_model(folder / "model", fit, {})
    return folder


def fresh(view: View) -> Fit:
    return Fit("gru4rec", PARAMS, view, seed=1)


def spoilt(content: bytes, at: float, new: bytes, cut: bool) -> bytes:
    """Something else from a place on (from 0 to 1 of the length); ``cut``: and nothing after."""
    place = int(at * len(content))
    return content[:place] + new + (b"" if cut else content[place + len(new) :])


def refused(act: Callable[[], Any], *kinds: type[ParoptError]) -> None:
    with pytest.raises(kinds) as caught:
        act()
    assert str(caught.value).strip()
    assert "\n" not in str(caught.value)


@fuzz
@given(at=st.floats(0, 0.999), new=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_checkpoints(
    view: View, trained: Path, tmp_path: Path, at: float, new: bytes, cut: bool
) -> None:
    good = (trained / "1.ckpt").read_bytes()
    bad = spoilt(good, at, new, cut)
    if bad == good:
        return
    path = tmp_path / "1.ckpt"
    path.write_bytes(bad)
    refused(lambda: fresh(view).resume(path), CheckpointError)


@fuzz
@given(
    name=st.sampled_from(["model.json", "model.safetensors", "items.parquet"]),
    at=st.floats(0, 0.999),
    new=st.binary(min_size=1, max_size=8),
    cut=st.booleans(),
)
def test_saved_models(
    trained: Path, tmp_path: Path, name: str, at: float, new: bytes, cut: bool
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained / "model", folder, dirs_exist_ok=True)
    good = (folder / name).read_bytes()
    (folder / name).write_bytes(spoilt(good, at, new, cut))
    try:
        load_model(folder)  # a blank in model.json, say, changes nothing
    except (DataError, ModelError, ParamError) as error:
        assert "\n" not in str(error)
    else:
        assert name == "model.json" or (folder / name).read_bytes() == good


@fuzz
@given(data=st.data())
def test_what_model_json_says(trained: Path, tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "model"
    shutil.copytree(trained / "model", folder, dirs_exist_ok=True)
    meta = json.loads((folder / "model.json").read_text())
    meta[data.draw(st.sampled_from(sorted(meta)))] = data.draw(VALUES)
    (folder / "model.json").write_text(json.dumps(meta))
    try:
        load_model(folder)
    except (DataError, ModelError, ParamError) as error:
        assert "\n" not in str(error)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("payload-ran"),)


def test_a_pickle_with_a_payload_is_refused(
    view: View, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    payload = pickle.dumps(Payload())
    beside = struct.pack("<Q", len(payload)) + payload  # as if it were a safetensors header
    for content in (payload, beside):
        Path("1.ckpt").write_bytes(content)
        refused(lambda: fresh(view).resume("1.ckpt"), CheckpointError)
        for name in ("model.json", "model.safetensors", "items.parquet"):
            folder = tmp_path / "model"
            shutil.copytree(trained / "model", folder, dirs_exist_ok=True)
            (folder / name).write_bytes(content)
            refused(lambda: load_model(tmp_path / "model"), DataError, ModelError)
    assert not Path("payload-ran").exists()
