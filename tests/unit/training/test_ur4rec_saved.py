"""A saved UR4Rec: its memory shown, exported, forgotten and moved; its stages kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result

from models.ur4rec import UR4Rec
from paropt.cli.main import cli
from paropt.data import open_dataset
from paropt.names import memory_words
from paropt.search.setup.check_needs import check_needs
from paropt.search.setup.check_space import checked
from paropt.search.space.file import of_object
from paropt.training import registry
from paropt.training.batches.catalogue import facts
from paropt.training.fitting.memory import digest
from paropt.training.made_up import made_up_data
from paropt.training.saved_model.saved import load_model

PARAMS = (
    "pretrain_sasrec=2,pretrain_retriever=1,joint_finetune=0,dim=8,blocks=1,max_length=6,"
    "batch_size=16,memory_threshold=2,max_memory_size=3,context_length=3"
)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and a model trained on them with its stages."""
    folder = tmp_path_factory.mktemp("ur4rec")
    needs = UR4Rec.needs(registry.complete_params("ur4rec", {}))
    made_up_data(folder / "data", sessions=60, needs=needs)
    saved = ("--save", folder / "model", "--keep-stages", "--threads", "1")
    data = ("--data", folder / "data")
    done = run("train", "--params", PARAMS, "--model", "ur4rec", *data, *saved)
    assert done.exit_code == 0, done.output
    assert "MiB at most" in done.stderr and "its memory takes 0.00" in done.stderr
    return folder


def test_stages_that_a_training_does_not_reach_are_not_told_of(
    folder: Path, tmp_path: Path
) -> None:
    words = ["--model", "ur4rec", "--data", folder / "data", "--epochs", "2"]
    done = run("train", "--params", PARAMS, *words, "--save", tmp_path / "m", "--keep-stages")
    assert done.exit_code == 0, done.output
    place = tmp_path / "m-pretrain_sasrec"
    assert f"the stages: {place}; " in done.stderr and place.is_dir()
    assert not (tmp_path / "m-pretrain_retriever").exists()


def test_a_study_says_beforehand_what_trials_may_remember(folder: Path) -> None:
    fixed = dict(part.split("=") for part in PARAMS.split(","))
    sizes = {"type": "categorical", "choices": [0, 3, 5]}
    space = checked(
        of_object(
            {
                "model": "ur4rec",
                "fixed": {name: int(value) for name, value in fixed.items() if name[:4] != "max_"},
                "search": {"max_memory_size": sizes},
            }
        )
    )
    dataset = open_dataset(folder / "data")
    about = facts(dataset.view("search"))
    largest = registry.complete_params("ur4rec", {**fixed, "max_memory_size": 5})
    assert check_needs(space, dataset) == UR4Rec.memory_bytes(largest, about) > 0


def test_every_stage_is_a_model_and_the_results_are_told(folder: Path) -> None:
    results = json.loads((folder / "model-results.json").read_text())
    assert [stage["stage"] for stage in results["stages"]] == [
        "pretrain_sasrec",
        "pretrain_retriever",
    ]
    assert [len(stage["epochs"]) for stage in results["stages"]] == [2, 1]
    for stage in results["stages"]:
        kept = load_model(stage["model"])
        best = max(epoch["metrics"]["mrr@20"] for epoch in stage["epochs"])
        assert kept.meta["metrics"]["mrr@20"] == best and kept.meta["stage"] == stage["stage"]
        told = run("evaluate", stage["model"], "--data", folder / "data", "--json")
        assert json.loads(told.stdout)["metrics"]["mrr@20"] == pytest.approx(best)
    alone, both = (load_model(stage["model"]).model.memory() for stage in results["stages"])
    assert len(alone["user"]) == 0 and len(both["user"]) > 0
    final = load_model(folder / "model").meta["metrics"]
    assert final == results["final"]["metrics"]
    again = run("train", "--params", "dim=8", "--model", "sasrec", "--data", folder / "data",
                "--save", folder / "other", "--keep-stages")  # fmt: skip
    assert again.exit_code == 1 and "this model is not trained in stages" in str(again.exception)


def _remembers(folder: Path) -> Path:
    return folder / "model-pretrain_retriever"


def test_a_memory_is_shown_exported_and_forgotten_by_user(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(_remembers(folder), tmp_path / "model"))
    saved = load_model(place)
    rows = saved.model.memory()
    ids = [saved.knowledge.user_ids[user] for user in rows["user"].tolist()]
    shown = run("memory", place, "--user", ids[0])
    assert f"user {ids[0]}: " in shown.stdout and "mean_interactions" in shown.stdout
    table = tmp_path / "memory.parquet"
    assert run("memory", place, "--export", table).exit_code == 0
    read = pyarrow.parquet.read_table(table)
    assert read.column("user").to_pylist() == ids
    assert read.column("interactions").to_pylist() == rows["interactions"].tolist()
    first = read.column("states")[0].as_py()
    assert first == rows["states"][0].flatten().tolist()
    twice = run("memory", place, "--export", table)
    assert twice.exit_code == 1 and "exists; choose another file" in str(twice.exception)
    stranger = run("memory", place, "--reset", "--user", "nobody")
    assert stranger.exit_code == 1 and "knows no user 'nobody'" in str(stranger.exception)
    assert digest(load_model(place).model.memory()) == digest(rows), "nothing was changed"
    done = run("memory", place, "--reset", "--user", ids[0], "--json")
    assert "1 row forgotten" in done.stderr
    left = load_model(place).model.memory()
    assert len(left["user"]) == len(ids) - 1 and rows["user"][0] not in left["user"]
    assert (
        f"nothing is remembered of user {ids[0]}" in run("memory", place, "--user", ids[0]).stdout
    )


@pytest.mark.parametrize("moves", [False, True])
def test_recommending_moves_the_memory_only_if_told(
    folder: Path, tmp_path: Path, moves: bool
) -> None:
    place = Path(shutil.copytree(_remembers(folder), tmp_path / "model"))
    before = load_model(place)
    user = before.knowledge.user_ids[0]
    weights = (place / "model.safetensors").read_bytes()
    lines = ["SessionId\tItemId\tTime\tUserId"]
    lines += [f"s\t{item}\t{1_900_000_000 + item}\t{user}" for item in range(1, 6)]
    lines += [f"t\t{item}\t{1_900_000_000 + item}\tstranger" for item in range(1, 4)]
    (tmp_path / "live.tsv").write_text("\n".join(lines) + "\n")
    told: list[Any] = ["--update-memory"] if moves else []
    done = run("recommend", place, "--sessions", tmp_path / "live.tsv", "--top", "3", *told)
    assert done.exit_code == 0, done.output
    after = load_model(place)
    same = digest(after.model.memory()) == digest(before.model.memory())
    assert same != moves
    assert (place / "model.safetensors").read_bytes() == weights
    if not moves:
        return
    assert "the memory moved by 1 of 2 sessions; users that training never saw" in done.stderr
    index = list(before.knowledge.user_ids).index(user)
    (row,) = (after.model.memory()["user"] == index).nonzero()[0].tolist()
    kept = after.model.memory()
    assert int(kept["seen"][row]) == (1_900_000_000 + 5) * 1000
    old = before.model.memory()
    was = int(old["interactions"][old["user"] == index].sum())
    assert int(kept["interactions"][row]) == was + 5
    again = run("recommend", place, "--sessions", tmp_path / "live.tsv", "--top", "3", *told)
    assert "the memory moved by 0 of 2 sessions" in again.stderr, "they were remembered already"


def test_items_that_it_does_not_know_are_refused_in_a_sentence(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "live.tsv").write_text("SessionId\tItemId\tTime\ns\t1\t1\n")
    (tmp_path / "new.csv").write_text("ItemId,title\nnew,one\n")
    words = ["recommend", folder / "model", "--sessions", tmp_path / "live.tsv"]
    done = run(*words, "--item-features", tmp_path / "new.csv")
    assert done.exit_code == 1
    assert "'ur4rec' can't be given items that it doesn't know: " in str(done.exception)


def test_what_has_no_memory_cannot_move_it(folder: Path, tmp_path: Path) -> None:
    alone = run("train", "--params", f"{PARAMS},memory_users=0", "--model", "ur4rec", "--data",
                folder / "data", "--save", tmp_path / "bare", "--threads", "1")  # fmt: skip
    assert alone.exit_code == 0
    (tmp_path / "live.tsv").write_text("SessionId\tItemId\tTime\ns\t1\t1\n")
    done = run(
        "recommend", tmp_path / "bare", "--sessions", tmp_path / "live.tsv", "--update-memory"
    )
    assert done.exit_code == 1 and "without a memory: it is turned off" in str(done.exception)
    both = run("recommend", folder / "model", "--with", folder / "model", "--sessions",
               tmp_path / "live.tsv", "--update-memory")  # fmt: skip
    assert both.exit_code == 2 and "--update-memory is of one model alone" in both.output


def test_a_memory_in_words() -> None:
    memory = {"rows": 943, "most": 300_000, "bytes": 3 << 20, "says": {"mean_size": 5.41887}}
    assert memory_words(memory) == "943 of at most 300,000 rows, 3.0 MiB, mean size 5.419"
