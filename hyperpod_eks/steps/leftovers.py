"""What services leave in our VPC, to be taken away with it: nobody else does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from hyperpod_eks.aws import Aws, Look, owner, tag
from hyperpod_eks.crew import together
from hyperpod_eks.resource import MINUTE, Live, Resource, State
from hyperpod_eks.site import Site
from hyperpod_eks.steps.network import Network


def step(site: Site, net: Network, roles: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Declare what Kubernetes, EKS, HyperPod and GuardDuty leave, to be taken away as well.

    A delete waits for the interfaces before it removes a role, a subnet or the security group:
    the services take their interfaces down with those (HyperPod stays ``Deleting`` for ever when
    its execution role goes first).
    """
    places = (net.vpc, *net.private.values(), net.security_group)
    groups = Leftovers("leftovers", cluster=site.eks_name, after=places)
    interfaces = Interfaces("interfaces", after=(*places, groups, *roles))
    balancers = LoadBalancers("load-balancers", cluster=site.eks_name, after=(interfaces,))
    return interfaces, balancers, Volumes("volumes", cluster=site.eks_name)


def _vpcs(look: Look) -> list[str]:
    """Ids of the VPCs of ours, not of those that we were given: there is one, or a twin besides."""
    return [
        vpc["VpcId"]
        for vpc in look.ec2("describe_vpcs", "Vpcs", "vpc")
        if owner(vpc.get("Tags", ())) == look.aws.lineage
    ]


def _inside(look: Look, method: str, key: str) -> list[Any]:
    """List what EC2 has of one kind in them."""
    return [
        item
        for vpc in _vpcs(look)
        for item in look.all(
            look.aws.ec2, method, key, Filters=[{"Name": "vpc-id", "Values": [vpc]}]
        )
    ]


@dataclass(frozen=True)
class Interfaces(Resource):
    """Network interfaces of EKS and HyperPod, which outlive them by minutes.

    The services take their own down; detached ones that the VPC CNI left (``aws-K8S-*``) are
    nobody's and are deleted by us.
    """

    step = "network"
    made = False
    patience = 20 * MINUTE
    usual = "1 to 5 min"

    @property
    def source(self) -> str:
        """Whatever is in our VPC was let in by us."""
        return "network/vpc"

    def find(self, look: Look) -> Sequence[Live]:
        """In our VPC, apart from those of NAT gateways and endpoints, which go with them."""
        items = [
            item
            for item in _inside(look, "describe_network_interfaces", "NetworkInterfaces")
            if item.get("InterfaceType", "interface") not in ("nat_gateway", "vpc_endpoint")
            and not item.get("Description", "").startswith("Interface for NAT Gateway")
        ]
        if not items:
            return []
        words = "; ".join(f"{i['NetworkInterfaceId']} ({_holder(i)})" for i in items[:3])
        many = "interface" if len(items) == 1 else "interfaces"
        loose = [
            i["NetworkInterfaceId"]
            for i in items
            if i["Status"] == "available" and i.get("Description", "").startswith("aws-K8S-")
        ]
        return [
            Live(
                ", ".join(i["NetworkInterfaceId"] for i in items),
                state=State.READY if loose else State.LEAVING,
                why=f"{len(items)} network {many} left: {words}",
                attributes={"loose": loose},
            )
        ]

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the detached ones."""
        for interface in live.attributes["loose"]:
            aws.ec2.delete_network_interface(NetworkInterfaceId=interface)


@dataclass(frozen=True)
class LoadBalancers(Resource):
    """Load balancers that controllers in the cluster made in our VPC, and their target groups.

    Recognised by their tags ``elbv2.k8s.aws/cluster`` or ``kubernetes.io/cluster/NAME``; nobody
    deletes them once the cluster is gone, and they hold subnets and security groups.
    """

    cluster: str

    step = "network"
    made = False
    patience = 15 * MINUTE

    @property
    def source(self) -> str:
        """Made from inside the EKS cluster."""
        return "eks/cluster"

    def find(self, look: Look) -> Sequence[Live]:
        """In our VPC only."""
        if not (vpcs := _vpcs(look)):
            return []
        new, old = look.aws.elbv2, look.aws.elb
        every, targets, classics = together(
            partial(look.all, new, "describe_load_balancers", "LoadBalancers"),
            partial(look.all, new, "describe_target_groups", "TargetGroups"),
            partial(look.all, old, "describe_load_balancers", "LoadBalancerDescriptions"),
        )
        balancers = {each["LoadBalancerArn"] for each in every if each.get("VpcId") in vpcs}
        groups = {each["TargetGroupArn"] for each in targets if each.get("VpcId") in vpcs}
        classic = [each["LoadBalancerName"] for each in classics if each.get("VPCId") in vpcs]
        found: dict[str, list[str]] = {"balancers": [], "groups": [], "classic": []}
        for arns in _twenties(sorted(balancers | groups)):
            for about in new.describe_tags(ResourceArns=arns)["TagDescriptions"]:
                if self._ours(about["Tags"]):
                    kind = "balancers" if about["ResourceArn"] in balancers else "groups"
                    found[kind].append(about["ResourceArn"])
        for names in _twenties(classic):
            for about in old.describe_tags(LoadBalancerNames=names)["TagDescriptions"]:
                if self._ours(about["Tags"]):
                    found["classic"].append(about["LoadBalancerName"])
        made = [each for items in found.values() for each in items]
        if not made:
            return []
        return [Live(", ".join(made), why=f"{len(made)} made by Kubernetes", attributes=found)]

    def _ours(self, tags: Sequence[Mapping[str, Any]]) -> bool:
        return (
            tag(tags, "elbv2.k8s.aws/cluster") == self.cluster
            or tag(tags, f"kubernetes.io/cluster/{self.cluster}") is not None
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Balancers before the target groups that they use."""
        for arn in live.attributes["balancers"]:
            aws.elbv2.delete_load_balancer(LoadBalancerArn=arn)
        for name in live.attributes["classic"]:
            aws.elb.delete_load_balancer(LoadBalancerName=name)
        for arn in live.attributes["groups"]:
            aws.elbv2.delete_target_group(TargetGroupArn=arn)


def _holder(interface: Mapping[str, Any]) -> str:
    """Say who has a network interface, as far as it can be seen; of nobody's, its status."""
    attachment = interface.get("Attachment", {})
    machine = attachment.get("InstanceId") or attachment.get("InstanceOwnerId", "")
    words = [interface.get("Description", ""), f"attached to {machine}" if machine else ""]
    return ", ".join(filter(None, words)) or str(interface["Status"])


def _twenties(items: Sequence[str]) -> list[Sequence[str]]:
    """Cut into the pieces that DescribeTags takes."""
    return [items[i : i + 20] for i in range(0, len(items), 20)]


@dataclass(frozen=True)
class Volumes(Resource):
    """EBS volumes that were made for the cluster's PersistentVolumeClaims.

    Recognised by the tag ``kubernetes.io/cluster/NAME`` = ``owned``; one that is attached is left
    until it is not.
    """

    cluster: str

    step = "network"
    made = False

    @property
    def source(self) -> str:
        """Made from inside the EKS cluster."""
        return "eks/cluster"

    def find(self, look: Look) -> Sequence[Live]:
        """By the tag that Kubernetes puts on them."""
        tagged: Any = [{"Name": f"tag:kubernetes.io/cluster/{self.cluster}", "Values": ["owned"]}]
        found = look.all(look.aws.ec2, "describe_volumes", "Volumes", Filters=tagged)
        free = [each["VolumeId"] for each in found if each["State"] == "available"]
        names = ", ".join(each["VolumeId"] for each in found)
        state = State.READY if free else State.LEAVING
        return [Live(names, state=state, attributes={"free": free})] if found else []

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the ones that nothing is attached to."""
        for volume in live.attributes["free"]:
            aws.ec2.delete_volume(VolumeId=volume)


@dataclass(frozen=True)
class Leftovers(Resource):
    """What EKS and GuardDuty put into our VPC and may not take away again.

    ``eks-cluster-sg-NAME-*`` (tag ``aws:eks:cluster-name``), and GuardDuty's endpoint
    ``*.guardduty-data`` with its group ``GuardDutyManagedSecurityGroup-*`` block the VPC's delete.
    """

    cluster: str

    step = "network"
    made = False
    patience = 15 * MINUTE

    @property
    def source(self) -> str:
        """Whatever is in our VPC was let in by us."""
        return "network/vpc"

    def find(self, look: Look) -> Sequence[Live]:
        """In our VPC only."""
        names = (f"eks-cluster-sg-{self.cluster}-", "GuardDutyManagedSecurityGroup-")
        found, doors = together(
            partial(_inside, look, "describe_security_groups", "SecurityGroups"),
            partial(_inside, look, "describe_vpc_endpoints", "VpcEndpoints"),
        )
        groups = [item["GroupId"] for item in found if item["GroupName"].startswith(names)]
        endpoints = [
            item["VpcEndpointId"]
            for item in doors
            if item["ServiceName"].endswith(".guardduty-data") and item["State"] != "deleted"
        ]
        if not groups and not endpoints:
            return []
        return [
            Live(
                ", ".join(endpoints + groups),
                attributes={"groups": groups, "endpoints": endpoints},
            )
        ]

    def delete(self, aws: Aws, live: Live) -> None:
        """Endpoints first: their interfaces use the groups."""
        if live.attributes["endpoints"]:
            aws.ec2.delete_vpc_endpoints(VpcEndpointIds=live.attributes["endpoints"])
        for group in live.attributes["groups"]:
            aws.ec2.delete_security_group(GroupId=group)
