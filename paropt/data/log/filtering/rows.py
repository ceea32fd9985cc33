"""A log's rows as they were read, without those that are no events, counted step by step."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from paropt.data.events import Bools
from paropt.data.log.command import option_text
from paropt.data.log.filtering.filters import filters, named_ids, of_kind, raw_codes
from paropt.data.log.filtering.funnel import Funnel, Step
from paropt.data.log.options import Note, Recipe
from paropt.data.reading.arrow import as_text
from paropt.data.reading.read import Place
from paropt.errors import DataError


def sifted(
    recipe: Recipe, table: pa.Table, place: Place, funnel: Funnel, note: Note
) -> tuple[pa.Table, Place, Bools | None]:
    """The rows that the filters leave, counted where any do; and which are of the wanted kind.

    Raises:
        DataError: none is left.
    """
    schema, options = recipe.schema, recipe.options
    kept = _kept(recipe, table, note)
    applied = list(filters(table, place, schema, options, kept))
    for one in named_ids(table, schema, options.drop_ids)[1] if options.drop_ids else ():
        note(f"warning: no row has {one!r} in {schema.session_key!r} or {schema.item_key!r}")
    if kept is None and not applied and not place.skipped:
        return table, place, None
    session, item = (raw_codes(table.column(key)) for key in (schema.session_key, schema.item_key))

    def count(name: str, option: str, left: Bools) -> None:
        funnel.count_rows(name, option, session[left], item[left])

    left = np.ones(table.num_rows, bool)
    count("read", "", left)
    if place.skipped:
        funnel.add_rows("read", len(place.skipped))
        count("bad rows", option_text("skip_bad_rows", True), left)
    if kept is not None:
        count("kind", option_text("events", schema.events), kept)
    for step in applied:
        left = left & step.leaves
        count(step.name, step.option, left if kept is None else left & kept)
    if emptied := funnel.emptied_by():
        raise DataError(none_left(recipe, table.num_rows, emptied))
    return table.filter(pa.array(left)), place.of(left), None if kept is None else kept[left]


def none_left(recipe: Recipe, n_rows: int, step: Step) -> str:
    """What to say where a step has left nothing."""
    return (
        f"{recipe.layouts[0].path}: none of {n_rows} events is left after the step"
        f" {step.name!r}: {step.option} decides that"
    )


def _kept(recipe: Recipe, table: pa.Table, note: Note) -> Bools | None:
    schema = recipe.schema
    if not schema.event_column:
        return None
    try:
        kept, absent = of_kind(as_text(table.column(schema.event_column)), schema.events)
    except LookupError as error:
        raise DataError(
            f"no row of {recipe.layouts[0].path} has {' or '.join(schema.events)} in column"
            f" {schema.event_column!r}; it has {error}"
        ) from None
    if absent:
        words = " or ".join(map(repr, absent))
        note(f"warning: no row has {words} in column {schema.event_column!r}")
    return kept
