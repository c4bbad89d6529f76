"""Every command of the command line, imported."""

from __future__ import annotations

import click

from hyperpod_eks.cli import main


def every_command(group: click.Group = main, path: str = "") -> dict[str, click.Command]:
    """Every command by its words: ``local start``; a group stands before its commands."""
    found = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command, name
        found[f"{path}{name}"] = command
        if isinstance(command, click.Group):
            found |= every_command(command, f"{path}{name} ")
    return found


EVERY = every_command()
GROUPS = {words for words, command in EVERY.items() if isinstance(command, click.Group)}
