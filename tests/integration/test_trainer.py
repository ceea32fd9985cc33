"""The trainer as a process: its protocol with real training, its end when nobody listens."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PARAMS = {"layers": 16, "batch_size": 8, "n_sample": 0, "loss": "cross-entropy", "n_epochs": 3}


@pytest.fixture(scope="module")
def dataset(ring: Path) -> Path:
    return ring


class Child:
    """A trainer and both ends of its pipes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "paropt.worker.trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self.rest = b""

    def send(self, **message: Any) -> None:
        self.stdin.write(json.dumps(message).encode() + b"\n")
        self.stdin.flush()

    def fit(self, dataset: Path, **more: Any) -> None:
        order = {"do": "fit", "trial": 1, "model": "gru4rec", "params": PARAMS, "seed": 3}
        order |= {"epochs": 3, "data": str(dataset), "view": "search", "device": "cpu"}
        self.send(**order | {"threads": 1, "at": [20], "checkpoint": None, "resume": None} | more)

    def hear(self) -> dict[str, Any]:
        while b"\n" not in self.rest:
            assert select.select([self.stdout], [], [], 60)[0], "the trainer says nothing"
            chunk = os.read(self.stdout.fileno(), 1 << 16)
            assert chunk, "the trainer has ended"
            self.rest += chunk
        line, _, self.rest = self.rest.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def hear_until(self, *events: str) -> list[dict[str, Any]]:
        heard = [self.hear()]
        while heard[-1]["event"] not in events:
            heard.append(self.hear())
        return [message for message in heard if message["event"] != "progress"]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.stdin.close()
        self.stdout.close()


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """One for the module: importing torch is most of a trainer's life here."""
    started = Child()
    assert started.hear()["event"] == "ready"
    yield started
    started.close()


@pytest.fixture(scope="module")
def other() -> Iterator[Child]:
    started = Child()
    yield started
    started.close()


def numbers(heard: list[dict[str, Any]]) -> list[tuple[int, float, float]]:
    return [(m["epoch"], m["loss"], m["metrics"]["mrr@20"]) for m in heard if m["event"] == "epoch"]


def test_a_fit_is_told_epoch_by_epoch(child: Child, dataset: Path) -> None:
    child.fit(dataset)
    heard = child.hear_until("done")
    assert [m["event"] for m in heard] == ["started", "epoch", "epoch", "epoch", "done"]
    assert {m["trial"] for m in heard} == {1}
    assert heard[1]["metrics"].keys() >= {"mrr@20", "recall@20"}
    assert all(m["events_per_second"] > 0 and m["peak_memory"] > 0 for m in heard[1:4])


def test_a_model_beyond_a_limit_is_not_trained(child: Child, dataset: Path) -> None:
    asked = {"also": ["parameters", "latency_ms"]}
    child.fit(dataset, **asked, constraints=["parameters<=10", "latency_ms<=1e9"])
    (heard,) = child.hear_until("failed", "done")
    assert (heard["kind"], heard["epoch"]) == ("constraint", 1)
    assert heard["message"] == f"parameters {heard['measures']['parameters']:,.0f} is above 10"
    child.fit(dataset, **asked, constraints=["parameters>=10", "latency_ms<=1e-9"])
    heard = child.hear_until("failed", "done")[-1]
    assert (heard["kind"], heard["epoch"]) == ("constraint", 2)
    assert heard["measures"].keys() == {"parameters", "latency_ms"}


def test_what_a_scheduler_tells_all_processes_is_the_slots_to_answer(
    child: Child, dataset: Path
) -> None:
    child.fit(dataset)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        child.process.send_signal(number)
    assert len(numbers(child.hear_until("done"))) == 3


def test_a_final_fit_is_judged_once_with_its_ranks(
    dataset: Path, child: Child, tmp_path: Path
) -> None:
    """And gone on from a checkpoint, too: the epochs before were judged by nobody."""
    from paropt.data.dataset import open_dataset
    from paropt.training.evaluation.bootstrap import metrics, unpack
    from paropt.training.evaluation.ranking.judging import evaluate
    from paropt.training.saved_model.saved import load_model

    child.fit(dataset, view="full", once=True, at=[1, 20], checkpoint=str(tmp_path / "1.ckpt"))
    heard = child.hear_until("done", "failed")
    assert [(m["event"], m.get("epoch")) for m in heard if m["event"] != "ready"] == [
        ("started", None),
        ("epoch", 3),
        ("done", None),
    ]
    last = next(m for m in heard if m["event"] == "epoch")
    table = unpack(last["extra"]["ranks"])
    assert table.sum() == last["targets"] and table.shape[1] == 21
    assert metrics(table, [1, 20]) == pytest.approx(last["metrics"], abs=1e-12)
    # the checkpoint of epoch 2 is still there: it goes on from that
    resume = [str(tmp_path / "1.ckpt")]
    further = {"resume": resume, "keep": str(tmp_path / "models" / "1-1")}
    child.fit(dataset, view="full", once=True, at=[1, 20], checkpoint=resume[0], **further)
    again = child.hear_until("done", "failed")
    assert again[0]["resumed_epoch"] == 2
    (epoch,) = [m for m in again if m["event"] == "epoch"]
    assert (epoch["epoch"], epoch["metrics"]) == (3, last["metrics"])
    # the model of a test is kept, and is the one that was judged
    test = open_dataset(dataset).view("full").test
    kept = load_model(tmp_path / "models" / "1-1")
    assert evaluate(kept.model, test, kept.n_items, at=[1, 20]).metrics == last["metrics"]
    assert (kept.meta["metrics"], kept.meta["split"]) == (last["metrics"], "full")
    (tmp_path / "file").touch()
    child.fit(dataset, view="full", once=True, keep=str(tmp_path / "file" / "1-1"))
    *_, warning, done = child.hear_until("done", "failed")
    assert (warning["event"], done["event"]) == ("warning", "done")
    assert warning["message"].startswith("its model is not kept: ")


def test_a_fit_begins_with_a_saved_model(child: Child, dataset: Path, tmp_path: Path) -> None:
    """The one that is meant, or the trial fails and says what to do."""
    from paropt.data.dataset import open_dataset
    from paropt.training.fitting.fit import Fit
    from paropt.training.saved_model.optimiser_state import write_optimiser
    from paropt.training.saved_model.saved import save_model
    from paropt.worker.begun_model import description, digest_of

    first = Fit("gru4rec", PARAMS, open_dataset(dataset).view("search"), seed=3)
    list(first.epochs())
    save_model(tmp_path / "m", first)
    begin = {"model": "gru4rec", "path": str(tmp_path / "m"), "digest": digest_of(tmp_path / "m")}
    child.fit(dataset)
    anew = numbers(child.hear_until("done"))
    child.fit(dataset, begin=begin)
    assert numbers(child.hear_until("done"))[0][1] < anew[0][1]  # it has learnt before
    child.fit(dataset, begin={**begin, "digest": "0" * 64})
    (failed,) = child.hear_until("failed")
    assert "copy it here and say where it is with --from" in failed["message"]
    # with what its optimiser had gathered it steps otherwise
    write_optimiser(tmp_path / "m", first.gathered())
    child.fit(dataset, begin=begin)
    without = numbers(child.hear_until("done"))
    child.fit(dataset, begin=description(tmp_path / "m", "gru4rec", keep_optimiser=True))
    assert numbers(child.hear_until("done")) != without


def test_a_second_process_goes_on_bit_for_bit(
    child: Child, other: Child, dataset: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoints" / "1-1.ckpt"
    child.fit(dataset, checkpoint=str(checkpoint), epochs=100_000)
    first = child.hear_until("epoch")
    child.send(do="yield", trial=1)
    first += child.hear_until("yielded")
    assert oct(checkpoint.stat().st_mode & 0o077) in ("0o0", "0o44")
    done = len(numbers(first))
    ready = other.hear()
    assert (ready["event"], ready["device"], ready["pid"]) == ("ready", "cpu", other.process.pid)
    successor = tmp_path / "checkpoints" / "1-2.ckpt"
    other.fit(
        dataset, trial=2, epochs=done + 2, checkpoint=str(successor), resume=[str(checkpoint)]
    )
    second = other.hear_until("done")
    assert (second[0]["resumed_epoch"], second[0]["why_from_zero"]) == (done, None)
    child.fit(dataset, trial=3, epochs=done + 2)
    whole = child.hear_until("done")
    # what the first had told is told again, and the rest is the same to the last bit
    assert numbers(second) == numbers(whole)
    assert len(numbers(whole)) == done + 2


def test_another_machine_goes_on_from_the_store(
    child: Child, other: Child, dataset: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    child.fit(
        dataset, checkpoint=str(tmp_path / "a/1-1.ckpt"), store=store.as_uri(), epochs=100_000
    )
    child.hear_until("epoch")
    child.send(do="yield", trial=1)
    done = len(numbers(child.hear_until("yielded"))) + 1
    assert sorted(path.name for path in store.iterdir()) == ["1-1.ckpt", "1-1.json"]

    def gone_on(trial: int) -> dict[str, Any]:
        checkpoint = tmp_path / f"b{trial}" / "1-3.ckpt"
        order = {"checkpoint": str(checkpoint), "resume": [], "store": store.as_uri()}
        other.fit(dataset, trial=trial, epochs=done + 1, **order)
        return next(m for m in other.hear_until("done") if m["event"] == "started")

    assert gone_on(2)["resumed_epoch"] == done
    half = (store / "1-1.ckpt").read_bytes()
    (store / "1-1.ckpt").write_bytes(half[: len(half) // 2])
    assert "b3/1-1.ckpt" in gone_on(3)["why_from_zero"]
    for path in store.iterdir():
        path.unlink()
    assert store.as_uri() in gone_on(4)["why_from_zero"]


@pytest.mark.parametrize("damage", ["cut", "changed", "history"])
def test_a_damaged_checkpoint_is_not_used(
    child: Child, dataset: Path, tmp_path: Path, damage: str
) -> None:
    checkpoint = tmp_path / "1-1.ckpt"
    child.fit(dataset, checkpoint=str(checkpoint))
    whole = child.hear_until("done")
    content = checkpoint.read_bytes()
    if damage == "cut":
        checkpoint.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        checkpoint.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    else:
        checkpoint.with_suffix(".json").write_text("{")
    child.fit(dataset, trial=2, resume=[str(checkpoint)])
    again = child.hear_until("done")
    assert again[0]["resumed_epoch"] is None
    assert "cannot be used" in again[0]["why_from_zero"]
    assert numbers(again) == numbers(whole)


def test_an_unwritable_checkpoint_is_said_once_and_training_goes_on(
    child: Child, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no directory")
    child.fit(dataset, checkpoint=str(tmp_path / "file" / "1-1.ckpt"))
    heard = child.hear_until("done")
    warnings = [m["message"] for m in heard if m["event"] == "warning"]
    assert len(warnings) == 1 and "training goes on" in warnings[0]
    assert len(numbers(heard)) == 3


def test_epochs_are_written_for_tensorboard_or_said_not_to_be(
    child: Child, dataset: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "shop" / "trial-1"
    child.fit(dataset, tensorboard=str(run), epochs=2)
    heard = child.hear_until("done", "failed")
    found = EventAccumulator(str(run)).Reload()
    for number, (_, loss, mrr) in enumerate(numbers(heard)):
        assert found.Scalars("training/loss")[number].value == pytest.approx(loss)
        assert found.Scalars("metrics/mrr@20")[number].value == pytest.approx(mrr)
    assert len(found.Scalars("training/learning_rate")) == 2
    (tmp_path / "file").write_text("")
    child.fit(dataset, tensorboard=str(tmp_path / "file" / "trial-1"), epochs=2)
    heard = child.hear_until("done", "failed")
    assert [m["event"] for m in heard] == ["started", "epoch", "warning", "epoch", "done"]
    assert "no TensorBoard events can be written" in heard[2]["message"]


def test_what_is_wrong_with_a_trial_is_an_event(child: Child, dataset: Path) -> None:
    child.fit(dataset, params=PARAMS | {"layers": -1})
    refused = child.hear_until("failed")[-1]
    assert refused["kind"] == "params" and "layers" in refused["message"]
    child.fit(dataset, trial=2, params=PARAMS | {"learning_rate": 1e20, "loss": "bpr-max"})
    diverged = child.hear_until("failed", "done")[-1]
    assert (diverged["event"], diverged.get("kind")) == ("failed", "diverged"), diverged
    child.fit(dataset, trial=3)
    assert child.hear_until("failed", "done")[-1]["event"] == "done"


def test_a_stopped_fit_leaves_no_wish_for_the_next(child: Child, dataset: Path) -> None:
    child.fit(dataset, epochs=1000)
    child.hear_until("epoch")
    child.send(do="stop", trial=1)
    assert child.hear_until("stopped", "done")[-1]["event"] == "stopped"
    child.send(do="stop", trial=1)  # too late, and meant for another trial
    child.fit(dataset, trial=2)
    assert child.hear_until("stopped", "done")[-1]["event"] == "done"


def test_it_quits_when_told_and_ends_when_nobody_listens(
    child: Child, other: Child, dataset: Path
) -> None:
    """Its stdin closes at its supervisor's death; in the middle of training, too."""
    child.fit(dataset, epochs=100_000)
    child.hear_until("epoch")
    child.stdin.close()
    child.process.wait(30)  # it had hours to go
    other.send(do="quit")
    assert other.process.wait(60) == 0


def test_it_ends_without_a_word_when_nobody_hears_it(dataset: Path, capfd: Any) -> None:
    """Its supervisor was killed, and this end of the pipes notices first."""
    child = Child()
    try:
        assert child.hear()["event"] == "ready"
        child.stdout.close()  # the other pipe stays open
        child.fit(dataset)
        assert child.process.wait(60) == 0
    finally:
        child.close()
    assert capfd.readouterr().err == ""
