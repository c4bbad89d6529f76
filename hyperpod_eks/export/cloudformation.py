"""A manifest as a CloudFormation template, and the list of resources to import into its stack.

Types, properties and identifiers are those of CloudFormation's resource schemas.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.export import documents
from hyperpod_eks.export.recorded import (
    Exported,
    Item,
    LeftOut,
    Ref,
    Row,
    absence,
    common_tags,
    export,
    names,
)
from hyperpod_eks.state.manifest import Manifest

ANYWHERE = "0.0.0.0/0"
LEFT_OUT = {
    **documents.LEFT_OUT,
    "helm/ChartRelease": "it is a Helm release; it stays in the cluster",
    "network/Address": "its import needs the public address, which the manifest does not have",
    "fsx/FileSystem": "CloudFormation's type has no handlers for import",
}
"""Kinds without a resource in the template, with the reasons."""


class Block(NamedTuple):
    """A resource of a template."""

    type: str
    identifier: Mapping[str, str]
    properties: JsonObject
    suffix: str = ""
    """What its name has beside the name of the resource's main block."""
    without: str = ""
    """What of the resource is left out; empty for nothing."""


def vpc(item: Item) -> Iterator[Block]:
    """A VPC."""
    support, hostnames = item("dns")
    dns = {"EnableDnsSupport": support, "EnableDnsHostnames": hostnames}
    body = {"CidrBlock": item("cidr"), **dns, **tags(item)}
    yield Block("AWS::EC2::VPC", {"VpcId": item.id}, body)


def vpc_cidr(item: Item) -> Iterator[Block]:
    """A further block of addresses."""
    vpc = item.ref("vpc")
    body = {"VpcId": vpc, "CidrBlock": item("cidr")}
    yield Block("AWS::EC2::VPCCidrBlock", {"Id": item.id, "VpcId": vpc.value}, body)


def subnet(item: Item) -> Iterator[Block]:
    """A subnet."""
    place = {"CidrBlock": item("cidr"), "AvailabilityZoneId": item("zone")}
    body = {"VpcId": item.ref("vpc"), **place, **tags(item, item("tags", {}))}
    yield Block("AWS::EC2::Subnet", {"SubnetId": item.id}, body)


def internet_gateway(item: Item) -> Iterator[Block]:
    """An internet gateway and its attachment."""
    yield Block("AWS::EC2::InternetGateway", {"InternetGatewayId": item.id}, tags(item))
    vpc = item.ref("vpc")
    identifier = {"AttachmentType": "IGW", "VpcId": vpc.value}
    body = {"VpcId": vpc, "InternetGatewayId": Ref(item.key, "id", item.id)}
    yield Block("AWS::EC2::VPCGatewayAttachment", identifier, body, "Attachment")


def nat_gateway(item: Item) -> Iterator[Block]:
    """A NAT gateway."""
    body = {"SubnetId": item.ref("subnet"), "AllocationId": item.ref("address"), **tags(item)}
    yield Block("AWS::EC2::NatGateway", {"NatGatewayId": item.id}, body)


def route_table(item: Item) -> Iterator[Block]:
    """A route table and its route; ids of its associations are not in the manifest."""
    body = {"VpcId": item.ref("vpc"), **tags(item)}
    yield Block("AWS::EC2::RouteTable", {"RouteTableId": item.id}, body)
    if item("target"):
        target = item.ref("target")
        way = "NatGatewayId" if target.value.startswith("nat-") else "GatewayId"
        table = Ref(item.key, "id", item.id)
        route = {"RouteTableId": table, "DestinationCidrBlock": ANYWHERE, way: target}
        identifier = {"RouteTableId": item.id, "CidrBlock": ANYWHERE}
        yield Block("AWS::EC2::Route", identifier, route, "Default")


def endpoint(item: Item) -> Iterator[Block]:
    """A VPC endpoint."""
    homes = item.refs("subnets")
    kind: JsonObject = {"VpcEndpointType": "Gateway", "RouteTableIds": item.refs("route_tables")}
    if homes:
        groups = item.refs("security_groups")
        kind = {"VpcEndpointType": "Interface", "SubnetIds": homes, "SecurityGroupIds": groups}
        kind["PrivateDnsEnabled"] = True
    if item("policy"):
        kind["PolicyDocument"] = json.loads(item("policy"))
    body = {"VpcId": item.ref("vpc"), "ServiceName": item("service"), **kind, **tags(item)}
    yield Block("AWS::EC2::VPCEndpoint", {"Id": item.id}, body)


def security_group(item: Item) -> Iterator[Block]:
    """A security group with its rules; groups in them are ids, since two may name each other."""
    rules = {
        f"SecurityGroup{way.title()}": [_rule(item, way, peer) for peer in peers]
        for way in ("ingress", "egress")
        if (peers := [*item(way), *(_openings(item) if way == "ingress" else ())])
    }
    about = {"GroupName": item("name"), "GroupDescription": documents.GROUP}
    body = {**about, "VpcId": item.ref("vpc"), **rules, **tags(item)}
    yield Block("AWS::EC2::SecurityGroup", {"Id": item.id}, body)


def _openings(item: Item) -> Iterator[Json]:
    """Yield the peers that rules of their own admit to a group."""
    for record in item.manifest.records.values():
        if record.kind == "network/Opening" and record.want["group"] == {"$resource": item.key}:
            yield record.want["peer"]


def _rule(item: Item, way: str, declared: Json) -> JsonObject:
    rule = documents.rule(item, declared)
    found: JsonObject = {"IpProtocol": rule.protocol}
    if rule.protocol != "-1":
        found |= {"FromPort": rule.first, "ToPort": rule.last}
    side = "Source" if way == "ingress" else "Destination"
    peer = rule.peer.value if isinstance(rule.peer, Ref) else rule.peer
    peer = item.id if peer == "self" else peer
    return {
        **found,
        **({f"{side}SecurityGroupId": peer} if peer[:3] == "sg-" else {"CidrIp": peer}),
    }


def role(item: Item) -> Iterator[Block]:
    """A role."""
    policies = [*item("managed"), *(item.reference(p, "arn") for p in item("policies", ()))]
    body: JsonObject = {
        "RoleName": item.id,
        "Path": item("path", "/"),
        "Description": f"hyperpod-eks: {item.label} of the cluster {item.manifest.cluster}",
        "AssumeRolePolicyDocument": documents.trust(item),
        **({"ManagedPolicyArns": policies} if policies else {}),
        **({"PermissionsBoundary": item("boundary")} if item("boundary") else {}),
    }
    yield Block("AWS::IAM::Role", {"RoleName": item.id}, {**body, **tags(item)})


def oidc_provider(item: Item) -> Iterator[Block]:
    """An OIDC provider."""
    body = {"Url": documents.issuer(item), "ClientIdList": [item("audience")], **tags(item)}
    yield Block("AWS::IAM::OIDCProvider", {"Arn": item.arn}, body)


def policy(item: Item) -> Iterator[Block]:
    """A policy; the type has no tags."""
    about = f"hyperpod-eks: {item.label} of the cluster {item.manifest.cluster}"
    body = {"ManagedPolicyName": item("name"), "Path": item("path", "/"), "Description": about}
    body["PolicyDocument"] = documents.policy(item)
    yield Block("AWS::IAM::ManagedPolicy", {"PolicyArn": item.arn}, body)


def bucket(item: Item) -> Iterator[Block]:
    """A bucket and its policy."""
    key = item("encryption")
    default = {"SSEAlgorithm": "AES256"}
    if key != "AES256":
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    blocked = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    encryption = {"ServerSideEncryptionByDefault": default, "BucketKeyEnabled": key != "AES256"}
    body = {
        "BucketName": item.id,
        "PublicAccessBlockConfiguration": dict.fromkeys(blocked, True),
        "OwnershipControls": {"Rules": [{"ObjectOwnership": item("ownership")}]},
        "BucketEncryption": {"ServerSideEncryptionConfiguration": [encryption]},
    }
    yield Block("AWS::S3::Bucket", {"BucketName": item.id}, {**body, **tags(item)})
    policy: JsonObject = {"Bucket": Ref(item.key, "id", item.id)}
    policy["PolicyDocument"] = documents.bucket_policy(item)
    yield Block("AWS::S3::BucketPolicy", {"Bucket": item.id}, policy, "Policy")


def log_group(item: Item) -> Iterator[Block]:
    """A log group."""
    body = {"LogGroupName": item.id, "RetentionInDays": item("retention")}
    key = {"KmsKeyId": item("key_arn")} if item("key_arn") else {}
    yield Block("AWS::Logs::LogGroup", {"LogGroupName": item.id}, {**body, **key, **tags(item)})


def eks_cluster(item: Item) -> Iterator[Block]:
    """An EKS cluster."""
    public, private = item("endpoint_access")
    network = {
        "SubnetIds": item.refs("subnets"),
        "SecurityGroupIds": [item.ref("security_group")],
        "EndpointPublicAccess": public,
        "EndpointPrivateAccess": private,
        **({"PublicAccessCidrs": item("public_access_cidrs")} if public else {}),
    }
    types = [{"Type": each} for each in sorted(item("log_types"))]
    body: JsonObject = {
        "Name": item.id,
        **({"Version": item("version")} if item("pinned") else {}),
        "RoleArn": item.ref("role", "arn"),
        "ResourcesVpcConfig": network,
        "AccessConfig": {"AuthenticationMode": item("authentication_mode", "API")},
        "UpgradePolicy": {"SupportType": item("support_type")},
        "DeletionProtection": item("deletion_protection", False),
        **({"Logging": {"ClusterLogging": {"EnabledTypes": types}}} if types else {}),
    }
    if key := item("secrets_key"):
        secrets = {"Resources": ["secrets"], "Provider": {"KeyArn": key}}
        body["EncryptionConfig"] = [secrets]
    yield Block("AWS::EKS::Cluster", {"Name": item.id}, {**body, **tags(item)})


def access_entry(item: Item) -> Iterator[Block]:
    """An access entry with its policies."""
    cluster = item.ref("cluster")
    body: JsonObject = {"ClusterName": cluster, "PrincipalArn": item.id}
    if groups := sorted(item("groups", ())):
        body["KubernetesGroups"] = groups
    if policies := [_access(want) for want in _policies(item)]:
        body["AccessPolicies"] = policies
    identifier = {"PrincipalArn": item.id, "ClusterName": cluster.value}
    yield Block("AWS::EKS::AccessEntry", identifier, {**body, **tags(item)})


def part(item: Item, field: str, whole: Row[Block]) -> Iterator[Block]:
    """A part of the resource that a field names, whose block has it: it has none of its own."""
    key = item.ref(field).key
    record = item.manifest.records[key]
    if why := absence(record):
        raise LeftOut(f"it is a part of {key}: {why}")
    deque(whole(Item(key, record, item.manifest)), maxlen=0)  # raises LeftOut if that is left out
    yield from ()


def _policies(item: Item) -> Iterator[JsonMapping]:
    """Yield the declarations of the policies of an entry: its own, and those beside it."""
    if item("policy"):
        yield item.record.want
    for record in item.manifest.records.values():
        if record.kind == "eks/AccessPolicy" and record.want["entry"] == {"$resource": item.key}:
            yield record.want


def _access(want: JsonMapping) -> JsonObject:
    spaces = sorted(want.get("namespaces", ()))
    scope = {"Type": "namespace", "Namespaces": spaces} if spaces else {"Type": "cluster"}
    return {"PolicyArn": want["policy"], "AccessScope": scope}


def addon(item: Item) -> Iterator[Block]:
    """An add-on.  Raises LeftOut for values that the manifest does not have."""
    cluster, values = item.ref("cluster"), item("configuration", "{}")
    if documents.refers_to_variables(values):
        raise LeftOut(f"its configuration {documents.VARIABLES}")
    roles = [{"ServiceAccount": each, "RoleArn": role} for each, role in item("roles", ())]
    body = {
        "ClusterName": cluster,
        "AddonName": item.label,
        **({"AddonVersion": item("version")} if item("version") else {}),
        **({"ConfigurationValues": values} if values != "{}" else {}),
        **({"PodIdentityAssociations": roles} if roles else {}),
    }
    identifier = {"ClusterName": cluster.value, "AddonName": item.label}
    yield Block("AWS::EKS::Addon", identifier, {**body, **tags(item)})


def pod_identity(item: Item) -> Iterator[Block]:
    """An association of a service account."""
    who = {"Namespace": item("namespace"), "ServiceAccount": item("account")}
    body = {"ClusterName": item.ref("cluster"), **who, "RoleArn": item("role"), **tags(item)}
    yield Block("AWS::EKS::PodIdentityAssociation", {"AssociationArn": item.arn}, body)


def link(item: Item) -> Iterator[Block]:
    """A link of a file system with S3."""
    policies = {"AutoImportPolicy": "imports", "AutoExportPolicy": "exports"}
    events = {name: {"Events": item(way)} for name, way in policies.items() if item(way)}
    body = {
        "FileSystemId": item.ref("file_system"),
        "FileSystemPath": item("path"),
        "DataRepositoryPath": item("repository"),
        **({"S3": events} if events else {}),
    }
    identifier = {"AssociationId": item.id}
    yield Block("AWS::FSx::DataRepositoryAssociation", identifier, {**body, **tags(item)})


def repository(item: Item) -> Iterator[Block]:
    """A repository."""
    body = {"RepositoryName": item("name"), "ImageTagMutability": "IMMUTABLE", **tags(item)}
    yield Block("AWS::ECR::Repository", {"RepositoryName": item("name")}, body)


def workspace(item: Item) -> Iterator[Block]:
    """A workspace of Prometheus."""
    yield Block("AWS::APS::Workspace", {"Arn": item.arn}, {"Alias": item("alias"), **tags(item)})


def hyperpod_cluster(item: Item) -> Iterator[Block]:
    """A HyperPod cluster."""
    body = documents.hyperpod(item) | tags(item, {"SageMaker": "true"})
    identifier = {"ClusterArn": item.arn}
    yield Block("AWS::SageMaker::Cluster", identifier, body, without=documents.missing(item))


def scheduler_policy(item: Item) -> Iterator[Block]:
    """A scheduler policy."""
    body = documents.scheduler_policy(item) | tags(item)
    identifier = {"ClusterSchedulerConfigArn": item.arn}
    yield Block("AWS::SageMaker::ClusterSchedulerConfig", identifier, body)


def compute_quota(item: Item) -> Iterator[Block]:
    """A team's quota."""
    body = documents.compute_quota(item) | tags(item)
    yield Block("AWS::SageMaker::ComputeQuota", {"ComputeQuotaArn": item.arn}, body)


ROWS: dict[str, Row[Block]] = {
    "network/Vpc": vpc,
    "network/VpcCidr": vpc_cidr,
    "network/Subnet": subnet,
    "network/InternetGateway": internet_gateway,
    "network/NatGateway": nat_gateway,
    "network/RouteTable": route_table,
    "network/Endpoint": endpoint,
    "network/SecurityGroup": security_group,
    "network/Opening": partial(part, field="group", whole=security_group),
    "iam/Role": role,
    "iam/ServiceAccountRole": role,
    "iam/OidcProvider": oidc_provider,
    "iam/Policy": policy,
    "s3/Bucket": bucket,
    "s3/CertificateBucket": bucket,
    "eks/LogGroup": log_group,
    "monitoring/LogGroup": log_group,
    "amp/Workspace": workspace,
    "eks/Cluster": eks_cluster,
    "eks/AccessEntry": access_entry,
    "eks/AccessPolicy": partial(part, field="entry", whole=access_entry),
    "addons/Addon": addon,
    "addons/PodIdentity": pod_identity,
    "fsx/Link": link,
    "images/Repository": repository,
    "hyperpod/Cluster": hyperpod_cluster,
    "sagemaker/ClusterSchedulerConfig": scheduler_policy,
    "sagemaker/ComputeQuota": compute_quota,
}
"""What a resource is in CloudFormation, by kind; nothing for a part of another one."""
GROUP_ID = "AWS::EC2::SecurityGroup"
"""The type whose ``Ref`` may be a name: its id is an attribute."""
ARN_BY_REF = "AWS::IAM::ManagedPolicy"
"""The type whose ``Ref`` is its ARN."""


def tags(item: Item, more: Mapping[str, str] | None = None) -> JsonObject:
    """Return the property ``Tags``; ``more`` replaces tags of equal names."""
    found = {**common_tags(item.manifest), **item.own_tags, **(more or {})}
    return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(found.items())]}


def files(manifest: Manifest) -> tuple[dict[str, str], Exported[Block]]:
    """Return the text of each file by its name, and what is in them."""
    exported = export(manifest, ROWS, LEFT_OUT)
    spelled = names(exported.blocks, _name, "x")
    types = {key: blocks[0].type for key, blocks in exported.blocks.items() if blocks}
    resources, imports = {}, []
    for key, blocks in exported.blocks.items():
        for each in blocks:
            name = f"{spelled[key]}{each.suffix}"
            resources[name] = {
                "Type": each.type,
                "DeletionPolicy": "Retain",
                "UpdateReplacePolicy": "Retain",
                "Properties": _spelled(each.properties, partial(_reference, types, spelled)),
            }
            identified = {
                "LogicalResourceId": name,
                "ResourceIdentifier": dict(each.identifier),
            }
            imports.append({"ResourceType": each.type, **identified})
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"HyperPod cluster {manifest.cluster}, created by hyperpod-eks",
        "Resources": resources,
    }
    found = {"template.json": template, "resources-to-import.json": imports}
    return {name: json.dumps(each, indent=2) + "\n" for name, each in found.items()}, exported


def _name(key: str) -> str:
    """Return a logical id for a key, which has letters and digits only.

    >>> _name("network/private-subnet-usw2-az1")
    'NetworkPrivateSubnetUsw2Az1'
    """
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"[^A-Za-z0-9]+", key))


def _reference(types: Mapping[str, str], spelled: Mapping[str, str], ref: Ref) -> Json:
    """Return a reference as an intrinsic function; as a value if it leads out of the template."""
    if ref.key not in types:
        return ref.value
    kind, name = types[ref.key], spelled[ref.key]
    if kind == GROUP_ID:
        return {"Fn::GetAtt": [name, "GroupId"]}
    if ref.attribute == "id" or kind == ARN_BY_REF:
        return {"Ref": name}
    return {"Fn::GetAtt": [name, "Arn"]}


def _spelled(value: Json, reference: Callable[[Ref], Json]) -> Json:
    if isinstance(value, Ref):
        return reference(value)
    if isinstance(value, Mapping):
        return {name: _spelled(each, reference) for name, each in value.items()}
    return [_spelled(each, reference) for each in value] if isinstance(value, list) else value
