"""What a dataset keeps beside ids and times, as it lies in the directory; read when used.

::

    splits/NAME/column_X.npy            a column of events [E]: numbers, or codes
    features/X.npy                      numbers or codes of items [n]; users: user_features/…
    features/X/codes.npy, offsets.npy   several codes per item
    features/X/bytes.npy, offsets.npy   texts as UTF-8
    features/X/rows.npy                 vectors, float16 [n, d]
    features/X/missing.npy              which items have none, beside the last three
    vocabularies/column_X.npy           the texts of codes; also feature_X, user_X
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, overload
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

FieldOf = Literal["events", "items", "users"]
Kind = Literal["number", "category", "categories", "text", "vector"]
KINDS: tuple[Kind, ...] = ("number", "category", "categories", "text", "vector")
# in meta.json, numbers and categories are called as paropt 0.1.0 called them
_WRITTEN: dict[Kind, str] = {"number": "numeric", "category": "categorical"}
_READ: dict[str, Kind] = {"numeric": "number", "categorical": "category"}
_FOLDERS = {"items": "features", "users": "user_features"}
_WORDS = {"events": "column", "items": "feature", "users": "user"}

Open = Callable[[str], NDArray[Any]]


def written(kind: Kind) -> str:
    """A kind as meta.json has it."""
    return _WRITTEN.get(kind, kind)


def kind_of(word: str) -> Kind:
    """The kind that a word of meta.json means."""
    return _READ[word] if word in _READ else next(kind for kind in KINDS if kind == word)


def array_path(of: FieldOf, name: str, part: str = "") -> str:
    """Where an array of a field of items or users is, without ``.npy``."""
    if not part:
        return f"{_FOLDERS[of]}/{file_name(name)}"
    return f"{_FOLDERS[of]}/{file_name(name).replace('.', '%2E')}/{part}"


def vocabulary_path(of: FieldOf, name: str) -> str:
    """Where the texts of a field's codes are, without ``.npy``."""
    return f"vocabularies/{_WORDS[of]}_{file_name(name)}"


def file_name(name: str) -> str:
    """A field's name as a part of a file's."""
    return quote(name, safe="")


@dataclass(frozen=True)
class StoredField:
    """A column of events, or a field of the table of items or users.

    ``open`` maps an array of the dataset by its path without ``.npy``.
    """

    of: FieldOf
    name: str
    kind: Kind
    open: Open

    @property
    def size(self) -> int:
        """How many codes there are, or a vector's dimensions; else 0."""
        if self.kind in ("category", "categories"):
            return len(self.open(vocabulary_path(self.of, self.name)))
        return int(self.array("rows").shape[1]) if self.kind == "vector" else 0

    @property
    def vocabulary(self) -> Sequence[str]:
        """The texts of the codes; none are read before they are asked for."""
        if self.kind not in ("category", "categories"):
            return ()
        return Words(self.open(vocabulary_path(self.of, self.name)))

    def array(self, part: str = "") -> NDArray[Any]:
        """An array of items or users: see the head of this file."""
        return self.open(array_path(self.of, self.name, part))

    @property
    def missing(self) -> int:
        """How many items or users have none."""
        if self.kind == "number":
            return int(np.isnan(self.array()).sum())
        if self.kind == "category":
            return int((self.array() < 0).sum())
        return int(self.array("missing").sum())

    def texts(self) -> Sequence[str | None]:
        """A text per item or user, None where unknown."""
        return Texts(self.array("bytes"), self.array("offsets"), self.array("missing"))


class Words(Sequence[str]):
    """Packed texts (:func:`paropt.data.encoding.pack_ids`), each decoded when asked for."""

    def __init__(self, packed: NDArray[Any]) -> None:
        self.packed = packed

    def __len__(self) -> int:
        return len(self.packed)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return Words(self.packed[index])
        value = self.packed[index]
        return value.decode() if isinstance(value, bytes) else str(value)


class Texts(Sequence[str | None]):
    """UTF-8 one after the other: text i is ``stored[offsets[i]:offsets[i + 1]]``."""

    def __init__(
        self, stored: NDArray[np.uint8], offsets: NDArray[np.int64], missing: NDArray[np.bool_]
    ) -> None:
        self.stored, self.offsets, self.missing = stored, offsets, missing

    def __len__(self) -> int:
        return len(self.missing)

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str | None]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(index, slice):
            begin, end, step = index.indices(len(self))
            if step != 1:
                return [self[i] for i in range(begin, end, step)]
            return Texts(self.stored, self.offsets[begin : end + 1], self.missing[begin:end])
        if self.missing[index]:
            return None
        return self.stored[self.offsets[index] : self.offsets[index + 1]].tobytes().decode()
