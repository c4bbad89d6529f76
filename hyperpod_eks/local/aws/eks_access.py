"""Who may use a cluster: tokens, access entries and their policies, pod identities."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from botocore.auth import SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.iam.models import iam_backends
from moto.sts.models import sts_backends

from hyperpod_eks.local.aws import roles
from hyperpod_eks.local.aws.eks_data import ACCESS_POLICIES, ADMIN_POLICY, GRANTS
from hyperpod_eks.local.aws.eks_model import AccessEntry, Association, Cluster
from hyperpod_eks.local.aws.sim import ACCOUNT, current, principal_of
from hyperpod_eks.local.aws.wire import Refused, new_uuid
from hyperpod_eks.local.kubernetes import Grant, Identity

_TOKEN_LIFE = timedelta(minutes=15)
_LINKED = ":role/aws-service-role/"
#: What AWS says of an entry that is not there.
NO_ENTRY = (
    "The specified principalArn could not be found. You can view your available access entries "
    "with 'list-access-entries'."
)


# -- tokens --------------------------------------------------------------------------------------


def authenticate(cluster: Cluster, token: str) -> Identity | None:
    """Say whose a bearer token is, as a cluster's Kubernetes endpoint asks; None: nobody's."""
    if token == cluster.manager_token:
        return Identity("eks:addon-manager", ("system:masters",))
    url = _url(token)
    if url is None:
        return None
    with current().clock.lock:  # moto is not thread-safe
        key = _signer(url, cluster.name)
        return _identity(cluster, key) if key else None


def _url(token: str) -> str | None:
    """Return the request inside a token, ``k8s-aws-v1.`` and base64; None if there is none."""
    prefix, _, encoded = token.partition(".")
    try:
        url = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode()
    except ValueError:
        return None
    return url if prefix == "k8s-aws-v1" else None


def _signer(url: str, cluster_name: str) -> str | None:
    """Return the access key that signed a presigned sts:GetCallerIdentity; None refuses it.

    The signature must cover the header x-k8s-aws-id with this cluster's name, and be less than 15
    minutes old by the real time (aws-iam-authenticator). Keys that nobody was given have no secret
    to check with.
    """
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    try:
        signature, stamp = query.pop("X-Amz-Signature"), query["X-Amz-Date"]
        key, _, region, service, _ = query["X-Amz-Credential"].split("/")
        signed = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        headers = query["X-Amz-SignedHeaders"].split(";")
    except (KeyError, ValueError):
        return None
    fresh = abs(datetime.now(UTC) - signed) < _TOKEN_LIFE
    if not fresh or query.get("Action") != "GetCallerIdentity" or "x-k8s-aws-id" not in headers:
        return None
    if secret := _secret(key):
        bare = urlunsplit((*parts[:3], urlencode(query, quote_via=quote), ""))
        if _signature(bare, stamp, cluster_name, key, secret, service, region) != signature:
            return None
    return key


@lru_cache(256)
def _signature(
    url: str, stamp: str, cluster_name: str, key: str, secret: str, service: str, region: str
) -> str:
    """Return the signature of a presigned request; a client sends one with many requests."""
    host = urlsplit(url).netloc
    request = AWSRequest("GET", url, {"host": host, "x-k8s-aws-id": cluster_name})
    request.context["timestamp"] = stamp
    auth = SigV4QueryAuth(Credentials(key, secret), service, region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return str(auth.signature(text, request))


def _secret(access_key: str) -> str:
    if session := sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(access_key):
        return str(session.secret_access_key)
    users = iam_backends[ACCOUNT]["aws"].users.values()
    keys = (key for user in users for key in user.access_keys)
    return next((str(k.secret_access_key) for k in keys if k.access_key_id == access_key), "")


def _identity(cluster: Cluster, access_key: str) -> Identity | None:
    principal, now = principal_of(access_key), current().clock.elapsed()
    if cluster.mode != "API" and principal == cluster.creator:
        # by the map that EKS keeps to itself, and the bootstrap flag of old
        return Identity("kubernetes-admin", ("system:masters",))
    entry = cluster.entries.get(principal)
    if (
        entry is None
        or cluster.mode == "CONFIG_MAP"
        or entry.effective > now
        or entry.principal_id != _unique_id(principal)
    ):
        return None
    session = sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(access_key)
    name = session.session_name if session else "local"
    return Identity(
        entry.document["username"].replace("{{SessionName}}", name),
        ("system:authenticated", *entry.document["kubernetesGroups"]),
        allowed=bool(entry.policies) and entry.policies_effective <= now,
        grants=tuple(_grants(entry)),
    )


def _grants(entry: AccessEntry) -> Iterator[Grant]:
    """Yield what an entry's policies allow, each in its scope."""
    for arn, association in entry.policies.items():
        namespaces = tuple(association["accessScope"].get("namespaces") or ())
        for each in GRANTS[arn.rpartition("/")[2]]:
            whole = each.clusterwide and not namespaces
            yield replace(each, namespaces=namespaces, clusterwide=whole)


def _unique_id(principal: str) -> str:
    iam = iam_backends[ACCOUNT]["aws"]
    everyone: list[Any] = [*iam.roles.values(), *iam.users.values()]
    return next((str(one.id) for one in everyone if one.arn == principal), "")


# -- access entries ------------------------------------------------------------------------------


def by_entries(cluster: Cluster) -> Cluster:
    """Return the cluster if it has access entries at all; InvalidRequestException otherwise."""
    if cluster.mode == "CONFIG_MAP":
        raise Refused(
            "InvalidRequestException",
            "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] "
            "to perform this operation.",
        )
    return cluster


def create_entry(cluster: Cluster, request: dict[str, Any]) -> AccessEntry:
    """Create an entry for a customer's principal (EKS API CreateAccessEntry)."""
    by_entries(cluster)
    principal, kind = request["principalArn"], request.get("type") or "STANDARD"
    if (there := cluster.entries.get(principal)) is not None:
        if request.get("clientRequestToken") and there.request == request:
            return there
        text = "The specified access entry resource is already in use on this cluster."
        raise Refused("ResourceInUseException", text)
    if _LINKED in principal:
        raise _invalid(
            "The caller is not allowed to modify access entries with a principalArn value of a "
            "Service Linked Role"
        )
    _check_principal(principal)
    groups = request.get("kubernetesGroups") or []
    if kind not in _TYPES:
        raise _invalid(f"The specified type is invalid: {kind}")
    if kind != "STANDARD" and (groups or request.get("username")):
        raise _invalid(f"Invalid parameters for an access entry of type {kind}")
    _check_groups(groups)
    _check_username(request.get("username") or "")
    return add_entry(cluster, principal, kind, request)


def add_entry(
    cluster: Cluster, principal: str, kind: str, request: dict[str, Any] | None = None
) -> AccessEntry:
    """Add an entry unchecked, as EKS and HyperPod do by themselves; an old one stays."""
    if principal in cluster.entries:
        return cluster.entries[principal]
    sim, request = current(), request or {}
    now = sim.clock.now()
    what, name = principal.split(":", 5)[5].split("/", 1)
    account, region = principal.split(":")[4], cluster.arn.split(":")[3]
    entry = AccessEntry(
        {
            "clusterName": cluster.name,
            "principalArn": principal,
            "kubernetesGroups": list(request.get("kubernetesGroups") or []),
            "accessEntryArn": f"arn:aws:eks:{region}:{ACCOUNT}:access-entry/{cluster.name}/{what}/"
            f"{account}/{name}/{new_uuid(sim.ids)}",
            "createdAt": now,
            "modifiedAt": now,
            "tags": dict(request.get("tags") or {}),
            "username": request.get("username") or _username(principal, kind),
            "type": kind,
        },
        request,
        _unique_id(principal),
        sim.clock.elapsed() + sim.delays.access_entry,
    )
    cluster.entries[principal] = entry
    return entry


_RESERVED = ("system:", "eks:", "aws:", "amazon:", "iam:")
_TYPES = (
    "STANDARD",
    "FARGATE_LINUX",
    "EC2_LINUX",
    "EC2_WINDOWS",
    "EC2",
    "HYBRID_LINUX",
    "HYPERPOD_LINUX",
)


def _username(principal: str, kind: str) -> str:
    if kind != "STANDARD":
        return "system:node:{{SessionName}}"
    if ":role/" not in principal:
        return principal
    account, name = principal.split(":")[4], principal.rsplit("/", 1)[-1]
    return f"arn:aws:sts::{account}:assumed-role/{name}/{{{{SessionName}}}}"


def _check_principal(principal: str) -> None:
    match = re.fullmatch(r"arn:aws[a-z-]*:iam::(\d{12}):(role|user)/.+", principal)
    known = match is not None
    if match and match[1] == ACCOUNT:
        known = (
            roles.find(principal) is not None if match[2] == "role" else bool(_unique_id(principal))
        )
    if not known:
        raise _invalid("The specified principalArn is invalid: invalid principal.")


def _check_groups(groups: list[str]) -> None:
    for group in groups:
        if group.startswith("system:"):
            raise _invalid(
                f"The kubernetes group name {group} is invalid, it cannot start with system:"
            )


def _check_username(name: str) -> None:
    """Refuse what EKS keeps for itself (EKS User Guide, "Create access entries")."""
    if start := next((each for each in _RESERVED if name.startswith(each)), ""):
        raise _invalid(f"The username {name} is invalid, it cannot start with {start}")
    before, session, _ = name.partition("{{SessionName}}")
    if session and ":" not in before:
        raise _invalid(f"The username {name} is invalid, it needs a colon before {session}")


def find_entry(cluster: Cluster, request: dict[str, Any]) -> AccessEntry:
    """Return the entry of a request's principal; ResourceNotFoundException without."""
    entry = by_entries(cluster).entries.get(request["principalArn"])
    if entry is None:
        raise Refused("ResourceNotFoundException", NO_ENTRY)
    return entry


def update_entry(cluster: Cluster, request: dict[str, Any]) -> AccessEntry:
    """Change groups or username (EKS API UpdateAccessEntry)."""
    entry = find_entry(cluster, request)
    if entry.document["type"] != "STANDARD":
        raise Refused("InvalidRequestException", "Only access entries of type STANDARD can change.")
    _check_groups(request.get("kubernetesGroups") or [])
    _check_username(request.get("username") or "")
    for member in ("kubernetesGroups", "username"):
        if request.get(member) is not None:
            entry.document[member] = request[member]
    entry.document["modifiedAt"] = current().clock.now()
    return entry


def delete_entry(cluster: Cluster, request: dict[str, Any]) -> None:
    """Delete an entry with its associations; a service-linked role's is its service's."""
    find_entry(cluster, request)
    if _LINKED in request["principalArn"]:
        raise Refused(
            "InvalidRequestException",
            "The caller is not allowed to modify access entries with a principalArn value of a "
            "Service Linked Role",
        )
    del cluster.entries[request["principalArn"]]


def associate(cluster: Cluster, request: dict[str, Any]) -> dict[str, Any]:
    """Associate a policy with an entry, or change its scope (EKS API AssociateAccessPolicy)."""
    entry, policy, scope = (
        find_entry(cluster, request),
        request["policyArn"],
        request["accessScope"],
    )
    if entry.document["type"] != "STANDARD":
        raise Refused(
            "InvalidRequestException",
            f"Access policies cannot be associated with access entries of type "
            f"{entry.document['type']}",
        )
    if policy not in ACCESS_POLICIES.values():
        raise _invalid(f"The specified policyArn is invalid: {policy}")
    if (scope.get("type") == "namespace") != bool(scope.get("namespaces")):
        raise _invalid("The accessScope needs namespaces if, and only if, its type is namespace")
    return grant(entry, policy, scope)


def grant(entry: AccessEntry, policy: str, scope: dict[str, Any]) -> dict[str, Any]:
    """Associate a policy unchecked; returns the AssociatedAccessPolicy."""
    sim = current()
    now = sim.clock.now()
    if not entry.policies:
        entry.policies_effective = sim.clock.elapsed() + sim.delays.access_entry
    since = entry.policies.get(policy, {}).get("associatedAt", now)
    whole = {"policyArn": policy, "accessScope": scope, "associatedAt": since, "modifiedAt": now}
    entry.policies[policy] = whole
    return whole


def disassociate(cluster: Cluster, request: dict[str, Any]) -> None:
    """Take a policy away from an entry (EKS API DisassociateAccessPolicy)."""
    entry = find_entry(cluster, request)
    if entry.policies.pop(request["policyArn"], None) is None:
        text = "The specified policyArn is not associated with the access entry."
        raise Refused("ResourceNotFoundException", text)


def bootstrap(cluster: Cluster) -> None:
    """Make the creator's entry, as bootstrapClusterCreatorAdminPermissions asks."""
    grant(add_entry(cluster, cluster.creator, "STANDARD"), ADMIN_POLICY, {"type": "cluster"})


# -- pod identities ------------------------------------------------------------------------------


def create_association(cluster: Cluster, request: dict[str, Any], owner: str = "") -> Association:
    """Associate a role with a service account (EKS API CreatePodIdentityAssociation).

    ``owner`` is the ARN of the add-on that the association belongs to.
    """
    for each in cluster.associations.values():
        if all(each.document[k] == request[k] for k in ("namespace", "serviceAccount")):
            if request.get("clientRequestToken") and each.request == request:
                return each
            text = f"Association already exists: {each.document['associationId']}"
            raise Refused("ResourceInUseException", text)
    _check_pod_role(request["roleArn"])
    sim, region = current(), cluster.arn.split(":")[3]
    now, association_id = sim.clock.now(), f"a-{sim.ids.getrandbits(80):017x}"[:19]
    association = Association(
        {
            "clusterName": cluster.name,
            "namespace": request["namespace"],
            "serviceAccount": request["serviceAccount"],
            "roleArn": request["roleArn"],
            "associationArn": f"arn:aws:eks:{region}:{ACCOUNT}:podidentityassociation/"
            f"{cluster.name}/{association_id}",
            "associationId": association_id,
            "tags": dict(request.get("tags") or {}),
            "createdAt": now,
            "modifiedAt": now,
            "ownerArn": owner or None,
            "disableSessionTags": bool(request.get("disableSessionTags")),
            "targetRoleArn": request.get("targetRoleArn"),
            "policy": request.get("policy"),
        },
        request,
    )
    cluster.associations[association_id] = association
    return association


def _check_pod_role(arn: str) -> None:
    role = roles.find(arn)
    if role is None:
        raise _invalid(f"Role provided in the request does not exist: {arn}")
    if not roles.trusts(role, "pods.eks.amazonaws.com"):
        raise _invalid("Trust policy of the role is invalid: pods.eks.amazonaws.com must assume it")


def find_association(cluster: Cluster, request: dict[str, Any]) -> Association:
    """Return an association by its id; ResourceNotFoundException without."""
    association = cluster.associations.get(request["associationId"])
    if association is None:
        text = f"Association not found: {request['associationId']}"
        raise Refused("ResourceNotFoundException", text)
    return association


def update_association(cluster: Cluster, request: dict[str, Any]) -> Association:
    """Change an association's role and settings (EKS API UpdatePodIdentityAssociation)."""
    association = find_association(cluster, request)
    if request.get("roleArn"):
        _check_pod_role(request["roleArn"])
    for member in ("roleArn", "disableSessionTags", "targetRoleArn", "policy"):
        if request.get(member) is not None:
            association.document[member] = request[member]
    association.document["modifiedAt"] = current().clock.now()
    return association


def _invalid(text: str) -> Refused:
    return Refused("InvalidParameterException", text)
