"""Users' histories cut into a long and a short part, each against a case worked out by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from paropt.data.dataset import Dataset
from paropt.data.events import Events
from paropt.data.log.options import Options, make_recipe
from paropt.data.log.rules import LONG_SHORT, OF_LONG_SHORT, PART, Rules
from paropt.data.log.splitting.long_short import cut_parts, split_users
from paropt.data.prepare import prepare
from paropt.errors import DataError

HOUR = 3_600_000
ANY = Options(protocol="long-short", min_long=1, min_short=1, test_fraction=0.2)
TIANCHI = "user_id,item_id,behavior_type,user_geohash,item_category,time"


def users(*lengths: int) -> Events:
    """Users with an event an hour, each of another item."""
    session = np.repeat(np.arange(len(lengths)), lengths)
    hours = np.concatenate([np.arange(length) for length in lengths])
    rows = np.arange(len(session))
    return Events(session, rows, hours * HOUR, rows)


def parts(events: Events) -> list[str]:
    """Each user's parts, L and S, in order."""
    letters = "".join("LS"[code] for code in events.columns[PART])
    ends = np.r_[events.starts(), len(events)].tolist()
    return [letters[a:b] for a, b in itertools.pairwise(ends)]


def rules(**given: Any) -> Rules:
    return replace(LONG_SHORT, **{"min_long": 1, "min_short": 1, **given})


def test_the_long_part_is_the_first_nine_tenths_rounded_down() -> None:
    """Of 10 and 20 events 9 and 18; of 13 eleven (11.7); of one event nothing is long."""
    cut = cut_parts(users(10, 13, 20, 1), rules())
    assert parts(cut) == ["LLLLLLLLLS", "L" * 11 + "SS", "L" * 18 + "SS"]
    assert parts(cut_parts(users(4), rules(long_share=0.5))) == ["LLSS"]


def test_short_events_begin_a_gap_after_the_long_part_ends() -> None:
    """Ten events, long to hour 5; two hours later are 7, 8 and 9, four hours later only 9."""
    assert parts(cut_parts(users(10), rules(long_share=0.6, part_gap_ms=2 * HOUR))) == ["LLLLLLSSS"]
    late = cut_parts(users(10), rules(long_share=0.6, part_gap_ms=4 * HOUR))
    assert late.item.tolist() == [0, 1, 2, 3, 4, 5, 9]
    assert not len(cut_parts(users(10), rules(long_share=0.6, part_gap_ms=5 * HOUR)))


def test_bounds_drop_users_or_keep_the_latest_and_every_step_is_counted() -> None:
    told: list[tuple[str, str, int]] = []

    def count(step: str, option: str, left: Events) -> None:
        told.append((step, option, len(left)))

    bounds = rules(long_share=0.8, min_long=8, min_short=3, max_long=2, max_short=1)
    cut = cut_parts(users(5, 10, 20), bounds, count)
    assert cut.session.tolist() == [2, 2, 2]
    assert (cut.time // HOUR).tolist() == [14, 15, 19] and parts(cut) == ["LLS"]
    assert told == [
        ("long part", "--min-long 8", 30),
        ("short part", "--min-short 3", 20),
        ("latest of the long part", "--max-long 2", 6),
        ("latest of the short part", "--max-short 1", 3),
    ]


def test_every_user_is_tested_on_in_one_fold_and_never_trained_on_there() -> None:
    events = cut_parts(users(*[5] * 200), rules())
    names = pa.array([f"u{number}" for number in range(200)])
    tested: list[int] = []
    for fold in range(5):
        splits = split_users(events, names, rules(test_fraction=0.2, fold=fold))
        of = {name: set(part.session.tolist()) for name, part in splits.items()}
        assert of["train"] | of["valid"] == of["train_full"]
        assert not of["train"] & of["valid"] and not of["train_full"] & of["test"]
        assert len(of["train"] | of["valid"] | of["test"]) == 200
        tested += sorted(of["test"])
    assert sorted(tested) == list(range(200))
    # the same user is where it was, whoever else is there
    fewer = split_users(events.take(events.session >= 100), names, rules(test_fraction=0.2, fold=4))
    assert set(fewer["test"].session.tolist()) == of["test"] - set(range(100))


def tianchi(path: Path, geohash: bool = True) -> Path:
    """Forty users of twelve hours in which item 3 is of two categories."""
    lines = [TIANCHI if geohash else TIANCHI.replace("user_geohash,", "")]
    for user, hour in itertools.product(range(40), range(12)):
        item = (user + hour) % 7
        category = f"c{item % 3 if item != 3 or user else 2}"
        place = ["9q8" if user == 1 else ""] if geohash else []
        kind = str(1 + hour % 4)
        row = [f"u{user}", str(item), kind, *place, category, f"2014-12-06 {hour:02}"]
        lines.append(",".join(row))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("geohash", [True, False])
def test_tianchi_keeps_categories_and_behaviours(tmp_path: Path, geohash: bool) -> None:
    said: list[str] = []
    log = tianchi(tmp_path / "log.csv", geohash)
    data = prepare([log], tmp_path / "out", options=ANY, note=said.append)
    assert data.meta["format_name"] == "tianchi" and data.protocol == "long-short"
    assert data.vocabulary("column", "behaviour").tolist() == ["1", "2", "3", "4"]
    assert data.vocabulary("column", PART).tolist() == ["long", "short"]
    assert data.fields("items")["category"].vocabulary[0] == "c0"
    assert "'category' is not the same throughout for 1 of 7 items" in "\n".join(said)
    assert "training has no event of the others, but the days that they share" in "\n".join(said)
    test = data.split("test")
    assert test.n_sessions and data.n_users("test") == 40
    assert np.array_equal(test.targets, test.columns[PART] == 1)
    assert test.targets.reshape(-1, 12).sum(1).tolist() == [2] * test.n_sessions
    assert np.unique(np.diff(test.times.reshape(-1, 12))).tolist() == [HOUR]
    assert not set(test.session_ids()) & set(data.split("train_full").session_ids())
    data.verify()


def test_tianchi_by_time_is_as_before(tmp_path: Path) -> None:
    """Views only, in visits; nothing of long and short parts is in rules or fingerprint."""
    recipe = make_recipe([tianchi(tmp_path / "log.csv")], {}, Options(), lambda line: None)
    assert recipe.schema.events == ("1",) and recipe.rules.session_gap_ms == HOUR
    assert not recipe.event_columns and not recipe.item_columns
    assert not set(OF_LONG_SHORT) & set(recipe.rules.as_json())


@pytest.mark.parametrize("header", ["", "user_id,item_id,category_id,behavior,ts\n"])
def test_taobao_with_and_without_a_header(tmp_path: Path, header: str) -> None:
    lines = [
        f"{user},{(user + step) % 9},{step % 3},{('pv', 'buy')[step % 2]},{1511544070 + 60 * step}"
        for user, step in itertools.product(range(30), range(10))
    ]
    log = tmp_path / "UserBehavior.csv"
    log.write_text(header + "\n".join(lines) + "\n")
    data = prepare([log], tmp_path / "out", options=ANY)
    assert data.meta["format_name"] == "taobao" and data.meta["sources"] == ["UserBehavior.csv"]
    assert data.vocabulary("column", "behaviour").tolist() == ["buy", "pv"]
    assert sum(data.split(name).n_events for name in ("train_full", "test")) == 300


def fails(tmp_path: Path, **given: Any) -> str:
    options = replace(Options(protocol="long-short"), **given)
    with pytest.raises(DataError) as error:
        prepare([tianchi(tmp_path / "log.csv")], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()
    return str(error.value)


def test_what_cannot_be_is_refused_in_a_sentence(tmp_path: Path) -> None:
    def said(**given: Any) -> str:
        return fails(tmp_path, **given)

    assert said().endswith("is left after the step 'long part': --min-long 100 decides that")
    few = said(min_long=1, min_short=1, part_gap_ms=24 * HOUR)
    assert few.endswith("after the step 'gap': --gap 1d decides that")
    assert "--max-long 5 is below --min-long 9" in said(min_long=9, max_long=5)
    assert "with --test-fraction 0.2 there are the folds 0 to 4" in said(fold=5, test_fraction=0.2)
    assert "it needs --protocol long-short" in said(protocol="time", min_long=3)
    assert "'category' cannot be kept: 'item_category'" in said(keep_columns=("category",))
    assert "has no column 'kind'" in said(category_key="kind")
    lonely = said(min_long=1, min_short=1, test_fraction=0.001)
    assert "would hold no session of two events; give a log of more users" in lonely


def test_a_dataset_may_have_no_times(tmp_path: Path) -> None:
    log = tmp_path / "log.tsv"
    rows = [f"u{user}\ti{step % 5}" for user, step in itertools.product(range(30), range(10))]
    log.write_text("user\titem\n" + "\n".join(rows) + "\n")
    plain = Options(protocol="long-short", min_long=1, min_short=1, rows_in_order=True)
    data: Dataset = prepare([log], tmp_path / "out", options=plain)
    assert data.split("test").targets.sum() == data.split("test").n_sessions
    with pytest.raises(DataError, match="--gap needs times"):
        gap = Options(protocol="long-short", part_gap_ms=HOUR, rows_in_order=True)
        prepare([log], tmp_path / "other", options=gap)
