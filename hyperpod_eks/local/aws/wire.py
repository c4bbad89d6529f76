"""What our own services share: refusals in AWS's words, checks against AWS's model, and pages."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from random import Random
from typing import Any, TypeVar

from botocore.model import ListShape, MapShape, Shape, StructureShape
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, BaseResponse
from moto.core.utils import get_service_model

T = TypeVar("T")

#: Java's Unicode classes as Python's nearest; wherever AWS allows letters, digits are fine too.
_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{M}": "\u0300-\u036f",
    r"\p{Z}": r"\s",
    r"\p{N}": r"\d",
    r"\p{S}": r"\W",
    r"\p{P}": r"\W",
}


class Refused(ServiceException):
    """An error answer: ``Refused("ResourceInUse", "Cluster with name x already exists.")``."""


class Response(BaseResponse):
    """The answers of a service whose requests AWS would check before it looks at them.

    ``invalid`` is the code of the error for a request that breaks the service's model.
    """

    invalid = "ValidationException"

    def get_region_from_url(self, request: Any, full_url: str) -> str:
        """Take the region from the signature: in a path, an ARN may look like a host name."""
        return str(super().get_region_from_url(request, ""))

    def request(self) -> dict[str, Any]:
        """Return the request's members as botocore's model types them, checked against it."""
        model = get_service_model(self.boto3_service_name)
        shape = model.operation_model(self._get_action()).input_shape
        members: dict[str, Any] = _aware({**(self.uri_match or {}), **self.params})
        check(members, shape, self.invalid)
        return members


class Tagging(Response):
    """The answers of a service whose tags are a map; ``backend.tagged(arn)`` returns them."""

    backend: Any

    def list_tags_for_resource(self) -> ActionResult:
        """Answer the tags of a resource."""
        return ActionResult({"tags": self.backend.tagged(self.request()["resourceArn"])})

    def tag_resource(self) -> ActionResult:
        """Add or change tags."""
        request = self.request()
        self.backend.tagged(request["resourceArn"]).update(request["tags"])
        return ActionResult({})

    def untag_resource(self) -> ActionResult:
        """Remove tags."""
        request = self.request()
        tags = self.backend.tagged(request["resourceArn"])
        for key in request["tagKeys"]:
            tags.pop(key, None)
        return ActionResult({})


def _aware(value: Any) -> Any:
    """Give the times in a request their zone: moto's parser leaves it out."""
    if isinstance(value, dict):
        return {name: _aware(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_aware(each) for each in value]
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value


def check(members: dict[str, Any], shape: Shape | None, code: str = "ValidationException") -> None:
    """Refuse members that break their shape: required, length, range, pattern, enumeration.

    botocore itself checks types, required members and minima only, before it sends a request.
    """
    problems = list(_problems(members, shape, "")) if shape is not None else []
    if problems:
        count = f"{len(problems)} validation error{'s' * (len(problems) > 1)} detected"
        raise Refused(code, f"{count}: {'; '.join(problems)}")


def _problems(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if isinstance(shape, StructureShape):
        for name in shape.required_members:
            if value.get(name) is None:
                yield _problem("null", _path(path, name), "Member must not be null")
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _problems(value[name], member, _path(path, name))
        return
    rules = shape.metadata
    if isinstance(shape, ListShape | MapShape):
        yield from _sizes(value, rules, path, "length", len(value))
        if isinstance(shape, ListShape):
            for number, item in enumerate(value, 1):
                yield from _problems(item, shape.member, f"{path}.{number}.member")
        else:
            for key, item in value.items():
                yield from _problems(key, shape.key, path)
                yield from _problems(item, shape.value, f"{path}.{key}.member")
    elif shape.type_name == "string":
        yield from _sizes(value, rules, path, "length", len(value))
        if "enum" in rules and value not in rules["enum"]:
            rule = f"Member must satisfy enum value set: [{', '.join(rules['enum'])}]"
            yield _problem(f"'{value}'", path, rule)
        elif "pattern" in rules and not _regex(rules["pattern"]).fullmatch(value):
            rule = f"Member must satisfy regular expression pattern: {rules['pattern']}"
            yield _problem(f"'{value}'", path, rule)
    elif shape.type_name in ("integer", "long", "float", "double"):
        yield from _sizes(value, rules, path, "value", value)


def _sizes(value: Any, rules: Any, path: str, what: str, size: float) -> Iterator[str]:
    if size < rules.get("min", size):
        rule = f"Member must have {what} greater than or equal to {rules['min']}"
        yield _problem(f"'{value}'", path, rule)
    if size > rules.get("max", size):
        rule = f"Member must have {what} less than or equal to {rules['max']}"
        yield _problem(f"'{value}'", path, rule)


def _problem(value: str, path: str, rule: str) -> str:
    return f"Value {value} at '{path}' failed to satisfy constraint: {rule}"


def _path(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    for java, python in _CLASSES.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def page(
    items: Iterable[T], request: dict[str, Any], *, limit: int = 100
) -> tuple[list[T], str | None]:
    """Cut one page out of ``items``: MaxResults of them (or ``limit``) from NextToken on.

    Returns the page and the next page's token. Members may be spelled as in EKS (maxResults).
    """
    token = request.get("NextToken") or request.get("nextToken") or "0"
    size = request.get("MaxResults") or request.get("maxResults") or limit
    if not token.isdigit():
        raise Refused("ValidationException", "Invalid NextToken.")
    found = list(islice(items, int(token), int(token) + size + 1))
    return found[:size], str(int(token) + size) if len(found) > size else None


def in_order(
    items: Sequence[T], request: dict[str, Any], keys: dict[str, Any], default: str
) -> list[T]:
    """Sort by SortBy (of ``keys``, a function each) and SortOrder, ascending unless said."""
    backwards = request.get("SortOrder") == "Descending"
    return sorted(items, key=keys[request.get("SortBy") or default], reverse=backwards)


def new_uuid(ids: Random) -> str:
    """Draw a UUID."""
    return str(uuid.UUID(int=ids.getrandbits(128), version=4))
