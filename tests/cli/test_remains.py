"""Delete finds and deletes all resources with our tags, and verifies that they are gone."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest
from moto.logs.models import logs_backends

from hyperpod_eks.aws.client import Identity
from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.resolve.names import lineage
from hyperpod_eks.state.file_store import FileStore
from hyperpod_eks.state.manifest import Manifest, read
from tests.cli.test_commands import on_a_terminal
from tests.conftest import Clients, User

HERE = Identity("", "123456789012", "aws", "us-west-2")
RICH = """\
name: demo
region: us-west-2
network:
  cidr: 10.4.0.0/16
  availability_zone_ids: [usw2-az1, usw2-az3]
  secondary_cidrs: [100.64.0.0/17, 100.64.128.0/17]
  nat: per-az
  interface_endpoints: [sts, logs]
  security_groups: strict
auto_scaling: {mode: Enable}
iam: {path: /teams/ml/}
"""


def signed(label: str, owner: str) -> list[dict[str, str]]:
    pairs = {CLUSTER: "demo", LINEAGE: owner, LABEL: label}
    return [{"Key": key, "Value": value} for key, value in pairs.items()]


def test_what_neither_config_nor_manifest_names_goes_too(user: User, aws: Clients) -> None:
    """Resources that only a lost config declared, whose manifest is lost too."""
    before = user.stack.inventory()
    (user.folder / "rich.yaml").write_text(RICH)
    user.has("demo", "-f", "rich.yaml")
    (user.folder / "demo.hyperpod-eks.json").unlink()
    bucket = "sagemaker-demo-of-old"
    born = {"LocationConstraint": "us-west-2", "Tags": signed("bucket", lineage(HERE, "demo"))}
    aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=born)
    foreseen = user.types("delete", "demo", "--dry-run").out
    assert bucket in foreseen
    assert "network/endpoint-sts" in foreseen
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert user.stack.inventory() == before


@pytest.mark.parametrize("storage", ["{}", "{fsx_lustre: {data: }}"], ids=["none", "lustre"])
def test_a_dry_run_lists_what_the_delete_then_deletes_and_keeps(user: User, storage: str) -> None:
    (user.folder / "c.yaml").write_text(f"name: demo\nregion: us-west-2\nstorage: {storage}\n")
    user.has("demo", "-f", "c.yaml")
    text = user.types("delete", "demo", "--dry-run").out
    rows = user.types("delete", "demo", "--dry-run", "-o", "json").document["plan"]
    done = user.types("delete", "demo", "--yes", "-o", "json").document

    # EKS's security group, which this EKS deletes itself, and another one may leave
    (doubt,) = (row for row in rows if row["why"] == "if it still exists by then")
    assert doubt["key"] == "network/leftovers"
    by = {
        action: {x["key"] for x in rows if x["action"] == action} for action in ("delete", "keep")
    }
    assert "hyperpod/log-group" in by["delete"]
    assert by["delete"] - {doubt["key"]} == {*done["removed"]} - {doubt["key"]}
    assert by["keep"] == {*done["kept"]}
    assert f"cluster demo: {len(by['delete'])} to delete, {len(by['keep'])} to keep\n" in text


def test_what_another_clusters_tags_name_stays(user: User, aws: Clients) -> None:
    tags = [{"ResourceType": "elastic-ip", "Tags": signed("address-usw2-az9", "0123456789abcdef")}]
    address = aws.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)["AllocationId"]
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0
    assert [each["AllocationId"] for each in aws.ec2.describe_addresses()["Addresses"]] == [address]


def test_what_others_put_into_our_roles_and_policies_goes_with_them(
    user: User, aws: Clients
) -> None:
    user.has("demo")
    statement = {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = "demo-hyperpod-us-west-2"
    aws.iam.put_role_policy(RoleName=role, PolicyName="theirs", PolicyDocument=text)
    arn = f"arn:aws:iam::123456789012:policy/{role}"
    aws.iam.create_policy_version(PolicyArn=arn, PolicyDocument=text)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert "nothing remains" in said.out


class Late:
    """A WSGI application (PEP 3333) that shows deleted security groups two more times."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.seen: list[bytes] = []
        self.stale = -1

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        said: list[Any] = []
        answer = b"".join(self.application(environ, lambda *words: said.extend(words)))
        if b"Action=DeleteSecurityGroup&" in body:
            self.stale = 2
        if b"Action=DescribeSecurityGroups&" in body and b"tag%3A" in body:
            if self.stale > 0 and b"<groupId>" not in answer:
                self.stale -= 1
                answer = self.seen[-1]
            else:
                self.seen.append(answer)
        headers = [(k, v) for k, v in said[1] if k.lower() != "content-length"]
        start(said[0], [*headers, ("Content-Length", str(len(answer)))])
        return [answer]


def test_what_a_delete_leaves_visible_for_a_moment_is_waited_for(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.has("demo")
    monkeypatch.setattr("hyperpod_eks.engine.destroy.LONGEST", 0.01)
    server = user.stack._server._httpd
    late = Late(server.app)
    monkeypatch.setattr(server, "app", late)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 0, said.err
    assert late.stale == 0
    assert b"<groupId>" not in late.seen[-1]


def test_what_a_manifest_knows_is_an_orphan_in_no_region(user: User) -> None:
    user.has("demo")
    for region in ("us-west-2", "us-east-1"):
        assert user.types("orphans", "--region", region, "-o", "json").document["orphans"] == []
    (user.folder / "demo.hyperpod-eks.json").unlink()
    assert "cluster demo exists, but its manifest was not found" in user.types("orphans").out


def test_an_interface_that_nobody_described_is_named_with_its_status(
    user: User, aws: Clients
) -> None:
    user.has("demo")
    subnet = user.types("outputs", "demo", "--query", "outputs.private_subnet_ids[0]").out.strip()
    made = aws.ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]
    said = user.types("delete", "demo", "--yes", "--keep", "bucket", "--timeout", "2")
    assert said.code == 9, said.err
    id_ = made["NetworkInterfaceId"]
    command = f"aws ec2 delete-network-interface --network-interface-id {id_} --region us-west-2"
    assert f"1 network interface left: {id_} (available): {command}" in said.err
    (command,) = re.findall("hyperpod-eks delete.*", said.err)
    assert "--keep bucket" in command, "else it would delete the bucket"


def test_free_interfaces_of_services_that_are_gone_are_deleted(user: User, aws: Clients) -> None:
    """They would block the VPC's delete; description, requester or tags identify them."""
    user.has("demo")
    subnet = user.types("outputs", "demo", "--query", "outputs.private_subnet_ids[0]").out.strip()
    ids = []
    for description, tag in (
        ("Amazon EKS demo", ""),
        ("[DO NOT DELETE] ENI managed by SageMaker for Resource cluster/0123456789ab", ""),
        ("", "node.k8s.amazonaws.com/instance_id"),
        ("", "eks:eni:owner"),
    ):
        tags = [{"Key": tag, "Value": "x"}] if tag else [{"Key": "a", "Value": "x"}]
        made = aws.ec2.create_network_interface(
            SubnetId=subnet,
            Description=description,
            TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
        )
        ids.append(made["NetworkInterface"]["NetworkInterfaceId"])
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    calls = [c.operation for c in user.stack.calls]
    assert calls.count("DeleteNetworkInterface") == len(ids)
    gone = calls.index("DeleteNetworkInterface")
    assert max(i for i, name in enumerate(calls) if name == "DeleteCluster") < gone


def test_what_is_protected_stays_though_config_and_manifest_are_lost(
    user: User, aws: Clients
) -> None:
    """HyperPod, which has no protection, would be deleted before EKS refuses."""
    (user.folder / "demo.yaml").write_text(
        "name: demo\nregion: us-west-2\ndeletion_protection: true\n"
    )
    user.has("demo", "-f", "demo.yaml")
    (user.folder / "demo.hyperpod-eks.json").unlink()

    said = user.types("delete", "demo", "--yes")

    assert said.code == 2
    assert "protected" in said.err
    assert aws.sagemaker.describe_cluster(ClusterName="demo")["ClusterStatus"] == "InService"


def test_what_is_protected_while_a_question_waits_stays(
    user: User, aws: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.has("demo")

    def prompt(*_: object, **__: object) -> str:
        aws.eks.update_cluster_config(name="demo", deletionProtection=True)
        user.mutations()
        return "demo"

    monkeypatch.setattr("click.prompt", prompt)
    said = on_a_terminal("delete", "demo")
    assert (said.code, user.mutations()) == (2, []), said.err
    assert "is protected" in said.err


def test_a_cluster_whose_existing_bucket_is_gone_goes_without_its_file(
    user: User, aws: Clients
) -> None:
    (user.folder / "c.yaml").write_text(
        "name: demo\nregion: us-west-2\nexisting:\n  bucket: team-bucket\n"
    )
    place = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket="team-bucket", CreateBucketConfiguration=place)
    user.makes("demo", "-f", "c.yaml")
    (user.folder / "demo.hyperpod-eks.json").unlink()
    bucket = boto3.resource("s3").Bucket("team-bucket")
    bucket.objects.all().delete()
    bucket.delete()

    said = user.types("delete", "-f", "c.yaml", "--yes")
    assert said.code == 8
    (command,) = re.findall("To delete it without the file: hyperpod-eks (.*)", said.err)
    assert user.types(*command.split(), "--yes").code == 0
    assert user.types("status", "demo").code == 8


def test_objects_that_s3_does_not_delete_are_told_at_once(user: User, aws: Clients) -> None:
    """DeleteObjects returns status 200 with a list of errors."""
    user.has("demo")
    bucket = "sagemaker-demo-123456789012-us-west-2"
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject*"}
    statement = deny | {"Resource": f"arn:aws:s3:::{bucket}/*"}
    text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.s3.put_bucket_policy(Bucket=bucket, Policy=text)

    said = user.types("delete", "demo", "--yes")

    assert said.code == 3
    assert re.search(r"deleting s3/bucket: [\w./-]+: Access Denied", said.err)
    aws.s3.delete_bucket_policy(Bucket=bucket)
    assert user.types("delete", "demo", "--yes").code == 0


def test_buckets_of_other_regions_are_not_asked_for_their_tags(
    user: User, aws: Clients, session: boto3.Session
) -> None:
    elsewhere = session.client(
        "s3",
        region_name="eu-west-1",
        endpoint_url=user.stack.endpoint,
        aws_access_key_id="ASIALOCALSTACK000000",
        aws_secret_access_key="local",
    )
    theirs = lineage(replace(HERE, region="eu-west-1"), "demo")
    born: Any = {"LocationConstraint": "eu-west-1", "Tags": signed("bucket", theirs)}
    elsewhere.create_bucket(Bucket="sagemaker-demo-elsewhere", CreateBucketConfiguration=born)
    found = user.types("orphans", "--region", "us-west-2", "-o", "json").document["orphans"]
    assert found == []
    found = user.types("orphans", "--region", "eu-west-1", "-o", "json").document["orphans"]
    assert [each["id"] for each in found] == ["sagemaker-demo-elsewhere"]


def test_a_manifest_of_another_region_knows_no_orphans_of_this_one(
    user: User, aws: Clients
) -> None:
    tags = [
        {"ResourceType": "elastic-ip", "Tags": signed("address-usw2-az1", lineage(HERE, "demo"))}
    ]
    aws.ec2.allocate_address(Domain="vpc", TagSpecifications=tags)
    elsewhere = Manifest(
        FileStore(user.folder / "demo.hyperpod-eks.json"), "demo", HERE.account, "eu-west-1"
    )
    elsewhere.lineage = lineage(replace(HERE, region="eu-west-1"), "demo")
    elsewhere.save()
    found = user.types("orphans", "--region", "us-west-2", "-o", "json").document["orphans"]
    assert [each["cluster"] for each in found] == ["demo"]


def test_an_adoption_that_fails_leaves_the_one_before_it(user: User, aws: Clients) -> None:
    """Otherwise the next create would create its own VPC."""
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert user.types("adopt", "demo", "--resource", f"network/vpc={vpc}").code == 0
    said = user.types("adopt", "demo", "--resource", "network/vpc=vpc-0123456789abcdef0")
    assert said.code == 8
    assert read(FileStore(user.folder / "demo.hyperpod-eks.json")).adopted.items() == {
        ("network/vpc", vpc)
    }


def test_logs_go_though_the_manifest_was_made_anew(user: User, aws: Clients) -> None:
    """Its records are newer than HyperPod's log group, which has no tags."""
    user.has("demo")
    for group in logs_backends["123456789012"]["us-west-2"].groups.values():
        group.creation_time -= timedelta(hours=1)
    (user.folder / "demo.hyperpod-eks.json").unlink()
    assert user.types("adopt", "demo", "--rebuild").code == 0
    assert user.types("delete", "demo", "--yes").code == 0
    assert aws.logs.describe_log_groups()["logGroups"] == []


def test_a_manifest_is_not_made_anew_of_nothing(user: User) -> None:
    said = user.types("adopt", "demo", "--rebuild")
    assert said.code == 8
    assert "no resources of a cluster demo exist in us-west-2" in said.err
    assert not (user.folder / "demo.hyperpod-eks.json").exists()


def test_what_shows_no_owner_is_whose_it_is_in(user: User, aws: Clients) -> None:
    """Without our tags, bucket and EKS cluster are somebody's, as after an export."""
    user.has("demo")
    (user.folder / "demo.hyperpod-eks.json").unlink()
    bucket = "sagemaker-demo-123456789012-us-west-2"
    aws.s3.delete_bucket_tagging(Bucket=bucket)
    about = aws.eks.describe_cluster(name="demo")["cluster"]
    aws.eks.untag_resource(resourceArn=about["arn"], tagKeys=[*about["tags"]])
    lines = user.types("delete", "demo", "--dry-run").out.splitlines()
    for key, holder in (("s3/scripts", "s3/bucket"), ("helm/release", "eks/cluster")):
        (line,) = [line for line in lines if f" {key} " in line]
        assert line.startswith("keep"), line
        assert line.endswith(f"({holder} is not this cluster's)"), line


def test_somebody_elses_bucket_keeps_its_objects(user: User, aws: Clients) -> None:
    bucket = "sagemaker-demo-123456789012-us-west-2"
    born = {"LocationConstraint": "us-west-2"}
    aws.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=born)
    aws.s3.put_object(Bucket=bucket, Key="lifecycle/on_create.sh", Body=b"theirs")
    before = user.stack.inventory()
    said = user.types("delete", "demo", "--yes")
    assert said.code == 0, said.err
    assert user.stack.inventory() == before
