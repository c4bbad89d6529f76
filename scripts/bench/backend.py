"""The AWS that is measured against: the embedded stack, each call slowed to what AWS takes.

Commands come as lines of JSON on stdin, answers leave as lines of JSON on stdout; the end of
stdin ends it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import boto3
from botocore.httpsession import where

from hyperpod_eks.local.aws.quotas import limits
from hyperpod_eks.local.aws.sim import Call, Delays, Fault, delays_from
from hyperpod_eks.local.control import PREFIX
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.local.tls import make_pki

THROTTLED = {
    "ec2": ("RequestLimitExceeded", 503),
    "s3": ("SlowDown", 503),
    "iam": ("Throttling", 400),
}
"""How a service says that it is asked too often; the others say ThrottlingException."""
PATIENCE = 10.0
"""Seconds that a client may take for its handshake."""


class Calls(list[Call]):
    """The stack's call log, which also remembers each thread's last call."""

    def __init__(self) -> None:
        super().__init__()
        self.here = threading.local()

    def append(self, call: Call) -> None:
        """Add a call and remember it for this thread."""
        self.here.last = call
        super().append(call)


class Slow:
    """Takes the stack's place at its port: the same answers, each after ``latency`` in all."""

    def __init__(self, stack: Stack, latency: float, jitter: float) -> None:
        self.stack, self.latency, self.jitter = stack, latency, jitter
        self.random = random.Random(1)
        self.records: list[dict[str, Any]] = []
        self.seen = stack.sim.calls = Calls()
        server = stack._server._httpd
        self.inner, server.app = server.app, self
        self.environ = stack.environ()

    def encrypt(self, bundle: Path) -> None:
        """Take TLS alone, and write the authorities that clients shall trust to ``bundle``.

        That are all public ones and one of our own, as in a company: so it takes as long to read.
        Each connection shakes hands in its own thread.  On the listening socket, where werkzeug
        does it, one client that connects and says nothing would keep out all others for good.
        """
        pki, server = make_pki(), self.stack._server._httpd
        context = server.ssl_context = pki.server_context()
        accept, serve = server.get_request, server.finish_request

        def get_request() -> tuple[Any, Any]:
            connection, address = accept()
            secure = context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
            return secure, address

        def finish_request(connection: Any, address: Any) -> None:
            connection.settimeout(PATIENCE)
            connection.do_handshake()
            serve(connection, address)

        server.get_request, server.finish_request = get_request, finish_request
        bundle.write_bytes(Path(where()).read_bytes() + pki.ca_pem)
        self.environ |= {
            "AWS_ENDPOINT_URL": f"https://127.0.0.1:{server.port}",
            "AWS_CA_BUNDLE": str(bundle),
        }

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Answer one request, slowly (PEP 3333)."""
        if environ["PATH_INFO"].startswith(PREFIX):
            return self.inner(environ, start)
        began = time.monotonic()
        due = began + max(0.0, self.latency + self.random.uniform(-self.jitter, self.jitter))
        body = b"".join(self.inner(environ, start))  # the headers leave with the first byte
        call = self.seen.here.last
        worked = time.monotonic() - began
        time.sleep(max(0.0, due - time.monotonic()))
        self.records.append(
            {
                "service": call.service,
                "operation": call.operation,
                "status": call.status,
                "write": call.mutating,
                "start": began,
                "end": time.monotonic(),
                "backend": worked,
            }
        )
        return [body]

    def reset(
        self, seed: int, latency: float, throttled: float, delays: dict[str, float], bucket: str
    ) -> None:
        """Empty the account, make a bucket if one is named, and choose what the next run meets."""
        sim = self.stack.sim
        self.stack.reset()
        if bucket:  # here: the memory of a process that starts others counts as theirs
            environ = self.environ
            boto3.client(
                "s3",
                region_name="us-east-1",
                endpoint_url=environ["AWS_ENDPOINT_URL"],
                verify=environ["AWS_CA_BUNDLE"],
                aws_access_key_id=environ["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=environ["AWS_SECRET_ACCESS_KEY"],
            ).create_bucket(Bucket=bucket)
        self.records.clear()
        self.latency, self.jitter = latency, latency / 4
        sim.delays = delays_from(delays, Delays.instant())
        for name in limits()["sagemaker"]:
            sim.set_quota("sagemaker", name, 1e6)
        if throttled:
            sim._random.seed(seed)
            for service, (code, status) in THROTTLED.items():
                sim.faults.append(
                    Fault(service, code=code, status=status, count=10**9, rate=throttled)
                )
            rest = f"(?!{'|'.join(THROTTLED)})\\w+"
            sim.faults.append(Fault(rest, count=10**9, rate=throttled))


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.04, help="seconds of each call")
    parser.add_argument("--tls", type=Path, help="take TLS, and write a CA bundle to this file")
    given = parser.parse_args()
    stack = Stack(speed=1.0, delays=Delays.instant())
    slow = Slow(stack, given.latency, given.latency / 4)
    if given.tls:
        slow.encrypt(given.tls)
    gc.disable()  # AWS does not stop for 0.2 s; what is left over goes between the commands
    print(json.dumps({"environ": slow.environ}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        match order.pop("do"):
            case "reset":
                slow.reset(**order)
                answer: Any = {}
            case "begin":
                slow.records.clear()
                gc.collect()
                answer = {}
            case "calls":
                answer = list(slow.records)
        print(json.dumps(answer), flush=True)
    stack.stop()


if __name__ == "__main__":
    main()
