"""What is odd about sessions and splits is said: each line's numbers counted by hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from paropt.data.dataset import SPLITS
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError

DAY = 86_400
BEGAN = 1_700_006_400  # a midnight, in seconds: 2023-11-15
Row = tuple[Any, ...]


def sessions(n: int, first: int = 0, a_day: int = 10, items: int = 5) -> list[Row]:
    """(session, item, time) of ``n`` sessions of three events, so many a day."""
    rows = []
    for session in range(first, first + n):
        at = BEGAN + session // a_day * DAY + session % a_day * 600
        rows += [(session, (session + k) % items, at + 60 * k) for k in range(3)]
    return rows


def write(path: Path, rows: Iterable[Row], header: str = "SessionId,ItemId,Time") -> Path:
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def warned(folder: Path, *logs: Path, given: Any = None, **options: Any) -> list[str]:
    """The warnings but those of few targets, which every small log has."""
    out = folder / f"out{len(list(folder.glob('out*')))}"
    said: list[str] = []
    made = prepare(list(logs), out, given, Options(**options), note=said.append)
    lines = [line.removeprefix("warning: ") for line in said if line.startswith("warning: ")]
    assert made.meta["warnings"] == lines, "what is said is kept"
    return [line for line in lines if "fewer than 1,000" not in line]


def test_a_plain_log_has_nothing_odd(tmp_path: Path) -> None:
    assert warned(tmp_path, write(tmp_path / "log.csv", sessions(100))) == []


def test_sessions_that_are_in_training_and_in_test(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", sessions(80))
    later = write(tmp_path / "later.csv", sessions(20, first=80))
    assert warned(tmp_path, given={"train_full": train, "test": later}) == []
    test = write(tmp_path / "test.csv", sessions(6, first=76))  # 76 to 79 are in training
    shared, early = warned(tmp_path, given={"train_full": train, "test": test})
    assert shared == (
        "4 of 6 sessions of test are in train_full, too, with 12 of their 12 events: training sees"
        " what it is tested on"
    )
    assert early.startswith(
        "4 of 6 sessions of test begin before train_full ends, at 2023-11-22T01:32:00:"
    )


def test_ids_that_are_given_anew_in_each_file(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", sessions(80))
    later = [(session - 80, item, at) for session, item, at in sessions(20, first=80)]
    valid = write(tmp_path / "valid.csv", later)
    (said,) = warned(tmp_path, given={"train": train, "valid": valid})
    assert said == (
        "20 of 20 sessions of valid are in train, too, with 0 of their 60 events; where ids are"
        " given anew in each file, make them differ"
    )


def test_what_is_the_same_by_chance_is_no_leak(tmp_path: Path) -> None:
    """Sessions numbered anew, by position: one event in thirty is where training has it."""
    header = "SessionId,ItemId,pos"
    train = [(s, (s + k) % 5, k) for s in range(80) for k in range(3)]
    test = [(s, 5 + (s + k) % 5 if (s, k) != (3, 1) else 4, k) for s in range(10) for k in range(3)]
    given = {
        "train_full": write(tmp_path / "a.csv", train, header),
        "test": write(tmp_path / "b.csv", test, header),
    }
    (said,) = warned(tmp_path, given=given, order_column="pos")
    assert said == (
        "10 of 10 sessions of test are in train_full, too, with 1 of their 30 events; where ids are"
        " given anew in each file, make them differ"
    )


def test_a_test_that_is_earlier_than_training(tmp_path: Path) -> None:
    given = {
        "train_full": write(tmp_path / "late.csv", sessions(80, first=20)),
        "test": write(tmp_path / "early.csv", sessions(20)),
    }
    (said,) = warned(tmp_path, given=given)
    assert said.startswith("20 of 20 sessions of test begin before train_full ends")


def test_last_events_without_their_history(tmp_path: Path) -> None:
    rows = [(user, (user + k) % 7, BEGAN + 60 * k) for user in range(50) for k in range(8)]
    given = {
        "train_full": write(tmp_path / "a.csv", [row for row in rows if row[2] < BEGAN + 360]),
        "test": write(tmp_path / "b.csv", [row for row in rows if row[2] >= BEGAN + 360]),
    }
    (said,) = warned(tmp_path, given=given, protocol="leave-one-out")
    assert said == (
        "50 of 50 sessions of test are in train_full, too, with 0 of their 100 events: what"
        " train_full has of them is no history of theirs in test"
    )
    whole = {**given, "test": write(tmp_path / "c.csv", rows)}
    assert warned(tmp_path, given=whole, protocol="leave-one-out") == []
    last = write(tmp_path / "d.csv", [row for row in rows if row[2] == BEGAN + 420])
    with pytest.raises(DataError, match="each part holds whole sequences"):
        warned(tmp_path, given={**given, "test": last}, protocol="leave-one-out")


def test_a_part_that_cleaning_empties_says_which_options_did(tmp_path: Path) -> None:
    train, test = sessions(30), sessions(4, first=30)
    given = {
        "train_full": write(tmp_path / "train.csv", train),
        "test": write(tmp_path / "test.csv", [(s, f"x{s}{item}", at) for s, item, at in test]),
    }
    with pytest.raises(DataError) as refused:
        warned(tmp_path, given=given, min_support=2, min_session=2)
    assert str(refused.value) == (
        "the split test would hold no session of two events; leave out --min-session 2 and"
        " --min-support 2, or give a larger part"
    )


def test_sessions_that_run_on_through_the_test(tmp_path: Path) -> None:
    """Ids 0 to 9 are used again every day: each is one session of ten days."""
    again = write(tmp_path / "log.csv", [(s % 10, item, at) for s, item, at in sessions(100)])
    new = write(tmp_path / "new.csv", sessions(6, first=84) + sessions(6, first=94))
    (said,) = warned(tmp_path, again, new)
    # the last event is at 01:32 on the 24th. From 01:32 on the 23rd there are 31 events of the ten
    # and 19 of the twelve, of which the first ends what began at 01:30
    assert said == (
        "32 of the 50 events from 2023-11-23T01:32:00 on (--test-days 1) are of sessions that"
        " began before, and in no split: where sessions are users or ids are used again,"
        " --session-gap 30m cuts them"
    )


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "--session-gap 30m cuts them"),
        ({"session_gap_ms": 20 * DAY * 1000}, "a shorter --session-gap cuts them"),
        ({"rows_in_order": True, "test_fraction": 0.5}, "say --protocol leave-one-out"),
    ],
)
def test_the_remedy_for_sessions_that_run_on_is_one(
    tmp_path: Path, options: dict[str, Any], remedy: str
) -> None:
    rows = [(s % 10, item, at) for s, item, at in sessions(100)]
    rows += [*sessions(6, first=84), *sessions(6, first=94)]
    log = write(tmp_path / "log.csv", sorted(rows, key=lambda row: row[2]))
    (said,) = warned(tmp_path, log, **options)
    assert said.endswith(f"are used again, {remedy}")


def test_one_session_that_stands_for_none(tmp_path: Path) -> None:
    guests = [(0 if s % 5 == 0 else s, item, at) for s, item, at in sessions(100)]
    said = warned(tmp_path, write(tmp_path / "log.csv", guests))
    assert said[0] == (
        "the session '0' has 20.0 % of all events: if it stands for no session, --drop-id 0 leaves"
        " it out"
    )
    assert warned(tmp_path, tmp_path / "log.csv", drop_ids=("0",)) == []
    # a part that a gap cut is called by its own id and a number, which no row has
    gap = warned(tmp_path, tmp_path / "log.csv", session_gap_ms=20 * DAY * 1000)
    assert "if it stands for no session, --drop-id 0 leaves" in gap[0]


def test_rows_that_are_there_twice(tmp_path: Path) -> None:
    rows = [(user, (user + k) % 7, BEGAN + 60 * k) for user in range(50) for k in range(8)]
    log = write(tmp_path / "log.csv", rows)
    again = write(tmp_path / "again.csv", rows[7::8])  # each one's last event
    said = warned(tmp_path, log, again, protocol="leave-one-out")
    assert said == [
        "50 events have the session, the item and the time of the one before them: where rows are"
        " there twice, --drop-repeats leaves them out",
    ]
    assert warned(tmp_path, log, again, protocol="leave-one-out", keep_repeats=False) == []
    with pytest.raises(DataError, match="given twice, and each event would count twice"):
        warned(tmp_path, log, tmp_path / "." / "log.csv")


def test_a_word_that_goes_with_the_repeats(tmp_path: Path) -> None:
    """Every session buys what it has just looked at, and every second one something else."""
    rows: list[Row] = []
    for session, item, at in sessions(100):
        rows += [(session, item, at, "view"), (session, item, at + 5, "buy")]
        if session % 2:
            rows.append((session, item + 5, at + 9, "like"))
    log = write(tmp_path / "log.csv", rows, "SessionId,ItemId,Time,kind")
    (said,) = warned(tmp_path, log, keep_columns=("kind",))
    assert said == (
        "0 of 300 events with kind 'buy' are left: an event goes that follows another of the same"
        " item, whatever it is; --keep-repeats keeps all"
    )
    assert warned(tmp_path, log, keep_columns=("kind",), keep_repeats=True) == []
    # what goes as its items are rare is none of it
    rare = [(s, f"{item}-{s}-{at}", at, "rare") for s, item, at in sessions(100)]
    rare += [(s, item, at + 5, "view") for s, item, at in sessions(100)]
    log = write(tmp_path / "rare.csv", rare, "SessionId,ItemId,Time,kind")
    assert not [line for line in warned(tmp_path, log, keep_columns=("kind",)) if "left" in line]


@pytest.mark.parametrize("nobody", ["", "-", "null"])
def test_who_logs_in_meanwhile_makes_no_session_of_several(tmp_path: Path, nobody: str) -> None:
    rows = [(s, item, at, f"u{s}" if at % 120 else nobody) for s, item, at in sessions(100)]
    log = write(tmp_path / "log.csv", rows, "session,item,time,user")
    said: list[str] = []
    prepare([log], tmp_path / "out", None, Options(user_key="user"), note=said.append)
    assert not [line for line in said if "several" in line]


def test_times_before_1970_are_times(tmp_path: Path) -> None:
    early = [(s, item, at - 2_200_000_000) for s, item, at in sessions(100)]
    made = [
        prepare([write(tmp_path / f"{n}.csv", rows)], tmp_path / f"o{n}")
        for n, rows in enumerate((sessions(100), early))
    ]
    sizes = [[len(d.split(name).offsets) - 1 for name in SPLITS] for d in made]
    assert sizes[0] == sizes[1] == [90, 10, 80, 10]


def test_days_are_counted_to_the_end_of_the_last_one(tmp_path: Path) -> None:
    """Ten sessions a day, times without hours: a day of test is ten sessions, not twenty."""
    dates = [(s, item, f"2023-11-{15 + s // 10}") for s, item, _ in sessions(100)]
    log = write(tmp_path / "log.csv", dates)
    made = prepare([log], tmp_path / "out")
    sizes = {name: len(made.split(name).offsets) - 1 for name in SPLITS}
    assert sizes == {"train_full": 90, "test": 10, "train": 80, "valid": 10}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"test_fraction": 0.3}, "--test-fraction 0.3 has no effect: the log has times"),
        (
            {"rows_in_order": True, "test_days": 2.0},
            "--test-days 2 has no effect: the log has only",
        ),
        ({"protocol": "leave-one-out", "test_days": 2.0}, "leave it out, or say --protocol time"),
        ({"protocol": "long-short", "test_days": 2.0}, "--test-fraction says how many"),
    ],
)
def test_a_size_that_decides_nothing_is_refused(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    log = write(tmp_path / "log.csv", sessions(100))
    with pytest.raises(DataError, match="has no effect") as refused:
        warned(tmp_path, log, **options)
    assert told in str(refused.value)


def test_days_of_valid_are_decided_where_it_is_cut(tmp_path: Path) -> None:
    given = {
        "train_full": write(tmp_path / "train.csv", sessions(80)),
        "test": write(tmp_path / "test.csv", sessions(20, first=80)),
    }
    one = prepare([], tmp_path / "one", given)
    two = prepare([], tmp_path / "two", given, Options(test_days=2.0))
    assert [len(d.split("valid").offsets) - 1 for d in (one, two)] == [10, 20]
    with pytest.raises(DataError, match="the parts that were given decide that"):
        prepare([], tmp_path / "three", given, Options(test_fraction=0.3))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kinds": ("pricee=category",)}, "--kind pricee=category: no column 'pricee' is kept of"),
        ({"categorical": ("kindd",)}, "did you mean 'kind'?"),
        ({"list_separator": "|"}, "--list-separator has no effect without --item-features or"),
        ({"item_features_key": "id"}, "without --item-features or --item-vectors; leave it out"),
        ({"text_encoder": "hashing"}, "--text-encoder has no effect without --text-vectors or"),
    ],
)
def test_an_option_about_what_is_not_there_is_refused(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    rows = [(*row, "view") for row in sessions(100)]
    log = write(tmp_path / "log.csv", rows, "SessionId,ItemId,Time,kind")
    with pytest.raises(DataError) as refused:
        warned(tmp_path, log, keep_columns=("kind",), **options)
    assert told in str(refused.value)
    assert not list(tmp_path.glob("out*"))


def test_ids_that_look_alike_are_said(tmp_path: Path) -> None:
    """An é may be one character, or an e and an accent."""
    rows = [(s, "caf\u00e9" if item == 1 else item, at) for s, item, at in sessions(100)]
    log = write(tmp_path / "log.csv", rows)
    assert warned(tmp_path, log) == []
    said: list[str] = []
    other = [
        (s, "cafe\u0301" if item == "caf\u00e9" and s % 2 else item, at) for s, item, at in rows
    ]
    prepare([write(tmp_path / "other.csv", other)], tmp_path / "two", note=said.append)
    assert [line for line in said if "look like" in line] == [
        "warning: 1 items look like others, as 'cafe\u0301': their letters are coded in two ways"
        " (NFC and NFD), and they count as two; write them in one"
    ]


def test_an_id_that_no_row_has_is_said(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", sessions(100))
    said: list[str] = []
    prepare([log], tmp_path / "out", None, Options(drop_ids=("7", "777")), note=said.append)
    assert [line for line in said if "no row" in line] == [
        "warning: no row has '777' in 'SessionId' or 'ItemId'"
    ]
