"""A model on disk is data, and one that was damaged is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typed import Paropt

from paropt.data import open_dataset
from paropt.errors import DataError
from paropt.training.saved_model.saved import load_model


def test_a_saved_model_is_data(trained: tuple[Path, dict[str, Any]], shop: Path) -> None:
    directory, said = trained
    assert sorted(p.name for p in directory.iterdir()) == [
        "items.parquet", "model.json", "model.safetensors",
    ]  # fmt: skip
    meta = json.loads((directory / "model.json").read_text())
    assert {meta["model"], meta["split"], meta["fingerprint"]} == {
        "gru4rec", "full", said["fingerprint"],
    }  # fmt: skip
    assert meta["metrics"] == said["metrics"]
    assert set(meta["versions"]) == {"paropt", "torch", "numpy", "python"}
    saved = load_model(directory)
    assert saved.item_ids.tolist() == open_dataset(shop).item_ids()[: saved.n_items].tolist()
    assert not saved.model.training


def copied(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def drop(path: Path) -> None:
    (path / "model.safetensors").unlink()


def flip(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def cut(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-7])


def retell(path: Path) -> None:
    text = (path / "model.json").read_text()
    (path / "model.json").write_text(text.replace('"seed": 5', '"seed": 6'))


def garble(path: Path) -> None:
    (path / "model.json").write_bytes(b"\xff{")


def rename_items(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    ids = pa.parquet.read_table(path / "items.parquet").column("id").to_pylist()
    pa.parquet.write_table(pa.table({"id": ids[::-1]}), path / "items.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "is no saved model (it has no model.safetensors)"),
        (flip, "its checksum does not match"),
        (cut, "it is cut short"),
        (retell, "model.json was changed"),
        (garble, "cannot be used as a model"),
        (rename_items, "items.parquet was changed"),
    ],
)
def test_a_damaged_model_is_refused(
    damage: Callable[[Path], None],
    message: str,
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    path = copied(trained, tmp_path)
    load_model(path)
    damage(path)
    with pytest.raises(DataError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_for_weights_is_never_opened(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = copied(trained, tmp_path)
    (path / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="it is pickled"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_no_model_there(tmp_path: Path, paropt: Paropt) -> None:
    done = paropt("evaluate", tmp_path / "none", "--data", tmp_path, ok=False)
    assert "is no saved model (it is not there)" in str(done.exception)
