"""``paropt evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paropt.cli._study import DataVerb, data_option, directory_of, say
from paropt.cli._training import DIRECTORY, judging_options, show


@click.command(cls=DataVerb)
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@data_option("A dataset directory", required=True)
@click.option(
    "--split",
    type=click.Choice(["search", "full"]),
    show_default="the model's own",
    help="search: test on valid; full: test on test.",
)
@judging_options
def evaluate(
    directory: Path, data: tuple[str, ...], split: str | None, as_json: bool, **judging: Any
) -> None:
    """Test a saved model.

    \b
    paropt evaluate shop --data data/shop --at 1,5,10,20
    """
    from paropt.training import train_and_test
    from paropt.training.wanted import more_metrics

    judging["also"] = more_metrics(judging["also"])
    outcome = train_and_test.test(
        directory,
        directory_of(data),
        split=split,
        note=say,
        **judging,
    )
    show(outcome, as_json)
