"""``hyperpod-eks outputs``: print values for scripts, read from the manifest."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from hyperpod_eks.cli.command import define
from hyperpod_eks.cli.documents import called, head
from hyperpod_eks.cli.options import Output, Place, argument
from hyperpod_eks.errors import NotFound
from hyperpod_eks.frozen import frozen

if TYPE_CHECKING:
    from hyperpod_eks.cli.schemas.base import Value
    from hyperpod_eks.cli.schemas.views import AllOutputs, OneOutput
    from hyperpod_eks.events import Report
    from hyperpod_eks.state.manifest import Manifest

IDS = {
    "vpc_id": "network/vpc",
    "security_group_id": "network/security-group",
    "bucket": "s3/bucket",
    "cluster_role": "iam/cluster-role",
    "execution_role": "iam/execution-role",
    "eks_cluster_name": "eks/cluster",
}
"""Outputs that are a resource's id: key of the resource by name of the output."""
ARNS = {"cluster_arn": "hyperpod/cluster", "eks_cluster_arn": "eks/cluster"}
"""Outputs that are a resource's ARN: key of the resource by name of the output."""


@frozen
class Options(Place, Output):
    """Options of outputs."""

    key: str | None = argument()


def outputs(options: Options, report: Report) -> AllOutputs | OneOutput:
    """Print values of cluster NAME for scripts.

    Prints the value of KEY, or all values, from the manifest.  Does not call AWS.  -o env prints
    assignments that are safe for eval; -o dotenv and -o github fit the files of CI systems.
    """
    from hyperpod_eks.cli.remembered import remembered, store_for
    from hyperpod_eks.state.manifest import Manifest

    key = options.key
    named_otherwise = options.file or options.manifest
    if (
        key is None
        and named_otherwise
        and options.name in values(Manifest(store_for(options, ""), ""))
    ):
        key, options = options.name, replace(options, name=None)
    manifest = remembered(options)
    found = values(manifest)
    document: AllOutputs = {
        **head("outputs"),
        "cluster": {"name": manifest.cluster},
        "serial": manifest.serial,
        "outputs": found,
    }
    return document if key is None else _one(document, key, options)


def _one(document: AllOutputs, key: str, place: Place) -> OneOutput:
    """Return one output.  Raises NotFound for an unknown key, and if it has no value yet."""
    found, cluster = document["outputs"], document["cluster"]["name"]
    if key not in found:
        raise NotFound(f"the cluster {cluster} has no output {key}", f"It has {', '.join(found)}.")
    if found[key] in (None, []):
        raise NotFound(
            f"outputs: {key} of {cluster} does not exist yet",
            f"Run: hyperpod-eks create {called(cluster, place)}",
        )
    return {**document, "outputs": {key: found[key]}, "key": key}


def values(manifest: Manifest) -> dict[str, Value]:
    """Return the outputs by name; an output is None until its resource exists.

    They are the ``outputs`` of create's document, and do not change from create to create.
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


def text(document: AllOutputs | OneOutput) -> str:
    """Return outputs as text; a single value without its name."""
    found = document["outputs"]
    if "key" in document:
        value = found[document["key"]]
        return "\n".join(value) if isinstance(value, list) else str(value)
    width = max(map(len, found))
    return "\n".join(
        f"{name:<{width}}  {(' '.join(value) if isinstance(value, list) else value) or '-'}"
        for name, value in found.items()
    )


command = define(
    "outputs",
    Options,
    outputs,
    text,
    """
    hyperpod-eks outputs demo
    hyperpod-eks outputs demo vpc_id
    eval "$(hyperpod-eks outputs demo -o env)"     sets $HYPERPOD_EKS_VPC_ID and others
    """,
)
