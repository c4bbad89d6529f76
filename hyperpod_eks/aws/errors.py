"""What an AWS error means for us, as one table: wait and look again, stop, or read as success.

botocore already retries throttling, 5xx answers and broken connections a few times by itself
(mode ``standard``); what stands here is what it leaves to its caller.  Sources: the error
sections of the EKS, EC2, IAM, S3 and SageMaker API references.
"""

from __future__ import annotations

import re
from enum import StrEnum

from hyperpod_eks.frozen import frozen


class Class(StrEnum):
    """What to do about an error."""

    THROTTLE = "AWS is throttling us"
    PROPAGATION = "waiting for AWS to see a new role or permission"
    PREREQUISITES = "HyperPod does not see yet what it needs before its cluster"
    BUSY = "waiting for another operation to end"
    DEPENDENCY = "something still uses it"
    NOT_FOUND_YET = "AWS does not see it yet, or no longer; looking again"
    EXISTS = "it seems to exist already; looking again"
    UNKNOWN = "the answer was lost; looking again"
    GONE = "it seems to be gone; looking again"
    CAPACITY = "no capacity or quota"
    EXPIRED = "credentials expired"
    DENIED = "not allowed"


PATIENCE: dict[Class, float] = {
    Class.THROTTLE: 600,
    Class.PROPAGATION: 180,
    Class.PREREQUISITES: 300,
    Class.BUSY: 3600,
    Class.DEPENDENCY: 1200,
    Class.NOT_FOUND_YET: 300,
    Class.EXISTS: 120,
    Class.GONE: 300,
    Class.UNKNOWN: 300,
}
"""Seconds that each class is waited out, counted from its first error on one resource."""


@frozen
class Rule:
    """One row: ``operation``, ``code`` and ``says`` are regular expressions (``says`` searches)."""

    to: Class
    code: str
    service: str = ".*"
    operation: str = ".*"
    says: str = ""


TABLE: tuple[Rule, ...] = (
    # credentials: never retried
    Rule(
        Class.EXPIRED,
        "ExpiredToken|ExpiredTokenException|RequestExpired|UnrecognizedClientException"
        "|InvalidClientTokenId|InvalidAccessKeyId|SignatureDoesNotMatch|RequestTimeTooSkewed"
        "|InvalidSignatureException"
        "|InvalidIdentityToken",  # of AssumeRoleWithWebIdentity
    ),
    Rule(Class.EXPIRED, "AuthFailure", says="not able to validate the provided access credentials"),
    # quota and capacity: never retried
    Rule(
        Class.CAPACITY,
        "ResourceLimitExceeded|ResourceLimitExceededException|ServiceQuotaExceededException"
        "|LimitExceeded|Insufficient(Instance|Address)Capacity|TooManyBuckets",
    ),
    Rule(Class.CAPACITY, "(?!Request|Bandwidth).*LimitExceeded", "ec2"),  # one for each kind
    Rule(Class.CAPACITY, "LimitExceededException", "logs"),
    Rule(Class.CAPACITY, "UnsupportedAvailabilityZoneException", "eks"),  # full: says which are not
    # a client token that came with other parameters before, whose thing shows soon, if there is one
    Rule(Class.EXISTS, "IdempotentParameterMismatch", "ec2"),
    # EKS documents no error for it
    Rule(
        Class.EXISTS,
        "InvalidParameterException|InvalidRequestException",
        "eks",
        "Create.*",
        "(?i)client ?request ?token|idempoten",
    ),
    # throttling
    Rule(
        Class.THROTTLE,
        "Throttl.*|RequestLimitExceeded|TooManyRequestsException|SlowDown|EC2ThrottledException"
        "|RequestThrottled.*|BandwidthLimitExceeded|PriorRequestNotComplete",
    ),
    # a new role, policy or entry that a service does not see yet
    Rule(
        Class.PROPAGATION,
        "InvalidParameterException",
        "eks",
        "CreateCluster|CreateAddon|UpdateAddon",
        "does not exist|role params|could not be assumed|doesn't have the Amazon EKS Managed"
        "|must include the `ec2:|CREATE_FAILED",
    ),
    Rule(
        Class.PROPAGATION,
        "InvalidParameterException",
        "eks",
        "CreateAccessEntry|CreatePodIdentityAssociation",
        "invalid principal|does not exist|is invalid",
    ),
    Rule(
        Class.PROPAGATION,
        "ValidationException",
        "sagemaker",
        "CreateCluster|UpdateCluster",
        "(?i)assume.*role|role.*assume|role .*permission",
    ),
    # the add-on may still be coming; a version that will not do is told by the preflight
    Rule(Class.PROPAGATION, "ValidationException", "sagemaker", "CreateCluster", r"(?i)\bcni\b"),
    # the first cluster of an account, and what is minutes old in its EKS cluster
    Rule(
        Class.PREREQUISITES,
        "ValidationException|ResourceNotFound(Exception)?|ConflictException",
        "sagemaker",
        "CreateCluster",
        r"(?i)service.linked.role|access.entr|\bhelm\b|dependenc|\badd-?ons?\b",
    ),
    Rule(Class.PROPAGATION, "MalformedPolicyDocument", "iam", says="Invalid principal"),
    Rule(Class.PROPAGATION, "ResourcePropagationDelayException"),
    # task governance: what it put on a cluster has to go first
    Rule(
        Class.DEPENDENCY,
        "ValidationException|ConflictException|ResourceInUse",
        "sagemaker",
        "DeleteCluster",
        "(?i)quota|scheduler|governance",
    ),
    # something else is being done to it
    Rule(Class.BUSY, "ConcurrentModification|EntityTemporarilyUnmodifiable", "iam"),
    Rule(Class.BUSY, "OperationAborted", "s3"),
    Rule(Class.BUSY, "ConflictException", "sagemaker|logs"),
    Rule(Class.BUSY, "OperationAbortedException|ServiceUnavailableException", "logs"),
    Rule(
        Class.BUSY,
        "ResourceInUseException",
        "eks",
        "Delete.*|Update.*|Associate.*",
    ),
    Rule(Class.BUSY, "InvalidRequestException", "eks", says="(?i)in progress|not in (an )?active"),
    Rule(Class.BUSY, "IncorrectState|IncorrectInstanceState", "ec2"),
    # a delete that something still holds
    Rule(Class.DEPENDENCY, "DependencyViolation|InvalidGroup.InUse|InvalidIPAddress.InUse", "ec2"),
    Rule(
        Class.DEPENDENCY, "AuthFailure|InvalidParameterValue", "ec2", "ReleaseAddress|DeleteNetw.*"
    ),
    Rule(Class.DEPENDENCY, "OperationNotPermitted", "ec2", "Delete.*|Detach.*"),
    Rule(Class.DEPENDENCY, "DeleteConflict", "iam"),
    Rule(Class.DEPENDENCY, "BucketNotEmpty", "s3"),
    # somebody, perhaps we ourselves a moment ago, was first
    Rule(Class.EXISTS, "EntityAlreadyExists", "iam"),
    Rule(Class.EXISTS, "InvalidInput", "iam", "CreateServiceLinkedRole", "has been taken"),
    Rule(Class.EXISTS, "ResourceInUseException", "eks", "Create.*"),
    # an update that botocore had to send again
    Rule(
        Class.EXISTS,
        "InvalidParameterException",
        "eks",
        "Update.*",
        "No changes needed|already at the desired configuration",
    ),
    Rule(Class.EXISTS, "ResourceInUse", "sagemaker", "Create.*"),
    Rule(Class.EXISTS, "BucketAlreadyOwnedByYou|BucketAlreadyExists", "s3"),
    Rule(Class.EXISTS, "ResourceAlreadyExistsException", "logs"),
    Rule(Class.EXISTS, "InvalidGroup.Duplicate|InvalidSubnet.Conflict|RouteAlreadyExists", "ec2"),
    Rule(Class.EXISTS, "InvalidPermission.Duplicate|Resource.AlreadyAssociated", "ec2"),
    # a delete of what is not there any more
    Rule(
        Class.GONE,
        r".*\.NotFound|.*NotFound|.*NotFoundException|NoSuch.*|ResourceNotFound|Gateway.NotAttached"
        "|404",
        operation="Delete.*|Detach.*|Release.*|Revoke.*|Disassociate.*",
    ),
    # a look of two questions, between which it came or went
    Rule(
        Class.NOT_FOUND_YET,
        r".*NotFound(Exception)?|NoSuch.*|404",
        operation="Describe.*|List.*|Get.*|Head.*",
    ),
    # a create that cannot see what was made a moment ago
    Rule(Class.NOT_FOUND_YET, r".*\.NotFound|NatGatewayNotFound|InvalidGatewayID.*", "ec2"),
    Rule(Class.NOT_FOUND_YET, "Gateway.NotAttached", "ec2", "Create.*"),
    Rule(Class.NOT_FOUND_YET, "NoSuchEntity", "iam", "Attach.*|Create.*|Put.*|Tag.*"),
    Rule(Class.NOT_FOUND_YET, "NoSuchBucket", "s3", "Put.*"),
    Rule(
        Class.NOT_FOUND_YET,
        "ResourceNotFoundException",
        "eks",
        "Associate.*|Create.*|Update.*|Tag.*",
    ),
    Rule(
        Class.NOT_FOUND_YET,
        "InvalidParameterException",
        "eks",
        "CreateCluster",
        "following (subnets|security groups) do not exist",
    ),
    # what only a person can change
    Rule(
        Class.DENIED,
        "AccessDenied|AccessDeniedException|UnauthorizedOperation|AuthorizationError.*|Forbidden"
        "|OptInRequired|403",
    ),
)


def classify(service: str, operation: str, code: str, message: str, status: int) -> Class | None:
    """Find what an error means; None is a bug or a plain refusal, which is never retried.

    ``service`` is botocore's name (``ec2``), ``operation`` the API's (``CreateVpc``), ``status``
    the HTTP status.

    >>> classify("ec2", "DeleteVpc", "DependencyViolation", "has dependencies", 400).name
    'DEPENDENCY'
    >>> classify("ec2", "CreateVpc", "InvalidVpc.Range", "", 400) is None
    True
    """
    for rule in TABLE:
        if (
            re.fullmatch(rule.code, code)
            and re.fullmatch(rule.service, service)
            and re.fullmatch(rule.operation, operation)
            and re.search(rule.says, message)
        ):
            return rule.to
    return Class.UNKNOWN if status >= 500 else None


def lacks_room(words: str) -> bool:
    """Tell from AWS's words for a failure whether capacity or quota is what was missing.

    >>> lacks_room("We currently do not have sufficient capacity for ml.p5.48xlarge")
    True
    >>> lacks_room("Lifecycle scripts did not run successfully")
    False
    """
    return bool(re.search(r"(?i)\bcapacity\b|\bquota|limit ?exceeded|service limit", words))


CLOCK = (
    "Signature expired|Signature not yet current|RequestTimeTooSkewed|RequestExpired"
    "|Request has expired"
)
"""What AWS says of a request whose time is more than some minutes off (EC2 API reference, "Error
codes"; IAM User Guide, "Troubleshooting Signature Version 4")."""


def renewal(words: str) -> str:
    """Say how to go on when AWS does not take the credentials."""
    if re.search(CLOCK, words):
        return "Nothing is lost: set this machine's clock and run the same command again."
    return "Nothing is lost: renew or correct the credentials and run the same command again."
