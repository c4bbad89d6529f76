"""A file for each run, to be read when something went wrong; no secret is in it."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

TOOL = "hyperpod_eks"
"""The logger of all our modules."""
KEPT = 20
"""Logs of earlier runs that stay."""

_HIDDEN = "[hidden]"
_SECRETS = (
    # an EKS token is a presigned URL, and opens the cluster for a quarter of an hour
    (re.compile(r"k8s-aws-v1\.[\w-]+"), f"k8s-aws-v1.{_HIDDEN}"),
    (re.compile(r"(?i)(bearer |x-amz-(?:security-token|signature)=)[^\s'\"&]+"), rf"\1{_HIDDEN}"),
    (re.compile(r"(Signature=|Signature:\n)[0-9a-f]{16,}"), rf"\1{_HIDDEN}"),
    # headers, JSON, XML and reprs of them: a name, what stands between, and the value
    (
        re.compile(
            r"(?i)((?:authorization|x-amz-security-token|(?:secret_?access|aws_secret)_?key(?!_id)"
            r"|aws_secret_access_key|session_?token|client-?_?secret|access_?token|refresh_?token"
            r"|password)"
            r"\\?['\"]?\s*[:=>]\s*(?:b?\\?['\"])?)"
            r"(?:[^'\"\\<>\n]+)"
        ),
        rf"\1{_HIDDEN}",
    ),
)


def redacted(text: str) -> str:
    """Hide credentials, signatures and tokens.

    >>> redacted("'Authorization': b'AWS4-HMAC-SHA256 Credential=AKIA/2026', 'Host': b'a'")
    "'Authorization': b'[hidden]', 'Host': b'a'"
    >>> redacted("<SecretAccessKey>abc/def</SecretAccessKey><SessionToken>xyz</SessionToken>")
    '<SecretAccessKey>[hidden]</SecretAccessKey><SessionToken>[hidden]</SessionToken>'
    >>> redacted("token: k8s-aws-v1.aHR0cHM6Ly9zdHM_x-y end")
    'token: k8s-aws-v1.[hidden] end'
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


class _Redacting(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the logs, in the user's state folder."""
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "hyperpod-eks" / "logs"


@dataclass
class Log:
    """The log of a run: its file, None where none can be written, and what writes to it."""

    path: Path | None
    _handlers: list[tuple[logging.Logger, logging.StreamHandler[Any]]] = field(default_factory=list)

    def add(self, name: str | None, stream: IO[str], layout: str, level: int) -> None:
        """Write what a logger (None: all of them) says to a stream, without secrets."""
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Redacting(layout))
        logger = logging.getLogger(name)
        logging.raiseExceptions = False  # a worker that ends after the run has nobody to tell
        logger.addHandler(handler)
        logger.setLevel(level)
        self._handlers.append((logger, handler))

    def end(self) -> None:
        """Close the file; loggers are as they were."""
        for logger, handler in self._handlers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET if logger.parent else logging.WARNING)
            if handler.stream is not sys.stderr:
                with suppress(OSError):  # the disk may be full
                    handler.stream.close()
        self._handlers.clear()


def start(verb: str, *, everything: bool = False, aloud: bool = False) -> Log:
    """Begin this run's log: what we do, or ``everything``, botocore's requests included.

    Its file can be read by its owner alone; a log is not worth failing for, so that a folder which
    cannot be written means no file.  ``aloud`` tells each call to AWS on stderr as well.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = folder() / f"{stamp}-{verb}-{os.getpid()}.log"
    log = Log(None)
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        log.path = path
        log.add(
            None if everything else TOOL,
            os.fdopen(descriptor, "a", encoding="utf-8", errors="replace"),
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            logging.DEBUG if everything else logging.INFO,
        )
        for old in sorted(path.parent.glob("*.log"))[: -KEPT - 1]:
            old.unlink(missing_ok=True)
    if aloud:
        log.add(f"{TOOL}.aws", sys.stderr, "%(message)s", logging.INFO)
    return log
