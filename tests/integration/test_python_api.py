"""paropt from Python: docs/notebook.ipynb is run, and what is refused is refused in a sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from nbclient import NotebookClient

import paropt
from paropt.errors import DataError, ModelError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
LOG = pd.DataFrame(
    {
        "SessionId": np.repeat(np.arange(60), 3),
        "ItemId": np.tile([1, 2, 3, 2, 3, 4], 30),
        "Time": np.arange(180) * 3600,
    }
)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the notebook's cells show when they are run, by what they begin with."""
    place = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAROPT_HOME", str(place / "home"))
        patch.setenv("IPYTHONDIR", str(place / "ipython"))
        book = nbformat.read(NOTEBOOK, 4)
        NotebookClient(book, timeout=240, resources={"metadata": {"path": str(place)}}).execute()
    return {
        cell["source"]: json.dumps(cell["outputs"]) for cell in book.cells if cell.get("outputs")
    }


def _shown(executed: dict[str, str], part: str) -> str:
    [found] = [shown for source, shown in executed.items() if part in source]
    return found


@pytest.mark.long
def test_the_notebook_goes_from_events_to_recommendations(executed: dict[str, str]) -> None:
    assert "16,477 events of 720 items" in _shown(executed, "paropt.prepare(")
    assert "the data frame" in _shown(executed, "paropt.prepare(")
    launched = _shown(executed, "paropt.launch_study(")
    assert "4 done of 4" in launched  # the last painting of the table
    assert launched.count('"display_id"') <= 1  # painted over, not below each other
    assert _shown(executed, "study.trials()").count("complete") >= 1
    assert "notebook_1_trial" in _shown(executed, "study.optuna()")
    assert "popularity" not in _shown(executed, "shop.recommend(")


def test_the_committed_notebook_was_run_to_its_end() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])


def test_frames_of_every_kind_are_the_same_log(tmp_path: Path) -> None:
    """With a column as the index, as Arrow's table, and in what has to_pandas()."""
    frames = [LOG, LOG.set_index("SessionId"), pa.Table.from_pandas(LOG)]
    made = [
        paropt.prepare(frame, tmp_path / str(number), test_days=1.0)
        for number, frame in enumerate(frames)
    ]
    assert len({one.fingerprint for one in made}) == 1
    for wrong in ([[1, 2, 3]], None, 5):
        with pytest.raises(DataError, match="events are a data frame, a file or a list of files"):
            paropt.prepare(wrong, tmp_path / "wrong")  # type: ignore[arg-type]


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import paropt, sys; print(sorted(dir(paropt))); print('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "load_model" in told[0] and "open_study" in told[0]
    assert told[1] == "False"
    assert set(dir(paropt)) == set(paropt.__all__)
    for name in paropt.__all__:
        assert getattr(paropt, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = paropt.nothing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paropt.prepare(LOG, sesion_key="x"), "no option 'sesion_key'.*'session_key'"),
        (lambda: paropt.prepare(LOG[:0]), "the data frame has no rows"),
        (lambda: paropt.prepare(LOG, item_key="SKU"), "the data frame.*SKU"),
        (lambda: paropt.prepare(LOG.assign(odd=[1, "a"] * 90)), "one type"),
        (lambda: paropt.launch_study(LOG, trails=3), "no option 'trails'.*'trials'"),
        (lambda: paropt.launch_study(space={"model": "gru4rec"}), "study=NAME"),
        (lambda: paropt.launch_study(space="nix"), "nix"),
        (lambda: paropt.train({"layers": 8}, "x", epoch=1), "no option 'epoch'.*'epochs'"),
        (lambda: paropt.load_model("/nix"), "/nix"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_one_sentence(
    call: Any, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))
    with pytest.raises(paropt.ParoptError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
    assert str(tmp_path) not in str(raised.value)


def test_sessions_in_each_form_get_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))
    data = paropt.prepare(LOG, tmp_path / "data")
    paropt.train({"layers": 4, "n_sample": 0, "batch_size": 8}, data, epochs=1, save=tmp_path / "m")
    model = paropt.load_model(tmp_path / "m")
    assert (model.name, len(model.item_ids), model.params["layers"]) == ("gru4rec", 4, [4])
    listed = model.recommend([["1", "2"], ["4"]], top=2)
    named = model.recommend({"1": ["1", "2"], "2": ["4"]}, top=2)
    frame = pd.DataFrame({"SessionId": [1, 1, 2], "ItemId": [1, 2, 4], "Time": [1, 2, 3]})
    pd.testing.assert_frame_equal(listed, named)
    pd.testing.assert_frame_equal(listed, model.recommend(frame, top=2))
    assert listed["rank"].tolist() == [1, 2, 1, 2]
    users, items = model.user_vectors(frame), model.item_vectors()
    scores = users.values @ items.values.T
    table = model.scores([["1", "2"], ["4"], ["x"]], ["3", "nix", "1"])
    assert table.index.tolist() == ["1", "2", "3"] and table.columns.tolist() == ["3", "nix", "1"]
    where = [items.ids.index(item) for item in ("3", "1")]
    np.testing.assert_allclose(table[["3", "1"]].to_numpy()[:2], scores[:, where], rtol=1e-5)
    assert table["nix"].isna().all() and table.loc["3"].isna().all()
    best = [items.ids[row] for row in scores.argmax(axis=1)]
    assert best == listed[listed["rank"] == 1]["item"].tolist()
    capsys.readouterr()
    with pytest.raises(DataError, match="one list per session"):
        model.recommend(["1", "2"])
    with pytest.raises(DataError, match="knows none of the"):
        model.recommend([["x"]])
    with pytest.raises(ModelError):
        model.recommend([["1"]], want=["click"])
