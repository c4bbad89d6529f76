"""What both exports say of a resource: policies, rules, and the requests of HyperPod and FSx."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from hyperpod_eks.aws.service_model import to_config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.export.recorded import Item, Ref
from hyperpod_eks.resources import governance_members, iam, s3
from hyperpod_eks.resources import trust as trusts
from hyperpod_eks.resources.ec2.security_group import DESCRIPTION as GROUP

__all__ = ["GROUP", "LEFT_OUT"]

OBJECT = (
    "it is a Kubernetes object, of which the manifest has a digest only; it stays in the cluster"
)
LEFT_OUT = {
    "addons/LinkedAddon": (
        "its settings have values of other resources: `aws eks describe-addon` shows them"
    ),
    "s3/Scripts": "it is the objects below a prefix of the bucket; they stay there",
    "helm/Release": "its chart is a folder of hyperpod-eks; the release stays in the cluster",
    "kubernetes/Object": OBJECT,
    "kubernetes/JobsOfTest": "they are jobs of a test that was killed; the next test deletes them",
    "fsx/Volume": OBJECT,
    "hyperpod/NodeClass": OBJECT,
}
"""Kinds that no export has, with the reasons."""


class Rule(NamedTuple):
    """A rule of a security group."""

    protocol: str
    first: int
    last: int
    peer: str | Ref
    """``self``, a CIDR block, or another group."""


def rule(item: Item, declared: Json) -> Rule:
    """Return a declared rule: a peer, or a protocol, ports and a peer."""
    if not isinstance(declared, str):
        return Rule("-1", 0, 0, item.reference(declared))
    *ports, peer = declared.split()
    if not ports:
        return Rule("-1", 0, 0, peer)
    first, _, last = ports[1].partition("-")
    return Rule(ports[0], int(first), int(last or first), peer)


def issuer(item: Item) -> str:
    """Return the URL of an OIDC provider, which its ARN has."""
    return "https://" + item.arn.partition(":oidc-provider/")[2]


def trust(item: Item) -> JsonObject:
    """Return the trust policy of a role.  Raises LeftOut if its OIDC provider does not exist."""
    if item("provider"):
        provider = item.ref("provider", "arn").value
        return trusts.web_trust(item("trusts"), provider, item("services", ()))
    return trusts.trust(item("trusts"), item("caller", ""))


KINDS = {"vpc": "vpc", "sg": "security-group", "subnet": "subnet"}
"""EC2's names in ARNs, by the beginning of an id."""


def policy(item: Item) -> JsonObject:
    """Return the document of a policy."""
    ids = [each.value for each in item.refs("places")]
    network = item("network", "")
    places = [f"{network}:{KINDS[each.partition('-')[0]]}/{each}" for each in ids]
    return iam.document(item("rows"), network, places, item("statements", ""))


def bucket_policy(item: Item) -> JsonObject:
    """Return the policy of a bucket."""
    found: JsonObject = json.loads(s3.bucket_policy(item("arn"), item("nodes", ())))
    return found


def hyperpod(item: Item) -> JsonObject:
    """Return the properties of a HyperPod cluster but its tags, under AWS's names.

    CloudFormation's AWS::SageMaker::Cluster has the members of CreateCluster.
    """
    subnets = {zone: item.reference(each) for zone, each in item("zones")}
    group = item.ref("security_group")

    def network(zones: list[str]) -> JsonObject:
        places = sorted((subnets[zone] for zone in zones), key=lambda each: each.value)
        return {"SecurityGroupIds": [group], "Subnets": places}

    found: JsonObject = {
        "ClusterName": item.id,
        "Orchestrator": {"Eks": {"ClusterArn": item.ref("control", "arn")}},
        **{name: value for name, value in item("settings").items() if value},
        "VpcConfig": network(list(subnets)),
    }
    if item("scaler"):
        found["ClusterRole"] = item.ref("scaler", "arn")
    role = item.ref("role", "arn")
    for each in item("groups"):
        members = {"ExecutionRole": role, **_typed(each["members"])}
        if STORAGES in members:
            members[STORAGES] = [one for one in _storages(item, each) if _whole(one)]
        member = "RestrictedInstanceGroups" if each["restricted"] else "InstanceGroups"
        spec = {**members, "OverrideVpcConfig": network(each["zones"])}
        found.setdefault(member, []).append(spec)
    return found


CHECKS = "OnStartDeepHealthChecks"
KNOWN_CHECKS = ("InstanceStress", "InstanceConnectivity")
"""What AWS::SageMaker::Cluster accepts as checks (schema of 2026-10)."""


def _typed(members: JsonMapping) -> JsonMapping:
    """Return the members of a group without values that CloudFormation's type refuses."""
    if CHECKS not in members:
        return members
    return {**members, CHECKS: [each for each in members[CHECKS] if each in KNOWN_CHECKS]}


STORAGES, LUSTRE = "InstanceStorageConfigs", "FsxLustreConfig"
NAMES = ("DnsName", "MountName")
"""What a mount needs (ClusterFsxLustreConfig) and the config of the cluster's own file system does
not have: it is in what was sent."""


def _storages(item: Item, group: JsonMapping) -> Iterator[JsonMapping]:
    """Yield the volumes and mounts of a group's nodes; mounts with names that were sent."""
    sent = item.record.sent or {}
    for number, each in enumerate(group["members"].get(STORAGES, ())):
        place = f"{group['name']}.{to_config(STORAGES)}.{number}.{to_config(LUSTRE)}"
        facts = {member: f"{place}.{to_config(member)}" for member in NAMES}
        names = {member: sent[fact].value for member, fact in facts.items() if fact in sent}
        yield {LUSTRE: {**names, **each[LUSTRE]}} if LUSTRE in each else each


def _whole(storage: JsonMapping) -> bool:
    return LUSTRE not in storage or all(storage[LUSTRE].get(member) for member in NAMES)


def missing(item: Item) -> str:
    """Return what a HyperPod cluster has and `hyperpod` leaves out; "" if it is nothing."""
    return "; ".join((*_other_checks(item), *_nameless(item)))


def _other_checks(item: Item) -> Iterator[str]:
    checks = {each for group in item("groups") for each in group["members"].get(CHECKS, ())}
    if others := ", ".join(sorted(checks.difference(KNOWN_CHECKS))):
        yield f"the deep health check {others}, which its type does not have"


def _nameless(item: Item) -> Iterator[str]:
    for group in item("groups"):
        for storage in _storages(item, group):
            if not _whole(storage):
                path = storage[LUSTRE].get("MountPath", "a file system")
                yield f"{path} on {group['name']}: its file system's names are not recorded"


def scheduler_policy(item: Item) -> JsonObject:
    """Return the properties of a scheduler policy but its tags, under AWS's names."""
    return {**_governed(item), **governance_members.policy_members(item("settings"))}


def compute_quota(item: Item) -> JsonObject:
    """Return the properties of a team's quota but its tags, under AWS's names."""
    return {**_governed(item), **governance_members.quota_members(item("team"), item("settings"))}


def _governed(item: Item) -> JsonObject:
    """Return what both have: their types have the members of the requests.

    The id of a HyperPod cluster is its ARN, in CloudFormation and in what builds on its types.
    """
    cluster = item.ref("cluster", "arn")._replace(attribute="id")
    return {"Name": item("name"), "ClusterArn": cluster}


def refers_to_variables(values: str) -> bool:
    """Whether values have references to variables, whose values are not in the manifest."""
    return "${env:" in values


VARIABLES = "refers to variables of the environment, whose values are not in the manifest"


def nested(settings: JsonMapping) -> JsonObject:
    """Return settings with dots in their names as nested ones.

    >>> nested({"metadata_configuration.mode": "AUTOMATIC"})
    {'metadata_configuration': {'mode': 'AUTOMATIC'}}
    """
    found: JsonObject = {}
    for name, value in settings.items():
        *above, last = name.split(".")
        place = found
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return found
