"""Times and ids as they are found in files: what is understood, what is refused and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt.data.features.users import encode_users
from paropt.data.log.values.ids import encode_ids, missing_ids
from paropt.data.log.values.times import (
    check_time_format,
    odd_span,
    parse_duration,
    parse_moment,
    to_milliseconds,
    to_order,
    unreadable_times,
)
from paropt.data.reading.read import Layout, Place
from paropt.errors import DataError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A file with a header, a blank line after two rows, and three more rows."""
    log = tmp_path / "log.csv"
    log.write_text("a,b\n1,x\n2,x\n\n3,x\n4,x\n5,x\n")
    return Place([Layout(log, ("a", "b"), ",")], [0])


def texts(*values: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


@pytest.mark.parametrize(
    ("spellings", "milliseconds"),
    [
        (("1396860669", "1396860670"), [1396860669000, 1396860670000]),
        (("1396860669.277", "1396860670"), [1396860669277, 1396860670000]),
        (("1396860669277",), [1396860669277]),
        (("0.0016", "-0.0016"), [2, -2]),
        (("1396860669277123",), [1396860669277]),
        (("1396860669277123456",), [1396860669277]),
        (("2083", "0"), [2083000, 0]),
        (("2014-04-07T08:51:09.277Z",), [1396860669277]),
        (("2014-04-07 08:51:09",), [1396860669000]),
        (("2014-04-07T10:51:09+02:00", "2014-04-07 08:51"), [1396860669000, 1396860660000]),
        (("2014-04-07 08:51:09 UTC",), [1396860669000]),
        (("2014-04-07 08",), [1396857600000]),
        (("2014-04-07", "1969-12-31"), [1396828800000, -86400000]),
    ],
)
def test_times_are_understood(
    place: Place, spellings: tuple[str, ...], milliseconds: list[int]
) -> None:
    assert to_milliseconds(texts(*spellings), "t", place).tolist() == milliseconds


NINE_MS = 1396860669000  # 2014-04-07 08:51:09


@pytest.mark.parametrize(
    ("spellings", "milliseconds"),
    [
        (("20140407", "20140408"), [1396828800000, 1396915200000]),
        (("2014040708", "2014040709"), [1396857600000, 1396861200000]),
        (("201404070851",), [1396860660000]),
        (("20140407085109", "20140407085110"), [NINE_MS, NINE_MS + 1000]),
        (("20140407085109277",), [NINE_MS + 277]),
        (("20240229",), [1709164800000]),
        (("19700822", "19700823"), [20131200000, 20217600000]),
        # no dates, so an epoch
        (("20141301", "20141401"), [20141301000, 20141401000]),
        (("19690401",), [19690401000]),
        (("20140407", "1396860669"), [20140407000, NINE_MS]),
    ],
)
def test_dates_written_as_one_number(
    place: Place, spellings: tuple[str, ...], milliseconds: list[int]
) -> None:
    """As text, as integers and as the floats that pandas makes of them."""
    columns = [texts(*spellings), texts(*spellings).cast(pa.int64())]
    columns += [columns[1].cast(pa.float64(), safe=False)] if len(spellings[0]) < 17 else []
    for column in columns:
        assert to_milliseconds(column, "t", place).tolist() == milliseconds
    if len(spellings) == 1 and len(spellings[0]) == 8:
        for column in columns:
            assert to_milliseconds(column, "t", place, "s").tolist() == [int(spellings[0]) * 1000]


def test_a_date_that_is_none_among_dates_is_named(place: Place) -> None:
    days = [f"201404{day:02}" for day in range(1, 31)]
    days[3] = "20140431"
    with pytest.raises(DataError, match=r"log\.csv:6: .*20140431 is no date of the form %Y%m%d,"):
        to_milliseconds(texts(*days), "t", place)


@pytest.mark.parametrize("stray", ["99991231", "19000101", "0", "1396860669000"])
def test_a_placeholder_among_dates_does_not_make_them_an_epoch(place: Place, stray: str) -> None:
    days = [f"201404{day:02}" for day in range(1, 31)]
    days[3] = stray
    with pytest.raises(DataError, match=rf"log\.csv:6: .*{stray} is no date of the form %Y%m%d,"):
        to_milliseconds(texts(*days), "t", place)


def test_a_named_format_is_used_for_numbers_too(place: Place) -> None:
    for column in (pa.array([20140407]), pa.array([20140407.0]), pa.array(["20140407"])):
        chunked = pa.chunked_array([column])
        assert to_milliseconds(chunked, "t", place, "%Y%d%m").tolist() == [1404432000000]
    with pytest.raises(DataError, match=r"log\.csv:2: column 't': '2014' is no time of the form"):
        to_milliseconds(pa.chunked_array([pa.array([2014])]), "t", place, "%d/%m/%Y")


def test_an_hour_up_to_twelve_needs_its_half_of_the_day() -> None:
    form, what = "%d/%m/%Y %I:%M", "%I, an hour up to 12, needs %p beside it; write %H"
    with pytest.raises(DataError, match=f"--time-format '{form}': {what}"):
        check_time_format(form)


@pytest.mark.parametrize("hour", ["03:10 PM", "12:10 am", "12:10 AM"])
def test_a_half_of_the_day_that_would_be_overlooked_is_refused(hour: str, place: Place) -> None:
    """strptime looks at %p with %I only: 03:10 PM by %H:%M %p would be 03:10."""
    column = pa.chunked_array([["01/04/2014 13:10 PM", f"02/04/2014 {hour}"]])
    with pytest.raises(DataError, match=r"would be read without its AM or PM.*%p counts only"):
        to_milliseconds(column, "when", place, "%d/%m/%Y %H:%M %p")


@pytest.mark.parametrize(
    ("text", "form"),
    [("2020-09-13 03:10:00 PM", "%Y-%m-%d %X %p"), ("2020-09-13 PM", "%Y-%m-%d %p")],
)
def test_a_half_of_the_day_is_not_overlooked_beside_other_hours(
    text: str, form: str, place: Place
) -> None:
    with pytest.raises(DataError, match="would be read without its AM or PM"):
        to_milliseconds(pa.chunked_array([[text]]), "when", place, form)


def test_hours_to_23_may_have_am_and_pm_beside(place: Place) -> None:
    column = pa.chunked_array([["01/04/2014 13:10 PM", "01/04/2014 09:10 AM"]])
    found = to_milliseconds(column, "when", place, "%d/%m/%Y %H:%M %p")
    assert (found - 1_396_310_400_000).tolist() == [(13 * 60 + 10) * 60_000, (9 * 60 + 10) * 60_000]


@pytest.mark.parametrize(
    "form", ["%d/%m/%Y %I:%M %p", "%d/%m/%Y %H:%M %p", "%d %%p %%I", "ms", None]
)
def test_other_forms_of_times_are_let_through(form: str | None) -> None:
    check_time_format(form)


def test_afternoons_are_read_by_the_hour_of_twelve(place: Place) -> None:
    column = texts("15/11/2023 03:10 PM", "15/11/2023 12:10 AM")
    found = to_milliseconds(column, "t", place, "%d/%m/%Y %I:%M %p").tolist()
    assert found == [parse_moment("2023-11-15T15:10"), parse_moment("2023-11-15T00:10")]


@pytest.mark.parametrize(
    ("column", "time_format"),
    [
        (pa.array([2**62]), "s"),
        (pa.array([-(2**62)]), "s"),
        (pa.array([2**63 + 5], pa.uint64()), "ns"),
        (pa.array([1e300]), "ms"),
        (pa.array([2**62], pa.timestamp("s")), None),
        (pa.array([1396860669000]), "s"),  # milliseconds: year 46234
        (pa.array([-(2**47)]), "ms"),
        (pa.array([2**30], pa.date32()), None),
    ],
)
def test_times_that_do_not_fit_are_refused(
    place: Place, column: pa.Array, time_format: str | None
) -> None:
    with pytest.raises(DataError, match=r"log\.csv:2: column 't': .* too far from 1970"):
        to_milliseconds(pa.chunked_array([column]), "t", place, time_format)


def test_a_span_that_no_log_has_is_said() -> None:
    def days(*texts: str) -> np.ndarray:
        return np.array(texts, "datetime64[ms]").astype(np.int64)

    assert odd_span(days("1995-01-01", "2024-05-06")) is None
    assert odd_span(days()) is None
    said = odd_span(days("1970-01-01", "2024-05-06"))
    assert said is not None
    assert said.startswith(
        "times go from 1970-01-01 to 2024-05-06, and 1 of 2 are not from 1995 to 20"
    )
    assert odd_span(days("2014-01-01", "2608-05-06")) is not None


def test_ticks_of_net_are_no_nanoseconds(place: Place) -> None:
    ticks = pa.chunked_array([[638_396_640_000_000_000, 638_396_676_000_000_000]])
    with pytest.raises(DataError, match=r"log\.csv:2: column 't': 638396640000000000 looks like"):
        to_milliseconds(ticks, "t", place)
    assert to_milliseconds(ticks, "t", place, "ns").tolist() == [638396640000, 638396676000]


@pytest.mark.parametrize("column", [[1012024, 11012024], ["1012024", "11012024"]])
def test_a_date_of_digits_has_all_of_them(place: Place, column: list[Any]) -> None:
    """1012024 may be the first or the tenth of January."""
    with pytest.raises(DataError, match=r"log\.csv:2: .*'1012024' is no time of the form"):
        to_milliseconds(pa.chunked_array([column]), "t", place, "%d%m%Y")
    full = pa.chunked_array([["01012024", "11012024"]])
    found = to_milliseconds(full, "t", place, "%d%m%Y")
    assert (found // 86_400_000).tolist() == [19723, 19733]


def test_which_times_cannot_be_read(place: Place) -> None:
    def bad(*spellings: str | None, time_format: str | None = None) -> list[int]:
        column = pa.chunked_array([pa.array(spellings, pa.string())] * 2)
        found = unreadable_times(column, "t", place, time_format)
        half = len(spellings)
        assert found[:half].tolist() == found[half:].tolist()
        return np.flatnonzero(found[:half]).tolist()

    assert bad("1", "x", "3", "", None, "7") == [1, 3, 4]
    assert bad("x", "2014-04-07", "2014-04-31", "2014-04-07 10:00Z", None) == [0, 2, 4]
    assert bad("07/04/2014", "7.4.14", "", time_format="%d/%m/%Y") == [1, 2]
    assert bad("5", "2014-04-07", time_format="ms") == [1]
    assert bad("2014-04-07") == []


def test_a_named_format_and_a_forced_unit(place: Place) -> None:
    day_first = to_milliseconds(texts("07/04/2014 08:51"), "t", place, "%d/%m/%Y %H:%M")
    assert day_first.tolist() == [1396860660000]
    assert to_milliseconds(texts("5000"), "t", place, "ms").tolist() == [5000]


def test_typed_times_of_parquet(place: Place) -> None:
    stamps = np.array(["2014-04-07T08:51:09.277", "2014-04-08"], "datetime64[ns]")
    expected = [1396860669277, 1396915200000]
    for kind in (pa.timestamp("ns"), pa.timestamp("us", "Europe/Rome"), pa.timestamp("ms")):
        column = pa.chunked_array(
            [pa.array(stamps).cast(pa.timestamp("ns")).cast(kind, safe=False)]
        )
        assert to_milliseconds(column, "t", place).tolist() == expected
    days = pa.chunked_array([pa.array([stamps[1]]).cast(pa.date32(), safe=False)])
    assert to_milliseconds(days, "t", place).tolist() == expected[1:]


@pytest.mark.parametrize(
    ("spellings", "line", "what"),
    [
        (("1", "2", "yesterday"), 5, "'yesterday' is no time"),
        (("1", "2", "3", ""), 6, "the time is missing"),
        (("2014-04-07", "2014-13-07"), 3, "'2014-13-07' is no time"),
        (("1396860669", "1396860669", "1396860669277"), 5, "1396860669277 is not in the unit"),
        (("1396860669277", "0", "1396860669278"), 3, "0 is not in the unit"),
        (("1", "inf"), 3, "inf is no time"),
        (("1", "9" * 25), 3, "not in the unit"),
    ],
)
def test_a_wrong_time_is_named_with_its_line(
    place: Place, spellings: tuple[str, ...], line: int, what: str
) -> None:
    with pytest.raises(DataError, match=rf"log\.csv:{line}: column 't': .*{what}"):
        to_milliseconds(texts(*spellings), "t", place)


def test_a_time_of_another_form_is_named(place: Place) -> None:
    with pytest.raises(DataError, match=r"log\.csv:3: .*'7\.4\.2014' is no time of the form"):
        to_milliseconds(texts("07/04/2014", "7.4.2014"), "t", place, "%d/%m/%Y")


@given(st.lists(st.integers(-(10**10), 10**10), min_size=1))
def test_whole_seconds_come_through_exactly(seconds: list[int]) -> None:
    column = texts(*map(str, seconds))
    expected = [1000 * second for second in seconds]
    assert to_milliseconds(column, "t", Place([], [])).tolist() == expected


def test_durations_and_moments() -> None:
    assert [parse_duration(text) for text in ("30m", "1h", "1.5d", "90s", "5ms")] == [
        1_800_000,
        3_600_000,
        129_600_000,
        90_000,
        5,
    ]
    for wrong in ("30", "m", "0m", "-1h", "1w", ""):
        with pytest.raises(ValueError, match="is no duration"):
            parse_duration(wrong)
    assert parse_moment("2014-04-07") == 1396828800000
    with pytest.raises(ValueError, match="is no time"):
        parse_moment("soon")


# -- ids ------------------------------------------------------------------------------------


def test_ids_are_text_in_order_of_appearance(place: Place) -> None:
    codes, ids = encode_ids(texts("b", "007", "b", " a"), "i", place)
    assert codes.tolist() == [0, 1, 0, 2]
    assert ids.to_pylist() == ["b", "007", "a"]


def test_blanks_around_ids_do_not_make_other_ids(place: Place) -> None:
    codes, ids = encode_ids(texts("a", " a", "a ", "b"), "i", place)
    assert codes.tolist() == [0, 0, 0, 1]
    assert ids.to_pylist() == ["a", "b"]


def test_a_byte_order_mark_does_not_make_another_id(place: Place) -> None:
    codes, vocabulary = encode_ids(texts("7", "\ufeff7", '\ufeff"7"', "8"), "i", place)
    assert (codes.tolist(), vocabulary.to_pylist()) == ([0, 0, 0, 1], ["7", "8"])


def test_floats_that_were_rounded_are_no_order(place: Place) -> None:
    exact = pa.chunked_array([pa.array([2.0**24 - 1, 3.0], pa.float32())])
    assert to_order(exact, "o", place).tolist() == [2.0**24 - 1, 3.0]
    for kind, first in ((pa.float32(), 2.0**24), (pa.float64(), 2.0**53)):
        column = pa.chunked_array([pa.array([first, 3.0], kind)])
        with pytest.raises(DataError, match=r"column 'o' holds float\d+, which rounds numbers"):
            to_order(column, "o", place)


def test_a_column_without_any_user_is_refused(place: Place) -> None:
    for column in (texts("", " "), pa.chunked_array([pa.nulls(2)])):
        with pytest.raises(DataError, match="column 'u' names no user in any row"):
            encode_users(column, "u", place, False, False)


@pytest.mark.parametrize("word", ["NULL", "-", "NaT", "na"])
def test_a_word_for_no_value_names_no_user(place: Place, word: str) -> None:
    codes, users = encode_users(texts("a", word, "", "b"), "u", place, False, False)
    assert (codes.tolist(), users.to_pylist()) == ([0, -1, -1, 1], ["a", "b"])
    codes, users = encode_users(texts("a", word, "", "b"), "u", place, False, True)
    assert (codes.tolist(), users.to_pylist()) == ([0, 1, -1, 2], ["a", word, "b"])


@pytest.mark.parametrize("word", ["-", " - ", "NaT", "na", "NA", "NULL"])
def test_words_that_programs_write_for_nothing_are_no_ids(place: Place, word: str) -> None:
    with pytest.raises(DataError, match=r"log\.csv:3: .*the id is missing .*--words-are-ids"):
        encode_ids(texts("1", word), "i", place)
    assert missing_ids(texts("1", word), "i", place).tolist() == [False, True]


@pytest.mark.parametrize("word", ["?", "--", "-1", "Na", "nat", "Nat", "a-", "."])
def test_words_that_may_be_names_are_ids(place: Place, word: str) -> None:
    assert encode_ids(texts("x", word), "i", place)[1].to_pylist() == ["x", word]


@pytest.mark.parametrize("word", ["NaT", "-", "NULL"])
@pytest.mark.parametrize(
    ("other", "form"), [("2014-04-07", None), ("7", None), ("07.04.2014", "%d.%m.%Y")]
)
def test_a_word_for_no_value_is_a_missing_time(
    place: Place, word: str, other: str, form: str | None
) -> None:
    with pytest.raises(DataError, match=f"the time is missing .'{word}'.; --drop-missing leaves"):
        to_milliseconds(texts(other, other, word), "t", place, form)


def test_whole_floats_are_integers(place: Place) -> None:
    """pandas makes floats of integers when another row lacks one."""
    codes, ids = encode_ids(pa.chunked_array([pa.array([5.0, 7.0, 5.0])]), "i", place)
    assert codes.tolist() == [0, 1, 0]
    assert ids.to_pylist() == ["5", "7"]


@pytest.mark.parametrize(
    "spellings",
    [
        ("2.145E+08", "7", "2.145E+08"),
        ("2.145001e8",),
        ("9007199254740992.0", "5.0"),
        ("1E18", "12e5"),
    ],
)
def test_numbers_that_a_program_rounded_are_no_ids(
    place: Place, spellings: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=r"log\.csv:2: column 'i': .* may have rounded"):
        encode_ids(texts(*spellings), "i", place)
    _, ids = encode_ids(texts(*spellings), "i", place, as_text=True)
    assert set(ids.to_pylist()) == set(spellings)


def test_codes_that_look_like_rounded_numbers_are_ids_among_others(place: Place) -> None:
    _, ids = encode_ids(texts("12e5", "a7ff", "1234"), "i", place)
    assert ids.to_pylist() == ["12e5", "a7ff", "1234"]


def test_which_ids_are_missing(place: Place) -> None:
    column = pa.chunked_array([pa.array(["7", "", None, " ", "NULL", "nan", "x"])])
    assert np.flatnonzero(missing_ids(column, "i", place)).tolist() == [1, 2, 3, 4, 5]
    assert np.flatnonzero(missing_ids(column, "i", place, words=False)).tolist() == [1, 2, 3]
    floats = pa.chunked_array([pa.array([1.0, float("nan"), None])])
    assert np.flatnonzero(missing_ids(floats, "i", place)).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("column", "line", "what"),
    [
        (texts("1", "2", "", "4"), 5, "the id is missing"),
        (texts("1", "nan"), 3, "the id is missing \\('nan'\\)"),
        (texts("1", "Unknown"), 3, "the id is missing \\('Unknown'\\); .*--words-are-ids"),
        (texts("7", "85123A", "007"), 5, "written otherwise"),
        (texts("7", "8", "7.0"), 5, "'7.0' is a number that also appears written otherwise"),
        (texts("7", "007"), 3, "written otherwise"),
        (texts("a", "b\0"), 3, "control characters"),
        (pa.chunked_array([pa.array([1.0, 1.5])]), 3, "1.5 is no id"),
        (pa.chunked_array([pa.array([1.0, None])]), 3, "the id is missing"),
        (pa.chunked_array([pa.array([1, 2, None])]), 5, "the id is missing"),
    ],
)
def test_a_wrong_id_is_named_with_its_line(
    place: Place, column: pa.ChunkedArray, line: int, what: str
) -> None:
    with pytest.raises(DataError, match=rf"log\.csv:{line}: column 'i': .*{what}"):
        encode_ids(column, "i", place)


@pytest.mark.parametrize("ids", [["a1", "b2", "12"], ["85123", "85123A", "22752", "POST", "71"]])
def test_numbers_and_text_may_be_mixed(place: Place, ids: list[str]) -> None:
    """A hash of digits only is still a hash, and article numbers end in letters."""
    assert encode_ids(texts(*ids), "i", place)[1].to_pylist() == ids


def test_words_for_no_value_are_ids_when_said_so(place: Place) -> None:
    """They are another question than numbers written in two ways."""
    _, ids = encode_ids(texts("7", "nan", "unknown"), "i", place, words_are_ids=True)
    assert ids.to_pylist() == ["7", "nan", "unknown"]
    with pytest.raises(DataError, match="written otherwise"):
        encode_ids(texts("7", "nan", "7.0"), "i", place, words_are_ids=True)


def test_text_ids_are_taken_as_they_are_when_asked(place: Place) -> None:
    _, ids = encode_ids(texts("7", "8", "007", "nan", "x"), "i", place, as_text=True)
    assert ids.to_pylist() == ["7", "8", "007", "nan", "x"]


def test_the_line_is_found_over_several_files(tmp_path: Path) -> None:
    layouts = []
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("i,b\r\n1,x\r\n\r\n2,x\r\n")
        layouts.append(Layout(tmp_path / name, ("i", "b"), ","))
    with pytest.raises(DataError, match=r"b\.csv:4: column 'i': the id is missing"):
        encode_ids(texts("1", "2", "3", ""), "i", Place(layouts, [0, 2]))
