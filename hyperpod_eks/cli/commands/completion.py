"""``hyperpod-eks completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import click

from hyperpod_eks.cli.command import epilog


@click.command(
    epilog=epilog(
        """
        eval "$(hyperpod-eks completion bash)"
        hyperpod-eks completion fish > ~/.config/fish/completions/hyperpod-eks.fish
        """
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Generate a shell completion script."""
    from click.shell_completion import get_completion_class

    chosen = get_completion_class(shell)
    assert chosen, "the choices are those that click has"
    root = click.get_current_context().find_root().command
    click.echo(chosen(root, {}, "hyperpod-eks", "_HYPERPOD_EKS_COMPLETE").source())
