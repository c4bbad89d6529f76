"""EC2 security groups and their rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import SECURITY_GROUPS
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    Blocker,
    Differs,
    Fact,
    Facts,
    Identity,
    Live,
    References,
    Resource,
)
from hyperpod_eks.resources.ec2.permissions import network
from hyperpod_eks.resources.ec2.vpc import ANYWHERE, Vpc, interfaces
from hyperpod_eks.resources.permissions import Statements, look
from hyperpod_eks.resources.tagged import Tagged
from hyperpod_eks.workers import gather

STORAGE_PORTS = ("tcp 988 self", "tcp 1018-1023 self")
"""Ports of FSx for Lustre (its User Guide, "Limiting access with Amazon VPC")."""
HTTPS, NFS = "tcp 443", "tcp 2049"
DESCRIPTION = "HyperPod nodes and EKS control plane of one cluster"


RULES = (
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
)
"""Actions that change a security group."""


@frozen
class SecurityGroup(Resource):
    """A security group; by default it allows all traffic between its members, and all egress.

    So the control plane reaches kubelets and webhooks, and pods reach CoreDNS and each other.  EFA
    requires rules to *and* from the group itself; 0.0.0.0/0 as egress is not enough
    (SageMaker developer guide, HyperPod prerequisites: "EFA health checks did not run").
    """

    vpc: Vpc
    name: str
    ingress: tuple[str | SecurityGroup, ...] = ("self",)
    egress: tuple[str | SecurityGroup, ...] = ("self", ANYWHERE)
    """Peers with which all traffic is allowed: the group itself, another group or a CIDR block; or
    protocol, port and peer (``tcp 443 0.0.0.0/0``)."""

    kind = "network/SecurityGroup"
    step = "network"
    tag_type = "security-group"
    keep_group = "network"
    absence: ClassVar[Facts] = {
        "ingress": frozenset(),  # SecurityGroup.ipPermissions
        "egress": frozenset(),  # SecurityGroup.ipPermissionsEgress
    }
    deleted_at_once = True
    identity = Identity.REFUSED_TWICE
    facts = ("vpc", "ingress", "egress")
    later = ("ingress", "egress")
    attached = later

    @property
    def place(self) -> Vpc:
        """Its VPC."""
        return self.vpc

    def create_requires(self) -> Iterator[Resource]:
        """None: ``update`` sets the rules, which name other groups."""
        yield from ()

    def create_names(self) -> Iterator[Resource]:
        """Its VPC, whatever its DNS settings."""
        yield self.vpc

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield look("ec2", "DescribeSecurityGroups")
        yield from network(
            cls,
            resolved,
            declared,
            create="CreateSecurityGroup",
            change=RULES,
            delete=["DeleteSecurityGroup"],
        )

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> SecurityGroup:
        """Declare it with the fields that a delete needs."""
        return SecurityGroup(found.label, vpc=vpc, name="")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by our tags."""
        items = snapshot.ec2(SECURITY_GROUPS, self.label)
        return [
            Live(
                item["GroupId"],
                owner=owner(item.get("Tags", ())),
                facts={
                    "vpc": item["VpcId"],
                    # only rules that we may declare are facts: others are not drift
                    "ingress": _rules(item["IpPermissions"], item["GroupId"]).intersection(
                        {*STORAGE_PORTS, *_ids(snapshot, self.ingress)}
                    ),
                    "egress": _rules(item["IpPermissionsEgress"], item["GroupId"]).intersection(
                        {ANYWHERE, f"{HTTPS} {ANYWHERE}", *_ids(snapshot, self.egress)}
                    ),
                },
            )
            for item in items
        ]

    def expected(self, name: str, references: References) -> Fact:
        """Rules are a set."""
        value = super().expected(name, references)
        return frozenset(value) if name in ("ingress", "egress") else value

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the VPC.  AWS itself adds the egress rule 0.0.0.0/0."""
        vpc = references(self.vpc).id
        group = aws.ec2.create_security_group(
            GroupName=self.name,
            Description=DESCRIPTION,
            VpcId=vpc,
            TagSpecifications=aws.born_with(self.label, "security-group"),
        )["GroupId"]
        return Live(
            group,
            owner=aws.lineage,
            facts={"vpc": vpc, "ingress": frozenset(), "egress": frozenset({ANYWHERE})},
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Add missing rules and revoke undeclared ones; rules that are no facts stay."""
        ec2 = aws.ec2
        calls: list[Callable[[], object]] = []
        for name, allow, revoke in (
            (
                "ingress",
                ec2.authorize_security_group_ingress,
                ec2.revoke_security_group_ingress,
            ),
            ("egress", ec2.authorize_security_group_egress, ec2.revoke_security_group_egress),
        ):
            wanted, there = self.expected(name, references), live.facts[name]
            for call, rules, done in (
                (allow, wanted - there, "InvalidPermission.Duplicate"),
                (revoke, there - wanted, "InvalidPermission.NotFound"),
            ):
                if rules:
                    calls.append(partial(_change, call, live.id, rules, done))
        gather(*calls)
        rules = {name: self.expected(name, references) for name in ("ingress", "egress")}
        return replace(live, facts={**live.facts, **rules})

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it; EC2 refuses while an interface or another group's rule uses it."""
        aws.ec2.delete_security_group(GroupId=live.id)

    def blockers(self, snapshot: Snapshot, live: Live) -> list[Blocker]:
        """Interfaces in the group, and groups whose rules name it."""
        naming: list[JsonMapping] = []
        for way in ("ip-permission.group-id", "egress.ip-permission.group-id"):
            naming += snapshot.region(SECURITY_GROUPS, {way: [live.id]})
        return [
            *interfaces(snapshot, "group-id", live.id),
            *(
                Blocker(
                    f"a rule of security group {g['GroupId']} ({g['GroupName']}): remove the rule"
                )
                for g in naming
                if g["GroupId"] != live.id
            ),
        ]


def _change(call: Callable[..., object], group: str, rules: Iterable[str], done: str) -> None:
    """Authorize or revoke rules: all with one call, or one by one if EC2 answers ``done`` to that.

    One rule that was authorized or revoked before is enough for that answer.
    """
    permissions = [_permission(rule, group) for rule in sorted(rules)]
    with absent(done):
        call(GroupId=group, IpPermissions=permissions)
        return
    for each in permissions:
        with absent(done):
            call(GroupId=group, IpPermissions=[each])


def _ids(snapshot: Snapshot, peers: tuple[str | SecurityGroup, ...]) -> list[str]:
    """Return declared peers as rules, with groups as their current ids."""
    return [
        rule
        for peer in peers
        for rule in (
            [peer]
            if isinstance(peer, str)
            else [each["GroupId"] for each in snapshot.ec2(SECURITY_GROUPS, peer.label)]
        )
    ]


def _rules(permissions: Sequence[JsonMapping], group: str) -> set[str]:
    """Return described rules in our form: ``self``, ``sg-1``, ``tcp 443 10.0.0.0/16``."""
    found = set()
    for each in permissions:
        ports = ""
        if each["IpProtocol"] != "-1":
            first, last = each.get("FromPort"), each.get("ToPort")
            ports = f"{each['IpProtocol']} {first}{'' if first == last else f'-{last}'} "
        peers = [
            "self" if pair.get("GroupId") == group else pair.get("GroupId", "")
            for pair in each.get("UserIdGroupPairs", ())
        ]
        peers += [block["CidrIp"] for block in each.get("IpRanges", ())]
        found |= {ports + peer for peer in peers}
    return found


def _permission(rule: str, group: str) -> Json:
    """Convert a rule of ours to EC2's IpPermission."""
    *ports, peer = rule.split()
    found: JsonObject = {"IpProtocol": "-1"}
    if ports:
        first, _, last = ports[1].partition("-")
        found = {"IpProtocol": ports[0], "FromPort": int(first), "ToPort": int(last or first)}
    if peer == "self" or peer.startswith("sg-"):
        found["UserIdGroupPairs"] = [{"GroupId": group if peer == "self" else peer}]
    else:
        found["IpRanges"] = [{"CidrIp": peer}]
    return found


@frozen
class SecurityGroupRule(Resource):
    """A rule that allows all traffic from ``peer`` to ``group``, when each names the other.

    It is a resource of its own, since neither group can be created or deleted first.
    """

    group: SecurityGroup
    peer: SecurityGroup

    kind = "network/Opening"
    step = "network"
    keep_group = "network"
    deleted_at_once = True
    identity = Identity.REFUSED_TWICE

    @property
    def place(self) -> Vpc:
        """The VPC of the groups."""
        return self.group.vpc

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """EC2 actions, limited to resources with the cluster's tag."""
        yield from network(cls, resolved, declared, change=RULES)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it in the group's description."""
        peers = snapshot.ec2(SECURITY_GROUPS, self.peer.label)
        return [
            Live(
                f"{group['GroupId']}/{peer['GroupId']}",
                owner=owner(group.get("Tags", ())),
                attributes={
                    "group": group["GroupId"],
                    "peer": peer["GroupId"],
                    "vpc": group.get("VpcId"),
                },
            )
            for group in snapshot.ec2(SECURITY_GROUPS, self.group.label)
            for peer in peers
            if peer["GroupId"] in _rules(group["IpPermissions"], group["GroupId"])
        ]

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create the rule; EC2 refuses one that exists."""
        group, peer = references(self.group).id, references(self.peer).id
        rule = _permission(peer, group)
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        return Live(f"{group}/{peer}", owner=aws.lineage, attributes={"group": group, "peer": peer})

    def delete(self, aws: Aws, live: Live) -> None:
        """Revoke the rule."""
        group, peer = live.attributes["group"], live.attributes["peer"]
        rule = _permission(peer, group)
        aws.ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[rule])
