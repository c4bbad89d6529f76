"""Prerequisites of EKS and HyperPod in tests: network, roles, scripts, access to Kubernetes."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.conftest import Clients

NAME = "demo"
CLUSTER_POLICY = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
INSTANCE_POLICY = "arn:aws:iam::aws:policy/AmazonSageMakerClusterInstanceRolePolicy"
ADMIN_POLICY = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
CALLER = "arn:aws:iam::123456789012:role/team/Admin"


@dataclass
class Ground:
    """Ids and ARNs of the prerequisites."""

    vpc: str
    subnets: list[str]
    group: str
    eks_role: str
    execution_role: str


def trust(*services: str) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": list(services)},
        "Action": ["sts:AssumeRole", "sts:TagSession"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def role(aws: Clients, name: str, *services: str, policies: tuple[str, ...] = ()) -> str:
    arn: str = aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(*services))[
        "Role"
    ]["Arn"]
    for policy in policies:
        aws.iam.attach_role_policy(RoleName=name, PolicyArn=policy)
    return arn


def lay(aws: Clients, cidr: str = "10.0.0.0/16", subnet: str = "10.0.{}.0/24") -> Ground:
    """Create a VPC with two subnets, a security group, both roles and the scripts' bucket."""
    vpc = aws.ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    subnets = [
        aws.ec2.create_subnet(
            VpcId=vpc, CidrBlock=subnet.format(64 * number), AvailabilityZone=f"us-west-2{zone}"
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate("ab")
    ]
    group = aws.ec2.create_security_group(VpcId=vpc, GroupName="g", Description="g")["GroupId"]
    itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
    aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=itself)
    aws.ec2.authorize_security_group_egress(GroupId=group, IpPermissions=itself)
    eks_role = role(aws, "eks", "eks.amazonaws.com", policies=(CLUSTER_POLICY,))
    execution = role(aws, "exec", "sagemaker.amazonaws.com", policies=(INSTANCE_POLICY,))
    network = {"Effect": "Allow", "Action": "ec2:*NetworkInterface*", "Resource": "*"}
    describe = {"Effect": "Allow", "Action": "ec2:Describe*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [network, describe]})
    aws.iam.put_role_policy(RoleName="exec", PolicyName="network", PolicyDocument=document)
    aws.s3.create_bucket(
        Bucket="sagemaker-demo",
        CreateBucketConfiguration={"LocationConstraint": "us-west-2"},
    )
    aws.s3.put_object(Bucket="sagemaker-demo", Key="config/on_create.sh", Body=b"#!/bin/bash\n")
    return Ground(vpc, subnets, group, eks_role, execution)


def eks_cluster(ground: Ground, **changes: Any) -> dict[str, Any]:
    """Return the parameters of EKS's CreateCluster."""
    return {
        "name": NAME,
        "version": "1.35",
        "roleArn": ground.eks_role,
        "resourcesVpcConfig": {
            "subnetIds": ground.subnets,
            "securityGroupIds": [ground.group],
            "endpointPrivateAccess": True,
        },
        "accessConfig": {"authenticationMode": "API"},
        "bootstrapSelfManagedAddons": False,
        **changes,
    }


def workers(ground: Ground, **changes: Any) -> dict[str, Any]:
    """Return an instance group."""
    return {
        "InstanceGroupName": "workers",
        "InstanceType": "ml.m5.2xlarge",
        "InstanceCount": 2,
        "ThreadsPerCore": 1,
        "ExecutionRole": ground.execution_role,
        "LifeCycleConfig": {
            "SourceS3Uri": "s3://sagemaker-demo/config/",
            "OnCreate": "on_create.sh",
        },
        **changes,
    }


def hyperpod_cluster(ground: Ground, *groups: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the parameters of SageMaker's CreateCluster."""
    return {
        "ClusterName": NAME,
        "Orchestrator": {
            "Eks": {"ClusterArn": f"arn:aws:eks:us-west-2:123456789012:cluster/{NAME}"}
        },
        "VpcConfig": {"SecurityGroupIds": [ground.group], "Subnets": ground.subnets[:1]},
        "InstanceGroups": list(groups) or [workers(ground)],
        "Tags": [{"Key": "SageMaker", "Value": "true"}],
        **changes,
    }


def orchestrated(aws: Clients) -> Ground:
    """Create the prerequisites, and an EKS cluster with the observable part of HyperPod's chart."""
    ground = lay(aws)
    aws.eks.create_cluster(**eks_cluster(ground))
    install_chart(aws)
    return ground


def install_chart(aws: Clients) -> None:
    status, _ = kubernetes(
        aws, "POST", "/api/v1/namespaces", {"metadata": {"name": "aws-hyperpod"}}
    )
    assert status == 201


def refusal(call: Any, **request: Any) -> tuple[str, str]:
    """Return code and message of the error that a call must raise."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


# -- Kubernetes ----------------------------------------------------------------------------------


def token(cluster: str = NAME, **keys: Any) -> str:
    """Return a token: presign GetCallerIdentity like ``aws eks get-token``."""
    sts = boto3.client("sts", region_name="us-west-2", **keys)
    header = "x-k8s-aws-id"

    def take(params: Any, context: Any, **_: Any) -> None:
        context[header] = params.pop(header)

    def sign(request: Any, **_: Any) -> None:
        request.headers[header] = request.context[header]

    sts.meta.events.register("provide-client-params.sts.GetCallerIdentity", take)
    sts.meta.events.register("before-sign.sts.GetCallerIdentity", sign)
    url = sts.generate_presigned_url(
        "get_caller_identity", Params={header: cluster}, ExpiresIn=60, HttpMethod="GET"
    )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def kubernetes(
    aws: Clients,
    method: str,
    path: str,
    body: Any = None,
    bearer: str | None = None,
) -> tuple[int, Any]:
    """Call the Kubernetes API in a cluster's DescribeCluster; return status and answer."""
    cluster = aws.eks.describe_cluster(name=NAME)["cluster"]
    ca = base64.b64decode(cluster["certificateAuthority"]["data"]).decode()
    request = urllib.request.Request(
        cluster["endpoint"] + path,
        json.dumps(body).encode() if body is not None else None,
        {
            "Authorization": f"Bearer {bearer or token()}",
            "Content-Type": "application/json",
            "Connection": "close",
        },
        method=method,
    )
    https = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=ca))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def nodes(aws: Clients) -> dict[str, dict[str, Any]]:
    """Return the Kubernetes nodes by name, each with ``ready``."""
    _, answer = kubernetes(aws, "GET", "/api/v1/nodes")
    return {
        node["metadata"]["name"]: {
            **node,
            "ready": any(
                c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"]
            ),
        }
        for node in answer["items"]
    }
