"""What Python passes to a kernel is what C takes: a wrong type would be read as another number."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest

from models.kernels.library import SIGNATURES, SOURCES

KINDS = {"int64_t": ctypes.c_int64, "int": ctypes.c_int, "float": ctypes.c_float}
PAGE = Path(__file__).parents[3] / "models" / "kernels" / "README.md"


def prototypes() -> dict[str, list[type]]:
    """The argument types of every function that C offers, by name."""
    text = "\n".join(path.read_text("utf-8") for path in SOURCES)
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return {
        name: [] if arguments.strip() == "void" else [kind(one) for one in arguments.split(",")]
        for name, arguments in re.findall(r"^(?:void|int) (\w+)\(([^)]*)\)\s*\{", text, flags=re.M)
    }


def kind(argument: str) -> type:
    if "*" in argument:
        return ctypes.c_void_p
    (name,) = (word for word in argument.split() if word in KINDS)
    return KINDS[name]


def test_every_kernel_of_c_is_called_with_what_it_takes() -> None:
    found = prototypes()
    assert found.pop("shortest_row") == []
    assert found == SIGNATURES


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("const float *restrict x", ctypes.c_void_p),
        ("int64_t rows", ctypes.c_int64),
        ("int threads", ctypes.c_int),
        ("float lr", ctypes.c_float),
    ],
)
def test_a_type_of_c_is_told_apart(argument: str, expected: type) -> None:
    assert kind(argument) is expected


def test_the_page_says_of_every_kernel_what_it_computes() -> None:
    text = PAGE.read_text("utf-8")
    assert [name for name in [*SIGNATURES, "shortest_row"] if f"`{name}`" not in text] == []
