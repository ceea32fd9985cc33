"""The checks that need a GPU: needs torch and NumPy only, no data set, no database.

    python benchmarks/gpu.py [--device cuda] [--out gpu.json] [CHECK …]

Runs the named checks (all by default), prints a line for each figure and adds it to ``--out``; a
check whose result is there already is passed over, so an interrupted run goes on. Each takes less
than eight minutes. ``benchmarks/GPU.md`` lists them and what they found. ``--device cpu --small``
tries the harness itself.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch

from paropt.training.batches import plans
from paropt.training.evaluation.ranking import ranks
from paropt.training.fitting.optimisers import Optimiser
from paropt.training.fitting.runtime import deterministic
from paropt.training.fitting.steps import LossSteps
from paropt.training.registry import (
    Bags,
    Catalogue,
    Facts,
    Field,
    Model,
    Table,
    Vectors,
    build,
)

RETAILROCKET = {
    "loss": "bpr-max", "final_act": "elu-0.5", "layers": 224, "batch_size": 80,
    "dropout_p_embed": 0.5, "dropout_p_hidden": 0.05, "learning_rate": 0.05, "momentum": 0.4,
    "n_sample": 2048, "sample_alpha": 0.4, "bpreg": 1.95,
}  # fmt: skip
YOOCHOOSE = {
    "loss": "cross-entropy", "layers": 480, "batch_size": 48, "dropout_p_hidden": 0.2,
    "learning_rate": 0.07, "n_sample": 2048, "sample_alpha": 0.2, "logq": 1.0,
}  # fmt: skip
SASREC = {"dim": 64, "blocks": 2, "heads": 1, "max_length": 200, "dropout": 0.1, "batch_size": 128}
SEQUENCE_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "sasrec": ("sasrec", SASREC),
    "hstu": ("hstu", {k: SASREC[k] for k in ("dim", "blocks", "max_length", "batch_size")}),
    "hstu, triton": (
        "hstu",
        {k: SASREC[k] for k in ("dim", "blocks", "max_length", "batch_size")}
        | {"attention_kernel": "triton"},
    ),
    "hstu, triton, 4 heads": (
        "hstu",
        {"dim": 80, "heads": 4, "v_mult": 2.0, "normaliser": "visible", "time_mode": "query"}
        | {"blocks": 2, "max_length": 200, "batch_size": 128, "attention_kernel": "triton"},
    ),
    "sasrec+moe": ("sasrec", {**SASREC, "experts": 8, "top_k": 2}),
    "sasrec, items of fields": (
        "sasrec",
        {**SASREC, "features": "kind+tags+price", "vectors": "look", "fuse": "mlp"},
    ),
}
FIELDS = {
    "kind": Field("kind", "category", 20),
    "tags": Field("tags", "categories", 30),
    "price": Field("price", "number"),
    "look": Field("look", "vector", 64),
}


def items_of(count: int) -> Table:
    """What is known of made-up items."""
    draw = torch.Generator().manual_seed(2)
    offsets = torch.arange(count + 1) * 3
    missing = torch.arange(count) % 11 == 5
    rows = torch.randn(count, 64, generator=draw).half()
    read = {
        "kind": torch.randint(-1, 20, (count,), generator=draw),
        "tags": Bags(torch.randint(30, (3 * count,), generator=draw), offsets, missing & False),
        "price": torch.rand(count, generator=draw).masked_fill(missing, torch.nan),
        "look": Vectors(64, missing, rows.__getitem__),
    }
    return Table(FIELDS, lambda field: read[field.name])


EQUAL: tuple[dict[str, Any], ...] = (
    {"loss": "cross-entropy", "logq": 1.0},
    {"loss": "xe_logit", "constrained_embedding": False, "embedding": "layersize"},
    {"loss": "bpr-max", "final_act": "elu-0.5", "momentum": 0.4, "dropout_p_hidden": 0.2},
    {"loss": "bpr-max", "constrained_embedding": False, "layers": "32/16"},
    {"loss": "top1-max", "final_act": "tanh"},
)
GRAPHS = ("graph", "graph-unordered")


@dataclass
class Log:
    """A made-up split with what plans and catalogues ask of one."""

    items: np.ndarray[Any, Any]
    times: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    n_items: int
    name: str = "made-up"

    @property
    def dataset(self) -> Log:
        """Plans are kept by the data set's fingerprint."""
        return self

    @property
    def fingerprint(self) -> str:
        return f"made-up {self.n_items} {len(self.items)}"

    @classmethod
    def make(cls, n_items: int, n_sessions: int, mean_length: float, seed: int = 1) -> Log:
        """Zipf popularity, sessions of geometric length ≥ 2."""
        source = np.random.default_rng(seed)
        lengths = 2 + source.geometric(1 / (mean_length - 1), n_sessions) - 1
        weights = 1 / np.arange(10, n_items + 10) ** 0.8
        items = source.choice(n_items, lengths.sum(), p=weights / weights.sum()).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        targets = np.ones(len(items), dtype=bool)
        targets[offsets[:-1]] = False
        return cls(items, np.arange(len(items)) * 1000, targets, offsets, n_items)

    def catalogue(self) -> Catalogue:
        support = np.bincount(self.items, minlength=self.n_items)
        sizes = np.diff(self.offsets)
        counts = self.n_items, len(sizes), len(self.items), int(sizes.max())
        facts = Facts(*counts, has_times=True, items=FIELDS)
        return Catalogue(facts, torch.from_numpy(support), items=items_of(self.n_items))


class Bench:
    """What the checks share: the device, sizes, and a clock that waits for the device."""

    def __init__(self, device: str, small: bool) -> None:
        self.device, self.small = torch.device(device), small

    def size(self, full: int, small: int) -> int:
        return small if self.small else full

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def peak(self, work: Callable[[], object]) -> float | None:
        """GiB allocated at most while working, beside what was there before."""
        if self.device.type != "cuda":
            work()
            return None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    def gru4rec(self, log: Log, params: dict[str, Any], device: torch.device) -> Model:
        return build("gru4rec", params, log.catalogue(), seed=1).to(device)

    def train(self, model: Model, log: Log, steps: int, device: torch.device) -> torch.Tensor:
        plan = plans.session_parallel(log, log.n_items, model.params["batch_size"], model.min_rows)
        run_steps: Callable[..., torch.Tensor] = model.run_steps
        return run_steps(plans.on_device(plan, device), 0, min(steps, plan.steps)).cpu()


def gru4rec_equal(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Losses on the device against the CPU's, dropout off: largest relative difference."""
    log = Log.make(500, 400, 5.0)
    for chosen in EQUAL:
        params = {**chosen, "dropout_p_hidden": 0.0}
        given = {"layers": "32", "batch_size": 16, "n_sample": 64, "learning_rate": 0.05, **params}
        shared = torch.randint(0, log.n_items, (4096, 64), generator=torch.Generator())
        losses = []
        for device in (torch.device("cpu"), bench.device):
            model = bench.gru4rec(log, given, device)
            model.negatives = Fixed(shared)
            losses.append(bench.train(model, log, 200, device))
        worst = float(((losses[0] - losses[1]).abs() / losses[0].abs()).max())
        yield " ".join(f"{k}={v}" for k, v in params.items()), worst


class Fixed:
    """Negatives drawn beforehand, the same on every device."""

    def __init__(self, samples: torch.Tensor) -> None:
        self.samples = samples

    def draw(self, block: int, steps: int, device: torch.device) -> torch.Tensor:
        rows = torch.arange(block * steps, (block + 1) * steps) % len(self.samples)
        return self.samples[rows].to(device)


def gru4rec_repeat(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Whether two trainings on the device give the same bits, dropout and momentum on."""
    log = Log.make(bench.size(37_000, 500), bench.size(20_000, 300), 5.0)
    for name, params in (("retailrocket", RETAILROCKET), ("yoochoose", YOOCHOOSE)):
        first, second = (
            bench.train(bench.gru4rec(log, params, bench.device), log, 300, bench.device)
            for _ in range(2)
        )
        yield name, bool(torch.equal(first, second))


def gru4rec_speed(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Mini-batches/s and events/s at two published configurations: medians of five ranges."""
    log = Log.make(bench.size(37_000, 500), bench.size(60_000, 2_000), 5.0)
    steps = bench.size(500, 10)
    for name, params in (("retailrocket", RETAILROCKET), ("yoochoose", YOOCHOOSE)):
        model = bench.gru4rec(log, params, bench.device)
        plan = plans.on_device(
            plans.session_parallel(log, log.n_items, params["batch_size"]), bench.device
        )
        ranges = [(k * steps, (k + 1) * steps) for k in range(6)]  # the first warms up
        took = [bench.seconds(partial(model.run_steps, plan, *r)) for r in ranges]
        rate = steps / statistics.median(took[1:])
        yield f"{name} mini-batches/s", round(rate, 1)
        yield f"{name} events/s", round(rate * params["batch_size"])


def gru4rec_graph_equal(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Losses of replayed steps against those told call by call: largest relative difference."""
    log = Log.make(500, 400, 5.0)
    small = {"layers": "32", "batch_size": 16, "n_sample": 64, "learning_rate": 0.05}
    for params in EQUAL:
        given = {**small, **params}
        plain = bench.train(bench.gru4rec(log, given, bench.device), log, 400, bench.device)
        for accelerate in GRAPHS:
            model = bench.gru4rec(log, {**given, "accelerate": accelerate}, bench.device)
            found = bench.train(model, log, 400, bench.device)
            name = " ".join(f"{k}={v}" for k, v in params.items())
            yield f"{accelerate} {name}", float(((found - plain).abs() / plain.abs()).max())


def gru4rec_graph_repeat(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Whether replayed steps give the same bits in one range and in ranges of other sizes."""
    log = Log.make(bench.size(37_000, 500), bench.size(20_000, 300), 5.0)
    for name, params in (("retailrocket", RETAILROCKET), ("yoochoose", YOOCHOOSE)):
        given = {**params, "accelerate": "graph"}
        plan = plans.session_parallel(log, log.n_items, params["batch_size"])
        there = plans.on_device(plan, bench.device)
        found = []
        for size in (300, 300, 70, 1):
            model = bench.gru4rec(log, given, bench.device)
            ends = range(0, min(300, plan.steps), size)
            run: Callable[..., torch.Tensor] = model.run_steps
            parts = [run(there, a, min(a + size, 300, plan.steps)) for a in ends]
            found.append(torch.cat(parts).cpu())
        yield f"{name}, again", bool(torch.equal(found[0], found[1]))
        yield f"{name}, in ranges", all(torch.equal(found[0], other) for other in found[2:])


def gru4rec_graph_speed(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Mini-batches/s of steps told call by call and replayed, in turns: medians of five."""
    log = Log.make(bench.size(37_000, 500), bench.size(60_000, 2_000), 5.0)
    steps = bench.size(500, 10)
    for name, params in (("retailrocket", RETAILROCKET), ("yoochoose", YOOCHOOSE)):
        plan = plans.on_device(
            plans.session_parallel(log, log.n_items, params["batch_size"]), bench.device
        )
        ways = ("none", *GRAPHS)
        models = {
            way: bench.gru4rec(log, {**params, "accelerate": way}, bench.device) for way in ways
        }
        took: dict[str, list[float]] = {way: [] for way in ways}
        for k in range(6):  # the first warms up
            for way, model in models.items():
                work = partial(model.run_steps, plan, k * steps, (k + 1) * steps)
                took[way].append(bench.seconds(work))
        for way in ways:
            yield f"{name} {way}", round(steps / statistics.median(took[way][1:]), 1)


def gru4rec_graph_profile(bench: Bench) -> Iterator[tuple[str, Any]]:
    """What a replayed step is made of: kernels, their time, and those that take most of it."""
    log = Log.make(bench.size(37_000, 500), bench.size(20_000, 2_000), 5.0)
    gpu = bench.device.type == "cuda"
    kind = torch.profiler.ProfilerActivity.CUDA if gpu else torch.profiler.ProfilerActivity.CPU
    for name, params in (("retailrocket", RETAILROCKET), ("yoochoose", YOOCHOOSE)):
        model = bench.gru4rec(log, {**params, "accelerate": "graph"}, bench.device)
        plan = plans.on_device(
            plans.session_parallel(log, log.n_items, params["batch_size"]), bench.device
        )
        steps = bench.size(64, 8)
        model.run_steps(plan, 0, steps)
        bench.wait()
        with torch.profiler.profile(activities=[kind]) as profile:
            model.run_steps(plan, steps, 2 * steps)
            bench.wait()

        def time_of(event: Any) -> float:
            return float(event.self_device_time_total if gpu else event.self_cpu_time_total)

        events = sorted(profile.key_averages(), key=time_of, reverse=True)
        yield f"{name} kernels per step", round(sum(e.count for e in events) / steps, 1)
        yield f"{name} µs per step", round(sum(map(time_of, events)) / steps, 1)
        for event in events[:12]:
            shown = f"{time_of(event) / steps:.1f} µs, {event.count / steps:.2f} a step"
            yield f"{name} {event.key[:70]}", shown


def gru4rec_packed(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Events/s of 1, 2, 4 and 8 processes together that train on the device at the same time."""
    for accelerate in ("none", "graph"):
        for count in (1, 2, 4, 8):
            command = [sys.executable, __file__, "--device", str(bench.device), "--alone",
                       accelerate] + ["--small"] * bench.small  # fmt: skip
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            crew = [subprocess.Popen(command, text=True, **pipes) for _ in range(count)]
            for one in crew:
                one.stdout.readline()  # it is warm
            for one in crew:
                one.stdin.write("go\n")
                one.stdin.flush()
            rates = [float(one.communicate()[0]) for one in crew]
            yield f"{accelerate}, {count} together, events/s", round(sum(rates))


def train_alone(bench: Bench, accelerate: str) -> None:
    """One of :func:`gru4rec_packed`'s processes: when told, train for ten seconds."""
    log = Log.make(bench.size(37_000, 500), bench.size(60_000, 2_000), 5.0)
    model = bench.gru4rec(log, {**RETAILROCKET, "accelerate": accelerate}, bench.device)
    plan = plans.session_parallel(log, log.n_items, RETAILROCKET["batch_size"])
    plan = plans.on_device(plan, bench.device)
    run: Callable[..., torch.Tensor] = model.run_steps
    size = bench.size(64, 4)
    run(plan, 0, size)
    bench.wait()
    print("warm", flush=True)
    sys.stdin.readline()
    step, done, began, limit = size, 0, time.perf_counter(), bench.size(10, 1)
    while time.perf_counter() - began < limit:
        step = 0 if step + size > plan.n_full else step
        run(plan, step, step + size)
        bench.wait()
        step, done = step + size, done + size
    print(done * plan.batch_size / (time.perf_counter() - began), flush=True)


def ranking_large(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Ranking 4,096 targets among a million items of 512 dimensions."""
    items, width = bench.size(1_000_000, 5_000), 512
    source = torch.Generator(bench.device).manual_seed(1)
    table = torch.randn(items, width, device=bench.device, generator=source)
    vectors = torch.randn(bench.size(4096, 64), width, device=bench.device, generator=source)
    targets = torch.arange(len(vectors), device=bench.device)

    def work() -> None:
        ranks.rank(vectors, targets, table, None, ties="standard")

    work()
    yield "seconds", statistics.median(bench.seconds(work) for _ in range(5))
    yield "GiB beside the table", bench.peak(work)
    few = slice(0, 16)
    ours = ranks.rank(vectors[few], targets[few], table, None, ties="standard")
    scores = vectors[few].double() @ table.double().T
    own = scores.gather(1, targets[few, None])
    exact = (1 + (scores > own).sum(1)).cpu().numpy()
    yield "largest rank difference from float64", int(np.abs(ours - exact).max())


def sequence_batches(log: Log, model: Model, device: torch.device) -> plans.SequenceBatches:
    training = plans.TrainingSequences(
        log, log.n_items, model.max_length, model.params["batch_size"], 1, device
    )
    return training.epoch(1)


def sequence_equal(bench: Bench) -> Iterator[tuple[str, Any]]:
    """One batch's loss and gradients on the device against the CPU's: largest differences."""
    log = Log.make(400, 300, 20.0)
    for name, (kind, params) in SEQUENCE_MODELS.items():
        given = {**params, "batch_size": 16, "max_length": 50}
        given |= {"dropout": 0.0} if "dropout" in params else {}
        found = []
        for device in (torch.device("cpu"), bench.device):
            model = build(kind, given, log.catalogue(), seed=1).to(device)
            model.eval()
            loss = model.loss(sequence_batches(log, model, device)[0])
            loss.backward()
            grads = [p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None]
            found.append((float(loss.detach()), torch.cat(grads)))
        (a, x), (b, y) = found
        yield f"{name} loss", abs(a - b) / abs(a)
        yield f"{name} gradient", float((x - y).norm() / x.norm())


def sequence_repeat(bench: Bench) -> Iterator[tuple[str, Any]]:
    """One batch's gradients twice on the device: how many of their numbers differ."""
    log = Log.make(400, 300, 20.0)
    for name, (kind, params) in SEQUENCE_MODELS.items():
        given = {**params, "batch_size": 64, "max_length": 100}
        found = []
        for _ in range(2):
            torch.manual_seed(1)
            model = build(kind, given, log.catalogue(), seed=1).to(bench.device).eval()
            model.loss(sequence_batches(log, model, bench.device)[0]).backward()
            grads = [p.grad.cpu().flatten() for p in model.parameters() if p.grad is not None]
            found.append(torch.cat(grads))
        yield f"{name} numbers that differ", int((found[0] != found[1]).sum())


def sequence_speed(bench: Bench) -> Iterator[tuple[str, Any]]:
    """Seconds per epoch of ML-1M's size (6,040 users, 3,416 items, mean 165), fp32 and bf16."""
    log = Log.make(3416, bench.size(6040, 200), 165.0)
    for name, (kind, params) in SEQUENCE_MODELS.items():
        for precision in ("fp32", "bf16"):
            model = build(kind, {**params, "precision": precision}, log.catalogue(), seed=1)
            model.to(bench.device).train()
            batches = sequence_batches(log, model, bench.device)
            optimiser = Optimiser(model, model.params, 4 * len(batches))
            steps = LossSteps(model, batches, optimiser, 0)
            count = len(batches)
            took = [bench.seconds(partial(steps.run, 0, count)) for _ in range(4)]
            yield f"{name} {precision} seconds per epoch", statistics.median(took[1:])


CHECKS: dict[str, Callable[[Bench], Iterator[tuple[str, Any]]]] = {
    "gru4rec-equal": gru4rec_equal,
    "gru4rec-repeat": gru4rec_repeat,
    "gru4rec-speed": gru4rec_speed,
    "gru4rec-graph-equal": gru4rec_graph_equal,
    "gru4rec-graph-repeat": gru4rec_graph_repeat,
    "gru4rec-graph-speed": gru4rec_graph_speed,
    "gru4rec-graph-profile": gru4rec_graph_profile,
    "gru4rec-packed": gru4rec_packed,
    "ranking-large": ranking_large,
    "sequence-equal": sequence_equal,
    "sequence-repeat": sequence_repeat,
    "sequence-speed": sequence_speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(CHECKS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--alone", choices=("none", *GRAPHS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        bench = Bench(options.device, options.small)
        with deterministic(bench.device):
            train_alone(bench, options.alone)
        return
    unknown = set(options.checks) - set(CHECKS)
    if unknown:
        parser.error(f"no check {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
    bench = Bench(options.device, options.small)
    name = torch.cuda.get_device_name() if bench.device.type == "cuda" else platform.processor()
    name = name or platform.machine()
    print(f"{name}, torch {torch.__version__}, python {platform.python_version()}")
    done: dict[str, Any] = {}
    if options.out and options.out.exists():
        done = json.loads(options.out.read_text())
    for check in options.checks or CHECKS:
        if check in done:
            print(f"{check}: there already")
            continue
        with deterministic(bench.device):
            result = {}
            for figure, value in CHECKS[check](bench):
                result[figure] = value
                print(f"{check}: {figure}: {value}", flush=True)
        done[check] = {"device": name, "torch": torch.__version__, **result}
        if options.out:
            options.out.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
