"""Which study a launch or worker means, and what it refuses before anything is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import DataError, ParamError, ParoptError, StudyError
from paropt.launch.data import data_source
from paropt.launch.opening import launch_request
from paropt.launch.opening.launch_request import LaunchRequest
from paropt.launch.opening.open_study import create_or_resume, join
from paropt.search.study.definition import StudyDefinition
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.protocol import EvaluationProtocol

SPACE = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy"},
    "search": {"layers": {"type": "int", "low": 8, "high": 32, "step": 8}},
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from paropt.data.prepare import prepare

    directory = tmp_path_factory.mktemp("joining")
    log = directory / "log.tsv"
    rows = [
        f"{s}\t{(s + i) % 9}\t{1_700_000_000 + 3000 * s + i}" for s in range(120) for i in range(4)
    ]
    log.write_text("\n".join(["SessionId\tItemId\tTime", *rows]) + "\n")
    return prepare([log], directory / "shop").path


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SPACE))
    return path


@pytest.fixture
def wish(space: Path, dataset: Path, database_url: str, paropt_home: Path) -> Any:
    """``wish(seed=1)``: the plain wish with changes."""
    plain: dict[str, Any] = {"space": space, "data": str(dataset), "storage": database_url}
    return lambda **changes: LaunchRequest(**plain | changes)


def launched(wish: LaunchRequest) -> tuple[Any, list[str]]:
    """The study's definition, and what was said."""
    said: list[str] = []
    with create_or_resume(wish, said.append) as joined:
        return joined.study.definition, [*said, f"resumed {joined.resumed}"]


def test_launching_twice_is_resuming(wish: Any) -> None:
    first, said = launched(wish())
    judged = "judged by mrr@20 on valid, history not filtered, standard ties"
    assert said == [
        "the study is named 'small-shop'; launch again to go on with it",
        f"{judged} (usual for time data; --filter-seen or --no-filter-seen decides)",
        "resumed False",
    ]
    second, said = launched(wish())
    assert said == ["study 'small-shop' goes on", judged, "resumed True"]
    assert first == second
    assert (first.metric, first.at, first.seed, first.heartbeat) == ("mrr@20", [20], 42, 30.0)
    assert first.versions.keys() >= {"paropt", "torch", "optuna", "python"}
    by_name, said = launched(wish(space=None, data=None, study="small-shop"))
    assert by_name == first


@pytest.mark.parametrize("named", [True, False], ids=["by its space", "by its name"])
def test_a_launch_reads_its_space_once_and_makes_one_sampler(
    wish: Any, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    from paropt.search.space import file
    from paropt.search.study import study

    made: list[str] = []
    whole, sampler = file._Reader.space, study.Sampler

    def read(reader: Any, source: Any) -> Any:
        made.append("space")
        return whole(reader, source)

    def drawing(*arguments: Any) -> Any:
        made.append("sampler")
        return sampler(*arguments)

    monkeypatch.setattr(file._Reader, "space", read)
    monkeypatch.setattr(study, "Sampler", drawing)
    launched(wish())
    assert made == ["space", "sampler"]
    launched(wish() if named else wish(space=None, data=None, study="small-shop"))
    assert made == 2 * ["space", "sampler"]


def test_budgets_have_a_default_unless_time_is_the_budget(wish: Any) -> None:
    for changes, budget in (({}, 100), ({"timeout": 60.0}, None), ({"trials": 7}, 7)):
        with create_or_resume(wish(study=f"b{budget}", **changes), lambda _: None) as joined:
            assert joined.study.summary()["budget"] == budget
    with create_or_resume(wish(study="b7"), lambda _: None) as joined:
        assert joined.study.summary()["budget"] == 7


def test_the_metric_decides_what_is_evaluated(wish: Any) -> None:
    definition, _ = launched(wish(metric="recall@5", study="five"))
    assert (definition.metric, definition.at) == ("recall@5", [5, 20])
    again, _ = launched(wish(study="five"))
    assert again.metric == "recall@5"  # not said is as recorded


@pytest.mark.parametrize(
    ("changes", "both"),
    [
        ({"metric": "recall@20"}, ("'mrr@20'", "'recall@20'")),
        ({"seed": 7}, ("42", "7")),
        ({"fixed": ("loss=bpr-max",)}, ('"cross-entropy"', '"bpr-max"')),
        ({"pruner": {"name": "median"}}, ("median", "asha")),
        ({"space": None, "seed": 9}, ("42", "9")),
        ({"space": None, "pruner": {"name": "median"}}, ("median", "asha")),
        ({"space": None, "sampler": {"name": "random"}}, ("tpe", "random")),
        ({"space": None, "metric": "hr@20"}, ("mrr@20", "recall@20")),
        ({"filter_seen": True}, ("history not filtered", "history filtered")),
        ({"space": None, "ties": "median"}, ("standard ties", "median ties")),
        ({"also": ("avg_rank",)}, ("[]", "['avg_rank']")),
    ],
)
def test_a_study_that_differs_is_refused_with_both_values(
    wish: Any, changes: dict[str, Any], both: tuple[str, str]
) -> None:
    launched(wish(study="shop"))
    with pytest.raises(StudyError) as refused:
        launched(wish(study="shop", **changes))
    assert all(value in str(refused.value) for value in both), refused.value


def test_what_a_study_keeps_of_itself_is_said(wish: Any, tmp_path: Path) -> None:
    launched(wish(study="shop", heartbeat=20.0))
    assert not [line for line in launched(wish(study="shop"))[1] if "begun" in line]
    kept = "the study has begun with a heartbeat of 20 s, which it keeps"
    for way in ({}, {"space": None}):
        definition, said = launched(wish(study="shop", heartbeat=5.0, **way))
        assert definition.heartbeat == 20 and said.count(kept) == 1
    other = tmp_path / "other.json"
    other.write_text(json.dumps({**SPACE, "start": [{"layers": 16}]}))
    _, said = launched(wish(study="shop", space=other))
    own = tmp_path / "own.json"  # whose points only say now whose they are
    own.write_text(json.dumps({**SPACE, "start": [{"layers": 8}]}))
    launched(wish(study="named", space=own))
    own.write_text(json.dumps({**SPACE, "start": [{"from": "a shop", "layers": 8}]}))
    assert not [line for line in launched(wish(study="named", space=own))[1] if "no say" in line]
    assert (
        "the study has begun, and 1 point to start from that the space has now had no say in it"
        in said
    )


def test_names_of_final_tests_are_theirs(wish: Any) -> None:
    with pytest.raises(StudyError, match="is what a final test calls its trainings"):
        launched(wish(study="y.final-1.valid"))


def test_other_semantics_are_refused(wish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launched(wish(study="shop"))
    monkeypatch.setattr("paropt.training.semantics.SEMANTICS", 7)
    with pytest.raises(StudyError, match=r"semantics 1, and this paropt has 7"):
        join("shop", wish().storage, None)
    with pytest.raises(StudyError, match=r"semantics"):
        launched(wish(study="shop"))


def test_a_worker_finds_the_data_where_it_was_or_asks(
    wish: Any, dataset: Path, tmp_path: Path
) -> None:
    launched(wish(study="shop"))
    with join("shop", wish().storage, None) as joined:
        assert joined.data == dataset
    moved = dataset.rename(tmp_path / "moved")
    try:
        with pytest.raises(StudyError, match=r"say where it is with --data DIR"):
            join("shop", wish().storage, None)
        with join("shop", wish().storage, str(moved)) as joined:
            assert joined.data == moved
    finally:
        moved.rename(dataset)


def test_data_is_looked_for_in_its_order(
    wish: Any, space: Path, tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from paropt.search.space.file import read_space

    monkeypatch.chdir(tmp_path)
    plain, named = read_space(space), tmp_path / "named.json"
    named.write_text(json.dumps(SPACE | {"data": "beside"}))
    (tmp_path / "given").mkdir()
    assert launch_request.find_data(wish(data="given"), plain) == Path("given")
    with pytest.raises(DataError, match="--data beside does not exist"):
        launch_request.find_data(wish(data=None, space=named), read_space(named))
    (tmp_path / "beside").mkdir()
    found = launch_request.find_data(wish(data=None, space=named), read_space(named))
    assert found == tmp_path / "beside"
    with pytest.raises(DataError, match=r"no data: give --data"):
        launch_request.find_data(wish(data=None), plain)
    monkeypatch.setenv("PAROPT_DATASET", str(dataset))
    assert launch_request.find_data(wish(data=None), plain) == dataset


def test_the_demo_set_is_made_once(paropt_home: Path) -> None:
    made = data_source.named_data("demo")
    assert made == paropt_home / "datasets" / "demo"
    before = (made / "meta.json").stat().st_mtime_ns
    assert data_source.named_data("demo") == made
    assert (made / "meta.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("metric", ["", "@20", "auc", "mrr@0", "mrr@", "mrr 20", "mrr@20+avg_rank"])
def test_metrics_that_are_none(wish: Any, metric: str) -> None:
    with pytest.raises(ParamError, match="metric"):
        launched(wish(metric=metric))


def test_how_trials_are_judged_is_part_of_the_study(wish: Any) -> None:
    """Said aloud; and what paropt 0.1 did not say is as it did it."""
    sums = "0.31*hr@10+0.69*ndcg@10"
    definition, said = launched(wish(study="sum", metric=sums, also=("avg_rank,coverage@20",)))
    assert (definition.metric, definition.at) == ("0.31*recall@10+0.69*ndcg@10", [10, 20])
    assert definition.also == ["avg_rank", "coverage@20"]
    assert definition.protocol == EvaluationProtocol()
    assert any("history not filtered, standard ties (usual for time data" in one for one in said)
    again, _ = launched(wish(study="sum"))
    assert again == definition
    least, said = launched(wish(study="rank", metric="avg_rank", filter_seen=True, ties="median"))
    assert (least.direction, least.protocol) == ("minimize", EvaluationProtocol(True, "median"))
    assert any("avg_rank (smaller is better) on valid, history filtered, median" in s for s in said)
    first = {key: value for key, value in definition.to_json().items() if key != "evaluation"}
    assert StudyDefinition.from_json({**first, "format": 1}).protocol == EvaluationProtocol()


# -- warm start -----------------------------------------------------------------------------


def finish(wish: LaunchRequest, values: dict[int, float]) -> None:
    """Gives a study one complete trial for each of ``layers``, with its value."""
    with create_or_resume(wish, lambda _: None) as joined:
        for _ in values:
            trial = joined.study.next_trial({"host": "here"})
            assert trial is not None
            value = values[trial.params["layers"]]
            metrics = {"mrr@20": value, "recall@20": value}
            trial.report(
                EpochReport.from_json({"epoch": 1, "metrics": metrics, "loss": 1.0, "seconds": 1.0})
            )
            trial.complete()


def test_a_new_study_begins_with_an_earlier_ones_best_and_a_paramfiles(
    wish: Any, tmp_path: Path
) -> None:
    finish(wish(study="before", trials=4), {8: 0.1, 16: 0.4, 24: 0.3, 32: 0.2})
    paramfile = tmp_path / "published.json"
    paramfile.write_text(json.dumps({"model": "gru4rec", "params": {"layers": 512}}))
    warm = wish(study="after", warm_start=(str(paramfile), "before"))
    definition, said = launched(warm)
    start = [point["layers"] for point in definition.space["start"]]
    assert start == [32, 16, 24, 8]  # the paramfile's moved into the range; then best first
    assert said[0] == f"the study begins with 1 configuration of {paramfile}"
    assert said[1] == "the study begins with 4 configurations of before"
    with create_or_resume(warm, said.append) as joined:
        trial = joined.study.next_trial({"host": "here"})
        assert trial is not None
        assert trial.params["layers"] == 32
    assert "the study has begun, so --warm-start changes nothing" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "befor",
            r"befor: neither a study nor a paramfile .* did you mean 'before'\?",
        ),
        ("nowhere", r"'paropt status' lists the studies"),
        ("empty", r"none of that study's trials is of a model that is searched here \(gru4rec\)"),
        ("sasrec.json", r"the paramfile is of sasrec, and nothing of it is searched here"),
        ("broken.json", r"broken\.json:1: "),
    ],
)
def test_what_cannot_warm_a_start_is_refused_before_a_study_is_made(
    wish: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sasrec.json").write_text(json.dumps({"model": "sasrec", "params": {"dim": 64}}))
    Path("broken.json").write_text("{")
    launched(wish(study="before"))
    launched(wish(study="empty"))
    with pytest.raises(ParoptError, match=said):
        launched(wish(study="after", warm_start=(name,)))
    with pytest.raises(StudyError, match="no study 'after'"):
        join("after", wish().storage, None)
