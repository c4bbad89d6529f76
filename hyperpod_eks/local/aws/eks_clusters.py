"""EKS clusters, which take their time, check what they are given, and serve a Kubernetes API.

``Sim.failures["cluster/NAME"]`` is a ClusterIssueCode (``Ec2SubnetNotFound``) with which the
creation of that cluster ends in FAILED.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

from moto.core.base_backend import BaseBackend
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import ec2_backends
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.eks.models import eks_backends
from moto.kms.models import kms_backends

from hyperpod_eks.local.aws import eks_access, eks_addons, logs, plugin, roles
from hyperpod_eks.local.aws.eks_data import CREATABLE, DEFAULT_VERSION, VERSIONS
from hyperpod_eks.local.aws.eks_model import Cluster
from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, new_uuid
from hyperpod_eks.local.kubernetes import Cluster as Endpoint

#: EKS User Guide, "View Amazon EKS networking requirements for VPC and subnets"; the words of the
#: refusal: "Troubleshoot problems with Amazon EKS clusters and nodes", "Insufficient capacity".
_WITHOUT_EKS = ("use1-az3", "usw1-az2", "cac1-az3")
_CLUSTER_POLICY = "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
#: What a policy of one's own needs instead, since October 2023 (EKS User Guide, "Amazon EKS cluster
#: IAM role"). Which of them EKS looks for when it creates a cluster is written nowhere.
_CLUSTER_ACTIONS = (
    *("ec2:CreateTags", "ec2:DescribeInstances", "ec2:DescribeNetworkInterfaces"),
    *("ec2:DescribeVpcs", "ec2:DescribeDhcpOptions", "ec2:DescribeAvailabilityZones"),
    *("ec2:DescribeInstanceTopology", "kms:DescribeKey"),
)
_LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")
_LOG_EVERY = 60.0  # simulated seconds between two lines of the control plane

#: UpdateClusterConfig's members, each with the type and parameter of the update it begins.
_UPDATES = {
    "logging": ("LoggingUpdate", "ClusterLogging"),
    "accessConfig": ("AccessConfigUpdate", "AuthenticationMode"),
    "upgradePolicy": ("UpgradePolicyUpdate", "UpgradePolicy"),
    "deletionProtection": ("DeletionProtectionUpdate", "DeletionProtection"),
    "zonalShiftConfig": ("ZonalShiftConfigUpdate", "ZonalShiftConfig"),
    "computeConfig": ("AutoModeUpdate", "ComputeConfig"),
    "storageConfig": ("AutoModeUpdate", "StorageConfig"),
    "kubernetesNetworkConfig": ("AutoModeUpdate", "KubernetesNetworkConfig"),
    "remoteNetworkConfig": ("RemoteNetworkConfigUpdate", "RemoteNetworkConfig"),
    "controlPlaneScalingConfig": ("ControlPlaneScalingConfigUpdate", "UpdatedTier"),
    "kubeApiServerConfig": ("ControlPlaneComponentConfigUpdate", "KubeApiServerConfig"),
    "kubeSchedulerConfig": ("ControlPlaneComponentConfigUpdate", "KubeSchedulerConfig"),
    "kubeControllerManagerConfig": (
        "ControlPlaneComponentConfigUpdate",
        "KubeControllerManagerConfig",
    ),
}
#: Members of CreateCluster that DescribeCluster answers as they came.
_KEPT = (
    "encryptionConfig",
    "zonalShiftConfig",
    "remoteNetworkConfig",
    "computeConfig",
    "storageConfig",
    "controlPlaneScalingConfig",
    "kubeApiServerConfig",
    "kubeSchedulerConfig",
    "kubeControllerManagerConfig",
)
_MODES = {
    "CONFIG_MAP": ("API_AND_CONFIG_MAP", "API"),
    "API_AND_CONFIG_MAP": ("API",),
    "API": (),
}


class Backend(BaseBackend):
    """The EKS clusters of one region."""

    _url_module = plugin.url_module("eks")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.clusters: dict[str, Cluster] = {}
        self.tokens: dict[tuple[str, str], dict[str, Any]] = {}
        """What was asked with a client token, which outlives what was created."""

    @property
    def ec2(self) -> Any:
        """EC2 of the same region."""
        return ec2_backends[self.account_id][self.region_name]

    def find(self, name: str) -> Cluster:
        """Return a cluster by name; ResourceNotFoundException without."""
        if name not in self.clusters:
            text = f"No cluster found for name: {name}."
            raise Refused("ResourceNotFoundException", text)
        return self.clusters[name]

    def active(self, name: str) -> Cluster:
        """Return a cluster that takes changes of its content."""
        cluster = self.find(name)
        if cluster.status not in ("ACTIVE", "UPDATING"):
            text = f"Cluster {name} is not in ACTIVE status: {cluster.status}"
            raise Refused("InvalidRequestException", text)
        return cluster

    # -- creation --------------------------------------------------------------------------------

    def create(self, request: dict[str, Any], creator: str) -> Cluster:
        """Begin a cluster that is ACTIVE, or FAILED, after ``Delays.eks_create``."""
        sim, name = current(), request["name"]
        if (there := self.clusters.get(name)) is not None:
            if request.get("clientRequestToken") and there.request == request:
                return there
            raise Refused("ResourceInUseException", f"Cluster already exists with name: {name}")
        if len(self.clusters) >= sim.quota("eks", "Clusters"):
            text = "Cluster limit exceeded for account"
            raise Refused("ResourceLimitExceededException", text)
        version = request.get("version") or DEFAULT_VERSION
        _check_version(version)
        self._check_role(request["roleArn"])
        self._check_keys(request.get("encryptionConfig") or [])
        vpc = request["resourcesVpcConfig"]
        vpc_id = self._check_network(
            name, vpc.get("subnetIds") or [], vpc.get("securityGroupIds") or []
        )
        group = self._cluster_group(name, vpc_id)
        attached = [group, *(vpc.get("securityGroupIds") or [])]
        cluster = Cluster(
            self._document(request, version, vpc_id, group),
            request,
            creator,
            f"{sim.ids.getrandbits(128):032x}",
            [
                self.ec2.add_service_eni(subnet, attached, f"Amazon EKS {name}", "amazon-eks").id
                for subnet in vpc["subnetIds"]
            ],
        )
        self.clusters[name] = cluster
        wanted = (request.get("accessConfig") or {}).get("bootstrapClusterCreatorAdminPermissions")
        if wanted is not False and cluster.mode != "CONFIG_MAP":
            eks_access.bootstrap(cluster)
        sim.clock.after(sim.delays.eks_create, lambda: self._created(cluster))
        return cluster

    def _document(
        self, request: dict[str, Any], version: str, vpc_id: str, group: str
    ) -> dict[str, Any]:
        sim, name = current(), request["name"]
        vpc, network = request["resourcesVpcConfig"], request.get("kubernetesNetworkConfig") or {}
        oidc = f"{sim.ids.getrandbits(128):032X}"
        return {
            "name": name,
            "arn": f"arn:aws:eks:{self.region_name}:{self.account_id}:cluster/{name}",
            "createdAt": sim.clock.now(),
            "version": version,
            "roleArn": request["roleArn"],
            "resourcesVpcConfig": {
                "subnetIds": list(vpc["subnetIds"]),
                "securityGroupIds": list(vpc.get("securityGroupIds") or []),
                "clusterSecurityGroupId": group,
                "vpcId": vpc_id,
                "endpointPublicAccess": vpc.get("endpointPublicAccess") is not False,
                "endpointPrivateAccess": vpc.get("endpointPrivateAccess") is True,
                "publicAccessCidrs": vpc.get("publicAccessCidrs") or ["0.0.0.0/0"],
                "controlPlaneEgressMode": vpc.get("controlPlaneEgressMode") or "AWS_MANAGED",
            },
            "kubernetesNetworkConfig": {
                "serviceIpv4Cidr": network.get("serviceIpv4Cidr") or self._service_cidr(vpc_id),
                "ipFamily": network.get("ipFamily") or "ipv4",
                "elasticLoadBalancing": network.get("elasticLoadBalancing") or {"enabled": False},
            },
            "logging": _logging(set(), request.get("logging")),
            "identity": {
                "oidc": {"issuer": f"https://oidc.eks.{self.region_name}.amazonaws.com/id/{oidc}"}
            },
            "status": "CREATING",
            "certificateAuthority": {},
            "platformVersion": VERSIONS[version]["defaultPlatformVersion"],
            "tags": dict(request.get("tags") or {}),
            "health": {"issues": []},
            "accessConfig": {
                # the API's default, which HyperPod does not work with
                "authenticationMode": "CONFIG_MAP",
                **(request.get("accessConfig") or {}),
            },
            "upgradePolicy": request.get("upgradePolicy") or {"supportType": "EXTENDED"},
            "deletionProtection": bool(request.get("deletionProtection")),
            **{member: request[member] for member in _KEPT if request.get(member)},
        }

    def _check_role(self, arn: str) -> None:
        role = roles.find(arn)
        if role is None:
            raise _invalid(f"Role with arn: {arn}, does not exist")
        if not roles.trusts(role, "eks.amazonaws.com"):
            raise _invalid(
                f"Role with arn: {arn}, could not be assumed because the trusted entity is not "
                f"correct"
            )
        own = all(roles.allows(role, action) for action in _CLUSTER_ACTIONS)
        if _CLUSTER_POLICY not in role.managed_policies and not own:
            raise _invalid(
                "The provided role doesn't have the Amazon EKS Managed Policies associated with "
                f"it. Please ensure the following policies [{_CLUSTER_POLICY}] are attached"
            )

    def _check_keys(self, configs: list[dict[str, Any]]) -> None:
        keys = kms_backends[self.account_id][self.region_name].keys.values()
        known = {key.arn for key in keys if key.key_state == "Enabled"}
        for config in configs:
            if (arn := config["provider"]["keyArn"]) not in known:
                raise _invalid(f"The keyArn in encryptionConfig provider is not valid: {arn}")

    def _check_network(self, name: str, subnet_ids: list[str], group_ids: list[str]) -> str:
        """Return the VPC of the subnets and groups after checking them."""
        known = {subnet.id: subnet for subnet in self.ec2.describe_subnets()}
        if missing := [each for each in subnet_ids if each not in known]:
            raise _invalid(f"The following subnets do not exist: {missing}")
        subnets = [known[each] for each in subnet_ids]
        if len({subnet.availability_zone for subnet in subnets}) < 2:
            raise _invalid("Subnets specified must be in at least two different AZs")
        zones = RegionsAndZonesBackend.zones[self.region_name]
        for subnet in subnets:
            zone = next(zone for zone in zones if zone.name == subnet.availability_zone)
            if zone.zone_id in _WITHOUT_EKS:
                others = ", ".join(z.name for z in zones if z.zone_id not in _WITHOUT_EKS)
                raise Refused(
                    "UnsupportedAvailabilityZoneException",
                    f"Cannot create cluster '{name}' because {zone.name}, the targeted "
                    "availability zone, does not currently have sufficient capacity to support "
                    f"the cluster. Retry and choose from these availability zones: {others}",
                )
        vpcs = {subnet.vpc_id for subnet in subnets}
        if len(vpcs) > 1:
            raise _invalid("Subnets specified must belong to the same VPC")
        if full := [s.id for s in subnets if s.available_ip_address_count < 6]:
            raise _invalid(f"Subnets must have at least 6 free IP addresses: {full}")
        if len(group_ids) > 5:
            raise _invalid("At most 5 security groups can be specified")
        groups = {group.id for vpc_id in vpcs for group in self.ec2.groups[vpc_id].values()}
        if missing := [each for each in group_ids if each not in groups]:
            raise _invalid(f"The following security groups do not exist: {missing}")
        return str(vpcs.pop())

    def _service_cidr(self, vpc_id: str) -> str:
        """Return the one of EKS's two ranges that it takes for such a VPC.

        The API's documentation (KubernetesNetworkConfigRequest) names both; which one it is, is in
        files/bootstrap.sh of awslabs/amazon-eks-ami.
        """
        found = self.ec2.describe_vpcs(vpc_ids=[vpc_id])[0].get_cidr_block_association_set()
        tens = any(each["cidr_block"].startswith("10.") for each in found)
        return "172.20.0.0/16" if tens else "10.100.0.0/16"

    def _cluster_group(self, name: str, vpc_id: str) -> str:
        """Create the security group that EKS puts on its interfaces, open to itself."""
        suffix = current().ids.randrange(10**9, 10**10)
        group = self.ec2.create_security_group(
            f"eks-cluster-sg-{name}-{suffix}",
            "EKS created security group applied to ENI that is attached to EKS Control Plane "
            "master nodes, as well as any managed workloads.",
            vpc_id,
            {
                "Name": f"eks-cluster-sg-{name}-{suffix}",
                "aws:eks:cluster-name": name,
                f"kubernetes.io/cluster/{name}": "owned",
            },
        )
        own = [{"GroupId": group.id}]
        self.ec2.authorize_security_group_ingress(
            group.id, "-1", None, None, [], source_groups=own, vpc_id=vpc_id
        )
        return str(group.id)

    def _created(self, cluster: Cluster) -> None:
        sim, document = current(), cluster.document
        if code := sim.failure("cluster", cluster.name):
            issue = {"code": code, "message": "Simulated cluster failure.", "resourceIds": []}
            document.update(status="FAILED", health={"issues": [issue]})
            return
        kubernetes = Endpoint(
            sim.clock,
            partial(eks_access.authenticate, cluster),
            document["version"],
            sim.pki,
            delays=sim.kubernetes_delays,
            services=document["kubernetesNetworkConfig"]["serviceIpv4Cidr"],
            failing=partial(sim.failure, "kubernetes"),
        )
        sim.clusters[cluster.arn] = kubernetes
        data = base64.b64encode(kubernetes.ca_pem).decode()
        endpoint = kubernetes.url
        if sim.host_names and self.region_name == sim.region:
            host = f"{sim.ids.getrandbits(128):032X}.{sim.eks_domain}"
            endpoint = f"https://{host}"
            sim.hosts[host.lower()] = int(kubernetes.url.rpartition(":")[2])
        document.update(status="ACTIVE", endpoint=endpoint, certificateAuthority={"data": data})
        if cluster.request.get("bootstrapSelfManagedAddons") is not False:
            eks_addons.install_self_managed(cluster)
        self._write_logs(cluster)

    # -- logs ------------------------------------------------------------------------------------

    def _write_logs(self, cluster: Cluster) -> None:
        """Write to CloudWatch now and then, into a group that is made again when it is gone."""
        if self.clusters.get(cluster.name) is not cluster:
            return
        self._write_log_lines(cluster)
        current().clock.after(_LOG_EVERY, partial(self._write_logs, cluster))

    def _write_log_lines(self, cluster: Cluster) -> None:
        for kind in enabled_logs(cluster.document["logging"]):
            stream = f"kube-{kind}-{cluster.manager_token}"
            logs.write(
                self.region_name, f"/aws/eks/{cluster.name}/cluster", stream, [f"{kind} is alive"]
            )

    # -- updates ---------------------------------------------------------------------------------

    def update_config(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin the one change that a request asks for (EKS API UpdateClusterConfig)."""
        cluster = self.find(request["name"])
        document, changes = cluster.document, dict[str, Any]()
        asked = [
            each for each in (*_UPDATES, "resourcesVpcConfig") if request.get(each) is not None
        ]
        if not asked:
            raise _invalid("No changes needed for the cluster")
        kinds = {_UPDATES.get(each, (each,))[0] for each in asked}
        if len(kinds) > 1:
            raise _invalid("Only one type of update can be allowed.")
        kind, params = self._new_config(document, request, asked, changes)
        self._check_idle(cluster, kind)
        if all(document.get(member) == value for member, value in changes.items()):
            raise _invalid(f"Cluster is already at the desired configuration with {params}")
        return self._begin(cluster, kind, params, changes)

    def _new_config(
        self,
        document: dict[str, Any],
        request: dict[str, Any],
        asked: list[str],
        changes: dict[str, Any],
    ) -> tuple[str, list[dict[str, str]]]:
        """Fill in the document's members after the change; returns the update's type and params."""
        if asked == ["resourcesVpcConfig"]:
            wanted = {k: v for k, v in request["resourcesVpcConfig"].items() if v is not None}
            network = {"subnetIds", "securityGroupIds"} & set(wanted)
            if network and len(network) < len(wanted):
                raise _invalid("Only one type of update can be allowed.")
            config = {**document["resourcesVpcConfig"], **wanted}
            if network:
                self._check_network(
                    document["name"], config["subnetIds"], config["securityGroupIds"]
                )
            changes["resourcesVpcConfig"] = config
            names = {"subnetIds": "Subnets", "securityGroupIds": "SecurityGroups"}
            params = [
                {"type": names.get(k, k[0].upper() + k[1:]), "value": json.dumps(v)}
                for k, v in wanted.items()
            ]
            return "VpcConfigUpdate" if network else "EndpointAccessUpdate", params
        for member in asked:
            value, old = request[member], cast("Any", document.get(member))
            if member == "logging":
                value = _logging(enabled_logs(old), value)
            elif member == "accessConfig":
                mode, new = old["authenticationMode"], value.get("authenticationMode")
                if new not in (mode, *_MODES[mode]):
                    text = f"Unsupported authentication mode update from {mode} to {new}"
                    raise _invalid(text)
                value = {**old, **value}
            elif isinstance(old, dict):
                value = {**old, **value}
            changes[member] = value
        kind = _UPDATES[asked[0]][0]
        return kind, [
            {"type": _UPDATES[each][1], "value": json.dumps(request[each])} for each in asked
        ]

    def associate_encryption(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to encrypt secrets with a key, once (EKS API AssociateEncryptionConfig)."""
        cluster, configs = self.find(request["clusterName"]), request["encryptionConfig"]
        if cluster.document.get("encryptionConfig"):
            raise _invalid("Cluster already has encryption configured")
        self._check_keys(configs)
        kind = "AssociateEncryptionConfig"
        self._check_idle(cluster, kind)
        params = [{"type": "EncryptionConfig", "value": json.dumps(configs)}]
        return self._begin(cluster, kind, params, {"encryptionConfig": configs})

    def update_version(self, request: dict[str, Any]) -> dict[str, Any]:
        """Begin to move a cluster to the next Kubernetes version."""
        cluster, version = self.find(request["name"]), request["version"]
        old = cluster.document["version"]
        _check_version(version)
        self._check_idle(cluster, "VersionUpdate")
        if version == old:
            raise _invalid(f"Cluster is already at the desired configuration with version {old}")
        if int(version.split(".")[1]) != int(old.split(".")[1]) + 1:
            text = f"Unsupported Kubernetes minor version update from {old} to {version}"
            raise _invalid(text)
        platform = VERSIONS[version]["defaultPlatformVersion"]
        params = [
            {"type": "Version", "value": version},
            {"type": "PlatformVersion", "value": platform},
        ]
        changes = {"version": version, "platformVersion": platform}
        return self._begin(cluster, "VersionUpdate", params, changes)

    def _check_idle(self, cluster: Cluster, what: str) -> None:
        if cluster.status in ("CREATING", "UPDATING", "DELETING"):
            text = (
                f"Cannot {what} because cluster {cluster.name} currently has an update in progress"
            )
            raise Refused("ResourceInUseException", text)

    def _begin(
        self, cluster: Cluster, kind: str, params: list[dict[str, str]], changes: dict[str, Any]
    ) -> dict[str, Any]:
        sim = current()
        update_id = new_uuid(sim.ids)
        update = {
            "id": update_id,
            "status": "InProgress",
            "type": kind,
            "params": params,
            "createdAt": sim.clock.now(),
            "errors": [],
        }
        cluster.updates[update_id] = update
        cluster.document["status"] = "UPDATING"

        def done() -> None:
            update["status"] = "Successful"
            before = cluster.mode
            cluster.document.update(changes, status="ACTIVE")
            vpc = cluster.document["resourcesVpcConfig"]
            for eni_id in cluster.interfaces:  # they wear the groups of now
                attached = [vpc["clusterSecurityGroupId"], *vpc["securityGroupIds"]]
                self.ec2.wear(eni_id, attached)
            if "version" in changes and (kubernetes := sim.clusters.get(cluster.arn)):
                kubernetes.upgrade(changes["version"])
            if before == "CONFIG_MAP" != cluster.mode:
                eks_access.bootstrap(cluster)
            self._write_log_lines(cluster)

        sim.clock.after(sim.delays.eks_update, done)
        return update

    # -- deletion --------------------------------------------------------------------------------

    def delete(self, name: str) -> Cluster:
        """Begin the deletion; interfaces and security group follow ``Delays.eni_linger`` later."""
        cluster, sim = self.find(name), current()
        if cluster.document["deletionProtection"]:
            text = f"Cluster {name} cannot be deleted because deletion protection is enabled"
            raise Refused("InvalidRequestException", text)
        if cluster.status == "DELETING":
            return cluster
        self._check_idle(cluster, "delete")
        cluster.document["status"] = "DELETING"
        sim.clock.after(sim.delays.eks_delete, lambda: self._deleted(cluster))
        return cluster

    def _deleted(self, cluster: Cluster) -> None:
        sim = current()
        self._write_log_lines(cluster)
        sim.stop_kubernetes(cluster.arn)
        del self.clusters[cluster.name]
        for eni_id in cluster.interfaces:
            self.ec2.remove_service_eni(eni_id)

        def drop_group() -> None:
            try:
                group = cluster.document["resourcesVpcConfig"]["clusterSecurityGroupId"]
                self.ec2.delete_security_group(group_id=group)
            except EC2ClientError:
                pass  # in use by somebody else, it stays for good

        sim.clock.after(sim.delays.eni_linger, drop_group)

    # -- tags ------------------------------------------------------------------------------------

    def tagged(self, arn: str) -> dict[str, str]:
        """Return the tags, to be changed, of whatever has this ARN; NotFoundException without."""
        for cluster in self.clusters.values():
            if cluster.arn == arn:
                return cluster.document["tags"]  # type: ignore[no-any-return]  # a JSON document
            parts: Iterator[Any] = (
                part
                for kind in (cluster.addons, cluster.entries, cluster.associations)
                for part in kind.values()
            )
            for part in parts:
                document = part.document
                keys = ("addonArn", "accessEntryArn", "associationArn")
                if arn in map(document.get, keys):
                    return document["tags"]  # type: ignore[no-any-return]  # a JSON document
        raise Refused("NotFoundException", f"Resource not found: {arn}")


def of_region(region: str) -> Backend:
    """Return the account's EKS in a region."""
    return cast("Backend", eks_backends[ACCOUNT][region])


def _invalid(text: str) -> Refused:
    return Refused("InvalidParameterException", text)


def _check_version(version: str) -> None:
    if version not in CREATABLE:
        raise _invalid(f"unsupported Kubernetes version {version}")


def enabled_logs(logging: dict[str, Any]) -> set[str]:
    """Return the log types that are on."""
    return {
        kind for setup in logging["clusterLogging"] if setup["enabled"] for kind in setup["types"]
    }


def _logging(before: set[str], change: dict[str, Any] | None) -> dict[str, Any]:
    """Apply a request's log setups to the types that were enabled; every type is answered."""
    enabled = set(before)
    for setup in (change or {}).get("clusterLogging") or []:
        types = set(setup.get("types") or [])
        enabled = enabled | types if setup.get("enabled") else enabled - types
    setups = [
        {"types": [kind for kind in _LOG_TYPES if (kind in enabled) is on], "enabled": on}
        for on in (True, False)
    ]
    return {"clusterLogging": [setup for setup in setups if setup["types"]]}
