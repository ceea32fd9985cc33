"""GRU4Rec follows runs of the official version: every loss, the final weights, the metrics."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gru4rec_numpy import Array, Reference, Weights, schedule
from gru4rec_torch import RecordedNegatives, batch_of, build, torch_plan

pytestmark = pytest.mark.vectors

CASES = (
    "xe_shared",
    "xe_shared_logq_sampled",
    "bprmax_shared_momentum_sampled",
    "bprmax_linear_act",
    "xe_separate_2layers",
    "xe_onehot",
)
# the recorded runs split the columns for logQ at the nominal batch size where it has shrunk
SPLIT_WRONGLY = ("xe_shared_logq_sampled", "xe_separate_2layers")
NAMES = {
    "Wy.weight": "output",
    "E.weight": "embedding",
    "GE.Wx0.weight": "embedding",
    "GE.Wrz0": "cells.0.weight_rz",
    "GE.Wh0": "cells.0.weight_c",
    "GE.Bh0": "cells.0.bias",
}


@dataclass(frozen=True)
class Run:
    """A recorded run of two epochs."""

    params: dict[str, Any]
    metrics: dict[str, Any]
    train: list[list[int]]
    test: list[list[int]]
    arrays: dict[str, Array]

    @property
    def support(self) -> Array:
        return np.bincount(np.concatenate(self.train), minlength=40)

    @property
    def plan(self) -> dict[str, Array]:
        p = self.params
        return schedule(self.train, p["batch_size"], 1 if p["n_sample"] else 2)

    def weights(self, when: str) -> Weights:
        found = {}
        for key, value in self.arrays.items():
            if key.startswith(f"{when}."):
                name = key.removeprefix(f"{when}.")
                if name == "By.weight":
                    found["bias"] = value[:, 0]
                else:
                    found[NAMES.get(name, name.replace("G.", "cells."))] = value
        return found


def read_sessions(path: Path, index: dict[str, int]) -> list[list[int]]:
    """Items of each session, unknown ones dropped, in the order of the sessions' first events."""
    events: dict[str, list[tuple[float, int]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["ItemId"] in index:
                event = (float(row["Time"]), index[row["ItemId"]])
                events.setdefault(row["SessionId"], []).append(event)
    ordered = sorted((sorted(session) for session in events.values()), key=lambda s: s[0][0])
    return [[item for _, item in session] for session in ordered]


@pytest.fixture(scope="module", params=CASES)
def run(request: pytest.FixtureRequest, vectors_dir: Path) -> Run:
    index = json.loads((vectors_dir / "index.json").read_text())
    case = index[request.param]
    params = dict(case["params"])
    if "elu_param" in params:
        alpha = params.pop("elu_param")
        params["final_act"] = f"elu-{alpha}" if alpha else "linear"
    with np.load(vectors_dir / f"{request.param}.npz") as arrays:
        return Run(
            params,
            case["metrics"],
            read_sessions(vectors_dir / "train.tsv", index["item_index"]),
            read_sessions(vectors_dir / "test.tsv", index["item_index"]),
            dict(arrays),
        )


def followed(run: Run, request: pytest.FixtureRequest) -> int:
    """Up to which step the recorded run is right."""
    wrong = request.node.callspec.params["run"] in SPLIT_WRONGLY
    n_valid = run.arrays["n_valid"]
    return int(np.argmax(n_valid < run.params["batch_size"])) if wrong else len(n_valid)


def test_schedule(run: Run) -> None:
    per_epoch = len(run.arrays["loss"]) // 2
    plan = run.plan
    assert len(plan["inputs"]) == per_epoch
    for t in range(2 * per_epoch):
        mine = zip(*(plan[k][t % per_epoch].tolist() for k in ("inputs", "targets")), strict=True)
        theirs = zip(*(run.arrays[k][t].tolist() for k in ("in_idx", "out_idx")), strict=True)
        assert sorted(mine) == sorted(theirs)


@pytest.mark.parametrize("accelerate", ["auto", "none", "graph", "graph-unordered"])
def test_losses_and_final_weights(
    run: Run, accelerate: str, request: pytest.FixtureRequest
) -> None:
    params = run.params | {"accelerate": accelerate}
    model = build(params, run.support, run.weights("init"))
    model.negatives = RecordedNegatives(run.arrays["samples"])
    plan = torch_plan(run.plan, run.params["batch_size"])
    losses = torch.cat([model.run_steps(plan, 0, plan.steps) for _ in range(2)]).numpy()
    n = followed(run, request)
    np.testing.assert_allclose(losses[:n], run.arrays["loss"][:n], rtol=1e-4)
    if n == len(losses):
        for name, value in run.weights("final").items():
            found = model.state_dict()[name].numpy()
            np.testing.assert_allclose(found, value, rtol=1e-3, atol=2e-5, err_msg=name)


def test_the_reference_follows_to_the_end(run: Run, request: pytest.FixtureRequest) -> None:
    """With the recorded runs' defect repeated; tests/vectors/ come from this reference."""
    wrong = request.node.callspec.params["run"] in SPLIT_WRONGLY
    params = build(run.params, run.support).params
    reference = Reference(params, run.weights("init"), run.support, nominal_split=wrong)
    plan, samples = run.plan, run.arrays["samples"]
    per_epoch = len(samples) // 2
    losses = [reference.epoch(plan, samples[e * per_epoch :]) for e in range(2)]
    np.testing.assert_allclose(np.concatenate(losses), run.arrays["loss"], rtol=1e-4)
    for name, value in run.weights("final").items():
        np.testing.assert_allclose(reference.w[name], value, rtol=1e-3, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("ties", ["standard", "conservative"])
def test_metrics(run: Run, ties: str) -> None:
    model = build(run.params, run.support, run.weights("final"))
    sessions = sorted((s for s in run.test if len(s) > 1), key=len, reverse=True)
    batch = batch_of(sessions)
    table, bias = model.item_table()
    assert bias is not None
    scores = model.encode(batch) @ table.T + bias
    wanted = batch.targets[batch.targets >= 0]
    assert len(wanted) == len(scores) == 72
    own = scores.gather(1, wanted[:, None])
    ranks = 1 + (scores > own).sum(1) if ties == "standard" else (scores >= own).sum(1)
    ranks = ranks.double()
    for k, recall in run.metrics[ties]["recall"].items():
        hit = ranks <= int(k)
        assert hit.double().mean().item() == pytest.approx(recall, abs=1e-6)
        mrr = torch.where(hit, 1 / ranks, 0).mean().item()
        assert mrr == pytest.approx(run.metrics[ties]["mrr"][k], abs=1e-6)
