"""Cleaning, splitting and encoding, each against a case worked out by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paropt.data.events import Events, counts_anew, cut_at_gaps, in_order, number_by_order
from paropt.data.log.command import prepare_command
from paropt.data.log.options import Options
from paropt.data.log.rules import DAY_MS, LEAVE_ONE_OUT, Rules
from paropt.data.log.splitting.cleaning import clean
from paropt.data.log.splitting.splits import complete_splits, split_events
from paropt.data.prepare import prepare
from paropt.errors import DataError


def events(*sessions: str, time: int = 0) -> Events:
    """Sessions written as words, each letter an item; an event every millisecond."""
    letters = "".join(sessions)
    codes = np.repeat(np.arange(len(sessions)), [len(word) for word in sessions])
    items = np.array([ord(letter) - ord("a") for letter in letters], np.int32)
    clock = np.arange(len(letters)) + time
    return Events(codes, items, clock, np.arange(len(letters)))


def words(given: Events) -> list[str]:
    """The reverse of :func:`events`."""
    letters = "".join(chr(ord("a") + int(item)) for item in given.item)
    ends = np.r_[given.starts(), len(given)].tolist()
    return [letters[a:b] for a, b in itertools.pairwise(ends)]


def cleaned(given: Events, rules: Rules) -> Events:
    """A log of one part."""
    return clean({"all": given}, rules)["all"]


# -- cleaning -------------------------------------------------------------------------------


def test_rare_items_and_short_sessions_go_until_nothing_changes() -> None:
    """c (once) goes; then "bc" is "b" and goes; then b is rare (1 of 2) and goes; "ab" follows."""
    rules = Rules(min_support=2, min_session=2)
    assert words(cleaned(events("ada", "dad", "bc", "ab"), rules)) == ["ada", "dad"]


def test_one_pass_stops_where_the_fixpoint_goes_on() -> None:
    """Sessions, items, sessions: b is rare once "bc" has gone, but stays."""
    rules = Rules(min_support=2, min_session=2, one_pass=True)
    assert words(cleaned(events("ada", "dad", "bc", "ab"), rules)) == ["ada", "dad", "ab"]


def test_repeats_go_once_before_the_rest() -> None:
    """With c gone "aca" is "aa": a repeat that only cleaning made stays, as published."""
    rules = Rules(min_support=2, min_session=2)
    assert words(cleaned(events("aab", "aca", "bba"), rules)) == ["ab", "aa", "ba"]
    assert words(cleaned(events("aab"), Rules(keep_repeats=True, min_support=1))) == ["aab"]


def test_an_item_is_rare_in_all_parts_together() -> None:
    """c is there once in test, and twice in training; d once in all."""
    parts = {"train_full": events("abc", "bac"), "test": events("acbd", "ab")}
    left = clean(parts, Rules(min_support=2))
    assert words(left["train_full"]) == ["abc", "bac"]
    assert words(left["test"]) == ["acb", "ab"]
    # train and valid are in train_full: c is no more frequent for being there twice
    parts = {"train_full": events("abc", "ab"), "train": events("abc"), "valid": events("ab")}
    assert words(clean(parts, Rules(min_support=2))["train_full"]) == ["ab", "ab"]


def test_repeats_over_the_border_of_sessions_are_none() -> None:
    assert words(cleaned(events("ab", "ba"), Rules(min_support=1))) == ["ab", "ba"]


@given(st.lists(st.text("abcdef", max_size=6), max_size=12), st.integers(1, 4), st.integers(1, 4))
def test_cleaning_equals_a_plain_loop(sessions: list[str], support: int, length: int) -> None:
    kept = ["".join(letter for letter, _ in itertools.groupby(word)) for word in sessions]
    while True:
        kept = [word for word in kept if len(word) >= length and word]
        counts = {letter: "".join(kept).count(letter) for letter in "abcdef"}
        fewer = ["".join(letter for letter in word if counts[letter] >= support) for word in kept]
        if fewer == kept:
            break
        kept = fewer
    rules = Rules(min_support=support, min_session=length)
    assert words(cleaned(events(*sessions), rules)) == kept


# -- order ----------------------------------------------------------------------------------


def test_sorting_is_stable_on_session_time_and_row() -> None:
    mixed = Events(
        np.array([1, 0, 1, 0, 1]),
        np.array([0, 1, 2, 3, 4]),
        np.array([5, 7, 5, 6, 4]),
        np.arange(5),
    )
    assert in_order(mixed).row.tolist() == [3, 1, 4, 0, 2]


def test_an_order_that_restarts_orders_sessions_by_their_first_row() -> None:
    raw = Events(np.array([1, 0, 1, 0]), np.zeros(4, int), np.zeros(4, int), np.arange(4))
    timed = number_by_order(raw, np.array([1, 0, 0, 1]), base=10)
    assert timed.time.tolist() == [11, 12, 10, 13]


def test_an_order_without_duplicates_is_global() -> None:
    raw = Events(np.array([1, 0, 1, 0]), np.zeros(4, int), np.zeros(4, int), np.arange(4))
    timed = number_by_order(raw, np.array([40, 10, 30, 20]), base=0)
    assert timed.time.tolist() == [3, 0, 2, 1]


def test_a_global_order_stays_one_where_a_number_is_there_twice() -> None:
    """Sessions 0 … 9 of three events, the last one first in the file; one row is there twice."""
    session = np.repeat(np.arange(9, -1, -1), 3)
    order = np.arange(30).reshape(10, 3)[::-1].ravel()
    order[1] = order[0]
    raw = Events(session, np.zeros(30, int), np.zeros(30, int), np.arange(30))
    timed = number_by_order(raw, order, base=0)
    assert timed.time[session == 0].tolist() == [0, 1, 2]
    assert timed.time[session == 9].tolist() == [27, 28, 29], "equal ones by their rows"


def test_a_global_order_may_be_one_of_users_who_were_all_there_from_the_beginning() -> None:
    session = np.tile(np.arange(5), 20)
    order = np.arange(100)
    order[50] = 49
    raw = Events(session, np.zeros(100, int), np.zeros(100, int), np.arange(100))
    assert number_by_order(raw, order, base=0).time.tolist() == list(range(100))


def test_an_order_may_count_each_file_anew() -> None:
    """Three files of ten sessions, whose events take turns by two: 1 … 20 in each."""
    session = np.concatenate([np.repeat(np.arange(5) * 2, 4) for _ in range(3)])
    session = session + np.tile([0, 1], 30) + np.repeat([0, 10, 20], 20)
    order = np.tile(np.arange(1, 21), 3)
    assert counts_anew(session, order) == 3
    # one that does not begin at the same number is none, nor one that falls within a file
    assert counts_anew(session, np.r_[order[:40], order[40:] + 3]) == 1
    assert counts_anew(session, np.r_[order[:40], order[40:][::-1]]) == 1
    # positions in sessions of two events are those of the sessions
    assert counts_anew(np.repeat(np.arange(30), 2), np.tile([1, 2], 30)) == 1


def test_files_that_count_anew_are_one_after_the_other(tmp_path: Path) -> None:
    logs = []
    for day in range(4):
        rows = [f"{10 * day + k // 4},{k % 4},{k + 1}" for k in range(40)]
        logs.append(tmp_path / f"{day}.csv")
        logs[-1].write_text("\n".join(["session,item,seq", *rows]))
    said: list[str] = []
    made = prepare(logs, tmp_path / "out", note=said.append)
    assert np.load(made.path / "splits/test/sessions.npy").tolist() == [36, 37, 38, 39]
    assert "begins anew 3 times" in "".join(said)


def test_no_events_have_no_order() -> None:
    none = np.zeros(0, np.int64)
    assert len(number_by_order(Events(none, none, none, none), none, base=5)) == 0


def test_positions_may_begin_anywhere_near_the_beginning() -> None:
    """Two of ten sessions have lost their first events: positions all the same."""
    session = np.repeat(np.arange(9, -1, -1), 3)
    order = np.tile([1, 2, 3], 10)
    order[:6] += 2
    raw = Events(session, np.zeros(30, int), np.zeros(30, int), np.arange(30))
    timed = number_by_order(raw, order, base=0)
    assert timed.time.tolist() == list(range(30)), "sessions follow each other as in the file"


def test_a_gap_must_be_longer_than_the_limit() -> None:
    log = Events(np.array([0, 0, 0, 1]), np.arange(4), np.array([0, 100, 201, 202]), np.arange(4))
    cut, names = cut_at_gaps(log, pa.array(["ann", "bob"]), 100)
    assert cut.session.tolist() == [0, 0, 1, 2]
    assert names.to_pylist() == ["ann-1", "ann-2", "bob-1"]


# -- splitting ------------------------------------------------------------------------------


def at_days(*sessions: tuple[str, float]) -> Events:
    """Sessions with the day that each event is on: ("abc", first day), one event per hour."""
    log = events(*(word for word, _ in sessions))
    hours = np.concatenate([np.arange(len(word)) / 24 + day for word, day in sessions])
    return Events(log.session, log.item, np.rint(hours * DAY_MS).astype(np.int64), log.row)


def test_the_rule_by_time() -> None:
    """The end is day 10; test starts at day 9, valid at day 8.

    "cd" starts before day 9 and ends after: c, its only event before, is too short to train on.
    "efg" is cut to "ef". "hi" lies over day 8: in train_full whole, in train cut to nothing.
    """
    log = at_days(
        ("ab", 1.0),
        ("hi", 8.0 - 0.5 / 24),
        ("ab", 8.5),
        ("cd", 9.0 - 0.5 / 24),
        ("efg", 9.0 - 1.5 / 24),
        ("ba", 9.5),
        ("ab", 10.0 - 1 / 24),
    )
    splits = split_events(log, Rules(min_support=1), has_times=True)
    assert {name: words(split) for name, split in splits.items()} == {
        "train_full": ["ab", "hi", "ab", "ef"],
        "test": ["ba", "ab"],
        "train": ["ab"],
        "valid": ["ab", "ef"],
    }


def test_a_session_that_starts_at_the_cut_is_tested_on() -> None:
    log = at_days(("ab", 1), ("ab", 2.5), ("ab", 4 - 1 / 24), ("ab", 5 - 1 / 24))
    splits = split_events(log, Rules(), has_times=True)
    # the end is day 5, the cuts are day 4 and day 3; "ab" of day 4 − 1/24 is cut to its first
    assert words(splits["test"]) == ["ab"]
    assert words(splits["train_full"]) == ["ab", "ab"]
    moved = at_days(("ab", 1), ("ab", 2.5), ("ab", 4), ("ab", 5 - 1 / 24))
    assert words(split_events(moved, Rules(), has_times=True)["test"]) == ["ab", "ab"]


def test_a_straggling_end_is_left_out(tmp_path: Path) -> None:
    """Sessions on days 1 to 4, a lone one on day 40: with an end at day 5, test is day 4's."""
    rows = [f"{d},{i},{d * 86_400 + 3600 + i}" for d in (1, 2, 3, 4, 40) for i in (1, 2)]
    log = tmp_path / "log.csv"
    log.write_text("SessionId,ItemId,Time\n" + "\n".join(rows))
    options = Options(min_support=1, end_ms=5 * DAY_MS)
    dataset = prepare([log], tmp_path / "out", options=options)
    found = {
        name: dataset.split(name).session_ids().tolist() for name in ("train", "valid", "test")
    }
    assert found == {"train": ["1", "2"], "valid": ["3"], "test": ["4"]}
    # the end itself is what days are counted back from, not the last event before it
    later = prepare(
        [log],
        tmp_path / "later",
        options=Options(min_support=1, end_ms=6 * DAY_MS - 1, test_days=2),
    )
    assert later.split("test").session_ids().tolist() == ["4"]


def test_leave_one_out() -> None:
    splits = split_events(events("abcd", "efgh"), LEAVE_ONE_OUT, has_times=True)
    assert {name: words(split) for name, split in splits.items()} == {
        "train_full": ["abc", "efg"],
        "test": ["abcd", "efgh"],
        "train": ["ab", "ef"],
        "valid": ["abc", "efg"],
    }


def test_order_only_logs_give_their_last_sessions() -> None:
    """A fifth of ten sessions is two; valid gets as many of the eight before, but at most 1/5."""
    log = events(*["ab"] * 6, "cd", "ef", "gh", "ij")
    splits = split_events(log, Rules(test_fraction=0.2), has_times=False)
    assert words(splits["test"]) == ["gh", "ij"]
    assert words(splits["valid"]) == ["ef"]
    assert words(splits["train"]) == ["ab"] * 6 + ["cd"]


def test_train_and_valid_together_are_train_full() -> None:
    """Also a session that goes on from one into the other."""
    train = events("ab", "cd")
    valid = Events(
        np.array([1, 2, 2]), np.array([4, 0, 1]), np.array([10, 11, 12]), np.array([10, 11, 12])
    )
    parts = {"train": train, "valid": valid, "test": events("ba", time=20)}
    assert words(complete_splits(parts, Rules(), True)["train_full"]) == ["ab", "cde", "ab"]


# -- encoding -------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Rows of three files' worth of splits, out of order in session and time."""
    rows = {
        "train": ["s2,x,20", "s1,y,11", "s1,x,10", "s2,z,21"],
        "valid": ["s3,w,31", "s3,z,30"],
        "test": ["s4,v,40", "s4,w,41", "s4,x,42"],
    }
    for name, lines in rows.items():
        (tmp_path / f"{name}.csv").write_text("SessionId,ItemId,Time\n" + "\n".join(lines))
    return tmp_path


def test_several_files_are_one_split(shop: Path) -> None:
    header, *rows = (shop / "train.csv").read_text().split("\n")
    halves = [shop / "first.csv", shop / "second.csv"]
    halves[0].write_text("\n".join([header, *rows[:2]]))
    halves[1].write_text("\n".join([header, *rows[2:]]))
    valid = shop / "valid.csv"
    one = prepare([], shop / "one", {"train": shop / "train.csv", "valid": valid})
    several = prepare([], shop / "several", {"train": halves, "valid": [valid]})
    assert several.fingerprint == one.fingerprint
    assert prepare_command([], [], {"train": halves, "valid": valid}) == (
        f"paropt prepare --train {halves[0]} --train {halves[1]} --valid {valid} --out DIR"
    )


def test_one_item_index_serves_both_views(shop: Path) -> None:
    """Items by first row: x, y, z of train; w of train_full; v only of test."""
    given = {name: shop / f"{name}.csv" for name in ("train", "valid", "test")}
    dataset = prepare([], shop / "out", given)
    assert dataset.item_ids().tolist() == ["x", "y", "z", "w", "v"]
    assert [dataset.n_items(name) for name in ("train", "train_full", "test")] == [3, 4, 5]
    train, test = dataset.split("train"), dataset.split("test")
    # s1 began at 10, s2 at 20: sessions are in the order of time
    assert train.session_ids().tolist() == ["s1", "s2"]
    assert train.items.tolist() == [0, 1, 0, 2]
    assert train.offsets.tolist() == [0, 2, 4]
    assert train.times.tolist() == [10_000, 11_000, 20_000, 21_000]
    assert train.targets.tolist() == [False, True, False, True]
    assert test.items.tolist() == [4, 3, 0]
    assert test.targets.tolist() == [False, True, True]
    search, full = dataset.view("search"), dataset.view("full")
    assert search.support().tolist() == [2, 1, 1]
    assert (search.test.name, search.n_items, full.test.name, full.n_items) == (
        "valid",
        3,
        "test",
        4,
    )
    assert full.support().tolist() == [2, 1, 2, 1]
    dtypes = [a.dtype.name for a in (train.items, train.times, train.offsets, train.targets)]
    assert dtypes == ["int32", "int64", "int64", "bool"]
    with pytest.raises(ValueError, match="read-only"):
        train.items[0] = 1


def test_the_item_index_follows_the_times_of_training_not_the_file(tmp_path: Path) -> None:
    """The newest session, d e, comes first in the file, and a before b, which is older."""
    rows = ["9,d,500000", "9,e,500001", "8,b,350000", "8,e,350001", "7,a,100001", "7,b,100000"]
    (tmp_path / "log.csv").write_text("SessionId,ItemId,Time\n" + "\n".join(rows))
    dataset = prepare([tmp_path / "log.csv"], tmp_path / "out", options=Options(min_support=1))
    # train is session 7 (b, a), train_full adds 8 (its e is new), d is only in test
    assert dataset.item_ids().tolist() == ["b", "a", "e", "d"]
    assert [dataset.n_items(name) for name in ("train", "train_full", "test")] == [2, 3, 4]


def test_items_of_train_that_train_full_lacks_are_refused(shop: Path) -> None:
    given = {
        "train": shop / "train.csv",
        "train_full": shop / "valid.csv",
        "valid": shop / "valid.csv",
        "test": shop / "test.csv",
    }
    with pytest.raises(DataError, match="train has 2 items that train_full lacks"):
        prepare([], shop / "out", given)
    assert not (shop / "out").exists()


def test_leave_one_out_targets_are_last_positions(tmp_path: Path) -> None:
    rows = [f"{user},{item},{item}" for user in (1, 2) for item in range(10, 14)]
    log = tmp_path / "log.csv"
    log.write_text("SessionId,ItemId,Time\n" + "\n".join(rows))
    dataset = prepare([log], tmp_path / "out", options=Options(protocol="leave-one-out"))
    assert dataset.protocol == "leave-one-out"
    targets = {name: dataset.split(name).targets.tolist() for name in ("train", "valid", "test")}
    assert targets == {
        "train": [False, True] * 2,
        "valid": [False, False, True] * 2,
        "test": [False, False, False, True] * 2,
    }
    view = dataset.view("without-valid")
    ids = dataset.item_ids()
    assert [ids[i] for i in view.train.items.tolist()] == ["10", "11"] * 2
    assert [ids[i] for i in view.test.items.tolist()] == ["10", "11", "12", "13"] * 2
    assert view.n_items == 2 and view.test.targets.tolist() == targets["test"]
