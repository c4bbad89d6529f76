"""Choose the Kubernetes version, and check the versions and settings of add-ons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from hyperpod_eks.aws.addon_needs import ADDON_ROLES, RECOMMENDED, AddonRole
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.published import choose_version, in_extended_support, order
from hyperpod_eks.config import variables
from hyperpod_eks.config.addons import NEEDED_ADDONS, Addon
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve import addon_settings
from hyperpod_eks.resolve.pod_roles import AddonAnswer, creates_roles, published
from hyperpod_eks.workers import gather, start


class Kubernetes(NamedTuple):
    """The version of a cluster."""

    version: str
    warnings: tuple[str, ...]
    extended: frozenset[str]
    """All versions in extended support."""
    addons: Mapping[str, AddonAnswer]
    """`ResolvedConfig.addons`."""


def kubernetes_version(aws: Aws, config: Config, likely: str = "") -> Kubernetes:
    """Choose the version, and check the add-ons for it.

    An existing cluster keeps its version even if EKS no longer offers it.  ``likely`` is the
    version that an earlier run has chosen: the add-ons' versions for it are asked at once.  Raises
    Usage for an unsupported version, and for add-ons whose version or settings EKS would refuse, so
    that these errors are found before anything is created.
    """
    asked = {  # without the settings that the tool adds: a schema costs a round
        name: config.addons.get(name, Addon())
        for name, addon in config.asked_addons().items()
        if name not in NEEDED_ADDONS
        or addon.version
        or addon.configuration_values
        or addon.pod_identity_associations
    }
    likely = config.eks.version or likely
    ahead = {name: start(partial(_offers, aws, name, likely)) for name in asked if likely}
    pages = aws.eks.get_paginator("describe_cluster_versions").paginate()
    offered = [dict(version) for page in pages for version in page["clusterVersions"]]
    extended = in_extended_support(offered)
    warnings: list[str] = []
    try:
        chosen, warnings = choose_version(
            offered, config.eks.version, config.eks.allow_untested_version
        )
    except Usage as error:
        if not (kept := _own_version(aws, config, error)):
            raise
        own, words = kept
        return Kubernetes(own, words, extended, dict(_unchecked(config, own)))
    checks = [
        partial(
            _check_addon,
            aws,
            name,
            addon,
            chosen,
            ahead[name].result if chosen == likely else partial(_offers, aws, name, chosen),
        )
        for name, addon in asked.items()
    ]
    answers = gather(*checks)
    found = dict(zip(asked, answers, strict=True))
    return Kubernetes(chosen, tuple(warnings), extended, found)


def _unchecked(config: Config, kubernetes: str) -> Iterator[tuple[str, AddonAnswer]]:
    """Yield what is known of add-ons without EKS, which no longer offers their Kubernetes."""
    for name, addon in config.asked_addons().items():
        if creates_roles(name, addon) and not (roles := published(name, addon)):
            why = f"EKS is not asked about add-ons of Kubernetes {kubernetes}"
            yield name, AddonAnswer(unknown=why)
        elif creates_roles(name, addon):
            yield name, AddonAnswer(roles=roles)


def _own_version(aws: Aws, config: Config, error: Usage) -> tuple[str, tuple[str, ...]] | None:
    """Return the version that an existing cluster keeps despite `error`, and warnings; or None."""
    with absent("ResourceNotFoundException"):
        name, wanted = aws.adopted.get("eks/cluster") or config.name, config.eks.version
        own = aws.eks.describe_cluster(name=name)["cluster"]["version"]
        if wanted is None or wanted == own:
            return own, ()
        if order(wanted) < order(own):  # EKS upgrades old versions itself
            return own, (f"{error}; {name} keeps its {own}",)
    return None


def _offers(aws: Aws, name: str, kubernetes: str) -> JsonMapping:
    return aws.eks.describe_addon_versions(addonName=name, kubernetesVersion=kubernetes)


def _check_addon(
    aws: Aws, name: str, addon: Addon, kubernetes: str, offers: Callable[[], JsonMapping]
) -> AddonAnswer:
    """Return what EKS says about an add-on's roles; ``offers`` are its versions.

    Raises Usage for a version or settings that EKS would refuse.
    """
    version, answer = addon.version, offers()
    known = [v["addonVersion"] for addon in answer["addons"] for v in addon["addonVersions"]]
    if not known:
        raise Usage(
            f"addons.{name}: EKS has no such add-on for Kubernetes {kubernetes}",
            f"aws eks describe-addon-versions --kubernetes-version {kubernetes}"
            f" --region {aws.region}",
            setting=f"addons.{name}",
        )
    if version and version not in known:
        raise Usage(
            f"addons.{name}.version: {version} is not offered for Kubernetes {kubernetes}; "
            f"EKS offers {', '.join(known[:5])}",
            "Choose one of those, or leave the version out for AWS's default.",
            setting=f"addons.{name}.version",
        )
    about, chosen = answer["addons"][0], _chosen(answer["addons"][0]["addonVersions"], version)
    needs, ours = chosen.get("requiresIamPermissions"), creates_roles(name, addon)
    asks = ours and name not in ADDON_ROLES and needs is not False
    found = None
    if addon.configuration_values or asks:
        with absent("AccessDenied.*", "ResourceNotFoundException"):
            found = aws.eks.describe_addon_configuration(
                addonName=name, addonVersion=chosen["addonVersion"]
            )
    if addon.configuration_values:
        _check_settings(aws, name, chosen["addonVersion"], addon.configuration_values, found or {})
    roles, unknown = published(name, addon) if ours else (), ""
    if asks:
        roles, unknown = _recommended(found, needs=bool(needs))
        if unknown and name in RECOMMENDED:
            roles, unknown = RECOMMENDED[name], ""
    elif ours and name in ADDON_ROLES and not roles:
        unknown = f"addons.{name}.buckets names none"
    namespace = str(about.get("defaultNamespace") or "")
    return AddonAnswer(namespace, needs is False, roles, unknown)


def _recommended(answer: JsonMapping | None, *, needs: bool) -> tuple[tuple[AddonRole, ...], str]:
    """Return the roles that EKS recommends, and why they are not known, or "".

    ``answer`` is DescribeAddonConfiguration's, and ``needs`` requiresIamPermissions (EKS User
    Guide, "IAM roles for Amazon EKS add-ons").
    """
    if answer is None:
        return (), "EKS does not answer eks:DescribeAddonConfiguration, or you may not call it"
    found: dict[str, list[str]] = {}
    for each in answer.get("podIdentityConfiguration") or ():
        policies = found.setdefault(each.get("serviceAccount") or "", [])
        policies += each.get("recommendedManagedPolicies") or ()
    if (needs and not found) or "" in found or not all(found.values()):
        return (), "EKS says that it needs IAM permissions, and does not recommend all policies"
    return tuple(
        AddonRole("", account, tuple(dict.fromkeys(policies)))
        for account, policies in found.items()
    ), ""


def _chosen(versions: Sequence[JsonMapping], wanted: str | None) -> JsonMapping:
    """Return the declared version, else EKS's default."""
    fits = (
        (each for each in versions if _is_default(each))
        if not wanted
        else (each for each in versions if wanted == each["addonVersion"])
    )
    return next(fits, versions[0])


def _is_default(version: JsonMapping) -> bool:
    return any(each.get("defaultVersion") for each in version.get("compatibilities", ()))


def _check_settings(
    aws: Aws, name: str, version: str, settings: JsonMapping, found: JsonMapping
) -> None:
    """Raise Usage for settings that the schema in DescribeAddonConfiguration's answer refuses."""
    try:
        values = variables.resolved(settings, f"addons.{name}.configuration_values")
    except Usage:  # an unset variable is reported when the settings are sent
        return
    if wrong := addon_settings.problems(values, found.get("configurationSchema") or ""):
        setting = f"addons.{name}.configuration_values"
        raise Usage(
            "\n".join(f"{setting}: {each}" for each in wrong[:5]),
            f"aws eks describe-addon-configuration --addon-name {name} --addon-version"
            f" {version} --region {aws.region} shows the schema.",
            setting=setting,
        )
