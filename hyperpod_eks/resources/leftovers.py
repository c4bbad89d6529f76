"""Leftovers of AWS services and Kubernetes controllers in a VPC, which a delete removes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import (
    NETWORK_INTERFACES,
    SECURITY_GROUPS,
    VPC_ENDPOINTS,
    VPCS,
    Listing,
)
from hyperpod_eks.aws.failures import raise_first
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner, tag
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import MINUTE, Lifecycle, Live, Resource, State
from hyperpod_eks.resources.fsx import interfaces_of
from hyperpod_eks.resources.permissions import Conditions, Statement, Statements, look
from hyperpod_eks.workers import gather


def _vpcs(snapshot: Snapshot) -> list[str]:
    """Return the ids of owned VPCs, without adopted ones; several only with duplicates."""
    return [
        vpc["VpcId"]
        for vpc in snapshot.ec2(VPCS, "vpc")
        if owner(vpc.get("Tags", ())) == snapshot.aws.lineage
    ]


def _homes(snapshot: Snapshot) -> list[str]:
    """Return the ids of the VPCs, owned or adopted, of an owned EKS cluster."""
    if "eks/cluster" in snapshot.adopted:  # nothing in a cluster that is not owned is ours
        return []
    return _vpcs(snapshot) or [id_ for key, id_ in snapshot.adopted.items() if key == "network/vpc"]


def _inside(
    snapshot: Snapshot, listing: Listing, by: str, values: Sequence[str]
) -> list[JsonMapping]:
    """List the items of one kind in VPCs or security groups; ``by`` is the filter."""
    return [item for value in values for item in snapshot.region(listing, {by: [value]})]


def _made_for(tags: Sequence[JsonMapping], cluster: str) -> bool:
    """Whether EKS or a controller in the cluster created it, and not only uses it (``shared``)."""
    names = (tag(tags, "elbv2.k8s.aws/cluster"), tag(tags, "aws:eks:cluster-name"))
    return cluster in names or tag(tags, f"kubernetes.io/cluster/{cluster}") == "owned"


CNI = "aws-K8S-"
# How detached interfaces identify the service that left them, 2026-11: amazon-vpc-cni-k8s
# (descriptions and tags of its interfaces), EKS User Guide ("Amazon EKS NAME" of control planes,
# requester AmazonEKS), public reports on HyperPod: description or requester names SageMaker.
_DESCRIPTIONS = re.compile(rf"{CNI}|Amazon EKS\b|(?i:.*(sagemaker|hyperpod))")
_REQUESTERS = re.compile(r"(?i).*(amazon-?eks|sagemaker|hyperpod)")
_TAGS = re.compile(
    r"(node|cluster)\.k8s\.amazonaws\.com/|eks:|aws:eks:|(aws:)?sagemaker[:.]|kubernetes\.io/cluster/"
)


def _theirs(interface: JsonMapping) -> bool:
    """Whether EKS, the VPC CNI or HyperPod created an interface: description, requester, tags."""
    return bool(
        _DESCRIPTIONS.match(interface.get("Description") or "")
        or _REQUESTERS.match(interface.get("RequesterId") or "")
        or any(_TAGS.match(each.get("Key", "")) for each in interface.get("TagSet", ()))
    )


def kubernetes_arns(resolved: ResolvedConfig) -> tuple[str, ...]:
    """Return the ARNs of what Kubernetes creates."""
    return resolved.arn("ec2", "*/*"), resolved.arn("elasticloadbalancing", "loadbalancer/*")


def owned_by_kubernetes(resolved: ResolvedConfig) -> Conditions:
    """The condition for resources that Kubernetes created for the cluster."""
    tag_ = f"aws:ResourceTag/kubernetes.io/cluster/{resolved.eks_name}"
    return {"StringEquals": {tag_: "owned"}}


@frozen
class Interfaces(Resource):
    """Network interfaces of EKS and HyperPod, which remain for minutes after the clusters.

    In an owned VPC all of them, in another VPC those in our security group.  The services delete
    their own; we delete detached ones that they left (`_theirs`).
    """

    kind = "leftovers/Interfaces"
    step = "network"
    lifecycle = Lifecycle.LEFTOVER
    patience = 20 * MINUTE
    usual = "1 to 5 min"

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on network interfaces with any tags."""
        # detached ones of pods have only tags of the VPC CNI, which differ between its versions
        every = (resolved.arn("ec2", "network-interface/*"),)
        yield look("ec2", "DescribeNetworkInterfaces")
        yield Statement("InterfacesLeft", ("ec2:DeleteNetworkInterface",), every, command="delete")

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them, except those of NAT gateways and endpoints, which are deleted with these."""
        if not (items := self._items(snapshot)):
            return []
        region = snapshot.aws.region
        words = "; ".join(_named(each, region) for each in items[:3])
        many = "interface" if len(items) == 1 else "interfaces"
        loose = [
            i["NetworkInterfaceId"] for i in items if i["Status"] == "available" and _theirs(i)
        ]
        return [
            Live(
                ", ".join(i["NetworkInterfaceId"] for i in items),
                owner=snapshot.aws.lineage,  # all in our VPC or group count as owned
                state=State.READY if loose else State.LEAVING,
                why=f"{len(items)} network {many} left: {words}",
                cause=KnownCause("held-by-interface", {"eni": items[0]["NetworkInterfaceId"]}),
                attributes={"loose": loose},
            )
        ]

    @staticmethod
    def _items(snapshot: Snapshot) -> list[JsonMapping]:
        by, values = "vpc-id", _vpcs(snapshot)
        if not values:
            groups = snapshot.signed(SECURITY_GROUPS)
            ours = [
                each["GroupId"] for each in groups if owner(each["Tags"]) == snapshot.aws.lineage
            ]
            by, values = "group-id", ours
        found = _inside(snapshot, NETWORK_INTERFACES, by, values)
        items = [
            item
            for item in {each["NetworkInterfaceId"]: each for each in found}.values()
            if item.get("InterfaceType", "interface") not in ("nat_gateway", "vpc_endpoint")
            and not item.get("Description", "").startswith("Interface for NAT Gateway")
        ]
        if all(map(_theirs, items)):
            return items
        stay = interfaces_of(snapshot)  # those of a file system are there as long as it is
        return [item for item in items if item["NetworkInterfaceId"] not in stay]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the detached interfaces of the services."""
        for interface in live.attributes["loose"]:
            aws.ec2.delete_network_interface(NetworkInterfaceId=interface)


@frozen
class LoadBalancers(Resource):
    """Load balancers, and their target groups, that controllers in our cluster created in its VPC.

    They have the tag ``elbv2.k8s.aws/cluster`` or ``kubernetes.io/cluster/NAME`` = ``owned``.
    Nothing deletes them once the cluster is gone, and they prevent the deletion of subnets and
    security groups.
    """

    cluster: str

    kind = "leftovers/LoadBalancers"
    step = "network"
    keep_group = "network"
    lifecycle = Lifecycle.LEFTOVER
    patience = 15 * MINUTE

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on load balancers, limited by the tags of their controllers."""
        balancing = "elasticloadbalancing"
        yield look(balancing, "DescribeLoadBalancers", "DescribeTags", "DescribeTargetGroups")
        yield Statement(
            "KubernetesLeft",
            (f"{balancing}:DeleteLoadBalancer",),
            kubernetes_arns(resolved),
            owned_by_kubernetes(resolved),
            "delete",
        )
        made: Conditions = {
            "StringEquals": {"aws:ResourceTag/elbv2.k8s.aws/cluster": resolved.eks_name}
        }
        yield Statement(
            "BalancersLeft",
            (
                "ec2:DeleteSecurityGroup",
                f"{balancing}:DeleteLoadBalancer",
                f"{balancing}:DeleteTargetGroup",
            ),
            (resolved.arn(balancing, "*"), resolved.arn("ec2", "security-group/*")),
            made,
            "delete",
        )

    @property
    def source(self) -> str:
        """The EKS cluster, whose controllers create them."""
        return "eks/cluster"

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by their tags, only in the cluster's VPC."""
        if not (vpcs := _homes(snapshot)):
            return []
        new, old = snapshot.aws.elbv2, snapshot.aws.elb
        every, targets, classics = gather(
            partial(snapshot.all, new, "describe_load_balancers", "LoadBalancers"),
            partial(snapshot.all, new, "describe_target_groups", "TargetGroups"),
            partial(snapshot.all, old, "describe_load_balancers", "LoadBalancerDescriptions"),
        )
        balancers = {each["LoadBalancerArn"] for each in every if each.get("VpcId") in vpcs}
        groups = {each["TargetGroupArn"] for each in targets if each.get("VpcId") in vpcs}
        classic = [each["LoadBalancerName"] for each in classics if each.get("VPCId") in vpcs]
        found: dict[str, list[str]] = {"balancers": [], "groups": [], "classic": []}
        for arns in _twenties(sorted(balancers | groups)):
            for about in new.describe_tags(ResourceArns=arns)["TagDescriptions"]:
                if _made_for(about["Tags"], self.cluster):
                    kind = "balancers" if about["ResourceArn"] in balancers else "groups"
                    found[kind].append(about["ResourceArn"])
        for names in _twenties(classic):
            for about in old.describe_tags(LoadBalancerNames=names)["TagDescriptions"]:
                if _made_for(about["Tags"], self.cluster):
                    found["classic"].append(about["LoadBalancerName"])
        made = [each for items in found.values() for each in items]
        if not made:
            return []
        return [Live(", ".join(made), why=f"{len(made)} created by Kubernetes", attributes=found)]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete load balancers, then the target groups that they use."""
        for arn in live.attributes["balancers"]:
            aws.elbv2.delete_load_balancer(LoadBalancerArn=arn)
        for name in live.attributes["classic"]:
            aws.elb.delete_load_balancer(LoadBalancerName=name)
        for arn in live.attributes["groups"]:
            aws.elbv2.delete_target_group(TargetGroupArn=arn)


def _holder(interface: JsonMapping) -> str:
    """Return an interface's description and attachment, or its status if it has neither."""
    attachment = interface.get("Attachment", {})
    machine = attachment.get("InstanceId") or attachment.get("InstanceOwnerId", "")
    words = [interface.get("Description", ""), f"attached to {machine}" if machine else ""]
    return ", ".join(filter(None, words)) or str(interface["Status"])


def _named(interface: JsonMapping, region: str | None) -> str:
    """Describe an interface for a message; a detached one with the command to delete it."""
    id_ = interface["NetworkInterfaceId"]
    free = interface["Status"] == "available"
    command = f": aws ec2 delete-network-interface --network-interface-id {id_} --region {region}"
    return f"{id_} ({_holder(interface)}){command * free}"


def _twenties(items: Sequence[str]) -> list[Sequence[str]]:
    """Split into lists of 20, the limit of DescribeTags."""
    return [items[i : i + 20] for i in range(0, len(items), 20)]


@frozen
class Leftovers(Resource):
    """Security groups of EKS and of controllers in our cluster, and GuardDuty's endpoint.

    ``eks-cluster-sg-NAME-*`` (tag ``aws:eks:cluster-name``) and the ``k8s-*`` of load balancers
    (with the load balancers' tags) stay when EKS is gone.  GuardDuty's endpoint
    ``*.guardduty-data`` and its group ``GuardDutyManagedSecurityGroup-*`` are deleted too, in an
    owned VPC.
    """

    cluster: str

    kind = "leftovers/Leftovers"
    step = "network"
    keep_group = "network"
    lifecycle = Lifecycle.LEFTOVER
    patience = 15 * MINUTE

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions limited by the tags of EKS and GuardDuty."""
        yield Statement(
            "KubernetesLeft",
            ("ec2:DeleteSecurityGroup",),
            kubernetes_arns(resolved),
            owned_by_kubernetes(resolved),
            "delete",
        )
        guarded: Conditions = {"StringEquals": {"aws:ResourceTag/GuardDutyManaged": "true"}}
        yield Statement(
            "GuardDutyLeft",
            ("ec2:DeleteSecurityGroup", "ec2:DeleteVpcEndpoints"),
            (resolved.arn("ec2", "*/*"),),
            guarded,
            "delete",
        )

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by their tags and names, only in the cluster's VPC."""
        vpcs, homes = _vpcs(snapshot), _homes(snapshot)
        found, doors = gather(
            partial(_inside, snapshot, SECURITY_GROUPS, "vpc-id", homes or vpcs),
            partial(_inside, snapshot, VPC_ENDPOINTS, "vpc-id", vpcs),
        )
        groups = [
            item["GroupId"]
            for item in found
            if (homes and _made_for(item.get("Tags", ()), self.cluster))
            or (vpcs and item["GroupName"].startswith("GuardDutyManagedSecurityGroup-"))
        ]
        endpoints = [
            item["VpcEndpointId"]
            for item in doors
            if item["ServiceName"].endswith(".guardduty-data") and item["State"] != "deleted"
        ]
        if not groups and not endpoints:
            return []
        rules = _naming(snapshot, found, groups)
        attributes = {"groups": groups, "endpoints": endpoints, "rules": rules}
        signed = snapshot.aws.lineage if vpcs else None
        return [Live(", ".join(endpoints + groups), owner=signed, attributes=attributes)]

    @property
    def source(self) -> str:
        """The EKS cluster, for which the groups were created."""
        return "eks/cluster"

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the endpoints, then our rules that name the groups, then the groups."""
        if live.attributes["endpoints"]:
            answer = aws.ec2.delete_vpc_endpoints(VpcEndpointIds=live.attributes["endpoints"])
            refused = [each["Error"] for each in answer.get("Unsuccessful", ())]
            raise_first("ec2", "DeleteVpcEndpoints", refused)
        for call, group, rules in live.attributes["rules"]:
            getattr(aws.ec2, call)(GroupId=group, IpPermissions=rules)
        for group in live.attributes["groups"]:
            aws.ec2.delete_security_group(GroupId=group)


def _naming(
    snapshot: Snapshot, groups: Sequence[JsonMapping], named: Sequence[str]
) -> list[tuple[str, str, list[JsonObject]]]:
    """Return the rules of our group that name given groups: the revoking method, group, rules.

    The load balancer controller adds a rule for its own group, which blocks that group's deletion.
    """
    found = []
    for group in groups:
        if owner(group.get("Tags", ())) != snapshot.aws.lineage:
            continue
        for way, key in (("ingress", "IpPermissions"), ("egress", "IpPermissionsEgress")):
            rules = [
                {k: v for k, v in rule.items() if k in ("IpProtocol", "FromPort", "ToPort")}
                | {"UserIdGroupPairs": [{"GroupId": pair["GroupId"]}]}
                for rule in group[key]
                for pair in rule.get("UserIdGroupPairs", ())
                if pair.get("GroupId") in named
            ]
            if rules:
                found.append((f"revoke_security_group_{way}", group["GroupId"], rules))
    return found
