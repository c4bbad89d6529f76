"""Kubernetes objects in the config: what each must have, and the files that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hyperpod_eks.config.rules import Finding
from hyperpod_eks.config.variables import REFERENCE
from hyperpod_eks.config.yaml import read_all
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import Usage

_VERSION = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?v[0-9]+(?:(?:alpha|beta)[0-9]+)?")
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}")
_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9.:_-]{0,251}[a-zA-Z0-9])?")
_SERVER = ("creationTimestamp", "generation", "managedFields", "resourceVersion", "uid")
"""Members of `metadata` that the API server sets (Kubernetes API reference, ObjectMeta)."""


def fault(value: object) -> str:
    """Return the fault of an object, or ""."""
    if not isinstance(value, Mapping):
        return "is not a mapping; write the object, or the path of a YAML file with objects"
    metadata = value.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    for name, found, pattern, example in (
        ("apiVersion", value.get("apiVersion"), _VERSION, "apps/v1"),
        ("kind", value.get("kind"), _KIND, "Namespace"),
        ("metadata.name", metadata.get("name"), _NAME, "team-a"),
        ("metadata.namespace", metadata.get("namespace", "default"), _NAME, "default"),
    ):
        if not isinstance(found, str) or not pattern.fullmatch(found):
            shown = "is missing" if found is None else f"is {str(found)[:80]!r}"
            return f"has no usable {name} (it {shown}); set one like {example}"
    if "items" in value and str(value["kind"]).endswith("List"):
        return "is a list of objects; write each of them as an object"
    if set_ := [name for name in _SERVER if name in metadata] + ["status"] * ("status" in value):
        return f"has {set_[0]}, which the API server sets; leave it out"
    for member in ("labels", "annotations"):
        pairs = metadata.get(member) or {}
        if not isinstance(pairs, Mapping):
            return f"has metadata.{member} that is no mapping; write names and values"
        if wrong := [name for name, text in pairs.items() if not isinstance(text, str)]:
            return f"has metadata.{member}.{wrong[0]} that is no text; put its value in quotes"
    return _secret(value)


def _secret(value: JsonMapping) -> str:
    """Refuse the content of a Secret: the config is kept in the manifest and in the bucket."""
    if (value["apiVersion"], value["kind"]) != ("v1", "Secret"):
        return ""
    for member in ("data", "stringData"):
        content = value.get(member) or {}
        if not isinstance(content, Mapping):
            return f"has {member} that is no mapping; write names and values"
        for key, each in content.items():
            if not isinstance(each, str) or not REFERENCE.fullmatch(each):
                return (
                    f"has {member}.{str(key)[:80]} as a value, which would be kept with the config;"
                    " write ${env:NAME}, and set that variable"
                )
    return ""


def label(value: JsonMapping) -> str:
    """Return the name of an object that no other has.

    >>> label({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}})
    'namespace:team-a'
    >>> named = {"name": "a", "namespace": "b"}
    >>> label({"apiVersion": "batch/v1", "kind": "Job", "metadata": named})
    'job.batch:b:a'
    """
    group, _, _ = str(value["apiVersion"]).rpartition("/")
    kind = ".".join(filter(None, (value["kind"].lower(), group)))
    metadata = value["metadata"]
    return ":".join(filter(None, (kind, metadata.get("namespace"), metadata["name"])))


def doubled(objects: Sequence[JsonMapping]) -> Iterator[Finding]:
    """Yield the objects that an earlier one declares already; no namespace is `default`."""
    seen: dict[str, int] = {}
    for index, each in enumerate(objects):
        if fault(each):
            continue
        explicit = {"namespace": "default", **each["metadata"]}
        first = seen.setdefault(label({**each, "metadata": explicit}), index)
        if first != index:
            yield Finding(
                ("objects", index),
                f"declares {label(each)}, as objects[{first}] does; keep one",
            )


def in_place(given: Json, folder: Path) -> Json:
    """Return the setting ``objects`` with the objects of each file in place of its path.

    Relative paths start at ``folder``.  Raises Usage for a file that cannot be read.
    """
    if not isinstance(given, list):
        return given
    found: list[Json] = []
    for each in given:
        found += _of_file(folder, each) if isinstance(each, str) else [each]
    return found


def _of_file(folder: Path, path: str) -> list[Json]:
    try:
        file = folder / Path(path).expanduser()
    except RuntimeError:  # the home folder of an unknown user
        file = folder / path
    documents = read_all(str(file))
    for document in documents:
        if document.problems:
            mark, text = document.problems[0]
            raise Usage(f"{document.name}:{mark.line}:{mark.column}: {text}", setting="objects")
        if wrong := fault(document.value):
            place = document.place(())
            line = f":{place.line}" if place else ""
            raise Usage(f"{document.name}{line}: the object {wrong}", setting="objects")
    return [document.value for document in documents]
