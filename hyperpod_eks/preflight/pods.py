"""Checks of the roles for pods: their policies, existing roles, and IAM's quotas."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from hyperpod_eks import workers
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.preflight.cluster import trusted
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.resolve.pod_roles import addon_roles, pod_roles
from hyperpod_eks.resources.iam import Policy, Role
from hyperpod_eks.resources.trust import PODS_SERVICE


def unknown_roles(facts: Facts) -> Iterator[Finding]:
    """An add-on whose pods need a role should get one, which takes knowledge of its needs."""
    for name, text in (facts.resolved.unknown_roles if facts.resolved else {}).items():
        setting = f"addons.{name}.pod_identity_associations"
        yield Finding(
            "addon-roles", "warning", text, f"Set {setting} in the config.", {"setting": setting}
        )


def roles(facts: Facts) -> Iterator[Finding]:
    """Roles and policies that the config names for pods must exist, and EKS must assume the roles.

    EKS and IAM refuse others, minutes after create has begun.
    """
    if facts.resolved is None:
        return
    named = {
        f"addons.{name}.pod_identity_associations": str(each["role_arn"])
        for name, addon in facts.config.asked_addons().items()
        for each in addon.pod_identity_associations or ()
    } | {
        f"pod_identity[{index}].role_arn": each.role_arn
        for index, each in enumerate(facts.config.pod_identity)
        if each.role_arn
    }
    policies = sorted({arn for one in pod_roles(facts.resolved) for arn in one.managed})
    found = workers.gather(
        *(partial(_role, facts, setting, arn) for setting, arn in named.items()),
        *(partial(_policy, facts, arn) for arn in policies),
    )
    for one in found:
        if one:
            yield one


def agent(facts: Facts) -> Iterator[Finding]:
    """An EKS cluster of others must have the Pod Identity agent, which gives pods credentials.

    It is a warning: EKS Auto Mode has the agent without the add-on.
    """
    name = "eks-pod-identity-agent"
    if not (cluster := facts.adopted("eks/cluster")) or facts.resolved is None:
        return
    has = facts.adopted(f"addons/{name}") or name in facts.config.addons
    ours = [one for one in pod_roles(facts.resolved) if not one.web]
    if not has and (facts.config.pod_identity or ours):
        yield Finding(
            "pod-roles",
            "warning",
            f"the adopted EKS cluster {cluster} does not have the add-on {name}, so pods get no"
            " credentials of their roles",
            f"Declare it in the config: addons: {{{name}: }}.",
            {"setting": "addons"},
        )


def taken(facts: Facts) -> Iterator[Finding]:
    """A service account that gets a role with its add-on must have no association of others.

    It has at most one: CreateAddon and UpdateAddon refuse another ("Association already exists").
    """
    if facts.resolved is None or not facts.live("eks/cluster"):
        return
    name, new = facts.resolved.eks_name, {want.key for want in facts.missing(Role)}
    for addon in facts.config.asked_addons():
        answer = facts.resolved.addons.get(addon)
        for one in addon_roles(facts.resolved, addon):
            if one.web or f"iam/{one.label}-role" not in new or (answer and answer.standalone):
                continue
            with absent("AccessDenied.*", "ResourceNotFoundException"):
                found = facts.aws.eks.list_pod_identity_associations(
                    clusterName=name, namespace=one.namespace, serviceAccount=one.account
                )["associations"]
                yield from (_taken(each, addon, name) for each in found if not each.get("ownerArn"))


def _taken(found: JsonMapping, addon: str, cluster: str) -> Finding:
    id_ = found["associationId"]
    return Finding(
        "pod-roles",
        "error",
        f"addons.{addon}: {found['serviceAccount']} in {found['namespace']} has a role already, by"
        f" the association {id_} (a service account has one)",
        f"To keep that: addons.{addon}.pod_identity_associations: [].  To get a role of its own:"
        f" aws eks delete-pod-identity-association --cluster-name {cluster} --association-id {id_}",
        {"setting": "addons", "association": id_},
    )


def _role(facts: Facts, setting: str, arn: str) -> Finding | None:
    """Return what is wrong with an existing role for pods; None if nothing is."""
    role: JsonMapping = {}
    if f":iam::{facts.aws.identity.account}:role/" in arn:  # EKS takes no role of another account
        with absent("NoSuchEntity"):
            role = facts.aws.iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]
    seen = {"setting": setting.partition("[")[0], "role": arn}
    if role.get("Arn") != arn:
        there = f"; did you mean {role['Arn']}?" if role else ""
        text = f"{setting}: the role {arn} does not exist in this account{there}"
        fix = "Use the ARN that `aws iam get-role` prints, including the path."
        return Finding("pod-roles", "error", text, fix, seen)
    if PODS_SERVICE not in trusted(role["AssumeRolePolicyDocument"]):
        return Finding(
            "pod-roles",
            "error",
            f"{setting}: the role {arn} cannot be assumed by {PODS_SERVICE}",
            "Let its trust policy allow sts:AssumeRole and sts:TagSession to"
            f" {PODS_SERVICE}: aws iam update-assume-role-policy --role-name"
            f" {role['RoleName']} …",
            seen,
        )
    return None


def _policy(facts: Facts, arn: str) -> Finding | None:
    """Return an error for a policy that does not exist."""
    with absent("NoSuchEntity"):
        facts.aws.iam.get_policy(PolicyArn=arn)
        return None
    text = f"the policy {arn}, which a role for pods gets, does not exist"
    fix = "Use an ARN that `aws iam list-policies` prints."
    return Finding("pod-roles", "error", text, fix, {"policy": arn})


def quota(facts: Facts) -> Iterator[Finding]:
    """Roles for pods must fit the quotas of IAM, which GetAccountSummary has.

    A cluster without roles for pods comes nowhere near them.
    """
    if facts.resolved is None or not (pods := pod_roles(facts.resolved)):
        return
    summary: dict[Any, int] = facts.aws.iam.get_account_summary()["SummaryMap"]
    several = max(len(one.managed) + bool(one.statements) for one in pods)
    for name, there, adds in (
        ("Roles", summary.get("Roles", 0), len(facts.missing(Role))),
        ("Policies", summary.get("Policies", 0), len(facts.missing(Policy))),
        ("AttachedPoliciesPerRole", 0, several),
    ):
        limit = summary.get(f"{name}Quota")
        if limit is not None and adds and there + adds > limit:
            use = f"{there} in use, {adds} more needed" if there else f"{adds} needed"
            yield Finding(
                "quota-iam",
                "error",
                f'"{name}" of IAM is {limit}: {use}',
                "Request an increase in the Service Quotas console (AWS Identity and Access"
                " Management), or use fewer roles or policies.",
                {"quota": name, "limit": limit, "in_use": there, "wanted": adds},
            )
