"""The three kinds of rule that a setting can have, and the messages about mistakes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.yaml import Loc
from hyperpod_eks.documents import Json, JsonObject
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from hyperpod_eks.config.yaml import Document, Mark

T = TypeVar("T")
# The schema contains enumerations of at most this many values. Instance types are more: AWS adds
# some every month, and the installed botocore checks them.
LISTED = 20


@frozen
class _Rule:
    """A rule as pydantic calls it."""

    def fault(self, value: object) -> str:
        """Return the fault of a value, or ""."""
        raise NotImplementedError

    def schema(self, found: JsonObject) -> None:
        """Add the rule to the JSON Schema of its setting, if JSON Schema can express it."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonObject:
        found = handler(core)
        self.schema(found)
        return found

    def _check(self, value: T) -> T:
        if text := self.fault(value):
            text = text.encode("utf-8", "backslashreplace").decode()  # pydantic accepts only UTF-8
            raise PydanticCustomError("refused", "{text}", {"text": text})
        return value


@frozen
class Aws(_Rule):
    """A rule of AWS: the constraints of botocore's model for a member of a request."""

    service: str
    path: str

    def fault(self, value: object) -> str:
        """Ask the model."""
        return "; ".join(model.faults(self.service, self.path, value))

    @property
    def rule(self) -> str:
        """The rule as docs/config.md prints it."""
        return model.expected(self.service, self.path)

    @property
    def member(self) -> str:
        """The member as AWS's API reference names it: ``CreateCluster InstanceGroups``."""
        operation, members = self.path.removesuffix("[]").split(".", 1)
        return f"{operation} {members}"

    def schema(self, found: JsonObject) -> None:
        """Add bounds, short enumerations and translatable patterns."""
        shape = model.shape(self.service, self.path)
        text = shape["type"] == "string"
        for name, keyword in (("min", "minLength"), ("max", "maxLength")):
            if name in shape:
                found[keyword if text else keyword.replace("Length", "imum")] = shape[name]
        if 0 < len(shape.get("enum", ())) <= LISTED:
            found["enum"] = list(shape["enum"])
        if "pattern" in shape and "\\p" not in shape["pattern"]:
            found["pattern"] = f"^(?:{shape['pattern']})$"


@frozen
class Members(Aws):
    """A structure of AWS: its members are the settings, in snake_case (`model.to_api`)."""

    def fault(self, value: object) -> str:
        """Ask the model about every member."""
        spelled, unknown = model.to_api(self.service, self.path, value)
        return "; ".join(unknown or model.faults(self.service, self.path, spelled))

    @property
    def rule(self) -> str:
        """None: the reference lists its members."""
        return ""

    def schema(self, found: JsonObject) -> None:
        """Describe every member."""
        found.clear()
        shapes = model.service(self.service)["shapes"]
        found.update(_schema(shapes, model.shape(self.service, self.path)))


_TYPES = {"timestamp": "string", "long": "integer", "float": "number", "double": "number"}
"""JSON Schema's types, where they are not called as AWS's."""


def _schema(shapes: model.Shape, here: model.Shape) -> JsonObject:
    """Convert a shape to JSON Schema; the tool itself checks bounds and patterns."""
    kind = here["type"]
    if kind == "structure":
        return _object(shapes, here)
    if kind == "list":
        return {"type": "array", "items": _schema(shapes, shapes[here["member"]["shape"]])}
    if kind == "map":
        value = _schema(shapes, shapes[here["value"]["shape"]])
        return {"type": "object", "additionalProperties": value}
    if 0 < len(here.get("enum", ())) <= LISTED:
        return {"enum": list(here["enum"])}
    return {"type": _TYPES.get(kind, kind)}


def _object(shapes: model.Shape, here: model.Shape) -> JsonObject:
    found: JsonObject = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            model.to_config(name): {
                "description": f"{name} in the API.",
                **_schema(shapes, shapes[one["shape"]]),
            }
            for name, one in here.get("members", {}).items()
        },
    }
    if here.get("required"):
        found["required"] = [model.to_config(name) for name in here["required"]]
    return found


@frozen
class Pattern(_Rule):
    """A pattern for text: what it is, the rule, the regular expression, and where to look."""

    what: str
    rule: str
    regex: str
    fix: str

    def fault(self, value: object) -> str:
        """Match the whole text."""
        if re.fullmatch(self.regex, str(value)):
            return ""
        return f"{model.show(value)} is not {self.what} ({self.rule}); {self.fix}"

    def schema(self, found: JsonObject) -> None:
        """Add the pattern."""
        found["pattern"] = f"^(?:{self.regex})$"


@frozen
class Check(_Rule):
    """A rule that needs code; `refuses` returns "" or the rest of ``<value> …``."""

    rule: str
    refuses: Callable[[Json], str]

    def fault(self, value: object) -> str:
        """Run the code."""
        text = self.refuses(value)
        return f"{model.show(value)} {text}" if text else ""


_WORDS = {
    "string_type": "text",
    "path_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "mapping_type": "a mapping",
    "dict_type": "a mapping",
    "model_type": "a mapping",
}
_EVERY = "(every cluster has one)"
_MISSING: Mapping[str | int, str] = {
    "": "(it has no default); write it",
    "name": f"{_EVERY}; pass NAME, set HYPERPOD_EKS_NAME, or write `name:` in the file",
    "region": f"{_EVERY}; pass --region, set AWS_REGION, or write `region:` in the file",
}


class Finding(NamedTuple):
    """A mistake: where, the text (value, rule and fix), and whether it is about the key there."""

    loc: Loc
    text: str
    at_key: bool = False


def explain(top: type[BaseModel], error: ErrorDetails, document: Document) -> Finding:
    """Convert pydantic's error about a configuration of type `top` to a message for users."""
    kind, loc, given = error["type"], error["loc"], error["input"]
    context = error.get("ctx", {})
    at_key = loc[-1:] == ("[key]",)
    _, rules = find(top, loc)
    loc = loc[:-1] if at_key else loc
    if kind == "refused":
        return Finding(loc, str(context["text"]), at_key)
    if kind == "missing":
        return Finding(loc, f"is missing {_MISSING[loc[0] if len(loc) == 1 else '']}")
    if kind == "extra_forbidden":
        fix = _nearest(str(loc[-1]), tuple(fields(find(top, loc[:-1])[0])), "known here: ", ", ")
        return Finding(loc, f"is not a setting; {fix}", True)
    if kind == "literal_error":
        options = tuple(re.findall(r"'([^']*)'", str(context["expected"])))
        fix = _nearest(str(given), options, "choose ", " or ")
        return Finding(loc, f"{model.show(given)} is not one of {', '.join(options)}; {fix}")
    if kind == "too_long":
        size, most = len(given), context["max_length"]
        return Finding(loc, f"has {size} entries (at most {most} fit); remove {size - most}")
    if word := _WORDS.get(kind):
        return Finding(loc, _wrong_type(word, given, rules, document.values.get(loc)))
    return Finding(loc, f"{model.show(given)}: {error['msg']}")


def _nearest(given: str, known: tuple[str, ...], start: str, between: str) -> str:
    """Name the known word that is most like `given`, else all known words."""
    near = model.nearest(given, known)
    return f"did you mean {near[0]}?" if near else f"{start}{between.join(known)}"


def _wrong_type(word: str, given: object, rules: tuple[object, ...], mark: Mark | None) -> str:
    """Report that `given`, written at `mark`, is not of the type that `word` names."""
    if given is None:
        return f"has no value ({word} is expected); set {word}, or remove the key"
    if word == "text" and mark and mark.text:
        return f'{mark.text} is not text to YAML; put it in quotes: "{mark.text}"'
    for rule in rules:
        if isinstance(rule, Aws) and (text := rule.fault(given)):
            return text
    if isinstance(given, list | dict):
        kind = "a list" if isinstance(given, list) else "a mapping"
        return f"{kind} is given where {word} is expected; set {word}"
    return f"{model.show(given)} is not {word}; set {word}"


def fields(section: object) -> JsonObject:
    """Return the settings of a section by their names in the file."""
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return {}
    return {field.alias or name: field for name, field in section.model_fields.items()}


def find(here: Any, loc: Loc, rules: tuple[object, ...] = ()) -> tuple[Any, tuple[object, ...]]:
    """Return the type and the rules of the setting at `loc` below the type `here`.

    Types are Any here: typing has no name for whatever an annotation can be.
    """
    origin, inner = get_origin(here), get_args(here)
    if origin is Annotated:
        return find(inner[0], loc, (*rules, *inner[1:]))
    if origin in (Union, UnionType):
        return find(next(one for one in inner if one is not type(None)), loc, rules)
    if not loc:
        return here, rules
    if origin is tuple:
        return find(inner[0], loc[1:])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return find(inner[0], ()) if loc[1:] == ("[key]",) else find(inner[1], loc[1:])
    field = fields(here).get(str(loc[0]))
    return find(field.annotation, loc[1:], tuple(field.metadata)) if field else (None, ())


_EMPTY: Mapping[object, Json] = {str: "", int: sys.maxsize, bool: False, Mapping: {}}
"""What a failed setting without a default becomes: it is given, and no rule objects to it."""


def rebuild(here: Any, given: Json, failed: Container[Loc], loc: Loc = ()) -> Any:
    """Build the type `here` from what is `given`, with defaults for the types that `failed`.

    A list keeps its length, so that locations hold; one that failed has one empty value. The type
    is Any here as it is in `find`, and `...` stands for a value that is not there.
    """
    kind, _ = find(here, ())
    if settings := fields(kind):
        found = given if isinstance(given, dict) else {}
        return kind.model_construct(
            **{
                name: rebuild(field.annotation, found.get(name, ...), failed, (*loc, name))
                for name, field in settings.items()
                if field.is_required()
                or (name in found and not (field.default and (*loc, name) in failed))
            }
        )
    lost, inner = given is ... or loc in failed, get_args(kind)
    if get_origin(kind) is tuple and (lost or given is not None):
        items = enumerate([...] if lost else given)
        return tuple(rebuild(inner[0], each, failed, (*loc, index)) for index, each in items)
    if lost:
        return _EMPTY.get(get_origin(kind) or kind)
    if isinstance(given, dict) and inner:
        return {key: rebuild(inner[1], each, failed, (*loc, key)) for key, each in given.items()}
    return Path(given) if kind is Path and given is not None else given


def get(data: object, *keys: str) -> Json:
    """Return the value at `keys` in nested mappings, or None if one of them has none."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data
