"""The errors of the tool, each with a message, a hint and an exit code."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple


class Exit(IntEnum):
    """The exit codes, a contract for pipelines; docs/pipelines.md describes them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DENIED = 3
    LOCKED = 4
    CHANGES = 5
    UNFINISHED = 6
    FOREIGN = 7
    NOT_FOUND = 8
    REMAINS = 9
    CAPACITY = 10
    NOT_WORKING = 11
    BUG = 70
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


FAILED = "failed"
"""The reason of an error about a resource that failed in AWS; ``--replace-failed`` helps."""


class KnownCause(NamedTuple):
    """The id of a cause (docs/troubleshooting.md), and the values for its placeholders."""

    id: str
    values: Mapping[str, str] = {}


class HyperpodError(Exception):
    """An error that we raise on purpose; the command line prints no traceback for it.

    ``hint`` says what the user can do, ideally the command to run.
    """

    exit = Exit.FAILED
    hint = ""
    transient = ""
    """The `ErrorKind`, by name, for which the engine tries again; empty for a final error."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        setting: str = "",
        reason: str = "",
        cause: KnownCause | None = None,
        then: tuple[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.hint = hint or type(self).hint
        self.setting = setting
        """The path of the config setting at fault, or ""."""
        self.reason = reason
        """For code to branch on, instead of the message: `FAILED`, or "" if none is known."""
        self.cause = cause
        """The known cause, if the code that raises the error knows it."""
        self.then = then
        """A purpose and a command of ours; the command line adds the cluster and its options."""


class Usage(HyperpodError):
    """The input is invalid: an option, the config file, or a file that it names."""

    exit = Exit.USAGE


class Denied(HyperpodError):
    """Credentials are missing, expired or lack a permission; nothing more was written."""

    exit = Exit.DENIED
    hint = "Nothing is lost: renew the credentials and run the same command again."


class Locked(HyperpodError):
    """Another run holds the manifest, or was first to create the cluster."""

    exit = Exit.LOCKED


class Unfinished(HyperpodError):
    """We stopped waiting while AWS is still working."""

    exit = Exit.UNFINISHED
    hint = "Nothing is lost: run the same command again to continue waiting."


class Foreign(HyperpodError):
    """A resource with our name exists, but this cluster does not own it."""

    exit = Exit.FOREIGN
    hint = (
        "Choose another cluster name, or remove that resource yourself. hyperpod-eks never changes"
        " it."
    )


class NotFound(HyperpodError):
    """The cluster, or what a command names of it, does not exist: a group, node or output."""

    exit = Exit.NOT_FOUND


class Remains(HyperpodError):
    """A delete could not remove everything."""

    exit = Exit.REMAINS
    hint = "Delete or detach what is listed above, then run the same command again."


class Capacity(HyperpodError):
    """AWS lacks the capacity, or the account lacks the quota."""

    exit = Exit.CAPACITY
