"""What becomes of each setting that is changed on a running cluster: one table for page and test.

``after`` is the value that the test gives the setting on the cluster of ``BASE``; None where the
outcome is proved by another test, or there is nothing to try.
"""

from __future__ import annotations

from typing import Any, NamedTuple

IN_PLACE, CONSENT, REFUSED, LATER = "in place", "with --yes", "refused", "for what is made later"


class Row(NamedTuple):
    """A setting, what changing it leads to, why, and a value to try."""

    setting: str
    outcome: str
    why: str
    after: Any = None


ROLE = "arn:aws:iam::123456789012:role/team/Admin"
KEY = "arn:aws:kms:us-west-2:123456789012:key/11111111-2222-3333-4444-555555555555"
BASE: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "network": {"availability_zone_ids": ["usw2-az1", "usw2-az2"]},
    "eks": {"version": "1.34"},
    "instance_groups": [
        {"name": "a", "instance_type": "ml.g5.2xlarge", "instance_count": 2},
        {"name": "b", "instance_type": "ml.m5.2xlarge", "instance_count": 1},
    ],
}
G = "instance_groups[]."
KEPT = "UpdateCluster keeps it for life; the group is deleted and made anew"
THEIRS = "what create made is not exchanged for yours on a running cluster"
NODES = "UpdateCluster; nodes that run keep theirs until they are replaced"
ROWS = (
    Row("name", REFUSED, "another name is another cluster"),
    Row("region", REFUSED, "the manifest belongs to one region"),
    Row("account", IN_PLACE, "a guard, nothing else", "123456789012"),
    Row("tags", LATER, "what stands keeps the tags that it was made with", {"team": "x"}),
    Row("network.cidr", REFUSED, "a VPC keeps its first block", "10.4.0.0/16"),
    Row("network.secondary_cidrs", CONSENT, "groups whose zones are named move to the new subnets"),
    Row(
        "network.availability_zone_ids",
        IN_PLACE,
        "zones are added at the end, for nodes alone; zones that EKS was made with stay",
        ["usw2-az1", "usw2-az2", "usw2-az3"],
    ),
    Row("network.nat", IN_PLACE, "gateways, addresses and routes come and go", "per-az"),
    Row("network.interface_endpoints", IN_PLACE, "endpoints come and go", ["ecr.api"]),
    Row(
        "network.endpoint_policy",
        IN_PLACE,
        "ModifyVpcEndpoint",
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}],
        },
    ),
    Row("network.security_groups", REFUSED, "from strict to shared: interfaces wear the groups"),
    Row("network.storage_ports", IN_PLACE, "rules come and go", True),
    Row("network.subnet_tags", IN_PLACE, "added; tags no longer named stay", {"a": "b"}),
    Row("eks.version", IN_PLACE, "one minor version at a time, add-ons after it", "1.35"),
    Row("eks.allow_untested_version", IN_PLACE, "a guard, nothing else", True),
    Row("eks.support_type", IN_PLACE, "UpdateClusterConfig", "STANDARD"),
    Row("eks.log_types", IN_PLACE, "UpdateClusterConfig", ["api"]),
    Row("eks.log_retention_days", IN_PLACE, "PutRetentionPolicy", 60),
    Row("eks.public_access_cidrs", IN_PLACE, "UpdateClusterConfig", ["127.0.0.0/8"]),
    Row("eks.endpoint_public_access", IN_PLACE, "UpdateClusterConfig"),
    Row("eks.endpoint_private_access", IN_PLACE, "UpdateClusterConfig", False),
    Row("eks.access", IN_PLACE, "entries come and go, their policies change"),
    Row(
        "addons.<name>",
        IN_PLACE,
        "UpdateAddon",
        {"vpc-cni": {"version": "v1.21.1-eksbuild.1"}},
    ),
    Row("chart.path", IN_PLACE, "helm upgrades the release"),
    Row(
        "chart.values",
        IN_PLACE,
        "helm upgrades the release",
        {"health-monitoring-agent": {"enabled": False}},
    ),
    Row("lifecycle.path", IN_PLACE, "files are uploaded; nodes that come later run them"),
    Row("lifecycle.on_create", IN_PLACE, "UpdateCluster, for nodes that come later"),
    Row("node_recovery", IN_PLACE, "UpdateCluster", "None"),
    Row("node_provisioning_mode", REFUSED, "HyperPod does not go back from Continuous"),
    Row("tiered_storage_config", IN_PLACE, "UpdateCluster", {"mode": "Enable"}),
    Row("instance_groups", CONSENT, "a group comes in place; one that goes takes its nodes away"),
    Row(G + "name", CONSENT, "another name is another group"),
    Row(G + "instance_count", CONSENT, "more in place, fewer with consent", 1),
    Row(G + "min_instance_count", IN_PLACE, "UpdateCluster", 1),
    Row(G + "threads_per_core", IN_PLACE, NODES, 2),
    Row(G + "ebs_volume_size_in_gb", IN_PLACE, NODES, 600),
    Row(
        G + "instance_storage_configs",
        IN_PLACE,
        NODES,
        [{"ebs_volume_config": {"volume_size_in_gb": 700}}],
    ),
    Row(
        G + "on_start_deep_health_checks",
        IN_PLACE,
        "UpdateCluster, for nodes that come later",
        ["InstanceStress"],
    ),
    Row(G + "training_plan_arn", IN_PLACE, "UpdateCluster; checked as for a new group"),
    Row(
        G + "scheduled_update_config",
        IN_PLACE,
        "UpdateCluster",
        {"schedule_expression": "cron(0 3 ? * SUN *)"},
    ),
    Row(G + "auto_patch_config", IN_PLACE, "UpdateCluster", {"patching_strategy": "WhenIdle"}),
    Row(G + "kubernetes_config", IN_PLACE, "UpdateCluster", {"labels": {"team": "x"}}),
    Row(G + "network_interface", IN_PLACE, NODES, {"interface_type": "efa-only"}),
    Row(G + "image_id", IN_PLACE, "UpdateClusterSoftware", "ami-0123456789abcdef0"),
    Row(G + "image_release_version", IN_PLACE, "UpdateClusterSoftware", "1.2.0"),
    Row(G + "execution_role", IN_PLACE, NODES),
    Row(
        G + "life_cycle_config",
        IN_PLACE,
        NODES,
        {"on_create": "on_create.sh", "on_init_complete": "x.sh"},
    ),
    Row(G + "instance_type", CONSENT, KEPT, "ml.g5.4xlarge"),
    Row(G + "instance_requirements", CONSENT, KEPT),
    Row(G + "capacity_requirements", CONSENT, KEPT),
    Row(G + "availability_zone_ids", CONSENT, KEPT, ["usw2-az2"]),
    Row("restricted_instance_groups", CONSENT, "as instance_groups"),
    Row("restricted_instance_groups_config", IN_PLACE, "UpdateCluster"),
    Row("existing.vpc", REFUSED, THEIRS, "vpc-0123456789abcdef0"),
    Row("existing.private_subnets", REFUSED, THEIRS),
    Row("existing.route_tables", IN_PLACE, "they get the S3 endpoint's route"),
    Row("existing.nat_gateways", REFUSED, THEIRS),
    Row("existing.s3_endpoint", REFUSED, THEIRS, "vpce-0123456789abcdef0"),
    Row("existing.security_group", REFUSED, THEIRS, "sg-0123456789abcdef0"),
    Row("existing.eks_cluster", REFUSED, THEIRS),
    Row("existing.cluster_role", REFUSED, THEIRS, "mine"),
    Row("existing.execution_role", REFUSED, THEIRS, "mine"),
    Row("existing.bucket", REFUSED, THEIRS, "mine"),
    Row("existing.helm_release", REFUSED, THEIRS, "default/mine"),
    Row("encryption.eks_secrets", IN_PLACE, "once; EKS keeps the key"),
    Row("encryption.volumes", IN_PLACE, NODES, KEY),
    Row("encryption.bucket", IN_PLACE, "PutBucketEncryption, for new objects", KEY),
    Row("encryption.logs", IN_PLACE, "AssociateKmsKey"),
    Row("iam.path", REFUSED, "IAM moves no role", "/team/"),
    Row(
        "iam.permissions_boundary",
        IN_PLACE,
        "PutRolePermissionsBoundary",
        "arn:aws:iam::aws:policy/PowerUserAccess",
    ),
    Row("auto_scaling", IN_PLACE, "UpdateCluster; its role comes and goes", {"mode": "Enable"}),
    Row("deletion_protection", IN_PLACE, "UpdateClusterConfig", True),
)


def page() -> str:
    """Return docs/change.md."""
    lines = [
        "# Changing a running cluster",
        "",
        "<!-- Written by scripts/generate.py from tests/change/matrix.py: change it there. -->",
        "",
        "Edit the file and run `create` again: it makes the cluster as declared. What would take",
        "nodes or data away is listed first and needs an answer at the prompt, or `--yes`; what",
        "AWS cannot change is refused with the reason before anything is changed. What the file no",
        "longer declares is removed when everything else is ready.",
        "",
        "`scale NAME GROUP=COUNT` changes a count in the file and in the cluster;",
        "`update-software NAME` gives the nodes the newest AMI.",
        "",
        "| Setting | Outcome | How, or why not | Tried |",
        "| --- | --- | --- | --- |",
    ]
    for row in ROWS:
        tried = "yes" if row.after is not None else ""
        lines.append(f"| `{row.setting}` | {row.outcome} | {row.why} | {tried} |")
    tail = [
        "",
        "*Tried*: `tests/change/test_matrix.py` changes the setting alone on a running cluster of",
        "the embedded stack and asks the stack what came of it; the others have tests of their own",
        "in `tests/change/`, or nothing to try.",
        "",
    ]
    return "\n".join([*lines, *tail])
