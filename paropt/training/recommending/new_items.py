"""Items that a saved model never saw, given to it in files: it ranks and reads them as well.

They are read as the tables and vectors of the model's own data were, by the same kinds, in its
codes. What training never saw of them (another brand) is unknown to the model, and counts as
missing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.encoding import unpack_ids
from paropt.data.features.fields import Texts
from paropt.data.features.item_files import ItemFiles
from paropt.data.features.tables import Fields, TableField, Told, ids_of, read_tables
from paropt.data.features.vectors import VectorFile, read_vectors, write_vectors
from paropt.errors import DataError, ModelError
from paropt.training.batches.statistics import of_new_items
from paropt.training.registry import STATISTICS, Bags, Field, Table, Vectors
from paropt.training.saved_model.known_data import index_of
from paropt.training.saved_model.saved import SavedModel

Note = Callable[[str], None]


@contextmanager
def with_new_items(saved: SavedModel, files: ItemFiles, note: Note) -> Iterator[SavedModel]:
    """The model with the items of ``files`` that it doesn't know, indexed after its own.

    Without files it is the model as it was.

    Raises:
        ModelError: the model knows items by their ids only.
        DataError: a file cannot be used.
    """
    if not files:
        yield saved
        return
    fields = saved.model.catalogue.items.fields
    if not fields:
        raise ModelError(
            f"model {saved.meta['model']!r} knows items by their ids alone, so no other items can "
            "be given to it; train it with features or vectors"
        )
    key = files.key or str((saved.meta.get("log") or {}).get("item_key") or "ItemId")
    ids = _new_ids(saved, files, key)
    if not len(ids):
        note("the model knows every item of these files already")
        yield saved
        return
    are = "item is" if len(ids) == 1 else "items are"
    note(f"{len(ids):,} {are} new to the model: it goes by what the files say of them")
    with tempfile.TemporaryDirectory(prefix="paropt-items-") as folder:
        read: dict[str, Any] = _from_tables(fields, files, key, ids, note)
        read |= from_vectors(fields, files, key, ids, Path(folder), note)
        for name, field in fields.items():
            if name not in read:
                read[name] = unsaid(saved, field, len(ids), note)
        table = Table(fields, lambda field: read[field.name])
        try:
            saved.model.add_items(table, len(ids))
        except NotImplementedError as error:
            raise ModelError(
                f"model {saved.meta['model']!r} can't be given items that it doesn't know: {error}"
            ) from None
        try:
            known = np.asarray(saved.item_ids, object)
            yield replace(saved, item_ids=np.concatenate([known, np.asarray(ids, object)]))
        finally:
            saved.model.add_items(table, 0)


def _new_ids(saved: SavedModel, files: ItemFiles, key: str) -> list[str]:
    """In the order of the files, each once."""
    found: dict[str, None] = {}
    for path in files.tables:
        found |= dict.fromkeys(ids_of(path, key, "--item-features").to_pylist())
    for file in files.vectors:
        found |= dict.fromkeys(_vector_ids(file, key))
    known = set(map(str, saved.item_ids.tolist()))
    return [item for item in found if item not in known]


# -- tables ----------------------------------------------------------------------------------------


def _from_tables(
    fields: Mapping[str, Field], files: ItemFiles, key: str, ids: Sequence[str], note: Note
) -> dict[str, Any]:
    """The fields that tables have, in the model's codes."""
    kinds = {name: field.kind for name, field in fields.items() if field.kind != "vector"}
    told = Told(kinds, files.separator or "", only=kinds)
    found: Fields = {}
    known = pa.array(ids, pa.string())
    for path in files.tables:
        if not set(ids_of(path, key, "--item-features").to_pylist()).isdisjoint(ids):
            found |= read_tables([path], (), key, "--item-features", known, told, lambda _: None)
    return {name: in_codes(fields[name], given, note) for name, given in found.items()}


def in_codes(field: Field, given: TableField, note: Note) -> Any:
    """A field of a table in the model's codes; what the model doesn't know of it is said."""
    if field.kind == "text":
        return Texts(*(given.arrays[part] for part in ("bytes", "offsets", "missing")))
    if field.kind == "number":
        return torch.from_numpy(np.asarray(given.arrays[""], np.float32))
    texts = [] if given.vocabulary is None else unpack_ids(given.vocabulary).tolist()
    codes = np.append(index_of(pa.array(texts, pa.string()), field.vocabulary), -1)
    used = np.unique(given.arrays["" if field.kind == "category" else "codes"]).tolist()
    said = [code for code in used if code >= 0]  # a file's other items have values, too
    unknown = [texts[code] for code in said if codes[code] < 0]
    if unknown:
        note(
            f"unknown to the model, so as good as missing: {len(unknown):,} of {len(said):,} "
            f"values of {field.name!r}, the first {unknown[0]!r}"
        )
    if field.kind == "category":
        return torch.from_numpy(codes[given.arrays[""]]).long()
    part = {name: torch.from_numpy(np.array(values)) for name, values in given.arrays.items()}
    translated = torch.from_numpy(codes[given.arrays["codes"]]).long()
    return Bags(translated, part["offsets"], part["missing"])


def unsaid(saved: SavedModel, field: Field, n: int, note: Note) -> Any:
    """What no file says: of what training counts there is nothing to count."""
    if field.name.startswith(STATISTICS):
        about = saved.model.catalogue
        return of_new_items(field.name, about.items.numbers(field.name), about.support, n)
    note(f"no file says {field.name!r} of them, which the model reads, so it is unknown")
    return _nothing(field, n)


def _nothing(field: Field, n: int) -> Any:
    """What stands for a field of which nothing is known."""
    missing = torch.ones(n, dtype=torch.bool)
    if field.kind == "category":
        return torch.full((n,), -1)
    if field.kind == "categories":
        none = torch.zeros(0, dtype=torch.int64)
        return Bags(none, torch.zeros(n + 1, dtype=torch.int64), missing)
    if field.kind == "vector":
        return Vectors(field.size, missing, lambda rows: torch.zeros(len(rows), field.size).half())
    return [None] * n if field.kind == "text" else torch.full((n,), torch.nan)


# -- vectors ---------------------------------------------------------------------------------------


def from_vectors(
    fields: Mapping[str, Field],
    files: ItemFiles,
    key: str,
    ids: Sequence[str],
    folder: Path,
    note: Note,
) -> dict[str, Any]:
    """The fields that files of vectors have; they are written into ``folder`` and read there.

    Raises:
        DataError: a file cannot be used, or the model reads no such vectors.
    """
    found = {}
    for number, file in enumerate(files.vectors):
        field = fields.get(file.name)
        if field is None or field.kind != "vector":
            there = [f.name for f in fields.values() if f.kind == "vector"]
            raise DataError(
                f"--item-vectors {file.name}: the model reads no vectors of that name, but "
                f"{', '.join(there) or 'none at all'}"
            )
        if set(_vector_ids(file, key)).isdisjoint(ids):
            continue
        place = folder / f"{number}.npy"
        missing = write_vectors(place, file, key, ids, lambda _: None)
        rows = np.load(place, mmap_mode="r")
        if rows.shape[1] != field.size:
            raise DataError(
                f"{file.path} holds vectors of {rows.shape[1]} dimensions, and the model reads "
                f"{field.size} in {file.name!r}"
            )
        if lacking := int(missing.sum()):
            note(f"{file.path}: {lacking:,} of {len(ids):,} new items without a vector")
        found[file.name] = Vectors(rows.shape[1], torch.from_numpy(missing), _reader(rows))
    return found


def _vector_ids(file: VectorFile, key: str) -> list[str]:
    return [name for names, _ in read_vectors(file, key) for name in names]


def _reader(rows: NDArray[np.float16]) -> Callable[[Tensor], Tensor]:
    def read(index: Tensor) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(rows[index.numpy()]))

    return read
