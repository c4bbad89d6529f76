"""An EKS cluster as the embedded stack keeps it: what AWS would describe, and what it hides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Addon:
    """An add-on; ``document`` is what DescribeAddon answers."""

    document: dict[str, Any]
    request: dict[str, Any]
    workload: tuple[str, str, str]
    """Kind, namespace, name."""
    healthy_since: float | None = None
    """When its Deployment was first seen with all its replicas, in the clock's seconds."""


@dataclass
class AccessEntry:
    """An access entry; ``document`` is what DescribeAccessEntry answers."""

    document: dict[str, Any]
    request: dict[str, Any]
    principal_id: str
    """The principal's unique id: a role made anew under the same ARN is somebody else."""
    effective: float
    """When, on the clock, the Kubernetes API knows it."""
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """AssociatedAccessPolicy by policy ARN."""
    policies_effective: float = 0.0


@dataclass
class Association:
    """A pod identity association; ``document`` is what DescribePodIdentityAssociation answers."""

    document: dict[str, Any]
    request: dict[str, Any]


@dataclass
class Cluster:
    """A cluster; ``document`` is what DescribeCluster answers."""

    document: dict[str, Any]
    request: dict[str, Any]
    creator: str
    """The ARN of the IAM principal that created it."""
    manager_token: str
    """With which EKS itself talks to the Kubernetes API."""
    interfaces: list[str]
    """The ids of the control plane's network interfaces."""
    addons: dict[str, Addon] = field(default_factory=dict)
    entries: dict[str, AccessEntry] = field(default_factory=dict)
    associations: dict[str, Association] = field(default_factory=dict)
    """Pod identity associations, by id."""
    updates: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Update documents by id, oldest first; ``addonName`` beside the API's members."""

    @property
    def name(self) -> str:
        """The cluster's name."""
        return str(self.document["name"])

    @property
    def arn(self) -> str:
        """The cluster's ARN."""
        return str(self.document["arn"])

    @property
    def status(self) -> str:
        """CREATING, ACTIVE, UPDATING, DELETING or FAILED."""
        return str(self.document["status"])

    @property
    def mode(self) -> str:
        """The authentication mode: API, API_AND_CONFIG_MAP or CONFIG_MAP."""
        return str(self.document["accessConfig"]["authenticationMode"])
