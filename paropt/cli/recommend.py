"""``paropt recommend``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from paropt.cli._training import DIRECTORY


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--sessions",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Events of sessions: TSV, CSV or Parquet.",
)
@click.option("--top", type=click.IntRange(min=1), default=20, help="Items for each session.")
@click.option("--session-key", default="SessionId", help="Column of sessions or users.")
@click.option("--item-key", default="ItemId", help="Column of items.")
@click.option("--time-key", default="Time", help="Column of times.")
@click.option("--order-column", help="Column of the order, where there are no times.")
@click.option("--user-key", help="Column of users, where the model knows them.")
@click.option("--filter-seen", is_flag=True, help="Leave out the items of the session.")
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per session.")
def recommend(
    directory: Path,
    sessions: Path,
    top: int,
    session_key: str,
    item_key: str,
    time_key: str,
    order_column: str | None,
    user_key: str | None,
    filter_seen: bool,
    device: str,
    as_json: bool,
) -> None:
    """Next items for the sessions of a file.

    \b
    paropt recommend shop --sessions live.tsv --top 20
    """
    from paropt.training.recommending import read_sessions, recommend
    from paropt.training.saved import load_model

    saved = load_model(directory, device)
    asked = read_sessions(
        sessions,
        saved.item_ids,
        session_key=session_key,
        item_key=item_key,
        time_key=time_key,
        order_column=order_column,
        user_key=user_key,
        knowledge=saved.knowledge,
    )
    for line in asked.notes:
        click.echo(line, err=True)
    for session in asked.empty:
        click.echo(f"session {session} has no item that the model knows", err=True)
    if not as_json:
        click.echo("session\trank\titem\tscore")
    for found in recommend(saved, asked, top, filter_seen):
        if as_json:
            pairs = zip(found.items, found.scores, strict=True)
            items = [{"item": item, "score": score} for item, score in pairs]
            click.echo(json.dumps({"session": found.session, "items": items}))
            continue
        ranked = enumerate(zip(found.items, found.scores, strict=True), 1)
        for rank, (item, score) in ranked:
            click.echo(f"{found.session}\t{rank}\t{item}\t{score:.6g}")
