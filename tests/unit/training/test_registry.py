"""The door to the models: our own, a user's, and somebody else's package of the same name."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from paropt.errors import ModelError, ParamError
from paropt.training import registry
from paropt.training.registry import Model, SequenceBatch

USER_MODEL = """
from models.parts.contract import Model, Param

class Mine(Model):
    PARAMS = (Param("width", "int", 8, "units", low=2), Param("heads", "int", 2, "heads", low=1))

    @classmethod
    def check(cls, params, facts=None):
        if params["width"] % params["heads"]:
            raise ValueError(f"width {params['width']} is not divisible by heads {params['heads']}")

    def loss(self, batch): ...

    def encode(self, batch): ...

    def item_table(self): ...

other = 3
"""


@pytest.fixture
def user_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "userpackage_for_registry.py").write_text(USER_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    return "userpackage_for_registry:Mine"


def test_shipped_models_are_listed_and_keep_the_contract() -> None:
    names = registry.names()
    assert "gru4rec" in names
    for name in names:
        declared = registry.declaration(name)
        for param in declared.values():
            assert param.parse(param.default) == param.default, param.name
            assert param.help, param.name
        assert registry.complete_params(name, {}) == {p.name: p.default for p in declared.values()}


def test_unknown_model_suggests() -> None:
    with pytest.raises(ModelError, match="did you mean 'gru4rec'"):
        registry.model_class("gru4rek")


def test_a_users_model(user_model: str) -> None:
    assert registry.complete_params(user_model, {"width": "16"}) == {"width": 16, "heads": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"widht": 16}, "has no parameter 'widht'; did you mean 'width'?"),
        ({"zzz": 16}, "has no parameter 'zzz'; it has width, heads"),
        ({"width": 1}, "width must be at least 2, not 1"),
        ({"width": 9}, "width 9 is not divisible by heads 2"),
    ],
)
def test_params_are_refused_in_one_sentence(
    user_model: str, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ParamError) as caught:
        registry.complete_params(user_model, given)
    assert str(caught.value).endswith(message)


def test_a_users_model_that_is_no_model(user_model: str) -> None:
    with pytest.raises(ModelError, match="names 3, which is no subclass"):
        registry.model_class(user_model.replace("Mine", "other"))
    with pytest.raises(ModelError, match="cannot be imported: No module named 'nowhere'") as caught:
        registry.model_class("nowhere:Mine")
    assert f"looked in {', '.join(e or '.' for e in sys.path if os.path.isdir(e or '.'))}" in str(
        caught.value
    )
    assert "PYTHONPATH=DIR in front of the command" in str(caught.value)


def test_a_users_model_that_lies_here_is_not_looked_for_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("from models.parts.contract import Model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(ModelError, match=r"PYTHONPATH=\. in front of the command"):
        registry.model_class("mine:Mine")


@pytest.mark.parametrize("way", ["PYTHONPATH", "-m"])
def test_a_models_package_of_ones_own_is_told_from_ours(tmp_path: Path, way: str) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    environment = {**os.environ, **({"PYTHONPATH": str(tmp_path)} if way == "PYTHONPATH" else {})}
    done = subprocess.run(
        [sys.executable, *(["-P"] if way == "PYTHONPATH" else []), "-m", "paropt", "models"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 1
    ours = Path(registry.__file__).parents[2] / "models"
    for words in (f"came from {tmp_path}", f"not from paropt ({ours})", "another name"):
        assert words in done.stderr
    because = {"PYTHONPATH": "in PYTHONPATH, which comes first", "-m": "run 'paropt'"}
    assert because[way] in done.stderr


def test_the_page_names_every_parameter_that_paropt_reads() -> None:
    """Literal keys of parameters in the training loop, held against docs/own-model.md."""
    read = set()
    for path in Path(registry.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.Call, ast.Subscript)):
                continue
            of = node.func.value if isinstance(node, ast.Call) and isinstance(
                node.func, ast.Attribute) and node.func.attr == "get" else getattr(
                node, "value", None)  # fmt: skip
            name = getattr(of, "attr", getattr(of, "id", None))
            key = node.args[0] if isinstance(node, ast.Call) and node.args else getattr(
                node, "slice", None)  # fmt: skip
            if isinstance(of, ast.BoolOp):  # (params or {}).get(…)
                name = getattr(of.values[0], "id", None)
            if name == "params" and isinstance(key, ast.Constant) and isinstance(key.value, str):
                read.add(key.value)
    page = Path(registry.__file__).parents[2] / "docs" / "own-model.md"
    table = page.read_text().partition("## Parameters that paropt itself reads")[2]
    named = set(re.findall(r"^\| `(\w+)` \|", table.partition("\n## ")[0], re.M))
    assert named == read
    assert len(read) >= 10


@pytest.mark.parametrize("package", ["models/__init__.py", "models/other.py"])
def test_a_foreign_models_package_is_said_in_one_sentence(tmp_path: Path, package: str) -> None:
    """With and without an ``__init__.py``: a half deleted installation leaves the latter."""
    foreign = tmp_path / package
    foreign.parent.mkdir()
    foreign.write_text("")
    program = (
        "import sys; from paropt.errors import ModelError\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "try:\n"
        "    from paropt.training import registry; registry.names()\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    if package == "models/other.py":  # a namespace package never wins over a real one
        assert done.stdout == ""
    else:
        assert "came from " + str(tmp_path) in done.stdout
        assert "use a virtual environment of paropt's own" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_model_that_cannot_learn_or_be_judged_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.py").write_text(
        "from models.parts.contract import Model\n"
        "class Idle(Model):\n"
        "    def encode(self, batch): ...\n"
        "    def item_table(self): ...\n"
        "class Mute(Model):\n"
        "    def loss(self, batch): ...\n"
        "    def encode(self, batch): ...\n"
        "class Own(Model):\n"
        "    def run_steps(self, plan, begin, end): ...\n"
        "    def evaluate(self, batches): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"'half:Idle' has neither loss\(\) nor run_steps\(\)"):
        registry.model_class("half:Idle")
    with pytest.raises(ModelError, match=r"'half:Mute' has neither encode\(\) and item_table\(\)"):
        registry.model_class("half:Mute")
    assert registry.model_class("half:Own").__name__ == "Own"


def test_who_encodes_has_user_vectors_and_who_counts_has_none() -> None:
    found = {
        name for name in registry.names() if registry.has_user_vectors(registry.model_class(name))
    }
    assert {"gru4rec", "sasrec", "hstu"} <= found
    assert found.isdisjoint({"markov", "item-knn", "item_knn", "session-knn", "session_knn"})

    class Tower(Model):
        def user_vectors(self, batch: SequenceBatch) -> Tensor:
            return batch.items.float()

    assert registry.has_user_vectors(Tower)
