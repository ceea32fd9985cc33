"""Each public log's schema, cleaning and split, on hand-made rows whose counts are worked out here.

One story is told in every format. With d the format's test days, three sessions each begin at day
0, at day 2.5 d and at day 4 d; each looks at items 1, 2, 2, 3, which is 1, 2, 3 without the repeat.
Beside them one session looks at item 1 only, and one at 1 and 9, where 9 is too rare (support 1),
so that a session of one event remains: both go.

Counted back from the last event (about day 4 d): test begins at 3 d, valid at 2 d. So train holds
3 sessions of 3 events, valid 3 of 3, train_full 6 of 3, test 3 of 3; every event but the first of
a session is a target.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from paropt.data.log.formats import FORMATS, guess_format
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError

START = 1_400_025_600  # midnight, UTC
DAY = 86_400
EXPECTED = {
    "train_full": (18, 6, 3, 12),
    "test": (9, 3, 3, 6),
    "train": (9, 3, 3, 6),
    "valid": (9, 3, 3, 6),
}


def story(days: float, start: int = START) -> Iterator[tuple[int, int, int]]:
    """(session, item, second) of the story above."""
    number = 100
    for day in (0.0, 2.5 * days, 4 * days):
        for visit in range(3):
            number += 1
            for step, item in enumerate((1, 2, 2, 3)):
                yield number, item, start + int(day * DAY) + visit * 600 + step * 60
    yield 201, 1, start + 50
    yield 202, 1, start + 50
    yield 202, 9, start + 55


def iso(second: int, form: str = "%Y-%m-%dT%H:%M:%S.000Z") -> str:
    return datetime.fromtimestamp(second, UTC).strftime(form)


def counts(path: Path, options: Options | None = None, *more: Path) -> dict[str, tuple[int, ...]]:
    dataset = prepare([path, *more], path.parent / "out", options=options)
    keys = ("events", "sessions", "items", "targets")
    return {name: tuple(s[key] for key in keys) for name, s in dataset.meta["splits"].items()}


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in ([header] if header else []) + rows))
    return path


def test_generic(tmp_path: Path) -> None:
    rows = [f"{s}\t{i}\t{t}" for s, i, t in story(1)]
    log = write(tmp_path / "log.tsv", "SessionId\tItemId\tTime", rows)
    assert guess_format(log) is None
    assert counts(log) == EXPECTED


def test_retailrocket(tmp_path: Path) -> None:
    """Gaps over all events, then views: an addtocart event bridges 80 minutes of a visit."""
    end = FORMATS["retailrocket"].rules.end_ms
    assert end is not None
    start = end // 1000 - 28 * DAY - 2 * 3600
    rows = [f"{t}000,{s},view,{i}," for s, i, t in story(7, start)]
    header = "timestamp,visitorid,event,itemid,transactionid"
    log = write(tmp_path / "events.csv", header, rows)
    assert counts(log) == EXPECTED
    # visitor 101 goes on 80 minutes later: 2 sessions of [1, 2, 3] and [2, 1]
    first = start + 180
    rows += [f"{(first + 80 * 60) * 1000},101,view,2,", f"{(first + 81 * 60) * 1000},101,view,1,"]
    (tmp_path / "b").mkdir()
    log = write(tmp_path / "b" / "events.csv", header, rows)
    assert counts(log)["train"] == (11, 4, 3, 7)
    # with something put into the cart half-way it is one session [1, 2, 3, 2, 1]
    rows.append(f"{(first + 40 * 60) * 1000},101,addtocart,3,")
    (tmp_path / "c").mkdir()
    log = write(tmp_path / "c" / "events.csv", header, rows)
    assert counts(log)["train"] == (11, 3, 3, 8)


def test_diginetica(tmp_path: Path) -> None:
    """A session's events share a date; their order is ``timeframe``, in ms. 7 days."""
    begins = {s: t for s, _, t in reversed(list(story(7)))}
    rows = [
        f"{s};NA;{i};{(t - begins[s]) * 1000 + s};{iso(begins[s], '%Y-%m-%d')}"
        for s, i, t in story(7)
    ]
    log = write(tmp_path / "views.csv", "sessionId;userId;itemId;timeframe;eventdate", rows)
    assert counts(log) == EXPECTED


def test_diginetica_time_is_the_earliest_date_plus_timeframe(tmp_path: Path) -> None:
    """An event after midnight has a later date, which must not count twice."""
    rows = []
    for visit in range(20):
        day = f"2016-05-{visit + 1:02d}"
        after = f"2016-05-{visit + 2:02d}"
        rows += [f"{visit};NA;1;{86_000_000};{day}", f"{visit};NA;2;{86_500_000};{after}"]
    log = write(tmp_path / "views.csv", "sessionId;userId;itemId;timeframe;eventdate", rows)
    dataset = prepare([log], tmp_path / "out", options=Options(test_days=3))
    times = dataset.split("test").times
    # the last visit is of 20 May: one event before midnight, one after
    assert times[-2] == datetime(2016, 5, 20, tzinfo=UTC).timestamp() * 1000 + 86_000_000
    assert (times[1::2] - times[::2] == 500_000).all()


@pytest.mark.parametrize("files", [1, 2])
def test_yoochoose(tmp_path: Path, files: int) -> None:
    """clicks.dat and test.dat are read as one log."""
    rows = [f"{s},{iso(t)},{i},0" for s, i, t in story(1)]
    half = len(rows) // 2
    parts = [rows] if files == 1 else [rows[:half], rows[half:]]
    logs = [write(tmp_path / f"yoochoose-{n}.dat", "", part) for n, part in enumerate(parts)]
    assert counts(logs[0], None, *logs[1:]) == EXPECTED


def test_rsc15(tmp_path: Path) -> None:
    """No dedup: four events a session. Item 9 goes, then its session; nothing is repeated.

    In one pass: 1, 2, 3 have support 9 (and more), 9 has 1. Sessions are assigned by their last
    event, and test events of items that train lacks go: item 8 appears in test only, five times.
    """
    rows = [f"{s},{iso(t)},{i},0" for s, i, t in story(1)]
    last = START + 4 * DAY
    rows += [f"301,{iso(last + second)},8,0" for second in range(5)]
    rows += [f"302,{iso(last + 5)},1,0", f"302,{iso(last + 6)},8,0", f"302,{iso(last + 7)},2,0"]
    log = write(tmp_path / "yoochoose-clicks.dat", "", rows)
    # test: 3 sessions of 4, and 302 as [1, 2]; 301 has nothing left
    assert counts(log, Options(format="rsc15")) == {
        "train_full": (24, 6, 3, 18),
        "test": (14, 4, 3, 10),
        "train": (12, 3, 3, 9),
        "valid": (12, 3, 3, 9),
    }


def test_rsc15_is_split_by_the_end_of_sessions(tmp_path: Path) -> None:
    """A session over the cut is tested on whole; by Yoochoose's rule it is trained on, cut off."""
    rows = [f"{s},{iso(t)},{i},0" for s, i, t in story(1)]
    last = START + 4 * DAY + 1200 + 180
    cut = last - DAY
    rows += [f"300,{iso(cut + second)},{i},0" for second, i in ((-9, 1), (-8, 2), (0, 1), (9, 3))]
    log = write(tmp_path / "yoochoose-clicks.dat", "", rows)
    assert counts(log, Options(format="rsc15"))["test"][:2] == (16, 4)
    (tmp_path / "out").rename(tmp_path / "first")
    found = counts(log, Options(format="yoochoose"))
    assert found["test"] == EXPECTED["test"]
    assert found["train_full"] == (20, 7, 3, 13)


def test_rsc15_counts_the_days_of_valid_back_from_the_end_of_train_full(tmp_path: Path) -> None:
    """train_full ends on day 2.5, so a session of day 1.7 is in valid; counted from T it isn't."""
    rows = [f"{s},{iso(t)},{i},0" for s, i, t in story(1)]
    rows += [f"300,{iso(START + int(1.7 * DAY) + i)},{i},0" for i in (1, 2)]
    log = write(tmp_path / "yoochoose-clicks.dat", "", rows)
    assert counts(log, Options(format="rsc15"))["valid"] == (14, 4, 3, 10)
    (tmp_path / "out").rename(tmp_path / "first")
    assert counts(log, Options(format="yoochoose"))["valid"] == EXPECTED["valid"]


def test_rees46(tmp_path: Path) -> None:
    """Views only, before sessions are cut: a purchase does not bridge a gap."""
    end = FORMATS["rees46"].rules.end_ms
    assert end is not None
    start = end // 1000 - 4 * DAY - 2 * 3600

    def row(s: int, i: int, t: int, kind: str) -> str:
        return f"{iso(t, '%Y-%m-%d %H:%M:%S UTC')},{kind},{i},7,shoes,nike,1.5,{s},uuid-{s}"

    rows = [row(s, i, t, "view") for s, i, t in story(1, start)]
    later = start + 180 + 80 * 60
    rows += [row(101, 3, start + 40 * 60, "purchase")]
    rows += [row(101, 2, later, "view"), row(101, 1, later + 60, "view")]
    log = write(
        tmp_path / "2019-Nov.csv",
        "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session",
        rows,
    )
    found = counts(log)
    assert found["test"] == EXPECTED["test"]
    assert found["train"] == (11, 4, 3, 7)


def test_coveo(tmp_path: Path) -> None:
    """Page views have no product; they bridge gaps and go."""
    header = (
        "session_id_hash,event_type,product_action,product_sku_hash,"
        "server_timestamp_epoch_ms,hashed_url"
    )
    rows = [f"h{s},event_product,detail,sku{i},{t}000,u" for s, i, t in story(1)]
    rows += [f"h{s},pageview,,,{t}500,u" for s, _, t in story(1)]
    rows += [f"h{s},event_product,add,sku{i},{t}700,u" for s, i, t in story(1)]
    log = write(tmp_path / "browsing_train.csv", header, rows)
    assert counts(log) == EXPECTED


def test_tianchi(tmp_path: Path) -> None:
    """Hours are the finest times; a user's events of adjacent hours are one session."""
    rows = [f"{s},{i},1,,4076,{iso(t, '%Y-%m-%d %H')}" for s, i, t in story(1)]
    rows += [f"{s},{i},4,,4076,{iso(t, '%Y-%m-%d %H')}" for s, i, t in story(1)]
    log = write(
        tmp_path / "user.csv",
        "user_id,item_id,behavior_type,user_geohash,item_category,time",
        rows,
    )
    assert counts(log) == EXPECTED


LEAVE_ONE_OUT = {
    # 3 users × 5 events: without the last, without the last two, and one target each
    "train_full": (12, 3, 4, 9),
    "test": (15, 3, 5, 3),
    "train": (9, 3, 3, 6),
    "valid": (12, 3, 4, 3),
}
RATINGS = [(u, i, START + u * 100 + i) for u in (1, 2, 3) for i in (11, 12, 13, 14, 15)]


@pytest.mark.parametrize(
    ("name", "file", "header", "separator"),
    [
        ("movielens-100k", "u.data", "", "\t"),
        ("movielens-1m", "ratings.dat", "", "::"),
        ("movielens-20m", "ratings.csv", "userId,movieId,rating,timestamp", ","),
        (
            "recbole",
            "ml.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float",
            "\t",
        ),
    ],
)
def test_movielens_is_left_one_out(
    tmp_path: Path, name: str, file: str, header: str, separator: str
) -> None:
    rows = [separator.join(map(str, (u, i, 4, t))) for u, i, t in reversed(RATINGS)]
    log = write(tmp_path / file, header, rows)
    guessed = guess_format(log)
    assert guessed is not None
    assert guessed.name == name
    assert counts(log) == LEAVE_ONE_OUT


def test_recbole_with_sessions_is_split_by_time(tmp_path: Path) -> None:
    rows = [f"{s}\t{i}\t{t}" for s, i, t in story(1)]
    log = write(tmp_path / "x.inter", "session_id:token\titem_id:token\ttimestamp:float", rows)
    assert counts(log) == EXPECTED


def test_own_columns_make_a_guessed_log_generic(tmp_path: Path) -> None:
    rows = [f"{s},{i},4,{t}" for s, i, t in story(1)]
    log = write(tmp_path / "ratings.csv", "userId,movieId,rating,timestamp", rows)
    chosen = Options(session_key="userId", item_key="movieId", time_key="timestamp")
    assert counts(log, chosen) == EXPECTED


def test_a_format_whose_columns_a_file_lacks_is_refused(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", "a,b,c", ["1,2,3"])
    with pytest.raises(DataError, match="has no columns 'user_id', 'product_id' and 'event_time'"):
        prepare([log], tmp_path / "out", options=Options(format="rees46"))


def test_the_command_line_names_every_format() -> None:
    from paropt.cli._log_options import FORMATS as choices

    assert list(choices) == list(FORMATS)
