"""What a plain boto3 script does: one call after the other, boto3's waiters, look up then create.

It makes what `hyperpod-eks create NAME` makes, in the usual order of the steps.  Its looks by name
and tag are those of a careful author: a second run changes nothing.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

NAME, CHART, LIFECYCLE = sys.argv[2], os.environ["BENCH_CHART"], os.environ["BENCH_LIFECYCLE"]
TAGS = [{"Key": "cluster", "Value": NAME}]
MINE = [{"Name": "tag:cluster", "Values": [NAME]}]
ADDONS = ("vpc-cni", "kube-proxy", "eks-pod-identity-agent", "coredns")

session = boto3.Session()
region = session.region_name
sts, ec2, iam, s3 = (session.client(name) for name in ("sts", "ec2", "iam", "s3"))  # type: ignore[call-overload]
eks, logs, sagemaker = (session.client(name) for name in ("eks", "logs", "sagemaker"))  # type: ignore[call-overload]
caller = sts.get_caller_identity()
account, bucket = caller["Account"], f"sagemaker-{NAME}-{caller['Account']}-{region}"


def there(ask: Any, key: str, **arguments: Any) -> Any:
    """What a look finds, None if AWS says that it is not there."""
    try:
        return ask(**arguments)[key]
    except ClientError as error:
        text = f"{error.response['Error']['Code']} {error.response['Error']['Message']}"
        if any(w in text for w in ("NotFound", "NoSuch", "404", "could not be found", "Could not")):
            return None
        raise


def first(ask: Any, key: str, name: str = "", filters: str = "Filters") -> Any:
    """The first item of a list with our tag, and with a name if we have several of the kind."""
    wanted = MINE + ([{"Name": "tag:Name", "Values": [name]}] if name else [])
    found = [i for i in ask(**{filters: wanted})[key] if i.get("State") != "deleted"]
    return found[0] if found else None


def tagged(kind: str, name: str = "") -> list[Any]:
    """TagSpecifications for a create."""
    return [
        {"ResourceType": kind, "Tags": TAGS + ([{"Key": "Name", "Value": name}] if name else [])}
    ]


def network() -> dict[str, Any]:
    """A VPC with two private subnets and a public one, NAT gateway and S3 endpoint."""
    vpc = first(ec2.describe_vpcs, "Vpcs")
    if not vpc:
        vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tagged("vpc"))["Vpc"]
        ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], EnableDnsHostnames={"Value": True})
    here = vpc["VpcId"]
    gateway = first(ec2.describe_internet_gateways, "InternetGateways")
    if not gateway:
        gateway = ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway"))[
            "InternetGateway"
        ]
        ec2.attach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=here)
    subnets = {}
    zones = ec2.describe_availability_zones()["AvailabilityZones"]
    for i, name in enumerate(("private-0", "private-1", "public")):
        subnet = first(ec2.describe_subnets, "Subnets", name)
        subnets[name] = (
            subnet
            or ec2.create_subnet(
                VpcId=here,
                CidrBlock=f"10.0.{i * 64}.0/18",
                AvailabilityZoneId=zones[i % 2]["ZoneId"],
                TagSpecifications=tagged("subnet", name),
            )["Subnet"]
        )["SubnetId"]
    address = first(ec2.describe_addresses, "Addresses") or ec2.allocate_address(
        Domain="vpc", TagSpecifications=tagged("elastic-ip")
    )
    nat = first(ec2.describe_nat_gateways, "NatGateways", filters="Filter")
    if not nat:
        nat = ec2.create_nat_gateway(
            SubnetId=subnets["public"],
            AllocationId=address["AllocationId"],
            TagSpecifications=tagged("natgateway"),
        )["NatGateway"]
        ec2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat["NatGatewayId"]])
    tables = []
    for name, users, way in (
        ("public", ["public"], {"GatewayId": gateway["InternetGatewayId"]}),
        ("private", ["private-0", "private-1"], {"NatGatewayId": nat["NatGatewayId"]}),
    ):
        table = first(ec2.describe_route_tables, "RouteTables", name)
        if not table:
            table = ec2.create_route_table(
                VpcId=here, TagSpecifications=tagged("route-table", name)
            )["RouteTable"]
            ec2.create_route(
                RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", **way
            )
            for user in users:
                ec2.associate_route_table(
                    RouteTableId=table["RouteTableId"], SubnetId=subnets[user]
                )
        tables.append(table["RouteTableId"])
    if not first(ec2.describe_vpc_endpoints, "VpcEndpoints"):
        ec2.create_vpc_endpoint(
            VpcId=here,
            VpcEndpointType="Gateway",
            ServiceName=f"com.amazonaws.{region}.s3",
            RouteTableIds=tables[1:],
            TagSpecifications=tagged("vpc-endpoint"),
        )
    group = first(ec2.describe_security_groups, "SecurityGroups")
    if not group:
        group = ec2.create_security_group(
            GroupName=NAME,
            Description="nodes",
            VpcId=here,
            TagSpecifications=tagged("security-group"),
        )
        itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}]
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=itself)
        ec2.authorize_security_group_egress(GroupId=group["GroupId"], IpPermissions=itself)
    return {"vpc": here, "group": group["GroupId"], **subnets}


def role(name: str, service: str, managed: str) -> str:
    """A role with one of AWS's policies."""
    found = there(iam.get_role, "Role", RoleName=name)
    if not found:
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        found = iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
            Tags=TAGS,
        )["Role"]
        iam.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{managed}")
    return str(found["Arn"])


def roles(net: dict[str, Any]) -> tuple[str, str]:
    """Cluster role, execution role with a policy of our own, and HyperPod's own role."""
    linked = "AWSServiceRoleForSageMakerHyperPod"
    if not there(iam.get_role, "Role", RoleName=linked):
        iam.create_service_linked_role(AWSServiceName="hyperpod.sagemaker.amazonaws.com")
    cluster = role(f"{NAME}-eks", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
    execution = role(
        f"{NAME}-hyperpod", "sagemaker.amazonaws.com", "AmazonSageMakerClusterInstanceRolePolicy"
    )
    arn = f"arn:aws:iam::{account}:policy/{NAME}-hyperpod"
    if not there(iam.get_policy, "Policy", PolicyArn=arn):
        iam.create_policy(
            PolicyName=f"{NAME}-hyperpod",
            PolicyDocument=Path(__file__).with_name("execution_policy.json").read_text(),
            Tags=TAGS,
        )
        iam.attach_role_policy(RoleName=f"{NAME}-hyperpod", PolicyArn=arn)
    return cluster, execution


def scripts() -> None:
    """A bucket that takes TLS alone, and the lifecycle scripts."""
    if there(s3.get_bucket_tagging, "TagSet", Bucket=bucket) is None:
        s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
        s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": TAGS})
        arn = f"arn:aws:s3:::{bucket}"
        deny = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [arn, f"{arn}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [deny]})
        s3.put_bucket_policy(Bucket=bucket, Policy=policy)
    for path in sorted(Path(LIFECYCLE).iterdir()):
        key = f"lifecycle/{path.name}"
        if there(s3.head_object, "ETag", Bucket=bucket, Key=key) is None:
            s3.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())


def control(net: dict[str, Any], cluster_role: str) -> dict[str, Any]:
    """The EKS cluster, its log group, access for the caller, add-ons that need no nodes."""
    group = f"/aws/eks/{NAME}/cluster"
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        logs.create_log_group(logGroupName=group)
        logs.put_retention_policy(logGroupName=group, retentionInDays=30)
    if not there(eks.describe_cluster, "cluster", name=NAME):
        eks.create_cluster(
            name=NAME,
            version=eks.describe_cluster_versions(defaultOnly=True)["clusterVersions"][0][
                "clusterVersion"
            ],
            roleArn=cluster_role,
            resourcesVpcConfig={
                "subnetIds": [net["private-0"], net["private-1"]],
                "securityGroupIds": [net["group"]],
            },
            accessConfig={
                "authenticationMode": "API",
                "bootstrapClusterCreatorAdminPermissions": False,
            },
            bootstrapSelfManagedAddons=False,
        )
        eks.get_waiter("cluster_active").wait(name=NAME)
    found: dict[str, Any] = eks.describe_cluster(name=NAME)["cluster"]
    session_role = caller["Arn"].split("/")[1]
    me = iam.get_role(RoleName=session_role)["Role"]["Arn"]
    if not there(eks.describe_access_entry, "accessEntry", clusterName=NAME, principalArn=me):
        eks.create_access_entry(clusterName=NAME, principalArn=me)
        eks.associate_access_policy(
            clusterName=NAME,
            principalArn=me,
            policyArn="arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
            accessScope={"type": "cluster"},
        )
    for addon in ADDONS[:-1]:
        if not there(eks.describe_addon, "addon", clusterName=NAME, addonName=addon):
            eks.create_addon(clusterName=NAME, addonName=addon)
            eks.get_waiter("addon_active").wait(clusterName=NAME, addonName=addon)
    return found


def chart(cluster: dict[str, Any]) -> None:
    """The HyperPod chart, by helm, unless it is installed."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "kubeconfig"
        config.write_text(json.dumps(kubeconfig(cluster)))
        helm = ["helm", "--kubeconfig", str(config), "--namespace", "kube-system"]
        status = [*helm, "status", "hyperpod-dependencies"]
        if subprocess.run(status, capture_output=True, check=False).returncode:
            install = [*helm, "upgrade", "--install", "hyperpod-dependencies", CHART]
            subprocess.run(install, check=True)


def kubeconfig(cluster: dict[str, Any]) -> dict[str, Any]:
    """Say how to reach the cluster, with a token as `aws eks get-token` makes it."""
    client = session.client("sts")
    header = "x-k8s-aws-id"
    client.meta.events.register(
        "provide-client-params.sts.GetCallerIdentity",
        lambda params, context, **_: context.update({header: params.pop(header)}),
    )
    client.meta.events.register(
        "before-sign.sts.GetCallerIdentity",
        lambda request, **_: request.headers.add_header(header, request.context[header]),
    )
    url = client.generate_presigned_url(
        "get_caller_identity", Params={header: NAME}, ExpiresIn=60, HttpMethod="GET"
    )
    token = "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
    about = {
        "server": cluster["endpoint"],
        "certificate-authority-data": cluster["certificateAuthority"]["data"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": about}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "users": [{"name": NAME, "user": {"token": token}}],
    }


def nodes(net: dict[str, Any], execution: str, cluster: dict[str, Any]) -> None:
    """The HyperPod cluster, for which boto3 has no waiter, and coredns, which needs its nodes."""
    if not there(sagemaker.describe_cluster, "ClusterArn", ClusterName=NAME):
        group = {
            "InstanceGroupName": "workers",
            "InstanceType": "ml.m5.2xlarge",
            "InstanceCount": 2,
            "ThreadsPerCore": 1,
            "ExecutionRole": execution,
            "LifeCycleConfig": {
                "SourceS3Uri": f"s3://{bucket}/lifecycle/",
                "OnCreate": "on_create.sh",
            },
            "InstanceStorageConfigs": [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}],
        }
        sagemaker.create_cluster(
            ClusterName=NAME,
            Orchestrator={"Eks": {"ClusterArn": cluster["arn"]}},
            NodeRecovery="Automatic",
            InstanceGroups=[group],
            VpcConfig={"SecurityGroupIds": [net["group"]], "Subnets": [net["private-0"]]},
            Tags=TAGS,
        )
    while (found := sagemaker.describe_cluster(ClusterName=NAME))["ClusterStatus"] != "InService":
        if found["ClusterStatus"] == "Failed":
            sys.exit(found["FailureMessage"])
        time.sleep(30)
    if not there(eks.describe_addon, "addon", clusterName=NAME, addonName=ADDONS[-1]):
        eks.create_addon(clusterName=NAME, addonName=ADDONS[-1])
        eks.get_waiter("addon_active").wait(clusterName=NAME, addonName=ADDONS[-1])


def create() -> None:
    """Everything, one step after the other."""
    net = network()
    cluster_role, execution = roles(net)
    scripts()
    cluster = control(net, cluster_role)
    chart(cluster)
    nodes(net, execution, cluster)


def delete() -> None:
    """The same backwards."""
    if there(sagemaker.describe_cluster, "ClusterArn", ClusterName=NAME):
        sagemaker.delete_cluster(ClusterName=NAME)
    while there(sagemaker.describe_cluster, "ClusterArn", ClusterName=NAME):
        time.sleep(30)
    if there(eks.describe_cluster, "cluster", name=NAME):
        eks.delete_cluster(name=NAME)
        eks.get_waiter("cluster_deleted").wait(name=NAME)
    for prefix in (f"/aws/eks/{NAME}/", f"/aws/sagemaker/Clusters/{NAME}/"):
        for group in logs.describe_log_groups(logGroupNamePrefix=prefix)["logGroups"]:
            logs.delete_log_group(logGroupName=group["logGroupName"])
    for item in s3.list_objects_v2(Bucket=bucket).get("Contents", ()):
        s3.delete_object(Bucket=bucket, Key=item["Key"])
    s3.delete_bucket(Bucket=bucket)
    for name in (f"{NAME}-eks", f"{NAME}-hyperpod"):
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        iam.delete_role(RoleName=name)
    iam.delete_policy(PolicyArn=f"arn:aws:iam::{account}:policy/{NAME}-hyperpod")
    endpoints = ec2.describe_vpc_endpoints(Filters=MINE)["VpcEndpoints"]
    if endpoints:
        ec2.delete_vpc_endpoints(VpcEndpointIds=[e["VpcEndpointId"] for e in endpoints])
    nat = first(ec2.describe_nat_gateways, "NatGateways", filters="Filter")
    if nat:
        ec2.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
        ec2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[nat["NatGatewayId"]])
    for address in ec2.describe_addresses(Filters=MINE)["Addresses"]:
        ec2.release_address(AllocationId=address["AllocationId"])
    for table in ec2.describe_route_tables(Filters=MINE)["RouteTables"]:
        for use in table["Associations"]:
            ec2.disassociate_route_table(AssociationId=use["RouteTableAssociationId"])
        ec2.delete_route_table(RouteTableId=table["RouteTableId"])
    for gateway in ec2.describe_internet_gateways(Filters=MINE)["InternetGateways"]:
        here = gateway["InternetGatewayId"]
        for use in gateway["Attachments"]:
            ec2.detach_internet_gateway(InternetGatewayId=here, VpcId=use["VpcId"])
        ec2.delete_internet_gateway(InternetGatewayId=here)
    for subnet in ec2.describe_subnets(Filters=MINE)["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    for group in ec2.describe_security_groups(Filters=MINE)["SecurityGroups"]:
        ec2.delete_security_group(GroupId=group["GroupId"])
    for vpc in ec2.describe_vpcs(Filters=MINE)["Vpcs"]:
        ec2.delete_vpc(VpcId=vpc["VpcId"])


if __name__ == "__main__":
    {"create": create, "delete": delete}[sys.argv[1]]()
