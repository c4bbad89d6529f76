from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from hyperpod_eks.local.aws import roles
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.local.stack import Stack
from tests.conftest import REGION, Clients, new_session

CLUSTER_POLICY = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
HYPERPOD = "hyperpod.sagemaker.amazonaws.com"
ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [ALLOW]})


def trust(**principal: str) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert error["Code"] == code
    assert text in error["Message"]


def add_role(aws: Clients, name: str = "r", **principal: str) -> str:
    document = trust(**(principal or {"Service": "eks.amazonaws.com"}))
    role = aws.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
    return str(role["Role"]["Arn"])


def test_other_services_see_a_new_role_after_a_while(stack: Stack, aws: Clients) -> None:
    stack.sim.delays = replace(stack.sim.delays, iam=8)
    arn = add_role(aws)
    assert not stack.sim.role_visible(arn)
    stack.clock.advance(8)
    assert stack.sim.role_visible(arn)
    aws.iam.delete_role(RoleName="r")
    assert not stack.sim.role_visible(arn)


@pytest.mark.parametrize(
    "arn",
    [
        CLUSTER_POLICY,
        "arn:aws:iam::aws:policy/AmazonSageMakerClusterInstanceRolePolicy",
        "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
        "arn:aws:iam::aws:policy/aws-service-role/AmazonSageMakerHyperPodServiceRolePolicy",
    ],
)
def test_the_policies_of_aws_are_there(aws: Clients, arn: str) -> None:
    policy = aws.iam.get_policy(PolicyArn=arn)["Policy"]
    assert policy["Arn"] == arn
    version = aws.iam.get_policy_version(PolicyArn=arn, VersionId=policy["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"]["Statement"]


def test_a_policy_that_aws_does_not_have_is_not(aws: Clients) -> None:
    add_role(aws)
    with refused("NoSuchEntity", "does not exist or is not attachable"):
        aws.iam.attach_role_policy(RoleName="r", PolicyArn=CLUSTER_POLICY + "X")
    with refused("NoSuchEntity"):
        wrong_path = "arn:aws:iam::aws:policy/x/AmazonEKSClusterPolicy"
        aws.iam.attach_role_policy(RoleName="r", PolicyArn=wrong_path)


def test_what_is_attached_is_not_deleted(aws: Clients) -> None:
    add_role(aws)
    arn = aws.iam.create_policy(PolicyName="p", PolicyDocument=POLICY)["Policy"]["Arn"]
    aws.iam.attach_role_policy(RoleName="r", PolicyArn=arn)
    aws.iam.attach_role_policy(RoleName="r", PolicyArn=arn)  # changes nothing
    aws.iam.create_policy_version(PolicyArn=arn, PolicyDocument=POLICY)
    with refused("DeleteConflict", "Cannot delete a policy attached to entities."):
        aws.iam.delete_policy(PolicyArn=arn)
    with refused("DeleteConflict", "must detach all policies first"):
        aws.iam.delete_role(RoleName="r")
    aws.iam.detach_role_policy(RoleName="r", PolicyArn=arn)
    with refused("DeleteConflict", "more than one version"):
        aws.iam.delete_policy(PolicyArn=arn)
    aws.iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    aws.iam.delete_policy(PolicyArn=arn)
    aws.iam.put_role_policy(RoleName="r", PolicyName="inline", PolicyDocument=POLICY)
    with refused("DeleteConflict", "must delete policies first"):
        aws.iam.delete_role(RoleName="r")
    aws.iam.delete_role_policy(RoleName="r", PolicyName="inline")
    aws.iam.delete_role(RoleName="r")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "Syntax"),
        ('{"Version": "2012-10-17"}', "Syntax"),
        (trust(Service="eks"), 'Invalid principal in policy: "SERVICE":"eks"'),
        (trust(AWS="arn:aws:iam::123456789012:role/nobody"), "Invalid principal in policy"),
    ],
)
def test_bad_trust_is_refused(aws: Clients, document: str, said: str) -> None:
    with refused("MalformedPolicyDocument", said):
        aws.iam.create_role(RoleName="r", AssumeRolePolicyDocument=document)
    add_role(aws)
    with refused("MalformedPolicyDocument", said):
        aws.iam.update_assume_role_policy(RoleName="r", PolicyDocument=document)


def test_good_trust_is_taken(aws: Clients) -> None:
    add_role(aws, "one", Service=HYPERPOD)
    add_role(aws, "two", AWS="arn:aws:iam::123456789012:role/one")
    add_role(aws, "three", AWS="arn:aws:iam::123456789012:root")


def test_the_service_linked_role_has_its_own_name_and_keeper(stack: Stack, aws: Clients) -> None:
    role = aws.iam.create_service_linked_role(AWSServiceName=HYPERPOD)["Role"]
    assert role["RoleName"] == "AWSServiceRoleForSageMakerHyperPod"
    assert role["Path"] == f"/aws-service-role/{HYPERPOD}/"
    attached = aws.iam.list_attached_role_policies(RoleName=role["RoleName"])
    (policy,) = attached["AttachedPolicies"]
    assert policy["PolicyName"] == "AmazonSageMakerHyperPodServiceRolePolicy"
    with refused("InvalidInput", f"{role['RoleName']} has been taken in this account"):
        aws.iam.create_service_linked_role(AWSServiceName=HYPERPOD)
    with refused("UnmodifiableEntity"):
        aws.iam.delete_role(RoleName=role["RoleName"])
    account = stack.inventory()["iam"]
    assert role["RoleName"] not in account["Roles"]
    assert list(account["Roles"]) == ["Admin"]


def simulated(aws: Clients, *actions: str) -> dict[str, str]:
    answer = aws.iam.simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:role/team/Admin", ActionNames=actions
    )
    return {r["EvalActionName"]: r["EvalDecision"] for r in answer["EvaluationResults"]}


def test_the_policy_simulator_denies_what_it_is_told_to(stack: Stack, aws: Clients) -> None:
    stack.sim.denied.add("sagemaker:Create*")
    assert simulated(aws, "sagemaker:CreateCluster", "sagemaker:UpdateCluster") == {
        "sagemaker:CreateCluster": "implicitDeny",
        "sagemaker:UpdateCluster": "allowed",
    }


@pytest.mark.parametrize(
    "actions",
    [
        ("ec2:CreateVpc", "sagemaker:CreateCluster"),
        ("ec2:DeleteVpc", "ec2:DeleteSubnet"),
        ("ec2:CreateTags", "ec2:CreateVpc"),
    ],
)
def test_the_policy_simulator_takes_no_mixture(
    stack: Stack, aws: Clients, actions: tuple[str, str]
) -> None:
    stack.sim.apart.add("ec2:CreateTags")
    with refused("InvalidInput", "require different authorization information"):
        simulated(aws, *actions)


def test_a_new_role_may_not_be_seen_yet(stack: Stack, aws: Clients) -> None:
    stack.faults.append(Fault("iam", "CreateRole", kind="lag", reads=1, seconds=5))
    add_role(aws)
    with refused("NoSuchEntity"):
        aws.iam.get_role(RoleName="r")
    stack.clock.advance(5)
    aws.iam.get_role(RoleName="r")


def test_a_service_linked_role_goes_by_its_own_operation(stack: Stack, aws: Clients) -> None:
    name = aws.iam.create_service_linked_role(AWSServiceName=HYPERPOD)["Role"]["RoleName"]
    task = aws.iam.delete_service_linked_role(RoleName=name)["DeletionTaskId"]
    assert task.startswith(f"task/aws-service-role/{HYPERPOD}/{name}/")
    assert aws.iam.get_service_linked_role_deletion_status(DeletionTaskId=task)["Status"] == (
        "SUCCEEDED"
    )
    with refused("NoSuchEntity"):
        aws.iam.get_role(RoleName=name)
    add_role(aws, "ours", Service="eks.amazonaws.com")
    with refused("InvalidInput"):
        aws.iam.delete_service_linked_role(RoleName="ours")


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_the_caller_belongs_to_the_partition_of_the_region(
    stack: Stack, region: str, partition: str
) -> None:
    sts = boto3.client("sts", region_name=region, endpoint_url=stack.endpoint)
    assert sts.get_caller_identity()["Arn"].startswith(f"arn:{partition}:sts::123456789012:")


def statement(effect: str, *actions: str, resource: str = "*", **condition: Any) -> dict[str, Any]:
    said = {"Effect": effect, "Action": actions, "Resource": resource}
    return said | ({"Condition": condition} if condition else {})


def document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@pytest.fixture
def session_of(stack: Stack, aws: Clients) -> Callable[..., Callable[[str], Any]]:
    """Return a function that assumes a role with given statements and returns its clients."""

    def made(*statements: dict[str, Any], boundary: str = "") -> Callable[[str], Any]:
        limits: Any = {"PermissionsBoundary": boundary} if boundary else {}
        trusted = trust(AWS="arn:aws:iam::123456789012:root")
        role = aws.iam.create_role(RoleName="r", AssumeRolePolicyDocument=trusted, **limits)["Role"]
        aws.iam.put_role_policy(RoleName="r", PolicyName="p", PolicyDocument=document(*statements))
        key = aws.sts.assume_role(RoleArn=role["Arn"], RoleSessionName="session")["Credentials"]
        session = new_session(key["AccessKeyId"], key["SecretAccessKey"])
        stack.sim.enforce = True
        return lambda service: session.client(
            service,  # type: ignore[call-overload]  # the name is not a literal
            endpoint_url=stack.endpoint,
            region_name=REGION,
        )

    return made


def test_a_session_may_do_what_its_role_may_and_nothing_that_is_denied(
    session_of: Callable[..., Callable[[str], Any]], aws: Clients
) -> None:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    theirs = session_of(
        statement("Allow", "ec2:*"),
        statement("Deny", "ec2:DeleteVpc", resource=f"arn:aws:ec2:*:*:vpc/{vpc}"),
    )
    theirs("ec2").describe_vpcs()
    with refused("UnauthorizedOperation", "with an explicit deny in an identity-based policy"):
        theirs("ec2").delete_vpc(VpcId=vpc)
    with refused("AccessDenied", "because no identity-based policy allows the iam:ListRoles"):
        theirs("iam").list_roles()


def test_a_boundary_is_the_most_that_a_role_may_do(
    session_of: Callable[..., Callable[[str], Any]], aws: Clients
) -> None:
    arn = aws.iam.create_policy(
        PolicyName="boundary",
        PolicyDocument=document(
            statement("Allow", "ec2:Describe*"), statement("Deny", "ec2:DescribeSubnets")
        ),
    )["Policy"]["Arn"]
    theirs = session_of(statement("Allow", "ec2:*"), boundary=arn)
    theirs("ec2").describe_vpcs()
    with refused("UnauthorizedOperation", "because no permissions boundary allows the ec2:CreateV"):
        theirs("ec2").create_vpc(CidrBlock="10.0.0.0/16")
    with refused("UnauthorizedOperation", "with an explicit deny in a permissions boundary"):
        theirs("ec2").describe_subnets()
    results = aws.iam.simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:role/r",
        ActionNames=["ec2:CreateVpc"],
    )["EvaluationResults"]
    assert [each["EvalDecision"] for each in results] == ["implicitDeny"]
    assert results[0]["PermissionsBoundaryDecisionDetail"] == {
        "AllowedByPermissionsBoundary": False
    }


VALUES: tuple[tuple[dict[str, Any], bool], ...] = (
    ({"StringEquals": {"aws:ResourceTag/team": "a"}}, True),
    ({"StringEquals": {"aws:ResourceTag/team": ["b", "a"]}}, True),
    ({"StringEquals": {"aws:ResourceTag/team": "A"}}, False),
    ({"StringEqualsIgnoreCase": {"aws:ResourceTag/team": "A"}}, True),
    ({"StringNotEquals": {"aws:ResourceTag/team": "b"}}, True),
    ({"StringNotEquals": {"aws:ResourceTag/none": "b"}}, True),
    ({"StringEqualsIfExists": {"aws:ResourceTag/none": "b"}}, True),
    ({"StringLike": {"aws:ResourceTag/team": "?"}}, True),
    ({"StringNotLike": {"aws:ResourceTag/team": "?"}}, False),
    ({"Null": {"aws:ResourceTag/none": "true"}}, True),
    ({"Null": {"aws:ResourceTag/team": "true"}}, False),
    ({"ArnEquals": {"aws:ResourceTag/arn": "arn:aws:iam::*:policy/x"}}, True),
    ({"ArnNotLike": {"aws:ResourceTag/arn": "arn:aws:iam::*:policy/x"}}, False),
    (
        {
            "StringEquals": {"aws:ResourceTag/team": "a"},
            "StringLike": {"aws:ResourceTag/none": "x"},
        },
        False,
    ),
)


@pytest.mark.parametrize(("condition", "met"), VALUES, ids=map(str, range(len(VALUES))))
def test_conditions_are_compared_as_iam_does(
    session_of: Callable[..., Callable[[str], Any]],
    aws: Clients,
    condition: dict[str, Any],
    *,
    met: bool,
) -> None:
    tags = [
        {"Key": "team", "Value": "a"},
        {"Key": "arn", "Value": "arn:aws:iam::123456789012:policy/x"},
    ]
    vpc = aws.ec2.create_vpc(
        CidrBlock="10.0.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
    )["Vpc"]["VpcId"]
    theirs = session_of(statement("Allow", "ec2:DeleteVpc", **condition))
    if met:
        theirs("ec2").delete_vpc(VpcId=vpc)
    else:
        with refused("UnauthorizedOperation"):
            theirs("ec2").delete_vpc(VpcId=vpc)


def test_a_bounded_or_denied_nodes_role_may_do_less(stack: Stack, aws: Clients) -> None:
    """The permissions boundary also limits a role that a service uses."""
    arn = aws.iam.create_policy(
        PolicyName="boundary", PolicyDocument=document(statement("Allow", "s3:*"))
    )["Policy"]["Arn"]
    for name, limits, more in (
        ("free", {}, ()),
        ("bounded", {"PermissionsBoundary": arn}, ()),
        ("free-too", {"PermissionsBoundary": "arn:aws:iam::aws:policy/PowerUserAccess"}, ()),
        ("denied", {}, (statement("Deny", "ec2:Detach*"),)),
    ):
        made = aws.iam.create_role(
            RoleName=name,
            AssumeRolePolicyDocument=trust(Service="sagemaker.amazonaws.com"),
            **limits,
        )["Role"]["Arn"]
        text = document(statement("Allow", "ec2:*"), *more)
        aws.iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=text)
        role = roles.find(made)
        assert role
        assert roles.allows(role, "ec2:DetachNetworkInterface") is name.startswith("free")
        assert roles.allows(role, "ec2:DescribeVpcs") is (name != "bounded")


def test_a_session_ends_with_its_roles_limit_or_after_an_hour(stack: Stack, aws: Clients) -> None:
    trusted = trust(AWS="arn:aws:iam::123456789012:root")
    role = aws.iam.create_role(
        RoleName="r", AssumeRolePolicyDocument=trusted, MaxSessionDuration=7200
    )["Role"]["Arn"]
    aws.iam.create_user(UserName="u")
    key = aws.iam.create_access_key(UserName="u")["AccessKey"]
    user = new_session(key["AccessKeyId"], key["SecretAccessKey"]).client(
        "sts", endpoint_url=stack.endpoint, region_name=REGION
    )
    asked: Any = {"RoleArn": role, "RoleSessionName": "session"}
    user.assume_role(**asked, DurationSeconds=7200)
    with refused("ValidationError", "exceeds the MaxSessionDuration set for this role"):
        user.assume_role(**asked, DurationSeconds=7201)
    aws.sts.assume_role(**asked, DurationSeconds=3600)
    with refused("ValidationError", "the 1 hour session limit for roles assumed by role chaining"):
        aws.sts.assume_role(**asked, DurationSeconds=3601)
