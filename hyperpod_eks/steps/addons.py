"""The EKS add-ons that a HyperPod cluster cannot do without, and others that are asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hyperpod_eks.aws import Aws, Look, absent, owner
from hyperpod_eks.config import NEEDED_ADDONS
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resource import MINUTE, Known, Live, Resource, State
from hyperpod_eks.site import Site
from hyperpod_eks.steps.eks import Cluster

KUBERNETES = "hyperpod-eks:kubernetes"
"""Tag with the Kubernetes version that the add-on's default version was chosen for."""
STATES = {
    "ACTIVE": State.READY,
    "CREATE_FAILED": State.FAILED,
    "DELETE_FAILED": State.FAILED,
    "UPDATE_FAILED": State.READY,  # the old version works on; the difference shows as drift
    "DELETING": State.LEAVING,
}


def step(site: Site, cluster: Cluster) -> tuple[Addon, ...]:
    """Declare the add-ons; vpc-cni first, for the nodes wait for it.

    Those that HyperPod needs come at once, others one after the other: some need one before them
    (the training operator needs cert-manager).
    """
    found: list[Addon] = []
    for name, addon in site.config.every_addon().items():
        # of somebody's cluster, only what is there or asked for
        if site.eks_is_theirs and not (
            f"addons/{name}" in site.adopted or name in site.config.addons
        ):
            continue
        others = [each for each in found if each.label not in NEEDED_ADDONS]
        found.append(
            Addon(
                name,
                cluster=cluster,
                version=addon.version or "",
                configuration=json.dumps(dict(addon.configuration_values), sort_keys=True),
                roles=tuple(
                    sorted(
                        (str(each["service_account"]), str(each["role_arn"]))
                        for each in addon.pod_identity_associations
                    )
                ),
                after=tuple(others[-1:]),
            )
        )
    return tuple(found)


@frozen
class Addon(Resource):
    """An add-on, at the version that AWS calls the default, or as configured.

    coredns stays DEGRADED (InsufficientNumberOfReplicas) until nodes exist, so that it is busy
    and not failed; nothing waits for it but the end of the run.
    """

    cluster: Cluster
    version: str
    """Empty for the default of the cluster's Kubernetes version; then any is as declared."""
    configuration: str
    """JSON."""
    roles: tuple[tuple[str, str], ...] = ()
    """Service accounts, each with the ARN of its role (EKS Pod Identity)."""

    step = "addons"
    patience = 20 * MINUTE
    usual = "1 min"
    typical = 40.0

    @property
    def within(self) -> Resource | None:
        """Add-ons die with their cluster."""
        return self.cluster

    def find(self, look: Look) -> Sequence[Live]:
        """By name."""
        with absent("ResourceNotFoundException"):
            if look.told(("eks", self.cluster.name)) == []:  # no need to ask
                return []
            found = look.aws.eks.describe_addon(
                clusterName=self.cluster.name, addonName=self.label
            )["addon"]
            return [self._live(found, self._roles(look.aws, found))]
        return []

    def _roles(self, aws: Aws, found: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
        """Ask for the roles behind the associations that an add-on owns."""
        about = [
            aws.eks.describe_pod_identity_association(
                clusterName=self.cluster.name, associationId=arn.rpartition("/")[2]
            )["association"]
            for arn in found.get("podIdentityAssociations") or ()
        ]
        return tuple(sorted((each["serviceAccount"], each["roleArn"]) for each in about))

    def _live(self, found: Mapping[str, Any], roles: tuple[tuple[str, str], ...]) -> Live:
        issues = found.get("health", {}).get("issues", ())
        words = "; ".join(f"{issue['code']}: {issue.get('message', '')}" for issue in issues)
        values = _values(found.get("configurationValues") or "{}")
        facts: dict[str, Any] = {
            "configuration": json.dumps(values, sort_keys=True),
            "roles": roles,
        }
        if self.version:
            facts["version"] = found.get("addonVersion")
        elif KUBERNETES in found.get("tags", {}):
            facts["kubernetes"] = found["tags"][KUBERNETES]
        return Live(
            self.label,
            found["addonArn"],
            owner=owner(found.get("tags", {})),
            state=STATES.get(found["status"], State.BUSY),
            why=f"{found['status']} {words}".strip()
            if found["status"] != "ACTIVE"
            else found.get("addonVersion", ""),
            facts=facts,
            attributes={
                "version": found.get("addonVersion"),
                "status": found["status"],
                "issues": [dict(issue) for issue in issues],
            },
        )

    def expected(self, name: str, known: Known) -> Any:
        """A default version is that of the control plane's Kubernetes version."""
        if name == "kubernetes":
            return known(self.cluster).attributes["version"]
        return super().expected(name, known)

    def create(self, aws: Aws, known: Known, token: str) -> Live:
        """Idempotent by its token; where no version is named, EKS takes its default."""
        request: dict[str, Any] = {
            "clusterName": self.cluster.name,
            "addonName": self.label,
            "resolveConflicts": "OVERWRITE",
            "clientRequestToken": token,
            "tags": {
                **aws.tags(self.label),
                KUBERNETES: known(self.cluster).attributes["version"],
            },
        }
        if self.version:
            request["addonVersion"] = self.version
        if self.configuration != "{}":
            request["configurationValues"] = self.configuration
        if self.roles:
            request["podIdentityAssociations"] = self._associations()
        return self._live(aws.eks.create_addon(**request)["addon"], self.roles)

    def _associations(self) -> list[dict[str, str]]:
        return [{"serviceAccount": account, "roleArn": role} for account, role in self.roles]

    def settle(self, aws: Aws, known: Known, live: Live) -> None:
        """Change what differs; what somebody changed in Kubernetes is preserved."""
        request: dict[str, Any] = {"resolveConflicts": "PRESERVE"}
        kubernetes = known(self.cluster).attributes["version"]
        if self.version:
            request["addonVersion"] = self.version
        elif live.facts.get("kubernetes", kubernetes) != kubernetes:
            request["addonVersion"] = default_version(aws, self.label, kubernetes)
            aws.eks.tag_resource(resourceArn=live.arn, tags={KUBERNETES: kubernetes})
        if live.facts["configuration"] != self.configuration:
            request["configurationValues"] = self.configuration
        if live.facts["roles"] != self.roles:
            request["podIdentityAssociations"] = self._associations()
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        aws.eks.update_addon(clusterName=self.cluster.name, addonName=self.label, **request)

    def delete(self, aws: Aws, live: Live) -> None:
        """Kubernetes objects go with it."""
        aws.eks.delete_addon(clusterName=self.cluster.name, addonName=self.label)


def _values(text: str) -> Any:
    """Read what an add-on is configured with: ours is JSON, theirs may be YAML."""
    try:
        return json.loads(text)
    except ValueError:
        import yaml  # noqa: PLC0415  costs 12 ms

        return yaml.safe_load(text)


def default_version(aws: Aws, addon: str, kubernetes: str) -> str:
    """Ask EKS which version of an add-on is the default for a Kubernetes version."""
    addons = aws.eks.describe_addon_versions(addonName=addon, kubernetesVersion=kubernetes)[
        "addons"
    ]
    for version in addons[0]["addonVersions"] if addons else ():
        if any(c.get("defaultVersion") for c in version.get("compatibilities", ())):
            return version["addonVersion"]
    raise HyperpodError(
        f"EKS has no default version of the add-on {addon} for Kubernetes {kubernetes}",
        f"Name one in the config: addons.{addon}.version.",
    )
