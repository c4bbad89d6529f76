"""EKS add-ons, and their roles by pod identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.published import BROKEN_ADDONS, broken, numbers
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.config import variables
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.base import (
    MINUTE,
    Differs,
    Fact,
    Facts,
    Live,
    NotReady,
    References,
    Resource,
    State,
)
from hyperpod_eks.resources.eks import Cluster, arns
from hyperpod_eks.resources.permissions import Conditions, Statement, Statements, actions, look

KUBERNETES = "hyperpod-eks:kubernetes"
"""Tag with the Kubernetes version that the add-on's default version was chosen for."""
STATES = {
    "ACTIVE": State.READY,
    "CREATE_FAILED": State.FAILED,
    "DELETE_FAILED": State.FAILED,
    "UPDATE_FAILED": State.READY,  # the old version works on; the difference shows as drift
    "DELETING": State.LEAVING,
}
NO_NODES = "InsufficientNumberOfReplicas"
"""The AddonIssue code of a Deployment whose pods do not run: without nodes, none does."""
DEPLOYMENTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "coredns": (("kube-system", "coredns"),),
    "metrics-server": (("kube-system", "metrics-server"),),
    "cert-manager": (
        ("cert-manager", "cert-manager"),
        ("cert-manager", "cert-manager-cainjector"),
        ("cert-manager", "cert-manager-webhook"),
    ),
    "aws-ebs-csi-driver": (("kube-system", "ebs-csi-controller"),),
    "aws-efs-csi-driver": (("kube-system", "efs-csi-controller"),),
    "aws-fsx-csi-driver": (("kube-system", "fsx-csi-controller"),),
    "amazon-sagemaker-hyperpod-taskgovernance": (("kueue-system", "kueue-controller-manager"),),
    "amazon-sagemaker-hyperpod-training-operator": (
        ("aws-hyperpod", "hp-training-operator-hp-training-controller-manager"),
    ),
}
"""Namespace and name of what add-ons run as Deployments: the manifests of their projects, and for
the last two the SageMaker developer guide.  Of one that is not listed, EKS's word alone counts."""


CREATE = actions("eks", "CreateAddon", "DescribeAddon", "ListAddons", "UpdateAddon")
POD_ROLES = actions(
    "eks",
    "CreatePodIdentityAssociation",
    "DeletePodIdentityAssociation",
    "DescribePodIdentityAssociation",
    "UpdatePodIdentityAssociation",
)


@frozen
class PodIdentity(Resource):
    """An association of a service account with a role, before the add-on that works under it.

    For versions whose ``requiresIamPermissions`` is false: CreateAddon refuses associations then
    ("Pod Identity feature is not supported for addon version"), and a standalone one works for
    every version (SageMaker developer guide, "Installing the training operator").
    """

    cluster: Cluster
    namespace: str
    account: str
    role: str
    """ARN."""

    kind = "addons/PodIdentity"
    step = "addons"
    deleted_at_once = True
    facts = answers = ("role",)

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Where an add-on has a role."""
        roles = {
            str(each["role_arn"])
            for addon in resolved.config.addons.values()
            for each in addon.pod_identity_associations
        }
        if not roles:
            return
        cluster = resolved.arn("eks", f"cluster/{resolved.eks_name}")
        places = (cluster, resolved.arn("eks", f"podidentityassociation/{resolved.eks_name}/*"))
        to_pods: Conditions = {"StringEquals": {"iam:PassedToService": ["pods.eks.amazonaws.com"]}}
        yield Statement("PodRoles", POD_ROLES, places)
        yield Statement("PodRolesList", ("eks:ListPodIdentityAssociations",), (cluster,))
        yield Statement("PodRolesPass", ("iam:PassRole",), tuple(sorted(roles)), to_pods)

    @property
    def deleted_with(self) -> Resource | None:
        """Associations die with their cluster."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """By namespace and service account, of which a cluster has one."""
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", self.cluster.name)) == []:  # no need to ask
                return []
            listed = snapshot.aws.eks.list_pod_identity_associations(
                clusterName=self.cluster.name, namespace=self.namespace, serviceAccount=self.account
            )["associations"]
            return [
                self._live(
                    snapshot.aws.eks.describe_pod_identity_association(
                        clusterName=self.cluster.name, associationId=each["associationId"]
                    )["association"]
                )
                for each in listed
            ]
        return []

    def _live(self, found: JsonMapping) -> Live:
        return Live(
            found["associationId"],
            found["associationArn"],
            owner=owner(found.get("tags") or {}),
            facts={"role": found["roleArn"]},
        )

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Idempotent by its token."""
        return self._live(
            aws.eks.create_pod_identity_association(
                clusterName=self.cluster.name,
                namespace=self.namespace,
                serviceAccount=self.account,
                roleArn=self.role,
                clientRequestToken=token,
                tags=aws.tags(self.label),
            )["association"]
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Give it another role, or our tags."""
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        if "role" in differs:
            aws.eks.update_pod_identity_association(
                clusterName=self.cluster.name, associationId=live.id, roleArn=self.role
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Pods keep what they have until it expires."""
        aws.eks.delete_pod_identity_association(
            clusterName=self.cluster.name, associationId=live.id
        )


@frozen
class Addon(Resource):
    """An add-on, at the version that AWS calls the default, or as configured.

    One that runs as a Deployment stays DEGRADED until there are nodes, and EKS sets some of them to
    CREATE_FAILED meanwhile: it is busy, not failed, and waited for only once nodes have come.  EKS
    looks at it seldom then, so that Kubernetes is asked whether its Deployments are Available.
    """

    cluster: Cluster
    version: str
    """Empty for the default of the cluster's Kubernetes version; then any is as declared."""
    configuration: str
    """JSON, in which references to variables are as they were written."""
    roles: tuple[tuple[str, str], ...] = ()
    """Service accounts, each with the ARN of its role (EKS Pod Identity)."""
    nodeless: bool = False
    """Whether no node is declared, so that what wants one is as declared without."""

    kind = "addons/Addon"
    step = "addons"
    absence: ClassVar[Facts] = {
        "roles": (),  # Addon.podIdentityAssociations: those that it owns
    }
    patience = 20 * MINUTE
    usual = "1 min"
    typical = 40.0

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Those of the cluster."""
        own = arns(resolved)
        yield look("eks", "DescribeAddonConfiguration", "DescribeAddonVersions")
        yield Statement("EksMake", CREATE, own)
        yield Statement("EksDelete", ("eks:DeleteAddon",), own, command="delete")

    @property
    def answers(self) -> tuple[str, ...]:  # type: ignore[override]  # a property, not a constant
        """Of associations AWS answers the ids."""
        return tuple(name for name in self.names() if name != "roles" or not self.roles)

    @property
    def deleted_with(self) -> Resource | None:
        """Add-ons die with their cluster."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """By name."""
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", self.cluster.name)) == []:  # no need to ask
                return []
            found = snapshot.aws.eks.describe_addon(
                clusterName=self.cluster.name, addonName=self.label
            )["addon"]
            live = self._live(found, self._roles(snapshot.aws, found))
            return [self._by_nodes(snapshot, live) if live.wants_nodes else live]
        return []

    def _by_nodes(self, snapshot: Snapshot, live: Live) -> Live:
        """Judge what lacks replicas by what Kubernetes says, and by the nodes that are declared."""
        if self.nodeless:
            why = f"{live.why} (it starts with the first node, and no node is declared)"
            return replace(live, state=State.READY, why=why, wants_nodes=False)
        deployments, access = DEPLOYMENTS.get(self.label), eks.access(snapshot, self.cluster.name)
        with suppress(kube.KubeNotReady):
            if access and deployments and kube.available(access, deployments):
                status, names = (
                    live.attributes["status"],
                    ", ".join(name for _, name in deployments),
                )
                why = f"Deployment {names} is Available; EKS still says {status}"
                return replace(live, state=State.READY, why=why, wants_nodes=False, lags=True)
        return live

    def _roles(self, aws: Aws, found: JsonMapping) -> tuple[tuple[str, str], ...]:
        """Ask for the roles behind the associations that an add-on owns."""
        about = [
            aws.eks.describe_pod_identity_association(
                clusterName=self.cluster.name, associationId=arn.rpartition("/")[2]
            )["association"]
            for arn in found.get("podIdentityAssociations") or ()
        ]
        return tuple(sorted((each["serviceAccount"], each["roleArn"]) for each in about))

    def _live(self, found: JsonMapping, roles: tuple[tuple[str, str], ...]) -> Live:
        issues = found.get("health", {}).get("issues", ())
        words = "; ".join(f"{issue['code']}: {issue.get('message', '')}" for issue in issues)
        codes = {issue["code"] for issue in issues}
        lacks = codes == {NO_NODES} or (not codes and self.label in DEPLOYMENTS)
        wants_nodes = lacks and found["status"] in ("CREATING", "DEGRADED", "CREATE_FAILED")
        state = State.BUSY if wants_nodes else STATES.get(found["status"], State.BUSY)
        return Live(
            self.label,
            found["addonArn"],
            owner=owner(found.get("tags", {})),
            state=state,
            wants_nodes=wants_nodes,
            warnings=self._warnings(found.get("addonVersion") or ""),
            why=f"{found['status']} {words}".strip()
            if found["status"] != "ACTIVE"
            else found.get("addonVersion", ""),
            facts=dict(self._described(found, roles)),
            attributes={
                "version": found.get("addonVersion"),
                "status": found["status"],
                "issues": [dict(issue) for issue in issues],
            },
        )

    def _warnings(self, version: str) -> tuple[str, ...]:
        if not (bad := broken(self.label, version)):
            return ()
        warning = (
            f"the add-on {self.label} runs {version}, which {bad}: set"
            f" addons.{self.label}.version to another version, then run create"
        )
        return (warning,)

    def _described(self, found: JsonMapping, roles: Fact) -> Iterator[tuple[str, Fact]]:
        """Spell a description as facts."""
        if values := found.get("configurationValues"):
            yield "configuration", self._digested(_values(values))
        if found.get("podIdentityAssociations") is not None:
            yield "roles", roles
        if self.version and found.get("addonVersion"):
            yield "version", found["addonVersion"]
        elif KUBERNETES in found.get("tags", {}):
            yield "kubernetes", found["tags"][KUBERNETES]

    def names(self, live: Live | None = None) -> Iterable[str]:
        """The version, or the Kubernetes version that its default was chosen for."""
        configuration = ("configuration",) if self.configuration not in ("", "{}") else ()
        return (*configuration, "roles", "version" if self.version else "kubernetes")

    def reverts(self, name: str) -> bool:
        """Settings that were declared once."""
        return name == "configuration"

    def expected(self, name: str, references: References) -> Fact:
        """A default version is that of the control plane's Kubernetes version.

        A reference to a variable counts by its value, of which a digest is compared and kept.
        """
        if name == "configuration":
            try:
                return self._digested(self._configuration())
            except Usage as error:  # a command that sends nothing goes without
                raise NotReady(str(error)) from error
        if name == "kubernetes":
            return references(self.cluster).attributes["version"]
        return super().expected(name, references)

    def _configuration(self) -> Json:
        setting = f"addons.{self.label}.configuration_values"
        return variables.resolved(json.loads(self.configuration or "{}"), setting)

    def _digested(self, values: Json) -> str:
        declared = json.loads(self.configuration or "{}")
        return json.dumps(variables.digested(values, declared), sort_keys=True)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Idempotent by its token; where no version is named, EKS takes its default."""
        said = ""
        request: JsonObject = {
            "clusterName": self.cluster.name,
            "addonName": self.label,
            "resolveConflicts": "OVERWRITE",
            "clientRequestToken": token,
            "tags": {
                **aws.tags(self.label),
                KUBERNETES: references(self.cluster).attributes["version"],
            },
        }
        if self.version:
            request["addonVersion"] = self.version
        elif self.label in BROKEN_ADDONS:  # EKS would take its default unseen
            kubernetes = references(self.cluster).attributes["version"]
            request["addonVersion"], said = default_version(aws, self.label, kubernetes)
        if self.configuration != "{}":
            request["configurationValues"] = json.dumps(self._configuration(), sort_keys=True)
        if self.roles:
            request["podIdentityAssociations"] = self._associations()
        live = self._live(aws.eks.create_addon(**request)["addon"], self.roles)
        return replace(live, warnings=(said,) if said else ())

    def _associations(self) -> list[dict[str, str]]:
        return [{"serviceAccount": account, "roleArn": role} for account, role in self.roles]

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Change what differs; what somebody changed in Kubernetes is preserved."""
        request: JsonObject = {"resolveConflicts": "PRESERVE"}
        kubernetes = references(self.cluster).attributes["version"]
        if self.version:
            request["addonVersion"] = self.version
        elif "kubernetes" in differs:
            request["addonVersion"], _ = default_version(aws, self.label, kubernetes)
            aws.eks.tag_resource(resourceArn=live.arn, tags={KUBERNETES: kubernetes})
        if "configuration" in differs:
            request["configurationValues"] = json.dumps(self._configuration(), sort_keys=True)
        if "roles" in differs:
            request["podIdentityAssociations"] = self._associations()
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        aws.eks.update_addon(clusterName=self.cluster.name, addonName=self.label, **request)

    def nudge(self, aws: Aws, live: Live) -> None:
        """Update to the version that it has: EKS looks at it again."""
        with suppress(Exception):
            aws.eks.update_addon(
                clusterName=self.cluster.name,
                addonName=self.label,
                addonVersion=live.attributes["version"],
                resolveConflicts="PRESERVE",
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Kubernetes objects go with it."""
        aws.eks.delete_addon(clusterName=self.cluster.name, addonName=self.label)


def _values(text: str) -> Json:
    """Read what an add-on is configured with: ours is JSON, theirs may be YAML."""
    try:
        return json.loads(text)
    except ValueError:
        import yaml  # noqa: PLC0415  costs 12 ms

        return yaml.safe_load(text)


def default_version(aws: Aws, addon: str, kubernetes: str) -> tuple[str, str]:
    """Ask EKS which version of an add-on is the default for a Kubernetes version.

    Where that is one that is broken on HyperPod (``published.BROKEN_ADDONS``), the newest that is
    not takes its place, if there is any, and the second value says so.
    """
    addons = aws.eks.describe_addon_versions(addonName=addon, kubernetesVersion=kubernetes)[
        "addons"
    ]
    offered = addons[0]["addonVersions"] if addons else ()
    good = [v["addonVersion"] for v in offered if not broken(addon, v["addonVersion"])]
    for version in offered:
        if any(c.get("defaultVersion") for c in version.get("compatibilities", ())):
            default = str(version["addonVersion"])
            best = max(good, key=numbers, default=default)
            if default in good or best == default:
                return default, ""
            why = f"EKS's default, {default}, {broken(addon, default)}"
            return best, f"the add-on {addon} becomes {best}: {why}"
    raise HyperpodError(
        f"EKS has no default version of the add-on {addon} for Kubernetes {kubernetes}",
        f"Set one in the config: addons.{addon}.version.",
    )
