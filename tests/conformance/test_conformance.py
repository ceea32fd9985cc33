"""Every shipped model and a user's own keep the contract; every check finds what it is for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paropt.cli.main import run
from paropt.training import registry
from paropt.training.conformance import CheckResult, check_model
from paropt.training.made_up import made_up_data

HERE = Path(__file__).parent
ALIEN = "shop.alien:Alien"
KNOWING = "shop.knowing:Knowing"


@pytest.fixture(autouse=True)
def _users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """``shop`` can be imported, as a user's installed package can."""
    monkeypatch.syspath_prepend(HERE)


def failures(results: list[CheckResult]) -> list[str]:
    return [f"{r.name}: {r.message}" for r in results if r.status == "failed"]


FORMS: list[tuple[str, dict[str, Any]]] = [
    # UR4Rec has SASRec's choices and tests of its own (tests/unit/models/test_ur4rec.py)
    *((name, {}) for name in registry.names() if name != "ur4rec"),
    ("sasrec", {"experts": 4, "shared_experts": 1, "balance": "epoch_div"}),
    ("hstu", {"experts": 4, "rotary": "linear", "time_mode": "query", "loss": "sampled-softmax"}),
    (ALIEN, {}),
    (KNOWING, {}),
    (KNOWING, {"users": False, "profile": "none", "wanted": "none", "vectors": "none"}),
]


@pytest.mark.parametrize(
    ("name", "params"), FORMS, ids=[f"{n}-{'+'.join(p) or 'default'}" for n, p in FORMS]
)
def test_models_keep_the_contract(name: str, params: dict[str, Any]) -> None:
    # choices of a variant are those of its model, which are tried once
    results = check_model(name, params)
    assert failures(results) == []
    skipped = [result.message for result in results if result.status == "skipped"]
    if registry.judges_itself(name) and name in registry.names():  # the task ranks no items
        neither = "the model has neither encode() nor score()"
        users = "the model's vectors are not for items"
        assert set(skipped) == {users if name == "long_short" else neither}
        return
    counts = ["the model counts, and nothing in it is random"] if registry.counts(name) else []
    assert skipped == counts


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        ("LooksAhead", "later events", "another item at position 1 changes earlier ones"),
        ("SeesPadding", "alone", "events has other vectors beside longer ones"),
        ("DrawsWithoutItsSeed", "same seed", "a second training of the same seed has another own"),
        ("IgnoresItsSeed", "another seed", "seeds 1 and 2 give the same initial weights"),
        ("ForgetsState", "resumed", "after a resume training_state() has another seen"),
        ("KeepsWeightsOutOfItsState", "opens", "metrics were"),
        ("LearnsInEvaluation", "evaluation", "it gave"),
        ("CrashesOnAChoice", "choice", "shape = square ends in IndexError: no corner"),
        ("BadDefault", "in full", "the default of size must be at most 4, not 5"),
        ("TellsNoJson", "JSON", "end_epoch() of epoch 1"),
        ("RunsBackwards", "lowers", "the loss"),
        ("NeedsNineItems", "too small", "ends in IndexError"),
    ],
)
def test_a_planted_bug_is_found(broken: str, check: str, message: str) -> None:
    (result,) = check_model(f"shop.broken:{broken}", only=check)
    assert result.status == "failed" and message in result.message
    if broken != "BadDefault":
        (good,) = check_model("shop.broken:Plain", only=check)
        assert good.status == "passed", good.message


def test_a_model_may_be_checked_on_data_of_its_own(tmp_path: Path) -> None:
    data = made_up_data(tmp_path / "own", sessions=80)
    results = check_model(ALIEN, {"dim": 4}, data, only="recommends")
    assert [result.status for result in results] == ["passed"]


# -- through the command line --------------------------------------------------------------------


def test_models_check_verb(capsys: pytest.CaptureFixture[str]) -> None:
    def check(*arguments: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            run(["models", "check", *arguments])
        told = capsys.readouterr()
        return ended.value.code, told.out, told.err

    code, out, _ = check(ALIEN, "--params", "dim=4", "--json")
    assert code == 0
    found = json.loads(out)
    assert len(found) == 15 and {result["status"] for result in found} == {"passed"}
    code, out, err = check("shop.broken:BadDefault")
    assert code == 1 and "the default of size must be at most 4, not 5" in out
    assert "fails" in err
    code, out, err = check("shop.alien:Nobody")
    assert code == 1 and out == "" and err.count("\n") == 1


def test_train_verbs_take_a_users_model(run_paropt: Callable[..., Any], tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(HERE)}
    made_up_data(tmp_path / "data")
    done = run_paropt(
        *("train", "--model", ALIEN, "--params", "dim=8,n_epochs=8", "--data", "data"),
        *("--save", "saved", "--json"),
        env=env,
    )
    assert done.rc == 0, done.err
    metrics = json.loads(done.out)["metrics"]
    assert metrics["kind_mrr"] > 0.5  # six items of a kind: chance is (1 + 1/2 + … + 1/6)/6 = 0.41
    done = run_paropt("evaluate", "saved", "--data", "data", "--json", env=env)
    assert done.rc == 0, done.err
    assert json.loads(done.out)["metrics"] == metrics


@pytest.mark.postgres
@pytest.mark.long
def test_a_users_model_that_judges_itself_is_searched_to_its_report(
    run_paropt: Callable[..., Any], tmp_path: Path, paropt_home: Path
) -> None:
    made_up_data(tmp_path / "data")
    space = {
        "model": ALIEN,
        "fixed": {"n_epochs": 2},
        "search": {
            "dim": {"type": "categorical", "choices": [4, 8]},
            "price": {"type": "categorical", "choices": [True, False]},
            "decay": {"type": "float", "low": 0.1, "high": 0.9},
        },
    }
    (tmp_path / "space.json").write_text(json.dumps(space))

    def paropt(*arguments: str) -> Any:
        env = {"PYTHONPATH": str(HERE)}
        done = run_paropt(*arguments, "--json", env=env, timeout=240)
        assert done.rc == 0, done.err
        return json.loads(done.out)

    where = ("--devices", "cpu", "--per-device", "1")
    study = ("--space", "space.json", "--data", "data", "--study", "alien")
    found = paropt("launch", *study, "--trials", "3", *where)
    assert found["model"] == ALIEN and found["metric"] == "kind_rank"
    assert found["counts"]["complete"] + found["counts"]["pruned"] == 3
    best = found["best"]
    assert 1 <= best["value"] == best["metrics"]["kind_rank"] <= 6
    assert best["metrics"]["kind_mrr"] > 0
    status = paropt("status", "alien")
    assert list(status["floor"]) == ["popular of its kind"], "no floor of another task"
    (made,) = paropt("export", "alien", "--top", "1", "--out", "best")
    provenance = json.loads((tmp_path / made["file"]).read_text())["provenance"]
    assert provenance["metric"] == "kind_rank" and provenance["value"] == best["value"]
    report = paropt("final", "alien", "--top", "1", "--seeds", "2", "--out", "report", *where)
    test = report["test"]
    low, high = test["chosen"]["metrics"]["kind_rank"]["interval"]
    assert low < test["chosen"]["metrics"]["kind_rank"]["mean"] < high
    floor = test["baselines"]["popular of its kind"]
    assert set(floor["metrics"]) == {"kind_rank", "kind_mrr"}
    assert floor["difference"]["kind_rank"]["mean"] == pytest.approx(
        test["chosen"]["metrics"]["kind_rank"]["mean"] - floor["metrics"]["kind_rank"]["mean"]
    )
    assert "Popular of its kind" in (tmp_path / "report" / "report.md").read_text()
    page = run_paropt("report", "alien", "--out", "page.html")
    assert page.rc == 0 and "kind_rank on test" in (tmp_path / "page.html").read_text()
