"""A SHA-256 of what a dataset holds and of the rules that made it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def fingerprint(
    rules: Mapping[str, Any], items: pa.Array, arrays: Iterable[tuple[str, NDArray[Any] | str]]
) -> str:
    """Hex digest; equal exactly when rules, item ids and every named array are equal.

    Of an array that is larger than memory may be, its own digest stands for it.
    File names, paths and the machine do not enter it.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps(rules, sort_keys=True).encode())
    digest.update("\0".join(items.to_pylist()).encode())
    for name, array in arrays:
        if isinstance(array, str):
            digest.update(f"\0{name} sha256 {array}\0".encode())
            continue
        little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        digest.update(f"\0{name} {little.dtype.str} {little.shape}\0".encode())
        digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
