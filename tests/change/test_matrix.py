"""Every setting, changed alone on a running cluster, does what the page says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, get_origin

import pytest
import yaml
from pydantic import BaseModel

from hyperpod_eks.config import Config
from hyperpod_eks.config_rules import fields, find
from hyperpod_eks.errors import Foreign, Usage

from .conftest import Owner
from .matrix import BASE, CONSENT, IN_PLACE, LATER, REFUSED, ROWS, Row

pytestmark = pytest.mark.prove  # minutes: a part of the long proof


def put(config: dict[str, Any], row: Row) -> dict[str, Any]:
    """The configuration with one setting changed; of the groups, in the first."""
    config = copy.deepcopy(config)
    here: Any = config
    *sections, leaf = row.setting.replace("addons.<name>", "addons").split(".")
    for name in sections:
        here = here["instance_groups"][0] if name.endswith("[]") else here.setdefault(name, {})
    here[leaf] = row.after
    return config


def test_every_setting_does_what_the_page_says(owner: Owner) -> None:
    now = BASE
    owner.declares(yaml.safe_dump(now))
    wrong = []
    for row in ROWS:
        if row.after is None:
            continue
        then = put(now, row)
        try:
            text = yaml.safe_dump(then)
            if row.outcome == REFUSED:
                with pytest.raises((Usage, Foreign)):
                    owner.declares(text, yes=True)
                assert owner.mutations() == []
                continue
            if row.outcome == CONSENT:
                with pytest.raises(Usage):
                    owner.declares(text)
                assert owner.lost
                assert owner.mutations() == []
            before = owner.account() if row.setting.startswith("chart") else []
            changed: list[str] = owner.declares(text, yes=row.outcome == CONSENT)
            if before and owner.account() != before:  # helm speaks to Kubernetes, not to AWS
                changed = ["helm"]
            assert bool(changed) == (row.outcome in (IN_PLACE, CONSENT) and "guard" not in row.why)
            now = then
        except BaseException as error:  # noqa: BLE001  all are told at once
            wrong.append(f"{row.setting} ({row.outcome}): {type(error).__name__}: {error}"[:600])
    assert wrong == []
    assert owner.declares(yaml.safe_dump(now)) == []


def settings(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in fields(section).items():
        inner, _ = find(field.annotation, ())
        item, _ = find(inner, (0,)) if get_origin(inner) is tuple else (inner, ())
        nested = isinstance(item, type) and issubclass(item, BaseModel)
        if nested and prefix + name == "instance_groups":
            yield name
            yield from settings(item, "instance_groups[].")
        elif nested and prefix + name == "addons":
            yield "addons.<name>"
        elif nested and item is inner:
            yield from settings(item, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_page_has_every_setting() -> None:
    assert sorted(row.setting for row in ROWS) == sorted(settings(Config))
    assert {row.outcome for row in ROWS} == {IN_PLACE, CONSENT, REFUSED, LATER}
