"""Whatever another program wrote into rows: a result without them, or one sentence."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import pytest
from damaged import TABLES, Cursor, Shop
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from paropt.errors import ParoptError, StorageUnreachable

pytestmark = pytest.mark.postgres

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
ODD = [
    "", "{", "null", "[]", "{}", "5", '"x"', "NaN", "1e999", "-1e308", "[" * 3000, '"\\ud800"',
    '{"a": ' * 60 + "1" + "}" * 60, '{"root": 0}', "1" * 5000, json.dumps("x" * 100_000),
    '{"\\u0000": "\\u0000"}', '{"mrr@20": ["0.5"]}', '{"mrr@20": 0.5}', '{"token": 5}',
]  # fmt: skip
NUMBERS = ["'NaN'", "'Infinity'", "1e308", "-1", "0", "NULL"]
TIMES = ["NULL", "'infinity'", "'-infinity'", "'20000-01-01'", "'0044-03-15 BC'", "now()"]
COLUMNS = [
    ("trials", "number", ["NULL", "-1", "0", "2147483647"]),
    ("trials", "state", [f"'{state}'" for state in ("COMPLETE", "FAIL", "PRUNED", "WAITING")]),
    ("trials", "datetime_start", TIMES),
    ("trials", "datetime_complete", TIMES),
    ("trial_values", "value", NUMBERS),
    ("trial_values", "objective", ["1", "-1"]),
    ("trial_params", "param_value", NUMBERS),
    ("trial_params", "distribution_json", ["NULL", "''", "'{}'"]),
    ("trial_intermediate_values", "intermediate_value", NUMBERS),
    ("paropt_slot", "state", ["'5'", "'[]'", "'{\"trial\": \"x\", \"value\": 1e999}'"]),
    ("paropt_slot", "beaten_at", TIMES[1:]),
    ("paropt_slot", "started", TIMES[1:]),
    ("paropt_slot", "pid", ["-1", "9223372036854775807"]),
    ("paropt_lease", "beaten_at", TIMES[1:]),
    ("paropt_lease", "beats", ["-1", "9223372036854775807"]),
    ("paropt_lease", "trial_id", ["-1", "9223372036854775807"]),
]  # fmt: skip
ATTRIBUTES = {"trial_system_attributes": "trial_id", "study_user_attributes": "study_id"}


@st.composite
def changed(draw: st.DrawFn, document: Any) -> str:
    """A JSON document with one part replaced or removed."""
    root = {"": copy.deepcopy(document)}
    node: Any = root
    key: Any = ""
    while isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 4)):
        node = node[key]
        key = draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
    if node is root or draw(st.integers(0, 3)):
        node[key] = draw(VALUES)
    else:
        del node[key]
    return json.dumps(root[""])


TRIALS = ["trial_system_attributes"] * 4 + ["column"] * 2 + ["row"]


def damage(cursor: Cursor, data: st.DataObject) -> None:
    """Something is done to the study, or to several of its trials and slots."""
    if data.draw(st.integers(0, 3)) == 0:
        damage_row(cursor, data, "study_user_attributes")
        return
    for _ in range(data.draw(st.integers(2, 4))):
        damage_row(cursor, data, data.draw(st.sampled_from(TRIALS)))


def damage_row(cursor: Cursor, data: st.DataObject, kind: str) -> None:
    if kind == "column":
        table, column, values = data.draw(st.sampled_from(COLUMNS))
        value = data.draw(st.sampled_from(values))
        row = one_row(cursor, table, data)
        cursor.execute(f"UPDATE {table} SET {column} = {value} WHERE ctid = %s", (row,))
    elif kind == "row":
        table = data.draw(st.sampled_from([table for table in TABLES[2:] if table != "trials"]))
        cursor.execute(f"DELETE FROM {table} WHERE ctid = %s", (one_row(cursor, table, data),))
    else:
        cursor.execute(f"SELECT ctid, value_json FROM {kind} ORDER BY {ATTRIBUTES[kind]}, key")
        row, text = data.draw(st.sampled_from(cursor.fetchall()))
        try:
            mutant = changed(json.loads(text))
        except (ValueError, RecursionError):  # it was damaged before
            mutant = st.just("")
        new = data.draw(st.sampled_from(ODD) | mutant)
        cursor.execute(f"UPDATE {kind} SET value_json = %s WHERE ctid = %s", (new, row))


def one_row(cursor: Cursor, table: str, data: st.DataObject) -> Any:
    cursor.execute(f"SELECT ctid FROM {table} ORDER BY 1")
    rows = cursor.fetchall()
    return rows[data.draw(st.integers(0, len(rows) - 1))][0] if rows else None


@settings(
    max_examples=int(os.environ.get("PAROPT_FUZZ", "8")),
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],  # an example takes a moment, so a bug is not made smaller
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_whatever_stands_in_a_row(shop: Shop, data: st.DataObject) -> None:
    try:
        damage(shop.cursor, data)
        before = shop.rows()
        shop.look()
        shop.show()
        assert shop.rows() == before, "who only looks changes nothing"
        try:
            shop.work()
        except StorageUnreachable:
            raise
        except ParoptError as error:
            assert "\n" not in str(error)
    finally:
        shop.restore()
