"""Warnings: what is valid in a config and probably not intended."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from hyperpod_eks.aws import published as versions
from hyperpod_eks.aws.addon_needs import (
    ADDON_NEEDS,
    CERTIFICATES_PREFIX,
    INFERENCE,
    INFERENCE_PODS,
    INFERENCE_PREFIX,
)
from hyperpod_eks.config.addressing import ADDRESSES, subnets
from hyperpod_eks.config.lifecycle import check_lifecycle, is_elsewhere
from hyperpod_eks.config.team_checks import unmet_quotas
from hyperpod_eks.documents import Json, JsonMapping

if TYPE_CHECKING:
    from hyperpod_eks.config.model import Config

_PRINCIPAL_CONDITION = re.compile("(?i)aws:(principal|resource(account|org)|userid|username)")
OPENZFS_DRIVER = "aws-fsx-openzfs-csi-driver"
_MULTI_NODE = "MultiNodeTrainingValidation"


def warnings(config: Config) -> list[str]:
    """Return what is valid but probably not intended, a sentence each."""
    rules = (
        _region,
        _version,
        _addresses,
        _multi_node_check,
        _few_pods,
        _shut_buckets,
        _no_nat,
        _alone,
        _inference,
        _openzfs,
        unmet_quotas,
        _small,
    )
    found = [text for rule in rules for text in rule(config)]
    found += elsewhere(config)
    if is_elsewhere(config.lifecycle.path):
        return found
    return found + check_lifecycle(config.lifecycle.path, config.lifecycle.on_create)[1]


def elsewhere(config: Config) -> list[str]:
    """Return what the config names that is not on this machine, a sentence each."""
    found = []
    if is_elsewhere(config.lifecycle.path):
        found.append(
            "lifecycle.path: the folder is not on this machine; the scripts in the bucket stay as"
            " they are (--lifecycle FOLDER replaces them)"
        )
    if is_elsewhere(config.chart.path or ""):
        found.append(
            "chart.path: the chart is not on this machine; its Helm release stays as it is"
            " (--chart PATH replaces it)"
        )
    found += [
        f"charts.{name}.chart: the chart is not on this machine; its Helm release stays as it is"
        for name, each in config.charts.items()
        if is_elsewhere(each.chart)
    ]
    return found


def _region(config: Config) -> Iterator[str]:
    if config.region not in versions.HYPERPOD_REGIONS:
        yield (
            f"region: {config.region} is not among the regions that AWS listed for HyperPod in"
            f" {versions.REGIONS_READ:%B %Y}"
        )


def _version(config: Config) -> Iterator[str]:
    newest = versions.SUPPORTED_KUBERNETES[-1]
    if (version := config.eks.version) and versions.order(version) > versions.order(newest):
        how = (
            "it was allowed nevertheless"
            if config.eks.allow_untested_version
            else "create refuses it without eks.allow_untested_version: true"
        )
        yield (
            f"eks.version: {version} is newer than {newest}, the newest that AWS listed for"
            f" HyperPod in {versions.KUBERNETES_READ:%B %Y}; {how}"
        )


def _addresses(config: Config) -> Iterator[str]:
    """A group may need more addresses than its subnet has."""
    zones = config.network.availability_zone_ids or ("first", "second")
    blocks = config.network.secondary_cidrs or (subnets(config.network.cidr, zones)[0].private,)
    room = ipaddress.IPv4Network(blocks[0]).num_addresses - 5  # AWS reserves five in every subnet
    for group in config.groups if not config.existing.private_subnets else ():
        kind = next(iter(group.instance_types), "")
        each = next((n for part, n in ADDRESSES if kind.startswith(part)), 0)
        if group.instance_count * each > room:
            yield (
                f"network.cidr: {group.instance_count} {kind} of {group.name} take"
                f" about {group.instance_count * each} addresses ({each} each), and a private"
                f" subnet of {config.network.cidr} has {room}"
            )


def _openzfs(config: Config) -> Iterator[str]:
    """The driver of FSx for OpenZFS is a chart, and no EKS add-on (its docs/install.md)."""
    there = any(OPENZFS_DRIVER in each.chart for each in config.charts.values())
    if config.storage.fsx_openzfs and not there:
        yield (
            f"storage.fsx_openzfs: no chart of `charts` is {OPENZFS_DRIVER}, which is no EKS"
            " add-on; pods wait for their volumes until it is installed"
        )


def _multi_node_check(config: Config) -> Iterator[str]:
    with_nodes = [group for group in config.groups if group.instance_count]
    if with_nodes and all(_MULTI_NODE in group.on_start_deep_health_checks for group in with_nodes):
        yield (
            f"instance_groups: every group with nodes has the deep health check {_MULTI_NODE}. Its"
            " operator has no node to run on while all nodes are checked, so the check may never"
            " start: add a group without it, or remove it"
        )


def _few_pods(config: Config) -> Iterator[str]:
    nodes = ((next(iter(each.instance_types), ""), each.instance_count) for each in config.groups)
    pods = versions.room_for_pods(nodes)
    wanted = versions.PODS_WANTED + INFERENCE_PODS * (INFERENCE in config.asked_addons())
    if pods is not None and pods < wanted:
        yield (
            f"instance_groups: the nodes have room for about {pods} pods in all (HyperPod gives a"
            f" node one network interface), and the chart and the add-ons alone run about"
            f" {wanted}: use more or larger nodes"
        )


def _shut_buckets(config: Config) -> Iterator[str]:
    policy = config.network.endpoint_policy
    if policy is not None and (shut := locked_out(policy, config.region)):
        yield (
            f"network.endpoint_policy: it denies nodes {', '.join(shut)}, which are requested by"
            " AWS's own accounts: add a statement for those buckets without a condition on the"
            " principal; `hyperpod-eks init --example closed-network` writes one"
        )


def _no_nat(config: Config) -> Iterator[str]:
    closed = config.network.nat == "none" and not config.existing.private_subnets
    if closed and not (config.chart.images or _names_image(config.chart.values)):
        yield (
            "network.nat: without NAT nodes cannot pull the chart's public images (nvcr.io,"
            " docker.io, public.ecr.aws), and chart.values sets no others: run hyperpod-eks mirror"
            " -f FILE, which copies them to ECR, or their pods stay in ImagePullBackOff"
        )
    for name, each in config.charts.items():
        if closed and not (each.images or _names_image(each.values)):
            yield (
                f"charts.{name}: without NAT nodes cannot pull images from public registries, and"
                " its values set no others: run hyperpod-eks mirror -f FILE, which copies them to"
                " ECR, or its pods stay in ImagePullBackOff"
            )


def _alone(config: Config) -> Iterator[str]:
    """An add-on without those that it needs; an EKS cluster of others may have them."""
    for name in config.addons if not config.existing.eks_cluster else ():
        lacks = [x for x in ADDON_NEEDS.get(name, ()) if x not in config.asked_addons()]
        if lacks:
            names = ", ".join(lacks)
            yield f"addons.{name}: it needs {names}, which addons does not name: add {names}"


def _inference(config: Config) -> Iterator[str]:
    """What a role and a bucket of yours for the inference operator must be called."""
    if not (addon := config.addons.get(INFERENCE)):
        return
    values, setting = addon.configuration_values, f"addons.{INFERENCE}.configuration_values"
    for name, start, what in (
        ("executionRoleArn", INFERENCE_PREFIX, "the operator's role"),
        ("tlsCertificateS3Bucket", CERTIFICATES_PREFIX, "a bucket for its certificates"),
    ):
        value = str(values.get(name) or "")
        if value and not value.rpartition("/")[2].startswith(start):
            yield f"{setting}: {name} is {what}, whose name begins with {start}"
    if addon.pod_identity_associations is not None and not values.get("executionRoleArn"):
        yield f"{setting}: executionRoleArn, the operator's role, is missing: no role is created"


def _small(config: Config) -> Iterator[str]:
    """The collectors of metrics need a large node (hyperpod-observability-addon-setup.html)."""
    types = [each for group in config.groups for each in group.instance_types]
    sizes = [int(each or 1) for kind in types for each in re.findall(r"\.(\d*)xlarge", kind)]
    if config.monitoring == "prometheus" and sizes and max(sizes) < 4:
        yield (
            "monitoring: the collectors of prometheus need a node of size 4xlarge or larger, and no"
            " instance group has that: they may stay Pending"
        )


def _inner(value: object) -> list[Json]:
    """Return the values of a mapping, [] for anything else."""
    return list(value.values()) if isinstance(value, dict) else []


def locked_out(policy: JsonMapping, region: str) -> list[str]:
    """Name the content of AWS's own buckets that an endpoint policy denies to nodes.

    Nodes read image layers by URLs that ECR has signed, and packages by anonymous requests: a
    condition on the principal or on the resource's account denies both (S3 and ECR User Guides, VPC
    endpoints).
    """
    statements = policy.get("Statement", [])
    listed = statements if isinstance(statements, list) else [statements]
    through = [each for each in listed if isinstance(each, dict) and _lets_all_read(each)]
    return [
        what
        for what, bucket in versions.BUCKETS_OF_AWS
        if not any(
            _fits(f"arn:aws:s3:::{bucket.format(region=region)}/x", each.get("Resource"))
            for each in through
        )
    ]


def _lets_all_read(statement: JsonMapping) -> bool:
    """Whether a statement allows GetObject to everyone."""
    return (
        statement.get("Effect") == "Allow"
        and statement.get("Principal") in ("*", {"AWS": "*"}, {"AWS": ["*"]})
        and _fits("s3:GetObject", statement.get("Action"))
        and not any(
            _PRINCIPAL_CONDITION.match(key)
            for comparisons in _inner(statement.get("Condition"))
            for key in (comparisons if isinstance(comparisons, dict) else {})
        )
    )


def _fits(text: str, patterns: object) -> bool:
    listed = patterns if isinstance(patterns, list) else [patterns]
    return any(isinstance(p, str) and fnmatchcase(text, p.replace("[", "[[]")) for p in listed)


def _names_image(values: object) -> bool:
    """Whether chart values name an image or a registry anywhere."""
    if isinstance(values, list):
        return any(map(_names_image, values))
    return isinstance(values, dict) and any(
        re.search("(?i)image$|registry|repository", str(key)) or _names_image(value)
        for key, value in values.items()
    )
