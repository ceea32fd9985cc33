"""Copies of checkpoints in a store: in order, whole, and gone when nobody needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.launch.opening.checkpoint_place import checkpoint_place
from paropt.machine.remote import Remote, RemoteError
from paropt.worker.checkpoint_store import CheckpointStore, StoreCleaner


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    path.with_suffix(".json").write_text("{}")
    return path


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_the_newest_attempt_comes_first_and_nothing_is_left_over(tmp_path: Path) -> None:
    place, here = tmp_path / "store", tmp_path / "here"
    store = CheckpointStore(place.as_uri())
    for attempt in (1, 2):
        store.offer(written(here / f"4-{attempt}.ckpt", f"attempt {attempt}"))
    store.offer(written(here / "4-2.ckpt", "attempt 2, later"))
    assert (store.trouble, store.warning()) == ("", None)
    assert names(here) == names(place) == ["4-1.ckpt", "4-1.json", "4-2.ckpt", "4-2.json"]
    found = store.candidates(tmp_path / "there" / "4-9.ckpt", [])
    assert [path.read_text() for path in found] == ["attempt 2, later", "attempt 1"]
    own = here / "4-2.ckpt"
    assert next(store.candidates(here / "4-3.ckpt", [own])) == own
    assert next(store.candidates(tmp_path / "new" / "4-3.ckpt", [own])) == own  # an earlier folder


def test_a_store_that_fails_is_said_once_and_again_after_it_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RemoteError("the credentials have expired")

    store = CheckpointStore((tmp_path / "store").as_uri())
    checkpoint = written(tmp_path / "here" / "4-1.ckpt", "one")
    for _ in range(2):
        with monkeypatch.context() as broken:
            broken.setattr(Remote, "store", refuse)
            store.offer(checkpoint, last=True)
            assert "have expired" in (store.warning() or "")
            store.offer(checkpoint, last=True)
            assert store.warning() is None
        store.offer(checkpoint, last=True)
        assert (store.trouble, store.warning()) == ("", None)
    assert names(tmp_path / "here") == ["4-1.ckpt", "4-1.json"]


def test_a_store_that_cannot_be_read_is_no_store_without_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RemoteError("nobody answers")

    monkeypatch.setattr(Remote, "fetch", refuse)
    here = written(tmp_path / "4-1.ckpt", "one")
    found = CheckpointStore(tmp_path.as_uri()).candidates(tmp_path / "4-3.ckpt", [here])
    assert next(found) == here
    with pytest.raises(RemoteError, match="nobody answers"):
        next(found)


def test_what_nobody_needs_goes_and_what_began_later_stays(tmp_path: Path) -> None:
    for name in ("4-1.ckpt", "4-2.ckpt", "7-1.ckpt", "8-1.ckpt", "9-1.ckpt"):
        written(tmp_path / name, "")
    (tmp_path / "other").touch()
    cleaner = StoreCleaner(tmp_path.as_uri())
    cleaner.remove(4, 2)
    cleaner.sweep({7}, newest=8)
    cleaner.close(10)
    assert names(tmp_path) == ["7-1.ckpt", "7-1.json", "9-1.ckpt", "9-1.json", "other"]


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("s3://key:word@bucket/x", "takes no credentials"),
        ("file:///x?signature=word", "takes no credentials"),
        ("nonsense://x/y", "cannot be used here"),
        ("file://", "names no place"),
    ],
)
def test_places_that_cannot_be_meant(word: str, why: str) -> None:
    with pytest.raises(ParoptError, match=why) as caught:
        checkpoint_place(word)
    assert "word" not in str(caught.value)
