"""Look, judge, act, look again: the one engine behind create, status and delete."""

from hyperpod_eks.engine.loop import (
    World,
    look_at_all,
    rebuild,
    status,
    stranger,
    unproven,
    words_of,
)
from hyperpod_eks.engine.provide import Provide, create, undeclared
from hyperpod_eks.engine.remove import Fate, Remove, delete, doomed, remaining

__all__ = [
    "Fate",
    "Provide",
    "Remove",
    "World",
    "create",
    "delete",
    "doomed",
    "look_at_all",
    "rebuild",
    "remaining",
    "status",
    "stranger",
    "undeclared",
    "unproven",
    "words_of",
]
