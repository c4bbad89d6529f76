"""EKS access entries: which IAM principals may use the Kubernetes API."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import LABEL, owner, tag
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import Denied, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Fact, Facts, Lifecycle, Live, References, Resource
from hyperpod_eks.resources.eks import Cluster, arns
from hyperpod_eks.resources.permissions import Statement, Statements, actions
from hyperpod_eks.workers import gather

CALLER = "access-caller"
"""Label of the access entry for the caller of create."""


CREATE = actions(
    "eks",
    "AssociateAccessPolicy",
    "CreateAccessEntry",
    "DeleteAccessEntry",  # called by HyperPod's UpdateCluster if a group's role changes
    "DescribeAccessEntry",
    "DisassociateAccessPolicy",
    "ListAccessEntries",
    "ListAssociatedAccessPolicies",
    "UpdateAccessEntry",
)


@frozen
class AccessEntry(Resource):
    """One principal's access to the Kubernetes API, with at most one access policy."""

    cluster: Cluster
    principal: str
    """ARN of a role or user; empty for the caller."""
    policy: str
    """ARN of an access policy; empty for groups only."""
    namespaces: tuple[str, ...] = ()
    """Namespaces that the policy applies to; empty for all."""
    groups: tuple[str, ...] = ()
    """Kubernetes RBAC groups."""
    policies_apart: bool = False
    """Whether `AccessPolicy` resources are its policies, so that it has none of its own."""

    kind = "eks/AccessEntry"
    step = "eks"
    absence: ClassVar[Facts] = {
        "policy": None,  # ListAssociatedAccessPolicies lists all of them
    }
    deleted_at_once = True
    facts = answers = ("policy", "namespaces", "groups")
    later = ("policy", "namespaces")
    attached = ("policy",)

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the cluster's ARNs."""
        yield Statement("EksMake", CREATE, arns(resolved))

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster: EKS deletes its entries with it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by principal."""
        principal = self.principal or caller(snapshot)
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", self.cluster.name)) == []:  # no cluster, so no entry
                return []
            if snapshot.bare:
                entry = _described(snapshot, self.cluster, principal)
                signed = owner(entry.get("tags", {}))
                return [Live(principal, entry["accessEntryArn"], owner=signed)]
            entry, associated = gather(
                partial(_described, snapshot, self.cluster, principal),
                partial(_associated, snapshot, self.cluster, principal),
            )
            return [self._live(principal, entry, associated)]
        return []

    def _live(self, principal: str, entry: JsonMapping, associated: Sequence[JsonMapping]) -> Live:
        scopes = {p["policyArn"]: _namespaces(p["accessScope"]) for p in associated}
        facts: JsonObject = {
            "policy": self.policy
            if self.policy in scopes
            else None
            if self.policies_apart
            else next(iter(scopes), None),
            "namespaces": scopes.get(self.policy, None if self.policy else frozenset()),
            "groups": frozenset(entry.get("kubernetesGroups", ())),
        }
        return Live(
            principal,
            entry["accessEntryArn"],
            owner=owner(entry.get("tags", {})),
            facts=facts,
            attributes={"policies": list(scopes)},
        )

    def expected(self, name: str, references: References) -> Fact:
        """Namespaces and groups are sets."""
        value = super().expected(name, references)
        if name == "policy":
            return value or None
        return frozenset(value) if name in ("namespaces", "groups") else value

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create the entry; idempotent by client token."""
        entry = aws.eks.create_access_entry(
            clusterName=self.cluster.name,
            principalArn=self.principal or caller(Snapshot(aws)),
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

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Set groups and policy; a repeated association succeeds."""
        if live.owner is None:
            aws.eks.tag_resource(resourceArn=live.arn, tags=aws.tags(self.label))
        about: JsonObject = {"clusterName": self.cluster.name, "principalArn": live.id}
        if live.facts["groups"] != frozenset(self.groups):
            aws.eks.update_access_entry(**about, kubernetesGroups=list(self.groups))
        scope: Json = {"type": "cluster"}
        if self.namespaces:
            scope = {"type": "namespace", "namespaces": list(self.namespaces)}
        found: JsonMapping = {}
        if self.policy:
            found = aws.eks.associate_access_policy(
                **about, policyArn=self.policy, accessScope=scope
            )["associatedAccessPolicy"]
        if live.facts["policy"] not in (None, self.policy):  # other policies stay
            with absent("ResourceNotFoundException"):
                aws.eks.disassociate_access_policy(**about, policyArn=live.facts["policy"])
        facts = {
            "policy": found.get("policyArn"),
            "namespaces": _namespaces(found.get("accessScope") or scope),
            "groups": frozenset(self.groups),
        }
        return replace(live, owner=aws.lineage, facts=facts)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the entry and, with it, its associations."""
        aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=live.id)


@frozen
class AccessPolicy(Resource):
    """A further access policy of a principal, in namespaces or in the whole cluster.

    An association has no tags: that of our entry is ours.
    """

    entry: AccessEntry
    policy: str
    """ARN."""
    namespaces: tuple[str, ...]
    """Empty for the whole cluster."""

    kind = "eks/AccessPolicy"
    step = "eks"
    schema = 2
    deleted_at_once = True
    facts = answers = ("namespaces",)

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster: EKS deletes its entries with it."""
        return self.entry.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it among the policies of its principal."""
        cluster, principal = self.entry.cluster, self.entry.principal
        with absent("ResourceNotFoundException"):
            if snapshot.peek(("eks", cluster.name)) == []:
                return []
            entry, associated = gather(
                partial(_described, snapshot, cluster, principal),
                partial(_associated, snapshot, cluster, principal),
            )
            signed = owner(entry.get("tags", {}))
            return [self._live(x, signed) for x in associated if x["policyArn"] == self.policy]
        return []

    def _live(self, found: JsonMapping, signed: str | None) -> Live:
        return Live(
            f"{self.entry.principal} {self.policy}",
            owner=signed,
            facts={"namespaces": _namespaces(found["accessScope"])},
        )

    def expected(self, name: str, references: References) -> Fact:
        """A set of namespaces."""
        return frozenset(self.namespaces)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Associate it; may be repeated."""
        scope: Json = {"type": "cluster"}
        if self.namespaces:
            scope = {"type": "namespace", "namespaces": list(self.namespaces)}
        found = aws.eks.associate_access_policy(
            clusterName=self.entry.cluster.name,
            principalArn=self.entry.principal,
            policyArn=self.policy,
            accessScope=scope,
        )["associatedAccessPolicy"]
        return self._live({"accessScope": scope, **found}, aws.lineage)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Associate it with the declared namespaces."""
        return self.create(aws, references, "")

    def delete(self, aws: Aws, live: Live) -> None:
        """Disassociate it."""
        with absent("ResourceNotFoundException"):
            aws.eks.disassociate_access_policy(
                clusterName=self.entry.cluster.name,
                principalArn=self.entry.principal,
                policyArn=self.policy,
            )


def _described(snapshot: Snapshot, cluster: Cluster, principal: str) -> JsonMapping:
    """Describe an entry, once per snapshot."""
    it: JsonObject = {"clusterName": cluster.name, "principalArn": principal}

    def ask() -> JsonMapping:
        found: JsonMapping = snapshot.aws.eks.describe_access_entry(**it)["accessEntry"]
        return found

    return snapshot.once(("access entry", cluster.name, principal), ask)


def _associated(snapshot: Snapshot, cluster: Cluster, principal: str) -> Sequence[JsonMapping]:
    """List the policies of an entry, once per snapshot."""
    listing = ("list_associated_access_policies", "associatedAccessPolicies")
    it: JsonObject = {"clusterName": cluster.name, "principalArn": principal}
    return snapshot.all(snapshot.aws.eks, *listing, **it)


@frozen
class NodesEntry(Resource):
    """The access entry that HyperPod creates for the nodes' role, and does not delete.

    EKS deletes it with an owned cluster; in one that is not owned we delete it.  The entry of the
    service-linked role stays there: only AWS can delete it.
    """

    cluster: Cluster
    role: str
    """Name of the role, without its path."""

    kind = "eks/NodesEntry"
    step = "eks"
    deleted_at_once = True
    lifecycle = Lifecycle.LEFTOVER

    @property
    def source(self) -> str:
        """The HyperPod cluster, whose owner owns the entry."""
        return "hyperpod/cluster"

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster: EKS deletes its entries with it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by the role's name among all principals."""
        with absent("ResourceNotFoundException"):
            found = snapshot.all(
                snapshot.aws.eks,
                "list_access_entries",
                "accessEntries",
                clusterName=self.cluster.name,
            )
            return [Live(arn) for arn in found if arn.endswith(f"/{self.role}")]
        return []

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete the entry, after the nodes are gone."""
        aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=live.id)


@frozen
class CallersEntries(Resource):
    """Access entries that create added, for other callers, to an EKS cluster that is not owned.

    The entry of the delete's own caller is deleted earlier, after the helm step.
    """

    cluster: Cluster

    kind = "eks/CallersEntries"
    step = "eks"
    lifecycle = Lifecycle.LEFTOVER

    @property
    def deleted_with(self) -> Resource | None:
        """The cluster: EKS deletes its entries with it."""
        return self.cluster

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by our tags; reading the tags takes a call per entry."""
        with absent("ResourceNotFoundException"):
            eks, about = snapshot.aws.eks, {"clusterName": self.cluster.name}
            every = snapshot.all(eks, "list_access_entries", "accessEntries", **about)
            answers = gather(
                *(partial(eks.describe_access_entry, **about, principalArn=arn) for arn in every)
            )
            entries = [answer["accessEntry"] for answer in answers]
            ours = [e["principalArn"] for e in entries if owner(e["tags"]) == snapshot.aws.lineage]
            if ours:
                return [
                    Live(", ".join(ours), owner=snapshot.aws.lineage, attributes={"ours": ours})
                ]
        return []

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete them, one call each."""
        for arn in live.attributes["ours"]:
            aws.eks.delete_access_entry(clusterName=self.cluster.name, principalArn=arn)


def _namespaces(scope: JsonMapping) -> frozenset[str]:
    """Return the namespaces of a policy's scope; empty for the whole cluster."""
    return frozenset(scope.get("namespaces", ()) if scope["type"] == "namespace" else ())


def administrators(snapshot: Snapshot, name: str) -> list[str]:
    """Return the principals that ran create for a cluster and have access entries with our tags."""
    with absent("ResourceNotFoundException"):
        about = {"clusterName": name}
        every = snapshot.all(snapshot.aws.eks, "list_access_entries", "accessEntries", **about)
        ask = snapshot.aws.eks.describe_access_entry
        answers = gather(*(partial(ask, **about, principalArn=arn) for arn in every))
        entries = [answer["accessEntry"] for answer in answers]
        return [
            entry["principalArn"]
            for entry in entries
            if owner(tags := entry.get("tags") or {}) == snapshot.aws.lineage
            and tag(tags, LABEL) == CALLER
        ]
    return []


def caller(snapshot: Snapshot) -> str:
    """Return the ARN of the caller's IAM role or user, as access entries need it.

    STS's ARN of an assumed role (``arn:aws:sts::ACCOUNT:assumed-role/NAME/SESSION``) lacks the
    role's path, which SSO roles have (``/aws-reserved/sso.amazonaws.com/...``); ``iam:GetRole``
    has it.  Raises Usage for the root user, which cannot have an entry, and Denied if the caller
    may not read the role.
    """
    arn = snapshot.aws.identity.arn
    if arn.endswith(":root"):
        raise Usage(
            "the root user cannot have access to an EKS cluster",
            "Run this as a role or an IAM user.",
        )
    role = re.fullmatch(r"arn:[^:]+:sts::\d+:assumed-role/([^/]+)/.+", arn)
    if not role:
        return arn
    if not snapshot.aws.principal:
        ask = partial(_role_arn, snapshot.aws, role[1])
        snapshot.aws.principal = snapshot.once("caller", ask)
    return snapshot.aws.principal


def _role_arn(aws: Aws, role: str) -> str:
    from hyperpod_eks.aws.exceptions import ClientError  # noqa: PLC0415

    try:
        return str(aws.iam.get_role(RoleName=role)["Role"]["Arn"])
    except ClientError as error:
        raise Denied(
            f"cannot read your own role {role}: {error}",
            "Allow iam:GetRole on it; EKS needs the role's full ARN for the access entry.",
        ) from error
