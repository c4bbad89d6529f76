"""Preflight: an account with a problem for each check, and one without; nothing is changed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from hyperpod_eks.config.model import Config
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.hyperpod_clusters import of_region
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.preflight import run as preflight
from hyperpod_eks.resources.trust import trust
from tests.conftest import Clients, Said, User
from tests.local import ground

QUOTA = {
    "quota-vpcs": ("vpc", "VPCs per Region", 1),
    "quota-internet-gateways": ("vpc", "Internet gateways per Region", 0),
    "quota-nat-gateways": ("vpc", "NAT gateways per Availability Zone", 0),
    "quota-addresses": ("ec2", "EC2-VPC Elastic IPs", 0),
    "quota-eks-clusters": ("eks", "Clusters", 0),
    "quota-instances": ("sagemaker", "ml.m5.2xlarge for cluster usage", 1),
    "quota-cluster-size": (
        "sagemaker",
        "Maximum number instances allowed per SageMaker HyperPod cluster",
        1,
    ),
    "quota-total-instances": (
        "sagemaker",
        "Total number of instances allowed across SageMaker HyperPod clusters",
        1,
    ),
    "quota-volume-size": (
        "sagemaker",
        "Maximum size of EBS volume in GB for a SageMaker HyperPod cluster instance",
        499,
    ),
}


def snapshot(user: User, *words: str, simulated: bool = False) -> Said:
    """Run preflight on demo; check that it changes nothing.

    The check of permissions, forty calls to IAM and most of the work, is run only where necessary.
    """
    words = words if simulated else (*words, "--skip", "permissions")
    user.stack.calls.clear()
    files = sorted(user.folder.rglob("*"))
    chart = () if "--chart" in words else ("--chart", str(CHART))
    said = user.types("preflight", "demo", *chart, *words, "-o", "json")
    assert [c for c in user.stack.calls if c.mutating] == []
    assert sorted(user.folder.rglob("*")) == files
    return said


def found(said: Said) -> dict[str, dict[str, Any]]:
    """Return findings by id; of several with one id, the worst."""
    return {one["id"]: one for one in reversed(said.document["findings"])}


def adopt(user: User, **resources: str) -> None:
    """Write a manifest with these adopted resources, by key."""
    record = {"kind": "", "want": {}, "state": "ready", "since": 0.0, "token": "", "arn": ""}
    keys = {key.replace("__", "/").replace("_", "-"): id_ for key, id_ in resources.items()}
    document = {
        "schema": "hyperpod-eks/manifest/v1",
        "tool_version": "0",
        "serial": 1,
        "cluster": "demo",
        "account": "",
        "region": "",
        "lineage": "",
        "saved_at": "",
        "resources": {key: record | {"id": id_, "origin": "adopted"} for key, id_ in keys.items()},
        "durations": {},
        "config": {},
    }
    (user.folder / "demo.hyperpod-eks.json").write_text(json.dumps(document))


def config(user: User, text: str) -> tuple[str, ...]:
    """Write a config file; return the options that name it."""
    folder = user.folder / "given"
    folder.mkdir(exist_ok=True)
    (folder / "cluster.yaml").write_text(f"name: demo\n{text}")
    return ("-f", str(folder / "cluster.yaml"))


Craft = Callable[[User, Clients], tuple[str, ...]]


def elsewhere(user: User, aws: Clients) -> tuple[str, ...]:
    text = "no such operation"
    user.stack.faults.append(
        Fault("sagemaker", "ListClusters", "UnknownOperationException", 400, text)
    )
    return ()


def root(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.faults.append(Fault("iam", "GetRole", "AccessDenied", 403, "no", count=99))
    return ()


def denied(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.sim.denied.add("ec2:CreateVpc")
    return ()


def small(user: User, aws: Clients) -> tuple[str, ...]:
    group = "{name: g, instance_type: ml.m5.2xlarge, instance_count: 60}"
    return config(user, f"network: {{cidr: 10.0.0.0/24}}\ninstance_groups: [{group}]\n")


def closed_group(user: User, aws: Clients) -> tuple[str, ...]:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    group = aws.ec2.create_security_group(VpcId=vpc, GroupName="g", Description="g")["GroupId"]
    adopt(user, network__security_group=group)
    group_ = "{name: g, instance_type: ml.p4d.24xlarge, instance_count: 1}"
    return config(user, f"instance_groups: [{group_}]\n")


def public_subnet(user: User, aws: Clients) -> tuple[str, ...]:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    gateway = aws.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    aws.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    made = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZoneId="usw2-az1")
    (table,) = aws.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])[
        "RouteTables"
    ]
    aws.ec2.create_route(
        RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
    )
    key = "network__private-subnet-usw2-az1"
    adopt(user, network__vpc=vpc, **{key: made["Subnet"]["SubnetId"]})
    return ()


def two_vpcs(user: User, aws: Clients) -> tuple[str, ...]:
    laid = ground.lay(aws)
    other = aws.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    aws.ec2.modify_vpc_attribute(VpcId=other, EnableDnsHostnames={"Value": True})
    adopt(user, network__vpc=other, network__security_group=laid.group)
    return ()


def without_dns(user: User, aws: Clients) -> tuple[str, ...]:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    adopt(user, network__vpc=vpc)
    return ()


def shut_endpoint(user: User, aws: Clients) -> tuple[str, ...]:
    laid = ground.lay(aws)
    aws.ec2.modify_vpc_attribute(VpcId=laid.vpc, EnableDnsHostnames={"Value": True})
    door = aws.ec2.create_security_group(VpcId=laid.vpc, GroupName="d", Description="d")["GroupId"]
    aws.ec2.create_vpc_endpoint(
        VpcId=laid.vpc,
        ServiceName="com.amazonaws.us-west-2.sts",
        VpcEndpointType="Interface",
        SubnetIds=laid.subnets[:1],
        SecurityGroupIds=[door],
    )
    adopt(user, network__vpc=laid.vpc)
    return ()


def control_plane(user: User, aws: Clients, **settings: Any) -> None:
    laid = ground.lay(aws)
    aws.eks.create_cluster(
        name="theirs",
        roleArn=laid.eks_role,
        resourcesVpcConfig={"subnetIds": laid.subnets, "securityGroupIds": [laid.group]},
        **settings,
    )
    adopt(user, eks__cluster="theirs")


def config_map(user: User, aws: Clients) -> tuple[str, ...]:
    control_plane(user, aws, accessConfig={"authenticationMode": "CONFIG_MAP"})
    return ()


def old_cni(user: User, aws: Clients) -> tuple[str, ...]:
    control_plane(user, aws, accessConfig={"authenticationMode": "API"})
    aws.eks.create_addon(
        clusterName="theirs", addonName="vpc-cni", addonVersion="v1.18.2-eksbuild.1"
    )
    return ()


def untested_version(user: User, aws: Clients) -> tuple[str, ...]:
    versions = aws.eks.describe_cluster_versions()["clusterVersions"]
    newest = max((v["clusterVersion"] for v in versions), key=lambda v: int(v[2:]))
    return config(user, f'eks: {{version: "{newest}", allow_untested_version: true}}\n')


def taken(user: User, aws: Clients) -> tuple[str, ...]:
    ground.role(aws, "demo-eks-us-west-2", "eks.amazonaws.com")
    return ()


def failed(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.sim.failures["cluster/demo"] = "IamRoleNotFound"
    said = user.types("create", "demo", "--chart", str(CHART))
    assert said.code == 1
    return ()


def wrong_role(user: User, aws: Clients) -> tuple[str, ...]:
    ground.role(aws, "mine", "ec2.amazonaws.com")
    adopt(user, iam__execution_role="mine")
    return ()


def nobody(user: User, aws: Clients) -> tuple[str, ...]:
    ground.role(aws, "reader", "ec2.amazonaws.com")
    arn = "arn:aws:iam::123456789012:role/team/reader"  # of another path
    return config(user, f"eks: {{access: [{{principal_arn: '{arn}'}}]}}\n")


def crlf(user: User, aws: Clients) -> tuple[str, ...]:
    folder = user.folder / "given"
    folder.mkdir()
    (folder / "on_create.sh").write_bytes(b"#!/bin/bash\r\necho hello\r\n")
    return ("--lifecycle", str(folder))


def no_chart(user: User, aws: Clients) -> tuple[str, ...]:
    folder = user.folder / "given"
    folder.mkdir()
    return ("--chart", str(folder))


def impossible_values(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, "chart: {values: {deep-health-check: {enabled: false}}}\n")


def no_helm(user: User, aws: Clients) -> tuple[str, ...]:
    return ("--helm", "/nowhere/helm")


def no_room(user: User, aws: Clients) -> tuple[str, ...]:
    return ("--manifest", "/proc/demo.json")


def nowhere(user: User, aws: Clients) -> tuple[str, ...]:
    group = "{name: g, instance_type: ml.trn2.48xlarge, instance_count: 1}"
    return config(user, f"instance_groups: [{group}]\n")


def other_account(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, 'account: "999999999999"\n')


def wrong_zone(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, "network: {availability_zone_ids: [usw2-az8, usw2-az9]}\n")


def no_plan(user: User, aws: Clients) -> tuple[str, ...]:
    arn = "arn:aws:sagemaker:us-west-2:123456789012:training-plan/gone"
    group = (
        f"{{name: g, instance_type: ml.m5.2xlarge, instance_count: 1, training_plan_arn: '{arn}'}}"
    )
    return config(user, f"instance_groups: [{group}]\n")


def test_a_training_plan_may_hold_several_capacities(user: User, aws: Clients) -> None:
    """One capacity has expired, the next one is in another zone."""
    offer = aws.sagemaker.search_training_plan_offerings(
        InstanceType="ml.p5.48xlarge", InstanceCount=2, DurationHours=24,
        TargetResources=["hyperpod-cluster"],
    )["TrainingPlanOfferings"][0]["TrainingPlanOfferingId"]  # fmt: skip
    arn = aws.sagemaker.create_training_plan(TrainingPlanName="p", TrainingPlanOfferingId=offer)
    plan = of_region("us-west-2").training_plans.find(arn["TrainingPlanArn"])
    (one,) = plan["ReservedCapacitySummaries"]
    plan["ReservedCapacitySummaries"] = [
        one | {"Status": "Expired", "AvailabilityZoneId": "usw2-az1"},
        one | {"Status": "Active", "AvailabilityZoneId": "usw2-az2"},
    ]
    group = (
        "{name: g, instance_type: ml.p5.48xlarge, instance_count: 1, %s"
        f"training_plan_arn: '{arn['TrainingPlanArn']}'}}"
    )
    found_in = {}
    for zones in ("", "availability_zone_ids: [usw2-az2], ", "availability_zone_ids: [usw2-az1], "):
        said = snapshot(user, *config(user, f"instance_groups: [{group % zones}]\n"))
        found_in[zones] = found(said).get("training-plans", {}).get("says", "")
    assert list(found_in.values())[:2] == ["", ""]
    assert "is in usw2-az2, the group in usw2-az1" in found_in[zones]


def another_hyperpod(user: User, aws: Clients) -> tuple[str, ...]:
    user.has("other")
    user.stack.calls.clear()
    for file in user.folder.glob("other*"):
        file.unlink()
    adopt(user, eks__cluster="other")
    return ()


def without_buckets(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, "addons: {aws-mountpoint-s3-csi-driver: }\n")


def no_such_policy(user: User, aws: Clients) -> tuple[str, ...]:
    policies = "policies: ['arn:aws:iam::aws:policy/NoSuchPolicy']"
    role = f"{{namespace: team-a, service_account: trainer, {policies}}}"
    return config(user, f"pod_identity: [{role}]\n")


def many_policies(user: User, aws: Clients) -> tuple[str, ...]:
    """A role takes ten policies."""
    arns = ", ".join(f"'arn:aws:iam::aws:policy/Policy{number}'" for number in range(11))
    role = f"{{namespace: team-a, service_account: trainer, policies: [{arns}]}}"
    return config(user, f"pod_identity: [{role}]\n")


def few_file_systems(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.sim.set_quota("fsx", "Lustre Persistent_2 file systems", 1)
    return config(user, "storage: {fsx_lustre: {a: {}, b: {}}}\n")


def small_file_systems(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, "storage: {fsx_lustre: {a: {storage_capacity: 240000}}}\n")


def far_file_system(user: User, aws: Clients) -> tuple[str, ...]:
    there = "network: {availability_zone_ids: [usw2-az1, usw2-az2]}\n"
    return config(
        user, f"{there}storage: {{fsx_lustre: {{a: {{availability_zone_id: usw2-az2}}}}}}\n"
    )


def no_file_system(user: User, aws: Clients) -> tuple[str, ...]:
    return config(user, "storage: {fsx_lustre: {a: {file_system_id: fs-0123456789abcdef0}}}\n")


def no_mount_target(user: User, aws: Clients) -> tuple[str, ...]:
    id_ = aws.efs.create_file_system(CreationToken="home")["FileSystemId"]
    return config(user, f"storage: {{efs: {{home: {{file_system_id: {id_}}}}}}}\n")


def few_workspaces(user: User, aws: Clients) -> tuple[str, ...]:
    user.stack.sim.set_quota("aps", "Workspaces per region per account", 0)
    return config(user, "monitoring: prometheus\n")


def no_workspace(user: User, aws: Clients) -> tuple[str, ...]:
    arn = "arn:aws:aps:us-west-2:123456789012:workspace/ws-1"
    return config(user, f"monitoring: prometheus\nprometheus: {{workspace_arn: '{arn}'}}\n")


CRAFTED: dict[str, tuple[Craft, str]] = {
    "identity": (root, "error"),
    "region": (elsewhere, "error"),
    "permissions": (denied, "error"),
    "subnet-addresses": (small, "error"),
    "routes": (public_subnet, "error"),
    "security-group": (closed_group, "error"),
    "one-vpc": (two_vpcs, "error"),
    "vpc-dns": (without_dns, "error"),
    "endpoints": (shut_endpoint, "error"),
    "authentication-mode": (config_map, "error"),
    "vpc-cni": (old_cni, "error"),
    "kubernetes-version": (untested_version, "warning"),
    "names": (taken, "error"),
    "failed": (failed, "error"),
    "roles": (wrong_role, "error"),
    "access": (nobody, "error"),
    "addon-roles": (without_buckets, "warning"),
    "pod-roles": (no_such_policy, "error"),
    "quota-iam": (many_policies, "error"),
    "quota-file-systems": (few_file_systems, "error"),
    "quota-file-system-capacity": (small_file_systems, "error"),
    "quota-prometheus-workspaces": (few_workspaces, "error"),
    "prometheus-workspace": (no_workspace, "error"),
    "file-system-zones": (far_file_system, "warning"),
    "file-systems": (no_file_system, "error"),
    "mount-targets": (no_mount_target, "error"),
    "lifecycle": (crlf, "error"),
    "chart": (no_chart, "error"),
    "chart-values": (impossible_values, "error"),
    "helm": (no_helm, "error"),
    "folders": (no_room, "error"),
    "instance-types": (nowhere, "error"),
    "account": (other_account, "error"),
    "zones": (wrong_zone, "error"),
    "training-plans": (no_plan, "error"),
    "one-cluster": (another_hyperpod, "error"),
}


@pytest.mark.parametrize("id_", CRAFTED)
def test_a_crafted_account_shows_its_finding(user: User, aws: Clients, id_: str) -> None:
    craft, severity = CRAFTED[id_]
    words = craft(user, aws)

    said = snapshot(user, *words, simulated=id_ in ("identity", "permissions"))

    assert found(said)[id_]["severity"] == severity
    assert found(said)[id_]["says"]
    assert found(said)[id_]["fix"]
    nowhere_in_the_config = {
        "identity", "permissions", "failed", "helm", "folders", "quota-iam",
        "quota-prometheus-workspaces",
    }  # fmt: skip
    setting = found(said)[id_]["seen"].get("setting", "")
    assert bool(setting) == (id_ not in nowhere_in_the_config)
    section = setting.partition(".")[0]
    assert not setting or section in Config.model_fields
    assert not re.search("aws (ec2|eks) (?!.*--region us-west-2)", found(said)[id_]["fix"])
    assert said.code == (3 if severity == "error" else 0)


def test_an_eks_cluster_of_others_needs_the_agent_for_roles(user: User, aws: Clients) -> None:
    control_plane(user, aws, accessConfig={"authenticationMode": "API"})
    text = "pod_identity: [{namespace: a, service_account: b, policies: ['%s']}]\n"
    words = config(user, text % "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")
    said = snapshot(user, *words)
    assert "does not have the add-on eks-pod-identity-agent" in found(said)["pod-roles"]["says"]


@pytest.mark.parametrize(
    ("arn", "trusted", "says"),
    [
        ("arn:aws:iam::123456789012:role/team/Trainer", "pods.eks", "did you mean arn:aws:iam::12"),
        ("arn:aws:iam::123456789012:role/Trainer", "ec2", "cannot be assumed by pods.eks."),
        ("arn:aws:iam::999999999999:role/Trainer", "pods.eks", "does not exist in this account"),
    ],
    ids=["another path", "another trust", "another account"],
)
def test_an_existing_role_for_pods_must_exist_and_trust_them(
    user: User, aws: Clients, arn: str, trusted: str, says: str
) -> None:
    document = json.dumps(trust(f"{trusted}.amazonaws.com"))
    aws.iam.create_role(RoleName="Trainer", AssumeRolePolicyDocument=document)
    text = f"pod_identity: [{{namespace: a, service_account: b, role_arn: '{arn}'}}]\n"

    said = snapshot(user, *config(user, text))

    assert said.code == 3
    assert says in found(said)["pod-roles"]["says"]
    assert found(said)["pod-roles"]["seen"]["setting"] == "pod_identity"


def test_every_quota_is_checked_against_what_is_wanted(user: User) -> None:
    for service, name, limit in QUOTA.values():
        user.stack.sim.set_quota(service, name, limit)

    said = snapshot(user)

    assert said.code == 3
    limits = {id_: one["seen"]["limit"] for id_, one in found(said).items()}
    assert limits == {id_: limit for id_, (_, _, limit) in QUOTA.items()}
    for one in found(said).values():
        assert "request-service-quota-increase --region us-west-2" in one["fix"]


@pytest.mark.prove
@pytest.mark.parametrize("id_", QUOTA)
def test_a_quota_that_is_too_small_is_no_other_quotas_finding(user: User, id_: str) -> None:
    service, name, limit = QUOTA[id_]
    user.stack.sim.set_quota(service, name, limit)

    said = snapshot(user)

    assert said.code == 3
    assert list(found(said)) == [id_]


def test_a_clean_account_shows_nothing(user: User) -> None:
    said = snapshot(user, simulated=True)

    assert said.code == 0
    assert said.document["findings"] == []
    assert set(said.document["checks"]) == set(preflight.IDS)


def test_every_check_has_a_crafted_account() -> None:
    # below, in test_preflight_existing, test_network and test_task_governance
    elsewhere = {"addon-versions", "settings", "existing", "chart-download", "task-governance"}
    assert set(CRAFTED) | set(QUOTA) | elsewhere == set(preflight.IDS)


def test_an_addon_version_that_is_not_offered(user: User) -> None:
    said = snapshot(user, *config(user, "addons: {coredns: {version: v9.9.9-eksbuild.1}}\n"))

    assert said.code == 3
    assert "v9.9.9-eksbuild.1 is not offered" in found(said)["addon-versions"]["says"]


def test_odd_settings_are_warnings(user: User) -> None:
    group = "{name: g, instance_type: ml.p4d.24xlarge, instance_count: 20}"
    said = snapshot(
        user, *config(user, f"network: {{cidr: 10.0.0.0/22}}\ninstance_groups: [{group}]\n")
    )

    assert found(said)["settings"]["severity"] == "warning"


def test_all_findings_come_at_once_and_text_says_how_to_go_on(user: User) -> None:
    user.stack.sim.set_quota("vpc", "VPCs per Region", 1)
    user.stack.sim.denied |= {"ec2:CreateVpc", "iam:DeleteRole"}

    said = user.types("preflight", "demo", "--chart", str(CHART), "--helm", "/nowhere/helm")

    assert said.code == 3
    lines = said.out.splitlines()
    kinds = [line.split(":")[0].split() for line in lines[1:-1:2]]
    assert kinds == [
        ["error", "permissions"],
        ["error", "quota-vpcs"],
        ["error", "helm"],
        ["warning", "permissions"],
    ]
    assert lines[-1].endswith("checks: 3 errors, 1 warning")


def test_the_command_of_a_finding_leads_to_the_same_place(user: User, aws: Clients) -> None:
    there = ("--region", "us-west-2")
    user.stack.sim.denied.add("ec2:CreateVpc")
    for verb in ("preflight", "create"):
        said = user.types(verb, "demo", "--chart", str(CHART), *there)
        assert "`hyperpod-eks policy demo --region us-west-2`" in said.out + said.err
    user.stack.sim.denied.clear()
    failed(user, aws)
    said = user.types("preflight", "demo", *there, "--skip", "permissions")
    again = "Remove the cause, then: hyperpod-eks create demo --region us-west-2 --replace-failed"
    assert again in said.out


def test_the_fix_for_two_vpcs_names_the_cluster(user: User, aws: Clients) -> None:
    fix = found(snapshot(user, *two_vpcs(user, aws)))["one-vpc"]["fix"]
    assert "hyperpod-eks adopt demo " in fix
    assert fix.endswith(" --resource KEY=ID.")


def test_an_adopted_role_that_is_gone_is_replaced_by_the_command_that_is_named(
    user: User, aws: Clients
) -> None:
    ground.role(aws, "mine", "sagemaker.amazonaws.com")
    adopt(user, iam__execution_role="mine")
    aws.iam.delete_role(RoleName="mine")
    said = user.types("create", "demo", "--chart", str(CHART), "--region", "us-west-2")
    command = "hyperpod-eks adopt --resource iam/execution-role=ID demo --region us-west-2"
    assert (said.code, f"\nAdopt a replacement: {command}\n" in said.err) == (8, True), said.err


def test_no_command_is_named_that_would_not_replace_a_failed_cluster(user: User) -> None:
    user.has("demo")
    of_region("us-west-2").hyperpod["demo"].status = "Failed"
    fix = found(snapshot(user))["failed"]["fix"]
    assert "is never replaced: ask AWS Support" in fix
    assert "--replace-failed" not in fix
    said = user.types("create", "demo", "--replace-failed")
    assert (said.code, fix in said.err) == (1, True), said.err


def test_a_skipped_check_is_not_made(user: User) -> None:
    user.stack.sim.set_quota("vpc", "VPCs per Region", 1)

    said = snapshot(user, "--skip", "quota-vpcs")

    assert said.code == 0
    assert said.document["skipped"] == ["permissions", "quota-vpcs"]
    assert not [c for c in user.stack.calls if c.operation == "SimulatePrincipalPolicy"]


def test_a_check_that_does_not_exist_cannot_be_skipped(user: User) -> None:
    said = user.types("preflight", "demo", "--skip", "quotas")

    assert said.code == 2
    assert "--skip: no such check: quotas" in said.err
    assert "Did you mean quota-" in said.err
    assert "availability" not in said.err
    assert "The checks are " in user.types("preflight", "demo", "--skip", "xyz").err
    assert user.stack.calls == []


def test_what_may_not_be_looked_at_is_said_and_does_not_stop(user: User) -> None:
    text = "not authorized to perform: iam:SimulatePrincipalPolicy"
    user.stack.faults.append(
        Fault("iam", "SimulatePrincipalPolicy", "AccessDenied", 403, text, count=999)
    )

    said = snapshot(user, simulated=True)

    assert said.code == 0
    assert found(said)["permissions"]["severity"] == "warning"
    assert text in found(said)["permissions"]["says"]
    assert '"Action": "iam:SimulatePrincipalPolicy"' in found(said)["permissions"]["fix"]


def test_what_aws_simulates_with_no_other_is_asked_alone(user: User) -> None:
    user.stack.sim.apart |= {"ec2:CreateSubnet", "ec2:CreateVpc", "s3:*"}
    user.stack.sim.denied.add("ec2:CreateVpc")

    said = snapshot(user, simulated=True)

    (one,) = said.document["findings"]
    assert (one["severity"], one["seen"]["actions"]) == ("error", ["ec2:CreateVpc"])


def test_a_simulation_that_aws_cannot_make_is_a_warning_with_its_words(user: User) -> None:
    text = "Invalid Input Actions"
    fault = Fault("iam", "SimulatePrincipalPolicy", "InvalidInput", 400, text, count=999)
    user.stack.faults.append(fault)

    said = snapshot(user, simulated=True)

    (one,) = said.document["findings"]
    assert (said.code, one["severity"]) == (0, "warning")
    assert one["says"].startswith("could not be checked: ")
    assert text in one["says"]
    assert "ec2:CreateVpc" in one["seen"]["actions"]


def test_create_stops_before_its_first_change_and_skip_lets_it_go_on(user: User) -> None:
    user.stack.sim.set_quota("sagemaker", "ml.m5.2xlarge for cluster usage", 1)

    said = user.types("create", "demo", "--chart", str(CHART))

    assert said.code == 3
    assert user.mutations() == []
    assert '"ml.m5.2xlarge for cluster usage" is 1: 2 needed' in said.err
    assert "--skip quota-instances" in said.err

    user.types("create", "demo", "--chart", str(CHART), "--skip", "quota-instances")
    assert "sagemaker.CreateCluster" in user.mutations()


def test_create_that_has_nothing_to_do_makes_no_preflight(user: User) -> None:
    user.has("demo")
    user.stack.calls.clear()

    assert user.types("create", "demo").code == 0
    assert not [c for c in user.stack.calls if c.service == "service-quotas"]


def test_spot_has_quotas_of_its_own_and_every_volume_counts(user: User) -> None:
    spot = "Total number of Spot instances allowed across SageMaker HyperPod clusters"
    group = (
        "{name: g, instance_requirements: {instance_types: [ml.g6.2xlarge, ml.g6.4xlarge]}, "
        "instance_count: 2, capacity_requirements: {spot: {}}, instance_storage_configs: "
        "[{ebs_volume_config: {volume_size_in_gb: 600}}]}"
    )
    user.stack.sim.set_quota("sagemaker", "ml.g6.2xlarge for cluster usage", 0)
    user.stack.sim.set_quota("sagemaker", "ml.g6.2xlarge for cluster spot instance usage", 2)
    user.stack.sim.set_quota("sagemaker", spot, 1)
    user.stack.sim.set_quota("sagemaker", QUOTA["quota-volume-size"][1], 599)
    said = snapshot(user, *config(user, f"instance_groups: [{group}]\n"))
    assert {id_: one["seen"]["quota"] for id_, one in found(said).items()} == {
        "quota-total-instances": spot,
        "quota-volume-size": QUOTA["quota-volume-size"][1],
    }
    user.stack.sim.set_quota("sagemaker", spot, 2)
    user.stack.sim.set_quota("sagemaker", QUOTA["quota-volume-size"][1], 600)
    assert snapshot(user, *config(user, f"instance_groups: [{group}]\n")).document["findings"] == []


def test_a_subnet_must_lead_to_s3(user: User, aws: Clients) -> None:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    made = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZoneId="usw2-az1")
    adopt(user, **{"network__private-subnet-usw2-az1": made["Subnet"]["SubnetId"]})
    assert (
        "nodes cannot download their lifecycle scripts" in found(snapshot(user))["routes"]["says"]
    )
    tables = aws.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
    aws.ec2.create_vpc_endpoint(
        VpcId=vpc,
        ServiceName="com.amazonaws.us-west-2.s3",
        RouteTableIds=[tables["RouteTables"][0]["RouteTableId"]],
    )
    assert "routes" not in found(snapshot(user))


def test_a_manifest_that_may_not_be_changed_and_a_try_that_leaves_nothing(user: User) -> None:
    fixed = user.folder / "demo.hyperpod-eks.json"
    user.has("demo")
    fixed.chmod(0o444)

    said = snapshot(user)

    assert said.code == 3
    assert "demo.hyperpod-eks.json is read-only" in found(said)["folders"]["says"]
    assert found(said)["folders"]["fix"] == "To allow it: chmod u+w demo.hyperpod-eks.json"
    fixed.chmod(0o600)
    before = {path.name for path in user.folder.iterdir()}
    assert "folders" not in found(snapshot(user))
    assert {path.name for path in user.folder.iterdir()} == before
