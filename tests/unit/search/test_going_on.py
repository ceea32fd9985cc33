"""Studies whose trials begin with a saved model: what of the space is the model's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from paropt.data.dataset import open_dataset
from paropt.errors import DataError, ParamError, SpaceError, StudyError
from paropt.search.setup.check_space import checked
from paropt.search.setup.going_on import begun_space
from paropt.search.space.file import of_object
from paropt.search.space.space import Space
from paropt.training.fitting.fit import Fit
from paropt.training.made_up import made_up_data
from paropt.training.saved_model import optimiser_state
from paropt.training.saved_model.earlier import read_earlier
from paropt.training.saved_model.saved import save_model
from paropt.worker import begun_model

SEARCH: dict[str, Any] = {
    "layers": {"type": "categorical", "choices": [4, 6]},
    "constrained_embedding": {"type": "categorical", "choices": [True, False]},
    "embedding": {"type": "categorical", "choices": ["layersize"],
                  "when": {"constrained_embedding": False}},
    "loss": {"type": "categorical", "choices": ["cross-entropy", "bpr-max"]},
    "learning_rate": {"type": "float", "low": 0.01, "high": 0.2, "log": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    view = open_dataset(made_up_data(folder / "log", sessions=48)).view("search")
    fit = Fit("gru4rec", {"layers": "6", "n_sample": 4, "momentum": 0.2}, view, seed=1, epochs=1)
    list(fit.epochs())
    save_model(folder / "m", fit)
    return folder / "m"


def of(saved: Path, source: dict[str, Any], *fixed: str) -> tuple[Space, list[str]]:
    def read(texts: Any) -> Space:
        return checked(of_object(json.loads(json.dumps(source)), texts))

    return begun_space(read, fixed, read_earlier(saved))


def test_what_shapes_the_model_is_as_in_it_and_the_rest_is_searched(saved: Path) -> None:
    space, said = of(saved, {"model": "gru4rec", "search": SEARCH})

    assert {p.name for p in space.searched} == {"loss", "learning_rate"}
    held = {"layers": 6, "constrained_embedding": True}
    assert held.items() <= space.constants.items()
    # what the space leaves out and the model has otherwise than by default
    assert (space.constants["n_sample"], space.constants["momentum"]) == (4, 0.2)
    assert said[0].startswith("layers is 6 in every trial")
    assert said[-1].endswith("as in that model: momentum=0.2, n_sample=4")


def test_a_space_of_several_models_is_of_that_one(saved: Path) -> None:
    search = {"model": {"type": "categorical", "choices": ["gru4rec", "markov"]}}
    search |= {"loss": SEARCH["loss"] | {"when": {"model": "gru4rec"}}}
    space, said = of(saved, {"search": search})

    assert space.models == ["gru4rec"]
    assert said[0] == "the trials begin with a gru4rec, so they are of that model"
    with pytest.raises(SpaceError, match="begin with a gru4rec, and the space is of markov"):
        of(saved, {"model": "markov"})


def test_another_shape_by_hand_is_refused(saved: Path) -> None:
    with pytest.raises(ParamError, match=r"--fixed layers=4 would change shapes .* it is 6"):
        of(saved, {"model": "gru4rec", "search": SEARCH}, "layers=4")


def test_a_copy_is_found_by_its_digest(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(tmp_path / "home"))
    digest = begun_model.digest_of(saved)
    begin: dict[str, str] = {"model": "gru4rec", "path": str(tmp_path / "gone"), "digest": digest}
    with pytest.raises(StudyError, match=r"not on this machine .* say where it is with"):
        begun_model.find("s", begin)
    assert not (tmp_path / "home").exists()
    kept = begun_model.find("s", begin, given=saved)
    assert kept == begun_model.find("s", begin) and kept is not None
    assert begun_model.digest_of(kept) == digest
    assert begun_model.find("s", {}) is None
    mine = saved.parent / "with-optimiser"
    shutil.copytree(saved, mine)
    with pytest.raises(DataError, match="keeps no state of its optimiser"):
        begun_model.description(mine, "gru4rec", keep_optimiser=True)
    optimiser_state.write_optimiser(mine, {"x/acc": torch.ones(2)})
    begin = begun_model.description(mine, "gru4rec", keep_optimiser=True)
    shutil.move(mine, tmp_path / "moved")
    with pytest.raises(StudyError, match="has not got that; copy optimiser"):
        begun_model.find("s", begin, given=saved)
    with pytest.raises(StudyError, match="not on this machine or was changed"):
        begun_model.find("s", begin)
    whole = begun_model.find("s", begin, given=tmp_path / "moved")
    assert whole == begun_model.find("s", begin) != kept and whole is not None
    assert read_earlier(whole, keep_optimiser=True).optimiser is not None
    for wrong, message in (
        ({}, "leave --from out"),
        ({**begin, "digest": "0" * 64}, "has " + digest[:12]),
    ):
        with pytest.raises(StudyError, match=message):
            begun_model.find("s", wrong, given=saved)
