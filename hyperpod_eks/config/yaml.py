"""A YAML reader that keeps the place of every value, for messages."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import Usage
from hyperpod_eks.files import BOM, splice
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    import yaml

Loc = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_VALUES = 20_000  # with aliases: refuses nested aliases that expand exponentially

LARGEST = 4 << 20
"""Bytes of the largest file of Kubernetes objects: CRDs have over a megabyte."""

_TEXT = "tag:yaml.org,2002:str"
_PLAIN = ("null", "bool", "int", "float")  # the rest of YAML 1.1 (dates, =) is text in YAML 1.2


@frozen
class Mark:
    """The place of a value: line and column from 1, and the text of a scalar.

    ``start`` and ``end`` bound a scalar in the file's text, with its anchor and its tag.
    """

    line: int
    column: int
    text: str = ""
    start: int = 0
    end: int = 0


@dataclass(eq=False, repr=False)
class Document:
    """A parsed file: plain Python values, and the places of values and keys."""

    name: str
    value: Json = None
    values: dict[Loc, Mark] = field(default_factory=dict)
    keys: dict[Loc, Mark] = field(default_factory=dict)
    problems: list[tuple[Mark, str]] = field(default_factory=list)

    def place(self, loc: Loc, *, key: bool = False) -> Mark | None:
        """Return the place of `loc` (of its key, if asked), or of the nearest parent."""
        if key and loc in self.keys:
            return self.keys[loc]
        for end in range(len(loc), -1, -1):
            if found := self.values.get(loc[:end]):
                inner = end < len(loc)
                return self.keys.get(loc[:end], found) if inner else found
        return None


def read(path: str) -> Document:
    """Read the YAML file at `path` (`-` is standard input).

    Raises `Usage` unless it is a single readable YAML document. Mistakes that do not prevent other
    checks (duplicate keys) are in `Document.problems`.
    """
    name = "standard input" if path == "-" else path
    try:
        data = _bytes(sys.stdin.buffer) if path == "-" else _file(path)
    except OSError as error:
        raise Usage(
            f"{name}: cannot be read: {error.strerror}",
            "Pass an existing YAML file; `-` reads standard input.",
        ) from error
    return parse(name, data)


def read_all(path: str) -> list[Document]:
    """Read a YAML file of one or more documents, without empty ones.  Raises Usage as `read`."""
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        why = error.strerror if isinstance(error, OSError) else error
        raise Usage(f"{path}: cannot be read: {why}", "Pass a YAML file.") from error
    if len(data) > LARGEST:
        raise Usage(f"{path}: is larger than {LARGEST >> 20} MiB")
    import yaml  # noqa: PLC0415

    roots = _nodes(path, _text(path, data), yaml.compose_all)
    found = [_Reader(Document(path), most=400_000).read(root) for root in roots if root]
    return [document for document in found if document.value is not None]


def parse(name: str, data: bytes) -> Document:
    """Read a file's content as `read` does; messages call it ``name``."""
    if len(data) > MAX_BYTES:
        raise Usage(f"{name}: is larger than 1 MiB: that is not a cluster's configuration")
    return _document(name, _text(name, data))


def _text(name: str, data: bytes) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Usage(f"{name}:{line}: is not UTF-8 text; save the file as UTF-8") from error
    if "\0" in text:
        raise Usage(f"{name}: is a binary file; a YAML file is expected")
    return text


def with_numbers(name: str, data: bytes, wanted: Mapping[Loc, int]) -> bytes:
    """Return a file's content with the `wanted` numbers, and every other byte unchanged.

    Raises Usage for a number that cannot be replaced alone: it has an anchor, an alias, a tag or
    quotes.
    """
    document, edits = parse(name, data), []
    bom = BOM if data.startswith(BOM) else b""
    text = data[len(bom) :].decode("utf-8")
    for loc, number in wanted.items():
        mark = document.values[loc]
        _require_plain(name, loc, mark, text[mark.start : mark.end])
        edits.append((mark.start, mark.end, str(number)))
        inner = document.value
        for part in loc[:-1]:
            inner = inner[part]
        inner[loc[-1]] = number
    changed = bom + splice(text, edits).encode()
    if (
        parse(name, changed).value != document.value
    ):  # an alias elsewhere refers to an anchor around it
        raise Usage(
            f"{name}: the numbers cannot be changed without changing more; nothing was written",
            "Write the groups out without anchors, or change the file by hand and run create.",
        )
    return changed


def with_member(name: str, data: bytes, beside: Loc, key: str, value: str) -> bytes:
    """Return a file's content with a text as a mapping's member, and every other byte unchanged.

    The member ``key`` is replaced, or added after the scalar at ``beside``.  Raises Usage if that
    changes more, as an alias does.
    """
    document, bom = parse(name, data), BOM if data.startswith(BOM) else b""
    text = data[len(bom) :].decode("utf-8")
    loc = (*beside[:-1], key)
    mark, at = document.values.get(loc), document.values[beside]
    inner = document.value
    for part in loc[:-1]:
        inner = inner[part]
    inner[key] = value
    old = mark or at
    quote = '"' if text[old.start : old.end].startswith('"') else ""  # JSON is YAML, too
    if mark:
        edits = [(mark.start, mark.end, f"{quote}{value}{quote}")]
    else:
        end = min((i for i in (text.find("\n", at.end), len(text)) if i >= 0), default=at.end)
        end -= text[:end].endswith("\r")
        line_break = "\r\n" if text[end:].startswith("\r") else "\n"
        margin = " " * (document.keys[beside].column - 1)
        edits = [
            (at.end, at.end, f", {quote}{key}{quote}: {quote}{value}{quote}"),
            (end, end, f"{line_break}{margin}{key}: {value}"),
        ]
    for edit in edits:  # in a flow mapping, else in a block mapping
        changed = bom + splice(text, [edit]).encode()
        with suppress(Usage):
            if parse(name, changed).value == document.value:
                return changed
    raise Usage(
        f"{name}: {dotted(loc)} cannot be written without changing more; nothing was written",
        f"Write it by hand: {key}: {value}",
    )


def with_values(name: str, data: bytes, wanted: JsonMapping) -> bytes:
    """Return a file's content with nested values set, and every other byte unchanged.

    ``wanted`` has mappings and texts (a list only where the file has nothing).  Raises Usage if
    that cannot be written without changing more.
    """
    document = parse(name, data)
    whole = _merged(document.value or {}, wanted)
    bom, changed = (BOM if data.startswith(BOM) else b""), data
    with suppress(Usage):
        while (document := parse(name, changed)).value != whole:
            text = changed[len(bom) :].decode("utf-8")
            edit = _edit(document, wanted, text, ())
            if edit is None:  # an alias elsewhere refers to an anchor around it
                break
            changed = bom + splice(text, [edit]).encode()
        else:
            return changed
    raise Usage(
        f"{name}: the values cannot be written without changing more; nothing was written",
        "Print them with -o yaml, and write them by hand.",
    )


def _merged(under: JsonMapping, over: JsonMapping) -> JsonObject:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _edit(
    document: Document, wanted: JsonMapping, text: str, loc: Loc
) -> tuple[int, int, str] | None:
    """Return the first edit of a file's text towards the ``wanted`` values at a place."""
    there = document.value
    for part in loc:
        there = there[part]
    for key, value in wanted.items():
        at = (*loc, key)
        if key not in there:
            return _insertion(document, text, loc, {key: value})
        if isinstance(value, Mapping) and isinstance(there[key], Mapping):
            if edit := _edit(document, value, text, at):
                return edit
        elif there[key] != value:
            mark = document.values[at]
            blank = "" if text[mark.start - 1 : mark.start].isspace() else " "
            return mark.start, mark.end, f"{blank}{json.dumps(value)}"
    return None


def _insertion(
    document: Document, text: str, loc: Loc, member: JsonMapping
) -> tuple[int, int, str]:
    """Return the edit that adds a member to a mapping: to the file's at its end."""
    import yaml  # noqa: PLC0415

    line_break = "\r\n" if "\r\n" in text else "\n"
    mark = document.values[loc]
    start = sum(len(line) + 1 for line in text.split("\n")[: mark.line - 1]) + mark.column - 1
    if text[start : start + 1] == "{":
        inside = json.dumps(member)[1:-1]
        empty = text[start + 1 :].lstrip().startswith("}")
        return start + 1, start + 1, inside if empty else f"{inside}, "
    lines = yaml.safe_dump(member, sort_keys=False, width=10_000, allow_unicode=True).splitlines()
    if not loc:
        gap = "" if text.endswith("\n") else line_break
        return len(text), len(text), gap + "".join(f"{line}{line_break}" for line in lines)
    margin = " " * (mark.column - 1)
    return start, start, "".join(f"{line}{line_break}{margin}" for line in lines)


def _require_plain(name: str, loc: Loc, mark: Mark, written: str) -> None:
    if written != mark.text:
        raise Usage(
            f"{name}:{mark.line}:{mark.column}: {dotted(loc)}: is written as"
            f" {written}, with an anchor, an alias, a tag or quotes, so"
            " that it cannot be changed alone; nothing was written",
            "Write it as a plain number, or change the file by hand and run create.",
        )


def _file(path: str) -> bytes:
    with Path(path).open("rb") as stream:
        return _bytes(stream)


def _bytes(stream: BinaryIO) -> bytes:
    return stream.read(MAX_BYTES + 1)


def _document(name: str, text: str) -> Document:
    import yaml  # noqa: PLC0415  costs 12 ms, and most commands read no file

    (root,) = _nodes(name, text, lambda *arguments: [yaml.compose(*arguments)])
    if root is None:
        raise Usage(f"{name}: is empty; write at least `name: demo` and `region: us-west-2`")
    if not isinstance(root, yaml.MappingNode):
        raise Usage(f"{name}:1:1: is not a mapping of settings; begin with `name: demo`")
    return _Reader(Document(name)).read(root)


def _nodes(
    name: str,
    text: str,
    compose: Callable[[str, type[yaml.SafeLoader]], Iterable[yaml.Node | None]],
) -> list[yaml.Node | None]:
    import yaml  # noqa: PLC0415

    # Both have the type of the Python loader: the C loader has the same interface.
    fast: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_depth(yaml.parse(text, Loader=fast), name)
        return [*compose(text, fast)]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if mark and "nesting depth" in (error.problem or ""):  # from libyaml, which reads ahead
            raise _too_deep(name, mark.line + 1) from error
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise Usage(f"{place}: {_explain(error, text)}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = ord(error.character) if isinstance(error.character, str) else error.character
        raise Usage(f"{name}:{line}: has a control character (U+{code:04X}); remove it") from error


def _refuse_depth(events: Iterator[yaml.Event], name: str) -> None:
    """Refuse deep nesting before the parser recurses into it."""
    import yaml  # noqa: PLC0415

    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_deep(name, event.start_mark.line + 1 if event.start_mark else 1)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_deep(name: str, line: int) -> Usage:
    return Usage(f"{name}:{line}: is nested deeper than {MAX_DEPTH} levels")


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    problem = error.problem or "is not YAML"
    mark = error.problem_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if line[: len(line) - len(line.lstrip())].count("\t"):
        return "is indented with a tab, which YAML forbids; indent with spaces"
    if "expected a single document" in str(error):
        return "a second document begins here; keep one document, remove the `---`"
    if "undefined alias" in problem:
        return f"{problem}; define it with & before it is used"
    context = f" {error.context}" if error.context else ""
    return f"is not YAML: {problem}{context}; check quotes, colons and indentation around here"


@dataclass(eq=False, repr=False)
class _Reader:
    """Converts nodes to values, and records their places."""

    document: Document
    most: int = MAX_VALUES
    count: int = 0

    def read(self, root: yaml.Node) -> Document:
        """Fill the document from its root."""
        import yaml  # noqa: PLC0415

        self.constructor = yaml.constructor.SafeConstructor()
        self.document.value = self.build(root, (), ())
        return self.document

    def build(self, node: yaml.Node, loc: Loc, around: tuple[int, ...]) -> Json:
        import yaml  # noqa: PLC0415

        mark = Mark(node.start_mark.line + 1, node.start_mark.column + 1)
        self.count += 1
        if self.count > self.most or id(node) in around:
            raise Usage(
                f"{self.document.name}:{mark.line}:{mark.column}: aliases expand to more than"
                f" {self.most} values; write them out"
            )
        self.document.values.setdefault(loc, mark)
        around = (*around, id(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, loc, around)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*loc, i), around) for i, item in enumerate(node.value)]
        self.document.values[loc] = Mark(
            mark.line, mark.column, node.value, node.start_mark.index, node.end_mark.index
        )
        return self._scalar(node, mark, loc)

    def _mapping(self, node: yaml.Node, loc: Loc, around: tuple[int, ...]) -> JsonObject:
        found: JsonObject = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            mark = Mark(key_node.start_mark.line + 1, key_node.start_mark.column + 1, key)
            path = (*loc, key)
            if not isinstance(key_node.value, str):
                self._problem(mark, "a list or a mapping cannot be a key; use text")
            elif key_node.tag == "tag:yaml.org,2002:merge":
                self._problem(mark, "merge keys (<<) are not read; write the fields out")
            elif key_node.tag != _TEXT:
                self._problem(mark, f'the key {key} is not text; put it in quotes: "{key}"')
            elif key in found:
                first = self.document.keys[path].line
                self._problem(
                    mark, f"{dotted(path)}: is given twice, first in line {first}; keep one"
                )
            else:
                self.document.keys[path] = mark
                found[key] = self.build(value_node, path, around)
        return found

    def _scalar(self, node: yaml.Node, mark: Mark, loc: Loc) -> Json:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if node.tag == kind:
            self._problem(mark, f"the tag {node.tag} is not known here; write the value without it")
        if kind not in _PLAIN:
            return node.value
        try:
            value = self.constructor.construct_object(node)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError
            if (
                isinstance(value, int) and value.bit_length() > 64
            ):  # Python refuses to print larger ones
                raise ValueError
        except (ValueError, LookupError, AttributeError):  # a tag that does not fit the text
            what = "true or false" if kind == "bool" else "a number that can be used here"
            self._problem(mark, f"{dotted(loc)}: {node.value[:60] or 'nothing'} is not {what}")
            return None
        return value

    def _problem(self, mark: Mark, text: str) -> None:
        self.document.problems.append((mark, text))


def dotted(loc: Loc) -> str:
    """Return `loc` in dotted form.

    >>> dotted(("instance_groups", 0, "instance_count"))
    'instance_groups[0].instance_count'
    """
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
