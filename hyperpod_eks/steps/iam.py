"""Who may do what: the role of the control plane, the role of the nodes, HyperPod's own role."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from hyperpod_eks.aws import Aws, Look, absent, owner
from hyperpod_eks.resource import Known, Live, Resource
from hyperpod_eks.site import Site
from hyperpod_eks.steps.network import SecurityGroup, Subnet, Vpc


@dataclass(frozen=True)
class Roles:
    """What the other steps build on."""

    cluster: Role
    execution: Role
    service_linked: ServiceLinkedRole


def step(site: Site, vpc: Vpc, subnets: tuple[Subnet, ...], group: SecurityGroup) -> Roles:
    """Declare the roles; the nodes' policy names the network that they may use."""
    policy = Policy(
        "execution-policy",
        name=site.iam_name("hyperpod"),
        partition=site.identity.partition,
        account=site.identity.account,
        region=site.region,
        cluster=site.eks_name,
        vpc=vpc,
        subnets=subnets,
        security_group=group,
    )
    return Roles(
        cluster=Role(
            "cluster-role",
            name=site.iam_name("eks", "iam/cluster-role"),
            trusts="eks.amazonaws.com",
            managed=(site.managed_policy("AmazonEKSClusterPolicy"),),
        ),
        execution=Role(
            "execution-role",
            name=site.iam_name("hyperpod", "iam/execution-role"),
            trusts="sagemaker.amazonaws.com",
            managed=(site.managed_policy("AmazonSageMakerClusterInstanceRolePolicy"),),
            policies=(policy,),
        ),
        service_linked=ServiceLinkedRole("service-linked-role"),
    )


@dataclass(frozen=True)
class Role(Resource):
    """A role that one AWS service assumes, with the policies attached to it."""

    name: str
    trusts: str
    """Service principal; the same in every partition."""
    managed: tuple[str, ...]
    """ARNs of policies that AWS manages."""
    policies: tuple[Policy, ...] = ()

    step = "iam"

    def find(self, look: Look) -> Sequence[Live]:
        """By name."""
        with absent("NoSuchEntity"):
            role = look.aws.iam.get_role(RoleName=self.name)["Role"]
            attached = look.all(
                look.aws.iam,
                "list_attached_role_policies",
                "AttachedPolicies",
                RoleName=self.name,
            )
            return [
                Live(
                    self.name,
                    role["Arn"],
                    owner=owner(role.get("Tags", ())),
                    facts={
                        "trusts": _trusted(role["AssumeRolePolicyDocument"]),
                        "policies": frozenset(each["PolicyArn"] for each in attached),
                    },
                )
            ]
        return []

    def expected(self, name: str, known: Known) -> Any:
        """Attached are AWS's policies and ours, without order."""
        if name == "policies":
            return frozenset([*self.managed, *(known(policy).arn for policy in self.policies)])
        return super().expected(name, known)

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the account."""
        role = aws.iam.create_role(
            RoleName=self.name,
            AssumeRolePolicyDocument=json.dumps(trust(self.trusts)),
            Description=f"hyperpod-eks: {self.label} of the cluster {aws.cluster}",
            Tags=aws.pairs(self.label),
        )["Role"]
        facts = {"trusts": self.trusts, "policies": frozenset[str]()}
        return Live(self.name, role["Arn"], owner=aws.lineage, facts=facts)

    def settle(self, aws: Aws, known: Known, live: Live) -> Live | None:
        """Attach what is missing and put the trust right; what somebody attached is taken off."""
        if live.facts["trusts"] != self.trusts:
            aws.iam.update_assume_role_policy(
                RoleName=self.name, PolicyDocument=json.dumps(trust(self.trusts))
            )
        if live.owner is None:
            aws.iam.tag_role(RoleName=self.name, Tags=aws.pairs(self.label))
        wanted = self.expected("policies", known)
        for arn in sorted(wanted - live.facts["policies"]):
            aws.iam.attach_role_policy(RoleName=self.name, PolicyArn=arn)
        for arn in sorted(live.facts["policies"] - wanted):
            aws.iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        facts = {"trusts": self.trusts, "policies": wanted}
        return Live(self.name, live.arn, owner=aws.lineage, facts=facts)

    def delete(self, aws: Aws, live: Live) -> None:
        """Everything attached must go first, whoever attached it."""
        iam = aws.iam
        for arn in live.facts["policies"]:
            iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=self.name):
            for inline in page["PolicyNames"]:
                iam.delete_role_policy(RoleName=self.name, PolicyName=inline)
        iam.delete_role(RoleName=self.name)


def trust(service: str) -> dict[str, Any]:
    """Let one service assume the role."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": service},
                "Action": "sts:AssumeRole",
            }
        ],
    }


def _trusted(document: object) -> str | None:
    """Name the service of a trust policy written as above; None for any other."""
    text = json.loads(unquote(document)) if isinstance(document, str) else document
    service: str | None = None
    if isinstance(text, Mapping):
        statement = text.get("Statement", [{}])
        first = statement[0] if isinstance(statement, list) and len(statement) == 1 else {}
        principal = first.get("Principal", {})
        service = principal.get("Service") if isinstance(principal, Mapping) else None
        if text != trust(str(service)):
            return None
    return service


@dataclass(frozen=True)
class Policy(Resource):
    """What the nodes may do, beyond AmazonSageMakerClusterInstanceRolePolicy.

    The action list is that of the SageMaker developer guide ("IAM role for SageMaker HyperPod",
    EKS additions); interfaces may be made only in the cluster's own VPC.
    """

    name: str
    partition: str
    account: str
    region: str
    cluster: str
    vpc: Vpc
    subnets: tuple[Subnet, ...]
    security_group: SecurityGroup

    step = "iam"

    @property
    def arn(self) -> str:
        """Policies are found by ARN."""
        return f"arn:{self.partition}:iam::{self.account}:policy/{self.name}"

    def find(self, look: Look) -> Sequence[Live]:
        """By ARN."""
        with absent("NoSuchEntity"):
            policy = look.aws.iam.get_policy(PolicyArn=self.arn)["Policy"]
            version = look.aws.iam.get_policy_version(
                PolicyArn=self.arn, VersionId=policy["DefaultVersionId"]
            )["PolicyVersion"]
            document: Any = version["Document"]
            if isinstance(document, str):
                document = json.loads(unquote(document))
            return [
                Live(
                    self.name,
                    self.arn,
                    owner=owner(policy.get("Tags", ())),
                    facts={"document": document},
                )
            ]
        return []

    def expected(self, name: str, known: Known) -> Any:
        """The document is made of what it depends on."""
        if name != "document":
            return super().expected(name, known)
        ec2 = f"arn:{self.partition}:ec2:{self.region}:{self.account}"
        places = [
            f"{ec2}:network-interface/*",
            f"{ec2}:vpc/{known(self.vpc).id}",
            f"{ec2}:security-group/{known(self.security_group).id}",
            *(f"{ec2}:subnet/{known(subnet).id}" for subnet in self.subnets),
        ]
        cluster = f"arn:{self.partition}:eks:{self.region}:{self.account}:cluster/{self.cluster}"
        return {
            "Version": "2012-10-17",
            "Statement": [_allow(*row) for row in _statements(places, self.partition, cluster)],
        }

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the account."""
        document = self.expected("document", known)
        aws.iam.create_policy(
            PolicyName=self.name,
            PolicyDocument=json.dumps(document),
            Description=f"hyperpod-eks: nodes of the cluster {aws.cluster}",
            Tags=aws.pairs(self.label),
        )
        return Live(self.name, self.arn, owner=aws.lineage, facts={"document": document})

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """Make a new default version; of the five that IAM keeps, the oldest makes room."""
        if live.owner is None:
            aws.iam.tag_policy(PolicyArn=self.arn, Tags=aws.pairs(self.label))
        document = self.expected("document", known)
        if live.facts["document"] == document:
            return
        old = list(self._old_versions(aws))
        if len(old) >= 4:
            aws.iam.delete_policy_version(PolicyArn=self.arn, VersionId=old[-1])
        aws.iam.create_policy_version(
            PolicyArn=self.arn, PolicyDocument=json.dumps(document), SetAsDefault=True
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Old versions go first."""
        for version in self._old_versions(aws):
            aws.iam.delete_policy_version(PolicyArn=self.arn, VersionId=version)
        aws.iam.delete_policy(PolicyArn=self.arn)

    def _old_versions(self, aws: Aws) -> Iterator[str]:
        """Every version but the default one, newest first."""
        for page in aws.iam.get_paginator("list_policy_versions").paginate(PolicyArn=self.arn):
            yield from (v["VersionId"] for v in page["Versions"] if not v["IsDefaultVersion"])


def _statements(
    places: list[str], partition: str, cluster: str
) -> list[tuple[str, list[str], list[str] | str]]:
    """Rows of (id, actions, resources).  Describe actions know no resource."""
    return [
        (
            "Interfaces",
            [
                "ec2:AssignPrivateIpAddresses",
                "ec2:CreateNetworkInterface",
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
                "ec2:DetachNetworkInterface",
                "ec2:ModifyNetworkInterfaceAttribute",
                "ec2:UnassignPrivateIpAddresses",
            ],
            places,
        ),
        (
            "Attach",
            ["ec2:AttachNetworkInterface"],
            # the instances stand in an account of the service
            [f"arn:{partition}:ec2:*:*:instance/*", f"arn:{partition}:ec2:*:*:network-interface/*"],
        ),
        ("Tag", ["ec2:CreateTags"], [f"arn:{partition}:ec2:*:*:network-interface/*"]),
        (
            "Look",
            [
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeTags",
                "ec2:DescribeVpcs",
                "cloudwatch:DescribeAlarms",
                "fsx:DescribeFileSystems",
            ],
            "*",
        ),
        (
            "Images",
            [
                "ecr:BatchCheckLayerAvailability",
                "ecr:BatchGetImage",
                "ecr:GetAuthorizationToken",
                "ecr:GetDownloadUrlForLayer",
            ],
            "*",
        ),
        ("PodIdentity", ["eks-auth:AssumeRoleForPodIdentity"], cluster),
    ]


def _allow(sid: str, actions: list[str], resources: list[str] | str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}


@dataclass(frozen=True)
class ServiceLinkedRole(Resource):
    """HyperPod's role in the account.

    CreateCluster would make it if the caller may; made here, a missing permission shows before
    anything costs money.  All clusters share it, so it is never deleted.
    """

    step = "iam"
    shared = True

    name = "AWSServiceRoleForSageMakerHyperPod"
    service = "hyperpod.sagemaker.amazonaws.com"

    def find(self, look: Look) -> Sequence[Live]:
        """By the name that the service gives it."""
        with absent("NoSuchEntity"):
            role = look.aws.iam.get_role(RoleName=self.name)["Role"]
            return [Live(self.name, role["Arn"])]
        return []

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """There can be one; a second one is refused."""
        role = aws.iam.create_service_linked_role(AWSServiceName=self.service)["Role"]
        return Live(self.name, role["Arn"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Other clusters use it."""
