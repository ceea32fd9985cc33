"""Which models suit which data: the rules, and that what they compose is a space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paropt.data import Dataset, open_dataset
from paropt.data.log.rules import PART
from paropt.data.prepare import prepare
from paropt.errors import SpaceError
from paropt.search.setup.auto_space import (
    COUNTING,
    DataFacts,
    compose,
    facts_of,
    merged,
    suited_space,
)
from paropt.search.setup.check_space import checked
from paropt.search.setup.text_space import TextFacts
from paropt.search.space import shipped
from paropt.search.space.file import of_object, read_space
from paropt.search.space.paramfiles import read_paramfile
from paropt.training.made_up import made_up_data
from paropt.training.registry import Needs

SHOP = DataFacts(
    items=5_000,
    sessions=40_000,
    events=200_000,
    typical=5,
    covering=14,
    has_times=True,
    whole_histories=False,
)


def composed(**facts: Any) -> tuple[Any, str]:
    source, reasons = compose(replace(SHOP, **facts))
    return checked(of_object(source)), " | ".join(reasons)


@pytest.mark.parametrize(
    ("facts", "models"),
    [
        ({"typical": 2}, [*COUNTING, "gru4rec", "sasrec", "hstu"]),
        ({"typical": 50}, [*COUNTING, "gru4rec", "sasrec", "hstu"]),
        ({"typical": 51}, [*COUNTING, "sasrec", "hstu"]),
        ({"typical": 4, "whole_histories": True}, [*COUNTING, "sasrec", "hstu"]),
        ({"typical": 20, "has_times": False}, [*COUNTING, "gru4rec", "sasrec"]),
    ],
)
def test_models_by_the_length_of_histories(facts: dict[str, Any], models: list[str]) -> None:
    space, said = composed(**facts)
    assert space.models == models
    assert ("no hstu" in said) == (facts.get("has_times") is False)
    assert str(facts["typical"]) in said or "leave-one-out" in said


@pytest.mark.parametrize(
    ("items", "losses"),
    [
        (10_000, ["cross-entropy"]),
        (10_001, ["cross-entropy", "sampled-softmax", "gbce"]),
        (100_000, ["cross-entropy", "sampled-softmax", "gbce"]),
        (100_001, ["sampled-softmax", "gbce"]),
    ],
)
def test_losses_by_the_size_of_the_catalogue(items: int, losses: list[str]) -> None:
    space, said = composed(items=items, typical=80)
    sasrec = [p for p in space.parameters if p.name == "loss" and "sasrec" in p.when_text()]
    assert list(sasrec[0].choices) == losses
    assert f"{items:,} items" in said
    assert space.start, "points to start from survive"


def test_what_is_known_of_items_is_searched() -> None:
    known = {"features": ("brand", "price"), "vectors": ("title_vector",)}
    space, said = composed(**known)
    assert "items by their ids alone, and with brand, price, title_vector" in said
    found = {p.name: list(p.choices) for p in space.parameters if "sasrec" in p.when_text()}
    assert found["features"] == ["none", "brand+price"]
    assert found["vectors"] == ["none", "title_vector"]
    of_sasrec = [point for point in space.start if point["model"] == "sasrec"]
    items = [
        {name: point.get(name) for name in ("features", "vectors", "id_init")}
        for point in of_sasrec
    ]
    ids = {"features": "none", "vectors": "none", "id_init": None}
    assert items[:2] == [ids, {**ids, "vectors": "title_vector", "id_init": "zero"}]
    assert all(one == ids for one in items[2:])
    assert {"gru4rec", "hstu"} <= set(space.models)
    only, _ = composed(features=("brand",))
    (begins,) = [p for p in only.parameters if p.name == "id_init" and "sasrec" in p.when_text()]
    assert "features" in begins.when_text()
    assert not [p for p in composed()[0].parameters if p.name in ("features", "vectors")]


def test_ur4rec_is_proposed_where_items_have_texts() -> None:
    space, said = composed(texts=TextFacts(("title_vector",), (), True), typical=60)
    assert space.models == [*COUNTING, "sasrec", "hstu", "ur4rec"]
    assert "ur4rec: items have texts (title_vector)" in said
    mine = [point for point in space.start if point["model"] == "ur4rec"]
    assert {point["max_memory_size"] for point in mine} == {0, 10, 20}
    texts = TextFacts(("title_vector", "plot_vector"), ("taste_vector",), False)
    space, _ = composed(texts=texts, events=4_000_000)
    fixed = {p.name: p.choices for p in space.parameters if p.count == 1}
    assert fixed["item_text"] == (("title_vector", "plot_vector"),) or fixed["item_text"] == (
        "title_vector+plot_vector",
    )
    assert fixed["memory_users"] == (0,)
    assert "max_memory_size" not in {p.name for p in space.parameters}
    (epochs,) = (p.choices for p in space.parameters if p.name == "pretrain_sasrec")
    assert epochs == (10,)


def test_sizes_by_the_amount_of_data() -> None:
    def range_of(name: str, **facts: Any) -> Any:
        space, _ = composed(**facts)
        named = (p for p in space.parameters if p.name == name)
        return next(p for p in named if "session_knn" not in p.when_text())

    assert range_of("layers").high == 512
    assert range_of("layers", events=99_999).high == 256
    # 12 B × 1,000,000 items × layers within 4 GiB: 357, so 352 on the grid 64 + 32 k
    assert range_of("layers", items=1_000_000).high == 352
    assert range_of("batch_size").high == 256
    assert range_of("batch_size", sessions=1_000).high == 96
    assert range_of("n_sample", items=30).choices == (8,)
    assert range_of("n_sample").choices == (2048,)
    long: dict[str, Any] = {"typical": 80}
    assert range_of("max_length", **long, covering=50).choices == (50,)
    assert range_of("max_length", **long, covering=51).choices == (50, 100)
    assert range_of("max_length", **long, covering=999).choices == (50, 100, 200)
    assert range_of("n_epochs", **long).choices == (40,)
    assert range_of("n_epochs", **long, events=3_000_000).choices == (10,)
    # 16 B × 2,000,000 items × dim within 4 GiB: 134
    assert max(range_of("dim", **long, items=2_000_000).choices) == 128


def test_a_merged_space_says_once_what_is_alike() -> None:
    sources = {
        "cross-entropy": json.loads(shipped.spaces()["gru4rec_xe_shared"].read_text()),
        "bpr-max": json.loads(shipped.spaces()["gru4rec_bprmax_shared"].read_text()),
    }
    space = checked(of_object(merged("loss", sources)))
    labels = {p.label for p in space.searched}
    assert "layers" in labels and "bpreg" in labels and "loss" in labels
    by_name = {p.name: p for p in space.parameters}
    assert by_name["layers"].when == {}
    assert by_name["bpreg"].when == {"loss": ("bpr-max",)}
    assert {point["loss"] for point in space.start} == {"cross-entropy", "bpr-max"}


def test_one_space_merged_is_itself() -> None:
    source = json.loads(shipped.spaces()["sasrec"].read_text())
    assert merged("model", {"sasrec": source}) == source


def _small(tmp_path: Path) -> Dataset:
    log = tmp_path / "log.tsv"
    rows = ["SessionId\tItemId\tTime"]
    for session in range(60):
        rows += [
            f"{session}\t{(session + k) % 6}\t{1_000_000 + session * 5_000 + k}" for k in range(4)
        ]
    log.write_text("\n".join(rows))
    return prepare([log], tmp_path / "set")


def test_of_a_dataset(tmp_path: Path) -> None:
    dataset = _small(tmp_path)
    facts = facts_of(dataset)
    train = dataset.split("train")
    assert (facts.typical, facts.covering, facts.items) == (4, 4, 6)
    assert (facts.sessions, facts.events) == (train.n_sessions, train.n_events)
    space, reasons = suited_space(dataset, ("n_epochs=3",))
    assert space.models == [*COUNTING, "gru4rec", "sasrec", "hstu"] and len(reasons) == 6
    assert [p.choices for p in space.parameters if p.name == "n_epochs"] == [(3,)]


def test_what_fixed_names_is_not_searched_in_a_space_that_nobody_wrote(tmp_path: Path) -> None:
    source, _ = compose(SHOP)
    assert "layers" in source["search"] and any("layers" in p for p in source["start"])
    dataset = _small(tmp_path)
    space, _ = suited_space(dataset, ("layers=64",))
    (layers,) = [p for p in space.parameters if p.name == "layers"]
    assert layers.choices == (64,) and layers.when == {"model": ("gru4rec",)}
    assert "layers" not in {p.name for p in space.searched}
    assert all("layers" not in point for point in space.start)
    with pytest.raises(SpaceError, match="layerz"):
        suited_space(dataset, ("layerz=64",))
    space, reasons = suited_space(dataset, ("model=gru4rec,loss=bpr-max",))
    assert space.models == ["gru4rec"] and reasons[0] == "gru4rec: as --fixed says"
    assert space.start and all("loss" not in point for point in space.start)
    with pytest.raises(SpaceError, match=r"--fixed: .*'gru5rec'; did you mean 'gru4rec'"):
        suited_space(dataset, ("model=gru5rec",))


def test_shipped_spaces_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"demo", "all", "sasrec"} <= shipped.spaces().keys()
    for given in ("demo", "demo.json", "paramspaces/demo.json"):
        assert shipped.find_space(given) == shipped.spaces()["demo"]
    for given in ("nix", "elsewhere/demo.json", "demo.txt", "."):
        assert shipped.find_space(given) is None
    (tmp_path / "demo.json").write_text('{"model": "gru4rec"}')
    assert shipped.find_space("demo.json") == Path("demo.json"), "one's own file comes first"
    read_space(shipped.spaces()["all"])


def test_shipped_paramfiles_are_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "gru4rec_retailrocket_bprmax_shared"
    for given in (name, f"{name}.json", f"paramfiles/{name}.json"):
        assert shipped.find_paramfile(given) == shipped.paramfiles()[name]
    for given in ("demo", f"paramspaces/{name}.json", f"{name}.py"):
        assert shipped.find_paramfile(given) is None
    said = shipped.missing("gru4rec_retailrocket", "paramfile")
    assert f"no paramfile of that name; did you mean {name!r}?" in said
    for path in shipped.paramfiles().values():
        assert read_paramfile(path).params


def test_a_wheel_holds_the_shipped_files() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {"paropt", "models", "paramspaces", "paramfiles"} <= set(included)


def test_data_cut_into_parts_get_the_model_that_reads_them(tmp_path: Path) -> None:
    needs = Needs(columns={PART: (), "category": ()}, items={"category": ("category",)})
    data = open_dataset(made_up_data(tmp_path / "data", sessions=60, needs=needs))
    space, reasons = suited_space(data)
    assert space.models == ["long_short"] and len(space.start) >= 1
    assert reasons == [
        "long_short: histories are cut into long and short parts",
        "no behaviour: the data have no such column",
    ]
    given = space.complete(space.start[0], lambda parameter: parameter.nth(0))
    assert given["behaviour"] is False and given["batch_size"] == 64
