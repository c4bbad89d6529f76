"""Everything that can go wrong, as a shell sees it: a message, a way out, an exit code."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a pipeline may branch on; the whole contract is in docs/pipelines.md."""

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
    BUG = 70
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


FAILED = "failed"
"""The reason of an error about a resource that AWS calls failed: ``--replace-failed`` helps."""


class HyperpodError(Exception):
    """An error that we raise on purpose; the command line prints it without a traceback.

    ``hint`` is what the user can do about it, ideally the next command.
    """

    exit = Exit.FAILED
    hint = ""
    transient = False
    """Whether time heals it, so that the engine tries again."""

    def __init__(
        self, message: str, hint: str = "", *, setting: str = "", reason: str = "", cause: str = ""
    ) -> None:
        super().__init__(message)
        self.hint = hint or type(self).hint
        self.setting = setting
        """The setting of the config that it is about, if it is about one."""
        self.reason = reason
        """What code branches on, never the message: `FAILED`, or "" for no known reason."""
        self.cause = cause
        """The id of the known cause (docs/troubleshooting.md), where whoever raises it knows."""


class Usage(HyperpodError):
    """The input is wrong: an option, the config file, a file it names."""

    exit = Exit.USAGE


class Denied(HyperpodError):
    """Credentials are missing, expired or not allowed to do it; nothing more was written."""

    exit = Exit.DENIED
    hint = "Nothing is lost: renew the credentials and run the same command again."


class Locked(HyperpodError):
    """Another run holds the manifest, or was first to create the cluster."""

    exit = Exit.LOCKED


class Unfinished(HyperpodError):
    """We stopped waiting; AWS is still at work."""

    exit = Exit.UNFINISHED
    hint = "Nothing is lost: run the same command again to continue waiting."


class Foreign(HyperpodError):
    """Something stands under our name that this cluster does not own."""

    exit = Exit.FOREIGN
    hint = (
        "Choose another cluster name, or remove that resource yourself. hyperpod-eks never changes"
        " it."
    )


class NotFound(HyperpodError):
    """There is no such cluster."""

    exit = Exit.NOT_FOUND


class Remains(HyperpodError):
    """A delete that could not take everything away."""

    exit = Exit.REMAINS
    hint = "Delete or detach what is listed above, then run the same command again."


class Capacity(HyperpodError):
    """AWS has not the capacity, or the account not the quota."""

    exit = Exit.CAPACITY
