"""Our errors for those of AWS and of the connection to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hyperpod_eks.aws.errors import ErrorKind, renewal
from hyperpod_eks.aws.failures import classify
from hyperpod_eks.errors import Denied, HyperpodError
from hyperpod_eks.terminal.text import shortened

T = TypeVar("T")
LONGEST = 500
"""Maximum characters of another program's message in an error."""
_THEIRS = "_raised_by_the_program"


def of_aws(error: Exception) -> HyperpodError | None:
    """Return our error for one of AWS or of the connection to it; None for any other error."""
    from hyperpod_eks.aws.exceptions import BotoCoreError, ClientError  # noqa: PLC0415  slow
    from hyperpod_eks.policy import authorization  # noqa: PLC0415  the same

    kind, message = classify(error), shortened(str(error), LONGEST)
    if kind in (ErrorKind.EXPIRED, ErrorKind.DENIED):
        return Denied(message, authorization.cure(error) or renewal(str(error)))
    if kind or isinstance(error, BotoCoreError | ClientError):
        final = isinstance(error, ClientError) and kind is None  # a repetition would be refused too
        return HyperpodError(message, "" if final else "Run the same command again.")
    return None


@contextmanager
def as_ours() -> Iterator[None]:
    """Raise our error for one of AWS; what a program's `callback` has raised stays as it is."""
    try:
        yield
    except HyperpodError:
        raise
    except Exception as error:
        if not hasattr(error, _THEIRS) and (found := of_aws(error)):
            raise found from error
        raise


def callback(call: Callable[[T], None]) -> Callable[[T], None]:
    """Mark what a program's function raises, which may be an error of boto3, as the program's."""

    def marked(value: T) -> None:
        try:
            call(value)
        except Exception as error:
            setattr(error, _THEIRS, True)
            raise

    return marked
