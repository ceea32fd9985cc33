"""Splits of a dataset as a saved model reads them: its own data, or others by their ids."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from paropt.data.dataset import VIEWS, Dataset
from paropt.data.encoding import stranger_numbers
from paropt.errors import DataError
from paropt.training.batches.catalogue import facts
from paropt.training.batches.events import EventArrays, Events, known_events
from paropt.training.registry import Needs, lacks
from paropt.training.saved_model.saved import SavedModel


def is_own(saved: SavedModel, dataset: Dataset) -> bool:
    """Whether the model was trained on this very dataset."""
    return dataset.fingerprint == str(saved.meta["fingerprint"])


def foreign(saved: SavedModel, dataset: Dataset, directory: Path) -> str:
    """What to say where it is another one."""
    return (
        f"{dataset.path} is not what {directory} was trained on "
        f"({dataset.fingerprint[:12]}, not {saved.meta['fingerprint'][:12]}); "
        "items are matched by their ids"
    )


def split_events(saved: SavedModel, dataset: Dataset, name: str) -> EventArrays:
    """A split as the model numbers items, users and codes; items unknown to it lie beyond.

    Raises:
        DataError: the model knows none of its items, or the data lack what the model reads.
    """
    if is_own(saved, dataset):
        return dataset.split(name, VIEWS[saved.meta["split"]][0])
    return _recoded(dataset.split(name), dataset, saved)


def _recoded(split: EventArrays, dataset: Dataset, saved: SavedModel) -> Events:
    """Of data that the model was not trained on."""
    theirs = pa.array(dataset.item_ids(), pa.string())
    found = pc.index_in(theirs, value_set=pa.array(saved.item_ids, pa.string()))
    index = pc.fill_null(found, saved.n_items).to_numpy(zero_copy_only=False).astype(np.int32)
    if saved.knowledge.needs.unknown_items:
        unknown = index == saved.n_items
        strange = theirs.filter(pa.array(unknown)).to_pylist()
        index[unknown] = stranger_numbers(strange, saved.n_items)
    if (index >= saved.n_items).all():
        raise DataError(
            f"the model knows none of the {len(theirs):,} items of {dataset.path}: they are written"
            f" as {theirs[0].as_py()!r} there, and as {str(saved.item_ids[0])!r} in the model;"
            " is this its data?"
        )
    knowledge, needs = saved.knowledge, saved.knowledge.needs
    kinds = {name: (kept.kind,) for name, kept in knowledge.columns.items()}
    of_events = Needs(columns=kinds, user_index=needs.who)
    if lacking := lacks(of_events, facts(dataset.view("search"))):
        raise DataError(f"{saved.meta['model']} {lacking}")
    columns = {
        name: np.append(knowledge.encoded(name, _words(kept.vocabulary)), np.int32(-1))
        for name, kept in dataset.fields("events").items()
        if name in needs.columns and kept.kind == "category"
    }
    users = None
    if needs.who:
        users = np.append(knowledge.users(_words(dataset.user_ids())), np.int32(-1))
    events = known_events(split, dataset.n_items("test"), needs)
    return events.recode(index, columns, users)


def _words(words: Iterable[str]) -> pa.Array:
    return pa.array(list(words), pa.string())
