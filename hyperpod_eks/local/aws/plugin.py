"""Our services inside moto: backend classes are swapped and URL tables extended.

Nothing of moto and werkzeug is changed but functions that get a memory or a faster way
(``remember``).

A service module of this package offers:

- ``install() -> None``: put its classes into moto's tables with ``backend`` and ``routes``;
- ``inventory(account, region) -> dict[str, Any]``, where it holds anything: everything that
  exists, JSON-able and in a stable order, by kind (``Stack.inventory`` merges them).

What the account holds from the start is made by the backends' ``__init__``.
"""

from __future__ import annotations

import importlib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn
from xml.sax.saxutils import escape, quoteattr

from hyperpod_eks.aws.models import loader

SERVICES = ("ec2", "iam", "s3", "logs", "quotas", "fsx", "amp", "ecr", "eks", "hyperpod")

#: Where a request keeps its operations.
OPERATIONS = "hyperpod_eks.operations"

#: Tells what exists in an account and region, by kind.
Inventory = Callable[[str, str], dict[str, Any]]

_services: dict[str, ModuleType] = {}


def install() -> None:
    """Plug every service in, once per process; must run before moto's first request."""
    from moto.core.base_backend import AccountSpecificBackend  # noqa: PLC0415  moto is slow

    AccountSpecificBackend.get_session()  # cached: made now, in the environment we chose
    if not _services:
        remember()
        forget()
        run_no_containers()
        names = {name: f"{__package__}.{name}" for name in SERVICES}
        _services.update({name: importlib.import_module(path) for name, path in names.items()})
        for module in _services.values():
            module.install()


def remember() -> None:
    """Spare moto from computing again, for every answer, what depends on classes and models only.

    Which methods a class has, under which names a member may be found in an object, what is done
    with its value, and whether a name may be one of XML's were a quarter of the time of a request.
    """
    responses: Any = importlib.import_module("moto.core.responses")
    for name in ("method_names_from_class", "camelcase_to_underscores"):
        setattr(responses, name, lru_cache(4096)(getattr(responses, name)))
    responses.gen_amzn_requestid_long = _request_id
    remember_names()
    remember_operations()
    models: Any = importlib.import_module("moto.core.loaders")
    models.Loader.FILE_LOADER_CLASS = type(loader(whole=True).file_loader)
    models.Loader.list_available_services = lambda _, kind: loader(
        whole=True
    ).list_available_services(kind)
    rules: Any = importlib.import_module("werkzeug.routing.rules")
    rules.Rule._compile_builder = lambda *_: _no_url  # code that is compiled for each route
    serialize: Any = importlib.import_module("moto.core.serialize")
    serialize.xmltodict = SimpleNamespace(unparse=_xml)


def remember_operations() -> None:
    """Let moto, which asks for a request's operation up to five times, keep it with the request."""
    router: Any = importlib.import_module("moto.core.routing").ServiceOperationRouter
    match = router.match

    def once(self: Any, request: Any) -> tuple[Any, dict[str, Any]]:
        known = request.environ.setdefault(OPERATIONS, {})
        if self not in known:
            known[self] = match(self, request)
        operation, parameters = known[self]
        return operation, dict(parameters)

    router.match = once


def remember_names() -> None:
    """Let moto remember under which names an object may have a member, and what transforms it."""
    from moto.core.serialize import ResponseSerializer, XFormedAttributePicker  # noqa: PLC0415
    from moto.core.utils import get_value  # noqa: PLC0415

    responses: Any = importlib.import_module("moto.core.responses")
    names: dict[tuple[str, str, str, type], tuple[str, ...]] = {}
    ends: dict[tuple[int, str], dict[str, Any]] = {}
    missing = object()

    def found(value: Any, among: Iterable[str]) -> Any:
        for name in among:
            if type(value) is dict and "." not in name:
                one = value.get(name, missing)
            else:
                one = get_value(value, name, missing)
            if one is not missing:
                return one
        return None

    class Picker(XFormedAttributePicker):
        def __call__(self, context: Any) -> Any:
            value = found(context.obj, self.get_possible_keys(context))
            return self.transformed(value, context.key, context.key_path)

        def transformed(self, value: Any, key: str, path: str) -> Any:
            if not (transformers := self.response_transformers):
                return value
            about = id(transformers), key  # a class's, so that the id stays unique
            if about not in ends:
                ends[about] = {
                    end: transform
                    for end, transform in transformers.items()
                    if key.endswith(end.rpartition(".")[2])
                }
            for end, transform in ends[about].items():
                if f"{path}.{key}".endswith(end):
                    return transform(value)
            return value

        def get_possible_keys(self, context: Any) -> Any:
            parent = getattr(context.shape, "parent", None)
            if parent is None or context.service_model is None:
                return super().get_possible_keys(context)
            service = context.service_model.service_name
            about = (service, parent.name, context.key, type(context.obj))
            if about not in names:
                names[about] = tuple(dict.fromkeys(super().get_possible_keys(context)))
            return names[about]

    def value_of(self: Any, value: Any, key: str, shape: Any) -> Any:
        picker, parent = self._value_picker, getattr(shape, "parent", None)
        about = parent and (self.service_model.service_name, parent.name, key, type(value))
        if about not in names or type(picker) is not Picker:
            return slow(self, value, key, shape)
        one = found(value, names[about])
        if picker.response_transformers:
            return picker.transformed(one, key, ".".join(self.path))
        return one

    serializer: Any = ResponseSerializer
    slow, serializer.get_value = serializer.get_value, value_of
    responses.XFormedAttributePicker = Picker


def _xml(document: Mapping[str, Any], full_document: bool, **_: Any) -> str:
    """Write a document as ``xmltodict.unparse`` does, in a third of its time.

    An empty element has both of its tags, which means the same.

    >>> _xml({"a": {"@id": "1", "b": ["x", None, 2], "c": [], "d": "<", "e": True}}, False)
    '<a id="1"><b>x</b><b></b><b>2</b><d>&lt;</d><e>true</e></a>'
    """
    out = ['<?xml version="1.0" encoding="utf-8"?>\n'] if full_document else []
    for key, value in document.items():
        _element(key, value, out.append)
    return "".join(out)


def _element(key: str, value: Any, write: Callable[[str], object]) -> None:
    if isinstance(value, dict):
        attributes, inside = [], list[str]()
        for name, member in value.items():
            if name.startswith("@"):
                attributes.append(f" {name[1:]}={quoteattr(str(member))}")
            elif name == "#text":
                inside.append(_words(member))
            else:
                _element(name, member, inside.append)
        write(f"<{key}{''.join(attributes)}>{''.join(inside)}</{key}>")
    elif isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        write(f"<{key}>{_words(value)}</{key}>")
    else:
        for each in value:
            _element(key, {} if each is None else each, write)


def _words(value: object) -> str:
    """Return a value as XML's text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, bytes):
        return escape(value.decode(errors="replace"))
    return "" if value is None else escape(str(value))


def _no_url(_rule: Any, **_: Any) -> NoReturn:
    raise NotImplementedError("the embedded stack builds no URLs of routes")


def forget() -> None:
    """Let go of what was deleted: moto keeps every object that it ever made.

    It does so for its dashboard, which nobody looks at here; a control plane's log lines alone were
    6 GB in an hour.
    """
    from moto.core.common_models import BaseModel  # noqa: PLC0415  moto is slow to load

    model: Any = BaseModel
    model.__new__ = lambda cls, *_, **__: object.__new__(cls)


def run_no_containers() -> None:
    """Let moto answer for Lambda and Batch what it does without containers.

    By default it pulls an image for each invocation and runs it: nothing here leaves this machine.
    """
    from moto.core.config import default_user_config  # noqa: PLC0415  moto is slow to load

    for service in ("batch", "lambda"):
        settings: Any = default_user_config[service]
        settings["use_docker"] = False


def _request_id(headers: dict[str, str]) -> str:
    """Give an answer a request id, a UUID as most of AWS's are; moto draws 52 letters, one by one.

    >>> headers = {}
    >>> headers == {"x-amzn-requestid": _request_id(headers)}
    True
    """
    headers["x-amzn-requestid"] = found = str(uuid.uuid4())
    return found


def inventories() -> dict[str, Inventory]:
    """Return what tells each installed service's content, by the service module's name."""
    return {
        name: module.inventory for name, module in _services.items() if hasattr(module, "inventory")
    }


def reset() -> None:
    """Empty every moto backend that was used; they are made anew when next asked for.

    Unlike moto's own reset this does not build each backend again at once.
    """
    from moto.core.base_backend import BackendDict, BaseBackend  # noqa: PLC0415  moto is slow
    from moto.core.model_instances import reset_model_data  # noqa: PLC0415

    used: list[Any] = BackendDict._instances  # type: ignore[misc]  # moto's generic
    for backends in used:
        for account in backends.values():
            for one in account.values():
                if type(one).reset is not BaseBackend.reset:
                    one.reset()
            account.clear()
    reset_model_data()


def backend(backends: Any, cls: type) -> None:
    """Make moto build this service's backends from ``cls`` (``moto.<service>.models`` dict)."""
    backends.backend = cls


def routes(urls: ModuleType, service: str, dispatch: Callable[..., Any]) -> None:
    """Send every REST operation of a service, as botocore's model knows them, to ``dispatch``.

    The path members of ARNs arrive with their slashes decoded, so those take everything.
    """
    from moto.core.utils import get_service_model  # noqa: PLC0415  moto is slow to load

    def member(match: re.Match[str]) -> str:
        return f"(?P<{match[1]}>{'.+' if match[1].endswith('Arn') else '[^/]+'})"

    model = get_service_model(service)
    for name in model.operation_names:
        uri = model.operation_model(name).http["requestUri"].split("?")[0]
        urls.url_paths["{0}" + re.sub(r"\{(\w+)\+?\}", member, uri) + "$"] = dispatch


def url_module(service: str) -> Any:
    """Return the property by which a backend class outside moto names its URL table."""
    return property(lambda self: importlib.import_module(f"moto.{service}.urls"))
