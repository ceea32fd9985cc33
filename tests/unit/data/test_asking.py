"""Files of sessions that next items are asked for, read as the log that a model learnt from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from paropt.data.log.options import Options
from paropt.data.log.sessions_file import Asked, is_name, read_asked, read_names
from paropt.errors import DataError

LOG: dict[str, Any] = {
    "session_key": "visitor",
    "item_key": "sku",
    "time_key": "when",
    "time_format": "%d/%m/%Y %H:%M",
}


def asked(tmp_path: Path, text: str, log: dict[str, Any] | None = None, **options: Any) -> Asked:
    path = tmp_path / "live.csv"
    path.write_text(text)
    return read_asked(path, Options(**options), log)


def sessions(found: Asked) -> dict[str, list[str]]:
    """The items of each session in order."""
    events = found.events
    return {
        name: [found.items[int(item)].as_py() for item in events.item[events.session == code]]
        for code, name in enumerate(found.sessions)
    }


def test_columns_times_and_their_format_are_remembered(tmp_path: Path) -> None:
    text = "sku,when,visitor\nb,01/04/2014 10:01,v\na,01/04/2014 10:00,v\n"
    found = asked(tmp_path, text, LOG)
    assert sessions(found) == {"v": ["a", "b"]} and found.timed
    assert found.events.time.tolist() == [1396346400000, 1396346460000]
    with pytest.raises(DataError, match=r"'01/04/2014 10:01' is no time.*--time-format"):
        asked(tmp_path, text)
    assert sessions(asked(tmp_path, text, time_format="%d/%m/%Y %H:%M")) == {"v": ["a", "b"]}


def test_a_form_that_overlooks_am_and_pm_is_refused_here_too(tmp_path: Path) -> None:
    text = "sku,when,visitor\na,01/04/2014 03:10 PM,v\n"
    with pytest.raises(DataError, match=r"without its AM or PM .*%p counts only with %I"):
        asked(tmp_path, text, LOG | {"time_format": "%d/%m/%Y %H:%M %p"})
    found = asked(tmp_path, text, LOG, time_format="%d/%m/%Y %I:%M %p")
    assert found.events.time.tolist() == [1396346400000 + 5 * 3_600_000 + 10 * 60_000]


def test_an_hour_up_to_twelve_is_held_to_what_is_said(tmp_path: Path) -> None:
    text = "sku,when,visitor\na,01/04/2014 03:10,v\n"
    half = "%d/%m/%Y %I:%M"
    with pytest.raises(DataError, match="needs %p beside it"):
        asked(tmp_path, text, LOG, time_format=half)
    assert len(asked(tmp_path, text, LOG | {"time_format": half}).events) == 1


def test_times_in_another_unit_than_the_logs_are_warned_of(tmp_path: Path) -> None:
    log = LOG | {"time_format": "ms"}
    found = asked(tmp_path, "sku,when,visitor\nb,1704067200,v\n", log)
    assert any("warning" in note and "another unit or form" in note for note in found.notes)
    found = asked(tmp_path, "sku,when,visitor\nb,1704067200000,v\n", log)
    assert not any("warning" in note for note in found.notes)


def test_what_is_said_goes_before_what_is_remembered(tmp_path: Path) -> None:
    text = "visitor,sku,when,other,at\nv,a,x,p,2\nv,b,y,q,1\n"
    found = asked(tmp_path, text, LOG, item_key="other", time_key="at")
    assert sessions(found) == {"v": ["q", "p"]}
    found = asked(tmp_path, text, LOG, order_column="at")
    assert sessions(found) == {"v": ["b", "a"]} and not found.timed
    with pytest.raises(DataError, match="no column 'skuu'; did you mean 'sku'"):
        asked(tmp_path, text, LOG, item_key="skuu")


def test_other_names_are_looked_for_and_said(tmp_path: Path) -> None:
    found = asked(tmp_path, "session_id,product_id,ts\n1,a,1400000000\n", LOG)
    assert sessions(found) == {"1": ["a"]}
    assert found.notes == ["columns taken: sessions 'session_id', items 'product_id', times 'ts'"]


def test_rows_are_in_order_where_there_are_no_times(tmp_path: Path) -> None:
    found = asked(tmp_path, "visitor,sku\nv,b\nw,c\nv,a\n", LOG)
    assert sessions(found) == {"v": ["b", "a"], "w": ["c"]}
    assert not found.timed and "has no times: its rows are taken to be in order" in found.notes[0]
    assert not asked(tmp_path, "visitor,sku\nv,b\n", LOG, rows_in_order=True).notes


@pytest.mark.parametrize("head", ["", "visitor,sku,when\n"])
def test_a_log_without_a_header_line_is_remembered(tmp_path: Path, head: str) -> None:
    """Its session ids may be its items' too, so that a first row names no columns."""
    log = LOG | {"names": ("visitor", "sku", "when"), "delimiter": ",", "time_format": None}
    found = asked(tmp_path, f"{head}7,7,1400000000\n7,8,1400000001\n", log)
    assert sessions(found) == {"7": ["7", "8"]}
    told = asked(tmp_path, "7,8,1400000000\n", names=("visitor", "sku", "ts"))
    assert sessions(told) == {"7": ["8"]}


def test_a_header_beside_names_for_the_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"live\.csv begins with a header line.*leave --header out"):
        asked(tmp_path, "sku,visitor,when\na,v,1400000000\n", names=("visitor", "sku", "when"))


def test_only_events_of_the_kind_that_was_learnt_are_looked_at(tmp_path: Path) -> None:
    log = LOG | {"event_column": "kind", "events": ("view", "4"), "time_format": None}
    text = "visitor,sku,when,kind\nv,a,1,view\nv,,2,page\nv,b,3,4.0\n"
    found = asked(tmp_path, text, log)
    assert sessions(found) == {"v": ["a", "b"]}
    assert "2 of 3 rows are 'view' or '4' in column 'kind'" in found.notes[0]
    assert sessions(asked(tmp_path, text.replace("view", "buy"), log, events=("buy",))) == {
        "v": ["a"]
    }
    assert sessions(asked(tmp_path, "visitor,sku,when\nv,a,1\n", log)) == {"v": ["a"]}
    with pytest.raises(DataError, match="has no events that are asked about"):
        asked(tmp_path, "visitor,sku,when,kind\nv,a,1,buy\n", log)


def test_kinds_that_no_column_tells_are_not_left_out_unsaid(tmp_path: Path) -> None:
    log = LOG | {"event_column": "kind", "events": ("view",), "time_format": None}
    text = "visitor,sku,when,what\nv,a,1,view\nv,b,2,buy\n"
    found = asked(tmp_path, text, log)
    assert sessions(found) == {"v": ["a", "b"]}
    note = found.notes[0]
    assert "has no column 'kind', of which the model learnt from 'view' alone" in note
    assert note.endswith("rows of any kind are taken; --event-column names it")
    assert sessions(asked(tmp_path, text, log, event_column="what")) == {"v": ["a"]}
    for said in ({"events": ("view",)}, {"event_column": "what"}):
        with pytest.raises(DataError, match="--event-column and --event belong together"):
            asked(tmp_path, text, log if "events" in said else LOG, **said)


OWN = LOG | {"time_format": None, "where": ["qty > 5"], "drop_ids": ["bot"]}
# visitor, item, time, quantity, shop
BOUGHT = "visitor,sku,when,qty,shop\n" + "".join(
    f"{v},{item},{1_400_000_000 + at},{qty},{shop}\n"
    for at, (v, item, qty, shop) in enumerate(
        [("v", "a", 9, "A"), ("v", "b", 5, "A"), ("v", "c", 9, "B"), ("bot", "a", 9, "A")]
    )
)


def test_conditions_of_the_models_log_hold_beside_those_that_are_said(tmp_path: Path) -> None:
    """More than 5 are a, c and the bot's; in shop A a, b and the bot's; no bot's and no c is a."""
    assert sessions(asked(tmp_path, BOUGHT, OWN)) == {"v": ["a", "c"]}
    found = asked(tmp_path, BOUGHT, OWN, where=('shop = "A"',), drop_ids=("c",))
    assert sessions(found) == {"v": ["a"]}
    assert found.notes == [
        "3 of 4 rows are left by --where 'qty > 5', as in the model's log",
        "2 of 4 rows are left by --where 'shop = \"A\"'",
        "1 of 4 rows are left by --drop-id bot --drop-id c",
    ]
    again = asked(tmp_path, BOUGHT, OWN, where=("qty > 5",), drop_ids=("bot",))
    assert sessions(again) == {"v": ["a", "c"]} and len(again.notes) == 2


def test_a_condition_of_the_models_log_that_the_file_lacks_is_said(tmp_path: Path) -> None:
    text = BOUGHT.replace("qty", "quantity")
    found = asked(tmp_path, text, OWN, where=("shop = 'A'",))
    assert sessions(found) == {"v": ["a", "b"]}
    lacking = "--where 'qty > 5' of the model's log cannot be applied"
    assert f"{lacking}: {tmp_path}/live.csv has no column 'qty'" in found.notes


def test_what_was_text_in_the_models_log_is_text_in_a_file_of_few_rows(tmp_path: Path) -> None:
    """Its codes were 10A and the like; two rows of the file may all be numbers."""
    log = LOG | {"time_format": None, "where": ["sku >= '2'"]}
    text = "visitor,sku,when\nv,10,1\nv,9,2\n"
    assert sessions(asked(tmp_path, text, log)) == {"v": ["9"]}
    with pytest.raises(DataError, match=r"'sku' holds numbers.*write it unquoted"):
        asked(tmp_path, text, LOG | {"time_format": None}, where=("sku >= '2'",))


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("day >= '2020-01-01'", ["9/1/2021", "2021-05-01"]),  # as by letters
        ("day >= '6/1/2020'", ["9/1/2021"]),
    ],
)
def test_a_condition_of_the_models_log_is_not_refused(
    tmp_path: Path, where: str, left: list[str]
) -> None:
    """A paropt before this one read its log by it, and nobody can take it back."""
    text = "visitor,sku,when,day\nv,a,1,9/1/2021\nv,b,2,2021-05-01\nv,c,3,10/1/2019\n"
    log = LOG | {"time_format": None, "where": [where]}
    skus = {"9/1/2021": "a", "2021-05-01": "b"}
    assert sessions(asked(tmp_path, text, log)) == {"v": [skus[day] for day in left]}
    with pytest.raises(DataError, match="write"):
        asked(tmp_path, text, LOG | {"time_format": None}, where=(where,))


def test_sessions_that_were_cut_at_gaps_are_their_last_visit(tmp_path: Path) -> None:
    log = LOG | {"time_format": None, "session_gap_ms": 1_800_000}
    rows = [("v", "a", 0), ("v", "b", 60), ("v", "c", 9000), ("v", "d", 20000), ("v", "e", 20060)]
    rows += [("w", "f", 0), ("w", "g", 1800)]
    text = "visitor,sku,when\n" + "".join(f"{v},{i},{1_400_000_000 + t}\n" for v, i, t in rows)
    found = asked(tmp_path, text, log)
    assert sessions(found) == {"v": ["d", "e"], "w": ["f", "g"]}
    assert "1 session paused for more than 30 minutes" in found.notes[0]


def test_rows_can_be_left_out_as_in_prepare(tmp_path: Path) -> None:
    text = "visitor,sku,when,n\nv,a,1,1\nv,,2,1\nv,b,3,-1\ntorn\n"
    found = asked(
        tmp_path,
        text,
        LOG | {"time_format": None},
        drop_missing=True,
        where=("n > 0",),
        skip_bad_rows=True,
    )
    assert sessions(found) == {"v": ["a"]}
    assert any("1 bad row" in note and "live.csv:5" in note for note in found.notes)
    assert any("--drop-missing" in note for note in found.notes)
    with pytest.raises(DataError, match="--skip-bad-rows leaves such rows out"):
        asked(tmp_path, text, LOG)


def test_rows_are_left_out_as_in_the_models_own_log(tmp_path: Path) -> None:
    own = {
        "time_format": None,
        "drop_missing": True,
        "drop_ids": ["gift"],
        "skip_bad_rows": True,
        "where": ["n > 0", "elsewhere > 0"],  # the second one's column is not in this file
    }
    text = "visitor,sku,when,n\nv,a,1,1\nv,,2,1\nv,b,3,-1\nv,gift,4,1\nv,unknown,5,1\ntorn\n"
    assert sessions(asked(tmp_path, text, LOG | own)) == {"v": ["a"]}
    own["words_are_ids"] = True
    assert sessions(asked(tmp_path, text, LOG | own)) == {"v": ["a", "unknown"]}


def test_items_that_match_nothing_are_refused_with_both_spellings(tmp_path: Path) -> None:
    found = asked(tmp_path, "visitor,sku,when\nv,77.0,1\nv,100.0,2\n", LOG | {"time_format": None})
    with pytest.raises(DataError, match=r"none of the 2 items in column 'sku'.*'77.0'.*'i1'"):
        found.refuse_strangers(["i1", "i2"])
    with pytest.raises(DataError, match=r"written as '100.0' there, and as '100' in the model"):
        found.refuse_strangers(["1", "100"])
    found.refuse_strangers(["77.0"])


def test_parquet_has_the_same_ids_as_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"visitor": [1, 1], "sku": [5.0, 7.0], "when": [2, 1]})
    frame.to_parquet(tmp_path / "live.parquet")
    found = read_asked(tmp_path / "live.parquet", Options(), LOG | {"time_format": None})
    assert sessions(found) == {"1": ["7", "5"]}


def test_names_come_from_a_table_of_items(tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("sku,Product Name,brand\na,Red shoe,x\nb,,y\n")
    assert read_names(table, "sku", None) == {"a": "Red shoe", "b": ""}
    assert read_names(table, "sku", "brand") == {"a": "x", "b": "y"}
    table.write_text("sku,brand\na,x\n")
    with pytest.raises(
        DataError, match=r"clearly the items' name \(it has sku, brand\); .*--names"
    ):
        read_names(table, "sku", None)


def test_a_file_is_looked_at_without_torch(tmp_path: Path) -> None:
    """What is wrong with it is said at once: torch takes seconds to import."""
    code = (
        "import sys, pathlib\n"
        "import paropt.cli.recommend, paropt.data.log.sessions_file\n"
        "import paropt.training.saved_model.header\n"
        "paropt.data.log.sessions_file.read_asked(pathlib.Path(sys.argv[1]))\n"
        "print(sorted({'torch', 'optuna'} & set(sys.modules)))\n"
    )
    path = tmp_path / "live.csv"
    path.write_text("SessionId,ItemId,Time\n1,2,1400000000\n")
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("column", "named"),
    [("title", True), ("movie_title", True), ("ProductName", True), ("brand_name", False)],
)
def test_columns_of_names_are_told_by_their_own(column: str, named: bool) -> None:
    assert is_name(column) == named
