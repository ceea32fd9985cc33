"""``paropt evaluate``: on a model's own data, on others', and on files of events."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typed import PARAMS, Paropt

from paropt.data import open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import DataError, ParamError, ParoptError


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


def test_what_a_model_was_trained_on_is_no_test_by_another_way(
    trained: tuple[Path, dict[str, Any]], shop: Path, paropt: Paropt, tmp_path: Path
) -> None:
    """Its own log as a file, the same log with three days of test, and a training that goes on."""
    directory, _ = trained
    log, seen = shop.parent / "events.tsv", "targets are no later than the last event that"
    train = open_dataset(shop).split("train_full").times
    last = datetime.fromtimestamp(int(train.max()) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    targets = [line.split("\t") for line in log.read_text().splitlines()[1:]]
    targets = [b for a, b in itertools.pairwise(targets) if a[0] == b[0]]
    early = sum(1000 * int(time) <= train.max() for _, _, time in targets)
    assert 0 < early < len(targets)
    told = f"{early:,} of {len(targets):,} {seen} {directory} was trained on ({last})"
    assert told in paropt("evaluate", directory, "--test", log).stderr
    own = bare_test(shop, tmp_path / "own.tsv")
    assert seen not in paropt("evaluate", directory, "--test", own).stderr
    assert seen not in paropt("evaluate", directory, "--data", shop).stderr
    prepare([log], tmp_path / "three", options=Options(test_days=3.0))
    again = paropt("evaluate", directory, "--data", tmp_path / "three").stderr
    tested = open_dataset(tmp_path / "three").split("test")
    early = int((tested.times[tested.targets] <= train.max()).sum())
    assert f"{early:,} of {int(tested.targets.sum()):,} {seen} {directory}" in again
    # what goes on from it knows what it knew
    words = ["--from", directory, "--data", tmp_path / "three", "--params", "n_epochs=1"]
    done = paropt("train", *words, "--save", tmp_path / "next")
    assert f"{seen} {directory}" in done.stderr
    assert seen in paropt("evaluate", tmp_path / "next", "--test", log).stderr
    meta = json.loads((tmp_path / "next" / "model.json").read_text())
    assert meta["last_event"] == int(train.max())
    # running numbers are no times
    prepare([log], tmp_path / "order", options=Options(rows_in_order=True))
    assert seen not in paropt("evaluate", directory, "--data", tmp_path / "order").stderr


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
