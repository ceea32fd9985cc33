"""``paropt final``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from paropt.cli._judging import protocol_options
from paropt.cli._study import (
    DataVerb,
    ShippedFile,
    complete_study,
    data_option,
    say,
    slot_options,
    storage_option,
)

if TYPE_CHECKING:
    from paropt.training.evaluation.protocol import Ties


@click.command(cls=DataVerb)
@click.argument("study", shell_complete=complete_study)
@click.option(
    "--top", type=click.IntRange(min=1), show_default="3", help="Best configurations to try again."
)
@click.option(
    "--seeds", type=click.IntRange(min=1), show_default="5", help="Fresh seeds for each of them."
)
@click.option(
    "--control",
    type=ShippedFile("paramfile"),
    metavar="FILE|NAME",
    show_default="the space's first published start point, else the model's defaults",
    help="A paramfile to compare with.",
)
@click.option(
    "--train-without-valid",
    "without_valid",
    is_flag=True,
    help="Train on train alone, so with leave-one-out on all but the last two events, for the test "
    "as well; the second-last is read there.",
)
@click.option("--again", is_flag=True, help="Look at the test set though somebody did before.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the report there, with paramfiles.",
)
@data_option(
    "The study's dataset directory on this machine",
    show_default="where the study was launched with it",
)
@protocol_options("the study's", "the study's")
@slot_options
@storage_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def final(
    study: str,
    top: int | None,
    seeds: int | None,
    control: Path | None,
    without_valid: bool,
    again: bool,
    out: Path | None,
    data: tuple[str, ...],
    ties: Ties | None,
    filter_seen: bool | None,
    devices: str,
    per_device: int | Literal["auto"] | None,
    checkpoint_dir: str | None,
    storage: str | None,
    as_json: bool,
) -> None:
    """Test a study's result once, with fresh seeds, beside a control and baselines.

    The best configurations are trained again on train and one is chosen on valid; that one and
    the control are trained on train_full and tested on test. Interrupted, the same command goes on.

    \b
    paropt final shop --out reports/shop
    paropt final shop --control paramfiles/gru4rec_retailrocket_bprmax_shared.json
    """
    from paropt.launch.opening.checkpoint_place import checkpoint_place
    from paropt.machine.devices import device_shares
    from paropt.results import files
    from paropt.results.final import final_test
    from paropt.results.pages.final_page import final_summary
    from paropt.results.pages.markdown import markdown

    if out:
        files.check_out(out)
    slots = device_shares(devices, per_device)
    request = final_test.FinalRequest(
        study, top, seeds, control, again, storage, data, ties, filter_seen, without_valid
    )
    checkpoints = checkpoint_place(checkpoint_dir)
    report = final_test.run(request, slots, checkpoints, note=say)
    if out:
        files.write(report, out)
        click.echo(f"the report is in {out}", err=True)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        click.echo(markdown(final_summary(report)).rstrip())
