"""A saved model that another training begins with."""

from __future__ import annotations

from pathlib import Path

from paropt.training.fitting.earlier import Earlier, keyed_rows
from paropt.training.saved_model import optimiser_state
from paropt.training.saved_model.header import sha256
from paropt.training.saved_model.saved import load_model


def read_earlier(directory: Path, keep_optimiser: bool = False) -> Earlier:
    """A saved model as a beginning, with what its optimiser had gathered if that is asked for.

    Raises:
        DataError: it is none, or keeps no such state.
        ModelError: no training can begin with a model of its kind.
    """
    saved = load_model(directory)
    name = str(saved.meta["model"])
    rows = keyed_rows(name, saved.model)
    digest = sha256(directory / optimiser_state.WEIGHTS)
    gathered = None
    if keep_optimiser:
        gathered = optimiser_state.read_optimiser(directory)
        digest = f"{digest}+{sha256(directory / optimiser_state.FILE)}"
    return Earlier(
        name=name,
        params=saved.model.params,
        item_ids=saved.item_ids.tolist(),
        weights=saved.model.state_dict(),
        rows=rows,
        digest=digest,
        catalogue=saved.model.catalogue,
        optimiser=gathered,
        last_event=saved.meta.get("last_event"),
    )
