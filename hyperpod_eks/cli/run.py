"""How a run ends: every exception becomes words, a document and an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from hyperpod_eks.cli.app import main
from hyperpod_eks.cli.console import Console, no_stdout, say
from hyperpod_eks.errors import Exit, HyperpodError
from hyperpod_eks.terminal.text import shortened

if TYPE_CHECKING:
    from hyperpod_eks.cli.signals import Interrupted

COMPLETE = "_HYPERPOD_EKS_COMPLETE"
"""Asks for completions, as click has it; the words come in others that only a shell sets."""
OTHERS = 500
"""Characters of others' words in an error."""


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; every error ends as words on stderr.

    For whoever wants JSON or YAML the error is a document on stdout as well.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # replaced or closed by whoever calls us
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    console = Console(arguments)
    try:
        return _run(console)
    finally:
        console.close()


def _run(console: Console) -> int:
    from hyperpod_eks.cli.signals import Interrupted  # noqa: PLC0415

    try:
        left = main.main(
            list(console.words), prog_name="hyperpod-eks", standalone_mode=False, obj=console
        )
        return left if isinstance(left, int) else Exit.OK
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.Abort as aborted:
        return _aborted(console, aborted)
    except click.ClickException as error:
        return _mistyped(console, error)
    except BrokenPipeError:
        no_stdout()
        return Exit.FAILED
    except Interrupted as stop:
        return _stopped(console, stop)
    except HyperpodError as error:
        notes = getattr(error, "__notes__", [])
        message = "\n".join([str(error), *notes])
        return console.fail(error.exit, message, error.hint, type(error).__name__, error)
    except Exception as error:  # noqa: BLE001  whatever it is, the user gets words
        return _unforeseen(console, error)


def _aborted(console: Console, aborted: click.Abort) -> int:
    from hyperpod_eks.cli.signals import Interrupted  # noqa: PLC0415

    if aborted.__cause__ is None:  # it left a question, whose line is not ended
        say("")
    if isinstance(aborted.__cause__ or aborted.__context__, KeyboardInterrupt):
        return _stopped(console, Interrupted(Exit.INTERRUPTED - 128))
    return console.fail(Exit.USAGE, "aborted; nothing was changed", kind="Usage")


def _mistyped(console: Console, error: click.ClickException) -> int:
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx:
        hint = f"{error.ctx.get_usage()}\nMore: {error.ctx.command_path} --help"
    return console.fail(Exit.USAGE, error.format_message(), hint, "Usage")


def _refused_by_the_system(console: Console, error: OSError) -> int:
    """What the operating system refuses is the user's to correct: a name, a place, a full disk."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    if error.filename is None and full:
        no_stdout()  # what is buffered would fail once more when Python ends
        return console.fail(
            Exit.FAILED,
            f"cannot write to stdout: {error.strerror}",
            "Free some space.",
            "HyperpodError",
        )
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    code = Exit.FAILED if full else Exit.USAGE
    kind = "HyperpodError" if full else "Usage"
    return console.fail(code, f"{where}{error.strerror}", "", kind, error)


def _stopped(console: Console, stop: Interrupted) -> int:
    lines = [f"To continue: {console.again}"]
    if console.command == "create":
        lines += [
            f"To delete it instead: {console.called('delete')}",
            "AWS completes and bills operations that have already started.",
        ]
    return console.fail(stop.code, str(stop), "\n".join(lines), "Interrupted")


def _unforeseen(console: Console, error: Exception) -> int:
    """What we did not foresee: credentials first, then AWS's refusals, then bugs with a log."""
    if os.environ.get(COMPLETE) and isinstance(error, KeyError | ValueError):
        hint = "Unset it; the script of `hyperpod-eks completion` sets it together with the others."
        text = f"{COMPLETE} is set, but COMP_WORDS and COMP_CWORD are not what a shell sets"
        return console.fail(Exit.USAGE, text, hint, "Usage", error)
    if (code := _refused_by_aws(console, error)) is not None:
        return code
    message = shortened(str(error), OTHERS)
    if isinstance(error, OSError) and error.strerror:
        return _refused_by_the_system(console, error)
    if isinstance(error, MemoryError) or "can't start new thread" in message:
        hint = "Raise its limits (ulimit, those of the container), and run the same command again."
        text = "this machine has no more threads or memory for this process"
        return console.fail(Exit.FAILED, text, hint, "HyperpodError", error)
    if isinstance(error, UnicodeError):
        hint = f"Use names that the locale can spell (now {sys.getfilesystemencoding()})."
        return console.fail(
            Exit.USAGE, f"a name or a file is not text: {message}", hint, "Usage", error
        )
    return _bug(console, error)


def _refused_by_aws(console: Console, error: Exception) -> int | None:
    """Report what AWS or the way to it refuses; None for anything else."""
    from hyperpod_eks.aws.errors import ErrorKind, renewal  # noqa: PLC0415  --help needs none
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
    from hyperpod_eks.aws.failures import classify  # noqa: PLC0415
    from hyperpod_eks.policy import authorization  # noqa: PLC0415

    kind, message = classify(error), shortened(str(error), OTHERS)
    if kind in (ErrorKind.EXPIRED, ErrorKind.DENIED):
        hint = authorization.cure(error) or renewal(str(error))
        return console.fail(Exit.DENIED, message, hint, "Denied", error)
    if kind or isinstance(error, BotoCoreError | ClientError):
        final = isinstance(error, ClientError) and kind is None  # the same would be refused again
        hint = "" if final else "Run the same command again."
        return console.fail(Exit.FAILED, message, hint, "Aws", error)
    return None


def _bug(console: Console, error: Exception) -> int:
    import traceback  # noqa: PLC0415  --help needs none of it

    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    if not (console.log and console.log.path):
        say("".join(traceback.format_exception(error)).rstrip())
    hint = "This is a bug in hyperpod-eks. Please report it with the log."
    return console.fail(Exit.BUG, f"{type(error).__name__}: {error}{notes}", hint, "Bug", error)
