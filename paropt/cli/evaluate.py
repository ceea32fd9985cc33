"""``paropt evaluate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._log_options import options_of
from paropt.cli._study import DataVerb, data_option, directory_of, say
from paropt.cli._training import DIRECTORY, judging_options, show
from paropt.training.evaluation.protocol import CANDIDATES

if TYPE_CHECKING:
    from paropt.launch.data.data_source import Given

FILE = click.Path(path_type=Path)


@click.command(cls=DataVerb)
@click.argument("directory", metavar="MODEL", type=DIRECTORY)
@click.argument("more", nargs=-1, metavar="[FILE]...", type=FILE)
@data_option("A dataset directory", or_files="--test")
@click.option(
    "--test",
    multiple=True,
    type=FILE,
    metavar="FILE [FILE …]",
    help="Event files that are a test set as they are: nothing is split, cleaned or left out.",
)
@click.option(
    "--with",
    "others",
    multiple=True,
    type=DIRECTORY,
    metavar="MODEL",
    help="Average its scores too: another seed, or an earlier epoch; repeatable.",
)
@click.option(
    "--split",
    type=click.Choice(["search", "full"]),
    show_default="the model's own",
    help="search: test on valid; full: test on test.",
)
@click.option(
    "--candidates",
    type=click.Choice(CANDIDATES),
    default=CANDIDATES[0],
    help="all items; or the target and 99 that are drawn, which is for comparison with old "
    "numbers: --no-filter-seen lets items of the history be drawn.",
)
@judging_options
def evaluate(
    directory: Path,
    more: tuple[Path, ...],
    data: Given,
    test: tuple[Path, ...],
    others: tuple[Path, ...],
    split: str | None,
    candidates: str,
    as_json: bool,
    log: dict[str, Any] | None = None,
    **judging: Any,
) -> None:
    """Test a saved model, on a dataset or on files.

    Files after --test are each a test set of its own, read as the log that the model was trained
    on: of every session each event after the first is predicted, and items that training never
    saw are left out and counted.

    \b
    paropt evaluate shop --data data/shop --at 1,5,10,20
    paropt evaluate shop --test monday.tsv tuesday.tsv
    paropt evaluate shop --with shop-seed-2 --with shop-seed-3 --data data/shop
    """
    from paropt.training.evaluate_saved import evaluate_files, evaluate_saved
    from paropt.training.evaluation.choose_objective import more_metrics
    from paropt.training.saved_model.header import read_header

    _check_usage(data, test, more, split, judging["cold_items"])
    if candidates != CANDIDATES[0] and (test or judging["cold_items"]):
        raise click.UsageError(f"--candidates {candidates} is of a dataset, and without cold items")
    judging |= {"also": more_metrics(judging["also"]), "others": others}
    if not test:
        outcome = evaluate_saved(
            directory,
            directory_of(data),
            split=split,
            candidates=candidates,
            note=say,
            **judging,
        )
        if outcome.split != "search":
            from paropt.results.final.looks_here import model_of_a_final_test, note_look

            models = [read_header(path).meta for path in (directory, *others)]
            if not all(model_of_a_final_test(meta, outcome.fingerprint) for meta in models):
                say(note_look(outcome, [str(other.resolve()) for other in others]))
        show(outcome, as_json)
        return
    del judging["cold_items"]
    files = [*test, *more]
    options = options_of(log or {})
    found = evaluate_files(directory, files, options, note=say, **judging)
    if as_json:
        told = [{"file": str(f), **asdict(one)} for f, one in zip(files, found, strict=True)]
        click.echo(json.dumps(told, indent=1))
        return
    for file, outcome in zip(files, found, strict=True):
        click.echo(f"\n{file}" if len(files) > 1 else str(file))
        show(outcome, as_json)


def _check_usage(
    data: Given,
    test: tuple[Path, ...],
    more: tuple[Path, ...],
    split: str | None,
    cold_items: bool,
) -> None:
    if bool(data) == bool(test):
        raise click.UsageError("give either --data DIR or --test FILE")
    if more and not test:
        raise click.UsageError(f"unexpected extra argument ({more[0]}); files follow --test")
    if test and cold_items:
        raise click.UsageError("--cold-items is of a dataset; leave it out with --test")
    if test and split:
        raise click.UsageError("--split is of a dataset; leave it out with --test")
