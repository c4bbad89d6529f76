"""IAM roles and policies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial
from typing import ClassVar
from urllib.parse import unquote

from hyperpod_eks.aws.addon_needs import INFERENCE_PREFIX
from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.pod_roles import pod_roles
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Fact, Facts, Live, References, Resource
from hyperpod_eks.resources.ec2.security_group import SecurityGroup
from hyperpod_eks.resources.ec2.subnet import Subnet
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import (
    Conditions,
    Statement,
    Statements,
    actions,
    forgotten,
    look,
)
from hyperpod_eks.resources.tagged import LARGE_PAGES, Candidate, Tagged, tags_of
from hyperpod_eks.resources.trust import PODS_SERVICE, in_words, trust, trusted_by
from hyperpod_eks.workers import gather

EKS_SERVICE, HYPERPOD_SERVICE = "eks.amazonaws.com", "sagemaker.amazonaws.com"
SCALING_SERVICE = "hyperpod.sagemaker.amazonaws.com"
"""HyperPod's service-linked role is its, and Karpenter's role is passed to it."""
CONTROL_POLICY = "AmazonEKSClusterPolicy"
NODE_POLICY = "AmazonSageMakerClusterInstanceRolePolicy"


@frozen
class Principals:
    """Subjects of the IAM statements: ARNs of roles and policies, and services that get a role."""

    made: tuple[str, ...]
    passed: tuple[str, ...]
    policies: tuple[str, ...]
    services: list[str]
    pods: tuple[str, ...]
    """The roles to create for pods."""
    pod_policies: tuple[str, ...]
    """The policies to create for them."""
    pod_managed: tuple[str, ...]
    """Existing policies to attach to them."""


def principals(resolved: ResolvedConfig) -> Principals:
    """Return the roles to create, and all roles (existing ones too) to pass to services."""
    path = resolved.config.iam.path
    keys = {"eks": "iam/cluster-role", "hyperpod": "iam/execution-role"}
    services = [EKS_SERVICE, HYPERPOD_SERVICE]
    if resolved.eks_is_theirs:  # its role is not passed again, and `policy` does not know it
        del keys["eks"], services[0]
    if resolved.config.scales_itself:
        keys["scaling"] = "iam/scaling-role"
        services.append(SCALING_SERVICE)
    names = {purpose: resolved.iam_name(purpose, key) for purpose, key in keys.items()}
    ours = [purpose for purpose, key in keys.items() if key not in resolved.adopted]
    made = tuple(resolved.arn("iam", f"role{path}{names[each]}") for each in ours)
    # of an existing role only the name is known, not the path
    adopted = {resolved.arn("iam", f"role/*{names[each]}") for each in keys.keys() - set(ours)}
    own = {group.execution_role for group in resolved.config.groups if group.execution_role}
    pods = pod_roles(resolved)
    pod_policies = [one for one in pods if one.statements]
    return Principals(
        made,
        (*made, *sorted(adopted | own)),
        tuple(resolved.arn("iam", f"policy{path}{names[each]}") for each in ours if each != "eks"),
        services,
        tuple(one.role_arn(resolved) for one in pods),
        tuple(resolved.arn("iam", f"policy{path}{one.name(resolved)}") for one in pod_policies),
        tuple(sorted({arn for one in pods for arn in one.managed})),
    )


CREATE_ROLE = actions(
    "iam",
    "CreateRole",
    "DeleteRolePermissionsBoundary",
    "PutRolePermissionsBoundary",
    "TagRole",
    "UpdateAssumeRolePolicy",
)
DELETE_ROLE = actions(
    "iam", "DeleteRole", "DeleteRolePolicy", "DetachRolePolicy", "ListRolePolicies"
)
CREATE_POLICY = actions(
    "iam",
    "CreatePolicy",
    "CreatePolicyVersion",
    "DeletePolicyVersion",
    "GetPolicy",
    "GetPolicyVersion",
    "ListPolicyVersions",
    "TagPolicy",
)


def describe_role(snapshot: Snapshot, name: str) -> JsonMapping | None:
    """Describe a role; None if it does not exist."""

    def ask() -> JsonMapping | None:
        with absent("NoSuchEntity"):
            return snapshot.aws.iam.get_role(RoleName=name)["Role"]
        return None

    return snapshot.once(("role", name), ask)


@frozen
class Role(Resource):
    """A role that one AWS service can assume, and its attached policies."""

    name: str
    trusts: str
    """Service principal; it is the same in every partition."""
    managed: tuple[str, ...]
    """ARNs of AWS managed policies."""
    policies: tuple[Policy, ...] = ()
    path: str = "/"
    boundary: str = ""
    """ARN of the permissions boundary."""
    caller: str = field(default="", kw_only=True)
    """ARN of the EKS cluster whose pods alone may use it; empty for no such condition."""

    kind = "iam/Role"
    step = "iam"
    tag_type = "role"
    absence: ClassVar[Facts] = {
        "boundary": "",  # GetRole returns a boundary only if one is set
    }
    deleted_at_once = True
    facts = ("trusts", "policies", "path", "boundary")
    answers = ("trusts", "path", "boundary")
    later = ("policies",)
    attached = ("policies", "boundary")
    immutable: ClassVar[Mapping[str, str]] = {"path": "IAM moves no role"}

    def create_requires(self) -> Iterator[Resource]:
        """None: ``update`` attaches the policies."""
        yield from ()

    @property
    def reason(self) -> str:
        """The service account whose pods use it."""
        if self.trusts != PODS_SERVICE:
            return ""
        return f"for the pods of the service account {self.label.removesuffix('-role')}"

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the ARNs of the roles to create or to pass."""
        who = principals(resolved)
        managed = [resolved.managed_policy(name) for name in (CONTROL_POLICY, NODE_POLICY)]
        attached: Conditions = {"ArnEquals": {"iam:PolicyARN": [*managed, *who.policies]}}
        services: Conditions = {"StringEquals": {"iam:PassedToService": who.services}}
        # GetRole also reads the caller's own role, whose path is not in its session's ARN
        every = (resolved.arn("iam", "role/*"),)
        yield Statement("RolesLook", actions("iam", "GetRole", "ListAttachedRolePolicies"), every)
        yield Statement("RolesMake", CREATE_ROLE, (*who.made, *who.pods))
        yield Statement("RolesAttach", ("iam:AttachRolePolicy",), who.made, attached)
        yield Statement("RolesDelete", DELETE_ROLE, (*who.made, *who.pods), command="delete")
        if who.pods:
            arns = [*who.pod_managed, *who.pod_policies]
            these: Conditions = {"ArnEquals": {"iam:PolicyARN": arns}}
            yield Statement("PodRolesAttach", ("iam:AttachRolePolicy",), who.pods, these)
            yield Statement("PodRolesPolicies", ("iam:GetPolicy",), who.pod_managed)
            yield look("iam", "GetAccountSummary")
        yield Statement("RolesPass", ("iam:PassRole",), who.passed, services)
        yield forgotten("iam", "ListRoles", "ListRoleTags")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Role:
        """Declare it with the fields that a delete needs."""
        return Role(found.label, name=found.id, trusts="", managed=())

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Roles with our description and this cluster's name, which may be cut (`names.fit`)."""
        ask, starts = aws.iam.list_role_tags, (cluster[:50], f"{INFERENCE_PREFIX}-{cluster}"[:57])
        for page in aws.iam.get_paginator("list_roles").paginate(**LARGE_PAGES):
            for role in page["Roles"]:
                name, about = role["RoleName"], role.get("Description", "")
                if about.startswith("hyperpod-eks: ") and name.startswith(starts):
                    yield "role", name, partial(tags_of, ask, "Tags", RoleName=name)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        if not (snapshot.aws.recorded or describe_role(snapshot, self.name)):
            return []  # probably nothing exists yet: see `Snapshot.gather`
        with absent("NoSuchEntity"):
            role, attached = gather(
                partial(describe_role, snapshot, self.name), partial(self._attached, snapshot)
            )
            return [self._live(role, attached)] if role else []
        return []

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Read only the attached policies."""
        if names != {"policies"}:
            return self.find(snapshot)
        return [
            replace(live, facts={**live.facts, "policies": self._attached(snapshot)}, shown=names)
        ]

    def _attached(self, snapshot: Snapshot) -> frozenset[str]:
        method, about = "list_attached_role_policies", {"RoleName": self.name}
        found = snapshot.all(snapshot.aws.iam, method, "AttachedPolicies", **about)
        return frozenset(each["PolicyArn"] for each in found)

    def _trusted_by(self, document: object) -> str | None:
        """Return who may assume it by a trust policy; None if the policy is not as ours."""
        return trusted_by(document)

    def _trust(self, references: References) -> JsonObject:
        """Return the declared trust policy."""
        return trust(self.trusts, self.caller)

    def _live(self, role: JsonMapping, attached: frozenset[str]) -> Live:
        facts = {
            "trusts": self._trusted_by(role["AssumeRolePolicyDocument"]),
            "policies": attached,
            "path": role["Path"],
            "boundary": role.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn", ""),
        }
        return Live(self.name, role["Arn"], owner=owner(role.get("Tags", ())), facts=facts)

    def expected(self, name: str, references: References) -> Fact:
        """The attached policies are a set: AWS's and ours."""
        if name == "policies":
            return frozenset([*self.managed, *(references(policy).arn for policy in self.policies)])
        if name == "trusts":
            return in_words(self.trusts, self.caller)
        return super().expected(name, references)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the account."""
        bounded: JsonObject = {"PermissionsBoundary": self.boundary} if self.boundary else {}
        role = aws.iam.create_role(
            RoleName=self.name,
            Path=self.path,
            **bounded,
            AssumeRolePolicyDocument=json.dumps(self._trust(references)),
            Description=f"hyperpod-eks: {self.label} of the cluster {aws.cluster}",
            Tags=aws.pairs(self.label),
        )["Role"]
        return replace(self._live(role, frozenset()), owner=aws.lineage)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live | None:
        """Set trust and boundary, attach missing policies, and detach all others."""
        if "trusts" in differs:
            aws.iam.update_assume_role_policy(
                RoleName=self.name, PolicyDocument=json.dumps(self._trust(references))
            )
        if "boundary" in differs and self.boundary:
            aws.iam.put_role_permissions_boundary(
                RoleName=self.name, PermissionsBoundary=self.boundary
            )
        elif "boundary" in differs:
            aws.iam.delete_role_permissions_boundary(RoleName=self.name)
        if live.owner is None:
            aws.iam.tag_role(RoleName=self.name, Tags=aws.pairs(self.label))
        wanted = self.expected("policies", references)
        self._attach(aws, wanted, live.facts["policies"])
        trusts = self.expected("trusts", references)
        changed = {"trusts": trusts, "policies": wanted, "boundary": self.boundary}
        return Live(self.name, live.arn, owner=aws.lineage, facts={**live.facts, **changed})

    def _attach(self, aws: Aws, wanted: frozenset[str], there: frozenset[str]) -> None:
        attach = partial(aws.iam.attach_role_policy, RoleName=self.name)

        def detach(arn: str) -> None:
            with absent("NoSuchEntity"):  # detached before
                aws.iam.detach_role_policy(RoleName=self.name, PolicyArn=arn)

        gather(
            *(partial(attach, PolicyArn=arn) for arn in sorted(wanted - there)),
            *(partial(detach, arn) for arn in sorted(there - wanted)),
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it after detaching all policies and, if it has any, deleting inline ones."""
        iam = aws.iam
        detach = partial(iam.detach_role_policy, RoleName=self.name)
        gather(*(partial(detach, PolicyArn=arn) for arn in live.facts["policies"]))
        with absent("DeleteConflict"):
            iam.delete_role(RoleName=self.name)
            return
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=self.name):
            for inline in page["PolicyNames"]:
                iam.delete_role_policy(RoleName=self.name, PolicyName=inline)
        iam.delete_role(RoleName=self.name)


@frozen
class Policy(Resource):
    """A policy of ours: the permissions of a role beyond those of AWS managed policies."""

    name: str
    prefix: str
    """Prefix of the ARNs of the account's policies."""
    path: str
    rows: tuple[Row, ...]
    network: str = ""
    """Prefix of the ARNs of the account's network."""
    places: tuple[Vpc | SecurityGroup | Subnet, ...] = ()
    """Where network interfaces may be created; empty for nowhere."""
    statements: str = ""
    """Further statements, as a JSON list."""

    kind = "iam/Policy"
    step = "iam"
    tag_type = "policy"
    deleted_at_once = True
    facts = ("document",)

    @property
    def arn(self) -> str:
        """ARN, by which the policy is found."""
        return f"{self.prefix}{self.path}{self.name}"

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the ARNs of our policies."""
        who = principals(resolved)
        ours = (*who.policies, *who.pod_policies)
        yield Statement("NodePolicyMake", CREATE_POLICY, ours)
        yield Statement("NodePolicyDelete", ("iam:DeletePolicy",), ours, command="delete")
        yield forgotten("iam", "ListPolicies", "ListPolicyTags")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> Policy:
        """Declare it with the fields that a delete needs."""
        prefix = resolved.arn("iam", "policy")
        return Policy(
            found.label,
            name=found.id.rpartition("/")[2],
            prefix=prefix,
            path=found.id.removeprefix(prefix).rpartition("/")[0] + "/",
            rows=(),
        )

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Policies with this cluster's name, which may be cut (`names.fit`)."""
        ask = aws.iam.list_policy_tags
        for page in aws.iam.get_paginator("list_policies").paginate(Scope="Local", **LARGE_PAGES):
            for policy in page["Policies"]:
                arn = policy["Arn"]
                if policy["PolicyName"].startswith(cluster[:50]):
                    yield "policy", arn, partial(tags_of, ask, "Tags", PolicyArn=arn)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by ARN."""
        with absent("NoSuchEntity"):
            policy = snapshot.aws.iam.get_policy(PolicyArn=self.arn)["Policy"]
            signed = owner(policy.get("Tags", ()))
            if snapshot.bare:
                return [Live(self.name, self.arn, owner=signed)]
            return [self._live(snapshot.aws, signed, policy["DefaultVersionId"])]
        return []

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Read the version that its create returned: versions never change."""
        if "version" not in live.attributes:
            return self.find(snapshot)
        return [self._live(snapshot.aws, live.owner, live.attributes["version"])]

    def _live(self, aws: Aws, signed: str | None, version: str) -> Live:
        found = aws.iam.get_policy_version(PolicyArn=self.arn, VersionId=version)
        document: Json = found["PolicyVersion"]["Document"]
        if isinstance(document, str):
            document = policy_of(unquote(document))
        return Live(self.name, self.arn, owner=signed, facts={"document": document})

    def expected(self, name: str, references: References) -> Fact:
        """The document names the ids of the resources that it depends on."""
        if name != "document":
            return super().expected(name, references)
        kinds = {Vpc: "vpc", SecurityGroup: "security-group", Subnet: "subnet"}
        places = [
            f"{self.network}:{kinds[type(place)]}/{references(place).id}" for place in self.places
        ]
        return document(self.rows, self.network, places, self.statements)

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the account."""
        document = self.expected("document", references)
        made = aws.iam.create_policy(
            PolicyName=self.name,
            Path=self.path,
            PolicyDocument=json.dumps(document),
            Description=f"hyperpod-eks: {self.label} of the cluster {aws.cluster}",
            Tags=aws.pairs(self.label),
        )["Policy"]
        version = made.get("DefaultVersionId")
        return Live(
            self.name,
            self.arn,
            owner=aws.lineage,
            facts={"document": document},
            attributes={"version": version} if version else {},
        )

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> None:
        """Create a new default version; IAM keeps five, so the oldest may be deleted first."""
        if live.owner is None:
            aws.iam.tag_policy(PolicyArn=self.arn, Tags=aws.pairs(self.label))
        document = self.expected("document", references)
        if live.facts["document"] == document:
            return
        old = list(self._old_versions(aws))
        if len(old) >= 4:
            aws.iam.delete_policy_version(PolicyArn=self.arn, VersionId=old[-1])
        aws.iam.create_policy_version(
            PolicyArn=self.arn, PolicyDocument=json.dumps(document), SetAsDefault=True
        )

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, after its old versions if it has any."""
        with absent("DeleteConflict"):
            aws.iam.delete_policy(PolicyArn=self.arn)
            return
        for version in self._old_versions(aws):
            aws.iam.delete_policy_version(PolicyArn=self.arn, VersionId=version)
        aws.iam.delete_policy(PolicyArn=self.arn)

    def _old_versions(self, aws: Aws) -> Iterator[str]:
        """Every version but the default one, newest first."""
        for page in aws.iam.get_paginator("list_policy_versions").paginate(PolicyArn=self.arn):
            yield from (v["VersionId"] for v in page["Versions"] if not v["IsDefaultVersion"])


Row = tuple[str, Sequence[str], Sequence[str] | str]
"""A statement: its id, actions and resources.  Describe actions support no resource ARNs."""
INTERFACES = (
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
    "ec2:ModifyNetworkInterfaceAttribute",
    "ec2:UnassignPrivateIpAddresses",
)


def document(
    rows: Sequence[Row], network: str, places: Sequence[str], statements: str
) -> JsonObject:
    """Return the document of a `Policy`; ``places`` are ARNs."""
    inside = [("Interfaces", INTERFACES, [f"{network}:network-interface/*", *places])]
    more = json.loads(statements or "[]")
    allowed = [_allow(*row) for row in (*(inside if places else ()), *rows)]
    return {"Version": "2012-10-17", "Statement": [*allowed, *more]}


def _allow(sid: str, actions: Sequence[str], resources: Sequence[str] | str) -> JsonObject:
    places = resources if isinstance(resources, str) else list(resources)
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": places}
