"""``paropt completion``."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]), metavar="bash|zsh|fish")
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what makes a shell complete paropt's words.

    Verbs, options, their choices, files, paropt's own spaces, and studies that this machine has
    worked on. Put it where your shell looks, and open a new one:

    \b
    paropt completion bash > ~/.local/share/bash-completion/completions/paropt
    paropt completion zsh > "${fpath[1]}/_paropt"
    paropt completion fish > ~/.config/fish/completions/paropt.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = ctx.find_root().command
    click.echo(found(root, {}, "paropt", "_PAROPT_COMPLETE").source())
