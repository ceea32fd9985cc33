"""Vectors as what is stored under a key: float32 bytes, or JSON text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.errors import VectorsError
from paropt.vectors.about import Encoding

Encode = Callable[[NDArray[np.float32]], list[bytes]]


def encoder(encoding: Encoding) -> Encode:
    """What makes the values of vectors [n, d].

    Raises:
        VectorsError: the library that writes JSON is not installed.
    """
    return float32 if encoding == "float32" else _json_encoder()


def float32(vectors: NDArray[np.float32]) -> list[bytes]:
    """Each vector as its d float32 numbers, little-endian: 4·d bytes."""
    width = 4 * vectors.shape[1]
    stored = np.ascontiguousarray(vectors, dtype="<f4").tobytes()
    return [stored[begin : begin + width] for begin in range(0, len(stored), width)]


def _json_encoder() -> Encode:
    """Each vector as a JSON list: the fewest digits that give the same float32 again."""
    try:
        import orjson
    except ImportError:
        raise VectorsError(
            "JSON vectors need orjson, which is not installed here; pip install 'paropt[redis]'"
        ) from None

    # json.dumps is 14 times slower, and writes float32 with the digits of a double
    option = orjson.OPT_SERIALIZE_NUMPY

    def encode(vectors: NDArray[np.float32]) -> list[bytes]:
        rows: Any = np.ascontiguousarray(vectors, dtype=np.float32)
        return [orjson.dumps(row, option=option) for row in rows]

    return encode
