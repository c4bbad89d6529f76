"""HyperPod's service-linked role."""

from __future__ import annotations

from collections.abc import Sequence

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.frozen import frozen
from hyperpod_eks.resolve.resolved import ResolvedConfig
from hyperpod_eks.resources.base import Lifecycle, Live, References, Resource
from hyperpod_eks.resources.iam import EKS_SERVICE, SCALING_SERVICE
from hyperpod_eks.resources.permissions import Conditions, Statement, Statements


@frozen
class ServiceLinkedRole(Resource):
    """HyperPod's service-linked role, one per account.

    CreateCluster would create it if the caller is allowed to; created earlier, a missing
    permission shows before anything costs money.  All clusters share it, so it is never deleted.
    """

    kind = "iam/ServiceLinkedRole"
    step = "iam"
    lifecycle = Lifecycle.SHARED

    name = "AWSServiceRoleForSageMakerHyperPod"
    service = SCALING_SERVICE

    @classmethod
    def permissions(cls, resolved: ResolvedConfig, declared: Sequence[Resource]) -> Statements:
        """CreateServiceLinkedRole for HyperPod and EKS."""
        services: Conditions = {"StringEquals": {"iam:AWSServiceName": [cls.service, EKS_SERVICE]}}
        every = (resolved.arn("iam", "role/aws-service-role/*"),)
        yield Statement("RolesOfServices", ("iam:CreateServiceLinkedRole",), every, services)

    def find(self, snapshot: Snapshot) -> Sequence[Live]:
        """Find it by the service's name for it."""
        with absent("NoSuchEntity"):
            role = snapshot.aws.iam.get_role(RoleName=self.name)["Role"]
            return [Live(self.name, role["Arn"])]
        return []

    def create(self, aws: Aws, references: References, token: str) -> Live:
        """Create it; IAM refuses a second one."""
        role = aws.iam.create_service_linked_role(AWSServiceName=self.service)["Role"]
        return Live(self.name, role["Arn"])

    def delete(self, aws: Aws, live: Live) -> None:
        """Do nothing: other clusters use it."""
