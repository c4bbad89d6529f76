"""Memories for botocore: in a process that runs many commands it would compute the same again."""

from __future__ import annotations

import inspect
import os
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.client
import botocore.configprovider
import botocore.endpoint_provider
import botocore.hooks
import botocore.regions
import botocore.session
import botocore.utils
import pytest

from hyperpod_eks.aws.models import OPERATIONS, loader


def everything() -> None:
    """Let all clients of this process share what does not change."""
    remember_clients()
    remember_endpoints()
    remember_events()
    remember_handlers()
    remember_models()
    remember_proxies()
    remember_settings()


def remember_clients() -> None:
    """Let clients of one service share class, model and endpoint rules, which do not change.

    A real command creates them once in its process; here many commands run in one process, where
    they took a third of the time.
    """
    creator: Any = botocore.client.ClientCreator
    for name in ("_load_service_model", "_create_client_class"):
        setattr(creator, name, _once_a_service(getattr(creator, name)))


def remember_endpoints() -> None:
    """Let clients of one service share its rules, with the endpoints that they have given."""
    rules, place = botocore.endpoint_provider, botocore.regions
    vars(place)["EndpointProvider"] = _once_for_each(rules.EndpointProvider)
    vars(rules)["RuleSet"] = _once_for_each(rules.RuleSet)


def _once_for_each(make: Callable[..., Any]) -> Callable[..., Any]:
    known: dict[tuple[int, ...], Any] = {}

    def once(**given: Any) -> Any:
        key = tuple(id(given[name]) for name in sorted(given))
        if key not in known:
            known[key] = make(**given), given  # ids of kept objects stay unique
        return known[key][0]

    return once


def remember_events() -> None:
    """Let clients share the names of events, and all handlers to which they add none.

    botocore computes and copies both for every client: a tenth of the time of a command with ten
    clients.
    """
    hooks: Any = botocore.hooks
    names: dict[str, str] = {}
    aliaser, trie, nodes = hooks.EventAliaser, hooks._PrefixTrie, hooks.NodeList
    begin, remove, takes_more = aliaser.__init__, trie.remove_item, hooks.accepts_kwargs

    def with_names(self: Any, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._alias_name_cache = names  # shared: no client here has its own aliases

    def copy(self: Any) -> Any:
        new = trie()
        new._root = self._root  # shared: nodes are copied before they change
        return new

    def own(node: dict[str, Any]) -> dict[str, Any]:
        values = node["values"] and nodes(*map(list, node["values"]))
        return {**node, "values": values, "children": dict(node["children"])}

    def append_item(self: Any, key: str, value: Any, section: int = hooks._MIDDLE) -> None:
        self._root = node = own(self._root)
        for part in key.split("."):
            child = node["children"].get(part, {"chunk": part, "values": None, "children": {}})
            node["children"][part] = child = own(child)
            node = child
        node["values"] = node["values"] or nodes([], [], [])
        node["values"][section].append(value)

    def remove_item(self: Any, key: str, value: Any) -> None:
        self._root = node = own(self._root)
        for part in key.split("."):
            if part in node["children"]:  # else botocore refuses it
                node["children"][part] = node = own(node["children"][part])
        remove(self, key, value)

    def accepts_kwargs(handler: Any) -> bool:
        code = getattr(handler, "__code__", None)
        return bool(code.co_flags & inspect.CO_VARKEYWORDS if code else takes_more(handler))

    aliaser.__init__, hooks.accepts_kwargs = with_names, accepts_kwargs
    trie.__copy__, trie.append_item, trie.remove_item = copy, append_item, remove_item


def remember_handlers() -> None:
    """Let sessions share botocore's own handlers: to register them was a tenth of a command."""
    session: Any = botocore.session.Session
    register = session._register_builtin_handlers
    known: list[Any] = []

    def registered(self: Any, events: Any) -> None:
        handlers = events._emitter._handlers
        if handlers._root["children"]:  # the caller's own events
            register(self, events)
        elif known:
            handlers._root = known[0]  # nodes are copied before they change
        else:
            register(self, events)
            known.append(handlers._root)

    session._register_builtin_handlers = registered


def remember_models() -> None:
    """Let all sessions, those of tests and moto too, share the models that one has read.

    The tool's are read now, and kept in the checkout: else a test would find them in its folder.
    """
    vars(botocore.session)["create_loader"] = lambda *_: loader(whole=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(Path(__file__).parents[1] / ".cache"))
        for service in OPERATIONS:
            loader().load_service_model(service, "service-2")
        loader().load_data("endpoints")


def _once_a_service(make: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[tuple[str, int], Any] = {}

    def once(self: Any, service: str, *arguments: Any, **named: Any) -> Any:
        key = (service, id(self._loader))  # those of the tool have fewer operations
        if key not in made:
            made[key] = make(self, service, *arguments, **named)
        return made[key]

    return once


def remember_proxies() -> None:
    """Read the variables of proxies only where a variable has changed since the last time."""
    requests: Any = urllib.request
    read, utils = requests.getproxies_environment, vars(botocore.utils)
    known: list[Any] = [None, {}]
    variables: Any = os.environ

    def proxies() -> dict[str, str]:
        if known[0] != variables._data:
            known[:] = dict(variables._data), read()
        return dict(known[1])

    requests.getproxies_environment = requests.getproxies = utils["getproxies"] = proxies


def remember_settings() -> None:
    """Let the clients of a session share its settings, as long as no variable changes."""
    store: Any = botocore.configprovider.ConfigValueStore
    read, variables = store.get_config_variable, vars(os.environ)

    def remembered(self: Any, logical_name: str) -> Any:
        known = vars(self).setdefault("remembered", {})
        if known.get(None) != variables["_data"]:
            known.clear()
            known[None] = dict(variables["_data"])
        if logical_name not in known:
            known[logical_name] = read(self, logical_name)
        return known[logical_name]

    def forgetting(change: Callable[..., None]) -> Callable[..., None]:
        def changed(self: Any, *arguments: Any, **named: Any) -> None:
            vars(self).pop("remembered", None)
            change(self, *arguments, **named)

        return changed

    store.get_config_variable = remembered
    for name in ("set_config_variable", "clear_config_variable", "set_config_provider"):
        setattr(store, name, forgetting(getattr(store, name)))
