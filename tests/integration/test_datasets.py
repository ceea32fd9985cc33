"""``--data`` with event files: prepared on the fly, kept by content, refused with what to do."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from paropt.data import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError
from paropt.launch.data.data_source import EventFiles, named_data

PREPARE = """
import sys
from pathlib import Path
from paropt.launch.data.data_source import named_data
sys.stdin.readline()
said = []
print(named_data(sys.argv[1], said.append))
print(any("prepared before" in line for line in said))
"""


def rows(sessions: int = 60) -> list[str]:
    """Over a week, four events each, on a ring of six items."""
    return [
        f"{session}\t{(session + step) % 6}\t{1_700_000_000 + session * 10_000 + step}"
        for session in range(sessions)
        for step in range(4)
    ]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "events.tsv"
    path.write_text("\n".join(["SessionId\tItemId\tTime", *rows()]) + "\n")
    return path


def tree(root: Path) -> dict[str, int]:
    """Every file below, with the time of its last change."""
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_a_log_is_prepared_as_prepare_would_and_kept(
    log: Path, paropt_home: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    made = named_data(str(log), said.append)
    assert made.parent == paropt_home / "datasets" and made.name.startswith("events-")
    assert open_dataset(made).fingerprint == prepare([log], tmp_path / "by-hand").fingerprint
    preparing, *warnings, found = said
    assert all(line.startswith("warning: ") for line in warnings)
    assert "format generic (SessionId, ItemId and Time); the last 1 day for test" in preparing
    assert open_dataset(made).fingerprint[:12] in found and str(made) in found
    before = tree(paropt_home)
    said.clear()
    copy = tmp_path / "elsewhere" / "events.tsv"
    copy.parent.mkdir()
    copy.write_bytes(log.read_bytes())
    assert named_data(copy, said.append) == made
    assert "was prepared before" in said[0] and tree(paropt_home) == before
    assert said[1:-1] == warnings, "what is to be known of it is said each time"
    copy.write_text(copy.read_text().replace("59\t", "99\t"))
    assert named_data(copy) != made, "other content is another dataset"
    assert not list(paropt_home.rglob("*.lock"))


def test_options_are_part_of_what_is_kept(log: Path, paropt_home: Path) -> None:
    """One log read in two ways is two datasets; without options it is where 0.1 kept it."""
    plain = named_data(log)
    assert plain == named_data(EventFiles((str(log),), Options()))
    said: list[str] = []
    other = named_data(EventFiles((str(log),), Options(test_days=2)), said.append)
    assert other != plain and other.name.startswith("events-")
    assert open_dataset(other).meta["rules"]["test_days"] == 2
    assert named_data(EventFiles((str(log),), Options(test_days=2))) == other
    with pytest.raises(DataError, match="prepared already, so options"):
        named_data(EventFiles((str(plain),), Options(test_days=2)))
    assert len(list((paropt_home / "datasets").iterdir())) == 2


def test_guessed_columns_are_said_each_time(tmp_path: Path, paropt_home: Path) -> None:
    log = tmp_path / "my events.csv"
    lines = [line.replace("\t", ",") for line in rows()]
    log.write_text("\n".join(["session_id,product_id,ts", *lines]) + "\n")
    first: list[str] = []
    again: list[str] = []
    assert named_data(log, first.append) == named_data(log, again.append)
    taken = "columns taken: sessions 'session_id', items 'product_id', times 'ts'"
    change = (
        f"to change it: paropt prepare '{log}' --session-key session_id --item-key product_id"
        " --time-key ts --out DIR"
    )
    assert taken in first and change in first
    assert taken in again and change in again


def test_directories_of_parquet_and_pipes_are_logs_too(
    log: Path, paropt_home: Path, tmp_path: Path
) -> None:
    table = pyarrow.csv.read_csv(log, parse_options=pyarrow.csv.ParseOptions(delimiter="\t"))
    (tmp_path / "parts" / "day=1").mkdir(parents=True)
    pyarrow.parquet.write_table(table, tmp_path / "parts" / "day=1" / "a.parquet")
    whole = open_dataset(named_data(log))
    assert open_dataset(named_data(tmp_path / "parts")).fingerprint == whole.fingerprint
    pipe = tmp_path / "events"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as writer:
        writer.submit(pipe.write_bytes, log.read_bytes())
        assert open_dataset(named_data(pipe)).fingerprint == whole.fingerprint


def test_several_files_are_one_log(log: Path, paropt_home: Path, tmp_path: Path) -> None:
    head, *lines = log.read_text().splitlines()
    halves = [tmp_path / "a.tsv", tmp_path / "b.tsv.gz"]
    halves[0].write_text("\n".join([head, *lines[:120]]))
    halves[1].write_bytes(gzip.compress("\n".join([head, *lines[120:]]).encode()))
    whole = open_dataset(named_data(log))
    assert open_dataset(named_data(halves)).fingerprint == whole.fingerprint
    assert named_data(halves) != named_data(halves[::-1]), "their order is part of the log"


def test_a_public_log_is_recognised(paropt_home: Path, tmp_path: Path) -> None:
    log = tmp_path / "u.data"
    log.write_text(
        "\n".join(
            f"{user}\t{item}\t4\t{880_000_000 + 100 * user + item}"
            for user in range(1, 8)
            for item in range(1, 7)
        )
    )
    said: list[str] = []
    made = open_dataset(named_data(log, said.append))
    assert made.protocol == "leave-one-out" and made.meta["format_name"] == "movielens-100k"
    assert "format movielens-100k" in said[0] and "last event is for test" in said[0]


def test_two_at_once_make_one(log: Path, paropt_home: Path) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE, str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()
    answers = [one.communicate(timeout=60)[0].split() for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert answers[0][0] == answers[1][0]
    assert sorted(before for _, before in answers) == ["False", "True"]
    (kept,) = (paropt_home / "datasets").iterdir()
    assert str(kept) == answers[0][0]


def test_a_damaged_one_is_made_again(log: Path, paropt_home: Path) -> None:
    made = named_data(log)
    (made / "splits" / "train" / "items.npy").write_bytes(b"")
    assert named_data(log) == made
    open_dataset(made).verify()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a,b,c\n1,2,3\n", ["clearly its sessions, items and times", "it has a, b, c",
                             "--session-key, --item-key and --time-key"]),
        (b"SessionId\tItemId\tBought\n1\t2\t3\n", ["--time-key", "--order-column"]),
        (b"session_id,visit_id,item,ts\n1,2,3,4\n", ["'session_id' or 'visit_id'"]),
        (b"SessionId\tItemId\tTime\n1\t2\tnoon\n", [":2:", "'Time'", "'noon'", "--time-format"]),
        (b"SessionId\tItemId\tTime\n1\t2\t3\n1\t3\t4\n", ["--min-support 5 decides"]),
        (b"", ["is empty"]),
        (b"SessionId\tItemId\tTime\n", ["header but no events"]),
        (b"\x7fELF\0\0\0", ["binary file"]),
        (b"\x80\x04\x95", ["is a pickle, which paropt never loads"]),
        (gzip.compress(b"SessionId\tItemId\tTime\n" + b"1\t2\t3\n" * 500, mtime=0)[:-20],
         ["cut short or damaged"]),
    ],
)  # fmt: skip
def test_what_is_no_log_is_refused_and_leaves_nothing(
    content: bytes, words: list[str], paropt_home: Path, tmp_path: Path
) -> None:
    log = tmp_path / "mine.csv"
    log.write_bytes(content)
    with pytest.raises(DataError) as refused:
        named_data(log)
    for word in words:
        assert word in str(refused.value), str(refused.value)
    assert "\n" not in str(refused.value)
    assert not paropt_home.exists()
    assert list(tmp_path.iterdir()) == [log]


def test_what_is_not_there_or_no_file(log: Path, paropt_home: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not exist; did you mean .*events\.tsv\?"):
        named_data(tmp_path / "event.tsv")
    with pytest.raises(DataError, match="give event files, or a directory"):
        named_data("/nowhere/at/all")
    with pytest.raises(DataError, match="is a directory among others"):
        named_data([log, tmp_path])
    with pytest.raises(DataError, match="no regular file"):
        named_data("/dev/null")
    assert not paropt_home.exists()


def test_a_home_that_cannot_be_written_is_said(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(DataError, match="set PAROPT_HOME"):
        named_data(log)


def test_demo_is_the_demo_set_in_a_space_and_a_folder_where_one_is_named(
    paropt_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    """A folder of that name in the current directory is not what ``demo.json`` means."""
    from paropt.launch.opening.launch_request import LaunchRequest, find_data
    from paropt.search.space import shipped
    from paropt.search.space.file import read_space

    prepare([log], tmp_path / "demo")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert named_data("demo", said.append) == Path("demo")
    assert "not the demo set" in said[0]
    space = shipped.spaces()["demo"]
    made = find_data(LaunchRequest(space=space), read_space(space))
    assert made == paropt_home / "datasets" / "demo"
    assert open_dataset(made).n_items("train") > 6


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers that train nothing."""
    program = Path(__file__).parents[1] / "scripted_trainer.py"
    monkeypatch.setenv("PAROPT_TRAINER", f"{sys.executable} {program}")


@pytest.mark.usefixtures("scripted")
def test_from_a_log_to_a_study_in_one_line(
    log: Path, paropt_home: Path, database_url: str, run_paropt: Callable[..., Any], tmp_path: Path
) -> None:
    """A space is made and recorded; the second launch goes on with it, by data or by name."""
    words = ["--storage", database_url, "--devices", "cpu", "--per-device", "1"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    first = run_paropt("launch", "--data", log, "--trials", "1", "--json", *words, cwd=elsewhere)
    assert first.rc == 0, first.err
    made = json.loads(first.out)
    assert (
        made["study"].startswith("auto-events-")
        and made["model"] == "session_knn/markov/item_knn/gru4rec/sasrec/hstu"
    )
    assert "no --space, so one is made" in first.err
    assert "half of the events are in histories of up to" in first.err
    assert "few" in first.err and "preparing" in first.err
    again = run_paropt("launch", "--data", log, "--trials", "2", "--json", *words)
    assert again.rc == 0, again.err
    assert json.loads(again.out)["study"] == made["study"]
    assert "prepared before" in again.err and "goes on" in again.err
    assert "so one is made" not in again.err, "the study has its own space"
    named = run_paropt("launch", "--study", made["study"], "--trials", "3", "--json", *words)
    assert named.rc == 0 and json.loads(named.out)["counts"]["complete"] == 3, named.err
    fixed = run_paropt("launch", "--data", log, "--fixed", "n_epochs=1", *words)
    assert fixed.rc == 1 and "--fixed changes a space" in fixed.err
    other = run_paropt("launch", "--study", "nix", "--trials", "3", *words)
    assert other.rc == 1 and "there is no study 'nix'" in other.err
