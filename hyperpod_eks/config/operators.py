"""The add-ons of a config: those that it names, and those that its other settings stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from hyperpod_eks.aws.addon_needs import (
    ADDON_NEEDS,
    CLOUDWATCH,
    INFERENCE,
    OBSERVABILITY,
    SPACES,
    TRAINING_OPERATOR,
)
from hyperpod_eks.config.addons import EFS_DRIVER, FSX_DRIVER, Addon
from hyperpod_eks.config.teams import GOVERNANCE
from hyperpod_eks.documents import JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config

Operator = Literal["training", "inference", "spaces"]
OPERATORS: Mapping[Operator, str] = {
    "training": TRAINING_OPERATOR,
    "inference": INFERENCE,
    "spaces": SPACES,
}
"""By operator, its add-on."""
CERT_MANAGER = "cert-manager"
_TOLERATIONS = {"tolerations": [{"operator": "Exists", "effect": "NoSchedule"}]}
SETTINGS: Mapping[str, JsonMapping] = {
    CERT_MANAGER: {**_TOLERATIONS, "webhook": _TOLERATIONS, "cainjector": _TOLERATIONS},
}
"""Settings of add-ons that the config does not set, for the operators.

The operators wait for cert-manager, which must therefore run on nodes that are still under deep
health checks, or that are all tainted: github.com/awslabs/awsome-distributed-ai,
modules/hyperpod_cluster/cert_manager.tf.
"""


def asked_addons(config: Config) -> dict[str, Addon]:
    """Return the add-ons by name that a config asks for, each after those that it needs.

    Task governance comes last: its webhook refuses Deployments of others as long as it starts
    (SageMaker developer guide, "Cert-manager installation failed due to Kueue webhook not ready").
    """
    implied, declared = dict.fromkeys(_implied(config), Addon()), dict(config.addons)
    found = implied | declared
    return {
        name: _set(name, found[name]) if name in implied else found[name]
        for name in in_order(sorted(found, key=GOVERNANCE.__eq__))
    }


def _implied(config: Config) -> Iterator[str]:
    """Yield the names of the add-ons for which other settings stand."""
    if config.storage.fsx_lustre:
        yield FSX_DRIVER
    if config.storage.efs:
        yield EFS_DRIVER
    if config.teams:
        yield GOVERNANCE
    if config.monitoring:
        yield {"cloudwatch": CLOUDWATCH, "prometheus": OBSERVABILITY}[config.monitoring]
    for operator in config.operators:
        yield from with_needs(OPERATORS[operator])


def linked_addons(config: Config) -> frozenset[str]:
    """Return the add-ons whose settings name other resources, and that come after the nodes."""
    found = {INFERENCE} & asked_addons(config).keys()
    return frozenset(found | ({OBSERVABILITY} if config.monitoring == "prometheus" else set()))


def _set(name: str, addon: Addon) -> Addon:
    """Return an add-on with the settings of `SETTINGS`, unless it has its own."""
    if addon.configuration_values or not (values := SETTINGS.get(name)):
        return addon
    return addon.model_copy(update={"configuration_values": values})


def with_needs(name: str) -> Iterator[str]:
    """Yield the add-ons that an add-on needs, and then itself.

    >>> list(with_needs("amazon-sagemaker-hyperpod-training-operator"))
    ['cert-manager', 'amazon-sagemaker-hyperpod-training-operator']
    """
    for need in ADDON_NEEDS.get(name, ()):
        yield from with_needs(need)
    yield name


def in_order(names: Iterable[str]) -> list[str]:
    """Return add-ons in the given order, but each after those of them that it needs.

    >>> in_order(["amazon-sagemaker-hyperpod-training-operator", "coredns", "cert-manager"])
    ['cert-manager', 'amazon-sagemaker-hyperpod-training-operator', 'coredns']
    """
    given = list(names)
    wanted = (each for name in given for each in with_needs(name))
    return [name for name in dict.fromkeys(wanted) if name in given]
