"""train, evaluate, recommend and models, as a user types them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from paropt.cli.main import cli
from paropt.data import open_dataset
from paropt.data.prepare import prepare
from paropt.errors import DataError, ParamError, ParoptError
from paropt.results.looks_at_test import Look
from paropt.results.looks_here import looks_here
from paropt.training.saved_model.saved import load_model
from paropt.training.train_request import parse_params

PARAMS = "layers=16,batch_size=8,n_sample=32,learning_rate=0.1,n_epochs=3,loss=cross-entropy"
KEYS = {
    "model", "metrics", "targets", "unknown", "seconds", "events_per_second", "params",
    "fingerprint", "seed", "split", "ties", "filter_seen", "threads", "device", "epochs", "floor",
    "best_epoch", "stage", "loss", "saved", "extra", "metric", "interval", "with_misses",
    "sessions", "tied", "conservative", "stderr", "candidates", "begun_from", "cold",
}  # fmt: skip
Paropt = Callable[..., Result]


@pytest.fixture
def paropt() -> Paropt:
    """A verb in this process; torch is imported once, not for every test."""

    def run(*arguments: str | Path, ok: bool = True) -> Result:
        before = torch.get_num_threads()
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        torch.set_num_threads(before)
        if ok and result.exception:
            raise result.exception
        return result

    return run


@pytest.fixture(autouse=True, scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Looks at a test set are noted there."""
    directory = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAROPT_HOME", str(directory))
        yield directory


@pytest.fixture(autouse=True)
def at_home(_no_paropt_environment: None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(home))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks on a ring of 30 items; item ``new`` is in the last days only."""
    source = np.random.default_rng(2)
    lines = ["SessionId\tItemId\tTime"]
    for session in range(300):
        item, start = source.integers(0, 30), 1_600_000_000 + session * 2880
        for event in range(source.integers(2, 9)):
            name = "new" if session > 275 and event == 2 else f"i{item}"
            lines.append(f"s{session}\t{name}\t{start + 20 * event}")
            item = (item + source.integers(1, 3)) % 30
    directory = tmp_path_factory.mktemp("shop")
    (directory / "events.tsv").write_text("\n".join(lines) + "\n")
    prepare([directory / "events.tsv"], directory / "shop")
    return directory / "shop"


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A saved model and what ``train --json`` said of it."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    arguments = ["train", "--params", PARAMS, "--data", str(shop), "--split", "full", "--json"]
    arguments += ["--save", str(directory), "--threads", "1", "--seed", "5", "--at", "1,5"]
    before = torch.get_num_threads()
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    torch.set_num_threads(before)
    return directory, json.loads(result.stdout)


# -- train -----------------------------------------------------------------------------------


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
    final = {"model": "gru4rec", "params": {}, "provenance": {"split": "full", "final": 1}}
    (tmp_path / "chosen.json").write_text(json.dumps(final))
    assert "look" not in paropt("train", "--params", tmp_path / "chosen.json", *plain).stderr
    assert len(looks()) == before + 2


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


def test_parse_params_takes_sizes_and_spaces() -> None:
    assert parse_params("layers=100/50, loss = bpr-max") == {"layers": "100/50", "loss": "bpr-max"}
    assert parse_params("layers=100,adapt_params=[]") == {"layers": "100"}, "GRU4Rec's own line"
    assert parse_params("adapt_params=[0.9]") == {"adapt_params": "[0.9]"}, (
        "for the model to refuse"
    )
    with pytest.raises(ParamError):
        parse_params("")


# -- evaluate --------------------------------------------------------------------------------


def test_a_saved_model_tests_as_it_did_when_trained(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt
) -> None:
    directory, said = trained
    found = json.loads(
        paropt(
            "evaluate", directory, "--data", shop, "--at", "1,5", "--threads", "1", "--json"
        ).stdout
    )
    same = ("metrics", "targets", "unknown", "floor", "params", "fingerprint", "split", "epochs")
    assert {key: found[key] for key in same} == {key: said[key] for key in same}
    table = paropt("evaluate", directory, "--data", shop, "--at", "1,5").stdout
    assert f"{said['metrics']['recall@5']:.4f}" in table


def test_other_data_are_matched_by_item_ids(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt, tmp_path: Path
) -> None:
    """The same test after one more session in training: another item index, the same answer."""
    directory, said = trained
    header, *lines = (shop.parent / "events.tsv").read_text().splitlines()
    more = [f"first\ti{item}\t{1_599_999_000 + item}" for item in (7, 21, 3)]
    (tmp_path / "events.tsv").write_text("\n".join([header, *more, *lines]) + "\n")
    prepare([tmp_path / "events.tsv"], tmp_path / "backwards")
    done = paropt("evaluate", directory, "--data", tmp_path / "backwards", "--at", "1,5", "--json")
    found = json.loads(done.stdout)
    assert "items are matched by their ids" in done.stderr
    assert found["fingerprint"] != said["fingerprint"]
    assert found["floor"] is None
    assert (found["targets"], found["unknown"]) == (said["targets"], said["unknown"])
    assert found["metrics"] == pytest.approx(said["metrics"], abs=1e-6)


def bare_test(shop: Path, path: Path) -> Path:
    """The events of the sessions of the test split, as a file of their own."""
    header, *lines = (shop.parent / "events.tsv").read_text().splitlines()
    sessions = set(open_dataset(shop).view("full").test.session_ids().tolist())
    kept = [line for line in lines if line.split("\t")[0] in sessions]
    path.write_text("\n".join([header, *kept]) + "\n")
    return path


def test_bare_test_files_are_judged_as_they_are(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt, tmp_path: Path
) -> None:
    """The test split as a file has the numbers of the dataset; a file is never split again."""
    directory, said = trained
    path = bare_test(shop, tmp_path / "test.tsv")
    half = tmp_path / "half.csv"
    lines = path.read_text().replace("\t", ",").splitlines()
    half.write_text("\n".join(lines[: len(lines) // 2]).replace("ItemId", "product") + "\n")
    done = paropt("evaluate", directory, "--test", path, "--at", "1,5", "--json")
    (found,) = json.loads(done.stdout)
    assert "every event after a session's first is predicted" in done.stderr
    assert (found["targets"], found["unknown"]) == (said["targets"], said["unknown"])
    assert found["metrics"] == pytest.approx(said["metrics"], abs=1e-6)
    assert (found["file"], found["floor"], found["split"]) == (str(path), None, "file")
    both = paropt(
        "evaluate", directory, "--test", path, half, "--at", "5", "--json", "--item-key", "product",
        ok=False,
    )  # fmt: skip
    assert isinstance(both.exception, ParoptError) and "product" in str(both.exception)
    half.write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    both = paropt("evaluate", directory, "--test", path, half, "--at", "5")
    assert both.stdout.count("recall@5") == 2
    assert f"{half}" in both.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --data DIR or --test FILE"),
        (("--test", "a.tsv", "--data", "shop"), "give either --data DIR or --test FILE"),
        (("--data", "shop", "b.tsv"), "files follow --test"),
        (("--test", "a.tsv", "--split", "full"), "--split is of a dataset"),
    ],
)
def test_what_a_model_is_tested_on_is_one_or_the_other(
    arguments: tuple[str, ...], message: str, trained: tuple[Path, dict[str, Any]], paropt: Paropt
) -> None:
    done = paropt("evaluate", trained[0], *arguments, ok=False)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_shop_of_which_no_item_is_known_is_refused(
    trained: tuple[Path, dict[str, Any]], paropt: Paropt, tmp_path: Path
) -> None:
    lines = ["SessionId,ItemId,Time"]
    for session in range(40):
        start = 1_600_000_000 + session * 21_600
        lines += [f"s{session},article{(session + n) % 5},{start + n}" for n in range(3)]
    (tmp_path / "events.csv").write_text("\n".join(lines) + "\n")
    prepare([tmp_path / "events.csv"], tmp_path / "other")
    with pytest.raises(
        DataError, match=r"none of the 5 items of .*'article\d' there, and as 'i\d+'"
    ):
        paropt("evaluate", trained[0], "--data", tmp_path / "other")


def test_another_shop_is_refused(
    trained: tuple[Path, dict[str, Any]], paropt: Paropt, tmp_path: Path
) -> None:
    """Of its targets the model knows the second item of a single session."""
    source = np.random.default_rng(3)
    lines = ["SessionId\tItemId\tTime"]
    for session in range(120):
        items = [f"other{number}" for number in source.integers(0, 9, 4)]
        if session < 8 or session == 115:
            items[:2] = ["i3", "i4"]
        for event, item in enumerate(items):
            lines.append(f"s{session}\t{item}\t{1_600_000_000 + session * 2880 + 20 * event}")
    (tmp_path / "events.tsv").write_text("\n".join(lines) + "\n")
    prepare([tmp_path / "events.tsv"], tmp_path / "other")
    targets = int(open_dataset(tmp_path / "other").view("full").test.targets.sum())
    with pytest.raises(DataError, match=f"knows the items of 1 of {targets} targets"):
        paropt("evaluate", trained[0], "--data", tmp_path / "other")


def test_how_targets_are_judged_follows_the_data_and_can_be_said(
    paropt: Paropt, shop: Path, tmp_path: Path
) -> None:
    """Leave-one-out data have their history filtered, and a saved model says what it was."""
    events = shop.parent / "events.tsv"
    paropt("prepare", events, "--protocol", "leave-one-out", "--out", tmp_path / "users")
    params = ("--params", PARAMS, "--epochs", "1", "--threads", "1", "--data", tmp_path / "users")
    done = paropt("train", *params, "--json", "--save", tmp_path / "model")
    said = json.loads(done.stdout)
    assert said["filter_seen"] is True
    assert "judged with history filtered, standard ties (usual for leave-one-out" in done.stderr
    other = json.loads(paropt("train", *params, "--json", "--no-filter-seen").stdout)
    assert other["filter_seen"] is False
    assert other["floor"]["popularity"] != said["floor"]["popularity"]
    again = ("evaluate", tmp_path / "model", "--data", tmp_path / "users", "--json")
    assert json.loads(paropt(*again).stdout)["metrics"] == said["metrics"]
    conservative = json.loads(paropt(*again, "--no-filter-seen", "--ties", "conservative").stdout)
    assert (conservative["filter_seen"], conservative["ties"]) == (False, "conservative")
    # a paramfile of paropt 0.1 is of a study that filtered nothing, and does not say so
    stored = {"model": "gru4rec", "params": said["params"], "provenance": {"study": "old"}}
    (tmp_path / "old.json").write_text(json.dumps(stored))
    old = ("train", "--params", tmp_path / "old.json", *params[2:], "--json")
    assert json.loads(paropt(*old).stdout)["metrics"] == other["metrics"]


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


def test_a_test_has_no_seconds_per_epoch(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt
) -> None:
    evaluate = ("evaluate", trained[0], "--data", shop, "--json", "--also")
    with pytest.raises(ParamError, match="nothing is trained here"):
        paropt(*evaluate, "seconds_per_epoch")
    said = json.loads(paropt(*evaluate, "parameters,gini@5").stdout)
    assert said["metrics"]["parameters"] > 0
    assert 0 <= said["metrics"]["gini@5"] < 1


def test_a_test_on_what_was_trained_on_is_said(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt
) -> None:
    done = paropt("evaluate", trained[0], "--data", shop, "--split", "search")
    assert "which holds the targets of valid" in done.stderr


# -- saved models ----------------------------------------------------------------------------


def test_a_saved_model_is_data(trained: tuple[Path, dict[str, Any]], shop: Path) -> None:
    directory, said = trained
    assert sorted(p.name for p in directory.iterdir()) == [
        "items.parquet", "model.json", "model.safetensors",
    ]  # fmt: skip
    meta = json.loads((directory / "model.json").read_text())
    assert {meta["model"], meta["split"], meta["fingerprint"]} == {
        "gru4rec", "full", said["fingerprint"],
    }  # fmt: skip
    assert meta["metrics"] == said["metrics"]
    assert set(meta["versions"]) == {"paropt", "torch", "numpy", "python"}
    saved = load_model(directory)
    assert saved.item_ids.tolist() == open_dataset(shop).item_ids()[: saved.n_items].tolist()
    assert not saved.model.training


def copied(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "copy"))


def drop(path: Path) -> None:
    (path / "model.safetensors").unlink()


def flip(path: Path) -> None:
    content = bytearray((path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "model.safetensors").write_bytes(content)


def cut(path: Path) -> None:
    content = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(content[:-7])


def retell(path: Path) -> None:
    text = (path / "model.json").read_text()
    (path / "model.json").write_text(text.replace('"seed": 5', '"seed": 6'))


def garble(path: Path) -> None:
    (path / "model.json").write_bytes(b"\xff{")


def rename_items(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    ids = pa.parquet.read_table(path / "items.parquet").column("id").to_pylist()
    pa.parquet.write_table(pa.table({"id": ids[::-1]}), path / "items.parquet")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop, "is no saved model (it has no model.safetensors)"),
        (flip, "its checksum does not match"),
        (cut, "it is cut short"),
        (retell, "model.json was changed"),
        (garble, "cannot be used as a model"),
        (rename_items, "items.parquet was changed"),
    ],
)
def test_a_damaged_model_is_refused(
    damage: Callable[[Path], None],
    message: str,
    trained: tuple[Path, dict[str, Any]],
    tmp_path: Path,
) -> None:
    path = copied(trained, tmp_path)
    load_model(path)
    damage(path)
    with pytest.raises(DataError) as caught:
        load_model(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_for_weights_is_never_opened(
    trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = copied(trained, tmp_path)
    (path / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(DataError, match="it is pickled"):
        load_model(path)
    assert not (tmp_path / "ran").exists()


def test_no_model_there(tmp_path: Path, paropt: Paropt) -> None:
    done = paropt("evaluate", tmp_path / "none", "--data", tmp_path, ok=False)
    assert "is no saved model (it is not there)" in str(done.exception)


# -- recommend -------------------------------------------------------------------------------


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
    monkeypatch.setattr("paropt.training.saved_model.recommending.CHUNK", 1)
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


# -- models ----------------------------------------------------------------------------------


def test_models_lists_what_there_is(paropt: Paropt) -> None:
    assert any(line.startswith("gru4rec") for line in paropt("models").stdout.splitlines())
    names = [model["name"] for model in json.loads(paropt("models", "--json").stdout)]
    assert "gru4rec" in names


def test_models_shows_every_parameter(paropt: Paropt) -> None:
    from paropt.training import registry

    declared = registry.declaration("gru4rec")
    table = paropt("models", "gru4rec").stdout
    shown = json.loads(paropt("models", "gru4rec", "--json").stdout)
    assert [param["name"] for param in shown["params"]] == list(declared)
    for name, param in declared.items():
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        assert param.help.split()[0] in line
    assert "leaky-X" in table
    assert "from 0 below 1" in table


def test_models_of_an_unknown_name(paropt: Paropt) -> None:
    done = paropt("models", "gru4rek", ok=False)
    assert "did you mean 'gru4rec'" in str(done.exception)
