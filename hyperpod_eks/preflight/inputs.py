"""The input of the preflight checks, and their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from typing import Literal, NamedTuple, TypeVar

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.ec2 import INSTANCE_TYPES, Listing
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import Json, JsonMapping
from hyperpod_eks.errors import KnownCause
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Live, Resource
from hyperpod_eks.resources.compare import Observation, Status
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.state.manifest import Manifest

R = TypeVar("R", bound=Resource)
Severity = Literal["error", "warning", "info"]


@frozen
class Finding:
    """A problem that a check found.

    ``says`` is a sentence about the problem, ``seen`` are the same facts for programs, and ``fix``
    is what to do about it.  A finding with severity "error" would make create fail.
    """

    id: str
    severity: Severity
    says: str
    fix: str
    seen: JsonMapping = field(default_factory=dict)
    cause: KnownCause | None = None


class Quota(NamedTuple):
    """A service quota of the account."""

    value: float
    code: str
    region: str


def quota_rows(snapshot: Snapshot, service: str) -> list[Json]:
    """List the account's quotas of a service."""
    return snapshot.all(
        snapshot.aws.quotas,
        "list_service_quotas",
        "Quotas",
        ServiceCode=service,
        PaginationConfig={"PageSize": 100},
    )


@frozen
class Facts:
    """The config and the observed state of its account; methods read more from AWS when called.

    ``resolved`` is None if the config does not fit the account. Then ``observations`` is empty,
    and checks that depend on either find nothing.
    """

    aws: Aws
    config: Config
    resolved: ResolvedConfig | None = None
    observations: Mapping[str, Observation] = field(default_factory=dict)
    helm: str | None = None
    manifest: Manifest | None = None
    first_snapshot: Snapshot | None = None
    """An existing snapshot for the checks to share."""
    replace_failed: bool = False
    """Whether failed resources are replaced, as with ``create --replace-failed``."""
    called: str = ""
    """The cluster's name and the options that lead to it, as words of a command; its name if empty.
    """

    @cached_property
    def snapshot(self) -> Snapshot:
        """The snapshot whose answers all checks share."""
        return self.first_snapshot or Snapshot(self.aws)

    def command(self, verb: str) -> str:
        """Return a command of ours for this cluster."""
        return f"hyperpod-eks {verb} {self.called or self.config.name}"

    def live(self, key: str) -> Live | None:
        """Return a resource as AWS describes it; None if it does not exist or is not owned."""
        observation = self.observations.get(key)
        return (
            observation.live if observation and observation.status is not Status.FOREIGN else None
        )

    def missing(self, kind: type[R]) -> list[R]:
        """Return the declared resources of a kind that create would create."""
        return [
            observation.want
            for observation in self.observations.values()
            if isinstance(observation.want, kind) and observation.status is Status.ABSENT
        ]

    def adopted(self, key: str) -> str:
        """Return the id of the resource that is adopted under a key, or ""."""
        return self.aws.adopted.get(key, "")

    def quotas(self, service: str) -> dict[str, Quota]:
        """Return the account's quotas of a service by their names in Service Quotas.

        Names are the key because sources disagree on the codes.
        """
        rows = quota_rows(self.snapshot, service)
        return {
            row["QuotaName"]: Quota(row["Value"], row["QuotaCode"], self.config.region)
            for row in rows
        }

    def ec2(
        self,
        listing: Listing,
        filters: Mapping[str, Sequence[str]] | None = None,
        ids: Sequence[str] = (),
    ) -> list[Json]:
        """Return the EC2 resources of a kind in the region."""
        return self.snapshot.region(listing, filters, ids)

    def control_planes(self) -> list[str]:
        """Return the names of all EKS clusters in the region."""
        return self.snapshot.all(self.aws.eks, "list_clusters", "clusters")

    def clusters(self) -> dict[str, JsonMapping]:
        """Describe all HyperPod clusters in the region, by name."""
        found = self.snapshot.all(
            self.aws.sagemaker,
            "list_clusters",
            "ClusterSummaries",
            PaginationConfig={"PageSize": 100},
        )
        names = [each["ClusterName"] for each in found]
        described = {name: hyperpod_api.describe(self.snapshot, name) for name in names}
        return {name: each for name, each in described.items() if each}

    def efa(self) -> set[str]:
        """Return the declared instance types that support EFA."""
        types = sorted({kind for group in self.config.groups for kind in group.instance_types})
        named = {"instance-type": [each.removeprefix("ml.") for each in types]}
        found = self.ec2(INSTANCE_TYPES, named)
        return {
            f"ml.{each['InstanceType']}"
            for each in found
            if each.get("NetworkInfo", {}).get("EfaSupported")
        }


Check = Callable[[Facts], Iterable[Finding]]
