"""``--data URL``: fetched once, whole and as its fingerprint says, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import DataError
from paropt.launch.data.data_source import named_data
from paropt.launch.opening.launch_request import LaunchRequest
from paropt.launch.opening.open_study import create_or_resume, join
from paropt.machine.remote import Remote, RemoteError, public


@pytest.fixture
def there(ring: Path, tmp_path: Path) -> Path:
    """A dataset directory that lies elsewhere, as a test may change it."""
    return Path(shutil.copytree(ring, tmp_path / "there" / "shop"))


@pytest.fixture
def said() -> list[str]:
    return []


def test_a_directory_is_fetched_once(there: Path, paropt_home: Path, said: list[str]) -> None:
    first = named_data(there.as_uri(), said.append)
    assert first.parent == paropt_home / "datasets" and first.name.startswith("shop-")
    assert {p.relative_to(first) for p in first.rglob("*")} == {
        p.relative_to(there) for p in there.rglob("*")
    }
    inode = (first / "meta.json").stat().st_ino
    assert named_data(there.as_uri() + "/", said.append) == first
    assert (first / "meta.json").stat().st_ino == inode
    assert ["fetching" in said[0], "fetched before" in said[1]] == [True, True]


def test_a_log_is_fetched_and_prepared(ring: Path, paropt_home: Path, said: list[str]) -> None:
    url = (ring.parent / "log.tsv").as_uri()
    made = named_data(url, said.append)
    meta = json.loads((made / "meta.json").read_text())
    assert meta["fingerprint"] == json.loads((ring / "meta.json").read_text())["fingerprint"]
    assert named_data(url, said.append) == made
    assert any("fetched before" in line for line in said)


def cut(there: Path) -> None:
    path = there / "splits/train/items.npy"
    path.write_bytes(path.read_bytes()[:-4])


def change(there: Path) -> None:
    path = there / "splits/train/items.npy"
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def climb(there: Path) -> None:
    meta = json.loads((there / "meta.json").read_text())
    meta["files"]["../../outside"] = 3
    (there / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda there: (there / "items.parquet").unlink(), "there is no .*items.parquet"),
        (lambda there: (there / "meta.json").write_text("{"), "its meta.json is damaged"),
        (lambda there: (there / "meta.json").unlink(), "neither a log, nor a dataset"),
        (cut, "not whole, or was changed"),
        (change, "not whole, or was changed"),
        (climb, "names ../../outside"),
    ],
)
def test_what_is_not_whole_is_refused_and_leaves_nothing(
    there: Path, paropt_home: Path, damage: Callable[[Path], Any], why: str
) -> None:
    damage(there)
    with pytest.raises(DataError, match=why):
        named_data(there.as_uri())
    assert not list(paropt_home.glob("datasets/*"))


def test_what_a_killed_fetch_left_is_no_dataset(there: Path, paropt_home: Path) -> None:
    path = named_data(there.as_uri())
    left = path.with_name(f".{path.name}.fetch.dead")
    path.rename(left)
    assert named_data(there.as_uri()) == path
    assert not left.exists()


def test_workers_find_the_url_in_the_study(
    there: Path, paropt_home: Path, database_url: str, tmp_path: Path, said: list[str]
) -> None:
    space = tmp_path / "small.json"
    space.write_text(
        '{"model": "sasrec", "search": {"blocks": {"type": "int", "low": 1, "high": 2}}}'
    )
    wish = LaunchRequest(space, there.as_uri(), "far", storage=database_url)
    with create_or_resume(wish, said.append) as opened:
        assert opened.study.definition.data_path == there.as_uri()
        here = opened.data
    shutil.rmtree(here)  # as on another machine
    with join("far", database_url, None, said.append) as joined:
        assert joined.data == here and here.exists()
    shutil.rmtree(there)  # what is here needs nobody's leave
    with join("far", database_url, None, said.append) as joined:
        assert joined.data == here


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:word@host:8/a/b/?X-Amz-Signature=abc#x", "https://host:8/a/b"),
        ("s3://bucket/shop", "s3://bucket/shop"),
        ("file:///data/shop/", "file:///data/shop"),
    ],
)
def test_urls_are_shown_without_credentials(url: str, shown: str) -> None:
    assert public(url) == shown


def test_an_error_repeats_no_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    class Files:
        def cat_file(self, url: str) -> bytes:
            raise ValueError(f"403 for {url} and word and abc+d")

    remote = Remote("https://me:word@host/a?Signature=abc%2Bd")
    monkeypatch.setattr(remote, "_fs", Files())
    with pytest.raises(RemoteError, match=r"https://host/a/meta\.json cannot be read") as caught:
        remote.read("meta.json")
    assert not any(secret in str(caught.value) for secret in ("word", "abc", "me:"))
