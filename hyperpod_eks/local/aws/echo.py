"""The echo switch: describes that say more, less and otherwise than what was sent.

No API promises to describe a resource in the words of the request that made it.  AWS fills in
defaults, leaves out what is empty, orders lists as it likes and describes new members from one
day to the next; what it does to a given member is written nowhere.  A client must be right
either way, so this switch alters what a describe answers, after the service has answered it:

- who something is, and its state, is never touched (``Members.kept``);
- an echo of what a request can say (``Members.echoes``) is left out, null, empty, in other order,
  in other case, or filled in where the request was silent;
- every other member that the output shape has is added, with a random value of its type.

All is drawn from the seed and the member's place, so that a member is odd in the same way in every
answer, unless the answers are to vary.  The tables, with reasons, are in ``echo_members``.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hyperpod_eks.local.aws.echo_members import MEMBERS, Members

#: Members of any answer that say whether it has another page.
PAGES = (
    *("NextToken", "nextToken", "Marker", "NextMarker", "IsTruncated", "ContinuationToken"),
    *("NextContinuationToken", "NextKeyMarker", "NextVersionIdMarker", "NextUploadIdMarker"),
)
_SHARE = 0.35  # of the members that are altered
_DEPTH = 3  # of added structures

_LEFT_OUT: Any = object()


@dataclass
class Echo:
    """What is altered: describes of ``service`` whose operation is ``operation``; ``*`` is any.

    ``says`` are values for members by path (``InstanceGroups[].MinCount``), and ``omits`` are
    members to leave out: where one of them is given, nothing else is altered.  With ``varies`` each
    answer is odd in a way of its own, as while a service is being changed behind its API.

    With ``truthful`` no value is another one than the service has: a member is left out or null,
    a text empty, a list in another order (if that says nothing), an enumeration in another case.
    Where oddities change with time, nothing else would be an oddity: a value that AWS has shown and
    later shows otherwise is what somebody has changed.
    """

    seed: int = 0
    service: str = "*"
    operation: str = "*"
    says: Mapping[str, Any] = field(default_factory=dict)
    omits: tuple[str, ...] = ()
    varies: bool = False
    truthful: bool = False
    _answers: Iterator[int] = field(default_factory=itertools.count, init=False, repr=False)

    def alters(self, service: str, operation: str) -> bool:
        """Say whether answers of this operation are altered."""
        return (
            (service, operation) in MEMBERS
            and self.service in ("*", service)
            and self.operation in ("*", operation)
        )

    def altered(self, service: str, operation: str, body: bytes) -> bytes:
        """Return the answer's body with other members."""
        model = _model(service).operation_model(operation)
        json_ = "json" in model.service_model.protocol
        alter = _Alteration(self, f"{service}.{operation}", MEMBERS[service, operation], json_)
        if json_:
            return json.dumps(alter(json.loads(body), model.output_shape)).encode()
        return _xml(service, model, lambda value: alter(value, model.output_shape), body)


class _Alteration:
    def __init__(self, echo: Echo, call: str, members: Members, wire: bool) -> None:
        self._echo, self._call, self._members = echo, call, members
        self._wire = wire  # whether members are called as on the wire, or as by botocore
        self._number = next(echo._answers) if echo.varies else ""
        self._exact = bool(echo.says or echo.omits)

    def __call__(self, value: Any, shape: Any) -> Any:
        return self._structure(value, shape, "", "", echoed=False)

    def _key(self, name: str, member: Any) -> str:
        return str(member.serialization.get("name", name)) if self._wire else name

    def _dice(self, place: str) -> random.Random:
        return random.Random(f"{self._echo.seed}{self._number} {self._call} {place}")  # noqa: S311  no secret

    def _structure(self, value: Any, shape: Any, path: str, place: str, *, echoed: bool) -> Any:
        """Alter a structure; ``path`` is its shape's, ``place`` has the numbers in lists too."""
        found = dict(value)
        for name, member in shape.members.items():
            if shape.is_tagged_union and name not in value:
                continue  # it has one member, always
            here, there = (f"{start}.{name}".lstrip(".") for start in (path, place))
            key = self._key(name, member)
            answer = found.pop(key, _LEFT_OUT)
            answer = (
                self._inside(answer, member, here, there, echoed=echoed)
                if shape.is_tagged_union
                else self._member(answer, member, here, there, echoed=echoed)
            )
            if answer is not _LEFT_OUT:
                found[key] = answer
        return found

    def _member(self, value: Any, shape: Any, path: str, place: str, *, echoed: bool) -> Any:
        if path in self._echo.omits:
            return _LEFT_OUT
        if path in self._echo.says:
            return self._echo.says[path]
        kept = path in self._members.reasons or path in PAGES
        echoed = echoed or path in self._members.requests
        dice = self._dice(place)
        if value not in (_LEFT_OUT, None) and not (kept and path not in self._members.inner):
            value = self._inside(value, shape, path, place, echoed=echoed)
        if self._exact or kept:
            return self._shuffled(value, path, dice)
        if dice.random() > _SHARE:
            return value
        if value is _LEFT_OUT or value is None:
            return self._random(shape, dice)
        return self._odd(value, shape, path, dice) if echoed else value

    def _odd(self, value: Any, shape: Any, path: str, dice: random.Random) -> Any:
        """Describe a value otherwise."""
        # case matters in JSON (RFC 8259)
        text = isinstance(value, str) and not value.startswith("{")
        empty: Any = {} if isinstance(value, dict) else [] if isinstance(value, list) else ""
        fitting = {
            "left out": _LEFT_OUT,
            "null": None,
            "empty": empty,
            "reordered": value[::-1] if isinstance(value, list) else _LEFT_OUT,
            "other case": value.swapcase() if text else _LEFT_OUT,
        }
        if isinstance(value, bool | int | float) or (self._echo.truthful and empty != ""):
            del fitting["empty"]
        if self._echo.truthful and not shape.metadata.get("enum"):
            del fitting["other case"]
        if self._echo.truthful and path in self._members.ordered:
            del fitting["reordered"]
        return fitting[dice.choice(list(fitting))]

    def _inside(self, value: Any, shape: Any, path: str, place: str, *, echoed: bool) -> Any:
        if shape.type_name == "structure":
            return self._structure(value, shape, path, place, echoed=echoed)
        if shape.type_name == "list" and shape.member.type_name == "structure":
            return [
                self._structure(each, shape.member, f"{path}[]", f"{place}[{n}]", echoed=echoed)
                for n, each in enumerate(value)
            ]
        return value

    def _shuffled(self, value: Any, path: str, dice: random.Random) -> Any:
        if self._exact or path not in self._members.unordered or not isinstance(value, list):
            return value
        return dice.sample(value, len(value))

    def _random(self, shape: Any, dice: random.Random, depth: int = 0) -> Any:
        """Return some value of a shape's type and enumeration, within its bounds."""
        kind, about = shape.type_name, shape.metadata
        least = about.get("min", 0)
        if kind == "structure":
            names = [n for n in shape.members if dice.random() < 0.5] if depth < _DEPTH else []
            if shape.is_tagged_union:
                names = [dice.choice(list(shape.members))]
            return {
                self._key(n, shape.members[n]): self._random(shape.members[n], dice, depth + 1)
                for n in names
            }
        if kind == "list":
            return [self._random(shape.member, dice, depth + 1) for _ in range(max(least, 1))]
        if kind == "map":
            return {"echo": self._random(shape.value, dice, depth + 1)}
        if kind == "string":
            return (
                dice.choice(about["enum"]) if about.get("enum") else "echo"[: about.get("max", 4)]
            )
        if kind == "boolean":
            return dice.random() < 0.5
        if kind == "timestamp":
            return 1_800_000_000
        return dice.choice([least, min(least + 1, about.get("max", least + 1))])


@cache
def _model(service: str) -> Any:
    from moto.core.utils import get_service_model  # noqa: PLC0415  moto is slow to load

    return get_service_model(service)


def _xml(service: str, model: Any, alter: Any, body: bytes) -> bytes:
    """Alter what an XML answer says: read as clients read it, write it as moto writes."""
    from botocore.parsers import create_parser  # noqa: PLC0415  moto is slow to load
    from moto.core.serialize import get_serializer_class  # noqa: PLC0415

    protocol = model.service_model.protocol
    answer = {"body": body, "headers": {}, "status_code": 200}
    value = create_parser(protocol).parse(answer, model.output_shape)
    value.pop("ResponseMetadata", None)
    text = get_serializer_class(service, protocol)(model).serialize(alter(value))["body"]
    return text if isinstance(text, bytes) else str(text).encode()
