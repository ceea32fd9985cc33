"""Vectors of items: read in every form, stored once, refused in a sentence, never copied."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from numpy.typing import NDArray

from paropt.data import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError
from paropt.training.batches.catalogue import catalogue

IDS = ["d", "x", "b", "a"]  # x is not in the log; c has no vector
VECTORS = np.array([[1, 2, 3], [4, 5, 6], [0.5, -1, 0.25], [7, 8, 9]], np.float32)
# by item a, b, c, d
EXPECTED = [[7, 8, 9], [0.5, -1, 0.25], [0, 0, 0], [1, 2, 3]]


def made(folder: Path, *vectors: str, said: list[str] | None = None) -> Dataset:
    path = folder / "log.tsv"
    lines = ["SessionId\tItemId\tTime"]
    for session in range(12):
        for at, item in enumerate("abcd"):
            lines.append(f"{session}\t{item}\t{1_700_000_000 + session * 43_200 + at}")
    path.write_text("\n".join(lines) + "\n")
    options = Options(min_support=1, item_vectors=vectors)
    note = said.append if said is not None else lambda line: None
    return prepare([path], folder / "out", options=options, note=note, overwrite=True)


def npy(folder: Path, vectors: NDArray[Any] = VECTORS) -> Path:
    np.save(folder / "look.npy", vectors)
    (folder / "look.ids.txt").write_text("\n".join(IDS) + "\n")
    return folder / "look.npy"


def npy_beside(folder: Path) -> Path:
    np.save(folder / "look.npy", VECTORS.astype(np.float64))
    np.save(folder / "look.ids.npy", np.array(IDS))
    return folder / "look.npy"


def parquet(folder: Path) -> Path:
    lists = pa.array(VECTORS.tolist(), pa.list_(pa.float32(), 3))
    pa.parquet.write_table(pa.table({"ItemId": IDS, "v": lists}), folder / "look.parquet")
    return folder / "look.parquet"


def json_lines(folder: Path) -> Path:
    lines = [{"ItemId": i, "emb": v} for i, v in zip(IDS, VECTORS.tolist(), strict=True)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"ItemId": "c"}])
    (folder / "look.jsonl").write_text(text)
    return folder / "look.jsonl"


def parts(folder: Path) -> Path:
    (folder / "emb_81_3").mkdir()
    for number, (one, vector) in enumerate(zip(IDS, VECTORS.tolist(), strict=True)):
        line = json.dumps({"anonymous_cid": one, "emb": vector})
        (folder / "emb_81_3" / f"part-{number}").write_text(line + "\n")
    return folder / "emb_81_3"


@pytest.mark.parametrize("form", [npy, npy_beside, parquet, json_lines, parts])
def test_every_form_gives_the_same_rows(form: Callable[[Path], Path], tmp_path: Path) -> None:
    said: list[str] = []
    dataset = made(tmp_path, f"look={form(tmp_path)}", said=said)
    vectors = catalogue(dataset.view("full")).items.vectors("look")
    assert (vectors.dim, len(vectors), vectors.present) == (3, 4, True)
    assert vectors.missing.tolist() == [False, False, True, False]
    assert vectors.rows(torch.arange(4)).tolist() == EXPECTED
    assert vectors.rows(torch.tensor([[3, 2], [0, 0]]))[0, 0].tolist() == EXPECTED[3]
    told = "1 of 4 items have no vector; 1 vectors are of ids that the log does not have"
    assert any(line.endswith(told) for line in said)
    dataset.verify()


def test_the_stored_rows_are_half_precision_and_in_the_fingerprint(tmp_path: Path) -> None:
    first = made(tmp_path, f"look={npy(tmp_path)}")
    rows = np.load(tmp_path / "out" / "features" / "look" / "rows.npy", mmap_mode="r")
    assert rows.dtype == np.float16 and rows.tolist() == EXPECTED
    second = made(tmp_path, f"look={npy(tmp_path, VECTORS + 1)}")
    bare = made(tmp_path)
    assert len({first.fingerprint, second.fingerprint, bare.fingerprint}) == 3
    made(tmp_path, f"look={npy(tmp_path)}")
    with (tmp_path / "out" / "features" / "look" / "rows.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(DataError, match="has changed since it was prepared"):
        open_dataset(tmp_path / "out").verify()


def test_zero_vectors_count_as_none_and_are_said(tmp_path: Path) -> None:
    vectors = VECTORS.copy()
    vectors[2] = 0
    said: list[str] = []
    dataset = made(tmp_path, f"look={npy(tmp_path, vectors)}", said=said)
    assert dataset.fields("items")["look"].array("missing").tolist() == [False, True, True, False]
    assert any("1 are all zero and count as none" in line for line in said)


@pytest.mark.parametrize(
    ("vectors", "share"),
    [
        (VECTORS, ""),
        (VECTORS * 1000, ""),
        (np.full((4, 3), 0.1), ""),
        (np.full((4, 3), 1e4 + 1), ""),
        # from 8,192 on a float16 counts by eights
        (np.float32([[10_001], [10_002], [10_003], [10_004]]) * np.ones((1, 3), np.float32), "%"),
        (np.float32([[1.2e-7], [2.4e-7], [3.1e-7], [4.5e-7]]) * np.ones((1, 3), np.float32), "%"),
    ],
)
def test_what_rounding_takes_is_said(vectors: NDArray[Any], share: str, tmp_path: Path) -> None:
    said: list[str] = []
    made(tmp_path, f"look={npy(tmp_path, vectors)}", said=said)
    warned = [line for line in said if "float16 takes" in line]
    assert bool(warned) == bool(share)
    if not share:
        return
    kept = vectors[[one in "abcd" for one in IDS]].astype(np.float64)  # those of the log's items
    lost = np.square(kept - kept.astype(np.float16)).sum(1).mean()
    apart = np.square(kept - kept.mean(0)).sum(1).mean()
    assert f"float16 takes {100 * (lost / apart) ** 0.5:.0f} % of what tells" in warned[0]


def bad(value: float) -> NDArray[Any]:
    vectors = VECTORS.copy()
    vectors[3, 1] = value
    return vectors


@pytest.mark.parametrize(
    ("vectors", "sentence"),
    [
        (bad(np.nan), r"1 vectors \(the first is that of item a\) hold NaN or infinity"),
        (bad(np.inf), "hold NaN or infinity"),
        (bad(1e6), "go beyond ±65,504, which float16 does not hold; scale them"),
        (VECTORS * 1e-12, "3 vectors .* vanish in float16; scale them"),
        (VECTORS * 0, "all of its vectors are zero"),
        (VECTORS[:3], "it has 3 vectors, and .* 4 ids"),
        (VECTORS[0], r"it holds float32 \[3\], not rows of numbers"),
        (np.asfortranarray(VECTORS), "it is in Fortran order; save np.ascontiguousarray of it"),
        (VECTORS.astype(object), "cannot be used"),
    ],
)
def test_bad_vectors_are_refused_in_a_sentence(
    vectors: NDArray[Any], sentence: str, tmp_path: Path
) -> None:
    path = npy(tmp_path, vectors)
    with pytest.raises(DataError, match=sentence) as error:
        made(tmp_path, f"look={path}")
    assert "\n" not in str(error.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.tsv", "look.ids.txt", "look.npy"]


def test_two_files_of_ids_have_to_say_the_same(tmp_path: Path) -> None:
    """In two orders, the vectors would be other items'."""
    npy(tmp_path)
    path = npy_beside(tmp_path)
    assert made(tmp_path, f"look={path}")
    np.save(tmp_path / "look.ids.npy", np.array(IDS[::-1]))
    with pytest.raises(
        DataError, match=r"look\.npy has ids in look\.ids\.npy and others in look\."
    ):
        made(tmp_path, f"look={path}")
    named = made(tmp_path, f"look={path},{tmp_path / 'look.ids.txt'}")
    rows = catalogue(named.view("full")).items.vectors("look").rows(torch.arange(4))
    assert rows.tolist() == EXPECTED


def test_other_mistakes_are_refused_in_a_sentence(tmp_path: Path) -> None:
    lines = [{"ItemId": "a", "emb": [1, 2]}, {"ItemId": "b", "emb": [1, 2, 3]}]
    (tmp_path / "odd.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "cut.jsonl").write_text('{"ItemId": "a", "emb": [1, 2')
    (tmp_path / "twice.jsonl").write_text('{"ItemId": "a", "emb": [1.5]}\n' * 2)
    (tmp_path / "bare.npy").write_bytes(npy(tmp_path).read_bytes())
    (tmp_path / "evil.pkl").write_bytes(b"\x80\x04N.")
    np.save(tmp_path / "short.npy", VECTORS)
    (tmp_path / "short.ids.txt").write_text("a\nb\nc\nd\n")
    (tmp_path / "short.npy").write_bytes((tmp_path / "short.npy").read_bytes()[:-5])
    cases = {
        "look=odd.jsonl": "vectors differ in length: 2 for item a, 3 for item b",
        "look=cut.jsonl": "lines 1 to 2048 are no JSON objects with an id and a list",
        "look=twice.jsonl": "item a has two vectors",
        "look=bare.npy": "bare.npy has no ids: put them beside it in bare.ids.txt",
        "look=evil.pkl": "is a pickle; save it as .npy",
        "look=short.npy": "short.npy cannot be used: it is cut short: it should have 4 vectors",
        "look=gone.npy": "gone.npy: No such file",
        "emb_7_32=look.npy": "the name 'emb_7_32' says 32 dimensions and the vectors have 3",
        "look": "'look' is not NAME=FILE or NAME=FILE,IDS",
    }
    for text, sentence in cases.items():
        name, equals, file = text.partition("=")
        with pytest.raises(DataError, match=sentence) as error:
            made(tmp_path, f"{name}={tmp_path / file}" if equals else name)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "out").exists()
