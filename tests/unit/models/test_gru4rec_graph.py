"""The step that a GPU can repeat by itself: what it computes, and what it must not do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gru4rec_numpy import schedule
from gru4rec_torch import build, torch_plan
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models.gru4rec import Gru4Rec
from models.parts.contract import SessionParallelPlan
from models.parts.gru4rec import cuda_graph, negatives, seeded_random
from models.parts.gru4rec.cuda_graph import Feed, GraphReplay
from models.parts.gru4rec.steps import StepReplay, TrainingSteps
from models.parts.gru4rec.unique_rows import add_groups_, groups

SHAPES: dict[str, dict[str, Any]] = {
    "shared": {},
    "shared, logQ": {"logq": 1.0, "momentum": 0.3},
    "separate": {"constrained_embedding": False, "embedding": 4, "layers": "5/4"},
    "none": {"constrained_embedding": False, "loss": "bpr-max", "momentum": 0.3},
    "bpr-max": {"loss": "bpr-max", "momentum": 0.3, "lmbd": 0.01, "grad_cap": 0.5},
    "xe_logit": {"loss": "xe_logit", "n_sample": 0},
    "plain loss": {"loss": "top1", "momentum": 0.3},
    "plain loss, separate": {
        "loss": "bpr", "constrained_embedding": False, "embedding": "layersize",
    },
}  # fmt: skip


def drawing(shape: str, accelerate: str) -> tuple[Gru4Rec, SessionParallelPlan]:
    """A model that draws for itself, with dropout, on sessions that name few items often."""
    params = {
        "layers": 5, "batch_size": 6, "n_sample": 5, "dropout_p_embed": 0.4,
        "dropout_p_hidden": 0.2, "accelerate": accelerate, **SHAPES[shape],
    }  # fmt: skip
    source = np.random.default_rng(3)
    sessions = [source.integers(0, 12, source.integers(2, 9)).tolist() for _ in range(36)]
    support = np.bincount(np.concatenate(sessions), minlength=12)
    model = build(params, support, seed=5)
    model.block = 7  # blocks of drawn numbers end inside and outside of ranges
    return model, torch_plan(schedule(sessions, 6), 6)


def two_epochs(model: Gru4Rec, plan: SessionParallelPlan, size: int | None = None) -> Tensor:
    cuts = list(range(0, plan.steps, size or plan.steps))
    ranges = list(itertools.pairwise([*cuts, plan.steps]))
    return torch.cat([model.run_steps(plan, a, b) for _ in range(2) for a, b in ranges])


@pytest.mark.parametrize("accelerate", ["auto", "graph", "graph-unordered"])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_plain_step(shape: str, accelerate: str) -> None:
    """At float32's tolerance: equal rows are summed before they are added to what is there."""
    plain, plan = drawing(shape, "none")
    other, _ = drawing(shape, accelerate)
    torch.testing.assert_close(two_epochs(other, plan), two_epochs(plain, plan))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_repeated_is_called(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: by the counter on the device, or step by step on the block's own rows."""
    one, plan = drawing(shape, "graph")
    repeated = two_epochs(one, plan)
    other, _ = drawing(shape, "graph")
    monkeypatch.setattr(TrainingSteps, "_play", TrainingSteps._step_by_step)
    assert torch.equal(repeated, two_epochs(other, plan))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 5])
def test_ranges_of_any_size_give_the_same(shape: str, size: int) -> None:
    one, plan = drawing(shape, "graph")
    other, _ = drawing(shape, "graph")
    assert torch.equal(two_epochs(one, plan), two_epochs(other, plan, size))


@pytest.mark.parametrize("stop", [1, 20])
def test_resumed_is_uninterrupted(stop: int) -> None:
    one, plan = drawing("bpr-max", "graph")
    two_epochs(one, plan)
    one.run_steps(plan, 0, stop)
    weights = {name: value.clone() for name, value in one.state_dict().items()}
    state = {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in one.training_state().items()
    }
    rest = one.run_steps(plan, stop, plan.steps)
    other, _ = drawing("bpr-max", "graph")
    two_epochs(other, plan)  # it has recorded steps already, on other numbers
    other.load_state_dict(weights)
    other.load_training_state(state)
    assert other.training_steps()._replay is None  # it moves memory that is no more
    assert torch.equal(other.run_steps(plan, stop, plan.steps), rest)
    assert torch.equal(other.run_steps(plan, 0, plan.steps), one.run_steps(plan, 0, plan.steps))


# -- what a graph can hold -----------------------------------------------------------------------


class Record(TorchDispatchMode):
    """Every operation with the shapes, strides and types that it gets and gives."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        found = [describe(leaf) for leaf in tree_leaves((args, kwargs, out))]
        self.calls.append((str(func), *found))
        return out


def describe(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    return tuple(leaf.shape), leaf.stride(), leaf.dtype, leaf.device


@contextmanager
def every_step_recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[Any]]]:
    steps: list[list[Any]] = []
    plain = StepReplay.step

    def step(self: StepReplay) -> None:
        with Record() as record:
            plain(self)
        steps.append(record.calls)

    with monkeypatch.context() as patch:
        patch.setattr(StepReplay, "step", step)
        yield steps


@pytest.mark.parametrize("accelerate", ["graph", "graph-unordered"])
@pytest.mark.parametrize("shape", SHAPES)
def test_all_steps_are_the_same_calls(
    shape: str, accelerate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same operations, shapes, strides and constants in each step, whatever its items.

    But for the first, which makes the buffers; a graph is recorded after some that warm up.
    """
    model, plan = drawing(shape, accelerate)
    with every_step_recorded(monkeypatch) as steps:
        two_epochs(model, plan, 5)
    assert len(steps) == 2 * plan.n_full
    assert len(steps[1]) > 30
    for step in steps[2:]:
        assert step == steps[1]


def test_memory_stays_where_it_is() -> None:
    """What a step reads and writes beyond its own temporaries has the same address in each."""
    model, plan = drawing("bpr-max", "graph")
    two_epochs(model, plan)
    steps = model.training_steps()
    player = steps._replay
    assert player is not None

    def addresses() -> list[int]:
        held = [*player.feed.now.values(), *steps.hidden, *model.state_dict().values()]
        held += [v for v in model.training_state().values() if isinstance(v, Tensor)]
        held += steps.scratch._buffers.values()
        return [tensor.data_ptr() for tensor in held]

    before = addresses()
    two_epochs(model, plan, 5)
    assert steps._replay is player
    assert addresses() == before


@pytest.fixture
def drawn_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator is made for devices that there are."""
    for module in (negatives, seeded_random):
        monkeypatch.setattr(module, "generator", lambda *key: None)


@pytest.mark.parametrize("accelerate", ["graph", "graph-unordered"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("drawn_anywhere")
def test_nothing_asks_the_device_for_a_number(shape: str, accelerate: str) -> None:
    """On a device that has none: shapes only, and reading or copying a value raises."""
    model, plan = drawing(shape, accelerate)
    model.to("meta")
    moved = {name: getattr(plan, name).to("meta") for name in ("inputs", "targets", "resets")}
    steps = 2 * model.block + 1  # two blocks of drawn numbers, and into a third
    with Record() as record:
        losses = model.run_steps(replace(plan, **moved), 0, steps)
    assert losses.is_meta and losses.shape == (steps,)
    # nothing that is done in a step is done elsewhere
    tensors = [leaf for call in record.calls for leaf in call if isinstance(leaf, tuple)]
    assert len(tensors) > 1000
    host = [leaf for leaf in tensors if leaf[3].type == "cpu"]
    # the support, once, and the alias table
    assert len(host) < 20, host


LEAKS = (Tensor.item, Tensor.tolist, Tensor.cpu, Tensor.numpy, Tensor.nonzero, Tensor.unique, bool)


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.usefixtures("drawn_anywhere")
def test_asking_would_be_seen(leak: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = drawing("bpr-max", "graph")
    model.to("meta")
    plain = TrainingSteps._update

    def update(self: TrainingSteps, step: Any) -> None:
        leak(self.hidden[0][0, 0])
        plain(self, step)

    monkeypatch.setattr(TrainingSteps, "_update", update)
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        model.run_steps(plan, 0, 1)


# -- the parts ----------------------------------------------------------------------------------


def test_groups_sum_equal_places() -> None:
    source = torch.Generator().manual_seed(1)
    position = torch.randint(0, 6, (40, 9), generator=source)
    values = torch.randn(40, 9, 3, generator=source, dtype=torch.float64)
    found = groups(position)
    assert found.order.shape == (40, 9) and found.bounds.shape == (40, 10)
    for t in range(40):
        table = torch.ones(6, 3, dtype=torch.float64)
        wanted = table.clone().index_add_(0, position[t], values[t])
        add_groups_(table, values[t], found.order[t], found.places[t], found.bounds[t])
        torch.testing.assert_close(table, wanted, rtol=1e-12, atol=1e-14)
        distinct = position[t].unique()
        assert torch.equal(found.places[t, : len(distinct)], distinct)


def test_feed_brings_one_step_at_a_time() -> None:
    fields = {
        "a": torch.arange(12).view(4, 3), "b": torch.arange(8.0).view(4, 2, 1),
        "c": torch.arange(4).view(4, 1) + 100,
    }  # fmt: skip
    feed = Feed(fields, 4)
    for part in (slice(0, 4), slice(2, 4)):
        block = {name: field[part] for name, field in fields.items()}
        feed.fill(block)
        where = {name: now.data_ptr() for name, now in feed.now.items()}
        for t in range(len(block["a"])):
            feed.fetch()
            for name, field in block.items():
                assert torch.equal(feed.now[name], field[t])
                assert feed.now[name].data_ptr() == where[name]
            feed.cursor.add_(1)


class Gpu:
    """Counts steps as a GPU would: those called aside, and those of replayed graphs."""

    def __init__(self) -> None:
        self.steps = self.recording = 0
        self.graphs: list[Gpu.Graph] = []

    class Graph:
        def __init__(self, gpu: Gpu) -> None:
            self.gpu, self.size, self.replays = gpu, 0, 0
            gpu.graphs.append(self)

        def replay(self) -> None:
            self.gpu.steps += self.size
            self.replays += 1

    @contextmanager
    def graph(self, graph: Graph, capture_error_mode: str) -> Iterator[None]:
        before, self.steps = self.steps, 0
        yield
        graph.size, self.steps = self.steps, before

    def step(self) -> None:
        self.steps += 1


def test_every_step_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it warms up, is recorded (which runs nothing), or is replayed."""
    gpu = Gpu()
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "CUDAGraph", lambda: Gpu.Graph(gpu))
    monkeypatch.setattr(cuda, "graph", gpu.graph)

    class Stream:
        def __init__(self, device: object = None) -> None: ...
        def wait_stream(self, other: object) -> None: ...

    monkeypatch.setattr(cuda, "Stream", Stream)
    monkeypatch.setattr(cuda, "current_stream", Stream)

    @contextmanager
    def on(stream: object) -> Iterator[None]:
        yield

    monkeypatch.setattr(cuda, "stream", on)
    player = GraphReplay(gpu.step, torch.device("cuda"))
    done = 0
    for n in (1, 1, 5, 8, 23, 3):
        player.run(n)
        done += n
        assert gpu.steps == done
    assert [graph.size for graph in gpu.graphs] == [1, cuda_graph.UNROLLED]
    # 41 steps: 3 warm up, 4 (of 5) and 7 (of 23) and 3 alone, 8 and 16 by the long graph
    assert [graph.replays for graph in gpu.graphs] == [14, 3]
