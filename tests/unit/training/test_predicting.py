"""``predict``: products of its vectors are the model's scores, unseen candidates by features."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tencent_gr as made
from numpy.typing import NDArray

from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError, ModelError
from paropt.training.fitting.fit import Fit
from paropt.training.recommending.new_sessions import read_sessions, recommend
from paropt.training.recommending.predicting import Request, Told, predict
from paropt.training.saved_model.saved import SavedModel, load_model, save_model

SIZES = made.Sizes(users=60, items=60, clusters=4, mean=10, asked=8, vectors=((82, 4),), cold=0.2,
                   pickled=False)  # fmt: skip
PARAMS = {"dim": 8, "blocks": 1, "n_epochs": 1, "batch_size": 16, "max_length": 10}
RICH = PARAMS | {
    "features": ["100", "117"],
    "vectors": ["emb_82_4"],
    "id_init": "none",
    "action_column": "action_type",
    "action_condition": "film",
}
Saved = tuple[SavedModel, Path]


def trained(folder: Path, params: dict[str, Any]) -> Saved:
    made.write_competition(folder / "gr", SIZES)
    dataset = prepare([folder / "gr"], folder / "set", options=Options(format="tencent-gr"))
    fit = Fit("sasrec", params, dataset.view("full"), seed=1)
    for _ in fit.epochs():
        pass
    save_model(folder / "model", fit, {})
    return load_model(folder / "model"), folder / "gr"


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return trained(tmp_path_factory.mktemp("rich"), RICH)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return trained(tmp_path_factory.mktemp("plain"), PARAMS)


def asked(saved: Saved, out: Path, **more: Any) -> tuple[Told, list[str]]:
    model, folder = saved
    said: list[str] = []
    given: dict[str, Any] = {
        "sequences": folder / "predict_seq.jsonl",
        "candidates": folder / "predict_set.jsonl",
        "indexer": folder / "indexer.pkl",
    }
    return predict(model, Request(out=out, **given | more), said.append), said


def array(path: Path, kind: str) -> NDArray[Any]:
    """Two uint32, then rows of numbers, as the competition's reader takes them."""
    with path.open("rb") as file:
        rows, columns = np.frombuffer(file.read(8), "<u4")
        return np.frombuffer(file.read(), kind).reshape(rows, columns)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_products_are_the_scores_that_recommend_gives(plain: Saved, tmp_path: Path) -> None:
    told, said = asked(plain, tmp_path / "out", top=3)
    query = array(tmp_path / "out" / "query.fbin", "<f4")
    items = array(tmp_path / "out" / "embedding.fbin", "<f4")
    retrieval = array(tmp_path / "out" / "id.u64bin", "<u8")[:, 0]
    users = (tmp_path / "out" / "users.txt").read_text().split()
    offered = lines(plain[1] / "predict_set.jsonl")

    # the same sequences as a log, through another door
    log = ["user_id\titem_id\ttimestamp"]
    for line, user in zip(lines(plain[1] / "predict_seq.jsonl"), users, strict=True):
        assert line[0][0] == user
        log += [f"{user}\t{item}\t{time}" for _, item, _, _, _, time in line if item is not None]
    (tmp_path / "log.tsv").write_text("\n".join(log) + "\n")
    sessions = read_sessions(tmp_path / "log.tsv", plain[0])
    indexer = pickle.loads((plain[1] / "indexer.pkl").read_bytes())["i"]
    scores = {found.session: dict(zip(found.items, found.scores, strict=True))
              for found in recommend(plain[0], sessions, 60)}  # fmt: skip

    known = [o for o in offered if str(indexer[o["creative_id"]]) in plain[0].item_ids]
    assert retrieval.tolist() == [o["retrieval_id"] for o in known]
    assert told.left_out == len(offered) - len(known) > 0
    assert any(f"{told.left_out} candidates are unknown" in line for line in said)
    wanted = [[scores[user][str(indexer[o["creative_id"]])] for o in known] for user in users]
    assert np.allclose(query @ items.T, wanted, atol=1e-5)
    clicks = {one["user"]: one["creative_id"] for one in lines(plain[1] / "answers.jsonl")}
    gains = [0.0, 0.0, 0.0]
    for user, row in zip(users, wanted, strict=True):
        ids = [known[i]["creative_id"] for i in np.argsort(row)[::-1][:3]]
        if clicks[user] in {one["creative_id"] for one in offered}:
            rank = ids.index(clicks[user]) if clicks[user] in ids else None
            gains[0] += 1
            gains[1] += rank is not None
            gains[2] += 0.0 if rank is None else 1 / np.log2(2 + rank)
    scored = made.score(plain[1], tmp_path / "out")
    assert scored["users"] == gains[0] > 0
    assert scored["score"] == pytest.approx((0.31 * gains[1] + 0.69 * gains[2]) / gains[0])
    for top, row in zip(lines(tmp_path / "out" / "top.jsonl"), wanted, strict=True):
        best = np.argsort(row)[::-1][:3]
        assert [one["creative_id"] for one in top["items"]] == [
            str(known[i]["creative_id"]) for i in best
        ]


def test_an_unseen_candidate_is_ranked_by_what_is_told_of_it(rich: Saved, tmp_path: Path) -> None:
    """A known item under an unknown id, told by its own features and vector, is where it was."""
    from paropt.data.features.vectors import VectorFile

    offered = lines(rich[1] / "predict_set.jsonl")
    vectors = made.vectors_of(made.make_world(SIZES), 82, 4)
    indexer = pickle.loads((rich[1] / "indexer.pkl").read_bytes())["i"]
    place, twin = next(
        (i, o)
        for i, o in enumerate(offered)
        if str(indexer[o["creative_id"]]) in rich[0].item_ids
        and np.isfinite(vectors[indexer[o["creative_id"]] - 1][0])
    )
    new = twin | {"creative_id": "new", "retrieval_id": 77}
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(o) + "\n" for o in [*offered, new]))
    (tmp_path / "new.jsonl").write_text(
        json.dumps(
            {
                "anonymous_cid": "new",
                "emb": vectors[indexer[twin["creative_id"]] - 1].round(5).tolist(),
            }
        )
        + "\n"
    )
    file = VectorFile("emb_82_4", tmp_path / "new.jsonl")

    told, _ = asked(
        rich, tmp_path / "out", candidates=tmp_path / "set.jsonl", vectors=[file], want=["1"]
    )

    items = array(tmp_path / "out" / "embedding.fbin", "<f4")
    assert len(items) == len(offered) + 1 == told.candidates and told.left_out == 0
    assert told.unseen == 1 + sum(str(indexer[o["creative_id"]]) not in rich[0].item_ids
                                  for o in offered)  # fmt: skip
    assert np.allclose(items[-1], items[place], atol=1e-4)
    assert not np.allclose(items[place + 1], items[place], atol=1e-3)


def test_what_is_wanted_changes_the_query(rich: Saved, tmp_path: Path) -> None:
    queries = []
    for n, want in enumerate(([], ["1"], ["action_type=0"])):
        _, said = asked(rich, tmp_path / str(n), want=want)
        assert any("--want" in line for line in said) is not bool(want)
        queries.append(array(tmp_path / str(n) / "query.fbin", "<f4"))
    assert not np.allclose(queries[1], queries[2])
    with pytest.raises(ModelError, match="knows no action_type '7'"):
        asked(rich, tmp_path / "no", want=["7"])


def test_a_user_of_whom_nothing_is_known_gets_the_mean(plain: Saved, tmp_path: Path) -> None:
    rows = lines(plain[1] / "predict_seq.jsonl")
    nobody = [["nobody", None, None, None, None, 1], [None, 9_000_000_000, None, None, 0, 1]]
    (tmp_path / "seq.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [nobody, *rows]))

    told, said = asked(plain, tmp_path / "out", sequences=tmp_path / "seq.jsonl")

    query = array(tmp_path / "out" / "query.fbin", "<f4")
    assert told.users_without_history == 1 and told.users == 1 + len(rows)
    assert any(
        f"1 of {told.users} users have no event that the model knows" in line for line in said
    )
    assert np.allclose(query[0], query[1:].mean(0), atol=1e-6)


def test_what_cannot_be_predicted_is_a_sentence_and_nothing_is_written(
    plain: Saved, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.jsonl").write_text("{}\n")
    (tmp_path / "strangers.jsonl").write_text('{"creative_id": "x", "retrieval_id": 1}\n')
    cases: list[tuple[dict[str, Any], str]] = [
        ({"candidates": tmp_path / "bad.jsonl"}, r"bad.jsonl:1: no candidate"),
        ({"candidates": tmp_path / "strangers.jsonl"}, "knows none of the 1 candidates"),
        ({"sequences": tmp_path / "bad.jsonl"}, r"bad.jsonl:1: it is no list"),
        ({"sequences": tmp_path / "no.jsonl"}, "No such file"),
        ({"indexer": tmp_path / "bad.jsonl"}, "is no whole pickle"),
    ]
    before = sorted(tmp_path.iterdir())
    for given, sentence in cases:
        with pytest.raises(DataError, match=sentence):
            asked(plain, tmp_path / "out", **given)
    with pytest.raises(DataError, match="empty exists; choose another --out"):
        asked(plain, tmp_path / "empty")
    assert sorted(tmp_path.iterdir()) == before
