"""The documents that commands print; scripts/generate.py writes docs/schemas from these types.

In ``Annotated``, a string is the description of the member, and a mapping is added to its schema.
Members are only ever added (docs/pipelines.md).  Commands import these modules for mypy only.
"""

from __future__ import annotations

from typing import NamedTuple

from hyperpod_eks.cli.schemas.base import Json
from hyperpod_eks.cli.schemas.report import Report
from hyperpod_eks.cli.schemas.runs import (
    Adopted,
    Created,
    Deleted,
    DeletePlan,
    Failure,
    NotCreatedBy,
    Plan,
    Preflight,
    ResourceEvent,
    ResultEvent,
    Scaled,
    Test,
    Tested,
    Updated,
)
from hyperpod_eks.cli.schemas.views import (
    AllOutputs,
    Capacity,
    CapacityWritten,
    ClusterConfig,
    Diagram,
    Events,
    Explanation,
    Export,
    Init,
    Kubeconfig,
    List,
    Local,
    Logs,
    Mirror,
    NodeChange,
    NodeList,
    OneOutput,
    Orphans,
    Policy,
    Prepared,
    Remembered,
    Seen,
    Ssm,
    Unlocked,
    Validate,
    Version,
)


class Published(NamedTuple):
    """A published schema: its description, its documents, and the commands that print them."""

    description: str
    documents: tuple[type, ...]
    commands: tuple[str, ...] | None = None
    """None: the command with the schema's name; empty: any command."""


DOCUMENTS = {
    "capacity": Published(
        "Offerings of training plans, or the plan that was written; printed by capacity.",
        (Capacity, CapacityWritten),
    ),
    "cluster-config": Published(
        "The config of a cluster; printed by config show.", (ClusterConfig,), ("config show",)
    ),
    "diagram": Published("The picture of a cluster; printed by diagram.", (Diagram,)),
    "event": Published(
        "One line of --events; the last one has what=result.", (ResourceEvent, ResultEvent)
    ),
    "events": Published("What HyperPod reports of a cluster; printed by events.", (Events,)),
    "explain": Published("An explanation; printed by explain.", (Explanation,)),
    "export": Published(
        "The files that were written for another tool; printed by export.",
        (Export,),
        ("export terraform", "export cloudformation"),
    ),
    "init": Published("The config that was written; printed by init.", (Init,)),
    "kubeconfig": Published(
        "Where the entry was written; printed by kubeconfig. With --stdout it prints the kubeconfig"
        " itself.",
        (Kubeconfig,),
    ),
    "list": Published(
        "All HyperPod clusters of an account and who created them; printed by list.", (List,)
    ),
    "local": Published(
        "The embedded stack; printed by local prepare, start, status and stop.",
        (Local, Prepared),
        ("local prepare", "local start", "local status", "local stop"),
    ),
    "logs": Published("The end of lifecycle or control plane logs; printed by logs.", (Logs,)),
    "mirror": Published(
        "The images of a cluster's charts and their copies in ECR; printed by mirror.", (Mirror,)
    ),
    "nodes": Published(
        "The nodes of a cluster, or what was done to some; printed by nodes.",
        (NodeList, NodeChange),
    ),
    "orphans": Published(
        "Tagged resources that belong to no cluster; printed by orphans.", (Orphans,)
    ),
    "outputs": Published(
        "Values for scripts, from the manifest; printed by outputs.", (AllOutputs, OneOutput)
    ),
    "plan": Published(
        "What create would do, and what it costs; printed by plan. ok: nothing is refused.",
        (Plan,),
    ),
    "policy": Published(
        "IAM policies for the caller of create, status and delete; printed by policy.", (Policy,)
    ),
    "preflight": Published("What would stop create; printed by preflight.", (Preflight,)),
    "report": Published(
        "A cluster, its cost, history and findings, and a page with all of it; printed by report.",
        (Report,),
    ),
    "result": Published(
        "What create, scale, update-software, delete and adopt print, and every command that"
        " fails.",
        (Failure, Created, Tested, Scaled, Updated, Deleted, NotCreatedBy, DeletePlan, Adopted),
        (),
    ),
    "ssm": Published("How to open a shell on a node; printed by ssm.", (Ssm,)),
    "status": Published("What exists; printed by status.", (Seen, Remembered)),
    "test": Published("Whether a cluster works; printed by test.", (Test,)),
    "unlock": Published("Locks that were freed; printed by unlock.", (Unlocked,)),
    "validate": Published("A valid config; printed by validate.", (Validate,)),
    "version": Published("Versions; printed by version.", (Version,)),
}
"""Every published schema by name."""
CONDITIONS: dict[str, Json] = {
    "event": {
        "if": {"properties": {"what": {"const": "result"}}},
        "then": {"required": ["document"]},
        "else": {"required": ["key", "id", "why", "changed"]},
    },
    "nodes": {
        "if": {"required": ["action"]},
        "then": {"required": ["done", "failed"]},
        "else": {"required": ["groups", "nodes"]},
    },
    "result": {
        "if": {"properties": {"ok": {"const": False}}},
        "then": {
            "required": ["resume", "log_file"],
            "properties": {"error": {"type": "object"}},
        },
        "else": {
            "required": ["changed", "cluster", "account", "region", "partition", "steps"],
            "properties": {"error": {"type": "null"}},
        },
    },
}
"""Conditional JSON Schema rules, which types cannot express, by name of the schema."""
