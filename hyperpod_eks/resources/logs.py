"""CloudWatch Logs log groups of EKS and HyperPod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.aws.tags import owner
from hyperpod_eks.documents import JsonMapping, JsonObject
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Differs, Facts, Guard, Lifecycle, Live, References, Resource
from hyperpod_eks.resources.ec2.vpc import Vpc
from hyperpod_eks.resources.permissions import Statement, Statements, actions, look
from hyperpod_eks.resources.tagged import Candidate, Tagged, tags_of

CREATE = actions(
    "logs",
    "AssociateKmsKey",
    "CreateLogGroup",
    "DescribeLogStreams",
    "DisassociateKmsKey",
    "GetLogEvents",
    "ListTagsForResource",
    "PutRetentionPolicy",
    "TagResource",
)


@frozen
class LogGroup(Resource):
    """The control plane's log group, created first, since EKS would set no retention."""

    name: str
    arn: str
    retention: int
    """Days."""
    key_arn: str = ""
    """ARN of a KMS key."""

    kind = "eks/LogGroup"
    step = "eks"
    tag_type = "log-group"
    keep_group = "logs"
    absence: ClassVar[Facts] = {
        "retention": None,  # PutRetentionPolicy: without one, forever
        "key_arn": "",  # AssociateKmsKey: without one, no key of the user's
    }
    deleted_at_once = True
    written_on = True
    facts = ("retention", "key_arn")
    later = ("retention",)
    signed = False  # EKS re-creates a deleted one while the cluster writes to it

    @property
    def source(self) -> str:
        """The EKS cluster, which writes to it, even for a while after its deletion."""
        return "eks/cluster"

    guards: ClassVar[Mapping[str, Guard]] = {
        # None: a new group keeps its logs forever
        "retention": lambda is_, days: (
            f"logs older than {days} days are deleted; until now they were kept for {is_} days"
            if is_ is not None and days < is_
            else ""
        ),
        "key_arn": lambda is_, key: (
            f"new logs are not encrypted with {is_} any more" if is_ and not key else ""
        ),
    }

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the log group's ARN."""
        group = f"/aws/eks/{resolved.eks_name}/cluster"
        own = tuple(resolved.arn("logs", f"log-group:{group}{end}") for end in ("", ":*"))
        yield look("logs", "DescribeLogGroups")
        yield Statement("LogsMake", CREATE, own)
        yield Statement("LogsDelete", ("logs:DeleteLogGroup",), own, command="delete")

    @classmethod
    def bare(cls, found: Tagged, resolved: ResolvedConfig, vpc: Vpc) -> LogGroup:
        """Declare it with the fields that a delete needs."""
        arn = resolved.arn("logs", f"log-group:{found.id}")
        return LogGroup(found.label, name=found.id, arn=arn, retention=0)

    @staticmethod
    def list_tagged(aws: Aws, cluster: str) -> Iterator[Candidate]:
        """Log groups with EKS's names."""
        prefix = f"/aws/eks/{cluster}/" if cluster else "/aws/eks/"
        ask = aws.logs.list_tags_for_resource
        pages = aws.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
        for page in pages:
            for group in page["logGroups"]:
                arn = group["arn"].removesuffix(":*")
                yield (
                    "log-group",
                    group["logGroupName"],
                    partial(tags_of, ask, "tags", resourceArn=arn),
                )

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by name."""
        logs = snapshot.aws.logs
        with absent("ResourceNotFoundException"):
            tags, groups = snapshot.gather(
                partial(logs.list_tags_for_resource, resourceArn=self.arn),
                partial(self._groups, snapshot),
            )
            if groups and not tags["tags"]:  # another run may have created it between the two calls
                tags = logs.list_tags_for_resource(resourceArn=self.arn)
            signed = owner(tags["tags"])
            return [Live(self.name, self.arn, signed, facts=self._facts(each)) for each in groups]
        return []

    def review(self, snapshot: Snapshot, live: Live, names: frozenset[str]) -> Sequence[Live]:
        """Read the list of groups again, but not the known tags."""
        facts = [self._facts(group) for group in self._groups(snapshot)]
        return [replace(live, facts=each, shown=None) for each in facts]

    def _groups(self, snapshot: Snapshot) -> list[JsonMapping]:
        about = {"logGroupNamePrefix": self.name}
        found = snapshot.all(snapshot.aws.logs, "describe_log_groups", "logGroups", **about)
        return [group for group in found if group["logGroupName"] == self.name]

    def _facts(self, group: JsonMapping) -> JsonObject:
        return {"retention": group.get("retentionInDays"), "key_arn": group.get("kmsKeyId", "")}

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; its name is unique in the region."""
        key: JsonObject = {"kmsKeyId": self.key_arn} if self.key_arn else {}
        aws.logs.create_log_group(logGroupName=self.name, tags=aws.tags(self.label), **key)
        facts = {"retention": None, "key_arn": self.key_arn}
        return Live(self.name, self.arn, owner=aws.lineage, facts=facts)

    def update(self, aws: Aws, references: References, live: Live, differs: Differs) -> Live:
        """Set retention and key, and tag a group that EKS re-created."""
        if live.owner is None:
            aws.logs.tag_resource(resourceArn=self.arn, tags=aws.tags(self.label))
        if "key_arn" in differs:
            if self.key_arn:
                aws.logs.associate_kms_key(logGroupName=self.name, kmsKeyId=self.key_arn)
            else:
                aws.logs.disassociate_kms_key(logGroupName=self.name)
        if "retention" in differs:
            aws.logs.put_retention_policy(logGroupName=self.name, retentionInDays=self.retention)
        facts = {"retention": self.retention, "key_arn": self.key_arn}
        return replace(live, owner=aws.lineage, facts=facts)

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete it, after the cluster: EKS re-creates it while the cluster writes to it."""
        aws.logs.delete_log_group(logGroupName=self.name)


@frozen
class HyperPodLogGroup(Resource):
    """HyperPod's log groups, which the service creates and never deletes.

    Each is named after its cluster's id, the end of the ARN (SageMaker developer guide,
    "HyperPod lifecycle scripts": ``/aws/sagemaker/Clusters/NAME/ID``).  Owned are those with
    ids that the manifest records or that were found to be ours; others belong to other clusters
    of this name.
    """

    prefix: str

    kind = "hyperpod/LogGroup"
    step = "hyperpod"
    keep_group = "logs"
    deleted_at_once = True
    written_on = True
    lifecycle = Lifecycle.LEFTOVER

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """Actions on the log group's ARN."""
        group = f"/aws/sagemaker/Clusters/{resolved.name}/*"
        own = tuple(resolved.arn("logs", f"log-group:{group}{end}") for end in ("", ":*"))
        yield look("logs", "DescribeLogGroups")
        yield Statement("LogsMake", CREATE, own)
        yield Statement("LogsDelete", ("logs:DeleteLogGroup",), own, command="delete")

    @property
    def source(self) -> str:
        """The HyperPod cluster: its nodes write until they are gone, and logs may arrive later."""
        return "hyperpod/cluster"

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find them by prefix: one group for each cluster that has had this name."""
        groups = snapshot.all(
            snapshot.aws.logs, "describe_log_groups", "logGroups", logGroupNamePrefix=self.prefix
        )
        names = [group["logGroupName"] for group in groups]
        ids = {arn.rpartition("/")[2] for arn in snapshot.aws.recorded}
        ours = [name for name in names if name.removeprefix(self.prefix) in ids]
        others = ", ".join(name for name in names if name not in ours)
        whose = f"another cluster of that name: {others}"
        stays = {"stays": f"belongs to {whose}"} if others else {}
        if ours:
            about = {"names": ours, **stays}
            return [Live(", ".join(ours), owner=snapshot.aws.lineage, attributes=about)]
        return [Live(others, owner="unknown", attributes={"whose": whose})] if others else []

    def delete(self, aws: Aws, live: Live) -> None:
        """Delete them, after the cluster, which writes until its end."""
        for name in live.attributes["names"]:
            aws.logs.delete_log_group(logGroupName=name)
