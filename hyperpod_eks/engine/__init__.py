"""Observe, compare, decide, act, observe again: the engine of create, status and delete."""

from hyperpod_eks.engine.apply import Apply, create, prunable
from hyperpod_eks.engine.context import Context
from hyperpod_eks.engine.destroy import (
    Destroy,
    delete,
    find_data,
    plan_delete,
    taken_along,
    verify_deleted,
)
from hyperpod_eks.engine.observe import observe_all, rebuild, status
from hyperpod_eks.engine.wording import owner_of, unproven, words_of

__all__ = [
    "Apply",
    "Context",
    "Destroy",
    "create",
    "delete",
    "find_data",
    "observe_all",
    "owner_of",
    "plan_delete",
    "prunable",
    "rebuild",
    "status",
    "taken_along",
    "unproven",
    "verify_deleted",
    "words_of",
]
