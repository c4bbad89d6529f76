"""The example in docs/library.md works: it creates, shows and deletes a cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hyperpod_eks import session
from hyperpod_eks.aws.tags import CLUSTER, LINEAGE
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.local import CHART
from tests.conftest import Clients, User

PAGE = Path(__file__).parent.parent / "docs/library.md"


def test_the_example_runs(
    user: User, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    config = f"name: demo\nregion: us-west-2\nchart:\n  path: {CHART}\n"
    (user.folder / "cluster.yaml").write_text(config)
    monkeypatch.chdir(user.folder)
    before = user.stack.inventory()

    exec(compile(example, str(PAGE), "exec"), {})

    out = capsys.readouterr().out.splitlines()
    assert any(line.startswith("create eks/cluster usually ") for line in out)
    assert "hyperpod/cluster matches" in out
    assert re.fullmatch(r"\d+ resources deleted; kept: iam/service-linked-role", out[-1])
    assert user.stack.inventory().keys() - before.keys() == set()
    assert not (user.folder / "demo.hyperpod-eks.json").exists()


def test_what_is_wrong_is_an_error_with_a_hint(user: User) -> None:
    with (
        pytest.raises(Usage, match=r"^name: "),
        session.connect({"name": "no/name", "region": "us-west-2"}),
    ):
        pass
    assert issubclass(Usage, HyperpodError)


def test_a_protected_cluster_is_not_deleted(user: User) -> None:
    config = {"name": "demo", "region": "us-west-2", "deletion_protection": True}
    (user.folder / "demo.yaml").write_text(json.dumps(config))
    user.has("demo", "-f", "demo.yaml")
    with session.connect("demo.yaml", purpose=session.DELETE) as cluster:
        user.mutations()
        with pytest.raises(Usage, match="is protected"):
            cluster.delete()
    assert user.mutations() == []


def test_a_program_that_waits_before_it_deletes_looks_again(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyperpod_eks.engine.observe.LONGEST_AGE", 0.0)
    user.has("demo")
    (address,) = user.stack.inventory()["us-west-2"]["ec2"]["Addresses"]
    with session.connect({"name": "demo", "region": "us-west-2"}, purpose=session.DELETE) as it:
        tags = [{"Key": LINEAGE}, {"Key": CLUSTER}]  # somebody else has taken it over
        aws.ec2.delete_tags(Resources=[address], Tags=tags)
        it.delete()
    assert address in user.stack.inventory()["us-west-2"]["ec2"]["Addresses"]


def test_settings_are_compared_whatever_a_cluster_was_opened_for(user: User, aws: Clients) -> None:
    user.has("demo")
    (vpc,) = aws.ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["demo-*"]}])["Vpcs"]
    aws.ec2.modify_vpc_attribute(VpcId=vpc["VpcId"], EnableDnsHostnames={"Value": False})
    config = {"name": "demo", "region": "us-west-2", "chart": {"path": str(CHART)}}
    with session.connect(config, purpose=session.DELETE) as it:
        found = {each.want.key: str(each.status) for each in it.status()}
    assert {key for key, status in found.items() if status == "drifted"} == {"network/vpc"}


def test_everything_that_is_public_is_there() -> None:
    assert all(hasattr(session, name) for name in session.__all__)
