"""The output of `policy` is sufficient from create to delete, and every statement is necessary."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hyperpod_eks import adoption as existing
from hyperpod_eks.aws.client import Identity
from hyperpod_eks.config.load import load
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import ACCOUNT
from hyperpod_eks.policy import statements as policy
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.permissions import Statement
from tests.conftest import REGION, Clients, Said, User, apply

PACKAGE = Path(policy.__file__).parents[1]
S3 = {
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
}
"""Actions whose name differs from the operation (S3 User Guide, "Policy actions")."""


def resolved(**settings: Any) -> ResolvedConfig:
    config = load({"name": "demo", "region": REGION, **settings}, {}, {}, files=False)
    adopted = existing.named(config)
    here = Identity("", ACCOUNT, "aws", REGION)
    return ResolvedConfig(config, here, existing.UNKNOWN_ZONES, {}, "", adopted=adopted)


ROWS = policy.statements(resolved())
PRICES = "pricing.GetProducts"
"""Policies leave it out: without it the table of prices counts."""


class Operator:
    """An IAM user with some policies, who runs commands in the user's folder."""

    def __init__(self, user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
        self.user, self._aws, self._patch = user, aws, monkeypatch
        aws.iam.create_user(UserName="operator")
        self._key = aws.iam.create_access_key(UserName="operator")["AccessKey"]

    def may(self, documents: list[policy.Policy]) -> None:
        """Replace the attached policies; they are managed ones, which IAM limits in size."""
        for each in self._aws.iam.list_attached_user_policies(UserName="operator")[
            "AttachedPolicies"
        ]:
            self._aws.iam.detach_user_policy(UserName="operator", PolicyArn=each["PolicyArn"])
            self._aws.iam.delete_policy(PolicyArn=each["PolicyArn"])
        for number, document in enumerate(documents):
            arn = self._aws.iam.create_policy(
                PolicyName=f"operator-{number}", PolicyDocument=json.dumps(document)
            )["Policy"]["Arn"]
            self._aws.iam.attach_user_policy(UserName="operator", PolicyArn=arn)

    def types(self, *words: str) -> Said:
        """Run a command with this user's key; the stack checks the permissions of every call."""
        with self._patch.context() as patch:
            key = (self._key["AccessKeyId"], self._key["SecretAccessKey"])
            names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            apply(patch, dict(zip(names, key, strict=True)))
            self.user.stack.sim.enforce = True
            try:
                return self.user.types(*words)
            finally:
                self.user.stack.sim.enforce = False

    def refused(self) -> list[str]:
        """Return the denied calls."""
        return [f"{c.service}.{c.operation}" for c in self.user.stack.calls if c.status == 403]


@pytest.fixture
def operator(user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch) -> Operator:
    return Operator(user, aws, monkeypatch)


def left_behind(aws: Clients) -> None:
    """Create the leftovers of Kubernetes, EKS, the VPC CNI and GuardDuty in the cluster's VPC."""
    tag = [{"Name": "tag:hyperpod-eks:cluster", "Values": ["demo"]}]
    vpc = aws.ec2.describe_vpcs(Filters=tag)["Vpcs"][0]["VpcId"]
    subnets = aws.ec2.describe_subnets(Filters=tag)["Subnets"]
    private = [s["SubnetId"] for s in subnets if not s["MapPublicIpOnLaunch"]][:2]

    def tagged(kind: str, key: str, value: str) -> list[dict[str, Any]]:
        return [{"ResourceType": kind, "Tags": [{"Key": key, "Value": value}]}]

    owned = ("kubernetes.io/cluster/demo", "owned")
    for name, (key, value) in (
        ("eks-cluster-sg-demo-1", owned),
        (f"GuardDutyManagedSecurityGroup-{vpc}", ("GuardDutyManaged", "true")),
    ):
        aws.ec2.create_security_group(
            GroupName=name,
            Description="left",
            VpcId=vpc,
            TagSpecifications=tagged("security-group", key, value),
        )
    aws.ec2.create_network_interface(SubnetId=private[0], Description="aws-K8S-i-0123")
    aws.ec2.create_volume(
        AvailabilityZone="us-west-2a", Size=1, TagSpecifications=tagged("volume", *owned)
    )
    aws.elbv2.create_load_balancer(
        Name="left",
        Type="network",
        Subnets=private,
        Tags=[{"Key": "elbv2.k8s.aws/cluster", "Value": "demo"}],
    )


@pytest.mark.prove
def test_the_policies_carry_the_whole_life(operator: Operator, aws: Clients) -> None:
    document = operator.user.types("policy", "demo", "-o", "json").document
    assert all(each["characters"] <= policy.LIMIT for each in document["policies"])
    operator.may([each["document"] for each in document["policies"]])

    for words in (
        ("preflight", "demo", "--chart", str(CHART)),
        ("create", "demo", "--chart", str(CHART)),
        ("create", "demo"),
        ("status", "demo"),
    ):
        assert operator.types(*words).code == 0, words
    left_behind(aws)
    assert operator.types("delete", "demo", "--yes").code == 0
    # an identity that may not list kinds that its cluster never had needs no more permissions, and
    # a config without the driver does not say that volumes are tagged
    some = {"fsx.DescribeFileSystems", "ecr.DescribeRepositories", "ec2.CreateTags", PRICES}
    assert {*operator.refused()} <= some


@pytest.mark.prove
def test_the_policies_carry_roles_for_pods(operator: Operator) -> None:
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
    settings: dict[str, Any] = {
        "name": "demo",
        "region": REGION,
        "chart": {"path": str(CHART)},
        "addons": {"aws-efs-csi-driver": {}, "aws-fsx-csi-driver": {}},
        "operators": ["training"],
        "pod_identity": [{"namespace": "a", "service_account": "b", "statements": [allow]}],
    }
    file = operator.user.folder / "pods.yaml"
    file.write_text(json.dumps(settings))
    document = operator.user.types("policy", "-f", file.name, "-o", "json").document
    operator.may([each["document"] for each in document["policies"]])

    assert operator.types("create", "-f", file.name).code == 0
    settings["pod_identity"][0]["statements"][0]["Action"] = "s3:PutObject"
    file.write_text(json.dumps(settings))
    assert operator.types("create", "-f", file.name).code == 0
    assert operator.types("status", "demo").code == 0
    assert operator.types("delete", "demo", "--yes").code == 0
    assert [each for each in operator.refused() if each.startswith(("iam.", "eks."))] == []


ON_AWS_ALONE = {"QuotasLook", "QuotasDelete"}
"""Statements that delete needs after task governance, which the embedded stack does not have."""
TOLERATED = {"HoldersLook"}
"""Statements for a message about blockers: a denial only changes its text."""
QUICK = {"NetworkMake", "NetworkDelete"}
"""A statement of each command for `make test`; the others are in the long proof."""


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=row.sid, marks=[] if row.sid in QUICK else pytest.mark.prove)
        for row in ROWS
        if row.sid not in ON_AWS_ALONE | TOLERATED
    ],
)
def test_without_a_statement_something_fails(
    operator: Operator, aws: Clients, row: Statement
) -> None:
    words = ["create", "demo", "--chart", str(CHART), "--skip", "permissions"]
    if row.command == "delete":
        operator.may(policy.documents(ROWS))
        assert operator.types(*words).code == 0
        left_behind(aws)
        words = ["delete", "demo", "--yes"]
    operator.may(policy.documents(other for other in ROWS if other is not row))

    said = operator.types(*words)

    assert said.code == 3, said.err
    assert operator.refused()
    named = r'"Effect": "Allow", "Action": "[\w:]+", "Resource": "|Allow s3:\w+ on arn:aws:s3:::'
    assert re.search(named, said.err), said.err


@pytest.mark.prove
@pytest.mark.parametrize("row", [ROWS[1], ROWS[8]], ids=lambda row: row.sid)
def test_the_preflight_names_what_a_missing_statement_allows(
    operator: Operator, row: Statement
) -> None:
    operator.may(policy.documents(other for other in ROWS if other is not row))

    said = operator.types("preflight", "demo", "--chart", str(CHART), "-o", "json")

    found = {one["id"]: one for one in said.document["findings"]}
    assert set(found) == {"permissions"}
    assert found["permissions"]["seen"]["actions"] == sorted(row.actions)


def test_a_condition_about_the_caller_is_not_called_a_denial(operator: Operator) -> None:
    documents = policy.documents(ROWS)
    for statement in (x for document in documents for x in document["Statement"]):
        if statement["Sid"] == "NetworkMake":
            statement["Condition"] = {"StringEquals": {"aws:PrincipalTag/team": "ml"}}
    operator.may(documents)

    said = operator.types("preflight", "demo", "--chart", str(CHART), "-o", "json")

    (one,) = said.document["findings"]
    assert (said.code, one["severity"]) == (0, "warning")
    assert "a policy has a condition on aws:PrincipalTag/team" in one["says"]
    assert "ec2:CreateVpc" in one["seen"]["actions"]


def test_every_operation_of_the_steps_is_allowed() -> None:
    """Operations that no test calls are found in the source."""
    call = re.compile(
        r"\b(ec2|ec2_once|eks|iam|s3|logs|sagemaker|elbv2|elb)\."
        r"((?:get|list|describe|create|delete|put|update|attach|detach|modify|associate|"
        r"disassociate|authorize|revoke|tag|add|release|allocate|replace|abort)_\w+)"
    )
    named = {
        "".join(word.capitalize() for word in match[2].split("_"))
        for folder in ("resources", "steps")
        for file in (PACKAGE / folder).rglob("*.py")
        for match in call.finditer(file.read_text())
    } - {"GetPaginator"}
    role = {"service_account": "a", "role_arn": "arn:aws:iam::123456789012:role/pods"}
    addons = {"vpc-cni": {"pod_identity_associations": [role]}, "aws-ebs-csi-driver": {}}
    rows = policy.statements(resolved(addons=addons, teams={"a": {}}, operators=["inference"]))
    allowed = {action.partition(":")[2].lower() for row in rows for action in row.actions}
    assert len(named) > 60
    assert sorted(n for n in named if S3.get(n, n).lower() not in allowed) == []


def test_statements_follow_the_configuration() -> None:
    key = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1234"
    rows = {
        row.sid: row
        for row in policy.statements(resolved(encryption={"bucket": key}, iam={"path": "/team/"}))
    }
    assert rows["Keys"].resources == (key,)
    assert f"arn:aws:iam::{ACCOUNT}:role/team/demo-eks-{REGION}" in rows["RolesMake"].resources
    assert "Keys" not in {row.sid for row in ROWS}
    role = {"service_account": "a", "role_arn": f"arn:aws:iam::{ACCOUNT}:role/pods"}
    addons = {"vpc-cni": {"pod_identity_associations": [role]}}
    rows = {row.sid: row for row in policy.statements(resolved(addons=addons))}
    assert rows["PodRolesPass"].resources == (role["role_arn"],)
    assert {"PodRoles", "PodRolesPass"} & {row.sid for row in ROWS} == set()


THEIRS = {
    "subnets": (
        {"vpc": "vpc-01234567", "private_subnets": ["subnet-01234567", "subnet-12345678"]},
        {"SecurityGroup"},
    ),
    "a VPC": ({"vpc": "vpc-01234567"}, {"Subnet", "NatGateway", "RouteTable", "SecurityGroup"}),
    "an EKS cluster": ({"eks_cluster": "platform"}, set()),
}


@pytest.mark.parametrize("what", THEIRS)
def test_an_existing_network_makes_statements_needless(what: str) -> None:
    settings, made = THEIRS[what]

    rows = {row.sid: row.actions for row in policy.statements(resolved(existing=settings))}

    created = {each.partition(":Create")[2] for each in rows.get("NetworkMake", ())} - {""}
    assert made <= created
    assert "Vpc" not in created
    assert bool(made) == ("NetworkChange" in rows)
    if what == "subnets":
        assert created == made
        assert rows["NetworkDelete"] == ("ec2:DeleteSecurityGroup",)


def test_roles_that_exist_are_passed_on_and_never_changed() -> None:
    there = f"arn:aws:iam::{ACCOUNT}:role/team/gpu"
    group = {"name": "g", "instance_type": "ml.m5.2xlarge", "instance_count": 1}
    ours = resolved(instance_groups=[group | {"execution_role": there}])

    rows = {r.sid: r for r in policy.statements(replace(ours, adopted={"iam/cluster-role": "x"}))}

    assert rows["RolesMake"].resources == (f"arn:aws:iam::{ACCOUNT}:role/demo-hyperpod-{REGION}",)
    assert set(rows["RolesPass"].resources) == {
        *rows["RolesMake"].resources,
        f"arn:aws:iam::{ACCOUNT}:role/*x",
        there,
    }
    both = {"iam/cluster-role": "x", "iam/execution-role": "y"}
    sids = {row.sid for row in policy.statements(replace(ours, adopted=both))}
    assert sids.isdisjoint({"RolesMake", "RolesAttach", "RolesDelete", "NodePolicyMake"})


def test_the_role_of_an_existing_eks_cluster_is_not_passed_on() -> None:
    """Preflight knows the role and `policy` does not, but both must have the same statement."""
    printed = resolved(existing={"eks_cluster": "platform"})
    seen = replace(printed, adopted={**printed.adopted, "iam/cluster-role": "somebodys"})
    for rows in map(policy.statements, (printed, seen)):
        (transient,) = [row for row in rows if row.sid == "RolesPass"]
        assert transient.resources == (f"arn:aws:iam::{ACCOUNT}:role/demo-hyperpod-{REGION}",)
        assert transient.condition["StringEquals"] == {
            "iam:PassedToService": ["sagemaker.amazonaws.com"]
        }


@pytest.mark.prove
def test_the_policies_carry_file_systems_with_their_data(operator: Operator) -> None:
    link = {"file_system_path": "/a", "data_repository_path": "s3://bucket/a"}
    storage = {"fsx_lustre": {"data": {"s3": [link]}}}
    operator.may(policy.documents(policy.statements(resolved(storage=storage))))
    config = {"name": "demo", "region": REGION, "storage": storage}
    (operator.user.folder / "c.yaml").write_text(json.dumps(config))
    words = ("create", "-f", "c.yaml", "--chart", str(CHART))
    for said in (
        operator.types(*words),
        operator.types(*words),
        operator.types("delete", "demo", "--yes"),
        operator.types("delete", "demo", "--yes", "--delete-data"),
    ):
        assert said.code == 0, said.err
    # it has mirrored no images: delete asks nevertheless, and a refusal means none
    assert {*operator.refused()} <= {"ecr.DescribeRepositories", PRICES}


def test_no_policy_is_larger_than_iam_takes() -> None:
    group = {"instance_type": "ml.m5.2xlarge", "instance_count": 1}
    roles = [f"arn:aws:iam::{ACCOUNT}:role/{'team/' * 8}nodes-{number}" for number in range(99)]
    groups = [
        group | {"name": f"g{number}", "execution_role": role} for number, role in enumerate(roles)
    ]

    documents = policy.documents(policy.statements(resolved(instance_groups=groups)))

    assert max(map(policy.size, documents)) <= 6144
    statements = [each for document in documents for each in document["Statement"]]
    assert len({each["Sid"] for each in statements}) == len(statements)
    passed = [each["Resource"] for each in statements if each["Sid"].startswith("RolesPass")]
    assert set(roles) < {arn for several in passed for arn in several}


def test_without_an_account_nothing_is_asked_of_aws(user: User) -> None:
    Path("cluster.yaml").write_text('name: demo\naccount: "111122223333"\n')

    said = user.types("policy", "-f", "cluster.yaml")

    assert said.code == 0
    assert "arn:aws:iam::111122223333:role/demo-eks-us-west-2" in said.out
    assert user.stack.calls == []
