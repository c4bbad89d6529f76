"""Import every command of the command line."""

from __future__ import annotations

import click

from hyperpod_eks.cli import main


def every_command(group: click.Group = main, path: str = "") -> dict[str, click.Command]:
    """Return every command by its words, such as ``local start``; groups before their commands."""
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
