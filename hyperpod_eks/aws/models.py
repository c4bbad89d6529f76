"""Reads botocore's models, and keeps what this tool needs of the large ones in the cache folder.

The models of six services are 10 MB of JSON, mostly documentation, and botocore creates a method
for each of their 1,700 operations, of which this tool calls 190.  What is kept is 0.6 MB of JSON,
read in a quarter of the time.  It is a copy, which anybody may delete: one that cannot be read, or
is of another version of botocore or of this tool, is replaced.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import hyperpod_eks
from hyperpod_eks import files, folders
from hyperpod_eks.documents import Json, JsonObject
from hyperpod_eks.errors import Usage

if TYPE_CHECKING:
    from botocore.loaders import Loader

OPERATIONS: Mapping[str, Collection[str]] = {
    service: frozenset(names.split())
    for service, names in {
        "ec2": """
            AllocateAddress AssociateRouteTable AssociateVpcCidrBlock AttachInternetGateway
            AuthorizeSecurityGroupEgress AuthorizeSecurityGroupIngress CreateInternetGateway
            CreateNatGateway CreateRoute CreateRouteTable CreateSecurityGroup CreateSnapshot
            CreateSubnet CreateTags CreateVpc CreateVpcEndpoint DeleteInternetGateway
            DeleteNatGateway DeleteNetworkInterface DeleteRoute DeleteRouteTable
            DeleteSecurityGroup DeleteSubnet DeleteVolume DeleteVpc DeleteVpcEndpoints
            DescribeAddresses DescribeAvailabilityZones DescribeEgressOnlyInternetGateways
            DescribeInstanceConnectEndpoints DescribeInstanceTypeOfferings DescribeInstanceTypes
            DescribeInternetGateways DescribeNatGateways DescribeNetworkAcls
            DescribeNetworkInterfaces DescribeRegions DescribeRouteTables DescribeSecurityGroups
            DescribeSnapshots DescribeSubnets DescribeTags DescribeTransitGatewayVpcAttachments
            DescribeVolumes DescribeVpcAttribute DescribeVpcEndpointServices DescribeVpcEndpoints
            DescribeVpcPeeringConnections DescribeVpcs DescribeVpnGateways DetachInternetGateway
            DisassociateRouteTable DisassociateVpcCidrBlock ModifyVpcAttribute ModifyVpcEndpoint
            ReleaseAddress ReplaceRoute ReplaceRouteTableAssociation RevokeSecurityGroupEgress
            RevokeSecurityGroupIngress""",
        "eks": """
            AssociateAccessPolicy AssociateEncryptionConfig CreateAccessEntry CreateAddon
            CreateCluster CreatePodIdentityAssociation DeleteAccessEntry DeleteAddon DeleteCluster
            DeletePodIdentityAssociation DescribeAccessEntry DescribeAddon
            DescribeAddonConfiguration DescribeAddonVersions DescribeCluster
            DescribeClusterVersions DescribePodIdentityAssociation DisassociateAccessPolicy
            ListAccessEntries ListAddons ListAssociatedAccessPolicies ListClusters
            ListPodIdentityAssociations TagResource UpdateAccessEntry UpdateAddon
            UpdateClusterConfig UpdateClusterVersion UpdatePodIdentityAssociation""",
        "iam": """
            AddClientIDToOpenIDConnectProvider AttachRolePolicy CreateOpenIDConnectProvider
            CreatePolicy CreatePolicyVersion CreateRole CreateServiceLinkedRole
            DeleteOpenIDConnectProvider DeletePolicy DeletePolicyVersion DeleteRole
            DeleteRolePermissionsBoundary DeleteRolePolicy DetachRolePolicy GetAccountSummary
            GetOpenIDConnectProvider GetPolicy GetPolicyVersion GetRole ListAttachedRolePolicies
            ListOpenIDConnectProviderTags ListOpenIDConnectProviders ListPolicies ListPolicyTags
            ListPolicyVersions ListRolePolicies ListRoleTags ListRoles PutRolePermissionsBoundary
            SimulatePrincipalPolicy TagOpenIDConnectProvider TagPolicy TagRole
            UpdateAssumeRolePolicy""",
        "logs": """
            AssociateKmsKey CreateLogGroup DeleteLogGroup DescribeLogGroups DescribeLogStreams
            DisassociateKmsKey FilterLogEvents GetLogEvents ListTagsForResource PutRetentionPolicy
            TagResource""",
        "s3": """
            AbortMultipartUpload CreateBucket CreateSession DeleteBucket DeleteObject DeleteObjects
            GetBucketEncryption GetBucketOwnershipControls GetBucketPolicy GetBucketTagging
            GetObject GetPublicAccessBlock HeadBucket HeadObject ListBuckets ListMultipartUploads
            ListObjectVersions ListObjectsV2 PutBucketEncryption PutBucketOwnershipControls
            PutBucketPolicy PutBucketTagging PutObject PutPublicAccessBlock""",
        "sagemaker": """
            AddTags BatchDeleteClusterNodes BatchRebootClusterNodes BatchReplaceClusterNodes
            CreateCluster CreateClusterSchedulerConfig CreateComputeQuota CreateTrainingPlan
            DeleteCluster DeleteClusterSchedulerConfig DeleteComputeQuota DescribeCluster
            DescribeClusterEvent DescribeClusterNode DescribeClusterSchedulerConfig
            DescribeComputeQuota DescribeTrainingPlan ListClusterEvents ListClusterNodes
            ListClusterOperations ListClusterSchedulerConfigs ListClusters ListComputeQuotas
            ListTags Search SearchTrainingPlanOfferings StartClusterHealthCheck UpdateCluster
            UpdateClusterSchedulerConfig UpdateClusterSoftware UpdateComputeQuota""",
    }.items()
}
"""What is kept of a service's model: the operations that this tool calls.

Clients have methods for these only.  Services that are not named have small models, read whole.
"""

ENDPOINTS = (
    "api.ecr",
    "api.pricing",
    "api.sagemaker",
    "aps",
    "ec2",
    "eks",
    "elasticfilesystem",
    "elasticloadbalancing",
    "fsx",
    "iam",
    "logs",
    "oidc",
    "portal.sso",
    "s3",
    "servicequotas",
    "signin",
    "sts",
)
"""What is kept of the list of regions: our services and those of a login, by endpoint prefix."""


@cache
def loader(*, whole: bool = False) -> Loader:
    """Return the reader of botocore's packaged models, one for the whole process.

    ``whole`` is for the embedded stack, which answers every operation.
    """
    from botocore import __version__  # noqa: PLC0415  slow; --help needs none
    from botocore.loaders import JSONFileLoader, Loader  # noqa: PLC0415
    from pydantic_core import from_json, to_json  # noqa: PLC0415

    def parsed(text: bytes) -> Json:
        return from_json(text, cache_strings="keys")  # only keys repeat

    def read(source: Path) -> Json:
        content = source.read_bytes()
        return parsed(_unpacked(content) if source.suffix == ".gz" else content)

    class Plain(JSONFileLoader):
        """Reads plain dicts, which keep their order too, with pydantic: three times as fast."""

        def load_file(self, file_path: str) -> Json:
            for suffix in (".json", ".json.gz"):
                if os.path.isfile(file_path + suffix):  # noqa: PTH113  False for an unreadable home
                    source = Path(file_path + suffix)
                    return read(source) if whole else _kept(source)
            return None

    def _kept(source: Path) -> Json:
        reduce = _reduction(source)
        if not reduce:
            return read(source)
        about = source.stat()
        origin = [__version__, repr(source), about.st_size, about.st_mtime_ns, _REVISION]
        name = f"models/{source.parent.parent.name}-{zlib.crc32(bytes(source)):08x}.json"
        with suppress(OSError, Usage, ValueError, KeyError, TypeError):
            path = folders.cached(name)
            found = parsed(files.read(path)) if _is_ours(path) else {}
            if found["of"] == origin:
                return found["model"]
        whole = read(source)
        try:
            small = reduce(whole)
        except (AttributeError, KeyError, TypeError):  # a model of another form
            return whole
        with suppress(OSError, Usage, ValueError):  # a full disk, a file of another user
            path = folders.cache() / name
            files.make_folder(path.parent)
            _forget_old(path.parent)
            files.replace(path, to_json({"of": origin, "model": small}), mode=0o600)
        return small

    class Near(Loader):
        """Finds services by the names of their folders only.

        botocore's own loader lists the folders of all 400 services for each kind of file, which
        takes as long as creating the clients.  A missing file is an error one step later.
        """

        @cached_property
        def folders(self) -> list[str]:
            # as in botocore: ~/.aws in an unreadable home counts as missing
            paths = [Path(path) for path in self.search_paths if os.path.isdir(path)]  # noqa: PTH112
            return [entry.name for path in paths for entry in path.iterdir()]

        def list_available_services(self, type_name: str) -> list[str]:
            return self.folders

    return Near(file_loader=Plain())


def _unpacked(packed: bytes) -> bytes:
    """Return what gzip has packed, in memory of the size in its last bytes (RFC 1952)."""
    return zlib.decompress(packed, wbits=31, bufsize=int.from_bytes(packed[-4:], "little"))


OLD = 90 * 86400.0
"""Seconds after which a copy is deleted: the installation that it was made for may be gone."""


def _forget_old(copies: Path) -> None:
    for each in copies.glob("*.json"):
        with suppress(OSError):  # another process deletes them too
            if time.time() - each.stat().st_mtime > OLD:
                each.unlink()


_REVISION = zlib.crc32(
    repr([1, hyperpod_eks.__version__, ENDPOINTS, *map(sorted, OPERATIONS.values())]).encode()
)
"""Says which copies this tool has written; the 1 counts the versions of `reduced`."""


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written a file: it decides where requests go."""
    about = path.stat()
    return about.st_uid in (0, os.geteuid()) and not about.st_mode & 0o022


def _reduction(source: Path) -> Callable[[Json], JsonObject] | None:
    """Return what reduces a file of models; None for one that is read whole."""
    service = source.parent.parent.name
    if source.name in ("service-2.json", "service-2.json.gz") and service in OPERATIONS:
        return lambda model: reduced(model, OPERATIONS[service])
    return _with_our_services if source.stem == "endpoints" else None


def _with_our_services(endpoints: JsonObject) -> JsonObject:
    def ours(partition: JsonObject) -> JsonObject:
        found = partition["services"]
        return partition | {"services": {each: found[each] for each in found if each in ENDPOINTS}}

    return endpoints | {"partitions": [ours(each) for each in endpoints["partitions"]]}


def reduced(model: JsonObject, operations: Collection[str]) -> JsonObject:
    """Return a service's model with these operations, their shapes, and no documentation.

    >>> model = {
    ...     "metadata": {},
    ...     "operations": {"Get": {"input": {"shape": "Name"}}, "Put": {}},
    ...     "shapes": {"Name": {"type": "string", "documentation": "long"}, "Other": {}},
    ... }
    >>> reduced(model, {"Get"})["shapes"]
    {'Name': {'type': 'string'}}
    """
    kept = {name: model["operations"][name] for name in model["operations"] if name in operations}
    needed = dict.fromkeys(_shapes(list(kept.values())))
    for name in (waiting := list(needed)):
        more = [each for each in _shapes(model["shapes"][name]) if each not in needed]
        needed.update(dict.fromkeys(more))
        waiting += dict.fromkeys(more)  # the loop goes on with these
    shapes = {name: model["shapes"][name] for name in needed}
    return model | {"operations": _undocumented(kept), "shapes": _undocumented(shapes)}


def _shapes(value: Json) -> Iterator[str]:
    """Yield the names of the shapes that a part of a model refers to."""
    if isinstance(value, dict):
        if isinstance(value.get("shape"), str):
            yield value["shape"]
        for each in value.values():
            yield from _shapes(each)
    elif isinstance(value, list):
        for each in value:
            yield from _shapes(each)


def _undocumented(value: Json) -> Json:
    if isinstance(value, dict):
        return {
            key: _undocumented(each)
            for key, each in value.items()
            if key != "documentation" or not isinstance(each, str)  # a member may be called so
        }
    return [_undocumented(each) for each in value] if isinstance(value, list) else value
