"""What teams use of their quotas, as Kueue counts it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hyperpod_eks.aws.snapshot import Snapshot
from hyperpod_eks.config.teams import team_namespace
from hyperpod_eks.kube.queues import Queue, queues
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.governance import ComputeQuota
from hyperpod_eks.workers import start

SLOWEST = 10.0
"""Seconds that `status` waits for the queues."""


class TeamUse(Queue):
    """What a team has and uses."""

    team: str
    namespace: str


def queues_of(snapshot: Snapshot, name: str) -> dict[str, Queue] | str:
    """Return Kueue's queues in an EKS cluster; in words why not, after ten seconds at most."""

    def ask() -> dict[str, Queue]:
        access = eks.access(snapshot, name)
        return queues(access) if access else {}

    def bounded() -> dict[str, Queue] | str:
        try:
            return start(ask).result(SLOWEST)
        except TimeoutError:
            return f"the Kubernetes API has not answered for {SLOWEST:.0f} s"
        except Exception as error:  # noqa: BLE001  the rest of the status does not depend on it
            return str(error)

    return snapshot.once(("queues", name), bounded)


def use_of(quotas: Iterable[ComputeQuota], found: Mapping[str, Queue]) -> list[TeamUse]:
    """Return the use of the quotas whose queues exist."""
    names = {each.team: team_namespace(each.team) for each in quotas}
    return [
        {"team": team, "namespace": space, **found[f"{space}-clusterqueue"]}
        for team, space in names.items()
        if f"{space}-clusterqueue" in found
    ]
