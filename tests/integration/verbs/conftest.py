"""The verbs of models as a user types them, in this process: a shop, and a model of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from typed import PARAMS, Paropt

from paropt.cli.main import cli
from paropt.data.prepare import prepare


@pytest.fixture
def paropt() -> Paropt:
    """A verb in this process; torch is imported once, not for every test."""

    def run(*arguments: str | Path, ok: bool = True) -> Result:
        before = torch.get_num_threads()
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
        torch.set_num_threads(before)
        if ok and result.exception:
            raise result.exception
        return result

    return run


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Looks at a test set are noted there."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def at_home(_no_paropt_environment: None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAROPT_HOME", str(home))


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Walks on a ring of 30 items; item ``new`` is in the last days only."""
    source = np.random.default_rng(2)
    lines = ["SessionId\tItemId\tTime"]
    for session in range(300):
        item, start = source.integers(0, 30), 1_600_000_000 + session * 2880
        for event in range(source.integers(2, 9)):
            name = "new" if session > 275 and event == 2 else f"i{item}"
            lines.append(f"s{session}\t{name}\t{start + 20 * event}")
            item = (item + source.integers(1, 3)) % 30
    directory = tmp_path_factory.mktemp("shop")
    (directory / "events.tsv").write_text("\n".join(lines) + "\n")
    prepare([directory / "events.tsv"], directory / "shop")
    return directory / "shop"


@pytest.fixture(scope="session")
def trained(
    home: Path, shop: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """A saved model and what ``train --json`` said of it."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    arguments = ["train", "--params", PARAMS, "--data", str(shop), "--split", "full", "--json"]
    arguments += ["--save", str(directory), "--threads", "1", "--seed", "5", "--at", "1,5"]
    before = torch.get_num_threads()
    result = CliRunner(env={"PAROPT_HOME": str(home)}).invoke(
        cli, arguments, catch_exceptions=False
    )
    torch.set_num_threads(before)
    return directory, json.loads(result.stdout)
