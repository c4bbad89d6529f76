"""A command: its options, a function that returns a document, and that document's text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hyperpod_eks.cli.console import D, Log, current_console, say
from hyperpod_eks.cli.help import Context
from hyperpod_eks.cli.options import Output, parameters, sections

if TYPE_CHECKING:
    from hyperpod_eks.events import Report

MORE = "Exit codes and documents: hyperpod-eks explain pipelines"
O = TypeVar("O", bound=Output)  # noqa: E741  options


class Command(click.Command):
    """A command whose help groups its options by heading."""

    options: type[Output]
    context_class = Context

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of options for each heading; ``--help`` comes last."""
        by_heading = sections(self.options)
        if shown := self.get_help_option(ctx):
            [*_, last] = by_heading.values()
            last.append(shown)
        for heading, several in by_heading.items():
            with formatter.section(heading):
                formatter.write_dl([row for each in several if (row := each.get_help_record(ctx))])


def define(
    name: str,
    options: type[O],
    run: Callable[[O, Report], D],
    text: Callable[[D], str],
    examples: str,
    *,
    then: Callable[[O, D], Iterable[str]] = lambda options, document: (),
    log: Log | Callable[[O], Log] = Log.NONE,
) -> Command:
    """Return the click command; its help is the docstring of ``run``.

    ``run`` receives the options and the `Report` for its events, and returns the document;
    ``text`` renders that document for people.  ``then`` are lines for them on stderr after
    that text, such as the commands to run next; not with ``--quiet``.
    """

    def invoke(**given: Any) -> int:  # click's parameters are the fields of `options`
        chosen, console = options(**given), current_console()
        keep = log if isinstance(log, Log) else log(chosen)
        with console.reporting(name, chosen, keep) as report:
            document = run(chosen, report)
        code = console.say(document, text)
        if console.form == "text" and not (console.query or console.quiet):
            for line in then(chosen, document):
                say(line)
        return code

    made = Command(
        name,
        params=parameters(options),
        callback=invoke,
        help=cleandoc(run.__doc__ or ""),
        epilog=epilog(examples),
    )
    made.options = options
    return made


def epilog(examples: str) -> str:
    """Return the epilog of a command's help: its examples."""
    lines = [f"  {line.strip()}" for line in examples.strip().splitlines()]
    return "\n".join(["\b", "Examples:", *lines, "", MORE])
