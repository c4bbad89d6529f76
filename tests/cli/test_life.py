"""The resources that `create` creates, checked in the account and not in our own output."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from hyperpod_eks.aws.published import SUPPORTED_KUBERNETES
from hyperpod_eks.config.lifecycle import packaged_lifecycle
from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import ACCESS_KEY, ADMIN_ARN
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.s3 import OWN, claim_key, own_prefix
from tests.conftest import Clients, User, at_work

ACCOUNT = "123456789012"
ANYWHERE = "0.0.0.0/0"


def kept(cluster: str) -> set[str]:
    """Return the keys of what the tool itself keeps in the bucket of a new cluster."""
    return {claim_key(cluster), f"{own_prefix(cluster)}config/00000001.json"}


@dataclass
class Made:
    """A cluster of `create demo` without a config file, and its user."""

    user: User
    aws: Clients
    empty: dict[str, Any]
    calls: list[str]
    """Mutating calls, in order."""
    told: str
    """Stderr of the command."""

    @property
    def vpc(self) -> str:
        (vpc,) = (v for v in self.aws.ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"])
        return str(vpc["VpcId"])

    def inside(self, method: str, key: str, name: str = "Filters") -> list[Any]:
        """Describe the resources of a kind in the VPC."""
        there = {name: [{"Name": "vpc-id", "Values": [self.vpc]}]}
        return list(getattr(self.aws.ec2, method)(**there)[key])

    @property
    def private(self) -> list[str]:
        """Return the ids of EKS's subnets."""
        cluster = self.aws.eks.describe_cluster(name="demo")["cluster"]
        return sorted(cluster["resourcesVpcConfig"]["subnetIds"])

    def way_out(self, subnet: str) -> dict[str, Any]:
        """Return the default route of a subnet."""
        (table,) = (
            table
            for table in self.inside("describe_route_tables", "RouteTables")
            if subnet in [a.get("SubnetId") for a in table["Associations"]]
        )
        (route,) = (r for r in table["Routes"] if r.get("DestinationCidrBlock") == ANYWHERE)
        return dict(route)


@pytest.fixture(scope="module")
def made(
    one_stack: Stack, session: boto3.Session, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Made]:
    with at_work(one_stack, tmp_path_factory.mktemp("life")) as user:
        empty = one_stack.inventory()
        said = user.types("create", "demo", "--chart", str(CHART))
        assert said.code == 0, said.err
        aws = Clients(session, one_stack.endpoint)
        yield Made(user, aws, empty, user.mutations(), said.err)


class TestNetwork:
    def test_the_vpc_has_dns_support_and_hostnames(self, made: Made) -> None:
        for attribute in ("enableDnsSupport", "enableDnsHostnames"):
            answer = made.aws.ec2.describe_vpc_attribute(VpcId=made.vpc, Attribute=attribute)
            assert answer[attribute[0].upper() + attribute[1:]]["Value"] is True

    def test_private_subnets_stand_in_two_zones_that_offer_the_instance_type(
        self, made: Made
    ) -> None:
        subnets = made.aws.ec2.describe_subnets(SubnetIds=made.private)["Subnets"]
        zones = {subnet["AvailabilityZoneId"] for subnet in subnets}
        assert len(zones) == 2
        offers = made.aws.ec2.describe_instance_type_offerings(
            LocationType="availability-zone-id",
            Filters=[{"Name": "instance-type", "Values": ["m5.2xlarge"]}],
        )["InstanceTypeOfferings"]
        assert zones <= {offer["Location"] for offer in offers}
        for subnet in subnets:
            assert subnet["MapPublicIpOnLaunch"] is False
            assert subnet["AvailableIpAddressCount"] > 8000  # each p5.48xlarge needs about 81
            assert "NatGatewayId" in made.way_out(subnet["SubnetId"])

    def test_one_nat_gateway_in_a_public_subnet_is_the_way_out(self, made: Made) -> None:
        nats = made.inside("describe_nat_gateways", "NatGateways", "Filter")
        assert [nat["State"] for nat in nats] == ["available"]
        assert nats[0]["SubnetId"] not in made.private
        assert made.way_out(nats[0]["SubnetId"])["GatewayId"].startswith("igw-")
        assert made.calls.index("ec2.AttachInternetGateway") < made.calls.index("ec2.CreateRoute")

    def test_the_s3_endpoint_is_on_the_private_tables_only(self, made: Made) -> None:
        (endpoint,) = made.inside("describe_vpc_endpoints", "VpcEndpoints")
        assert endpoint["ServiceName"] == "com.amazonaws.us-west-2.s3"
        assert endpoint["VpcEndpointType"] == "Gateway"
        tables = {
            table["RouteTableId"]
            for table in made.inside("describe_route_tables", "RouteTables")
            if {a.get("SubnetId") for a in table["Associations"]} & set(made.private)
        }
        assert set(endpoint["RouteTableIds"]) == tables

    def test_the_security_group_lets_its_members_talk_and_everything_out(self, made: Made) -> None:
        cluster = made.aws.eks.describe_cluster(name="demo")["cluster"]
        ids = cluster["resourcesVpcConfig"]["securityGroupIds"]
        assert (
            ids
            == made.aws.sagemaker.describe_cluster(ClusterName="demo")["VpcConfig"][
                "SecurityGroupIds"
            ]
        )
        (group,) = made.aws.ec2.describe_security_groups(GroupIds=ids)["SecurityGroups"]

        def peers(rules: list[Any]) -> set[str]:
            assert {rule["IpProtocol"] for rule in rules} == {"-1"}
            return {
                peer.get("GroupId") or peer.get("CidrIp")
                for rule in rules
                for peer in [*rule.get("UserIdGroupPairs", ()), *rule.get("IpRanges", ())]
            }

        assert peers(group["IpPermissions"]) == set(ids)
        assert peers(group["IpPermissionsEgress"]) == {*ids, ANYWHERE}


class TestRoles:
    def trusts(self, made: Made, arn: str) -> dict[str, Any]:
        role = made.aws.iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]
        (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
        return dict(statement)

    def attached(self, made: Made, arn: str) -> list[str]:
        name = arn.rpartition("/")[2]
        found = made.aws.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
        return sorted(each["PolicyArn"] for each in found)

    def test_the_control_plane_has_eks_own_policy(self, made: Made) -> None:
        arn = made.aws.eks.describe_cluster(name="demo")["cluster"]["roleArn"]
        assert self.trusts(made, arn)["Principal"] == {"Service": "eks.amazonaws.com"}
        assert self.attached(made, arn) == ["arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"]

    def test_the_nodes_may_do_what_the_guide_lists_in_their_own_network_only(
        self, made: Made
    ) -> None:
        cluster = made.aws.sagemaker.describe_cluster(ClusterName="demo")
        (arn,) = {group["ExecutionRole"] for group in cluster["InstanceGroups"]}
        assert self.trusts(made, arn)["Principal"] == {"Service": "sagemaker.amazonaws.com"}
        managed, own = sorted(self.attached(made, arn), key=lambda a: ACCOUNT in a)
        assert managed.endswith(":aws:policy/AmazonSageMakerClusterInstanceRolePolicy")

        policy = made.aws.iam.get_policy(PolicyArn=own)["Policy"]
        document = made.aws.iam.get_policy_version(
            PolicyArn=own, VersionId=policy["DefaultVersionId"]
        )["PolicyVersion"]["Document"]
        rows = {s["Sid"]: s for s in document["Statement"]}
        actions = {action for s in document["Statement"] for action in s["Action"]}
        # SageMaker AI Developer Guide, "IAM role for SageMaker HyperPod", EKS additions
        ec2 = (
            "AssignPrivateIpAddresses AttachNetworkInterface CreateNetworkInterface"
            " CreateNetworkInterfacePermission CreateTags DeleteNetworkInterface"
            " DeleteNetworkInterfacePermission DescribeDhcpOptions DescribeInstances"
            " DescribeInstanceTypes DescribeNetworkInterfaces DescribeSecurityGroups"
            " DescribeSubnets DescribeTags DescribeVpcs DetachNetworkInterface"
            " ModifyNetworkInterfaceAttribute UnassignPrivateIpAddresses"
        )
        others = (
            "ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetAuthorizationToken"
            " ecr:GetDownloadUrlForLayer eks-auth:AssumeRoleForPodIdentity"
            " cloudwatch:DescribeAlarms fsx:DescribeFileSystems"
            " sagemaker:AttachClusterNodeNetworkInterface sts:GetCallerIdentity"
        )
        assert actions == {f"ec2:{name}" for name in ec2.split()} | set(others.split())
        places = rows["Interfaces"]["Resource"]
        for id_ in [made.vpc, *made.private]:
            assert any(place.endswith(f"/{id_}") for place in places)
        assert "*" not in places
        assert rows["Tag"]["Resource"] == ["arn:aws:ec2:*:*:network-interface/*"]
        assert rows["PodIdentity"]["Resource"].endswith(":cluster/demo")

    def test_hyperpods_own_role_is_there(self, made: Made) -> None:
        role = made.aws.iam.get_role(RoleName="AWSServiceRoleForSageMakerHyperPod")["Role"]
        assert role["Path"] == "/aws-service-role/hyperpod.sagemaker.amazonaws.com/"


class TestBucket:
    name = f"sagemaker-demo-{ACCOUNT}-us-west-2"

    def test_it_is_closed_owned_and_encrypted(self, made: Made) -> None:
        s3, at = made.aws.s3, {"Bucket": self.name}
        block = s3.get_public_access_block(**at)["PublicAccessBlockConfiguration"]
        assert len(block) == 4
        assert all(block.values())
        (rule,) = s3.get_bucket_ownership_controls(**at)["OwnershipControls"]["Rules"]
        assert rule["ObjectOwnership"] == "BucketOwnerEnforced"
        encryption = s3.get_bucket_encryption(**at)["ServerSideEncryptionConfiguration"]
        (rule,) = encryption["Rules"]
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert s3.get_bucket_location(**at)["LocationConstraint"] == "us-west-2"

    def test_it_talks_tls_only(self, made: Made) -> None:
        policy = json.loads(made.aws.s3.get_bucket_policy(Bucket=self.name)["Policy"])
        statement, nodes = policy["Statement"]
        assert nodes["Resource"] == f"arn:aws:s3:::{self.name}/{OWN}*"
        assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert set(statement["Resource"]) == {
            f"arn:aws:s3:::{self.name}", f"arn:aws:s3:::{self.name}/*",
        }  # fmt: skip

    def test_it_holds_the_lifecycle_folder(self, made: Made) -> None:
        folder = packaged_lifecycle()
        files = {f"lifecycle/{p.relative_to(folder)}": p for p in folder.rglob("*") if p.is_file()}
        there = made.aws.s3.list_objects_v2(Bucket=self.name)["Contents"]
        assert {item["Key"] for item in there} == {*files, *kept("demo")}
        for key, path in files.items():
            body = made.aws.s3.get_object(Bucket=self.name, Key=key)["Body"].read()
            assert body == path.read_bytes()


class TestEks:
    def test_the_cluster_is_one_that_hyperpod_accepts(self, made: Made) -> None:
        cluster = made.aws.eks.describe_cluster(name="demo")["cluster"]
        assert cluster["status"] == "ACTIVE"
        assert cluster["accessConfig"]["authenticationMode"] == "API"
        vpc = cluster["resourcesVpcConfig"]
        assert vpc["endpointPublicAccess"] is vpc["endpointPrivateAccess"] is True
        on = [t for s in cluster["logging"]["clusterLogging"] if s["enabled"] for t in s["types"]]
        assert sorted(on) == ["api", "audit", "authenticator", "controllerManager", "scheduler"]
        offered = made.aws.eks.describe_cluster_versions()["clusterVersions"]
        standard = {
            v["clusterVersion"] for v in offered if v["versionStatus"] == "STANDARD_SUPPORT"
        }
        assert cluster["version"] == max(standard & set(SUPPORTED_KUBERNETES))

    def test_its_logs_go_to_a_group_that_was_there_before_it(self, made: Made) -> None:
        (group,) = made.aws.logs.describe_log_groups(logGroupNamePrefix="/aws/eks/")["logGroups"]
        assert (group["logGroupName"], group["retentionInDays"]) == ("/aws/eks/demo/cluster", 30)
        assert made.calls.index("logs.PutRetentionPolicy") < made.calls.index("eks.CreateCluster")

    def test_whoever_made_it_is_its_admin_through_an_entry_of_ours(self, made: Made) -> None:
        # STS omits the role's path, which EKS requires
        assert "/team/" in ADMIN_ARN
        at = {"clusterName": "demo", "principalArn": ADMIN_ARN}
        entry = made.aws.eks.describe_access_entry(**at)["accessEntry"]
        assert entry["type"] == "STANDARD"
        assert entry["tags"]["hyperpod-eks:cluster"] == "demo"  # EKS's own entry has no tags
        (policy,) = made.aws.eks.list_associated_access_policies(**at)["associatedAccessPolicies"]
        assert policy["policyArn"].endswith("/AmazonEKSClusterAdminPolicy")
        assert policy["accessScope"]["type"] == "cluster"

    def test_the_addons_are_active_at_the_default_version(self, made: Made) -> None:
        names = made.aws.eks.list_addons(clusterName="demo")["addons"]
        assert sorted(names) == ["coredns", "eks-pod-identity-agent", "kube-proxy", "vpc-cni"]
        version = made.aws.eks.describe_cluster(name="demo")["cluster"]["version"]
        for name in names:
            addon = made.aws.eks.describe_addon(clusterName="demo", addonName=name)["addon"]
            (known,) = made.aws.eks.describe_addon_versions(
                addonName=name, kubernetesVersion=version
            )["addons"]
            (default,) = (
                v["addonVersion"]
                for v in known["addonVersions"]
                if any(c["defaultVersion"] for c in v["compatibilities"])
            )
            assert (addon["status"], addon["addonVersion"]) == ("ACTIVE", default)


class TestHyperpod:
    def test_the_request_was_what_the_guide_asks_for(self, made: Made) -> None:
        cluster = made.aws.sagemaker.describe_cluster(ClusterName="demo")
        eks = made.aws.eks.describe_cluster(name="demo")["cluster"]
        assert cluster["Orchestrator"]["Eks"]["ClusterArn"] == eks["arn"]
        assert cluster["NodeProvisioningMode"] == "Continuous"
        assert cluster["NodeRecovery"] == "Automatic"
        assert set(cluster["VpcConfig"]["Subnets"]) <= set(made.private)
        (group,) = cluster["InstanceGroups"]
        assert group["InstanceGroupName"] == "worker-group"
        assert group["InstanceType"] == "ml.m5.2xlarge"
        assert group["ThreadsPerCore"] == 1
        assert group["InstanceStorageConfigs"] == [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}]
        assert group["LifeCycleConfig"] == {
            "SourceS3Uri": f"s3://sagemaker-demo-{ACCOUNT}-us-west-2/lifecycle/",
            "OnCreate": "on_create.sh",
        }

    def test_it_carries_our_tags_and_the_one_that_addon_policies_ask_for(self, made: Made) -> None:
        arn = made.aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
        found = made.aws.sagemaker.list_tags(ResourceArn=arn)["Tags"]
        tags = {tag["Key"]: tag["Value"] for tag in found}
        assert tags["SageMaker"] == "true"
        assert tags["hyperpod-eks:cluster"] == "demo"

    def test_everything_its_nodes_need_was_there_before_it(self, made: Made) -> None:
        at = made.calls.index("sagemaker.CreateCluster")
        for call in (
            "ec2.CreateNatGateway", "ec2.CreateVpcEndpoint", "s3.PutObject", "eks.CreateAddon",
            "iam.CreateServiceLinkedRole", "eks.AssociateAccessPolicy",
        ):  # fmt: skip
            assert made.calls.index(call) < at, call

    def test_ready_means_nodes_in_kubernetes(self, made: Made) -> None:
        cluster = made.aws.sagemaker.describe_cluster(ClusterName="demo")
        assert cluster["ClusterStatus"] == "InService"
        assert [g["CurrentCount"] for g in cluster["InstanceGroups"]] == [2]
        (kubernetes,) = made.user.stack.sim.clusters.values()
        objects = kubernetes.snapshot()
        nodes = [each for key, each in objects.items() if key.startswith("nodes")]
        ready = [
            c["status"] for n in nodes for c in n["status"]["conditions"] if c["type"] == "Ready"
        ]
        assert ready == ["True", "True"]
        agent = objects["daemonsets.apps/aws-hyperpod/health-monitoring-agent"]
        assert agent["status"]["numberReady"] == 2


def test_what_was_made_is_told_as_created(made: Made) -> None:
    for key in ("network/vpc", "iam/cluster-role", "s3/bucket", "eks/cluster", "helm/release"):
        assert f" {key} created " in made.told
    assert " updated " not in made.told  # although many of them could be sent in several calls


class TestAgain:
    def test_a_second_create_changes_nothing(self, made: Made) -> None:
        before = json.dumps(made.user.stack.inventory())
        document = made.user.makes("demo")
        assert (document["ok"], document["changed"]) == (True, False)
        assert made.user.mutations() == []
        assert json.dumps(made.user.stack.inventory()) == before

    def test_without_its_manifest_it_finds_everything_again(self, made: Made) -> None:
        manifest = made.user.folder / "demo.hyperpod-eks.json"
        lost = json.loads(manifest.read_text())
        manifest.unlink()
        (made.user.folder / "demo.yaml").write_text("name: demo\nregion: us-west-2\n")
        before = json.dumps(made.user.stack.inventory())
        assert made.user.makes("demo", "-f", "demo.yaml")["changed"] is False
        assert made.user.mutations() == []
        assert json.dumps(made.user.stack.inventory()) == before
        found = json.loads(manifest.read_text())
        ids = [{k: r["id"] for k, r in each["resources"].items()} for each in (lost, found)]
        assert ids[0] == ids[1]
        assert found["lineage"] == lost["lineage"]

    def test_the_manifest_is_the_owners_and_holds_no_credentials(self, made: Made) -> None:
        manifest = made.user.folder / "demo.hyperpod-eks.json"
        assert stat.S_IMODE(manifest.stat().st_mode) == 0o600
        assert ACCESS_KEY not in manifest.read_text()

    def test_status_shows_it_and_changes_nothing(self, made: Made) -> None:
        made.user.mutations()
        said = made.user.types("status", "demo", "-o", "json")
        shown = said.document
        assert (said.code, shown["schema"]) == (0, "hyperpod-eks/status/v1")
        assert shown["cluster"]["ready"] is True
        assert shown["differences"] == []
        assert shown["eks"]["status"] == "ACTIVE"
        assert shown["helm"]["status"] == "deployed"
        assert [(g["current"], g["target"]) for g in shown["instance_groups"]] == [(2, 2)]
        assert [(n["ready"], n["health"]) for n in shown["nodes"]] == [(True, "Schedulable")] * 2
        for resource in (r for step in shown["steps"] for r in step["resources"]):
            assert resource["state"] == "ready", resource
        assert made.user.mutations() == []
        text = made.user.types("status", "demo").out
        for words in ("InService", "Kubernetes 1.35", "2 of 2", "hyperpod-i-"):
            assert words in text

    def test_a_stranger_is_told_that_there_is_no_such_cluster(self, made: Made) -> None:
        assert made.user.types("status", "other").code == 8
        assert made.user.mutations() == []


# --- changes by hand ----------------------------------------------------------------------------


def damage(aws: Clients, vpc: str) -> None:
    """Change resources by hand, which `create` must correct."""
    aws.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": False})
    here = [{"Name": "vpc-id", "Values": [vpc]}]
    for table in aws.ec2.describe_route_tables(Filters=here)["RouteTables"]:
        if any(route.get("NatGatewayId") for route in table["Routes"]):
            aws.ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock=ANYWHERE)
    (group,) = (
        g
        for g in aws.ec2.describe_security_groups(Filters=here)["SecurityGroups"]
        if g["GroupName"] == "demo-hyperpod-eks"
    )
    aws.ec2.revoke_security_group_ingress(
        GroupId=group["GroupId"], IpPermissions=group["IpPermissions"]
    )
    aws.iam.detach_role_policy(
        RoleName="demo-eks-us-west-2", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    )
    aws.iam.attach_role_policy(
        RoleName="demo-eks-us-west-2", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    aws.logs.put_retention_policy(logGroupName="/aws/eks/demo/cluster", retentionInDays=1)
    bucket = TestBucket.name
    aws.s3.delete_bucket_policy(Bucket=bucket)
    aws.s3.delete_public_access_block(Bucket=bucket)
    aws.s3.put_object(Bucket=bucket, Key="lifecycle/on_create.sh", Body=b"#!/bin/bash\nfalse\n")
    aws.s3.put_object(Bucket=bucket, Key="lifecycle/leftover.sh", Body=b"#!/bin/bash\n")
    aws.eks.disassociate_access_policy(
        clusterName="demo",
        principalArn=ADMIN_ARN,
        policyArn="arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",
    )
    aws.eks.delete_addon(clusterName="demo", addonName="kube-proxy")
    aws.eks.update_cluster_config(name="demo", resourcesVpcConfig={"endpointPrivateAccess": False})


def declared(user: User) -> dict[str, Any]:
    """Return the inventory without what the tool keeps for itself."""
    found: dict[str, Any] = user.stack.inventory()
    for bucket in found["s3"].values():
        bucket["Objects"] = {k: v for k, v in bucket["Objects"].items() if not k.startswith(OWN)}
    return found


def test_damage_by_hand_is_put_right_and_delete_leaves_the_account_as_it_was(
    user: User, session: boto3.Session
) -> None:
    aws = Clients(session, user.stack.endpoint)
    # all clusters of an account share this role: the first one creates it, none deletes it
    aws.iam.create_service_linked_role(AWSServiceName="hyperpod.sagemaker.amazonaws.com")
    empty = json.dumps(user.stack.inventory())
    vpc = user.makes("demo")["outputs"]["vpc_id"]
    whole = declared(user)

    damage(aws, vpc)
    user.mutations()
    shown = user.types("status", "demo", "-o", "json").document
    differs = {row["key"] for row in shown["differences"]}
    assert differs == {
        "addons/kube-proxy", "eks/access-caller", "eks/cluster", "eks/log-group",
        "iam/cluster-role", "network/private-routes-usw2-az1", "network/security-group",
        "network/vpc", "s3/bucket", "s3/scripts",
    }  # fmt: skip
    assert user.mutations() == []
    # the manifest has a recent kube-proxy, which AWS might not show yet: remove the manifest
    (user.folder / "demo.hyperpod-eks.json").unlink()
    (user.folder / "demo.yaml").write_text("name: demo\nregion: us-west-2\n")
    document = user.makes("demo", "-f", "demo.yaml")
    changed = {r["key"] for s in document["steps"] for r in s["resources"] if r["changed"]}
    assert changed == differs
    assert declared(user) == whole

    said = user.types("delete", "demo")
    assert said.code == 2  # no question without a terminal
    assert json.dumps(user.stack.inventory()) == json.dumps(user.stack.inventory())
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0
    assert said.out.splitlines()[-1] == (
        "cluster demo: 26 resources deleted; nothing remains but the service-linked role, "
        "which all clusters share"
    )
    assert json.dumps(user.stack.inventory()) == empty
    assert not (user.folder / "demo.hyperpod-eks.json").exists()

    user.mutations()
    said = user.types("delete", "demo", "--yes")
    assert (said.code, said.out.partition(" but ")[0]) == (
        0, "cluster demo: already gone; nothing remains",
    )  # fmt: skip
    assert user.mutations() == []


def test_the_articles_cluster_in_us_east_1(user: User, session: boto3.Session) -> None:
    """Another region, a NAT gateway in each zone, more admins, tags, a folder of scripts."""
    scripts = user.folder / "scripts"
    shutil.copytree(packaged_lifecycle(), scripts)
    (scripts / "lib").mkdir()
    (scripts / "lib" / "more.sh").write_text("#!/bin/bash\ntrue\n")
    iam: Any = session.client("iam", endpoint_url=user.stack.endpoint, region_name="us-east-1")
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
             "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}}]}  # fmt: skip
    iam.create_role(RoleName="Viewer", Path="/people/", AssumeRolePolicyDocument=json.dumps(trust))
    viewer = f"arn:aws:iam::{ACCOUNT}:role/people/Viewer"
    (user.folder / "cluster.yaml").write_text(f"""\
name: east
region: us-east-1
tags: {{team: research}}
network: {{nat: per-az}}
eks:
  version: "1.34"
  log_retention_days: 7
  access: [{{principal_arn: "{viewer}", policy: AmazonEKSViewPolicy}}]
lifecycle: {{path: scripts}}
chart: {{path: {CHART}}}
instance_groups:
  - {{name: a, instance_type: ml.m5.2xlarge, instance_count: 1, threads_per_core: 2,
     ebs_volume_size_in_gb: null}}
  - {{name: b, instance_type: ml.g5.8xlarge, instance_count: 1}}
""")
    before = user.stack.inventory()
    said = user.types("create", "-f", "cluster.yaml", "-o", "json")
    assert said.code == 0, said.err

    def client(service: str) -> Any:
        return session.client(
            service,  # type: ignore[call-overload]  # the name is not a literal
            endpoint_url=user.stack.endpoint,
            region_name="us-east-1",
        )

    ec2, eks, sagemaker = client("ec2"), client("eks"), client("sagemaker")
    vpc = said.document["outputs"]["vpc_id"]
    nats = ec2.describe_nat_gateways(Filter=[{"Name": "vpc-id", "Values": [vpc]}])["NatGateways"]
    subnets = ec2.describe_subnets(SubnetIds=[nat["SubnetId"] for nat in nats])["Subnets"]
    assert len({subnet["AvailabilityZoneId"] for subnet in subnets}) == 2
    cluster = eks.describe_cluster(name="east")["cluster"]
    assert (cluster["version"], cluster["tags"]["team"]) == ("1.34", "research")
    ways = set()
    for subnet in cluster["resourcesVpcConfig"]["subnetIds"]:
        by = [{"Name": "association.subnet-id", "Values": [subnet]}]
        (table,) = ec2.describe_route_tables(Filters=by)["RouteTables"]
        ways |= {r["NatGatewayId"] for r in table["Routes"] if "NatGatewayId" in r}
    assert ways == {nat["NatGatewayId"] for nat in nats}
    (policy,) = eks.list_associated_access_policies(clusterName="east", principalArn=viewer)[
        "associatedAccessPolicies"
    ]
    assert policy["policyArn"].endswith("/AmazonEKSViewPolicy")
    groups = {
        group["InstanceGroupName"]: group
        for group in sagemaker.describe_cluster(ClusterName="east")["InstanceGroups"]
    }
    assert groups["a"]["ThreadsPerCore"] == 2
    assert "InstanceStorageConfigs" not in groups["a"]
    assert groups["b"]["InstanceStorageConfigs"]
    bucket = f"sagemaker-east-{ACCOUNT}-us-east-1"
    s3 = client("s3")
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None
    keys = {item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {"lifecycle/on_create.sh", "lifecycle/lib/more.sh", *kept("east")}

    user.mutations()
    (scripts / "lib" / "more.sh").unlink()
    (scripts / "on_create.sh").write_bytes(b"#!/bin/bash\ntrue\n")
    assert user.types("create", "-f", "cluster.yaml").code == 0
    assert user.mutations() == ["s3.PutObject", "s3.DeleteObjects"]
    assert Path("east.hyperpod-eks.json").exists()

    assert user.types("delete", "-f", "cluster.yaml", "--yes").code == 0
    left = user.stack.inventory()
    role = "AWSServiceRoleForSageMakerHyperPod"
    assert json.dumps(before) == json.dumps(left), role
