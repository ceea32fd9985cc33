"""Real logs: their counts against the table that came with them (PAROPT_DATA)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paropt.data import Dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare

pytestmark = pytest.mark.realdata
SESSIONS = Options(
    session_key="session", item_key="item_id", order_column="pos", split_column="split"
)


def counts(dataset: Dataset, split: str) -> tuple[int, int, int]:
    found = dataset.meta["splits"][split]
    return found["events"], found["sessions"], found["items"]


def test_yoochoose_100k_as_it_is_split(data_dir: Path, tmp_path: Path) -> None:
    given = {
        name: data_dir / "yoochoose_100k" / f"{name}.tsv.gz"
        for name in ("train_full", "test", "train", "valid")
    }
    dataset = prepare([], tmp_path / "out", given)
    assert counts(dataset, "train_full") == (70_278, 17_794, 2_933)
    assert counts(dataset, "test")[:2] == (13_568, 3_416)
    assert dataset.meta["splits"]["test"]["targets"] == 10_152


@pytest.mark.parametrize(
    ("name", "train", "test"),
    [
        ("yoochoose1_64", (486_026, 116_167, 17_376), (71_222, 15_324)),
        ("retailrocket", (685_984, 126_168, 36_968), (24_602, 4_735)),
    ],
)
def test_sets_with_an_order_only(
    data_dir: Path,
    tmp_path: Path,
    name: str,
    train: tuple[int, int, int],
    test: tuple[int, int],
) -> None:
    log = data_dir / name / "sessions.csv.gz"
    dataset = prepare([log], tmp_path / "out", options=SESSIONS)
    assert counts(dataset, "train_full") == train
    assert counts(dataset, "test")[:2] == test
    # validation is the last sessions of train, as many as test has
    assert counts(dataset, "valid")[1] == test[1]
    assert counts(dataset, "train")[1] == train[1] - test[1]
    whole, part = dataset.split("train_full"), dataset.split("valid")
    assert np.array_equal(whole.items[-part.n_events :], part.items)
    assert whole.session_ids()[-1] == part.session_ids()[-1]


def test_movielens_100k(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "ml100k"
    dataset = prepare(
        [folder / "ml-100k.inter"],
        tmp_path / "out",
        options=Options(item_features=(folder / "ml-100k.item",), keep_columns=("rating",)),
    )
    assert dataset.protocol == "leave-one-out"
    assert counts(dataset, "test") == (100_000, 943, 1_682)
    assert counts(dataset, "train")[0] == 100_000 - 2 * 943
    assert dataset.split("valid").targets.sum() == dataset.split("test").targets.sum() == 943
    assert set(np.unique(dataset.split("test").columns["rating"])) == {1, 2, 3, 4, 5}
    toy_story = dataset.item_ids().tolist().index("1")
    assert dataset.fields("items")["movie_title"].texts()[toy_story] == "Toy Story"


def test_movielens_1m_in_its_exact_order(data_dir: Path, tmp_path: Path) -> None:
    dataset = prepare(
        [data_dir / "ml1m" / "interactions_ordered.csv.gz"],
        tmp_path / "out",
        options=Options(
            session_key="user_id",
            item_key="item_id",
            time_key="ts_est",
            order_column="pos",
            protocol="leave-one-out",
            keep_columns=("pos",),
        ),
    )
    assert counts(dataset, "test") == (999_611, 6_040, 3_416)
    test = dataset.split("test")
    place = np.arange(test.n_events) - np.repeat(test.offsets[:-1], np.diff(test.offsets))
    assert np.array_equal(test.columns["pos"], place)


def test_globo(data_dir: Path, tmp_path: Path) -> None:
    """Every session of two events or more that lies before the 16th, split at the 15th."""
    options = Options(
        session_key="session_id",
        item_key="click_article_id",
        time_key="click_timestamp",
        min_support=1,
        keep_repeats=True,
        end_ms=1_508_112_000_000,  # 2017-10-16; stragglers follow until November
    )
    dataset = prepare([data_dir / "globo" / "clicks.csv.gz"], tmp_path / "out", options=options)
    test, train = dataset.split("test"), dataset.split("train_full")
    assert train.times.max() < 1_508_025_600_000 <= test.times.min()
    assert test.times.max() < 1_508_112_000_000
    # by pandas: a groupby of sessions that start on the 15th, or of the events before it
    assert counts(dataset, "test")[:2] == (91_458, 34_263)
    assert counts(dataset, "train_full")[:2] == (2_685_743, 940_687)


def test_taobao_is_cut_at_gaps(data_dir: Path, tmp_path: Path) -> None:
    log = data_dir / "taobao_slice" / "events.csv.gz"
    users = Options(
        session_key="user_id", item_key="item_id", time_key="ts", protocol="leave-one-out"
    )
    whole = prepare([log], tmp_path / "users", options=users)
    assert counts(whole, "test") == (84_474, 815, 55_367)
    visits = replace(users, protocol="time", session_gap_ms=1_800_000, min_support=1)
    cut = prepare([log], tmp_path / "visits", options=visits)
    train = cut.split("train_full")
    inside = np.ones(train.n_events - 1, bool)
    inside[train.offsets[1:-1] - 1] = False
    pauses = np.diff(train.times)[inside]
    assert 0 <= pauses.min() <= pauses.max() <= 1_800_000
    names = train.session_ids()
    assert len(set(names)) == len(names)
