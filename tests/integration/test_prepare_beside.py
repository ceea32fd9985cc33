"""``prepare`` on the command line: tables, vectors, users and columns, and what it says of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paropt.data import open_dataset

DAY = 86_400


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    lines = ["SessionId,user,ItemId,act,shop,Time"]
    for session in range(12):
        for at, item in enumerate("abcd"):
            time = 1_700_000_000 + session * DAY // 2 + at
            lines.append(f"{session},u{session % 3},{item},{'vb'[at % 2]},s{item},{time}")
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "items.dat").write_text("a::Red hat::x|y\nb::Blue hat::x\nc::A cap::z\n")
    (tmp_path / "users.csv").write_text("uid,age\nu0,30\nu1,40\n")
    vectors = [{"article": item, "v": [at, 1.5]} for at, item in enumerate("abc")]
    (tmp_path / "look.jsonl").write_text("".join(json.dumps(one) + "\n" for one in vectors))
    return tmp_path


OPTIONS = (
    *("log.csv", "--out", "out", "--min-support", 1, "--user-key", "user"),
    *("--keep-column", "act", "--item-column", "shop", "--item-features", "items.dat"),
    *("--item-features-header", "article,title,tags", "--item-features-key", "article"),
    *("--list-separator", "|", "--kind", "title=text", "--item-vectors", "look=look.jsonl"),
    *("--user-features", "users.csv", "--user-features-key", "uid"),
)


def test_everything_at_once(files: Path, cli: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = cli("prepare", *OPTIONS, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["users"] == 3
    kept = {(f["of"], f["name"]): (f["kind"], f["size"], f["missing"]) for f in found["fields"]}
    assert kept == {
        ("events", "act"): ("category", 2, None),
        ("items", "title"): ("text", 0, 1),
        ("items", "tags"): ("categories", 3, 1),
        ("items", "shop"): ("category", 4, 0),
        ("items", "look"): ("vector", 2, 1),
        ("users", "age"): ("number", 0, 1),
    }
    for line in (
        "items.dat: 1 of 4 items have no row",
        "users.csv: 1 of 3 users have no row",
        "look.jsonl: 1 of 4 items have no vector",
    ):
        assert line in err.splitlines()
    open_dataset("out").verify()
    code, out, _ = cli("prepare", *OPTIONS, "--overwrite")
    assert code == 0
    (row,) = [line.split() for line in out.splitlines() if line.startswith("tags")]
    assert row == ["tags", "items", "categories", "3", "1"]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--kind", "title=novel"), "--kind title=novel: write NAME=KIND"),
        (("--item-vectors", "title=look.jsonl"), "items have that feature already"),
        (("--item-column", "title"), "log.csv has no column 'title'"),
        (("--text-vectors", "plot"), "--text-vectors"),
        (("--item-features", "gone.csv"), "gone.csv: No such file or directory"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    more: tuple[Any, ...],
    sentence: str,
    files: Path,
    cli: Callable[..., tuple[int, str, str]],
) -> None:
    before = sorted(files.iterdir())
    code, out, err = cli("prepare", *OPTIONS, *more)
    assert (code, out) == (1, "")
    assert sentence in err.splitlines()[-1]
    assert sorted(files.iterdir()) == before
