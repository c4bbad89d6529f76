"""Copies of an account and its user's files, so that tests need not create a cluster again.

A copy has all state of the embedded stack: the backends of moto, ours included, the fields of
``Sim``, the objects of the Kubernetes clusters, the time and the scheduled actions of the clock.
A copied cluster gets its own Kubernetes endpoint.
"""

from __future__ import annotations

import copy
import io
import os
import pickle
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from moto.core.base_backend import BackendDict
from moto.eks.models import eks_backends

from hyperpod_eks.local.aws.sim import Delays, Sim, current
from hyperpod_eks.local.clock import Clock
from hyperpod_eks.local.kubernetes.server import Server
from hyperpod_eks.local.stack import Stack

STAYS = ("clock", "pki")  # fields of Sim that are not copied


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> str | None:
        return type(obj).__name__ if isinstance(obj, Sim | Clock) else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type(threading.RLock())):
            return threading.RLock, ()
        if isinstance(obj, threading.Condition):
            return threading.Condition, (obj._lock,)  # type: ignore[attr-defined]
        if isinstance(obj, Server):
            return _serve, (obj.api,)
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def persistent_load(self, pid: str) -> Any:
        return {"Sim": current(), "Clock": current().clock}[pid]


def _serve(api: Any) -> Server:
    return Server(api, current().pki.server_context(), "127.0.0.1")


def taken(stack: Stack) -> bytes:
    """Return a copy of everything in the account."""
    clock, used = stack.clock, BackendDict._instances  # type: ignore[misc]  # moto's generic
    with clock.lock:
        state = {
            "sim": {name: value for name, value in vars(stack.sim).items() if name not in STAYS},
            "time": (clock._origin, clock._jumped),
            "events": [(at - clock.elapsed(), action) for at, _, action in sorted(clock._events)],
            "backends": {
                each.service_name: {account: dict(found) for account, found in each.items()}
                for each in used
            },
        }
        out = io.BytesIO()
        _Pickler(out, 5).dump(state)
    return out.getvalue()


def restore(stack: Stack, state_: bytes) -> None:
    """Replace the account's content with a copy."""
    stack.reset()
    with stack.clock.lock:
        state = _Unpickler(io.BytesIO(state_)).load()
        vars(stack.sim).update(state["sim"])
        stack.clock._origin, stack.clock._jumped = state["time"]
        for seconds, action in state["events"]:
            stack.clock.after(seconds, action)
        for each in BackendDict._instances:  # type: ignore[misc]
            for account, found in state["backends"].get(each.service_name, {}).items():
                each[account].update(found)
        eks: Any = eks_backends
        for regions in eks.values():
            for backend in regions.values():
                for cluster in backend.clusters.values():
                    if kubernetes := stack.sim.clusters.get(cluster.arn):
                        kubernetes.url = kubernetes._server.url
                        cluster.document["endpoint"] = kubernetes.url


@dataclass
class _Copy:
    document: Any
    account: bytes
    files: list[bytes]


_made: dict[Any, _Copy] = {}


def once(stack: Stack, folder: Path, words: tuple[str, ...], make: Callable[[], Any]) -> Any:
    """Call ``make``, or copy the account, files and result of its first call with the same input.

    The account must be empty.  ``make`` may depend only on ``words`` and the files in the folder.
    """
    assert _is_empty(stack), "the account is not as `start_over` leaves it: create the cluster here"
    places = [folder, *(Path(os.environ[f"XDG_{kind}_HOME"]) for kind in ("CACHE", "STATE"))]
    given = sorted(each for each in folder.rglob("*") if each.is_file())
    key = *words, *((str(each.relative_to(folder)), each.read_bytes()) for each in given)
    if (done := _made.get(key)) is None:
        document = make()
        _made[key] = _Copy(copy.deepcopy(document), taken(stack), [*map(_packed, places)])
        return document
    restore(stack, done.account)
    for each, files in zip(places, done.files, strict=True):
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(each, filter="fully_trusted")
    return copy.deepcopy(done.document)


def _packed(folder: Path) -> bytes:
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.add(folder, ".")
        return out.getvalue()


def _is_empty(stack: Stack) -> bool:
    fresh = Sim(stack.clock, Delays.instant(), stack.region)
    same = {each.name for each in fields(Sim)} - {"ids", "_random", "calls"}
    return (
        all(getattr(stack.sim, name) == getattr(fresh, name) for name in same)
        and not stack.clock._events
        and not any(call.mutating for call in stack.calls)  # old threads may still read
    )
