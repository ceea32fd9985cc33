"""``paropt``: the group of verbs, loaded one at a time so that ``--help`` needs none of them."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
import traceback
from typing import Any

import click

from paropt.cli._typed_secrets import hide
from paropt.errors import EXIT_FAILURE, EXIT_INTERRUPTED, ParoptError, did_you_mean
from paropt.version import __version__

# verb -> (module of paropt.cli, its line in `paropt --help`); the function has the verb's name,
# with _ for -.
# The line is repeated here because reading it from the docstring would import every verb.
VERBS: dict[str, tuple[str, str]] = {
    "prepare": ("prepare", "Turn event logs into a dataset directory."),
    "semantic-ids": ("semantic_ids", "Add codes of items' vectors to a dataset."),
    "describe": ("describe", "Write texts about the users or items of a dataset directory."),
    "space": ("space", "Show a parameter space as a table, or list paropt's own."),
    "models": ("models", "List the models, or one model's parameters."),
    "launch": ("launch", "Create or resume a study and run its trials."),
    "worker": ("worker", "Add this machine's devices to a running study."),
    "status": ("status", "Show the studies, or one study's trials and workers."),
    "stop": ("steer", "End a study: trials are handed back, workers leave."),
    "pause": ("steer", "Pause a study: trials are handed back, workers wait."),
    "resume": ("steer", "Let a paused or stopped study go on."),
    "delete": ("delete", "Delete studies, with their final tests and checkpoints."),
    "dashboard": ("dashboard", "Serve optuna-dashboard over the studies."),
    "storage": ("storage", "Show where studies are kept."),
    "plot": ("plot", "Write a study's figures as SVG or PNG files."),
    "export": ("export", "Write a study's best paramfiles."),
    "final": ("final", "Test a study's result once, with fresh seeds."),
    "report": ("report", "Write a report as one HTML page that needs nothing else."),
    "compare": ("compare", "Compare studies on the same data, at equal spend."),
    "train": ("train", "Train one configuration and test it."),
    "evaluate": ("evaluate", "Test a saved model."),
    "recommend": ("recommend", "Next items for the sessions of a file."),
    "serve": ("serve", "Answer over HTTP what comes next in a session."),
    "export-model": ("export_model", "Write a saved model as ONNX, or as a program of torch."),
    "embed": ("embed", "Write every user's vector, or every item's, to Redis or to files."),
    "predict": ("predict", "Vectors for the ads competition: of users, and of the candidates."),
    "memory": ("memory", "Show, export or reset what a saved model remembers."),
    "check": ("check", "Check that everything paropt needs works here."),
    "completion": ("completion", "Print what makes a shell complete paropt's words."),
}


class LazyGroup(click.Group):
    """Imports a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"paropt.cli.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest a verb for a misspelt one; click itself looks among loaded ones only."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], VERBS, "'paropt --help' lists them")
            ctx.fail(f"no verb '{args[0]}'; {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(EXIT_INTERRUPTED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "show_default": True,
        "auto_envvar_prefix": "PAROPT",
    },
)
@click.version_option(__version__, "-V", "--version", message="paropt %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Show tracebacks and debug messages.")
@click.pass_context
def cli(ctx: click.Context, verbose: bool) -> None:
    """Finds the best sequential recommender for an event log.

    \b
    paropt prepare events.tsv --out data/shop
    paropt launch --space paramspaces/gru4rec_xe_shared.json --data data/shop
    paropt export STUDY
    """
    ctx.obj = {"verbose": verbose}


def run(argv: list[str] | None = None) -> Any:
    """The console script: turns errors into one line and their exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if argv is None:
        hide(arguments)
    # imports and rows are many objects that stay: looking through them is a tenth of `status`
    gc.set_threshold(50_000)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets its table too
    try:
        return cli(arguments, prog_name="paropt", standalone_mode=True)
    except ParoptError as error:
        if _verbose(arguments):
            traceback.print_exc()
            sys.exit(error.exit_code)
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # the reader of our output has left (`paropt status | head`); nothing more to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILURE)


def _verbose(arguments: list[str]) -> bool:
    """``-v`` stands before the verb, so only the words up to the first one are looked at."""
    for word in arguments:
        if not word.startswith("-"):
            return False
        if word == "--verbose" or (word[1:2] != "-" and "v" in word):
            return True
    return False
