"""``paropt prepare`` as a user meets it: what it prints, what it refuses, what is on the disk."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from paropt.data import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare, prepare_demo
from paropt.errors import DataError

HEADER = "SessionId\tItemId\tTime"
# 30 sessions, one every three and a half hours, each looking at three of five items. The last day
# before the last event holds the starts of 7 sessions (6 · 3.5 h = 21 h), as does the day before.
ROWS = [
    (s, 50 + (s + step) % 5, 1_000_000_000 + s * 12_600 + step * 60)
    for s in range(1, 31)
    for step in range(3)
]
LINES = ["\t".join(map(str, row)) for row in ROWS]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.tsv"
    path.write_text("\n".join([HEADER, *LINES]) + "\n")
    return path


def test_the_table(run_paropt: Callable[..., object], log: Path) -> None:
    done = run_paropt("prepare", log, "--out", log.parent / "shop")
    assert done.rc == 0
    funnel, splits = done.out.split("\n\n")[:2]
    steps = [line.split() for line in funnel.splitlines()]
    assert steps[0] == ["after", "events", "sessions", "items", "decided", "by"]
    assert steps[1] == ["read", "90", "30", "5"]
    assert steps[-1] == ["split", "90", "30", "5", "--test-days", "1"]
    lines = [line.split() for line in splits.splitlines()]
    assert " ".join(lines[0]) == "split events sessions items targets known density span"
    assert lines[1][:5] == ["train_full", "69", "23", "5", "46"]
    assert lines[2][:5] == ["test", "21", "7", "5", "14"]
    assert lines[3][:5] == ["train", "48", "16", "5", "32"]
    assert lines[4][:5] == ["valid", "21", "7", "5", "14"]
    assert lines[2][5:7] == ["14", "60.000%"]
    assert "warning: test has 14 targets, fewer than 1,000" in done.err
    assert f"paropt launch --data {log.parent}/shop" in done.out
    assert open_dataset(log.parent / "shop").fingerprint in done.out


def test_json_has_stable_keys(cli: Callable[..., tuple[int, str, str]], log: Path) -> None:
    code, out, err = cli("prepare", log, "--out", log.parent / "shop", "--json")
    printed = json.loads(out)
    assert code == 0
    assert printed["warnings"] == [line.removeprefix("warning: ") for line in err.splitlines()]
    dataset = open_dataset(log.parent / "shop")
    assert printed["funnel"] == dataset.meta["funnel"]
    assert printed["fingerprint"] == dataset.fingerprint
    test = {"events": 21, "sessions": 7, "items": 5, "targets": 14, "known_targets": 14}
    assert printed["splits"]["test"] == test
    assert set(printed["splits"]) == {"train", "valid", "train_full", "test"}


def test_headers_beside_names_for_the_columns_are_no_rows(log: Path, tmp_path: Path) -> None:
    """Of two files that begin with one, ``ItemId`` would be an item of two events."""
    bare, again = tmp_path / "bare.tsv", tmp_path / "again.tsv"
    bare.write_text("\n".join(LINES[:60]) + "\n")
    again.write_text("\n".join([HEADER, *LINES[60:]]) + "\n")
    options = Options(names=("SessionId", "ItemId", "Time"), rows_in_order=True)
    with pytest.raises(DataError, match=r"again\.tsv begins with a header line of its own"):
        prepare([bare, again], tmp_path / "out", options=options)
    assert not (tmp_path / "out").exists()
    again.write_text("\n".join(LINES[60:]) + "\n")
    assert len(prepare([bare, again], tmp_path / "out", options=options).item_ids()) == 5


def test_a_form_of_times_that_overlooks_am_and_pm_is_refused(tmp_path: Path) -> None:
    """03:10 PM would be read as ten past three in the night."""
    log = tmp_path / "log.csv"
    rows = [f"{s},{item},{s % 28 + 1:02}/11/2023 03:10 PM" for s, item, _ in ROWS]
    log.write_text("\n".join(["SessionId,ItemId,Time", *rows]) + "\n")
    wrong, right = "%d/%m/%Y %H:%M %p", "%d/%m/%Y %I:%M %p"
    with pytest.raises(DataError, match=r"without its AM or PM .*%p counts only with %I"):
        prepare([log], tmp_path / "out", options=Options(time_format=wrong))
    assert not (tmp_path / "out").exists()
    dataset = prepare([log], tmp_path / "out", options=Options(time_format=right))
    last = dataset.meta["splits"]["test"]["last"]
    assert last == np.datetime64("2023-11-28T15:10", "ms").astype(np.int64)


def test_the_same_content_and_rules_have_the_same_fingerprint(log: Path, tmp_path: Path) -> None:
    (tmp_path / "crlf.tsv").write_bytes(log.read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "bom.tsv").write_bytes(b"\xef\xbb\xbf" + log.read_bytes())
    (tmp_path / "packed.gz").write_bytes(gzip.compress(log.read_bytes()))
    halves = [log.read_bytes()[:500], log.read_bytes()[500:]]
    (tmp_path / "members.gz").write_bytes(b"".join(map(gzip.compress, halves)))
    quoted = [",".join(f'"{value}"' for value in row) for row in ROWS]
    (tmp_path / "quoted.csv").write_text("\n".join(["SessionId,ItemId,Time", *quoted]))
    columns = dict(zip(HEADER.split("\t"), zip(*ROWS, strict=True), strict=True))
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    pa.parquet.write_table(table, tmp_path / "typed.parquet")
    stamps = table.set_column(2, "Time", table["Time"].cast(pa.timestamp("s")))
    pa.parquet.write_table(stamps, tmp_path / "stamps.parquet")
    (tmp_path / "ms.tsv").write_text(
        "\n".join([HEADER, *(f"{s}\t{i}\t{t}000" for s, i, t in ROWS)])
    )
    first = prepare([log], tmp_path / "first").fingerprint
    texts = ["crlf.tsv", "bom.tsv", "packed.gz", "members.gz", "quoted.csv", "ms.tsv"]
    for name in [*texts, "typed.parquet", "stamps.parquet"]:
        dataset = prepare([tmp_path / name], tmp_path / f"out-{name}")
        assert dataset.fingerprint == first, name
        dataset.verify()
    other = prepare([log], tmp_path / "other", options=Options(min_support=6))
    assert other.fingerprint != first


# -- bad input ------------------------------------------------------------------------------

AT_7 = [HEADER, *LINES[:5]]


def _gz(text: str) -> bytes:
    return gzip.compress(text.encode())


WHOLE = "\n".join([HEADER, *LINES * 200])
BAD: dict[str, tuple[bytes, str]] = {
    "empty.tsv": (b"", "empty.tsv is empty"),
    "blank.tsv": (b"\n\n", "blank.tsv is empty"),
    "header.tsv": (HEADER.encode(), "header.tsv has a header but no events"),
    "twice.tsv": (b"SessionId\tItemId\tItemId\n1\t2\t3\n", "twice.tsv:1: .*'ItemId' twice"),
    "column.tsv": (b"Foo\tBar\tBaz\n1\t2\t3\n", "column.tsv names no column that is clearly its"),
    "time.tsv": ("\n".join([*AT_7, "9\t9\tnoon"]).encode(), "time.tsv:7: column 'Time': 'noon'"),
    "ragged.tsv": ("\n".join([*AT_7, "9\t9"]).encode(), "ragged.tsv:7: 2 fields where 3"),
    "mixed.tsv": (
        "\n".join([*AT_7, "9\t51.0\t9"]).encode(),
        "mixed.tsv:7: column 'ItemId': .*'51.0'",
    ),
    "noid.tsv": (
        "\n".join([*AT_7, "\t9\t9"]).encode(),
        "noid.tsv:7: column 'SessionId': .*missing",
    ),
    "nul.tsv": ("\n".join([*AT_7, "\0\t9\t9"]).encode(), "nul.tsv is a binary file"),
    "late.tsv": ((WHOLE + "\n5\t\0\t9").encode(), "late.tsv:18002: column 'ItemId': .*control"),
    "latin.tsv": ("\n".join([*AT_7, "9\té\t9"]).encode("latin-1"), "latin.tsv:7: not UTF-8"),
    "wide.tsv": (WHOLE.encode("utf-16"), "wide.tsv is UTF-16 text"),
    "cut.tsv.gz": (_gz(WHOLE)[:-9], "cut.tsv.gz is cut short or damaged"),
    "half.tsv.gz": (_gz(WHOLE)[:300], "half.tsv.gz is cut short or damaged"),
    "crc.tsv.gz": (_gz(WHOLE)[:-8] + bytes(8), "crc.tsv.gz is cut short or damaged"),
    "zip.csv": (b"PK\x03\x04" + bytes(20), "zip.csv is a zip archive"),
    "stub.parquet": (b"PAR1" + bytes(20), "stub.parquet is a Parquet file cut short"),
    "few.tsv": (
        "\n".join([HEADER, *LINES[:2]]).encode(),
        "none of 2 events is left .*--min-support 5",
    ),
    "day.tsv": ("\n".join([HEADER, *LINES[:30]]).encode(), "the split .* would hold no session"),
    "again.tsv": ("\n".join([*AT_7, HEADER]).encode(), "again.tsv:7: the header is here again"),
    "frame.pickle": (pickle.dumps({}), r"a pickle, .*never loads.*to_parquet\('frame.parquet'\)"),
    "frame.dat": (pickle.dumps({}), "frame.dat is a pickle"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    name: str, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    content, sentence = BAD[name]
    (tmp_path / name).write_bytes(content)
    code, out, err = cli("prepare", tmp_path / name, "--out", tmp_path / "made" / "out")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    with pytest.raises(DataError, match=sentence):
        raise DataError(err)
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["missing.tsv"], 1, "missing.tsv: No such file"),
        (["."], 1, "a directory without Parquet files"),
        (["log.tsv", "--time-key", "When"], 1, "no column 'When'"),
        (["log.tsv", "--session-gap", "soon"], 2, "'soon' is no duration"),
        (["log.tsv", "--end", "2001-02-31"], 2, "'2001-02-31' is no time"),
        (["log.tsv", "--format", "rees64"], 2, "is not one of"),
        (["log.tsv", "--test", "log.tsv"], 1, "give event files, or files that are split already"),
        (
            ["--train", "log.tsv", "--test", "log.tsv"],
            1,
            "are not enough: give train_full and test",
        ),
        (["log.tsv", "--demo"], 2, "leave out the files"),
        ([], 2, "nothing to prepare"),
        (["log.tsv", "--event-column", "ItemId"], 1, "--event-column and --event belong together"),
        (["log.tsv", "--event-column", "ItemId", "--event", "view"], 1, "no row of .* has view"),
        (["log.tsv", "--split-column", "ItemId"], 1, "log.tsv:2: column 'ItemId': '51' names no"),
        (["log.tsv", "--order-column", "Time", "--session-gap", "1h"], 1, "needs times"),
        (["log.tsv", "--protocol", "leave-one-out", "--min-session", "2"], 1, "3 events or more"),
        (["log.tsv", "--item-features", "missing.csv"], 1, "missing.csv: No such file"),
        (["log.tsv", "--test-days", "90"], 1, "choose other --test-days"),
    ],
)
def test_bad_options_are_one_sentence(
    words: list[str],
    code: int,
    sentence: str,
    log: Path,
    cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(log.parent)
    found = cli("prepare", *words, "--out", "out")
    assert found[:2] == (code, "")
    with pytest.raises(DataError, match=sentence):
        raise DataError(found[2])
    assert "Traceback" not in found[2]
    assert os.listdir(log.parent) == ["log.tsv"]


def test_damage_anywhere_is_an_error_or_harmless_but_never_a_crash(log: Path) -> None:
    """Seeded bytes changed in the middle of text, gzip and Parquet files."""
    random = np.random.default_rng(3)
    text = log.read_bytes()
    pa.parquet.write_table(
        pa.table({name: [row[i] for row in ROWS] for i, name in enumerate(HEADER.split("\t"))}),
        log.parent / "log.parquet",
    )
    whole = {
        "text.tsv": text,
        "packed.tsv.gz": gzip.compress(text),
        "typed.parquet": (log.parent / "log.parquet").read_bytes(),
    }
    refused = 0
    for attempt in range(90):
        name = list(whole)[attempt % 3]
        damaged = bytearray(whole[name])
        if attempt % 2:
            del damaged[random.integers(len(damaged)) :]
        for place in random.integers(0, max(1, len(damaged)), 3):
            damaged[place : place + 1] = bytes([random.integers(256)])
        path = log.parent / name
        path.write_bytes(damaged)
        try:
            prepare([path], log.parent / f"out{attempt}")
        except DataError as error:
            refused += 1
            assert str(path) in str(error) or "split" in str(error)
            assert not (log.parent / f"out{attempt}").exists()
    assert refused > 45


# -- the directory --------------------------------------------------------------------------


def test_an_existing_directory_is_only_replaced_when_asked_and_ours(
    log: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    out = log.parent / "out"
    first = prepare([log], out).fingerprint
    code, _, err = cli("prepare", log, "--out", out, "--min-support", "6")
    assert code == 1
    assert "exists; choose another --out, or say --overwrite" in err
    assert open_dataset(out).fingerprint == first
    mapped = open_dataset(out).split("train").items
    before = mapped.tolist()
    assert cli("prepare", log, "--out", out, "--min-session", "1", "--overwrite")[0] == 0
    assert open_dataset(out).fingerprint != first
    assert mapped.tolist() == before  # who had it open still sees what it opened
    foreign = log.parent / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("…")
    code, _, err = cli("prepare", log, "--out", foreign, "--overwrite")
    assert code == 1
    assert "no dataset directory" in err
    assert (foreign / "thesis.tex").exists()
    assert sorted(os.listdir(log.parent)) == ["foreign", "log.tsv", "out"]


def test_a_place_that_cannot_be_written_to(log: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        prepare([log], log / "below" / "a" / "file")


def test_an_error_while_writing_leaves_nothing(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    prepare([log], log.parent / "out")
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(DataError, match="cannot be written: No space left"):
        prepare([log], log.parent / "other")
    with pytest.raises(DataError, match="cannot be written: No space left"):
        prepare([log], log.parent / "out", overwrite=True)
    assert sorted(os.listdir(log.parent)) == ["log.tsv", "out"]
    open_dataset(log.parent / "out").verify()


def test_killed_while_writing_there_is_no_directory(log: Path) -> None:
    """SIGKILL just before the rename: ``out`` is not there by half."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from paropt.data import dataset; from paropt.data.prepare import prepare\n"
        "dataset._put_in_place = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "prepare([Path(sys.argv[1])], Path(sys.argv[2]))"
    )
    out = log.parent / "out"
    done = subprocess.run([sys.executable, "-c", program, log, out])
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    prepare([log], out).verify()


def test_what_is_wrong_with_a_directory_is_said_when_it_is_opened(log: Path) -> None:
    out = log.parent / "out"
    with pytest.raises(DataError, match="does not exist"):
        open_dataset(out)
    with pytest.raises(DataError, match=r"has no meta\.json"):
        open_dataset(log.parent)
    prepare([log], out)
    items = out / "splits" / "train" / "items.npy"
    content = items.read_bytes()
    items.write_bytes(content[:-4])
    with pytest.raises(DataError, match=f"has {len(content) - 4} bytes instead of {len(content)}"):
        open_dataset(out)
    items.write_bytes(content[:-4] + bytes([content[-4] ^ 1, 0, 0, 0]))
    with pytest.raises(DataError, match="has changed since it was prepared"):
        open_dataset(out).verify()
    items.unlink()
    with pytest.raises(DataError, match=r"lacks splits/train/items\.npy"):
        open_dataset(out)
    meta = json.loads((out / "meta.json").read_text())
    (out / "meta.json").write_text(json.dumps(meta | {"format": 0}))
    with pytest.raises(DataError, match="format version 0, this paropt reads 1"):
        open_dataset(out)
    (out / "meta.json").write_text("{")
    with pytest.raises(DataError, match="no dataset directory"):
        open_dataset(out)


def test_opening_reads_no_array(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that opening takes the same for any size, and a search never opens ``test``."""
    out = log.parent / "out"
    prepare([log], out)
    opened: list[str] = []
    load = np.load

    def watched(path: Path, **options: object) -> object:
        opened.append(str(path.relative_to(out)))
        assert options["mmap_mode"] == "r"
        return load(path, **options)

    monkeypatch.setattr(np, "load", watched)
    view = open_dataset(out).view("search")
    assert opened == []
    view.support()
    assert view.test.targets.sum() == 14
    assert opened == ["splits/train/items.npy", "splits/valid/targets.npy"]


# -- split elsewhere, order only, kept columns ----------------------------------------------


def test_split_elsewhere_is_taken_as_it_is(tmp_path: Path, log: Path) -> None:
    """No cleaning: a repeat, a rare item and a session of one event stay."""
    (tmp_path / "train.tsv").write_text(f"{HEADER}\n1\t5\t100\n1\t5\t101\n2\t6\t90\n")
    (tmp_path / "valid.tsv").write_text(f"{HEADER}\n3\t5\t200\n3\t6\t201\n")
    (tmp_path / "test.tsv").write_text(f"{HEADER}\n4\t7\t300\n4\t5\t301\n")
    given = {name: tmp_path / f"{name}.tsv" for name in ("train", "valid", "test")}
    dataset = prepare([], tmp_path / "out", given)
    assert dataset.split("train").session_ids().tolist() == ["2", "1"]
    assert dataset.split("train").items.tolist() == [0, 1, 1]
    assert dataset.split("train_full").n_events == 5
    assert dataset.split("test").items.tolist() == [2, 1]
    all_four = given | {"train_full": tmp_path / "train.tsv"}
    dataset = prepare([], tmp_path / "four", all_four)
    assert dataset.split("train_full").n_events == 3


def test_train_full_and_test_have_valid_cut_by_the_rule(tmp_path: Path, log: Path) -> None:
    test = tmp_path / "test.tsv"
    test.write_text(f"{HEADER}\n99\t51\t2000000000\n99\t52\t2000000001\n")
    dataset = prepare([], tmp_path / "out", {"train_full": log, "test": test})
    assert dataset.split("train_full").n_sessions == 30
    assert dataset.split("valid").n_sessions == 7
    assert dataset.split("train").n_sessions == 23


def test_a_split_column_with_an_order(tmp_path: Path) -> None:
    """Positions restart per session; sessions are in the order of their first rows, and ids
    restart in test. Test has two sessions, so valid is the last one of five (a fifth)."""
    rows = ["session,split,pos,item"]
    for session in (7, 3, 5, 1, 9):
        rows += [f"{session},train,{pos},i{session}{pos}" for pos in (1, 0)]
    for session in (7, 3):
        rows += [f"{session},test,{pos},i{session}{pos}" for pos in (0, 1)]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    options = Options(
        session_key="session", item_key="item", order_column="pos", split_column="split"
    )
    dataset = prepare([tmp_path / "log.csv"], tmp_path / "out", options=options)
    assert not dataset.has_times
    ids = dataset.item_ids()
    assert dataset.split("train").session_ids().tolist() == ["7", "3", "5", "1"]
    assert ids[dataset.split("train").items][:4].tolist() == ["i70", "i71", "i30", "i31"]
    assert dataset.split("valid").session_ids().tolist() == ["9"]
    assert dataset.split("test").session_ids().tolist() == ["7", "3"]
    assert dataset.split("train").times.tolist() == list(range(8))
    assert dataset.split("test").times.tolist() == list(range(10, 14))


def test_columns_and_features_are_kept(tmp_path: Path, log: Path) -> None:
    lines = [
        f"{line}\t{'cart' if n % 3 else 'view'}\t{n / 2}\t{n % 2}" for n, line in enumerate(LINES)
    ]
    log.write_text("\n".join([f"{HEADER}\tkind\tprice\tshop", *lines]))
    features = tmp_path / "items.csv"
    features.write_text("ItemId,price,brand\n50,1.5,acme\n51,,zeta\n53,3,\n99,4,acme\n")
    options = Options(
        keep_columns=("kind", "price", "shop"), categorical=("shop",), item_features=(features,)
    )
    dataset = prepare([log], tmp_path / "out", options=options)
    train = dataset.split("train")
    # session 1, the first, is rows 0 to 2
    assert train.columns["kind"][:3].tolist() == [1, 0, 0]
    assert dataset.vocabulary("column", "kind").tolist() == ["cart", "view"]
    assert train.columns["price"][:3].tolist() == [0.0, 0.5, 1.0]
    assert train.columns["shop"][:3].tolist() == [0, 1, 0]
    assert dataset.vocabulary("column", "shop").tolist() == ["0", "1"]
    by_item = dict(zip(dataset.item_ids(), dataset.features["brand"].tolist(), strict=True))
    assert by_item == {"50": 0, "51": 1, "52": -1, "53": -1, "54": -1}
    assert dataset.vocabulary("feature", "brand").tolist() == ["acme", "zeta"]
    prices = dict(zip(dataset.item_ids(), dataset.features["price"].tolist(), strict=True))
    assert (prices["50"], prices["53"]) == (1.5, 3.0)
    assert np.isnan(prices["51"])
    assert dataset.fingerprint != prepare([log], tmp_path / "plain").fingerprint
    dataset.verify()
    features.write_text("ItemId,price\n50,1\n50,2\n")
    with pytest.raises(DataError, match=r"items\.csv:3: column 'ItemId': item 50 is here twice"):
        prepare([log], tmp_path / "twice", options=options)


# -- the demo set ---------------------------------------------------------------------------


def test_the_demo_set_is_always_the_same(tmp_path: Path) -> None:
    one, other = prepare_demo(tmp_path / "one"), prepare_demo(tmp_path / "other")
    assert one.fingerprint == other.fingerprint
    assert 40_000 < one.split("train_full").n_events < 60_000
    assert 500 < one.n_items("train") <= 1000
    assert one.n_items("train") == one.n_items("test")


def test_in_the_demo_set_memory_beats_the_last_item(tmp_path: Path) -> None:
    """Next items by counting: after the last item, and after the last item of an intent's shelf.

    A model that remembers past showcase items must be far above one that looks one item back;
    popularity is far below both.
    """
    from paropt.data import demo

    log = demo.demo_log()
    session, name, time = (log.column(column).to_numpy() for column in log.column_names)
    order = np.lexsort((time, session))
    session, name, train = session[order], name[order], (time < time.max() - 86_400)[order]
    # showcase items are those that sessions of every intent look at: the most widely preceded
    _, item = np.unique(name, return_inverse=True)
    n = item.max() + 1
    same = session[1:] == session[:-1]
    follows = np.zeros((n, n))
    known = same & train[:-1] & train[1:]
    np.add.at(follows, (item[:-1][known], item[1:][known]), 1)
    showcase = (follows > 0).sum(0) > 60
    assert 60 <= showcase.sum() <= demo.SHOWCASE
    anchor = item.copy()
    for position in np.flatnonzero(showcase[item] & np.r_[False, same]):
        anchor[position] = anchor[position - 1]
    remembered = np.zeros((n, n))
    np.add.at(remembered, (anchor[:-1][known], item[1:][known]), 1)
    popular = np.bincount(item[train], minlength=n) / 1e6
    test = same & ~train[:-1]
    wanted = item[1:][test]

    def mrr(scores: np.ndarray) -> float:
        rank = 1 + (scores > scores[np.arange(len(wanted)), wanted][:, None]).sum(1)
        return float(np.where(rank <= 20, 1 / rank, 0).mean())

    last_item = mrr(follows[item[:-1][test]] + popular)
    memory = mrr(remembered[anchor[:-1][test]] + popular)
    assert mrr(np.tile(popular, (len(wanted), 1))) < 0.1
    assert 0.2 < last_item < 0.32
    assert memory > 1.3 * last_item


# -- the order of the rows ------------------------------------------------------------------

KIND = ["view", "cart", "buy"]


def shuffled(lines: list[str], seed: int) -> list[str]:
    return [lines[n] for n in np.random.default_rng(seed).permutation(len(lines))]


def test_the_order_of_the_rows_does_not_matter_where_times_tell_it(tmp_path: Path) -> None:
    """Sessions begin at equal times, items are first seen at equal times, kinds come in any order:
    nothing of that is in the fingerprint. Only events of one session with one time keep theirs."""
    rows = [
        (f"s{s}", f"i{(s + step) % 5}", s // 4 * 9_000 + step)
        for s in range(120)
        for step in range(4)
    ]
    lines = [f"{s}\t{i}\t{1_000_000_000 + t}\t{KIND[t % 3]}\t{s}" for s, i, t in rows]
    header = f"{HEADER}\tkind\tbuyer"
    options = Options(keep_columns=("kind",), user_key="buyer", test_days=0.3)
    found = set()
    for seed in range(4):
        log = tmp_path / f"log{seed}.tsv"
        log.write_text("\n".join([header, *(shuffled(lines, seed) if seed else lines)]))
        found.add(prepare([log], tmp_path / f"out{seed}", options=options).fingerprint)
    assert len(found) == 1
    tied = [line.replace("\t1000000001\t", "\t1000000000\t") for line in lines]
    for n, order in enumerate((tied, shuffled(tied, 1))):
        log = tmp_path / f"tied{n}.tsv"
        log.write_text("\n".join([header, *order]))
        found.add(prepare([log], tmp_path / f"tied{n}", options=options).fingerprint)
    assert len(found) == 3


def test_rows_in_order_are_an_order(
    tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    """As SASRec's data: user and item, separated by a blank, no header and no time."""
    rows = [(user, (user * step) % 7) for user in range(1, 20) for step in range(6)]
    plain, numbered = tmp_path / "log.txt", tmp_path / "numbered.csv"
    plain.write_text("".join(f"{user} {item}\n" for user, item in rows))
    numbered.write_text(
        "user,item,n\n" + "".join(f"{u},{i},{n}\n" for n, (u, i) in enumerate(rows))
    )
    words = ["--session-key", "user", "--item-key", "item", "--protocol", "leave-one-out"]
    code, _, err = cli("prepare", plain, "--header", "user,item", *words, "--out", tmp_path / "a")
    assert code == 1
    assert err.count("\n") == 1
    assert "--rows-in-order" in err
    whole = [*words, "--rows-in-order", "--out", tmp_path / "a"]
    assert cli("prepare", plain, "--header", "user,item", *whole)[0] == 0
    dataset = open_dataset(tmp_path / "a")
    assert not dataset.has_times
    assert dataset.split("test").session_ids().tolist() == [str(user) for user in range(1, 20)]
    ids = dataset.item_ids()[dataset.split("test").items]
    assert ids.tolist() == [str(item) for _, item in rows]
    assert cli("prepare", numbered, *words, "--order-column", "n", "--out", tmp_path / "b")[0] == 0
    assert open_dataset(tmp_path / "b").fingerprint == dataset.fingerprint
    guessed = ["--protocol", "leave-one-out", "--rows-in-order", "--out", tmp_path / "c"]
    assert cli("prepare", plain, "--header", "user,item", *guessed)[0] == 0
    assert open_dataset(tmp_path / "c").fingerprint == dataset.fingerprint
    both = ["--rows-in-order", "--order-column", "n", "--out", tmp_path / "d"]
    assert "two orders" in cli("prepare", numbered, *words, *both)[2]
