"""`@frozen`: like `dataclass(frozen=True)`, in a quarter of its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")
Frozen = Any
"""An instance of any decorated class."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with immutable fields; instances with equal fields are equal.

    ``dataclass(frozen=True)`` generates and compiles six methods per class, 0.45 ms, and every
    command loads sixty classes.  Here only `__init__` is compiled; the others are shared.

    >>> @frozen
    ... class Place:
    ...     zone: str
    ...     note: str = field(default="", compare=False)
    >>> Place("usw2-az1", "near"), Place("usw2-az1") == Place("usw2-az1", "near")
    (Place(zone='usw2-az1', note='near'), True)
    >>> len({Place("usw2-az1"), Place("usw2-az1"), Place("usw2-az2")})
    2
    >>> Place("usw2-az1").zone = "usw2-az2"
    Traceback (most recent call last):
    dataclasses.FrozenInstanceError: cannot assign to field 'zone'
    """
    for method in (__setattr__, __delattr__, __eq__, __hash__, __repr__):
        if method.__name__ not in vars(cls):
            setattr(cls, method.__name__, method)
    return dataclass(eq=False, repr=False)(cls)


def __setattr__(self: Frozen, name: str, value: object) -> None:  # noqa: N807  for the classes
    if name in vars(self) or name not in self.__dataclass_fields__:  # `__init__` sets each once
        raise FrozenInstanceError(f"cannot assign to field {name!r}")
    object.__setattr__(self, name, value)


def __delattr__(self: Frozen, name: str) -> None:  # noqa: N807
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _compared(self: Frozen) -> tuple[object, ...]:
    return tuple(getattr(self, each.name) for each in fields(self) if each.compare)


def __eq__(self: Frozen, other: Frozen) -> bool:  # noqa: N807
    return _compared(self) == _compared(other) if type(other) is type(self) else NotImplemented


def __hash__(self: Frozen) -> int:  # noqa: N807
    return hash(_compared(self))


def __repr__(self: Frozen) -> str:  # noqa: N807
    return f"{type(self).__qualname__}({', '.join(_shown(self))})"


def _shown(self: Frozen) -> Iterator[str]:
    return (f"{each.name}={getattr(self, each.name)!r}" for each in fields(self) if each.repr)
