"""The control plane that orchestrates the nodes, its log group, and who may talk to it."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from ipaddress import ip_network
from typing import Any, ClassVar

from hyperpod_eks.aws import transport
from hyperpod_eks.aws.client import LABEL, Aws, Look, absent, owner, region_of, tag
from hyperpod_eks.errors import Denied, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resolve.site import Site
from hyperpod_eks.resources.base import MINUTE, Differs, Guard, Known, Live, Resource, State
from hyperpod_eks.steps.iam import Role
from hyperpod_eks.steps.network import Network, SecurityGroup, Subnet, Vpc
from hyperpod_eks.workers import together

STATES = {
    "ACTIVE": State.READY,
    "CREATING": State.BUSY,
    "PENDING": State.BUSY,
    "UPDATING": State.BUSY,
    "DELETING": State.LEAVING,
    "FAILED": State.FAILED,
}
CALLER = "access-caller"
"""The label of the access entry of whoever runs create."""
KUBELET_SKEW = 3
"""Minor versions that a kubelet may be behind the API server."""


@frozen
class Control:
    """What the other steps build on."""

    cluster: Cluster
    access: tuple[AccessEntry, ...]
    left: tuple[NodesEntry, ...] = ()
    """What HyperPod leaves in a cluster that stays."""


def step(site: Site, role: Role, net: Network, left: tuple[Resource, ...]) -> Control:
    """Declare log group, cluster and access entries; the caller's own entry comes first."""
    eks, keys = site.config.eks, site.config.encryption
    logs = LogGroup(
        "log-group",
        name=f"/aws/eks/{site.eks_name}/cluster",
        arn=site.arn("logs", f"log-group:/aws/eks/{site.eks_name}/cluster"),
        retention=eks.log_retention_days,
        key_arn=keys.logs or "",
    )
    cluster = Cluster(
        "cluster",
        name=site.eks_name,
        version=site.kubernetes_version,
        pinned=eks.version is not None,
        role=role,
        subnets=tuple(net.private.values()),
        security_group=net.control_group,
        secrets_key=keys.eks_secrets or "",
        endpoint_access=(eks.endpoint_public_access, eks.endpoint_private_access),
        public_access_cidrs=eks.public_access_cidrs,
        log_types=tuple(eks.log_types),
        support_type=eks.support_type,
        deletion_protection=site.config.deletion_protection,
        # before it wears another group the nodes must let that in
        after=left if site.eks_is_theirs else (logs, *left, *net.opening),
    )
    admin = site.access_policy("AmazonEKSClusterAdminPolicy")
    callers = (CallersEntries("callers-entries", cluster=cluster),) if site.eks_is_theirs else ()
    entries = [AccessEntry(CALLER, cluster=cluster, principal="", policy=admin, after=callers)]
    entries += [
        AccessEntry(
            access_label(entry.principal_arn, [each.principal_arn for each in eks.access]),
            cluster=cluster,
            principal=entry.principal_arn,
            policy=site.access_policy(entry.policy) if entry.policy else "",
            namespaces=entry.namespaces,
            groups=entry.kubernetes_groups,
        )
        for entry in eks.access
    ]
    node_role = site.iam_name("hyperpod", "iam/execution-role")
    entry = NodesEntry("nodes-entry", cluster=cluster, role=node_role)
    return Control(cluster, tuple(entries), (entry,) if site.eks_is_theirs else ())


def access_label(principal: str, everybody: Sequence[str]) -> str:
    """Call an entry after its principal; those of one name in two paths are told apart.

    >>> access_label("arn:aws:iam::1:role/a/dev", ["arn:aws:iam::1:role/a/dev"])
    'access-dev'
    """
    name = principal.rpartition("/")[2]
    if sum(each.rpartition("/")[2] == name for each in everybody) > 1:
        name += f"-{hashlib.sha256(principal.encode()).hexdigest()[:6]}"
    return f"access-{name}"


@frozen
class LogGroup(Resource):
    """The control plane's log group, made before EKS would make it without retention."""

    name: str
    arn: str
    retention: int
    """Days."""
    key_arn: str = ""
    """ARN of a KMS key."""

    kind = "eks/LogGroup"
    step = "eks"
    goes_at_once = True
    facts = ("retention", "key_arn")
    later = ("retention",)
    signed = False  # EKS makes a deleted one anew as long as the cluster writes

    @property
    def source(self) -> str:
        """EKS writes into it, for a while after its cluster went too."""
        return "eks/cluster"

    guards: ClassVar[Mapping[str, Guard]] = {
        # a group that was just made keeps its logs for ever
        "retention": lambda is_, days: (
            f"logs older than {days} days are deleted; until now they were kept for {is_} days"
            if is_ is not None and days < is_
            else ""
        ),
        "key_arn": lambda is_, key: (
            f"new logs are not encrypted with {is_} any more" if is_ and not key else ""
        ),
    }

    def find(self, look: Look) -> Sequence[Live]:
        """By name."""
        logs = look.aws.logs
        with absent("ResourceNotFoundException"):
            tags, groups = together(
                partial(logs.list_tags_for_resource, resourceArn=self.arn),
                partial(self._groups, look),
            )
            signed = owner(tags["tags"])
            return [Live(self.name, self.arn, signed, facts=self._facts(each)) for each in groups]
        return []

    def review(self, look: Look, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Look at it among all; its tags are known."""
        facts = [self._facts(group) for group in self._groups(look)]
        return [replace(live, facts=each, told=None) for each in facts]

    def _groups(self, look: Look) -> list[Mapping[str, Any]]:
        about = {"logGroupNamePrefix": self.name}
        found = look.all(look.aws.logs, "describe_log_groups", "logGroups", **about)
        return [group for group in found if group["logGroupName"] == self.name]

    def _facts(self, group: Mapping[str, Any]) -> dict[str, Any]:
        return {"retention": group.get("retentionInDays"), "key_arn": group.get("kmsKeyId", "")}

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """The name is unique in the region."""
        key: dict[str, Any] = {"kmsKeyId": self.key_arn} if self.key_arn else {}
        aws.logs.create_log_group(logGroupName=self.name, tags=aws.tags(self.label), **key)
        facts = {"retention": None, "key_arn": self.key_arn}
        return Live(self.name, self.arn, owner=aws.lineage, facts=facts)

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """Set the retention, and sign a group that EKS made anew."""
        if live.owner is None:
            aws.logs.tag_resource(resourceArn=self.arn, tags=aws.tags(self.label))
        if "key_arn" in differs:
            if self.key_arn:
                aws.logs.associate_kms_key(logGroupName=self.name, kmsKeyId=self.key_arn)
            else:
                aws.logs.disassociate_kms_key(logGroupName=self.name)
        if "retention" in differs:
            aws.logs.put_retention_policy(logGroupName=self.name, retentionInDays=self.retention)
        facts = {"retention": self.retention, "key_arn": self.key_arn}
        return replace(live, owner=aws.lineage, facts=facts)

    def delete(self, aws: Aws, live: Live) -> None:
        """Only after the cluster: EKS makes it again as long as it writes."""
        aws.logs.delete_log_group(logGroupName=self.name)


@frozen
class Cluster(Resource):
    """The EKS cluster.

    HyperPod demands the authentication mode API or API_AND_CONFIG_MAP, and the API's default is
    neither (SageMaker developer guide, "Prerequisites for EKS orchestration").
    """

    name: str
    version: str
    pinned: bool
    """Whether the config names the version; otherwise any is as declared."""
    role: Role
    subnets: tuple[Subnet, ...]
    security_group: SecurityGroup
    log_types: tuple[str, ...]
    support_type: str
    deletion_protection: bool
    secrets_key: str = ""
    """ARN of a KMS key for the secrets in Kubernetes."""
    endpoint_access: tuple[bool, bool] = (True, True)
    """Whether the endpoint is reached from the internet, and from inside the VPC."""
    public_access_cidrs: tuple[str, ...] = ("0.0.0.0/0",)
    authentication_mode: str = "API"

    kind = "eks/Cluster"
    step = "eks"
    patience = 40 * MINUTE
    usual = "9 to 13 min"
    typical = 620.0
    typical_change = 620.0  # of an upgrade; no measurement is known, so a create's
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

    def names(self, live: Live | None = None) -> Iterable[str]:
        """A version and a key only if the config names one; before an upgrade, what bars it.

        Whose key encrypts the secrets of a cluster that asked for none is AWS's to choose (EKS User
        Guide, "Default envelope encryption for all Kubernetes API Data").
        """
        ours = {"version": self.pinned, "secrets_key": self.secrets_key}
        yield from (name for name in self.facts if ours.get(name, True))
        if live and "hindrances" in live.facts:
            yield "hindrances"

    def certain(self, name: str) -> bool:
        """What stands in the way of an upgrade is found, not described."""
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

    def find(self, look: Look) -> Sequence[Live]:
        """By name; before an upgrade, the add-ons and nodes that have to live with it too."""
        lives = []
        for found in describe(look, self.name):
            live = self._live(found)
            upgrade = self.pinned and _minor(found["version"]) < _minor(self.version)
            ready = upgrade and live.state is State.READY
            lives.append(self._upgradable(look, live) if ready else live)
        return lives

    def _upgradable(self, look: Look, live: Live) -> Live:
        """Find what stands in the way of an upgrade, as the fact ``hindrances``.

        A kubelet may be three minor versions older than the API server (kubernetes.io, "Version
        Skew Policy"); the nodes' version comes with their image, so with update-software.
        """
        hindrances = []
        for addon in look.all(look.aws.eks, "list_addons", "addons", clusterName=self.name):
            offered = look.aws.eks.describe_addon_versions(
                addonName=addon, kubernetesVersion=self.version
            )["addons"]
            if not any(each["addonVersions"] for each in offered):
                hindrances.append(f"EKS has no version of the add-on {addon} for it")
        reach, unready = access(look, self.name), ["every node: Kubernetes cannot be asked"]
        with suppress(kube.KubeNotReady):
            nodes = kube.nodes(reach) if reach else []
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

    def _live(self, found: Mapping[str, Any]) -> Live:
        vpc = found.get("resourcesVpcConfig", {})
        issues = found.get("health", {}).get("issues", ())
        words = "; ".join(f"{issue['code']}: {issue.get('message', '')}" for issue in issues)
        keys = [
            each.get("provider", {}).get("keyArn") for each in found.get("encryptionConfig", ())
        ]
        access = vpc.get("endpointPublicAccess"), vpc.get("endpointPrivateAccess")
        blocks = vpc.get("publicAccessCidrs") if access[0] else self.public_access_cidrs
        said: dict[str, Any] = {
            # the subnets that it was made in: zones that come later are for nodes alone
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
        facts = {name: value for name, value in said.items() if value is not None}
        return Live(
            found["name"],
            found["arn"],
            owner=owner(found.get("tags", {})),
            state=STATES.get(found["status"], State.BUSY),
            why=words or found["status"],
            facts=facts,
            attributes={
                "version": found["version"],
                "status": found["status"],
                "endpoint": found.get("endpoint", ""),
                "certificate_authority": found.get("certificateAuthority", {}).get("data", ""),
                "issues": [dict(issue) for issue in issues],
                "vpc": vpc.get("vpcId"),
                "born": str(found.get("createdAt", "")),  # of two of one name
            },
        )

    def withdraws(self, name: str) -> bool:
        """The key, which EKS does not take back: it is said, and not forgotten."""
        return name == "secrets_key"

    def expected(self, name: str, known: Known) -> Any:
        """Subnets and log types have no order; nothing shall stand in the way of an upgrade."""
        if name == "hindrances":
            return ()
        value = super().expected(name, known)
        return frozenset(value) if name in ("log_types", "public_access_cidrs") else value

    def bars(self, name: str, differs: Differs) -> str:
        """EKS upgrades by one minor version, and takes no version and no key back."""
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

    def loses(self, live: Live, differs: Differs) -> list[str]:
        """Nodes that are not well may not come back to a newer control plane."""
        unready = live.attributes.get("unready")
        if "version" not in differs or not unready:
            return []
        upgrade = f"Kubernetes goes from {live.attributes['version']} to {self.version}"
        return [f"{upgrade} while nodes are not Ready: {_few(unready)}"]

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token; the add-ons are ours to choose, so EKS installs none."""
        public, private = self.endpoint_access
        extras: dict[str, Any] = {}
        if self.log_types:
            extras["logging"] = {"clusterLogging": self._logging(self.log_types, enabled=True)}
        if self.secrets_key:
            extras["encryptionConfig"] = self._encryption()
        found = aws.eks.create_cluster(
            name=self.name,
            version=self.version,
            roleArn=known(self.role).arn,
            resourcesVpcConfig={
                "subnetIds": [known(subnet).id for subnet in self.subnets],
                "securityGroupIds": [known(self.security_group).id],
                "endpointPublicAccess": public,
                "endpointPrivateAccess": private,
                "publicAccessCidrs": list(self.public_access_cidrs),
            },
            accessConfig={
                "authenticationMode": "API",
                # the entry is ours to make: one that EKS makes carries no tags
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

    def _encryption(self) -> list[dict[str, Any]]:
        return [{"resources": ["secrets"], "provider": {"keyArn": self.secrets_key}}]

    @staticmethod
    def _logging(types: Sequence[str], *, enabled: bool) -> Any:
        return [{"types": list(types), "enabled": enabled}] if types else []

    def first(self, differs: Differs) -> Differs:
        """EKS takes one update at a time; the endpoint's settings go together."""
        if "owner" in differs:
            return {"owner": differs["owner"]}
        name = next(name for name in self.facts if name in differs)
        endpoint = ("endpoint_access", "public_access_cidrs")
        names = endpoint if name in endpoint else (name,)
        return {each: differs[each] for each in names if each in differs}

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> None:
        """Change one thing."""
        change: dict[str, Any] = {}
        if "owner" in differs:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
            return
        if "version" in differs:
            aws.eks.update_cluster_version(name=self.name, version=self.version)
            return
        if "secrets_key" in differs:
            aws.eks.associate_encryption_config(
                clusterName=self.name,
                encryptionConfig=self._encryption(),  # type: ignore[arg-type]  # checked by the model
            )
            return
        if "authentication_mode" in differs:
            change = {"accessConfig": {"authenticationMode": self.authentication_mode}}
        elif "security_group" in differs:
            group = known(self.security_group).id
            change = {"resourcesVpcConfig": {"securityGroupIds": [group]}}
        elif {"endpoint_access", "public_access_cidrs"} & differs.keys():
            public, private = self.endpoint_access
            change = {
                "resourcesVpcConfig": {
                    "endpointPublicAccess": public,
                    "endpointPrivateAccess": private,
                    **({"publicAccessCidrs": list(self.public_access_cidrs)} if public else {}),
                }
            }
        elif "log_types" in differs:
            wanted = set(self.log_types)
            off = sorted(set(differs["log_types"][0]) - wanted)
            change = {
                "logging": {
                    "clusterLogging": [
                        *self._logging(sorted(wanted), enabled=True),
                        *self._logging(off, enabled=False),
                    ]
                }
            }
        elif "support_type" in differs:
            change = {"upgradePolicy": {"supportType": self.support_type}}
        elif "deletion_protection" in differs:
            change = {"deletionProtection": self.deletion_protection}
        aws.eks.update_cluster_config(name=self.name, **change)

    def delete(self, aws: Aws, live: Live) -> None:
        """Takes add-ons and access entries with it."""
        aws.eks.delete_cluster(name=self.name)


def _outside(cidrs: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the address blocks that no known one contains.

    >>> _outside(["10.0.1.0/24", "0.0.0.0/0"], ["10.0.0.0/8"])
    ['0.0.0.0/0']
    """
    blocks = [ip_network(each, strict=False) for each in known]

    def inside(cidr: str) -> bool:
        block = ip_network(cidr, strict=False)
        return any(
            block.version == other.version and block.subnet_of(other)  # type: ignore[arg-type]
            for other in blocks
        )

    return sorted(cidr for cidr in cidrs if not inside(cidr))


def _few(names: Sequence[str]) -> str:
    """Name the first five.

    >>> _few(list("abcdef"))
    'a, b, c, d, e, …'
    """
    return ", ".join([*names[:5], *("…" for _ in names[5:6])])


def _upper(said: str | None) -> str | None:
    """Spell an enumeration as the model does; services have changed the case of theirs."""
    return said.upper() if said else None


def authentication_mode(found: Mapping[str, Any]) -> str | None:
    """Read how a described cluster knows its users; None where AWS does not say."""
    return _upper((found.get("accessConfig") or {}).get("authenticationMode"))


def _minor(version: str) -> int:
    """Read the minor version of 1.34, or of a kubelet's 1.34.2-eks-113cf36."""
    return int(version.split(".")[1])


def describe(look: Look, name: str) -> list[dict[str, Any]]:
    """Describe an EKS cluster, once for all who ask in this look; empty when there is none."""

    def ask() -> list[dict[str, Any]]:
        with absent("ResourceNotFoundException"):
            found: Any = look.aws.eks.describe_cluster(name=name)["cluster"]
            return [found]
        return []

    return look.once(("eks", name), ask)


def access(look: Look, name: str) -> kube.Access | None:
    """Say how to reach the Kubernetes API of a cluster; None while it has no endpoint."""
    found = describe(look, name)
    if not found or not found[0].get("endpoint"):
        return None
    authority = found[0]["certificateAuthority"]["data"]
    about = {"endpoint": found[0]["endpoint"], "certificate_authority": authority}
    return look.once(("kubernetes", name), lambda: door(look.aws, name, about))


def door(aws: Aws, name: str, about: Mapping[str, Any]) -> kube.Access:
    """Say the same of a cluster whose live attributes are known."""

    def token() -> str:
        with aws.lock:
            return kube.token(aws.session, name, region_of(aws.session))

    authorities = base64.b64decode(about["certificate_authority"]).decode()
    # whoever answers in place of AWS, as the user allows, answers in place of the cluster too
    authorities += "\n" + transport.certificates(transport.ca_bundle(aws.session))
    ca = base64.b64encode(authorities.encode()).decode()
    return kube.Access(name, about["endpoint"], ca, token)


@frozen
class AccessEntry(Resource):
    """One principal's access to the Kubernetes API, with one access policy."""

    cluster: Cluster
    principal: str
    """ARN of a role or user; empty for whoever runs this."""
    policy: str
    """ARN; empty for none, where groups are all."""
    namespaces: tuple[str, ...] = ()
    """Where the policy counts; empty for everywhere."""
    groups: tuple[str, ...] = ()
    """Groups of Kubernetes RBAC."""

    kind = "eks/AccessEntry"
    step = "eks"
    goes_at_once = True
    facts = answers = ("policy", "namespaces", "groups")
    later = ("policy", "namespaces")

    @property
    def within(self) -> Resource | None:
        """Entries die with their cluster."""
        return self.cluster

    def find(self, look: Look) -> Sequence[Live]:
        """By principal."""
        principal = self.principal or caller(look)
        with absent("ResourceNotFoundException"):
            if look.told(("eks", self.cluster.name)) == []:  # no need to ask
                return []
            it: Any = {"clusterName": self.cluster.name, "principalArn": principal}
            describe = partial(look.aws.eks.describe_access_entry, **it)
            if look.bare:
                entry = describe()["accessEntry"]
                signed = owner(entry.get("tags", {}))
                return [Live(principal, entry["accessEntryArn"], owner=signed)]
            answer, policies = together(
                describe,
                partial(
                    look.all,
                    look.aws.eks,
                    "list_associated_access_policies",
                    "associatedAccessPolicies",
                    **it,
                ),
            )
            entry = answer["accessEntry"]
            scopes = {p["policyArn"]: _namespaces(p["accessScope"]) for p in policies}
            facts: dict[str, Any] = {
                "policy": self.policy if self.policy in scopes else next(iter(scopes), None),
                "namespaces": scopes.get(self.policy, None if self.policy else frozenset()),
                "groups": frozenset(entry.get("kubernetesGroups", ())),
            }
            return [
                Live(
                    principal,
                    entry["accessEntryArn"],
                    owner=owner(entry.get("tags", {})),
                    facts=facts,
                    attributes={"policies": list(scopes)},
                )
            ]
        return []

    def expected(self, name: str, known: Known) -> Any:
        """Namespaces and groups have no order."""
        value = super().expected(name, known)
        if name == "policy":
            return value or None
        return frozenset(value) if name in ("namespaces", "groups") else value

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token."""
        entry = aws.eks.create_access_entry(
            clusterName=self.cluster.name,
            principalArn=self.principal or caller(Look(aws)),
            type="STANDARD",
            kubernetesGroups=list(self.groups),
            clientRequestToken=token,
            tags=aws.tags(self.label),
        )["accessEntry"]
        return Live(
            entry["principalArn"],
            entry["accessEntryArn"],
            owner=aws.lineage,
            facts={
                "policy": None,
                "namespaces": None if self.policy else frozenset(),
                "groups": frozenset(entry.get("kubernetesGroups") or ()),
            },
            attributes={"policies": []},
        )

    def settle(self, aws: Aws, known: Known, live: Live, differs: Differs) -> Live:
        """Associate the policy; the same association twice succeeds."""
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        about: Any = {"clusterName": self.cluster.name, "principalArn": live.id}
        if live.facts["groups"] != frozenset(self.groups):
            aws.eks.update_access_entry(**about, kubernetesGroups=list(self.groups))
        scope: Any = {"type": "cluster"}
        if self.namespaces:
            scope = {"type": "namespace", "namespaces": list(self.namespaces)}
        found: Mapping[str, Any] = {}
        if self.policy:
            found = aws.eks.associate_access_policy(
                **about, policyArn=self.policy, accessScope=scope
            )["associatedAccessPolicy"]
        if live.facts["policy"] not in (None, self.policy):  # what somebody else added stays
            aws.eks.disassociate_access_policy(**about, policyArn=live.facts["policy"])
        facts = {
            "policy": found.get("policyArn"),
            "namespaces": _namespaces(found.get("accessScope") or scope),
            "groups": frozenset(self.groups),
        }
        return replace(live, owner=aws.lineage, facts=facts)

    def delete(self, aws: Aws, live: Live) -> None:
        """Takes its associations with it."""
        aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=live.id)


@frozen
class NodesEntry(Resource):
    """The access entry that HyperPod makes for the nodes' role, and leaves behind.

    It dies with an EKS cluster of ours; in somebody's it would stay.  That of the service-linked
    role does stay: AWS lets nobody else delete it.
    """

    cluster: Cluster
    role: str
    """Name of the role."""

    kind = "eks/NodesEntry"
    step = "eks"
    goes_at_once = True
    made = False

    @property
    def source(self) -> str:
        """Ours if the nodes were."""
        return "hyperpod/cluster"

    @property
    def within(self) -> Resource | None:
        """Entries die with their cluster."""
        return self.cluster

    def find(self, look: Look) -> Sequence[Live]:
        """By the role's name among all principals."""
        with absent("ResourceNotFoundException"):
            found = look.all(
                look.aws.eks, "list_access_entries", "accessEntries", clusterName=self.cluster.name
            )
            return [Live(arn) for arn in found if arn.endswith(f"/{self.role}")]
        return []

    def delete(self, aws: Aws, live: Live) -> None:
        """After the nodes."""
        aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=live.id)


@frozen
class CallersEntries(Resource):
    """The access entries that create made in somebody's cluster for others who ran it.

    The one of whoever runs a delete goes before, when helm's work is done.
    """

    cluster: Cluster

    kind = "eks/CallersEntries"
    step = "eks"
    made = False

    @property
    def within(self) -> Resource | None:
        """Entries die with their cluster."""
        return self.cluster

    def find(self, look: Look) -> Sequence[Live]:
        """By our tags, which each must be asked for."""
        with absent("ResourceNotFoundException"):
            eks, about = look.aws.eks, {"clusterName": self.cluster.name}
            every = look.all(eks, "list_access_entries", "accessEntries", **about)
            answers = together(
                *(partial(eks.describe_access_entry, **about, principalArn=arn) for arn in every)
            )
            entries = [answer["accessEntry"] for answer in answers]
            ours = [e["principalArn"] for e in entries if owner(e["tags"]) == look.aws.lineage]
            if ours:
                return [Live(", ".join(ours), owner=look.aws.lineage, attributes={"ours": ours})]
        return []

    def delete(self, aws: Aws, live: Live) -> None:
        """One call each."""
        for arn in live.attributes["ours"]:
            aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=arn)


def _namespaces(scope: Mapping[str, Any]) -> frozenset[str]:
    """Read a policy's scope; empty for the whole cluster."""
    return frozenset(scope.get("namespaces", ()) if scope["type"] == "namespace" else ())


def administrators(look: Look, name: str) -> list[str]:
    """Name the principals whom runs of create made administrators of a cluster, by our tags."""
    with absent("ResourceNotFoundException"):
        about = {"clusterName": name}
        every = look.all(look.aws.eks, "list_access_entries", "accessEntries", **about)
        ask = look.aws.eks.describe_access_entry
        answers = together(*(partial(ask, **about, principalArn=arn) for arn in every))
        entries = [answer["accessEntry"] for answer in answers]
        return [
            entry["principalArn"]
            for entry in entries
            if owner(tags := entry.get("tags") or {}) == look.aws.lineage
            and tag(tags, LABEL) == CALLER
        ]
    return []


def caller(look: Look) -> str:
    """Find the IAM principal behind the caller, as an access entry wants it.

    STS answers for an assumed role with an ARN that has lost the role's path
    (``arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION``); ``iam:GetRole`` gives it back, which SSO
    roles (``/aws-reserved/sso.amazonaws.com/...``) need.  Raises Usage for the root user, which
    cannot have an entry, and Denied when the role may not be read.
    """
    arn = look.aws.identity.arn
    if arn.endswith(":root"):
        raise Usage(
            "the root user cannot have access to an EKS cluster",
            "Run this as a role or an IAM user.",
        )
    role = re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.+", arn)
    if not role:
        return arn

    def ask() -> str:
        from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

        try:
            return str(look.aws.iam.get_role(RoleName=role[1])["Role"]["Arn"])
        except ClientError as error:
            raise Denied(
                f"cannot read your own role {role[1]}: {error}",
                "Allow iam:GetRole on it; EKS needs the role's full ARN for the access entry.",
            ) from error

    if not look.aws.principal:
        look.aws.principal = look.once("caller", ask)
    return look.aws.principal
