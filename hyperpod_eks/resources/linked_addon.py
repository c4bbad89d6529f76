"""Add-ons with settings that name other resources: an ARN or an address that AWS chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields

from hyperpod_eks.documents import Json
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resources.addon import Addon
from hyperpod_eks.resources.base import References, Resource


def link(source: Resource, name: str) -> str:
    """Return the text that stands for an attribute of a resource, or for its ``arn``."""
    return f"@{source.key}:{name}"


@frozen
class LinkedAddon(Addon):
    """An add-on; texts of `link` in its configuration are filled in from its ``sources``."""

    sources: tuple[Resource, ...] = ()

    kind = "addons/LinkedAddon"
    schema = 2

    def filled(self, references: References) -> Json:
        """Return the configuration with the attributes of the sources; may raise NotReady."""
        texts = {
            link(source, name): value
            for source in self.sources
            for live in (references(source),)
            for name, value in {**live.attributes, "arn": live.arn}.items()
        }

        def fill(value: Json) -> Json:
            if isinstance(value, Mapping):
                return {key: fill(each) for key, each in value.items()}
            if isinstance(value, list):
                return [fill(each) for each in value]
            return texts.get(value, value) if isinstance(value, str) else value

        return fill(json.loads(self.configuration or "{}"))


def linked(addon: Addon, sources: tuple[Resource, ...]) -> LinkedAddon:
    """Return an add-on as one with sources."""
    given = {each.name: getattr(addon, each.name) for each in fields(addon)}
    return LinkedAddon(**given, sources=sources)
