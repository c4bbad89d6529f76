"""Access to a cluster's Kubernetes API: its endpoint, authorities and tokens, and the package."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import field
from functools import cache, cached_property
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperpod_eks.aws import transport
from hyperpod_eks.documents import JsonObject
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from types import ModuleType

    from botocore.awsrequest import AWSRequest
    from kubernetes.client import Configuration
    from kubernetes.client.rest import RESTClientObject
    from mypy_boto3_sts import STSClient
    from urllib3 import BaseHTTPResponse, PoolManager

TOKEN_LIFE = 600.0
"""Seconds for which a token is used; EKS accepts it for 15 minutes."""


def token(sts: STSClient, cluster: str) -> str:
    """Return a bearer token for an EKS cluster, valid for 15 minutes, without a network call.

    It is a presigned ``sts:GetCallerIdentity`` with the cluster's name in a signed header, as
    in `aws eks get-token`.  ``AWS_ENDPOINT_URL`` and ``AWS_ENDPOINT_URL_STS`` set the host.
    """
    header = "x-k8s-aws-id"

    def take(params: JsonObject, context: JsonObject, **_: object) -> None:
        if header in params:
            context[header] = params.pop(header)

    def sign(request: AWSRequest, **_: object) -> None:
        if header in request.context:
            request.headers[header] = request.context[header]

    events = sts.meta.events
    events.register("provide-client-params.sts.GetCallerIdentity", take, unique_id="cluster")
    events.register("before-sign.sts.GetCallerIdentity", sign, unique_id="header")
    named: Any = {header: cluster}  # not a parameter of the operation
    url = sts.generate_presigned_url(
        "get_caller_identity", Params=named, ExpiresIn=60, HttpMethod="GET"
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


@frozen
class Access:
    """Access to one cluster: name, endpoint and CA (base64) of ``eks:DescribeCluster``, a function
    that returns a new token, and a bundle of further authorities.

    >>> Access("demo", "https://example.invalid", "", lambda: "secret")
    Access(cluster='demo', endpoint='https://example.invalid')
    """

    cluster: str
    endpoint: str
    ca: str
    token: Callable[[], str]
    bundle: str | None = None
    alone: threading.Event = field(default_factory=threading.Event, compare=False)
    """Set if the CA alone has verified the endpoint's certificate (see `_try_alone`)."""

    def __repr__(self) -> str:
        return f"Access(cluster={self.cluster!r}, endpoint={self.endpoint!r})"

    @property
    def authorities(self) -> str:
        """The CA and the bundle, as PEM."""
        return f"{self._own}\n{transport.certificates(self.bundle)}"

    @property
    def needed_authorities(self) -> str:
        """The CA, and the bundle unless the CA was enough, as PEM."""
        return self._own if self.alone.is_set() else self.authorities

    @property
    def _own(self) -> str:
        return base64.b64decode(self.ca).decode()

    @cached_property
    def _configuration(self) -> Configuration:
        """The endpoint, its proxy and a token, independent of the user's kubeconfig."""
        configuration: Any = _package().Configuration()
        configuration.host = self.endpoint
        proxy = transport.proxy_for(self.endpoint)  # the client would choose another
        configuration.proxy = proxy.url if proxy else None
        configuration.proxy_headers = dict(proxy.headers) if proxy else None
        configuration.no_proxy = None
        configuration.retries = False  # callers decide about retries
        expires = 0.0

        def refresh(of: Configuration) -> None:
            nonlocal expires
            if time.monotonic() > expires:
                of.api_key = {"authorization": f"Bearer {self.token()}"}
                expires = time.monotonic() + TOKEN_LIFE

        refresh(configuration)  # the hook is called only if a key exists
        configuration.refresh_api_key_hook = refresh
        return configuration  # type: ignore[no-any-return]

    @cached_property
    def _rest(self) -> RESTClientObject:
        """The REST client of `kubernetes`; its ApiClient takes 15 ms more to import."""
        rest: RESTClientObject = _package().rest.RESTClientObject(self._configuration)
        proxy = transport.proxy_for(self.endpoint)
        if self.bundle and not (proxy and proxy.url.startswith("https:")):
            _try_alone(rest.pool_manager, self)
            return rest
        # the only way to pass the CA as bytes that all supported versions share
        pool = rest.pool_manager.connection_pool_kw
        context = transport.trusting(self.bundle, self._own)
        pool["ssl_context"] = context
        if proxy:
            pool["_proxy_config"] = pool["_proxy_config"]._replace(ssl_context=context)
        return rest


def _try_alone(manager: PoolManager, access: Access) -> None:
    """Let connections trust the cluster's CA alone, and the bundle too once that does not verify.

    The cluster's CA signs the endpoint's certificate (Amazon EKS API reference, "Cluster",
    certificateAuthority), so the bundle is needed only where a proxy intercepts TLS.  `kubeconfig`
    gives helm what was needed (Kubernetes' reference, "kubeconfig (v1)",
    certificate-authority-data), as helm parses it a dozen times: 0.2 s for all public authorities.
    If a proxy begins to intercept after our last connection, helm refuses its certificate.

    Not for a proxy that speaks TLS itself, whose certificate Go verifies with the same authorities.
    """
    from urllib3.exceptions import SSLError  # noqa: PLC0415

    options, send, lock = manager.connection_pool_kw, manager.request, threading.Lock()
    alone = options["ssl_context"] = transport.trusting(None, access._own)

    def request(*what: Any, **how: Any) -> BaseHTTPResponse:
        if options["ssl_context"] is not alone:
            return send(*what, **how)
        try:
            answer = send(*what, **how)
        except SSLError as error:
            if not isinstance(error.args[0], ssl.SSLCertVerificationError):
                raise
        else:
            with lock:
                if options["ssl_context"] is alone:
                    access.alone.set()
            return answer
        # nothing was sent; connections with another context are others
        both = transport.trusting(access.bundle, access._own)
        with lock:
            options["ssl_context"] = both
            access.alone.clear()
        return send(*what, **how)

    vars(manager)["request"] = request


@contextmanager
def kubeconfig(access: Access) -> Iterator[Path]:
    """Yield the path of a kubeconfig with a new token, in a folder that only we can read.

    Other files may be placed beside it.  The folder is deleted afterwards, also if the interpreter
    exits before.
    """
    name, proxy = access.cluster, transport.proxy_for(access.endpoint)
    authorities = base64.b64encode(access.needed_authorities.encode()).decode()
    cluster = {"server": access.endpoint, "certificate-authority-data": authorities}
    cluster |= {"proxy-url": proxy.url} if proxy else {}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": name, "cluster": cluster}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "users": [{"name": name, "user": {"token": access.token()}}],
    }
    with tempfile.TemporaryDirectory(prefix="hyperpod-eks-") as folder:  # mode 0700
        path = Path(folder) / "kubeconfig"
        path.touch(0o600)
        path.write_text(json.dumps(document))  # JSON is YAML
        yield path


_LOADING = threading.Lock()


@cache
def _package() -> ModuleType:
    """Import `kubernetes.client` without its parent packages, in half the time.

    The parents import configuration files, watches, streams, OAuth and YAML: 235 unneeded modules.
    Empty modules replace them during the import; later imports get the real ones.

    The package loads its parts lazily, which deadlocks on import locks if two threads do so at the
    same time; hence the lock and the loop.
    """
    with _LOADING, _empty("kubernetes", "kubernetes.utils"):
        import kubernetes.client as package  # noqa: PLC0415
        import kubernetes.client.rest  # noqa: F401, PLC0415  becomes `package.rest`

        for part in ("Configuration", "ApiException"):
            getattr(package, part)
    return package


def warm() -> None:
    """Import what the first request needs."""
    _package()


def import_whole() -> None:
    """Import the package with its parents, for a program that may import it at the same time."""
    with _LOADING:
        import kubernetes  # noqa: F401, PLC0415


@contextmanager
def _empty(*names: str) -> Iterator[None]:
    """Add empty packages for names that are not imported yet, and remove them afterwards."""
    added = []
    try:
        for name in names:
            if name not in sys.modules and (spec := find_spec(name)):
                sys.modules[name] = module_from_spec(spec)
                added.append(name)
        yield
    finally:
        for name in added:
            del sys.modules[name]
