"""`plan` shows exactly what `create` then does, resource by resource, and changes nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks.aws.client import read_only
from hyperpod_eks.helm import chart
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Call, Fault
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.terminal.plan import render
from tests.conftest import Clients, User, at_work, changes, in_a_copy, new_aws

SNAPSHOTS = Path(__file__).with_name("snapshots")
PLANNED = ("create", "change", "replace", "delete")
NOBODY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}],
    }
)


def same(file: Path, text: str) -> None:
    """Compare with the snapshot; UPDATE_SNAPSHOTS=1 writes it instead: review the diff."""
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.write_text(text)
    assert text == file.read_text()


def plan(user: User, *words: str) -> dict[str, Any]:
    """Plan demo; check that nothing has changed, neither in AWS nor locally."""
    files = sorted(user.folder.rglob("*"))
    user.mutations()
    said = user.types("plan", "demo", "--chart", str(CHART), *words, "-o", "json")
    assert said.code == 0, said.err
    assert user.mutations() == []
    assert sorted(user.folder.rglob("*")) == files
    document: dict[str, Any] = said.document
    return document


def actions(document: dict[str, Any]) -> dict[str, str]:
    return {row["key"]: row["action"] for row in document["resources"]}


def done(user: User, *words: str) -> tuple[int, set[str]]:
    """Create demo; return the exit code and the keys of changed resources.

    The keys in events must be equal to those of the mutating calls.
    """
    user.stack.calls.clear()
    ids = recorded(user)
    said = user.types(
        "create", "demo", "--chart", str(CHART), *words, "--events", "events", "-o", "json"
    )
    lines = [json.loads(line) for line in (user.folder / "events").read_text().splitlines()]
    changed = {line["key"] for line in lines if line.get("changed")}
    ids |= recorded(user)
    calls = [each for each in user.stack.calls if changes(each)]
    # the chart is installed through the Kubernetes API
    assert {subject(call, ids) for call in calls} == changed - {"helm/release"}
    return said.code, changed


def recorded(user: User) -> dict[str, str]:
    """Return the manifest's keys by id; roles and policies may share a name."""
    file = user.folder / "demo.hyperpod-eks.json"
    records = json.loads(file.read_text())["resources"] if file.exists() else {}
    return {record["arn"] or record["id"]: key for key, record in records.items()} | {
        record["id"]: key for key, record in records.items() if key != "iam/execution-policy"
    }


SUBJECTS = (
    r"VpcEndpointId=(vpce-\w+)",
    r"RouteTableId=(rtb-\w+)",
    r"InternetGatewayId=(igw-\w+)",
    r"NatGatewayId=(nat-\w+)",
    r"GroupId=(sg-\w+)",
    r"VpcId=(vpc-\w+)",
    r"RoleName=([\w-]+)",
    r"PolicyArn=(arn:aws:iam::\d+:[\w/-]+)",
    r'"logGroupName": "([^"]+)"',
    r"/access-entries/(arn:\S+?)(?:/access-policies|\?)",
)
"""Where a request names its resource, the most specific patterns first."""


def subject(call: Call, ids: Mapping[str, str]) -> str:
    """Return the key of the resource that a call changes, from its request."""
    if call.service == "sagemaker":
        return "hyperpod/cluster"
    if call.service == "s3":
        return "s3/scripts" if "Object" in call.operation else "s3/bucket"
    if call.operation == "CreateServiceLinkedRole":
        return "iam/service-linked-role"
    if addon := re.search(r"^/clusters/demo/addons/([\w-]+)", call.request):
        return f"addons/{addon[1]}"
    if label := re.search(r'hyperpod-eks:label.*?(?:Value"?[=>:]|":)\s*"?([\w-]+)', call.request):
        steps = {"logs": "eks", "ec2": "network"}
        step = steps.get(call.service, call.service)
        step = "addons" if call.operation == "CreateAddon" else step
        return f"{step}/{label[1]}"
    for pattern in SUBJECTS:
        if match := re.search(pattern, call.request):
            return ids[match[1]]
    if call.service == "eks":
        return "eks/cluster"
    raise AssertionError(f"about nothing that we know: {call}")


def planned(document: dict[str, Any]) -> set[str]:
    return {key for key, action in actions(document).items() if action in PLANNED}


def later(user: User) -> None:
    """Let an hour pass, after which absent resources count as deleted."""
    file = user.folder / "demo.hyperpod-eks.json"
    journal = json.loads(file.read_text())
    for record in journal["resources"].values():
        record["since"] -= 3600
    file.write_text(json.dumps(journal))


def test_of_nothing_everything_is_made(user: User) -> None:
    document = plan(user)
    assert set(actions(document).values()) == {"create", "wait"}
    assert [k for k, a in actions(document).items() if a == "wait"] == ["hyperpod/nodes"]
    assert document["changes"] is True
    code, changed = done(user)
    assert (code, changed) == (0, planned(document))


def test_the_critical_path_is_told_and_what_runs_beside_it_is_not(user: User) -> None:
    path = plan(user)["critical_path"]
    assert [each["key"] for each in path if each["seconds"] >= 10] == [
        "eks/cluster",
        "helm/release",
        "hyperpod/cluster",
    ]
    assert path[0]["key"] == "network/vpc"
    assert 1350 < sum(each["seconds"] for each in path) < 1400


def test_deep_health_checks_take_their_time(user: User) -> None:
    group = {"name": "train", "instance_type": "ml.p5.48xlarge", "instance_count": 2}
    group["on_start_deep_health_checks"] = ["InstanceStress"]
    (user.folder / "checked.json").write_text(json.dumps({"instance_groups": [group]}))
    document = plan(user, "-f", "checked.json")
    cluster = document["critical_path"][-1]
    assert (cluster["key"], cluster["seconds"]) == ("hyperpod/cluster", 720 + 75 * 60)
    (row,) = [each for each in document["resources"] if each["key"] == "hyperpod/cluster"]
    assert row["why"] == "usually 10 to 25 min, and 60 to 90 min of deep health checks"


def no_retention(aws: Clients) -> set[str]:
    aws.logs.put_retention_policy(logGroupName="/aws/eks/demo/cluster", retentionInDays=7)
    return {"eks/log-group"}


def no_nat(aws: Clients) -> set[str]:
    (nat,) = aws.ec2.describe_nat_gateways()["NatGateways"]
    aws.ec2.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
    # the route must change to the new one, whose id is unknown
    return {"network/nat-gateway-usw2-az1", "network/private-routes-usw2-az1"}


def no_policies(aws: Clients) -> set[str]:
    role = "demo-hyperpod-us-west-2"
    for policy in aws.iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        aws.iam.detach_role_policy(RoleName=role, PolicyArn=policy["PolicyArn"])
        if ":aws:policy" not in policy["PolicyArn"]:
            aws.iam.delete_policy(PolicyArn=policy["PolicyArn"])
    return {"iam/execution-role", "iam/execution-policy"}


def no_addon(aws: Clients) -> set[str]:
    aws.eks.delete_addon(clusterName="demo", addonName="eks-pod-identity-agent")
    return {"addons/eks-pod-identity-agent"}


def no_rules(aws: Clients) -> set[str]:
    found = aws.ec2.describe_security_groups(Filters=[{"Name": "tag-key", "Values": ["Name"]}])
    (group,) = (g for g in found["SecurityGroups"] if g["GroupName"].startswith("demo"))
    aws.ec2.revoke_security_group_ingress(
        GroupId=group["GroupId"], IpPermissions=group["IpPermissions"]
    )
    return {"network/security-group"}


def other_logs(aws: Clients) -> set[str]:
    off = [{"types": ["audit"], "enabled": False}]
    aws.eks.update_cluster_config(name="demo", logging={"clusterLogging": off})
    return {"eks/cluster"}


def no_script(aws: Clients) -> set[str]:
    bucket = "sagemaker-demo-123456789012-us-west-2"
    (first, *_) = aws.s3.list_objects_v2(Bucket=bucket, Prefix="lifecycle/")["Contents"]
    aws.s3.delete_object(Bucket=bucket, Key=first["Key"])
    return {"s3/scripts"}


DRIFTS = (no_retention, no_nat, no_policies, no_addon, no_rules, other_logs, no_script)


def everything(aws: Clients) -> set[str]:
    return {key for drift in DRIFTS for key in drift(aws)}


@pytest.mark.parametrize(
    "drift",
    [everything, *(pytest.param(each, marks=pytest.mark.prove) for each in DRIFTS)],
    ids=lambda drift: drift.__name__,
)
def test_what_somebody_changed_is_put_right(
    user: User, aws_of: Clients, drift: Callable[[Clients], set[str]]
) -> None:
    user.has("demo")
    expected = drift(aws_of)
    later(user)
    document = plan(user)
    assert planned(document) == expected
    rows = [row for row in document["resources"] if row["action"] == "change"]
    assert all(row["differs"] for row in rows)
    assert user.types("plan", "demo", "--chart", str(CHART), "--detailed-exitcode").code == 5
    assert done(user) == (0, expected)
    assert done(user) == (0, set())


@pytest.fixture
def aws_of(user: User, session: boto3.Session) -> Clients:
    return Clients(session, user.stack.endpoint)


REFUSED = [
    ("iam", "AttachRolePolicy"),
]
REFUSED_TOO = [
    ("ec2", "CreateRoute"),
    ("sagemaker", "CreateCluster"),
    ("ec2", "CreateVpc"),
    ("ec2", "CreateSubnet"),
    ("ec2", "CreateNatGateway"),
    ("s3", "PutBucketPolicy"),
    ("eks", "CreateCluster"),
    ("eks", "AssociateAccessPolicy"),
    ("eks", "CreateAddon"),
]


@pytest.mark.parametrize(
    ("service", "operation"),
    [*REFUSED, *(pytest.param(*each, marks=pytest.mark.prove) for each in REFUSED_TOO)],
)
def test_what_a_failed_create_left_is_completed(user: User, service: str, operation: str) -> None:
    user.stack.faults.append(Fault(service, operation, code="AccessDenied", status=403, count=1000))
    code, _ = done(user)
    assert code == 3
    user.stack.faults.clear()
    document = plan(user)
    assert document["changes"] is True
    assert done(user) == (0, planned(document))


def test_strangers_are_refused(user: User, aws_of: Clients) -> None:
    aws_of.iam.create_role(RoleName="demo-eks-us-west-2", AssumeRolePolicyDocument=NOBODY)
    document = plan(user)
    (row,) = (row for row in document["resources"] if row["action"] == "refuse")
    assert row["key"] == "iam/cluster-role"
    assert row["why"] == "belongs to an unknown owner (no hyperpod-eks tags)"
    assert document["ok"] is False
    assert done(user) == (7, set())
    said = user.types("plan", "demo", "--chart", str(CHART), "--detailed-exitcode")
    assert said.code == 7


def test_what_is_adopted_is_used_as_it_is(user: User, aws_of: Clients) -> None:
    vpc = aws_of.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    aws_of.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    assert user.types("adopt", "demo", "--resource", f"network/vpc={vpc}").code == 0
    document = plan(user)
    assert actions(document)["network/vpc"] == "adopt"
    code, changed = done(user)
    assert (code, changed) == (0, planned(document))


def test_what_aws_does_not_change_is_refused(user: User) -> None:
    user.has("demo", "--kubernetes-version", "1.34")
    document = plan(user, "--kubernetes-version", "1.33")
    (row,) = (row for row in document["resources"] if row["action"] == "refuse")
    assert (row["key"], row["differs"]) == ("eks/cluster", {"version": ["1.34", "1.33"]})
    assert row["why"] == "EKS does not go back to an older version"
    assert done(user, "--kubernetes-version", "1.33") == (2, set())


def test_what_is_no_longer_declared_goes(user: User, aws_of: Clients) -> None:
    reader = aws_of.iam.create_role(RoleName="reader", AssumeRolePolicyDocument=NOBODY)
    arn = reader["Role"]["Arn"]
    config = user.folder / "demo.yaml"
    config.write_text(f"name: demo\nregion: us-west-2\neks: {{access: [principal_arn: {arn}]}}\n")
    user.makes("demo", "-f", "demo.yaml")
    config.write_text("name: demo\nregion: us-west-2\n")
    document = plan(user, "-f", "demo.yaml")
    assert planned(document) == {"eks/access-reader"}
    assert actions(document)["eks/access-reader"] == "delete"
    assert done(user, "-f", "demo.yaml") == (0, {"eks/access-reader"})


def test_the_exit_code_tells_whether_there_is_something_to_do(user: User) -> None:
    words = ("plan", "demo", "--chart", str(CHART), "--detailed-exitcode")
    assert user.types(*words).code == 5
    assert user.types(*words, "-o", "json").document["exit_code"] == 5


def test_a_session_for_looking_refuses_everything_else(user: User) -> None:
    aws = new_aws()
    read_only(aws.session)
    aws.ec2.describe_vpcs()
    user.mutations()
    with pytest.raises(RuntimeError, match="ec2:CreateVpc from a command that only looks"):
        aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")
    with pytest.raises(RuntimeError, match="iam:DeleteRole"):
        aws.iam.delete_role(RoleName="a")
    assert user.mutations() == []


def test_the_price_is_that_of_what_is_declared(user: User) -> None:
    config = user.folder / "demo.yaml"
    config.write_text(
        "name: demo\nregion: us-west-2\nnetwork: {nat: per-az}\ninstance_groups:\n"
        "- {name: a, instance_type: ml.m5.2xlarge, instance_count: 4}\n"
        "- {name: b, instance_type: ml.c5.large, instance_count: 1, ebs_volume_size_in_gb: null}\n"
    )
    cost = user.types("plan", "-f", "demo.yaml", "--chart", str(CHART), "-o", "json").document[
        "cost"
    ]
    assert {item["what"]: item["count"] for item in cost["items"]} == {
        "EKS control plane": 1,
        "NAT gateway": 2,
        "public IPv4 address": 2,
        "ml.m5.2xlarge": 4,
        "EBS, 500 GB": 4,
        "ml.c5.large": 1,
    }
    assert (cost["unknown"], cost["complete"]) == (["ml.c5.large"], False)
    assert cost["usd_per_hour"] == pytest.approx(0.10 + 0.09 + 0.01 + 1.844 + 0.384, abs=0.01)


def test_what_is_prepaid_or_has_no_fixed_price_is_no_part_of_the_sum(user: User) -> None:
    group = "- {name: %s, instance_count: 1, ebs_volume_size_in_gb: null, "
    plan = "arn:aws:sagemaker:us-west-2:123456789012:training-plan/p"
    (user.folder / "demo.yaml").write_text(
        "name: demo\nregion: us-west-2\nnetwork: {nat: none}\ninstance_groups:\n"
        + group % "a"
        + f"instance_type: ml.p5.48xlarge, training_plan_arn: '{plan}'}}\n"
        + group % "b"
        + "instance_type: ml.m5.2xlarge, capacity_requirements: {spot: {}}}\n"
    )
    said = user.types("plan", "-f", "demo.yaml", "--chart", str(CHART), "-o", "json")
    cost = said.document["cost"]
    rows = {item["what"]: (item["count"], item["usd_per_hour"]) for item in cost["items"]}
    assert rows == {
        "EKS control plane": (1, 0.1),
        "interface endpoint in a zone": (24, 0.24),
        "ml.p5.48xlarge, prepaid (training plan)": (1, 0.0),
        "ml.m5.2xlarge, Spot": (1, None),
    }
    assert (cost["usd_per_hour"], cost["complete"]) == (0.34, False)
    text = user.types("plan", "-f", "demo.yaml", "--chart", str(CHART)).out
    assert "at least 0.34 USD per hour" in text


def test_a_change_is_told_beside_what_is_made_anew(user: User) -> None:
    """Missing dependencies hide neither other differences nor the confirmation for lost nodes."""
    user.has("demo")
    config = user.folder / "demo.yaml"
    config.write_text(
        "name: demo\nregion: us-west-2\nnetwork: {nat: per-az}\n"
        "instance_groups: [{name: worker-group, instance_type: ml.m5.2xlarge, instance_count: 1}]\n"
    )
    document = plan(user, "-f", "demo.yaml")
    (row,) = (row for row in document["resources"] if row["key"] == "hyperpod/cluster")
    assert row["differs"] == {"worker-group.instance_count": [2, 1]}
    words = ("create", "-f", "demo.yaml", "--chart", str(CHART))
    said = user.types(*words)
    assert said.code == 2
    assert "removes or exposes something" in said.err
    assert user.mutations() == []
    assert user.types(*words, "--yes").code == 0
    assert "sagemaker.UpdateCluster" in user.mutations()
    assert set(actions(plan(user, "-f", "demo.yaml")).values()) == {"keep"}


@pytest.mark.parametrize("width", [80, 200])
def test_a_plan_is_readable(width: int) -> None:
    rows = [
        ("network/vpc", "keep", "vpc-0ab12cd34ef56ab78", "", {}),
        (
            "network/private-routes-usw2-az1",
            "change",
            "rtb-0ab12cd34ef56ab78",
            "",
            {
                "target": [
                    "nat-0ab12cd34ef56ab78",
                    "known once network/nat-gateway-usw2-az1 exists",
                ]
            },
        ),
        ("network/nat-gateway-usw2-az1", "create", "", "usually 2 min", {}),
        ("s3/bucket", "keep", "sagemaker-demo-111122223333-us-west-2", "", {}),
        (
            "iam/cluster-role",
            "refuse",
            "demo-eks-us-west-2",
            "belongs to an unknown owner (no hyperpod-eks tags)",
            {},
        ),
        ("iam/execution-role", "adopt", "my-role", "used as it is", {}),
        ("eks/cluster", "wait", "demo", "CREATING", {}),
        (
            "hyperpod/cluster",
            "replace",
            "demo",
            "Lifecycle scripts did not run successfully.\x1b[2J (Failed)",
            {"lifecycle": ["s3://sagemaker-demo-111122223333-us-west-2/lifecycle-of-old/", ""]},
        ),
    ]
    names = ("key", "action", "id", "why", "differs")
    document = {
        "cluster": {"name": "demo"},
        "account": "111122223333",
        "region": "us-west-2",
        "resources": [dict(zip(names, row, strict=True)) for row in rows],
        "counts": {
            "keep": 2, "change": 1, "create": 1, "refuse": 1, "adopt": 1, "wait": 1, "replace": 1,
        },
        "critical_path": [
            {"key": "network/nat-gateway-usw2-az1", "seconds": 105},
            {"key": "network/private-routes-usw2-az1", "seconds": 1},
            {"key": "hyperpod/cluster", "seconds": 720},
        ],
        "cost": {
            "usd_per_hour": 0.1,
            "usd_per_month": 73.0,
            "complete": False,
            "region": "us-east-1",
            "as_of": "2026-10-04",
            "items": [
                {"what": "EKS control plane", "count": 1, "usd_per_hour": 0.1},
                {"what": "ml.new.large", "count": 2, "usd_per_hour": None},
            ],
        },
        "next": "hyperpod-eks create demo --replace-failed",
    }  # fmt: skip
    text = render(document, width, colour=False)
    assert max(map(len, text.splitlines())) <= width
    for narrower in range(80, width):  # wrapped between words, without cut words
        assert "…" not in render(document, narrower, colour=False)
    same(SNAPSHOTS / f"plan-{width}.txt", text + "\n")
    assert render(document, width, colour=False, utf8=False).isascii()


@pytest.mark.parametrize("width", [40, 80, 100, 1000])
def test_a_plan_cuts_no_name_and_no_remark(user: User, width: int) -> None:
    document = user.types("plan", "demo", "--chart", str(CHART), "-o", "json").document
    account = "hyperpod-observability/hyperpod-observability-operator-otel-collector"
    row = {**document["resources"][0], "why": f"for the pods of the service account {account}"}
    document["resources"] = [{**row, "key": f"iam/{account}-{x}"} for x in ("policy", "role")]
    text = render(document, width, colour=False)
    assert max(map(len, text.splitlines()[:-1])) <= width  # the last one is to be copied
    assert "…" not in text
    words = "".join(text.split())
    for name in ("policy", "role"):
        assert f"{account}-{name}forthepodsoftheserviceaccount{account}" in words


def test_what_is_piped_is_not_broken(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe has no width, unless COLUMNS says one."""
    monkeypatch.delenv("COLUMNS", raising=False)
    text = "name: demo\nregion: us-west-2\naddons: {amazon-sagemaker-hyperpod-observability: {}}\n"
    (user.folder / "c.yaml").write_text(text)
    said = user.types("plan", "-f", "c.yaml", "--chart", str(CHART))
    account = "hyperpod-observability/hyperpod-observability-operator-otel-collector"
    shown = [line for line in said.out.splitlines() if "otel-collector-role" in line]
    assert shown == [f"  + create   {account}-role  for the pods of the service account {account}"]


def test_zones_that_eks_does_not_work_in_are_neither_chosen_nor_taken(user: User) -> None:
    """EKS would refuse them only after the network is created."""
    (user.folder / "c.yaml").write_text(
        "name: demo\nregion: us-east-1\nnetwork: {availability_zone_ids: [use1-az2, use1-az3]}\n"
    )
    said = user.types("plan", "-f", "c.yaml", "--chart", str(CHART))
    assert said.code == 2
    assert "use1-az3 is not a zone of us-east-1 that EKS works in" in said.err


def test_no_step_can_vanish_from_a_plan(user: User) -> None:
    document = user.types("plan", "demo", "--chart", str(CHART), "-o", "json").document
    row = document["resources"][0]
    document["resources"].append({**row, "key": "fsx/file-system", "action": "create"})

    assert "file-system" in render(document, 80, colour=False)


@pytest.mark.parametrize(
    ("helm", "says"),
    [
        (None, ""),
        ("never", "no usable helm: there is none on PATH, and HYPERPOD_EKS_HELM is never. "),
        ("nowhere", "HYPERPOD_EKS_HELM: nowhere cannot be run: No such file or directory. "),
    ],
)
def test_a_plan_warns_of_the_helm_that_create_would_refuse(
    user: User, monkeypatch: pytest.MonkeyPatch, helm: str | None, says: str
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    if helm:
        monkeypatch.setenv("HYPERPOD_EKS_HELM", helm)
    words = ("demo", "--chart", str(CHART))
    said = user.types("plan", *words, "-o", "json")
    assert said.code == 0
    found = [line for line in said.document["warnings"] if "helm" in line]
    if not helm:  # create downloads one
        assert found == []
        return
    (line,) = found
    assert line.startswith(f"create would stop: {says}Install helm ")
    assert f"warning: {line}\n" in said.err
    refused = user.types("create", *words, "--yes")
    assert refused.code == 2
    assert says.removesuffix(". ") in refused.err


@pytest.fixture(scope="module")
def made(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("plan")) as somebody:
        somebody.has("demo")
        yield somebody


@pytest.fixture
def demo(made: User, tmp_path: Path) -> Iterator[User]:
    """A user with a cluster that is created once; tests that change it come before."""
    with in_a_copy(made, tmp_path / "copy") as somebody:
        yield somebody


def test_when_all_is_as_declared_nothing_is_done(demo: User) -> None:
    document = plan(demo)
    assert document["critical_path"] == []
    assert set(actions(document).values()) == {"keep"}
    assert (document["changes"], document["next"]) == (False, "")
    assert done(demo) == (0, set())


def test_what_the_config_changes_is_told_field_by_field(demo: User) -> None:
    config = demo.folder / "demo.yaml"
    config.write_text(
        "name: demo\nregion: us-west-2\neks: {log_retention_days: 90}\n"
        "instance_groups: [{name: worker-group, instance_type: ml.m5.2xlarge, instance_count: 3}]\n"
    )
    demo.mutations()
    said = demo.types("plan", "-f", "demo.yaml", "--chart", str(CHART), "-o", "json")
    differs = {row["key"]: row["differs"] for row in said.document["resources"] if row["differs"]}
    assert differs == {
        "eks/log-group": {"retention": [30, 90]},
        "hyperpod/cluster": {"worker-group.instance_count": [2, 3]},
    }
    (slow,) = [each for each in said.document["critical_path"] if each["seconds"] >= 10]
    assert slow == {"key": "hyperpod/cluster", "seconds": 480}  # the time of a third node
    assert demo.mutations() == []
    text = demo.types("plan", "-f", "demo.yaml", "--chart", str(CHART)).out
    same(
        SNAPSHOTS / "plan-changes.txt",
        re.sub(r"20\d\d-\d\d-\d\d", "<today>", text.replace(str(CHART), "CHART")),
    )


def test_a_plan_is_made_without_manifest_and_without_helm(
    demo: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    (demo.folder / "demo.hyperpod-eks.json").unlink()
    (demo.folder / "demo.yaml").write_text("name: demo\nregion: us-west-2\n")
    monkeypatch.setenv("PATH", "/nowhere")
    assert set(actions(plan(demo, "-f", "demo.yaml")).values()) == {"keep"}


def test_a_plan_looks_for_no_helm_if_nothing_is_to_be_installed(
    demo: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERPOD_EKS_HELM", "nowhere")
    assert "helm" not in demo.types("plan", "demo").err


def test_the_exit_code_tells_that_there_is_nothing_to_do(demo: User) -> None:
    words = ("plan", "demo", "--chart", str(CHART), "--detailed-exitcode")
    assert demo.types(*words).code == 0
    assert demo.types("create", *words[1:], "--dry-run").code == 0
    assert demo.types("create", *words[1:]).code == 2


def test_a_changed_chart_is_said_in_words(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its fingerprint is a digest, which tells nobody what has changed."""
    user.has("demo")
    old = chart.Pin("https://example.com/tar.gz/aaaabbbbcccc", chart.content(CHART))
    monkeypatch.setattr(chart, "EARLIER", (old,))
    monkeypatch.setenv("COLUMNS", "80")
    values = "{health-monitoring-agent: {enabled: false}, extra: null, secret: [hidden]}"
    text = f"name: demo\nregion: us-west-2\nchart: {{values: {values}}}\n"
    (user.folder / "demo.yaml").write_text(text)

    said = user.types("plan", "-f", "demo.yaml", "-o", "json")
    (row,) = (each for each in said.document["resources"] if each["key"] == "helm/release")
    shown = user.types("plan", "-f", "demo.yaml").out
    status = user.types("status", "-f", "demo.yaml").out

    words = f"chart: commit aaaabbb → commit {chart.PINNED.commit}"
    keys = "values changed: health-monitoring-agent.enabled, secret"
    assert row["why"] == f"{words}; {keys}"
    for text in (" ".join(shown.split()), " ".join(status.split())):
        assert words in text
        assert keys in text
        assert "hidden" not in text
        assert not re.search("[0-9a-f]{20}", text.partition("fingerprint")[2])
