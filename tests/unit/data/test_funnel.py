"""What ``prepare`` counts after each step, and what it warns of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paropt.data.dataset import Dataset
from paropt.data.log.command import duration_text, moment_text, option_words, prepare_command
from paropt.data.log.options import Options
from paropt.data.log.values.times import parse_duration, parse_moment
from paropt.data.prepare import prepare
from paropt.errors import DataError

DAY = 86_400


def write(path: Path, rows: list[tuple[Any, ...]], head: str = "SessionId,ItemId,Time") -> Path:
    path.write_text("\n".join([head, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def visits(n: int, start: int = 1_400_000_000) -> list[tuple[str, str, int]]:
    """Sessions of a, b, c, a quarter of a day apart."""
    return [
        (f"s{s}", "abc"[step], start + s * DAY // 4 + step * 60)
        for s in range(n)
        for step in range(3)
    ]


def made(tmp_path: Path, rows: list[tuple[Any, ...]], **options: Any) -> Dataset:
    log = write(tmp_path / "log.csv", rows)
    return prepare([log], tmp_path / "out", options=Options(**options))


def steps(dataset: Dataset) -> dict[str, tuple[int, int, int]]:
    return {
        step["name"]: (step["events"], step["sessions"], step["items"])
        for step in dataset.meta["funnel"]
    }


def test_each_step_is_counted(tmp_path: Path) -> None:
    rows = visits(20)
    at = rows[-1][2]
    rows += [("s0", "a", 1_400_000_000 + 30)]  # repeats its own first event: one of a, a, b, c
    rows += [("lone", "a", at)]  # a session of one
    rows += [("pair", "rare", at), ("pair", "a", at + 1)]  # an item of one event, then a lone a
    dataset = made(tmp_path, rows)
    assert steps(dataset) == {
        "read": (64, 22, 4),
        "repeats": (63, 22, 4),
        "session length": (62, 21, 4),
        "support": (61, 21, 3),
        "both in turns": (60, 20, 3),
        "split": (59, 20, 3),  # the session that begins before the cut ends on it
    }
    options = [step["option"] for step in dataset.meta["funnel"]]
    assert options[1:4] == ["--keep-repeats", "--min-session 2", "--min-support 5"]
    assert options[-1] == "--test-days 1"


def test_kinds_gaps_and_an_end_are_steps_of_their_own(tmp_path: Path) -> None:
    rows = [(*row, "view") for row in visits(20)]
    rows = [("u1", *row[1:]) for row in rows]
    last = rows[-1][2]
    rows += [("u1", "", last + 1, "page"), ("u1", "a", last + 9 * DAY, "view")]
    log = write(tmp_path / "log.csv", rows, "SessionId,ItemId,Time,kind")
    options = Options(
        session_gap_ms=1_800_000,
        end_ms=(last + 1) * 1000,
        event_column="kind",
        events=("view",),
    )
    found = steps(prepare([log], tmp_path / "out", options=options))
    assert found["read"] == (62, 1, 3)
    assert found["kind"] == (61, 1, 3)
    assert found["session gap"] == (61, 21, 3)
    assert found["end"] == (60, 20, 3)


def test_a_step_that_takes_more_than_half_is_warned_of(tmp_path: Path) -> None:
    rows = visits(20)
    rows += [(f"x{n}", f"only{n}-{step}", rows[0][2] + n) for n in range(40) for step in (0, 1)]
    dataset = made(tmp_path, rows)
    assert dataset.meta["warnings"][0] == (
        "the step 'support' takes 57.1 % of 140 events: --min-support 5 decides that"
    )


def test_small_splits_are_warned_of_with_the_targets_that_cannot_be_ranked(tmp_path: Path) -> None:
    rows = visits(20)
    rows += [("late", "new", rows[-1][2] + step) for step in range(1, 6)]
    dataset = made(tmp_path, rows, keep_repeats=True)
    test = dataset.meta["splits"]["test"]
    # four sessions of three begin in the last day, and one of five whose item training never saw
    assert (test["targets"], test["known_targets"]) == (4 * 2 + 4, 8)
    assert any(
        warning.startswith("test has 8 targets (4 more are of items that training never saw)")
        and "--test-days 1 decides" in warning
        for warning in dataset.meta["warnings"]
    )


def test_equal_times_are_said_where_nothing_else_gives_the_order(tmp_path: Path) -> None:
    rows = [(session, item, time // 600 * 600) for session, item, time in visits(20)]
    dataset = made(tmp_path, rows)
    assert dataset.meta["equal_times"] == 1.0
    said = "100.0 % of neighbours in a session have equal times: their order is the file's"
    assert said in dataset.meta["warnings"]
    other = prepare([tmp_path / "log.csv"], tmp_path / "o", options=Options(order_column="Time"))
    assert other.meta["equal_times"] is None


def test_a_density_is_of_different_pairs(tmp_path: Path) -> None:
    """Sessions that see one item again and again are not denser than full."""
    rows = [(session, "a", time) for session, _, time in visits(20)]
    train = made(tmp_path, rows, keep_repeats=True).meta["splits"]["train_full"]
    assert train["events"] > train["sessions"] * train["items"] == train["pairs"]


def test_the_step_that_leaves_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="after the step 'support': --min-support 9"):
        made(tmp_path, visits(8), min_support=9)
    with pytest.raises(DataError, match=r"'end': .*from 2014-05-13T16:53 to .*another --end"):
        made(tmp_path, visits(8), end_ms=1000)


def test_an_end_that_is_built_into_a_format_is_named_where_it_empties_a_split(
    tmp_path: Path,
) -> None:
    head = "timestamp,visitorid,event,itemid,transactionid"
    rows = [(time * 1000, visitor, "view", item, "") for visitor, item, time in visits(20)]
    early = write(tmp_path / "events.csv", rows, head)
    with pytest.raises(DataError, match=r"another --end than 2015-09-18T03.* built into"):
        prepare([early], tmp_path / "out")
    late = [(time + 60_000_000_000, *others) for time, *others in rows]
    with pytest.raises(DataError, match=r"step 'end'.*than 2015.* into format retailrocket"):
        prepare([write(tmp_path / "late.csv", late, head)], tmp_path / "out")


def test_a_visit_that_lies_in_two_parts_is_one_session(tmp_path: Path) -> None:
    """Gaps are cut in the whole log, so that two users' visits are never taken for one."""
    rows = [("u1", *row[1:]) for row in visits(20)]
    train, valid = rows[:31], rows[31:]
    test = [("u2", item, time + 10 * DAY) for _, item, time in rows]
    paths = {
        name: write(tmp_path / f"{name}.csv", part)
        for name, part in (("train", train), ("valid", valid), ("test", test))
    }
    options = Options(session_gap_ms=1_800_000)
    dataset = prepare([], tmp_path / "out", paths, options)
    assert dataset.split("train_full").n_sessions == 20
    assert dataset.split("test").n_sessions == 20
    assert set(dataset.split("test").session_ids()) == {f"u2-{n}" for n in range(1, 21)}


@pytest.mark.parametrize("text", ["30m", "1h", "1d", "90s", "36h", "250ms"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    assert duration_text(parse_duration(text)) == text


@pytest.mark.parametrize("text", ["2017-10-16", "2015-09-18T00:40:00", "2015-09-18T00:40:00.250"])
def test_moments_are_written_as_they_are_read(text: str) -> None:
    assert moment_text(parse_moment(text)) == text


def test_the_command_line_can_be_pasted() -> None:
    options = Options(
        session_key="Customer ID",
        session_gap_ms=1_800_000,
        names=("a", "b"),
        keep_repeats=False,
        events=("view", "cart"),
        text_ids=True,
    )
    assert prepare_command([Path("my log.csv")], option_words(options)) == (
        "paropt prepare 'my log.csv' --session-key 'Customer ID' --event view --event cart"
        " --header a,b --session-gap 30m --drop-repeats --text-ids --out DIR"
    )


def test_a_search_needs_no_test(tmp_path: Path) -> None:
    """``paropt.py TRAIN VALID``: two files, and nothing for a final number."""
    rows = visits(20)
    train, valid = write(tmp_path / "t.csv", rows[:45]), write(tmp_path / "v.csv", rows[45:])
    dataset = prepare([], tmp_path / "out", {"train": train, "valid": valid})
    view = dataset.view("search")
    assert (view.train.n_sessions, view.test.n_sessions) == (15, 5)
    assert dataset.split("train_full").n_sessions == 20
    dataset.verify()
    assert dataset.split("test").items.shape == (0,)
    with pytest.raises(DataError, match=r"has no test split: .*prepare it with --test too"):
        dataset.view("full")
    assert not any(warning.startswith("test has") for warning in dataset.meta["warnings"])
    marked = [(*row, "train" if n < 45 else "valid") for n, row in enumerate(rows)]
    one = write(tmp_path / "one.csv", marked, "SessionId,ItemId,Time,part")
    options = Options(split_column="part")
    assert prepare([one], tmp_path / "o", options=options).fingerprint == dataset.fingerprint


def test_stragglers_after_the_end_are_counted_and_cut_off_by_what_is_said(tmp_path: Path) -> None:
    """A few events long after the last real day would be the whole test part."""
    rows = visits(400)
    last = rows[-1][2]
    rows += [("late", "a", last + 30 * DAY), ("late", "b", last + 32 * DAY)]
    end = "2014-08-22"  # the day after the last session's
    said = f"say --end {end}, from which on there are only 2 of 1,202 events"
    with pytest.raises(DataError, match=said):
        made(tmp_path, rows)
    cut = made(tmp_path, rows, end_ms=parse_moment(end))
    assert cut.split("test").n_sessions > 0
    assert not any("from which on" in warning for warning in cut.meta["warnings"])
    (tmp_path / "more").mkdir()
    split = made(tmp_path / "more", rows, test_days=30)
    assert f"the last days are all but empty: {said}" in split.meta["warnings"]
