"""The only access to AWS: one session, its clients (created on first use), and the caller."""

from __future__ import annotations

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from hyperpod_eks.aws import answers
from hyperpod_eks.aws.answers import NoAnswer, Watch
from hyperpod_eks.aws.rate_limit import Pace
from hyperpod_eks.aws.redaction import LOGIN
from hyperpod_eks.aws.session import new_client, region_of, usable_settings
from hyperpod_eks.aws.tags import CLUSTER, LABEL, LINEAGE
from hyperpod_eks.documents import Json, JsonMapping, JsonObject
from hyperpod_eks.errors import HyperpodError
from hyperpod_eks.frozen import frozen
from hyperpod_eks.workers import Shared

if TYPE_CHECKING:
    from botocore.model import OperationModel
    from botocore.session import Session
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import TagTypeDef
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sagemaker import SageMakerClient
    from mypy_boto3_sts import STSClient

log = logging.getLogger(__name__)


@frozen
class Identity:
    """The caller's ARN, account, partition (``sts:GetCallerIdentity``) and region."""

    arn: str
    account: str
    partition: str
    region: str


class Aws:
    """One cluster's view of one account and region.

    ``cluster`` and ``lineage`` are tags of every resource that is created.  Endpoint, credentials
    and certificates come from the ordinary AWS configuration (``AWS_ENDPOINT_URL`` included).
    """

    def __init__(self, session: Session, cluster: str, tags: Mapping[str, str]) -> None:
        self.session = session
        self.cluster = cluster
        self.user_tags = dict(tags)
        self.lineage = ""
        self.adopted: Mapping[str, str] = {}
        """Ids of existing resources that are used instead of ours, by our resource's key."""
        self.principal = ""
        """ARN of the caller's IAM role or user; empty until it is read."""
        self.recorded: set[str] = set()
        """ARNs of all resources, current and former, that the manifest records."""
        self.signatures: dict[str, str | None] = {}
        """Lineage tags by ARN, each read once; only for ARNs that AWS never reuses."""
        self.failures: dict[str, str] = {}
        """Reasons why nodes do not start, by HyperPod cluster's name and by event id."""
        self.not_listed: dict[str, str] = {}
        """Services that were not asked for tagged resources, with the reasons."""
        self.backups: dict[str, str] = {}
        """Ids of the backups that this run has begun, by id of what is deleted once they end."""
        self._asked: dict[Hashable, float] = {}
        self.lock = threading.RLock()
        """Held while a client is created: botocore's sessions are not thread-safe then."""
        self.region = region_of(session)
        """Region of the clients."""
        self.before_change: Callable[[], None] = lambda: None
        """Called before each request that may change something; what it raises stops it."""
        self.claimed = ""
        """The bucket that has the claim on the cluster."""
        self.end_claim: Callable[[], None] = lambda: None
        """Called when the cluster's bucket is empty but for the claim, before it is deleted."""
        self._paces: dict[str, Pace] = {}
        self._shared = Shared()
        self._watch = Watch()

    def elsewhere(self, region: str) -> Aws:
        """Return clients for another region; the session is shared, so MFA is asked for once."""
        other = Aws(self.session, self.cluster, self.user_tags)
        other.region, other.lock = region, self.lock
        return other

    def seldom(self, question: Hashable, seconds: float) -> bool:
        """Whether a question may be asked again; at most one True per ``seconds``."""
        with self.lock:
            now = time.monotonic()
            due = now - self._asked.get(question, -math.inf) >= seconds
            if due:
                self._asked[question] = now
            return due

    def warm(self, *clients: str) -> None:
        """Create clients before their first calls.

        Their creation takes 0.1 s of CPU in all; calls that had to wait for it would not overlap.
        """
        for client in clients:
            getattr(self, client)

    def _client(
        self,
        service: str,
        *,
        once: bool = False,
        connect: float = 0,
        answer: float = 0,
    ) -> Any:  # by service
        from botocore.config import Config  # noqa: PLC0415  botocore costs 0.15 s

        # a single attempt means no retries
        with self.lock, usable_settings(self.session):
            retries: Json = {"total_max_attempts": 1} if once else self._retries()
            made = new_client(
                self.session,
                service,
                self.region,
                config=Config(
                    max_pool_connections=16,  # for every worker
                    connect_timeout=connect or answers.CONNECT,
                    read_timeout=answer or answers.ANSWER,
                    retries=retries,
                ),
            )
        # of this client alone: the session may be a program's own
        made._make_api_call = partial(self._answer, made)
        made.meta.events.register("after-call", _name_service)
        self._watch.attach(made)
        if not once:  # only the engine repeats single attempts
            self._paces.setdefault(service, Pace(service)).attach(made)
        # after the wait for the rate limit, in which another run may take over
        made.meta.events.register("before-send", self._check, unique_id="check")
        return made

    def _check(self, event_name: str, **_: object) -> None:
        if not _READS.match(event_name.rpartition(".")[2]):
            self.before_change()

    def _answer(self, client: Any, name: str, request: JsonMapping) -> Json:
        """Make a call, in place of the client's own method: all its methods and pages come here."""
        call = f"{client.meta.service_model.service_name}:{name}"
        if name == "HeadBucket" and request.get("Bucket") is None:
            # botocore answers a redirect with HeadBucket; S3 redirects only requests for buckets
            raise NoAnswer("S3 is redirected elsewhere for a request that names no bucket")
        try:
            return Answer.of(call, type(client)._make_api_call(client, name, request))
        finally:
            self._watch.end()  # botocore has no event for a call that Ctrl-C interrupts

    def _retries(self) -> JsonObject:
        """Return botocore's ``retries``: the user's settings, or nine attempts in standard mode."""
        session = self.session
        mode = os.environ.get("AWS_RETRY_MODE") or session.get_scoped_config().get("retry_mode")
        total = session.get_config_variable("max_attempts")
        return {"mode": mode or "standard", "total_max_attempts": total or 9}

    @cached_property
    def amp(self) -> Any:
        """Amazon Managed Service for Prometheus."""
        return self._client("amp")

    @cached_property
    def ec2(self) -> EC2Client:
        """EC2, for calls that may be repeated."""
        return self._client("ec2")  # type: ignore[no-any-return]

    @cached_property
    def ec2_once(self) -> EC2Client:
        """EC2 with a single attempt, for creates that have neither token nor name.

        botocore resends a request whose answer was lost; CreateVpc, CreateInternetGateway and
        AllocateAddress would then create a duplicate.
        """
        return self._client("ec2", once=True)  # type: ignore[no-any-return]

    @cached_property
    def ecr(self) -> Any:
        """Amazon ECR."""
        return self._client("ecr")

    @cached_property
    def eks(self) -> EKSClient:
        """Amazon EKS."""
        return self._client("eks")  # type: ignore[no-any-return]

    @cached_property
    def efs(self) -> Any:
        """Amazon EFS."""
        return self._client("efs")

    @cached_property
    def fsx(self) -> Any:
        """Amazon FSx."""
        return self._client("fsx")

    @cached_property
    def iam(self) -> IAMClient:
        """IAM."""
        return self._client("iam")  # type: ignore[no-any-return]

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """CloudWatch Logs."""
        return self._client("logs")  # type: ignore[no-any-return]

    @cached_property
    def elb(self) -> Any:
        """Elastic Load Balancing, classic: to delete load balancers of Kubernetes Services."""
        return self._client("elb")

    @cached_property
    def elbv2(self) -> Any:
        """Elastic Load Balancing, application and network: for the same purpose."""
        return self._client("elbv2")

    @cached_property
    def pricing(self) -> Any:
        """The AWS Price List, with a single attempt and short time limits."""
        return self._client("pricing", once=True, connect=2.0, answer=3.0)

    @cached_property
    def quotas(self) -> Any:
        """Service Quotas."""
        return self._client("service-quotas")

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3."""
        return self._client("s3")  # type: ignore[no-any-return]

    @cached_property
    def s3_once(self) -> S3Client:
        """Amazon S3 with a single attempt: a write on a condition may be refused for its own."""
        return self._client("s3", once=True)  # type: ignore[no-any-return]

    @cached_property
    def sagemaker(self) -> SageMakerClient:
        """Amazon SageMaker."""
        return self._client("sagemaker")  # type: ignore[no-any-return]

    @cached_property
    def sts(self) -> STSClient:
        """AWS STS."""
        return self._client("sts")  # type: ignore[no-any-return]

    @property
    def identity(self) -> Identity:
        """The caller, asked of STS once; raises NoAnswer if the answer has no ARN."""
        return self._shared.once("identity", self._identity)

    def _identity(self) -> Identity:
        arn = str(self.sts.get_caller_identity().get("Arn", ""))
        if not re.fullmatch(r"arn:[\w-]+:\w+::[0-9]{12}:.+", arn):
            raise NoAnswer(f"sts:GetCallerIdentity: the answer is not from AWS: {arn[:100]!r}")
        _, partition, _, _, account, _ = arn.split(":", 5)
        return Identity(arn, account, partition, self.region)

    def tags(self, label: str) -> dict[str, str]:
        """Return the user's tags and those by which a resource is found and its owner known."""
        return self.user_tags | {
            "Name": f"{self.cluster}-{label}",
            CLUSTER: self.cluster,
            LINEAGE: self.lineage,
            LABEL: label,
        }

    def pairs(self, label: str, more: Mapping[str, str] | None = None) -> list[TagTypeDef]:
        """Return the tags as Key/Value pairs (IAM, S3, SageMaker); ``more`` replaces equal keys."""
        tags = self.tags(label) | dict(more or {})
        return [{"Key": key, "Value": value} for key, value in tags.items()]

    def born_with(
        self, label: str, resource_type: str, more: Mapping[str, str] | None = None
    ) -> list[Json]:
        """Return the tags as ``TagSpecifications`` of EC2's create calls."""
        return [{"ResourceType": resource_type, "Tags": self.pairs(label, more)}]


class Answer(JsonObject):
    """A structure in an answer; reading a missing member raises HyperpodError that names it.

    AWS's output shapes guarantee no member, and botocore reads null as missing.  Optional members
    are read with ``get``.
    """

    call = ""

    @classmethod
    def of(cls, call: str, value: Json) -> Json:
        """Convert all mappings in a value to answers of ``call`` (``service:Operation``)."""
        if isinstance(value, dict):
            found = cls(value)
            found.call = call
            for key, each in value.items():
                if isinstance(each, (dict, list)):
                    found[key] = cls.of(call, each)
            return found
        return [cls.of(call, each) for each in value] if isinstance(value, list) else value

    def __missing__(self, key: str) -> Json:
        raise HyperpodError(
            f"the answer to {self.call} has no {key}", "Run the same command again in a moment."
        )


def _name_service(parsed: JsonObject, model: OperationModel, **_: object) -> None:
    """Add the service's name to the answer, since EKS and SageMaker both have CreateCluster.

    Also log the call, with the request id that AWS Support asks for.
    """
    meta = parsed.setdefault("ResponseMetadata", {})
    meta["Service"] = service = model.service_model.service_name
    code = parsed.get("Error", {}).get("Code") or meta.get("HTTPStatusCode", "")
    log.info("%s:%s %s %s", service, model.name, code, meta.get("RequestId", ""))


def read_only(session: Session) -> None:
    """Make the session's future clients raise RuntimeError before a call that may change AWS.

    For read-only commands: such a call is a bug of ours, and is not sent.
    """

    def refuse(model: OperationModel, **_: object) -> None:
        service = model.service_model.service_name
        if service not in LOGIN and not _READS.match(model.name):
            raise RuntimeError(f"{service}:{model.name} from a command that only looks")

    session.get_component("event_emitter").register("before-call", refuse)


_READS = re.compile("Describe|Filter|Get|List|Head|Search|Simulate|Decode")
