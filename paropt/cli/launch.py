"""``paropt launch``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from paropt.cli._elsewhere import Scheduler, elsewhere_options, run_elsewhere
from paropt.cli._judging import also_option, metric_option, protocol_options
from paropt.cli._study import (
    Choice,
    DataVerb,
    Duration,
    NewName,
    ShippedFile,
    complete_study,
    data_option,
    exit_if_sent_away,
    say,
    slot_options,
    storage_option,
    tensorboard_option,
)


@click.command(cls=DataVerb)
@click.option(
    "--space",
    type=ShippedFile("space"),
    metavar="FILE|NAME",
    show_default="for a new study, one made to suit the data",
    help="The parameter space: a file, or one of paropt's own.",
)
@data_option("A dataset directory", show_default="the space's, or PAROPT_DATASET")
@click.option(
    "--study",
    type=NewName(),
    show_default="from space and data",
    shell_complete=complete_study,
    help="Its name.",
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    show_default="100 for a new study without another limit",
    help="Configurations to try in all, over every worker and resume.",
)
@click.option("--timeout", type=Duration(), metavar="2h", help="Wall-clock time to stop after.")
@click.option(
    "--device-hours",
    type=click.FloatRange(min=0, min_open=True),
    metavar="H",
    help="Hours of training and ranking to stop after, over all slots of all machines.",
)
@click.option(
    "--stop-after-stale",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop when N finished trials in a row were no better than the best.",
)
@metric_option("mrr@20", "What to look for:")
@also_option
@click.option(
    "--constraint",
    multiple=True,
    metavar="NAME<=N",
    help="What the best trial must keep to: parameters, model_bytes, latency_ms, peak_memory, "
    "seconds_per_epoch or any metric, at most (<=) or at least (>=); repeatable.",
)
@protocol_options("standard", "filtered if the data are leave-one-out")
@click.option(
    "--fixed",
    multiple=True,
    metavar="K=V,…",
    help="Parameters with one value: what FILE leaves out, or searches otherwise.",
)
@click.option(
    "--warm-start",
    multiple=True,
    metavar="STUDY|PARAMFILE",
    shell_complete=complete_study,
    help="Begin a new study with an earlier one's best configurations, or a paramfile's; "
    "repeatable.",
)
@click.option(
    "--from",
    "begin",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Every trial goes on from this saved model: it begins with its weights.",
)
@click.option(
    "--keep-optimiser",
    is_flag=True,
    help="Trials begin with what that model's optimiser had gathered, too (train "
    "--save-optimiser).",
)
@click.option(
    "--seed", type=click.IntRange(min=0), show_default="42", help="Of sampling and training."
)
@click.option(
    "--sampler",
    type=Choice(),
    show_default="tpe",
    help="tpe, random, grid, or one of Optuna's by its class's name, as JSON with arguments.",
)
@click.option(
    "--pruner",
    type=Choice(),
    show_default="asha",
    help="asha, median or none, or JSON with options (docs/spaces.md).",
)
@click.option(
    "--heartbeat",
    type=Duration(),
    metavar="30s",
    show_default="30s",
    help="Within two of these a lost worker's trial is taken over.",
)
@slot_options
@elsewhere_options
@tensorboard_option
@click.option(
    "--notify",
    multiple=True,
    envvar="PAROPT_NOTIFY",
    metavar="URL",
    show_envvar=True,
    help="Where apprise sends messages: done, stuck, failed alike, a better trial; repeatable.",
)
@click.option(
    "--notify-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with such URLs, a line each, which no shell remembers.",
)
@click.option(
    "--mlflow",
    metavar="URI",
    help="Mirror the trials as runs of an MLflow server, or in a directory.",
)
@storage_option
@click.option("--listen", metavar="HOST:PORT", help="Open the embedded server to other machines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def launch(
    devices: str,
    per_device: int | Literal["auto"] | None,
    checkpoint_dir: str | None,
    tensorboard: Path | None,
    as_json: bool,
    scheduler: Scheduler | None,
    sampler: dict[str, Any] | None,
    pruner: dict[str, Any] | None,
    notify: tuple[str, ...],
    notify_file: Path | None,
    mlflow: str | None,
    **options: Any,
) -> None:
    """Create or resume a study and run its trials.

    --data takes event files too, as `paropt prepare` does. Without --space a new study searches
    the models that suit its data, and says which and why.

    Ctrl-C hands the running trials back, and the same command goes on with them; a second Ctrl-C
    does not wait for checkpoints.

    \b
    paropt launch --data events.csv
    paropt launch --space demo
    paropt launch --space gru4rec_xe_shared --data data/shop --trials 50
    paropt launch --study gru4rec_xe_shared-shop --trials 100 --devices 0,1 --per-device 2
    paropt launch --study shop --on slurm --slots 8 --gpus-per-slot 1 --sbatch "-p gpu -t 4:00:00"
    paropt launch --study shop --on ray --slots 8 --gpus-per-slot 0.5
    paropt launch --space gru4rec_xe_shared --data data/new --warm-start gru4rec_xe_shared-shop
    """
    from paropt.launch.launcher import announce, work
    from paropt.launch.mlflow_mirror import Mirror, client
    from paropt.launch.news import News, addresses, sender
    from paropt.launch.opening.checkpoint_place import checkpoint_place
    from paropt.launch.opening.launch_request import LaunchRequest
    from paropt.launch.opening.open_study import create_or_resume
    from paropt.machine.devices import device_shares
    from paropt.training.tensorboard import require, where

    urls = addresses(notify, notify_file)
    send = sender(urls) if urls else None
    runs = client(mlflow) if mlflow else None
    slots = device_shares(devices, per_device) if scheduler is None else []
    if tensorboard is not None:
        require(tensorboard)
        say(where(tensorboard))
    if options["keep_optimiser"] and options["begin"] is None:
        raise click.UsageError("--keep-optimiser takes up that of a saved model; say --from")
    asked = LaunchRequest(sampler=sampler or {}, pruner=pruner or {}, **options)
    if scheduler is not None:
        scheduler.check_reach(asked.storage, asked.listen)
    checkpoints = checkpoint_place(checkpoint_dir)
    with (
        create_or_resume(asked, note=say) as opened,
        News(opened, send, say) as news,
        Mirror(opened, runs, say),
    ):
        announce(opened)
        if scheduler and scheduler.returns and (send or runs):
            say("--notify and --mlflow tell while a launch runs, and this one ends at once")
        if scheduler is not None:
            status = run_elsewhere(scheduler, opened, checkpoints, tensorboard, not as_json)
        else:
            status = work(
                opened,
                slots,
                checkpoints=checkpoints,
                tensorboard=tensorboard,
                floor=True,
                report=not as_json,
            )
        if status and not (scheduler and scheduler.returns):
            news.ended(status)
    if as_json and status:
        click.echo(json.dumps(status, indent=2))
    exit_if_sent_away(status)
