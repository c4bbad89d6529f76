"""A blocked delete reports AWS's message, the blockers, and the commands to remove them."""

from __future__ import annotations

import json
from typing import Any

from hyperpod_eks.local.aws.sim import Delays, Fault
from tests.conftest import Clients, User


def test_nodes_that_may_not_be_deleted_end_the_wait_with_the_cause(
    user: User, aws: Clients
) -> None:
    """HyperPod deletes interfaces with the nodes' role, whose policy is detached here."""
    user.has("demo")
    role = "demo-hyperpod-us-west-2"
    text = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}],
        }
    )
    arn = f"arn:aws:iam::123456789012:policy/{role}"
    aws.iam.create_policy_version(PolicyArn=arn, PolicyDocument=text, SetAsDefault=True)

    said = user.types("delete", "demo", "--yes", "--timeout", "60", "-o", "json")

    assert said.code == 9, said.err
    error = said.document["error"]
    assert "does not have permission to perform" in error["message"]
    assert error["causes"][0]["id"] == "role-lacks-permission"


def test_what_a_vpc_holds_is_named_with_the_command_that_removes_it(
    user: User, aws: Clients
) -> None:
    user.has("demo")
    vpc = vpcs(aws)[0]["VpcId"]
    made = things(aws, vpc)

    said = user.types("delete", "demo", "--yes", "--timeout", "8", "-o", "json")

    assert said.code == 9, said.err
    message = said.document["error"]["message"]
    for id_, command in made.items():
        assert f"{command} {id_}" in message, message


def things(aws: Clients, vpc: str) -> dict[str, str]:
    """Create users' resources in a VPC; return ids, with the end of the command to delete each."""
    other = aws.ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    ec2 = aws.ec2
    peering = ec2.create_vpc_peering_connection(VpcId=vpc, PeerVpcId=other)
    gateway = ec2.create_vpn_gateway(Type="ipsec.1")["VpnGateway"]["VpnGatewayId"]
    ec2.attach_vpn_gateway(VpcId=vpc, VpnGatewayId=gateway)
    only = ec2.create_egress_only_internet_gateway(VpcId=vpc)["EgressOnlyInternetGateway"]
    table = ec2.create_route_table(VpcId=vpc)["RouteTable"]
    return {
        peering["VpcPeeringConnection"]["VpcPeeringConnectionId"]: "--vpc-peering-connection-id",
        ec2.create_network_acl(VpcId=vpc)["NetworkAcl"]["NetworkAclId"]: "--network-acl-id",
        table["RouteTableId"]: "delete-route-table --route-table-id",
        gateway: "detach-vpn-gateway --vpn-gateway-id",
        only["EgressOnlyInternetGatewayId"]: "--egress-only-internet-gateway-id",
    }


def test_quotas_of_task_governance_are_named(user: User, aws: Clients) -> None:
    user.has("demo")
    arn = aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterArn"]
    quota = aws.sagemaker.create_compute_quota(
        Name="team-a",
        ClusterArn=arn,
        ComputeQuotaConfig={"PreemptTeamTasks": "Never"},
        ComputeQuotaTarget={"TeamName": "a"},
    )["ComputeQuotaId"]
    words = "The cluster is in use by a compute quota"
    fault = Fault("sagemaker", "DeleteCluster", "ConflictException", 400, words, count=999)
    user.stack.faults.append(fault)

    said = user.types("delete", "demo", "--yes", "--timeout", "4")

    assert said.code == 9, said.err
    assert "compute quota team-a" in said.err
    assert f"aws sagemaker delete-compute-quota --compute-quota-id {quota}" in said.err


def vpcs(aws: Clients) -> list[dict[str, Any]]:
    ours: Any = [{"Name": "tag-key", "Values": ["hyperpod-eks:lineage"]}]
    return list(aws.ec2.describe_vpcs(Filters=ours)["Vpcs"])


def test_status_shows_what_hyperpod_is_doing(user: User, aws: Clients) -> None:
    user.has("demo")
    ended = user.types("status", "demo", "-o", "json").document["operations"]
    user.stack.sim.delays = Delays(hyperpod_provision=1e6)
    group = aws.sagemaker.describe_cluster(ClusterName="demo")["InstanceGroups"][0]
    aws.sagemaker.batch_add_cluster_nodes(
        ClusterName="demo",
        NodesToAdd=[{"InstanceGroupName": group["InstanceGroupName"], "IncrementTargetCountBy": 1}],
    )
    user.stack.calls.clear()

    under_way = user.types("status", "demo", "-o", "json").document["operations"]

    assert ended == []
    assert [each["type"] for each in under_way] == ["Scaling"]
    asked = [c.operation for c in user.stack.calls].count("ListClusterOperations")
    assert asked == 1
