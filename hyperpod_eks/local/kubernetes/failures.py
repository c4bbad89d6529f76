"""What goes wrong inside a cluster when somebody orders it: switches that follow real failures.

``Sim.failures["kubernetes/SWITCH"]`` orders one; taking it out heals the cluster.  A switch works
at the next look of the controllers (`Cluster.wake`):

- ``devices``: names of resources, split by commas, whose plugin does not run: the kubelet keeps
  their capacity and offers none (Kubernetes docs, "Device Plugins");
- ``crash``: a part of the names of pods whose containers end with exit code 1 again and again.
"""

from __future__ import annotations

from collections.abc import Callable

from .objects import Obj, dig

Failing = Callable[[str], str]
"""Returns how a switch is set; an empty string if it is not."""


def nothing(switch: str) -> str:
    """Let everything work."""
    return ""


def offered(node: Obj, failing: Failing) -> dict[str, str]:
    """What a node offers to pods: its capacity, without devices whose plugin does not run."""
    gone = failing("devices").split(",")
    amounts = dig(node, "status", "capacity") or {}
    return {name: "0" if name in gone else amount for name, amount in amounts.items()}


def crashes(pod: Obj, failing: Failing) -> bool:
    """Whether the containers of a pod end again and again."""
    part = failing("crash")
    return bool(part) and part in pod["metadata"]["name"]


def is_crashed(pod: Obj) -> bool:
    """Whether a pod's containers wait for their next start after they have crashed."""
    statuses = dig(pod, "status", "containerStatuses") or []
    return any(dig(each, "state", "waiting", "reason") == "CrashLoopBackOff" for each in statuses)


def crashed(pod: Obj) -> Obj:
    """The status of a pod whose containers crash (Kubernetes docs, "Pod Lifecycle")."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    statuses = []
    for each in pod["status"]["containerStatuses"]:
        back_off = (
            f"back-off 5m0s restarting failed container={each['name']}"
            f" pod={name}_{namespace}({pod['metadata']['uid']})"
        )
        waiting = {"reason": "CrashLoopBackOff", "message": back_off}
        last = {"terminated": {"exitCode": 1, "reason": "Error"}}
        over = {"ready": False, "started": False, "restartCount": 5}
        statuses.append({**each, **over, "state": {"waiting": waiting}, "lastState": last})
    conditions = [
        {**each, "status": "False", "reason": "ContainersNotReady"}
        if each["type"] in ("Ready", "ContainersReady")
        else each
        for each in pod["status"]["conditions"]
    ]
    return {**pod["status"], "conditions": conditions, "containerStatuses": statuses}
