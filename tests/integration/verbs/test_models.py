"""``paropt models``: what there is, and every parameter of it."""

from __future__ import annotations

import json

from typed import Paropt


def test_models_lists_what_there_is(paropt: Paropt) -> None:
    assert any(line.startswith("gru4rec") for line in paropt("models").stdout.splitlines())
    names = [model["name"] for model in json.loads(paropt("models", "--json").stdout)]
    assert "gru4rec" in names


def test_models_shows_every_parameter(paropt: Paropt) -> None:
    from paropt.training import registry

    declared = registry.declaration("gru4rec")
    table = paropt("models", "gru4rec").stdout
    shown = json.loads(paropt("models", "gru4rec", "--json").stdout)
    assert [param["name"] for param in shown["params"]] == list(declared)
    for name, param in declared.items():
        (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
        assert param.help.split()[0] in line
    assert "leaky-X" in table
    assert "from 0 below 1" in table


def test_models_of_an_unknown_name(paropt: Paropt) -> None:
    done = paropt("models", "gru4rek", ok=False)
    assert "did you mean 'gru4rec'" in str(done.exception)
