"""``hyperpod-eks completion``: a script that completes commands and options in a shell."""

from __future__ import annotations

import click

from hyperpod_eks.cli.command import epilog


@click.command(
    epilog=epilog(
        """
        eval "$(hyperpod-eks completion bash)"      in ~/.bashrc
        eval "$(hyperpod-eks completion zsh)"       in ~/.zshrc, after compinit
        hyperpod-eks completion fish > ~/.config/fish/completions/hyperpod-eks.fish
        """
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Generate a shell completion script.

    It completes commands, options and files, and the names of clusters, instance groups, regions
    and topics that are known on this machine.  Does not call AWS.
    """
    from click.shell_completion import get_completion_class

    chosen = get_completion_class(shell)
    assert chosen, "the choices are those that click has"
    root = click.get_current_context().find_root().command
    click.echo(chosen(root, {}, "hyperpod-eks", "_HYPERPOD_EKS_COMPLETE").source())
