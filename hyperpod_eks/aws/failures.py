"""The meaning of a failed call: whether to wait, and whether AWS may have applied it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hyperpod_eks.aws.answers import NoAnswer
from hyperpod_eks.aws.errors import ErrorKind, match_error
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Denied, HyperpodError


@contextmanager
def absent(*codes: str, says: str = "") -> Iterator[None]:
    """Suppress errors that mean "it does not exist"; raise all others.

    ``codes`` are regular expressions for whole error codes; ``says`` is part of the message.
    """
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        yield
    except ClientError as error:
        about = error.response["Error"]
        known = any(re.fullmatch(code, str(about.get("Code"))) for code in codes)
        if not known or says not in str(about.get("Message")):
            raise


@contextmanager
def not_offered() -> Iterator[None]:
    """Suppress the errors with which a service says that the region lacks an operation.

    SageMaker does so by its code ("UnknownOperationException: The requested operation is not
    supported in the called region.") or by its message alone ("This operation is not supported in
    this region"): github.com/hashicorp/terraform-provider-aws, pull request 27258;
    github.com/aws/aws-sdk-js, issue 4584.
    """
    with absent("UnknownOperationException"), absent(".*", says="not supported in th"):
        yield


def why_not_asked(error: Exception) -> str:
    """Return why a service gives no answer at all: no permission, no way to it; else ""."""
    from hyperpod_eks.aws.transport import Unreachable  # noqa: PLC0415  it imports this module

    code, words = refusal(error)
    if re.fullmatch("AccessDenied.*|UnrecognizedClientException|OptInRequired", code):
        return f"{code}: {words}"
    return str(error) if silent(error) or isinstance(error, (Unreachable, *_unsent())) else ""


def cannot_ask(service: str, why: str, error: Exception) -> HyperpodError:
    """Return the error about a service that the cluster uses and that gives no answer at all."""
    variable = f"AWS_ENDPOINT_URL_{service.upper()}"
    return (Denied if refusal(error)[0] else HyperpodError)(
        f"{service} cannot be asked what of the cluster exists there: {why}",
        f"Check your permissions, the network's way to {service}, and {variable} or endpoint_url of"
        " the profile, if it is set. Then run the same command again.",
    )


@contextmanager
def unless_refused() -> Iterator[None]:
    """Suppress errors of a service that gives no answer at all; raise all others."""
    try:
        yield
    except Exception as error:
        if not why_not_asked(error):
            raise


def raise_first(service: str, operation: str, errors: Iterable[JsonMapping]) -> None:
    """Raise the first of the errors that an answer with status 200 lists, as ClientError."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    for error in errors:
        status = 500 if error.get("Code") == "InternalError" else 400
        meta = {"HTTPStatusCode": status, "Service": service}
        answer: Json = {"Error": dict(error), "ResponseMetadata": meta}
        raise ClientError(answer, operation)


def refusal(error: Exception) -> tuple[str, str]:
    """Return the code and the words with which AWS refused; empty where it is no answer of AWS."""
    about = (getattr(error, "response", None) or {}).get("Error", {})
    return str(about.get("Code") or ""), str(about.get("Message") or "")


def classify(error: Exception) -> ErrorKind | None:
    """Return the kind of any exception; None is a bug or a refusal that waiting cannot change."""
    from botocore import exceptions as e  # noqa: PLC0415

    if isinstance(error, HyperpodError):
        return ErrorKind[error.transient] if error.transient else None
    if isinstance(error, e.ClientError):
        about = error.response["Error"]
        return match_error(
            str(error.response["ResponseMetadata"].get("Service", "")),
            error.operation_name,
            str(about.get("Code") or ""),  # null in a foreign answer
            str(about.get("Message") or ""),
            error.response["ResponseMetadata"].get("HTTPStatusCode", 0),
        )
    if isinstance(error, _unsent()):
        return ErrorKind.THROTTLE  # nothing was sent
    if isinstance(error, e.HTTPClientError | e.ConnectionError | _garbled()):
        return ErrorKind.UNKNOWN  # AWS may have applied it
    if isinstance(error, credential_errors()):
        return ErrorKind.EXPIRED
    return None


def credential_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that botocore raises without usable credentials."""
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


def _unsent() -> tuple[type[Exception], ...]:
    """Return botocore's exceptions for requests that did not leave."""
    from botocore import exceptions as e  # noqa: PLC0415

    return (e.ConnectTimeoutError, e.EndpointConnectionError, e.ProxyConnectionError)


def _garbled() -> type[Exception]:
    """Return botocore's exception for an answer that it cannot parse, such as a proxy's page."""
    from botocore.parsers import ResponseParserError  # noqa: PLC0415

    return ResponseParserError


def surely_not_applied(error: Exception) -> bool:
    """Whether AWS certainly changed nothing: it refused the request, or never received it.

    A request that botocore sent more than once may have been applied the first time.
    """
    from botocore import exceptions as e  # noqa: PLC0415

    if isinstance(error, e.ClientError):
        about = error.response["ResponseMetadata"]
        # EC2 throttles with status 503, and has applied nothing then
        declined = about.get("HTTPStatusCode", 500) < 500 or classify(error) is ErrorKind.THROTTLE
        return declined and not about.get("RetryAttempts")
    # TLS may also fail during an answer; an untrusted certificate is Unreachable instead
    perhaps = e.HTTPClientError | e.SSLError | _garbled() | NoAnswer
    return isinstance(error, _unsent()) or not isinstance(error, perhaps)


def silent(error: BaseException) -> bool:
    """Whether a call ended without an answer of AWS."""
    from botocore.exceptions import HTTPClientError  # noqa: PLC0415

    return isinstance(error, HTTPClientError | NoAnswer)
