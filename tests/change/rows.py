"""The effect of changing each setting on a running cluster: one table for docs and tests."""

from __future__ import annotations

from typing import Any, NamedTuple

IN_PLACE, CONSENT, REFUSED = "in place", "with --yes", "refused"
LATER, ANOTHER = "for what is created later", "another cluster"


class Row(NamedTuple):
    """A setting, the outcome of changing it, and why.

    ``after`` is the new value in `test_settings`, on the cluster of ``BASE``, or a function of the
    old value; each row starts with the cluster of the previous row.  ``shown`` is the test of a row
    that needs more than a value.  ``says`` is a part of the error message of a refusal.
    """

    setting: str
    outcome: str
    why: str
    after: Any = None
    shown: str = ""
    says: str = ""


ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/Reader"
OTHER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/Writer"
NODE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/team/Nodes"
KEY, OTHER_KEY = "KEY", "OTHER-KEY"  # the test creates them and fills in their ARNs
BASE: dict[str, Any] = {
    "name": "demo",
    "region": "us-west-2",
    "network": {"availability_zone_ids": ["usw2-az1", "usw2-az2"]},
    "eks": {"version": "1.34"},
    "addons": {"vpc-cni": {}},
    "instance_groups": [
        {"name": "a", "instance_type": "ml.g5.2xlarge", "instance_count": 2},
        {
            "name": "b",
            "instance_type": "ml.m5.2xlarge",
            "instance_count": 1,
            "availability_zone_ids": ["usw2-az1"],
        },
    ],
}
G, A, R = "instance_groups[].", "eks.access[].", "restricted_instance_groups[]."
P = "pod_identity[]."
L = "storage.fsx_lustre.<name>."
TEAMS = "cli/test_task_governance"
READ_ONLY, LOGS = (
    f"arn:aws:iam::aws:policy/{name}"
    for name in ("AmazonS3ReadOnlyAccess", "CloudWatchAgentServerPolicy")
)
KEPT = "UpdateCluster keeps it for life; the group is deleted and created again"
THEIRS = "a running cluster keeps what was created for it"
NODES = "UpdateCluster; nodes that run keep theirs until they are replaced"
IMAGE = "UpdateClusterSoftware, which drains no pods and replaces root volumes"
ENTRY = "access entry and policy association change"
NOT_EXCHANGED = "test_existing::test_what_create_made_is_not_exchanged_for_yours"
CHART = "test_change::test_a_new_chart_and_new_scripts_reach_the_cluster"
MIRRORED = "cli/test_mirror::test_images_that_a_template_names_are_replaced"
CHARTS = "test_further_charts::test_charts_come_change_and_go_with_the_config"
EXISTING = "cli/test_existing_files::test_a_volume_never_gets_another_file_system"
FILES = "cli/test_storage::test_no_change_of_the_config_loses_it"
SPACES = "cli/test_storage::test_more_namespaces_and_space_are_added_in_place"
MOUNTS = "cli/test_storage::test_nodes_mount_a_new_one_once_it_exists"
LINKS = "cli/test_storage::test_links_to_s3_come_change_and_go_without_files"
LUSTRE = "cli/test_storage::test_settings_change_in_place_or_not_at_all"
STATE = "cli/test_s3_state::test_another_place_of_the_manifest_changes_nothing_else"
PODS = "cli/test_pod_roles::test_addons_get_the_roles_that_they_need"
PODS_OF_WORK = "cli/test_pod_roles::test_workloads_get_roles_by_namespace_and_service_account"
OPERATORS = "cli/test_operators::test_the_training_operator_comes_in_one_switch"
METRICS = "cli/test_operators::test_metrics_and_logs_are_kept_until_their_delete_is_asked_for"
POOLS = (
    "cli/test_scaling::test_an_override_changes_the_pool_and_a_removed_pool_takes_its_nodes_along"
)
PLACE = "test_short_ways::test_a_name_is_a_cluster_and_a_region_is_for_life"


ROWS = (
    Row("name", ANOTHER, "the first one stays, with its manifest", shown=PLACE),
    Row("region", REFUSED, "the manifest belongs to one region", shown=PLACE),
    Row("state", IN_PLACE, "the manifest is written there from then on", shown=STATE),
    Row("account", IN_PLACE, "a guard, nothing else", ACCOUNT),
    Row("tags", LATER, "what exists keeps the tags that it was created with", {"team": "x"}),
    Row("network.cidr", REFUSED, "a VPC keeps its first block", "10.4.0.0/16", says="first block"),
    Row(
        "network.availability_zone_ids",
        IN_PLACE,
        "zones are added at the end, for nodes alone",
        lambda zones: [*zones, "usw2-az3"],
    ),
    Row(
        "network.availability_zone_ids",
        REFUSED,
        "a zone cannot be removed: EKS keeps those that it was created with",
        lambda zones: zones[:2],
        says="a zone cannot be removed",
    ),
    Row(
        "network.secondary_cidrs",
        CONSENT,
        "groups whose zones are named move to the new subnets",
        ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"],
    ),
    Row("network.nat", IN_PLACE, "gateways, addresses and routes come and go", "per-az"),
    Row("network.interface_endpoints", IN_PLACE, "endpoints come and go", ["ecr.api", "sqs"]),
    Row(
        "network.endpoint_policy",
        IN_PLACE,
        "ModifyVpcEndpoint",
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": "*"}],
        },
    ),
    Row(
        "network.security_groups",
        IN_PLACE,
        "the nodes' rules change, and the control plane's interfaces wear another group",
        "strict",
    ),
    Row("network.storage_ports", IN_PLACE, "rules come and go", True),
    Row("network.subnet_tags", IN_PLACE, "added; tags no longer named stay", {"a": "b"}),
    Row(
        "eks.version",
        IN_PLACE,
        "one minor version at a time, add-ons after it; nodes keep their kubelet until "
        "`update-software`",
        "1.35",
    ),
    Row(
        "eks.version",
        CONSENT,
        "while nodes are not Ready",
        shown="test_change::test_kubernetes_is_not_upgraded_past_what_nodes_and_addons_live_with",
    ),
    Row(
        "eks.version",
        REFUSED,
        "EKS does not go back, nor past what kubelets and add-ons live with",
        "1.34",
        says="does not go back",
    ),
    Row("eks.allow_untested_version", IN_PLACE, "a guard, nothing else", True),
    Row("eks.support_type", IN_PLACE, "UpdateClusterConfig", "STANDARD"),
    Row("eks.log_types", CONSENT, "UpdateClusterConfig; more of them need none", ["api"]),
    Row("eks.log_retention_days", IN_PLACE, "PutRetentionPolicy; fewer need --yes", 60),
    Row(
        "eks.public_access_cidrs",
        IN_PLACE,
        "UpdateClusterConfig; wider ones need --yes",
        ["127.0.0.0/8"],
    ),
    Row("eks.endpoint_private_access", IN_PLACE, "UpdateClusterConfig", False),
    Row("eks.endpoint_private_access", IN_PLACE, "UpdateClusterConfig", True),
    Row("eks.endpoint_public_access", IN_PLACE, "UpdateClusterConfig", False),
    Row("eks.access", IN_PLACE, "entries come and go", [{"principal_arn": ROLE}]),
    Row(A + "policy", IN_PLACE, ENTRY, "AmazonEKSViewPolicy"),
    Row(A + "namespaces", IN_PLACE, ENTRY, ["default"]),
    Row(A + "kubernetes_groups", IN_PLACE, ENTRY, ["team"]),
    Row(A + "principal_arn", IN_PLACE, "one entry comes, the other goes", OTHER_ROLE),
    Row("addons", IN_PLACE, "add-ons come and go", lambda all_: {**all_, "metrics-server": {}}),
    Row("addons.<name>.version", IN_PLACE, "UpdateAddon", "v1.21.1-eksbuild.1"),
    Row("addons.<name>.configuration_values", IN_PLACE, "UpdateAddon", {"env": {"A": "1"}}),
    Row(
        "addons.<name>.pod_identity_associations",
        IN_PLACE,
        "UpdateAddon",
        [{"service_account": "aws-node", "role_arn": f"arn:aws:iam::{ACCOUNT}:role/team/Pods"}],
    ),
    Row("addons.<name>.buckets", IN_PLACE, "the policy of its role changes", shown=PODS),
    Row(
        "operators",
        IN_PLACE,
        "add-ons and roles come and go; removing `inference` deletes the OIDC provider (--yes)",
        shown=OPERATORS,
    ),
    Row(
        "monitoring",
        IN_PLACE,
        "add-on, role and log groups come; the add-on and its role go, metrics and logs stay",
        shown=METRICS,
    ),
    Row(
        "prometheus.workspace_arn",
        IN_PLACE,
        "UpdateAddon and the policy of its role; the workspace before it stays",
        shown="cli/test_operators::test_an_existing_workspace_is_used_as_it_is_and_must_exist",
    ),
    Row("prometheus.levels", IN_PLACE, "UpdateAddon", shown="cli/test_operators"),
    Row(
        "pod_identity",
        IN_PLACE,
        "roles and associations come and go",
        [{"namespace": "a", "service_account": "b", "policies": [READ_ONLY]}],
    ),
    Row(P + "policies", IN_PLACE, "policies are attached and detached", [READ_ONLY, LOGS]),
    Row(
        P + "statements",
        IN_PLACE,
        "the role gets a policy of its own, or another version of it",
        [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}],
    ),
    Row(P + "namespace", IN_PLACE, "one association and role come, the others go", "c"),
    Row(P + "service_account", IN_PLACE, "one association and role come, the others go", "d"),
    Row(P + "role_arn", IN_PLACE, "the association gets another role", shown=PODS_OF_WORK),
    Row("chart.path", IN_PLACE, "helm upgrades the release", shown=CHART),
    Row(
        "chart.values",
        IN_PLACE,
        "helm upgrades the release",
        {"health-monitoring-agent": {"enabled": False}},
    ),
    Row("chart.images", IN_PLACE, "helm upgrades the release", shown=MIRRORED),
    Row("charts.<name>.images", IN_PLACE, "helm upgrades the release", shown=MIRRORED),
    Row("charts", IN_PLACE, "releases come and go; what `crds` defines stays", shown=CHARTS),
    Row("charts.<name>.chart", IN_PLACE, "helm upgrades the release", shown=CHARTS),
    Row("charts.<name>.repository", IN_PLACE, "helm upgrades the release", shown=CHARTS),
    Row("charts.<name>.version", IN_PLACE, "helm upgrades the release", shown=CHARTS),
    Row(
        "charts.<name>.namespace",
        REFUSED,
        "helm cannot move a release",
        shown="test_further_charts::test_a_release_stays_in_its_namespace",
    ),
    Row("charts.<name>.values", IN_PLACE, "helm upgrades the release", shown=CHARTS),
    Row("charts.<name>.after", LATER, "the order of what is installed or deleted", shown=CHARTS),
    Row(
        "objects",
        IN_PLACE,
        "objects come and go; --yes for a field that others have set",
        [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}}],
    ),
    Row(
        "lifecycle.path",
        IN_PLACE,
        "files are uploaded; nodes that come later run them",
        shown=CHART,
    ),
    Row("lifecycle.on_create", IN_PLACE, "UpdateCluster, for nodes that come later", shown=CHART),
    Row("node_recovery", IN_PLACE, "UpdateCluster", "None"),
    Row(
        "node_provisioning_mode",
        REFUSED,
        "HyperPod does not go back from Continuous",
        says="does not go back from Continuous",
    ),
    Row("tiered_storage_config", IN_PLACE, "UpdateCluster", {"mode": "Enable"}),
    Row(
        "instance_groups",
        IN_PLACE,
        "a new group",
        lambda groups: [
            *groups,
            {"name": "c", "instance_type": "ml.m5.2xlarge", "instance_count": 1},
        ],
    ),
    Row(
        "instance_groups",
        CONSENT,
        "a group that is removed loses its nodes",
        lambda groups: groups[:-1],
    ),
    Row(G + "name", CONSENT, "another name is another group", "z"),
    Row(G + "instance_count", IN_PLACE, "more nodes", 3),
    Row(G + "instance_count", CONSENT, "fewer nodes", 1),
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
    Row(
        G + "training_plan_arn",
        IN_PLACE,
        "UpdateCluster; checked as for a new group",
        shown="test_groups::test_a_training_plan_must_fit_and_can_be_exchanged",
    ),
    Row(
        G + "scheduled_update_config",
        IN_PLACE,
        "UpdateCluster",
        {
            "schedule_expression": "cron(0 3 ? * SUN *)",
            "deployment_config": {
                "rolling_update_policy": {
                    "maximum_batch_size": {"type": "CAPACITY_PERCENTAGE", "value": 25}
                },
                "auto_rollback_configuration": [{"alarm_name": "jobs-failing"}],
            },
        },
    ),
    Row(G + "auto_patch_config", IN_PLACE, "UpdateCluster", {"patching_strategy": "WhenIdle"}),
    Row(G + "kubernetes_config", IN_PLACE, "UpdateCluster", {"labels": {"team": "x"}}),
    Row(G + "network_interface", IN_PLACE, NODES, {"interface_type": "efa-only"}),
    Row(G + "image_id", CONSENT, IMAGE, "ami-0123456789abcdef0"),
    Row(G + "image_release_version", CONSENT, IMAGE, "1.2.0"),
    Row(G + "execution_role", IN_PLACE, NODES, NODE_ROLE),
    Row(
        G + "life_cycle_config",
        IN_PLACE,
        NODES,
        {"on_create": "on_create.sh", "on_init_complete": "on_create.sh"},
    ),
    Row(G + "instance_type", CONSENT, KEPT, "ml.g5.4xlarge"),
    Row(
        G + "instance_requirements",
        CONSENT,
        KEPT,
        {"instance_types": ["ml.g5.4xlarge", "ml.g5.2xlarge"]},
    ),
    Row(G + "capacity_requirements", CONSENT, KEPT, {"spot": {}}),
    Row(G + "availability_zone_ids", CONSENT, KEPT, ["usw2-az2"]),
    Row(
        "restricted_instance_groups",
        IN_PLACE,
        "a new group",
        [{"name": "r", "instance_type": "ml.g5.2xlarge", "instance_count": 1}],
    ),
    Row(
        R + "environment_config",
        IN_PLACE,
        "UpdateCluster",
        {"fsx_lustre_config": {"size_in_gib": 1200, "per_unit_storage_throughput": 250}},
    ),
    Row(
        "restricted_instance_groups_config",
        IN_PLACE,
        "UpdateCluster",
        {
            "shared_environment_config": {
                "fsx_lustre_deletion_policy": "Keep",
                "fsx_lustre_config": {"size_in_gib": 2400, "per_unit_storage_throughput": 250},
            }
        },
    ),
    Row(
        "restricted_instance_groups",
        CONSENT,
        "a group that is removed loses its nodes; its other settings are as those of "
        "`instance_groups`",
        [],
    ),
    *(
        Row(f"existing.{name}", REFUSED, THEIRS, shown=NOT_EXCHANGED)
        for name in ("vpc", "private_subnets", "nat_gateways", "s3_endpoint", "security_group")
    ),
    Row(
        "existing.route_tables",
        IN_PLACE,
        "they get the S3 endpoint's route",
        shown="test_existing::test_a_cluster_in_a_vpc_that_is_there",
    ),
    *(
        Row(f"existing.{name}", REFUSED, THEIRS, shown=NOT_EXCHANGED)
        for name in ("eks_cluster", "cluster_role", "execution_role", "bucket", "helm_release")
    ),
    Row("encryption.eks_secrets", IN_PLACE, "AssociateEncryptionConfig, once", KEY),
    Row(
        "encryption.eks_secrets",
        REFUSED,
        "EKS keeps the key that it has",
        OTHER_KEY,
        says="EKS keeps the key",
    ),
    Row("encryption.volumes", IN_PLACE, NODES, KEY),
    Row("encryption.bucket", IN_PLACE, "PutBucketEncryption, for new objects", KEY),
    Row("encryption.logs", IN_PLACE, "AssociateKmsKey", KEY),
    Row("iam.path", REFUSED, "IAM moves no role", "/team/", says="IAM moves no role"),
    Row(
        "iam.permissions_boundary",
        IN_PLACE,
        "PutRolePermissionsBoundary",
        "arn:aws:iam::aws:policy/PowerUserAccess",
    ),
    Row(
        "storage.fsx_lustre", IN_PLACE, "new ones are created; others stay, with data", shown=FILES
    ),
    Row(L + "file_system_id", REFUSED, THEIRS, shown=FILES),
    Row(L + "namespaces", IN_PLACE, "volumes and claims come and go; data stays", shown=SPACES),
    Row(L + "mount_on", IN_PLACE, NODES, shown=MOUNTS),
    *(
        Row(L + name, IN_PLACE, why, shown=LUSTRE)
        for name, why in {
            "storage_capacity": "UpdateFileSystem; it grows, and never shrinks",
            "per_unit_storage_throughput": "UpdateFileSystem",
            "throughput_capacity": "UpdateFileSystem; it is never lowered",
            "data_read_cache_configuration": "UpdateFileSystem",
            "metadata_configuration": "UpdateFileSystem; iops are never lowered",
            "file_system_type_version": "UpdateFileSystem; only a newer one",
            "data_compression_type": "UpdateFileSystem",
            "daily_automatic_backup_start_time": "UpdateFileSystem",
            "weekly_maintenance_start_time": "UpdateFileSystem",
            "root_squash_configuration": "UpdateFileSystem",
        }.items()
    ),
    Row(
        L + "automatic_backup_retention_days",
        IN_PLACE,
        "UpdateFileSystem; fewer days delete backups, and need --yes",
        shown=LUSTRE,
    ),
    *(
        Row(L + name, REFUSED, "FSx sets it only when it creates a file system", shown=LUSTRE)
        for name in (
            "deployment_type",
            "storage_type",
            "drive_cache_type",
            "efa_enabled",
            "kms_key",
            "copy_tags_to_backups",
        )
    ),
    Row(L + "s3", IN_PLACE, "links come and go; files stay in both", shown=LINKS),
    Row(L + "s3[].file_system_path", REFUSED, "another path is another link", shown=LINKS),
    Row(L + "s3[].data_repository_path", REFUSED, "FSx does not change it", shown=LINKS),
    Row(L + "s3[].batch_import_meta_data_on_create", LATER, "when it is created", shown=LINKS),
    Row(L + "s3[].auto_import", IN_PLACE, "UpdateDataRepositoryAssociation", shown=LINKS),
    Row(L + "s3[].auto_export", IN_PLACE, "UpdateDataRepositoryAssociation", shown=LINKS),
    Row(L + "availability_zone_id", REFUSED, "FSx does not move a file system", shown=FILES),
    *(
        Row(f"storage.{section}", IN_PLACE, "volumes and claims come and go", shown=EXISTING)
        for section in ("efs", "fsx_openzfs")
    ),
    *(
        Row(f"storage.{setting}", outcome, why, shown=EXISTING)
        for settings, outcome, why in (
            (
                (
                    "efs.<name>.file_system_id",
                    "efs.<name>.access_point_id",
                    "fsx_openzfs.<name>.file_system_id",
                    "fsx_openzfs.<name>.volume_id",
                    "fsx_openzfs.<name>.volume_path",
                ),
                REFUSED,
                "Kubernetes does not give a volume another file system; set `namespaces: []` first",
            ),
            (
                ("efs.<name>.namespaces", "fsx_openzfs.<name>.namespaces"),
                IN_PLACE,
                "volumes and claims come and go; data stays",
            ),
        )
        for setting in settings
    ),
    Row("iam.node_policy", IN_PLACE, "CreatePolicyVersion", "documented"),
    Row("auto_scaling.mode", IN_PLACE, "UpdateCluster; its role comes and goes", "Enable"),
    Row("auto_scaling.auto_scaler_type", IN_PLACE, "UpdateCluster", shown="cli/test_scaling"),
    Row(
        "auto_scaling.node_pools",
        CONSENT,
        "each is a HyperpodNodeClass and a NodePool; a pool that is removed loses its nodes, "
        "before Karpenter or its groups go",
        shown=POOLS,
    ),
    Row(
        "auto_scaling.node_pools[].name",
        CONSENT,
        "another pool comes, and this one goes with its nodes",
        shown="cli/test_scaling",
    ),
    Row(
        "auto_scaling.node_pools[].instance_groups",
        IN_PLACE,
        "Karpenter replaces nodes of a group that leaves; one that leaves the cluster at the same "
        "time leaves the HyperpodNodeClass before",
        shown="cli/test_scaling::test_a_group_leaves_its_pool_and_the_cluster_together",
    ),
    Row("auto_scaling.node_pools[].spec", IN_PLACE, "the NodePool is applied", shown=POOLS),
    Row(
        "teams",
        CONSENT,
        "a compute quota for each; SageMaker deletes a team's namespace with its quota",
        shown=f"{TEAMS}::test_a_team_is_deleted_with_consent_that_names_its_namespace",
    ),
    *(
        Row(
            f"teams.<name>.{name}",
            IN_PLACE,
            "UpdateComputeQuota; what somebody else has set is set back with --yes",
            shown=TEAMS,
        )
        for name in (
            "quota",
            "fair_share_weight",
            "resource_sharing_config",
            "preempt_team_tasks",
            "activation_state",
        )
    ),
    *(
        Row(f"teams.<name>.{name}", IN_PLACE, "access entries and policies change", shown=TEAMS)
        for name in ("people", "policies", "namespaces")
    ),
    *(
        Row(
            f"scheduler_config.{name}",
            IN_PLACE,
            "UpdateClusterSchedulerConfig; what somebody else has set is set back with --yes",
            shown=TEAMS,
        )
        for name in ("priority_classes", "fair_share", "idle_resource_sharing")
    ),
    Row("deletion_protection", IN_PLACE, "UpdateClusterConfig; off needs --yes", True),
)


def page() -> str:
    """Return docs/change.md."""
    lines = [
        "# Changing a running cluster",
        "",
        "<!-- Written by scripts/generate.py from tests/change/rows.py: change it there. -->",
        "",
        "Edit the file and run `create` again. `create` first lists the changes that remove nodes",
        "or data, expose the cluster or reduce its protection, and asks for confirmation; without",
        "a terminal they need `--yes`. What AWS cannot change is refused, with the reason, before",
        "anything is changed. What the file no longer declares is removed last.",
        "",
        "`scale NAME GROUP=COUNT` changes a count in the cluster, and with `-f` in the file;",
        "`update-software NAME --batch 1` gives the nodes the newest AMI, one at a time.",
        "",
        "| Setting | Outcome | How, or why not | Shown by |",
        "| --- | --- | --- | --- |",
    ]
    rows = [
        f"| `{row.setting}` | {row.outcome} | {row.why} | `{row.shown or 'test_settings'}` |"
        for row in ROWS
    ]
    tail = [
        "",
        "*test_settings* changes one setting of a running cluster on the embedded stack, and",
        "checks the result there (`make prove` tries every row, `make test` some). All these tests",
        "are in `tests/change/`.",
        "",
    ]
    return "\n".join([*lines, *dict.fromkeys(rows), *tail])
