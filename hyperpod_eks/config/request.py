"""A section of the config as members of an AWS request."""

from __future__ import annotations

from hyperpod_eks.aws import service_model as model
from hyperpod_eks.config.rules import Aws, Members, fields, find
from hyperpod_eks.config.section import GROUP, RESTRICTED, Section
from hyperpod_eks.documents import Json, JsonObject


def request(section: Section, prefix: str) -> JsonObject:
    """Return the members of AWS's request that a section declares, by AWS's names.

    These are the settings whose rule is a member directly below `prefix` (``CreateCluster.``);
    settings without a value are left out.
    """
    found: JsonObject = {}
    for name in fields(type(section)):
        inner, rules = find(type(section), (name,))
        if getattr(inner, "__origin__", None) is tuple:
            rules = (*rules, *find(inner, (0,))[1])
        value = getattr(section, name, None)
        for rule in rules:
            if not isinstance(rule, Aws) or value is None or value == ():
                continue
            above, _, member = rule.path.removesuffix("[]").rpartition(".")
            if f"{above}." in (prefix, GROUP if prefix == RESTRICTED else prefix):
                found[member] = _spelled(rule, value)
    return found


def _spelled(rule: Aws, value: object) -> Json:
    if isinstance(value, tuple):
        return [_spelled(rule, one) for one in value]
    if isinstance(rule, Members):
        return model.to_api(rule.service, rule.path, value)[0]
    return value
