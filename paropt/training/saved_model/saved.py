"""Saved models: weights as safetensors, the item table, and what they are, in a directory.

::

    DIR/model.json          model, parameters, seed, split, epoch, fingerprint, versions, metrics
    DIR/model.safetensors   weights, and what of the data the model is built from, checksummed
    DIR/optimiser.safetensors  what its optimiser had gathered, if asked (optimiser_state.py)
    DIR/memory.safetensors  what it remembers, if it has a memory (fitting/memory.py)
    DIR/items.parquet       row i holds the id of item i

Everything is data: no file of it is ever run or unpickled, and a changed one does not open.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.dataset import View
from paropt.data.features.fields import StoredField
from paropt.data.log.sessions_file import is_name
from paropt.errors import DataError, ModelError, ParamError
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.fitting import checksummed_file, runtime
from paropt.training.fitting.fit import Fit
from paropt.training.fitting.memory import read_memory, write_memory
from paropt.training.fitting.weights import load_weights
from paropt.training.registry import Model, build
from paropt.training.saved_model.header import read_items, require_files, sha256
from paropt.training.saved_model.known_data import (
    Knowledge,
    as_tensors,
    catalogue_of,
    facts_as_json,
    facts_of,
    knowledge_of,
)
from paropt.training.saved_model.optimiser_state import write_optimiser
from paropt.training.semantics import SEMANTICS
from paropt.version import __version__

FORMAT = 1


@dataclass(frozen=True)
class SavedModel:
    """A model in eval mode, the ids [n_items] of what it knows, and its ``model.json``.

    ``knowledge`` is what it can read of new data beside items and times.
    """

    model: Model
    item_ids: NDArray[Any]
    meta: dict[str, Any]
    knowledge: Knowledge = field(default_factory=Knowledge)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)


def versions() -> dict[str, str]:
    """What the numbers of a training may depend on."""
    return {
        "paropt": __version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def check_place(directory: str | Path) -> None:
    """Refuse a place where a model cannot be saved, before any training is done.

    Raises:
        DataError: it exists, or its parent cannot be written to.
    """
    directory = Path(directory)
    if directory.exists() or directory.is_symlink():
        raise DataError(f"{directory} exists; choose another directory to save to, or remove it")
    parent = directory.parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise DataError(f"{directory} cannot be made: {parent} is a file; choose another directory")
    if not os.access(parent, os.W_OK):
        raise DataError(f"{directory} cannot be made: no permission to write to {parent}")


def judged_as(
    epoch: int,
    metrics: Mapping[str, float],
    objective: Objective,
    protocol: EvaluationProtocol,
    view: View,
) -> dict[str, Any]:
    """What a saved model says of how it was judged; a part of its provenance."""
    return {
        "epoch": epoch,
        "metrics": dict(metrics),
        "metric": objective.metric,
        **protocol.to_json(),
        "protocol": view.dataset.protocol,
    }


def save_model(
    directory: str | Path,
    fit: Fit,
    provenance: Mapping[str, Any] | None = None,
    optimiser: bool = False,
) -> None:
    """Save the model as it is now in a new directory, written beside and renamed; on request with
    what its ``optimiser`` has gathered.

    Raises:
        DataError: the directory exists or cannot be written.
    """
    directory = Path(directory)
    check_place(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            _fill(beside, fit, provenance or {})
            if optimiser:
                write_optimiser(beside, fit.gathered())
            beside.chmod(0o755)
            beside.rename(directory)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error.strerror or error}") from None


class LastEpochs:
    """A training's last ``count`` epochs, each a saved model beside ``directory``."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory, self.count = directory, count
        self.places: list[Path] = []

    def save(self, fit: Fit, epoch: int, provenance: Mapping[str, Any]) -> None:
        """Keep this epoch, and no more than ``count``.

        Raises:
            DataError: its directory exists or cannot be written.
        """
        place = self.directory.with_name(f"{self.directory.name}-epoch-{epoch}")
        save_model(place, fit, provenance)
        self.places.append(place)
        if len(self.places) > self.count:
            shutil.rmtree(self.places.pop(0), ignore_errors=True)


def _fill(path: Path, fit: Fit, provenance: Mapping[str, Any]) -> None:
    model, view = fit.model, fit.view
    items = path / "items.parquet"
    pa.parquet.write_table(_items(view), items, compression="zstd")
    meta = {
        "format": FORMAT,
        "model": fit.name,
        "params": model.params,
        "seed": fit.seed,
        "split": view.name,
        "epoch": fit.epoch,
        "fingerprint": view.fingerprint,
        "added": view.dataset.digests(model.needs(model.params).items),
        "semantics": SEMANTICS,
        **_last_event(fit),
        "facts": facts_as_json(model.catalogue.facts),
        "log": view.dataset.meta.get("log"),
        "user_key": view.dataset.meta.get("users", {}).get("key"),
        "versions": versions(),
        "items_sha256": sha256(items),
        **({"begun_from": _begun_from(fit)} if fit.beginning else {}),
        **provenance,
    }
    tensors = {f"weights/{name}": value for name, value in model.state_dict().items()}
    tensors["support"] = model.catalogue.support
    tensors |= as_tensors(model, view)
    tensors |= {f"worked_out/{name}": value for name, value in _worked_out(model).items()}
    checksummed_file.write(path / "model.safetensors", meta, tensors)
    write_memory(path, meta, model)
    text = json.dumps(meta, indent=1, ensure_ascii=False, sort_keys=True)
    (path / "model.json").write_text(text + "\n", encoding="utf-8")


def _last_event(fit: Fit) -> dict[str, int]:
    """The time of the last event that the model has seen, where a log is split by time."""
    dataset, times = fit.view.dataset, fit.view.train.times
    if not dataset.has_times or dataset.protocol != "time" or not len(times):
        return {}
    last = int(times.max())
    before = fit.beginning.earlier.last_event if fit.beginning else None
    return {"last_event": last if before is None else max(last, before)}


def _begun_from(fit: Fit) -> dict[str, Any]:
    assert fit.beginning is not None and fit.carried is not None
    return {"digest": fit.beginning.earlier.digest, **fit.carried.to_json()}


def _items(view: View) -> pa.Table:
    """The ids of the items that the model knows, and their names where the data have them."""
    columns = {"id": pa.array(view.dataset.item_ids()[: view.n_items], pa.string())}
    for name, kept in view.dataset.fields("items").items():
        if name != "id" and is_name(name) and kept.kind in ("category", "text"):
            texts = kept.texts() if kept.kind == "text" else _spelt(kept)
            columns[name] = pa.array(list(texts[: view.n_items]), pa.string())
    return pa.table(columns)


def _spelt(kept: StoredField) -> list[str | None]:
    words = kept.vocabulary
    return [words[code] if code >= 0 else None for code in kept.array().tolist()]


def _worked_out(model: Model) -> dict[str, Tensor]:
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return model.worked_out()
    finally:
        model.train(was_training)


def load_model(directory: str | Path, device: str = "cpu") -> SavedModel:
    """Load a saved model onto a device.

    Raises:
        DataError: it is none, or damaged, changed, or of another version.
        TrainingError: there is no such device.
    """
    directory = Path(directory)
    on = runtime.usable_device(device)
    require_files(directory)
    try:
        meta, tensors = checksummed_file.read(directory / "model.safetensors")
        written = json.loads((directory / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:  # Unsealed, JSON and Unicode errors are ValueErrors
        raise DataError(f"{directory} cannot be used as a model: {error}") from None
    if meta.get("format") != FORMAT:
        raise DataError(
            f"{directory} has format version {meta.get('format')}, this paropt reads {FORMAT}"
        )
    if written != meta:
        raise DataError(f"{directory}/model.json was changed since the model was saved")
    items = read_items(directory / "items.parquet", meta)
    try:
        with runtime.memory_errors(on):
            model = _rebuild(meta, tensors).to(on)
            read_memory(directory, meta, model)
            knowledge = knowledge_of(model, tensors, meta)
    except (KeyError, TypeError, RuntimeError, ValueError, ModelError, ParamError) as error:
        why = str(error).splitlines()[0]
        raise DataError(
            f"{directory} does not fit the model {meta.get('model')!r} as it is now: {why}"
        ) from error
    return SavedModel(model.eval(), items.column("id").to_numpy(), meta, knowledge)


def _rebuild(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Model:
    def under(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    catalogue = catalogue_of(facts_of(meta["facts"], tensors), tensors)
    model = build(meta["model"], meta["params"], catalogue, meta["seed"])
    # a model in a later stage may have changed what requires gradients; that is not its weights
    load_weights(model, under("weights/"))
    model.load_worked_out(under("worked_out/"))
    return model
