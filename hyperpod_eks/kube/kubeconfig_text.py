"""Edits the text of a kubeconfig: entries are added and removed, and every other byte stays.

Other content is not parsed into values and written again: that would lose comments, anchors, line
ends, and the notation of dates and numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Usage
from hyperpod_eks.files import splice
from hyperpod_eks.frozen import frozen

LISTS = {"clusters": "cluster", "contexts": "context", "users": "user"}
"""The lists of a kubeconfig, with the key of their entries beside ``name``."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@frozen
class Node:
    """A YAML node with its place ``text[start:end]``, without the whitespace after a block."""

    kind: str
    """scalar, alias, map or list."""
    start: int
    end: int
    column: int = 0
    flow: bool = False
    value: str = ""
    """A scalar's value, or an alias's anchor."""
    written: tuple[str, str, bool] = ("", "", False)
    """Anchor, tag, and whether a scalar is plain."""
    inner: tuple[Node, ...] = ()
    """Alternating keys and values, or items."""
    dashes: tuple[int, ...] = ()
    """Positions of the dashes of a block list."""

    def get(self, key: str) -> Node | None:
        """Return the value of a key; None if it is missing."""
        pairs = zip(self.inner[::2], self.inner[1::2], strict=True)
        return next((value for name, value in pairs if name.value == key), None)

    @property
    def empty(self) -> bool:
        """Whether it is null, or an empty map or list."""
        if self.kind == "scalar":
            return self.written[2] and self.value in ("", "~", "null", "Null", "NULL")
        return self.kind != "alias" and not self.inner

    @property
    def shape(self) -> tuple[object, ...]:
        """The content without positions, for comparison."""
        return (self.kind, self.value, self.written, tuple(each.shape for each in self.inner))

    @property
    def plain(self) -> Json:
        """The content with all scalars as text, as PyYAML's BaseLoader returns it."""
        if self.kind == "map":
            pairs = zip(self.inner[::2], self.inner[1::2], strict=True)
            return {name.value: value.plain for name, value in pairs}
        return [each.plain for each in self.inner] if self.kind == "list" else self.value


def parse(text: str) -> Node:
    """Parse a kubeconfig and return its root; an empty scalar for an empty one.

    Raises Usage, without the file's name, if it is no kubeconfig.
    """
    try:
        root = _root(text)
        if root.kind != "map" and not (root.kind == "scalar" and root.empty):
            raise Usage("it is not a mapping")
        _refuse_nameless(root)
    except yaml.YAMLError as error:
        raise Usage(" ".join(str(error).split())[:200]) from error
    except RecursionError as error:
        raise Usage("it is nested too deep") from error
    return root


def _refuse_nameless(root: Node) -> None:
    """Raise Usage for lists that kubectl cannot read, and for entries without a name."""
    keys = [key.value for key in root.inner[::2]]
    for key in LISTS:
        if keys.count(key) > 1:
            raise Usage(f"{key} is given twice")
        found = root.get(key)
        if found is None or found.empty:
            continue
        if found.kind != "list":
            raise Usage(f"{key} is not a list")
        for each in found.inner:
            if each.kind != "alias" and (each.kind != "map" or each.get("name") is None):
                raise Usage(f"an entry of {key} has no name")


def _root(text: str) -> Node:
    events = (
        event
        for event in yaml.parse(text, Loader=_LOADER)
        if not isinstance(event, yaml.StreamStartEvent | yaml.StreamEndEvent)
    )
    dashes = [
        token.start_mark.index
        for token in yaml.scan(text, Loader=_LOADER)
        if isinstance(token, yaml.BlockEntryToken)
    ]
    begin = next(events, None)
    if begin is None:
        return Node("scalar", len(text), len(text), written=("", "", True))
    root = _node(next(events), events, iter(dashes))
    next(events)
    if next(events, None) is not None:
        raise Usage("it has more than one document")
    _refuse_loose(root, set())
    return root


def _refuse_loose(node: Node, anchors: set[str]) -> None:
    """Raise Usage for an alias without an anchor, which PyYAML's parser does not check."""
    if node.kind == "alias" and node.value not in anchors:
        raise Usage(f"the alias *{node.value} has no anchor")
    anchors.add(node.written[0])
    for each in node.inner:
        _refuse_loose(each, anchors)


def _node(event: Any, events: Iterator[yaml.Event], dashes: Iterator[int]) -> Node:
    # the stubs lack the marks of parsed events and the anchors of nodes' events
    start, end, column = event.start_mark.index, event.end_mark.index, event.start_mark.column
    if isinstance(event, yaml.AliasEvent):
        return Node("alias", start, end, column, value=str(event.anchor))
    written = (event.anchor or "", event.tag or "", False)
    if isinstance(event, yaml.ScalarEvent):
        plain = bool(event.implicit[0])
        return Node("scalar", start, end, column, False, event.value, (*written[:2], plain))
    kind = "map" if isinstance(event, yaml.MappingStartEvent) else "list"
    flow, inner, places = bool(event.flow_style), [], []
    while not isinstance(event := next(events), yaml.CollectionEndEvent):
        if kind == "list" and not flow:
            places.append(next(dashes))
        inner.append(_node(event, events, dashes))
    end = event.end_mark.index if flow or not inner else inner[-1].end  # type: ignore[union-attr]
    return Node(kind, start, end, column, flow, "", written, tuple(inner), tuple(places))


# --- changes


def with_entry(text: str, new: JsonMapping) -> str:
    """Add the entries of a kubeconfig to another; those of the same name are replaced in place.

    A context with the cluster and user of the new one stays: it may have a namespace.  Raises Usage
    if the text is no kubeconfig, or the edit would change other entries.
    """
    root = parse(text)
    if root.kind != "map":
        _, _, words = _line(text, len(text), _spelled(text, new, False, 0))
        text += words.rstrip("\r\n") + _eol(text)
        if parse(text).plain != new:
            raise Usage("it cannot be added to")
        return text
    for key, value in new.items():
        if key in LISTS:
            for entry in value:
                text = _put(text, key, entry)
        elif key == "current-context":
            text = _set(text, key, value)
        elif key != "preferences" and root.get(key) is None:
            text = _append(text, key, value)
    return text


def without_entry(text: str, name: str) -> str:
    """Remove a cluster, its context and its user.  Raises Usage as `with_entry`."""
    for key in LISTS:
        while (found := _entry(parse(text), key, name)) is not None:
            text = _drop(text, key, found)
    current = parse(text).get("current-context")
    if current is not None and current.value == name:
        text = _set(text, "current-context", "")
    return text


def names(text: str) -> list[str]:
    """Return the names of the clusters.  Raises Usage if the text is no kubeconfig."""
    clusters = parse(text).get("clusters")
    return [_name(each) for each in clusters.inner] if clusters else []


def blank(text: str) -> bool:
    """Whether a kubeconfig has no entries, comments, or content of others."""
    root = parse(text)
    ours = {"apiVersion", "kind", "preferences", "current-context", *LISTS}
    left = [key for key in ("preferences", *LISTS) if (at := root.get(key)) and not at.empty]
    current = root.get("current-context")
    known = all(key.value in ours for key in root.inner[::2])
    return known and not left and not (current and current.value) and "#" not in text


def _name(entry: Node) -> str:
    name = entry.get("name") if entry.kind == "map" else None
    return name.value if name else ""


def _entry(root: Node, key: str, name: str) -> int | None:
    found = root.get(key)
    every = found.inner if found and found.kind == "list" else ()
    return next((i for i, each in enumerate(every) if _name(each) == name), None)


def _put(text: str, key: str, entry: JsonMapping) -> str:
    root = parse(text)
    there, index = root.get(key), _entry(root, key, entry["name"])
    if there is None:
        return _append(text, key, [entry])
    if index is None:
        return _checked(text, _added(text, root, key, there, entry), key, (*there.inner, entry))
    old = there.inner[index]
    about, new = old.get(LISTS[key]), entry[LISTS[key]]
    known = about.plain if about else None
    if known == new or (key == "contexts" and isinstance(known, dict) and known == known | new):
        return text
    instead = _spelled(text, entry, old.flow, old.column)
    instead += _eol(text) if text[old.end - 1] == "\n" else ""  # a block scalar was last
    changed = splice(text, [(old.start, old.end, instead)])
    return _checked(text, changed, key, (*there.inner[:index], entry, *there.inner[index + 1 :]))


def _added(text: str, root: Node, key: str, there: Node, entry: JsonMapping) -> str:
    """Append an entry to a list."""
    if there.inner and there.flow:
        at = there.inner[-1].end
        return splice(text, [(at, at, f", {_spelled(text, entry, True, 0)}")])
    if root.flow:
        return splice(text, [(there.start, there.end, f"[{_spelled(text, entry, True, 0)}]")])
    column = root.column
    if there.dashes:
        column = there.dashes[-1] - text.rfind("\n", 0, there.dashes[-1]) - 1
    item = f"{' ' * column}- {_spelled(text, entry, False, column + 2)}"
    if there.inner:
        return splice(text, [_line(text, there.end, item)])
    return splice(text, [(there.start, there.end, ""), _line(text, there.end, item)])


def _append(text: str, key: str, value: Json) -> str:
    """Add a key to the root."""
    root = parse(text)
    if root.kind == "map" and root.flow:
        at = root.inner[-1].end if root.inner else root.start + 1
        word = f"{json.dumps(key)}: {json.dumps(value)}"
        changed = splice(text, [(at, at, f", {word}" if root.inner else word)])
    else:
        block = _spelled(text, {key: value}, False, root.column)
        changed = splice(text, [_line(text, root.end, " " * root.column + block)])
    return _checked(text, changed, key, value)


def _set(text: str, key: str, value: str) -> str:
    root = parse(text)
    there = root.get(key)
    if there is None:
        return _append(text, key, value)
    if there.kind == "scalar" and there.value == value:
        return text
    gap = "" if there.end > there.start else " "
    changed = splice(text, [(there.start, there.end, gap + json.dumps(value))])
    return _checked(text, changed, key, value)


def _drop(text: str, key: str, index: int) -> str:
    there = parse(text).get(key)
    assert there
    rest = (*there.inner[:index], *there.inner[index + 1 :])
    if not rest:
        if there.flow:
            edits = [(there.start, there.end, "[]")]
        else:
            first, last = _whole(text, there.dashes[0], there.end)
            colon = _colon(text, key)
            edits = [(colon, colon, " []"), (first, last, "")]
    elif not there.flow:
        edits = [(*_whole(text, there.dashes[index], there.inner[index].end), "")]
    elif index < len(rest):
        edits = [(there.inner[index].start, there.inner[index + 1].start, "")]
    else:
        edits = [(there.inner[index - 1].end, there.inner[index].end, "")]
    return _checked(text, splice(text, edits), key, rest)


def _colon(text: str, key: str) -> int:
    """Return the position after the colon of a key of the root."""
    end = next(each.end for each in parse(text).inner[::2] if each.value == key)
    return text.index(":", end) + 1


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """Return start and end of the lines of a list item, given its dash and its end."""
    return text.rfind("\n", 0, start) + 1, _next_line(text, end)


def _next_line(text: str, at: int) -> int:
    if at and text[at - 1] == "\n":  # a block scalar ends there
        return at
    return text.find("\n", at) + 1 or len(text)


def _line(text: str, end: int, words: str) -> tuple[int, int, str]:
    """Return the edit that inserts lines after the line of position ``end``."""
    at, eol = _next_line(text, end), _eol(text)
    if at and text[at - 1] != "\n":
        return at, at, f"{eol}{words}"
    return at, at, f"{words}{eol}"


def _eol(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _spelled(text: str, value: Json, flow: bool, column: int) -> str:
    """Return a value as YAML: in one line, or as a block indented to ``column``."""
    if flow:
        return json.dumps(value)
    lines = yaml.safe_dump(value, sort_keys=False, width=10_000).splitlines()
    return f"{_eol(text)}{' ' * column}".join(lines)


def _checked(before: str, after: str, key: str, wanted: object) -> str:
    """Return the changed text.  Raises Usage if anything but ``key`` changed, or not as wanted."""
    try:
        old, new = parse(before), parse(after)
        there = new.get(key)
        others = [_others(root, key) for root in (old, new)]
        right = there is not None and others[0] == others[1] and _means(there, wanted)
    except Usage:
        right = False
    if not right:
        raise Usage(
            f"its {key} cannot be changed without changing what others wrote; nothing was written"
        )
    return after


def _others(root: Node, key: str) -> list[tuple[str, object]]:
    pairs = zip(root.inner[::2], root.inner[1::2], strict=True)
    return [(name.value, value.shape) for name, value in pairs if name.value != key]


def _means(there: Node, wanted: object) -> bool:
    if not isinstance(wanted, Sequence) or isinstance(wanted, str):
        return bool(there.plain == wanted)
    return len(there.inner) == len(wanted) and all(
        now.shape == then.shape if isinstance(then, Node) else now.plain == then
        for now, then in zip(there.inner, wanted, strict=True)
    )
