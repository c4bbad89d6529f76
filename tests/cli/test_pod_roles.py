"""Roles for pods: those that add-ons need, and those of ``pod_identity``."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.config.load import load
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws import eks_addons, eks_data
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.helm_release import ChartRelease
from hyperpod_eks.resources.trust import trust
from hyperpod_eks.stack import stack
from tests.conftest import Clients, User

OPERATOR = "amazon-sagemaker-hyperpod-training-operator"
S3 = "aws-mountpoint-s3-csi-driver"
POLICY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
WRITE = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::results/*"}


def write(user: User, **settings: Any) -> tuple[str, ...]:
    """Write a config; return the options that name it."""
    document = {
        "name": "demo", "region": "us-west-2", "chart": {"path": str(CHART)}, **settings
    }  # fmt: skip
    (user.folder / "c.yaml").write_text(json.dumps(document))
    return "-f", "c.yaml"


def associations(aws: Clients) -> dict[str, Any]:
    """Return the associations of the cluster by namespace and service account."""
    found = aws.eks.list_pod_identity_associations(clusterName="demo")["associations"]
    about = [
        aws.eks.describe_pod_identity_association(
            clusterName="demo", associationId=each["associationId"]
        )["association"]
        for each in found
    ]
    return {f"{each['namespace']}/{each['serviceAccount']}": each for each in about}


def allowed(aws: Clients, arn: str) -> tuple[set[str], list[dict[str, Any]]]:
    """Return AWS's policies of a role by name, and the statements of the others."""
    managed, statements = set(), []
    name = arn.rpartition("/")[2]
    for each in aws.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        if ":iam::aws:" in each["PolicyArn"]:
            managed.add(each["PolicyName"])
            continue
        policy = aws.iam.get_policy(PolicyArn=each["PolicyArn"])["Policy"]
        version = aws.iam.get_policy_version(
            PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"]
        )
        statements += version["PolicyVersion"]["Document"]["Statement"]
    return managed, statements


def test_the_observability_addon_s_role_is_for_this_cluster_s_pods_alone(
    user: User, aws: Clients
) -> None:
    addon = "amazon-sagemaker-hyperpod-observability"
    words = write(user, addons={addon: {}})
    said = user.types("create", *words)
    assert said.code == 0, said.err
    (found,) = associations(aws).values()
    name = found["roleArn"].rpartition("/")[2]

    def condition() -> Any:
        document = aws.iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
        return document["Statement"][0].get("Condition")

    cluster = aws.eks.describe_cluster(name="demo")["cluster"]["arn"]
    same = {"aws:SourceAccount": cluster.split(":")[4], "aws:SourceArn": cluster}
    assert condition() == {"StringEquals": same}
    assert user.types("plan", *words, "--detailed-exitcode").code == 0
    open_ = json.dumps(trust("pods.eks.amazonaws.com"))
    aws.iam.update_assume_role_policy(RoleName=name, PolicyDocument=open_)
    assert user.types("create", *words).code == 0
    assert condition() == {"StringEquals": same}


def test_the_status_lists_add_ons_and_not_their_associations(user: User) -> None:
    words = write(user, addons={"cert-manager": {}, OPERATOR: {}})
    assert user.types("create", *words).code == 0
    document = user.types("status", *words, "-o", "json").document

    (step,) = (each for each in document["steps"] if each["name"] == "addons")
    names = {each["name"] for each in document["addons"]}
    others = {each["name"] for each in step["resources"]} - names
    assert {"vpc-cni", "cert-manager", OPERATOR} < names
    assert others == {f"{OPERATOR}-hp-training-operator-controller-manager"}
    assert {each["status"] for each in document["addons"]} == {"ACTIVE"}
    assert "absent" not in user.types("status", *words).out


def test_addons_get_the_roles_that_they_need(user: User, aws: Clients) -> None:
    addons = {
        "cert-manager": {},
        "aws-ebs-csi-driver": {},
        "aws-efs-csi-driver": {},
        "aws-fsx-csi-driver": {},
        S3: {"buckets": ["data", "results"]},
        OPERATOR: {},
    }
    key = "arn:aws:kms:us-west-2:123456789012:key/0123"
    secret = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "secret"},
        "provisioner": "ebs.csi.aws.com", "parameters": {"kmsKeyId": key},
    }  # fmt: skip
    words = write(user, addons=addons, iam={"path": "/team/"}, objects=[secret])
    user.stack.calls.clear()
    said = user.types("create", *words)
    assert said.code == 0, said.err

    found = associations(aws)
    assert sorted(found) == [
        "aws-hyperpod/hp-training-operator-controller-manager",
        "kube-system/ebs-csi-controller-sa",
        "kube-system/efs-csi-controller-sa",
        "kube-system/fsx-csi-controller-sa",
        "kube-system/s3-csi-driver-sa",
    ]
    rights = {account: allowed(aws, each["roleArn"]) for account, each in found.items()}
    managed = {account.partition("/")[2]: names for account, (names, _) in rights.items()}
    assert managed == {
        "hp-training-operator-controller-manager": {
            "AmazonSageMakerHyperPodTrainingOperatorAccess"
        },
        "ebs-csi-controller-sa": {"AmazonEBSCSIDriverPolicy"},
        "efs-csi-controller-sa": {"AmazonEFSCSIDriverPolicy"},  # as EKS recommends
        "fsx-csi-controller-sa": set(),
        "s3-csi-driver-sa": set(),
    }
    actions = {
        account.partition("/")[2]: {action for each in rows for action in each["Action"]}
        for account, (_, rows) in rights.items()
    }
    assert actions["ebs-csi-controller-sa"] == {
        "sagemaker:AttachClusterNodeVolume", "sagemaker:DetachClusterNodeVolume",
        "eks:DescribeCluster",
        "kms:CreateGrant", "kms:ListGrants", "kms:RevokeGrant", "kms:Decrypt", "kms:DescribeKey",
        "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*",
    }  # fmt: skip
    keyed = [row for row in rights["kube-system/ebs-csi-controller-sa"][1] if "Sid" not in row]
    assert [row["Resource"] for row in keyed if "kms" in repr(row)] == [[key], [key]]
    assert "fsx:CreateFileSystem" in actions["fsx-csi-controller-sa"]
    listing, objects = rights["kube-system/s3-csi-driver-sa"][1]
    assert listing["Resource"] == ["arn:aws:s3:::data", "arn:aws:s3:::results"]
    assert objects["Resource"] == ["arn:aws:s3:::data/*", "arn:aws:s3:::results/*"]
    role = aws.iam.get_role(RoleName=found["kube-system/efs-csi-controller-sa"]["roleArn"]
        .rpartition("/")[2])["Role"]  # fmt: skip
    assert role["Path"] == "/team/"
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert statement["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    # the operator's version takes no associations of its own, the drivers' versions do
    owners = {account: bool(each.get("ownerArn")) for account, each in found.items()}
    assert [each for each, owned in owners.items() if not owned] == [
        "aws-hyperpod/hp-training-operator-controller-manager"
    ]

    user.stack.calls.clear()
    again = user.types("create", *words)
    asked = [call.operation for call in user.stack.calls]
    assert (again.code, user.mutations()) == (0, []), again.err
    assert asked.count("DescribeAddonConfiguration") == 1  # of the EFS driver

    # the driver's buckets change, an add-on goes with its role, another gets none
    del addons["aws-ebs-csi-driver"]
    addons[S3] = {"buckets": ["data"]}
    addons["aws-efs-csi-driver"] = {"pod_identity_associations": []}
    assert user.types("create", *write(user, addons=addons, iam={"path": "/team/"})).code == 0
    now = associations(aws)
    assert sorted(now) == [
        "aws-hyperpod/hp-training-operator-controller-manager",
        "kube-system/fsx-csi-controller-sa",
        "kube-system/s3-csi-driver-sa",
    ]
    _, (listing, _) = allowed(aws, now["kube-system/s3-csi-driver-sa"]["roleArn"])
    assert listing["Resource"] == ["arn:aws:s3:::data"]
    names = [each["RoleName"] for each in aws.iam.list_roles(PathPrefix="/team/demo")["Roles"]]
    assert not [each for each in names if "ebs" in each or "efs" in each]

    gone = user.types("delete", "demo", "--yes")
    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err
    assert [each for each in aws.iam.list_roles()["Roles"] if each["RoleName"] != "Admin"
            and "aws-service-role" not in each["Path"]] == []  # fmt: skip


@pytest.mark.prove
def test_an_addon_of_an_earlier_version_gets_its_role_as_a_planned_change(
    user: User, aws: Clients
) -> None:
    """Earlier versions declared no roles for it, as ``[]`` does."""
    before = write(user, addons={"aws-efs-csi-driver": {"pod_identity_associations": []}})
    assert user.types("create", *before).code == 0
    assert associations(aws) == {}

    words = write(user, addons={"aws-efs-csi-driver": {}})
    rows = user.types("plan", *words, "-o", "json").document["resources"]
    assert {
        row["key"]: (row["action"], row["why"]) for row in rows if row["action"] != "keep"
    } == {
        "iam/kube-system/efs-csi-controller-sa-role": (
            "create", "for the pods of the service account kube-system/efs-csi-controller-sa",
        ),
        "addons/aws-efs-csi-driver": ("change", ""),
    }  # fmt: skip
    assert user.types("create", *words).code == 0
    assert list(associations(aws)) == ["kube-system/efs-csi-controller-sa"]
    # without a file, the config that create has kept says the same
    assert user.types("plan", "demo", "--detailed-exitcode").code == 0


def test_a_service_account_with_a_role_of_others_stops_create_before_the_first_change(
    user: User, aws: Clients
) -> None:
    """With earlier versions, an association by hand was the way to give an add-on a role."""
    name, account = "aws-efs-csi-driver", "efs-csi-controller-sa"
    none: dict[str, Any] = {name: {"pod_identity_associations": []}}
    assert user.types("create", *write(user, addons=none)).code == 0
    document = json.dumps(trust("pods.eks.amazonaws.com"))
    role = aws.iam.create_role(RoleName="theirs", AssumeRolePolicyDocument=document)["Role"]
    made = aws.eks.create_pod_identity_association(
        clusterName="demo", namespace="kube-system", serviceAccount=account, roleArn=role["Arn"]
    )["association"]
    user.mutations()
    said = user.types("create", *write(user, addons={name: {}}))
    assert (said.code, user.mutations()) == (3, []), said.err
    assert f"{account} in kube-system has a role already, by the association" in said.err
    assert f"--association-id {made['associationId']}" in said.err
    assert user.types("create", *write(user, addons=none)).code == 0
    assert associations(aws)[f"kube-system/{account}"]["roleArn"] == role["Arn"]


def silent(answer: Any) -> Any:
    """Return a DescribeAddonConfiguration whose recommendation is ``answer``."""
    real = eks_addons.configuration

    def configuration(request: dict[str, Any]) -> dict[str, Any]:
        found = real(request)
        del found["podIdentityConfiguration"]
        return found if answer is ... else found | {"podIdentityConfiguration": answer}

    return configuration


ACCOUNT = {"serviceAccount": "efs-csi-controller-sa"}


@pytest.mark.parametrize(
    "answer",
    [..., None, [], [ACCOUNT], [ACCOUNT | {"recommendedManagedPolicies": []}], "denied"],
    ids=["missing", "null", "empty", "no policies", "empty policies", "denied"],
)
def test_what_eks_does_not_recommend_is_not_guessed(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    if answer == "denied":
        no = Fault(
            "eks", "DescribeAddonConfiguration", "AccessDeniedException", 403, "no", count=99
        )
        user.stack.faults.append(no)
    else:
        monkeypatch.setattr(eks_addons, "configuration", silent(answer))
    words = write(user, addons={"aws-efs-csi-driver": {}})

    said = user.types("plan", *words, "-o", "json")

    assert said.code == 0
    assert not [row for row in said.document["resources"] if row["key"].endswith("-sa-role")]
    assert "addons.aws-efs-csi-driver: no role is created for its pods: EKS" in said.err
    assert "set addons.aws-efs-csi-driver.pod_identity_associations" in said.err


def test_a_role_is_not_deleted_because_eks_no_longer_recommends_it(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = write(user, addons={"aws-efs-csi-driver": {}})
    assert user.types("create", *words).code == 0
    monkeypatch.setattr(eks_addons, "configuration", silent([]))
    user.stack.calls.clear()

    said = user.types("create", *words, "--yes")

    assert said.code == 2
    assert "which roles its pods need is not known" in said.err
    assert user.mutations() == []
    assert list(associations(aws)) == ["kube-system/efs-csi-controller-sa"]
    gone = user.types("delete", "demo", "--yes")
    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err


@pytest.mark.prove
def test_associations_stay_as_they_were_created(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EKS's default version changes with time, and the add-on's own version does not."""
    words = write(user, addons={"cert-manager": {}, OPERATOR: {}, "aws-efs-csi-driver": {}})
    assert user.types("create", *words).code == 0
    before = associations(aws)
    kind = replace(eks_data.ADDONS[OPERATOR], pod_identity=True)
    monkeypatch.setitem(eks_data.ADDONS, OPERATOR, kind)
    user.stack.calls.clear()
    said = user.types("create", *words)
    assert (said.code, user.mutations()) == (0, []), said.err

    kind = replace(eks_data.ADDONS["aws-efs-csi-driver"], pod_identity=False)
    monkeypatch.setitem(eks_data.ADDONS, "aws-efs-csi-driver", kind)
    said = user.types("create", *words)
    assert (said.code, user.mutations()) == (2, [])
    assert "EKS no longer says that it needs any" in said.err
    assert user.types("status", "demo").code == 0
    assert associations(aws) == before


@pytest.fixture
def role(aws: Clients) -> str:
    """An existing role that pods can assume."""
    document = json.dumps(trust("pods.eks.amazonaws.com"))
    answer = aws.iam.create_role(RoleName="Reader", AssumeRolePolicyDocument=document)
    return str(answer["Role"]["Arn"])


def test_workloads_get_roles_by_namespace_and_service_account(
    user: User, aws: Clients, role: str
) -> None:
    trainer = {"namespace": "team-a", "service_account": "trainer"}
    reader = {"namespace": "team-b", "service_account": "reader"}
    both = [
        trainer | {"policies": [POLICY], "statements": [WRITE]},
        reader | {"role_arn": role},
    ]
    words = write(user, pod_identity=both)
    assert user.types("create", *words).code == 0
    found = associations(aws)
    assert sorted(found) == ["team-a/trainer", "team-b/reader"]
    assert found["team-b/reader"]["roleArn"] == role
    assert allowed(aws, found["team-a/trainer"]["roleArn"]) == (
        {"AmazonS3ReadOnlyAccess"}, [WRITE],
    )  # fmt: skip
    status = user.types("status", "demo", "-o", "json").document
    addons = next(each for each in status["steps"] if each["name"] == "addons")
    assert "team-a/trainer" in [each["name"] for each in addons["resources"]]
    user.stack.calls.clear()
    assert user.types("create", *words).code == 0
    assert user.mutations() == []

    # a role of ours replaces theirs, which stays; the other's permissions change; one goes
    changed = [reader | {"policies": [POLICY]}]
    late = "Role provided in the request does not exist: x"  # EKS does not see a new role at once
    code = "InvalidParameterException"
    user.stack.faults.append(Fault("eks", "UpdatePodIdentityAssociation", code, 400, late))
    assert user.types("create", *write(user, pod_identity=changed)).code == 0
    assert aws.iam.get_role(RoleName="Reader")
    (found,) = associations(aws).values()
    assert found["roleArn"].endswith("role/demo-team-b.reader-us-west-2")
    assert len(aws.iam.list_policies(Scope="Local")["Policies"]) == 1  # the nodes'
    gone = user.types("delete", "demo", "--yes")
    assert (gone.code, "nothing remains" in gone.out) == (0, True), gone.err
    assert aws.iam.get_role(RoleName="Reader")


def test_a_service_account_of_an_addon_has_one_role(user: User) -> None:
    mine = {
        "namespace": "kube-system", "service_account": "efs-csi-controller-sa", "policies": [POLICY]
    }  # fmt: skip
    words = write(user, addons={"aws-efs-csi-driver": {}}, pod_identity=[mine])
    said = user.types("plan", *words)
    assert said.code == 2
    assert "efs-csi-controller-sa in kube-system is the add-on aws-efs-csi-driver's" in said.err
    none: dict[str, Any] = {"pod_identity_associations": []}
    words = write(user, addons={"aws-efs-csi-driver": none}, pod_identity=[mine])
    assert user.types("plan", *words).code == 0


def test_the_policy_allows_what_the_roles_take(user: User, role: str) -> None:
    words = write(
        user,
        account="123456789012",
        addons={"aws-fsx-csi-driver": {}, "aws-efs-csi-driver": {}},
        pod_identity=[{"namespace": "a", "service_account": "b", "role_arn": role}],
    )
    said = user.types("policy", *words, "-o", "json")
    assert said.code == 0, said.err
    rows = {
        row["Sid"]: row
        for policy in said.document["policies"]
        for row in policy["document"]["Statement"]
    }
    ours = "arn:aws:iam::123456789012:role/demo-kube-system"
    roles = [f"{ours}.{each}-csi-controller-sa-us-west-2" for each in ("efs", "fsx")]
    assert set(rows["PodRolesPass"]["Resource"]) == {*roles, role}
    assert rows["PodRolesAttach"]["Condition"]["ArnEquals"]["iam:PolicyARN"] == [
        "arn:aws:iam::aws:policy/service-role/AmazonEFSCSIDriverPolicy",  # as EKS recommends
        "arn:aws:iam::123456789012:policy/demo-kube-system.fsx-csi-controller-sa-us-west-2",
    ]
    assert set(roles) < set(rows["RolesMake"]["Resource"])


def test_a_chart_is_installed_after_the_roles_of_its_pods() -> None:
    """Pods that start before their association get no credentials."""
    here = {"namespace": "app", "service_account": "app", "policies": [POLICY]}
    settings = {
        "name": "demo",
        "region": "us-west-2",
        "charts": {"app": {"chart": "oci://example.com/app", "version": "1.0.0"}},
        "pod_identity": [here, here | {"namespace": "other"}],
    }
    identity = Identity("", "123456789012", "aws", "us-west-2")
    config = load(settings, {}, {}, files=False)
    wants = stack(ResolvedConfig(config, identity, ("usw2-az1", "usw2-az2"), {}, "1.35"))
    release = next(each for each in wants if isinstance(each, ChartRelease))
    assert [each.key for each in release.needs() if "/app/" in each.key] == ["addons/app/app"]
    assert "addons/other/app" in {each.key for each in wants}
