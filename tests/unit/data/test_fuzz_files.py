"""Whatever stands in a file that people write: it is read, or refused in one sentence."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from paropt.data import open_dataset
from paropt.data.prepare import prepare
from paropt.errors import DataError, ParoptError, SpaceError, StudyError
from paropt.search.space.file import read_space
from paropt.search.space.paramfiles import read_paramfile
from paropt.search.study.definition import StudyDefinition

SPACE = {
    "model": "gru4rec",
    "data": "data/shop",
    "fixed": {"loss": "bpr-max", "n_epochs": 5},
    "search": {
        "layers": {"type": "int", "low": 32, "high": 512, "step": 32},
        "learning_rate": {"type": "float", "low": 0.01, "high": 0.3, "log": True},
        "final_act": {"type": "categorical", "choices": ["elu-0.5", "linear"]},
        "bpreg": {"type": "float", "low": 0.0, "high": 2.0, "when": {"loss": ["bpr-max"]}},
    },
    "start": [{"layers": 64}],
}
LINES = (
    '{"name": "layers", "dtype": "int", "values": [64, 512], "step": 32}\n'
    '{"name": "loss", "dtype": "categorical", "values": ["bpr-max"]}\n'
)
PARAMS = {"model": "gru4rec", "params": {"layers": [96], "loss": "bpr-max"}, "provenance": {}}
MODULE = "from collections import OrderedDict\ngru4rec_params = OrderedDict([('layers', [96])])\n"
EVENTS = "SessionId\tItemId\tTime\n" + "".join(
    f"{session}\t{item}\t{1_700_000_000 + 9000 * session + item}\n"
    for session in range(12)
    for item in (session % 5, 1 + session % 3, 2)
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
ODD = ["", "1e999", "NaN", "-0", "[" * 3000, "é", "\x00", "\ud800", "0" * 400, "true", "\u2028"]
fuzz = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def changed(draw: st.DrawFn, document: Any) -> str:
    """A JSON document with one to three of its parts replaced, removed or added."""
    root = copy.deepcopy({"": document})
    for _ in range(draw(st.integers(1, 3))):
        node, key = root, ""
        while isinstance(node[key], (dict, list)) and node[key] and draw(st.integers(0, 3)):
            node = node[key]
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            key = draw(st.sampled_from(keys))
        if draw(st.booleans()) or node is root:
            node[key] = draw(VALUES)
        elif isinstance(node, dict) and draw(st.booleans()):
            node[draw(st.text(max_size=5))] = node.pop(key)
        else:
            del node[key]
    return json.dumps(root[""])


@st.composite
def damaged(draw: st.DrawFn, text: str) -> bytes:
    """A text with bytes replaced, removed and put in."""
    content = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        until = min(len(content), at + draw(st.integers(0, 8)))
        new = draw(st.binary(max_size=6) | st.sampled_from(ODD).map(_bytes))
        content[at:until] = new
    return bytes(content)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def one_sentence(read: Callable[[], object], kind: type[ParoptError]) -> None:
    """It works, or says in one line why it does not."""
    try:
        read()
    except kind as error:
        assert str(error).strip()
        assert "\n" not in str(error), str(error)


@fuzz
@given(text=changed(SPACE) | VALUES.map(json.dumps))
def test_spaces(tmp_path: Path, text: str) -> None:
    path = tmp_path / "space.json"
    path.write_text(text)
    one_sentence(lambda: read_space(path), SpaceError)


@fuzz
@given(content=damaged(json.dumps(SPACE, indent=1)) | damaged(LINES) | st.binary(max_size=60))
@example(LINES.encode().replace(b"64", b"6" * 400))
def test_damaged_spaces(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "space.json"
    path.write_bytes(content)
    one_sentence(lambda: read_space(path), SpaceError)


@fuzz
@given(
    content=changed(PARAMS).map(str.encode)
    | damaged(json.dumps(PARAMS))
    | damaged(MODULE)
    | st.binary(max_size=60)
)
def test_paramfiles(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.py"
    path.write_bytes(content)
    one_sentence(lambda: read_paramfile(path), SpaceError)


@settings(fuzz, max_examples=60)
@given(content=damaged(EVENTS) | st.binary(max_size=80))
@example(EVENTS.encode().replace(b"\t2\t", b"\r\t2\t"))
def test_events(content: bytes) -> None:
    """What is refused leaves nothing behind, and what is made can be opened."""
    with tempfile.TemporaryDirectory() as folder:
        log, out = Path(folder, "log.tsv"), Path(folder, "out")
        log.write_bytes(content)

        def read() -> None:
            prepare([log], out)
            open_dataset(out).view("search")

        one_sentence(read, DataError)
        left = {path.name for path in Path(folder).iterdir()}
        assert left in ({"log.tsv"}, {"log.tsv", "out"}), left


@fuzz
@given(text=changed(StudyDefinition("s", SPACE, "mrr@20", [20], "d", "f").to_json()))
def test_definitions_that_another_program_wrote(text: str) -> None:
    one_sentence(lambda: StudyDefinition.from_json(json.loads(text)), StudyError)


def test_the_sentence_is_looked_at() -> None:
    def two() -> None:
        raise SpaceError("one\ntwo")

    with pytest.raises(AssertionError):
        one_sentence(two, SpaceError)
