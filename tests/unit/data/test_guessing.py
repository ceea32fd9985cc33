"""Which columns are taken for sessions, items and times where nobody says, and what is said."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from paropt.data.dataset import Dataset
from paropt.data.log.options import Options, make_recipe
from paropt.data.prepare import prepare
from paropt.errors import DataError

START = 1_700_000_000
HOUR = 3600


def taken(tmp_path: Path, head: str, row: str, **options: Any) -> tuple[str, str, str | None]:
    """The columns of a log with this header and such a row: session, item, time or order."""
    log = tmp_path / "log.csv"
    log.write_text(f"{head}\n{row}\n{row}\n")
    schema = make_recipe([log], {}, Options(**options), lambda line: None).schema
    return schema.session_key, schema.item_key, schema.time_key or schema.order_column


@pytest.mark.parametrize(
    ("head", "row", "columns"),
    [
        ("session_id,item_id,ts", "1,2,1700000000", "session_id,item_id,ts"),
        ("ts,sessionid,itemid", "1700000000,1,2", "sessionid,itemid,ts"),
        ("SessionId,item_id,Time", "1,2,1700000000", "SessionId,item_id,Time"),
        (
            "user_session,product_id,event_time",
            "1,2,2019-10-01 00:00:00 UTC",
            "user_session,product_id,event_time",
        ),
        ("visitorid,sku,timestamp", "1,2,1433221332117", "visitorid,sku,timestamp"),
        (
            "CustomerID,StockCode,InvoiceDate",
            "1,85123A,2010-12-01 08:26:00",
            "CustomerID,StockCode,InvoiceDate",
        ),
        ("uid,song_id,played", "1,2,2020-01-01T00:00:00Z", "uid,song_id,played"),
        ("USER_ID,Article-ID,Event Time", "1,2,1700000000", "USER_ID,Article-ID,Event Time"),
        ("customer_id,article_id,t_dat", "1,2,2018-09-20", "customer_id,article_id,t_dat"),
        ("sessionId,itemId,pos", "1,2,3", "sessionId,itemId,pos"),
        ("user_id,item_id,position", "1,2,3", "user_id,item_id,position"),
        # a session before a user; what is about a session or an item is none
        (
            "user_id,session_id,session_start,click_article_id,click_timestamp",
            "1,2,1506826800000,3,1506826800026",
            "session_id,click_article_id,click_timestamp",
        ),
        ("user_id,item_id,category_id,behavior,ts", "1,2,3,pv,1511544070", "user_id,item_id,ts"),
        (
            "asin,parent_asin,user_id,timestamp,rating",
            "a,b,c,1588687728923,5.0",
            "user_id,asin,timestamp",
        ),
        # of two times the one that is a time, or else the finer one
        (
            "unixReviewTime,reviewTime,reviewerID,asin",
            '1252800000,"09 13, 2009",A,B',
            "reviewerID,asin,unixReviewTime",
        ),
        (
            "date,timestamp,user,item",
            "2020-01-01,1577836800,1,2\n2020-01-01,1577836801,1,2",
            "user,item,timestamp",
        ),
        # the only one that is left
        ("user,thing,ts", "1,2,1700000000", "user,thing,ts"),
    ],
)
def test_columns_are_found_by_name_and_content(
    tmp_path: Path, head: str, row: str, columns: str
) -> None:
    assert taken(tmp_path, head, row) == tuple(columns.split(","))


@pytest.mark.parametrize(
    ("head", "row", "sentence"),
    [
        ("session_id,visit_id,item,ts", "1,2,3,1700000000", "sessions in 'session_id' or 'visit_"),
        ("user,item_id,product_id,ts", "1,2,3,1700000000", "'item_id' or 'product_id'.*--item-key"),
        ("user,item,click_ts,order_ts", "1,2,1700000000,1700000000", "times in .*--time-key"),
        ("a,b,c,d", "1,2,3,4", "sessions, items and times .*it has a, b, c, d"),
        ("user,b,c,ts", "1,2,3,1700000000", "clearly its items .*--item-key"),
        ("1,2,1700000000", "1,3,1700000001", "no header line.*--header session_id,item_id,time"),
        ("u1,i2,2020-01-01", "u1,i3,2020-01-02", "no header line"),
    ],
)
def test_what_is_not_clear_is_refused_with_the_candidates(
    tmp_path: Path, head: str, row: str, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        taken(tmp_path, head, row)


def test_what_is_said_is_not_guessed(tmp_path: Path) -> None:
    head, row = "user,item_id,product_id,ts", "1,2,3,1700000000"
    assert taken(tmp_path, head, row, item_key="product_id") == ("user", "product_id", "ts")
    assert taken(tmp_path, "1,2,1700000000", "1,3,1700000001", names=("sid", "sku", "t")) == (
        "sid",
        "sku",
        "t",
    )
    with pytest.raises(DataError, match="no column 'usr'; did you mean 'user'"):
        taken(tmp_path, head, row, session_key="usr", item_key="item_id")


def test_sessions_that_are_numbered_anew_for_each_user_are_warned_of(tmp_path: Path) -> None:
    rows = [f"{s},u{u},{i},{1_700_000_000 + u}" for u in range(4) for s in (1, 2) for i in "ab"]
    path = tmp_path / "log.csv"

    def said(head: str) -> str:
        path.write_text("\n".join([head, *rows]))
        told: list[str] = []
        make_recipe([path], {}, Options(), told.append)
        return " ".join(told)

    assert "warning: 'session_id' '1' is of several 'user_id'" in said("session_id,user_id,item,ts")
    assert "several 'user_id'" in said("SessionId,user_id,ItemId,Time"), (
        "also where none is guessed"
    )
    rows = [f"{s}-{u},u{u},{i},{1_700_000_000 + u}" for u in range(4) for s in (1, 2) for i in "ab"]
    assert "warning" not in said("session_id,user_id,item,ts")


def test_gzip_and_parquet_are_looked_into_too(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1], "item": ["a"], "x": ["2020-01-01"], "date": ["monday"]})
    frame.to_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    for name in ("log.parquet", "log.csv.gz"):
        plan = make_recipe([tmp_path / name], {}, Options(), lambda line: None)
        assert plan.schema.time_key == "date", "named so, and the other is not: whose is x?"
    (tmp_path / "log.jsonl").write_text(frame.to_json(orient="records", lines=True))
    plan = make_recipe([tmp_path / "log.jsonl"], {}, Options(), lambda line: None)
    assert (plan.schema.session_key, plan.schema.item_key) == ("user", "item")
    renamed = frame.rename(columns={"date": "day_of_week"})
    renamed.to_parquet(tmp_path / "log.parquet")
    plan = make_recipe([tmp_path / "log.parquet"], {}, Options(), lambda line: None)
    assert plan.schema.time_key == "x"


# -- users ----------------------------------------------------------------------------------


def users(tmp_path: Path, visits: int, length: int, pause: int = 10 * HOUR) -> Path:
    """Thirty users who come so often, for so many events, a minute apart."""
    lines = [
        f"{user},{(user + visit + step) % 4},{START + user * 7000 + visit * pause + step * 60}"
        for user in range(30)
        for visit in range(visits)
        for step in range(length)
    ]
    log = tmp_path / "clicks.csv"
    log.write_text("\n".join(["user_id,item_id,ts", *lines]) + "\n")
    return log


def made(log: Path, out: str, **options: Any) -> tuple[Dataset, list[str]]:
    said: list[str] = []
    dataset = prepare([log], log.parent / out, options=Options(**options), note=said.append)
    return dataset, said


def test_users_who_come_back_are_cut_into_visits(tmp_path: Path) -> None:
    log = users(tmp_path, visits=4, length=3)
    dataset, said = made(log, "guessed")
    assert dataset.protocol == "time" and dataset.meta["rules"]["session_gap_ms"] == 1_800_000
    assert said[0] == "columns taken: users 'user_id', items 'item_id', times 'ts'"
    assert "with 4.0 visits of two events or more each" in said[1] and "--session-gap" in said[1]
    assert said[2] == (
        f"to change it: paropt prepare {log} --session-key user_id --item-key item_id"
        " --time-key ts --session-gap 30m --out DIR"
    )
    by_hand, _ = made(
        log,
        "by-hand",
        session_key="user_id",
        item_key="item_id",
        time_key="ts",
        session_gap_ms=1_800_000,
    )
    assert dataset.fingerprint == by_hand.fingerprint
    assert dataset.meta["options"] == by_hand.meta["options"]


@pytest.mark.parametrize(
    ("visits", "length", "pause"),
    [(1, 12, HOUR), (12, 1, 10 * HOUR)],
)
def test_users_who_do_not_come_in_visits_are_sequences(
    tmp_path: Path, visits: int, length: int, pause: int
) -> None:
    dataset, said = made(users(tmp_path, visits, length, pause), "out")
    assert dataset.protocol == "leave-one-out"
    assert "--protocol leave-one-out" in said[1] and "--protocol leave-one-out" in said[2]
    assert dataset.split("valid").n_sessions == 30


def test_users_are_left_as_they_are_where_it_is_said_what_they_are(tmp_path: Path) -> None:
    log = users(tmp_path, visits=4, length=3, pause=HOUR)
    dataset, said = made(log, "a", session_key="user_id", test_days=0.8)
    assert dataset.meta["rules"]["session_gap_ms"] is None and dataset.protocol == "time"
    assert not any("visits" in line for line in said)
    dataset, said = made(log, "b", protocol="time", test_days=0.8)
    assert dataset.meta["rules"]["session_gap_ms"] is None
