"""Pickles of plain data: dicts, lists, texts and numbers; nothing in them is ever run.

A pickle is a program that may ask for anything importable by its name. The unpickler here refuses
every name. Where numpy arrays are admitted, which is asked for by an option, the few names that an
array is written by stand for functions of this file, which take bytes and a type of numbers.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paropt.errors import DataError

# what reading a damaged pickle may raise beside UnpicklingError (pickle's documentation: others)
_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_TYPES = ("f2", "f4", "f8")
NUMPY_OPTION = "--numpy-pickles"


def read_pickle(path: Path, numpy_arrays: bool = False) -> Any:
    """A pickle's content, of plain data, and arrays of floats if ``numpy_arrays``.

    An array comes as :class:`Array`.

    Raises:
        DataError: it cannot be read, is no whole pickle, or asks for anything by name.
    """
    try:
        with path.open("rb") as file:
            return _Plain(file, path, numpy_arrays).load()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    except _DAMAGED as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is no whole pickle: {why}") from None


class Array:
    """What a pickled array of floats becomes; :meth:`numbers` are its own."""

    __slots__ = ("content", "dtype", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = ""
        self.content = b""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, content = state
        if not (isinstance(dtype, _Dtype) and isinstance(content, bytes)) or by_columns:
            raise ValueError("it holds an array of other than floats in C order")
        self.shape, self.dtype, self.content = (
            tuple(map(int, shape)),
            dtype.order + dtype.name,
            content,
        )

    def numbers(self) -> NDArray[Any]:
        """The floats, mapped from the pickle's bytes.

        Raises:
            ValueError: there are more or fewer than the shape says.
        """
        return np.frombuffer(self.content, np.dtype(self.dtype)).reshape(self.shape)


class _Dtype:
    """A type of floats, told by a name such as f4."""

    __slots__ = ("name", "order")

    def __init__(self, name: Any, *_: Any) -> None:
        if name not in _TYPES:
            raise ValueError(f"it holds an array of {str(name)[:20]}, not of floats")
        self.name, self.order = str(name), "<"

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "=", "|"):
            raise ValueError("it holds an array of an unknown byte order")
        self.order = state[1]


def _reconstruct(*_: Any) -> Array:
    return Array()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> Array:
    found = Array()
    found.__setstate__((1, shape, dtype, order != "C", bytes(content)))
    return found


def _bytes(text: Any, encoding: Any) -> bytes:
    """How bytes are written by pickle's protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise ValueError("it holds bytes in an unknown form")
    return text.encode("latin1")


class _ArrayType:
    """Stands where a pickle names ``numpy.ndarray``; nothing is made of it."""


_NUMPY: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _ArrayType,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _bytes,
}


class _Plain(pickle.Unpickler):
    def __init__(self, file: Any, path: Path, numpy_arrays: bool) -> None:
        super().__init__(file)
        self.path, self.numpy_arrays = path, numpy_arrays

    def find_class(self, module: str, name: str) -> Any:
        made = _NUMPY.get(f"{module}.{name}")
        if made is not None and self.numpy_arrays:
            return made
        asked = f"{module}.{name}"[:80]
        if made is not None:
            raise DataError(
                f"{self.path} asks for {asked}: it holds numpy arrays, which are read where"
                f" {NUMPY_OPTION} says so"
            )
        raise DataError(
            f"{self.path} asks for {asked!r}, and nothing that a pickle names is loaded, for that"
            " runs code; write it as plain dicts and lists"
        )
