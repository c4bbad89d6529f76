"""One table of AWS errors: whether to wait and look again, to stop, or to read it as success.

botocore itself retries throttling, 5xx answers and broken connections a few times (mode
``standard``); this table is for the errors that remain.  Sources: the error sections of the EKS,
EC2, IAM, S3 and SageMaker API references.
"""

from __future__ import annotations

import re
from enum import StrEnum

from hyperpod_eks.frozen import frozen


class ErrorKind(StrEnum):
    """The reaction to an error; the value describes it for people."""

    THROTTLE = "AWS is throttling us"
    PROPAGATION = "waiting for AWS to see a new role or permission"
    PREREQUISITES = "HyperPod does not see yet what it needs before its cluster"
    UNSERVED = "Kubernetes does not serve it yet"
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
    ErrorKind.UNSERVED: 1200,
    ErrorKind.BUSY: 3600,
    ErrorKind.DEPENDENCY: 1200,
    ErrorKind.NOT_FOUND_YET: 300,
    ErrorKind.EXISTS: 120,
    ErrorKind.GONE: 300,
    ErrorKind.UNKNOWN: 300,
}
"""Seconds to wait for each kind of error to end, from its first one on a resource."""


@frozen
class Rule:
    """One row of regular expressions: ``says`` is searched in the message, others match fully."""

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
    Rule(ErrorKind.CAPACITY, "(?!Request|Bandwidth).*LimitExceeded", "ec2"),  # one per kind
    Rule(ErrorKind.CAPACITY, "LimitExceededException", "logs"),
    Rule(ErrorKind.CAPACITY, "ServiceLimitExceeded", "fsx"),
    Rule(
        ErrorKind.CAPACITY, "UnsupportedAvailabilityZoneException", "eks"
    ),  # the zone is full; the message names others
    # the client token was used with other parameters; a resource that it created shows up soon
    Rule(ErrorKind.EXISTS, "IdempotentParameterMismatch", "ec2"),
    Rule(ErrorKind.EXISTS, "IncompatibleParameterError", "fsx", "Create.*"),
    # the same; EKS documents no error code for it
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
    # a service does not see a new role, policy or access entry yet
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
        "CreateAccessEntry|(Create|Update)PodIdentityAssociation",
        "invalid principal|does not exist|is invalid",
    ),
    Rule(
        ErrorKind.PROPAGATION,
        "ValidationException",
        "sagemaker",
        "CreateCluster|UpdateCluster",
        "(?i)assume.*role|role.*assume|role .*permission",
    ),
    # FSx sees new rules of a security group late
    Rule(ErrorKind.PROPAGATION, "InvalidNetworkSettings", "fsx", "CreateFileSystem", r"\b988\b"),
    # the add-on may still be starting; the preflight reports a version that is too old
    Rule(
        ErrorKind.PROPAGATION, "ValidationException", "sagemaker", "CreateCluster", r"(?i)\bcni\b"
    ),
    # the account's first cluster, and objects that are minutes old in the EKS cluster
    Rule(
        ErrorKind.PREREQUISITES,
        "ValidationException|ResourceNotFound(Exception)?|ConflictException",
        "sagemaker",
        "CreateCluster",
        r"(?i)service.linked.role|access.entr|\bhelm\b|dependenc|\badd-?ons?\b",
    ),
    Rule(ErrorKind.PROPAGATION, "MalformedPolicyDocument", "iam", says="Invalid principal"),
    Rule(ErrorKind.PROPAGATION, "ResourcePropagationDelayException"),
    # task governance: its settings of a cluster have to be deleted first, quotas before the policy
    Rule(
        ErrorKind.DEPENDENCY,
        "ValidationException|ConflictException|ResourceInUse",
        "sagemaker",
        "DeleteCluster|DeleteClusterSchedulerConfig",
        "(?i)quota|scheduler|governance",
    ),
    # a service account has a role by another association
    Rule(
        ErrorKind.EXISTS,
        "ResourceInUseException",
        "eks",
        "UpdateAddon",
        "(?i)association already exists",
    ),
    # another operation on the resource is in progress
    Rule(ErrorKind.BUSY, "ConcurrentModification|EntityTemporarilyUnmodifiable", "iam"),
    Rule(ErrorKind.BUSY, "OperationAborted", "s3"),
    Rule(ErrorKind.BUSY, "ConflictException", "sagemaker|logs|amp"),
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
    Rule(
        ErrorKind.BUSY,
        "BadRequest",
        "fsx",
        "Update.*|Delete.*",
        r"(?i)in progress|\bpending\b|\bexecuting\b|\b(creat|updat)ing\b",
    ),
    # another resource blocks the delete
    Rule(
        ErrorKind.DEPENDENCY,
        "DependencyViolation|InvalidGroup.InUse|InvalidIPAddress.InUse|VolumeInUse",
        "ec2",
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
    # created before, perhaps by an earlier request of ours
    Rule(ErrorKind.EXISTS, "EntityAlreadyExists", "iam"),
    Rule(ErrorKind.EXISTS, "InvalidInput", "iam", "CreateServiceLinkedRole", "has been taken"),
    Rule(ErrorKind.EXISTS, "ResourceInUseException", "eks", "Create.*"),
    # an update that botocore sent twice
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
    # the resource of a delete does not exist any more
    Rule(
        ErrorKind.GONE,
        r".*\.NotFound|.*NotFound|.*NotFoundException|NoSuch.*|ResourceNotFound|Gateway.NotAttached"
        "|404",
        operation="Delete.*|Detach.*|Release.*|Revoke.*|Disassociate.*",
    ),
    # a read of two calls, between which the resource was created or deleted
    Rule(
        ErrorKind.NOT_FOUND_YET,
        r".*NotFound(Exception)?|NoSuch.*|404",
        operation="Describe.*|List.*|Get.*|Head.*",
    ),
    # a create does not see a resource that was created a moment ago
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
    # only a person can change permissions
    Rule(
        ErrorKind.DENIED,
        "AccessDenied|AccessDeniedException|UnauthorizedOperation|AuthorizationError.*|Forbidden"
        "|OptInRequired|403",
    ),
)


def match_error(
    service: str, operation: str, code: str, message: str, status: int
) -> ErrorKind | None:
    """Return the kind of an error; None is a bug or a final refusal, which is never retried.

    ``service`` is botocore's name (``ec2``), ``operation`` the API's (``CreateVpc``), ``status``
    is the HTTP status.

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
    """Whether AWS's message for a failure says that capacity or quota is missing.

    >>> lacks_room("We currently do not have sufficient capacity for ml.p5.48xlarge")
    True
    >>> lacks_room("Lifecycle scripts did not run successfully")
    False
    >>> lacks_room("The compute quota team-a has an unknown instance type")
    False
    """
    return bool(re.search(_NO_ROOM, words, re.IGNORECASE))


_NO_ROOM = (
    r"\bcapacity\b|limit ?exceeded|service[ -]?(level )?(limit|quota)"
    r"|quota ?exceeded|exceed.*\bquotas?\b|\bquotas?\b.*exceed"
)


CLOCK = (
    "Signature expired|Signature not yet current|RequestTimeTooSkewed|RequestExpired"
    "|Request has expired"
)
"""AWS's codes and messages for a clock that is minutes off (EC2 API reference, "Error
codes"; IAM User Guide, "Troubleshooting Signature Version 4")."""


def renewal(words: str) -> str:
    """Return the hint for an error, given its code or message, about refused credentials."""
    if re.search(CLOCK, words):
        return "Nothing is lost: set this machine's clock and run the same command again."
    return "Nothing is lost: renew or correct the credentials and run the same command again."
