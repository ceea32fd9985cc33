"""Paramfiles: round trips, what official formats say, what they can't, and hostile files."""

from __future__ import annotations

import json
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paropt.errors import ParoptError, SpaceError
from paropt.search.space.paramfiles import Paramfile, formatted, read_paramfile, write_paramfile

SHIPPED = sorted((Path(__file__).parents[3] / "paramfiles").glob("*.json"))
BPR_MAX = {
    "loss": "bpr-max", "final_act": "elu-0.5", "layers": 96, "n_epochs": 10, "batch_size": 80,
    "learning_rate": 0.05, "momentum": 0.4, "dropout_p_embed": 0.5, "bpreg": 1.95,
}  # fmt: skip
PROVENANCE = {"study": "shop", "epochs": 7, "seed": 3, "threads": 1, "split": "search"}


def run(text: str) -> OrderedDict[str, Any]:
    """What the official program gets: it runs the file."""
    names: dict[str, Any] = {}
    exec(text, names)
    params: OrderedDict[str, Any] = names["gru4rec_params"]
    return params


def test_json_round_trip(tmp_path: Path) -> None:
    paramfile = Paramfile("gru4rec", BPR_MAX | {"learning_rate": 0.1 + 0.2}, PROVENANCE)
    write_paramfile(paramfile, tmp_path / "a.json")
    assert read_paramfile(tmp_path / "a.json") == paramfile
    assert paramfile.epochs == 7


def test_a_default_that_has_changed_since_is_read_as_it_was(tmp_path: Path) -> None:
    """0.1 moved the balancing bias by 0.001, or by nothing if told 0."""
    moe = {"experts": 4, "balance": "bias"}
    cases: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
        (moe, "0.1.0", {**moe, "balance_rate": 0.001}),
        (moe | {"balance_rate": 0.01}, "0.1.0", {**moe, "balance_rate": 0.01}),
        (moe | {"balance_rate": 0}, "0.1.0", {**moe, "balance_rate": 0, "balance": "none"}),
        (moe, "0.2.0", moe),
        ({"experts": 4, "balance": "aux"}, "0.1.0", {"experts": 4, "balance": "aux"}),
        (BPR_MAX, "0.1.0", BPR_MAX),
    ]
    for number, (params, version, expected) in enumerate(cases):
        path = tmp_path / f"{number}.json"
        stored = Paramfile("sasrec", params, PROVENANCE | {"versions": {"paropt": version}})
        write_paramfile(stored, path)
        assert read_paramfile(path).params == expected


def test_theano(tmp_path: Path) -> None:
    params = run(formatted(Paramfile("gru4rec", BPR_MAX, PROVENANCE), "gru4rec-theano"))
    assert params["final_act"] == "elu-0.5"
    assert params["layers"] == [96]
    assert params["n_epochs"] == 7  # the best epoch
    assert params["embedding"] == 0
    assert params["constrained_embedding"] is True
    assert params["batch_size"] == 80
    assert params["sample_alpha"] == 0.5  # our default, said, as the official one's is another
    assert "elu_param" not in params


def test_pytorch(tmp_path: Path) -> None:
    params = run(formatted(Paramfile("gru4rec", BPR_MAX, PROVENANCE), "gru4rec-pytorch"))
    assert params["elu_param"] == 0.5
    assert "final_act" not in params
    assert set(params) == {
        "loss", "elu_param", "constrained_embedding", "embedding", "layers", "n_epochs",
        "batch_size", "dropout_p_embed", "dropout_p_hidden", "learning_rate", "momentum",
        "n_sample", "sample_alpha", "bpreg", "logq",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("params", "official", "value"),
    [
        ({"loss": "bpr-max", "final_act": "linear"}, "elu_param", 0),
        ({"loss": "bpr-max"}, "elu_param", 0.5),  # what "auto" means
        ({"loss": "cross-entropy"}, "elu_param", 0),
        ({"loss": "cross-entropy", "constrained_embedding": False, "embedding": "layersize"},
         "embedding", "layersize"),
        ({"constrained_embedding": False, "embedding": "64"}, "embedding", 64),
        ({"layers": "64/32"}, "layers", [64, 32]),
    ],
)  # fmt: skip
def test_pytorch_values(params: dict[str, Any], official: str, value: Any) -> None:
    found = run(formatted(Paramfile("gru4rec", params), "gru4rec-pytorch"))[official]
    assert (found, type(found)) == (value, type(found))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"loss": "top1-max"}, "not loss=top1-max"),
        ({"loss": "bpr-max", "final_act": "selu-1-1"}, "not final_act=selu-1-1"),
        ({"loss": "bpr-max", "logq": 1.0}, "logq to cross-entropy only"),
        ({"hidden_act": "relu"}, "has hidden_act=tanh only"),
        ({"grad_cap": 1.0}, "has grad_cap=0.0 only"),
    ],
)
def test_pytorch_refuses_what_it_cannot_say(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        formatted(Paramfile("gru4rec", params), "gru4rec-pytorch")
    assert formatted(Paramfile("gru4rec", params), "gru4rec-theano")


def test_official_formats_are_for_gru4rec() -> None:
    with pytest.raises(SpaceError, match="is for gru4rec, not for sasrec"):
        formatted(Paramfile("sasrec", {}), "gru4rec-theano")


@pytest.mark.parametrize("format", ["gru4rec-theano", "gru4rec-pytorch"])
def test_official_files_are_read_as_data(tmp_path: Path, format: Any) -> None:
    from paropt.training.registry import complete_params

    path = tmp_path / "best.py"
    write_paramfile(Paramfile("gru4rec", BPR_MAX, PROVENANCE), path, format)
    read = read_paramfile(path)
    expected = complete_params("gru4rec", BPR_MAX) | {"n_epochs": 7}
    assert complete_params("gru4rec", read.params) == expected


def test_parameters_of_adagrad_that_it_does_not_have(tmp_path: Path) -> None:
    path = tmp_path / "params.py"
    text = "gru4rec_params = OrderedDict([('adapt', 'adagrad'), ('adapt_params', {})])"
    path.write_text(text.format([]))
    assert read_paramfile(path).params == {"adapt": "adagrad"}
    path.write_text(text.format([0.9]))
    with pytest.raises(SpaceError, match="'adapt_params', which is no plain value"):
        read_paramfile(path)


def test_a_module_is_never_run(tmp_path: Path) -> None:
    path, proof = tmp_path / "evil.py", tmp_path / "proof"
    bomb = f"open({str(proof)!r}, 'w')"
    for text, message in (
        (f"{bomb}\ngru4rec_params = OrderedDict([('loss', 'bpr-max')])", None),
        (f"gru4rec_params = OrderedDict([('loss', {bomb})])", "evil.py:1: gru4rec_params is not"),
        (f"gru4rec_params = {bomb}", "evil.py:1: gru4rec_params is not an OrderedDict"),
        ("gru4rec_params = {1: 2}", "evil.py:1: gru4rec_params has 1, which is no plain value"),
        ("x = 1", "evil.py:1: there is no gru4rec_params"),
        ("x = ", "evil.py:1: neither a JSON object nor a Python module"),
        ("(" * 5000, "evil.py:1: neither"),
        ("\0", "evil.py:1: neither"),
        ("x" * (2 << 20), "larger than 1 MiB"),
    ):
        path.write_text(text)
        if message is None:
            assert read_paramfile(path).params == {"loss": "bpr-max"}
        else:
            with pytest.raises(SpaceError, match=message):
                read_paramfile(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ('{\n"modle": "a"}', ":2: unknown field 'modle'; did you mean 'model'?"),
        ('{"params": {}}', 'names its "model"'),
        ('{"model": "a"}', 'has "params"'),
        ('{"model": "a", "params": {\n"x": {}}}', ':2: "x" should be a number'),
        ('{"model": "a", "params": {},\n"provenance": {"seed": "1"}}', ':2: "seed" should be'),
        ('{"model": "a", "params": {},\n"provenance": {"epochs": 0}}', ':2: "epochs" should be'),
        (
            '{"model": "a", "params": {},\n"provenance": {"split": "test"}}',
            '"split" should be one of se',
        ),
        ('{"model": "a", "params": {}, "paropt_paramfile": 2}', "reads up to 1"),
    ],
)
def test_json_is_checked(tmp_path: Path, stored: str, message: str) -> None:
    (tmp_path / "a.json").write_text(stored)
    with pytest.raises(SpaceError) as caught:
        read_paramfile(tmp_path / "a.json")
    assert message in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=60), st.from_regex(r'\{"model": ?.{0,40}\}?', fullmatch=True)))
def test_anything_is_a_paramfile_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        read_paramfile(path)
    except SpaceError as error:
        assert "\n" not in str(error)


def test_files_are_made_whole_and_never_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_paramfile(Paramfile("gru4rec", {}), path)
    before = path.read_bytes()
    with pytest.raises(ParoptError, match="exists; add --overwrite"):
        write_paramfile(Paramfile("gru4rec", {"layers": 3}), path)
    assert path.read_bytes() == before
    write_paramfile(Paramfile("gru4rec", {"layers": 3}), path, overwrite=True)
    assert json.loads(path.read_text())["params"] == {"layers": 3}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]
    assert not stat.S_IMODE(path.stat().st_mode) & 0o111


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_paramfiles_can_be_trained(path: Path) -> None:
    from paropt.training.registry import complete_params

    paramfile = read_paramfile(path)
    params = complete_params(paramfile.model, paramfile.params)
    assert params.keys() >= paramfile.params.keys()


def test_the_published_six_are_there_and_can_be_said_in_every_format() -> None:
    published = [path for path in SHIPPED if path.stem.startswith("gru4rec_")]
    assert [path.stem.removeprefix("gru4rec_").removesuffix("_shared") for path in published] == [
        "coveo_bprmax", "diginetica_bprmax", "rees46_xe", "retailrocket_bprmax", "rsc15_xe",
        "yoochoose_xe",
    ]  # fmt: skip
    for path in published:
        paramfile = read_paramfile(path)
        loss = paramfile.params["loss"]
        for format in ("gru4rec-theano", "gru4rec-pytorch"):
            params = run(formatted(paramfile, format))  # type: ignore[arg-type]
            assert params["loss"] == loss
        assert (params["elu_param"] == 0) == (loss == "cross-entropy")
