"""``paropt recommend`` on a file of sessions, held against scores that are made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typed import Paropt

from paropt.training.saved_model.saved import load_model


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Out of order in the file, with an unknown item, and with a session of unknown items only."""
    file = tmp_path / "live.csv"
    file.write_text(
        "SessionId,ItemId,Time\n"
        "late,i5,1700000020\nlate,i3,1700000000\nlate,nothing,1700000030\n"
        "strange,what,1700000000\n"
        "early,i7,1600000000\n"
    )
    return file


def by_hand(directory: Path, items: list[str]) -> list[tuple[str, float]]:
    """Every item with its score after ``items``, best first, from the model's own parts."""
    from paropt.training.registry import SequenceBatch

    saved = load_model(directory)
    index = {str(item): i for i, item in enumerate(saved.item_ids)}
    known = torch.tensor([[index[item] for item in items]])
    targets = torch.full_like(known, -1)
    targets[0, -1] = 0
    nothing = torch.zeros_like(known)
    batch = SequenceBatch(known, targets, nothing, nothing, torch.tensor([len(items)]))
    with torch.no_grad():
        table, bias = saved.model.item_table()
        scores = saved.model.encode(batch)[0] @ table.T
        scores = scores if bias is None else scores + bias
    ranked = sorted(zip(saved.item_ids.tolist(), scores.tolist(), strict=True), key=lambda p: -p[1])
    return [(str(item), score) for item, score in ranked]


def test_recommend_as_tsv(
    trained: tuple[Path, dict[str, Any]], sessions: Path, paropt: Paropt
) -> None:
    done = paropt("recommend", trained[0], "--sessions", sessions, "--top", "3")
    header, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert header == ["session", "rank", "item", "score", "by"]
    assert [(row[0], row[1]) for row in rows] == [
        (session, str(rank)) for session in ("late", "strange", "early") for rank in (1, 2, 3)
    ]
    support = load_model(trained[0]).model.catalogue.support.tolist()
    popular = sorted(enumerate(support), key=lambda pair: (-pair[1], pair[0]))[:3]
    ids = load_model(trained[0]).item_ids
    expected = [
        *by_hand(trained[0], ["i3", "i5"])[:3],
        *[(ids[index], count) for index, count in popular],
        *by_hand(trained[0], ["i7"])[:3],
    ]
    assert [row[2] for row in rows] == [item for item, _ in expected]
    assert [float(row[3]) for row in rows] == pytest.approx([s for _, s in expected], rel=1e-4)
    assert [row[4] for row in rows] == ["model"] * 3 + ["popularity"] * 3 + ["model"] * 3
    assert "session strange has no item that the model knows: it gets the most" in done.stderr


def test_recommend_as_json_without_the_session_s_items(
    trained: tuple[Path, dict[str, Any]], sessions: Path, paropt: Paropt
) -> None:
    done = paropt(
        "recommend", trained[0], "--sessions", sessions, "--top", "1000", "--filter-seen", "--json"
    )
    late, strange, early = [json.loads(line) for line in done.stdout.splitlines()]
    assert (late["session"], early["session"]) == ("late", "early")
    assert (late["popular"], strange["popular"]) == (False, True)
    expected = [item for item, _ in by_hand(trained[0], ["i3", "i5"]) if item not in ("i3", "i5")]
    assert [entry["item"] for entry in late["items"]] == expected
    assert len(early["items"]) == load_model(trained[0]).n_items - 1


def test_recommend_in_chunks(
    trained: tuple[Path, dict[str, Any]],
    sessions: Path,
    paropt: Paropt,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ranked() -> list[list[str]]:
        lines = paropt("recommend", trained[0], "--sessions", sessions).stdout.splitlines()
        return [line.split("\t")[:3] for line in lines]  # scores may round otherwise

    whole = ranked()
    monkeypatch.setattr("paropt.training.recommending.new_sessions.CHUNK", 1)
    assert ranked() == whole


def test_recommend_by_order(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path, paropt: Paropt
) -> None:
    file = tmp_path / "ordered.tsv"
    file.write_text("user\tproduct\tpos\nu\ti5\t2\nu\ti3\t1\n")
    keys = ["--session-key", "user", "--item-key", "product", "--order-column", "pos"]
    done = paropt("recommend", trained[0], "--sessions", file, *keys, "--top", "1")
    assert done.stdout.split("\t")[-3] == by_hand(trained[0], ["i3", "i5"])[0][0]


def test_recommend_without_the_column(
    trained: tuple[Path, dict[str, Any]], sessions: Path, paropt: Paropt
) -> None:
    done = paropt("recommend", trained[0], "--sessions", sessions, "--item-key", "ItemID", ok=False)
    assert "has no column 'ItemID'; did you mean 'ItemId'?" in str(done.exception)
