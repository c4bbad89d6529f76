"""Eventual consistency on demand: what was just created is not seen by the next describes."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hyperpod_eks.local.aws.sim import Unseen, current, is_read


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

    def call_action(self) -> Any:
        """Carry the request out, hiding or noting what is to be unseen."""
        sim, operation = current(), str(self._get_action())  # type: ignore[attr-defined]
        act = super().call_action  # type: ignore[misc]
        if is_read(operation):
            if not sim.unseen:
                return act()
            with self._hidden(operation):
                return act()
        fault = sim.fault(self.lag_service, operation, lag=True)
        if fault is None:
            return act()
        before = set(self._keys())
        answer = act()
        until = sim.clock.elapsed() + fault.seconds
        sim.unseen += [
            Unseen(store, key, fault.reads, until)
            for store, key in self._keys()
            if (store, key) not in before
        ]
        return answer

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
            hidden = [u for u in hidden if u.reads > 0 or u.until > sim.clock.elapsed()]
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
