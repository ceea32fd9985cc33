"""Shipped spaces and paramfiles hold what the models take, all of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tencent_gr as made

from paropt.search.space.file import read_space
from paropt.search.space.parameter import Parameter
from paropt.search.space.paramfiles import read_paramfile
from paropt.training.registry import Facts, Field, complete_params, judges_itself, names

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "paramspaces").glob("*.json"))
PARAMFILES = sorted((ROOT / "paramfiles").glob("*.json"))
FEATURES = [Field(name, "category", 9) for name in made.ITEM_SPARSE]
VECTORS = [Field("emb_81_32", "vector", 32), Field("vector", "vector", 64)]
VECTORS += [Field(name, "vector", 384) for name in ("title_vector", "movie_title_vector")]
FACTS = Facts(
    n_items=1000,
    n_sessions=1000,
    n_events=10_000,
    longest=100,
    has_times=True,
    n_users=1000,
    # what the ads competition's data have
    columns={
        "action_type": Field("action_type", "category", 3, ("0", "1", "2")),
        **{name: Field(name, "category", 4) for name in ("category", "behaviour", "part")},
    },
    items={field.name: field for field in [*FEATURES, *VECTORS, Field("category", "category", 4)]},
)


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_any_point_of_a_space_is_accepted(path: Path) -> None:
    space = read_space(path)
    draw = random.Random(1)
    models = set()

    def choose(parameter: Parameter) -> object:
        return parameter.at(draw.random())

    points = [space.walk(choose) for _ in range(300)]
    points += [space.complete(start, choose) for start in space.start]
    for point in points:
        params = {name: value for name, value in point.items() if name != "model"}
        complete_params(point["model"], params, FACTS)
        models.add(point["model"])
    assert models == set(space.models)


@pytest.mark.parametrize(
    "name",
    ["sasrec", "sasrec_moe", "hstu", "hstu_moe", "hstu_ads", "rqvae", "ur4rec", "longterm", "all"],
)
def test_a_start_point_leaves_nothing_open(name: str) -> None:
    """So that the published points are tried as published, not with something drawn beside."""
    space = read_space(ROOT / "paramspaces" / f"{name}.json")
    assert space.start

    def choose(parameter: Parameter) -> object:
        raise AssertionError(f"{parameter.label} is left open")

    for start in space.start:
        if start.get("model") != "gru4rec":
            space.complete(start, lambda p: choose(p) if p.count > 1 else p.nth(0))


def test_the_space_of_all_searches_every_model() -> None:
    """Of those that are judged by the same thing, ranks of the next item, and need no texts, nor
    time that grows with the cube of the items."""
    ranking = [name for name in names() if not judges_itself(name)]
    assert (
        sorted([*read_space(ROOT / "paramspaces" / "all.json").models, "linear", "ur4rec"])
        == ranking
    )


@pytest.mark.parametrize("path", PARAMFILES, ids=lambda path: path.stem)
def test_paramfiles_are_accepted(path: Path) -> None:
    paramfile = read_paramfile(path)
    complete_params(paramfile.model, paramfile.params, FACTS)
    assert "source" in paramfile.provenance
