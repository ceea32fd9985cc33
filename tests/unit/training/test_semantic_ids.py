"""Semantic ids: features that are added to a dataset whole or not at all, and what they say."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from paropt.cli.main import cli
from paropt.data.dataset import Dataset, open_dataset
from paropt.errors import CheckpointError, DataError, ParoptError
from paropt.search.setup.check_needs import items_read
from paropt.search.setup.check_space import checked
from paropt.search.space.file import from_json
from paropt.search.space.paramfiles import Paramfile, formatted
from paropt.search.study.definition import StudyDefinition
from paropt.training.evaluate_saved import evaluate_saved
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import ITEMS, made_up_data
from paropt.training.registry import Needs
from paropt.training.semantic_ids.learn import Told
from paropt.training.semantic_ids.make import SemanticIdsRequest, make_semantic_ids
from paropt.training.train import train
from paropt.training.train_request import TrainRequest

NEEDS = Needs(items={"picture": ("vector",), "title": ("text",)})
VALUES = {"levels": 2, "codes": 5, "dims": 4}
REQUEST = SemanticIdsRequest("picture", params=VALUES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_data(tmp_path_factory.mktemp("ids") / "data", needs=NEEDS)


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def files(data: Path) -> dict[str, bytes]:
    return {str(p.relative_to(data)): p.read_bytes() for p in data.rglob("*") if p.is_file()}


def codes(dataset: Dataset, name: str) -> np.ndarray[Any, Any]:
    return np.asarray(dataset.fields("items")[name].array())


def test_all_items_with_a_vector_get_codes_of_ever_more_levels(data: Path) -> None:
    report = make_semantic_ids(REQUEST, data)

    dataset = open_dataset(data)
    dataset.verify()
    fields = dataset.fields("items")
    first, second = codes(dataset, "sid_1"), codes(dataset, "sid_2")
    lacking = np.asarray(fields["picture"].array("missing"))
    assert lacking.sum() == 1
    assert [fields[name].kind for name in ("sid_1", "sid_2")] == ["category", "category"]
    for found in (first, second):
        assert np.array_equal(found < 0, lacking)
    words = [fields["sid_2"].vocabulary[code] for code in second[~lacking]]
    assert len(set(words)) == fields["sid_2"].size == report.tuples
    begins = [fields["sid_1"].vocabulary[code] for code in first[~lacking]]
    assert [word.split("-")[0] for word in words] == begins
    assert report.missing == 1
    assert report.trained + report.others == ITEMS - 1
    assert report.collisions == pytest.approx(1 - report.tuples / (ITEMS - 1))


def test_the_report_lies_beside_the_feature_and_names_neighbours(data: Path) -> None:
    report = make_semantic_ids(REQUEST, data)

    dataset = open_dataset(data)
    assert dataset.added["sid"].report(data) == json.loads(json.dumps(report.to_json()))
    assert [level.feature for level in report.levels] == ["sid_1", "sid_2"]
    ids = dataset.item_ids().tolist()
    for one in report.neighbours:
        number = int(one.item)
        known = f"number {number} of a kind {'abcd'[number % 4]}"
        assert one.title == (None if number % 11 == 10 else known)
        for near in one.nearest:
            level = f"sid_{near.shared}"
            own, other = (codes(dataset, level)[ids.index(item)] for item in (one.item, near.item))
            assert own == other


def test_a_learned_code_is_the_same_again_and_another_seed_gives_others(data: Path) -> None:
    before = open_dataset(data).fingerprint
    make_semantic_ids(REQUEST, data)
    digests = [open_dataset(data).digests(["sid_1"])["sid"]]
    for seed in (42, 43):
        torch.manual_seed(seed)
        again = replace(REQUEST, seed=seed, overwrite=True)
        make_semantic_ids(again, data)
        digests.append(open_dataset(data).digests(["sid_1"])["sid"])

    assert digests[0] == digests[1] != digests[2]
    dataset = open_dataset(data)
    assert dataset.fingerprint == before  # who reads none of it has the data of before
    assert dataset.digests(["kind", "picture"]) == {}
    assert len(list((data / "added").iterdir())) == 1  # what was replaced is gone


def test_a_changed_code_is_noticed(data: Path) -> None:
    make_semantic_ids(REQUEST, data)
    dataset = open_dataset(data)
    path = data / dataset.added["sid"].folder / "features" / "sid_1.npy"
    found = np.load(path)
    found[0] = 1 - found[0]
    np.save(path, found)

    with pytest.raises(ParoptError, match="has changed since it was written"):
        open_dataset(data).verify()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vectors": "pictures"}, "'pictures' is no feature of items, .* did you mean 'picture'"),
        ({"vectors": "title"}, "'title' is a text, not vectors; the vectors are picture"),
        ({"codes": 500}, "codes 500 is more than the 23 training items .* fewer --codes"),
        ({"levels": 0}, "levels must be at least 1, not 0"),
        ({"name": "a+b"}, r"--name 'a\+b': features are called by letters"),
        ({"latent": 4}, "rq-kmeans has no parameter 'latent'; --method rq-vae may have it"),
    ],
)
def test_bad_input_leaves_the_dataset_as_it_was(
    data: Path, given: dict[str, Any], said: str
) -> None:
    before = files(data)
    vectors, name = given.pop("vectors", "picture"), given.pop("name", "sid")
    request = SemanticIdsRequest(vectors, params=VALUES | given, name=name)

    with pytest.raises(ParoptError, match=said):
        make_semantic_ids(request, data)
    assert files(data) == before


def test_a_name_that_is_taken_is_refused(data: Path) -> None:
    make_semantic_ids(REQUEST, data)
    before = files(data)

    with pytest.raises(ParoptError, match=r"has 'sid' already \(sid_1, sid_2\).*--overwrite"):
        make_semantic_ids(REQUEST, data)
    assert files(data) == before


def test_a_dataset_without_vectors_says_how_it_gets_some(tmp_path: Path) -> None:
    plain = made_up_data(tmp_path / "plain")

    with pytest.raises(ParoptError, match=r"items have no vectors; .*--item-vectors NAME=FILE"):
        make_semantic_ids(REQUEST, plain)


def test_a_killed_run_leaves_nothing_that_is_seen(data: Path) -> None:
    """Killed when all arrays are written and only meta.json isn't."""
    code = f"""
import os, signal
from pathlib import Path
import numpy as np
from paropt.data.features import added
write = added.write_text
def killed(path, text, **more):
    if path.name == "meta.json":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, text, **more)
added.write_text = killed
what = added.Addition({{"sid_1": (np.zeros(24, np.int32), np.array([b"0"]))}}, {{}}, {{}})
added.add(Path({str(data)!r}), {open_dataset(data).fingerprint!r}, "sid", what, False)
"""
    ended = subprocess.run([sys.executable, "-c", code], check=False)
    left = [path.name for path in (data / "added").iterdir()]

    assert ended.returncode == -signal.SIGKILL
    assert len(left) == 1
    assert "sid_1" not in open_dataset(data).fields("items")
    make_semantic_ids(REQUEST, data)
    assert "sid_1" in open_dataset(data).fields("items")
    assert left[0] not in [path.name for path in (data / "added").iterdir()]


def test_the_verb_prints_a_report(data: Path) -> None:
    command = ["semantic-ids", str(data), "--vectors", "picture", "--codes", "5", "--levels", "2"]
    told = CliRunner().invoke(cli, command)
    as_json = CliRunner().invoke(cli, [*command, "--overwrite", "--json"])

    assert told.exit_code == as_json.exit_code == 0
    report = json.loads(as_json.stdout)
    assert f"{report['levels'][0]['perplexity']:.1f}" in told.stdout
    assert f"{report['tuples']} different tuples for 23 items" in told.stdout
    assert "added to" in told.stderr
    assert "sid_2" in told.stderr


VAE = SemanticIdsRequest(
    "picture", "rq-vae", VALUES | {"hidden": (8,), "latent": 4, "n_epochs": 4}, name="vae"
)


def test_a_paramfile_gives_its_epochs_too(data: Path, tmp_path: Path) -> None:
    """Of four epochs the second was best; more than 255 letters of parameters are no file."""
    file = Paramfile("rqvae", dict(VAE.params), {"epochs": 2, "seed": 7})
    (tmp_path / "best.json").write_text(formatted(file))
    words = ["semantic-ids", str(data), "--vectors", "picture", "--method", "rq-vae"]
    done = CliRunner().invoke(cli, [*words, "--params", str(tmp_path / "best.json"), "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert (made["made"]["n_epochs"], made["made"]["seed"]) == (2, 7)
    long = ",".join([f"levels={2}", *(f"no_such_parameter_{k}=1" for k in range(20))])
    assert len(long) > 255
    refused = CliRunner().invoke(cli, [*words, "--params", long, "--overwrite"])
    assert "no_such_parameter_0" in str(refused.exception)


def digest_of(data: Path, name: str) -> str:
    return open_dataset(data).added[name].digest


def test_an_rq_vae_that_was_cut_off_goes_on_and_gives_the_same_codes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))
    before = torch.get_num_threads()
    said: list[str] = []
    seen: list[int] = []

    def cut_off(epoch: EpochReport, epochs: int) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    made_before = files(data)
    with pytest.raises(KeyboardInterrupt):
        make_semantic_ids(VAE, data, Told(on_epoch=cut_off))
    assert files(data) == made_before
    assert len(list((tmp_path / "home" / "semantic-ids").iterdir())) == 1
    told = Told(said.append, lambda epoch, epochs: seen.append(epoch.epoch))
    torch.set_num_threads(2)
    try:
        report = make_semantic_ids(VAE, data, told)
    finally:
        torch.set_num_threads(before)
    assert seen == [3, 4]
    assert said == ["goes on after epoch 2 of 4, where it was cut off"]
    assert list((tmp_path / "home" / "semantic-ids").iterdir()) == []
    resumed = digest_of(data, "vae")

    make_semantic_ids(replace(VAE, overwrite=True), data)
    assert digest_of(data, "vae") == resumed
    assert report.made["held_out"] == 0.0  # it learned from all training items
    assert report.trained == 23


def test_a_damaged_checkpoint_begins_anew(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))

    def cut_off(epoch: EpochReport, epochs: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_semantic_ids(VAE, data, Told(on_epoch=cut_off))
    (left,) = (tmp_path / "home" / "semantic-ids").iterdir()
    left.write_bytes(left.read_bytes()[:-5])
    said: list[str] = []
    seen: list[int] = []
    make_semantic_ids(VAE, data, Told(said.append, lambda epoch, epochs: seen.append(epoch.epoch)))

    assert seen == [1, 2, 3, 4]
    assert "begins anew" in said[0]


def test_who_reads_the_codes_notices_that_they_changed(data: Path, tmp_path: Path) -> None:
    make_semantic_ids(REQUEST, data)
    reading = {"features": "sid_2", "dim": 8, "heads": 1, "n_epochs": 1}
    fits = [fit_of(data, params) for params in (reading, reading | {"features": "none"})]
    for number, fit in enumerate(fits):
        list(fit.epochs())
        fit.save(tmp_path / f"{number}.ckpt")
    assert fits[0].identity()["added"] == {"sid": digest_of(data, "sid")}
    assert fits[1].identity()["added"] == {}

    make_semantic_ids(replace(REQUEST, seed=43, overwrite=True), data)

    with pytest.raises(CheckpointError, match="its added is"):
        fit_of(data, reading).resume(tmp_path / "0.ckpt")
    assert fit_of(data, reading | {"features": "none"}).resume(tmp_path / "1.ckpt") == 1


def test_what_was_made_anew_is_said_where_a_number_depends_on_it(
    data: Path, tmp_path: Path
) -> None:
    """Of a paramfile's trial, and of a saved model whose new items are read from the data."""
    make_semantic_ids(REQUEST, data)
    params = {"features": "sid_2", "dim": 8, "heads": 1, "n_epochs": 1}
    added = {"sid": digest_of(data, "sid"), "of no interest": "0"}
    told: list[str] = []
    request = TrainRequest("sasrec", params, epochs=1)
    train(request, data, provenance={"added": added}, save=tmp_path / "model", note=told.append)
    assert not [line for line in told if "anew" in line]
    evaluate_saved(tmp_path / "model", data, cold_items=True)

    make_semantic_ids(replace(REQUEST, seed=43, overwrite=True), data)

    train(request, data, provenance={"added": added}, note=told.append)
    assert "'sid' was made anew since the paramfile's trial" in "".join(told)
    with pytest.raises(DataError, match=r"'sid' of .* was made anew since .*leave --cold-items"):
        evaluate_saved(tmp_path / "model", data, cold_items=True)
    evaluate_saved(tmp_path / "model", data)  # its own items' codes are in the model


def fit_of(data: Path, params: dict[str, Any]) -> Fit:
    return Fit("sasrec", params, open_dataset(data).view("search"), seed=1)


def test_a_study_goes_on_only_with_the_codes_that_it_reads(data: Path) -> None:
    make_semantic_ids(REQUEST, data)
    dataset = open_dataset(data)
    source = {
        "model": "sasrec",
        "search": {"features": {"type": "categorical", "choices": ["none", "kind", "sid_1+kind"]}},
    }
    space = checked(from_json(source, "space.json"))
    added = dataset.digests(items_read(space))
    assert added == {"sid": digest_of(data, "sid")}
    definition = StudyDefinition("s", space.to_json(), "mrr@20", [20], "", "f", added=added)
    again = StudyDefinition.from_json(json.loads(json.dumps(definition.to_json())))

    again.check_added(added | {"other": "of no interest"})
    with pytest.raises(ParoptError, match="study 's' reads 'sid' of the data, which was made anew"):
        again.check_added({"sid": "another"})
    with pytest.raises(ParoptError, match="which is not there"):
        again.check_added({})
    plain = checked(from_json({"model": "sasrec", "fixed": {"features": "kind"}}, "space.json"))
    assert dataset.digests(items_read(plain)) == {}


def test_the_page_shows_what_its_lines_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "semantic-ids.md").read_text("utf-8")
    blocks = page.partition("## Try it")[2].partition("\n## ")[0].split("```")[1::2]
    program, commands, shown = (block.partition("\n")[2] for block in blocks)
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    printed = ""
    for line in commands.splitlines()[1:]:
        done = CliRunner().invoke(cli, line.split()[1:])
        assert done.exit_code == 0, done.output
        printed = done.stdout

    assert shown in printed
