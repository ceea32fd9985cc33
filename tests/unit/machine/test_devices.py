"""Devices and how slots are spread over them; device locks; slot files; checkpoint files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from paropt.errors import ParoptError
from paropt.machine import devices
from paropt.machine.slot_files import SlotFiles, slots_directory
from paropt.worker.checkpoints import Checkpoints
from paropt.worker.device_lock import DeviceLock

GPUS = "GPU-aaaa, NVIDIA H100\nGPU-bbbb, NVIDIA H100\nGPU-cccc, NVIDIA A10\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``machine(cores, gpus)`` makes this one look like another."""

    def look(cores: int, gpus: str = "", visible: str | None = None) -> None:
        answer = subprocess.CompletedProcess([], 0 if gpus else 9, gpus, "")
        monkeypatch.setattr(devices.subprocess, "run", lambda *_, **__: answer)
        monkeypatch.setattr(devices, "usable_cores", lambda: cores)
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return look


def spread(found: list[devices.DeviceShare]) -> list[tuple[str, int]]:
    return [(share.name, share.threads) for share in found]


def test_cores_are_divided_not_oversubscribed(machine: Any) -> None:
    machine(cores=2)
    assert spread(devices.device_shares()) == [("cpu-0", 1), ("cpu-1", 1)]
    assert spread(devices.device_shares("cpu", 1)) == [("cpu-0", 2)]
    assert spread(devices.device_shares("cpu", 3)) == [("cpu-0", 1), ("cpu-1", 1), ("cpu-2", 1)]
    machine(cores=64)
    assert spread(devices.device_shares()) == [(f"cpu-{i}", 8) for i in range(8)]
    environment = devices.device_shares()[0].environment
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "8"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""


def test_gpus_come_first_one_slot_each(machine: Any) -> None:
    machine(cores=16, gpus=GPUS)
    assert spread(devices.device_shares()) == [("gpu0-0", 5), ("gpu1-0", 5), ("gpu2-0", 5)]
    assert spread(devices.device_shares("2,0", 2)) == [
        ("gpu2-0", 4),
        ("gpu2-1", 4),
        ("gpu0-0", 4),
        ("gpu0-1", 4),
    ]
    begun = devices.device_shares("2,0", "auto")
    assert spread(begun) == [("gpu2-0", 1), ("gpu0-0", 1)]
    assert all(share.packed for share in begun)
    assert not any(share.packed for share in devices.device_shares())
    assert devices.device_shares("2")[0].environment["CUDA_VISIBLE_DEVICES"] == "GPU-cccc"
    assert devices.device_shares("cpu")[0].device.kind == "cpu"
    assert devices.device_shares()[0].device.kind == "cuda"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("", []),
        ("2,0", ["GPU-cccc", "GPU-aaaa"]),
        ("GPU-bb", ["GPU-bbbb"]),
        ("1,7,0", ["GPU-bbbb"]),
    ],
)
def test_only_visible_gpus_are_used(machine: Any, visible: str, expected: list[str]) -> None:
    """Numbered as torch numbers them; what CUDA does not know ends its list."""
    machine(cores=4, gpus=GPUS, visible=visible)
    assert [device.visible for device in devices.find_gpus()] == expected


@pytest.mark.parametrize(
    ("asked", "words"), [("3", "GPUs 0 to 2"), ("gpu0", "auto, cpu, or"), ("0,", "auto, cpu, or")]
)
def test_devices_that_are_not_there(machine: Any, asked: str, words: str) -> None:
    machine(cores=4, gpus=GPUS)
    with pytest.raises(ParoptError, match=words):
        devices.device_shares(asked)
    machine(cores=4)
    with pytest.raises(ParoptError, match=r"no GPU here|auto, cpu"):
        devices.device_shares("0" if asked == "3" else asked)


def test_who_waits_to_be_alone_gets_in_before_newcomers(tmp_path: Path) -> None:
    first, second, third = (DeviceLock(tmp_path, "gpu0") for _ in range(3))
    assert first.try_enter(alone=False) and second.try_enter(alone=False)
    assert not third.try_enter(alone=True)
    second.leave()
    # third stands in the lock now
    assert not second.try_enter(alone=False)
    assert not third.try_enter(alone=True)
    first.leave()
    assert third.try_enter(alone=True)
    assert not first.try_enter(alone=False)
    third.leave()
    assert first.try_enter(alone=False) and second.try_enter(alone=False)
    for lock in (first, second, third):
        lock.close()


def test_slot_files_are_for_one_slot(tmp_path: Path) -> None:
    files = SlotFiles(tmp_path / "slots", "cpu-0")
    assert not files.taken() and files.state() == {}
    lock = files.take()
    assert lock is not None
    assert files.taken() and files.take() is None
    assert oct((tmp_path / "slots").stat().st_mode & 0o777) == "0o700"
    files.show({"phase": "training"})
    assert (files.state()["phase"], files.state()["pid"]) == ("training", os.getpid())
    files.file("state").write_text("{")
    assert files.state() == {}
    os.close(lock)
    assert not files.taken()


def test_studies_of_one_name_in_two_storages_have_their_own_slot_files(tmp_path: Path) -> None:
    one = slots_directory(tmp_path, "postgresql://a/x", "my shop/../1")
    two = slots_directory(tmp_path, "postgresql://b/x", "my shop/../1")
    assert one != two and one.parent == two.parent == tmp_path / "slots"


def test_an_attempt_reads_what_came_before_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for name in ("7-1.ckpt", "7-1.json", "7-2.ckpt", "7-3.ckpt", "17-1.ckpt", ".7-1.ckpt.99", "x"):
        (tmp_path / name).write_bytes(b"12")
    assert [path.name for path in checkpoints.usable(7, 2)] == ["7-2.ckpt", "7-1.ckpt"]
    assert checkpoints.path(7, 4) == tmp_path / "7-4.ckpt"
    assert checkpoints.size() == 12
    checkpoints.remove(7, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["17-1.ckpt", "x"]
    checkpoints.sweep({17})
    assert (tmp_path / "17-1.ckpt").exists()
    checkpoints.sweep(set())
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert Checkpoints(tmp_path / "nowhere").usable(1, 1) == []


def test_an_attempt_reads_what_an_earlier_version_kept_elsewhere(tmp_path: Path) -> None:
    here, before = tmp_path / "here", tmp_path / "before"
    checkpoints = Checkpoints(here, before)
    for path in (before / "7-1.ckpt", before / "8-1.ckpt", here / "7-2.ckpt"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12")
    assert checkpoints.usable(7, 3) == [here / "7-2.ckpt", before / "7-1.ckpt"]
    assert checkpoints.path(7, 3) == here / "7-3.ckpt" and checkpoints.size() == 6
    checkpoints.sweep({7})
    checkpoints.remove(7, 3)
    assert not list(here.iterdir()) and not list(before.iterdir())
