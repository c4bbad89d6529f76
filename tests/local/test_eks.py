from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from hyperpod_eks.local.aws.sim import Delays
from hyperpod_eks.local.stack import Stack
from tests.conftest import Clients
from tests.local.ground import (
    ADMIN_POLICY,
    CALLER,
    CLUSTER_POLICY,
    NAME,
    Ground,
    eks_cluster,
    kubernetes,
    lay,
    refusal,
    role,
    token,
    trust,
)

LOG_GROUP = f"/aws/eks/{NAME}/cluster"


@pytest.fixture
def ground(aws: Clients) -> Ground:
    return lay(aws)


def cluster(aws: Clients) -> dict[str, Any]:
    found: dict[str, Any] = aws.eks.describe_cluster(name=NAME)["cluster"]
    return found


def names(aws: Clients) -> list[str]:
    groups = aws.logs.describe_log_groups()["logGroups"]
    return [group["logGroupName"] for group in groups]


# -- life ----------------------------------------------------------------------------------------


def test_a_cluster_takes_its_time_to_come_and_go(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eks_create=620, eks_delete=205, eni_linger=60)
    start = aws.eks.create_cluster(**eks_cluster(ground))["cluster"]
    assert start["status"] == "CREATING"
    stack.clock.advance(619)
    assert (cluster(aws)["status"], cluster(aws).get("endpoint")) == ("CREATING", None)
    stack.clock.advance(2)
    assert cluster(aws)["status"] == "ACTIVE"
    assert kubernetes(aws, "GET", "/version")[0] == 200

    assert aws.eks.delete_cluster(name=NAME)["cluster"]["status"] == "DELETING"
    stack.clock.advance(204)
    assert cluster(aws)["status"] == "DELETING"
    stack.clock.advance(2)
    code, text = refusal(aws.eks.describe_cluster, name=NAME)
    assert (code, text) == ("ResourceNotFoundException", f"No cluster found for name: {NAME}.")
    assert aws.eks.list_clusters()["clusters"] == []
    code, _ = refusal(aws.ec2.delete_subnet, SubnetId=ground.subnets[0])
    assert code == "DependencyViolation"  # interfaces are deleted later
    stack.clock.advance(60)
    for subnet in ground.subnets:
        aws.ec2.delete_subnet(SubnetId=subnet)
    aws.ec2.delete_security_group(GroupId=ground.group)
    aws.ec2.delete_vpc(VpcId=ground.vpc)


@pytest.mark.parametrize(
    ("wanted", "cidr", "address"),
    [
        (None, "10.100.0.0/16", "10.100.0.1"),  # the VPC has no address in 10.0.0.0/8
        ("10.5.0.0/20", "10.5.0.0/20", "10.5.0.1"),
    ],
)
def test_services_have_addresses_of_the_cluster_s_range(
    aws: Clients, stack: Stack, wanted: str | None, cidr: str, address: str
) -> None:
    ground = lay(aws, "192.168.0.0/16", "192.168.{}.0/24")
    network = {"kubernetesNetworkConfig": {"serviceIpv4Cidr": wanted}} if wanted else {}
    aws.eks.create_cluster(**eks_cluster(ground, **network))
    assert cluster(aws)["kubernetesNetworkConfig"]["serviceIpv4Cidr"] == cidr
    stack.clock.advance(3600)
    kubernetes = stack.sim.clusters[cluster(aws)["arn"]].snapshot()
    assert kubernetes["services/default/kubernetes"]["spec"]["clusterIP"] == address


def test_a_described_cluster_has_all_that_clients_read(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(
        **eks_cluster(
            ground,
            logging={"clusterLogging": [{"types": ["api", "audit"], "enabled": True}]},
            tags={"a": "b"},
            upgradePolicy={"supportType": "STANDARD"},
        )
    )
    found = cluster(aws)
    vpc = found["resourcesVpcConfig"]
    assert found["arn"] == f"arn:aws:eks:us-west-2:123456789012:cluster/{NAME}"
    assert (found["version"], found["tags"], found["deletionProtection"]) == (
        "1.35",
        {"a": "b"},
        False,
    )
    assert found["accessConfig"]["authenticationMode"] == "API"
    assert found["upgradePolicy"] == {"supportType": "STANDARD"}
    assert found["health"] == {"issues": []}
    assert found["identity"]["oidc"]["issuer"].startswith("https://oidc.eks.us-west-2.")
    assert found["kubernetesNetworkConfig"]["serviceIpv4Cidr"] == "172.20.0.0/16"
    assert (vpc["vpcId"], vpc["subnetIds"]) == (ground.vpc, ground.subnets)
    assert (vpc["endpointPublicAccess"], vpc["endpointPrivateAccess"]) == (True, True)
    enabled, disabled = found["logging"]["clusterLogging"]
    assert enabled == {"types": ["api", "audit"], "enabled": True}
    assert disabled["enabled"] is False
    own = vpc["clusterSecurityGroupId"]
    (group,) = aws.ec2.describe_security_groups(GroupIds=[own])["SecurityGroups"]
    assert group["GroupName"].startswith(f"eks-cluster-sg-{NAME}-")
    assert {"Key": "aws:eks:cluster-name", "Value": NAME} in group["Tags"]
    interfaces = aws.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert {eni["Description"] for eni in interfaces} == {f"Amazon EKS {NAME}"}
    assert {eni["SubnetId"] for eni in interfaces} == set(ground.subnets)
    assert {g["GroupId"] for g in interfaces[0]["Groups"]} == {own, ground.group}


def test_the_defaults_are_those_of_the_api(aws: Clients, ground: Ground) -> None:
    request = eks_cluster(ground)
    for member in ("version", "accessConfig"):
        del request[member]
    aws.eks.create_cluster(**request)
    found = cluster(aws)
    assert found["accessConfig"]["authenticationMode"] == "CONFIG_MAP"
    assert found["upgradePolicy"] == {"supportType": "EXTENDED"}
    assert found["version"] == "1.35"


def test_the_same_create_twice_makes_one_cluster(aws: Clients, ground: Ground) -> None:
    request = eks_cluster(ground, clientRequestToken="t")
    first = aws.eks.create_cluster(**request)["cluster"]
    assert aws.eks.create_cluster(**request)["cluster"]["arn"] == first["arn"]
    code, text = refusal(aws.eks.create_cluster, **eks_cluster(ground))
    assert code == "ResourceInUseException"
    assert text == f"Cluster already exists with name: {NAME}"


def test_a_group_that_somebody_uses_outlives_its_cluster(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    own = cluster(aws)["resourcesVpcConfig"]["clusterSecurityGroupId"]
    aws.ec2.authorize_security_group_ingress(
        GroupId=ground.group,
        IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": own}]}],
    )
    aws.eks.delete_cluster(name=NAME)
    assert aws.ec2.describe_security_groups(GroupIds=[own])["SecurityGroups"]


def test_a_cluster_can_be_made_to_fail(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.failures["cluster/*"] = "Ec2SubnetNotFound"
    aws.eks.create_cluster(**eks_cluster(ground))
    assert cluster(aws)["status"] == "FAILED"
    assert cluster(aws)["health"]["issues"][0]["code"] == "Ec2SubnetNotFound"
    aws.eks.delete_cluster(name=NAME)
    assert aws.eks.list_clusters()["clusters"] == []


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": "1.30"}, "unsupported Kubernetes version 1.30"),
        ({"version": "1.37"}, "unsupported Kubernetes version 1.37"),
        ({"roleArn": "arn:aws:iam::123456789012:role/nobody"}, "does not exist"),
        ({"roleArn": "arn:aws:iam::123456789012:role/exec"}, "trusted entity is not correct"),
        ({"name": "a b"}, "at 'name' failed to satisfy constraint: Member must satisfy regular"),
        (
            {"resourcesVpcConfig": {"subnetIds": ["subnet-00000000", "subnet-11111111"]}},
            "The following subnets do not exist: ['subnet-00000000', 'subnet-11111111']",
        ),
    ],
)
def test_what_eks_cannot_use_is_refused(
    aws: Clients, ground: Ground, changes: dict[str, Any], text: str
) -> None:
    code, message = refusal(aws.eks.create_cluster, **eks_cluster(ground, **changes))
    assert code == "InvalidParameterException"
    assert text in message
    assert aws.ec2.describe_network_interfaces()["NetworkInterfaces"] == []


def test_the_network_is_checked(aws: Clients, ground: Ground) -> None:
    def refused(subnets: list[str], groups: list[str]) -> str:
        config = {"subnetIds": subnets, "securityGroupIds": groups}
        return refusal(aws.eks.create_cluster, **eks_cluster(ground, resourcesVpcConfig=config))[1]

    assert "at least two different AZs" in refused(ground.subnets[:1], [])
    assert "security groups do not exist" in refused(ground.subnets, ["sg-00000000"])
    small = aws.ec2.create_subnet(
        VpcId=ground.vpc, CidrBlock="10.0.255.0/28", AvailabilityZone="us-west-2b"
    )["Subnet"]["SubnetId"]
    for _ in range(6):
        aws.ec2.create_network_interface(SubnetId=small)
    assert "6 free IP addresses" in refused([ground.subnets[0], small], [])
    other = aws.ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    foreign = aws.ec2.create_subnet(
        VpcId=other, CidrBlock="10.1.0.0/24", AvailabilityZone="us-west-2b"
    )["Subnet"]["SubnetId"]
    assert "same VPC" in refused([ground.subnets[0], foreign], [])


def test_a_new_role_is_not_seen_at_once_and_needs_its_policy(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(iam=8)
    stack.clock.advance(10)
    arn = role(aws, "fresh", "eks.amazonaws.com")
    request = eks_cluster(ground, roleArn=arn)
    assert "does not exist" in refusal(aws.eks.create_cluster, **request)[1]
    stack.clock.advance(8)
    assert "Amazon EKS Managed Policies" in refusal(aws.eks.create_cluster, **request)[1]
    aws.iam.attach_role_policy(RoleName="fresh", PolicyArn=CLUSTER_POLICY)
    aws.eks.create_cluster(**request)


def test_a_role_may_have_a_policy_of_one_s_own(aws: Clients, ground: Ground) -> None:
    """Since October 2023 (EKS User Guide, "Amazon EKS cluster IAM role")."""
    request = eks_cluster(ground, roleArn=role(aws, "own", "eks.amazonaws.com"))
    read = ["ec2:Describe*", "kms:DescribeKey"]

    def put(*actions: str) -> None:
        allow = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [allow]})
        aws.iam.put_role_policy(RoleName="own", PolicyName="own", PolicyDocument=document)

    put(*read)
    assert "Amazon EKS Managed Policies" in refusal(aws.eks.create_cluster, **request)[1]
    put(*read, "ec2:CreateTags")
    aws.eks.create_cluster(**request)


def test_some_zones_have_no_control_plane(stack: Stack, aws: Clients, ground: Ground) -> None:
    """EKS User Guide, "Subnet requirements for clusters"."""
    ec2 = boto3.client("ec2", region_name="us-east-1", endpoint_url=stack.endpoint)
    eks = boto3.client("eks", region_name="us-east-1", endpoint_url=stack.endpoint)
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{n}.0/24", AvailabilityZoneId=zone)["Subnet"]
        for n, zone in enumerate(("use1-az1", "use1-az3"))
    ]
    ids = [subnet["SubnetId"] for subnet in subnets]
    config = {"subnetIds": ids}
    code, text = refusal(
        eks.create_cluster, name=NAME, roleArn=ground.eks_role, resourcesVpcConfig=config
    )
    assert code == "UnsupportedAvailabilityZoneException"
    refused, _, others = text.partition("availability zones: ")
    assert subnets[1]["AvailabilityZone"] in refused
    assert subnets[0]["AvailabilityZone"] in others.split(", ")
    assert subnets[1]["AvailabilityZone"] not in others


def test_the_quota_of_clusters_is_kept(stack: Stack, aws: Clients, ground: Ground) -> None:
    stack.sim.set_quota("eks", "Clusters", 0)
    code, _ = refusal(aws.eks.create_cluster, **eks_cluster(ground))
    assert code == "ResourceLimitExceededException"


def test_a_protected_or_busy_cluster_is_not_deleted(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eks_create=600, eks_update=300)
    aws.eks.create_cluster(**eks_cluster(ground, deletionProtection=True))
    code, text = refusal(aws.eks.delete_cluster, name=NAME)
    assert (code, "deletion protection" in text) == ("InvalidRequestException", True)
    stack.clock.advance(600)
    aws.eks.update_cluster_config(name=NAME, deletionProtection=False)
    code, _ = refusal(aws.eks.delete_cluster, name=NAME)
    assert code == "InvalidRequestException"  # the update is not complete
    stack.clock.advance(300)
    aws.eks.update_cluster_config(name=NAME, upgradePolicy={"supportType": "STANDARD"})
    code, text = refusal(aws.eks.delete_cluster, name=NAME)
    assert code == "ResourceInUseException"
    assert f"Cannot delete because cluster {NAME} currently has an update in progress" in text
    stack.clock.advance(300)
    aws.eks.delete_cluster(name=NAME)


# -- versions and updates ------------------------------------------------------------------------


def test_versions_have_their_dates_and_states(aws: Clients) -> None:
    offered = aws.eks.describe_cluster_versions()["clusterVersions"]
    states = {one["clusterVersion"]: one["versionStatus"] for one in offered}
    assert states == {
        "1.36": "STANDARD_SUPPORT",
        "1.35": "STANDARD_SUPPORT",
        "1.34": "STANDARD_SUPPORT",
        "1.33": "EXTENDED_SUPPORT",
        "1.32": "EXTENDED_SUPPORT",
        "1.31": "EXTENDED_SUPPORT",
    }
    (default,) = aws.eks.describe_cluster_versions(defaultOnly=True)["clusterVersions"]
    assert default["clusterVersion"] == "1.35"
    assert default["endOfStandardSupportDate"] == datetime(2027, 3, 27, tzinfo=UTC)
    every = aws.eks.describe_cluster_versions(includeAll=True)["clusterVersions"]
    assert every[-1]["versionStatus"] == "UNSUPPORTED"
    (old,) = aws.eks.describe_cluster_versions(clusterVersions=["1.31"])["clusterVersions"]
    assert old["status"] == "extended-support"


def test_one_change_at_a_time_and_each_is_an_update(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eks_update=300)
    aws.eks.create_cluster(**eks_cluster(ground))
    logging = {"clusterLogging": [{"types": ["api"], "enabled": True}]}
    update = aws.eks.update_cluster_config(name=NAME, logging=logging)["update"]
    assert (update["type"], update["status"]) == ("LoggingUpdate", "InProgress")
    assert cluster(aws)["status"] == "UPDATING"
    access = {"authenticationMode": "API_AND_CONFIG_MAP"}
    code, text = refusal(
        aws.eks.update_cluster_config,
        name=NAME,
        resourcesVpcConfig={"endpointPublicAccess": False},
    )
    assert (code, "EndpointAccessUpdate" in text) == ("ResourceInUseException", True)
    stack.clock.advance(300)
    assert cluster(aws)["status"] == "ACTIVE"
    assert cluster(aws)["logging"]["clusterLogging"][0] == logging["clusterLogging"][0]
    done = aws.eks.describe_update(name=NAME, updateId=update["id"])["update"]
    assert done["status"] == "Successful"
    assert aws.eks.list_updates(name=NAME)["updateIds"] == [update["id"]]

    code, text = refusal(aws.eks.update_cluster_config, name=NAME, logging=logging)
    assert (code, "already at the desired" in text) == ("InvalidParameterException", True)
    text = refusal(aws.eks.update_cluster_config, name=NAME, accessConfig=access)[1]
    assert "from API to API_AND_CONFIG_MAP" in text
    text = refusal(
        aws.eks.update_cluster_config, name=NAME, logging=logging, deletionProtection=True
    )[1]
    assert "Only one type of update" in text
    off = {"clusterLogging": [{"types": ["api"], "enabled": False}]}
    aws.eks.update_cluster_config(name=NAME, logging=off)
    stack.clock.advance(300)
    assert [s["enabled"] for s in cluster(aws)["logging"]["clusterLogging"]] == [False]


def test_subnets_and_endpoint_can_change(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    third = aws.ec2.create_subnet(
        VpcId=ground.vpc, CidrBlock="10.0.200.0/24", AvailabilityZone="us-west-2c"
    )["Subnet"]["SubnetId"]
    subnets = [ground.subnets[0], third]
    update = aws.eks.update_cluster_config(name=NAME, resourcesVpcConfig={"subnetIds": subnets})
    assert update["update"]["type"] == "VpcConfigUpdate"
    assert cluster(aws)["resourcesVpcConfig"]["subnetIds"] == subnets
    text = refusal(
        aws.eks.update_cluster_config,
        name=NAME,
        resourcesVpcConfig={"subnetIds": ["subnet-00000000"]},
    )[1]
    assert "do not exist" in text


def test_the_interfaces_wear_the_groups_of_now(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    other = aws.ec2.create_security_group(GroupName="o", Description="o", VpcId=ground.vpc)
    vpc = {"securityGroupIds": [other["GroupId"]]}
    aws.eks.update_cluster_config(name=NAME, resourcesVpcConfig=vpc)
    own = cluster(aws)["resourcesVpcConfig"]["clusterSecurityGroupId"]
    named = [{"Name": "description", "Values": [f"Amazon EKS {NAME}"]}]
    found = aws.ec2.describe_network_interfaces(Filters=named)["NetworkInterfaces"]
    worn = [{group["GroupId"] for group in each["Groups"]} for each in found]
    assert worn == [{own, other["GroupId"]}] * 2


def test_secrets_get_one_key_that_exists(aws: Clients, ground: Ground) -> None:
    key = aws.kms.create_key()["KeyMetadata"]["Arn"]

    def encryption(arn: str) -> Any:
        return [{"resources": ["secrets"], "provider": {"keyArn": arn}}]

    gone = encryption(f"{key.rpartition('/')[0]}/00000000-0000-0000-0000-000000000000")
    create = eks_cluster(ground, encryptionConfig=gone)
    assert "is not valid" in refusal(aws.eks.create_cluster, **create)[1]
    aws.eks.create_cluster(**eks_cluster(ground))
    about = {"clusterName": NAME, "encryptionConfig": encryption(key)}
    update = aws.eks.associate_encryption_config(**about)["update"]
    assert update["type"] == "AssociateEncryptionConfig"
    assert cluster(aws)["encryptionConfig"] == encryption(key)
    text = refusal(aws.eks.associate_encryption_config, **about)[1]
    assert "already has encryption" in text


def test_kubernetes_goes_up_one_minor_version_at_a_time(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eks_update=300)
    aws.eks.create_cluster(**eks_cluster(ground, version="1.33"))
    for version in ("1.35", "1.32"):
        text = refusal(aws.eks.update_cluster_version, name=NAME, version=version)[1]
        assert f"from 1.33 to {version}" in text
    aws.eks.update_cluster_version(name=NAME, version="1.34")
    code, _ = refusal(aws.eks.update_cluster_version, name=NAME, version="1.34")
    assert code == "ResourceInUseException"
    here = stack.sim.clusters[cluster(aws)["arn"]]
    here.add_node("old", {})
    stack.clock.advance(300)
    assert cluster(aws)["version"] == "1.34"
    # nodes keep their kubelet until their image is updated
    here.add_node("new", {})
    content = here.snapshot()
    assert content["nodes/old"]["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.33")
    assert content["nodes/new"]["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.34")
    here.renew_node("old")
    about = here.snapshot()["nodes/old"]["status"]["nodeInfo"]
    assert about["kubeletVersion"].startswith("v1.34")


# -- logs ----------------------------------------------------------------------------------------


def test_the_log_group_comes_back_while_the_cluster_lives_and_stays_after(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(eks_delete=205)
    aws.eks.create_cluster(**eks_cluster(ground))
    assert names(aws) == []
    logging = {"clusterLogging": [{"types": ["api", "audit"], "enabled": True}]}
    aws.eks.update_cluster_config(name=NAME, logging=logging)
    assert names(aws) == [LOG_GROUP]
    streams = aws.logs.describe_log_streams(logGroupName=LOG_GROUP)["logStreams"]
    assert len(streams) == 2
    aws.logs.delete_log_group(logGroupName=LOG_GROUP)
    stack.clock.advance(61)
    assert names(aws) == [LOG_GROUP]
    aws.eks.delete_cluster(name=NAME)
    aws.logs.delete_log_group(logGroupName=LOG_GROUP)
    stack.clock.advance(205)
    assert names(aws) == [LOG_GROUP]
    aws.logs.delete_log_group(logGroupName=LOG_GROUP)
    stack.clock.advance(3600)
    assert names(aws) == []


# -- permissions ---------------------------------------------------------------------------------


def status(aws: Clients, **keys: Any) -> int:
    return kubernetes(aws, "GET", "/api/v1/namespaces", bearer=token(**keys))[0]


def test_the_creator_gets_in_by_bootstrap_only(stack: Stack, aws: Clients, ground: Ground) -> None:
    bare = {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    aws.eks.create_cluster(**eks_cluster(ground, accessConfig=bare))
    assert aws.eks.list_access_entries(clusterName=NAME)["accessEntries"] == []
    assert status(aws) == 401
    aws.eks.delete_cluster(name=NAME)
    aws.eks.create_cluster(**eks_cluster(ground))
    assert aws.eks.list_access_entries(clusterName=NAME)["accessEntries"] == [CALLER]
    assert status(aws) == 200
    aws.eks.delete_cluster(name=NAME)
    aws.eks.create_cluster(**eks_cluster(ground, accessConfig={"authenticationMode": "CONFIG_MAP"}))
    assert status(aws) == 200


def test_access_takes_an_entry_a_policy_and_a_while(
    stack: Stack, aws: Clients, ground: Ground
) -> None:
    stack.sim.delays = Delays(access_entry=8)
    bare = {"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False}
    aws.eks.create_cluster(**eks_cluster(ground, accessConfig=bare))
    aws.eks.create_access_entry(clusterName=NAME, principalArn=CALLER)
    assert status(aws) == 401
    stack.clock.advance(8)
    assert status(aws) == 403
    aws.eks.associate_access_policy(
        clusterName=NAME,
        principalArn=CALLER,
        policyArn=ADMIN_POLICY,
        accessScope={"type": "cluster"},
    )
    assert status(aws) == 403
    stack.clock.advance(8)
    assert status(aws) == 200
    aws.eks.disassociate_access_policy(
        clusterName=NAME, principalArn=CALLER, policyArn=ADMIN_POLICY
    )
    assert status(aws) == 403
    aws.eks.delete_access_entry(clusterName=NAME, principalArn=CALLER)
    assert status(aws) == 401


def test_tokens_are_checked(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    good = token()

    def answer(bearer: str) -> int:
        return kubernetes(aws, "GET", "/api/v1/namespaces", bearer=bearer)[0]

    assert answer(good) == 200
    assert answer(token("another-cluster")) == 401
    assert answer(good[:-8]) == 401
    assert answer("k8s-aws-v1.bm9uc2Vuc2U") == 401
    assert answer("nonsense") == 401
    forged = token(aws_access_key_id="ASIALOCALSTACK000000", aws_secret_access_key="guessed")
    assert answer(forged) == 401


def test_a_role_made_anew_is_somebody_else(stack: Stack, aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    arn = role(aws, "dev", "ec2.amazonaws.com")
    aws.eks.create_access_entry(clusterName=NAME, principalArn=arn)
    aws.eks.associate_access_policy(
        clusterName=NAME, principalArn=arn, policyArn=ADMIN_POLICY, accessScope={"type": "cluster"}
    )

    def assumed() -> dict[str, str]:
        keys = aws.sts.assume_role(RoleArn=arn, RoleSessionName="me")["Credentials"]
        return {
            "aws_access_key_id": keys["AccessKeyId"],
            "aws_secret_access_key": keys["SecretAccessKey"],
            "aws_session_token": keys["SessionToken"],
        }

    assert status(aws, **assumed()) == 200
    aws.iam.delete_role(RoleName="dev")
    role(aws, "dev", "ec2.amazonaws.com")
    assert status(aws, **assumed()) == 401


# -- access entries ------------------------------------------------------------------------------


def test_entries_are_kept_as_aws_keeps_them(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    aws.iam.create_role(
        RoleName="dev",
        Path="/a/b/",
        AssumeRolePolicyDocument=trust("ec2.amazonaws.com"),
    )
    arn = "arn:aws:iam::123456789012:role/a/b/dev"
    made = aws.eks.create_access_entry(
        clusterName=NAME, principalArn=arn, kubernetesGroups=["devs"], tags={"a": "b"}
    )["accessEntry"]
    assert made["type"] == "STANDARD"
    assert made["username"] == "arn:aws:sts::123456789012:assumed-role/dev/{{SessionName}}"
    assert made["accessEntryArn"].startswith(
        f"arn:aws:eks:us-west-2:123456789012:access-entry/{NAME}/role/123456789012/a/b/dev/"
    )
    changed = aws.eks.update_access_entry(
        clusterName=NAME, principalArn=arn, kubernetesGroups=["ops"]
    )["accessEntry"]
    assert changed["kubernetesGroups"] == ["ops"]
    found = aws.eks.describe_access_entry(clusterName=NAME, principalArn=arn)["accessEntry"]
    assert (found["principalArn"], found["tags"]) == (arn, {"a": "b"})
    for _ in range(2):  # a repeated association succeeds
        aws.eks.associate_access_policy(
            clusterName=NAME,
            principalArn=arn,
            policyArn=ADMIN_POLICY,
            accessScope={"type": "namespace", "namespaces": ["x"]},
        )
    (policy,) = aws.eks.list_associated_access_policies(clusterName=NAME, principalArn=arn)[
        "associatedAccessPolicies"
    ]
    assert policy["accessScope"] == {"type": "namespace", "namespaces": ["x"]}
    with_policy = aws.eks.list_access_entries(clusterName=NAME, associatedPolicyArn=ADMIN_POLICY)
    assert with_policy["accessEntries"] == [arn, CALLER]
    policies = aws.eks.list_access_policies()["accessPolicies"]
    assert {"name": "AmazonEKSClusterAdminPolicy", "arn": ADMIN_POLICY} in policies


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"principalArn": CALLER}, "ResourceInUseException", "already in use on this cluster"),
        (
            {"principalArn": "arn:aws:sts::123456789012:assumed-role/Admin/local"},
            "InvalidParameterException",
            "invalid principal",
        ),
        (
            {"principalArn": "arn:aws:iam::123456789012:role/Admin"},  # its path is missing
            "InvalidParameterException",
            "invalid principal",
        ),
        (
            {"principalArn": "arn:aws:iam::123456789012:user/nobody"},
            "InvalidParameterException",
            "invalid principal",
        ),
        (
            {"principalArn": "arn:aws:iam::123456789012:role/aws-service-role/x/y"},
            "InvalidParameterException",
            "Service Linked Role",
        ),
        ({"kubernetesGroups": ["system:masters"]}, "InvalidParameterException", "system:"),
        ({"username": "eks:me"}, "InvalidParameterException", "eks:"),
        ({"username": "me{{SessionName}}"}, "InvalidParameterException", "colon"),
        ({"type": "ODD"}, "InvalidParameterException", "ODD"),
        (
            {"type": "HYPERPOD_LINUX", "kubernetesGroups": ["a"]},
            "InvalidParameterException",
            "HYPERPOD_LINUX",
        ),
        ({"clusterName": "nobody"}, "ResourceNotFoundException", "No cluster found"),
    ],
)
def test_what_cannot_be_an_entry_is_refused(
    aws: Clients, ground: Ground, changes: dict[str, Any], code: str, text: str
) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    request = {"clusterName": NAME, "principalArn": ground.eks_role, **changes}
    refused, message = refusal(aws.eks.create_access_entry, **request)
    assert (refused, text in message) == (code, True), message


def test_policies_are_for_standard_entries_that_exist(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    aws.eks.create_access_entry(
        clusterName=NAME, principalArn=ground.execution_role, type="HYPERPOD_LINUX"
    )

    def refused(principal: str, policy: str = ADMIN_POLICY, kind: str = "cluster") -> str:
        return refusal(
            aws.eks.associate_access_policy,
            clusterName=NAME,
            principalArn=principal,
            policyArn=policy,
            accessScope={"type": kind},
        )[0]

    assert refused(ground.eks_role) == "ResourceNotFoundException"
    assert refused(ground.execution_role) == "InvalidRequestException"
    assert refused(CALLER, "arn:aws:iam::aws:policy/AdministratorAccess") == (
        "InvalidParameterException"
    )
    assert refused(CALLER, kind="namespace") == "InvalidParameterException"


def test_a_cluster_with_a_config_map_has_no_entries(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground, accessConfig={"authenticationMode": "CONFIG_MAP"}))
    code, text = refusal(aws.eks.list_access_entries, clusterName=NAME)
    assert (code, "authentication mode" in text) == ("InvalidRequestException", True)
    aws.eks.update_cluster_config(name=NAME, accessConfig={"authenticationMode": "API"})
    assert aws.eks.list_access_entries(clusterName=NAME)["accessEntries"] == [CALLER]


# -- pod identities ------------------------------------------------------------------------------


def test_pod_identities_live_and_die(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    arn, other = (role(aws, name, "pods.eks.amazonaws.com") for name in ("one", "two"))
    where = {"clusterName": NAME, "namespace": "kube-system", "serviceAccount": "sa"}
    made = aws.eks.create_pod_identity_association(**where, roleArn=arn)["association"]
    code, text = refusal(aws.eks.create_pod_identity_association, **where, roleArn=other)
    assert (code, made["associationId"] in text) == ("ResourceInUseException", True)
    one = {"clusterName": NAME, "associationId": made["associationId"]}
    aws.eks.update_pod_identity_association(**one, roleArn=other)
    found = aws.eks.describe_pod_identity_association(**one)["association"]
    assert found["roleArn"] == other
    listed = aws.eks.list_pod_identity_associations(clusterName=NAME, namespace="kube-system")
    assert [a["associationId"] for a in listed["associations"]] == [made["associationId"]]
    assert (
        aws.eks.list_pod_identity_associations(clusterName=NAME, namespace="x")["associations"]
        == []
    )
    aws.eks.delete_pod_identity_association(**one)
    assert refusal(aws.eks.describe_pod_identity_association, **one)[0] == (
        "ResourceNotFoundException"
    )
    code, text = refusal(aws.eks.create_pod_identity_association, **where, roleArn=ground.eks_role)
    assert (code, "Trust policy" in text) == ("InvalidParameterException", True)


# -- tags ----------------------------------------------------------------------------------------


def test_everything_of_eks_can_be_tagged(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground, tags={"a": "b"}))
    addon = aws.eks.create_addon(clusterName=NAME, addonName="vpc-cni")["addon"]
    entry = aws.eks.describe_access_entry(clusterName=NAME, principalArn=CALLER)["accessEntry"]
    for arn in (cluster(aws)["arn"], addon["addonArn"], entry["accessEntryArn"]):
        aws.eks.tag_resource(resourceArn=arn, tags={"x": "y", "z": ""})
        aws.eks.untag_resource(resourceArn=arn, tagKeys=["a", "z"])
        assert aws.eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"x": "y"}
    assert cluster(aws)["tags"] == {"x": "y"}
    code, _ = refusal(aws.eks.list_tags_for_resource, resourceArn=f"{addon['addonArn']}x")
    assert code == "NotFoundException"


def test_each_region_has_its_own_clusters(aws: Clients, stack: Stack, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    there = boto3.client("eks", region_name="eu-west-1", endpoint_url=stack.endpoint)
    assert there.list_clusters()["clusters"] == []


def test_what_every_inventory_asks_is_answered_with_nothing(aws: Clients, ground: Ground) -> None:
    aws.eks.create_cluster(**eks_cluster(ground))
    lists = {
        aws.eks.list_nodegroups: "nodegroups",
        aws.eks.list_fargate_profiles: "fargateProfileNames",
        aws.eks.list_identity_provider_configs: "identityProviderConfigs",
        aws.eks.list_insights: "insights",
        aws.eks.list_capabilities: "capabilities",
    }
    for call, member in lists.items():
        assert call(clusterName=NAME)[member] == []
        assert refusal(call, clusterName="none")[0] == "ResourceNotFoundException"
    refused, _ = refusal(aws.eks.describe_nodegroup, clusterName=NAME, nodegroupName="x")
    assert refused == "NotImplemented"


NODES = "/api/v1/nodes"
PODS, SECRETS = (f"/api/v1/namespaces/{{}}/{each}" for each in ("pods", "secrets"))
READER = [(PODS, 200, 403), (SECRETS, 403, 403), (NODES, 403, 403), ("/api/v1/pods", 403, 403)]


@pytest.mark.parametrize(
    ("policy", "namespaces", "expected"),
    [
        ("AmazonEKSViewPolicy", ["mine"], READER),
        ("AmazonSagemakerHyperpodTrainingPolicy", ["mine"], READER),
        ("AmazonEKSAdminPolicy", ["mine"], [(SECRETS, 200, 403), (NODES, 403, 403)]),
        ("AmazonEKSAdminViewPolicy", [], [(SECRETS, 200, 200), (NODES, 200, 200)]),
    ],
)
def test_a_policy_allows_what_it_says_where_it_says(
    aws: Clients, ground: Ground, policy: str, namespaces: list[str], expected: list[Any]
) -> None:
    aws.eks.create_cluster(**eks_cluster(ground, accessConfig={"authenticationMode": "API"}))
    for name in ("mine", "yours"):
        body = {"metadata": {"name": name}}
        assert kubernetes(aws, "POST", "/api/v1/namespaces", body)[0] == 201
    aws.eks.associate_access_policy(
        clusterName=NAME,
        principalArn=CALLER,
        policyArn=ADMIN_POLICY.replace("AmazonEKSClusterAdminPolicy", policy),
        accessScope={"type": "namespace", "namespaces": namespaces}
        if namespaces
        else {"type": "cluster"},
    )
    aws.eks.disassociate_access_policy(
        clusterName=NAME, principalArn=CALLER, policyArn=ADMIN_POLICY
    )

    def code(method: str, path: str, body: Any = None) -> int:
        return kubernetes(aws, method, path, body)[0]

    for path, mine, yours in expected:
        assert [code("GET", path.format(where)) for where in ("mine", "yours")] == [mine, yours]
    writes = code("POST", "/api/v1/namespaces/mine/configmaps", {"metadata": {"name": "c"}})
    assert writes == (403 if "View" in policy else 201)
    for space in ("mine", "yours"):
        wish = {"resource": "pods", "verb": "list", "namespace": space}
        review = {"spec": {"resourceAttributes": wish}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        allowed = kubernetes(aws, "POST", path, review)[1]["status"]["allowed"]
        assert allowed == (not namespaces or space == "mine")
