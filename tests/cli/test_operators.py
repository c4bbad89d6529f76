"""Operators and metrics: one word each in the config, and all that they need in the right order."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.config.load import load
from hyperpod_eks.config.warnings import warnings
from hyperpod_eks.local import CHART
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.addon import Addon
from hyperpod_eks.stack import stack
from tests.cli.test_objects import kubernetes
from tests.conftest import User, at_work

TRAINING = "amazon-sagemaker-hyperpod-training-operator"
HERE = Identity("arn:aws:iam::123456789012:user/me", "123456789012", "aws", "us-west-2")
CONFIG: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "chart": {"path": str(CHART)},
    "operators": ["training"],
}


def declared(**settings: Any) -> dict[str, Addon]:
    """Return the declared add-ons by name."""
    given = {"name": "demo", "region": "us-west-2", **settings}
    config = load(given, {}, {}, files=False)
    resolved = ResolvedConfig(config, HERE, ("usw2-az1", "usw2-az2"), {}, "1.34")
    return {each.label: each for each in stack(resolved) if isinstance(each, Addon)}


def needs(addon: Addon) -> set[str]:
    return {each.label for each in addon.after if isinstance(each, Addon)}


def write(user: User, **changes: Any) -> tuple[str, ...]:
    """Write the config; return the options that name it."""
    (user.folder / "c.yaml").write_text(json.dumps(CONFIG | changes))
    return "-f", "c.yaml"


def addons(user: User) -> dict[str, Any]:
    """Return the add-ons of the EKS cluster by name, as EKS describes them."""
    found: dict[str, Any] = user.stack.inventory()["us-west-2"]["eks"]["demo"]["Addons"]
    return found


@pytest.fixture(scope="module")
def made(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A cluster with operators."""
    with at_work(one_stack, tmp_path_factory.mktemp("operators")) as user:
        words = write(user)
        said = user.types("create", *words)
        assert said.code == 0, said.err
        yield user


def test_an_addon_comes_after_those_that_it_needs_whatever_the_order_in_the_file() -> None:
    found = declared(addons={TRAINING: {}, "metrics-server": {}, "cert-manager": {}})
    assert [*found][-3:] == ["cert-manager", TRAINING, "metrics-server"]
    assert needs(found[TRAINING]) == {"cert-manager"}
    assert needs(found["cert-manager"]) == set()


def test_a_need_that_addons_does_not_name_is_a_warning() -> None:
    given = {"name": "demo", "region": "us-west-2", "addons": {TRAINING: {}}}
    (text,) = warnings(load(given, {}, {}, files=False))
    assert text.startswith(f"addons.{TRAINING}: it needs cert-manager, ")
    assert warnings(load(given | {"operators": ["training"]}, {}, {}, files=False)) == []


def test_addons_of_an_operator_keep_the_settings_that_the_config_has() -> None:
    own = {"cert-manager": {"configuration_values": {"replicaCount": 1}}}
    found = declared(operators=["training"], addons=own)
    assert json.loads(found["cert-manager"].configuration) == {"replicaCount": 1}
    pinned = {"cert-manager": {"version": "v1.18.2-eksbuild.2"}}
    found = declared(operators=["training"], addons=pinned)
    assert "webhook" in json.loads(found["cert-manager"].configuration)
    assert found["cert-manager"].version == "v1.18.2-eksbuild.2"


def test_the_training_operator_comes_in_one_switch(made: User) -> None:
    found = addons(made)
    assert {name: found[name]["Status"] for name in ("cert-manager", TRAINING)} == {
        "cert-manager": "ACTIVE",
        TRAINING: "ACTIVE",
    }
    path = "/apis/apps/v1/namespaces/cert-manager/deployments/cert-manager"
    pod = kubernetes("GET", path)["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists", "effect": "NoSchedule"}]
    made.mutations()
    said = made.types("create", "-f", "c.yaml")
    assert (said.code, made.mutations()) == (0, []), said.err
