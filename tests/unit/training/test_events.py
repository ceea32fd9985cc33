"""Columns and users of events: from a file to what a model sees, in training and in evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from paropt.data import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError
from paropt.training.batches import plans
from paropt.training.batches.catalogue import catalogue, facts
from paropt.training.batches.events import Events, known_events
from paropt.training.registry import Needs, lacks

DAY = 86_400
BOTH = Needs(columns={"act": (), "dwell": ()}, wanted=("act",), user_index=True)
# session, user, item, act, dwell, day; the last user and act are in the last session only
LOG = [
    ("s1", "ann", "a", "view", "1", 0),
    ("s1", "ann", "b", "buy", "", 0),
    ("s2", "bob", "b", "view", "3", 0),
    ("s2", "bob", "a", "", "4", 0),
    ("s3", "", "a", "view", "5", 1),
    ("s3", "", "b", "view", "6", 1),
    ("s4", "bob", "a", "buy", "7", 2),
    ("s4", "bob", "b", "view", "8", 2),
    ("s5", "eve", "b", "gift", "9", 3),
    ("s5", "eve", "a", "view", "0", 3),
]


def made(
    folder: Path,
    rows: Sequence[tuple[object, ...]] = LOG,
    note: Callable[[str], None] = lambda line: None,
    **more: object,
) -> Dataset:
    lines = ["SessionId\tuser\tItemId\tact\tdwell\tTime"]
    for at, (session, user, item, act, dwell, day) in enumerate(rows):
        time = 1_700_000_000 + int(str(day)) * DAY + at
        lines.append(f"{session}\t{user}\t{item}\t{act}\t{dwell}\t{time}")
    (folder / "log.tsv").write_text("\n".join(lines) + "\n")
    options = Options(user_key="user", keep_columns=("act", "dwell"), min_support=1, test_days=0.9)
    return prepare([folder / "log.tsv"], folder / "out", None, replace(options, **more), note=note)


def test_batches_carry_columns_and_users(tmp_path: Path) -> None:
    view = made(tmp_path).view("full")
    assert [view.dataset.user_ids()[u] for u in range(view.n_users)] == ["ann", "bob"]
    fields = facts(view).columns
    assert (fields["act"].kind, fields["act"].size) == ("category", 3)
    assert list(fields["act"].vocabulary) == ["buy", "gift", "view"]
    assert fields["dwell"].kind == "number"
    batches = plans.TrainingSequences(view.train, view.n_items, None, 9, 1, needs=BOTH)
    batch = batches.epoch(1)[0]
    seen = {}
    for row in range(len(batch.lengths)):
        assert batch.users is not None
        seen[float(batch.columns["dwell"][row, 0])] = (
            int(batch.users[row]),
            int(batch.columns["act"][row, 0]),
            int(batch.wanted["act"][row, 0]),
        )
    # dwell of the first event: (user, its act, the target's act); unknown ones are −1
    assert seen == {1.0: (0, 2, 0), 3.0: (1, 2, -1), 5.0: (-1, 2, 2), 7.0: (1, 0, 2)}


def test_a_session_is_that_of_the_first_user_that_it_names(tmp_path: Path) -> None:
    """s3 stays nobody's; s2 logs in at its second event; s4 is of two, and counted so."""
    rows = [
        *LOG[:2],
        ("s2", "unknown", "b", "view", "3", 0),
        ("s2", "ann", "a", "view", "4", 0),
        *LOG[4:6],
        ("s4", "", "a", "buy", "7", 2),
        ("s4", "bob", "b", "view", "8", 2),
        ("s4", "eve", "a", "view", "8", 2),
        *LOG[8:],
    ]
    said: list[str] = []
    dataset = made(tmp_path, rows, note=said.append)
    users, names = dataset.split("train_full").users, dataset.user_ids().tolist()
    assert users is not None
    assert [names[user] if user >= 0 else "" for user in users] == ["ann", "ann", "", "bob"]
    assert [line for line in said if "several" in line] == [
        "1 sessions have events of several users; each is the first one's"
    ]


def test_what_training_never_saw_is_unknown_in_an_evaluation(tmp_path: Path) -> None:
    view = made(tmp_path).view("full")
    (batch,) = plans.evaluation(view.test, view.n_items, None, 9, needs=BOTH)
    assert batch.users is not None and batch.users.tolist() == [-1]  # eve
    assert batch.columns["act"].tolist() == [[-1]]  # a gift
    assert batch.columns["dwell"].tolist() == [[9.0]]
    assert batch.wanted["act"].tolist() == [[2]]
    # the split by itself knows them
    split = view.dataset.split("test")
    assert split.users is not None and split.users.tolist() == [2]
    assert split.columns["act"].tolist() == [1, 2]


def test_padding_is_unknown(tmp_path: Path) -> None:
    rows = [*LOG, ("s1", "ann", "a", "view", "2", 0)]
    view = made(tmp_path, rows).view("full")
    batches = plans.TrainingSequences(view.train, view.n_items, None, 9, 1, needs=BOTH)
    batch = batches.epoch(1)[0]
    assert batch.lengths.tolist() == [2, 1, 1, 1]
    assert batch.columns["act"][1:, 1].tolist() == [-1] * 3
    assert torch.isnan(batch.columns["dwell"][1:, 1]).all()


def test_session_parallel_plans_carry_them_too(tmp_path: Path) -> None:
    view = made(tmp_path).view("full")
    plan = plans.session_parallel(view.train, view.n_items, 2, needs=BOTH)
    bare = plans.session_parallel(view.train, view.n_items, 2)
    assert torch.equal(plan.inputs, bare.inputs) and bare.users is None and not bare.columns
    assert plan.users is not None
    cells = zip(
        plan.inputs.flatten().tolist(),
        plan.users.flatten().tolist(),
        plan.columns["dwell"].flatten().tolist(),
        plan.wanted["act"].flatten().tolist(),
        strict=True,
    )
    assert sorted(cells) == [(0, -1, 5.0, 2), (0, 0, 1.0, 0), (0, 1, 7.0, 2), (1, 1, 3.0, -1)]


def test_without_needs_nothing_is_carried(tmp_path: Path) -> None:
    view = made(tmp_path).view("full")
    batch = plans.TrainingSequences(view.train, view.n_items, None, 9, 1).epoch(1)[0]
    assert batch.users is None and batch.columns == {} and batch.wanted == {}


def test_leave_one_out_sessions_are_users(tmp_path: Path) -> None:
    rows = [(f"u{s}", "", f"i{s % 3 + k}", "x", "1", k) for s in range(3) for k in range(4)]
    dataset = made(tmp_path, rows, protocol="leave-one-out", user_key=None, test_days=None)
    assert dataset.has_users and dataset.user_ids().tolist() == ["u0", "u1", "u2"]
    for name in ("search", "full"):
        view = dataset.view(name)
        for split in (view.train, view.test):
            assert split.users is not None
            ids = dataset.user_ids()[split.users]
            assert ids.tolist() == split.session_ids().tolist()


def test_a_users_column_alone_changes_the_fingerprint_and_its_lack_does_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with_users = made(tmp_path / "a")
    without = made(tmp_path / "b", user_key=None)
    assert with_users.fingerprint != without.fingerprint
    assert "users" not in without.meta and not without.has_users
    open_dataset(tmp_path / "a" / "out").verify()


def test_a_session_of_several_users_is_said(tmp_path: Path) -> None:
    rows = [*LOG, ("s1", "bob", "a", "view", "2", 0)]
    said: list[str] = []
    made(tmp_path, rows)
    prepare(
        [tmp_path / "log.tsv"],
        tmp_path / "again",
        options=Options(user_key="user", min_support=1, test_days=0.9),
        note=said.append,
    )
    assert said[0] == "1 sessions have events of several users; each is the first one's"


@pytest.mark.parametrize(
    ("needs", "sentence"),
    [
        (
            Needs(columns={"kind": ()}),
            r"column 'kind', .*\(they have act, dwell\).*--keep-column kind",
        ),
        (Needs(columns={"dwell": ("category",)}), "as category, but it is a number.*--categorical"),
        (Needs(items={"genre": ("category",)}), r"'genre', .*\(they have none\).*--item-features"),
        (Needs(items={"look": ("vector",)}), "prepare them with --item-vectors look=FILE$"),
        (Needs(users={"age": ("number",)}), "--user-features FILE"),
        (BOTH, ""),
    ],
)
def test_what_data_lack_is_told_with_the_option_that_gives_it(
    needs: Needs, sentence: str, tmp_path: Path
) -> None:
    told = lacks(needs, facts(made(tmp_path).view("search")))
    if not sentence:
        assert told == ""
        return
    with pytest.raises(DataError, match=sentence):
        raise DataError(told)


def test_users_are_asked_for_by_option(tmp_path: Path) -> None:
    about = facts(made(tmp_path, user_key=None).view("search"))
    assert lacks(Needs(user_index=True), about).endswith("prepare them with --user-key")


def test_forms_of_events() -> None:
    events = Events(
        items=np.array([0, 1, 2, 3], np.int32),
        times=np.array([5, 6, 7, 8]),
        targets=np.array([False, True, False, True]),
        offsets=np.array([0, 2, 4]),
        columns={"act": np.array([0, 1, -1, 1], np.int32), "dwell": np.array([1, 2, 3, 4.0])},
        users=np.array([1, -1], np.int32),
    )
    recoded = events.recode(
        np.array([3, 2, 1, 0], np.int32),
        {"act": np.array([7, 8, -1], np.int32)},
        np.array([4, 5, -1], np.int32),
    )
    assert recoded.items.tolist() == [3, 2, 1, 0]
    assert recoded.columns["act"].tolist() == [7, 8, -1, 8]
    assert recoded.users is not None and recoded.users.tolist() == [5, -1]
    second = events.sessions(1, 2)
    assert second.offsets.tolist() == [0, 2] and second.columns["dwell"].tolist() == [3, 4]
    asked = events.take(np.array([True, False, False, False])).with_queries()
    assert asked.offsets.tolist() == [0, 2, 3]
    assert asked.items.tolist() == [0, 0, 0] and asked.targets.tolist() == [False, True, True]
    assert asked.columns["act"].tolist() == [0, -1, -1]
    assert asked.times[:2].tolist() == [5, 5]
    known = known_events(events, 3, Needs(columns={"act": ()}))
    assert known.columns["act"].tolist() == [0, 1, -1] and known.unknown == 1


def test_a_catalogue_reads_nothing_that_is_not_asked_for(tmp_path: Path) -> None:
    about = catalogue(made(tmp_path).view("search"))
    with pytest.raises(
        ValueError, match=r"there is no category 'genre': it is none of stats.events, "
    ):
        about.items.codes("genre")
