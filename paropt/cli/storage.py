"""``paropt storage``."""

from __future__ import annotations

import click

from paropt.cli._study import say, storage_option
from paropt.names import quoted


@click.command()
@click.option("--url", "as_url", is_flag=True, help="Print its URL, as Optuna's own tools take it.")
@click.option("--password", is_flag=True, help="With the password in the URL: mind who sees it.")
@storage_option
def storage(as_url: bool, password: bool, storage: str | None) -> None:
    """Show where studies are kept.

    Without --password the URL has none: give it in PGPASSWORD, or in ~/.pgpass.

    \b
    paropt storage
    paropt storage --url
    optuna studies --storage "$(paropt storage --url --password)"
    """
    from paropt.storage.connect import open_storage, show

    if password and not as_url:
        raise click.UsageError("--password is a part of --url; give both")
    with open_storage(storage) as opened:
        if not as_url:
            click.echo(opened.describe())
        elif password:
            plain = opened.url.set(drivername="postgresql")
            click.echo(plain.render_as_string(hide_password=False))
        else:
            click.echo(show(opened.url))
        if opened.is_embedded and as_url:
            kept = quoted("status", "--watch")
            say(f"the embedded server stops with the last paropt process; {kept} keeps it there")
