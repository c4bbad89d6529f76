"""Limits on the time and size of AWS's answers, and a warning when no answer comes.

botocore's read timeout restarts with each byte, and botocore reads an answer of any length into
memory.  AWS answers a call within seconds; the longest answers are lists of a few MiB.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.httpsession import URLLib3Session
    from botocore.model import OperationModel
    from urllib3 import HTTPResponse

log = logging.getLogger(__name__)

CONNECT, ANSWER = 10.0, 50.0
"""Seconds to connect, and to wait for the next byte of an answer."""
SILENCE = 10.0
"""Seconds without an answer after which a warning is logged."""
PATIENCE = 120.0
"""Seconds that a call may take, with everything that botocore resends."""
LARGEST = 64 << 20
"""Bytes that the answers of all concurrent calls may have together."""
WORDS = 120
"""Bytes of a foreign answer that an error message quotes."""


class NoAnswer(HyperpodError):
    """AWS did not answer, or the answer came from something else, such as a proxy."""

    hint = (
        "Check what is between this machine and AWS: a proxy (HTTPS_PROXY, NO_PROXY), a network"
        " that requires a sign-in, AWS_ENDPOINT_URL. Then run the same command again."
    )
    transient = "UNKNOWN"


class _Here(threading.local):
    """A thread's call: the time at which it must end (0 before it is sent), and what answered."""

    until = 0.0
    said = b""


_here = _Here()
_sizes: dict[int, int] = {}
"""Bytes read so far of each thread's current answer, by thread id."""


class Watch:
    """The calls in progress of all attached clients."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str, float]] = {}
        self._lock = threading.Lock()
        self._told = self._runs = False

    def attach(self, client: Any) -> None:  # the stubs lack `_endpoint`
        """Limit the calls of a boto3 client; they raise NoAnswer if AWS does not answer."""
        events, http = client.meta.events, client._endpoint.http_session

        def send(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
            now = time.monotonic()
            if not _here.until:  # the wait for the rate limit is over
                _here.until = now + PATIENCE
            elif now + CONNECT + ANSWER > _here.until:  # it could end too late
                name = self._calls.get(threading.get_ident(), ("", 0.0))[0]
                raise _too_late(name, now - (_here.until - PATIENCE))
            return None if request.stream_output else _bounded(http, request, _here.until)

        events.register("before-call", self._begin)
        events.register_last("before-send", send)  # after the rate limit
        events.register("after-call", self._answered)
        events.register("after-call-error", self._failed)

    def _begin(self, model: OperationModel, params: JsonMapping, **_: object) -> None:
        name = f"{model.service_model.service_name}:{model.name}"
        _here.until, _here.said = 0.0, b""
        with self._lock:
            self._calls[threading.get_ident()] = (
                f"{name} ({_host(params['url'])})",
                time.monotonic(),
            )
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._look, daemon=True, name="hyperpod-eks").start()

    def end(self) -> str:
        """Watch this thread's call no longer; return its name, "" without one."""
        with self._lock:
            return self._calls.pop(threading.get_ident(), ("", 0.0))[0]

    def _answered(
        self, http_response: AWSResponse, parsed: JsonObject, model: OperationModel, **_: object
    ) -> None:
        self.end()
        _refuse_strangers(http_response, parsed, model)

    def _failed(self, exception: Exception, **_: object) -> None:
        name = self.end()
        if not isinstance(exception, HyperpodError) and _unreadable(exception):
            raise NoAnswer(f"{name}: the answer is not from AWS: {_last()}") from exception

    def _look(self) -> None:
        """Warn once of a call without an answer; end after ten seconds without calls."""
        idle, pause = 0, threading.Event()
        while idle < 10:
            pause.wait(1)
            with self._lock:
                calls = list(self._calls.values())
                idle = 0 if calls else idle + 1
                if idle == 10:
                    self._runs = False
            for name, began in calls:
                if not self._told and time.monotonic() - began > SILENCE:
                    self._told = True
                    log.warning("%s has not answered for %.0f s; still trying", name, SILENCE)


def _too_late(name: str, seconds: float) -> NoAnswer:
    last = f"; the last one began with {_last()}" if _here.said else ""
    return NoAnswer(f"{name}: no {'valid ' * bool(last)}answer for {seconds:.0f} s{last}")


def _host(url: str) -> str:
    """Return a URL's host and port, without user and password.

    >>> _host("https://me:secret@ec2.us-west-2.amazonaws.com/?x")
    'ec2.us-west-2.amazonaws.com'
    """
    return urlsplit(url).netloc.rpartition("@")[2]


def _bounded(http: URLLib3Session, request: AWSPreparedRequest, until: float) -> AWSResponse:
    """Send a request and read its answer within `LARGEST` bytes, until a time."""
    from botocore.awsrequest import AWSResponse  # noqa: PLC0415
    from botocore.exceptions import ConnectionClosedError  # noqa: PLC0415

    request.stream_output = True  # so that botocore does not read it
    try:
        answer = http.send(request)
    finally:
        request.stream_output = False
    content = _content(answer.raw, request, until)
    length = answer.headers.get("Content-Length", "")
    if request.method != "HEAD" and length.isdecimal() and len(content) < int(length[:18]):
        cut = f"{len(content)} of {length} bytes came"
        raise ConnectionClosedError(error=cut, request=request, endpoint_url=request.url)
    _here.said = content[:WORDS]
    if content[:WORDS].lstrip().startswith(b"<") and b"<!ENTITY" in content:
        # expanded entities can fill gigabytes; AWS's XML declares none
        raise NoAnswer(f"{_host(request.url)}: what answers is not AWS: {_last()}")
    return AWSResponse(answer.url, answer.status_code, answer.headers, _Read(content))  # type: ignore[arg-type]  # as `send` passes them


def _content(raw: HTTPResponse, request: AWSPreparedRequest, until: float) -> bytes:
    """Read an answer within `LARGEST`, until a time; raise the same errors as botocore."""
    from botocore.exceptions import ConnectionClosedError, ReadTimeoutError  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415
    from urllib3.exceptions import ReadTimeoutError as Slow  # noqa: PLC0415

    found, size, began = io.BytesIO(), 0, time.monotonic()
    me, url = threading.get_ident(), request.url
    try:
        for part in _parts(raw):
            size += found.write(part)
            _sizes[me] = size
            if sum(_sizes.copy().values()) > LARGEST or time.monotonic() > until:
                raw.close()
                raise NoAnswer(
                    f"the answer from {_host(url)} does not end: {size} bytes in"
                    f" {time.monotonic() - began:.0f} s, beginning with {_words(found.getvalue())}"
                )
    except Slow as error:
        raise ReadTimeoutError(endpoint_url=url, error=error) from error
    except HTTPError as error:
        raise ConnectionClosedError(error=error, request=request, endpoint_url=url) from error
    finally:
        _sizes.pop(me, None)
    return found.getvalue()


def _parts(raw: HTTPResponse) -> Iterator[bytes]:
    """Yield bytes as they arrive; urllib3's ``stream`` waits for complete chunks."""
    if not hasattr(raw, "read1"):  # urllib3 1.26
        yield from raw.stream(1 << 10)
        return
    while part := raw.read1(1 << 16):
        yield part


class _Read:
    """A body that is in memory, with the ``stream`` method that `AWSResponse` calls."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: object, **__: object) -> Iterator[bytes]:
        yield self._content


def _request_id(parsed: JsonObject) -> object:
    return parsed.get("ResponseMetadata", {}).get("RequestId")


def _garbled(content: bytes, model: OperationModel) -> bool:
    """Whether a JSON service's answer is not a JSON object; botocore parses it as empty."""
    if "json" not in str(model.service_model.metadata.get("protocol")) or not content:
        return False
    try:
        return not isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return True


def _unreadable(error: BaseException) -> bool:
    """Whether botocore's parser raised: it fails with KeyError etc. on unexpected content."""
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_globals.get("__name__") == "botocore.parsers":
            return True
        trace = trace.tb_next
    return False


def _last() -> str:
    """Return the beginning of this thread's last answer, quoted."""
    return _words(_here.said)


def _words(content: bytes) -> str:
    return repr(content[:WORDS].decode("utf-8", "replace"))


def policy(text: str) -> JsonObject:
    """Parse a policy document from an answer; raise NoAnswer if it is not a JSON object.

    >>> policy('{"Version": "2012-10-17"}')
    {'Version': '2012-10-17'}
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NoAnswer(f"a policy is not a JSON object, so not from AWS: {_words(text.encode())}")
    return found


def _refuse_strangers(answer: AWSResponse, parsed: JsonObject, model: OperationModel) -> None:
    """Raise NoAnswer for a success without AWS content, and for a failure without an ``Error``.

    Every answer of AWS has a request id (AWS SDKs and Tools, "Request ID").  An answer that has
    neither a request id nor a member of the operation's output comes from a proxy or a sign-in
    page; so does a failure in which botocore's parser finds no ``Error``.
    """
    output = model.output_shape
    said = set(parsed) - {"ResponseMetadata"}
    empty = (
        output is not None
        and output.members
        and not said
        and (_garbled(answer.content, model) or not _request_id(parsed))
    )
    nameless = not isinstance(parsed.get("Error"), dict)
    if empty if answer.status_code < 300 else nameless:
        raise NoAnswer(
            f"{model.service_model.service_name}:{model.name}: the answer from"
            f" {_host(answer.url)} is not from AWS: {_words(answer.content)}"
        )
