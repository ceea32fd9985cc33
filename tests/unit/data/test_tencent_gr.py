"""The ads competition's directories: both layouts, its protocol, and what is wrong with files."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tencent_gr as made

from paropt.data import Dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.data.reading.pickles import read_pickle
from paropt.data.tencent_gr.json_lines import in_bulk, one_by_one
from paropt.errors import DataError
from paropt.launch.data.data_source import EventFiles, named_data
from paropt.training.batches.catalogue import catalogue

SIZES = made.Sizes(
    users=60, items=80, clusters=4, mean=12, asked=5, vectors=((81, 8), (82, 4)), cold=0.1
)
GENERATED = Options(format="tencent-gr", numpy_pickles=True)
Edit = Callable[[Path], None]


@pytest.fixture(scope="module")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("competition") / "data"
    made.write_competition(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet") / "data"
    made.write_parquet(folder, SIZES)
    return folder


@pytest.fixture(scope="module")
def dataset(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return prepare([competition], tmp_path_factory.mktemp("set") / "out", options=GENERATED)


def lines_of(folder: Path) -> list[list[list[Any]]]:
    return [json.loads(line) for line in (folder / "seq.jsonl").read_text().splitlines()]


def sequences(dataset: Dataset, split: str) -> dict[str, list[tuple[str, int, int]]]:
    """Item, action and second of a split's events, by user."""
    found = dataset.split(split)
    ids, actions = dataset.item_ids(), found.columns["action_type"]
    words = [*dataset.fields("events")["action_type"].vocabulary, ""]
    events = [
        (ids[item], words[action], time // 1000)
        for item, action, time in zip(found.items, actions, found.times.tolist(), strict=True)
    ]
    edges = found.offsets.tolist()
    sessions = enumerate(found.session_ids())
    return {user: events[edges[i] : edges[i + 1]] for i, user in sessions}


def expected(folder: Path) -> dict[str, dict[str, list[tuple[str, str, int]]]]:
    """The protocol in plain words: the last click and the one before, and what precedes them."""
    found: dict[str, dict[str, list[tuple[str, str, int]]]] = {
        name: {} for name in ("train", "valid", "train_full", "test")
    }
    for line in lines_of(folder):
        user = next(str(record[0]) for record in line if record[0] is not None)
        events = [
            (str(item), "" if action is None else str(action), time)
            for _, item, _, _, action, time in line
            if item is not None
        ]
        clicks = [i for i, event in enumerate(events) if event[1] == "1"]
        if len(clicks) < 2 or clicks[-2] == 0:
            found["train"][user] = found["train_full"][user] = events
            continue
        found["train"][user], found["valid"][user] = events[: clicks[-2]], events[: clicks[-2] + 1]
        found["train_full"][user] = events[: clicks[-1]]
        found["test"][user] = events[: clicks[-1] + 1]
    return found


def test_a_last_click_is_predicted_from_what_came_before(
    dataset: Dataset, competition: Path
) -> None:
    wanted = expected(competition)

    assert 0 < len(wanted["test"]) < len(wanted["train"]) == SIZES.users
    for name, users in wanted.items():
        assert sequences(dataset, name) == users
    for name in ("valid", "test"):
        split = dataset.split(name)
        assert np.flatnonzero(split.targets).tolist() == (split.offsets[1:] - 1).tolist()
        clicked = split.columns["action_type"][split.targets]
        assert set(clicked.tolist()) == {1}
    steps = dataset.meta["funnel"]
    assert [step["sessions"] for step in steps] == [60, 60, len(wanted["test"])]
    assert steps[1]["events"] == sum(
        len(wanted["test"].get(user, events)) for user, events in wanted["train"].items()
    )


def test_both_layouts_of_the_same_data_are_the_same_dataset(
    dataset: Dataset, parquet: Path, tmp_path: Path
) -> None:
    vectors = ("82", f"emb_81_8={parquet / 'mm_emb' / 'emb_81_8_parquet'}")
    other = prepare([parquet], tmp_path / "out", options=replace(GENERATED, item_vectors=vectors))

    names = {"items", "splits", "features", "user_features", "columns", "candidates"}
    assert {k: other.meta[k] for k in names} == {k: dataset.meta[k] for k in names}
    for split in ("train_full", "test", "train", "valid"):
        assert sequences(other, split) == sequences(dataset, split)
        assert np.array_equal(other.split(split).users, dataset.split(split).users)


def test_what_is_known_of_items_and_users_comes_along(dataset: Dataset, competition: Path) -> None:
    world = made.make_world(SIZES)
    items, ids = dataset.fields("items"), [int(one) - 1 for one in dataset.item_ids()]
    for column, name in enumerate(made.ITEM_SPARSE):
        words, codes = items[name].vocabulary, items[name].array().tolist()
        values = [int(words[code]) if code >= 0 else 0 for code in codes]
        assert values == world.features[ids, column].tolist()
    for number, dim in SIZES.vectors:
        known = items[f"emb_{number}_{dim}"]
        there = made.vectors_of(world, number, dim)[ids]
        assert known.array("missing").tolist() == np.isnan(there[:, 0]).tolist()
        assert np.allclose(known.array("rows"), np.nan_to_num(there), atol=2e-2)
    users = dataset.fields("users")
    of_users = {str(line[0][0]): line[0][2] for line in lines_of(competition)}
    bags = catalogue(dataset.view("search")).users.bags("106")
    words = users["106"].vocabulary
    for i, user in enumerate(dataset.user_ids()):
        told = {words[code] for code in bags.take(bags.offsets.new_tensor([i])).codes}
        assert told == {str(one) for one in of_users[user]["106"]}
    assert users["108"].missing == SIZES.users  # [0] throughout
    assert dataset.user_ids().tolist() == dataset.split("train").session_ids().tolist()


def test_candidates_are_kept_and_unseen_ones_have_features_too(dataset: Dataset) -> None:
    world = made.make_world(SIZES)
    items = np.load(dataset.path / "candidates" / "items.npy")
    retrieval = np.load(dataset.path / "candidates" / "retrieval.npy")
    wanted = made.candidates(world)

    assert [int(one) for one in dataset.item_ids()[items]] == wanted.tolist()
    assert retrieval.tolist() == list(range(len(wanted)))
    warm = set(np.concatenate(world.on_ring) + 1)
    cold = [item for item, one in zip(items, wanted, strict=True) if int(one) not in warm]
    assert cold and min(cold) >= dataset.n_items("train_full")
    assert (dataset.fields("items")["100"].array()[cold] >= 0).any()


def test_reading_in_bulk_and_one_by_one_is_the_same(competition: Path) -> None:
    path = competition / "seq.jsonl"
    text = path.read_bytes()
    compact = b"\n".join(json.dumps(json.loads(x), separators=(",", ":")).encode()
                         for x in text.splitlines())  # fmt: skip
    slowly = one_by_one(path, 1, text)
    for chunk in (text, compact, text.replace(b"\n", b"\r\n\n")):
        fast = in_bulk(path, 1, chunk)
        assert fast is not None
        for name in ("users", "items", "actions", "times"):
            assert getattr(fast, name).equals(getattr(slowly, name)), name
        assert fast.counts.tolist() == slowly.counts.tolist()
        told = [[json.loads(one or b"null") for one in raw.profiles] for raw in (fast, slowly)]
        assert told[0] == told[1]
    assert in_bulk(path, 1, text.replace(b"[[1, ", b'[["u", ')) is None
    assert in_bulk(path, 1, text.replace(b'{"103"', b'{"a}{": 1, "103"', 1)) is not None


def test_events_are_put_in_order_and_what_is_none_is_counted(tmp_path: Path) -> None:
    records = [
        [None, 3, None, None, 1, 300],
        [7, None, {"103": 1}, None, None, 300],
        [None, 1, None, None, 0, 100],
        [None, None, None, None, 0, 150],
        [None, 0, None, None, 0, 150],
        [None, 2, None, None, 9, 200],
        [None, 1, None, None, 1, 400],
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "seq.jsonl").write_text(f"{json.dumps(records)}\n{json.dumps(records[4:5])}\n")
    (folder / "indexer.pkl").write_bytes(pickle.dumps({"i": {"x": 1, "y": 2, "z": 3}}))
    said: list[str] = []

    found = prepare([folder], tmp_path / "out", options=GENERATED, note=said.append)

    assert sequences(found, "train") == {"7": [("1", "0", 100), ("2", "", 200)]}
    assert sequences(found, "test")["7"][-1] == ("1", "1", 400)
    told = "\n".join(said)
    assert "1 records have neither a user nor an item" in told
    assert "2 events have an item that is no number above 0" in told
    assert "1 events have an action_type other than 0, 1 and 2" in told
    assert "1 users have no name" in told


# -- what is wrong with files --------------------------------------------------------------------


class Payload:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


def cut(name: str) -> Edit:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size * 2 // 3)


def text(name: str, content: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_text(content)

    return edit


def pickled(name: str, content: Any) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).write_bytes(pickle.dumps(content))

    return edit


def appended(line: str) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / "seq.jsonl").open("a") as file:
            file.write(line + "\n")

    return edit


def vectors(*rows: Any) -> Edit:
    """``emb_82_4``, with these vectors of the first items in another part."""

    def edit(folder: Path) -> None:
        original = made.make_world(SIZES).original.tolist()
        shutil.rmtree(folder / "creative_emb" / "emb_82_4")
        (folder / "creative_emb" / "emb_82_4").mkdir()
        lines = [
            json.dumps({"anonymous_cid": str(one)} | ({} if row is None else {"emb": row}))
            for one, row in zip(original, rows, strict=False)
        ]
        (folder / "creative_emb" / "emb_82_4" / "part-00000").write_text("\n".join(lines) + "\n")

    return edit


BAD: dict[str, tuple[Edit, str]] = {
    "a line that is cut short": (cut("seq.jsonl"), r"seq.jsonl:\d+: no complete JSON"),
    "a line of other text": (
        appended("hello"),
        r"seq.jsonl:61: no complete JSON; a line is a list",
    ),
    "an object": (appended('{"user": 1}'), r"seq.jsonl:61: it is no list"),
    "a record of five": (appended("[[null, 1, null, null, 0]]"), r":61: .* is no record of six"),
    "two users": (
        appended("[[7, 1, null, null, 0, 9], [8, 1, null, null, 0, 9]]"),
        "names 2 users",
    ),
    "an item that is a list": (appended("[[7, [1], null, null, 0, 9]]"), r"\[1\] is no number"),
    "no time": (appended("[[77, 1, null, null, 0, null]]"), "an event has no timestamp"),
    "a user twice": (appended("[[7, 1, null, null, 0, 9]]"), "user 7 has two sequences"),
    "an item beyond": (appended("[[99, 81, null, null, 0, 9]]"), "item 81 is beyond the 80 items"),
    "an empty file": (text("seq.jsonl", ""), "has no sequences"),
    "features cut short": (cut("item_feat_dict.json"), "is cut short"),
    "features that are none": (text("item_feat_dict.json", "[]"), "is no JSON object of features"),
    "no features at all": (text("item_feat_dict.json", "{}"), "has no features"),
    "a payload": (pickled("indexer.pkl", Payload()), "asks for 'posix.mkdir'"),
    "a payload beside": (pickled("indexer.pkl", {"i": {"a": 1}, "f": Payload()}), "'posix.mkdir'"),
    "an indexer cut short": (cut("indexer.pkl"), "is no whole pickle"),
    "an indexer of two ids": (pickled("indexer.pkl", {"i": {"a": 1, "b": 1}}), "one re-indexed id"),
    "an indexer of a list": (pickled("indexer.pkl", [1]), "holds no dict of items under 'i'"),
    "a payload in vectors": (
        pickled("creative_emb/emb_81_8.pkl", {"900000001": Payload()}),
        "asks for 'posix.mkdir'",
    ),
    "objects in vectors": (
        pickled("creative_emb/emb_81_8.pkl", {"900000001": np.array([Payload()])}),
        "asks for 'posix.mkdir'|array of O8",
    ),
    "vectors of two lengths": (vectors([1, 2, 3, 4], [1, 2]), "vectors differ in length"),
    "a vector of NaN": (vectors([1, 2, 3, 4], [1, 2, 3, float("nan")]), "hold NaN or infinity"),
    "no vectors": (vectors(None, None), r"none of its ids that are in the log has a vector \(2 ha"),
    "another dimension": (vectors([1, 2]), "'emb_82_4' says 4 dimensions and the vectors have 2"),
    "candidates that are none": (text("predict_set.jsonl", "{}\n"), "predict_set.jsonl:1: no cand"),
    "both layouts": (lambda folder: (folder / "seq").mkdir(), "two layouts"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_files_are_one_sentence_and_nothing_is_written(
    what: str, competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(competition, tmp_path / "data")
    edit, sentence = BAD[what]
    edit(tmp_path / "data")

    with pytest.raises(DataError, match=sentence) as error:
        prepare([tmp_path / "data"], tmp_path / "out", options=GENERATED)

    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["data"]


def test_directories_that_are_none(tmp_path: Path) -> None:
    for path, sentence in (
        (tmp_path, "is of no layout of the ads competition: .*it has nothing"),
        (tmp_path / "no", "does not exist"),
        (Path(__file__), "is a file"),
    ):
        with pytest.raises(DataError, match=sentence):
            prepare([path], tmp_path / "out", options=GENERATED)
    with pytest.raises(DataError, match="--min-support does not apply to --format tencent-gr"):
        prepare([tmp_path], tmp_path / "out", options=replace(GENERATED, min_support=2))


def test_a_cut_part_of_parquet_is_one_sentence(parquet: Path, tmp_path: Path) -> None:
    shutil.copytree(parquet, tmp_path / "data")
    part = tmp_path / "data" / "seq" / "part-00000.parquet"
    os.truncate(part, part.stat().st_size // 2)
    with pytest.raises(DataError, match=r"part-00000.parquet is cut short or damaged"):
        prepare([tmp_path / "data"], tmp_path / "out", options=GENERATED)
    pa.parquet.write_table(pa.table({"user_id": [1], "seq": [[1]]}), part)
    with pytest.raises(DataError, match=r"column 'seq' holds list.*, not a list of item_id"):
        prepare([tmp_path / "data"], tmp_path / "out", options=GENERATED)


def test_vectors_are_chosen_and_pickles_asked_for(competition: Path, tmp_path: Path) -> None:
    def fields(**chosen: Any) -> set[str]:
        out = tmp_path / "out"
        said.clear()
        options = Options(format="tencent-gr", **chosen)
        found = prepare([competition], out, options=options, note=said.append, overwrite=True)
        return {name for name in found.fields("items") if name.startswith("emb")}

    said: list[str] = []
    assert fields() == {"emb_82_4"}
    assert "emb_81_8.pkl is left out: --numpy-pickles reads it, without running anything" in said
    assert fields(numpy_pickles=True) == {"emb_81_8", "emb_82_4"}
    assert fields(item_vectors=("82",)) == {"emb_82_4"}
    assert fields(item_vectors=("none",)) == set()
    with pytest.raises(DataError, match=r"emb_81_8.pkl is a pickle; say --numpy-pickles, which"):
        fields(item_vectors=("81",))
    with pytest.raises(DataError, match=r"no such vectors \(it has 81, 82\)"):
        fields(item_vectors=("83",))


def test_a_directory_of_it_is_recognised(competition: Path, tmp_path: Path) -> None:
    said: list[str] = []
    found = prepare([competition], tmp_path / "out", note=said.append)
    assert found.meta["format_name"] == "tencent-gr"
    assert said[0].startswith("format: tencent-gr (the directory of the 2025 Tencent ads")
    given = EventFiles((str(competition),), Options(format="tencent-gr"))
    with pytest.raises(DataError, match="is of a directory that is prepared once"):
        named_data(given)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["f2", "f4", ">f8"])
def test_arrays_come_out_of_pickles_without_numpy_being_called(
    protocol: int, kind: str, tmp_path: Path
) -> None:
    vectors = np.arange(6).reshape(2, 3).astype(kind)
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": vectors, "b": vectors[1]}, protocol))

    found = read_pickle(path, numpy_arrays=True)

    assert found["a"].numbers().tolist() == vectors.tolist()
    assert found["b"].numbers().tolist() == vectors[1].tolist()
    with pytest.raises(DataError, match="it holds numpy arrays, which are read where --numpy"):
        read_pickle(path)
