"""What you already have is used, and is the same to the byte when the cluster is gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import helm as helms
from hyperpod_eks.aws import Look
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.steps.eks import access

from .conftest import Owner

EXAMPLES = Path(__file__).parents[2] / "examples"


def a_vpc(owner: Owner) -> dict[str, str]:
    """A network that a platform team made: two private subnets behind a NAT gateway."""
    ec2: Any = owner.aws.ec2
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        ec2.modify_vpc_attribute(VpcId=vpc, **{name: {"Value": True}})
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    ids = {"vpc": vpc}
    for name, cidr, zone in (
        ("public", "172.20.0.0/24", "usw2-az1"),
        ("one", "172.20.1.0/24", "usw2-az1"),
        ("two", "172.20.2.0/24", "usw2-az2"),
    ):
        ids[name] = ec2.create_subnet(VpcId=vpc, CidrBlock=cidr, AvailabilityZoneId=zone)["Subnet"][
            "SubnetId"
        ]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    out = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=out, DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    ec2.associate_route_table(RouteTableId=out, SubnetId=ids["public"])
    nat = ec2.create_nat_gateway(SubnetId=ids["public"], AllocationId=address)["NatGateway"]
    ids["nat"] = nat["NatGatewayId"]
    ids["routes"] = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(
        RouteTableId=ids["routes"], DestinationCidrBlock="0.0.0.0/0", NatGatewayId=ids["nat"]
    )
    for name in ("one", "two"):
        ec2.associate_route_table(RouteTableId=ids["routes"], SubnetId=ids[name])
    group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=itself)
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=itself)
    return {**ids, "group": group}


def an_eks_cluster(owner: Owner, net: dict[str, str]) -> None:
    """A cluster of somebody's with the HyperPod chart in it, under its other name."""
    iam: Any = owner.aws.iam
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "eks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(RoleName="platform", AssumeRolePolicyDocument=json.dumps(trust))["Role"]
    policy = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    iam.attach_role_policy(RoleName="platform", PolicyArn=policy)
    eks: Any = owner.aws.eks
    eks.create_cluster(
        name="platform",
        version="1.35",
        roleArn=role["Arn"],
        resourcesVpcConfig={
            "subnetIds": [net["public"], net["one"], net["two"]],
            "endpointPrivateAccess": True,
        },
        accessConfig={"authenticationMode": "API"},
        bootstrapSelfManagedAddons=False,
    )
    for name in ("vpc-cni", "kube-proxy", "coredns"):
        eks.create_addon(clusterName="platform", addonName=name)
    reach = access(Look(owner.aws), "platform")
    assert reach
    program = helms.find_helm(str(owner.helm / "helm"))
    helms.install(reach, program, CHART, {}, "somebody", name="dependencies")


def test_a_cluster_in_a_vpc_that_is_there(owner: Owner) -> None:
    net = a_vpc(owner)
    text = (EXAMPLES / "existing-vpc.yaml").read_text()
    for example, name in (
        ("vpc-0123456789abcdef0", "vpc"),
        ("subnet-0123456789abcdef0", "one"),
        ("subnet-0123456789abcdef1", "two"),
        ("sg-0123456789abcdef0", "group"),
        ("rtb-0123456789abcdef0", "routes"),
    ):
        text = text.replace(example, net[name])
    before = owner.account()
    made = owner.declares(text)
    network = {"CreateVpc", "CreateSubnet", "CreateNatGateway", "CreateRouteTable"}
    assert not network & set(made)
    assert "CreateVpcEndpoint" in made  # route_tables asks for it
    assert owner.declares(text) == []
    assert set(owner.eks()["resourcesVpcConfig"]["subnetIds"]) == {net["one"], net["two"]}
    assert owner.cluster()["VpcConfig"]["SecurityGroupIds"] == [net["group"]]
    owner.declares(text.replace("instance_count: 2", "instance_count: 3"))
    assert owner.groups()["worker-group"]["CurrentCount"] == 3
    assert owner.deletes(text) == []
    assert owner.account() == before


def test_new_subnets_in_a_vpc_and_behind_a_nat_gateway_that_are_there(owner: Owner) -> None:
    net = a_vpc(owner)
    text = (
        "name: demo\nregion: us-west-2\n"
        f"existing: {{vpc: {net['vpc']}, nat_gateways: [{net['nat']}]}}\n"
        "network: {cidr: 172.20.128.0/20, availability_zone_ids: [usw2-az1, usw2-az2]}\n"
    )
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateVpc", "CreateNatGateway", "CreateInternetGateway"} & set(made)
    assert owner.declares(text) == []
    assert owner.groups()["worker-group"]["CurrentCount"] == 2
    assert owner.deletes(text) == []
    assert owner.account() == before


def test_nodes_for_an_eks_cluster_that_is_there_with_a_release_in_it(owner: Owner) -> None:
    net = a_vpc(owner)
    an_eks_cluster(owner, net)
    text = (EXAMPLES / "existing-eks.yaml").read_text()
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateVpc", "CreateSubnet", "CreateAddon", "CreateAccessEntry"} & set(made)
    assert owner.declares(text) == []
    cluster = owner.cluster()
    assert cluster["Orchestrator"]["Eks"]["ClusterArn"].endswith("cluster/platform")
    assert set(cluster["VpcConfig"]["Subnets"]) == {net["one"], net["two"]}  # not the public one
    assert len(owner.nodes("worker-group")) == 2
    owner.declares(text.replace("instance_count: 2", "instance_count: 3"))
    assert len(owner.nodes("worker-group")) == 3
    assert owner.deletes(text) == []
    assert without_the_services_entry(owner.account()) == without_the_services_entry(before)


def without_the_services_entry(account: list[str]) -> Any:
    """Leave out HyperPod's own access entry, which AWS alone can delete."""
    content = json.loads("\n".join(account))
    entries = content["us-west-2"]["eks"]["platform"]["AccessEntries"]
    for arn in [arn for arn in entries if "AWSServiceRoleForSageMakerHyperPod" in arn]:
        del entries[arn]
    return content


def test_what_is_not_there_and_what_cannot_be_used_is_told_before_anything_is_made(
    owner: Owner,
) -> None:
    head = "name: demo\nregion: us-west-2\nexisting: "
    with pytest.raises(NotFound, match=r"existing\.eks_cluster: there is no EKS cluster nowhere"):
        owner.declares(f"{head}{{eks_cluster: nowhere}}")
    with pytest.raises(NotFound, match="there is no subnet-0123456789abcdef0, subnet-0123456789a"):
        owner.declares(
            f"{head}{{vpc: vpc-0123456789abcdef0, private_subnets: [subnet-0123456789abcdef0, "
            "subnet-0123456789abcdef1]}"
        )
    net = a_vpc(owner)
    owner.stack.calls.clear()
    with pytest.raises(Usage, match="are in usw2-az1, usw2-az1"):
        owner.declares(
            f"{head}{{vpc: {net['vpc']}, private_subnets: [{net['one']}, {net['public']}]}}"
        )
    assert owner.mutations() == []
