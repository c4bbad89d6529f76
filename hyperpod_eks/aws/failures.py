"""What a call that failed means: for whom to wait, and whether anything was done."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hyperpod_eks.aws.answers import NoAnswer
from hyperpod_eks.aws.errors import ErrorKind, match_error
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import HyperpodError


@contextmanager
def absent(*codes: str, says: str = "") -> Iterator[None]:
    """Read these error codes, if they say so, as "it is not there"; let every other error fly.

    ``codes`` are regular expressions for whole codes.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        about = error.response["Error"]
        known = any(re.fullmatch(code, str(about.get("Code"))) for code in codes)
        if not known or says not in str(about.get("Message")):
            raise


def raise_first(service: str, operation: str, errors: Iterable[JsonMapping]) -> None:
    """Raise the first thing that a call could not do and answered 200 all the same."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    for error in errors:
        status = 500 if error.get("Code") == "InternalError" else 400
        meta = {"HTTPStatusCode": status, "Service": service}
        answer: Json = {"Error": dict(error), "ResponseMetadata": meta}
        raise ClientError(answer, operation)


def classify(error: Exception) -> ErrorKind | None:
    """Classify whatever a call raised; None is a bug or a refusal that time does not heal."""
    from botocore import exceptions as e  # noqa: PLC0415

    if isinstance(error, NoAnswer):
        return ErrorKind.UNKNOWN
    if isinstance(error, HyperpodError):
        return ErrorKind.PROPAGATION if error.transient else None
    if isinstance(error, e.ClientError):
        about = error.response["Error"]
        return match_error(
            str(error.response["ResponseMetadata"].get("Service", "")),
            error.operation_name,
            str(about.get("Code") or ""),  # null where the answer is not AWS's
            str(about.get("Message") or ""),
            error.response["ResponseMetadata"].get("HTTPStatusCode", 0),
        )
    unsent = e.ConnectTimeoutError | e.EndpointConnectionError | e.ProxyConnectionError
    if isinstance(error, unsent):
        return ErrorKind.THROTTLE  # nothing was sent
    if isinstance(error, e.HTTPClientError | e.ConnectionError | _garbled()):
        return ErrorKind.UNKNOWN  # it may have been done
    if isinstance(error, credential_errors()):
        return ErrorKind.EXPIRED
    return None


def credential_errors() -> tuple[type[Exception], ...]:
    """What botocore raises when it finds no usable credentials."""
    from botocore import exceptions as e  # noqa: PLC0415

    return (
        e.NoCredentialsError,
        e.PartialCredentialsError,
        e.CredentialRetrievalError,
        e.TokenRetrievalError,
        e.SSOError,
        e.NoAuthTokenError,
        e.LoginError,  # of `aws login`
    )


def _garbled() -> type[Exception]:
    """What botocore raises for an answer that it cannot read, as proxies give them."""
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return ResponseParserError


def surely_not_applied(error: Exception) -> bool:
    """Whether we know that nothing was made: AWS understood and declined, or was never asked.

    A request that botocore had to send again may have been carried out the first time.
    """
    from botocore import exceptions as e  # noqa: PLC0415

    if isinstance(error, e.ClientError):
        about = error.response["ResponseMetadata"]
        # EC2 answers 503 when it throttles, and has done nothing
        declined = about.get("HTTPStatusCode", 500) < 500 or classify(error) is ErrorKind.THROTTLE
        return declined and not about.get("RetryAttempts")
    nothing_sent = e.ConnectTimeoutError | e.EndpointConnectionError | e.ProxyConnectionError
    # TLS may also break off an answer; where a certificate is refused, it is Unreachable
    perhaps = e.HTTPClientError | e.SSLError | _garbled() | NoAnswer
    return isinstance(error, nothing_sent) or not isinstance(error, perhaps)


def silent(error: BaseException) -> bool:
    """Whether nothing that AWS says came back, however long it was waited for."""
    from botocore.exceptions import HTTPClientError  # noqa: PLC0415

    return isinstance(error, HTTPClientError | NoAnswer)
