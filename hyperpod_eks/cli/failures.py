"""Turn every exception into a message, a document and an exit code."""

from __future__ import annotations

import errno
import os
import sys

import click

from hyperpod_eks.cli.console import Console, no_stdout, say
from hyperpod_eks.cli.signals import Interrupted
from hyperpod_eks.errors import Denied, Exit, HyperpodError
from hyperpod_eks.terminal.text import shortened

COMPLETE = "_HYPERPOD_EKS_COMPLETE"
"""The variable with which a shell asks click for completions; COMP_WORDS has the words."""
OTHERS = 500
"""Maximum characters of another program's message in an error."""


def fail(console: Console, error: BaseException) -> int:
    """Print why a command ended, and return its exit code; raise what ends the process itself."""
    match error:
        case click.Abort():
            return _aborted(console, error)
        case click.ClickException():
            return _mistyped(console, error)
        case BrokenPipeError():
            no_stdout()
            return Exit.FAILED
        case Interrupted():
            return _stopped(console, error)
        case HyperpodError():
            message = "\n".join([str(error), *getattr(error, "__notes__", ())])
            then = f"{error.then[0]}: {console.called(error.then[1])}" if error.then else ""
            hint = "\n".join(filter(None, (error.hint, then)))
            return console.fail(error.exit, message, hint, type(error).__name__, error)
        case Exception():
            return _unforeseen(console, error)
    raise error


def _aborted(console: Console, aborted: click.Abort) -> int:
    if aborted.__cause__ is None:  # a question was interrupted: end its line
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
    """Report an error of the operating system: Usage, but FAILED if a disk is full or fails."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO)
    if error.filename is None and full:
        no_stdout()  # else Python would fail again at exit, when it flushes the buffer
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
    lines = [f"To continue: {console.again}"] if console.logged else []
    if console.command == "create" and console.began:
        lines += [
            f"To delete it instead: {console.called('delete')}",
            "AWS completes and bills operations that have already started.",
        ]
    recorded = "; everything is recorded" if console.changes else ""
    done = "; what the test created is deleted" if console.command == "test" else recorded
    return console.fail(stop.code, f"{stop}{done}", "\n".join(lines), "Interrupted")


def _unforeseen(console: Console, error: Exception) -> int:
    """Report an unexpected exception: as AWS's or the system's if it is, else as a bug."""
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
    """Report an error of AWS or of the connection to it; return None for any other error."""
    from hyperpod_eks.refusals import of_aws  # noqa: PLC0415  --help needs none

    if found := of_aws(error):
        kind = "Denied" if isinstance(found, Denied) else "Aws"
        return console.fail(found.exit, str(found), found.hint, kind, error)
    return None


def _bug(console: Console, error: Exception) -> int:
    import traceback  # noqa: PLC0415  --help does not need it

    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    if not (console.log and console.log.path):
        say("".join(traceback.format_exception(error)).rstrip())
    hint = "This is a bug in hyperpod-eks. Please report it with the log."
    return console.fail(Exit.BUG, f"{type(error).__name__}: {error}{notes}", hint, "Bug", error)
