"""Rows that are no events: conditions, missing and unwanted ids, rows that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt.data.dataset import Dataset
from paropt.data.log.filtering.conditions import parse_condition
from paropt.data.log.filtering.filters import filters
from paropt.data.log.formats import Schema
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.data.reading.read import look_at, read_columns
from paropt.errors import DataError

HEAD = "session,item,ts,Quantity,Customer ID,Country,paid,price"
# five sessions of four, a day apart; the last row of each is what a test spoils
ROWS = [
    [f"s{s}", "abcd"[step], str(1_600_000_000 + s * 86_400 + step), "1", "7", "France", "true", "2"]
    for s in range(5)
    for step in range(4)
]
Spoil = Callable[[list[list[str]]], None]


def log(tmp_path: Path, spoil: Spoil = lambda rows: None) -> Path:
    rows = [list(row) for row in ROWS]
    spoil(rows)
    path = tmp_path / "log.csv"
    path.write_text("\n".join([HEAD, *map(",".join, rows)]) + "\n")
    return path


def left(path: Path, **options: Any) -> Dataset:
    chosen = Options(min_support=1, **options)
    return prepare([path], path.parent / "out", options=chosen, overwrite=True)


def step(dataset: Dataset, name: str) -> tuple[int, int, int]:
    found = next(step for step in dataset.meta["funnel"] if step["name"] == name)
    return found["events"], found["sessions"], found["items"]


def spoil_column(at: int, value: str) -> Spoil:
    def spoil(rows: list[list[str]]) -> None:
        for row in rows[3::4]:
            row[at] = value

    return spoil


# -- conditions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "value", "where"),
    [
        (3, "-1", "Quantity > 0"),
        (3, "", "Quantity >= 1"),
        (3, "2.5", "Quantity = 1"),
        (3, "5", "Quantity in (1, 2, 3)"),
        (3, "5", "not Quantity > 4"),
        (3, "5", "NOT (Quantity > 4 AND Country == 'France')"),
        (4, "", "`Customer ID` is not null"),
        (4, "8", "`Customer ID` <> 8"),
        (5, "Spain", "Country = 'France'"),
        (5, "Spain", 'Country != "Spain" and Quantity = 1'),
        (5, "Spain", "Country not in ('Spain', 'Italy')"),
        (5, "Cote d'Ivoire", "Country <> 'Cote d''Ivoire'"),
        (5, "Spain", "Country like 'Fr%'"),
        (6, "false", "paid = true"),
        (1, "zz", "item like '_'"),
        (2, "1700000000", "ts < '2020-12-31'"),
        (2, "1700000000", "ts < '2020-12-31T00:00:00Z'"),
        (7, "1e3", "price < 100"),
        (6, "False", "paid != false"),
        (6, "FALSE", "not paid = false"),
        (6, "0", "paid = true"),
        (6, " False", "paid in (true)"),
    ],
)
def test_a_condition_leaves_rows_out(tmp_path: Path, at: int, value: str, where: str) -> None:
    """Each spoilt row goes, and no other; they are the fourth of each session."""
    dataset = left(log(tmp_path, spoil_column(at, value)), where=(where,))
    assert step(dataset, "read") == (20, 5, 4)
    assert step(dataset, "where") == (15, 5, 3)
    assert dataset.meta["funnel"][1]["option"].startswith("--where ")
    assert set(dataset.item_ids()) == {"a", "b", "c"}


def test_conditions_are_counted_one_by_one(tmp_path: Path) -> None:
    def spoil(rows: list[list[str]]) -> None:
        rows[3][3], rows[7][5] = "-1", "Spain"

    dataset = left(log(tmp_path, spoil), where=("Quantity > 0", "Country = 'France'"))
    assert (step(dataset, "where"), step(dataset, "where 2")) == ((19, 5, 4), (18, 5, 4))


def test_types_of_parquet_are_compared_as_what_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=HEAD.split(","))
    frame["ts"] = pd.to_datetime(frame["ts"].astype(int), unit="s")
    frame["Quantity"] = [None if n % 4 == 3 else 1.0 for n in range(20)]
    frame["paid"] = [n % 4 != 3 for n in range(20)]
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    for where in (
        *("Quantity > 0", "paid = true", "Quantity is not null", "not paid = false"),
        *("paid != 'False'", "paid like 't%'"),
    ):
        assert step(left(path, where=(where,)), "where") == (15, 5, 3), where
    assert step(left(path, where=("ts >= '2020-09-14'",)), "where") == (16, 4, 4)
    with pytest.raises(DataError, match=r"'Quantity' holds numbers.*write it unquoted"):
        left(path, where=("Quantity > '0'",))
    with pytest.raises(DataError, match=r"'paid' holds bool.*compares it with 1"):
        left(path, where=("paid = 1",))
    with pytest.raises(DataError, match=r"'paid' holds true and false.*compares it with 'paid'"):
        left(path, where=("paid = 'paid'",))


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("", "expected the name of a column at its end"),
        ("Quantity", "expected a comparison"),
        ("Quantity >", "expected a number or a 'text'"),
        ("Quantity > x", "expected a number or a 'text' at 'x'"),
        ("Quantity > 0 Country", "expected 'and', 'or' or the end"),
        ("Customer ID > 0", "with blanks in its name is written `in backticks`"),
        ("(Quantity > 0", r"expected '\)'"),
        ("Quantity in 1", r"expected '\('"),
        ("Quantity is 0", "expected 'null'"),
        ("Country like 1", "'like' takes a 'text'"),
        ("Quantity > 0; drop", "cannot be read at '; drop'"),
        ("__import__('os').system('x') > 0", "expected a comparison"),
    ],
)
def test_what_is_no_condition_says_where(where: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        parse_condition(where)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_one_sentence(text: str) -> None:
    try:
        assert parse_condition(text).columns
    except ValueError as error:
        assert repr(text) in str(error)


def test_columns_and_values_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = log(tmp_path)
    with pytest.raises(DataError, match="no column 'Quantiti'; did you mean 'Quantity'"):
        left(path, where=("Quantiti > 0",))
    with pytest.raises(
        DataError, match=r"log\.csv:2: column 'Country': 'France' is no number, and"
    ):
        left(path, where=("Country > 0",))
    with pytest.raises(DataError, match=r"log\.csv:2: .*'France' is neither true nor false"):
        left(path, where=("Country != true",))
    with pytest.raises(DataError, match="none of 20 events is left after the step 'where'"):
        left(path, where=("Quantity > 1",))


@pytest.mark.parametrize("word", ["NULL", "nan", "N/A", "NA", "-"])
def test_a_word_for_no_value_is_neither_true_nor_false(tmp_path: Path, word: str) -> None:
    for where in ("paid = true", "not paid = false"):
        assert step(left(log(tmp_path, spoil_column(6, word)), where=(where,)), "where")[0] == 15
    assert step(left(log(tmp_path, spoil_column(6, "f")), where=("paid = true",)), "where")[0] == 15


@pytest.mark.parametrize("text", ["1 Oct 2020", "2020-10", "10/2020"])
def test_a_text_that_is_no_time_is_not_compared_with_times(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"'ts' holds times, and --where compares it with"):
        left(log(tmp_path), where=(f"ts >= '{text}'",))


def test_times_are_compared_as_the_log_writes_them(tmp_path: Path) -> None:
    """Letter by letter 16/01 comes after 02/02, and every row would stay."""
    form = "%d/%m/%Y %H:%M"
    days = ["16/01/2020", "20/01/2020", "01/02/2020", "02/02/2020", "03/02/2020"]

    def spoil(rows: list[list[str]]) -> None:
        for n, row in enumerate(rows):
            row[2] = f"{days[n // 4]} 10:0{n % 4}"

    path = log(tmp_path, spoil)
    for text, sessions in (
        ("01/02/2020", 3),
        ("01/02/2020 10:00", 3),
        ("2020-02-01", 3),
        ("20/01/2020", 4),
    ):
        dataset = left(path, time_format=form, where=(f"ts >= '{text}'",))
        assert step(dataset, "where")[1] == sessions, text
    assert step(left(path, time_format=form, where=("ts != 'unknown'",)), "read") == (20, 5, 4)


# -- texts that are put in order ------------------------------------------------------------


def held(folder: Path, values: list[str], where: str) -> list[str]:
    """The values of column ``c`` that a condition leaves."""
    path = folder / "log.csv"
    path.write_text("\n".join(["i,c", *(f"i,{value}" for value in values)]) + "\n")
    table, place = read_columns([look_at(path)], ["i", "c"])
    schema = Schema("i", "i", "t")
    (only,) = filters(table, place, schema, Options(where=(where,)), None)
    return [value for value, stays in zip(values, only.leaves.tolist(), strict=True) if stays]


@pytest.mark.parametrize("where", ["c > '5'", "not c <= '5'", "c > 'five'"])
@pytest.mark.parametrize("missing", [[], [""], ["NULL"], [" "]])
def test_numbers_are_not_put_in_order_letter_by_letter(
    tmp_path: Path, where: str, missing: list[str]
) -> None:
    """``'10' < '5'``: letter by letter 10 would go, which unquoted stays."""
    values = ["10", "4", " 7.5", "-6", *missing]
    with pytest.raises(DataError, match=r"log\.csv: column 'c' holds numbers.*write it unquoted"):
        held(tmp_path, values, where)
    assert held(tmp_path, values, "c > 5") == ["10", " 7.5"]
    assert held(tmp_path, values, "not c > 5") == ["4", "-6"]
    assert held(tmp_path, values, "c = '10'") == ["10"]


def test_numbers_of_json_lines_are_no_texts_either(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    frame = pd.DataFrame(ROWS, columns=HEAD.split(",")).astype({"Quantity": int})
    frame.to_json(path, orient="records", lines=True)
    with pytest.raises(DataError, match=r"'Quantity' holds numbers.*write it unquoted"):
        left(path, where=("Quantity > '0'",))


def test_words_and_article_numbers_are_put_in_order_letter_by_letter(tmp_path: Path) -> None:
    assert held(tmp_path, ["France", "Spain", "Italy", ""], "c <= 'Iz'") == ["France", "Italy"]
    assert held(tmp_path, ["9", "8512A", "10"], "c >= '8'") == ["9", "8512A"]
    assert held(tmp_path, ["", ""], "c >= '8'") == []


AMERICAN = ["9/12/2023", "10/01/2023", "11/30/2022"]


@pytest.mark.parametrize("where", ["c >= '2023-01-01'", "not c < '2023-01'"])
def test_dates_that_letters_do_not_order_are_refused(tmp_path: Path, where: str) -> None:
    """Two of them are of 2023; only the letters of 9/12/2023 come after 2023-01-01."""
    what = r"log\.csv:3: column 'c': '9/12/2023' is no date by ISO 8601.*write the column's dates"
    with pytest.raises(DataError, match=what):
        held(tmp_path, ["", *AMERICAN], where)
    with pytest.raises(DataError, match=r"'c' is compared letter by letter.*'01/10/2023'.*write"):
        held(tmp_path, AMERICAN, "c >= '01/10/2023'")
    assert held(tmp_path, AMERICAN, "c = '9/12/2023'") == ["9/12/2023"]
    assert held(tmp_path, AMERICAN, "c in ('9/12/2023', '2023-09-12')") == ["9/12/2023"]


@pytest.mark.parametrize(
    ("days", "where", "later"),
    [
        (["2023-09-12", "2022-11-30", "", "NULL"], "c >= '2023-01-01'", ["2023-09-12"]),
        (["2023-09-12", "2022-11-30", "", "NULL"], "c < '2023-01'", ["2022-11-30"]),
        # half past nine, nine and nine of UTC; as letters T comes after a blank, and 11 after 09
        (["2023-09-12 09:30", "2023-09-12T09:00Z", "2023-09-12T11:00+02:00"],
         "c > '2023-09-12T09:00'", ["2023-09-12 09:30"]),
        # no year that a timestamp has
        (["9999-12-31", "2022-11-30", "NULL"], "c >= '2023-01-01'", ["9999-12-31"]),
        # of some only the year is known
        (["1991", "2003-05-01", "2004"], "c >= '2003-01-01'", ["2003-05-01", "2004"]),
    ],
)  # fmt: skip
def test_dates_by_iso_8601_are_put_in_order_as_what_they_are(
    tmp_path: Path, days: list[str], where: str, later: list[str]
) -> None:
    assert held(tmp_path, days, where) == later


# -- ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("value", ["", "  "])
def test_rows_that_lack_something_go_where_it_is_asked_for(
    tmp_path: Path, at: int, value: str
) -> None:
    path = log(tmp_path, spoil_column(at, value))
    with pytest.raises(DataError, match=r"log\.csv:5: .*missing; --drop-missing leaves"):
        left(path)
    assert step(left(path, drop_missing=True), "missing") == (15, 5, 3)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("word", ["-", "NaT", "NULL", "na"])
def test_rows_with_a_word_for_no_value_go_where_it_is_asked_for(
    tmp_path: Path, at: int, word: str
) -> None:
    """Of times as of sessions and items: pandas writes NaT, and no word is a time."""
    dataset = left(log(tmp_path, spoil_column(at, word)), drop_missing=True)
    assert step(dataset, "missing") == (15, 5, 3)


def test_a_word_for_no_value_is_missing_unless_it_is_an_id(tmp_path: Path) -> None:
    path = log(tmp_path, spoil_column(1, "Unknown"))
    with pytest.raises(DataError, match="--drop-missing leaves such rows out, --words-are-ids"):
        left(path)
    assert step(left(path, drop_missing=True), "missing") == (15, 5, 3)
    assert step(left(path, drop_missing=True, words_are_ids=True), "missing") == (20, 5, 4)
    assert step(left(path, drop_ids=("Unknown",)), "ids") == (15, 5, 3)


def test_numbers_are_dropped_as_they_are_called(tmp_path: Path) -> None:
    frame = pd.DataFrame(ROWS, columns=HEAD.split(","))
    frame["item"] = [None if n == 3 else float(n % 4) for n in range(20)]
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    dataset = left(path, drop_missing=True, drop_ids=("s4", "2"))
    assert step(dataset, "missing") == (19, 5, 4)
    assert step(dataset, "ids") == (19 - 4 - 4, 4, 3)
    assert dataset.meta["funnel"][2]["option"] == "--drop-id s4 --drop-id 2"


def test_rows_of_another_kind_may_lack_an_item_and_still_end_a_visit(tmp_path: Path) -> None:
    def spoil(rows: list[list[str]]) -> None:
        for row in rows[1::4]:
            row[1], row[5] = "", "page"

    options = {"event_column": "Country", "events": ("France",), "drop_missing": True}
    dataset = left(log(tmp_path, spoil), session_gap_ms=1000, **options)
    assert step(dataset, "kind") == step(dataset, "missing") == (15, 5, 3)
    assert step(dataset, "session gap") == (15, 5, 3), "the page between keeps them together"


# -- rows that cannot be read ---------------------------------------------------------------


def test_bad_rows_are_skipped_counted_and_shown(tmp_path: Path) -> None:
    path = log(tmp_path)
    lines = path.read_text().splitlines()
    lines[3:3] = ["torn", "x,y", HEAD, "too,many,fields,1,2,3,4,5,6"]
    path.write_text("\n".join(lines) + "\ns9,a,16000")
    with pytest.raises(DataError, match=r"log\.csv:4: .*; --skip-bad-rows leaves such rows out"):
        left(path)
    said: list[str] = []
    options = Options(min_support=1, skip_bad_rows=True)
    dataset = prepare([path], tmp_path / "skipped", options=options, note=said.append)
    assert dataset.meta["funnel"][0]["events"] == 25
    assert step(dataset, "bad rows") == (20, 5, 4)
    warning = next(line for line in said if "skipped" in line)
    assert warning.startswith("warning: 5 bad rows are skipped: ")
    assert "log.csv:4: " in warning and "log.csv:6: " in warning and "log.csv:7:" not in warning
    clean = prepare([log(tmp_path)], tmp_path / "clean", options=Options(min_support=1))
    assert dataset.fingerprint == clean.fingerprint


@pytest.mark.parametrize(
    ("kind", "column"),
    [("4.0", [4] * 20), ("4", [4.0] * 20), ("4", ["4"] * 20), ("4.0", ["4"] * 20)],
)
def test_kinds_may_be_numbers(tmp_path: Path, kind: str, column: list[Any]) -> None:
    frame = pd.DataFrame(ROWS, columns=HEAD.split(","))
    frame["rating"] = column
    frame.loc[3::4, "rating"] = 5 if not isinstance(column[0], str) else "5"
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    dataset = left(path, event_column="rating", events=(kind,))
    assert step(dataset, "kind") == (15, 5, 3)
    with pytest.raises(DataError, match=r"has 3 in column 'rating'; it has '4"):
        left(path, event_column="rating", events=("3",))


@pytest.mark.parametrize(
    "text", ["(" * 5000 + "n > 0" + ")" * 5000, " and ".join(["n > 0"] * 3000), "not " * 5000]
)
def test_endless_conditions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than 150 parts; divide it"):
        parse_condition(text)


def test_a_number_beyond_64_bits_is_compared_all_the_same(tmp_path: Path) -> None:
    path = log(tmp_path)
    assert left(path, where=("Quantity < 99999999999999999999999999",))


def test_what_cannot_be_compared_exactly_is_one_sentence(tmp_path: Path) -> None:
    path = log(tmp_path, spoil_column(3, str(2**53 + 1)))
    with pytest.raises(DataError, match=r"--where 'Quantity = 1\.5' compares numbers that are too"):
        left(path, where=("Quantity = 1.5",))


def test_a_kind_that_no_row_has_is_said(tmp_path: Path) -> None:
    told: list[str] = []
    path = log(tmp_path, spoil_column(5, "Spain "))
    chosen = Options(min_support=1, event_column="Country", events=("Spain", "Frnace", "France"))
    dataset = prepare([path], tmp_path / "out", options=chosen, note=told.append)
    assert step(dataset, "read") == (20, 5, 4), "a blank after a kind is none of it"
    assert "warning: no row has 'Frnace' in column 'Country'" in told
