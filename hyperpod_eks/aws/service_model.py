"""The rules of AWS for requests: botocore's service models, read when they are needed.

Enumerations, bounds and patterns live in the JSON models that botocore ships, so an upgrade of
boto3 brings new instance types without a change here, and nothing is copied. botocore checks
required members, types and lower bounds of a request; `violations` also checks upper bounds,
lengths, patterns, enumerations and unions, before anything is sent.

A *path* names a member as AWS's API reference does, without a mark for lists on the way:
``CreateCluster.InstanceGroups.InstanceCount``; ``[]`` at its end is the list's element.

Only the operations that this tool calls are known of large services (`models.OPERATIONS`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache

from hyperpod_eks.aws.models import loader
from hyperpod_eks.documents import Json, JsonMapping

Shape = JsonMapping
Bounds = tuple[int | None, int | None]

# AWS writes its patterns for Java. Inside a class, Python's \w matches letters and digits of
# all languages and accepts a little more; the service itself rejects the rest.
_JAVA = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\d",
    r"\p{Z}": "\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    r"\p{Alnum}": "a-zA-Z0-9",
}
# The meaning of patterns that users meet; AWS prints only the pattern.
_MEANING = {
    "[a-zA-Z0-9](-*[a-zA-Z0-9])*": "use letters and digits, with hyphens between them",
    r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)": "use letters, digits, spaces and _.:/=+-@",
}
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "boolean": (bool,),
    "list": (list, tuple),
    "map": (Mapping,),
    "structure": (Mapping,),
}
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "long": "a whole number",
    "float": "a number",
    "double": "a number",
    "boolean": "true or false",
    "list": "a list",
    "map": "a mapping",
    "structure": "a mapping",
}


def service(name: str) -> Shape:
    """Return the model of a service (``sagemaker``, ``eks``) as botocore packages it."""
    found: Shape = loader().load_service_model(name, "service-2")
    return found


def regions() -> tuple[str, ...]:
    """Return the names of all regions that the installed botocore knows, in every partition."""
    partitions = loader().load_data("partitions")["partitions"]
    return tuple(
        name
        for partition in partitions
        for name in partition["regions"]
        if not name.endswith("-global")
    )


def partition(region: str) -> str:
    """Return the partition of a region that botocore knows; "" for others."""
    partitions = loader().load_data("partitions")["partitions"]
    return next((str(each["id"]) for each in partitions if region in each["regions"]), "")


def region_fault(region: str) -> str:
    """Return what is wrong with a region's name and the fix; empty if botocore knows it."""
    known = regions()
    if region in known:
        return ""
    bare = region.strip(" \t\r\n\"'[]")
    if bare in known:
        return f"has characters around the name; use {bare}"
    if region[:-1] in known and region[-1:].isalpha():
        return f"is an availability zone, not a region; use {region[:-1]}"
    near = nearest(region, known)
    fix = f"did you mean {near[0]}?" if near else "choose one like us-west-2"
    return f"is not an AWS region that botocore knows; {fix}"


def shape(name: str, path: str) -> Shape:
    """Return the shape at `path` of service `name`: ``Operation.Member.Member``, or a shape's name.

    Raises `KeyError` for a path that the model does not have.
    """
    model = service(name)
    first, *members = path.removesuffix("[]").split(".")
    shapes = model["shapes"]
    here = model["operations"][first]["input"]["shape"] if first in model["operations"] else first
    for member in members:
        here = shapes[_element(shapes, here)]["members"][member]["shape"]
    found: Shape = shapes[_element(shapes, here) if path.endswith("[]") else here]
    return found


def enum(name: str, path: str) -> tuple[str, ...]:
    """Return the values that the member may have; empty when AWS does not enumerate them."""
    return tuple(shape(name, path).get("enum", ()))


def pattern(name: str, path: str) -> str:
    """Return the member's pattern as AWS writes it (Java's dialect); empty when it has none."""
    return str(shape(name, path).get("pattern", ""))


def bounds(name: str, path: str) -> Bounds:
    """Return the least and the greatest value (of text and lists: length); None is unlimited."""
    found = shape(name, path)
    return found.get("min"), found.get("max")


def expected(name: str, path: str) -> str:
    """Return the values that a member allows, in words: ``a whole number from 0 to 6758``."""
    return _expected(shape(name, path))


def faults(name: str, path: str, value: object) -> list[str]:
    """Return the faults of a value for the member at `path`, each with value, rule and fix."""
    operation, _, members = path.removesuffix("[]").partition(".")
    label = f"{operation} {members.rpartition('.')[2]}".rstrip()
    return [text for _, text in _faults(service(name), shape(name, path), value, "", label)]


def violations(name: str, operation: str, params: Mapping[str, object]) -> list[str]:
    """Return every fault that the model of service `name` finds in a request.

    `params` are the keyword arguments of the boto3 call. Each line names the member, its value,
    the rule and a fix; an empty list means that the request conforms to AWS's model.
    """
    model = service(name)
    top = model["shapes"][model["operations"][operation]["input"]["shape"]]
    return [f"{path}: {text}" for path, text in _faults(model, top, params, "", operation)]


def to_api(name: str, path: str, value: object) -> tuple[Json, list[str]]:
    """Convert a setting to AWS's names: ``{"drain_policy": …}`` becomes ``{"DrainPolicy": …}``.

    `value` is for the member at `path`, with members in snake_case; the keys of maps (labels) are
    data and stay. Returns the value, and a line for each name that AWS does not have. Values of
    a wrong type stay as they are; `faults` reports them.
    """
    found: list[str] = []
    return _spell(service(name)["shapes"], shape(name, path), value, found), found


def to_config(member: str) -> str:
    """Convert a member's name to the config's snake_case.

    >>> [to_config(name) for name in ("VolumeSizeInGB", "FSxLustreConfig", "SizeInGiB")]
    ['volume_size_in_gb', 'fsx_lustre_config', 'size_in_gib']
    """
    for written, plain in (("GiB", "Gib"), ("FSx", "Fsx")):
        member = member.replace(written, plain)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", member).lower()


def _spell(shapes: Shape, here: Shape, value: object, found: list[str]) -> Json:
    kind = here["type"]
    if kind == "structure" and isinstance(value, Mapping):
        names = {to_config(member): member for member in here.get("members", {})}
        spelled = {}
        for key, entry in value.items():
            if key in names:
                inner = shapes[here["members"][names[key]]["shape"]]
                spelled[names[key]] = _spell(shapes, inner, entry, found)
            else:
                near = nearest(str(key), tuple(names))
                fix = f"did you mean {near[0]}?" if near else f"known here: {', '.join(names)}"
                found.append(f"{key} is not a setting here; {fix}")
        return spelled
    if kind == "list" and isinstance(value, list | tuple):
        return [_spell(shapes, shapes[here["member"]["shape"]], one, found) for one in value]
    return value


def nearest(value: str, options: tuple[str, ...]) -> list[str]:
    """Return up to three options that are similar to `value`, best first.

    >>> nearest("m5.2xlarge", ("ml.m5.2xlarge", "ml.p5.48xlarge"))
    ['ml.m5.2xlarge']
    """
    shared = _shared(options)
    wanted = value.strip().lower()
    wanted = wanted if wanted.startswith(shared.lower()) else shared.lower() + wanted
    lower = {option.lower(): option for option in options}
    if wanted in lower:
        return [lower[wanted]]
    from difflib import get_close_matches  # noqa: PLC0415  only for errors

    return [lower[near] for near in get_close_matches(wanted, lower, n=3, cutoff=0.6)]


def show(value: object, limit: int = 60) -> str:
    """Return `value` for a message: as JSON, cut to `limit` characters.

    >>> show("ml.p5.48xlarge", 10), show(["ml.p5.48xlarge"], 10)
    ('"ml.p5.4…"', '["ml.p5.4…')
    """
    text = json.dumps(value, ensure_ascii=False, default=str)
    text = text.encode("utf-8", "backslashreplace").decode()  # lone surrogates
    end = '…"' if isinstance(value, str) else "…"
    return text if len(text) <= limit else f"{text[: limit - len(end)]}{end}"


def _shared(options: tuple[str, ...]) -> str:
    """Return the common prefix of all options; empty if there is only one option."""
    first, last = min(options, default=""), max(options, default="")
    size = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    return first[:size]


def _element(shapes: Shape, name: str) -> str:
    """Return the name of a list's innermost element, or the name itself of another shape."""
    while shapes[name]["type"] == "list":
        name = shapes[name]["member"]["shape"]
    return name


def _faults(
    model: Shape, here: Shape, value: object, path: str, label: str
) -> Iterator[tuple[str, str]]:
    """Compare `value` with its shape; yield the path and the text of each fault.

    `label` is AWS's name of the member, for the text.
    """
    kind = here["type"]
    wanted = _PYTHON.get(kind)
    is_bool = isinstance(value, bool)
    if wanted and (not isinstance(value, wanted) or (is_bool and bool not in wanted)):
        rule = f"({label}{_rule(here)})"
        yield path or label, f"{show(value)} is not {_WORDS[kind]} {rule}; set {_expected(here)}"
    elif kind == "structure":
        assert isinstance(value, Mapping)
        yield from _structure(model, here, value, path, label)
    elif kind in ("list", "map"):
        yield from _length(here, value, path, label, "entries")
        yield from _entries(model, here, value, path, label)
    elif kind == "string":
        assert isinstance(value, str)
        if text := _string(here, value, label):
            yield path or label, text
    elif kind == "timestamp" and not _is_moment(value):
        fix = "choose one like 2027-01-31T03:00:00Z"
        yield path or label, f"{show(value)} is not a moment ({label}); {fix}"
    elif kind in ("integer", "long", "float", "double"):
        assert isinstance(value, int | float)
        if text := _number(here, value, label):
            yield path or label, text


def _entries(
    model: Shape, here: Shape, value: object, path: str, label: str
) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        name, member = (model["shapes"][here[each]["shape"]] for each in ("key", "value"))
        for key, entry in value.items():
            at = f"{path}[{show(key)}]"
            yield from _faults(model, name, key, at, f"{label} key")
            yield from _faults(model, member, entry, at, label)
        return
    assert isinstance(value, list | tuple)
    member = model["shapes"][here["member"]["shape"]]
    for index, entry in enumerate(value):
        yield from _faults(model, member, entry, f"{path}[{index}]", label)


def _number(here: Shape, value: float, label: str) -> str:
    least, most = here.get("min"), here.get("max")
    side = (
        f"below {least}" if least is not None and value < least
        else f"above {most}" if most is not None and value > most
        else ""
    )  # fmt: skip
    return side and f"{value} is {side} ({label}{_rule(here)}); set {_expected(here)}"


def _is_moment(value: object) -> bool:
    """Whether a value is a datetime or a text in ISO 8601."""
    try:
        return isinstance(value, datetime) or bool(datetime.fromisoformat(str(value)))
    except ValueError:
        return False


def _structure(
    model: Shape, here: Shape, value: Mapping[str, object], path: str, label: str
) -> Iterator[tuple[str, str]]:
    members = here.get("members", {})
    operation = label.partition(" ")[0]
    for name in here.get("required", ()):
        if name not in value:
            yield _join(path, name), f"{to_config(name)} is missing ({label} requires it); set it"
    for name, entry in value.items():
        if name not in members:
            near = nearest(name, tuple(members))
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(members)}"
            yield _join(path, name), f"{label} has no such member; {fix}"
        else:
            member = model["shapes"][members[name]["shape"]]
            yield from _faults(model, member, entry, _join(path, name), f"{operation} {name}")
    if here.get("union") and len(value) != 1:
        given = ", ".join(value) or "nothing"
        yield path or label, f"{given} is given ({label} takes exactly one of {', '.join(members)})"


def _string(here: Shape, value: str, label: str) -> str:
    options = tuple(here.get("enum", ()))
    if options and value not in options:
        return _unlisted(value, options, label)
    least, most = here.get("min") or 0, here.get("max")
    if len(value) < least or (most is not None and len(value) > most):
        return (
            f"{show(value)} has {_count(len(value), 'character')} ({label}{_rule(here)});"
            f" set {_expected(here)}"
        )
    regex = _regex(here.get("pattern", ""))
    if regex and not regex.fullmatch(value):
        fix = _MEANING.get(here["pattern"], "change it so that it does")
        return f"{show(value)} does not match {here['pattern']} ({label}); {fix}"
    return ""


def _unlisted(value: str, options: tuple[str, ...], label: str) -> str:
    near = nearest(value, options)
    meant = f"did you mean {_either(near)}?" if near else ""
    if len(options) <= 10:
        return (
            f"{show(value)} is not one of {', '.join(options)} ({label});"
            f" {meant or 'choose ' + _either(list(options))}"
        )
    shared = _shared(options)
    if shared and not value.startswith(shared):
        meant = f'they begin with "{shared}"{": " if meant else ""}{meant}'
    from botocore import __version__  # noqa: PLC0415  imported by now

    return (
        f"{show(value)} is not one of the {len(options)} values of {label} that botocore"
        f" {__version__} knows; {meant or 'choose one of them, or upgrade boto3 if it is newer'}"
    )


def _length(
    here: Shape, value: object, path: str, label: str, unit: str
) -> Iterator[tuple[str, str]]:
    size = len(value)  # type: ignore[arg-type]  # a list or a mapping, by its shape
    if size < (here.get("min") or 0) or size > here.get("max", size):
        yield (
            path or label,
            f"has {size} {unit} ({label}{_rule(here)}); use {_span(here)} {unit}",
        )


def _span(here: Shape) -> str:
    least, most = here.get("min"), here.get("max")
    if most is None:
        return f"at least {least}"
    return f"{least or 0} to {most}" if least != most else f"{most}"


def _rule(here: Shape) -> str:
    """Return the shape's bounds as the end of a sentence: `` is 0 to 6758``."""
    if here.get("min") is None and here.get("max") is None:
        return ""
    kind = here["type"]
    if kind == "string":
        return f" has {_span(here)} characters"
    return f" has {_span(here)} entries" if kind in ("list", "map") else f" is {_span(here)}"


def _expected(here: Shape) -> str:
    options = list(here.get("enum", ()))
    if options:
        return _either(options) if len(options) <= 10 else f"one of its {len(options)} values"
    least, most, kind = here.get("min"), here.get("max"), here["type"]
    if least is None and most is None:
        return _WORDS.get(kind, "a value")
    if kind == "string":
        return f"text of {_span(here)} characters"
    if kind in ("list", "map"):
        return f"{_WORDS[kind]} of {_span(here)} entries"
    if least is not None and most is not None:
        return f"{_WORDS[kind]} from {least} to {most}"
    return f"{_WORDS[kind]} of {_span(here) if most is None else f'at most {most}'}"


def _either(options: list[str]) -> str:
    """Join options in words: ``a, b or c``.

    >>> _either(["a", "b", "c"])
    'a, b or c'
    """
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@lru_cache(maxsize=256)
def _regex(java: str) -> re.Pattern[str] | None:
    """Translate a pattern of AWS; None for no pattern and for one that Python cannot compile."""
    for written, meant in _JAVA.items():
        java = java.replace(written, meant)
    try:
        return re.compile(java) if java else None
    except re.error:
        return None


def dns_suffix(partition: str) -> str:
    """Return what the host names of a partition end with.

    >>> dns_suffix("aws"), dns_suffix("aws-cn")
    ('amazonaws.com', 'amazonaws.com.cn')
    """
    known = loader().load_data("partitions")["partitions"]
    return next(str(each["outputs"]["dnsSuffix"]) for each in known if each["id"] == partition)
