"""Kernels of each width of registers, compiled once for all files that test them."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import pytest
import torch

from models.kernels import library
from models.kernels.library import Kernels, kernels

WIDTHS = {"": None, "-mno-avx512f": 8, "-mno-avx": 4}


@pytest.fixture(scope="session", params=WIDTHS, ids=lambda flag: flag or "this processor")
def native(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """What the compiler makes for this processor, and for lesser ones."""
    lanes = WIDTHS[request.param]
    if lanes and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("registers of other widths are tested on x86-64")
    folder = tmp_path_factory.getbasetemp()
    # the processes that share out files share what one of them compiles
    shared = folder.parent if hasattr(request.config, "workerinput") else folder
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "kernels"))
        patch.setenv("CC", f"cc {request.param}")
        kernels.cache_clear()
        found = kernels()
    kernels.cache_clear()
    assert found is not None, "a C compiler is needed to test what it compiles"
    assert lanes is None or found.shortest_row == lanes
    return found


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kernels with two threads, however few numbers they are given."""
    before = torch.get_num_threads()
    monkeypatch.setattr(library, "FEW", 1)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
