"""Seconds per epoch of SASRec, HSTU and experts, and of their parts beside the plain way.

    python benchmarks/speed/sequence_speed.py [--data DIR [--set ml100k]] [--rectools PYTHON]
        [--pmixer CHECKOUT] [--threads 1] [--runs 5] [--models sasrec hstu] [--turns 2]

Without --data only the parts are timed. DIR is as for sequence_quality.py. PYTHON is that of an
environment with `rectools[torch]`, whose SASRec and HSTU train on the same events, sizes and
threads in turn with ours (rectools_peer.py), as often as --turns says: an epoch of ML-1M takes it
minutes. CHECKOUT is one of pmixer/SASRec.pytorch outside this repository, whose SASRec is timed
beside "sasrec, one negative", its loss. Alternating runs, medians. Seconds of the clock, and in
brackets those of the processor: on a machine that others use, too, these say more.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.transformer.dropout import Dropout
from models.parts.transformer.losses import full_cross_entropy
from models.parts.transformer.moe import MoE
from paropt.training.fitting.fit import Fit

sys.path.insert(0, str(Path(__file__).parents[1] / "quality"))
from sequence_quality import prepared, write_log

SIZES = {"dim": 64, "blocks": 2, "heads": 1, "max_length": 200, "batch_size": 128}
DROPOUT = {"ml100k": 0.2, "ml1m": 0.1}
ONE = "sasrec, one negative"
MODELS = {
    "sasrec": ("sasrec", {}),
    "hstu": ("hstu", {"time_mode": "query"}),
    "hstu, attention in PyTorch": ("hstu", {"time_mode": "query", "attention_kernel": "torch"}),
    "sasrec, 8 experts": ("sasrec", {"experts": 8}),
    ONE: ("sasrec", {"loss": "bce", "n_sample": 1, "negative_sharing": "position"}),
}
PEERS = ("sasrec", "hstu")  # of these RecTools has its own


class Took(NamedTuple):
    """Seconds of the clock, and of the processor where they are known."""

    clock: float
    processor: float | None

    def __str__(self) -> str:
        return f"{self.clock:.2f} s" + (f" ({self.processor:.2f})" if self.processor else "")


def medians(took: list[Took]) -> Took:
    processor = [one.processor for one in took if one.processor is not None]
    clock = statistics.median(one.clock for one in took)
    return Took(clock, statistics.median(processor) if processor else None)


def alternate(ways: dict[str, Callable[[], Tensor]], runs: int) -> dict[str, float]:
    """Median milliseconds of each way, forwards and backwards."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):  # the first one warms up
        for name, way in ways.items():
            began = time.perf_counter()
            way().backward()
            if run:
                times[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, found: dict[str, float], ours: str) -> None:
    parts = [
        f"{name} {value:.1f} ms" + (f" ({value / found[ours]:.1f}×)" if name != ours else "")
        for name, value in found.items()
    ]
    print(f"{title}: {', '.join(parts)}", flush=True)


def cross_entropy(tokens: int, items: int, dim: int, runs: int) -> None:
    h, table = torch.randn(tokens, dim), 0.05 * torch.randn(items, dim)
    h.requires_grad_()
    table.requires_grad_()
    targets = torch.randint(items, (tokens,))
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: full_cross_entropy(h, table, targets),
        "plain": lambda: F.cross_entropy(h @ table.T, targets),
    }
    if hasattr(F, "linear_cross_entropy"):
        options = nn.LinearCrossEntropyOptions()
        ways["torch's fused"] = lambda: F.linear_cross_entropy(h, table, targets, options=options)
    title = f"cross-entropy, {tokens} tokens × {items} items × {dim}"
    show(title, alternate(ways, runs), "ours")


def experts(tokens: int, dim: int, count: int, top_k: int, runs: int) -> None:
    layer = MoE(dim, dim, count, top_k)
    x = torch.randn(tokens, dim, requires_grad=True)

    def way(grouped: bool) -> Tensor:
        layer.grouped = grouped
        return layer(x).sum()

    found = alternate({"grouped": lambda: way(True), "loop": lambda: way(False)}, runs)
    show(f"{count} experts, top {top_k}, {tokens} tokens × {dim}", found, "grouped")


def dropout(tokens: int, dim: int, runs: int) -> None:
    ours, x = Dropout(0.2), torch.randn(tokens, dim, requires_grad=True)
    ways = {"ours": lambda: ours(x).sum(), "torch's": lambda: F.dropout(x, 0.2).sum()}
    show(f"dropout, {tokens} × {dim}", alternate(ways, runs), "ours")


def epochs(args: argparse.Namespace) -> None:
    """Ours epoch by epoch in turns; a peer's training before and after them."""
    with tempfile.TemporaryDirectory() as folder:
        view = prepared(args.data, args.set, args.cache or Path(folder), None).view("full")
        sizes = SIZES | {"dropout": DROPOUT[args.set], "n_epochs": args.runs + 1}
        fits = {
            name: Fit(model, sizes | more, view, seed=1, evaluate=False)
            for name, (model, more) in MODELS.items()
            if name in args.models
        }
        took: dict[str, list[Took]] = {name: [] for name in fits}
        running = {name: fit.epochs() for name, fit in fits.items()}
        log = Path(folder) / "log.tsv"
        write_log(args.data, args.set, log)
        peers: dict[tuple[str, str], list[Took]] = {}
        if args.rectools:
            peers |= {("RecTools", name): [] for name in PEERS if name in fits}
        if args.pmixer and ONE in fits:
            peers["pmixer", ONE] = []
        for turn in range(args.turns):
            for (who, name), told in peers.items():
                told += _rectools(args, log, name) if who == "RecTools" else _pmixer(args, log)
            # one epoch more than runs: the first warms up
            for _ in range((args.runs + 1 + turn) // args.turns):
                for name, going in running.items():
                    began = time.process_time()
                    trained = next(going).train_seconds
                    took[name].append(Took(trained, time.process_time() - began))
    for name, ours in took.items():
        mine = medians(ours[1:])
        beside = ""
        for (who, model), told in peers.items():
            if model == name:
                peer = medians(told)
                beside += f"; {who} {peer}, ratio {peer.clock / mine.clock:.1f}"
        print(f"{args.set} {name}: {mine} per epoch{beside}", flush=True)


def _rectools(args: argparse.Namespace, log: Path, name: str) -> list[Took]:
    """RecTools' second epoch."""
    program = Path(__file__).with_name("rectools_peer.py")
    words = [log, name, 2, DROPOUT[args.set], args.threads]
    command = [args.rectools, program, *words]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True)
    told = json.loads(done.stdout.splitlines()[-1])
    return [Took(*both) for both in zip(told["seconds"][1:], told["cpu_seconds"][1:], strict=True)]


def _pmixer(args: argparse.Namespace, log: Path) -> list[Took]:
    """Its second epoch: from that one's first line on its output to the third's."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(args.pmixer / "python", folder, dirs_exist_ok=True)
        with log.open() as events, Path(folder, "data", "log.txt").open("w") as out:
            users: dict[str, int] = {}
            items: dict[str, int] = {}
            for line in list(events)[1:]:
                user, item, _ = line.split("\t")
                number = users.setdefault(user, len(users) + 1)
                out.write(f"{number} {items.setdefault(item, len(items) + 1)}\n")
        words = [
            f"--{name}={value}"
            for name, value in {
                "dataset": "log", "train_dir": "out", "device": "cpu", "num_epochs": 3,
                "maxlen": SIZES["max_length"], "hidden_units": SIZES["dim"],
                "num_blocks": SIZES["blocks"], "num_heads": SIZES["heads"],
                "batch_size": SIZES["batch_size"], "dropout_rate": DROPOUT[args.set],
            }.items()
        ]  # fmt: skip
        threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        peer = subprocess.Popen(
            [sys.executable, "-u", "main.py", *words], cwd=folder, env={**os.environ, **threads},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        assert peer.stdout is not None
        begins: list[float] = []
        said = []
        try:
            for line in peer.stdout:
                said.append(line)
                if line.startswith(f"loss in epoch {len(begins) + 2} "):
                    begins.append(time.perf_counter())
                if len(begins) == 2:
                    return [Took(begins[1] - begins[0], None)]
        finally:
            os.killpg(peer.pid, signal.SIGKILL)  # and the processes that draw its batches
            peer.wait()
    raise SystemExit("pmixer's SASRec ended early: " + "".join(said[-20:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", choices=DROPOUT, default="ml100k")
    parser.add_argument("--cache", type=Path, help="keep the prepared set here")
    parser.add_argument("--rectools", metavar="PYTHON")
    parser.add_argument("--pmixer", metavar="CHECKOUT", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--turns", type=int, choices=(1, 2), default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    print(f"{platform.machine()}, torch {torch.__version__}, {args.threads} thread(s)")
    cross_entropy(8192, 1682, 64, args.runs)
    cross_entropy(8192, 3416, 64, args.runs)
    cross_entropy(2048, 40_000, 64, args.runs)
    experts(4096, 128, 100, 2, args.runs)
    experts(4096, 64, 8, 2, args.runs)
    dropout(25_600, 64, args.runs)
    if args.data is not None:
        epochs(args)


if __name__ == "__main__":
    main()
