"""``paropt worker``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import click

from paropt.cli._study import (
    DataVerb,
    complete_study,
    data_option,
    exit_if_sent_away,
    say,
    slot_options,
    storage_option,
    tensorboard_option,
)


@click.command(cls=DataVerb)
@click.option(
    "--study",
    required=True,
    metavar="NAME",
    shell_complete=complete_study,
    help="The study to work on.",
)
@storage_option
@data_option(
    "The study's dataset directory on this machine",
    show_default="where the study was launched with it",
)
@click.option(
    "--from",
    "begin",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    show_default="where the study was launched with it",
    help="Where the saved model lies on this machine that the study's trials begin with.",
)
@slot_options
@tensorboard_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def worker(
    study: str,
    storage: str | None,
    data: tuple[str, ...],
    begin: Path | None,
    devices: str,
    per_device: int | Literal["auto"] | None,
    checkpoint_dir: str | None,
    tensorboard: Path | None,
    as_json: bool,
) -> None:
    """Add this machine's devices to a running study.

    The password of the storage may come from PGPASSWORD or ~/.pgpass. A worker whose data or
    version would give other numbers than the study's is refused.

    \b
    paropt worker --study shop --storage postgresql://paropt@db:5432/paropt --data data/shop
    """
    from paropt.launch.launcher import work
    from paropt.launch.opening.checkpoint_place import checkpoint_place
    from paropt.launch.opening.open_study import join
    from paropt.machine.devices import device_shares
    from paropt.training.tensorboard import require, where

    slots = device_shares(devices, per_device)
    if tensorboard is not None:
        require(tensorboard)
        say(where(tensorboard))
    checkpoints = checkpoint_place(checkpoint_dir)
    with join(study, storage, data, say, begin) as opened:
        status = work(
            opened, slots, checkpoints=checkpoints, tensorboard=tensorboard, report=not as_json
        )
    if as_json:
        click.echo(json.dumps(status, indent=2))
    exit_if_sent_away(status)
