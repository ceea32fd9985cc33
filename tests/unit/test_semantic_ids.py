"""Semantic ids: features that are added to a dataset whole or not at all, and what they say."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from paropt.cli.main import cli
from paropt.data.dataset import Dataset, open_dataset
from paropt.errors import ParoptError
from paropt.training.made_up import ITEMS, made_up_data
from paropt.training.registry import Needs
from paropt.training.semantic_ids.make import SemanticIdsRequest, make_semantic_ids

NEEDS = Needs(items={"picture": ("vector",), "title": ("text",)})
REQUEST = SemanticIdsRequest("picture", levels=2, codes=5, dims=4)


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
        again = SemanticIdsRequest("picture", levels=2, codes=5, dims=4, seed=seed, overwrite=True)
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
        ({"levels": 0}, "levels 0 is below 1"),
        ({"name": ""}, "the features need a name"),
        ({"name": "kind", "levels": 1}, None),
    ],
)
def test_bad_input_leaves_the_dataset_as_it_was(
    data: Path, given: dict[str, Any], said: str | None
) -> None:
    before = files(data)
    request = SemanticIdsRequest(**({"vectors": "picture", "codes": 5} | given))
    if said is None:  # no fault
        make_semantic_ids(request, data)
        return

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
