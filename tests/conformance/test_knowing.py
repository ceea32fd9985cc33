"""A model that reads columns, users, tables and vectors, from files to recommendations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paropt.data import open_dataset
from paropt.data.log.sessions_file import read_asked
from paropt.errors import DataError, ModelError, ParoptError
from paropt.search.setup.check_needs import check_needs
from paropt.search.setup.check_space import checked
from paropt.search.space.file import of_object
from paropt.training.evaluate_saved import evaluate_saved
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.recommending.new_sessions import known_sessions, read_sessions, recommend
from paropt.training.recommending.wanted import wanted_values
from paropt.training.registry import complete_params, model_class
from paropt.training.saved_model.saved import load_model, save_model

HERE = Path(__file__).parent
KNOWING = "shop.knowing:Knowing"


@pytest.fixture(autouse=True)
def _users_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        needs = model_class(KNOWING).needs(complete_params(KNOWING, {}))
    return made_up_data(tmp_path_factory.mktemp("knowing") / "data", needs=needs)


@pytest.fixture(scope="module")
def saved(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        fit = Fit(KNOWING, {"n_epochs": 2}, open_dataset(data).view("search"), seed=1)
        list(fit.epochs())
        place = tmp_path_factory.mktemp("saved") / "model"
        save_model(place, fit)
    return place


def test_no_vector_and_no_text_is_in_a_saved_model_or_a_checkpoint(
    data: Path, saved: Path, tmp_path: Path
) -> None:
    from safetensors import safe_open

    with safe_open(saved / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "items/look/missing" in names and "worked_out/items" in names
    assert not any("rows" in name for name in names)
    fit = Fit(KNOWING, {"n_epochs": 1}, open_dataset(data).view("search"), seed=1)
    list(fit.epochs())
    fit.save(tmp_path / "checkpoint")
    dim = open_dataset(data).fields("items")["look"].size
    with safe_open(tmp_path / "checkpoint", "pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in list(file.keys())}
    n_items = fit.view.n_items
    assert (n_items, dim) not in shapes.values()
    model = load_model(saved).model
    vectors = model.catalogue.items.vectors("look")
    assert not vectors.present and vectors.dim == dim and int(vectors.missing.sum()) == 1
    with pytest.raises(RuntimeError, match="a saved model holds no vectors"):
        vectors.rows(torch.tensor([0]))


def test_a_saved_model_reads_new_sessions_as_training_did(saved: Path, tmp_path: Path) -> None:
    model = load_model(saved)
    ids = [str(one) for one in model.item_ids]
    known = tmp_path / "known.tsv"
    rows = ["SessionId\tItemId\tTime\tUserId\tact\tdwell"]
    rows += [f"one\t{ids[k]}\t{1_700_000_000 + k}\tu3\ta\t2.5" for k in range(3)]
    rows += [f"two\t{ids[k]}\t{1_700_000_000 + k}\tnobody\tnever\tx" for k in range(3)]
    rows += [f"bare\t{ids[k]}\t{1_700_000_000 + k}\t\t\t" for k in range(3)]
    known.write_text("\n".join(rows) + "\n")
    asked = read_sessions(known, model)
    users = asked.events.users
    assert users is not None
    u3 = list(model.knowledge.user_ids).index("u3")
    assert asked.ids == ["one", "two", "bare"] and users.tolist() == [u3, -1, -1]
    # what is unknown to the model is as what isn't there
    first, second, third = recommend(model, asked, top=5)
    assert (second.items, second.scores) == (third.items, third.scores)
    assert first.scores != second.scores
    bare = tmp_path / "bare.tsv"
    bare.write_text("\n".join("\t".join(row.split("\t")[:3]) for row in rows) + "\n")
    nothing = read_sessions(bare, model)
    assert [line.split("'")[1] for line in nothing.notes[:3]] == ["act", "dwell", "UserId"]
    assert next(iter(recommend(model, nothing, top=5))).scores == third.scores


def test_what_is_wanted_of_the_next_event_is_said(saved: Path, tmp_path: Path) -> None:
    model = load_model(saved)
    ids = [str(one) for one in model.item_ids]
    file = tmp_path / "asked.tsv"
    rows = ["SessionId\tItemId\tTime\tUserId\tact\tdwell"]
    rows += [f"one\t{ids[k]}\t{1_700_000_000 + k}\tu3\ta\ta" for k in range(3)]
    file.write_text("\n".join(rows) + "\n")
    asked = read_asked(file, None, model.meta["log"], ["act", "dwell", "UserId"])
    unknown = known_sessions(asked, model)
    assert "which act is wanted next, and nobody says" in unknown.notes[-1]
    batch = {}
    for act in ("a", "b"):
        known = known_sessions(asked, model, want=[act])
        assert not known.notes and known.events.columns["act"].tolist()[:3] == [0, 0, 0]
        batch[act] = next(iter(recommend(model, known, top=24)))
    assert known_sessions(asked, model, want=["act=b"]).events.columns["act"][-1] == 1
    # what the model adds for the wanted action is all that differs
    knowing: Any = model.model
    with torch.no_grad():
        added = knowing.asked["act"].weight[2] - knowing.asked["act"].weight[1]
        differ = dict(zip(ids, (added @ knowing.items().T).tolist(), strict=True))
    scores = {
        act: dict(zip(found.items, found.scores, strict=True)) for act, found in batch.items()
    }
    for item in ids:
        expected = scores["a"][item] + differ[item]
        assert scores["b"][item] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("want", "message"),
    [
        (["never"], "knows no act 'never'; there are a, b, c, d"),
        (["act=a", "b"], "says twice which act is wanted"),
    ],
)
def test_wishes_that_the_model_does_not_know(saved: Path, want: list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        wanted_values(load_model(saved), want)


def test_a_saved_model_is_tested_on_other_data_by_ids_and_words(
    data: Path, saved: Path, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(HERE)
        own = evaluate_saved(saved, data)
        needs = model_class(KNOWING).needs(complete_params(KNOWING, {}))
        # the same log, whose items, users and codes have other numbers
        other = made_up_data(tmp_path / "more", sessions=161, needs=needs)
        said: list[str] = []
        found = evaluate_saved(saved, other, note=said.append)
    assert "matched by their ids" in said[0]
    assert found.metrics["mrr@20"] == pytest.approx(own.metrics["mrr@20"], abs=0.1)


def test_data_that_lack_what_a_model_reads_are_refused(tmp_path: Path) -> None:
    bare = open_dataset(made_up_data(tmp_path / "bare")).view("search")
    with pytest.raises(DataError, match=r"reads the events' column 'act'.*--keep-column act"):
        Fit(KNOWING, {}, bare, seed=1)
    with pytest.raises(DataError, match=r"whose session it is.*--user-key"):
        Fit(KNOWING, {"columns": "none", "wanted": "none", "features": "none",
                      "vectors": "none", "profile": "none"}, bare, seed=1)  # fmt: skip


SPACE: dict[str, Any] = {
    "model": KNOWING,
    "fixed": {"n_epochs": 1, "columns": "none", "wanted": "none", "vectors": "none",
              "profile": "none", "users": False},
    "search": {"features": {"type": "categorical", "choices": ["none", "price", "kind+price"]}},
}  # fmt: skip


def test_a_space_is_held_against_the_data_before_anything_starts(tmp_path: Path) -> None:
    dataset = open_dataset(made_up_data(tmp_path / "bare"))
    check_needs(checked(of_object(SPACE)), dataset)
    search = {"features": {"type": "categorical", "choices": ["none", "kind+genre"]}}
    wrong = checked(of_object({**SPACE, "search": search}))
    with pytest.raises(DataError, match=r"'genre'.*\(\"features\" may be kind\+genre\)$"):
        check_needs(wrong, dataset)
    odd = {"features": {"type": "categorical", "choices": ["kind+kind"]}}
    with pytest.raises(ParoptError, match="names 'kind' twice"):
        checked(of_object({**SPACE, "search": odd}))


@pytest.mark.postgres
@pytest.mark.long
def test_a_study_searches_which_features_are_used(
    run_paropt: Callable[..., Any], tmp_path: Path, paropt_home: Path
) -> None:
    made_up_data(tmp_path / "data")
    env = {"PYTHONPATH": str(HERE)}
    wrong = {**SPACE, "fixed": {**SPACE["fixed"], "columns": "act"}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    command = ("--data", "data", "--trials", "3", "--devices", "cpu", "--json")
    done = run_paropt("launch", "--space", "wrong.json", *command, env=env, timeout=240)
    assert done.rc == 1 and "--keep-column act" in done.err
    (tmp_path / "space.json").write_text(json.dumps(SPACE))
    done = run_paropt("launch", "--space", "space.json", *command, env=env, timeout=240)
    assert done.rc == 0, done.err
    assert json.loads(done.out)["counts"]["complete"] == 3
