"""The EKS cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import ClassVar

from hyperpod_eks.aws import prices, transport
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.prices import Item
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import access as kube
from hyperpod_eks.kube.client import KubeNotReady
from hyperpod_eks.kube.nodes import list_nodes
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import (
    MINUTE,
    CountedQuota,
    Differs,
    Fact,
    Facts,
    Guard,
    Live,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.iam import Role
from hyperpod_eks.resources.permissions import Statement, Statements, actions, look
from hyperpod_eks.resources.tagged import Candidate, tags_of

STATES = {
    "ACTIVE": State.READY,
    "CREATING": State.BUSY,
    "PENDING": State.BUSY,
    "UPDATING": State.BUSY,
    "DELETING": State.LEAVING,
    "FAILED": State.FAILED,
}
KUBELET_SKEW = 3
"""Minor versions by which a kubelet may be older than the API server."""


CREATE = actions(
    "eks",
    "AssociateEncryptionConfig",
    "CreateCluster",
    "DescribeCluster",
    "TagResource",
    "UpdateClusterConfig",
    "UpdateClusterVersion",
)
KEYS = actions("kms", "CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKey")


def arns(resolved: ResolvedConfig) -> tuple[str, ...]:
    """Return the ARNs of the cluster, its add-ons and access entries, for policy statements."""
    return tuple(
        resolved.arn("eks", f"{kind}/{resolved.eks_name}{rest}")
        # UpdateClusterConfig and others have been seen with ARNs below the cluster's
        for kind, rest in (
            ("cluster", ""),
            ("cluster", "/*"),
            ("addon", "/*"),
            ("access-entry", "/*"),
        )
    )


@frozen
class Cluster(Resource):
    """The EKS cluster.

    HyperPod requires the authentication mode API or API_AND_CONFIG_MAP; the API's default is
    another (SageMaker developer guide, "Prerequisites for EKS orchestration").
    """

    name: str
    version: str
    pinned: bool
    """Whether the config names the version; otherwise any version matches."""
    role: Role
    subnets: tuple[Subnet, ...]
    security_group: SecurityGroup
    log_types: tuple[str, ...]
    support_type: str
    deletion_protection: bool
    secrets_key: str = ""
    """ARN of the KMS key for Kubernetes secrets; empty for AWS's choice."""
    endpoint_access: tuple[bool, bool] = (True, True)
    """Whether the endpoint is reachable from the internet, and from inside the VPC."""
    public_access_cidrs: tuple[str, ...] = ("0.0.0.0/0",)
    authentication_mode: str = "API"

    kind = "eks/Cluster"
    step = "eks"
    tag_type = "eks-cluster"
    quota = CountedQuota(
        "quota-eks-clusters",
        "eks",
        "Clusters",
        lambda snapshot: len(snapshot.all(snapshot.aws.eks, "list_clusters", "clusters")),
    )
    absence: ClassVar[Facts] = {
        "log_types": frozenset(),  # LogSetup: a type not listed is not exported
    }
    patience = 40 * MINUTE
    inhabited = True
    usual = "9 to 13 min"
    typical = 620.0
    typical_change = 620.0  # of an upgrade: unmeasured, so that of a create
    facts = (
        "version",
        "secrets_key",
        "authentication_mode",
        "security_group",
        "endpoint_access",
        "public_access_cidrs",
        "log_types",
        "support_type",
        "deletion_protection",
    )
    answers = facts

    def create_names(self) -> Iterator[Resource]:
        """The security group, whose rules only traffic to nodes needs."""
        yield self.security_group

    def names(self, live: Live | None = None) -> Iterable[str]:
        """All facts; version and key only if the config names them; before an upgrade, hindrances.

        Without a declared key AWS chooses the one that encrypts a cluster's secrets (EKS User
        Guide, "Default envelope encryption for all Kubernetes API Data").
        """
        ours = {"version": self.pinned, "secrets_key": self.secrets_key}
        yield from (name for name in self.facts if ours.get(name, True))
        if live and "hindrances" in live.facts:
            yield "hindrances"

    def authoritative(self, name: str) -> bool:
        """Only hindrances, which we compute and AWS does not describe."""
        return name == "hindrances"

    guards: ClassVar[Mapping[str, Guard]] = {
        "endpoint_access": lambda is_, access: (
            "the Kubernetes API is opened to the internet" if access[0] and not is_[0] else ""
        ),
        "public_access_cidrs": lambda is_, cidrs: (
            f"the Kubernetes API is opened to {', '.join(wider)}"
            if (wider := _outside(cidrs, is_))
            else ""
        ),
        "log_types": lambda is_, types: (
            f"these control plane logs are switched off: {', '.join(sorted(is_ - types))}"
            if is_ - types
            else ""
        ),
        "deletion_protection": lambda is_, protected: (
            "deletion protection is switched off" if is_ and not protected else ""
        ),
    }

    @property
    def place(self) -> Vpc | None:
        """The VPC of its subnets."""
        return self.subnets[0].vpc if self.subnets else None

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the cluster's ARNs and on its KMS keys."""
        own = arns(resolved)
        yield look("eks", "DescribeClusterVersions", "ListClusters")
        yield Statement("EksMake", CREATE, own)
        yield Statement("EksDelete", ("eks:DeleteCluster",), own, command="delete")
        keys = resolved.config.encryption.model_dump().values()
        if used := tuple(sorted(filter(None, set(keys)))):
            # EKS, EBS, S3 and CloudWatch Logs use a key on the caller's behalf
            yield Statement("Keys", KEYS, used)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """All EKS clusters of the region."""
        for page in aws.eks.get_paginator("list_clusters").paginate():
            for name in page["clusters"]:
                ask = partial(tags_of, aws.eks.describe_cluster, "cluster", "tags", name=name)
                yield "eks-cluster", name, ask

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name; before an upgrade, also read the add-ons and nodes that it affects."""
        lives = []
        for found in describe(snapshot, self.name):
            live = self._live(found)
            upgrade = self.pinned and _minor(found["version"]) < _minor(self.version)
            ready = upgrade and live.state is State.READY
            lives.append(self._upgradable(snapshot, live) if ready else live)
        return lives

    def _upgradable(self, snapshot: Snapshot, live: Live) -> Live:
        """Add the obstacles to an upgrade, as the fact ``hindrances``.

        A kubelet may be three minor versions older than the API server (kubernetes.io, "Version
        Skew Policy"); the kubelet is part of the nodes' image, which update-software replaces.
        """
        hindrances = list(self._addons_without_version(snapshot))
        reach, unready = access(snapshot, self.name), ["every node: Kubernetes cannot be asked"]
        with suppress(KubeNotReady):
            nodes = list_nodes(reach) if reach else []
            unready = [f"{node.name} ({node.why})" for node in nodes if not node.ready]
            least = _minor(self.version) - KUBELET_SKEW
            old = [node for node in nodes if node.kubelet and _minor(node.kubelet) < least]
            if old:
                kubelets = ", ".join(sorted({node.kubelet for node in old}))
                hindrances.append(
                    f"{len(old)} nodes ({_few([node.name for node in old])}) have the kubelet "
                    f"{kubelets}, and it takes 1.{least} or newer: `hyperpod-eks update-software`, "
                    "or an image_id of today, comes first"
                )
        return replace(
            live,
            facts={**live.facts, "hindrances": tuple(hindrances)},
            attributes={**live.attributes, "unready": unready},
        )

    def _addons_without_version(self, snapshot: Snapshot) -> Iterator[str]:
        for addon in snapshot.all(snapshot.aws.eks, "list_addons", "addons", clusterName=self.name):
            offered = snapshot.aws.eks.describe_addon_versions(
                addonName=addon, kubernetesVersion=self.version
            )["addons"]
            if not any(each["addonVersions"] for each in offered):
                yield f"EKS has no version of the add-on {addon} for it"

    def _live(self, found: JsonMapping) -> Live:
        vpc = found.get("resourcesVpcConfig", {})
        issues = found.get("health", {}).get("issues", ())
        words = "; ".join(f"{issue['code']}: {issue.get('message', '')}" for issue in issues)
        described = self._described(found, vpc)
        return Live(
            found["name"],
            found["arn"],
            owner=owner(found.get("tags", {})),
            state=STATES.get(found["status"], State.BUSY),
            why=words or found["status"],
            facts={name: value for name, value in described.items() if value is not None},
            attributes={
                "version": found["version"],
                "status": found["status"],
                "endpoint": found.get("endpoint", ""),
                "certificate_authority": found.get("certificateAuthority", {}).get("data", ""),
                "issues": [dict(issue) for issue in issues],
                "vpc": vpc.get("vpcId"),
                "born": str(found.get("createdAt", "")),  # tells two of one name apart
                "issuer": issuer(found),
            },
        )

    def _described(self, found: JsonMapping, vpc: JsonMapping) -> dict[str, Fact]:
        """Return a description as facts; None for members that EKS does not return."""
        keys = [
            each.get("provider", {}).get("keyArn") for each in found.get("encryptionConfig", ())
        ]
        access = vpc.get("endpointPublicAccess"), vpc.get("endpointPrivateAccess")
        blocks = vpc.get("publicAccessCidrs") if access[0] else self.public_access_cidrs
        return {
            # subnets are no fact: zones that are added later are for nodes only
            "security_group": next(iter(vpc.get("securityGroupIds", ())), None),
            "secrets_key": next(iter(keys), None),
            "log_types": frozenset(
                kind
                for setup in found.get("logging", {}).get("clusterLogging", ())
                if setup.get("enabled")
                for kind in setup.get("types", ())
            ),
            "endpoint_access": None if None in access else access,
            "public_access_cidrs": frozenset(blocks) if blocks else None,
            "authentication_mode": authentication_mode(found),
            "support_type": _upper(found.get("upgradePolicy", {}).get("supportType")),
            "deletion_protection": found.get("deletionProtection"),
            "version": found["version"] if self.pinned else None,
        }

    def reverts(self, name: str) -> bool:
        """Only the key: EKS cannot remove it, and the difference is reported."""
        return name == "secrets_key"

    def expected(self, name: str, references: References) -> Fact:
        """Log types and CIDR blocks are sets; an upgrade must have no hindrances."""
        if name == "hindrances":
            return ()
        value = super().expected(name, references)
        return frozenset(value) if name in ("log_types", "public_access_cidrs") else value

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """EKS upgrades by one minor version, never downgrades, and never removes a key."""
        is_, wanted = differs[name]
        if name == "secrets_key" and is_:
            return "EKS keeps the key that its secrets are encrypted with"
        if name == "version":
            now, then = map(_minor, (is_, wanted))
            if then < now:
                return "EKS does not go back to an older version"
            if then > now + 1:
                path = ", then ".join(f"1.{minor}" for minor in range(now + 1, then + 1))
                return f"Kubernetes is upgraded one minor version at a time: {path}"
            hindrances, _ = differs.get("hindrances", ((), ()))
            return "; ".join(hindrances)
        return ""

    def disruption(self, live: Live, differs: Differs) -> list[str]:
        """Before an upgrade, the nodes that are not Ready: they may fail to rejoin."""
        unready = live.attributes.get("unready")
        if "version" not in differs or not unready:
            return []
        upgrade = f"Kubernetes goes from {live.attributes['version']} to {self.version}"
        return [f"{upgrade} while nodes are not Ready: {_few(unready)}"]

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token.  We install the add-ons, so EKS installs none."""
        vpc: Json = {
            "subnetIds": [references(subnet).id for subnet in self.subnets],
            "securityGroupIds": [references(self.security_group).id],
            **self._endpoint(blocks=True),
        }
        extras: JsonObject = {}
        if self.log_types:
            extras["logging"] = {"clusterLogging": self._logging(self.log_types, enabled=True)}
        if self.secrets_key:
            extras["encryptionConfig"] = self._encryption()
        found = aws.eks.create_cluster(
            name=self.name,
            version=self.version,
            roleArn=references(self.role).arn,
            resourcesVpcConfig=vpc,
            accessConfig={
                "authenticationMode": "API",
                # we create the entry: EKS's own would have no tags
                "bootstrapClusterCreatorAdminPermissions": False,
            },
            bootstrapSelfManagedAddons=False,
            upgradePolicy={"supportType": self.support_type},  # type: ignore[typeddict-item]
            deletionProtection=self.deletion_protection,
            clientRequestToken=token,
            tags=aws.tags(self.label),
            **extras,
        )["cluster"]
        return self._live(found)

    def _endpoint(self, *, blocks: bool) -> JsonObject:
        public, private = self.endpoint_access
        found = {"endpointPublicAccess": public, "endpointPrivateAccess": private}
        return found | ({"publicAccessCidrs": list(self.public_access_cidrs)} if blocks else {})

    def _encryption(self) -> list[JsonObject]:
        return [{"resources": ["secrets"], "provider": {"keyArn": self.secrets_key}}]

    @staticmethod
    def _logging(types: Sequence[str], *, enabled: bool) -> Json:
        return [{"types": list(types), "enabled": enabled}] if types else []

    def first(self, differs: Differs) -> Differs:
        """One update, since EKS accepts one at a time; the endpoint's settings are one update."""
        if "owner" in differs:
            return {"owner": differs["owner"]}
        name = next(name for name in self.facts if name in differs)
        endpoint = ("endpoint_access", "public_access_cidrs")
        names = endpoint if name in endpoint else (name,)
        return {each: differs[each] for each in names if each in differs}

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Send one update."""
        if "owner" in differs:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        elif "version" in differs:
            aws.eks.update_cluster_version(name=self.name, version=self.version)
        elif "secrets_key" in differs:
            aws.eks.associate_encryption_config(
                clusterName=self.name,
                encryptionConfig=self._encryption(),  # type: ignore[arg-type]  # checked by the model
            )
        else:
            aws.eks.update_cluster_config(name=self.name, **self._change(references, differs))

    def _change(self, references: References, differs: Differs) -> JsonObject:
        if "authentication_mode" in differs:
            return {"accessConfig": {"authenticationMode": self.authentication_mode}}
        if "security_group" in differs:
            group = references(self.security_group).id
            return {"resourcesVpcConfig": {"securityGroupIds": [group]}}
        if {"endpoint_access", "public_access_cidrs"} & differs.keys():
            return {"resourcesVpcConfig": self._endpoint(blocks=self.endpoint_access[0])}
        if "log_types" in differs:
            off = sorted(set(differs["log_types"][0]) - set(self.log_types))
            on = self._logging(sorted(set(self.log_types)), enabled=True)
            return {"logging": {"clusterLogging": [*on, *self._logging(off, enabled=False)]}}
        if "support_type" in differs:
            return {"upgradePolicy": {"supportType": self.support_type}}
        return {"deletionProtection": self.deletion_protection}

    def prices(self, *, extended: bool) -> Iterator[Item]:
        """The control plane, and extended support if its version is in it."""
        yield Item("EKS control plane", 1, prices.CONTROL_PLANE)
        if extended:
            yield Item("EKS extended support", 1, prices.EXTENDED_SUPPORT)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, with its add-ons and access entries."""
        aws.eks.delete_cluster(name=self.name)


def _outside(cidrs: Iterable[str], references: Iterable[str]) -> list[str]:
    """Return the CIDR blocks of ``cidrs`` that no block of ``references`` contains.

    >>> _outside(["10.0.1.0/24", "0.0.0.0/0"], ["10.0.0.0/8"])
    ['0.0.0.0/0']
    """
    blocks = [ip_network(each, strict=False) for each in references]

    def inside(cidr: str) -> bool:
        block = ip_network(cidr, strict=False)
        return any(
            block.version == other.version and block.subnet_of(other)  # type: ignore[arg-type]
            for other in blocks
        )

    return sorted(cidr for cidr in cidrs if not inside(cidr))


def _few(names: Sequence[str]) -> str:
    """Join the first five names.

    >>> _few(list("abcdef"))
    'a, b, c, d, e, …'
    """
    return ", ".join([*names[:5], *("…" for _ in names[5:6])])


def _upper(said: str | None) -> str | None:
    """Return a value in upper case, as in AWS's model: services have changed the case."""
    return said.upper() if said else None


def authentication_mode(found: JsonMapping) -> str | None:
    """Return a described cluster's authentication mode; None if AWS does not return it."""
    return _upper((found.get("accessConfig") or {}).get("authenticationMode"))


def _minor(version: str) -> int:
    """Return the minor version of 1.34, or of a kubelet's 1.34.2-eks-113cf36."""
    return int(version.split(".")[1])


def issuer(found: JsonMapping) -> str:
    """Return the URL of a described cluster's OIDC issuer; "" while EKS does not name it."""
    return str(((found.get("identity") or {}).get("oidc") or {}).get("issuer") or "")


def describe(snapshot: Snapshot, name: str) -> list[JsonObject]:
    """Describe an EKS cluster, once per snapshot; empty if there is none."""

    def ask() -> list[JsonObject]:
        with absent("ResourceNotFoundException"):
            found: Json = snapshot.aws.eks.describe_cluster(name=name)["cluster"]
            return [found]
        return []

    return snapshot.once(("eks", name), ask)


def access(snapshot: Snapshot, name: str) -> kube.Access | None:
    """Return the access to a cluster's Kubernetes API; None while it has no endpoint."""
    found = describe(snapshot, name)
    if not found or not found[0].get("endpoint"):
        return None
    authority = found[0]["certificateAuthority"]["data"]
    about = {"endpoint": found[0]["endpoint"], "certificate_authority": authority}
    return snapshot.once(("kubernetes", name), lambda: kube_access(snapshot.aws, name, about))


def kube_access(aws: Aws, name: str, about: JsonMapping) -> kube.Access:
    """Return the access to a Kubernetes API from a cluster's `Live.attributes`."""

    def token() -> str:
        with aws.lock:
            return kube.token(aws.sts, name)

    # a proxy that the user trusts to intercept TLS to AWS also intercepts it to the cluster
    bundle = transport.ca_bundle(aws.session)
    return kube.Access(name, about["endpoint"], about["certificate_authority"], token, bundle)
