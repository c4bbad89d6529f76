"""Facts that AWS publishes on pages only, and the choice of a Kubernetes version.

No API returns them: each table names its page and the day it was read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime

from hyperpod_eks.aws import prices
from hyperpod_eks.documents import JsonMapping
from hyperpod_eks.errors import Usage

Version = tuple[int, ...]

# Kubernetes versions of HyperPod. Amazon SageMaker AI Developer Guide, page
# sagemaker-hyperpod-eks-prerequisites.html, read 2026-10-04.
SUPPORTED_KUBERNETES = ("1.30", "1.31", "1.32", "1.33", "1.34", "1.35")

KUBERNETES_READ = date(2026, 10, 4)

# The oldest version that the page has had since the first release of this tool. It stays when AWS
# drops it: a cluster of that version may exist, and its config must remain readable.
OLDEST_KUBERNETES = "1.30"

# The oldest VPC CNI that works with HyperPod; the same page, the same day.
OLDEST_VPC_CNI = (1, 18, 3)

# Add-on versions that do not work on HyperPod: the first, the last and the reason, by add-on.
# Issue 3753 of github.com/aws/amazon-vpc-cni-k8s, fixed in 1.22.4; read 2026-11-28.
BROKEN_ADDONS: Mapping[str, tuple[tuple[Version, Version, str], ...]] = {
    "vpc-cni": (
        (
            (1, 22, 0),
            (1, 22, 3),
            "gives a node's primary address to pods (amazon-vpc-cni-k8s issue 3753)",
        ),
    ),
}

# Zones in which EKS creates no control plane. EKS User Guide, page network-reqs.html ("Subnet
# requirements for clusters"), as others quote it, 2026-11-26.
ZONES_WITHOUT_EKS = frozenset({"use1-az3", "usw1-az2", "cac1-az3"})

# Regions of HyperPod. SageMaker AI Developer Guide, page sagemaker-hyperpod.html, read 2026-10-04.
# The list grows: an unlisted region is a warning, not an error.
REGIONS_READ = date(2026, 10, 4)
HYPERPOD_REGIONS = (
    "us-east-1", "us-east-2", "us-west-1", "us-west-2",
    "eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-south-2",
    "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3", "ap-southeast-4",
    "ap-northeast-1", "sa-east-1",
)  # fmt: skip


def zone_prefix(region: str) -> str:
    """Return the prefix of a region's zone ids (AWS RAM User Guide, working-with-az-ids.html).

    >>> zone_prefix("us-west-2"), zone_prefix("ap-northeast-1"), zone_prefix("eu-central-1")
    ('usw2', 'apne1', 'euc1')
    """
    area, side, number = region.split("-")
    return area + "".join(re.findall(r"(n|s|e|w|c)(?:orth|outh|ast|est|entral)", side)) + number


HYPERPOD_PARTITIONS = ("aws",)

# Pods per node: its one interface has this many IPv4 addresses, less the node's own (EC2's
# DescribeInstanceTypes, Ipv4AddressesPerInterface, 2026-11-29; SageMaker developer guide, maximum
# pods: 5 for ml.t3.medium, 14 for ml.m5.2xlarge). Other types have room for 29 and more.
_PODS = (
    (3, r"[cm]\dg\.medium"),
    (5, r"t3\.medium"),
    (11, r"t3\.large"),
    (9, r"\w+\.large|g4dn\.[24]?xlarge"),
    (14, r"(?!g7)[\w-]+\.[23]?xlarge|g4dn\.(8|16)xlarge"),
)
PODS_LEAST = 8
"""Pods of the add-ons alone: two of CoreDNS; per node CNI, kube-proxy, pod identity, agents."""
PODS_WANTED = 20
"""Pods of the add-ons and of the chart's operators and plugins."""

# AWS's own buckets, which nodes read: ECR User Guide ("Amazon ECR interface VPC endpoints"),
# AL2023 User Guide (repositories in S3), Systems Manager User Guide ("SSM Agent communications with
# AWS managed S3 buckets"); read 2026-11.
BUCKETS_OF_AWS = (
    ("image layers of ECR", "prod-{region}-starport-layer-bucket"),
    ("packages of Amazon Linux 2023", "al2023-repos-{region}-de612dc2"),
    ("updates of SSM Agent", "amazon-ssm-{region}"),
)

# Days that CloudWatch Logs can keep a log group. CloudWatch Logs API Reference, PutRetentionPolicy,
# read 2026-11-23; the model does not enumerate them.
LOG_RETENTION_DAYS = (
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922,
    3288, 3653,
)  # fmt: skip

_SOON = 60  # days


def numbers(version: str) -> Version:
    """Return the numbers in an add-on's version, so that versions can be compared.

    >>> numbers("v1.22.3-eksbuild.1")
    (1, 22, 3, 1)
    """
    return tuple(int(each) for each in re.findall(r"\d+", version))


def broken(addon: str, version: str) -> str:
    """Return why a version of an add-on does not work on HyperPod; empty if it does.

    >>> broken("vpc-cni", "v1.22.4-eksbuild.1"), broken("coredns", "v1.22.1")
    ('', '')
    """
    for first, last, why in BROKEN_ADDONS.get(addon, ()):
        if first <= numbers(version)[:3] <= last:
            return why
    return ""


def pods(instance_type: str) -> int | None:
    """Return how many pods fit on a node of a small type; None for larger types.

    >>> pods("ml.m5.2xlarge"), pods("ml.p5.48xlarge")
    (14, None)
    """
    kind = instance_type.removeprefix("ml.")
    return next((count for count, names in _PODS if re.fullmatch(names, kind)), None)


def room_for_pods(nodes: Iterable[tuple[str, int]]) -> int | None:
    """Return how many pods fit on nodes, by type and number; None for many, or without nodes.

    >>> room_for_pods([("ml.m5.2xlarge", 2), ("ml.t3.medium", 0)])
    28
    """
    rooms = [(pods(kind), count) for kind, count in nodes if count > 0]
    known = [room * count for room, count in rooms if room is not None]
    return sum(known) if known and len(known) == len(rooms) else None


def choose_version(
    offered: Iterable[JsonMapping],
    wanted: str | None = None,
    allow_untested: bool = False,
    today: date | None = None,
) -> tuple[str, list[str]]:
    """Choose the Kubernetes version of a new cluster.

    `offered` is ``clusterVersions`` of EKS's DescribeClusterVersions. Without `wanted`, the highest
    version in standard support that HyperPod supports is chosen (with `allow_untested`: the highest
    in standard support). `today` defaults to the day in UTC.

    Returns the version, and warnings about its price or the end of its support.
    Raises `Usage` for a version that EKS no longer creates, that it does not offer, or that
    HyperPod does not list.
    """
    today = today or datetime.now(UTC).date()
    by_version = {str(one["clusterVersion"]): one for one in offered}
    creatable = [v for v, one in by_version.items() if _status(one) != "UNSUPPORTED"]
    tested = [v for v in creatable if allow_untested or v in SUPPORTED_KUBERNETES]
    if wanted is None:
        if not tested:
            raise _unsupported(
                f"no Kubernetes version is supported by both EKS ({_listed(creatable)}) and"
                f" HyperPod ({_listed(SUPPORTED_KUBERNETES)})",
                "Choose one of EKS's with --kubernetes-version and eks.allow_untested_version.",
            )
        standard = [v for v in tested if _status(by_version[v]) == "STANDARD_SUPPORT"]
        choice = max(standard or tested, key=order)
        return choice, _warnings(by_version[choice], today)
    _check(wanted, by_version, creatable, tested)
    warnings = _warnings(by_version[wanted], today)
    if wanted not in SUPPORTED_KUBERNETES:
        warnings.append(f"HyperPod does not list Kubernetes {wanted}; it was allowed nevertheless")
    return wanted, warnings


def _check(
    wanted: str, known: Collection[str], creatable: Collection[str], tested: Collection[str]
) -> None:
    """Raise Usage for a version that EKS does not create or HyperPod does not list."""
    if wanted not in creatable:
        why = "no longer creates" if wanted in known else "does not offer"
        raise _unsupported(
            f"eks.version: EKS {why} Kubernetes {wanted} clusters",
            f"Choose one of {_listed(tested)}, or leave eks.version out.",
        )
    if wanted not in tested:
        raise _unsupported(
            f"eks.version: HyperPod does not list Kubernetes {wanted}"
            f" (it lists {_listed(SUPPORTED_KUBERNETES)})",
            f"Choose one of {_listed(tested)}, or set eks.allow_untested_version: true.",
        )


def _unsupported(message: str, hint: str) -> Usage:
    return Usage(message, hint, setting="eks.version")


def _warnings(one: JsonMapping, today: date) -> list[str]:
    version = one["clusterVersion"]
    ends = _day(one.get("endOfStandardSupportDate"))
    final = _day(one.get("endOfExtendedSupportDate"))
    standard, added = prices.CONTROL_PLANE.usd or 0.0, prices.EXTENDED_SUPPORT.usd or 0.0
    price = f"{standard + added:.2f} USD per hour, not {standard:.2f}"
    if _status(one) == "EXTENDED_SUPPORT":
        until = f" until {final}" if final else ""
        found = [f"Kubernetes {version} is in extended support{until}: {price}"]
        if final and (final - today).days <= _SOON:
            found.append(f"EKS upgrades Kubernetes {version} clusters by itself after {final}")
        return found
    if ends and (ends - today).days <= _SOON:
        then = f"extended support then costs {price}"
        return [f"standard support of Kubernetes {version} ends on {ends}; {then}"]
    return []


def in_extended_support(offered: Iterable[JsonMapping]) -> frozenset[str]:
    """Return the versions in extended support, of an answer of DescribeClusterVersions."""
    return frozenset(v["clusterVersion"] for v in offered if _status(v) == "EXTENDED_SUPPORT")


def _status(one: JsonMapping) -> str:
    """Return the support status; the older member ``status`` has it as ``standard-support``."""
    text = str(one.get("versionStatus") or one.get("status") or "STANDARD_SUPPORT")
    return text.upper().replace("-", "_")


def order(version: str) -> tuple[int, ...]:
    """Return the sort key of a version: 1.9 comes before 1.10."""
    return tuple(int(part) for part in version.split("."))


def _day(moment: datetime | date | None) -> date | None:
    return moment.date() if isinstance(moment, datetime) else moment


def _listed(versions: Iterable[str]) -> str:
    return ", ".join(sorted(versions, key=order)) or "none"


GOVERNANCE = "amazon-sagemaker-hyperpod-taskgovernance"
GOVERNANCE_REGIONS = frozenset(
    {
        *("ap-northeast-1", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ap-southeast-3"),
        *("eu-central-1", "eu-north-1", "eu-south-2", "eu-west-1", "eu-west-2"),
        *("sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2"),
    }
)
"""Where HyperPod task governance is offered: the CloudFormation reference of
AWS::SageMaker::ComputeQuota, read on 2026-11-28."""


def no_upgrade(addon: str, version: str, to: str) -> str:
    """Return why EKS fails to update an add-on from one version to another; "" if it does not.

    SageMaker developer guide, "Upgrade the task governance add-on".

    >>> no_upgrade("coredns", "v1.3.0-eksbuild.1", "v1.6.1-eksbuild.1")
    ''
    """
    if addon != GOVERNANCE or numbers(version)[:2] != (1, 3) or numbers(to)[:2] < (1, 5):
        return ""
    return (
        "Kueue of v1.3 is not updated in place: keep addons."
        f"{addon}.version: {version} until you have upgraded it in the HyperPod console, or by the"
        " steps of https://docs.aws.amazon.com/sagemaker/latest/dg/"
        "sagemaker-hyperpod-eks-operate-console-ui-governance-upgrade.html, which back up and"
        " restore Kueue's objects"
    )
