"""``hyperpod-eks nodes`` and ``ssm``: the nodes, and ways to mend one."""

from __future__ import annotations

import os
import shlex
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from hyperpod_eks.aws.client import Snapshot
from hyperpod_eks.cli.confirm import confirm
from hyperpod_eks.cli.documents import Document, called, head
from hyperpod_eks.cli.opening import cluster, described, described_node, instance
from hyperpod_eks.errors import Exit, HyperpodError, Usage
from hyperpod_eks.events import Report
from hyperpod_eks.kube import client as kube
from hyperpod_eks.programs import on_path
from hyperpod_eks.resources import eks
from hyperpod_eks.resources.hyperpod import api as hyperpod_api
from hyperpod_eks.terminal.text import clean, cut

BATCH = 25
"""Nodes of one call (SageMaker API BatchRebootClusterNodes, NodeIds)."""
SHOWN = 100
"""Nodes that people are shown one by one; of more, those with a problem."""
VERBS = {"reboot": "batch_reboot_cluster_nodes", "replace": "batch_replace_cluster_nodes"}


def nodes(
    tell: Report, action: str | None, which: tuple[str, ...], yes: bool, **given: Any
) -> Document:
    """List the nodes, or reboot or replace some of them.

    Where something else names the cluster, the first word is the action.
    """
    if given["name"] in VERBS and action not in VERBS and (action or _named_otherwise(given)):
        which = (action, *which) if action else which
        action, given = given["name"], given | {"name": None}
    if action and action not in VERBS:
        raise Usage(f"nodes: {action!r} is neither {' nor '.join(VERBS)}")
    if action and not which:
        see = called(given["name"] or "", given)
        raise Usage(f"nodes {action}: which nodes?", f"To list them: hyperpod-eks nodes {see}")
    with cluster(given, write=bool(action)) as (snapshot, name):
        found = described(snapshot, name, given)
        if action is None:
            return _listed(snapshot, name, found)
        ids = list(dict.fromkeys(map(instance, which)))
        deed = f"{action} of {len(ids)} node{'s' * (len(ids) > 1)} of {name}: what runs there stops"
        confirm(deed, "Continue?", yes=yes)
        return _act(snapshot, name, action, ids)


def _listed(snapshot: Snapshot, name: str, found: Mapping[str, Any]) -> Document:
    registered: list[kube.Node] = []
    with suppress(HyperpodError):  # the API server may be out of reach: HyperPod's view remains
        access = eks.access(snapshot, snapshot.aws.adopted.get("eks/cluster") or name)
        registered = kube.nodes(access, name) if access else []
    return head("nodes") | {
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


def _act(snapshot: Snapshot, name: str, action: str, ids: list[str]) -> Document:
    call = getattr(snapshot.aws.sagemaker, VERBS[action])
    done: list[str] = []
    failed: list[dict[str, str]] = []
    for start in range(0, len(ids), BATCH):
        answer = call(ClusterName=name, NodeIds=ids[start : start + BATCH])
        done += answer.get("Successful", ())
        failed += [
            {"instance_id": e["NodeId"], "code": e["ErrorCode"], "message": e.get("Message", "")}
            for e in answer.get("Failed", ())
        ]
    return head("nodes", Exit.FAILED if failed else Exit.OK) | {
        "cluster": {"name": name},
        "action": action,
        "done": done,
        "failed": failed,
    }


# --- ssm


def ssm(tell: Report, node: str | None, run: bool, **given: Any) -> Document:
    """Spell the command that opens a shell on a node; with ``run``, become it.

    Where something else names the cluster, the only word is the node.
    """
    if node is None and given["name"] and _named_otherwise(given):
        node, given = given["name"], given | {"name": None}
    if node is None:
        see = called(given["name"] or "", given)
        raise Usage("ssm: which node?", f"To list them: hyperpod-eks nodes {see}")
    with cluster(given) as (snapshot, name):
        found, id_ = described(snapshot, name, given), instance(node)
        details = described_node(snapshot, name, id_, given)
        cluster_id = found["ClusterArn"].rpartition("/")[2]
        target = f"sagemaker-cluster:{cluster_id}_{details['InstanceGroupName']}-{id_}"
        command = ["aws", "ssm", "start-session", "--target", target]
        command += ["--region", str(snapshot.aws.session.region_name)]
        command += ["--profile", given["profile"]] if given["profile"] else []
    if run:
        _become(command)
    return head("ssm") | {
        "cluster": {"name": name},
        "target": target,
        "run": shlex.join(command),
    }


def _named_otherwise(given: Mapping[str, Any]) -> bool:
    """Whether a file, a manifest or a variable says which cluster it is."""
    return bool(given["file"] or given["manifest"] or os.environ.get("HYPERPOD_EKS_NAME"))


def _become(command: list[str]) -> None:
    """Replace this process by the session, so that the keyboard is its own."""
    program = on_path(command[0])
    if program is None:
        raise Usage(
            "--run: there is no aws on PATH",
            "Install the AWS CLI and its Session Manager plugin, or leave --run out.",
        )
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(program, command)  # noqa: S606  the user asked for it


# --- text


def text(document: Document) -> str:
    """Write the nodes, what was done to them, or the command for people."""
    if document["command"] == "ssm":
        return str(document["run"])
    if "action" in document:
        verbs = {"reboot": "rebooting", "replace": "replacing"}
        rows = [f"{verbs[document['action']]} {each}" for each in document["done"]]
        rows += [
            f"refused {each['instance_id']}: {each['code']} {clean(each['message'])}".rstrip()
            for each in document["failed"]
        ]
        return "\n".join(rows)
    return _table(document)


def _table(document: Document) -> str:
    rows = document["nodes"]
    bad = [row for row in rows if not _well(row)]
    shown = rows if len(rows) <= SHOWN else bad[:SHOWN]
    lines = []
    if shown:
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
            for row in shown
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(6)]
        lines = [
            "  ".join([*(v.ljust(w) for v, w in zip(row, widths, strict=False)), row[6]]).rstrip()
            for row in cells
        ]
    if len(rows) > len(shown):
        lines.append(f"({len(rows) - len(shown)} more; all of them: -o json)")
    ready = Counter(row["instance_group"] for row in rows if _well(row))
    lines += [
        f"{group['name']}: {group['current']} of {group['target']} nodes,"
        f" {ready[group['name']]} ready"
        for group in document["groups"]
    ]
    return "\n".join(lines)


def _well(row: Mapping[str, Any]) -> bool:
    return bool(
        row["status"] == "Running" and row["ready"] and row["health"] in ("Schedulable", "")
    )
