"""Look, judge, act, look again: the one engine behind create, status and delete."""

from hyperpod_eks.engine.apply import Provide, create, undeclared
from hyperpod_eks.engine.destroy import Fate, Remove, delete, doomed, remaining
from hyperpod_eks.engine.loop import World, look_at_all, rebuild, status
from hyperpod_eks.engine.wording import stranger, unproven, words_of

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
