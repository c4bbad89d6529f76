"""The embedded stack: one AWS endpoint, one Kubernetes endpoint per EKS cluster, one clock."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hyperpod_eks.aws.models import loader
from hyperpod_eks.errors import Usage
from hyperpod_eks.local.aws.plugin import install, reset
from hyperpod_eks.local.aws.sim import (
    ACCESS_KEY,
    SECRET_KEY,
    Call,
    Delays,
    Fault,
    Sim,
    use,
)
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.control import MOTO_RESET, PREFIX, Control

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

DEFAULT_REGION = "us-west-2"
EXTRA_HINT = (
    "Install this package with its extra `local`: pip install '.[local]' in a checkout, or"
    " pip install 'WHEEL[local]' with the path of the wheel."
)

#: What would lead a client elsewhere than to the stack, or make it someone else there.
_UNSET = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_CA_BUNDLE",
)


def client_environ(
    endpoint: str, region: str = DEFAULT_REGION, base: Mapping[str, str] | None = None
) -> dict[str, str | None]:
    """Return the variables with which any AWS client talks to the stack and to nobody else.

    ``base`` (this process's environment) is what they will be applied to: its region wins, its
    endpoint overrides are unset, its proxies bypassed. None means: unset the variable.
    """
    base = os.environ if base is None else base
    bypass = ",".join(filter(None, [base.get("NO_PROXY") or base.get("no_proxy"), "127.0.0.1"]))
    region = base.get("AWS_REGION") or base.get("AWS_DEFAULT_REGION") or region
    overrides = [name for name in base if name.startswith("AWS_ENDPOINT_URL_")]
    return {
        **dict.fromkeys([*_UNSET, *sorted(overrides)]),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": bypass,
        "no_proxy": bypass,
    }


@contextmanager
def _without_aws_variables() -> Iterator[None]:
    """Keep from moto, which makes boto3 sessions as it loads, a profile that may not exist."""
    names = [name for name in os.environ if name.startswith("AWS_")]
    saved = {name: os.environ.pop(name) for name in names}
    try:
        yield
    finally:
        os.environ.update(saved)


@contextmanager
def _quick_models() -> Iterator[None]:
    """Let moto, which asks for the regions of its services as it loads, read models as we do.

    Botocore's own way takes half a second longer.
    """
    session: Any = importlib.import_module("botocore.session")
    create = session.create_loader
    session.create_loader = lambda *_: loader(whole=True)
    try:
        yield
    finally:
        session.create_loader = create


class Stack:
    """An AWS account on the loopback interface, empty at first and gone with the process.

    Args:
        speed: simulated seconds per real second; 0 stands still until ``clock.advance``.
        delays: what each transition takes, in simulated seconds; by default ``Delays.real()``
            at any speed, ``Delays.instant()`` when time stands still.
        port: the AWS endpoint's port; 0 takes a free one.
        region: the region for clients that name none.

    Raises:
        Usage: the extra ``local`` is not installed, or the port is taken.
        RuntimeError: this process has a stack already (moto's state is the process's).
    """

    def __init__(
        self,
        speed: float = 0.0,
        delays: Delays | None = None,
        port: int = 0,
        region: str = DEFAULT_REGION,
    ) -> None:
        try:
            with _without_aws_variables(), _quick_models():
                from hyperpod_eks.local.aws.server import (  # noqa: PLC0415  loads moto
                    Aws,
                    Server,
                    refusal,
                )

                install()
                from hyperpod_eks.local.aws import ecr  # noqa: PLC0415
        except ModuleNotFoundError as missing:
            if (missing.name or "").startswith("hyperpod_eks"):
                raise
            raise Usage(
                f"the embedded stack needs packages that are not installed: {missing.name}",
                EXTRA_HINT,
            ) from missing
        if delays is None:
            delays = Delays.real() if speed else Delays.instant()
        self.region = region
        self.clock = Clock(speed)
        self.sim = Sim(self.clock, delays, region)
        self._stopped = threading.Event()
        use(self.sim)
        aws, control = Aws(self.sim), Control(self)

        def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            if status := refusal(environ):
                start(status, [("Content-Length", "0"), ("Connection", "close")])
                return []
            ours = environ["PATH_INFO"].startswith((PREFIX, MOTO_RESET))
            images = environ["PATH_INFO"].startswith(ecr.PREFIX)
            signed = environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4")
            try:
                if images and not signed:
                    return ecr.registry(environ, start)
                return control(environ, start) if ours else aws(environ, start)
            except ConnectionError:  # a fault that was asked for
                raise
            except OSError:  # the rest of the body does not come
                start("408 Request Timeout", [("Content-Length", "0"), ("Connection", "close")])
                return []

        try:
            self._server = Server(app, port)
        except OSError as taken:
            use(None)
            raise Usage(
                f"the embedded stack cannot listen on port {port}: {taken.strerror}",
                "Leave --port out to take a free one.",
            ) from taken
        self.endpoint = self._server.url

    def environ(self, base: Mapping[str, str] | None = None) -> dict[str, str | None]:
        """Return the variables for clients of this stack, see ``client_environ``."""
        return client_environ(self.endpoint, self.region, base)

    @property
    def calls(self) -> list[Call]:
        """Every call that reached the endpoint, oldest first; may be cleared."""
        return self.sim.calls

    @property
    def faults(self) -> list[Fault]:
        """What shall go wrong; append to it."""
        return self.sim.faults

    def inventory(self) -> dict[str, Any]:
        """Return everything that exists in the account, JSON-able and in a stable order.

        Two inventories are equal when the same things exist in the same state; times of
        creation are left out.
        """
        from hyperpod_eks.local.aws.inventory import inventory  # noqa: PLC0415  loads moto

        with self.clock.lock:
            return inventory(self.sim)

    def reset(self) -> None:
        """Empty the account: resources, calls, faults, changed quotas, events to come.

        Its time is the real one again; delays stay.
        """
        with self.clock.lock:
            self.sim.reset()
            reset()

    def stop(self) -> None:
        """Close the endpoints and forget the account; a second stop does nothing."""
        if self._stopped.is_set():
            return
        self._server.stop()
        self.reset()
        self.clock.stop()
        use(None)
        self._stopped.set()

    def wait(self) -> None:
        """Block until someone stops the stack."""
        self._stopped.wait()
