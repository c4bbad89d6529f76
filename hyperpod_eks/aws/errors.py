"""What an AWS error means for us, as one table: wait and look again, stop, or read as success.

botocore already retries throttling, 5xx answers and broken connections a few times by itself
(mode ``standard``); what stands here is what it leaves to its caller.  Sources: the error
sections of the EKS, EC2, IAM, S3 and SageMaker API references.
"""

from __future__ import annotations

import re
from enum import StrEnum

from hyperpod_eks.frozen import frozen


class ErrorKind(StrEnum):
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


PATIENCE: dict[ErrorKind, float] = {
    ErrorKind.THROTTLE: 600,
    ErrorKind.PROPAGATION: 180,
    ErrorKind.PREREQUISITES: 300,
    ErrorKind.BUSY: 3600,
    ErrorKind.DEPENDENCY: 1200,
    ErrorKind.NOT_FOUND_YET: 300,
    ErrorKind.EXISTS: 120,
    ErrorKind.GONE: 300,
    ErrorKind.UNKNOWN: 300,
}
"""Seconds that each class is waited out, counted from its first error on one resource."""


@frozen
class Rule:
    """One row: ``operation``, ``code`` and ``says`` are regular expressions (``says`` searches)."""

    to: ErrorKind
    code: str
    service: str = ".*"
    operation: str = ".*"
    says: str = ""


TABLE: tuple[Rule, ...] = (
    # credentials: never retried
    Rule(
        ErrorKind.EXPIRED,
        "ExpiredToken|ExpiredTokenException|RequestExpired|UnrecognizedClientException"
        "|InvalidClientTokenId|InvalidAccessKeyId|SignatureDoesNotMatch|RequestTimeTooSkewed"
        "|InvalidSignatureException"
        "|InvalidIdentityToken",  # of AssumeRoleWithWebIdentity
    ),
    Rule(
        ErrorKind.EXPIRED,
        "AuthFailure",
        says="not able to validate the provided access credentials",
    ),
    # quota and capacity: never retried
    Rule(
        ErrorKind.CAPACITY,
        "ResourceLimitExceeded|ResourceLimitExceededException|ServiceQuotaExceededException"
        "|LimitExceeded|Insufficient(Instance|Address)Capacity|TooManyBuckets",
    ),
    Rule(ErrorKind.CAPACITY, "(?!Request|Bandwidth).*LimitExceeded", "ec2"),  # one for each kind
    Rule(ErrorKind.CAPACITY, "LimitExceededException", "logs"),
    Rule(
        ErrorKind.CAPACITY, "UnsupportedAvailabilityZoneException", "eks"
    ),  # full: says which are not
    # a client token that came with other parameters before, whose thing shows soon, if there is one
    Rule(ErrorKind.EXISTS, "IdempotentParameterMismatch", "ec2"),
    # EKS documents no error for it
    Rule(
        ErrorKind.EXISTS,
        "InvalidParameterException|InvalidRequestException",
        "eks",
        "Create.*",
        "(?i)client ?request ?token|idempoten",
    ),
    # throttling
    Rule(
        ErrorKind.THROTTLE,
        "Throttl.*|RequestLimitExceeded|TooManyRequestsException|SlowDown|EC2ThrottledException"
        "|RequestThrottled.*|BandwidthLimitExceeded|PriorRequestNotComplete",
    ),
    # a new role, policy or entry that a service does not see yet
    Rule(
        ErrorKind.PROPAGATION,
        "InvalidParameterException",
        "eks",
        "CreateCluster|CreateAddon|UpdateAddon",
        "does not exist|role params|could not be assumed|doesn't have the Amazon EKS Managed"
        "|must include the `ec2:|CREATE_FAILED",
    ),
    Rule(
        ErrorKind.PROPAGATION,
        "InvalidParameterException",
        "eks",
        "CreateAccessEntry|CreatePodIdentityAssociation",
        "invalid principal|does not exist|is invalid",
    ),
    Rule(
        ErrorKind.PROPAGATION,
        "ValidationException",
        "sagemaker",
        "CreateCluster|UpdateCluster",
        "(?i)assume.*role|role.*assume|role .*permission",
    ),
    # the add-on may still be coming; a version that will not do is told by the preflight
    Rule(
        ErrorKind.PROPAGATION, "ValidationException", "sagemaker", "CreateCluster", r"(?i)\bcni\b"
    ),
    # the first cluster of an account, and what is minutes old in its EKS cluster
    Rule(
        ErrorKind.PREREQUISITES,
        "ValidationException|ResourceNotFound(Exception)?|ConflictException",
        "sagemaker",
        "CreateCluster",
        r"(?i)service.linked.role|access.entr|\bhelm\b|dependenc|\badd-?ons?\b",
    ),
    Rule(ErrorKind.PROPAGATION, "MalformedPolicyDocument", "iam", says="Invalid principal"),
    Rule(ErrorKind.PROPAGATION, "ResourcePropagationDelayException"),
    # task governance: what it put on a cluster has to go first
    Rule(
        ErrorKind.DEPENDENCY,
        "ValidationException|ConflictException|ResourceInUse",
        "sagemaker",
        "DeleteCluster",
        "(?i)quota|scheduler|governance",
    ),
    # something else is being done to it
    Rule(ErrorKind.BUSY, "ConcurrentModification|EntityTemporarilyUnmodifiable", "iam"),
    Rule(ErrorKind.BUSY, "OperationAborted", "s3"),
    Rule(ErrorKind.BUSY, "ConflictException", "sagemaker|logs"),
    Rule(ErrorKind.BUSY, "OperationAbortedException|ServiceUnavailableException", "logs"),
    Rule(
        ErrorKind.BUSY,
        "ResourceInUseException",
        "eks",
        "Delete.*|Update.*|Associate.*",
    ),
    Rule(
        ErrorKind.BUSY, "InvalidRequestException", "eks", says="(?i)in progress|not in (an )?active"
    ),
    Rule(ErrorKind.BUSY, "IncorrectState|IncorrectInstanceState", "ec2"),
    # a delete that something still holds
    Rule(
        ErrorKind.DEPENDENCY, "DependencyViolation|InvalidGroup.InUse|InvalidIPAddress.InUse", "ec2"
    ),
    Rule(
        ErrorKind.DEPENDENCY,
        "AuthFailure|InvalidParameterValue",
        "ec2",
        "ReleaseAddress|DeleteNetw.*",
    ),
    Rule(ErrorKind.DEPENDENCY, "OperationNotPermitted", "ec2", "Delete.*|Detach.*"),
    Rule(ErrorKind.DEPENDENCY, "DeleteConflict", "iam"),
    Rule(ErrorKind.DEPENDENCY, "BucketNotEmpty", "s3"),
    # somebody, perhaps we ourselves a moment ago, was first
    Rule(ErrorKind.EXISTS, "EntityAlreadyExists", "iam"),
    Rule(ErrorKind.EXISTS, "InvalidInput", "iam", "CreateServiceLinkedRole", "has been taken"),
    Rule(ErrorKind.EXISTS, "ResourceInUseException", "eks", "Create.*"),
    # an update that botocore had to send again
    Rule(
        ErrorKind.EXISTS,
        "InvalidParameterException",
        "eks",
        "Update.*",
        "No changes needed|already at the desired configuration",
    ),
    Rule(ErrorKind.EXISTS, "ResourceInUse", "sagemaker", "Create.*"),
    Rule(ErrorKind.EXISTS, "BucketAlreadyOwnedByYou|BucketAlreadyExists", "s3"),
    Rule(ErrorKind.EXISTS, "ResourceAlreadyExistsException", "logs"),
    Rule(
        ErrorKind.EXISTS, "InvalidGroup.Duplicate|InvalidSubnet.Conflict|RouteAlreadyExists", "ec2"
    ),
    Rule(ErrorKind.EXISTS, "InvalidPermission.Duplicate|Resource.AlreadyAssociated", "ec2"),
    # a delete of what is not there any more
    Rule(
        ErrorKind.GONE,
        r".*\.NotFound|.*NotFound|.*NotFoundException|NoSuch.*|ResourceNotFound|Gateway.NotAttached"
        "|404",
        operation="Delete.*|Detach.*|Release.*|Revoke.*|Disassociate.*",
    ),
    # a look of two questions, between which it came or went
    Rule(
        ErrorKind.NOT_FOUND_YET,
        r".*NotFound(Exception)?|NoSuch.*|404",
        operation="Describe.*|List.*|Get.*|Head.*",
    ),
    # a create that cannot see what was made a moment ago
    Rule(ErrorKind.NOT_FOUND_YET, r".*\.NotFound|NatGatewayNotFound|InvalidGatewayID.*", "ec2"),
    Rule(ErrorKind.NOT_FOUND_YET, "Gateway.NotAttached", "ec2", "Create.*"),
    Rule(ErrorKind.NOT_FOUND_YET, "NoSuchEntity", "iam", "Attach.*|Create.*|Put.*|Tag.*"),
    Rule(ErrorKind.NOT_FOUND_YET, "NoSuchBucket", "s3", "Put.*"),
    Rule(
        ErrorKind.NOT_FOUND_YET,
        "ResourceNotFoundException",
        "eks",
        "Associate.*|Create.*|Update.*|Tag.*",
    ),
    Rule(
        ErrorKind.NOT_FOUND_YET,
        "InvalidParameterException",
        "eks",
        "CreateCluster",
        "following (subnets|security groups) do not exist",
    ),
    # what only a person can change
    Rule(
        ErrorKind.DENIED,
        "AccessDenied|AccessDeniedException|UnauthorizedOperation|AuthorizationError.*|Forbidden"
        "|OptInRequired|403",
    ),
)


def match_error(
    service: str, operation: str, code: str, message: str, status: int
) -> ErrorKind | None:
    """Find what an error means; None is a bug or a plain refusal, which is never retried.

    ``service`` is botocore's name (``ec2``), ``operation`` the API's (``CreateVpc``), ``status``
    the HTTP status.

    >>> match_error("ec2", "DeleteVpc", "DependencyViolation", "has dependencies", 400).name
    'DEPENDENCY'
    >>> match_error("ec2", "CreateVpc", "InvalidVpc.Range", "", 400) is None
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
    return ErrorKind.UNKNOWN if status >= 500 else None


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
