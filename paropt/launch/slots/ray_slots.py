"""``launch --on ray``: each slot is an actor that runs a worker. Ray places and restarts them.

Leases, checkpoints and fencing stay paropt's own: an actor whose node is lost is started elsewhere
by Ray, and its trial is taken over by whichever slot is free first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from paropt.errors import EXIT_OK, ParoptError
from paropt.files import readable
from paropt.launch.slots.elsewhere import Elsewhere
from paropt.launch.slots.local_slots import SlotProcess
from paropt.machine.home import paropt_home

LOCAL = "ray"  # without an address
PLACED_SECONDS = 2.0  # in which an actor that runs answers
LAST_LINES = 2000  # bytes of a worker's log that are looked at for its last word
ENV = ("PAROPT_", "AWS_", "GOOGLE_", "OMP_")  # of the launch's environment, workers get these


class SlotActor:
    """What runs on a node, as an actor: one worker with one slot, started again with the actor."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], name: str) -> None:
        place = paropt_home() / "ray"
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._log = place / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "paropt.launch.slots.dependent", *words],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> dict[str, Any]:
        """How the worker ended."""
        code = self._process.wait()
        lines = self._log.read_bytes()[-LAST_LINES:].decode(errors="replace").splitlines()
        said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
        return {
            "exit_code": max(code, -code),
            "message": said[-1] if said else "",
            "log": self._log,
        }

    def leave(self) -> None:
        """Hand the trial back; asked again, without waiting for a checkpoint."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)


class RaySlots:
    """The actors of one launch, watched like the slots of a machine. Close it at the end."""

    def __init__(
        self,
        address: str,
        study: str,
        words: Sequence[str],
        secret: Mapping[str, str],
        what: Elsewhere,
    ) -> None:
        self.slots: Sequence[SlotProcess] = ()  # none of them is this machine's
        self.endings: list[dict[str, Any]] = []
        self._study, self._words, self._what = study, list(words), what
        kept = {name: value for name, value in os.environ.items() if name.startswith(ENV)}
        for name in ("PAROPT_HOME", "PAROPT_STORAGE", "PAROPT_FIRST_SLOT", "PAROPT_CORES"):
            kept.pop(name, None)  # which say where things are here, and not there
        self._environment = {**kept, **secret, "PAROPT_CORES": str(what.cpus)}
        self._actors: list[Any] = []
        self._waiting: dict[Any, int] = {}
        self._asked = 0
        self._ray = _connected(address)

    @property
    def address(self) -> str:
        """The cluster's, for people."""
        return str(self._ray.get_runtime_context().gcs_address)

    def start(self) -> None:
        """Ask Ray for the actors; it starts each as soon as there is a place for it."""
        # an actor is pickled by value: the driver's module of that name may be of another version
        remote = self._ray.remote(SlotActor)
        for number in range(self._what.slots):
            actor = remote.options(
                num_cpus=self._what.cpus,
                num_gpus=self._what.gpus,
                max_restarts=-1,
                max_task_retries=-1,
                max_concurrency=2,  # it is told to leave while it waits for its worker
            ).remote(
                self._words,
                {**self._environment, "PAROPT_FIRST_SLOT": str(number)},
                f"{readable(self._study, 40)}-{number}",
            )
            self._actors.append(actor)
            self._waiting[actor.wait.remote()] = number

    def look(self) -> None:
        """Take note of the workers that ended."""
        if not self._waiting:
            return
        ready, _ = self._ray.wait(list(self._waiting), num_returns=len(self._waiting), timeout=0)
        for task in ready:
            self.endings.append(self._ending(task, self._waiting.pop(task)))
        if ready and any(ending["reason"] == "over" for ending in self.endings):
            self._drop(self._placed())  # nobody needs a place any more

    def _ending(self, task: Any, number: int) -> dict[str, Any]:
        try:
            told = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            told = {
                "exit_code": 0 if self._asked else 1,
                "message": f"Ray gave slot {number} up: {first}",
            }
        reason = "failed" if told["exit_code"] else "left" if self._asked else "over"
        message = (
            told["message"]
            or f"slot {number} ended with {told['exit_code']}; see {told.get('log')}"
        )
        shown = message if told["exit_code"] else ""
        return {
            "phase": "ended",
            "reason": reason,
            "message": shown,
            "exit_code": told["exit_code"],
        }

    def dismiss(self, *, hurry: bool = False) -> None:
        """Have the trials handed back. An actor that Ray could not place yet has none."""
        self._asked += 1
        placed = self._placed()
        for number in placed:
            self._actors[number].leave.remote()
        self._drop(placed)

    def _placed(self) -> set[int]:
        """Whom Ray has started: an answer to nothing comes at once from those."""
        asked = {self._actors[n].__ray_ready__.remote(): n for n in self._waiting.values()}
        if not asked:
            return set()
        ready, _ = self._ray.wait(list(asked), num_returns=len(asked), timeout=PLACED_SECONDS)
        return {asked[answer] for answer in ready}

    def _drop(self, placed: set[int]) -> None:
        """Forget those that have no place yet."""
        for task, number in list(self._waiting.items()):
            if number not in placed:
                self._waiting.pop(task)
                self._ray.kill(self._actors[number])
                ending = {"phase": "ended", "reason": "left", "message": "", "exit_code": EXIT_OK}
                self.endings.append(ending)

    @property
    def over(self) -> bool:
        """No actor is left that does something or will."""
        return not self._waiting

    def close(self) -> None:
        """Let go of the actors, and of the cluster."""
        for actor in self._actors:
            with contextlib.suppress(Exception):
                self._ray.kill(actor)
        self._ray.shutdown()


def _connected(address: str) -> Any:
    """Ray, connected to a cluster: the one that is named, that runs here, or a new one here.

    Raises:
        ParoptError: Ray is not installed, or nobody answers there.
    """
    if importlib.util.find_spec("ray") is None:
        raise ParoptError("--on ray needs the package ray: pip install 'paropt[ray]'")
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address != LOCAL:
            ray.init(address=address, **quiet)
            return ray
        with contextlib.suppress(ConnectionError):
            ray.init(address="auto", **quiet)
            return ray
        ray.init(**quiet)
    except Exception as error:  # Ray's and gRPC's own
        said = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ParoptError(f"no Ray cluster answers at {address}: {said}") from None
    return ray


def introduction(crew: RaySlots, what: Elsewhere) -> str:
    """One line on what was asked of Ray."""
    slots = f"{what.slots} slot{'s' * (what.slots > 1)}"
    gpus = f" and {what.gpus:g} GPU" if what.gpus else ""
    each = f"{what.cpus} CPU{gpus} each"
    return f"{slots} on Ray at {crew.address}, {each}; their logs are in PAROPT_HOME/ray there"
