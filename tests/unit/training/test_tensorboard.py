"""TensorBoard's event files, read back with TensorBoard's own reader."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.training import tensorboard
from paropt.training.evaluation.epochs import EpochReport
from paropt.training.tensorboard import EventFile

accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

SIMILARITY = {"positive": 0.5, "auc": 0.75, "positive_histogram": [1, 0, 2, 5]}
EXPERTS = [{"load": [0.75, 0.25], "dead": 0}, {"load": [0.5, 0.5], "dead": 1}]


def epoch(number: int, **more: Any) -> EpochReport:
    metrics = {"mrr@20": 0.1 * number}
    return EpochReport(number, metrics, loss=2.0 / number, seconds=1.5, **more)


def read(run: Path) -> Any:
    everything = accumulator.STORE_EVERYTHING_SIZE_GUIDANCE
    found = accumulator.EventAccumulator(str(run), size_guidance=everything)
    found.Reload()
    return found


def curve(found: Any, tag: str) -> list[tuple[int, float]]:
    return [(one.step, pytest.approx(one.value, rel=1e-6)) for one in found.Scalars(tag)]


def silent(sentence: str) -> None:
    pytest.fail(sentence)


def test_an_epochs_figures_are_read_back(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "run", silent)
    extra = {"similarity": SIMILARITY, "experts": EXPERTS, "memory": {"rows": 7}, "note": "text"}
    events.write(epoch(1, extra=extra), 0.01)
    events.write(epoch(2, peak_memory=1024), 0.005)
    found = read(tmp_path / "run")
    assert curve(found, "metrics/mrr@20") == [(1, 0.1), (2, 0.2)]
    assert curve(found, "training/loss") == [(1, 2.0), (2, 1.0)]
    assert curve(found, "training/learning_rate") == [(1, 0.01), (2, 0.005)]
    assert curve(found, "training/peak_memory") == [(2, 1024)]
    assert curve(found, "similarity/auc") == [(1, 0.75)]
    assert curve(found, "experts/1/load/1") == [(1, 0.75)]
    assert curve(found, "experts/2/dead") == [(1, 1)]
    assert curve(found, "memory/rows") == [(1, 7)]
    (seen,) = found.Histograms("similarity/positive_histogram")
    cosines = seen.histogram_value
    assert cosines.bucket_limit == [-0.5, 0, 0.5, 1] and cosines.bucket == [1, 0, 2, 5]
    assert (cosines.num, cosines.sum) == (8, -0.75 + 2 * 0.25 + 5 * 0.75)
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_what_a_resumed_training_repeats_is_shown_once(tmp_path: Path) -> None:
    first = EventFile(tmp_path, silent)
    for number in (1, 2, 3):
        first.write(epoch(number))
    # its checkpoint was of epoch 2: the third is trained again
    second = EventFile(tmp_path, silent)
    second.resume([epoch(1).to_json(), epoch(2).to_json()])
    for number in (3, 4):
        second.write(EpochReport(number, {"mrr@20": 0.5}))
    assert len(list(tmp_path.iterdir())) == 2
    expected = [(1, 0.1), (2, 0.2), (3, 0.5), (4, 0.5)]
    assert curve(read(tmp_path), "metrics/mrr@20") == expected


def test_on_another_machine_it_begins_with_what_was_before(tmp_path: Path) -> None:
    events = EventFile(tmp_path / "here", silent)
    events.resume([epoch(1).to_json(), epoch(2).to_json()])
    events.write(epoch(3))
    expected = [(1, 0.1), (2, 0.2), (3, pytest.approx(0.3))]
    assert curve(read(tmp_path / "here"), "metrics/mrr@20") == expected


def test_what_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    events = EventFile(tmp_path / "file" / "run", said.append)
    events.write(epoch(1))
    events.write(epoch(2))
    assert len(said) == 1 and "Not a directory; training goes on without" in said[0]
    full = EventFile(tmp_path, said.append)
    full.path = Path("/dev/full")  # as a disk that fills up between two epochs
    full.write(epoch(1))
    full.write(epoch(2))
    assert len(said) == 2 and "No space left on device" in said[1]


def test_each_trial_and_training_has_a_folder(tmp_path: Path) -> None:
    assert tensorboard.of_trial(tmp_path, "shop", 7) == tmp_path / "shop" / "trial-7"
    assert tensorboard.of_trial(tmp_path, "../a b", 0).parent.parent == tmp_path
    assert tensorboard.of_training(tmp_path / "new") == tmp_path / "new" / "train-1"
    for name in ("train-2", "train-x", "train-10"):
        (tmp_path / name).mkdir()
    assert tensorboard.of_training(tmp_path) == tmp_path / "train-11"


def test_a_place_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboard.require(tmp_path / "not" / "yet")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(ParoptError, match="file is a file, not a directory"):
        tensorboard.require(tmp_path / "file" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ParoptError, match="cannot be written to"):
        tensorboard.require(tmp_path)
    monkeypatch.setattr(tensorboard, "find_spec", lambda _: None)
    with pytest.raises(ParoptError, match=r"pip install 'paropt\[tensorboard\]'"):
        tensorboard.require(tmp_path)
