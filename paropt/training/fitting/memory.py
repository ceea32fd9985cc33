"""What a model remembers beside its weights: bounded, told, kept as data, forgotten on demand.

::

    DIR/memory.safetensors    beside a saved model's weights (checksummed): the tensors of
                              Model.memory(), and whose they are

A saved model without the file remembers nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paropt.errors import DataError, ModelError
from paropt.training.fitting import checksummed_file
from paropt.training.registry import Model

FILE = "memory.safetensors"
# of a saved model's model.json: a memory of another one says nothing about this one's users
OWNER = ("model", "params", "seed", "fingerprint", "split", "epoch")


@dataclass(frozen=True)
class MemoryFacts:
    """A memory in numbers: ``rows`` of at most ``most``, ``bytes``, the ``shapes`` of its tensors,
    and what the model ``says`` of it."""

    rows: int
    most: int
    bytes: int
    shapes: dict[str, list[int]] = field(default_factory=dict)
    says: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def facts_of(model: Model) -> MemoryFacts | None:
    """What a model remembers; None of one without a memory, or with one that is turned off.

    Raises:
        ModelError: it has more rows than it may.
    """
    if not model.MEMORY:
        return None
    memory, most = model.memory(), int(model.params[model.MEMORY])
    rows = max((len(tensor) for tensor in memory.values()), default=0)
    if rows > most:
        raise ModelError(
            f"{type(model).__name__} remembers {rows:,} rows, and {model.MEMORY} is {most:,}"
        )
    if not most:
        return None
    size = sum(tensor.numel() * tensor.element_size() for tensor in memory.values())
    shapes = {name: list(tensor.shape) for name, tensor in memory.items()}
    return MemoryFacts(rows, most, size, shapes, model.memory_facts())


def digest(memory: Mapping[str, Tensor]) -> str:
    """A SHA-256 over names, types, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(memory.items()):
        plain = tensor.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


# -- beside a saved model -----------------------------------------------------------------------


def write_memory(directory: Path, meta: Mapping[str, Any], model: Model) -> None:
    """Write what the model remembers beside its weights; nothing if it has no memory.

    Raises:
        OSError: it cannot be written; a memory that was there is as it was.
    """
    if model.MEMORY:
        header = {"memory_of": {key: meta[key] for key in OWNER}}
        checksummed_file.write(directory / FILE, header, model.memory())


def read_memory(directory: Path, meta: Mapping[str, Any], model: Model) -> None:
    """Let the model remember what was written, if anything was.

    Raises:
        DataError: the file is damaged, or of another model.
    """
    path = directory / FILE
    try:
        header, tensors = checksummed_file.read(path)
    except FileNotFoundError:
        return
    except (checksummed_file.Unchecked, OSError) as error:
        raise DataError(f"{path} cannot be used as a memory: {error}") from None
    whose = header.get("memory_of") or {}
    for key in OWNER:
        if whose.get(key) != meta[key]:
            raise DataError(
                f"{path} is the memory of another model: its {key} is {whose.get(key)}, not "
                f"{meta[key]}"
            )
    try:
        model.load_memory({name: value.to(model.device) for name, value in tensors.items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{path} does not fit the model as it is now: {why}") from error


def forget(directory: Path, meta: Mapping[str, Any], model: Model) -> None:
    """Let a saved model forget everything, on the disk too.

    Raises:
        DataError: it has no memory, or it cannot be written.
    """
    if not model.MEMORY:
        raise DataError(f"{directory} is a {meta['model']}, which has no memory")
    model.load_memory({})
    try:
        write_memory(directory, meta, model)
    except OSError as error:
        raise DataError(f"{directory} cannot be written: {error.strerror or error}") from None
