"""``paropt stop``, ``pause`` and ``resume``."""

from __future__ import annotations

import click

from paropt.cli._study import complete_study, storage_option


@click.command()
@click.argument("study", shell_complete=complete_study)
@click.option("--host", metavar="NAME", help="Only release this machine's slots.")
@click.option("--slot", metavar="ID", help="Only release this slot (an id of paropt status).")
@storage_option
def stop(study: str, host: str | None, slot: str | None, storage: str | None) -> None:
    """End a study: trials are handed back, workers leave.

    With --host or --slot only those slots leave, and the study goes on elsewhere.

    \b
    paropt stop shop
    paropt stop shop --host gpu7
    """
    from paropt.terminal import control

    if host or slot:
        click.echo(control.release(study, storage, host=host, slot=slot), err=True)
    else:
        click.echo(control.steer(study, storage, "stop"), err=True)


@click.command()
@click.argument("study", shell_complete=complete_study)
@storage_option
def pause(study: str, storage: str | None) -> None:
    """Pause a study: trials are handed back, workers wait.

    \b
    paropt pause shop
    """
    from paropt.terminal import control

    click.echo(control.steer(study, storage, "pause"), err=True)


@click.command()
@click.argument("study", shell_complete=complete_study)
@storage_option
def resume(study: str, storage: str | None) -> None:
    """Let a paused or stopped study go on.

    Workers that wait go on by themselves; those that left are started with launch or worker.

    \b
    paropt resume shop
    """
    from paropt.terminal import control

    click.echo(control.steer(study, storage, "run"), err=True)
