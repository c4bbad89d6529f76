"""Training plans, and the zones that they require of their groups."""

from __future__ import annotations

from collections.abc import Mapping

from hyperpod_eks.aws.client import Aws
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.config.groups import InstanceGroup, RestrictedInstanceGroup
from hyperpod_eks.config.model import Config
from hyperpod_eks.documents import Json, JsonMapping, JsonObject


def described_plans(aws: Aws, config: Config) -> dict[str, JsonObject]:
    """Describe the groups' training plans, by ARN; a plan that does not exist has no entry."""
    found = {}
    for arn in sorted({g.training_plan_arn for g in config.groups if g.training_plan_arn}):
        with absent("ResourceNotFound"):
            plan: Json = aws.sagemaker.describe_training_plan(
                TrainingPlanName=arn.rpartition("/")[2]
            )
            found[arn] = {
                "status": plan["Status"],
                # a plan may have several capacities, in several zones or one after the other
                "places": [
                    (each.get("InstanceType", ""), each.get("AvailabilityZoneId", ""))
                    for each in sorted(
                        plan.get("ReservedCapacitySummaries") or (),
                        key=lambda each: each.get("Status") != "Active",
                    )
                    if each.get("Status") not in ("Expired", "Failed")
                ],
                "total": plan.get("TotalInstanceCount", 0),
                "free": plan.get("AvailableInstanceCount", 0),
            }
    return found


def planned_zones(
    plans: Mapping[str, JsonMapping], group: InstanceGroup | RestrictedInstanceGroup
) -> list[str]:
    """Return the zone ids in which a group's training plan has its type, active ones first."""
    places = plans.get(group.training_plan_arn or "", {}).get("places", ())
    return [zone for kind, zone in places if kind == group.instance_types[0] and zone]
