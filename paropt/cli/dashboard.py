"""``paropt dashboard``."""

from __future__ import annotations

from pathlib import Path

import click

from paropt.cli._study import storage_option


@click.command()
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen.")
@click.option("--port", default=8080, type=click.IntRange(0, 65535), help="0: any free one.")
@storage_option
@click.option(
    "--token",
    envvar="PAROPT_DASHBOARD_TOKEN",
    show_envvar=True,
    metavar="TEXT",
    help="What lets people in, instead of a new one; a shell remembers options, "
    "so prefer the variable.",
)
@click.option("--no-token", is_flag=True, help="Let every user of this machine in.")
@click.option("--writable", is_flag=True, help="Let people delete, rename and annotate.")
@click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Another name of this server (a proxy's)."
)
@click.option(
    "--artifacts",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Files that trials uploaded.",
)
def dashboard(
    host: str,
    port: int,
    storage: str | None,
    token: str | None,
    no_token: bool,
    writable: bool,
    allow_host: tuple[str, ...],
    artifacts: Path | None,
) -> None:
    """Serve optuna-dashboard over the studies.

    Open the address that it prints: the token in it lets you in. Ctrl-C ends it.

    \b
    paropt dashboard
    paropt dashboard --host 0.0.0.0 --port 9000
    """
    from paropt.dashboard.server import Dashboard, serve_until_signal
    from paropt.storage.connect import open_storage

    with open_storage(storage) as opened:
        served = Dashboard(
            opened,
            host=host,
            port=port,
            token="" if no_token else token or None,
            allowed=allow_host,
            writable=writable,
            artifacts=artifacts,
        )
        click.echo(served.url)
        click.echo(f"{opened.describe()}; Ctrl-C ends it", err=True)
        serve_until_signal(served)
