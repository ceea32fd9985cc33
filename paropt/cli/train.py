"""``paropt train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from paropt.cli._study import DataVerb, data_option, directory_of, say, tensorboard_option
from paropt.cli._training import DIRECTORY, judging_options, progress, show


class _Whole(click.Option):
    """An option that counts how often it is said, and is one word in the environment."""

    def value_from_envvar(self, ctx: click.Context) -> Any | None:
        said = self.resolve_envvar_value(ctx)
        return None if said is None else (said,)


def _once(ctx: click.Context, option: click.Parameter, said: tuple[str, ...]) -> str | None:
    """Of two the last would do, and a paramfile before it be lost without a word."""
    if len(said) > 1:
        raise click.BadParameter(
            "say it once: a paramfile, or parameters K=V,… that replace all of it", ctx, option
        )
    return said[0] if said else None


@click.command(cls=DataVerb)
@click.option(
    "--params",
    cls=_Whole,
    multiple=True,
    callback=_once,
    metavar="FILE|NAME|K=V,…",
    help="A paramfile, or parameters; with --from those that differ from the model's.",
)
@click.option(
    "--from",
    "begin",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Go on from a saved model: begin with its weights, on data that may be newer.",
)
@click.option(
    "--keep-optimiser",
    is_flag=True,
    help="With --from: also with what its optimiser had gathered.",
)
@data_option("A dataset directory", required=True)
@click.option("--model", show_default="the paramfile's, or gru4rec", help="The model.")
@click.option(
    "--split",
    type=click.Choice(["search", "full", "without-valid"]),
    show_default="the paramfile's, that of --from, or search",
    help="search: train, tested on valid; full: train_full, tested on test; without-valid: train, "
    "tested on test (leave-one-out: trained on all but the last two events).",
)
@click.option(
    "--seed", type=int, show_default="the paramfile's, or 42", help="Of all that's random."
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    show_default="the paramfile's, or n_epochs",
    help="Where training ends.",
)
@click.option("--save", type=DIRECTORY, metavar="DIR", help="Save the model in a new directory.")
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    metavar="N",
    help="With --save: keep the last N epochs too, each as a model in DIR-epoch-E.",
)
@click.option(
    "--keep-stages",
    is_flag=True,
    help="With --save: keep the best of each stage too, as DIR-STAGE, and DIR-results.json.",
)
@click.option(
    "--save-optimiser",
    is_flag=True,
    help="With --save: keep what the optimiser has gathered too, for --keep-optimiser.",
)
@tensorboard_option
@judging_options
def train(
    params: str | None,
    begin: Path | None,
    keep_optimiser: bool,
    data: tuple[str, ...],
    model: str | None,
    split: str | None,
    seed: int | None,
    epochs: int | None,
    threads: int | None,
    save: Path | None,
    keep_last: int | None,
    keep_stages: bool,
    save_optimiser: bool,
    tensorboard: Path | None,
    as_json: bool,
    **judging: Any,
) -> None:
    """Train one configuration and test it.

    \b
    paropt train --params paramfiles/gru4rec_retailrocket_bprmax_shared.json --data data/shop
    paropt train --params layers=100,loss=cross-entropy --data data/shop --split full --save shop
    paropt train --from shop --data data/next --params n_epochs=3 --save shop-2
    """
    from paropt.search.space.training_requests import train_request
    from paropt.training.train import train as train_model

    if keep_last and save is None:
        raise click.UsageError(
            "--keep-last says which epochs are saved beside the last; say --save"
        )
    if keep_stages and save is None:
        raise click.UsageError("--keep-stages says what is saved beside the model; say --save")
    if save_optimiser and save is None:
        raise click.UsageError("--save-optimiser says what is saved with the model; say --save")
    if keep_optimiser and begin is None:
        raise click.UsageError("--keep-optimiser takes up that of a saved model; say --from")
    if params is None and begin is None:
        raise click.UsageError("--params says what to train, or --from what to go on from")
    said = {"split": split, "seed": seed, "epochs": epochs, "threads": threads, **judging}
    said |= {"begin": begin, "keep_optimiser": keep_optimiser}
    request, provenance = train_request(params, model, said)
    directory = directory_of(data)
    with progress() as (on_epoch, on_progress):
        outcome = train_model(
            request,
            directory,
            save=save,
            keep_last=keep_last or 0,
            keep_stages=keep_stages,
            save_optimiser=save_optimiser,
            tensorboard=tensorboard,
            on_epoch=on_epoch,
            on_progress=on_progress,
            provenance=provenance,
            note=say,
        )
    if outcome.split != "search":
        from paropt.results.final.looks_here import known_to_a_final_test, note_look

        if not known_to_a_final_test(
            provenance, outcome.fingerprint, outcome.split, outcome.seed, request.epochs
        ):
            say(note_look(outcome))
    show(outcome, as_json)
