"""Client tokens of a killed run, whose cluster was deleted from another machine meanwhile."""

from __future__ import annotations

import json

import pytest

from hyperpod_eks.local import CHART
from tests.conftest import Clients, User

CREATE = ("create", "-f", "demo.yaml", "--chart", str(CHART), "--timeout", "30")


def kill_amid(user: User, *keys: str) -> list[str]:
    """Change the manifest as if a kill hit the creates of these keys, or of all with a token."""
    path = user.folder / "demo.hyperpod-eks.json"
    document = json.loads(path.read_text())
    records = document["resources"]
    chosen = [key for key, each in records.items() if each["token"] and (not keys or key in keys)]
    for each in records.values():
        each["since"] -= 3600
    for key in chosen:
        records[key] |= {"state": "intent", "id": "", "arn": ""}
    path.write_text(json.dumps(document))
    return chosen


def config(user: User, tags: str = "{team: one}") -> None:
    text = f"name: demo\nregion: us-west-2\ntags: {tags}\nnetwork: {{interface_endpoints: [sts]}}\n"
    (user.folder / "demo.yaml").write_text(text)


def test_every_kind_with_a_token_is_created_after_a_delete_from_elsewhere(user: User) -> None:
    config(user)
    assert user.types(*CREATE).code == 0
    chosen = kill_amid(user)
    kinds = {"network/nat-gateway-usw2-az1", "network/s3-endpoint", "network/endpoint-sts"}
    kinds |= {"network/public-routes", "eks/cluster", "addons/vpc-cni", "eks/access-caller"}
    assert kinds <= {*chosen}
    gone = user.types("delete", "demo", "--yes", "--region", "us-west-2", "--manifest", "other")
    assert gone.code == 0, gone.err
    user.stack.calls.clear()

    said = user.types(*CREATE)

    assert said.code == 0, said.err
    refused = [c.operation for c in user.stack.calls if c.status >= 400 and c.mutating]
    assert refused == []


def test_a_token_that_aws_knows_with_other_tags_is_given_up_when_nothing_is_found(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.apply.GRACE", 0.5)
    monkeypatch.setattr("hyperpod_eks.engine.loop.GRACE", 0.5)
    config(user)
    assert user.types(*CREATE).code == 0
    kill_amid(user, "network/nat-gateway-usw2-az1")
    for nat in aws.ec2.describe_nat_gateways()["NatGateways"]:
        aws.ec2.delete_nat_gateway(NatGatewayId=nat["NatGatewayId"])
    config(user, "{team: two}")
    user.stack.calls.clear()

    said = user.types(*CREATE)

    assert said.code == 0, said.err
    tries = [c.status for c in user.stack.calls if c.operation == "CreateNatGateway"]
    assert tries == [400, 200]
