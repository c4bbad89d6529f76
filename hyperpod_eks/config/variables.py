"""References in settings, ``${env:NAME}``: stored as written, and resolved when sent."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping

from hyperpod_eks.aws import redaction
from hyperpod_eks.documents import Json
from hyperpod_eks.errors import Usage

REFERENCE = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_BEGUN = "${env:"


def resolved(value: Json, setting: str) -> Json:
    """Return a setting with the values of its variables, which are redacted from then on.

    Raises Usage with the place of each reference that cannot be resolved.
    """
    if wrong := [f"{place}: {why}" for place, why in _unresolved(value, setting)]:
        raise Usage("\n".join(wrong), "Set the variable and run the same command.", setting=setting)
    return _mapped(value, _filled)


def named(value: object) -> set[str]:
    """Return the names of the variables in a value.

    >>> named({"a": ["${env:A} and ${env:B}", 3]}) == {"A", "B"}
    True
    """
    if isinstance(value, Mapping):
        return {name for each in value.values() for name in named(each)}
    if isinstance(value, list | tuple):
        return {name for each in value for name in named(each)}
    return set(REFERENCE.findall(value)) if isinstance(value, str) else set()


def digested(value: object, declared: object) -> object:
    """Return a value with a digest in place of each text with a reference in ``declared``.

    Two such values can be compared, and neither contains the variable's value.

    >>> digested({"a": "secret", "b": "c"}, {"a": "${env:A}", "b": "c"})
    {'a': 'sha256:2bb80d537b1da3e3', 'b': 'c'}
    """
    if isinstance(value, Mapping) and isinstance(declared, Mapping):
        return {key: digested(each, declared.get(key)) for key, each in value.items()}
    if isinstance(value, list) and isinstance(declared, list) and len(value) == len(declared):
        return [digested(*each) for each in zip(value, declared, strict=True)]
    if isinstance(declared, str) and REFERENCE.search(declared):
        return f"sha256:{hashlib.sha256(str(value).encode()).hexdigest()[:16]}"
    return value


def _filled(text: str) -> str:
    for name in REFERENCE.findall(text):
        redaction.learn(os.environ[name])
    return REFERENCE.sub(lambda found: os.environ[found[1]], text)


def _mapped(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, Mapping):
        return {key: _mapped(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(each, change) for each in value]
    return change(value) if isinstance(value, str) else value


def _unresolved(value: object, place: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _unresolved(each, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _unresolved(each, f"{place}[{index}]")
    elif isinstance(value, str):
        if _BEGUN in REFERENCE.sub("", value):
            yield place, "is not a reference to a variable (write ${env:NAME})"
        for name in REFERENCE.findall(value):
            if name not in os.environ:
                yield place, f"the environment variable {name} is not set"
