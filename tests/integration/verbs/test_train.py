"""``paropt train``: what it says, what it refuses, and what is a look at a test set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typed import PARAMS, Paropt

from paropt.data import open_dataset
from paropt.errors import ParamError, ParoptError
from paropt.results.final.looks_at_test import Look
from paropt.results.final.looks_here import looks_here
from paropt.training.train_request import parse_params

KEYS = {
    "model", "metrics", "targets", "unknown", "seconds", "events_per_second", "params",
    "fingerprint", "seed", "split", "ties", "filter_seen", "threads", "device", "epochs", "floor",
    "best_epoch", "stage", "loss", "saved", "extra", "metric", "interval", "with_misses",
    "sessions", "tied", "conservative", "stderr", "candidates", "begun_from", "cold", "trained_on",
}  # fmt: skip


def test_train_says_what_was_trained_on_what(
    trained: tuple[Path, dict[str, Any]], shop: Path
) -> None:
    directory, said = trained
    assert set(said) == KEYS
    assert (said["metric"], said["candidates"]) == ("mrr@5", "all")
    assert said["interval"][0] < said["metrics"]["mrr@5"] < said["interval"][1]
    share = said["targets"] / (said["targets"] + said["unknown"])
    assert said["with_misses"] == pytest.approx(share * said["metrics"]["mrr@5"])
    assert set(said["metrics"]) == {f"{m}@{k}" for m in ("recall", "mrr", "ndcg") for k in (1, 5)}
    assert set(said["floor"]) == {"popularity", "cooccurrence"}
    assert set(said["floor"]["popularity"]) == set(said["metrics"])
    assert said["metrics"]["recall@5"] > 2 * said["floor"]["popularity"]["recall@5"]
    dataset = open_dataset(shop)
    assert said["fingerprint"] == dataset.fingerprint
    test = dataset.view("full").test
    assert said["unknown"] == int(
        (test.targets & (test.items >= dataset.n_items("train_full"))).sum()
    )
    assert said["unknown"] > 0
    assert said["targets"] + said["unknown"] <= int(test.targets.sum())
    assert (said["seed"], said["split"], said["epochs"], said["threads"]) == (5, "full", 3, 1)
    assert said["params"]["layers"] == [16]
    assert said["saved"] == str(directory)


def test_a_paramfile_gives_its_number_again(paropt: Paropt, shop: Path, tmp_path: Path) -> None:
    """Split, seed, threads and epochs come from it unless given."""
    provenance = {"split": "full", "seed": 5, "threads": 1, "epochs": 2, "fingerprint": "other"}
    params = {"layers": [16], "batch_size": 8, "n_sample": 32, "n_epochs": 3, "learning_rate": 0.1}
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"model": "gru4rec", "params": params, "provenance": provenance}))
    first = paropt("train", "--params", file, "--data", shop, "--json")
    assert "the paramfile is from other data (other, not" in first.stderr
    one, other, third = (
        json.loads(paropt("train", "--params", file, "--data", shop, "--json", *more).stdout)
        for more in ((), (), ("--seed", "6", "--split", "search", "--epochs", "1"))
    )
    assert (one["split"], one["seed"], one["threads"], one["epochs"]) == ("full", 5, 1, 2)
    assert one["metrics"] == other["metrics"] == json.loads(first.stdout)["metrics"]
    assert (third["split"], third["seed"], third["epochs"]) == ("search", 6, 1)


def test_a_training_that_is_judged_on_test_is_a_look(
    paropt: Paropt, shop: Path, tmp_path: Path
) -> None:
    def looks() -> list[Look]:
        return looks_here(open_dataset(shop).fingerprint)

    before = len(looks())
    plain = ("--data", shop, "--threads", "1", "--epochs", "1", "--json")
    arguments = ("train", "--params", PARAMS + ",momentum=0.25", "--split", "full", *plain)
    for _ in range(2):  # the same number again is no other look
        done = paropt(*arguments)
        assert f"this was look {before + 1} at the test set" in done.stderr
    assert len(looks()) == before + 1
    assert looks()[-1].study == "paropt train, gru4rec"
    paropt("train", "--params", PARAMS, *plain)  # on valid
    other = (*arguments[: -len(plain) - 1], "without-valid", *plain)
    done = paropt(*other)
    assert f"this was look {before + 2} at the test set" in done.stderr
    assert json.loads(done.stdout)["split"] == "without-valid"
    # what a final test gave again
    provenance = {"split": "full", "final": 1, "seed": 4, "seeds": [4, 5], "epochs": 1}
    provenance["fingerprint"] = open_dataset(shop).fingerprint
    final = {"model": "gru4rec", "params": {}, "provenance": provenance}
    (tmp_path / "chosen.json").write_text(json.dumps(final))
    save = ("--save", tmp_path / "chosen")
    assert "look" not in paropt("train", "--params", tmp_path / "chosen.json", *plain, *save).stderr
    assert "look" not in paropt("evaluate", tmp_path / "chosen", "--data", shop).stderr
    assert len(looks()) == before + 2
    # but not what it never trained
    other_seed = paropt("train", "--params", tmp_path / "chosen.json", *plain, "--seed", "6")
    assert f"this was look {before + 3} at the test set" in other_seed.stderr


def test_a_saved_model_judged_on_test_is_a_look(paropt: Paropt, shop: Path, tmp_path: Path) -> None:
    """Two that were trained on train and are told apart by test; what ``train`` counted is none."""

    def looks() -> int:
        return len(looks_here(open_dataset(shop).fingerprint))

    plain = ("--data", shop, "--threads", "1", "--epochs", "1")
    for seed in (1, 2):
        more = ("--seed", seed, "--save", tmp_path / f"m{seed}")
        paropt("train", "--params", PARAMS, *plain, "--split", "search", *more)
    before = looks()
    paropt("evaluate", tmp_path / "m1", "--data", shop)
    assert looks() == before, "that was valid"
    for seed in (1, 2, 1):
        done = paropt("evaluate", tmp_path / f"m{seed}", "--data", shop, "--split", "full")
        assert f"this was look {before + seed} at" in done.stderr
    assert looks() == before + 2
    paropt("train", "--params", PARAMS, *plain, "--split", "full", "--save", tmp_path / "full")
    trained = looks()
    paropt("evaluate", tmp_path / "full", "--data", shop)
    assert looks() == trained, "the same number again"


def test_test_does_not_say_when_to_stop(paropt: Paropt, shop: Path) -> None:
    """With patience 1 a training on train ends as soon as valid falls."""
    given = dict(pair.split("=") for pair in PARAMS.split(","))
    given |= {"n_epochs": "9", "patience": "1", "learning_rate": "1.5"}
    params = ",".join(f"{name}={value}" for name, value in given.items())
    plain = ("--data", shop, "--threads", "1", "--json")
    stopped = json.loads(paropt("train", "--params", params, *plain, "--split", "search").stdout)
    assert stopped["epochs"] < 9
    done = paropt("train", "--params", params, *plain, "--split", "full")
    assert json.loads(done.stdout)["epochs"] == 9
    assert "patience is for valid, and all epochs are trained" in done.stderr


def test_train_for_people(paropt: Paropt, shop: Path) -> None:
    done = paropt("train", "--params", PARAMS, "--data", shop, "--epochs", "1", "--threads", "1")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["gru4rec", "popularity", "co-occurrence"]
    assert [line.split()[0] for line in lines[1:13]] == [
        f"{m}@{k}" for k in (1, 5, 10, 20) for m in ("recall", "mrr", "ndcg")
    ]
    assert "split search, seed 42, epochs 1" in done.stdout
    assert "standard ties" in done.stdout
    assert open_dataset(shop).fingerprint in done.stdout
    told = done.stderr.splitlines()
    assert told[0].startswith("judged with history not filtered, standard ties (usual for time")
    assert told[1].startswith("epoch 1/1  loss ")
    assert told[2].startswith("Warning: only ")


def test_the_model_may_stand_among_the_parameters(paropt: Paropt, shop: Path) -> None:
    params = "model=sasrec,dim=8,heads=1,blocks=1,max_length=8,n_epochs=1"
    done = paropt("train", "--params", params, "--data", shop, "--threads", "1", "--json")
    assert json.loads(done.stdout)["model"] == "sasrec"


def test_metrics_of_ones_own_choice(paropt: Paropt, shop: Path) -> None:
    done = paropt(
        "train", "--params", PARAMS, "--epochs", "1", "--data", shop, "--at", "5", "--json",
        "--metric", "0.25*HIT@5+0.75*ndcg@10", "--also", "avg_rank,coverage@5",
        "--also", "parameters,model_bytes,latency_ms,peak_memory,seconds_per_epoch",
    )  # fmt: skip
    said = json.loads(done.stdout)
    metrics = said["metrics"]
    assert said["metric"] == "0.25*recall@5+0.75*ndcg@10"
    value = 0.25 * metrics["recall@5"] + 0.75 * metrics["ndcg@10"]
    assert metrics[said["metric"]] == pytest.approx(value, abs=1e-15)
    assert 1 <= metrics["avg_rank"] <= 30
    assert 0 < metrics["coverage@5"] <= 1
    assert metrics["model_bytes"] == 4 * metrics["parameters"] > 0
    assert min(metrics["latency_ms"], metrics["peak_memory"], metrics["seconds_per_epoch"]) > 0
    assert said["metric"] in said["floor"]["cooccurrence"]
    with pytest.raises(ParamError, match="did you mean recall@20"):
        paropt("train", "--params", PARAMS, "--data", shop, "--metric", "recal")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("layers=16,layer=3", "no parameter 'layer'; did you mean 'layers'?"),
        ("layers=x", "layers must be an integer, not 'x'"),
        ("layers", "no file layers, and paropt has no paramfile of that name"),
        ("layers=", "parameters are written k=v,k=v; 'layers=' is not"),
        ("layers=1,layers=2", "parameter 'layers' is given twice"),
        ("layers=1,,loss=bpr", "'' is not"),
    ],
)
def test_bad_params_in_one_sentence(
    params: str, message: str, paropt: Paropt, shop: Path, tmp_path: Path
) -> None:
    save = tmp_path / "model"
    done = paropt("train", "--params", params, "--data", shop, "--save", save, ok=False)
    assert isinstance(done.exception, ParoptError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_place_is_refused_before_training(
    paropt: Paropt, shop: Path, tmp_path: Path
) -> None:
    done = paropt("train", "--params", PARAMS, "--data", shop, "--save", tmp_path, ok=False)
    assert str(done.exception).startswith(f"{tmp_path} exists; choose another")
    assert "epoch" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--at", "0", "0 is no cut-off"),
        ("--at", "1,x", "'1,x' is no list of whole numbers"),
        ("--ties", "random", "is not one of"),
        ("--epochs", "0", "0 is not in the range"),
    ],
)
def test_usage_errors(option: str, value: str, message: str, paropt: Paropt, shop: Path) -> None:
    done = paropt("train", "--params", PARAMS, "--data", shop, option, value, ok=False)
    assert done.exit_code == 2
    assert message in done.stderr


def test_parameters_are_said_once(
    paropt: Paropt, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And may be many: 280 letters are no name of a file."""
    words = ["train", "--data", shop, "--params", "model=markov"]
    twice = paropt(*words, "--params", "steps=2", ok=False)
    assert twice.exit_code == 2 and "say it once" in twice.stderr
    (tmp_path / "a b.json").write_text('{"model": "markov", "params": {"steps": 2}}')
    monkeypatch.setenv("PAROPT_TRAIN_PARAMS", str(tmp_path / "a b.json"))
    assert json.loads(paropt("train", "--data", shop, "--json").stdout)["params"]["steps"] == 2
    long = ",".join(f"no_such_parameter_{k}=1" for k in range(14))
    assert len(long) > 280
    assert "no_such_parameter_0" in str(
        paropt("train", "--data", shop, "--params", long, ok=False).exception
    )


def test_parse_params_takes_sizes_and_spaces() -> None:
    assert parse_params("layers=100/50, loss = bpr-max") == {"layers": "100/50", "loss": "bpr-max"}
    assert parse_params("layers=100,adapt_params=[]") == {"layers": "100"}, "GRU4Rec's own line"
    assert parse_params("adapt_params=[0.9]") == {"adapt_params": "[0.9]"}, (
        "for the model to refuse"
    )
    with pytest.raises(ParamError):
        parse_params("")
