"""What is told of a tracking server, and that one which fails disturbs nobody."""

from __future__ import annotations

from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.launch import mlflow_mirror
from paropt.launch.mlflow_mirror import Mirror, client, metric_name, place


def test_names_as_mlflow_takes_them() -> None:
    assert metric_name("mrr@20") == "mrr_at_20"
    assert metric_name("0.5*hr@5+mrr") == "0.5_hr_at_5_mrr"
    assert place("https://me:SECRET@host:5000/x") == "https://host:5000"
    assert place("runs/mlflow") == "runs/mlflow"


def test_without_mlflow_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    for name in mlflow_mirror.QUIET:
        monkeypatch.setenv(name, "")  # put back what it was, afterwards
    monkeypatch.setattr(mlflow_mirror.importlib, "import_module", absent)
    with pytest.raises(ParoptError, match=r"pip install 'paropt\[mlflow\]'"):
        client("http://host")


def test_a_server_that_fails_is_remarked_once() -> None:
    class Study:
        name = "shop"

        def refresh(self) -> None:
            raise ConnectionError("http://me:SECRET@host")

    class Opened:
        study = Study()

    said: list[str] = []
    opened: Any = Opened()
    with Mirror(opened, object(), said.append, look=0.01) as mirror:
        mirror._over.wait(0.05)
    assert len(said) == 1
    assert said[0].startswith("MLflow could not be told (ConnectionError); the search goes on")
