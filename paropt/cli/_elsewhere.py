"""``launch --on slurm|ray``: slots that a scheduler places."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._study import say

if TYPE_CHECKING:
    from paropt.launch.opening.checkpoint_place import Place
    from paropt.launch.opening.open_study import OpenedStudy
    from paropt.launch.slots.elsewhere import Elsewhere


@dataclass(frozen=True)
class Scheduler:
    """What ``--on`` and the options beside it said."""

    on: str
    what: Elsewhere
    sbatch: str
    print_script: bool

    def check_reach(self, storage: str | None, listen: str | None) -> None:
        """Raises a ParoptError where slots on other machines could not reach the database."""
        from paropt.launch.slots.elsewhere import check_reach

        check_reach(storage, listen)

    @property
    def returns(self) -> bool:
        """Whether the launch ends at once, while its slots begin."""
        return self.on == "slurm"


def elsewhere_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--on`` and what belongs to it; the verb gets it as ``scheduler``, None without ``--on``."""

    @functools.wraps(function)
    def call(
        *args: Any,
        on: str | None,
        slots: int | None,
        gpus_per_slot: float | None,
        cpus_per_slot: int | None,
        sbatch: str | None,
        print_script: bool,
        **given: Any,
    ) -> Any:
        said = (slots, gpus_per_slot, cpus_per_slot, sbatch, print_script or None)
        if on is None:
            if any(value is not None for value in said):
                raise click.UsageError(
                    "--slots, --gpus-per-slot, --cpus-per-slot, --sbatch and --print-script "
                    "belong to --on slurm or --on ray"
                )
            return function(*args, scheduler=None, **given)
        from paropt.launch.slots.elsewhere import asked_for

        what = asked_for(on, slots, gpus_per_slot or 0.0, cpus_per_slot or 1)
        if on != "slurm" and (sbatch or print_script):
            raise click.UsageError("--sbatch and --print-script belong to --on slurm")
        scheduler = Scheduler(on, what, sbatch or "", print_script)
        return function(*args, scheduler=scheduler, **given)

    options = [
        click.option(
            "--on",
            metavar="slurm|ray[://ADDRESS]",
            help="Have a scheduler place the slots, on its machines.",
        ),
        click.option("--slots", type=click.IntRange(min=1), help="How many, with --on."),
        click.option(
            "--gpus-per-slot",
            type=click.FloatRange(min=0),
            metavar="N",
            show_default="0: the CPU",
            help="What each gets, with --on; on Ray also 0.5.",
        ),
        click.option(
            "--cpus-per-slot",
            type=click.IntRange(min=1),
            metavar="N",
            show_default="1",
            help="What each gets, with --on.",
        ),
        click.option(
            "--sbatch",
            metavar="OPTIONS",
            help="Your site's options of sbatch: '-p gpu -t 4:00:00'.",
        ),
        click.option(
            "--print-script",
            is_flag=True,
            help="Print the script for sbatch instead of calling it.",
        ),
    ]
    for option in reversed(options):
        call = option(call)
    return call


def run_elsewhere(
    scheduler: Scheduler,
    opened: OpenedStudy,
    checkpoints: Place | None,
    tensorboard: Path | None,
    report: bool,
) -> dict[str, Any]:
    """Give the study's slots to the scheduler; the study's last status, as far as we look on."""
    from paropt.launch.slots import elsewhere

    words = elsewhere.worker_words(opened, scheduler.what, checkpoints, tensorboard)
    secret = elsewhere.password(opened)
    if scheduler.on == "slurm":
        return _slurm(scheduler, opened, words, secret)
    from paropt.launch.launcher import look_on
    from paropt.launch.slots import ray_slots

    crew = ray_slots.RaySlots(scheduler.on, opened.study.name, words, secret, scheduler.what)
    told = ray_slots.introduction(crew, scheduler.what)
    return look_on(opened, crew, told, None, floor=True, report=report)


def _slurm(
    scheduler: Scheduler, opened: OpenedStudy, words: list[str], secret: dict[str, str]
) -> dict[str, Any]:
    from paropt.launch.launcher import compute_floor
    from paropt.launch.slots import slurm
    from paropt.names import quoted
    from paropt.terminal.status import study_status

    name = opened.study.name
    text = slurm.script(name, words, scheduler.what, scheduler.sbatch)
    if scheduler.print_script:
        click.echo(text, nl=False)
        return {}
    job = slurm.submit(text, secret)
    if (floor := compute_floor(opened)) is not None:
        say("computing what needs no training; the jobs do not wait for it")
        floor.join()
    status = {**study_status(opened.storage, opened.study), "job": job}
    count = scheduler.what.slots
    say(
        f"job array {job} has {count} slot{'s' * (count > 1)}; {quoted('status', name, '--watch')} "
        f"looks on, 'scancel {job}' hands the trials back, and launching again goes on"
    )
    if opened.storage.is_embedded:
        say("the database is there as long as a paropt process runs on this machine: keep one")
    return status
