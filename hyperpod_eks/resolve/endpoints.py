"""The interface endpoints that AWS offers, and in which zones."""

from __future__ import annotations

from collections.abc import Mapping

from hyperpod_eks.aws.ec2 import VPC_ENDPOINT_SERVICES
from hyperpod_eks.aws.failures import absent
from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.model import Config
from hyperpod_eks.errors import Usage
from hyperpod_eks.resolve.names import PRIVATE_SUBNET

CLOSED = (
    "ec2",
    "ec2messages",
    "ecr.api",
    "ecr.dkr",
    "eks",
    "eks-auth",
    "logs",
    "monitoring",
    "sagemaker.api",
    "ssm",
    "ssmmessages",
    "sts",
)
"""Services that nodes, add-ons and lifecycle scripts call; without NAT they need endpoints
(SageMaker developer guide, HyperPod prerequisites; EKS User Guide, "private clusters")."""
NOT_EVERYWHERE = frozenset({"ec2messages"})
"""Services that regions launched in 2024 and later lack (Systems Manager User Guide, "Reference:
ec2messages, ssmmessages, and other API operations")."""


def closed(config: Config) -> tuple[str, ...]:
    """Return the services that pods and nodes call, and that need endpoints without NAT."""
    return CLOSED if config.monitoring != "prometheus" else (*CLOSED, "aps-workspaces")


def endpoint_zones(snapshot: Snapshot, config: Config) -> dict[str, frozenset[str]] | None:
    """Return the zone ids in which each service has interface endpoints, from one call.

    None if the config needs no such endpoints or the call is denied: then every zone is tried.
    """
    names = _services(snapshot, config)
    if not names:
        return None
    prefix = f"com.amazonaws.{config.region}."
    wanted = {
        "service-name": [prefix + name for name in names],
        "service-type": ["Interface"],
    }
    with absent("UnauthorizedOperation"):
        found = snapshot.region(VPC_ENDPOINT_SERVICES, wanted)
        ids: dict[str, str] = {}
        if any(not each.get("AvailabilityZoneIds") for each in found):  # only names, as before ids
            ids = _zone_ids(snapshot)
        return {
            each["ServiceName"].removeprefix(prefix): frozenset(
                each.get("AvailabilityZoneIds")
                or [ids[name] for name in each.get("AvailabilityZones", ()) if name in ids]
            )
            for each in found
        }
    return None


def _zone_ids(snapshot: Snapshot) -> dict[str, str]:
    every = snapshot.aws.ec2.describe_availability_zones()["AvailabilityZones"]
    return {each["ZoneName"]: each["ZoneId"] for each in every}


def _services(snapshot: Snapshot, config: Config) -> tuple[str, ...]:
    """Return the services that get interface endpoints."""
    if (names := config.network.interface_endpoints) is not None:
        return names
    theirs = any(key.startswith(f"network/{PRIVATE_SUBNET}") for key in snapshot.adopted)
    return closed(config) if config.network.nat == "none" and not theirs else ()


def check_endpoints(
    config: Config, found: Mapping[str, frozenset[str]] | None, zones: tuple[str, ...]
) -> list[str]:
    """Raise Usage for a declared service without endpoints; return warnings for default ones."""
    if found is None:
        return []
    missing, named = [], config.network.interface_endpoints
    for name in named or closed(config):
        if found.get(name, frozenset()) & {*zones} or (name in found and not found[name]):
            continue
        where = f"in {', '.join(zones)}" if found.get(name) else f"in {config.region}"
        text = f"AWS has no interface endpoint of {name} {where}"
        if named is not None:
            hint = "Leave it out"
            if there := sorted(found.get(name, ())):
                hint += f", or choose zones among {', '.join(there)}"
            setting = "network.interface_endpoints"
            raise Usage(f"{setting}: {text}", f"{hint}.", setting=setting)
        if name not in NOT_EVERYWHERE:
            missing.append(f"network.nat: {text}; nodes cannot reach it without NAT")
    return missing
