"""Options that say how trials are judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def metric_option(default: str, help: str) -> Callable[[Function], Function]:
    """``--metric``: what is looked for."""
    return click.option(
        "--metric",
        metavar="NAME|SUM",
        show_default=default,
        help=f"{help} recall@k (hr@k, hit@k), mrr@k, ndcg@k, mrr, avg_rank, what a model reports "
        "of its own, or a sum such as 0.31*hr@10+0.69*ndcg@10.",
    )


also_option = click.option(
    "--also",
    multiple=True,
    metavar="NAME,…",
    help="What to report beside: mrr, avg_rank, coverage@k, gini@k, novelty@k, popularity_lift@k, "
    "parameters, model_bytes, latency_ms, peak_memory, seconds_per_epoch; repeatable.",
)


def protocol_options(ties: str, filtered: str) -> Callable[[Function], Function]:
    """How next items are judged; what is so if nothing is said."""
    options = [
        click.option(
            "--ties",
            type=click.Choice(["standard", "conservative", "median"]),
            show_default=ties,
            help="Where a target stands among items of the same score.",
        ),
        click.option(
            "--filter-seen/--no-filter-seen",
            default=None,
            show_default=filtered,
            help="Whether items of the history are no candidates.",
        ),
    ]

    def both(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return both
