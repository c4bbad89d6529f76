"""Checks after every case: no duplicates, no losses, no leftovers, no damage to other resources."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.local.aws.fsx import of_region
from hyperpod_eks.local.aws.sim import ACCOUNT
from hyperpod_eks.resources.s3 import OWN, claim_key
from hyperpod_eks.resources.test_jobs import LABEL as TEST
from hyperpod_eks.state.manifest import read

from .host import KEY, NAME, REGION, STATE, Host

REST = 60.0
"""Seconds after which the account no longer changes by itself."""
OTHERS = "0123456789abcdef"
"""The lineage of another team whose cluster has the same name."""

_ID = re.compile(r"\b([A-Za-z]+)-[0-9a-f]{8,32}(?:-[0-9a-f]{4,12})*\b")
RANDOM = ("MountName",)
"""Members whose values a service chooses at random, though they are no ids."""
_ADDRESS = re.compile(r"\b\d+\.\d+\.\d+\.\d+\b(?!/)")
_LOOSE = re.compile(r"^(secrets|pods|nodes|events|leases|endpoint|replicasets|controllerrev)")


class Broken(AssertionError):
    """A check has failed."""


def decoys(host: Host) -> dict[str, Any]:
    """Add resources to the account that belong to others and look like ours.

    Returns the config of a cluster in an existing VPC of a platform team.
    """
    client = host.session.somebody
    ec2, iam, s3, eks = client("ec2"), client("iam"), client("s3"), client("eks")
    signature = {CLUSTER: NAME, LINEAGE: OTHERS, LABEL: "vpc", "Name": f"{NAME}-vpc"}

    def tags(kind: str, label: str) -> Any:
        pairs = [{"Key": k, "Value": v} for k, v in (signature | {LABEL: label}).items()]
        return [{"ResourceType": kind, "Tags": pairs}]

    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=tags("vpc", "vpc"))["Vpc"]
    ec2.create_internet_gateway(TagSpecifications=tags("internet-gateway", "internet-gateway"))
    ec2.allocate_address(Domain="vpc", TagSpecifications=tags("elastic-ip", "address-usw2-az1"))
    ec2.create_security_group(
        GroupName=f"{NAME}-hyperpod-eks",
        Description="theirs",
        VpcId=vpc["VpcId"],
        TagSpecifications=tags("security-group", "security-group"),
    )
    subnets = [
        ec2.create_subnet(
            VpcId=vpc["VpcId"],
            CidrBlock=f"10.0.{number * 64}.0/24",
            AvailabilityZone=f"{REGION}{zone}",
        )["Subnet"]["SubnetId"]
        for number, zone in enumerate("ab")
    ]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "eks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = iam.create_role(
        RoleName=f"{NAME}-eks-eu-west-1", AssumeRolePolicyDocument=json.dumps(trust)
    )["Role"]
    iam.attach_role_policy(
        RoleName=role["RoleName"], PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    )
    s3.create_bucket(
        Bucket=f"sagemaker-{NAME}2-{ACCOUNT}-{REGION}",
        CreateBucketConfiguration={"LocationConstraint": REGION},
    )
    s3.put_object(
        Bucket=f"sagemaker-{NAME}2-{ACCOUNT}-{REGION}", Key="lifecycle/theirs.sh", Body=b"x"
    )
    issuer = f"https://oidc.eks.{REGION}.amazonaws.com/id/{32 * '0'}"
    pairs = [{"Key": k, "Value": v} for k, v in (signature | {LABEL: "oidc-provider"}).items()]
    iam.create_open_id_connect_provider(Url=issuer, Tags=pairs)
    host.stack.clock.advance(60)
    eks.create_cluster(
        name=f"{NAME}2", roleArn=role["Arn"], resourcesVpcConfig={"subnetIds": subnets}
    )
    theirs = platform(ec2)
    host.stack.clock.advance(600)
    host.stack.calls.clear()
    return theirs


def platform(ec2: Any) -> dict[str, Any]:
    """Create the VPC of a platform team, which others may use but not change."""
    vpc = ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"]
    for name in ("EnableDnsSupport", "EnableDnsHostnames"):
        ec2.modify_vpc_attribute(VpcId=vpc, **{name: {"Value": True}})
    routes = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    subnets = [
        ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"172.20.{number}.0/24", AvailabilityZoneId=f"usw2-az{number}"
        )["Subnet"]["SubnetId"]
        for number in (1, 2)
    ]
    for subnet in subnets:
        ec2.associate_route_table(RouteTableId=routes, SubnetId=subnet)
    return {"existing": {"vpc": vpc, "private_subnets": subnets}}


def others_untouched(host: Host, before: str) -> None:
    """O8, at any time: all resources that are not ours exist unchanged."""
    found = _differences(json.loads(before), json.loads(inventory(host)))
    if harm := [line for line in found if not line.startswith("left:")]:
        raise Broken(f"not ours: {harm[:5]}")


def inventory(host: Host) -> str:
    """Return everything in the account as text, for comparisons, without the manifest.

    What the tool keeps for itself in a cluster's bucket is part of that bucket.
    """
    found = host.stack.inventory()
    found["s3"].pop(STATE, None)
    found[REGION]["fsx"]["Backups"] = {}  # `data_is_saved` looks at those
    found[REGION]["ec2"]["Snapshots"] = {}
    for bucket in found["s3"].values():
        objects = bucket["Objects"].items()
        bucket["Objects"] = {key: each for key, each in objects if not key.startswith(OWN)}
    return json.dumps(found, sort_keys=True)


def shape(host: Host) -> Counter[str]:
    """Count the resources in the account after `REST`, without ids and addresses."""
    inventory(host)  # makes EKS check its add-ons
    host.stack.clock.advance(REST)
    text = inventory(host)
    for cluster in json.loads(text)[REGION]["hyperpod"]["Clusters"].values():
        text = text.replace(cluster["Id"], "ID")
    content = json.loads(text)
    kubernetes = content.pop("kubernetes")
    found: Counter[str] = Counter()

    def walk(value: Any, path: str, depth: int) -> None:
        if isinstance(value, dict) and depth < 3:
            for key, each in value.items():
                walk(each, f"{path}/{_plain(key)}", depth + 1)
        else:
            found[f"{path} {json.dumps(_sorted(value))}"] += 1

    walk(content, "", 0)
    for arn, objects in kubernetes.items():
        found.update(f"{arn} {key}" for key in objects if not _LOOSE.match(key))
    return found


def _plain(text: str) -> str:
    return _ADDRESS.sub("IP", _ID.sub(r"\1", text))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted([_plain(str(k)), k if k in RANDOM else _sorted(v)] for k, v in value.items())
    if isinstance(value, list):
        return sorted((_sorted(each) for each in value), key=repr)
    return _plain(value) if isinstance(value, str) else value


def same_shape(host: Host, undisturbed: Counter[str]) -> None:
    """O1, O3: the account has exactly the resources that an undisturbed run creates."""
    now = shape(host)
    if now != undisturbed:
        raise Broken(
            f"too much: {list(now - undisturbed)[:3]}, missing: {list(undisturbed - now)[:3]}"
        )


def journal_knows(host: Host) -> None:
    """O2: the manifest has the id of every resource with our lineage, and all are ready."""
    text = (host.store.read() or b"").decode()
    manifest = read(host.store, NAME)
    ec2 = host.stack.inventory()[REGION]["ec2"]
    for kind, things in ec2.items():
        for id_, thing in things.items():
            if f'"{manifest.lineage}"' in json.dumps(thing) and id_ not in text:
                raise Broken(f"{kind} {id_} is ours and not in the journal")
    for id_ in of_region(REGION).systems:
        if id_ not in text:
            raise Broken(f"file system {id_} is ours and not in the journal")
    done = ("ready", "deleted")  # "deleted": no longer declared
    unsure = [key for key, record in manifest.records.items() if record.state not in done]
    if unsure:
        raise Broken(f"not ready in the journal: {unsure}")


def a_volume(host: Host) -> None:
    """Create a volume as the driver does for a claim (aws-ebs-csi-driver, docs/tagging.md)."""
    tags = [{"Key": f"kubernetes.io/cluster/{NAME}", "Value": "owned"}]
    host.session.somebody("ec2").create_volume(
        AvailabilityZone=f"{REGION}a",
        Size=8,
        TagSpecifications=[{"ResourceType": "volume", "Tags": tags}],
    )


def a_certificate(host: Host) -> None:
    """Write what the inference operator writes for an endpoint."""
    bucket = f"hyperpod-tls-{NAME}-{ACCOUNT}-{REGION}"
    host.session.somebody("s3").put_object(Bucket=bucket, Key="certificates/llama.pem", Body=b"x")


def data_is_kept(host: Host, volumes: int) -> None:
    """O9: a file system, with what it is in, and the volumes; nobody asked for their delete."""
    systems = [*of_region(REGION).systems.values()]
    if [one["Lifecycle"] for one in systems] != ["AVAILABLE"] or of_region(REGION).backups_made:
        raise Broken(f"lost: the data, {systems}")
    ec2 = host.stack.inventory()[REGION]["ec2"]
    if len(ec2["Volumes"]) != volumes or ec2["Snapshots"]:
        raise Broken(f"lost: a volume, {ec2['Volumes']}")
    (one,) = systems
    if one["VpcId"] not in ec2["Vpcs"] or one["SubnetIds"][0] not in ec2["Subnets"]:
        raise Broken("lost: what the data is in")


def data_is_saved(host: Host, volumes: int) -> None:
    """O9: what was deleted with consent has a final backup; a second run takes another snapshot."""
    count = len(of_region(REGION).backups_made)
    if of_region(REGION).systems or count != 1:
        raise Broken(f"lost: the data has {count} backups")
    ec2 = host.stack.inventory()[REGION]["ec2"]
    saved = {each["VolumeId"] for each in ec2["Snapshots"].values()}
    if ec2["Volumes"] or len(saved) != volumes:
        raise Broken(f"lost: the snapshots of volumes are {ec2['Snapshots']}")


def locks_are_free(host: Host) -> None:
    """The run that has just ended has released its claim, and the lock of a manifest in S3."""
    locks = {f"sagemaker-{NAME}-{ACCOUNT}-{REGION}": claim_key(NAME)}
    for bucket, key in (locks | ({STATE: f"{KEY}.lock"} if host.in_s3 else {})).items():
        found = host.session.somebody("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        if json.loads(found)["state"] != "released":
            raise Broken(f"s3://{bucket}/{key} is still held")


def _kubernetes(host: Host) -> Any:
    """Return the Kubernetes API of the EKS cluster."""
    every = host.stack.sim.clusters
    return next(each for name, each in every.items() if str(name).endswith(f"cluster/{NAME}"))


def _jobs(host: Host) -> list[str]:
    """List what has the name of a job of a test, or belongs to one; events of them expire."""
    every = _kubernetes(host).snapshot()
    return [key for key in every if "/hyperpod-eks-test" in key and not key.startswith("events/")]


def a_test_of_others(host: Host) -> None:
    """Start a job as a test of another HyperPod cluster has it."""
    store = _kubernetes(host)._store
    container = {"name": "test", "image": "i", "command": ["sleep", "1000"]}
    template = {"spec": {"containers": [container], "restartPolicy": "Never"}}
    metadata = {"name": "hyperpod-eks-test-theirs", "labels": {TEST: f"{NAME}2"}}
    body = {"metadata": metadata, "spec": {"template": template}}
    store.create(store.registry.builtin("Job"), "default", body)


def a_test_of_others_is_there(host: Host) -> None:
    """O8: nothing of another cluster's test was deleted."""
    theirs = [key for key in _jobs(host) if "theirs" in key]
    if len(theirs) != 2:
        raise Broken(f"not ours: a job and its pod of others, {theirs}")


def no_test_left(host: Host) -> None:
    """No job of a test is left, and no pod of one."""
    if left := [key for key in _jobs(host) if "theirs" not in key]:
        raise Broken(f"left of a test: {left}")


def nothing_left(host: Host, before: str) -> None:
    """O5, O6, O8: the account is as before, also after `REST`, and the manifest is gone."""
    host.stack.clock.advance(REST)
    after = inventory(host)
    if after != before:
        old, new = json.loads(before), json.loads(after)
        raise Broken(f"not as before: {_differences(old, new)[:5]}")
    if host.store.read() is not None:
        raise Broken("the manifest is still there")


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            if key not in old:
                found.append(f"left: {path}/{key}")
            elif key not in new:
                found.append(f"lost: {path}/{key}")
            else:
                found += _differences(old[key], new[key], f"{path}/{key}")
        return found
    return [f"changed: {path}: {str(old)[:80]} -> {str(new)[:80]}"]
