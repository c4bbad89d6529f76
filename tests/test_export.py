"""The exports of every example: other tools read them, and no resource is passed over."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import hcl2
import pytest

from hyperpod_eks import session
from hyperpod_eks.export import cloudformation, documents, hcl, terraform, terraform_rows
from hyperpod_eks.local import CHART, daemon
from hyperpod_eks.local.stack import Stack
from hyperpod_eks.resources.base import KINDS, Lifecycle, Live, References, Resource
from hyperpod_eks.resources.compare import born
from hyperpod_eks.stack import kinds
from hyperpod_eks.state.manifest import Manifest
from hyperpod_eks.state.record import Record
from tests.conftest import REGION, User, at_work

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))
SAMPLE = ("closed-network", "p5-training-plans", "storage", "teams")
"""The examples that other programs read in `make test`; they read all in the long proof."""
HYPERPOD, CLUSTER = "hyperpod/Cluster", "hyperpod/cluster"
IDS = {
    "Subnet": "subnet",
    "SecurityGroup": "sg",
    "NatGateway": "nat",
    "Vpc": "vpc",
    "FileSystem": "fs",
}


@pytest.fixture(scope="module")
def here(one_stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    running = daemon.Running(one_stack.endpoint, os.getpid(), 0.0, REGION)
    with (
        at_work(one_stack, tmp_path_factory.mktemp("export")) as user,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(daemon, "ensure", lambda *_, **__: running)
        yield user


@pytest.fixture(scope="module")
def manifests(here: User) -> dict[str, Manifest]:
    """The manifest of each example, as if everything that it declares had been created."""
    return {path.stem: created(here, path) for path in EXAMPLES}


@pytest.fixture(scope="module")
def demo(here: User, manifests: dict[str, Manifest]) -> Path:
    """A manifest where commands look for it."""
    manifests["minimal"].save()
    path = here.folder / "demo.hyperpod-eks.json"
    path.write_bytes((here.folder / "minimal" / path.name).read_bytes())
    return path


def created(user: User, example: Path) -> Manifest:
    folder = user.folder / example.stem
    folder.mkdir()
    assert user.types("local", "prepare", "-f", str(example)).code == 0
    path = folder / "demo.hyperpod-eks.json"
    with session.connect(str(example), purpose=session.CHANGE, manifest=path) as opened:
        manifest = opened.manifest
        wants = [
            each for each in opened.wants if each.recorded and each.key not in manifest.adopted
        ]
        lives = {want.key: live(want, number) for number, want in enumerate(wants)}
        for want in wants:
            sent = born(want, References(lives)) if want.kind == HYPERPOD else None
            manifest.record(want, lives[want.key], "ready", 0.0, sent)
        manifest.config = opened.config.model_dump(mode="json", by_alias=True)
        return manifest


def live(want: Resource, number: int) -> Live:
    """A resource as AWS might have created it."""
    kind = want.kind.partition("/")[2]
    name = getattr(want, "name", "") or want.label
    id_ = f"{IDS[kind]}-{number:017x}" if kind in IDS else f"{name}"
    if want.kind in ("helm/Release", "helm/ChartRelease"):
        id_ = f"space/{name}"
    arn = getattr(want, "arn", "") or f"arn:aws:{kind.lower()}:::{id_}"
    names = {"dns_name": f"{id_}.fsx.us-west-2.amazonaws.com", "mount_name": "fsxabcde"}
    return Live(id_, arn, attributes=names if kind == "FileSystem" else {})


def test_every_kind_is_exported_or_named_as_left_out() -> None:
    owned = [kind for kind in kinds() if kind.lifecycle is Lifecycle.OWNED]
    recorded = {kind.kind for kind in owned if not inspect.isabstract(kind)}
    recorded = {each for each in recorded if KINDS[each].__module__.startswith("hyperpod_eks.")}
    for rows, left_out in (
        (terraform_rows.ROWS, documents.LEFT_OUT),
        (cloudformation.ROWS, cloudformation.LEFT_OUT),
    ):
        assert {*rows, *left_out} == recorded
        assert rows.keys() & left_out.keys() == set()


def test_every_resource_of_every_example_is_exported_or_left_out(
    manifests: dict[str, Manifest],
) -> None:
    for name, manifest in manifests.items():
        for export in (terraform.files, cloudformation.files):
            _, exported = export(manifest)
            assert {*exported.blocks, *exported.left_out} == {*manifest.records}, name
            assert "exports no" not in "".join(exported.left_out.values()), name


@pytest.mark.parametrize(
    "example",
    [
        pytest.param(path.stem, marks=() if path.stem in SAMPLE else pytest.mark.prove)
        for path in EXAMPLES
    ],
)
def test_hcl_of_an_example(manifests: dict[str, Manifest], example: str) -> None:
    texts, exported = terraform.files(manifests[example])
    read = [hcl2.loads(text) for text in texts.values()]
    imports = [unquoted(each) for file in read for each in file.get("import", ())]
    addresses = [
        f"{unquoted(type_)}.{unquoted(name)}"
        for file in read
        for each in file.get("resource", ())
        for type_, named in each.items()
        for name in named
    ]
    targets = [re.sub(r"[${}]", "", each["to"]) for each in imports]
    assert targets == addresses
    assert len({*addresses}) == len(addresses) == sum(map(len, exported.blocks.values()))
    text = "\n".join(texts.values())
    for used in re.findall(r"\b(aws(?:cc)?_\w+\.\w+)\.(?:id|arn)\b", text):
        assert used in addresses


def unquoted(value: Any) -> Any:
    """Values as python-hcl2 reads them, without the quotes that some versions keep."""
    if isinstance(value, dict):
        return {unquoted(key): unquoted(each) for key, each in value.items()}
    return value.strip('"') if isinstance(value, str) else value


def test_the_template_of_every_example_is_whole(manifests: dict[str, Manifest]) -> None:
    for manifest in manifests.values():
        texts, _ = cloudformation.files(manifest)
        template, imports = (
            json.loads(texts[f"{each}.json"]) for each in ("template", "resources-to-import")
        )
        assert {each["LogicalResourceId"] for each in imports} == {*template["Resources"]}
        for each in imports:
            resource = template["Resources"][each["LogicalResourceId"]]
            assert resource["Type"] == each["ResourceType"]
            assert resource["DeletionPolicy"] == "Retain"
            assert all(each["ResourceIdentifier"].values())


def test_a_mount_has_the_names_of_its_file_system_or_is_named_as_left_out(
    manifests: dict[str, Manifest],
) -> None:
    manifest = deepcopy(manifests["storage"])
    id_ = manifest.records["storage/data"].id
    lustre = {"MountName": "fsxabcde", "MountPath": "/data"}
    lustre["DnsName"] = f"{id_}.fsx.us-west-2.amazonaws.com"
    (group,) = hyperpod(manifest)["InstanceGroups"]
    assert group["InstanceStorageConfigs"] == [
        {"EbsVolumeConfig": {"VolumeSizeInGB": 500}},
        {"FsxLustreConfig": lustre},
    ]
    assert 'mount_name = "fsxabcde"' in terraform.files(manifest)[0]["hyperpod.tf"]

    manifest.records[CLUSTER] = replace(manifest.records[CLUSTER], sent=None)
    (group,) = hyperpod(manifest)["InstanceGroups"]
    assert group["InstanceStorageConfigs"] == [{"EbsVolumeConfig": {"VolumeSizeInGB": 500}}]
    for export in (terraform.files, cloudformation.files):
        assert "/data on worker-group" in export(manifest)[1].left_out[CLUSTER]


def hyperpod(manifest: Manifest) -> Any:
    """Return the properties of the HyperPod cluster in the template."""
    template = json.loads(cloudformation.files(manifest)[0]["template.json"])
    return template["Resources"]["HyperpodCluster"]["Properties"]


def test_the_scheduler_policy_and_quotas_are_those_of_the_config(
    manifests: dict[str, Manifest],
) -> None:
    manifest = manifests["teams"]
    texts, exported = cloudformation.files(manifest)
    assert not [each for each in exported.left_out if each.startswith("teams/")]
    template, imports = (
        json.loads(texts[f"{each}.json"]) for each in ("template", "resources-to-import")
    )
    policy, quota = (template["Resources"][f"Teams{each}"] for each in ("Policy", "QuotaVision"))
    config = policy["Properties"]["SchedulerConfig"]
    assert [each["Name"] for each in config["PriorityClasses"]] == ["production", "research"]
    assert quota["Properties"].pop("Tags")
    assert quota["Properties"] == {
        "Name": "demo-vision",
        "ClusterArn": {"Ref": "HyperpodCluster"},  # of this type, Ref is the ARN
        "ComputeQuotaConfig": {
            "ComputeQuotaResources": [{"InstanceType": "ml.g5.8xlarge", "Count": 2}]
        },
        "ComputeQuotaTarget": {"TeamName": "vision", "FairShareWeight": 60},
    }
    named = {each["LogicalResourceId"]: each["ResourceIdentifier"] for each in imports}
    arn = manifest.records["teams/quota-vision"].arn
    assert named["TeamsQuotaVision"] == {"ComputeQuotaArn": arn}

    text = terraform.files(manifest)[0]["hyperpod.tf"]
    address = "awscc_sagemaker_compute_quota.quota_vision"
    (block,) = [each for each in hcl2.loads(text)["import"] if address in each["to"]]
    assert unquoted(block["id"]) == arn
    assert text.count("cluster_arn = awscc_sagemaker_cluster.cluster.id") == 3
    assert "fair_share_weight = 60" in text


def test_what_is_imported_with_another_resource_is_not_left_out(
    manifests: dict[str, Manifest],
) -> None:
    manifest = deepcopy(manifests["platform"])
    policies = {key for key, each in manifest.records.items() if each.kind == "eks/AccessPolicy"}
    assert len(policies) == 6
    texts, exported = cloudformation.files(manifest)
    assert not policies & exported.left_out.keys()
    assert {key: exported.blocks[key] for key in policies} == {key: [] for key in policies}
    resources = json.loads(texts["template.json"])["Resources"]
    entries = [each for each in resources.values() if each["Type"] == "AWS::EKS::AccessEntry"]
    assert sum(len(each["Properties"].get("AccessPolicies", ())) for each in entries) >= 6

    entry = manifest.records["eks/access-Vision"]
    manifest.records["eks/access-Vision"] = replace(entry, origin="adopted")
    left_out = cloudformation.files(manifest)[1].left_out
    (*both,) = (why for key, why in left_out.items() if key in policies)
    assert len(both) == 2
    assert all("is a part of eks/access-Vision" in why for why in both)


def test_amounts_have_the_names_that_awscc_derives(manifests: dict[str, Manifest]) -> None:
    manifest = deepcopy(manifests["teams"])
    settings: Any = manifest.records["teams/quota-vision"].want["settings"]
    settings["quota"] = [{"InstanceType": "ml.g5.8xlarge", "VCpu": 8, "MemoryInGiB": 32.5}]
    text = terraform.files(manifest)[0]["hyperpod.tf"]
    assert "memory_in_gi_b = 32.5" in " ".join(text.split())
    assert "v_cpu = 8" in " ".join(text.split())


def lint(folder: Path, *templates: str) -> str:
    """Return what cfn-lint finds in templates.

    In its schemas, of 2026-10-20, us-east-1 has every type that is exported; those of task
    governance were still on their way to other regions.
    """
    program = Path(sys.executable).with_name("cfn-lint")
    paths = []
    for number, text in enumerate(templates):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(text)
    done = subprocess.run(
        [program, "--regions", "us-east-1", "--", *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_cfn_lint_is_content(manifests: dict[str, Manifest], tmp_path: Path) -> None:
    texts = [cloudformation.files(manifests[name])[0]["template.json"] for name in SAMPLE]
    assert lint(tmp_path, *texts) == ""


@pytest.mark.prove
def test_cfn_lint_is_content_with_every_example(
    manifests: dict[str, Manifest], tmp_path: Path
) -> None:
    texts = [cloudformation.files(each)[0]["template.json"] for each in manifests.values()]
    assert lint(tmp_path, *texts) == ""
    wrong = texts[0].replace('"CidrBlock"', '"CidrBlok"', 1)
    assert "E3002" in lint(tmp_path, wrong)


def test_what_the_manifest_does_not_have_is_left_out(here: User, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: demo\nregion: us-west-2\n"
        f"chart: {{path: {CHART}}}\n"
        "tags: {Owner: 'a: b'}\n"
        "addons:\n  metrics-server: {configuration_values: {key: '${env:SECRET}'}}\n"
        "instance_groups: [{name: a, instance_type: ml.p5.48xlarge, instance_count: 2,"
        " on_start_deep_health_checks: [InstanceStress, MultiNodeTrainingValidation]}]\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET", "s3cret")
        manifest = created(here, path)
    texts, exported = terraform.files(manifest)
    assert "SECRET" not in "".join(texts.values())
    assert "refers to variables" in exported.left_out["addons/metrics-server"]
    assert "MultiNodeTrainingValidation" in exported.left_out["hyperpod/cluster"]
    assert "MultiNode" not in "".join(texts.values())
    assert "InstanceStress" in texts["hyperpod.tf"]

    texts, others = cloudformation.files(manifest)
    assert "SECRET" not in "".join(texts.values())
    assert "refers to variables" in others.left_out["addons/metrics-server"]
    assert "MultiNodeTrainingValidation" in others.left_out["hyperpod/cluster"]

    manifest.mark("network/vpc", "deleting")
    manifest.records["iam/execution-role"] = Record("iam/Role", {}, "intent", 0.0, "t")
    for export in (terraform.files, cloudformation.files):
        left_out = export(manifest)[1].left_out
        assert left_out["network/vpc"] == "its deletion has begun"
        assert "not certain" in left_out["iam/execution-role"]
        assert "iam/execution-role" in left_out["hyperpod/cluster"]


@pytest.mark.parametrize("language", ["terraform", "cloudformation"])
def test_the_command_writes_a_folder_and_asks_nobody(here: User, demo: Path, language: str) -> None:
    here.stack.calls.clear()
    said = here.types("export", language, "demo", "-o", "json")
    assert (said.code, said.err) == (0, "")
    assert list(here.stack.calls) == []
    folder = here.folder / f"demo-{language}"
    assert said.document["files"] == sorted(each.name for each in folder.iterdir())
    assert {stat.S_IMODE(each.stat().st_mode) for each in folder.iterdir()} == {0o600}
    assert said.document["resources"]["network/vpc"] in (["aws_vpc"], ["AWS::EC2::VPC"])

    assert here.types("export", language, "demo").code == 0  # the same files again
    name = said.document["files"][0]
    (folder / name).write_text("mine")
    said = here.types("export", language, "demo")
    assert (said.code, (folder / name).read_text()) == (2, "mine")
    assert f"{name} exists and differs" in said.err
    assert here.types("export", language, "demo", "--dir", "elsewhere").code == 0
    assert here.types("export", language, "none").code == 8


def test_names_of_users_stay_text() -> None:
    text = hcl.block("locals", {"tags": {'a "b"': "${c}", "%{d}": "\\\n\b"}})
    read = hcl2.loads(text)["locals"][0]["tags"]
    assert '"a \\"b\\"" = "$${c}"' in text
    assert len([key for key in read if not key.startswith("__")]) == 2
    assert '"%%{d}"' in text
    assert "\\\\\\n\\u0008" in text


@pytest.mark.prove
def test_terraform_imports_the_cluster_without_a_change(
    here: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Terraform itself plans the import of what the embedded stack has."""
    if not shutil.which("terraform"):
        pytest.skip("terraform is not on PATH")
    here.stack.reset()
    (here.folder / "rich.yaml").write_text(RICH)
    here.makes("rich", "-f", "rich.yaml", "--yes")
    folder = here.folder / "aws-only"
    here.types("export", "terraform", "rich", "--dir", str(folder))
    fmt = ["terraform", f"-chdir={folder}", "fmt", "-check", "-diff"]
    assert subprocess.run(fmt, check=True, capture_output=True, text=True).stdout == ""
    (folder / "hyperpod.tf").unlink()  # its provider knows no endpoint but AWS's
    (folder / "providers.tf").write_text(AWS_ONLY + locals_of(folder / "providers.tf"))
    if terraform_says(folder, "init").returncode:
        pytest.skip("terraform finds no provider hashicorp/aws")
    done = terraform_says(folder, "plan", "-out=plan")
    assert done.returncode == 0, done.stdout + done.stderr
    changes = json.loads(terraform_says(folder, "show", "-json", "plan").stdout)["resource_changes"]
    assert {tuple(each["change"]["actions"]) for each in changes} == {("no-op",)}
    assert all("importing" in each["change"] for each in changes)
    assert len(changes) > 50


def terraform_says(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = ["terraform", f"-chdir={folder}", *words]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def locals_of(path: Path) -> str:
    return "locals {" + path.read_text().partition("\nlocals {")[2]


AWS_ONLY = """
terraform {
  required_providers {
    aws = {
      source = "hashicorp/aws"
    }
  }
}

provider "aws" {
  region            = "us-west-2"
  s3_use_path_style = true
}

"""
RICH = """
name: rich
region: us-west-2
tags: {team: "a: b"}
network: {nat: per-az, security_groups: strict, interface_endpoints: [sts]}
eks: {log_retention_days: 365, public_access_cidrs: [203.0.113.0/24]}
storage:
  fsx_lustre:
    data: {metadata_configuration: {mode: AUTOMATIC}, storage_capacity: 1200}
addons: {aws-ebs-csi-driver: }
"""


def test_an_unknown_kind_is_refused(here: User, demo: Path) -> None:
    text = demo.read_text()
    demo.write_text(text.replace("network/InternetGateway", "network/Later"))
    said = here.types("export", "terraform", "demo", "--dir", "later")
    assert (said.code, "network/Later" in said.err) == (2, True)
    assert not (here.folder / "later").exists()
    demo.write_text(text)
