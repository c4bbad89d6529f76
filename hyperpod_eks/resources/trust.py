"""The trust policies of roles: who may assume them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from hyperpod_eks.aws.answers import policy as policy_of
from hyperpod_eks.documents import Json, JsonObject

PODS_SERVICE = "pods.eks.amazonaws.com"


def trust(service: str, caller: str = "") -> JsonObject:
    """Return the trust policy that lets one service assume a role, perhaps for one caller only.

    EKS Pod Identity also sets session tags (EKS User Guide, "EKS Pod Identity role").
    ``caller`` is the ARN of an EKS cluster, with its account (SageMaker developer guide, "Setting
    up the SageMaker HyperPod observability add-on", the role's trust policy).
    """
    assume = "sts:AssumeRole"
    statement: JsonObject = {
        "Effect": "Allow",
        "Principal": {"Service": service},
        "Action": [assume, "sts:TagSession"] if service == PODS_SERVICE else assume,
    }
    if caller:
        account = caller.split(":")[4]
        same = {"aws:SourceAccount": account, "aws:SourceArn": caller}
        statement["Condition"] = {"StringEquals": same}
    return {"Version": "2012-10-17", "Statement": [statement]}


AUDIENCE = "sts.amazonaws.com"
"""For whom the tokens of pods are (EKS User Guide, "IAM roles for service accounts")."""


def web_trust(subject: str, provider: str, services: Sequence[str] = ()) -> JsonObject:
    """Return the trust policy for tokens of an OIDC provider, and for services.

    ``subject`` is a service account or a pattern of several, ``provider`` the ARN of the provider
    (SageMaker developer guide, "Setting up your HyperPod clusters for model deployment").
    """
    issuer = provider.partition(":oidc-provider/")[2]
    by_token = {
        "Effect": "Allow",
        "Principal": {"Federated": provider},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringLike": {f"{issuer}:aud": AUDIENCE, f"{issuer}:sub": subject}},
    }
    statements = [by_token, *(trust(each)["Statement"][0] for each in services)]
    return {"Version": "2012-10-17", "Statement": statements}


def web_words(subject: str, provider: str, services: Sequence[str] = ()) -> str:
    """Return what a policy of `web_trust` says, as a fact."""
    return " and ".join([f"{subject} by {provider}", *services])


def web_trusted_by(document: object) -> str | None:
    """Return what a policy as `web_trust` writes it says; None for any other policy."""
    text = policy_of(unquote(document)) if isinstance(document, str) else document
    statements = text.get("Statement") if isinstance(text, Mapping) else None
    if not isinstance(statements, list) or not statements:
        return None
    provider = str(_at(statements[0], "Principal", "Federated"))
    issuer = provider.partition(":oidc-provider/")[2]
    subject = str(_at(statements[0], "Condition", "StringLike", f"{issuer}:sub"))
    services = [str(_at(each, "Principal", "Service")) for each in statements[1:]]
    given = subject, provider, services
    return web_words(*given) if text == web_trust(*given) else None


def in_words(service: str, caller: str = "") -> str:
    """Return what a policy of `trust` says, as a fact."""
    return f"{service} for {caller}" if caller else service


def trusted_by(document: object) -> str | None:
    """Return what a policy as `trust` writes it says; None for any other policy."""
    text = policy_of(unquote(document)) if isinstance(document, str) else document
    if not isinstance(text, Mapping):
        return None
    statement = text.get("Statement", [{}])
    first = statement[0] if isinstance(statement, list) and len(statement) == 1 else {}
    service = str(_at(first, "Principal", "Service"))
    caller = str(_at(first, "Condition", "StringEquals", "aws:SourceArn") or "")
    known = caller.count(":") > 4 or not caller
    return in_words(service, caller) if known and text == trust(service, caller) else None


def _at(value: Json, *path: str) -> Json:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
