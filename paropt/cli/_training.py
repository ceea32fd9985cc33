"""What the verbs around one training share: options, the table of results, the live progress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._judging import also_option, metric_option, protocol_options
from paropt.names import baseline
from paropt.training.evaluation.objective import Objective
from paropt.training.evaluation.protocol import EvaluationProtocol
from paropt.training.evaluation.words import by_itself, cautions, coverage, experts, value_words
from paropt.training.metrics import written

if TYPE_CHECKING:
    from paropt.training.evaluation.epochs import EpochReport
    from paropt.training.run_result import RunResult


class Cutoffs(click.ParamType[tuple[int, ...]]):
    """``1,5,10,20``."""

    name = "k,k,…"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            cutoffs = tuple(int(k) for k in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of whole numbers like 1,5,10,20", param, ctx)
        if min(cutoffs) < 1:
            self.fail(f"{min(cutoffs)} is no cut-off; they start at 1", param, ctx)
        return tuple(dict.fromkeys(cutoffs))


DIRECTORY = click.Path(path_type=Path)


def judging_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """How a model is judged, and where: the same for ``train`` and ``evaluate``."""
    options = [
        click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run."),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            show_default="the paramfile's, or all cores",
            help="CPU threads; numbers are the same only for the same number of them.",
        ),
        click.option("--at", type=Cutoffs(), default="1,5,10,20", help="Cut-offs of the metrics."),
        metric_option("the paramfile's, or mrr@20", "What the best epoch is by."),
        also_option,
        protocol_options(
            "the paramfile's or the model's, or standard",
            "the paramfile's or the model's, or filtered if the data are leave-one-out",
        ),
        click.option(
            "--cold-items",
            is_flag=True,
            help="Also rank targets that training never saw, by what is known of their items; they "
            "are counted by themselves.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def show(outcome: RunResult, as_json: bool) -> None:
    """Print the result on stdout."""
    if as_json:
        click.echo(json.dumps(asdict(outcome), indent=1))
        return
    floor = {baseline(name): numbers for name, numbers in (outcome.floor or {}).items()}
    columns = {outcome.model: outcome.metrics, **floor}
    widths = [max(10, len(name)) for name in columns]
    first = max(len(name) for name in outcome.metrics)
    click.echo(_row(" " * first, columns, widths))
    for metric in outcome.metrics:
        values = [written(metric, of[metric]) if metric in of else "–" for of in columns.values()]
        click.echo(_row(metric.ljust(first), values, widths))
    _show_standing(outcome)
    if outcome.cold is not None:
        _show_cold(outcome.cold)
    best = ""
    if outcome.best_epoch is not None and outcome.best_epoch != outcome.epochs:
        best = f" (best: epoch {outcome.best_epoch})"
    if outcome.stage:
        best += f" of stage {outcome.stage}"
    click.echo(
        f"split {outcome.split}, seed {outcome.seed}, epochs {outcome.epochs}{best}, "
        f"{outcome.device}, threads {outcome.threads}"
    )
    click.echo(f"data {outcome.fingerprint}")
    click.echo(f"{outcome.seconds:,.1f} s, {outcome.events_per_second:,.0f} events/s")
    if outcome.saved:
        click.echo(f"saved to {outcome.saved}")


def _show_standing(outcome: RunResult) -> None:
    """What the numbers stand on."""
    found, objective = asdict(outcome), Objective(outcome.metric)
    protocol = EvaluationProtocol.from_json(found).words()
    why = "left out: training never saw their item, or none before it"
    left_out = f"; {outcome.unknown:,} {why}" if outcome.unknown else ""
    rules = "" if by_itself(found) else f"{left_out}; {protocol}"
    click.echo(f"\n{coverage(found)}{rules}")
    value = outcome.metrics.get(outcome.metric)
    if outcome.interval or (outcome.unknown and outcome.with_misses is not None):
        click.echo(f"{outcome.metric} {value_words(found, value)}")
    for line in cautions(found, objective):
        click.echo(f"Warning: {line}", err=True)


def _show_cold(cold: Mapping[str, Any]) -> None:
    """The targets that training never saw, apart from the others."""
    if not cold["targets"]:
        click.echo("\nno target is of an item that training never saw")
        return
    click.echo(
        f"\ncold items: {cold['targets']:,} more targets, of {cold['items']:,} items that training "
        f"never saw, each among all {cold['candidates']:,} items"
    )
    width = max(len(name) for name in cold["metrics"])
    for name, value in cold["metrics"].items():
        spread = f" ± {cold['stderr'][name]:.4f}" if name in cold["stderr"] else ""
        worse = ""
        if name in cold["conservative"]:
            worse = f"  ({cold['conservative'][name]:.4f} with ties against the target)"
        click.echo(f"{name.ljust(width)}  {value:10.4f}{spread}{worse}")


def _row(name: str, cells: Any, widths: list[int]) -> str:
    return "  ".join([name, *(cell.rjust(w) for cell, w in zip(cells, widths, strict=True))])


@contextmanager
def progress() -> Iterator[tuple[Callable[[EpochReport, int], None], Callable[..., None]]]:
    """Callbacks for epochs (a line each) and steps (a bar, only on a terminal), on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    bar = Progress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} steps  {task.fields[speed]:,.0f} events/s"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=1, epoch=1, speed=0.0, visible=False)

    def on_epoch(epoch: EpochReport, epochs: int) -> None:
        best = "  ".join(f"{name} {epoch.metrics[name]:.4f}" for name in _headline(epoch.metrics))
        stage = ""
        if epoch.stage_epoch:
            stage = f"{epoch.stage} {epoch.stage_epoch}/{epoch.stage_epochs}  "
        loss = "" if epoch.loss is None else f"loss {epoch.loss:.4f}  "
        told = f"{said}  " if (said := experts(epoch.extra)) else ""
        console.print(
            f"epoch {epoch.epoch}/{epochs}  {stage}{loss}{best}  "
            f"{told}{epoch.events_per_second:,.0f} events/s  {epoch.seconds:.1f} s",
            highlight=False,
            soft_wrap=True,
        )

    def on_progress(epoch: int, step: int, steps: int, speed: float) -> None:
        bar.update(task, completed=step, total=steps, epoch=epoch, speed=speed, visible=True)

    with bar:
        yield on_epoch, on_progress


def _headline(metrics: Mapping[str, float]) -> list[str]:
    """Recall and MRR at the largest cut-off, or the first two of a model's own metrics."""
    known = [name for name in metrics if name.startswith(("recall@", "mrr@"))]
    return known[-2:] or list(metrics)[:2]
