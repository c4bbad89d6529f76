"""The remote control of a running stack, under ``/_stack/`` on the AWS endpoint's port.

All bodies are JSON. ``GET``:

- ``health``: ``{"status", "pid", "speed", "region", "elapsed"}``, elapsed in simulated seconds;
- ``calls``: the call log, oldest first: ``[{"service", "operation", "status", "mutating", "at"}]``;
- ``inventory``: everything that exists in the account (``Stack.inventory``);
- ``faults``: what is still to go wrong;
- ``hosts``: the ports of the Kubernetes endpoints that have EKS's names, by host name.

``POST``:

- ``faults``: a list of faults (the fields of ``Fault``) that takes the place of the current one;
- ``delays``: ``{name: simulated seconds}``, the fields of ``Delays`` to change;
- ``seed``: an integer, from which AWS's moods are drawn (``Sim.draw``);
- ``quotas``: ``[{"service", "name", "value"}]``, limits to change;
- ``denied``: a list of IAM actions (``*`` allowed) that SimulatePrincipalPolicy shall deny;
- ``host_names``: whether new EKS clusters have endpoints called as EKS calls them, to which only a
  proxy that asks for ``hosts`` can lead;
- ``enforce``: whether policies of IAM users and sessions of roles count (``Sim.enforce``);
- ``echo``: the fields of ``Echo`` (``{"seed": 7}``), describes that say more, less and otherwise
  than what was sent; null ends it;
- ``failures``: ``{"kind/name": how}``, what shall fail inside EKS, HyperPod and Kubernetes
  (``Sim.failures``);
- ``ids``: ``{"vpc": "vpc-0123456789abcdef0"}``, the id of the next resource of a kind (``vpc``,
  ``subnet``, ``rtb``, ``sg``, ``nat``), so that what a config names can be created;
- ``advance``: ``{"seconds"}``, move simulated time forward;
- ``reset``: back to an empty account, as ``/moto-api/reset``, moto's own word for it;
- ``stop``: end the stack.

A refused request answers 400 and ``{"error"}``.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.local.aws.sim import ID_KINDS, Fault, delays_from

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from hyperpod_eks.local.stack import Stack

PREFIX = "/_stack/"
MOTO_RESET = "/moto-api/reset"


class Control:
    """The WSGI application of the remote control."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __call__(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
        size = int(environ.get("CONTENT_LENGTH") or 0)
        status, answer = "200 OK", None
        path = environ["PATH_INFO"]
        name = "reset" if path == MOTO_RESET else path.removeprefix(PREFIX)
        try:
            if environ["REQUEST_METHOD"] == "GET":
                answer = self._get(name)
            else:
                answer = self._post(name, json.loads(environ["wsgi.input"].read(size) or b"null"))
        except (AttributeError, LookupError, TypeError, ValueError) as problem:
            status, answer = "400 Bad Request", {"error": str(problem)}
        body = json.dumps(answer).encode()
        start(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def _get(self, name: str) -> Any:
        stack = self._stack
        match name:
            case "health":
                return {
                    "status": "ok",
                    "pid": os.getpid(),
                    "speed": stack.clock.speed,
                    "region": stack.region,
                    "elapsed": stack.clock.elapsed(),
                }
            case "calls":
                return [dataclasses.asdict(call) for call in list(stack.calls)]
            case "faults":
                return [dataclasses.asdict(fault) for fault in list(stack.faults)]
            case "hosts":
                return dict(stack.sim.hosts)
            case "inventory":
                return stack.inventory()
        raise ValueError(f"no such page: GET {PREFIX}{name}")

    def _post(self, name: str, body: Any) -> Any:
        stack, sim = self._stack, self._stack.sim
        match name:
            case "faults":
                stack.faults[:] = [Fault(**fault) for fault in body]
            case "delays":
                sim.delays = delays_from(body, sim.delays)
                return dataclasses.asdict(sim.delays)
            case "seed":
                sim.seed = int(body)
            case "quotas":
                for quota in body:
                    sim.set_quota(quota["service"], quota["name"], float(quota["value"]))
            case "denied":
                sim.denied = set(body)
            case "host_names":
                sim.host_names = bool(body)
            case "enforce":
                sim.enforce = bool(body)
            case "echo":
                sim.echo = None if body is None else Echo(**body)
            case "failures":
                sim.failures = {str(what): str(how) for what, how in body.items()}
                for cluster in list(sim.clusters.values()):
                    cluster.wake()
            case "ids":
                for kind, wanted in body.items():
                    if kind not in ID_KINDS or not re.fullmatch(f"{kind}-[0-9a-f]{{8,17}}", wanted):
                        raise ValueError(f"ids: {wanted} is no id of {', '.join(ID_KINDS)}")
                    sim.next_ids[kind] = wanted
            case "advance":
                seconds = float(body["seconds"])
                if not 0 <= seconds < 1e9:  # NaN is not
                    raise ValueError(f"seconds: {seconds} is not a time to come")
                stack.clock.advance(seconds)
            case "reset":
                stack.reset()
            case "stop":
                # the answer must leave before the server goes
                threading.Timer(0.1, stack.stop).start()
            case _:
                raise ValueError(f"no such page: POST {PREFIX}{name}")
        return {}
