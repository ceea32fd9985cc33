"""What a saved model keeps of the data that it was trained on, and how it reads new data by it.

Codes, numbers and several codes of items and users are small, and are kept as they are. Vectors
and texts of items aren't: of a vector's field only which items have none. A model that ranks by
vectors keeps what it worked out of them (:meth:`models.parts.contract.Model.worked_out`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from paropt.data.log.values.truths import truths_of
from paropt.data.reading.arrow import without_zeros
from paropt.training.batches.catalogue import Features
from paropt.training.batches.events import NOTHING
from paropt.training.registry import Bags, Catalogue, Facts, Field, Model, Needs, Table, Vectors
from paropt.training.saved_model.header import sources_of

if TYPE_CHECKING:
    from paropt.data.dataset import View

_SIZES = ("n_items", "n_sessions", "n_events", "longest", "has_times", "n_users")
_TABLES = ("columns", "items", "users")


@dataclass(frozen=True)
class Knowledge:
    """What of new data a model can read: columns by name with the codes known, ids of users.

    ``user_key`` is the column that users came from; None where each session is one. ``sources``
    are the columns' own names in the log that the model was trained on; a part (long or short) is
    no column of a log.
    """

    needs: Needs = NOTHING
    columns: Mapping[str, Field] = field(default_factory=dict)
    known: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    user_ids: Sequence[str] = ()
    user_key: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, name: str, values: pa.ChunkedArray) -> NDArray[Any]:
        """A column's values as training had them [n]: codes int32 or numbers float32."""
        if self.columns[name].kind == "number":
            return numbers(values)
        codes = index_of(values, self.columns[name].vocabulary)
        return np.where(np.append(self.known[name], False)[codes], codes, -1).astype(np.int32)

    def users(self, ids: pa.Array) -> NDArray[np.int32]:
        """The users' indices [n], −1 where unknown."""
        return index_of(ids, self.user_ids)


def numbers(values: pa.ChunkedArray) -> NDArray[np.float32]:
    """Numbers float32; NaN where there is none."""
    found = pc.cast(values, pa.string())
    number = pc.match_substring_regex(found, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
    kept = pc.if_else(pc.fill_null(number, False), pc.utf8_trim_whitespace(found), None)
    return np.asarray(pc.cast(kept, pa.float32()).to_numpy(zero_copy_only=False), np.float32)


def index_of(values: pa.Array | pa.ChunkedArray, words: Sequence[str]) -> NDArray[np.int32]:
    """Where each value is among ``words`` [n] int32, −1 where it isn't.

    Blanks around a value are none of it, a whole number may be written as ``7.0``, and true and
    false, if the words are nothing else, in other ways.
    """
    if not len(words):
        return np.full(len(values), -1, np.int32)
    known = pa.array(list(words), pa.string())
    text = pc.cast(values, pa.string())
    found = pc.fill_null(pc.index_in(text, value_set=known), -1).to_numpy(zero_copy_only=False)
    found = np.array(found, np.int32)
    missed = found < 0
    if missed.any():
        found[missed] = _otherwise(text.filter(pa.array(missed)), known)
    return found


def _otherwise(text: pa.Array | pa.ChunkedArray, known: pa.Array) -> NDArray[np.int32]:
    """Where texts are that stand there in other spellings [n], −1 where they don't."""
    encoded = pc.dictionary_encode(text)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    trimmed = pc.utf8_trim_whitespace(encoded.dictionary)
    spelt = (trimmed, without_zeros(trimmed), _of_truths(trimmed, known))
    places = [pc.index_in(words, value_set=known) for words in spelt]
    place = np.append(pc.fill_null(pc.coalesce(*places), -1).to_numpy(zero_copy_only=False), -1)
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return np.asarray(place[codes], np.int32)


def _of_truths(texts: pa.Array, known: pa.Array) -> pa.Array:
    """The known words for texts that mean true or false: ``True`` of a CSV for JSON's ``true``.

    Null for other texts, and where words are known that mean neither.
    """
    meant = truths_of(known)
    if meant.null_count:
        return pa.nulls(len(texts), pa.string())
    words = known.take(pc.index_in(pa.array([True, False]), value_set=meant))
    return words.take(pc.index_in(truths_of(texts), value_set=pa.array([True, False])))


# -- into a saved model --------------------------------------------------------------------------


def facts_as_json(facts: Facts) -> dict[str, Any]:
    """Facts as ``model.json`` has them."""
    tables = {
        table: {f.name: [f.kind, f.size] for f in getattr(facts, table).values()}
        for table in _TABLES
    }
    return {name: getattr(facts, name) for name in _SIZES} | tables


def as_tensors(model: Model, view: View) -> dict[str, Tensor]:
    """All that the model is built from and reads new data by."""
    about, needs = model.catalogue, model.needs(model.params)
    features = about.features.read if isinstance(about.features, Features) else about.features
    tensors = {f"features/{name}": values for name, values in features.items()}
    for table in ("items", "users"):
        for part, values in _rows(getattr(about, table)):
            tensors[f"{table}/{part}"] = values
        for name, kept in getattr(about, table).fields.items():
            tensors |= _words(f"words/{table}/{name}", kept.vocabulary)
    for name in needs.columns:
        kept = about.facts.columns[name]
        tensors |= _words(f"words/columns/{name}", kept.vocabulary)
        if kept.kind == "category":
            known = view.dataset.known_codes(name, view.train.name)[:-1]
            tensors[f"known/{name}"] = torch.from_numpy(known)
    if needs.who:
        tensors |= _words("words/ids", view.dataset.user_ids()[: view.n_users].tolist())
    return tensors


def _rows(table: Table) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []
    for name, kept in table.fields.items():
        if kept.kind == "category":
            found.append((f"{name}/codes", table.codes(name)))
        elif kept.kind == "number":
            found.append((f"{name}/numbers", table.numbers(name)))
        elif kept.kind == "categories":
            bags = table.bags(name)
            found += [(f"{name}/codes", bags.codes), (f"{name}/offsets", bags.offsets)]
            found.append((f"{name}/missing", bags.missing))
        elif kept.kind == "vector":
            found.append((f"{name}/missing", table.vectors(name).missing))
    return found


def _words(name: str, words: Sequence[str]) -> dict[str, Tensor]:
    """Texts as UTF-8 one after the other, and where each begins."""
    if not len(words):
        return {}
    encoded = [word.encode() for word in words]
    offsets = np.concatenate(([0], np.cumsum([len(one) for one in encoded], dtype=np.int64)))
    stored = np.frombuffer(b"".join(encoded), np.uint8)
    return {
        f"{name}/bytes": torch.from_numpy(stored.copy()),
        f"{name}/offsets": torch.from_numpy(offsets),
    }


# -- out of it -----------------------------------------------------------------------------------


def facts_of(written: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Facts:
    """The reverse of :func:`facts_as_json`, with the vocabularies that were kept."""
    facts: dict[str, Any] = {name: written[name] for name in _SIZES if name in written}
    for table in _TABLES:
        facts[table] = {
            name: Field(name, kind, size, _unpacked(f"words/{table}/{name}", tensors))
            for name, (kind, size) in written.get(table, {}).items()
        }
    return Facts(**facts)


def catalogue_of(facts: Facts, tensors: Mapping[str, Tensor]) -> Catalogue:
    """What the model was built from, but for vectors and texts."""
    features = {
        name.removeprefix("features/"): values
        for name, values in tensors.items()
        if name.startswith("features/")
    }
    items, users = (_table(of, getattr(facts, of), tensors) for of in ("items", "users"))
    return Catalogue(facts, tensors["support"], features, items, users)


def knowledge_of(model: Model, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Knowledge:
    """What a rebuilt model can read of new data; ``meta`` is its ``model.json``."""
    needs, facts = model.needs(model.params), model.catalogue.facts
    known = {
        name.removeprefix("known/"): values.numpy()
        for name, values in tensors.items()
        if name.startswith("known/")
    }
    columns = {name: facts.columns[name] for name in needs.columns}
    log = meta.get("log") or {}
    sources = sources_of(columns, log)
    ids, user_key = _unpacked("words/ids", tensors), meta.get("user_key")
    return Knowledge(needs, columns, known, ids, user_key, sources)


def _table(of: str, fields: Mapping[str, Field], tensors: Mapping[str, Tensor]) -> Table:
    def read(kept: Field) -> Any:
        part = {
            name.removeprefix(f"{of}/{kept.name}/"): values
            for name, values in tensors.items()
            if name.startswith(f"{of}/{kept.name}/")
        }
        if kept.kind == "vector":
            return Vectors(kept.size, part["missing"], None)
        if kept.kind == "categories":
            return Bags(part["codes"], part["offsets"], part["missing"])
        if kept.kind == "text":
            raise RuntimeError(f"a saved model holds no texts, and {kept.name!r} is one")
        return part["codes" if kept.kind == "category" else "numbers"]

    return Table(fields, read)


def _unpacked(name: str, tensors: Mapping[str, Tensor]) -> Sequence[str]:
    if f"{name}/bytes" not in tensors:
        return ()
    stored = tensors[f"{name}/bytes"].numpy().tobytes()
    edges = tensors[f"{name}/offsets"].tolist()
    return [stored[a:b].decode() for a, b in itertools.pairwise(edges)]
