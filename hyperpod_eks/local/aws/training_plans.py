"""Training plans: capacity bought ahead, as much of it as HyperPod asks about."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

from hyperpod_eks.local.aws.sim import ACCOUNT, current
from hyperpod_eks.local.aws.wire import Refused, in_order, page

Document = dict[str, Any]

_ZONES = "ab"  # of the region, where there is capacity to plan
_UPFRONT = "12345.67"


class TrainingPlans:
    """The training plans of a region, and the offerings that were found for them."""

    def __init__(self, region: str, in_use: Callable[[str], int]) -> None:
        """``in_use`` counts the instances that run under the plan of an ARN."""
        self._region, self._in_use = region, in_use
        self.plans: dict[str, Document] = {}
        """DescribeTrainingPlan's answers by ARN; ``Tags`` beside the API's members."""
        self._offerings: dict[str, Document] = {}

    def search(self, request: Document) -> Document:
        """Offer what is asked for, once in each zone (SearchTrainingPlanOfferings).

        Capacity that ends after EndTimeBefore is not offered.
        """
        sim = current()
        start = request.get("StartTimeAfter") or sim.clock.now()
        hours = request.get("DurationHours") or 24
        offerings = []
        latest = request.get("EndTimeBefore")
        if latest and start + timedelta(hours=hours) > latest:
            return {"TrainingPlanOfferings": []}
        for zone in _ZONES:
            name = f"{self._region}{zone}"
            offering_id = f"tpo-{sim.ids.getrandbits(48):012x}"
            offering = {
                "TrainingPlanOfferingId": offering_id,
                "TargetResources": request.get("TargetResources") or ["hyperpod-cluster"],
                "DurationHours": hours,
                "DurationMinutes": 0,
                "UpfrontFee": _UPFRONT,
                "CurrencyCode": "USD",
                "ReservedCapacityOfferings": [
                    {
                        "ReservedCapacityType": "Instance",
                        "InstanceType": request.get("InstanceType") or "ml.p5.48xlarge",
                        "InstanceCount": request.get("InstanceCount") or 1,
                        "AvailabilityZone": name,
                        "DurationHours": hours,
                        "DurationMinutes": 0,
                        "StartTime": start,
                        "EndTime": start + timedelta(hours=hours),
                    }
                ],
            }
            self._offerings[offering_id] = offering
            offerings.append(offering)
        return {"TrainingPlanOfferings": offerings}

    def create(self, request: Document) -> Document:
        """Buy an offering; the plan is Active when its time has come."""
        sim, name = current(), request["TrainingPlanName"]
        arn = f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:training-plan/{name}"
        if arn in self.plans:
            raise Refused("ResourceInUse", f"Training plan with name {name} already exists.")
        offering = self._offerings.get(request["TrainingPlanOfferingId"])
        if offering is None:
            text = f"Offering {request['TrainingPlanOfferingId']} not found."
            raise Refused("ResourceNotFound", text)
        capacity = offering["ReservedCapacityOfferings"][0]
        zone = capacity["AvailabilityZone"]
        reserved = sim.ids.getrandbits(48)
        summary = {
            **capacity,
            "ReservedCapacityArn": f"arn:aws:sagemaker:{self._region}:{ACCOUNT}:"
            f"reserved-capacity/{reserved:012x}",
            "TotalInstanceCount": capacity["InstanceCount"],
            "AvailabilityZoneId": zone_id(self._region, zone),
        }
        self.plans[arn] = {
            "TrainingPlanArn": arn,
            "TrainingPlanName": name,
            "DurationHours": offering["DurationHours"],
            "DurationMinutes": 0,
            "StartTime": capacity["StartTime"],
            "EndTime": capacity["EndTime"],
            "UpfrontFee": offering["UpfrontFee"],
            "CurrencyCode": "USD",
            "TotalInstanceCount": capacity["InstanceCount"],
            "TargetResources": offering["TargetResources"],
            "ReservedCapacitySummaries": [summary],
            "Tags": {tag["Key"]: tag["Value"] for tag in request.get("Tags") or []},
        }
        return {"TrainingPlanArn": arn}

    def describe(self, name_or_arn: str) -> Document:
        """Describe a plan as it stands now, with what clusters use of it."""
        plan = self.find(name_or_arn)
        status = _status(plan, current().clock.now())
        used = self._in_use(plan["TrainingPlanArn"])
        capacities = plan["ReservedCapacitySummaries"]
        return {
            **plan,
            "Status": status,
            "InUseInstanceCount": used,
            "AvailableInstanceCount": max(0, plan["TotalInstanceCount"] - used),
            "UnhealthyInstanceCount": 0,
            "ReservedCapacitySummaries": [{"Status": status, **each} for each in capacities],
        }

    def find(self, name_or_arn: str) -> Document:
        """Return a plan; ResourceNotFound without."""
        for arn, plan in self.plans.items():
            if name_or_arn in (arn, plan["TrainingPlanName"]):
                return plan
        raise Refused("ResourceNotFound", f"Training plan {name_or_arn} not found.")

    def summaries(self, request: Document) -> Document:
        """Answer ListTrainingPlans."""
        plans = [self.describe(arn) for arn in self.plans]
        wanted = {f["Value"] for f in request.get("Filters") or [] if f["Name"] == "Status"}
        found = [plan for plan in plans if not wanted or plan["Status"] in wanted]
        keys = {
            "TrainingPlanName": lambda plan: plan["TrainingPlanName"],
            "StartTime": lambda plan: plan["StartTime"],
            "Status": lambda plan: plan["Status"],
        }
        rows, token = page(in_order(found, request, keys, "StartTime"), request, limit=10)
        return {"TrainingPlanSummaries": rows, "NextToken": token}

    def zone(self, arn: str | None) -> str:
        """Return the Availability Zone of a plan's capacity; empty when there is no such plan."""
        plan = self.plans.get(arn or "")
        return plan["ReservedCapacitySummaries"][0]["AvailabilityZone"] if plan else ""


def _status(plan: Document, now: datetime) -> str:
    if now < plan["StartTime"]:
        return "Scheduled"
    return "Active" if now < plan["EndTime"] else "Expired"


def zone_id(region: str, zone: str) -> str:
    """Return the id of an Availability Zone, which is the same in every account."""
    zones = RegionsAndZonesBackend.zones[region]
    return next((str(z.zone_id) for z in zones if z.name == zone), "")
