"""`@frozen`: like `dataclass(frozen=True)`, in a tenth of its time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, NamedTuple, TypeVar, dataclass_transform

T = TypeVar("T")
Frozen = Any
"""An instance of any decorated class."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T]) -> type[T]:
    """Make a class a dataclass with immutable fields; instances with equal fields are equal.

    ``dataclass(frozen=True)`` generates and compiles six methods per class, 0.4 ms, and every
    command loads a hundred classes.  Here nothing is compiled: all classes share their methods.

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
    >>> Place(note="near")
    Traceback (most recent call last):
    TypeError: Place(zone, note) was called with (note)
    """
    for method in (__init__, __setattr__, __delattr__, __eq__, __hash__, __repr__):
        if method.__name__ not in vars(cls):
            setattr(cls, method.__name__, method)
    made = dataclass(init=False, eq=False, repr=False)(cls)
    every = fields(made)  # type: ignore[arg-type]  # mypy does not see the line above
    made._parameters = _Parameters(  # type: ignore[attr-defined]
        frozenset(each.name for each in every),
        tuple(each.name for each in every if not each.kw_only),
        {each.name: each.default for each in every if each.default is not MISSING},
        {e.name: e.default_factory for e in every if e.default_factory is not MISSING},
    )
    return made


class _Parameters(NamedTuple):
    """What `__init__` takes: all names, the positional ones, defaults and their factories."""

    names: frozenset[str]
    positional: tuple[str, ...]
    defaults: dict[str, object]
    factories: dict[str, Callable[[], object]]


def __init__(self: Frozen, *given: object, **named: object) -> None:  # noqa: N807  for the classes
    names, positional, defaults, factories = self._parameters
    own: dict[str, object] = self.__dict__
    own.update(defaults)
    own.update(zip(positional, given, strict=False))
    own.update(named)
    for name, make in factories.items():
        if name not in own:
            own[name] = make()
    if (
        own.keys() != names
        or len(given) > len(positional)
        or (given and not named.keys().isdisjoint(positional[: len(given)]))
    ):
        takes = ", ".join(each.name for each in fields(self))
        found = ", ".join([*(["_"] * len(given)), *named])
        raise TypeError(f"{type(self).__name__}({takes}) was called with ({found})")


def __setattr__(self: Frozen, name: str, value: object) -> None:  # noqa: N807  for the classes
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


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
