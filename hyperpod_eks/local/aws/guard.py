"""The guard at the door: with ``Sim.enforce`` callers may do only what their policies allow.

Callers are IAM users and sessions of roles; the default credentials may do everything.  A call
asks for its own action and for those that AWS asks for on the way: to tag at birth, to pass a role
(Service Authorization Reference).  ``roles.decide`` evaluates the policies; resources are told
apart where the request names them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends
from moto.iam.models import Role, User, iam_backends
from moto.s3.models import s3_backends
from moto.sts.models import sts_backends

from hyperpod_eks.local.aws import roles
from hyperpod_eks.local.aws.roles import Wish
from hyperpod_eks.local.aws.sim import ACCOUNT, ADMIN_ARN, Fault, current

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PREFIX = {
    "amp": "aps",
    "efs": "elasticfilesystem",
    "service-quotas": "servicequotas",
    "elbv2": "elasticloadbalancing",
    "elb": "elasticloadbalancing",
}
_S3 = {
    "ListObjectsV2": "ListBucket",
    "HeadBucket": "ListBucket",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeleteObjects": "DeleteObject",
    "HeadObject": "GetObject",
}
"""Actions that are not called like the operation."""
_EC2 = {
    "vpc": "vpc",
    "subnet": "subnet",
    "igw": "internet-gateway",
    "nat": "natgateway",
    "rtb": "route-table",
    "sg": "security-group",
    "vpce": "vpc-endpoint",
    "eipalloc": "elastic-ip",
    "vol": "volume",
    "snap": "snapshot",
    "eni": "network-interface",
}
"""Resource types by the beginning of an id."""
_HYPERPOD = (
    "eks:DescribeCluster",
    "eks:CreateAccessEntry",
    "eks:DescribeAccessEntry",
    "eks:AssociateAccessPolicy",
)
"""What CreateCluster of HyperPod does with the caller's permissions (SageMaker developer guide)."""


def refusal(environ: WSGIEnvironment, service: str, operation: str) -> Fault | None:
    """Return how a call is refused; None when it may be made.  The body stays readable."""
    authorization = environ.get("HTTP_AUTHORIZATION", "") or unquote(environ["QUERY_STRING"])
    key = re.search(r"Credential=([^/]+)/", authorization)
    caller = _caller(key[1]) if key else None
    if caller is None or service == "sts":
        return None
    principal, arn = caller
    for wish in wishes(_Request(environ, _PREFIX.get(service, service), operation)):
        found = roles.decide(principal, wish)
        if found.decision != "allowed":
            text = (
                f"User: {arn} is not authorized to perform: {wish.action} on resource: "
                f"{wish.resource or '*'} {found.why}"
            )
            code = {"ec2": "UnauthorizedOperation"}.get(service, "AccessDeniedException")
            code = "AccessDenied" if service in ("s3", "iam", "elbv2", "elb") else code
            return Fault(service, operation, code, 403, text)
    return None


def _caller(key: str) -> tuple[User | Role, str] | None:
    """Return who signs with an access key, and their ARN; None for who may do everything."""
    iam = iam_backends[ACCOUNT]["aws"]
    if session := sts_backends[ACCOUNT]["aws"].get_assumed_role_from_access_key(key):
        role = principal_of(session.role_arn)
        return (role, session.arn) if role else None
    user = iam.get_user_from_access_key_id(key)
    return (user, user.arn) if user else None


def principal_of(arn: str) -> User | Role | None:
    """Return the IAM user or role with this ARN; the role of the default credentials is none."""
    iam = iam_backends[ACCOUNT]["aws"]
    known: list[User | Role] = [*iam.users.values(), *iam.roles.values()]
    return next((each for each in known if each.arn == arn and arn != ADMIN_ARN), None)


# -- what a call asks for ------------------------------------------------------------------------


class _Request:
    """A request as far as permissions go: parameters by name, wherever they stand."""

    def __init__(self, environ: WSGIEnvironment, service: str, operation: str) -> None:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        self.service, self.operation, self.body = service, operation, body
        self.path = unquote(environ["PATH_INFO"]).strip("/").split("/")
        self.headers = {k for k in environ if k.startswith(("HTTP_X_AMZ_", "HTTP_IF_"))}
        scope = re.search(r"Credential=[^/]+/\d+/([^/]*)/", environ.get("HTTP_AUTHORIZATION", ""))
        self.region = scope[1] if scope else current().region
        self.params: dict[str, Any] = {}
        if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
            self.params = dict(parse_qsl(body.decode()))
        elif service != "s3" and body.startswith(b"{"):
            self.params = json.loads(body)

    def arn(self, service: str, resource: str) -> str:
        """Spell an ARN of the account."""
        region = "" if service in ("iam", "s3") else self.region
        account = "" if service == "s3" else ACCOUNT
        return f"arn:aws:{service}:{region}:{account}:{resource}"


def wishes(request: _Request) -> Iterator[Wish]:
    """Yield every action that a call needs, with what it is done to."""
    service, operation = request.service, request.operation
    yield from _WISHES.get(service, _plain)(request, f"{service}:{operation}")


def _plain(request: _Request, action: str) -> Iterator[Wish]:
    yield Wish(action)


def _ec2(request: _Request, action: str) -> Iterator[Wish]:
    ids = sorted(
        value
        for value in map(str, request.params.values())
        if re.fullmatch(rf"({'|'.join(_EC2)})-[0-9a-f]+", value)
    )
    if request.operation.startswith("Describe") or not ids:
        yield Wish(action)
    for each in ids if not request.operation.startswith("Describe") else ():
        kind = _EC2[each.partition("-")[0]]
        found = ec2_backends[ACCOUNT][request.region].describe_tags({"resource-id": [each]})
        tags = {tag["key"]: tag["value"] for tag in found}
        yield Wish(action, request.arn("ec2", f"{kind}/{each}"), tags=tags)
    if any(name.startswith("TagSpecification") for name in request.params):
        # what is being created has no tags yet (IAM user guide, aws:ResourceTag)
        yield Wish("ec2:CreateTags", context={"ec2:CreateAction": request.operation}, tags={})


def _iam(request: _Request, action: str) -> Iterator[Wish]:
    params, context = request.params, dict[str, str]()
    resource = ""
    if name := params.get("RoleName"):
        known = iam_backends[ACCOUNT]["aws"].roles.values()
        arn = next((role.arn for role in known if role.name == name), "")
        resource = arn or request.arn("iam", f"role/{name}")
        context["iam:PolicyARN"] = params.get("PolicyArn", "")
    elif name := params.get("PolicyName"):
        resource = request.arn("iam", f"policy/{name}")
    elif name := params.get("AWSServiceName"):
        resource = request.arn("iam", f"role/aws-service-role/{name}/x")
        context["iam:AWSServiceName"] = name
    elif not action.endswith("SimulatePrincipalPolicy"):
        resource = params.get("PolicyArn", "")
    yield Wish(action, resource, context)
    if request.operation in ("CreateRole", "CreatePolicy") and "Tags.member.1.Key" in params:
        yield Wish(f"iam:Tag{request.operation.removeprefix('Create')}", resource)


def _s3(request: _Request, action: str) -> Iterator[Wish]:
    bucket, *key = request.path
    resource = request.arn("s3", "/".join([bucket, *key]))
    operation = request.operation
    name = _S3.get(operation, operation)
    if operation == "DeleteObjects":
        resource += "/x"
        if b"<VersionId>" in request.body:
            yield Wish("s3:DeleteObjectVersion", resource)
    yield Wish(f"s3:{name}", resource)
    if operation in ("GetObject", "HeadObject") and _is_absent(bucket, "/".join(key)):
        # S3 API GetObject, "Permissions": 404 with s3:ListBucket, otherwise 403
        yield Wish("s3:ListBucket", request.arn("s3", bucket))
    if operation in ("PutObject", "DeleteObject") and "HTTP_IF_MATCH" in request.headers:
        # S3 User Guide, "Enforce conditional writes", "Enforce conditional deletes"
        yield Wish("s3:GetObject", resource)
    if operation == "CreateBucket" and "HTTP_X_AMZ_OBJECT_OWNERSHIP" in request.headers:
        yield Wish("s3:PutBucketOwnershipControls", resource)
    if operation == "CreateBucket" and b"<Tags>" in request.body:
        yield Wish("s3:TagResource", resource)


def _is_absent(bucket: str, key: str) -> bool:
    s3 = s3_backends[ACCOUNT]["aws"]
    return bucket in s3.buckets and s3.get_object(bucket, key) is None


def _eks(request: _Request, action: str) -> Iterator[Wish]:
    params, path = request.params, request.path
    name = path[1] if path[0] == "clusters" and len(path) > 1 else params.get("name", "")
    kinds = {"addons": "addon", "access-entries": "access-entry"}
    part = next((kinds[each] for each in path if each in kinds), "")
    resource = request.arn("eks", f"{part}/{name}/x" if part else f"cluster/{name}")
    if path[0] == "tags":
        resource = "/".join(path[1:])
    yield Wish(action, resource if name or path[0] == "tags" else "")
    if params.get("tags") and request.operation.startswith("Create"):
        yield Wish("eks:TagResource", resource)
    if request.operation == "CreateCluster":
        yield Wish("iam:PassRole", params["roleArn"], {"iam:PassedToService": "eks.amazonaws.com"})


def _sagemaker(request: _Request, action: str) -> Iterator[Wish]:
    from hyperpod_eks.local.aws.hyperpod_clusters import of_region  # noqa: PLC0415  imports iam

    params = request.params
    name = params.get("ClusterName") or params.get("ResourceArn") or ""
    known = of_region(request.region).hyperpod.values()
    found = next((one for one in known if name in (one.name, one.arn)), None)
    resource = request.arn("sagemaker", f"cluster/{name}") if name else ""
    yield Wish(action, found.arn if found else resource, tags=found.tags if found else None)
    if request.operation == "CreateCluster":
        if params.get("Tags"):
            yield Wish("sagemaker:AddTags", resource)
        eks = params["Orchestrator"]["Eks"]["ClusterArn"]
        for each in _HYPERPOD:
            entry = eks.replace(":cluster/", ":access-entry/") + "/x"
            yield Wish(each, eks if each == "eks:DescribeCluster" else entry)
    if request.operation in ("CreateCluster", "UpdateCluster"):
        passed = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        for role in _roles(params.get("InstanceGroups") or ()):
            yield Wish("iam:PassRole", role, passed)


def _roles(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({group["ExecutionRole"] for group in groups})


def _elb(request: _Request, action: str) -> Iterator[Wish]:
    params, backend = request.params, elbv2_backends[ACCOUNT][request.region]
    arn = params.get("LoadBalancerArn") or params.get("TargetGroupArn") or ""
    there = arn in backend.load_balancers or arn in backend.target_groups
    tags = backend.tagging_service.get_tag_dict_for_resource(arn) if there else None
    yield Wish(action, arn, tags=tags)


def _logs(request: _Request, action: str) -> Iterator[Wish]:
    params = request.params
    name = params.get("logGroupName", "")
    resource = request.arn("logs", f"log-group:{name}") if name else params.get("resourceArn", "")
    yield Wish(action, resource)
    if request.operation == "CreateLogGroup" and params.get("tags"):
        yield Wish("logs:TagResource", resource)


def _fsx(request: _Request, action: str) -> Iterator[Wish]:
    from hyperpod_eks.local.aws.fsx import of_region  # noqa: PLC0415  slow to load

    params, backend = request.params, of_region(request.region)
    id_, arn = params.get("FileSystemId") or "", params.get("ResourceARN") or ""
    if id_ and not arn:
        arn = request.arn("fsx", f"file-system/{id_}")
    if link := backend.links.get(params.get("AssociationId") or ""):
        arn = link["ResourceARN"]
    if request.operation == "CreateFileSystem":
        arn = request.arn("fsx", "file-system/*")
    every = (*backend.systems.values(), *backend.links.values())
    tags = [tag for one in every if one["ResourceARN"] == arn for tag in one["Tags"]]
    lustre = params.get("LustreConfiguration") or {}
    sent = params.get("Tags") or lustre.get("FinalBackupTags") or ()
    context = {f"aws:RequestTag/{tag['Key']}": str(tag["Value"]) for tag in sent}
    there = {tag["Key"]: tag["Value"] for tag in tags}
    yield Wish(action, arn, context, tags=there)
    if request.operation == "CreateDataRepositoryAssociation":
        arn = request.arn("fsx", f"association/{id_}/*")
        yield Wish(action, arn, context, tags={})
    if params.get("Tags") and request.operation.startswith("Create"):
        yield Wish("fsx:TagResource", arn, context, tags={})
    if lustre.get("SkipFinalBackup") is False:  # DeleteFileSystemLustreConfiguration
        backup = request.arn("fsx", "backup/*")
        yield Wish("fsx:CreateBackup", arn, context, tags=there)
        yield Wish("fsx:CreateBackup", backup, context, tags={})
        if lustre.get("FinalBackupTags"):
            yield Wish("fsx:TagResource", backup, context, tags={})


def _amp(request: _Request, action: str) -> Iterator[Wish]:
    from hyperpod_eks.local.aws.amp import of_region  # noqa: PLC0415  slow to load

    found, start = of_region(request.region).found, request.path[0]
    id_ = request.path[-1] if request.path[1:] and start in ("workspaces", "tags") else ""
    sent = request.params.get("tags") or {}
    context = {f"aws:RequestTag/{key}": str(value) for key, value in sent.items()}
    arn = request.arn("aps", f"workspace/{id_}") if id_ else ""
    yield Wish(action, arn, context, tags=found[id_]["tags"] if id_ in found else {})
    if request.operation == "CreateWorkspace" and sent:
        yield Wish("aps:TagResource", request.arn("aps", "workspace/*"), context, tags={})


_WISHES = {
    "aps": _amp,
    "fsx": _fsx,
    "ec2": _ec2,
    "iam": _iam,
    "s3": _s3,
    "eks": _eks,
    "sagemaker": _sagemaker,
    "logs": _logs,
    "elasticloadbalancing": _elb,
}
