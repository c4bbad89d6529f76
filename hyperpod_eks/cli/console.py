"""The output of a run: one document on stdout, events if requested, and error messages."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from enum import Enum
from typing import IO, TYPE_CHECKING, TypeVar

import click

from hyperpod_eks.aws.redaction import learn_environment, redacted, without_values
from hyperpod_eks.cli.documents import called, columns
from hyperpod_eks.cli.options import Output, Place, Progress
from hyperpod_eks.errors import FAILED, Exit, HyperpodError, Usage
from hyperpod_eks.terminal.text import printable, shortened

if TYPE_CHECKING:
    import logging
    from contextlib import AbstractContextManager
    from pathlib import Path

    from hyperpod_eks.cli.schemas.runs import Error, Failure, Refused
    from hyperpod_eks.documents import Json
    from hyperpod_eks.events import Event, Report
    from hyperpod_eks.terminal.formats import Ask
    from hyperpod_eks.terminal.runlog import Aloud
    from hyperpod_eks.terminal.runlog import Log as RunLog

D = TypeVar("D", bound=Mapping[str, object])
"""A document: one of `cli.schemas`, or JSON whose format is not ours."""
TOOL = "hyperpod_eks"
"""Name of the parent of all our modules' loggers."""
AGAIN = frozenset(
    {
        Exit.FAILED,
        Exit.DENIED,
        Exit.LOCKED,
        Exit.UNFINISHED,
        Exit.REMAINS,
        Exit.CAPACITY,
        Exit.HANGUP,
        Exit.INTERRUPTED,
        Exit.TERMINATED,
    }
)
"""The exit codes after which the same command continues when it is run again."""

LINE = 2000
"""Maximum characters of a line on stderr; AWS's encoded authorization messages are longest."""
CORRECT = "Correct it and run the command again."
"""The next step in an error document if there is no hint or cause."""


class Log(Enum):
    """When the log of a run is kept; ``--debug`` always keeps it."""

    KEPT = "kept"
    IF_IT_FAILS = "if it fails"
    IF_POSSIBLE = "if it fails, and without a warning where no log can be written"
    NONE = "none"


class Console:
    """The output of one run; ``words`` are its arguments, as they were typed."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        learn_environment(os.environ)
        self.form = _form(self.words, os.environ)
        self.place = Place()
        """The command's cluster, once the command line is parsed."""
        self.quiet = False
        self.query: Ask | None = None
        self.events: Lines | None = None
        self.log: RunLog | None = None
        self.aloud: Aloud | None = None
        self.debug = False
        self._keep, self._well = Log.NONE, False
        self.began = False
        """Whether the run has come to the first resource: before that it changes nothing."""
        self.aside: Callable[[], None] = lambda: None
        """Called before a message is written to stderr during a run; clears a live picture."""

    @property
    def command(self) -> str:
        """The command that was typed, even if it could not be parsed."""
        words = self.words[: 2 if self.words[:1] in (("config",), ("local",)) else 1]
        return " ".join(word for word in words if not word.startswith("-"))

    @property
    def again(self) -> str:
        """The same command with all its options: without ``--keep`` it would delete more."""
        return shlex.join(["hyperpod-eks", *self.words])

    def called(self, command: str) -> str:
        """Return another command line for the same cluster."""
        return f"hyperpod-eks {command} {called(self.place.name or '', self.place)}"

    @property
    def logged(self) -> bool:
        """Whether the run works with AWS, so that it has a log: `init` and `outputs` do not."""
        return self._keep is not Log.NONE

    @property
    def changes(self) -> bool:
        """Whether the run may change something in AWS."""
        return self._keep is Log.KEPT

    @contextmanager
    def reporting(self, command: str, options: Output, keep: Log) -> Iterator[Report]:
        """Set up the output that ``options`` ask for; yield the `Report` for the run's events.

        The first line is printed before any slow import.  Raises Usage for an invalid ``--query``
        or ``--events`` before anything else happens.
        """
        from hyperpod_eks.terminal import progress  # noqa: PLC0415  --help needs none

        self._configure(options)
        self._begin_log(command, keep)
        shown = options if isinstance(options, Progress) else Progress(progress="none")
        kind = "none" if self.quiet else shown.progress
        if self.verbose and kind in ("auto", "live"):
            kind = "plain"  # log lines would break the live picture
        about = self.place.name or self.place.file or ""
        title = f"hyperpod-eks {command} {about}".rstrip()
        with (
            progress.choose(sys.stderr, os.environ, kind, title) as report,
            self._drawing(shown.timeline, title, self._also(report)) as shown_report,
        ):
            if isinstance(report, progress.Picture):
                self.aside = report.clear
            yield shown_report

    def _drawing(
        self, path: Path | None, title: str, report: Report
    ) -> AbstractContextManager[Report]:
        """Yield a `Report` that also draws the run to ``path``, if there is one."""
        if path is None:
            return nullcontext(report)
        from hyperpod_eks.terminal.timeline import drawing  # noqa: PLC0415  rarely needed

        return drawing(path, title, report, self.warn)

    def _configure(self, options: Output) -> None:
        if isinstance(options, Place):
            self.place = options
        self.form, self.quiet = options.output, options.quiet
        self.verbose, self.debug = options.verbose, options.debug
        if options.no_color:
            os.environ["NO_COLOR"] = "1"
        if options.query is not None:
            from hyperpod_eks.terminal.formats import ask  # noqa: PLC0415

            self.query = ask(options.query)
        if options.events:
            self.events = Lines(options.events, self.warn)

    def _begin_log(self, command: str, keep: Log) -> None:
        from hyperpod_eks import folders  # noqa: PLC0415  --help needs none
        from hyperpod_eks.terminal import runlog  # noqa: PLC0415  --help needs none

        self._keep = keep
        self.aloud = runlog.Aloud(self.warn)
        _logger().addHandler(self.aloud)
        if self.debug or keep is not Log.NONE:
            self.log = runlog.start(command, everything=self.debug, aloud=self.verbose)
            if keep is not Log.IF_POSSIBLE and (lost := folders.complaint()):
                self.warn(lost)
        _logger().info("hyperpod-eks %s", shlex.join(self.words))

    def _also(self, report: Report) -> Report:
        """Return a `Report` that also writes to ``--events`` and the log, without secrets."""
        from hyperpod_eks.events import EventType  # noqa: PLC0415  --help needs none

        log = _logger()

        def tell(event: Event) -> None:
            self.began = self.began or event.what is not EventType.PENDING
            event = replace(event, id=redacted(event.id), why=redacted(event.why))
            log.info("%s %s %s %s", event.key, event.what, event.id, event.why)
            if self.events:
                self.events.event(event)
            report(event)

        return tell

    def warn(self, text: str) -> None:
        """Print a warning to stderr; not with ``--quiet``."""
        if not self.quiet:
            self.aside()
            say(f"warning: {text}")

    def say(self, document: D, text: Callable[[D], str]) -> int:
        """Print the document in the requested format; return the exit code."""
        from hyperpod_eks.terminal.formats import render  # noqa: PLC0415

        shown = _each_text(document, without_values)
        code = int(shown.get("exit_code") or 0)
        self._well = code in (Exit.OK, Exit.CHANGES)
        if self.debug:
            self._point_at_log()
        if self.events:
            self.events.last(shown)
            if self.events.stdout:
                return code
        done = str(shown.get("schema", "")).startswith("hyperpod-eks/result/")
        if self.quiet and done and self.form == "text" and not self.query and "plan" not in shown:
            return code
        if words := render(shown, self.form, text, self.query):
            _print(words)
        return code

    def fail(
        self,
        code: int,
        message: str,
        hint: str = "",
        kind: str = "",
        error: BaseException | None = None,
    ) -> int:
        """Print the error to stderr, and its document if requested; return the exit code."""
        self._well = False
        _logger().error("exit %s: %s", code, message, exc_info=error)
        causes = getattr(error, "causes", ())
        resume = self._resume(error) if code in AGAIN else None
        lines = [f"error: {message}", *([hint] if hint else []), *map(str, causes)]
        for line in (*lines, *self._then(resume, "\n".join(lines))):
            say(line)
        if code not in (Exit.USAGE, Exit.LOCKED, Exit.NOT_FOUND):
            self._point_at_log()
        about: Error = {
            "class": kind,
            "message": message,
            "hint": hint,
            "aws": _aws(error),
            "cause": _cause(error),
            "causes": [each.document() for each in causes],
            "next": next((each.next for each in causes), resume or hint or CORRECT),
            "docs": f"docs/exit-codes.md#exit-{code}",
        }
        self._print_failure(code, about, resume)
        return int(code)

    def _then(self, resume: str | None, said: str) -> list[str]:
        """Return the commands that continue and undo a run that changes AWS, unless ``said``.

        A run that has not come to its first resource has nothing to undo.
        """
        if not resume or self.quiet or not self.changes or resume in said:
            return []
        undo = ("To delete it instead", self.called("delete"))
        undone = self.command == "create" and self.began and undo[1] not in said
        return columns((("To continue", resume), *([undo] if undone else [])))

    def _resume(self, error: BaseException | None) -> str:
        """Return the command that continues; after a failure, that is `create --replace-failed`."""
        failed = isinstance(error, HyperpodError) and error.reason == FAILED
        return (
            f"{self.again} --replace-failed" if failed and self.command == "create" else self.again
        )

    def _print_failure(self, code: int, about: Error, resume: str | None) -> None:
        """Print the document of an error, if JSON, YAML or events were requested."""
        document: Failure = {
            "schema": "hyperpod-eks/result/v1",
            "command": self.command,
            "ok": False,
            "exit_code": int(code),
            "error": _each_text(about, lambda text: shortened(redacted(text), 2 * LINE)),
            "resume": resume,
            "log_file": str(self.log.path) if self.log and self.log.path else None,
        }
        shown = _each_text(document, without_values)
        with suppress(HyperpodError, BrokenPipeError):  # stderr has the error already
            if self.events:
                self.events.last(shown)
            if not (self.events and self.events.stdout) and self.form in ("json", "yaml"):
                from hyperpod_eks.terminal.formats import render  # noqa: PLC0415

                _print(render(shown, self.form, str))

    def close(self) -> None:
        """Close the events, and close or delete the log."""
        if self.events:
            self.events.close()
        if self.aloud:
            _logger().removeHandler(self.aloud)
        if self.log:
            self.log.end(drop=self._keep is not Log.KEPT and self._well and not self.debug)

    def _point_at_log(self) -> None:
        if self.log and self.log.path:
            say(f"log: {self.log.path}")


def say(words: object) -> None:
    """Print to stderr: secrets redacted, no terminal control characters, long lines cut."""
    lines = printable(redacted(str(words))).split("\n")
    with suppress(OSError):  # a full disk or a closed pipe does not change the exit code
        click.echo("\n".join(shortened(line, LINE) for line in lines), err=True)


def _each_text(value: Json, change: Callable[[str], str]) -> Json:
    """Change every string value within a document; names of members stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _each_text(each, change) for key, each in value.items()}
    return (
        [_each_text(each, change) for each in value] if isinstance(value, list | tuple) else value
    )


_PAINT = re.compile(r"(\x1b\[[0-9;]*m)")
"""An ANSI escape sequence that sets colours and does nothing else."""


def _for_terminal(words: str) -> str:
    """Remove terminal control characters except colours."""
    return "".join(
        part if _PAINT.fullmatch(part) else printable(part) for part in _PAINT.split(words)
    )


def _print(words: str) -> None:
    """Print to stdout.  Raises HyperpodError if the write fails, for example on a full disk."""
    try:
        click.echo(_for_terminal(words) if sys.stdout.isatty() else words)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            no_stdout()
            raise
        raise _unprinted(error) from error


def _unprinted(error: OSError) -> HyperpodError:
    no_stdout()  # else Python would fail again at exit, when it flushes the buffer
    return HyperpodError(
        f"cannot write to stdout: {error.strerror}",
        "Everything done so far is recorded. Free some space and run the same command again.",
    )


def no_stdout() -> None:
    """Discard all further output to stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _logger() -> logging.Logger:
    """Return the logger; with a handler, or Python would print warnings to stderr."""
    import logging  # noqa: PLC0415  --help does not need it

    if not logging.root.handlers:
        logging.root.addHandler(logging.NullHandler())
    return logging.getLogger(TOOL)


def current_console() -> Console:
    """Return the console of the running command, which `run` sets up when it is first asked for."""
    console: Console = click.get_current_context().find_root().obj()
    return console


class Lines:
    """Events as JSON lines in a file, on an open descriptor or on stdout."""

    def __init__(self, where: str, warn: Callable[[str], None]) -> None:
        self.stdout = where == "-"
        self._stream = _open(where)
        self._where, self._warn, self._lost = where, warn, False

    def event(self, event: Event) -> None:
        """Write one event."""
        self._write(
            {
                "what": event.what.value,
                "key": event.key,
                "id": event.id,
                "why": event.why,
                "changed": event.changed,
            }
        )

    def last(self, document: Mapping[str, object]) -> None:
        """Write the document of the run."""
        self._write({"what": "result", "document": document})

    def _write(self, row: Mapping[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"v": "1", "time": now, **_each_text(row, without_values)})
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (BrokenPipeError, ValueError):
            pass  # a closed pipe does not end the run
        except OSError as error:
            if self.stdout and row["what"] == "result":
                raise _unprinted(error) from error
            if not (self._lost or self.stdout):
                self._warn(f"--events: cannot write to {self._where}: {error.strerror}")
            self._lost = True

    def close(self) -> None:
        """Close the stream, unless it is stdout."""
        if not self.stdout:
            with suppress(OSError):
                self._stream.close()


def _open(where: str) -> IO[str]:
    try:
        if where == "-":
            return sys.stdout
        if where.startswith("fd:"):
            number = int(where.removeprefix("fd:"))
            if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
                raise ValueError("it is open for reading only")
            return os.fdopen(os.dup(number), "w", encoding="utf-8")
        return open(where, "w", encoding="utf-8", opener=_for_others_to_read)
    except (OSError, OverflowError, ValueError) as error:  # no descriptor has 20 digits
        raise Usage(
            f"--events: cannot write to {where}: {getattr(error, 'strerror', None) or error}",
            "Use a file, - for stdout, or fd:N for an open descriptor.",
        ) from error


def _for_others_to_read(path: str, flags: int) -> int:
    """Open without O_EXCL or O_NOFOLLOW: the path may be a pipe.  Others can never write."""
    return os.open(path, flags, 0o644)


def _form(words: Sequence[str], environ: Mapping[str, str]) -> str:
    """Find the requested output format in a command line that may not parse."""
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if given := re.fullmatch(r"(?:--output=|-[qv]*o)(.+)", word):
            return given[1]
        if re.fullmatch(r"--output|-[qv]*o", word):
            return following
    return environ.get("HYPERPOD_EKS_OUTPUT") or "text"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be raised from itself
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _aws(error: BaseException | None) -> Refused | None:
    """Describe the call that AWS refused, from the error or one of its causes."""
    for each in _chain(error):
        response = getattr(each, "response", None)
        if isinstance(response, dict) and hasattr(each, "operation_name"):
            about, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
            return {
                "service": str(meta.get("Service", "")),
                "operation": str(each.operation_name),
                "code": str(about.get("Code", "")),
                "message": str(about.get("Message", "")),
                "request_id": str(meta.get("RequestId", "")),
            }
    return None


def _cause(error: BaseException | None) -> str:
    """Return the root cause as text; "" if it is the error itself."""
    every = list(_chain(error))
    return f"{type(every[-1]).__name__}: {every[-1]}" if len(every) > 1 else ""
