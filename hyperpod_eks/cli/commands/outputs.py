"""What the manifest alone can tell: values for scripts, and the state as it was written last."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hyperpod_eks.cli.documents import Document, called, head
from hyperpod_eks.errors import NotFound, Usage
from hyperpod_eks.events import Report, steps_of
from hyperpod_eks.state.manifest import Manifest, read

IDS = {
    "vpc_id": "network/vpc",
    "security_group_id": "network/security-group",
    "bucket": "s3/bucket",
    "cluster_role": "iam/cluster-role",
    "execution_role": "iam/execution-role",
    "eks_cluster_name": "eks/cluster",
}
"""Outputs that are the id of one resource."""
ARNS = {"cluster_arn": "hyperpod/cluster", "eks_cluster_arn": "eks/cluster"}
"""Outputs that are its ARN."""


def values(manifest: Manifest) -> dict[str, Any]:
    """Return the values for scripts of what the manifest knows; a value is null until it is made.

    The same after every create, and the same as its ``outputs``.
    """
    there = {k: r for k, r in manifest.records.items() if r.id and r.state != "deleted"}

    def arn(key: str) -> str | None:
        return (there[key].arn or None) if key in there else None

    return {
        "cluster_name": manifest.cluster,
        "region": manifest.region,
        "account": manifest.account,
        **{name: arn(key) for name, key in ARNS.items()},
        **{name: there[key].id if key in there else None for name, key in IDS.items()},
        "private_subnet_ids": [
            record.id
            for key, record in sorted(there.items())
            if key.startswith("network/private-subnet-")
        ],
        "kubeconfig_command": f"aws eks update-kubeconfig --region {manifest.region}"
        f" --name {there['eks/cluster'].id if 'eks/cluster' in there else manifest.cluster}",
    }


def outputs(tell: Report, key: str | None, **given: Any) -> Document:
    """Return ``hyperpod-eks/outputs/v1``, or the value of one key; AWS is not asked."""
    named_by_file = given["file"] or given["manifest"]
    if key is None and named_by_file and given["name"] in values(Manifest(Path(), "")):
        key, given["name"] = given["name"], None
    manifest = remembered(**given)
    found = values(manifest)
    document = head("outputs") | {
        "cluster": {"name": manifest.cluster},
        "serial": manifest.serial,
        "outputs": found,
    }
    if key is None:
        return document
    if key not in found:
        raise Usage(f"outputs: there is no {key!r}", f"There are {', '.join(found)}.")
    if found[key] in (None, []):
        raise NotFound(
            f"outputs: {key} of {manifest.cluster} does not exist yet",
            f"Run: hyperpod-eks create {called(manifest.cluster, given)}",
        )
    return document | {"outputs": {key: found[key]}, "key": key}


def remembered(
    name: str | None, file: str | None, manifest: Path | None, *, absent: bool = False, **place: Any
) -> Manifest:
    """Read the manifest of a cluster that is named by an argument, a config file or a path.

    Raises NotFound where there is none, unless it may be ``absent``; nothing is asked of AWS.
    """
    if file:
        from hyperpod_eks.config.load import load  # noqa: PLC0415  pydantic and botocore's model

        name = load(file, {"name": name}, os.environ, files=False).name
    name = name or os.environ.get("HYPERPOD_EKS_NAME") or ""
    if not (name or manifest):
        raise Usage("which cluster?", "Give its NAME, its config (-f) or its --manifest.")
    path = manifest or Path(f"{name}.hyperpod-eks.json")
    it = called(name or "NAME", {**place, "file": file, "manifest": manifest})
    found = read(path, name, again=it)
    if not (found.exists or absent):
        raise NotFound(
            f"there is no manifest {path}",
            f"To create the cluster: hyperpod-eks create {it}\n"
            f"To rebuild the manifest of an existing one: hyperpod-eks adopt {it} --rebuild",
        )
    region = place.get("region")
    if region and found.region and found.region != region:
        raise Usage(
            f"{path} belongs to region {found.region}, not to {region}",
            "Leave --region out, or name another manifest (--manifest).",
        )
    return found


# The states of the journal in the words of ``status``.
_STATES = {
    "intent": "waiting",
    "created": "waiting",
    "ready": "ready",
    "deleting": "waiting",
    "deleted": "missing",
}


def offline(tell: Report, **given: Any) -> Document:
    """Return ``hyperpod-eks/status/v1`` from the manifest: what was so when it was written."""
    manifest = remembered(**given)
    steps: dict[str, list[Mapping[str, Any]]] = {}
    for key, record in manifest.records.items():
        step, _, label = key.partition("/")
        why = "" if record.state in ("ready", "deleted") else f"{record.state}, says the manifest"
        row = {"name": label, "id": record.id, "arn": record.arn, "why": why, "differs": {}}
        steps.setdefault(step, []).append({**row, "state": _STATES.get(record.state, "waiting")})
    cluster = manifest.records.get("hyperpod/cluster")
    ready = bool(manifest.records) and all(r.state == "ready" for r in manifest.records.values())
    return head("status") | {
        "source": "manifest",
        "cluster": {
            "name": manifest.cluster,
            "arn": cluster.arn if cluster else "",
            "status": f"{cluster.state if cluster else 'absent'} in the manifest",
            "failure": "",
            "ready": ready,
        },
        "account": manifest.account,
        "region": manifest.region,
        "eks": {},
        "addons": [],
        "helm": {},
        "instance_groups": [],
        "nodes": [],
        "steps": [
            {"name": name, "resources": steps[name]}
            for name in steps_of(manifest.records)
            if name in steps
        ],
        "differences": [],
    }


def text(document: Document) -> str:
    """Write outputs for people; one value alone as it is."""
    if document["schema"] == "hyperpod-eks/status/v1":
        from hyperpod_eks.cli.commands.status import text as status  # noqa: PLC0415

        return status(document)
    found = document["outputs"]
    if "key" in document:
        value = found[document["key"]]
        return "\n".join(value) if isinstance(value, list) else str(value)
    width = max(map(len, found))
    return "\n".join(
        f"{name:<{width}}  {(' '.join(value) if isinstance(value, list) else value) or '-'}"
        for name, value in found.items()
    )
