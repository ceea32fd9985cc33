"""Files of tensors with a JSON header and a seal: what is cut short or changed does not open.

A checksummed file is plain safetensors, readable by any tool of that format; its metadata hold the
header and a SHA-256 over header and tensors. It is written beside its place and renamed, so that
there is always the old file or the new one. Nothing in it can be code.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class Unchecked(ValueError):
    """Why a file cannot be used, in one clause."""


def write(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write atomically; the file is on the disk when this returns.

    Raises:
        OSError: no space, no permission; the old file is as it was.
    """
    # clones, because tied weights share storage, which the format has no word for
    plain = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    text = json.dumps(header, sort_keys=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(plain, beside, metadata={"header": text, "sha256": _digest(text, plain)})
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors, on the CPU.

    Raises:
        FileNotFoundError: there is no file.
        Unchecked: it is something else, cut short, or changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except SafetensorError as error:
        if _is_pickle(path):
            raise Unchecked("it is pickled, which could run code, and is never opened") from None
        raise Unchecked(f"it is cut short or no safetensors file ({error})") from None
    if "header" not in metadata or "sha256" not in metadata:
        raise Unchecked("paropt did not write it")
    if _digest(metadata["header"], tensors) != metadata["sha256"]:
        raise Unchecked("its checksum does not match: it was damaged or changed")
    return json.loads(metadata["header"]), tensors


def _digest(header: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        # bytes of any dtype, bfloat16 among them, which NumPy does not know
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_pickle(path: Path) -> bool:
    """A pickle by itself, or torch's zip archive around one."""
    with path.open("rb") as file:
        start = file.read(4)
    return start[:1] == b"\x80" or start == b"PK\x03\x04"
