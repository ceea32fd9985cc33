"""Spaces: what is read, what is refused and where, and arithmetic on grids and conditions."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paropt.errors import SpaceError
from paropt.search.setup.check_space import checked
from paropt.search.space import shipped
from paropt.search.space.file import from_json, parse_fixed, read_space
from paropt.search.space.parameter import Parameter
from paropt.search.space.pinning import pinned_words
from paropt.search.space.space import Space
from paropt.search.space.table import shipped_spaces
from paropt.search.strategy.sampling import uniformly

SPACES = Path(__file__).parents[3] / "paramspaces"


def read(tmp_path: Path, text: str, *fixed: str) -> Space:
    path = tmp_path / "space.json"
    path.write_text(text)
    return read_space(path, fixed)


def refused(tmp_path: Path, text: str, *fixed: str) -> str:
    with pytest.raises(SpaceError) as caught:
        read(tmp_path, text, *fixed)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def space_of(search: dict[str, Any], **more: Any) -> Space:
    return from_json({"model": "gru4rec", "search": search, **more})


FLOAT = Parameter("x", "float", "x", 0.1, 0.3, 0.05)


def test_grid_values_read_as_they_are_written() -> None:
    assert list(FLOAT.values()) == [0.1, 0.15, 0.2, 0.25, 0.3]
    tenths = Parameter("x", "float", "x", 0.1, 0.5, 0.1)
    assert 0.1 + 2 * 0.1 != 0.3  # what the grid has to get right
    assert tenths.nth(2) == tenths.nearest(0.1 + 2 * 0.1) == 0.3
    assert FLOAT.snap(0.2600001) == 0.25
    assert FLOAT.snap(7) == 0.3


@pytest.mark.parametrize("value", [0.27, 0.05, 0.35, True, "0.1", None])
def test_values_off_the_grid_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"grid|outside|no number"):
        FLOAT.nearest(value)


def test_one_is_not_true() -> None:
    choice = Parameter("x", "categorical", "x", choices=(1, True, "1"))
    assert [choice.nearest(v) for v in (1.0, True, "1")] == [1, True, "1"]
    assert choice.nearest(True) is True


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (Parameter("x", "int", "x", 32, 96, 32), [32, 64, 96]),
        (Parameter("x", "float", "x", 0.0, 1.0, 0.5), [0.0, 0.5, 1.0]),
        (Parameter("x", "categorical", "x", choices=("a", "b")), ["a", "b"]),
    ],
)
def test_even_spread(parameter: Parameter, expected: list[Any]) -> None:
    count = len(expected)
    assert [parameter.at((i + 0.5) / count) for i in range(count)] == expected
    assert parameter.count == count
    assert parameter.at(0.0) == expected[0]
    assert parameter.at(1 - 1e-12) == expected[-1]


def test_log_spread_has_the_geometric_mean_in_the_middle() -> None:
    rate = Parameter("x", "float", "x", 0.01, 1.0, None, log=True)
    assert rate.at(0.5) == pytest.approx(math.sqrt(0.01 * 1.0))
    stepped = Parameter("x", "int", "x", 1, 100, 1, log=True)
    assert stepped.at(0.5) == 10


# -- size and enumeration -------------------------------------------------------------------------

LOSS = {"type": "categorical", "choices": ["cross-entropy", "bpr-max"]}
CONDITIONAL = {
    "layers": {"type": "int", "low": 32, "high": 96, "step": 32},  # 3
    "loss": LOSS,
    "final_act": {
        "type": "categorical",
        "choices": ["elu-1", "linear"],
        "when": {"loss": "bpr-max"},
    },
    "bpreg": {
        "type": "float", "low": 0, "high": 1, "step": 0.25,
        "when": {"final_act": "linear", "layers": [32, 64]},
    },
}  # fmt: skip


def test_conditional_configurations_are_counted() -> None:
    space = space_of(CONDITIONAL)
    # cross-entropy: 3 layers. bpr-max: elu-1 3 layers; linear 2 layers × 5 bpreg + 1 layer
    assert space.size() == 3 + 3 + 2 * 5 + 1
    configs = list(space.enumerate())
    assert len(configs) == 17
    assert len({space.canonical(config) for config in configs}) == 17
    for config in configs:
        assert ("final_act" in config) == (config["loss"] == "bpr-max")
        linear = config.get("final_act") == "linear" and config["layers"] in (32, 64)
        assert ("bpreg" in config) == linear


def test_a_continuous_parameter_makes_the_size_infinite_only_where_it_counts() -> None:
    rate = {"type": "float", "low": 0.1, "high": 0.3}
    assert space_of({"learning_rate": rate}).size() == math.inf
    assert space_of({"learning_rate": {**rate, "high": 0.1}}).size() == 1


def test_inactive_values_do_not_tell_configurations_apart() -> None:
    space = space_of({"loss": LOSS, "final_act": CONDITIONAL["final_act"]})
    base = {"model": "gru4rec", "loss": "cross-entropy"}
    assert space.canonical({**base, "final_act": "linear"}) == space.canonical(base)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_random_walks_are_members(seed: int) -> None:
    space = space_of(CONDITIONAL)
    config = space.walk(uniformly(random.Random(seed)))
    members = {space.canonical(member) for member in space.enumerate()}
    assert space.canonical(config) in members


def test_the_model_itself_can_be_searched() -> None:
    space = from_json(
        {
            "fixed": {
                "n_epochs": 3,
                "loss": {"value": "bpr-max", "when": {"model": "gru4rec"}},
            },
            "search": {
                "model": {"type": "categorical", "choices": ["gru4rec", "sasrec"]},
                "learning_rate": [
                    {"type": "float", "low": 0.1, "high": 0.2, "step": 0.1,
                     "when": {"model": "gru4rec"}},
                    {"type": "float", "low": 0.001, "high": 0.003, "step": 0.001,
                     "when": {"model": "sasrec"}},
                ],
                "heads": {"type": "categorical", "choices": [1, 2], "when": {"model": "sasrec"}},
            },
        }
    )  # fmt: skip
    assert space.models == ["gru4rec", "sasrec"]
    assert space.conditional
    assert space.size() == 2 + 3 * 2
    for config in space.enumerate():
        gru4rec = config["model"] == "gru4rec"
        assert (config["learning_rate"] >= 0.1) == gru4rec
        assert ("loss" in config) == gru4rec
        assert ("heads" in config) != gru4rec
        assert config["n_epochs"] == 3
    labels = {p.label for p in space.searched if p.name == "learning_rate"}
    assert labels == {"learning_rate (model = gru4rec)", "learning_rate (model = sasrec)"}


# -- reading --------------------------------------------------------------------------------


def test_what_is_stored_is_what_was_read(tmp_path: Path) -> None:
    text = json.dumps({"model": "gru4rec", "search": CONDITIONAL, "start": [{"layers": 64}]})
    space = read(tmp_path, text, "n_sample=128")
    again = from_json(json.loads(json.dumps(space.to_json())))
    assert again == space
    assert again.walk(lambda p: p.nth(0))["n_sample"] == 128


def test_gru4recs_own_spaces_load_unchanged(tmp_path: Path) -> None:
    lines = [
        '{"name":"layers", "dtype":"int", "values":[64,512], "step":32}',
        "",
        '{"name":"batch_size", "dtype":"int", "values":[32,256]}',
        '{"name":"learning_rate", "dtype":"float", "values":[0.01,0.25], "step":0.005}',
        '{"name":"momentum", "dtype":"float", "values":[0.001,0.9], "log":true}',
        '{"name":"elu_param", "dtype":"categorical", "values":[0.5,1,0]}',
    ]
    space = read(tmp_path, "\n".join(lines) + "\n\n", "loss=bpr-max,embedding=0", "logq=1")
    by_name = {p.name: p for p in space.parameters}
    assert space.models == ["gru4rec"]
    assert by_name["layers"].count == 15
    assert by_name["batch_size"].step == 1
    assert by_name["learning_rate"].count == 49
    assert by_name["momentum"].log
    assert by_name["final_act"].choices == ("elu-0.5", "elu-1", "linear")
    assert by_name["loss"].choices == ("bpr-max",)
    assert by_name["logq"].choices == (1,)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"name":"a","dtype":"int","values":[1]}', '"values" should be [low, high], not [1]'),
        ('{"name":"a","dtype":"real","values":[1,2]}', "int, float or categorical, not 'real'"),
        ('{"name":"a","dtype":"int","values":[1,2],"stpe":1}', "unknown field 'stpe'"),
        ('{"name":"layers","dtype":"int","values":[1,2]}', '"layers" is said twice'),
        ('{"name":"a","dtype":"int","values":[9,2]}', '"a": low 9 is above high 2'),
        ('{"name":"elu_param","dtype":"categorical","values":[-1]}', "0 or above, not -1"),
        ('{"name":"a",', 'a "name" should be at'),
    ],
)
def test_json_lines_are_refused_with_their_line(tmp_path: Path, line: str, message: str) -> None:
    first = '{"name":"layers","dtype":"int","values":[64,512],"step":32}'
    found = refused(tmp_path, f"{first}\n\n{line}\n")
    assert found.startswith("space.json:3: ")
    assert message in found


def test_fixed_of_the_command_line() -> None:
    assert parse_fixed(["a=1,b=0.5", "c=True,d=elu-1, e=200/200"]) == {
        "a": 1, "b": 0.5, "c": True, "d": "elu-1", "e": "200/200",
    }  # fmt: skip
    for bad in ("a", "a=", "=1"):
        with pytest.raises(SpaceError, match="takes k=v"):
            parse_fixed([bad])
    with pytest.raises(SpaceError, match="'a' twice"):
        parse_fixed(["a=1", "a=2"])


def test_fixed_replaces_the_files_own_and_translates_elu_param(tmp_path: Path) -> None:
    text = '{"model": "gru4rec", "fixed": {"n_sample": 1}, "search": {}}'
    space = read(tmp_path, text, "n_sample=2,elu_param=0.5")
    config = space.walk(lambda p: p.nth(0))
    assert (config["n_sample"], config["final_act"]) == (2, "elu-0.5")


def one_parameter(fields: str, name: str = "x") -> str:
    return f'{{\n"model": "gru4rec",\n"search": {{\n"{name}": {{\n{fields}\n}}\n}}\n}}'


REFUSED = [
    ("[1, 2]", 1, "a space should be an object, not [1, 2]"),
    ('{"search": {}}', 1, 'a space names its "model"'),
    ('{"model": 3}', 1, "should be a model's name, not 3"),
    ('{"model": "a",\n"serach": {}}', 2, "unknown field 'serach'; did you mean 'search'?"),
    ('{"model": "a",\n"fixed": 3}', 2, '"fixed" should be an object, not 3'),
    ('{"model": "a",\n"fixed": {"model": 3}}', 2, '"model" stands beside "fixed"'),
    ('{"model": "a",\n"search": {\n"x": 3}}', 3, '"x" should be an object, not 3'),
    ('{"model": "a",\n"data": 3}', 2, '"data" should be a path'),
    ('{"model": "a",\n"fixed": {"x": 1},\n"search": {"x": {"type": "int", "low": 1, "high": 2}}}',
     2, '"x" is both fixed and searched'),
    (one_parameter('"type": "integr", "low": 1, "high": 2'), 5, 'should be int, float or categ'),
    (one_parameter('"low": 1, "high": 2'), 4, 'should be int, float or categorical, not null'),
    (one_parameter('"type": "int",\n"low": 2,\n"high": 1'), 6, '"x": low 2 is above high 1'),
    (one_parameter('"type": "int",\n"low": 2'), 4, '"x" has no "high"'),
    (one_parameter('"type": "int",\n"low": 0.5,\n"high": 1'), 6, "should be an integer, not 0.5"),
    (one_parameter('"type": "float",\n"low": "a",\n"high": 1'), 6, "should be a number"),
    (one_parameter('"type": "int",\n"low": 1e400,\n"high": 1'), 6, "out of all proportion"),
    (one_parameter('"type": "float", "low": 0, "high": 1,\n"log": true'), 5, "low 0.0 is not"),
    (one_parameter('"type": "float", "low": 1, "high": 2,\n"log": 1'), 6, "true or false, not 1"),
    (one_parameter('"type": "int", "low": 32, "high": 100,\n"step": 32'), 6,
     "step 32 doesn't divide 32 … 100; the last point is 96"),
    (one_parameter('"type": "float", "low": 0.1, "high": 0.3,\n"step": 0.07'), 6,
     "step 0.07 doesn't divide 0.1 … 0.3; the last point is 0.24"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"step": 0'), 6, "step 0 is not above 0"),
    (one_parameter('"type": "float", "low": 0, "high": 1,\n"step": 1e-14'), 6, "more than"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"stpe": 1'), 6, "unknown field of"),
    (one_parameter('"type": "categorical",\n"choices": []'), 6, 'should be a list of values'),
    (one_parameter('"type": "categorical",\n"choices": [1, 1.0]'), 6, "choice 1.0 is there twice"),
    (one_parameter('"type": "categorical",\n"choices": [null]'), 6, "null is no value"),
    (one_parameter('"type": "categorical",\n"choices": [1e400]'), 6, "is no value"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"when": {"y": 1}'), 6, "on 'y', which"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"when": {"x": 1}'), 6, "in a circle"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"when": {"model": []}'), 6, "is what?"),
    (one_parameter('"type": "int", "low": 1, "high": 3,\n"when": {"model": "b"}'), 6,
     "\"when\" can't hold, model is never b but gru4rec"),
    ('{"model": "a",\n"start": [\n{"x": 1}]}', 3, 'start point 1 is outside the space: "x" is not'),
    ('{"model": "a", "fixed": {"x": 1},\n"start": [\n{"x": 2}]}', 3, '"x" is fixed to 1, not 2'),
    ('{"model": "a",\n"a": 1,\n"a": 2}', 3, '"a" is said twice, first on line 2'),
    ('{"model": "a"\n"b": 1}', 2, "a comma or '}' should be at"),
    ('{"model": NaN}', 1, "NaN is no JSON number"),
    ('{"model": "a"} x', 1, "more text after the end"),
    ("", 1, "the file is empty"),
    ('{"model": ', 1, "the text ends where a value should be"),
    ("[" * 100, 1, "nested more than 40 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), REFUSED)
def test_refused_with_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    found = refused(tmp_path, text)
    assert message in found
    assert found.startswith(f"space.json:{line}: ")


def test_start_points_outside_are_refused(tmp_path: Path) -> None:
    text = json.dumps({"model": "gru4rec", "search": CONDITIONAL, "start": [{"layers": 65}]})
    assert "65 is not on the grid 32 + k·32" in refused(tmp_path, text)
    text = text.replace('{"layers": 65}', '{"loss": "cross-entropy", "final_act": "linear"}')
    assert '"final_act" is not in force there' in refused(tmp_path, text)


def test_conditions_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    search: dict[str, Any] = dict(CONDITIONAL)
    search["bpreg"] = {**search["bpreg"], "when": {"final_act": "linear", "loss": "cross-entropy"}}
    text = json.dumps({"model": "gru4rec", "search": search})
    assert '"bpreg": "when" can\'t hold together' in refused(tmp_path, text)
    search["bpreg"] = {**search["bpreg"], "when": {"layers": 33}}
    assert "layers is never 33" in refused(tmp_path, json.dumps({"model": "a", "search": search}))


def test_two_ranges_of_one_name_must_exclude_each_other(tmp_path: Path) -> None:
    one = {"type": "int", "low": 1, "high": 2}
    text = json.dumps({"model": "gru4rec", "search": {"x": [one, one]}})
    assert "can hold together" in refused(tmp_path, text)


FIXED_LOSS: dict[str, Any] = {
    "model": "gru4rec",
    "fixed": {"loss": "cross-entropy"},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 96, "step": 32},
        "final_act": {
            "type": "categorical",
            "choices": ["elu-0.5", "linear"],
            "when": {"loss": "bpr-max"},
        },
        "bpreg": {
            "type": "float", "low": 0, "high": 1, "step": 0.5, "when": {"final_act": "linear"},
        },
    },
}  # fmt: skip


def test_what_a_fixed_value_rules_out_is_idle(tmp_path: Path) -> None:
    text = json.dumps(FIXED_LOSS)
    space = checked(read(tmp_path, text))
    assert [p.name for p in space.idle] == ["final_act", "bpreg"]
    assert space.size() == 3
    assert "final_act" not in space.walk(uniformly(random.Random(1)))
    other = checked(read(tmp_path, text, "loss=bpr-max"))
    assert other.idle == ()
    assert other.size() == 3 * (3 + 1)  # bpreg only where linear


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("bpr-max", "bpr-maxx", '"final_act": "when" can\'t hold, loss must be one of'),
        ("final_act", "final_akt", "no parameter \"final_akt\"; did you mean 'final_act'?"),
        ("elu-0.5", "elux", "\"final_act\" 'elux' is not"),
    ],
)
def test_what_is_idle_must_fit_as_well(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        checked(read(tmp_path, json.dumps(FIXED_LOSS).replace(old, new)))
    assert message in str(caught.value)


def test_fixed_by_the_command_line_and_searched(tmp_path: Path) -> None:
    space = read(tmp_path, one_parameter('"type": "int", "low": 1, "high": 3'), "x=1")
    assert [(p.name, p.choices) for p in space.parameters if p.name == "x"] == [("x", (1,))]
    assert space.searched == []
    assert pinned_words(space) == ["x is 1 in every trial, as --fixed says"]
    assert from_json(space.to_json()).searched == []


PINNED = {
    "search": {
        "model": {"type": "categorical", "choices": ["gru4rec", "sasrec"]},
        "loss": [
            {"type": "categorical", "choices": ["bpr-max", "top1"], "when": {"model": "gru4rec"}},
            {"type": "categorical", "choices": ["gbce", "bce"], "when": {"model": ["sasrec"]}},
        ],
        "layers": {"type": "int", "low": 32, "high": 96, "when": {"model": "gru4rec"}},
        "n_sample": {"type": "int", "low": 1, "high": 9, "when": {"loss": ["bpr-max", "gbce"]}},
    },
    "start": [
        {"model": "gru4rec", "loss": "bpr-max", "layers": 64, "n_sample": 3},
        {"model": "gru4rec", "loss": "top1", "layers": 96},
        {"model": "sasrec", "loss": "gbce", "n_sample": 3},
    ],
}


@pytest.mark.parametrize(
    ("fixed", "searched", "start"),
    [
        (
            "layers=48",
            {"model", "loss", "n_sample"},
            [
                {"model": "gru4rec", "loss": "bpr-max", "layers": 48, "n_sample": 3},
                {"model": "gru4rec", "loss": "top1", "layers": 48},
                {"model": "sasrec", "loss": "gbce", "n_sample": 3},
            ],
        ),
        ("model=sasrec", {"loss", "n_sample"}, [{"loss": "gbce", "n_sample": 3}]),
        (
            "model=gru4rec,n_sample=5",
            {"loss", "layers"},
            [
                {"loss": "bpr-max", "layers": 64, "n_sample": 5},
                {"loss": "top1", "layers": 96},
            ],
        ),
        (
            "model=gru4rec,loss=bpr-max",
            {"layers", "n_sample"},
            [
                {"loss": "bpr-max", "layers": 64, "n_sample": 3},
                {"loss": "bpr-max", "layers": 96},
            ],
        ),
        (
            "model=gru4rec,loss=top1",  # which has no samples
            {"layers"},
            [{"loss": "top1", "layers": 64}, {"loss": "top1", "layers": 96}],
        ),
    ],
)
def test_what_a_space_searches_may_be_pinned(
    tmp_path: Path, fixed: str, searched: set[str], start: list[dict[str, Any]]
) -> None:
    space = read(tmp_path, json.dumps(PINNED), fixed)
    assert {p.name for p in space.searched} == searched
    assert [{k: v for k, v in point.items() if k != "model" or len(space.models) > 1}
            for point in space.start] == start  # fmt: skip
    again = from_json(space.to_json())
    assert (again.parameters, again.start) == (space.parameters, space.start)
    for key, value in (part.split("=") for part in fixed.split(",")):
        for seed in range(20):
            config = space.walk(uniformly(random.Random(seed)))
            assert str(config.get(key, value)) == value


def test_a_model_that_the_space_does_not_choose_from(tmp_path: Path) -> None:
    message = "--fixed model=hstu: the space chooses from gru4rec, sasrec"
    assert refused(tmp_path, json.dumps(PINNED), "model=hstu") == message


@pytest.mark.parametrize("name", sorted(shipped.spaces()))
def test_every_shipped_space_says_what_it_is(name: str) -> None:
    (found,) = [one for one in shipped_spaces() if one["name"] == name]
    assert 10 < len(found["about"]) < 72
    assert found["models"] == read_space(shipped.spaces()[name]).models


def test_hstu_begins_as_published_where_there_are_no_times() -> None:
    """As the space's own note and docs say to search data with an order only."""
    for name, starts in (("hstu", 4), ("all", 3)):
        path = SPACES / f"{name}.json"
        space = checked(read_space(path, ["relative_bias=position,rotary=index"]))
        mine = [p for p in space.start if p.get("model", "hstu") == "hstu"]
        assert len(mine) == starts
        assert all("time_buckets" not in p and p["relative_bias"] == "position" for p in mine)


@pytest.mark.parametrize("model", ["gru4rec", "sasrec", "hstu", "markov"])
def test_one_model_of_all_can_be_searched(model: str) -> None:
    space = checked(read_space(SPACES / "all.json", [f"model={model}"]))
    assert space.models == [model]
    assert space.start


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="cannot be read: No such file"):
        read_space(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="not UTF-8"):
        read_space(tmp_path / "binary.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "low", "high", "step", "log", "choices", "when", "value", "x"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=120, deadline=None)
@given(search=st.dictionaries(st.sampled_from(["x", "y", "model"]), json_values), more=json_values)
def test_anything_is_a_space_or_one_sentence(search: Any, more: Any) -> None:
    for source in (
        {"model": "gru4rec", "search": search, "start": more},
        {"search": search, "fixed": more},
    ):
        try:
            space = from_json(source)
        except SpaceError as error:
            assert "\n" not in str(error)
        else:
            space.canonical(space.walk(uniformly(random.Random(0))))


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_spaces_fit_their_models(path: Path) -> None:
    from paropt.search.setup.check_space import read_checked_space

    space = read_checked_space(path)
    assert space.size() > 1000
    assert set(space.epochs) == set(space.models)


def test_conditions_on_a_long_range_are_counted_without_going_through_it() -> None:
    long = {"type": "int", "low": 0, "high": 10**12}
    three = {"type": "categorical", "choices": [1, 2, 3], "when": {"x": [1, 2, 1.0]}}
    space = from_json({"model": "gru4rec", "search": {"x": long, "y": three}})
    assert space.size() == 2 * 3 + 10**12 - 1
