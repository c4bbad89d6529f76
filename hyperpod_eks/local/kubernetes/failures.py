"""What goes wrong inside a cluster when somebody orders it: switches that follow real failures.

``Sim.failures["kubernetes/SWITCH"]`` orders one; taking it out heals the cluster.  A switch works
at the next look of the controllers (`Cluster.wake`):

- ``devices``: names of resources, split by commas, whose plugin does not run: the kubelet keeps
  their capacity and offers none (Kubernetes docs, "Device Plugins");
- ``crash``: a part of the names of pods whose containers end with exit code 1 again and again;
- ``registry``: ``timeout`` or ``denied``, what containerd says of every image that it pulls now;
- ``mount``: volumes of claims cannot be mounted: the kubelet says FailedMount in events;
- ``sandbox``: the CNI has no address for a new pod: FailedCreatePodSandBox in events;
- ``dns``: ``cluster`` or ``all``, the names that pods cannot resolve;
- ``egress``: pods do not reach AWS; ``credentials``: the Pod Identity agent refuses them;
- ``file-system``: ``read-only``, for writes of pods;
- ``kubelet``: the API server does not reach the kubelets (port 10250), for logs and commands;
- ``nccl``: ``sockets``, ``slow`` or ``error``, how an all-reduce between nodes goes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from .errors import ApiError
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


class Trouble(NamedTuple):
    """Why a pod does not start: members of its status, and the event about it, if there is one."""

    status: Obj
    reason: str = ""
    message: str = ""


def starting(pod: Obj, failing: Failing) -> Trouble | None:
    """Return why the kubelet cannot start a pod; None if it can."""
    claims = [v["name"] for v in pod["spec"].get("volumes") or () if "persistentVolumeClaim" in v]
    creating = {"containerStatuses": _waiting(pod, "ContainerCreating", "")}
    if failing("sandbox"):
        message = (
            "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network"
            ' for sandbox: plugin type="aws-cni" name="aws-cni" failed (add): add cmd: failed to'
            " assign an IP address to container"
        )
        return Trouble(creating, "FailedCreatePodSandBox", message)
    if claims and failing("mount"):
        message = (
            f'MountVolume.SetUp failed for volume "{claims[0]}" : rpc error: code = Internal desc ='
            " Could not mount: mount.lustre: mount failed: Input/output error. Is the MGS running?"
        )
        return Trouble(creating, "FailedMount", message)
    if how := failing("registry"):
        image = pod["spec"]["containers"][0].get("image", "")
        why = f'failed to do request: Head "https://{image}": dial tcp: i/o timeout'
        if how == "denied":
            why = f"failed to resolve reference {image}: unexpected status: 403 Forbidden"
        message = f'Back-off pulling image "{image}": ErrImagePull: failed to pull: {why}'
        return Trouble({"containerStatuses": _waiting(pod, "ImagePullBackOff", message)})
    return None


def _waiting(pod: Obj, reason: str, message: str) -> list[Obj]:
    waiting = {"reason": reason, **({"message": message} if message else {})}
    return [
        {
            "name": each["name"],
            "ready": False,
            "started": False,
            "restartCount": 0,
            "image": each.get("image", ""),
            "imageID": "",
            "state": {"waiting": waiting},
        }
        for each in pod["spec"]["containers"]
    ]


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


def reach(pod: Obj, failing: Failing) -> None:
    """Raise ApiError 500 if the API server does not reach the kubelet of a pod."""
    if failing("kubelet") and pod["spec"].get("nodeName"):
        what = f'Get "https://10.1.0.9:10250/containerLogs/{pod["metadata"]["name"]}"'
        raise ApiError(500, "InternalError", f"{what}: dial tcp 10.1.0.9:10250: i/o timeout")
