"""Changes of a running cluster: applied, applied after confirmation, or refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.addons import NEEDED_ADDONS
from hyperpod_eks.config.lifecycle import packaged_lifecycle
from hyperpod_eks.errors import Usage
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws import eks_data
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resources.access_entry import caller
from hyperpod_eks.resources.trust import trust

from .conftest import Owner

HEAD = "name: demo\nregion: us-west-2\n"


def groups(*rows: str) -> str:
    return HEAD + "instance_groups:\n" + "".join(f"- {{{row}}}\n" for row in rows)


A = "name: a, instance_type: ml.m5.2xlarge, instance_count: 3"
B = "name: b, instance_type: ml.m5.2xlarge, instance_count: 1"


def test_nodes_go_with_consent_only(owner: Owner) -> None:
    owner.declares(groups(A, B))
    # additional nodes need no confirmation
    owner.declares(groups(A.replace("3", "4"), B))
    assert owner.groups()["a"]["CurrentCount"] == len(owner.nodes("a")) == 4
    for text, lost in (
        (groups(A, B), "instance group a: 1 of its 4 nodes go"),
        (groups(A.replace("3", "4")), "instance group b: it goes, with its one node"),
        (
            groups(A.replace("3", "4"), B.replace("m5", "m6i")),
            "instance group b: its one node is replaced, to change its type",
        ),
    ):
        with pytest.raises(Usage, match=lost):
            owner.declares(text)
        assert owner.mutations() == []
    # nor is a resource created that the cluster needs first
    more = groups(A.replace("3", "4")) + "network: {interface_endpoints: [sqs]}\n"
    with pytest.raises(Usage, match="instance group b: it goes, with its one node"):
        owner.declares(more)
    assert owner.mutations() == []
    assert len(owner.nodes()) == 5
    # with confirmation they go
    owner.declares(groups(A.replace("3", "4"), B.replace("m5", "m6i")), yes=True)
    assert owner.groups()["b"]["InstanceType"] == "ml.m6i.2xlarge"
    assert len(owner.nodes("b")) == 1
    owner.declares(groups(A), yes=True)
    assert list(owner.groups()) == ["a"]
    assert len(owner.nodes()) == 3
    assert owner.declares(groups(A)) == []
    # the last group cannot be replaced under its name, even with confirmation
    with pytest.raises(Usage, match="keeps at least one group"):
        owner.declares(groups(A.replace("m5", "m6i")), yes=True)
    # one change can add a group and remove another
    owner.declares(groups(B), yes=True)
    assert list(owner.groups()) == ["b"]


@pytest.mark.prove
def test_what_is_left_out_of_a_group_is_reset_and_the_others_stay_whole(owner: Owner) -> None:
    full = (
        A + ", kubernetes_config: {labels: {team: x}, taints: [{key: k, effect: NoSchedule}]}, "
        "auto_patch_config: {patching_strategy: DrainFirst, "
        "drain_policy: {on_drain_timeout: Force}}"
    )
    owner.declares(groups(full, B))
    before = owner.groups()
    owner.declares(groups(full, B.replace("1", "2")))
    after = owner.groups()
    assert after["a"] == before["a"]
    assert after["b"]["CurrentCount"] == 2
    owner.declares(groups(A, B.replace("1", "2")))
    assert "KubernetesConfig" not in owner.groups()["a"]
    assert "AutoPatchConfig" not in owner.groups()["a"]
    assert owner.declares(groups(A, B.replace("1", "2"))) == []


@pytest.mark.prove
def test_a_group_that_names_no_zone_stays_where_it_is(owner: Owner) -> None:
    owner.declares(groups(A))
    home = owner.groups()["a"]["OverrideVpcConfig"]
    other = HEAD + "network: {availability_zone_ids: [usw2-az2, usw2-az1]}\n"
    text = groups(A.replace("3", "4")).replace(HEAD, other)
    with pytest.raises(Usage, match="cidr"):  # the order of zones determines their blocks
        owner.declares(text)
    owner.declares(groups(A.replace("3", "4")))
    assert owner.groups()["a"]["OverrideVpcConfig"] == home


@pytest.mark.prove
def test_kubernetes_goes_up_one_minor_version_at_a_time_with_its_addons(owner: Owner) -> None:
    text = HEAD + 'eks: {version: "%s"}\n'
    owner.declares(text % "1.33")
    with pytest.raises(Usage, match=r"one minor version at a time: 1\.34, then 1\.35"):
        owner.declares(text % "1.35")
    with pytest.raises(Usage, match="does not go back to an older version"):
        owner.declares(text % "1.32")
    proxy = owner.aws.eks.describe_addon(clusterName="demo", addonName="kube-proxy")["addon"]
    owner.declares(text % "1.34")
    assert owner.eks()["version"] == "1.34"
    newer = owner.aws.eks.describe_addon(clusterName="demo", addonName="kube-proxy")["addon"]
    assert (proxy["addonVersion"][:5], newer["addonVersion"][:5]) == ("v1.33", "v1.34")
    assert owner.declares(text % "1.34") == []


@pytest.mark.prove
def test_kubernetes_is_not_upgraded_past_what_nodes_and_addons_live_with(owner: Owner) -> None:
    text = HEAD + 'eks: {version: "%s"}\n'
    owner.declares(text % "1.32")
    kubernetes = owner.stack.sim.clusters[owner.eks()["arn"]]
    (ill, _) = (node["metadata"]["name"] for node in owner.nodes())
    # nodes that are not Ready may not return: a person must decide
    kubernetes.set_node_ready(ill, ready=False)
    with pytest.raises(Usage, match=rf"1\.32 to 1\.33 while nodes are not Ready: {ill} \("):
        owner.declares(text % "1.33")
    assert owner.mutations() == []
    kubernetes.set_node_ready(ill)
    for version in ("1.33", "1.34", "1.35"):
        owner.declares(text % version)
    # nodes keep their first kubelet, which is too old for 1.36
    assert {n["status"]["nodeInfo"]["kubeletVersion"][:5] for n in owner.nodes()} == {"v1.32"}
    (nodes,) = [s.live for s in owner.looks(text % "1.35") if s.want.key == "hyperpod/nodes"]
    assert nodes
    assert "kubelet 1.32 until `hyperpod-eks update-software`" in nodes.why
    untested = 'eks: {allow_untested_version: true, version: "1.36"}\n'
    with pytest.raises(Usage, match=r"2 nodes .* have the kubelet 1\.32\S+, and it takes 1\.33"):
        owner.declares(HEAD + untested, yes=True)
    owner.aws.sagemaker.update_cluster_software(ClusterName="demo")
    # an add-on of another owner has no version for 1.36
    there = dict(eks_data.ADDONS)
    name = "amazon-sagemaker-hyperpod-training-operator"
    owner.aws.eks.create_addon(clusterName="demo", addonName=name)
    old = {"v1.2.1-eksbuild.1": "1.31-1.35"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(eks_data.ADDONS, name, replace(there[name], versions=old))
        with pytest.raises(Usage, match=f"EKS has no version of the add-on {name} for it"):
            owner.declares(HEAD + untested, yes=True)
        assert owner.mutations() == []
    owner.declares(HEAD + untested)
    assert owner.eks()["version"] == "1.36"


@pytest.mark.prove
def test_people_come_and_go(owner: Owner) -> None:
    iam = owner.aws.iam
    for name in ("ann", "bob"):
        iam.create_user(UserName=name)
    arn = "arn:aws:iam::123456789012:user/"
    both = (
        HEAD + f"eks: {{access: [{{principal_arn: '{arn}ann'}}, {{principal_arn: '{arn}bob'}}]}}\n"
    )
    owner.declares(both)
    only = HEAD + (
        f"eks: {{access: [{{principal_arn: '{arn}ann', policy: AmazonEKSViewPolicy, "
        "namespaces: [a, b], kubernetes_groups: [team]}]}\n"
    )
    owner.declares(only)
    assert owner.declares(only) == []
    entries = owner.aws.eks.list_access_entries(clusterName="demo")["accessEntries"]
    assert f"{arn}bob" not in entries
    (policy,) = owner.aws.eks.list_associated_access_policies(
        clusterName="demo", principalArn=f"{arn}ann"
    )["associatedAccessPolicies"]
    assert policy["policyArn"].endswith("/AmazonEKSViewPolicy")
    assert policy["accessScope"] == {"type": "namespace", "namespaces": ["a", "b"]}
    # only the team's own RBAC
    groups = only.replace("AmazonEKSViewPolicy, namespaces: [a, b]", "null")
    owner.declares(groups)
    assert owner.declares(groups) == []
    about: Any = {"clusterName": "demo", "principalArn": f"{arn}ann"}
    assert owner.aws.eks.describe_access_entry(**about)["accessEntry"]["kubernetesGroups"] == [
        "team"
    ]
    assert owner.aws.eks.list_associated_access_policies(**about)["associatedAccessPolicies"] == []
    owner.declares(HEAD)
    owner.declares(groups)
    assert owner.declares(groups) == []


def test_who_creates_is_no_less_than_its_administrator(owner: Owner) -> None:
    me = caller(Snapshot(owner.aws))
    text = HEAD + f"eks: {{access: [{{principal_arn: '{me}'}}]}}\n"
    with pytest.raises(Usage, match=rf"eks\.access: {me} is your own identity, and whoever runs"):
        owner.declares(text.replace("}]", ", policy: AmazonEKSViewPolicy}]"))
    assert owner.mutations() == []
    owner.declares(text)
    assert owner.declares(text) == []
    assert owner.deletes(text) == []
    assert owner.account() == owner.before


@pytest.mark.prove
def test_addons_beside_the_four_come_with_their_roles_and_go(owner: Owner) -> None:
    iam: Any = owner.aws.iam
    document = trust("pods.eks.amazonaws.com")
    document["Statement"][0]["Action"] = ["sts:AssumeRole", "sts:TagSession"]
    arns = [
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(document))["Role"]["Arn"]
        for name in ("Storage", "Storage2")
    ]
    text = (
        HEAD
        + f"""\
addons:
  cert-manager:
  metrics-server: {{configuration_values: {{replicas: 1}}}}
  aws-fsx-csi-driver:
    pod_identity_associations:
    - {{service_account: fsx-csi-controller-sa, role_arn: {arns[0]}}}
  aws-mountpoint-s3-csi-driver: {{version: v2.8.0-eksbuild.1}}
"""
    )
    made = owner.declares(text)
    assert made.count("CreateAddon") == 8
    assert owner.declares(text) == []

    def addons() -> Any:
        return owner.stack.inventory()["us-west-2"]["eks"]["demo"]["Addons"]

    assert {name: addon["Status"] for name, addon in addons().items()} == dict.fromkeys(
        [
            *NEEDED_ADDONS,
            "cert-manager",
            "metrics-server",
            "aws-fsx-csi-driver",
            "aws-mountpoint-s3-csi-driver",
        ],
        "ACTIVE",
    )
    assert json.loads(addons()["metrics-server"]["Configuration"]) == {"replicas": 1}
    (content,) = owner.stack.inventory()["kubernetes"].values()
    assert any(key.endswith("/fsx-csi-controller") for key in content)

    def roles() -> list[str]:
        found: Any = owner.aws.eks.list_pod_identity_associations(clusterName="demo")
        return [
            owner.aws.eks.describe_pod_identity_association(
                clusterName="demo", associationId=each["associationId"]
            )["association"]["roleArn"]
            for each in found["associations"]
        ]

    assert roles() == arns[:1]
    # the same settings, changed by hand and written as YAML
    owner.aws.eks.update_addon(
        clusterName="demo", addonName="metrics-server", configurationValues="replicas: 1\n"
    )
    assert owner.declares(text) == []
    # another role, removed settings, a removed add-on
    changed = text.replace(arns[0], arns[1]).replace("{configuration_values: {replicas: 1}}", "")
    changed = changed.replace("  cert-manager:\n", "")
    owner.declares(changed)
    assert owner.declares(changed) == []
    assert roles() == arns[1:]
    assert json.loads(addons()["metrics-server"]["Configuration"]) == {}
    assert "cert-manager" not in addons()


@pytest.mark.prove
def test_a_new_chart_and_new_scripts_reach_the_cluster(owner: Owner) -> None:
    scripts = owner.folder / "scripts"
    shutil.copytree(packaged_lifecycle(), scripts)
    text = HEAD + "lifecycle: {path: scripts}\n"
    owner.declares(text)
    before = owner.groups()
    # the chart: another template creates another object
    owner.chart = owner.folder / "chart"
    shutil.copytree(CHART, owner.chart)
    (owner.chart / "templates" / "more.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more, namespace: kube-system}\n"
    )
    assert owner.declares(text) == []  # no call to AWS
    (content,) = owner.stack.inventory()["kubernetes"].values()
    assert any("configmaps" in key and key.endswith("/more") for key in content)
    # the scripts: changed ones are sent, and the cluster is not updated
    (scripts / "on_create.sh").write_text("#!/bin/bash\n./more.sh\n")
    (scripts / "more.sh").write_text("#!/bin/bash\ntrue\n")
    assert set(owner.declares(text)) == {"PutObject"}
    uri = before["worker-group"]["LifeCycleConfig"]["SourceS3Uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    sent = owner.aws.s3.get_object(Bucket=bucket, Key=f"{prefix}more.sh")["Body"].read()
    assert sent == (scripts / "more.sh").read_bytes()
    assert owner.groups() == before
    # another entry script applies to later nodes
    (scripts / "start.sh").write_text("#!/bin/bash\ntrue\n")
    later = text.replace("path: scripts", "path: scripts, on_create: start.sh")
    assert set(owner.declares(later)) == {"PutObject", "UpdateCluster"}
    assert owner.groups()["worker-group"]["LifeCycleConfig"]["OnCreate"] == "start.sh"
    assert owner.declares(later) == []


def test_an_update_whose_answer_is_lost_is_not_taken_for_an_error(owner: Owner) -> None:
    """botocore repeats the request, which no longer changes anything, so that EKS refuses it."""
    owner.declares(HEAD)
    for change in ("eks: {endpoint_private_access: false}\n", "deletion_protection: true\n"):
        owner.stack.faults.append(Fault("eks", "UpdateClusterConfig", kind="lost"))
        assert "UpdateClusterConfig" in owner.declares(HEAD + change)
        assert owner.stack.faults[-1].count == 0
        assert owner.declares(HEAD + change) == []


def test_scripts_in_a_bucket_with_a_key_of_its_own_are_sent_once(owner: Owner) -> None:
    """With a KMS key, ETags are not MD5 digests."""
    kms: Any = owner.aws.session.create_client("kms")
    text = HEAD + f"encryption: {{bucket: '{kms.create_key()['KeyMetadata']['Arn']}'}}\n"
    assert "PutObject" in owner.declares(text)
    assert owner.declares(text) == []


@pytest.mark.prove
def test_keys_of_your_own_encrypt_and_that_of_the_secrets_is_kept(owner: Owner) -> None:
    kms: Any = owner.aws.session.create_client("kms")
    one, other = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    text = HEAD + "encryption: {volumes: 'K', bucket: 'K', logs: 'K'%s}\n".replace("K", one)
    owner.declares(text % "")
    (volume,) = owner.groups()["worker-group"]["InstanceStorageConfigs"]
    assert volume["EbsVolumeConfig"]["VolumeKmsKeyId"] == one
    s3: Any = owner.aws.s3
    bucket = owner.config(text % "").bucket("123456789012")
    (rule,) = s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["KMSMasterKeyID"] == one
    logs: Any = owner.aws.logs
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/aws/eks/demo")["logGroups"]
    assert group["kmsKeyId"] == one
    # a running cluster's secrets can be encrypted once, with one key
    secrets = text % f", eks_secrets: '{one}'"
    assert owner.declares(secrets) == ["AssociateEncryptionConfig"]
    assert owner.declares(secrets) == []
    encryption = [{"resources": ["secrets"], "provider": {"keyArn": one}}]
    assert owner.eks()["encryptionConfig"] == encryption
    for changed in (text % "", text % f", eks_secrets: '{other}'"):
        with pytest.raises(Usage, match="EKS keeps the key that its secrets are encrypted with"):
            owner.declares(changed, yes=True)
        assert owner.mutations() == []


def test_what_a_killed_change_has_not_sent_is_neither_refused_nor_disruptive(owner: Owner) -> None:
    """What is taken back is not described: a key that cannot be removed, a group's capacity."""
    kms: Any = owner.aws.session.create_client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    before, spot = groups(A, B), groups(A, B + ", capacity_requirements: {spot: {}}")
    owner.declares(before)
    for event, changed in (
        ("eks.AssociateEncryptionConfig", before + f"encryption: {{eks_secrets: '{key}'}}\n"),
        ("sagemaker.UpdateCluster", spot),
    ):
        assert owner.killed(f"provide-client-params.{event}", changed) == []
        assert owner.declares(before) == []
    # the group is deleted first
    assert owner.killed("after-call.sagemaker.UpdateCluster", spot) == ["UpdateCluster"]
    assert owner.declares(before) == ["UpdateCluster"]
    assert owner.declares(before) == []


def test_protection_and_encryption_go_with_consent_only(owner: Owner) -> None:
    kms: Any = owner.aws.session.create_client("kms")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    safe = HEAD + f"encryption: {{bucket: '{key}', logs: '{key}'}}\ndeletion_protection: true\n"
    owner.declares(safe)
    with pytest.raises(Usage):
        owner.declares(HEAD)
    assert owner.mutations() == []
    assert set(owner.lost) == {
        f"s3/bucket: new objects are not encrypted with {key} any more",
        f"eks/log-group: new logs are not encrypted with {key} any more",
        "eks/cluster: deletion protection is switched off",
    }
    changed = owner.declares(HEAD, yes=True)
    assert {"PutBucketEncryption", "DisassociateKmsKey", "UpdateClusterConfig"} <= set(changed)
    assert owner.declares(HEAD) == []
