"""IAM that spreads slowly, refuses bad trust and deletes nothing attached; STS beside it."""

from __future__ import annotations

import fnmatch
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, cast
from xml.sax.saxutils import escape

import moto.iam.urls
import moto.sts.urls
from moto.core.responses import ActionResult
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.exceptions import (
    DeleteConflictException,
    IAMException,
    MalformedPolicyDocument,
    NotFoundException,
)
from moto.iam.models import AWSManagedPolicy, IAMBackend, ManagedPolicy, Role, iam_backends
from moto.iam.policy_validation import IAMTrustPolicyDocumentValidator
from moto.iam.responses import IamResponse
from moto.sts.exceptions import STSValidationError
from moto.sts.models import AssumedRole, STSBackend, sts_backends
from moto.sts.responses import TokenResponse
from moto.utilities.utils import get_partition

from hyperpod_eks.local.aws import guard, plugin, roles
from hyperpod_eks.local.aws.lag import Lagging
from hyperpod_eks.local.aws.sim import (
    ACCESS_KEY,
    ACCOUNT,
    ADMIN_ARN,
    ADMIN_PATH,
    ADMIN_ROLE,
    ADMIN_SESSION,
    SECRET_KEY,
    current,
)
from hyperpod_eks.local.aws.wire import new_uuid
from hyperpod_eks.policy import authorization

_AWS_POLICY = "arn:aws:iam::aws:policy/"
_SERVICE_ROLE_PATH = "/aws-service-role/"

#: Names that do not follow from the service's name, and the policy that the role carries.
_SERVICE_ROLES = {
    "hyperpod.sagemaker.amazonaws.com": (
        "AWSServiceRoleForSageMakerHyperPod",
        "AmazonSageMakerHyperPodServiceRolePolicy",
    ),
    "eks.amazonaws.com": ("AWSServiceRoleForAmazonEKS", "AmazonEKSServiceRolePolicy"),
    "eks-nodegroup.amazonaws.com": (
        "AWSServiceRoleForAmazonEKSNodegroup",
        "AWSServiceRoleForAmazonEKSNodegroup",
    ),
}


def _trust(**principal: str) -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


class Backend(IAMBackend):
    """moto's IAM with AWS's own policies at hand, honest conflicts and the caller's role."""

    _url_module = plugin.url_module("iam")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self._new_role(ADMIN_ROLE, ADMIN_PATH, _trust(AWS=f"arn:aws:iam::{account_id}:root"))

    def _new_role(
        self, name: str, path: str, trust: str, description: str = "", service: str | None = None
    ) -> Role:
        return super().create_role(name, trust, path, None, description, [], "3600", service)

    # -- policies --------------------------------------------------------------------------------

    def _load(self, policy_arn: str) -> None:
        """Take one of AWS's policies from moto's data: all 1,582 would cost half a second."""
        if policy_arn in self.managed_policies or not policy_arn.startswith(_AWS_POLICY):
            return
        name = policy_arn.rsplit("/", 1)[-1]
        label = f'\n "{name}":'
        if (start := aws_managed_policies_data.find(label)) < 0:
            return
        data, _ = json.JSONDecoder().raw_decode(aws_managed_policies_data, start + len(label))
        policy = AWSManagedPolicy.from_data(name, self.account_id, self.region_name, data)
        self.managed_policies[policy.arn] = policy

    def get_policy(self, policy_arn: str) -> ManagedPolicy:
        """Find AWS's policies too."""
        self._load(policy_arn)
        return super().get_policy(policy_arn)

    def attach_role_policy(self, policy_arn: str, role_name: str) -> None:
        """Attach once: a second attachment changes nothing."""
        self._load(policy_arn)
        if policy_arn not in self.get_role(role_name).managed_policies:
            super().attach_role_policy(policy_arn, role_name)

    def delete_policy(self, policy_arn: str) -> None:
        """Refuse while the policy is attached or has more than its default version."""
        policy = self.get_policy(policy_arn)
        if policy.attachment_count:
            raise DeleteConflictException("Cannot delete a policy attached to entities.")
        if len(policy.versions) > 1:
            raise DeleteConflictException(
                "This policy has more than one version. Before you delete a policy, you must "
                "delete the policy's versions. The default version is deleted with the policy."
            )
        super().delete_policy(policy_arn)

    # -- roles -----------------------------------------------------------------------------------

    def create_role(
        self, role_name: str, assume_role_policy_document: str, *a: Any, **k: Any
    ) -> Any:
        """Check the trust policy; other services see the role ``Delays.iam`` from now."""
        self._check_trust(assume_role_policy_document)
        role = super().create_role(role_name, assume_role_policy_document, *a, **k)
        current().role_created(role.arn)
        return role

    def update_assume_role_policy(self, role_name: str, policy_document: str) -> None:
        """Check the trust policy."""
        self._check_trust(policy_document)
        super().update_assume_role_policy(role_name, policy_document)

    def _check_trust(self, document: str) -> None:
        IAMTrustPolicyDocumentValidator(document).validate()
        for kind, principal in _principals(json.loads(document)):
            own = re.fullmatch(rf"arn:aws:iam::{ACCOUNT}:(role|user)/(.+)", principal)
            known = {r.arn for r in self.roles.values()} | {u.arn for u in self.users.values()}
            wrong = {
                "Service": not principal.endswith((".amazonaws.com", ".aws.internal")),
                "AWS": own is not None and principal not in known,
            }.get(kind, False)
            if wrong:
                text = f'Invalid principal in policy: "{kind.upper()}":"{principal}"'
                raise MalformedPolicyDocument(text)

    def delete_role(self, role_name: str) -> None:
        """Refuse what only its service may delete."""
        role = self.get_role(role_name)
        if role.path.startswith(_SERVICE_ROLE_PATH):
            text = (
                f"Cannot perform the operation on the protected role '{role_name}' - "
                f"this role is only modifiable by AWS"
            )
            raise IAMException("UnmodifiableEntity", text)
        super().delete_role(role_name)
        current().role_deleted(role.arn)

    # -- OIDC providers --------------------------------------------------------------------------

    def add_client_id(self, arn: str, client: str) -> None:
        """Let tokens for one more audience in (AddClientIDToOpenIDConnectProvider)."""
        clients = self.get_open_id_connect_provider(arn).client_id_list
        if client not in clients:
            clients.append(client)

    def create_open_id_connect_provider(
        self, url: str, thumbprint_list: list[str], client_id_list: list[str], tags: Any
    ) -> Any:
        """Add the thumbprint that IAM retrieves where none is given (its API reference)."""
        thumbprints = thumbprint_list or ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
        return super().create_open_id_connect_provider(url, thumbprints, client_id_list, tags)

    # -- service-linked roles --------------------------------------------------------------------

    def delete_service_linked_role(self, role_name: str) -> str:
        """Delete what DeleteRole refuses; returns the task's id, whose status is SUCCEEDED at once.

        The service would refuse while it uses the role; nothing here is asked.
        """
        role = self.get_role(role_name)
        if not role.path.startswith(_SERVICE_ROLE_PATH):
            raise IAMException("InvalidInput", f"{role_name} is not a service-linked role")
        for arn in list(role.managed_policies):
            super().detach_role_policy(arn, role_name)
        super().delete_role(role_name)
        current().role_deleted(role.arn)
        return f"task{role.path}{role_name}/{new_uuid(current().ids)}"

    def create_service_linked_role(
        self, service_name: str, description: str = "", suffix: str = ""
    ) -> Role:
        """Create the role under AWS's name for it; InvalidInput when it exists."""
        name, policy = _SERVICE_ROLES.get(service_name, (None, None))
        if name is None:
            return super().create_service_linked_role(service_name, description, suffix)
        if any(role.name == name for role in self.roles.values()):
            text = (
                f"Service role name {name} has been taken in this account, "
                f"please try a different suffix."
            )
            raise IAMException("InvalidInput", text)
        path = f"{_SERVICE_ROLE_PATH}{service_name}/"
        role = self._new_role(name, path, _trust(Service=service_name), description, service_name)
        self.attach_role_policy(f"{_AWS_POLICY}aws-service-role/{policy}", name)
        current().role_created(role.arn)
        return role


def _principals(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    statements = document["Statement"]
    for statement in statements if isinstance(statements, list) else [statements]:
        principal = statement.get("Principal", {})
        for kind, names in (principal if isinstance(principal, dict) else {}).items():
            for name in names if isinstance(names, list) else [names]:
                yield kind, name


class Response(Lagging, IamResponse):
    """moto's IAM answers, with lag and the policy simulator."""

    lag_service = "iam"
    stores: Mapping[str, str] = {
        "roles": "GetRole|ListRoles|List(Attached)?RolePolicies|GetRolePolicy|ListRoleTags",
        "managed_policies": "GetPolicy|ListPolicies|GetPolicyVersion|ListPolicyVersions",
        "open_id_providers": "GetOpenIDConnectProvider|ListOpenIDConnectProvider.*",
    }

    def lagging_backend(self) -> IAMBackend:
        """Return the account's IAM."""
        return iam_backends[self.current_account]["aws"]

    def name_of(self, store: str, key: str) -> str:
        """Roles are named, policies are called by their ARNs."""
        return self.lagging_backend().roles[key].name if store == "roles" else key

    def not_found(self, store: str, name: str) -> NotFoundException:
        """Say that a role, policy or provider does not exist."""
        if store == "roles":
            return NotFoundException(f"The role with name {name} cannot be found.")
        if store == "open_id_providers":
            return NotFoundException(f"OpenIDConnect Provider not found for arn {name}")
        return NotFoundException(f"Policy {name} does not exist or is not attachable.")

    def add_client_id_to_open_id_connect_provider(self) -> ActionResult:
        """Answer as IAM does; moto lacks it."""
        arn, backend = self._get_param("OpenIDConnectProviderArn"), self.lagging_backend()
        cast("Backend", backend).add_client_id(arn, self._get_param("ClientID"))
        return ActionResult({})

    def simulate_principal_policy(self) -> str:
        """Allow every action but those that ``Sim.denied`` matches.

        Policies and permissions boundaries are evaluated only with ``Sim.enforce``, and not those
        of the default credentials' role, which may do everything.  Actions of several services or
        types of resource are refused together: AWS says neither which go together nor why, and
        public reports show its words for lists of S3, of IAM with STS, and of Redshift.
        """
        actions = self._get_param("ActionNames", [])
        _check_mixture(actions)
        resources = self._get_param("ResourceArns", ["*"])
        context = {
            entry["ContextKeyName"]: entry["ContextKeyValues"][0]
            for entry in self._get_param("ContextEntries", [])
        }
        source = self._get_param("PolicySourceArn")
        principal = guard.principal_of(source) if current().enforce else None
        results = []
        for action in actions:
            told = any(fnmatch.fnmatchcase(action, pattern) for pattern in current().denied)
            for resource in resources:
                # a condition whose key the caller did not give is not met (SimulatePrincipalPolicy)
                wish = roles.Wish(action, resource, context, tags={})
                found = roles.decide(principal, wish) if principal else roles.Decision("allowed")
                if told:
                    found = roles.Decision("implicitDeny", bounded=found.bounded)
                result = {
                    "EvalActionName": action,
                    "EvalResourceName": resource,
                    "EvalDecision": found.decision,
                    "MatchedStatements": [],
                    "MissingContextValues": roles.missing(principal, wish) if principal else [],
                }
                if found.bounded is not None:
                    detail = {"AllowedByPermissionsBoundary": found.bounded}
                    result["PermissionsBoundaryDecisionDetail"] = detail
                results.append(result)
        # as it goes over the wire: a create asks this forty times, and moto's way takes long
        answer = _xml({"EvaluationResults": results, "IsTruncated": False})
        return (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            f"<SimulatePrincipalPolicyResult>{answer}</SimulatePrincipalPolicyResult>"
            f"<ResponseMetadata><RequestId>{uuid.uuid4()}</RequestId></ResponseMetadata>"
            "</SimulatePrincipalPolicyResponse>"
        )


def _xml(value: Any) -> str:
    """Write a value in the query protocol.

    >>> _xml({"Names": ["a", "<"], "More": False})
    '<Names><member>a</member><member>&lt;</member></Names><More>false</More>'
    """
    if isinstance(value, dict):
        return "".join(f"<{name}>{_xml(each)}</{name}>" for name, each in value.items())
    if isinstance(value, list):
        return "".join(f"<member>{_xml(each)}</member>" for each in value)
    return escape(str(value).lower() if isinstance(value, bool) else str(value))


def _check_mixture(actions: list[str]) -> None:
    groups: dict[object, list[str]] = {}
    for action in actions:
        alone = any(fnmatch.fnmatchcase(action, pattern) for pattern in current().apart)
        kinds = frozenset(kind for kind, must in authorization.types(action).items() if must)
        same = [g for g in groups if isinstance(g, tuple) and g[0] == action.partition(":")[0]]
        key = next((g for g in same if not kinds or not g[1] or kinds & g[1]), None)
        groups.setdefault(action if alone else key or (action.partition(":")[0], kinds), []).append(
            action
        )
    if len(groups) > 1:
        lists = " and ".join(f"[{','.join(several)}]" for several in groups.values())
        text = (
            f"Invalid Input Actions: {lists} require different authorization information. Please "
            f"refer to the documentation for more details: https://docs.aws.amazon.com/IAM/latest/"
            f"APIReference/API_SimulatePrincipalPolicy.html"
        )
        raise IAMException("InvalidInput", text)


class Sts(STSBackend):
    """moto's STS, whose caller is a session of the Admin role unless its key says otherwise."""

    _url_module = plugin.url_module("sts")

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        key = iam_backends[account_id]["aws"].create_temp_access_key()
        session = AssumedRole(account_id, "us-east-1", key, ADMIN_SESSION, ADMIN_ARN, "", 3600, "")
        session.access_key_id, session.secret_access_key = ACCESS_KEY, SECRET_KEY
        self.assumed_roles.append(session)

    def get_caller_identity(self, access_key_id: str, region: str) -> tuple[str, str, str]:
        """Answer for the default credentials when nobody was given this key.

        The ARN's partition is the region's: accounts of China and GovCloud are theirs alone.
        """
        user_id, arn, account = super().get_caller_identity(access_key_id, region)
        if arn.endswith(":user/moto"):
            user_id, arn, account = super().get_caller_identity(ACCESS_KEY, region)
        return user_id, arn.replace("arn:aws:", f"arn:{get_partition(region)}:", 1), account


class StsResponse(TokenResponse):
    """moto's STS answers, with the limits of a session's length."""

    def assume_role(self) -> ActionResult:
        """Refuse a session that is longer than its role's, or than an hour where a role assumes it.

        The API is AssumeRole (DurationSeconds), the page "Role chaining" of the IAM User Guide; the
        default credentials are a role's.
        """
        seconds, arn = self._get_int_param("DurationSeconds", 3600), self._get_param("RoleArn")
        known = iam_backends[self.current_account]["aws"].roles.values()
        longest = next((role.max_session_duration for role in known if role.arn == arn), None)
        if seconds > int(longest or 3600):
            raise STSValidationError(
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            )
        user = iam_backends[ACCOUNT]["aws"].get_user_from_access_key_id(self.get_access_key())
        if seconds > 3600 and user is None:
            raise STSValidationError(
                "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed "
                "by role chaining."
            )
        return super().assume_role()


def install() -> None:
    """Swap moto's IAM and STS classes for ours."""
    plugin.backend(iam_backends, Backend)
    plugin.backend(sts_backends, Sts)
    moto.sts.urls.url_paths["{0}/$"] = StsResponse.dispatch
    moto.iam.urls.url_paths["{0}/$"] = Response.dispatch


def inventory(account: str, region: str) -> dict[str, Any]:
    """Return roles, customer policies, users, groups and profiles; ``region`` does not matter.

    Service-linked roles, which AWS keeps when everything else is gone, stand on their own.
    """
    iam = iam_backends[account]["aws"]
    roles = {
        role.name: {
            "Arn": role.arn,
            "AssumeRolePolicyDocument": json.loads(role.assume_role_policy_document),
            "AttachedPolicies": sorted(role.managed_policies),
            "InlinePolicies": {
                name: json.loads(document) for name, document in sorted(role.policies.items())
            },
            "Tags": {tag["Key"]: tag["Value"] for tag in role.tags},
        }
        for role in iam.roles.values()
    }
    return {
        # service-linked roles are AWS's: it makes and keeps them for the whole account
        "Roles": {n: r for n, r in roles.items() if f":role{_SERVICE_ROLE_PATH}" not in r["Arn"]},
        "Policies": {
            policy.arn: {
                "AttachmentCount": policy.attachment_count,
                "Versions": {v.version_id: json.loads(v.document) for v in policy.versions},
                "Tags": {tag["Key"]: tag["Value"] for tag in policy.get_tags()},
            }
            for policy in iam.managed_policies.values()
            if not policy.arn.startswith(_AWS_POLICY)
        },
        "Users": {user.name: {} for user in iam.users.values()},
        "Groups": {group.name: {} for group in iam.groups.values()},
        "InstanceProfiles": {
            profile.name: sorted(role.name for role in profile.roles)
            for profile in iam.instance_profiles.values()
        },
        "OpenIdProviders": {
            arn: {
                "ClientIDList": sorted(provider.client_id_list),
                "Tags": {tag["Key"]: tag["Value"] for tag in provider.get_tags()},
            }
            for arn, provider in iam.open_id_providers.items()
        },
    }
