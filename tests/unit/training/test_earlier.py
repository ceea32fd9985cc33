"""A training that begins with a saved model: rows by ids, everything else as it was, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

from paropt.cli.main import cli
from paropt.data.dataset import View, open_dataset
from paropt.data.log.options import Options
from paropt.data.prepare import prepare
from paropt.errors import CheckpointError, DataError, ModelError, ParamError, StudyError
from paropt.training.fitting.earlier import Earlier
from paropt.training.fitting.fit import Fit
from paropt.training.registry import Model
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.saved import load_model, save_model

GRU: dict[str, Any] = {"layers": "6", "n_sample": 4, "batch_size": 4, "n_epochs": 1}
TOWER: dict[str, Any] = {
    "features": ("kind",), "dim": 4, "blocks": 1, "max_length": 5, "batch_size": 8, "n_epochs": 1,
    "dropout": 0.0, "action_column": "action", "action_input": "add",
}  # fmt: skip
SMALL = ("dim", "blocks", "max_length", "batch_size", "n_epochs", "dropout")
CASES = {
    "shared": ("gru4rec", GRU),
    "separate": ("gru4rec", GRU | {"constrained_embedding": False, "embedding": "5"}),
    "rows of gates": ("gru4rec", GRU | {"constrained_embedding": False}),
    "tower and actions": ("sasrec", TOWER),
    "two tables": ("sasrec", {k: TOWER[k] for k in SMALL} | {"tied": False}),
}


def prepared(folder: Path, name: str, items: range, kinds: str, actions: str) -> View:
    """Sessions along a ring of ``items``; the letters are the kinds and the actions in use."""
    table = folder / f"{name}-items.csv"
    rows = [f"i{i},{kinds[i % len(kinds)]}" for i in items]
    table.write_text("\n".join(["ItemId,kind", *rows]) + "\n")
    lines = ["SessionId,ItemId,Time,action"]
    for session in range(40):
        for step in range(4):
            item = items[(session + step) % len(items)]
            action = actions[step % len(actions)]
            lines.append(f"s{session},i{item},{1_700_000_000 + session * 20_000 + step},{action}")
    log = folder / f"{name}.csv"
    log.write_text("\n".join(lines) + "\n")
    options = Options(min_support=1, keep_columns=("action",), item_features=(table,))
    prepare([log], folder / name, options=options)
    return open_dataset(folder / name).view("search")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, View]:
    """A log, and a later one: items 0…3 went, items 8…11 came, and so did kind c."""
    folder = tmp_path_factory.mktemp("logs")
    old = prepared(folder, "old", range(8), "ba", "xy")
    return old, prepared(folder, "new", range(4, 12), "abc", "yzx")


def saved(view: View, case: str, place: Path) -> tuple[Path, Fit]:
    name, params = CASES[case]
    fit = Fit(name, params, view, seed=3)
    list(fit.epochs())
    save_model(place, fit, optimiser=True)
    return place, fit


def begun(view: View, earlier: Earlier | None, **more: Any) -> Fit:
    assert earlier is not None
    return Fit(earlier.name, {**earlier.params, **more}, view, seed=5, earlier=earlier)


def by_item(model: Model, name: str, view: View) -> dict[str, Tensor]:
    ids = view.dataset.item_ids()[: view.n_items].tolist()
    return dict(zip(ids, model.state_dict()[name].clone(), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_items_keep_their_rows_by_id_and_all_else_is_taken_over(
    views: tuple[View, View], case: str, tmp_path: Path
) -> None:
    old, new = views
    place, before = saved(old, case, tmp_path / "m")
    fit = begun(new, read_earlier(place))
    fresh = Fit(*CASES[case], new, seed=5).model.state_dict()

    assert fit.carried is not None
    assert (fit.carried.known, fit.carried.new, fit.carried.gone) == (4, 4, 4)
    rows = before.model.keyed_rows()
    assert rows
    for name, rule in rows.items():
        if rule.keys is not None:
            continue
        theirs, mine = by_item(before.model, name, old), by_item(fit.model, name, new)
        for number, (item, row) in enumerate(mine.items()):
            wanted = torch.zeros_like(row) if rule.new == "zero" else fresh[name][number]
            assert torch.equal(row, theirs.get(item, wanted)), (name, item)
    for name, weight in before.model.state_dict().items():
        if name not in rows:
            assert torch.equal(weight, fit.model.state_dict()[name]), name
    list(fit.epochs())


def test_words_of_features_and_actions_keep_theirs(
    views: tuple[View, View], tmp_path: Path
) -> None:
    old, new = views
    place, before = saved(old, "tower and actions", tmp_path / "m")
    fit = begun(new, read_earlier(place))
    for name, words in (
        ("items.encoders.0.embedding.weight", ("a", "b", None)),
        ("actions.input.weight", ("x", "y", None)),
    ):
        found = {}
        for model in (before.model, fit.model):
            keys = model.keyed_rows()[name].keys
            assert keys is not None and set(words) <= set(keys)
            found[model] = dict(zip(keys, model.state_dict()[name], strict=True))
        for word in words:
            assert torch.equal(found[before.model][word], found[fit.model][word]), (name, word)


@pytest.mark.parametrize("case", ["rows of gates", "two tables"])
def test_an_optimiser_keeps_what_it_gathered_of_known_items(
    views: tuple[View, View], case: str, tmp_path: Path
) -> None:
    old, new = views
    place, before = saved(old, case, tmp_path / "m")
    fit = begun(new, read_earlier(place, keep_optimiser=True))
    fit._begin(1)
    theirs, mine = before.gathered(), fit.gathered()

    assert theirs.keys() == mine.keys() and theirs
    ids = [view.dataset.item_ids()[: view.n_items].tolist() for view in views]
    for name, value in theirs.items():
        weight = name.rpartition("/")[0]
        if weight not in before.model.keyed_rows() or not value.dim():
            assert torch.equal(value, mine[name]), name
            continue
        for number, item in enumerate(ids[1]):
            if item in ids[0]:
                assert torch.equal(mine[name][number], value[ids[0].index(item)]), (name, item)
            elif name.endswith("exp_avg_sq"):
                assert torch.allclose(mine[name][number], value.mean(0)), (name, item)


@pytest.mark.parametrize("keep", [False, True])
def test_stopped_and_resumed_is_the_same_training(
    views: tuple[View, View], keep: bool, tmp_path: Path
) -> None:
    place, _ = saved(views[0], "two tables", tmp_path / "m")
    earlier = read_earlier(place, keep)
    whole = begun(views[1], earlier, n_epochs=2)
    list(whole.epochs())
    first = begun(views[1], earlier, n_epochs=2)
    next(iter(first.epochs()))
    first.save(tmp_path / "half.ckpt")
    second = begun(views[1], earlier, n_epochs=2)

    assert second.resume(tmp_path / "half.ckpt") == 1
    list(second.epochs())
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name
    anew = Fit(earlier.name, {**earlier.params, "n_epochs": 2}, views[1], seed=5)
    with pytest.raises(CheckpointError, match="its earlier is"):
        anew.resume(tmp_path / "half.ckpt")


def test_a_change_of_shape_is_refused_by_name(views: tuple[View, View], tmp_path: Path) -> None:
    place, _ = saved(views[0], "shared", tmp_path / "m")
    earlier = read_earlier(place)
    begun(views[1], earlier, loss="bpr-max", learning_rate=0.2)  # no shape changes
    with pytest.raises(ParamError, match="layers is 6 there, not 7; leave layers out"):
        begun(views[1], earlier, layers="7", learning_rate=0.2)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["train", *map(str, arguments)])


def test_the_verb(views: tuple[View, View], tmp_path: Path) -> None:
    old, new = (view.dataset.path for view in views)
    params = "layers=6,n_sample=4,batch_size=4,n_epochs=1"
    made = run("--params", params, "--data", old, "--save", tmp_path / "m")
    assert made.exit_code == 0, made.output
    went = run("--from", tmp_path / "m", "--data", new, "--save", tmp_path / "n", "--json")
    assert went.exit_code == 0, went.output
    assert "4 items keep what was learnt of them, 4 are new, 4 have no event" in went.stderr
    begun_from = load_model(tmp_path / "n").meta["begun_from"]
    assert (begun_from["known"], begun_from["new"], begun_from["gone"]) == (4, 4, 4)
    for wrong, sentence in {
        ("--from", tmp_path / "m", "--keep-optimiser"): "keeps no state of its optimiser",
        ("--from", tmp_path / "m", "--model", "hstu"): "is a gru4rec, and a hstu can't go on",
        (): "--params says what to train, or --from what to go on from",
        ("--params", params, "--keep-optimiser"): "say --from",
        ("--params", params, "--save-optimiser"): "say --save",
    }.items():
        refused = run(*wrong, "--data", new)
        told = refused.stderr + str(refused.exception)
        assert refused.exit_code in (1, 2) and sentence in told, refused.output


def test_what_cannot_go_on_says_so(views: tuple[View, View], tmp_path: Path) -> None:
    fit = Fit("item_knn", {}, views[0], seed=1)
    list(fit.epochs())
    save_model(tmp_path / "k", fit)
    with pytest.raises(ModelError, match="item_knn counts, in seconds"):
        read_earlier(tmp_path / "k")
    place, _ = saved(views[0], "shared", tmp_path / "m")
    other, _ = saved(views[0], "separate", tmp_path / "o")
    (other / "optimiser.safetensors").replace(place / "optimiser.safetensors")
    with pytest.raises(DataError, match="is of another model than the one beside it"):
        read_earlier(place, keep_optimiser=True)


def test_a_model_that_was_trained_on_valid_is_no_beginning_for_what_is_judged_there(
    tmp_path: Path, views: tuple[View, View]
) -> None:
    from paropt.launch.opening.launch_request import LaunchRequest
    from paropt.launch.opening.study_terms import beginning
    from paropt.training.saved_model.header import has_seen_valid, read_header

    data = views[0].dataset
    for split in ("search", "full"):
        fit = Fit("gru4rec", GRU, data.view(split), seed=1, evaluate=False)
        list(fit.epochs())
        save_model(tmp_path / split, fit)
    assert beginning(LaunchRequest(begin=tmp_path / "search"), data, print)["model"] == "gru4rec"
    with pytest.raises(StudyError, match=r"valid among it, on which trials are judged; begin with"):
        beginning(LaunchRequest(begin=tmp_path / "full"), data, print)
    newer = views[1].dataset
    assert beginning(LaunchRequest(begin=tmp_path / "full"), newer, print)["model"] == "gru4rec"
    meta = read_header(tmp_path / "full").meta
    assert has_seen_valid(meta, data.fingerprint) and not has_seen_valid(meta, newer.fingerprint)
