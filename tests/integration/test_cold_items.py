"""Items that training never saw: ranked and read by what is known of them, and counted apart."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from paropt.cli.main import cli
from paropt.data.dataset import Dataset, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import ModelError
from paropt.training.batches.catalogue import catalogue
from paropt.training.evaluation.cold import cold_items_of, evaluate_cold
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.ranking.judging import evaluate
from paropt.training.fitting.fit import Fit
from paropt.training.saved_model.saved import SavedModel, load_model, save_model

DAY = 86_400
PARAMS: dict[str, Any] = {
    "dim": 8, "blocks": 1, "max_length": 6, "dropout": 0.0, "batch_size": 32, "n_epochs": 1,
    "loss": "bce", "n_sample": 4, "features": "brand+tags+price", "vectors": "look",
    "vector_dims": 3, "learning_rate": 0.01,
}  # fmt: skip


def brand(item: int) -> str:
    return "abcde"[item % 5]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty items: 16…19 are first sold on the last day, 3 and 19 have no vector."""
    folder = tmp_path_factory.mktemp("shop")
    source = random.Random(3)
    lines = ["SessionId\tItemId\tTime"]
    for session in range(120):
        clock, last = 1_700_000_000 + session * 8 * DAY // 120, session >= 105
        item = source.randrange(20 if last else 16)
        for _ in range(4):
            lines.append(f"{session}\ti{item}\t{clock}")
            clock += 60
            item = (item + source.choice((1, 2, 5))) % (20 if last else 16)
    (folder / "log.tsv").write_text("\n".join(lines))
    table = ["ItemId\tbrand\ttags\tprice"]
    table += [f"i{i}\t{brand(i)}\t{'|'.join('xyz'[: i % 3 + 1])}\t{i * 1.5}" for i in range(20)]
    (folder / "items.tsv").write_text("\n".join(table))
    looks = [{"ItemId": f"i{i}", "look": look(i)} for i in range(20) if i not in (3, 19)]
    (folder / "look.jsonl").write_text("\n".join(map(json.dumps, looks)))
    options = Options(
        item_features=(folder / "items.tsv",),
        item_vectors=(f"look={folder / 'look.jsonl'}",),
        kinds=("brand=category", "tags=categories"),
        list_separator="|",
        min_support=1,
        keep_repeats=True,
    )
    prepare([folder / "log.tsv"], folder / "data", options=options)
    return folder


def look(item: int) -> list[float]:
    source = random.Random(item)
    return [round(source.gauss(1, 1), 3) for _ in range(5)]


@pytest.fixture(scope="module")
def dataset(shop: Path) -> Dataset:
    return open_dataset(shop / "data")


@pytest.fixture(scope="module")
def saved(shop: Path, dataset: Dataset) -> Path:
    fit = Fit("sasrec", PARAMS, dataset.view("full"), seed=1)
    list(fit.epochs())
    save_model(shop / "model", fit)
    return shop / "model"


def test_cold_targets_are_ranked_among_all_items(dataset: Dataset, saved: Path) -> None:
    view, model = dataset.view("full"), load_model(saved).model
    about, protocol = catalogue(view), EvaluationProtocol(False, "standard")
    usual = evaluate(model, view.test, view.n_items)
    found = evaluate_cold(model, view.test, about, protocol, (20, 3))
    assert about.n_unseen == dataset.n_items("test") - view.n_items > 0
    assert found.candidates == dataset.n_items("test")
    ranks = by_hand(dataset, model)
    assert found.targets == len(ranks) > 0
    assert found.metrics["recall@3"] == pytest.approx(np.mean(ranks <= 3))
    assert found.metrics["mrr@20"] == pytest.approx(np.mean(1 / ranks))
    # and the model, and the usual evaluation, are as they were
    again = evaluate(model, view.test, view.n_items)
    assert again.metrics == usual.metrics and len(model.item_table()[0]) == view.n_items
    assert found.targets <= usual.unknown


def by_hand(dataset: Dataset, model: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The rank of each target that training never saw, session by session."""
    from models.parts.contract import SequenceBatch

    view = dataset.view("full")
    about, test = catalogue(view), view.test
    model.add_items(about.unseen, about.n_unseen)
    ranks = []
    with torch.no_grad():
        for begin, end in zip(test.offsets[:-1], test.offsets[1:], strict=True):
            items = torch.from_numpy(np.array(test.items[begin:end])).long()
            for at in range(1, len(items)):
                if items[at] < view.n_items:
                    continue
                read, times = items[None, :at], torch.zeros(1, at, dtype=torch.int64)
                wanted = torch.full_like(read, -1)
                wanted[0, -1] = items[at]
                batch = SequenceBatch(read, wanted, times, times, torch.tensor([at]))
                scores = (model.encode(batch) @ model.item_table()[0].T)[0]
                ranks.append(1 + int((scores > scores[items[at]]).sum()))
    model.add_items(about.unseen, 0)
    return np.array(ranks, float)


def test_a_saved_model_knows_unseen_items_as_the_fit_did(dataset: Dataset, saved: Path) -> None:
    """Its own table of vectors is gone; whitening, vocabularies and weights are not."""
    fit = Fit("sasrec", PARAMS, dataset.view("full"), seed=1)
    list(fit.epochs())
    about, view = catalogue(dataset.view("full")), dataset.view("full")
    protocol = EvaluationProtocol(False, "standard")
    found = [
        evaluate_cold(model, view.test, about, protocol, (20,))
        for model in (fit.model, load_model(saved).model)
    ]
    assert found[0] == found[1]
    assert cold_items_of(fit.model, view.test, about, protocol, (20,)) == found[0]


def test_a_checkpoint_from_before_a_parameter_goes_on(dataset: Dataset, tmp_path: Path) -> None:
    from paropt.training.fitting import checksummed_file

    ids = {k: v for k, v in PARAMS.items() if k not in ("features", "vectors", "vector_dims")}
    fit = Fit("sasrec", ids, dataset.view("search"), seed=1)
    list(fit.epochs())
    fit.save(tmp_path / "now")
    header, tensors = checksummed_file.read(tmp_path / "now")
    del header["params"]["features"], header["params"]["id_init"]
    checksummed_file.write(tmp_path / "before", header, tensors)
    again = Fit("sasrec", ids, dataset.view("search"), seed=1)
    assert again.resume(tmp_path / "before") == 1


def test_ids_alone_are_refused(dataset: Dataset) -> None:
    ids = {k: v for k, v in PARAMS.items() if k not in ("features", "vectors")}
    model = Fit("sasrec", ids, dataset.view("full"), seed=1).model
    protocol = EvaluationProtocol(False, "standard")
    with pytest.raises(ModelError, match="cannot rank items that training never saw: it knows"):
        evaluate_cold(model, dataset.split("test"), catalogue(dataset.view("full")), protocol, (3,))
    split, about = dataset.split("test"), catalogue(dataset.view("full"))
    assert cold_items_of(model, split, about, protocol, (3,)) is None


# -- as commands -----------------------------------------------------------------------------------


def paropt(*words: str | Path) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words])


def test_evaluate_shows_cold_items_apart(shop: Path, saved: Path) -> None:
    words = ("evaluate", saved, "--data", shop / "data", "--threads", "1", "--at", "3,20")
    plain = json.loads(paropt(*words, "--json").stdout)
    done = json.loads(paropt(*words, "--cold-items", "--json").stdout)
    assert plain["cold"] is None and done["metrics"] == plain["metrics"]
    assert done["cold"]["targets"] > 0 and set(done["cold"]["metrics"]) == set(plain["metrics"])
    shown = paropt(*words, "--cold-items").stdout
    assert f"cold items: {done['cold']['targets']} more targets" in shown
    refused = paropt("evaluate", saved, "--test", shop / "log.tsv", "--cold-items")
    assert refused.exit_code == 2 and "leave it out with --test" in refused.stderr


def new_items(shop: Path) -> tuple[Path, Path]:
    """n1 is what i17 is, n2 of a brand and a tag that nobody knows."""
    rows = ["ItemId,brand,tags,price", f"n1,{brand(17)},x|y|z,25.5", "n2,zz,x|q,9", "i1,a,x,1"]
    (shop / "new.csv").write_text("\n".join(rows) + "\n")
    (shop / "new.jsonl").write_text(json.dumps({"ItemId": "n1", "look": look(17)}) + "\n")
    return shop / "new.csv", shop / "new.jsonl"


def test_recommend_takes_items_from_files(shop: Path, saved: Path) -> None:
    table, vectors = new_items(shop)
    live = shop / "live.csv"
    live.write_text("SessionId,ItemId,Time\ns,n1,1700700000\nt,i17,1700700000\nt,i2,1700700060\n")
    files = ("--item-features", table, "--item-vectors", f"look={vectors}", "--list-separator", "|")
    done = paropt("recommend", saved, "--sessions", live, *files, "--top", "30", "--json")
    assert done.exit_code == 0, done.stderr
    assert "2 items are new to the model" in done.stderr
    assert "as good as missing: 1 of 2 values of 'brand', the first 'zz'" in done.stderr
    assert "1 of 2 new items without a vector" in done.stderr
    first, _ = map(json.loads, done.stdout.splitlines())
    scores = {one["item"]: one["score"] for one in first["items"]}
    assert not first["popular"] and {"n1", "n2"} < set(scores)
    # the same is known of n1 as of i17, which the dataset has beyond what training saw
    expected = by_ids(load_model(saved), open_dataset(shop / "data"))
    for item, score in expected.items():
        assert scores[item] == pytest.approx(score, abs=1e-5)
    without = paropt("recommend", saved, "--sessions", live, "--json").stdout.splitlines()
    assert json.loads(without[0])["popular"]


def by_ids(saved: SavedModel, dataset: Dataset) -> dict[str, float]:
    """Scores after i17 alone, of n1 (as i17's) and of what training knew."""
    from models.parts.contract import SequenceBatch

    about, model = catalogue(dataset.view("full")), saved.model
    ids = dataset.item_ids().tolist()
    model.add_items(about.unseen, about.n_unseen)
    read, times = torch.tensor([[ids.index("i17")]]), torch.tensor([[1_700_700_000_000]])
    batch = SequenceBatch(read, torch.zeros_like(read), times, times, torch.tensor([1]))
    with torch.no_grad():
        scores = (model.encode(batch) @ model.item_table()[0].T)[0].tolist()
    model.add_items(about.unseen, 0)
    found = dict(zip(ids[: saved.n_items], scores, strict=False))
    return {**found, "n1": scores[ids.index("i17")]}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("--item-vectors", "feel=new.jsonl"), "reads no vectors of that name, but look"),
        (("--item-vectors", "look=odd.jsonl"), "vectors of 2 dimensions, and the model reads 5"),
        (("--item-vectors", "look=nan.jsonl"), "hold NaN"),
        (("--item-features", "nokey.csv"), "has no column 'ItemId'"),
        (("--item-features", "twice.csv"), "item n1 is here twice"),
        (("--item-vectors", "look"), "is not NAME=FILE"),
    ],
)
def test_files_that_cannot_be_used(
    shop: Path, saved: Path, files: tuple[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_items(shop)
    monkeypatch.chdir(shop)
    (shop / "odd.jsonl").write_text('{"ItemId": "n1", "look": [1, 2]}\n')
    (shop / "nan.jsonl").write_text('{"ItemId": "n1", "look": [1, 2, 3, 4, NaN]}\n')
    (shop / "nokey.csv").write_text("sku,brand\nn1,a\n")
    (shop / "twice.csv").write_text("ItemId,brand\nn1,a\nn1,b\n")
    done = paropt("recommend", saved, "--sessions", shop / "log.tsv", *files)
    assert done.exit_code and message in f"{done.exception} {done.stderr}" and not done.stdout
