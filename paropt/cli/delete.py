"""``paropt delete``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from paropt.cli._study import complete_study, say, storage_option


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY…", shell_complete=complete_study)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.option(
    "--checkpoint-dir",
    type=click.Path(file_okay=False),
    show_default="under PAROPT_HOME",
    metavar="DIR",
    help="Where its checkpoints are, if launch was told so.",
)
@storage_option
def delete(
    studies: tuple[str, ...], yes: bool, checkpoint_dir: str | None, storage: str | None
) -> None:
    """Delete studies, with their final tests and checkpoints.

    A study that slots work on is refused; stop it first. That somebody looked at a test set stays
    counted.

    \b
    paropt delete shop
    paropt delete trial-run old-run --yes
    """
    from paropt.machine.remote import is_url
    from paropt.storage.connect import open_storage
    from paropt.terminal import deletion

    if checkpoint_dir and is_url(checkpoint_dir):
        raise click.UsageError(
            "--checkpoint-dir: the last slot of a study has removed its checkpoints from a store; "
            "what a killed one left, in the folder STUDY-…, the store's own tools remove"
        )
    checkpoints = Path(checkpoint_dir) if checkpoint_dir else None
    with open_storage(storage) as opened:
        doomed = deletion.look_up(opened, studies)
        if not yes:
            _ask(", ".join(map(str, doomed)))
        for study in doomed:
            deletion.delete(opened, study, checkpoints)
            say(f"{study} is deleted")


def _ask(what: str) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would delete {what}; add --yes to do so")
    click.confirm(f"delete {what}?", abort=True, err=True)
