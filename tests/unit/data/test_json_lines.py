"""JSON lines, and directories of Parquet files, as event files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.data.reading.read import look_at, read_columns
from paropt.errors import DataError


def read(path: Path, *columns: str) -> list[tuple[object, ...]]:
    table, _ = read_columns([look_at(path)], columns)
    return list(zip(*(table.column(name).to_pylist() for name in columns), strict=True))


def written(path: Path, text: str) -> Path:
    raw = text.encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


# -- JSON lines -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.jsonl", "log.jsonl.gz", "log.json"])
def test_numbers_are_read_as_they_are_written(tmp_path: Path, name: str) -> None:
    """Nothing is rounded on the way: 2⁵³ + 1 is another id than 2⁵³, and 7.0 is not 7."""
    log = written(
        tmp_path / name,
        '\ufeff{"s": 9007199254740993, "i": "a\\"\\n\\u00e9", "nested": {"x": [1]}}\n'
        "\r\n"
        '{"i": 7.0, "s": "007", "late": true}\r\n'
        ' {"s": null, "i": 1e5, "late": false} \n'
        '{"s": 1, "t": NaN}',
    )
    assert look_at(log).names == ("s", "i", "nested", "late", "t")
    assert read(log, "s", "i", "late") == [
        ("9007199254740993", 'a"\né', None),
        ("007", "7.0", "true"),
        (None, "1e5", "false"),
        ("1", None, None),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"s": 1', "no complete JSON object"),
        ("[1, 2]", "no JSON object"),
        ('{"s": [1]}', "column 's': holds a list or an object"),
        ('{"s": {"a": 1}}', "column 's': holds a list or an object"),
        ('{"s": "\\ud800"}', "column 's': .* is no text"),
        ("{" * 9999, "no complete JSON object"),
        ("\ud800", "not UTF-8 text"),
    ],
)
def test_a_line_that_is_no_event_is_named_or_left_out(
    tmp_path: Path, line: str, reason: str
) -> None:
    log = written(tmp_path / "log.jsonl", f'{{"s": 1}}\n\n{{"s": 2}}\n{line}\n{{"s": 3}}\n')
    with pytest.raises(DataError, match=rf"log\.jsonl:4: {reason}"):
        read(log, "s")
    table, place = read_columns([look_at(log)], ["s"], skip_bad_rows=True)
    assert table.column("s").to_pylist() == ["1", "2", "3"]
    assert [row.line for row in place.skipped] == [4]
    with pytest.raises(DataError, match=r"log\.jsonl:5: column 's': is wrong"):
        raise place.fail(2, "s", "is wrong")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[{"s": 1}]', r"is a JSON array; write one object per line \(jq -c '\.\[\]'"),
        ('{\n  "s": 1\n}\n', r"log\.jsonl:1: no complete JSON object; write one object per line"),
        ('{"s": 1}\n', "log.jsonl has no column 't'; it has s"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    log = written(tmp_path / "log.jsonl", text)
    with pytest.raises(DataError, match=sentence):
        read(log, "t")


def test_gzipped_json_that_is_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"s": 1}\n' * 50_000)
    (tmp_path / "log.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is cut short or damaged"):
        read(tmp_path / "log.jsonl.gz", "s")


# -- directories ----------------------------------------------------------------------------

EVENTS = pa.table(
    {
        "SessionId": [s for s in range(60) for _ in range(3)],
        "ItemId": [(s + step) % 6 for s in range(60) for step in range(3)],
        "Time": [1_400_000_000 + s * 7_200 + step for s in range(60) for step in range(3)],
        "day": [s // 12 for s in range(60) for _ in range(3)],
    }
)


def test_a_directory_is_the_same_log_however_it_is_divided(tmp_path: Path) -> None:
    """Twelve parts, so that part.10 must not come before part.2; and one directory per day."""
    one, parts, hive = (tmp_path / name for name in ("one.parquet", "parts", "hive"))
    pa.parquet.write_table(EVENTS, one)
    parts.mkdir()
    for n in range(12):
        pa.parquet.write_table(EVENTS.slice(15 * n, 15), parts / f"part.{n}.parquet")
    pa.parquet.write_table(EVENTS.slice(0, 0), parts / "part.12.parquet")
    for name in ("_SUCCESS", ".part.0.parquet.crc", "_metadata"):
        (parts / name).write_bytes(b"crc")
    pa.dataset.write_dataset(
        EVENTS, hive, format="parquet", partitioning=["day"], partitioning_flavor="hive"
    )
    (hive / "_SUCCESS").touch()
    columns = ("SessionId", "ItemId", "Time")
    assert read(parts, *columns) == read(one, *columns)
    assert sorted(map(str, read(hive, "SessionId", "day"))) == sorted(
        str((session, str(day))) for session, day in read(one, "SessionId", "day")
    )
    found = set()
    for path in (one, parts, hive):
        dataset = prepare([path], tmp_path / f"{path.name}.out", options=Options(test_days=1))
        found.add(dataset.fingerprint)
    assert len(found) == 1
    kept = Options(keep_columns=("day",))
    assert prepare([hive], tmp_path / "kept", options=kept).fingerprint not in found


def test_rows_of_a_directory_are_named_by_their_file(tmp_path: Path) -> None:
    for day, session in (("1", "a"), ("x%20y", ""), ("__HIVE_DEFAULT_PARTITION__", "b")):
        folder = tmp_path / "log" / f"day={day}"
        folder.mkdir(parents=True)
        pa.parquet.write_table(pa.table({"s": ["z", session]}), folder / "0.parquet")
    table, place = read_columns([look_at(tmp_path / "log")], ["s", "day"])
    assert table.column("day").to_pylist() == ["1", "1", None, None, "x y", "x y"]
    assert place.files(6).tolist() == [0] * 6
    row = table.column("s").to_pylist().index("")
    with pytest.raises(DataError, match=r"log/day=x%20y/0\.parquet:2: column 's': is missing"):
        raise place.fail(row, "s", "is missing")


def test_directories_that_are_no_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    with pytest.raises(DataError, match="log is a directory without Parquet files"):
        look_at(log)
    (log / "a.csv").write_text("s,i\n1,2\n")
    with pytest.raises(DataError, match="log is a directory without Parquet files"):
        look_at(log)
    pa.parquet.write_table(pa.table({"s": [1]}), log / "b.parquet")
    with pytest.raises(DataError, match=r"a\.csv is no Parquet file, as others in .*log are"):
        look_at(log)
    (log / "a.csv").unlink()
    pa.parquet.write_table(pa.table({"s": pa.array([], pa.int64())}), log / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has no events"):
        read_columns([look_at(log)], ["s"])


@pytest.mark.parametrize(
    ("own", "whose"),
    [
        ("_delta_log/0.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Apache Hudi"),
        ("metadata/v1.metadata.json", "Apache Iceberg"),
    ],
)
def test_a_table_with_versions_is_refused(tmp_path: Path, own: str, whose: str) -> None:
    """Its files hold rows that were deleted or written anew since."""
    log = tmp_path / "log"
    log.mkdir()
    pa.parquet.write_table(pa.table({"s": [1]}), log / "a.parquet")
    assert look_at(log).names == ("s",)
    (log / own).parent.mkdir()
    (log / own).write_text("{}")
    with pytest.raises(DataError, match=f"is a table of {whose}, with files of versions"):
        look_at(log)


def test_numbers_of_files_that_differ_in_type_are_the_same_numbers(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    of_float = pa.table({"s": [20_000_000_100.0, 7.0], "t": [1, 2]})
    pa.parquet.write_table(of_float, log / "a.parquet")
    pa.parquet.write_table(pa.table({"s": ["20000000100", "x"], "t": [3, 4]}), log / "b.parquet")
    table, _ = read_columns([look_at(log)], ["s", "t"])
    assert table.column("s").to_pylist() == ["20000000100", "7", "20000000100", "x"]
    assert table.column("t").to_pylist() == [1, 2, 3, 4], "alike in both, so it stays a number"
    pa.parquet.write_table(
        pa.table({"s": pa.array(np.float32([20_000_101])), "t": [1]}), log / "a.parquet"
    )
    with pytest.raises(DataError, match=r"a\.parquet: column 's' holds float, which is not exact"):
        read_columns([look_at(log)], ["s", "t"])
    for small in (np.float16([2.0, np.inf]), np.float32([2.0**25, 0.5])):
        pa.parquet.write_table(pa.table({"s": pa.array(small), "t": [1, 2]}), log / "a.parquet")
        pa.parquet.write_table(pa.table({"s": [0.1], "t": [3]}), log / "b.parquet")
        table, _ = read_columns([look_at(log)], ["s", "t"])
        assert table.column("s").to_pylist() == [*map(float, small), 0.1], "measures"
    pa.parquet.write_table(pa.table({"s": np.float16([2, 3]), "t": [1, 2]}), log / "a.parquet")
    pa.parquet.write_table(pa.table({"s": ["x"], "t": [3]}), log / "b.parquet")
    table, _ = read_columns([look_at(log)], ["s"])
    assert table.column("s").to_pylist() == ["2", "3", "x"]


def test_columns_that_came_later_may_lack_in_older_files(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.mkdir()
    pa.parquet.write_table(pa.table({"s": [1]}), log / "a.parquet")
    pa.parquet.write_table(pa.table({"x": ["new"], "s": ["2"]}), log / "b.parquet")
    assert read(log, "s") == [("1",), ("2",)]
    with pytest.raises(DataError, match=r"a\.parquet has no column 'x'; it has s"):
        read(log, "x")
