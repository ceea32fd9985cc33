"""Public logs: how each is written, and how it is cleaned and split as published."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from paropt.data.log.rules import DAY_MS, LEAVE_ONE_OUT, Rules
from paropt.data.reading.read import look_at, peek

HOUR_MS = DAY_MS // 24


@dataclass(frozen=True)
class Schema:
    """How a log is written.

    Attributes:
        session_key, item_key, time_key, order_column, split_column: column names.
        rows_in_order: the order of the rows is that of the events, as with an ``order_column``.
        time_format: see :func:`paropt.data.log.values.times.to_milliseconds`.
        time_offset: a column of milliseconds after the session's earliest ``time_key``.
        category_key, behaviour_key: columns with an item's category, and with what a user did.
        event_column, events: only rows whose ``event_column`` is one of ``events`` are events.
        filter_first: drop the other rows before sessions are cut at gaps, not after.
        names: the columns of files without a header.
        delimiter: what separates fields, where it cannot be told from the first line.
    """

    session_key: str = "SessionId"
    item_key: str = "ItemId"
    time_key: str | None = "Time"
    category_key: str | None = None
    behaviour_key: str | None = None
    order_column: str | None = None
    rows_in_order: bool = False
    split_column: str | None = None
    time_format: str | None = None
    time_offset: str | None = None
    event_column: str | None = None
    events: tuple[str, ...] = ()
    filter_first: bool = False
    names: tuple[str, ...] = ()
    delimiter: str = ""


@dataclass(frozen=True)
class Format:
    """A public log.

    Attributes:
        signature: header names that only this log has together.
        first_line: a pattern that the first line of such a file matches in full.
        source: where schema and rules are published.
        verified: a real file's counts were compared with published ones.
    """

    name: str
    title: str
    schema: Schema
    rules: Rules
    source: str = ""
    signature: frozenset[str] = frozenset()
    first_line: str = ""
    verified: bool = False

    def suited_to(self, names: Sequence[str]) -> Format:
        """The format for a file with these columns: RecBole's name a user or a session."""
        if self.name != "recbole" or "session_id" not in names:
            return self
        return replace(
            self, schema=replace(self.schema, session_key="session_id"), rules=GENERIC.rules
        )


_GRU4REC = "GRU4Rec third-party comparison (arXiv 2307.14956), preprocessing"
_YOOCHOOSE = Schema(
    time_key="Timestamp",
    time_format="iso",
    names=("SessionId", "Timestamp", "ItemId", "Category"),
    delimiter=",",
)
_MOVIELENS = "GroupLens README; leave-one-out as in SASRec (arXiv 1808.09781), full ranking"

GENERIC = Format("generic", "any log of sessions, items and times", Schema(), Rules())

_ALL = [
    GENERIC,
    Format(
        "retailrocket",
        "RetailRocket events.csv",
        Schema(
            session_key="visitorid",
            item_key="itemid",
            time_key="timestamp",
            time_format="ms",
            event_column="event",
            events=("view",),
        ),
        Rules(session_gap_ms=HOUR_MS, test_days=7, end_ms=1_442_545_200_000),
        source=_GRU4REC,
        signature=frozenset({"timestamp", "visitorid", "event", "itemid", "transactionid"}),
    ),
    Format(
        "diginetica",
        "Diginetica train-item-views.csv",
        Schema(
            session_key="sessionId",
            item_key="itemId",
            time_key="eventdate",
            time_format="iso",
            time_offset="timeframe",
            delimiter=";",
        ),
        Rules(test_days=7),
        source=_GRU4REC,
        signature=frozenset({"sessionId", "userId", "itemId", "timeframe", "eventdate"}),
    ),
    Format(
        "yoochoose",
        "RecSys Challenge 2015 yoochoose-clicks.dat and yoochoose-test.dat",
        _YOOCHOOSE,
        Rules(),
        source=_GRU4REC,
        first_line=r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,\S*",
    ),
    Format(
        "rsc15",
        "RecSys Challenge 2015 yoochoose-clicks.dat, as first published for GRU4Rec",
        _YOOCHOOSE,
        Rules(keep_repeats=True, one_pass=True, by_end=True, known_test_items=True),
        source="GRU4Rec (arXiv 1511.06939), preprocessing of its examples",
    ),
    Format(
        "rees46",
        "REES46 multi-category store, 2019-Oct.csv and 2019-Nov.csv",
        Schema(
            session_key="user_id",
            item_key="product_id",
            time_key="event_time",
            time_format="iso",
            event_column="event_type",
            events=("view",),
            filter_first=True,
        ),
        Rules(session_gap_ms=HOUR_MS, end_ms=1_575_158_400_000),
        source=_GRU4REC,
        signature=frozenset({"event_time", "event_type", "product_id", "user_id", "user_session"}),
    ),
    Format(
        "coveo",
        "Coveo (SIGIR eCom 2021) browsing_train.csv",
        Schema(
            session_key="session_id_hash",
            item_key="product_sku_hash",
            time_key="server_timestamp_epoch_ms",
            time_format="ms",
            event_column="product_action",
            events=("detail",),
        ),
        Rules(session_gap_ms=HOUR_MS),
        source=_GRU4REC,
        signature=frozenset(
            {"session_id_hash", "product_action", "product_sku_hash", "server_timestamp_epoch_ms"}
        ),
    ),
    Format(
        "movielens-100k",
        "MovieLens 100K u.data",
        Schema(
            session_key="user",
            item_key="item",
            time_key="timestamp",
            time_format="s",
            names=("user", "item", "rating", "timestamp"),
            delimiter="\t",
        ),
        LEAVE_ONE_OUT,
        source=_MOVIELENS,
        first_line=r"\d+\t\d+\t[1-5]\t\d{9,10}",
    ),
    Format(
        "movielens-1m",
        "MovieLens 1M ratings.dat",
        Schema(
            session_key="user",
            item_key="item",
            time_key="timestamp",
            time_format="s",
            names=("user", "item", "rating", "timestamp"),
            delimiter="::",
        ),
        LEAVE_ONE_OUT,
        source=_MOVIELENS,
        first_line=r"\d+::\d+::[\d.]+::\d+",
    ),
    Format(
        "movielens-20m",
        "MovieLens 20M (or 25M, 32M) ratings.csv",
        Schema("userId", "movieId", "timestamp", time_format="s"),
        LEAVE_ONE_OUT,
        source=_MOVIELENS,
        signature=frozenset({"userId", "movieId", "rating", "timestamp"}),
    ),
    Format(
        "recbole",
        "RecBole's .inter files",
        Schema("user_id", "item_id", "timestamp"),
        LEAVE_ONE_OUT,
        source="RecBole's documentation of atomic files",
        first_line=r"[^\t:]+:(token|float)(_seq)?(\t[^\t:]+:(token|float)(_seq)?)+",
        verified=True,
    ),
    Format(
        "tianchi",
        "Tianchi mobile recommendation tianchi_mobile_recommend_train_user.csv",
        Schema(
            session_key="user_id",
            item_key="item_id",
            time_key="time",
            category_key="item_category",
            behaviour_key="behavior_type",
            time_format="iso",
            event_column="behavior_type",
            events=("1",),
        ),
        Rules(session_gap_ms=HOUR_MS),
        source="the competition's schema; no published rule, so the generic one",
        signature=frozenset({"user_id", "item_id", "behavior_type", "item_category", "time"}),
    ),
    Format(
        "taobao",
        "Taobao UserBehavior.csv",
        Schema(
            session_key="user_id",
            item_key="item_id",
            time_key="ts",
            category_key="category_id",
            behaviour_key="behavior",
            time_format="s",
            event_column="behavior",
            events=("pv",),
            names=("user_id", "item_id", "category_id", "behavior", "ts"),
            delimiter=",",
        ),
        Rules(session_gap_ms=HOUR_MS),
        source="the set's own page; no published rule, so the generic one",
        signature=frozenset({"user_id", "item_id", "category_id", "behavior", "ts"}),
        first_line=r"\d+,\d+,\d+,(pv|fav|cart|buy),\d{9,10}",
    ),
    Format(
        "tencent-gr",
        "the directory of the 2025 Tencent ads competition",  # paropt.data.tencent_gr reads it
        Schema("user_id", "item_id", "timestamp", time_format="s"),
        LEAVE_ONE_OUT,
        source="what public solutions of the competition read; a user's last click is predicted",
    ),
]
FORMATS: dict[str, Format] = {format.name: format for format in _ALL}


def guess_format(path: Path) -> Format | None:
    """The only format that a file can be, by its first line; None where that is open.

    Raises:
        DataError: the file cannot be read at all.
    """
    line = peek(path)
    for format in _ALL:
        if format.first_line and line and re.fullmatch(format.first_line, line):
            return format
    names = set(look_at(path).names)
    found = [format for format in _ALL if format.signature and format.signature <= names]
    return found[0] if len(found) == 1 else None
