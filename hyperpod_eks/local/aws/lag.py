"""Eventual consistency: what was just created is not known everywhere at once.

EC2 says of itself that a command "to modify or describe the resource that you just created" may
answer that it does not exist (EC2 API, "Eventual consistency"); of IAM see "Changes that I make are
not always immediately visible" in its user guide.  Faults of kind ``lag`` hide from describes what
a call creates; ``Delays.unseen`` hides every second thing for some seconds, and calls that name it
are refused meanwhile.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult

from hyperpod_eks.local.aws.sim import Fault, Unseen, current, is_read


class Lagging:
    """Mixed into a moto response class, before it: obeys the faults of kind ``lag``.

    ``stores`` names the backend's attributes that hold resources (by id, by zone and id, or as a
    list of objects with an id), each with a regular expression of the reads that look there.
    While such a read runs, the backend has a store without what is unseen; so moto itself says
    NotFound, in AWS's words, to those who ask by id.
    """

    stores: Mapping[str, str]
    lag_service: str

    def lagging_backend(self) -> Any:
        """Return the moto backend that this request is about."""
        raise NotImplementedError

    def name_of(self, store: str, key: str) -> str:
        """Return what requests call a resource: its key in the store, if not another name."""
        return key

    def not_found(self, store: str, name: str) -> ServiceException:
        """Return what the service answers to those who name what it does not know."""
        raise NotImplementedError

    def call_action(self) -> Any:
        """Carry the request out, hiding or noting what is to be unseen."""
        sim, operation = current(), str(self._get_action())  # type: ignore[attr-defined]
        act = super().call_action  # type: ignore[misc]
        sim.unseen[:] = [each for each in sim.unseen if each.is_unseen]
        if is_read(operation):
            if not sim.unseen:
                return act()
            with self._hidden(operation):
                return act()
        if (unknown := self._unknown()) is not None:
            return self.refused(unknown)
        fault = sim.fault(self.lag_service, operation, lag=True)
        if fault is None and not sim.delays.unseen:
            return act()
        before = set(self._keys())
        answer = act()
        sim.unseen += [
            _unseen(fault, operation, store, key)
            for store, key in self._keys()
            if (store, key) not in before
        ]
        return answer

    def refused(self, problem: ServiceException) -> Any:
        """Answer an error, as moto does with one that is raised while it acts."""
        this: Any = self
        status, headers, body = this.serialized(ActionResult(problem))
        headers, body = this._enrich_response(headers, body)
        return status, headers, body

    def _unknown(self) -> ServiceException | None:
        """Return the error for a change that names what is not known everywhere."""
        unknown = [u for u in current().unseen if u.refused and u.store in self.stores]
        given = set(_texts(self.params)) if unknown else set()  # type: ignore[attr-defined]
        for each in unknown:
            if (name := self.name_of(each.store, each.key)) in given:
                return self.not_found(each.store, name)
        return None

    def _keys(self) -> Iterator[tuple[str, str]]:
        backend = self.lagging_backend()
        for store in self.stores:
            for key in _keys(getattr(backend, store)):
                yield store, key

    @contextmanager
    def _hidden(self, operation: str) -> Iterator[None]:
        sim, backend = current(), self.lagging_backend()
        original: dict[str, Any] = {}
        for store, reads in self.stores.items():
            hidden = [u for u in sim.unseen if u.store == store and re.fullmatch(reads, operation)]
            if not hidden:
                continue
            for unseen in hidden:
                unseen.reads -= 1
            original[store] = getattr(backend, store)
            setattr(backend, store, _without(original[store], {u.key for u in hidden}))
        try:
            yield
        finally:
            for store, value in original.items():
                setattr(backend, store, value)


def _unseen(fault: Fault | None, operation: str, store: str, key: str) -> Unseen:
    sim = current()
    now = sim.clock.elapsed()
    if fault is not None:
        return Unseen(store, key, fault.reads, now + fault.seconds)
    longer = max(0.0, 2 * sim.draw(f"{operation} {store}") - 1)  # half of them are seen at once
    return Unseen(store, key, 0, now + longer * sim.delays.unseen, refused=True)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text in a request's parameters."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield value


def _keys(store: Any) -> Iterator[str]:
    if isinstance(store, list):
        yield from (item.id for item in store)
        return
    for key, value in store.items():
        if isinstance(value, dict):
            yield from value
        else:
            yield key


def _without(store: Any, keys: set[str]) -> Any:
    if isinstance(store, list):
        return [item for item in store if item.id not in keys]
    rest = copy.copy(store)  # keeps a defaultdict one
    for key in store:
        if key in keys:
            del rest[key]
        elif isinstance(store[key], dict):
            rest[key] = _without(store[key], keys)
    return rest
