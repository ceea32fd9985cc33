"""The fit loop: resumed equals uninterrupted, ranges and neighbours change nothing, bad files."""

from __future__ import annotations

import json
import math
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from paropt.data import View, open_dataset
from paropt.data.prepare import prepare
from paropt.errors import CheckpointError, Diverged, ParamError, TrainingError
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.ranking.judging import Evaluation
from paropt.training.fitting import checksummed_file, runtime
from paropt.training.fitting import fit as fit_module
from paropt.training.fitting.fit import Fit

STAGED = '''
import torch
from torch import nn
from models.parts.contract import Model, Param

class Staged(Model):
    """A GRU with dropout; its embeddings rest from epoch 3 on."""
    PLAN = "sequences"
    PARAMS = (
        Param("size", "int", 8, "units", low=1),
        Param("batch_size", "int", 16, "rows", low=1),
        Param("n_epochs", "int", 4, "epochs", low=1),
        Param("learning_rate", "float", 0.01, "step"),
        Param("weight_decay", "float", 0.1, "decay"),
        Param("warmup", "float", 0.1, "rise"),
        Param("schedule", "str", "cosine", "fall"),
        Param("grad_clip", "float", 1.0, "cap"),
        Param("patience", "int", 0, "epochs without a better one"),
        Param("bad", "str", "", "where numbers stop being finite"),
    )
    max_length = 6

    def __init__(self, params, catalogue, seed):
        super().__init__(params, catalogue, seed)
        self.items = nn.Embedding(catalogue.n_items, params["size"])
        self.gru = nn.GRU(params["size"], params["size"], batch_first=True)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.noise = torch.Generator().manual_seed(seed)
        self.drawn = 0.0

    def begin_epoch(self, epoch):
        self.items.weight.requires_grad_(epoch < 3)
        return "all" if epoch < 3 else "gru"

    def hidden(self, batch):
        x = nn.functional.dropout(self.items(batch.items), 0.2, self.training)
        return self.gru(x)[0][batch.targets >= 0]

    def loss(self, batch):
        targets = batch.targets[batch.targets >= 0]
        loss = nn.functional.cross_entropy(self.hidden(batch) @ self.items.weight.T, targets)
        self.drawn += float(torch.rand((), generator=self.noise))
        bad = self.params["bad"] == "loss" and self.steps == 40
        return loss * (float("nan") if bad else 1 + 0.01 * self.drawn % 1)

    def after_step(self):
        self.steps += 1

    def end_epoch(self, epoch):
        return {"steps": int(self.steps)}

    def training_state(self):
        return {"noise": self.noise.get_state(), "drawn": self.drawn}

    def load_training_state(self, state):
        self.noise.set_state(state["noise"].cpu())
        self.drawn = state["drawn"]

    def encode(self, batch):
        hidden = self.hidden(batch)
        return hidden * float("inf") if self.params["bad"] == "score" else hidden

    def item_table(self):
        return self.items.weight, None
'''
MODEL = "staged_for_fit:Staged"
GRU4REC = {
    "loss": "bpr-max",
    "layers": 12,
    "batch_size": 8,
    "n_sample": 16,
    "dropout_p_embed": 0.2,
    "dropout_p_hidden": 0.1,
    "momentum": 0.3,
    "n_epochs": 3,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "staged": (MODEL, {}),
    "gru4rec": ("gru4rec", GRU4REC),
    "gru4rec in-batch": ("gru4rec", {**GRU4REC, "n_sample": 0, "loss": "cross-entropy"}),
}


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions that walk up or down a ring of items, over ten days."""
    source = np.random.default_rng(1)
    lines = ["SessionId\tItemId\tTime"]
    for session in range(400):
        item, way = source.integers(0, 40), 1 if source.random() < 0.5 else -1
        start = 1_600_000_000 + session * 2160
        for event in range(source.integers(2, 12)):
            lines.append(f"s{session}\ti{item}\t{start + 20 * event}")
            item = (item + way * source.integers(1, 3)) % 40
    directory = tmp_path_factory.mktemp("data")
    (directory / "events.tsv").write_text("\n".join(lines) + "\n")
    prepare([directory / "events.tsv"], directory / "ring")
    return directory / "ring"


@pytest.fixture
def view(dataset_dir: Path) -> View:
    return open_dataset(dataset_dir).view("search")


@pytest.fixture(autouse=True)
def _staged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "staged_for_fit.py").write_text(STAGED)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def ranges_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make every range so many steps; a range of none doubles, as with a fast device."""

    def set_size(size: int) -> None:
        def adapt(self: Fit, steps: int, took: float) -> int:
            return size

        monkeypatch.setattr(Fit, "_next_range", adapt)

    return set_size


def numbers(epoch: EpochReport) -> tuple[Any, ...]:
    """What must be the same to the last bit."""
    return epoch.epoch, epoch.metrics, epoch.loss, epoch.stage, epoch.extra


def weights(fit: Fit) -> dict[str, torch.Tensor]:
    return dict(fit.model.state_dict())


def assert_same_weights(one: Fit, other: Fit) -> None:
    theirs = weights(other)
    for name, value in weights(one).items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("case", CASES)
def test_resumed_equals_uninterrupted(
    case: str, view: View, tmp_path: Path, ranges_of: Callable[[int], None]
) -> None:
    """Stopped every few steps, saved, and gone on with in a new fit each time."""
    model, params = CASES[case]
    whole = Fit(model, params, view, seed=3)
    expected = [numbers(epoch) for epoch in whole.epochs()]
    assert len({str(metrics) for _, metrics, *_ in expected}) == whole.n_epochs

    ranges_of(7)
    path = tmp_path / "checkpoint"
    found: list[Any] = []
    stops = set()
    for _ in range(1000):
        part = Fit(model, params, view, seed=3)
        done = part.resume(path)
        assert done == (len(found) if path.exists() else None)
        ranges = iter(range(4))

        def stop_at_third(*_: Any, part: Fit = part, ranges: Any = ranges) -> None:
            if next(ranges) == 2:
                part.stop()

        part.on_progress = stop_at_third
        found += [numbers(epoch) for epoch in part.epochs()]
        part.save(path)
        stops.add((part.epoch, part.step))
        torch.rand(5)  # what others draw is none of its business
        if part.finished:
            break
    assert found == expected
    assert len(stops) > whole.n_epochs
    assert_same_weights(whole, part)


def test_saved_from_within_the_loop(view: View, tmp_path: Path) -> None:
    """on_progress may save: the random stream is then in use."""
    whole = Fit(MODEL, {}, view, seed=3)
    path = tmp_path / "checkpoint"

    def save_once(epoch: int, step: int, steps: int, speed: float) -> None:
        assert speed > 0
        assert step <= steps
        if epoch == 2 and not path.exists():
            whole.save(path)

    whole.on_progress = save_once
    expected = [numbers(epoch) for epoch in whole.epochs()]
    later = Fit(MODEL, {}, view, seed=3)
    assert later.resume(path) == 1
    assert [numbers(epoch) for epoch in later.epochs()] == expected[1:]
    assert_same_weights(whole, later)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 1000])
def test_ranges_change_nothing(
    case: str, size: int, view: View, ranges_of: Callable[[int], None]
) -> None:
    model, params = CASES[case]
    one = Fit(model, params, view, seed=1, epochs=2)
    expected = [numbers(epoch) for epoch in one.epochs()]
    ranges_of(size)
    other = Fit(model, params, view, seed=1, epochs=2)
    assert [numbers(epoch) for epoch in other.epochs()] == expected
    assert_same_weights(one, other)


def test_two_fits_in_turns_do_not_touch_each_other(view: View) -> None:
    alone = [numbers(epoch) for epoch in Fit(MODEL, {}, view, seed=1).epochs()]
    before = torch.get_rng_state()
    one, other = Fit(MODEL, {}, view, seed=1), Fit(MODEL, {}, view, seed=2)
    both = list(zip(one.epochs(), other.epochs(), strict=True))
    assert [numbers(epoch) for epoch, _ in both] == alone
    assert [numbers(epoch) for _, epoch in both] != alone
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_earlier_end_has_the_same_epochs(view: View) -> None:
    """A paramfile that stops at its best epoch follows the whole training's schedule."""
    whole = [numbers(epoch) for epoch in Fit(MODEL, {}, view, seed=1).epochs()]
    assert [numbers(epoch) for epoch in Fit(MODEL, {}, view, seed=1, epochs=2).epochs()] == whole[
        :2
    ]


def test_the_loss_is_the_mean_over_targets(view: View) -> None:
    fit = Fit(MODEL, {"learning_rate": 1e-30, "n_epochs": 1}, view, seed=1, evaluate=False)
    (epoch,) = fit.epochs()
    assert epoch.loss == pytest.approx(math.log(view.n_items), rel=1)
    weights = torch.tensor(fit._steps.weights, dtype=torch.float64)
    losses = torch.cat(fit.losses).double()
    assert epoch.loss == pytest.approx(float((losses @ weights) / weights.sum()), rel=1e-12)
    assert int(weights.sum()) == sum(min(6, int(n) - 1) for n in np.diff(view.train.offsets))
    assert (epoch.metrics, epoch.targets) == ({}, 0)


def test_stop_from_another_thread(view: View) -> None:
    fit = Fit(MODEL, {"n_epochs": 10_000}, view, seed=1, evaluate=False)
    begun = threading.Event()
    fit.on_progress = lambda *_: begun.set()

    def stop() -> None:
        begun.wait()
        fit.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    for _ in fit.epochs():
        pass
    thread.join()
    assert fit.stopped
    assert not fit.finished


def test_patience_ends_a_training_that_learns_nothing(view: View) -> None:
    params = {"learning_rate": 1e-30, "weight_decay": 0, "n_epochs": 50, "patience": 3}
    fit = Fit(MODEL, params, view, seed=1)
    assert [epoch.epoch for epoch in fit.epochs()] == [1, 2, 3, 4]
    assert fit.best_epoch == 1
    assert fit.finished


def test_patience_and_the_best_epoch_follow_what_is_looked_for(
    view: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a GRU4Rec whose mrr@20 rises while its recall@20 falls, and whose rank is best second."""
    params = {"layers": 8, "batch_size": 8, "n_sample": 8, "n_epochs": 5, "patience": 2}

    def fitted(objective: Objective) -> tuple[int, int]:
        fit = Fit("gru4rec", params, view, seed=1, objective=objective)
        judged: list[Evaluation] = []

        def judge() -> Evaluation:
            epoch = len(judged) + 1
            metrics = {
                "mrr@20": 0.1 * epoch, "recall@20": 1 / epoch, "avg_rank": abs(epoch - 2.0),
            }  # fmt: skip
            judged.append(Evaluation(metrics, 1, 0, 0.0, np.zeros(0), np.zeros(0, np.int64)))
            return judged[-1]

        monkeypatch.setattr(fit, "_judge", judge)
        return len(list(fit.epochs())), fit.best_epoch

    assert fitted(Objective("mrr@20")) == (5, 5)
    assert fitted(Objective("recall@20")) == (3, 1)
    assert fitted(Objective("avg_rank", "minimize")) == (4, 2)
    assert fitted(Objective.parse("0.9*recall@20+0.1*mrr@20")) == (3, 1)


def test_a_checkpoint_is_of_its_way_of_judging(view: View, tmp_path: Path) -> None:
    """Other rules, or another metric, give another best epoch; paropt 0.1 said neither."""
    fit = Fit(MODEL, {"n_epochs": 2}, view, seed=1)
    next(fit.epochs())
    fit.save(tmp_path / "a.ckpt")
    for other in ({"filter_seen": True}, {"ties": "median"}, {"objective": Objective("mrr@5")}):
        with pytest.raises(CheckpointError, match=r"its (evaluation|metric) is"):
            Fit(MODEL, {"n_epochs": 2}, view, seed=1, **other).resume(tmp_path / "a.ckpt")
    header, tensors = checksummed_file.read(tmp_path / "a.ckpt")
    older = {key: of for key, of in header.items() if key not in ("metric", "evaluation")}
    checksummed_file.write(tmp_path / "b.ckpt", older, tensors)
    assert Fit(MODEL, {"n_epochs": 2}, view, seed=1).resume(tmp_path / "b.ckpt") == 1


def test_judged_after_the_last_epoch_only_patience_looks_at_nothing(view: View) -> None:
    params = {"n_epochs": 3, "patience": 1}
    once = list(Fit(MODEL, params, view, seed=1, evaluate="last").epochs())
    assert [bool(epoch.metrics) for epoch in once] == [False, False, True]
    every = list(Fit(MODEL, params | {"patience": 0}, view, seed=1).epochs())
    assert once[-1].metrics == every[-1].metrics


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("loss", r"the loss became nan in epoch 2 at step \d+; lower the learning rate"),
        ("score", "after epoch 1 a score is not finite"),
    ],
)
def test_divergence_is_told_with_its_epoch(bad: str, message: str, view: View) -> None:
    fit = Fit(MODEL, {"bad": bad, "batch_size": 8}, view, seed=1)
    with pytest.raises(Diverged, match=message):
        list(fit.epochs())


SMALL = {"dim": 16, "max_length": 8, "batch_size": 32, "n_epochs": 2}


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("sasrec", {}),
        ("hstu", {"rotary": "linear"}),
        ("sasrec", {"experts": 4}),
        ("hstu", {"experts": 4}),
    ],
    ids=["sasrec", "hstu", "sasrec-moe", "hstu-moe"],
)
def test_bfloat16_keeps_weights_gradients_and_moments_in_float32(
    model: str, more: dict[str, Any], view: View
) -> None:
    exact = Fit(model, SMALL | more, view, seed=1)
    rough = Fit(model, SMALL | more | {"precision": "bf16"}, view, seed=1)
    told = list(zip(exact.epochs(), rough.epochs(), strict=True))
    for plain, half in told:
        assert half.loss != plain.loss
        assert half.loss == pytest.approx(plain.loss, rel=0.02)
    kept = [*rough.model.parameters(), *(p.grad for p in rough.model.parameters())]
    assert rough.optimiser is not None
    kept += [value for name, value in rough.optimiser.state().items() if "exp_avg" in name]
    assert len(kept) > 2 * len(list(rough.model.parameters()))
    assert all(tensor.dtype == torch.float32 for tensor in kept)
    # finer than bfloat16: a step of 0.001 is lost on a weight above 0.5 there
    assert any(not torch.equal(p, p.bfloat16().float()) for p in rough.model.parameters())


def test_bfloat16_is_refused_where_the_device_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    old = torch.device("cuda", 0)
    assert not runtime.half_precision("fp32", old)
    assert runtime.half_precision("bf16", torch.device("cpu"))
    message = "^Tesla T4 has no bfloat16, so precision bf16 can't be; set it to fp32$"
    with pytest.raises(TrainingError, match=message):
        runtime.half_precision("bf16", old)


def test_what_cannot_be_trained(view: View) -> None:
    with pytest.raises(ParamError, match="size must be at least 1, not 0"):
        Fit(MODEL, {"size": 0}, view, seed=1)
    with pytest.raises(TrainingError, match="no device 'cuda:99'"):
        Fit(MODEL, {}, view, seed=1, device="cuda:99")
    with pytest.raises(TrainingError, match="no device 'gpu'"):
        Fit(MODEL, {}, view, seed=1, device="gpu")


# -- checkpoints that cannot be used ---------------------------------------------------------


@pytest.fixture
def checkpoint(view: View, tmp_path: Path) -> Path:
    fit = Fit(MODEL, {}, view, seed=3, epochs=1, evaluate=False)
    list(fit.epochs())
    fit.save(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def refused(view: View, path: Path, **changes: Any) -> str:
    arguments: dict[str, Any] = {"params": {}, "seed": 3, **changes}
    fit = Fit(MODEL, arguments.pop("params"), view, **arguments)
    with pytest.raises(CheckpointError) as caught:
        fit.resume(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_checkpoint_is_no_error(view: View, tmp_path: Path) -> None:
    assert Fit(MODEL, {}, view, seed=3).resume(tmp_path / "none") is None


def test_a_checkpoint_of_another_training(
    view: View, dataset_dir: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "its seed is 3, not 4" in refused(view, checkpoint, seed=4)
    assert "its params is" in refused(view, checkpoint, params={"size": 4})
    full = open_dataset(dataset_dir).view("full")
    assert "its view is search, not full" in refused(full, checkpoint)
    monkeypatch.setattr(fit_module, "SEMANTICS", 99)
    assert "its semantics is 1, not 99" in refused(view, checkpoint)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.999])
def test_a_checkpoint_cut_short(view: View, checkpoint: Path, share: float) -> None:
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: int(len(content) * share)])
    assert "cut short" in refused(view, checkpoint)


def test_a_checkpoint_with_one_bit_changed(view: View, checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    checkpoint.write_bytes(content)
    assert "checksum does not match" in refused(view, checkpoint)


def test_a_checkpoint_with_a_changed_header(view: View, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    assert content.count(rb"\"best_epoch\": 0") == 1
    checkpoint.write_bytes(content.replace(rb"\"best_epoch\": 0", rb"\"best_epoch\": 9"))
    assert "checksum does not match" in refused(view, checkpoint)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_is_refused_unopened(view: View, tmp_path: Path, how: str) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    path = tmp_path / "checkpoint"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Payload()))
    else:
        torch.save(Payload(), path)
    assert "pickled" in refused(view, path)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_has_changed_since(view: View, checkpoint: Path, tmp_path: Path) -> None:
    changed = STAGED.replace('nn.GRU(params["size"], params["size"]', 'nn.GRU(params["size"], 9')
    (tmp_path / "staged_after.py").write_text(changed)
    content = checkpoint.read_bytes()
    fit = Fit("staged_after:Staged", {}, view, seed=3)
    fit.name = MODEL
    with pytest.raises(CheckpointError, match="does not fit the model"):
        fit.resume(checkpoint)
    assert checkpoint.read_bytes() == content


def test_a_failed_save_leaves_the_old_file(
    view: View, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = checkpoint.read_bytes()

    def full_disk(tensors: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("paropt.training.fitting.checksummed_file.save_file", full_disk)
    with pytest.raises(OSError, match="No space"):
        Fit(MODEL, {}, view, seed=3).save(checkpoint)
    assert checkpoint.read_bytes() == content
    assert [p.name for p in checkpoint.parent.iterdir() if p.name.startswith(".")] == []


def test_a_checkpoint_is_plain_safetensors(checkpoint: Path) -> None:
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        header = json.loads(file.metadata()["header"])
        assert "model/items.weight" in file.keys()  # noqa: SIM118  # it is no dict
    assert header["model"] == MODEL
    assert header["seed"] == 3


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a process's peak")
def test_peak_memory_is_that_of_one_fit() -> None:
    device = torch.device("cpu")
    block = bytearray(256 << 20)
    del block
    with_the_block = runtime.peak_memory(device)
    runtime.forget_peak(device)
    assert with_the_block - runtime.peak_memory(device) > 128 << 20
