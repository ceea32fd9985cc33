"""Every type that Parquet knows, in every role that a column has: a value, or one sentence."""

from __future__ import annotations

import decimal
import importlib
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from paropt.data.features.columns import encode_column
from paropt.data.features.tables import Told, read_tables
from paropt.data.log.filtering.filters import of_kind
from paropt.data.log.values.ids import encode_ids, missing_ids
from paropt.data.log.values.times import to_milliseconds, to_numbers, unreadable_times
from paropt.data.reading.arrow import as_text
from paropt.data.reading.read import look_at, read_columns
from paropt.errors import DataError

SECOND = 1_396_860_669  # 2014-04-07 08:51:09 UTC
MS = [1000 * SECOND, 1000 * SECOND + 1000, 1000 * SECOND]


class Period(pa.ExtensionType):
    """As pandas has for months: its numbers are no seconds, and Arrow does not know it."""

    def __init__(self) -> None:
        super().__init__(pa.int64(), "pandas.period")

    def __arrow_ext_serialize__(self) -> bytes:
        return b'{"freq": "D"}'  # what pandas writes, which knows the type where it is imported


class OddPeriod(Period):
    """The same type, with what pandas cannot read of it."""

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


def test_a_type_that_pandas_cannot_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    pandas = importlib.import_module("pandas")
    pa.array(pandas.PeriodIndex(["2020-01"], freq="M"))  # from here on pandas reads the type
    odd = pa.ExtensionArray.from_storage(OddPeriod(), pa.array([1, 2], pa.int64()))
    pa.parquet.write_table(pa.table({"c": odd}), tmp_path / "log.parquet")
    with pytest.raises(DataError, match=r"log\.parquet is a Parquet file cut short or damaged"):
        look_at(tmp_path / "log.parquet")


UUIDS = [uuid.UUID(int=7), uuid.UUID(int=8), uuid.UUID(int=7)]


def ids(file: Path) -> Any:
    column, place = _column(file)
    codes, vocabulary = encode_ids(column, "c", place)
    assert not missing_ids(column, "c", place).any()
    return [vocabulary[int(code)].as_py() for code in codes]


def times(file: Path) -> Any:
    column, place = _column(file)
    found = to_milliseconds(column, "c", place).tolist()
    assert not unreadable_times(column, "c", place).any()
    return found


def order(file: Path) -> Any:
    column, place = _column(file)
    return to_numbers(column, "c", place, "order").tolist()


def event(file: Path) -> Any:
    """Which rows are of the kind that the first row is."""
    column, _ = _column(file)
    return of_kind(as_text(column), (str(as_text(column)[0].as_py()),))[0].tolist()


def kept(file: Path) -> Any:
    column, place = _column(file)
    found = encode_column(column, False, "c", place)
    if found.vocabulary is None:
        return found.values.tolist()
    return [found.vocabulary[code] for code in found.values]


def feature(file: Path) -> Any:
    """A field of the table of items: its values, or its kind where it has several values."""
    ids = pa.array(["0", "1", "2"])
    found = read_tables([file], [], "row", "--item", ids, Told(), print)["c"]
    values = found.arrays.get("")
    if values is None:
        return found.kind
    if found.vocabulary is None:
        return values.tolist()
    return [found.vocabulary[code] for code in values]


def _column(file: Path) -> Any:
    table, place = read_columns([look_at(file)], ["c"])
    return table.column("c"), place


ROLES: dict[str, Callable[[Path], Any]] = {
    "ids": ids,
    "times": times,
    "order": order,
    "event": event,
    "kept": kept,
    "feature": feature,
}


def texts(kind: pa.DataType) -> Callable[[str], pa.Array]:
    """Text of this type, as each role wants it."""
    spelt = {
        "ids": ["a7", "b8", "a7"],
        "times": ["2014-04-07 08:51:09", "2014-04-07 08:51:10", "2014-04-07 08:51:09"],
        "order": ["3", "4", "3"],
        "event": ["view", "cart", "view"],
        "kept": ["red", "tan", "red"],
        "feature": ["red", "tan", "red"],
    }

    def make(role: str) -> pa.Array:
        values = [text.encode() for text in spelt[role]]
        if pa.types.is_fixed_size_binary(kind):
            return pa.array(values, pa.binary(len(values[0])))
        if pa.types.is_dictionary(kind):
            return pa.array(values, pa.binary()).cast(pa.string()).dictionary_encode().cast(kind)
        return pa.array(values, pa.binary()).cast(kind)

    return make


def numbers(kind: pa.DataType, times_too: bool = True) -> Callable[[str], pa.Array]:
    """Small whole numbers of this type; as times, seconds since 1970 if they fit."""

    def make(role: str) -> pa.Array:
        values = [7, 8, 7]
        if role == "times" and times_too:
            values = [SECOND, SECOND + 1, SECOND]
        if pa.types.is_decimal(kind):
            return pa.array([decimal.Decimal(v) for v in values], kind)
        return pa.array(values, pa.int64()).cast(kind)

    return make


def moments(kind: pa.DataType) -> Callable[[str], pa.Array]:
    return lambda _: pa.array(MS, pa.timestamp("ms")).cast(kind, safe=False)


def fixed(array: pa.Array) -> Callable[[str], pa.Array]:
    return lambda _: array


AS_TEXT = {
    "ids": ["a7", "b8", "a7"],
    "times": MS,
    "order": [3, 4, 3],
    "event": [True, False, True],
    "kept": [b"red", b"tan", b"red"],
    "feature": [b"red", b"tan", b"red"],
}
AS_NUMBERS = {
    "ids": ["7", "8", "7"],
    "times": MS,
    "order": [7, 8, 7],
    "event": [True, False, True],
    "kept": [7, 8, 7],
    "feature": [7, 8, 7],
}
NO_DATE = [7000, 8000, 7000]
AS_MOMENTS = {
    "ids": "holds timestamp.* no ids; ids are integers or text",
    "times": MS,
    "order": MS,
    "event": [True, False, True],
    "kept": [b"2014-04-07 08:51:09", b"2014-04-07 08:51:10", b"2014-04-07 08:51:09"],
    "feature": [float(np.float32(ms / 86_400_000)) for ms in MS],  # days since 1970
}
DAY = [1_396_828_800_000] * 3
AS_DATES = {
    "ids": "holds date.* no ids; ids are integers or text",
    "times": DAY,
    "order": DAY,
    "event": [True, True, True],
    "kept": [b"2014-04-07"] * 3,
    "feature": [DAY[0] / 86_400_000] * 3,
}
UNKNOWN = dict.fromkeys(ROLES, "column 'c' holds .*; write it as text, numbers or timestamps")
NO_TEXT = dict.fromkeys(ROLES, "column 'c' holds .* that is no UTF-8 text; write it as text")

Expected = dict[str, Any]
TYPES: dict[str, tuple[Callable[[str], pa.Array], Expected]] = {}
for kind in [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.binary_view(),
    pa.binary(1),  # of the right width
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
    pa.dictionary(pa.int16(), pa.binary()),
]:
    TYPES[str(kind)] = (texts(kind), AS_TEXT)
for kind in [
    pa.int32(),
    pa.int64(),
    pa.uint32(),
    pa.uint64(),
    pa.float64(),
    pa.decimal32(9, 0),
    pa.decimal64(18, 2),
    pa.decimal128(38, 0),
    pa.decimal128(30, 6),
    pa.decimal256(70, 0),
]:
    small = str(kind) == "decimal32(9, 0)"
    TYPES[str(kind)] = (
        numbers(kind, not small),
        AS_NUMBERS | ({"times": NO_DATE} if small else {}),
    )
for kind in [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.float16(), pa.float32()]:
    TYPES[str(kind)] = (numbers(kind, False), AS_NUMBERS | {"times": NO_DATE})
for kind in [
    pa.timestamp("s"),
    pa.timestamp("ms"),
    pa.timestamp("us", "Asia/Tokyo"),
    pa.timestamp("ns"),
    pa.timestamp("ns", "UTC"),
]:
    fraction = {"s": "", "ms": ".000", "us": ".000000", "ns": ".000000000"}
    # Parquet has no whole seconds
    digits = fraction["ms" if kind.unit == "s" else kind.unit].encode()
    kept_texts = [text + digits for text in AS_MOMENTS["kept"]]
    TYPES[str(kind)] = (
        moments(kind),
        AS_MOMENTS | {"kept": kept_texts},
    )
TYPES |= {
    "date32": (moments(pa.date32()), AS_DATES),
    "date64": (moments(pa.date64()), AS_DATES),
    "uuid": (
        fixed(
            pa.ExtensionArray.from_storage(
                pa.uuid(), pa.array([u.bytes for u in UUIDS], pa.binary(16))
            )
        ),
        {
            "ids": [str(u) for u in UUIDS],
            "times": "column 'c': '0{8}-.*' is no time",
            "order": "column 'c': '0{8}-.*' is no order",
            "event": [True, False, True],
            "kept": [str(u).encode() for u in UUIDS],
            "feature": [str(u).encode() for u in UUIDS],
        },
    ),
    "bool": (
        fixed(pa.array([True, False, True])),
        {
            "ids": "holds bool, which are no ids; ids are integers or text",
            "times": "holds bool, which are no times; write epochs, timestamps or text",
            "order": r"holds bool, not a number \(order\)",
            "event": [True, False, True],
            "kept": [b"true", b"false", b"true"],
            "feature": [1, 0, 1],
        },
    ),
    "uint64 above int64": (
        fixed(pa.array([2**63 + 1, 2**63 + 2, 2**63 + 1], pa.uint64())),
        {
            "ids": [str(2**63 + 1), str(2**63 + 2), str(2**63 + 1)],
            "times": "is too far from 1970|is not in the unit",
            "order": [2**63 + 1, 2**63 + 2, 2**63 + 1],
            "event": [True, False, True],
            "kept": "whole numbers of which float32 tells 1 apart",
            "feature": "whole numbers of which float32 tells 1 apart",
        },
    ),
    "decimal above int64": (
        fixed(pa.array([decimal.Decimal(10**30 + n) for n in (1, 2, 1)], pa.decimal128(38, 0))),
        {
            "ids": [str(10**30 + 1), str(10**30 + 2), str(10**30 + 1)],
            "times": "is not in the unit",
            "order": [1e30] * 3,
            "event": [True, False, True],
            "kept": [float(np.float32(1e30))] * 3,
            "feature": [float(np.float32(1e30))] * 3,
        },
    ),
    "decimal with a fraction": (
        fixed(pa.array([decimal.Decimal(f"{SECOND}.25")] * 3, pa.decimal128(18, 6))),
        {
            "ids": "column 'c': 1396860669.25 is no id",
            "times": [1000 * SECOND + 250] * 3,
            "order": [SECOND + 0.25] * 3,
            "event": [True, True, True],
            "kept": [float(np.float32(SECOND))] * 3,
            "feature": [float(np.float32(SECOND))] * 3,
        },
    ),
    "null": (
        fixed(pa.array([None, None, None], pa.null())),
        {
            "ids": "column 'c': the id is missing",
            "times": "column 'c': the time is missing",
            "order": "column 'c': the order is missing",
            "event": LookupError,
            "kept": "nan",
            "feature": "nan",
        },
    ),
    "bytes": (fixed(pa.array([b"\xff", b"\xfe", b"\xff"], pa.binary())), NO_TEXT),
    "16 bytes": (fixed(pa.array([b"\xff" * 16] * 3, pa.binary(16))), NO_TEXT),
    "text that is none": (
        fixed(pa.array([b"\xff", b"\xfe", b"\xff"], pa.binary())),  # written as string below
        NO_TEXT | dict.fromkeys(ROLES, "holds text that is not UTF-8|no UTF-8 text"),
    ),
    "period": (
        fixed(pa.ExtensionArray.from_storage(Period(), pa.array([1, 2, 1], pa.int64()))),
        UNKNOWN,
    ),
    "time32": (fixed(pa.array([1, 2, 1], pa.time32("ms"))), UNKNOWN),
    "time64": (fixed(pa.array([1, 2, 1], pa.time64("us"))), UNKNOWN),
    "duration": (fixed(pa.array([1, 2, 1], pa.duration("s"))), UNKNOWN),
    "list": (
        fixed(pa.array([[1], [2], []], pa.list_(pa.int64()))),
        UNKNOWN | {"feature": "categories"},
    ),
    "struct": (fixed(pa.array([{"a": 1}] * 3)), UNKNOWN),
    "map": (fixed(pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64()))), UNKNOWN),
}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", TYPES)
def test_every_type_in_every_role(tmp_path: Path, name: str, role: str) -> None:
    make, expected = TYPES[name]
    file = tmp_path / "log.parquet"
    pa.parquet.write_table(pa.table({"row": [0, 1, 2], "c": make(role)}), file)
    wanted = expected[role]
    if wanted == "categories":
        assert ROLES[role](file) == wanted
    elif wanted == "nan":
        assert np.isnan(ROLES[role](file)).all()
    elif isinstance(wanted, str):
        with pytest.raises(DataError, match=wanted) as refused:
            ROLES[role](file)
        assert str(refused.value).startswith(str(file))
        assert "\n" not in str(refused.value)
    elif wanted is LookupError:
        with pytest.raises(LookupError):
            ROLES[role](file)
    else:
        assert ROLES[role](file) == wanted


@pytest.mark.parametrize(
    ("kind", "bound"), [(pa.float16(), 2**11), (pa.float32(), 2**24), (pa.float64(), 2**53)]
)
def test_floats_that_stand_for_several_ids_are_refused(
    tmp_path: Path, kind: pa.DataType, bound: int
) -> None:
    file = tmp_path / "log.parquet"

    def found(*values: float) -> Any:
        array = pa.array(map(float, values), pa.float64()).cast(kind)
        pa.parquet.write_table(pa.table({"c": array}), file)
        return ids(file)

    assert found(5, bound - 1, 1 - bound) == ["5", str(bound - 1), str(1 - bound)]
    for wrong in (bound, -bound, 2 * bound, float("inf"), float("-inf")):
        with pytest.raises(DataError, match=r"log\.parquet:2: column 'c': .* other ids too"):
            found(1, wrong)
    with pytest.raises(DataError, match=r"log\.parquet:3: column 'c': the id is missing"):
        found(1, 2, float("nan"))
    with pytest.raises(DataError, match=r"log\.parquet:2: column 'c': 1.5 is no id"):
        found(1, 1.5)


def test_floats_too_coarse_for_times_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    pa.parquet.write_table(pa.table({"c": pa.array([float(SECOND)], pa.float32())}), file)
    with pytest.raises(DataError, match=r"column 'c' holds float32, which rounds times"):
        times(file)


def test_files_of_different_types_are_one_log(tmp_path: Path) -> None:
    for name, kind in (("a", pa.int32()), ("b", pa.large_string()), ("c", pa.uint64())):
        table = pa.table({"c": pa.array([7, 8]).cast(kind)})
        pa.parquet.write_table(table, tmp_path / f"{name}.parquet")
    (tmp_path / "d.csv").write_text("c,x\n7,1\n9,1\n")
    layouts = [look_at(path) for path in sorted(tmp_path.iterdir())]
    table, place = read_columns(layouts, ["c"])
    codes, vocabulary = encode_ids(table.column("c"), "c", place)
    assert [vocabulary[int(code)].as_py() for code in codes] == [*["7", "8"] * 3, "7", "9"]
