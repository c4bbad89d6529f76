"""EKS add-ons, and their IAM roles by EKS Pod Identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.addon_needs import OPERATED
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.published import BROKEN_ADDONS, broken, no_upgrade, numbers
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.config import variables
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.kube import client as kube
from hyperpod_eks.kube.access import Access
from hyperpod_eks.kube.contents import Contents, objects_of
from hyperpod_eks.resolve.pod_roles import pod_roles
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
from hyperpod_eks.workers import gather

KUBERNETES = "hyperpod-eks:kubernetes"
"""Tag: the Kubernetes version for which the add-on's default version was chosen."""
STATES = {
    "ACTIVE": State.READY,
    "CREATE_FAILED": State.FAILED,
    "DELETE_FAILED": State.FAILED,
    "UPDATE_FAILED": State.READY,  # the old version still works; compare shows drift
    "DELETING": State.LEAVING,
}
NO_NODES = "InsufficientNumberOfReplicas"
"""The AddonIssue code of a Deployment whose pods do not run, as without nodes."""
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
"""Namespace and name of the add-ons' Deployments: the manifests of their projects, and for the last
two the SageMaker developer guide.  For other add-ons only EKS's status counts."""


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
    """A service account's association with a role: a workload's, or an add-on's.

    An add-on's is created before it, for versions whose ``requiresIamPermissions`` is false:
    CreateAddon refuses associations for them ("Pod Identity feature is not supported for addon
    version"), and a separate one works for every version (SageMaker developer guide, "Installing
    the training operator").
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
        """Actions on associations, if a service account has a role."""
        roles = {
            str(each["role_arn"])
            for addon in resolved.config.asked_addons().values()
            for each in addon.pod_identity_associations or ()
        }
        roles |= {each.role_arn for each in resolved.config.pod_identity if each.role_arn}
        roles |= {one.role_arn(resolved) for one in pod_roles(resolved) if not one.web}
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
        """The cluster: EKS deletes its associations with it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by namespace and service account, which have at most one."""
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", self.cluster.name)) == []:  # no cluster, so none in it
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
        """Create it; idempotent by client token."""
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
        """Set its role or our tags."""
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        if "role" in differs:
            aws.eks.update_pod_identity_association(
                clusterName=self.cluster.name, associationId=live.id, roleArn=self.role
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it; pods keep their credentials until these expire."""
        aws.eks.delete_pod_identity_association(
            clusterName=self.cluster.name, associationId=live.id
        )


def works(access: Access, name: str) -> bool:
    """Whether all Deployments of an add-on are Available, whatever EKS still says of it.

    EKS looks at an add-on that lacked replicas every quarter of an hour or so
    (aws-ia/terraform-aws-eks-blueprints, #642).  Raises as `kube.available`.
    """
    return name in DEPLOYMENTS and kube.available(access, DEPLOYMENTS[name])


@frozen
class Addon(Resource):
    """An add-on, at its configured or its default version.

    An add-on that is a Deployment is DEGRADED or even CREATE_FAILED until nodes join: here it is
    busy, not failed, and is waited for only once nodes have joined.  EKS updates its status rarely
    then, so its Deployments are also read from Kubernetes: Available ones mean ready.
    """

    cluster: Cluster
    version: str
    """Empty for the default of the cluster's Kubernetes version; any version matches then."""
    configuration: str
    """JSON, with references to variables (``${env:NAME}``) unresolved."""
    roles: tuple[tuple[str, str], ...] = ()
    """Pairs of a service account and its role's ARN (EKS Pod Identity)."""
    nodeless: bool = False
    """Whether no node is declared, so that an add-on that lacks nodes counts as ready."""

    kind = "addons/Addon"
    step = "addons"
    absence: ClassVar[Facts] = {
        "roles": (),  # Addon.podIdentityAssociations: all that it owns
    }
    patience = 20 * MINUTE
    usual = "1 min"
    typical = 40.0

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the cluster's ARNs, and reads of versions."""
        own = arns(resolved)
        yield look("eks", "DescribeAddonConfiguration", "DescribeAddonVersions")
        yield Statement("EksMake", CREATE, own)
        yield Statement("EksDelete", ("eks:DeleteAddon",), own, command="delete")

    @property
    def answers(self) -> tuple[str, ...]:  # type: ignore[override]  # a property, not a constant
        """All facts but declared roles: for those AWS answers with ids of associations."""
        return tuple(name for name in self.names() if name != "roles" or not self.roles)

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster: EKS deletes its add-ons with it."""
        return self.cluster

    @property
    def leaves(self) -> str:
        """What it has created for objects, and deletes with them only."""
        if (its := OPERATED.get(self.label)) is None:
            return ""
        command = f"kubectl delete {','.join(its.plurals)} --all -A"
        return f"while it has objects ({{}}), whose {its.left} are left then; first run: {command}"

    def contents(self, snapshot: Snapshot) -> Contents | None:
        """Return the objects for which it has created something."""
        its, access = OPERATED.get(self.label), None
        if its:
            access = eks.access(snapshot, self.cluster.name)
        return objects_of(access, its.group, its.plurals) if its and access else None

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", self.cluster.name)) == []:  # no cluster, so none in it
                return []
            found = snapshot.aws.eks.describe_addon(
                clusterName=self.cluster.name, addonName=self.label
            )["addon"]
            live = self._live(found, self._roles(snapshot.aws, found))
            return [self._by_nodes(snapshot, live) if live.wants_nodes else live]
        return []

    def _by_nodes(self, snapshot: Snapshot, live: Live) -> Live:
        """Mark an add-on without replicas READY if no node is declared or Kubernetes says so."""
        if self.nodeless:
            why = f"{live.why} (it starts with the first node, and no node is declared)"
            return replace(live, state=State.READY, why=why, wants_nodes=False)
        access = eks.access(snapshot, self.cluster.name)
        with suppress(kube.KubeNotReady):
            if access and works(access, self.label):
                status = live.attributes["status"]
                names = ", ".join(name for _, name in DEPLOYMENTS[self.label])
                why = f"Deployment {names} is Available; EKS still says {status}"
                return replace(live, state=State.READY, why=why, wants_nodes=False, lags=True)
        return live

    def _roles(self, aws: Aws, found: JsonMapping) -> tuple[tuple[str, str], ...]:
        """Return service accounts and roles of the associations that an add-on owns."""
        describe = partial(aws.eks.describe_pod_identity_association, clusterName=self.cluster.name)
        ids = [arn.rpartition("/")[2] for arn in found.get("podIdentityAssociations") or ()]
        answers = gather(*(partial(describe, associationId=id_) for id_ in ids))
        about = [answer["association"] for answer in answers]
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
        """Yield the facts of a described add-on."""
        if values := found.get("configurationValues"):
            yield "configuration", self._digested(_values(values))
        if found.get("podIdentityAssociations") is not None:
            yield "roles", roles
        if self.version and found.get("addonVersion"):
            yield "version", found["addonVersion"]
        elif KUBERNETES in found.get("tags", {}):
            yield "kubernetes", found["tags"][KUBERNETES]

    def names(self, live: Live | None = None) -> Iterable[str]:
        """The configuration, roles, and the version or, for a default, the Kubernetes version."""
        configuration = ("configuration",) if self.configuration not in ("", "{}") else ()
        return (*configuration, "roles", "version" if self.version else "kubernetes")

    def reverts(self, name: str) -> bool:
        """Only the configuration is reset."""
        return name == "configuration"

    def expected(self, name: str, references: References) -> Fact:
        """The declared value; ``kubernetes`` is the control plane's version.

        References to variables are resolved, and their values replaced by digests.
        """
        if name == "configuration":
            try:
                return self._digested(self._configuration(references))
            except Usage as error:  # a command that sends nothing needs no value
                raise NotReady(str(error)) from error
        if name == "kubernetes":
            return references(self.cluster).attributes["version"]
        return super().expected(name, references)

    def filled(self, references: References) -> Json:
        """Return the configuration, with references to variables; may raise NotReady."""
        return json.loads(self.configuration or "{}")

    def _configuration(self, references: References) -> Json:
        setting = f"addons.{self.label}.configuration_values"
        return variables.resolved(self.filled(references), setting)

    def _sent(self, references: References) -> str:
        return json.dumps(self._configuration(references), sort_keys=True)

    def _digested(self, values: Json) -> str:
        declared = json.loads(self.configuration or "{}")
        return json.dumps(variables.digested(values, declared), sort_keys=True)

    def immutable_reason(self, name: str, differs: Differs) -> str:
        """Return why EKS does not update it from its version to the declared one."""
        if name != "version":
            return ""
        is_, declared = differs[name]
        return no_upgrade(self.label, str(is_ or ""), str(declared or ""))

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; idempotent by client token.  Without a version EKS chooses its default."""
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
        elif self.label in BROKEN_ADDONS:  # EKS's own choice might be a broken version
            kubernetes = references(self.cluster).attributes["version"]
            request["addonVersion"], said = default_version(aws, self.label, kubernetes)
        if self.configuration != "{}":
            request["configurationValues"] = self._sent(references)
        if self.roles:
            request["podIdentityAssociations"] = self._associations()
        live = self._live(aws.eks.create_addon(**request)["addon"], self.roles)
        return replace(live, warnings=(said,) if said else ())

    def _associations(self) -> list[dict[str, str]]:
        return [{"serviceAccount": account, "roleArn": role} for account, role in self.roles]

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Change what differs; changes that others made in Kubernetes are preserved."""
        request: JsonObject = {"resolveConflicts": "PRESERVE"}
        kubernetes = references(self.cluster).attributes["version"]
        if self.version:
            request["addonVersion"] = self.version
        elif "kubernetes" in differs:
            request["addonVersion"], _ = default_version(aws, self.label, kubernetes)
            is_ = str(live.attributes.get("version") or "")
            if why := no_upgrade(self.label, is_, request["addonVersion"]):
                raise Usage(f"{self.key}: it stays at {is_}: {why}", setting=f"addons.{self.label}")
            aws.eks.tag_resource(resourceArn=live.arn, tags={KUBERNETES: kubernetes})
        if "configuration" in differs:
            request["configurationValues"] = self._sent(references)
        if "roles" in differs:
            request["podIdentityAssociations"] = self._associations()
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        aws.eks.update_addon(clusterName=self.cluster.name, addonName=self.label, **request)

    def nudge(self, aws: Aws, live: Live) -> None:
        """Update it to its own version, so that EKS reads its status again; ignore errors."""
        with suppress(Exception):
            aws.eks.update_addon(
                clusterName=self.cluster.name,
                addonName=self.label,
                addonVersion=live.attributes["version"],
                resolveConflicts="PRESERVE",
            )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it and its Kubernetes objects."""
        aws.eks.delete_addon(clusterName=self.cluster.name, addonName=self.label)


def _values(text: str) -> Json:
    """Parse an add-on's configuration: JSON if we wrote it, otherwise perhaps YAML."""
    try:
        return json.loads(text)
    except ValueError:
        import yaml  # noqa: PLC0415  costs 12 ms

        return yaml.safe_load(text)


def default_version(aws: Aws, addon: str, kubernetes: str) -> tuple[str, str]:
    """Return EKS's default version of an add-on for a Kubernetes version, and a warning or "".

    A default that does not work on HyperPod (``published.BROKEN_ADDONS``) is replaced by the newest
    version that does, if there is one, with a warning.  Raises HyperpodError without a default.
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
