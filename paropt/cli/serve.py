"""``paropt serve``."""

from __future__ import annotations

from pathlib import Path

import click

from paropt.cli._study import say
from paropt.cli._training import DIRECTORY
from paropt.serving.limits import Limits

AT_MOST = Limits()


@click.command()
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=DIRECTORY,
    metavar="DIR",
    help="Average this model's scores too: another seed, or an earlier epoch; repeatable.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    help="The address to listen on; any other than this machine's own is open to whoever reaches "
    "it, without password or TLS.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, help="0: one that is free, and is said."
)
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run.")
@click.option(
    "--threads", type=click.IntRange(min=1), show_default="all cores", help="CPU threads."
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=AT_MOST.batch,
    help="Sessions that are answered together at most.",
)
@click.option(
    "--max-waiting",
    type=click.IntRange(min=1),
    default=AT_MOST.waiting,
    help="Sessions that may wait; who comes then is sent away (503).",
)
@click.option(
    "--max-body", type=click.IntRange(min=1), default=AT_MOST.body, help="Bytes of a request."
)
@click.option(
    "--max-sessions",
    type=click.IntRange(min=1),
    default=AT_MOST.sessions,
    help="Sessions of a request.",
)
@click.option(
    "--max-items",
    type=click.IntRange(min=1),
    default=AT_MOST.events,
    help="Items of a session.",
)
@click.option(
    "--max-top", type=click.IntRange(min=1), default=AT_MOST.top, help="Items that are asked for."
)
@click.option(
    "--max-listed",
    type=click.IntRange(min=1),
    default=AT_MOST.listed,
    help="Ids in a list of candidates, or of items to leave out.",
)
def serve(
    directory: Path,
    others: tuple[Path, ...],
    host: str,
    port: int,
    device: str,
    threads: int | None,
    batch: int,
    max_waiting: int,
    max_body: int,
    max_sessions: int,
    max_items: int,
    max_top: int,
    max_listed: int,
) -> None:
    """Answer over HTTP what comes next in a session.

    POST /recommend takes sessions as JSON and gives the best items with their scores; GET /health
    says what is served, GET /metrics counts for Prometheus. Requests that come at the same time
    are answered together. Nothing of them is kept. docs/serve.md has all fields.

    \b
    paropt serve models/shop
    paropt serve models/seed-1 --with models/seed-2 --port 9000 --threads 2
    curl localhost:8080/recommend -d '{"items": ["214716935", "214832672"], "top": 5}'
    """
    from paropt.serving.server import ServeRequest, serve

    limits = Limits(
        body=max_body,
        sessions=max_sessions,
        events=max_items,
        top=max_top,
        listed=max_listed,
        batch=batch,
        waiting=max_waiting,
    )
    serve(ServeRequest([directory, *others], host, port, device, threads, limits), say)
