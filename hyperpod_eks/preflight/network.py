"""Checks of the network: addresses for the nodes, and the properties of adopted resources."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Collection, Container, Iterator, Sequence

from hyperpod_eks.aws.ec2 import ROUTE_TABLES, SECURITY_GROUPS, SUBNETS, VPC_ENDPOINTS
from hyperpod_eks.config.addressing import ADDRESSES
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.preflight.inputs import Facts, Finding
from hyperpod_eks.resolve.names import PRIVATE_SUBNET
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.resources.hyperpod import cluster as hyperpod_cluster

RESERVED = 5
"""Addresses that AWS reserves in every subnet."""
CONTROL_PLANE = 6
"""Free addresses that EKS requires in each of its subnets (EKS User Guide, "VPC and subnets")."""


def subnet_addresses(facts: Facts) -> Iterator[Finding]:
    """Subnets must have free addresses for new nodes, their pods and the control plane."""
    observation = facts.observations.get("hyperpod/cluster")
    if observation is None or not isinstance(observation.want, hyperpod_cluster.Cluster):
        return
    nodes, wanted = _new_nodes(facts, observation.want)
    for zone, subnet in observation.want.zones:
        live = facts.live(subnet.key)
        block = ipaddress.IPv4Network(subnet.cidr)
        free = live.attributes["free_addresses"] if live else block.num_addresses - RESERVED
        place = live.id if live else subnet.cidr
        least = nodes[zone] + (0 if facts.live("eks/cluster") else CONTROL_PLANE)
        if free is None or free >= wanted[zone] + CONTROL_PLANE:
            continue
        yield Finding(
            "subnet-addresses",
            "error" if free < least else "warning",
            f"the subnet {place} in {zone} has {free} free IP addresses; {nodes[zone]} nodes and"
            f" their pods need about {wanted[zone]}, and the control plane needs {CONTROL_PLANE}",
            "Use a larger network.cidr, add a block to network.secondary_cidrs, or use fewer"
            " nodes.",
            {"subnet": place, "free": free, "nodes": nodes[zone], "wanted": wanted[zone]},
        )


def _new_nodes(
    facts: Facts, cluster: hyperpod_cluster.Cluster
) -> tuple[Counter[str], Counter[str]]:
    """Count the nodes that create would add, and their addresses, by zone."""
    found = facts.clusters().get(facts.config.name) or {}
    running = {
        group["InstanceGroupName"]: group.get("CurrentCount", 0)
        for group in hyperpod_api.every_group(found)
    }
    nodes, wanted = Counter[str](), Counter[str]()
    for one in cluster.groups:
        new = max(one.instance_count - running.get(one.name, 0), 0)
        each = next((n for start, n in ADDRESSES if one.instance_type.startswith(start)), 1)
        nodes[one.zones[0]] += new
        wanted[one.zones[0]] += new * each
    return nodes, wanted


def routes(facts: Facts) -> Iterator[Finding]:
    """Adopted subnets must be private and have a route to S3, which has the lifecycle scripts.

    The source is the SageMaker developer guide, "Prerequisites for EKS orchestration".
    """
    prefix = f"network/{PRIVATE_SUBNET}"
    ids = [id_ for key, id_ in facts.aws.adopted.items() if key.startswith(prefix)]
    if not ids:
        return
    subnets = facts.ec2(SUBNETS, ids=ids)
    here = {"vpc-id": sorted({each["VpcId"] for each in subnets})}
    tables = facts.ec2(ROUTE_TABLES, here)
    for subnet in subnets:
        chosen = _tables(subnet, tables)
        if why := _bad_routes(chosen, set(facts.aws.adopted.values())):
            yield Finding(
                "routes",
                "error",
                f"the adopted subnet {subnet['SubnetId']} {why}",
                "Choose a private subnet, with a route to a NAT gateway or an S3 endpoint"
                " (existing.route_tables creates one).",
                {"subnet": subnet["SubnetId"], "route_tables": [t["RouteTableId"] for t in chosen]},
            )


def _tables(subnet: JsonMapping, tables: Sequence[JsonMapping]) -> list[JsonMapping]:
    """Return the route tables of a subnet: its own, else the VPC's main one."""
    id_, vpc = subnet["SubnetId"], subnet["VpcId"]
    own = [t for t in tables if any(a.get("SubnetId") == id_ for a in t["Associations"])]
    return own or [
        t for t in tables if t["VpcId"] == vpc and any(a.get("Main") for a in t["Associations"])
    ]


def _bad_routes(tables: Sequence[JsonMapping], adopted: Container[str]) -> str:
    """Return the reason why nodes cannot work with these routes, "" if they can."""
    ways = [route for table in tables for route in table["Routes"]]
    out = [r for r in ways if r.get("DestinationCidrBlock") == "0.0.0.0/0"]
    to_s3 = any(table["RouteTableId"] in adopted for table in tables) or any(
        r.get("GatewayId", "").startswith("vpce-") for r in ways
    )
    if any(r.get("GatewayId", "").startswith("igw-") for r in out):
        return "is public: it routes to an internet gateway, and nodes have no public IP address"
    if out or to_s3:
        return ""
    return (
        "has no route to the internet or to an S3 endpoint, so nodes cannot download their"
        " lifecycle scripts"
    )


OPENINGS = (
    ("IpPermissions", "authorize-security-group-ingress"),
    ("IpPermissionsEgress", "authorize-security-group-egress"),
)
"""By direction: the member with a security group's rules, and the command that adds a rule."""


def security_group(facts: Facts) -> Iterator[Finding]:
    """An adopted security group must allow all traffic from and to itself.

    For EFA, both rules must name the group itself: "0.0.0.0/0" is not enough (EC2 User Guide,
    "Elastic Fabric Adapter", step 1).
    """
    if not (group := facts.adopted("network/security-group")):
        return
    found = facts.ec2(SECURITY_GROUPS, ids=[group])[0]
    missing = [
        command
        for rules, command in OPENINGS
        if not any(_from_itself(rule, group) for rule in found.get(rules, ()))
    ]
    if missing:
        yield _closed_group(group, missing, facts.efa(), facts.config.region)


def _closed_group(group: str, missing: Sequence[str], efa: Collection[str], region: str) -> Finding:
    """Without EFA it is a warning: another rule may let the nodes reach each other."""
    ways = " and ".join("from" if "ingress" in each else "to" for each in missing)
    why = (
        f"so EFA fails on {', '.join(sorted(efa))}"
        if efa
        else "so nodes and pods cannot reach each other"
    )
    return Finding(
        "security-group",
        "error" if efa else "warning",
        f"the adopted security group {group} does not allow all traffic {ways} itself, {why}",
        "; ".join(
            f"aws ec2 {each} --region {region} --group-id {group}"
            f" --ip-permissions 'IpProtocol=-1,UserIdGroupPairs=[{{GroupId={group}}}]'"
            for each in missing
        ),
        {"security_group": group, "missing": missing, "efa": sorted(efa)},
    )


def _from_itself(rule: JsonMapping, group: str) -> bool:
    pairs = rule.get("UserIdGroupPairs", ())
    return rule["IpProtocol"] == "-1" and any(pair.get("GroupId") == group for pair in pairs)


def one_vpc(facts: Facts) -> Iterator[Finding]:
    """All adopted resources must be in one VPC, which HyperPod and EKS share."""
    homes: dict[str, str] = {}
    for key, id_ in facts.aws.adopted.items():
        if key == "network/vpc":
            homes[key] = id_
        elif key == "network/security-group":
            found = facts.ec2(SECURITY_GROUPS, ids=[id_])
            homes[key] = found[0]["VpcId"]
        elif key.startswith(f"network/{PRIVATE_SUBNET}"):
            homes[key] = facts.ec2(SUBNETS, ids=[id_])[0]["VpcId"]
        elif key == "eks/cluster":
            theirs = facts.aws.eks.describe_cluster(name=id_)["cluster"]
            homes[key] = theirs["resourcesVpcConfig"]["vpcId"]
    if len(set(homes.values())) > 1:
        listed = ", ".join(f"{key} in {vpc}" for key, vpc in homes.items())
        yield Finding(
            "one-vpc",
            "error",
            f"adopted resources are in several VPCs: {listed}",
            f"Adopt resources of one VPC: {facts.command('adopt')} --resource KEY=ID.",
            homes,
        )


def vpc_dns(facts: Facts) -> Iterator[Finding]:
    """An adopted VPC, which is not changed, must have DNS support and hostnames for EKS."""
    if not (vpc := facts.adopted("network/vpc")):
        return
    off = []
    ec2 = facts.aws.ec2
    support = ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsSupport")
    names = ec2.describe_vpc_attribute(VpcId=vpc, Attribute="enableDnsHostnames")
    if not support["EnableDnsSupport"].get("Value"):
        off.append("enable-dns-support")
    if not names["EnableDnsHostnames"].get("Value"):
        off.append("enable-dns-hostnames")
    if off:
        yield Finding(
            "vpc-dns",
            "error",
            f"the adopted VPC {vpc} has {' and '.join(off)} disabled, so nodes cannot resolve the"
            " cluster endpoint",
            "; ".join(
                f"aws ec2 modify-vpc-attribute --vpc-id {vpc} --{each}"
                f" --region {facts.config.region}"
                for each in off
            ),
            {"vpc": vpc, "off": off},
        )


def endpoints(facts: Facts) -> Iterator[Finding]:
    """Interface endpoints in an adopted VPC must accept the nodes' calls, which they receive."""
    if not (vpc := facts.adopted("network/vpc")):
        return
    here = {"vpc-id": [vpc]}
    found = [e for e in facts.ec2(VPC_ENDPOINTS, here) if e["VpcEndpointType"] == "Interface"]
    if not found:
        return
    groups = facts.ec2(SECURITY_GROUPS, here)
    rules = {group["GroupId"]: group.get("IpPermissions", ()) for group in groups}
    for each in found:
        attached = [group["GroupId"] for group in each.get("Groups", ())]
        if not any(_admits_https(rule) for group in attached for rule in rules.get(group, ())):
            yield Finding(
                "endpoints",
                "error",
                f"the security groups {', '.join(attached)} of endpoint {each['VpcEndpointId']}"
                f" ({each['ServiceName']}) have no inbound rule for port 443, so nodes cannot reach"
                " it",
                f"aws ec2 authorize-security-group-ingress --region {facts.config.region}"
                f" --group-id {attached[0] if attached else '…'} --protocol tcp --port 443"
                " --cidr <the VPC's block>",
                {"endpoint": each["VpcEndpointId"], "security_groups": attached},
            )


def _admits_https(rule: JsonMapping) -> bool:
    if rule["IpProtocol"] == "-1":
        return bool(rule.get("IpRanges")) or bool(rule.get("UserIdGroupPairs"))
    return bool(rule["IpProtocol"] == "tcp" and rule["FromPort"] <= 443 <= rule["ToPort"])
