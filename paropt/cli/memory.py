"""``paropt memory``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from paropt.cli._study import say
from paropt.cli._training import DIRECTORY

MIB = 1 << 20


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--user", metavar="ID", help="Show one user's row; with --reset, forget him alone.")
@click.option("--reset", is_flag=True, help="Let the model forget everything, or --user.")
@click.option("--export", "file", type=DIRECTORY, metavar="FILE", help="Write all rows as Parquet.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def memory(
    directory: Path, user: str | None, reset: bool, file: Path | None, as_json: bool
) -> None:
    """Show, export or reset what a saved model remembers beside its weights.

    \b
    paropt memory shop
    paropt memory shop --export memory.parquet
    paropt memory shop --user 4711
    paropt memory shop --reset --user 4711
    paropt memory shop --reset
    """
    from paropt.results.words import counted
    from paropt.training.fitting.memory import digest, facts_of, forget
    from paropt.training.recommending.memory_rows import export, forget_user, one_user
    from paropt.training.saved_model.saved import load_model

    saved = load_model(directory)
    before = facts_of(saved.model)
    if file is not None:
        say(f"{counted(export(saved, directory, file), 'row')} written to {file}")
    if reset and user is not None:
        say(f"{counted(forget_user(saved, directory, user), 'row')} forgotten")
    elif reset:
        forget(directory, saved.meta, saved.model)
        say(f"{counted(before.rows if before else 0, 'row')} forgotten")
    facts = facts_of(saved.model)
    found: dict[str, Any] = {"model": saved.meta["model"], "memory": None}
    if facts is not None:
        found["memory"] = facts.to_json() | {"sha256": digest(saved.model.memory())}
    if user is not None and not reset:
        found["user"] = one_user(saved, directory, user)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    if facts is None:
        click.echo(f"{saved.meta['model']} keeps no memory")
        return
    click.echo(f"{saved.meta['model']} remembers {facts.rows:,} of at most {facts.most:,} rows")
    for name, shape in facts.shapes.items():
        click.echo(f"  {name}: {' × '.join(map(str, shape))}")
    for name, value in facts.says.items():
        click.echo(f"  {name}: {value:g}")
    click.echo(f"{facts.bytes / MIB:,.1f} MiB, sha256 {found['memory']['sha256']}")
    if "user" in found:
        _show_user(user or "", found["user"])


def _show_user(user: str, row: dict[str, Any] | None) -> None:
    if row is None:
        click.echo(f"nothing is remembered of user {user}")
        return
    told = {name: value for name, value in row.items() if not isinstance(value, list)}
    click.echo(f"user {user}: " + ", ".join(f"{name} {value}" for name, value in told.items()))
