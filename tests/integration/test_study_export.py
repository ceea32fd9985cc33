"""``paropt export`` and ``paropt space`` as commands."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from paropt.cli.main import cli
from paropt.errors import ParoptError
from paropt.search.space.paramfiles import read_paramfile
from paropt.search.study.definition import StudyDefinition
from paropt.search.study.study import Study
from paropt.training.evaluation.epochs import EpochReport

SPACE: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"loss": "top1-max", "n_epochs": 3},
    "search": {"layers": {"type": "int", "low": 32, "high": 96, "step": 32}},
}
OWNER = {"device": "cpu", "device_kind": "cpu", "threads": 2}

Paropt = Callable[..., Result]


@pytest.fixture
def paropt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paropt:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return run


@pytest.fixture
def study(database_url: str) -> Iterator[Study]:
    definition = StudyDefinition(
        "my shop", SPACE, "mrr@20", [5, 20], "/data", "abc", versions={"torch": "2"}
    )
    study = Study.create(database_url, definition)
    yield study
    study.close()


def finish(study: Study, *curve: float) -> int:
    trial = study.next_trial(OWNER)
    assert trial is not None
    for epoch, mrr in enumerate(curve, 1):
        trial.report(
            EpochReport.from_json(
                {"epoch": epoch, "metrics": {"mrr@20": mrr, "recall@20": 2 * mrr}}
            )
        )
    trial.complete()
    return trial.seed


def url_of(study: Study) -> str:
    return study.url.render_as_string(hide_password=False)


@pytest.mark.postgres
def test_export_writes_the_best_with_their_provenance(
    paropt: Paropt, study: Study, tmp_path: Path
) -> None:
    finish(study, 0.1, 0.2)
    seed = finish(study, 0.3, 0.1 + 0.2, 0.1)  # 0.3 and 0.30000000000000004
    storage = ("--storage", url_of(study))
    done = paropt("export", "my shop", "--top", "5", "--out", "best", "--json", *storage)
    assert done.exit_code == 0, done.output
    first, second = json.loads(done.stdout)
    assert first == {
        "file": "best/my-shop-21e023_1_trial1.json", "trial": 1, "epoch": 2, "value": 0.1 + 0.2,
    }  # fmt: skip
    assert second["trial"] == 0
    paramfile = read_paramfile(tmp_path / first["file"])
    assert paramfile.params["n_epochs"] == 3
    assert paramfile.epochs == 2
    assert paramfile.provenance == {
        "study": "my shop", "trial": 1, "epoch": 2, "epochs": 2, "metric": "mrr@20",
        "value": 0.1 + 0.2, "metrics": {"mrr@20": 0.1 + 0.2, "recall@20": 2 * (0.1 + 0.2)},
        "at": [5, 20], "split": "search", "seed": seed, "threads": 2, "device": "cpu",
        "ties": "standard", "filter_seen": False, "candidates": "all", "fingerprint": "abc",
        "semantics": 1, "versions": {"torch": "2"},
    }  # fmt: skip

    before = (tmp_path / first["file"]).read_bytes()
    again = paropt("export", "my shop", "--top", "5", "--out", "best", *storage)
    assert isinstance(again.exception, ParoptError)
    assert "my-shop-21e023_1_trial1.json exists; add --overwrite" in str(again.exception)
    assert (tmp_path / first["file"]).read_bytes() == before
    assert paropt("export", "my shop", "--out", "best", "--overwrite", *storage).exit_code == 0


@pytest.mark.postgres
def test_export_writes_nothing_that_it_cannot_say(
    paropt: Paropt, study: Study, tmp_path: Path
) -> None:
    storage = ("--storage", url_of(study))
    empty = paropt("export", "my shop", *storage)
    assert "has no trial with a value yet" in str(empty.exception)
    finish(study, 0.1)
    for_pytorch = paropt("export", "my shop", "--format", "gru4rec-pytorch", *storage)
    assert "not loss=top1-max" in str(for_pytorch.exception)
    assert os.listdir(tmp_path) == []
    for_theano = paropt("export", "my shop", "--format", "gru4rec-theano", *storage)
    assert for_theano.stdout == "my-shop-21e023_1_trial0.py\n"
    assert "('n_epochs', 1)" in (tmp_path / "my-shop-21e023_1_trial0.py").read_text()
    unknown = paropt("export", "none", *storage)
    assert "there is no study 'none'; 'paropt status' lists them, 'my shop' is the latest" in str(
        unknown.exception
    )


# -- paropt space ---------------------------------------------------------------------------------


def write(text: str) -> str:
    Path("space.json").write_text(text)
    return "space.json"


def test_space_prints_a_table(paropt: Paropt) -> None:
    done = paropt("space", write(json.dumps(SPACE)), "--fixed", "n_sample=64")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["parameter", "type", "values", "count", "when"]
    assert "layers     int    32 … 96, step 32  3" in lines
    assert "n_sample   fixed  64" in lines
    assert lines[-1] == "3 configurations"


def test_space_prints_json(paropt: Paropt) -> None:
    done = paropt("space", write(json.dumps(SPACE)), "--json")
    found = json.loads(done.stdout)
    assert found["configurations"] == 3
    assert found["fixed"] == SPACE["fixed"]
    assert found["search"] == [
        {"name": "layers", "type": "int", "range": "32 … 96, step 32", "count": 3, "when": {}}
    ]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('"learning_rat": {"type": "float", "low": 0.1, "high": 0.2}',
         'space.json:3: gru4rec has no parameter "learning_rat"; did you mean \'learning_rate\'?'),
        ('"layers": {"type": "float", "low": 1, "high": 2}', "is a sizes, so search it by an int"),
        ('"loss": {"type": "int", "low": 1, "high": 2}', "is a str, so search it by choices"),
        ('"momentum": {"type": "float", "low": 0, "high": 1}', '"momentum" must be below 1, not'),
        ('"loss": {"type": "categorical", "choices": ["bpr-mx"]}', '"loss" must be one of'),
        ('"layers": {"type": "categorical", "choices": ["9/x"]}', '"layers" must be an integer'),
        ('"final_act": {"type": "categorical", "choices": ["softmax"]}},\n"fixed": '
         '{"loss": "bpr-max"', "space.json:1: no configuration can be trained: gru4rec: final_act"),
        ('"loss": {"type": "categorical", "choices": ["cross-entropy", "bpr-max"]},'
         '"smoothing": {"type": "categorical", "choices": [0, 0.1]}},\n'
         '"start": [{"loss": "bpr-max", "smoothing": 0.1}],\n"fixed": {"n_epochs": 1',
         "space.json:4: start point 1: gru4rec: smoothing=0.1"),
    ],
)  # fmt: skip
def test_space_is_held_against_the_model(paropt: Paropt, entry: str, message: str) -> None:
    done = paropt("space", write(f'{{"model": "gru4rec",\n"search": {{\n{entry}}}}}'))
    assert isinstance(done.exception, ParoptError)
    assert message in str(done.exception)


def test_what_is_fixed_on_the_command_line_is_named_so(paropt: Paropt) -> None:
    done = paropt("space", write(json.dumps(SPACE)), "--fixed", "n_smaple=64")
    assert str(done.exception).startswith('--fixed: gru4rec has no parameter "n_smaple"; did you')


def test_a_parameter_of_one_model_only_needs_a_condition(
    paropt: Paropt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_model_for_space.py").write_text(
        "from models.parts.contract import Model, Param\n"
        "class Mine(Model):\n"
        "    PARAMS = (Param('heads', 'int', 2, 'heads'), Param('n_epochs', 'int', 4, 'epochs'))\n"
        "    def loss(self, batch): ...\n"
        "    def evaluate(self, batches): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    models = ["gru4rec", "other_model_for_space:Mine"]
    search: dict[str, Any] = {
        "model": {"type": "categorical", "choices": models},
        "heads": {"type": "categorical", "choices": [1, 2]},
    }
    done = paropt("space", write(json.dumps({"search": search})))
    assert 'gru4rec has no parameter "heads"; say "when": {"model": "other' in str(done.exception)
    search["heads"]["when"] = {"model": models[1]}
    done = paropt("space", write(json.dumps({"search": search})), "--json")
    assert json.loads(done.stdout)["configurations"] == 1 + 2
