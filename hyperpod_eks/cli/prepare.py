"""``hyperpod-eks local prepare``: create, in the embedded stack, what a config expects to exist."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.exceptions import ClientError
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.transport import ca_bundle
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.helm import release as helms
from hyperpod_eks.helm.program import find_helm
from hyperpod_eks.local import CHART
from hyperpod_eks.preflight.quotas import SIZE, usage
from hyperpod_eks.resources.eks import access
from hyperpod_eks.resources.trust import PODS_SERVICE, trust

if TYPE_CHECKING:
    from botocore.session import Session

    from hyperpod_eks.local.daemon import Running

_SOON = 1000.0
"""Simulated seconds after which a create has finished; EKS takes 620."""
_PLAN_HOURS = 24 * 30
_SCALED = 10
"""Nodes that Karpenter may add to a group."""


def prepare(stack: Running, session: Session, config: Config, helm: str | None) -> list[str]:
    """Create what is missing; return a line of text for each created resource.

    The resources get the ids in the config: the stack is told which ids to use next
    (``POST /_stack/ids``).
    """
    return list(_Preparation(stack, session, config, helm).all())


class _Preparation:
    def __init__(self, stack: Running, session: Session, config: Config, helm: str | None) -> None:
        self._stack, self._session, self._config, self._helm = stack, session, config, helm
        self._ec2: Json = self._client("ec2")

    def all(self) -> Iterator[str]:
        """Create the missing resources of each kind; yield a line for each."""
        existing = self._config.existing
        yield from self._quotas()
        yield from self._roles()
        yield from self._plans()
        if existing.vpc or existing.eks_cluster:
            yield from self._network()
        if existing.eks_cluster:
            yield from self._eks(existing.eks_cluster)

    def _client(self, service: str) -> Json:
        client: Json = self._session.create_client(service, self._config.region)
        client.meta.events.register(f"after-call.{service}", self._seen)
        return client

    def _seen(self, model: Json, **_: object) -> None:
        """Wait until what a call has created is known everywhere."""
        if model.name.startswith("Create"):
            self._stack.control("advance", {"seconds": _SOON})

    # -- the account -----------------------------------------------------------------------------

    def _quotas(self) -> Iterator[str]:
        wanted: Counter[str] = Counter()
        for group in self._config.instance_groups:
            spot = "spot" in (group.capacity_requirements or {})
            count = _SCALED if group in self._config.pooled_groups else group.instance_count
            wanted += usage(group.instance_types[0], count, spot=spot)
        wanted[SIZE] = sum(g.instance_count for g in self._config.instance_groups)
        pages = self._client("service-quotas").get_paginator("list_service_quotas")
        for page in pages.paginate(ServiceCode="sagemaker"):
            for quota in page["Quotas"]:
                name, value = quota["QuotaName"], wanted[quota["QuotaName"]]
                if value > quota["Value"]:
                    change = {"service": "sagemaker", "name": name, "value": value}
                    self._stack.control("quotas", [change])
                    yield f"quota of {value}: {name}"

    def _roles(self) -> Iterator[str]:
        iam, account = self._client("iam"), self._client("sts").get_caller_identity()["Account"]
        config, start = self._config, f"arn:aws:iam::{account}:role/"
        people = (*config.people, *(entry.principal_arn for entry in config.eks.access))
        wanted = dict.fromkeys(people, "ec2.amazonaws.com")
        pods = [each.role_arn for each in config.pod_identity if each.role_arn]
        for addon in config.addons.values():
            pods += [str(each["role_arn"]) for each in addon.pod_identity_associations or ()]
        for arn, service in (wanted | dict.fromkeys(pods, PODS_SERVICE)).items():
            path, _, name = arn.removeprefix(start).rpartition("/")
            if not arn.startswith(start) or _there(iam.get_role, RoleName=name):
                continue
            place, document = f"/{path}/" if path else "/", json.dumps(trust(service))
            iam.create_role(RoleName=name, Path=place, AssumeRolePolicyDocument=document)
            yield f"role {arn}"

    def _plans(self) -> Iterator[str]:
        sagemaker = self._client("sagemaker")
        names = {z["ZoneId"]: z["ZoneName"] for z in self._zones()}
        for group in self._config.instance_groups:
            name = (group.training_plan_arn or "").rpartition("/")[2]
            if not name or _there(sagemaker.describe_training_plan, TrainingPlanName=name):
                continue
            offers = sagemaker.search_training_plan_offerings(
                InstanceType=group.instance_types[0],
                InstanceCount=group.instance_count,
                DurationHours=_PLAN_HOURS,
                TargetResources=["hyperpod-cluster"],
            )["TrainingPlanOfferings"]
            places = [names.get(each) for each in group.availability_zone_ids]
            fitting = [
                offer["TrainingPlanOfferingId"]
                for offer in offers
                if not places or offer["ReservedCapacityOfferings"][0]["AvailabilityZone"] in places
            ]
            arn = sagemaker.create_training_plan(
                TrainingPlanName=name, TrainingPlanOfferingId=fitting[0]
            )["TrainingPlanArn"]
            yield f"training plan {arn}"

    # -- the network -----------------------------------------------------------------------------

    def _zones(self) -> list[JsonObject]:
        zones: list[JsonObject] = self._ec2.describe_availability_zones()["AvailabilityZones"]
        return sorted(zones, key=lambda zone: zone["ZoneId"])

    def _next(self, kind: str, name: str | None) -> None:
        if name:
            self._stack.control("ids", {kind: name})

    def _network(self) -> Iterator[str]:
        """Create a VPC whose private subnets reach AWS through a NAT gateway."""
        ec2, existing = self._ec2, self._config.existing
        if existing.vpc and _there(ec2.describe_vpcs, VpcIds=[existing.vpc]):
            return
        if existing.eks_cluster and self._cluster(existing.eks_cluster):
            return
        vpc, gateway = self._vpc(existing.vpc)
        yield f"VPC {vpc}"
        zones = [zone["ZoneId"] for zone in self._zones()]
        named = [*self._config.network.availability_zone_ids, *zones]
        wanted: list[str | None] = [*existing.private_subnets] or [None, None]
        self.subnets = [
            self._subnet(vpc, number, named[number % len(zones)], id_)
            for number, id_ in enumerate(wanted, 1)
        ]
        yield f"private subnets {', '.join(self.subnets)}"
        nat = self._nat(vpc, named[1], gateway)
        ids = existing.route_tables or (None,)
        for number, id_ in enumerate(ids):
            theirs = self.subnets if len(ids) == 1 else self.subnets[number : number + 1]
            yield f"route table {self._routes(vpc, id_, theirs, NatGatewayId=nat)}"
        yield f"security group {self._group(vpc)}"

    def _vpc(self, id_: str | None) -> tuple[str, str]:
        """Create a VPC and its internet gateway."""
        ec2 = self._ec2
        self._next("vpc", id_)
        vpc = str(ec2.create_vpc(CidrBlock="172.20.0.0/16")["Vpc"]["VpcId"])
        for name in ("EnableDnsSupport", "EnableDnsHostnames"):
            ec2.modify_vpc_attribute(VpcId=vpc, **{name: {"Value": True}})
        gateway = str(ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"])
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        return vpc, gateway

    def _nat(self, vpc: str, zone: str, gateway: str) -> str:
        """Create a NAT gateway in a public subnet."""
        ec2, existing = self._ec2, self._config.existing
        public = self._subnet(vpc, 0, zone, None)
        address = ec2.allocate_address(Domain="vpc")["AllocationId"]
        self._next("nat", next(iter(existing.nat_gateways), None))
        answer = ec2.create_nat_gateway(SubnetId=public, AllocationId=address)
        nat = str(answer["NatGateway"]["NatGatewayId"])
        self._routes(vpc, None, [public], GatewayId=gateway)
        return nat

    def _group(self, vpc: str) -> str:
        """Create a security group whose members can reach each other."""
        ec2 = self._ec2
        self._next("sg", self._config.existing.security_group)
        group = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)
        itself = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group["GroupId"]}]}]
        ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=itself)
        ec2.authorize_security_group_egress(GroupId=group["GroupId"], IpPermissions=itself)
        return str(group["GroupId"])

    def _subnet(self, vpc: str, number: int, zone: str, id_: str | None) -> str:
        self._next("subnet", id_)
        made = self._ec2.create_subnet(
            VpcId=vpc, CidrBlock=f"172.20.{16 * number}.0/20", AvailabilityZoneId=zone
        )
        return str(made["Subnet"]["SubnetId"])

    def _routes(self, vpc: str, id_: str | None, subnets: list[str], **target: str) -> str:
        self._next("rtb", id_)
        table = str(self._ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"])
        everywhere = {"DestinationCidrBlock": "0.0.0.0/0", **target}
        self._ec2.create_route(RouteTableId=table, **everywhere)
        for subnet in subnets:
            self._ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        return table

    # -- EKS -------------------------------------------------------------------------------------

    def _cluster(self, name: str) -> JsonMapping | None:
        found = _there(self._client("eks").describe_cluster, name=name)
        cluster: JsonMapping | None = found and found["cluster"]
        return cluster

    def _eks(self, name: str) -> Iterator[str]:
        if self._cluster(name):
            return
        iam, eks = self._client("iam"), self._client("eks")
        role, policy = f"{name}-eks", "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
        arn = iam.create_role(
            RoleName=role, AssumeRolePolicyDocument=json.dumps(trust("eks.amazonaws.com"))
        )["Role"]["Arn"]
        iam.attach_role_policy(RoleName=role, PolicyArn=policy)
        eks.create_cluster(
            name=name,
            roleArn=arn,
            resourcesVpcConfig={"subnetIds": self.subnets, "endpointPrivateAccess": True},
            accessConfig={"authenticationMode": "API"},
            bootstrapSelfManagedAddons=False,
        )
        for addon in ("vpc-cni", "kube-proxy", "coredns", "eks-pod-identity-agent"):
            eks.create_addon(clusterName=name, addonName=addon)
        yield f"EKS cluster {name} with its networking add-ons"
        if release := self._config.existing.helm_release:
            self._install(name, release)
            yield f"Helm release {release}"

    def _install(self, name: str, release: str) -> None:
        """Install the stand-in chart as the existing release."""
        namespace, _, called = release.partition("/")
        reach = access(Snapshot(Aws(self._session, name, {})), name)
        assert reach is not None  # the cluster is ACTIVE
        program = find_helm(self._helm, ca_bundle(self._session))
        helms.install(reach, program, CHART, {}, "prepared", name=called, namespace=namespace)


def _there(describe: Callable[..., Json], **request: object) -> Json:
    """Return the answer of a describe call; None for an error, as for a missing resource."""
    with suppress(ClientError):
        return describe(**request)
    return None
