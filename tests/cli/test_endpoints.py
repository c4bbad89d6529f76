"""Interface endpoints are created where AWS offers them, which depends on region and zone."""

from __future__ import annotations

import pytest

from hyperpod_eks.local import CHART
from hyperpod_eks.local.aws.sim import Fault
from hyperpod_eks.resolve.endpoints import CLOSED
from tests.conftest import Clients, User

HEAD = "name: demo\nregion: us-west-2\n"
CHOSEN = "network: {availability_zone_ids: [usw2-az1, usw2-az2], nat: none%s}\n"


def zone(aws: Clients, id_: str) -> str:
    zones = aws.ec2.describe_availability_zones()["AvailabilityZones"]
    return next(str(each["ZoneName"]) for each in zones if each["ZoneId"] == id_)


def test_a_closed_network_has_the_endpoints_that_there_are(user: User, aws: Clients) -> None:
    """The region lacks ec2messages, and two services are in one zone each."""
    user.stack.sim.endpoint_zones |= {
        "ec2messages": (),
        "sagemaker.api": (zone(aws, "usw2-az2"), zone(aws, "usw2-az4")),
        "monitoring": (zone(aws, "usw2-az3"),),
    }
    (user.folder / "c.yaml").write_text(HEAD + CHOSEN % "")

    said = user.types("create", "-f", "c.yaml", "--chart", str(CHART))

    assert said.code == 0, said.err
    assert "AWS has no interface endpoint of monitoring in usw2-az1, usw2-az2" in said.err
    assert "ec2messages" not in said.err
    subnets = {s["SubnetId"]: s for s in aws.ec2.describe_subnets()["Subnets"]}
    homes = {
        each["ServiceName"].removeprefix("com.amazonaws.us-west-2."): {
            subnets[id_]["AvailabilityZoneId"] for id_ in each["SubnetIds"]
        }
        for each in aws.ec2.describe_vpc_endpoints()["VpcEndpoints"]
        if each["VpcEndpointType"] == "Interface"
    }
    assert set(homes) == {*CLOSED} - {"ec2messages", "monitoring"}
    assert homes.pop("sagemaker.api") == {"usw2-az2"}
    assert {frozenset(zones) for zones in homes.values()} == {frozenset({"usw2-az1", "usw2-az2"})}
    assert (
        user.types("plan", "-f", "c.yaml", "--chart", str(CHART), "--detailed-exitcode").code == 0
    )


@pytest.mark.parametrize(
    ("zones", "words"),
    [
        ((), "no interface endpoint of sts in us-west-2"),
        (("usw2-az3",), "no interface endpoint of sts in usw2-az1, usw2-az2"),
    ],
)
def test_a_named_service_must_be_there(
    user: User, aws: Clients, zones: tuple[str, ...], words: str
) -> None:
    user.stack.sim.endpoint_zones["sts"] = tuple(zone(aws, each) for each in zones)
    (user.folder / "c.yaml").write_text(HEAD + CHOSEN % ", interface_endpoints: [ec2, sts]")

    said = user.types("preflight", "-f", "c.yaml", "--chart", str(CHART), "-o", "json")

    found = {one["id"]: one for one in said.document["findings"]}
    assert found["endpoints"]["seen"] == {"setting": "network.interface_endpoints"}
    assert words in found["endpoints"]["says"]
    assert ("usw2-az3" in found["endpoints"]["fix"]) == bool(zones)


def test_whoever_may_not_ask_tries_every_zone(user: User) -> None:
    """Policies of earlier versions lack this permission; status and delete must work with them."""
    text = "not authorized to perform: ec2:DescribeVpcEndpointServices"
    fault = Fault("ec2", "DescribeVpcEndpointServices", "UnauthorizedOperation", 403, text, count=9)
    user.stack.faults.append(fault)
    (user.folder / "c.yaml").write_text(HEAD + CHOSEN % "")

    said = user.types("plan", "-f", "c.yaml", "--chart", str(CHART), "-o", "json")

    keys = [each["key"] for each in said.document["resources"]]
    assert {f"network/endpoint-{name}" for name in CLOSED} <= set(keys)
