"""Existing resources are used, and are unchanged after the cluster's delete."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.errors import Foreign, HyperpodError, NotFound, Usage
from hyperpod_eks.helm import release as helms
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.kube import jobs
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.echo import Echo
from hyperpod_eks.resources.eks import access
from hyperpod_eks.resources.test_jobs import LABEL as TEST
from hyperpod_eks.resources.trust import trust
from hyperpod_eks.smoke.inputs import Facts
from hyperpod_eks.smoke.job import declared
from tests.conftest import new_session
from tests.test_further_charts import chart

from .conftest import Owner


def a_vpc(owner: Owner) -> dict[str, str]:
    """Create a platform team's network: two private subnets behind a NAT gateway."""
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


def a_control_plane(owner: Owner, net: dict[str, str], name: str, mode: str) -> None:
    """Create an empty EKS cluster of another owner."""
    iam: Any = owner.aws.iam
    document = json.dumps(trust("eks.amazonaws.com"))
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]
    policy = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    eks: Any = owner.aws.eks
    eks.create_cluster(
        name=name,
        version="1.35",
        roleArn=role["Arn"],
        resourcesVpcConfig={
            "subnetIds": [net["public"], net["one"], net["two"]],
            "endpointPrivateAccess": True,
        },
        accessConfig={"authenticationMode": mode},
        bootstrapSelfManagedAddons=False,
    )


def owned_by(cluster: str, kind: str) -> Any:
    """Return the tag that Kubernetes adds to its resources, as a TagSpecification."""
    tag = {"Key": f"kubernetes.io/cluster/{cluster}", "Value": "owned"}
    return [{"ResourceType": kind, "Tags": [tag]}]


def an_eks_cluster(owner: Owner, net: dict[str, str]) -> None:
    """Create an EKS cluster of another owner with the HyperPod chart, under another name."""
    a_control_plane(owner, net, "platform", "API")
    eks: Any = owner.aws.eks
    for name in ("vpc-cni", "kube-proxy", "coredns"):
        eks.create_addon(clusterName="platform", addonName=name)
    # the volume of a StatefulSet that is scaled to zero
    owner.aws.ec2.create_volume(
        AvailabilityZone="us-west-2a", Size=1, TagSpecifications=owned_by("platform", "volume")
    )
    reach = access(Snapshot(owner.aws), "platform")
    assert reach
    program = find_helm(str(owner.helm / "helm"))
    helms.install(reach, program, CHART, {}, "somebody", name="dependencies")


@pytest.mark.prove
def test_a_cluster_in_a_vpc_that_is_there(owner: Owner) -> None:
    net = a_vpc(owner)
    text = owner.example("existing-vpc")
    for example, name in (
        ("vpc-0123456789abcdef0", "vpc"),
        ("subnet-0123456789abcdef0", "one"),
        ("subnet-0123456789abcdef1", "two"),
        ("sg-0123456789abcdef0", "group"),
        ("rtb-0123456789abcdef0", "routes"),
    ):
        text = text.replace(example, net[name])
    before = owner.account()
    made = owner.declares("".join(x for x in text.splitlines(True) if "route_tables" not in x))
    network = {"CreateVpc", "CreateSubnet", "CreateNatGateway", "CreateRouteTable"}
    assert not {*network, "CreateVpcEndpoint"} & set(made)
    assert owner.declares(text) == ["CreateVpcEndpoint"]  # because of route_tables
    assert owner.declares(text) == []
    assert set(owner.eks()["resourcesVpcConfig"]["subnetIds"]) == {net["one"], net["two"]}
    assert owner.cluster()["VpcConfig"]["SecurityGroupIds"] == [net["group"]]
    owner.declares(text.replace("instance_count: 2", "instance_count: 3"))
    assert owner.groups()["worker-group"]["CurrentCount"] == 3
    assert owner.deletes(text) == []
    assert owner.account() == before


@pytest.mark.prove
def test_new_subnets_in_a_vpc_and_behind_a_nat_gateway_that_are_there(owner: Owner) -> None:
    net = a_vpc(owner)
    text = (
        "name: demo\nregion: us-west-2\n"
        f"existing: {{vpc: {net['vpc']}, nat_gateways: [{net['nat']}]}}\n"
        "network: {cidr: 172.20.128.0/20, availability_zone_ids: [usw2-az1, usw2-az2], "
        "secondary_cidrs: [100.64.0.0/17, 100.64.128.0/17], interface_endpoints: [ecr.api]}\n"
    )
    with pytest.raises(Usage, match=r"is not in vpc-\w+, which has 172\.20\.0\.0/16"):
        owner.declares(text.replace("172.20.128.0/20", "10.0.0.0/16"))
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateVpc", "CreateNatGateway", "CreateInternetGateway"} & set(made)
    assert owner.declares(text) == []
    assert owner.groups()["worker-group"]["CurrentCount"] == 2
    # the VPC's blocks can change, so the endpoint admits the nodes' security group
    (nodes,) = owner.cluster()["VpcConfig"]["SecurityGroupIds"]
    groups: Any = owner.aws.ec2.describe_security_groups()["SecurityGroups"]
    (door,) = [g for g in groups if g["GroupName"] == "demo-endpoints-hyperpod-eks"]
    (rule,) = door["IpPermissions"]
    assert [pair["GroupId"] for pair in rule["UserIdGroupPairs"]] == [nodes]
    assert owner.deletes(text) == []
    assert owner.account() == before


def test_the_internet_gateway_and_the_endpoints_of_a_vpc_are_used(owner: Owner) -> None:
    """A VPC has one internet gateway, and one endpoint of a service can have its DNS name."""
    net = a_vpc(owner)
    ec2: Any = owner.aws.ec2
    ec2.create_vpc_endpoint(
        VpcId=net["vpc"],
        VpcEndpointType="Interface",
        ServiceName="com.amazonaws.us-west-2.ecr.api",
        PrivateDnsEnabled=True,
        SubnetIds=[net["one"]],
        SecurityGroupIds=[net["group"]],
    )
    text = (
        f"name: demo\nregion: us-west-2\nexisting: {{vpc: {net['vpc']}}}\n"
        "network: {cidr: 172.20.128.0/20, interface_endpoints: [ecr.api, sts]}\n"
    )
    with pytest.raises(Usage, match=r"172\.20\.0\.0/20 overlaps subnet-\w+, which has 172\.20\."):
        owner.declares(text.replace("128.0/20", "0.0/20"))
    zones = "availability_zone_ids: [usw2-az1, usw2-az2]"
    more = f"{zones}, secondary_cidrs: [172.20.64.0/18, 100.64.0.0/18]"
    with pytest.raises(Usage, match=r"172\.20\.64\.0/18 overlaps 172\.20\.0\.0/16"):
        owner.declares(text.replace("network: {", f"network: {{{more}, "))
    assert owner.mutations() == []
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateInternetGateway", "AttachInternetGateway"} & set(made)
    assert made.count("CreateVpcEndpoint") == 2  # S3 and STS
    assert {"CreateNatGateway", "CreateSubnet"} <= set(made)
    assert owner.declares(text) == []
    assert owner.deletes(text) == []
    assert owner.account() == before


def test_what_our_cluster_leaves_in_somebodys_vpc_goes_before_its_roles(owner: Owner) -> None:
    """HyperPod deletes most of its interfaces with its role; other services leave theirs."""
    net = a_vpc(owner)
    ec2, elbv2 = cast("Any", owner.aws.ec2), owner.aws.elbv2
    subnets = [net["one"], net["two"]]

    def balancer(name: str, tag: dict[str, str]) -> None:
        elbv2.create_load_balancer(Name=name, Type="network", Subnets=subnets, Tags=[tag])

    balancer("lent", {"Key": "kubernetes.io/cluster/demo", "Value": "shared"})
    balancer("theirs", {"Key": "elbv2.k8s.aws/cluster", "Value": "demo-2"})
    ec2.create_security_group(
        GroupName="eks-cluster-sg-demo-2-1",
        Description="of another cluster",
        VpcId=net["vpc"],
        TagSpecifications=owned_by("demo-2", "security-group"),
    )
    before = owner.account()
    text = (
        "name: demo\nregion: us-west-2\nexisting:\n"
        f"  {{vpc: {net['vpc']}, private_subnets: [{net['one']}, {net['two']}]}}\n"
    )
    owner.declares(text)
    (ours,) = owner.cluster()["VpcConfig"]["SecurityGroupIds"]
    for description in ("aws-K8S-i-0123456789abcdef0", "AWS SageMaker HyperPod demo a"):
        ec2.create_network_interface(SubnetId=net["one"], Groups=[ours], Description=description)
    balancer("left", {"Key": "elbv2.k8s.aws/cluster", "Value": "demo"})
    traffic = ec2.create_security_group(
        GroupName="k8s-traffic-demo-0123456789",
        Description="[k8s] Shared Backend SecurityGroup for LoadBalancer",
        VpcId=net["vpc"],
        TagSpecifications=owned_by("demo", "security-group"),
    )["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 80, "ToPort": 80}
    peer = {"UserIdGroupPairs": [{"GroupId": traffic}]}
    ec2.authorize_security_group_ingress(GroupId=ours, IpPermissions=[rule | peer])
    owner.stack.calls.clear()

    assert owner.deletes(text) == []

    order = owner.mutations()
    assert order.index("DeleteNetworkInterface") < order.index("DeleteRole")
    assert owner.account() == before


@pytest.mark.prove
def test_a_block_of_somebodys_vpc_is_not_taken_for_ours(owner: Owner) -> None:
    net = a_vpc(owner)
    owner.aws.ec2.associate_vpc_cidr_block(VpcId=net["vpc"], CidrBlock="100.64.0.0/17")
    before = owner.account()
    text = (
        f"name: demo\nregion: us-west-2\nexisting: {{vpc: {net['vpc']}}}\n"
        "network: {cidr: 172.20.128.0/20, availability_zone_ids: [usw2-az1, usw2-az2], "
        "secondary_cidrs: [100.64.0.0/17, 100.64.128.0/17]}\n"
    )
    with pytest.raises(
        Foreign, match=r"network/cidr-100.64.0.0-17: .* belongs to an unknown owner"
    ):
        owner.declares(text)
    assert owner.deletes(text) == []
    assert owner.account() == before


MORE = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": ["ec2:*", "s3:*"], "Resource": "*"}],
}


def test_roles_bucket_and_s3_endpoint_that_are_there(owner: Owner) -> None:
    net = a_vpc(owner)
    iam, s3, ec2 = (cast("Any", getattr(owner.aws, name)) for name in ("iam", "s3", "ec2"))
    for name, service, policy in (
        ("Control", "eks", "AmazonEKSClusterPolicy"),
        ("Nodes", "sagemaker", "AmazonSageMakerClusterInstanceRolePolicy"),
    ):
        document = json.dumps(trust(f"{service}.amazonaws.com"))
        iam.create_role(RoleName=name, Path="/team/", AssumeRolePolicyDocument=document)
        iam.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    iam.put_role_policy(RoleName="Nodes", PolicyName="more", PolicyDocument=json.dumps(MORE))
    place = {"LocationConstraint": "us-west-2"}
    s3.create_bucket(Bucket="team-scripts", CreateBucketConfiguration=place)
    versions = {"Status": "Enabled"}
    s3.put_bucket_versioning(Bucket="team-scripts", VersioningConfiguration=versions)
    for key in ("lifecycle/on_create.sh", "hyperpod-eks/other/on_create.sh"):
        s3.put_object(Bucket="team-scripts", Key=key, Body=b"theirs")
    endpoint = ec2.create_vpc_endpoint(
        VpcId=net["vpc"],
        ServiceName="com.amazonaws.us-west-2.s3",
        RouteTableIds=[net["routes"]],
    )["VpcEndpoint"]["VpcEndpointId"]
    text = (
        "name: demo\nregion: us-west-2\nexisting:\n"
        f"  {{vpc: {net['vpc']}, private_subnets: [{net['one']}, {net['two']}],\n"
        f"   s3_endpoint: {endpoint}, cluster_role: Control, execution_role: Nodes,\n"
        "   bucket: team-scripts}\n"
    )
    before = owner.account()
    made = owner.declares(text)
    assert not {"CreateVpcEndpoint", "CreateRole", "CreatePolicy", "CreateBucket"} & set(made)
    assert not {"ModifyVpcEndpoint", "AttachRolePolicy", "PutBucketPolicy"} & set(made)
    assert owner.declares(text) == []
    assert owner.eks()["roleArn"].endswith(":role/team/Control")
    group = owner.groups()["worker-group"]
    assert group["ExecutionRole"].endswith(":role/team/Nodes")
    uri = group["LifeCycleConfig"]["SourceS3Uri"]
    assert (uri, group["CurrentCount"]) == ("s3://team-scripts/hyperpod-eks/demo/", 2)
    assert owner.deletes(text) == []
    assert owner.account() == before
    there = s3.list_object_versions(Bucket="team-scripts")
    assert (len(there["Versions"]), there.get("DeleteMarkers", [])) == (2, [])


@pytest.mark.prove
def test_what_create_made_is_not_exchanged_for_yours(owner: Owner) -> None:
    net = a_vpc(owner)
    an_eks_cluster(owner, net)
    head = "name: demo\nregion: us-west-2\n"
    owner.declares(head)
    vpc, subnets = f"vpc: {net['vpc']}", f"[{net['one']}, {net['two']}]"
    for theirs in (
        vpc,
        f"{vpc}, private_subnets: {subnets}",
        f"{vpc}, nat_gateways: [{net['nat']}]",
        f"{vpc}, s3_endpoint: vpce-0123456789abcdef0",
        f"{vpc}, security_group: {net['group']}",
        "eks_cluster: platform",
        "cluster_role: platform",
        "execution_role: platform",
        "bucket: theirs",
        "helm_release: kube-system/dependencies",
    ):
        cidr = "network: {cidr: 172.20.128.0/20}\n" if theirs.startswith("vpc") else ""
        with pytest.raises(
            Foreign, match=r"existing: cannot use \S+ as \S+: create already created \S+"
        ):
            owner.declares(f"{head}{cidr}existing: {{{theirs}}}\n", yes=True)
        assert owner.mutations() == []


def test_nodes_for_an_eks_cluster_that_is_there_with_a_release_in_it(owner: Owner) -> None:
    net = a_vpc(owner)
    an_eks_cluster(owner, net)
    text = owner.example("existing-eks")
    further = chart(owner.folder, "near")
    text += f"charts: {{near: {{chart: {further}, namespace: kube-system}}}}\n"
    before = owner.account()
    made = owner.declares(text)
    assert any("configmaps/kube-system/near" in line for line in owner.account())
    assert not {"CreateVpc", "CreateSubnet", "CreateAddon", "CreateAccessEntry"} & set(made)
    assert owner.declares(text) == []
    cluster = owner.cluster()
    assert cluster["Orchestrator"]["Eks"]["ClusterArn"].endswith("cluster/platform")
    assert set(cluster["VpcConfig"]["Subnets"]) == {net["one"], net["two"]}  # not the public subnet
    assert len(owner.nodes("worker-group")) == 2
    owner.declares(text.replace("instance_count: 2", "instance_count: 3"))
    assert len(owner.nodes("worker-group")) == 3
    assert owner.deletes(text) == []
    assert without_the_services_entry(owner.account()) == without_the_services_entry(before)


@pytest.mark.prove
def test_what_a_killed_test_left_is_deleted_from_an_eks_cluster_that_stays(owner: Owner) -> None:
    net = a_vpc(owner)
    an_eks_cluster(owner, net)
    text = owner.example("existing-eks")
    before = owner.account()
    owner.declares(text)
    reach = access(Snapshot(owner.aws), "platform")
    assert reach
    container = {"name": "test", "image": "i", "command": ["sleep", "1000"]}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    for name, labels in (("left", {TEST: "demo"}), ("theirs", {TEST: "other"})):
        metadata = {"name": f"hyperpod-eks-test-{name}", "labels": labels}
        jobs.create(
            reach, jobs.JOB, "default", {"metadata": metadata, "spec": {"template": template}}
        )
    context, _ = owner.context(owner.config(text))
    facts = Facts(
        Snapshot(owner.aws), "demo", "platform", reach, owner.cluster(), None,
        manifest=context.manifest,
    )  # fmt: skip
    context.manifest.intend(declared(facts), 0.0)
    context.manifest.commit()
    assert owner.deletes(text) == []
    (job,) = [each for each in owner.account() if "jobs.batch" in each]
    assert "hyperpod-eks-test-theirs" in job
    jobs.delete(reach, jobs.Reference(jobs.JOB, "default", "hyperpod-eks-test-theirs"))
    after = [each for each in owner.account() if "events/" not in each]
    assert without_the_services_entry(after) == without_the_services_entry(before)


def test_without_private_subnets_of_an_eks_cluster_nothing_is_created(owner: Owner) -> None:
    net = a_vpc(owner)
    a_control_plane(owner, net, "platform", "API")
    text = "name: demo\nregion: us-west-2\nexisting: {eks_cluster: platform}\n"
    subnets = "cluster.resourcesVpcConfig.subnetIds"
    for says, why in (
        ({subnets: []}, "eks:DescribeCluster names no subnets of platform"),
        ({subnets: None}, "the answer to eks:DescribeCluster has no subnetIds"),
        ({subnets: [net["public"]] * 2}, r"network\.cidr: 10\.0\.0\.0/16 is not in vpc-"),
    ):
        owner.stack.sim.echo = Echo(service="eks", operation="DescribeCluster", says=says)
        owner.stack.calls.clear()
        with pytest.raises(HyperpodError, match=why):
            owner.declares(text)
        assert owner.mutations() == []
    owner.stack.sim.echo = None


@pytest.mark.prove
def test_the_nodes_of_an_eks_cluster_that_is_there_can_live_in_one_zone(owner: Owner) -> None:
    net = a_vpc(owner)
    an_eks_cluster(owner, net)
    text = owner.example("existing-eks")
    text = text.replace("existing:", f"existing:\n  private_subnets: [{net['two']}]")
    with pytest.raises(
        NotFound, match="helm/release: the adopted resource kube-system/none no longer exists"
    ):
        owner.declares(text.replace("/dependencies", "/none"))
    assert owner.mutations() == []
    owner.declares(text)
    assert owner.declares(text) == []
    assert owner.cluster()["VpcConfig"]["Subnets"] == [net["two"]]
    assert len(owner.nodes("worker-group")) == 2


@pytest.mark.prove
def test_several_people_work_on_somebodys_eks_cluster(owner: Owner) -> None:
    """A caller without an access entry gets one; a delete by any of them deletes all of these."""
    net = a_vpc(owner)
    a_control_plane(owner, net, "platform", "API")  # its creator has access
    iam: Any = owner.aws.iam
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    keys = {}
    for name in ("ann", "bob"):
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=text)
        keys[name] = iam.create_access_key(UserName=name)["AccessKey"]
    admin = owner._session

    def entries() -> set[str]:
        found = owner.aws.eks.list_access_entries(clusterName="platform")["accessEntries"]
        return {arn.rpartition("/")[2] for arn in found}

    def becomes(name: str) -> None:
        key = keys[name]
        owner._session = new_session(key["AccessKeyId"], key["SecretAccessKey"])._session

    text = "name: demo\nregion: us-west-2\nexisting: {eks_cluster: platform}\n"
    before = entries()
    owner.declares(text)
    assert not entries() & {"ann", "bob"}
    for name in ("ann", "bob"):
        becomes(name)
        owner.declares(text)
        assert name in entries()
    owner._session = admin
    assert owner.declares(text) == []
    assert entries() >= {"ann", "bob"}
    assert owner.deletes(text) == []
    assert entries() - before == {"AWSServiceRoleForSageMakerHyperPod"}  # AWS creates it


def without_the_services_entry(account: list[str]) -> Any:
    """Remove HyperPod's own access entry, which only AWS can delete."""
    content = json.loads("\n".join(account))
    entries = content["us-west-2"]["eks"].get("platform", {}).get("AccessEntries", {})
    for arn in [arn for arn in entries if "AWSServiceRoleForSageMakerHyperPod" in arn]:
        del entries[arn]
    return content


def test_what_is_not_there_and_what_cannot_be_used_is_told_before_anything_is_made(
    owner: Owner,
) -> None:
    head = "name: demo\nregion: us-west-2\nexisting: "
    with pytest.raises(
        NotFound, match=r"existing\.eks_cluster: EKS cluster nowhere does not exist"
    ):
        owner.declares(f"{head}{{eks_cluster: nowhere}}")
    with pytest.raises(NotFound, match=r"existing\.vpc: vpc-0123456789abcdef0 does not exist"):
        owner.declares(f"{head}{{vpc: vpc-0123456789abcdef0}}")
    net = a_vpc(owner)
    a_control_plane(owner, net, "old", "CONFIG_MAP")
    owner.stack.calls.clear()
    with pytest.raises(Usage, match="old has the authentication mode CONFIG_MAP"):
        owner.declares(f"{head}{{eks_cluster: old}}")
    mode: Any = {"authenticationMode": "API_AND_CONFIG_MAP"}
    owner.aws.eks.update_cluster_config(name="old", accessConfig=mode)
    owner.stack.calls.clear()
    with pytest.raises(Usage, match=rf"existing\.vpc: vpc-0123456789abcdef0 is not {net['vpc']}"):
        owner.declares(f"{head}{{eks_cluster: old, vpc: vpc-0123456789abcdef0}}")
    with pytest.raises(Usage, match="are in usw2-az1, usw2-az1"):
        owner.declares(
            f"{head}{{vpc: {net['vpc']}, private_subnets: [{net['one']}, {net['public']}]}}"
        )
    mine = f"vpc: {net['vpc']}, private_subnets: [{net['one']}, {net['two']}]"
    subnets = "subnet-0123456789abcdef0, subnet-0123456789abcdef1"
    for theirs, why in (
        (f"vpc: {net['vpc']}, private_subnets: [{subnets}]", f"{subnets} not found in"),
        (f"{mine}, security_group: sg-0123456789abcdef0", "sg-0123456789abcdef0 does not exist"),
        (f"{mine}, s3_endpoint: vpce-0123456789abcdef0", "vpce-0123456789abcdef0 does not exist"),
        (f"{mine}, route_tables: [rtb-0123456789abcdef0]", "rtb-0123456789abcdef0 does not exist"),
        ("cluster_role: nobody", r"existing\.cluster_role: nobody does not exist"),
        ("execution_role: nobody", r"existing\.execution_role: nobody does not exist"),
        ("bucket: sagemaker-nowhere", r"existing\.bucket: sagemaker-nowhere does not exist"),
    ):
        with pytest.raises(NotFound, match=why):
            owner.declares(f"{head}{{{theirs}}}")
    ec2: Any = owner.aws.ec2
    other = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="g", Description="g", VpcId=other)["GroupId"]
    endpoint = ec2.create_vpc_endpoint(
        VpcId=net["vpc"], ServiceName="com.amazonaws.us-west-2.s3", RouteTableIds=[net["routes"]]
    )["VpcEndpoint"]["VpcEndpointId"]
    owner.stack.calls.clear()
    for theirs, why in (
        (f"{mine}, security_group: {group}", f"{group} is in {other}, not in {net['vpc']}"),
        (mine.replace(net["vpc"], other), f"are not in {other}"),
        (f"{mine}, route_tables: [{net['routes']}]", f"leads to S3 through {endpoint} already"),
    ):
        with pytest.raises(Usage, match=why):
            owner.declares(f"{head}{{{theirs}}}")
    assert owner.mutations() == []
