"""A log file for each run, without secrets."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from hyperpod_eks import folders
from hyperpod_eks.aws.redaction import logged, redacted
from hyperpod_eks.files import make_folder
from hyperpod_eks.terminal.text import printable

TOOL = "hyperpod_eks"
"""Name of the parent of all our modules' loggers."""
KEPT = 10
"""Number of logs of earlier runs to keep for each command."""
LONGEST = 200_000
"""Maximum characters of one record."""


class _Redacting(logging.Formatter):
    aloud = False
    """Whether records go to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if len(text) > LONGEST:  # an answer may have 100 MB
            text = f"{text[:LONGEST]}… ({len(text) - LONGEST} more characters)"
        return printable(redacted(text)) if self.aloud else redacted(text)


class Aloud(logging.Handler):
    """A handler that passes the text of warnings to a function."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Pass on a warning; errors end the run, which prints them itself."""
        if record.levelno == logging.WARNING:
            self._tell(record.getMessage())


@dataclass(eq=False, repr=False)
class Log:
    """The log of a run: the path of its file, None if it cannot be written, and its handlers."""

    path: Path | None
    _handlers: list[tuple[logging.Logger, logging.StreamHandler[IO[str]]]] = field(
        default_factory=list
    )

    def add(self, name: str | None, stream: IO[str], layout: str, level: int) -> None:
        """Write the records of a logger (None: the root) to a stream, without secrets."""
        handler = logging.StreamHandler(stream)
        formatter = _Redacting(layout)
        formatter.aloud = stream is sys.stderr
        handler.setFormatter(formatter)
        handler.addFilter(logged)
        logger = logging.getLogger(name)
        logging.raiseExceptions = False  # a worker may log after the run
        logger.addHandler(handler)
        logger.setLevel(level)
        self._handlers.append((logger, handler))

    def end(self, *, drop: bool = False) -> None:
        """Close the file and restore the loggers.  With ``drop``, delete the file."""
        for logger, handler in self._handlers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET if logger.parent else logging.WARNING)
            if handler.stream is not sys.stderr:
                with suppress(OSError):  # the disk may be full
                    handler.stream.close()
        self._handlers.clear()
        if drop and self.path:
            with suppress(OSError):
                self.path.unlink()


def start(verb: str, *, everything: bool = False, aloud: bool = False) -> Log:
    """Start the log of a run: our records, or ``everything``, botocore's requests included.

    The file has mode 0600.  An error while creating it is ignored: a run does not fail for want
    of a log.  With ``aloud``, each call to AWS is also written to stderr.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    log = Log(None)
    with suppress(OSError):
        logs = folders.state() / "logs"
        path = logs / f"{stamp}-{verb}-{os.getpid()}.log"
        make_folder(logs)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        log.path = path
        log.add(
            None if everything else TOOL,
            os.fdopen(descriptor, "a", encoding="utf-8", errors="replace"),
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            logging.DEBUG if everything else logging.INFO,
        )
        _drop_old(logs, verb)
    if aloud:
        log.add(f"{TOOL}.aws", sys.stderr, "%(message)s", logging.INFO)
    return log


def _drop_old(logs: Path, verb: str) -> None:
    """Delete all but the newest logs of a command."""
    of_this = re.compile(rf"\d{{8}}T\d{{6}}Z-{re.escape(verb)}-\d+\.log")
    earlier = sorted(each for each in logs.iterdir() if of_this.fullmatch(each.name))
    for old in earlier[: -KEPT - 1]:
        old.unlink(missing_ok=True)
