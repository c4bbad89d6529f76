"""boto3's proxies and certificates, also for Kubernetes, the chart's download and helm.

boto3 takes proxies from HTTP_PROXY, HTTPS_PROXY and NO_PROXY (boto3 guide, "Using proxies"), and
certificate authorities from AWS_CA_BUNDLE or the profile's ``ca_bundle`` (AWS SDKs and Tools
reference guide, "General configuration settings") or else from REQUESTS_CA_BUNDLE (botocore).
"""

from __future__ import annotations

import io
import ipaddress
import os
import re
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from hyperpod_eks import files
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, KnownCause, Usage

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.session import Session
    from urllib3 import BaseHTTPResponse, PoolManager

CONNECT, READ = 10.0, 30.0
"""Seconds to connect, and to wait for the next bytes of an answer."""
WHOLE = 300.0
"""Seconds for a whole download: the limit on a server that sends a few bytes at a time."""
TRIES = 3
"""How often a proxy that does not answer is tried; a refusal is final."""


class Unreachable(HyperpodError):
    """A proxy or a certificate prevents a call, and a retry would fail as well."""


class Proxy(NamedTuple):
    """A proxy: its URL, which may contain a password, and the headers that log in to it."""

    url: str
    headers: Mapping[str, str]


# --- proxies --------------------------------------------------------------------------------------


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that boto3 would use for a URL; None for loopback.

    Raises Usage for a proxy that boto3 cannot use, unless NO_PROXY excepts the URL.  Both variables
    must be valid: boto3 asks the instance metadata service by plain HTTP.
    """
    from botocore.httpsession import ProxyConfiguration  # noqa: PLC0415  botocore costs 0.15 s
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    given, own = get_environ_proxies(url), urlsplit(url).scheme
    proxies = ProxyConfiguration(given)
    for scheme in ("http", "https"):
        kind = re.match(r"([A-Za-z][\w+.-]*)://", given.get(scheme, ""))
        if kind and kind[1].lower() not in ("http", "https"):
            if scheme == own:
                raise Usage(
                    f"{_variable(scheme)} names a {kind[1]} proxy, which boto3 does not support",
                    "Use an HTTP proxy (http://HOST:PORT), or unset the variable.",
                )
        elif fault := _proxy_fault(proxies.proxy_url_for(f"{scheme}://x")):
            raise Usage(f"{_variable(scheme)} {fault}", "Correct or unset it.")
    if _is_loopback(url):
        return None
    found = proxies.proxy_url_for(url)
    return Proxy(found, proxies.proxy_headers_for(found)) if found else None


def _proxy_fault(url: str | None) -> str:
    """Return why boto3 cannot use the URL of a proxy, without its password; empty if it can.

    >>> _proxy_fault("http://me:pass@h:3128"), _proxy_fault("http://me:pass@[::1")
    ('', 'is not a URL; use http(s)://HOST[:PORT]')
    """
    if not url:
        return ""
    scheme, _, rest = url.partition("://")
    login, _, place = rest.rpartition("@")
    place = place.replace("://", " ")  # boto3 takes HTTP:// in capitals for a host
    if fault := url_fault(f"{scheme}://{place}"):
        return fault
    if re.search(r"[/?#\[\]\\]", login):  # the host would end there
        return "has a character in user or password that a URL must encode: write / as %2F"
    if not unquote(login).isascii():
        return "has a user or password that is not ASCII, which boto3 does not support"
    return ""


def url_fault(url: str) -> str:
    """Return what is wrong with the URL of an endpoint or a proxy; empty if it is valid.

    >>> url_fault("https://vpce-1.ec2.us-west-2.vpce.amazonaws.com"), url_fault("foo")
    ('', 'is not a URL; use http(s)://HOST[:PORT]')
    """
    with suppress(ValueError):  # a port that is no number, an unclosed bracket
        parts = urlsplit(url)
        more = parts.query or parts.fragment  # botocore would ignore them, or parts of them
        odd = parts.port == 0 or more or re.search(r"[^\x21-\x7e]", url)
        if parts.scheme in ("http", "https") and parts.hostname and not odd:
            return ""
    return "is not a URL; use http(s)://HOST[:PORT]"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _variable(scheme: str) -> str:
    """Return the source of a proxy, for messages; Python prefers the variable in lower case."""
    names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
    return next((each for each in names if os.environ.get(each)), "the system's configuration")


# --- certificates ---------------------------------------------------------------------------------


def ca_bundle(session: Session) -> str | None:
    """Return the file or folder of certificate authorities that boto3 trusts; None for its default.

    Raises Usage if ``ca_bundle`` is a section of the configuration instead of a path.
    """
    configured = session.get_config_variable("ca_bundle")
    if configured and not isinstance(configured, str):
        raise Usage(
            "ca_bundle of the AWS profile is a section, not the name of a file",
            "Correct it in the AWS configuration: ca_bundle = /path/to/bundle.pem",
        )
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or None


def certificates(bundle: str | None) -> str:
    """Return the certificates in a bundle, as PEM; empty for a folder or None."""
    if bundle is None or Path(bundle).is_dir():
        return ""
    block = r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----"
    found: list[str] = re.findall(block, Path(bundle).read_text(errors="replace"), re.DOTALL)
    return "\n".join([*found, ""])


def trusting(bundle: str | None, authorities: str = "") -> ssl.SSLContext:
    """Return the TLS context that trusts a bundle and further authorities, as PEM.

    All connections share it: botocore and urllib3 would read the bundle for each of them, which
    takes OpenSSL 15 ms.  Raises Usage for a bundle that boto3 can never use.
    """
    changed = 0
    if bundle:
        with suppress(OSError):  # said by `_trust`
            changed = Path(bundle).stat().st_mtime_ns
    with _READING:  # the others need what the first one reads
        return _trusting(bundle, changed, authorities)


_READING = threading.Lock()


@lru_cache(maxsize=8)
def _trusting(bundle: str | None, changed: int, authorities: str) -> ssl.SSLContext:
    from botocore.httpsession import create_urllib3_context  # noqa: PLC0415  botocore costs 0.15 s

    context: ssl.SSLContext = create_urllib3_context()  # the settings of boto3
    if bundle:
        _trust(context, bundle)
    if authorities:
        context.load_verify_locations(cadata=authorities)
    # urllib3 sets the protocols for each connection, and OpenSSL frees the list that the handshake
    # of another thread is copying: its server would get other bytes
    context.set_alpn_protocols(["http/1.1"])
    vars(context)["set_alpn_protocols"] = lambda _: None
    return context


def share_trust(client: Any) -> None:  # the stubs lack `_endpoint`
    """Let a boto3 client's connections, also those to a proxy, use the context of `trusting`."""
    from botocore.httpsession import get_cert_path  # noqa: PLC0415

    session = client._endpoint.http_session
    own = session._setup_proxy_ssl_context

    def set_up(pool: Any, url: str, verify: bool | str) -> None:
        if url.lower().startswith("https"):
            pool.cert_reqs = "CERT_REQUIRED"
            pool.conn_kw["ssl_context"] = trusting(get_cert_path(verify))  # type: ignore[arg-type]  # it takes a path too

    def set_up_proxy(url: str) -> ssl.SSLContext:
        return own(url) or trusting(get_cert_path(session._verify))

    session._setup_ssl_cert, session._setup_proxy_ssl_context = set_up, set_up_proxy


def _trust(context: ssl.SSLContext, bundle: str) -> None:
    path = Path(bundle)
    try:
        if not path.is_dir():
            files.resolved(path)  # a pipe would block, and can be read only once
        context.load_verify_locations(**{"capath" if path.is_dir() else "cafile": bundle})
    except (OSError, Usage) as error:
        why = getattr(error, "strerror", None) or str(error)
        if isinstance(error, ssl.SSLError):
            why = "it holds no certificate"
        raise Usage(
            f"the CA bundle {bundle} cannot be used: {why}",
            "Correct or unset AWS_CA_BUNDLE, ca_bundle of the profile or REQUESTS_CA_BUNDLE.",
        ) from error


# --- errors ---------------------------------------------------------------------------------------


def give_up(
    caught_exception: Exception | None = None,
    request_dict: JsonMapping | None = None,
    attempts: int = 1,
    **_: object,
) -> None:
    """Handle botocore's event needs-retry: raise Unreachable for an error that a retry repeats."""
    if caught_exception is not None:
        url = str((request_dict or {}).get("url", ""))
        if final := in_the_way(caught_exception, url, attempts):
            raise final from caught_exception


def in_the_way(error: Exception, url: str, attempts: int = TRIES) -> Unreachable | None:
    """Return Unreachable if a proxy or a certificate prevents a call to a URL; else None.

    ``error`` is an exception of botocore or urllib3.
    """
    from botocore.exceptions import BotoCoreError, ProxyConnectionError  # noqa: PLC0415
    from urllib3.exceptions import ProxyError  # noqa: PLC0415

    # botocore's exceptions keep the original, which says more, in their arguments
    inner = error.kwargs.get("error", error) if isinstance(error, BotoCoreError) else error
    host = _host(url)
    if "CERTIFICATE_VERIFY_FAILED" in str(inner):
        return Unreachable(
            f"the certificate of {host} is not trusted here: {inner}",
            "If a proxy or firewall intercepts TLS, set AWS_CA_BUNDLE, or ca_bundle of the profile,"
            " to the file with its certificate authority.",
        )
    why = str(getattr(inner, "original_error", inner))
    if isinstance(error, ProxyError | ProxyConnectionError):
        return _proxy_in_the_way(why, url, attempts)
    if _PLAIN in why:
        return Unreachable(
            f"{host} does not speak TLS: {why}",
            "If AWS_ENDPOINT_URL or endpoint_url of the profile names it, write http:// there;"
            " otherwise check what is between this machine and AWS.",
        )
    return None


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


_PLAIN = "WRONG_VERSION_NUMBER"
"""OpenSSL's reason for an answer in plain HTTP."""


def _proxy_in_the_way(why: str, url: str, attempts: int) -> Unreachable | None:
    refused, plain = "Tunnel connection failed" in why, _PLAIN in why
    if re.search(r"Tunnel connection failed: 5", why) or (
        attempts < TRIES and not refused and not plain
    ):
        return None  # the proxy may recover
    place, host, proxy = urlsplit(url).scheme or "https", _host(url), proxy_for(url)
    name = urlsplit(proxy.url).netloc.rpartition("@")[2] if proxy else "of this machine"
    if plain:
        return Unreachable(
            f"the proxy {name} does not speak TLS: {why}",
            f"Write http:// in {_variable(place)}.",
        )
    return Unreachable(
        f"the proxy {name} cannot reach {host}: {why}",
        f"Correct {_variable(place)}, with user and password if the proxy requires them, or add the"
        " host to NO_PROXY.",
        cause=KnownCause("proxy"),
    )


# --- downloads and programs -----------------------------------------------------------------------


@contextmanager
def download(url: str, bundle: str | None) -> Iterator[io.BufferedReader]:
    """Open a URL and yield a stream of its content.

    It trusts the authorities of this machine and those of boto3.  Raises HyperpodError for any
    status but 200, and for a download that takes longer than `WHOLE`.
    """
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    with pool_for(url, bundle) as pool:
        try:
            answer = pool.request("GET", url, preload_content=False)
            with closing(answer):
                if answer.status != 200:
                    words = answer.read(200, decode_content=False).decode(errors="replace")
                    raise HyperpodError(f"{answer.status} {answer.reason}: {words!r}")
                yield io.BufferedReader(_Timed(answer))
        except HTTPError as error:
            raise (in_the_way(error, url) or HyperpodError(str(error))) from error


def pool_for(url: str, bundle: str | None) -> PoolManager:
    """Return connections to a URL, which retry nothing and follow no redirect.

    They trust the authorities of this machine and those of boto3.
    """
    from botocore.httpsession import where  # noqa: PLC0415
    from urllib3 import PoolManager, ProxyManager, Timeout  # noqa: PLC0415

    context = ssl.create_default_context()
    _trust(context, bundle or where())
    usual: JsonObject = {
        "ssl_context": context,
        "timeout": Timeout(CONNECT, READ),
        "retries": False,
    }
    proxy = proxy_for(url)
    if proxy:
        headers = proxy.headers
        return ProxyManager(proxy.url, proxy_headers=headers, proxy_ssl_context=context, **usual)
    return PoolManager(**usual)


class _Timed(io.RawIOBase):
    """An answer whose reads raise HyperpodError after `WHOLE` seconds."""

    def __init__(self, answer: BaseHTTPResponse) -> None:
        self._answer, self._until = answer, time.monotonic() + WHOLE

    def readable(self) -> bool:
        return True

    def readinto(self, into: WriteableBuffer) -> int:
        if time.monotonic() > self._until:
            raise HyperpodError(f"it was not finished after {WHOLE:.0f} s")
        view = memoryview(into)
        found = self._answer.read1(len(view), decode_content=False)
        view[: len(found)] = found
        return len(found)


def environment(bundle: str | None, endpoint: str = "") -> dict[str, str]:
    """Return variables that give a Go program the same proxies and certificates, for `endpoint`.

    Go interprets NO_PROXY and the order of upper and lower case differently from Python
    (golang.org/x/net/http/httpproxy), and takes authorities from SSL_CERT_FILE (crypto/x509).
    """
    from urllib.request import getproxies  # noqa: PLC0415  costs 20 ms

    found: dict[str, str] = {}
    if bundle:
        where = str(Path(bundle).absolute())  # helm runs in another folder
        found["SSL_CERT_DIR" if Path(bundle).is_dir() else "SSL_CERT_FILE"] = where
    for scheme, proxy in getproxies().items():
        if scheme in ("http", "https"):
            found[f"{scheme}_proxy"] = found[f"{scheme}_PROXY".upper()] = proxy
    if endpoint and proxy_for(endpoint) is None:
        host = urlsplit(endpoint).hostname or ""
        excepted = ",".join(filter(None, [getproxies().get("no", ""), host]))
        found["no_proxy"] = found["NO_PROXY"] = excepted
    return found
