"""What a resource is in Terraform: the id of its import block, and minimal arguments.

The arguments and the ids of imports are those of the providers' documentation: hashicorp/aws 5.100
and, for the HyperPod cluster and task governance, which it does not have, hashicorp/awscc.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hyperpod_eks.aws.service_model import to_config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.export import documents, hcl
from hyperpod_eks.export.hcl import Nested, Raw
from hyperpod_eks.export.recorded import Item, LeftOut, Ref, Row, common_tags

HOW_CREATED = (
    "access_config[0].bootstrap_cluster_creator_admin_permissions",
    "bootstrap_self_managed_addons",
)
"""What EKS may not describe of a cluster: a change of it would replace the cluster."""
ANYWHERE = "0.0.0.0/0"


class Tags(NamedTuple):
    """The tags of a resource beside those that all have."""

    own: Mapping[str, str]


class Block(NamedTuple):
    """A resource of Terraform."""

    type: str
    id: str
    """The id of its import block."""
    body: JsonObject
    suffix: str = ""
    """What its name has beside the name of the resource's main block."""
    without: str = ""
    """What of the resource is left out; empty for nothing."""


def vpc(item: Item) -> Iterator[Block]:
    """A VPC; its id."""
    support, hostnames = item("dns")
    dns = {"enable_dns_support": support, "enable_dns_hostnames": hostnames}
    yield Block("aws_vpc", item.id, {"cidr_block": item("cidr"), **dns, **tags(item)})


def vpc_cidr(item: Item) -> Iterator[Block]:
    """A further block of addresses; the id of its association."""
    body = {"vpc_id": item.ref("vpc"), "cidr_block": item("cidr")}
    yield Block("aws_vpc_ipv4_cidr_block_association", item.id, body)


def subnet(item: Item) -> Iterator[Block]:
    """A subnet; its id."""
    body = {
        "vpc_id": item.ref("vpc"),
        "cidr_block": item("cidr"),
        "availability_zone_id": item("zone"),
    }
    yield Block("aws_subnet", item.id, {**body, **tags(item, item("tags", {}))})


def internet_gateway(item: Item) -> Iterator[Block]:
    """An internet gateway; its id."""
    yield Block("aws_internet_gateway", item.id, {"vpc_id": item.ref("vpc"), **tags(item)})


def elastic_ip(item: Item) -> Iterator[Block]:
    """An Elastic IP; its allocation id."""
    yield Block("aws_eip", item.id, {"domain": "vpc", **tags(item)})


def nat_gateway(item: Item) -> Iterator[Block]:
    """A NAT gateway; its id."""
    body = {"allocation_id": item.ref("address"), "subnet_id": item.ref("subnet")}
    yield Block("aws_nat_gateway", item.id, {**body, **tags(item)})


def route_table(item: Item) -> Iterator[Block]:
    """A route table; its id, TABLE_DESTINATION of its route, SUBNET/TABLE of each association."""
    yield Block("aws_route_table", item.id, {"vpc_id": item.ref("vpc"), **tags(item)})
    table = Ref(item.key, "id", item.id)
    if item("target"):
        target = item.ref("target")
        way = "nat_gateway_id" if target.value.startswith("nat-") else "gateway_id"
        route = {"route_table_id": table, "destination_cidr_block": ANYWHERE, way: target}
        yield Block("aws_route", f"{item.id}_{ANYWHERE}", route, "_default")
    for subnet in item.refs("subnets"):
        body = {"subnet_id": subnet, "route_table_id": table}
        name = f"_{subnet.key.partition('/')[2]}"
        yield Block("aws_route_table_association", f"{subnet.value}/{item.id}", body, name)


def endpoint(item: Item) -> Iterator[Block]:
    """A VPC endpoint; its id."""
    homes = item.refs("subnets")
    tables = item.refs("route_tables")
    kind: JsonObject = {"vpc_endpoint_type": "Gateway", "route_table_ids": tables}
    if homes:
        kind = {
            "vpc_endpoint_type": "Interface",
            "private_dns_enabled": True,
            "subnet_ids": homes,
            "security_group_ids": item.refs("security_groups"),
        }
    if item("policy"):
        kind["policy"] = encoded(json.loads(item("policy")))
    about = {"vpc_id": item.ref("vpc"), "service_name": item("service")}
    yield Block("aws_vpc_endpoint", item.id, {**about, **kind, **tags(item)})


def security_group(item: Item) -> Iterator[Block]:
    """A security group and its rules; GROUP_TYPE_PROTOCOL_FROM_TO_SOURCE of each rule."""
    about = {"name": item("name"), "description": documents.GROUP, "vpc_id": item.ref("vpc")}
    yield Block("aws_security_group", item.id, {**about, **tags(item)})
    for way in ("ingress", "egress"):
        for number, peer in enumerate(item(way), start=1):
            yield _rule(item, Ref(item.key, "id", item.id), way, peer, f"_{way}_{number}")


def opening(item: Item) -> Iterator[Block]:
    """A rule between two groups, each of which has a rule for the other."""
    yield _rule(item, item.ref("group"), "ingress", item("peer"), "")


def _rule(item: Item, group: Ref, way: str, peer: Json, suffix: str) -> Block:
    rule = documents.rule(item, peer)
    ports = {"protocol": rule.protocol, "from_port": rule.first, "to_port": rule.last}
    source: JsonObject = {"self": True} if rule.peer == "self" else {"cidr_blocks": [rule.peer]}
    where = rule.peer
    if isinstance(rule.peer, Ref):
        source, where = {"source_security_group_id": rule.peer}, rule.peer.value
    id_ = f"{group.value}_{way}_{rule.protocol}_{rule.first}_{rule.last}_{where}"
    body = {"security_group_id": group, "type": way, **ports, **source}
    return Block("aws_security_group_rule", id_, body, suffix)


def role(item: Item) -> Iterator[Block]:
    """A role; its name, and ROLE/POLICY of each attachment."""
    body = {
        "name": item("name"),
        "path": item("path", "/"),
        "description": f"hyperpod-eks: {item.label} of the cluster {item.manifest.cluster}",
        "assume_role_policy": encoded(documents.trust(item)),
        "permissions_boundary": item("boundary") or None,
    }
    yield Block("aws_iam_role", item.id, {**body, **tags(item)})
    own = [item.reference(each, "arn") for each in item("policies", ())]
    for number, policy in enumerate([*item("managed"), *own], start=1):
        arn = policy.value if isinstance(policy, Ref) else policy
        both = {"role": Ref(item.key, "id", item.id), "policy_arn": policy}
        yield Block("aws_iam_role_policy_attachment", f"{item.id}/{arn}", both, f"_{number}")


def oidc_provider(item: Item) -> Iterator[Block]:
    """An OIDC provider; its ARN, which has its URL."""
    body = {"url": documents.issuer(item), "client_id_list": [item("audience")]}
    yield Block("aws_iam_openid_connect_provider", item.arn, {**body, **tags(item)})


def policy(item: Item) -> Iterator[Block]:
    """A policy; its ARN."""
    body = {
        "name": item("name"),
        "path": item("path", "/"),
        "description": f"hyperpod-eks: {item.label} of the cluster {item.manifest.cluster}",
        "policy": encoded(documents.policy(item)),
    }
    yield Block("aws_iam_policy", item.arn, {**body, **tags(item)})


def bucket(item: Item) -> Iterator[Block]:
    """A bucket and its settings; all have its name as their id."""
    name = Ref(item.key, "id", item.id)
    yield Block("aws_s3_bucket", item.id, {"bucket": item.id, **tags(item)})
    blocked = [f"block_public_{each}" for each in ("acls", "policy")]
    blocked += ["ignore_public_acls", "restrict_public_buckets"]
    settings: dict[str, JsonObject] = {
        "public_access_block": dict.fromkeys(blocked, True),
        "ownership_controls": {"rule": Nested(object_ownership=item("ownership"))},
        "server_side_encryption_configuration": {"rule": _encryption(item("encryption"))},
        "policy": {"policy": encoded(documents.bucket_policy(item))},
    }
    for setting, body in settings.items():
        yield Block(f"aws_s3_bucket_{setting}", item.id, {"bucket": name, **body})


def _encryption(key: str) -> Nested:
    by_key = key != "AES256"
    default = Nested(
        sse_algorithm="aws:kms" if by_key else key, kms_master_key_id=key if by_key else None
    )
    return Nested(bucket_key_enabled=by_key, apply_server_side_encryption_by_default=default)


def log_group(item: Item) -> Iterator[Block]:
    """A log group; its name."""
    body = {"name": item.id, "retention_in_days": item("retention")}
    yield Block(
        "aws_cloudwatch_log_group",
        item.id,
        {**body, "kms_key_id": item("key_arn") or None, **tags(item)},
    )


def eks_cluster(item: Item) -> Iterator[Block]:
    """An EKS cluster; its name."""
    public, private = item("endpoint_access")
    network = Nested(
        subnet_ids=item.refs("subnets"),
        security_group_ids=[item.ref("security_group")],
        endpoint_private_access=private,
        endpoint_public_access=public,
        public_access_cidrs=item("public_access_cidrs") if public else None,
    )
    body: JsonObject = {
        "name": item.id,
        "version": item("version") if item("pinned") else None,
        "role_arn": item.ref("role", "arn"),
        "enabled_cluster_log_types": sorted(item("log_types")),
        **tags(item),
        "vpc_config": network,
        "access_config": Nested(
            authentication_mode=item("authentication_mode", "API"),
            bootstrap_cluster_creator_admin_permissions=False,
        ),
        "upgrade_policy": Nested(support_type=item("support_type")),
    }
    if key := item("secrets_key"):
        provider = Nested(key_arn=key)
        body["encryption_config"] = Nested(resources=["secrets"], provider=provider)
    body["lifecycle"] = Nested(ignore_changes=list(map(Raw, HOW_CREATED)))
    yield Block("aws_eks_cluster", item.id, body)


def access_entry(item: Item) -> Iterator[Block]:
    """An access entry; CLUSTER:PRINCIPAL, and CLUSTER#PRINCIPAL#POLICY of its policy."""
    cluster, policy = item.ref("cluster"), item("policy")
    who = {"cluster_name": cluster, "principal_arn": item.id}
    groups = sorted(item("groups", ())) or None
    body = {**who, "kubernetes_groups": groups, **tags(item)}
    yield Block("aws_eks_access_entry", f"{cluster.value}:{item.id}", body)
    if policy:
        yield _association(item, cluster, item.id)


def access_policy(item: Item) -> Iterator[Block]:
    """A policy of an entry that has several; CLUSTER#PRINCIPAL#POLICY."""
    entry = item.manifest.records[item.ref("entry").key]
    yield _association(item, item.reference(entry.want["cluster"]), entry.id)


def _association(item: Item, cluster: Ref, principal: str) -> Block:
    spaces = sorted(item("namespaces", ())) or None
    scope = Nested(type="namespace" if spaces else "cluster", namespaces=spaces)
    who = {"cluster_name": cluster, "principal_arn": principal}
    body = {**who, "policy_arn": item("policy"), "access_scope": scope}
    id_ = f"{cluster.value}#{principal}#{item('policy')}"
    return Block("aws_eks_access_policy_association", id_, body)


def addon(item: Item) -> Iterator[Block]:
    """An add-on; CLUSTER:ADDON."""
    cluster = item.ref("cluster")
    values = item("configuration", "{}")
    secret = documents.refers_to_variables(values)  # EKS keeps them
    ignored = [Raw('tags["hyperpod-eks:kubernetes"]')]
    body = {
        "cluster_name": cluster,
        "addon_name": item.label,
        "addon_version": item("version") or None,
        "configuration_values": None if secret or values == "{}" else encoded(json.loads(values)),
        **tags(item),
        "pod_identity_association": [
            Nested(service_account=account, role_arn=role) for account, role in item("roles", ())
        ]
        or None,
        "lifecycle": Nested(ignore_changes=ignored),
    }
    without = f"its configuration, which {documents.VARIABLES}" if secret else ""
    yield Block("aws_eks_addon", f"{cluster.value}:{item.label}", body, without=without)


def pod_identity(item: Item) -> Iterator[Block]:
    """An association of a service account; CLUSTER,ASSOCIATION."""
    cluster = item.ref("cluster")
    body = {
        "cluster_name": cluster,
        "namespace": item("namespace"),
        "service_account": item("account"),
        "role_arn": item("role"),
    }
    id_ = f"{cluster.value},{item.id}"
    yield Block("aws_eks_pod_identity_association", id_, {**body, **tags(item)})


def file_system(item: Item) -> Iterator[Block]:
    """A Lustre file system; its id."""
    found = documents.nested({**item("smallest", {}), **item("settings", {})})
    settings = {k: Nested(v) if isinstance(v, dict) else v for k, v in found.items()}
    body = {
        "subnet_ids": [item.ref("subnet")],
        **settings,
        **tags(item),
        # FSx does not describe the groups, and a change of them would replace the file system
        "lifecycle": Nested(ignore_changes=[Raw("security_group_ids")], prevent_destroy=True),
    }
    yield Block("aws_fsx_lustre_file_system", item.id, body)


def link(item: Item) -> Iterator[Block]:
    """A link of a file system with S3; its id."""
    policies = {"auto_import_policy": "imports", "auto_export_policy": "exports"}
    events = {name: Nested(events=item(way)) for name, way in policies.items() if item(way)}
    body = {
        "file_system_id": item.ref("file_system"),
        "file_system_path": item("path"),
        "data_repository_path": item("repository"),
        **tags(item),
        "s3": Nested(events) if events else None,
        # how it was created
        "lifecycle": Nested(ignore_changes=[Raw("batch_import_meta_data_on_create")]),
    }
    yield Block("aws_fsx_data_repository_association", item.id, body)


def repository(item: Item) -> Iterator[Block]:
    """A repository; its name."""
    body = {"name": item("name"), "image_tag_mutability": "IMMUTABLE", **tags(item)}
    yield Block("aws_ecr_repository", item("name"), body)


def workspace(item: Item) -> Iterator[Block]:
    """A workspace of Prometheus; its id."""
    yield Block("aws_prometheus_workspace", item.id, {"alias": item("alias"), **tags(item)})


def hyperpod_cluster(item: Item) -> Iterator[Block]:
    """A HyperPod cluster."""
    body = documents.hyperpod(item)
    without = documents.missing(item)
    yield _awscc("awscc_sagemaker_cluster", item, body, {"SageMaker": "true"}, without)


def scheduler_policy(item: Item) -> Iterator[Block]:
    """A scheduler policy."""
    yield _awscc("awscc_sagemaker_cluster_scheduler_config", item, documents.scheduler_policy(item))


def compute_quota(item: Item) -> Iterator[Block]:
    """A team's quota."""
    yield _awscc("awscc_sagemaker_compute_quota", item, documents.compute_quota(item))


def _awscc(
    type_: str,
    item: Item,
    properties: JsonMapping,
    more: Mapping[str, str] | None = None,
    without: str = "",
) -> Block:
    """Return a resource that has the properties of its CloudFormation type; its id is the ARN."""
    pairs = {**common_tags(item.manifest), **item.own_tags, **(more or {})}
    tags = [{"Key": key, "Value": value} for key, value in sorted(pairs.items())]
    body = {attribute(name): snake(each) for name, each in {**properties, "Tags": tags}.items()}
    return Block(type_, item.arn, body, without=without)


def release(item: Item) -> Iterator[Block]:
    """A Helm release; NAMESPACE/NAME."""
    values = item("values", "{}")
    if documents.refers_to_variables(values):
        raise LeftOut(f"its values {documents.VARIABLES}")
    namespace, _, name = item.id.partition("/")
    body = {
        "name": name,
        "namespace": namespace,
        "chart": item("chart"),
        "repository": item("repository") or None,
        "version": item("version") or None,
        "values": None if values == "{}" else [hcl.call("yamlencode", json.loads(values))],
    }
    yield Block("helm_release", item.id, body)


ROWS: dict[str, Row[Block]] = {
    "network/Vpc": vpc,
    "network/VpcCidr": vpc_cidr,
    "network/Subnet": subnet,
    "network/InternetGateway": internet_gateway,
    "network/Address": elastic_ip,
    "network/NatGateway": nat_gateway,
    "network/RouteTable": route_table,
    "network/Endpoint": endpoint,
    "network/SecurityGroup": security_group,
    "network/Opening": opening,
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
    "eks/AccessPolicy": access_policy,
    "addons/Addon": addon,
    "addons/PodIdentity": pod_identity,
    "fsx/FileSystem": file_system,
    "fsx/Link": link,
    "images/Repository": repository,
    "hyperpod/Cluster": hyperpod_cluster,
    "sagemaker/ClusterSchedulerConfig": scheduler_policy,
    "sagemaker/ComputeQuota": compute_quota,
    "helm/ChartRelease": release,
}
"""What a resource is in Terraform, by kind."""


def tags(item: Item, more: Mapping[str, str] | None = None) -> JsonObject:
    """Return the argument ``tags``; ``more`` replaces tags of equal names."""
    return {"tags": Tags({**item.own_tags, **(more or {})})}


def encoded(document: JsonMapping) -> Raw:
    """Return a document as a call of jsonencode."""
    return hcl.call("jsonencode", document)


def attribute(name: str) -> str:
    """Return a property's name as awscc derives it: it takes the B of GiB for a word.

    >>> attribute("InstanceType"), attribute("MemoryInGiB"), attribute("VCpu")
    ('instance_type', 'memory_in_gi_b', 'v_cpu')
    """
    return to_config(name).replace("_gib", "_gi_b")


def snake(value: Json) -> Json:
    """Return a property with the names of awscc, which are in snake_case; labels are data.

    >>> snake({"KubernetesConfig": {"Labels": {"a/B": "C"}}})
    {'kubernetes_config': {'labels': {'a/B': 'C'}}}
    """
    if isinstance(value, Mapping):
        return {
            attribute(name): each if name == "Labels" else snake(each)
            for name, each in value.items()
        }
    return [snake(each) for each in value] if type(value) is list else value
