"""``hyperpod-eks nodes``: list nodes, or act on some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from hyperpod_eks.cli import options as shared
from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.console import Log
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import argument
from hyperpod_eks.errors import HyperpodError, Usage
from hyperpod_eks.frozen import frozen
from hyperpod_eks.terminal.text import clean, cut

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.literals import DeepHealthCheckTypeType
    from mypy_boto3_sagemaker.type_defs import InstanceGroupHealthCheckConfigurationTypeDef

    from hyperpod_eks.aws.snapshot import Snapshot
    from hyperpod_eks.cli.schemas.views import Failed, NodeAction, NodeChange, NodeList
    from hyperpod_eks.documents import JsonMapping
    from hyperpod_eks.events import Report
    from hyperpod_eks.kube.nodes import Node
    from hyperpod_eks.resources.hyperpod.api import NodeRow

BATCH = 25
"""Maximum nodes in one call (SageMaker API BatchRebootClusterNodes, NodeIds)."""
SHOWN = 100
"""Maximum nodes in the text; if there are more, it lists those with a problem."""
USUAL: tuple[DeepHealthCheckTypeType, ...] = ("InstanceStress", "InstanceConnectivity")
"""The checks of a group that has none; the second needs two nodes."""
MOST_CHECKED = 500
"""Maximum nodes of a group in one check (SageMaker API InstanceGroupHealthCheckConfiguration)."""
BATCHES: Mapping[str, str] = {
    "reboot": "batch_reboot_cluster_nodes",
    "replace": "batch_replace_cluster_nodes",
}
"""SageMaker's operations that take nodes in batches."""
CHECKED = (
    "no new pods start there until the deep health checks pass; pods there compete with the checks"
    " for the accelerators, and stop if HyperPod reboots or replaces a node that fails"
)
ACTIONS: Mapping[NodeAction, tuple[str, str]] = {
    "reboot": ("rebooting", "the pods there stop"),
    "replace": ("replacing", "the pods there stop"),
    "check": ("checking", CHECKED),
    "delete": ("deleting", "the pods there stop"),
}
"""By action: what happens to a node, and to the pods there."""


@frozen
class Options(shared.Lock, shared.Cluster):
    """Options of nodes."""

    action: str | None = argument(metavar="[reboot|replace|check|delete]")
    which: tuple[str, ...] = argument(nargs=-1, metavar="[NODE]...")
    yes: bool = shared.yes()


def nodes(options: Options, report: Report) -> NodeList | NodeChange:
    """List, reboot, replace, check or delete nodes.

    Without an action it lists the nodes of cluster NAME with status, readiness and health.  Pods on
    a node stop when it is rebooted or replaced; a replaced node also loses its disks.

    check starts HyperPod's deep health checks, which run for an hour or more: those that the group
    runs on new nodes, else InstanceStress, and InstanceConnectivity for several nodes of a group.
    New pods start on a node once it has passed; HyperPod reboots or replaces a node that fails.

    delete removes these nodes with their disks.  It reduces the instance_count of their group, in
    the cluster's config and with -f in the file, where nothing else changes.
    """
    from hyperpod_eks.cli.confirm import confirm
    from hyperpod_eks.cli.lookup import cluster, described, instance

    options = _understood(options)
    action = next((verb for verb in ACTIONS if verb == options.action), None)
    if options.action and not action:
        *others, last = ACTIONS
        raise Usage(f"nodes: unknown action {options.action!r}; use {', '.join(others)} or {last}")
    if action and not options.which:
        see = called(options.name or "", options)
        raise Usage(f"nodes {action}: NODE is missing", f"To list them: hyperpod-eks nodes {see}")
    ids = list(dict.fromkeys(map(instance, options.which)))
    if action == "delete":
        from hyperpod_eks.cli.node_deletion import delete

        return delete(options, ids, report, yes=options.yes)
    with cluster(options, write=bool(action)) as (snapshot, name):
        found = described(snapshot, name, options)
        if action is None:
            return _listed(snapshot, name, found)
        checks, unknown = _checks(snapshot, found, ids) if action == "check" else ([], [])
        what = f"{action} of {len(ids)} node{'s' * (len(ids) > 1)} of {name}: {ACTIONS[action][1]}"
        confirm(what, "Continue?", yes=options.yes)
        if action in BATCHES:
            return _act(snapshot, name, action, ids)
        if checks:
            snapshot.aws.sagemaker.start_cluster_health_check(
                ClusterName=name, DeepHealthCheckConfigurations=checks
            )
        return _changed(
            name,
            action,
            [each for each in ids if each not in unknown],
            [
                {
                    "instance_id": each,
                    "code": "InstanceIdNotFound",
                    "message": f"the cluster {name} has no node {each}",
                }
                for each in unknown
            ],
        )


def _understood(options: Options) -> Options:
    """Use the first argument as the action if it is one and something else names the cluster."""
    name, action, which = options.name, options.action, options.which
    if name not in ACTIONS or action in ACTIONS or not (action or options.named_otherwise):
        return options
    which = (action, *which) if action else which
    return replace(options, name=None, action=name, which=which)


def _listed(snapshot: Snapshot, name: str, found: JsonMapping) -> NodeList:
    from hyperpod_eks.kube.nodes import list_nodes
    from hyperpod_eks.resources import eks
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    registered: list[Node] = []
    with suppress(HyperpodError):  # the API server may not answer: show HyperPod's view
        access = eks.access(snapshot, snapshot.aws.adopted.get("eks/cluster") or name)
        registered = list_nodes(access, name) if access else []
    return {
        **head("nodes"),
        "cluster": {"name": name},
        "groups": [
            {
                "name": group["InstanceGroupName"],
                "current": group.get("CurrentCount", 0),
                "target": group.get("TargetCount", 0),
            }
            for group in hyperpod_api.every_group(found)
        ],
        "nodes": hyperpod_api.node_rows(snapshot, name, registered),
    }


def _checks(
    snapshot: Snapshot, found: JsonMapping, ids: Sequence[str]
) -> tuple[list[InstanceGroupHealthCheckConfigurationTypeDef], list[str]]:
    """Return the checks of nodes by group, and the ids that the cluster does not have.

    Raises Usage for nodes without accelerators, and for more than AWS takes.
    """
    from hyperpod_eks.config.group_checks import ACCELERATED
    from hyperpod_eks.resources.hyperpod import api as hyperpod_api

    there = {
        row["instance_id"]: row
        for row in hyperpod_api.node_rows(snapshot, found["ClusterName"], [])
    }
    chosen: dict[str, list[str]] = {}
    for row in (there[each] for each in ids if each in there):
        if not ACCELERATED.match(row["instance_type"]):
            raise Usage(
                f"nodes check: {row['instance_id']} is an {row['instance_type']};"
                " deep health checks test accelerators, which it does not have"
            )
        chosen.setdefault(row["instance_group"], []).append(row["instance_id"])
    if many := [group for group, nodes in chosen.items() if len(nodes) > MOST_CHECKED]:
        raise Usage(
            f"nodes check: at most {MOST_CHECKED} nodes of {many[0]} can be checked at once"
        )
    on_start = {
        group["InstanceGroupName"]: group.get("OnStartDeepHealthChecks") or ()
        for group in hyperpod_api.every_group(found)
    }
    checks: list[InstanceGroupHealthCheckConfigurationTypeDef] = [
        {
            "InstanceGroupName": group,
            "InstanceIds": nodes,
            "DeepHealthChecks": [*on_start.get(group, ())] or list(USUAL[: len(nodes)]),
        }
        for group, nodes in chosen.items()
    ]
    return checks, [each for each in ids if each not in there]


def _act(snapshot: Snapshot, name: str, action: NodeAction, ids: list[str]) -> NodeChange:
    call = getattr(snapshot.aws.sagemaker, BATCHES[action])
    done: list[str] = []
    failed: list[Failed] = []
    for start in range(0, len(ids), BATCH):
        answer = call(ClusterName=name, NodeIds=ids[start : start + BATCH])
        done += answer.get("Successful", ())
        failed += [
            {"instance_id": e["NodeId"], "code": e["ErrorCode"], "message": e.get("Message", "")}
            for e in answer.get("Failed", ())
        ]
    return _changed(name, action, done, failed)


def _changed(name: str, action: NodeAction, done: list[str], failed: list[Failed]) -> NodeChange:
    from hyperpod_eks.cli.lookup import exit_of

    return {
        **head("nodes", exit_of(done, failed)),
        "cluster": {"name": name},
        "action": action,
        "done": done,
        "failed": failed,
        "scaled": {},
    }


def text(document: NodeList | NodeChange) -> str:
    """Return the text of the document: the nodes, or the result of the action."""
    if "action" in document:
        doing, _ = ACTIONS[document["action"]]
        rows = [f"{doing} {each}" for each in document["done"]]
        rows += [
            f"refused {each['instance_id']}: {each['code']} {clean(each['message'])}".rstrip()
            for each in document["failed"]
        ]
        rows += [
            f"{group}: {before} -> {now} nodes"
            for group, (before, now) in document["scaled"].items()
        ]
        return "\n".join(rows)
    return _table(document)


def _table(document: NodeList) -> str:
    rows = document["nodes"]
    bad = [row for row in rows if not _well(row)]
    shown = rows if len(rows) <= SHOWN else bad[:SHOWN]
    lines = _columns(shown) if shown else []
    if len(rows) > len(shown):
        lines.append(f"({len(rows) - len(shown)} more; all of them: -o json)")
    ready = Counter(row["instance_group"] for row in rows if _well(row))
    lines += [
        f"{group['name']}: {group['current']} of {group['target']} nodes,"
        f" {ready[group['name']]} ready"
        for group in document["groups"]
    ]
    return "\n".join(lines)


def _columns(rows: Sequence[NodeRow]) -> list[str]:
    cells = [("NODE", "GROUP", "TYPE", "STATUS", "READY", "HEALTH", "")]
    cells += [
        (
            row["instance_id"],
            row["instance_group"],
            row["instance_type"],
            row["status"],
            "yes" if row["ready"] else "no",
            row["health"] or "-",
            cut(clean(row["why"]), 60),
        )
        for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(6)]
    return [
        "  ".join([*(v.ljust(w) for v, w in zip(row, widths, strict=False)), row[6]]).rstrip()
        for row in cells
    ]


def _well(row: NodeRow) -> bool:
    return bool(
        row["status"] == "Running" and row["ready"] and row["health"] in ("Schedulable", "")
    )


command = define(
    "nodes",
    Options,
    nodes,
    text,
    """
    hyperpod-eks nodes demo
    hyperpod-eks nodes demo reboot i-0ab12cd34ef56ab78
    hyperpod-eks nodes demo replace i-0ab12cd34ef56ab78 --yes
    hyperpod-eks nodes demo check i-0ab12cd34ef56ab78 i-0cd34ef56ab780ab1
    hyperpod-eks nodes demo delete i-0ab12cd34ef56ab78
    hyperpod-eks nodes -f cluster.yaml delete i-0ab12cd34ef56ab78
    """,
    log=lambda options: Log.KEPT if options.action else Log.IF_IT_FAILS,
)
