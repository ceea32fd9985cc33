"""The CPU's own kernels are the plain sums, whoever compiles them and on however many threads."""

from __future__ import annotations

import logging
import math
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.kernels import library
from models.kernels.library import Kernels, kernels
from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.adagrad import Rule
from models.parts.gru4rec.losses import bpr_max, bpr_max_gradient_
from models.parts.gru4rec.workspace import Workspace

N, K, D = 300, 70, 37  # a width that no vector register divides


@pytest.fixture(scope="module")
def made() -> Kernels:
    found = kernels()
    assert found is not None, "a C compiler is needed to test what it compiles"
    return found


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    before = torch.get_num_threads()
    monkeypatch.setattr(library, "FEW", 1)
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def source(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def distinct_rows() -> Tensor:
    return torch.randperm(N, generator=source(1))[:K]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [(N, D), (N,)])
def test_gathers_rows(made: Kernels, shape: tuple[int, ...]) -> None:
    table, rows = torch.randn(shape, generator=source()), distinct_rows()
    assert torch.equal(made.gather(table, rows, torch.empty(K, *shape[1:])), table[rows])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(N, D), (N,)])
def test_adagrad_on_rows(
    made: Kernels, momentum: float, decay: float, shape: tuple[int, ...]
) -> None:
    """Duchi et al. 2011 in double precision; the other rows keep their bits."""
    rule, rows = Rule(0.1, momentum, decay, kernels=made), distinct_rows()
    weight, velocity = (torch.randn(shape, generator=source(k)) for k in (2, 3))
    squares = torch.rand(shape, generator=source(4)) + 0.01
    grad = torch.randn((K, *shape[1:]), generator=source(5))
    before = [t.clone() for t in (weight, squares, velocity)]
    w, s, v = (t[rows].double() for t in before)
    s = s + grad.double() ** 2
    v = (momentum * v if momentum else 0.0) - 0.1 * grad / s.sqrt()
    w = w * (1 - 0.1 * decay) + v

    given = velocity if momentum else None
    made.adagrad_rows(weight, squares, given, grad, rows, *rule.numbers)
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(weight[rows].double(), w, **close)
    torch.testing.assert_close(squares[rows].double(), s, **close)
    if momentum:
        torch.testing.assert_close(velocity[rows].double(), v, **close)
    untouched = torch.ones(N, dtype=torch.bool).index_fill_(0, rows, False)
    for now, then in zip((weight, squares, velocity), before, strict=True):
        assert torch.equal(now[untouched], then[untouched])


@pytest.mark.parametrize("momentum", [0.0, 0.4])
def test_adagrad_on_everything(made: Kernels, threads: int, momentum: float) -> None:
    """The bits are those of the same rows, on any number of threads."""
    weight, velocity, grad = (torch.randn(N, D, generator=source(k)) for k in (2, 3, 5))
    squares = torch.rand(N, D, generator=source(4)) + 0.01
    others = [t.clone() for t in (weight, squares, velocity)]
    rule = Rule(0.1, momentum, kernels=made).numbers
    made.adagrad(weight, squares, velocity if momentum else None, grad, *rule)
    torch.set_num_threads(1)
    w, s, v = others
    made.adagrad_rows(w, s, v if momentum else None, grad, torch.arange(N), *rule)
    for one, other in zip((weight, squares, velocity), others, strict=True):
        assert torch.equal(one, other)


def scored(columns: int = 203, rows: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, each row's own column, and of every column how often it occurs; one is all alone."""
    scores = 2 * torch.randn(rows, columns, generator=source(6))
    own = torch.randperm(columns, generator=source(7))[:rows, None]
    counts = torch.randint(1, 4, (columns,), generator=source(8)).float()
    counts[own[0]] = 1  # its row has no other column with that item
    others = torch.log1p(-1 / counts[own])
    return scores, own, counts.log(), others


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("name", ["elu-0.5", "elu-1", "selu-1.05-1.67", "linear"])
def test_bpr_max_is_the_plain_loss_on_every_single_column(made: Kernels, name: str) -> None:
    act, bpreg = Activation.named(name), 1.7
    scores, own, log_counts, others = scored()
    counts = log_counts.exp().round().long()
    # one column per occurrence, the row's own first, as the plain form wants them
    wanted, losses = torch.zeros(scores.shape, dtype=torch.float64), []
    for i, k in enumerate(own.flatten().tolist()):
        left = counts.clone()
        left[k] -= 1
        items = torch.cat([torch.tensor([k]), torch.arange(len(counts)).repeat_interleave(left)])
        row = scores[i].double().requires_grad_()
        loss = bpr_max(act(row[items])[None], bpreg, 0.0)[0]
        loss.backward()
        wanted[i], _ = row.grad, losses.append(loss.detach())
    scratch = Workspace(torch.device("cpu"), torch.float32)
    found, grad = bpr_max_gradient_(
        scores, own, log_counts, others, act, bpreg, scratch, kernels=made
    )
    assert grad.data_ptr() == scores.data_ptr()
    torch.testing.assert_close(found.double(), torch.stack(losses), rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(grad.double(), wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("large", [80.0, 1e4, 1e15])
def test_bpr_max_of_large_scores_is_finite_where_the_plain_form_is(
    made: Kernels, large: float
) -> None:
    scores, own, log_counts, others = scored()
    scores[1, 5], scores[2, 6], scores[3, own[3]] = large, -large, large
    scratch = Workspace(torch.device("cpu"), torch.float32)
    act = Activation.named("elu-0.5")
    plain = bpr_max_gradient_(scores.clone(), own, log_counts, others, act, 1.0, scratch)
    found = bpr_max_gradient_(scores.clone(), own, log_counts, others, act, 1.0, scratch, made)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bpr_max_hides_nothing(made: Kernels, bad: float) -> None:
    """A training that has diverged must be seen to have."""
    scores, own, log_counts, others = scored()
    scores[4, 8] = bad
    scratch = Workspace(torch.device("cpu"), torch.float32)
    losses, grad = bpr_max_gradient_(
        scores, own, log_counts, others, Activation.named("elu-0.5"), 1.0, scratch, made
    )
    assert losses.isfinite().tolist() == [i != 4 for i in range(len(losses))]
    assert not grad[4].isfinite().all()


def test_takes_what_it_was_made_for() -> None:
    plain = torch.zeros(4, 6)
    assert Kernels.take(plain, None)
    assert not Kernels.take(plain, plain.double())
    assert not Kernels.take(plain.t())
    assert not Kernels.take(plain.to("meta"))


# -- the file -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory in which nothing was made yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.cache_clear()
    yield tmp_path / "paropt"
    kernels.cache_clear()


def compiler(path: Path, program: str) -> str:
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)
    return str(path)


def test_is_made_once_for_its_user_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    program = (
        "import os, sys\n"
        f"open({str(calls)!r}, 'a').write('-shared' in sys.argv and 'made\\n' or '')\n"
        "os.execvp('cc', ['cc', *sys.argv[1:]])"
    )
    monkeypatch.setenv("CC", compiler(tmp_path / "cc", program))
    assert kernels() is not None
    (file,) = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    kernels.cache_clear()
    assert kernels() is not None
    assert calls.read_text() == "made\n"
    file.chmod(0o666)  # anybody may have put code there
    kernels.cache_clear()
    assert kernels() is not None
    assert calls.read_text() == 2 * "made\n"
    other = tmp_path / "other"
    (other / "paropt").mkdir(parents=True, mode=0o700)
    cut = other / "paropt" / file.name
    cut.write_bytes(file.read_bytes()[:100])
    cut.chmod(0o600)
    monkeypatch.setenv("XDG_CACHE_HOME", str(other))
    kernels.cache_clear()
    assert kernels() is not None
    assert calls.read_text() == 3 * "made\n"
    assert [stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()] == [0o600]


def test_a_cache_that_others_write_is_not_used(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert kernels() is not None
    assert not list(cache.iterdir())
    assert "'chmod go-w' helps" in caplog.text


def test_a_user_without_a_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    assert kernels() is not None


def test_threads_that_the_compiler_cannot_make_are_done_without(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As clang does, whose own OpenMP is missing when the library is loaded."""
    odd = tmp_path / "odd.c"
    odd.write_text("void __kmpc_nowhere(void); void *odd(void) { return (void *)__kmpc_nowhere; }")
    program = (
        "import os, sys\n"
        "words = sys.argv[1:]\n"
        "threads = any('libgomp' in word for word in words)\n"
        f"words[:0] = [{str(odd)!r}] if threads and '-shared' in words else []\n"
        "os.execvp('cc', ['cc', '-fPIC', *words])"
    )  # fmt: skip
    monkeypatch.setenv("CC", compiler(tmp_path / "cc", program))
    assert kernels() is not None
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    made = kernels()
    assert made is not None
    table = torch.randn(N, D, generator=source())
    assert torch.equal(
        made.gather(table, distinct_rows(), torch.empty(K, D)), table[distinct_rows()]
    )


def test_a_command_that_cannot_be_read_is_no_compiler(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "cc -DX='a")
    assert kernels() is None
    assert "cc -DX='a cannot compile" in caplog.text


@pytest.mark.parametrize(
    ("program", "level", "said"),
    [
        (None, logging.INFO, "no C compiler"),
        ("raise SystemExit('no licence')", logging.WARNING, "cannot compile"),
        ("import sys; sys.exit('-o' in sys.argv and 'broken header')", logging.WARNING, "header"),
        ("import sys; sys.stderr.buffer.write(b'\\xff broken'); sys.exit('-o' in sys.argv)",
         logging.WARNING, "broken"),
        ("import sys; '-o' in sys.argv and open(sys.argv[sys.argv.index('-o') + 1], 'w').close()",
         logging.WARNING, "cannot compile"),
    ],
)  # fmt: skip
def test_without_a_compiler_that_works_there_are_none(
    program: str | None,
    level: int,
    said: str,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "cc"
    monkeypatch.setenv("CC", compiler(path, program) if program else f"{path} -O1")
    with caplog.at_level(logging.INFO):
        assert kernels() is None
    (record,) = caplog.records
    assert (record.levelno, said in record.getMessage()) == (level, True)
    assert "Traceback" not in caplog.text
    assert not [path for path in cache.glob("*") if os.path.getsize(path)]
