"""The resource types of IAM actions, from AWS's Service Authorization Reference.

authorization.json is a dated extract with the actions of our policies only;
scripts/authorization.py regenerates it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files

from hyperpod_eks.documents import JsonMapping

NEWER: Mapping[str, str] = {
    "sagemaker:AttachClusterNodeNetworkInterface": "sagemaker:cluster",
    "sagemaker:ListClusterOperations": "sagemaker:cluster",
}
"""Actions that the reference does not have yet: their resource types, from the API's members."""
ON_ITS_ARN: Mapping[str, str] = {"eks:CreateCluster": "eks:cluster"}
"""Actions that AWS checks on a resource, but the reference lists none (AccessDenied of EKS)."""
_SLASHES = re.compile(r"Path$|^(?:Object|LogGroup|LogStream|Repository)Name$")


@cache
def _data() -> JsonMapping:
    text = files(__package__).joinpath("authorization.json").read_text(encoding="utf-8")
    found: JsonMapping = json.loads(text)
    return found


def known(action: str) -> bool:
    """Whether the extract has an action."""
    return action in _data()["actions"] or action in NEWER


def types(action: str) -> dict[str, bool]:
    """Return the resource types of an action, and whether each is in every request.

    Empty for an action without resources, which a policy must allow on ``*``.

    >>> types("ec2:DetachNetworkInterface")
    {'ec2:instance': True, 'ec2:network-interface': True}
    """
    if one := NEWER.get(action) or ON_ITS_ARN.get(action):
        return {one: True}
    service = action.partition(":")[0]
    found = _data()["actions"].get(action, {})
    return {f"{service}:{kind}": required for kind, required in found.items()}


def example(pattern: str, kind: str) -> str:
    """Return an ARN of a resource type that matches a pattern of a policy; "" if none can.

    >>> example("arn:aws:ec2:us-west-2:123456789012:*/*", "ec2:vpc")
    'arn:aws:ec2:us-west-2:123456789012:vpc/x'
    >>> example("arn:aws:eks:us-west-2:123456789012:addon/demo/*", "eks:addon")
    'arn:aws:eks:us-west-2:123456789012:addon/demo/x/x'
    >>> example("arn:aws:ec2:us-west-2:123456789012:subnet/*", "ec2:vpc")
    ''
    """
    template = _data()["arns"][kind]
    shape = _shape(template)
    start, star, end = pattern.rpartition("*")
    for several in ("x", "x/x", "x/x/x", "x/x/x/x", "log-stream:x"):
        one = start.replace("*", "x") + (several if star else "") + end
        if shape.fullmatch(one):
            return one
    arn = pattern.split(":", 5)
    given = dict(zip(("Partition", "Region", "Account"), (arn[1:2] + arn[3:5]), strict=False))
    one = re.sub(r"\$\{(\w+)\}", lambda name: given.get(name[1], "x").replace("*", "x"), template)
    return one if pattern == "*" or fnmatchcase(one, pattern.replace("[", "[[]")) else ""


@cache
def _shape(template: str) -> re.Pattern[str]:
    """Convert an ARN format of the reference to a regular expression."""
    parts = re.split(r"\$\{(\w+)\}", template)
    return re.compile(
        "".join(
            re.escape(part)
            if place % 2 == 0
            else "[^:]+"
            if _SLASHES.search(part)
            else "[^/:]*"
            if part in ("Region", "Account")
            else "[^/:]+"
            for place, part in enumerate(parts)
        )
    )


def unmatched(action: str, resources: Iterable[str]) -> list[str]:
    """Return the resource types that an action needs and that no pattern in ``resources`` covers.

    ``*`` covers every type; an action without resources needs ``*``.
    """
    patterns = list(resources)
    if "*" in patterns:
        return []
    kinds = types(action)
    needed = [kind for kind, required in kinds.items() if required]
    if needed or not kinds:
        return [k for k in needed or ["*"] if k == "*" or not any(example(p, k) for p in patterns)]
    return [] if any(example(p, k) for p in patterns for k in kinds) else sorted(kinds)


_PREFIXES = {
    "service-quotas": "servicequotas",
    "elb": "elasticloadbalancing",
    "elbv2": "elasticloadbalancing",
}
_OPERATIONS = {
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "DeleteObjects": "DeleteObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
"""Actions of S3 whose name differs from the operation (S3 User Guide, "Policy actions")."""
_TEXT = re.compile(
    r"not authorized to perform: (?P<action>[\w-]+:\w+)(?: on resource: \"?(?P<on>[^\s\"]+))?"
)
_DENIES = re.compile(
    r"explicit deny in an? ([\w -]+? policy|permissions boundary)"
    r"|no ([\w ]+? control policy|session policy|VPC endpoint policy|permissions boundary) allows"
)


def cure(error: BaseException) -> str:
    """Return the fix for an AWS access denial: action, resource and statement; "" for other errors.

    It parses the messages in the IAM User Guide, "Troubleshoot access denied error messages".
    Without an action in the message, it is derived from the operation; without a resource, the
    fix has ``*``.

    >>> from botocore.exceptions import ClientError
    >>> about = {"Code": "AccessDenied", "Message": "Access Denied"}
    >>> meta = {"Service": "s3"}
    >>> error = ClientError({"Error": about, "ResponseMetadata": meta}, "PutBucketEncryption")
    >>> print(cure(error))
    Allow s3:PutEncryptionConfiguration on *: add to the policies of your identity
      {"Effect": "Allow", "Action": "s3:PutEncryptionConfiguration", "Resource": "*"}
    """
    response = getattr(error, "response", None)
    about = response.get("Error", {}) if isinstance(response, dict) else {}
    code, text = str(about.get("Code", "")), str(about.get("Message", ""))
    if not re.fullmatch(
        r"AccessDenied(Exception)?|UnauthorizedOperation|AuthorizationError|403", code
    ):
        return ""
    if found := _TEXT.search(text):
        action, resource = found["action"], found["on"] or "*"
    else:
        action, resource = _action(error), "*"
    if by := _DENIES.search(text):
        noun = by[1] or by[2]
        article = "an" if noun[0] in "aeiou" else "a"
        return f"{article} {noun} refuses {action} on {resource}; ask whoever maintains it."
    statement = json.dumps({"Effect": "Allow", "Action": action, "Resource": resource})
    return f"Allow {action} on {resource}: add to the policies of your identity\n  {statement}"


def _action(error: BaseException) -> str:
    """Return the IAM action of the denied operation."""
    response = getattr(error, "response", None) or {}
    service = str(response.get("ResponseMetadata", {}).get("Service", ""))
    operation = str(getattr(error, "operation_name", ""))
    return f"{_PREFIXES.get(service, service)}:{_OPERATIONS.get(operation, operation)}"
